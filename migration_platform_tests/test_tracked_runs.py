"""Tracked runs through Dagster: tables and event log agree, and what has passed is carried over."""

import json
import re
import time
import uuid
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster import DagsterEventType, DagsterRunStatus

from migration_platform.cli import main
from migration_platform.components.projects import find_migrations
from migration_platform.runs.tracking import migration_key
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    EVERYTHING,
    KEYS,
    RANGES,
    ROWS,
    Move,
    Output,
    descendants,
    end_tree,
    gone,
    make_project,
    wait_until,
)

pytestmark = DAGSTERS_OWN_WARNINGS

KEYSPACE = "migration_platform"


@pytest.fixture
def tracked(move: Move) -> Move:
    """The migration into a table whose name no other test has: tables tell no keyspace."""
    name = f"enrolments_{uuid.uuid4().hex[:8]}"
    metadata = move.connection.cluster.metadata
    assert metadata is not None
    assert metadata.keyspaces is not None
    found = metadata.keyspaces[move.keyspace].tables[move.target_name]
    statement = found.as_cql_query().replace(f".{move.target_name} ", f".{name} ", 1)
    move.connection.session.execute(statement)
    move.target_name = name
    move.declare()
    return move


def key_of(move: Move) -> str:
    return f"reports/{move.keyspace}.{move.target_name}"


def runs_of(move: Move, run_type: str) -> list[dict[str, Any]]:
    """Give the tracked runs of a type, the newest first."""
    rows = move.reader.execute(
        f"SELECT * FROM {KEYSPACE}.cdm_run_info WHERE table_name=%s ORDER BY run_id DESC",
        (move.target_name,),
    )
    return [row for row in rows if row["run_type"] == run_type]


def details_of(move: Move, run_id: int) -> list[dict[str, Any]]:
    return list(
        move.reader.execute(
            f"SELECT * FROM {KEYSPACE}.cdm_run_details WHERE table_name=%s AND run_id=%s "
            "ORDER BY token_min",
            (move.target_name, run_id),
        )
    )


def links_of(move: Move) -> dict[int, dict[str, Any]]:
    """Give what `migration_runs` says, by run id."""
    rows = move.reader.execute(
        f"SELECT * FROM {KEYSPACE}.migration_runs WHERE migration=%s", (key_of(move),)
    )
    return {row["run_id"]: row for row in rows}


def command(move: Move, *arguments: str) -> str:
    """Run `migration-platform` on the project, within this process."""
    result = CliRunner().invoke(main, [*arguments, "--project", str(move.project.folder)])
    assert result.exit_code == 0, result.output
    return result.output


