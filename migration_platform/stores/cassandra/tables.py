"""What is asked of a Cassandra about its tables; nothing is changed but by truncate."""

# The driver has no type hints: pyright infers wrong types from its attributes' first values.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false
# pyright: reportOptionalSubscript=false

import difflib
import re

from cassandra.metadata import KeyspaceMetadata, TableMetadata

from migration_platform.cql.names import TableName, quote
from migration_platform.cql.types import parse_type
from migration_platform.errors import (
    MigrationError,
    PermanentError,
    PreflightError,
    explain,
    is_transient,
)
from migration_platform.plan.model import Column, Table
from migration_platform.stores.cassandra.connection import MURMUR3, Connection
from migration_platform.token_ranges import token_of_key


def describe_table(connection: Connection, name: TableName) -> Table:
    """Read a table's schema from the server.

    Raises:
        PreflightError: the keyspace or table is missing (the message lists the ones there are),
            or the cluster's partitioner is not Murmur3.
    """
    metadata = connection.cluster.metadata
    partitioner = _ask(connection, "SELECT partitioner FROM system.local")[0]
    if partitioner != MURMUR3:
        raise PreflightError(
            f"the cluster at {connection.settings} uses {partitioner.rpartition('.')[2]}; "
            "token ranges need Murmur3Partitioner"
        )
    keyspace = metadata.keyspaces.get(name.keyspace)
    if keyspace is None:
        known = [k for k in metadata.keyspaces if not k.startswith("system")]
        raise PreflightError(
            f"there is no keyspace {quote(name.keyspace)} at {connection.settings}; "
            f"there {_are(known, name.keyspace)}"
        )
    table = keyspace.tables.get(name.table) or keyspace.views.get(name.table)
    if table is None:
        raise PreflightError(
            f"there is no table {name} at {connection.settings}; "
            f"in the keyspace there {_are(list(keyspace.tables), name.table)}"
        )
    return _to_table(connection, name, keyspace, table)


def _ask(connection: Connection, cql: str, values: tuple = ()) -> tuple:
    try:
        return connection.session.execute(cql, values).one() or ("",)
    except Exception as error:
        raise PreflightError(
            f"cannot read the schema at {connection.settings}: {explain(error)}"
        ) from error


def _to_table(
    connection: Connection, name: TableName, keyspace: KeyspaceMetadata, table: TableMetadata
) -> Table:
    view = keyspace.views.get(name.table)
    kind = "views" if view else "tables"
    column = "view_name" if kind == "views" else "table_name"
    found = _ask(
        connection,
        f"SELECT id FROM system_schema.{kind} WHERE keyspace_name = %s AND {column} = %s",  # noqa: S608
        (name.keyspace, name.table),
    )
    multicell = [
        quote(c.name)
        for c in table.columns.values()
        if parse_type(expand_type(c.cql_type, keyspace)).is_multicell
    ]
    return Table(
        name=name,
        table_id=str(found[0]),
        columns=tuple(
            Column(c.name, expand_type(c.cql_type, keyspace), bool(c.is_static))
            for c in table.columns.values()
        ),
        partition_key=tuple(c.name for c in table.partition_key),
        clustering_columns=tuple(c.name for c in table.clustering_key),
        default_ttl_seconds=int(table.options.get("default_time_to_live") or 0),
        tells_elements=not multicell or _tells_elements(connection, name, multicell[0]),
        is_murmur3=_is_murmur3(connection),
        view_of=TableName(name.keyspace, view.base_table_name) if view else None,
        descending=tuple(c.name for c in table.clustering_key if c.is_reversed),
    )


def _is_murmur3(connection: Connection) -> bool:
    """Let the server hash a key that every one has."""
    try:
        found = connection.session.execute("SELECT token(key) FROM system.local").one()
    except Exception as error:
        if is_transient(error):
            raise PreflightError(
                f"cannot read the schema at {connection.settings}: {explain(error)}"
            ) from error
        return False
    return found is not None and found[0] == token_of_key(b"local")


def _tells_elements(connection: Connection, name: TableName, column: str) -> bool:
    try:
        connection.prepare(f"SELECT writetime({column}), ttl({column}) FROM {name}")  # noqa: S608
    except PermanentError:
        return False
    return True


def expand_type(cql_type: str, keyspace: KeyspaceMetadata) -> str:
    """Write user-defined types as their fields, so that equal text means equal bytes."""

    def fields_of(found: re.Match) -> str:
        name = found[0]
        plain = name[1:-1].replace('""', '"') if name.startswith('"') else name
        user_type = keyspace.user_types.get(plain)
        if user_type is None:
            return name
        fields = zip(user_type.field_names, user_type.field_types, strict=True)
        inner = ", ".join(f"{quote(n)} {expand_type(str(t), keyspace)}" for n, t in fields)
        return f"{{{inner}}}"

    # A vector's class name stands in single quotes in old releases; the words in it are no types.
    return re.sub(r'"(?:[^"]|"")+"|[A-Za-z_][A-Za-z0-9_]*', fields_of, cql_type)


def _are(names: list[str], wanted: str) -> str:
    if not names:
        return "are none"
    close = difflib.get_close_matches(wanted, names, n=3) or sorted(names)
    shown = ", ".join(quote(n) for n in close[:10])
    more = f" and {len(names) - 10} more" if len(close) > 10 else ""
    return f"are {len(names)}, among them {shown}{more}" if len(names) > 1 else f"is {shown}"


def truncate(connection: Connection, name: TableName) -> None:
    """Empty a table.

    Raises:
        MigrationError: the server refused or did not answer.
    """
    try:
        # A truncation waits for every node, and for a snapshot where servers take one.
        connection.session.execute(f"TRUNCATE {name}", timeout=120)
    except Exception as error:
        raise MigrationError(f"cannot truncate {name}: {explain(error)}") from error
