"""Whether a keyspace may be taken over: every check of every table green, and newer than its copy.

A check is an event of the past. It counts only while nothing was copied or compared since, and,
where the tables can be asked, only for ranges whose events belong to the present declaration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import AssetRecordsFilter, DagsterInstance

from migration_platform.comparing.scope import DECLARED_FILTER
from migration_platform.components.table.reporting import Job
from migration_platform.components.table.sync_checks import compare_command, launch_command
from migration_platform.components.table.sync_ledger import read_committed

MAX_TOLD = 10
"""So many tables a sentence names; the metadata has all."""


@dataclass(frozen=True)
class MovedTable:
    """A table of a keyspace with the checks on its assets."""

    name: str
    job: Job
    checks: tuple[dg.AssetCheckKey, ...]


def judge_checks(instance: DagsterInstance, table: MovedTable) -> list[str]:
    """Say which checks of a table are not green, or older than what was done since."""
    newest = max(_newest(instance, key) for key in (table.job.target, table.job.diff))
    if not newest:
        return ["nothing was copied yet"]
    problems = [
        f"{key.name} {problem}"
        for key in table.checks
        if key.asset_key != table.job.sync and (problem := judge_check(instance, key, newest))
    ]
    return problems + _judge_sync_checks(instance, table)


def _judge_sync_checks(instance: DagsterInstance, table: MovedTable) -> list[str]:
    """Say what the log tells against a table's synchronisation; its age does not count."""
    job = table.job
    if job.sync is None:
        return []
    committed = read_committed(instance, job.sync)
    if committed is None:
        follow = launch_command(job, up_to="now")
        return [f"nothing has followed the origin since the copy; stop the writers, then: {follow}"]
    problems = [
        f"{key.name} of {job.sync.path[-1]} {problem}"
        for key in table.checks
        if key.asset_key == job.sync and (problem := judge_check(instance, key, 0.0))
    ]
    written = max(committed.touched.values(), default=0.0)
    if written > _newest(instance, job.diff):
        compare = compare_command(job, list(job.migration.ranges))
        problems.append(f"its synchronisation wrote rows since the last comparison; {compare}")
    return problems


def judge_check(instance: DagsterInstance, key: dg.AssetCheckKey, newest: float) -> str:
    """Say why a check is not green; empty if it is. A mere warning is no problem."""
    storage = instance.event_log_storage
    record = storage.get_latest_asset_check_execution_by_key([key]).get(key)
    if record is None:
        return "never ran"
    event = record.event.dagster_event if record.event else None
    if record.event is None or event is None or event.event_type_value != "ASSET_CHECK_EVALUATION":
        return "did not end"
    found = event.asset_check_evaluation_data
    if not found.passed and found.severity == dg.AssetCheckSeverity.ERROR:
        return "is red"
    if record.event.timestamp < newest:
        return "is older than the last copy or comparison"
    if DECLARED_FILTER in found.metadata:
        return "speaks of a run with a filter of its own"
    return ""


def read_warning(instance: DagsterInstance, key: dg.AssetCheckKey) -> str:
    """Give the sentence of a check that only warns; empty if it passes, or is no mere warning."""
    storage = instance.event_log_storage
    record = storage.get_latest_asset_check_execution_by_key([key]).get(key)
    event = record.event.dagster_event if record and record.event else None
    if event is None or event.event_type_value != "ASSET_CHECK_EVALUATION":
        return ""
    found = event.asset_check_evaluation_data
    only_warns = not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    return found.description or key.name if only_warns else ""


def tell_of_tables(told: Mapping[str, Sequence[str]]) -> str:
    """Give texts, each with the tables that it is true of."""
    return "; ".join(f"{text} ({name_some(names)})" for text, names in told.items())


def name_some(names: Sequence[str]) -> str:
    """Name tables, and say how many more there are."""
    more = f" and {len(names) - MAX_TOLD} more" if len(names) > MAX_TOLD else ""
    return ", ".join(names[:MAX_TOLD]) + more


def _newest(instance: DagsterInstance, asset: dg.AssetKey) -> float:
    """Give the time of the newest event that a copy or a comparison wrote; 0 if there is none."""
    chosen = AssetRecordsFilter(asset_key=asset)
    records = [
        *instance.fetch_materializations(chosen, limit=1).records,
        *instance.fetch_observations(chosen, limit=1).records,
    ]
    return max((record.timestamp for record in records), default=0.0)


def sentence(subject: str, problems: Mapping[str, Sequence[str]]) -> str:
    """Name the tables and the checks that are not green."""
    told = [f"{name} ({', '.join(reasons)})" for name, reasons in problems.items()]
    more = f" and {len(told) - MAX_TOLD} more" if len(told) > MAX_TOLD else ""
    return f"{subject} is not ready for the cutover: {'; '.join(told[:MAX_TOLD])}{more}"
