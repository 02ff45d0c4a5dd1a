"""What a run of a table's `_sync` asset does: it follows the origin, and commits how far it came.

Each position is written to the event log as soon as the target has acknowledged all before it, so
that a run which is killed is repeated from the last one. Where a run begins: see `sync_ledger.py`.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from migration_platform.comparing.scope import describe_scope
from migration_platform.components.failures import RunFailure
from migration_platform.components.home import refuse_forgetting
from migration_platform.components.table import ended_runs, reporting, tracked_runs
from migration_platform.components.table.checks import build_check_results
from migration_platform.components.table.dead_letters import NO_DEAD_LETTERS, report_check
from migration_platform.components.table.ledger import RangeState
from migration_platform.components.table.ranged_run import refuse_truncating_runs
from migration_platform.components.table.reporting import Job, RangedRun
from migration_platform.components.table.run_stores import open_sides
from migration_platform.components.table.sync_checks import (
    SYNC_IS_FRESH,
    judge_freshness,
    judge_letters,
    to_result,
)
from migration_platform.components.table.sync_commits import Commits, tell_counts
from migration_platform.components.table.sync_copies import open_source, position_of_now
from migration_platform.components.table.sync_ledger import (
    Committed,
    Start,
    find_start,
    read_committed,
    read_newest_copy,
    write_moment,
    written_since,
)
from migration_platform.copying.dead_letters import read_summary
from migration_platform.copying.replay import ensure_dead_letters
from migration_platform.errors import DeclarationError, MigrationError
from migration_platform.plan.model import Plan
from migration_platform.runs.control import CONTROL_TABLES
from migration_platform.runs.events import KafkaSettings
from migration_platform.runs.tracking_tables import open_tables
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.interface import Resource, Uses
from migration_platform.stores.permissions import look_again, refuse_denied
from migration_platform.stores.planning import make_plan, refuse_missing_target
from migration_platform.stores.work import Event, Pool, Task, records_at
from migration_platform.syncing.changes import ChangeSource, tell_waiting
from migration_platform.syncing.follow import Limits, follow
from migration_platform.syncing.position import Position
from migration_platform.syncing.rounds import open_due
from migration_platform.syncing.rows import refuse_sync, to_sync_plan
from migration_platform.token_ranges import describe_ranges, find_ranges

LONGEST_SECONDS = 86_400
ALL_THERE_ARE = 10**9
"""As many ranges as are open: a run that has to reach a position compares some again and again."""


@dataclass(frozen=True)
class Wishes:
    """What one run was asked for: see `SyncConfig`."""

    position: str | None = None
    up_to: str | None = None
    scan: str | None = None
    seconds: float | None = None


@dataclass
class SyncRun:
    """One run, and what is known of it so far."""

    run: RangedRun
    wishes: Wishes
    committed: Committed | None
    copies_seen: int
    states: Sequence[RangeState] = ()
    records: Any = None
    commits: Commits | None = field(default=None)


def synchronise(
    context: dg.AssetExecutionContext,
    job: Job,
    *,
    origin: Resource,
    target: Resource,
    changes: KafkaSettings | None,
    wishes: Wishes,
) -> Iterator[dg.AssetCheckResult]:
    """Follow the origin, and give the results of the checks.

    `changes` is the cluster that has the changes of the origin.

    Raises:
        dagster.Failure: one sentence, when it could not begin or not go on.
    """
    name = job.migration.name
    try:
        refuse_forgetting(context.instance)
        sync = _begin(context, job, wishes)
        with ExitStack() as stack:
            source, pool, plan = _open(sync, stack, origin, target, changes)
            reason = _follow(sync, source, pool, plan)
            yield from _judge(sync)
    except MigrationError as error:
        raise RunFailure(f"{name}: {error}") from None
    if reason:
        raise RunFailure(f"{name}: {reason}")


# -- beginning -----------------------------------------------------------------------------------


def _begin(context: dg.AssetExecutionContext, job: Job, wishes: Wishes) -> SyncRun:
    """Note that the run goes on, and refuse it beside another one."""
    assert job.sync is not None
    _refuse_wishes(wishes)
    instance = context.instance
    tags = {
        ended_runs.PROCESS_TAG: ended_runs.process_mark(),
        ended_runs.repairs_tag(job.target): ended_runs.BEGUN,
        ended_runs.syncs_tag(job.target): ended_runs.BEGUN,
    }
    instance.add_run_tags(context.run.run_id, tags)
    for run_id in ended_runs.fail_dead_runs(instance):
        context.log.warning(f"Run {run_id} was found dead; it is now failed.")
    run = RangedRun(context, job, None, ranges=[], copying=False, comparing=False)
    _refuse_second(run)
    refuse_truncating_runs(run)
    keys = [token_range.key for token_range in job.migration.ranges]
    return SyncRun(
        run,
        wishes,
        committed=read_committed(instance, job.sync),
        copies_seen=read_newest_copy(instance, job.target, keys),
    )


def _refuse_wishes(wishes: Wishes) -> None:
    if wishes.up_to not in (None, "now"):
        raise DeclarationError(f"up_to is {wishes.up_to[:40]}; valid is now")
    if wishes.seconds is not None and not 0 <= wishes.seconds <= LONGEST_SECONDS:
        raise DeclarationError(f"seconds is {wishes.seconds}; valid are 0 to {LONGEST_SECONDS}")


def _refuse_second(run: RangedRun) -> None:
    tag = ended_runs.syncs_tag(run.job.target)
    others = run.context.instance.get_runs(
        RunsFilter(
            statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING],
            tags={tag: ended_runs.BEGUN},
        )
    )
    for other in others:
        if other.run_id != run.context.run.run_id:
            raise DeclarationError(
                f"run {other.run_id} follows the origin already, and two would commit positions "
                "that are not each other's; wait for it or terminate it"
            )


def _open(
    sync: SyncRun,
    stack: ExitStack,
    origin: Resource,
    target: Resource,
    changes: KafkaSettings | None,
) -> tuple[ChangeSource | None, WorkerPool, Plan]:
    """Open both sides, what tells of changes, and the processes; refuse what cannot be followed."""
    run = sync.run
    migration = run.job.migration
    here, there = open_sides(run.context, migration, stack, origin=origin, target=target)
    run.plan = make_plan(migration, here, there)
    refuse_missing_target(run.plan)
    if wrong := refuse_sync(run.plan):
        raise DeclarationError("; ".join(wrong))
    plan, uses = to_sync_plan(run.plan), Uses()
    refuse_denied(plan, here, there, uses)
    sync.states = reporting.read_ranges(run)
    _refuse_incomplete(run.job, sync.states)
    sync.records = records_at(migration, here.connection, there.connection)
    ensure_dead_letters(sync.records, migration)
    declared = migration.sync
    assert declared is not None
    source = stack.enter_context(open_source(changes, declared.kafka, run.plan.origin))
    if migration.tracking:
        run.tables = open_tables(sync.records, migration, CONTROL_TABLES)
    pool = stack.enter_context(
        WorkerPool(
            plan,
            origin.to_settings(),
            target.to_settings(),
            workers=migration.workers or os.cpu_count() or 1,
            look_again=partial(look_again, plan, here, there, uses),
        )
    )
    stack.enter_context(tracked_runs.watching(run, pool))
    return source, pool, plan


def _refuse_incomplete(job: Job, states: Sequence[RangeState]) -> None:
    missing = [state.token_range for state in states if not state.copied]
    if missing:
        names = f"{job.target.to_user_string()},{job.diff.to_user_string()}"
        raise DeclarationError(
            f"the full copy is not complete, so there is nothing yet that could follow: "
            f"{len(missing)} of {len(states)} ranges are not copied ({describe_ranges(missing)}); "
            f'copy them first: dg launch --assets "{names}" --partition-range '
            f"'{missing[0].key}...{missing[-1].key}'"
        )


# -- following -----------------------------------------------------------------------------------


def _follow(sync: SyncRun, source: ChangeSource | None, pool: WorkerPool, plan: Plan) -> str:
    """Follow the origin; give why that could not go on to its end, empty if it could."""
    run, log = sync.run, sync.run.context.log
    start = _find_start(sync, source)
    if start.why:
        log.warning(f"{start.why[0].upper()}{start.why[1:]}.")
    position, limits = _limit(sync, source, start.position)
    commits = sync.commits = Commits(
        run=run,
        began_at=start.position,
        before=sync.committed,
        copies_seen=sync.copies_seen,
        position=position,
    )
    log.info(f"Begins at {position.to_json()}")
    try:
        follow(
            _Told(pool, commits),
            plan,
            source,
            position,
            limits,
            commits.commit,
            on_retry=reporting.build_retry_log(run.context, "Following"),
            run_id=run.context.run.run_id,
        )
    except MigrationError as error:
        return str(error)
    log.info(_tell_end(sync, commits))
    return ""


def _find_start(sync: SyncRun, source: ChangeSource | None) -> Start:
    job, wanted = sync.run.job, sync.wishes.position
    declared = job.migration.sync
    assert declared is not None
    assert sync.run.plan is not None
    topic = declared.kafka.topic if declared.kafka else ""
    if wanted and wanted.strip() != "copy":
        position = Position.parse(wanted)
        try:
            return Start(position.for_table(topic, len(job.migration.ranges)))
        except DeclarationError as error:
            raise DeclarationError(f"{error}; take one of this table, or leave it out") from None
    return find_start(
        None if wanted else sync.committed,
        sync.states,
        topic=topic,
        fingerprint=sync.run.plan.fingerprint,
        now=partial(position_of_now, source),
    )


def _limit(
    sync: SyncRun, source: ChangeSource | None, position: Position
) -> tuple[Position, Limits]:
    """Open the ranges that this run has to compare, and say when it ends."""
    migration, wishes = sync.run.job.migration, sync.wishes
    declared, ranges = migration.sync, len(migration.ranges)
    assert declared is not None
    now = time.time()
    wanted = _read_ranges(wishes.scan, ranges)
    if wishes.up_to and source is None:
        # Only what was compared since is known to be the same.
        wanted = frozenset(range(ranges))
    if wanted:
        began = now if len(wanted) == ranges else position.round_began_at
        position = replace(position, round_began_at=began).with_open(wanted)
    if wishes.up_to or wanted:
        up_to = position_of_now(source)
        return position, Limits(ALL_THERE_ARE, up_to=up_to)
    position = open_due(position, declared.scan, ranges, now)
    most = declared.scan.ranges_per_tick if declared.scan else ranges
    if wishes.seconds is None:
        return position, Limits(most)
    return position, Limits(most, wishes.seconds, idle_seconds=wishes.seconds)


def _read_ranges(text: str | None, ranges: int) -> frozenset[int]:
    parts = [part for part in (text or "").split(",") if part.strip()]
    return frozenset(each.index for part in parts for each in find_ranges(part, ranges))


@dataclass
class _Told:
    """The processes, and a line in the log from time to time while they are busy."""

    pool: Pool
    commits: Commits

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        for event in self.pool.run(tasks):
            self.commits.tell_progress()
            yield event


def _tell_end(sync: SyncRun, commits: Commits) -> str:
    migration = sync.run.job.migration
    position = commits.position
    reached = write_moment(position.synced_at) if position.synced_at else "an unknown moment"
    waiting = commits.lag.messages
    left = [tell_waiting(waiting)] if waiting else []
    if position.open_ranges:
        left.append(f"{len(position.open_ranges):,} ranges are yet to be compared")
    return (
        f"{migration.target.table} has all changes of {migration.origin.table} up to {reached}: "
        f"{tell_counts(commits.counts)}; {' and '.join(left) or 'nothing is left to do'}"
    )


# -- judging -------------------------------------------------------------------------------------


def _judge(sync: SyncRun) -> Iterator[dg.AssetCheckResult]:
    """Give the verdicts of the sync's own checks, and report those of the table anew."""
    run, commits = sync.run, sync.commits
    assert commits is not None
    assert run.plan is not None
    job = run.job
    letters = read_summary(sync.records, job.migration)
    report_check(run.context, job, letters)
    messages = commits.lag.messages if commits.told else None
    fresh = judge_freshness(job, commits.position, messages, time.time())
    yield to_result(job, SYNC_IS_FRESH, fresh)
    yield to_result(job, NO_DEAD_LETTERS, judge_letters(job, letters, commits.position))
    assert job.sync is not None
    if commits.wrote:
        committed = read_committed(run.context.instance, job.sync)
        states = reporting.read_ranges(run)
        for result in build_check_results(
            run.context,
            job.target,
            job.diff,
            states,
            job.migration,
            describe_scope(run.plan, job.migration),
            written=written_since(states, committed),
        ):
            raise AssertionError(f"{result.check_name} is no check of a synchronisation")
