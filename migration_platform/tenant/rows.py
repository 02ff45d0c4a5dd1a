"""Which rows of a table show the origin tenant, and what becomes of them.

A table is read once for its plan and once for its proof, all columns of all rows, as the bytes
that the server sends: the key first, then the columns that a move looks at, then what it never
touches. The same pass finds the rows that change and adds up the digests of everything else.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context
from typing import Any

from xxhash import xxh3_64_intdigest, xxh3_128_intdigest

from migration_platform.comparing.digest import buckets_per_range
from migration_platform.cql.conversion import sort_elements
from migration_platform.cql.elements import read_elements, write_elements
from migration_platform.cql.names import quote
from migration_platform.cql.rows import INT32, Page, compile_splitter, split_cells
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.cql.values import encode_value, show_value
from migration_platform.errors import PermanentError, PreflightError
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.masks import object_to_masks
from migration_platform.stores.cassandra.placement import object_to_view
from migration_platform.stores.cassandra.reads import prepare_range_read, read_pages, read_rows
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.tenant.declaration import Change, Lookup, Move, TableStep
from migration_platform.token_ranges import TokenRange

Cells = tuple[bytes | None, ...]
_KEY = "the primary key"


@dataclass(frozen=True)
class TableShape:
    """A step held against its table: what is read in which order, and the tenants as cells.

    Attributes:
        watched: The columns that a move looks at: `select`, then those that change.
        untouched: All others, but the key.
        names: Whether `select` holds several tenants, as a list or set.
        origin: The origin tenant as a cell, or as an element where `select` holds several.
        after: What of the watched cells each change makes, in the order of the changes.
    """

    step: TableStep
    table: Table
    watched: tuple[str, ...]
    untouched: tuple[str, ...]
    names: bool
    origin: bytes
    target: bytes
    after: tuple[Callable[[bytes | None], bytes | None], ...]
    id_column: str
    looked_up: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns in the order in which they are read."""
        return (*self.table.primary_key, *self.watched, *self.untouched)

    @cached_property
    def key_size(self) -> int:
        """How many cells the key has."""
        return len(self.table.primary_key)

    @cached_property
    def select_at(self) -> int:
        """Where `select` stands in a row."""
        return self.columns.index(self.step.select)

    @cached_property
    def changed_at(self) -> tuple[int, ...]:
        """Where the columns that change stand among the watched ones."""
        return tuple(self.watched.index(name) for name in self.step.changed)

    @cached_property
    def buckets(self) -> int:
        """How many digests a range has."""
        return buckets_per_range(self.step.token_ranges)

    def type_of(self, column: str) -> CqlType:
        """Give a column's type."""
        return parse_type(self.table.type_of(column))

    def show(self, column: str, cell: bytes | None) -> str:
        """Give a cell for people."""
        return "null" if cell is None else show_value(cell, self.type_of(column))

    def shows(self, tenant: bytes, cell: bytes | None) -> bool:
        """Say whether a cell of `select` shows a tenant."""
        if cell is None:
            return False
        return tenant in read_elements(cell) if self.names else cell == tenant

    def watched_of(self, cells: Sequence[bytes | None]) -> Cells:
        """Give the watched cells of a row whose cells have the order of `columns`."""
        return tuple(cells[self.key_size : self.key_size + len(self.watched)])

    def changes_of(self, cells: Sequence[bytes | None]) -> Cells | None:
        """Give what the watched cells become in a row that shows the origin; None if no change.

        `cells` are the row's, in the order of `columns`.
        """
        if not self.shows(self.origin, cells[self.select_at]):
            return None
        before = self.watched_of(cells)
        after = [*before]
        for at, change in zip(self.changed_at, self.after, strict=True):
            after[at] = change(before[at])
        return None if tuple(after) == before else tuple(after)


