"""Tables that were damaged at random: all of it is found, repaired as far as it can be, no more."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from threading import Event, Thread, Timer

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from migration_platform.comparing import settling
from migration_platform.comparing.diff import diff_ranges
from migration_platform.comparing.verdicts import RangeVerdict, difference_lines
from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import CONSISTENCY_LEVELS
from migration_platform.errors import PreflightError
from migration_platform.runs.workers import WorkerPool
from migration_platform_tests.cells import (
    Cells,
    ManyTables,
    Place,
    RandomTable,
    assert_same_cells,
    many_tables,
    random_tables,
    read_cells,
)
from migration_platform_tests.comparing import compare
from migration_platform_tests.tables import (
    copy_ranges,
    copy_table,
    fill,
    in_process,
    insert_rows,
    plan_copy,
    rows_of,
)

EVERYTHING = ("missing", "mismatched", "extra")
BEYOND_NOW = 2**61
reproducible = settings(
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def tables(connection) -> Iterator[ManyTables]:
    with many_tables(connection) as tables:
        tables.add_type("two", "x int, y int")
        yield tables


@pytest.fixture
def settings_of(connection):
    return connection.settings


# -- damage at random ----------------------------------------------------------------------------


def damaged(draw_table: RandomTable) -> tuple[RandomTable, RandomTable]:
    """Give a table as it was copied, and what was written to the target alone afterwards."""
    table = replace(draw_table, same_key=True, frozen_at_target=frozenset())
    half = len(table.writes) // 2
    damage = tuple(w for w in table.writes[half:] if BEYOND_NOW not in w.values)
    return replace(table, writes=table.writes[:half]), replace(table, writes=damage)


Values = dict[tuple, dict[Place, object]]


def by_row(cells: Cells) -> Values:
    """Give the values of every row, and of every partition's static cells."""
    found: Values = {}
    for place, cell in cells.items():
        found.setdefault(place.row, {})[place] = cell.value
    return found


def count_damage(origin: Cells, target: Cells) -> dict[str, int]:
    here, there = by_row(origin), by_row(target)
    return {
        "missing": len(here.keys() - there.keys()),
        "extra": len(there.keys() - here.keys()),
        "mismatched": sum(here[row] != there[row] for row in here.keys() & there.keys()),
    }


def counts_of(verdict: RangeVerdict) -> dict[str, int]:
    assert verdict.error == ""
    return {kind: getattr(verdict, kind) for kind in EVERYTHING}


def assert_what_can_be_repaired_is(origin: Cells, broken: Cells, repaired: Cells) -> None:
    """What is at the target alone must go; what is older there must become the origin's."""
    columns = {(place.row, place.column) for place in origin}
    for place in repaired:
        a_list_stays_newer = place.kind == "position" and (place.row, place.column) in columns
        assert place in origin or a_list_stays_newer, f"{place} is still at the target alone"
    for place, cell in origin.items():
        there = broken.get(place)
        if there and place.column and place.kind != "position":
            is_older = (there.writetime_us or 0) < (cell.writetime_us or 0)
            assert not is_older or repaired[place].value == cell.value


def test_random_damage_is_found_and_repaired_and_nothing_else_is_touched(
    connection, reader, tables
):
    seen: Counter[str] = Counter()

    @given(random_tables(max_writes=70))
    @settings(reproducible, max_examples=5)
    def is_repaired(drawn: RandomTable) -> None:
        table, damage = damaged(drawn)
        origin, target = tables.name(), tables.name()
        table.create(connection.session, origin)
        table.create(connection.session, target)
        table.fill(connection.session, origin)
        copied = plan_copy(connection, origin, target, token_ranges=3)
        copy_ranges(in_process(copied, connection), copied.migration.ranges[1:])
        damage.fill(connection.session, target)
        cells, broken = read_cells(reader, origin), read_cells(reader, target)
        planted = count_damage(cells, broken)

        found = compare(connection, plan_copy(connection, origin, target, token_ranges=2))

        assert counts_of(found) == planted
        assert found.corrected == found.defeated == 0
        assert read_cells(reader, target).keys() == broken.keys()

        plan = plan_copy(connection, origin, target, token_ranges=2, repair=EVERYTHING)
        repaired = compare(connection, plan)

        after = read_cells(reader, target)
        left = count_damage(cells, after)
        assert counts_of(repaired) == planted
        assert repaired.corrected == sum(planted.values()) - sum(left.values())
        assert repaired.defeated == sum(left.values())
        assert repaired.corrected_extra == planted["extra"]
        assert repaired.target_rows == sum(not place.column for place in after)
        assert_what_can_be_repaired_is(cells, broken, after)

        wins = plan_copy(
            connection, origin, target, token_ranges=2, repair=EVERYTHING, repair_writetime="now"
        )
        won = compare(connection, wins)

        assert counts_of(won) == left
        assert by_row(read_cells(reader, target)) == by_row(cells)
        assert won.corrected == sum(left.values())
        assert won.status == ("DIFF_CORRECTED" if any(left.values()) else "PASS")
        seen.update(planted, corrected=repaired.corrected, defeated=repaired.defeated)

    is_repaired()
    assert all(seen[what] > 5 for what in (*EVERYTHING, "corrected", "defeated"))


