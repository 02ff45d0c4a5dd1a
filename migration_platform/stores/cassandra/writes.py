"""Cassandra: write rows as single statements and batches, a bounded number of them in flight.

What is sent is a ready-made body, through the driver's `ResponseFuture`. The driver's own retries
are off: it would resend a write with the timestamp of the first try, and a list that is not
frozen would then hold its elements twice.
"""

# The driver has no type hints: pyright infers wrong types from its attributes' first values.
# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportOperatorIssue=false

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from struct import Struct

from cassandra import ConsistencyLevel, ProtocolVersion
from cassandra.query import PreparedStatement

from migration_platform.cql.cell_times import NO_TTL, CellTime, bind_time, bind_ttl
from migration_platform.cql.names import quote
from migration_platform.cql.types import parse_type
from migration_platform.errors import PermanentError, is_about_row
from migration_platform.pacing.rate import RateBudget
from migration_platform.pacing.retries import Attempts
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import Connection

BATCH_BYTES = 5_100
"""Just below the 5 KiB at which a server warns of a large batch, on the server's own scale."""
CELL_OVERHEAD_BYTES = 12
"""A server counts a timestamp, a TTL and a deletion time (16 bytes) for each cell of a batch,
where the bytes here already hold a length (4)."""
BATCH_PARTITIONS = 10
"""A server warns of more (`unlogged_batch_across_partitions_warn_threshold`, by default)."""
SHARED_PARTITION_BYTES, SHARED_CELL_BYTES = 34, 4
"""What Cassandra 5 counts beyond the scale above. It looks at batches of several partitions only,
so that only those are held to it. Many small elements of a collection still count for more."""
WRITES_IN_FLIGHT = 48
"""Of those whose number does not adapt: the few that read before they write."""
BYTES_IN_FLIGHT = 8_000_000
"""However many requests there may be: of large rows fewer keep a server as busy."""

_SHORT, _INT, _LONG = Struct(">H"), Struct(">i"), Struct(">q")
_FLAG_VALUES, _FLAG_TIMESTAMP = 0x01, 0x20
_UNLOGGED, _PREPARED = b"\x01", b"\x01"
_EXECUTE, _BATCH = 0x0A, 0x0D


@dataclass(frozen=True)
class Part:
    """Some cells of one row that share a time: one statement of a write.

    `statement` is its position among the writer's, `values` what is bound beside the time.
    `renewed` parts get a newer writetime on each further try: an unfrozen list's elements have
    names of their own, and only a newer whole list removes what an unanswered try has written.
    """

    statement: int
    values: bytes
    time: CellTime
    renewed: bool = False


Item = bytes | tuple[Part, ...]
"""A row to be written: all that the first statement binds, or the parts that make it up."""


class _Continued(tuple):
    """A part of a row of which another part is counted."""

    __slots__ = ()


OnRejected = Callable[[Item, bool, PermanentError], None]
"""Told of a row, or of some of its parts, that the server rejects for good, and whether that row
counts as written otherwise."""


@dataclass(slots=True)
class Chunk:
    """Rows that travel in one request: `size` is theirs on the server's scale of batches."""

    items: list[Item]
    rows: int
    size: int
    routing_key: bytes | None
    partitions: int = 1


def join_chunks(
    chunks: Iterable[tuple[Hashable, Chunk]], most: int = BATCH_PARTITIONS
) -> Iterator[Chunk]:
    """Join what goes to one place, in its order, up to `most` partitions and the limit of size.

    Places take turns as their chunks come, so that none of them is left idle.
    """
    waiting: dict[Hashable, Chunk] = {}
    for place, chunk in chunks:
        first = waiting.get(place)
        if first is None:
            waiting[place] = chunk
        elif first.partitions < most and first.size + chunk.size <= BATCH_BYTES:
            first.items += chunk.items
            first.rows += chunk.rows
            first.size += chunk.size
            first.partitions += 1
        else:
            waiting[place] = chunk
            yield first
    yield from waiting.values()


@dataclass(frozen=True)
class WriteStatement:
    """A prepared write. `times_first` says on which side of the values its time is bound."""

    prepared: PreparedStatement
    times_first: bool = False


