"""Rows that would land on one another are found before a write, and the right one wins whole."""

import random
from datetime import UTC, datetime

import pytest

from migration_platform.comparing.diff import diff_ranges
from migration_platform.copying.collisions import refuse_collisions
from migration_platform.copying.copy import CopyRange
from migration_platform.copying.rehearsal import rehearse
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Guardrails
from migration_platform.errors import PreflightError
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.work import Done
from migration_platform_tests.comparing import (
    compare,
    copy_winners,
    found,
    rehearse_all,
)
from migration_platform_tests.tables import (
    create_table,
    fill,
    insert_rows,
    plan_copy,
    rows_of,
)

MATCH = (0, 0, 0)


@pytest.fixture
def make(connection, keyspace):
    return lambda name, body: create_table(connection, keyspace, name, body)


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "keys.sqlite"


@pytest.fixture
def rehearsed(connection, keys):
    """Plan a copy and look for rows that collide: the plan, and what was found."""

    def plan_and_rehearse(origin, target, **options):
        keys.unlink(missing_ok=True)
        plan = plan_copy(connection, origin, target, **{"token_ranges": 3, **options})
        result = rehearse_all(connection, plan, keys)
        assert result.failed == ()
        return plan, result

    return plan_and_rehearse


@pytest.fixture
def copy(connection, rehearsed, keys):
    """Copy the winners, compare, and do both again; nothing may change the second time."""

    def copy_and_compare(origin, target, **options):
        plan, result = rehearsed(origin, target, **options)
        counts = copy_winners(connection, plan, keys)
        assert counts.complete
        assert counts.collided == result.collisions.origin_rows - result.collisions.target_rows
        assert found(compare(connection, plan, winners=keys)) == MATCH
        return counts

    return copy_and_compare


def write_at(connection, name, row, writetime, ttl=0):
    insert_rows(connection, name, [row], f"USING TIMESTAMP {writetime} AND TTL {ttl}")


def test_rows_that_collide_are_counted_and_shown_and_refused(reader, connection, make, rehearsed):
    origin = make("a", "k int, c text, v int, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, v int")
    rows = [(k, f"c{c}", c) for k in range(20) for c in range(k % 4)]
    fill(connection, origin, "k, c, v", rows)
    plan, result = rehearsed(origin, target, columns=Columns(skip=("c",)))
    several = [k for k in range(20) if k % 4 > 1]
    assert result.collisions.target_rows == len(several)
    assert result.collisions.origin_rows == sum(k % 4 for k in several)
    assert result.counts.read == len(rows)
    samples = result.collisions.samples
    assert len(samples) == len(several)
    for k in several:
        (sample,) = (s for s in samples if s.startswith(f"(k={k}) from ("))
        assert sample.count(f"k={k}, c='c") == 2
        assert sample.endswith(" and 1 more") == (k % 4 == 3)
    with pytest.raises(PreflightError) as refused:
        refuse_collisions(plan, result.collisions)
    message = str(refused.value)
    assert "25 origin rows would land on 10 target rows, such as (k=" in message
    assert "add c to the target's key, or say with collisions: newest (or oldest)" in message
    assert len(message.splitlines()) == 1
    assert rows_of(reader, target) == []


def test_samples_are_bounded_while_counts_are_exact(connection, make, rehearsed):
    origin = make("a", "k int, c int, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY")
    fill(connection, origin, "k, c", [(k, c) for k in range(40) for c in range(2)])
    _, result = rehearsed(origin, target, columns=Columns(skip=("c",)))
    assert (result.collisions.target_rows, result.collisions.origin_rows) == (40, 80)
    assert len(result.collisions.samples) == 10


def test_rows_that_do_not_collide_are_not_refused(connection, reader, make, rehearsed, copy):
    origin = make("a", "tenant text, k int, v int, PRIMARY KEY (tenant, k)")
    target = make("b", "k int PRIMARY KEY, v int")
    fill(connection, origin, "tenant, k, v", [(f"t{k % 3}", k, k) for k in range(30)])
    plan, result = rehearsed(origin, target, columns=Columns(skip=("tenant",)))
    assert plan.lost_keys == ("tenant",)
    assert (result.collisions.target_rows, result.collisions.samples) == (0, ())
    refuse_collisions(plan, result.collisions)
    counts = copy(origin, target, columns=Columns(skip=("tenant",)))
    assert (counts.written, counts.collided) == (30, 0)
    assert len(rows_of(reader, target)) == 30


