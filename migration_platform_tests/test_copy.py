"""What was read arrives: every row, every byte, and nothing that was not there.

What arrived is read with a plain driver session, never with the engine.
"""

import gc
import time
import tracemalloc
from dataclasses import replace
from datetime import UTC, date, datetime
from datetime import time as clock_time
from decimal import Decimal
from uuid import UUID, uuid1

import pytest
from cassandra.util import Date, Duration

from migration_platform.copying.copy import CopyRange, copy_range
from migration_platform.counts import PieceReport, RangeCounts
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import CONSISTENCY_LEVELS, Guardrails
from migration_platform.demo import sample
from migration_platform.errors import MigrationError, PermanentError, PreflightError, TransientError
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.reads import PAGE_BYTES
from migration_platform.stores.cassandra.tables import truncate
from migration_platform.stores.kinds import plan_between
from migration_platform.stores.work import Done
from migration_platform.token_ranges import TokenRange, split_ring
from migration_platform_tests.tables import (
    copy_ranges,
    copy_table,
    create_table,
    declare,
    fill,
    in_process,
    insert_rows,
    plan_copy,
    rows_of,
)

ENROLMENTS = 600


@pytest.fixture
def make(connection, keyspace):
    return lambda name, body: create_table(connection, keyspace, name, body)


@pytest.fixture
def enrolments(connection, keyspace):
    """The two enrolment tables, the origin's filled."""
    sample.create_tables(connection, keyspace)
    sample.fill_origin(connection, ENROLMENTS, keyspace=keyspace)
    return TableName(keyspace, sample.ORIGIN_TABLE), TableName(keyspace, sample.TARGET_TABLE)


def test_enrolments_arrive_one_to_one_under_another_key(connection, reader, enrolments):
    origin, target = enrolments
    counts = copy_table(connection, origin, target)
    assert (counts.read, counts.written, counts.complete) == (ENROLMENTS, ENROLMENTS, True)
    assert (counts.errors, counts.skipped, counts.set_aside, counts.retries) == (0, 0, 0, 0)
    assert counts.bytes_read > 100 * ENROLMENTS
    expected = rows_of(reader, origin)
    assert len(expected) == ENROLMENTS
    assert rows_of(reader, target) == expected
    # The sample has what the copy could lose: nulls, empty texts, texts that are not ASCII.
    assert {row["addedby"] for row in expected} > {""}
    assert any(row["issued_certificates"] is None for row in expected)
    assert any(row["issued_certificates"] for row in expected)
    batch = expected[0]["batchid"]
    found = list(reader.execute(f"SELECT * FROM {target} WHERE batchid = %s", [batch]))
    assert len(found) == sum(row["batchid"] == batch for row in expected)


def test_copying_again_changes_nothing(connection, reader, enrolments):
    origin, target = enrolments
    copy_table(connection, origin, target)
    first = rows_of(reader, target)
    again = copy_table(connection, origin, target)
    assert again.written == ENROLMENTS
    assert rows_of(reader, target) == first == rows_of(reader, origin)


@pytest.mark.parametrize(
    "columns",
    [(), ("batchid",), ("batchid", "courseid"), ("status",), ("certificates", "userid")],
    ids=" ".join,
)
def test_grouping_of_writes_never_changes_what_is_written(connection, reader, enrolments, columns):
    origin, target = enrolments
    counts = copy_table(connection, origin, target, group_writes_by=columns)
    assert counts.written == ENROLMENTS
    assert rows_of(reader, target) == rows_of(reader, origin)


