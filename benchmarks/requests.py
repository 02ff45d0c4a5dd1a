"""Measures what a request costs a server: the same rows, written and read in many ways in turn.

    python -m benchmarks.requests --rows 50000 --runs 3

One node is started for it and ends with it. Rows are those of the sample, bound beforehand, so that
a client has little to do; each way differs from another in one thing. In a run every way has its
turn, another one first each time; the target is emptied and the server left to become idle before.
The first run is a warm-up. Server CPU is told by groups of threads, and the compiler's left out of
the sum, which would else tell how long a server has been up. Writes docs/benchmarks-requests.md.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import psutil
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.query import UNSET_VALUE, PreparedStatement

from benchmarks.bench import machine, versions
from benchmarks.measuring import say, wait_until_idle
from benchmarks.peers import Place
from benchmarks.raw import RawClient, make_bodies
from benchmarks.report import command_line
from benchmarks.requests_page import PACE, Turn, write_page
from benchmarks.server_profile import Stacks, Watch, recorded
from benchmarks.tables import QUORUM, open_writer, prepare_rows, read_table
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import NULL, UNSET, join_cells
from migration_platform.demo import sample
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.stack import home_folder, jars_cache, running
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra import connection as cassandra
from migration_platform.stores.cassandra import writes as cassandra_writes
from migration_platform.stores.cassandra.connection import (
    MAX_PAGE_ROWS,
    CassandraSettings,
    Connection,
)
from migration_platform.stores.cassandra.layer_writes import GROUP_ROWS
from migration_platform.stores.cassandra.tables import describe_table, truncate
from migration_platform.stores.cassandra.window import Window
from migration_platform.stores.cassandra.writes import (
    BATCH_BYTES,
    BATCH_PARTITIONS,
    WRITES_IN_FLIGHT,
    Writer,
    WriteStatement,
)
from migration_platform.token_ranges import token_of_key

KEYSPACE = "requests"
SLOW_SHARE = 0.2
"""Of the rows, for a way that is slow however many they are."""
FEW_ROWS = 1_000
FLUSH_MS = 1_000
SMALL_RANGE_ROWS = 1_500
"""As a range has of a table of 100,000 rows in 64 of them; rows are never gathered beyond one."""
FEW_RANGES = 4
"""So few that a page of any size finds enough rows in a range."""
NAMES = tuple(name for name, _ in sample.COLUMNS)
BATCH_ID = NAMES.index("batchid")

Group = tuple[bytes, Sequence[bytes]]
"""A partition's key and bound rows of it, that travel together."""


@dataclass(frozen=True)
class Rows:
    """The rows to write, bound to the target's INSERT in several ways; all lists in one order.

    `values` are Python's, as a program hands them to a driver.
    """

    values: list[list]
    unset: list[bytes]
    null: list[bytes]
    keys: list[bytes]

    def first(self, count: int) -> "Rows":
        """Give some of them."""
        return Rows(self.values[:count], self.unset[:count], self.null[:count], self.keys[:count])


@dataclass
class Bench:
    """What all ways share. `v4` is a connection with the older protocol."""

    rows: Rows
    connection: Connection
    v4: Connection
    table: Table
    origin: Table
    statement: WriteStatement
    port: int


@dataclass(frozen=True)
class Way:
    """One way of writing or reading, a line of a section's table.

    `do` gives how many rows it has written or read. Of `profiled` ones stacks are recorded.
    """

    section: str
    name: str
    do: Callable[[Bench], int]
    profiled: bool = False


# -- writing -----------------------------------------------------------------------------------


def with_driver(bench: Bench, null: object) -> int:
    """Write as a program with the driver alone does."""
    rows = bench.rows.values
    if null is not None:
        rows = [[null if value is None else value for value in row] for row in rows]
    done = execute_concurrent_with_args(
        bench.connection.session, bench.statement.prepared, rows, concurrency=100
    )
    return len(done)


