"""Rows are found in a page's bytes as they are, and only nulls change."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.cql.rows import (
    INT32,
    compile_splitter,
    count_cells,
    join_cells,
    split_cells,
    unset_nulls,
)

cells = st.one_of(
    st.none(),
    st.just(b""),
    st.binary(max_size=20),
    # What looks like a length must not be taken for one.
    st.just(INT32.pack(-1)),
    st.just(INT32.pack(-1) * 3),
)


def encode(row):
    return b"".join(INT32.pack(-1) if c is None else INT32.pack(len(c)) + c for c in row)


@st.composite
def pages(draw):
    columns = draw(st.integers(1, 8))
    leading = draw(st.integers(0, columns))
    row = st.lists(cells, min_size=columns, max_size=columns)
    return columns, leading, draw(st.lists(row, max_size=12))


@given(pages())
def test_a_page_is_cut_into_the_rows_and_keys_that_it_was_made_of(page):
    columns, leading, rows = page
    data = b"".join(map(encode, rows))
    found = compile_splitter(columns, leading)(data, len(rows))
    starts, key_ends, nulls = found.starts, found.key_ends, found.nulls
    assert found.value_ends == starts[1:]
    assert (found.times, found.large) == ([], [])
    assert [data[a:b] for a, b in pairwise(starts)] == [encode(row) for row in rows]
    assert [data[a:b] for a, b in zip(starts, key_ends, strict=False)] == [
        encode(row[:leading]) for row in rows
    ]
    assert len(nulls) == sum(cell is None for row in rows for cell in row)
    assert [split_cells(data[a:b], columns) for a, b in pairwise(starts)] == rows


@given(pages())
def test_unset_changes_exactly_the_nulls(page):
    columns, leading, rows = page
    data = b"".join(map(encode, rows))
    found = compile_splitter(columns, leading)(data, len(rows))
    starts, nulls = found.starts, found.nulls
    changed = unset_nulls(data, nulls)
    expected = [
        INT32.pack(-2) if cell is None else INT32.pack(len(cell)) + cell
        for row in rows
        for cell in row
    ]
    assert changed == b"".join(expected)
    # A row that was made unset still reads as null, and stays where it was.
    assert [split_cells(changed[a:b], columns) for a, b in pairwise(starts)] == rows


@given(pages(), st.data())
def test_a_page_that_was_cut_off_is_refused(page, data):
    columns, leading, rows = page
    whole = b"".join(map(encode, rows))
    if not whole:
        return
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match=f"are not {len(rows)} rows"):
        compile_splitter(columns, leading)(whole[:length], len(rows))


@given(pages(), st.binary(min_size=1, max_size=30))
def test_a_page_with_more_bytes_than_rows_is_refused(page, more):
    columns, leading, rows = page
    with pytest.raises(ValueError, match=f"are not {len(rows)} rows"):
        compile_splitter(columns, leading)(b"".join(map(encode, rows)) + more, len(rows))


@given(pages(), st.integers(-(2**31), 2**31 - 1), st.data())
def test_a_damaged_length_is_refused_or_changes_no_more_than_its_row(page, length, data):
    columns, leading, rows = page
    if not rows:
        return
    whole = bytearray(b"".join(map(encode, rows)))
    starts = compile_splitter(columns, leading)(bytes(whole), len(rows)).starts
    at = data.draw(st.sampled_from(starts[:-1]))
    whole[at : at + 4] = INT32.pack(length)
    try:
        found = compile_splitter(columns, leading)(bytes(whole), len(rows))
    except ValueError:
        return
    assert found.starts[-1] == len(whole)
    assert all(whole[position - 3 : position + 1] == INT32.pack(-1) for position in found.nulls)


@given(pages(), st.integers(0, 9), st.integers(0, 21))
def test_what_stands_behind_the_values_is_read_and_large_cells_are_told(page, width, limit):
    columns, leading, rows = page
    # The nulls of what stands behind are no nulls of the row.
    behind = [bytes([n % 256]) * width + INT32.pack(-1) for n in range(len(rows))]
    data = b"".join(encode(row) + more for row, more in zip(rows, behind, strict=True))

    def read(data, at):
        return at + width + 4, data[at : at + width + 4]

    split = compile_splitter(columns, leading, read_times=read, max_cell_bytes=limit)
    found = split(data, len(rows))
    assert found.times == behind
    assert found.starts[-1] == len(data)
    assert [data[a:b] for a, b in zip(found.starts[:-1], found.value_ends, strict=True)] == [
        encode(row) for row in rows
    ]
    assert [data[a:b] for a, b in zip(found.starts[:-1], found.key_ends, strict=True)] == [
        encode(row[:leading]) for row in rows
    ]
    assert len(found.nulls) == sum(cell is None for row in rows for cell in row)
    assert found.large == [
        (row, cell, len(value))
        for row, cells_of_row in enumerate(rows)
        for cell, value in enumerate(cells_of_row)
        if value is not None and len(value) > limit
    ]


@given(pages())
def test_a_row_can_be_cut_apart_and_joined_again(page):
    columns, _, rows = page
    for row in rows:
        joined = join_cells(row, INT32.pack(-1))
        assert joined == encode(row)
        assert split_cells(joined, columns) == row
        assert count_cells(joined) == columns
