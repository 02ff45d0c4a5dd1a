"""What a run does with the ranges that it was given: copy, compare, judge, report.

One step does it all, because its worker processes and connections serve every part. Each range's
outcome is written to the event log the moment it is known, so a run that is killed loses only
what was under way; therefore the step returns no asset results of its own.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from migration_platform.comparing.diff import diff_ranges
from migration_platform.comparing.scope import describe_scope
from migration_platform.comparing.verdicts import difference_lines, form_lines
from migration_platform.components.failures import RunFailure
from migration_platform.components.home import refuse_forgetting
from migration_platform.components.table import (
    ended_runs,
    reporting,
    sync_copies,
    tracked_runs,
)
from migration_platform.components.table.checks import build_check_results
from migration_platform.components.table.dead_letters import check_dead_letters, tell_rejected
from migration_platform.components.table.filtering import with_run_filter
from migration_platform.components.table.ranged_copy import copy_ranges
from migration_platform.components.table.reporting import Job, RangedRun
from migration_platform.components.table.run_stores import open_sides
from migration_platform.components.table.sync_ledger import read_committed, written_since
from migration_platform.components.table.tracked_runs import Work
from migration_platform.copying.collisions import refuse_collisions
from migration_platform.copying.dead_letters import DeadLetterSummary, read_summary
from migration_platform.copying.rehearsal import rehearse
from migration_platform.copying.replay import ensure_dead_letters
from migration_platform.errors import DeclarationError, DeniedError, MigrationError, explain
from migration_platform.plan.model import Plan
from migration_platform.runs.events import KafkaSettings
from migration_platform.runs.log_lines import COMPLETED
from migration_platform.runs.resume import read_resume
from migration_platform.runs.run_info import MIGRATE, VALIDATE
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.interface import Origin, Pace, Resource, Target, Uses
from migration_platform.stores.permissions import look_again, refuse_denied
from migration_platform.stores.planning import make_plan, make_target, refuse_missing_target
from migration_platform.stores.work import records_at
from migration_platform.token_ranges import TokenRange, range_of_key

TAKES_ROWS = "truncate_target would take its rows"
MAX_LOGGED_LINES = 200
"""So many lines a run logs of rows that differ; each is an entry of Dagster's event log."""


@dataclass(frozen=True)
class _Sides:
    """Both open sides of a run, what it does there, and where it keeps records."""

    origin: Origin
    target: Target
    records: Any
    plan: Plan
    uses: Uses


def run_ranges(
    context: dg.AssetExecutionContext,
    job: Job,
    *,
    origin: Resource,
    target: Resource,
    events: ended_runs.EventSettings | None,
    truncate_target: bool | None,
    resume: object = None,
    run_id: int | None = None,
    split_pending: int = 1,
    own_filter: object = None,
    changes: KafkaSettings | None = None,
) -> Iterator[dg.AssetCheckResult]:
    """Do what the run selected, and give the results of the selected checks.

    `truncate_target` overrules what is declared, unless it is None; `own_filter` takes the place of
    the declared filter. `changes` is the cluster that has the changes of the origin. With `resume`,
    `auto` or a tracked run's id, what was done before is kept.

    Raises:
        dagster.Failure: one sentence, when a range failed or differs or nothing could begin.
    """
    try:
        refuse_forgetting(context.instance)
    except MigrationError as error:
        raise _failure(job, str(error)) from None
    run = _begin(context, job, events)
    try:
        run.job = with_run_filter(job, own_filter)
        run.resume, run.own_id = read_resume(resume, split_pending), run_id
        empties = _empties_target(run, truncate_target, declared=job)
        with ExitStack() as stack:
            sides = _open_sides(run, stack, origin, target, declared=job)
            _make_ready(run, sides, changes, empties=empties)
            copies, verdicts = _begin_tracking(run, stack, sides.records)
            if copies.todo or verdicts.todo:
                pool = _start_workers(run, stack, origin, target, sides)
                _copy_and_compare(run, sides.target, pool, copies, verdicts, empties=empties)
            unfinished = _finish_table(run, sides.target)
            yield from _judge_table(run, ended=True)
            letters = read_summary(sides.records, sides.plan.migration, _windows(run, run.copied))
            yield from check_dead_letters(context, job, letters)
    except MigrationError as error:
        if isinstance(error, DeniedError):
            # What it did until then counts, and what was found before is true no more.
            yield from _judge_table(run, ended=False)
        reporting.end(run, str(error))
        raise _failure(job, str(error)) from None
    except BaseException as error:
        # Also a cancelled run reports its end; what it was comes out as it came in.
        reporting.end(run, f"the run was stopped: {explain(error)}")
        raise
    reason = _why_red(run, unfinished, letters)
    reporting.end(run, reason)
    if reason:
        raise _failure(run.job, reason)
    if run.copying and not letters.within:
        context.log.info(COMPLETED)


