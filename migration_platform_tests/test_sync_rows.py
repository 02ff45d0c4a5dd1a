"""Rows that changed at the origin are made the same at the target, by nothing but their keys.

What arrived is read by `cells.py`, which knows nothing of the engine.
"""

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import pytest
from cassandra.cluster import Session
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from migration_platform.copying.replay import ensure_dead_letters
from migration_platform.cql.names import TableName, quote
from migration_platform.cql.types import parse_type
from migration_platform.cql.values import encode_value
from migration_platform.declaration.columns import Columns, ExplodeMap
from migration_platform.declaration.filters import Filter
from migration_platform.declaration.sync import ScanRounds, Sync
from migration_platform.errors import PermanentError
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget
from migration_platform.stores.kinds import open_origin, open_target, plan_between
from migration_platform.stores.planning import make_target
from migration_platform.stores.postgres.connection import Postgres
from migration_platform.syncing import rows as sync_rows
from migration_platform.syncing.changes import Key
from migration_platform.syncing.rows import Synced, SyncRows, refuse_sync, to_sync_plan
from migration_platform.token_ranges import serialize_key, token_of_key
from migration_platform_tests.cells import (
    Cell,
    Cells,
    ManyTables,
    Place,
    RandomTable,
    assert_same_cells,
    many_tables,
    random_tables,
    read_cells,
    read_raw,
)
from migration_platform_tests.comparing import compare, found
from migration_platform_tests.postgres_tables import plan_table, settings_of
from migration_platform_tests.tables import (
    copy_ranges,
    declare,
    fill,
    in_process,
    plan_copy,
    rows_of,
)

SCAN = Sync(scan=ScanRounds())
SOME_TIME = 1_700_000_000_000_000


@pytest.fixture(scope="module")
def tables(connection) -> Iterator[ManyTables]:
    with many_tables(connection) as tables:
        tables.add_type("point", "x int, y int")
        yield tables


@pytest.fixture(scope="module")
def pg(postgres) -> Iterator[Postgres]:
    with settings_of(postgres.port).connect() as connection:
        yield connection


def without_list_times(cells: Cells) -> dict[Place, Cell]:
    """A list that replaces another one is newer than that, whatever time it has at the origin."""
    untold = {"writetime_us": 0, "expires_at": None}
    return {
        place: cell._replace(**untold) if place.kind == "position" else cell
        for place, cell in cells.items()
    }


@dataclass(frozen=True)
class Following:
    """A table that was copied, and what makes its target follow it."""

    plan: Plan
    connection: Connection
    session: Session
    target: Any = None

    def run(self, *statements: str) -> None:
        """Change the origin: `{}` is the table."""
        for statement in statements:
            self.session.execute(statement.replace("{}", str(self.plan.origin.name)))

    def key(self, *values: Any) -> Key:
        """Give the first cells of a key."""
        types = [parse_type(self.plan.origin.type_of(n)) for n in self.plan.origin.primary_key]
        return tuple(encode_value(v, t) for v, t in zip(values, types, strict=False))

    def sync(self, *keys: Sequence[Any], stores: Any = None) -> Synced:
        """Tell of changes; each key is its first values."""
        return self.sync_keys([self.key(*key) for key in keys], stores)

    def sync_keys(self, keys: Iterable[Key], stores: Any = None) -> Synced:
        stores = stores or in_process(self.plan, self.connection, self.target)
        return SyncRows(tuple(keys)).run(stores, lambda told: None)

    def difference(self) -> tuple[int, int, int]:
        """Compare: rows that are missing, extra, mismatched."""
        migration = replace(self.plan.migration, repair=(), diff_mode="two_way")
        plan = replace(self.plan, migration=migration)
        return found(compare(self.connection, plan, target=self.target))

    def assert_same(self) -> None:
        origin, target = (
            without_list_times(read_cells(self.session, name))
            for name in (self.plan.origin.name, self.plan.target.name)
        )
        assert_same_cells(origin, target)
        assert self.difference() == (0, 0, 0)

    def range_of(self, *partition: Any) -> int:
        token = token_of_key(serialize_key(list(self.key(*partition))))
        return next(each.index for each in self.plan.migration.ranges if token in each)