def with_writer(
    bench: Bench,
    groups: Callable[[Bench], Sequence[Group]],
    *,
    in_flight: int | None = WRITES_IN_FLIGHT,
    consistency: str = QUORUM,
    v4: bool = False,
    batch_bytes: int = BATCH_BYTES,
    timestamps: bool = True,
    in_bursts: bool = False,
) -> int:
    """Write groups of rows with this project's writer; a single row is an EXECUTE.

    Without `in_flight` it finds out by itself how many requests to have under way.
    """
    connection = bench.v4 if v4 else bench.connection
    with mock.patch.object(cassandra_writes, "BATCH_BYTES", batch_bytes), ExitStack() as patches:
        if in_flight is not None:
            patches.enter_context(mock.patch.object(connection, "window", _Fixed(in_flight)))
        if not timestamps:
            patches.enter_context(without_timestamps())
        writer = open_writer(
            connection,
            bench.table,
            bench.statement,
            consistency=consistency,
            kind=_InBursts if in_bursts else Writer,
        )
        for key, rows in groups(bench):
            writer.write_group(rows, key)
        writer.flush()
    return writer.rows_written


class _Fixed(Window):
    """A number of requests under way that stays, whatever they take."""

    def room(self, now):
        return int(self.size)

    def note(self, sent, answered):
        """Learn nothing."""


class _InBursts(Writer):
    """Sends no more until half of what is in flight is answered, then all at once."""

    def _begin(self, chunk):
        room = self._window.room(time.monotonic())
        if self._flying >= room:
            while self._flying > room // 2:
                self._settle_one()
        super()._begin(chunk)


@contextmanager
def without_timestamps() -> Iterator[None]:
    """Let the writer send none."""

    def send_body(write, f, protocol_version):
        f.write(write.body)

    with (
        mock.patch.object(cassandra_writes, "_FLAG_TIMESTAMP", 0),
        mock.patch.object(cassandra_writes._Write, "send_body", send_body),
    ):
        yield


def with_socket(bench: Bench, *, in_flight: int, pace: int | None = None) -> int:
    """Write single rows without a driver, at a pace or as quick as the server takes them."""
    # What a slow client does in some seconds says enough.
    rows = bench.rows.unset if pace is None else bench.rows.unset[: 4 * pace]
    bodies = make_bodies(bench.statement.prepared, rows, QUORUM)
    client = RawClient(LOCALHOST, bench.port)
    try:
        client.write(bodies, in_flight, pace)
    finally:
        client.close()
    return len(bodies)


def singly(bench: Bench, *, null: bool = False, share: float = 1.0) -> list[Group]:
    """Give each row alone, in the origin's order, which is none at the target."""
    rows = bench.rows.null if null else bench.rows.unset
    count = round(len(rows) * share)
    return [(key, (row,)) for key, row in zip(bench.rows.keys[:count], rows[:count], strict=True)]


def by_token(groups: Sequence[Group]) -> list[Group]:
    """Put groups into the order of the target's ring."""
    return sorted(groups, key=lambda group: token_of_key(group[0]))


def by_partition(
    bench: Bench, most_rows: int | None = None, gathered_rows: int = GROUP_ROWS
) -> list[Group]:
    """Give rows of one partition together, gathered as a copy gathers them."""
    found: list[Group] = []
    pairs = list(zip(bench.rows.keys, bench.rows.unset, strict=True))
    for start in range(0, len(pairs), gathered_rows):
        gathered: dict[bytes, list[bytes]] = {}
        for key, row in pairs[start : start + gathered_rows]:
            gathered.setdefault(key, []).append(row)
        for key, rows in gathered.items():
            step = most_rows or len(rows)
            found += [(key, rows[at : at + step]) for at in range(0, len(rows), step)]
    return found


def across_partitions(bench: Bench) -> list[Group]:
    """Give rows together as they come, of up to ten partitions."""
    keys, rows = bench.rows.keys, bench.rows.unset
    return [
        (keys[at], rows[at : at + BATCH_PARTITIONS]) for at in range(0, len(rows), BATCH_PARTITIONS)
    ]


