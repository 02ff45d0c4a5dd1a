"""What of a run is done already: decided token by token, from the details of earlier runs.

Rows of the details may have been cut otherwise than this run's ranges, by an earlier run or by
another program. The newest run that says something of a token decides; within one run whatever is
not done wins over what is.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from migration_platform.errors import DeclarationError
from migration_platform.runs.run_info import Counts, read_run_info
from migration_platform.runs.tracking import DIFF_CORRECTED, PASS
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN, TokenRange

AUTO = "auto"
MAX_SPLIT = 1000
DONE = (PASS, DIFF_CORRECTED)


@dataclass(frozen=True)
class Resume:
    """What a user asks of a run: `previous` is the id of a tracked run, or None for `auto`."""

    previous: int | None = None
    split_pending: int = 1


def read_resume(resume: object, split_pending: int) -> Resume | None:
    """Read the run configuration's words; None where nothing is to be resumed.

    Raises:
        DeclarationError: they make no sense; one sentence with what is valid.
    """
    if not 1 <= split_pending <= MAX_SPLIT:
        raise DeclarationError(f"split_pending is {split_pending}; valid are 1 to {MAX_SPLIT}")
    text = str(resume if resume is not None else "").strip()
    if not text:
        if split_pending != 1:
            raise DeclarationError("split_pending does nothing without resume; leave it out")
        return None
    if text == AUTO:
        return Resume(None, split_pending)
    # A run that was not tracked has the id 0 in other programs: there is nothing to resume then.
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= MAX_TOKEN:
        raise DeclarationError(
            f"resume is {text[:40]!r}; valid are auto, or the id of a tracked run"
        )
    return Resume(int(text), split_pending)


@dataclass(frozen=True)
class Detail:
    """One row of the details: tokens of `(start, end]`, and what came of them."""

    run_id: int
    start: int
    end: int
    status: str
    counts: Counts = field(default_factory=dict)


def to_detail(row: Mapping[str, Any]) -> Detail:
    """Read a row of `cdm_run_details`; a state that was never written is as good as none."""
    return Detail(
        run_id=row["run_id"],
        start=max(MIN_TOKEN, row["token_min"] - 1),
        end=row["token_min"] if row["token_max"] is None else row["token_max"],
        status=row["status"] or "",
        counts=read_run_info(row["run_info"]),
    )


@dataclass(frozen=True)
class Division:
    """What of one range is left to do, and what of it was done, by which rows."""

    pending: tuple[TokenRange, ...]
    done: tuple[Detail, ...] = ()

    @property
    def run_ids(self) -> list[int]:
        """The runs that did it, the newest first."""
        return sorted({detail.run_id for detail in self.done}, reverse=True)


def divide(windows: Sequence[TokenRange], runs: Iterable[Sequence[Detail]]) -> dict[int, Division]:
    """Divide what is to be read into done and pending, by the runs' details, the newest run first.

    The answer is by the index of the range. A row is counted where its last token lies.
    """
    ordered = sorted(windows, key=lambda window: window.end)
    unknown = [(window.start, window.end) for window in ordered]
    pending: list[tuple[int, int]] = []
    done: defaultdict[int, list[Detail]] = defaultdict(list)
    ends = [window.end for window in ordered]
    for details in runs:
        if not unknown:
            break
        for detail in sorted(details, key=lambda row: row.status in DONE):
            taken = _take(unknown, detail.start, detail.end)
            if detail.status not in DONE:
                pending += taken
                continue
            for start, end in taken:
                index = ordered[bisect_right(ends, start)].index
                # Counted once, though its tokens may lie in several ranges.
                known = Detail(detail.run_id, start, end, detail.status)
                done[index].append(detail if end == detail.end else known)
    left: defaultdict[int, list[TokenRange]] = defaultdict(list)
    for start, end in sorted(pending + unknown):
        window = ordered[bisect_right(ends, start)]
        left[window.index].append(replace(window, start=start, end=end))
    return {
        window.index: Division(tuple(left[window.index]), tuple(done[window.index]))
        for window in ordered
    }


def _take(parts: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Remove `(start, end]` from parts that are in order; gives what was removed."""
    first = last = bisect_right(parts, start, key=lambda part: part[1])
    taken, kept = [], []
    while last < len(parts) and parts[last][0] < end:
        low, high = parts[last]
        taken.append((max(low, start), min(high, end)))
        if low < start:
            kept.append((low, start))
        if end < high:
            kept.append((end, high))
        last += 1
    parts[first:last] = kept
    return taken
