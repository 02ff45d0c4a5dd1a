"""Writetimes and TTLs of a row's cells: read from a page, and settled for the target.

A SELECT that keeps times names, after its values, the writetime and the TTL of every cell that
has one. Most rows were written at once: one regular expression finds that they share one
writetime, and they stay bytes. Only other rows are taken apart. TTLs count down, so what is kept
is the second at which a cell expires.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Literal

from migration_platform.cql.names import quote
from migration_platform.cql.rows import INT32, NULL, ReadTimes
from migration_platform.errors import PermanentError

_LONG = Struct(">q")
_WRITETIME_CELL = Struct(">iq")
_TTL_CELL = Struct(">ii")
MAX_WRITETIME = 2**63 - 1
NO_TTL = _TTL_CELL.pack(4, 0)
"""A bound TTL of 0 is none, also where the table has a default_time_to_live."""

CellTime = tuple[int | None, int | None]
"""Microseconds since 1970 and a second since 1970 (or, as read, the seconds left); None where it
was not asked for, or where the cell lives for ever."""


@dataclass(frozen=True)
class RowMaxCells:
    """Which columns of a layout decide a row's one time, by position: multi behind simple ones.

    With `expiring_only` a TTL counts for more than none, as in the Cassandra Data Migrator.
    """

    writetimes: tuple[int, ...]
    ttls: tuple[int, ...]
    expiring_only: bool = False


@dataclass(frozen=True)
class TimesLayout:
    """The columns whose times a SELECT asks for, in its order.

    `simple` columns have one time; `multi` columns one for each element or field. Writetimes are
    always asked for, because they tell a cell that is there from one that is null. Without
    `row_max` every cell counts for the row's one time.
    """

    simple: tuple[str, ...]
    multi: tuple[str, ...]
    ttls: bool
    row_max: RowMaxCells | None = None

    def selections(self) -> list[str]:
        """Give what the SELECT names after its values."""
        named = [f"writetime({quote(name)})" for name in self.simple]
        named += [f"ttl({quote(name)})" for name in self.simple if self.ttls]
        for name in self.multi:
            named += [f"writetime({quote(name)})"] + [f"ttl({quote(name)})"] * self.ttls
        return named


@dataclass(frozen=True, slots=True)
class RowTimes:
    """Times of a row whose cells do not share one; None stands for a null cell."""

    simple: Sequence[CellTime | None]
    multi: list[list[CellTime | None] | None]
    row_max: RowMaxCells | None = None

    def newest(self) -> int | None:
        """Give the newest writetime of the cells that count; None if none is told."""
        times = self._that_count(self.row_max.writetimes if self.row_max else ())
        return max((writetime for writetime, _ in times if writetime is not None), default=None)

    def longest_ttl(self) -> int | None:
        """Give the most seconds that are left to the cells that count; None for ever."""
        found = [ttl for _, ttl in self._that_count(self.row_max.ttls if self.row_max else ())]
        if self.row_max and self.row_max.expiring_only:
            found = [ttl for ttl in found if ttl is not None]
        return longest(found)

    def _that_count(self, positions: tuple[int, ...]) -> list[CellTime]:
        """Give the times at some columns; those of all where these are null."""
        there: list[CellTime] = []
        for position in positions:
            if position < len(self.simple):
                time = self.simple[position]
                there += [] if time is None else [time]
            else:
                times = self.multi[position - len(self.simple)] or ()
                there += [time for time in times if time is not None]
        return there or list(self.all_times())

    def all_times(self) -> Iterator[CellTime]:
        """Give the times of all cells that are there."""
        for time in self.simple:
            if time is not None:
                yield time
        for times in self.multi:
            for time in times or ():
                if time is not None:
                    yield time


Times = bytes | tuple[bytes, int] | RowTimes | None
"""What a row's time cells say. Bytes: every cell has the writetime of this cell (length and
value), and no TTL. A pair: the same with one TTL. None: the row has no cell with a time."""


def compile_times_reader(layout: TimesLayout) -> ReadTimes | None:
    """Build the function that reads the times behind a row's values; None if there are none."""
    simple, multi, has_ttls = len(layout.simple), len(layout.multi), layout.ttls
    if not (simple or multi):
        return None
    # The lookahead finds the first writetime there is; each cell then is that one, or null.
    null, first = rb"\xff\xff\xff\xff", rb"(?=(?:\xff\xff\xff\xff)*(\x00\x00\x00\x08.{8}))"
    same = rb"%b(?:\1|%b){%d}" % (first, null, simple)
    no_ttls = rb"(?:%b){%d}" % (null, simple if has_ttls else 0)
    match_plain = re.compile(same + no_ttls, re.DOTALL).match
    one_ttl = rb"()(?=(?:%b)*(\x00\x00\x00\x04.{4}))(?:\3|%b){%d}" % (null, null, simple)
    match_one_ttl = re.compile(same + one_ttl, re.DOTALL).match
    all_null = NULL * simple
    null_multi = NULL * (multi * (1 + has_ttls))

    def read_times(data: bytes, at: int) -> tuple[int, Times]:
        if simple:
            found = match_plain(data, at)
            if found:
                writetime, end = found[1], found.end()
                # A row of nulls matches too, when what is behind it looks like a writetime.
                if not data.startswith(all_null, at):
                    if not multi:
                        return end, writetime
                    if data.startswith(null_multi, end):
                        return end + len(null_multi), writetime
                    end = _skip_same(data, end, writetime, multi, has_ttls)
                    if end:
                        return end, writetime
            elif has_ttls:
                found = match_one_ttl(data, at)
                if found and not data.startswith(all_null, at):
                    end, writetimes_end = found.end(), found.start(2)
                    # As many TTLs as writetimes: nothing lives for ever among what expires.
                    written = (writetimes_end - at - 4 * simple) // 8
                    expiring = (end - writetimes_end - 4 * simple) // 4
                    if expiring == written and data.startswith(null_multi, end):
                        (ttl,) = INT32.unpack_from(found[3], 4)
                        return end + len(null_multi), (found[1], ttl)
        return _read_apart(data, at, layout)

    return read_times