@pytest.fixture
def follow(connection, reader, tables):
    """Make two tables, fill the origin, and copy it."""

    def make(
        body: str, *statements: str, rows: str = "", target: str = "", **options: Any
    ) -> Following:
        origin, there = tables.make("o", body), tables.make("t", target or body)
        options.setdefault("sync", SCAN)
        plan = plan_copy(connection, origin, there, **options)
        following = Following(to_sync_plan(plan), connection, reader)
        following.run(*statements)
        copy_ranges(in_process(plan, connection))
        return following

    return make


def counted(synced: Synced) -> dict[str, int]:
    names = ("read", "written", "deleted", "unchanged", "kept", "rejected")
    return {name: n for name in names if (n := getattr(synced.counts, name))}


# -- whole keys ----------------------------------------------------------------------------------

PLAIN = "k int, c int, v int, w text, PRIMARY KEY (k, c)"
TEN = [f"INSERT INTO {{}} (k, c, v, w) VALUES ({n // 5}, {n % 5}, {n}, 'x')" for n in range(10)]


def test_rows_that_were_written_deleted_or_left_alone_become_the_same(follow):
    following = follow(PLAIN, *TEN)
    following.run(
        "INSERT INTO {} (k, c, v) VALUES (7, 7, 7)",
        "UPDATE {} SET v = 100 WHERE k = 0 AND c = 1",
        "DELETE FROM {} WHERE k = 1 AND c = 1",
    )

    synced = following.sync((7, 7), (0, 1), (1, 1), (1, 2), (9, 9))

    assert counted(synced) == {"read": 5, "written": 2, "deleted": 1, "unchanged": 1}
    assert synced.counts.keys == 5
    assert synced.touched == {following.range_of(k) for k in (7, 0, 1)}
    assert not synced.open_ranges
    following.assert_same()
    again = following.sync((7, 7), (0, 1), (1, 1), (1, 2), (9, 9))
    assert counted(again) == {"read": 5, "unchanged": 3}
    assert not again.touched


def test_a_key_that_is_told_a_thousand_times_is_looked_at_once(follow):
    following = follow(PLAIN, *TEN)
    following.run("UPDATE {} SET v = 100 WHERE k = 0 AND c = 1")

    synced = following.sync(*[(0, 1)] * 1000, (0,), (0, 2))

    assert counted(synced) == {"read": 5, "written": 1, "unchanged": 4}
    following.assert_same()


def test_thousands_of_keys_are_read_and_written_together(connection, follow):
    following = follow(PLAIN)
    rows = [(n, n % 3, n, "x") for n in range(3000)]
    fill(connection, following.plan.origin.name, "k, c, v, w", rows)

    synced = following.sync(*[(k, c) for k, c, *_ in rows])

    assert counted(synced) == {"read": 3000, "written": 3000}
    assert len(synced.touched) == 4
    following.assert_same()
    following.run(*[f"DELETE FROM {{}} WHERE k = {n}" for n in range(0, 3000, 7)])
    synced = following.sync(*[(k, c) for k, c, *_ in rows])
    assert counted(synced) == {"read": 3000, "deleted": 429, "unchanged": 2571}
    following.assert_same()


def test_keys_that_no_row_can_have_do_not_fail_the_others(follow):
    following = follow("k text, c int, v int, PRIMARY KEY (k, c)")
    following.run("INSERT INTO {} (k, c, v) VALUES ('a', 1, 1)")
    good = following.key("a", 1)
    bad = [(b"", b"\0\0\0\1"), (b"a", b"\0"), (b"a" * 70_000, b"\0\0\0\1"), (b"\xff", b"\0\0\0\1")]

    synced = following.sync_keys([bad[0], good, *bad[1:], (b"",), (b"x" * 70_000,)])

    assert synced.counts.written == 1
    assert synced.counts.rejected == synced.counts.deleted == synced.counts.unchanged == 0
    following.assert_same()


# -- what a deletion may be of -------------------------------------------------------------------

