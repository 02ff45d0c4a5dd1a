"""What runs without anybody: a schedule of full copies, and a sensor that notices dead runs."""

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from migration_platform.components.table import ended_runs
from migration_platform.components.table.attributes import EventsAttributes
from migration_platform.components.table.naming import step_of
from migration_platform.components.table.reporting import Job
from migration_platform.components.table.run_stores import find_events


def build_schedule(*, job: Job, cron: str, per_run: int | None) -> dg.ScheduleDefinition:
    """Build the schedule of full copies: one run, or as many as `per_run` ranges each need."""
    assets_job = dg.define_asset_job(
        f"{step_of(job)}_job",
        selection=dg.AssetSelection.assets(job.target, job.diff),
        executor_def=dg.in_process_executor,
        tags={ended_runs.copies_tag(job.target): ended_runs.PLANNED},
    )
    keys = [token_range.key for token_range in job.migration.ranges]
    size = per_run or len(keys)

    @dg.schedule(name=f"{step_of(job)}_schedule", cron_schedule=cron, job=assets_job)
    def full_copy() -> list[dg.RunRequest]:
        """Copy and compare all ranges."""
        return [
            dg.RunRequest(
                # Unique within a tick, which is all that a schedule asks for.
                run_key=keys[first],
                tags={
                    ASSET_PARTITION_RANGE_START_TAG: keys[first],
                    ASSET_PARTITION_RANGE_END_TAG: keys[min(first + size, len(keys)) - 1],
                },
            )
            for first in range(0, len(keys), size)
        ]

    return full_copy


def build_ended_runs_sensor(*, job: Job, events: EventsAttributes) -> dg.SensorDefinition:
    """Build the sensor that notices dead runs and publishes what they owe."""

    @dg.sensor(
        name=f"{step_of(job)}_ended_runs",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=set(events.stores),
    )
    def ended(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Mark dead runs as failed and publish the events of runs that ended without."""
        settings = find_events(events, context.resources, context.instance)
        assert settings is not None
        dead = ended_runs.fail_dead_runs(context.instance)
        problems = ended_runs.settle_events(context.instance, job.target, settings)
        for problem in problems:
            context.log.error(problem)
        return dg.SkipReason(
            "; ".join([*(f"run {run_id} was dead" for run_id in dead), *problems])
            or "Every run that ended has said so."
        )

    return ended
