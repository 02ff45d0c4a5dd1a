"""A tenant's move as Dagster runs it: dry runs, the order of steps, checks, sync, rollback."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from cassandra.cluster import Session

from migration_platform.local.neo4j import NEO4J_PASSWORD, NEO4J_USER
from migration_platform.local.stack import Running
from migration_platform.local.sunbird import Answer, Received, Sunbird, serve_sunbird
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.neo4j import Graph, Neo4jSettings
from migration_platform.tenant.graph_step import tell_nothing_left
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    Project,
    RunResult,
    make_project,
    refusal,
)
from migration_platform_tests.tenants import (
    BATCH,
    NEW,
    OLD,
    ORGANISATION,
    OTHER,
    USER,
    USER_ORG,
    Tenants,
)

pytestmark = DAGSTERS_OWN_WARNINGS
API_KEY = "key-of-the-gateway-9f3a"
TABLE_STEPS = ("users", "user_organisations", "course_batches", "organisation")
STEPS = (*TABLE_STEPS[:3], "search_users", "search_batches", "organisation", "content")
WHOLE = "00-of-1"


@dataclass
class Moved:
    """A project that moves a tenant, and the servers behind it."""

    project: Project
    tenants: Tenants
    sunbird: Sunbird
    graph: Graph
    label: str
    before: dict[str, Any]
    before_nodes: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.project.home / "tenant_moves" / "rajasthan"

    def run(
        self,
        *assets: str,
        dry_run: bool | None = None,
        config: Mapping[str, Any] | None = None,
        partitions: str | None = WHOLE,
    ) -> RunResult:
        """Run assets of the move; `config` is by step, and `dry_run` for all steps among them."""
        ops: dict[str, Any] = {}
        for name in assets:
            if not name.endswith(("_plan", "_backup")):
                given = {} if dry_run is None else {"dry_run": dry_run}
                ops[f"rajasthan__{name}"] = {"config": given | dict((config or {}).get(name, {}))}
        keys = [dg.AssetKey(["rajasthan", name]) for name in assets]
        return self.project.run(partitions, assets=keys, config={"ops": ops})

    def roll_back(self, **config: Any) -> str:
        """Run the rollback job; gives what its run wrote into its log."""
        defs = self.project.load()
        job = defs.resolve_job_def("rajasthan_rollback_job")
        with self.project.instance() as instance:
            result = job.execute_in_process(
                instance=instance,
                run_config={"ops": {"rajasthan_rollback": {"config": config}}},
                raise_on_error=False,
            )
            return self.project.messages_of(result.run_id)

    def nodes(self) -> dict[str, tuple[Any, Any]]:
        found = self.graph.stream(f"MATCH (n:{self.label}) RETURN n.id, n.channel, n.createdFor")
        return {row[0]: (row[1], row[2]) for row in found}


def _declare(tenants: Tenants, label: str) -> dict[str, Any]:
    keyspace = tenants.keyspace
    return {
        "store": "sunbird",
        "origin_tenant": OLD,
        "target_tenant": NEW,
        "organisations": f"{keyspace}.organisation",
        "retry_seconds": 10,
        "steps": {
            "users": {
                "table": f"{keyspace}.user",
                "select": "rootorgid",
                "change": {"rootorgid": {"replace": "value"}, "channel": {"constant": "rj"}},
                "id_file": "user_migration.csv",
                "token_ranges": 1,
            },
            "user_organisations": {
                "table": f"{keyspace}.user_org",
                "select": "organisationid",
                "change": {
                    "organisationid": {"replace": "value"},
                    "hashtagid": {
                        "lookup": {"table": f"{keyspace}.organisation", "column": "hashtagid"}
                    },
                },
                "token_ranges": 1,
            },
            "course_batches": {
                "table": f"{keyspace}.course_batch",
                "select": "createdfor",
                "change": {"createdfor": {"replace": "first"}},
                "token_ranges": 1,
            },
            "search_users": {
                "sync": {
                    "store": "search",
                    "object_type": "user",
                    "ids_of": "users",
                    "block_size": 2,
                    "sleep_ms": 1,
                    "index_field": "rootOrgId",
                    "wait_seconds": 5,
                }
            },
            "search_batches": {
                "sync": {
                    "store": "search",
                    "object_type": "course_batch",
                    "ids_of": "course_batches",
                    "sleep_ms": 1,
                    "index_field": "createdFor",
                    "wait_seconds": 5,
                }
            },
            "organisation": {
                "table": f"{keyspace}.organisation",
                "select": "id",
                "change": {"status": {"constant": 0}},
                "token_ranges": 1,
            },
            "content": {
                "graph": {
                    "store": "content",
                    "origin": "0126741568685424647",
                    "target": "0126741573767413761",
                    "nodes": [
                        {"label": label, "property": "channel"},
                        {"label": label, "property": "createdFor", "only_element": True},
                    ],
                }
            },
        },
    }


@pytest.fixture
def moved(
    tmp_path: Path,
    cassandra: Running,
    neo4j: Running,
    connection: Connection,
    reader: Session,
    keyspace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Moved]:
    """Two tenants in Cassandra, in an index and in a graph, and the project that moves one."""
    tenants = Tenants(connection, reader, keyspace, tmp_path)
    tenants.make(
        "organisation",
        ORGANISATION,
        [{"id": OLD, "status": 1}, {"id": NEW, "hashtagid": "hash-new", "status": 1}],
    )
    users = [{"id": f"old-{n}", "rootorgid": OLD, "channel": "etb"} for n in range(5)]
    users += [{"id": "new-1", "rootorgid": NEW}, {"id": "other-1", "rootorgid": OTHER}]
    tenants.make("user", USER, users)
    associations = [{"id": f"a{n}", "userid": f"old-{n}", "organisationid": OLD} for n in range(5)]
    tenants.make("user_org", USER_ORG, associations)
    batches = [{"id": "b1", "createdfor": [OLD]}, {"id": "b2", "createdfor": ["x", OLD]}]
    tenants.make("course_batch", BATCH, [*batches, {"id": "b3"}])
    label = f"domain_{keyspace}"
    settings = Neo4jSettings(f"bolt://127.0.0.1:{neo4j.port}", NEO4J_USER, NEO4J_PASSWORD)
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    monkeypatch.setenv("SEARCH_KEY", API_KEY)
    monkeypatch.setenv("GRAPH_PASSWORD", NEO4J_PASSWORD)
    with (
        settings.connect() as graph,
        serve_sunbird(_read_documents(tenants), API_KEY) as sunbird,
    ):
        _create_nodes(graph, label)
        # As it is before a move: everything is indexed.
        for kind in ("user", "batch"):
            sunbird.index[kind].update(_read_documents(tenants)(kind, None))
        cluster = {"contact_points": ["127.0.0.1"], "port": cassandra.port}
        project.declare(
            "stores",
            "Stores",
            cassandra={"sunbird": cluster},
            neo4j={
                "content": {
                    "uri": settings.uri,
                    "username": NEO4J_USER,
                    "password": {"env": "GRAPH_PASSWORD"},
                }
            },
            sunbird_sync={
                "search": {
                    "endpoint": sunbird.sync_url,
                    "api_key": {"env": "SEARCH_KEY"},
                    "search_endpoints": {
                        kind: sunbird.search_urls[kind] for kind in ("user", "batch")
                    },
                    "retry_seconds": 0.2,
                }
            },
        )
        project.declare("rajasthan", "TenantMove", **_declare(tenants, label))
        tables = ("user", "user_org", "course_batch", "organisation")
        before = {table: tenants.rows(table) for table in tables}
        found = Moved(project, tenants, sunbird, graph, label, before)
        found.before_nodes = found.nodes()
        yield found


def _read_documents(tenants: Tenants) -> Any:
    """Give the index's documents of rows as they are now."""

    def read(kind: str, ids: Sequence[str] | None) -> dict[str, dict[str, Any]]:
        table, column, name = {
            "user": ("user", "rootorgid", "rootOrgId"),
            "batch": ("course_batch", "createdfor", "createdFor"),
        }[kind]
        rows = tenants.rows(table)
        return {i: {name: rows[i][column]} for i in (rows if ids is None else ids) if i in rows}

    return read


