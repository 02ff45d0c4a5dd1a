"""The canonical text of a cell, as stores without CQL's types hold it: a value, or a map's key.

Most types have one text for each value. A type that no text suits, such as a list, is its bytes in
hex there.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from struct import Struct, error

from cassandra.marshal import vints_pack, vints_unpack

from migration_platform.cql.forms import one_nan, one_or_zero, shortest_varint, write_varint
from migration_platform.cql.types import CqlType
from migration_platform.cql.values import show_double

Canonical = Callable[[bytes], bytes]
"""Gives the one cell that stands for all that become the same value elsewhere."""

NOT_OF_THE_TYPE = (error, IndexError, KeyError, TypeError, AttributeError, ArithmeticError)
"""What reading bytes, or a value elsewhere, raises besides ValueError if they are none of it."""


@dataclass(frozen=True)
class Text:
    """The canonical text of a type's values that are not empty, and back.

    `canonical` gives the one cell of all whose texts are the same.
    """

    write: Callable[[bytes], str]
    read: Callable[[str], bytes]
    canonical: Canonical | None = None
    is_plain: bool = True
    """Whether nothing in it has to be escaped in JSON."""


def _only_its_own(write: Callable[[bytes], str], read: Callable[[str], bytes]) -> Text:
    """Let nothing be read but what is written."""

    def read_exactly(text: str) -> bytes:
        cell = read(text)
        if write(cell) != text:
            raise ValueError(text)
        return cell

    return Text(write, read_exactly)


def _whole_text(form: str) -> Text:
    layout = Struct(form)
    unpack, pack = layout.unpack, layout.pack
    return _only_its_own(lambda cell: str(unpack(cell)[0]), lambda text: pack(int(text)))


def read_varint(cell: bytes) -> int:
    """Give the whole number that bytes are, however many they are."""
    return int.from_bytes(cell, "big", signed=True)


def _varint_text(cell: bytes) -> str:
    # Python limits the conversion of an int to 4300 digits, as a protection.
    return str(Decimal(read_varint(cell)))


def _read_varint_text(text: str) -> bytes:
    number = Decimal(text)
    # An exponent could ask for any number of digits.
    if number.as_tuple().exponent:
        raise ValueError(text)
    return write_varint(int(number))


EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""Calculates without rounding."""
_SCALE = Struct(">i")
_LEAST_SCALE = -(2**31)


def read_decimal(cell: bytes) -> Decimal:
    """Give a decimal with its scale.

    Raises:
        ValueError: the bytes are no decimal.
    """
    if len(cell) < 5:
        raise ValueError(f"its {len(cell)} bytes are no decimal")
    (scale,) = _SCALE.unpack_from(cell)
    return EXACT.scaleb(Decimal(read_varint(cell[4:])), -scale)


def write_decimal(number: Decimal) -> bytes:
    """Give the shortest bytes of a finite number with its scale."""
    scale = max(_LEAST_SCALE, -number.as_tuple().exponent)  # type: ignore[operator] # finite
    return _SCALE.pack(scale) + write_varint(int(EXACT.scaleb(number, scale)))


def _shortest_decimal(cell: bytes) -> bytes:
    """Keep the scale."""
    return cell[:4] + shortest_varint(cell[4:])


def _decimal_text(cell: bytes) -> str:
    return str(read_decimal(cell))


_SHORTEST_DIGITS = ("%.6g", "%.7g", "%.8g", "%.9g")
"""Six digits are never lost in four bytes, and nine are always enough."""
_NO_NUMBERS = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}


def _real_text(form: str) -> Text:
    layout = Struct(form)
    unpack, pack = layout.unpack, layout.pack

    def write(cell: bytes) -> str:
        return show_double(unpack(cell)[0])

    def write_short(cell: bytes) -> str:
        (number,) = unpack(cell)
        if number - number != 0:
            return show_double(number)
        for digits in _SHORTEST_DIGITS:
            rounded = float(digits % number)
            if pack(rounded) == cell:
                return repr(rounded)
        raise ValueError(f"{number!r} needs more than nine digits")

    def read(text: str) -> bytes:
        return pack(float(_NO_NUMBERS.get(text, text)))

    return replace(
        _only_its_own(write if layout.size == 8 else write_short, read), canonical=one_nan(form)
    )