def test_rows_arrive_by_repair_as_they_do_by_copy(connection, reader, tables):
    @given(random_tables(max_writes=50))
    @settings(reproducible, max_examples=4)
    def arrives(table: RandomTable) -> None:
        origin, target = tables.name(), tables.name()
        table.create(connection.session, origin)
        table.create(connection.session, target, as_target=True)
        table.fill(connection.session, origin)
        plan = plan_copy(
            connection, origin, target, token_ranges=2, repair=EVERYTHING, compare_writetime=True
        )

        verdict = compare(connection, plan)

        assert verdict.status == "DIFF_CORRECTED"
        assert verdict.corrected_missing == verdict.found
        assert_same_cells(read_cells(reader, origin), read_cells(reader, target))

    arrives()


# -- what a repair does, and what it leaves ------------------------------------------------------

COLUMNS = "k text, c int, v int, w text, PRIMARY KEY (k, c)"
KEYS = {"the same key": "(k, c)", "another partition key": "(c, k)"}
ROWS = [{"k": f"p{n % 5}", "c": n, "v": n, "w": "x"} for n in range(20)]
SOME_TIME = 1_700_000_000_000_000


@pytest.fixture
def pair(connection, tables):
    """Make two tables with the same rows, the target with the given key."""

    def make(key: str = "(k, c)", rows=ROWS, body: str = COLUMNS) -> tuple[TableName, TableName]:
        origin = tables.make("o", body)
        target = tables.make("t", body.replace("(k, c)", key))
        insert_rows(connection, origin, rows, using=f"USING TIMESTAMP {SOME_TIME}")
        copy_table(connection, origin, target)
        return origin, target

    return make


def spoil(reader, target: TableName) -> None:
    """Plant a row that is missing, one that is mismatched, and one that is extra."""
    reader.execute(f"DELETE FROM {target} USING TIMESTAMP {SOME_TIME} WHERE k = 'p3' AND c = 3")
    reader.execute(
        f"UPDATE {target} USING TIMESTAMP {SOME_TIME + 1} SET w = 'y' WHERE k = 'p2' AND c = 2"
    )
    reader.execute(f"INSERT INTO {target} (k, c, v) VALUES ('p1', 100, 1)")


def found_and_corrected(verdict: RangeVerdict) -> list[tuple[int, int]]:
    assert verdict.error == ""
    return [(getattr(verdict, k), getattr(verdict, f"corrected_{k}")) for k in EVERYTHING]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_without_repair_a_difference_stays_one(connection, reader, pair, key):
    origin, target = pair(key)
    spoil(reader, target)
    before = rows_of(reader, target)

    verdict = compare(connection, plan_copy(connection, origin, target, token_ranges=1))

    assert found_and_corrected(verdict) == [(1, 0), (1, 0), (1, 0)]
    assert (verdict.status, verdict.matches) == ("DIFF", False)
    assert rows_of(reader, target) == before


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_extra_rows_are_deleted_only_where_that_is_declared(connection, reader, pair, key):
    origin, target = pair(key)
    spoil(reader, target)
    options = {"token_ranges": 1, "repair_writetime": "now"}

    plan = plan_copy(connection, origin, target, repair=("missing", "mismatched"), **options)
    verdict = compare(connection, plan)

    assert found_and_corrected(verdict) == [(1, 1), (1, 1), (1, 0)]
    assert verdict.status == "DIFF"
    assert (verdict.origin_rows, verdict.target_rows) == (20, 21)
    assert len(rows_of(reader, target)) == 21

    plan = plan_copy(connection, origin, target, repair=("extra",), **options)
    verdict = compare(connection, plan)

    assert found_and_corrected(verdict) == [(0, 0), (0, 0), (1, 1)]
    assert verdict.status == "DIFF_CORRECTED"
    assert (verdict.origin_rows, verdict.target_rows) == (20, 20)
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_what_is_newer_at_the_target_is_reported_as_defeating_the_repair(connection, reader, pair):
    origin, target = pair()
    spoil(reader, target)

    plan = plan_copy(connection, origin, target, token_ranges=1, repair=EVERYTHING)
    verdict = compare(connection, plan)

    assert found_and_corrected(verdict) == [(1, 0), (1, 0), (1, 1)]
    assert verdict.defeated == 2
    assert {row.key for row in verdict.defeated_rows} == {"k='p3', c=3", "k='p2', c=2"}
    assert verdict.status == "DIFF"


