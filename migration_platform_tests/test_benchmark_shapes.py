"""The benchmark of shapes makes the tables that it speaks of, and its page hides nothing."""

from collections import Counter

import pytest

from benchmarks.measuring import Measured, Spent
from benchmarks.peers import TOKEN_RANGES, own
from benchmarks.report import Report
from benchmarks.shapes import (
    HOT_PARTITIONS,
    PLAIN,
    SHAPES,
    SKEWED_INDEX,
    Outcome,
    Shape,
    Weighed,
    chosen_shapes,
    fill,
    make_page,
    tell_misses,
    weigh,
)
from benchmarks.tables import count_rows
from migration_platform.cql.rows import split_cells
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.token_ranges import index_of_token, split_ring, token_of_key

ROWS = 200


def shape(name: str) -> Shape:
    return next(shape for shape in SHAPES if shape.name == name)


def cells_of(name: str) -> list[list[bytes | None]]:
    made = shape(name)
    assert made.make
    rows = [row for partition in made.make(ROWS) for row in partition]
    return [split_cells(row, len(made.columns)) for row in rows]


def measured(seconds: float, largest_mb: float = 100.0) -> Measured:
    spent = Spent(1_000, seconds, seconds / 2, seconds / 4)
    return Measured(spent, None, 300.0, largest_mb, arrived=1_000)


def outcome(ours: Measured, theirs: Measured, **failed: str) -> Outcome:
    results = {own.NEW_TIMES.name: [ours], PLAIN: [theirs]}
    if failed:
        del results[PLAIN]
    report = Report(
        command="python -m benchmarks.shapes",
        rows=1_000,
        items=0,
        runs=1,
        mixed=False,
        machine={"cores": "2"},
        versions={"Cassandra": "5.0.6"},
        starts={},
        results=results,
        failed={PLAIN: failed["plain"]} if failed else {},
    )
    return Outcome(shape("nulls"), Weighed(1_000, 200_000, 36_000), report)


@pytest.mark.parametrize("name", [shape.name for shape in SHAPES])
def test_a_shape_holds_the_rows_that_were_asked_for(name: str, connection: Connection) -> None:
    made = shape(name)
    rows = ROWS if name != "large" else 3
    try:
        fill(connection, made, rows)
        weighed = weigh(connection, made.origin)
        assert weighed.rows == rows == count_rows(connection, made.origin)
        assert not count_rows(connection, made.target)
    finally:
        connection.session.execute(f"DROP KEYSPACE IF EXISTS {made.keyspace}")
    if name == "large":
        assert weighed.row_bytes > 100_000
    if name == "nulls":
        assert weighed.nulls == 36 * ROWS


def test_nearly_all_rows_of_the_skewed_shape_lie_in_one_range() -> None:
    ends = [token_range.end for token_range in split_ring(TOKEN_RANGES)]
    found = Counter(index_of_token(ends, token_of_key(row[0] or b"")) for row in cells_of("skewed"))

    assert found[SKEWED_INDEX] == pytest.approx(0.95 * ROWS, rel=0.06)
    assert sum(found.values()) == ROWS


def test_rows_of_the_hot_and_the_wide_shape_meet_in_few_partitions() -> None:
    assert len({row[1] for row in cells_of("hot")}) == HOT_PARTITIONS
    assert len({row[0] for row in cells_of("hot")}) == ROWS
    assert len({row[0] for row in cells_of("wide")}) == 1


def test_the_page_says_how_much_faster_a_copy_is_and_what_it_moves() -> None:
    page = make_page([outcome(measured(1.0), measured(4.0))])

    assert "| nulls | 1,000 | 200 | 4.00 times | - | - | - |" in page
    new_times = "| 1,000 | 0.2 | 500 | 250 | 100 |"
    assert f"| **{own.NEW_TIMES.name}** {new_times} 4.00 times |" in page
    assert "writes 36,000 tombstones." in page
    assert "In no shape is a copy of this project slower" in page


def test_the_page_names_where_this_project_is_slower_or_takes_too_much() -> None:
    told = tell_misses([outcome(measured(4.0, largest_mb=250.0), measured(1.0))])

    assert "nulls: this project, new times, is slower than the plain copy (0.25 times)." in told
    assert "a process of this project takes 250 MB" in told


def test_a_plain_copy_that_fails_is_told_of() -> None:
    failed = "it ended: OperationTimedOut; its log: /somewhere"
    page = make_page([outcome(measured(1.0), measured(1.0), plain=failed)])

    assert f"- {PLAIN}: failed; it ended: OperationTimedOut." in page
    assert "/somewhere" not in page


def test_a_shape_that_there_is_not_is_told_with_those_that_there_are() -> None:
    assert [each.name for each in chosen_shapes("wide,hot")] == ["wide", "hot"]
    with pytest.raises(SystemExit, match="no long; there are s1, wide"):
        chosen_shapes("long")
