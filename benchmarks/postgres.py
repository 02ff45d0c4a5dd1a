"""Measures copies to PostgreSQL beside what one writes with psycopg, on servers of its own.

    python -m benchmarks.postgres --rows 200000 --runs 3

The table has 19 columns, and the rows are those of the other benchmarks. In a run every program has
its turn, another one first each time; the first run is a warm-up and does not count. Before a work
the target is emptied, but for a second copy and a comparison, and both servers are left alone until
they are idle; after it the rows are counted. Writes a page of its own.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.bench import Served, machine, serving, versions
from benchmarks.measuring import (
    IDLE_SECONDS,
    IDLE_SHARE,
    IDLE_TRIES,
    Family,
    Measured,
    Results,
    Spent,
    say,
    wait_until_idle,
)
from benchmarks.peers import KEYSPACE, START_ROWS, Peer, Place, Work
from benchmarks.peers.postgres import (
    AGAIN,
    BARE,
    COMPARISON,
    LARGE,
    LARGE_KEYSPACE,
    LARGE_SHARE,
    PEERS,
    READY,
    SMALL_KEYSPACE,
    SMALL_SHARE,
    TABLE,
    connect,
    table_of,
)
from benchmarks.postgres_page import Copies, make_page
from benchmarks.report import command_line
from benchmarks.tables import count_rows
from migration_platform.cql.names import TableName
from migration_platform.demo import sample
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.postgres import Postgres
from migration_platform.local.stack import home_folder, jars_cache, running
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.tables import truncate

PAGE = "benchmarks-postgres.md"
KEEPS_ROWS = (AGAIN, COMPARISON)
"""Works on what the one before has written."""
ONCE = (LARGE,)
"""Done in the first counted run only: it is long, and told of its memory."""


@dataclass
class Bench:
    """What the measured works share."""

    rows: int
    connection: psycopg.Connection[tuple[Any, ...]]
    cassandra: psutil.Process
    postgres: psutil.Process
    served: dict[str, Served]

    def do(self, peer: Peer, work: Work) -> Measured:
        """Measure a work once."""
        rows = self.rows_of(work)
        if work not in KEEPS_ROWS:
            self.empty()
        served = self.served[peer.name]
        served.ask(work=work.name, rows=rows)
        self.wait_until_idle()
        server = Family(self.postgres)
        with served.family.watched():
            client, used = served.family.cpu_seconds(), server.cpu_seconds()
            began = time.monotonic()
            served.go()
            seconds = time.monotonic() - began
            spent = Spent(
                rows, seconds, served.family.cpu_seconds() - client, server.cpu_seconds() - used
            )
        arrived = None if work is COMPARISON else self.count(table_of(work))
        peaks = served.family.peak_mb, served.family.largest_mb
        return Measured(spent, None, *peaks, arrived=arrived)

    def rows_of(self, work: Work) -> int:
        """Say how many rows a work has."""
        return max(1, round(self.rows * work.share))

    def empty(self) -> None:
        """Empty the tables, and let the server write down what it still has to."""
        self.connection.execute(f"TRUNCATE benchmark.{TABLE}, benchmark.{BARE}")
        self.connection.execute("CHECKPOINT")

    def count(self, table: str) -> int:
        """Count a table's rows."""
        statement = f"SELECT count(*) FROM benchmark.{table}"
        found = self.connection.execute(statement.encode()).fetchone()
        assert found
        return found[0]

    def wait_until_idle(self) -> None:
        """Leave both servers alone; PostgreSQL works in processes that come and go."""
        wait_until_idle(self.cassandra)
        server = Family(self.postgres)
        for _ in range(IDLE_TRIES):
            before = server.cpu_seconds()
            time.sleep(IDLE_SECONDS)
            if server.cpu_seconds() - before < IDLE_SHARE * IDLE_SECONDS:
                return


