"""After a cutover the old store follows the new one, should the applications have to return."""

import dagster as dg

from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, Move
from migration_platform_tests.syncing_moves import SyncedMove, begin_sync

pytestmark = DAGSTERS_OWN_WARNINGS


def change(move: Move, side: str, row: dict, progress: int) -> None:
    """Do what an application does on the side that it works with."""
    move.execute(
        f"UPDATE {{{side}}} SET progress = {progress} WHERE userid = '{row['userid']}' AND "
        f"courseid = '{row['courseid']}' AND batchid = '{row['batchid']}'"
    )


def test_after_a_cutover_the_old_table_follows_the_new_one_without_another_copy(move: Move) -> None:
    there = begin_sync(move)
    move.project.run().assert_success()
    rows = move.origin_rows()
    change(move, "origin", rows[0], 70)
    there.tell(rows[0])
    there.run_sync(up_to="now").assert_success()
    move.assert_same_rows()

    # The evening of the cutover: the first declaration follows no more, the second begins to.
    move.declare()
    name = f"{move.keyspace}.{move.origin_name}"
    back = SyncedMove(move, begin_topic(move))
    move.project.declare(
        "way_back",
        "TableMigration",
        origin={"store": "reports", "table": f"{move.keyspace}.{move.target_name}"},
        target={"store": "sunbird", "table": name},
        token_ranges=8,
        workers=1,
        retry_seconds=10,
        sync={"kafka": {"store": "monitoring", "topic": back.topic}},
        # Frozen in the report table alone; no application writes them here.
        columns={"skip": ["certificates", "contentstatus", "issued_certificates"]},
    )
    old = dg.AssetKey(["sunbird", move.keyspace, move.origin_name])
    diff, sync = (dg.AssetKey([*old.path[:-1], f"{old.path[-1]}_{x}"]) for x in ("diff", "sync"))
    step = "__".join(sync.path)
    up_to_now = {"ops": {step: {"config": {"up_to": "now"}}}}
    refused = move.project.run(None, assets=[sync], config=up_to_now)
    assert "the full copy is not complete" in refused.error

    # Nothing is copied: what was compared equal counts.
    move.project.run(assets=[diff]).assert_success()
    change(move, "target", rows[1], 71)
    move.execute(
        f"DELETE FROM {{target}} WHERE userid = '{rows[2]['userid']}' AND "
        f"courseid = '{rows[2]['courseid']}' AND batchid = '{rows[2]['batchid']}'"
    )
    back.tell(rows[1], rows[2])
    move.project.run(None, assets=[sync], config=up_to_now).assert_success()

    move.assert_same_rows()
    assert len(move.origin_rows()) == len(rows) - 1


def begin_topic(move: Move) -> str:
    """Make a topic for the way back, and leave the declaration as it is."""
    topic = begin_sync(move).topic
    move.declare()
    return topic
