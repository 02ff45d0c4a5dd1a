"""A Cassandra cluster as a Dagster resource."""

from typing import ClassVar

import dagster as dg
from pydantic import Field

from migration_platform.stores.cassandra.connection import (
    CassandraSettings,
    Connection,
    TlsSettings,
)


class TlsFiles(dg.Config):
    """Files in PEM form; a store that has this block speaks TLS only."""

    ca_file: str | None = Field(None, description="Trusted authorities; default: the system's.")
    certificate_file: str | None = Field(None, description="The client's own certificate.")
    key_file: str | None = Field(None, description="The key of the client's certificate.")
    check_hostname: bool = Field(True, description="Whether the server's name must match.")


class CassandraResource(dg.ConfigurableResource):
    """How to reach a Cassandra cluster. Give the password as an environment variable."""

    kind: ClassVar[str] = "cassandra"

    contact_points: list[str] = Field(["127.0.0.1"], description="Hosts to begin with.")
    port: int = Field(9042, description="Port of the native protocol.")
    local_datacenter: str | None = Field(
        None, description="Datacenter to stay in; default: the first contact point's."
    )
    username: str | None = Field(None, description="User name, where the cluster asks for one.")
    password: str | None = Field(
        None, repr=False, description="Password, from an environment variable."
    )
    tls: TlsFiles | None = Field(None, description="TLS files; without them the line is plain.")

    def to_settings(self) -> CassandraSettings:
        """Give the plain settings that any process can connect with."""
        return CassandraSettings(
            contact_points=tuple(self.contact_points),
            port=self.port,
            local_datacenter=self.local_datacenter,
            username=self.username,
            password=self.password,
            tls=TlsSettings(**self.tls.model_dump()) if self.tls else None,
        )

    def connect(self) -> Connection:
        """Open a connection; close it, or use it as a context manager.

        Raises:
            PreflightError: nobody answers, or the server refuses the user.
        """
        return Connection(self.to_settings())
