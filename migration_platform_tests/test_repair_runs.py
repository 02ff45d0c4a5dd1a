"""Repairs as an operator meets them: the diff alone, materialized again, turns red ranges green."""

import shlex

from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, KEYS, ROWS, Move
from migration_platform_tests.test_checks import damage

pytestmark = DAGSTERS_OWN_WARNINGS


def test_a_repair_by_the_command_of_the_red_check_turns_everything_green(move: Move) -> None:
    move.project.run().assert_success()
    missing, _ = damage(move)
    move.declare(diff={"repair": ["missing", "mismatched"]})

    run = move.project.run(assets=[move.diff])

    # The deletion and the change are newer than the origin, and the extra row is not asked for.
    assert not run.success
    passed, _, metadata = move.check("all_ranges_match")
    assert not passed
    assert (metadata["missing"], metadata["extra"], metadata["mismatched"]) == (1, 1, 1)
    assert metadata["defeated"] == 2
    assert "diff.repair_writetime: now" in metadata["rerun_note"]
    assert len(move.target_rows()) == ROWS
    logged = move.project.messages_of(run.run_id)
    key = " %% ".join(missing[name] for name in ("batchid", "courseid", "userid"))
    assert f"Missing target row found for key: [{key}]" in logged
    assert "Extra target row found for key: [b %% c %% u-extra]" in logged

    everything = ["missing", "mismatched", "extra"]
    move.declare(diff={"repair": everything, "repair_writetime": "now"})
    first, *others = metadata["repair_command"].split(" && ")
    move.project.run_dg(*shlex.split(first)[1:]).assert_success()
    assert others
    move.project.run(assets=[move.diff]).assert_success()

    move.assert_same_rows()
    assert move.project.statuses(move.diff) == dict.fromkeys(KEYS, "success")
    passed, sentence, metadata = move.check("all_ranges_match")
    assert passed
    assert sentence.startswith(f"All 8 ranges match: {ROWS} rows.")
    assert " differences were repaired." in sentence
    assert metadata["corrected"] >= 1
    assert move.check("row_counts_match")[:2] == (True, f"{ROWS} rows on both sides.")