def _create_nodes(graph: Graph, label: str) -> None:
    old = "0126741568685424647"
    nodes = [
        {"id": "both", "channel": old, "createdFor": [old]},
        {"id": "channel", "channel": old, "createdFor": ["x"]},
        {"id": "longer", "channel": "x", "createdFor": [old, "x"]},
    ]
    graph.write(
        lambda work: work.run(  # type: ignore[arg-type]
            f"UNWIND $nodes AS node CREATE (n:{label}) SET n = node",  # type: ignore[arg-type]
            {"nodes": nodes},
        ).consume()
    )


def _passed(result: RunResult) -> dict[str, bool]:
    return {name: check.passed for name, check in result.checks.items()}


# -- tests ---------------------------------------------------------------------------------------


def test_a_run_is_a_dry_run_unless_told_otherwise_and_only_makes_the_plan(moved):
    before = moved.tenants.rows("user")
    result = moved.run("users", "users_backup").assert_success()
    users, plan = (dg.AssetKey(["rajasthan", name]) for name in ("users", "users_plan"))
    assert moved.tenants.rows("user") == before
    assert result.materializations(users) == {}
    assert result.materializations(dg.AssetKey(["rajasthan", "users_backup"])) == {}
    (metadata,) = result.materializations(plan).values()
    assert (metadata["dry_run"], metadata["planned"], metadata["rows"]) == (True, 5, 7)
    ((_, observed),) = result.observations(users)
    assert observed["dry_run"] is True
    assert (moved.folder / "user_migration.csv").read_text().count("\n") == 5
    assert result.checks == {}
    messages = moved.project.messages_of(result.run_id)
    assert "Dry run: 5 are planned, and nothing was written" in messages


