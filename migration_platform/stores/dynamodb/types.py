"""What a cell is in DynamoDB: one attribute value, of which the same cell is made again.

Encoders write the JSON of an attribute value directly, since they run once a cell. Most types have
one text for each value, their canonical text, which is what they are as `S`, as a map's key and as
a part of a joined key. A type that no text suits, such as a list, is its bytes in hex there.

Wrong guesses: a cell without any bytes is no null, and every type but text and blob may have one
(`{"S": ""}`); an `N` does not keep how many decimals a number was written with.
"""

import re
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import cache, lru_cache
from json import dumps
from json.encoder import encode_basestring
from math import copysign
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from struct import Struct, error
from typing import Any, Literal, get_args

from cassandra.marshal import vints_pack, vints_unpack

from migration_platform.cql.elements import (
    read_elements,
    read_entries,
    read_fields,
    read_vector,
    write_elements,
    write_entries,
    write_fields,
    write_vector,
)
from migration_platform.cql.forms import one_nan, one_or_zero, shortest_varint, write_varint
from migration_platform.cql.order import sort_key
from migration_platform.cql.types import CqlType
from migration_platform.cql.values import shorten, show_double
from migration_platform.errors import DeclarationError

AttributeType = Literal["S", "N", "B", "BOOL", "L", "M", "SS", "NS", "BS"]
Numbers = Literal["refuse", "string"]
"""What becomes of a number that no `N` holds: its row is set aside, or it is an `S`."""
Encoder = Callable[[bytes], str]
"""Writes a cell as the JSON of an attribute value; null never comes to it. Raises ValueError, whose
text says why DynamoDB cannot hold the cell."""
Decoder = Callable[[Any], bytes]
"""Makes the cell of an attribute value as `json.loads` gives it; null (`NULL`) never comes to it.
Raises ValueError if no encoder can have made the value."""
Canonical = Callable[[bytes], bytes]
"""Gives the one cell that stands for all that become the same attribute value."""

MAX_LEVELS = 31
"""How many lists and maps may lie in each other: what is in the innermost is the 32nd level.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
"""

MAX_NAME_BYTES = 65_535
"""How long a map's key and an attribute's name may be."""

_EMPTY = '{"S":""}'
_NULL = '{"NULL":true}'
_NOT_OF_THE_TYPE = (error, IndexError, KeyError, TypeError, AttributeError, ArithmeticError)


# -- texts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Text:
    """The canonical text of a type's values that are not empty, and back.

    `canonical` is as in `compile_canonical`: values whose texts are the same.
    """

    write: Callable[[bytes], str]
    read: Callable[[str], bytes]
    canonical: Canonical | None = None
    is_plain: bool = True
    """Whether nothing in it has to be escaped in JSON."""


def _only_its_own(write: Callable[[bytes], str], read: Callable[[str], bytes]) -> _Text:
    """Let nothing be read but what is written."""

    def read_exactly(text: str) -> bytes:
        cell = read(text)
        if write(cell) != text:
            raise ValueError(text)
        return cell

    return _Text(write, read_exactly)


def _whole_text(form: str) -> _Text:
    layout = Struct(form)
    unpack, pack = layout.unpack, layout.pack
    return _only_its_own(lambda cell: str(unpack(cell)[0]), lambda text: pack(int(text)))


def _read_varint(cell: bytes) -> int:
    return int.from_bytes(cell, "big", signed=True)


def _varint_text(cell: bytes) -> str:
    # Python refuses to write an int of more than 4300 digits, and means well.
    return str(Decimal(_read_varint(cell)))


def _read_varint_text(text: str) -> bytes:
    number = Decimal(text)
    # An exponent could ask for any number of digits.
    if number.as_tuple().exponent:
        raise ValueError(text)
    return write_varint(int(number))


_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_SCALE = Struct(">i")
_LEAST_SCALE = -(2**31)


