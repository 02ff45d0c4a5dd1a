"""Writing to PostgreSQL: this project's copies, and what one writes with psycopg alone.

This project reads Cassandra, converts and writes. All others write rows that stand in memory, as
PostgreSQL itself gives them: what a program has to do until it has such rows costs them nothing.
The usual program, in a module of its own, reads and converts, too.
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import psycopg

from benchmarks.peers import PROCESSES, TOKEN_RANGES, Peer, Work, own
from benchmarks.peers.serving import serve
from migration_platform.copying.copy import copy_single_rows
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import Page
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.demo import sample
from migration_platform.local.ports import LOCALHOST
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.model import Plan
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform.stores.interface import Selection
from migration_platform.stores.kinds import open_origin, open_stores, open_target, plan_between
from migration_platform.stores.planning import make_target
from migration_platform.stores.postgres.connection import PostgresSettings
from migration_platform.stores.postgres.declaration import PostgresTarget

TABLE, BARE, READY = "copied", "bare", "ready"
"""What is written; a table without an index; the rows that stand ready, in one schema."""
SMALL_KEYSPACE, LARGE_KEYSPACE = "benchmark_small", "benchmark_large"
SMALL_SHARE, LARGE_SHARE = 0.25, 4.0
NAMES = tuple(name for name, _ in sample.COLUMNS)
KEY = ("userid", "courseid", "batchid")
DOCUMENTS = ("certificates", "contentstatus", "issued_certificates")
TYPES = {
    "text": "text",
    "boolean": "boolean",
    "int": "integer",
    "timestamp": "timestamptz",
}
FEW, MANY = 25, 1_000
CHUNK_BYTES = 256 * 1024

COPY = Work(name="this project, copy into an empty table", group="postgres")
AGAIN = Work(name="this project, copy again: every row is updated", group="postgres")
COMPARISON = Work(name="this project, comparison", group="postgres")
VALUES = Work(name="this project, method values", group="postgres")
SMALL = Work(
    name="this project, copy of a quarter of the rows", group="postgres", share=SMALL_SHARE
)
LARGE = Work(name="this project, copy of four times the rows", group="postgres", share=LARGE_SHARE)
WRITER = Work(
    name="this project, its writer alone: one process, pages read beforehand", group="postgres"
)
USUAL = Work(
    name=f"the usual program: paged SELECT, psycopg's executemany of {FEW} and a commit, "
    f"{PROCESSES} processes",
    group="postgres",
    share=SMALL_SHARE,
)
SINGLE = Work(name="psycopg, INSERT and commit of each row", group="postgres", share=0.05)
EXECUTEMANY = Work(name=f"psycopg, executemany of {FEW} and a commit", group="postgres", share=0.25)
PIPELINED = Work(
    name=f"psycopg, executemany of {MANY:,} and a commit", group="postgres", share=0.25
)
UNNEST = Work(
    name=f"psycopg, arrays of {MANY:,} rows with unnest and a commit", group="postgres", share=0.25
)
BARE_COPY = Work(name="binary COPY of ready-made rows, without an index", group="postgres")

_MODULE = "benchmarks.peers.postgres"
_OURS = f"{PROCESSES} workers, {TOKEN_RANGES} ranges, everything else as it is by default"
PEERS = (
    Peer(
        name="own-postgres",
        works=(COPY, AGAIN, COMPARISON),
        settings=f"{_OURS}; the comparison in both directions",
        module=_MODULE,
        arguments=("copy", "benchmark"),
    ),
    Peer(
        name="own-postgres-values",
        works=(VALUES,),
        settings=f"{_OURS}; `target.method: values`",
        module=_MODULE,
        arguments=("values", "benchmark"),
    ),
    Peer(
        name="own-postgres-small",
        works=(SMALL,),
        settings=f"{_OURS}; a table of its own with a quarter of the rows",
        module=_MODULE,
        arguments=("copy", SMALL_KEYSPACE),
    ),
    Peer(
        name="own-postgres-large",
        works=(LARGE,),
        settings=f"{_OURS}; a table of its own with four times the rows",
        module=_MODULE,
        arguments=("copy", LARGE_KEYSPACE),
    ),
    Peer(
        name="own-postgres-writer",
        works=(WRITER,),
        settings="one process, the pages of all rows in memory",
        module=_MODULE,
        arguments=("writer", "benchmark"),
    ),
    Peer(
        name="psycopg",
        works=(SINGLE, EXECUTEMANY, PIPELINED, UNNEST),
        settings="one process, one connection, `INSERT ... ON CONFLICT DO UPDATE`, prepared; "
        "psycopg's executemany is pipelined",
        packages=("psycopg",),
        module=_MODULE,
        arguments=("psycopg", "benchmark"),
    ),
    Peer(
        name="usual",
        works=(USUAL,),
        settings=f"{PROCESSES} processes with a half of the ring each, the driver's pages of 5,000 "
        "rows, collections as `Json`, `INSERT ... ON CONFLICT DO UPDATE`",
        packages=("cassandra-driver",),
        module="benchmarks.peers.postgres_usual",
        arguments=(SMALL_KEYSPACE,),
    ),
    Peer(
        name="bare-copy",
        works=(BARE_COPY,),
        settings="one process, one connection, one transaction, rows as a COPY has given them",
        module=_MODULE,
        arguments=("bare", "benchmark"),
    ),
)


def table_of(work: Work) -> str:
    """Give the table that a work writes."""
    return BARE if work is BARE_COPY else TABLE


def connect(port: int) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect without this project."""
    return psycopg.connect(
        host=LOCALHOST, port=port, user="postgres", dbname="postgres", autocommit=True
    )


