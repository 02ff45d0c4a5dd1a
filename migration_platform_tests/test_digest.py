"""Sums of digests tell two tables apart, in whatever order and slices their rows come."""

from hypothesis import given
from hypothesis import strategies as st

from migration_platform.digest import (
    BUCKETS_PER_TABLE,
    DigestSums,
    RowLocator,
    add_pages,
    buckets_per_range,
    list_rows,
)
from migration_platform.rows import INT32, Page, compile_splitter
from migration_platform.token_ranges import serialize_key, split_ring, token_of_key

RANGES = split_ring(5)
ENDS = [r.end for r in RANGES]
BUCKETS = 3
ALL = frozenset(range(5))
SPLIT = compile_splitter(3, 2)
BY_KEY = RowLocator(fixed_index=None, token_cells=1, ends=ENDS)

# Few keys and values, so that rows meet in a bucket and differ in a single cell.
keys = st.tuples(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.sampled_from([b"", b"1"]))
values = st.sampled_from([None, b"", b"\x00", b"x", b"xy"])
tables = st.dictionaries(keys, values, max_size=10)


def encode(row):
    return b"".join(INT32.pack(-1) if c is None else INT32.pack(len(c)) + c for c in row)


def pages_of(rows, size):
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        yield Page(b"".join(map(encode, part)), len(part), None)


def sums_of(table, size=4, order=None, wanted=ALL):
    sums = DigestSums()
    rows = [(*key, value) for key, value in (order or list(table.items()))]
    add_pages(sums, pages_of(rows, size), SPLIT, BY_KEY, BUCKETS, wanted)
    return sums


@given(tables, st.randoms(use_true_random=False), st.integers(1, 11))
def test_sums_depend_neither_on_the_order_nor_on_the_pages(table, rng, size):
    order = list(table.items())
    rng.shuffle(order)
    assert sums_of(table, size, order) == sums_of(table)


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
    sums = sums_of(table, wanted=wanted)
    expected = {k: v for k, v in table.items() if BY_KEY.index_of(encode(k)) in wanted}
    assert sums == sums_of(expected)
    assert sum(sums.rows.values()) == len(expected)


@given(tables, st.frozensets(st.integers(0, 5 * BUCKETS - 1)))
def test_rows_are_listed_from_the_wanted_slots_only(table, slots):
    rows = [(*key, value) for key, value in table.items()]
    found = [
        entry
        for page in list_rows(pages_of(rows, 4), SPLIT, BY_KEY, BUCKETS, slots)
        for entry in page
    ]
    expected = set()
    for key, value in table.items():
        (slot,) = sums_of({key: value}).sums
        if slot in slots:
            expected.add((slot // BUCKETS, encode(key)))
    assert {(index, key) for index, key, _ in found} == expected
    assert len(found) == len(expected)
    assert all(len(digest) == 16 for *_, digest in found)


def test_a_row_is_located_by_its_origin_token_whatever_its_own_keys_order():
    for key in (b"a", b"b", b"user-17"):
        token = token_of_key(serialize_key([key]))
        (index,) = (r.index for r in RANGES if token in r)
        assert BY_KEY.index_of(encode((key, b"x"))) == index
    fixed = RowLocator(fixed_index=3, token_cells=1, ends=ENDS)
    assert fixed.index_of(b"not even a key") == 3


def test_a_table_has_the_same_number_of_buckets_however_it_is_cut():
    assert buckets_per_range(1) == BUCKETS_PER_TABLE
    assert buckets_per_range(64) * 64 == BUCKETS_PER_TABLE
    assert buckets_per_range(1000) >= 16
