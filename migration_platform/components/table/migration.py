"""The component that declares the migration of one table."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from pydantic import Field

from migration_platform.components.attributes import Literally, NamedAttributes
from migration_platform.components.scaffolds import TableMigrationScaffolder
from migration_platform.components.stores import kinds_of_stores
from migration_platform.components.table import ended_runs
from migration_platform.components.table.checks import describe_checks
from migration_platform.components.table.dead_letters import NO_DEAD_LETTERS, NO_DEAD_LETTERS_MEANS
from migration_platform.components.table.kinds import (
    FORMS,
    OwnAttributes,
    find_strangers,
    name_target,
)
from migration_platform.components.table.planning import plan_migration
from migration_platform.components.table.ranged_run import run_ranges
from migration_platform.components.table.replaying import replay_letters
from migration_platform.components.table.reporting import Job
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import (
    CODECS,
    ColumnFilter,
    Columns,
    Endpoint,
    ExplodeMap,
    ExtractJson,
    Filter,
    Guardrails,
    Migration,
    RowMax,
)
from migration_platform.declaration.step_names import asset_path, step_name
from migration_platform.declaration.stores import StoreDeclaration
from migration_platform.errors import DeclarationError
from migration_platform.resources import KafkaResource
from migration_platform.stores.interface import Resource
from migration_platform.stores.kinds import kind_of, origins, targets
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_T = TypeVar("_T")


class OriginAttributes(NamedAttributes, dg.Model):
    """Where rows come from."""

    store: str = Field(description="Name of a store.")
    table: str = Field(description="keyspace.table; quoted names allowed.")
    consistency: str = Field("LOCAL_QUORUM", description="Consistency level of reads.")
    fetch_size: int | None = Field(None, description="Rows a page; default: by the rows' size.")
    finish_transactions: bool = Field(
        False,
        description="Read each partition serially first, so that lightweight transactions are "
        "finished that nobody finished. Slow.",
    )
    rows_per_second: int | None = Field(None, description="Limit for the whole run.")
    bytes_per_second: int | None = Field(None, description="Limit for the whole run.")


class TargetAttributes(OwnAttributes, NamedAttributes, dg.Model):
    """Where rows go to."""

    store: str = Field(description="Name of a store.")
    table: str | None = Field(
        None,
        description="keyspace.table, or DynamoDB's table; default: the origin's name.",
    )
    consistency: str = Field("LOCAL_QUORUM", description="Consistency level of writes.")
    rows_per_second: int | None = Field(None, description="Limit for the whole run.")
    bytes_per_second: int | None = Field(None, description="Limit for the whole run.")


class ExplodeMapAttributes(NamedAttributes, dg.Model):
    """A map column whose entries become rows of their own."""

    column: str = Field(description="The origin's map column.")
    key: str = Field(description="The target's column for an entry's key, part of its key.")
    value: str = Field(description="The target's column for an entry's value.")


class ExtractJsonAttributes(NamedAttributes, dg.Model):
    """A text column that holds a JSON object, and where its properties go."""

    column: str = Field(description="The origin's text column.")
    properties: dict[str, str] = Field(description="Property to the target's column.")
    exclusive: bool = Field(
        default=False, description="Copy the key and these columns, nothing else."
    )
    overwrite: bool = Field(
        default=False,
        description="Whether a target column that holds another value is a difference.",
    )


class ColumnsAttributes(NamedAttributes, dg.Model):
    """How the target's columns come from the origin's."""

    rename: dict[str, str] = Field(
        default_factory=dict, description="The origin's column to the target's."
    )
    skip: list[str] = Field(
        default_factory=list, description="Columns of the origin that are not copied."
    )
    constants: Literally[dict[str, Any]] = Field(
        default_factory=dict, description="Columns of the target with one value in every row."
    )
    codecs: list[str] = Field(
        default_factory=list,
        description=f"Changes of type, each in both directions: {', '.join(CODECS)}.",
    )
    timestamp_format: str = Field(
        default=Columns.timestamp_format,
        description="Pattern of TIMESTAMP_STRING_FORMAT, as Java's DateTimeFormatter reads it.",
    )
    timestamp_zone: str = Field(
        default=Columns.timestamp_zone,
        description="Zone of that text, such as UTC or Europe/Berlin.",
    )
    explode_map: ExplodeMapAttributes | None = Field(
        default=None, description="A map column whose entries become rows of their own."
    )
    extract_json: ExtractJsonAttributes | None = Field(
        default=None, description="A JSON column whose properties become columns."
    )
    key_defaults: Literally[dict[str, Any]] = Field(
        default_factory=dict,
        description="Key columns of the target, and what stands in them for null.",
    )
    key_defaults_by_type: Literally[dict[str, Any]] = Field(
        default_factory=dict,
        description="The same for all key columns of a type that key_defaults does not name.",
    )
    unmatched: str = Field(
        default=Columns.unmatched,
        description="refuse columns that only the origin has, or skip them.",
    )


class ColumnFilterAttributes(NamedAttributes, dg.Model):
    """Rows that are left out by what one column shows."""

    name: str = Field(description="The origin's column.")
    value: str | int | float | bool = Field(
        description="Rows that show this are left out; case and outer blanks do not count."
    )


class FilterAttributes(NamedAttributes, dg.Model):
    """Which rows of the origin are copied; a row must pass all of it."""

    where: str | None = Field(
        default=None, description="CQL conditions joined by AND, which the server checks."
    )
    token_min: int = Field(default=MIN_TOKEN, description="Lowest token that is read.")
    token_max: int = Field(default=MAX_TOKEN, description="Highest token that is read.")
    coverage_percent: int = Field(
        default=100, description="How much of each token range is read, from its low end, 1 to 100."
    )
    writetime_from: Any = Field(
        default=None,
        description="Lowest writetime of a row: microseconds, or a time such as "
        "2026-01-01T00:00:00Z (UTC unless it says otherwise).",
    )
    writetime_to: Any = Field(
        default=None, description="Highest writetime of a row, in the same form."
    )
    column: ColumnFilterAttributes | None = Field(
        default=None, description="Rows to leave out by the value of a column."
    )


class RowMaxAttributes(NamedAttributes, dg.Model):
    """Which cells count for a row's one writetime and TTL."""

    writetime_columns: list[str] = Field(
        default_factory=list, description="Columns of the origin; default: all."
    )
    ttl_columns: list[str] = Field(
        default_factory=list, description="Columns of the origin; default: all."
    )
    collections: bool = Field(
        default=True,
        description="Whether unfrozen collections and user-defined types count, unless named.",
    )
    expiring_cells_only: bool = Field(
        default=False,
        description="Whether the longest TTL counts also where other cells live for ever.",
    )
    if_none_counts: str = Field(
        default=RowMax.if_none_counts,
        description="For a table of which no column counts: all others do, or with now rows are "
        "written with the present time and live for ever.",
    )


