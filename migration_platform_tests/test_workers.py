"""When a process dies, one task fails with a sentence; everything else goes on or ends."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from migration_platform.copying.copy import CopyRange
from migration_platform.cql.names import TableName
from migration_platform.errors import TransientError
from migration_platform.local.ports import free_port
from migration_platform.plan.model import Plan
from migration_platform.runs.workers import RETRY_SECONDS_AFTER_A_LOSS, STOP_SECONDS, WorkerPool
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform.stores.work import Done, Failed, OpenStores, Report, Reported, Started
from migration_platform_tests.servers import REPOSITORY
from migration_platform_tests.tables import create_table, fill, plan_copy, rows_of

PASSWORD = "s3cret-and-seldom"


@dataclass(frozen=True)
class Say:
    """Report the worker's process id and return a name."""

    name: str

    def run(self, stores: OpenStores, report: Report) -> Any:
        report(os.getpid())
        return self.name


@dataclass(frozen=True)
class Sleep(Say):
    """Report the worker's process id, then take longer than any test."""

    def run(self, stores: OpenStores, report: Report) -> Any:
        report(os.getpid())
        time.sleep(600)


@dataclass(frozen=True)
class Raise(Say):
    """Fail as a fault of the program would."""

    def run(self, stores: OpenStores, report: Report) -> Any:
        raise ValueError(f"no {self.name}\nat all")


@dataclass(frozen=True)
class Lose(Say):
    """Fail as a task does whose server stayed away."""

    def run(self, stores: OpenStores, report: Report) -> Any:
        raise TransientError("no host answered")


@dataclass(frozen=True)
class TellPatience(Say):
    """Return for how long the task would try again."""

    def run(self, stores: OpenStores, report: Report) -> Any:
        return stores.plan.migration.retry_seconds


@pytest.fixture
def tables(connection, keyspace):
    """An origin with 300 rows, and its empty target."""
    origin = create_table(connection, keyspace, "a", "k int PRIMARY KEY")
    target = create_table(connection, keyspace, "b", "k int PRIMARY KEY")
    fill(connection, origin, "k", [(n,) for n in range(300)])
    return origin, target


@pytest.fixture
def plan(connection, tables):
    return plan_copy(connection, *tables, retry_seconds=1)


@pytest.fixture
def open_pool(plan: Plan, settings: CassandraSettings):
    """Open a pool that is ended after the test, and check that nothing of it is left."""
    opened = []

    def open_it(workers: int, target: CassandraSettings = settings) -> WorkerPool:
        opened.append(WorkerPool(plan, settings, target, workers=workers))
        pids.update(opened[-1].process_ids)
        return opened[-1]

    pids: set[int] = set()
    yield open_it
    for pool in opened:
        pool.__exit__()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def wait_until_gone(pids, seconds):
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"{left} still live"
        time.sleep(0.05)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ends_of(events):
    return {e.task.name: e for e in events if isinstance(e, Done | Failed)}


def test_every_task_is_begun_in_order_and_ends_exactly_once(open_pool):
    tasks = [Say(str(n)) for n in range(20)]
    pool = open_pool(2)
    events = list(pool.run(tasks))
    assert [e.task for e in events if isinstance(e, Started)] == tasks
    assert Counter(e.task for e in events if isinstance(e, Done)) == Counter(tasks)
    assert all(e.result == e.task.name for e in events if isinstance(e, Done))
    assert {e.value for e in events if isinstance(e, Reported)} <= set(pool.process_ids)
    assert not any(isinstance(e, Failed) for e in events)


def test_a_pool_serves_several_rounds_with_the_same_processes(open_pool):
    pool = open_pool(2)
    before = pool.process_ids
    assert len(before) == 2
    assert list(pool.run([])) == []
    for _ in range(3):
        assert len(ends_of(pool.run([Say("a"), Say("b"), Say("c")]))) == 3
    assert pool.process_ids == before


def test_a_task_that_raises_fails_alone_and_in_one_line(open_pool):
    pool = open_pool(1)
    ends = ends_of(pool.run([Say("a"), Raise("b"), Say("c")]))
    assert isinstance(ends["a"], Done)
    assert isinstance(ends["c"], Done)
    assert ends["b"] == Failed(Raise("b"), "ValueError: no b at all")


def test_a_killed_worker_fails_only_the_task_that_it_had(open_pool):
    pool = open_pool(2)
    events = []
    for event in pool.run([Sleep("killed"), *(Say(str(n)) for n in range(5))]):
        events.append(event)
        if isinstance(event, Reported) and event.task.name == "killed":
            os.kill(event.value, signal.SIGKILL)
    ends = ends_of(events)
    assert ends.pop("killed") == Failed(
        Sleep("killed"), "its worker process was killed by signal 9"
    )
    assert set(ends) == {"0", "1", "2", "3", "4"}
    assert all(isinstance(end, Done) for end in ends.values())
    # The pool lives on with the worker that is left.
    assert len(pool.process_ids) == 1
    assert set(ends_of(pool.run([Say("later")]))) == {"later"}


def test_when_all_workers_are_killed_what_is_left_is_told_not_to_have_begun(open_pool):
    pool = open_pool(2)
    events = []
    for event in pool.run([Sleep("a"), Sleep("b"), Say("c"), Say("d")]):
        events.append(event)
        if isinstance(event, Reported):
            os.kill(event.value, signal.SIGKILL)
    ends = ends_of(events)
    assert {name: end.reason for name, end in ends.items()} == {
        "a": "its worker process was killed by signal 9",
        "b": "its worker process was killed by signal 9",
        "c": "it was not begun: no worker process is left",
        "d": "it was not begun: no worker process is left",
    }
    assert pool.process_ids == []
    assert [type(event) for event in pool.run([Say("e")])] == [Failed]