def prepare_insert(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    *,
    using: str,
    retry_seconds: float,
) -> WriteStatement:
    """Prepare the write of a row, its columns in the given order."""
    names = ", ".join(quote(name) for name in columns)
    marks = ", ".join("?" * len(columns))
    return WriteStatement(
        connection.prepare(
            f"INSERT INTO {table.name} ({names}) VALUES ({marks}){using}",  # noqa: S608
            retry_seconds=retry_seconds,
        )
    )


def prepare_update(
    connection: Connection,
    table: Table,
    keys: Sequence[str],
    values: Sequence[tuple[str, str]],
    *,
    using: str,
    retry_seconds: float,
) -> WriteStatement:
    """Prepare the write of some of a row's cells, which leaves its marker alone.

    `values` are columns and their types; they are bound before the key. A set or map takes
    elements, and a user-defined type one value for each field, so that each can have a time of
    its own.
    """
    slots = []
    for column, type_text in values:
        name, cql_type = quote(column), parse_type(type_text)
        kind = cql_type.name if cql_type.is_multicell else cql_type.name == "counter" and "counter"
        if kind == "udt":
            slots += [f"{name}.{quote(field)} = ?" for field, _ in cql_type.fields]
        elif kind in ("set", "map", "counter"):
            slots.append(f"{name} = {name} + ?")
        else:
            slots.append(f"{name} = ?")
    key = " AND ".join(f"{quote(name)} = ?" for name in keys)
    return WriteStatement(
        connection.prepare(
            f"UPDATE {table.name}{using} SET {', '.join(slots)} WHERE {key}",  # noqa: S608
            retry_seconds=retry_seconds,
        ),
        times_first=True,
    )


class _Heads:
    """What stands before a statement's values, in an EXECUTE and in a BATCH."""

    def __init__(self, statement: WriteStatement, values: int, level: bytes, version: int):
        prepared = statement.prepared
        flags = _INT.pack if ProtocolVersion.uses_int_query_flags(version) else _one_byte
        query_id = _SHORT.pack(len(prepared.query_id)) + prepared.query_id
        metadata_id = b""
        if ProtocolVersion.uses_prepared_metadata(version):
            metadata_id = _SHORT.pack(len(prepared.result_metadata_id))
            metadata_id += prepared.result_metadata_id
        count = _SHORT.pack(values)
        self.prepared = prepared
        self.times_first = statement.times_first
        self.overhead = CELL_OVERHEAD_BYTES * values
        self.execute = query_id + metadata_id + level + flags(_FLAG_VALUES | _FLAG_TIMESTAMP)
        self.execute += count
        self.batch = _PREPARED + query_id + count


class _Write:
    """A request on its way: all but its timestamp and its TTLs, which each try gets anew.

    It is also the "query" by which the driver picks a host (keyspace and routing_key).
    """

    __slots__ = (
        "attempts", "body", "has_waited", "items", "keyspace", "opcode", "routing_key", "rows",
        "sent", "timestamp_us",
    )  # fmt: skip

    tracing = False
    custom_payload = None
    consistency_level = None
    is_idempotent = True
    table = None

    def __init__(self, items: list[Item], rows: int, keyspace: str, routing_key: bytes | None):
        self.items = items
        self.rows = rows
        self.keyspace = keyspace
        self.routing_key = routing_key
        self.opcode = 0
        self.body = b""
        self.attempts: Attempts | None = None
        self.timestamp_us = 0
        self.has_waited = False
        self.sent = 0.0

    def send_body(self, f, protocol_version):  # the driver's name
        f.write(self.body)
        f.write(_LONG.pack(self.timestamp_us))


