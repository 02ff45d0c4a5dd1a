"""Tables of PostgreSQL: found by name, described by the catalogue, created."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from migration_platform.errors import PreflightError
from migration_platform.stores.interface import OnRetry
from migration_platform.stores.postgres.connection import Postgres, Session, ask_rows
from migration_platform.stores.postgres.declaration import Index
from migration_platform.stores.postgres.names import PgName, quote, quote_name
from migration_platform.stores.postgres.retries import patiently
from migration_platform.stores.postgres.types import PgType, read_types

TEXT = 25
"""The OID of text. https://www.postgresql.org/docs/current/catalog-pg-type.html"""
_DDL_SECONDS = 600.0
_INDEX_SECONDS = 7 * 86_400.0
_WRITABLE_KINDS = {"r": "table", "p": "partitioned table"}
_OTHER_KINDS = {"v": "view", "m": "materialized view", "f": "foreign table", "S": "sequence"}


@dataclass(frozen=True)
class PgColumn:
    """A column as the catalogue tells it.

    `fills_itself` is why the server gives it a value that nobody may write, empty if it does not.
    `folds` is why two texts may be one key to it.
    """

    name: str
    pg_type: PgType
    not_null: bool = False
    has_default: bool = False
    fills_itself: str = ""
    folds: str = ""


@dataclass(frozen=True)
class PgTable:
    """A table that is there.

    `notes` tell what else writes or refuses its rows, one sentence each.
    """

    name: PgName
    oid: int
    database_oid: int
    kind: str
    columns: tuple[PgColumn, ...]
    primary_key: tuple[str, ...]
    notes: tuple[str, ...] = ()
    row_security: bool = False
    estimated_rows: int = 0

    @property
    def table_id(self) -> str:
        """What changes when the table is made anew."""
        return f"{self.database_oid}/{self.oid}"

    def find(self, column: str) -> PgColumn | None:
        """Give a column by its name."""
        return next((each for each in self.columns if each.name == column), None)


def find_table(
    connection: Postgres, name: PgName, *, retry_seconds: float, on_retry: OnRetry
) -> PgTable | None:
    """Give a table as it is; None if there is none of that name.

    Raises:
        PreflightError: it is something that no rows are written to.
        PermanentError, TransientError: the catalogue could not be read.
    """
    session = connection.session("questions")
    return patiently(lambda: _find_table(connection, session, name), retry_seconds, on_retry)


def _find_table(connection: Postgres, session: Session, name: PgName) -> PgTable | None:
    found = _rows(
        session,
        "SELECT c.oid::text, (SELECT oid::text FROM pg_catalog.pg_database"
        " WHERE datname = current_database()), c.relkind::text, c.relrowsecurity::text,"
        " greatest(c.reltuples, 0)::bigint::text"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r','p','v','m','f','S')",
        name.schema,
        name.table,
    )
    if not found:
        return None
    oid, database_oid, kind, row_security, estimated = found[0]
    if kind not in _WRITABLE_KINDS:
        raise PreflightError(
            f"{name} is a {_OTHER_KINDS.get(kind, 'relation')}, to which no rows are copied; name "
            "a table"
        )
    columns = _read_columns(connection, session, oid)
    return PgTable(
        name=name,
        oid=int(oid),
        database_oid=int(database_oid),
        kind=kind,
        columns=columns,
        primary_key=_read_key(session, oid),
        notes=tuple(_read_notes(session, oid)),
        row_security=row_security == "true",
        estimated_rows=int(estimated),
    )


def _read_columns(connection: Postgres, session: Session, oid: str) -> tuple[PgColumn, ...]:
    rows = _rows(
        session,
        "SELECT a.attname::text, a.atttypid::text, a.atttypmod::text, a.attnotnull::text,"
        " a.atthasdef::text, to_jsonb(a) ->> 'attgenerated', to_jsonb(a) ->> 'attidentity',"
        " coalesce((SELECT to_jsonb(l) ->> 'collisdeterministic' FROM pg_catalog.pg_collation l"
        " WHERE l.oid = a.attcollation), 'true')"
        " FROM pg_catalog.pg_attribute a"
        " WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        oid,
    )
    wanted = [(int(row[1]), int(row[2])) for row in rows]
    types = session.lend(lambda connection: read_types(connection, wanted))
    found = []
    for (name, _, _, not_null, has_default, generated, identity, exact), pg_type in zip(
        rows, types, strict=True
    ):
        fills = "it is generated" if generated else ""
        fills = "it is GENERATED ALWAYS AS IDENTITY" if identity == "a" else fills
        folds = "" if exact == "true" else "its collation takes different texts for one"
        is_filled = has_default == "true" or identity == "d"
        found.append(PgColumn(name, pg_type, not_null == "true", is_filled, fills, folds))
    return tuple(found)


def _read_key(session: Session, oid: str) -> tuple[str, ...]:
    rows = _rows(
        session,
        "SELECT a.attname::text FROM pg_catalog.pg_index i,"
        " unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)"
        " JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum"
        " WHERE i.indrelid = $1::oid AND i.indisprimary AND a.attrelid = i.indrelid"
        " ORDER BY k.place",
        oid,
    )
    return tuple(name for (name,) in rows)


