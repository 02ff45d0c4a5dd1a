"""Every cell keeps its writetime and its life, or gets those that were asked for.

What arrived is read by `cells.py`, which knows nothing of the engine.
"""

import time

import pytest

from migration_platform.comparing.diff import diff_ranges
from migration_platform.declaration.times import TTL_MODES, WRITETIME_MODES
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
    copy_table,
    fill,
    insert_rows,
    plan_copy,
)

FIRST = 1_700_000_000_000_000
COLUMNS = (
    "k int, c int, v int, w text, f frozen<list<int>>, l list<int>, e set<int>, m map<text, int>, "
    "u point, PRIMARY KEY (k, c)"
)


@pytest.fixture(scope="module")
def make(connection):
    with many_tables(connection) as tables:
        tables.add_type("point", "x int, y int, z int")
        yield tables.make


@pytest.fixture(scope="module")
def change(reader):
    """Write some cells of a row, at a writetime and with a TTL."""

    def write(table, what, writetime_us, ttl=0, key="k = 1 AND c = 1"):
        using = f"USING TIMESTAMP {writetime_us} AND TTL {ttl}"
        reader.execute(f"UPDATE {table} {using} SET {what} WHERE {key}")

    return write


def make_tables(connection, make, change):
    """Make a table in which no two cells have the same times, and an empty one like it."""
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    everything = {"v": 1, "w": "", "f": [1], "l": [2, 1], "e": [1, 2], "m": Pairs([("x", 1)])}
    everything["u"] = (1, 2, 3)
    alike = f"USING TIMESTAMP {FIRST}"
    insert_rows(connection, origin, [{"k": 1, "c": 1}], using=f"{alike} AND TTL 9000")
    for n, what in enumerate(
        [
            *("v = 1", "w = 'x'", "f = [1, 2]", "l = [1]", "l = l + [1, 2]", "e = {1}"),
            *("e = e + {3, 5}", "m = {'a': 1}", "m = m + {'b': 2, 'c': 3}", "u = {x: 1, y: 1}"),
            *("u.y = 2", "m['a'] = 7"),
        ],
        1,
    ):
        change(origin, what, FIRST + 10 * n, ttl=1000 + 100 * n)
        change(origin, what, FIRST + 10 * n, ttl=(1000 + 100 * n) * (n % 2), key="k = 1 AND c = 2")
    insert_rows(connection, origin, [{"k": 1, "c": 3}, {"k": 2, "c": 1}], using=alike)
    insert_rows(connection, origin, [{"k": 2, "c": 2, **everything}], using=alike)
    insert_rows(connection, origin, [{"k": 2, "c": 3, **everything}], using=f"{alike} AND TTL 5000")
    insert_rows(connection, origin, [{"k": 3, "c": 1, "v": 3}], using=alike)
    insert_rows(connection, origin, [{"k": 3, "c": 1, "w": "y"}], using=f"{alike} AND TTL 7000")
    return origin, target


@pytest.fixture
def tables(connection, make, change):
    """A table in which no two cells have the same times, and an empty one like it."""
    return make_tables(connection, make, change)


@pytest.fixture(scope="module")
def lasting(connection, make, change):
    return make_tables(connection, make, change)


@pytest.fixture
def filled(connection, lasting):
    """The same for tests that change nothing in the origin: the target is empty each time."""
    truncate(connection, lasting[1])
    return lasting


# -- modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [*TTL_MODES, 5000])
@pytest.mark.parametrize("writetime", [*WRITETIME_MODES, 123_456])
def test_writetimes_and_ttls_become_what_was_asked_for(connection, reader, filled, writetime, ttl):
    origin, target = filled
    expected = as_asked_for(read_cells(reader, origin), writetime, ttl)
    started = time.time_ns() // 1000
    assert copy_table(connection, origin, target, writetime=writetime, ttl=ttl).written == 7
    ended = time.time_ns() // 1000
    found = read_cells(reader, target)
    assert len(found) > 50
    if writetime == "now":
        written = {cell.writetime_us for place, cell in found.items() if place.column}
        assert started <= min(written) <= max(written) <= ended
        found = with_times(found, writetime_us=0)
    assert_same_cells(expected, found)


def test_cells_keep_their_times_unless_something_else_is_asked_for(connection, reader, filled):
    origin, target = filled
    copy_table(connection, origin, target)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


@pytest.mark.parametrize("writetime", ["cell", "row_max", 123_456])
def test_an_increment_is_added_to_every_writetime(connection, reader, filled, writetime):
    origin, target = filled
    expected = as_asked_for(read_cells(reader, origin), writetime, "cell", increment=17)
    copy_table(connection, origin, target, writetime=writetime, writetime_increment_by=17)
    assert_same_cells(expected, read_cells(reader, target))


