"""A Neo4j database as a Dagster resource."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from migration_platform.stores.neo4j import Graph, Neo4jSettings


class Neo4jResource(dg.ConfigurableResource):
    """How to reach a Neo4j database. Give the password as an environment variable."""

    uri: str = Field(
        "bolt://127.0.0.1:7687",
        description="bolt://host:port, neo4j:// for a cluster; bolt+s:// or neo4j+s:// for TLS.",
    )
    username: str | None = Field(
        None, description="User name; without one there is no authentication."
    )
    password: str | None = Field(
        None, repr=False, description="Password, from an environment variable."
    )
    database: str | None = Field(None, description="Database; default: the user's own.")

    def to_settings(self) -> "Neo4jSettings":
        """Give the plain settings that any process can connect with.

        Raises:
            PreflightError: the driver is not installed; it names the extra that brings it.
        """
        # The driver takes a third of a second to import, and most projects have no graph.
        from migration_platform.stores.neo4j import Neo4jSettings

        return Neo4jSettings(
            uri=self.uri,
            username=self.username,
            password=self.password,
            database=self.database,
        )

    def connect(self) -> "Graph":
        """Open a connection; close it, or use it as a context manager.

        Raises:
            PreflightError: the driver is not installed, nobody answers, or the server refuses the
                user.
        """
        return self.to_settings().connect()
