"""Text that follows a pattern of Java's DateTimeFormatter, and the milliseconds that it stands for.

`DatePattern` makes a function of a pattern and a zone, once for each direction. What Java would
bend is refused instead: `calendar.py` says what that is.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from migration_platform.java_time.calendar import (
    TIME_FIELDS,
    Fields,
    NotDateError,
    lack_of,
    moment_at,
    resolve,
)
from migration_platform.java_time.names import is_ambiguous
from migration_platform.java_time.patterns import (
    MOST_CHARACTERS,
    Element,
    Fraction,
    GmtOffset,
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
from migration_platform.java_time.reading import digits_reader, reader_of
from migration_platform.java_time.writing import writer_of
from migration_platform.java_time.zones import own_names

Reader = Callable[[str], int]
Writer = Callable[[int], str]


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
        read_digits = digits_reader(elements, self.zone)
        steps = tuple(reader_of(element, self.zone) for element in elements)

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
            if isinstance(each, ZoneName) and not own_names(each.full, self.zone):
                raise ValueError(
                    f"timestamp_format {self.pattern!r} has {each.letters}, but {self.zone.key} "
                    "has no name in English; VV, XXX and O can be written"
                )
        steps = tuple(writer_of(element, self.zone) for element in elements)
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


# -- writing ---------------------------------------------------------------------------------------
