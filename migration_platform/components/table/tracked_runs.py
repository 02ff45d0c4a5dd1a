"""Where Dagster's runs meet the tracking tables: neither says what the other does not.

A range is shown as materialized first, and noted as passed then. A run that was killed in between
is settled by the next one: what Dagster shows as materialized by that very run has passed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import dagster as dg

from migration_platform.comparing.verdicts import RangeVerdict
from migration_platform.components.table import reporting, sync_copies
from migration_platform.components.table.ledger import (
    COMPARED_OVER,
    COMPARISON_BEGAN,
    COPIED_EVENT,
    RangeState,
    read_tracked_pieces,
)
from migration_platform.components.table.reporting import RangedRun
from migration_platform.counts import PieceReport, RangeCounts
from migration_platform.errors import DeclarationError, MigrationError
from migration_platform.runs.control import CONTROL_TABLES, Watch
from migration_platform.runs.log_lines import banner, final_lines, parameter_lines
from migration_platform.runs.resume import Detail, Division, divide, to_detail
from migration_platform.runs.run_info import (
    MIGRATE,
    VALIDATE,
    copy_counters,
    to_range_counts,
    to_run_info,
    verdict_counters,
)
from migration_platform.runs.tracking import (
    ENDING_SECONDS,
    FAIL,
    NOT_STARTED,
    PASS,
    STARTED,
    create_run,
    migration_key,
    refuse_run_id,
    settle_run,
)
from migration_platform.runs.tracking_tables import TrackingTables, open_tables
from migration_platform.runs.workers import WorkerPool
from migration_platform.token_ranges import TokenRange, split_range

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Work:
    """What a run has to do: pieces of ranges, and ranges of which some or all was done before."""

    todo: Mapping[TokenRange, tuple[TokenRange, ...]]
    carried: Mapping[TokenRange, Division]
    previous: int = 0


# -- beginning -----------------------------------------------------------------------------------


def open_tracking(run: RangedRun, records: Any) -> None:
    """Make sure of the tracking tables, and settle runs of this migration that were killed.

    Raises:
        DeclarationError: what is asked for needs tracking, or the run's own id is taken.
        PreflightError: the tables cannot be made.
    """
    migration = run.job.migration
    if not migration.tracking:
        if run.resume or run.own_id is not None:
            raise DeclarationError(
                f"resume and run_id need tracked runs, but {migration.name} declares "
                "tracking: false; take that away, or leave them out"
            )
        return
    run.tables = open_tables(records, migration, CONTROL_TABLES)
    if run.own_id is not None:
        refuse_run_id(run.tables, migration.target.table.table, run.own_id)
    run.past = sorted(
        run.tables.read("migration_runs", migration=migration_key(migration)),
        key=lambda row: (row["begun"] or datetime.min, row["run_id"]),
        reverse=True,
    )
    for past in run.past:
        if not past["settled"]:
            _settle(run, run.tables, past)


def _settle(run: RangedRun, tables: TrackingTables, past: Row) -> None:
    instance, dagster_id = run.context.instance, past["dagster_run_id"]
    found = instance.get_run_by_id(dagster_id)
    # A run of another Dagster, or one that goes on, is not this one's to judge.
    if found is None or not found.is_finished or dagster_id == run.context.run.run_id:
        return
    asset = run.job.target if past["run_type"] == MIGRATE else run.job.diff
    passed = read_tracked_pieces(instance, asset, dagster_id, past["run_id"])
    settled = settle_run(tables, past, passed)
    if settled:
        run.context.log.info(
            f"Run id {past['run_id']} did not come to its end; noted {len(settled)} of its ranges "
            "as passed, which Dagster shows as materialized by it"
        )


@contextmanager
def ending(run: RangedRun) -> Iterator[None]:
    """Note the end of a tracked run also when it does not end well."""
    try:
        yield
    except BaseException:
        if run.tracked is not None and not run.tracked.ended:
            try:
                run.tracked.tables.retry_seconds = ENDING_SECONDS
                run.tracked.end(settled=False)
            except MigrationError as error:
                run.context.log.warning(f"The tracked run stays {NOT_STARTED} or STARTED: {error}")
        raise


@contextmanager
def watching(run: RangedRun, pool: WorkerPool) -> Iterator[None]:
    """Follow the operator's rate and pause for as long as the pool works."""
    if run.tables is None:
        yield
        return
    with Watch(run.tables, run.job.migration, pool.budgets, run.context.log.warning) as watch:
        run.watch = watch
        yield


# -- resuming ------------------------------------------------------------------------------------


