"""What is known of a tracked run afterwards: its times, counters and ranges, and how fast it was.

The tables have no column for when a range ended: the writetime of its last state tells it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from migration_platform.cql.samples import without_values
from migration_platform.runs.run_info import (
    MIGRATE,
    VALIDATE,
    Counts,
    read_run_info,
    split_reason,
)
from migration_platform.runs.tracking import DIFF_CORRECTED, NOT_STARTED, PASS, STARTED

STATE_WRITTEN = "state_written_us"
MAX_INTERVALS = 20
_WIDTHS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200, 86_400)
_PASSED = (PASS, DIFF_CORRECTED)
_SETTLED_LATER = timedelta(minutes=1)
"""So long after a killed run was last seen, its ranges were noted as passed by another."""


def detail_columns(present: Sequence[str]) -> list[str]:
    """Name what is selected of the details, of the columns that are there."""
    written = [f"writetime(status) AS {STATE_WRITTEN}"] if "status" in present else []
    return [*present, *written]


@dataclass(frozen=True)
class Piece:
    """A row of the details: tokens, both ends included, and what became of them, and when."""

    token_min: int
    token_max: int
    status: str
    began: datetime | None
    ended: datetime | None
    counts: Counts
    reason: str

    @property
    def is_done(self) -> bool:
        """Whether it passed."""
        return self.status in _PASSED


@dataclass(frozen=True)
class RunFacts:
    """A tracked run. `last_seen` is when a run that has not ended was alive; times are UTC."""

    run_id: int
    run_type: str
    status: str
    began: datetime | None
    ended: datetime | None
    last_seen: datetime | None
    previous: int
    dagster_run_id: str
    fingerprint: str
    comparison: str
    counts: Counts
    pieces: tuple[Piece, ...] = field(default=(), repr=False)

    @property
    def seconds(self) -> float | None:
        """How long it took; None if it has not ended."""
        if self.began is None or self.ended is None:
            return None
        return (self.ended - self.began).total_seconds()

    @property
    def rows(self) -> int:
        """The rows it was for: those written by a copy, else those read."""
        return self.counts.get("Write" if self.run_type == MIGRATE else "Read", 0)

    @property
    def rows_per_second(self) -> float | None:
        """How fast it was on average, from its begin to its end."""
        return round(self.rows / self.seconds, 1) if self.seconds else None

    @property
    def by_status(self) -> dict[str, int]:
        """How many ranges, or pieces of such, have each state."""
        return dict(Counter(piece.status for piece in self.pieces))

    @property
    def not_done(self) -> list[Piece]:
        """The ranges that did not pass, or differ."""
        return [piece for piece in self.pieces if not piece.is_done]


@dataclass(frozen=True)
class Interval:
    """A part of a run's time: what ended in it, and the rows of all that was under way."""

    begins: datetime
    seconds: float
    ranges_done: int
    rows: int

    @property
    def rows_per_second(self) -> float:
        """How fast the run was in it."""
        return round(self.rows / self.seconds, 1) if self.seconds else 0.0


def to_run(
    info: Mapping[str, Any], owner: Mapping[str, Any] | None, details: Sequence[Mapping[str, Any]]
) -> RunFacts:
    """Make a run of its rows: `cdm_run_info`, `migration_runs` if it has one, and the details."""
    owner = owner or {}
    last_seen = owner.get("last_seen")
    ended = info.get("end_time")
    known_until = None if ended or last_seen is None else last_seen + _SETTLED_LATER
    pieces = [_to_piece(row, known_until) for row in details]
    counts = read_run_info(info.get("run_info"))
    if not counts:
        # A run that has not ended tells of the ranges that have.
        counts = Counter()
        for piece in pieces:
            counts.update(piece.counts)
    return RunFacts(
        run_id=info["run_id"],
        run_type=info.get("run_type") or "",
        status=info.get("status") or "",
        began=info.get("start_time"),
        ended=ended,
        last_seen=last_seen,
        previous=info.get("prev_run_id") or 0,
        dagster_run_id=owner.get("dagster_run_id") or "",
        fingerprint=owner.get("fingerprint") or "",
        comparison=owner.get("comparison") or "",
        counts=dict(counts),
        pieces=tuple(sorted(pieces, key=lambda piece: piece.token_min)),
    )