def shape_table(connection: Connection, move: Move, step: TableStep) -> TableShape:
    """Hold a step against its table, and look up what it takes from other rows.

    Raises:
        PreflightError: one message with everything that does not fit.
    """
    table = describe_table(connection, step.table)
    known = {column.name: column for column in table.columns}
    wrong: list[str] = []
    needed = dict.fromkeys((step.select, *step.changed, step.duplicates_by, step.id_column))
    for name in needed:
        if name is not None and name not in known:
            wrong.append(
                f"{table.name} has no column {quote(name)}; valid are "
                f"{', '.join(map(quote, known))}"
            )
    wrong += [
        f"{quote(name)} is part of {_KEY} of {table.name}, and a key cannot change; such rows have "
        "to be copied"
        for name in step.changed
        if name in table.primary_key
    ]
    wrong += [
        f"{quote(name)} of {table.name} is static: it belongs to a partition, and not to a row"
        for name in dict.fromkeys((step.select, *step.changed))
        if name in known and known[name].is_static
    ]
    if step.id_column is None and len(table.primary_key) > 1:
        wrong.append(
            f"the key of {table.name} has several columns; say in id_column which one stands in "
            f"the id file: {', '.join(map(quote, table.primary_key))}"
        )
    if step.id_column in known and step.id_column not in table.primary_key:
        wrong.append(
            f"id_column is {quote(step.id_column)}, which is not part of {_KEY} of {table.name}: "
            f"{', '.join(map(quote, table.primary_key))}"
        )
    if not table.is_murmur3:
        wrong.append(f"the tokens of {table.name} are not Murmur3's, so its ranges are unknown")
    wrong += object_to_view(table)
    wrong += object_to_masks(connection, table.name, str(connection.settings))
    if wrong:
        raise PreflightError(f"{step.name}: " + "; ".join(wrong))
    looked_up: dict[str, str] = {}
    after = []
    names, origin = _tenant_cell(table, step.select, move.origin_tenant, wrong)
    target = _tenant_cell(table, step.select, move.target_tenant, wrong)[1]
    for change in step.changes:
        try:
            after.append(compile_change(connection, move, table, change, looked_up))
        except (PreflightError, ValueError) as error:
            wrong.append(f"{quote(change.column)}: {error}")
    if wrong:
        raise PreflightError(f"{step.name}: " + "; ".join(wrong))
    watched = tuple(
        dict.fromkeys(
            name for name in (step.select, *step.changed) if name not in table.primary_key
        )
    )
    return TableShape(
        step=step,
        table=table,
        watched=watched,
        untouched=tuple(
            name for name in known if name not in watched and name not in table.primary_key
        ),
        names=names,
        origin=origin,
        target=target,
        after=tuple(after),
        id_column=step.id_column or next(iter(table.primary_key)),
        looked_up=looked_up,
    )


def _tenant_cell(table: Table, column: str, tenant: str, wrong: list[str]) -> tuple[bool, bytes]:
    """Give whether a column holds several tenants, and a tenant as its cell or element."""
    cql_type = parse_type(table.type_of(column))
    names = cql_type.name in ("list", "set")
    kind = cql_type.parameters[0] if names else cql_type
    try:
        return names, encode_value(tenant, kind)
    except ValueError as error:
        wrong.append(f"{quote(column)} cannot show a tenant: {error}")
        return names, b""


def compile_change(
    connection: Connection,
    move: Move,
    table: Table,
    change: Change,
    looked_up: dict[str, str],
) -> Callable[[bytes | None], bytes | None]:
    """Build what a change makes of a cell."""
    cql_type = parse_type(table.type_of(change.column))
    if cql_type.name == "counter":
        raise PreflightError("a counter cannot be set")
    if change.lookup is not None:
        cell, shown = _look_up(connection, move, change.lookup, cql_type)
        looked_up[change.column] = shown
        return lambda before: cell
    if change.constant is not None:
        constant = encode_value(change.constant, cql_type)
        return lambda before: constant
    if change.replace == "value":
        origin = encode_value(move.origin_tenant, cql_type)
        target = encode_value(move.target_tenant, cql_type)
        return lambda before: target if before == origin else before
    if cql_type.name not in ("list", "set"):
        raise PreflightError(
            f"replace: {change.replace} is for lists and sets, and this is {cql_type}; write "
            "replace: value"
        )
    kind = cql_type.parameters[0]
    origin = encode_value(move.origin_tenant, kind)
    target = encode_value(move.target_tenant, kind)
    most = 1 if change.replace == "first" else None

    def replace_elements(before: bytes | None) -> bytes | None:
        if before is None:
            return None
        elements, left = [], most
        for element in read_elements(before):
            if element == origin and left != 0:
                element, left = target, None if left is None else left - 1
            elements.append(element)
        if cql_type.name == "list":
            return write_elements(elements)
        # A set holds a value once.
        return sort_elements(write_elements(list(dict.fromkeys(elements))), cql_type)

    return replace_elements