@pytest.mark.parametrize("fetch_size", [1, 7, 100_000])
def test_the_size_of_pages_changes_nothing(connection, reader, make, fetch_size):
    body = "k int, c int, v text, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    fill(connection, origin, "k, c, v", [(n % 5, n, str(n)) for n in range(60)])
    counts = copy_table(connection, origin, target, origin_fetch_size=fetch_size)
    assert counts.written == 60
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_nothing_of_large_rows_stays_in_memory(connection, make):
    body, count, size = "k int PRIMARY KEY, v blob", 100, 40_000
    origin, target = make("a", body), make("b", body)
    for first in range(0, count, 10):
        rows = [(n, bytes([n]) * size) for n in range(first, first + 10)]
        fill(connection, origin, "k, v", rows)
    stores = in_process(plan_copy(connection, origin, target, origin_fetch_size=5), connection)
    copy_ranges(stores)
    gc.collect()
    # What only the collector of rings would find must not be large.
    gc.disable()
    tracemalloc.start(1)
    try:
        assert copy_ranges(stores).written == count
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert left < count * size / 2


def test_an_empty_table_is_copied_completely(connection, reader, make):
    origin, target = make("a", "k int PRIMARY KEY"), make("b", "k int PRIMARY KEY")
    counts = copy_table(connection, origin, target)
    assert counts.complete
    assert (counts.read, counts.written, counts.bytes_read) == (0, 0, 0)
    assert rows_of(reader, target) == []


def test_a_null_writes_nothing_and_so_hides_nothing(connection, reader, make):
    body = "k int PRIMARY KEY, v int, t text, f frozen<list<int>>, l list<int>, m map<int, int>"
    origin, target = make("a", body), make("b", body)
    insert_rows(connection, origin, [{"k": 1}, {"k": 2, "v": 2, "t": None, "l": None}])
    copy_table(connection, origin, target)
    written = reader.execute(f"SELECT writetime(v) AS v, writetime(t) AS t FROM {target}")
    assert sorted((row["v"] is None, row["t"] is None) for row in written) == [
        (False, True),
        (True, True),
    ]
    # A tombstone would hide every value that is older than the copy.
    for key in (1, 2):
        reader.execute(
            f"UPDATE {target} USING TIMESTAMP 1 SET t = 'x', f = [1], l = [2], m = {{3: 4}} "
            f"WHERE k = {key}"
        )
    found = rows_of(reader, target)
    assert [(row["t"], row["f"], row["l"], dict(row["m"])) for row in found] == [
        ("x", [1], [2], {3: 4})
    ] * 2


def test_a_null_leaves_what_the_target_has(connection, reader, make):
    body = "k int PRIMARY KEY, v int, w int"
    origin, target = make("a", body), make("b", body)
    insert_rows(connection, origin, [{"k": 1, "v": 1}])
    insert_rows(connection, target, [{"k": 1, "v": 0, "w": 5}])
    # What the target has is newer: with the origin's writetimes it would stay as it is.
    copy_table(connection, origin, target, writetime="now")
    assert rows_of(reader, target) == [{"k": 1, "v": 1, "w": 5}]


def test_an_empty_value_is_no_null(connection, reader, make):
    body = (
        "a text, b text, c text, t text, x blob, i int, l frozen<list<int>>, s frozen<set<text>>, "
        "m frozen<map<text, int>>, PRIMARY KEY ((a, b), c)"
    )
    origin, target = make("a", body), make("b", body)
    reader.execute(
        f"INSERT INTO {origin} (a, b, c, t, x, i, l, s, m) "
        "VALUES ('', 'b', '', '', 0x, blobAsInt(0x), [], {}, {})"
    )
    reader.execute(f"INSERT INTO {origin} (a, b, c) VALUES ('a', '', 'null everywhere')")
    assert copy_table(connection, origin, target).written == 2
    query = "SELECT a, b, c, t, x, intAsBlob(i) AS i, l, s, m FROM {}"
    found = list(reader.execute(query.format(target)))
    assert sorted(found, key=repr) == sorted(reader.execute(query.format(origin)), key=repr)
    empty = next(row for row in found if row["a"] == "")
    assert (empty["t"], empty["x"], empty["i"]) == ("", b"", b"")
    assert empty["l"] is not None
    assert empty["m"] is not None
    null = next(row for row in found if row["a"])
    assert {null[name] for name in "txilsm"} == {None}


