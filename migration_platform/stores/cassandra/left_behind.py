"""Indexes and views, which are not migrated, as the statements that make them anew."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from migration_platform.cql.names import TableName, quote


@dataclass(frozen=True)
class Statement:
    """How an index or a view of `table` is made, of these columns.

    In `parts` texts take turns with names of tables and views, which have no keyspace yet.
    """

    table: str
    columns: frozenset[str]
    parts: tuple[str, ...]

    def write(self, keyspace: str, table: str) -> str:
        """Give the statement for a keyspace where the table may have another name."""
        return "".join(
            str(TableName(keyspace, table if part == self.table else part)) if at % 2 else part
            for at, part in enumerate(self.parts)
        )


def make_index(row: Mapping[str, Any]) -> Statement:
    """Read how an index is made from its row in `system_schema`."""
    options = dict(row["options"] or {})
    target = options.pop("target", "")
    column = target.partition("(")[2].rstrip(")") if "(" in target else target
    name = column[1:-1].replace('""', '"') if column.startswith('"') else column
    kind, using = "", ""
    if row["kind"] == "CUSTOM":
        kind = "CUSTOM "
        using = f" USING {_text(options.pop('class_name', ''))}"
        if options:
            entries = (f"{_text(k)}: {_text(v)}" for k, v in sorted(options.items()))
            using += f" WITH OPTIONS = {{{', '.join(entries)}}}"
    # A column without quotes that needs them: the server keeps some targets as they are.
    written = target if column.startswith('"') else target.replace(column, quote(column))
    return Statement(
        row["table_name"],
        frozenset({name}),
        (
            f"CREATE {kind}INDEX {quote(row['index_name'])} ON ",
            row["table_name"],
            f" ({written}){using}",
        ),
    )


def make_view(row: Mapping[str, Any], columns: Iterable[Any]) -> Statement:
    """Read how a view is made from its row in `system_schema` and its columns."""
    columns = list(columns)
    partition, clustering = (
        sorted((c for c in columns if c.kind == kind), key=lambda c: c.position)
        for kind in ("partition_key", "clustering")
    )
    key = ", ".join((f"({_names(partition)})", *(quote(c.name) for c in clustering)))
    chosen = "*" if row["include_all_columns"] else _names(columns)
    order = ", ".join(f"{quote(c.name)} {'DESC' if c.descending else 'ASC'}" for c in clustering)
    ordered = f" WITH CLUSTERING ORDER BY ({order})" if clustering else ""
    return Statement(
        row["base_table_name"],
        frozenset(c.name for c in columns),
        (
            "CREATE MATERIALIZED VIEW ",
            row["view_name"],
            f" AS SELECT {chosen} FROM ",  # noqa: S608, names are quoted
            row["base_table_name"],
            f" WHERE {row['where_clause']} PRIMARY KEY ({key}){ordered}",
        ),
    )


def _names(columns: Iterable[Any]) -> str:
    return ", ".join(quote(column.name) for column in columns)


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
