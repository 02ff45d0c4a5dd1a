"""What is left out is counted, what is let through arrives, and the comparison agrees on both."""

import pytest

from migration_platform.declaration.columns import Columns
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Guardrails
from migration_platform.errors import PermanentError, PreflightError
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN
from migration_platform_tests.comparing import compare, found, rehearse_all
from migration_platform_tests.tables import (
    copy_table,
    create_table,
    fill,
    insert_rows,
    plan_copy,
    rows_of,
)

MATCH = (0, 0, 0)
BODY = "k int, c int, v text, n int, PRIMARY KEY (k, c)"
KEYS = ["(k, c)", "(c, k)"]


@pytest.fixture
def make(connection, keyspace):
    return lambda name, body: create_table(connection, keyspace, name, body)


@pytest.fixture
def copy(connection):
    """Copy a table and compare it: a copy must match, whatever was left out."""

    def copy_and_compare(origin, target, **options):
        options = {"token_ranges": 4, **options}
        counts = copy_table(connection, origin, target, **options)
        assert counts.complete
        plan = plan_copy(connection, origin, target, **options)
        assert found(compare(connection, plan)) == MATCH
        # A rehearsal leaves the same out, and writes nothing.
        told = rehearse_all(connection, plan)
        assert told.failed == ()
        for name in ("read", "added", "filtered", "too_large", "skipped"):
            assert getattr(told.counts, name) == getattr(counts, name), name
        assert told.counts.written == 0
        assert sorted(told.counts.large_cells) == sorted(counts.large_cells)
        return counts

    return copy_and_compare


@pytest.fixture
def differ(connection):
    def differ(origin, target, **options):
        plan = plan_copy(connection, origin, target, **{"token_ranges": 4, **options})
        return found(compare(connection, plan))

    return differ


@pytest.fixture
def tokens(reader):
    def read(name, key):
        query = f"SELECT {key}, token({key}) AS t FROM {name}"
        return {row[key]: row["t"] for row in reader.execute(query)}

    return read


# -- conditions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "passes", "key"),
    [
        ("n > 5", lambda row: row[3] > 5, "(c, k)"),
        ("c IN (1, 3) AND n >= 2", lambda row: row[1] in (1, 3) and row[3] >= 2, "(k, c)"),
        ("v = 'it''s; -- 3'", lambda row: row[2] == "it's; -- 3", "(c, k)"),
        ("k = 2", lambda row: row[0] == 2, "(k, c)"),
    ],
    ids=["a column", "two conditions", "a text with everything in it", "the partition"],
)
def test_only_rows_that_meet_a_condition_are_copied(
    connection, reader, make, copy, differ, where, passes, key
):
    origin = make("a", BODY)
    target = make("b", f"k int, c int, v text, n int, PRIMARY KEY {key}")
    rows = [(n % 4, n, f"it's; -- {n % 5}", n % 9) for n in range(40)]
    fill(connection, origin, "k, c, v, n", rows)
    chosen = {row[:2] for row in rows if passes(row)}
    where = Filter(where=where)
    counts = copy(origin, target, filter=where)
    # The server leaves rows out: they are never read.
    assert (counts.read, counts.written, counts.skipped) == (len(chosen), len(chosen), 0)
    assert {(row["k"], row["c"]) for row in rows_of(reader, target)} == chosen
    k, c = sorted(chosen)[0]
    reader.execute(f"DELETE FROM {target} WHERE k = {k} AND c = {c}")
    assert differ(origin, target, filter=where) == (1, 0, 0)