def test_a_run_of_several_steps_is_refused_before_it_does_anything(moved):
    result = moved.run("users", "user_organisations")
    assert not result.success
    assert "this run selects users and also user_organisations" in result.error
    assert not (moved.folder / "users").exists()


def test_a_move_moves_everything_in_order_and_proves_it(moved):
    plans = [f"{name}_plan" for name in STEPS if not name.startswith("search")]
    moved.run(*plans).assert_success()
    moved.run("search_users_plan", "search_batches_plan").assert_success()
    assert moved.sunbird.syncs == []
    passed: dict[str, dict[str, bool]] = {}
    for name in STEPS:
        result = moved.run(name, dry_run=False).assert_success()
        if not name.startswith("search"):
            (saved,) = result.materializations(
                dg.AssetKey(["rajasthan", f"{name}_backup"])
            ).values()
            assert Path(saved["file"]).exists()
        (metadata,) = result.materializations(dg.AssetKey(["rajasthan", name])).values()
        assert metadata["dry_run"] is False
        passed[name] = _passed(result)
        if name == "course_batches":
            # Reads come from the index, and between the writes and the sync it shows what was.
            assert moved.sunbird.index["user"]["old-1"]["rootOrgId"] == OLD
    assert sum(map(len, passed.values())) == 4 * 4 + 2 * 2 + 3
    assert all(all(checks.values()) for checks in passed.values()), passed
    rows = moved.tenants.rows("user")
    assert {row["rootorgid"] for i, row in rows.items() if i.startswith("old")} == {NEW}
    assert {row["hashtagid"] for row in moved.tenants.rows("user_org").values()} == {"hash-new"}
    assert moved.tenants.rows("course_batch")["b2"]["createdfor"] == ["x", NEW]
    assert moved.tenants.rows("organisation")[OLD]["status"] == 0
    target = "0126741573767413761"
    assert moved.nodes() == {
        "both": (target, [target]),
        "channel": (target, ["x"]),
        "longer": ("x", ["0126741568685424647", "x"]),
    }
    indexed = moved.sunbird.index["user"]
    assert {indexed[f"old-{n}"]["rootOrgId"] for n in range(5)} == {NEW}
    assert indexed["other-1"]["rootOrgId"] == OTHER
    (batches,) = [each for each in moved.sunbird.syncs if each.request["objectType"] == "batch"]
    assert sorted(batches.ids) == ["b1", "b2"]

    # -- checks alone read everything again, and notice what came since
    moved.tenants.execute(f"INSERT INTO KS.user (id, rootorgid) VALUES ('late', '{OLD}')")
    again = moved.project.run(None, only_checks=True)
    evaluations = [
        event.asset_check_evaluation_data
        for event in again.events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    found = {(each.asset_key.path[-1], each.check_name): each.passed for each in evaluations}
    assert len(found) == 4 * 4 + 2 * 2 + 3
    assert {key for key, passed in found.items() if not passed} == {
        ("users", "nothing_of_the_origin_is_left"),
        ("users", "all_else_is_unchanged"),
        # Nobody told the index of the new row.
        ("search_users", "index_shows_the_target"),
    }
    assert again.materializations(dg.AssetKey(["rajasthan", "users_plan"])) == {}
    moved.tenants.execute("DELETE FROM KS.user WHERE id = 'late'")

    # -- and back
    said = moved.roll_back()
    assert "users: 5 to put back" in said
    assert moved.tenants.rows("user")["old-1"]["rootorgid"] == NEW
    said = moved.roll_back(dry_run=False)
    assert "users: 5 put back" in said
    assert moved.tenants.rows("user") == moved.before["user"]
    assert moved.tenants.rows("user_org") == moved.before["user_org"]
    assert moved.tenants.rows("course_batch") == moved.before["course_batch"]
    assert moved.tenants.rows("organisation") == moved.before["organisation"]
    assert moved.nodes() == moved.before_nodes
    refused = moved.run("user_organisations", dry_run=False)
    assert "users was rolled back" in refused.error
    assert moved.sunbird.index["user"]["old-1"]["rootOrgId"] == NEW
    assert all(_passed(moved.run("search_users", dry_run=False).assert_success()).values())
    assert moved.sunbird.index["user"]["old-1"]["rootOrgId"] == OLD

    # -- and no secret anywhere
    texts = [
        path.read_text(errors="replace") for path in moved.project.home.rglob("*") if path.is_file()
    ]
    assert any("old-1" in text for text in texts)
    assert not any(API_KEY in text or NEO4J_PASSWORD in text for text in texts)


def test_a_green_step_says_that_no_row_was_there_or_planned(moved):
    users = f"{moved.tenants.keyspace}.user"
    moved.tenants.reader.execute(f"DELETE FROM {users} WHERE id IN ('old-0', 'old-1', 'old-2')")
    moved.tenants.reader.execute(f"DELETE FROM {users} WHERE id IN ('old-3', 'old-4')")
    sentences = {
        "nothing_of_the_origin_is_left": "2 rows were read, and none of them would change any more",
        "counts_equal_the_plan": "no row was planned, so there was none to look at",
        "all_else_is_unchanged": "all else of 2 rows has the digests that it had",
    }
    for emptied in (False, True):
        if emptied:
            moved.tenants.reader.execute(f"TRUNCATE {users}")
            sentences["nothing_of_the_origin_is_left"] = "no row was there to read"
            sentences["all_else_is_unchanged"] = "no row was there to compare"
        moved.run("users_plan", partitions=None).assert_success()
        run = moved.run("users", "users_backup", dry_run=False).assert_success()
        assert all(check.passed for check in run.checks.values())
        assert {name: run.checks[name].description for name in sentences} == sentences


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ((0, 0), "no node was there to read"),
        ((7, 0), "7 nodes were read, and none of them would change any more"),
        (
            (7, 2),
            "7 nodes were read, and none of them would change any more; 2 with the origin tenant "
            "in a longer list were left alone by the plan",
        ),
    ],
)
def test_a_green_graph_says_what_the_plan_left_alone(found, sentence):
    nodes, longer = found
    assert tell_nothing_left(nodes, {"longer": longer}) == sentence


