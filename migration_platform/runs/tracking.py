"""Runs and their ranges in tables beside the target: what was asked for, and what came of it.

`cdm_run_info` and `cdm_run_details` are those of the Cassandra Data Migrator, with its states and
texts, so that its monitoring queries work. A row of the details is inclusive at both ends, unlike
a `TokenRange`. `migration_runs` says to which migration and Dagster run a tracked run belongs.
"""

# The driver carries no types.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import re
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.query import PreparedStatement

from migration_platform.comparing.verdicts import RangeVerdict
from migration_platform.counts import RangeCounts
from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError, MigrationError
from migration_platform.pacing.retries import ask_patiently
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.own_tables import TableForm, _refusal, ensure_tables
from migration_platform.token_ranges import MAX_TOKEN, TokenRange

NOT_STARTED, STARTED, ENDED = "NOT_STARTED", "STARTED", "ENDED"
PASS, FAIL, DIFF, DIFF_CORRECTED = "PASS", "FAIL", "DIFF", "DIFF_CORRECTED"
MIGRATE, VALIDATE, GUARDRAIL = "MIGRATE", "VALIDATE", "GUARDRAIL"
STATEMENT_SECONDS = 10.0
WRITES_IN_FLIGHT = 128
ENDING_SECONDS = 5.0
"""How long a run that was stopped tries to note so: whoever stopped it does not wait long."""
MAX_REASON = 500
_REASON = "; Reason: "
"""In `run_info`, behind the counters: why a range failed or differs."""

COUNTERS = {
    MIGRATE: ("Read", "Write", "Skipped", "Error", "Partitions Passed", "Partitions Failed"),
    VALIDATE: (
        "Read",
        "Mismatch",
        "Corrected Mismatch",
        "Missing",
        "Corrected Missing",
        "Valid",
        "Skipped",
        "Error",
        "Partitions Passed",
        "Partitions Failed",
    ),
    GUARDRAIL: ("Read", "Valid", "Skipped", "Large", "Partitions Passed", "Partitions Failed"),
}
"""What is counted in a run of each type, in the order of its text."""


# -- tables --------------------------------------------------------------------------------------


TABLES = {
    "cdm_run_info": TableForm(
        {
            "table_name": "text",
            "run_id": "bigint",
            "run_type": "text",
            "prev_run_id": "bigint",
            "start_time": "timestamp",
            "end_time": "timestamp",
            "run_info": "text",
            "status": "text",
        },
        "table_name, run_id",
    ),
    "cdm_run_details": TableForm(
        {
            "table_name": "text",
            "run_id": "bigint",
            "start_time": "timestamp",
            "token_min": "bigint",
            "token_max": "bigint",
            "status": "text",
            "run_info": "text",
        },
        "(table_name, run_id), token_min",
    ),
    "migration_runs": TableForm(
        {
            "migration": "text",
            "run_id": "bigint",
            "table_name": "text",
            "run_type": "text",
            "dagster_run_id": "text",
            "fingerprint": "text",
            "comparison": "text",
            "prev_run_id": "bigint",
            "emptied": "boolean",
            "begun": "timestamp",
            "last_seen": "timestamp",
            "settled": "boolean",
        },
        "migration, run_id",
        "CLUSTERING ORDER BY (run_id DESC)",
    ),
}


