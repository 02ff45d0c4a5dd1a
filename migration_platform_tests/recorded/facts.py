"""What migrations are known by outside of the code: in Dagster, in its event log, in tables."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import ComponentTree

from migration_platform import TableMigration, TenantMove
from migration_platform.components.stores import kinds_of_stores
from migration_platform.components.tenant.attributes import to_move
from migration_platform.copying.dead_letters import dead_letters_key
from migration_platform.runs.tracking import migration_key
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.kinds import plan_between
from migration_platform_tests.dagster_project import Project, make_project
from migration_platform_tests.recorded.declarations import (
    DECLARED,
    KEYSPACE,
    SHOP,
    STORES,
    TABLES,
    TOLD_IN_FULL,
    table_id,
)
from migration_platform_tests.tables import create_keyspace

FILE = Path(__file__).with_name("facts.json")
"""Facts by the name of a declaration, as the code told them when they were written."""


def read_file() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


@contextmanager
def tables_made(connection: Connection) -> Iterator[None]:
    """Make the tables with their own ids for the length of a `with` block."""
    create_keyspace(connection, KEYSPACE)
    try:
        for name, body in TABLES.items():
            connection.session.execute(
                f"CREATE TABLE {KEYSPACE}.{name} ({body}) WITH id = {table_id(name)}"
            )
        yield
    finally:
        connection.session.execute(f"DROP KEYSPACE {KEYSPACE}", timeout=60)


def declare_all(folder: Path, names: Iterable[str], cassandra_port: int) -> Project:
    """Make a project with declarations of these names."""
    project = make_project(folder, cassandra_port=cassandra_port)
    cluster = {"contact_points": ["127.0.0.1"], "port": cassandra_port}
    chosen = {name: DECLARED[name] for name in names}
    targets = [each["attributes"].get("target", {}).get("store") for each in chosen.values()]
    known = dict.fromkeys(("sunbird", *filter(None, targets)), cluster)
    clusters = {name: known[name] for name in known if name not in STORES["dynamodb"]}
    project.declare("stores", "Stores", cassandra=clusters, **STORES)
    for name, declared in chosen.items():
        project.declare(name, declared["kind"], **declared["attributes"])
        if declared["kind"] == "KeyspaceMigration":
            _remember_tables(project, declared["attributes"])
    return project


def _remember_tables(project: Project, attributes: Mapping[str, Any]) -> None:
    """Keep the keyspace's tables, as a refresh of the project's state does."""
    store, keyspace = attributes["origin"].values()
    key = f"KeyspaceMigration__{store}.{keyspace}-__{attributes['target']['store']}.{keyspace}__"
    folder = project.defs_folder / ".local_defs_state" / key
    folder.mkdir(parents=True)
    known = {"origin": f"{store}.{keyspace}", "tables": list(SHOP), "views": []}
    (folder / "state").write_text(json.dumps(known))


def gather(
    folder: Path, names: Iterable[str], cassandra: Connection, dynamo: DynamoDb, port: int
) -> dict[str, dict[str, Any]]:
    """Gather the facts of these declarations, whose tables are there."""
    chosen = list(names)
    project = declare_all(folder, chosen, port)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(project.folder))
        tree = ComponentTree.for_project(project.folder)
        defs = tree.build_defs()
        kinds = kinds_of_stores(tree)
        facts = {}
        for name in chosen:
            component = tree.load_component(project.defs_folder / name)
            own = tree.build_defs(project.defs_folder / name)
            facts[name] = {
                **_of_component(component, kinds, cassandra, dynamo),
                **_of_definitions(own, defs, told_in_full=name in TOLD_IN_FULL),
            }
    return json.loads(json.dumps(facts))


def _of_component(
    component: Any, kinds: Mapping[str, str], cassandra: Connection, dynamo: DynamoDb
) -> dict[str, Any]:
    if isinstance(component, TenantMove):
        move = to_move(
            name="tenant",
            store=component.store,
            origin_tenant=component.origin_tenant,
            target_tenant=component.target_tenant,
            organisations=component.organisations,
            steps=component.steps,
        )
        return {"fingerprints": {step.name: move.fingerprint(step) for step in move.steps}}
    if not isinstance(component, TableMigration):
        return {}
    migration = component.to_migration(kinds)
    at_dynamodb = kinds[migration.target.store] == "dynamodb"
    plan = plan_between(migration, cassandra, dynamo if at_dynamodb else cassandra)
    return {
        "fingerprint": plan.fingerprint,
        # As a table that was made anew is told apart: an id that is made up.
        "fingerprint_of_another_table": replace(
            plan, target=replace(plan.target, table_id="another")
        ).fingerprint,
        "comparison": plan.comparison,
        "tracked_as": migration_key(migration),
        "letters_as": dead_letters_key(migration),
        "tracked_in": migration.tracking_keyspace,
    }


def _of_definitions(
    own: dg.Definitions, all_defs: dg.Definitions, *, told_in_full: bool
) -> dict[str, Any]:
    graph = all_defs.resolve_asset_graph()
    made = [each for each in own.assets or [] if isinstance(each, dg.AssetsDefinition)]
    keys = {key.to_user_string(): key for each in made for key in each.keys}
    schedules = [each for each in own.schedules or [] if isinstance(each, dg.ScheduleDefinition)]
    return {
        "assets": {name: _of_asset(graph, key) for name, key in keys.items()}
        if told_in_full
        else sorted(keys),
        "checks": sorted(
            {each.name for key in keys.values() for each in graph.get(key).check_keys}
        ),
        "jobs": sorted(each.name for each in own.jobs or []),
        "schedules": {
            each.name: {
                "cron": each.cron_schedule,
                "job": each.job_name,
                "tags": dict(all_defs.resolve_job_def(each.job_name).tags),
            }
            for each in schedules
        },
        "sensors": sorted(each.name for each in own.sensors or []),
    }


def _of_asset(graph: Any, key: dg.AssetKey) -> dict[str, Any]:
    node = graph.get(key)
    step = node.assets_def.op
    keys = node.partitions_def.get_partition_keys() if node.is_partitioned else []
    return {
        "step": step.name,
        "step_config": sorted(_fields(step.config_schema)),
        "resources": sorted(step.required_resource_keys),
        "partitions": [len(keys), *keys[:1], *keys[-1:]],
        "backfill": getattr(node.backfill_policy, "max_partitions_per_run", "none"),
        "after": sorted(each.to_user_string() for each in node.parent_keys),
        "group": node.group_name,
        "owners": sorted(node.owners),
        "tags": dict(node.tags),
        "checks": sorted(each.name for each in node.check_keys),
    }


def _fields(schema: Any) -> list[str]:
    return list(getattr(schema.config_type, "fields", {}))