def test_a_step_out_of_order_is_refused_with_the_reason(moved):
    moved.run("user_organisations_plan").assert_success()
    refused = moved.run("user_organisations", dry_run=False)
    assert not refused.success
    assert "user_organisations comes after users, and users has no plan yet" in refused.error
    refused = moved.run("users", dry_run=False)
    assert "users has no plan yet: run the step with dry_run: true" in refused.error


def test_a_conflict_is_red_and_reported_and_its_checks_say_so(moved):
    moved.run("users_plan").assert_success()
    moved.tenants.execute("UPDATE KS.user SET channel = 'mine' WHERE id = 'old-1'")
    result = moved.run("users", dry_run=False)
    assert not result.success
    assert "rows planned and not as planned: 1" in result.error
    key = dg.AssetKey(["rajasthan", "users"])
    assert result.materializations(key) == {}
    metadata = next(data for where, data in result.observations(key) if where == WHOLE)
    assert (metadata["rows_changed"], metadata["rows_in_conflict"]) == (4, 1)
    assert "old-1: " in str(metadata["conflicts"])
    assert _passed(result) == {
        "nothing_of_the_origin_is_left": False,
        "counts_equal_the_plan": False,
        "all_else_is_unchanged": True,
        "nothing_unplanned_arrived": True,
    }
    assert "make a new plan" in str(result.checks["counts_equal_the_plan"].description)