def test_a_row_that_was_written_after_the_recheck_survives(connection, reader, pair):
    origin, target = pair()
    ahead = (2**63 - 1) // 1000
    reader.execute(f"INSERT INTO {target} (k, c, v) VALUES ('p1', 100, 1) USING TIMESTAMP {ahead}")

    plan = plan_copy(connection, origin, target, token_ranges=1, repair=EVERYTHING)
    verdict = compare(connection, plan)

    assert found_and_corrected(verdict) == [(0, 0), (0, 0), (1, 0)]
    assert verdict.defeated == 1
    assert len(rows_of(reader, target)) == 21


def test_the_counts_of_a_range_add_up_to_what_was_read(connection, reader, pair):
    origin, target = pair()
    spoil(reader, target)

    plan = plan_copy(connection, origin, target, token_ranges=1, repair=("missing", "extra"))
    counts = compare(connection, plan).counts

    assert (counts.read, counts.missing, counts.mismatched, counts.valid) == (20, 1, 1, 18)
    assert (counts.extra, counts.corrected_extra) == (1, 1)
    assert counts.read == (
        counts.valid + counts.mismatched + counts.missing + counts.skipped + counts.error
    )


def test_differences_are_told_in_lines_with_keys_and_both_values(connection, reader, pair):
    origin, target = pair()
    spoil(reader, target)
    reader.execute(f"UPDATE {target} SET v = null, w = '{'long' * 100}' WHERE k = 'p4' AND c = 4")
    reader.execute(f"UPDATE {origin} SET v = null WHERE k = 'p0' AND c = 5")
    plan = plan_copy(
        connection, origin, target, token_ranges=1, repair=EVERYTHING, repair_writetime="now"
    )

    lines = list(difference_lines(compare(connection, plan)))

    assert "Missing target row found for key: [p3 %% 3]" in lines
    assert "Inserted missing row in target: [p3 %% 3]" in lines
    assert (
        "Mismatch row found for key: [p2 %% 2] Mismatch: Target column:w-origin[x]-target[y]; "
        in lines
    )
    assert "Corrected mismatch row in target: [p2 %% 2]" in lines
    assert (
        "Mismatch row found for key: [p0 %% 5] Mismatch: "
        "Target column:v origin is null, target is 5; " in lines
    )
    assert "Deleted extra row in target: [p1 %% 100]" in lines
    (long,) = [line for line in lines if "[p4 %% 4] Mismatch" in line]
    assert "v-origin[4]-target[null]; Target column:w-origin[x]-target[longlong" in long
    assert len(long) < 250


# -- null against a value ------------------------------------------------------------------------

OPEN = "k text, c int, v int, e set<int>, m map<text, int>, l list<int>, u two, PRIMARY KEY (k, c)"
FULL = "v = 1, e = {1, 2}, m = {'a': 1, 'b': 2}, l = [1, 2], u = {x: 1, y: 2}"
PART = "v = null, e = {1}, m = {'a': 1}, l = null, u = {x: 1}"