@pytest.mark.parametrize("writetime", [1, -1, 0, -(10**15), 2**62, 2**63 - 1])
def test_writetimes_far_from_today_are_kept(connection, reader, make, writetime):
    body = "k int PRIMARY KEY, v int, l list<int>, e set<int>, m map<int, int>, u point"
    origin, target = make("a", body), make("b", body)
    row = {"v": 1, "l": [1, 1], "e": [1], "m": Pairs([(1, 1)]), "u": (1, 2, 3)}
    alike = f"USING TIMESTAMP {writetime}"
    insert_rows(connection, origin, [{"k": 1, **row}, {"k": 2}], using=alike)
    insert_rows(connection, origin, [{"k": 1, "v": 2}], using="USING TIMESTAMP 5")
    copy_table(connection, origin, target)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_a_row_of_hundreds_of_times_and_one_of_a_megabyte_arrive(connection, reader, make, change):
    body = "k int, c int, m map<int, text>, b blob, d blob, v int, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    for n in range(300):
        change(origin, f"m[{n}] = '{'x' * n}'", FIRST + n, ttl=1000 + n)
    large = {"k": 1, "c": 2, "b": b"b" * 600_000, "d": b"d" * 400_000, "v": 0}
    insert_rows(connection, origin, [large], using=f"USING TIMESTAMP {FIRST}")
    change(origin, "v = 1", FIRST + 5, key="k = 1 AND c = 2")
    assert copy_table(connection, origin, target).written == 2
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


@pytest.mark.parametrize(
    "grouping",
    [
        {"group_writes_by": ()},
        {"group_writes_by": ("k",)},
        {"group_writes_by": ("v",)},
        {"batch_across_partitions": False},
    ],
    ids=str,
)
def test_grouping_and_pages_change_no_time(connection, reader, make, grouping):
    body = "k int, c int, v int, w int, e set<int>, PRIMARY KEY (k, c)"
    origin, target = (
        make("a", body),
        make("b", "k int, c int, v int, w int, e set<int>, PRIMARY KEY (c, k)"),
    )
    for n in range(40):
        row = {"k": n % 4, "c": n, "v": n % 3, "e": [n, n + 1]}
        insert_rows(connection, origin, [row], using=f"USING TIMESTAMP {FIRST + n}")
        if n % 3:
            row = {"k": n % 4, "c": n, "w": n}
            insert_rows(
                connection, origin, [row], using=f"USING TIMESTAMP {FIRST} AND TTL {900 + n}"
            )
    assert copy_table(connection, origin, target, origin_fetch_size=7, **grouping).written == 40
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


@pytest.mark.parametrize("values", ["", "v int, e set<int>, l list<int>, "])
def test_rows_that_are_only_their_keys_arrive_and_stay(connection, reader, make, values):
    origin = make("a", f"k int, c text, {values}PRIMARY KEY (k, c)")
    target = make("b", f"k int, c text, {values}PRIMARY KEY ((c, k))")
    fill(connection, origin, "k, c", [(n % 3, str(n)) for n in range(20)])
    for _ in range(2):
        assert copy_table(connection, origin, target).written == 20
        cells = read_cells(reader, target)
        assert rows_in(cells) == len(cells) == 20
        assert_same_cells(read_cells(reader, origin), cells)


# -- copying again -------------------------------------------------------------------------------


def test_copying_again_moves_no_time_and_doubles_no_list(connection, reader, tables):
    origin, target = tables
    copy_table(connection, origin, target)
    first = read_cells(reader, target)
    for _ in range(2):
        assert copy_table(connection, origin, target).written == 7
        assert_same_cells(first, read_cells(reader, target), except_lists=False)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_what_the_origin_changed_since_arrives_with_the_next_copy(
    connection, reader, tables, change
):
    origin, target = tables
    copy_table(connection, origin, target)
    later = FIRST + 10_000
    for n, what in enumerate(
        ["v = 5", "w = 'z'", "l = [7, 7]", "e = e + {9}", "m['b'] = 0", "u.z = 3", "f = [0]"]
    ):
        change(origin, what, later + n, ttl=3000 * (n % 2))
    change(origin, "v = 6", later, ttl=800, key="k = 2 AND c = 1")
    copy_table(connection, origin, target)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


