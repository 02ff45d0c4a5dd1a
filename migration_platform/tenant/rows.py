"""One pass over a range of a table: which rows show the origin tenant, and what becomes of them.

A table is read once for its plan and once for its proof, all columns of all rows, as the bytes
that the server sends: the key first, then the columns that a move looks at, then what it never
touches. The same pass finds the rows that change and adds up the digests of everything else.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any

from xxhash import xxh3_64_intdigest, xxh3_128_intdigest

from migration_platform.cql.names import quote
from migration_platform.cql.rows import INT32, Page, compile_splitter, split_cells
from migration_platform.errors import PermanentError, PreflightError
from migration_platform.pacing.rate import RateBudget
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.reads import prepare_range_read, read_pages
from migration_platform.tenant.declaration import Move, TableStep
from migration_platform.tenant.shape import Cells, TableShape, shape_table
from migration_platform.token_ranges import TokenRange


@dataclass(frozen=True)
class PlannedRow:
    """A row that changes: its key, and the watched columns before and after.

    `is_again` says that the row still shows the origin afterwards, as `first` leaves the second.
    `doubles` says that a list then names the target twice. `duplicate_of` is its value by which
    it may be a duplicate.
    """

    id: str
    key: Cells
    before: Cells
    after: Cells
    is_again: bool = False
    doubles: bool = False
    duplicate_of: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the row as one line of a plan."""
        line: dict[str, Any] = {
            "id": self.id,
            "key": cells_to_json(self.key),
            "before": cells_to_json(self.before),
            "after": cells_to_json(self.after),
        }
        if self.is_again:
            line["again"] = True
        if self.doubles:
            line["doubles"] = True
        if self.duplicate_of is not None:
            line["duplicate_of"] = self.duplicate_of.hex()
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "PlannedRow":
        """Read a line of a plan."""
        duplicate_of = line.get("duplicate_of")
        return cls(
            id=line["id"],
            key=cells_from_json(line["key"]),
            before=cells_from_json(line["before"]),
            after=cells_from_json(line["after"]),
            is_again=bool(line.get("again")),
            doubles=bool(line.get("doubles")),
            duplicate_of=None if duplicate_of is None else bytes.fromhex(duplicate_of),
        )


def cells_to_json(cells: Sequence[bytes | None]) -> list[str | None]:
    """Write cells as hex digits: exact for every type."""
    return [None if cell is None else cell.hex() for cell in cells]


def cells_from_json(cells: Sequence[str | None]) -> Cells:
    """Read cells."""
    return tuple(None if cell is None else bytes.fromhex(cell) for cell in cells)


@dataclass(frozen=True)
class VisibleRow:
    """A row that shows the target and does not change; `value` is its one of `duplicates_by`."""

    id: str
    key: bytes
    value: bytes | None

    def to_json(self) -> dict[str, Any]:
        """Give the row as one line."""
        return {"id": self.id, "key": self.key.hex()}