def _skip_same(data: bytes, at: int, writetime: bytes, multi: int, has_ttls: bool) -> int:
    """Give where the elements' times end if all are this writetime without TTL, else 0."""
    unpack = INT32.unpack_from
    for _ in range(multi):
        (size,) = unpack(data, at)
        at += 4
        count = 0
        if size > 0:
            (count,) = unpack(data, at)
            if data[at + 4 : at + size] != writetime * count:
                return 0
            at += size
        if has_ttls:
            (size,) = unpack(data, at)
            at += 4
            if size > 0:
                if data[at + 4 : at + size] != NULL * count:
                    return 0
                at += size
    return at


def _read_apart(data: bytes, at: int, layout: TimesLayout) -> tuple[int, Times]:
    """Read the times cell by cell."""
    unpack = INT32.unpack_from
    count = len(layout.simple)
    writetimes, at = _read_numbers(data, at, count, _LONG)
    ttls: list[int | None] = [None] * count
    if layout.ttls:
        ttls, at = _read_numbers(data, at, count, INT32)
    simple = [
        None if writetime is None else (writetime, ttl)
        for writetime, ttl in zip(writetimes, ttls, strict=True)
    ]
    multi: list[list[CellTime | None] | None] = []
    for _ in layout.multi:
        columns = []
        for form in (_LONG, INT32)[: 1 + layout.ttls]:
            (size,) = unpack(data, at)
            at += 4
            if size > 0:
                (elements,) = unpack(data, at)
                columns.append(_read_numbers(data, at + 4, elements, form)[0])
                at += size
        if not columns:
            multi.append(None)
            continue
        left = columns[1] if len(columns) > 1 else [None] * len(columns[0])
        pairs = zip(columns[0], left, strict=True)
        multi.append([None if w is None else (w, ttl) for w, ttl in pairs])
    times = RowTimes(simple, multi, layout.row_max)
    return at, times if any(True for _ in times.all_times()) else None


def _read_numbers(data: bytes, at: int, count: int, form: Struct) -> tuple[list[int | None], int]:
    found: list[int | None] = []
    for _ in range(count):
        (size,) = INT32.unpack_from(data, at)
        at += 4
        if size > 0:
            found.append(form.unpack_from(data, at)[0])
            at += size
        else:
            found.append(None)
    return found, at


def read_writetimes(cell: bytes | None) -> list[int]:
    """Give the writetimes of a collection's elements, from what writetime() gave."""
    if not cell:
        return []
    found, _ = _read_numbers(cell, 4, INT32.unpack_from(cell, 0)[0], _LONG)
    return [writetime for writetime in found if writetime is not None]


# -- what the target is to have ------------------------------------------------------------------


@dataclass(frozen=True)
class TimeRules:
    """How times of the origin become those of the target, as a migration declares it."""

    writetime: str | int
    ttl: str | int
    increment_by: int = 0

    @property
    def keeps_times(self) -> bool:
        """Whether a write has to say a writetime or a TTL at all."""
        return self.writetime != "now" or self.ttl != "none"

    @property
    def passes_bytes(self) -> bool:
        """Whether a writetime read is, as it is, the one to be written."""
        return self.writetime in ("cell", "row_max") and not self.increment_by

    def settle(self, writetime: int | None, expires: int | None) -> CellTime:
        """Give a cell's writetime and expiry at the target; None for a writetime of now."""
        if isinstance(self.writetime, int):
            writetime = self.writetime + self.increment_by
        elif self.writetime == "now":
            writetime = None
        elif writetime is not None:
            writetime += self.increment_by
        return writetime, expires if self.ttl in ("cell", "row_max") else None


