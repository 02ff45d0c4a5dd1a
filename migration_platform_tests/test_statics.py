"""Static cells arrive once for each partition, with their own times, also where there are no rows.

What arrived is read by `cells.py`, which knows nothing of the engine.
"""

import time

import pytest

from migration_platform.comparing.diff import diff_ranges
from migration_platform.errors import PreflightError
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.tables import truncate
from migration_platform_tests.cells import (
    Pairs,
    as_asked_for,
    assert_same_cells,
    many_tables,
    read_cells,
    rows_in,
    with_times,
)
from migration_platform_tests.tables import (
    copy_ranges,
    copy_table,
    fill,
    in_process,
    insert_rows,
    plan_copy,
    rows_of,
)

FIRST = 1_700_000_000_000_000
STATICS = (
    "s int STATIC, t text STATIC, f frozen<list<int>> STATIC, e set<int> STATIC, "
    "l list<int> STATIC, m map<text, int> STATIC, u point STATIC"
)
COLUMNS = f"k int, c int, {STATICS}, v int, PRIMARY KEY (k, c)"
CHANGES = [
    *("s = 1", "t = ''", "f = [1]", "e = {1, 2}", "e = e + {3}", "l = [1]", "l = l + [2]"),
    *("m = {'a': 1}", "m['b'] = 2", "u = {x: 1, y: 1}", "u.y = 2"),
]


@pytest.fixture(scope="module")
def make(connection):
    with many_tables(connection) as tables:
        tables.add_type("point", "x int, y int")
        yield tables.make


@pytest.fixture(scope="module")
def change(reader):
    """Write some static cells of a partition, at a writetime and with a TTL."""

    def write(table, what, writetime_us, ttl=0, key="k = 1"):
        using = f"USING TIMESTAMP {writetime_us} AND TTL {ttl}"
        reader.execute(f"UPDATE {table} {using} SET {what} WHERE {key}")

    return write


def make_tables(connection, make, change):
    """Make partitions with rows and statics, with only one of them, and an empty table like it."""
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    for n, what in enumerate(CHANGES):
        change(origin, what, FIRST + n, ttl=1000 + n)
        change(origin, what, FIRST + n, ttl=(1000 + n) * (n % 2), key="k = 2")
        change(origin, what, FIRST, key="k = 4")
    rows = [{"k": k, "c": c, "v": c} for k in (1, 3, 4) for c in range(5)]
    insert_rows(connection, origin, rows, using=f"USING TIMESTAMP {FIRST + 50}")
    insert_rows(connection, origin, [{"k": 3, "c": 9}])
    change(origin, "s = 7", FIRST, key="k = 5")
    return origin, target


@pytest.fixture
def tables(connection, make, change):
    """Partitions with rows and statics, with only one of them, and an empty table like it."""
    return make_tables(connection, make, change)


@pytest.fixture(scope="module")
def lasting(connection, make, change):
    return make_tables(connection, make, change)


@pytest.fixture
def filled(connection, lasting):
    """The same for tests that change nothing in the origin: the target is empty each time."""
    truncate(connection, lasting[1])
    return lasting


def test_static_cells_keep_their_own_times_beside_rows_and_without_any(connection, reader, filled):
    origin, target = filled
    counts = copy_table(connection, origin, target)
    expected = read_cells(reader, origin)
    assert counts.complete
    assert counts.written == rows_in(expected) == 16
    assert counts.statics == 4
    # Two of the partitions have no rows, and one no static cells.
    assert {dict(place.row)["k"].shown for place in expected if place.column == "s"} == set("1245")
    assert {dict(place.row)["k"].shown for place in expected if not place.column} == set("134")
    assert_same_cells(expected, read_cells(reader, target))
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_static_cells_copied_again_stay_as_they_are(connection, reader, tables):
    origin, target = tables
    copy_table(connection, origin, target)
    first = read_cells(reader, target)
    copy_table(connection, origin, target)
    again = read_cells(reader, target)
    assert with_times(again, expires_at=None) == with_times(first, expires_at=None)
    assert_same_cells(read_cells(reader, origin), again)


@pytest.mark.parametrize(
    ("writetime", "ttl"),
    [
        *(("cell", "row_max"), ("cell", "none"), ("row_max", "cell"), ("row_max", "row_max")),
        *(("now", "cell"), ("now", "none"), (123_456, 5000), (123_456, "cell")),
    ],
)
def test_static_cells_get_the_times_that_are_asked_for(connection, reader, filled, writetime, ttl):
    origin, target = filled
    expected = as_asked_for(read_cells(reader, origin), writetime, ttl)
    started = time.time_ns() // 1000
    copy_table(connection, origin, target, writetime=writetime, ttl=ttl)
    found = read_cells(reader, target)
    if writetime == "now":
        assert all(cell.writetime_us >= started for p, cell in found.items() if p.column)
        found = with_times(found, writetime_us=0)
    assert_same_cells(expected, found)