def _open_sides(
    run: RangedRun, stack: ExitStack, origin: Resource, target: Resource, *, declared: Job
) -> _Sides:
    """Open both sides and make the plan, and the target where it is to be created."""
    migration = run.job.migration
    here, there = open_sides(run.context, migration, stack, origin=origin, target=target)
    records = records_at(migration, here.connection, there.connection)
    plan = run.plan = make_plan(migration, here, there)
    if run.copying:
        plan = run.plan = make_target(plan, here, there, _build_waiting(run))
    refuse_missing_target(plan)
    run.scope = describe_scope(plan, declared.migration)
    if run.scope.declared:
        run.context.log.info(run.scope.told_filter.strip())
    uses = Uses(copying=run.copying, comparing=run.comparing)
    refuse_denied(plan, here, there, uses)
    reporting.tell_plan(run)
    return _Sides(here, there, records, plan, uses)


def _make_ready(
    run: RangedRun, sides: _Sides, changes: KafkaSettings | None, *, empties: bool
) -> None:
    """Do what must be done before anything is copied or repaired."""
    migration = run.job.migration
    writes = run.copying or (run.comparing and bool(migration.repair))
    _refuse_runs_beside(run, writes=writes, empties=empties)
    sync_copies.fix_position(run, changes)
    if writes:
        ensure_dead_letters(sides.records, migration)


def _refuse_runs_beside(run: RangedRun, *, writes: bool, empties: bool) -> None:
    """Refuse to begin beside runs that this one would harm, or that would harm it."""
    assert run.plan is not None
    if run.plan.has_counters and writes:
        refuse_other_runs(run, "two runs would both add the difference to a counter")
    if empties:
        _validate_truncation(run)
    elif writes:
        refuse_truncating_runs(run)


def _start_workers(
    run: RangedRun, stack: ExitStack, origin: Resource, target: Resource, sides: _Sides
) -> WorkerPool:
    """Start the processes of the run, and what watches over them."""
    pool = stack.enter_context(
        WorkerPool(
            sides.plan,
            origin.to_settings(),
            target.to_settings(),
            workers=min(len(run.ranges), run.job.migration.workers or os.cpu_count() or 1),
            look_again=partial(look_again, sides.plan, sides.origin, sides.target, sides.uses),
        )
    )
    stack.enter_context(tracked_runs.watching(run, pool))
    return pool


def _copy_and_compare(
    run: RangedRun,
    target: Target,
    pool: WorkerPool,
    copies: Work,
    verdicts: Work,
    *,
    empties: bool,
) -> None:
    with tempfile.TemporaryDirectory(prefix="migration-platform-") as folder:
        winners = find_winners(run, pool, Path(folder))
        if copies.todo:
            _copy(run, target, pool, winners, copies, empties=empties)
        if verdicts.todo:
            _compare(run, pool, winners, verdicts)


