"""Counters end at what the origin counts: whatever the target counted, however often it is tried.

What arrived is read by `cells.py`, which knows nothing of the engine.
"""

import threading

import pytest

from migration_platform.comparing.diff import diff_ranges
from migration_platform.copying.copy import CopyRange
from migration_platform.counts import RangeCounts
from migration_platform.errors import PreflightError, TransientError
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra import connection as store
from migration_platform.stores.cassandra import counters
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform_tests.cells import (
    assert_same_cells,
    many_tables,
    read_cells,
    rows_in,
)
from migration_platform_tests.servers import proxy_before
from migration_platform_tests.tables import (
    copy_ranges,
    copy_table,
    in_process,
    plan_copy,
    rows_of,
)

COLUMNS = "k int, c int, n counter, m counter, PRIMARY KEY (k, c)"
STATICS = "k int, c int, s counter STATIC, n counter, PRIMARY KEY (k, c)"
HIGHEST, LOWEST = 2**63 - 1, -(2**63)


@pytest.fixture(scope="module")
def make(connection):
    with many_tables(connection) as tables:
        yield tables.make


@pytest.fixture
def count(reader):
    """Add to counters of a row, or to those of a partition."""

    def add(table, k, c=None, **added):
        changes = ", ".join(f"{name} = {name} + {number}" for name, number in added.items())
        row = "" if c is None else f" AND c = {c}"
        reader.execute(f"UPDATE {table} SET {changes} WHERE k = {k}{row}")

    return add


@pytest.fixture
def tables(make, count):
    """Counters of every kind: positive, negative, of nothing, extreme, null."""
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    for c in range(20):
        count(origin, c % 3, c, n=c * 10 - 70, m=1)
        count(origin, c % 3, c, n=3)
    count(origin, 5, 1, n=HIGHEST)
    count(origin, 5, 2, n=LOWEST, m=HIGHEST)
    count(origin, 5, 3, n=0)
    count(origin, 5, 4, m=-1)
    return origin, target


def copy_again(stores) -> RangeCounts:
    """Copy every range as one that was copied before."""
    tasks = [CopyRange(token_range, again=True) for token_range in stores.plan.migration.ranges]
    return sum((task.run(stores, lambda _: None) for task in tasks), RangeCounts())


def test_counters_arrive_and_null_stays_null(connection, reader, tables):
    origin, target = tables
    counts = copy_table(connection, origin, target)
    expected = read_cells(reader, origin)
    assert counts.complete
    assert counts.read == counts.written == rows_in(expected) == 24
    assert_same_cells(expected, read_cells(reader, target))
    found = {row["c"]: (row["n"], row["m"]) for row in rows_of(reader, target) if row["k"] == 5}
    assert found == {1: (HIGHEST, None), 2: (LOWEST, HIGHEST), 3: (0, None), 4: (None, -1)}


def test_copying_counters_again_adds_nothing(connection, reader, tables):
    origin, target = tables
    stores = in_process(plan_copy(connection, origin, target), connection)
    for copy in (copy_ranges, copy_ranges, copy_again):
        assert copy(stores).written == 24
        assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_counters_that_went_on_counting_are_caught_up_with(connection, reader, tables, count):
    origin, target = tables
    stores = in_process(plan_copy(connection, origin, target), connection)
    copy_ranges(stores)
    count(origin, 1, 4, n=1000, m=-5)
    count(origin, 5, 3, n=-7)
    # There was no such counter when the row was copied first.
    count(origin, 5, 1, m=4)
    count(origin, 9, 9, n=1)
    copy_ranges(stores)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


@pytest.mark.parametrize("there", [1, -1, 500, HIGHEST, LOWEST])
def test_a_target_that_counts_already_ends_equal(connection, reader, make, count, there):
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    for c, here in enumerate([0, 1, -1, 77, HIGHEST, LOWEST]):
        count(origin, 1, c, n=here, m=1)
        count(target, 1, c, n=there)
    count(target, 2, 1, n=there)
    assert copy_table(connection, origin, target).written == 6
    found = read_cells(reader, target)
    assert_same_cells(
        read_cells(reader, origin), {p: c for p, c in found.items() if "k=1" in str(p)}
    )
    # What only the target counts is not the copy's to change.
    assert {str(p): c.value.shown for p, c in found.items() if "k=2" in str(p) and p.column} == {
        "n of c=1, k=2": str(there)
    }


def test_a_counter_that_only_the_target_has_is_left_as_it_is(connection, reader, make, count):
    origin, target = make("a", COLUMNS), make("b", COLUMNS)
    count(origin, 1, 1, n=3)
    count(target, 1, 1, n=1, m=8)
    copy_table(connection, origin, target)
    assert rows_of(reader, target) == [{"k": 1, "c": 1, "n": 3, "m": 8}]


