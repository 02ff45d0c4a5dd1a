"""Turns what a person wrote into a cell's bytes, and a cell's bytes into text for a person.

Constants, defaults and JSON are made from a person's values here. No cell of a plain copy passes
this way.
"""

# The driver has no type hints: pyright infers wrong types from its attributes' first values.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from ipaddress import ip_address
from math import isinf, isnan, nan
from struct import error
from typing import Any
from uuid import UUID

from cassandra import cqltypes, util

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
from migration_platform.cql.names import quote
from migration_platform.cql.order import sort_key
from migration_platform.cql.types import CqlType

PROTOCOL_VERSION = 5
"""Which only the driver asks for: since 3 all versions serialize alike."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def encode_value(value: Any, cql_type: CqlType) -> bytes:
    """Serialize a value as YAML or JSON know it; text is read as the type demands.

    A timestamp without a zone is UTC, and what is finer than a millisecond is cut off. Sets and
    maps, at any depth, get the server's order and lose what they hold twice, as they do there.

    Raises:
        ValueError: the value is none of the type; one sentence that says what would be.
    """
    if value is None:
        raise ValueError(f"null is no {cql_type}; leave it out")
    nested = _NESTED.get(cql_type.name)
    if nested:
        return nested(value, cql_type)
    scalar = _SCALARS.get(cql_type.name, _OPAQUE)
    try:
        return scalar.driver_type.serialize(scalar.parse(value), PROTOCOL_VERSION)
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, error) as failure:
        raise _refusal(value, cql_type, scalar.valid) from failure


def _refusal(value: Any, cql_type: CqlType, valid: str) -> ValueError:
    shown = repr(value) if isinstance(value, str) else str(value)
    return ValueError(f"{shorten(shown)} is no {cql_type}; write {valid}")


def shorten(text: str, length: int = 60) -> str:
    """Cut a text that is too long for a message."""
    return text if len(text) <= length else text[: length - 3] + "..."


def _encode_elements(value: Any, cql_type: CqlType) -> bytes:
    if not isinstance(value, list | tuple | set | frozenset):
        raise _refusal(value, cql_type, "a list of values")
    (kind,) = cql_type.parameters
    elements = [encode_value(item, kind) for item in value]
    if cql_type.name != "set":
        return write_elements([*elements])
    # Of elements that are one value to the server, it keeps the first.
    key = sort_key(kind)
    kept: dict[Any, bytes] = {}
    for element in elements:
        kept.setdefault(key(element), element)
    return write_elements([kept[place] for place in sorted(kept)])


def _encode_entries(value: Any, cql_type: CqlType) -> bytes:
    entries = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(
        isinstance(entry, list | tuple) and len(entry) == 2 for entry in entries
    ):
        raise _refusal(value, cql_type, "a mapping, or a list of pairs of key and value")
    key_type, value_type = cql_type.parameters
    # Of keys that are one value to the server, it keeps the first, with the value of the last.
    key = sort_key(key_type)
    kept: dict[Any, tuple[bytes, bytes | None]] = {}
    for k, v in entries:
        encoded = encode_value(k, key_type)
        place = key(encoded)
        first = kept[place][0] if place in kept else encoded
        kept[place] = (first, encode_value(v, value_type))
    return write_entries([kept[place] for place in sorted(kept)])


def _encode_fields(value: Any, cql_type: CqlType) -> bytes:
    names = [name for name, _ in cql_type.fields]
    valid = f"a mapping with any of the names {', '.join(names)}"
    if not isinstance(value, dict) or not set(value) <= set(names):
        raise _refusal(value, cql_type, valid)
    fields = []
    for name, kind in cql_type.fields:
        item = value.get(name)
        try:
            fields.append(None if item is None else encode_value(item, kind))
        except ValueError as failure:
            raise ValueError(f"field {quote(name)}: {failure}") from failure
    return write_fields(fields)


def _encode_tuple(value: Any, cql_type: CqlType) -> bytes:
    kinds = cql_type.parameters
    if not isinstance(value, list | tuple) or len(value) != len(kinds):
        raise _refusal(value, cql_type, f"a list of {len(kinds)} values")
    pairs = zip(value, kinds, strict=True)
    return write_fields(
        [None if item is None else encode_value(item, kind) for item, kind in pairs]
    )


def _encode_vector(value: Any, cql_type: CqlType) -> bytes:
    if not isinstance(value, list | tuple) or len(value) != cql_type.dimensions:
        raise _refusal(value, cql_type, f"a list of {cql_type.dimensions} values")
    return write_vector([encode_value(item, cql_type.parameters[0]) for item in value], cql_type)


_NESTED: dict[str, Callable[[Any, CqlType], bytes]] = {
    "list": _encode_elements,
    "set": _encode_elements,
    "map": _encode_entries,
    "udt": _encode_fields,
    "tuple": _encode_tuple,
    "vector": _encode_vector,
}

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?")
_DURATION = re.compile(
    r"(-?)(?:([0-9]+)y)?(?:([0-9]+)mo)?(?:([0-9]+)w)?(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?"
    r"(?:([0-9]+)s)?(?:([0-9]+)ms)?(?:([0-9]+)(?:us|µs))?(?:([0-9]+)ns)?",
    re.IGNORECASE,
)
_ISO_DURATION = re.compile(
    r"(-?)P(?:([0-9]+)Y)?(?:([0-9]+)M)?(?:([0-9]+)W)?(?:([0-9]+)D)?"
    r"(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)S)?)?"
)
_DURATION_UNITS = (
    ("months", 12),
    ("months", 1),
    ("days", 7),
    ("days", 1),
    ("nanoseconds", 3_600_000_000_000),
    ("nanoseconds", 60_000_000_000),
    ("nanoseconds", 1_000_000_000),
    ("nanoseconds", 1_000_000),
    ("nanoseconds", 1_000),
    ("nanoseconds", 1),
)


def _to_whole(value: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def _to_real(value: Any) -> float:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value) and not _NO_NUMBER.fullmatch(value):
            raise ValueError
    elif not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        raise ValueError
    number = float(value)
    if isinf(number) and "inf" not in str(value).casefold():
        raise ValueError
    # Of -nan a server that keeps it in a set forgets the sign.
    return nan if isnan(number) else number


def _to_decimal(value: Any) -> Decimal:
    if isinstance(value, float):
        # 12.5 means what was written, not the binary number next to it.
        value = repr(value)
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError
    if not isinstance(value, str | int | Decimal) or isinstance(value, bool):
        raise ValueError
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError
    return number


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[value.casefold()]


def _to_uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    if not _UUID.fullmatch(value):
        raise ValueError
    return UUID(value)


def _to_timeuuid(value: Any) -> UUID:
    found = _to_uuid(value)
    if found.version != 1:
        raise ValueError
    return found


def _to_millis(value: Any) -> int:
    """Give milliseconds since 1970; the server too reads a number in quotes as these."""
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, clock_time())
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // _MILLISECOND
    return _to_whole(value)


def _to_date(value: Any) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError


def _to_clock(value: Any) -> util.Time:
    if isinstance(value, clock_time) and not value.tzinfo:
        return util.Time(value)
    found = _CLOCK.fullmatch(value)
    if not found:
        raise ValueError
    hours, minutes, seconds, fraction = found.groups(default="0")
    whole = clock_time(int(hours), int(minutes), int(seconds))
    return util.Time(util.Time(whole).nanosecond_time + int(fraction.ljust(9, "0")))


def _to_duration(value: Any) -> util.Duration:
    found = _DURATION.fullmatch(value) or _ISO_DURATION.fullmatch(value)
    if not found or not any(found.groups()[1:]):
        raise ValueError
    sign = -1 if found[1] else 1
    sums = {"months": 0, "days": 0, "nanoseconds": 0}
    for (unit, factor), count in zip(_DURATION_UNITS, found.groups()[1:], strict=False):
        sums[unit] += sign * factor * int(count or 0)
    for unit, bits in (("months", 31), ("days", 31), ("nanoseconds", 63)):
        if not -(2**bits) <= sums[unit] < 2**bits:
            raise ValueError
    return util.Duration(**sums)


def _to_address(value: Any) -> str:
    if "%" in value:
        raise ValueError
    return str(ip_address(value))


def _to_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    found = re.fullmatch(r"0[xX]((?:[0-9a-fA-F]{2})*)", value)
    if not found:
        raise ValueError
    return bytes.fromhex(found[1])


@dataclass(frozen=True)
class _Scalar:
    driver_type: Any
    parse: Callable[[Any], Any]
    valid: str
    show: Callable[[Any], str] = str


def _whole(driver_type: Any, bits: int) -> _Scalar:
    valid = f"a whole number from {-(2 ** (bits - 1))} to {2 ** (bits - 1) - 1}"
    return _Scalar(driver_type, _to_whole, valid)


def show_double(number: float) -> str:
    """Give the shortest text that is read as the same number, which Java's servers read too."""
    text = repr(number)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)


