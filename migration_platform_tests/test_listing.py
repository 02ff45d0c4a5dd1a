"""Every row that differs is listed, with its whole key and, if wanted, its values."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from migration_platform.comparing.listing import (
    UNTOLD,
    Difference,
    NotCompared,
    Showing,
    list_differences,
)
from migration_platform.cql.keys import MASKED, NO_KEY, key_condition
from migration_platform.declaration.columns import Columns
from migration_platform.declaration.filters import Filter
from migration_platform.plan.model import Plan
from migration_platform.reports.folder import DIFFERING, Folder
from migration_platform_tests.comparing import OneProcess, compare, found
from migration_platform_tests.tables import (
    copy_table,
    create_table,
    fill,
    plan_copy,
)


def listed(
    connection, plan: Plan, showing: Showing | None = None, ranges: Sequence | None = None
) -> list[Any]:
    pool: Any = OneProcess(plan, connection)
    chosen = plan.migration.ranges if ranges is None else ranges
    return list(list_differences(pool, plan, chosen, showing or Showing()))


def by_kind(rows: Sequence[Difference]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row.key)
    return {kind: sorted(keys) for kind, keys in kinds.items()}


def test_more_rows_are_listed_than_a_verdict_looks_at_again(
    connection, keyspace, monkeypatch
) -> None:
    from migration_platform.comparing import listing, settling

    monkeypatch.setattr(settling, "RECHECKED_ROWS", 50)
    monkeypatch.setattr(listing, "ROWS_A_TASK", 40)
    monkeypatch.setattr(listing, "TASKS_AT_ONCE", 2)
    origin = create_table(connection, keyspace, "a", "k int PRIMARY KEY, v int")
    target = create_table(connection, keyspace, "b", "k int PRIMARY KEY, v int")
    fill(connection, origin, "k, v", [(n, n) for n in range(1000)])
    fill(connection, target, "k, v", [(n, n if n % 2 else -1) for n in range(500, 1600)])
    plan = plan_copy(connection, origin, target, token_ranges=2)

    rows = listed(connection, plan)

    counted = compare(connection, plan)
    keys = by_kind(rows)
    assert {kind: len(each) for kind, each in keys.items()} == {
        "missing": 500, "mismatched": 250, "extra": 600
    }  # fmt: skip
    assert found(counted) == (500, 600, 250)
    assert keys["missing"] == sorted(f"k={n}" for n in range(500))
    assert keys["extra"] == sorted(f"k={n}" for n in range(1000, 1600))
    assert {row.columns for row in rows if row.kind == "mismatched"} == {("v",)}
    assert {row.origin + row.target for row in rows} == {""}
    one_way = plan_copy(connection, origin, target, token_ranges=2, diff_mode="origin_only")
    assert "extra" not in by_kind(listed(connection, one_way))


def test_a_key_is_whole_however_long_and_finds_its_row(connection, reader, keyspace) -> None:
    body = 'k text, "C c" blob, s text STATIC, v text, PRIMARY KEY (k, "C c")'
    origin, target = (create_table(connection, keyspace, name, body) for name in "ab")
    keys = [("=cmd|' /C calc'!A0", b"\x00" * 30_000), ("it's; -- \u2028\n", b"-1")]
    fill(connection, origin, 'k, "C c", s, v', [(*key, "st", "x" * 5000) for key in keys])
    plan = plan_copy(connection, origin, target)

    rows = listed(connection, plan, Showing(values=True))

    assert len([row for row in rows if row.statics]) == 2
    for row in rows:
        again = list(reader.execute(f"SELECT * FROM {origin} WHERE {row.key}"))
        assert len(again) == 1
        if not row.statics:
            assert (again[0]["k"], again[0]["C c"]) in keys
            assert row.origin == f"v='{'x' * 5000}'"
        else:
            assert row.origin == "s='st'"
        assert row.target == ""


def test_a_row_that_cannot_be_written_tells_its_value_only_if_asked(connection, keyspace) -> None:
    origin = create_table(connection, keyspace, "a", "k text PRIMARY KEY, v int")
    target = create_table(connection, keyspace, "b", "k int PRIMARY KEY, v int")
    fill(connection, origin, "k, v", [("s3cret", 1), ("7", 2)])
    plan = plan_copy(connection, origin, target, columns=Columns(codecs=("INT_STRING",)))

    def keys(showing: Showing) -> list[str]:
        return sorted(row.key for row in listed(connection, plan, showing))

    first, second = keys(Showing(values=True))
    assert first == "k=7"
    assert "is no int" in second or "s3cret" in second
    assert keys(Showing(masked_at_origin=frozenset({"k"}))) == [MASKED, f"k={MASKED}"]
    assert "from text" not in keys(Showing())[1]


def test_rows_whose_keys_tell_no_origin_are_listed_as_the_scans_found_them(
    connection, keyspace
) -> None:
    origin = create_table(connection, keyspace, "a", "k int, c int, v int, PRIMARY KEY (k, c)")
    target = create_table(connection, keyspace, "b", "k int PRIMARY KEY, c int, v int")
    fill(connection, origin, "k, c, v", [(n, 0, n) for n in range(50)])
    copy_table(connection, origin, target)
    fill(connection, target, "k, c, v", [(3, 0, 33), (99, 0, 1)])
    plan = plan_copy(connection, origin, target)
    assert not plan.tells_origin_row

    rows = listed(connection, plan)

    assert {(row.kind, row.key, row.columns) for row in rows} == {
        ("mismatched", "k=3", (UNTOLD,)), ("extra", "k=99", ())
    }  # fmt: skip


def test_what_a_filter_leaves_out_is_not_missing(connection, keyspace) -> None:
    origin, target = (
        create_table(connection, keyspace, name, "k int PRIMARY KEY, v int") for name in "ab"
    )
    fill(connection, origin, "k, v", [(n, n % 2) for n in range(40)])
    plan = plan_copy(connection, origin, target, filter=Filter(where="v = 1"))

    keys = by_kind(listed(connection, plan))
    assert keys == {"missing": sorted(f"k={n}" for n in range(40) if n % 2)}


def test_a_side_that_cannot_be_read_is_told_for_each_range(connection, keyspace) -> None:
    origin, target = (
        create_table(connection, keyspace, name, "k int PRIMARY KEY, v int") for name in "ab"
    )
    fill(connection, origin, "k, v", [(n, n) for n in range(40)])
    plan = plan_copy(connection, origin, target, retry_seconds=0.5)
    connection.session.execute(f"DROP TABLE {target}", timeout=60)

    rows = listed(connection, plan)

    assert {type(row) for row in rows} == {NotCompared}
    assert sorted(row.token_range for row in rows) == list(plan.migration.ranges)
    assert all(row.reason.startswith("the target could not be scanned: ") for row in rows)


def test_memory_does_not_grow_with_what_differs(connection, keyspace, tmp_path: Path) -> None:
    origin, target = (
        create_table(connection, keyspace, name, "k int PRIMARY KEY, v text") for name in "ab"
    )

    def peak_mb(first: int, count: int) -> float:
        fill(connection, origin, "k, v", [(n, "v" * 4_000) for n in range(first, first + count)])
        plan = plan_copy(connection, origin, target, token_ranges=1)
        pool: Any = OneProcess(plan, connection)
        lines = 0
        tracemalloc.start()
        with Folder(tmp_path / str(count)) as folder, folder.rows(DIFFERING, ("key",)) as file:
            shown = Showing(values=True)
            for row in list_differences(pool, plan, plan.migration.ranges, shown):
                assert isinstance(row, Difference)
                file.add(row.key, row.origin)
                lines += 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert lines == first + count
        return peak / 2**20

    # First what is imported and prepared once.
    peak_mb(0, 1_000)
    few, many = peak_mb(1_000, 1_000), peak_mb(2_000, 8_000)
    # Five times the rows: what is freed late counts as well.
    assert many < 3 * few + 8, (few, many)


def test_a_spreadsheet_takes_no_cell_for_a_formula(tmp_path: Path) -> None:
    with Folder(tmp_path / "r") as folder:
        with folder.rows(DIFFERING, ("a", "b", "c")) as file:
            for begin in ("=1+1", "+1", "-1", "@x", "\tx", "\rx", "x=1"):
                file.add(begin, "fine", -5)
        folder.finish()
    lines = (tmp_path / "r" / DIFFERING).read_bytes().decode().split("\n")
    assert lines[:5] == ["a,b,c", "'=1+1,fine,-5", "'+1,fine,-5", "'-1,fine,-5", "'@x,fine,-5"]
    assert lines[-2] == "x=1,fine,-5"


@pytest.mark.parametrize("masked", [(), ("v",)])
def test_what_stands_for_a_key_that_cannot_be_formed_is_hidden_beside_masks(masked) -> None:
    told = key_condition([("k", "int", NO_KEY + b"the row v='x' cannot be converted")], masked)
    assert told == (MASKED if masked else "the row v='x' cannot be converted")
