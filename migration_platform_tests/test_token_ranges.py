"""Slices of the ring hold every row exactly once, whatever their number."""

import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.declaration.filters import Filter
from migration_platform.token_ranges import (
    MAX_RANGES,
    MAX_TOKEN,
    MIN_TOKEN,
    TokenRange,
    describe_ranges,
    index_of_token,
    range_of_key,
    serialize_key,
    split_range,
    split_ring,
    split_tokens,
    token_of_key,
)
from migration_platform_tests.tables import create_table, insert_rows

counts = st.integers(1, MAX_RANGES)
# The smallest number is no key's token, so no slice has to hold it.
tokens = st.integers(MIN_TOKEN + 1, MAX_TOKEN)


@given(counts)
def test_slices_follow_each_other_from_one_end_of_the_ring_to_the_other(count):
    ranges = split_ring(count)
    assert len(ranges) == count
    assert ranges[0].start == MIN_TOKEN
    assert ranges[-1].end == MAX_TOKEN
    for left, right in pairwise(ranges):
        assert left.end == right.start
    *widths, last = [r.bounds[1] - r.bounds[0] for r in ranges]
    assert len(set(widths)) <= 1
    assert all(width - count <= last <= width for width in widths)
    assert [r.index for r in ranges] == list(range(count))


@pytest.mark.parametrize(
    ("parts", "first", "last"),
    [
        (
            64,
            (-9223372036854775808, -8935141660703064065),
            (8935141660703064064, 9223372036854775807),
        ),
        (
            5000,
            (-9223372036854775808, -9219682688040033898),
            (9219682688040037281, 9223372036854775807),
        ),
    ],
)
def test_the_ring_is_cut_where_cassandra_data_migrator_cuts_it(parts, first, last):
    pairs = split_tokens(MIN_TOKEN, MAX_TOKEN, parts)
    assert (pairs[0], pairs[-1], len(pairs)) == (first, last, parts)
    if parts <= MAX_RANGES:
        assert [r.bounds for r in split_ring(parts)] == pairs


@pytest.mark.parametrize("parts", [1, 2, 4, 20, 40, 64, 80, 400, 1000, 5000])
def test_the_whole_ring_gives_as_many_parts_as_are_asked_for(parts):
    pairs = split_tokens(MIN_TOKEN, MAX_TOKEN, parts)
    assert len(pairs) == parts
    if parts == 64:
        assert {high - low for low, high in pairs} == {288230376151711743}


def test_few_tokens_are_cut_as_cassandra_data_migrator_cuts_them():
    ten = split_tokens(1, 100, 10)
    assert (len(ten), {high - low for low, high in ten}) == (10, {9})
    assert len(split_tokens(1, 44, 8, 200)) == 8
    assert split_tokens(1, 44, 8, 200)[-1] == (43, 44)
    assert len(split_tokens(0, 10, 8)) == 6
    assert len(split_tokens(0, 250, 100)) == 84
    assert split_tokens(0, 99, 4, 50) == [(0, 12), (25, 37), (50, 62), (75, 87)]
    for parts in (9, 10, 64, 5000):
        seed = (-9223372036854775808, -9223372036854775800)
        assert split_tokens(*seed, parts) == [seed]
    half = split_tokens(-(2**62), 2**62 - 1, 64)
    assert (len(half), half[0]) == (64, (-4611686018427387904, -4467570830351532033))


def test_a_coverage_takes_the_low_end_of_each_part():
    assert split_tokens(MIN_TOKEN, MAX_TOKEN, 64, 10)[:2] == [
        (-9223372036854775808, -9194548999239604634),
        (-8935141660703064065 + 1, -8906318623087892890),
    ]


@given(st.integers(MIN_TOKEN, MAX_TOKEN), st.integers(0, 2**64), st.integers(1, 3000))
def test_parts_leave_no_gap_do_not_overlap_and_are_never_empty(low, width, parts):
    high = min(MAX_TOKEN, low + width)
    pairs = split_tokens(low, high, parts)
    assert 1 <= len(pairs) <= parts
    assert (pairs[0][0], pairs[-1][1]) == (low, high)
    assert all(left[1] + 1 == right[0] for left, right in pairwise(pairs))
    assert all(first <= last for first, last in pairs)


@given(counts, st.data())
def test_a_slice_is_cut_into_pieces_that_are_cut_again(count, data):
    token_range = data.draw(st.sampled_from(split_ring(count)))
    for _ in range(3):
        pieces = split_range(token_range, data.draw(st.integers(1, 100)))
        assert (pieces[0].start, pieces[-1].end) == (token_range.start, token_range.end)
        assert all(left.end == right.start for left, right in pairwise(pieces))
        assert all(piece.start < piece.end for piece in pieces)
        assert {piece.key for piece in pieces} == {token_range.key}
        token_range = data.draw(st.sampled_from(pieces))


@pytest.mark.parametrize("start", [MIN_TOKEN, -5, MAX_TOKEN - 1])
def test_a_piece_of_one_token_stays_one(start):
    single = TokenRange(0, 1, start, start + 1)
    assert split_range(single, 4) == (single,)


