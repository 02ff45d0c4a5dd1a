"""The Dagster names of a migration: its assets, and the step that makes them."""

import dagster as dg

from migration_platform.components.declared import ProjectError
from migration_platform.components.table.reporting import Job
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.declaration.step_names import asset_path, step_name
from migration_platform.errors import DeclarationError
from migration_platform.token_ranges import find_ranges


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
        partitions=build_partitions(migration),
        sync=dg.AssetKey([*target.path[:-1], f"{target.path[-1]}_sync"])
        if migration.sync
        else None,
    )


def build_partitions(migration: Migration) -> dg.StaticPartitionsDefinition:
    """Make the ranges Dagster's partitions; one that is not there is refused in a sentence."""
    partitions = dg.StaticPartitionsDefinition([each.key for each in migration.ranges])

    def refuse_unknown(key: str, context: object) -> None:
        del context
        if not partitions.has_partition_key(key):
            # No table is named: of several that have as many ranges, Dagster asks any one.
            raise ProjectError(_tell_range(key, len(migration.ranges)))

    # Not a kind of its own: Dagster maps partitions of one kind alone to each other.
    vars(partitions)["validate_partition_key"] = refuse_unknown
    return partitions


def _tell_range(key: str, count: int) -> str:
    try:
        found = find_ranges(key, count)
    except DeclarationError as error:
        return str(error)
    meant = found[0].key
    if len(found) > 1:
        meant = f"--partition-range {found[0].key}...{found[-1].key}"
    return f"Dagster has no partition {key}; write {meant}"


def asset_key(endpoint: Endpoint) -> dg.AssetKey:
    """Name a table's asset; characters that Dagster's selections cannot hold become `_`."""
    parts = (endpoint.store, endpoint.table.keyspace, endpoint.table.table)
    return dg.AssetKey(asset_path(parts))


def step_of(job: Job) -> str:
    """Name the step: letters, digits and underscores only."""
    return step_name(job.target.path)