def test_statics_of_composite_keys_find_their_partitions(connection, reader, make):
    body = (
        "a text, b int, c text, d int, s text STATIC, e set<int> STATIC, v int, PRIMARY KEY {} "
        "WITH CLUSTERING ORDER BY ({})"
    )
    origin = make("a", body.format("((a, b), c, d)", "c DESC, d ASC"))
    # The same partitions, in another order of the key and of the rows.
    target = make("b", body.format("((b, a), d, c)", "d DESC, c ASC"))
    for n in range(12):
        key = {"a": "ü" * (n % 3), "b": n % 4}
        statics = {"s": f"of {n}", "e": [n]}
        insert_rows(connection, origin, [key | statics], using=f"USING TIMESTAMP {FIRST + n}")
        if n % 2:
            insert_rows(connection, origin, [{**key, "c": "x", "d": d, "v": n} for d in range(3)])
    assert copy_table(connection, origin, target).written == 18
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_statics_of_a_partition_of_many_pages_arrive_once(connection, reader, make, change):
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    fill(connection, origin, "k, c, v", [(1, c, c) for c in range(300)])
    for n, what in enumerate(CHANGES):
        change(origin, what, FIRST + n)
    counts = copy_table(connection, origin, target, origin_fetch_size=7)
    assert (counts.written, counts.statics) == (300, 1)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_a_range_copies_the_statics_of_its_own_partitions(connection, reader, make):
    body = "k int, c int, s int STATIC, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    fill(connection, origin, "k, s", [(n, n) for n in range(60)])
    stores = in_process(plan_copy(connection, origin, target, token_ranges=4), connection)
    tokens = {
        row["k"]: row["t"] for row in reader.execute(f"SELECT k, token(k) AS t FROM {origin}")
    }
    expected = set()
    for token_range in stores.plan.migration.ranges[1:3]:
        inside = {key for key, token in tokens.items() if token in token_range}
        counts = copy_ranges(stores, [token_range])
        assert (counts.statics, counts.written) == (len(inside), 0)
        assert len(inside) > 0
        expected |= inside
        assert {row["k"] for row in rows_of(reader, target)} == expected


def test_a_null_static_cell_hides_nothing(connection, reader, make, change):
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    insert_rows(connection, origin, [{"k": k, "c": 1, "v": 1} for k in (1, 2)])
    change(origin, "s = 1", FIRST, key="k = 2")
    copy_table(connection, origin, target)
    # A tombstone would hide every value that is older than itself.
    change(target, "t = 'x', e = {1}, m = {'x': 1}, l = [1], u = {x: 1}, f = [1]", 5)
    change(target, "t = 'x', e = {1}, m = {'x': 1}, l = [1], u = {x: 1}, f = [1]", 5, key="k = 2")
    older = [p.column for p, cell in read_cells(reader, target).items() if cell.writetime_us == 5]
    assert sorted(older) == sorted(["t", "e", "m", "l", "u", "f"] * 2)


def test_deleted_static_cells_do_not_come(connection, reader, tables, change):
    origin, target = tables
    reader.execute(f"DELETE s, e, m['a'], u FROM {origin} WHERE k = 1")
    reader.execute(f"DELETE FROM {origin} WHERE k = 2")
    copy_table(connection, origin, target)
    found = read_cells(reader, target)
    assert_same_cells(read_cells(reader, origin), found)
    assert not any(str(place).endswith("k=2") for place in found)


def test_static_cells_that_are_newer_at_the_target_win(connection, reader, tables, change):
    origin, target = tables
    for what in ("s = 9", "m = m + {'a': 9}", "l = [9]"):
        change(target, what, FIRST + 1000)
    change(target, "s = 8, t = '8'", 5)
    copy_table(connection, origin, target)
    found = {str(place): cell for place, cell in read_cells(reader, target).items()}
    for place in ("s of k=1", "m, key 'a' of k=1", "l, position 0 of k=1"):
        assert (repr(found[place].value), found[place].writetime_us) == ("9", FIRST + 1000)
    assert "l, position 1 of k=1" not in found
    assert repr(found["t of k=1"].value) == "''"
    assert repr(found["m, key 'b' of k=1"].value) == "2"


