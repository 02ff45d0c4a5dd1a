"""The positions that a run commits: each an event of Dagster's log, with all numbers beside it."""

import time
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from migration_platform.components.table.ledger import FINGERPRINT
from migration_platform.components.table.reporting import PROGRESS_SECONDS, Job, RangedRun
from migration_platform.components.table.sync_checks import (
    SYNC_IS_FRESH,
    judge_freshness,
    lag_seconds,
    report_verdict,
    was_passed,
)
from migration_platform.components.table.sync_ledger import (
    BEGAN_AT,
    COPIES_SEEN,
    POSITION,
    REACHED_AT,
    TOUCHED,
    Committed,
    write_moment,
)
from migration_platform.components.table.sync_picture import draw_sync
from migration_platform.syncing.changes import Lag, tell_waiting
from migration_platform.syncing.counts import SyncCounts
from migration_platform.syncing.follow import Followed
from migration_platform.syncing.position import Position


@dataclass
class Commits:
    """What a run has committed so far; `position` is where the target is.

    `before` is what was committed before the run, `touched` the moments of the last writes into
    ranges, by their keys.
    """

    run: RangedRun
    began_at: Position
    before: Committed | None
    copies_seen: int
    position: Position
    counts: SyncCounts = field(default_factory=SyncCounts)
    lag: Lag = field(default_factory=Lag)
    told: bool = False
    wrote: bool = False
    touched: dict[str, float] = field(default_factory=dict)
    reached_at: float = 0.0
    line_at: float = field(default_factory=time.monotonic)
    started: float = field(default_factory=time.monotonic)
    passed: bool | None = None

    def __post_init__(self) -> None:
        """Carry on what earlier runs knew of the same ranges."""
        assert self.run.plan is not None
        if self.before is not None and self.before.fingerprint == self.run.plan.fingerprint:
            self.touched = dict(self.before.touched)
        self.offsets = self.before.position.offsets if self.before else None
        self.reached_at = self.before.reached_at if self.before else 0.0
        self.passed = was_passed(self.run.context.instance, self.run.job, SYNC_IS_FRESH)

    def commit(self, followed: Followed) -> None:
        """Write down a position that the target has reached."""
        run, job, now = self.run, self.run.job, time.time()
        assert job.sync is not None
        assert run.plan is not None
        self.position, self.lag, self.told = followed.position, followed.lag, True
        self.counts += followed.counts
        for index in followed.touched:
            self.touched[job.migration.ranges[index].key] = now
            self.wrote = True
        if self.offsets is None or dict(self.offsets) != dict(followed.position.offsets):
            self.offsets, self.reached_at = followed.position.offsets, now
        for reason in followed.lost:
            run.context.log.error(
                f"Messages were lost: {reason}. What they told is found by comparing all ranges."
            )
        metadata = {
            **state_metadata(
                job,
                followed.position,
                followed.lag,
                fingerprint=run.plan.fingerprint,
                began_at=self.began_at,
                touched=self.touched,
                copies_seen=self.copies_seen,
                reached_at=self.reached_at,
                now=now,
            ),
            **counts_metadata(followed.counts, followed.seconds),
        }
        if followed.lost:
            metadata["lost"] = "; ".join(followed.lost)
        run.context.log_event(dg.AssetMaterialization(job.sync, metadata=metadata))
        self._tell_freshness(now)
        self.tell_progress(due=bool(followed.counts.keys or followed.counts.ranges))

    def _tell_freshness(self, now: float) -> None:
        verdict = judge_freshness(self.run.job, self.position, self.lag.messages, now)
        if verdict.passed != self.passed:
            self.passed = verdict.passed
            instance, run_id = self.run.context.instance, self.run.context.run.run_id
            report_verdict(instance, self.run.job, SYNC_IS_FRESH, verdict, run_id)

    def tell_progress(self, *, due: bool = False) -> None:
        """Log how far the run is, if that was not told for some seconds."""
        now = time.monotonic()
        if due or now - self.line_at >= PROGRESS_SECONDS:
            self.line_at = now
            waiting = f"; {tell_waiting(self.lag.messages)}" if self.lag.messages else ""
            self.run.context.log.info(
                f"{tell_counts(self.counts)} in {now - self.started:,.0f} s{waiting}"
            )


def tell_counts(counts: SyncCounts) -> str:
    """Give what was done as a log line does."""
    parts = [
        f"{counts.keys:,} keys, {counts.read:,} rows read, {counts.written:,} written, "
        f"{counts.deleted:,} deleted, {counts.unchanged:,} unchanged"
    ]
    parts += [
        f"{number:,} {what}"
        for number, what in (
            (counts.kept, "kept"),
            (counts.rejected, "rejected"),
            (counts.unreadable, "unreadable messages"),
            (counts.ranges, "ranges compared"),
            (counts.retries, "retries"),
        )
        if number
    ]
    return ", ".join(parts)


def counts_metadata(counts: SyncCounts, seconds: float) -> dict[str, Any]:
    """Give what was done since the last commit, as numbers that Dagster plots."""
    return {
        "messages": counts.messages,
        "keys": counts.keys,
        "read": counts.read,
        "written": counts.written,
        "deleted": counts.deleted,
        "unchanged": counts.unchanged,
        "kept": counts.kept,
        "rejected": counts.rejected,
        "unreadable": counts.unreadable,
        "ranges_compared": counts.ranges,
        "retries": counts.retries,
        "seconds": round(seconds, 3),
        "keys_per_second": round(counts.keys / seconds, 1) if seconds else 0.0,
    }


def state_metadata(
    job: Job,
    position: Position,
    lag: Lag,
    *,
    fingerprint: str,
    began_at: Position,
    touched: dict[str, float],
    copies_seen: int,
    reached_at: float,
    now: float,
) -> dict[str, Any]:
    """Give where the target is, as metadata by which the next run and the sensor go on."""
    behind = lag_seconds(position, now)
    # In the order in which a person reads the page.
    metadata: dict[str, Any] = {
        "at_a_glance": dg.MetadataValue.md(draw_sync(job.migration, position, lag, now)),
        "lag_messages": lag.messages,
        "open_ranges": len(position.open_ranges),
        "unreadable_messages": len(position.unreadable),
    }
    if behind is not None:
        metadata["lag_seconds"] = round(behind, 1)
        metadata["synced_at"] = write_moment(position.synced_at)
    return metadata | {
        POSITION: position.to_json(),
        BEGAN_AT: began_at.to_json(),
        FINGERPRINT: fingerprint,
        COPIES_SEEN: str(copies_seen),
        REACHED_AT: write_moment(reached_at),
        TOUCHED: dg.MetadataValue.json(
            {key: write_moment(touched[key]) for key in sorted(touched)}
        ),
    }