def test_every_type_passes_as_it_is(connection, reader, keyspace, make):
    connection.session.execute(f"CREATE TYPE {keyspace}.point (x int, y int, name text)")
    values = {
        "c_ascii": ("ascii", ["plain", "", "~"]),
        "c_bigint": ("bigint", [-(2**63), 2**63 - 1, 0]),
        "c_blob": ("blob", [b"\x00\xff", b"", b"\xff\xff\xff\xff"]),
        "c_boolean": ("boolean", [True, False, None]),
        "c_date": ("date", [Date(-(2**31)), date(2024, 2, 29), Date(2**31 - 1)]),
        "c_decimal": ("decimal", [Decimal("-1.5e-30"), Decimal(10) ** 40, Decimal("0.00")]),
        "c_double": ("double", [float("inf"), -0.0, 5e-324]),
        "c_duration": ("duration", [Duration(1, 2, 3), Duration(0, 0, 0), Duration(-1, -2, -3)]),
        "c_float": ("float", [float("-inf"), 1.5, 0.0]),
        "c_inet": ("inet", ["127.0.0.1", "::1", "2001:db8::ff00:42:8329"]),
        "c_int": ("int", [-(2**31), 2**31 - 1, -1]),
        "c_smallint": ("smallint", [-(2**15), 2**15 - 1, 0]),
        "c_text": ("text", ["पाठ ★", "a\x00b", "\U0001f600"]),
        "c_time": ("time", [clock_time(23, 59, 59, 999_999), clock_time(0), None]),
        "c_timestamp": (
            "timestamp",
            [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC), None],
        ),
        "c_timeuuid": ("timeuuid", [uuid1(), uuid1(), None]),
        "c_tinyint": ("tinyint", [-128, 127, 0]),
        "c_uuid": ("uuid", [UUID(int=0), UUID(int=2**128 - 1), uuid1()]),
        "c_varint": ("varint", [-(10**50), 10**50, 0]),
        "c_tuple": ("tuple<int, text, frozen<list<int>>>", [(1, None, [1]), (None, "", []), None]),
        "c_vector": ("vector<float, 3>", [[1.0, -2.5, 0.0], [0.0, 0.0, 0.0], None]),
        "c_list": ("list<text>", [["b", "a", "b"], [""], None]),
        "c_set": ("set<int>", [{3, 1, 2}, {0}, None]),
        "c_map": ("map<text, timestamp>", [{"k": datetime(2024, 1, 1, tzinfo=UTC)}, {}, None]),
        "c_frozen": ("frozen<list<frozen<map<text, frozen<set<int>>>>>>", [[{"": {1}}], [], None]),
        "c_vectors": ("list<frozen<vector<int, 2>>>", [[[1, 2], [3, 4]], [[0, 0]], None]),
    }
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in values.items())
    body = f"k int PRIMARY KEY, {columns}, u point, fu frozen<point>, lu list<frozen<point>>"
    origin, target = make("a", body), make("b", body)
    insert_rows(
        connection,
        origin,
        [
            {"k": n, **{name: some[n] for name, (_, some) in values.items() if some[n] is not None}}
            for n in range(3)
        ],
    )
    reader.execute(
        f"UPDATE {origin} SET u = {{x: 1, name: ''}}, fu = {{y: 2}}, "
        "lu = [{x: 3, y: 4, name: 'ü'}, {x: 5}] WHERE k = 0"
    )
    reader.execute(f"INSERT INTO {origin} (k, c_double, c_float) VALUES (9, NaN, NaN)")

    assert copy_table(connection, origin, target).written == 4

    found = rows_of(reader, target)
    # Not a number equals nothing, itself included; as text it does.
    assert repr(found) == repr(rows_of(reader, origin))
    filled = next(row for row in found if row["k"] == 0)
    assert None not in filled.values()
    assert filled["c_duration"] == Duration(1, 2, 3)
    assert next(row for row in found if row["k"] == 1)["c_varint"] == 10**50


