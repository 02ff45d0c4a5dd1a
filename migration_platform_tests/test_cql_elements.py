"""Lists and maps as the native protocol writes them, of one size throughout or not."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.cql.elements import (
    read_elements,
    read_entries,
    read_pairs,
    write_elements,
    write_entries,
    write_pairs,
)

CELL = st.binary(max_size=6) | st.none()
LISTS = st.integers(0, 3).flatmap(
    lambda size: st.lists(st.binary(min_size=size, max_size=size), max_size=40)
) | st.lists(CELL, max_size=40)


def written(cells: list[bytes | None], count: int) -> bytes:
    """Write cells one by one."""
    shown = [pack(">i", -1) if cell is None else pack(">i", len(cell)) + cell for cell in cells]
    return pack(">i", count) + b"".join(shown)


@given(LISTS)
def test_a_list_is_written_cell_by_cell_and_read_as_it_was(elements):
    cell = write_elements(elements)

    assert cell == written(elements, len(elements))
    assert read_elements(cell) == elements


@given(LISTS, LISTS)
def test_a_map_is_written_entry_by_entry_and_read_as_it_was(keys, values):
    entries = [(key or b"", value) for key, value in zip(keys, values, strict=False)]
    apart = [key for key, _ in entries], [value for _, value in entries]

    cell = write_entries(entries)

    assert cell == written([each for entry in entries for each in entry], len(entries))
    assert cell == write_pairs(*apart)
    assert read_entries(cell) == entries
    assert tuple(map(list, read_pairs(cell))) == apart


SIX_BYTES_A_CELL = pack(">i", 2) + pack(">i", 2) + b"ab"


@pytest.mark.parametrize(
    ("cell", "elements"),
    [
        (SIX_BYTES_A_CELL + pack(">i", 2) + b"cd", [b"ab", b"cd"]),
        (SIX_BYTES_A_CELL + pack(">i", 3) + b"cd", None),
        (SIX_BYTES_A_CELL + pack(">i", 1) + b"cd", None),
        (SIX_BYTES_A_CELL + pack(">i", -1) + b"cd", None),
        (SIX_BYTES_A_CELL + pack(">i", 2) + b"cde", None),
        (pack(">iii", 2, -1, -1), [None, None]),
        (pack(">iii", 2, 0, 0), [b"", b""]),
    ],
)
def test_bytes_as_many_as_alike_elements_need_are_a_list_only_if_all_sizes_say_so(cell, elements):
    if elements is not None:
        assert read_elements(cell) == elements
        return
    with pytest.raises(ValueError, match="bytes are no list or set"):
        read_elements(cell)
