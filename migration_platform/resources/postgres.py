"""PostgreSQL, or YugabyteDB by YSQL, as a Dagster resource."""

from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from migration_platform.stores.postgres.connection import Postgres, PostgresSettings


class PostgresResource(dg.ConfigurableResource):
    """How to reach PostgreSQL or YugabyteDB. Give the password as an environment variable."""

    kind: ClassVar[str] = "postgres"

    hosts: list[str] = Field(
        ["127.0.0.1"], description="Hosts that are tried in turn until one takes writes."
    )
    port: int = Field(5432, description="Port; YugabyteDB's own is 5433.")
    database: str = Field("postgres", description="Database.")
    username: str | None = Field(None, description="User name; default: the process's own.")
    password: str | None = Field(
        None, repr=False, description="Password, from an environment variable."
    )
    db_schema: str = Field(
        "public", description="Schema of tables that are named without one.", alias="schema"
    )
    sslmode: str = Field(
        "prefer", description="disable, prefer, require, verify-ca or verify-full."
    )
    ca_file: str | None = Field(None, description="Trusted authorities, in PEM form.")
    certificate_file: str | None = Field(None, description="The client's own certificate.")
    key_file: str | None = Field(None, description="The key of the client's certificate.")
    connect_timeout_seconds: int = Field(10, description="How long one host is waited for.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of libpq or the server by name, as statement_timeout: 60s.",
    )

    def to_settings(self) -> "PostgresSettings":
        """Give the plain settings that any process can connect with.

        Raises:
            PreflightError: the driver is not installed; it names the extra that brings it.
        """
        # Most projects have no PostgreSQL, and need no driver of it.
        from migration_platform.stores.postgres.connection import PostgresSettings

        return PostgresSettings(
            hosts=tuple(self.hosts),
            port=self.port,
            database=self.database,
            username=self.username,
            password=self.password,
            schema=self.db_schema,
            sslmode=self.sslmode,
            ca_file=self.ca_file,
            certificate_file=self.certificate_file,
            key_file=self.key_file,
            connect_timeout_seconds=self.connect_timeout_seconds,
            options={name: _to_text(value) for name, value in self.options.items()},
        )

    def connect(self) -> "Postgres":
        """Open a connection; close it, or use it as a context manager.

        Raises:
            PreflightError: the driver is not installed, nobody answers, or the server refuses the
                user.
        """
        return self.to_settings().connect()


def _to_text(value: Any) -> str:
    """Write a setting as libpq and the server read it: YAML makes numbers and booleans of some."""
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