class TrackingTables:
    """The tables of a tracking keyspace: reads, and writes that are tried again for a while.

    Writes of a run are sent without waiting; `flush` waits for them. Each carries its own time,
    so that one that is sent again never undoes a later one.
    """

    def __init__(
        self, connection: Connection, keyspace: str, *, consistency: str, retry_seconds: float
    ):
        self.keyspace = keyspace
        self.retry_seconds = retry_seconds
        self._connection = connection
        self._consistency = getattr(ConsistencyLevel, consistency)
        self._statements: dict[str, PreparedStatement] = {}
        self._sent: deque[tuple[Any, Any]] = deque()
        self._lock = threading.Lock()
        self._last_us = 0

    def read(
        self, table: str, *, retry_seconds: float | None = None, **key: Any
    ) -> list[dict[str, Any]]:
        """Read the rows with this key, or with its first columns; columns by name."""
        where = " AND ".join(f"{quote(column)} = ?" for column in key)
        cql = f"SELECT * FROM {TableName(self.keyspace, table)}" + (  # noqa: S608
            f" WHERE {where}" if where else ""
        )
        rows: list[dict[str, Any]] = []
        page: bytes | None = None
        while True:
            result = self._execute(cql, list(key.values()), retry_seconds, page)
            names: list[str] = list(result.column_names or ())
            rows += [dict(zip(names, row, strict=True)) for row in result.current_rows]
            page = result.paging_state
            if page is None:
                return rows

    def write(self, table: str, **values: Any) -> None:
        """Send a row's columns, without waiting for the answer."""
        while len(self._sent) >= WRITES_IN_FLIGHT:
            self._settle(*self._sent.popleft())
        bound = self._bind(self._insert(table, values), [*values.values(), self._next_us()])
        self._sent.append((self._connection.session.execute_async(bound, STATEMENT_SECONDS), bound))

    def write_now(self, table: str, *, retry_seconds: float | None = None, **values: Any) -> None:
        """Write a row's columns and wait for the answer; for any thread."""
        cql = self._insert(table, values)
        self._execute(cql, [*values.values(), self._next_us()], retry_seconds)

    def flush(self) -> None:
        """Wait until everything that was sent is acknowledged.

        Raises:
            PermanentError, TransientError: a write was refused, or not answered for too long.
        """
        while self._sent:
            self._settle(*self._sent.popleft())

    def _settle(self, future: Any, bound: Any) -> None:
        self._patiently(future.result, self.retry_seconds, lambda: self._run(bound))

    def _insert(self, table: str, values: Mapping[str, Any]) -> str:
        columns = ", ".join(values)
        marks = ", ".join("?" * len(values))
        return (
            f"INSERT INTO {TableName(self.keyspace, table)} ({columns}) "  # noqa: S608
            f"VALUES ({marks}) USING TIMESTAMP ?"
        )

    def _next_us(self) -> int:
        with self._lock:
            self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
            return self._last_us

    def _bind(self, cql: str, values: Sequence[Any]) -> Any:
        statement = self._statements.get(cql)
        if statement is None:
            prepare = self._connection.session.prepare
            statement = self._patiently(lambda: prepare(cql), self.retry_seconds)
            self._statements[cql] = statement
        bound = statement.bind(values)
        bound.consistency_level = self._consistency
        return bound

    def _execute(
        self,
        cql: str,
        values: Sequence[Any],
        retry_seconds: float | None,
        page: bytes | None = None,
    ) -> Any:
        bound = self._bind(cql, values)
        seconds = self.retry_seconds if retry_seconds is None else retry_seconds
        return self._patiently(lambda: self._run(bound, page), seconds)

    def _run(self, bound: Any, page: bytes | None = None) -> Any:
        session = self._connection.session
        # Further pages are asked for by whoever tries again, never by the driver.
        return session.execute(bound, timeout=STATEMENT_SECONDS, paging_state=page)

    def _patiently(
        self, ask: Callable[[], Any], seconds: float, again: Callable[[], Any] | None = None
    ) -> Any:
        what = f"the tracking keyspace {quote(self.keyspace)} cannot be used"
        return ask_patiently(ask, seconds, what, again)


def open_tables(
    connection: Connection, migration: Migration, more: Mapping[str, TableForm] | None = None
) -> TrackingTables:
    """Make sure of a migration's tracking tables, and give them.

    Raises:
        PreflightError: they cannot be made; one sentence with the way out.
    """
    ensure_tables(
        connection,
        migration.tracking_keyspace,
        TABLES | dict(more or {}),
        like=migration.tracked_at.table.keyspace,
        retry_seconds=migration.retry_seconds,
    )
    return tables_of(connection, migration, migration.retry_seconds)


def tables_of(connection: Connection, migration: Migration, retry_seconds: float) -> TrackingTables:
    """Give a migration's tracking tables, which may or may not be there."""
    return TrackingTables(
        connection,
        migration.tracking_keyspace,
        consistency=migration.tracked_at.consistency,
        retry_seconds=retry_seconds,
    )


# -- counters ------------------------------------------------------------------------------------

Counts = Mapping[str, int]
"""Counters by name; those of `COUNTERS` for the type of the run."""


def copy_counters(counts: RangeCounts, *, failed: bool) -> Counts:
    """Give what was counted in a copy; of a failed piece, what was read and did not arrive."""
    unwritten = max(0, counts.read + counts.added - counts.written - counts.skipped)
    return {
        "Read": counts.read,
        "Write": counts.written,
        "Skipped": counts.skipped,
        "Error": unwritten if failed else counts.set_aside + counts.errors,
        "Partitions Passed": int(not failed),
        "Partitions Failed": int(failed),
    }


