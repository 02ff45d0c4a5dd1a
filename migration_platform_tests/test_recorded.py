"""What an earlier version recorded counts: names, fingerprints, and a run left half done."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from cassandra.cluster import Session
from click.testing import CliRunner

from migration_platform.cli import main
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, Project, make_project
from migration_platform_tests.recorded import facts
from migration_platform_tests.recorded import run as recorded
from migration_platform_tests.recorded.declarations import DECLARED, TOLD_IN_FULL

pytestmark = DAGSTERS_OWN_WARNINGS
EVERYTHING = f"{recorded.KEYS[0]}...{recorded.KEYS[-1]}"
TARGET, DIFF, LETTERS = (
    dg.AssetKey(["reports", *f"{recorded.TARGET}{what}".split(".")])
    for what in ("", "_diff", "_dead_letters")
)


@pytest.fixture(scope="module")
def tables(connection: Connection) -> Iterator[None]:
    with facts.tables_made(connection):
        yield


@pytest.fixture(scope="module")
def now(
    tables: None,
    cassandra: Running,
    connection: Connection,
    dynamo: DynamoDb,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The facts of all declarations as this code tells them."""
    folder = tmp_path_factory.mktemp("recorded")
    return facts.gather(folder, DECLARED, connection, dynamo, cassandra.port)


then = facts.read_file()
TABLES = [name for name in DECLARED if "fingerprint" in then[name]]


def told(found: dict[str, Any], names: Iterable[str], *wanted: str) -> dict[str, dict[str, Any]]:
    """The facts that are wanted, by declaration."""
    return {name: {fact: found[name][fact] for fact in wanted} for name in names}


# Few tests for many declarations, for each process that runs one of them needs all the tables.


def test_ranges_that_were_copied_and_compared_before_still_count(now: dict[str, Any]) -> None:
    wanted = ("fingerprint", "fingerprint_of_another_table", "comparison")
    assert len(TABLES) > 50
    assert told(now, TABLES, *wanted) == told(then, TABLES, *wanted)


def test_runs_and_dead_letters_are_found_under_the_names_of_before(now: dict[str, Any]) -> None:
    wanted = ("tracked_as", "tracked_in", "letters_as")
    assert told(now, TABLES, *wanted) == told(then, TABLES, *wanted)


def test_checks_jobs_schedules_and_sensors_have_the_names_of_before(now: dict[str, Any]) -> None:
    wanted = ("checks", "jobs", "schedules", "sensors")
    assert told(now, DECLARED, *wanted) == told(then, DECLARED, *wanted)


def test_assets_have_the_names_partitions_steps_and_tags_of_before(now: dict[str, Any]) -> None:
    assert all(isinstance(then[name]["assets"], dict) for name in TOLD_IN_FULL)
    assert told(now, DECLARED, "assets") == told(then, DECLARED, "assets")


def test_a_plan_of_a_tenants_move_that_was_made_before_is_still_its_plan(
    now: dict[str, Any],
) -> None:
    assert now["tenant"]["fingerprints"] == then["tenant"]["fingerprints"]


# -- a run that was left half done -----------------------------------------------------------------


@pytest.fixture
def left(
    tables: None, tmp_path: Path, cassandra: Running, connection: Connection, reader: Session
) -> Iterator[Project]:
    """The project, instance and tables as the run left them, on servers of today."""
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    project.declare("half", "TableMigration", **recorded.DECLARED)
    with recorded.tracking_keyspace(reader):
        recorded.fill_origin(reader)
        recorded.restore_run(reader, project.home)
        yield project
        for table in (recorded.ORIGIN, recorded.TARGET):
            reader.execute(f"TRUNCATE {table}")


def status(project: Project, *arguments: str) -> str:
    """Run `migration-platform status` on the project, within this process."""
    result = CliRunner().invoke(main, ["status", *arguments, "--project", str(project.folder)])
    assert result.exit_code == 0, result.output
    return result.output


def rows_before(table: str) -> list[dict[str, Any]]:
    """The rows of a table of tracked runs as they were recorded."""
    rows = recorded.read_file()["rows"][f"{recorded.TRACKED_IN}.{table}"]
    return [json.loads(row) for row in rows]


def run_id_before(run_type: str) -> int:
    (found,) = [row for row in rows_before("cdm_run_info") if row["run_type"] == run_type]
    return found["run_id"]


