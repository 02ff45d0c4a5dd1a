"""What a run does to tables, partitions and metadata; every table is read without the engine."""

import threading
import time

import pytest
from dagster import DagsterRunStatus

from migration_platform.components.table.ended_runs import (
    BEGUN,
    PROCESS_TAG,
    copies_tag,
    process_mark,
    truncates_tag,
)
from migration_platform.runs.control import set_paused
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    ROWS,
    Move,
    open_control,
    wait_until,
)
from migration_platform_tests.servers import PATIENCE_SECONDS

pytestmark = DAGSTERS_OWN_WARNINGS


def test_a_full_run_copies_every_row_and_turns_everything_green(move: Move) -> None:
    move.project.run().assert_success()

    move.assert_same_rows()
    assert move.project.statuses(move.target) == dict.fromkeys(KEYS, "success")
    assert move.project.statuses(move.diff) == dict.fromkeys(KEYS, "success")
    assert move.check("row_counts_match")[:2] == (True, f"{ROWS:,} rows on both sides.")
    assert move.check("all_ranges_match")[:2] == (
        True,
        f"All {RANGES} ranges match: {ROWS} rows. Not looked at: writetimes and TTLs.",
    )


def test_each_range_tells_its_numbers(move: Move) -> None:
    run = move.project.run().assert_success()

    copies, verdicts = run.materializations(move.target), run.materializations(move.diff)
    assert sorted(copies) == sorted(verdicts) == KEYS
    for key in KEYS:
        rows = len(move.origin_rows(key))
        copy, verdict = copies[key], verdicts[key]
        assert (copy["rows_read"], copy["rows_written"]) == (rows, rows)
        assert [copy[n] for n in ("rows_skipped", "rows_set_aside", "errors", "retries")] == [0] * 4
        assert copy["bytes_read"] > 300 * rows
        assert copy["rows_per_second"] > 0
        assert (verdict["origin_rows"], verdict["target_rows"]) == (rows, rows)
        assert [verdict[n] for n in ("missing", "extra", "mismatched")] == [0, 0, 0]
    # 64-bit tokens as text: a browser would round them.
    assert copies[KEYS[0]]["tokens"] == "(-9223372036854775808, -6917529027641081857]"
    assert copies[KEYS[-1]]["tokens"].endswith(", 9223372036854775807]")


def test_the_table_tells_its_rows_columns_and_ring(move: Move) -> None:
    run = move.project.run().assert_success()

    table = move.table_metadata()
    assert table["dagster/row_count"] == ROWS
    assert (table["ranges"], table["ranges_copied"], table["ranges_verified"]) == (RANGES,) * 3
    assert table["run"] == run.run_id
    assert table["ranges_at_a_glance"] == "🟩" * RANGES
    assert table["ring"].startswith("![the ring of ranges](data:image/svg+xml;base64,")
    schema = table["dagster/column_schema"]
    assert [column.name for column in schema.columns[:3]] == ["batchid", "courseid", "userid"]
    assert schema.columns[0].description == "partition key"
    assert len(schema.columns) == 19
    ((_, origin),) = run.observations(move.origin)
    assert origin["dagster/column_schema"].columns[0].name == "userid"


def test_the_tables_picture_shows_what_the_last_run_found(move: Move) -> None:
    move.project.run().assert_success()
    move.execute("INSERT INTO {target} (batchid, courseid, userid) VALUES ('b', 'c', 'u-extra')")

    assert not move.project.run(f"{KEYS[0]}...{KEYS[7]}").success

    assert move.table_metadata()["ranges_at_a_glance"].count("🟥") == 1
    assert move.table_metadata()["ranges_verified"] == RANGES - 1


def test_a_partition_touches_only_its_range(move: Move) -> None:
    run = move.project.run(KEYS[3]).assert_success()

    move.assert_same_rows(KEYS[3])
    assert move.target_rows() == move.target_rows(KEYS[3])
    green = {key: "success" if key == KEYS[3] else "none" for key in KEYS}
    assert move.project.statuses(move.target) == move.project.statuses(move.diff) == green
    assert list(run.materializations(move.target)) == [KEYS[3]]


def test_a_range_of_partitions_touches_only_its_ranges(move: Move) -> None:
    move.project.run(f"{KEYS[2]}...{KEYS[4]}").assert_success()

    assert move.target_rows() == move.origin_rows(*KEYS[2:5])


def test_the_diff_alone_copies_nothing(move: Move) -> None:
    run = move.project.run(assets=[move.diff])

    assert not run.success
    assert move.target_rows() == []
    assert move.project.statuses(move.target) == dict.fromkeys(KEYS, "none")


def test_a_second_run_changes_nothing_but_writetimes(move: Move) -> None:
    move.project.run().assert_success()
    move.project.run().assert_success()

    move.assert_same_rows()


def test_an_empty_table_is_copied_and_green(move: Move) -> None:
    move.execute("TRUNCATE {origin}")

    move.project.run().assert_success()

    assert move.check("row_counts_match")[:2] == (True, "No row was there to count.")
    assert move.check("all_ranges_match")[1] == (
        "All 8 ranges match: no row was there to compare. Not looked at: writetimes and TTLs."
    )
    assert move.project.statuses(move.target) == dict.fromkeys(KEYS, "success")


def test_rows_of_other_tables_in_the_target_stay_without_truncate(move: Move) -> None:
    add_extra_row(move)

    move.project.run()

    assert len(move.target_rows()) == ROWS + 1
    assert move.check("all_ranges_match")[0] is False


