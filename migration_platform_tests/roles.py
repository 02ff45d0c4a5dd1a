"""Roles with exactly the permissions that a test names, on servers that check them."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from migration_platform.cql.names import TableName
from migration_platform.errors import PreflightError
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform_tests.dagster_project import wait_until
from migration_platform_tests.tables import create_keyspace

CHECKING = {
    "dynamic_data_masking_enabled": True,
    "materialized_views_enabled": True,
    # What a server knows of permissions it keeps as long as on large clusters.
    "permissions_validity": "1h",
    "roles_validity": "1h",
}
"""Settings of a server that checks permissions and masks columns."""


@dataclass(frozen=True)
class Roles:
    """A keyspace of one test, the connection of a superuser, and roles that are made in turn."""

    admin: Connection
    keyspace: str
    stack: ExitStack

    def execute(self, cql: str) -> None:
        """Let the superuser execute a statement: {ks} is the keyspace."""
        self.admin.session.execute(cql.replace("{ks}", self.keyspace), timeout=60)

    def make(self, table: str, body: str) -> TableName:
        """Make a table from all that stands in the parentheses of its CREATE TABLE."""
        name = TableName(self.keyspace, table)
        self.execute(f"CREATE TABLE {name} ({body})")
        return name

    def new_role(self, *grants: str, options: str = "") -> CassandraSettings:
        """Make a role: each grant is what stands between GRANT and TO; {ks} is the keyspace.

        A server keeps what it once knew of a role, so that a role of one test serves no other.
        """
        name = f"r_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE ROLE {name} WITH PASSWORD = '{name}' AND LOGIN = true{options}")
        for grant in grants:
            self.execute(f"GRANT {grant} TO {name}")
        return replace(self.admin.settings, username=name, password=name)

    def connect(self, *grants: str, options: str = "") -> Connection:
        """Connect as a new role."""
        return self.stack.enter_context(Connection(self.new_role(*grants, options=options)))


@contextmanager
def roles_of(server: Running) -> Iterator[Roles]:
    """Give a keyspace and its superuser, for the length of a `with` block."""
    settings = CassandraSettings(port=server.port, username="cassandra", password="cassandra")
    with ExitStack() as stack:
        admin = stack.enter_context(wait_until(lambda: _first(settings), 60, "the first role"))
        keyspace = f"t_{uuid.uuid4().hex[:12]}"
        create_keyspace(admin, keyspace)
        yield Roles(admin, keyspace, stack)
        admin.session.execute(f"DROP KEYSPACE {keyspace}", timeout=60)


def _first(settings: CassandraSettings) -> Connection | None:
    """Connect, unless the server's first role is not there yet."""
    try:
        return Connection(settings)
    except PreflightError:
        return None