@pytest.mark.parametrize("age", [-500, 0, 500], ids=["older", "as old", "newer"])
def test_an_equal_list_is_not_written_again(connection, reader, make, change, age):
    body = "k int, c int, l list<int>, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    for n in range(3):
        change(origin, f"l = l + [{n}]", FIRST + n)
    change(target, "l = [0, 1, 2]", FIRST + 2 + age)
    before = {p: c for p, c in read_cells(reader, target).items() if p.column}
    copy_table(connection, origin, target)
    assert {p: c for p, c in read_cells(reader, target).items() if p.column} == before
    assert len(before) == 3


@pytest.mark.parametrize("age", [-100, -1, 0], ids=["older", "just older", "as old"])
def test_another_list_at_the_target_is_replaced(connection, reader, make, change, age):
    body = "k int, c int, l list<int>, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    change(origin, "l = [1, 2]", FIRST)
    change(origin, "l = l + [3]", FIRST + 50)
    change(target, "l = [1, 9]", FIRST + 50 + age)
    for _ in range(2):
        copy_table(connection, origin, target)
        found = read_cells(reader, target)
        assert [str(cell.value) for cell in found.values() if cell.value] == ["1", "2", "3"]
        (written,) = {cell.writetime_us for cell in found.values() if cell.value}
        # Newer than what it replaces, and no newer than that needs.
        assert written == FIRST + 50 + (age == 0)


def test_a_newer_cell_at_the_target_wins(connection, reader, tables, change):
    origin, target = tables
    newer = FIRST + 10_000
    for what in ["v = 9", "m['a'] = 9", "u.x = 9", "e = e + {77}", "l = [9, 9]", "f = [9]"]:
        change(target, what, newer)
    for _ in range(2):
        copy_table(connection, origin, target)
        expected, found = read_cells(reader, origin), read_cells(reader, target)
        kept = {str(p): repr(c.value) for p, c in found.items() if c.writetime_us == newer}
        row = "c=1, k=1"
        assert kept == {
            f"v of {row}": "9",
            f"m, key 'a' of {row}": "9",
            f"u, field 'x' of {row}": "9",
            f"e, element 77 of {row}": "''",
            f"l, position 0 of {row}": "9",
            f"l, position 1 of {row}": "9",
            f"f of {row}": "[9]",
        }
        # The cells and elements beside them are the origin's.
        lost = {p for p in expected if str(p) in kept or str(p) == f"l, position 2 of {row}"}
        assert_same_cells(
            {p: c for p, c in expected.items() if p not in lost},
            {p: c for p, c in found.items() if c.writetime_us != newer},
        )


def test_an_older_cell_at_the_target_loses(connection, reader, tables, change):
    origin, target = tables
    for key in ("k = 1 AND c = 1", "k = 2 AND c = 2", "k = 2 AND c = 3"):
        older = ["v = 9", "w = 'older'", "f = [9]", "u = {x: 9, y: 9}", "l = [9, 9, 9, 9]"]
        for what in older:
            change(target, what, FIRST - 10, key=key)
    change(target, "m['a'] = 9, m['b'] = 9, e = e + {1, 3}", FIRST - 10, ttl=100)
    copy_table(connection, origin, target)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


@pytest.mark.parametrize("mixed", [False, True], ids=["one time", "many times"])
def test_a_null_cell_hides_nothing(connection, reader, make, change, mixed):
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    for c, column in enumerate(["v", "w", "f", "l", "e", "m", "u"]):
        row = {
            "v": 1,
            "w": "",
            "f": [1],
            "l": [1],
            "e": [1],
            "m": Pairs([("x", 1)]),
            "u": (1, 2, 3),
        }
        del row[column]
        insert_rows(connection, origin, [{"k": 1, "c": c, **row}], using="USING TIMESTAMP 1000")
        if mixed:
            later = {name: row[name] for name in list(row)[c % 3 :: 2]}
            using = "USING TIMESTAMP 2000 AND TTL 5000"
            insert_rows(connection, origin, [{"k": 1, "c": c, **later}], using=using)
    copy_table(connection, origin, target)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))
    # A tombstone would hide every value that is older than itself.
    older = ["v = 9", "w = '9'", "f = [9]", "l = [9]", "e = {9}", "m = {'9': 9}", "u = {x: 9}"]
    for c, what in enumerate(older):
        change(target, what, 5, key=f"k = 1 AND c = {c}")
    found = read_cells(reader, target)
    shown = {place.column for place, cell in found.items() if cell.writetime_us == 5}
    assert shown == {"v", "w", "f", "l", "e", "m", "u"}


