"""What the runs of a tenant's move do: plan, apply, prove; and what they tell.

A dry run makes the plan and nothing else. A real run reads in the move's folder whether it may
begin, whatever other runs did; it tells of each range the moment it is done, so that a run that is
killed loses only what was under way, and the next one goes on from there.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg

from migration_platform.components.failures import RunFailure
from migration_platform.components.home import forgets
from migration_platform.components.table.reporting import (
    PROGRESS_SECONDS,
    build_progress,
    build_retry_log,
)
from migration_platform.components.tenant.reports import (
    BLOCKS_ACCEPTED,
    COUNTS_EQUAL,
    NOTHING_LEFT,
    REST_UNCHANGED,
    MovedStep,
    describe_plan,
    judge_table,
    plan_metadata,
    report_range,
    report_step,
    report_sync,
    show_move,
)
from migration_platform.errors import DeclarationError, MigrationError, explain
from migration_platform.pacing.retries import connect_patiently
from migration_platform.resources import CassandraResource, Neo4jResource, SunbirdSyncResource
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.tenant import sync_step
from migration_platform.tenant.declaration import GraphStep, Move, SyncStep, TableStep
from migration_platform.tenant.records import ALL, PlanFolder, seal_backup, sole_writer
from migration_platform.tenant.shape import TableShape, shape_table
from migration_platform.tenant.steps import (
    apply_table_range,
    plan_table,
    prove_applied_range,
    read_progress,
    refuse_out_of_order,
    require_plan,
    require_table,
)
from migration_platform.token_ranges import describe_ranges, range_of_key


def find_folder(instance: dg.DagsterInstance, move: Move, folder: str | None) -> Path:
    """Give the folder of a move, absolute."""
    if folder:
        return Path(folder).absolute()
    if forgets(instance):
        raise RunFailure(
            "DAGSTER_HOME is not set, so plans and backups would be gone with this run; set it, or "
            f"declare a folder for {move.name}"
        )
    return Path(instance.root_directory) / "tenant_moves" / move.name


# -- plans ---------------------------------------------------------------------------------------


def plan_step(context: dg.AssetExecutionContext, moved: MovedStep) -> dict[str, Any]:
    """Make a step's plan, and describe it.

    Raises:
        dagster.Failure: one sentence, when the step could not begin.
    """
    move, step = moved.move, moved.step
    folder = find_folder(context.instance, move, moved.folder)
    retry = tell_of_retries(context, f"Planning {step.name}")
    try:
        with sole_writer(folder, step.name), ExitStack() as stack:
            if isinstance(step, TableStep):
                connection = stack.enter_context(open_cassandra(context, move))
                plan = plan_table(
                    connection,
                    move,
                    step,
                    folder,
                    on_progress=build_progress(context, "Planning, ranges"),
                    on_retry=retry,
                )
            elif isinstance(step, GraphStep):
                graph = stack.enter_context(getattr(context.resources, step.store).connect())
                plan = import_graph_step().plan_graph(graph, move, step, folder)
            else:
                store = getattr(context.resources, step.store)
                assert isinstance(store, SunbirdSyncResource)
                plan = sync_step.plan_sync(store.to_settings(step.store), move, step, folder)
    except MigrationError as error:
        raise _failure(moved, str(error)) from None
    manifest = plan.manifest()
    for line in describe_plan(moved, manifest):
        context.log.info(line)
    return plan_metadata(moved, folder, plan)


def _only_checks(context: dg.AssetExecutionContext) -> bool:
    """Say whether a run was asked for checks alone: it reads again, and changes nothing."""
    return not context.op_execution_context.selected_asset_keys


def _applied_plan(moved: MovedStep, folder: Path) -> PlanFolder:
    """Give the plan whose outcome checks are about.

    Raises:
        DeclarationError: the step was never planned.
    """
    plan = read_progress(folder, moved.step).plan
    if plan is None:
        raise DeclarationError(f"{moved.step.name} has no plan yet, so there is nothing to check")
    return plan


def _refuse_several_steps(
    context: dg.AssetExecutionContext, moved: MovedStep, *, dry_run: bool
) -> None:
    """Refuse a run that holds other steps, too: Dagster would skip them and call it a success.

    Raises:
        dagster.Failure: one sentence.
    """
    keys = context.run.asset_selection or set(context.job_def.asset_layer.executable_asset_keys)
    if not dry_run and moved.plan_key in keys:
        raise _failure(
            moved,
            f"this run selects {moved.step.name} and also its plan, so that nobody could look at "
            "the plan; make the plan in a run of its own",
        )
    others = [
        step.name
        for step in moved.move.steps
        if step is not moved.step and dg.AssetKey([moved.move.name, step.name]) in keys
    ]
    if others:
        raise _failure(
            moved,
            f"this run selects {moved.step.name} and also {', '.join(others)}; a run does one "
            "step, so that its outcome can be looked at before the next (plans can be made "
            "together: select their assets)",
        )


def _is_planned_only(context: dg.AssetExecutionContext, moved: MovedStep, *, dry_run: bool) -> bool:
    """Begin a run of a step: a dry one makes its plan, and says there that this was all."""
    _refuse_several_steps(context, moved, dry_run=dry_run)
    if not dry_run:
        return False
    metadata = plan_step(context, moved)
    context.log_event(dg.AssetMaterialization(moved.plan_key, metadata=metadata))
    context.log_event(
        dg.AssetObservation(
            moved.key,
            description="Dry run: only the plan was made; nothing was written.",
            metadata={"dry_run": True, "planned": metadata["planned"]},
        )
    )
    context.log.info(
        f"Dry run: {metadata['planned']:,} are planned, and nothing was written. Look at the asset "
        f"{moved.plan_key.to_user_string()}, then run {moved.step.name} with dry_run: false"
    )
    return True


# -- tables --------------------------------------------------------------------------------------


def run_table_step(
    context: dg.AssetExecutionContext,
    moved: MovedStep,
    *,
    dry_run: bool,
    accept_changes: bool,
) -> Iterator[Any]:
    """Back up, change and prove the selected ranges of a table, and judge the whole of it.

    Raises:
        dagster.Failure: one sentence, when a range is not as planned or nothing could begin.
    """
    move, step = moved.move, moved.step
    assert isinstance(step, TableStep)
    folder = find_folder(context.instance, move, moved.folder)
    if _only_checks(context):
        yield from _check_table(context, moved, folder)
        return
    if _is_planned_only(context, moved, dry_run=dry_run):
        return
    selected = context.op_execution_context.selected_asset_keys
    failed: dict[str, str] = {}
    try:
        with sole_writer(folder, step.name), ExitStack() as stack:
            refuse_out_of_order(move, folder, step)
            plan = require_plan(move, folder, step)
            connection = stack.enter_context(open_cassandra(context, move))
            shape = require_table(shape_table(connection, move, step), plan)
            context.log.info(
                f"Applying the plan {plan.plan_id}: {plan.manifest()['planned']:,} rows"
            )
            began, earlier = time.monotonic(), read_progress(folder, step)
            failed = _apply_ranges(context, moved, connection, shape, plan, accept_changes)
            seal_backup(plan)
            if moved.key in selected:
                seconds = time.monotonic() - began
                report_step(context, moved, folder, earlier, seconds, failed=bool(failed))
            yield from judge_table(context, moved, folder, plan)
    except MigrationError as error:
        raise _failure(moved, str(error)) from None
    if failed:
        ranges = describe_ranges([range_of_key(key) for key in failed])
        reason = next(iter(failed.values()))
        raise _failure(moved, f"{len(failed)} ranges are not as planned ({ranges}): {reason}")


def _apply_ranges(
    context: dg.AssetExecutionContext,
    moved: MovedStep,
    connection: Connection,
    shape: TableShape,
    plan: PlanFolder,
    accept_changes: bool,
) -> dict[str, str]:
    """Back up, change and prove the selected ranges; give why some are not as planned."""
    changes = moved.key in context.op_execution_context.selected_asset_keys
    failed: dict[str, str] = {}
    told = _build_counter(context, plan.manifest()["planned"])
    for key in context.partition_keys:
        try:
            done = apply_table_range(
                connection,
                moved.move,
                shape,
                plan,
                range_of_key(key),
                changes=changes,
                accept_changes=accept_changes,
                on_done=told,
                on_retry=tell_of_retries(context, f"{moved.step.name} {key}"),
            )
        except MigrationError as error:
            failed[key] = explain(error)
            context.log.error(f"{key}: {error}")
            continue
        if problem := report_range(context, moved, plan, done):
            failed[key] = problem
            context.log.error(f"{key}: {problem}")
    return failed


def _check_table(
    context: dg.AssetExecutionContext, moved: MovedStep, folder: Path
) -> Iterator[dg.AssetCheckResult]:
    """Read all applied ranges again, change nothing, and judge the table."""
    move, step = moved.move, moved.step
    assert isinstance(step, TableStep)
    try:
        with (
            sole_writer(folder, step.name),
            open_cassandra(context, move) as connection,
        ):
            plan = _applied_plan(moved, folder)
            shape = shape_table(connection, move, step)
            for key in plan.keys:
                retry = tell_of_retries(context, f"{step.name} {key}")
                prove_applied_range(connection, move, shape, plan, range_of_key(key), retry)
            yield from judge_table(context, moved, folder, plan)
    except MigrationError as error:
        raise _failure(moved, str(error)) from None


def _build_counter(context: dg.AssetExecutionContext, total: int) -> Callable[[int], None]:
    """Build the function that counts changed rows, and logs their number every ten seconds."""
    done, told, began = 0, time.monotonic(), time.monotonic()

    def count(rows: int) -> None:
        nonlocal done, told
        done += rows
        now = time.monotonic()
        if now - told >= PROGRESS_SECONDS:
            told = now
            context.log.info(f"{done:,} of {total:,} rows, {done / (now - began):,.0f} a second")

    return count


# -- graph and search ----------------------------------------------------------------------------


def run_graph_step(
    context: dg.AssetExecutionContext, moved: MovedStep, *, dry_run: bool
) -> Iterator[Any]:
    """Back up, change and prove the nodes of a graph.

    Raises:
        dagster.Failure: one sentence, when it is not as planned or could not begin.
    """
    move, step = moved.move, moved.step
    assert isinstance(step, GraphStep)
    folder = find_folder(context.instance, move, moved.folder)
    only_checks = _only_checks(context)
    if not only_checks and _is_planned_only(context, moved, dry_run=dry_run):
        return
    try:
        with sole_writer(folder, step.name), ExitStack() as stack:
            store = getattr(context.resources, step.store)
            assert isinstance(store, Neo4jResource)
            if only_checks:
                plan = _applied_plan(moved, folder)
                graph = stack.enter_context(store.connect())
                done = import_graph_step().prove_graph(graph, step, plan)
                if done is None:
                    raise DeclarationError(f"{step.name} is not applied, so there is no verdict")
            else:
                refuse_out_of_order(move, folder, step)
                plan = require_plan(move, folder, step)
                graph = stack.enter_context(store.connect())
                done = _apply_graph(context, moved, graph, folder, plan)
                if done is None:
                    return
            picture = show_move(folder, move)
            for check in context.op_execution_context.selected_asset_check_keys:
                passed, description = {
                    NOTHING_LEFT: done.nothing_left,
                    COUNTS_EQUAL: done.counts_equal,
                    REST_UNCHANGED: done.rest_unchanged,
                }[check.name]
                yield dg.AssetCheckResult(
                    asset_key=moved.key,
                    check_name=check.name,
                    passed=passed,
                    # A graph does not tell who wrote, and others may.
                    severity=dg.AssetCheckSeverity.WARN
                    if check.name == REST_UNCHANGED
                    else dg.AssetCheckSeverity.ERROR,
                    description=description,
                    metadata=picture,
                )
    except MigrationError as error:
        raise _failure(moved, str(error)) from None
    if done.reason:
        raise _failure(moved, done.reason)


def _apply_graph(
    context: dg.AssetExecutionContext,
    moved: MovedStep,
    graph: Any,
    folder: Path,
    plan: PlanFolder,
) -> Any:
    """Back up the plan's nodes and, unless the backup alone was asked for, change them."""
    move, step = moved.move, moved.step
    assert isinstance(step, GraphStep)
    backup = import_graph_step().back_up_graph(plan)
    context.log_event(
        dg.AssetMaterialization(
            moved.backup_key,
            metadata={
                "dry_run": False,
                "nodes": backup.lines,
                "sha256": backup.sha256,
                "file": dg.MetadataValue.path(str(plan.part("backup", ALL))),
                "plan_id": plan.plan_id,
            },
        )
    )
    if moved.key not in context.op_execution_context.selected_asset_keys:
        return None
    for line in step.statements:
        context.log.info(line)
    told = _build_counter(context, plan.manifest()["planned"])
    done = import_graph_step().apply_graph(graph, move, step, plan, told)
    metadata = {"dry_run": False, "plan_id": plan.plan_id, **done.counts}
    event = dg.AssetObservation if done.reason else dg.AssetMaterialization
    context.log_event(event(moved.key, metadata=metadata | show_move(folder, move)))
    return done


