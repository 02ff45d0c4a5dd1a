"""The component that declares the move of a tenant to another."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from migration_platform.components.attributes import Literally
from migration_platform.components.declared import Declared, tells_all
from migration_platform.components.scaffolds import TenantMoveScaffolder
from migration_platform.components.stores import kinds_of_stores
from migration_platform.components.tenant.attributes import StepAttributes, to_move
from migration_platform.components.tenant.reports import MovedStep
from migration_platform.components.tenant.rollback import roll_back
from migration_platform.components.tenant.runs import (
    plan_step,
    run_graph_step,
    run_sync_step,
    run_table_step,
)
from migration_platform.errors import DeclarationError
from migration_platform.tenant.declaration import GraphStep, Move, Step, SyncStep, TableStep

DRY_RUN = (
    "true makes the step's plan and writes nothing else; false applies the newest plan. It is true "
    "unless said otherwise."
)


class MoveConfig(dg.Config):
    """What a run of a step does."""

    dry_run: bool = Field(default=True, description=DRY_RUN)


class TableConfig(MoveConfig):
    """What a run of a table's step does."""

    accept_changes_by_others: bool = Field(
        default=False,
        description="Whether to go on although other rows changed in a way that no later write "
        "explains, as deletions do. It is kept with the verdict.",
    )


class SyncConfig(dg.Config):
    """What a run of a sync does."""

    dry_run: bool = Field(default=True, description=DRY_RUN)
    sync_all: bool = Field(
        default=False,
        description="Whether every row of the table is sent, and not only those of the id file.",
    )
    id_file: str | None = Field(
        default=None, description="Another id file than that of the table's newest plan."
    )
    replay: str | None = Field(
        default=None,
        description="A failure log, SyncFailure_<milliseconds>.log: exactly its blocks are sent.",
    )


class RollbackConfig(dg.Config):
    """What a rollback puts back."""

    dry_run: bool = Field(
        default=True,
        description="true counts what would be put back, and writes nothing; it is true unless "
        "said otherwise.",
    )
    steps: list[str] = Field(
        default_factory=list,
        description="Names of steps; default: all that have a backup, the last one first.",
    )


@dg.scaffold_with(TenantMoveScaffolder)
class TenantMove(Declared):
    """Moves everything of one tenant to another, step by step; each can be planned and undone.

    A step is rows of a table, ids that the search service reads again, or nodes of a graph. Each
    has a plan, which says what would change, and is applied only by a run with dry_run: false,
    after the step before it was verified.
    """

    name: str | None = Field(
        None, description="What the assets are called; default: the name of this folder."
    )
    store: str = Field(description="Name of the cassandra store of all tables.")
    origin_tenant: Literally[str] = Field(description="Id of the organisation that is left.")
    target_tenant: Literally[str] = Field(description="Id of the organisation that is joined.")
    organisations: str = Field(description="keyspace.table in which both must exist, by their ids.")
    steps: dict[str, StepAttributes] = Field(description="What is moved, by name and in order.")
    folder: str | None = Field(
        None,
        description="Where plans, backups, id files and logs are kept, shared by all machines that "
        "run steps; default: tenant_moves/NAME in the folder of the Dagster instance.",
    )
    consistency: str = Field("LOCAL_QUORUM", description="Consistency level of reads and writes.")
    serial_consistency: str = Field(
        "SERIAL",
        description="Level of each row's compare and set: SERIAL, or LOCAL_SERIAL where one "
        "datacenter alone writes.",
    )
    rows_per_second: int | None = Field(None, description="Limit of changes; default: none.")
    retry_seconds: float = Field(
        90.0, description="How long a request that failed for a passing reason is tried again."
    )
    owners: list[str] = Field(default_factory=list, description="E-mail or team:name of owners.")
    group: str | None = Field(
        None, description="Group of the assets in the UI; default: the move's name."
    )

    @tells_all
    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build each step's assets and checks, and the rollback.

        Raises:
            DeclarationError: one message with everything that is wrong.
        """
        move = to_move(
            name=self.name or context.path.name,
            store=self.store,
            origin_tenant=self.origin_tenant,
            target_tenant=self.target_tenant,
            organisations=self.organisations,
            steps=self.steps,
            consistency=self.consistency,
            serial_consistency=self.serial_consistency,
            rows_per_second=self.rows_per_second,
            retry_seconds=self.retry_seconds,
        )
        _refuse_stores(move, kinds_of_stores(context.component_tree))
        assets: list[Any] = []
        after: list[dg.AssetKey] = []
        for step in move.steps:
            moved = MovedStep(move, step, self.folder)
            common: dict[str, Any] = {
                "group_name": self.group or move.name,
                "owners": self.owners,
            }
            assets += [
                build_plan_asset(moved=moved, common=common),
                build_step_assets(moved=moved, common=common, after=after),
            ]
            after = [moved.key]
        return dg.Definitions(
            assets=assets, jobs=[build_rollback_job(move=move, folder=self.folder)]
        )


def _refuse_stores(move: Move, kinds: dict[str, str]) -> None:
    """Refuse stores that are missing or of another kind.

    Raises:
        DeclarationError: one message with all of them.
    """
    wanted = [("store", move.store, "cassandra")]
    for step in move.steps:
        if isinstance(step, SyncStep):
            wanted.append((f"steps.{step.name}.sync.store", step.store, "sunbird_sync"))
        elif isinstance(step, GraphStep):
            wanted.append((f"steps.{step.name}.graph.store", step.store, "neo4j"))
    wrong = []
    for name, store, kind in wanted:
        if kinds.get(store) != kind:
            valid = [known for known, found in kinds.items() if found == kind]
            wrong.append(
                f"{name} is {store}, and there is no {kind} store of that name in a component "
                f"migration_platform.Stores; valid are {', '.join(valid) or 'none yet'}"
            )
    if wrong:
        raise DeclarationError(f"{move.name}: " + "; ".join(wrong))


def _kind(step: Step) -> str:
    if isinstance(step, TableStep):
        return "cassandra"
    return "neo4j" if isinstance(step, GraphStep) else "elasticsearch"


def _stores(move: Move, step: Step) -> set[str]:
    return {move.store} if isinstance(step, TableStep) else {move.store, step.store}


def build_plan_asset(*, moved: MovedStep, common: dict[str, Any]) -> dg.AssetsDefinition:
    """Build the asset that says what a step would do, and does none of it."""
    step = moved.step
    # A sync is planned from the id file that its table's plan writes.
    needed = []
    if isinstance(step, SyncStep):
        table = moved.move.by_name[step.ids_of]
        needed = [MovedStep(moved.move, table, moved.folder).plan_key]
    build: Any = dg.asset(
        key=moved.plan_key,
        deps=needed,
        description=(
            f"What the step `{moved.step.name}` would do, told before it does any of it: counts, "
            "the values before and after, what is in the way. A real run applies the newest plan."
        ),
        kinds={_kind(moved.step)},
        required_resource_keys=_stores(moved.move, moved.step),
        **common,
    )

    def plan(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=plan_step(context, moved))

    return build(plan)


def build_step_assets(
    *, moved: MovedStep, common: dict[str, Any], after: Sequence[dg.AssetKey]
) -> dg.AssetsDefinition:
    """Build a step's asset with its checks, and its backup where it writes values."""
    step = moved.step
    checks = [
        dg.AssetCheckSpec(name, asset=moved.key, description=description)
        for name, description in moved.checks.items()
    ]
    options: dict[str, Any] = {
        "name": moved.op_name,
        "specs": _step_specs(moved, common, after),
        "check_specs": checks,
        "can_subset": True,
        "required_resource_keys": _stores(moved.move, step),
    }
    if isinstance(step, TableStep):
        options["backfill_policy"] = dg.BackfillPolicy.single_run()

        @dg.multi_asset(**options)
        def change_rows(context: dg.AssetExecutionContext, config: TableConfig) -> Iterator[Any]:
            yield from run_table_step(
                context,
                moved,
                dry_run=config.dry_run,
                accept_changes=config.accept_changes_by_others,
            )

        return change_rows
    if isinstance(step, GraphStep):

        @dg.multi_asset(**options)
        def change_nodes(context: dg.AssetExecutionContext, config: MoveConfig) -> Iterator[Any]:
            yield from run_graph_step(context, moved, dry_run=config.dry_run)

        return change_nodes

    @dg.multi_asset(**options)
    def sync(context: dg.AssetExecutionContext, config: SyncConfig) -> Iterator[Any]:
        yield from run_sync_step(
            context,
            moved,
            dry_run=config.dry_run,
            sync_all=config.sync_all,
            replay=config.replay,
            id_file=config.id_file,
        )

    return sync


