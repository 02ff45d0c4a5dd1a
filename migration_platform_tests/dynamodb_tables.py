"""Tables in DynamoDB Local, and what is in them as boto3 reads it: without the engine."""

import json
import multiprocessing
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import boto3
import botocore.session
from botocore.loaders import Loader

from migration_platform.local.ports import LOCALHOST
from migration_platform.pacing.rate import RateBudget
from migration_platform.stores.dynamodb.connection import DynamoDb, DynamoDbSettings
from migration_platform.stores.dynamodb.tables import DynamoTable, KeyAttribute, create_table

REGION = "local"
CONTEXT = multiprocessing.get_context("spawn")


def _spare_repeated_work() -> None:
    """Keep what botocore reads from its files for each session: four fifths of what one takes."""
    make, kept = botocore.session.create_loader, {}

    def give(path: str | None = None) -> Loader:
        if path not in kept:
            kept[path] = make(path)
        # Each session of boto3 adds its own folder.
        kept[path].search_paths[:] = dict.fromkeys(kept[path].search_paths)
        return kept[path]

    botocore.session.create_loader = give


_spare_repeated_work()


def dynamodb_settings(port: int) -> DynamoDbSettings:
    return DynamoDbSettings(endpoint_url=f"http://{LOCALHOST}:{port}", region=REGION)


def settings_of(url: str, **changes: Any) -> DynamoDbSettings:
    return DynamoDbSettings(endpoint_url=url, region=REGION, **changes)


def budget_of(rows: int | None = None, size: int | None = None) -> RateBudget:
    return RateBudget(CONTEXT, rows_per_second=rows, size_per_second=size)


def new_table(connection: DynamoDb, key: Sequence[KeyAttribute] = ()) -> DynamoTable:
    """Create a table with a name of its own; its key is a text `id` unless another is given."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    return create_table(connection, name, key or [KeyAttribute("id", "S")])


def key_of(number: int | str) -> str:
    return json.dumps({"id": {"S": str(number)}})


def item_of(number: int | str, value: str = "v", **numbers: int) -> str:
    item = {"id": {"S": str(number)}, "v": {"S": value}}
    return json.dumps(item | {name: {"N": str(value)} for name, value in numbers.items()})


@contextmanager
def plain_client(port: int) -> Iterator[Any]:
    client = boto3.client("dynamodb", endpoint_url=f"http://{LOCALHOST}:{port}", region_name=REGION)
    try:
        yield client
    finally:
        client.close()


def items_of(port: int, table: DynamoTable) -> list[dict[str, Any]]:
    """All items by their text key, as boto3's own paginator reads them."""
    with plain_client(port) as client:
        pages = client.get_paginator("scan").paginate(TableName=table.name, ConsistentRead=True)
        items = [item for page in pages for item in page["Items"]]
    return sorted(items, key=lambda item: item["id"]["S"])