def test_a_condition_that_the_server_refuses_is_refused_with_its_reason(connection, make):
    origin, target = make("a", BODY), make("b", BODY)
    # While the plan is made: later the target may be emptied already.
    with pytest.raises(PreflightError) as refused:
        plan_copy(connection, origin, target, filter=Filter(where="nothing = 1"))
    assert "Undefined column name nothing" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_names_in_conditions_and_filters_may_be_as_odd_as_they_like(connection, reader, make, copy):
    odd = 'a"; DROP TABLE x; --'
    quoted = '"a""; DROP TABLE x; --"'
    body = f'"K k" int, "select" int, {quoted} text, "%s ?" int, PRIMARY KEY ("K k", "select")'
    origin, target = make("Odd_Name", body), make("from", body)
    rows = [
        {"K k": n % 3, "select": n, odd: " Yes " if n % 2 else "no", "%s ?": n} for n in range(12)
    ]
    insert_rows(connection, origin, rows)
    counts = copy(
        origin,
        target,
        filter=Filter(
            where=f"\"%s ?\" < 10 AND {quoted} IN (' Yes ', 'no')",
            column=ColumnFilter(odd, "yes"),
            writetime_from=1,
        ),
        guardrails=Guardrails(1),
        collisions="newest",
        compare_writetime=True,
    )
    assert (counts.read, counts.written, counts.filtered) == (10, 5, 5)
    assert {row["select"] for row in rows_of(reader, target)} == {0, 2, 4, 6, 8}


# -- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_a_window_of_tokens_is_inclusive_and_the_comparison_claims_nothing_beyond_it(
    connection, reader, make, copy, differ, tokens, key
):
    origin = make("a", BODY)
    target = make("b", f"k int, c int, v text, n int, PRIMARY KEY {key}")
    fill(connection, origin, "k, c, v, n", [(k, c, "x", k) for k in range(30) for c in range(2)])
    # What lies beyond the window at the target is not this copy's business.
    stale = [(k, 9, "stale", k) for k in range(30)]
    by_key = tokens(origin, "k")
    ordered = sorted(by_key, key=by_key.get)
    low, high = by_key[ordered[5]], by_key[ordered[20]]
    inside = set(ordered[5:21])
    fill(connection, target, "k, c, v, n", [row for row in stale if row[0] not in inside])
    chosen = Filter(token_min=low, token_max=high)
    counts = copy(origin, target, filter=chosen)
    assert (counts.read, counts.written) == (32, 32)
    copied = [row for row in rows_of(reader, target) if row["c"] < 9]
    assert {row["k"] for row in copied} == inside
    # Within the window everything is.
    border = ordered[5]
    fill(connection, target, "k, c, v, n", [(border, 9, "extra", 1)])
    reader.execute(f"DELETE FROM {target} WHERE k = {ordered[20]} AND c = 1")
    assert differ(origin, target, filter=chosen) == (1, 1, 0)
    one = Filter(token_min=low, token_max=low)
    assert differ(origin, target, filter=one) == (0, 1, 0)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("percent", [1, 50])
def test_a_percentage_takes_the_low_end_of_each_range(
    connection, reader, make, copy, differ, tokens, key, percent
):
    origin = make("a", BODY)
    target = make("b", f"k int, c int, v text, n int, PRIMARY KEY {key}")
    fill(connection, origin, "k, c, v, n", [(k, 0, "x", k) for k in range(300)])
    fill(connection, target, "k, c, v, n", [(k, 1, "stale", k) for k in range(300)])
    chosen = Filter(coverage_percent=percent)
    plan = plan_copy(connection, origin, target, filter=chosen)
    by_key = tokens(origin, "k")
    inside = {
        k
        for k, token in by_key.items()
        for each in plan.migration.ranges
        if each.start < token <= each.start + (each.end - each.start) * percent // 100
    }
    assert abs(len(inside) - 3 * percent) < 40
    for k in inside:
        reader.execute(f"DELETE FROM {target} WHERE k = {k} AND c = 1")
    counts = copy(origin, target, filter=chosen)
    assert counts.written == len(inside)
    assert {row["k"] for row in rows_of(reader, target) if row["c"] == 0} == inside
    if inside:
        k = min(inside)
        fill(connection, target, "k, c, v, n", [(k, 1, "extra", 1)])
        assert differ(origin, target, filter=chosen) == (0, 1, 0)


def test_the_widest_window_takes_everything(connection, make, copy):
    origin, target = make("a", BODY), make("b", BODY)
    fill(connection, origin, "k, c, v, n", [(k, 0, "x", k) for k in range(50)])
    assert copy(origin, target, filter=Filter(token_min=MIN_TOKEN, token_max=MAX_TOKEN)).read == 50


