"""Attributes of a target that only a DynamoDB table has."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from migration_platform.components.attributes import NamedAttributes
from migration_platform.cql.names import quote
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget, GlobalIndex


class KeyAttributes(NamedAttributes, dg.Model):
    """The table's key: a part of several columns joins them in an attribute of its own."""

    partition: str | list[str] = Field(description="Column or columns of the partition key.")
    sort: str | list[str] = Field(default_factory=list, description="Those of the sort key.")
    partition_attribute: str = Field(
        default=DynamoDbTarget.partition_attribute,
        description="Name of the partition key that several columns are joined in.",
    )
    sort_attribute: str = Field(
        default=DynamoDbTarget.sort_attribute,
        description="Name of the sort key that several columns are joined in.",
    )


class CapacityAttributes(NamedAttributes, dg.Model):
    """Provisioned capacity units a second."""

    read_units: int = Field(description="Read capacity units.")
    write_units: int = Field(description="Write capacity units.")


class IndexAttributes(NamedAttributes, dg.Model):
    """A global secondary index that is made with the table."""

    partition: str = Field(description="Column of the index's partition key.")
    sort: str | None = Field(default=None, description="Column of its sort key.")
    projection: str | list[str] = Field(
        default="ALL", description="ALL, KEYS_ONLY, or the columns that it holds besides the keys."
    )
    capacity: CapacityAttributes | None = Field(
        default=None, description="Needed where billing_mode is PROVISIONED."
    )


class AttributeAttributes(NamedAttributes, dg.Model):
    """How a column becomes an attribute."""

    rename: str | None = Field(default=None, description="The attribute's name.")
    drop: bool = Field(default=False, description="Whether the column is not copied.")
    type: str | None = Field(
        default=None, description="Attribute type, of those that lose nothing of the column."
    )
    cql_type: str | None = Field(
        default=None, description="CQL type in which it arrives, for columns.codecs and constants."
    )


class DynamoDbAttributes(NamedAttributes, dg.Model):
    """What a target may declare if its store is DynamoDB."""

    key: KeyAttributes | None = Field(
        default=None, description="DynamoDB: the table's key; default: as the origin's."
    )
    create: bool = Field(
        default=False, description="DynamoDB: whether a table that is missing is created."
    )
    billing_mode: str = Field(
        default=DynamoDbTarget.billing_mode, description="DynamoDB: PAY_PER_REQUEST or PROVISIONED."
    )
    capacity: CapacityAttributes | None = Field(
        default=None, description="DynamoDB: needed where billing_mode is PROVISIONED."
    )
    indexes: dict[str, IndexAttributes] = Field(
        default_factory=dict, description="DynamoDB: global secondary indexes by name."
    )
    ttl_attribute: str | None = Field(
        default=None, description="DynamoDB: attribute with an item's expiry; set ttl too."
    )
    writetime_attribute: str | None = Field(
        default=None,
        description="DynamoDB: attribute with an item's writetime in microseconds; with "
        "writetime: row_max the newest wins.",
    )
    attributes: dict[str, AttributeAttributes] = Field(
        default_factory=dict,
        description="DynamoDB: by column, how it becomes an attribute; default: see its mapping.",
    )
    nulls: str = Field(
        default=DynamoDbTarget.nulls, description="DynamoDB: null is absent, or an attribute null."
    )
    numbers: str = Field(
        default=DynamoDbTarget.numbers,
        description="DynamoDB: numbers that it cannot hold: refuse the row, or write a string.",
    )
    write_units_per_second: int | None = Field(
        default=None, description="DynamoDB: limit of write units for the whole run."
    )

    def _names(self, renamed: Mapping[str, str]) -> dict[str, str]:
        """Give the attribute that each column of `attributes` becomes."""
        return {
            name: each.rename or renamed.get(name, name) for name, each in self.attributes.items()
        }

    def conflicts(self, renamed: Mapping[str, str]) -> list[str]:
        """Give what `attributes` says twice; `renamed` are the columns of `columns.rename`."""
        wrong = []
        if self.key is not None and not self.key.partition:
            wrong.append(
                "target.key.partition is empty; name its columns, or leave target.key out for the "
                "origin's key"
            )
        for name, each in self.attributes.items():
            here = f"target.attributes.{name}"
            if each.rename == "":
                wrong.append(f"{here}.rename is empty; give the attribute's name, or leave it out")
            if each.drop and (each.rename or each.type or each.cql_type):
                wrong.append(f"{here} drops the column and says what becomes of it; keep one")
            if name in renamed and (each.rename or each.drop):
                verb = "drops" if each.drop else "renames"
                wrong.append(
                    f"{here} {verb} {quote(name)}, and columns.rename renames it; keep one"
                )
        kept: dict[str, str] = {}
        for name, attribute in self._names(renamed).items():
            if self.attributes[name].drop:
                continue
            if attribute in kept:
                wrong.append(
                    f"target.attributes says twice what the attribute {quote(attribute)} is, of "
                    f"{quote(kept[attribute])} and of {quote(name)}; keep one"
                )
            kept[attribute] = name
        return wrong


def declare_dynamodb(
    target: DynamoDbAttributes, diff: Any, renamed: Mapping[str, str]
) -> DynamoDbTarget:
    """Give the declaration of the target; `renamed` are the columns of `columns.rename`."""
    key, capacity = target.key or KeyAttributes(partition=[]), target.capacity
    names, attributes = target._names(renamed), target.attributes
    return DynamoDbTarget(
        partition=_to_names(key.partition),
        sort=_to_names(key.sort),
        partition_attribute=key.partition_attribute,
        sort_attribute=key.sort_attribute,
        create=target.create,
        billing_mode=target.billing_mode,
        read_units=capacity.read_units if capacity else None,
        write_units=capacity.write_units if capacity else None,
        indexes=tuple(_to_index(name, index) for name, index in target.indexes.items()),
        ttl_attribute=target.ttl_attribute,
        writetime_attribute=target.writetime_attribute,
        attribute_types={names[name]: each.type for name, each in attributes.items() if each.type},
        column_types={
            names[name]: each.cql_type for name, each in attributes.items() if each.cql_type
        },
        nulls=target.nulls,
        numbers=target.numbers,
        write_units_per_second=target.write_units_per_second,
        read_units_per_second=diff.read_units_per_second,
    )


def _to_names(given: str | list[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _to_index(name: str, declared: IndexAttributes) -> GlobalIndex:
    capacity, projection = declared.capacity, declared.projection
    return GlobalIndex(
        name,
        declared.partition,
        declared.sort,
        projection if isinstance(projection, str) else tuple(projection),
        capacity.read_units if capacity else None,
        capacity.write_units if capacity else None,
    )