_FOR_A_REAL_RUN = (
    "sync_all, replay and id_file are for a real run; add dry_run: false, or leave them out to see "
    "what the id file would send"
)


def run_sync_step(
    context: dg.AssetExecutionContext,
    moved: MovedStep,
    *,
    dry_run: bool,
    sync_all: bool,
    replay: str | None,
    id_file: str | None,
) -> Iterator[Any]:
    """Have the search service read rows again, and look whether its index shows it.

    Raises:
        dagster.Failure: one sentence, when a block failed or nothing could begin.
    """
    move, step = moved.move, moved.step
    assert isinstance(step, SyncStep)
    folder = find_folder(context.instance, move, moved.folder)
    only_checks = _only_checks(context)
    if not only_checks:
        if dry_run and (sync_all or replay or id_file):
            raise _failure(moved, _FOR_A_REAL_RUN)
        if _is_planned_only(context, moved, dry_run=dry_run):
            return
    try:
        with sole_writer(folder, step.name), ExitStack() as stack:
            store = getattr(context.resources, step.store)
            assert isinstance(store, SunbirdSyncResource)
            connection = stack.enter_context(open_cassandra(context, move))
            settings = store.to_settings(step.store)
            if only_checks:
                plan = _applied_plan(moved, folder)
                client = stack.enter_context(settings.connect())
                done = sync_step.prove_sync(client, connection, move, step, plan)
                if done is None:
                    raise DeclarationError(f"{step.name} has sent nothing yet, so nothing to check")
            else:
                refuse_out_of_order(move, folder, step)
                plan = require_plan(move, folder, step)
                client = stack.enter_context(settings.connect())
                done = sync_step.apply_sync(
                    client,
                    connection,
                    move,
                    step,
                    folder,
                    plan,
                    sync_all=sync_all,
                    replay=replay,
                    id_file=id_file,
                    on_progress=context.log.info,
                    on_warning=context.log.warning,
                )
                report_sync(context, moved, folder, plan, done)
    except MigrationError as error:
        raise _failure(moved, str(error)) from None
    yield from _judge_sync(context, moved, folder, done)
    if done.reason:
        raise _failure(moved, done.reason)


