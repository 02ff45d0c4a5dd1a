"""The component that declares the migration of one table."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field

from migration_platform.components.declared import Declared, tells_all, whole
from migration_platform.components.scaffolds import TableMigrationScaffolder
from migration_platform.components.stores import find_unknown_stores, kinds_of_stores
from migration_platform.components.table.assets import (
    build_dead_letters_asset,
    build_origin_asset,
    build_plan_asset,
    build_ranged_assets,
)
from migration_platform.components.table.attributes import (
    ColumnsAttributes,
    DeadLettersAttributes,
    DiffAttributes,
    EventsAttributes,
    FilterAttributes,
    GuardrailsAttributes,
    OriginAttributes,
    RowMaxAttributes,
    TargetAttributes,
)
from migration_platform.components.table.automation import build_ended_runs_sensor, build_schedule
from migration_platform.components.table.filtering import build_filter, whole_or_word
from migration_platform.components.table.kinds import FORMS, find_strangers, name_target
from migration_platform.components.table.naming import build_job
from migration_platform.components.table.reporting import Job
from migration_platform.components.table.sync_asset import build_sync_asset, build_sync_job
from migration_platform.components.table.sync_attributes import SyncAttributes, declare_sync
from migration_platform.components.table.sync_circles import find_way, refuse_circle
from migration_platform.components.table.sync_sensor import build_sync_sensor
from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.filters import Filter
from migration_platform.declaration.migration import Endpoint, Guardrails, Migration
from migration_platform.declaration.stores import StoreDeclaration
from migration_platform.declaration.sync import Sync
from migration_platform.declaration.times import RowMax
from migration_platform.errors import DeclarationError
from migration_platform.stores.kinds import BUILT_IN, kind_of, origins, targets

_T = TypeVar("_T")


@dg.scaffold_with(TableMigrationScaffolder)
class TableMigration(Declared):
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
        default_factory=ColumnsAttributes, description="How columns are transformed."
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
    diff: DiffAttributes = Field(
        default_factory=DiffAttributes, description="How both tables are compared."
    )
    dead_letters: DeadLettersAttributes = Field(
        default_factory=DeadLettersAttributes,
        description="What becomes of rows that cannot be written.",
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
    events: EventsAttributes | None = Field(
        None, description="Where a run sends its events: a Kafka store and a topic."
    )
    sync: SyncAttributes | None = Field(
        None, description="How the target follows the origin after a full copy."
    )
    schedule: str | None = Field(None, description="A cron line (UTC) for full copies.")
    owners: list[str] = Field(default_factory=list, description="E-mail or team:name of owners.")
    group: str = Field("migrations", description="Group of the assets in the UI.")

    @tells_all
    def build_defs(
        self, context: dg.ComponentLoadContext, after: Sequence[dg.AssetKey] = ()
    ) -> dg.Definitions:
        """Build the assets, the checks, and the schedule and sensor where declared.

        The table is copied after the assets in `after`, where a run holds them, too.

        Raises:
            DeclarationError: one message with everything that is wrong.
        """
        kinds = kinds_of_stores(context.component_tree)
        self._check_stores(
            kinds, find_unknown_stores(self._stores(), kinds, context.component_tree)
        )
        job = build_job(self.to_migration(kinds))
        others = find_jobs(context.component_tree, kinds)
        self._refuse_equal_targets(job, others)
        refuse_circle(context.component_tree, job.migration, self.place)
        assets: list[Any] = [
            build_ranged_assets(
                job=job,
                group=self.group,
                owners=self.owners,
                events=self.events,
                declared={
                    "type": "migration_platform.TableMigration",
                    "attributes": self.model_dump(mode="json", exclude_unset=True),
                },
                per_run=self._per_run(),
                after=after
                if _closes_circle(job, [its for _, its in others])
                else (job.origin, *after),
            ),
            build_plan_asset(job=job, group=self.group, owners=self.owners),
            build_dead_letters_asset(job=job, group=self.group, owners=self.owners),
        ]
        if _describes_origin(job, [other for _, other in others]):
            assets.append(build_origin_asset(job=job, group=self.group))
        schedules, sensors, jobs = [], [], []
        if self.schedule:
            schedules.append(build_schedule(job=job, cron=self.schedule, per_run=self._per_run()))
        if self.events:
            sensors.append(build_ended_runs_sensor(job=job, events=self.events))
        if job.sync is not None:
            assets.append(build_sync_asset(job=job, group=self.group, owners=self.owners))
            jobs.append(build_sync_job(job))
            sensors.append(build_sync_sensor(job=job, assets_job=jobs[0]))
        return dg.Definitions(assets=assets, jobs=jobs, schedules=schedules, sensors=sensors)

    def find_followed(self, store: str, table: TableName) -> tuple[str, TableName] | None:
        """Give where a synchronisation of this declaration takes a table, None if nowhere."""
        if self.sync is None or not self.sync.enabled or self.origin.store != store:
            return None
        if TableName.parse(self.origin.table) != table:
            return None
        return self.target.store, TableName.parse(self.target.table or self.origin.table)

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
        target = _try(lambda: name_target(kind, self.target.table, self.origin.table), wrong)
        wrong += [
            f"{', '.join(names)} mean something to {FORMS[other].title} only, but target.store "
            f"{self.target.store} is no {other} store; leave them out"
            for other, names in find_strangers(kind, self.target, self.diff)
        ]
        wrong += self.target.conflicts(self.columns.rename)
        wrong += self.events.conflicts() if self.events else []
        chosen = build_filter(self.filter, wrong)
        _try(self._per_run, wrong)
        known = origin or TableName("unknown", "0")
        sync = _try(lambda: declare_sync(self.sync, known), wrong)
        migration = _try(
            lambda: self._migration(
                known,
                target or TableName("unknown", "1"),
                chosen,
                sync,
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
        sync: Sync | None,
        read: StoreDeclaration,
        written: StoreDeclaration,
    ) -> Migration:
        limits = self.guardrails
        both = read.abilities.cell_times and written.abilities.cell_times
        times = ("cell", "cell") if both else ("now", "none")
        return Migration(
            origin=self._origin(origin, read),
            target=self._target(target, written),
            token_ranges=self.token_ranges,
            workers=self.workers,
            writetime=times[0] if self.writetime is None else whole_or_word(self.writetime),
            ttl=times[1] if self.ttl is None else whole_or_word(self.ttl),
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
            sync=sync,
        )

    def _origin(self, table: TableName, declared: StoreDeclaration) -> Endpoint:
        return Endpoint(
            store=self.origin.store,
            table=table,
            consistency=self.origin.consistency,
            rows_per_second=self.origin.rows_per_second,
            bytes_per_second=self.origin.bytes_per_second,
            fetch_size=self.origin.fetch_size,
            finish_transactions=self.origin.finish_transactions,
            declared=declared,
        )

    def _target(self, table: TableName, declared: StoreDeclaration) -> Endpoint:
        return Endpoint(
            store=self.target.store,
            table=table,
            consistency=self.target.consistency,
            rows_per_second=self.target.rows_per_second,
            bytes_per_second=self.target.bytes_per_second,
            declared=declared,
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

    def _stores(self) -> dict[str, str]:
        """Give the stores that are used, by the attributes that name them."""
        sides = {"origin.store": self.origin.store, "target.store": self.target.store}
        for_events = {
            f"events.{attribute}": name
            for attribute in ("store", "job_log_store")
            if (name := getattr(self.events, attribute, None))
        }
        followed = self.sync and self.sync.enabled and self.sync.kafka
        return sides | for_events | ({"sync.kafka.store": followed.store} if followed else {})

    def _check_stores(self, kinds: Mapping[str, str], unknown: Sequence[str]) -> None:
        """Refuse stores that are unknown or of the wrong kind, with all else if that is known."""
        fit = {"origin.store": origins(), "target.store": targets()}
        needed = [
            (attribute, name, fit.get(attribute, ("kafka",)))
            for attribute, name in self._stores().items()
        ]
        # Kinds from outside are worth a word where the project has such a store.
        known = {*BUILT_IN, "kafka", *kinds.values()}
        wrong = [
            f"{attribute} is {name}, a {kinds[name]} store; valid are the "
            f"{' and '.join(kind for kind in valid if kind in known)} stores "
            f"{', '.join(store for store in kinds if kinds[store] in valid)}"
            for attribute, name, valid in needed
            if name in kinds and kinds[name] not in valid
        ]
        if unknown and not wrong:
            _try(lambda: self.to_migration(kinds), wrong)
        if unknown or wrong:
            raise DeclarationError("; ".join([*unknown, *wrong]))

    def _refuse_equal_targets(self, job: Job, others: list[tuple["TableMigration", Job]]) -> None:
        """Refuse a target that another declaration has, too.

        Raises:
            DeclarationError: there is one; its file is named.
        """
        equal = [
            other.place
            for other, its in others
            if self._context is not None and other is not self and its.target == job.target
        ]
        if equal:
            raise DeclarationError(
                f"{job.target.to_user_string()} is the target of {' and '.join(equal)}, too; give "
                "one of them another target, or remove it"
            )


def find_jobs(tree: dg.ComponentTree, kinds: Mapping[str, str]) -> list[tuple[TableMigration, Job]]:
    """Give the migrations of single tables that a project declares; those that are wrong tell it.

    Several may read one origin, and an origin may be another migration's target.
    """
    found = []
    for declared in whole(tree, TableMigration):
        with suppress(DeclarationError):
            found.append((declared, build_job(declared.to_migration(kinds))))
    return found


def _describes_origin(job: Job, jobs: Sequence[Job]) -> bool:
    """Say whether this migration is the one that describes its origin's asset."""
    if any(other.target == job.origin for other in jobs):
        return False
    return job.target == next(
        (other.target for other in jobs if other.origin == job.origin), job.target
    )


def _closes_circle(job: Job, jobs: Sequence[Job]) -> bool:
    """Say whether this migration is the one of a circle that is not shown to depend on its origin.

    After a cutover a second declaration leads back, and Dagster knows no circles of assets.
    """

    def leaving(here: dg.AssetKey) -> Iterator[tuple[dg.AssetKey, dg.AssetKey]]:
        return ((other.target, other.target) for other in jobs if other.origin == here)

    way = find_way(job.target, job.origin, leaving, operator.eq)
    return way is not None and job.target == max((job.target, *way))


def _try(build: Callable[[], _T], wrong: list[str]) -> _T | None:
    """Build a part; what is wrong with it is told together with the rest."""
    try:
        return build()
    except DeclarationError as error:
        wrong.append(str(error))
        return None
