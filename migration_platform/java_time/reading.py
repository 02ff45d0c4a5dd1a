"""Reads the elements of a pattern: functions that find a field's value at a place of a text."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from migration_platform.java_time.calendar import (
    Fields,
    to_millis,
)
from migration_platform.java_time.names import WORDS
from migration_platform.java_time.patterns import (
    Element,
    Fraction,
    GmtOffset,
    Maybe,
    Number,
    Offset,
    Padded,
    Plain,
    Words,
    ZoneId,
    ZoneName,
)
from migration_platform.java_time.zones import all_zones, zone_names

MAX_OFFSET_SECONDS = 18 * 3600
"""The largest distance to UTC that Java takes."""

_DIGITS = {
    ("year_of_era", 4): "year",
    ("year", 4): "year",
    ("month", 2): "month",
    ("day", 2): "day",
    ("hour", 2): "hour",
    ("minute", 2): "minute",
    ("second", 2): "second",
}


def digits_reader(elements: tuple[Element, ...], zone: ZoneInfo) -> Callable[[str], int | None]:
    """Read at twice the speed where there are digits alone, as in yyyyMMddHHmmss.

    It gives None for whatever else it meets, and for all that is wrong.
    """
    parts, names = [], []
    for each in elements:
        if isinstance(each, Plain) and not re.search("[0-9]", each.text):
            parts.append(re.escape(each.text))
        elif isinstance(each, Number) and (each.field, each.least) in _DIGITS and not each.base:
            names.append(_DIGITS[each.field, each.least])
            parts.append(f"([0-9]{{{each.least}}})")
        elif isinstance(each, Fraction) and each.width <= 6:
            names.append("microsecond")
            parts.append(f"([0-9]{{{each.width}}})")
        else:
            return lambda text: None
    if len(set(names)) < len(names):
        return lambda text: None
    scales = [10 ** (6 - each.width) for each in elements if isinstance(each, Fraction)]
    scale = scales[0] if scales else 1
    expression = re.compile("".join(parts))

    def read(text: str) -> int | None:
        found = expression.fullmatch(text)
        if not found:
            return None
        fields = dict(zip(names, map(int, found.groups()), strict=True))
        if scales:
            fields["microsecond"] *= scale
        try:
            local = datetime(**fields)  # type: ignore[arg-type]
        except ValueError:
            return None
        if local.microsecond % 1000 or not 1 < local.year < 9999:
            return None
        return to_millis(local, zone)

    return read


Step = Callable[[str, int, Fields], int]
"""Reads at a place of the text, notes what it found, and gives the place behind it, or -1."""


def _note(fields: Fields, field: str, value: Any, end: int) -> int:
    """Keep a value; a field that stands there twice must have one value."""
    return end if fields.setdefault(field, value) == value else -1


def reader_of(element: Element, zone: ZoneInfo) -> Step:
    """Build what reads an element of a pattern."""
    match element:
        case Plain(text):
            return lambda found, at, fields: at + len(text) if found.startswith(text, at) else -1
        case Number():
            return _number_reader(element)
        case Fraction(_, width):
            return _fraction_reader(width)
        case Words(_, field, style):
            return _words_reader(field, {name: n for n, name in WORDS[field, style].items()})
        case Offset():
            return _offset_reader(element)
        case GmtOffset(_, full):
            return _pattern_reader(_GMT_FULL if full else _GMT_SHORT)
        case ZoneId():
            return _zone_reader({}, zone)
        case ZoneName(_, full):
            return _zone_reader(zone_names(full, zone), zone)
        case Padded(inner, width):
            return _padded_reader(reader_of(inner, zone), width)
        case Maybe(elements):
            return _maybe_reader(tuple(reader_of(each, zone) for each in elements))


def _number_reader(element: Number) -> Step:
    field, least, most, after = element.field, element.least, element.most, element.after
    sign, base = element.sign, element.base
    digits = re.compile(rf"[0-9]{{{least},{most + after}}}")

    def read(text: str, at: int, fields: Fields) -> int:
        shown = text[at : at + 1]
        signed = shown in ("+", "-") and shown != ""
        if signed and (sign == "none" or (shown == "+" and sign == "minus")):
            return -1
        start = at + signed
        found = digits.match(text, start)
        if not found:
            return -1
        width = found.end() - start
        if after:
            width = max(least, width - after)
        value = int(text[start : start + width])
        if shown == "-":
            if value == 0:
                return -1
            value = -value
        elif sign == "exceeds" and (shown == "+") != (width > least and value >= 10**least):
            return -1
        if base is not None:
            value += base - base % 100
            value += 100 if value < base else 0
        return _note(fields, field, value, start + width)

    return read


def _fraction_reader(width: int) -> Step:
    digits = re.compile(rf"[0-9]{{{width}}}")

    def read(text: str, at: int, fields: Fields) -> int:
        found = digits.match(text, at)
        if not found:
            return -1
        return _note(fields, "nano", int(found[0]) * 10 ** (9 - width), found.end())

    return read


def _words_reader(field: str, values: Mapping[str, Any]) -> Step:
    names = re.compile("|".join(re.escape(name) for name in sorted(values, key=len, reverse=True)))

    def read(text: str, at: int, fields: Fields) -> int:
        found = names.match(text, at)
        return _note(fields, field, values[found[0]], found.end()) if found else -1

    return read


def _offset_reader(element: Offset) -> Step:
    colon = ":" if element.colon else ""
    minutes = rf"{colon}([0-5][0-9])"
    if element.minutes == "optional":
        minutes = rf"(?:{minutes})?"
    seconds = rf"(?:{colon}([0-5][0-9]))?" if element.seconds == "optional" else "()"
    read_signed = _pattern_reader(re.compile(rf"([+-])([0-9]{{2}}){minutes}{seconds}"))

    def read(text: str, at: int, fields: Fields) -> int:
        if text.startswith(element.zero, at):
            return _note(fields, "offset", 0, at + len(element.zero))
        return read_signed(text, at, fields)

    return read


_GMT_SHORT = re.compile(r"GMT(?:([+-])([0-9]{1,2})(?::([0-5][0-9])(?::([0-5][0-9]))?)?)?")
_GMT_FULL = re.compile(r"GMT(?:([+-])([0-9]{2}):([0-5][0-9])(?::([0-5][0-9]))?)?")
_OFFSET_ID = re.compile(
    r"(?:UTC|GMT|UT)?([+-])([0-9]{2}):([0-5][0-9])(?::([0-5][0-9]))?|(?:UTC|GMT|UT|Z)(?![\w/+-])"
)
# Bounded, as each of its beginnings is looked up: a text of any length costs the same.
_ZONE_ID = re.compile(r"[A-Za-z][A-Za-z0-9~/._+-]{0,62}")


def _pattern_reader(pattern: re.Pattern[str]) -> Step:
    def read(text: str, at: int, fields: Fields) -> int:
        found = pattern.match(text, at)
        if not found:
            return -1
        sign, hours, minutes, seconds = found.groups()[:4]
        distance = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
        if distance > MAX_OFFSET_SECONDS:
            return -1
        return _note(fields, "offset", -distance if sign == "-" else distance, found.end())

    return read


def _zone_reader(names: Mapping[str, int], zone: ZoneInfo) -> Step:
    read_offset = _pattern_reader(_OFFSET_ID)
    read_name = _words_reader("offset", names) if names else None

    def read(text: str, at: int, fields: Fields) -> int:
        end = read_offset(text, at, fields)
        if end >= 0:
            return end
        found = _ZONE_ID.match(text, at)
        name = found[0] if found else ""
        # The longest name wins, as other text may follow without a gap.
        while name and name not in all_zones():
            name = name[:-1]
        if read_name and (end := read_name(text, at, fields)) >= at + len(name) and end > 0:
            return end
        return _note(fields, "zone", name, at + len(name)) if name else -1

    return read


def _padded_reader(read_inner: Step, width: int) -> Step:
    def read(text: str, at: int, fields: Fields) -> int:
        end = at + width
        if end > len(text):
            return -1
        start = at
        while start < end and text[start] == " ":
            start += 1
        return end if read_inner(text[:end], start, fields) == end else -1

    return read


def _maybe_reader(steps: tuple[Step, ...]) -> Step:
    def read(text: str, at: int, fields: Fields) -> int:
        found = dict(fields)
        end = at
        for step in steps:
            end = step(text, end, found)
            if end < 0:
                return at
        fields.update(found)
        return end

    return read