def test_fields_and_elements_that_are_not_there_hide_nothing(connection, reader, make, change):
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    change(origin, "e = e + {1}, m = m + {'x': 1}, u.x = 1", 1000)
    change(origin, "e = e + {2}, m = m + {'y': 1}, u.y = 1", 2000, ttl=5000)
    copy_table(connection, origin, target)
    change(target, "e = e + {9}, m = m + {'z': 9}, u.z = 9", 5)
    there = read_cells(reader, target)
    assert sum(cell.writetime_us == 5 for cell in there.values()) == 3
    older = {place: cell for place, cell in there.items() if cell.writetime_us != 5}
    assert_same_cells(read_cells(reader, origin), older)


# -- cells that expire ---------------------------------------------------------------------------


def test_what_expires_on_the_way_does_not_come_back(connection, reader, make, change):
    body = "k int PRIMARY KEY, v int, w int, e set<int>, l list<int>, u point"
    origin, target = make("a", body), make("b", body)
    rows, seconds = 24, 3
    fill(connection, origin, "k, v, e", [(n, 1, [1]) for n in range(0, rows, 2)])
    # Nothing of every other row outlives its cells, so nothing may keep the row alive.
    for n in range(rows):
        now = time.time_ns() // 1000
        change(origin, "w = 2, e = e + {2}, l = [2], u = {x: 2}", now, seconds, key=f"k = {n}")
    expected = read_cells(reader, origin)
    rate = rows // (seconds + 1)
    counts = copy_table(connection, origin, target, token_ranges=1, target_rows_per_second=rate)
    assert counts.complete
    assert counts.written > rows // 2
    assert counts.expired > 0
    for place, cell in read_cells(reader, target).items():
        expires_at = expected[place].expires_at
        assert expires_at is None or cell.expires_at in (expires_at, expires_at + 1)
    time.sleep(max(0.0, 1.5 + max(c.expires_at or 0 for c in expected.values()) - time.time()))
    left = read_cells(reader, target)
    assert_same_cells(read_cells(reader, origin), left)
    assert rows_in(left) == rows // 2
    assert {place.column for place in left} == {"", "v", "e"}


def test_a_row_goes_with_the_last_of_its_cells(connection, reader, make, change):
    body = "k int PRIMARY KEY, v int, w int, e set<int>"
    origin, target = make("a", body), make("b", body)
    insert_rows(connection, origin, [{"k": k, "v": 1, "w": 1} for k in (1, 2, 3)], "USING TTL 3")
    change(origin, "e = {1}", FIRST, ttl=2, key="k = 2")
    change(origin, "v = 2", FIRST * 2, key="k = 3")
    assert copy_table(connection, origin, target).written == 3
    assert rows_in(read_cells(reader, target)) == 3
    time.sleep(4.1)
    assert [str(place) for place in read_cells(reader, target)] == ["the row k=3", "v of k=3"]


def test_a_life_that_the_target_gives_by_default_is_not_for_copies(connection, reader, make):
    body = "k int, c int, v int, w int, e set<int>, PRIMARY KEY (k, c)"
    modes = [{}, {"ttl": "row_max"}, {"ttl": "none"}, {"writetime": "now", "ttl": "none"}]
    modes += [{"writetime": "row_max", "ttl": "none"}, {"ttl": 5000}]
    origin = make("a", body)
    insert_rows(connection, origin, [{"k": 1, "c": 1, "v": 1, "e": [1]}, {"k": 1, "c": 2}])
    insert_rows(connection, origin, [{"k": 2, "c": 1, "v": 1}], using="USING TIMESTAMP 1")
    insert_rows(connection, origin, [{"k": 2, "c": 1, "w": 1, "e": [1]}])
    targets = [make(f"b{n}", body + " WITH default_time_to_live = 2") for n in range(len(modes))]
    for target, options in zip(targets, modes, strict=True):
        copy_table(connection, origin, target, **options)
    time.sleep(2.2)
    expected = read_cells(reader, origin)
    for target, options in zip(targets, modes, strict=True):
        found = read_cells(reader, target)
        assert rows_in(found) == 3
        assert found.keys() == expected.keys()
        lives = {cell.expires_at is None for place, cell in found.items() if place.column}
        assert lives == {"ttl" not in options or options["ttl"] != 5000}


# -- the comparison ------------------------------------------------------------------------------