def test_runs_are_tracked_resumed_and_carried_over(tracked: Move) -> None:
    move = tracked
    move.add_a_row_that_the_target_refuses(KEYS[3])
    first = move.project.run()

    assert not first.success
    (copy,), (verdict,) = runs_of(move, "MIGRATE"), runs_of(move, "VALIDATE")
    assert verdict["run_id"] > copy["run_id"] > 10**18
    assert [copy["status"], verdict["status"]] == ["ENDED", "ENDED"]
    assert copy["end_time"] >= copy["start_time"]
    details = details_of(move, copy["run_id"])
    assert len(details) == RANGES
    assert [row["status"] for row in details] == ["PASS"] * 3 + ["FAIL"] + ["PASS"] * 4
    counts = read_counts(copy["run_info"])
    assert counts["Partitions Passed"] == 7
    assert counts["Partitions Failed"] == 1
    assert counts["Read"] == ROWS + 1 == counts["Write"] + counts["Skipped"] + counts["Error"]
    assert counts["Error"] >= 1
    for row, key in zip(details, KEYS, strict=True):
        if row["status"] == "PASS":
            rows = len(move.origin_rows(key))
            assert row["run_info"].startswith(f"Read: {rows}; Write: {rows}; Skipped: 0; Error: 0;")
    assert [row["status"] for row in details_of(move, verdict["run_id"])] == ["PASS"] * 7
    # Both sides name the other.
    assert {row["dagster_run_id"] for row in links_of(move).values()} == {first.run_id}
    assert {m["tracked_run_id"] for m in first.materializations(move.target).values()} == {
        str(copy["run_id"])
    }
    assert {m["tracked_run_id"] for m in first.materializations(move.diff).values()} == {
        str(verdict["run_id"])
    }
    assert_log_reads_as_the_data_migrators(move, first.run_id, copy["run_id"])

    remove_the_row_that_the_target_refuses(move)
    resumed = move.project.run(config=move.step_config(resume="auto")).assert_success()

    again = runs_of(move, "MIGRATE")[0]
    assert again["prev_run_id"] == copy["run_id"]
    (row,) = details_of(move, again["run_id"])
    assert (row["token_min"], row["status"]) == (details[3]["token_min"], "PASS")
    # Only what was pending was read.
    assert read_counts(again["run_info"])["Read"] == len(move.origin_rows(KEYS[3]))
    copies = resumed.materializations(move.target)
    carried = {key: found.get("carried_over_from") for key, found in copies.items()}
    assert carried == {k: None if k == KEYS[3] else str(copy["run_id"]) for k in KEYS}
    for key in KEYS:
        rows = len(move.origin_rows(key))
        assert (copies[key]["rows_read"], copies[key]["rows_written"]) == (rows, rows)
    verdicts = resumed.materializations(move.diff)
    assert [key for key in KEYS if "carried_over_from" not in verdicts[key]] == [KEYS[3]]
    assert f"1 partitions pending from previous run id {copy['run_id']}" in (
        move.project.messages_of(resumed.run_id)
    )
    move.assert_same_rows()
    assert move.check("all_ranges_match")[0] is True

    # Nothing is pending any more: no new run, and all is still green.
    known = set(links_of(move))
    idle = move.project.run(config=move.step_config(resume=str(again["run_id"])))
    idle.assert_success()
    assert set(links_of(move)) == known
    assert set(idle.materializations(move.target)) == set(KEYS)
    assert move.check("all_ranges_match")[0] is True
    assert_status_shows(move, [again, copy])

    # A selected range is always copied, unless somebody says resume.
    move.project.run(KEYS[0], assets=[move.target]).assert_success()
    newest = runs_of(move, "MIGRATE")[0]
    assert [r["token_min"] for r in details_of(move, newest["run_id"])] == [details[0]["token_min"]]

    # Another declaration copies other rows: nothing that was copied before counts.
    move.declare(filter={"where": "userid > ''"}, diff={"mode": "origin_only"})
    changed = move.project.run(KEYS[1], config=move.step_config(resume="auto"))
    assert "carried_over_from" not in changed.materializations(move.target)[KEYS[1]]


def remove_the_row_that_the_target_refuses(move: Move) -> None:
    (row,) = (row for row in move.origin_rows() if row["batchid"] == "")
    move.reader.execute(
        f"DELETE FROM {move.keyspace}.{move.origin_name} "
        "WHERE userid=%s AND courseid=%s AND batchid=''",
        (row["userid"], row["courseid"]),
    )


def read_counts(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"([A-Z][A-Za-z ]+): (\d+)", text)}


def assert_log_reads_as_the_data_migrators(move: Move, dagster_id: str, run_id: int) -> None:
    lines = move.project.messages_of(dagster_id).splitlines()
    for what in ("Migrate Job - Starting", "Migrate Job - Stopped", "Validate Job - Starting"):
        assert len([line for line in lines if what in line]) == 1
    for line in (
        "PARAM -- Min Partition: -9223372036854775808",
        f"PARAM -- Number of Splits: {RANGES}",
        "PARAM -- Track Run: true",
        f"PARAM -- RunId: {run_id}",
        "PARAM -- Coverage Percent: 100",
        f"PARAM Calculated -- Total Partitions: {RANGES}",
        f"RunId: {run_id}",
        f"Final Read Record Count: {ROWS + 1}",
        "Final Partitions Failed: 1",
    ):
        assert line in lines
    assert any(f"Run Id for this job is: {run_id} " in line for line in lines)
    ranges = [line for line in lines if re.match(r"ThreadID: \d+ Processing min: -?\d+ max:", line)]
    assert len(ranges) == RANGES
    assert len([line for line in lines if line.startswith("Error with PartitionRange -- ")]) == 1
    assert len([line for line in lines if line.startswith("Error stats Read: ")]) == 1


