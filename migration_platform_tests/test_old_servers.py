"""Servers that tell less: before Cassandra 5.0 no writetimes of elements, or no Murmur3 tokens.

The server here tells all; the plan is told that it does not, and then no query asks for more.
"""

from dataclasses import replace

import pytest

from migration_platform.plan.preflight import plan_tables
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.stores.kinds import describe_fidelity
from migration_platform_tests.comparing import compare, found
from migration_platform_tests.tables import (
    copy_ranges,
    create_table,
    declare,
    fill,
    in_process,
    rows_of,
)

BODY = "k int PRIMARY KEY, v int, s set<int>, m map<text, int>, l list<int>"


@pytest.fixture
def tables(connection, keyspace, reader):
    """Two tables; in the first a row whose elements are older than its other cell."""
    origin, target = (create_table(connection, keyspace, name, BODY) for name in ("a", "b"))
    reader.execute(
        f"INSERT INTO {origin} (k, v, s, m, l) VALUES (1, 1, {{1}}, {{'a': 1}}, [1, 1]) "
        "USING TIMESTAMP 1000"
    )
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 1500 SET s = s + {{2}} WHERE k = 1")
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 2000 SET v = 2 WHERE k = 1")
    return origin, target


def plan_of(connection, tables, **options):
    """A plan between tables of which the server tells no times of elements."""
    migration = declare(*tables, **options)
    described = (
        replace(describe_table(connection, table), tells_elements=False) for table in tables
    )
    plan, problems = plan_tables(migration, *described)
    assert problems == []
    return plan


def test_elements_arrive_with_the_rows_newest_time_and_no_list_is_doubled(
    connection, reader, tables
):
    plan = plan_of(connection, tables, compare_writetime=True)
    for _ in range(2):
        assert copy_ranges(in_process(plan, connection)).written == 1
        assert rows_of(reader, tables[1]) == rows_of(reader, tables[0])
        (row,) = reader.execute(
            f"SELECT writetime(v) AS v, writetime(s) AS s, writetime(m) AS m FROM {tables[1]}"
        )
        assert row == {"v": 2000, "s": [2000, 2000], "m": [2000]}
    assert compare(connection, plan).matches


def test_a_list_that_differs_at_the_target_is_replaced(connection, reader, tables):
    reader.execute(f"INSERT INTO {tables[1]} (k, l) VALUES (1, [9, 9])")
    plan = plan_of(connection, tables)
    copy_ranges(in_process(plan, connection))
    assert rows_of(reader, tables[1]) == rows_of(reader, tables[0])


def test_the_report_names_what_is_not_exact_and_why(connection, tables):
    lines = {line.subject: line for line in describe_fidelity(plan_of(connection, tables))}
    for name in ("s", "m"):
        assert not lines[name].exact
        assert "this server tells no times of elements" in lines[name].times
    assert lines["v"].exact
    assert not lines["l"].exact


def test_a_target_that_hashes_keys_its_own_way_is_compared_and_repaired_range_by_range(
    connection, keyspace, reader
):
    body = "k int, c int, v int, s int static, PRIMARY KEY (k, c)"
    origin, target = (create_table(connection, keyspace, name, body) for name in ("a", "b"))
    assert describe_table(connection, origin).is_murmur3
    fill(connection, origin, "k, c, v, s", [(k, c, k, k) for k in range(40) for c in range(2)])
    everything = ("missing", "mismatched", "extra")
    migration = declare(origin, target, token_ranges=8, repair=everything)
    there = replace(describe_table(connection, target), is_murmur3=False)
    plan, problems = plan_tables(migration, describe_table(connection, origin), there)
    assert problems == []
    assert plan is not None
    copy_ranges(in_process(plan, connection))
    unrepaired = replace(plan, migration=replace(migration, repair=()))
    assert compare(connection, unrepaired).matches

    reader.execute(f"DELETE FROM {target} WHERE k = 3 AND c = 1")
    reader.execute(f"DELETE v FROM {target} WHERE k = 4 AND c = 0")
    reader.execute(f"INSERT INTO {target} (k, c, v) VALUES (99, 0, 1)")
    assert found(compare(connection, unrepaired)) == (1, 1, 1)
    by_token = sum(compare(connection, unrepaired, [r]).missing for r in migration.ranges)
    assert by_token == 1
    assert compare(connection, plan).corrected_extra == 1
    assert 99 not in {row["k"] for row in rows_of(reader, target)}