def test_workers_that_die_while_they_are_idle_lose_nothing(open_pool):
    pool = open_pool(2)
    assert len(ends_of(pool.run([Say("a"), Say("b")]))) == 2
    victim = pool.process_ids[0]
    os.kill(victim, signal.SIGKILL)
    # Its main thread goes before the others do, and only then is the pipe closed.
    while victim in pool.process_ids:
        time.sleep(0.01)
    ends = ends_of(pool.run([Say(str(n)) for n in range(4)]))
    assert [end for end in ends.values() if isinstance(end, Failed)] == []
    assert len(ends) == 4


def test_a_killed_copy_is_completed_by_copying_its_range_again(open_pool, plan, tables, reader):
    pool = open_pool(2)
    tasks = [CopyRange(token_range) for token_range in plan.migration.ranges]
    failed = []
    killed = False
    for event in pool.run(tasks):
        if isinstance(event, Started) and not killed:
            os.kill(pool.process_ids[0], signal.SIGKILL)
            killed = True
        if isinstance(event, Failed):
            failed.append(event.task)
    assert len(failed) == 1
    assert all(isinstance(e, Started | Reported | Done) for e in pool.run(failed))
    assert rows_of(reader, tables[1]) == rows_of(reader, tables[0])


def test_leaving_a_pool_ends_workers_in_the_middle_of_their_tasks(plan, settings):
    started = time.monotonic()
    with WorkerPool(plan, settings, settings, workers=2) as pool:
        pids = pool.process_ids
        for event in pool.run([Sleep("a"), Sleep("b")]):
            if isinstance(event, Reported):
                break
        began = time.monotonic()
    assert time.monotonic() - began < STOP_SECONDS
    assert began > started
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_ctrl_c_is_the_parents_to_decide(open_pool):
    pool = open_pool(1)
    for event in pool.run([Say("a"), Say("b")]):
        if isinstance(event, Reported):
            os.kill(event.value, signal.SIGINT)
    assert len(ends_of(pool.run([Say("c")]))) == 1
    assert len(pool.process_ids) == 1


def test_a_server_that_nobody_finds_fails_a_task_when_its_time_is_over(open_pool):
    port = free_port()
    pool = open_pool(1, CassandraSettings(port=port))
    started = time.monotonic()
    (end,) = ends_of(pool.run([Say("a")])).values()
    assert isinstance(end, Failed)
    assert end.reason.startswith(
        f"cannot connect to 127.0.0.1 port {port}: no host answered (127.0.0.1:{port}: "
    )
    assert "tries in 1 s" in end.reason
    assert time.monotonic() - started < 10


PROGRAM = """\
import pickle, sys
print("main module", flush=True)
from migration_platform.copying.copy import CopyRange
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.work import Started
with open(sys.argv[1], "rb") as file:
    plan, settings = pickle.load(file)
with WorkerPool(plan, settings, settings, workers=2) as pool:
    print(*pool.process_ids, flush=True)
    for event in pool.run([CopyRange(r) for r in plan.migration.ranges]):
        print(type(event).__name__, flush=True)
"""


@pytest.fixture
def program(tmp_path, connection, tables, settings):
    """Start a program without a `__main__` guard whose workers copy rows for half a minute."""
    plan = plan_copy(connection, *tables, target_rows_per_second=10, token_ranges=2)
    (tmp_path / "arguments").write_bytes(pickle.dumps((plan, settings)))
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "arguments")],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_workers_of_a_killed_program_end_and_never_ran_its_main_module(program):
    assert program.stdout.readline() == "main module\n"
    workers = [int(pid) for pid in program.stdout.readline().split()]
    assert len(workers) == 2
    assert program.stdout.readline() == program.stdout.readline() == "Started\n"
    family = [p.pid for p in psutil.Process(program.pid).children(recursive=True)]
    assert set(workers) <= set(family)
    # The first report: a worker is connected, and in the middle of its range.
    assert program.stdout.readline() == "Reported\n"
    program.kill()
    wait_until_gone(family, 5)
    assert "main module" not in program.stdout.read()


def test_passwords_show_nowhere(plan, settings):
    secret = CassandraSettings(port=settings.port, username="pete", password=PASSWORD)
    assert "pete" in repr(secret)
    assert PASSWORD not in repr(secret) + str(secret) + f"{secret}"
    with WorkerPool(plan, secret, secret, workers=1) as pool:
        for pid in pool.process_ids:
            process = psutil.Process(pid)
            assert PASSWORD not in " ".join(process.cmdline())
            assert PASSWORD not in str(process.environ())
        assert PASSWORD not in repr(pool) + repr(vars(pool))
        events = list(pool.run([Say("a")]))
    # A server that asks for no password takes any.
    assert isinstance(events[-1], Done)
    assert PASSWORD not in repr(events)


def test_a_missing_table_fails_its_range_with_a_sentence(open_pool, plan, tables, connection):
    connection.session.execute(f"DROP TABLE {TableName(tables[1].keyspace, tables[1].table)}")
    pool = open_pool(1)
    (event,) = [e for e in pool.run([CopyRange(plan.migration.ranges[0])]) if isinstance(e, Failed)]
    assert event.reason.startswith("cannot prepare a statement: the server said: ")
    assert "\n" not in event.reason


def test_after_a_task_that_waited_in_vain_the_next_one_waits_less(connection, tables, settings):
    plan = plan_copy(connection, *tables, retry_seconds=60)
    tasks = [TellPatience("1"), Lose("2"), TellPatience("3"), TellPatience("4")]
    with WorkerPool(plan, settings, settings, workers=1) as pool:
        told = [event.result for event in pool.run(tasks) if isinstance(event, Done)]
    assert told == [60, RETRY_SECONDS_AFTER_A_LOSS, 60]