def _to_piece(row: Mapping[str, Any], known_until: datetime | None) -> Piece:
    status = row.get("status") or NOT_STARTED
    written = row.get(STATE_WRITTEN)
    ended = None
    if status not in (NOT_STARTED, STARTED) and written is not None:
        ended = datetime.fromtimestamp(written / 1_000_000, UTC).replace(tzinfo=None)
        if known_until is not None and ended > known_until:
            ended = None
    token_max = row.get("token_max")
    return Piece(
        token_min=row["token_min"],
        token_max=row["token_min"] if token_max is None else token_max,
        status=status,
        began=row.get("start_time"),
        ended=ended,
        counts=read_run_info(row.get("run_info")),
        reason=split_reason(row.get("run_info"))[1],
    )


def throughput(run: RunFacts) -> list[Interval]:
    """Say how fast a copy was over its time, in twenty parts at most.

    Rows of a range count evenly from its begin to its end. A comparison judges all of its ranges
    in the end: nothing could be told of it but the average.
    """
    name = "Write" if run.run_type == MIGRATE else "Read"
    spans = [
        (piece.began, max(piece.ended, piece.began), piece.counts.get(name, 0))
        for piece in run.pieces
        if piece.began is not None and piece.ended is not None
    ]
    if not spans or run.run_type == VALIDATE:
        return []
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    seconds = max((last - first).total_seconds(), 0.001)
    width = next((w for w in _WIDTHS if seconds / w <= MAX_INTERVALS), seconds / MAX_INTERVALS)
    count = max(1, min(MAX_INTERVALS, -int(-seconds // width)))
    rows, done = [0.0] * count, [0] * count
    for began, ended, number in spans:
        low, high = ((moment - first).total_seconds() / width for moment in (began, ended))
        done[min(int(high), count - 1)] += 1
        lasts = high - low
        for at in range(min(int(low), count - 1), min(int(high), count - 1) + 1):
            top = high if at == count - 1 else min(high, at + 1)
            rows[at] += number * (top - max(low, at)) / lasts if lasts > 0 else number
    begins = [first + timedelta(seconds=width * at) for at in range(count)]
    lengths = [width] * (count - 1) + [max(seconds - width * (count - 1), 0.001)]
    return [
        Interval(begin, round(length, 3), number, round(some))
        for begin, length, number, some in zip(begins, lengths, done, rows, strict=True)
    ]


def told_reason(reason: str, *, values: bool, masked_key: bool) -> str:
    """Give the reason of a range without what a report may not hold of a row."""
    if masked_key and "the row " in reason:
        return "not shown, because it names a row and its key is masked"
    return reason if values else without_values(reason)


def run_to_json(run: RunFacts, *, values: bool, masked_key: bool) -> dict[str, Any]:
    """Give a run for machines."""
    return {
        "run_id": str(run.run_id),
        "type": run.run_type,
        "status": run.status,
        "began": show_time(run.began),
        "ended": show_time(run.ended),
        "last_seen": show_time(run.last_seen),
        "seconds": run.seconds,
        "previous_run_id": str(run.previous) if run.previous else None,
        "dagster_run_id": run.dagster_run_id or None,
        "counts": dict(run.counts),
        "ranges": run.by_status,
        "rows_per_second": run.rows_per_second,
        "throughput": [
            {
                "begins": show_time(each.begins),
                "seconds": each.seconds,
                "ranges_done": each.ranges_done,
                "rows": each.rows,
                "rows_per_second": each.rows_per_second,
            }
            for each in throughput(run)
        ],
        "not_done": [
            {
                "token_min": str(piece.token_min),
                "token_max": str(piece.token_max),
                "status": piece.status,
                "reason": told_reason(piece.reason, values=values, masked_key=masked_key),
            }
            for piece in run.not_done
        ],
    }


def show_time(moment: datetime | None) -> str | None:
    """Give a moment as text, in UTC."""
    return None if moment is None else f"{moment.replace(tzinfo=None).isoformat('T', 'seconds')}Z"