# -- writetimes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "passing", "key", "writetime"),
    [
        (1000, 3000, {1, 2, 3}, "(k, c)", "cell"),
        (1001, 2999, {2}, "(c, k)", "cell"),
        (2000, None, {2, 3, 4}, "(k, c)", "now"),
        (None, 2000, {1, 2}, "(c, k)", "now"),
        (9000, None, set(), "(k, c)", "cell"),
    ],
)
def test_rows_outside_a_window_of_writetimes_are_skipped_and_counted(
    connection, reader, make, copy, differ, low, high, passing, key, writetime
):
    origin = make("a", BODY)
    target = make("b", f"k int, c int, v text, n int, PRIMARY KEY {key}")
    for at in (1, 2, 3, 4):
        row = {"k": at, "c": 0, "v": "x", "n": 1}
        insert_rows(connection, origin, [row], f"USING TIMESTAMP {at * 1000}")
    # A row's newest cell decides; an older one does not.
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 500 SET n = 1 WHERE k = 4 AND c = 0")
    # Rows without a cell have no writetime, and are kept.
    fill(connection, origin, "k, c", [(9, 0), (9, 1)])
    chosen = Filter(writetime_from=low, writetime_to=high)
    options = {"filter": chosen, "writetime": writetime, "ttl": "none"}
    counts = copy(origin, target, **options)
    assert (counts.read, counts.written) == (6, len(passing) + 2)
    assert (counts.skipped, counts.filtered) == (4 - len(passing), 4 - len(passing))
    assert {row["k"] for row in rows_of(reader, target)} == passing | {9}
    reader.execute(f"DELETE FROM {target} WHERE k = 9 AND c = 0")
    assert differ(origin, target, **options) == (1, 0, 0)


def test_elements_have_writetimes_that_count_too(connection, reader, make, copy):
    body = "k int PRIMARY KEY, v int, m map<text, int>"
    origin, target = make("a", body), make("b", body)
    insert_rows(connection, origin, [{"k": 1, "v": 1}, {"k": 2, "v": 2}], "USING TIMESTAMP 1000")
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 5000 SET m['a'] = 1 WHERE k = 1")
    assert copy(origin, target, filter=Filter(writetime_from=4000)).filtered == 1
    assert [row["k"] for row in rows_of(reader, target)] == [1]


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_rows_with_a_columns_value_are_left_out_whatever_its_case_and_blanks(
    connection, reader, make, copy, differ, key
):
    origin = make("a", BODY)
    target = make("b", f"k int, c int, v text, n int, PRIMARY KEY {key}")
    values = ["deleted", " Deleted\t", "DELETED", "deleted!", "not deleted", "", None, "del eted"]
    rows = [
        {"k": k, "c": 0, "n": 1} | ({} if v is None else {"v": v}) for k, v in enumerate(values)
    ]
    insert_rows(connection, origin, rows)
    chosen = Filter(column=ColumnFilter("v", "  dELETED "))
    counts = copy(origin, target, filter=chosen)
    assert (counts.read, counts.written, counts.filtered, counts.skipped) == (8, 5, 3, 3)
    assert {row["k"] for row in rows_of(reader, target)} == {3, 4, 5, 6, 7}
    # A row that was to be left out is one too many at the target.
    insert_rows(connection, target, rows[:1])
    assert differ(origin, target, filter=chosen) == (0, 1, 0)


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [("n", " 3 ", 3), ("k", "1", 4), ("b", "TRUE", 3), ("gone", "x", 2), ("v", "STRASSE", 5)],
)
def test_any_column_can_decide_also_a_key_or_one_that_is_not_copied(
    connection, make, copy, name, value, left
):
    body = "k int, c int, n int, b boolean, v text"
    origin = make("a", f"{body}, gone text, PRIMARY KEY (k, c)")
    target = make("b", f"{body}, PRIMARY KEY (k, c)")
    rows = [
        {"k": n % 3, "c": n, "n": n % 2 * 3, "b": n % 2 == 0, "v": "straße" if n == 1 else "a"}
        | {"gone": "X" if n < 4 else "y"}
        for n in range(6)
    ]
    insert_rows(connection, origin, rows)
    columns = Columns(skip=("gone",))
    chosen = Filter(column=ColumnFilter(name, value))
    assert copy(origin, target, columns=columns, filter=chosen).written == left


