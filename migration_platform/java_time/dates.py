"""Text that follows a pattern of Java's DateTimeFormatter, and the milliseconds that it stands for.

`DatePattern` makes a function of a pattern and a zone, once for each direction. What Java would
bend is refused instead: `java_calendar.py` says what that is.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from migration_platform.java_time.calendar import (
    TIME_FIELDS,
    VALUES,
    Fields,
    Moment,
    NotDateError,
    lack_of,
    moment_at,
    resolve,
    to_millis,
)
from migration_platform.java_time.names import WORDS, ZONE_NAMES, is_ambiguous
from migration_platform.java_time.patterns import (
    MOST_CHARACTERS,
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
    flatten,
    parse_pattern,
)

MAX_OFFSET_SECONDS = 18 * 3600
"""The largest distance to UTC that Java takes."""
Reader = Callable[[str], int]
Writer = Callable[[int], str]

# -- the elements of a pattern, as functions -----------------------------------------------------


@dataclass(frozen=True)
class DatePattern:
    """A pattern with the zone of texts that name none.

    Raises:
        ValueError: it is no pattern, has a letter that is not supported, or holds no date.
    """

    pattern: str
    zone: ZoneInfo

    def __post_init__(self) -> None:
        try:
            lack = lack_of(self.fields, may_lack_time=True)
        except ValueError as failure:
            is_long = len(self.pattern) > MOST_CHARACTERS
            shown = f"{self.pattern[:77]}..." if is_long else self.pattern
            raise ValueError(f"timestamp_format {shown!r} {failure}") from failure
        if lack:
            raise ValueError(
                f"timestamp_format {self.pattern!r} has {lack}; a moment needs a year, a month and "
                "a day, and the hour before its minutes, as in yyyy-MM-dd HH:mm"
            )

    @property
    def elements(self) -> tuple[Element, ...]:
        """What the pattern is made of."""
        return parse_pattern(self.pattern)

    @property
    def fields(self) -> frozenset[str]:
        """The names of the fields that a text can have at most."""
        return _fields(flatten(self.elements))

    @property
    def is_exact(self) -> bool:
        """Whether two timestamps, which differ by a millisecond or more, never have one text."""
        clear = [
            each
            for each in flatten(self.elements)
            if not (isinstance(each, Words) and is_ambiguous(each))
            and not (isinstance(each, Fraction) and each.width < 3)
            and not (isinstance(each, Number) and each.base)
        ]
        fields = _fields(clear)
        is_fixed = self.zone.utcoffset(None) is not None or "offset" in fields
        has_millis = bool(fields & {"nano", "milli_of_day", "nano_of_day"})
        return (
            is_fixed
            and has_millis
            and lack_of(fields, may_lack_time=False) is None
            and not _runs_together(self.elements)
        )

    @property
    def reads_one_text(self) -> bool:
        """Whether two different texts are never read as one timestamp.

        A number without leading zeros may have them, and noon may be 0 PM or 12 PM.
        """
        return all(
            isinstance(each, Plain | Words | Fraction)
            or (
                isinstance(each, Number)
                and (each.sign == "exceeds" or (each.least == each.most and each.sign == "none"))
                and each.field not in ("clock_hour", "clock_hour_of_half")
            )
            for each in self.elements
        )

    @property
    def is_ascii(self) -> bool:
        """Whether all that it writes is ASCII."""
        return all(
            each.text.isascii() for each in flatten(self.elements) if isinstance(each, Plain)
        )

    def build_reader(self) -> Reader:
        """Build the way from a text to milliseconds since 1970; it raises NotDateError.

        Raises:
            ValueError: the pattern has letters that can be written and not read.
        """
        elements = self.elements
        for each in flatten(elements):
            if isinstance(each, Words) and is_ambiguous(each):
                raise ValueError(
                    f"timestamp_format {self.pattern!r} has {each.letters}, which cannot be read: "
                    "one letter stands for several names; "
                    f"{each.letters[0] * 3} and {each.letters[0] * 4} can"
                )
        has_time = bool(self.fields & TIME_FIELDS)
        read_digits = _digits_reader(elements, self.zone)
        steps = tuple(_reader_of(element, self.zone) for element in elements)

        def read(text: str) -> int:
            if (millis := read_digits(text)) is not None:
                return millis
            fields: Fields = {}
            at = 0
            for step in steps:
                at = step(text, at, fields)
                if at < 0:
                    raise NotDateError(f"does not follow {self.pattern}")
            if at != len(text):
                raise NotDateError(f"does not follow {self.pattern}")
            return resolve(fields, self.zone, has_time)

        return read

    def build_writer(self) -> Writer:
        """Build the way from milliseconds since 1970 to a text; it raises NotDateError.

        Raises:
            ValueError: the zone has no English name, which the pattern wants.
        """
        elements = self.elements
        for each in flatten(elements):
            if isinstance(each, ZoneName) and not _own_names(each.full, self.zone):
                raise ValueError(
                    f"timestamp_format {self.pattern!r} has {each.letters}, but {self.zone.key} "
                    "has no name in English; VV, XXX and O can be written"
                )
        steps = tuple(_writer_of(element, self.zone) for element in elements)
        has_era = bool(self.fields & {"era", "year", "week_based_year", "julian_day"})
        zone = self.zone

        def write(millis: int) -> str:
            moment = moment_at(millis, zone)
            if not has_era and moment.year < 1:
                raise NotDateError("is before the year 1, which needs G or uuuu in the pattern")
            return "".join([step(moment) for step in steps])

        return write


def _fields(elements: Iterable[Element]) -> frozenset[str]:
    found = set()
    for each in elements:
        if isinstance(each, Offset | GmtOffset | ZoneName):
            found.add("offset")
        elif isinstance(each, ZoneId):
            found.add("zone")
        elif isinstance(each, Number | Fraction | Words):
            found.add(each.field)
    return frozenset(found)


def _runs_together(elements: tuple[Element, ...]) -> bool:
    """Whether a number of any width stands directly before another one, so that 111 is 1 or 11."""
    flat = list(flatten(elements))
    for one, other in itertools.pairwise(flat):
        open_end = isinstance(one, Number) and one.least != one.most and not one.after
        digits = isinstance(other, Plain) and other.text[:1].isdigit()
        if open_end and (digits or isinstance(other, Number | Fraction)):
            return True
    return any(isinstance(each, Padded) for each in elements)


# -- reading -------------------------------------------------------------------------------------

_DIGITS = {
    ("year_of_era", 4): "year",
    ("year", 4): "year",
    ("month", 2): "month",
    ("day", 2): "day",
    ("hour", 2): "hour",
    ("minute", 2): "minute",
    ("second", 2): "second",
}


def _digits_reader(elements: tuple[Element, ...], zone: ZoneInfo) -> Callable[[str], int | None]:
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


def _reader_of(element: Element, zone: ZoneInfo) -> Step:
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
            return _zone_reader(_zone_names(full, zone), zone)
        case Padded(inner, width):
            return _padded_reader(_reader_of(inner, zone), width)
        case Maybe(elements):
            return _maybe_reader(tuple(_reader_of(each, zone) for each in elements))


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
_NO_ZONES = frozenset(["localtime", "Factory"])
"""Names of the machine's own zone and of one that nobody has set; Java knows neither."""


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
        while name and name not in _all_zones():
            name = name[:-1]
        if read_name and (end := read_name(text, at, fields)) >= at + len(name) and end > 0:
            return end
        return _note(fields, "zone", name, at + len(name)) if name else -1

    return read


