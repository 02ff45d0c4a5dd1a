"""Single rows of a table, read by their keys."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile, tee

from cassandra.query import PreparedStatement

from migration_platform.cql.names import quote
from migration_platform.cql.rows import Page, split_cells
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.reads import read_rows
from migration_platform.stores.interface import KeyForm, Pace, Selection

NO_ROW = Page(b"", 0, None)


@dataclass(frozen=True)
class KeyedRead:
    """The prepared read of single rows, at a level of consistency."""

    connection: Connection
    statement: PreparedStatement
    keys: KeyForm
    consistency: str

    def bind(self, key: bytes) -> list[bytes | None]:
        """Give what is bound for a row."""
        cells = split_cells(key, self.keys.cells)
        return [cells[position] for position in self.keys.positions]

    def rows(
        self, keys: Iterable[bytes], pace: Pace, *, rejects: bool = False
    ) -> Iterator[tuple[bytes, Page]]:
        """Read rows by their keys, as `KeyReader` says."""
        keys, asked = tee(keys)
        for key, page in read_rows(
            self.connection,
            self.statement,
            ((key, self.bind(key)) for key in keys),
            consistency=self.consistency,
            retry_seconds=pace.retry_seconds,
            on_retry=pace.on_retry,
            on_rejected=None if rejects else lambda key, why: None,
        ):
            yield from ((key, NO_ROW) for key in takewhile(lambda k, key=key: k != key, asked))
            pace.budget.take(1, len(page.data))
            yield key, page
        yield from ((key, NO_ROW) for key in asked)


def prepare_keyed_read(
    connection: Connection,
    selection: Selection,
    keys: KeyForm,
    *,
    consistency: str,
    retry_seconds: float,
) -> KeyedRead:
    """Prepare the read of one row, or of one partition's static cells.

    Raises:
        PermanentError, TransientError: the server refused, its condition maybe, or did not answer.
    """
    table = selection.table
    selected = [*map(quote, selection.columns), *selection.times.selections()]
    if selection.statics:
        # A DISTINCT read has to name the whole partition key.
        selected = list(dict.fromkeys((*selected, *map(quote, table.partition_key))))
    if not selected:
        # A table of keys has no other cell to ask for.
        selected = list(map(quote, selection.key_names))
    condition = " AND ".join(f"{quote(name)} = ?" for name in selection.key_names)
    where = f" AND {selection.where} ALLOW FILTERING" if selection.where else ""
    statement = connection.prepare(
        f"SELECT {'DISTINCT ' if selection.statics else ''}{', '.join(selected)} "  # noqa: S608
        f"FROM {table.name} WHERE {condition}{where}",
        retry_seconds=retry_seconds,
    )
    return KeyedRead(connection, statement, keys, consistency)
