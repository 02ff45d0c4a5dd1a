"""The verdicts: red until everything is copied and compared, and red with what to do next."""

import shlex
from collections.abc import Callable

import dagster as dg
import pytest

from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    ROWS,
    Move,
    make_project,
)

pytestmark = DAGSTERS_OWN_WARNINGS

CHECKS = ("row_counts_match", "all_ranges_match")


def test_until_all_ranges_are_copied_the_checks_are_red_and_name_the_missing_ones(
    move: Move,
) -> None:
    move.project.run(f"{KEYS[0]}...{KEYS[2]}").assert_success()

    for name in CHECKS:
        passed, sentence, metadata = move.check(name)
        assert not passed
        assert sentence == (
            f"5 of {RANGES} ranges are not copied: {KEYS[3]}...{KEYS[7]}; materialize them"
        )
        assert metadata["ranges_not_copied"] == KEYS[3:]
        assert (metadata["ranges_copied"], metadata["ranges_verified"]) == (3, 3)


def test_an_incomplete_copy_is_not_scanned_for_a_verdict(move: Move) -> None:
    # Were it scanned, a table that is not there would be noticed.
    move.project.run(KEYS[0]).assert_success()

    run = move.project.run(None, only_checks=True).assert_success()

    assert f"7 of {RANGES} ranges are not copied" in move.check("all_ranges_match")[1]
    assert run.materializations(move.diff) == {}


def test_ranges_one_after_the_other_turn_the_checks_green_with_the_last(move: Move) -> None:
    move.project.run(f"{KEYS[0]}...{KEYS[5]}").assert_success()
    move.project.run(KEYS[7]).assert_success()
    assert move.check("all_ranges_match")[1].startswith(f"1 of {RANGES} ranges are not copied")
    move.project.run(KEYS[6]).assert_success()

    assert [move.check(name)[0] for name in CHECKS] == [True, True]
    assert move.check("row_counts_match")[2]["origin_rows"] == ROWS


def test_a_range_copied_again_must_be_compared_again(move: Move) -> None:
    move.project.run().assert_success()

    move.project.run(KEYS[3], assets=[move.target]).assert_success()
    passed, sentence, metadata = move.check("all_ranges_match")
    assert not passed
    assert sentence == (
        f"1 of {RANGES} ranges were not compared since they were copied: {KEYS[3]}; "
        "materialize them in report_user_enrolments_diff"
    )
    assert metadata["ranges_not_compared"] == [KEYS[3]]

    move.project.run(KEYS[3], assets=[move.diff]).assert_success()
    move.project.run(None, only_checks=True).assert_success()
    assert [move.check(name)[0] for name in CHECKS] == [True, True]


# -- ranges that differ ------------------------------------------------------------------------


def test_a_differing_range_fails_and_the_check_tells_counts_samples_and_columns(
    move: Move,
) -> None:
    move.project.run().assert_success()
    missing, changed = damage(move)

    run = move.project.run(assets=[move.diff])

    assert not run.success
    assert "ranges differ" in run.error
    passed, sentence, metadata = move.check("all_ranges_match")
    assert not passed
    assert "1 missing, 1 extra, 1 mismatched rows" in sentence
    assert (metadata["missing"], metadata["extra"], metadata["mismatched"]) == (1, 1, 1)
    samples = metadata["samples"]
    assert missing["userid"] in samples["missing"][0]
    assert "u-extra" in samples["extra"][0]
    assert changed["userid"] in samples["mismatched"][0]
    assert samples["mismatched"][0].endswith(": progress, status")
    statuses = move.project.statuses(move.diff)
    assert {key for key in KEYS if statuses[key] == "failed"} == set(metadata["ranges_to_rerun"])
    assert move.project.statuses(move.target) == dict.fromkeys(KEYS, "success")


def test_row_counts_alone_find_no_changed_row(move: Move) -> None:
    move.project.run().assert_success()
    row = move.target_rows()[0]
    change(move, row)

    move.project.run(assets=[move.diff])

    assert move.check("row_counts_match")[0] is True
    assert move.check("all_ranges_match")[0] is False


def test_row_counts_that_differ_are_told_with_both_sums_and_the_ranges(move: Move) -> None:
    move.project.run().assert_success()
    row = move.target_rows(KEYS[5])[0]
    delete(move, row)

    move.project.run(assets=[move.diff])

    passed, sentence, metadata = move.check("row_counts_match")
    assert not passed
    assert sentence == (
        f"{ROWS} rows at the origin, {ROWS - 1} at the target; counts differ in 1 ranges: {KEYS[5]}"
    )
    assert metadata["ranges_to_rerun"] == [KEYS[5]]


def test_origin_only_forgives_rows_that_only_the_target_has(move: Move) -> None:
    move.declare(diff={"mode": "origin_only"})
    move.execute("INSERT INTO {target} (batchid, courseid, userid) VALUES ('b', 'c', 'u-extra')")

    move.project.run().assert_success()

    assert move.check("all_ranges_match")[0] is True
    assert move.check("row_counts_match")[:2] == (
        True,
        f"{ROWS} rows of the origin are in the target. Not looked at: rows that only the target "
        "has.",
    )
    graph = move.project.load().resolve_asset_graph()
    described = graph.get(dg.AssetCheckKey(move.target, "all_ranges_match")).description
    assert "rows that only the target has are not looked for" in described


