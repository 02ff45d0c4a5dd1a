"""What a target may declare in YAML if its store is PostgreSQL or YugabyteDB (YSQL)."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from migration_platform.components.attributes import NamedAttributes
from migration_platform.cql.names import TableName
from migration_platform.errors import DeclarationError
from migration_platform.stores.postgres.declaration import Index, PostgresTarget
from migration_platform.stores.postgres.names import parse_name


class ColumnAttributes(NamedAttributes, dg.Model):
    """What a column of a table that is created is like."""

    type: str = Field(description="SQL type, as varchar(200) or jsonb.")


class SecondaryIndexAttributes(NamedAttributes, dg.Model):
    """A secondary index that is created behind a full copy."""

    columns: list[str] = Field(description="Its columns, in their order.")
    unique: bool = Field(default=False, description="Whether no two rows may have the same values.")
    method: str | None = Field(default=None, description="btree, gin or another; default: btree.")


class PostgresAttributes(NamedAttributes, dg.Model):
    """What a target may declare if its store is PostgreSQL."""

    create: bool = Field(
        default=False,
        description="DynamoDB, PostgreSQL: whether a table that is missing is created.",
    )
    columns: dict[str, ColumnAttributes] = Field(
        default_factory=dict,
        description="PostgreSQL: by column, its type in a table that is created; default: see its "
        "mapping.",
    )
    secondary_indexes: dict[str, SecondaryIndexAttributes] = Field(
        default_factory=dict,
        description="PostgreSQL: indexes by name that are created behind a full copy.",
    )
    statics: str = Field(
        default=PostgresTarget.statics,
        description="PostgreSQL: repeat static cells in each row of their partition, or keep them "
        "in a table of their own.",
    )
    writetime_column: str | None = Field(
        default=None,
        description="PostgreSQL: column with a row's writetime in microseconds; with writetime: "
        "row_max the newest row wins.",
    )
    unchanged: str = Field(
        default=PostgresTarget.unchanged,
        description="PostgreSQL: write rows that are there already as they are, or skip them.",
    )
    method: str | None = Field(
        default=None,
        description="PostgreSQL: write by a binary copy, or by values, one INSERT of many rows; "
        "default: copy, in YugabyteDB values.",
    )
    batch_rows: int | None = Field(
        default=None, description="PostgreSQL: rows of a transaction; default: 5000, of values 200."
    )
    scan: str | None = Field(
        default=None,
        description="PostgreSQL: how a comparison cuts the table: blocks, hash_code or whole; "
        "default: blocks, in YugabyteDB hash_code.",
    )
    nul: str = Field(
        default=PostgresTarget.nul,
        description="PostgreSQL: a text with a NUL character: refuse the row, or escape it.",
    )


def declare_postgres(target: Any, diff: Any, renamed: Mapping[str, str]) -> PostgresTarget:
    """Give the declaration of the target."""
    del diff, renamed
    parts = _parts(target.table)
    return PostgresTarget(
        database=parts[0] if len(parts) == 3 else None,
        create=target.create,
        indexes=tuple(
            Index(name, tuple(each.columns), each.unique, each.method)
            for name, each in target.secondary_indexes.items()
        ),
        column_types={name: each.type for name, each in target.columns.items()},
        statics=target.statics,
        writetime_column=target.writetime_column,
        unchanged=target.unchanged,
        method=target.method,
        batch_rows=target.batch_rows,
        scan=target.scan,
        nul=target.nul,
    )


def _parts(table: str | None) -> tuple[str, ...]:
    try:
        return parse_name(table) if table else ()
    except DeclarationError:
        # Said where the target is named.
        return ()


def name_table(given: str | None, origin: str) -> TableName:
    """Give the table's name: by default the origin's, in the store's schema.

    Raises:
        DeclarationError: what is given is no name.
    """
    if given is None:
        return TableName("", TableName.parse(origin).table)
    *before, table = parse_name(given)
    return TableName(before[-1] if before else "", table)