WIDE = """
    k int, c int, d int, s int STATIC, ss set<int> STATIC, v int, w text, e set<int>,
    m map<text, int>, l list<int>, u point, f frozen<list<int>>, PRIMARY KEY (k, c, d)
"""
WIDE_ROWS = [
    *(
        f"INSERT INTO {{}} (k, c, d, v, w, e, m, l, u, f) VALUES ({k}, {c}, {d}, 1, 'w', "
        "{1, 2, 3}, {'a': 1, 'b': 2}, [1, 2], {x: 1, y: 2}, [1])"
        for k in range(2)
        for c in range(3)
        for d in range(3)
    ),
    *(f"INSERT INTO {{}} (k, s, ss) VALUES ({k}, 1, {{1, 2}})" for k in range(3)),
]


@pytest.mark.parametrize(
    ("statement", "key", "expected"),
    [
        ("DELETE FROM {} WHERE k = 0 AND c = 1 AND d = 1", (0, 1, 1), {"deleted": 1}),
        ("DELETE FROM {} WHERE k = 0 AND c = 1", (0, 1), {"deleted": 3}),
        ("DELETE FROM {} WHERE k = 0 AND c >= 1", (0,), {"deleted": 6, "unchanged": 3}),
        ("DELETE FROM {} WHERE k = 0", (0,), {"deleted": 10}),
        ("DELETE FROM {} WHERE k = 2", (2,), {"deleted": 1}),
        ("DELETE v FROM {} WHERE k = 0 AND c = 1 AND d = 1", (0, 1, 1), {"written": 1}),
        ("DELETE m['a'] FROM {} WHERE k = 0 AND c = 1 AND d = 1", (0, 1, 1), {"written": 1}),
        ("DELETE e FROM {} WHERE k = 0 AND c = 1 AND d = 1", (0, 1, 1), {"written": 1}),
        (
            "UPDATE {} SET e = e - {2} WHERE k = 0 AND c = 1 AND d = 1",
            (0, 1),
            {"written": 1, "unchanged": 2},
        ),
        ("UPDATE {} SET e = {9} WHERE k = 0 AND c = 1 AND d = 1", (0, 1, 1), {"written": 1}),
        ("DELETE u.x FROM {} WHERE k = 0 AND c = 1 AND d = 1", (0, 1, 1), {"written": 1}),
        ("DELETE l FROM {} WHERE k = 0 AND c = 1 AND d = 1", (0, 1, 1), {"written": 1}),
        ("DELETE s FROM {} WHERE k = 0", (0,), {"written": 1, "unchanged": 9}),
        ("DELETE s, ss FROM {} WHERE k = 0", (0, 1, 1), {"deleted": 1, "unchanged": 1}),
        ("UPDATE {} SET ss = ss - {1} WHERE k = 0", (0, 1, 1), {"written": 1, "unchanged": 1}),
        ("UPDATE {} SET s = 5 WHERE k = 9", (9,), {"written": 1}),
        ("UPDATE {} SET l = l + [3] WHERE k = 0 AND c = 1 AND d = 1", (0, 1, 1), {"written": 1}),
        ("UPDATE {} SET l = l - [1] WHERE k = 0 AND c = 1 AND d = 1", (0, 1, 1), {"written": 1}),
    ],
)  # fmt: skip
def test_whatever_is_deleted_or_changed_is_so_at_the_target(follow, statement, key, expected):
    following = follow(WIDE, *WIDE_ROWS)
    following.run(statement)

    synced = following.sync(key)

    told = counted(synced)
    assert told.pop("read") == sum(expected.values())
    assert told == expected
    assert synced.touched == {following.range_of(key[0])}
    following.assert_same()


def test_a_row_written_again_with_the_same_values_has_its_new_times_and_ttl(follow):
    following = follow(PLAIN, *TEN)
    following.run("INSERT INTO {} (k, c, v, w) VALUES (0, 1, 1, 'x') USING TTL 5000")

    assert counted(following.sync((0, 1))) == {"read": 1, "written": 1}
    following.assert_same()
    following.run("INSERT INTO {} (k, c, v, w) VALUES (0, 1, 1, 'x') USING TTL 9000")
    assert counted(following.sync((0,))) == {"read": 5, "written": 1, "unchanged": 4}
    following.assert_same()
    following.run("INSERT INTO {} (k, c, v, w) VALUES (0, 1, 1, 'x')")
    assert counted(following.sync((0, 1))) == {"read": 1, "written": 1}
    following.assert_same()