def divide_copy(run: RangedRun, states: Sequence[RangeState]) -> Work:
    """Say what is to be copied, and what was copied before and is carried over."""
    if run.resume is None or run.tables is None:
        return _everything(run)
    previous, runs = _earlier_runs(run, run.tables, MIGRATE)
    if not runs:
        return _everything(run, previous)
    emptied = {state.token_range for state in states if state.emptied}
    # What was copied under another declaration since is no longer what was copied under this one.
    overwriting = {
        past["run_id"]
        for past in run.past
        if past["run_type"] == MIGRATE and not _is_current(run, past)
    }
    return _divide(run, previous, _details(run.tables, run, runs, overwriting), emptied)


def divide_comparison(run: RangedRun, states: Sequence[RangeState], copied: Work | None) -> Work:
    """Say what is to be compared: all but what passed since it was copied last."""
    if run.resume is None or run.tables is None:
        return _everything(run)
    previous, runs = _earlier_runs(run, run.tables, VALIDATE)
    if not runs:
        return _everything(run, previous)
    fresh = {state.token_range for state in states if state.compared and state.matches}
    if copied is not None:
        fresh -= {token_range for token_range, pieces in copied.todo.items() if pieces}
    stale = set(run.ranges) - fresh
    # What was begun to be copied since is not what was compared; nor is what was compared, and
    # may have been repaired, under another declaration.
    assert run.plan is not None
    overwriting = {
        past["run_id"]
        for past in run.past
        if past["run_type"] == MIGRATE
        or not _is_current(run, past)
        or past["comparison"] != run.plan.comparison
    }
    work = _divide(run, previous, _details(run.tables, run, runs, overwriting), stale)
    # A comparison has no pieces: what is not done is done whole.
    carried = {r: division for r, division in work.carried.items() if not division.pending}
    todo = _everything(run).todo
    return Work({r: todo[r] for r in run.ranges if r not in carried}, carried, previous)


def _everything(run: RangedRun, previous: int = 0) -> Work:
    windows = {r: run.job.migration.filter.window(r) for r in run.ranges}
    return Work({r: (w,) if w else () for r, w in windows.items()}, {}, previous)


def _divide(
    run: RangedRun, previous: int, details: Iterator[list[Detail]], anew: set[TokenRange]
) -> Work:
    assert run.resume is not None
    everything = _everything(run, previous)
    windows = [piece for r, pieces in everything.todo.items() if r not in anew for piece in pieces]
    divisions = divide(windows, details)
    todo: dict[TokenRange, tuple[TokenRange, ...]] = {}
    carried: dict[TokenRange, Division] = {}
    for token_range, pieces in everything.todo.items():
        division = Division(pieces)
        if token_range not in anew:
            division = divisions.get(token_range.index, division)
        if division.done or not division.pending:
            carried[token_range] = division
        if division.pending:
            todo[token_range] = tuple(
                part
                for piece in division.pending
                for part in split_range(piece, run.resume.split_pending)
            )
    pending = sum(map(len, todo.values()))
    run.context.log.info(f"{pending} partitions pending from previous run id {previous}")
    return Work(todo, carried, previous)


def _details(
    tables: TrackingTables, run: RangedRun, runs: Sequence[int], overwriting: set[int]
) -> Iterator[list[Detail]]:
    """Give what runs tell of their ranges, the newest first.

    Of those that overwrote what the others tell of, all that was begun counts as only begun.
    """
    table_name = run.job.migration.target.table.table
    known = [past["run_id"] for past in run.past]
    recent = [run_id for run_id in known if run_id in overwriting or run_id in runs]
    for run_id in [*recent, *(run_id for run_id in runs if run_id not in known)]:
        rows = tables.read("cdm_run_details", table_name=table_name, run_id=run_id)
        details = [to_detail(row) for row in rows]
        if run_id in overwriting:
            details = [replace(d, status=STARTED) for d in details if d.status != NOT_STARTED]
        yield details


def _is_current(run: RangedRun, past: Row) -> bool:
    assert run.plan is not None
    return past["fingerprint"] == run.plan.fingerprint


def _earlier_runs(run: RangedRun, tables: TrackingTables, run_type: str) -> tuple[int, list[int]]:
    """Give the id to resume from, and all runs whose word counts, the newest first."""
    assert run.resume is not None
    current: list[Row] = []
    for past in run.past:
        if _is_current(run, past):
            current.append(past)
        if past["emptied"]:
            break
    own = [past["run_id"] for past in current if past["run_type"] == run_type]
    named = run.resume.previous
    if named is None:
        return (own[0] if own else 0), own
    types = {past["run_id"]: past["run_type"] for past in run.past}
    if run_type == VALIDATE and types.get(named) == MIGRATE:
        # A copy's id says nothing of comparisons; what was compared since does.
        return (own[0] if own else 0), own
    return named, _chain(run, tables, named, {past["run_id"] for past in current})


