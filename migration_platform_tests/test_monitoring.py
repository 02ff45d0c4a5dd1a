"""The queries that the documentation prints, and runs of tables that share a name."""

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from cassandra import InvalidRequest
from cassandra.cluster import Session
from click.testing import CliRunner

from migration_platform.cli import main
from migration_platform.counts import RangeCounts
from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.migration import Migration
from migration_platform.runs.run_info import MIGRATE, VALIDATE, copy_counters
from migration_platform.runs.tracking import TrackedRun, create_run, migration_key
from migration_platform.runs.tracking_tables import TrackingTables, open_tables
from migration_platform.stores.cassandra.connection import Connection
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    EVERYTHING,
    RANGES,
    Output,
    Project,
    end_tree,
    make_project,
)
from migration_platform_tests.servers import PATIENCE_SECONDS, REPOSITORY
from migration_platform_tests.tables import create_keyspace, create_table, declare, fill

pytestmark = DAGSTERS_OWN_WARNINGS

NOT_DONE = ["FAIL", "NOT_STARTED", "NOT_STARTED"]
FILTERS = "might involve data filtering"


@pytest.fixture
def tracking(connection: Connection) -> Iterator[str]:
    """The name of a tracking keyspace of the test's own, gone after it."""
    name = f"tracking_{uuid.uuid4().hex[:12]}"
    yield name
    connection.session.execute(f"DROP KEYSPACE IF EXISTS {quote(name)}", timeout=60)


@pytest.fixture
def other_keyspace(connection: Connection) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex[:12]}"
    create_keyspace(connection, name)
    yield name
    connection.session.execute(f"DROP KEYSPACE {quote(name)}", timeout=60)


def migration_to(keyspace: str, tracking: str, table: str = "orders") -> Migration:
    origin, target = TableName(keyspace, "a"), TableName(keyspace, table)
    return declare(origin, target, tracking_keyspace=tracking, retry_seconds=20.0)


def begin(tables: TrackingTables, migration: Migration, run_type: str, **more: Any) -> TrackedRun:
    run = create_run(tables, migration, run_type, migration.ranges, fingerprint="f", **more)
    run.begin()
    return run


def printed_queries(migration: Migration, *run_ids: int) -> list[str]:
    """Take the queries out of the page, with these names in them."""
    page = (REPOSITORY / "docs" / "running.md").read_text("utf-8")
    section = page.partition("### Watching with CQL")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    text = re.sub(r"--.*", "", "\n".join(blocks)).replace("\n", " ")
    ids = iter([*run_ids[:1] * 2, *run_ids])
    text = re.sub(r"\b1795\d{15}\b", lambda _: str(next(ids)), text)
    text = text.replace("'new/shop.orders'", f"'{migration_key(migration)}'")
    text = text.replace("migration_platform.", f"{migration.tracking_keyspace}.")
    return [query.strip() for query in text.split(";") if query.strip()]


def test_the_printed_queries_give_what_the_page_says(
    connection: Connection, reader: Session, keyspace: str, other_keyspace: str, tracking: str
) -> None:
    mine, others = (migration_to(each, tracking) for each in (keyspace, other_keyspace))
    for each in (mine, others):
        create_table(connection, each.target.table.keyspace, "orders", "k int PRIMARY KEY")
    tables = open_tables(connection, mine)
    older, strange = begin(tables, mine, MIGRATE), begin(tables, others, MIGRATE)
    newer = begin(tables, mine, VALIDATE)
    failed, passed, *_ = mine.ranges
    older.count_piece(failed, copy_counters(RangeCounts(read=3), failed=True))
    older.end_piece(failed, "FAIL")
    older.end_piece(passed, "PASS")
    tables.flush()
    listed, details, not_done, owned, told = printed_queries(mine, older.run_id, newer.run_id)

    assert [row["run_id"] for row in reader.execute(listed)] == [
        newer.run_id, strange.run_id, older.run_id
    ]  # fmt: skip
    first_tokens = [each.bounds[0] for each in mine.ranges]
    assert [row["token_min"] for row in reader.execute(details)] == first_tokens
    assert [row["status"] for row in reader.execute(not_done)] == NOT_DONE
    own = list(reader.execute(owned))
    assert [(row["run_id"], row["run_type"]) for row in own] == [
        (newer.run_id, VALIDATE), (older.run_id, MIGRATE)
    ]  # fmt: skip
    assert [row["run_id"] for row in reader.execute(told)] == [newer.run_id, older.run_id]


@pytest.mark.parametrize("index", ["", " USING 'sai'", " USING 'legacy_local_table'"])
def test_without_allow_filtering_the_third_query_is_refused_whatever_the_index(
    connection: Connection, reader: Session, keyspace: str, tracking: str, index: str
) -> None:
    migration = migration_to(keyspace, tracking)
    create_table(connection, keyspace, "orders", "k int PRIMARY KEY")
    tables = open_tables(connection, migration)
    run = begin(tables, migration, MIGRATE)
    run.end_piece(migration.ranges[0], "FAIL")
    tables.flush()
    _, details, not_done, *_ = printed_queries(migration, run.run_id, run.run_id)
    as_guides_print_it = not_done.removesuffix(" ALLOW FILTERING")
    assert as_guides_print_it != not_done
    if index:
        table = f"{tracking}.cdm_run_details"
        reader.execute(f"CREATE INDEX by_status ON {table} (status){index}", timeout=60)

    with pytest.raises(InvalidRequest, match=FILTERS):
        reader.execute(as_guides_print_it)

    assert [row["status"] for row in reader.execute(not_done)][:1] == ["FAIL"]
    assert len(list(reader.execute(details))) == len(migration.ranges)
    # Why no index is made: it takes away what works without one.
    single = re.sub(r"status IN \(.*?\)", "status='FAIL'", not_done)
    if index:
        with pytest.raises(InvalidRequest, match="ORDER BY with 2ndary indexes is not supported"):
            reader.execute(single)
    else:
        assert len(list(reader.execute(single))) == 1


