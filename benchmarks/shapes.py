"""Measures copies of tables of many shapes, by this project and by the driver alone.

    python -m benchmarks.shapes --rows 100000 --runs 3
    python -m benchmarks.shapes --only wide,skewed

Each shape has an origin and a target table of its own on a server that is started for it. Programs,
order and checks are those of `benchmarks.bench`. Writes docs/benchmarks-shapes.md, after each shape
anew.
"""

import argparse
import math
import random
import string
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from struct import Struct

import psutil

from benchmarks.bench import Bench, machine, measure_run, start_served, versions
from benchmarks.measuring import Measured, Results, ratio, say, spread
from benchmarks.peers import TOKEN_RANGES, Peer, Place, Work, own, plain
from benchmarks.report import (
    NONE,
    Report,
    command_line,
    lay_table,
    round_figure,
    show_figure,
    show_settings,
    tell_faults,
)
from benchmarks.tables import open_writer, prepare_rows, read_table
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import UNSET, compile_splitter, join_cells
from migration_platform.demo import sample
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.stack import home_folder, jars_cache, running
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.token_ranges import split_ring, token_of_key

PEERS = (*own.PEERS, plain.PEER)
PLAIN = plain.PEER.works[0].name
COPIES = (own.NEW_TIMES.name, own.OWN_TIMES.name)
MOST_MB = 200
HOT_PARTITIONS = 4
NULL_COLUMNS = 36
LARGE_BYTES = 100_000
SKEWED_PERCENT = 95
SKEWED_PARTITION_ROWS = 20
SKEWED_INDEX = TOKEN_RANGES // 3

_INT, _LONG = Struct(">i").pack, Struct(">q").pack

Partitions = Iterator[Sequence[bytes]]
"""Rows as they are bound, those of one partition of the origin together."""


@dataclass(frozen=True)
class Shape:
    """A pair of tables and the rows to be copied.

    Attributes:
        told: What is special, for the page.
        columns: Name and CQL type, in the order in which rows are bound.
        origin_key, target_key: As CQL writes primary keys.
        share: How many of the rows that were asked for; rows that weigh much are fewer.
        make: Gives so many rows; None for those of the sample data.
    """

    name: str
    told: str
    columns: tuple[tuple[str, str], ...]
    origin_key: str
    target_key: str
    make: Callable[[int], Partitions] | None
    share: float = 1.0

    @property
    def keyspace(self) -> str:
        return f"shape_{self.name}"

    @property
    def origin(self) -> TableName:
        return TableName(self.keyspace, "origin" if self.make else sample.ORIGIN_TABLE)

    @property
    def target(self) -> TableName:
        return TableName(self.keyspace, "target" if self.make else sample.TARGET_TABLE)


@dataclass(frozen=True)
class Weighed:
    """What an origin table holds: rows, their bytes on the wire, and cells that are null."""

    rows: int
    bytes: int
    nulls: int

    @property
    def row_bytes(self) -> float:
        return self.bytes / self.rows


@dataclass(frozen=True)
class Outcome:
    """A shape that was measured; the report has its results."""

    shape: Shape
    weighed: Weighed
    report: Report


# -- rows ----------------------------------------------------------------------------------------


def _texts(length: int) -> Iterator[bytes]:
    """Give texts that do not repeat."""
    rng = random.Random(1)
    letters = "".join(rng.choices(string.ascii_letters + string.digits, k=200_000)).encode()
    while True:
        at = rng.randrange(len(letters) - length)
        yield letters[at : at + length]


def _bind(*cells: bytes | None) -> bytes:
    return join_cells(cells, UNSET)


def make_wide(rows: int) -> Partitions:
    """Make rows of a single partition."""
    texts = _texts(70)
    found = (_bind(b"all", _LONG(n), _INT(n % 100), next(texts)) for n in range(rows))
    while some := list(islice(found, 1_000)):
        yield some


def make_tiny(rows: int) -> Partitions:
    """Make rows of two numbers."""
    for number in range(rows):
        yield [_bind(_LONG(number), _INT(number))]


def make_large(rows: int) -> Partitions:
    """Make rows that cannot be compressed."""
    rng = random.Random(1)
    for number in range(rows):
        yield [_bind(_LONG(number), rng.randbytes(LARGE_BYTES))]


def make_nulls(rows: int) -> Partitions:
    """Make rows of which most cells are null."""
    texts = _texts(20)
    for number in range(rows):
        values = (_LONG(number), next(texts), _INT(number % 7), next(texts))
        yield [_bind(*values, *[None] * NULL_COLUMNS)]


