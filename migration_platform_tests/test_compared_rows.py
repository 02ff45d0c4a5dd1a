"""What is equal compares as equal, however the server tells it."""

import pytest

from migration_platform_tests.comparing import compare
from migration_platform_tests.tables import copy_table, create_table, plan_copy


@pytest.mark.parametrize("writetime", ["cell", "row_max", 1000])
def test_a_fixed_ttl_is_no_difference_in_a_row_whose_elements_share_a_time(
    connection, reader, keyspace, writetime
):
    body = "k int PRIMARY KEY, v int, e set<int>, m map<int, int>"
    origin, target = (create_table(connection, keyspace, name, body) for name in ("a", "b"))
    reader.execute(
        f"UPDATE {origin} USING TIMESTAMP 10 SET v = 1, e = {{1, 2}}, m = {{1: 1, 2: 2}} "
        "WHERE k = 1"
    )
    options = {"ttl": 5000, "writetime": writetime, "compare_writetime": True}
    copy_table(connection, origin, target, **options)
    assert compare(connection, plan_copy(connection, origin, target, **options)).matches
    reader.execute(f"UPDATE {target} USING TIMESTAMP 5000 SET v = 1 WHERE k = 1")
    (row,) = compare(connection, plan_copy(connection, origin, target, **options)).mismatched_rows
    assert row.columns == ("writetime(v)", "ttl(v)")


def test_a_set_within_a_type_of_ones_own_is_the_same_in_any_order(connection, reader, keyspace):
    connection.session.execute(f"CREATE TYPE {keyspace}.ty (w int, a frozen<set<int>>)")
    body = "k int PRIMARY KEY, v int, u ty"
    origin, target = (create_table(connection, keyspace, name, body) for name in ("a", "b"))
    reader.execute(f"INSERT INTO {origin} (k, v) VALUES (1, 1)")
    statement = connection.session.prepare(f"INSERT INTO {origin} (k, u) VALUES (1, ?)")
    connection.session.execute(statement, [(1, [5, -1])])
    copy_table(connection, origin, target)
    plan = plan_copy(connection, origin, target, compare_writetime=True)
    assert compare(connection, plan).matches
    reader.execute(f"UPDATE {target} SET u.a = {{-1, 6}} WHERE k = 1")
    (row,) = compare(connection, plan).mismatched_rows
    assert row.columns == ("u",)
