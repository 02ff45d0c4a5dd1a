"""Rows of a DynamoDB table: written as items, and read back as pages of cells.

Everything before and behind works on cells, as with a table of Cassandra.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee

from migration_platform.cql.cell_times import read_row_time
from migration_platform.cql.rows import NULL, Page, join_cells, split_cells
from migration_platform.plan.model import Layer, Plan, Row, Source
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.items import (
    ItemForm,
    UnholdableRow,
    compile_cells,
    compile_item,
    compile_key,
    compile_partition,
    item_size,
    write_units,
)
from migration_platform.stores.dynamodb.reads import get_items, query_items, scan_items
from migration_platform.stores.dynamodb.tables import DynamoTable
from migration_platform.stores.dynamodb.writes import ItemWriter, delete_items
from migration_platform.stores.interface import (
    Cells,
    Deletes,
    KeyForm,
    OnRejected,
    Pace,
    PieceListener,
)
from migration_platform.token_ranges import TokenRange

_SMALL = 1024
"""So many characters of ASCII are never more than one unit: JSON is longer than what it says."""


@dataclass(frozen=True)
class ItemWrites:
    """What is prepared once to write the rows of a layer as items."""

    connection: DynamoDb
    table: DynamoTable
    layer: Layer
    form: ItemForm
    sources: tuple[Source, ...]
    leading: int = 0
    """Items travel together whatever their keys are."""
    null: bytes = NULL

    def open(self, plan: Plan, pace: Pace, on_rejected: OnRejected, *, again: bool) -> "RowWriter":
        """Begin to write; an item that is there already is replaced."""
        del again
        return RowWriter(self, plan, pace, on_rejected)


class RowWriter:
    """Writes rows as items.

    A row that no item can hold, or that is rejected for its values, is handed to `on_rejected`.
    """

    def __init__(self, writes: ItemWrites, plan: Plan, pace: Pace, on_rejected: OnRejected):
        migration, form = plan.migration, writes.form
        self.parts_expired = self.statics_taken = 0
        self._has_rows = writes.layer.name == "rows"
        self._cells = len(form.columns)
        self._values = [at for at, source in enumerate(writes.sources) if not source.is_key]
        self._keys = _key_positions(plan, writes)
        self._rules = plan.rules
        self._to_item = compile_item(form)
        self._on_rejected = on_rejected
        self._expired = 0
        self._ttl_seconds = migration.ttl if isinstance(migration.ttl, int) else None
        self._is_conditional = form.writetime_attribute is not None
        self._items = ItemWriter(
            writes.connection,
            writes.table,
            budget=pace.budget,
            retry_seconds=pace.retry_seconds,
            on_retry=pace.on_retry,
            on_rejected=lambda cells, why: on_rejected(self._key_of(cells), why, True),
            writetime_attribute=form.writetime_attribute,
        )

    @property
    def rows_written(self) -> int:
        """Rows that are acknowledged, or that have expired on their way."""
        return self._items.rows_written + self._expired if self._has_rows else 0

    @property
    def rows_left_alone(self) -> int:
        """Rows of which the table holds a newer item."""
        return self._items.rows_left_alone if self._has_rows else 0

    def write(self, rows: Iterable[Row], page: Page) -> None:
        """Write the rows of a page.

        Raises:
            PermanentError, TransientError: an earlier or one of these rows could not be written.
        """
        keeps, settle, asked_us = self._rules.keeps_times, self._rules.settle, page.asked_us
        for _, values, times, _ in rows:
            cells = split_cells(values, self._cells)
            if not self._has_rows:
                if all(cells[at] is None for at in self._values):
                    continue
                self.statics_taken += 1
            writetime = expires = None
            if keeps:
                writetime, expires = settle(*read_row_time(times, asked_us))
            if self._is_conditional and writetime is None:
                writetime = time.time_ns() // 1000
            if self._ttl_seconds is not None:
                expires = int(time.time()) + self._ttl_seconds
            if expires is not None and expires <= time.time():
                self.parts_expired += 1
                self._expired += 1
                continue
            try:
                text, key = self._to_item(cells, expires, writetime)
            except UnholdableRow as why:
                self._on_rejected(self._key_of(cells), why, True)
                continue
            self._items.write(cells, text, key, units_of(text), writetime)

    def _key_of(self, cells: Cells) -> Cells:
        return [cells[position] for position in self._keys]

    def flush(self) -> None:
        """Wait until every row is acknowledged.

        Raises:
            PermanentError, TransientError: a row could not be written.
        """
        self._items.flush()


def units_of(item_json: str) -> float:
    """Give the write units of an item: one for each begun KB."""
    if len(item_json) <= _SMALL and item_json.isascii():
        return 1
    return write_units(item_size(json.loads(item_json)))


def _key_positions(plan: Plan, writes: ItemWrites) -> list[int]:
    """Say where a row's cells hold the target's key."""
    names = [source.target for source in writes.sources]
    is_rows = writes.layer.name == "rows"
    key = plan.target.primary_key if is_rows else plan.target.partition_key
    return [names.index(name) for name in key]


# -- reading back --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ItemReader:
    """Reads the table's segments, of which there are as many as ranges."""

    connection: DynamoDb
    table: DynamoTable
    form: ItemForm

    def pages(
        self,
        piece: TokenRange,
        pace: Pace,
        *,
        fetch_size: int | None = None,
        told: PieceListener | None = None,
    ) -> Iterator[Page]:
        """Give the rows of the segment with the range's number, expired ones left out.

        Raises:
            PermanentError, TransientError: a page could not be read, or an item is none of a row.
        """
        del fetch_size, told
        read = compile_cells(self.form, now_seconds=time.time)
        for items in scan_items(
            self.connection,
            self.table,
            segment=piece.index,
            total_segments=piece.count,
            budget=pace.budget,
            retry_seconds=pace.retry_seconds,
            on_retry=pace.on_retry,
        ):
            yield _to_page([cells for item in items if (cells := read(item)) is not None])