def fill(connection: Connection, rows: int) -> None:
    """Make the enrolments that are copied, and a quarter and four times as many beside them."""
    shares = {KEYSPACE: 1.0, SMALL_KEYSPACE: SMALL_SHARE, LARGE_KEYSPACE: LARGE_SHARE}
    for keyspace, share in shares.items():
        count = round(rows * share)
        sample.create_tables(connection, keyspace)
        say(f"filling {keyspace} with {count:,} rows")
        truncate(connection, TableName(keyspace, sample.ORIGIN_TABLE))
        sample.fill_origin(connection, count, keyspace=keyspace)
        found = count_rows(connection, TableName(keyspace, sample.ORIGIN_TABLE))
        assert found == count, f"{found:,} rows instead of {count:,}"


@contextmanager
def started(peer: Peer, place: Place) -> Iterator[Served]:
    """Start a program, and wait until it has connected."""
    say(f"starting {peer.name}")
    with serving(peer, place) as served:
        served.wait_until_ready()
        yield served


def make_tables(bench: Bench, peers: Sequence[Peer]) -> None:
    """Let this project make and fill its table, and keep the rows that the others write."""
    first = bench.served[peers[0].name]
    first.ask(work=peers[0].works[0].name, rows=bench.rows)
    first.go()
    for table in (BARE, READY):
        bench.connection.execute(f"DROP TABLE IF EXISTS benchmark.{table}")
        bench.connection.execute(f"CREATE TABLE benchmark.{table} (LIKE benchmark.{TABLE})")
    bench.connection.execute(f"INSERT INTO benchmark.{READY} SELECT * FROM benchmark.{TABLE}")
    assert bench.count(READY) == bench.rows


def measure_run(bench: Bench, peers: Sequence[Peer], run: int) -> dict[str, Measured]:
    """Give each program its turn."""
    results: dict[str, Measured] = {}
    at = run % len(peers)
    for peer in (*peers[at:], *peers[:at]):
        for work in peer.works:
            if work in ONCE and run != 1:
                continue
            done = results[work.name] = bench.do(peer, work)
            say(
                f"{f'run {run}' if run else 'warm-up'}: {work.name}: "
                f"{done.rows_per_second:,.0f} rows/s, {done.client_us:,.1f} and "
                f"{done.server_us:,.1f} µs a row, {done.largest_mb:,.0f} MB"
                + (f", {done.lost:,} rows lost" if done.lost else "")
            )
    return results


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.postgres", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3, help="counted runs after one warm-up")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    options = parser.parse_args()
    if options.rows < START_ROWS or options.runs < 1:
        parser.error(f"{START_ROWS:,} rows and a run are needed")
    return options


def main() -> None:
    """Run the benchmark and write its page."""
    options = parse_arguments()
    home = home_folder() / "bench-postgres"
    (home / "scratch").mkdir(parents=True, exist_ok=True)
    cache = jars_cache(home_folder())
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(running(server, home=home, jars_folder=cache, report=say))
            for server in (Cassandra(), Postgres())
        ]
        cassandra, postgres = nodes
        place = Place(
            host=LOCALHOST,
            port=cassandra.port,
            dynamodb_url="",
            folder=home / "scratch",
            packages=home,
            jars=cache,
            postgres_port=postgres.port,
        )
        origin = stack.enter_context(Connection(CassandraSettings(port=cassandra.port)))
        fill(origin, options.rows)
        connection = stack.enter_context(connect(postgres.port))
        connection.execute("DROP SCHEMA IF EXISTS benchmark CASCADE")
        processes = psutil.Process(cassandra.pid), psutil.Process(postgres.pid)
        bench = Bench(options.rows, connection, *processes, served={})
        for peer in PEERS:
            bench.served[peer.name] = stack.enter_context(started(peer, place))
        make_tables(bench, PEERS)
        found = versions(list(PEERS), place, origin)
        found |= {"PostgreSQL": connection.info.parameter_status("server_version") or ""}
        results: Results = {}
        for run in range(options.runs + 1):
            for name, done in measure_run(bench, PEERS, run).items():
                if run:
                    results.setdefault(name, []).append(done)
            if run:
                # After each run: one that is ended loses no more than itself.
                told = Copies(
                    command_line("postgres"), options.rows, run, machine(), found, results
                )
                options.docs.mkdir(parents=True, exist_ok=True)
                page = options.docs / PAGE
                page.write_text(make_page(told, PEERS), encoding="utf-8")
                say(f"wrote {page}")


if __name__ == "__main__":
    main()
