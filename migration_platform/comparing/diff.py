"""Two-way comparison of ranges: digests first, then the rows of differing buckets, key by key.

A row belongs to the range of its origin token, also when it is found in the target: where the
tables' partition keys differ, one scan of the whole target serves every range of a run.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from migration_platform.comparing.compared_rows import SIDES, compile_compared
from migration_platform.comparing.digest import DigestSums, buckets_per_range
from migration_platform.comparing.rechecks import Kind, now_us, show_row
from migration_platform.comparing.row_file import KINDS, RowFile
from migration_platform.comparing.scans import ScanRows, ScanSums, is_by_range, slices_of
from migration_platform.comparing.settling import settle
from migration_platform.comparing.verdicts import MAX_SAMPLES, DifferingRow, RangeVerdict
from migration_platform.cql.rows import count_cells
from migration_platform.plan.model import Plan
from migration_platform.stores.work import Done, Event, Failed, Pool, Reported, Task
from migration_platform.token_ranges import TokenRange


def diff_ranges(
    pool: Pool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    winners: str | None = None,
    on_retry: Callable[[str], None] = lambda reason: None,
) -> Iterator[RangeVerdict]:
    """Compare the ranges; every range gets exactly one verdict.

    `on_progress` is told how many of how many scans are done, `on_retry` of each request that is
    tried again, and why. `winners` is the file that tells which of several origin rows was to be
    written. In the mode `origin_only` rows that only the target has are neither counted nor
    sampled. Rows that differ are read again, and repaired where that is declared; not so where the
    target's key does not tell the origin's row.
    """
    started_us = now_us()
    heard = Heard(pool, on_retry)
    scanned = scan_ranges(heard, plan, ranges, on_progress, winners)
    sums, errors = scanned.sums, scanned.errors
    for token_range in ranges:
        if token_range.index in errors or token_range.index not in scanned.suspects:
            rows = sums["origin"].rows[token_range.index]
            yield RangeVerdict(
                token_range=token_range,
                origin_rows=rows,
                # A target that does not tell the origin's token has no rows of a range; equal
                # sums say that it has those of all.
                target_rows=sums["target"].rows[token_range.index]
                if plan.tells_origin_token
                else rows,
                error=errors.get(token_range.index, ""),
            )
    if looked_into := scanned.looked_into(ranges):
        yield from _look_into(heard, plan, looked_into, scanned, started_us, on_progress, winners)


@dataclass(frozen=True)
class Scanned:
    """What the first scans found: sums by side, and the buckets and ranges in which they differ.

    `errors` say why ranges have no verdict; they and `suspects` are by the index of a range.
    """

    sums: dict[str, DigestSums]
    errors: dict[int, str]
    differing: frozenset[int]
    suspects: set[int]

    def looked_into(self, ranges: Sequence[TokenRange]) -> list[TokenRange]:
        """Give the ranges of which single rows have to be compared."""
        return [r for r in ranges if r.index in self.suspects and r.index not in self.errors]


def scan_ranges(
    pool: Pool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    on_progress: Callable[[int, int], None],
    winners: str | None,
) -> Scanned:
    """Add up both sides, and say where they differ."""
    sums, errors = _add_up(pool, plan, ranges, on_progress, winners)
    differing = frozenset(
        slot
        for slot in sums["origin"].sums.keys() | sums["target"].sums.keys()
        if sums["origin"].sums.get(slot, 0) != sums["target"].sums.get(slot, 0)
    )
    return Scanned(sums, errors, differing, _find_suspects(plan, ranges, differing, sums))


def _add_up(
    pool: Pool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    on_progress: Callable[[int, int], None],
    winners: str | None,
) -> tuple[dict[str, DigestSums], dict[int, str]]:
    """Scan both sides; give the sums of each, and why ranges have no verdict, by their index."""
    wanted = frozenset(token_range.index for token_range in ranges)
    sums = {side: DigestSums() for side in SIDES}
    errors: dict[int, str] = {}
    tasks = [
        ScanSums(side, token_range, wanted, winners)
        for side in SIDES
        for token_range in slices_of(plan, side, ranges)
    ]
    done = 0
    for event in pool.run(tasks):
        if isinstance(event, Done):
            sums[event.task.side].add(event.result)
        elif isinstance(event, Failed):
            _spoil(errors, plan, event, wanted)
        if isinstance(event, Done | Failed):
            done += 1
            on_progress(done, len(tasks))
    return sums, errors


def _find_suspects(
    plan: Plan,
    ranges: Sequence[TokenRange],
    differing: frozenset[int],
    sums: dict[str, DigestSums],
) -> set[int]:
    """Find the indexes of ranges that may differ; all of them where buckets belong to no range."""
    doubtful = differing | sums["origin"].loose | sums["target"].loose
    if plan.tells_origin_token:
        buckets = buckets_per_range(plan.migration.token_ranges)
        return {slot // buckets for slot in doubtful}
    return {token_range.index for token_range in ranges} if doubtful else set()


@dataclass(frozen=True)
class Heard:
    """A pool that passes reports of retries to a callback, and not on as events."""

    pool: Pool
    on_retry: Callable[[str], None]

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Do the tasks as the pool does."""
        for event in self.pool.run(tasks):
            if not isinstance(event, Reported) or not isinstance(event.value, str):
                yield event
            elif event.value:
                self.on_retry(event.value)