def verdict_counters(verdict: RangeVerdict) -> Counts:
    """Give what was counted in a comparison; a range without a verdict counts as failed."""
    counts = verdict.counts
    return {
        "Read": counts.read,
        "Mismatch": counts.mismatched,
        "Corrected Mismatch": counts.corrected_mismatched,
        "Missing": counts.missing,
        "Corrected Missing": counts.corrected_missing,
        "Valid": counts.valid,
        "Skipped": counts.skipped,
        "Error": counts.error,
        "Partitions Passed": int(not verdict.error),
        "Partitions Failed": int(bool(verdict.error)),
    }


def guardrail_counters(counts: RangeCounts, *, failed: bool) -> Counts:
    """Give what was counted where rows with large cells are those that are left out."""
    return {
        "Read": counts.read,
        "Valid": counts.read - counts.too_large,
        "Large": counts.too_large,
        "Partitions Passed": int(not failed),
        "Partitions Failed": int(failed),
    }


def to_range_counts(counters: Counts) -> RangeCounts:
    """Read the counters of a piece that passed, in a run of either type."""
    compared = ("Valid", "Corrected Mismatch", "Corrected Missing")
    return RangeCounts(
        read=counters.get("Read", 0),
        written=counters.get("Write", 0) + sum(counters.get(name, 0) for name in compared),
        skipped=counters.get("Skipped", 0),
        set_aside=counters.get("Error", 0),
    )


def to_run_info(run_type: str, counters: Counts) -> str:
    """Write counters as the text of `run_info`."""
    return "; ".join(f"{name}: {counters.get(name, 0)}" for name in COUNTERS[run_type])


def read_run_info(text: str | None) -> dict[str, int]:
    """Read the text of `run_info`; what is no counter is left out."""
    found = re.findall(r"([A-Z][A-Za-z ]*): (\d+)", split_reason(text)[0])
    return {name: int(number) for name, number in found}


def split_reason(text: str | None) -> tuple[str, str]:
    """Give the counters in the text of `run_info`, and the reason behind; either may be empty."""
    counters, _, reason = (text or "").partition(_REASON)
    return counters, reason


# -- one run -------------------------------------------------------------------------------------


def migration_key(migration: Migration) -> str:
    """Name a migration in the tables: the target's store and table.

    What only reads a table has another name, so that no copy to it is resumed from there.
    """
    what = " large cells" if migration.reads_only else ""
    return f"{migration.target.store}/{migration.name}{what}"


_OPEN = (NOT_STARTED, STARTED)


@dataclass
class _Row:
    """A row of the details as this run last wrote it."""

    piece: TokenRange
    status: str = NOT_STARTED
    run_info: str = ""
    counters: Counts = field(default_factory=dict)
    passes: bool = False