def _read_decimal(cell: bytes) -> Decimal:
    if len(cell) < 5:
        raise ValueError(f"its {len(cell)} bytes are no decimal")
    (scale,) = _SCALE.unpack_from(cell)
    return _EXACT.scaleb(Decimal(_read_varint(cell[4:])), -scale)


def _write_decimal(number: Decimal) -> bytes:
    scale = max(_LEAST_SCALE, -number.as_tuple().exponent)  # type: ignore[operator] # finite
    return _SCALE.pack(scale) + write_varint(int(_EXACT.scaleb(number, scale)))


def _shortest_decimal(cell: bytes) -> bytes:
    """Keep the scale."""
    return cell[:4] + shortest_varint(cell[4:])


def _decimal_text(cell: bytes) -> str:
    return str(_read_decimal(cell))


_SHORTEST_DIGITS = ("%.6g", "%.7g", "%.8g", "%.9g")
"""Six digits are never lost in four bytes, and nine are always enough."""
_NO_NUMBERS = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}


def _real_text(form: str) -> _Text:
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


def _boolean_text(cell: bytes) -> str:
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
_TEXTS = {
    "text": _Text(bytes.decode, str.encode, is_plain=False),
    "ascii": _Text(
        lambda cell: cell.decode("ascii"), lambda text: text.encode("ascii"), is_plain=False
    ),
    "tinyint": _whole_text(">b"),
    "smallint": _whole_text(">h"),
    "int": _whole_text(">i"),
    "bigint": _whole_text(">q"),
    "counter": _whole_text(">q"),
    "varint": replace(_only_its_own(_varint_text, _read_varint_text), canonical=shortest_varint),
    "decimal": replace(
        _only_its_own(_decimal_text, lambda text: _write_decimal(Decimal(text))),
        canonical=_shortest_decimal,
    ),
    "float": _real_text(">f"),
    "double": _real_text(">d"),
    "boolean": _Text(
        _boolean_text, {"true": b"\1", "false": b"\0"}.__getitem__, canonical=one_or_zero
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


def _text_of(cql_type: CqlType) -> _Text:
    return _TEXTS.get(cql_type.name, _HEX)


def compile_text(cql_type: CqlType, *, is_key: bool = False) -> Callable[[bytes], str]:
    """Build what writes a cell as its canonical text: another text for each value.

    In a key two cells never give one text: those not in the one form of their value are refused.

    Raises (what is built):
        ValueError: the bytes are no value of the type.
    """
    text = _text_of(cql_type)
    write = _only_the_usual(text.write, text.canonical) if is_key else text.write
    return _explained(lambda cell: write(cell) if cell else "", cql_type)


def _only_the_usual(
    use: Callable[[bytes], str], canonical: Canonical | None
) -> Callable[[bytes], str]:
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


def _write_map_key(text: str) -> str:
    # An attribute's name has at least one character.
    return "%" + text if not text or text[0] == "%" else text


def _read_map_key(text: str) -> str:
    return text[1:] if text[0] == "%" else text


# -- numbers -----------------------------------------------------------------------------------

_DIGITS = 10**38
_LEAST, _MOST = -130, 125
"""What an N holds: 38 digits, from 1E-130 to 9.99E+125 on both sides of zero.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
"""


@dataclass(frozen=True)
class _Number:
    """A type's values as N; `write` gives None for one that no N holds."""

    write: Callable[[bytes], str | None]
    read: Callable[[str], bytes]
    canonical: Canonical | None = None
    always: bool = True
    """Whether an N holds every value."""


def _whole_number(form: str, offset: int = 0) -> _Number:
    layout = Struct(form)
    unpack, pack = layout.unpack, layout.pack
    if not offset:
        return _Number(lambda cell: str(unpack(cell)[0]), lambda text: pack(int(text)))
    return _Number(
        lambda cell: str(unpack(cell)[0] + offset), lambda text: pack(int(text) - offset)
    )


def _write_big_number(cell: bytes) -> str | None:
    number = _read_varint(cell)
    if -_DIGITS < number < _DIGITS:
        return str(number)
    if number.bit_length() > 420:
        return None
    return _fitting(Decimal(number))


def _read_big_number(text: str) -> bytes:
    number = Decimal(text)
    if number.adjusted() > _MOST or number != number.to_integral_value(context=_EXACT):
        raise ValueError(text)
    return write_varint(int(number))


def _write_decimal_number(cell: bytes) -> str | None:
    return _fitting(_read_decimal(cell))


def _fitting(number: Decimal) -> str | None:
    if not number:
        return "0"
    if not _LEAST <= number.adjusted() <= _MOST:
        return None
    number = _EXACT.normalize(number)
    return str(number) if len(number.as_tuple().digits) <= 38 else None


def _plain_decimal(cell: bytes) -> bytes:
    """Give the number without the scale that it was written with: 1.50 as 1.5, 1E+2 as 100."""
    return _write_plain(_read_decimal(cell)) if cell else cell


def _write_plain(number: Decimal) -> bytes:
    if not number:
        return _write_decimal(Decimal(0))
    number = _EXACT.normalize(number)
    if 0 <= number.adjusted() < 38 and number == number.to_integral_value(context=_EXACT):
        number = Decimal(int(number))
    return _write_decimal(number)


def _real_number(name: str) -> _Number:
    text, layout = _TEXTS[name], Struct(">f" if name == "float" else ">d")
    unpack, pack = layout.unpack, layout.pack

    def write(cell: bytes) -> str | None:
        (number,) = unpack(cell)
        if 1e-130 <= number < 1e126 or -1e126 < number <= -1e-130:
            # A server too leaves out what says nothing, and then reading back is quicker.
            return text.write(cell).removesuffix(".0")
        return "0" if number == 0 and copysign(1, number) > 0 else None

    def read(shown: str) -> bytes:
        number = float(shown)
        cell = pack(number)
        if (written := write(cell)) != shown and (
            written is None or Decimal(written) != Decimal(shown)
        ):
            raise ValueError(shown)
        return cell

    return _Number(write, read, text.canonical, always=False)


_NUMBERS = {
    "tinyint": _whole_number(">b"),
    "smallint": _whole_number(">h"),
    "int": _whole_number(">i"),
    "bigint": _whole_number(">q"),
    "counter": _whole_number(">q"),
    "varint": _Number(_write_big_number, _read_big_number, shortest_varint, always=False),
    "decimal": _Number(
        _write_decimal_number,
        lambda text: _write_plain(Decimal(text)),
        _plain_decimal,
        always=False,
    ),
    "float": _real_number("float"),
    "double": _real_number("double"),
    "timestamp": _whole_number(">q"),
    "date": _whole_number(">I", -(2**31)),
    "time": _whole_number(">q"),
}
_NOT_N_BY_DEFAULT = frozenset({"timestamp", "date", "time"})
_INEXACT_AS_KEYS = frozenset({"decimal"})
"""1.0 and 1.00 may be two rows, and one N."""
_SETS: dict[str, AttributeType] = {
    "text": "SS",
    "ascii": "SS",
    "uuid": "SS",
    "timeuuid": "SS",
    "inet": "SS",
    "date": "SS",
    "time": "SS",
    "timestamp": "SS",
    "tinyint": "NS",
    "smallint": "NS",
    "int": "NS",
    "bigint": "NS",
    "blob": "BS",
}
_NESTED: dict[str, AttributeType] = {
    "list": "L",
    "tuple": "L",
    "vector": "L",
    "set": "L",
    "map": "M",
    "udt": "M",
}


# -- which type --------------------------------------------------------------------------------


def offered_types(cql_type: CqlType, *, is_key: bool = False) -> tuple[AttributeType, ...]:
    """Give the attribute types that lose nothing of a column's values; the first is the default.

    `S` is the canonical text, `B` the cell's own bytes. What is not frozen is meant as a column.
    """
    name = cql_type.name
    found: list[AttributeType] = []
    if name in _NUMBERS and not (is_key and name in _INEXACT_AS_KEYS):
        found.append("N")
    if name == "boolean" and not is_key:
        found.append("BOOL")
    if name in _NESTED and not is_key:
        if name == "set" and cql_type.is_multicell and cql_type.parameters[0].name in _SETS:
            found.append(_SETS[cql_type.parameters[0].name])
        found.append(_NESTED[name])
    found.extend(("S", "B"))
    default = found[0]
    if name in _NOT_N_BY_DEFAULT or (is_key and name in ("float", "double")):
        default = "S"
    elif name not in _TEXTS and name not in _NESTED:
        default = "B"
    return tuple(dict.fromkeys((default, *found)))


def attribute_type_of(
    cql_type: CqlType, attribute_type: str | None = None, is_key: bool = False
) -> AttributeType:
    """Give the attribute type that a column's values have: the declared one, or the default.

    Raises:
        DeclarationError: the declared one would lose something.
    """
    offered = offered_types(cql_type, is_key=is_key)
    if attribute_type is None:
        return offered[0]
    for each in offered:
        if each == attribute_type:
            return each
    raise DeclarationError(
        f"{attribute_type} is no attribute type for {'keys' if is_key else 'values'} of "
        f"{cql_type}; write one of {', '.join(offered)}"
    )


def levels_of(cql_type: CqlType, attribute_type: str | None = None, is_key: bool = False) -> int:
    """Count how many lists and maps lie in each other in a column's values."""
    if attribute_type_of(cql_type, attribute_type, is_key) not in ("L", "M"):
        return 0
    inner = (*cql_type.parameters, *(kind for _, kind in cql_type.fields))
    # A map's key is a text, whatever it is made of.
    inner = inner[1:] if cql_type.name == "map" else inner
    return 1 + max(map(levels_of, inner), default=0)


# -- what is built -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Codec:
    encode: Encoder
    decode: Decoder
    canonical: Canonical | None = None


def compile_encoder(
    cql_type: CqlType,
    attribute_type: str | None = None,
    *,
    numbers: str = "refuse",
    is_key: bool = False,
) -> Encoder:
    """Build what writes a column's cells as attribute values.

    Two cells of a key column never give one attribute value: cells that are not in the one form of
    their value are refused there.

    Raises:
        DeclarationError: the type is not offered for the column, or `numbers` is unknown.
    """
    codec = _compile(cql_type, attribute_type, numbers, is_key)
    encode = _only_the_usual(codec.encode, codec.canonical) if is_key else codec.encode
    return _explained(encode, cql_type)


def _explained(use: Callable[[bytes], str], cql_type: CqlType) -> Callable[[bytes], str]:
    def explained(cell: bytes) -> str:
        try:
            return use(cell)
        except UnicodeDecodeError as failure:
            raise ValueError(f"its bytes are no {cql_type}: {failure.reason}") from failure
        except _NOT_OF_THE_TYPE as failure:
            raise ValueError(f"its {len(cell)} bytes are no {cql_type}") from failure

    return explained


def compile_decoder(
    cql_type: CqlType,
    attribute_type: str | None = None,
    *,
    numbers: str = "refuse",
    is_key: bool = False,
) -> Decoder:
    """Build what makes cells of attribute values; arguments as for `compile_encoder`."""
    decode = _compile(cql_type, attribute_type, numbers, is_key).decode

    def explained(value: Any) -> bytes:
        try:
            return decode(value)
        except (ValueError, *_NOT_OF_THE_TYPE) as failure:
            shown = shorten(dumps(value, default=str, ensure_ascii=False), 200)
            raise ValueError(f"{shown} is no {cql_type}") from failure

    return explained


def compile_canonical(
    cql_type: CqlType,
    attribute_type: str | None = None,
    *,
    numbers: str = "refuse",
    is_key: bool = False,
) -> Canonical | None:
    """Build what gives a cell the one form of its value, for comparing; None if all have it.

    Both sides of a comparison go through it. It undoes what the attribute value cannot tell: the
    scale of a decimal as N, the order of a set, fields that a short tuple leaves out, the bits of
    a NaN. Bytes that are no value of the type stay as they are.
    """
    canonical = _compile(cql_type, attribute_type, numbers, is_key).canonical
    # Cells that would have to be changed are refused in keys.
    if canonical is None or is_key:
        return None

    def unless_unreadable(cell: bytes) -> bytes:
        try:
            return canonical(cell)
        except (ValueError, *_NOT_OF_THE_TYPE):
            return cell

    return unless_unreadable


@cache
def _compile(cql_type: CqlType, attribute_type: str | None, numbers: str, is_key: bool) -> _Codec:
    if numbers not in get_args(Numbers):
        raise DeclarationError(f"numbers: {numbers!r} is unknown; write refuse or string")
    kind = attribute_type_of(cql_type, attribute_type, is_key)
    if kind == "S":
        return _text_codec(_text_of(cql_type))
    if kind == "B":
        return _BYTES
    if kind == "BOOL":
        return _BOOLEAN
    if kind == "N":
        # A key's attribute has one type.
        return _number_codec(cql_type.name, as_string=numbers == "string" and not is_key)
    return _nested_codec(cql_type, kind, numbers)


def _text_codec(text: _Text) -> _Codec:
    write, read, quote = text.write, text.read, encode_basestring

    def encode(cell: bytes) -> str:
        return f'{{"S":{quote(write(cell))}}}'

    def encode_plain(cell: bytes) -> str:
        return f'{{"S":"{write(cell)}"}}' if cell else _EMPTY

    def decode(value: Any) -> bytes:
        text = value["S"]
        return read(text) if text else b""

    return _Codec(encode_plain if text.is_plain else encode, decode, text.canonical)


def _encode_bytes(cell: bytes) -> str:
    return f'{{"B":"{b2a_base64(cell, newline=False).decode()}"}}'


_BYTES = _Codec(_encode_bytes, lambda value: b64decode(value["B"], validate=True))


def _encode_boolean(cell: bytes) -> str:
    return f'{{"BOOL":{_boolean_text(cell)}}}' if cell else _EMPTY


def _decode_boolean(value: Any) -> bytes:
    truth = value.get("BOOL")
    if truth is None:
        return _empty(value)
    return b"\1" if truth else b"\0"


_BOOLEAN = _Codec(_encode_boolean, _decode_boolean, one_or_zero)


def _empty(value: Any) -> bytes:
    if value != {"S": ""}:
        raise ValueError
    return b""


def _number_codec(name: str, *, as_string: bool) -> _Codec:
    number, text = _NUMBERS[name], _TEXTS[name]
    write, read = number.write, number.read

    def encode(cell: bytes) -> str:
        return f'{{"N":"{write(cell)}"}}' if cell else _EMPTY

    def encode_some(cell: bytes) -> str:
        if not cell:
            return _EMPTY
        shown = write(cell)
        if shown is not None:
            return f'{{"N":"{shown}"}}'
        if as_string:
            return f'{{"S":"{text.write(cell)}"}}'
        raise ValueError(
            f"no N holds {shorten(text.write(cell))}; as S a column holds every {name}, and "
            "target.numbers: string makes such values S"
        )

    def decode(value: Any) -> bytes:
        shown = value.get("N")
        if shown is not None:
            return read(shown)
        if not as_string or not value["S"]:
            return _empty(value)
        cell = text.read(value["S"])
        if write(cell) is not None:
            raise ValueError
        return cell

    # What is not a number is only there as a string.
    is_always = number.canonical is None or (name in ("float", "double") and not as_string)
    return _Codec(
        encode if number.always else encode_some, decode, None if is_always else number.canonical
    )


def _nested_codec(cql_type: CqlType, kind: AttributeType, numbers: str) -> _Codec:
    def compile_inner(inner: CqlType) -> _Codec:
        return _compile(inner, None, numbers, False)

    name, kinds = cql_type.name, cql_type.parameters
    if name == "map":
        codec = _map_codec(kinds[0], compile_inner(kinds[1]))
    elif name == "udt":
        codec = _fields_codec([(field, compile_inner(inner)) for field, inner in cql_type.fields])
    elif name == "tuple":
        codec = _tuple_codec([compile_inner(inner) for inner in kinds])
    elif name == "vector":
        codec = _vector_codec(cql_type, compile_inner(kinds[0]))
    elif kind == "L":
        codec = _elements_codec(compile_inner(kinds[0]), is_set=name == "set")
    else:
        codec = _set_codec(kinds[0], kind)

    def encode(cell: bytes) -> str:
        return codec.encode(cell) if cell else _EMPTY

    def decode(value: Any) -> bytes:
        return codec.decode(value) if "S" not in value else _empty(value)

    def canonical(cell: bytes) -> bytes:
        return codec.canonical(cell) if cell and codec.canonical else cell

    return _Codec(encode, decode, canonical if codec.canonical else None)


def _nullable(codec: _Codec) -> tuple[Callable[[bytes | None], str], Callable[[Any], bytes | None]]:
    encode, decode = codec.encode, codec.decode

    def encode_any(cell: bytes | None) -> str:
        return _NULL if cell is None else encode(cell)

    def decode_any(value: Any) -> bytes | None:
        return None if value.get("NULL") is True else decode(value)

    return encode_any, decode_any


def _canonical_of(codec: _Codec) -> Callable[[bytes | None], bytes | None]:
    canonical = codec.canonical
    if canonical is None:
        return lambda cell: cell
    return lambda cell: None if cell is None else canonical(cell)


def _elements_codec(inner: _Codec, *, is_set: bool) -> _Codec:
    encode, decode = _nullable(inner)
    to_canonical = _canonical_of(inner)

    def canonical(cell: bytes) -> bytes:
        elements = [to_canonical(element) for element in read_elements(cell)]
        # Null, which no server keeps in a set, must not be what ends a comparison.
        return write_elements(
            sorted(elements, key=lambda e: (e is not None, e or b"")) if is_set else elements
        )

    return _Codec(
        lambda cell: f'{{"L":[{",".join(map(encode, read_elements(cell)))}]}}',
        lambda value: write_elements([decode(element) for element in value["L"]]),
        canonical if is_set or inner.canonical else None,
    )


def _set_codec(element: CqlType, kind: AttributeType) -> _Codec:
    if kind == "BS":

        def write(cell: bytes) -> str:
            return f'"{b2a_base64(cell, newline=False).decode()}"'

        def read(shown: str) -> bytes:
            return b64decode(shown, validate=True)

    elif kind == "NS":
        number = _NUMBERS[element.name]

        def write(cell: bytes) -> str:
            if not cell:
                raise ValueError("NS holds no empty value; write L for the column")
            return f'"{number.write(cell)}"'

        def read(shown: str) -> bytes:
            return number.read(shown)

    else:
        text, quote = _text_of(element), encode_basestring

        def write(cell: bytes) -> str:
            return quote(text.write(cell)) if cell else '""'

        def read(shown: str) -> bytes:
            return text.read(shown) if shown else b""

    order = sort_key(element)

    def encode(cell: bytes) -> str:
        elements = read_elements(cell)
        if not elements or None in elements:
            raise ValueError(f"{kind} holds no empty set and no null; write L for the column")
        return f'{{"{kind}":[{",".join([write(each) for each in elements if each is not None])}]}}'

    def canonical(cell: bytes) -> bytes:
        return write_elements(sorted(each for each in read_elements(cell) if each is not None))

    return _Codec(
        encode,
        # As Cassandra orders them, so that the cell is the one that was written.
        lambda value: write_elements(sorted(map(read, value[kind]), key=order)),
        canonical,
    )


def _map_codec(key_type: CqlType, inner: _Codec) -> _Codec:
    encode, decode = _nullable(inner)
    to_canonical, text = _canonical_of(inner), _text_of(key_type)
    order, key_canonical = sort_key(key_type), text.canonical or (lambda cell: cell)

    def write_key(cell: bytes) -> str:
        return _write_map_key(text.write(cell) if cell else "")

    def read_key(shown: str) -> bytes:
        shown = _read_map_key(shown)
        return text.read(shown) if shown else b""

    def encode_map(cell: bytes) -> str:
        pairs = read_entries(cell)
        entries = {write_key(key): value for key, value in pairs}
        if len(entries) != len(pairs):
            raise ValueError("a key stands twice in its map")
        # Only a long map has a long key, of which the text is the longest as digits.
        if len(cell) > MAX_NAME_BYTES // 3:
            longest = max(len(key.encode()) for key in entries)
            if longest > MAX_NAME_BYTES:
                raise ValueError(
                    f"a key of its map has {longest:,} bytes, and {MAX_NAME_BYTES:,} at most may be"
                )
        quote = encode_basestring
        shown = [f"{quote(key)}:{encode(value)}" for key, value in entries.items()]
        return f'{{"M":{{{",".join(shown)}}}}}'

    def decode_map(value: Any) -> bytes:
        entries = [(read_key(key), decode(each)) for key, each in value["M"].items()]
        return write_entries(sorted(entries, key=lambda entry: order(entry[0])))

    def canonical(cell: bytes) -> bytes:
        entries = [(key_canonical(key), to_canonical(value)) for key, value in read_entries(cell)]
        return write_entries(sorted(entries, key=lambda entry: entry[0]))

    return _Codec(encode_map, decode_map, canonical)


def _fields_codec(fields: list[tuple[str, _Codec]]) -> _Codec:
    names = [name for name, _ in fields]
    steps = [(encode_basestring(name) + ":", codec.encode) for name, codec in fields]
    decoders = [(name, _nullable(codec)[1]) for name, codec in fields]

    def encode(cell: bytes) -> str:
        shown = [
            prefix + write(field)
            for (prefix, write), field in zip(steps, read_fields(cell, len(steps)), strict=True)
            if field is not None
        ]
        return f'{{"M":{{{",".join(shown)}}}}}'

    def decode(value: Any) -> bytes:
        entries = value["M"]
        if not entries.keys() <= set(names):
            raise ValueError
        return write_fields(
            read(entries[name]) if name in entries else None for name, read in decoders
        )

    return _Codec(encode, decode, _canonical_fields([codec for _, codec in fields]))


def _tuple_codec(inner: list[_Codec]) -> _Codec:
    encoders = [_nullable(codec)[0] for codec in inner]
    decoders = [_nullable(codec)[1] for codec in inner]

    def encode(cell: bytes) -> str:
        fields = zip(encoders, read_fields(cell, len(encoders)), strict=True)
        return f'{{"L":[{",".join([write(field) for write, field in fields])}]}}'

    def decode(value: Any) -> bytes:
        fields = zip(decoders, value["L"], strict=True)
        return write_fields([read(field) for read, field in fields])

    return _Codec(encode, decode, _canonical_fields(inner))


def _canonical_fields(inner: list[_Codec]) -> Canonical:
    steps = [_canonical_of(codec) for codec in inner]

    def canonical(cell: bytes) -> bytes:
        fields = zip(steps, read_fields(cell, len(steps)), strict=True)
        return write_fields([to_canonical(field) for to_canonical, field in fields])

    return canonical


def _vector_codec(cql_type: CqlType, inner: _Codec) -> _Codec:
    encode, decode, to_canonical = inner.encode, inner.decode, inner.canonical

    def decode_vector(value: Any) -> bytes:
        if len(value["L"]) != cql_type.dimensions:
            raise ValueError
        return write_vector([decode(element) for element in value["L"]], cql_type)

    def canonical(cell: bytes) -> bytes:
        elements = read_vector(cell, cql_type)
        return write_vector(
            [to_canonical(each) for each in elements] if to_canonical else elements, cql_type
        )

    return _Codec(
        lambda cell: f'{{"L":[{",".join(map(encode, read_vector(cell, cql_type)))}]}}',
        decode_vector,
        canonical,
    )