@pytest.mark.parametrize("told", [True, False], ids=["times told", "times of elements not told"])
@pytest.mark.parametrize("writetime", ["origin", "now"])
def test_what_only_the_target_has_of_a_row_is_deleted_at_its_own_writetime(
    connection, reader, tables, told, writetime
):
    origin, target = tables.make("o", OPEN), tables.make("t", OPEN)
    row = "WHERE k = 'a' AND c = 1"
    reader.execute(f"UPDATE {origin} USING TIMESTAMP {SOME_TIME} SET {PART} {row}")
    reader.execute(f"UPDATE {target} USING TIMESTAMP {SOME_TIME + 9} SET {FULL} {row}")
    options = {"token_ranges": 1, "repair_writetime": writetime}
    plan = plan_copy(connection, origin, target, repair=("mismatched",), **options)
    plan = replace(plan, target=replace(plan.target, tells_elements=told))

    verdict = compare(connection, plan)

    assert found_and_corrected(verdict) == [(0, 0), (1, 1), (0, 0)]
    assert verdict.status == "DIFF_CORRECTED"
    (there,) = rows_of(reader, target)
    (here,) = rows_of(reader, origin)
    assert there == here
    if told and writetime == "origin":
        # A value of the same time loses against the tombstones, and one that is newer wins.
        reader.execute(f"UPDATE {target} USING TIMESTAMP {SOME_TIME + 9} SET v = 1 {row}")
        assert rows_of(reader, target) == [here]
        reader.execute(f"UPDATE {target} USING TIMESTAMP {SOME_TIME + 10} SET {FULL} {row}")
        (there,) = rows_of(reader, target)
        assert (there["v"], len(there["e"]), len(there["m"]), len(there["l"])) == (1, 2, 2, 2)


def test_static_cells_are_repaired_and_those_of_extra_partitions_deleted(
    connection, reader, tables
):
    body = "k int, c int, s text STATIC, e set<int> STATIC, v int, PRIMARY KEY (k, c)"
    origin, target = tables.make("o", body), tables.make("t", body)
    for name in (origin, target):
        for k in range(4):
            reader.execute(f"INSERT INTO {name} (k, c, s, v) VALUES ({k}, 1, 's', 1)")
    reader.execute(f"DELETE s FROM {target} WHERE k = 0")
    reader.execute(f"INSERT INTO {target} (k, s, e) VALUES (1, 'other', {{1}})")
    reader.execute(f"INSERT INTO {target} (k, s, e) VALUES (9, 'extra', {{1}})")
    plan = plan_copy(
        connection, origin, target, token_ranges=1, repair=EVERYTHING, repair_writetime="now"
    )

    verdict = compare(connection, plan)

    assert found_and_corrected(verdict) == [(1, 1), (1, 1), (1, 1)]
    assert (verdict.origin_rows, verdict.target_rows) == (4, 4)
    assert rows_of(reader, target) == rows_of(reader, origin)
    assert verdict.extra_rows[0].key == "static cells of k=9"
    counts = verdict.counts
    assert counts.read == counts.valid + counts.mismatched + counts.missing


def test_entries_of_a_map_that_are_rows_are_repaired_like_rows(connection, reader, tables):
    origin = tables.make("o", "k int PRIMARY KEY, m map<text, int>")
    target = tables.make("t", "k int, name text, value int, PRIMARY KEY (k, name)")
    insert_rows(connection, origin, [{"k": k, "m": {"a": 1, "b": k}} for k in range(4)])
    columns = Columns(explode_map=ExplodeMap(column="m", key="name", value="value"))
    copy_table(connection, origin, target, columns=columns)
    expected = rows_of(reader, target)
    reader.execute(f"DELETE FROM {target} WHERE k = 0 AND name = 'a'")
    reader.execute(f"UPDATE {target} SET value = 9 WHERE k = 1 AND name = 'b'")
    reader.execute(f"INSERT INTO {target} (k, name, value) VALUES (2, 'c', 1)")
    options = {"columns": columns, "token_ranges": 1, "repair_writetime": "now"}

    verdict = compare(
        connection, plan_copy(connection, origin, target, repair=EVERYTHING, **options)
    )

    assert found_and_corrected(verdict) == [(1, 1), (1, 1), (1, 1)]
    assert rows_of(reader, target) == expected


