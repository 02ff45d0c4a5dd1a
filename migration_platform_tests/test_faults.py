"""Servers that refuse, vanish, stand still or lose their answers: nothing is lost or doubled.

Servers of their own are killed and stopped here; a proxy loses and spoils single answers.
"""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from migration_platform.comparing.diff import diff_ranges
from migration_platform.copying.copy import CopyRange
from migration_platform.counts import RangeCounts
from migration_platform.errors import PermanentError, PreflightError, TransientError, is_transient
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.ports import free_port
from migration_platform.local.stack import Running, start
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra import connection as store
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.tables import truncate
from migration_platform.stores.work import Done, Failed
from migration_platform_tests.servers import (
    PATIENCE_SECONDS,
    SMALL_HEAP_MB,
    Proxy,
    jars_folder,
    proxy_before,
    run_server,
)
from migration_platform_tests.tables import (
    copy_ranges,
    create_keyspace,
    create_table,
    fill,
    in_process,
    insert_rows,
    patient_connection,
    plain_session,
    plan_copy,
    rows_of,
)

ROWS = 600
STANDSTILL_SECONDS = 30
# Without this a killed server forgets up to ten seconds of what it has acknowledged.
DURABLE = {"commitlog_sync": "batch", "commitlog_sync_period": "0ms"}


# -- a server that dies or stands still in the middle of a copy: its tests are at the end ------


@dataclass(frozen=True)
class Outcome:
    """What became of a copy during which something happened to the server."""

    events: list[Any]
    origin_rows: list[dict[str, Any]]
    target_rows: list[dict[str, Any]]

    @property
    def counts(self) -> RangeCounts:
        return sum((e.result for e in self.events if isinstance(e, Done)), RangeCounts())

    def assert_complete(self) -> None:
        assert [e for e in self.events if isinstance(e, Failed)] == []
        assert self.counts.complete
        assert self.counts.read == self.counts.written == ROWS
        assert self.target_rows == self.origin_rows
        assert len(self.target_rows) == ROWS


def copy_while(server: Running, happening: Callable[[], object]) -> Outcome:
    """Copy a table on a server; after the first of the ranges something happens to it."""
    settings = CassandraSettings(port=server.port)
    with patient_connection(settings) as connection:
        create_keyspace(connection, "faults", durable=True)
        origin = create_table(connection, "faults", "a", "k int, c int, v text, PRIMARY KEY (k, c)")
        target = create_table(connection, "faults", "b", "k int, c int, v text, PRIMARY KEY (c, k)")
        fill(connection, origin, "k, c, v", [(n % 97, n, f"v{n}") for n in range(ROWS)])
        # Slow enough for the fault to come in the middle, with pages and writes under way.
        plan = plan_copy(
            connection,
            origin,
            target,
            token_ranges=8,
            origin_rows_per_second=ROWS // 3,
            origin_fetch_size=20,
            retry_seconds=90.0,
        )
    events = []
    happened = False
    with WorkerPool(plan, settings, settings, workers=2) as pool:
        for event in pool.run([CopyRange(r) for r in plan.migration.ranges]):
            events.append(event)
            if isinstance(event, Done) and not happened:
                happened = True
                happening()
    with plain_session(settings) as reader:
        return Outcome(events, rows_of(reader, origin), rows_of(reader, target))


def copy_through_a_standstill(home: Path) -> Outcome:
    server = Cassandra(cluster_name="standstill", heap_mb=SMALL_HEAP_MB)
    with run_server(server, home) as running:
        process = psutil.Process(running.pid)

        def stand_still() -> None:
            process.send_signal(signal.SIGSTOP)
            threading.Timer(STANDSTILL_SECONDS, go_on).start()

        def go_on() -> None:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

        try:
            return copy_while(running, stand_still)
        finally:
            go_on()


def copy_through_a_restart(home: Path) -> Outcome:
    server = Cassandra(cluster_name="killed", heap_mb=SMALL_HEAP_MB, settings=DURABLE)
    with run_server(server, home) as running:

        def kill_and_start() -> None:
            process = psutil.Process(running.pid)
            process.kill()
            psutil.wait_procs([process], timeout=PATIENCE_SECONDS)
            start(server, home=home, port=running.port, jars_folder=jars_folder())

        return copy_while(running, kill_and_start)


