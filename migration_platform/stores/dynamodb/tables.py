"""Tables of DynamoDB, through the SDK's client: describe one, create one, set its time to live."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from migration_platform.errors import (
    MigrationError,
    PermanentError,
    PreflightError,
    TransientError,
)
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.failures import MissingTableError
from migration_platform.stores.dynamodb.retries import administer

TABLE_POLL_SECONDS = 0.5

KeyType = Literal["S", "N", "B"]


@dataclass(frozen=True)
class KeyAttribute:
    """One attribute of a key; `key_type` is S, N or B."""

    name: str
    key_type: KeyType


@dataclass(frozen=True)
class Index:
    """A secondary index. `attributes` are those of projection INCLUDE."""

    name: str
    key: tuple[KeyAttribute, ...]
    projection: Literal["ALL", "KEYS_ONLY", "INCLUDE"] = "ALL"
    attributes: tuple[str, ...] = ()
    read_units: int | None = None
    write_units: int | None = None


@dataclass(frozen=True)
class DynamoTable:
    """What a migration needs to know of a table; `table_id` changes when it is made anew.

    `key` is the partition key and, if there is one, the sort key. Units are None when the table
    is paid per request.
    """

    name: str
    table_id: str
    key: tuple[KeyAttribute, ...]
    read_units: int | None
    write_units: int | None
    indexes: tuple[Index, ...]
    ttl_attribute: str | None
    status: str

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's attributes."""
        return tuple(attribute.name for attribute in self.key)


def find_table(
    connection: DynamoDb, name: str, *, retry_seconds: float = 0.0
) -> DynamoTable | None:
    """Describe a table; None if there is none of that name.

    Raises:
        PermanentError, TransientError: the service refused it or did not answer.
    """
    try:
        found = _describe_table(connection, name, retry_seconds)
        lives = administer(
            connection, "describe_time_to_live", TableName=name, retry_seconds=retry_seconds
        )
    except MissingTableError:
        return None
    return _read_table(found, lives.get("TimeToLiveDescription", {}))


def _describe_table(connection: DynamoDb, name: str, retry_seconds: float) -> dict[str, Any]:
    answer = administer(connection, "describe_table", TableName=name, retry_seconds=retry_seconds)
    return answer["Table"]


def describe(connection: DynamoDb, name: str, *, retry_seconds: float = 0.0) -> DynamoTable:
    """Describe a table.

    Raises:
        PreflightError: there is none, or the service refused or did not answer; one sentence.
    """
    try:
        table = find_table(connection, name, retry_seconds=retry_seconds)
    except MigrationError as error:
        raise PreflightError(f"cannot describe the table {name}: {error}") from error
    if table is None:
        raise PreflightError(
            f"there is no table {name} in region {connection.region} at {connection.endpoint_url}; "
            "check its name and the store's region, or set target.create: true"
        )
    return table


def create_table(
    connection: DynamoDb,
    name: str,
    key: Sequence[KeyAttribute],
    *,
    billing_mode: Literal["PAY_PER_REQUEST", "PROVISIONED"] = "PAY_PER_REQUEST",
    read_units: int | None = None,
    write_units: int | None = None,
    indexes: Sequence[Index] = (),
    ttl_attribute: str | None = None,
    wait_seconds: float = 600.0,
    retry_seconds: float = 30.0,
    report: Callable[[str], None] = lambda status: None,
) -> DynamoTable:
    """Create a table with global indexes, and wait until it and they are active.

    A table that is there, or is being made by somebody else, is waited for and described: whether
    it is the right one is for the caller to say. `report` is told each status that is waited in.

    Raises:
        PreflightError: it was refused, or is not active after `wait_seconds`.
    """
    units = (read_units, write_units) if billing_mode == "PROVISIONED" else None
    try:
        try:
            administer(
                connection,
                "create_table",
                TableName=name,
                BillingMode=billing_mode,
                retry_seconds=retry_seconds,
                **_shape_table(key, indexes, units),
            )
        except PermanentError as error:
            # Somebody else, or a try whose answer was lost.
            if "ResourceInUseException" not in str(error):
                raise
        _wait_until_active(connection, name, wait_seconds, retry_seconds, report)
        if ttl_attribute is not None:
            _enable_ttl(connection, name, ttl_attribute, retry_seconds)
    except MigrationError as error:
        raise PreflightError(f"cannot create the table {name}: {error}") from error
    return describe(connection, name, retry_seconds=retry_seconds)