@dataclass
class TrackedRun:
    """One run in the tables, from NOT_STARTED to ENDED, and its pieces."""

    tables: TrackingTables
    migration: Migration
    run_type: str
    run_id: int
    previous: int
    totals: Counter[str] = field(default_factory=Counter)
    ended: bool = False
    _rows: dict[int, _Row] = field(default_factory=dict)
    _of_range: defaultdict[int, list[_Row]] = field(default_factory=lambda: defaultdict(list))
    _reasons: dict[TokenRange, str] = field(default_factory=dict)

    @property
    def table_name(self) -> str:
        """The name under which the run stands: the target's table, without its keyspace."""
        return self.migration.target.table.table

    @property
    def run_info(self) -> str:
        """The counters of the pieces that have ended, as text."""
        return to_run_info(self.run_type, self.totals)

    def begin(self) -> None:
        """Note that the run works from now on."""
        self._write_run(status=STARTED)
        self.tables.flush()

    def begin_piece(self, piece: TokenRange) -> None:
        """Note that a piece is being worked on."""
        row = self._rows[piece.bounds[0]]
        if row.status == FAIL:
            return
        row.status = STARTED
        self._write_piece(row, start_time=datetime.now(UTC), status=STARTED)

    def cut_piece(self, piece: TokenRange, into: Sequence[TokenRange]) -> None:
        """Note that a piece is worked on as several: it becomes the first of them."""
        first, *others = sorted(into, key=lambda part: part.start)
        # The further pieces come first: were the run killed in between, nothing would be unknown.
        self.add_pieces(others)
        self.tables.flush()
        row = self._rows[piece.bounds[0]]
        row.piece, row.status = first, NOT_STARTED
        self._write_piece(row, token_max=first.end, status=NOT_STARTED)

    def add_pieces(self, pieces: Iterable[TokenRange]) -> None:
        """Note pieces that are to be worked on."""
        for piece in pieces:
            row = self._rows[piece.bounds[0]] = _Row(piece)
            self._of_range[piece.index].append(row)
            self._write_piece(row, token_max=piece.end, status=NOT_STARTED)

    def count_piece(self, piece: TokenRange, counters: Counts) -> None:
        """Keep what came of a piece; `end_piece` notes and counts it."""
        row = self._rows[piece.bounds[0]]
        if row.status == FAIL:
            return
        row.counters = counters
        row.run_info = to_run_info(self.run_type, counters)
        row.passes = not counters.get("Partitions Failed")

    def end_piece(self, piece: TokenRange, status: str) -> None:
        """Note how a piece has ended; one that has failed never passes within the same run."""
        row = self._rows[piece.bounds[0]]
        if row.status == FAIL:
            return
        row.status = status
        self.totals.update(row.counters)
        self._write_piece(row, status=status, run_info=row.run_info)

    def end_range(self, token_range: TokenRange, counters: Counts | None = None) -> None:
        """Note what is left to note of a range: pieces that are done have passed.

        `counters` are of a range that failed: a piece that was under way has failed with it.
        """
        rows = self._of_range[token_range.index]
        for row in self._open_rows(token_range):
            if row.passes:
                self.end_piece(row.piece, PASS)
            elif counters is not None and row.status == STARTED:
                # Counts of a range cut into several are not those of the one that failed.
                known = counters if len(rows) == 1 else {"Partitions Failed": 1}
                self.count_piece(row.piece, known)
                self.end_piece(row.piece, FAIL)

    def give_reason(self, token_range: TokenRange, reason: str) -> None:
        """Note why the pieces of a range that failed or differ have done so, each for its own."""
        for row in self._of_range[token_range.index]:
            if row.status in (FAIL, DIFF):
                words = " ".join(self._reasons.get(row.piece, reason).split())
                told = words if len(words) <= MAX_REASON else f"{words[: MAX_REASON - 3]}..."
                self._write_piece(row, run_info=f"{row.run_info}{_REASON}{told}")

    def note_reason(self, piece: TokenRange, reason: str) -> None:
        """Keep why a piece failed until its range has ended."""
        self._reasons[piece] = reason

    def pieces_of(self, token_range: TokenRange) -> list[TokenRange]:
        """Give the pieces of a range."""
        return [row.piece for row in self._of_range[token_range.index]]

    def is_last(self, piece: TokenRange) -> bool:
        """Say whether all other pieces of the range have ended."""
        return [row.piece for row in self._open_rows(piece)] == [piece]

    def _open_rows(self, token_range: TokenRange) -> list[_Row]:
        return [row for row in self._of_range[token_range.index] if row.status in _OPEN]

    def texts(self, token_range: TokenRange) -> dict[str, str]:
        """Give what is counted of each piece of a range, by its first token."""
        return {str(row.piece.bounds[0]): row.run_info for row in self._of_range[token_range.index]}

    def end(self, *, settled: bool = True) -> None:
        """Note that the run has come to its end, whatever came of its pieces.

        It is not `settled` if it was stopped where a piece may have been shown, but not noted.
        """
        if self.ended:
            return
        # Each is sent when what it vouches for is acknowledged: the pieces, the end, that all is.
        self.tables.flush()
        self._write_run(end_time=datetime.now(UTC), run_info=self.run_info, status=ENDED)
        self.tables.flush()
        self.tables.write_now(
            "migration_runs",
            migration=migration_key(self.migration),
            run_id=self.run_id,
            last_seen=datetime.now(UTC),
            settled=settled,
        )
        self.ended = True

    def touch(self) -> None:
        """Note that the run is alive; for another thread."""
        self.tables.write_now(
            "migration_runs",
            retry_seconds=0.0,
            migration=migration_key(self.migration),
            run_id=self.run_id,
            last_seen=datetime.now(UTC),
        )

    def _write_run(self, **values: Any) -> None:
        self.tables.write("cdm_run_info", table_name=self.table_name, run_id=self.run_id, **values)

    def _write_piece(self, row: _Row, **values: Any) -> None:
        self.tables.write(
            "cdm_run_details",
            table_name=self.table_name,
            run_id=self.run_id,
            token_min=row.piece.bounds[0],
            **values,
        )


