"""Reads the schema of a whole keyspace: its tables, types, views and options.

It comes from the servers' own `system_schema`, whose words for types and options are CQL again.
"""

# The driver has no type hints: pyright infers wrong types from its attributes' first values.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from migration_platform.cql.names import quote
from migration_platform.errors import PermanentError, PreflightError
from migration_platform.pacing.retries import ask_patiently
from migration_platform.stores.cassandra.connection import MURMUR3, Connection
from migration_platform.stores.cassandra.left_behind import Statement, make_index, make_view

_NO_OPTIONS = frozenset(
    # The first three identify the row; flags and extensions no CQL can set; the last two are gone
    # since Cassandra 4.0, though their columns are still there.
    "keyspace_name table_name id flags extensions dclocal_read_repair_chance read_repair_chance".split()  # noqa: E501, SIM905
)
"""Columns of `system_schema.tables` that are no options of a table."""
_KIND_ORDER = {"partition_key": 0, "clustering": 1, "static": 2, "regular": 3}


@dataclass(frozen=True)
class ColumnSchema:
    """A column as `system_schema` describes it; `kind` is its word there."""

    name: str
    cql_type: str
    kind: str = "regular"
    position: int = -1
    descending: bool = False


@dataclass(frozen=True)
class TableSchema:
    """A table: key columns first and in their order, options by their CQL names."""

    name: str
    columns: tuple[ColumnSchema, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    is_compact: bool = False
    """Made WITH COMPACT STORAGE: part of what it shows cannot be declared in CQL."""

    def of_kind(self, kind: str) -> tuple[ColumnSchema, ...]:
        """Give the columns of one kind, in order."""
        return tuple(column for column in self.columns if column.kind == kind)


@dataclass(frozen=True)
class KeyspaceSchema:
    """All that a keyspace holds; `others` are things with a kind and a name that do not move."""

    name: str
    replication: Mapping[str, str]
    durable_writes: bool
    types: Mapping[str, tuple[tuple[str, str], ...]]
    tables: Mapping[str, TableSchema]
    views: Mapping[str, str]
    """View to the table that it shows."""
    others: tuple[str, ...] = ()
    statements: Mapping[str, Statement] = field(default_factory=dict)
    """How its views and indexes are made, by what they are called here."""


def read_schema(connection: Connection, keyspace: str) -> KeyspaceSchema | None:
    """Read all of a keyspace's schema; None if there is no such keyspace.

    Raises:
        MigrationError: the server did not answer or refused.
        PreflightError: its partitioner is not Murmur3.
    """
    partitioner = _query(connection, "SELECT partitioner FROM system.local")[0]["partitioner"]
    if partitioner != MURMUR3:
        raise PreflightError(
            f"the cluster at {connection.settings} uses {partitioner.rpartition('.')[2]}; "
            "token ranges need Murmur3Partitioner"
        )
    found = _rows(connection, "keyspaces", keyspace)
    if not found:
        return None
    replication = dict(found[0]["replication"])
    replication["class"] = replication.get("class", "").rpartition(".")[2]
    columns: dict[str, list[ColumnSchema]] = {}
    for row in _rows(connection, "columns", keyspace):
        columns.setdefault(row["table_name"], []).append(_to_column(row))
    indexes, views = (_rows(connection, what, keyspace) for what in ("indexes", "views"))
    return KeyspaceSchema(
        name=keyspace,
        replication=replication,
        durable_writes=found[0]["durable_writes"] is not False,
        types={
            row["type_name"]: tuple(zip(row["field_names"], row["field_types"], strict=True))
            for row in _rows(connection, "types", keyspace)
        },
        tables={
            row["table_name"]: _to_table(row, columns.get(row["table_name"], []))
            for row in _rows(connection, "tables", keyspace)
        },
        views={row["view_name"]: row["base_table_name"] for row in views},
        others=(*map(_name_index, indexes), *_read_others(connection, keyspace)),
        statements={
            **{_name_index(row): make_index(row) for row in indexes},
            **{
                f"view {quote(row['view_name'])}": make_view(row, columns.get(row["view_name"], []))
                for row in views
            },
        },
    )


def _to_column(row: Mapping[str, Any]) -> ColumnSchema:
    return ColumnSchema(
        name=row["column_name"],
        cql_type=row["type"],
        kind=row["kind"],
        position=row["position"],
        descending=str(row["clustering_order"]).lower() == "desc",
    )


def _to_table(row: Mapping[str, Any], columns: Iterable[ColumnSchema]) -> TableSchema:
    flags = row.get("flags")
    return TableSchema(
        name=row["table_name"],
        columns=in_order(columns),
        options={
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in row.items()
            if name not in _NO_OPTIONS and value is not None
        },
        is_compact=flags is not None
        and ("compound" not in flags or bool({"dense", "super"} & set(flags))),
    )


def in_order(columns: Iterable[ColumnSchema]) -> tuple[ColumnSchema, ...]:
    """Put key columns first, in the key's order, and all others by name."""
    return tuple(sorted(columns, key=lambda c: (_KIND_ORDER[c.kind], c.position, c.name)))


def _name_index(row: Mapping[str, Any]) -> str:
    return f"index {quote(row['index_name'])} of {quote(row['table_name'])}"


def _read_others(connection: Connection, keyspace: str) -> Iterator[str]:
    for table, column, kind in (
        ("functions", "function_name", "function"),
        ("aggregates", "aggregate_name", "aggregate"),
    ):
        for row in _rows(connection, table, keyspace):
            yield f"{kind} {quote(row[column])}({', '.join(row['argument_types'] or ())})"
    for row in _rows(connection, "triggers", keyspace):
        yield f"trigger {quote(row['trigger_name'])} of {quote(row['table_name'])}"
    # Only Cassandra 5.0 has masks.
    for row in _rows(connection, "column_masks", keyspace, may_lack=True):
        yield f"mask of {quote(row['table_name'])}.{quote(row['column_name'])}"


def _rows(
    connection: Connection, table: str, keyspace: str, *, may_lack: bool = False
) -> list[dict[str, Any]]:
    try:
        return _query(
            connection,
            f"SELECT * FROM system_schema.{table} WHERE keyspace_name = %s",  # noqa: S608
            (keyspace,),
        )
    except PermanentError:
        if may_lack:
            return []
        raise


def _query(connection: Connection, cql: str, values: tuple = ()) -> list[dict[str, Any]]:

    def ask() -> list[dict[str, Any]]:
        result = connection.session.execute(cql, values)
        names = result.column_names
        return [dict(zip(names, row, strict=True)) for row in result]

    return ask_patiently(ask, 15.0, f"cannot read the schema at {connection.settings}")


def write_literal(value: Any) -> str:
    """Write the value of an option as CQL does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        entries = (
            f"{write_literal(str(k))}: {write_literal(str(v))}" for k, v in sorted(value.items())
        )
        return f"{{{', '.join(entries)}}}"
    return "'" + str(value).replace("'", "''") + "'"


def read_hosts(connection: Connection) -> dict[str, int]:
    """Count the hosts of each datacenter."""
    counts: dict[str, int] = {}
    for host in connection.cluster.metadata.all_hosts():
        counts[str(host.datacenter)] = counts.get(str(host.datacenter), 0) + 1
    return counts


def read_known_options(connection: Connection) -> frozenset[str]:
    """Give the options that the server's tables have."""
    rows = _query(connection, "SELECT * FROM system_schema.tables LIMIT 1")
    return frozenset(rows[0]) - _NO_OPTIONS if rows else frozenset()


# -- comparing ---------------------------------------------------------------------------------
