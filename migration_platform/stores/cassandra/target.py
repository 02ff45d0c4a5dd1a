"""Cassandra as a target: what `stores.interface.Target` asks, answered by a cluster."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from migration_platform.declaration.migration import Migration
from migration_platform.plan.model import Layer, Plan, Source, Table
from migration_platform.stores.cassandra.access import validate_writes
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.deletes import CellDeletes, prepare_deletes
from migration_platform.stores.cassandra.keyed_reads import KeyedRead, NeighboursRead, prepare_keys
from migration_platform.stores.cassandra.layer_writes import CellWrites, prepare_layer
from migration_platform.stores.cassandra.masks import validate_masks
from migration_platform.stores.cassandra.placement import validate_place
from migration_platform.stores.cassandra.range_reads import CassandraReader, prepare_reader
from migration_platform.stores.cassandra.tables import describe_table, truncate
from migration_platform.stores.interface import (
    KeyForm,
    Origin,
    Pace,
    Selection,
    Target,
    Uses,
)


@dataclass(frozen=True)
class CassandraTarget(Target):
    """A cluster that is written."""

    connection: Connection

    def find_table(self, migration: Migration) -> tuple[Table, list[str]]:
        """Describe the table; refuse one that takes no writes, or a level beyond its replicas."""
        endpoint = migration.target
        table = describe_table(self.connection, endpoint.table)
        return table, validate_place(self.connection, table, endpoint, is_target=True)

    def shape(self, migration: Migration, origin: Table, found: Table | None) -> Table | None:
        """Give the table as it is."""
        del migration, origin
        return found

    def validate(self, plan: Plan, origin: Origin, found: Table) -> list[str]:
        """Refuse masked columns, and a target that is the origin itself."""
        del found
        there, store = self.connection, plan.migration.target.store
        written = {source.target for layer in plan.layers for source in layer.sources}
        wrong = validate_masks(there, plan.target.name, store, written)
        here = origin.connection
        # A restored snapshot may share the table's id with its source, but never the hosts' ids.
        if (
            isinstance(here, Connection)
            and plan.origin.table_id == plan.target.table_id
            and here.host_ids & there.host_ids
        ):
            wrong.append(
                f"origin and target are one table, {plan.origin.name}: the stores "
                f"{plan.migration.origin.store} and {store} are the same cluster"
            )
        return wrong

    def validate_use(self, plan: Plan, uses: Uses) -> Iterator[str]:
        """Ask for every kind of read and write that the run needs."""
        return validate_writes(plan, self.connection, uses)

    def create(self, plan: Plan, report: Callable[[str], None]) -> None:
        """Do nothing: a table that is missing has no plan."""

    def empty(self, plan: Plan, pace: Pace) -> None:
        """Truncate the table; no budget holds that back."""
        del pace
        truncate(self.connection, plan.target.name)

    def prepare_writes(self, plan: Plan, layer: Layer) -> CellWrites:
        """Prepare the writes of a layer's rows."""
        return prepare_layer(self.connection, plan, layer)

    def prepare_ranges(self, plan: Plan, selection: Selection) -> CassandraReader:
        """Prepare the read of ranges."""
        level = plan.migration.target.consistency
        return prepare_reader(self.connection, plan, selection, level)

    def prepare_keys(
        self, plan: Plan, selection: Selection, keys: KeyForm
    ) -> KeyedRead | NeighboursRead:
        """Prepare the read of single rows."""
        return prepare_keys(
            self.connection,
            selection,
            keys,
            consistency=plan.migration.target.consistency,
            retry_seconds=plan.migration.retry_seconds,
        )

    def prepare_deletes(
        self,
        plan: Plan,
        selection: Selection,
        keys: KeyForm,
        values: Sequence[tuple[int, Source]],
    ) -> CellDeletes:
        """Prepare the deletion of rows, and of cells and elements."""
        return prepare_deletes(self.connection, plan, selection, keys, values)
