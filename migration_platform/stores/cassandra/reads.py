"""Rows read as bytes: ranges page by page, cut where a page cannot be had, and single rows."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from struct import Struct
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.cluster import (
    ResponseFuture,
)
from cassandra.protocol import ExecuteMessage
from cassandra.query import PreparedStatement

from migration_platform.cql.keys import show_key
from migration_platform.cql.names import quote
from migration_platform.cql.rows import Page, compile_splitter, split_cells
from migration_platform.errors import (
    PermanentError,
    TransientError,
    UnreadableError,
    is_about_row,
    may_be_too_much,
)
from migration_platform.pacing.rate import RateBudget
from migration_platform.pacing.retries import Attempts
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import (
    LEAST_PAGE_ROWS,
    MAX_PAGE_ROWS,
    Connection,
    Key,
    Slice,
    page_of,
)
from migration_platform.token_ranges import TokenRange, serialize_key, token_of_key

PAGE_BYTES = 2_500_000
"""What a page should weigh: 5,000 rows of 500 bytes, past which a page was no quicker."""


SLOW_PAGE_SECONDS = 2.0
"""A page that takes longer is on its way to the server's read timeout (5 s, of ranges 10 s)."""


TRIES_BEFORE_A_CUT = 3
"""Pages shrink to a quarter, then a sixteenth; after that, their length is rarely the cause."""


MOST_UNREADABLE = 10
"""Past so many partitions of one range that cannot be read, the fault is not theirs."""


RETRY_SECONDS_AFTER_AN_UNREADABLE = 10.0


READS_IN_FLIGHT = 48


_LONG = Struct(">q")


@dataclass(frozen=True)
class RangeRead:
    """The prepared read of a slice of a table: how many cells a row has, and where its key is."""

    statement: PreparedStatement
    table: Table
    cells: int
    key_positions: tuple[int, ...]

    def last_key(self, page: Page) -> list[bytes]:
        """Give the partition key of a page's last row: asked for only where a range is cut."""
        starts = compile_splitter(self.cells, 0)(page.data, page.row_count).starts
        row = split_cells(page.data[starts[-2] :], self.cells)
        return [row[position] or b"" for position in self.key_positions]


def prepare_range_read(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    *,
    times: Sequence[str] = (),
    where: str | None = None,
    statics: bool = False,
    limit: int | None = None,
    retry_seconds: float,
) -> RangeRead:
    """Prepare the read of a slice `(start, end]` of the ring, the columns in the given order.

    `columns` hold at least the partition key. `times` are selected behind them. `where` is a
    user's own condition. With `statics` each partition gives one row. Past `limit` rows no more
    are read of a slice, nor of a piece of one that had to be cut.
    """
    selected = ", ".join((*(quote(name) for name in columns), *times))
    statement = connection.prepare(
        f"SELECT {'DISTINCT ' if statics else ''}{selected} FROM {table.name} "  # noqa: S608
        f"WHERE {_in_slice(table)}"
        + (f" AND {where}" if where else "")
        + (f" LIMIT {limit:d}" if limit else "")
        + (" ALLOW FILTERING" if where else ""),
        retry_seconds=retry_seconds,
    )
    positions = tuple(columns.index(name) for name in table.partition_key)
    return RangeRead(statement, table, len(columns) + len(times), positions)


def _in_slice(table: Table) -> str:
    key = ", ".join(quote(name) for name in table.partition_key)
    return f"token({key}) >= ? AND token({key}) <= ?"