def boolean_text(cell: bytes) -> str:
    """Write a boolean as true or false, which is what JSON calls it too."""
    if len(cell) != 1:
        raise ValueError(f"its {len(cell)} bytes are no boolean")
    return "true" if cell[0] else "false"


def _uuid_text(cell: bytes) -> str:
    if len(cell) != 16:
        raise ValueError(f"its {len(cell)} bytes are no UUID")
    text = cell.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _inet_text(cell: bytes) -> str:
    if len(cell) not in (4, 16):
        raise ValueError(f"its {len(cell)} bytes are no inet")
    return inet_ntop(AF_INET if len(cell) == 4 else AF_INET6, cell)


def _read_inet(text: str) -> bytes:
    try:
        return inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except OSError as failure:
        raise ValueError(text) from failure


_ERA_DAYS = 146_097
"""Of 400 years, after which the calendar is the same again."""
_YEAR_ONE = date(1970, 1, 1).toordinal() - 1
_DAY = re.compile(r"([+-]?[0-9]{4,})(-[0-9]{2}-[0-9]{2})")


@lru_cache(4096)
def _write_day(days: int) -> str:
    """Write days since 1970 as ISO 8601; a year that has not four digits has a sign."""
    eras, days = divmod(days + _YEAR_ONE, _ERA_DAYS)
    day = date.fromordinal(days + 1)
    year = day.year + 400 * eras
    shown = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+05d}"
    return f"{shown}-{day.month:02d}-{day.day:02d}"


@lru_cache(4096)
def _read_day(text: str) -> int:
    found = _DAY.fullmatch(text)
    if not found:
        raise ValueError(text)
    eras, year = divmod(int(found[1]) - 1, 400)
    days = date.fromisoformat(f"{year + 1:04d}{found[2]}").toordinal() - 1
    return days + eras * _ERA_DAYS - _YEAR_ONE


_UINT32, _INT64 = Struct(">I"), Struct(">q")
_DAY_MS, _MINUTE_MS = 86_400_000, 60_000
_MINUTE_NS = 60_000_000_000
_CLOCK = tuple(f"{minute // 60:02d}:{minute % 60:02d}" for minute in range(1440))
_MINUTES = {text: minute for minute, text in enumerate(_CLOCK)}


def _date_text(cell: bytes) -> str:
    # A day is unsigned, with 1970 in the middle.
    return _write_day(_UINT32.unpack(cell)[0] - 2**31)


def _read_date(text: str) -> bytes:
    return _UINT32.pack(_read_day(text) + 2**31)


def _timestamp_text(cell: bytes) -> str:
    days, millis = divmod(_INT64.unpack(cell)[0], _DAY_MS)
    minute, millis = divmod(millis, _MINUTE_MS)
    return f"{_write_day(days)}T{_CLOCK[minute]}:{millis // 1000:02d}.{millis % 1000:03d}Z"


def _read_timestamp(text: str) -> bytes:
    day, clock = text[:-14], text[-13:]
    millis = _MINUTES[clock[:5]] * _MINUTE_MS + int(clock[6:8]) * 1000 + int(clock[9:12])
    return _INT64.pack(_read_day(day) * _DAY_MS + millis)


def _time_text(cell: bytes) -> str:
    (nanos,) = _INT64.unpack(cell)
    if not 0 <= nanos < 1440 * _MINUTE_NS:
        raise ValueError(f"{nanos} nanoseconds are no time of day")
    minute, nanos = divmod(nanos, _MINUTE_NS)
    return f"{_CLOCK[minute]}:{nanos // 10**9:02d}.{nanos % 10**9:09d}"


def _read_time(text: str) -> bytes:
    nanos = _MINUTES[text[:5]] * _MINUTE_NS + int(text[6:8]) * 10**9 + int(text[9:])
    return _INT64.pack(nanos)


_DURATION = re.compile(r"(-?)([0-9]+)mo([0-9]+)d([0-9]+)ns")


