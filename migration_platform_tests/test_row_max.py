"""Which cells count for the one writetime and the one TTL that `row_max` gives a row."""

import time

import pytest

from migration_platform.cql.names import TableName
from migration_platform.declaration.filters import Filter
from migration_platform.declaration.times import RowMax
from migration_platform.errors import DeclarationError, PreflightError
from migration_platform.stores.cassandra.tables import truncate
from migration_platform_tests.cells import many_tables, read_cells
from migration_platform_tests.tables import copy_table, declare, plan_copy

FIRST = 1_700_000_000_000_000
CDM = RowMax(collections=False, expiring_cells_only=True)
"""What the Cassandra Data Migrator looks at, as it is shipped."""


@pytest.fixture(scope="module")
def tables(connection, reader):
    """One row whose cells all differ in their times, one of elements only, one of one time."""
    body = "k int PRIMARY KEY, a int, b int, f frozen<list<int>>, e set<int>, u point"
    with many_tables(connection) as many:
        many.add_type("point", "x int, y int")
        origin, target = many.make("a", body), many.make("b", body)
        for key, what, after, ttl in [
            *((1, "a = 1", 10, 1000), (1, "b = 1", 20, 0), (1, "f = [1]", 5, 2000)),
            *((1, "e = {1}", 30, 3000), (1, "e = e + {2}", 31, 3000), (1, "u.x = 1", 40, 4000)),
            *((2, "e = {1}", 50, 500), (2, "u.y = 2", 60, 700)),
            *((3, "a = 1", 70, 800), (3, "b = 1", 70, 800), (3, "e = {7}", 70, 800)),
        ]:
            reader.execute(
                f"UPDATE {origin} USING TIMESTAMP {FIRST + after} AND TTL {ttl} SET {what} "
                f"WHERE k = {key}"
            )
        yield origin, target


def times_of(reader, table):
    """Give each row's set of writetimes and of TTLs, the latter in whole hundreds of seconds."""
    found: dict[int, tuple[set, set]] = {}
    for place, cell in read_cells(reader, table).items():
        if place.column:
            ((_, key),) = place.row
            writetimes, ttls = found.setdefault(int.from_bytes(key), (set(), set()))
            writetimes.add((cell.writetime_us or 0) - FIRST)
            ttls.add(cell.expires_at and round(cell.expires_at - time.time(), -2))
    return found


@pytest.mark.parametrize(
    ("chosen", "writetime", "ttl"),
    [
        (RowMax(), 40, None),
        (RowMax(collections=False), 20, None),
        (RowMax(expiring_cells_only=True), 40, 4000),
        (CDM, 20, 2000),
        (RowMax(writetime_columns=("a",)), 10, None),
        (RowMax(writetime_columns=("a", "f"), ttl_columns=("a", "b")), 10, None),
        (RowMax(("f", "e"), ("f",), collections=False), 31, 2000),
        (RowMax(ttl_columns=("b", "e"), expiring_cells_only=True), 40, 3000),
        (RowMax(ttl_columns=("u",), collections=False), 20, 4000),
    ],
    ids=str,
)
def test_only_the_cells_that_count_decide(connection, reader, tables, chosen, writetime, ttl):
    origin, target = tables
    truncate(connection, target)
    copy_table(connection, origin, target, writetime="row_max", ttl="row_max", row_max=chosen)
    found = times_of(reader, target)
    assert found[1] == ({writetime}, {ttl})
    # Where no cell that counts has a value, all others do.
    named = set(chosen.writetime_columns) & {"e"}
    assert found[2][0] == {50 if named else 60}
    assert found[3] == ({70}, {800})


def test_a_filter_by_writetime_looks_at_the_same_cells(connection, reader, tables):
    origin, target = tables
    truncate(connection, target)
    chosen = Filter(writetime_from=FIRST + 15, writetime_to=FIRST + 25)
    options = {"filter": chosen, "writetime": "row_max", "ttl": "row_max"}
    counts = copy_table(connection, origin, target, row_max=CDM, **options)
    assert (counts.written, counts.skipped) == (1, 2)
    assert set(times_of(reader, target)) == {1}
    truncate(connection, target)
    assert copy_table(connection, origin, target, **options).written == 0


def test_columns_of_which_no_time_is_read_are_refused(connection, tables):
    origin, target = tables
    for name, part in (("k", "it is a key"), ("z", "does not have")):
        with pytest.raises(PreflightError, match=part):
            plan_copy(
                connection, origin, target, ttl="row_max", row_max=RowMax(ttl_columns=(name,))
            )


@pytest.mark.parametrize(
    ("chosen", "options"),
    [
        (RowMax(writetime_columns=("a",)), {"ttl": "row_max"}),
        (RowMax(ttl_columns=("a",)), {"writetime": "row_max"}),
        (RowMax(expiring_cells_only=True), {"writetime": "row_max"}),
        (RowMax(collections=False), {}),
    ],
    ids=str,
)
def test_what_would_do_nothing_is_refused(chosen, options):
    with pytest.raises(DeclarationError, match=r"row_max\.\w+ does nothing unless"):
        declare(TableName("a", "b"), TableName("a", "c"), row_max=chosen, **options)
