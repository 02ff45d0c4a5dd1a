"""Green sentences are true in every mode: what was compared, which rows, and what was passed over.

A table of modes and sentences, each of a real run; expected numbers are read without the engine.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest

from migration_platform.token_ranges import MAX_TOKEN
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    ROWS,
    Move,
)

pytestmark = DAGSTERS_OWN_WARNINGS

TIMES = "writetimes and TTLs"
ONLY_THERE = "rows that only the target has"
EXTRA_ROW = "INSERT INTO {target} (batchid, courseid, userid) VALUES ('b', 'c', 'u-extra')"
Row = dict[str, Any]


@dataclass(frozen=True)
class Mode:
    """A declaration, the rows that it takes, and how its green sentences go on.

    `before` is CQL that runs first, `counted` and `matched` are what the sentences say of `{n}`
    rows.
    """

    declared: dict[str, Any]
    takes: Callable[[Row], bool] = lambda row: True
    before: tuple[str, ...] = ()
    counted: str = "{n} rows on both sides."
    matched: str = "{n} rows."
    ending: str = ""
    over: str = TIMES
    metadata: dict[str, str] = field(default_factory=dict)


MODES = {
    "plain": Mode({}),
    "where": Mode(
        {"filter": {"where": "progress < 3"}},
        lambda row: row["progress"] is not None and row["progress"] < 3,
        ending=" Filter: where progress < 3.",
    ),
    "where nothing is": Mode(
        {"filter": {"where": "progress < -7"}},
        lambda row: False,
        counted="No row was there to count.",
        matched="no row was there to compare.",
        ending=" Filter: where progress < -7.",
    ),
    "a window without a row": Mode(
        {"filter": {"token_min": MAX_TOKEN}},
        lambda row: False,
        counted="No row was there to count.",
        matched="no row was there to compare.",
        ending=f" Filter: tokens {MAX_TOKEN} to {MAX_TOKEN}.",
    ),
    "a sample of recent rows, but of some": Mode(
        {
            "filter": {
                "writetime_from": "2020-01-01",
                "column": {"name": "courseid", "value": "none"},
            }
        },
        ending=" Filter: writetimes 2020-01-01T00:00:00Z to any; without rows whose courseid is "
        "'none'.",
    ),
    "one way": Mode(
        {"diff": {"mode": "origin_only"}},
        before=(EXTRA_ROW,),
        counted=f"{{n}} rows of the origin are in the target. Not looked at: {ONLY_THERE}.",
        over=f"{ONLY_THERE}; {TIMES}",
    ),
    "one way, and no row": Mode(
        {"diff": {"mode": "origin_only"}},
        lambda row: False,
        before=("TRUNCATE {origin}", EXTRA_ROW),
        counted=f"No row of the origin was there to count. Not looked at: {ONLY_THERE}.",
        matched="no row was there to compare.",
        over=f"{ONLY_THERE}; {TIMES}",
    ),
    "nothing kept": Mode({"writetime": "now", "ttl": "none"}, over=""),
    "times compared": Mode(
        {"diff": {"compare_writetime": True}},
        matched="{n} rows, each cell with its writetime and TTL.",
        over="",
    ),
    "a column skipped": Mode(
        {"columns": {"skip": ["progress"]}},
        over="the origin's column progress, which is not copied; the target's column progress, "
        f"which nothing fills; {TIMES}",
    ),
}


@pytest.mark.parametrize("name", MODES)
def test_what_is_green_says_what_was_compared(move: Move, name: str) -> None:
    mode = MODES[name]
    for statement in mode.before:
        move.execute(statement)
    move.declare(**mode.declared)

    run = move.project.run().assert_success()

    rows = len([row for row in move.origin_rows() if mode.takes(row)])
    assert (rows == 0) == ("No row" in mode.counted)
    filtered = mode.ending.removeprefix(" Filter: ").removesuffix(".")
    over = f" Not looked at: {mode.over}." if mode.over else ""
    counts, ranges = move.check("row_counts_match"), move.check("all_ranges_match")
    assert counts[:2] == (True, mode.counted.format(n=rows) + mode.ending)
    assert ranges[:2] == (
        True,
        f"All {RANGES} ranges match: {mode.matched.format(n=rows)}{mode.ending}{over}",
    )
    for told in (counts[2], ranges[2], *run.materializations(move.diff).values()):
        assert told.get("filter", "") == filtered
        assert told.get("not_looked_at", "") == mode.over
    for told in (range_ for key, range_ in run.materializations(move.target).items() if key):
        assert told.get("filter", "") == filtered
    graph = move.project.load().resolve_asset_graph()
    for check in ("row_counts_match", "all_ranges_match"):
        described = graph.get(dg.AssetCheckKey(move.target, check)).description
        assert described.endswith(mode.ending or ".")


def test_a_count_of_one_way_does_not_pass_for_the_rows_of_the_target(move: Move) -> None:
    move.declare(diff={"mode": "origin_only"})
    move.execute(EXTRA_ROW)
    run = move.project.run().assert_success()
    assert len(move.target_rows()) == ROWS + 1

    for told in (move.check("row_counts_match")[2], *run.materializations(move.diff).values()):
        assert "target_rows" not in told
    assert move.check("row_counts_match")[2]["rows_found_in_the_target"] == ROWS

    move.execute("TRUNCATE {target}")
    move.project.run(assets=[move.diff])
    passed, sentence, _ = move.check("row_counts_match")
    assert not passed
    assert sentence.startswith(f"{ROWS} rows at the origin, 0 of them in the target; counts differ")


def test_rows_too_new_to_be_judged_are_told(move: Move) -> None:
    move.project.run().assert_success()
    row = move.target_rows(KEYS[4])[0]
    # A machine may take twenty seconds from here to the comparison.
    later = time.time_ns() // 1000 + 10_000_000
    move.execute(
        f"UPDATE {{target}} USING TIMESTAMP {later} SET progress = 99 WHERE "
        + " AND ".join(f"{name} = '{row[name]}'" for name in ("batchid", "courseid", "userid"))
    )
    move.declare(diff={"ignore_newer_than_seconds": 10})

    move.project.run(assets=[move.diff]).assert_success()

    newer = "Not looked at: 1 rows that differ and were written shortly before"
    assert move.check("row_counts_match")[1] == f"{ROWS} rows on both sides. {newer}."
    assert move.check("all_ranges_match")[1] == (
        f"All {RANGES} ranges match: {ROWS} rows. {newer}; {TIMES}."
    )