def _reach_the_search(moved: Moved) -> None:
    """Move the tables, so that the index may be told."""
    moved.run(*(f"{name}_plan" for name in TABLE_STEPS[:3])).assert_success()
    for name in TABLE_STEPS[:3]:
        moved.run(name, dry_run=False).assert_success()


def test_a_failed_block_is_reported_and_sent_again_alone(moved):
    _reach_the_search(moved)
    moved.run("search_users_plan").assert_success()

    def fail(received: Received, fair: Any) -> Answer:
        return Answer(500, b"oops") if "old-3" in received.ids else fair()

    moved.sunbird.fault = fail
    result = moved.run("search_users", dry_run=False)
    assert not result.success
    assert _passed(result) == {
        "every_block_was_accepted": False,
        "index_shows_the_target": False,
    }
    (log,) = moved.folder.glob("search_users/*/logs/SyncFailure_*.log")
    assert f"replay: {log}" in result.error
    (failed,) = [call.ids for call in moved.sunbird.syncs if "old-3" in call.ids][:1]
    moved.sunbird.fault = None
    moved.sunbird.received.clear()
    config = {"search_users": {"replay": str(log)}}
    result = moved.run("search_users", dry_run=False, config=config).assert_success()
    assert [call.ids for call in moved.sunbird.syncs] == [failed]
    assert all(_passed(result).values())


def test_a_sync_without_ids_is_an_error_and_never_a_sync_of_everything(moved):
    refused = moved.run("search_users_plan")
    assert "No id found: there is no id file" in refused.error
    assert "make the plan of users first" in refused.error
    _reach_the_search(moved)
    moved.run("search_users_plan").assert_success()
    # A later plan finds nothing more to move, and so empties the id file.
    moved.run("users_plan").assert_success()
    refused = moved.run("search_users", dry_run=False)
    assert "No id found in the id file" in refused.error
    assert "run the sync with id_file: " in refused.error
    assert moved.sunbird.received == []
    ids = next(path for path in moved.folder.glob("users/*/ids.csv") if path.read_text())
    given = {"search_users": {"id_file": str(ids)}}
    moved.run("search_users", dry_run=False, config=given).assert_success()
    assert sorted(i for call in moved.sunbird.syncs for i in call.ids) == [
        f"old-{n}" for n in range(5)
    ]
    everyone = {"search_users": {"sync_all": True}}
    moved.sunbird.received.clear()
    moved.run("search_users", dry_run=False, config=everyone).assert_success()
    sent = sorted(i for call in moved.sunbird.syncs for i in call.ids)
    assert sent == sorted(moved.tenants.rows("user"))
    assert moved.sunbird.synced_everything == 0


def test_a_declaration_with_mistakes_is_refused_with_all_of_them(moved):
    declared = _declare(moved.tenants, moved.label)
    declared["steps"]["users"]["change"]["channel"] = {"constant": "rj", "replace": "value"}
    declared["steps"]["search_users"]["sync"]["ids_of"] = "content"
    declared["steps"]["search_users"]["sync"]["object_type"] = "users"
    declared["steps"]["content"]["graph"]["target"] = "0126741568685424647"
    moved.project.declare("rajasthan", "TenantMove", **declared)
    message = refusal(moved.project)
    for part in (
        "give one of replace, lookup, constant",
        "ids_of is 'content'; valid are",
        "object_type is 'users'; valid are",
        "a move needs two tenants",
    ):
        assert part in message


def _sync(moved):
    moved.run("search_users_plan", "search_batches_plan").assert_success()
    for step in ("search_users", "search_batches"):
        moved.run(step, dry_run=False).assert_success()


def test_a_sync_from_before_its_tables_last_change_does_not_let_the_next_step_run(moved):
    _reach_the_search(moved)
    _sync(moved)
    moved.tenants.execute(f"INSERT INTO KS.user (id, rootorgid) VALUES ('late', '{OLD}')")
    moved.run("users_plan").assert_success()
    moved.run("users", dry_run=False).assert_success()
    moved.run("organisation_plan").assert_success()
    result = moved.run("organisation", dry_run=False)
    assert not result.success or moved.sunbird.index["user"]["late"]["rootOrgId"] == NEW


