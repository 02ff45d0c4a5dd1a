"""The rollback of a tenant's move: what steps wrote is put back, the last one first."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import dagster as dg

from migration_platform.components.failures import RunFailure
from migration_platform.components.tenant.reports import (
    MovedStep,
    show_move,
)
from migration_platform.components.tenant.runs import (
    find_folder,
    import_graph_step,
    open_cassandra,
    tell_of_retries,
)
from migration_platform.errors import DeclarationError, MigrationError
from migration_platform.tenant import sync_step
from migration_platform.tenant.changes import Changes
from migration_platform.tenant.declaration import GraphStep, Move, Step, SyncStep, TableStep
from migration_platform.tenant.records import sole_writer
from migration_platform.tenant.steps import (
    applied_plans,
    restore_step,
)


def roll_back(
    context: dg.OpExecutionContext,
    move: Move,
    declared_folder: str | None,
    *,
    dry_run: bool,
    names: Sequence[str],
) -> None:
    """Put back what steps wrote, the last one first, and tell each step's page of it.

    Raises:
        dagster.Failure: one sentence, when something could not be put back.
    """
    unknown = [name for name in names if name not in move.by_name]
    if unknown:
        raise RunFailure(
            f"{move.name} has no step {', '.join(unknown)}; valid are {', '.join(move.by_name)}"
        )
    synced = [name for name in names if isinstance(move.by_name[name], SyncStep)]
    if synced:
        raise RunFailure(
            f"{', '.join(synced)} wrote nothing that could be put back: roll the rows back, and "
            "run it again"
        )
    folder = find_folder(context.instance, move, declared_folder)
    problems: list[str] = []
    for step in reversed(move.steps):
        if isinstance(step, SyncStep) or (names and step.name not in names):
            continue
        moved = MovedStep(move, step, declared_folder)
        try:
            with ExitStack() as stack:
                if not dry_run:
                    stack.enter_context(sole_writer(folder, step.name))
                    _refuse_later_steps(move, folder, step)
                restored = _restore(context, move, step, folder, stack, dry_run=dry_run)
        except MigrationError as error:
            problems.append(f"{step.name}: {error}")
            context.log.error(problems[-1])
            continue
        _tell_of_rollback(context, moved, folder, restored, dry_run=dry_run)
    for step in move.steps:
        if isinstance(step, SyncStep) and not dry_run:
            sync_step.note_rollback(move, step, folder)
            context.log.warning(f"{step.name}: {sync_step.NOT_SYNCED}")
    if problems:
        raise RunFailure(f"{move.name}: {'; '.join(problems)}")


def _tell_of_rollback(
    context: dg.OpExecutionContext,
    moved: MovedStep,
    folder: Path,
    restored: Changes,
    *,
    dry_run: bool,
) -> None:
    """Tell what was put back of a step, in the log and on the step's page."""
    what = "to put back" if dry_run else "put back"
    said = f"{moved.step.name}: {restored.changed:,} {what}"
    if not dry_run:
        said += (
            f", {restored.already:,} so before, {restored.conflicts + restored.gone:,} without "
            "what the move wrote, left alone"
        )
    context.log.info(said)
    for sample in restored.samples:
        context.log.warning(f"{moved.step.name}: left alone: {sample}")
    context.log_event(
        dg.AssetObservation(
            moved.key,
            description=f"{'Dry run of a rollback' if dry_run else 'Rolled back'}. {said}",
            metadata={
                "dry_run": dry_run,
                "put_back": restored.changed,
                "put_back_before": restored.already,
                "left_alone": restored.conflicts + restored.gone,
                **show_move(folder, moved.move),
            },
        )
    )


def _refuse_later_steps(move: Move, folder: Path, step: Step) -> None:
    """Refuse to roll a step back that a later one builds on."""
    later = False
    for each in move.steps:
        if later and not isinstance(each, SyncStep) and applied_plans(folder, each):
            raise DeclarationError(
                f"{each.name} comes after {step.name} and is not rolled back; do that first, or "
                "leave steps out, which takes all in the right order"
            )
        later = later or each is step


def _restore(
    context: dg.OpExecutionContext,
    move: Move,
    step: TableStep | GraphStep,
    folder: Path,
    stack: ExitStack,
    *,
    dry_run: bool,
) -> Changes:
    if isinstance(step, GraphStep):
        store = getattr(context.resources, step.store)
        graph = stack.enter_context(store.connect())
        return import_graph_step().restore_graph(graph, move, step, folder, dry_run=dry_run)
    connection = stack.enter_context(open_cassandra(context, move))
    return restore_step(
        connection,
        move,
        step,
        folder,
        dry_run=dry_run,
        on_retry=tell_of_retries(context, f"Putting {step.name} back"),
    )
