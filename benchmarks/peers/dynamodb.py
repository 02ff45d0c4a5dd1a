"""Writes to DynamoDB Local: one PutItem a row and `batch_writer` of boto3, and this project.

Each in one process. What the server takes at most is measured too: requests that were made
beforehand, sent by several processes, cost their client next to nothing.
"""

import json
import multiprocessing
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.peers import Peer, Work
from benchmarks.peers.serving import serve
from migration_platform.copying.copy import copy_range
from migration_platform.cql.names import TableName
from migration_platform.cql.types import parse_type
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.demo.sample import USERS_KEYSPACE, USERS_TABLE
from migration_platform.pacing.rate import RateBudget
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform.stores.dynamodb.connection import DynamoDb, DynamoDbSettings
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget
from migration_platform.stores.dynamodb.items import ItemColumn, ItemForm, KeyPart, compile_item
from migration_platform.stores.dynamodb.rows import units_of
from migration_platform.stores.dynamodb.tables import describe
from migration_platform.stores.dynamodb.writes import ItemWriter
from migration_platform.stores.kinds import open_stores, plan_between

REGION = "local"
IN_FLIGHT = 8
SENDERS = 4
CONTEXT = multiprocessing.get_context("spawn")
TWO = (ItemColumn("id", parse_type("uuid")), ItemColumn("name", parse_type("text")))
MORE = [ItemColumn(f"column_{n}", parse_type("text")) for n in range(4)]
MORE += [ItemColumn(f"number_{n}", parse_type("bigint")) for n in range(4)]
VALUES = [b"some text of a column"] * 4 + [(10**n).to_bytes(8, "big") for n in range(4)]

# A tenth for the slowest, whose rate does not depend on their number.
PUT_ITEM = Work(
    name="boto3, one PutItem an item", group="dynamodb", lacks="reading, types", share=0.1
)
BATCH_WRITER = Work(name="boto3, batch_writer", group="dynamodb", lacks="reading, types")
OWN_TWO = Work(
    name="this project, 2 columns", group="dynamodb", keeps="types, retries, a rate budget"
)
OWN_TEN = Work(
    name="this project, 10 columns", group="dynamodb", keeps="types, retries, a rate budget"
)
OWN_COPY = Work(
    name="this project, from Cassandra, 3 columns",
    group="dynamodb",
    keeps="types, retries, a rate budget; reading included",
)
READY_MADE = Work(
    name=f"requests made beforehand, {SENDERS} processes",
    group="dynamodb",
    lacks="making items: this is the server's own limit",
)
MODULE = "benchmarks.peers.dynamodb"
PEERS = (
    Peer(
        name="boto3",
        works=(PUT_ITEM, BATCH_WRITER),
        settings="one process, 2 columns, a client and a resource as they are by default",
        packages=("boto3",),
        module=MODULE,
        arguments=("boto3",),
    ),
    Peer(
        name="own-dynamodb",
        works=(OWN_TWO, OWN_TEN, OWN_COPY),
        settings=f"one process, {IN_FLIGHT} requests in flight",
        packages=("botocore", "urllib3"),
        module=MODULE,
        arguments=("own",),
    ),
    Peer(
        name="dynamodb-limit",
        works=(READY_MADE,),
        settings="BatchWriteItem of 25 items of 2 columns",
        module=MODULE,
        arguments=("limit",),
    ),
)


def key(number: int) -> str:
    """Give an item's key."""
    return f"{number:08d}-0000-0000-0000-000000000000"


def boto3_works(url: str) -> dict[str, Callable[[str, int], int]]:
    """Give what one writes with boto3."""
    import boto3

    where = {"endpoint_url": url, "region_name": REGION}
    client: Any = boto3.client("dynamodb", **where)
    resource: Any = boto3.resource("dynamodb", **where)

    def put_each(table: str, rows: int) -> int:
        for n in range(rows):
            item = {"id": {"S": key(n)}, "name": {"S": f"User{n}"}}
            client.put_item(TableName=table, Item=item)
        return rows

    def put_batches(table: str, rows: int) -> int:
        with resource.Table(table).batch_writer() as batch:
            for n in range(rows):
                batch.put_item(Item={"id": key(n), "name": f"User{n}"})
        return rows

    return {PUT_ITEM.name: put_each, BATCH_WRITER.name: put_batches}


