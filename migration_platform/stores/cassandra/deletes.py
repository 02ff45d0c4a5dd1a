"""What only a Cassandra table has is deleted: rows as of a moment, cells at their own writetime.

So nothing is deleted that is newer than what was read, and doing it twice does no harm. What the
origin holds in another form of the same value is not deleted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from struct import Struct

from cassandra import ConsistencyLevel
from cassandra.cluster import ResponseFuture
from cassandra.protocol import ExecuteMessage
from cassandra.query import PreparedStatement

from migration_platform.cql.cell_times import TimesLayout
from migration_platform.cql.elements import read_elements, read_entries, read_fields
from migration_platform.cql.forms import comparable_element, order_is_known
from migration_platform.cql.names import quote
from migration_platform.cql.rows import INT32, Page, split_cells
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.pacing.retries import Attempts
from migration_platform.plan.model import Plan, Source
from migration_platform.plan.preflight import times_layout
from migration_platform.stores.cassandra.connection import Connection, Key, page_of
from migration_platform.stores.cassandra.keyed_reads import KeyedRead, prepare_keyed_read
from migration_platform.stores.cassandra.writes import WRITES_IN_FLIGHT
from migration_platform.stores.interface import Cells, KeyForm, Pace, Selection

_LONG = Struct(">q")
CELLS_AT_ONCE = 48
"""Rows of the target that are held until the origin was asked for them."""

Request = tuple[PreparedStatement, list[bytes | None]]


@dataclass(frozen=True)
class CellDeletes:
    """What is prepared once to delete the surplus of a target.

    `there` reads the value cells as they are, with their writetimes: `names`, then those of
    `times`. `statements` are prepared as they are needed, by what they delete.
    """

    connection: Connection
    plan: Plan
    selection: Selection
    there: KeyedRead
    names: tuple[str, ...]
    times: TimesLayout
    values: Sequence[tuple[int, Source]]
    statements: dict[str, PreparedStatement] = field(default_factory=dict)

    def delete_rows(self, keys: Iterable[bytes], before_us: int, pace: Pace) -> None:
        """Delete rows, or all static cells of partitions, with tombstones of that moment."""
        statics = [s.target for s in self.selection.sources if not s.is_key]
        delete = self._statement(
            ", ".join(map(quote, statics)) if self.selection.statics else "", pace
        )
        self._send(((delete, [_LONG.pack(before_us), *self.there.bind(key)]) for key in keys), pace)

    def delete_surplus(
        self,
        keys: Sequence[bytes],
        read_origin: Callable[[Sequence[bytes]], Iterator[Cells | None]],
        pace: Pace,
    ) -> None:
        """Delete cells, elements, entries and fields that only the target has.

        Each is deleted at its own writetime. Where the target does not tell those of elements, it
        is the moment at which they were read: what is written later stays, too.
        """
        self._send(self._deletions(keys, read_origin, pace), pace)

    def _deletions(
        self,
        keys: Sequence[bytes],
        read_origin: Callable[[Sequence[bytes]], Iterator[Cells | None]],
        pace: Pace,
    ) -> Iterator[Request]:
        for first in range(0, len(keys), CELLS_AT_ONCE):
            some = keys[first : first + CELLS_AT_ONCE]
            # Applications that write to both stores write to the origin first.
            there = list(self.there.rows(some, pace))
            for (key, page), cells in zip(there, read_origin(some), strict=True):
                if cells is None or not page.row_count:
                    continue
                found = self._with_times(page)
                bound = self.there.bind(key)
                for position, source in self.values:
                    cell, writetimes = found[source.target]
                    if cell is None:
                        continue
                    for what, element, writetime in _surplus(
                        source, cells[position], cell, writetimes, page.asked_us
                    ):
                        statement = self._statement(what, pace)
                        yield statement, [*element, _LONG.pack(writetime), *bound]

    def _with_times(self, page: Page) -> dict[str, tuple[bytes | None, "Writetimes"]]:
        timed = (*self.times.simple, *self.times.multi)
        cells = split_cells(page.data, len(self.names) + len(timed))
        values, times = cells[: len(self.names)], cells[len(self.names) :]
        known: dict[str, Writetimes] = {}
        for name, cell in zip(timed, times, strict=True):
            if name in self.times.multi:
                known[name] = _read_writetimes(cell)
            elif cell is not None:
                known[name] = _LONG.unpack(cell)[0]
        return {n: (v, known.get(n)) for n, v in zip(self.names, values, strict=True)}

    def _statement(self, what: str, pace: Pace) -> PreparedStatement:
        found = self.statements.get(what)
        if found is None:
            condition = " AND ".join(f"{quote(name)} = ?" for name in self.selection.key_names)
            found = self.statements[what] = self.connection.prepare(
                f"DELETE {what} FROM {self.selection.table.name} USING TIMESTAMP ? "
                f"WHERE {condition}",
                retry_seconds=pace.retry_seconds,
            )
        return found

    def _send(self, requests: Iterable[Request], pace: Pace) -> None:
        """Send deletions, a bounded number at a time; each may be sent twice.

        Raises:
            PermanentError, TransientError: one of them could not be written.
        """
        level = getattr(ConsistencyLevel, self.plan.migration.target.consistency)

        def ask(statement: PreparedStatement, values: Cells, query: Key | None) -> ResponseFuture:
            message = ExecuteMessage(
                statement.query_id,
                values,
                level,
                skip_meta=True,
                result_metadata_id=statement.result_metadata_id,
            )
            future = self.connection.send(message, query=query, statement=statement)
            future.send_request()
            return future

        flying: deque[tuple[PreparedStatement, Cells, ResponseFuture]] = deque()

        def settle() -> None:
            statement, values, future = flying.popleft()
            attempts = Attempts(pace.retry_seconds)
            while True:
                try:
                    page_of(future)
                except Exception as error:
                    delay = attempts.delay_after(error)
                    pace.on_retry(error)
                    time.sleep(delay)
                    # Of the hosts in turn: the one that failed need not be asked again.
                    future = ask(statement, values, None)
                else:
                    return

        router = cache(self.connection.router)
        for statement, values in requests:
            if len(flying) >= WRITES_IN_FLIGHT:
                settle()
            pace.budget.take(1)
            flying.append((statement, values, ask(statement, values, router(statement)(values))))
        while flying:
            settle()


def prepare_deletes(
    connection: Connection,
    plan: Plan,
    selection: Selection,
    keys: KeyForm,
    values: Sequence[tuple[int, Source]],
) -> CellDeletes:
    """Prepare the read of what may have to be deleted.

    Raises:
        PermanentError, TransientError: the server refused or did not answer.
    """
    names = tuple(source.target for source in selection.sources if not source.is_key)
    times = times_layout(selection.table, names, ttls=False)
    there = prepare_keyed_read(
        connection,
        Selection(selection.table, names, times, statics=selection.statics),
        keys,
        consistency=plan.migration.target.consistency,
        retry_seconds=plan.migration.retry_seconds,
    )
    return CellDeletes(connection, plan, selection, there, names, times, values)


Writetimes = int | list[int | None] | None
"""A cell's writetime, or those of its elements; None where the server does not tell them."""


