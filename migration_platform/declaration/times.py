"""Which times the target's cells get, as declared, and what is refused of it."""

from dataclasses import dataclass

from migration_platform.declaration.validation import (
    is_whole,
    show,
    validate_choice,
    validate_flag,
    validate_names,
    validate_number,
)

WRITETIME_MODES = ("cell", "row_max", "now")
TTL_MODES = ("cell", "row_max", "none")
UNCOUNTED_MODES = ("others", "now")
MAX_TTL_SECONDS = 20 * 365 * 24 * 3600
"""Cassandra's own limit, twenty years."""
MAX_WRITETIME_US = 253_402_300_799_999_999
"""The end of the year 9999; nanoseconds given for microseconds are beyond it."""


@dataclass(frozen=True)
class RowMax:
    """Which cells of a row count for its one writetime and its one TTL; by default all.

    Names are the origin's columns; unless some are named, unfrozen collections and user-defined
    types count only with `collections`. Where no cell that counts has a value, all others do.
    With `expiring_cells_only` the longest TTL counts also where other cells live for ever.
    `if_none_counts` is for tables of which no column counts: all `others` do, or rows are written
    `now` and live for ever.
    """

    writetime_columns: tuple[str, ...] = ()
    ttl_columns: tuple[str, ...] = ()
    collections: bool = True
    expiring_cells_only: bool = False
    if_none_counts: str = "others"


def validate_times(
    writetime: object, ttl: object, added: object, compare_writetime: object
) -> list[str]:
    """Refuse times that no cell can have, and what contradicts them.

    `added` are the microseconds that are added to each writetime.
    """
    wrong = []
    valid = f"valid are {', '.join(WRITETIME_MODES)}, or microseconds since 1970"
    if is_whole(writetime):
        if not 1 <= writetime <= MAX_WRITETIME_US:
            wrong.append(
                f"writetime is {show(writetime)}; {valid}, 1 to {MAX_WRITETIME_US} "
                "(the year 9999: no later write would win over more)"
            )
    elif writetime not in WRITETIME_MODES:
        wrong.append(f"writetime is {show(writetime)}; {valid}")
    valid = f"valid are {', '.join(TTL_MODES)}, or 1 to {MAX_TTL_SECONDS} seconds"
    if not (ttl in TTL_MODES if isinstance(ttl, str) else is_whole(ttl)) or (
        is_whole(ttl) and not 1 <= ttl <= MAX_TTL_SECONDS
    ):
        wrong.append(f"ttl is {show(ttl)}; {valid}")
    faults = validate_number("writetime_increment_by", added, 0, MAX_WRITETIME_US)
    wrong += [f"{fault} microseconds" for fault in faults]
    if not faults and added and writetime == "now":
        wrong.append("writetime_increment_by does nothing with writetime: now; leave one out")
    if compare_writetime is True and writetime == "now":
        wrong.append(
            "diff.compare_writetime needs writetimes that are kept, but writetime is now; "
            "leave one of them out"
        )
    return wrong


def validate_row_max(chosen: RowMax, writetime: object, ttl: object, *, chooses: bool) -> list[str]:
    """Refuse a choice of cells that is none, or that nothing asks for.

    `chooses` says that a row's writetime decides whether it is copied.
    """
    if not isinstance(chosen, RowMax):
        return [f"row_max is {show(chosen)}; it must be RowMax"]
    wrong = [
        *validate_names("row_max.writetime_columns", chosen.writetime_columns),
        *validate_names("row_max.ttl_columns", chosen.ttl_columns),
        *validate_flag("row_max.collections", chosen.collections),
        *validate_flag("row_max.expiring_cells_only", chosen.expiring_cells_only),
        *validate_choice("row_max.if_none_counts", chosen.if_none_counts, UNCOUNTED_MODES),
    ]
    if wrong:
        return wrong
    of_writetimes = writetime == "row_max" or chooses
    of_ttls = ttl == "row_max"
    of_rows = of_ttls or writetime == "row_max"
    useless = [
        name
        for name, given in (
            ("writetime_columns", chosen.writetime_columns and not of_writetimes),
            ("ttl_columns", chosen.ttl_columns and not of_ttls),
            ("collections", not (chosen.collections or of_writetimes or of_ttls)),
            ("expiring_cells_only", chosen.expiring_cells_only and not of_ttls),
            ("if_none_counts", chosen.if_none_counts == "now" and not of_rows),
        )
        if given
    ]
    needed = {"writetime_columns": "writetime", "if_none_counts": "writetime or ttl"}
    return [
        f"row_max.{name} does nothing unless {needed.get(name, 'ttl')} is row_max; set it, or "
        "leave the one out"
        for name in useless
    ]
