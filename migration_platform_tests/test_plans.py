"""A plan tells what a copy would do; a run keeps to it: collisions, counters, large cells."""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest

from migration_platform.runs.control import set_limits
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    Move,
    open_control,
)
from migration_platform_tests.tables import create_table, insert_rows, rows_of

pytestmark = DAGSTERS_OWN_WARNINGS


@dataclass
class Odd:
    """A migration from `a` to `b`, tables that each test makes for itself."""

    move: Move

    def make(self, origin: str, target: str) -> None:
        connection, keyspace = self.move.connection, self.move.keyspace
        self.a = create_table(connection, keyspace, "a", origin)
        self.b = create_table(connection, keyspace, "b", target)

    def fill(self, rows: list[dict[str, Any]], using: str = "") -> None:
        insert_rows(self.move.connection, self.a, rows, using)

    def declare(self, **attributes: Any) -> None:
        self.move.project.declare(
            "odd",
            "TableMigration",
            origin={"store": "sunbird", "table": str(self.a)},
            target={"store": "reports", "table": str(self.b)},
            **{"token_ranges": RANGES, "workers": 1, "retry_seconds": 10, **attributes},
        )

    @property
    def target(self) -> dg.AssetKey:
        return dg.AssetKey(["reports", self.move.keyspace, "b"])

    def plan(self, config: dict[str, Any] | None = None):
        """Materialize the plan; gives the run and the plan's metadata."""
        key = dg.AssetKey([*self.target.path[:-1], "b_plan"])
        name = "__".join(key.path)
        given = {"ops": {name: {"config": config}}} if config else None
        run = self.move.project.run(None, assets=[key], config=given)
        return run, run.materializations(key).get(None, {})

    def run(self, *, only_diff: bool = False, **more: Any):
        diff = dg.AssetKey([*self.target.path[:-1], "b_diff"])
        assets = [diff] if only_diff else [self.target, diff]
        return self.move.project.run(assets=assets, **more)

    def check(self, name: str) -> tuple[bool, str, dict[str, Any]]:
        """What a check said last: whether it passed, its sentence and its metadata."""
        return replace(self.move, target_name="b").check(name)

    def filled(self) -> list[dict[str, Any]]:
        return rows_of(self.move.reader, self.a)

    def rows(self) -> list[dict[str, Any]]:
        return rows_of(self.move.reader, self.b)


@pytest.fixture
def odd(move: Move) -> Odd:
    return Odd(move)


def test_a_plan_says_what_is_exact_and_what_cannot_be_and_writes_nothing(odd: Odd) -> None:
    odd.make(
        "k int, c int, s int STATIC, v int, l list<int>, m map<text, int>, PRIMARY KEY (k, c)",
        "k int, c int, s int STATIC, value int, l list<int>, m map<text, int>, author text, "
        "PRIMARY KEY (k, c)",
    )
    odd.fill([{"k": 1, "c": 1, "v": 1, "s": 2, "l": [1], "m": {"a": 1}}])
    odd.declare(columns={"rename": {"v": "value"}, "constants": {"author": "me"}})

    run, metadata = odd.plan()

    run.assert_success()
    lines = {line.split(" | ")[0].strip("| "): line for line in metadata["fidelity"].split("\n")}
    for column, said, is_exact in (
        ("value", "those of v", True),
        ("m", "each element's own", True),
        ("s", "each cell's own", True),
        ("l", "one time for the whole list", False),
        ("(row markers)", "no query tells a marker's", False),
    ):
        assert said in lines[column]
        assert lines[column].endswith("| ✓ |" if is_exact else "| inexact |")
    assert metadata["inexact"] == "l, (row markers)"
    assert "| value | int | v (int) |" in metadata["columns"]
    assert "| author | text | a constant |" in metadata["columns"]
    assert odd.rows() == []


def test_a_plan_of_a_migration_that_does_not_fit_says_why(odd: Odd) -> None:
    odd.make("k int PRIMARY KEY, v int", "k int PRIMARY KEY, v text")
    odd.declare()

    run, _ = odd.plan()

    assert not run.success
    assert "name INT_STRING in columns.codecs" in run.error
    assert "Traceback" not in run.error


