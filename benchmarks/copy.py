"""Measures copy and comparison of the sample table on the local stack, beside a plain copy.

    python benchmarks/copy.py --rows 200000 --runs 5

Each run does, in turn: this package's copy, its comparison, and a copy as one would write it with
the driver alone (paged SELECT, execute_concurrent_with_args, the same number of processes). The
machine drifts, so compare only within one run: the ratios are taken pair by pair. CPU is that of
all client processes and of the server's process, start-up left out; memory is the peak of the
largest worker process.
"""

import sys

# Run as a script, this file would hide the standard library's module of the same name.
sys.path = [folder for folder in sys.path if not folder.endswith("benchmarks")]

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

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


@dataclass(frozen=True)
class Measured:
    """One measured piece of work: rows, wall seconds, CPU seconds of clients and server."""

    rows: int
    seconds: float
    client: float
    server: float

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def client_us(self) -> float:
        return self.client / self.rows * 1e6

    @property
    def server_us(self) -> float:
        return self.server / self.rows * 1e6


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Add up user and system time."""
    return sum(t.user + t.system for t in (p.cpu_times() for p in processes))


def peak_mb(pid: int) -> float:
    """Give a process's peak resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no peak memory of process {pid}")


def measure(
    rows: int, clients: list[psutil.Process], server: psutil.Process, work: Callable[[], None]
) -> Measured:
    """Do the work once, and account for it."""
    client, served, began = cpu_seconds(clients), cpu_seconds([server]), time.monotonic()
    work()
    return Measured(
        rows,
        time.monotonic() - began,
        cpu_seconds(clients) - client,
        cpu_seconds([server]) - served,
    )


def copy_all(pool: WorkerPool, ranges: tuple[TokenRange, ...]) -> None:
    """Copy every range with this package."""
    for event in pool.run([CopyRange(token_range) for token_range in ranges]):
        if isinstance(event, Failed):
            raise SystemExit(event.reason)


def plain_worker(pipe, settings: CassandraSettings, ranges: list[TokenRange]) -> None:
    """Copy ranges as the driver's documentation shows it; one command on the pipe is one copy."""
    from cassandra.concurrent import execute_concurrent_with_args

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


def prepare(settings: CassandraSettings, rows: int) -> None:
    """Fill the benchmark's origin table unless it holds that many rows already."""
    with Connection(settings) as connection:
        sample.create_tables(connection, KEYSPACE)
        count = f"SELECT count(*) FROM {KEYSPACE}.{sample.ORIGIN_TABLE}"
        if connection.session.execute(count, timeout=600).one()[0] != rows:
            print(f"filling {rows:,} rows", flush=True)
            truncate(connection, TableName(KEYSPACE, sample.ORIGIN_TABLE))
            sample.fill_origin(connection, rows, keyspace=KEYSPACE)


def print_table(results: dict[str, list[Measured]]) -> None:
    """Print medians with their spread, and ratios taken pair by pair."""
    print(f"\n{'':<12}{'rows/s':>26}{'client µs/row':>26}{'server µs/row':>26}")
    for name, runs in results.items():
        cells = []
        for figure in ("rows_per_second", "client_us", "server_us"):
            values = sorted(getattr(run, figure) for run in runs)
            median = statistics.median(values)
            cells.append(f"{median:,.0f} ({values[0]:,.0f} to {values[-1]:,.0f})")
        print(f"{name:<12}" + "".join(f"{cell:>26}" for cell in cells))
    pairs = list(zip(results["copy"], results["plain copy"], strict=True))
    speed = statistics.median(a.rows_per_second / b.rows_per_second for a, b in pairs)
    client = statistics.median(b.client_us / a.client_us for a, b in pairs)
    server = statistics.median(b.server_us / a.server_us for a, b in pairs)
    print(
        f"\nbeside the plain copy: {speed:.1f} times the rows a second, "
        f"1/{client:.1f} of its client CPU, 1/{server:.1f} of its server CPU (medians of pairs)"
    )


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5, help="counted runs after one warm-up")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true", help="leave the plain copy out")
    options = parser.parse_args()

    (server,) = start_all([Cassandra()], report=lambda line: print(line, flush=True))
    settings = CassandraSettings(port=server.port)
    process = psutil.Process(server.pid)
    prepare(settings, options.rows)
    migration = Migration(
        Endpoint("origin", TableName(KEYSPACE, sample.ORIGIN_TABLE)),
        Endpoint("target", TableName(KEYSPACE, sample.TARGET_TABLE)),
    )
    results: dict[str, list[Measured]] = {"copy": [], "comparison": [], "plain copy": []}
    peer = None if options.no_peer else PlainCopy(settings, options.workers)
    with Connection(settings) as origin, Connection(settings) as target:
        plan: Plan = build_plan(migration, origin, target)
        with WorkerPool(plan, settings, settings, workers=options.workers) as pool:
            clients = [psutil.Process(), *map(psutil.Process, pool.process_ids)]
            for run in range(options.runs + 1):
                done = one_run(options.rows, plan, pool, (origin, target), clients, process, peer)
                if run:  # the first one warms up
                    for name, measured in done.items():
                        results[name].append(measured)
                shown = ", ".join(f"{n} {m.rows_per_second:,.0f} rows/s" for n, m in done.items())
                print(f"{'run ' + str(run) if run else 'warm-up'}: {shown}", flush=True)
            workers = [peak_mb(pid) for pid in pool.process_ids]
            parent = peak_mb(psutil.Process().pid)
    if peer:
        peer.close()
        print_table(results)
    print(f"peak memory: {max(workers):.0f} MB a worker process, {parent:.0f} MB the parent")


def one_run(
    rows: int,
    plan: Plan,
    pool: WorkerPool,
    connections: tuple[Connection, Connection],
    clients: list[psutil.Process],
    server: psutil.Process,
    peer: PlainCopy | None,
) -> dict[str, Measured]:
    """Copy, compare, and copy plainly; the target is emptied before each copy."""
    done: dict[str, Measured] = {}
    truncate(connections[1], plan.target.name)
    ranges = plan.migration.ranges
    done["copy"] = measure(rows, clients, server, lambda: copy_all(pool, ranges))

    def compare() -> None:
        verdicts = list(diff_ranges(pool, plan, ranges, connections))
        assert all(verdict.matches for verdict in verdicts)
        assert sum(verdict.origin_rows for verdict in verdicts) == rows

    done["comparison"] = measure(rows, clients, server, compare)
    if peer:
        truncate(connections[1], plan.target.name)
        theirs = [psutil.Process(pid) for pid in peer.process_ids]
        done["plain copy"] = measure(rows, theirs, server, peer.copy)
    return done


if __name__ == "__main__":
    main()