def test_an_empty_value_leaves_out_empty_texts_but_no_nulls(connection, reader, make, copy):
    origin, target = make("a", BODY), make("b", BODY)
    insert_rows(connection, origin, [{"k": 1, "c": 1, "v": "  "}, {"k": 2, "c": 1, "v": ""}])
    insert_rows(connection, origin, [{"k": 3, "c": 1}])
    assert copy(origin, target, filter=Filter(column=ColumnFilter("v", ""))).filtered == 2
    assert [row["k"] for row in rows_of(reader, target)] == [3]


# -- static columns and counters -----------------------------------------------------------------

STATICS = "k int, c int, s text STATIC, v text, PRIMARY KEY (k, c)"


@pytest.fixture
def statics(connection, make):
    """Two tables with static columns, the origin's filled."""
    origin, target = make("a", STATICS), make("b", STATICS)
    for k in range(6):
        row = {"k": k, "s": "old" if k % 2 else "new"}
        at = f"USING TIMESTAMP {1000 if k % 2 else 3000}"
        insert_rows(connection, origin, [row], at)
        rows = [{"k": k, "c": c, "v": f"v{c}"} for c in range(3)]
        for row in rows:
            insert_rows(connection, origin, [row], f"USING TIMESTAMP {1000 * (row['c'] + 1)}")
    insert_rows(connection, origin, [{"k": 9, "s": "alone"}], "USING TIMESTAMP 2000")
    return origin, target


def rows_by_key(reader, name):
    return {(row["k"], row["c"]): (row["s"], row["v"]) for row in rows_of(reader, name)}


def test_a_value_of_a_row_leaves_its_partitions_static_cells_alone(reader, statics, copy):
    counts = copy(*statics, filter=Filter(column=ColumnFilter("v", "v1")))
    assert (counts.read, counts.written, counts.filtered) == (19, 12, 6)
    rows = rows_by_key(reader, statics[1])
    assert rows[2, 2] == ("new", "v2")
    assert rows[3, 0] == ("old", "v0")
    assert rows[9, None] == ("alone", None)


def test_a_static_value_leaves_out_the_whole_partition(reader, statics, copy):
    counts = copy(*statics, filter=Filter(column=ColumnFilter("s", "OLD")))
    assert (counts.read, counts.written, counts.filtered) == (19, 9, 9)
    rows = rows_by_key(reader, statics[1])
    assert {k for k, _ in rows} == {0, 2, 4, 9}


def test_a_window_of_writetimes_holds_for_static_cells_too(reader, statics, copy):
    counts = copy(*statics, filter=Filter(writetime_from=2000, writetime_to=3000))
    assert (counts.read, counts.written, counts.filtered) == (19, 12, 6)
    rows = rows_by_key(reader, statics[1])
    assert rows[0, 1] == ("new", "v1")
    assert (0, 0) not in rows
    assert rows[9, None] == ("alone", None)
    # The rows of these partitions are new enough, their static cells are not.
    assert rows[1, 2] == (None, "v2")


@pytest.mark.parametrize("where", ["v = 'v1'", "c = 1"])
def test_a_condition_that_says_nothing_of_static_cells_is_refused(statics, copy, where):
    with pytest.raises(PreflightError) as refused:
        copy(*statics, filter=Filter(where=where))
    assert "static cells can be chosen by the partition key and by static columns only" in (
        str(refused.value)
    )
    assert "skip s with columns.skip, or change the condition" in str(refused.value)


@pytest.mark.parametrize("where", ["s = 'new'", "k = 2"])
def test_a_condition_works_on_a_table_with_static_columns(reader, statics, copy, where):
    copy(*statics, filter=Filter(where=where))
    rows = rows_by_key(reader, statics[1])
    regular = {key for key in rows if key[1] is not None}
    assert regular == {
        (k, c) for k in range(6) for c in range(3) if {"s": k % 2 == 0, "k": k == 2}[where[0]]
    }