def test_rows_that_would_collide_are_told_by_the_plan_and_refused_by_a_run(odd: Odd) -> None:
    odd.make("k int, c int, v int, PRIMARY KEY (k, c)", "k int PRIMARY KEY, v int")
    odd.fill([{"k": k, "c": c, "v": 10 * k + c} for k in range(5) for c in range(1 + k % 2)])
    odd.declare(columns={"skip": ["c"]})

    planned, _ = odd.plan()
    run = odd.run()

    for ended in (planned, run):
        assert not ended.success
        assert "4 origin rows would land on 2 target rows" in ended.error
        assert "collisions: newest" in ended.error
    assert "(k=1) from (k=1, c=1), (k=1, c=0)" in planned.error
    assert odd.rows() == []


def test_a_run_that_was_told_who_wins_copies_the_winners_and_is_green(odd: Odd) -> None:
    odd.make("k int, c int, v int, PRIMARY KEY (k, c)", "k int PRIMARY KEY, v int")
    odd.fill([{"k": k, "c": 0, "v": 1} for k in range(6)], "USING TIMESTAMP 2000")
    odd.fill([{"k": k, "c": 1, "v": 2} for k in range(3)], "USING TIMESTAMP 1000")
    odd.declare(columns={"skip": ["c"]}, collisions="newest", diff={"compare_writetime": True})

    run = odd.run().assert_success()

    assert odd.rows() == [{"k": k, "v": 1} for k in range(6)]
    ranges = run.materializations(odd.target)
    assert sum(found.get("rows_collided", 0) for found in ranges.values()) == 3
    assert [evaluation.passed for evaluation in run.checks.values()] == [True, True, True]
    # The comparison alone asks again which row wins.
    diff = dg.AssetKey([*odd.target.path[:-1], "b_diff"])
    odd.move.project.run(assets=[diff]).assert_success()


def test_large_cells_are_told_before_and_while_copying(odd: Odd) -> None:
    body = "k int PRIMARY KEY, small text, big text"
    odd.make(body, body)
    odd.fill([{"k": k, "small": "x", "big": "x" * (1000 + k % 2)} for k in range(10)])
    odd.declare(guardrails={"max_column_kb": 1, "action": "fail"})

    planned, _ = odd.plan()
    failed = odd.run()

    assert not planned.success
    assert "cells of more than 1 KB would fail their ranges (big: 5), such as k=" in planned.error
    assert not failed.success
    assert "guardrails.max_column_kb is 1" in failed.error

    odd.declare(guardrails={"max_column_kb": 1, "action": "skip"})
    run = odd.run().assert_success()
    assert sorted(row["k"] for row in odd.rows() if row["k"] % 2) == []
    ranges = run.materializations(odd.target).values()
    assert sum(found.get("rows_too_large", 0) for found in ranges) == 5
    assert sum(found.get("large_cells", {}).get("big", 0) for found in ranges) == 5


def test_a_rehearsal_finds_what_cannot_be_converted(odd: Odd) -> None:
    odd.make("k int PRIMARY KEY, v text", "k int PRIMARY KEY, v int")
    odd.fill([{"k": 1, "v": "1"}, {"k": 2, "v": "two"}])
    odd.declare(columns={"codecs": ["INT_STRING"]}, tracking_keyspace=odd.move.keyspace)

    assert odd.plan()[0].success
    tables, migration = open_control(odd.move, "b", tracking_keyspace=odd.move.keyspace)
    set_limits(tables, migration, {"origin_rows": 777})
    run, _ = odd.plan({"rehearse": True})

    assert not run.success
    assert "the row k=2 cannot be converted: v: INT_STRING" in run.error
    # A rate that was set holds for its reads too.
    assert "Now rate: origin 777 rows/s (set)" in odd.move.project.messages_of(run.run_id)
    assert odd.rows() == []


def test_counters_of_a_range_copied_before_are_not_brought_back(odd: Odd) -> None:
    body = "k int PRIMARY KEY, n counter"
    odd.make(body, body)
    execute = odd.move.reader.execute
    for k in range(12):
        execute(f"UPDATE {odd.a} SET n = n + {k + 1} WHERE k = {k}")
    odd.declare()
    odd.run().assert_success()
    execute(f"DELETE FROM {odd.b} WHERE k = 3")
    execute(f"UPDATE {odd.a} SET n = n + 5 WHERE k = 4")

    again = odd.run()

    assert not again.success  # the comparison still misses the row
    assert {row["k"]: row["n"] for row in odd.rows()} == {
        k: k + 1 + 5 * (k == 4) for k in range(12) if k != 3
    }
    ranges = again.materializations(odd.target).values()
    assert sum(found.get("rows_left_alone", 0) for found in ranges) == 1
    assert "diff.repair: [counters]" in odd.move.project.messages_of(again.run_id)