def write_items(connection: DynamoDb, table: str, rows: int, more: int) -> int:
    """Write rows with this project, each from its cells as Cassandra gives them."""
    form = ItemForm((*TWO, *MORE[:more]), KeyPart("id", ("id",)))
    to_item = compile_item(form)
    values = VALUES[:more]
    writer = ItemWriter(
        connection,
        describe(connection, table),
        budget=RateBudget(CONTEXT),
        retry_seconds=30,
        on_retry=print,
        in_flight=IN_FLIGHT,
    )
    for number in range(rows):
        cells = [number.to_bytes(16, "big"), b"User%d" % number, *values]
        item, item_key = to_item(cells, None, None)
        writer.write(None, item, item_key, units_of(item))
    writer.flush()
    return writer.rows_written


def send_ready_made(pipe, settings: DynamoDbSettings) -> None:
    """Send the requests of a table and a part of its rows once they are made."""
    with settings.connect() as connection:
        while request := pipe.recv():
            table, start, rows = request
            bodies = []
            for first in range(start, start + rows, 25):
                items = [
                    {"PutRequest": {"Item": {"id": {"S": key(n)}, "name": {"S": f"User{n}"}}}}
                    for n in range(first, min(first + 25, start + rows))
                ]
                bodies.append(json.dumps({"RequestItems": {table: items}}))
            pipe.send("made")
            pipe.recv()
            for body in bodies:
                connection.call("BatchWriteItem", body)
            pipe.send(rows)


def serve_limit(settings: DynamoDbSettings) -> None:
    """Serve what finds the server's own limit."""
    pipes = []
    for _ in range(SENDERS):
        near, far = CONTEXT.Pipe()
        CONTEXT.Process(target=send_ready_made, args=(far, settings), daemon=True).start()
        far.close()
        pipes.append(near)

    def prepare(request: dict[str, Any]) -> Callable[[], int]:
        table, rows = request["table"], request["rows"]
        edges = [rows * n // SENDERS for n in range(SENDERS + 1)]
        for pipe, first, last in zip(pipes, edges, edges[1:], strict=False):
            pipe.send((table, first, last - first))
        for pipe in pipes:
            pipe.recv()

        def send() -> int:
            for pipe in pipes:
                pipe.send("go")
            return sum(pipe.recv() for pipe in pipes)

        return send

    serve(prepare)
    for pipe in pipes:
        pipe.send(None)


def serve_own(settings: DynamoDbSettings, port: int) -> None:
    """Serve this project's writes, and its copy of the users' table."""
    with settings.connect() as connection, CassandraSettings(port=port).connect() as origin:

        def copy_users(table: str) -> int:
            migration = Migration(
                Endpoint("cassandra", TableName(USERS_KEYSPACE, USERS_TABLE)),
                Endpoint("dynamodb", TableName("", table), declared=DynamoDbTarget()),
                token_ranges=4,
                writetime="now",
                ttl="none",
            )
            plan = plan_between(migration, origin, connection)
            budgets = RateBudget(CONTEXT), RateBudget(CONTEXT), RateBudget(CONTEXT)
            stores = open_stores(plan, origin, connection, *budgets)
            ranges = migration.ranges
            return sum(copy_range(stores, each, lambda _: None).written for each in ranges)

        def prepare(request: dict[str, Any]) -> Callable[[], int]:
            table, rows = request["table"], request["rows"]
            if request["work"] == OWN_COPY.name:
                return lambda: copy_users(table)
            more = len(MORE) if request["work"] == OWN_TEN.name else 0
            return lambda: write_items(connection, table, rows, more)

        serve(prepare)


def main(which: str, url: str, port: str) -> None:
    """Serve the works of one of `PEERS`."""
    settings = DynamoDbSettings(url, REGION)
    if which == "boto3":
        works = boto3_works(url)
        serve(lambda request: lambda: works[request["work"]](request["table"], request["rows"]))
    elif which == "limit":
        serve_limit(settings)
    else:
        serve_own(settings, int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
