"""Measures on three nodes what a request may write: a row, a partition, all of a replica set.

    python benchmarks/nodes.py --rows 50000 --runs 5

The nodes on 127.0.0.1 to .3 are started for it, and end with it. The same rows are written by this
package's writer at LOCAL_QUORUM in four ways in turn: one row a request; as many rows of one
partition a request as fit below the server's warning at 5 KiB, which is what the package does; as
many rows as fit of all partitions whose replicas are the same, in the same order; and the same
with at most ten partitions a request, past which a server warns by default. Partitions come in no
order, as they do in a copy to another key. Every request goes to a replica. The table is emptied
before each turn and counted after the warm-up's. Rows are made beforehand; CPU is that of this
process and of all nodes. Three nodes have three such sets; a cluster of many nodes has hundreds,
so that a request there holds less. The machine drifts, so compare only within one run.
"""

# The driver carries no types: what is inferred from its attributes' first values is wrong.
# pyright: reportOptionalMemberAccess=false

import sys
from pathlib import Path

# Run as a script, the folder's copy.py would hide the standard library's module of that name.
sys.path.append(sys.path.pop(0))
sys.path.append(str(Path(__file__).parent.parent))

import argparse
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct

import psutil
from measuring import Measured, Results, cpu_seconds, print_table, run_in_turn

from migration_platform.copy import GROUP_ROWS
from migration_platform.migration import TableName
from migration_platform.rate import RateBudget
from migration_platform.stores.cassandra import (
    CassandraSettings,
    Connection,
    Table,
    describe_table,
    prepare_range_read,
    read_pages,
    truncate,
)
from migration_platform.stores.cassandra_writes import Writer, WriteStatement, prepare_insert
from migration_platform.token_ranges import split_ring
from migration_platform_tests.servers import run_cluster

RETRY_SECONDS = 60.0
KEYSPACE = "nodes"
MODES = ("rows", "partitions", "replica sets", "ten partitions")
PAIRS = (
    ("partitions", "rows"),
    ("replica sets", "partitions"),
    ("ten partitions", "partitions"),
)
MOST_PARTITIONS = 10
"""A server's `unlogged_batch_across_partitions_warn_threshold`."""

_ROW = Struct(">iqiii")

Partition = tuple[bytes, list[bytes]]
"""A serialized key, and rows as they are bound."""