PLANTED = {
    "a writetime": ("v = 1", 1, 0, "writetime(v)"),
    "a TTL": ("v = 1", 0, 5000, "ttl(v)"),
    "a text's writetime": ("w = ''", 1, 0, "writetime(w)"),
    "a frozen list's writetime": ("f = [1]", 1, 0, "writetime(f)"),
    "an element's writetime": ("e = e + {2}", 1, 0, "writetime(e)"),
    "an element's TTL": ("e = e + {2}", 0, 5000, "ttl(e)"),
    "an entry's writetime": ("m['x'] = 1", 1, 0, "writetime(m)"),
    "an entry's TTL": ("m['x'] = 1", 0, 5000, "ttl(m)"),
    "a field's writetime": ("u.y = 2", 1, 0, "writetime(u)"),
    "a field's TTL": ("u.x = 1", 0, 5000, "ttl(u)"),
}


@pytest.fixture
def find(connection, settings):
    """Compare two tables and give the rows that differ, with the columns that do."""

    def compare(origin, target, **options):
        plan = plan_copy(connection, origin, target, token_ranges=1, **options)
        with WorkerPool(plan, settings, settings, workers=1) as pool:
            (verdict,) = diff_ranges(pool, plan, plan.migration.ranges)
        assert verdict.error == ""
        assert (verdict.missing, verdict.extra) == (0, 0)
        assert verdict.mismatched == len(verdict.mismatched_rows)
        return {row.key: row.columns for row in verdict.mismatched_rows}

    return compare


@pytest.mark.parametrize("key", ["(k, c)", "(c, k)"])
def test_a_difference_in_one_time_is_found_in_its_cell(connection, make, change, find, key):
    origin, target = make("a", COLUMNS), make("b", COLUMNS.replace("(k, c)", key))
    row = {"v": 1, "w": "", "f": [1], "l": [2, 1], "e": [1, 2], "m": Pairs([("x", 1)])}
    rows = [{"k": 1, "c": c, **row, "u": (1, 2, None)} for c in range(len(PLANTED) + 2)]
    insert_rows(connection, origin, rows, using=f"USING TIMESTAMP {FIRST}")
    copy_table(connection, origin, target)
    assert find(origin, target, compare_writetime=True) == {}
    for c, (what, later, ttl, _) in enumerate(PLANTED.values()):
        change(target, what, FIRST + later, ttl=ttl, key=f"k = 1 AND c = {c}")
    # A list is written as a whole, so its times are no sign of anything.
    change(target, "l = [2, 1]", FIRST + 1, key=f"k = 1 AND c = {len(PLANTED)}")
    assert find(origin, target) == {}
    assert find(origin, target, compare_writetime=True) == {
        f"k=1, c={c}": (column,) for c, (_, _, _, column) in enumerate(PLANTED.values())
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"writetime": "row_max"},
        {"writetime": "row_max", "ttl": "row_max"},
        {"writetime": 123_456, "ttl": 5000},
        {"writetime_increment_by": 17, "ttl": "none"},
    ],
    ids=str,
)
def test_after_a_copy_the_comparison_finds_no_difference_in_times(
    connection, filled, find, options
):
    copy_table(connection, *filled, **options)
    assert find(*filled, compare_writetime=True, **options) == {}


def test_a_longer_life_at_the_target_is_found_and_a_second_more_is_none(
    connection, make, change, find
):
    body = "k int, c int, v int, e set<int>, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    rows = [{"k": 1, "c": c, "v": 1, "e": [1, 2]} for c in range(5)]
    insert_rows(connection, origin, rows, using=f"USING TIMESTAMP {FIRST} AND TTL 1000")
    copy_table(connection, origin, target)
    for c, (what, ttl) in enumerate([("v = 1", 1100), ("e = e + {2}", 90_000), ("v = 1", 1001)]):
        change(target, what, FIRST, ttl=ttl, key=f"k = 1 AND c = {c}")
    assert find(origin, target) == {}
    found = find(origin, target, compare_writetime=True)
    assert found == {"k=1, c=0": ("ttl(v)",), "k=1, c=1": ("ttl(e)",)}


def test_times_of_what_became_frozen_are_compared_too(connection, make, change, find):
    frozen = COLUMNS.replace(" l list<int>", " l frozen<list<int>>")
    frozen = frozen.replace("set<int>", "frozen<set<int>>").replace("u point", "u frozen<point>")
    origin, target = make("a", COLUMNS), make("b", frozen)
    for n, what in enumerate(["e = {1}", "e = e + {2}", "l = [1]", "l = l + [2]", "u.x = 1"]):
        change(origin, what, FIRST + n, ttl=1000 * (n % 3))
    copy_table(connection, origin, target)
    assert find(origin, target, compare_writetime=True) == {}
    change(target, "e = {1, 2}", FIRST + 77)
    assert find(origin, target, compare_writetime=True) == {"k=1, c=1": ("writetime(e)",)}
