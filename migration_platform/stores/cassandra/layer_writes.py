"""The rows of a layer written to a Cassandra table: grouped by partition, each cell at its time.

Rows of one target partition travel together. Counters are added to instead, see `counters`.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cassandra.query import PreparedStatement

from migration_platform.cql.cell_times import (
    NO_TTL,
    CellTime,
    RowTimes,
    SettledTimes,
    bind_time,
    bind_ttl,
    read_row_time,
    read_writetimes,
    settle_times,
)
from migration_platform.cql.names import quote
from migration_platform.cql.rows import UNSET, Page, split_cells
from migration_platform.errors import MigrationError, PermanentError
from migration_platform.plan.model import Layer, Plan, Row, Source
from migration_platform.plan.row_form import RowForm, build_form
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.counters import (
    CounterTable,
    add_differences,
    counter_order,
    prepare_counters,
)
from migration_platform.stores.cassandra.reads import read_rows
from migration_platform.stores.cassandra.row_writes import INSERT, prepare_writes, to_parts
from migration_platform.stores.cassandra.writes import (
    BATCH_BYTES,
    Item,
    Part,
    Writer,
    WriteStatement,
)
from migration_platform.stores.interface import Cells, OnRejected, Pace, RowsWriter
from migration_platform.token_ranges import serialize_key

GROUP_ROWS = 20_000
GROUP_BYTES = 16_000_000
"""Rows are gathered up to here, so that those of one target partition can travel together."""


@dataclass(frozen=True)
class CellWrites:
    """What is prepared once to write a layer: statements, or the table of its counters.

    `partition_key` says where in the leading cells the partition key is, if requests are routed by
    it. `place_of` numbers the replicas of a routing key; None where no request may hold several
    partitions.
    """

    connection: Connection
    layer: Layer
    sources: tuple[Source, ...]
    leading: int
    form: RowForm
    statements: Sequence[WriteStatement] = ()
    counters: CounterTable | None = None
    read_lists: PreparedStatement | None = None
    partition_key: tuple[int, ...] = ()
    place_of: Callable[[bytes | None], int | None] | None = None
    null: bytes = UNSET

    def open(self, plan: Plan, pace: Pace, on_rejected: OnRejected, *, again: bool) -> RowsWriter:
        """Begin to write."""
        if self.counters:
            return _CounterWriter(self, self.counters, plan, pace, on_rejected, again)
        return _CellWriter(self, plan, pace, on_rejected)

    def routing_key(self, key: bytes) -> bytes | None:
        """Give the routing key of the rows with these leading cells, if requests have one."""
        if not self.partition_key:
            return None
        found = split_cells(key, self.leading)
        cells = [found[position] or b"" for position in self.partition_key]
        # A key that is too long has no replica; the server's error explains it better.
        return serialize_key(cells) if all(len(cell) < 2**16 for cell in cells) else None


def prepare_layer(connection: Connection, plan: Plan, layer: Layer) -> CellWrites:
    """Prepare the writes of a layer's rows.

    Raises:
        PermanentError, TransientError: the server refused or did not answer.
    """
    seconds = plan.migration.retry_seconds
    leading = tuple(n for n in plan.copy_leading if any(s.target == n for s in layer.sources))
    sources = counter_order(plan, layer) if layer.has_counters else layer.ordered(leading)
    form = build_form(plan, layer, sources)
    if layer.has_counters:
        counters = prepare_counters(connection, plan, layer, retry_seconds=seconds)
        return CellWrites(connection, layer, sources, len(leading), form, counters=counters)
    # Only with several hosts is it worth knowing which one owns a partition.
    has_choice = connection.has_choice
    routed = has_choice and set(plan.target.partition_key) <= set(leading)
    return CellWrites(
        connection,
        layer,
        sources,
        len(leading),
        form,
        statements=prepare_writes(connection, plan, form, retry_seconds=seconds),
        read_lists=_prepare_lists(connection, plan, form)
        if form.lists and plan.rules.writetime != "now"
        else None,
        partition_key=tuple(leading.index(c) for c in plan.target.partition_key) if routed else (),
        place_of=_compile_places(connection, plan, routed=routed)
        if plan.migration.batch_across_partitions is not False
        and plan.migration.group_writes_by != ()
        # Where tokens mean nothing, replicas are not known either.
        and (not has_choice or (routed and plan.target.is_murmur3))
        else None,
    )


def _compile_places(
    connection: Connection, plan: Plan, *, routed: bool
) -> Callable[[bytes | None], int | None]:
    """Build the function that numbers the replicas of a routing key; one node has everything."""
    if not routed:
        return lambda _: 0
    place_of = connection.place_keys(plan.target.name.keyspace)
    return lambda key: None if key is None else place_of(key)


def _prepare_lists(connection: Connection, plan: Plan, form: RowForm) -> PreparedStatement:
    """Prepare the read of the target's unfrozen lists, and of their writetimes."""
    table = plan.target
    selected = []
    for position in form.lists:
        name = quote(form.sources[position].target)
        selected += [name, f"writetime({name})"] if table.tells_elements else [name]
    condition = " AND ".join(f"{quote(name)} = ?" for name in form.key_names)
    return connection.prepare(
        f"SELECT {', '.join(selected)} FROM {table.name} WHERE {condition}",  # noqa: S608
        retry_seconds=plan.migration.retry_seconds,
    )


