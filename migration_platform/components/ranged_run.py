"""What a run does with the ranges that it was given: copy, compare, judge, report.

One step does it all, because its worker processes and connections serve every part. Each range's
outcome is written to the event log the moment it is known, so a run that is killed loses only
what was under way; therefore the step returns no asset results of its own.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from migration_platform.components import ended_runs
from migration_platform.components.checks import build_check_results
from migration_platform.components.ledger import FINGERPRINT, RangeState, read_states
from migration_platform.copy import CopyRange, RangeCounts
from migration_platform.diff import RangeVerdict, diff_ranges
from migration_platform.errors import DeclarationError, MigrationError, explain
from migration_platform.events import Message, job_event, publish
from migration_platform.migration import Migration
from migration_platform.picture import as_markdown, draw_ring
from migration_platform.preflight import Plan, build_plan
from migration_platform.resources import CassandraResource
from migration_platform.stores.cassandra import Connection, Table, truncate
from migration_platform.token_ranges import TokenRange, describe_ranges, range_of_key
from migration_platform.workers import Done, Failed, Reported, Started, WorkerPool

PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """A migration with its Dagster names; what the step needs beside Dagster's context."""

    migration: Migration
    origin: dg.AssetKey
    target: dg.AssetKey
    diff: dg.AssetKey
    partitions: dg.StaticPartitionsDefinition


@dataclass
class RangedRun:
    """One run of one migration: what was asked for, and what has come of it so far."""

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

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started


def run_ranges(
    context: dg.AssetExecutionContext,
    job: Job,
    *,
    origin: CassandraResource,
    target: CassandraResource,
    events: ended_runs.EventSettings | None,
    truncate_target: bool,
) -> Iterator[dg.AssetCheckResult]:
    """Do what the run selected, and give the results of the selected checks.

    Raises:
        dagster.Failure: one sentence, when a range failed or differs or nothing could begin.
    """
    run = _begin(context, job, events)
    try:
        with ExitStack() as stack:
            connections = (
                stack.enter_context(origin.connect()),
                stack.enter_context(target.connect()),
            )
            run.plan = build_plan(job.migration, *connections)
            _tell_plan(run)
            if run.copying and truncate_target:
                _truncate_target(run, connections[1])
            if run.ranges and (run.copying or run.comparing):
                with WorkerPool(
                    run.plan,
                    origin.to_settings(),
                    target.to_settings(),
                    workers=min(len(run.ranges), job.migration.workers or os.cpu_count() or 1),
                ) as pool:
                    if run.copying:
                        _copy(run, pool)
                    if run.comparing:
                        _compare(run, pool, connections)
            states = _read_states(run)
            _observe_table(run, states)
            yield from build_check_results(context, job.target, job.diff, states)
    except MigrationError as error:
        _end(run, str(error))
        raise _failure(run, str(error)) from None
    except BaseException as error:
        # Also a cancelled run reports its end; what it was comes out as it came in.
        _end(run, f"the run was stopped: {explain(error)}")
        raise
    reason = _what_went_wrong(run)
    _end(run, reason)
    if reason:
        raise _failure(run, reason)


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
    if events and run.copying:
        tags[ended_runs.events_tag(job.target)] = ended_runs.PENDING
    instance.add_run_tags(context.run.run_id, tags)
    for run_id in ended_runs.fail_dead_runs(instance):
        context.log.warning(f"Run {run_id} was found dead; it and its open ranges are now failed.")
    if events:
        for problem in ended_runs.settle_events(instance, job.target, events):
            _note_event_problem(run, problem)
    if run.copying:
        data = {"config": str(job.migration.name), "model": "CassandraMigratorJob"}
        _log_event(run, "JOB_START", f"{_job_name(run)} Started executing", data)
    return run


# -- copying -----------------------------------------------------------------------------------


def _truncate_target(run: RangedRun, connection: Connection) -> None:
    everything = run.job.migration.ranges
    if len(run.ranges) != len(everything):
        raise DeclarationError(
            f"truncate_target empties the whole of {run.job.migration.target.table}, but this run "
            f"covers {len(run.ranges)} of {len(everything)} ranges; select all ranges, or launch "
            "with the op config truncate_target: false to copy these on top of what is there"
        )
    under_way = RunsFilter(
        statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING],
        tags={ended_runs.copies_tag(run.job.target): ended_runs.BEGUN},
    )
    others = [
        other.run_id
        for other in run.context.instance.get_runs(under_way)
        if other.run_id != run.context.run.run_id
    ]
    if others:
        raise DeclarationError(
            f"truncate_target would take the rows of run {others[0]}, which is under way; "
            "wait for it or terminate it"
        )
    # Noted before it is done: from now on no range counts as copied until it is copied again.
    for token_range in run.ranges:
        _observe(run, run.job.target, token_range, {"emptied": True})
    truncate(connection, run.job.migration.target.table)
    run.context.log.info(f"Emptied {run.job.migration.target.table}.")


