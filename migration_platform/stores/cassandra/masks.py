"""Masked columns: what a role without UNMASK reads of them is not what the table holds.

Cassandra masks since 5.0, and only what is read: a copy by such a role would write `****` over
every value, and a comparison would find both sides alike. Permissions in Cassandra belong to whole
tables, and no role has a filter of its own: masks are all by which two readers see other rows.
"""

from collections.abc import Container

from cassandra import InvalidRequest, Unauthorized
from cassandra.protocol import SyntaxException
from cassandra.query import PreparedStatement

from migration_platform.cql.names import TableName, quote
from migration_platform.errors import PermanentError, PreflightError, explain
from migration_platform.stores.cassandra.connection import Connection, near_hosts


def validate_masks(
    connection: Connection, name: TableName, store: str, read: Container[str] | None = None
) -> list[str]:
    """Refuse masked columns whose values the connection's role is not shown.

    `read` are the columns that matter, by default all.

    Raises:
        PreflightError: the server did not say which columns are masked.
    """
    masked = [c for c in find_masked(connection, name) if read is None or c in read]
    if not masked:
        return []
    about = (
        f"{name} at {store} has masked columns ({', '.join(map(quote, masked))}), "
        "and masks would be taken for their values"
    )
    role = connection.settings.username
    if role is None:
        return [] if _is_anonymous(connection) else [f"{about}: {_NO_NAME}"]
    grant = f"GRANT UNMASK ON TABLE {name} TO {quote(role)}"
    try:
        allowed = _may_unmask(connection, name, role)
    except (InvalidRequest, Unauthorized) as error:
        return [
            f"{about}: whether {quote(role)} may read them cannot be told ({explain(error)}); let "
            "a role that may list its own permissions, or a superuser, do this"
        ]
    except Exception as error:
        raise PreflightError(
            f"cannot read the permissions of {quote(role)} at {connection.settings}: "
            f"{explain(error)}"
        ) from error
    if not allowed:
        return [f"{about}: {grant}"]
    late = _hosts_that_mask(connection, name, masked)
    if late:
        return [
            f"{about}: {quote(role)} may read them, but {', '.join(late)} does not know it yet; "
            "servers keep permissions for as long as their permissions_validity says, so try "
            "again after that"
        ]
    return []


_MASKS = (
    "SELECT column_name FROM system_schema.column_masks "
    "WHERE keyspace_name = %s AND table_name = %s"
)
_NO_NAME = (
    "which role the client's certificate stands for cannot be told; give the store a username and "
    "a password, of a role with UNMASK on the table"
)


def find_masked(connection: Connection, name: TableName) -> tuple[str, ...]:
    """Give the masked columns of a table or a view; none where servers know no masks.

    Raises:
        PreflightError: the server did not say.
    """
    try:
        rows = connection.session.execute(_MASKS, (name.keyspace, name.table))
        return tuple(row[0] for row in rows)
    except (InvalidRequest, SyntaxException):
        # Before Cassandra 5.0 there is no such table.
        return ()
    except Exception as error:
        raise PreflightError(
            f"cannot read the schema at {connection.settings}: {explain(error)}"
        ) from error


def _is_anonymous(connection: Connection) -> bool:
    """Say whether the server lets everybody in; such a server checks no permissions either."""
    try:
        connection.session.execute("LIST ROLES")
    except Unauthorized as error:
        return "anonymous" in str(error)
    except Exception as error:
        raise PreflightError(
            f"cannot read the roles at {connection.settings}: {explain(error)}"
        ) from error
    return False


def _may_unmask(connection: Connection, name: TableName, role: str) -> bool:
    """Ask what a role may: all may list what they have themselves, or inherit."""
    session = connection.session
    try:
        # With those that it inherits from; any superuser among them makes it one.
        roles = session.execute(f"LIST ROLES OF {quote(role)}")
        if any(row[roles.column_names.index("super")] for row in roles):
            return True
        # With what is given on the keyspace, on all tables in it, and on all keyspaces.
        granted = session.execute(f"LIST UNMASK ON TABLE {name} OF {quote(role)}")
        return any("UNMASK" in row for row in granted)
    except (InvalidRequest, Unauthorized) as error:
        # Where everybody is let in, or may do all, nothing is masked.
        if "anonymous" in str(error) or "AllowAllAuthorizer" in str(error):
            return True
        raise


def _hosts_that_mask(connection: Connection, name: TableName, masked: list[str]) -> list[str]:
    """Give the hosts to which a permission that was just given is not known yet.

    A condition on a masked column needs UNMASK, or SELECT_MASKED; that is checked before the null
    that is bound here, so that nothing is read.
    """
    statement = _prepare_condition(connection, name, masked)
    if statement is None:
        return []
    late = []
    for host in near_hosts(connection):
        try:
            connection.session.execute(statement, [None], host=host)
        except Unauthorized:
            late.append(host.address)
        except Exception:  # noqa: S112, the null is refused, and a node that is down answers nothing
            continue
    return late


def _prepare_condition(
    connection: Connection, name: TableName, masked: list[str]
) -> PreparedStatement | None:
    """Prepare a condition on a masked column; an unfrozen user-defined type allows none."""
    for column in masked:
        for operator in ("=", "CONTAINS"):
            try:
                return connection.prepare(
                    f"SELECT {quote(column)} FROM {name} "  # noqa: S608
                    f"WHERE {quote(column)} {operator} ? ALLOW FILTERING"
                )
            except PermanentError:
                continue
    return None