def test_a_row_that_cannot_be_written_keeps_no_other_from_being_repaired(
    connection, reader, tables
):
    origin = tables.make("o", "k int PRIMARY KEY, v text")
    target = tables.make("t", "k int PRIMARY KEY, v int")
    insert_rows(connection, origin, [{"k": k, "v": "x" if k == 3 else str(k)} for k in range(6)])
    plan = plan_copy(
        connection,
        origin,
        target,
        columns=Columns(codecs=("INT_STRING",)),
        token_ranges=1,
        repair=EVERYTHING,
    )

    verdict = compare(connection, plan)

    assert found_and_corrected(verdict) == [(6, 5), (0, 0), (0, 0)]
    assert verdict.status == "DIFF"
    (left,) = [row for row in verdict.missing_rows if not row.corrected]
    assert str(left) == "k=3: (cannot be written as declared)"
    assert {row["k"] for row in rows_of(reader, target)} == {0, 1, 2, 4, 5}


def test_what_came_of_a_row_that_can_no_longer_be_read_is_never_deleted(connection, reader, tables):
    origin = tables.make("o", "k int PRIMARY KEY, m map<text, int>, j text")
    target = tables.make("t", "k int, name text, value int, n int, PRIMARY KEY (k, name)")
    rows = [{"k": k, "m": {"a": 1, "b": k}, "j": '{"n": 1}'} for k in range(3)]
    insert_rows(connection, origin, rows)
    columns = Columns(
        explode_map=ExplodeMap(column="m", key="name", value="value"),
        extract_json=ExtractJson(column="j", properties={"n": "n"}),
    )
    copy_table(connection, origin, target, columns=columns)
    before = rows_of(reader, target)
    reader.execute(f"UPDATE {origin} SET j = '{{broken' WHERE k = 1")

    verdict = compare(
        connection,
        plan_copy(connection, origin, target, columns=columns, token_ranges=1, repair=EVERYTHING),
    )

    assert verdict.status == "DIFF"
    assert verdict.corrected_extra == 0
    assert rows_of(reader, target) == before


# -- filters -------------------------------------------------------------------------------------

FILTERS = {
    "a condition on a value": Filter(where="v < 10"),
    "a condition on a clustering column": Filter(where="c < 10"),
    "a column's value": Filter(column=ColumnFilter(name="w", value="out")),
    "writetimes": Filter(writetime_to=SOME_TIME),
}


@pytest.mark.parametrize("chosen", FILTERS.values(), ids=FILTERS)
def test_a_row_that_the_filter_leaves_out_is_never_deleted(connection, reader, pair, chosen):
    origin, target = pair(rows=[row for row in ROWS if row["c"] < 10])
    for name in (origin, target):
        # The origin has it, and the filter leaves it out.
        reader.execute(f"INSERT INTO {name} (k, c, v, w) VALUES ('p1', 50, 50, 'out')")
    reader.execute(f"INSERT INTO {target} (k, c, v) VALUES ('p1', 60, 60)")
    options = {"filter": chosen, "token_ranges": 1}
    plan = plan_copy(connection, origin, target, repair=EVERYTHING, **options)

    verdict = compare(connection, plan)

    assert found_and_corrected(verdict) == [(0, 0), (0, 0), (2, 1)]
    assert verdict.kept == 1
    assert verdict.kept_rows[0].key == "k='p1', c=50"
    assert {row["c"] for row in rows_of(reader, target)} == {*range(10), 50}
    assert verdict.status == "DIFF"


# -- counters ------------------------------------------------------------------------------------


def test_differences_of_counters_are_added_once(connection, reader, tables):
    body = "k int, c int, n counter, m counter, PRIMARY KEY (k, c)"
    origin, target = tables.make("o", body), tables.make("t", body)
    for k in range(6):
        reader.execute(f"UPDATE {origin} SET n = n + {k + 10}, m = m + 1 WHERE k = {k} AND c = 0")
    copy_table(connection, origin, target)
    reader.execute(f"UPDATE {target} SET n = n + 5 WHERE k = 1 AND c = 0")
    reader.execute(f"UPDATE {target} SET n = n - 3 WHERE k = 2 AND c = 0")
    reader.execute(f"DELETE FROM {target} WHERE k = 7 AND c = 0")
    reader.execute(f"UPDATE {origin} SET n = n + 1 WHERE k = 7 AND c = 0")

    def settle(*repair: str) -> RangeVerdict:
        return compare(
            connection, plan_copy(connection, origin, target, token_ranges=1, repair=repair)
        )

    # A counter that is missing may have been deleted: that takes a word of its own.
    assert found_and_corrected(settle("missing")) == [(1, 0), (2, 0), (0, 0)]
    reader.execute(f"TRUNCATE {target}")
    copy_table(connection, origin, target)
    reader.execute(f"UPDATE {target} SET n = n + 5 WHERE k = 1 AND c = 0")
    reader.execute(f"UPDATE {origin} SET n = n + 1 WHERE k = 8 AND c = 0")

    verdict = settle("counters")

    assert found_and_corrected(verdict) == [(1, 1), (1, 1), (0, 0)]
    assert rows_of(reader, target) == rows_of(reader, origin)
    assert settle("counters").status == "PASS"