def make_hot(rows: int) -> Partitions:
    """Make rows of many partitions that go to a few."""
    texts = _texts(150)
    for number in range(rows):
        yield [_bind(_LONG(number), _INT(number % HOT_PARTITIONS), next(texts))]


def make_skewed(rows: int) -> Partitions:
    """Make partitions of which nearly all lie in one token range."""
    texts, partitions = _texts(150), max(1, rows // SKEWED_PARTITION_ROWS)
    dense = split_ring(TOKEN_RANGES)[SKEWED_INDEX]
    inside = partitions * SKEWED_PERCENT // 100
    keys = (key for key in count() if token_of_key(_LONG(key)) in dense)
    others = range(-1, inside - partitions - 1, -1)
    for key in chain(islice(keys, inside), others):
        yield [
            _bind(_LONG(key), _INT(row), next(texts))
            for row in range(min(rows, SKEWED_PARTITION_ROWS))
        ]


SHAPES = (
    Shape(
        "s1",
        "Enrolments of 19 columns, four rows a partition, to another key; as everywhere else",
        sample.COLUMNS,
        "",
        "",
        None,
    ),
    Shape(
        "wide",
        "All rows in one partition: one range has them all, and no range can be cut",
        (("k", "text"), ("c", "bigint"), ("a", "int"), ("v", "text")),
        "k, c",
        "k, c",
        make_wide,
    ),
    Shape(
        "tiny",
        "A key and a number, a partition each: rows share a request only across partitions",
        (("k", "bigint"), ("v", "int")),
        "k",
        "k",
        make_tiny,
    ),
    Shape(
        "large",
        "Blobs of 100,000 bytes that cannot be compressed, a partition each",
        (("k", "bigint"), ("v", "blob")),
        "k",
        "k",
        make_large,
        share=0.02,
    ),
    Shape(
        "nulls",
        f"{NULL_COLUMNS + 4} columns of which {NULL_COLUMNS} are null, a partition each",
        (
            ("k", "bigint"),
            ("a", "text"),
            ("b", "int"),
            ("c", "text"),
            *((f"n{number:02d}", ("text", "int")[number % 2]) for number in range(NULL_COLUMNS)),
        ),
        "k",
        "k",
        make_nulls,
    ),
    Shape(
        "hot",
        f"A partition each at the origin, {HOT_PARTITIONS} partitions in all at the target",
        (("k", "bigint"), ("bucket", "int"), ("v", "text")),
        "k",
        "bucket, k",
        make_hot,
    ),
    Shape(
        "skewed",
        f"{SKEWED_PERCENT} % of the rows in one of the {TOKEN_RANGES} ranges, "
        f"{SKEWED_PARTITION_ROWS} rows a partition: one worker gets nearly all of them",
        (("k", "bigint"), ("c", "int"), ("v", "text")),
        "k, c",
        "k, c",
        make_skewed,
    ),
)


def fill(connection: Connection, shape: Shape, rows: int) -> None:
    """Make a shape's tables, and fill its origin."""
    if shape.make is None:
        sample.create_tables(connection, shape.keyspace)
        sample.fill_origin(connection, rows, keyspace=shape.keyspace)
        return
    execute = connection.session.execute
    execute(
        f"CREATE KEYSPACE {shape.keyspace} WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    columns = ", ".join(f"{name} {cql_type}" for name, cql_type in shape.columns)
    for name, key in ((shape.origin, shape.origin_key), (shape.target, shape.target_key)):
        execute(f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({key}))")
    table = describe_table(connection, shape.origin)
    statement = prepare_rows(connection, table, [name for name, _ in shape.columns])
    writer = open_writer(connection, table, statement)
    for partition in shape.make(rows):
        writer.write_group(partition, None)
    writer.flush()


def weigh(connection: Connection, name: TableName) -> Weighed:
    """Read a table and say what it holds."""
    table = describe_table(connection, name)
    columns = [column.name for column in table.columns]
    split = compile_splitter(len(columns), 0)
    rows = size = nulls = 0
    for page in read_table(connection, table, columns):
        rows += page.row_count
        size += len(page.data)
        nulls += len(split(page.data, page.row_count).nulls)
    return Weighed(rows, size, nulls)


# -- measuring -----------------------------------------------------------------------------------


def measure_shape(
    shape: Shape, options: argparse.Namespace, place: Place, connection: Connection, server: int
) -> Outcome:
    """Measure all programs with one shape; its programs and its tables end with it."""
    rows = max(1, round(options.rows * shape.share))
    say(f"{shape.name}: filling {rows:,} rows")
    fill(connection, shape, rows)
    weighed = weigh(connection, shape.origin)
    say(f"{shape.name}: {weighed.rows:,} rows of {weighed.row_bytes:,.0f} bytes")
    folder = place.folder / shape.name
    folder.mkdir()
    results: Results = {}
    with ExitStack() as stack:
        bench = Bench(
            place=replace(place, folder=folder, origin=shape.origin, target=shape.target),
            rows=weighed.rows,
            items=0,
            connection=connection,
            cassandra=psutil.Process(server),
            dynamodb=None,
            dynamodb_connection=None,
            served={},
        )
        start_served(bench, list(PEERS), stack)
        for run in range(options.runs + 1):
            for name, done in measure_run(bench, list(PEERS), run).items():
                if run:
                    results.setdefault(name, []).append(done)
    connection.session.execute(f"DROP KEYSPACE {shape.keyspace}", timeout=120)
    report = Report(
        command=command_line("shapes"),
        rows=weighed.rows,
        items=0,
        runs=options.runs,
        mixed=False,
        machine=machine(),
        versions=versions(list(PEERS), place, connection),
        starts={},
        results=results,
        differing=bench.checked,
        failed=bench.failed,
    )
    return Outcome(shape, weighed, report)


# -- the page ------------------------------------------------------------------------------------


def make_page(outcomes: Sequence[Outcome], peers: Sequence[Peer] = PEERS) -> str:
    """Write the page in Markdown."""
    report = outcomes[0].report
    sections = [
        "# Benchmarks: shapes of tables",
        "This project beside a plain copy with the driver, for tables of several shapes, measured "
        f"side by side on one machine. This page is written by `{report.command}`.",
        f"One node, replication factor 1; {', '.join(report.machine.values())}; server and clients "
        f"share it. Each figure is the median (minimum to maximum) of {report.runs} "
        f"run{'s' if report.runs > 1 else ''} after a warm-up.",
        _overview(outcomes),
        tell_misses(outcomes),
    ]
    for outcome in outcomes:
        sections += [
            f"## {outcome.shape.name}",
            _told(outcome),
            _table(outcome, peers),
            tell_faults(outcome.report, [(peer, work) for peer in peers for work in peer.works]),
        ]
    sections += [
        "## Settings and versions",
        show_settings(peers, report),
        "## How it is measured",
        _METHOD,
        "## How to repeat it",
        "```\npython -m benchmarks.shapes                 # everything\n"
        "python -m benchmarks.shapes --rows 1000000 --only wide,skewed\n```\n\n"
        "Nothing else should run on the machine meanwhile.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


_METHOD = (
    "As in the [benchmark of all peers](benchmarks.md): in every run each program has its turn, "
    "another one first each time; before each copy the target is emptied and the server left alone "
    "until it is idle; after it the rows are counted, and in the warm-up this project compares "
    "them with the origin's value by value. A comparison reads what the copy before it has "
    "written.\n"
    "\n"
    "CPU is the kernel's account of a client with all processes that it started, and of the "
    "server's process; what the server flushes and compacts later is nobody's. Memory is the "
    "kernel's peak of the largest process since its start; programs are started anew for each "
    "shape. A row's bytes are those of its cells and their lengths, as the server sends them; a "
    "null has a length, too. Ratios are taken run by run, and their median is shown.\n"
    "\n"
    "The plain copy writes a null as it reads it, and so as a tombstone. A server warns from "
    "1,000 tombstones in one read on, and refuses it past 100,000."
)


def _times(outcome: Outcome, name: str) -> float:
    """Give how many times the plain copy's speed a work has; nan where one has none."""
    results = outcome.report.results
    return ratio(results.get(name, []), results.get(PLAIN, []), "rows_per_second")


def _show_times(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:.2f} times"


def _largest_mb(runs: Sequence[Measured]) -> float:
    return spread(runs, "largest_mb")[2]


def _overview(outcomes: Sequence[Outcome]) -> str:
    names = [work.name for peer in own.PEERS for work in peer.works]
    rows = [["rows a second, of the plain copy's", "rows", "bytes a row", *names]]
    for outcome in outcomes:
        shape, weighed = outcome.shape, outcome.weighed
        ratios = [_show_times(_times(outcome, name)) for name in names]
        rows.append([shape.name, f"{weighed.rows:,}", f"{weighed.row_bytes:,.0f}", *ratios])
    return lay_table(rows)


def tell_misses(outcomes: Sequence[Outcome]) -> str:
    """Say where this project is slower than the plain copy, or takes more memory than it should."""
    said = []
    for outcome in outcomes:
        for name in COPIES:
            if (times := _times(outcome, name)) < 1:
                said.append(
                    f"- {outcome.shape.name}: {name}, is slower than the plain copy "
                    f"({_show_times(times)})."
                )
        results = outcome.report.results
        largest = [
            (_largest_mb(results[work.name]), work.name)
            for peer in own.PEERS
            for work in peer.works
            if work.name in results
        ]
        if largest and max(largest)[0] >= MOST_MB:
            said.append(
                f"- {outcome.shape.name}: a process of this project takes {max(largest)[0]:,.0f} "
                f"MB ({max(largest)[1]})."
            )
    return "\n".join(said) or (
        "In no shape is a copy of this project slower than the plain copy, and none of its "
        f"processes takes {MOST_MB} MB."
    )


def _told(outcome: Outcome) -> str:
    weighed = outcome.weighed
    told = f"{outcome.shape.told}. {weighed.rows:,} rows of {weighed.row_bytes:,.0f} bytes"
    if weighed.nulls:
        told += (
            f", {weighed.nulls / weighed.rows:.1f} cells of each null: the plain copy writes "
            f"{weighed.nulls:,} tombstones"
        )
    return f"{told}."


def _table(outcome: Outcome, peers: Sequence[Peer]) -> str:
    rows = [
        [
            "",
            "rows/s",
            "MB/s",
            "client CPU, µs a row",
            "server CPU, µs a row",
            "largest process, MB",
            "of the plain copy",
        ]
    ]
    for peer in peers:
        rows += [_line(outcome, work) for work in peer.works]
    return lay_table(rows)


def _line(outcome: Outcome, work: Work) -> list[str]:
    runs = outcome.report.results.get(work.name, [])
    speed, largest = spread(runs, "rows_per_second")[0], _largest_mb(runs)
    mb = speed * outcome.weighed.row_bytes / 1e6
    return [
        work.name if work.name == PLAIN else f"**{work.name}**",
        show_figure(runs, "rows_per_second"),
        NONE if math.isnan(mb) else round_figure(mb),
        show_figure(runs, "client_us"),
        show_figure(runs, "server_us"),
        NONE if math.isnan(largest) else f"{largest:,.0f}",
        NONE if work.name == PLAIN else _show_times(_times(outcome, work.name)),
    ]


def chosen_shapes(only: str) -> list[Shape]:
    """Give the shapes that were named, or all of them."""
    shapes = {shape.name: shape for shape in SHAPES}
    names = [name for name in only.split(",") if name] or list(shapes)
    if unknown := [name for name in names if name not in shapes]:
        raise SystemExit(f"There is no {', '.join(unknown)}; there are {', '.join(shapes)}.")
    return [shapes[name] for name in names]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.shapes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--rows", type=int, default=100_000, help="of each shape; a fiftieth of large ones"
    )
    parser.add_argument("--runs", type=int, default=3, help="counted runs after one warm-up")
    parser.add_argument("--only", default="", help="names of shapes with commas between them")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    options = parser.parse_args()
    if options.rows < 1_000 or options.runs < 1:
        parser.error("1,000 rows and a run are needed")
    options.shapes = chosen_shapes(options.only)
    return options


def main() -> None:
    """Run the benchmark and write its page."""
    options = parse_arguments()
    home_folder().mkdir(parents=True, exist_ok=True)
    options.docs.mkdir(parents=True, exist_ok=True)
    page = options.docs / "benchmarks-shapes.md"
    cache = jars_cache(home_folder())
    outcomes = []
    with (
        tempfile.TemporaryDirectory(dir=home_folder(), prefix="shapes-") as home,
        running(Cassandra(), home=Path(home), jars_folder=cache, report=say) as server,
        Connection(CassandraSettings(port=server.port)) as connection,
    ):
        place = Place(
            host=server.host,
            port=server.port,
            dynamodb_url="",
            folder=Path(home),
            packages=Path(home),
            jars=cache,
        )
        for shape in options.shapes:
            outcomes.append(measure_shape(shape, options, place, connection, server.pid))
            page.write_text(make_page(outcomes), encoding="utf-8")
            say(f"wrote {page}")


if __name__ == "__main__":
    main()
