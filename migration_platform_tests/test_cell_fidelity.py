"""Random tables arrive cell by cell, however they came to be; and the reader that says so is right.

What arrived is read by `cells.py`, which knows nothing of the engine.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from migration_platform.comparing.diff import diff_ranges
from migration_platform.cql.names import TableName
from migration_platform.stores.work import Done, OpenStores, Reported
from migration_platform_tests.cells import (
    MAX_DIFFERENCES,
    Cells,
    ManyTables,
    RandomTable,
    as_asked_for,
    assert_same_cells,
    differences,
    many_tables,
    random_tables,
    read_cells,
    rows_in,
    with_times,
    without_columns,
)
from migration_platform_tests.tables import copy_ranges, in_process, plan_copy

reproducible = settings(
    # The same tables each time. Making one costs a fifth of a second and a server's memory, so
    # there are few, but full, and the one that fails is shown as it is.
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def tables(connection) -> Iterator[ManyTables]:
    with many_tables(connection) as tables:
        yield tables


class InThisProcess:
    """Does a pool's tasks one after the other, without the second that a process needs to start."""

    def __init__(self, stores: OpenStores):
        self._stores = stores

    def run(self, tasks):
        for task in tasks:
            told = []
            result = task.run(self._stores, told.append)
            yield from (Reported(task, value) for value in told)
            yield Done(task, result)


def find_differences(connection, plan) -> list[str]:
    pool = InThisProcess(in_process(plan, connection))
    verdicts = list(diff_ranges(pool, plan, plan.migration.ranges))
    assert len(verdicts) == len(plan.migration.ranges)
    return [
        f"{what} {row}"
        for verdict in verdicts
        for what in ("missing", "extra", "mismatched")
        for row in getattr(verdict, f"{what}_rows") or [""] * getattr(verdict, what)
    ] + [verdict.error for verdict in verdicts if verdict.error]


def make(connection, tables, table: RandomTable) -> tuple[TableName, TableName]:
    origin, target = tables.name(), tables.name()
    table.create(connection.session, origin)
    table.create(connection.session, target, as_target=True)
    table.fill(connection.session, origin)
    return origin, target


def test_every_cell_of_random_tables_arrives_as_it_is_and_stays_so(connection, reader, tables):
    seen: Counter[str] = Counter()

    @given(random_tables())
    @settings(reproducible, max_examples=20)
    def arrives(table: RandomTable) -> None:
        origin, target = make(connection, tables, table)
        expected = read_cells(reader, origin)
        plan = plan_copy(connection, origin, target, compare_writetime=True, token_ranges=2)
        stores = in_process(plan, connection)

        counts = copy_ranges(stores)

        assert counts.complete
        assert (counts.written, counts.errors, counts.skipped) == (rows_in(expected), 0, 0)
        first = read_cells(reader, target)
        assert_same_cells(expected, first)
        assert find_differences(connection, plan) == []

        copy_ranges(stores)

        again = read_cells(reader, target)
        assert_same_cells(expected, again)
        # A list that is equal is not written again, so not even its times may move.
        assert with_times(again, expires_at=None) == with_times(first, expires_at=None)
        seen.update(what_is_in(table, expected))

    arrives()
    assert seen["rows"] > 200
    assert seen["cells"] > 800
    assert seen["elements"] > 500
    assert seen["expiring"] > 250
    assert seen["statics"] > 50


MODES = [
    {"writetime": "row_max", "ttl": "row_max"},
    {"writetime": "row_max", "ttl": "none"},
    {"writetime": "cell", "ttl": "none", "writetime_increment_by": 7},
    {"writetime": 123_456, "ttl": 5000},
]


def test_random_tables_get_the_times_that_are_asked_for(connection, reader, tables):
    @given(random_tables(max_writes=80), st.sampled_from(MODES))
    @settings(reproducible, max_examples=6)
    def arrives(table: RandomTable, mode: dict[str, Any]) -> None:
        origin, target = make(connection, tables, table)
        plan = plan_copy(connection, origin, target, compare_writetime=True, **mode)
        increment = mode.get("writetime_increment_by", 0)
        expected = as_asked_for(
            read_cells(reader, origin), mode["writetime"], mode["ttl"], increment
        )
        copy_ranges(in_process(plan, connection))
        assert_same_cells(expected, read_cells(reader, target))
        assert find_differences(connection, plan) == []

    arrives()


def what_is_in(table: RandomTable, cells: Cells) -> dict[str, int]:
    statics = {column.name for column in table.statics}
    return {
        "rows": rows_in(cells),
        "cells": sum(place.column != "" for place in cells),
        "elements": sum(place.kind != "" for place in cells),
        "statics": sum(place.column in statics for place in cells),
        "expiring": sum(cell.expires_at is not None for cell in cells.values()),
    }


# -- the reader itself ---------------------------------------------------------------------------

