"""What a move makes of a cell: the target tenant, a constant, or a value of another row."""

from collections.abc import Callable

from migration_platform.cql.conversion import sort_elements
from migration_platform.cql.elements import read_elements, write_elements
from migration_platform.cql.names import quote
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.cql.values import encode_value, show_value
from migration_platform.errors import PreflightError
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.masks import validate_masks
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.tenant.declaration import Change, Lookup, Move
from migration_platform.tenant.key_reads import read_by_key


def compile_change(
    connection: Connection,
    move: Move,
    table: Table,
    change: Change,
    looked_up: dict[str, str],
) -> Callable[[bytes | None], bytes | None]:
    """Build what a change makes of a cell."""
    cql_type = parse_type(table.type_of(change.column))
    if cql_type.name == "counter":
        raise PreflightError("a counter cannot be set")
    if change.lookup is not None:
        cell, shown = _look_up(connection, move, change.lookup, cql_type)
        looked_up[change.column] = shown
        return lambda before: cell
    if change.constant is not None:
        constant = encode_value(change.constant, cql_type)
        return lambda before: constant
    if change.replace == "value":
        origin = encode_value(move.origin_tenant, cql_type)
        target = encode_value(move.target_tenant, cql_type)
        return lambda before: target if before == origin else before
    if cql_type.name not in ("list", "set"):
        raise PreflightError(
            f"replace: {change.replace} is for lists and sets, and this is {cql_type}; write "
            "replace: value"
        )
    kind = cql_type.parameters[0]
    origin = encode_value(move.origin_tenant, kind)
    target = encode_value(move.target_tenant, kind)
    most = 1 if change.replace == "first" else None

    def replace_elements(before: bytes | None) -> bytes | None:
        if before is None:
            return None
        elements, left = [], most
        for element in read_elements(before):
            if element == origin and left != 0:
                element, left = target, None if left is None else left - 1
            elements.append(element)
        if cql_type.name == "list":
            return write_elements(elements)
        # A set holds a value once.
        return sort_elements(write_elements(list(dict.fromkeys(elements))), cql_type)

    return replace_elements


def _look_up(
    connection: Connection, move: Move, lookup: Lookup, wanted: CqlType
) -> tuple[bytes, str]:
    """Read the value that a lookup names, as a cell and for people.

    Raises:
        PreflightError: there is no such row, or it has no value.
    """
    table = describe_table(connection, lookup.table)
    key = lookup.key or {table.primary_key[0]: move.target_tenant}
    known = [column.name for column in table.columns]
    if set(key) != set(table.primary_key):
        raise PreflightError(
            f"lookup.key must give the key of {table.name} values: "
            f"{', '.join(map(quote, table.primary_key))}"
        )
    if lookup.column not in known:
        raise PreflightError(
            f"{table.name} has no column {quote(lookup.column)}; valid are "
            f"{', '.join(map(quote, known))}"
        )
    if (
        table.type_of(lookup.column) != str(wanted)
        and parse_type(table.type_of(lookup.column)) != wanted
    ):
        raise PreflightError(
            f"{quote(lookup.column)} of {table.name} is {table.type_of(lookup.column)}, and "
            f"{wanted} is needed"
        )
    read = {lookup.column, *key}
    if masked := validate_masks(connection, table.name, str(connection.settings), read):
        raise PreflightError("; ".join(masked))
    where = " and ".join(f"{quote(name)} = {value!r}" for name, value in key.items())
    found = read_by_key(connection, move, table, (lookup.column,), key)
    if found is None:
        raise PreflightError(f"{table.name} has no row with {where} to look a value up in")
    if found[0] is None:
        raise PreflightError(
            f"{quote(lookup.column)} is null in the row of {table.name} with {where}; it would be "
            "written as null: set it first"
        )
    return found[0], show_value(found[0], wanted)