@pytest.mark.parametrize("winner", ["newest", "oldest"])
def test_one_row_wins_as_a_whole(connection, reader, make, copy, winner):
    origin = make(
        "a", "k int, c int, v text, w text, m map<text, int>, l list<int>, PRIMARY KEY (k, c)"
    )
    target = make("b", "k int PRIMARY KEY, c int, v text, w text, m map<text, int>, l list<int>")
    # Of each pair one has what the other lacks: nothing of the loser may show through.
    for k in range(6):
        first, second = (1000, 2000) if k % 2 else (2000, 1000)
        full = {"k": k, "c": 1, "v": "v", "m": {"a": 1}, "l": [1, 2]}
        other = {"k": k, "c": 2, "w": "w", "m": {"b": 2}}
        write_at(connection, origin, full, first)
        write_at(connection, origin, other, second)
    write_at(connection, origin, {"k": 9, "c": 9, "v": "alone"}, 500)
    counts = copy(origin, target, collisions=winner)
    assert (counts.read, counts.written, counts.collided, counts.skipped) == (13, 7, 6, 6)
    full = {"c": 1, "l": [1, 2], "m": {"a": 1}, "v": "v", "w": None}
    other = {"c": 2, "l": None, "m": {"b": 2}, "v": None, "w": "w"}
    full_wins = {k for k in range(6) if (k % 2 == 0) == (winner == "newest")}
    for row in rows_of(reader, target):
        k = row.pop("k")
        if k == 9:
            assert (row["c"], row["v"]) == (9, "alone")
        else:
            assert row == (full if k in full_wins else other)


def test_the_newest_cell_makes_a_row_the_newest(connection, reader, make, copy):
    origin = make("a", "k int, c int, v int, w int, m map<text, int>, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, c int, v int, w int, m map<text, int>")
    for c in range(4):
        write_at(connection, origin, {"k": 1, "c": c, "v": c, "w": c}, 1000 + c)
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 5000 SET m['x'] = 1 WHERE k = 1 AND c = 1")
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 4000 SET w = 9 WHERE k = 1 AND c = 2")
    copy(origin, target, collisions="newest")
    assert rows_of(reader, target) == [{"c": 1, "k": 1, "m": {"x": 1}, "v": 1, "w": 1}]
    found_times = reader.execute(f"SELECT writetime(v), writetime(w) FROM {target}").one()
    assert list(found_times.values()) == [1001, 1001]


@pytest.mark.parametrize("winner", ["newest", "oldest"])
@pytest.mark.parametrize("writetime", ["cell", "row_max", "now", 777])
def test_the_winner_is_told_by_the_origins_times_whatever_is_written(
    connection, reader, make, copy, winner, writetime
):
    origin = make("a", "k int, c int, v int, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, c int, v int")
    for c, at in ((1, 3000), (2, 9000), (3, 1000)):
        write_at(connection, origin, {"k": 1, "c": c, "v": c}, at)
    copy(origin, target, collisions=winner, writetime=writetime, ttl="none")
    expected = 2 if winner == "newest" else 3
    assert rows_of(reader, target) == [{"k": 1, "c": expected, "v": expected}]


@pytest.mark.parametrize("winner", ["newest", "oldest"])
def test_ties_always_have_the_same_winner(connection, reader, make, copy, rehearsed, winner):
    origin = make("a", "c int, k int, v int, PRIMARY KEY (c, k)")
    target = make("b", "k int PRIMARY KEY, c int, v int")
    for k in range(8):
        for c in range(6):
            write_at(connection, origin, {"k": k, "c": c, "v": c}, 1000)
    copy(origin, target, collisions=winner)
    first = rows_of(reader, target)
    assert len(first) == 8
    # The cells of one row: the winner is one row, not one value for each column.
    assert all(row["c"] == row["v"] for row in first)
    for ranges in (1, 2, 7):
        reader.execute(f"TRUNCATE {target}")
        copy(origin, target, collisions=winner, token_ranges=ranges, origin_fetch_size=ranges)
        assert rows_of(reader, target) == first
    # Again onto what is there.
    copy(origin, target, collisions=winner)
    assert rows_of(reader, target) == first