def test_counters_find_their_rows_under_another_key(connection, reader, make, count):
    origin = make("a", COLUMNS)
    target = make("b", COLUMNS.replace("(k, c)", "((c), k)") + " WITH CLUSTERING ORDER BY (k DESC)")
    for n in range(40):
        count(origin, n % 7, n % 3, n=n, m=-n)
    for _ in range(2):
        copy_table(connection, origin, target, origin_fetch_size=4)
        assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_static_counters_arrive_beside_rows_and_without_any(connection, reader, make, count):
    origin, target = make("a", STATICS), make("b", STATICS)
    for k in range(6):
        count(origin, k, s=k * 100 - 200)
        for c in range(k % 3):
            count(origin, k, c, n=c + 1)
    count(origin, 7, 1, n=1)
    count(target, 2, s=33)
    stores = in_process(plan_copy(connection, origin, target), connection)
    for copy in (copy_ranges, copy_ranges, copy_again):
        assert copy(stores).written == 7
        assert_same_cells(read_cells(reader, origin), read_cells(reader, target))
    count(origin, 0, s=5)
    count(origin, 2, s=6)
    copy_again(stores)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


# -- counters that are gone at the target --------------------------------------------------------


def test_what_the_target_lacks_of_a_range_copied_before_is_left_alone(
    connection, reader, tables, count
):
    origin, target = tables
    stores = in_process(plan_copy(connection, origin, target), connection)
    copy_ranges(stores)
    count(origin, 8, 1, n=5)
    count(origin, 8, 2, n=6, m=7)
    count(origin, 5, 1, n=-1, m=2)
    counts = copy_again(stores)
    assert counts.complete
    # Two rows are gone as a whole, and of one a counter.
    assert (counts.written, counts.skipped, counts.left_alone) == (23, 3, 3)
    found = {(row["k"], row["c"]): (row["n"], row["m"]) for row in rows_of(reader, target)}
    assert len(found) == 24
    assert found[5, 1] == (HIGHEST - 1, None)
    first_time = copy_ranges(stores)
    assert (first_time.written, first_time.skipped) == (26, 0)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_a_deleted_counter_is_not_brought_back(connection, reader, tables):
    origin, target = tables
    stores = in_process(plan_copy(connection, origin, target), connection)
    copy_ranges(stores)
    reader.execute(f"DELETE FROM {target} WHERE k = 5 AND c = 2")
    reader.execute(f"DELETE m FROM {target} WHERE k = 5 AND c = 4")
    counts = copy_again(stores)
    assert (counts.written, counts.skipped) == (22, 2)
    left = {(row["k"], row["c"]) for row in rows_of(reader, target)}
    assert (5, 1) in left
    assert not left & {(5, 2), (5, 4)}


def test_missing_counters_are_written_again_where_that_is_asked_for(
    connection, reader, tables, count
):
    origin, target = tables
    plan = plan_copy(connection, origin, target, repair=("counters",))
    stores = in_process(plan, connection)
    copy_ranges(stores)
    count(origin, 8, 1, n=5)
    count(origin, 5, 1, m=2)
    counts = copy_again(stores)
    assert (counts.written, counts.skipped, counts.left_alone) == (25, 0, 0)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_static_counters_that_are_gone_are_left_alone_too(connection, reader, make, count):
    origin, target = make("a", STATICS), make("b", STATICS)
    count(origin, 1, 1, n=1)
    stores = in_process(plan_copy(connection, origin, target), connection)
    copy_ranges(stores)
    count(origin, 1, s=5)
    assert copy_again(stores).complete
    assert [(row["s"], row["n"]) for row in rows_of(reader, target)] == [(None, 1)]
    copy_ranges(stores)
    assert [(row["s"], row["n"]) for row in rows_of(reader, target)] == [(5, 1)]


# -- what counters cannot have -------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"writetime": 123_456}, {"ttl": 60}])
def test_no_times_can_be_chosen_for_counters(connection, tables, options):
    with pytest.raises(PreflightError, match="counters, whose writetimes and TTLs cannot be cho"):
        copy_table(connection, *tables, **options)


@pytest.mark.parametrize("level", ["ONE", "LOCAL_ONE", "TWO", "THREE"])
def test_no_difference_is_added_to_what_a_weak_read_may_have_missed(connection, tables, level):
    with pytest.raises(PreflightError, match=f"at target.consistency {level} may miss what was"):
        copy_table(connection, *tables, target_consistency=level)


def test_a_counter_is_no_number_and_a_number_no_counter(connection, make):
    numbers = COLUMNS.replace("counter", "bigint")
    for origin, target in ((COLUMNS, numbers), (numbers, COLUMNS)):
        with pytest.raises(PreflightError, match="counter"):
            copy_table(connection, make("a", origin), make("b", target))