@cache
def _all_zones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES


def _zone_names(full: bool, zone: ZoneInfo) -> dict[str, int]:
    """Give the names that mean one distance to UTC, in seconds; the zone's own are among them."""
    names = {long if full else short: minutes * 60 for short, (minutes, long) in ZONE_NAMES.items()}
    return names | _own_names(full, zone)


def _own_names(full: bool, zone: ZoneInfo) -> dict[str, int]:
    names = {}
    for month in (1, 7):  # Half a year apart: the names of winter and summer.
        moment = datetime(2024, month, 1, tzinfo=zone)
        name = moment.tzname() or ""
        if full:
            minutes, name = ZONE_NAMES.get(name, (None, ""))
            if minutes is not None and minutes * 60 != _seconds(moment):
                continue
        if re.fullmatch("[A-Za-z][A-Za-z -]+", name):
            names[name] = _seconds(moment)
    return names


def _seconds(moment: datetime) -> int:
    distance = moment.utcoffset()
    return 0 if distance is None else distance // timedelta(seconds=1)


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


# -- writing ---------------------------------------------------------------------------------------


def _writer_of(element: Element, zone: ZoneInfo) -> Callable[[Moment], str]:
    match element:
        case Plain(text):
            return lambda moment: text
        case Number():
            return _number_writer(element)
        case Fraction(_, width):
            return lambda moment: f"{moment.local.microsecond:06}000"[:width]
        case Words(_, field, style):
            names, value_of = WORDS[field, style], VALUES[field]
            return lambda moment: names[value_of(moment)]
        case Offset():
            return _offset_writer(element)
        case GmtOffset(_, full):
            return _gmt_writer(full)
        case ZoneId():
            return lambda moment: moment.local.tzinfo.key  # type: ignore[union-attr]
        case ZoneName(_, full):
            return _zone_name_writer(full, zone)
        case Padded(inner, width):
            return _padded_writer(_writer_of(inner, zone), width)
        case Maybe(elements):
            steps = tuple(_writer_of(each, zone) for each in elements)
            return lambda moment: "".join([step(moment) for step in steps])