def test_a_list_that_is_written_again_lives_as_long_as_the_row_beside_it(follow):
    body = "k int PRIMARY KEY, v int, l list<int>"
    insert = "INSERT INTO {} (k, v, l) VALUES (1, 1, [1, 2])"
    following = follow(body, f"{insert} USING TTL 1000")
    following.run(f"{insert} USING TTL 9000")

    assert counted(following.sync((1,))) == {"read": 1, "written": 1}

    left = {
        cell.expires_at - time.time() > 5000
        for cell in read_cells(following.session, following.plan.target.name).values()
        if cell.expires_at
    }
    assert left == {True}


def test_what_expired_is_gone_on_both_sides(follow):
    following = follow(PLAIN, *TEN)
    following.run("INSERT INTO {} (k, c, v, w) VALUES (0, 1, 1, 'x') USING TTL 2")
    following.sync((0, 1))
    time.sleep(3)

    assert counted(following.sync((0, 1))).keys() <= {"read", "deleted"}
    following.assert_same()


def test_without_deletes_rows_that_are_gone_stay_and_are_counted(follow):
    following = follow(PLAIN, *TEN, sync=replace(SCAN, deletes=False))
    following.run(
        "DELETE FROM {} WHERE k = 0",
        "DELETE FROM {} WHERE k = 1 AND c = 1",
        "DELETE v FROM {} WHERE k = 1 AND c = 2",
    )

    synced = following.sync((0,), (1, 1), (1, 2))

    assert counted(synced) == {"read": 7, "written": 1, "kept": 6}
    assert following.difference() == (0, 6, 0)


def test_a_row_that_is_newer_at_the_target_stays(follow):
    following = follow(PLAIN, *TEN)
    following.run("DELETE FROM {} WHERE k = 0 AND c = 0")
    later = 1_000_000 * (int(time.time()) + 3600)
    following.session.execute(
        f"INSERT INTO {following.plan.target.name} (k, c, v) VALUES (0, 0, 7) "
        f"USING TIMESTAMP {later}"
    )

    assert counted(following.sync((0, 0))) == {"read": 1, "kept": 1}
    rows = rows_of(following.session, following.plan.target.name)
    assert {"c": 0, "k": 0, "v": 7, "w": None} in rows
    following.sync((0,))
    assert following.difference() == (0, 1, 0)


# -- keys that stand for many rows ---------------------------------------------------------------


def test_a_partition_of_thousands_of_rows_is_never_held(connection, follow, monkeypatch):
    following = follow(PLAIN)
    rows = [(1, c, c, "x") for c in range(7000)]
    fill(connection, following.plan.origin.name, "k, c, v, w", rows)
    assert counted(following.sync((1,))) == {"read": 7000, "written": 7000}
    following.assert_same()

    following.run(
        "DELETE FROM {} WHERE k = 1 AND c >= 1000 AND c < 6000",
        "UPDATE {} SET v = 0 WHERE k = 1 AND c = 500",
        "DELETE w FROM {} WHERE k = 1 AND c = 501",
    )
    expected = {"read": 7000, "written": 2, "deleted": 5000, "unchanged": 1998}
    assert counted(following.sync((1,))) == expected
    following.assert_same()
    monkeypatch.setattr(sync_rows, "HELD_ROWS", 100)
    monkeypatch.setattr(sync_rows, "REMEMBERED_ROWS", 1000)
    following.run(
        "DELETE FROM {} WHERE k = 1 AND c = 1", "UPDATE {} SET v = 0 WHERE k = 1 AND c = 6500"
    )
    synced = following.sync((1,))
    assert synced.open_ranges == {following.range_of(1)}
    assert counted(synced) == {"read": 1999, "written": 1, "unchanged": 1998}
    assert following.difference() == (0, 1, 0)
    following.run("DELETE FROM {} WHERE k = 1")
    assert counted(following.sync((1,))) == {"read": 2000, "deleted": 2000}
    following.assert_same()