def test_collections_and_types_of_ones_own_can_become_frozen(connection, reader, keyspace, make):
    connection.session.execute(f"CREATE TYPE {keyspace}.point (x int, y int)")
    body = (
        "k int PRIMARY KEY, l {0}list<text>{1}, s {0}set<int>{1}, m {0}map<text, int>{1}, "
        "u {0}point{1}, id {2}, t {3}"
    )
    origin = make("a", body.format("", "", "timeuuid", "ascii"))
    target = make("b", body.format("frozen<", ">", "uuid", "text"))
    insert_rows(
        connection,
        origin,
        [
            {"k": 1, "l": ["b", "a"], "s": {2, 1}, "m": {"z": 1, "a": 2}, "id": uuid1(), "t": "x"},
            {"k": 2, "l": [], "s": set(), "m": {}},
        ],
    )
    reader.execute(f"UPDATE {origin} SET u = {{x: 1}} WHERE k = 1")
    copy_table(connection, origin, target)
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_a_list_that_is_not_frozen_is_not_doubled_by_copying_again(connection, reader, make):
    body = "k int PRIMARY KEY, l list<int>, n list<frozen<list<int>>>"
    origin, target = make("a", body), make("b", body)
    insert_rows(connection, origin, [{"k": 1, "l": [1, 1, 2], "n": [[1], [1]]}])
    for _ in range(3):
        copy_table(connection, origin, target)
        assert rows_of(reader, target) == [{"k": 1, "l": [1, 1, 2], "n": [[1], [1]]}]


@pytest.mark.parametrize("writetime", ["now", "cell"])
def test_rows_live_for_ever_even_where_the_target_would_let_them_expire(
    connection, reader, make, writetime
):
    body = "k int, c int, v int, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body + " WITH default_time_to_live = 600")
    # Two rows of one partition travel as a batch, one of another alone.
    rows = [{"k": 1, "c": 1, "v": 1}, {"k": 1, "c": 2, "v": 2}, {"k": 3, "c": 3, "v": 3}]
    insert_rows(connection, origin, rows, using="USING TTL 3600")
    copy_table(connection, origin, target, writetime=writetime, ttl="none")
    found = list(reader.execute(f"SELECT ttl(v) AS t FROM {target}"))
    assert [row["t"] for row in found] == [None] * 3
    assert rows_of(reader, target) == rows_of(reader, origin)
    assert plan_between(declare(origin, target), connection, connection).target.default_ttl_seconds


def test_deleted_rows_and_cells_stay_deleted(connection, reader, make):
    body = "k int, c int, v int, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    fill(connection, origin, "k, c, v", [(k, c, 1) for k in range(4) for c in range(4)])
    reader.execute(f"DELETE FROM {origin} WHERE k = 1")
    reader.execute(f"DELETE FROM {origin} WHERE k = 2 AND c > 1")
    reader.execute(f"DELETE v FROM {origin} WHERE k = 3 AND c = 3")
    assert copy_table(connection, origin, target).written == 10
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_a_row_that_is_only_its_key_arrives(connection, reader, make):
    origin = make("a", "k int, c text, PRIMARY KEY (k, c)")
    target = make("b", "k int, c text, PRIMARY KEY (c, k)")
    fill(connection, origin, "k, c", [(n, str(n)) for n in range(5)])
    assert copy_table(connection, origin, target).written == 5
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_names_in_quotes_and_descending_order_are_kept(connection, reader, make):
    columns = '"userId" text, "Kurs-Nr" int, "select" text, "größe" int'
    origin = make(
        "Origin",
        f'{columns}, PRIMARY KEY ("userId", "Kurs-Nr") WITH CLUSTERING ORDER BY ("Kurs-Nr" DESC)',
    )
    target = make("Target", f'{columns}, PRIMARY KEY ("Kurs-Nr", "userId")')
    fill(
        connection,
        origin,
        '"userId", "Kurs-Nr", "select", "größe"',
        [(f"ü{n % 3}", n, "★", n) for n in range(9)],
    )
    assert copy_table(connection, origin, target).written == 9
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_rows_larger_than_a_page_and_than_a_batch_arrive(connection, reader, make):
    origin = make("a", "k int, c int, v blob, PRIMARY KEY (k, c)")
    target = make("b", "c int, k int, v blob, PRIMARY KEY (c, k)")
    sizes = [PAGE_BYTES + 1, PAGE_BYTES * 2, 60_000, 6_000, 5_000, 10, 10, 10]
    insert_rows(
        connection,
        origin,
        [{"k": n, "c": n % 2, "v": n.to_bytes() * size} for n, size in enumerate(sizes)],
    )
    counts = copy_table(connection, origin, target)
    assert counts.written == len(sizes)
    assert counts.bytes_read > sum(sizes)
    assert rows_of(reader, target) == rows_of(reader, origin)


