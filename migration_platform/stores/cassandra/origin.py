"""Cassandra as an origin: what `stores.interface.Origin` asks, answered by a cluster."""

from collections.abc import Iterator
from dataclasses import dataclass

from migration_platform.declaration.migration import Endpoint
from migration_platform.plan.analysis import Analysis
from migration_platform.plan.model import Plan, Table
from migration_platform.stores.cassandra.access import validate_reads
from migration_platform.stores.cassandra.analysis import analyse_table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.keyed_reads import KeyedRead, NeighboursRead, prepare_keys
from migration_platform.stores.cassandra.origin_validation import (
    validate_masked_columns,
    validate_ring,
    validate_where,
)
from migration_platform.stores.cassandra.placement import validate_place
from migration_platform.stores.cassandra.range_reads import CassandraReader, prepare_reader
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.stores.cassandra.transactions import finish_transactions, keyed_level
from migration_platform.stores.interface import KeyForm, Origin, Pace, Selection, Uses
from migration_platform.token_ranges import TokenRange


@dataclass(frozen=True)
class CassandraOrigin(Origin):
    """A cluster that is read."""

    connection: Connection

    def find_table(self, endpoint: Endpoint) -> tuple[Table, list[str]]:
        """Describe a table; refuse a level that its replicas cannot reach, and foreign hashes."""
        table = describe_table(self.connection, endpoint.table)
        wrong = validate_place(self.connection, table, endpoint, is_target=False)
        return table, [*wrong, *validate_ring(endpoint, table)]

    def validate(self, plan: Plan) -> list[str]:
        """Let the server look at the user's condition, and find columns that it would mask."""
        return [
            *validate_where(plan, self.connection),
            *validate_masked_columns(plan, self.connection),
        ]

    def validate_use(self, plan: Plan, uses: Uses) -> Iterator[str]:
        """Ask for every kind of read that the run needs."""
        return validate_reads(plan, self.connection, uses)

    def analyse(self, table: Table, endpoint: Endpoint, pace: Pace) -> Analysis:
        """Read a sample of the table, and what its servers estimate."""
        return analyse_table(self.connection, table, endpoint, pace)

    def begin_range(self, plan: Plan, piece: TokenRange, pace: Pace) -> None:
        """Finish lightweight transactions that clients left unfinished, where that is declared."""
        finish_transactions(self.connection, plan, piece, pace)

    def prepare_ranges(self, plan: Plan, selection: Selection) -> CassandraReader:
        """Prepare the read of ranges."""
        level = plan.migration.origin.consistency
        return prepare_reader(self.connection, plan, selection, level)

    def prepare_keys(
        self, plan: Plan, selection: Selection, keys: KeyForm
    ) -> KeyedRead | NeighboursRead:
        """Prepare the read of single rows."""
        return prepare_keys(
            self.connection,
            selection,
            keys,
            consistency=keyed_level(plan),
            retry_seconds=plan.migration.retry_seconds,
        )
