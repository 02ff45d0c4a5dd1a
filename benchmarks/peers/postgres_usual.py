"""A copy to PostgreSQL as one writes it with both drivers: read, convert, executemany, commit."""

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.query import tuple_factory
from psycopg.types.json import Json

from benchmarks.peers import PROCESSES
from benchmarks.peers.postgres import DOCUMENTS, FEW, NAMES, batches, connect, upsert
from benchmarks.peers.serving import serve_by
from migration_platform.demo import sample
from migration_platform.local.ports import LOCALHOST
from migration_platform.token_ranges import TokenRange, split_ring

FETCH_SIZE = 5_000
"""Which is the driver's own."""


def to_json(value: Any) -> Json | None:
    """Give a map, or a list of maps, as psycopg sends documents."""
    if value is None:
        return None
    return Json([dict(each) for each in value] if isinstance(value, list) else dict(value))


def to_zone(value: datetime | None) -> datetime | None:
    """Say of a time that it is UTC, or the server takes it for one of its own zone."""
    return value.replace(tzinfo=UTC) if value is not None else None


def compile_row() -> Callable[[Sequence[Any]], list[Any]]:
    """Build what gives a row's values as psycopg needs them."""
    steps: dict[int, Callable[[Any], Any]] = {
        at: to_json if name in DOCUMENTS else to_zone
        for at, (name, kind) in enumerate(sample.COLUMNS)
        if name in DOCUMENTS or kind == "timestamp"
    }

    def convert(row: Sequence[Any]) -> list[Any]:
        values = [*row]
        for at, step in steps.items():
            values[at] = step(values[at])
        return values

    return convert


def copy_ranges(pipe: Any, ports: tuple[int, int], keyspace: str, mine: TokenRange) -> None:
    """Copy a part of the ring; one command on the pipe is one copy."""
    profile = ExecutionProfile(row_factory=tuple_factory)
    cluster = Cluster(
        [LOCALHOST], port=ports[0], execution_profiles={EXEC_PROFILE_DEFAULT: profile}
    )
    session = cluster.connect()
    session.default_fetch_size = FETCH_SIZE
    select = session.prepare(
        f"SELECT {', '.join(NAMES)} FROM {keyspace}.{sample.ORIGIN_TABLE} "
        "WHERE token(userid) > ? AND token(userid) <= ?"
    )
    statement = upsert(f"VALUES ({', '.join(['%s'] * len(NAMES))})")
    convert = compile_row()

    def copy() -> int:
        written = 0
        # Not the driver's rows themselves: whoever begins with them anew has the page once more.
        rows = map(convert, session.execute(select, (mine.start, mine.end)))
        with connection.cursor() as cursor:
            for some in batches(rows, FEW):
                cursor.executemany(statement, some)
                connection.commit()
                written += len(some)
        return written

    with connect(ports[1]) as connection:
        connection.autocommit = False
        pipe.send("ready")
        while pipe.recv() == "copy":
            try:
                pipe.send(copy())
            except (psycopg.Error, OSError) as error:
                pipe.send(f"{type(error).__name__}: {error}")
    cluster.shutdown()


def main(keyspace: str, cassandra_port: str, postgres_port: str) -> None:
    """Serve the copy with processes that are connected beforehand."""
    context = multiprocessing.get_context("spawn")
    ports = int(cassandra_port), int(postgres_port)
    pipes = []
    for mine in split_ring(PROCESSES):
        near, far = context.Pipe()
        # So that they end with this one.
        context.Process(target=copy_ranges, args=(far, ports, keyspace, mine), daemon=True).start()
        pipes.append(near)
        # So that its end is heard of here.
        far.close()
    serve_by(pipes)


if __name__ == "__main__":
    main(*sys.argv[1:])
