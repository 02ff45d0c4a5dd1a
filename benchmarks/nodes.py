"""Measures on several nodes what a request may write: a row, a partition, partitions of one place.

    python -m benchmarks.nodes --rows 50000 --runs 5

Nodes on 127.0.0.1, .2 and so on are started for it, and end with it. The same rows are written by
this package's writer at LOCAL_QUORUM in four ways in turn, the next one first each time; the first
run is a warm-up, in which the rows are counted. Writes docs/benchmarks-nodes.md after each shape.
"""

# The driver carries no types: what is inferred from its attributes' first values is wrong.
# pyright: reportOptionalMemberAccess=false

import argparse
import math
import multiprocessing
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from struct import Struct

import psutil

from benchmarks.bench import machine
from benchmarks.measuring import Family, Measured, Results, ratios, say, spend, wait_until_idle
from benchmarks.report import FIGURES, NONE, command_line, lay_table, show_figure
from benchmarks.tables import count_rows, open_writer, prepare_rows
from migration_platform.cql.names import TableName
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.layer_writes import GROUP_ROWS
from migration_platform.stores.cassandra.tables import describe_table, truncate
from migration_platform.stores.cassandra.window import Window
from migration_platform.stores.cassandra.writes import BATCH_PARTITIONS, Writer, WriteStatement
from migration_platform_tests.servers import run_cluster

KEYSPACE = "nodes"
ROW, PARTITION = "one row", "one partition"
TEN, ALL = f"{BATCH_PARTITIONS} partitions", "any number of partitions"
PAIRS = ((PARTITION, ROW), (TEN, PARTITION), (ALL, PARTITION))

_FASTER, _SLOWER, _EITHER = (
    "faster in every run",
    "slower in every run",
    "faster in one run, slower in another",
)
_ROW = Struct(">iqiii")

Partition = tuple[bytes, list[bytes]]
"""A serialized key, and rows as they are bound."""


@dataclass(frozen=True)
class Shape:
    """What is written: rows of so many bytes, so many in each partition."""

    partition_rows: int
    row_bytes: int

    def __str__(self) -> str:
        rows = f"{self.partition_rows:,} row{'s' if self.partition_rows > 1 else ''}"
        return f"{rows} of {self.row_bytes:,} bytes a partition"


@dataclass(frozen=True)
class Settings:
    """What every shape is measured with; `command` is how."""

    command: str
    rows: int
    runs: int
    nodes: int
    replicas: int
    heap_mb: int
    machine: Mapping[str, str]


class Requests(RateBudget):
    """A budget without limits that counts the requests that ask it."""

    def __init__(self):
        super().__init__(multiprocessing.get_context("spawn"))
        self.count = 0

    def take(self, rows: int, size: float = 0) -> None:
        """Let pass."""
        self.count += 1


