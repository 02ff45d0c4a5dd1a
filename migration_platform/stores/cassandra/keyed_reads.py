"""Single rows of a table, read by their keys, or all rows that begin with a part of one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile, tee

from cassandra.query import PreparedStatement

from migration_platform.cql.names import quote
from migration_platform.cql.rows import (
    INT32,
    NULL,
    Page,
    Split,
    compile_splitter,
    join_cells,
    split_cells,
)
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.reads import read_rows
from migration_platform.stores.interface import KeyForm, Pace, Selection

NO_ROW = Page(b"", 0, None)
KEYS_A_REQUEST = 16
"""So many rows of one partition are asked for by one request; they may be large."""
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


@dataclass(frozen=True)
class NeighboursRead:
    """The prepared read of rows of which neighbours lie in one partition: those by one request.

    `single` reads them one by one: where the server rejects a key, or gives one back in other
    bytes. `split` finds the rows of an answer, and in each where the clustering columns begin.
    """

    single: KeyedRead
    statement: PreparedStatement
    partition: int
    split: Callable[[bytes, int], Split]

    def rows(
        self, keys: Iterable[bytes], pace: Pace, *, rejects: bool = False
    ) -> Iterator[tuple[bytes, Page]]:
        """Read rows by their keys, as `KeyReader` says."""
        groups, asked = tee(self._groups(keys))
        single = self.single
        answers = read_rows(
            single.connection,
            self.statement,
            ((group, self._bind(group)) for group in groups),
            consistency=single.consistency,
            retry_seconds=pace.retry_seconds,
            on_retry=pace.on_retry,
            on_rejected=lambda group, why: None,
        )
        for group, page in answers:
            for other in asked:
                if other is group:
                    break
                yield from single.rows(other.keys, pace, rejects=rejects)
            found = self._cut(group, page)
            if found is None:
                yield from single.rows(group.keys, pace, rejects=rejects)
                continue
            pace.budget.take(len(group.keys), len(page.data))
            nothing = replace(page, data=b"", row_count=0)
            for key, clustering in zip(group.keys, group.clustering, strict=True):
                yield key, found.get(clustering, nothing)
        for other in asked:
            yield from single.rows(other.keys, pace, rejects=rejects)

    def _groups(self, keys: Iterable[bytes]) -> Iterator["_Neighbours"]:
        """Gather keys that follow each other and lie in one partition."""
        group: _Neighbours | None = None
        for key in keys:
            cells = self.single.bind(key)
            partition, clustering = cells[: self.partition], cells[self.partition :]
            joined = join_cells(clustering, NULL)
            full = group is not None and len(group.keys) >= KEYS_A_REQUEST
            if group is None or full or group.partition != partition:
                if group is not None:
                    yield group
                group = _Neighbours(partition, [], [])
            group.keys.append(key)
            group.clustering.append(joined)
        if group is not None:
            yield group

    def _bind(self, group: "_Neighbours") -> list[bytes | None]:
        one = len(self.single.keys.positions) == self.partition + 1
        # Of several columns each element is a tuple: their cells with their lengths.
        parts = group.clustering if one else [_sized(cells) for cells in group.clustering]
        return [*group.partition, INT32.pack(len(parts)) + b"".join(parts)]

    def _cut(self, group: "_Neighbours", page: Page) -> dict[bytes, Page] | None:
        """Give the row of each key that is there; None if one is none of those asked for."""
        if not page.row_count:
            return {}
        starts, ends, *_ = self.split(page.data, page.row_count)
        found = {
            page.data[end:last]: Page(page.data[start:end], 1, None, page.asked_us)
            for start, end, last in zip(starts, ends, starts[1:], strict=False)
        }
        return found if found.keys() <= set(group.clustering) else None


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """Keys of one partition, and the cells of their clustering columns."""

    partition: list[bytes | None]
    keys: list[bytes]
    clustering: list[bytes]


def _sized(cells: bytes) -> bytes:
    return INT32.pack(len(cells)) + cells


def prepare_neighbours_read(
    single: KeyedRead, selection: Selection, *, retry_seconds: float
) -> NeighboursRead | None:
    """Prepare the read of several rows of a partition by one request; None where that cannot be.

    Raises:
        PermanentError, TransientError: the server did not answer.
    """
    table = selection.table
    partition, clustering = table.partition_key, table.clustering_columns
    if selection.statics or selection.by or selection.where or not clustering:
        return None
    if single.consistency in ("SERIAL", "LOCAL_SERIAL"):
        return None
    selected = [*map(quote, selection.columns), *selection.times.selections()]
    names = ", ".join(map(quote, clustering))
    condition = " AND ".join(f"{quote(name)} = ?" for name in partition)
    left = names if len(clustering) == 1 else f"({names})"
    statement = single.connection.prepare(
        f"SELECT {', '.join(selected + list(map(quote, clustering)))} "  # noqa: S608
        f"FROM {table.name} WHERE {condition} AND {left} IN ?",
        retry_seconds=retry_seconds,
    )
    split = compile_splitter(len(selected) + len(clustering), len(selected))
    return NeighboursRead(single, statement, len(partition), split)


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


def prepare_keys(
    connection: Connection,
    selection: Selection,
    keys: KeyForm,
    *,
    consistency: str,
    retry_seconds: float,
) -> KeyedRead | NeighboursRead:
    """Prepare the read of rows by their keys, those of a partition together where that may be.

    Raises:
        PermanentError, TransientError: the server refused, its condition maybe, or did not answer.
    """
    single = prepare_keyed_read(
        connection, selection, keys, consistency=consistency, retry_seconds=retry_seconds
    )
    if not selection.together:
        return single
    several = prepare_neighbours_read(single, selection, retry_seconds=retry_seconds)
    return several or single