@dataclass
class RangeSums:
    """What a pass over a range found beside the rows that change.

    `sums` are the digests of everything that a move must not touch, by bucket: of rows in the
    plan all but the watched columns, of others all. `visible` are the digests of the keys of rows
    that show the target and are not in the plan.
    """

    rows: int = 0
    bytes_read: int = 0
    visible_rows: int = 0
    sums: Counter[int] = field(default_factory=Counter)
    visible: Counter[int] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Give them as JSON: digests in hex, added up modulo 2^128."""
        return {
            "rows": self.rows,
            "bytes_read": self.bytes_read,
            "visible_rows": self.visible_rows,
            "sums": _sums_to_json(self.sums),
            "visible": _sums_to_json(self.visible),
        }


def _sums_to_json(sums: Mapping[int, int]) -> dict[str, str]:
    return {str(bucket): f"{value % 2**128:x}" for bucket, value in sorted(sums.items())}


def differing_buckets(before: Mapping[str, str], after: Mapping[str, str]) -> frozenset[int]:
    """Give the buckets whose digests are not the same."""
    return frozenset(
        int(bucket)
        for bucket in before.keys() | after.keys()
        if before.get(bucket) != after.get(bucket)
    )


@dataclass(frozen=True)
class RowBytes:
    """A row in a page: `data` holds all of it, its key up to `key_end`."""

    data: bytes
    key_end: int

    @property
    def key(self) -> bytes:
        """The cells of the key, as they stand in the page."""
        return self.data[: self.key_end]


def scan_range(
    connection: Connection,
    move: Move,
    shape: TableShape,
    token_range: TokenRange,
    *,
    times: Sequence[str] = (),
    on_retry: Callable[[BaseException], None] = lambda error: None,
) -> Iterator[RowBytes]:
    """Read a range: each row with all of its columns, and the `times` behind them."""
    read = prepare_range_read(
        connection, shape.table, shape.columns, times=times, retry_seconds=move.retry_seconds
    )
    split = compile_splitter(read.cells, shape.key_size)
    budget = RateBudget(get_context())
    for page in read_pages(
        connection,
        read,
        token_range,
        consistency=move.consistency,
        fetch_size=None,
        budget=budget,
        retry_seconds=move.retry_seconds,
        on_retry=on_retry,
    ):
        yield from _rows_of(page, split)


def _rows_of(page: Page, split: Callable[[bytes, int], Any]) -> Iterator[RowBytes]:
    found = split(page.data, page.row_count)
    data, starts = page.data, found.starts
    for start, key_end, end in zip(starts, found.key_ends, starts[1:], strict=False):
        yield RowBytes(data[start:end], key_end - start)


def plan_range(
    shape: TableShape,
    rows: Iterator[RowBytes],
    sums: RangeSums,
    on_visible: Callable[[VisibleRow], None] = lambda row: None,
) -> Iterator[PlannedRow]:
    """Give the rows of a range that change; `sums` gets what must stay as it is.

    `on_visible` is told of each other row that shows the target already.
    """
    cell_count, key_size = len(shape.columns), shape.key_size
    id_at = shape.columns.index(shape.id_column)
    by = shape.step.duplicates_by
    by_at = None if by is None else shape.columns.index(by)
    origin, target = shape.origin, shape.target
    for row in rows:
        data = row.data
        sums.rows += 1
        sums.bytes_read += len(data)
        # Most rows are of other tenants: without the tenants' bytes anywhere there is no need to
        # look at a cell.
        if origin not in data and target not in data:
            _add(sums, shape, row, data)
            continue
        cells = split_cells(data, cell_count)
        after = shape.changes_of(cells)
        shows_target = shape.shows(target, cells[shape.select_at])
        if after is None:
            _add(sums, shape, row, data)
            if shows_target:
                _add_visible(sums, shape, row)
                on_visible(
                    VisibleRow(
                        id=_id_of(shape, cells[id_at]),
                        key=row.key,
                        value=None if by_at is None else cells[by_at],
                    )
                )
            continue
        before = shape.watched_of(cells)
        if not any(cell is not None for cell in before):
            shown = _id_of(shape, cells[id_at])
            raise PreflightError(
                f"the row {shown} of {shape.table.name} is null in {', '.join(shape.watched)}, so "
                "that no condition could tell whether it still exists; give it a value first"
            )
        _add(sums, shape, row, _without_watched(shape, row))
        changed = [*cells]
        changed[key_size : key_size + len(after)] = after
        yield PlannedRow(
            id=_id_of(shape, cells[id_at]),
            key=tuple(cells[:key_size]),
            before=before,
            after=after,
            is_again=shape.changes_of(changed) is not None,
            doubles=shows_target,
            duplicate_of=None if by_at is None else cells[by_at],
        )


def _id_of(shape: TableShape, cell: bytes | None) -> str:
    """Give a row's id as a line of the id file.

    Raises:
        PermanentError: it would break the line.
    """
    shown = shape.show(shape.id_column, cell)
    if any(character in shown for character in "\n\r") or shown != shown.strip():
        raise PermanentError(
            f"{quote(shape.id_column)} of {shape.table.name} is {shown!r} in a row: no id file can "
            "hold it; name another column in id_column"
        )
    return shown


@dataclass(frozen=True)
class FoundRow:
    """A row that was planned, or that would still change: what it holds in its watched columns."""

    id: str
    key: bytes
    watched: Cells
    would_change: bool


def sum_range(
    shape: TableShape, rows: Iterator[RowBytes], planned: Collection[bytes], sums: RangeSums
) -> Iterator[FoundRow]:
    """Add up a range after a move; gives the rows that are planned, or would still change.

    `planned` are the keys of the plan's rows, as they stand in a page.
    """
    id_at = shape.columns.index(shape.id_column)
    for row in rows:
        data = row.data
        sums.rows += 1
        sums.bytes_read += len(data)
        is_planned = row.key in planned
        _add(sums, shape, row, _without_watched(shape, row) if is_planned else data)
        if not is_planned and shape.origin not in data and shape.target not in data:
            continue
        cells = split_cells(data, len(shape.columns))
        if not is_planned and shape.shows(shape.target, cells[shape.select_at]):
            _add_visible(sums, shape, row)
        would_change = shape.changes_of(cells) is not None
        if is_planned or would_change:
            row_id = _id_of(shape, cells[id_at])
            yield FoundRow(row_id, row.key, shape.watched_of(cells), would_change)


def count_tenants(connection: Connection, move: Move, step: TableStep) -> tuple[int, int]:
    """Count the rows that show the origin now, and those that show the target."""
    shape = shape_table(connection, move, step)
    watched = () if step.select in shape.table.primary_key else (step.select,)
    read = replace(shape, watched=watched, untouched=())
    origin = target = 0
    for token_range in step.ranges:
        for row in scan_range(connection, move, read, token_range):
            cell = split_cells(row.data, len(read.columns))[read.select_at]
            origin += shape.shows(shape.origin, cell)
            target += shape.shows(shape.target, cell)
    return origin, target


def read_ids_of_table(connection: Connection, move: Move, step: TableStep) -> Iterator[str]:
    """Give the ids of all rows of a step's table."""
    shape = shape_table(connection, move, step)
    read = replace(shape, watched=(), untouched=())
    for token_range in step.ranges:
        for row in scan_range(connection, move, read, token_range):
            cells = split_cells(row.data, shape.key_size)
            yield _id_of(shape, cells[shape.columns.index(shape.id_column)])


def bucket_of(shape: TableShape, key: bytes) -> int:
    """Give the bucket of a row, from its key's cells."""
    return xxh3_64_intdigest(key) % shape.buckets


def _add(sums: RangeSums, shape: TableShape, row: RowBytes, content: bytes) -> None:
    sums.sums[bucket_of(shape, row.key)] += xxh3_128_intdigest(content)


def _add_visible(sums: RangeSums, shape: TableShape, row: RowBytes) -> None:
    sums.visible_rows += 1
    sums.visible[bucket_of(shape, row.key)] += xxh3_128_intdigest(row.key)


def _without_watched(shape: TableShape, row: RowBytes) -> bytes:
    """Cut the watched cells out of a row."""
    at = row.key_end
    for _ in shape.watched:
        (size,) = INT32.unpack_from(row.data, at)
        at += 4 + max(size, 0)
    return row.data[: row.key_end] + row.data[at:]