def test_a_wide_partition_becomes_many_and_many_become_one(connection, reader, make):
    body = "k int, c int, v text, w int, PRIMARY KEY "
    wide = make("a", body + "(k, c)")
    narrow = make("b", body + "(c, k)")
    again = make("c", body + "(k, c)")
    fill(connection, wide, "k, c, v, w", [(7, n, "x" * (n % 300), n) for n in range(2500)])
    assert copy_table(connection, wide, narrow, token_ranges=2).written == 2500
    assert rows_of(reader, narrow) == rows_of(reader, wide)
    assert copy_table(connection, narrow, again, token_ranges=2).written == 2500
    assert rows_of(reader, again) == rows_of(reader, wide)


def test_a_range_copies_its_own_rows_and_no_others(connection, reader, make):
    origin = make("a", "k int PRIMARY KEY, v int")
    target = make("b", "k int PRIMARY KEY, v int")
    fill(connection, origin, "k, v", [(n, n) for n in range(120)])
    stores = in_process(plan_copy(connection, origin, target, token_ranges=5), connection)
    tokens = {
        row["k"]: row["t"] for row in reader.execute(f"SELECT k, token(k) AS t FROM {origin}")
    }
    expected: set[int] = set()
    for token_range in (split_ring(5)[3], split_ring(5)[0]):
        counts = copy_ranges(stores, [token_range])
        inside = {key for key, token in tokens.items() if token in token_range}
        assert counts.read == counts.written == len(inside) > 0
        expected |= inside
        assert {row["k"] for row in rows_of(reader, target)} == expected


def test_a_row_on_a_border_belongs_to_the_range_that_it_ends(connection, reader, make):
    origin, target = make("a", "k int PRIMARY KEY"), make("b", "k int PRIMARY KEY")
    fill(connection, origin, "k", [(n,) for n in range(9)])
    stores = in_process(plan_copy(connection, origin, target), connection)
    keys = {row["t"]: row["k"] for row in reader.execute(f"SELECT k, token(k) AS t FROM {origin}")}
    tokens = sorted(keys)
    counts = copy_ranges(stores, [TokenRange(0, 1, tokens[2], tokens[5])])
    assert counts.written == 3
    assert {row["k"] for row in rows_of(reader, target)} == {keys[t] for t in tokens[3:6]}


def test_every_range_in_any_number_makes_the_whole_table(connection, reader, make):
    origin, target = make("a", "k int PRIMARY KEY"), make("b", "k int PRIMARY KEY")
    fill(connection, origin, "k", [(n,) for n in range(200)])
    for token_ranges in (1, 3, 64):
        truncate(connection, target)
        counts = copy_table(connection, origin, target, token_ranges=token_ranges)
        assert counts.written == 200
        assert rows_of(reader, target) == rows_of(reader, origin)


