"""The check that is red while rows are set aside; it names them, and says how to replay them.

It is there whatever budget is declared: letters do not vanish when it is set back.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from migration_platform.components.table.reporting import Job
from migration_platform.copying.dead_letters import TABLE, LetterSummary
from migration_platform.cql.names import TableName
from migration_platform.plan.fidelity import write_table

NO_DEAD_LETTERS = "no_dead_letters"
NO_DEAD_LETTERS_MEANS = "No row that could not be written is left set aside."


def check_letters(
    context: dg.AssetExecutionContext, job: Job, found: LetterSummary
) -> Iterator[dg.AssetCheckResult]:
    """Give the check's result, or report it where the run did not select it."""
    selected = {key.name for key in context.op_execution_context.selected_asset_check_keys}
    if NO_DEAD_LETTERS in selected:
        yield dg.AssetCheckResult(
            asset_key=job.target, check_name=NO_DEAD_LETTERS, **_judge(job, found)
        )
    else:
        report_check(context, job, found)


def report_check(context: dg.AssetExecutionContext, job: Job, found: LetterSummary) -> None:
    """Report the check from a run that does not select it."""
    judged = _judge(job, found)
    judged["metadata"]["run"] = dg.MetadataValue.dagster_run(context.run.run_id)
    context.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=job.target, check_name=NO_DEAD_LETTERS, **judged)
    )


def _judge(job: Job, found: LetterSummary) -> dict[str, Any]:
    metadata = describe_letters(found)
    if found.count:
        metadata["replay_command"] = f'dg launch --assets "{job.letters.to_user_string()}"'
    return {
        "passed": not found.count,
        "description": f"{tell_letters(found)}; mend them or the declaration, and materialize "
        f"{job.letters.path[-1]}"
        if found.count
        else f"No row of this migration is set aside in {place_of(job)}.",
        "metadata": metadata,
    }


def place_of(job: Job) -> str:
    """Name the table that keeps a migration's letters, and whose cluster it is in."""
    migration = job.migration
    return f"{TableName(migration.tracking_keyspace, TABLE)} of {migration.tracked_at.store}"


def tell_letters(found: LetterSummary) -> str:
    """Say in one sentence what is set aside."""
    rows = "1 row is" if found.count == 1 else f"{found.count:,} rows are"
    first = found.samples[0]
    return f"{rows} set aside, such as {first.key_text}: {first.cause}"


def tell_rejected(job: Job, found: LetterSummary) -> str:
    """Say in one sentence which rows of a run are set aside, and what can be done about them."""
    rows = "1 row was" if found.within == 1 else f"{found.within:,} rows were"
    first = found.first_within
    assert first is not None
    return (
        f"{rows} rejected and set aside, such as {first.key_text}: {first.cause}; the check "
        f"{NO_DEAD_LETTERS} lists them, and once they or the declaration are mended "
        f'`dg launch --assets "{job.letters.to_user_string()}"` copies them'
    )


def describe_letters(found: LetterSummary) -> dict[str, Any]:
    """Give the letters as metadata: how many, why, and some of them."""
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
        header = ("key", "token", "column", "cause", "set aside at")
        metadata["samples"] = dg.MetadataValue.md(write_table(header, rows))
    return metadata
