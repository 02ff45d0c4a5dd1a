"""Writes to PostgreSQL: batches of rows, each as one transaction, some of them at once.

With the method `copy` a batch is a binary COPY: straight into the table as long as no row of it is
there, else into a temporary table, from which rows are inserted or updated. With `values` a batch
is one INSERT of many rows; YugabyteDB's temporary tables are slow, so it is the default there.

All of it says what is to be, so that a batch whose answer was lost is sent again.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from struct import Struct
from typing import Any

from migration_platform.cql.cell_times import read_row_time
from migration_platform.cql.rows import NULL, Page, split_cells
from migration_platform.errors import MigrationError, PermanentError
from migration_platform.plan.model import Layer, Plan, Row, Source
from migration_platform.stores.interface import OnRejected, Pace
from migration_platform.stores.postgres.connection import Postgres, Session
from migration_platform.stores.postgres.failures import UNIQUE_VIOLATION, Refusal
from migration_platform.stores.postgres.names import PgName, quote, quote_name
from migration_platform.stores.postgres.retries import patiently
from migration_platform.stores.postgres.rows import (
    COPY_HEADER,
    COPY_TRAILER,
    RowForm,
    UnholdableRow,
    compile_rejection,
    compile_row_encoder,
    row_head,
)
from migration_platform.stores.postgres.statements import (
    TEMPORARY,
    copy_into,
    count_newer,
    create_temporary,
    upsert_from,
    upsert_singly,
    upsert_values,
)
from migration_platform.stores.postgres.types import PgType

COPY_ROWS = 2_000
"""A worker holds three batches: of 5,000 rows they take 10 MB more, and as much CPU a row."""
VALUES_ROWS = 200
BATCH_BYTES = 4_000_000
MAX_PARAMETERS = 65_535
"""Of one statement: an int16 counts them."""
LANES = 2
"""Batches under way: the server works on one while the next is made ready."""
_LONG_CELL = Struct(">iq")
_MICROSECONDS_1970_TO_2000 = 946_684_800_000_000

_Sent = tuple[bytes, bytes]
"""A row as it is sent, and its cells as they came."""


@dataclass(frozen=True)
class Outcome:
    """What became of a batch: `rejected` are the cells of rows, and why."""

    written: int = 0
    left_alone: int = 0
    rejected: tuple[tuple[bytes, MigrationError], ...] = ()

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.written + other.written,
            self.left_alone + other.left_alone,
            self.rejected + other.rejected,
        )


@dataclass(frozen=True)
class TimeColumn:
    """The column that keeps a row's newest writetime."""

    name: str
    pg_type: PgType

    def to_cell(self, writetime_us: int) -> bytes:
        """Give a writetime as it is sent, with its length."""
        is_long = self.pg_type.name == "int8"
        return _LONG_CELL.pack(8, writetime_us - (0 if is_long else _MICROSECONDS_1970_TO_2000))