def _duration_text(cell: bytes) -> str:
    months, days, nanos = parts = vints_unpack(cell)
    if min(parts) < 0 < max(parts):
        raise ValueError("a duration's parts have one sign")
    return f"{'-' * (min(parts) < 0)}{abs(months)}mo{abs(days)}d{abs(nanos)}ns"


def _read_duration(text: str) -> bytes:
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(text)
    sign = -1 if found[1] else 1
    return bytes(vints_pack([sign * int(part) for part in found.groups()[1:]]))


def _shortest_duration(cell: bytes) -> bytes:
    return bytes(vints_pack(vints_unpack(cell))) if cell else cell


_HEX = _only_its_own(bytes.hex, bytes.fromhex)
_UUID = _only_its_own(_uuid_text, lambda text: bytes.fromhex(text.replace("-", "")))
TEXTS = {
    "text": Text(bytes.decode, str.encode, is_plain=False),
    "ascii": Text(
        lambda cell: cell.decode("ascii"), lambda text: text.encode("ascii"), is_plain=False
    ),
    "tinyint": _whole_text(">b"),
    "smallint": _whole_text(">h"),
    "int": _whole_text(">i"),
    "bigint": _whole_text(">q"),
    "counter": _whole_text(">q"),
    "varint": replace(_only_its_own(_varint_text, _read_varint_text), canonical=shortest_varint),
    "decimal": replace(
        _only_its_own(_decimal_text, lambda text: write_decimal(Decimal(text))),
        canonical=_shortest_decimal,
    ),
    "float": _real_text(">f"),
    "double": _real_text(">d"),
    "boolean": Text(
        boolean_text, {"true": b"\1", "false": b"\0"}.__getitem__, canonical=one_or_zero
    ),
    "uuid": _UUID,
    "timeuuid": _UUID,
    "inet": _only_its_own(_inet_text, _read_inet),
    "date": _only_its_own(_date_text, _read_date),
    "time": _only_its_own(_time_text, _read_time),
    "timestamp": _only_its_own(_timestamp_text, _read_timestamp),
    "duration": replace(
        _only_its_own(_duration_text, _read_duration), canonical=_shortest_duration
    ),
}
"""Types that are not here are hex digits: blob, custom types, and all that is made of others."""


def text_of(cql_type: CqlType) -> Text:
    """Give the canonical text of a type's values."""
    return TEXTS.get(cql_type.name, _HEX)


def compile_text(cql_type: CqlType, *, is_key: bool = False) -> Callable[[bytes], str]:
    """Build what writes a cell as its canonical text: another text for each value.

    In a key two cells never give one text: those not in the one form of their value are refused.

    Raises (what is built):
        ValueError: the bytes are no value of the type.
    """
    text = text_of(cql_type)
    write = only_the_usual(text.write, text.canonical) if is_key else text.write
    return explain_failures(lambda cell: write(cell) if cell else "", cql_type)


def only_the_usual(
    use: Callable[[bytes], str], canonical: Canonical | None
) -> Callable[[bytes], str]:
    """Refuse cells that are not in the one form of their value."""
    if canonical is None:
        return use

    def use_exactly(cell: bytes) -> str:
        if canonical(cell) != cell:
            raise ValueError("its bytes are not the usual ones of its value: another row's may be")
        return use(cell)

    return use_exactly


def escape(text: str) -> str:
    """Write a text so that `#` can part it from others, and no two lists of texts join alike."""
    return text.replace("%", "%25").replace("#", "%23") if "%" in text or "#" in text else text


def explain_failures(use: Callable[[bytes], str], cql_type: CqlType) -> Callable[[bytes], str]:
    """Let bytes that are no value of the type end in a ValueError that says so."""

    def explained(cell: bytes) -> str:
        try:
            return use(cell)
        except UnicodeDecodeError as failure:
            raise ValueError(f"its bytes are no {cql_type}: {failure.reason}") from failure
        except NOT_OF_THE_TYPE as failure:
            raise ValueError(f"its {len(cell)} bytes are no {cql_type}") from failure

    return explained