# -- how a copy changes rows on their way --------------------------------------------------------


def test_rows_that_a_filter_leaves_out_count_as_not_there(follow):
    following = follow(PLAIN, *TEN, filter=Filter(where="w = 'x'"), writetime="now", ttl="none")
    following.run(
        "UPDATE {} SET w = 'y' WHERE k = 0 AND c = 1",
        "UPDATE {} SET w = 'y' WHERE k = 1 AND c = 1",
        "INSERT INTO {} (k, c, v, w) VALUES (5, 5, 5, 'y')",
    )

    synced = following.sync((0, 1), (0, 2), (5, 5), (1,))

    assert counted(synced) == {"read": 8, "deleted": 2, "unchanged": 5}
    assert following.difference() == (0, 0, 0)
    following.run("UPDATE {} SET w = 'x' WHERE k = 0 AND c = 1")
    assert counted(following.sync((0, 1))) == {"read": 1, "written": 1}
    assert following.difference() == (0, 0, 0)


def test_a_row_that_passes_the_filter_again_arrives_whole_though_it_was_deleted(follow):
    following = follow(PLAIN, *TEN, filter=Filter(where="w = 'x'"))
    following.run("UPDATE {} SET w = 'y' WHERE k = 0 AND c = 1")
    assert counted(following.sync((0, 1))) == {"read": 1, "deleted": 1}
    following.run("UPDATE {} SET w = 'x' WHERE k = 0 AND c = 1")

    assert counted(following.sync((0, 1))) == {"read": 1, "written": 1}

    rows = rows_of(following.session, following.plan.target.name)
    assert {"c": 1, "k": 0, "v": 1, "w": "x"} in rows


def test_a_condition_on_the_key_leaves_its_range_to_a_comparison(follow):
    following = follow(PLAIN, *TEN, filter=Filter(where="c > 2"))
    following.run("INSERT INTO {} (k, c, v, w) VALUES (5, 1, 5, 'y')")

    synced = following.sync((5, 1))

    assert (counted(synced), synced.open_ranges) == ({}, {following.range_of(5)})


def test_keys_beyond_the_tokens_that_are_copied_are_left_alone(follow):
    following = follow(PLAIN, filter=Filter(coverage_percent=50))
    chosen = following.plan.migration.filter
    windows = [chosen.window(each) for each in following.plan.migration.ranges]
    tokens = {k: token_of_key(serialize_key(list(following.key(k)))) for k in range(40)}
    inside = {k for k, token in tokens.items() if any(token in w for w in windows if w)}
    following.run(*[f"INSERT INTO {{}} (k, c, v) VALUES ({k}, 1, 1)" for k in range(40)])

    synced = following.sync(*[(k, 1) for k in range(40)])

    assert 0 < len(inside) < 40
    assert counted(synced) == {"read": len(inside), "written": len(inside)}
    assert following.difference() == (0, 0, 0)


MAP = "k int, c int, m map<text, int>, w text, PRIMARY KEY (k, c)"
ENTRIES = "k int, c int, name text, value int, w text, PRIMARY KEY (k, c, name)"
EXPLODE = Columns(explode_map=ExplodeMap(column="m", key="name", value="value"))


def test_entries_of_a_map_that_are_gone_are_rows_that_go(follow):
    following = follow(
        MAP,
        *[
            f"INSERT INTO {{}} (k, c, m, w) VALUES (1, {c}, {{'a': 1, 'b': 2}}, 'x')"
            for c in range(4)
        ],
        target=ENTRIES,
        columns=EXPLODE,
    )
    following.run(
        "DELETE m['a'] FROM {} WHERE k = 1 AND c = 0",
        "UPDATE {} SET m['c'] = 3 WHERE k = 1 AND c = 1",
        "DELETE FROM {} WHERE k = 1 AND c = 2",
    )

    synced = following.sync((1, 0), (1, 1), (1, 2), (1, 3))

    assert counted(synced) == {"read": 9, "written": 1, "deleted": 3, "unchanged": 5}
    assert following.difference() == (0, 0, 0)
    following.run(
        "DELETE FROM {} WHERE k = 1 AND c = 3", "DELETE m['b'] FROM {} WHERE k = 1 AND c = 1"
    )
    assert counted(following.sync((1,))) == {"read": 6, "deleted": 3, "unchanged": 3}
    assert following.difference() == (0, 0, 0)