def read_pages(
    connection: Connection,
    read: RangeRead,
    token_range: TokenRange,
    *,
    consistency: str,
    fetch_size: int | None,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: Callable[[BaseException], None],
    on_piece: Callable[[TokenRange], None] = lambda piece: None,
    on_split: Callable[[TokenRange, tuple[TokenRange, ...]], None] = lambda piece, pieces: None,
    on_unreadable: Callable[[TokenRange, UnreadableError], None] | None = None,
) -> Iterator[Page]:
    """Read a token range page by page, the next page under way while one is in use.

    At most two pages are in memory. A page that fails is asked for again, from where the last
    good one ended, so nothing is skipped or read twice. When that stays too much for a server
    that answers otherwise, what is left is cut in pieces, until each can be read or a partition
    is alone, which is then read with ever smaller pages.

    `on_split` gets a piece that is cut, and the pieces that take its place, which fill it
    exactly, in order; they may be cut again. `on_piece` gets each piece, in the order of tokens,
    once all its rows were given and the caller asks for more: the whole range, if it was never
    cut. With `on_unreadable`, which gets the piece of a partition that cannot be read, what is
    behind it is read all the same, and the first such error raised in the end; whatever is
    raised, the pieces that `on_piece` was told of are whole, and no others.

    Raises:
        UnreadableError: the server is up and yet cannot give a single partition.
        PermanentError: the server refused.
        TransientError: the server did not answer; what came before was whole.
    """
    reading = _Reading(connection, read, consistency, fetch_size, budget, retry_seconds, on_retry)
    left = deque([_Left(token_range)])
    unreadable: list[UnreadableError] = []
    while left:
        now = left.popleft()
        try:
            rest = yield from _read_until_cut(reading, now)
        except UnreadableError as error:
            unreadable.append(error)
            if on_unreadable is not None:
                on_unreadable(now.piece, error)
            if on_unreadable is None or len(unreadable) >= MOST_UNREADABLE:
                break
            # Were each of many to be tried as long, a run would tell of a broken table late.
            reading.retry_seconds = min(retry_seconds, RETRY_SECONDS_AFTER_AN_UNREADABLE)
            continue
        left.extendleft(reversed(rest))
        if not rest:
            on_piece(now.piece)
        elif len(rest) > 1:
            on_split(now.piece, tuple(each.piece for each in rest))
    if unreadable:
        raise unreadable[0]


@dataclass(frozen=True)
class _Left:
    """What is left to read of a piece: all of it, or what the server's `state` says.

    `token` is set when there is but one partition left, and `key` when that is known as well.
    """

    piece: TokenRange
    state: bytes | None = None
    token: int | None = None
    key: Sequence[bytes] = ()

    @property
    def slice(self) -> tuple[int, int]:
        """The bounds of the query, both inclusive, so that the lowest token of all is read, too.

        A state goes on from its own row, whatever the lower one is.
        """
        return self.piece.bounds if self.token is None else (self.token, self.token)


@dataclass(frozen=True)
class _Asked:
    """A page that was asked for: when, how many rows at most; `ended` gets when it came."""

    future: ResponseFuture
    asked_us: int
    rows: int
    began: float
    ended: list[float]

    @property
    def seconds(self) -> float:
        """How long it took; until now, where the one who waits for it was woken first."""
        return (self.ended[0] if self.ended else time.monotonic()) - self.began


