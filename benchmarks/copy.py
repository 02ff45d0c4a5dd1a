"""Measures copy and comparison of the sample table on the local stack, beside a plain copy.

    python benchmarks/copy.py --rows 200000 --runs 5

Each run does, in turn: this package's copy with new writetimes, its copy with every cell's own
writetime and TTL, the comparison of values, the comparison of values and times, and a copy as one
would write it with the driver alone (paged SELECT, execute_concurrent_with_args, the same number of
processes). The cells of a sample row share one writetime, as those of most tables do; `--mixed`
gives a third of the rows a cell with a time and a TTL of its own. The machine drifts, so compare
only within one run: the ratios are taken pair by pair. CPU is that of all client processes and of
the server's process, start-up left out; memory is the peak of the largest worker process.
"""

import sys

# Run as a script, this file would hide the standard library's module of the same name.
sys.path.append(sys.path.pop(0))

import argparse
import multiprocessing
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
from cassandra.concurrent import execute_concurrent_with_args
from measuring import Measured, measure, print_table, run_in_turn

from migration_platform import sample
from migration_platform.copy import CopyRange
from migration_platform.diff import diff_ranges
from migration_platform.local.servers import Cassandra
from migration_platform.local.stack import start_all
from migration_platform.migration import Endpoint, Migration, TableName
from migration_platform.preflight import Plan, build_plan
from migration_platform.stores.cassandra import CassandraSettings, Connection, truncate
from migration_platform.token_ranges import TokenRange, split_ring
from migration_platform.workers import Failed, WorkerPool

KEYSPACE = "benchmark"
PAIRS = (
    ("copy, own times", "copy, new times"),
    ("comparison with times", "comparison"),
    ("copy, new times", "plain copy"),
    ("copy, own times", "plain copy"),
)


def peak_mb(pid: int) -> float:
    """Give a process's peak resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no peak memory of process {pid}")


def copy_all(pool: WorkerPool, ranges: tuple[TokenRange, ...]) -> None:
    """Copy every range with this package."""
    for event in pool.run([CopyRange(token_range) for token_range in ranges]):
        if isinstance(event, Failed):
            raise SystemExit(event.reason)


def plain_worker(pipe, settings: CassandraSettings, ranges: list[TokenRange]) -> None:
    """Copy ranges as the driver's documentation shows it; one command on the pipe is one copy."""
    connection = Connection(settings)
    names = [name for name, _ in sample.COLUMNS]
    select = connection.prepare(
        f"SELECT {', '.join(names)} FROM {KEYSPACE}.{sample.ORIGIN_TABLE} "
        "WHERE token(userid) > ? AND token(userid) <= ?"
    )
    insert = connection.prepare(
        f"INSERT INTO {KEYSPACE}.{sample.TARGET_TABLE} ({', '.join(names)}) "
        f"VALUES ({', '.join('?' * len(names))})"
    )
    pipe.send("ready")
    while pipe.recv() == "copy":
        for token_range in ranges:
            rows = connection.session.execute(select, (token_range.start, token_range.end))
            execute_concurrent_with_args(connection.session, insert, rows, concurrency=100)
        pipe.send("done")
    connection.close()


class PlainCopy:
    """The peer's processes, started and connected beforehand as the package's are."""

    def __init__(self, settings: CassandraSettings, workers: int):
        context = multiprocessing.get_context("spawn")
        ranges = split_ring(64)
        self._pipes = []
        self._processes = []
        for worker in range(workers):
            near, far = context.Pipe()
            process = context.Process(
                target=plain_worker, args=(far, settings, list(ranges[worker::workers]))
            )
            process.start()
            near.recv()
            self._pipes.append(near)
            self._processes.append(process)

    @property
    def process_ids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def copy(self) -> None:
        for pipe in self._pipes:
            pipe.send("copy")
        for pipe in self._pipes:
            pipe.recv()

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send("stop")
        for process in self._processes:
            process.join()


