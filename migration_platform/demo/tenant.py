"""The demo's move of a tenant: plan all steps, then apply and prove one after the other."""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from migration_platform.demo import sample_tenants
from migration_platform.demo.runs import Run, Stage, launch, prepare_instance, progress
from migration_platform.errors import MigrationError
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.neo4j import Neo4j
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.server import Server
from migration_platform.local.stack import start, stop
from migration_platform.local.sunbird import SEARCH_PATHS, SYNC_PATH
from migration_platform.local.sunbird_service import SUNBIRD_KEY, SUNBIRD_KEY_VARIABLE, Sunbird
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform.stores.neo4j import Neo4jSettings
from migration_platform.stores.sunbird_sync import SunbirdSync, SunbirdSyncSettings
from migration_platform.tenant.declaration import GraphStep, Move, Step, SyncStep, TableStep
from migration_platform.tenant.steps import keys_of, read_progress

MOVE = "tenant_rajasthan"
USERS_A_NODE = 10
INDEX_SECONDS = 60.0
TENANT_FIELDS = {"user": "rootOrgId", "batch": "createdFor"}
APPLYING = {"ranges": r"(\d+)-of-(\d+): [\d,]+ rows changed"}


@dataclass(frozen=True)
class TenantJob:
    """The move of `defs/tenant_rajasthan` on sample data."""

    servers: tuple[type[Server], ...] = (Cassandra, Neo4j, Sunbird)
    title: str = "two tenants among others, in sunbird.* and in Neo4j"
    goal: str = f"Moving one to the other through Dagster: {MOVE}"
    pages: tuple[str, ...] = (
        f"locations/migration_platform/asset-groups/{MOVE}",
        f"assets/{MOVE}/users",
    )

    def fill(self, stage: Stage) -> None:
        """Fill everything anew: what an earlier move left cannot be moved again."""
        began, tables = time.monotonic(), sample_tenants.count_rows(stage.count)
        nodes = max(20, stage.count // USERS_A_NODE)
        cassandra = CassandraSettings(port=stage.ports["cassandra"])
        neo4j = Neo4jSettings(f"bolt://{LOCALHOST}:{stage.ports['neo4j']}")
        with (
            cassandra.connect() as connection,
            neo4j.connect() as graph,
            progress(sum(tables.values()) + nodes, "rows") as bar,
        ):
            shutil.rmtree(_folder(stage), ignore_errors=True)
            sample_tenants.drop_tables(connection)
            sample_tenants.drop_content(graph)
            sample_tenants.create_tables(connection)
            options: dict[str, Any] = {"seed": stage.seed, "on_progress": bar.update}
            sample_tenants.fill_tenants(connection, users=stage.count, **options)
            sample_tenants.fill_content(graph, nodes=nodes, **options)
        # Its index would keep what an earlier demo left.
        stop(Sunbird.name, home=stage.home)
        start(Sunbird(), home=stage.home, port=stage.ports["sunbird"])
        _wait_for_index(stage, {"user": tables["user"], "batch": tables["course_batch"]})
        stage.echo(
            f"     {tables['user']:,} users, {tables['user_org']:,} associations, "
            f"{tables['course_batch']:,} course batches, {tables['organisation']:,} organisations, "
            f"{nodes:,} nodes of content in {time.monotonic() - began:.0f} s"
        )

    def run(self, stage: Stage) -> bool:
        """Plan every step, then apply each and show its checks; ends at the first that fails."""
        move, folder, before = _declared_move(), _folder(stage), _count_index(stage)
        width = max(map(len, move.by_name))
        runs = launch(stage, [_planning(move), *(_applying(step) for step in move.steps)])
        stage.echo("     plans, which write nothing:")
        if not next(runs).succeeded:
            return False
        for step in move.steps:
            plan = read_progress(folder, step).plan
            assert plan is not None
            stage.echo(f"       {step.name:<{width}}  {_describe_plan(step, plan.manifest())}")
        stage.echo("     applied and checked, step by step:")
        whole = 0
        for number, (step, ended) in enumerate(zip(move.steps, runs, strict=False), 1):
            passed = sum(check.passed for check in ended.checks)
            now = read_progress(folder, step)
            stage.echo(
                f"       {number} {step.name:<{width}}  {now.done:>7,} of {now.planned:>7,}   "
                f"{passed} of {len(ended.checks)} checks passed   {ended.seconds:3.0f} s"
            )
            for check in ended.checks:
                if not check.passed:
                    stage.echo(f"         FAILED {check.name}: {check.description}")
            whole += ended.succeeded
        stage.echo("")
        if whole == len(move.steps):
            _show_index(stage, before)
        _show_ways(stage)
        return whole == len(move.steps)


def _show_index(stage: Stage, before: Mapping[str, tuple[int, int]]) -> None:
    """Tell what the search index counted before and counts now."""
    after = _count_index(stage)
    stage.echo(f"  search index  {'origin tenant':<22}  target tenant")
    for kind, counts in before.items():
        moved = [f"{was:,} -> {now:,}" for was, now in zip(counts, after[kind], strict=True)]
        stage.echo(f"    {kind:<10}  {moved[0]:<22}  {moved[1]}")
    stage.echo("")


def _show_ways(stage: Stage) -> None:
    """Tell where everything is, and how to take it back."""
    dg, config = Path(sys.executable).parent / "dg", {"config": {"dry_run": False}}
    ways = {
        "plans, backups, ids": str(_folder(stage)),
        "whole log": str(stage.log),
        "take it all back": (
            f"DAGSTER_HOME={quote(str(prepare_instance(stage.home)))} {quote(str(dg))} launch "
            f"--job {MOVE}_rollback_job --config-json "
            + quote(json.dumps({"ops": {f"{MOVE}_rollback": config}}))
        ),
    }
    for name, value in ways.items():
        stage.echo(f"  {name:<19}  {value}")
    stage.echo("")


def _planning(move: Move) -> Run:
    return Run([f"{MOVE}/{step.name}_plan" for step in move.steps])


def _applying(step: Step) -> Run:
    keys, assets = keys_of(step), [f"{MOVE}/{step.name}"]
    if not isinstance(step, SyncStep):
        assets.append(f"{MOVE}/{step.name}_backup")
    return Run(
        assets,
        (keys[0], keys[-1]) if isinstance(step, TableStep) else None,
        config={"ops": {f"{MOVE}__{step.name}": {"config": {"dry_run": False}}}},
        bars=APPLYING,
    )


def _folder(stage: Stage) -> Path:
    return prepare_instance(stage.home) / "tenant_moves" / MOVE


def _declared_move() -> Move:
    """Read what the file of the move declares."""
    import yaml

    from migration_platform.components.tenant.attributes import StepAttributes, to_move

    path = Path(__file__).parent.parent / "defs" / MOVE / "defs.yaml"
    attributes = yaml.safe_load(path.read_text(encoding="utf-8"))["attributes"]
    steps = {
        name: StepAttributes.model_validate(step) for name, step in attributes["steps"].items()
    }
    return to_move(**{**attributes, "name": MOVE, "steps": steps})


def _describe_plan(step: Step, manifest: Mapping[str, Any]) -> str:
    """Say in a line what a plan found."""
    planned = f"{manifest['planned']:>7,}"
    if isinstance(step, SyncStep):
        return f"{planned} ids, {step.block_size:,} a call"
    if isinstance(step, GraphStep):
        said, more = (
            f"{planned} properties of {manifest['rows']:,} nodes",
            {
                "longer": "lists of several tenants are left alone",
            },
        )
    else:
        said, more = (
            f"{planned} of {manifest['rows']:,} rows",
            {
                "already": "show the target already",
                "doubles": "will name it twice",
                "again": "will still name the origin",
                "duplicates": "are of users in both",
            },
        )
        if step.select not in step.changed:
            more.pop("already")
    found = [f"{manifest[name]:,} {means}" for name, means in more.items() if manifest.get(name)]
    return f"{said}; {', '.join(found)}" if found else said


# -- the index -----------------------------------------------------------------------------------


def _client(stage: Stage) -> SunbirdSync:
    url = f"http://{LOCALHOST}:{stage.ports['sunbird']}"
    return SunbirdSyncSettings(
        endpoint=url + SYNC_PATH,
        api_key=SUNBIRD_KEY,
        api_key_env=SUNBIRD_KEY_VARIABLE,
        search_endpoints={kind: url + path for kind, path in SEARCH_PATHS.items()},
    ).connect()


def _count_index(stage: Stage) -> dict[str, tuple[int, int]]:
    """Count the documents of both tenants, by type."""
    tenants = (sample_tenants.ORIGIN_TENANT, sample_tenants.TARGET_TENANT)
    with _client(stage) as client:
        return {
            kind: (
                client.count(kind, {field: tenants[0]}),
                client.count(kind, {field: tenants[1]}),
            )
            for kind, field in TENANT_FIELDS.items()
        }


def _wait_for_index(stage: Stage, wanted: Mapping[str, int]) -> None:
    """Wait until the index holds every row.

    Raises:
        MigrationError: it takes too long.
    """
    deadline = time.monotonic() + INDEX_SECONDS
    with _client(stage) as client:
        while any(client.count(kind, {}) != count for kind, count in wanted.items()):
            if time.monotonic() > deadline:
                log = stage.home / Sunbird.name / "server.log"
                raise MigrationError(f"the search index does not fill; its server's log: {log}")
            time.sleep(0.2)
