"""Ranges of a table, read at a level of consistency: the same for an origin and for a target."""

from collections.abc import Iterator
from dataclasses import dataclass

from migration_platform.cql.rows import Page
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.reads import RangeRead, prepare_range_read, read_pages
from migration_platform.stores.interface import Pace, PieceListener, Selection
from migration_platform.token_ranges import TokenRange


@dataclass(frozen=True)
class CassandraReader:
    """The prepared read of ranges of a table, of an origin or of a target."""

    connection: Connection
    read: RangeRead
    consistency: str
    fetch_size: int | None

    def pages(
        self,
        piece: TokenRange,
        pace: Pace,
        *,
        fetch_size: int | None = None,
        told: PieceListener | None = None,
    ) -> Iterator[Page]:
        """Read a range, as `RangeReader` says."""
        return read_pages(
            self.connection,
            self.read,
            piece,
            consistency=self.consistency,
            fetch_size=fetch_size or self.fetch_size,
            budget=pace.budget,
            retry_seconds=pace.retry_seconds,
            on_retry=pace.on_retry,
            **({} if told is None else vars(told)),
        )


def prepare_reader(
    connection: Connection, plan: Plan, selection: Selection, consistency: str
) -> CassandraReader:
    """Prepare the read of ranges at a level of consistency."""
    read = prepare_range_read(
        connection,
        selection.table,
        selection.columns,
        times=selection.times.selections(),
        where=selection.where,
        statics=selection.statics,
        retry_seconds=plan.migration.retry_seconds,
    )
    return CassandraReader(connection, read, consistency, plan.migration.origin.fetch_size)