def _judge_table(run: RangedRun, *, ended: bool) -> Iterator[dg.AssetCheckResult]:
    """Report what is known of all ranges now, and give the verdict on the table.

    A run that `ended` well may claim that the table is copied.
    """
    assert run.plan is not None
    states = reporting.read_ranges(run)
    reporting.report_table(run, states, ended=ended)
    job, instance = run.job, run.context.instance
    written = written_since(states, read_committed(instance, job.sync)) if job.sync else []
    yield from build_check_results(
        run.context, job.target, job.diff, states, run.plan.migration, run.scope, written
    )


def _begin(
    context: dg.AssetExecutionContext, job: Job, events: ended_runs.EventSettings | None
) -> RangedRun:
    selected = context.op_execution_context.selected_asset_keys
    instance = context.instance
    run = RangedRun(
        context,
        job,
        events,
        ranges=[range_of_key(key) for key in context.partition_keys] if selected else [],
        copying=job.target in selected,
        comparing=job.diff in selected,
    )
    # The tags come first: from here on, whoever finds this run dead knows what it owes.
    tags = {ended_runs.PROCESS_TAG: ended_runs.process_mark()}
    if run.copying:
        tags[ended_runs.copies_tag(job.target)] = ended_runs.BEGUN
    if run.comparing and job.migration.repair:
        tags[ended_runs.repairs_tag(job.target)] = ended_runs.BEGUN
    if events and run.copying:
        tags[ended_runs.events_tag(job.target)] = ended_runs.PENDING
    instance.add_run_tags(context.run.run_id, tags)
    for run_id in ended_runs.fail_dead_runs(instance):
        context.log.warning(f"Run {run_id} was found dead; it and its open ranges are now failed.")
    if events:
        for problem in ended_runs.settle_events(instance, job.target, events):
            reporting.note_event_problem(run, problem)
    if events and run.copying:
        began = f"{events.job} Started executing"
        reporting.log_event(run, "JOB_START", began, reporting.job_config(run))
    return run


# -- copying -----------------------------------------------------------------------------------


def _empties_target(run: RangedRun, overruled: bool | None, *, declared: Job) -> bool:
    if not run.copying:
        return False
    if run.resume is None:
        empties = run.job.migration.truncate_target if overruled is None else overruled
        if empties and overruled is None and run.job != declared:
            raise DeclarationError(
                "truncate_target is declared, and would take all rows before the run's own filter "
                "copies some; launch with the op config truncate_target: false as well, or with "
                "true if they are to go"
            )
        return empties
    if overruled:
        raise DeclarationError(
            "resume keeps what was copied before, and truncate_target would empty it; leave one "
            "of them out"
        )
    return False


def _begin_tracking(run: RangedRun, stack: ExitStack, records: Any) -> tuple[Work, Work]:
    """Track the run, if it does anything, and say what it has to copy and to compare."""
    if not run.ranges or not (run.copying or run.comparing):
        return Work({}, {}), Work({}, {})
    tracked_runs.open_tracking(run, records)
    stack.enter_context(tracked_runs.ending(run))
    return _carry_over(run)


def _carry_over(run: RangedRun) -> tuple[Work, Work]:
    """Divide what was selected into what is to be done and what is carried over; report that."""
    states = reporting.read_ranges(run, before=True) if run.resume else []
    copies, verdicts = Work({}, {}), Work({}, {})
    if run.copying:
        copies = tracked_runs.divide_copy(run, states)
        tracked_runs.carry_copies(run, copies, states)
    if run.comparing:
        verdicts = tracked_runs.divide_comparison(run, states, copies if run.copying else None)
        tracked_runs.carry_verdicts(run, verdicts, states)
    return copies, verdicts