def test_a_window_of_tokens_holds_for_static_cells_too(reader, statics, copy, tokens):
    by_key = tokens(statics[0], "k")
    limit = sorted(by_key.values())[3]
    copy(*statics, filter=Filter(token_max=limit))
    kept = {k for k, token in by_key.items() if token <= limit}
    assert {k for k, _ in rows_by_key(reader, statics[1])} == kept


@pytest.mark.parametrize("key", KEYS)
def test_counters_are_filtered_like_rows(connection, reader, make, copy, differ, key):
    body = "k int, c int, n counter, m counter, PRIMARY KEY "
    origin, target = make("a", body + "(k, c)"), make("b", body + key)
    for n in range(12):
        reader.execute(
            f"UPDATE {origin} SET n = n + {n % 4}, m = m + 1 WHERE k = {n % 3} AND c = {n}"
        )
    chosen = {
        "c > 5": (Filter(where="c > 5"), {n for n in range(12) if n > 5}, 0),
        "n is 3": (Filter(column=ColumnFilter("n", "3")), {n for n in range(12) if n % 4 != 3}, 3),
        "k is 1": (Filter(column=ColumnFilter("k", "1")), {n for n in range(12) if n % 3 != 1}, 4),
    }
    for each, expected, filtered in chosen.values():
        reader.execute(f"TRUNCATE {target}")
        counts = copy(origin, target, filter=each)
        assert (counts.written, counts.filtered) == (len(expected), filtered)
        assert {row["c"]: row["n"] for row in rows_of(reader, target)} == {
            n: n % 4 for n in expected
        }
        reader.execute(f"UPDATE {target} SET m = m + 1 WHERE k = 2 AND c = 8")
        assert differ(origin, target, filter=each) == (0, 0, 1)


def test_the_percentage_of_a_table_of_counters_compares_equal(connection, reader, make, copy):
    body = "k int PRIMARY KEY, n counter"
    origin, target = make("a", body), make("b", body)
    for k in range(40):
        reader.execute(f"UPDATE {origin} SET n = n + {k} WHERE k = {k}")
    counts = copy(origin, target, filter=Filter(coverage_percent=50))
    assert 5 < counts.written < 35


# -- guardrails ----------------------------------------------------------------------------------


@pytest.fixture
def large(connection, make):
    """Two tables; the origin has rows around the limit of 1 KB, which is 1000 bytes."""
    body = 'k int, c int, v text, b blob, "Odd one" text, m map<text, text>, PRIMARY KEY (k, c)'
    origin, target = make("a", body), make("b", body.replace("(k, c)", "(c, k)"))
    rows = [
        {"k": 1, "c": 1, "v": "x" * 1000, "b": b"y" * 1000, "Odd one": "z"},
        {"k": 2, "c": 1, "v": "x" * 1001, "b": b"y" * 999},
        {"k": 3, "c": 1, "v": "x" * 5000, "b": b"y" * 1001, "Odd one": "ü" * 501},
        {"k": 4, "c": 1, "m": {"a": "x" * 600, "b": "y" * 600}},
        {"k": 5, "c": 1},
    ]
    insert_rows(connection, origin, rows)
    return origin, target


LARGE = (("Odd one", 1), ("b", 1), ("m", 1), ("v", 2))


def test_large_cells_are_counted_by_column_and_copied(reader, large, copy):
    counts = copy(*large, guardrails=Guardrails(max_column_kb=1))
    assert sorted(counts.large_cells) == sorted(LARGE)
    assert (counts.written, counts.skipped, counts.too_large) == (5, 0, 0)
    assert rows_of(reader, large[1]) == rows_of(reader, large[0])
    samples = sorted(counts.large_samples)
    assert len(samples) == 5
    assert "k=2, c=1: v (1.0 KB)" in samples
    assert 'k=3, c=1: "Odd one" (1.0 KB)' in samples
    assert "k=3, c=1: v (5.0 KB)" in samples


def test_rows_with_large_cells_are_skipped_whole_and_the_comparison_knows(reader, large, copy):
    counts = copy(*large, guardrails=Guardrails(max_column_kb=1, action="skip"))
    assert sorted(counts.large_cells) == sorted(LARGE)
    assert (counts.written, counts.skipped, counts.too_large) == (2, 3, 3)
    assert {row["k"] for row in rows_of(reader, large[1])} == {1, 5}


