"""What a run tells: each range's outcome, the table's state, the end; to Dagster and to Kafka.

Everything is written the moment it is known. A range's numbers are metadata of its event, so that
Dagster plots them; the ring of all ranges is on the table's own events and on its checks.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from migration_platform.comparing.scope import Scope
from migration_platform.comparing.verdicts import RangeVerdict
from migration_platform.components.table import ended_runs
from migration_platform.components.table.checks import ROWS_FOUND, count_equal, show_ring
from migration_platform.components.table.ledger import (
    COMPARED_OVER,
    COMPARISON,
    COMPARISON_BEGAN,
    FINGERPRINT,
    RangeState,
    read_newest_copies,
    read_states,
)
from migration_platform.counts import RangeCounts
from migration_platform.declaration.migration import Migration
from migration_platform.plan.fidelity import to_markdown
from migration_platform.plan.model import Plan, Table
from migration_platform.runs.control import Watch
from migration_platform.runs.events import DELIVERY_SECONDS, MODEL, job_event
from migration_platform.runs.resume import Resume
from migration_platform.runs.tracking import TrackedRun
from migration_platform.runs.tracking_tables import TrackingTables
from migration_platform.stores.kinds import describe_fidelity
from migration_platform.syncing.position import Position
from migration_platform.token_ranges import TokenRange, describe_ranges

PROGRESS_SECONDS = 10.0
RING_SECONDS = 2.0
"""How often the ring is drawn anew for the event of a range that ended, at most."""
RING_SHARE = 0.05
"""Part of a run's time that the ring may take: it is read from all ranges' events."""


@dataclass(frozen=True)
class Job:
    """A migration with its Dagster names; what the step needs beside Dagster's context."""

    migration: Migration
    origin: dg.AssetKey
    target: dg.AssetKey
    diff: dg.AssetKey
    plan: dg.AssetKey
    dead_letters: dg.AssetKey
    partitions: dg.StaticPartitionsDefinition
    sync: dg.AssetKey | None = None


@dataclass
class RangedRun:
    """One run of one migration: what was asked for, and what has come of it so far.

    `compared_over` is, of a run that only compares, the newest that the event log knew of the copy
    of each range when the comparison began, at `comparison_began`. `sync_position` is where a
    synchronisation of what is copied has to begin, `positions` are those of earlier runs.
    """

    context: dg.AssetExecutionContext
    job: Job
    events: ended_runs.EventSettings | None
    ranges: list[TokenRange]
    copying: bool
    comparing: bool
    plan: Plan | None = None
    counts: RangeCounts = field(default_factory=RangeCounts)
    copied: list[TokenRange] = field(default_factory=list)
    failed: dict[TokenRange, str] = field(default_factory=dict)
    differing: list[RangeVerdict] = field(default_factory=list)
    event_problems: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    copy_seconds: float = 0.0
    ring_due: float = 0.0
    resume: Resume | None = None
    own_id: int | None = None
    tables: TrackingTables | None = None
    past: list[Mapping[str, Any]] = field(default_factory=list)
    tracked: TrackedRun | None = None
    totals: Counter[str] = field(default_factory=Counter)
    watch: Watch | None = None
    scope: Scope = field(default_factory=Scope)
    compared_over: Mapping[str, int] = field(default_factory=dict)
    comparison_began: float = 0.0
    sync_position: Position | None = None
    positions: dict[str, Position | None] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started


def counts_line(counts: RangeCounts) -> str:
    """Give a range's counts as a log line does."""
    more = [
        f"{number:,} {what}"
        for number, what in (
            (counts.skipped, "skipped"),
            (counts.set_aside, "rejected"),
            (counts.statics, "partitions with static cells"),
            (counts.retries, "retries"),
        )
        if number
    ]
    return ", ".join((f"{counts.read:,} rows read, {counts.written:,} written", *more))


def counts_metadata(counts: RangeCounts) -> dict[str, Any]:
    """Give a range's counts as metadata: rows, bytes, seconds, retries."""
    metadata: dict[str, Any] = {
        "rows_read": counts.read,
        "rows_written": counts.written,
        "rows_skipped": counts.skipped,
        "rows_set_aside": counts.set_aside,
        "errors": counts.errors,
        "bytes_read": counts.bytes_read,
        "seconds": round(counts.seconds, 3),
        "rows_per_second": round(counts.rows_per_second, 1),
        "retries": counts.retries,
    }
    metadata |= {
        name: number
        for name, number in (
            ("rows_added_by_map_entries", max(0, counts.added)),
            ("rows_filtered", counts.filtered),
            ("rows_too_large", counts.too_large),
            ("rows_collided", counts.collided),
            ("rows_left_alone", counts.left_alone),
            ("writes_expired_on_the_way", counts.expired),
            ("partitions_with_static_cells", counts.statics),
            ("static_cells_set_aside", counts.statics_set_aside),
        )
        if number
    }
    if counts.large_cells:
        metadata["large_cells"] = dg.MetadataValue.json(dict(counts.large_cells))
        metadata["large_samples"] = dg.MetadataValue.json(list(counts.large_samples))
    if counts.set_aside_samples:
        metadata["set_aside_samples"] = dg.MetadataValue.json(list(counts.set_aside_samples))
    if counts.last_retry:
        metadata["last_retry"] = counts.last_retry
    return metadata


