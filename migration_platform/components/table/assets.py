"""The assets of one table: its origin, the target with its diff, its plan, its dead letters."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from migration_platform.components.table.attributes import EventsAttributes
from migration_platform.components.table.checks import describe_checks
from migration_platform.components.table.dead_letters import NO_DEAD_LETTERS, NO_DEAD_LETTERS_MEANS
from migration_platform.components.table.describing import describe_target
from migration_platform.components.table.naming import step_of
from migration_platform.components.table.planning import plan_migration
from migration_platform.components.table.ranged_run import run_ranges
from migration_platform.components.table.replaying import replay_dead_letters
from migration_platform.components.table.reporting import Job
from migration_platform.components.table.run_stores import (
    changes_stores,
    find_changes,
    find_events,
    find_side,
)

_RUN_FILTER = (
    "Takes the place of the declared filter for this run, with the same attributes: where, "
    "token_min, token_max, coverage_percent, writetime_from, writetime_to, column. {} takes all "
    "rows. What was copied so does not count as copied under the declared filter."
)


class RunConfig(dg.Config):
    """What one run may do otherwise than declared."""

    truncate_target: bool | None = Field(
        default=None, description="Overrules the declaration's truncate_target for this run."
    )
    resume: Any = Field(
        default=None,
        description="auto, or the id of a tracked run: what passed there is carried over, and only "
        "the rest is done.",
    )
    run_id: int | None = Field(
        default=None, description="The tracked run's own id; default: nanoseconds since 1970."
    )
    split_pending: int = Field(
        default=1, description="With resume: into how many pieces each pending one is cut."
    )
    filter: Any = Field(default=None, description=_RUN_FILTER)


class PlanConfig(dg.Config):
    """How thoroughly a plan is made."""

    rehearse: bool = Field(
        default=False, description="Read and convert every row, as a copy would, and write none."
    )
    filter: Any = Field(
        default=None, description="The plan of a run with this filter instead of the declared one."
    )


def build_origin_asset(*, job: Job, group: str) -> dg.AssetSpec:
    """Build the external asset that stands for the origin."""
    endpoint = job.migration.origin
    return dg.AssetSpec(
        job.origin,
        description=f"`{endpoint.table}` in the store `{endpoint.store}`: read, never written.",
        group_name=group,
        kinds={endpoint.kind},
        metadata={"dagster/table_name": str(endpoint.table)},
    )


def build_ranged_assets(
    *,
    job: Job,
    group: str,
    owners: list[str],
    events: EventsAttributes | None,
    declared: Mapping[str, Any],
    per_run: int | None,
    after: Sequence[dg.AssetKey] = (),
) -> dg.AssetsDefinition:
    """Build the target, its diff and its checks, made by one step.

    A backfill is one run, or as many as `per_run` ranges each need. What was `declared`, its
    events tell. The target depends on the assets in `after`, its origin among them.
    """
    migration = job.migration
    store_names = {migration.origin.store, migration.target.store}
    store_names.update(events.stores if events else ())
    store_names.update(changes_stores(migration))
    checks = describe_checks(migration)

    @dg.multi_asset(
        name=step_of(job),
        specs=_build_ranged_specs(job, group, owners, events, after),
        check_specs=[
            dg.AssetCheckSpec(name, asset=job.target, description=description)
            for name, description in (checks | {NO_DEAD_LETTERS: NO_DEAD_LETTERS_MEANS}).items()
        ],
        backfill_policy=dg.BackfillPolicy.multi_run(per_run)
        if per_run
        else dg.BackfillPolicy.single_run(),
        can_subset=True,
        required_resource_keys=store_names,
    )
    def migrate(context: dg.AssetExecutionContext, config: RunConfig) -> Iterator[Any]:
        yield from run_ranges(
            context,
            job,
            origin=find_side(context.resources, migration.origin),
            target=find_side(context.resources, migration.target),
            events=find_events(events, context.resources, context.instance, declared),
            truncate_target=config.truncate_target,
            resume=config.resume,
            run_id=config.run_id,
            split_pending=config.split_pending,
            own_filter=config.filter,
            changes=find_changes(migration, context.resources),
        )

    return migrate


def _build_ranged_specs(
    job: Job,
    group: str,
    owners: list[str],
    events: EventsAttributes | None,
    after: Sequence[dg.AssetKey],
) -> list[dg.AssetSpec]:
    """Build what Dagster knows of the target and of its diff."""
    migration = job.migration
    common: dict[str, Any] = {
        "partitions_def": job.partitions,
        "group_name": group,
        "owners": owners,
        "kinds": {migration.target.kind},
        # Each range's event is written as it ends; the step itself returns none.
        "skippable": True,
    }
    target = dg.AssetSpec(
        job.target,
        deps=list(after),
        description=describe_target(job, events),
        metadata={"dagster/table_name": str(migration.target.table)},
        **common,
    )
    diff = dg.AssetSpec(
        job.diff,
        deps=[job.target],
        description=(
            f"The verdict on each range: are the rows of `{migration.origin.table}` and "
            f"`{migration.target.table}` the same? A range that differs fails, and its "
            "observation names the rows."
        ),
        **common,
    )
    return [target, diff]


def build_plan_asset(*, job: Job, group: str, owners: list[str]) -> dg.AssetsDefinition:
    """Build the asset that says what a copy would do, and does none of it."""
    migration = job.migration

    @dg.asset(
        key=job.plan,
        deps=[job.origin],
        group_name=group,
        owners=owners,
        kinds={migration.origin.kind},
        description=(
            f"What a copy of `{migration.origin.table}` to `{migration.target.table}` would do, "
            "told before anything is written: where each column comes from, what arrives exactly "
            "and what cannot. With the op config `rehearse: true` every row is read and converted "
            "too, as is always done where rows may collide or guardrails are declared."
        ),
        required_resource_keys={migration.origin.store, migration.target.store},
    )
    def plan(context: dg.AssetExecutionContext, config: PlanConfig) -> dg.MaterializeResult:
        return plan_migration(
            context,
            job,
            origin=find_side(context.resources, migration.origin),
            target=find_side(context.resources, migration.target),
            rehearses=config.rehearse,
            own_filter=config.filter,
        )

    return plan


def build_dead_letters_asset(*, job: Job, group: str, owners: list[str]) -> dg.AssetsDefinition:
    """Build the asset that copies the rows that are stored as dead letters."""
    migration = job.migration

    @dg.asset(
        key=job.dead_letters,
        deps=[job.target],
        group_name=group,
        owners=owners,
        kinds={migration.origin.kind},
        description=(
            f"The rows of `{migration.origin.table}` that were rejected and are "
            "stored as dead letters. Materializing it reads them again by their keys and writes "
            "them under the present declaration; what arrives, or is gone at the origin, is a "
            "dead letter no longer."
        ),
        required_resource_keys={migration.origin.store, migration.target.store},
    )
    def dead_letters(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return replay_dead_letters(
            context,
            job,
            origin=find_side(context.resources, migration.origin),
            target=find_side(context.resources, migration.target),
        )

    return dead_letters