def test_rows_that_are_nothing_but_keys_and_nulls_collide_too(connection, reader, make, copy):
    origin = make("a", "k int, c int, v int, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, c int, v int")
    fill(connection, origin, "k, c", [(1, 1), (1, 2), (2, 1)])
    write_at(connection, origin, {"k": 2, "c": 2, "v": 1}, 1000)
    copy(origin, target, collisions="newest")
    rows = {row["k"]: row for row in rows_of(reader, target)}
    assert rows[1]["c"] in (1, 2)
    # What has a writetime is newer than what tells none.
    assert rows[2] == {"k": 2, "c": 2, "v": 1}


def test_the_comparison_finds_a_loser_at_the_target(
    connection, reader, make, copy, rehearsed, keys
):
    origin = make("a", "k int, c int, v int, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, c int, v int")
    for k in range(5):
        for c in range(3):
            write_at(connection, origin, {"k": k, "c": c, "v": 10 * k + c}, 1000 + c)
    copy(origin, target, collisions="newest")
    reader.execute(f"UPDATE {target} SET c = 1, v = 31 WHERE k = 3")
    reader.execute(f"DELETE FROM {target} WHERE k = 4")
    reader.execute(f"INSERT INTO {target} (k, c, v) VALUES (77, 1, 1)")
    plan, _ = rehearsed(origin, target, collisions="newest")
    verdict = compare(connection, plan, winners=keys)
    assert found(verdict) == (1, 1, 1)
    assert [row.key for row in verdict.mismatched_rows] == ["k=3"]
    assert [row.key for row in verdict.missing_rows] == ["k=4"]
    assert [row.key for row in verdict.extra_rows] == ["k=77"]


def test_random_rows_have_the_winner_that_a_reference_names(connection, reader, make, copy):
    origin = make("a", "c int, k int, v int, w text, PRIMARY KEY (c, k)")
    target = make("b", "k int, g text, c int, v int, w text, PRIMARY KEY (g, k)")
    rng = random.Random(7)
    rows = {}
    for _ in range(120):
        key = rng.randrange(40), rng.randrange(15)
        row = {"c": key[0], "k": key[1], "v": rng.randrange(9), "w": rng.choice("xyz")}
        rows[key] = (rng.randrange(1, 10**6), row)
    # No two of one target row at the same time, so that the reference need not know ties.
    assert len({(row["k"], at) for at, row in rows.values()}) == len(rows)
    for at, row in rows.values():
        write_at(connection, origin, row, at)
    columns = Columns(constants={"g": "g"})
    for winner, best in (("newest", max), ("oldest", min)):
        reader.execute(f"TRUNCATE {target}")
        counts = copy(origin, target, columns=columns, collisions=winner)
        expected = {}
        for k in {row["k"] for _, row in rows.values()}:
            _, row = best((e for e in rows.values() if e[1]["k"] == k), key=lambda e: e[0])
            expected[k] = {**row, "g": "g"}
        assert {row["k"]: row for row in rows_of(reader, target)} == expected
        assert counts.written == len(expected)
        assert counts.collided == len(rows) - len(expected)


def test_values_that_a_codec_makes_one_collide(connection, reader, make, rehearsed, copy):
    origin = make("a", "k text PRIMARY KEY, v int")
    target = make("b", "k int PRIMARY KEY, v int")
    for at, key in enumerate(("1", "01", "+1", "2")):
        write_at(connection, origin, {"k": key, "v": at}, 1000 + at)
    columns = Columns(codecs=("INT_STRING",))
    plan, result = rehearsed(origin, target, columns=columns)
    assert plan.lost_keys == ("k",)
    assert (result.collisions.target_rows, result.collisions.origin_rows) == (1, 3)
    with pytest.raises(PreflightError, match="k='"):
        refuse_collisions(plan, result.collisions)
    copy(origin, target, columns=columns, collisions="newest")
    assert rows_of(reader, target) == [{"k": 1, "v": 2}, {"k": 2, "v": 3}]


def test_times_cut_to_seconds_collide(connection, make, rehearsed):
    origin = make("a", "k timestamp PRIMARY KEY, v int")
    target = make("b", "k text PRIMARY KEY, v int")
    for ms in (1, 2, 1001):
        moment = datetime.fromtimestamp(ms / 1000, UTC)
        insert_rows(connection, origin, [{"k": moment, "v": ms}])
    columns = Columns(codecs=("TIMESTAMP_STRING_FORMAT",))
    _, result = rehearsed(origin, target, columns=columns)
    assert (result.collisions.target_rows, result.collisions.origin_rows) == (1, 2)
    assert "k='19700101000000'" in result.collisions.samples[0]