def own_tags(tags: Mapping[str, str]) -> set[str]:
    return {name for name in tags if name.startswith("migration_platform/")}


def metadata_of(project: Project, asset: dg.AssetKey, key: str) -> dict[str, Any]:
    """The metadata of a range's newest materialization."""
    with project.instance() as instance:
        wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[key])
        (record,) = instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return dict(record.asset_materialization.metadata)


def test_a_run_of_before_is_shown_with_what_failed_and_differed(left: Project) -> None:
    begun = {key: "failed" if key == recorded.FAILED else "success" for key in recorded.BEGUN}
    assert left.statuses(TARGET) == dict.fromkeys(recorded.KEYS, "none") | begun
    copy, verdict = run_id_before("MIGRATE"), run_id_before("VALIDATE")

    (shown,) = json.loads(status(left, "--json"))

    assert [run["run_id"] for run in shown["runs"]] == [verdict, copy]
    assert {run["status"] for run in shown["runs"]} == {"ENDED"}
    failed = status(left, recorded.TARGET, "--failed")
    (range_that_failed,) = [line for line in failed.splitlines() if " FAIL " in line]
    assert "Partitions Failed: 1" in range_that_failed
    (range_that_differs,) = [line for line in failed.splitlines() if " DIFF " in line]
    assert "Missing: 1;" in range_that_differs


def test_letters_of_before_are_replayed(left: Project, reader: Session) -> None:
    recorded.repair_origin(reader)
    known = len(rows_before("dead_letters"))

    replay = left.run(None, assets=[LETTERS]).assert_success()

    said = replay.materializations(LETTERS)[None]
    assert (said["replayed"], said["gone"], said["dead_letters"]) == (known, 0, 0)
    arrived = list(reader.execute(f"SELECT * FROM {recorded.TARGET} WHERE status = 'mended'"))
    assert len(arrived) == known == 2


def test_a_resumed_run_counts_the_ranges_of_before_and_copies_the_others(
    left: Project, reader: Session
) -> None:
    tags_before = own_tags(left.runs()[0].tags)
    names_before = {
        asset: set(metadata_of(left, asset, recorded.DONE[0])) for asset in (TARGET, DIFF)
    }
    recorded.repair_origin(reader)
    left.run(None, assets=[LETTERS]).assert_success()

    config = {"ops": {"reports__recorded__by_status": {"config": {"resume": "auto"}}}}
    resumed = left.run(EVERYTHING, config=config).assert_success()

    copies, verdicts = resumed.materializations(TARGET), resumed.materializations(DIFF)
    for found, run_type, kept in (
        (copies, "MIGRATE", sorted([*recorded.DONE, recorded.LETTER])),
        (verdicts, "VALIDATE", recorded.DONE),
    ):
        before = str(run_id_before(run_type))
        carried = {key: said.get("carried_over_from") for key, said in found.items()}
        assert carried == {key: before if key in kept else None for key in recorded.KEYS}
    assert resumed.checks.keys() >= {"row_counts_match", "all_ranges_match", "no_dead_letters"}
    assert all(check.passed for check in resumed.checks.values())
    assert left.statuses(TARGET) == dict.fromkeys(recorded.KEYS, "success")
    rows = {
        (row["region"], row["id"], row["name"], row["status"])
        for table in (recorded.ORIGIN, recorded.TARGET)
        for row in reader.execute(f"SELECT region, id, name, status FROM {table}")
    }
    assert len(rows) == sum(said["origin_rows"] for said in verdicts.values())

    # What is written goes by the names of before, and into the tables of before as they are.
    assert own_tags(resumed.tags) == tags_before != set()
    for asset, found in ((TARGET, copies), (DIFF, verdicts)):
        assert names_before[asset] <= found[recorded.KEYS[-1]].keys()
    assert recorded.describe_tables(reader) == recorded.read_file()["tables"]
    for table in ("cdm_run_info", "cdm_run_details"):
        found = reader.execute(f"SELECT * FROM {recorded.TRACKED_IN}.{table}")
        assert shapes(found) == shapes(rows_before(table))


def shapes(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """The texts of rows that passed, with any number for a number."""
    texts = {(row.get("run_type", ""), row["status"], row["run_info"]) for row in rows}
    return {
        re.sub(r"[0-9]+", "N", f"{run_type} {state} {text}")
        for run_type, state, text in texts
        if state in ("PASS", "ENDED")
    }
