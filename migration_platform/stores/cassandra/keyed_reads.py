"""Single rows of a table, read by their keys, or all rows that begin with a part of one."""

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
ROWS_A_PAGE = 200
"""Small pages: the first ones of many keys are on their way together, and rows may be large."""


@dataclass(frozen=True)
class KeyedRead:
    """The prepared read of single rows, at a level of consistency."""

    connection: Connection
    statement: PreparedStatement
    keys: KeyForm
    consistency: str
    page_rows: int | None = None
    """How many rows a page has, where a key stands for many."""

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
            page_rows=self.page_rows,
        ):
            yield from ((key, NO_ROW) for key in takewhile(lambda k, key=key: k != key, asked))
            pace.budget.take(1 if self.page_rows is None else page.row_count, len(page.data))
            yield key, page
            if page.next_state is not None:
                yield from ((key, each) for each in self._more(key, page.next_state, pace))
        yield from ((key, NO_ROW) for key in asked)

    def _more(self, key: bytes, state: bytes | None, pace: Pace) -> Iterator[Page]:
        """Give the pages of a key behind its first one, each when it is asked for."""
        while state is not None:
            ((_, page),) = read_rows(
                self.connection,
                self.statement,
                [(key, self.bind(key))],
                consistency=self.consistency,
                retry_seconds=pace.retry_seconds,
                on_retry=pace.on_retry,
                page_rows=self.page_rows,
                state=state,
            )
            pace.budget.take(page.row_count, len(page.data))
            yield page
            state = page.next_state


def prepare_keyed_read(
    connection: Connection,
    selection: Selection,
    keys: KeyForm,
    *,
    consistency: str,
    retry_seconds: float,
) -> KeyedRead:
    """Prepare the read of one row, of one partition's static cells, or of a part of a partition.

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
    page_rows = ROWS_A_PAGE if selection.by else None
    return KeyedRead(connection, statement, keys, consistency, page_rows)