def assert_status_shows(move: Move, copies: list[dict[str, Any]]) -> None:
    name = f"{move.keyspace}.{move.target_name}"
    told = command(move, "status", name)
    ids = [str(row["run_id"]) for row in copies]
    assert told.startswith(f"{key_of(move)}: rate: no limit\n")
    assert told.index(ids[0]) < told.index(ids[1])
    failed = command(move, "status", name, "--run", ids[1], "--failed")
    assert len([line for line in failed.splitlines() if " FAIL " in line]) == 1
    assert "PASS" not in failed.replace("Passed", "")
    report = json.loads(command(move, "status", move.target.to_user_string(), "--json"))
    assert [run["run_id"] for run in report[0]["runs"] if run["run_type"] == "MIGRATE"] == [
        int(each) for each in ids
    ]
    ranges = json.loads(command(move, "status", name, "--run", ids[1], "--json"))["ranges"]
    assert [row["token_min"] for row in ranges] == sorted(row["token_min"] for row in ranges)
    assert len(ranges) == RANGES


def test_status_shows_what_failed_in_the_newest_run_of_each_kind_and_why(tracked: Move) -> None:
    move, name = tracked, f"{tracked.keyspace}.{tracked.target_name}"
    move.project.run(KEYS[7]).assert_success()
    move.add_a_row_that_the_target_refuses(KEYS[3])
    move.project.run(f"{KEYS[3]}...{KEYS[7]}", config=move.step_config(run_id=42))
    (copy, _), (verdict, _) = runs_by_time(move, "MIGRATE"), runs_by_time(move, "VALIDATE")
    assert copy["run_id"] == 42

    failed = command(move, "status", name, "--failed")

    lines = failed.splitlines()
    (range_that_failed,) = [line for line in lines if " FAIL " in line]
    assert "Key may not be empty" in range_that_failed
    assert "Partitions Failed: 1" in range_that_failed
    for found in (copy, verdict):
        assert [line for line in lines if line.lstrip().startswith(f"{found['run_id']} ")]
    assert f"no such ranges in the VALIDATE run {verdict['run_id']}" in failed
    report = json.loads(command(move, "status", name, "--failed", "--json"))
    assert [run["run_id"] for run in report["runs"]] == [verdict["run_id"], 42]
    (told,) = report["ranges"]
    assert (told["run_id"], told["status"]) == (42, "FAIL")
    assert "Key may not be empty" in told["reason"]

    # Six comparisons later the newest copy is still there, and what differs has its reason.
    user = move.origin_rows(KEYS[5])[0]["userid"]
    move.execute(
        f"INSERT INTO {{target}} (userid, courseid, batchid) VALUES ('{user}', 'new', 'new')"
    )
    for _ in range(6):
        move.project.run(KEYS[5], assets=[move.diff])
    failed = command(move, "status", name, "--failed")
    assert "Key may not be empty" in failed
    (range_that_differs,) = [line for line in failed.splitlines() if " DIFF " in line]
    assert range_that_differs.endswith("0 missing, 1 extra, 0 mismatched rows")
    listed = command(move, "status")
    assert re.search(r"^  42 +MIGRATE", listed, re.MULTILINE)

    # Programs that write no times, and ranges that were never done.
    move.reader.execute(
        f"INSERT INTO {KEYSPACE}.cdm_run_info (table_name, run_id, run_type, status) "
        "VALUES (%s, 7, 'GUARDRAIL', 'STARTED')",
        (move.target_name,),
    )
    for token, status in ((1, "NOT_STARTED"), (2, "STARTED"), (3, "PASS"), (4, "FAIL")):
        move.reader.execute(
            f"INSERT INTO {KEYSPACE}.cdm_run_details (table_name, run_id, token_min, token_max, "
            "status) VALUES (%s, 7, %s, %s, %s)",
            (move.target_name, token, token, status),
        )
    report = json.loads(command(move, "status", name, "--failed", "--json"))
    assert [run["run_type"] for run in report["runs"]] == ["VALIDATE", "MIGRATE", "GUARDRAIL"]
    assert [row["reason"] for row in report["ranges"] if row["run_id"] == 7] == [
        "not begun yet",
        "under way when the run was last seen",
        "",
    ]