def _read_writetimes(cell: bytes | None) -> list[int | None]:
    if not cell:
        return []
    times = split_cells(cell[4:], INT32.unpack_from(cell)[0])
    return [None if each is None else _LONG.unpack(each)[0] for each in times]


Surplus = tuple[str, list[bytes | None], int]
"""What a DELETE names, what is bound there, and the writetime of the tombstone."""


def _surplus(
    source: Source, here: bytes | None, there: bytes, writetimes: Writetimes, asked_us: int
) -> Iterator[Surplus]:
    """Give what the target's cell has and the origin's has not."""
    cql_type, name = parse_type(source.target_type), quote(source.target)
    if not cql_type.is_multicell:
        if here is None:
            assert isinstance(writetimes, int)
            yield name, [], writetimes
        return
    known = writetimes if isinstance(writetimes, list) else []
    if cql_type.name == "list":
        # An element's name is its own, so nothing but the whole list can be meant.
        if here is None:
            yield name, [], max((at for at in known if at is not None), default=asked_us)
        return
    parts = _parts(there, cql_type)
    times = [asked_us if at is None else at for at in known or [None] * len(parts)]
    if cql_type.name == "udt":
        fields = _parts(here, cql_type) if here else [None] * len(parts)
        for (field, _), own, other, at in zip(cql_type.fields, fields, parts, times, strict=True):
            if own is None and other is not None:
                yield f"{name}.{quote(field)}", [], at
        return
    # Elements that the server takes for one are one, whatever their bytes.
    inner = cql_type.parameters[0]
    comparable = comparable_element(inner)
    wanted = [] if here is None else [p for p in _parts(here, cql_type) if p is not None]
    mine = {comparable(part) for part in wanted}
    if not order_is_known(inner) and not mine <= {comparable(p) for p in parts if p is not None}:
        # One of what the origin has may be there in bytes of which only the server knows.
        return
    for part, at in zip(parts, times, strict=True):
        if part is not None and comparable(part) not in mine:
            yield f"{name}[?]", [part], at


def _parts(value: bytes, cql_type: CqlType) -> list[bytes | None]:
    """Give what has a cell of its own: a set's elements, a map's keys, the fields of a type."""
    if cql_type.name == "udt":
        return read_fields(value, len(cql_type.fields))
    if cql_type.name == "map":
        return [key for key, _ in read_entries(value)]
    return read_elements(value)
