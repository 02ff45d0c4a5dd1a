"""What is known of a keyspace when its assets are built: its declaration, and its tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import dagster as dg

from migration_platform.components.keyspace.cutover import MovedTable
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.schema import KeyspaceSchema
from migration_platform.stores.cassandra.schema_differences import Difference
from migration_platform.stores.cassandra.wanted_schema import Wanted

REFRESH = "dg utils refresh-defs-state"


class DeclaredKeyspace(Protocol):
    """What is asked of the declaration of a keyspace: where from, where to, and what is wanted."""

    create: list[str]
    replication: dict[str, Any] | None

    @property
    def origin(self) -> Any:
        """`store` and `keyspace` of the origin."""

    @property
    def target(self) -> Any:
        """`store` of the target."""

    @property
    def target_keyspace(self) -> str:
        """The keyspace at the target."""
        ...

    @property
    def origin_name(self) -> str:
        """The origin as messages name it."""
        ...

    @property
    def target_name(self) -> str:
        """The target as messages name it."""
        ...

    @property
    def asset_group(self) -> str:
        """The group that holds what a launch copies."""
        ...

    @property
    def owners(self) -> Any:
        """Who owns the assets."""

    @property
    def retry_seconds(self) -> float:
        """How long a server that does not answer is asked again."""
        ...

    @property
    def schema_key(self) -> dg.AssetKey:
        """Name the schema's asset."""
        ...

    @property
    def cutover_key(self) -> dg.AssetKey:
        """Name the asset of the cutover."""
        ...

    def read_origin(self, connection: Connection) -> KeyspaceSchema:
        """Read the origin's schema."""
        ...

    def select(self, names: Iterable[str]) -> list[str]:
        """Give the tables that are to be migrated."""
        ...

    def want(
        self, here: KeyspaceSchema, names: Iterable[str]
    ) -> tuple[list[Wanted], list[Difference]]:
        """Say what each table is to be at the target, and which declaration does not fit it."""
        ...


@dataclass(frozen=True)
class KnownTables:
    """What definitions are built from: the origin's tables (None: not asked yet), and the moved."""

    tables: tuple[str, ...] | None
    moved: tuple[MovedTable, ...]
    clashes: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """The tables that are migrated, by their names at the origin."""
        return [table.name for table in self.moved]