def singly_by_token(bench: Bench) -> list[Group]:
    """Give each row alone, in the order of the target's ring."""
    return by_token(singly(bench))


def partitions_by_token(bench: Bench) -> list[Group]:
    """Give rows of one partition together, in the order of the target's ring."""
    return by_token(by_partition(bench))


# -- reading -----------------------------------------------------------------------------------


def with_pages(
    bench: Bench,
    *,
    page_rows: int = MAX_PAGE_ROWS,
    ranges: int = FEW_RANGES,
    consistency: str = QUORUM,
    metadata: bool = False,
    times: Sequence[str] = (),
) -> int:
    """Read the origin's table range by range, as a copy does."""
    pages = read_table(
        bench.connection,
        bench.origin,
        NAMES,
        times=times,
        ranges=ranges,
        page_rows=page_rows,
        consistency=consistency,
        metadata=metadata,
    )
    return sum(page.row_count for page in pages)


def cell_times() -> list[str]:
    """Give what a copy that keeps each cell's own times selects beside the values."""
    plain = [name for name, kind in sample.COLUMNS[3:] if "<" not in kind]
    return [f"{function}({name})" for function in ("writetime", "ttl") for name in plain]


# -- what is measured --------------------------------------------------------------------------

FLYING = "Requests in flight, a row in each"
SAYS = "What a request says, a row in each"
FILLED = "Rows in a request"
READING = "Reading"
WRITTEN_BY = "by this project's writer"


def writing_ways() -> Iterator[Way]:
    """Give the ways of writing, in the order of the page."""
    yield Way(FLYING, "by the driver, 100 in flight", partial(with_driver, null=None), True)
    for count in (1, 8, WRITES_IN_FLIGHT, 128):
        some = partial(singly, share=SLOW_SHARE if count == 1 else 1.0)
        do = partial(with_writer, groups=some, in_flight=count)
        yield Way(FLYING, f"{WRITTEN_BY}, {count} in flight", do, count == WRITES_IN_FLIGHT)
    do = partial(with_writer, groups=singly, in_flight=None)
    yield Way(FLYING, f"{WRITTEN_BY}, as many in flight as it finds out", do)
    for count in (8, WRITES_IN_FLIGHT, 128):
        do = partial(with_socket, in_flight=count)
        yield Way(FLYING, f"straight to a socket, {count} in flight", do, count == WRITES_IN_FLIGHT)
    for pace in (500, 1_000, 2_000, 4_000, 8_000):
        do = partial(with_socket, in_flight=WRITES_IN_FLIGHT, pace=pace)
        yield Way(PACE, f"{pace:,} a second", do, pace == 1_000)
    alone = partial(with_writer, groups=singly)
    yield Way(SAYS, "as it is by default", alone)
    yield Way(SAYS, "nulls as null", partial(with_writer, groups=partial(singly, null=True)))
    yield Way(SAYS, "no timestamp", partial(alone, timestamps=False))
    yield Way(SAYS, "ONE instead of LOCAL_QUORUM", partial(alone, consistency="ONE"))
    yield Way(SAYS, "LOCAL_ONE instead of LOCAL_QUORUM", partial(alone, consistency="LOCAL_ONE"))
    yield Way(SAYS, "protocol 4 instead of 5", partial(alone, v4=True))
    yield Way(SAYS, "in the order of the target", partial(with_writer, groups=singly_by_token))
    yield Way(SAYS, "by the driver", partial(with_driver, null=None))
    yield Way(SAYS, "by the driver, nulls as unset", partial(with_driver, null=UNSET_VALUE))
    for rows in (1, 2, 4, 9):
        groups = partial(by_partition, most_rows=rows)
        do = partial(with_writer, groups=groups, batch_bytes=sys.maxsize)
        yield Way(FILLED, f"{rows} of one partition", do)
    together = partial(with_writer, groups=by_partition)
    yield Way(FILLED, "of one partition, up to 5 KiB", together, True)
    for kib in (10, 20):
        do = partial(together, batch_bytes=kib * 1024)
        yield Way(FILLED, f"of one partition, up to {kib} KiB (the server warns)", do)
    yield Way(
        FILLED,
        "of one partition, up to 5 KiB, in the order of the target",
        partial(with_writer, groups=partitions_by_token),
    )
    few = partial(by_partition, gathered_rows=SMALL_RANGE_ROWS)
    yield Way(
        FILLED,
        f"of one partition, up to 5 KiB, gathered from {SMALL_RANGE_ROWS:,} rows at a time",
        partial(with_writer, groups=few),
    )
    yield Way(
        FILLED,
        "of one partition, up to 5 KiB, sent anew when half are answered",
        partial(together, in_bursts=True),
    )
    yield Way(
        FILLED,
        "of one partition, up to 5 KiB, as many requests in flight as it finds out",
        partial(together, in_flight=None),
    )
    yield Way(
        FILLED,
        "of one partition, up to 5 KiB, 8 requests in flight",
        partial(together, in_flight=8),
    )
    yield Way(
        FILLED,
        f"of up to {BATCH_PARTITIONS} partitions, up to 5 KiB",
        partial(with_writer, groups=across_partitions),
    )


