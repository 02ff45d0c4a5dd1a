"""The asset of a table that follows its origin, and the job by which its sensor runs it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from migration_platform.components.table import ended_runs
from migration_platform.components.table.dead_letters import NO_DEAD_LETTERS
from migration_platform.components.table.reporting import Job
from migration_platform.components.table.run_stores import changes_stores, find_changes, find_side
from migration_platform.components.table.sync_checks import SYNC_IS_FRESH
from migration_platform.components.table.sync_run import Wishes, synchronise
from migration_platform.declaration.step_names import step_name
from migration_platform.declaration.sync import Sync

_SHORTEST_WINDOW = 60
"""Dagster takes no shorter one."""


class SyncConfig(dg.Config):
    """From where to where one run follows the origin, and what it compares first."""

    position: str | None = Field(
        default=None,
        description="Where to begin: the JSON of a position, or copy for that of the copy.",
    )
    up_to: str | None = Field(
        default=None,
        description="now: end as soon as the target has all that changed until now, not before.",
    )
    scan: str | None = Field(
        default=None,
        description="Ranges that are compared first: all, 7, 7...9 or several, with commas.",
    )
    seconds: float | None = Field(
        default=None,
        description="How long the run follows; default: until no message came for 5 s, at most "
        "600 s.",
    )


def sync_step(job: Job) -> str:
    """Name the step: letters, digits and underscores only."""
    assert job.sync is not None
    return step_name(job.sync.path)


def build_sync_asset(*, job: Job, group: str, owners: list[str]) -> dg.AssetsDefinition:
    """Build the asset: materializing it follows the origin until nothing is left to do."""
    migration, key = job.migration, job.sync
    assert key is not None
    assert migration.sync is not None
    spec = dg.AssetSpec(
        key,
        deps=[job.target],
        description=describe_sync(job, migration.sync),
        group_name=group,
        owners=owners,
        kinds={migration.target.kind, *({"kafka"} if migration.sync.kafka else ())},
        # Each position is an event of its own, written when it is reached; the step returns none.
        skippable=True,
        freshness_policy=dg.FreshnessPolicy.time_window(
            timedelta(seconds=max(_SHORTEST_WINDOW, migration.sync.max_lag_seconds))
        ),
    )
    checks = {
        SYNC_IS_FRESH: "The target is behind its origin by no more than "
        f"{migration.sync.max_lag_seconds:,} seconds.",
        NO_DEAD_LETTERS: "No row that changed was rejected, and each message named its row.",
    }

    @dg.multi_asset(
        name=sync_step(job),
        specs=[spec],
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, description=means) for name, means in checks.items()
        ],
        required_resource_keys={
            migration.origin.store,
            migration.target.store,
            *changes_stores(migration),
        },
    )
    def follow_origin(context: dg.AssetExecutionContext, config: SyncConfig) -> Iterator[Any]:
        yield from synchronise(
            context,
            job,
            origin=find_side(context.resources, migration.origin),
            target=find_side(context.resources, migration.target),
            changes=find_changes(migration, context.resources),
            wishes=Wishes(config.position, config.up_to, config.scan, config.seconds),
        )

    return follow_origin


def describe_sync(job: Job, sync: Sync) -> str:
    """Say in Markdown how changes are found, and what becomes of them."""
    migration = job.migration
    lines = [
        f"`{migration.target.table}` in `{migration.target.store}` follows "
        f"`{migration.origin.table}` in `{migration.origin.store}`: what changed is read again by "
        "its key, and written or deleted.",
        "",
    ]
    if sync.kafka:
        lines.append(
            f"- **Changes**: the topic `{sync.kafka.topic}` in `{sync.kafka.store}`, "
            f"`{sync.kafka.format}`"
        )
    if sync.scan:
        lines.append(
            f"- **Rounds**: all ranges are compared every {sync.scan.every_seconds:,} seconds, "
            f"{sync.scan.ranges_per_tick} a run at most"
        )
    lines.append(
        "- **Deletions**: "
        + ("are made" if sync.deletes else "are not made; what is gone at the origin stays")
    )
    return "\n".join(lines)


def build_sync_job(job: Job) -> Any:
    """Build the job that the sensor runs: in one process, as the step has its own workers."""
    assert job.sync is not None
    return dg.define_asset_job(
        f"{sync_step(job)}_job",
        selection=dg.AssetSelection.assets(job.sync),
        executor_def=dg.in_process_executor,
        tags={ended_runs.syncs_tag(job.target): ended_runs.PLANNED},
    )