def test_truncating_empties_the_target_or_says_why_not(connection, reader, make, keyspace):
    table = make("a", "k int PRIMARY KEY")
    fill(connection, table, "k", [(n,) for n in range(3)])
    truncate(connection, table)
    assert rows_of(reader, table) == []
    with pytest.raises(MigrationError) as refused:
        truncate(connection, TableName(keyspace, "gone"))
    assert str(refused.value) == (
        f"cannot truncate {keyspace}.gone: "
        "the server said: Invalid query: table gone does not exist"
    )


@pytest.mark.parametrize("level", CONSISTENCY_LEVELS)
def test_every_consistency_level_is_asked_of_the_server(connection, reader, make, level):
    body = "k int, c int, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    fill(connection, origin, "k, c", [(1, 1), (1, 2), (2, 1)])
    options = {"token_ranges": 1, "retry_seconds": 0}
    too_many = level in ("TWO", "THREE")
    for sides in ({"origin_consistency": level}, {"target_consistency": level}):
        if too_many:
            with pytest.raises(
                PreflightError, match=rf"{level} takes . replicas, and the keyspace"
            ):
                plan_copy(connection, origin, target, **options, **sides)
            # As if replicas were lost after the plan.
            plan = plan_copy(connection, origin, target, **options)
            declared = declare(origin, target, **options, **sides)
            stores = in_process(replace(plan, migration=declared), connection)
            with pytest.raises(
                TransientError, match=rf"level {level} \(.*alive_replicas 1\), after one"
            ):
                copy_ranges(stores)
        else:
            copy_table(connection, origin, target, **options, **sides)
    assert len(rows_of(reader, target)) == (0 if too_many else 3)


def test_reports_tell_how_far_a_range_is(connection, make):
    origin, target = make("a", "k int PRIMARY KEY"), make("b", "k int PRIMARY KEY")
    fill(connection, origin, "k", [(n,) for n in range(30)])
    stores = in_process(plan_copy(connection, origin, target, token_ranges=1), connection)
    told: list[RangeCounts | PieceReport] = []
    result = copy_range(stores, split_ring(1)[0], told.append)
    reports = [report for report in told if isinstance(report, RangeCounts)]
    assert reports
    assert all(report.written <= report.read <= 30 for report in reports)
    assert (reports[-1].read, reports[-1].reading_ended) == (30, True)
    assert 0 < result.read_seconds <= result.seconds
    assert result.rows_per_second > 0


def test_a_range_is_copied_in_the_pieces_that_are_asked_for(connection, make):
    origin, target = make("a", "k int PRIMARY KEY"), make("b", "k int PRIMARY KEY")
    fill(connection, origin, "k", [(n,) for n in range(30)])
    stores = in_process(plan_copy(connection, origin, target, token_ranges=1), connection)
    whole = split_ring(1)[0]
    pieces = (replace(whole, end=-(2**62)), replace(whole, start=2**61))
    told: list[RangeCounts | PieceReport] = []
    result = copy_range(stores, whole, told.append, pieces=pieces)
    reports = [report for report in told if isinstance(report, PieceReport)]
    assert [(r.piece, r.state) for r in reports] == [
        (piece, state) for piece in pieces for state in ("begun", "done")
    ]
    done = [report.counts for report in reports if report.state == "done"]
    assert sum(counts.read for counts in done) == result.read
    assert 0 < done[0].read == done[0].written < done[0].read + done[1].read < 30