KEY_FORMS = {
    "constants in the key": (
        "region text, k int, c int, v int, w text, PRIMARY KEY ((region, k), c)",
        Columns(constants={"region": "'eu'"}),
        True,
    ),
    "a constant behind": (
        "k int, region text, c int, v int, w text, PRIMARY KEY (k, region, c)",
        Columns(constants={"region": "'eu'"}),
        True,
    ),
    "a codec": (
        "k text, c text, v int, w text, PRIMARY KEY (k, c)",
        Columns(codecs=("INT_STRING",)),
        True,
    ),
    "other names": (
        "a int, b int, v int, x text, PRIMARY KEY (a, b)",
        Columns(rename={"k": "a", "c": "b", "w": "x"}),
        True,
    ),
    "another partition key": ("k int, c int, v int, w text, PRIMARY KEY (c, k)", Columns(), False),
    "one partition key": ("k int, c int, v int, w text, PRIMARY KEY ((k, c))", Columns(), False),
    "more in the key": ("k int, c int, v int, w text, PRIMARY KEY (k, c, w)", Columns(), True),
}


@pytest.mark.parametrize("form", KEY_FORMS)
def test_rows_are_found_under_another_form_of_their_key(follow, form):
    target, columns, has_parts = KEY_FORMS[form]
    following = follow(PLAIN, *TEN, target=target, columns=columns)
    following.run(
        "INSERT INTO {} (k, c, v, w) VALUES (7, 7, 7, 'x')",
        "UPDATE {} SET v = 100 WHERE k = 0 AND c = 1",
        "UPDATE {} SET w = 'other' WHERE k = 0 AND c = 2",
        "DELETE FROM {} WHERE k = 1 AND c = 1",
    )
    rows = form != "more in the key"

    synced = following.sync((7, 7), (0, 1), (0, 2), (1, 1), (1, 2), (9, 9))

    assert synced.counts.written == 3
    assert synced.counts.deleted == (1 if rows else 2)
    assert synced.counts.unchanged == 1
    assert not synced.open_ranges
    assert following.difference() == (0, 0, 0)
    following.run("DELETE FROM {} WHERE k = 0", "INSERT INTO {} (k, c, v, w) VALUES (0, 3, 9, 'x')")
    synced = following.sync((0,))
    if has_parts:
        assert (synced.counts.written, synced.counts.deleted) == (1, 4)
        assert following.difference() == (0, 0, 0)
    else:
        assert synced.open_ranges == {following.range_of(0)}
        assert not synced.touched


def test_rows_that_may_become_one_are_refused(follow):
    following = follow(
        "k text, c int, v int, PRIMARY KEY (k, c)",
        target="k int, c int, v int, PRIMARY KEY (k, c)",
        columns=Columns(codecs=("INT_STRING",)),
        collisions="newest",
    )

    (why,) = refuse_sync(following.plan)

    assert "may become one" in why
    assert following.sync(("1", 1)).open_ranges == {following.range_of("1")}


def test_what_the_target_rejects_becomes_a_dead_letter_up_to_the_limit(connection, follow, tables):
    following = follow(
        "k int, c int, v text, PRIMARY KEY (k, c)",
        target="k int, c int, v int, PRIMARY KEY (k, c)",
        columns=Columns(codecs=("INT_STRING",)),
        dead_letters_max_rows=2,
        tracking_keyspace=tables.keyspace,
    )
    ensure_dead_letters(connection, following.plan.migration)
    following.run(
        "INSERT INTO {} (k, c, v) VALUES (1, 1, 'one')",
        "INSERT INTO {} (k, c, v) VALUES (1, 2, '2')",
        "INSERT INTO {} (k, c, v) VALUES (2, 1, 'two')",
    )

    synced = following.sync((1, 1), (1, 2), (2,))

    assert counted(synced) == {"read": 3, "written": 1, "rejected": 2}
    letters = following.session.execute(f"SELECT * FROM {tables.keyspace}.dead_letters")
    assert sorted(row["key_text"] for row in letters) == ["k=1, c=1", "k=2, c=1"]
    following.run("INSERT INTO {} (k, c, v) VALUES (3, 1, 'three')")
    with pytest.raises(PermanentError, match=r"more than 2 rows .* dead_letters.max_rows"):
        following.sync((1, 1), (2,), (3, 1))


