"""Rows that were set aside, as an operator sees them in Dagster."""

import dagster as dg

from migration_platform.control import set_limits
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    ROWS,
    Move,
    open_control,
)

pytestmark = DAGSTERS_OWN_WARNINGS


def test_a_row_that_is_set_aside_keeps_a_check_red_until_it_is_replayed(move: Move) -> None:
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
        f"1 row is set aside, such as {sample}; mend them or the declaration, and materialize "
        f"{letters.path[-1]}"
    )
    assert "was refused: the server said: Invalid query: Key may not be empty" in sentence
    assert metadata["dead_letters"] == 1
    assert metadata["replay_command"] == f'dg launch --assets "{letters.to_user_string()}"'
    assert "Key may not be empty | 1 |" in metadata["by_cause"]
    assert "batchid=''" in metadata["samples"]
    assert len(move.target_rows()) == ROWS

    # Letters do not vanish with the budget; what fails again stays.
    move.declare(tracking_keyspace=move.keyspace)
    tables, migration = open_control(move, move.target_name, tracking_keyspace=move.keyspace)
    set_limits(tables, migration, {"origin_rows": 777})
    again = move.project.run(None, assets=[letters])
    assert "Now rate: origin 777 rows/s (set)" in move.project.messages_of(again.run_id)
    assert "1 row is set aside, such as " in again.error
    assert not move.check("no_dead_letters")[0]

    move.execute("DELETE FROM {origin} WHERE batchid = '' AND courseid = 'c' AND userid = "
                 f"'{_user_of(sample)}'")  # fmt: skip
    replayed = move.project.run(None, assets=[letters]).assert_success()
    told = replayed.materializations(letters)[None]
    assert (told["replayed"], told["gone"], told["dead_letters"]) == (0, 1, 0)
    passed, sentence, metadata = move.check("no_dead_letters")
    assert (passed, sentence) == (True, "No row is set aside.")
    assert "run" in metadata


def _user_of(sample: str) -> str:
    return sample.split("userid='")[1].split("'")[0]