def _chain(run: RangedRun, tables: TrackingTables, named: int, current: set[int]) -> list[int]:
    """Follow `prev_run_id` from a run back, leaving out runs whose word no longer counts."""
    table_name = run.job.migration.target.table.table
    known = {past["run_id"] for past in run.past}
    emptied_at = next((past["begun"] or datetime.max for past in run.past if past["emptied"]), None)
    found: list[int] = []
    seen: set[int] = set()
    run_id = named
    while run_id and run_id not in seen:
        seen.add(run_id)
        rows = tables.read("cdm_run_info", table_name=table_name, run_id=run_id)
        if not rows or rows[0]["status"] in (None, NOT_STARTED):
            if run_id == named:
                run.context.log.warning(
                    f"Run NOT FOUND / NOT STARTED for Previous RunId: {named}, starting new run!"
                )
                return []
            break
        if run_id not in known:
            _refuse_strangers(tables, run_id, run)
        counts = (
            run_id in current
            if run_id in known
            # Other programs need not say when a run began.
            else emptied_at is None or (rows[0]["start_time"] or datetime.min) > emptied_at
        )
        if counts:
            found.append(run_id)
        else:
            run.context.log.warning(
                f"Nothing is carried over from run id {run_id}: the target was emptied since, or "
                "the migration or its tables have changed"
            )
        run_id = rows[0]["prev_run_id"]
    return found


def _refuse_strangers(tables: TrackingTables, run_id: int, run: RangedRun) -> None:
    """Refuse a run of another migration, whose target only happens to have the same name."""
    table_name = run.job.migration.target.table.table
    for row in tables.read("migration_runs"):
        # An id is one run's among those of a table's name only.
        if (row["table_name"], row["run_id"]) == (table_name, run_id):
            raise DeclarationError(
                f"run id {run_id} is a run of {row['migration']}, not of "
                f"{migration_key(run.job.migration)}; `migration-platform status "
                f"{run.job.migration.name}` lists its runs"
            )


# -- carrying over -------------------------------------------------------------------------------


def carried_counts(division: Division | None) -> RangeCounts:
    """Give what was counted of what is carried over."""
    done = division.done if division else ()
    return sum((to_range_counts(detail.counts) for detail in done), start=RangeCounts())


def carried_metadata(division: Division | None) -> dict[str, Any]:
    """Say from which tracked runs something was carried over."""
    if division is None or not division.done:
        return {}
    return {"carried_over_from": ", ".join(map(str, division.run_ids))}


def carry_copies(run: RangedRun, work: Work, states: Sequence[RangeState]) -> None:
    """Report the ranges of which nothing is pending as materialized, with their old counts."""
    by_range = {state.token_range: state for state in states}
    whole = [r for r in work.carried if not work.todo.get(r)]
    for token_range in whole:
        run.copied.append(token_range)
        division = work.carried[token_range]
        metadata = carried_metadata(division)
        state = by_range[token_range]
        metadata |= sync_copies.tell_carried_position(run, division, state)
        if state.copied:
            metadata[COPIED_EVENT] = str(state.copied_event)
        reporting.materialize_copy(run, token_range, carried_counts(division), metadata)
    if whole:
        ids = sorted({i for r in whole for i in work.carried[r].run_ids}, reverse=True)
        run.context.log.info(
            f"Carried over {len(whole)} of {len(run.ranges)} ranges from run id "
            f"{', '.join(map(str, ids))}: they were copied, and are not copied again"
        )


def carry_verdicts(run: RangedRun, work: Work, states: Sequence[RangeState]) -> None:
    """Report the verdicts that still hold as materialized again."""
    by_range = {state.token_range: state for state in states}
    for token_range, division in work.carried.items():
        verdict = by_range[token_range].verdict
        kept = {
            name: value
            for name, value in verdict.items()
            if isinstance(value, int) or name in (COMPARED_OVER, COMPARISON_BEGAN)
        }
        metadata = {**kept, **carried_metadata(division)}
        reporting.materialize(run, run.job.diff, token_range, metadata)
    if work.carried:
        run.context.log.info(
            f"Carried over the verdicts on {len(work.carried)} of {len(run.ranges)} ranges: they "
            "were not copied since"
        )


