"""Every planted difference is found, in the right range, and nothing else is."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cassandra.concurrent import execute_concurrent_with_args

from migration_platform.comparing.diff import diff_ranges
from migration_platform.comparing.verdicts import MAX_SAMPLES
from migration_platform.cql.names import TableName
from migration_platform.demo import sample
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.tables import truncate
from migration_platform.token_ranges import split_ring, token_of_key
from migration_platform_tests.tables import (
    copy_table,
    create_table,
    fill,
    insert_rows,
    plan_copy,
)

COUNT = 6
RANGES = split_ring(COUNT)
VALUES = {
    "t": [None, "", "a", "b"],
    "n": [None, 0, 1],
    "f": [None, [], [1], [1, 2]],
    "m": [None, {}, {"x": 1}, {"x": 2}],
    "b": [None, b"", b"\x00", b"\xff\xff\xff\xff"],
}
COLUMNS = "k text, c int, t text, n int, f frozen<list<int>>, m frozen<map<text, int>>, b blob"
KEYS = {"same key": "(k, c)", "another key": "(c, k)", "a composite key": "((c, k))"}


@pytest.fixture
def make(connection, keyspace):
    return lambda name, body: create_table(connection, keyspace, name, body)


@pytest.fixture
def diff(connection, settings):
    """Compare the ranges of a plan, all of them unless some are named."""

    def compare(plan, ranges=None, workers=1):
        ranges = plan.migration.ranges if ranges is None else ranges
        with WorkerPool(plan, settings, settings, workers=workers) as pool:
            verdicts = list(diff_ranges(pool, plan, ranges))
        assert sorted(v.token_range for v in verdicts) == sorted(ranges)
        assert not any(v.error for v in verdicts)
        return {v.token_range.index: v for v in verdicts}

    return compare


def index_of(key):
    return next(r.index for r in RANGES if token_of_key(key.encode()) in r)


def shown(row):
    return f"k={row[0]!r}, c={row[1]}"


def random_row(rng, key):
    # A row whose columns are all null is one too.
    return (*key, *(rng.choice(some) for some in VALUES.values()))


class Tables:
    """Two tables with known contents, and the verdicts that are right for them."""

    def __init__(self, rng, rows=40):
        keys = {(f"u{rng.randrange(12)}", rng.randrange(10)) for _ in range(rows)}
        self.origin = {key: random_row(rng, key) for key in keys}
        self.target = dict(self.origin)
        for key in sorted(keys):
            fate = rng.random()
            if fate < 0.1:
                del self.origin[key]
            elif fate < 0.2:
                del self.target[key]
            elif fate < 0.4:
                self.target[key] = random_row(rng, key)

    def expected(self, index):
        """Rows by what is wrong with them in a range: missing, extra, mismatched."""
        missing = [k for k in self.origin if k not in self.target and index_of(k[0]) == index]
        extra = [k for k in self.target if k not in self.origin and index_of(k[0]) == index]
        mismatched = {
            k: tuple(
                name
                for name, a, b in zip(VALUES, self.origin[k][2:], self.target[k][2:], strict=True)
                if a != b
            )
            for k in self.origin.keys() & self.target.keys()
            if self.origin[k] != self.target[k] and index_of(k[0]) == index
        }
        return missing, extra, mismatched


def write(connection, name, rows):
    """Write rows into an emptied table, nulls unset."""
    from cassandra.query import UNSET_VALUE

    truncate(connection, name)
    statement = connection.session.prepare(
        f"INSERT INTO {name} (k, c, t, n, f, m, b) VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    rows = [[UNSET_VALUE if value is None else value for value in row] for row in rows]
    execute_concurrent_with_args(connection.session, statement, rows)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_random_differences_are_all_found_and_no_others(connection, settings, make, key):
    origin = make("a", f"{COLUMNS}, PRIMARY KEY (k, c)")
    target = make("b", f"{COLUMNS}, PRIMARY KEY {key}")
    plan = plan_copy(connection, origin, target, token_ranges=COUNT)
    found = Counter()
    with WorkerPool(plan, settings, settings, workers=2) as pool:
        for seed in range(12):
            tables = Tables(random.Random(seed))
            write(connection, origin, tables.origin.values())
            write(connection, target, tables.target.values())
            verdicts = list(diff_ranges(pool, plan, RANGES))
            assert sorted(v.token_range.index for v in verdicts) == list(range(COUNT))
            for verdict in verdicts:
                index = verdict.token_range.index
                missing, extra, mismatched = tables.expected(index)
                assert verdict.error == ""
                assert verdict.missing == len(missing)
                assert verdict.extra == len(extra)
                assert verdict.mismatched == len(mismatched)
                assert verdict.matches == (not missing and not extra and not mismatched)
                assert verdict.origin_rows == sum(index_of(k) == index for k, _ in tables.origin)
                assert verdict.target_rows == sum(index_of(k) == index for k, _ in tables.target)
                assert {row.key for row in verdict.missing_rows} == set(map(shown, missing))
                assert {row.key for row in verdict.extra_rows} == set(map(shown, extra))
                assert {row.key: set(row.columns) for row in verdict.mismatched_rows} == {
                    shown(row): set(columns) for row, columns in mismatched.items()
                }
                found.update(missing=len(missing), extra=len(extra), mismatched=len(mismatched))
    assert all(found[kind] > 20 for kind in ("missing", "extra", "mismatched"))


SINGLE_CHANGES = {
    "null became a value": ("t", None, "x"),
    "a value became null": ("n", 0, None),
    "an empty text became null": ("t", "", None),
    "null became an empty text": ("t", None, ""),
    "null became an empty list": ("f", None, []),
    "an empty map became null": ("m", {}, None),
    "a list lost an element": ("f", [1, 2], [1]),
    "a map's value changed": ("m", {"x": 1}, {"x": 2}),
    "a text changed its case": ("t", "a", "A"),
    "a byte was added": ("b", b"\x00", b"\x00\x00"),
    "bytes became null": ("b", b"\xff\xff\xff\xff", None),
    "null became zero": ("n", None, 0),
}


def test_each_kind_of_change_of_one_cell_is_found_by_its_column(connection, diff, make):
    origin = make("a", f"{COLUMNS}, PRIMARY KEY (k, c)")
    target = make("b", f"{COLUMNS}, PRIMARY KEY (c, k)")
    sides = ([], [])
    for n, (column, *values) in enumerate(SINGLE_CHANGES.values()):
        for rows, value in zip(sides, values, strict=True):
            rows.append((f"u{n}", n, *(value if name == column else None for name in VALUES)))
    for name, rows in zip((origin, target), sides, strict=True):
        write(connection, name, [*rows, ("same", 0, "", 0, [], {}, b"")])
    verdicts = diff(plan_copy(connection, origin, target, token_ranges=COUNT))
    found = {row.key: row.columns for v in verdicts.values() for row in v.mismatched_rows}
    assert found == {
        f"k='u{n}', c={n}": (column,) for n, (column, _, _) in enumerate(SINGLE_CHANGES.values())
    }
    assert sum(v.mismatched for v in verdicts.values()) == len(SINGLE_CHANGES)
    assert sum(v.missing + v.extra for v in verdicts.values()) == 0
    assert sum(v.origin_rows for v in verdicts.values()) == len(SINGLE_CHANGES) + 1


def test_a_copy_of_enrolments_compares_equal_although_its_collections_are_frozen(
    connection, diff, keyspace
):
    sample.create_tables(connection, keyspace)
    sample.fill_origin(connection, 400, keyspace=keyspace)
    origin = TableName(keyspace, sample.ORIGIN_TABLE)
    target = TableName(keyspace, sample.TARGET_TABLE)
    copy_table(connection, origin, target)
    plan = plan_copy(connection, origin, target, token_ranges=8)
    verdicts = diff(plan, workers=2)
    assert all(v.matches for v in verdicts.values())
    assert sum(v.origin_rows for v in verdicts.values()) == 400
    assert [v.origin_rows for v in verdicts.values()] == [v.target_rows for v in verdicts.values()]


def test_only_the_asked_ranges_are_judged_and_each_once(connection, diff, make):
    for table, key in (("b", "(k, c)"), ("d", "(c, k)")):
        origin = make(table + "1", "k text, c int, PRIMARY KEY (k, c)")
        target = make(table + "2", f"k text, c int, PRIMARY KEY {key}")
        keys = [(f"u{n}", n % 3) for n in range(60)]
        fill(connection, origin, "k, c", keys)
        plan = plan_copy(connection, origin, target, token_ranges=COUNT)
        verdicts = diff(plan, [RANGES[4], RANGES[1]])
        for index in (1, 4):
            inside = sum(index_of(key) == index for key, _ in keys)
            assert verdicts[index].missing == verdicts[index].origin_rows == inside > 0


@pytest.mark.parametrize("key", ["(k, c)", "(c, k)"])
def test_origin_only_ignores_what_only_the_target_has(connection, diff, make, key):
    origin = make("a", f"{COLUMNS}, PRIMARY KEY (k, c)")
    target = make("b", f"{COLUMNS}, PRIMARY KEY {key}")
    nothing = (None,) * 4
    write(connection, origin, [("a", 1, "x", *nothing), ("b", 1, "x", *nothing)])
    write(connection, target, [("a", 1, "y", *nothing), ("c", 1, "x", *nothing)])
    plan = plan_copy(connection, origin, target, token_ranges=1, diff_mode="origin_only")
    (verdict,) = diff(plan).values()
    assert (verdict.missing, verdict.extra, verdict.mismatched) == (1, 0, 1)
    assert verdict.extra_rows == ()
    assert not verdict.matches
    write(connection, origin, [("c", 1, "x", *nothing)])
    (verdict,) = diff(plan).values()
    assert verdict.matches
    assert (verdict.origin_rows, verdict.target_rows) == (1, 1)


def test_samples_are_bounded_while_counts_are_exact(connection, diff, make):
    body = "k int PRIMARY KEY, v int"
    origin, target = make("a", body), make("b", body)
    fill(connection, origin, "k, v", [(n, 1) for n in range(90)])
    fill(connection, target, "k, v", [(n, 2) for n in range(50, 130)])
    (verdict,) = diff(plan_copy(connection, origin, target, token_ranges=1)).values()
    assert (verdict.missing, verdict.extra, verdict.mismatched) == (50, 40, 40)
    for rows in (verdict.missing_rows, verdict.extra_rows, verdict.mismatched_rows):
        assert len(rows) == MAX_SAMPLES == len(set(rows))
    assert str(verdict.missing_rows[0]).startswith("k=")
    assert str(verdict.mismatched_rows[0]).endswith(": v")


def test_two_empty_tables_are_equal(connection, diff, make):
    body = "k int, c int, PRIMARY KEY "
    plan = plan_copy(connection, make("a", body + "(k, c)"), make("b", body + "(c, k)"))
    verdicts = diff(plan)
    assert all(v.matches for v in verdicts.values())
    assert {(v.origin_rows, v.target_rows) for v in verdicts.values()} == {(0, 0)}


def test_an_empty_side_lacks_every_row(connection, diff, make):
    body = "k int PRIMARY KEY, v int"
    full, empty = make("a", body), make("b", body)
    fill(connection, full, "k, v", [(n, n) for n in range(30)])
    lacking = diff(plan_copy(connection, full, empty))
    assert sum(v.missing for v in lacking.values()) == 30
    having = diff(plan_copy(connection, empty, full))
    assert sum(v.extra for v in having.values()) == 30


def test_keys_of_every_type_are_shown_as_an_operator_would_type_them(connection, diff, make):
    key = {
        "a": ("text", "it's"),
        "b": ("blob", b"\x01"),
        "d": ("timestamp", datetime(2024, 1, 2, tzinfo=UTC)),
        "e": ("boolean", True),
        '"F"': ("frozen<list<int>>", [1]),
    }
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in key.items())
    origin = make("x", f"{columns}, PRIMARY KEY ({', '.join(key)})")
    target = make("y", f"{columns}, PRIMARY KEY ({', '.join(key)})")
    fill(connection, origin, ", ".join(key), [tuple(value for _, value in key.values())])
    (verdict,) = diff(plan_copy(connection, origin, target, token_ranges=1)).values()
    (row,) = verdict.missing_rows
    for part in ("a='it''s'", "b=0x01", "d='2024-01-02T00:00:00Z'", "e=true", '"F"=[1]'):
        assert part in row.key


def test_a_key_that_python_cannot_hold_is_no_reason_to_fail(connection, diff, make, reader):
    body = "k timestamp, t text, i int, v int, PRIMARY KEY (k, t, i)"
    origin, target = make("a", body), make("b", body)
    # The year 292278994; Python's own dates end with 9999.
    for key in (2**63 - 1, -(2**63), 0):
        reader.execute(f"INSERT INTO {origin} (k, t, i, v) VALUES ({key}, '', blobAsInt(0x), 1)")
        reader.execute(f"INSERT INTO {target} (k, t, i, v) VALUES ({key}, '', blobAsInt(0x), 2)")
    (verdict,) = diff(plan_copy(connection, origin, target, token_ranges=1)).values()
    assert verdict.mismatched == 3
    assert {row.columns for row in verdict.mismatched_rows} == {("v",)}
    assert len({row.key for row in verdict.mismatched_rows}) == 3


def test_columns_that_only_the_target_has_are_not_compared(connection, diff, make):
    origin, target = (
        make("a", "k int PRIMARY KEY, v int"),
        make("b", "k int PRIMARY KEY, v int, w int"),
    )
    insert_rows(connection, origin, [{"k": 1, "v": 1}])
    insert_rows(connection, target, [{"k": 1, "v": 1, "w": 2}])
    assert all(v.matches for v in diff(plan_copy(connection, origin, target)).values())


def test_progress_is_told_scan_by_scan(connection, settings, make):
    body = "k int PRIMARY KEY"
    plan = plan_copy(connection, make("a", body), make("b", body))
    told = []
    with WorkerPool(plan, settings, settings, workers=1) as pool:
        ranges = plan.migration.ranges
        list(diff_ranges(pool, plan, ranges, lambda *n: told.append(n)))
    assert told == [(n, 8) for n in range(1, 9)]


@pytest.mark.parametrize("key", ["(k, c)", "(c, k)"])
def test_a_range_that_cannot_be_scanned_has_no_verdict_but_a_reason(
    connection, settings, make, key
):
    origin = make("a", "k int, c int, PRIMARY KEY (k, c)")
    target = make("b", f"k int, c int, PRIMARY KEY {key}")
    fill(connection, origin, "k, c", [(n, n) for n in range(20)])
    plan = plan_copy(connection, origin, target, retry_seconds=0)
    gone = replace(plan, target=replace(plan.target, name=TableName(target.keyspace, "gone")))
    with WorkerPool(gone, settings, settings, workers=1) as pool:
        verdicts = list(diff_ranges(pool, gone, plan.migration.ranges[:3]))
    assert len(verdicts) == 3
    for verdict in verdicts:
        assert not verdict.matches
        assert (verdict.missing, verdict.extra, verdict.mismatched) == (0, 0, 0)
        assert verdict.error.startswith("the target could not be scanned: ")
        assert "\n" not in verdict.error


def test_a_copy_mends_what_the_comparison_found(connection, diff, make):
    origin = make("a", f"{COLUMNS}, PRIMARY KEY (k, c)")
    target = make("b", f"{COLUMNS}, PRIMARY KEY (c, k)")
    tables = Tables(random.Random(99))
    plan = plan_copy(connection, origin, target, token_ranges=COUNT, diff_mode="origin_only")
    write(connection, origin, tables.origin.values())
    write(connection, target, [])
    assert not all(v.matches for v in diff(plan).values())
    copy_table(connection, origin, target)
    assert all(v.matches for v in diff(plan).values())
