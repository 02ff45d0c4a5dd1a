"""A run's report as files, from real runs: what it tells, what it never tells, what it refuses."""

import csv
import json
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from cassandra.cluster import Session
from click.testing import CliRunner, Result

from migration_platform.cli import main
from migration_platform.local.stack import Running
from migration_platform.runs.run_report import Piece, RunFacts, throughput, told_reason
from migration_platform.token_ranges import range_of_key
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    ROWS,
    Move,
    Project,
    make_project,
)
from migration_platform_tests.roles import Roles
from migration_platform_tests.test_dynamodb_runs import Users, users  # noqa: F401, a fixture

pytestmark = DAGSTERS_OWN_WARNINGS

MORE_THAN_SAMPLES = 35


def write_report(project: Project, name: str, folder: Path, *options: str, **env: str) -> Result:
    line = ["report", name, "--output", str(folder), *options, "--project", str(project.folder)]
    return CliRunner().invoke(main, line, env={"DAGSTER_HOME": str(project.home), **env})


@pytest.fixture
def tracked(move: Move) -> Move:
    """The sample migration, tracked in the test's own keyspace."""
    move.declare(tracking_keyspace=move.keyspace)
    return move


class Read:
    """A report that was written, as its reader finds it."""

    def __init__(self, move: Move, folder: Path, *options: str, name: str = ""):
        name = name or f"{move.keyspace}.{move.target_name}"
        self.result = write_report(move.project, name, folder, *options)
        assert self.result.exit_code == 0, self.result.output
        self.folder = folder
        self.told = json.loads((folder / "summary.json").read_text("utf-8"))
        self.text = (folder / "summary.md").read_text("utf-8")

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def differing(self) -> list[dict[str, str]]:
        return self.rows("differing_keys.csv")

    @property
    def rejected(self) -> list[dict[str, str]]:
        return self.rows("rejected_rows.csv")

    @property
    def everything(self) -> str:
        return "\n".join(path.read_text("utf-8") for path in self.folder.iterdir())


def where(row: dict[str, Any]) -> str:
    return " AND ".join(f"{name}='{row[name]}'" for name in ("userid", "courseid", "batchid"))


