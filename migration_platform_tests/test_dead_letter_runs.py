"""Rows that were rejected, as an operator sees them in Dagster."""

import dagster as dg
import pytest

from migration_platform.runs.control import set_limits
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    EVERYTHING,
    KEYS,
    ROWS,
    Move,
    open_control,
)
from migration_platform_tests.tables import create_table, plan_copy

pytestmark = DAGSTERS_OWN_WARNINGS


def test_a_row_that_is_rejected_keeps_a_check_red_until_it_is_replayed(move: Move) -> None:
    move.declare(dead_letters={"max_rows": 5}, tracking_keyspace=move.keyspace)
    move.add_a_row_that_the_target_refuses(KEYS[2])
    letters = dg.AssetKey([*move.target.path[:-1], f"{move.target.path[-1]}_dead_letters"])

    run = move.project.run()

    # The copy is green, the comparison is not: one row is really missing.
    copied = run.materializations(move.target)
    assert {key for key in copied if key} == set(KEYS)
    assert copied[KEYS[2]]["rows_set_aside"] == 1
    assert "1 ranges differ" in run.error
    assert "1 missing, 0 extra, 0 mismatched rows" in run.error
    (sample,) = copied[KEYS[2]]["set_aside_samples"]
    assert "batchid=''" in sample
    passed, sentence, metadata = move.check("no_dead_letters")
    assert not passed
    assert sentence == (
        f"1 row is stored as a dead letter, such as {sample}; repair them or correct "
        f"the declaration, and materialize {letters.path[-1]}"
    )
    assert "was rejected: the server said: Invalid query: Key may not be empty" in sentence
    assert metadata["dead_letters"] == 1
    assert metadata["replay_command"] == f'dg launch --assets "{letters.to_user_string()}"'
    assert "Key may not be empty | 1 |" in metadata["by_cause"]
    assert "batchid=''" in metadata["samples"]
    assert len(move.target_rows()) == ROWS

    # Dead letters do not vanish with the budget; what fails again stays.
    move.declare(tracking_keyspace=move.keyspace)
    tables, migration = open_control(move, move.target_name, tracking_keyspace=move.keyspace)
    set_limits(tables, migration, {"origin_rows": 777})
    again = move.project.run(None, assets=[letters])
    assert "Now rate: origin 777 rows/s (set)" in move.project.messages_of(again.run_id)
    assert "1 row is stored as a dead letter, such as " in again.error
    assert not move.check("no_dead_letters")[0]

    move.execute("DELETE FROM {origin} WHERE batchid = '' AND courseid = 'c' AND userid = "
                 f"'{_user_of(sample)}'")  # fmt: skip
    replayed = move.project.run(None, assets=[letters]).assert_success()
    told = replayed.materializations(letters)[None]
    assert (told["replayed"], told["gone"], told["dead_letters"]) == (0, 1, 0)
    passed, sentence, metadata = move.check("no_dead_letters")
    assert (passed, sentence) == (
        True,
        f"This migration has no dead letter in {move.keyspace}.dead_letters of reports.",
    )
    assert "run" in metadata


def dead_letters_of(move: Move) -> dg.AssetKey:
    return dg.AssetKey([*move.target.path[:-1], f"{move.target.path[-1]}_dead_letters"])


REJECTED = "1 row was rejected and is stored as a dead letter, such as "
WAY_OUT = "; with dead_letters.fail_run: false a run succeeds in spite of such rows"


@pytest.mark.parametrize(
    ("declared", "fails"), [({}, True), ({"fail_run": True}, True), ({"fail_run": False}, False)]
)
def test_a_copy_that_rejected_rows_ends_as_declared_and_its_ranges_are_green(
    move: Move, declared: dict[str, bool], fails: bool
) -> None:
    letters = {"max_rows": 5, **declared}
    move.declare(dead_letters=letters, tracking_keyspace=move.keyspace, events=move.events)
    move.add_a_row_that_the_target_refuses(KEYS[2])

    run = move.project.run(assets=[move.target])

    assert run.success is not fails
    assert move.project.statuses(move.target) == dict.fromkeys(KEYS, "success")
    assert set(run.materializations(move.target)) == set(KEYS)
    assert len(move.target_rows()) == ROWS
    assert not move.check("no_dead_letters")[0]
    (event,) = move.metrics.read()
    assert event["dimensions"][1]["value"] == ("FAILED" if fails else "SUCCESS")
    said = run.error if fails else move.project.messages_of(run.run_id)
    assert REJECTED in said
    assert "batchid=" in said
    assert "Key may not be empty; the check no_dead_letters lists them" in said
    assert f'`dg launch --assets "{dead_letters_of(move).to_user_string()}"` copies them' in said
    assert (WAY_OUT in said) is fails
    assert ("dead_letters.fail_run is false, so the run succeeds" in said) is not fails

    # What was rejected is told of the run that copied it, and of no other.
    move.project.run(KEYS[3], assets=[move.target]).assert_success()
    again = move.project.run(KEYS[2], assets=[move.target])
    assert again.success is not fails


def test_a_script_notices_rejected_rows_until_they_are_replayed(move: Move) -> None:
    move.declare(dead_letters={"max_rows": 5}, tracking_keyspace=move.keyspace)
    move.add_a_row_that_the_target_refuses(KEYS[2])
    launch = ("launch", "--assets", move.target.to_user_string(), "--partition-range", EVERYTHING)

    ended = move.project.run_dg(*launch)

    assert ended.code != 0
    assert REJECTED in ended.output

    # Carried over, the range is green as before, and its row is as missing.
    resumed = move.project.run(assets=[move.target], config=move.step_config(resume="auto"))
    assert {
        key for key, told in resumed.materializations(move.target).items()
        if "carried_over_from" in told
    } == set(KEYS)  # fmt: skip
    assert REJECTED in resumed.error

    # Both reasons are told of a run that compares, too.
    both = move.project.run()
    assert "1 ranges differ" in both.error
    assert REJECTED in both.error

    # A replay that leaves dead letters fails, whatever is declared for copies.
    move.declare(
        dead_letters={"max_rows": 5, "fail_run": False}, tracking_keyspace=move.keyspace
    )  # fmt: skip
    assert not move.project.run(None, assets=[dead_letters_of(move)]).success
    move.execute(
        "DELETE FROM {origin} WHERE batchid = '' AND courseid = 'c' AND userid = "
        f"'{_user_of(move.check('no_dead_letters')[1])}'"
    )
    move.declare(dead_letters={"max_rows": 5}, tracking_keyspace=move.keyspace)
    move.project.run(None, assets=[dead_letters_of(move)]).assert_success()
    move.project.run(
        assets=[move.target], config=move.step_config(resume="auto")
    ).assert_success()  # fmt: skip


def test_whether_a_run_fails_changes_no_fingerprint(connection, keyspace) -> None:
    origin, target = (
        create_table(connection, keyspace, name, "k int PRIMARY KEY") for name in "ab"
    )
    failing, other = (
        plan_copy(connection, origin, target, dead_letters_fail_run=fails)
        for fails in (True, False)
    )
    assert (failing.fingerprint, failing.comparison) == (other.fingerprint, other.comparison)


def _user_of(sample: str) -> str:
    return sample.split("userid='")[1].split("'")[0]