def runs_by_time(move: Move, run_type: str) -> list[dict[str, Any]]:
    return sorted(runs_of(move, run_type), key=lambda row: row["start_time"], reverse=True)


def test_a_run_of_another_program_is_resumed_and_its_ranges_cut(tracked: Move) -> None:
    move = tracked
    # The first range and a half were copied by a program that cuts the ring otherwise.
    move.project.run(f"{KEYS[0]}...{KEYS[1]}", assets=[move.target]).assert_success()
    (own,) = runs_of(move, "MIGRATE")
    low, high = details_of(move, own["run_id"])
    middle = (high["token_min"] + high["token_max"]) // 2
    move.reader.execute(
        f"INSERT INTO {KEYSPACE}.cdm_run_info (table_name, run_id, run_type, status, start_time) "
        "VALUES (%s, 77, 'MIGRATE', 'STARTED', toTimestamp(now()))",
        (move.target_name,),
    )
    for start, end, status in (
        (low["token_min"], middle, "PASS"),
        (middle + 1, 2**63 - 1, "STARTED"),
    ):
        move.reader.execute(
            f"INSERT INTO {KEYSPACE}.cdm_run_details (table_name, run_id, token_min, token_max, "
            "status, run_info) VALUES (%s, 77, %s, %s, %s, 'Read: 5; Write: 5')",
            (move.target_name, start, end, status),
        )

    run = move.project.run(
        f"{KEYS[0]}...{KEYS[2]}",
        config=move.step_config(resume="77", split_pending=3, run_id=78),
    ).assert_success()

    move.assert_same_rows(*KEYS[:3])
    rows = details_of(move, 78)
    assert [row["status"] for row in rows] == ["PASS"] * 6
    assert rows[0]["token_min"] == middle + 1
    (info,) = [row for row in runs_of(move, "MIGRATE") if row["run_id"] == 78]
    assert (info["prev_run_id"], info["status"]) == (77, "ENDED")
    copies = run.materializations(move.target)
    assert [copies[key].get("carried_over_from") for key in KEYS[:3]] == ["77", "77", None]

    # The id is taken now; a run that was never seen starts anew, and says so.
    refused = move.project.run(KEYS[0], config=move.step_config(run_id=78))
    assert f"Run id 78 already exists for table {move.target_name}" in refused.error
    fresh = move.project.run(KEYS[0], config=move.step_config(resume="4711")).assert_success()
    assert "Run NOT FOUND / NOT STARTED for Previous RunId: 4711, starting new run!" in (
        move.project.messages_of(fresh.run_id)
    )
    assert runs_of(move, "MIGRATE")[0]["prev_run_id"] == 4711
    assert "carried_over_from" not in fresh.materializations(move.target)[KEYS[0]]


def test_ranges_that_differ_are_copied_again_by_the_id_of_their_comparison(tracked: Move) -> None:
    move = tracked
    move.project.run().assert_success()
    user = move.origin_rows(KEYS[5])[0]["userid"]
    move.execute(
        f"INSERT INTO {{origin}} (userid, courseid, batchid) VALUES ('{user}', 'new', 'new')"
    )
    assert not move.project.run(assets=[move.diff]).success
    verdict = runs_of(move, "VALIDATE")[0]
    states = [row["status"] for row in details_of(move, verdict["run_id"])]
    assert states == ["PASS"] * 5 + ["DIFF"] + ["PASS"] * 2
    counts = read_counts(verdict["run_info"])
    assert (counts["Read"], counts["Valid"], counts["Missing"]) == (ROWS + 1, ROWS, 1)

    config = move.step_config(resume=verdict["run_id"])
    move.project.run(config=config).assert_success()

    move.assert_same_rows()
    copy, again = runs_of(move, "MIGRATE")[0], runs_of(move, "VALIDATE")[0]
    assert copy["prev_run_id"] == again["prev_run_id"] == verdict["run_id"]
    for run in (copy, again):
        (row,) = details_of(move, run["run_id"])
        assert row["status"] == "PASS"
    assert move.check("all_ranges_match")[0] is True


