"""What a target's columns and key are where the declaration alone makes them."""

from typing import Any

from migration_platform.cql.types import parse_type
from migration_platform.declaration.columns import Columns
from migration_platform.plan.model import Table

_CONSTANTS = ((bool, "boolean"), (int, "bigint"), (float, "double"))


def filled_columns(columns: Columns, origin: Table) -> dict[str, tuple[str, bool]]:
    """Give CQL type and staticness of each column that something fills, in the origin's order."""
    explode, extract = columns.explode_map, columns.extract_json
    found: dict[str, tuple[str, bool]] = {}
    for column in origin.columns:
        is_key = column.name in origin.primary_key
        left_out = column.name in columns.skip or (explode and column.name == explode.column)
        if left_out or (extract and extract.exclusive and not is_key):
            continue
        if extract and column.name == extract.column and column.name not in columns.rename:
            continue
        name = columns.rename.get(column.name, column.name)
        found[name] = column.cql_type, column.is_static
    if explode and explode.column in {column.name for column in origin.columns}:
        kind = parse_type(origin.type_of(explode.column))
        if kind.name == "map":
            found[explode.key], found[explode.value] = (
                (str(part), False) for part in kind.parameters
            )
    for name in extract.properties.values() if extract else ():
        found[name] = "text", False
    for name, value in columns.constants.items():
        found[name] = _type_of_constant(value), False
    return found


def _type_of_constant(value: Any) -> str:
    return next((name for kind, name in _CONSTANTS if isinstance(value, kind)), "text")


def filled_key(columns: Columns, origin: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give partition key and clustering columns as the origin's, under their new names."""
    rename = columns.rename
    partition, clustering = (
        tuple(rename.get(name, name) for name in names)
        for names in (origin.partition_key, origin.clustering_columns)
    )
    explode = columns.explode_map
    return partition, (*clustering, explode.key) if explode else clustering