def _step_specs(
    moved: MovedStep, common: dict[str, Any], after: Sequence[dg.AssetKey]
) -> list[dg.AssetSpec]:
    """Describe a step's backup, where it writes values, and the step itself."""
    step = moved.step
    partitioned: dict[str, Any] = {}
    if isinstance(step, TableStep):
        partitioned = {
            "partitions_def": dg.StaticPartitionsDefinition([r.key for r in step.ranges])
        }
    specs: list[dg.AssetSpec] = []
    if not isinstance(step, SyncStep):
        specs.append(
            dg.AssetSpec(
                moved.backup_key,
                deps=[moved.plan_key],
                description=(
                    f"What `{step.name}` is about to change, as it was: values and writetimes in "
                    "files with a manifest and checksums. The rollback reads it."
                ),
                kinds={_kind(step)},
                skippable=True,
                **partitioned,
                **common,
            )
        )
    specs.append(
        dg.AssetSpec(
            moved.key,
            deps=[moved.plan_key, *(spec.key for spec in specs), *after],
            description=moved.describe(),
            kinds={_kind(step)},
            skippable=True,
            **partitioned,
            **common,
        )
    )
    return specs


def build_rollback_job(*, move: Move, folder: str | None) -> dg.JobDefinition:
    """Build the job that puts back what the move wrote, the last step first."""
    # An index is filled from the tables, so that nothing of it can be put back.
    stores = set[str]().union(
        *(_stores(move, step) for step in move.steps if not isinstance(step, SyncStep))
    )

    @dg.op(name=f"{move.name}_rollback", required_resource_keys=stores)
    def rollback(context: dg.OpExecutionContext, config: RollbackConfig) -> None:
        """Put back what the move wrote, where it still stands, and read it again."""
        roll_back(context, move, folder, dry_run=config.dry_run, names=config.steps)

    @dg.job(
        name=f"{move.name}_rollback_job",
        description=(
            f"Puts back what the move `{move.name}` wrote: the last step first, from its backup, "
            "and only in rows that still hold what the move wrote. Nothing is written unless "
            "dry_run is false."
        ),
        executor_def=dg.in_process_executor,
    )
    def rollback_job() -> None:
        rollback()

    return rollback_job