# -- tables of one name ----------------------------------------------------------------------------


def shown(project: Project, *arguments: str) -> Any:
    result = CliRunner().invoke(
        main, ["status", *arguments, "--json", "--project", str(project.folder)]
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_an_id_that_another_table_uses_too_hides_no_run(
    tmp_path, cassandra, connection: Connection, keyspace: str, tracking: str
) -> None:
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    for table in ("orders", "items"):
        declare_one(project, connection, table, keyspace, tracking, table)
    sides = [
        Migration(declared.origin, declared.target, tracking_keyspace=tracking)
        for declared in declared_in(project)
    ]
    tables = open_tables(connection, sides[0])
    for migration in sides:
        begin(tables, migration, MIGRATE, run_id=42)

    for each in shown(project):
        assert [run["run_id"] for run in each["runs"]] == [42], each["migration"]


def declared_in(project: Project) -> list[Migration]:
    from migration_platform.components.projects import find_migrations

    return [each.migration for each in find_migrations(project.folder)]


def declare_one(
    project: Project, connection: Connection, name: str, keyspace: str, tracking: str, table: str
) -> dg.AssetKey:
    """Fill a table and declare its migration to one of the same keyspace, called `table`."""
    origin = create_table(connection, keyspace, f"{table}_before", "k int PRIMARY KEY, v int")
    create_table(connection, keyspace, table, "k int PRIMARY KEY, v int")
    fill(connection, origin, "k, v", [(n, n) for n in range(200)])
    project.declare(
        name,
        "TableMigration",
        origin={"store": "sunbird", "table": str(origin)},
        target={"store": "reports", "table": f"{keyspace}.{table}"},
        token_ranges=RANGES,
        workers=1,
        retry_seconds=20,
        tracking_keyspace=tracking,
    )
    return dg.AssetKey(["reports", keyspace, table])


def test_two_tables_of_one_name_are_tracked_side_by_side_and_kept_apart(
    tmp_path, cassandra, connection: Connection, reader, keyspace, other_keyspace, tracking
) -> None:
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    keyspaces = {"first": keyspace, "second": other_keyspace}
    assets = {
        name: declare_one(project, connection, name, each, tracking, "orders")
        for name, each in keyspaces.items()
    }
    outputs = {}
    processes = {}
    try:
        for name, asset in assets.items():
            path = asset.to_user_string()
            both = f"{path},{path}_diff"
            processes[name] = project.start_dg(
                "launch", "--assets", both, "--partition-range", EVERYTHING
            )
            outputs[name] = Output(processes[name])
        for name, process in processes.items():
            assert process.wait(4 * PATIENCE_SECONDS) == 0, outputs[name].read_to_end()
    finally:
        for name, process in processes.items():
            end_tree(process)
            outputs[name].close()

    ids = {}
    for name, each in keyspaces.items():
        (told,) = shown(project, f"{each}.orders")
        assert told["migration"] == f"reports/{each}.orders"
        assert sorted(run["run_type"] for run in told["runs"]) == [MIGRATE, VALIDATE]
        ids[name] = {run["run_id"] for run in told["runs"]}
        for run_id in ids[name]:
            ranges = shown(project, f"{each}.orders", "--run", str(run_id))["ranges"]
            assert [row["status"] for row in ranges] == ["PASS"] * RANGES
        folder = tmp_path / f"report_{name}"
        line = ["report", f"{each}.orders", "--output", str(folder)]
        written = CliRunner().invoke(main, [*line, "--project", str(project.folder)])
        assert written.exit_code == 0, written.output
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        assert {int(run["run_id"]) for run in summary["runs"]} == ids[name]
    assert ids["first"].isdisjoint(ids["second"])
    listed = reader.execute(f"SELECT run_id FROM {tracking}.cdm_run_info WHERE table_name='orders'")
    assert {row["run_id"] for row in listed} == ids["first"] | ids["second"]

    # A run of the other one cannot be asked for, nor be resumed from.
    stranger = max(ids["second"])
    asked = ["status", f"{keyspace}.orders", "--run", str(stranger)]
    refused = CliRunner().invoke(main, [*asked, "--project", str(project.folder)])
    assert refused.exit_code == 1
    assert f"reports/{keyspace}.orders has no run {stranger}" in refused.output
    step = "__".join(assets["first"].path)
    config = {"ops": {step: {"config": {"resume": str(stranger)}}}}
    run = project.run(assets=[assets["first"]], config=config)
    assert f"run id {stranger} is a run of reports/{other_keyspace}.orders" in run.error
    config = {"ops": {step: {"config": {"resume": "auto"}}}}
    resumed = project.run(assets=[assets["first"]], config=config).assert_success()
    carried = resumed.materializations(assets["first"]).values()
    assert {found["carried_over_from"] for found in carried} == {str(min(ids["first"]))}