def test_nulls_that_get_one_default_collide(connection, reader, make, rehearsed, copy):
    origin = make("a", "id int PRIMARY KEY, city text, v int")
    target = make("b", "id int, city text, v int, PRIMARY KEY (city)")
    for at, (n, city) in enumerate(((1, None), (2, None), (3, "none"), (4, "Ulm"))):
        row = {"id": n, "v": n} | ({"city": city} if city else {})
        write_at(connection, origin, row, 1000 + at)
    columns = Columns(key_defaults={"city": "none"})
    _, result = rehearsed(origin, target, columns=columns)
    assert (result.collisions.target_rows, result.collisions.origin_rows) == (1, 3)
    copy(origin, target, columns=columns, collisions="oldest")
    assert rows_of(reader, target) == [
        {"city": "Ulm", "id": 4, "v": 4},
        {"city": "none", "id": 1, "v": 1},
    ]


def test_entries_of_maps_of_several_rows_collide(connection, reader, make, rehearsed, copy):
    origin = make("a", "id int PRIMARY KEY, m map<text, int>")
    target = make("b", "name text PRIMARY KEY, id int, amount int")
    write_at(connection, origin, {"id": 1, "m": {"a": 1, "b": 1, "only": 1}}, 1000)
    write_at(connection, origin, {"id": 2, "m": {"a": 2, "b": 2}}, 2000)
    columns = Columns(explode_map=ExplodeMap("m", "name", "amount"))
    plan, result = rehearsed(origin, target, columns=columns)
    assert plan.lost_keys == ("id",)
    assert (result.collisions.target_rows, result.collisions.origin_rows) == (2, 4)
    counts = copy(origin, target, columns=columns, collisions="newest")
    assert (counts.read, counts.added, counts.written, counts.collided) == (2, 3, 3, 2)
    assert {row["name"]: (row["id"], row["amount"]) for row in rows_of(reader, target)} == {
        "a": (2, 2),
        "b": (2, 2),
        "only": (1, 1),
    }


def test_entries_of_one_map_that_a_codec_makes_one_collide(connection, reader, make, rehearsed):
    origin = make("a", "id int PRIMARY KEY, m map<text, int>")
    target = make("b", "id int, n int, amount int, PRIMARY KEY (id, n)")
    write_at(connection, origin, {"id": 1, "m": {"1": 10, "01": 20, "2": 30}}, 1000)
    columns = Columns(explode_map=ExplodeMap("m", "n", "amount"), codecs=("INT_STRING",))
    plan, result = rehearsed(origin, target, columns=columns)
    # A run looks for collisions only where a part of the key is lost.
    assert plan.lost_keys
    assert (result.collisions.target_rows, result.collisions.origin_rows) == (1, 2)


@pytest.mark.parametrize("winner", ["newest", "oldest"])
def test_of_entries_of_one_map_that_collide_one_is_written(connection, reader, make, copy, winner):
    origin = make("a", "id int PRIMARY KEY, m map<text, int>")
    target = make("b", "id int, n int, amount int, PRIMARY KEY (id, n)")
    write_at(connection, origin, {"id": 1, "m": {"1": 10, "01": 20, "2": 30}}, 1000)
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 2000 SET m['1'] = 11 WHERE id = 1")
    columns = Columns(explode_map=ExplodeMap("m", "n", "amount"), codecs=("INT_STRING",))
    counts = copy(origin, target, columns=columns, collisions=winner)
    assert (counts.written, counts.collided) == (2, 1)
    assert {row["n"]: row["amount"] for row in rows_of(reader, target)}[2] == 30


def test_rows_that_a_filter_leaves_out_neither_collide_nor_win(
    connection, reader, make, rehearsed, copy
):
    origin = make("a", "k int, c int, v int, state text, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, c int, v int, state text")
    for c, at, state in ((1, 1000, "ok"), (2, 9000, "deleted"), (3, 2000, "ok")):
        for k in range(3):
            if (k, c) != (2, 3):
                write_at(connection, origin, {"k": k, "c": c, "v": c, "state": state}, at)
    chosen = {
        "by a column's value": Filter(column=ColumnFilter("state", "deleted")),
        "by writetime": Filter(writetime_to=5000),
        "by a condition": Filter(where="c IN (1, 3) AND state = 'ok'"),
    }
    for name, each in chosen.items():
        reader.execute(f"TRUNCATE {target}")
        _, result = rehearsed(origin, target, filter=each, collisions="newest")
        assert (result.collisions.target_rows, result.collisions.origin_rows) == (2, 4), name
        copy(origin, target, filter=each, collisions="newest")
        rows = {row["k"]: row["c"] for row in rows_of(reader, target)}
        assert rows == {0: 3, 1: 3, 2: 1}, name