def test_a_piece_that_fails_does_not_keep_the_others_from_being_copied(connection, make):
    columns = "k int PRIMARY KEY, v text"
    origin, target = make("a", columns), make("b", columns)
    fill(connection, origin, "k, v", [(n, "x" * (1500 if n == 7 else 1)) for n in range(30)])
    options: dict = {"token_ranges": 1, "guardrails": Guardrails(1, "fail")}
    stores = in_process(plan_copy(connection, origin, target, **options), connection)
    whole = split_ring(1)[0]
    pieces = tuple(replace(whole, start=p.start, end=p.end) for p in split_ring(4))
    told: list[RangeCounts | PieceReport] = []
    with pytest.raises(MigrationError, match=r"k=7.* has a cell of 1\.5 KB"):
        copy_range(stores, whole, told.append, pieces=pieces)
    ends = [r for r in told if isinstance(r, PieceReport) and r.state != "begun"]
    assert sorted(report.state for report in ends) == ["done", "done", "done", "failed"]
    failed = next(report for report in ends if report.state == "failed")
    assert "k=7" in failed.reason


def test_counts_add_up():
    one = RangeCounts(read=3, written=2, skipped=1, bytes_read=9, retries=1, last_retry="why")
    other = RangeCounts(read=2, written=1, set_aside=1, seconds=2.0)
    both = one + other
    assert (both.read, both.written, both.skipped, both.set_aside) == (5, 3, 1, 1)
    assert (both.bytes_read, both.retries, both.last_retry, both.seconds) == (9, 1, "why", 2.0)
    assert one.complete
    assert other.complete
    assert both.complete
    assert not (both + RangeCounts(read=1)).complete
    assert not (both + RangeCounts(errors=1)).complete


def test_a_column_added_to_the_target_does_not_stop_a_copy(connection, reader, make):
    body = "k int, c int, v int, PRIMARY KEY (k, c)"
    origin, target = make("a", body), make("b", body)
    rows = [(n % 20, n, n) for n in range(80)]
    fill(connection, origin, "k, c, v", rows)
    stores = in_process(plan_copy(connection, origin, target), connection)
    first, *rest = stores.plan.migration.ranges
    copy_ranges(stores, [first])
    # The server forgets the prepared statements of a table that changes.
    reader.execute(f"ALTER TABLE {target} ADD extra int")
    reader.execute(f"ALTER TABLE {origin} ADD extra int")
    copy_ranges(stores, rest)
    assert rows_of(reader, target) == rows_of(reader, origin)
    assert len(rows_of(reader, target)) == 80


def test_a_table_that_is_dropped_meanwhile_fails_the_range_with_a_sentence(connection, make):
    body = "k int PRIMARY KEY"
    origin, target = make("a", body), make("b", body)
    fill(connection, origin, "k", [(n,) for n in range(20)])
    stores = in_process(plan_copy(connection, origin, target), connection)
    copy_ranges(stores, stores.plan.migration.ranges[:1])
    connection.session.execute(f"DROP TABLE {target}")
    started = time.monotonic()
    with pytest.raises(PermanentError) as refused:
        copy_ranges(stores)
    assert time.monotonic() - started < 15
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("side", ["origin", "target"])
def test_one_budget_of_rows_a_second_holds_for_all_workers_together(
    connection, settings, make, side
):
    body = "k int PRIMARY KEY"
    origin, target = make("a", body), make("b", body)
    rows, rate = 400, 250
    fill(connection, origin, "k", [(n,) for n in range(rows)])
    plan = plan_copy(
        connection, origin, target, token_ranges=8, **{f"{side}_rows_per_second": rate}
    )
    tasks = [CopyRange(token_range) for token_range in plan.migration.ranges]
    with WorkerPool(plan, settings, settings, workers=2) as pool:
        # The first round starts the workers; the second one is measured.
        assert sum(isinstance(event, Done) for event in pool.run(tasks[:2])) == 2
        started = time.monotonic()
        results = [event.result for event in pool.run(tasks) if isinstance(event, Done)]
        seconds = time.monotonic() - started
    assert sum(result.written for result in results) == rows
    # The rows of the last page wait for those before it; two budgets would take half as long.
    largest = max(result.read for result in results)
    assert seconds >= (rows - largest) / rate