def _look_into(
    pool: Pool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    scanned: Scanned,
    started_us: int,
    on_progress: Callable[[int, int], None],
    winners: str | None,
) -> Iterator[RangeVerdict]:
    """Fetch the keys and digests of the differing buckets and compare them row by row."""
    with row_file(plan) as rows:
        errors = fill_rows(pool, plan, ranges, scanned, rows, on_progress, winners)
        judged = [r for r in ranges if r.index not in errors]
        for token_range in ranges:
            if token_range not in judged:
                yield RangeVerdict(token_range=token_range, error=errors[token_range.index])
        origin, target = (scanned.sums[side].rows for side in SIDES)
        counts = {r: (origin[r.index], target[r.index]) for r in judged}
        if plan.tells_origin_row:
            yield from settle(pool, plan, counts, rows, started_us, on_progress)
        else:
            for token_range, (here, there) in counts.items():
                yield _judge_by_scans(plan, token_range, here, there, rows)


@contextmanager
def row_file(plan: Plan) -> Iterator[RowFile]:
    """Open the file for rows that may differ: all buckets of a large table may."""
    with tempfile.TemporaryDirectory(prefix="migration-platform-diff-") as folder:
        rows = RowFile(Path(folder) / "rows.sqlite", len(plan.target.primary_key))
        try:
            yield rows
        finally:
            rows.close()


def fill_rows(
    pool: Pool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    scanned: Scanned,
    rows: RowFile,
    on_progress: Callable[[int, int], None],
    winners: str | None,
) -> dict[int, str]:
    """Fill the file with the rows of differing buckets; give why ranges have no verdict."""
    errors: dict[int, str] = {}
    wanted = frozenset(token_range.index for token_range in ranges)
    tasks = [
        ScanRows(side, token_range, wanted, scanned.differing, winners)
        for side in SIDES
        for token_range in slices_of(plan, side, ranges)
    ]
    done = 0
    for event in pool.run(tasks):
        if isinstance(event, Reported) and isinstance(event.value, list):
            rows.add(event.task.side, event.value)
        elif isinstance(event, Failed):
            _spoil(errors, plan, event, wanted)
        if isinstance(event, Done | Failed):
            done += 1
            on_progress(done, len(tasks))
    return errors


def _spoil(errors: dict[int, str], plan: Plan, event: Failed, wanted: frozenset[int]) -> None:
    """Note which ranges have no verdict: one, or all if the scan served all."""
    task = event.task
    fixed = plan.keys_agree or (is_by_range(plan, task.side) and plan.tells_origin_token)
    for index in (task.token_range.index,) if fixed else wanted:
        errors.setdefault(index, f"the {task.side} could not be scanned: {event.reason}")


def _judge_by_scans(
    plan: Plan, token_range: TokenRange, origin_rows: int, target_rows: int, rows: RowFile
) -> RangeVerdict:
    """Judge a range by what the scans have shown, where keys do not tell the origin's rows."""
    index = token_range.index
    found = {kind: rows.count(kind, index) for kind in KINDS}
    if not plan.tells_origin_token:
        target_rows = origin_rows - found["missing"][0] + found["extra"][0]
    if plan.migration.diff_mode == "origin_only":
        # Rows that are not looked at do not count either, or the counts would never match.
        target_rows -= int(found["extra"][1])
        found["extra"] = (0, 0)
    compared = {c.keys: c for c in (compile_compared(plan, y, "target") for y in plan.layers)}

    def samples(kind: Kind) -> tuple[DifferingRow, ...]:
        keys = rows.keys(kind, index, MAX_SAMPLES) if found[kind][0] else []
        shown = (show_row(compared[count_cells(key)], key) for key in keys)
        if kind != "mismatched":
            return tuple(shown)
        untold = ("(its key does not tell the origin's row)",)
        return tuple(replace(row, columns=untold) for row in shown)

    if plan.migration.compare_form:
        rows_and_statics, forms = found["mismatched"], found["other_form"]
        found["mismatched"] = (rows_and_statics[0] + forms[0], rows_and_statics[1] + forms[1])
    return RangeVerdict(
        token_range=token_range,
        origin_rows=origin_rows,
        target_rows=target_rows,
        missing=found["missing"][0],
        extra=found["extra"][0],
        mismatched=found["mismatched"][0],
        other_form=found["other_form"][0],
        statics=sum(found[kind][0] - int(found[kind][1]) for kind in ("missing", "mismatched")),
        missing_rows=samples("missing"),
        extra_rows=samples("extra"),
        mismatched_rows=samples("mismatched"),
        other_form_rows=samples("other_form"),
    )
