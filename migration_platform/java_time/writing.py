"""Writes the elements of a pattern: functions that give the text of a moment."""

from collections.abc import Callable
from zoneinfo import ZoneInfo

from migration_platform.java_time.calendar import (
    VALUES,
    Moment,
    NotDateError,
)
from migration_platform.java_time.names import WORDS, ZONE_NAMES
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
from migration_platform.java_time.zones import offset_seconds, zone_names


def writer_of(element: Element, zone: ZoneInfo) -> Callable[[Moment], str]:
    """Build what writes an element of a pattern."""
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
            return _padded_writer(writer_of(inner, zone), width)
        case Maybe(elements):
            steps = tuple(writer_of(each, zone) for each in elements)
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
    distance = offset_seconds(moment.local)
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
    known = zone_names(full, zone)

    def write(moment: Moment) -> str:
        name = moment.local.tzname() or ""
        if full:
            name = ZONE_NAMES.get(name, (0, ""))[1]
        if known.get(name) != offset_seconds(moment.local):
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
