"""The component that declares the migration of one table."""

import re
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from pydantic import Field

from migration_platform.components import ended_runs
from migration_platform.components.attributes import NamedAttributes
from migration_platform.components.checks import CHECKS, ORIGIN_ONLY
from migration_platform.components.ranged_run import run_ranges
from migration_platform.components.reporting import Job
from migration_platform.components.scaffolds import TableMigrationScaffolder
from migration_platform.components.stores import Stores
from migration_platform.errors import DeclarationError
from migration_platform.migration import Endpoint, Migration, TableName
from migration_platform.resources import CassandraResource, KafkaResource


class OriginAttributes(NamedAttributes, dg.Model):
    """Where rows come from."""

    store: str = Field(description="Name of a store.")
    table: str = Field(description="keyspace.table; quoted names allowed.")
    consistency: str = Field("LOCAL_QUORUM", description="Consistency level of reads.")
    fetch_size: int | None = Field(None, description="Rows a page; default: by the rows' size.")
    rows_per_second: int | None = Field(None, description="Limit for the whole run.")


class TargetAttributes(NamedAttributes, dg.Model):
    """Where rows go to."""

    store: str = Field(description="Name of a store.")
    table: str | None = Field(None, description="keyspace.table; default: the origin's name.")
    consistency: str = Field("LOCAL_QUORUM", description="Consistency level of writes.")
    rows_per_second: int | None = Field(None, description="Limit for the whole run.")


class DiffAttributes(NamedAttributes, dg.Model):
    """How both tables are compared."""

    mode: str = Field(
        "two_way", description="two_way also finds rows that only the target has; or origin_only."
    )


class EventsAttributes(NamedAttributes, dg.Model):
    """Where metric events and job-log events go."""

    store: str = Field(description="Name of a Kafka store.")
    topic: str = Field(description="Topic of the metric event, one for each run that ends.")
    job_log_topic: str | None = Field(None, description="Topic of JOB_START, JOB_LOG, JOB_END.")
    job_name: str = Field("CassandraMigratorJob", description="The events' subsystem.")


class RunConfig(dg.Config):
    """What one run may do otherwise than declared."""

    truncate_target: bool | None = Field(
        default=None, description="Overrules the declaration's truncate_target for this run."
    )