# -- rows and static cells -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Undecided:
    """A row with unfrozen lists: what of it is written depends on what the target holds."""

    cells: Cells
    times: SettledTimes


class _CellWriter:
    """Gathers rows by the partition that they go to, and writes the groups."""

    def __init__(self, writes: CellWrites, plan: Plan, pace: Pace, on_rejected: OnRejected):
        migration, form = plan.migration, writes.form
        self._writes, self._plan, self._pace, self._on_rejected = writes, plan, pace, on_rejected
        self._is_rows = writes.layer.name == "rows"
        self._to_item = _compile_item(plan, writes)
        self._is_grouped = migration.group_writes_by != ()
        self._is_sorted = bool(migration.group_writes_by)
        self._groups: dict[bytes, list[Item | _Undecided]] = {}
        self._gathered = self._size = 0
        self._writer = Writer(
            writes.connection,
            list(writes.statements),
            plan.target,
            consistency=migration.target.consistency,
            budget=pace.budget,
            retry_seconds=pace.retry_seconds,
            on_retry=pace.on_retry,
            ttl_seconds=migration.ttl if isinstance(migration.ttl, int) else None,
            has_rows=self._is_rows,
            on_rejected=lambda item, counted, why: on_rejected(_key_of(item, form), why, counted),
        )
        self.statics_taken = 0

    @property
    def rows_written(self) -> int:
        return self._writer.rows_written

    @property
    def rows_left_alone(self) -> int:
        return self._writer.rows_left_alone

    @property
    def parts_expired(self) -> int:
        return self._writer.parts_expired

    def write(self, rows: Iterable[Row], page: Page) -> None:
        asked_us, groups, to_item = page.asked_us, self._groups, self._to_item
        is_grouped, gathered = self._is_grouped, self._gathered
        begun = gathered
        for row in rows:
            try:
                item = to_item(row, asked_us)
            except MigrationError as error:
                cells = split_cells(row[1], len(self._writes.sources))
                self.statics_taken += not self._is_rows
                self._on_rejected([cells[at] for at in self._writes.form.keys], error, True)
                continue
            if item is None:
                continue
            gathered += 1
            if not is_grouped:
                groups[gathered.to_bytes(8, "big")] = [item]
                continue
            found = groups.get(row[0])
            if found is None:
                groups[row[0]] = [item]
            else:
                found.append(item)
        self.statics_taken += (gathered - begun) * (not self._is_rows)
        self._gathered = gathered
        self._size += len(page.data)
        # Rows of which no two fit into a request have nothing to wait for.
        in_vain = len(page.data) > page.row_count * BATCH_BYTES
        if not is_grouped or gathered >= GROUP_ROWS or self._size >= GROUP_BYTES or in_vain:
            self._send()

    def flush(self) -> None:
        self._send()
        self._writer.flush()

    def _send(self) -> None:
        groups, writes = self._groups, self._writes
        self._groups, self._gathered, self._size = {}, 0, 0
        if writes.read_lists is not None:
            self._decide_lists(groups)
        ordered = sorted(groups) if self._is_sorted else groups
        routed = ((writes.routing_key(key), groups[key]) for key in ordered)
        place_of = writes.place_of
        if place_of is None:
            for routing_key, items in routed:
                self._writer.write_group(items, routing_key)  # type: ignore[arg-type]
            return
        # One of unknown replicas is a place of its own.
        self._writer.write_groups(
            (
                place if (place := place_of(routing_key)) is not None else object(),
                routing_key,
                items,
            )
            for routing_key, items in routed  # type: ignore[misc]
        )

    def _decide_lists(self, groups: dict[bytes, list[Any]]) -> None:
        """Read the target's lists and turn undecided rows into parts."""
        writes, form = self._writes, self._writes.form
        assert writes.read_lists is not None
        undecided = (
            ((items, position), [item.cells[key] for key in form.keys])
            for items in groups.values()
            for position, item in enumerate(items)
            if isinstance(item, _Undecided)
        )
        rejected = False

        def on_rejected(place: tuple[list, int], why: PermanentError) -> None:
            nonlocal rejected
            items, position = place
            row, items[position], rejected = items[position], None, True
            self._on_rejected([row.cells[key] for key in form.keys], why, True)

        for (items, position), page in read_rows(
            writes.connection,
            writes.read_lists,
            undecided,
            consistency=self._plan.migration.target.consistency,
            retry_seconds=self._pace.retry_seconds,
            on_retry=self._pace.on_retry,
            on_rejected=on_rejected,
        ):
            row = items[position]
            lists = _lists_to_write(self._plan, form, row, page)
            items[position] = to_parts(form, row.cells, row.times, lists)
        if rejected:
            for items in groups.values():
                items[:] = [item for item in items if item is not None]


