"""One run and its pieces in the tracking tables: what was asked for, and what came of it.

A row of the details is inclusive at both ends, unlike a `TokenRange`.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError, MigrationError
from migration_platform.runs.run_info import REASON, Counts, to_run_info
from migration_platform.runs.tracking_tables import TrackingTables
from migration_platform.stores.records import refusal
from migration_platform.token_ranges import MAX_TOKEN, TokenRange

NOT_STARTED, STARTED, ENDED = "NOT_STARTED", "STARTED", "ENDED"
PASS, FAIL, DIFF, DIFF_CORRECTED = "PASS", "FAIL", "DIFF", "DIFF_CORRECTED"
ENDING_SECONDS = 5.0
"""How long a stopped run tries to record that: the person who stopped it does not wait long."""
MAX_REASON = 500


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
    noted: bool = True


@dataclass
class TrackedRun:
    """One run in the tables, from NOT_STARTED to ENDED, and its pieces."""

    tables: TrackingTables
    migration: Migration
    run_type: str
    run_id: int
    previous: int
    ended: bool = False
    _rows: dict[int, _Row] = field(default_factory=dict)
    _of_range: defaultdict[int, list[_Row]] = field(default_factory=lambda: defaultdict(list))
    _reasons: dict[TokenRange, str] = field(default_factory=dict)

    @property
    def table_name(self) -> str:
        """The name under which the run stands: the target's table, without its keyspace."""
        return self.migration.target.table.table

    @property
    def totals(self) -> Counter[str]:
        """The counters of the pieces that have ended."""
        totals: Counter[str] = Counter()
        for row in self._rows.values():
            if row.status not in _OPEN:
                totals.update(row.counters)
        return totals

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
        # A run may be stopped between any two lines: `end` notes what is counted, if not noted yet.
        row.noted = False
        row.status = status
        self._note_end(row)

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
                self._write_piece(row, run_info=f"{row.run_info}{REASON}{told}")

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
        for row in self._rows.values():
            if not row.noted:
                self._note_end(row)
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

    def _note_end(self, row: _Row) -> None:
        self._write_piece(row, status=row.status, run_info=row.run_info)
        row.noted = True

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
        raise refusal(tables.keyspace, str(error)) from error
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
