"""The migrations that a Dagster project declares, for commands that are not Dagster's."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg
from dagster import ComponentTree
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext
from dagster._core.secrets.env_file import get_env_var_dict
from dagster._core.storage.defs_state.base import DefsStateStorage

from migration_platform.components.declared import refuse_broken
from migration_platform.components.keyspace.migration import KeyspaceMigration
from migration_platform.components.stores import (
    kinds_of_stores,
    read_settings,
    read_store,
    read_sync_settings,
)
from migration_platform.components.table.guardrail_check import GuardrailCheck, check_key
from migration_platform.components.table.migration import TableMigration
from migration_platform.components.table.naming import build_job
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import DeclarationError, MigrationError, explain
from migration_platform.runs.tracking import migration_key
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform.stores.interface import Settings
from migration_platform.stores.sunbird_sync import SunbirdSyncSettings


@dataclass(frozen=True)
class DeclaredMigration:
    """A migration of a project, and how to reach the cluster in which its runs are tracked.

    `read_sides` gives how to reach the origin and the target, their secrets read then.
    """

    migration: Migration
    cluster: CassandraSettings
    read_sides: Callable[[], tuple[Settings, Settings]]


def find_migrations(project: Path, wanted: str | None = None) -> list[DeclaredMigration]:
    """Load the migrations of a project; only the wanted one if it is named.

    It is named by its target: `keyspace.table`, or `store/keyspace/table` as the asset is; of
    DynamoDB by the table's name, or `store/table`. A check is named as its asset is.

    Raises:
        DeclarationError: there is no such project or migration; the valid ones are listed.
    """
    tree = _load_tree(project)
    migrations = sorted(_migrations_of(tree, project.resolve()), key=migration_key)
    if wanted is not None:
        migrations = [_choose(migrations, wanted)]
    settings = {
        store: read_settings(tree, store)
        for store in dict.fromkeys(migration.tracked_at.store for migration in migrations)
    }
    return [
        DeclaredMigration(m, settings[m.tracked_at.store], partial(_read_sides, tree, m))
        for m in migrations
    ]


def _read_sides(tree: ComponentTree, migration: Migration) -> tuple[Settings, Settings]:
    origin, target = (
        read_store(tree, side.kind, side.store) for side in (migration.origin, migration.target)
    )
    return origin, target


@dataclass(frozen=True)
class DeclaredLaunch:
    """What `dg launch` is to be told of a migration, or of a check that only reads."""

    migration: Migration
    copy: str
    comparison: str | None
    one_run: bool
    """Whether a run may take several ranges, as `dg launch` demands of a range of partitions."""


def find_launch(project: Path, wanted: str) -> DeclaredLaunch:
    """Find the assets of a migration, which is named as `find_migrations` says.

    Raises:
        DeclarationError: there is no such project or migration; the valid ones are listed.
    """
    declared = _declared_in(_load_tree(project), project.resolve())
    migration = _choose(sorted((each for each, _ in declared), key=migration_key), wanted)
    if migration.reads_only:
        return DeclaredLaunch(migration, _asset_name(migration), None, one_run=True)
    per_run = next(per_run for each, per_run in declared if each == migration)
    job = build_job(migration)
    names = job.target.to_user_string(), job.diff.to_user_string()
    return DeclaredLaunch(migration, *names, one_run=per_run == "all")


@dataclass(frozen=True)
class DeclaredOrigin:
    """A table of a store of a project, how to reach it, and the migration that reads it, if any."""

    endpoint: Endpoint
    cluster: CassandraSettings
    migration: Migration | None = None


def find_origin(project: Path, wanted: str, store: str | None = None) -> DeclaredOrigin:
    """Find a table to read: that of a migration, or any table of a store.

    A migration is named by its target, as `find_migrations` says, or by its origin's table.

    Raises:
        DeclarationError: there is no such project, migration or store, or several migrations read
            such a table; the valid ones are listed.
    """
    tree = _load_tree(project)
    if store is not None:
        keyspace, _, table = wanted.partition(".")
        if not keyspace or not table:
            raise DeclarationError(f"{wanted} is no table of {store}; write keyspace.table")
        settings = read_settings(tree, store)
        return DeclaredOrigin(Endpoint(store, TableName(keyspace, table)), settings)
    migrations = sorted(_migrations_of(tree, project.resolve()), key=migration_key)
    read = [each for each in migrations if str(each.origin.table) == wanted]
    sides = {(each.origin.store, each.origin.table) for each in read}
    targets = [each for each in migrations if wanted in _names_of(each)]
    if not targets and len(sides) == 1:
        found = read[0]
    else:
        try:
            found = _choose(migrations, wanted)
        except DeclarationError as error:
            raise DeclarationError(
                f"{error}; for a table that no migration reads, name its --store"
            ) from error
    return DeclaredOrigin(found.origin, read_settings(tree, found.origin.store), found)


def find_cluster(project: Path, store: str) -> CassandraSettings:
    """Find a cluster that a project declares.

    Raises:
        DeclarationError: there is no such project or store; the valid ones are listed.
    """
    return read_settings(_load_tree(project), store)


def find_sync_store(project: Path, store: str) -> SunbirdSyncSettings:
    """Find a sync API that a project declares, its secrets read now.

    Raises:
        DeclarationError, PreflightError: there is no such project or store, or no secret.
    """
    return read_sync_settings(_load_tree(project), store)


def _load_tree(project: Path) -> ComponentTree:
    folder = project.resolve()
    if not (folder / "pyproject.toml").is_file():
        raise DeclarationError(
            f"{folder} is no Dagster project: it has no pyproject.toml; name its folder with "
            "--project"
        )
    # As `dg` does: passwords may stand there.
    os.environ.update(get_env_var_dict(str(folder)))
    for place in (folder / "src", folder):
        if place.is_dir() and str(place) not in sys.path:
            sys.path.insert(0, str(place))
    try:
        return ComponentTree.for_project(folder)
    except Exception as error:
        raise DeclarationError(f"cannot load the project {folder}: {explain(error)}") from error


def _migrations_of(tree: ComponentTree, folder: Path) -> list[Migration]:
    return [migration for migration, _ in _declared_in(tree, folder)]


def _declared_in(tree: ComponentTree, folder: Path) -> list[tuple[Migration, str | int]]:
    """Give the migrations of a project, and how many ranges a run of each takes."""
    try:
        refuse_broken(tree)
        kinds = kinds_of_stores(tree)
        single: list[tuple[Migration, str | int]] = [
            (each.to_migration(kinds), each.ranges_per_run)
            for each in tree.get_all_components(TableMigration)
        ]
        single += [(each.to_migration(), "all") for each in tree.get_all_components(GuardrailCheck)]
        found = {migration_key(migration): (migration, size) for migration, size in single}
        for keyspace in tree.get_all_components(KeyspaceMigration):
            for migration in _tables_of(keyspace, folder):
                found.setdefault(migration_key(migration), (migration, keyspace.ranges_per_run))
    except MigrationError:
        raise
    except Exception as error:
        raise DeclarationError(f"cannot load the project's components: {explain(error)}") from error
    return list(found.values())


def _tables_of(keyspace: KeyspaceMigration, folder: Path) -> Iterator[Migration]:
    """Give the migrations of the tables that a keyspace is known to have; none are looked up."""
    config, storage = keyspace.defs_state_config, DefsStateStorage.get()
    with DefinitionsLoadContext.get().state_path(config, storage, folder) as path:
        names = json.loads(path.read_text())["tables"] if path else []
    for name in keyspace.select(names):
        yield keyspace.to_table_migration(name).to_migration()


def _choose(migrations: list[Migration], wanted: str) -> Migration:
    names = [_asset_name(migration) for migration in migrations]
    found = [migration for migration in migrations if wanted in _names_of(migration)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} migrations are" if found else "no migration is"
    raise DeclarationError(
        f"{what} called {wanted}; valid are {', '.join(names) or 'none: this project has none yet'}"
    )


def _names_of(migration: Migration) -> set[str]:
    names = {_asset_name(migration), migration_key(migration)}
    if not migration.reads_only:
        names |= {migration.name, str(migration.target.table)}
    return names


def _asset_name(migration: Migration) -> str:
    if migration.reads_only:
        return check_key(migration).to_user_string()
    table = migration.target.table
    parts = (migration.target.store, table.keyspace, table.table)
    return dg.AssetKey([part for part in parts if part]).to_user_string()