def create_run(
    tables: TrackingTables,
    migration: Migration,
    run_type: str,
    pieces: Iterable[TokenRange],
    *,
    fingerprint: str,
    comparison: str = "",
    run_id: int | None = None,
    previous: int = 0,
    dagster_run_id: str = "",
    emptied: bool = False,
) -> TrackedRun:
    """Note a run that is to begin, and everything that it is to do, as NOT_STARTED.

    Raises:
        DeclarationError: there is a run of this id already.
        PreflightError: the tables cannot be written.
    """
    table_name = migration.target.table.table
    try:
        if run_id is not None:
            refuse_run_id(tables, table_name, run_id)
        else:
            run_id = time.time_ns()
            while tables.read("cdm_run_info", table_name=table_name, run_id=run_id):
                run_id += 1
        run = TrackedRun(tables, migration, run_type, run_id, previous)
        now = datetime.now(UTC)
        tables.write_now(
            "migration_runs",
            migration=migration_key(migration),
            run_id=run_id,
            table_name=table_name,
            run_type=run_type,
            dagster_run_id=dagster_run_id,
            fingerprint=fingerprint,
            comparison=comparison,
            prev_run_id=previous,
            emptied=emptied,
            begun=now,
            last_seen=now,
            settled=False,
        )
        tables.write_now(
            "cdm_run_info",
            table_name=table_name,
            run_id=run_id,
            run_type=run_type,
            prev_run_id=previous,
            start_time=now,
            status=NOT_STARTED,
        )
        run.add_pieces(pieces)
        tables.flush()
    except DeclarationError:
        raise
    except MigrationError as error:
        raise _refusal(tables.keyspace, str(error)) from error
    return run


def refuse_run_id(tables: TrackingTables, table_name: str, run_id: int) -> None:
    """Refuse a run id of the user's own that cannot be one, or is taken.

    Raises:
        DeclarationError: one sentence with the way out.
    """
    if not 1 <= run_id <= MAX_TOKEN:
        raise DeclarationError(f"run_id is {run_id}; valid are 1 to {MAX_TOKEN}")
    if tables.read("cdm_run_info", table_name=table_name, run_id=run_id):
        raise DeclarationError(
            f"Run id {run_id} already exists for table {table_name}; "
            "give another one, or none and it is made from the time"
        )


def settle_run(
    tables: TrackingTables, run: Mapping[str, Any], passed: Mapping[int, tuple[str, str]]
) -> list[int]:
    """Note as passed what a dead run had shown elsewhere as done before it could note it here.

    `run` is its row of `migration_runs`; `passed` are state and counters by a piece's first token.
    Gives the first tokens of what was noted. The run's own row stays as its death left it.
    """
    table_name, run_id = run["table_name"], run["run_id"]
    settled = []
    for row in tables.read("cdm_run_details", table_name=table_name, run_id=run_id):
        status, text = passed.get(row["token_min"], ("", ""))
        if status and row["status"] in (NOT_STARTED, STARTED):
            tables.write(
                "cdm_run_details",
                table_name=table_name,
                run_id=run_id,
                token_min=row["token_min"],
                status=status,
                run_info=text,
            )
            settled.append(row["token_min"])
    tables.flush()
    tables.write_now("migration_runs", migration=run["migration"], run_id=run_id, settled=True)
    return settled


# -- log lines -----------------------------------------------------------------------------------

_WIDTH = 96


def banner(run_type: str, what: str) -> list[str]:
    """Give the lines that open or close a run's log: `what` is Starting or Stopped."""
    jobs = {MIGRATE: "Migrate", VALIDATE: "Validate", GUARDRAIL: "Guardrail Check"}
    job = f"{jobs[run_type]} Job"
    text = f"   {job} - {what}   "
    return ["#" * _WIDTH, f"###{text.center(_WIDTH - 6)}###", "#" * _WIDTH]


def parameter_lines(migration: Migration, run: TrackedRun | None, pieces: int) -> list[str]:
    """Give the lines that say what a run is to do."""
    chosen = migration.filter
    lines = [
        f"PARAM -- Min Partition: {chosen.token_min}",
        f"PARAM -- Max Partition: {chosen.token_max}",
        f"PARAM -- Number of Splits: {migration.token_ranges}",
        f"PARAM -- Track Run: {str(run is not None).lower()}",
    ]
    if run is not None:
        lines.append(f"PARAM -- RunId: {run.run_id}")
        lines.append(f"PARAM -- Previous RunId: {run.previous}")
    lines.append(f"PARAM -- Coverage Percent: {chosen.coverage_percent}")
    lines.append(f"PARAM Calculated -- Total Partitions: {pieces}")
    if run is not None:
        edge = "#" * 22
        lines.append(f"{edge} Run Id for this job is: {run.run_id} {edge}")
    return lines


def final_lines(run_type: str, run: TrackedRun | None, totals: Counts) -> list[str]:
    """Give the lines that say what came of a run."""
    lines = ["#" * _WIDTH]
    if run is not None:
        lines.append(f"RunId: {run.run_id}")
    for name in COUNTERS[run_type]:
        what = name if name.startswith("Partitions") else f"{name} Record Count"
        lines.append(f"Final {what}: {totals.get(name, 0)}")
    return [*lines, "#" * _WIDTH]