def test_a_row_that_a_guardrail_leaves_out_does_not_win(connection, reader, make, rehearsed, copy):
    origin = make("a", "k int, c int, v text, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, c int, v text")
    write_at(connection, origin, {"k": 1, "c": 1, "v": "small"}, 1000)
    write_at(connection, origin, {"k": 1, "c": 2, "v": "x" * 1001}, 2000)
    limits = Guardrails(max_column_kb=1, action="skip")
    counts = copy(origin, target, collisions="newest", guardrails=limits)
    assert (counts.written, counts.too_large) == (1, 1)
    assert rows_of(reader, target) == [{"c": 1, "k": 1, "v": "small"}]


def test_the_changes_on_the_way_decide_what_collides(connection, reader, make, rehearsed, copy):
    origin = make("a", "id int PRIMARY KEY, j text")
    target = make("b", "email text PRIMARY KEY, id int, j text")
    for n, email in ((1, "a@x"), (2, "b@x"), (3, "a@x")):
        write_at(connection, origin, {"id": n, "j": f'{{"email": "{email}"}}'}, n)
    columns = Columns(extract_json=ExtractJson("j", {"email": "email"}))
    _, result = rehearsed(origin, target, columns=columns)
    assert (result.collisions.target_rows, result.collisions.origin_rows) == (1, 2)
    copy(origin, target, columns=columns, collisions="newest")
    assert {row["email"]: row["id"] for row in rows_of(reader, target)} == {"a@x": 3, "b@x": 2}


def test_static_cells_stay_those_of_their_partition(connection, reader, make, copy):
    origin = make("a", "k int, c int, d int, s text STATIC, v int, PRIMARY KEY (k, c, d)")
    target = make("b", "k int, c int, d int, s text STATIC, v int, PRIMARY KEY (k, c)")
    for k in range(3):
        write_at(connection, origin, {"k": k, "s": f"s{k}"}, 10)
        for d in range(2):
            write_at(connection, origin, {"k": k, "c": 0, "d": d, "v": d}, 1000 + d)
    counts = copy(origin, target, collisions="newest")
    assert (counts.written, counts.collided) == (3, 3)
    expected = [{"c": 0, "d": 1, "k": k, "s": f"s{k}", "v": 1} for k in range(3)]
    assert rows_of(reader, target) == expected


def test_winners_are_the_same_in_worker_processes(connection, settings, reader, make, keys):
    origin = make("a", "c int, k int, v int, PRIMARY KEY (c, k)")
    target = make("b", "k int PRIMARY KEY, c int, v int")
    for k in range(10):
        for c in range(4):
            write_at(connection, origin, {"k": k, "c": c, "v": c}, 1000 + (c * 7 + k) % 4)
    plan = plan_copy(connection, origin, target, collisions="newest", token_ranges=4)
    ranges = plan.migration.ranges
    with WorkerPool(plan, settings, settings, workers=2) as pool:
        told = []
        result = rehearse(pool, plan, ranges, keys, lambda *n: told.append(n))
        assert told == [(n, 4) for n in range(1, 5)]
        assert (result.collisions.target_rows, result.collisions.origin_rows) == (10, 40)
        tasks = [CopyRange(each, winners=str(keys)) for each in ranges]
        done = [event.result for event in pool.run(tasks) if isinstance(event, Done)]
        verdicts = list(diff_ranges(pool, plan, ranges, winners=str(keys)))
    assert (sum(c.written for c in done), sum(c.collided for c in done)) == (10, 30)
    assert all(verdict.matches for verdict in verdicts)
    for row in rows_of(reader, target):
        assert row["c"] == row["v"] == max(range(4), key=lambda c, k=row["k"]: (c * 7 + k) % 4)


def test_a_range_that_cannot_be_read_is_named(connection, make, keys):
    origin = make("a", "k text, c int, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, c int")
    fill(connection, origin, "k, c", [("1", 1), ("one", 1), ("2", 1)])
    columns = Columns(codecs=("INT_STRING",))
    plan = plan_copy(connection, origin, target, columns=columns)
    result = rehearse_all(connection, plan, keys)
    ((_, reason),) = result.failed
    assert "the row k='one', c=1 cannot be converted: k: INT_STRING: " in reason
