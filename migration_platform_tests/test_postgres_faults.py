"""Whatever becomes of PostgreSQL or the line to it, a copy loses and doubles nothing, or is red."""

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest

from migration_platform.counts import RangeCounts
from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns
from migration_platform.errors import MigrationError, PermanentError, TransientError
from migration_platform.local.stack import Running
from migration_platform.plan.model import Plan
from migration_platform.stores.postgres import connection as store
from migration_platform.stores.postgres.connection import Postgres
from migration_platform_tests.comparing import compare, found
from migration_platform_tests.dagster_project import wait_until
from migration_platform_tests.postgres_tables import (
    OwnServer,
    own_server,
    plan_table,
    settings_of,
)
from migration_platform_tests.servers import PATIENCE_SECONDS, Proxy, proxy_before
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process

ROWS = 900
SMALL = {"batch_rows": 50}


@pytest.fixture
def origin(connection, keyspace) -> TableName:
    table = create_table(connection, keyspace, "o", "k int PRIMARY KEY, v text")
    fill(connection, table, "k, v", [(n, f"v{n}") for n in range(ROWS)])
    return table


@pytest.fixture(scope="module")
def own() -> Iterator[OwnServer]:
    """A server that is ended and stopped."""
    with own_server() as server:
        yield server


@pytest.fixture(scope="module")
def sql(postgres: Running) -> Iterator[psycopg.Connection]:
    """A session of somebody else at the shared server."""
    with psycopg.connect(
        f"host=127.0.0.1 port={postgres.port} user=postgres", autocommit=True
    ) as connection:
        yield connection


@pytest.fixture
def pg(postgres: Running) -> Iterator[Postgres]:
    """Connections that carry a name of their own."""
    options = {"application_name": f"a{uuid.uuid4().hex}"}
    with settings_of(postgres.port, options=options).connect() as connection:
        yield connection


@pytest.fixture
def into(sql: psycopg.Connection) -> Iterator[str]:
    """A table that is there already."""
    name = f"t{uuid.uuid4().hex}"
    sql.execute(f"CREATE TABLE {name} (k int PRIMARY KEY, v text)")
    sql.execute(f"CREATE SEQUENCE {name}_tries")
    yield name
    sql.execute(f"DROP TABLE {name}")


@contextmanager
def copying(plan: Plan, connection: Any, pg: Postgres) -> Iterator[Future[RangeCounts]]:
    """Copy meanwhile."""
    stores = in_process(plan, connection, pg)
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(copy_ranges, stores)


def assert_whole(plan: Plan, counts: RangeCounts, connection: Any, pg: Postgres) -> None:
    assert (counts.read, counts.written, counts.complete) == (ROWS, ROWS, True)
    verdict = compare(connection, plan, target=pg)
    assert found(verdict) == (0, 0, 0)
    assert (verdict.origin_rows, verdict.target_rows) == (ROWS, ROWS)


def count(ask: Callable[[str], Any], plan: Plan) -> int:
    rows = ask(f"SELECT count(*) FROM {plan.target.name}")
    return (rows if isinstance(rows, list) else rows.fetchall())[0][0]


# -- the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["copy", "values"])
def test_a_server_that_crashes_and_recovers_has_every_row_once(connection, origin, own, method):
    with settings_of(own.port).connect() as pg:
        plan = plan_table(
            connection, pg, origin, postgres={**SMALL, "method": method}, rows_per_second=300,
            retry_seconds=PATIENCE_SECONDS,
        )  # fmt: skip
        with copying(plan, connection, pg) as copied:
            wait_until(lambda: count(own.sql, plan) > 100, PATIENCE_SECONDS, "rows arrived")
            own.crash()
            own.start()
            counts = copied.result(PATIENCE_SECONDS * 2)
        assert counts.retries > 0
        assert_whole(plan, counts, connection, pg)


def test_a_server_that_stays_away_ends_in_red_and_the_next_copy_finishes(connection, origin, own):
    with settings_of(own.port).connect() as pg:
        plan = plan_table(connection, pg, origin, postgres=SMALL, rows_per_second=300)
        short = replace(plan, migration=replace(plan.migration, retry_seconds=0.5))
        with copying(short, connection, pg) as copied:
            wait_until(lambda: count(own.sql, plan) > 100, PATIENCE_SECONDS, "rows arrived")
            own.crash()
            with pytest.raises(TransientError, match=r"cannot be reached: .*, after \d+ tries"):
                copied.result(PATIENCE_SECONDS)
        own.start()
        fast = replace(plan, migration=replace(plan.migration, target=replace(
            plan.migration.target, rows_per_second=None)))  # fmt: skip
        assert_whole(plan, copy_ranges(in_process(fast, connection, pg)), connection, pg)


