"""Runs of a synchronisation against a real Cassandra, a real Kafka and a real Dagster instance."""

import json
import time
from typing import Any

import dagster as dg
import pytest

from migration_platform.components.table import ended_runs
from migration_platform.syncing.position import Position
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, KEYS, Move
from migration_platform_tests.syncing_moves import SyncedMove, begin_sync

pytestmark = DAGSTERS_OWN_WARNINGS


def change(synced: SyncedMove, row: dict[str, Any], value: int) -> None:
    """Change a row at the origin, and tell of it."""
    synced.move.execute(
        f"UPDATE {{origin}} SET progress = {value} WHERE userid = '{row['userid']}' AND "
        f"courseid = '{row['courseid']}' AND batchid = '{row['batchid']}'"
    )
    synced.tell(row)


def delete(synced: SyncedMove, row: dict[str, Any]) -> None:
    synced.move.execute(
        f"DELETE FROM {{origin}} WHERE userid = '{row['userid']}' AND "
        f"courseid = '{row['courseid']}' AND batchid = '{row['batchid']}'"
    )
    synced.tell(row)


def test_a_target_follows_its_origin_from_the_position_of_the_copy(move: Move) -> None:
    synced = begin_sync(move, partitions=2)
    rows = move.origin_rows()
    synced.tell(rows[0])
    refused = synced.run_sync()
    assert not refused.success
    assert "the full copy is not complete" in refused.error
    assert 'dg launch --assets "' in refused.error

    copied = move.project.run().assert_success()
    positions = [
        Position.parse(told["sync_position"])
        for key, told in copied.materializations(move.target).items()
        if key is not None
    ]
    assert len(positions) == 8
    assert {tuple(position.offsets.items()) for position in positions} == {((0, 1), (1, 0))}

    change(synced, rows[0], 77)
    change(synced, rows[0], 78)
    delete(synced, rows[1])
    result = synced.run_sync(up_to="now").assert_success()

    move.assert_same_rows()
    told = synced.commits()[-1]
    assert (told["keys"], told["written"], told["deleted"]) == (2, 1, 1)
    assert (told["lag_messages"], told["rejected"], told["unreadable"]) == (0, 0, 0)
    assert Position.parse(told["began_at"]).offsets == {0: 1, 1: 0}
    position = Position.parse(told["position"])
    assert position.offsets == {0: 4, 1: 0}
    assert abs(time.time() - position.synced_at) < 60
    assert set(told["touched"]) <= {each.key for each in _ranges()}
    assert told["at_a_glance"].startswith("![")
    assert result.checks["sync_is_fresh"].passed
    assert result.checks["no_dead_letters"].passed
    assert "has all changes of" in move.project.messages_of(result.run_id)

    # What it wrote since the comparison is told, and turns nothing red.
    passed, said, metadata = move.check("all_ranges_match")
    assert passed
    assert "ranges were written by the synchronisation since they were compared" in said
    assert metadata["compare_command"].startswith('dg launch --assets "')
    move.project.run(assets=[move.diff]).assert_success()
    assert "by the synchronisation" not in move.check("all_ranges_match")[1]

    # The next run goes on where this one ended.
    change(synced, rows[2], 79)
    synced.run_sync(seconds=8).assert_success()
    move.assert_same_rows()
    assert Position.parse(synced.commits()[-1]["began_at"]) == position


def _ranges() -> Any:
    from migration_platform.token_ranges import split_ring

    return split_ring(8)


def test_a_second_run_of_the_same_synchronisation_is_refused(move: Move) -> None:
    synced = begin_sync(move)
    move.project.run().assert_success()
    with move.project.instance() as instance:
        first = instance.create_run_for_job(
            move.project.load().resolve_implicit_global_asset_job_def(),
            tags={ended_runs.syncs_tag(move.target): ended_runs.BEGUN},
            status=dg.DagsterRunStatus.STARTED,
        )

    refused = synced.run_sync()

    assert not refused.success
    assert f"run {first.run_id} follows the origin already" in refused.error


def test_a_message_that_names_no_row_fails_the_run_or_is_made_up_for(move: Move) -> None:
    synced = begin_sync(move)
    move.project.run().assert_success()
    rows = move.origin_rows()
    synced.send("{}")
    failed = synced.run_sync(up_to="now")
    assert not failed.success
    assert f"message 0 of partition 0 of the topic {synced.topic} names no row" in failed.error
    assert "dead_letters.max_rows" in failed.error

    synced.declare(dead_letters={"max_rows": 5})
    change(synced, rows[0], 80)
    synced.run_sync(up_to="now").assert_success()
    move.assert_same_rows()
    passed, said, _ = synced.check("no_dead_letters")
    assert not passed
    assert "1 message was set aside" in said
    assert "scan: all" in said

    synced.run_sync(scan="all").assert_success()
    assert synced.check("no_dead_letters")[0]


