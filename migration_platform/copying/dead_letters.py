"""Rows that could not be written, kept until they are: a table beside those that track runs.

A dead letter holds its row's key at the origin, by which the row can be read again, and no other
value. It lies in the slice of the ring that its token names, whatever `token_ranges` is declared.
"""

# The driver has no type hints: pyright infers wrong types from its attributes' first values.
# pyright: reportOptionalMemberAccess=false

import hashlib
import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from cassandra import ConsistencyLevel

from migration_platform.counts import BadRow
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import split_cells
from migration_platform.declaration.migration import Migration
from migration_platform.errors import MigrationError
from migration_platform.pacing.retries import Attempts, ask_patiently
from migration_platform.plan.model import Plan
from migration_platform.stores.records import Records
from migration_platform.token_ranges import MIN_TOKEN, TokenRange, serialize_key, token_of_key

TABLE = "dead_letters"
COLUMNS = {
    "migration": "text",
    "slice": "int",
    "origin_token": "bigint",
    "row_id": "blob",
    "layer": "text",
    "origin_key": "blob",
    "key_text": "text",
    "column_name": "text",
    "cause": "text",
    "token_range": "text",
    "run_id": "text",
    "set_aside_at": "timestamp",
}
KEY = "(migration, slice), origin_token, row_id"
SLICE_BITS = 10
"""1024 slices: of ten million dead letters each holds some ten thousand."""
MAX_CAUSE = 500
MAX_KEY_TEXT = 1_000
WRITES_IN_FLIGHT = 64
READ_ROWS = 1_000
STATEMENT_SECONDS = 10.0
MAX_SAMPLES = 20
MAX_CAUSES = 10


@dataclass(frozen=True)
class DeadLetter:
    """A row that was rejected: where it is at the origin, and why it could not be written."""

    layer: str
    token: int
    key: bytes
    key_text: str
    column: str
    cause: str
    token_range: str = ""
    run_id: str = ""
    set_aside_at: datetime | None = None

    @property
    def row_id(self) -> bytes:
        """16 bytes that identify the row: its own key may be too long for a key column."""
        return hashlib.sha256(self.layer.encode() + b":" + self.key).digest()[:16]

    @property
    def slice(self) -> int:
        """The slice of the ring that the token lies in."""
        return slice_of(self.token)


def slice_of(token: int) -> int:
    """Give the number of the slice of the ring that holds a token."""
    return (token - MIN_TOKEN) >> (64 - SLICE_BITS)


