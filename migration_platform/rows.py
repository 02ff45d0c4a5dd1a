"""Rows as the bytes that the native protocol carries: found, never decoded.

A result page holds a row's cells one after the other, each an int32 length and so many bytes; an
EXECUTE or BATCH carries bound values in exactly the same form. So a row that passes through
untouched is one slice of the page. The one difference is null: a result says it as length -1,
and a request that must not write a tombstone says "unset" as length -2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct, error

INT32 = Struct(">i")


@dataclass(frozen=True)
class Page:
    """One page of a result: `row_count` rows, as the server sent them.

    `next_state` asks for the page after this one; None after the last.
    """

    data: bytes
    row_count: int
    next_state: bytes | None


Split = tuple[list[int], list[int], list[int]]
"""Where each row starts (and one past the last row), where its leading cells end, and the
position of the last length byte of every null."""


def compile_splitter(columns: int, leading: int) -> Callable[[bytes, int], Split]:
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
        body += [
            "size, = unpack(data, at)",
            "at += 4",
            "if size > 0: at += size",
            "elif size == -1: add_null(at - 1)",
            "elif size: break",
        ]
    if leading == columns:
        body.append("add_key_end(at)")
    lines = [
        "def split(data, row_count):",
        "    starts, key_ends, nulls = [0], [], []",
        "    add_start, add_key_end, add_null = starts.append, key_ends.append, nulls.append",
        "    at = 0",
        "    try:",
        "        for _ in range(row_count):",
        *(f"            {line}" for line in body),
        "            add_start(at)",
        "        else:",
        "            if at == len(data):",
        "                return starts, key_ends, nulls",
        "    except error:",
        "        pass",
        "    raise ValueError(f'{len(data)} bytes are not {row_count} rows: they end at {at}')",
    ]
    scope: dict = {"unpack": INT32.unpack_from, "error": error}
    # The text is made of two numbers only, never of a name or a value that came from outside.
    exec("\n".join(lines), scope)  # noqa: S102
    return scope["split"]


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