LONG_COPIES = {
    "test_a_server_that_stands_still_for_half_a_minute_is_waited_for": copy_through_a_standstill,
    "test_a_server_that_is_killed_and_started_again_costs_no_row": copy_through_a_restart,
}


@pytest.fixture(scope="module", autouse=True)
def long_copies(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future]]:
    """The copies that wait for their server, begun at once: other tests run meanwhile."""
    names = {item.name for item in request.session.items}
    with ThreadPoolExecutor(len(LONG_COPIES)) as pool:
        yield {
            name: pool.submit(copy, tmp_path_factory.mktemp(copy.__name__))
            for name, copy in LONG_COPIES.items()
            if name in names
        }


# -- a server that cannot be reached -----------------------------------------------------------


def test_a_wrong_password_is_final_at_once_and_told_to_nobody(guarded_cassandra):
    settings = CassandraSettings(
        port=guarded_cassandra.port, username="cassandra", password="hunter2-wrong"
    )
    started = time.monotonic()
    with pytest.raises(PreflightError) as refused:
        Connection(settings)
    assert time.monotonic() - started < 15
    assert str(refused.value) == (
        f"cannot connect to 127.0.0.1 port {settings.port}: "
        "the server refused the user name or the password"
    )
    assert refused.value.__cause__ is not None
    assert not is_transient(refused.value.__cause__)
    with pytest.raises(PreflightError, match="give the store a username and a password"):
        Connection(CassandraSettings(port=settings.port))


def test_a_wrong_password_fails_a_workers_task_without_a_second_try(
    guarded_cassandra, settings, connection, keyspace
):
    body = "k int PRIMARY KEY"
    origin = create_table(connection, keyspace, "a", body)
    plan = plan_copy(
        connection, origin, create_table(connection, keyspace, "b", body), retry_seconds=60
    )
    wrong = CassandraSettings(
        port=guarded_cassandra.port, username="cassandra", password="hunter2-wrong"
    )
    started = time.monotonic()
    with WorkerPool(plan, settings, wrong, workers=1) as pool:
        events = list(pool.run([CopyRange(plan.migration.ranges[0])]))
    assert time.monotonic() - started < 40
    assert isinstance(events[-1], Failed)
    assert events[-1].reason.endswith(": the server refused the user name or the password")
    assert "hunter2" not in repr(events)


def test_the_right_password_opens_the_door(guarded_cassandra):
    settings = CassandraSettings(
        port=guarded_cassandra.port, username="cassandra", password="cassandra"
    )
    with Connection(settings) as connection:
        assert connection.host_count == 1


def test_a_dead_host_is_a_sentence_and_may_come_back():
    port = free_port()
    with pytest.raises(PreflightError) as refused:
        Connection(CassandraSettings(port=port))
    message = str(refused.value)
    assert message.startswith(f"cannot connect to 127.0.0.1 port {port}: no host answered (")
    assert "refused" in message
    assert len(message.splitlines()) == 1
    assert is_transient(refused.value.__cause__)


