"""What the asset of a table's dead letters does: it copies their rows again."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import dagster as dg

from migration_platform.components.failures import RunFailure
from migration_platform.components.table import ended_runs, tracked_runs
from migration_platform.components.table.dead_letters import (
    describe_dead_letters,
    report_check,
    tell_dead_letters,
)
from migration_platform.components.table.ranged_run import (
    find_winners,
    refuse_other_runs,
    refuse_truncating_runs,
)
from migration_platform.components.table.reporting import PROGRESS_SECONDS, Job, RangedRun
from migration_platform.components.table.run_stores import open_sides
from migration_platform.copying.dead_letters import DeadLetterSummary, open_dead_letters
from migration_platform.copying.replay import Replay, ReplayCounts, replay
from migration_platform.errors import MigrationError
from migration_platform.runs.control import CONTROL_TABLES
from migration_platform.runs.tracking_tables import open_tables
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.interface import Resource, Uses
from migration_platform.stores.permissions import look_again, refuse_denied
from migration_platform.stores.planning import make_plan, refuse_missing_target
from migration_platform.stores.work import records_at


def replay_dead_letters(
    context: dg.AssetExecutionContext,
    job: Job,
    *,
    origin: Resource,
    target: Resource,
) -> dg.MaterializeResult:
    """Copy the rows of the dead letters, as they are at the origin now.

    Raises:
        dagster.Failure: one sentence, when rows could not be written again or nothing could begin.
    """
    migration = job.migration
    run = RangedRun(context, job, None, ranges=[], copying=False, comparing=False)
    tags = {
        ended_runs.PROCESS_TAG: ended_runs.process_mark(),
        ended_runs.repairs_tag(job.target): ended_runs.BEGUN,
    }
    context.instance.add_run_tags(context.run.run_id, tags)
    try:
        found = _replay(run, origin, target)
        report_check(context, job, found.remaining)
    except MigrationError as failure:
        raise RunFailure(f"{migration.name}: {failure}") from None
    metadata = {
        "replayed": found.counts.replayed,
        "gone": found.counts.gone,
        **describe_dead_letters(found.remaining),
    }
    if found.error or found.remaining.count:
        reason = found.error or tell_dead_letters(found.remaining)
        raise RunFailure(f"{migration.name}: {reason}", metadata=metadata)
    return dg.MaterializeResult(metadata=metadata)


def _replay(run: RangedRun, origin: Resource, target: Resource) -> Replay:
    """Copy the rows of the dead letters, if there are any.

    Raises:
        MigrationError: nothing could begin.
    """
    migration = run.job.migration
    with ExitStack() as stack:
        here, there = open_sides(run.context, migration, stack, origin=origin, target=target)
        plan = run.plan = make_plan(migration, here, there)
        refuse_missing_target(plan)
        uses = Uses(comparing=False)
        refuse_denied(plan, here, there, uses)
        records = records_at(migration, here.connection, there.connection)
        refuse_truncating_runs(run)
        if plan.has_counters:
            refuse_other_runs(run, "two runs would both add the difference to a counter")
        store = open_dead_letters(records, migration)
        slices = store.slices() if store else []
        if not slices:
            return Replay(ReplayCounts(), DeadLetterSummary())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="migration-platform-"))
        if migration.tracking:
            run.tables = open_tables(records, migration, CONTROL_TABLES)
        pool = stack.enter_context(
            WorkerPool(
                plan,
                origin.to_settings(),
                target.to_settings(),
                workers=min(len(slices), migration.workers or os.cpu_count() or 1),
                look_again=partial(look_again, plan, here, there, uses),
            )
        )
        stack.enter_context(tracked_runs.watching(run, pool))
        return replay(
            pool,
            records,
            migration,
            run_id=run.context.run.run_id,
            winners=find_winners(run, pool, Path(folder)),
            on_progress=_build_progress(run.context),
        )


def _build_progress(context: dg.AssetExecutionContext) -> Callable[[ReplayCounts], None]:
    told = time.monotonic()

    def tell(counts: ReplayCounts) -> None:
        nonlocal told
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            context.log.info(
                f"{counts.done:,} dead letters done: {counts.replayed:,} rows replayed, "
                f"{counts.gone:,} gone, {counts.failed:,} failed again"
            )

    return tell