def prepare(settings: CassandraSettings, rows: int, *, mixed: bool) -> None:
    """Fill the benchmark's origin table."""
    with Connection(settings) as connection:
        sample.create_tables(connection, KEYSPACE)
        print(f"filling {rows:,} rows", flush=True)
        truncate(connection, TableName(KEYSPACE, sample.ORIGIN_TABLE))
        sample.fill_origin(connection, rows, keyspace=KEYSPACE)
        if mixed:
            touch_third(connection)


def touch_third(connection: Connection) -> None:
    """Give a third of the rows a cell with a writetime and a TTL of its own."""
    table = f"{KEYSPACE}.{sample.ORIGIN_TABLE}"
    keys = list(connection.session.execute(f"SELECT userid, courseid, batchid FROM {table}"))
    update = connection.prepare(
        f"UPDATE {table} USING TTL 86400 SET progress = 7 "
        "WHERE userid = ? AND courseid = ? AND batchid = ?"
    )
    third = (tuple(key) for number, key in enumerate(keys) if not number % 3)
    execute_concurrent_with_args(connection.session, update, third, concurrency=100)


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5, help="counted runs after one warm-up")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true", help="leave the plain copy out")
    parser.add_argument("--mixed", action="store_true", help="rows whose cells differ in time")
    options = parser.parse_args()

    (server,) = start_all([Cassandra()], report=lambda line: print(line, flush=True))
    settings = CassandraSettings(port=server.port)
    process = psutil.Process(server.pid)
    prepare(settings, options.rows, mixed=options.mixed)
    migration = Migration(
        Endpoint("origin", TableName(KEYSPACE, sample.ORIGIN_TABLE)),
        Endpoint("target", TableName(KEYSPACE, sample.TARGET_TABLE)),
        compare_writetime=True,
    )
    new_times = replace(migration, writetime="now", ttl="none", compare_writetime=False)
    peer = None if options.no_peer else PlainCopy(settings, options.workers)
    with ExitStack() as stack:
        origin, target = (stack.enter_context(Connection(settings)) for _ in range(2))
        sides = []
        for declared in (new_times, migration):
            plan = build_plan(declared, origin, target)
            pool = WorkerPool(plan, settings, settings, workers=options.workers)
            sides.append((plan, stack.enter_context(pool)))
        results = run_in_turn(
            options.runs,
            lambda run: one_run(options.rows, sides, (origin, target), process, peer),
        )
        workers = [peak_mb(pid) for _, pool in sides for pid in pool.process_ids]
        parent = peak_mb(psutil.Process().pid)
    if peer:
        peer.close()
    print_table(results, PAIRS, "row")
    print(f"\npeak memory: {max(workers):.0f} MB a worker process, {parent:.0f} MB the parent")


def one_run(
    rows: int,
    sides: list[tuple[Plan, WorkerPool]],
    connections: tuple[Connection, Connection],
    server: psutil.Process,
    peer: PlainCopy | None,
) -> dict[str, Measured]:
    """Copy and compare both ways, and copy plainly; the target is emptied before each copy."""
    done: dict[str, Measured] = {}
    for (plan, pool), copy_name, comparison_name in zip(
        sides,
        ("copy, new times", "copy, own times"),
        ("comparison", "comparison with times"),
        strict=True,
    ):
        clients = [psutil.Process(), *map(psutil.Process, pool.process_ids)]
        ranges = plan.migration.ranges
        truncate(connections[1], plan.target.name)
        done[copy_name] = measure(rows, clients, server, partial(copy_all, pool, ranges))
        compare = partial(compare_all, rows, plan, pool)
        done[comparison_name] = measure(rows, clients, server, compare)
    if peer:
        truncate(connections[1], sides[0][0].target.name)
        theirs = [psutil.Process(pid) for pid in peer.process_ids]
        done["plain copy"] = measure(rows, theirs, server, peer.copy)
    return done


def compare_all(rows: int, plan: Plan, pool: WorkerPool) -> None:
    """Compare every range with this package."""
    verdicts = list(diff_ranges(pool, plan, plan.migration.ranges))
    wrong = [verdict for verdict in verdicts if not verdict.matches]
    if wrong or sum(verdict.origin_rows for verdict in verdicts) != rows:
        raise SystemExit(f"the copy is not right: {wrong[:1]}")


if __name__ == "__main__":
    main()