def _shape_table(
    key: Sequence[KeyAttribute],
    indexes: Sequence[Index],
    units: tuple[int | None, int | None] | None,
) -> dict[str, Any]:
    """Give key, attributes and indexes as CreateTable takes them; units where there are any."""
    attributes = {a.name: a.key_type for k in (key, *(i.key for i in indexes)) for a in k}
    shape: dict[str, Any] = {
        "KeySchema": _key_schema(key),
        "AttributeDefinitions": [
            {"AttributeName": n, "AttributeType": t} for n, t in attributes.items()
        ],
    }
    if units is not None:
        shape["ProvisionedThroughput"] = _units(*units)
    if indexes:
        shape["GlobalSecondaryIndexes"] = [_shape_index(index, units) for index in indexes]
    return shape


def _shape_index(index: Index, units: tuple[int | None, int | None] | None) -> dict[str, Any]:
    projection: dict[str, Any] = {"ProjectionType": index.projection}
    if index.attributes:
        projection["NonKeyAttributes"] = list(index.attributes)
    shape = {
        "IndexName": index.name,
        "KeySchema": _key_schema(index.key),
        "Projection": projection,
    }
    if units is not None:
        shape["ProvisionedThroughput"] = _units(
            index.read_units or units[0], index.write_units or units[1]
        )
    return shape


def _wait_until_active(
    connection: DynamoDb,
    name: str,
    wait_seconds: float,
    retry_seconds: float,
    report: Callable[[str], None],
) -> None:
    began = time.monotonic()
    while True:
        try:
            found = _describe_table(connection, name, retry_seconds)
            states = [found["TableStatus"]]
            states += [i["IndexStatus"] for i in found.get("GlobalSecondaryIndexes", ())]
        except MissingTableError:
            states = ["CREATING"]  # it is told of everywhere a little later
        if all(state == "ACTIVE" for state in states):
            return
        spent = time.monotonic() - began
        pending = next(state for state in states if state != "ACTIVE")
        if spent >= wait_seconds:
            raise TransientError(f"it is still {pending} after {spent:.0f} s")
        report(pending)
        time.sleep(min(TABLE_POLL_SECONDS, wait_seconds - spent))


def _enable_ttl(connection: DynamoDb, name: str, attribute: str, retry_seconds: float) -> None:
    try:
        administer(
            connection,
            "update_time_to_live",
            TableName=name,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": attribute},
            retry_seconds=retry_seconds,
        )
    except PermanentError as error:
        if "TimeToLive is already enabled" not in str(error):
            raise


def _key_schema(key: Sequence[KeyAttribute]) -> list[dict[str, str]]:
    return [
        {"AttributeName": attribute.name, "KeyType": kind}
        for attribute, kind in zip(key, ("HASH", "RANGE"), strict=False)
    ]


def _units(read_units: int | None, write_units: int | None) -> dict[str, int]:
    return {"ReadCapacityUnits": read_units or 1, "WriteCapacityUnits": write_units or 1}


def _read_table(found: dict[str, Any], lives: dict[str, Any]) -> DynamoTable:
    types = {a["AttributeName"]: a["AttributeType"] for a in found["AttributeDefinitions"]}

    def read_key(schema: list[dict[str, str]]) -> tuple[KeyAttribute, ...]:
        ordered = sorted(schema, key=lambda part: part["KeyType"] != "HASH")
        return tuple(
            KeyAttribute(part["AttributeName"], types[part["AttributeName"]]) for part in ordered
        )

    def read_units(of: dict[str, Any]) -> tuple[int | None, int | None]:
        # One that is paid per request has units of 0.
        units = of.get("ProvisionedThroughput", {})
        return (
            units.get("ReadCapacityUnits") or None,
            units.get("WriteCapacityUnits") or None,
        )

    indexes = tuple(
        Index(
            index["IndexName"],
            read_key(index["KeySchema"]),
            index["Projection"]["ProjectionType"],
            tuple(index["Projection"].get("NonKeyAttributes", ())),
            *read_units(index),
        )
        for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
        for index in found.get(kind, ())
    )
    is_on = lives.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    units = read_units(found)
    # Some servers give no id.
    made_at = found["CreationDateTime"].timestamp()
    return DynamoTable(
        name=found["TableName"],
        table_id=found.get("TableId") or f"{found['TableArn']} {made_at}",
        key=read_key(found["KeySchema"]),
        read_units=units[0],
        write_units=units[1],
        indexes=indexes,
        ttl_attribute=lives.get("AttributeName") if is_on else None,
        status=found["TableStatus"],
    )