def test_what_another_declaration_did_since_is_not_carried_over(tracked: Move) -> None:
    move, some = tracked, f"{KEYS[0]}...{KEYS[1]}"
    move.project.run(some).assert_success()
    (first,) = runs_of(move, "MIGRATE")
    # Its cells are the newest now, and those of the first run are gone.
    move.declare(writetime="now", ttl="none")
    move.project.run(KEYS[0], assets=[move.target]).assert_success()

    move.declare(diff={"mode": "origin_only"})
    run = move.project.run(some, config=move.step_config(resume="auto")).assert_success()

    copies = run.materializations(move.target)
    assert [copies[key].get("carried_over_from") for key in KEYS[:2]] == [
        None,
        str(first["run_id"]),
    ]
    # A verdict of another way to compare does not hold.
    verdicts = run.materializations(move.diff)
    assert [verdicts[key].get("carried_over_from") for key in KEYS[:2]] == [None, None]


def test_after_an_emptied_target_nothing_is_carried_over(tracked: Move) -> None:
    move = tracked
    move.project.run(assets=[move.target]).assert_success()
    (before,) = runs_of(move, "MIGRATE")
    move.project.run(
        assets=[move.target], config=move.step_config(truncate_target=True)
    ).assert_success()

    run = move.project.run(
        KEYS[0], assets=[move.target], config=move.step_config(resume=str(before["run_id"]))
    ).assert_success()
    assert "carried_over_from" not in run.materializations(move.target)[KEYS[0]]
    assert f"Nothing is carried over from run id {before['run_id']}" in (
        move.project.messages_of(run.run_id)
    )
    refused = move.project.run(config=move.step_config(resume="auto", truncate_target=True))
    assert (
        "resume keeps what was copied before, and truncate_target would empty it" in refused.error
    )


def test_a_run_without_tracking_leaves_no_trace_and_cannot_be_resumed(tracked: Move) -> None:
    tracked.declare(tracking=False)
    tracked.project.run(KEYS[0]).assert_success()
    assert runs_of(tracked, "MIGRATE") == []
    refused = tracked.project.run(KEYS[0], config=tracked.step_config(resume="auto"))
    assert "resume and run_id need tracked runs" in refused.error


def test_a_run_is_paused_killed_and_resumed(tracked: Move) -> None:
    move, name = tracked, f"{tracked.keyspace}.{tracked.target_name}"
    # Slow enough for a busy machine: a command takes seconds to start, the copy must outlast it.
    move.declare(origin={"rows_per_second": 6, "fetch_size": 2}, workers=2)
    process = move.project.start_dg(
        "launch", "--assets", move.selection, "--partition-range", EVERYTHING
    )
    output = Output(process)
    try:
        wait_until(lambda: "(1 of 8 ranges)" in output.text, 120, "a range was copied")
        assert "paused" in command(move, "pause", name)
        wait_until(lambda: "Paused since" in output.text, 60, "the run paused")
        assert f"until `migration-platform continue {name}`" in output.text
        time.sleep(0.3)
        held = len(move.target_rows())
        assert held < ROWS
        time.sleep(1.0)
        assert len(move.target_rows()) == held
        assert process.poll() is None
        told = command(move, "status", name)
        assert re.search(r"STARTED .* not yet; seen \d+ s ago", told)
        workers = descendants(process.pid)
        process.kill()
        output.wait(60)
        assert gone(workers, 5)
    finally:
        end_tree(process)
        output.close()

    (dead,) = runs_of(move, "MIGRATE")
    assert (dead["status"], dead["end_time"]) == ("STARTED", None)
    assert_tables_claim_nothing_that_dagster_does_not(move, dead["run_id"])
    passed = {k for k, s in move.project.statuses(move.target).items() if s == "success"}
    assert passed

    # Were the run killed between the two notes, Dagster's would be there and the table's not.
    victim = next(r for r in details_of(move, dead["run_id"]) if r["status"] == "PASS")
    move.reader.execute(
        f"UPDATE {KEYSPACE}.cdm_run_details SET status='STARTED', run_info=null "
        "WHERE table_name=%s AND run_id=%s AND token_min=%s",
        (move.target_name, dead["run_id"], victim["token_min"]),
    )
    move.declare()
    assert "paused" not in command(move, "continue", name)
    # The command of docs/running.md.
    move.project.run_dg(
        "launch",
        "--assets",
        move.selection,
        "--partition-range",
        EVERYTHING,
        "--config-json",
        json.dumps(move.step_config(resume="auto")),
    ).assert_success()

    move.assert_same_rows()
    assert move.check("all_ranges_match")[0] is True
    carried = {
        event.partition
        for event in materializations_of(move, move.project.runs()[0].run_id)
        if "carried_over_from" in event.metadata and event.asset_key == move.target
    }
    assert carried == passed
    settled = {row["token_min"]: row for row in details_of(move, dead["run_id"])}
    assert settled[victim["token_min"]]["status"] == "PASS"
    assert settled[victim["token_min"]]["run_info"] == victim["run_info"]
    assert_tables_claim_nothing_that_dagster_does_not(move, dead["run_id"])
    assert runs_of(move, "MIGRATE")[1]["status"] == "STARTED"
    assert [run.status for run in move.project.runs()] == [
        DagsterRunStatus.SUCCESS,
        DagsterRunStatus.FAILURE,
    ]


