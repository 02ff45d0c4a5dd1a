"""The Dagster names of a migration: its assets, and the step that makes them."""

import dagster as dg

from migration_platform.components.table.reporting import Job
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.declaration.step_names import asset_path, step_name


def build_job(migration: Migration) -> Job:
    """Give a migration its Dagster names: store, keyspace if there is one, and table."""
    target = asset_key(migration.target)
    return Job(
        migration=migration,
        origin=asset_key(migration.origin),
        target=target,
        diff=dg.AssetKey([*target.path[:-1], f"{target.path[-1]}_diff"]),
        plan=dg.AssetKey([*target.path[:-1], f"{target.path[-1]}_plan"]),
        dead_letters=dg.AssetKey([*target.path[:-1], f"{target.path[-1]}_dead_letters"]),
        partitions=dg.StaticPartitionsDefinition([r.key for r in migration.ranges]),
    )


def asset_key(endpoint: Endpoint) -> dg.AssetKey:
    """Name a table's asset; characters that Dagster's selections cannot hold become `_`."""
    parts = (endpoint.store, endpoint.table.keyspace, endpoint.table.table)
    return dg.AssetKey(asset_path(parts))


def step_of(job: Job) -> str:
    """Name the step: letters, digits and underscores only."""
    return step_name(job.target.path)