class RowWrites:
    """What is prepared once to write the rows of a layer.

    Attributes:
        sources: What a row's cells are.
        form: How they are written.
        table: The target's table.
        method: `copy` or `values`.
        is_fresh: Whether no row that was sent was there yet, as far as it is known.
    """

    leading = 0
    null = NULL

    def __init__(
        self,
        connection: Postgres,
        table: PgName,
        layer: Layer,
        form: RowForm,
        sources: tuple[Source, ...],
        *,
        method: str,
        batch_rows: int | None,
        time_column: TimeColumn | None,
        skips_unchanged: bool,
        may_collide: bool = False,
    ):
        self.sources, self.form, self.table, self.layer = sources, form, table, layer
        self.method, self.time_column, self.skips = method, time_column, skips_unchanged
        # Of rows that may land on one another the order decides, and each waits for the other's
        # end: they are sent one batch after the other, sorted by key.
        self.is_fresh = not may_collide
        self.lanes = [connection.lane(number) for number in range(1 if may_collide else LANES)]
        self.columns = [*form.names, *([time_column.name] if time_column else [])]
        self.types = [column.pg_type.oid for column in form.columns]
        self.types += [time_column.pg_type.oid] if time_column else []
        self.head = row_head(len(self.columns))
        layout = repr((table, self.columns)).encode()
        self.temporary = TEMPORARY.format(hashlib.sha256(layout).hexdigest()[:16])
        if method == "values":
            most = min(MAX_PARAMETERS // len(self.columns), batch_rows or VALUES_ROWS)
            self.batch_rows = max(1, most)
        else:
            self.batch_rows = batch_rows or COPY_ROWS
        self.encode = compile_row_encoder(form)
        self.why_unholdable = compile_rejection(form)

    def open(self, plan: Plan, pace: Pace, on_rejected: OnRejected, *, again: bool) -> "RowWriter":
        """Begin to write; nothing of an earlier writer that failed goes on meanwhile."""
        wait([lane.submit(_nothing) for lane in self.lanes])
        return RowWriter(self, plan, pace, on_rejected, again=again)

    # -- in a lane's thread ----------------------------------------------------------------------

    def send(
        self, session: Session, rows: list[_Sent], retry_seconds: float, retried: SimpleQueue
    ) -> Outcome:
        """Write a batch; where the server rejects rows of it, write the others.

        Raises:
            PermanentError, TransientError: it could not be written.
        """

        def ask(attempt: Callable[[Session, list[_Sent]], Outcome]) -> Outcome:
            return patiently(
                lambda: attempt(session, rows), retry_seconds, retried.put, passes=_is_about_values
            )

        refused: Refusal | None = None
        if self.method == "copy" and self.is_fresh:
            try:
                return ask(self._copy_directly)
            except Refusal as refusal:
                if refusal.sqlstate == UNIQUE_VIOLATION:
                    # The row may be there already, or another one with the same values.
                    self.is_fresh = False
                else:
                    refused = refusal
        if refused is None:
            try:
                return ask(self._upsert)
            except Refusal as refusal:
                refused = refusal
        known, others = self._split_unholdable(rows)
        if known.rejected:
            rest = self.send(session, others, retry_seconds, retried) if others else Outcome()
            return known + rest
        if len(rows) == 1:
            return Outcome(rejected=((rows[0][1], refused.to_error()),))
        if self.method == "copy":
            # Halves remain where a language of procedures is missing, or rows cannot be sent.
            with suppress(Refusal, PermanentError):
                return ask(self._upsert_singly)
        middle = len(rows) // 2
        halves = (rows[:middle], rows[middle:])
        first, second = (self.send(session, half, retry_seconds, retried) for half in halves)
        return first + second

    def _split_unholdable(self, rows: list[_Sent]) -> tuple[Outcome, list[_Sent]]:
        """Reject rows of which the codecs know why no table holds them; give the others."""
        width = len(self.form.columns)
        rejected, others = [], []
        for row in rows:
            why = self.why_unholdable(split_cells(row[1], width))
            if why:
                rejected.append((row[1], UnholdableRow(why)))
            else:
                others.append(row)
        return Outcome(rejected=tuple(rejected)), others

    def _copy_directly(self, session: Session, rows: list[_Sent]) -> Outcome:
        session.copy_in(copy_into(quote_name(self.table), self.columns), self._to_copy(rows))
        return Outcome(written=len(rows))

    def _upsert(self, session: Session, rows: list[_Sent]) -> Outcome:
        if self.method == "values":
            return self._upsert_values(session, rows)
        time_column = self.time_column.name if self.time_column else None
        sql = upsert_from(self.temporary, self.table, self.form, time_column, skips=self.skips)
        newer, (upserted,) = self._from_temporary(session, rows, sql)
        return self._outcome(len(rows), newer, upserted.command_tuples or 0)

    def _upsert_singly(self, session: Session, rows: list[_Sent]) -> Outcome:
        """Write row by row within the server, and leave out those that it rejects."""
        time_column = self.time_column.name if self.time_column else None
        sql = upsert_singly(self.temporary, self.table, self.form, time_column, skips=self.skips)
        newer, (*_, told) = self._from_temporary(session, rows, sql)
        rejected = tuple(
            (rows[number][1], Refusal(*why).to_error())
            for number, *why in sorted(json.loads(told.get_value(0, 0)))
        )
        outcome = self._outcome(len(rows) - len(rejected), newer, int(told.get_value(0, 1)))
        return outcome + Outcome(rejected=rejected)

    def _outcome(self, rows: int, newer: int | None, touched: int) -> Outcome:
        """Say what became of rows that were taken, of which the server touched some."""
        if newer is None:
            newer = max(0, rows - touched) if self.time_column else 0
        left_alone = min(newer, rows)
        return Outcome(rows - left_alone, left_alone)

    def _from_temporary(
        self, session: Session, rows: list[_Sent], sql: str
    ) -> tuple[int | None, list[Any]]:
        """Copy rows into a temporary table, and run statements that take them from there.

        It gives how many of them the target has newer ones of, if only counting can tell it, and
        the statements' results.
        """
        time_column = self.time_column.name if self.time_column else None
        name = self.temporary
        # Opened first: a new connection has no temporary tables.
        if session.connection and name not in session.temporary:
            session.run(create_temporary(name, self.table, self.form, time_column))
            session.temporary.add(name)
        counts_newer = self.skips and time_column is not None
        asked = [count_newer(name, self.table, self.form, time_column or "")] * counts_newer
        try:
            session.copy_in(
                f"BEGIN; {copy_into(f'pg_temp.{quote(name)}', self.columns)}", self._to_copy(rows)
            )
            results = session.run("; ".join([*asked, sql, "COMMIT"]))
        except Refusal:
            session.roll_back()
            raise
        newer = int(results.pop(0).get_value(0, 0)) if counts_newer else None
        return newer, results[:-1]

    def _upsert_values(self, session: Session, rows: list[_Sent]) -> Outcome:
        time_column = self.time_column.name if self.time_column else None
        sql = upsert_values(self.table, self.form, time_column, len(rows), skips=self.skips)
        width = len(self.columns)
        parameters = [
            each
            for sent, _ in rows
            for each in zip(self.types, split_cells(sent, width), strict=True)
        ]
        full = len(rows) == self.batch_rows
        result = session.ask(sql, parameters, prepare=full)
        counts_newer = self.skips and time_column is not None
        newer = int(result.get_value(0, 0)) if counts_newer else None
        return self._outcome(len(rows), newer, result.command_tuples or 0)

    def _to_copy(self, rows: list[_Sent]) -> Iterator[bytes]:
        """Give a copy of rows in pieces; large ones are not brought together once more."""
        yield COPY_HEADER
        if sum([len(sent) for sent, _ in rows]) <= 2 * BATCH_BYTES:
            yield self.head + self.head.join([sent for sent, _ in rows])
        else:
            for sent, _ in rows:
                yield self.head
                yield sent
        yield COPY_TRAILER


def _nothing() -> None:
    """Be the end of what a lane had to do before."""


def _is_about_values(refusal: Refusal) -> bool:
    return refusal.is_about_values


class RowWriter:
    """Writes rows, some batches under way at a time; `flush` before counting on them.

    Of static cells each partition is taken, and counts as no row; one that has none is not written.
    """

    parts_expired = 0

    def __init__(
        self,
        writes: RowWrites,
        plan: Plan,
        pace: Pace,
        on_rejected: OnRejected,
        *,
        again: bool,
    ):
        if again:
            writes.is_fresh = False
        self.rows_written = self.rows_left_alone = self.statics_taken = 0
        self._has_rows = writes.layer.name == "rows"
        self._writes, self._pace, self._on_rejected = writes, pace, on_rejected
        self._rules = plan.rules
        names = plan.target.primary_key if self._has_rows else plan.target.partition_key
        self._keys = [writes.form.names.index(name) for name in names]
        self._values = [at for at, c in enumerate(writes.form.columns) if not c.is_key]
        self._open: list[_Sent] = []
        self._open_bytes = 0
        self._flying: deque[Future[Outcome]] = deque()
        self._retried: SimpleQueue[BaseException] = SimpleQueue()
        self._next_lane = 0

    def write(self, rows: Iterable[Row], page: Page) -> None:
        """Take the rows of a page; they are sent by and by.

        Raises:
            PermanentError, TransientError: a row could not be written, an earlier one maybe.
        """
        writes = self._writes
        encode, column, most = writes.encode, writes.time_column, writes.batch_rows
        rules, now_us = self._rules, time.time_ns() // 1000
        for _, values, times, _ in rows:
            if not self._has_rows and not self._take_statics(values):
                continue
            try:
                sent = encode(values)
            except UnholdableRow as why:
                self._on_rejected(self._key_of(values), why, True)
                continue
            if column is not None:
                newest, _ = rules.settle(*read_row_time(times, page.asked_us))
                sent += column.to_cell(now_us if newest is None else newest)
            self._open.append((sent, values))
            self._open_bytes += len(sent)
            if len(self._open) >= most or self._open_bytes >= BATCH_BYTES:
                self._begin()

    def flush(self) -> None:
        """Wait until every row is acknowledged.

        Raises:
            PermanentError, TransientError: a row could not be written.
        """
        self._begin()
        while self._flying:
            self._settle_first()

    def _begin(self) -> None:
        rows, self._open = self._open, []
        size, self._open_bytes = self._open_bytes, 0
        if not rows:
            return
        lanes = self._writes.lanes
        while len(self._flying) >= len(lanes):
            self._settle_first()
        self._pace.budget.take(len(rows), size)
        lane = lanes[self._next_lane]
        self._next_lane = (self._next_lane + 1) % len(lanes)
        seconds = self._pace.retry_seconds
        self._flying.append(
            lane.submit(self._writes.send, lane.session, rows, seconds, self._retried)
        )

    def _settle_first(self) -> None:
        """Wait for the oldest batch, and tell of what is tried again meanwhile."""
        first = self._flying.popleft()
        try:
            outcome = self._wait(first)
        except BaseException:
            # Nothing of this writer may go on when somebody else begins.
            wait(self._flying)
            self._flying.clear()
            raise
        if self._has_rows:
            self.rows_written += outcome.written
            self.rows_left_alone += outcome.left_alone
        for values, why in outcome.rejected:
            self._on_rejected(self._key_of(values), why, True)

    def _wait(self, batch: "Future[Outcome]") -> Outcome:
        while True:
            try:
                return batch.result(timeout=1.0)
            except TimeoutError:
                # It may have ended at this very moment.
                if batch.done():
                    return batch.result()
            finally:
                self._tell_retries()

    def _tell_retries(self) -> None:
        while True:
            try:
                self._pace.on_retry(self._retried.get_nowait())
            except Empty:
                return

    def _take_statics(self, values: bytes) -> bool:
        cells = split_cells(values, len(self._writes.form.columns))
        has_any = any(cells[position] is not None for position in self._values)
        self.statics_taken += has_any
        return has_any

    def _key_of(self, values: bytes) -> list[bytes | None]:
        cells = split_cells(values, len(self._writes.form.columns))
        return [cells[position] for position in self._keys]