def test_a_host_that_takes_connections_and_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(store, "CONNECT_TIMEOUT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises(PreflightError, match="no host answered") as refused:
            Connection(CassandraSettings(port=listener.getsockname()[1]))
        assert time.monotonic() - started < 10
    assert len(str(refused.value).splitlines()) == 1


def test_what_a_test_itself_asks_may_take_a_minute(connection, reader):
    for session in (connection.session, reader):
        asked = session.execute_async("SELECT key FROM system.local")
        asked.result()
        assert asked.timeout == session.default_timeout == PATIENCE_SECONDS


# -- answers that are lost, late or spoiled ----------------------------------------------------


class Weather:
    """What happens to the answers that pass a proxy: nothing, until a test says otherwise."""

    def __init__(self) -> None:
        self.spoiled = 0
        self._spared = 0
        self._left = 0
        self._how: Callable[[bytes], bytes] = bytes
        self._lock = threading.Lock()

    def spoil(self, how: Callable[[bytes], bytes], answers: int, after: int) -> None:
        """Do something to so many answers, after so many that pass."""
        self._how, self._left, self._spared = how, answers, after

    def __call__(self, chunk: bytes) -> bytes:
        with self._lock:
            if not self._left or self._spared:
                self._spared = max(0, self._spared - 1)
                return chunk
            self._left -= 1
            self.spoiled += 1
        return self._how(chunk)


def lose(_: bytes) -> bytes:
    return b""


def delay(chunk: bytes) -> bytes:
    time.sleep(1.6)
    return chunk


def flip_a_bit(chunk: bytes) -> bytes:
    return chunk[:-5] + bytes([chunk[-5] ^ 1]) + chunk[-4:]


@pytest.fixture
def impatient(monkeypatch):
    """A client that gives up on a request after a second."""
    monkeypatch.setattr(store, "REQUEST_TIMEOUT_SECONDS", 1.0)


@pytest.fixture
def lists(connection, keyspace):
    """Rows with lists that are not frozen: three of one partition, and two on their own."""
    body = "k int, c int, l list<int>, v text, PRIMARY KEY (k, c)"
    origin = create_table(connection, keyspace, "a", body)
    target = create_table(connection, keyspace, "b", body)
    insert_rows(
        connection,
        origin,
        [
            {"k": k, "c": c, "l": [k, c, c], "v": f"v{k}{c}"}
            for k, c in ((1, 1), (1, 2), (1, 3), (2, 1), (3, 1))
        ],
    )
    return origin, target


@contextmanager
def connected_through(proxy: Proxy) -> Iterator[Connection]:
    with Connection(CassandraSettings(port=proxy.port)) as connection:
        yield connection


@pytest.mark.parametrize("how", [lose, delay, flip_a_bit])
@pytest.mark.parametrize(
    ("side", "across"), [("origin", False), ("target", False), ("target", True)]
)
def test_an_answer_that_does_not_come_as_it_was_sent_neither_loses_nor_doubles(
    cassandra, connection, reader, lists, impatient, side, across, how
):
    weather = Weather()
    with (
        proxy_before(cassandra.port, weather) as proxy,
        connected_through(proxy) as through,
    ):
        origin, target = lists
        plan = plan_copy(
            connection,
            origin,
            target,
            token_ranges=1,
            origin_fetch_size=2,
            batch_across_partitions=across,
        )
        sides = (through, connection) if side == "origin" else (connection, through)
        stores = in_process(plan, *sides)
        # The first copy prepares the statements, so that only pages or writes are left to spoil.
        copy_ranges(stores)
        truncate(connection, target)

        # The first page is let through: a second try must go on where it ended.
        weather.spoil(how, answers=2, after=1 if side == "origin" else 0)
        counts = copy_ranges(stores)

    assert weather.spoiled == 2
    assert counts.retries >= 1
    assert counts.last_retry
    assert (counts.read, counts.written, counts.complete) == (5, 5, True)
    # A write whose answer was lost was applied; its second try must not append to its lists.
    assert rows_of(reader, target) == rows_of(reader, origin)
    assert all(len(row["l"]) == 3 for row in rows_of(reader, target))


def test_a_page_that_does_not_come_is_asked_for_again_with_fewer_rows(
    cassandra, connection, reader, lists, impatient
):
    sizes = []

    class Recording(Connection):
        def send(self, message, **options):
            sizes.append(getattr(message, "fetch_size", None))
            return super().send(message, **options)

    weather = Weather()
    with (
        proxy_before(cassandra.port, weather) as proxy,
        Recording(CassandraSettings(port=proxy.port)) as through,
    ):
        plan = plan_copy(connection, *lists, token_ranges=1, origin_fetch_size=100)
        stores = in_process(plan, through, connection)
        copy_ranges(stores)
        sizes.clear()
        weather.spoil(lose, answers=2, after=0)
        copy_ranges(stores)
    assert sizes == [100, 25, 6]
    assert rows_of(reader, lists[1]) == rows_of(reader, lists[0])


def test_connections_that_are_cut_are_made_again(cassandra, connection, reader, keyspace):
    body = "k int PRIMARY KEY, v text"
    origin = create_table(connection, keyspace, "a", body)
    target = create_table(connection, keyspace, "b", body)
    fill(connection, origin, "k, v", [(n, "x" * 100) for n in range(200)])
    with proxy_before(cassandra.port, bytes) as proxy, connected_through(proxy) as through:
        plan = plan_copy(connection, origin, target, origin_fetch_size=10)
        stores = in_process(plan, through)
        first, *rest = plan.migration.ranges
        counts = copy_ranges(stores, [first])
        for token_range in rest:
            proxy.cut()
            counts += copy_ranges(stores, [token_range])
    assert counts.read == counts.written == 200
    assert counts.retries >= 1
    assert rows_of(reader, target) == rows_of(reader, origin)


@pytest.mark.parametrize("side", ["origin", "target"])
def test_when_the_time_for_retries_is_over_the_range_fails_with_a_sentence(
    cassandra, connection, lists, impatient, side
):
    with proxy_before(cassandra.port, bytes) as proxy, connected_through(proxy) as through:
        plan = plan_copy(connection, *lists, token_ranges=1, retry_seconds=2)
        sides = (through, connection) if side == "origin" else (connection, through)
        stores = in_process(plan, *sides)
        copy_ranges(stores)
        proxy.close()
        started = time.monotonic()
        with pytest.raises(TransientError) as failure:
            copy_ranges(stores)
        assert 1.9 < time.monotonic() - started < 15
    message = str(failure.value)
    assert " tries in 2 s" in message
    assert len(message.splitlines()) == 1


def test_statements_are_prepared_when_the_server_is_back(cassandra, connection, reader, lists):
    with proxy_before(cassandra.port, bytes) as proxy, connected_through(proxy) as through:
        proxy.cut()
        with pytest.raises(TransientError, match=r"cannot prepare a statement: .* one try"):
            through.prepare(f"SELECT k FROM {lists[0]}")
        proxy.cut()
        copy_ranges(in_process(plan_copy(connection, *lists), connection, through))
    assert rows_of(reader, lists[1]) == rows_of(reader, lists[0])


def test_a_request_that_the_server_refuses_is_not_sent_again(connection, keyspace):
    origin = create_table(connection, keyspace, "a", "k int PRIMARY KEY, v blob")
    target = create_table(connection, keyspace, "b", "k int PRIMARY KEY, v blob")
    insert_rows(connection, origin, [{"k": 1, "v": b"x" * 1000}])
    stores = in_process(plan_copy(connection, origin, target, retry_seconds=60), connection)
    copy_ranges(stores)
    connection.session.execute(f"DROP TABLE {target}")
    started = time.monotonic()
    with pytest.raises(PermanentError):
        copy_ranges(stores)
    assert time.monotonic() - started < 15


def test_a_comparison_waits_for_a_server_that_is_away_for_a_moment(
    cassandra, connection, settings, lists
):
    origin, target = lists
    with proxy_before(cassandra.port, bytes) as proxy:
        through = CassandraSettings(port=proxy.port)
        plan = plan_copy(connection, origin, target, token_ranges=2)
        with WorkerPool(plan, settings, through, workers=1) as pool:
            ranges = plan.migration.ranges
            first = list(diff_ranges(pool, plan, ranges))
            proxy.cut()
            again = list(diff_ranges(pool, plan, ranges))
    assert first == again
    assert sum(verdict.missing for verdict in again) == 5


def test_rows_that_cannot_be_read_again_give_no_verdict_but_a_reason(
    cassandra, connection, settings, lists
):
    origin, target = lists
    insert_rows(connection, target, [{"k": 1, "c": 1, "v": "other"}])
    with proxy_before(cassandra.port, bytes) as proxy:
        through = CassandraSettings(port=proxy.port)
        plan = plan_copy(connection, origin, target, token_ranges=1, retry_seconds=1)
        with WorkerPool(plan, settings, through, workers=1) as pool:
            told = []

            def close_after_the_scans(*progress: int) -> None:
                told.append(progress)
                if len(told) == 4:
                    proxy.close()

            (verdict,) = diff_ranges(pool, plan, plan.migration.ranges, close_after_the_scans)
    assert verdict.error.startswith("rows that differ could not be read or repaired: ")
    assert (verdict.status, verdict.matches) == ("FAIL", False)


def test_a_server_that_is_killed_and_started_again_costs_no_row(request, long_copies):
    outcome = long_copies[request.node.name].result()
    outcome.assert_complete()
    assert outcome.counts.retries > 0
    assert outcome.counts.last_retry


def test_a_server_that_stands_still_for_half_a_minute_is_waited_for(request, long_copies):
    outcome = long_copies[request.node.name].result()
    outcome.assert_complete()
    assert outcome.counts.retries > 0
    assert outcome.counts.seconds > STANDSTILL_SECONDS / 2