def _look_up(
    connection: Connection, move: Move, lookup: Lookup, wanted: CqlType
) -> tuple[bytes, str]:
    """Read the value that a lookup names, as a cell and for people.

    Raises:
        PreflightError: there is no such row, or it has no value.
    """
    table = describe_table(connection, lookup.table)
    key = lookup.key or {table.primary_key[0]: move.target_tenant}
    known = [column.name for column in table.columns]
    if set(key) != set(table.primary_key):
        raise PreflightError(
            f"lookup.key must give the key of {table.name} values: "
            f"{', '.join(map(quote, table.primary_key))}"
        )
    if lookup.column not in known:
        raise PreflightError(
            f"{table.name} has no column {quote(lookup.column)}; valid are "
            f"{', '.join(map(quote, known))}"
        )
    if (
        table.type_of(lookup.column) != str(wanted)
        and parse_type(table.type_of(lookup.column)) != wanted
    ):
        raise PreflightError(
            f"{quote(lookup.column)} of {table.name} is {table.type_of(lookup.column)}, and "
            f"{wanted} is needed"
        )
    read = {lookup.column, *key}
    if masked := object_to_masks(connection, table.name, str(connection.settings), read):
        raise PreflightError("; ".join(masked))
    where = " and ".join(f"{quote(name)} = {value!r}" for name, value in key.items())
    found = read_by_key(connection, move, table, (lookup.column,), key)
    if found is None:
        raise PreflightError(f"{table.name} has no row with {where} to look a value up in")
    if found[0] is None:
        raise PreflightError(
            f"{quote(lookup.column)} is null in the row of {table.name} with {where}; it would be "
            "written as null: set it first"
        )
    return found[0], show_value(found[0], wanted)


def read_by_key(
    connection: Connection,
    move: Move,
    table: Table,
    columns: Sequence[str],
    key: Mapping[str, Any],
) -> list[bytes | None] | None:
    """Read some columns of one row; None if there is no such row."""
    statement = prepare_key_read(connection, table, (*table.primary_key, *columns), move)
    values = [
        encode_value(key[name], parse_type(table.type_of(name))) for name in table.primary_key
    ]
    [(_, page)] = read_rows(
        connection,
        statement,
        [(None, list[bytes | None](values))],
        consistency=move.consistency,
        retry_seconds=move.retry_seconds,
        on_retry=lambda error: None,
    )
    if not page.row_count:
        return None
    return split_cells(page.data, len(table.primary_key) + len(columns))[len(table.primary_key) :]


def prepare_key_read(
    connection: Connection, table: Table, selections: Sequence[str], move: Move
) -> Any:
    """Prepare the read of single rows by their whole key; names are quoted, times are as given."""
    known = {column.name for column in table.columns}
    selected = ", ".join(quote(name) if name in known else name for name in selections)
    where = " AND ".join(f"{quote(name)} = ?" for name in table.primary_key)
    return connection.prepare(
        f"SELECT {selected} FROM {table.name} WHERE {where}",  # noqa: S608, names are quoted
        retry_seconds=move.retry_seconds,
    )


# -- one pass over a range -----------------------------------------------------------------------


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


def organisation_exists(connection: Connection, move: Move, tenant: str) -> bool:
    """Say whether a tenant stands in the table of organisations."""
    table = describe_table(connection, move.organisations)
    if len(table.primary_key) != 1:
        raise PreflightError(
            f"the key of {table.name} has several columns; organisations must name a table whose "
            "key is the organisation's id"
        )
    # By a masked key, nothing is found; no other column is looked at.
    read = table.primary_key
    if masked := object_to_masks(connection, table.name, str(connection.settings), read):
        raise PreflightError("; ".join(masked))
    return read_by_key(connection, move, table, (), {table.primary_key[0]: tenant}) is not None


def refuse_missing_tenants(connection: Connection, move: Move) -> None:
    """Refuse a move of or to an organisation that does not exist.

    Raises:
        PreflightError: one sentence.
    """
    missing = [
        f"{name} {quote(tenant)}"
        for name, tenant in (
            ("origin_tenant", move.origin_tenant),
            ("target_tenant", move.target_tenant),
        )
        if not organisation_exists(connection, move, tenant)
    ]
    if missing:
        raise PreflightError(
            f"{move.organisations} has no row for {' and '.join(missing)}; correct the id, or "
            "create the organisation first"
        )
