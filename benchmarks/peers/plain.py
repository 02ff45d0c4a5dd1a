"""A copy as a good engineer writes it with the driver alone: prepared, concurrent, in processes."""

import multiprocessing
import sys

from cassandra.concurrent import execute_concurrent_with_args

from benchmarks.peers import KEYSPACE, PROCESSES, TOKEN_RANGES, Peer, Work
from benchmarks.peers.serving import serve
from migration_platform import sample
from migration_platform.stores.cassandra import CassandraSettings, Connection
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


def copy_ranges(pipe, settings: CassandraSettings, ranges: list[TokenRange]) -> None:
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
        written = 0
        for token_range in ranges:
            rows = connection.session.execute(select, (token_range.start, token_range.end))
            done = execute_concurrent_with_args(
                connection.session, insert, rows, concurrency=CONCURRENCY
            )
            written += len(done)
        pipe.send(written)
    connection.close()


def main(port: int) -> None:
    """Serve the copy with processes that are connected beforehand."""
    context = multiprocessing.get_context("spawn")
    settings = CassandraSettings(port=port)
    ranges = split_ring(TOKEN_RANGES)
    pipes, processes = [], []
    for worker in range(PROCESSES):
        near, far = context.Pipe()
        mine = list(ranges[worker::PROCESSES])
        processes.append(context.Process(target=copy_ranges, args=(far, settings, mine)))
        pipes.append(near)
        processes[-1].start()
    for pipe in pipes:
        pipe.recv()

    def copy() -> int:
        for pipe in pipes:
            pipe.send("copy")
        return sum(pipe.recv() for pipe in pipes)

    serve(lambda request: copy)
    for pipe in pipes:
        pipe.send("stop")
    for process in processes:
        process.join()


if __name__ == "__main__":
    main(int(sys.argv[1]))