COLUMNS = (
    "k int, c int, s text STATIC, v double, f frozen<list<int>>, l list<int>, e set<text>, "
    "m map<text, int>, u point, PRIMARY KEY (k, c)"
)
VALUES = "v = 1.5, f = [1], l = [1, 2], e = {'a', 'b'}, m = {'x': 1, 'y': 2}, u = {x: 1, y: 2}"
PLANTED = {
    "nothing": ("", ""),
    "a value": ("TIMESTAMP 10 SET v = 2.5", "v of c=1, k=1 is 2.5 written at 10"),
    "the sign of nothing": ("TIMESTAMP 10 SET v = -0.0", "v of c=1, k=1 is -0.0 written at 10"),
    "a writetime": ("TIMESTAMP 11 SET v = 1.5", "v of c=1, k=1 was written at 11, not 10"),
    "a TTL": ("TIMESTAMP 10 AND TTL 500 SET v = 1.5", "v of c=1, k=1 expires at "),
    "another TTL": ("TIMESTAMP 10 AND TTL 5000 SET f = [1]", "f of c=1, k=1 expires at "),
    "a null": ("TIMESTAMP 11 SET v = null", "v of c=1, k=1 is not at the target"),
    "a longer collection": ("TIMESTAMP 11 SET f = [1, 2]", "f of c=1, k=1 is [1, 2] written"),
    "an element more": ("TIMESTAMP 10 SET e = e + {'c'}", "e, element 'c' of c=1, k=1 is only"),
    "an element less": ("TIMESTAMP 11 SET e = e - {'b'}", "e, element 'b' of c=1, k=1 is not at"),
    "an element's writetime": ("TIMESTAMP 11 SET e = e + {'b'}", "e, element 'b' of c=1, k=1 was"),
    "an entry's value": ("TIMESTAMP 10 SET m['y'] = 3", "m, key 'y' of c=1, k=1 is 3 written at"),
    "an entry's TTL": ("TIMESTAMP 10 AND TTL 9 SET m['y'] = 2", "m, key 'y' of c=1, k=1 expires"),
    "a field's writetime": ("TIMESTAMP 11 SET u.x = 1", "u, field 'x' of c=1, k=1 was written"),
    "a field's null": ("TIMESTAMP 11 SET u.x = null", "u, field 'x' of c=1, k=1 is not at"),
    "a list's element": ("TIMESTAMP 10 SET l = l + [3]", "l, position 2 of c=1, k=1 is only"),
    "a static cell": ("TIMESTAMP 11 SET s = 's'", "s of k=1 was written at 11, not 10"),
}


@pytest.fixture(scope="module")
def like_each_other(tables):
    """Two tables with every kind of cell."""
    tables.add_type("point", "x int, y int")
    return tables.make("a", COLUMNS), tables.make("b", COLUMNS)


@pytest.mark.parametrize(("change", "found"), PLANTED.values(), ids=PLANTED)
def test_the_reader_finds_what_was_planted_and_nothing_else(
    connection, reader, like_each_other, change, found
):
    for name in like_each_other:
        connection.session.execute(f"TRUNCATE {name}", timeout=60)
        reader.execute(f"INSERT INTO {name} (k, c, s) VALUES (1, 1, 's') USING TIMESTAMP 10")
        where = "WHERE k = 1 AND c = 1"
        reader.execute(f"UPDATE {name} USING TIMESTAMP 10 SET {VALUES} {where}")
        reader.execute(f"UPDATE {name} USING TIMESTAMP 10 AND TTL 900 SET f = [1] {where}")
    origin, target = like_each_other
    if change:
        where = "WHERE k = 1" if " s = " in change else "WHERE k = 1 AND c = 1"
        reader.execute(f"UPDATE {target} USING {change} {where}")
    there = differences(read_cells(reader, origin), read_cells(reader, target))
    assert len(there) == bool(change)
    assert all(line.startswith(found) for line in there)


def test_the_reader_sees_rows_of_nulls_and_partitions_of_statics(
    connection, reader, like_each_other
):
    origin, target = like_each_other
    for name in like_each_other:
        connection.session.execute(f"TRUNCATE {name}", timeout=60)
    reader.execute(f"INSERT INTO {origin} (k, c) VALUES (1, 1)")
    reader.execute(f"INSERT INTO {origin} (k, s) VALUES (2, 's')")
    cells, nothing = read_cells(reader, origin), read_cells(reader, target)
    assert nothing == {}
    assert rows_in(cells) == 1
    assert sorted(map(str, cells)) == ["s of k=2", "the row c=1, k=1"]
    assert len(differences(cells, nothing)) == len(differences(nothing, cells)) == 2
    assert without_columns(cells, "s").keys() == {p for p in cells if not p.column}
    with pytest.raises(AssertionError, match="2 differences:\nthe row c=1, k=1 is not at the t"):
        assert_same_cells(cells, nothing)


def test_a_failure_shows_some_differences_and_counts_them_all(connection, reader, like_each_other):
    origin, target = like_each_other
    for name in like_each_other:
        connection.session.execute(f"TRUNCATE {name}", timeout=60)
    for number in range(MAX_DIFFERENCES + 5):
        reader.execute(f"INSERT INTO {origin} (k, c) VALUES (1, {number})")
    with pytest.raises(AssertionError) as failure:
        assert_same_cells(read_cells(reader, origin), read_cells(reader, target))
    lines = str(failure.value).splitlines()
    assert lines[0] == f"{MAX_DIFFERENCES + 5} differences:"
    assert sum("is not at the target" in line for line in lines) == MAX_DIFFERENCES


def test_random_tables_read_the_same_twice(connection, reader, tables):
    @given(random_tables(max_writes=30))
    @settings(reproducible, max_examples=3)
    def reads_the_same(table: RandomTable) -> None:
        origin, _ = make(connection, tables, table)
        first, second = read_cells(reader, origin), read_cells(reader, origin)
        assert first.keys() == second.keys()
        assert differences(first, second, except_lists=False) == []

    reads_the_same()