def reading_ways() -> Iterator[Way]:
    """Give the ways of reading, in the order of the page."""
    for rows in (100, 500, 1_000, MAX_PAGE_ROWS):
        do = partial(with_pages, page_rows=rows)
        yield Way(READING, f"pages of {rows:,} rows, {FEW_RANGES} ranges", do)
    whole = "pages of a whole range"
    for ranges in (16, 64, 256, 1000):
        do = partial(with_pages, ranges=ranges)
        yield Way(READING, f"{whole}, {ranges:,} ranges", do, ranges == 64)
    some = partial(with_pages, ranges=64)
    yield Way(READING, f"{whole}, 64 ranges, ONE", partial(some, consistency="ONE"))
    yield Way(
        READING, f"{whole}, 64 ranges, the columns described in each", partial(some, metadata=True)
    )
    yield Way(
        READING, f"{whole}, 64 ranges, with each cell's times", partial(some, times=cell_times())
    )


def measure(bench: Bench, way: Way, server: psutil.Process) -> Turn:
    """Do it once, from an empty target and an idle server."""
    reads = way.section == READING
    if not reads:
        truncate(bench.connection, bench.table.name)
    wait_until_idle(server)
    watch = Watch(server.pid)
    watch.look()
    mine, began = time.process_time(), time.monotonic()
    rows = way.do(bench)
    seconds = time.monotonic() - began
    return Turn(rows, seconds, time.process_time() - mine, watch.look())


def record(bench: Bench, way: Way, server: psutil.Process, folder: Path) -> tuple[Turn, Stacks]:
    """Do it for what it costs, again for the stacks, and with some of the rows for the sleeps."""
    turn, stacks, some = measure(bench, way, server), Stacks(), bench.rows.first(FEW_ROWS)
    for sleeps in (False, True):
        with recorded(server.pid, folder, stacks, sleeps=sleeps):
            way.do(replace(bench, rows=some) if sleeps else bench)
    return turn, stacks


def make_rows(statement: PreparedStatement, count: int) -> Rows:
    """Bind the sample's rows."""
    values = [[row.get(name) for name in NAMES] for row in sample.enrolments(count)]
    bound = [statement.bind(row).values or () for row in values]
    cells = [[cell if isinstance(cell, bytes) else None for cell in row] for row in bound]
    return Rows(
        values=values,
        unset=[join_cells(row, UNSET) for row in cells],
        null=[join_cells(row, NULL) for row in cells],
        keys=[row[BATCH_ID] or b"" for row in cells],
    )