class GuardrailsAttributes(NamedAttributes, dg.Model):
    """What happens to rows with a large cell."""

    max_column_kb: int = Field(description="Size of a cell that is too large: 1 KB is 1000 bytes.")
    action: str = Field(default="report", description="report, skip the row, or fail the range.")


class DiffAttributes(NamedAttributes, dg.Model):
    """How both tables are compared."""

    mode: str = Field(
        default="two_way",
        description="two_way also finds rows that only the target has; or origin_only, which "
        "reads DynamoDB by the origin's keys and does not scan it.",
    )
    compare_writetime: bool = Field(
        default=False, description="Whether cells with equal values and other writetimes differ."
    )
    compare_form: bool = Field(
        default=False,
        description="Whether keys and elements differ that are equal for the server and whose "
        "bytes are not, such as the decimals 1.5 and 1.50.",
    )
    ignore_newer_than_seconds: int | None = Field(
        default=None,
        description="Rows written so shortly before the comparison are no differences: for tables "
        "that are written to meanwhile.",
    )
    read_units_per_second: int | None = Field(
        default=None, description="DynamoDB: limit of read units for the whole run."
    )
    repair: list[str] = Field(
        default_factory=list,
        description="What is put right where ranges differ: missing, mismatched, extra, counters.",
    )
    repair_writetime: str = Field(
        default="origin",
        description="origin keeps the origin's times; with now a repair wins over newer cells and "
        "tombstones at the target.",
    )