# -- this project --------------------------------------------------------------------------------


def make_plan(migration: Migration, origin: Any, target: Any) -> Plan:
    """Plan the copy, and make its table where it is missing."""
    plan = plan_between(migration, origin, target)
    origins, targets = open_origin(migration, origin), open_target(migration, target)
    return make_target(plan, origins, targets, lambda _: None)


def serve_own(method: str, keyspace: str, ports: tuple[int, int]) -> None:
    """Serve this project's works; each has processes of its own, connected and warm."""
    origin_settings = CassandraSettings(port=ports[0])
    target_settings = PostgresSettings(
        (LOCALHOST,), ports[1], username="postgres", schema="benchmark", sslmode="disable"
    )
    migration = Migration(
        Endpoint("cassandra", TableName(keyspace, sample.ORIGIN_TABLE)),
        Endpoint(
            "postgres",
            TableName("benchmark", TABLE),
            declared=PostgresTarget(create=True, method="values" if method == "values" else "copy"),
        ),
        token_ranges=TOKEN_RANGES,
        writetime="now",
        ttl="none",
    )
    with origin_settings.connect() as origin, target_settings.connect() as target, ExitStack() as s:
        plan = make_plan(migration, origin, target)

        def prepare(request: dict[str, Any]) -> Callable[[], int]:
            s.close()
            work = request["work"]
            if work == WRITER.name:
                return prepare_writer(plan, origin, target)
            pool = s.enter_context(
                WorkerPool(plan, origin_settings, target_settings, workers=PROCESSES)
            )
            ranges = plan.migration.ranges
            if work == COMPARISON.name:
                own.compare(plan, pool, ranges[:PROCESSES])
                return lambda: own.compare(plan, pool, ranges)
            copied = own.copy(plan, pool, ranges[:PROCESSES])
            if work != AGAIN.name and copied:
                # Warm now; what the first ranges have brought is to come once more.
                with connect(ports[1]) as connection:
                    connection.execute(f"TRUNCATE benchmark.{TABLE}")
            return lambda: own.copy(plan, pool, ranges)

        serve(prepare)


def prepare_writer(plan: Plan, origin: Any, target: Any) -> Callable[[], int]:
    """Read all pages, so that what is left to do is to convert and to write."""
    context = multiprocessing.get_context("spawn")
    budgets = [RateBudget(context) for _ in range(3)]
    stores = open_stores(plan, origin, target, *budgets)
    pages: list[Page] = []

    def read(selection: Selection) -> Iterator[Page]:
        reader = stores.origin.prepare_ranges(plan, selection)
        for each in plan.migration.ranges:
            pages.extend(reader.pages(each, stores.reading("origin", print)))
        return iter(())

    (layer,) = plan.layers
    copy_single_rows(stores, layer, read, lambda _: None)
    return lambda: copy_single_rows(stores, layer, lambda _: iter(pages), lambda _: None).written


# -- psycopg -------------------------------------------------------------------------------------