def test_a_server_that_stands_still_is_asked_again_once_it_goes_on(
    connection, origin, own, monkeypatch
):
    monkeypatch.setattr(store, "REQUEST_SECONDS", 1.0)
    with settings_of(own.port, connect_timeout_seconds=2).connect() as pg:
        plan = plan_table(
            connection, pg, origin, postgres=SMALL, rows_per_second=300,
            retry_seconds=PATIENCE_SECONDS,
        )  # fmt: skip
        with copying(plan, connection, pg) as copied:
            wait_until(lambda: count(own.sql, plan) > 100, PATIENCE_SECONDS, "rows arrived")
            family = [own.process, *own.process.children(recursive=True)]
            for process in family:
                process.suspend()
            time.sleep(4)
            for process in family:
                process.resume()
            counts = copied.result(PATIENCE_SECONDS * 2)
        assert counts.retries > 0
        assert_whole(plan, counts, connection, pg)


@pytest.fixture
def small_disk(own: OwnServer) -> Iterator[Callable[[int], None]]:
    """A tablespace `small` on a file system of so many kilobytes, which may be made larger."""
    with TemporaryDirectory(prefix="postgres-disk-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        disk = folder / "disk"
        disk.mkdir()

        def resize(kilobytes: int, how: str = "remount,") -> None:
            # The server's user owns its folder.
            command = ["mount", "-t", "tmpfs", "-o", f"{how}size={kilobytes}k,mode=777", "tmpfs"]
            subprocess.run([*command, str(disk)], check=True, capture_output=True)

        try:
            resize(600, "")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("nobody but root can make a small file system")
        try:
            (disk / "data").mkdir()
            os.chown(disk / "data", own.process.uids().real, -1)
            own.sql(f"CREATE TABLESPACE small LOCATION '{disk / 'data'}'")
            yield resize
            own.sql("DROP TABLE filling")
            own.sql("DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_ends_in_red_until_there_is_room(connection, keyspace, own, small_disk):
    origin = create_table(connection, keyspace, "large", "k int PRIMARY KEY, v text")
    noise = ["".join(uuid.uuid4().hex for _ in range(40)) for _ in range(ROWS)]
    fill(connection, origin, "k, v", list(enumerate(noise)))
    own.sql("CREATE TABLE filling (k int PRIMARY KEY, v text) TABLESPACE small")
    with settings_of(own.port).connect() as pg:
        plan = plan_table(connection, pg, origin, "filling", postgres=SMALL, retry_seconds=0.5)
        with pytest.raises(TransientError) as red:
            copy_ranges(in_process(plan, connection, pg))
        assert "No space left on device (SQLSTATE 53100); make room on" in str(red.value)
        assert 0 < count(own.sql, plan) < ROWS
        small_disk(50_000)
        assert_whole(plan, copy_ranges(in_process(plan, connection, pg)), connection, pg)


# -- the line ------------------------------------------------------------------------------------


class Line:
    """A line that is cut, a few times, when the server answers with what it is told."""

    def __init__(self) -> None:
        self.proxy: Proxy | None = None
        self.mark, self.times = b"", 0

    def answer(self, chunk: bytes) -> bytes:
        if self.times and self.mark in chunk:
            self.times -= 1
            assert self.proxy is not None
            self.proxy.cut()
            return b""
        return chunk


@pytest.fixture
def line(postgres: Running) -> Iterator[Line]:
    line = Line()
    with proxy_before(postgres.port, line.answer) as line.proxy:
        yield line


CUTS = {
    "in the middle of a copy": ("copy", b"G\0\0\0"),
    "after a copy into the table": ("copy", b"COPY "),
    "between insert and commit": ("copy", b"INSERT 0 "),
    "after the commit": ("copy", b"COMMIT\0"),
    "after an insert of values": ("values", b"INSERT 0 "),
}


@pytest.mark.parametrize("again", [False, True], ids=["fresh", "again"])
@pytest.mark.parametrize("cut", CUTS)
def test_an_answer_that_is_lost_is_asked_for_again(connection, origin, sql, line, cut, again):
    method, mark = CUTS[cut]
    with settings_of(line.proxy.port).connect() as pg:
        plan = plan_table(connection, pg, origin, postgres={**SMALL, "method": method})
        stores = in_process(plan, connection, pg)
        if again:
            copy_ranges(stores)
        line.mark, line.times = mark, 4
        counts = copy_ranges(stores)
        expects = again or mark in (b"G\0\0\0", b"COPY ") or method == "values"
        # The other batch under way is cut off with it.
        assert (counts.retries >= 4) if expects else (counts.retries == 0)
        assert_whole(plan, counts, connection, pg)
        sql.execute(f"DROP TABLE {plan.target.name}")


@pytest.mark.parametrize("method", ["copy", "values"])
def test_connections_that_are_ended_between_batches_are_opened_anew(
    connection, origin, sql, pg, into, method
):
    plan = plan_table(connection, pg, origin, into, postgres={**SMALL, "method": method})
    stores, total = in_process(plan, connection, pg), RangeCounts()
    for _ in range(2):
        total = RangeCounts()
        for each in plan.migration.ranges:
            sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
                f"'{pg.settings.options['application_name']}'"
            )
            total += copy_ranges(stores, [each])
    assert total.retries > 0
    assert_whole(plan, total, connection, pg)


def test_a_scan_that_is_given_up_leaves_a_connection_that_works(connection, origin, pg, into):
    plan = plan_table(connection, pg, origin, into, postgres={"scan": "whole"})
    copy_ranges(in_process(plan, connection, pg))
    rows = pg.session("scan").copy_out(f"COPY {into} TO STDOUT (FORMAT binary)")
    next(rows)
    rows.close()
    assert pg.session("scan").opened is None
    assert pg.session("scan").run("SELECT 1")[0].get_value(0, 0) == b"1"


# -- others at the same table --------------------------------------------------------------------


def waiting(sql: psycopg.Connection, pg: Postgres) -> bool:
    """Whether a session of the copy waits for a lock."""
    # Within a transaction it would be told the same again and again.
    sql.execute("SELECT pg_stat_clear_snapshot()")
    return bool(
        sql.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND "
            f"application_name = '{pg.settings.options['application_name']}'"
        ).fetchall()
    )