class DeadLettersAttributes(NamedAttributes, dg.Model):
    """What happens to rows that cannot be written."""

    max_rows: int = Field(
        default=0, description="How many rows of a range may be set aside before the range fails."
    )
    fail_run: bool = Field(
        default=True,
        description="Whether a run that set rows aside fails in the end, so that scripts notice. "
        "Its ranges stay green either way.",
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


class PlanConfig(dg.Config):
    """How thoroughly a plan is made."""

    rehearse: bool = Field(
        default=False, description="Read and convert every row, as a copy would, and write none."
    )


@dg.scaffold_with(TableMigrationScaffolder)
class TableMigration(dg.Component, dg.Model, NamedAttributes):
    """Copies a Cassandra table, range by range, and proves that it arrived.

    The target becomes an asset with one partition for each token range. Beside it stands a diff
    asset with each range's verdict, and checks give the verdict on the whole table.
    """

    origin: OriginAttributes = Field(description="Where rows come from.")
    target: TargetAttributes = Field(description="Where rows go to.")
    token_ranges: int = Field(64, description="Partitions of the asset, 1 to 1024.")
    ranges_per_run: str | int = Field("all", description="all, or so many ranges a run.")
    workers: int | None = Field(None, description="Processes of a run; default: one a core.")
    writetime: str | int | None = Field(
        None,
        description="cell keeps each cell's own, row_max gives the row's newest to all; now; or "
        "microseconds since 1970. Default: cell, in DynamoDB now.",
    )
    ttl: str | int | None = Field(
        None,
        description="cell keeps what is left of each cell's own, row_max gives the row's longest "
        "to all; none; or seconds. Default: cell, in DynamoDB none.",
    )
    writetime_increment_by: int = Field(
        0, description="Microseconds added to each writetime that is kept."
    )
    row_max: RowMaxAttributes = Field(
        default_factory=RowMaxAttributes,
        description="Which cells count for a row's one writetime and TTL; default: all.",
    )
    columns: ColumnsAttributes = Field(
        default_factory=ColumnsAttributes, description="Transformations of columns."
    )
    filter: FilterAttributes = Field(
        default_factory=FilterAttributes, description="Which rows are copied; default: all."
    )
    guardrails: GuardrailsAttributes | None = Field(None, description="Limits of a cell's size.")
    collisions: str = Field(
        "refuse",
        description="When several rows of the origin become one row of the target: refuse, or "
        "the newest or oldest wins.",
    )
    group_writes_by: list[str] | None = Field(
        None,
        description="Columns by which writes are grouped; default: the target's partition key.",
    )
    batch_across_partitions: bool | None = Field(
        None,
        description="Whether a request to Cassandra may hold rows of up to ten partitions that "
        "have the same replicas; default: true, unless group_writes_by is empty.",
    )
    truncate_target: bool = Field(False, description="Empty the target before a full copy.")
    diff: DiffAttributes = Field(default_factory=DiffAttributes, description="The comparison.")
    dead_letters: DeadLettersAttributes = Field(
        default_factory=DeadLettersAttributes, description="Rows that cannot be written."
    )
    tracking: bool = Field(
        default=True, description="Whether runs are tracked in cdm_run_info and cdm_run_details."
    )
    tracking_keyspace: str = Field(
        default=Migration.tracking_keyspace,
        description="Keyspace of those tables, made where it is missing: in the target's cluster, "
        "in the origin's if the target is DynamoDB.",
    )
    retry_seconds: float = Field(
        90.0, description="How long a request that failed for a passing reason is tried again."
    )
    events: EventsAttributes | None = Field(None, description="Kafka events.")
    schedule: str | None = Field(None, description="A cron line (UTC) for full copies.")
    owners: list[str] = Field(default_factory=list, description="E-mail or team:name of owners.")
    group: str = Field("migrations", description="Group of the assets in the UI.")

    def build_defs(
        self, context: dg.ComponentLoadContext, after: Sequence[dg.AssetKey] = ()
    ) -> dg.Definitions:
        """Build the assets, the checks, and the schedule and sensor where declared.

        The table is copied after the assets in `after`, where a run holds them, too.

        Raises:
            DeclarationError: one message with everything that is wrong.
        """
        kinds = kinds_of_stores(context.component_tree)
        self._check_stores(kinds)
        job = build_job(self.to_migration(kinds))
        assets: list[Any] = [
            build_ranged_assets(declared=self, job=job, after=after),
            build_plan_asset(declared=self, job=job),
            build_dead_letters_asset(declared=self, job=job),
        ]
        if self._describes_origin(job, context):
            assets.append(build_origin_asset(job=job, group=self.group))
        schedules, sensors = [], []
        if self.schedule:
            schedules.append(build_schedule(job=job, cron=self.schedule, per_run=self._per_run()))
        if self.events:
            sensors.append(build_ended_runs_sensor(job=job, events=self.events))
        return dg.Definitions(assets=assets, schedules=schedules, sensors=sensors)

    def to_migration(self, kinds: Mapping[str, str] | None = None) -> Migration:
        """Turn the attributes into a validated declaration.

        `kinds` are those of the project's stores; a store that is not among them is Cassandra.

        Raises:
            DeclarationError: one message with everything that is wrong.
        """
        wrong: list[str] = []
        kinds = kinds or {}
        kind = kinds.get(self.target.store, StoreDeclaration.kind)
        origin = _try(lambda: TableName.parse(self.origin.table), wrong)
        target = _try(lambda: name_target(kind, self.target.table, self.origin.table, wrong), wrong)
        wrong += [
            f"{', '.join(names)} mean something to {FORMS[other].title} only, but target.store "
            f"{self.target.store} is no {other} store; leave them out"
            for other, names in find_strangers(kind, self.target, self.diff)
        ]
        wrong += self.target.conflicts(self.columns.rename)
        chosen = self._filter(wrong)
        _try(self._per_run, wrong)
        migration = _try(
            lambda: self._migration(
                origin or TableName("unknown", "0"),
                target or TableName("unknown", "1"),
                chosen,
                self._declare(kinds.get(self.origin.store, StoreDeclaration.kind)),
                self._declare(kind),
            ),
            wrong,
        )
        if wrong or migration is None:
            raise DeclarationError("; ".join(dict.fromkeys(wrong)))
        return migration

    def _declare(self, kind: str) -> StoreDeclaration:
        """Give what is declared of a table that only its kind of store has."""
        form = FORMS.get(kind)
        if form is None:
            return kind_of(kind).declaration()
        return form.declare(self.target, self.diff, self.columns.rename)

    def _migration(
        self,
        origin: TableName,
        target: TableName,
        chosen: Filter,
        read: StoreDeclaration,
        written: StoreDeclaration,
    ) -> Migration:
        limits = self.guardrails
        both = read.abilities.cell_times and written.abilities.cell_times
        times = ("cell", "cell") if both else ("now", "none")
        return Migration(
            origin=Endpoint(
                store=self.origin.store,
                table=origin,
                consistency=self.origin.consistency,
                rows_per_second=self.origin.rows_per_second,
                bytes_per_second=self.origin.bytes_per_second,
                fetch_size=self.origin.fetch_size,
                finish_transactions=self.origin.finish_transactions,
                declared=read,
            ),
            target=Endpoint(
                store=self.target.store,
                table=target,
                consistency=self.target.consistency,
                rows_per_second=self.target.rows_per_second,
                bytes_per_second=self.target.bytes_per_second,
                declared=written,
            ),
            token_ranges=self.token_ranges,
            workers=self.workers,
            writetime=times[0] if self.writetime is None else _whole_or_word(self.writetime),
            ttl=times[1] if self.ttl is None else _whole_or_word(self.ttl),
            writetime_increment_by=self.writetime_increment_by,
            row_max=RowMax(
                writetime_columns=tuple(self.row_max.writetime_columns),
                ttl_columns=tuple(self.row_max.ttl_columns),
                collections=self.row_max.collections,
                expiring_cells_only=self.row_max.expiring_cells_only,
                if_none_counts=self.row_max.if_none_counts,
            ),
            columns=self._columns(),
            filter=chosen,
            guardrails=Guardrails(limits.max_column_kb, limits.action) if limits else None,
            collisions=self.collisions,
            group_writes_by=None if self.group_writes_by is None else tuple(self.group_writes_by),
            batch_across_partitions=self.batch_across_partitions,
            truncate_target=self.truncate_target,
            diff_mode=self.diff.mode,
            compare_writetime=self.diff.compare_writetime,
            compare_form=self.diff.compare_form,
            ignore_newer_than_seconds=self.diff.ignore_newer_than_seconds,
            repair=tuple(self.diff.repair),
            repair_writetime=self.diff.repair_writetime,
            dead_letters_max_rows=self.dead_letters.max_rows,
            dead_letters_fail_run=self.dead_letters.fail_run,
            tracking=self.tracking,
            tracking_keyspace=self.tracking_keyspace,
            retry_seconds=self.retry_seconds,
        )

    def _columns(self) -> Columns:
        declared, attributes = self.columns, self.target.attributes
        exploded, extracted = declared.explode_map, declared.extract_json
        renamed = {name: each.rename for name, each in attributes.items() if each.rename}
        dropped = [name for name, each in attributes.items() if each.drop]
        return Columns(
            rename={**declared.rename, **renamed},
            skip=tuple(dict.fromkeys((*declared.skip, *dropped))),
            constants=declared.constants,
            codecs=tuple(declared.codecs),
            timestamp_format=declared.timestamp_format,
            timestamp_zone=declared.timestamp_zone,
            explode_map=ExplodeMap(exploded.column, exploded.key, exploded.value)
            if exploded
            else None,
            extract_json=ExtractJson(
                column=extracted.column,
                properties=extracted.properties,
                exclusive=extracted.exclusive,
                overwrite=extracted.overwrite,
            )
            if extracted
            else None,
            key_defaults=declared.key_defaults,
            key_defaults_by_type=declared.key_defaults_by_type,
            unmatched=declared.unmatched,
        )

    def _filter(self, wrong: list[str]) -> Filter:
        declared = self.filter
        start, end = (
            _try(lambda name=name: _to_microseconds(name, getattr(declared, name)), wrong)
            for name in ("writetime_from", "writetime_to")
        )
        column = declared.column
        return Filter(
            where=declared.where,
            token_min=declared.token_min,
            token_max=declared.token_max,
            coverage_percent=declared.coverage_percent,
            writetime_from=start,
            writetime_to=end,
            column=ColumnFilter(column.name, _shown(column.value)) if column else None,
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

    def _check_stores(self, kinds: Mapping[str, str]) -> None:
        """Refuse stores of the wrong kind; stores that are declared otherwise, a run refuses."""
        needed: list[tuple[str, str, tuple[str, ...]]] = [
            ("origin", self.origin.store, origins()),
            ("target", self.target.store, targets()),
            *([("events", self.events.store, ("kafka",))] if self.events else []),
        ]
        wrong = [
            f"{attribute}.store is {name}, a {kinds[name]} store; valid are the "
            f"{' and '.join(valid)} stores "
            f"{', '.join(store for store in kinds if kinds[store] in valid)}"
            for attribute, name, valid in needed
            if kinds.get(name, valid[0]) not in valid
        ]
        if wrong:
            raise DeclarationError("; ".join(wrong))

    def _describes_origin(self, job: Job, context: dg.ComponentLoadContext) -> bool:
        """Say whether this migration is the one that describes its origin's asset.

        Several may read one origin, and an origin may be another migration's target.
        """
        others = context.component_tree.get_all_components(TableMigration)
        kinds = kinds_of_stores(context.component_tree)
        jobs = [build_job(other.to_migration(kinds)) for other in others]
        if any(other.target == job.origin for other in jobs):
            return False
        return job.target == next(
            (other.target for other in jobs if other.origin == job.origin), job.target
        )


def _try(build: Callable[[], _T], wrong: list[str]) -> _T | None:
    """Build a part; what is wrong with it is told together with the rest."""
    try:
        return build()
    except DeclarationError as error:
        wrong.append(str(error))
        return None


def _whole_or_word(value: str | int) -> str | int:
    """Read digits as a number: a value from the environment is always text."""
    is_whole = isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,40}", value.strip())
    return int(value) if is_whole else value


def _to_microseconds(name: str, value: Any) -> int | None:
    """Read microseconds since 1970, a time or a date; a time without a zone is UTC."""
    if isinstance(value, str):
        value = _whole_or_word(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip())
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, datetime):
            moment = value if value.tzinfo else value.replace(tzinfo=UTC)
            return (moment - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        pass
    raise DeclarationError(
        f"filter.{name} is {str(value)[:80]!r}; write microseconds since 1970, or a time such as "
        "2026-01-01T00:00:00Z"
    )


def _shown(value: str | float | bool) -> str:
    """Write a value as CQL shows it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def build_job(migration: Migration) -> Job:
    """Give a migration its Dagster names: store, keyspace if there is one, and table."""
    target = asset_key(migration.target)
    return Job(
        migration=migration,
        origin=asset_key(migration.origin),
        target=target,
        diff=dg.AssetKey([*target.path[:-1], f"{target.path[-1]}_diff"]),
        plan=dg.AssetKey([*target.path[:-1], f"{target.path[-1]}_plan"]),
        letters=dg.AssetKey([*target.path[:-1], f"{target.path[-1]}_dead_letters"]),
        partitions=dg.StaticPartitionsDefinition([r.key for r in migration.ranges]),
    )


def asset_key(endpoint: Endpoint) -> dg.AssetKey:
    """Name a table's asset; characters that Dagster's selections cannot hold become `_`."""
    parts = (endpoint.store, endpoint.table.keyspace, endpoint.table.table)
    return dg.AssetKey(asset_path(parts))


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
    *, declared: TableMigration, job: Job, after: Sequence[dg.AssetKey] = ()
) -> dg.AssetsDefinition:
    """Build the target, its diff and its checks, made by one step."""
    migration = job.migration
    per_run = declared._per_run()
    common: dict[str, Any] = {
        "partitions_def": job.partitions,
        "group_name": declared.group,
        "owners": declared.owners,
        "kinds": {migration.target.kind},
        # Each range's event is written as it ends; the step itself returns none.
        "skippable": True,
    }
    store_names = {migration.origin.store, migration.target.store}
    if declared.events:
        store_names.add(declared.events.store)

    checks = describe_checks(migration)

    @dg.multi_asset(
        name=_name(job),
        specs=[
            dg.AssetSpec(
                job.target,
                deps=[job.origin, *after],
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
            events=_event_settings(declared.events, context.resources),
            truncate_target=config.truncate_target,
            resume=config.resume,
            run_id=config.run_id,
            split_pending=config.split_pending,
        )

    return migrate


def build_plan_asset(*, declared: TableMigration, job: Job) -> dg.AssetsDefinition:
    """Build the asset that says what a copy would do, and does none of it."""
    migration = job.migration

    @dg.asset(
        key=job.plan,
        deps=[job.origin],
        group_name=declared.group,
        owners=declared.owners,
        kinds={"cassandra"},
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
        )

    return plan


def build_dead_letters_asset(*, declared: TableMigration, job: Job) -> dg.AssetsDefinition:
    """Build the asset that copies the rows that were set aside."""
    migration = job.migration

    @dg.asset(
        key=job.letters,
        deps=[job.target],
        group_name=declared.group,
        owners=declared.owners,
        kinds={"cassandra"},
        description=(
            f"The rows of `{migration.origin.table}` that could not be written and were set aside. "
            "Materializing it reads them again by their keys and writes them under the present "
            "declaration; what arrives, or is gone at the origin, is set aside no longer."
        ),
        required_resource_keys={migration.origin.store, migration.target.store},
    )
    def dead_letters(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return replay_letters(
            context,
            job,
            origin=find_side(context.resources, migration.origin),
            target=find_side(context.resources, migration.target),
        )

    return dead_letters


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
        kafka=find_store(resources, events.store, KafkaResource).to_settings(),
        topic=events.topic,
        job_log_topic=events.job_log_topic,
        job=events.job_name,
    )


def find_store(resources: Any, name: str, kind: type) -> Any:
    """Give a store of a run.

    Raises:
        DeclarationError: it is of another kind than is needed.
    """
    store = getattr(resources, name)
    if not isinstance(store, kind):
        raise DeclarationError(
            f"the store {name} is a {type(store).__name__}, but a {kind.__name__} is needed here"
        )
    return store


def find_side(resources: Any, endpoint: Endpoint) -> Resource:
    """Give the store of one side of a run.

    Raises:
        DeclarationError: it is of another kind than is declared.
    """
    store = getattr(resources, endpoint.store)
    if getattr(store, "kind", None) != endpoint.kind:
        raise DeclarationError(
            f"the store {endpoint.store} is a {type(store).__name__}, but a store of the kind "
            f"{endpoint.kind} is needed here"
        )
    return store


def _name(job: Job) -> str:
    """Name the step: letters, digits and underscores only."""
    return step_name(job.target.path)


def _describe_target(declared: TableMigration, job: Job) -> str:
    migration = job.migration
    limits = [
        f"{limit:,} {unit}/s at the {side}"
        for side, endpoint in (("origin", migration.origin), ("target", migration.target))
        for limit, unit in (
            (endpoint.rows_per_second, "rows"),
            (endpoint.size_per_second, endpoint.size_unit),
        )
        if limit
    ]
    lines = [
        f"`{migration.target.table}` in `{migration.target.store}`, copied from "
        f"`{migration.origin.table}` in `{migration.origin.store}`.",
        "",
        f"- **Ranges**: {migration.token_ranges}, by the token of the origin's partition key",
        *migration.target.declared.describe(migration),
        f"- **Comparison**: `{migration.diff_mode}`",
    ]
    lines += _describe_changes(migration)
    if limits:
        lines.append(f"- **Limits**: {', '.join(limits)}")
    if migration.truncate_target:
        lines.append("- **Empties the target** before a copy of all ranges")
    if declared.events:
        lines.append(f"- **Events**: topic `{declared.events.topic}` in `{declared.events.store}`")
    return "\n".join(lines)


def _describe_changes(migration: Migration) -> list[str]:
    """Say what is not a copy of every row as it is."""
    columns, chosen, limits = migration.columns, migration.filter, migration.guardrails
    exploded, extracted = columns.explode_map, columns.extract_json
    changes = {
        "Renamed": ", ".join(f"`{a}` to `{b}`" for a, b in columns.rename.items()),
        "Not copied": ", ".join(
            [f"`{name}`" for name in columns.skip]
            + ["what only the origin has"] * (columns.unmatched == "skip")
        ),
        "Constants": ", ".join(f"`{name}`" for name in columns.constants),
        "Codecs": ", ".join(f"`{name}`" for name in columns.codecs),
        "A row for each entry": f"of `{exploded.column}`" if exploded else "",
        "JSON": f"`{extracted.column}` gives " + ", ".join(extracted.properties.values())
        if extracted
        else "",
        "Null in a key": ", ".join(
            [f"`{name}`" for name in columns.key_defaults]
            + [f"any {cql_type}" for cql_type in columns.key_defaults_by_type]
        ),
        "Only rows": f"`{chosen.where}`" if chosen.where else "",
        "Only tokens": f"{chosen.token_min} to {chosen.token_max}"
        if (chosen.token_min, chosen.token_max) != (MIN_TOKEN, MAX_TOKEN)
        else "",
        "Only a sample": f"the low {chosen.coverage_percent} % of each range"
        if chosen.coverage_percent < 100
        else "",
        "Only writetimes": f"{chosen.writetime_from or 'any'} to {chosen.writetime_to or 'any'}"
        if chosen.by_writetime
        else "",
        "Left out": f"rows whose `{chosen.column.name}` is `{chosen.column.value}`"
        if chosen.column
        else "",
        "Cells over": f"{limits.max_column_kb} KB: {limits.action}" if limits else "",
        "Rows that become one": f"the {migration.collisions} wins"
        if migration.collisions != "refuse"
        else "",
        "Repairs": ", ".join(migration.repair)
        + (" at the time of the repair" if migration.repair_writetime == "now" else ""),
        "Rows set aside": f"up to {migration.dead_letters_max_rows:,} a range"
        + (", and the run fails" if migration.dead_letters_fail_run else "")
        if migration.dead_letters_max_rows
        else "",
    }
    return [f"- **{name}**: {text}" for name, text in changes.items() if text]