def test_statics_come_with_their_times_and_their_differences_are_found(odd: Odd) -> None:
    body = "k int, c int, s int STATIC, v int, PRIMARY KEY (k, c)"
    odd.make(body, body)
    odd.fill([{"k": k, "c": c, "v": c} for k in range(4) for c in range(2)])
    odd.fill([{"k": k, "s": k} for k in range(8)], "USING TIMESTAMP 77")
    odd.declare(diff={"compare_writetime": True})

    run = odd.run().assert_success()

    found = odd.move.reader.execute(f"SELECT DISTINCT k, s, writetime(s) AS w FROM {odd.b}")
    assert {(row["k"], row["s"], row["w"]) for row in found} == {(k, k, 77) for k in range(8)}
    ranges = run.materializations(odd.target).values()
    assert sum(row.get("partitions_with_static_cells", 0) for row in ranges) == 8

    odd.move.reader.execute(f"UPDATE {odd.b} SET s = 99 WHERE k = 5")
    diff = dg.AssetKey([*odd.target.path[:-1], "b_diff"])
    compared = odd.move.project.run(assets=[diff])
    assert not compared.success
    assert "0 missing, 0 extra, 1 mismatched" in compared.error
    _, _, metadata = replace(odd.move, target_name="b").check("all_ranges_match")
    assert metadata["samples"] == {"mismatched": ["static cells of k=5: s"]}


def test_each_range_of_a_filtered_table_copies_what_passes(odd: Odd) -> None:
    body = "k int PRIMARY KEY, state text"
    odd.make(body, body)
    odd.fill([{"k": k, "state": ("on", " OFF ", "gone")[k % 3]} for k in range(30)])
    odd.declare(filter={"column": {"name": "state", "value": "off"}, "where": "state < 'p'"})

    run = odd.run().assert_success()

    assert {row["k"] for row in odd.rows()} == {k for k in range(30) if k % 3 != 1}
    ranges = run.materializations(odd.target)
    assert sum(found.get("rows_filtered", 0) for found in ranges.values()) == 10
    assert set(ranges) == set(KEYS)


def test_rows_that_stand_in_other_bytes_are_told_and_red_only_where_that_is_asked(
    odd: Odd,
) -> None:
    odd.make(*["k int, c decimal, v int, PRIMARY KEY (k, c)"] * 2)
    odd.fill([{"k": k, "c": Decimal("1.5"), "v": k} for k in range(20)])
    rows = [{"k": k, "c": Decimal("1.50"), "v": k} for k in range(3)]
    insert_rows(odd.move.connection, odd.b, rows, "USING TIMESTAMP 1")
    odd.declare(diff={"repair": ["missing", "mismatched", "extra"]}, ttl="none")

    odd.run().assert_success()

    passed, sentence, metadata = odd.check("all_ranges_match")
    assert passed
    assert len(odd.rows()) == 20
    # A server that merged both keeps either form.
    told = metadata.get("other_form", 0)
    assert (f" {told} rows hold the same values in other bytes" in sentence) == bool(told)
    odd.move.execute(f"TRUNCATE {odd.b}")
    insert_rows(odd.move.connection, odd.b, [{**r, "c": Decimal("1.50")} for r in odd.filled()])
    odd.run(only_diff=True).assert_success()

    passed, sentence, metadata = odd.check("all_ranges_match")
    assert (passed, metadata["other_form"]) == (True, 20)
    assert " 20 rows hold the same values in other bytes, such as the decimals" in sentence
    odd.declare(diff={"repair": ["mismatched", "extra"], "compare_form": True}, ttl="none")
    run = odd.run(only_diff=True)

    assert "20 mismatched rows" in run.error
    passed, sentence, metadata = odd.check("all_ranges_match")
    assert (passed, metadata["other_form"], metadata["mismatched"]) == (False, 20, 20)
    assert "k=0, c=1.5: c" in metadata["samples"]["other_form"]
    assert len(odd.rows()) == 20