def test_counters_are_added_to_once_and_never_deleted(follow):
    following = follow(
        "k int, c int, n counter, PRIMARY KEY (k, c)",
        "UPDATE {} SET n = n + 5 WHERE k = 1 AND c = 1",
    )
    following.run(
        "UPDATE {} SET n = n + 2 WHERE k = 1 AND c = 1",
        "UPDATE {} SET n = n + 3 WHERE k = 1 AND c = 2",
    )

    assert counted(following.sync((1, 1), (1, 2), (1,))) == {"read": 2, "written": 2}
    assert counted(following.sync((1, 1), (1, 2))) == {"read": 2, "unchanged": 2}
    assert rows_of(following.session, following.plan.target.name) == [
        {"c": 1, "k": 1, "n": 7},
        {"c": 2, "k": 1, "n": 3},
    ]
    following.run("DELETE FROM {} WHERE k = 1 AND c = 1")
    assert counted(following.sync((1, 1))) == {"read": 1, "kept": 1}


def test_what_a_plan_of_a_synchronisation_changes_is_no_fingerprint(connection, tables):
    origin, target = tables.make("o", PLAIN), tables.make("t", PLAIN)
    plan = plan_copy(connection, origin, target, sync=SCAN)

    synced = to_sync_plan(plan)

    assert synced.fingerprint == plan.fingerprint
    assert synced.migration.compare_writetime
    assert set(synced.migration.repair) == {"missing", "mismatched", "extra"}
    kept = to_sync_plan(plan_copy(connection, origin, target, sync=replace(SCAN, deletes=False)))
    assert (kept.migration.diff_mode, "extra" in kept.migration.repair) == ("origin_only", False)
    now = to_sync_plan(plan_copy(connection, origin, target, sync=SCAN, writetime="now"))
    assert not now.migration.compare_writetime
    weak = plan_copy(connection, origin, target, sync=SCAN, origin_consistency="ONE")
    assert "set it to" in refuse_sync(weak)[0]
    assert not refuse_sync(plan)


# -- other kinds of targets ----------------------------------------------------------------------

ELSEWHERE = "k int, c int, d text, v int, w text, PRIMARY KEY (k, c, d)"


def follows_elsewhere(connection: Connection, plan: Plan, target: Any, reader: Session) -> None:
    following = Following(to_sync_plan(plan), connection, reader, target)
    following.run(
        "INSERT INTO {} (k, c, d, v) VALUES (7, 7, 'x', 7)",
        "UPDATE {} SET v = 100 WHERE k = 0 AND c = 1 AND d = 'x'",
        "DELETE v FROM {} WHERE k = 0 AND c = 2 AND d = 'x'",
        "DELETE FROM {} WHERE k = 1 AND c = 1 AND d = 'x'",
        "DELETE FROM {} WHERE k = 2",
        "DELETE FROM {} WHERE k = 3 AND c = 3",
    )
    keys = ((7, 7, "x"), (0, 1, "x"), (0, 2, "x"), (1, 1, "x"), (0, 0, "x"), (2,), (3, 3))

    synced = following.sync(*keys)

    assert counted(synced) == {"read": 13, "written": 3, "deleted": 9, "unchanged": 1}
    assert not synced.open_ranges
    assert following.difference() == (0, 0, 0)
    again = following.sync(*keys)
    assert (again.counts.written, again.counts.deleted) == (0, 0)
    bad = [(b"", b"", b""), (b"\0\0\0\1", b"\0"), (b"\0\0\0\1", b"\0\0\0\1", b"\xff")]
    assert counted(following.sync_keys(bad)).keys() <= {"read", "unchanged"}


def fill_elsewhere(connection: Connection, table: TableName, rows: int = 5) -> None:
    content = [(k, c, d, 1, "w") for k in range(4) for c in range(rows) for d in "x"]
    content.append((3, 3, "y", 1, "w"))
    content += [(2, 100, "x", 1, "w")]
    fill(connection, table, "k, c, d, v, w", content)