def fill_origin(connection: Connection, rows: int, server: psutil.Process) -> None:
    """Make the rows to read, and let the server put them on the disk, as old rows are."""
    name = TableName(KEYSPACE, sample.ORIGIN_TABLE)
    truncate(connection, name)
    sample.fill_origin(connection, rows, keyspace=KEYSPACE)
    for period in (FLUSH_MS, 0):
        connection.session.execute(
            f"ALTER TABLE {name} WITH memtable_flush_period_in_ms = {period}"
        )
        if period:
            time.sleep(3 * period / 1000)
            wait_until_idle(server)


@contextmanager
def older_protocol(port: int) -> Iterator[Connection]:
    """Connect with protocol 4, which this project takes where a server has no newer one."""
    with (
        mock.patch.object(cassandra, "ProtocolVersion", SimpleNamespace(V5=4, V4=4)),
        Connection(CassandraSettings(port=port)) as connection,
    ):
        yield connection


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.requests", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3, help="counted runs after one warm-up")
    parser.add_argument("--only", default="", help="part of the names or sections to measure")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    options = parser.parse_args()
    if options.rows < 1_000 or options.runs < 1:
        parser.error("1,000 rows and a run are needed")
    return options


def main() -> None:
    """Run the benchmark and write its page."""
    options = parse_arguments()
    wanted = options.only.lower()
    ways = [
        way
        for way in (*writing_ways(), *reading_ways())
        if wanted in f"{way.section}, {way.name}".lower()
    ]
    if not ways:
        raise SystemExit(f"nothing is named {options.only!r}")
    home = home_folder() / "requests"
    home.mkdir(parents=True, exist_ok=True)
    cache = jars_cache(home_folder())
    with ExitStack() as stack:
        started = running(Cassandra(), home=home, jars_folder=cache, report=say)
        port = (node := stack.enter_context(started)).port
        connection = stack.enter_context(Connection(CassandraSettings(port=port)))
        server = psutil.Process(node.pid)
        sample.create_tables(connection, KEYSPACE)
        table = describe_table(connection, TableName(KEYSPACE, sample.TARGET_TABLE))
        statement = prepare_rows(connection, table, NAMES)
        say(f"making {options.rows:,} rows")
        if any(way.section == READING for way in ways):
            fill_origin(connection, options.rows, server)
        bench = Bench(
            rows=make_rows(statement.prepared, options.rows),
            connection=connection,
            v4=stack.enter_context(older_protocol(port)),
            table=table,
            origin=describe_table(connection, TableName(KEYSPACE, sample.ORIGIN_TABLE)),
            statement=statement,
            port=port,
        )
        place = Place(LOCALHOST, port, "", home, home, cache)
        found = versions([], place, connection)
        turns: dict[tuple[str, str], list[Turn]] = {}
        profiles: dict[tuple[str, str], tuple[Turn, Stacks]] = {}
        for run in range(options.runs + 1):
            at = run * len(ways) // (options.runs + 1)
            for way in (*ways[at:], *ways[:at]):
                turn = measure(bench, way, server)
                say(
                    f"{f'run {run}' if run else 'warm-up'}: {way.section}: {way.name}: "
                    f"{turn.rows / turn.seconds:,.0f} rows/s, client {turn.client_us:.1f}, "
                    f"server {turn.server_us:.1f} µs a row, {turn.sleeps:.2f} sleeps"
                )
                if run:
                    turns.setdefault((way.section, way.name), []).append(turn)
            for way in ways:
                if run == options.runs and way.profiled:
                    say(f"recording stacks: {way.section}: {way.name}")
                    profiles[way.section, way.name] = record(bench, way, server, home)
            if run:
                # After each run: one that is ended loses no more than itself.
                page = write_page(
                    options.docs,
                    {(way.section, way.name): turns[way.section, way.name] for way in ways},
                    profiles,
                    command=command_line("requests"),
                    rows=options.rows,
                    runs=run,
                    machine=machine(),
                    versions=found,
                )
                say(f"wrote {page}")


if __name__ == "__main__":
    main()
