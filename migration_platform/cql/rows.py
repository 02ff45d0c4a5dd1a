"""Rows as the bytes that the native protocol carries: found, never decoded.

A result page holds a row's cells one after the other, each an int32 length and so many bytes; an
EXECUTE or BATCH carries bound values in exactly the same form. So a row that passes through
untouched is one slice of the page. The one difference is null: a result says it as length -1,
and a request that must not write a tombstone says "unset" as length -2.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from struct import Struct, error
from typing import Any, NamedTuple

INT32 = Struct(">i")
NULL = b"\xff\xff\xff\xff"
UNSET = b"\xff\xff\xff\xfe"


@dataclass(frozen=True)
class Page:
    """One page of a result: `row_count` rows, as the server sent them.

    `next_state` asks for the page after this one; None after the last. `asked_us` is when the
    page was asked for, in microseconds since 1970: TTLs in it run from there.
    """

    data: bytes
    row_count: int
    next_state: bytes | None
    asked_us: int = 0


class Split(NamedTuple):
    """Where things are in a page; one entry for each row, except `nulls` and `large`.

    `starts` has one entry more, where the page ends; `key_ends` and `value_ends` are where the
    leading cells and the last cell end; `nulls` are the positions of the last length byte of
    every null. `times` are what the reader of times gave. `large` are `(row, cell, size)`.
    """

    starts: list[int]
    key_ends: list[int]
    value_ends: list[int]
    nulls: list[int]
    times: list[Any]
    large: list[tuple[int, int, int]]


ReadTimes = Callable[[bytes, int], tuple[int, Any]]
"""Reads what follows a row's values, from a position: gives where it ends, and what it says."""


def compile_splitter(
    columns: int,
    leading: int,
    *,
    read_times: ReadTimes | None = None,
    max_cell_bytes: int | None = None,
) -> Callable[[bytes, int], Split]:
    """Build the function that finds the rows of a page of `columns` cells a row.

    `leading` is how many cells at the front of a row form its key. The function is written out
    cell by cell, because a loop over the cells would cost as much as the work in it.

    Raises (the built function):
        ValueError: the page's bytes do not hold the number of rows that it claims.
    """
    body = []
    for cell in range(columns):
        if cell == leading:
            body.append("add_key_end(at)")
        body += ["size, = unpack(data, at)", "at += 4", "if size > 0:", "    at += size"]
        if max_cell_bytes is not None:
            body.append(f"    if size > {max_cell_bytes:d}: add_large((row, {cell}, size))")
        body += ["elif size == -1: add_null(at - 1)", "elif size: break"]
    if leading == columns:
        body.append("add_key_end(at)")
    if read_times:
        body += ["add_value_end(at)", "at, time = read_times(data, at)", "add_time(time)"]
    lines = [
        "def split(data, row_count):",
        "    starts, key_ends, value_ends, nulls, times, large = [0], [], [], [], [], []",
        "    add_start, add_key_end, add_null = starts.append, key_ends.append, nulls.append",
        "    add_value_end, add_time, add_large = value_ends.append, times.append, large.append",
        "    at = 0",
        "    try:",
        "        for row in range(row_count):",
        *(f"            {line}" for line in body),
        "            add_start(at)",
        "        else:",
        "            if at == len(data):",
        "                value_ends = value_ends or starts[1:]",
        "                return Split(starts, key_ends, value_ends, nulls, times, large)",
        "    except error:",
        "        pass",
        "    raise ValueError(f'{len(data)} bytes are not {row_count} rows: they end at {at}')",
    ]
    scope: dict = {
        "unpack": INT32.unpack_from,
        "error": error,
        "read_times": read_times,
        "Split": Split,
    }
    # The text is made of numbers only, never of a name or a value that came from outside.
    exec("\n".join(lines), scope)  # noqa: S102
    return scope["split"]


def compile_conversion(
    steps: Mapping[int, Callable[[bytes], bytes]],
) -> Callable[[bytes], bytes]:
    """Build what converts some of a row's cells, and passes on what lies between them as it is.

    It is written out cell by cell: a loop over the cells, and cutting each of them out, would cost
    as much again as the conversions.
    """
    body = []
    for cell in range(max(steps) + 1):
        body.append("size, = unpack(data, at)")
        if cell in steps:
            body += [
                "at += 4",
                "if size >= 0:",
                f"    value = step_{cell}(data[at:at + size])",
                "    parts += (data[start:at - 4], pack(len(value)), value)",
                "    start = at = at + size",
            ]
        else:
            body.append("at += 4 + size if size > 0 else 4")
    lines = [
        "def convert(data):",
        "    at = start = 0",
        "    parts = []",
        *(f"    {line}" for line in body),
        "    parts.append(data[start:])",
        "    return join(parts)",
    ]
    scope: dict = {"unpack": INT32.unpack_from, "pack": INT32.pack, "join": b"".join}
    scope |= {f"step_{cell}": step for cell, step in steps.items()}
    # The text is made of numbers only, never of a name or a value that came from outside.
    exec("\n".join(lines), scope)  # noqa: S102
    return scope["convert"]


def unset_nulls(data: bytes, nulls: list[int]) -> bytes:
    """Turn every null (length -1) into unset (length -2), which differs in one byte."""
    if not nulls:
        return data
    changed = bytearray(data)
    for position in nulls:
        changed[position] = 0xFE
    return bytes(changed)


def split_cells(data: bytes, count: int) -> list[bytes | None]:
    """Cut the first `count` cells out of a row; null and unset come as None."""
    cells: list[bytes | None] = []
    at = 0
    for _ in range(count):
        (size,) = INT32.unpack_from(data, at)
        at += 4
        if size < 0:
            cells.append(None)
        else:
            cells.append(data[at : at + size])
            at += size
    return cells


def count_cells(data: bytes) -> int:
    """Count the cells that fill some bytes."""
    count = at = 0
    while at < len(data):
        (size,) = INT32.unpack_from(data, at)
        at += 4 + max(size, 0)
        count += 1
    return count


def join_cells(cells: Iterable[bytes | None], null: bytes) -> bytes:
    """Write cells as a row; None becomes `null`, which is `NULL` or `UNSET`."""
    pack = INT32.pack
    return b"".join(null if cell is None else pack(len(cell)) + cell for cell in cells)