def _validate_truncation(run: RangedRun) -> None:
    everything = run.job.migration.ranges
    if len(run.ranges) != len(everything):
        raise DeclarationError(
            f"truncate_target empties the whole of {run.job.migration.target.table}, but this run "
            f"covers {len(run.ranges)} of {len(everything)} ranges; select all ranges, or launch "
            "with the op config truncate_target: false to copy these on top of what is there"
        )
    # Noted before it looks: of two runs that begin together, at least one sees the other.
    tag = ended_runs.truncates_tag(run.job.target)
    run.context.instance.add_run_tags(run.context.run.run_id, {tag: ended_runs.BEGUN})
    refuse_other_runs(run, TAKES_ROWS)


def refuse_truncating_runs(run: RangedRun) -> None:
    """Refuse to write beside a run that empties the same table.

    Raises:
        DeclarationError: there is one.
    """
    why = "it would take the rows of this one"
    _refuse_beside(run, why, (ended_runs.truncates_tag, "empties and copies"))


def refuse_other_runs(run: RangedRun, why: str) -> None:
    """Refuse to begin beside another run that writes the same table.

    Raises:
        DeclarationError: there is one; `why` says what would go wrong.
    """
    kinds = (ended_runs.copies_tag, "copies"), (ended_runs.repairs_tag, "repairs")
    _refuse_beside(run, why, *kinds)


def _refuse_beside(
    run: RangedRun, why: str, *kinds: tuple[Callable[[dg.AssetKey], str], str]
) -> None:
    states = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    others = [
        (other.run_id, verb)
        for tag, verb in kinds
        for other in run.context.instance.get_runs(
            RunsFilter(statuses=states, tags={tag(run.job.target): ended_runs.BEGUN})
        )
        if other.run_id != run.context.run.run_id
    ]
    if others:
        other, verb = others[0]
        raise DeclarationError(
            f"run {other} {verb} {run.job.migration.target.table} already, and {why}; "
            "wait for it or terminate it"
        )


def _build_waiting(run: RangedRun) -> Callable[[str], None]:
    """Build what tells of the table that is being made, each status once."""
    told: set[str] = set()

    def tell(status: str) -> None:
        if status not in told:
            told.add(status)
            run.context.log.info(f"Waiting for {run.job.migration.target.table}: {status}")

    return tell


def _truncate_target(run: RangedRun, target: Target, pool: WorkerPool) -> None:
    # Noted before it is done: from now on no range counts as copied until it is copied again.
    sync_copies.note_emptied(run)
    for token_range in run.ranges:
        reporting.observe(run, run.job.target, token_range, {"emptied": True})
    assert run.plan is not None
    log, name = run.context.log, run.job.migration.target.table
    pace = Pace(
        pool.target_budget,
        run.plan.migration.retry_seconds,
        lambda error: log.warning(f"Trying again: {explain(error)}"),
    )
    count = target.empty(run.plan, pace)
    log.info(f"Emptied {name}" + ("." if count is None else f" of {count:,} items."))


def find_winners(run: RangedRun, pool: WorkerPool, folder: Path) -> str | None:
    """Where the target's key does not keep rows apart, say which of them are to be written.

    Raises:
        PreflightError: there are such rows, and nothing says which one wins.
        MigrationError: the origin could not be read.
    """
    plan, log = run.plan, run.context.log
    assert plan is not None
    if not plan.lost_keys:
        return None
    log.info(
        f"The key of {plan.target.name} does not hold {', '.join(plan.lost_keys)}: looking for "
        "rows that would land on one another, in all ranges"
    )
    path = folder / "keys.sqlite"
    progress = reporting.build_progress(run.context, "Ranges read")
    found = rehearse(pool, plan, run.job.migration.ranges, path, progress)
    if found.failed:
        token_range, reason = found.failed[0]
        raise MigrationError(f"collisions could not be looked for in {token_range.key}: {reason}")
    refuse_collisions(plan, found.collisions)
    if not found.collisions.target_rows:
        return None
    log.warning(f"{found.collisions}; the {plan.migration.collisions} of each wins")
    return str(path)


