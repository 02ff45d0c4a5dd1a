"""The check that is red while there are dead letters; it names them, and says how to replay them.

It is there whatever budget is declared: dead letters do not vanish when it is set back.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from migration_platform.components.table.reporting import Job
from migration_platform.copying.dead_letters import TABLE, DeadLetterSummary
from migration_platform.cql.names import TableName
from migration_platform.plan.fidelity import write_table

NO_DEAD_LETTERS = "no_dead_letters"
NO_DEAD_LETTERS_MEANS = "No dead letter of this migration is left."


def check_dead_letters(
    context: dg.AssetExecutionContext, job: Job, found: DeadLetterSummary
) -> Iterator[dg.AssetCheckResult]:
    """Give the check's result, or report it where the run did not select it."""
    selected = {key.name for key in context.op_execution_context.selected_asset_check_keys}
    if NO_DEAD_LETTERS in selected:
        yield dg.AssetCheckResult(
            asset_key=job.target, check_name=NO_DEAD_LETTERS, **_judge(job, found)
        )
    else:
        report_check(context, job, found)


def report_check(context: dg.AssetExecutionContext, job: Job, found: DeadLetterSummary) -> None:
    """Report the check from a run that does not select it."""
    judged = _judge(job, found)
    judged["metadata"]["run"] = dg.MetadataValue.dagster_run(context.run.run_id)
    context.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=job.target, check_name=NO_DEAD_LETTERS, **judged)
    )


def _judge(job: Job, found: DeadLetterSummary) -> dict[str, Any]:
    metadata = describe_dead_letters(found)
    if found.count:
        metadata["replay_command"] = f'dg launch --assets "{job.dead_letters.to_user_string()}"'
    return {
        "passed": not found.count,
        "description": f"{tell_dead_letters(found)}; repair them or correct the declaration, "
        f"and materialize {job.dead_letters.path[-1]}"
        if found.count
        else f"This migration has no dead letter in {place_of(job)}.",
        "metadata": metadata,
    }


def place_of(job: Job) -> str:
    """Name the table that keeps a migration's dead letters, and whose cluster it is in."""
    migration = job.migration
    return f"{TableName(migration.tracking_keyspace, TABLE)} of {migration.tracked_at.store}"


def tell_dead_letters(found: DeadLetterSummary) -> str:
    """Say in one sentence how many dead letters there are, and show one."""
    stored = (
        "1 row is stored as a dead letter"
        if found.count == 1
        else f"{found.count:,} rows are stored as dead letters"
    )
    first = found.samples[0]
    return f"{stored}, such as {first.key_text}: {first.cause}"


def tell_rejected(job: Job, found: DeadLetterSummary) -> str:
    """Say in one sentence which rows of a run were rejected, and what can be done about them."""
    stored = (
        "1 row was rejected and is stored as a dead letter"
        if found.within == 1
        else f"{found.within:,} rows were rejected and are stored as dead letters"
    )
    first = found.first_within
    assert first is not None
    return (
        f"{stored}, such as {first.key_text}: {first.cause}; the check "
        f"{NO_DEAD_LETTERS} lists them, and once they are repaired or the declaration is corrected "
        f'`dg launch --assets "{job.dead_letters.to_user_string()}"` copies them'
    )


def describe_dead_letters(found: DeadLetterSummary) -> dict[str, Any]:
    """Give the dead letters as metadata: how many, why, and some of them."""
    metadata: dict[str, Any] = {"dead_letters": found.count}
    if found.count:
        causes = [(cause, f"{count:,}") for cause, count in found.causes]
        metadata["by_cause"] = dg.MetadataValue.md(write_table(("cause", "rows"), causes))
        rows = [
            (
                ("static cells of " if letter.layer == "statics" else "") + letter.key_text,
                str(letter.token),
                letter.column,
                letter.cause,
                letter.set_aside_at.isoformat(" ", "seconds") if letter.set_aside_at else "",
            )
            for letter in found.samples
        ]
        header = ("key", "token", "column", "cause", "rejected at")
        metadata["samples"] = dg.MetadataValue.md(write_table(header, rows))
    return metadata