@given(counts, tokens)
def test_every_token_lies_in_exactly_one_slice(count, token):
    ranges = split_ring(count)
    holders = [r.index for r in ranges if token in r]
    assert holders == [index_of_token([r.end for r in ranges], token)]


@given(counts, st.data())
def test_a_slice_holds_its_end_and_not_its_start(count, data):
    ranges = split_ring(count)
    token_range = data.draw(st.sampled_from(ranges))
    ends = [r.end for r in ranges]
    assert token_range.start not in token_range
    assert token_range.start + 1 in token_range
    assert token_range.end in token_range
    assert token_range.end + 1 not in token_range
    assert index_of_token(ends, token_range.end) == token_range.index
    assert index_of_token(ends, token_range.start + 1) == token_range.index


@given(counts)
def test_a_key_names_its_slice_and_keys_sort_as_slices_do(count):
    ranges = split_ring(count)
    keys = [r.key for r in ranges]
    assert sorted(keys) == keys
    assert len(set(keys)) == count
    for token_range in (ranges[0], ranges[count // 2], ranges[-1]):
        assert range_of_key(token_range.key) == token_range


def test_keys_look_as_documented():
    assert split_ring(1)[0].key == "00-of-1"
    assert [r.key for r in split_ring(64)][7] == "07-of-64"
    assert split_ring(1000)[42].key == "042-of-1000"
    assert str(split_ring(1)[0]) == f"00-of-1 ({MIN_TOKEN}, {MAX_TOKEN}]"


@pytest.mark.parametrize(
    "key", ["", "7", "64-of-64", "7 of 64", "-1-of-64", "00-of-0", "00-of-1025", "x07-of-64", "a-b"]
)
def test_a_key_that_names_no_slice_is_refused(key):
    with pytest.raises(ValueError, match=re.escape(f"'{key}' names no token range")):
        range_of_key(key)


def test_a_key_without_its_zero_is_refused_with_the_right_one():
    with pytest.raises(ValueError, match="did you mean '07-of-64'"):
        range_of_key("7-of-64")


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_a_number_of_slices_out_of_bounds_is_refused(count):
    with pytest.raises(ValueError, match=f"between 1 and 1024, not {count}"):
        split_ring(count)


@given(st.integers(1, 40), st.data())
def test_a_description_names_exactly_the_slices(count, data):
    ranges = split_ring(count)
    chosen = data.draw(st.lists(st.sampled_from(ranges), unique=True))
    described: set[TokenRange] = set()
    for part in filter(None, describe_ranges(chosen, limit=count).split(", ")):
        first, _, last = part.partition("...")
        low, high = range_of_key(first), range_of_key(last or first)
        described |= {r for r in ranges if low <= r <= high}
    assert described == set(chosen)


def test_a_description_joins_neighbours_and_is_bounded():
    ranges = split_ring(64)
    assert describe_ranges([ranges[3], ranges[1], ranges[2], ranges[9]]) == (
        "01-of-64...03-of-64, 09-of-64"
    )
    assert describe_ranges(list(ranges)) == "00-of-64...63-of-64"
    assert describe_ranges(list(ranges[::2]), limit=2) == "00-of-64, 02-of-64 and 30 more"
    assert describe_ranges([]) == ""


def test_tokens_of_keys_are_those_of_the_server(connection, keyspace, reader):
    single = create_table(connection, keyspace, "single", "k blob PRIMARY KEY")
    composite = create_table(
        connection, keyspace, "composite", "a text, b blob, c bigint, PRIMARY KEY ((a, b, c))"
    )
    rng = random.Random(1)
    # 300 bytes reach the second length byte of a composite; 16 is the hash's block.
    lengths = [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 300]
    blobs = [rng.randbytes(length) for length in lengths]
    texts = ["", "a", "naïve", "पाठ", "x" * 300]
    insert_rows(connection, single, [{"k": blob} for blob in blobs])
    insert_rows(
        connection,
        composite,
        [
            {"a": text, "b": blob, "c": rng.getrandbits(63)}
            for text, blob in zip(texts * 3, [b"", *blobs], strict=False)
        ],
    )
    found = list(reader.execute(f"SELECT k, token(k) AS t FROM {single}"))
    assert len(found) == len(blobs)
    for row in found:
        assert token_of_key(serialize_key([row["k"]])) == row["t"]
    found = list(reader.execute(f"SELECT a, b, c, token(a, b, c) AS t FROM {composite}"))
    assert len(found) == len(blobs) + 1
    for row in found:
        cells = [row["a"].encode(), row["b"], row["c"].to_bytes(8, "big", signed=True)]
        assert token_of_key(serialize_key(cells)) == row["t"]


def test_a_sample_of_each_range_is_the_one_of_the_cassandra_data_migrator():
    windows = [Filter(coverage_percent=10).window(each) for each in split_ring(64)]
    assert [window.bounds for window in windows[:2] if window] == [
        (-9223372036854775808, -9194548999239604634),
        (-8935141660703064064, -8906318623087892890),
    ]
