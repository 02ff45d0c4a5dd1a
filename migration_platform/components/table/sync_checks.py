"""The verdicts on a synchronisation: how far it is behind, and what it could not take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from migration_platform.components.table.dead_letters import (
    describe_dead_letters,
    tell_dead_letters,
)
from migration_platform.components.table.reporting import Job
from migration_platform.components.table.sync_ledger import write_moment
from migration_platform.copying.dead_letters import DeadLetterSummary
from migration_platform.plan.fidelity import write_table
from migration_platform.syncing.changes import tell_waiting
from migration_platform.syncing.position import Position
from migration_platform.token_ranges import TokenRange

SYNC_IS_FRESH = "sync_is_fresh"
_SHOWN = 20


@dataclass(frozen=True)
class Verdict:
    """What a check says."""

    passed: bool
    said: str
    metadata: dict[str, Any]


def launch_command(job: Job, **config: object) -> str:
    """Give the command that runs the synchronisation, with a config of its own."""
    assert job.sync is not None
    command = f'dg launch --assets "{job.sync.to_user_string()}"'
    if not config:
        return command
    step = "__".join(job.sync.path)
    inner = ", ".join(f'"{name}": "{value}"' for name, value in config.items())
    return f'{command} --config-json \'{{"ops": {{"{step}": {{"config": {{{inner}}}}}}}}}\''


def compare_command(job: Job, ranges: Sequence[TokenRange]) -> str:
    """Give the command that compares ranges, with those between them."""
    name = job.diff.to_user_string()
    first, last = min(ranges), max(ranges)
    if first == last:
        return f'dg launch --assets "{name}" --partition {first.key}'
    return f"dg launch --assets \"{name}\" --partition-range '{first.key}...{last.key}'"


def lag_seconds(position: Position, now: float) -> float | None:
    """Give by how many seconds the target is behind; None while nobody knows."""
    return max(0.0, now - position.synced_at) if position.synced_at else None


def judge_freshness(job: Job, position: Position, messages: int | None, now: float) -> Verdict:
    """Say whether the target is as near to its origin as is declared.

    `messages` are those that wait, None if nobody could ask.
    """
    sync = job.migration.sync
    assert sync is not None
    behind = lag_seconds(position, now)
    metadata: dict[str, Any] = {"max_lag_seconds": sync.max_lag_seconds}
    if messages is not None:
        metadata["lag_messages"] = messages
    if behind is None:
        return Verdict(
            False,
            "Nobody knows yet how far the target is behind: ranges were copied without a position, "
            "and are not compared yet",
            metadata,
        )
    metadata |= {"lag_seconds": round(behind, 1), "synced_at": write_moment(position.synced_at)}
    waiting = f", and {tell_waiting(messages)}" if messages else ""
    said = f"The target has all changes up to {write_moment(position.synced_at)}"
    if behind <= sync.max_lag_seconds:
        return Verdict(True, f"{said}{waiting}.", metadata)
    metadata["sync_command"] = launch_command(job)
    return Verdict(
        False,
        f"{said} only, {behind:,.0f} seconds ago{waiting}; {sync.max_lag_seconds:,} are allowed "
        "(sync.max_lag_seconds). See whether the sensor is on and what the last run says",
        metadata,
    )


def judge_letters(job: Job, letters: DeadLetterSummary, position: Position) -> Verdict:
    """Say whether every change could be taken."""
    metadata = describe_dead_letters(letters)
    told = []
    if letters.count:
        told.append(
            f"{tell_dead_letters(letters)}; repair them or correct the declaration, and "
            f"materialize {job.dead_letters.path[-1]}"
        )
        metadata["replay_command"] = f'dg launch --assets "{job.dead_letters.to_user_string()}"'
    if position.unreadable:
        told.append(tell_unreadable(position))
        rows = [
            (str(each.partition), str(each.offset), each.reason, write_moment(each.noted_at))
            for each in position.unreadable[:_SHOWN]
        ]
        header = ("partition", "offset", "reason", "set aside at")
        metadata["unreadable_messages"] = dg.MetadataValue.md(write_table(header, rows))
        metadata["scan_command"] = launch_command(job, scan="all")
    metadata["unreadable"] = len(position.unreadable)
    said = "; ".join(told) or "No row was rejected, and each message named its row."
    return Verdict(not told, said, metadata)


def tell_unreadable(position: Position) -> str:
    """Say which messages name no row, and how that is healed."""
    first = position.unreadable[0]
    count = len(position.unreadable)
    were = "1 message was" if count == 1 else f"{count:,} messages were"
    return (
        f"{were} set aside, for nobody can tell of which row they speak, such as message "
        f"{first.offset} of partition {first.partition} of the topic {position.topic}: "
        f"{first.reason}; once all ranges were compared since (op config scan: all), they are "
        "made up for"
    )


def report_verdict(
    instance: dg.DagsterInstance, job: Job, name: str, verdict: Verdict, run_id: str = ""
) -> None:
    """Write down a verdict that no step gives as its result."""
    assert job.sync is not None
    by_run = {"run": dg.MetadataValue.dagster_run(run_id)} if run_id else {}
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=job.sync,
            check_name=name,
            passed=verdict.passed,
            description=verdict.said,
            metadata={**verdict.metadata, **by_run},
        )
    )


def to_result(job: Job, name: str, verdict: Verdict) -> dg.AssetCheckResult:
    """Give a verdict as the result of a step."""
    return dg.AssetCheckResult(
        asset_key=job.sync,
        check_name=name,
        passed=verdict.passed,
        description=verdict.said,
        metadata=verdict.metadata,
    )


def was_passed(instance: dg.DagsterInstance, job: Job, name: str) -> bool | None:
    """Say what a check said last; None if it never said anything."""
    assert job.sync is not None
    key = dg.AssetCheckKey(job.sync, name)
    storage = instance.event_log_storage
    record = storage.get_latest_asset_check_execution_by_key([key]).get(key)
    event = record.event.dagster_event if record and record.event else None
    if event is None or event.event_type_value != "ASSET_CHECK_EVALUATION":
        return None
    return event.asset_check_evaluation_data.passed
