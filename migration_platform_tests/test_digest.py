"""Sums of digests tell two tables apart, in whatever order and slices their rows come."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from migration_platform.comparing.digest import (
    BUCKETS_PER_TABLE,
    DigestSums,
    RowLocator,
    add_rows,
    buckets_per_range,
    list_rows,
)
from migration_platform.cql.rows import INT32
from migration_platform.token_ranges import serialize_key, split_ring, token_of_key

RANGES = split_ring(5)
BUCKETS = 3
ALL = frozenset(range(5))
BY_KEY = RowLocator(
    fixed_index=None,
    token_cells=1,
    ends=tuple(r.end for r in RANGES),
    windows=tuple((r.start, r.end) for r in RANGES),
    wanted=ALL,
    buckets=BUCKETS,
)

# Few keys and values, so that rows meet in a bucket and differ in a single cell.
keys = st.tuples(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.sampled_from([b"", b"1"]))
values = st.sampled_from([None, b"", b"\x00", b"x", b"xy"])
tables = st.dictionaries(keys, values, max_size=10)


def encode(row):
    return b"".join(INT32.pack(-1) if c is None else INT32.pack(len(c)) + c for c in row)


def rows_of(items):
    return [(encode(key), encode((*key, value)), b"", b"") for key, value in items]


def sums_of(table, order=None, locator=BY_KEY):
    sums = DigestSums()
    add_rows(sums, rows_of(order or list(table.items())), locator)
    return sums


@given(tables, st.randoms(use_true_random=False), st.integers(0, 10))
def test_sums_depend_neither_on_the_order_nor_on_the_pages(table, rng, cut):
    order = list(table.items())
    rng.shuffle(order)
    sums = DigestSums()
    for page in (rows_of(order[:cut]), rows_of(order[cut:])):
        add_rows(sums, iter(page), BY_KEY)
    assert sums == sums_of(table)


@given(tables, st.integers(0, 10))
def test_sums_of_slices_merge_by_addition(table, cut):
    items = list(table.items())
    left, right = sums_of(dict(items[:cut])), sums_of(dict(items[cut:]))
    left.add(right)
    assert left == sums_of(table)


@given(tables, keys, values)
def test_every_change_of_one_row_is_seen_in_its_own_range(table, key, value):
    changed = {**table, key: value}
    if changed == table:
        changed = {k: v for k, v in table.items() if k != key}
    before, after = sums_of(table), sums_of(changed)
    index = BY_KEY.index_of(encode(key))
    slots = before.sums.keys() | after.sums.keys()
    differing = {slot for slot in slots if before.sums[slot] != after.sums[slot]}
    assert {slot // BUCKETS for slot in differing} == {index}
    assert after.rows[index] - before.rows[index] == len(changed) - len(table)


@given(tables, tables)
def test_equal_sums_mean_equal_tables(one, other):
    assert (sums_of(one) == sums_of(other)) == (one == other)


@given(tables, st.frozensets(st.integers(0, 4)))
def test_rows_of_other_ranges_are_left_out(table, wanted):
    sums = sums_of(table, locator=replace(BY_KEY, wanted=wanted))
    expected = {k: v for k, v in table.items() if BY_KEY.index_of(encode(k)) in wanted}
    assert sums == sums_of(expected)
    assert sum(sums.rows.values()) == len(expected)


@given(tables, st.frozensets(st.integers(0, 5 * BUCKETS - 1)))
def test_rows_are_listed_from_the_wanted_slots_only(table, slots):
    found = list(list_rows(rows_of(table.items()), BY_KEY, slots))
    expected = set()
    for key, value in table.items():
        (slot,) = sums_of({key: value}).sums
        if slot in slots:
            expected.add((slot // BUCKETS, encode(key)))
    assert {(index, key) for index, key, *_ in found} == expected
    assert len(found) == len(expected)
    assert all(len(digest) == 16 for _, _, digest, *_ in found)


def test_a_row_is_located_by_its_origin_token_whatever_its_own_keys_order():
    for key in (b"a", b"b", b"user-17"):
        token = token_of_key(serialize_key([key]))
        (index,) = (r.index for r in RANGES if token in r)
        assert BY_KEY.index_of(encode((key, b"x"))) == index
    fixed = replace(BY_KEY, fixed_index=3)
    assert fixed.index_of(b"not even a key") == 3
    assert replace(fixed, wanted=frozenset({1})).index_of(b"not even a key") is None


@given(keys)
def test_a_row_beyond_what_is_read_of_its_range_has_no_index(key):
    token = token_of_key(serialize_key([key[0]]))
    index = BY_KEY.index_of(encode(key))

    def index_with(window):
        windows = (*BY_KEY.windows[:index], window, *BY_KEY.windows[index + 1 :])
        return replace(BY_KEY, windows=windows).index_of(encode(key))

    # A window is open below and closed above.
    assert index_with((token - 1, token)) == index
    assert index_with((token, token + 1)) is None
    assert index_with((token - 2, token - 1)) is None
    assert index_with(None) is None


@given(tables)
def test_without_ranges_of_their_own_rows_share_the_buckets_of_the_table(table):
    shared = sums_of(table, locator=replace(BY_KEY, by_range=False))
    assert all(slot < BUCKETS for slot in shared.sums)
    assert sum(shared.sums.values()) == sum(sums_of(table).sums.values())
    assert shared.rows == sums_of(table).rows


@given(st.dictionaries(keys, st.sampled_from([b"", b"\x00" * 8]), max_size=10))
def test_slots_with_cells_that_expire_are_named_and_expiries_are_listed_but_not_summed(table):
    rows = [(encode(key), encode(key), expiries, b"") for key, expiries in table.items()]
    sums, alike = DigestSums(), DigestSums()
    add_rows(sums, rows, BY_KEY)
    add_rows(alike, [(key, content, b"", b"") for key, content, *_ in rows], BY_KEY)
    assert sums.sums == alike.sums
    assert alike.loose == set()
    expected = {
        BY_KEY.slot_of(BY_KEY.index_of(key), key) for key, _, expiries, _ in rows if expiries
    }
    assert sums.loose == expected
    listed = list_rows(rows, BY_KEY, frozenset(sums.sums))
    assert {(key, expiries) for _, key, _, expiries, _ in listed} == {(k, e) for k, _, e, _ in rows}
    merged = DigestSums()
    merged.add(sums)
    assert merged == sums


@given(tables, st.randoms(use_true_random=False))
def test_rows_that_exchange_their_forms_do_not_add_up_to_the_same(table, rng):
    rows = [(encode(key), encode((*key, value)), b"", b"form") for key, value in table.items()]
    usual = rng.sample(rows, rng.randint(0, len(rows)))

    def sums(without):
        found = DigestSums()
        add_rows(found, [(*r[:3], b"") if r in without else r for r in rows], BY_KEY)
        return found.sums

    others = rng.sample(rows, len(usual))
    assert (sums(usual) == sums(others)) == ({r[0] for r in usual} == {r[0] for r in others})


def test_a_table_has_the_same_number_of_buckets_however_it_is_cut():
    assert buckets_per_range(1) == BUCKETS_PER_TABLE
    assert buckets_per_range(64) * 64 == BUCKETS_PER_TABLE
    assert buckets_per_range(1000) >= 16