def rows_behind(session: Session, table: str, found: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Read a table with each key of a file, pasted behind WHERE."""
    return [
        row
        for each in found
        for row in session.execute(f"SELECT * FROM {table} WHERE {each['key']}")
    ]


def test_a_run_without_a_difference_is_told_in_numbers_and_nothing_is_to_do(
    tracked: Move, tmp_path: Path
) -> None:
    run = tracked.project.run().assert_success()

    report = Read(tracked, tmp_path / "report")

    copy, comparison = report.told["runs"]
    assert [each["type"] for each in (copy, comparison)] == ["MIGRATE", "VALIDATE"]
    assert {each["dagster_run_id"] for each in (copy, comparison)} == {run.run_id}
    assert (copy["status"], copy["ranges"]) == ("ENDED", {"PASS": RANGES})
    assert (copy["counts"]["Read"], copy["counts"]["Write"]) == (ROWS, ROWS)
    assert comparison["counts"]["Valid"] == ROWS
    assert copy["seconds"] > 0
    assert copy["rows_per_second"] == pytest.approx(ROWS / copy["seconds"], rel=0.01)
    assert copy["retries"] == 0
    assert (copy["not_done"], comparison["not_done"]) == ([], [])
    intervals = copy["throughput"]
    assert 1 <= len(intervals) <= 20
    assert sum(each["ranges_done"] for each in intervals) == RANGES
    assert abs(sum(each["rows"] for each in intervals) - ROWS) <= len(intervals)
    assert comparison["throughput"] == []
    (step,) = report.told["next_steps"]
    assert step.startswith(f"Nothing: all {RANGES} ranges of the run were copied and compared")
    assert step in report.text
    assert (report.differing, report.rejected) == ([], [])
    assert {path.name for path in report.folder.iterdir()} == {
        "summary.md", "summary.json", "differing_keys.csv", "rejected_rows.csv"
    }  # fmt: skip
    for line in ("| state | ENDED |", f"Write: {ROWS}", "| retries | 0 |", "Throughput over time"):
        assert line in report.text


def test_every_key_that_differs_is_in_the_file_and_finds_its_row(
    tracked: Move, tmp_path: Path
) -> None:
    move = tracked
    move.project.run(assets=[move.target]).assert_success()
    there = sorted(move.target_rows(), key=where)
    missing, mismatched = there[:MORE_THAN_SAMPLES], there[-MORE_THAN_SAMPLES:]
    for row in missing:
        move.execute(f"DELETE FROM {{target}} WHERE {where(row)}")
    for row in mismatched:
        move.execute(f"UPDATE {{target}} SET progress = -77 WHERE {where(row)}")
    odd = "it''s; \"=x\", \U0001f600\u200b"
    move.execute(
        "INSERT INTO {target} (userid, courseid, batchid, progress) "
        f"VALUES ('{odd}', 'c', 'b', 5)"
    )
    assert not move.project.run(assets=[move.diff]).success

    report = Read(move, tmp_path / "report")

    found = report.told["differences"]
    assert found["compared_again"] is True
    assert found["found"] == {
        "missing": MORE_THAN_SAMPLES, "extra": 1, "mismatched": MORE_THAN_SAMPLES, "other_form": 0
    }  # fmt: skip
    assert found["declaration_changed_since_the_run"] is False
    assert found["began"] <= found["ended"]
    by_kind = {
        kind: [r for r in report.differing if r["finding"] == kind] for kind in found["found"]
    }
    assert {kind: len(rows) for kind, rows in by_kind.items()} == found["found"]
    assert {kind: {row["side"] for row in rows} for kind, rows in by_kind.items()} == {
        "missing": {"origin"}, "mismatched": {"both"}, "extra": {"target"}, "other_form": set()
    }  # fmt: skip
    origin, target = (f"{move.keyspace}.{name}" for name in (move.origin_name, move.target_name))
    again = rows_behind(move.reader, origin, by_kind["missing"])
    assert sorted(map(where, again)) == sorted(map(where, missing))
    assert rows_behind(move.reader, target, by_kind["missing"]) == []
    again = rows_behind(move.reader, target, by_kind["mismatched"])
    assert sorted(map(where, again)) == sorted(map(where, mismatched))
    (extra,) = rows_behind(move.reader, target, by_kind["extra"])
    assert extra["progress"] == 5
    assert {row["columns"] for row in by_kind["mismatched"]} == {"progress"}
    assert {row["cause"] for row in by_kind["mismatched"]} == {"values differ: progress"}
    assert {row["token_range"] for row in report.differing} <= set(KEYS)
    assert all(row["compared_at"].endswith("Z") for row in report.differing)
    # Keys alone, unless values are asked for.
    assert "-77" not in report.everything
    assert "origin_values" not in report.differing[0]
    assert any("`dg launch --assets" in step for step in report.told["next_steps"])

    with_values = Read(move, tmp_path / "report", "--values")

    (first, *_) = [row for row in with_values.differing if row["finding"] == "mismatched"]
    assert first["target_values"] == "progress=-77"
    before = rows_behind(move.reader, origin, [first])[0]["progress"]
    assert first["origin_values"] == f"progress={'null' if before is None else before}"
    lost = next(row for row in with_values.differing if row["finding"] == "missing")
    assert "progress=" in lost["origin_values"]
    assert lost["target_values"] == ""

    # What agrees by now is not in the file.
    move.declare(
        tracking_keyspace=move.keyspace, diff={"repair": ["missing"], "repair_writetime": "now"}
    )
    move.project.run(assets=[move.diff])
    run_id = found_comparison(report)
    later = Read(move, tmp_path / "later", "--run", run_id)
    assert later.told["differences"]["found"]["missing"] == 0
    without = Read(move, tmp_path / "without", "--run", run_id, "--no-comparison")
    assert not (without.folder / "differing_keys.csv").exists()
    assert without.told["differences"] == {
        "compared_again": False, "why_not": "--no-comparison was given"
    }  # fmt: skip


def found_comparison(report: Read) -> str:
    (run_id,) = [run["run_id"] for run in report.told["runs"] if run["type"] == "VALIDATE"]
    return run_id


def test_rejected_rows_are_written_with_key_cause_and_run(tracked: Move, tmp_path: Path) -> None:
    move = tracked
    move.declare(tracking_keyspace=move.keyspace, dead_letters={"max_rows": 5})
    for key in (KEYS[2], KEYS[5]):
        move.add_a_row_that_the_target_refuses(key)
        user = move.origin_rows(key)[0]["userid"]
        move.execute(
            "UPDATE {origin} SET progress = 4711 "
            f"WHERE userid='{user}' AND courseid='c' AND batchid=''"
        )
    assert not move.project.run().success

    report = Read(move, tmp_path / "report")

    copy, _ = report.told["runs"]
    rows = sorted(report.rejected, key=lambda row: row["token_range"])
    assert [row["token_range"] for row in rows] == [KEYS[2], KEYS[5]]
    for row in rows:
        assert row["part"] == "row"
        assert row["key"].endswith(" AND batchid=''") or "batchid='' AND" in row["key"]
        assert "Key may not be empty" in row["cause"]
        assert row["run"] == copy["run_id"]
        assert row["rejected_at"].endswith("Z")
    origin = f"{move.keyspace}.{move.origin_name}"
    assert [row["progress"] for row in rows_behind(move.reader, origin, rows)] == [4711, 4711]
    told = report.told["rejected_rows"]
    assert (told["stored_now"], told["rejected_by_these_runs"]) == (2, 2)
    assert list(told["by_cause"].values()) == [2]
    assert "4711" not in report.everything
    # They are missing at the target as well.
    assert report.told["differences"]["found"]["missing"] == 2
    assert report.told["next_steps"][0].startswith("2 rows could not be written: ")

    with_values = Read(move, tmp_path / "report", "--values")
    assert all("progress=4711" in row["values"] for row in with_values.rejected)
    move.execute(f"DELETE FROM {{origin}} WHERE {rows[0]['key']}")
    gone = Read(move, tmp_path / "report", "--values", "--no-comparison")
    (one,) = [row for row in gone.rejected if row["token_range"] == KEYS[2]]
    assert one["values"] == "(the row is not there any more)"


def test_a_resumed_run_names_what_it_resumed_and_what_is_left(
    tracked: Move, tmp_path: Path
) -> None:
    move = tracked
    move.add_a_row_that_the_target_refuses(KEYS[3])
    assert not move.project.run().success

    first = Read(move, tmp_path / "first")

    copy, comparison = first.told["runs"]
    assert copy["ranges"] == {"PASS": RANGES - 1, "FAIL": 1}
    (failed,) = copy["not_done"]
    assert failed["status"] == "FAIL"
    assert "Key may not be empty" in failed["reason"]
    (step,) = first.told["next_steps"]
    assert step.startswith("Not copied: 1 range. `dg launch --assets ")
    assert f"--partition-range '{KEYS[3]}...{KEYS[3]}'" in step
    assert '"resume": "auto"' in step
    assert comparison["ranges"] == {"PASS": RANGES - 1}

    move.execute(f"DELETE FROM {{origin}} WHERE {key_in(failed['reason'])}")
    move.project.run(config=move.step_config(resume="auto")).assert_success()
    resumed = Read(move, tmp_path / "resumed")

    again, _ = resumed.told["runs"]
    assert again["previous_run_id"] == copy["run_id"]
    assert again["ranges"] == {"PASS": 1}
    assert copy["run_id"] in {each["run_id"] for each in resumed.told["earlier_runs"]}
    assert copy["run_id"] in resumed.text.partition("## Earlier runs that were resumed")[2]
    # The earlier one can still be had by its id, and by no other.
    named = Read(move, tmp_path / "named", "--run", copy["run_id"])
    assert [run["run_id"] for run in named.told["runs"]] == [copy["run_id"], comparison["run_id"]]


def key_in(reason: str) -> str:
    """Take the key out of a reason, as CQL."""
    return reason.partition("the row ")[2].partition(" was rejected")[0].replace(", ", " AND ")


def test_a_run_to_dynamodb_has_its_report_too(users: Users, tmp_path: Path) -> None:  # noqa: F811
    users.project.run().assert_success()
    victim = min(users.items(), key=lambda item: item["id"]["S"])
    users.put({**victim, "email": {"S": "somebody else's"}})
    stranger = str(uuid.UUID(int=0))
    users.put({"id": {"S": stranger}})
    assert not users.project.run(assets=[users.diff]).success

    report = Read(users, tmp_path / "report", name=users.target_name)

    (comparison,) = report.told["runs"]
    assert comparison["type"] == "VALIDATE"
    by_kind = {row["finding"]: row["key"] for row in report.differing}
    assert by_kind == {"mismatched": f"id={victim['id']['S']}", "extra": f"id={stranger}"}
    assert "somebody" not in report.everything
    with_values = Read(users, tmp_path / "report", "--values", name=users.target_name)
    by_kind = {row["finding"]: row for row in with_values.differing}
    assert by_kind["mismatched"]["target_values"] == "email='somebody else''s'"


def test_a_comparison_that_only_looks_rows_up_is_told_without_what_it_does_not_see(
    users: Users,  # noqa: F811
    tmp_path: Path,
) -> None:
    users.declare(diff={"mode": "origin_only"})
    users.project.run(assets=[users.target]).assert_success()
    victim = min(users.items(), key=lambda item: item["id"]["S"])
    users.put({"id": victim["id"]})
    users.put({"id": {"S": str(uuid.UUID(int=0))}})
    assert not users.project.run(assets=[users.diff]).success

    report = Read(users, tmp_path / "report", name=users.target_name)

    (row,) = report.differing
    assert (row["finding"], row["key"]) == ("mismatched", f"id={victim['id']['S']}")
    assert set(row["columns"].split(", ")) == {"name", "email", "score"}


def test_a_run_that_was_killed_is_told_as_far_as_it_came(tracked: Move, tmp_path: Path) -> None:
    move = tracked
    move.project.run(assets=[move.target]).assert_success()
    (before,) = Read(move, tmp_path / "before").told["runs"]
    # What a killed run leaves: no end, and a range that is under way.
    where_run = f"table_name='{move.target_name}' AND run_id={before['run_id']}"
    ks = move.keyspace
    move.reader.execute(f"DELETE end_time, run_info FROM {ks}.cdm_run_info WHERE {where_run}")
    move.reader.execute(f"UPDATE {ks}.cdm_run_info SET status='STARTED' WHERE {where_run}")
    first = range_of_key(KEYS[1]).bounds[0]
    move.reader.execute(
        f"UPDATE {ks}.cdm_run_details SET status='STARTED', run_info=null "
        f"WHERE {where_run} AND token_min={first}"
    )

    report = Read(move, tmp_path / "report")

    (run,) = report.told["runs"]
    assert (run["status"], run["ended"], run["seconds"]) == ("STARTED", None, None)
    assert run["last_seen"] is not None
    assert run["ranges"] == {"PASS": RANGES - 1, "STARTED": 1}
    assert run["counts"]["Write"] == ROWS - len(move.origin_rows(KEYS[1]))
    assert sum(each["ranges_done"] for each in run["throughput"]) == RANGES - 1
    assert f"not yet; last seen {run['last_seen']}" in report.text
    step = report.told["next_steps"][0]
    assert step.startswith(f"Run {run['run_id']} has not ended. If nothing works on it any more")
    assert f"'{KEYS[1]}...{KEYS[1]}'" in step
    assert report.told["differences"]["why_not"] == "the run compared nothing"


def test_a_run_with_a_filter_of_its_own_is_compared_as_is_declared_and_says_so(
    tracked: Move, tmp_path: Path
) -> None:
    move = tracked
    some = {"filter": {"where": "progress > 0"}}
    move.project.run(assets=[move.target], config=move.step_config(**some)).assert_success()
    for row in move.target_rows():
        move.execute(f"DELETE FROM {{target}} WHERE {where(row)}")
    assert not move.project.run(assets=[move.diff], config=move.step_config(**some)).success

    report = Read(move, tmp_path / "report")

    found = report.told["differences"]
    assert found["declaration_changed_since_the_run"] is True
    compared = [row for key in found["ranges"] for row in move.origin_rows(key)]
    assert found["found"]["missing"] == len(compared) == len(report.differing)
    assert (
        "or the run had a filter of its own: they were compared as is declared now" in report.text
    )


def test_the_run_of_a_check_that_reads_only_has_its_report(tracked: Move, tmp_path: Path) -> None:
    move = tracked
    move.project.declare(
        "check",
        "GuardrailCheck",
        origin={"store": "sunbird", "table": f"{move.keyspace}.{move.origin_name}"},
        max_column_kb=1,
        token_ranges=2,
        workers=1,
        tracking_keyspace=move.keyspace,
    )
    large = move.origin_rows()[0]
    move.execute(f"UPDATE {{origin}} SET lastreadcontentid = '{'x' * 2000}' WHERE {where(large)}")
    asset = dg.AssetKey(["sunbird", move.keyspace, f"{move.origin_name}_large_cells"])
    move.project.run(None, assets=[asset]).assert_success()

    report = Read(move, tmp_path / "report", name=asset.to_user_string())

    (run,) = report.told["runs"]
    assert (run["type"], run["counts"]["Read"]) == ("GUARDRAIL", ROWS)
    assert sum(each["ranges_done"] for each in run["throughput"]) == 2
    (step,) = report.told["next_steps"]
    assert step.startswith("1 row with a cell that is too large: ")
    assert "xxxx" not in report.everything


def test_rows_of_a_range_count_evenly_over_its_time() -> None:
    def piece(number: int, began: float, ended: float, rows: int) -> Piece:
        times = (datetime(2026, 1, 1) + timedelta(seconds=each) for each in (began, ended))
        return Piece(number, number, "PASS", *times, {"Write": rows}, "")

    pieces = (piece(0, 0, 100, 1000), piece(1, 50, 100, 500), piece(2, 100, 100, 7))
    run = RunFacts(
        *(1, "MIGRATE", "ENDED", datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 1, 40), None),
        *(0, "", "", "", {}, pieces),
    )
    found = throughput(run)

    assert [each.seconds for each in found] == [5.0] * 20
    assert [each.rows for each in found] == [50] * 10 + [100] * 9 + [107]
    assert [each.ranges_done for each in found] == [0] * 19 + [3]
    assert found[10].rows_per_second == 20.0


# -- what is never told ---------------------------------------------------------------------------

SECRET = "s3cret-value"


@pytest.fixture
def masked(roles: Roles, checking_cassandra: Running, tmp_path: Path, monkeypatch) -> Project:
    """A project whose role reads masked columns: a value in one table, a key in another."""
    roles.make("plain_a", "k int PRIMARY KEY, v text MASKED WITH DEFAULT, w text")
    roles.make("plain_b", "k int PRIMARY KEY, v int, w text")
    roles.make("keyed_a", "k text MASKED WITH DEFAULT PRIMARY KEY, v text")
    roles.make("keyed_b", "k text PRIMARY KEY, v int")
    project = make_project(tmp_path, cassandra_port=checking_cassandra.port)
    monkeypatch.setenv("ROLE_PASSWORD", "cassandra")
    cluster = {
        "contact_points": ["127.0.0.1"],
        "port": checking_cassandra.port,
        "username": "cassandra",
        "password": {"env": "ROLE_PASSWORD"},
    }
    project.declare("stores", "Stores", cassandra={"sunbird": cluster, "reports": cluster})
    for name in ("plain", "keyed"):
        project.declare(
            name,
            "TableMigration",
            origin={"store": "sunbird", "table": f"{roles.keyspace}.{name}_a"},
            target={"store": "reports", "table": f"{roles.keyspace}.{name}_b"},
            columns={"codecs": ["INT_STRING"]},
            token_ranges=2,
            workers=1,
            retry_seconds=20,
            dead_letters={"max_rows": 1},
            tracking_keyspace=roles.keyspace,
        )
    return project


def test_no_value_of_a_masked_column_is_written_nor_a_password(
    masked: Project, roles: Roles, tmp_path: Path
) -> None:
    rows = [(n, f"{n}4711" if n else SECRET) for n in range(6)]
    for number, value in rows:
        roles.execute(
            f"INSERT INTO {{ks}}.plain_a (k, v, w) VALUES ({number}, '{value}', 'w{number}')"
        )
        key = f"{SECRET}{number}"
        roles.execute(f"INSERT INTO {{ks}}.keyed_a (k, v) VALUES ('{key}', 'no-number')")
    assets = {
        name: [dg.AssetKey(["reports", roles.keyspace, f"{name}_b{end}"]) for end in ("", "_diff")]
        for name in ("plain", "keyed")
    }
    both = "00-of-2...01-of-2"
    for keys in assets.values():
        # One row may be rejected of each range: the second one fails it, with its key and value.
        assert not masked.run(both, assets=keys).success
    roles.execute("DELETE FROM {ks}.plain_b WHERE k = 3")
    roles.execute("UPDATE {ks}.plain_b SET v = 774711, w = 'other' WHERE k = 4")
    assert not masked.run(both, assets=assets["plain"][1:]).success

    told = {}
    for name in assets:
        for options in ((), ("--values",)):
            folder = tmp_path / f"{name}{len(options)}"
            result = write_report(masked, f"{roles.keyspace}.{name}_b", folder, *options)
            assert result.exit_code == 0, result.output
            told[name, options] = "\n".join(each.read_text("utf-8") for each in folder.iterdir())
            everything = told[name, options] + result.output
            assert SECRET not in everything
            assert "4711" not in everything
    whole = told["plain", ("--values",)]
    assert "mismatched,both,row,k=4," in whole
    assert "v=(masked), w='other'" in whole
    assert "v=(masked), w='w3'" in whole
    assert "cannot be converted: v" in whole
    assert "k=(masked)" in told["keyed", ()]
    assert "Masked columns, of which no file holds a value: k." in told["keyed", ()]


def test_a_value_that_could_not_be_converted_is_in_no_reason_unless_values_are_asked_for() -> None:
    reason = (
        f"the row k=1, \"K\"='it''s: {SECRET}' cannot be converted: \"Be v\": '{SECRET}' is no int"
    )

    assert told_reason(reason, values=True, masked_key=False) == reason
    cut = told_reason(reason, values=False, masked_key=False)
    assert cut == f"the row k=1, \"K\"='it''s: {SECRET}' cannot be converted: \"Be v\""
    assert SECRET not in told_reason(reason, values=True, masked_key=True)
    assert told_reason("a timeout", values=False, masked_key=True) == "a timeout"


# -- what is refused -------------------------------------------------------------------------------


def test_what_cannot_be_reported_is_one_sentence_and_leaves_no_folder(
    tracked: Move, tmp_path: Path
) -> None:
    move, name = tracked, f"{tracked.keyspace}.{tracked.target_name}"
    folder = tmp_path / "report"
    for asked, sentence in {
        ("shop.orders",): f"no migration is called shop.orders; valid are reports/{move.keyspace}/",
        (name,): "has no tracked run; the newest are none yet",
        (name, "--run", "4"): "has no run 4; the newest are none yet",
    }.items():
        result = write_report(move.project, asked[0], folder, *asked[1:])
        assert result.exit_code == 1, result.output
        assert sentence in result.output
        assert "Traceback" not in result.output
        assert not folder.exists()
    move.declare(tracking_keyspace=move.keyspace, tracking=False)
    result = write_report(move.project, name, folder)
    assert "declares tracking: false, so nothing is known of its runs" in result.output
    file = tmp_path / "file"
    file.touch()
    result = write_report(move.project, name, file / "below")
    assert f"the folder {file / 'below'} cannot be written: Not a directory" in result.output


def test_nothing_of_anybody_else_is_overwritten(tracked: Move, tmp_path: Path) -> None:
    move, name = tracked, f"{tracked.keyspace}.{tracked.target_name}"
    move.project.run().assert_success()
    folder = tmp_path / "report"
    folder.mkdir()
    for foreign in ("thesis.txt", "summary.md", "summary.json"):
        (folder / foreign).write_text('{"report": "mine"}')
        result = write_report(move.project, name, folder)
        assert result.exit_code == 1
        assert f"is not empty, and {foreign} in it is of no report of this program" in result.output
        assert (folder / foreign).read_text() == '{"report": "mine"}'
        (folder / foreign).unlink()
    Read(move, folder)
    # Its own it writes again, but not beside what came later.
    first = (folder / "summary.json").read_text()
    Read(move, folder)
    (folder / "notes.txt").write_text("mine")
    result = write_report(move.project, name, folder)
    assert "notes.txt in it is of no report" in result.output
    assert json.loads(first)["report"] == "migration_platform report"