def verdict_line(verdict: RangeVerdict) -> str:
    """Give the reason why a range is not green."""
    if verdict.error:
        return f"not compared: {verdict.error}"
    parts = [
        f"{verdict.missing:,} missing, {verdict.extra:,} extra, "
        f"{verdict.mismatched:,} mismatched rows"
    ]
    if verdict.corrected:
        parts.append(f"{verdict.corrected:,} of them corrected")
    if verdict.defeated:
        parts.append(
            f"{verdict.defeated:,} repaired in vain, because the target holds what is newer "
            "(diff.repair_writetime: now would win)"
        )
    if verdict.kept:
        parts.append(
            f"{verdict.kept:,} extra rows were not deleted, because the origin has them: the "
            "filter leaves them out, or their key has other bytes there"
        )
    if verdict.other_form:
        parts.append(f"{verdict.other_form:,} rows hold the same values in other bytes")
    if verdict.unchecked:
        parts.append(f"{verdict.unchecked:,} of them beyond what is looked at again in one run")
    return "; ".join(parts)


def verdict_metadata(verdict: RangeVerdict, *, one_way: bool = False) -> dict[str, Any]:
    """Give a verdict as metadata; samples only where rows differed.

    What was compared `one_way` says nothing of how many rows the target has.
    """
    if verdict.error:
        return {"failed": verdict.error}
    metadata: dict[str, Any] = {
        "origin_rows": verdict.origin_rows,
        ROWS_FOUND if one_way else "target_rows": verdict.target_rows,
        "missing": verdict.missing,
        "extra": verdict.extra,
        "mismatched": verdict.mismatched,
    }
    metadata |= {
        name: number
        for name in (
            *("corrected_missing", "corrected_extra", "corrected_mismatched"),
            *("defeated", "kept", "ignored_newer", "unchecked", "other_form"),
        )
        if (number := getattr(verdict, name))
    }
    if verdict.found or verdict.other_form:
        samples = {
            kind: [str(row) for row in getattr(verdict, f"{kind}_rows")]
            for kind in ("missing", "extra", "mismatched", "defeated", "kept", "other_form")
        }
        always = ("missing", "extra", "mismatched")
        metadata["samples"] = dg.MetadataValue.json(
            {kind: rows for kind, rows in samples.items() if rows or kind in always}
        )
    if verdict.defeated:
        metadata["next_step"] = (
            "diff.repair_writetime: now lets a repair win over what is newer at the target"
        )
    elif verdict.other_form and not verdict.matches:
        metadata["next_step"] = (
            "a write need not change the bytes of a key that is there; delete these rows at the "
            "target and copy them with writetime: now, or leave diff.compare_form out"
        )
    return metadata


def tell_plan(run: RangedRun) -> None:
    """Log what is copied where, and describe the origin's columns."""
    plan = run.plan
    assert plan is not None
    for endpoint, table, key in (
        (run.job.migration.origin, plan.origin, run.job.origin),
        (run.job.migration.target, plan.target, None),
    ):
        run.context.log.info(f"{table.name} in {endpoint.store}: key ({_key_of(table)})")
        if key is not None:
            metadata = {"dagster/column_schema": column_schema(table)}
            run.context.log_event(dg.AssetObservation(key, metadata=metadata))
    if plan.left_unset:
        run.context.log.info(
            f"Columns that only the target has stay unset: {', '.join(plan.left_unset)}"
        )
    for line in describe_fidelity(plan):
        if not line.exact:
            run.context.log.info(f"Not exact: {line.subject}: {line.times or line.values}")


def _key_of(table: Table) -> str:
    partition = ", ".join(table.partition_key)
    return ", ".join([f"({partition})", *table.clustering_columns])


def column_schema(table: Table) -> dg.TableSchema:
    """Give a table's columns as Dagster shows them, its key first."""
    roles = {
        **dict.fromkeys(table.partition_key, "partition key"),
        **dict.fromkeys(table.clustering_columns, "clustering column"),
    }
    return dg.TableSchema(
        columns=[
            dg.TableColumn(c.name, type=c.shown_type, description=roles.get(c.name))
            for c in sorted(
                table.columns,
                key=lambda c: table.primary_key.index(c.name) if c.name in roles else len(roles),
            )
        ]
    )