def test_rounds_find_what_no_message_told(move: Move) -> None:
    synced = begin_sync(move, kafka=False, scan={"every": "1h", "ranges_per_tick": 3})
    move.project.run().assert_success()
    rows = move.origin_rows()
    change(synced, rows[0], 81)
    delete(synced, rows[1])

    synced.run_sync(up_to="now").assert_success()

    move.assert_same_rows()
    told = synced.commits()[-1]
    position = Position.parse(told["position"])
    assert sorted(position.compared_at) == list(range(8))
    assert not position.open_ranges
    assert told["lag_seconds"] < 60
    assert sum(each["ranges_compared"] for each in synced.commits()) == 8


def test_a_position_of_a_run_is_that_of_a_person(move: Move) -> None:
    synced = begin_sync(move)
    move.project.run().assert_success()
    rows = move.origin_rows()
    for value in (1, 2, 3):
        change(synced, rows[value], value)
    synced.run_sync(up_to="now").assert_success()

    again = json.dumps({"topic": synced.topic, "offsets": {"0": 1}})
    synced.run_sync(up_to="now", position=again).assert_success()

    told = synced.commits()[-1]
    assert (told["messages"], told["unchanged"], told["written"]) == (2, 2, 0)
    assert Position.parse(told["began_at"]) == Position.parse(again)

    for wrong, said in (
        ('{"topic": "other", "offsets": {"0": 1}}', "position is one of the topic other"),
        ('{"open_ranges": "9"}', "position names the range 9, and there are 8"),
        ("now", "this is no position of a synchronisation"),
    ):
        refused = synced.run_sync(position=wrong)
        assert not refused.success
        assert said in refused.error


@pytest.mark.parametrize("away", ["kafka"])
def test_a_copy_does_not_begin_while_its_position_cannot_be_asked(move: Move, away: str) -> None:
    synced = begin_sync(move)
    synced.declare(sync={"kafka": {"store": "monitoring", "topic": f"{synced.topic}.{away}"}})

    failed = move.project.run()

    assert not failed.success
    assert "the copy does not begin" in failed.error
    assert not move.target_rows()


def test_a_copy_made_before_sync_was_declared_is_compared_first(move: Move) -> None:
    move.project.run().assert_success()
    rows = move.origin_rows()
    move.execute(
        f"UPDATE {{origin}} SET progress = 5 WHERE userid = '{rows[0]['userid']}' AND "
        f"courseid = '{rows[0]['courseid']}' AND batchid = '{rows[0]['batchid']}'"
    )
    synced = begin_sync(move)

    result = synced.run_sync(up_to="now").assert_success()

    move.assert_same_rows()
    assert "8 ranges have no position of a copy" in move.project.messages_of(result.run_id)


def test_a_range_that_is_carried_over_keeps_the_position_of_the_copy_that_read_it(
    move: Move,
) -> None:
    synced = begin_sync(move)
    move.project.run(f"{KEYS[0]}...{KEYS[3]}").assert_success()
    row = move.origin_rows(KEYS[0])[0]
    change(synced, row, 90)

    result = move.project.run(config=move.step_config(resume="auto")).assert_success()

    told = result.materializations(move.target)
    offsets = [Position.parse(told[key]["sync_position"]).offsets[0] for key in KEYS]
    assert offsets == [0] * 4 + [1] * 4
    synced.run_sync(up_to="now").assert_success()
    assert Position.parse(synced.commits()[-1]["began_at"]).offsets == {0: 0}
    move.assert_same_rows()


def test_after_a_copy_into_an_emptied_target_the_position_of_that_copy_counts(move: Move) -> None:
    synced = begin_sync(move)
    move.project.run().assert_success()
    synced.run_sync(up_to="now").assert_success()
    rows = move.origin_rows()
    change(synced, rows[0], 91)
    move.project.run(config=move.step_config(truncate_target=True)).assert_success()
    change(synced, rows[1], 92)

    synced.run_sync(up_to="now").assert_success()

    assert Position.parse(synced.commits()[-1]["began_at"]).offsets == {0: 1}
    move.assert_same_rows()