# -- the run in the tables -----------------------------------------------------------------------


def begin_run(run: RangedRun, work: Work, run_type: str, *, emptied: bool = False) -> None:
    """Note what is to be done, and that it begins.

    Raises:
        MigrationError: the tables cannot be written.
    """
    assert run.plan is not None
    run.tracked = None
    # A run that copies and compares tells of each on its own.
    run.totals.clear()
    pieces = [piece for parts in work.todo.values() for piece in parts]
    if run.tables is not None:
        run.tracked = create_run(
            run.tables,
            run.job.migration,
            run_type,
            pieces,
            fingerprint=run.plan.fingerprint,
            comparison=run.plan.comparison,
            run_id=run.own_id,
            previous=work.previous,
            dagster_run_id=run.context.run.run_id,
            emptied=emptied,
        )
        # A run's own id is good for one tracked run.
        run.own_id = None
        run.tracked.begin()
        if run.watch is not None:
            run.watch.run = run.tracked
    lines = banner(run_type, "Starting")
    lines += parameter_lines(run.job.migration, run.tracked, len(pieces))
    if run_type == VALIDATE:
        for piece in pieces:
            lines.append(_range_line("main", piece))
            if run.tracked is not None:
                run.tracked.begin_piece(piece)
    run.context.log.info("\n".join(lines))


def note_piece(run: RangedRun, report: PieceReport, process_id: int) -> None:
    """Note what a worker tells of a piece."""
    piece, tracked = report.piece, run.tracked
    if report.state == "begun":
        run.context.log.info(_range_line(process_id, piece))
        if tracked is not None:
            tracked.begin_piece(piece)
        return
    if report.state == "cut":
        if tracked is not None:
            tracked.cut_piece(piece, report.cut_into)
        return
    failed = report.state != "done" or not report.counts.complete
    counters = copy_counters(report.counts, failed=failed)
    if failed:
        run.context.log.error(
            f"Error with PartitionRange -- {_range_line(process_id, piece)}\n"
            f"Error stats {to_run_info(MIGRATE, counters)}"
        )
    if tracked is None:
        run.totals.update(counters)
        return
    tracked.count_piece(piece, counters)
    if failed:
        if report.reason:
            tracked.note_reason(piece, report.reason)
        tracked.end_piece(piece, FAIL)
    elif not tracked.is_last(piece):
        # The last one waits until Dagster shows the range as materialized.
        tracked.end_piece(piece, PASS)


def note_range(run: RangedRun, token_range: TokenRange, failed: RangeCounts | None = None) -> None:
    """Note the end of a range, after Dagster was told of it; `failed` is what came of it."""
    if run.tracked is not None:
        counters = None if failed is None else copy_counters(failed, failed=True)
        run.tracked.end_range(token_range, counters)
        if failed is not None:
            run.tracked.give_reason(token_range, run.failed[token_range])


def tracked_metadata(run: RangedRun, token_range: TokenRange, status: str) -> dict[str, Any]:
    """Give what the next run needs if this one is killed before it can note a range."""
    if run.tracked is None:
        return {}
    return {
        "tracked_status": status,
        "tracked_pieces": dg.MetadataValue.json(run.tracked.texts(token_range)),
    }


def count_verdict(run: RangedRun, verdict: RangeVerdict) -> dict[str, Any]:
    """Count a verdict, and give what its event tells of the tracked run."""
    counters = verdict_counters(verdict)
    if run.tracked is None:
        run.totals.update(counters)
        return {}
    for piece in run.tracked.pieces_of(verdict.token_range):
        run.tracked.count_piece(piece, counters)
    return tracked_metadata(run, verdict.token_range, verdict.status)


def note_verdict(run: RangedRun, verdict: RangeVerdict) -> None:
    """Note a verdict, after Dagster was told of it."""
    if run.tracked is not None:
        for piece in run.tracked.pieces_of(verdict.token_range):
            run.tracked.end_piece(piece, verdict.status)
        if not verdict.matches:
            run.tracked.give_reason(verdict.token_range, reporting.verdict_line(verdict))


def end_run(run: RangedRun, run_type: str) -> None:
    """Note that the run has come to its end, and say what came of it."""
    totals = run.totals
    if run.tracked is not None:
        run.tracked.end()
        totals = run.tracked.totals
    lines = [*final_lines(run_type, run.tracked, totals), *banner(run_type, "Stopped")]
    run.context.log.info("\n".join(lines))


def _range_line(thread: object, piece: TokenRange) -> str:
    low, high = piece.bounds
    return f"ThreadID: {thread} Processing min: {low} max: {high}"