def _number_writer(element: Number) -> Callable[[Moment], str]:
    value_of, least, most, sign = (
        VALUES[element.field],
        element.least,
        element.most,
        element.sign,
    )
    if element.base is not None:
        return lambda moment: f"{abs(value_of(moment)) % 100:02}"
    too_wide = 10**least

    def write(moment: Moment) -> str:
        value = value_of(moment)
        if 0 <= value < too_wide:
            return f"{value:0{least}}"
        digits = f"{abs(value):0{least}}"
        if len(digits) > most or (value < 0 and sign == "none"):
            raise NotDateError(f"does not fit {element.letters}")
        if value < 0:
            return f"-{digits}"
        return f"+{digits}" if sign == "exceeds" else digits

    return write


def _parts(moment: Moment) -> tuple[str, int, int, int]:
    distance = _seconds(moment.local)
    whole = abs(distance)
    return "-" if distance < 0 else "+", whole // 3600, whole // 60 % 60, whole % 60


def _offset_writer(element: Offset) -> Callable[[Moment], str]:
    colon = ":" if element.colon else ""

    def write(moment: Moment) -> str:
        sign, hours, minutes, seconds = _parts(moment)
        if not (hours or minutes or seconds):
            return element.zero
        text = f"{sign}{hours:02}"
        if seconds and element.seconds == "never":
            raise NotDateError(f"has an offset with seconds, which {element.letters} cannot hold")
        if element.minutes == "needed" or minutes:
            text += f"{colon}{minutes:02}"
        return f"{text}{colon}{seconds:02}" if seconds else text

    return write


def _gmt_writer(full: bool) -> Callable[[Moment], str]:
    def write(moment: Moment) -> str:
        sign, hours, minutes, seconds = _parts(moment)
        if not (hours or minutes or seconds):
            return "GMT"
        text = f"GMT{sign}{hours:02}" if full else f"GMT{sign}{hours}"
        if full or minutes or seconds:
            text += f":{minutes:02}"
        return f"{text}:{seconds:02}" if seconds else text

    return write


def _zone_name_writer(full: bool, zone: ZoneInfo) -> Callable[[Moment], str]:
    known = _zone_names(full, zone)

    def write(moment: Moment) -> str:
        name = moment.local.tzname() or ""
        if full:
            name = ZONE_NAMES.get(name, (0, ""))[1]
        if known.get(name) != _seconds(moment.local):
            raise NotDateError(f"has no English name for its zone, {zone.key}; write VV or XXX")
        return name

    return write


def _padded_writer(write_inner: Callable[[Moment], str], width: int) -> Callable[[Moment], str]:
    def write(moment: Moment) -> str:
        text = write_inner(moment)
        if len(text) > width:
            raise NotDateError(f"does not fit into {width} characters")
        return text.rjust(width)

    return write