def _show_float(number: float) -> str:
    pack = cqltypes.FloatType.serialize
    stored = pack(number, PROTOCOL_VERSION)
    for digits in range(1, 10):
        rounded = float(f"{number:.{digits}g}")
        # Rounded up, the largest number is more than four bytes hold.
        with suppress(OverflowError):
            if pack(rounded, PROTOCOL_VERSION) == stored:
                return show_double(rounded)
    return show_double(number)


def _show_millis(millis: int) -> str:
    try:
        moment = _EPOCH + millis * _MILLISECOND
    except OverflowError:
        return str(millis)
    precision = "milliseconds" if millis % 1000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _show_date(day: util.Date) -> str:
    try:
        return day.date().isoformat()
    except (ValueError, OverflowError):
        # As a server reads a number that stands for a date.
        return str(day.days_from_epoch + cqltypes.SimpleDateType.EPOCH_OFFSET_DAYS)


def _show_bytes(value: bytes) -> str:
    return "0x" + value.hex()


_SCALARS = {
    "ascii": _Scalar(cqltypes.AsciiType, _to_text, "text of ASCII characters, in quotes"),
    "text": _Scalar(cqltypes.UTF8Type, _to_text, "text, in quotes"),
    "tinyint": _whole(cqltypes.ByteType, 8),
    "smallint": _whole(cqltypes.ShortType, 16),
    "int": _whole(cqltypes.Int32Type, 32),
    "bigint": _whole(cqltypes.LongType, 64),
    "counter": _whole(cqltypes.CounterColumnType, 64),
    "varint": _Scalar(cqltypes.IntegerType, _to_whole, "a whole number"),
    "float": _Scalar(
        cqltypes.FloatType, _to_real, "a number up to 3.4e38, NaN or Infinity", _show_float
    ),
    "double": _Scalar(
        cqltypes.DoubleType, _to_real, "a number up to 1.7e308, NaN or Infinity", show_double
    ),
    "decimal": _Scalar(cqltypes.DecimalType, _to_decimal, "a number such as 12.50"),
    "boolean": _Scalar(
        cqltypes.BooleanType, _to_boolean, "true or false", lambda truth: str(truth).lower()
    ),
    "uuid": _Scalar(
        cqltypes.UUIDType, _to_uuid, "32 hex digits as in 123e4567-e89b-42d3-a456-426614174000"
    ),
    "timeuuid": _Scalar(
        cqltypes.TimeUUIDType,
        _to_timeuuid,
        "a UUID of version 1 such as 50554d6e-29bb-11e5-b345-feff819cdc9f",
    ),
    # The driver's own type carries milliseconds as a float, which cannot hold all of them.
    "timestamp": _Scalar(
        cqltypes.LongType,
        _to_millis,
        "2024-01-31T10:20:30Z, or milliseconds since 1970",
        _show_millis,
    ),
    "date": _Scalar(cqltypes.SimpleDateType, _to_date, "a date such as 2024-01-31", _show_date),
    "time": _Scalar(cqltypes.TimeType, _to_clock, "a time of day such as '10:20:30.5', in quotes"),
    "duration": _Scalar(
        cqltypes.DurationType, _to_duration, "a duration such as 1y2mo3d4h5m6s or P1Y2M3DT4H5M6S"
    ),
    "inet": _Scalar(
        cqltypes.InetAddressType, _to_address, "an address such as 192.0.2.1 or 2001:db8::1"
    ),
    "blob": _Scalar(cqltypes.BytesType, _to_bytes, "hex digits in pairs after 0x", _show_bytes),
}
_OPAQUE = replace(_SCALARS["blob"], valid="its serialized bytes as hex digits in pairs after 0x")