def materializations_of(move: Move, dagster_id: str) -> list[dg.AssetMaterialization]:
    """Give the ranges that a run has shown as materialized."""
    with move.project.instance() as instance:
        entries = instance.all_logs(dagster_id, DagsterEventType.ASSET_MATERIALIZATION)
    found = [entry.asset_materialization for entry in entries]
    return [event for event in found if event is not None and event.partition]


def assert_tables_claim_nothing_that_dagster_does_not(move: Move, run_id: int) -> None:
    """Compare the ranges that have passed with the materializations of that very run."""
    dagster_id = links_of(move)[run_id]["dagster_run_id"]
    shown = {str(event.metadata["tokens"].value) for event in materializations_of(move, dagster_id)}
    first = -(2**63)
    claimed = {
        f"({row['token_min'] if row['token_min'] == first else row['token_min'] - 1}, "
        f"{row['token_max']}]"
        for row in details_of(move, run_id)
        if row["status"] == "PASS"
    }
    assert claimed <= shown


# -- what the commands refuse ----------------------------------------------------------------------


REFUSED = {
    "status shop.orders": "no migration is called shop.orders; valid are reports/",
    "pause shop.orders": "no migration is called shop.orders; valid are reports/",
    "rate {name} --origin-rows 0": "--origin-rows is 0; valid are 1 to 1000000000",
    "rate {name} --origin-rows 1 --default": "--default takes all limits back",
    "status --failed": "--run and --failed need a MIGRATION",
    "status {name} --run 4": "has no run 4; the newest are none yet",
}


def test_a_command_says_what_would_be_valid(tracked: Move) -> None:
    name = f"{tracked.keyspace}.{tracked.target_name}"
    for line, sentence in REFUSED.items():
        given = line.format(name=name).split()
        result = CliRunner().invoke(main, [*given, "--project", str(tracked.project.folder)])
        assert result.exit_code != 0, line
        assert sentence in result.output
        assert "Traceback" not in result.output
    assert command(tracked, "rate", name, "--target-rows", "5").endswith(
        "rate: target 5 rows/s (set)\n"
    )
    assert command(tracked, "rate", name, "--default").endswith("rate: no limit\n")


def test_the_tables_of_a_keyspace_migration_are_found_too(tmp_path: Path) -> None:
    project = make_project(tmp_path, cassandra_port=9)
    project.declare(
        "shop",
        "KeyspaceMigration",
        origin={"store": "sunbird", "keyspace": "shop"},
        target={"store": "reports"},
    )
    state = project.defs_folder / ".local_defs_state"
    file = state / "KeyspaceMigration__sunbird.shop-__reports.shop__" / "state"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"origin": "sunbird.shop", "tables": ["a", "b"], "views": []}))

    found = [migration_key(each.migration) for each in find_migrations(project.folder)]
    assert found == ["reports/shop.a", "reports/shop.b"]


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["status", "--project", str(tmp_path)])
    assert result.exit_code == 1
    assert "is no Dagster project: it has no pyproject.toml" in result.output