@dg.scaffold_with(TableMigrationScaffolder)
class TableMigration(dg.Component, dg.Model, NamedAttributes):
    """Copies a Cassandra table, range by range, and proves that it arrived.

    The target becomes an asset with one partition for each token range. Beside it stands a diff
    asset with each range's verdict, and two checks give the verdict on the whole table.
    """

    origin: OriginAttributes = Field(description="Where rows come from.")
    target: TargetAttributes = Field(description="Where rows go to.")
    token_ranges: int = Field(64, description="Partitions of the asset, 1 to 1000.")
    ranges_per_run: str | int = Field("all", description="all, or so many ranges a run.")
    workers: int | None = Field(None, description="Processes of a run; default: one a core.")
    writetime: str | int = Field("now", description="now; other modes are not there yet.")
    ttl: str | int = Field("none", description="none; other modes are not there yet.")
    group_writes_by: list[str] | None = Field(
        None,
        description="Columns by which writes are grouped; default: the target's partition key.",
    )
    truncate_target: bool = Field(False, description="Empty the target before a full copy.")
    diff: DiffAttributes = Field(DiffAttributes(mode="two_way"), description="The comparison.")
    tracking: bool = Field(False, description="Tracking tables; only off is there yet.")
    retry_seconds: float = Field(
        90.0, description="How long a request that failed for a passing reason is tried again."
    )
    events: EventsAttributes | None = Field(None, description="Kafka events.")
    schedule: str | None = Field(None, description="A cron line (UTC) for full copies.")
    owners: list[str] = Field(default_factory=list, description="E-mail or team:name of owners.")
    group: str = Field("migrations", description="Group of the assets in the UI.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the assets, the checks, and the schedule and sensor where declared.

        Raises:
            DeclarationError: one message with everything that is wrong.
        """
        job = build_job(self.to_migration())
        self._check_stores(context)
        assets: list[Any] = [build_ranged_assets(declared=self, job=job)]
        if self._describes_origin(job, context):
            assets.append(build_origin_asset(job=job, group=self.group))
        schedules, sensors = [], []
        if self.schedule:
            schedules.append(build_schedule(job=job, cron=self.schedule, per_run=self._per_run()))
        if self.events:
            sensors.append(build_ended_runs_sensor(job=job, events=self.events))
        return dg.Definitions(assets=assets, schedules=schedules, sensors=sensors)

    def to_migration(self) -> Migration:
        """Turn the attributes into a validated declaration.

        Raises:
            DeclarationError: one message with everything that is wrong.
        """
        wrong = []
        if self.tracking:
            wrong.append("tracking is not there yet; leave it off")
        tables: list[TableName] = []
        for text in (self.origin.table, self.target.table or self.origin.table):
            try:
                tables.append(TableName.parse(text))
            except DeclarationError as error:
                wrong.append(str(error))
                tables.append(TableName("unknown", str(len(tables))))
        for build in (self._per_run, lambda: self._migration(*tables)):
            try:
                build()
            except DeclarationError as error:
                wrong.append(str(error))
        if wrong:
            raise DeclarationError("; ".join(dict.fromkeys(wrong)))
        return self._migration(*tables)

    def _migration(self, origin: TableName, target: TableName) -> Migration:
        return Migration(
            origin=Endpoint(
                store=self.origin.store,
                table=origin,
                consistency=self.origin.consistency,
                rows_per_second=self.origin.rows_per_second,
                fetch_size=self.origin.fetch_size,
            ),
            target=Endpoint(
                store=self.target.store,
                table=target,
                consistency=self.target.consistency,
                rows_per_second=self.target.rows_per_second,
            ),
            token_ranges=self.token_ranges,
            workers=self.workers,
            writetime=self.writetime,
            ttl=self.ttl,
            group_writes_by=None if self.group_writes_by is None else tuple(self.group_writes_by),
            truncate_target=self.truncate_target,
            diff_mode=self.diff.mode,
            retry_seconds=self.retry_seconds,
        )

    def _per_run(self) -> int | None:
        if self.ranges_per_run == "all":
            return None
        if not isinstance(self.ranges_per_run, int) or self.ranges_per_run < 1:
            raise DeclarationError(
                f"ranges_per_run is {self.ranges_per_run!r}; valid are all or a number from 1"
            )
        if self.truncate_target:
            raise DeclarationError(
                "truncate_target needs ranges_per_run: all, for one run must cover all ranges"
            )
        return self.ranges_per_run

    def _check_stores(self, context: dg.ComponentLoadContext) -> None:
        """Refuse stores of the wrong kind; stores that are declared otherwise, a run refuses."""
        kinds: dict[str, str] = {}
        for stores in context.component_tree.get_all_components(Stores):
            kinds |= dict.fromkeys(stores.cassandra, "cassandra")
            kinds |= dict.fromkeys(stores.kafka, "kafka")
        needed = [
            ("origin", self.origin.store, "cassandra"),
            ("target", self.target.store, "cassandra"),
            *([("events", self.events.store, "kafka")] if self.events else []),
        ]
        wrong = [
            f"{attribute}.store is {name}, a {kinds[name]} store; valid are the {kind} stores "
            f"{', '.join(store for store in kinds if kinds[store] == kind)}"
            for attribute, name, kind in needed
            if kinds.get(name, kind) != kind
        ]
        if wrong:
            raise DeclarationError("; ".join(wrong))

    def _describes_origin(self, job: Job, context: dg.ComponentLoadContext) -> bool:
        """Say whether this migration is the one that describes its origin's asset.

        Several may read one origin, and an origin may be another migration's target.
        """
        others = context.component_tree.get_all_components(TableMigration)
        jobs = [build_job(other.to_migration()) for other in others]
        if any(other.target == job.origin for other in jobs):
            return False
        return job.target == next(
            (other.target for other in jobs if other.origin == job.origin), job.target
        )


def build_job(migration: Migration) -> Job:
    """Give a migration its Dagster names: store, keyspace and table."""
    target = asset_key(migration.target)
    return Job(
        migration=migration,
        origin=asset_key(migration.origin),
        target=target,
        diff=dg.AssetKey([*target.path[:-1], f"{target.path[-1]}_diff"]),
        partitions=dg.StaticPartitionsDefinition([r.key for r in migration.ranges]),
    )


def asset_key(endpoint: Endpoint) -> dg.AssetKey:
    """Name a table's asset; characters that Dagster's selections cannot hold become `_`."""
    parts = (endpoint.store, endpoint.table.keyspace, endpoint.table.table)
    return dg.AssetKey([re.sub(r"[^\w-]", "_", part) for part in parts])


def build_origin_asset(*, job: Job, group: str) -> dg.AssetSpec:
    """Build the external asset that stands for the origin."""
    endpoint = job.migration.origin
    return dg.AssetSpec(
        job.origin,
        description=f"`{endpoint.table}` in the store `{endpoint.store}`: read, never written.",
        group_name=group,
        kinds={"cassandra"},
        metadata={"dagster/table_name": str(endpoint.table)},
    )


def build_ranged_assets(*, declared: TableMigration, job: Job) -> dg.AssetsDefinition:
    """Build the target, its diff and its checks, made by one step."""
    migration = job.migration
    per_run = declared._per_run()
    common: dict[str, Any] = {
        "partitions_def": job.partitions,
        "group_name": declared.group,
        "owners": declared.owners,
        "kinds": {"cassandra"},
        # Each range's event is written as it ends; the step itself returns none.
        "skippable": True,
    }
    store_names = {migration.origin.store, migration.target.store}
    if declared.events:
        store_names.add(declared.events.store)

    checks = ORIGIN_ONLY if migration.diff_mode == "origin_only" else CHECKS

    @dg.multi_asset(
        name=_name(job),
        specs=[
            dg.AssetSpec(
                job.target,
                deps=[job.origin],
                description=_describe_target(declared, job),
                metadata={"dagster/table_name": str(migration.target.table)},
                **common,
            ),
            dg.AssetSpec(
                job.diff,
                deps=[job.target],
                description=(
                    f"The verdict on each range: are the rows of `{migration.origin.table}` and "
                    f"`{migration.target.table}` the same? A range that differs fails, and its "
                    "observation names the rows."
                ),
                **common,
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(name, asset=job.target, description=description)
            for name, description in checks.items()
        ],
        backfill_policy=dg.BackfillPolicy.multi_run(per_run)
        if per_run
        else dg.BackfillPolicy.single_run(),
        can_subset=True,
        required_resource_keys=store_names,
    )
    def migrate(context: dg.AssetExecutionContext, config: RunConfig) -> Iterator[Any]:
        overruled = config.truncate_target
        yield from run_ranges(
            context,
            job,
            origin=_store(context.resources, migration.origin.store, CassandraResource),
            target=_store(context.resources, migration.target.store, CassandraResource),
            events=_event_settings(declared.events, context.resources),
            truncate_target=migration.truncate_target if overruled is None else overruled,
        )

    return migrate


def build_schedule(*, job: Job, cron: str, per_run: int | None) -> dg.ScheduleDefinition:
    """Build the schedule of full copies: one run, or as many as `per_run` ranges each need."""
    assets_job = dg.define_asset_job(
        f"{_name(job)}_job",
        selection=dg.AssetSelection.assets(job.target, job.diff),
        executor_def=dg.in_process_executor,
        tags={ended_runs.copies_tag(job.target): ended_runs.PLANNED},
    )
    keys = [token_range.key for token_range in job.migration.ranges]
    size = per_run or len(keys)

    @dg.schedule(name=f"{_name(job)}_schedule", cron_schedule=cron, job=assets_job)
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
        name=f"{_name(job)}_ended_runs",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={events.store},
    )
    def ended(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Mark dead runs as failed and publish the events of runs that ended without."""
        settings = _event_settings(events, context.resources)
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


def _event_settings(
    events: EventsAttributes | None, resources: Any
) -> ended_runs.EventSettings | None:
    if events is None:
        return None
    return ended_runs.EventSettings(
        kafka=_store(resources, events.store, KafkaResource).to_settings(),
        topic=events.topic,
        job_log_topic=events.job_log_topic,
        job=events.job_name,
    )


def _store(resources: Any, name: str, kind: type) -> Any:
    store = getattr(resources, name)
    if not isinstance(store, kind):
        raise DeclarationError(
            f"the store {name} is a {type(store).__name__}, but a {kind.__name__} is needed here"
        )
    return store


def _name(job: Job) -> str:
    """Name the step: letters, digits and underscores only."""
    return re.sub(r"[^A-Za-z0-9_]", "_", "__".join(job.target.path))


def _describe_target(declared: TableMigration, job: Job) -> str:
    migration = job.migration
    limits = [
        f"{endpoint.rows_per_second:,} rows/s at the {side}"
        for side, endpoint in (("origin", migration.origin), ("target", migration.target))
        if endpoint.rows_per_second
    ]
    lines = [
        f"`{migration.target.table}` in `{migration.target.store}`, copied from "
        f"`{migration.origin.table}` in `{migration.origin.store}`.",
        "",
        f"- **Ranges**: {migration.token_ranges}, by the token of the origin's partition key",
        f"- **Writetime and TTL**: `{migration.writetime}`, `{migration.ttl}`",
        f"- **Comparison**: `{migration.diff_mode}`",
    ]
    if limits:
        lines.append(f"- **Limits**: {', '.join(limits)}")
    if migration.truncate_target:
        lines.append("- **Empties the target** before a copy of all ranges")
    if declared.events:
        lines.append(f"- **Events**: topic `{declared.events.topic}` in `{declared.events.store}`")
    return "\n".join(lines)
