"""Measures writes to DynamoDB Local beside what one would write with boto3.

    python benchmarks/dynamodb.py --rows 20000 --runs 5

Each run writes, in turn and in one process: rows with one PutItem each, through boto3's client;
rows through boto3's `Table.batch_writer`; rows through this package, of two columns and of ten,
from the bytes that Cassandra gives; and a table's rows that are copied from a Cassandra as a run
does it, reading included. The machine drifts, so compare only within one run: the ratios are taken
pair by pair. CPU is that of this process and of DynamoDB's. In the end some processes at once send
requests that were made beforehand, which tells what the server itself can take at most.
"""

import sys

# Run as a script, its neighbour copy.py would hide the standard library's module of that name.
sys.path.append(sys.path.pop(0))

import argparse
import json
import multiprocessing
import os
import time
import uuid
from collections.abc import Callable
from functools import partial

import boto3
import psutil
from cassandra.concurrent import execute_concurrent_with_args
from measuring import Measured, measure, print_table, run_in_turn

from migration_platform.copy import copy_range
from migration_platform.cql_types import parse_type
from migration_platform.dynamodb.items import ItemColumn, ItemForm, KeyPart, compile_item
from migration_platform.dynamodb.rows import units_of
from migration_platform.dynamodb.target import DynamoDbTarget
from migration_platform.local.servers import Cassandra as LocalCassandra
from migration_platform.local.servers import DynamoDb as LocalServer
from migration_platform.local.stack import start_all
from migration_platform.migration import Endpoint, Migration, TableName
from migration_platform.planning import make_plan
from migration_platform.rate import RateBudget
from migration_platform.stores.cassandra import CassandraSettings, Connection
from migration_platform.stores.dynamodb import (
    DynamoDb,
    DynamoDbSettings,
    DynamoTable,
    KeyAttribute,
    create_table,
)
from migration_platform.stores.dynamodb_writes import ItemWriter
from migration_platform.workers import OpenStores

REGION = "local"
CONTEXT = multiprocessing.get_context("spawn")
ID = '"id":{"S":"%08d-0000-0000-0000-000000000000"}'
KEYSPACE = "benchmark_dynamodb"
TWO = (ItemColumn("id", parse_type("uuid")), ItemColumn("name", parse_type("text")))
MORE = [ItemColumn(f"column_{n}", parse_type("text")) for n in range(4)]
MORE += [ItemColumn(f"number_{n}", parse_type("bigint")) for n in range(4)]
FORMS = {
    "2 columns": ItemForm(TWO, KeyPart("id", ("id",))),
    "10 columns": ItemForm((*TWO, *MORE), KeyPart("id", ("id",))),
}
COPIED = "2 columns, copied"
VALUES = [b"some text of a column"] * 4 + [(10**n).to_bytes(8, "big") for n in range(4)]


def put_each(client, table: str, rows: int) -> None:
    """Write rows as one would at first: a request each."""
    for number in range(rows):
        key = f"{number:08d}-0000-0000-0000-000000000000"
        client.put_item(TableName=table, Item={"id": {"S": key}, "name": {"S": f"User{number}"}})


def put_batches(resource, table: str, rows: int) -> None:
    """Write rows as boto3's documentation shows it."""
    with resource.Table(table).batch_writer() as batch:
        for number in range(rows):
            key = f"{number:08d}-0000-0000-0000-000000000000"
            batch.put_item(Item={"id": key, "name": f"User{number}"})


def write_items(
    connection: DynamoDb, rows: int, form: ItemForm, in_flight: int, table: DynamoTable
) -> None:
    """Write rows with this package, each from its cells."""
    to_item = compile_item(form)
    more = VALUES[: len(form.columns) - 2]
    writer = ItemWriter(
        connection,
        table,
        budget=RateBudget(CONTEXT),
        retry_seconds=30,
        on_retry=print,
        in_flight=in_flight,
    )
    for number in range(rows):
        cells = [number.to_bytes(16, "big"), b"User%d" % number, *more]
        item, key = to_item(cells, None, None)
        writer.write(None, item, key, units_of(item))
    writer.flush()
    if writer.rows_written != rows:
        raise SystemExit(f"{writer.rows_written:,} of {rows:,} rows were written")


