"""A row's key as a person reads it, and what stands for a key that cannot be formed."""

from collections.abc import Collection, Sequence

from migration_platform.cql.names import quote
from migration_platform.cql.samples import cut_sample, show_literal
from migration_platform.cql.types import parse_type

NO_KEY = b"\x00migration_platform: no key:"
"""Begins what stands for a key column of a row whose key cannot be formed."""
MASKED = "(masked)"
"""Stands for a value that its server masks for others, wherever it may not be written."""


def show_key(cells: Sequence[tuple[str, str, bytes | None]]) -> str:
    """Give a key as `userid='u1', courseid='c1'`, from names, types and values.

    Each value is CQL, for a statement that finds the row; one that is long is cut.
    """
    parts = []
    for name, cql_type, cell in cells:
        if cell is not None and cell.startswith(NO_KEY):
            return cell[len(NO_KEY) :].decode(errors="replace")
        text = "null" if cell is None else cut_sample(show_literal(cell, parse_type(cql_type)))
        parts.append(f"{quote(name)}={text}")
    return ", ".join(parts)


def key_condition(
    cells: Sequence[tuple[str, str, bytes | None]], masked: Collection[str] = ()
) -> str:
    """Give a key as `userid='u1' AND courseid='c1'`, whole: what finds the row behind WHERE.

    Of a `masked` column no value is given. Nor is what stands for a key that cannot be formed, if
    there is such a column: it may tell the value.
    """
    parts = []
    for name, cql_type, cell in cells:
        if cell is not None and cell.startswith(NO_KEY):
            return MASKED if masked else cell[len(NO_KEY) :].decode(errors="replace")
        if name in masked:
            text = MASKED
        else:
            text = "null" if cell is None else show_literal(cell, parse_type(cql_type))
        parts.append(f"{quote(name)}={text}")
    return " AND ".join(parts)