def _copy(
    run: RangedRun,
    target: Target,
    pool: WorkerPool,
    winners: str | None,
    work: Work,
    *,
    empties: bool,
) -> None:
    if empties:
        # No budget holds this back, and much may have begun since the first look.
        if run.watch is not None:
            run.watch.wait_while_paused()
        refuse_other_runs(run, TAKES_ROWS)
    tracked_runs.begin_run(run, work, MIGRATE, emptied=empties)
    if empties:
        _truncate_target(run, target, pool)
    copy_ranges(run, pool, winners, work, emptied=empties)
    tracked_runs.end_run(run, MIGRATE)


def _finish_table(run: RangedRun, target: Target) -> str:
    """Do what belongs behind a whole copy, if this run completes one; say what went wrong."""
    assert run.plan is not None
    if not run.copying or not all(state.copied for state in reporting.read_ranges(run)):
        return ""
    try:
        target.finish(run.plan, _build_waiting(run))
    except MigrationError as error:
        return f"all rows are copied, but the table is not finished: {error}"
    return ""


# -- comparing ---------------------------------------------------------------------------------


def _compare(
    run: RangedRun,
    pool: WorkerPool,
    winners: str | None,
    work: Work,
) -> None:
    assert run.plan is not None
    ranges = [token_range for token_range in work.todo if token_range not in run.failed]
    todo = {token_range: work.todo[token_range] for token_range in ranges}
    if not ranges:
        return
    tracked_runs.begin_run(run, replace(work, todo=todo), VALIDATE)
    run.compared_over = reporting.read_copies_before(run)
    run.comparison_began = time.time()
    progress = reporting.build_progress(run.context, "Comparing, scans")
    lines_left = form_lines_left = MAX_LOGGED_LINES
    retries = reporting.build_retry_log(run.context, "Comparing")
    for verdict in diff_ranges(pool, run.plan, ranges, progress, winners, retries):
        for line in islice(difference_lines(verdict), lines_left):
            run.context.log.error(line)
            lines_left -= 1
        for line in islice(form_lines(verdict), form_lines_left):
            run.context.log.info(line)
            form_lines_left -= 1
        metadata = reporting.verdict_metadata(verdict, one_way=run.scope.one_way)
        metadata |= tracked_runs.count_verdict(run, verdict)
        if verdict.matches:
            reporting.materialize(run, run.job.diff, verdict.token_range, metadata)
            if verdict.corrected:
                key = verdict.token_range.key
                run.context.log.warning(f"{key}: {reporting.verdict_line(verdict)}")
        else:
            reporting.observe(run, run.job.diff, verdict.token_range, metadata)
            run.differing.append(verdict)
            run.context.log.error(f"{verdict.token_range.key}: {reporting.verdict_line(verdict)}")
        tracked_runs.note_verdict(run, verdict)
    tracked_runs.end_run(run, VALIDATE)


def _windows(run: RangedRun, ranges: Sequence[TokenRange]) -> list[TokenRange]:
    windows = (run.job.migration.filter.window(token_range) for token_range in ranges)
    return [window for window in windows if window is not None]


def _why_red(run: RangedRun, unfinished: str, letters: DeadLetterSummary) -> str:
    reasons = (reporting.what_went_wrong(run), unfinished, _rejection(run, letters))
    return "; ".join(filter(None, reasons))


def _rejection(run: RangedRun, letters: DeadLetterSummary) -> str:
    """Say that rows were rejected, as the reason to fail; empty if there is none."""
    if not letters.within:
        return ""
    said = tell_rejected(run.job, letters)
    if run.job.migration.dead_letters_fail_run:
        return f"{said}; with dead_letters.fail_run: false a run succeeds in spite of such rows"
    run.context.log.warning(f"{said}; dead_letters.fail_run is false, so the run succeeds")
    return ""


def _failure(job: Job, reason: str) -> RunFailure:
    name = str(job.migration.name)
    return RunFailure(reason if reason.startswith(name) else f"{name}: {reason}")