# -- more than rows ------------------------------------------------------------------------------


def test_what_is_beyond_the_bound_of_a_range_is_counted_and_left(
    connection, reader, pair, monkeypatch
):
    origin, target = pair()
    reader.execute(f"TRUNCATE {target}")
    monkeypatch.setattr(settling, "RECHECKED_ROWS", 6)
    plan = plan_copy(
        connection, origin, target, token_ranges=1, repair=("missing",), repair_writetime="now"
    )

    first = compare(connection, plan)

    assert (first.missing, first.corrected_missing, first.unchecked) == (20, 6, 14)
    assert (first.status, first.origin_rows, first.target_rows) == ("DIFF", 20, 6)
    assert len(rows_of(reader, target)) == 6
    statuses = [compare(connection, plan).status for _ in range(3)]
    assert statuses == ["DIFF", "DIFF", "DIFF_CORRECTED"]
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_a_repair_that_was_killed_is_finished_by_the_next(connection, reader, pair, settings_of):
    origin, target = pair(rows=[])
    fill(connection, origin, "k, c, v, w", [(f"p{n % 50}", n, n, "x") for n in range(1500)])
    extra = [(f"p{n % 50}", n, n, "y") for n in range(1000, 2500)]
    fill(connection, target, "k, c, v, w", extra)
    options = {"token_ranges": 1, "repair": EVERYTHING, "repair_writetime": "now"}
    plan = plan_copy(connection, origin, target, **options)
    with WorkerPool(plan, settings_of, settings_of, workers=1) as pool:
        (pid,) = pool.process_ids

        def kill_within_the_repair(done: int, total: int) -> None:
            if total > 2 and done == 1:
                Timer(0.02, os.kill, (pid, signal.SIGKILL)).start()

        (killed,) = diff_ranges(pool, plan, plan.migration.ranges, kill_within_the_repair)
    assert killed.status == "FAIL"
    assert "its worker process was killed by signal 9" in killed.error
    left = {(row["k"], row["c"]) for row in rows_of(reader, target)}
    assert left != {(f"p{n % 50}", n) for n in range(1500)}

    again = compare(connection, plan)

    assert again.status == "DIFF_CORRECTED"
    assert rows_of(reader, target) == rows_of(reader, origin)