def test_a_lock_is_waited_for_and_told_of_when_it_stays(
    connection, origin, sql, pg, into, monkeypatch
):
    monkeypatch.setattr(store, "REQUEST_SECONDS", 1.5)
    plan = plan_table(connection, pg, origin, into, postgres=SMALL)
    short = replace(plan, migration=replace(plan.migration, retry_seconds=0.3))
    with sql.transaction():
        sql.execute(f"LOCK TABLE {into} IN EXCLUSIVE MODE")
        with pytest.raises(TransientError) as red:
            copy_ranges(in_process(short, connection, pg))
        assert "lock timeout (SQLSTATE 55P03); end the session that holds" in str(red.value)
    # Nothing that was given up is done afterwards.
    time.sleep(0.3)
    assert count(sql.execute, plan) == 0

    with copying(plan, connection, pg) as copied:
        with sql.transaction():
            sql.execute(f"LOCK TABLE {into} IN EXCLUSIVE MODE")
            time.sleep(2.5)
        counts = copied.result(PATIENCE_SECONDS)
    assert_whole(plan, counts, connection, pg)


def test_a_deadlock_is_lost_once_and_the_batch_sent_again(connection, origin, sql, postgres, into):
    plan_options = {"postgres": {"batch_rows": 1000}, "token_ranges": 1}
    options = {"application_name": f"a{uuid.uuid4().hex}", "deadlock_timeout": "4s"}
    with settings_of(postgres.port, options=options).connect() as pg:
        plan = plan_table(connection, pg, origin, into, **plan_options)
        copy_ranges(in_process(plan, connection, pg))
        # The copy, which waits first, is the one to give way.
        sql.execute("SET deadlock_timeout = '60s'")
        sql.execute("BEGIN")
        sql.execute(f"UPDATE {into} SET v = 'other' WHERE k = 500")
        with copying(plan, connection, pg) as copied:
            wait_until(lambda: waiting(sql, pg), PATIENCE_SECONDS, "the copy waits")
            sql.execute(f"UPDATE {into} SET v = 'other' WHERE k = 100")
            sql.execute("COMMIT")
            counts = copied.result(PATIENCE_SECONDS)
        assert counts.retries > 0
        assert_whole(plan, counts, connection, pg)


