"""What a target's tables are to be: their names, columns and key, and the types that they need."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from migration_platform.cql.names import quote
from migration_platform.errors import PreflightError
from migration_platform.stores.cassandra.schema import ColumnSchema, TableSchema, in_order

_WORD = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")+\"|[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Wanted:
    """A table of the origin and what it is to be at the target.

    `expected` is None where the declaration (a codec, a JSON column, ...) makes columns of types
    that only the user knows; `because` names it then. It `may_lack` columns that only the origin
    has, where the declaration leaves them out.
    """

    origin: str
    target: str
    expected: TableSchema | None
    because: str = ""
    may_lack: bool = False


def change_table(
    table: TableSchema,
    *,
    name: str,
    rename: Mapping[str, str],
    skip: Collection[str],
    partition_key: Sequence[str] | None = None,
    clustering_columns: Sequence[str] | None = None,
) -> TableSchema:
    """Give a table as the target is to have it: other names, fewer columns, another key.

    Key columns go by the target's names; a clustering column may be followed by ASC or DESC.
    Without `clustering_columns` whatever else was part of the key clusters.

    Raises:
        PreflightError: the key names a column that the table does not have.
    """
    columns = [
        replace(column, name=rename.get(column.name, column.name))
        for column in table.columns
        if column.name not in skip
    ]
    if partition_key is None and clustering_columns is None:
        return replace(table, name=name, columns=in_order(columns))
    by_name = {column.name: column for column in columns}
    key: dict[str, ColumnSchema] = {}
    partition = list(partition_key or [c.name for c in columns if c.kind == "partition_key"])
    clustering = list(clustering_columns or ())
    if clustering_columns is None:
        # What was part of the key stays part of it, so that rows stay apart.
        clustering = [
            column.name + " DESC" * column.descending
            for kind in ("partition_key", "clustering")
            for column in columns
            if column.kind == kind and column.name not in partition
        ]
    unknown = []
    for kind, names in (("partition_key", partition), ("clustering", clustering)):
        for position, text in enumerate(names):
            column_name, descending = _split_order(text) if kind == "clustering" else (text, False)
            column = by_name.get(column_name)
            if column is None:
                unknown.append(column_name)
            else:
                key[column_name] = replace(
                    column, kind=kind, position=position, descending=descending
                )
    if unknown:
        raise PreflightError(
            f"the key of {quote(name)} names {', '.join(map(quote, unknown))}; valid are "
            f"{', '.join(quote(column.name) for column in columns)}"
        )
    for column in columns:
        if column.name not in key:
            was_key = column.kind in ("partition_key", "clustering")
            kind = "regular" if was_key else column.kind
            key[column.name] = replace(column, kind=kind, position=-1, descending=False)
    return replace(table, name=name, columns=in_order(key.values()))


def _split_order(text: str) -> tuple[str, bool]:
    found = re.fullmatch(r"(.+?)\s+(ASC|DESC)", text.strip(), re.IGNORECASE | re.DOTALL)
    return (found[1], found[2].upper() == "DESC") if found else (text, False)


def types_in_order(
    types: Mapping[str, tuple[tuple[str, str], ...]], tables: Iterable[TableSchema]
) -> list[str]:
    """Give the user-defined types that tables need, each after those that it is made of."""
    ordered: dict[str, None] = {}

    def add(cql_type: str) -> None:
        for name in _types_named(cql_type, types):
            if name not in ordered:
                for _, inner in types[name]:
                    add(inner)
                ordered[name] = None

    for table in tables:
        for column in table.columns:
            add(column.cql_type)
    return list(ordered)


def _types_named(cql_type: str, types: Collection[str]) -> list[str]:
    words = (
        word[1:-1].replace('""', '"') if word.startswith('"') else word
        for word in _WORD.findall(cql_type)
        if not word.startswith("'")
    )
    return [word for word in words if word in types]