def _judge_sync(
    context: dg.AssetExecutionContext,
    moved: MovedStep,
    folder: Path,
    done: sync_step.AppliedSync,
) -> Iterator[dg.AssetCheckResult]:
    picture = show_move(folder, moved.move)
    for check in context.op_execution_context.selected_asset_check_keys:
        if check.name == BLOCKS_ACCEPTED:
            passed, description = done.accepted
        else:
            passed = done.verdict is not None and done.verdict.passed
            description = str(done.verdict or "the index was not asked: not all ids were accepted")
        yield dg.AssetCheckResult(
            asset_key=moved.key,
            check_name=check.name,
            passed=passed,
            description=description,
            metadata=picture,
        )


# ------------------------------------------------------------------------------------------------


def import_graph_step() -> Any:
    """Import what works on a graph: its driver alone takes a third of a second."""
    from migration_platform.tenant import graph_step

    return graph_step


def tell_of_retries(context: Any, what: str) -> Callable[[BaseException], None]:
    """Build what logs that a server is asked again."""
    tell = build_retry_log(context, what)
    return lambda error: tell(explain(error))


def open_cassandra(context: Any, move: Move) -> Connection:
    """Open the Cassandra store of a move, as patiently as the move says.

    Raises:
        PreflightError, TransientError: it cannot be reached; one sentence.
    """
    store = getattr(context.resources, move.store)
    assert isinstance(store, CassandraResource)
    retry = build_retry_log(context, "Connecting")
    return connect_patiently(store.connect, move.retry_seconds, retry)


def _failure(moved: MovedStep, reason: str) -> RunFailure:
    return RunFailure(f"{moved.move.name}: {reason}")