def _copy(run: RangedRun, pool: WorkerPool) -> None:
    log = run.context.log
    underway: dict[TokenRange, RangeCounts] = {}
    reading = set(run.ranges)
    observed: dict[TokenRange, float] = {}
    table_observed = copy_started = time.monotonic()
    done = RangeCounts()
    for event in pool.run([CopyRange(token_range) for token_range in run.ranges]):
        token_range = event.task.token_range
        now = time.monotonic()
        if isinstance(event, Started):
            observed[token_range] = now
        elif isinstance(event, Reported):
            before = underway.get(token_range, RangeCounts())
            underway[token_range] = event.value
            if event.value.retries > before.retries:
                log.warning(f"{token_range.key}: trying again: {event.value.last_retry}")
            if now - observed[token_range] >= PROGRESS_SECONDS:
                observed[token_range] = now
                log.info(f"{token_range.key}: {_counts_line(event.value)} so far")
                _observe(run, run.job.target, token_range, _counts_metadata(event.value))
        elif isinstance(event, Done):
            underway.pop(token_range, None)
            run.copied.append(token_range)
            done += event.result
            _materialize(run, run.job.target, token_range, _counts_metadata(event.result))
            log.info(
                f"{token_range.key}: {_counts_line(event.result)} "
                f"({len(run.copied)} of {len(run.ranges)} ranges)"
            )
        elif isinstance(event, Failed):
            counts = underway.pop(token_range, RangeCounts())
            done += counts
            run.failed[token_range] = event.reason
            failed = {
                "failed": event.reason,
                "next_step": f"materialize {token_range.key} again; what it wrote is kept",
                **_counts_metadata(counts),
            }
            _observe(run, run.job.target, token_range, failed)
            log.error(f"{token_range.key} failed: {event.reason}")
        if token_range in reading and _has_read(event):
            reading.discard(token_range)
            if not reading:
                read = sum((c.read for c in underway.values()), start=done.read)
                milliseconds = int((now - copy_started) * 1000)
                data = {"timeTaken": milliseconds, "count": read}
                _log_event(run, "JOB_LOG", "Time to fetch data cassandra data", data)
        run.counts = sum(underway.values(), start=done)
        if now - table_observed >= PROGRESS_SECONDS:
            table_observed = now
            log.info(f"All ranges: {_counts_line(run.counts)} so far")
            _observe_table(run, _read_states(run))
    run.counts = done
    run.copy_seconds = time.monotonic() - copy_started
    if not run.failed:
        data = {"timeTaken": int(run.copy_seconds * 1000)}
        _log_event(run, "JOB_LOG", "Time to complete migration of cassandra table", data)


def _has_read(event: Any) -> bool:
    return isinstance(event, Done) or (isinstance(event, Reported) and event.value.reading_ended)


def _counts_line(counts: RangeCounts) -> str:
    retries = f", {counts.retries} retries" if counts.retries else ""
    return f"{counts.read:,} rows read, {counts.written:,} written{retries}"


def _counts_metadata(counts: RangeCounts) -> dict[str, Any]:
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
    if counts.last_retry:
        metadata["last_retry"] = counts.last_retry
    return metadata


# -- comparing ---------------------------------------------------------------------------------