def _read_notes(session: Session, oid: str) -> Iterable[str]:
    """Tell what else changes or refuses rows of a table."""
    for name, disabled in _rows(
        session,
        "SELECT tgname::text, (tgenabled = 'D')::text FROM pg_catalog.pg_trigger"
        " WHERE tgrelid = $1::oid AND NOT tgisinternal ORDER BY tgname",
        oid,
    ):
        if disabled != "true":
            yield f"the trigger {quote(name)} runs for each row that is written, and may change it"
    for name, kind, text in _rows(
        session,
        "SELECT conname::text, contype::text, pg_catalog.pg_get_constraintdef(oid)"
        " FROM pg_catalog.pg_constraint WHERE conrelid = $1::oid AND contype IN ('f','u','c','x')"
        " ORDER BY conname",
        oid,
    ):
        verb = "points to rows that have to be there first" if kind == "f" else "may refuse rows"
        yield f"the constraint {quote(name)} {verb}: {text}"
    for (name,) in _rows(
        session,
        "SELECT polname::text FROM pg_catalog.pg_policy WHERE polrelid = $1::oid ORDER BY polname",
        oid,
    ):
        yield f"the policy {quote(name)} of row-level security may refuse rows, or hide them"
    for (name,) in _rows(
        session,
        "SELECT rulename::text FROM pg_catalog.pg_rewrite WHERE ev_class = $1::oid"
        " ORDER BY rulename",
        oid,
    ):
        yield f"the rule {quote(name)} rewrites what is written"


def schemas_of(connection: Postgres, table: str) -> list[str]:
    """Name the schemas that have a table of a name.

    Raises:
        Refusal, LostConnectionError: the catalogue could not be read.
    """
    rows = _rows(
        connection.session("questions"),
        "SELECT n.nspname::text FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = $1 AND c.relkind IN ('r','p') ORDER BY 1",
        table,
    )
    return [name for (name,) in rows]


def has_schema(connection: Postgres, name: str) -> bool:
    """Say whether there is a schema of a name.

    Raises:
        Refusal, LostConnectionError: the catalogue could not be read.
    """
    asked = "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname = $1"
    return bool(_rows(connection.session("questions"), asked, name))


def missing_rights(connection: Postgres, table: PgTable, rights: Sequence[str]) -> list[str]:
    """Give those of some rights on a table that the user does not have.

    Raises:
        Refusal, LostConnectionError: the catalogue could not be read.
    """
    # Rights that are given for each column count as well as one on the table.
    asked = ", ".join(
        f"(pg_catalog.has_any_column_privilege({table.oid}::oid, '{right}'))::text"
        if right != "DELETE"
        else f"(pg_catalog.has_table_privilege({table.oid}::oid, 'DELETE'))::text"
        for right in rights
    )
    (row,) = _rows(connection.session("questions"), f"SELECT {asked}")
    return [right for right, has in zip(rights, row, strict=True) if has != "true"]


def may_make_temporary(connection: Postgres) -> bool:
    """Say whether the user may make temporary tables.

    Raises:
        Refusal, LostConnectionError: the catalogue could not be read.
    """
    asked = "SELECT (pg_catalog.has_database_privilege(current_database(), 'TEMPORARY'))::text"
    return _rows(connection.session("questions"), asked) == [("true",)]


def write_create_table(
    name: PgName,
    columns: Sequence[PgColumn],
    partition_key: Sequence[str],
    clustering: Sequence[tuple[str, bool]],
    *,
    by_hash: bool,
) -> str:
    """Write what creates a table; `clustering` says of each column whether its order descends.

    YugabyteDB distributes rows `by_hash` of the partition key, as Cassandra does. PostgreSQL knows
    no order of a key, and can read one in both directions.
    https://docs.yugabyte.com/stable/api/ysql/the-sql-language/statements/ddl_create_table/
    """
    parts = [
        f"{quote(each.name)} {each.pg_type}" + (" NOT NULL" if each.not_null else "")
        for each in columns
    ]
    partition = ", ".join(map(quote, partition_key))
    key = [partition, *(quote(each) for each, _ in clustering)]
    if by_hash:
        orders = (f"{quote(each)} {'DESC' if down else 'ASC'}" for each, down in clustering)
        key = [f"({partition}) HASH", *orders]
    parts.append(f"PRIMARY KEY ({', '.join(key)})")
    return f"CREATE TABLE IF NOT EXISTS {quote_name(name)} ({', '.join(parts)})"


def create_table(connection: Postgres, name: PgName, statement: str) -> None:
    """Create a table, and its schema where that is missing too.

    Raises:
        Refusal, LostConnectionError: it was refused.
    """
    session = connection.session("questions")
    if not has_schema(connection, name.schema):
        session.run(f"CREATE SCHEMA IF NOT EXISTS {quote(name.schema)}", seconds=_DDL_SECONDS)
    session.run(statement, seconds=_DDL_SECONDS)


def create_index(session: Session, table: PgName, index: Index) -> None:
    """Create an index, unless the table's schema has one of that name; it may take hours.

    Raises:
        Refusal, LostConnectionError: it was refused, or the connection broke.
    """
    unique = "UNIQUE " if index.unique else ""
    using = f"USING {index.method} " if index.method else ""
    columns = ", ".join(map(quote, index.columns))
    session.run(
        f"CREATE {unique}INDEX IF NOT EXISTS {quote(index.name)} ON {quote_name(table)} "
        f"{using}({columns})",
        seconds=_INDEX_SECONDS,
    )


def empty_table(session: Session, name: PgName) -> None:
    """Delete all rows of a table.

    Raises:
        Refusal, LostConnectionError: it was refused.
    """
    session.run(f"TRUNCATE {quote_name(name)}", seconds=_DDL_SECONDS)


def _rows(session: Session, sql: str, *texts: str) -> list[tuple[Any, ...]]:
    return ask_rows(session, sql, [(TEXT, text.encode()) for text in texts])
