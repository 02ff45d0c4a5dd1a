"""Runs with a filter of their own, and ranges that count because their rows were compared equal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from migration_platform.token_ranges import MAX_TOKEN, range_of_key
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    ROWS,
    Move,
)

pytestmark = DAGSTERS_OWN_WARNINGS

CHECKS = ("row_counts_match", "all_ranges_match")
SINCE = "2030-01-01T00:00:00Z"
LATER_US = 1_900_000_000_000_000
"""A moment after `SINCE`, in microseconds."""
ONLY_THERE = "rows that only the target has"
TIMES = "writetimes and TTLs"
OVER = f" Not looked at: {TIMES}."
OF_RUN = f" Filter of this run alone: writetimes {SINCE} to any; declared is: all rows."
EQUAL = f" {RANGES} of {RANGES} ranges were compared equal, not copied, under this declaration."


def write_later(move: Move, number: int) -> None:
    """Write rows into the origin that are newer than `SINCE`, among all ranges."""
    for n in range(number):
        move.execute(
            "INSERT INTO {origin} (userid, courseid, batchid, progress) "
            f"VALUES ('later-{n}', 'c', 'b', {n}) USING TIMESTAMP {LATER_US + n}"
        )


def later(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["userid"].startswith("later-")]


def judged_now(move: Move, name: str = "all_ranges_match") -> tuple[bool, str]:
    """Judge the table under its declaration, with nothing copied or compared."""
    move.project.run(None, only_checks=True).assert_success()
    return move.check(name)[:2]


# -- one run with another filter -----------------------------------------------------------------


def test_an_increment_copies_what_was_written_since_and_the_end_needs_no_second_copy(
    move: Move,
) -> None:
    move.project.run().assert_success()
    write_later(move, 20)
    read = move.step_config(filter={"writetime_from": SINCE})

    run = move.project.run(config=read).assert_success()

    move.assert_same_rows()
    copies = run.materializations(move.target)
    assert sum(found["rows_written"] for found in copies.values()) == 20
    assert {found["filter"] for found in copies.values()} == {f"writetimes {SINCE} to any"}
    assert {found["declared_filter"] for found in copies.values()} == {"all rows"}
    assert move.check("row_counts_match")[:2] == (
        True,
        f"20 rows of the origin are in the target.{OF_RUN} Not looked at: {ONLY_THERE}.",
    )
    assert move.check("all_ranges_match")[:2] == (
        True,
        f"All {RANGES} ranges match: 20 rows.{OF_RUN} Not looked at: {ONLY_THERE}; {TIMES}.",
    )
    assert OF_RUN.strip() in move.project.messages_of(run.run_id)
    # Under the declaration nothing of that counts.
    assert judged_now(move)[1].startswith(f"{RANGES} of {RANGES} ranges are not copied")

    compared = move.project.run(assets=[move.diff]).assert_success()

    assert compared.materializations(move.target) == {}
    total = ROWS + 20
    assert judged_now(move, "row_counts_match") == (True, f"{total} rows on both sides.{EQUAL}")
    assert judged_now(move) == (True, f"All {RANGES} ranges match: {total} rows.{EQUAL}{OVER}")
    assert move.check("all_ranges_match")[2]["ranges_compared_equal"] == RANGES