def to_dead_letter(
    plan: Plan, bad: BadRow, token_range: TokenRange | None, run_id: str
) -> DeadLetter:
    """Make the dead letter of a row."""
    layer = next(layer for layer in plan.layers if layer.name == bad.layer)
    cells = dict(zip(layer.origin_key, split_cells(bad.key, len(layer.origin_key)), strict=True))
    partition = [cells[name] or b"" for name in plan.origin.partition_key]
    return DeadLetter(
        layer=bad.layer,
        token=token_of_key(serialize_key(partition)),
        key=bad.key,
        key_text=_cut(bad.shown, MAX_KEY_TEXT),
        column=bad.column,
        cause=_cut(bad.cause, MAX_CAUSE),
        token_range=token_range.key if token_range else "",
        run_id=run_id,
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def dead_letters_key(migration: Migration) -> str:
    """Name a migration as its dead letters do: several may have one target."""
    origin, target = migration.origin, migration.target
    return f"{origin.store}/{origin.table} to {target.store}/{target.table}"


def open_dead_letters(connection: Records | None, migration: Migration) -> "DeadLetterStore | None":
    """Give the dead letters of a migration; None where this cluster never had any."""
    if connection is None:
        return None
    keyspace = connection.cluster.metadata.keyspaces.get(migration.tracking_keyspace)
    if keyspace is None or TABLE not in keyspace.tables:
        return None
    return DeadLetterStore(connection, migration)


class DeadLetterStore:
    """The dead letters of one migration; reads and writes are tried again for a while."""

    def __init__(self, connection: Records, migration: Migration):
        self._connection = connection
        self._table = TableName(migration.tracking_keyspace, TABLE)
        self._consistency = getattr(ConsistencyLevel, migration.tracked_at.consistency)
        self._unusable = f"the dead letters in {self._table} cannot be read or written"
        self._migration = dead_letters_key(migration)
        self._retry_seconds = migration.retry_seconds
        self._statements: dict[str, object] = {}

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Store dead letters; one of the same row is replaced.

        Raises:
            MigrationError: they could not be stored.
        """
        marks = ", ".join("?" * len(COLUMNS))
        cql = f"INSERT INTO {self._table} ({', '.join(COLUMNS)}) VALUES ({marks})"  # noqa: S608
        now = datetime.now(UTC)
        self._send(
            cql,
            [
                (
                    *self._place(letter),
                    letter.layer,
                    letter.key,
                    letter.key_text,
                    letter.column,
                    letter.cause,
                    letter.token_range,
                    letter.run_id,
                    now,
                )
                for letter in letters
            ],
        )

    def remove(self, letters: Iterable[DeadLetter]) -> None:
        """Remove dead letters whose rows have arrived, or are no longer there.

        Raises:
            MigrationError: they could not be removed.
        """
        cql = (
            f"DELETE FROM {self._table} WHERE migration = ? AND slice = ? "  # noqa: S608
            "AND origin_token = ? AND row_id = ?"
        )
        self._send(cql, [self._place(letter) for letter in letters])

    def slices(self) -> list[int]:
        """Name the slices in which there are dead letters."""
        cql = f"SELECT DISTINCT migration, slice FROM {self._table}"  # noqa: S608
        return sorted(row[1] for row in self._read(cql, ()) if row[0] == self._migration)

    def read(self, slice_number: int, piece: TokenRange | None = None) -> Iterator[DeadLetter]:
        """Read the dead letters of a slice, or of the part of it that is in a piece."""
        chosen = ", ".join(list(COLUMNS)[2:])
        cql = f"SELECT {chosen} FROM {self._table} WHERE migration = ? AND slice = ?"  # noqa: S608
        values: tuple = (self._migration, slice_number)
        if piece is not None:
            cql += " AND origin_token > ? AND origin_token <= ?"
            values += (piece.start, piece.end)
        for token, _, layer, key, text, column, cause, range_key, run_id, at in self._read(
            cql, values
        ):
            yield DeadLetter(layer, token, key, text, column, cause, range_key, run_id, at)

    def read_all(self) -> Iterator[DeadLetter]:
        """Read all dead letters, one slice after the other."""
        for slice_number in self.slices():
            yield from self.read(slice_number)

    def _place(self, letter: DeadLetter) -> tuple:
        return self._migration, letter.slice, letter.token, letter.row_id

    def _bind(self, cql: str, values: tuple) -> object:
        statement = self._statements.get(cql)
        if statement is None:
            statement = self._connection.prepare(cql, retry_seconds=self._retry_seconds)
            self._statements[cql] = statement
        bound = statement.bind(values)  # type: ignore[attr-defined]
        bound.consistency_level = self._consistency
        bound.fetch_size = READ_ROWS
        return bound

    def _read(self, cql: str, values: tuple) -> Iterator[tuple]:
        bound, state = self._bind(cql, values), None
        session = self._connection.session
        while True:
            result = ask_patiently(
                partial(session.execute, bound, timeout=STATEMENT_SECONDS, paging_state=state),
                self._retry_seconds,
                self._unusable,
            )
            yield from result.current_rows
            state = result.paging_state
            if state is None:
                return

    def _send(self, cql: str, rows: list[tuple]) -> None:
        session = self._connection.session
        attempts = Attempts(self._retry_seconds)
        waiting = [self._bind(cql, row) for row in rows]
        while waiting:
            failed, error = [], None
            for first in range(0, len(waiting), WRITES_IN_FLIGHT):
                some = waiting[first : first + WRITES_IN_FLIGHT]
                sent = [session.execute_async(bound, STATEMENT_SECONDS) for bound in some]
                for bound, future in zip(some, sent, strict=True):
                    try:
                        future.result()
                    except Exception as failure:
                        failed.append(bound)
                        error = failure
            waiting = failed
            if error is not None:
                try:
                    time.sleep(attempts.delay_after(error))
                except MigrationError as failure:
                    raise type(failure)(f"{self._unusable}: {failure}") from error


def remove_settled(
    store: DeadLetterStore, slices: Iterable[int], piece: TokenRange, still: set[tuple[str, bytes]]
) -> int:
    """Remove the dead letters of a piece that was copied whole, except rows that failed again.

    `slices` are those in which earlier runs left dead letters; `still` are layer and key of
    the rows that could not be written now either.
    """
    low, high = slice_of(piece.start), slice_of(piece.end)
    removed = 0
    for number in slices:
        if not low <= number <= high:
            continue
        gone: list[DeadLetter] = []
        for letter in store.read(number, piece):
            if (letter.layer, letter.key) in still:
                continue
            gone.append(letter)
            if len(gone) >= READ_ROWS:
                store.remove(gone)
                removed, gone = removed + len(gone), []
        store.remove(gone)
        removed += len(gone)
    return removed


@dataclass(frozen=True)
class DeadLetterSummary:
    """How many dead letters there are, why, and some of them.

    `within` of them lie where the reader asked for, `first_within` is the first of these.
    """

    count: int = 0
    causes: tuple[tuple[str, int], ...] = ()
    samples: tuple[DeadLetter, ...] = ()
    within: int = 0
    first_within: DeadLetter | None = None


def summarize(
    letters: Iterable[DeadLetter], places: Sequence[TokenRange] = ()
) -> DeadLetterSummary:
    """Count dead letters by cause; causes that differ only in numbers count as one.

    `places` are parts of the ring that do not overlap.
    """
    causes: Counter[str] = Counter()
    samples: list[DeadLetter] = []
    ordered = sorted(places, key=lambda place: place.end)
    ends = [place.end for place in ordered]
    within, first_within = 0, None
    for letter in letters:
        at = bisect_left(ends, letter.token)
        if at < len(ordered) and letter.token in ordered[at]:
            within, first_within = within + 1, first_within or letter
        kind = re.sub(r"[0-9][0-9.,]*", "…", letter.cause)
        # This bounds memory when all causes are different.
        causes[kind if kind in causes or len(causes) < 100 * MAX_CAUSES else "other causes"] += 1
        if len(samples) < MAX_SAMPLES:
            samples.append(letter)
    return DeadLetterSummary(
        causes.total(), tuple(causes.most_common(MAX_CAUSES)), tuple(samples), within, first_within
    )


def read_summary(
    connection: Records | None, migration: Migration, places: Sequence[TokenRange] = ()
) -> DeadLetterSummary:
    """Read how many dead letters there are, in all and in `places`; none where none are stored.

    Raises:
        MigrationError: they could not be read.
    """
    store = open_dead_letters(connection, migration)
    return summarize(store.read_all(), places) if store else DeadLetterSummary()


def with_cause(letter: DeadLetter, bad: BadRow, run_id: str) -> DeadLetter:
    """Give the dead letter of a row that was rejected again."""
    return replace(letter, column=bad.column, cause=_cut(bad.cause, MAX_CAUSE), run_id=run_id)
