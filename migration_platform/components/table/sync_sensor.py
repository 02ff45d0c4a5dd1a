"""The sensor of a table that follows its origin: it requests one run when there is work for one.

A tick asks the brokers for their newest offsets, and Dagster's event log; it reads no row. It is on
from the beginning, as a synchronisation that nobody switched on would be noticed too late; until
the full copy is complete it only says so.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
from dagster import DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from migration_platform.components.table import ended_runs
from migration_platform.components.table.ledger import COMPARISON, FINGERPRINT, read_states
from migration_platform.components.table.reporting import Job
from migration_platform.components.table.run_stores import changes_stores, find_changes
from migration_platform.components.table.sync_asset import sync_step
from migration_platform.components.table.sync_checks import (
    SYNC_IS_FRESH,
    judge_freshness,
    report_verdict,
    was_passed,
)
from migration_platform.components.table.sync_commits import state_metadata
from migration_platform.components.table.sync_copies import open_offsets
from migration_platform.components.table.sync_cursor import Cursor, move_on, read_cursor
from migration_platform.components.table.sync_ledger import (
    Committed,
    read_committed,
    read_newest_copy,
    write_moment,
)
from migration_platform.errors import MigrationError
from migration_platform.syncing.changes import Lag
from migration_platform.syncing.position import Position
from migration_platform.syncing.rounds import due_ranges
from migration_platform.token_ranges import describe_ranges

TICK_SECONDS = 30
_LONGEST_PAUSE = 900
"""A run that failed is requested again after twice as long each time, but after this at most."""
_OPEN = (
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)
_NEVER_STARTED = 600
"""Whoever made a run so many seconds ago and did not start it was killed meanwhile."""
_QUIET_SHARE = 0.5
"""Part of the lag that is allowed, after which it is noted again that nothing is new."""


@dataclass(frozen=True)
class Work:
    """What a run would have to do; `reason` is empty if there is nothing."""

    reason: str
    lag: Lag | None = None
    asked_at: float = 0.0


def build_sync_sensor(*, job: Job, assets_job: Any) -> dg.SensorDefinition:
    """Build the sensor, which runs `assets_job`."""
    migration = job.migration

    @dg.sensor(
        name=f"{sync_step(job)}_sensor",
        job=assets_job,
        minimum_interval_seconds=TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=changes_stores(migration),
        description=f"Lets `{migration.target.table}` follow its origin: requests a run when "
        "messages are new or ranges are due, one at a time. The cursor holds the position; edit it "
        "to go back, clear it to go on where the last run ended.",
    )
    def follow_changes(
        context: dg.SensorEvaluationContext,
    ) -> dg.SensorResult | dg.SkipReason:
        """Look for something to do; read no rows."""
        try:
            return _tick(context, job)
        except MigrationError as error:
            _judge(context.instance, job, None, None)
            return dg.SkipReason(str(error))

    return follow_changes


def _tick(context: dg.SensorEvaluationContext, job: Job) -> dg.SensorResult | dg.SkipReason:
    instance = context.instance
    assert job.sync is not None
    declared = job.migration.sync
    assert declared is not None
    ended_runs.fail_dead_runs(instance)
    committed = read_committed(instance, job.sync)
    topic = declared.kafka.topic if declared.kafka else ""
    given = read_cursor(context.cursor, topic, len(job.migration.ranges))
    cursor = move_on(given, committed, instance, job.sync)
    if running := find_run(instance, job):
        _judge(instance, job, committed, None)
        return _skip(f"Run {running.run_id} is still at it.", cursor)
    if missing := _tell_incomplete(instance, job):
        return _skip(missing, cursor)
    work = _find_work(context, job, committed, cursor)
    if committed is not None and not cursor.wanted:
        committed = _note_quiet(instance, job, committed, work)
        cursor = Cursor(committed.position, committed.storage_id)
    _judge(instance, job, committed, work)
    if not work.reason:
        at = write_moment(committed.position.synced_at) if committed else "the copy"
        return _skip(f"Nothing is new since {at}.", cursor)
    if paused := _tell_pause(instance, job):
        return _skip(f"{paused} There is work: {work.reason}.", cursor)
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_config=_config(job, cursor), tags=_tags(job, work))],
        cursor=cursor.to_json(),
    )


def _skip(reason: str, cursor: Cursor) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=cursor.to_json())


def _config(job: Job, cursor: Cursor) -> dict[str, Any]:
    if cursor.wanted is None:
        return {}
    return {"ops": {sync_step(job): {"config": {"position": cursor.wanted.to_json()}}}}


def _tags(job: Job, work: Work) -> dict[str, str]:
    return {
        ended_runs.syncs_tag(job.target): ended_runs.PLANNED,
        "migration_platform/reason": work.reason[:200],
    }


# -- what there is to do -------------------------------------------------------------------------


def _find_work(
    context: dg.SensorEvaluationContext, job: Job, committed: Committed | None, cursor: Cursor
) -> Work:
    """Say what a run would have to do.

    Raises:
        MigrationError: the brokers cannot be asked.
    """
    if cursor.wanted is not None:
        return Work("the cursor was edited: a run begins at its position")
    if committed is None:
        return Work("the full copy is complete, and nothing has followed the origin since")
    keys = [token_range.key for token_range in job.migration.ranges]
    if read_newest_copy(context.instance, job.target, keys) > committed.copies_seen:
        return Work("ranges were copied since the last run")
    position, declared = committed.position, job.migration.sync
    assert declared is not None
    now = time.time()
    lag = _ask(context, job, position)
    due = due_ranges(position, declared.scan, len(keys), now)
    reasons = []
    if lag.lost:
        reasons.append(f"messages were lost: {next(iter(lag.lost.values()))}")
    if lag.messages:
        reasons.append(f"{lag.messages:,} messages are new")
    if due:
        reasons.append(f"{len(due)} ranges are to be compared")
    return Work("; ".join(reasons), lag, now)


def _ask(context: dg.SensorEvaluationContext, job: Job, position: Position) -> Lag:
    declared = job.migration.sync
    assert declared is not None
    if declared.kafka is None:
        return Lag()
    if position.topic != declared.kafka.topic:
        return Lag(lost={0: f"the position is one of the topic {position.topic or 'none'}"})
    settings = find_changes(job.migration, context.resources)
    with open_offsets(settings, declared.kafka) as source:
        return source.lag(position)


def _tell_incomplete(instance: dg.DagsterInstance, job: Job) -> str:
    """Say which ranges are not copied yet; empty if all are, or were compared equal."""
    ring = job.migration.ranges
    keys = [token_range.key for token_range in ring]
    status = instance.get_status_by_partition(job.target, keys, job.partitions) or {}
    missing = [each for each in ring if status.get(each.key) != AssetPartitionStatus.MATERIALIZED]
    # A range counts as well that was compared equal, under whichever declaration that was.
    if missing and (of_now := _declared_by(instance, job.diff)):
        states = read_states(
            instance,
            target=job.target,
            diff=job.diff,
            ranges=missing,
            partitions=job.partitions,
            fingerprint=of_now[0],
            comparison=of_now[1],
            run_id="",
        )
        missing = [state.token_range for state in states if not state.copied]
    if not missing:
        return ""
    return (
        f"The full copy is not complete: {len(missing)} of {len(ring)} ranges are not copied "
        f"({describe_ranges(missing)}); materialize them first."
    )


def _declared_by(instance: dg.DagsterInstance, diff: dg.AssetKey) -> tuple[str, str] | None:
    records = instance.fetch_materializations(diff, limit=1).records
    event = records[0].asset_materialization if records else None
    told = {name: str(value.value) for name, value in event.metadata.items()} if event else {}
    return (
        (told[FINGERPRINT], told[COMPARISON]) if {FINGERPRINT, COMPARISON} <= told.keys() else None
    )


# -- runs ----------------------------------------------------------------------------------------


def find_run(instance: dg.DagsterInstance, job: Job) -> DagsterRun | None:
    """Give the run of this synchronisation that is queued or going on; None if there is none."""
    tag = ended_runs.syncs_tag(job.target)
    for record in instance.get_run_records(RunsFilter(statuses=list(_OPEN))):
        run, age = record.dagster_run, time.time() - record.create_timestamp.timestamp()
        if run.status == DagsterRunStatus.NOT_STARTED and age > _NEVER_STARTED:
            continue
        if tag in run.tags or (job.sync is not None and job.sync in (run.asset_selection or ())):
            return run
    return None


def _tell_pause(instance: dg.DagsterInstance, job: Job) -> str:
    """Say that the last runs failed, and when the next one is requested; empty if it may be now."""
    tag = ended_runs.syncs_tag(job.target)
    failures: list[Any] = []
    for tagged in (ended_runs.PLANNED, ended_runs.BEGUN):
        failures += instance.get_run_records(RunsFilter(tags={tag: tagged}), limit=10)
    failures.sort(key=lambda record: record.create_timestamp, reverse=True)
    count = 0
    for record in failures:
        if record.dagster_run.status != DagsterRunStatus.FAILURE:
            break
        count += 1
    if not count:
        return ""
    last = failures[0]
    ended = last.end_time or last.update_timestamp.timestamp()
    wait = ended + min(_LONGEST_PAUSE, TICK_SECONDS * 2 ** (count - 1)) - time.time()
    if wait <= 0:
        return ""
    return (
        f"Run {last.dagster_run.run_id} failed, so the next one is requested in {wait:,.0f} "
        "seconds; launch it by hand to try at once."
    )


# -- how far behind ------------------------------------------------------------------------------


def _note_quiet(
    instance: dg.DagsterInstance, job: Job, committed: Committed, work: Work
) -> Committed:
    """Commit, from time to time, that nothing is new: the target has all changes until now."""
    declared = job.migration.sync
    assert declared is not None
    position = committed.position
    is_quiet = declared.kafka is not None and work.lag is not None
    if not is_quiet or work.reason or position.open_ranges or position.unreadable:
        return committed
    if work.asked_at - position.synced_at < _QUIET_SHARE * declared.max_lag_seconds:
        return committed
    assert job.sync is not None
    assert work.lag is not None
    metadata = state_metadata(
        job,
        replace(position, synced_at=work.asked_at),
        work.lag,
        fingerprint=committed.fingerprint,
        began_at=position,
        touched=dict(committed.touched),
        copies_seen=committed.copies_seen,
        reached_at=committed.reached_at,
        now=work.asked_at,
    )
    instance.report_runless_asset_event(dg.AssetMaterialization(job.sync, metadata=metadata))
    return read_committed(instance, job.sync) or committed


def _judge(
    instance: dg.DagsterInstance, job: Job, committed: Committed | None, work: Work | None
) -> None:
    """Report whether the target is fresh, where that has changed."""
    assert job.sync is not None
    committed = committed or read_committed(instance, job.sync)
    if committed is None:
        return
    position = committed.position
    messages = work.lag.messages if work and work.lag else None
    if work is not None and work.lag is not None and not work.reason and position.topic:
        position = replace(position, synced_at=work.asked_at)
    verdict = judge_freshness(job, position, messages, time.time())
    if verdict.passed != was_passed(instance, job, SYNC_IS_FRESH):
        report_verdict(instance, job, SYNC_IS_FRESH, verdict)