class Writer:
    """Writes rows, as many requests in flight as help; `flush` before counting on them.

    How many that are is known to the connection's window, which outlives the writer. All state
    belongs to the calling thread: the driver's thread only hands back what ended.
    `ttl_seconds` is bound where a part does not expire at a second of its own. With `has_rows`
    off, what is written are static cells and counts as no rows. A row that the server rejects for
    its values is handed to `on_rejected`, if there is one; the rows around it are written.
    """

    def __init__(
        self,
        connection: Connection,
        statements: Sequence[WriteStatement],
        table: Table,
        *,
        consistency: str,
        budget: RateBudget,
        retry_seconds: float,
        on_retry: Callable[[BaseException], None],
        ttl_seconds: int | None = None,
        has_rows: bool = True,
        on_rejected: OnRejected | None = None,
    ):
        self.rows_written = 0
        self.rows_left_alone = 0
        self.parts_expired = 0
        self._connection = connection
        self._keyspace = table.name.keyspace
        self._budget = budget
        self._retry_seconds = retry_seconds
        self._on_retry = on_retry
        self._on_rejected = on_rejected
        self._ttl = NO_TTL if ttl_seconds is None else bind_ttl(ttl_seconds)
        self._row_weight = 1 if has_rows else 0
        self._window = connection.window
        self._flying = self._flying_bytes = 0
        self._ended: SimpleQueue[tuple[_Write, BaseException | None, float]] = SimpleQueue()
        self._waiting: list[tuple[float, _Write]] = []
        self._last_timestamp_us = 0

        version = connection.protocol_version
        level = _SHORT.pack(getattr(ConsistencyLevel, consistency))
        flags = _INT.pack if ProtocolVersion.uses_int_query_flags(version) else _one_byte
        self._heads = [
            _Heads(statement, len(statement.prepared.column_metadata), level, version)
            for statement in statements
        ]
        self._batch_tail = level + flags(_FLAG_TIMESTAMP)

    def write_group(self, items: Sequence[Item], routing_key: bytes | None) -> None:
        """Write rows that belong together, in as few requests as the server's limits allow.

        Raises:
            PermanentError, TransientError: an earlier or this request could not be written.
        """
        for chunk in self._cut(items, routing_key):
            self._begin(chunk)

    def write_groups(
        self,
        groups: Iterable[tuple[Hashable, bytes | None, Sequence[Item]]],
        most: int = BATCH_PARTITIONS,
    ) -> None:
        """Write groups, each a partition's; up to `most` of one place share a request.

        A group is its place, which is the same for the same replicas, its routing key, its rows.

        Raises:
            PermanentError, TransientError: an earlier or this request could not be written.
        """
        cells = self._heads[0].overhead // CELL_OVERHEAD_BYTES
        per_row = cells * SHARED_CELL_BYTES

        def cut() -> Iterator[tuple[Hashable, Chunk]]:
            for place, routing_key, items in groups:
                for chunk in self._cut(items, routing_key):
                    chunk.size += SHARED_PARTITION_BYTES + per_row * len(chunk.items)
                    yield place, chunk

        for chunk in join_chunks(cut(), most):
            self._begin(chunk)

    def _cut(self, items: Sequence[Item], routing_key: bytes | None) -> Iterator[Chunk]:
        """Cut a group into what fits into a request; never empty."""
        heads = self._heads
        overhead = heads[0].overhead
        chunk: list[Item] = []
        size = rows = 0
        for item in items:
            pieces: Sequence[Item] = (item,)
            if isinstance(item, bytes):
                item_size = len(item) + overhead
            else:
                item_size = sum(len(p.values) + heads[p.statement].overhead for p in item)
                if item_size > BATCH_BYTES:
                    pieces = [item[:1], *(_Continued((part,)) for part in item[1:])]
            counted = False
            for piece in pieces:
                piece_size = (
                    item_size
                    if len(pieces) == 1
                    else len(piece[0].values) + heads[piece[0].statement].overhead  # type: ignore
                )
                if chunk and size + piece_size > BATCH_BYTES:
                    yield Chunk(chunk, rows, size, routing_key)
                    chunk, size, rows = [], 0, 0
                chunk.append(piece)
                size += piece_size
                rows += not counted
                counted = True
        if chunk:
            yield Chunk(chunk, rows, size, routing_key)

    def flush(self) -> None:
        """Wait until every row is acknowledged.

        Raises:
            PermanentError, TransientError: a row could not be written.
        """
        while self._flying or self._waiting:
            self._settle_one()

    def _begin(self, chunk: Chunk) -> None:
        self._budget.take(chunk.rows, sum(map(_size_of, chunk.items)))
        rows = chunk.rows * self._row_weight
        write = _Write(chunk.items, rows, self._keyspace, chunk.routing_key)
        while True:
            if self._flying + len(self._waiting) >= self._window.room(time.monotonic()):
                write.has_waited = True
            elif self._flying_bytes < BYTES_IN_FLIGHT:
                break
            self._settle_one()
        self._send(write)

    def _render(self, write: _Write) -> _Heads | None:
        """Write the request's body as of now; None if all of it has expired."""
        heads, failures = self._heads, write.attempts.failures if write.attempts else 0
        found: list[tuple[_Heads, bytes]] = []
        now = time.time()
        for item in write.items:
            if isinstance(item, bytes):
                found.append((heads[0], item))
                continue
            for part in item:
                writetime, expires = part.time
                if part.renewed and writetime is not None:
                    writetime += failures
                bound = bind_time(writetime, expires, now, self._ttl)
                if bound is None:
                    self.parts_expired += 1
                    continue
                head = heads[part.statement]
                values = bound + part.values if head.times_first else part.values + bound
                found.append((head, values))
        if not found:
            return None
        head = found[0][0]
        if len(found) == 1:
            write.opcode, write.body = _EXECUTE, head.execute + found[0][1]
        else:
            parts = [_UNLOGGED, _SHORT.pack(len(found))]
            for each, values in found:
                parts += (each.batch, values)
            parts.append(self._batch_tail)
            write.opcode, write.body = _BATCH, b"".join(parts)
        return head

    def _send(self, write: _Write) -> None:
        # What never changes is rendered once; parts carry what each try says anew.
        head = self._render(write)
        if head is None:
            self.rows_written += write.rows
            return
        # Each try gets a newer timestamp: the tombstone that a whole list brings along then
        # removes what an unanswered earlier try may have written.
        timestamp_us = max(self._last_timestamp_us + 1, time.time_ns() // 1000)
        self._last_timestamp_us = write.timestamp_us = timestamp_us
        self._flying += 1
        self._flying_bytes += len(write.body)
        statement = head.prepared if write.opcode == _EXECUTE else None
        future = self._connection.send(write, query=write, statement=statement)
        put = self._ended.put
        write.sent = time.monotonic()
        future.add_callbacks(
            lambda _result, write=write: put((write, None, time.monotonic())),
            lambda error, write=write: put((write, error, time.monotonic())),
        )
        future.send_request()

    def _settle_one(self) -> None:
        """Take one ended request, or send one whose time to be tried again has come."""
        timeout = None
        if self._waiting:
            due, write = self._waiting[0]
            timeout = due - time.monotonic()
            if timeout <= 0:
                self._waiting.pop(0)
                self._send(write)
                return
        try:
            write, error, ended = self._ended.get(timeout=timeout)
        except Empty:
            return
        self._flying -= 1
        self._flying_bytes -= len(write.body)
        if error is None:
            self.rows_written += write.rows
            # The driver's future and its timer hold each other, and the request, for some time.
            write.items, write.body = [], b""
            if write.has_waited:
                self._window.note(write.sent, ended)
            return
        write.attempts = write.attempts or Attempts(self._retry_seconds)
        try:
            delay = write.attempts.delay_after(error)
        except PermanentError as refusal:
            if self._on_rejected is None or not is_about_row(error):
                raise
            self._split_or_reject(write, refusal, self._on_rejected)
            return
        self._on_retry(error)
        self._window.overload(ended)
        # It has waited for its next try, not for room.
        write.has_waited = False
        # Of the hosts in turn: the one that failed need not be asked again.
        write.routing_key = None
        self._wait(write, delay)

    def _wait(self, write: _Write, delay: float) -> None:
        self._waiting.append((time.monotonic() + delay, write))
        self._waiting.sort(key=lambda entry: entry[0])

    def _split_or_reject(
        self, write: _Write, refusal: PermanentError, on_rejected: OnRejected
    ) -> None:
        """Send the rows of a batch that was refused one by one; hand over the one that was alone.

        Raises:
            PermanentError: nothing could be written any more, whatever the row.
        """
        if len(write.items) == 1:
            item = write.items[0]
            # A table that was changed refuses the statement itself.
            for statement in {0} if isinstance(item, bytes) else {p.statement for p in item}:
                cql = self._heads[statement].prepared.query_string
                self._connection.prepare(cql, retry_seconds=self._retry_seconds)
            on_rejected(item, not isinstance(item, _Continued), refusal)
            return
        failures = write.attempts.failures if write.attempts else 0
        for item in write.items:
            rows = 0 if isinstance(item, _Continued) else self._row_weight
            alone = _Write([item], rows, write.keyspace, write.routing_key)
            # Parts that were tried before still get a newer time.
            alone.attempts = Attempts(self._retry_seconds, failures, time.monotonic())
            self._wait(alone, 0.0)


def _size_of(item: Item) -> int:
    return len(item) if isinstance(item, bytes) else sum(len(part.values) for part in item)


def _one_byte(flags: int) -> bytes:
    return bytes((flags,))