def fill_origin(origin: Connection, rows: int) -> None:
    """Make the Cassandra table that is copied."""
    run = origin.session.execute
    run(
        f"CREATE KEYSPACE IF NOT EXISTS {KEYSPACE} WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    run(f"DROP TABLE IF EXISTS {KEYSPACE}.users", timeout=60)
    run(f"CREATE TABLE {KEYSPACE}.users (id uuid PRIMARY KEY, name text)", timeout=60)
    insert = origin.session.prepare(f"INSERT INTO {KEYSPACE}.users (id, name) VALUES (?, ?)")
    values = [(uuid.UUID(int=number), f"User{number}") for number in range(rows)]
    execute_concurrent_with_args(origin.session, insert, values, concurrency=200)


def copy_users(origin: Connection, target: DynamoDb, table: DynamoTable, rows: int) -> None:
    """Copy the Cassandra table as a run does."""
    migration = Migration(
        Endpoint("cassandra", TableName(KEYSPACE, "users")),
        Endpoint("dynamodb", TableName("", table.name), dynamodb=DynamoDbTarget()),
        token_ranges=4,
        writetime="now",
        ttl="none",
    )
    plan = make_plan(migration, origin, target)
    budgets = RateBudget(CONTEXT), RateBudget(CONTEXT), RateBudget(CONTEXT)
    stores = OpenStores(plan, origin, target, *budgets)
    written = sum(copy_range(stores, r, lambda _: None).written for r in migration.ranges)
    if written != rows:
        raise SystemExit(f"{written:,} of {rows:,} rows were written")


def send_ready_made(settings: DynamoDbSettings, table: str, start: int, rows: int, gate) -> None:
    """Send requests that were made before the gate opened."""
    bodies = []
    for first in range(start, start + rows, 25):
        items = (f'{{{ID % n},"name":{{"S":"User{n}"}}}}' for n in range(first, first + 25))
        puts = ",".join(f'{{"PutRequest":{{"Item":{item}}}}}' for item in items)
        bodies.append(f'{{"RequestItems":{{"{table}":[{puts}]}}}}')
    with settings.connect() as connection:
        gate.wait()
        for body in bodies:
            connection.call("BatchWriteItem", body)
        gate.wait()


def ceiling(settings: DynamoDbSettings, table: str, rows: int, processes: int) -> float:
    """Give the rows a second that the server takes from so many processes."""
    gate = CONTEXT.Barrier(processes + 1)
    share = rows // processes
    started = [
        CONTEXT.Process(target=send_ready_made, args=(settings, table, n * share, share, gate))
        for n in range(processes)
    ]
    for process in started:
        process.start()
    gate.wait()
    began = time.monotonic()
    gate.wait()
    seconds = time.monotonic() - began
    for process in started:
        process.join()
    return share * processes / seconds


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5, help="counted runs after one warm-up")
    parser.add_argument("--in-flight", type=int, default=8, help="requests under way at once")
    options = parser.parse_args()

    os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    running, cassandra = start_all(
        [LocalServer(), LocalCassandra()], report=lambda line: print(line, flush=True)
    )
    server = psutil.Process(running.pid)
    settings = DynamoDbSettings(f"http://127.0.0.1:{running.port}", REGION)
    where = {"endpoint_url": settings.endpoint_url, "region_name": REGION}
    client, resource = boto3.client("dynamodb", **where), boto3.resource("dynamodb", **where)
    # A tenth for the slowest, whose rate does not depend on their number.
    few = max(25, options.rows // 10)
    origin_settings = CassandraSettings(port=cassandra.port)
    with settings.connect() as connection, origin_settings.connect() as origin:
        fill_origin(origin, options.rows)

        rows = options.rows
        work: list[tuple[str, int, Callable[[DynamoTable], None]]] = [
            ("PutItem a row", few, lambda table: put_each(client, table.name, few)),
            ("batch_writer", rows, lambda table: put_batches(resource, table.name, rows)),
            *(
                (name, rows, partial(write_items, connection, rows, form, options.in_flight))
                for name, form in FORMS.items()
            ),
            (COPIED, rows, lambda table: copy_users(origin, connection, table, rows)),
        ]

        def one_run(number: int) -> dict[str, Measured]:
            done = {}
            # What ran before leaves the server something to tidy up: each has its turn to be next.
            at = number % len(work)
            for name, rows, write in (*work[at:], *work[:at]):
                table = new_table(connection)
                done[name] = measure(rows, [psutil.Process()], server, partial(write, table))
                drop(connection, table)
            return {name: done[name] for name, _, _ in work}

        pairs = [("2 columns", peer) for peer in ("PutItem a row", "batch_writer")]
        print_table(run_in_turn(options.runs, one_run), pairs, "item")
        print("\nrequests made beforehand, which is the server's own limit:")
        for processes in (1, 2, 4, 8):
            table = new_table(connection)
            rate = ceiling(settings, table.name, options.rows // 200 * 200, processes)
            print(f"  {processes} at once: {rate:,.0f} rows/s", flush=True)
            drop(connection, table)


def new_table(connection: DynamoDb) -> DynamoTable:
    """Make an empty table."""
    return create_table(connection, f"b_{uuid.uuid4().hex[:12]}", [KeyAttribute("id", "S")])


def drop(connection: DynamoDb, table: DynamoTable) -> None:
    """Free the server's memory."""
    connection.call("DeleteTable", json.dumps({"TableName": table.name}))


if __name__ == "__main__":
    main()
