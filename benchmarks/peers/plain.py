"""A copy as a good engineer writes it with the driver alone: prepared, concurrent, in processes."""

import multiprocessing
import sys

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.query import PreparedStatement, tuple_factory

from benchmarks.peers import PROCESSES, TOKEN_RANGES, Peer, Work
from benchmarks.peers.serving import serve_by
from migration_platform.cql.names import TableName, quote
from migration_platform.local.ports import LOCALHOST
from migration_platform.token_ranges import TokenRange, split_ring

CONCURRENCY = 100
PEER = Peer(
    name="plain",
    works=(
        Work(
            name="plain copy with cassandra-driver",
            group="copy",
            keeps="nothing",
            lacks="TTL, writetime, comparison; nulls become tombstones",
        ),
    ),
    settings=f"{PROCESSES} processes, {TOKEN_RANGES} ranges, paged SELECT, prepared statements, "
    f"`execute_concurrent_with_args` with {CONCURRENCY} in flight",
    packages=("cassandra-driver",),
    module="benchmarks.peers.plain",
)


def copy_ranges(
    pipe,
    port: int,
    ranges: list[TokenRange],
    origin_table: TableName,
    target_table: TableName,
) -> None:
    """Copy ranges as the driver's documentation shows it; one command on the pipe is one copy."""
    profile = ExecutionProfile(
        consistency_level=ConsistencyLevel.LOCAL_QUORUM, row_factory=tuple_factory
    )
    cluster = Cluster([LOCALHOST], port=port, execution_profiles={EXEC_PROFILE_DEFAULT: profile})
    session = cluster.connect()
    keyspace = cluster.metadata.keyspaces[origin_table.keyspace]  # type: ignore
    table = keyspace.tables[origin_table.table]
    names = [quote(name) for name in table.columns]
    key = ", ".join(quote(column.name) for column in table.partition_key)
    select = session.prepare(
        f"SELECT {', '.join(names)} FROM {origin_table} "
        f"WHERE token({key}) > ? AND token({key}) <= ?"
    )
    insert = session.prepare(
        f"INSERT INTO {target_table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    )
    pipe.send("ready")
    while pipe.recv() == "copy":
        try:
            pipe.send(sum(copy_range(session, select, insert, each) for each in ranges))
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
    cluster.shutdown()


def copy_range(
    session: Session,
    select: PreparedStatement,
    insert: PreparedStatement,
    token_range: TokenRange,
) -> int:
    """Copy a range page by page.

    The rows of all pages may not be handed on as one: the driver would take the next page within
    the thread that is to receive it, and wait forever.
    """
    rows = session.execute(select, (token_range.start, token_range.end))
    written = 0
    while True:
        written += len(
            execute_concurrent_with_args(
                session, insert, rows.current_rows, concurrency=CONCURRENCY
            )
        )
        if not rows.has_more_pages:
            return written
        rows.fetch_next_page()


def main(port: int, origin: str, target: str) -> None:
    """Serve the copy with processes that are connected beforehand."""
    context = multiprocessing.get_context("spawn")
    tables = TableName.parse(origin), TableName.parse(target)
    ranges = split_ring(TOKEN_RANGES)
    pipes = []
    processes = []
    for worker in range(PROCESSES):
        near, far = context.Pipe()
        mine = list(ranges[worker::PROCESSES])
        arguments = (far, port, mine, *tables)
        # So that they end with this one.
        processes.append(context.Process(target=copy_ranges, args=arguments, daemon=True))
        pipes.append(near)
        processes[-1].start()
        # So that its end is heard of here.
        far.close()
    serve_by(pipes)
    for pipe in pipes:
        pipe.send("stop")
    for process in processes:
        process.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