def upsert(source: str) -> bytes:
    """Write the statement that inserts or updates rows of a source."""
    names = ", ".join(NAMES)
    updates = ", ".join(f"{name} = EXCLUDED.{name}" for name in NAMES if name not in KEY)
    return (
        f"INSERT INTO benchmark.{TABLE} ({names}) {source} "
        f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {updates}"
    ).encode()


def read_ready(connection: psycopg.Connection, rows: int) -> list[tuple]:
    """Read rows as Python's values, documents as texts."""
    names = ", ".join(f"{name}::text" if name in DOCUMENTS else name for name in NAMES)
    statement = f"SELECT {names} FROM benchmark.{READY} LIMIT {rows}"
    return connection.execute(statement.encode()).fetchall()


def write_each(connection: psycopg.Connection, rows: Sequence[tuple]) -> int:
    """Write a row, and wait until it is on the disk."""
    statement = upsert(f"VALUES ({', '.join(['%s'] * len(NAMES))})")
    for row in rows:
        connection.execute(statement, row, prepare=True)
    return len(rows)


def write_many(connection: psycopg.Connection, rows: Sequence[tuple], batch: int) -> int:
    """Write with executemany, and a commit for each batch."""
    statement = upsert(f"VALUES ({', '.join(['%s'] * len(NAMES))})")
    with connection.cursor() as cursor:
        for some in batches(rows, batch):
            with connection.transaction():
                cursor.executemany(statement, some)
    return len(rows)


def write_arrays(connection: psycopg.Connection, rows: Sequence[tuple]) -> int:
    """Write columns as arrays, which the server makes rows of."""
    types = [TYPES.get(kind, "jsonb") for _, kind in sample.COLUMNS]
    # An array of documents is sent as one of texts, or Python's lists would have to be made anew.
    sent = ["text" if kind == "jsonb" else kind for kind in types]
    arrays = ", ".join(f"%s::{kind}[]" for kind in sent)
    made = ", ".join(f"{name}::{kind}" for name, kind in zip(NAMES, types, strict=True))
    statement = upsert(f"SELECT {made} FROM unnest({arrays}) AS r({', '.join(NAMES)})")
    for some in batches(rows, MANY):
        columns = [list(column) for column in zip(*some, strict=True)]
        connection.execute(statement, columns, prepare=True)
    return len(rows)


def batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut rows into parts of one size."""
    every = iter(rows)
    while some := list(islice(every, size)):
        yield some


def serve_psycopg(port: int) -> None:
    """Serve what one writes with psycopg."""
    works: dict[str, Callable[[psycopg.Connection, Sequence[tuple]], int]] = {
        SINGLE.name: write_each,
        EXECUTEMANY.name: lambda connection, rows: write_many(connection, rows, FEW),
        PIPELINED.name: lambda connection, rows: write_many(connection, rows, MANY),
        UNNEST.name: write_arrays,
    }
    with connect(port) as connection:

        def prepare(request: dict[str, Any]) -> Callable[[], int]:
            rows = read_ready(connection, request["rows"])
            return lambda: works[request["work"]](connection, rows)

        serve(prepare)


def serve_bare(port: int) -> None:
    """Serve what finds the server's own limit."""
    with connect(port) as connection:
        names = ", ".join(NAMES)
        out = f"COPY benchmark.{READY} ({names}) TO STDOUT (FORMAT binary)".encode()
        into = f"COPY benchmark.{BARE} ({names}) FROM STDIN (FORMAT binary)".encode()

        def prepare(request: dict[str, Any]) -> Callable[[], int]:
            del request
            with connection.cursor() as cursor, cursor.copy(out) as told:
                made = b"".join(told)
            chunks = [made[at : at + CHUNK_BYTES] for at in range(0, len(made), CHUNK_BYTES)]

            def send() -> int:
                with connection.cursor() as cursor:
                    with cursor.copy(into) as copy:
                        for chunk in chunks:
                            copy.write(chunk)
                    return cursor.rowcount

            return send

        serve(prepare)


def main(which: str, keyspace: str, cassandra_port: str, postgres_port: str) -> None:
    """Serve the works of one of `PEERS`."""
    port = int(postgres_port)
    if which == "psycopg":
        serve_psycopg(port)
    elif which == "bare":
        serve_bare(port)
    else:
        serve_own(which, keyspace, (int(cassandra_port), port))


if __name__ == "__main__":
    main(*sys.argv[1:])
