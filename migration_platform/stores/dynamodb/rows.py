"""Rows of a DynamoDB table: written as items, and read back as pages of cells.

Everything before and behind works on cells, as with a table of Cassandra.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from migration_platform.cql.rows import NULL, Page, join_cells, split_cells
from migration_platform.stores.cassandra.writes import Item, OnRefused
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.items import (
    ItemForm,
    UnholdableRow,
    compile_cells,
    compile_item,
    compile_key,
    item_size,
    write_units,
)
from migration_platform.stores.dynamodb.reads import get_items, scan_items
from migration_platform.stores.dynamodb.tables import DynamoTable, describe
from migration_platform.stores.dynamodb.writes import ItemWriter, delete_items
from migration_platform.stores.work import OpenStores
from migration_platform.token_ranges import TokenRange

OnRetry = Callable[[BaseException], None]
ROWS_A_PAGE = 500
_SMALL = 1024
"""So many characters of ASCII are never more than one unit: JSON is longer than what it says."""


def open_table(stores: OpenStores) -> tuple[DynamoDb, DynamoTable]:
    """Give the connection to the target, and its table as it is; it is described once a process.

    Raises:
        PreflightError: there is no such table any more.
    """
    connection = stores.target
    assert isinstance(connection, DynamoDb)
    table = stores.cache.get("dynamodb table")
    if table is None:
        migration = stores.plan.migration
        table = describe(
            connection, migration.target.table.table, retry_seconds=migration.retry_seconds
        )
        stores.cache["dynamodb table"] = table
    return connection, table


class RowWriter:
    """Writes rows as items; it has the shape of Cassandra's `Writer`.

    With `has_rows` off, what is written are static cells and counts as no rows. A row that no
    item can hold, or that is refused for its values, is handed to `on_refused`.
    """

    def __init__(
        self,
        stores: OpenStores,
        form: ItemForm,
        *,
        on_retry: OnRetry,
        on_refused: OnRefused,
        has_rows: bool = True,
    ):
        migration = stores.plan.migration
        connection, table = open_table(stores)
        self.parts_expired = 0
        self._has_rows = has_rows
        self._cells = len(form.columns)
        self._to_item = compile_item(form)
        self._on_refused = on_refused
        self._expired = 0
        self._ttl_seconds = migration.ttl if isinstance(migration.ttl, int) else None
        self._is_conditional = form.writetime_attribute is not None
        self._items = ItemWriter(
            connection,
            table,
            budget=stores.target_budget,
            retry_seconds=migration.retry_seconds,
            on_retry=on_retry,
            on_refused=lambda item, why: on_refused(item, True, why),
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

    def write_group(self, items: Sequence[Item], routing_key: bytes | None) -> None:
        """Write some rows; `routing_key` says nothing here.

        Raises:
            PermanentError, TransientError: an earlier or this row could not be written.
        """
        for item in items:
            values, writetime, expires = item, None, None
            if not isinstance(item, bytes):
                (part,) = item
                values, (writetime, expires) = part.values, part.time
            assert isinstance(values, bytes)
            if self._is_conditional and writetime is None:
                writetime = time.time_ns() // 1000
            if self._ttl_seconds is not None:
                expires = int(time.time()) + self._ttl_seconds
            if expires is not None and expires <= time.time():
                self.parts_expired += 1
                self._expired += 1
                continue
            try:
                text, key = self._to_item(split_cells(values, self._cells), expires, writetime)
            except UnholdableRow as why:
                self._on_refused(item, True, why)
                continue
            self._items.write(item, text, key, units_of(text), writetime)

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


# -- reading back --------------------------------------------------------------------------------


def scan_pages(
    stores: OpenStores,
    form: ItemForm,
    segment: TokenRange,
    on_retry: OnRetry,
) -> Iterator[Page]:
    """Give the rows of one of the table's segments, expired ones left out.

    Raises:
        PermanentError, TransientError: a page could not be read, or an item is none of a row.
    """
    connection, table = open_table(stores)
    read = compile_cells(form, now_seconds=time.time)
    for items in scan_items(
        connection,
        table,
        segment=segment.index,
        total_segments=segment.count,
        budget=stores.target_read_budget,
        retry_seconds=stores.plan.migration.retry_seconds,
        on_retry=on_retry,
    ):
        yield _to_page([cells for item in items if (cells := read(item)) is not None])


def _to_page(rows: list[list[bytes | None]]) -> Page:
    data = b"".join(join_cells(cells, NULL) for cells in rows)
    return Page(data, len(rows), None, time.time_ns() // 1000)


@dataclass(frozen=True)
class ItemRead:
    """The read of single items of a form; keys come as the form's first `key_cells` cells."""

    form: ItemForm
    key_cells: int


def read_rows(
    stores: OpenStores, read: ItemRead, keys: Sequence[bytes], on_retry: OnRetry
) -> Iterator[tuple[bytes, Page]]:
    """Read single rows by their keys, in the given order; one that is not there has an empty page.

    A key that no item can have is one without a row.

    Raises:
        PermanentError, TransientError: a row could not be read.
    """
    connection, table = open_table(stores)
    to_cells = compile_cells(read.form, now_seconds=time.time)
    texts = list(_key_texts(read, keys))
    answers = get_items(
        connection,
        table,
        ((None, text) for text in texts if text is not None),
        budget=stores.target_read_budget,
        retry_seconds=stores.plan.migration.retry_seconds,
        on_retry=on_retry,
    )
    for key, text in zip(keys, texts, strict=True):
        item = None if text is None else next(answers)[1]
        cells = None if item is None else to_cells(item)
        yield key, _to_page([] if cells is None else [cells])


def find_pages(
    stores: OpenStores, read: ItemRead, keys: Iterable[bytes], on_retry: OnRetry
) -> Iterator[Page]:
    """Give the rows of those keys that have one, expired ones left out.

    Raises:
        PermanentError, TransientError: a row could not be read, or an item is none of a row.
    """
    connection, table = open_table(stores)
    to_cells = compile_cells(read.form, now_seconds=time.time)
    rows: list[list[bytes | None]] = []
    for _, item in get_items(
        connection,
        table,
        ((None, text) for text in _key_texts(read, keys) if text is not None),
        budget=stores.target_read_budget,
        retry_seconds=stores.plan.migration.retry_seconds,
        on_retry=on_retry,
    ):
        cells = None if item is None else to_cells(item)
        if cells is not None:
            rows.append(cells)
        if len(rows) == ROWS_A_PAGE:
            yield _to_page(rows)
            rows = []
    if rows:
        yield _to_page(rows)


def _key_texts(read: ItemRead, keys: Iterable[bytes]) -> Iterator[str | None]:
    to_key = compile_key(read.form)
    names = [column.name for column in read.form.columns[: read.key_cells]]
    places = [names.index(name) for name in read.form.key_columns]
    for key in keys:
        cells = split_cells(key, read.key_cells)
        try:
            yield to_key([cells[place] for place in places])
        except UnholdableRow:
            yield None


def delete_rows(
    stores: OpenStores, read: ItemRead, keys: Sequence[bytes], on_retry: OnRetry
) -> None:
    """Delete the items of keys; one that is not there any more is deleted.

    Raises:
        PermanentError, TransientError: an item could not be deleted.
    """
    connection, table = open_table(stores)
    delete_items(
        connection,
        table,
        (text for text in _key_texts(read, keys) if text is not None),
        budget=stores.target_budget,
        retry_seconds=stores.plan.migration.retry_seconds,
        on_retry=on_retry,
    )