# -- answers that are lost -----------------------------------------------------------------------


# How the answer to a write begins, behind its frame: a result of four bytes, which say "void".
VOID = b"\x08\x00\x00\x00\x04\x00\x00\x00\x01"


class Thief:
    """Swallows answers that pass a proxy: so many, after so many that pass."""

    def __init__(self) -> None:
        self.stolen = 0
        self._spared = self._left = 0
        self._wanted = b""
        self._lock = threading.Lock()

    def steal(self, answers: int, *, after: int = 0, wanted: bytes = b"") -> None:
        """Steal answers in which the wanted bytes are."""
        self._left, self._spared, self._wanted = answers, after, wanted

    def __call__(self, chunk: bytes) -> bytes:
        with self._lock:
            if not self._left or self._wanted not in chunk:
                return chunk
            if self._spared:
                self._spared -= 1
                return chunk
            self._left -= 1
            self.stolen += 1
        return b""


@pytest.fixture
def impatient(monkeypatch):
    """A client that gives up on a request after a second, and on what became of it after two."""
    monkeypatch.setattr(store, "REQUEST_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(counters, "SETTLE_SECONDS", 1.0)


LOST = {
    "of a read": {"answers": 1},
    "of the first write": {"answers": 1, "wanted": VOID},
    "of a later write": {"answers": 1, "after": 2, "wanted": VOID},
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_an_answer_that_is_lost_counts_nothing_twice(
    cassandra, connection, reader, make, count, impatient, lost
):
    body = "k int PRIMARY KEY, n counter, m counter"
    origin, target = make("a", body), make("b", body)
    # More than are in flight at once, so that answers come in more than one chunk.
    rows = 100
    for k in range(rows):
        count(origin, k, n=10 + k, m=-k)
    thief = Thief()
    with (
        proxy_before(cassandra.port, thief) as proxy,
        Connection(CassandraSettings(port=proxy.port)) as through,
    ):
        plan = plan_copy(connection, origin, target, token_ranges=1)
        stores = in_process(plan, connection, through)
        # The first copy prepares the statements, so that only reads and writes are left to steal.
        copy_ranges(stores)
        for k in range(rows):
            count(origin, k, n=1)
        thief.steal(**lost)
        counts = copy_ranges(stores)
    assert thief.stolen == lost["answers"]
    assert counts.retries >= 1
    assert (counts.written, counts.complete) == (rows, True)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


def test_a_target_that_is_gone_for_good_fails_the_range_and_a_later_try_counts_right(
    cassandra, connection, reader, tables, impatient
):
    origin, target = tables
    thief = Thief()
    with (
        proxy_before(cassandra.port, thief) as proxy,
        Connection(CassandraSettings(port=proxy.port)) as through,
    ):
        plan = plan_copy(connection, origin, target, token_ranges=1, retry_seconds=2)
        stores = in_process(plan, connection, through)
        copy_ranges(stores)
        reader.execute(f"UPDATE {origin} SET n = n + 5 WHERE k = 1 AND c = 4")
        thief.steal(1_000, after=1)
        with pytest.raises(TransientError):
            copy_ranges(stores)
    assert thief.stolen
    copy_table(connection, origin, target)
    assert_same_cells(read_cells(reader, origin), read_cells(reader, target))


# -- the comparison ------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["(k, c)", "(c, k)"])
def test_differences_between_counters_are_found(connection, settings, make, tables, count, key):
    origin, target = tables[0], make("b", COLUMNS.replace("(k, c)", key))
    plan = plan_copy(connection, origin, target, token_ranges=1, compare_writetime=True)
    with WorkerPool(plan, settings, settings, workers=1) as pool:

        def judge():
            ranges = plan.migration.ranges
            (verdict,) = diff_ranges(pool, plan, ranges)
            assert verdict.error == ""
            return verdict

        assert judge().missing == 24
        copy_table(connection, origin, target)
        assert judge().matches
        count(target, 1, 4, n=1)
        count(target, 5, 4, n=0)
        count(target, 6, 6, m=1)
        verdict = judge()
        assert (verdict.missing, verdict.extra, verdict.mismatched) == (0, 1, 2)
        found = {row.key: row.columns for row in verdict.mismatched_rows}
        assert set(found.values()) == {("n",)}
        assert [set(key.split(", ")) for key in found] == [{"k=1", "c=4"}, {"k=5", "c=4"}]
        copy_table(connection, origin, target)
        # A counter that only the target has stays a difference: a copy takes nothing away.
        assert (judge().extra, judge().mismatched) == (1, 1)