def make_partitions(rows: int, partition_rows: int, row_bytes: int) -> list[Partition]:
    """Make rows of a number, a number and bytes that do not repeat."""
    rng = random.Random(1)
    partitions = []
    for number in rng.sample(range(rows), rows // partition_rows):
        items = []
        for row in range(partition_rows):
            value = rng.randbytes(row_bytes)
            items.append(_ROW.pack(8, number, 4, row, len(value)) + value)
        partitions.append((number.to_bytes(8, "big"), items))
    return partitions


def write_rows(writer: Writer, gathered: Sequence[Partition], connection: Connection) -> None:
    """Write one row a request."""
    for key, items in gathered:
        for item in items:
            writer.write_group([item], key)


def write_partitions(writer: Writer, gathered: Sequence[Partition], connection: Connection) -> None:
    """Write rows of one partition together, as a copy does."""
    for key, items in gathered:
        writer.write_group(items, key)


def write_replica_sets(
    writer: Writer,
    gathered: Sequence[Partition],
    connection: Connection,
    most: int = sys.maxsize,
) -> None:
    """Write rows of so many partitions together whose replicas are the same."""
    metadata = connection.cluster.metadata
    groups: dict[tuple, list[Partition]] = {}
    for partition in gathered:
        replicas = tuple(metadata.get_replicas(KEYSPACE, partition[0]))
        groups.setdefault(replicas, []).append(partition)
    for group in groups.values():
        for start in range(0, len(group), most):
            chosen = group[start : start + most]
            writer.write_group([item for _, items in chosen for item in items], chosen[0][0])


WAYS = dict(
    zip(
        MODES,
        (
            write_rows,
            write_partitions,
            write_replica_sets,
            partial(write_replica_sets, most=MOST_PARTITIONS),
        ),
        strict=True,
    )
)


def write_all(
    connection: Connection,
    table: Table,
    statement: WriteStatement,
    partitions: Sequence[Partition],
    way: Callable[[Writer, Sequence[Partition], Connection], None],
) -> None:
    """Write all partitions in one way."""
    rows = len(partitions[0][1])
    writer = Writer(
        connection,
        [statement],
        table,
        consistency="LOCAL_QUORUM",
        budget=RateBudget(multiprocessing.get_context("spawn")),
        retry_seconds=RETRY_SECONDS,
        on_retry=lambda error: print(f"tried again: {error}", flush=True),
    )
    step = max(1, GROUP_ROWS // rows)
    for start in range(0, len(partitions), step):
        way(writer, partitions[start : start + step], connection)
    writer.flush()
    if writer.rows_written != rows * len(partitions):
        raise SystemExit(f"{writer.rows_written} rows were written")


def count_rows(connection: Connection, table: Table) -> int:
    """Count what arrived."""
    read = prepare_range_read(connection, table, ("k",), retry_seconds=RETRY_SECONDS)
    return sum(
        page.row_count
        for token_range in split_ring(16)
        for page in read_pages(
            connection,
            read,
            token_range,
            consistency="LOCAL_QUORUM",
            fetch_size=None,
            budget=RateBudget(multiprocessing.get_context("spawn")),
            retry_seconds=RETRY_SECONDS,
            on_retry=print,
        )
    )


def run_shape(
    connection: Connection,
    nodes: Sequence[psutil.Process],
    options: argparse.Namespace,
    partition_rows: int,
    row_bytes: int,
) -> Results:
    """Measure all ways with rows of one shape."""
    table = describe_table(connection, TableName(KEYSPACE, "rows"))
    statement = prepare_insert(
        connection, table, ("k", "c", "v"), using="", retry_seconds=RETRY_SECONDS
    )
    partitions = make_partitions(options.rows, partition_rows, row_bytes)
    rows = sum(len(items) for _, items in partitions)
    client = [psutil.Process()]

    def one_run(run: int) -> dict[str, Measured]:
        done = {}
        # Whoever comes first meets the quietest server, so that is another one each time.
        for mode in MODES[run % len(MODES) :] + MODES[: run % len(MODES)]:
            truncate(connection, table.name)
            work = partial(write_all, connection, table, statement, partitions, WAYS[mode])
            done[mode] = measure(rows, client, nodes, work)
            if not run and (found := count_rows(connection, table)) != rows:
                raise SystemExit(f"{found} of {rows} rows arrived")
        return done

    print(f"\n{rows:,} rows of {row_bytes} bytes, {partition_rows} in a partition", flush=True)
    return run_in_turn(options.runs, one_run)


def measure(
    rows: int,
    clients: Sequence[psutil.Process],
    servers: Sequence[psutil.Process],
    work: Callable[[], None],
) -> Measured:
    """Do the work once, and account for it, with several servers."""
    client, served, began = cpu_seconds(clients), cpu_seconds(servers), time.monotonic()
    work()
    seconds = time.monotonic() - began
    return Measured(rows, seconds, cpu_seconds(clients) - client, cpu_seconds(servers) - served)


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5, help="counted runs after one warm-up")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--replicas", type=int, help="as many as there are nodes, unless given")
    parser.add_argument("--heap-mb", type=int, default=1024, help="of each node")
    parser.add_argument("--partition-rows", type=int, nargs="+", default=[1, 4, 50])
    parser.add_argument("--row-bytes", type=int, nargs="+", default=[100, 500])
    options = parser.parse_args()

    with (
        tempfile.TemporaryDirectory() as home,
        run_cluster(Path(home), options.nodes, heap_mb=options.heap_mb) as nodes,
        Connection(
            CassandraSettings(tuple(node.server.address for node in nodes), nodes[0].port)
        ) as connection,
    ):
        replicas = options.replicas or options.nodes
        connection.session.execute(
            f"CREATE KEYSPACE {KEYSPACE} WITH replication = "
            f"{{'class': 'SimpleStrategy', 'replication_factor': {replicas}}}"
        )
        connection.session.execute(
            f"CREATE TABLE {KEYSPACE}.rows (k bigint, c int, v blob, PRIMARY KEY (k, c))"
        )
        processes = [psutil.Process(node.pid) for node in nodes]
        for partition_rows in options.partition_rows:
            for row_bytes in options.row_bytes:
                results = run_shape(connection, processes, options, partition_rows, row_bytes)
                ordered = {mode: results[mode] for mode in MODES}
                print_table(ordered, PAIRS, "row")


if __name__ == "__main__":
    main()