def test_static_cells_that_expire_on_the_way_do_not_come_back(connection, reader, make, change):
    body = "k int, c int, s int STATIC, e set<int> STATIC, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    for k in range(4):
        change(origin, "s = 1, e = {1}", FIRST, ttl=1 + k // 2, key=f"k = {k}")
        change(origin, "e = e + {2}", FIRST, key=f"k = {k}")
    copy_table(connection, origin, target)
    time.sleep(3)
    found = read_cells(reader, target)
    assert sorted(map(str, found)) == [f"e, element 2 of k={k}" for k in range(4)]
    assert_same_cells(read_cells(reader, origin), found)


def test_statics_cannot_go_to_a_table_of_other_partitions(connection, make):
    origin = make("a", "k int, c int, s int STATIC, v int, PRIMARY KEY (k, c)")
    for name, body in {
        "b": "k int, c int, s int, v int, PRIMARY KEY (c, k)",
        "c": "k int, c int, s int STATIC, v int, PRIMARY KEY (c, k)",
        "d": "k int, c int, s int, v int, PRIMARY KEY (k, c)",
        "e": "k int, c int, s int STATIC, v int STATIC, PRIMARY KEY (k, c)",
    }.items():
        with pytest.raises(PreflightError, match="static") as refused:
            copy_table(connection, origin, make(name, body))
        assert "columns.skip" in str(refused.value) or "skip s" in str(refused.value)


# -- the comparison ------------------------------------------------------------------------------


@pytest.fixture
def find(connection, settings):
    """Compare two tables and give the rows that differ by kind, with the columns that do."""

    def compare(origin, target, **options):
        plan = plan_copy(connection, origin, target, token_ranges=1, **options)
        with WorkerPool(plan, settings, settings, workers=1) as pool:
            (verdict,) = diff_ranges(pool, plan, plan.migration.ranges)
        assert verdict.error == ""
        kinds = ("missing", "extra", "mismatched")
        assert all(getattr(verdict, k) == len(getattr(verdict, f"{k}_rows")) for k in kinds)
        return {
            (kind, row.key): row.columns
            for kind in kinds
            for row in getattr(verdict, f"{kind}_rows")
        }

    return compare


def test_a_copy_of_static_cells_compares_equal(connection, filled, find):
    origin, target = filled
    copy_table(connection, origin, target)
    assert find(origin, target, compare_writetime=True) == {}
    assert find(target, origin, compare_writetime=True) == {}


def test_differences_in_static_cells_are_found_in_their_partitions(
    connection, reader, make, change, find
):
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    rows = [{"k": k, "c": c, "v": c} for k in range(8) for c in range(3) if k % 2]
    insert_rows(connection, origin, rows)
    for k in range(8):
        for what in CHANGES:
            change(origin, what, FIRST, key=f"k = {k}")
    copy_table(connection, origin, target)
    assert find(origin, target) == {}
    for k, what in enumerate(
        ["s = 5", "t = 'x'", "e = e + {9}", "m['a'] = 9", "u.x = 9", "l = []"]
    ):
        change(target, what, FIRST + 100, key=f"k = {k}")
    reader.execute(f"DELETE FROM {target} WHERE k = 6")
    change(target, "s = 1", FIRST, key="k = 77")
    found = find(origin, target)
    mismatched = {key: columns for (kind, key), columns in found.items() if kind == "mismatched"}
    assert mismatched == {
        f"static cells of k={k}": (column,)
        for k, column in enumerate(["s", "t", "e", "m", "u", "l"])
    }
    assert {key for kind, key in found if kind == "missing"} == {"static cells of k=6"}
    assert {key for kind, key in found if kind == "extra"} == {"static cells of k=77"}


def test_differences_in_the_times_of_static_cells_are_found(connection, make, change, find):
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    values = {"s": 1, "t": "", "e": [1, 2], "m": Pairs([("a", 1)]), "u": (1, 2), "f": [1]}
    insert_rows(
        connection, origin, [{"k": k, **values} for k in range(8)], f"USING TIMESTAMP {FIRST}"
    )
    copy_table(connection, origin, target)
    assert find(origin, target, compare_writetime=True) == {}
    planted = {
        "s = 1": ("writetime(s)", 1, 0),
        "t = ''": ("ttl(t)", 0, 5000),
        "e = e + {2}": ("writetime(e)", 1, 0),
        "m['a'] = 1": ("ttl(m)", 0, 5000),
        "u.y = 2": ("writetime(u)", 1, 0),
        "f = [1]": ("ttl(f)", 0, 5000),
    }
    for k, (what, (_, later, ttl)) in enumerate(planted.items()):
        change(target, what, FIRST + later, ttl=ttl, key=f"k = {k}")
    assert find(origin, target) == {}
    assert find(origin, target, compare_writetime=True) == {
        ("mismatched", f"static cells of k={k}"): (column,)
        for k, (column, _, _) in enumerate(planted.values())
    }
