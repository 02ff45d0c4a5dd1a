"""The component that declares the migration of a whole keyspace.

Which tables there are is kept as Dagster's defs state: definitions load without any database, and
`dg utils refresh-defs-state` asks the origin anew. The state holds names of tables, nothing else.
"""

import asyncio
import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)
from dagster._core.storage.defs_state.base import DefsStateStorage
from dagster._utils.env import using_dagster_dev
from dagster.components.component.state_backed_component import StateBackedComponent
from dagster.components.utils.defs_state import (
    DefsStateConfig,
    DefsStateConfigArgs,
    ResolvedDefsStateConfig,
)
from dagster_shared.serdes.objects.models.defs_state_info import DefsStateManagementType
from pydantic import BaseModel, Field, PrivateAttr

from migration_platform.components.declared import (
    Declared,
    tells_all,
    whole,
)
from migration_platform.components.keyspace.assets import build_keyspace_assets
from migration_platform.components.keyspace.attributes import (
    ForAllTables,
    OriginKeyspaceAttributes,
    TableAttributes,
    TargetKeyspaceAttributes,
)
from migration_platform.components.keyspace.cutover import MovedTable
from migration_platform.components.keyspace.declared import REFRESH, KnownTables
from migration_platform.components.scaffolds import KeyspaceMigrationScaffolder
from migration_platform.components.stores import (
    find_unknown_stores,
    kinds_of_stores,
    read_settings,
)
from migration_platform.components.table.migration import TableMigration, find_jobs
from migration_platform.components.table.naming import build_job
from migration_platform.components.table.reporting import Job
from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.step_names import asset_path, step_name
from migration_platform.errors import DeclarationError, MigrationError, PreflightError
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.schema import KeyspaceSchema, read_schema
from migration_platform.stores.cassandra.schema_creation import CREATABLE
from migration_platform.stores.cassandra.schema_differences import Difference
from migration_platform.stores.cassandra.wanted_schema import Wanted, change_table