def _compare(run: RangedRun, pool: WorkerPool, connections: tuple[Connection, Connection]) -> None:
    assert run.plan is not None
    ranges = [token_range for token_range in run.ranges if token_range not in run.failed]
    told = time.monotonic()

    def tell_progress(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            run.context.log.info(f"Comparing: {done} of {total} scans done")

    for verdict in diff_ranges(pool, run.plan, ranges, connections, tell_progress):
        metadata = _verdict_metadata(verdict)
        if verdict.matches:
            _materialize(run, run.job.diff, verdict.token_range, metadata)
            continue
        _observe(run, run.job.diff, verdict.token_range, metadata)
        run.differing.append(verdict)
        run.context.log.error(f"{verdict.token_range.key}: {_verdict_line(verdict)}")


def _verdict_line(verdict: RangeVerdict) -> str:
    if verdict.error:
        return f"not compared: {verdict.error}"
    return (
        f"{verdict.missing:,} missing, {verdict.extra:,} extra, "
        f"{verdict.mismatched:,} mismatched rows"
    )


def _verdict_metadata(verdict: RangeVerdict) -> dict[str, Any]:
    if verdict.error:
        return {"failed": verdict.error}
    metadata: dict[str, Any] = {
        "origin_rows": verdict.origin_rows,
        "target_rows": verdict.target_rows,
        "missing": verdict.missing,
        "extra": verdict.extra,
        "mismatched": verdict.mismatched,
    }
    if not verdict.matches:
        metadata["samples"] = dg.MetadataValue.json(
            {
                "missing": [str(row) for row in verdict.missing_rows],
                "extra": [str(row) for row in verdict.extra_rows],
                "mismatched": [str(row) for row in verdict.mismatched_rows],
            }
        )
    return metadata


# -- reporting ---------------------------------------------------------------------------------


def _tell_plan(run: RangedRun) -> None:
    plan = run.plan
    assert plan is not None
    for endpoint, table, key in (
        (run.job.migration.origin, plan.origin, run.job.origin),
        (run.job.migration.target, plan.target, None),
    ):
        run.context.log.info(f"{table.name} in {endpoint.store}: key ({_key_of(table)})")
        if key is not None:
            metadata = {"dagster/column_schema": _column_schema(table)}
            run.context.log_event(dg.AssetObservation(key, metadata=metadata))
    if plan.left_unset:
        run.context.log.info(
            f"Columns that only the target has stay unset: {', '.join(plan.left_unset)}"
        )


def _key_of(table: Table) -> str:
    partition = ", ".join(table.partition_key)
    return ", ".join([f"({partition})", *table.clustering_columns])


def _column_schema(table: Table) -> dg.TableSchema:
    roles = {
        **dict.fromkeys(table.partition_key, "partition key"),
        **dict.fromkeys(table.clustering_columns, "clustering column"),
    }
    return dg.TableSchema(
        columns=[
            dg.TableColumn(c.name, type=c.cql_type, description=roles.get(c.name))
            for c in sorted(
                table.columns,
                key=lambda c: table.primary_key.index(c.name) if c.name in roles else len(roles),
            )
        ]
    )


def _materialize(
    run: RangedRun, asset: dg.AssetKey, token_range: TokenRange, metadata: dict[str, Any]
) -> None:
    event = dg.AssetMaterialization(
        asset, partition=token_range.key, metadata=_with_place(run, token_range, metadata)
    )
    run.context.log_event(event)


def _observe(
    run: RangedRun, asset: dg.AssetKey, token_range: TokenRange, metadata: dict[str, Any]
) -> None:
    event = dg.AssetObservation(
        asset, partition=token_range.key, metadata=_with_place(run, token_range, metadata)
    )
    run.context.log_event(event)


def _with_place(
    run: RangedRun, token_range: TokenRange, metadata: dict[str, Any]
) -> dict[str, Any]:
    assert run.plan is not None
    return {
        **metadata,
        # As text: a browser's numbers cannot hold 64 bits.
        "tokens": f"({token_range.start}, {token_range.end}]",
        FINGERPRINT: run.plan.fingerprint,
    }


def _read_states(run: RangedRun) -> list[RangeState]:
    assert run.plan is not None
    return read_states(
        run.context.instance,
        target=run.job.target,
        diff=run.job.diff,
        ranges=run.job.migration.ranges,
        partitions=run.job.partitions,
        fingerprint=run.plan.fingerprint,
        run_id=run.context.run.run_id,
    )


def _observe_table(run: RangedRun, states: Sequence[RangeState]) -> None:
    """Put the picture and the totals where the table's own page shows them."""
    assert run.plan is not None
    svg = draw_ring(run.job.migration.name, [state.to_segment() for state in states])
    metadata: dict[str, Any] = {
        "ring": dg.MetadataValue.md(as_markdown(svg)),
        "dagster/row_count": sum(state.rows for state in states),
        "dagster/column_schema": _column_schema(run.plan.target),
        "ranges_copied": sum(state.copied for state in states),
        "ranges_verified": sum(state.matches for state in states),
        "ranges": len(states),
    }
    if run.copying and run.copy_seconds:
        metadata["rows_per_second"] = round(run.counts.written / run.copy_seconds, 1)
    if run.event_problems:
        metadata["events"] = "; ".join(run.event_problems)
    run.context.log_event(dg.AssetObservation(run.job.target, metadata=metadata))


def _job_name(run: RangedRun) -> str:
    return run.events.job if run.events else ""


def _log_event(run: RangedRun, eid: str, message: str, data: dict[str, Any]) -> None:
    if run.events is None or not run.events.job_log_topic:
        return
    event = job_event(eid, job=run.events.job, message=message, data=data)
    # After one failure the others must not make the copy wait as long again.
    send = partial(publish, seconds=2.0) if run.event_problems else publish
    problem = send(run.events.kafka, [Message(run.events.job_log_topic, event)])
    if problem:
        _note_event_problem(run, problem)


def _note_event_problem(run: RangedRun, problem: str) -> None:
    run.event_problems.append(problem)
    run.context.log.error(f"Kafka: {problem}; the copy goes on.")


def _what_went_wrong(run: RangedRun) -> str:
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
        missing = sum(verdict.missing for verdict in differing)
        extra = sum(verdict.extra for verdict in differing)
        mismatched = sum(verdict.mismatched for verdict in differing)
        parts.append(
            f"{len(differing)} ranges differ ({names}): {missing:,} missing, {extra:,} extra, "
            f"{mismatched:,} mismatched rows"
        )
    return "; ".join(parts)


def _end(run: RangedRun, reason: str) -> None:
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
        data={"config": str(run.job.migration.name), "model": "CassandraMigratorJob"},
    )
    if problem:
        _note_event_problem(run, problem)
        metadata = {"events": problem}
        run.context.log_event(dg.AssetObservation(run.job.target, metadata=metadata))


def _failure(run: RangedRun, reason: str) -> dg.Failure:
    return dg.Failure(
        description=f"{run.job.migration.name}: {reason}"
        if not reason.startswith(run.job.migration.name)
        else reason,
        # Trying the whole step again would copy what is already green once more.
        allow_retries=False,
    )