TROUBLE = """
    CREATE FUNCTION {0}_trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('{0}_tries') <= {1} THEN {2}; END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER trouble BEFORE INSERT ON {0} EXECUTE FUNCTION {0}_trouble();
"""
CONFLICT = "RAISE EXCEPTION 'could not serialize' USING ERRCODE = '40001'"


@pytest.mark.parametrize("method", ["copy", "values"])
def test_serialization_failures_are_tried_again(connection, origin, sql, pg, into, method):
    sql.execute(TROUBLE.format(into, 4, CONFLICT).encode())
    plan = plan_table(connection, pg, origin, into, postgres={**SMALL, "method": method})
    for _ in range(2):
        sql.execute(f"ALTER SEQUENCE {into}_tries RESTART")
        counts = copy_ranges(in_process(plan, connection, pg))
        assert counts.retries == 4
        assert_whole(plan, counts, connection, pg)
    sql.execute(f"ALTER SEQUENCE {into}_tries RESTART")
    short = replace(plan, migration=replace(plan.migration, retry_seconds=0.0))
    with pytest.raises(TransientError, match="SQLSTATE 40001"):
        copy_ranges(in_process(short, connection, pg))


def test_statements_that_take_too_long_are_tried_again_and_then_told(
    connection, origin, sql, postgres, into
):
    options = {"statement_timeout": "1500ms"}
    with settings_of(postgres.port, options=options).connect() as pg:
        plan = plan_table(connection, pg, origin, into, postgres=SMALL)
        sql.execute(TROUBLE.format(into, 1, "PERFORM pg_sleep(5)").encode())
        counts = copy_ranges(in_process(plan, connection, pg))
        assert counts.retries == 1
        assert_whole(plan, counts, connection, pg)
        sql.execute(f"ALTER SEQUENCE {into}_tries RESTART")
        short = replace(plan, migration=replace(plan.migration, retry_seconds=0.0))
        with pytest.raises(TransientError, match=r"SQLSTATE 57014\); raise statement_timeout in"):
            copy_ranges(in_process(short, connection, pg))


def test_who_closes_the_connections_does_not_wait_for_what_is_under_way(
    connection, origin, sql, pg, into
):
    plan = plan_table(connection, pg, origin, into, postgres=SMALL)
    with sql.transaction():
        sql.execute(f"LOCK TABLE {into} IN EXCLUSIVE MODE")
        with copying(plan, connection, pg) as copied:
            wait_until(lambda: waiting(sql, pg), PATIENCE_SECONDS, "the copy waits")
            pg.close()
            with pytest.raises(MigrationError, match="connections to the server were closed"):
                copied.result(10)
    assert count(sql.execute, plan) == 0
    with pytest.raises(PermanentError, match="were closed"):
        pg.session("questions").run("SELECT 1")
    mine = f"application_name = '{pg.settings.options['application_name']}'"
    wait_until(
        lambda: not sql.execute(f"SELECT 1 FROM pg_stat_activity WHERE {mine}").fetchall(),
        PATIENCE_SECONDS,
        "no connection is left",
    )


def test_colliding_rows_of_two_workers_wait_for_each_other_and_never_both_at_once(
    connection, keyspace, sql, postgres, into
):
    origin = create_table(connection, keyspace, "pairs", "c int, k int, v text, PRIMARY KEY (c, k)")
    rows = [(c, k, "same") for c in range(8) for k in range(200)]
    fill(connection, origin, "c, k, v", rows)
    before = sql.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'")
    deadlocks = before.fetchone()

    def copy(part: int) -> RangeCounts:
        with settings_of(postgres.port).connect() as pg:
            plan = plan_table(
                connection, pg, origin, into, columns=Columns(skip=("c",)), collisions="newest",
                postgres={"batch_rows": 100}, token_ranges=8,
            )  # fmt: skip
            return copy_ranges(in_process(plan, connection, pg), plan.migration.ranges[part::4])

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(copy, range(4)))
    assert sum(each.written for each in counts) == len(rows)
    assert sum(each.retries for each in counts) == 0
    after = sql.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'")
    assert after.fetchone() == deadlocks
    assert sql.execute(f"SELECT count(*) FROM {into}").fetchone() == (200,)