@dataclass
class _Reading:
    """How a range is read.

    `most_rows` of a page falls when one fails or is slow, and grows slowly again.
    """

    connection: Connection
    read: RangeRead
    consistency: str
    fetch_size: int | None
    budget: RateBudget
    retry_seconds: float
    on_retry: Callable[[BaseException], None]
    most_rows: int = 2**31 - 1
    failures: int = 0

    @property
    def page_rows(self) -> int:
        """How many rows the next page shall have."""
        # A page must not be more than a second of the budget, or the load would come in bursts.
        wanted = self.fetch_size or self.connection.page_rows
        return max(1, min(wanted, self.most_rows, self.budget.rows_per_second or wanted))

    def ask(self, left: _Left, state: bytes | None) -> _Asked:
        """Ask for a page."""
        rows = self.page_rows
        asked_us, began = time.time_ns() // 1000, time.monotonic()
        future = self._ask_slice(self.read.statement, left, rows, state)
        ended: list[float] = []
        # The next page comes while this one is in use: only the driver's thread sees when.
        future.add_callback(lambda _page: ended.append(time.monotonic()))
        return _Asked(future, asked_us, rows, began, ended)

    def _ask_slice(
        self,
        statement: PreparedStatement,
        left: _Left,
        rows: int | None = None,
        state: bytes | None = None,
    ) -> ResponseFuture:
        bounds = left.slice
        message = ExecuteMessage(
            statement.query_id,
            [_LONG.pack(bound) for bound in bounds],
            getattr(ConsistencyLevel, self.consistency),
            fetch_size=rows,
            paging_state=state,
            skip_meta=bool(statement.result_metadata),
            result_metadata_id=statement.result_metadata_id,
        )
        query = None
        if self.connection.has_choice and self.read.table.is_murmur3:
            # All of a slice at one host, as far as that goes: it reads on where it has just read.
            turn = left.piece.index + self.failures
            query = Slice(self.read.table.name.keyspace, bounds[0], turn)
        future = self.connection.send(message, query=query, statement=statement)
        future.send_request()
        return future

    def note(self, left: _Left, page: Page, asked: _Asked) -> None:
        """Let a page that came set the size of those to come, and wait until it may pass.

        Raises:
            PermanentError: it holds other partitions than the one that was asked for.
        """
        if page.row_count:
            if left.token is not None:
                found = token_of_key(serialize_key(self.read.last_key(page)))
                if found != left.token:
                    raise PermanentError(
                        f"asked for the rest of the partition with token {left.token} of "
                        f"{self.read.table.name}, the server gave one with token {found}"
                    )
            mean = max(1, len(page.data) // page.row_count)
            size = min(PAGE_BYTES, self.budget.size_per_second or PAGE_BYTES)
            self.connection.page_rows = max(LEAST_PAGE_ROWS, min(MAX_PAGE_ROWS, size // mean))
        seconds = asked.seconds
        if seconds > SLOW_PAGE_SECONDS:
            # Slowness has other reasons, too, and pages of a row each would keep it slow.
            least = min(asked.rows, LEAST_PAGE_ROWS)
            self.most_rows = max(least, int(asked.rows * SLOW_PAGE_SECONDS / 2 / seconds))
        elif self.most_rows <= asked.rows:
            self.most_rows += self.most_rows // 16 + 1
        self.budget.take(page.row_count, len(page.data))

    def delay_after(
        self, error: Exception, left: _Left, attempts: Attempts, *, in_vain: bool
    ) -> float | None:
        """Give the seconds to wait before the next try; None if what is left is to be cut.

        Raises:
            PermanentError, TransientError: neither would help.
        """
        # Where tokens are unknown, nothing can be cut at one.
        if not may_be_too_much(error) or not self.read.table.is_murmur3:
            return attempts.delay_after(error)
        is_alone = left.token is not None
        try:
            delay = attempts.delay_after(error)
        except TransientError as failure:
            if not self.connection.answers():
                raise
            if is_alone:
                raise self.unreadable(left, failure) from error
            return None
        return None if in_vain and not is_alone and self.connection.answers() else delay

    def cut(self, left: _Left, last: Page | None, state: bytes | None) -> list[_Left]:
        """Cut what is left of a piece, behind its last page, in up to two; nothing if it is empty.

        One piece is given back if there is but one partition in it.
        """
        piece = left.piece
        if last is not None:
            key = self.read.last_key(last)
            token = token_of_key(serialize_key(key))
            begun = _Left(replace(piece, end=token), state, token, key)
            return [begun, _Left(replace(piece, start=token))] if token < piece.end else [begun]
        first = self._first_partitions(piece)
        if first == []:
            return []
        if first:
            token = token_of_key(serialize_key(first[0]))
            if len(first) == 1 or token == piece.end:
                return [_Left(piece, None, token, first[0])]
            middle = (token + piece.end) // 2
        elif piece.end - piece.start == 1:
            return [_Left(piece, None, piece.end)]
        else:
            middle = (piece.start + piece.end) // 2
        return [_Left(replace(piece, end=middle)), _Left(replace(piece, start=middle))]

    def _first_partitions(self, piece: TokenRange) -> list[list[bytes]] | None:
        """Give the keys of a piece's first partitions, two at most; None if that is too much, too.

        It only saves halving down to a single token, so that no failure of it matters.
        """
        table = self.read.table
        names = ", ".join(quote(name) for name in table.partition_key)
        try:
            statement = self.connection.prepare(
                f"SELECT DISTINCT {names} FROM {table.name} WHERE {_in_slice(table)} LIMIT 2"  # noqa: S608
            )
            page = page_of(self._ask_slice(statement, _Left(piece)))
        except Exception as error:
            self.on_retry(error)
            return None
        cells = split_cells(page.data, page.row_count * len(table.partition_key))
        step = len(table.partition_key)
        return [
            [cell or b"" for cell in cells[at : at + step]] for at in range(0, len(cells), step)
        ]

    def unreadable(self, left: _Left, failure: TransientError) -> UnreadableError:
        """Say which partition a server that is up cannot read."""
        table = self.read.table
        key = zip(table.partition_key, left.key, strict=False)
        shown = show_key([(name, table.type_of(name), cell) for name, cell in key])
        return UnreadableError(
            f"the partition with token {left.token} of {table.name}"
            + (f" ({shown})" if shown else "")
            + f" cannot be read: {failure}; compact or delete it, or raise the server's limits in "
            "cassandra.yaml (tombstone_failure_threshold, read-size thresholds, timeouts)"
        )


def _read_until_cut(reading: _Reading, left: _Left) -> Generator[Page, None, list[_Left]]:
    """Give the pages of a piece; return what is left of it when that must be cut."""
    state, last = left.state, None
    pending = reading.ask(left, state)
    while True:
        attempts, refused = Attempts(reading.retry_seconds), 0
        while True:
            asked, rows = pending, pending.rows
            try:
                page = replace(page_of(asked.future), asked_us=asked.asked_us)
                break
            except Exception as error:
                # Rows may be far larger than those before them, and the page too large to be sent.
                reading.most_rows = max(1, rows // 4)
                refused += may_be_too_much(error)
                reading.failures += 1
                in_vain = refused >= TRIES_BEFORE_A_CUT or rows == 1
                delay = reading.delay_after(error, left, attempts, in_vain=in_vain)
                reading.on_retry(error)
                if delay is None:
                    return reading.cut(left, last, state)
                # A smaller page is another request, and a server that refuses one is not busy.
                time.sleep(0.0 if may_be_too_much(error) and rows > 1 else delay)
                pending = reading.ask(left, state)
        reading.note(left, page, asked)
        state = page.next_state
        if state is not None:
            pending = reading.ask(left, state)
        if page.row_count:
            last = page
            yield page
        if state is None:
            return []


def read_rows(
    connection: Connection,
    statement: PreparedStatement,
    keys: Iterable[tuple[Any, list[bytes | None]]],
    *,
    consistency: str,
    retry_seconds: float,
    on_retry: Callable[[BaseException], None],
    on_rejected: Callable[[Any, PermanentError], None] | None = None,
    in_flight: int = READS_IN_FLIGHT,
    serial_consistency: str | None = None,
    page_rows: int | None = None,
    state: bytes | None = None,
) -> Iterator[tuple[Any, Page]]:
    """Read single rows by their bound keys, a bounded number at a time, in the given order.

    Each key comes with a value of the caller's, which is given back beside the page. A key that
    the server rejects, being too long, is left out where `on_rejected` is told of it. A statement
    that is tried again may have been carried out: a conditional update must bear that. With
    `page_rows` a key gives a page of so many rows: the first, or the one that `state` asks for.

    Raises:
        PermanentError, TransientError: a row could not be read.
    """
    serial = getattr(ConsistencyLevel, serial_consistency) if serial_consistency else None
    route = connection.router(statement)

    def ask(values: list[bytes | None], query: Key | None) -> tuple[ResponseFuture, int]:
        message = ExecuteMessage(
            statement.query_id,
            values,
            getattr(ConsistencyLevel, consistency),
            serial_consistency_level=serial,
            fetch_size=page_rows,
            paging_state=state,
            skip_meta=bool(statement.result_metadata),
            result_metadata_id=statement.result_metadata_id,
        )
        future = connection.send(message, query=query, statement=statement)
        asked_us = time.time_ns() // 1000
        future.send_request()
        return future, asked_us

    flying: deque[tuple[Any, list[bytes | None], tuple[ResponseFuture, int]]] = deque()

    def settle() -> Iterator[tuple[Any, Page]]:
        mark, values, asked = flying.popleft()
        reject = partial(on_rejected, mark) if on_rejected else None
        # Of the hosts in turn: the one that failed need not be asked again.
        again = partial(ask, values, None)
        page = _row_of(asked, again, Attempts(retry_seconds), on_retry, reject)
        if page is not None:
            yield mark, page

    for mark, values in keys:
        if len(flying) >= in_flight:
            yield from settle()
        flying.append((mark, values, ask(values, route(values))))
    while flying:
        yield from settle()


def _row_of(
    asked: tuple[ResponseFuture, int],
    ask_again: Callable[[], tuple[ResponseFuture, int]],
    attempts: Attempts,
    on_retry: Callable[[BaseException], None],
    on_rejected: Callable[[PermanentError], None] | None,
) -> Page | None:
    """Wait for a row; None if the server rejects its key, and `on_rejected` was told so."""
    future, asked_us = asked
    while True:
        try:
            return replace(page_of(future), asked_us=asked_us)
        except Exception as error:
            try:
                delay = attempts.delay_after(error)
            except PermanentError as refusal:
                if on_rejected is None or not is_about_row(error):
                    raise
                on_rejected(refusal)
                return None
            on_retry(error)
            time.sleep(delay)
            future, asked_us = ask_again()