def materialize_copy(
    run: RangedRun, token_range: TokenRange, counts: RangeCounts, more: Mapping[str, Any]
) -> None:
    """Claim that a range is copied; the event also shows the ring as it is now.

    The latest of these events is what the table's page shows, so each may have to carry it; but
    a thousand ranges that end within seconds do not need a thousand pictures.
    """
    assert run.plan is not None
    metadata = {
        **counts_metadata(counts),
        **more,
        "dagster/column_schema": column_schema(run.plan.target),
    }
    last = len(run.copied) + len(run.failed) == len(run.ranges)
    began = time.monotonic()
    if last or began >= run.ring_due:
        states = [
            replace(
                state,
                copied=True,
                running=False,
                compared=False,
                rows=counts.written,
                rows_per_second=counts.rows_per_second,
            )
            if state.token_range == token_range
            else state
            for state in read_ranges(run)
        ]
        metadata.update(show_ring(run.job.migration.name, states))
        ended = time.monotonic()
        run.ring_due = ended + max(RING_SECONDS, (ended - began) / RING_SHARE)
    materialize(run, run.job.target, token_range, metadata)


def materialize(
    run: RangedRun, asset: dg.AssetKey, token_range: TokenRange, metadata: dict[str, Any]
) -> None:
    """Claim that a range is as it should be."""
    event = dg.AssetMaterialization(
        asset, partition=token_range.key, metadata=_with_place(run, asset, token_range, metadata)
    )
    run.context.log_event(event)


def observe(
    run: RangedRun, asset: dg.AssetKey, token_range: TokenRange, metadata: dict[str, Any]
) -> None:
    """Note something of a range that is no claim: progress, a failure, a difference."""
    event = dg.AssetObservation(
        asset, partition=token_range.key, metadata=_with_place(run, asset, token_range, metadata)
    )
    run.context.log_event(event)


def _with_place(
    run: RangedRun, asset: dg.AssetKey, token_range: TokenRange, metadata: dict[str, Any]
) -> dict[str, Any]:
    assert run.plan is not None
    # As text: a browser's numbers cannot hold 64 bits.
    tracked = {"tracked_run_id": str(run.tracked.run_id)} if run.tracked else {}
    told = run.scope.metadata
    if asset != run.job.diff:
        told.pop("not_looked_at", None)
    return {
        **metadata,
        **tracked,
        **told,
        "tokens": f"({token_range.start}, {token_range.end}]",
        FINGERPRINT: run.plan.fingerprint,
        **(_of_comparison(run, token_range) if asset == run.job.diff else {}),
    }


def _of_comparison(run: RangedRun, token_range: TokenRange) -> dict[str, str]:
    assert run.plan is not None
    over = run.compared_over.get(token_range.key)
    told = {} if over is None else {COMPARED_OVER: str(over)}
    if run.job.sync is not None and run.comparison_began:
        told[COMPARISON_BEGAN] = datetime.fromtimestamp(run.comparison_began, UTC).isoformat()
    return {COMPARISON: run.plan.comparison, **told}


def read_ranges(run: RangedRun, *, before: bool = False) -> list[RangeState]:
    """Read the state of all ranges of the table, now or as it was before the run."""
    assert run.plan is not None
    return read_states(
        run.context.instance,
        target=run.job.target,
        diff=run.job.diff,
        ranges=run.job.migration.ranges,
        partitions=run.job.partitions,
        fingerprint=run.plan.fingerprint,
        comparison=run.plan.comparison,
        run_id=run.context.run.run_id,
        before=before,
    )


def read_copies_before(run: RangedRun) -> Mapping[str, int]:
    """Read what is the newest of each range's copy as a comparison begins.

    A run that copies itself compares what it copied: its verdicts need not stand for a copy.
    """
    if run.copying:
        return {}
    job = run.job
    keys = [token_range.key for token_range in run.ranges]
    return read_newest_copies(run.context.instance, job.target, keys, job.partitions)


