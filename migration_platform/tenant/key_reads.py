"""Reads single rows by their whole key, and asks whether an organisation has one."""

from collections.abc import Mapping, Sequence
from typing import Any

from migration_platform.cql.names import quote
from migration_platform.cql.rows import split_cells
from migration_platform.cql.types import parse_type
from migration_platform.cql.values import encode_value
from migration_platform.errors import PreflightError
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.masks import validate_masks
from migration_platform.stores.cassandra.reads import read_rows
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.tenant.declaration import Move


def read_by_key(
    connection: Connection,
    move: Move,
    table: Table,
    columns: Sequence[str],
    key: Mapping[str, Any],
) -> list[bytes | None] | None:
    """Read some columns of one row; None if there is no such row."""
    statement = prepare_key_read(connection, table, (*table.primary_key, *columns), move)
    values = [
        encode_value(key[name], parse_type(table.type_of(name))) for name in table.primary_key
    ]
    [(_, page)] = read_rows(
        connection,
        statement,
        [(None, list[bytes | None](values))],
        consistency=move.consistency,
        retry_seconds=move.retry_seconds,
        on_retry=lambda error: None,
    )
    if not page.row_count:
        return None
    return split_cells(page.data, len(table.primary_key) + len(columns))[len(table.primary_key) :]


def prepare_key_read(
    connection: Connection, table: Table, selections: Sequence[str], move: Move
) -> Any:
    """Prepare the read of single rows by their whole key; names are quoted, times are as given."""
    known = {column.name for column in table.columns}
    selected = ", ".join(quote(name) if name in known else name for name in selections)
    where = " AND ".join(f"{quote(name)} = ?" for name in table.primary_key)
    return connection.prepare(
        f"SELECT {selected} FROM {table.name} WHERE {where}",  # noqa: S608, names are quoted
        retry_seconds=move.retry_seconds,
    )


def organisation_exists(connection: Connection, move: Move, tenant: str) -> bool:
    """Say whether a tenant stands in the table of organisations."""
    table = describe_table(connection, move.organisations)
    if len(table.primary_key) != 1:
        raise PreflightError(
            f"the key of {table.name} has several columns; organisations must name a table whose "
            "key is the organisation's id"
        )
    # By a masked key, nothing is found; no other column is looked at.
    read = table.primary_key
    if masked := validate_masks(connection, table.name, str(connection.settings), read):
        raise PreflightError("; ".join(masked))
    return read_by_key(connection, move, table, (), {table.primary_key[0]: tenant}) is not None


def refuse_missing_tenants(connection: Connection, move: Move) -> None:
    """Refuse a move of or to an organisation that does not exist.

    Raises:
        PreflightError: one sentence.
    """
    missing = [
        f"{name} {quote(tenant)}"
        for name, tenant in (
            ("origin_tenant", move.origin_tenant),
            ("target_tenant", move.target_tenant),
        )
        if not organisation_exists(connection, move, tenant)
    ]
    if missing:
        raise PreflightError(
            f"{move.organisations} has no row for {' and '.join(missing)}; correct the id, or "
            "create the organisation first"
        )