def make_partitions(rows: int, shape: Shape) -> list[Partition]:
    """Make rows of a number, a number and bytes that do not repeat."""
    rng = random.Random(1)
    partitions = []
    for number in rng.sample(range(rows), rows // shape.partition_rows):
        items = []
        for row in range(shape.partition_rows):
            value = rng.randbytes(shape.row_bytes)
            items.append(_ROW.pack(8, number, 4, row, len(value)) + value)
        partitions.append((number.to_bytes(8, "big"), items))
    return partitions


def write_rows(writer: Writer, gathered: Sequence[Partition], connection: Connection) -> None:
    """Write one row a request."""
    for key, items in gathered:
        for item in items:
            writer.write_group([item], key)


def write_partitions(writer: Writer, gathered: Sequence[Partition], connection: Connection) -> None:
    """Write rows of one partition together, as with `batch_across_partitions: false`."""
    for key, items in gathered:
        writer.write_group(items, key)


def write_replica_sets(
    writer: Writer,
    gathered: Sequence[Partition],
    connection: Connection,
    most: int = sys.maxsize,
) -> None:
    """Write rows of so many partitions together whose replicas are the same."""
    place_of = connection.place_keys(KEYSPACE)
    writer.write_groups(((place_of(key), key, items) for key, items in gathered), most)


Way = Callable[[Writer, Sequence[Partition], Connection], None]
WAYS: dict[str, Way] = {
    ROW: write_rows,
    PARTITION: write_partitions,
    TEN: partial(write_replica_sets, most=BATCH_PARTITIONS),
    ALL: write_replica_sets,
}


def write_all(
    connection: Connection,
    table: Table,
    statement: WriteStatement,
    partitions: Sequence[Partition],
    way: Way,
) -> int:
    """Write all partitions in one way; gives the number of requests."""
    rows, requests = len(partitions[0][1]), Requests()
    writer = open_writer(connection, table, statement, budget=requests)
    step = max(1, GROUP_ROWS // rows)
    for start in range(0, len(partitions), step):
        way(writer, partitions[start : start + step], connection)
    writer.flush()
    if writer.rows_written != rows * len(partitions):
        raise SystemExit(f"{writer.rows_written} rows were written")
    return requests.count


@dataclass(frozen=True)
class ShapeResult:
    """What came out for one shape: the runs of each way, and the rows of its requests."""

    runs: Results
    rows_per_request: Mapping[str, float]


def measure_shape(
    connection: Connection, nodes: Sequence[psutil.Process], shape: Shape, rows: int, runs: int
) -> ShapeResult:
    """Measure all ways with rows of one shape."""
    table = describe_table(connection, TableName(KEYSPACE, "rows"))
    statement = prepare_rows(connection, table, ("k", "c", "v"))
    partitions = make_partitions(rows, shape)
    rows = sum(len(items) for _, items in partitions)
    client = Family(psutil.Process(), without=nodes)
    results: Results = {name: [] for name in WAYS}
    requests: dict[str, int] = {}
    # What one way finds out of how many requests may be under way says nothing of another's.
    windows = {name: Window() for name in WAYS}
    names = list(WAYS)
    for run in range(runs + 1):
        # Whoever comes first meets the quietest server, so that is another one each time.
        at = run % len(names)
        for name in (*names[at:], *names[:at]):
            truncate(connection, table.name)
            wait_until_idle(nodes)
            connection.window = windows[name]

            def work(name: str = name) -> None:
                requests[name] = write_all(connection, table, statement, partitions, WAYS[name])

            done = Measured(spend(rows, client, nodes, work))
            if run:
                results[name].append(done)
            elif (found := count_rows(connection, table.name)) != rows:
                raise SystemExit(f"{found} of {rows} rows arrived")
            say(
                f"{f'run {run}' if run else 'warm-up'}: {shape}: {name} a request: "
                f"{done.rows_per_second:,.0f} rows/s, {done.client_us:,.0f} and "
                f"{done.server_us:,.0f} µs a row"
            )
    return ShapeResult(results, {name: rows / requests[name] for name in names})


def make_page(settings: Settings, results: Mapping[Shape, ShapeResult]) -> str:
    """Write the page in Markdown."""
    sections = [
        "# What a request may write",
        "A request of this project holds rows of several partitions of the target which have the "
        f"same replicas, up to 5 KiB and at most {BATCH_PARTITIONS} partitions, past which a "
        "server warns by default. Here that is measured beside requests of a single row, of one "
        "partition (`batch_across_partitions: false`), and of as many partitions as fit. Written "
        f"by `{settings.command}`.",
        _conditions(settings),
        "## What it means",
        _meaning(results),
    ]
    for shape, result in results.items():
        sections += [f"## {shape}", _figures(result), _ratios(result)]
    sections += [
        "## How it is measured",
        "In every run each way has its turn, the next one first each time. The table is emptied "
        "before each turn and the nodes left alone until they are idle; in the warm-up the rows "
        "are counted. Rows are made beforehand, with partitions in no order, as in a copy to "
        "another key. Every request goes to a replica of its first row; how many are under way, "
        "each way finds out for itself. CPU is the kernel's account of the one client process, and "
        "of all nodes together; what they flush and compact later is nobody's.",
        "## How to repeat it",
        f"```\n{settings.command}\n```\n\nNothing else should run on the machine meanwhile.",
    ]
    return "\n\n".join(sections) + "\n"


def _conditions(settings: Settings) -> str:
    nodes = f"{settings.nodes} node{'s' if settings.nodes > 1 else ''} of {settings.heap_mb} MB"
    return (
        f"{settings.rows:,} rows a turn; {nodes}, replication factor {settings.replicas}, "
        f"LOCAL_QUORUM. {', '.join(settings.machine.values())}; nodes and client share it. Each "
        f"figure is the median (minimum to maximum) of {settings.runs} "
        f"run{'s' if settings.runs > 1 else ''} after a warm-up."
    )


def _figures(result: ShapeResult) -> str:
    head = ["a request holds rows of", "rows/s", "client CPU, µs a row", "nodes' CPU, µs a row"]
    rows = [[*head, "rows a request"]]
    for name, runs in result.runs.items():
        shown = [show_figure(runs, figure) for figure in FIGURES]
        rows.append([name, *shown, f"{result.rows_per_request[name]:.1f}"])
    return lay_table(rows)


def _ratios(result: ShapeResult) -> str:
    rows = [["ratios, run by run", "rows/s", "client CPU", "nodes' CPU"]]
    for ours, theirs in PAIRS:
        shown = (_show_ratio(result, ours, theirs, figure) for figure in FIGURES)
        rows.append([f"{ours} to {theirs}", *shown])
    return lay_table(rows)


def _show_ratio(result: ShapeResult, ours: str, theirs: str, figure: str) -> str:
    found = ratios(result.runs[ours], result.runs[theirs], figure)
    if not found:
        return NONE
    spread = f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""
    return f"{statistics.median(found):.2f}{spread}"


def _meaning(results: Mapping[Shape, ShapeResult]) -> str:
    """Say where requests of several partitions pay; true whatever came out."""
    said = []
    for name in (TEN, ALL):
        kinds: dict[str, list[str]] = {_FASTER: [], _SLOWER: [], _EITHER: []}
        for shape, result in results.items():
            found = ratios(result.runs[name], result.runs[PARTITION], "rows_per_second")
            if not found:
                continue
            kind = _FASTER if min(found) > 1 else _SLOWER if max(found) < 1 else _EITHER
            speed, client, nodes = (_median(result, name, figure) for figure in FIGURES)
            kinds[kind].append(
                f"  - {shape}: {speed:.2f} times the rows a second, {client:.2f} times the "
                f"client's CPU, {nodes:.2f} times the nodes'"
            )
        for kind, shapes in kinds.items():
            if shapes:
                said += [
                    f"- Requests of {name} were {kind} than those of {PARTITION} with",
                    *shapes,
                ]
    said.append(
        "- What these figures do not hold: a network, on which fewer requests save more; a node "
        "that is slow or away, which delays or fails every row of a request; a ring of many "
        "nodes, in which fewer rows at hand have the same replicas, so that a request holds less."
    )
    return "\n".join(said)


def _median(result: ShapeResult, name: str, figure: str) -> float:
    found = ratios(result.runs[name], result.runs[PARTITION], figure)
    return statistics.median(found) if found else math.nan


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.nodes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5, help="counted runs after one warm-up")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--replicas", type=int, help="as many as there are nodes, unless given")
    parser.add_argument("--heap-mb", type=int, default=1024, help="of each node")
    parser.add_argument("--partition-rows", type=int, nargs="+", default=[1, 4, 50])
    parser.add_argument("--row-bytes", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    options = parser.parse_args()
    least = min(options.runs, options.nodes, *options.partition_rows, *options.row_bytes)
    if least < 1 or options.rows < max(options.partition_rows):
        parser.error("a run, a node, a byte a row and the rows of a partition are needed")
    return options


def main() -> None:
    """Run the benchmark and write its page."""
    options = parse_arguments()
    replicas = options.replicas or options.nodes
    settings = Settings(
        command=command_line("nodes"),
        rows=options.rows,
        runs=options.runs,
        nodes=options.nodes,
        replicas=replicas,
        heap_mb=options.heap_mb,
        machine=machine(),
    )
    say(f"starting {options.nodes} nodes")
    with (
        tempfile.TemporaryDirectory() as home,
        run_cluster(Path(home), options.nodes, heap_mb=options.heap_mb) as nodes,
        Connection(
            CassandraSettings(tuple(node.server.address for node in nodes), nodes[0].port)
        ) as connection,
    ):
        connection.session.execute(
            f"CREATE KEYSPACE {KEYSPACE} WITH replication = "
            f"{{'class': 'SimpleStrategy', 'replication_factor': {replicas}}}"
        )
        connection.session.execute(
            f"CREATE TABLE {KEYSPACE}.rows (k bigint, c int, v blob, PRIMARY KEY (k, c))"
        )
        processes = [psutil.Process(node.pid) for node in nodes]
        results: dict[Shape, ShapeResult] = {}
        page = options.docs / "benchmarks-nodes.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        for partition_rows in options.partition_rows:
            for row_bytes in options.row_bytes:
                shape = Shape(partition_rows, row_bytes)
                results[shape] = measure_shape(
                    connection, processes, shape, options.rows, options.runs
                )
                # After each shape: one that is ended loses no more than itself.
                page.write_text(make_page(settings, results), encoding="utf-8")
                say(f"wrote {page}")


if __name__ == "__main__":
    main()
