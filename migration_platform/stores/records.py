"""Tables of this package's own, in a keyspace of their own: made on demand, never changed.

What is known of runs, and the dead letters, are kept in a Cassandra cluster, whatever kinds of
stores rows go between.
"""

# The driver has no type hints: pyright infers wrong types from its attributes' first values.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false
# pyright: reportOptionalSubscript=false

from collections.abc import Mapping
from dataclasses import dataclass

from cassandra import InvalidRequest

from migration_platform.cql.names import TableName, quote
from migration_platform.errors import MigrationError, PreflightError
from migration_platform.pacing.retries import ask_patiently
from migration_platform.stores.cassandra.connection import Connection

Records = Connection
"""The open connection to the cluster that keeps records."""


@dataclass(frozen=True)
class TableForm:
    """A table of this package's own: its columns with their types, and its key as CQL."""

    columns: Mapping[str, str]
    key: str
    options: str = ""


def ensure_tables(
    connection: Connection,
    keyspace: str,
    tables: Mapping[str, TableForm],
    *,
    like: str,
    retry_seconds: float,
) -> None:
    """Make what is missing of the keyspace, the tables and their columns; else send nothing.

    A keyspace that is made is replicated as `like` is.

    Raises:
        PreflightError: the server refused; one sentence with the way out.
    """
    keyspaces = connection.cluster.metadata.keyspaces
    statements: list[str] = []
    found = keyspaces.get(keyspace)
    if found is None:
        strategy = keyspaces[like].replication_strategy.export_for_schema()
        statements.append(
            f"CREATE KEYSPACE IF NOT EXISTS {quote(keyspace)} WITH replication = {strategy}"
        )
    for name, form in tables.items():
        there = found.tables.get(name) if found else None
        full_name = TableName(keyspace, name)
        if there is None:
            columns = ", ".join(f"{column} {kind}" for column, kind in form.columns.items())
            options = f" WITH {form.options}" if form.options else ""
            statements.append(
                f"CREATE TABLE IF NOT EXISTS {full_name} ({columns}, PRIMARY KEY ({form.key}))"
                + options
            )
            continue
        statements += [
            f"ALTER TABLE {full_name} ADD {column} {kind}"
            for column, kind in form.columns.items()
            if column not in there.columns
        ]
    for statement in statements:
        _define(connection, keyspace, statement, retry_seconds)


def _define(connection: Connection, keyspace: str, statement: str, retry_seconds: float) -> None:
    def send() -> None:
        try:
            connection.session.execute(statement, timeout=30)
        except InvalidRequest as error:
            # Another run may have added the same column meanwhile.
            if not (statement.startswith("ALTER") and "exist" in str(error)):
                raise

    try:
        ask_patiently(send, retry_seconds)
    except MigrationError as failure:
        raise refusal(keyspace, str(failure)) from failure


def refusal(keyspace: str, reason: str) -> PreflightError:
    """Say that runs cannot be tracked in a keyspace, and what helps."""
    return PreflightError(
        f"cannot keep track of runs in the keyspace {quote(keyspace)}: {reason}; "
        "grant its user CREATE, ALTER, SELECT and MODIFY there, name another one in "
        "tracking_keyspace, or set tracking: false"
    )