def test_ids_that_an_id_file_has_lost_are_sent_all_the_same(moved):
    declared = _declare(moved.tenants, moved.label)
    declared["steps"]["search_users"]["sync"].pop("index_field")
    moved.project.declare("rajasthan", "TenantMove", **declared)
    _reach_the_search(moved)
    moved.run("search_users_plan").assert_success()
    (moved.folder / "user_migration.csv").write_text("old-1\n")
    moved.run("search_users", dry_run=False).assert_success()
    sent = sorted(i for call in moved.sunbird.syncs for i in call.ids)
    assert sent == [f"old-{n}" for n in range(5)]


def test_a_plan_and_its_use_do_not_go_in_one_run(moved):
    result = moved.run("users_plan", "users", dry_run=False)
    assert not result.success
    assert moved.tenants.rows("user")["old-1"]["rootorgid"] == OLD


def test_a_step_is_not_rolled_back_under_a_later_one_that_has_a_newer_plan(moved):
    for step in ("users", "user_organisations"):
        moved.run(f"{step}_plan").assert_success()
        moved.run(step, dry_run=False).assert_success()
    moved.tenants.execute(
        f"INSERT INTO KS.user_org (id, userid, organisationid) VALUES ('z', 'u', '{OLD}')"
    )
    moved.run("user_organisations_plan").assert_success()
    said = moved.roll_back(dry_run=False, steps=["users"])
    assert "comes after users and is not rolled back" in said


def test_a_rollback_of_a_sync_is_refused_and_not_silently_nothing(moved):
    said = moved.roll_back(dry_run=False, steps=["search_users"])
    assert "failed" in said


@pytest.mark.parametrize("broken", ["folder", "manifest"])
def test_broken_files_are_told_in_a_sentence(moved, broken):
    if broken == "folder":
        moved.folder.parent.mkdir(parents=True, exist_ok=True)
        moved.folder.write_text("x")
        error = moved.run("users_plan").error
    else:
        moved.run("users_plan").assert_success()
        (manifest,) = moved.folder.glob("users/*/plan.json")
        manifest.write_text("{}")
        error = moved.run("users", dry_run=False).error
    assert "message='rajasthan: " in error or 'message="rajasthan: ' in error
    assert "Traceback" not in error


def test_a_sync_after_a_second_plan_sends_the_ids_of_the_first_one_too(moved):
    moved.run("users_plan").assert_success()
    moved.tenants.execute("UPDATE KS.user SET channel = 'mine' WHERE id = 'old-1'")
    assert not moved.run("users", dry_run=False).success
    # As the failure says: make a new plan and run it. It has one row.
    _reach_the_search(moved)
    moved.run("search_users_plan").assert_success()
    moved.run("search_users", dry_run=False).assert_success()
    assert moved.sunbird.index["user"]["old-2"]["rootOrgId"] == NEW


def test_the_plan_of_a_sync_finds_a_wrong_key_and_sends_nothing(moved, monkeypatch):
    moved.run("users_plan").assert_success()
    monkeypatch.setenv("SEARCH_KEY", "of-yesterday")
    refused = moved.run("search_users_plan")
    assert not refused.success
    assert "does not accept the API key; check the environment variable SEARCH_KEY" in refused.error
    assert moved.sunbird.received == []


def test_the_hint_after_an_empty_second_plan_leads_to_the_index(moved):
    _reach_the_search(moved)
    # Nobody has planned the sync yet, and the id file gets empty.
    moved.run("users_plan").assert_success()
    assert (moved.folder / "user_migration.csv").read_text() == ""
    planned = moved.run("search_users_plan").assert_success()
    said = moved.project.messages_of(planned.run_id)
    assert "has no id, and these are the ids that were moved before" in said
    refused = moved.run("search_users", dry_run=False)
    (path,) = set(re.findall(r"run the sync with id_file: (\S+?ids\.csv)", refused.error))
    given = {"search_users": {"id_file": path}}
    result = moved.run("search_users", dry_run=False, config=given).assert_success()
    assert all(_passed(result).values())


def test_a_sync_of_everything_warns(moved):
    _reach_the_search(moved)
    moved.run("search_users_plan").assert_success()
    config = {"search_users": {"sync_all": True}}
    result = moved.run("search_users", dry_run=False, config=config).assert_success()
    with moved.project.instance() as instance:
        logs = instance.all_logs(result.run_id)
    warned = [entry.user_message for entry in logs if entry.level == logging.WARNING]
    assert any("sync_all: all 7 rows of " in line for line in warned), warned