def show_value(value: bytes, cql_type: CqlType) -> str:
    """Give a value as text: as it is, as a number, as ISO 8601 in UTC, or as a CQL literal.

    Bytes that are no value of the type are shown in hex.
    """
    try:
        return _show(value, cql_type)
    except (ValueError, ArithmeticError, OSError, IndexError, TypeError, error):
        return _show_bytes(value)


def _show(value: bytes, cql_type: CqlType) -> str:
    name, inner = cql_type.name, cql_type.parameters
    if name in ("list", "set"):
        shown = ", ".join(_show_inner(element, inner[0]) for element in read_elements(value))
        return f"[{shown}]" if name == "list" else f"{{{shown}}}"
    if name == "map":
        entries = read_entries(value)
        shown = (f"{_show_inner(k, inner[0])}: {_show_inner(v, inner[1])}" for k, v in entries)
        return f"{{{', '.join(shown)}}}"
    if name == "udt":
        pairs = zip(cql_type.fields, read_fields(value, len(cql_type.fields)), strict=True)
        shown = (f"{quote(name)}: {_show_inner(field, kind)}" for (name, kind), field in pairs)
        return f"{{{', '.join(shown)}}}"
    if name == "tuple":
        pairs = zip(read_fields(value, len(inner)), inner, strict=True)
        return f"({', '.join(_show_inner(field, kind) for field, kind in pairs)})"
    if name == "vector":
        elements = read_vector(value, cql_type)
        return f"[{', '.join(_show_inner(element, inner[0]) for element in elements)}]"
    scalar = _SCALARS.get(name, _OPAQUE)
    if not value and name not in ("blob", "custom"):
        return ""
    return scalar.show(scalar.driver_type.deserialize(value, PROTOCOL_VERSION))


def _show_inner(value: bytes | None, cql_type: CqlType) -> str:
    if value is None:
        return "null"
    shown = show_value(value, cql_type)
    return "'" + shown.replace("'", "''") + "'" if cql_type.name in ("text", "ascii") else shown
