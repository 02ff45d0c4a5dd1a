"""The copy of a run's ranges: what becomes of each is written the moment it is known."""

import time
from dataclasses import dataclass, field
from typing import Any

from migration_platform.components.table import reporting, sync_copies, tracked_runs
from migration_platform.components.table.ledger import read_ranges_copied_before
from migration_platform.components.table.reporting import RangedRun
from migration_platform.components.table.tracked_runs import Work
from migration_platform.copying.copy import CopyRange
from migration_platform.counts import PieceReport, RangeCounts
from migration_platform.runs.tracking import PASS
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.work import Done, Event, Failed, Reported, Started
from migration_platform.token_ranges import TokenRange

FEW_RANGES = 128
LINE_SECONDS = 1.0
"""A run of more than `FEW_RANGES` logs a line only so often: each range has its event as well."""


def copy_ranges(
    run: RangedRun, pool: WorkerPool, winners: str | None, work: Work, *, emptied: bool
) -> None:
    """Copy what is to be done of the run's ranges; what came of it stands in `run`.

    `winners` is the file that tells which of several rows is written. With `emptied` the target
    was emptied first.
    """
    assert run.plan is not None
    before = (
        read_ranges_copied_before(
            run.context.instance, run.job.target, run.ranges, run.plan.fingerprint
        )
        if run.plan.has_counters and not emptied
        else frozenset()
    )
    tasks = [
        CopyRange(
            token_range,
            again=token_range in before,
            winners=winners,
            pieces=pieces,
            run_id=run.context.run.run_id,
        )
        for token_range, pieces in work.todo.items()
    ]
    copy = _Copy(run, pool, work, emptied)
    for event in pool.run(tasks):
        copy.note(event)
    run.counts = copy.done
    run.copy_seconds = time.monotonic() - copy.started
    if not run.failed:
        data = {"timeTaken": int(run.copy_seconds * 1000)}
        reporting.log_event(run, "JOB_LOG", "Time to complete migration of cassandra table", data)


@dataclass
class _Copy:
    """A copy that is under way: what is known of its ranges, and when that was told last."""

    run: RangedRun
    pool: WorkerPool
    work: Work
    emptied: bool
    done: RangeCounts = field(default_factory=RangeCounts)
    underway: dict[TokenRange, RangeCounts] = field(default_factory=dict)
    processes: dict[TokenRange, int] = field(default_factory=dict)
    observed: dict[TokenRange, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    line_due: float = 0.0

    def __post_init__(self) -> None:
        """Begin with every range unread."""
        self.reading = set(self.work.todo)
        self.table_observed = self.started

    def note(self, event: Event) -> None:
        """Tell what happened to a range, and from time to time how far all of them are."""
        token_range, now = event.task.token_range, time.monotonic()
        if isinstance(event, Started):
            self.observed[token_range] = now
            self.processes[token_range] = event.process_id
        elif isinstance(event, Reported) and isinstance(event.value, PieceReport):
            tracked_runs.note_piece(self.run, event.value, self.processes[token_range])
            return
        elif isinstance(event, Reported):
            self._note_progress(token_range, event.value, now)
        elif isinstance(event, Done):
            self._note_done(token_range, event.result, now)
        elif isinstance(event, Failed):
            self._note_failed(token_range, event.reason)
        if token_range in self.reading and _has_read(event):
            self.reading.discard(token_range)
            if not self.reading:
                self._tell_all_is_read(now)
        self.run.counts = sum(self.underway.values(), start=self.done)
        if now - self.table_observed >= reporting.PROGRESS_SECONDS:
            self.table_observed = now
            self._tell_table()

    def _note_progress(self, token_range: TokenRange, counts: RangeCounts, now: float) -> None:
        run, log = self.run, self.run.context.log
        known = self.underway.get(token_range, RangeCounts())
        self.underway[token_range] = counts
        if counts.retries > known.retries:
            log.warning(f"{token_range.key}: trying again: {counts.last_retry}")
        if now - self.observed[token_range] >= reporting.PROGRESS_SECONDS:
            self.observed[token_range] = now
            log.info(f"{token_range.key}: {reporting.counts_line(counts)} so far")
            reporting.observe(run, run.job.target, token_range, reporting.counts_metadata(counts))

    def _note_done(self, token_range: TokenRange, result: RangeCounts, now: float) -> None:
        run, log = self.run, self.run.context.log
        self.underway.pop(token_range, None)
        run.copied.append(token_range)
        self.done += result
        carried = self.work.carried.get(token_range)
        counts = tracked_runs.carried_counts(carried) + result
        told = {
            **tracked_runs.carried_metadata(carried),
            **tracked_runs.tracked_metadata(run, token_range, PASS),
            **sync_copies.tell_position(run, carried),
        }
        reporting.materialize_copy(run, token_range, counts, told)
        tracked_runs.note_range(run, token_range)
        is_last = len(run.copied) == len(run.ranges)
        if len(self.work.todo) <= FEW_RANGES or now >= self.line_due or is_last:
            self.line_due = now + LINE_SECONDS
            log.info(
                f"{token_range.key}: {reporting.counts_line(result)} "
                f"({len(run.copied)} of {len(run.ranges)} ranges)"
            )
        if result.left_alone:
            self._tell_left_alone(token_range, result.left_alone)

    def _tell_left_alone(self, token_range: TokenRange, count: int) -> None:
        log, plan = self.run.context.log, self.run.plan
        assert plan is not None
        if not plan.has_counters:
            log.info(
                f"{token_range.key}: {count:,} rows of the target are newer "
                "than the origin's rows and were left alone"
            )
        else:
            log.warning(
                f"{token_range.key}: {count:,} rows have counters that the "
                "target lacks although this range was copied before; they may have been "
                "deleted there and were left alone. If they are to be written after all, set "
                "diff.repair: [counters]"
            )

    def _note_failed(self, token_range: TokenRange, reason: str) -> None:
        run = self.run
        counts = self.underway.pop(token_range, RangeCounts())
        self.done += counts
        run.failed[token_range] = reason
        failed = {
            "failed": reason,
            "next_step": f"materialize {token_range.key} again; what it wrote is kept",
            # An emptied range stays one: nothing that was there before is.
            **({"emptied": True} if self.emptied else {}),
            **reporting.counts_metadata(counts),
        }
        reporting.observe(run, run.job.target, token_range, failed)
        tracked_runs.note_range(run, token_range, failed=counts)
        run.context.log.error(f"{token_range.key} failed: {reason}")

    def _tell_all_is_read(self, now: float) -> None:
        read = sum((counts.read for counts in self.underway.values()), start=self.done.read)
        data = {"timeTaken": int((now - self.started) * 1000), "count": read}
        reporting.log_event(self.run, "JOB_LOG", "Time to fetch data cassandra data", data)

    def _tell_table(self) -> None:
        run, slowed = self.run, self.pool.target_budget.slowed_to
        unit = run.job.migration.target.size_unit
        run.context.log.info(
            f"All ranges: {reporting.counts_line(run.counts)} so far"
            + (f"; the target throttles: slowed to {slowed:,.0f} {unit}/s" if slowed else "")
        )
        reporting.report_table(run, reporting.read_ranges(run))


def _has_read(event: Any) -> bool:
    return isinstance(event, Done) or (isinstance(event, Reported) and event.value.reading_ended)