def _to_page(rows: list[list[bytes | None]]) -> Page:
    data = b"".join(join_cells(cells, NULL) for cells in rows)
    return Page(data, len(rows), None, time.time_ns() // 1000)


@dataclass(frozen=True)
class ItemKeyReader:
    """Reads single items; keys come as the form's first `key_cells` cells."""

    connection: DynamoDb
    table: DynamoTable
    form: ItemForm
    key_cells: int

    def rows(
        self, keys: Iterable[bytes], pace: Pace, *, rejects: bool = False
    ) -> Iterator[tuple[bytes, Page]]:
        """Read rows by their keys, as `KeyReader` says; a key that no item can have has no row.

        Raises:
            PermanentError, TransientError: a row could not be read, or an item is none of a row.
        """
        del rejects
        to_cells = compile_cells(self.form, now_seconds=time.time)
        asked, wanted = tee(self.texts(keys))
        answers = get_items(
            self.connection,
            self.table,
            ((None, text) for _, text in wanted if text is not None),
            budget=pace.budget,
            retry_seconds=pace.retry_seconds,
            on_retry=pace.on_retry,
        )
        for key, text in asked:
            item = None if text is None else next(answers)[1]
            cells = None if item is None else to_cells(item)
            yield key, _to_page([] if cells is None else [cells])

    def texts(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, str | None]]:
        """Give each key as JSON too; None for one that no item can have."""
        to_key = compile_key(self.form)
        names = [column.name for column in self.form.columns[: self.key_cells]]
        places = [names.index(name) for name in self.form.key_columns]
        for key in keys:
            cells = split_cells(key, self.key_cells)
            try:
                yield key, to_key([cells[place] for place in places])
            except UnholdableRow:
                yield key, None


@dataclass(frozen=True)
class ItemQuery:
    """Reads all items of which the first columns of the key are given: `by`, in their order.

    The service looks for the partition key alone; what else is given is looked for here.
    """

    connection: DynamoDb
    table: DynamoTable
    form: ItemForm
    by: tuple[str, ...]
    keys: KeyForm

    def rows(
        self, keys: Iterable[bytes], pace: Pace, *, rejects: bool = False
    ) -> Iterator[tuple[bytes, Page]]:
        """Read the rows of keys, as `KeyReader` says; a key that no item can have has no row.

        Raises:
            PermanentError, TransientError: rows could not be read, or an item is none of a row.
        """
        del rejects
        to_partition = compile_partition(self.form, self.by)
        read = compile_cells(self.form, now_seconds=time.time)
        names = [column.name for column in self.form.columns]
        more = [
            (at, names.index(name), self.form.canonical(self.form.column(name)))
            for at, name in enumerate(self.by)
            if name not in self.form.partition.columns
        ]
        for key in keys:
            found = split_cells(key, self.keys.cells)
            given = [found[position] for position in self.keys.positions]
            try:
                partition = to_partition(given)
                wanted = [
                    (place, canonical(cell) if canonical and cell is not None else cell)
                    for at, place, canonical in more
                    for cell in [given[at]]
                ]
            except (UnholdableRow, ValueError):
                yield key, _to_page([])
                continue
            for items in query_items(
                self.connection,
                self.table,
                partition,
                budget=pace.budget,
                retry_seconds=pace.retry_seconds,
                on_retry=pace.on_retry,
            ):
                rows = [cells for item in items if (cells := read(item)) is not None]
                begun = [r for r in rows if all(r[place] == cell for place, cell in wanted)]
                yield key, _to_page(begun)


@dataclass(frozen=True)
class ItemDeletes(Deletes):
    """Deletes items by their keys; there are no cells to delete: an item is written as a whole."""

    reader: ItemKeyReader

    def delete_rows(self, keys: Iterable[bytes], before_us: int, pace: Pace) -> None:
        """Delete the items of keys; no item tells when it was written, so whatever is there goes.

        Raises:
            PermanentError, TransientError: an item could not be deleted.
        """
        del before_us
        delete_items(
            self.reader.connection,
            self.reader.table,
            (text for _, text in self.reader.texts(keys) if text is not None),
            budget=pace.budget,
            retry_seconds=pace.retry_seconds,
            on_retry=pace.on_retry,
        )