class DualWriter(Thread):
    """Writes to both tables, one a little after the other, as an application does meanwhile."""

    def __init__(self, session, tables: tuple[TableName, TableName]):
        super().__init__(daemon=True)
        self.model: dict[tuple[str, int], int] = {}
        self.writes = 0
        self._stopped = Event()
        insert = "INSERT INTO {} (k, c, v) VALUES (?, ?, ?) USING TIMESTAMP ?"
        delete = "DELETE FROM {} USING TIMESTAMP ? WHERE k = ? AND c = ?"
        self._inserts = [session.prepare(insert.format(name)) for name in tables]
        self._deletes = [session.prepare(delete.format(name)) for name in tables]
        self._session = session

    def run(self) -> None:
        rng = random.Random(5)
        while not self._stopped.is_set():
            n, now = rng.randrange(60), time.time_ns() // 1000
            key = (f"p{n % 5}", n)
            if rng.random() < 0.4:
                self.model.pop(key, None)
                statements, values = self._deletes, (now, *key)
            else:
                self.model[key] = now % 1000
                statements, values = self._inserts, (*key, now % 1000, now)
            for statement in rng.sample(statements, 2):
                self._session.execute(statement, values)
                time.sleep(rng.uniform(0, 0.02))
            self.writes += 1

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def test_writes_to_both_sides_during_copy_and_comparison_raise_no_alarm(connection, reader, pair):
    origin, target = pair(rows=[])
    rows = [(f"p{n % 5}", n, n) for n in range(600)]
    fill(connection, origin, "k, c, v", rows)
    options = {"token_ranges": 2, "repair": EVERYTHING, "ignore_newer_than_seconds": 2}
    plan = plan_copy(connection, origin, target, **options)
    writer = DualWriter(connection.session, (origin, target))
    writer.start()
    verdicts: list[RangeVerdict] = []
    try:
        copy_table(connection, origin, target)
        while writer.is_alive() and (writer.writes < 100 or len(verdicts) < 10):
            verdicts.append(compare(connection, plan))
    finally:
        writer.stop()

    assert {verdict.error for verdict in verdicts} == {""}
    assert {(v.status, v.found) for v in verdicts} == {("PASS", 0)}
    assert all(v.origin_rows == v.target_rows for v in verdicts)
    assert writer.writes >= 100
    untouched = {(k, c): v for k, c, v in rows if c >= 60}
    for table in (origin, target):
        found = {(row["k"], row["c"]): row["v"] for row in rows_of(reader, table)}
        assert {key: v for key, v in found.items() if key[1] >= 60} == untouched
        assert writer.model.items() <= found.items()
    assert rows_of(reader, origin) == rows_of(reader, target)
    assert compare(connection, plan).status == "PASS"


def test_only_rows_with_new_cells_are_ignored(connection, reader, pair):
    origin, target = pair()
    spoil(reader, target)
    plan = plan_copy(
        connection, origin, target, token_ranges=1, repair=EVERYTHING, ignore_newer_than_seconds=1
    )
    time.sleep(1.1)
    reader.execute(f"UPDATE {target} SET v = 7 WHERE k = 'p0' AND c = 0")
    reader.execute(f"INSERT INTO {origin} (k, c, v) VALUES ('p1', 200, 7)")

    # What lies far in the future was not written just now.
    reader.execute(f"INSERT INTO {target} (k, c, v) VALUES ('p1', 9, 7) USING TIMESTAMP {2**61}")

    verdict = compare(connection, plan)

    assert found_and_corrected(verdict) == [(1, 0), (1, 0), (2, 1)]
    assert verdict.ignored_newer == 2
    assert verdict.counts.skipped == 2
    assert (verdict.origin_rows, verdict.target_rows) == (21, 21)


# -- what is refused -----------------------------------------------------------------------------


def test_repairs_that_could_not_be_right_are_refused_before_anything_is_written(connection, tables):
    body = "k int, c int, n int, PRIMARY KEY (k, c)"
    origin, shorter = tables.make("o", body), tables.make("t", "k int PRIMARY KEY, n int, c int")
    with pytest.raises(
        PreflightError, match="does not tell the origin's row, because it does not "
    ):
        plan_copy(connection, origin, shorter, collisions="newest", repair=("missing",))
    same = tables.make("t", body)
    with pytest.raises(
        PreflightError, match=r"diff\.compare_writetime would find every repaired row"
    ):
        plan_copy(
            connection,
            origin,
            same,
            repair=("missing",),
            repair_writetime="now",
            compare_writetime=True,
        )
    body = "k int PRIMARY KEY, n counter"
    origin, target = tables.make("o", body), tables.make("t", body)
    with pytest.raises(PreflightError, match="must not be written again; leave extra out"):
        plan_copy(connection, origin, target, repair=("extra",))


def test_rows_are_deleted_only_where_a_read_sees_all_that_the_origin_has(connection, tables):
    names = tables.make("o", "k int PRIMARY KEY"), tables.make("t", "k int PRIMARY KEY")
    for level in CONSISTENCY_LEVELS:
        options = {"repair": ("missing", "extra"), "origin_consistency": level}
        if "QUORUM" in level or level == "ALL":
            plan_copy(connection, *names, **options)
            continue
        with pytest.raises(PreflightError) as refused:
            plan_copy(connection, *names, **options)
        assert str(refused.value).endswith(
            f"diff.repair names extra, and a read at origin.consistency {level} may miss a row "
            "that the origin has, which would then be deleted at the target; set it to "
            "LOCAL_QUORUM, QUORUM, EACH_QUORUM or ALL, or leave extra out"
        )