# -- truncate_target ---------------------------------------------------------------------------


def test_truncate_target_empties_the_target_before_a_full_copy(move: Move) -> None:
    move.declare(truncate_target=True)
    add_extra_row(move)

    move.project.run().assert_success()

    move.assert_same_rows()
    assert move.check("all_ranges_match")[0] is True


def test_truncate_target_refuses_a_partial_run_and_tells_the_way_out(move: Move) -> None:
    move.declare(truncate_target=True)
    move.project.run().assert_success()

    run = move.project.run(KEYS[0])

    assert not run.success
    assert f"this run covers 1 of {RANGES} ranges" in run.error
    assert "truncate_target: false" in run.error
    move.assert_same_rows()


def test_the_way_out_works_a_partial_run_may_be_told_not_to_truncate(move: Move) -> None:
    move.declare(truncate_target=True)
    move.project.run().assert_success()
    move.execute("TRUNCATE {target}")

    move.project.run(KEYS[0], config=move.step_config(truncate_target=False)).assert_success()

    assert move.target_rows() == move.origin_rows(KEYS[0])


def test_a_run_may_be_told_to_truncate(move: Move) -> None:
    add_extra_row(move)

    move.project.run(config=move.step_config(truncate_target=True)).assert_success()

    move.assert_same_rows()


def test_a_diff_alone_never_truncates(move: Move) -> None:
    move.declare(truncate_target=True)
    move.project.run().assert_success()

    move.project.run(assets=[move.diff]).assert_success()

    move.assert_same_rows()


def test_a_truncating_run_waits_for_no_run_but_refuses_to_take_its_rows(move: Move) -> None:
    # Another run of this migration is under way, in a process that is alive: this one.
    move.declare(truncate_target=True)
    move.project.run().assert_success()
    other = pretend_to_be_under_way(move)

    run = move.project.run()

    assert not run.success
    assert f"run {other} copies {move.keyspace}.{move.target_name} already" in run.error
    assert "truncate_target would take its rows; wait for it or terminate it" in run.error
    move.assert_same_rows()


def test_a_paused_run_empties_nothing_and_looks_again_before_it_does(move: Move) -> None:
    move.project.run().assert_success()
    tables, migration = open_control(move, move.target_name)
    set_paused(tables, migration, paused=True)
    found: list[object] = []

    def look_and_go_on() -> None:
        try:
            run_id = wait_until(lambda: working(move), PATIENCE_SECONDS, "the run began")
            wait_until(
                lambda: "Paused since" in move.project.messages_of(run_id),
                PATIENCE_SECONDS,
                "a pause",
            )
            # Longer than a run takes from here to its first row.
            time.sleep(1.5)
            found.extend([len(move.target_rows()), pretend_to_be_under_way(move)])
        finally:
            set_paused(tables, migration, paused=False)

    other = threading.Thread(target=look_and_go_on)
    other.start()
    run = move.project.run(config=move.step_config(truncate_target=True))
    other.join()

    assert found[0] == ROWS
    assert f"run {found[1]} copies {move.keyspace}.{move.target_name} already" in run.error
    move.assert_same_rows()


def test_nothing_is_copied_beside_a_run_that_empties_the_target(move: Move) -> None:
    other = pretend_to_be_under_way(move, truncates_tag(move.target))

    run = move.project.run(KEYS[0])

    assert f"run {other} empties and copies {move.keyspace}.{move.target_name} already" in run.error
    assert "it would take the rows of this one; wait for it or terminate it" in run.error
    assert move.target_rows() == []


# -- what the tables refuse --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("ALTER TABLE {target} DROP progress", "has no column progress (int)"),
        ("DROP TABLE {target}", "there is no table"),
        ("DROP TABLE {origin}", "there is no table"),
    ],
)
def test_what_the_tables_lack_is_said_in_one_sentence(
    move: Move, statement: str, sentence: str
) -> None:
    move.execute(statement)

    run = move.project.run()

    assert not run.success
    assert sentence in run.error
    assert "Traceback" not in run.error
    assert move.project.statuses(move.target) == dict.fromkeys(KEYS, "failed")


def test_everything_that_does_not_fit_is_named_at_once(move: Move) -> None:
    move.execute("ALTER TABLE {target} DROP progress")
    move.execute("ALTER TABLE {target} DROP status")
    move.declare(group_writes_by=["batchh"])

    run = move.project.run()

    assert "has no column progress (int)" in run.error
    assert "has no column status (int)" in run.error
    assert "group_writes_by names batchh" in run.error
    assert move.target_rows() == []


def add_extra_row(move: Move) -> None:
    """Write a row that only the target has; its user's token lies in the last range."""
    move.execute(
        "INSERT INTO {target} (batchid, courseid, userid) VALUES ('b-extra', 'c-extra', 'u-extra')"
    )


def working(move: Move) -> str:
    """Give the run that works now, if there is one."""
    runs = [run for run in move.project.runs() if run.status == DagsterRunStatus.STARTED]
    return runs[0].run_id if runs else ""


def pretend_to_be_under_way(move: Move, tag: str = "") -> str:
    """Note a run as started, with the mark of a process that is alive: this one."""
    job = move.project.load().resolve_implicit_global_asset_job_def()
    tags = {PROCESS_TAG: process_mark(), tag or copies_tag(move.target): BEGUN}
    with move.project.instance() as instance:
        run = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED, tags=tags)
    return run.run_id