def test_a_postgresql_table_follows(connection, reader, tables, pg):
    table = tables.make("o", ELSEWHERE)
    fill_elsewhere(connection, table)
    plan = plan_table(connection, pg, table, sync=SCAN)
    copy_ranges(in_process(plan, connection, pg))

    follows_elsewhere(connection, plan, pg, reader)


def test_a_partition_is_read_from_postgresql_a_few_rows_at_a_time(connection, reader, tables, pg):
    table = tables.make("o", ELSEWHERE)
    fill(connection, table, "k, c, d, v", [(1, n // 3, f"{n % 3}", n) for n in range(1700)])
    plan = to_sync_plan(plan_table(connection, pg, table, sync=SCAN))
    following = Following(plan, connection, reader, pg)

    assert counted(following.sync((1,))) == {"read": 1700, "written": 1700}
    following.run("DELETE FROM {} WHERE k = 1 AND c < 500")
    assert counted(following.sync((1,))) == {"read": 1700, "deleted": 1500, "unchanged": 200}
    assert following.difference() == (0, 0, 0)


def test_a_dynamodb_table_follows(connection, reader, tables, dynamo):
    table = tables.make("o", ELSEWHERE)
    fill_elsewhere(connection, table)
    migration = declare(
        table, TableName("", f"t{uuid.uuid4().hex}"), sync=SCAN, writetime="now", ttl="none",
        tracking=False, target_declared=DynamoDbTarget(create=True),
    )  # fmt: skip
    plan = make_target(
        plan_between(migration, connection, dynamo),
        open_origin(migration, connection),
        open_target(migration, dynamo),
        lambda _: None,
    )
    copy_ranges(in_process(plan, connection, dynamo))

    follows_elsewhere(connection, plan, dynamo, reader)


# -- at random -----------------------------------------------------------------------------------


def raw_keys(session: Session, table: RandomTable, name: TableName) -> set[Key]:
    columns = ", ".join(quote(column.name) for column in table.partition + table.clustering)
    _, rows = read_raw(session, f"SELECT {columns} FROM {name}")
    # A partition of static cells alone shows itself without clustering columns.
    return {tuple(cell for cell in row if cell is not None) for row in rows}


def without_the_future(table: RandomTable) -> RandomTable:
    return replace(
        table,
        same_key=True,
        frozen_at_target=frozenset(),
        writes=tuple(write for write in table.writes if 2**61 not in write.values),
    )


def test_random_changes_arrive_whatever_part_of_their_keys_is_told(connection, reader, tables):
    seen: Counter[str] = Counter()

    @given(random_tables(max_writes=70), st.lists(st.integers(0, 3), min_size=1, max_size=9))
    @settings(
        derandomize=True,
        phases=[Phase.generate],
        max_examples=8,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    def arrive(drawn: RandomTable, cuts: list[int]) -> None:
        table = without_the_future(drawn)
        half = len(table.writes) // 2
        origin, target = tables.name(), tables.name()
        table.create(connection.session, origin)
        table.create(connection.session, target)
        replace(table, writes=table.writes[:half]).fill(connection.session, origin)
        plan = plan_copy(connection, origin, target, sync=SCAN, token_ranges=2)
        copy_ranges(in_process(plan, connection))
        replace(table, writes=table.writes[half:]).fill(connection.session, origin)
        following = Following(to_sync_plan(plan), connection, reader)
        keys = raw_keys(reader, table, origin) | raw_keys(reader, table, target)
        width = len(table.partition)
        told = [
            key[: max(width, len(key) - cut)]
            for key, cut in zip(sorted(keys), cycle(cuts), strict=False)
        ]

        synced = following.sync_keys(told)

        following.assert_same()
        assert not synced.open_ranges
        seen.update(counted(synced))
        again = following.sync_keys(sorted(keys))
        assert (again.counts.written, again.counts.deleted, again.counts.kept) == (0, 0, 0)

    arrive()
    assert seen["written"] > 20
    assert seen["deleted"] > 1