def _key_of(item: Item, form: RowForm) -> Cells:
    """Find the target's key in what was to be written."""
    if isinstance(item, bytes) or item[0].statement == INSERT:
        values = item if isinstance(item, bytes) else item[0].values
        cells = split_cells(values, len(form.sources))
        return [cells[position] for position in form.keys]
    return split_cells(item[0].values, form.slots + len(form.keys))[form.slots :]


def _compile_item(plan: Plan, writes: CellWrites) -> Callable[[Row, int], Item | _Undecided | None]:
    """Build the function that turns a row into what is written: bytes where one time is enough."""
    rules, form = plan.rules, writes.form
    is_rows = writes.layer.name == "rows"
    keeps, passes, has_lists = rules.keeps_times, rules.passes_bytes, bool(form.lists)
    ttl = NO_TTL if not isinstance(rules.ttl, int) else bind_ttl(rules.ttl)
    count = len(form.sources)
    # Lists are compared first, and static cells have no marker that an INSERT would write.
    one_insert = is_rows and not (has_lists and rules.writetime != "now")
    one_time = rules.writetime != "cell" and rules.ttl != "cell"
    explicit = rules.writetime != "now"

    def to_item(row: Row, asked_us: int) -> Item | _Undecided | None:
        _, values, times, entry = row
        if not keeps and is_rows:
            return values
        if passes and type(times) is bytes and not has_lists and is_rows:
            return values + times + ttl
        if one_insert and (one_time or not isinstance(times, RowTimes)):
            newest, latest = read_row_time(times, asked_us)
            time_there = rules.settle(newest, latest)
            if time_there[1] is not None:
                return (Part(INSERT, values, time_there),)
            bound = bind_time(*time_there, 0.0, ttl)
            return values + bound if bound else None
        cells = split_cells(values, count)
        if not is_rows and all(cells[value.position] is None for value in form.values):
            return None
        if not keeps:
            return values
        found = settle_times(times, rules, form.time_of, form.per_element, asked_us, entry)
        if explicit and has_lists and any(cells[position] is not None for position in form.lists):
            return _Undecided(cells, found)
        return to_parts(form, cells, found)

    return to_item


def _lists_to_write(plan: Plan, form: RowForm, row: _Undecided, page: Page) -> dict[int, CellTime]:
    """Say which lists differ from the target's, and at which time they replace those.

    A whole list replaces what is older than itself, element by element: one with the time of what
    is there would stand beside it. So it gets a newer time; but where the target's list was
    written after the origin's, it stays. Under a plan that `follows` only what lies in the future
    does, and the same list is written again where it is newer: it may live longer.
    """
    tells = plan.target.tells_elements
    width = 2 if tells else 1
    there = (
        split_cells(page.data, width * len(form.lists))
        if page.row_count
        else [None] * (width * len(form.lists))
    )
    values = {value.position: number for number, value in enumerate(form.values)}
    keeps_origin_times = not isinstance(plan.migration.writetime, int)
    found: dict[int, CellTime] = {}
    for number, position in enumerate(form.lists):
        cell, other = row.cells[position], there[number * width]
        time_here = row.times.cells[values[position]]
        assert isinstance(time_here, tuple)
        writetime, expires = time_here
        if cell is None or writetime is None or (cell == other and not (tells and plan.follows)):
            continue
        if other is not None:
            if tells:
                newest = max(read_writetimes(there[number * width + 1]), default=0)
                if cell == other and newest >= writetime:
                    continue
                if newest > (page.asked_us if plan.follows else writetime) and keeps_origin_times:
                    continue
                writetime = max(writetime, newest + 1) if newest >= writetime else writetime
            else:
                writetime = max(writetime, time.time_ns() // 1000)
        found[position] = (writetime, expires)
    return found


# -- counters ------------------------------------------------------------------------------------


class _CounterWriter:
    """Adds to each counter what it lacks; nothing waits, so that there is nothing to flush."""

    parts_expired = statics_taken = 0

    def __init__(
        self,
        writes: CellWrites,
        counters: CounterTable,
        plan: Plan,
        pace: Pace,
        on_rejected: OnRejected,
        again: bool,
    ):
        self._writes, self._counters, self._pace = writes, counters, pace
        self._consistency = plan.migration.target.consistency
        self._on_rejected, self._again = on_rejected, again
        self._is_rows = writes.layer.name == "rows"
        self.rows_written = self.rows_left_alone = 0

    def write(self, rows: Iterable[Row], page: Page) -> None:
        del page
        keys = self._writes.form.keys
        found = add_differences(
            self._writes.connection,
            self._counters,
            (row[1] for row in rows),
            again=self._again,
            consistency=self._consistency,
            budget=self._pace.budget,
            retry_seconds=self._pace.retry_seconds,
            on_retry=self._pace.on_retry,
            on_rejected=lambda cells, why: self._on_rejected(
                [cells[position] for position in keys], why, True
            ),
        )
        if self._is_rows:
            self.rows_written += found.equal
            self.rows_left_alone += found.left_alone

    def flush(self) -> None:
        """Do nothing: what was taken is written."""
