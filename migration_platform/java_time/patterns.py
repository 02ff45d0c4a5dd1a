"""Patterns of Java's DateTimeFormatter, cut into elements that `java_dates.py` reads and writes.

An element is a frozen value, a pattern a tuple of them. Each is what `DateTimeFormatter.ofPattern`
makes of the letters, down to how many digits a number takes when another one follows without
anything between them. Names of months and days are English, weeks begin on Sunday (locale en-US).
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Sign = Literal["none", "minus", "exceeds"]
"""Whether a number takes a sign: never, a minus, or a plus as well when it is wider than usual."""
Style = Literal["short", "full", "narrow"]


@dataclass(frozen=True)
class Number:
    """A field in `least` to `most` digits; `after` of those that follow belong to its neighbours.

    With `base`, two digits stand for the year from `base` on, as 24 for 2024.
    """

    letters: str
    field: str
    least: int
    most: int
    sign: Sign = "none"
    after: int = 0
    base: int | None = None


@dataclass(frozen=True)
class Fraction:
    """The first digits of the part of a second; there are always `width` of them."""

    letters: str
    width: int
    field: str = "nano"


@dataclass(frozen=True)
class Words:
    """A field by one of its English names."""

    letters: str
    field: str
    style: Style


@dataclass(frozen=True)
class Plain:
    """Text that stands there as it is."""

    text: str


@dataclass(frozen=True)
class Offset:
    """The distance to UTC, such as +02:00; `zero` is written where there is none."""

    letters: str
    zero: str
    colon: bool
    minutes: Literal["needed", "optional"] = "needed"
    seconds: Literal["never", "optional"] = "never"


@dataclass(frozen=True)
class GmtOffset:
    """The distance to UTC behind the letters GMT: GMT+2, or GMT+02:00 if it is full."""

    letters: str
    full: bool


@dataclass(frozen=True)
class ZoneId:
    """A zone by its name in the IANA database."""

    letters: str = "VV"


@dataclass(frozen=True)
class ZoneName:
    """A zone by its English name, such as CEST; full: Central European Summer Time."""

    letters: str
    full: bool


@dataclass(frozen=True)
class Padded:
    """An element with spaces before it, `width` characters together."""

    element: "Element"
    width: int


@dataclass(frozen=True)
class Maybe:
    """Elements that a text may leave out together; they are always written."""

    elements: tuple["Element", ...]


Element = (
    Number
    | Fraction
    | Words
    | Plain
    | Offset
    | GmtOffset
    | ZoneId
    | ZoneName
    | Padded
    | Maybe
)  # fmt: skip

_FIELDS = {
    "G": "era",
    "y": "year_of_era",
    "u": "year",
    "Q": "quarter",
    "q": "quarter",
    "M": "month",
    "L": "month",
    "D": "day_of_year",
    "d": "day",
    "E": "day_of_week",
    "e": "day_of_week",
    "c": "day_of_week",
    "Y": "week_based_year",
    "w": "week",
    "W": "week_of_month",
    "g": "julian_day",
    "a": "half",
    "H": "hour",
    "k": "clock_hour",
    "K": "hour_of_half",
    "h": "clock_hour_of_half",
    "m": "minute",
    "s": "second",
    "S": "nano",
    "n": "nano",
    "A": "milli_of_day",
    "N": "nano_of_day",
}
_ZONES = "VzOXxZ"
_NOT_SUPPORTED = {
    "B": "it names a part of the day, such as 'in the morning', and no time",
    "F": "its meaning is not the same in all versions of Java",
    "v": "a zone's name without summer or winter is no time",
}
_VALID = "".join(sorted({*_FIELDS, *_ZONES, "p"}, key=lambda letter: (letter.lower(), letter)))
_MOST_DIGITS = 19
_STYLES: dict[int, Style] = {3: "short", 4: "full", 5: "narrow"}
_OFFSETS: dict[int, dict] = {
    1: {"colon": False, "minutes": "optional"},
    2: {"colon": False},
    3: {"colon": True},
    4: {"colon": False, "seconds": "optional"},
    5: {"colon": True, "seconds": "optional"},
}
_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|([^'])")
_BASE_YEAR = 2000
# Far above what anybody writes; they keep the work for a hostile pattern small.
MOST_CHARACTERS = 500
_MOST_LEVELS = 20
_MOST_PADDING = 100


def parse_pattern(pattern: str) -> tuple[Element, ...]:
    """Cut a pattern into its elements.

    Raises:
        ValueError: it is no pattern, is too long or too deep, or has a letter that is not
            supported; what the pattern "has", to be put behind its name.
    """
    if len(pattern) > MOST_CHARACTERS:
        raise ValueError(f"has {len(pattern)} characters; at most {MOST_CHARACTERS} are taken")
    levels: list[list[Element]] = [[]]
    run: int | None = None  # where the number stands whose digits end where its neighbours' begin
    pad = 0
    for found in _tokens(pattern):
        quoted, letter, plain = found.groups()
        level = levels[-1]
        if letter == "p":
            pad, run = len(found[0]), None
            if pad > _MOST_PADDING:
                raise ValueError(f"has {pad} p in a row; at most {_MOST_PADDING} are taken")
            continue
        if pad and not letter:
            raise ValueError(f"has {'p' * pad} before {found[0]!r}; a letter must follow it")
        if letter:
            element = _element(found[0])
            if isinstance(element, Number | Fraction) and not pad:
                run = _add_number(level, element, run)
                continue
            # Java fails on it as well, with an exception of its own kind.
            level.append(Padded(element, pad) if pad else element)
            pad, run = 0, None
            continue
        run = None
        if plain == "[":
            if len(levels) > _MOST_LEVELS:
                raise ValueError(f"has more than {_MOST_LEVELS} [ inside each other; close some")
            levels.append([])
        elif plain == "]":
            if len(levels) == 1:
                raise ValueError("has ] without a [ before it")
            _close(levels)
        else:
            level.append(Plain(plain if quoted is None else quoted.replace("''", "'") or "'"))
    if pad:
        raise ValueError(f"ends with {'p' * pad}; a letter must follow it")
    while len(levels) > 1:  # Java closes what is open at the end.
        _close(levels)
    elements = tuple(levels[0])
    _refuse_runs_behind_padding(elements)
    return elements


def flatten(elements: tuple[Element, ...]) -> Iterator[Element]:
    """Give all elements, those inside others as well, in their order."""
    for element in elements:
        if isinstance(element, Maybe):
            yield from flatten(element.elements)
        elif isinstance(element, Padded):
            yield from flatten((element.element,))
        else:
            yield element


def _tokens(pattern: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        if not found:
            raise ValueError('has "\'" without an end; write two of them for one')
        if found[3] and found[3] in "{}#":
            raise ValueError(f"has {found[3]!r}, which Java keeps for itself; put it in quotes")
        yield found
        at = found.end()


def _close(levels: list[list[Element]]) -> None:
    inside = levels.pop()
    if inside:
        levels[-1].append(Maybe(tuple(inside)))


def _add_number(level: list[Element], new: Number | Fraction, run: int | None) -> int:
    """Append a number; one that stands before it without a gap leaves it its digits.

    Gives the place of the number that takes what the fixed ones behind it leave.
    """
    if run is None:
        level.append(new)
        return len(level) - 1
    width = _fixed_width(new)
    first = level[run]
    if isinstance(first, Number):
        # One of any width ends the run, and what was left to others before it is forgotten.
        level[run] = replace(first, after=0 if width is None else first.after + width)
    level.append(new)
    return len(level) - 1 if width is None else run


def _fixed_width(element: Number | Fraction) -> int | None:
    if isinstance(element, Fraction):
        return element.width
    return element.least if element.least == element.most and element.sign == "none" else None


def _refuse_runs_behind_padding(elements: tuple[Element, ...]) -> None:
    for one, other in itertools.pairwise(elements):
        if (
            isinstance(one, Padded)
            and isinstance(one.element, Number | Fraction)
            and isinstance(other, Number | Fraction)
        ):
            raise ValueError(
                f"has {other.letters} directly behind the padded {one.element.letters}, which "
                "Java refuses as well; put something between them"
            )
    for element in elements:
        if isinstance(element, Maybe):
            _refuse_runs_behind_padding(element.elements)


def _element(letters: str) -> Element:
    letter, count = letters[0], len(letters)
    if letter in _NOT_SUPPORTED:
        raise ValueError(f"has {letter}, which is not supported: {_NOT_SUPPORTED[letter]}")
    if letter in _ZONES:
        return _zone(letters)
    if letter not in _FIELDS:
        raise ValueError(
            f"has {letter}, which is no part of a date; valid are the letters {_VALID}, and text "
            "in single quotes"
        )
    field = _FIELDS[letter]
    if letter == "S" and count <= 9:
        return Fraction(letters, count)
    if letter in "yuY" and count <= _MOST_DIGITS:
        if count == 2:
            return Number(letters, field, 2, 2, base=_BASE_YEAR)
        return Number(letters, field, count, _MOST_DIGITS, "minus" if count < 4 else "exceeds")
    if letter in "nANg" and count <= _MOST_DIGITS:
        return Number(letters, field, count, _MOST_DIGITS, "minus" if letter == "g" else "none")
    if letter in "MLQqEec" and count <= 5 and letters != "cc":
        if letter == "E":
            return Words(letters, field, _STYLES[max(count, 3)])
        if count > 2:
            return Words(letters, field, _STYLES[count])
        if letter in "ec":
            return Number(letters, "localized_day", count, count)
        return _padded_number(letters, field)
    if letter == "G" and count <= 5:
        return Words(letters, field, _STYLES[max(count, 3)])
    if letters == "a":
        return Words(letters, field, "short")
    if letter in "dhHkKms" and count <= 2:
        return _padded_number(letters, field)
    if letter == "D" and count <= 3:
        return _padded_number(letters, field) if count == 1 else Number(letters, field, count, 3)
    if letters in ("W", "w", "ww"):
        return Number(letters, field, count, 1 if letter == "W" else 2)
    raise ValueError(f"has {letters}, in which {letter} stands too often or too seldom")


def _padded_number(letters: str, field: str) -> Number:
    if len(letters) == 1:
        return Number(letters, field, 1, _MOST_DIGITS, "minus")
    return Number(letters, field, 2, 2)


def _zone(letters: str) -> Element:
    letter, count = letters[0], len(letters)
    if letters == "VV":
        return ZoneId()
    if letter == "z" and count <= 4:
        return ZoneName(letters, full=count == 4)
    if letters in ("O", "OOOO", "ZZZZ"):
        return GmtOffset(letters, full=count == 4)
    if letter == "Z" and count <= 3:
        return Offset(letters, "+0000", **_OFFSETS[2])
    if letters == "ZZZZZ" or (letter == "X" and count <= 5):
        return Offset(letters, "Z", **_OFFSETS[count])
    if letter == "x" and count <= 5:
        zero = "+00" if count == 1 else "+00:00" if count % 2 else "+0000"
        return Offset(letters, zero, **_OFFSETS[count])
    raise ValueError(f"has {letters}, in which {letter} stands too often or too seldom")