def test_a_large_cell_can_fail_the_range_by_name(connection, reader, large):
    limits = Guardrails(max_column_kb=1, action="fail")
    with pytest.raises(PermanentError) as refused:
        copy_table(connection, *large, guardrails=limits, token_ranges=1)
    message = str(refused.value)
    assert "the row k=" in message
    assert " KB in " in message
    assert "guardrails.max_column_kb is 1; make it smaller, or set guardrails.action to" in message
    assert rows_of(reader, large[1]) == []
    plan = plan_copy(connection, *large, guardrails=limits, token_ranges=1)
    told = rehearse_all(connection, plan)
    assert told.failed == ()
    assert sorted(told.counts.large_cells) == sorted(LARGE)


def test_a_limit_that_nothing_exceeds_changes_nothing(reader, large, copy):
    for action in ("report", "skip", "fail"):
        counts = copy(*large, guardrails=Guardrails(max_column_kb=6, action=action))
        assert (counts.written, counts.large_cells, counts.too_large) == (5, (), 0)
    assert rows_of(reader, large[1]) == rows_of(reader, large[0])


def test_a_column_that_is_not_copied_is_not_guarded(large, copy):
    columns = Columns(skip=("v", "b", "m", "Odd one"))
    counts = copy(*large, columns=columns, guardrails=Guardrails(max_column_kb=1, action="skip"))
    assert (counts.written, counts.large_cells) == (5, ())


def test_every_large_column_is_told_however_many_there_are(connection, make, copy):
    names = [f"v{n:02}" for n in range(30)]
    body = "k int PRIMARY KEY, " + ", ".join(f"{name} text" for name in names)
    origin, target = make("a", body), make("b", body)
    row = dict.fromkeys(names, "x" * 1001)
    insert_rows(connection, origin, [{"k": k, **row} for k in range(3)])
    counts = copy(origin, target, guardrails=Guardrails(max_column_kb=1))
    assert sorted(counts.large_cells) == [(name, 3) for name in names]
    assert len(counts.large_samples) == 20


def test_a_large_static_cell_is_counted_once_and_skipped_without_its_rows(
    connection, reader, make, copy
):
    origin, target = make("a", STATICS), make("b", STATICS)
    insert_rows(connection, origin, [{"k": k, "c": c, "v": "v"} for k in (1, 2) for c in (1, 2)])
    insert_rows(connection, origin, [{"k": 1, "s": "x" * 1001}, {"k": 2, "s": "small"}])
    counts = copy(origin, target, guardrails=Guardrails(max_column_kb=1))
    assert (counts.written, counts.large_cells) == (4, (("s", 1),))
    reader.execute(f"TRUNCATE {target}")
    counts = copy(origin, target, guardrails=Guardrails(max_column_kb=1, action="skip"))
    assert (counts.written, counts.large_cells) == (4, (("s", 1),))
    rows = rows_by_key(reader, target)
    assert rows == {(1, 1): (None, "v"), (1, 2): (None, "v")} | {
        (2, 1): ("small", "v"),
        (2, 2): ("small", "v"),
    }


def test_a_row_that_is_both_filtered_and_too_large_is_skipped_once(connection, make, copy):
    origin, target = make("a", BODY), make("b", BODY)
    large = "x" * 1001
    insert_rows(connection, origin, [{"k": 1, "c": 1, "v": large, "n": 1}], "USING TIMESTAMP 5")
    insert_rows(connection, origin, [{"k": 2, "c": 1, "v": large, "n": 2}], "USING TIMESTAMP 900")
    insert_rows(connection, origin, [{"k": 3, "c": 1, "v": "small", "n": 1}])
    counts = copy(
        origin,
        target,
        filter=Filter(writetime_from=100, column=ColumnFilter("n", "1")),
        guardrails=Guardrails(max_column_kb=1, action="skip"),
    )
    assert (counts.read, counts.written, counts.skipped) == (3, 0, 3)
    assert counts.filtered + counts.too_large == 3