def report_table(run: RangedRun, states: Sequence[RangeState], *, ended: bool = False) -> None:
    """Put the picture and the totals where the table's own page shows them."""
    assert run.plan is not None
    metadata: dict[str, Any] = {
        **show_ring(run.job.migration.name, states),
        "dagster/row_count": sum(state.rows for state in states),
        "dagster/column_schema": column_schema(run.plan.target),
        "ranges_copied": sum(state.copied for state in states),
        **count_equal(states),
        "ranges_verified": sum(state.matches for state in states),
        "ranges": len(states),
        **run.scope.of_rows,
        "fidelity": dg.MetadataValue.md(to_markdown(describe_fidelity(run.plan))),
    }
    if run.copying and run.copy_seconds:
        metadata["rows_per_second"] = round(run.counts.written / run.copy_seconds, 1)
    if run.event_problems:
        metadata["events"] = "; ".join(run.event_problems)
    if ended and run.copying and not run.failed:
        # The table's page shows the latest materialization; one without a partition speaks of the
        # whole table, not of its last range, and is drawn after the comparison. It belongs to no
        # run, because a backfill refuses runs that report such a one.
        metadata["run"] = dg.MetadataValue.dagster_run(run.context.run.run_id)
        event = dg.AssetMaterialization(run.job.target, metadata=metadata)
        run.context.instance.report_runless_asset_event(event)
    else:
        run.context.log_event(dg.AssetObservation(run.job.target, metadata=metadata))


def build_progress(context: dg.AssetExecutionContext, what: str) -> Callable[[int, int], None]:
    """Build the function that logs how much of something is done, every ten seconds."""
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            context.log.info(f"{what}: {done} of {total} done")

    return tell


def build_retry_log(context: dg.AssetExecutionContext, what: str) -> Callable[[str], None]:
    """Build the function that logs why requests are tried again: the first, then every ten seconds.

    A server that goes fails all requests in flight at once.
    """
    told, count = float("-inf"), 0

    def tell(reason: str) -> None:
        nonlocal told, count
        count += 1
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            again = f" ({count:,} times so far)" if count > 1 else ""
            context.log.warning(f"{what}: trying again{again}: {reason}")

    return tell


def job_config(run: RangedRun) -> dict[str, Any]:
    """Give what the events of a run's start and end say of its job."""
    assert run.events is not None
    config = json.loads(run.events.config)
    step = run.context.op_execution_context.op_def.name
    ops: Any = run.context.run.run_config.get("ops", {})
    own = ops.get(step, {}).get("config")
    return {"config": json.dumps({**config, "run": own} if own else config), "model": MODEL}


def log_event(run: RangedRun, eid: str, message: str, data: dict[str, Any]) -> None:
    """Tell an event of the job log, where there is a place for them."""
    if run.events is None:
        return
    event = job_event(eid, job=run.events.job, message=message, data=data)
    # After one failure the others must not make the copy wait as long again.
    patience = 2.0 if run.event_problems else DELIVERY_SECONDS
    problem = ended_runs.publish_log(run.events, event, patience)
    if problem:
        note_event_problem(run, problem)


def note_event_problem(run: RangedRun, problem: str) -> None:
    """Make an event that was not delivered visible in the run."""
    run.event_problems.append(problem)
    run.context.log.error(f"Events: {problem}; the copy goes on.")


def what_went_wrong(run: RangedRun) -> str:
    """Give the reason why the run is not green; empty if it is."""
    parts = []
    if run.failed:
        first = next(iter(run.failed.values()))
        names = describe_ranges(list(run.failed))
        parts.append(
            f"{len(run.failed)} of {len(run.ranges)} ranges failed ({names}): {first}; "
            "materialize them again"
        )
    unseen = [verdict for verdict in run.differing if verdict.error]
    differing = [verdict for verdict in run.differing if not verdict.error]
    if unseen:
        names = describe_ranges([verdict.token_range for verdict in unseen])
        parts.append(f"{len(unseen)} ranges could not be compared ({names}): {unseen[0].error}")
    if differing:
        names = describe_ranges([verdict.token_range for verdict in differing])
        missing = sum(verdict.left("missing") for verdict in differing)
        extra = sum(verdict.left("extra") for verdict in differing)
        mismatched = sum(verdict.left("mismatched") for verdict in differing)
        parts.append(
            f"{len(differing)} ranges differ ({names}): {missing:,} missing, {extra:,} extra, "
            f"{mismatched:,} mismatched rows"
        )
    return "; ".join(parts)


def end(run: RangedRun, reason: str) -> None:
    """Publish the run's end; a Kafka that is down is noted and changes nothing else."""
    if run.events is None or not run.copying:
        return
    problem = ended_runs.publish_end(
        run.context.instance,
        run.context.run.run_id,
        ended_runs.events_tag(run.job.target),
        run.events,
        success=not reason,
        rows_written=run.counts.written,
        seconds=run.copy_seconds,
        reason=reason,
        # What is not delivered now is kept and delivered later: no need to wait long twice.
        patience_seconds=2.0 if run.event_problems else DELIVERY_SECONDS,
        data=job_config(run),
    )
    if problem:
        note_event_problem(run, problem)
        metadata = {"events": problem}
        run.context.log_event(dg.AssetObservation(run.job.target, metadata=metadata))