def test_the_command_of_a_red_check_works_and_turns_it_green(move: Move) -> None:
    # New writetimes: a copy that keeps the origin's would leave what is newer at the target.
    move.declare(writetime="now", ttl="none")
    move.project.run().assert_success()
    for key in (KEYS[2], KEYS[3], KEYS[6]):
        change(move, move.target_rows(key)[0])
    move.project.run(assets=[move.diff])
    command = move.check("all_ranges_match")[2]["rerun_command"]
    first, second = command.split(" && ")
    assert first.endswith(f"--partition-range '{KEYS[2]}...{KEYS[3]}'")
    assert second.endswith(f"--partition {KEYS[6]}")

    for line in (first, second):
        move.project.run_dg(*shlex.split(line)[1:]).assert_success()

    move.assert_same_rows()
    assert move.project.statuses(move.diff) == dict.fromkeys(KEYS, "success")
    assert [move.check(name)[0] for name in CHECKS] == [True, True]


def test_a_red_check_says_what_a_copy_with_kept_writetimes_cannot_put_right(move: Move) -> None:
    move.project.run().assert_success()
    row = move.target_rows(KEYS[4])[0]
    change(move, row)
    move.project.run(assets=[move.diff])

    metadata = move.check("all_ranges_match")[2]

    assert (
        "written or deleted at the target after it was written at the origin"
        in (metadata["rerun_note"])
    )


def test_the_command_for_one_range_names_one_partition(move: Move) -> None:
    move.project.run().assert_success()
    delete(move, move.target_rows(KEYS[4])[0])

    move.project.run(assets=[move.diff])

    name = move.target.to_user_string()
    assert move.check("all_ranges_match")[2]["rerun_command"] == (
        f'dg launch --assets "{name},{name}_diff" --partition {KEYS[4]}'
    )


def test_a_verdict_of_another_way_to_compare_does_not_count(move: Move) -> None:
    move.declare(diff={"mode": "origin_only"})
    move.project.run().assert_success()

    move.declare(diff={"mode": "two_way"})
    move.project.run(None, only_checks=True).assert_success()

    passed, sentence, _ = move.check("all_ranges_match")
    assert not passed
    assert sentence.startswith(f"{RANGES} of {RANGES} ranges were not compared since")


# -- what a copy of another declaration counts -------------------------------------------------


def drop_and_create_target(move: Move) -> None:
    from migration_platform.demo.sample import create_tables

    move.execute("DROP TABLE {target}")
    create_tables(move.connection, move.keyspace)


def add_a_column(move: Move) -> None:
    move.execute("ALTER TABLE {origin} ADD colour text")
    move.execute("ALTER TABLE {target} ADD colour text")


def rename_the_store(move: Move) -> None:
    cluster = {"contact_points": ["127.0.0.1"], "port": move.connection.settings.port}
    move.project.declare("stores", "Stores", cassandra={"moved": cluster, "reports": cluster})
    move.declare(origin={"store": "moved"})


@pytest.mark.parametrize("change", [drop_and_create_target, add_a_column, rename_the_store])
def test_ranges_copied_under_another_declaration_do_not_count(
    move: Move, change: Callable[[Move], None]
) -> None:
    move.project.run().assert_success()
    change(move)

    move.project.run(KEYS[0]).assert_success()

    passed, sentence, metadata = move.check("all_ranges_match")
    assert not passed
    assert sentence.startswith(f"7 of {RANGES} ranges are not copied: {KEYS[1]}...{KEYS[7]}")
    assert (metadata["ranges_copied"], metadata["ranges_verified"]) == (1, 1)


def test_a_run_that_empties_the_target_and_fails_leaves_nothing_counted(move: Move) -> None:
    move.declare(truncate_target=True)
    move.project.run().assert_success()
    move.add_a_row_that_the_target_refuses(KEYS[2])

    run = move.project.run()

    assert not run.success
    assert f"1 of {RANGES} ranges failed ({KEYS[2]})" in run.error
    green = {key: "failed" if key == KEYS[2] else "success" for key in KEYS}
    assert move.project.statuses(move.target) == green
    passed, sentence, _ = move.check("all_ranges_match")
    assert not passed
    assert sentence.startswith(f"1 of {RANGES} ranges are not copied: {KEYS[2]}")


def test_projects_do_not_see_each_others_verdicts(
    move: Move, tmp_path_factory: pytest.TempPathFactory
) -> None:
    move.project.run().assert_success()
    port = move.connection.settings.port
    move.project = make_project(tmp_path_factory.mktemp("other"), cassandra_port=port)
    move.declare()

    move.project.run(None, only_checks=True).assert_success()

    assert move.check("all_ranges_match")[1].startswith(f"8 of {RANGES} ranges are not copied")


def test_the_checks_stay_red_while_a_range_that_differs_is_only_compared_again(move: Move) -> None:
    move.project.run().assert_success()
    delete(move, move.target_rows(KEYS[4])[0])
    move.project.run(assets=[move.diff])
    red = move.check("all_ranges_match")

    move.project.run(f"{KEYS[0]}...{KEYS[3]}", assets=[move.diff]).assert_success()

    assert move.check("all_ranges_match")[:2] == red[:2]


def damage(move: Move) -> tuple[dict, dict]:
    """Delete a row of the target, add one, change one; gives the deleted and the changed row."""
    missing, changed = move.target_rows(KEYS[1])[0], move.target_rows(KEYS[6])[0]
    delete(move, missing)
    change(move, changed)
    move.execute("INSERT INTO {target} (batchid, courseid, userid) VALUES ('b', 'c', 'u-extra')")
    return missing, changed


def where(row: dict) -> str:
    return (
        f"WHERE batchid = '{row['batchid']}' AND courseid = '{row['courseid']}' "
        f"AND userid = '{row['userid']}'"
    )


def delete(move: Move, row: dict) -> None:
    move.execute("DELETE FROM {target} " + where(row))


def change(move: Move, row: dict) -> None:
    move.execute("UPDATE {target} SET progress = 99, status = 98 " + where(row))