TimeOf = tuple[Literal["simple", "multi", "entry", "row"], int]
"""Where a target column's time comes from: a simple column, the elements of one, the element of
a map that became this row, or the row as a whole (constants, columns that were key)."""


PerElement = bool | tuple[int, ...]
"""Whether a target column keeps a time for each element; for the fields of a user-defined type,
the position that each has at the origin (-1: none)."""


@dataclass(frozen=True, slots=True)
class SettledTimes:
    """The times that a row is to have at the target.

    `marker` is the row's own: its newest writetime and longest life. `cells` has one entry for
    each value column: its time, or a list with those of its elements.
    """

    marker: CellTime
    cells: list[CellTime | list[CellTime | None]]


def longest(expiries: Iterator[int | None] | Sequence[int | None]) -> int | None:
    """Give the latest expiry; None, for ever, if one of them is or if there are none."""
    found = list(expiries)
    return None if not found or None in found else max(e for e in found if e is not None)


def read_row_time(times: Times, asked_us: int) -> CellTime:
    """Give a row's newest writetime and latest expiry; the time of reading if it has none.

    A row of nulls has only a marker, whose writetime no query tells. The time of reading lets it
    arrive, and lets a later deletion at the target win.
    """
    if times is None:
        return asked_us, None
    if isinstance(times, bytes):
        return _LONG.unpack_from(times, 4)[0], None
    if isinstance(times, tuple):
        return _LONG.unpack_from(times[0], 4)[0], asked_us // 1_000_000 + times[1]
    newest, ttl = times.newest(), times.longest_ttl()
    expires = None if ttl is None else asked_us // 1_000_000 + ttl
    return asked_us if newest is None else newest, expires


def settle_times(
    times: Times,
    rules: TimeRules,
    time_of: Sequence[TimeOf],
    per_element: Sequence["PerElement"],
    asked_us: int,
    entry: int = 0,
) -> SettledTimes:
    """Say which time each value column of the target gets.

    `entry` is the position of the map entry that became this row.
    """
    newest, latest = read_row_time(times, asked_us)
    marker = rules.settle(newest, latest)
    if not isinstance(times, RowTimes):
        return SettledTimes(marker, [marker] * len(time_of))
    second = asked_us // 1_000_000
    one_writetime, one_ttl = rules.writetime == "row_max", rules.ttl == "row_max"

    def settled(time: CellTime | None) -> CellTime:
        if time is None:
            return marker
        writetime, ttl = time
        return rules.settle(
            newest if one_writetime else writetime,
            latest if one_ttl else None if ttl is None else second + ttl,
        )

    cells: list[CellTime | list[CellTime | None]] = []
    for (kind, position), elements in zip(time_of, per_element, strict=True):
        if kind == "simple":
            cells.append(settled(times.simple[position]))
        elif kind == "row":
            cells.append(marker)
        else:
            found = times.multi[position]
            if found is None:
                cells.append(marker)
            elif kind == "entry":
                cells.append(settled(found[entry]))
            elif isinstance(elements, tuple):
                times_there = [found[i] if 0 <= i < len(found) else None for i in elements]
                cells.append([None if time is None else settled(time) for time in times_there])
            elif elements:
                cells.append([None if time is None else settled(time) for time in found])
            else:
                there = [time for time in found if time is not None]
                newest_element = max((w for w, _ in there if w is not None), default=newest)
                cells.append(settled((newest_element, longest([ttl for _, ttl in there]))))
    return SettledTimes(marker, cells)


def bind_ttl(seconds: int) -> bytes:
    """Write a TTL as a bound value."""
    return _TTL_CELL.pack(4, seconds)


def bind_time(
    writetime: int | None, expires: int | None, now: float, ttl: bytes = NO_TTL
) -> bytes | None:
    """Bind a time: the writetime unless it is now, and the seconds left.

    `ttl` is bound where nothing expires at a given second. None: the cell has expired.

    Raises:
        PermanentError: the writetime is beyond what 64 bits hold.
    """
    if expires is not None:
        left = expires - int(now)
        if left <= 0:
            return None
        ttl = _TTL_CELL.pack(4, left)
    if writetime is None:
        return ttl
    if writetime > MAX_WRITETIME:
        raise PermanentError(
            f"a cell would get the writetime {writetime}, but {MAX_WRITETIME} is the last there "
            "is; lower writetime_increment_by, or skip the column"
        )
    return _WRITETIME_CELL.pack(8, writetime) + ttl