@dg.scaffold_with(KeyspaceMigrationScaffolder)
class KeyspaceMigration(StateBackedComponent, ForAllTables, Declared):
    """Copies all tables of a keyspace, creates what is missing of its schema, and proves both.

    Each table becomes what a TableMigration makes of it. Before them stands an asset that creates
    the target's keyspace, types and tables, and behind them a cutover that is green only when every
    check of every table is. `dg utils refresh-defs-state` looks for new tables.
    """

    origin: OriginKeyspaceAttributes = Field(description="Where tables come from.")  # type: ignore[valid-type]
    target: TargetKeyspaceAttributes = Field(description="Where tables go to.")  # type: ignore[valid-type]
    include: list[str] = Field(
        default_factory=lambda: ["*"],
        description="Tables by name or shell pattern, such as [orders, 'item_*']; default: all.",
    )
    exclude: list[str] = Field(
        default_factory=list, description="Tables that are left out, by name or shell pattern."
    )
    create: list[str] = Field(
        default_factory=lambda: list(CREATABLE),
        description="What may be created where it is missing: keyspace, types, tables; default: "
        "all of these. Nothing that exists is ever changed.",
    )
    replication: dict[str, Any] | None = Field(
        None,
        description="Replication of a keyspace that is created, such as {class: "
        "NetworkTopologyStrategy, dc1: 3}; default: the origin's.",
    )
    tables: dict[str, TableAttributes] = Field(  # type: ignore[valid-type]
        default_factory=dict,
        description="What differs for single tables: any attribute of a TableMigration, and "
        "another key at the target.",
    )
    group: str | None = Field(
        None, description="Group of the assets in the UI; default: the target keyspace's name."
    )
    defs_state: ResolvedDefsStateConfig = Field(
        default_factory=lambda: DefsStateConfigArgs(
            management_type=DefsStateManagementType.LOCAL_FILESYSTEM, refresh_if_dev=False
        ),
        description="Where the list of tables is kept; default: in the project's folder.",
    )
    _tree: dg.ComponentTree | None = PrivateAttr(None)
    _found: dict[str, Any] | None = PrivateAttr(None)

    # -- the list of tables --------------------------------------------------------------------

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Load the declaration, and remember the project: a refresh looks its stores up there."""
        loaded = super().load(attributes, context)
        loaded._tree = context.component_tree
        return loaded

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """Say under which key the list of tables is kept."""
        if not self.is_whole:
            # Dagster asks as soon as it is loaded; nothing is ever kept there.
            return DefsStateConfig.from_args(self.defs_state, default_key="KeyspaceMigration")
        return DefsStateConfig.from_args(
            self.defs_state,
            default_key=f"KeyspaceMigration[{self.origin_name}->{self.target_name}]",
        )

    @property
    def origin_name(self) -> str:
        """The origin as messages name it."""
        return f"{self.origin.store}.{self.origin.keyspace}"

    @property
    def target_name(self) -> str:
        """The target as messages name it."""
        return f"{self.target.store}.{self.target_keyspace}"

    @property
    def target_keyspace(self) -> str:
        """The keyspace at the target."""
        return self.target.keyspace or self.origin.keyspace

    async def refresh_state(self, project_root: Path) -> str:
        """Ask the origin for its tables, and keep their names; what was kept stays if that fails.

        Raises:
            MigrationError: the origin cannot be asked, or the declaration names unknown tables.
        """
        # Before anything is written: the framework removes the old state first.
        self._found = await asyncio.to_thread(self._discover)
        return await super().refresh_state(project_root)

    def write_state_to_path(self, state_path: Path) -> None:
        """Write the list of tables that was just found."""
        state_path.write_text(json.dumps(self._found or self._discover(), indent=2))

    def _discover(self) -> dict[str, Any]:
        assert self._tree is not None
        with Connection(read_settings(self._tree, self.origin.store)) as connection:
            schema = self.read_origin(connection)
        found = {
            "origin": self.origin_name,
            "tables": sorted(schema.tables),
            "views": sorted(schema.views),
        }
        self._choose(found)
        return found

    def read_origin(self, connection: Connection) -> KeyspaceSchema:
        """Read the origin's schema.

        Raises:
            PreflightError: there is no such keyspace.
        """
        schema = read_schema(connection, self.origin.keyspace)
        if schema is None:
            raise PreflightError(
                f"there is no keyspace {quote(self.origin.keyspace)} at {connection.settings}"
            )
        return schema

    def _choose(self, found: Mapping[str, Any]) -> list[str]:
        """Give the tables that are migrated.

        Raises:
            DeclarationError: a name that is none of the tables; the message has what is valid.
        """
        known, views = found["tables"], found["views"]
        valid = f"valid are {', '.join(known) or 'none: the keyspace has no tables'}"
        wrong = []
        for attribute, names in (
            ("include", self.include),
            ("exclude", self.exclude),
            ("tables", list(self.tables)),
        ):
            for name in names:
                is_pattern = attribute != "tables" and bool(re.search(r"[*?\[]", name))
                if is_pattern and (attribute == "exclude" or name == "*"):
                    continue
                if any(
                    fnmatchcase(table, name) if is_pattern else table == name for table in known
                ):
                    continue
                if name in views:
                    wrong.append(
                        f"{attribute} names {name}, which is a materialized view: views are not "
                        "migrated, create it at the target"
                    )
                    continue
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                wrong.append(
                    f"{attribute} names {name}, which matches no table of {self.origin_name}: "
                    f"{hint}{valid}"
                )
        chosen = self.select(known)
        for name in self.tables:
            if name in known and name not in chosen:
                wrong.append(f"tables names {name}, which include and exclude leave out")
        if wrong:
            raise DeclarationError(
                "; ".join(wrong) + f" (a table that is newer: run `{REFRESH}` first)"
            )
        return chosen

    def select(self, names: Iterable[str]) -> list[str]:
        """Give the tables that include and exclude let through."""
        return [
            name
            for name in names
            if any(fnmatchcase(name, pattern) for pattern in self.include)
            and not any(fnmatchcase(name, pattern) for pattern in self.exclude)
        ]

    # -- definitions ---------------------------------------------------------------------------

    @tells_all
    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the definitions from the list that is kept; no database is needed for that.

        Under `dg` and `dagster dev` a list that is not there yet is looked up. Where that fails,
        the definitions load all the same, with what is known.
        """
        self._check_declaration(context.component_tree)
        loading, storage = DefinitionsLoadContext.get(), DefsStateStorage.get()
        config, root = self.defs_state_config, context.project_root
        if loading.load_type == DefinitionsLoadType.INITIALIZATION and using_dagster_dev():
            with loading.state_path(config, storage, root) as path:
                wanted = path is None or config.refresh_if_dev
            if wanted:
                try:
                    loading.add_defs_state_info(config.key, asyncio.run(self.refresh_state(root)))
                except MigrationError as error:
                    dg.get_dagster_logger().warning(
                        f"the tables of {self.origin_name} could not be looked up: {error}"
                    )
        if storage and loading.get_defs_key_state_info(config.key) is None:
            # `dg launch` hands no version to the run that it executes.
            latest = storage.get_latest_version(config.key)
            if latest:
                loading.add_defs_state_info(config.key, latest)
        with loading.state_path(config, storage, root) as path:
            return self.build_defs_from_state(context, path)

    def find_mistakes(self) -> Sequence[str]:
        """Say what is wrong with the declaration; no tables are looked up for that."""
        unfit = self.find_unfit()
        if self._wrong or self._tree is None:
            return unfit
        try:
            self._check_declaration(self._tree)
        except DeclarationError as error:
            return [*unfit, str(error)]
        return unfit

    def _check_declaration(self, tree: dg.ComponentTree) -> None:
        kinds = kinds_of_stores(tree)
        named = {"origin.store": self.origin.store, "target.store": self.target.store}
        wrong = find_unknown_stores(named, kinds, tree)
        wrong += [
            f"{attribute} is {name}, a {kinds[name]} store, but a keyspace is copied between "
            "cassandra stores; a table that goes to DynamoDB is a TableMigration of its own"
            for attribute, name in named.items()
            if kinds.get(name, "cassandra") != "cassandra"
        ]
        unknown = [word for word in self.create if word not in CREATABLE]
        if unknown:
            wrong.append(f"create names {', '.join(unknown)}; valid are {', '.join(CREATABLE)}")
        if self.origin_name == self.target_name:
            wrong.append("origin and target are the same keyspace of one store")
        if self.replication is not None and "class" not in self.replication:
            wrong.append(
                "replication names no class; write it as {class: NetworkTopologyStrategy, dc1: 3}"
            )
        if self.defs_state.management_type == DefsStateManagementType.LEGACY_CODE_SERVER_SNAPSHOTS:
            wrong.append(
                "defs_state.management_type must be LOCAL_FILESYSTEM or VERSIONED_STATE_STORAGE: "
                "the definitions must load without a database"
            )
        if wrong:
            raise DeclarationError("; ".join(wrong))

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        """Build what each table needs, the schema asset before them, the cutover behind them.

        Raises:
            DeclarationError: one message with everything that is wrong.
        """
        found = json.loads(state_path.read_text()) if state_path else None
        names = self._choose(found) if found else []
        parts, wrong = {}, []
        for name in names:
            try:
                part = self.to_table_migration(name)
                parts[name] = (part, build_job(part.to_migration()))
            except DeclarationError as error:
                wrong.append(f"tables.{name}: {error}")
        if wrong:
            raise DeclarationError("; ".join(wrong))
        clashes = self._clashes({name: job for name, (_, job) in parts.items()}, context)
        describes_origin = self._describes_origin(context)
        moved, built = [], []
        for name, (part, job) in parts.items():
            if name in clashes:
                continue
            defs = part.build_defs(context, after=[self.schema_key])
            assets = [
                asset
                for asset in dg.map_asset_specs(self._place, defs.assets or ())  # type: ignore[arg-type]
                if describes_origin or not isinstance(asset, dg.AssetSpec)
            ]
            checks = tuple(
                key
                for one in (*assets, *(defs.asset_checks or ()))
                if isinstance(one, dg.AssetsDefinition)
                for key in one.check_keys
            )
            moved.append(MovedTable(name, job, checks))
            built.append(
                dg.Definitions(
                    assets=assets,
                    asset_checks=defs.asset_checks,
                    jobs=defs.jobs,
                    schedules=defs.schedules,
                    sensors=defs.sensors,
                )
            )
        known = KnownTables(tuple(found["tables"]) if found else None, tuple(moved), clashes)
        return dg.Definitions.merge(*built, build_keyspace_assets(self, known))

    def _place(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Put beside the group what is not done range by range.

        So the group is what one launch with one range of partitions copies.
        """
        if spec.partitions_def is None:
            return spec.replace_attributes(group_name=f"{self.asset_group}_details")
        return spec

    def _describes_origin(self, context: dg.ComponentLoadContext) -> bool:
        """Say whether this declaration describes the origin's assets: only one of several may."""
        declared = whole(context.component_tree, KeyspaceMigration)
        if any(other.target_name == self.origin_name for other in declared):
            return False
        return self.target_name == next(
            other.target_name for other in declared if other.origin_name == self.origin_name
        )

    def _clashes(self, jobs: Mapping[str, Job], context: dg.ComponentLoadContext) -> dict[str, str]:
        """Find tables whose assets would have the name of others', and say so.

        Raises:
            DeclarationError: another component migrates the same table to the same place.
        """
        tree = context.component_tree
        others = {job.target for _, job in find_jobs(tree, kinds_of_stores(tree))}
        twice = [name for name, job in jobs.items() if job.target in others]
        if twice:
            raise DeclarationError(
                f"a TableMigration of this project migrates {', '.join(twice)} to "
                f"{self.target_name}, too: exclude it here and keep that, or move what it says "
                "to tables"
            )
        steps = Counter(step_name(key.path) for job in jobs.values() for key in _keys(job))
        clashes = {}
        for name, job in jobs.items():
            # Of orders and orders_diff the longer one steps back.
            if steps[step_name(job.target.path)] > 1:
                clashes[name] = (
                    f"it is not migrated, for its asset {job.target.to_user_string()} would have "
                    "the name of another table's asset: give it another name at the target with "
                    f"tables.{name}.target.table, or exclude it"
                )
        return clashes

    def to_table_migration(self, name: str) -> TableMigration:
        """Give the declaration of one table: what holds for all, and what differs for it."""
        own: dict[str, Any] = {}
        if name in self.tables:
            own = self.tables[name].model_dump(exclude_none=True)
        shared = {field: getattr(self, field) for field in ForAllTables.model_fields}
        shared = {
            field: value.model_dump() if isinstance(value, BaseModel) else value
            for field, value in shared.items()
        }
        sides = {
            side: {k: v for k, v in getattr(self, side).model_dump().items() if k != "keyspace"}
            for side in ("origin", "target")
        }
        merged = _merge({**shared, **sides, "group": self.asset_group}, own)
        merged.pop("partition_key", None)
        merged.pop("clustering_columns", None)
        merged["origin"]["table"] = str(TableName(self.origin.keyspace, name))
        merged["target"]["table"] = str(TableName(self.target_keyspace, self.name_at_target(name)))
        return TableMigration(**merged)

    def find_followed(self, store: str, table: TableName) -> tuple[str, TableName] | None:
        """Give where a synchronisation of this declaration takes a table, None if nowhere."""
        if (store, table.keyspace) != (self.origin.store, self.origin.keyspace):
            return None
        if not self.select([table.table]):
            return None
        sync = self.to_table_migration(table.table).sync
        if sync is None or not sync.enabled:
            return None
        there = TableName(self.target_keyspace, self.name_at_target(table.table))
        return self.target.store, there

    def name_at_target(self, name: str) -> str:
        """Give the name that a table has at the target."""
        own = self.tables.get(name)
        return (own.target.table if own and own.target else None) or name

    @property
    def asset_group(self) -> str:
        """The group that holds what a launch copies."""
        return self.group or re.sub(r"[^A-Za-z0-9_]", "_", self.target_keyspace)

    @property
    def schema_key(self) -> dg.AssetKey:
        """Name the schema's asset; no table's key has two parts."""
        return self._key("schema")

    @property
    def cutover_key(self) -> dg.AssetKey:
        """Name the asset of the cutover."""
        return self._key("cutover")

    def _key(self, what: str) -> dg.AssetKey:
        parts = (self.target.store, f"{self.target_keyspace}_{what}")
        return dg.AssetKey(asset_path(parts))

    # -- schemas -------------------------------------------------------------------------------

    def want(
        self, here: KeyspaceSchema, names: Iterable[str]
    ) -> tuple[list[Wanted], list[Difference]]:
        """Say what each table is to be at the target, and which declaration does not fit it."""
        wanted, wrong = [], []
        for name in names:
            table, own = here.tables.get(name), self.tables.get(name)
            if table is None:
                continue
            columns = own.columns if own else None
            made = [
                attribute
                for attribute in ("constants", "codecs", "explode_map", "extract_json")
                if columns and getattr(columns, attribute)
            ]
            at_target = self.name_at_target(name)
            expected = None
            try:
                if not made:
                    expected = change_table(
                        table,
                        name=at_target,
                        rename=(columns.rename if columns else None) or {},
                        skip=(columns.skip if columns else None) or (),
                        partition_key=own.partition_key if own else None,
                        clustering_columns=own.clustering_columns if own else None,
                    )
            except PreflightError as error:
                made = ["tables"]
                wrong.append(Difference("error", f"table {quote(at_target)}", str(error)))
            because = f"columns.{made[0]}" if made else ""
            may_lack = bool(columns and columns.unmatched == "skip")
            wanted.append(Wanted(name, at_target, expected, because, may_lack))
        return wanted, wrong


def _keys(job: Job) -> list[dg.AssetKey]:
    """Give the keys of all assets that a table's migration makes."""
    return [
        value
        for name, value in vars(job).items()
        if isinstance(value, dg.AssetKey) and name != "origin"
    ]


def _merge(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what differs over what holds for all, block by block."""
    merged = dict(shared)
    for name, value in own.items():
        there = merged.get(name)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            value = _merge(there, value)
        merged[name] = value
    return merged
