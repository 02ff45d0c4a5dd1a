"""Turns a value of a message's JSON into a cell of a key, as the server would write it.

A value that could mean two cells, such as a moment without a zone, is refused: a wrong key would
find no row, and the change would be lost without anybody noticing.
"""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from ipaddress import ip_address
from struct import Struct
from typing import Any

from migration_platform.cql.elements import (
    write_elements,
    write_entries,
    write_fields,
    write_vector,
)
from migration_platform.cql.forms import write_varint
from migration_platform.cql.order import sort_key
from migration_platform.cql.texts import NOT_OF_THE_TYPE, TEXTS, write_decimal
from migration_platform.cql.types import CqlType

ToCell = Callable[[Any], bytes]
"""Gives the cell of a value; raises NotCellError, or what `NO_VALUE` names, if there is none."""

NO_VALUE = (ValueError, RecursionError, *NOT_OF_THE_TYPE)
MAX_CELL = 65_535
"""Bytes of a key's cell, as servers have it; a collection within it cannot hold more elements."""
MAX_DIGITS = 4_300
"""Of a number, as Python has it for whole ones."""


class NotCellError(ValueError):
    """A value is none of its type, and its reason may be shown: it holds nothing of the value."""


# -- JSON --------------------------------------------------------------------------------------


def _read_number(text: str) -> Decimal:
    if len(text) > MAX_DIGITS:
        raise ValueError("too many digits")
    return Decimal(text)


parse_json: Callable[[str], Any] = json.JSONDecoder(parse_float=_read_number).decode
"""Numbers with a point or an exponent keep their digits, and so a decimal's scale."""


def name_kind(value: object) -> str:
    """Say what a value of JSON is, and nothing of what it holds."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    if isinstance(value, int):
        return "a whole number"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    return "a number with a point"


# -- scalars -----------------------------------------------------------------------------------

_WHOLE = re.compile(r"[+-]?[0-9]{1,4300}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,12})?")
_NO_NUMBER = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = re.compile(r"0[xX]((?:[0-9a-fA-F]{2})*)")
_MOMENT = re.compile(
    r"([+-]?[0-9]{4,10}-[0-9]{2}-[0-9]{2})[ T]"
    r"([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r" ?(?:(Z|UTC|GMT)|([+-][0-9]{2})(?::?([0-9]{2}))?)?",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?")
_INT64, _UINT32 = Struct(">q"), Struct(">I")
_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_LEAST_SCALE, _MOST_SCALE = -(2**31), 2**31 - 1
_GREGORIAN = "1582-10-15"
"""Java's older calendar, which writes a server's JSON, counts days before this one otherwise."""


def _to_whole(value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is str and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError


def _whole(form: str) -> ToCell:
    pack = Struct(form).pack

    def to_cell(value: Any) -> bytes:
        return pack(value if type(value) is int else _to_whole(value))

    return to_cell


def _text(encoding: str) -> ToCell:
    def to_cell(value: Any) -> bytes:
        if type(value) is not str:
            raise ValueError
        return value.encode(encoding)

    return to_cell


def _varint(value: Any) -> bytes:
    return write_varint(_to_whole(value))


def _to_decimal(value: Any) -> Decimal:
    if type(value) is str:
        if len(value) > MAX_DIGITS or not _NUMBER.fullmatch(value):
            raise ValueError
        return Decimal(value)
    if type(value) is int or type(value) is Decimal:
        return Decimal(value)
    raise ValueError


def _decimal(value: Any) -> bytes:
    number = _to_decimal(value)
    # Else an exponent could ask for any number of digits.
    if not _LEAST_SCALE <= -number.as_tuple().exponent <= _MOST_SCALE:  # type: ignore[operator]
        raise ValueError
    return write_decimal(number)


def _real(form: str) -> ToCell:
    pack = Struct(form).pack

    def to_cell(value: Any) -> bytes:
        if type(value) is float:  # NaN and infinities, as Python's and others' JSON has them
            return pack(value)
        if type(value) is str and _NO_NUMBER.fullmatch(value):
            return pack(float(value))
        number = float(_to_decimal(value))
        if number - number != 0:
            raise ValueError
        return pack(number)

    return to_cell


def _boolean(value: Any) -> bytes:
    if value is True or value == "true":
        return b"\1"
    if value is False or value == "false":
        return b"\0"
    raise ValueError


def _uuid(value: Any) -> bytes:
    if not _UUID.fullmatch(value):
        raise ValueError
    return bytes.fromhex(value.replace("-", ""))


def _timeuuid(value: Any) -> bytes:
    cell = _uuid(value)
    if cell[6] >> 4 != 1:
        raise NotCellError("it is no UUID of version 1")
    return cell


def _timestamp(value: Any) -> bytes:
    if type(value) is int:
        return _INT64.pack(value)
    # Ten times as fast as what follows, which reads all that is rare.
    with suppress(ValueError):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo and moment.year > 1582:
            return _INT64.pack((moment - _EPOCH) // _MILLISECOND)
    if _WHOLE.fullmatch(value):
        return _INT64.pack(int(value))
    found = _MOMENT.fullmatch(value)
    if not found:
        raise NotCellError("write ISO 8601 with a zone, or milliseconds since 1970")
    day, minute, second, fraction, utc, hours, minutes = found.groups()
    if not utc and not hours:
        raise NotCellError("it has no zone; write ISO 8601 with one, or milliseconds since 1970")
    if len(day) > 10:
        # Servers write 292275056 years before Christ and after it alike.
        raise NotCellError("a text does not tell of which era such a year is; write milliseconds")
    if day < _GREGORIAN:
        raise NotCellError(
            f"before {_GREGORIAN} calendars differ in what a text means; write milliseconds"
        )
    millis = (fraction or "").ljust(3, "0")[:3]
    (moment,) = _INT64.unpack(TEXTS["timestamp"].read(f"{day}T{minute}:{second or '00'}.{millis}Z"))
    if hours:
        offset = (int(hours[1:]) * 60 + int(minutes or 0)) * 60_000
        moment += -offset if hours[0] == "+" else offset
    return _INT64.pack(moment)


def _date(value: Any) -> bytes:
    if type(value) is int:
        return _UINT32.pack(value + 2**31)
    return TEXTS["date"].read(value)


def _time(value: Any) -> bytes:
    found = _CLOCK.fullmatch(value)
    if not found:
        raise NotCellError("write a time of day such as 10:20:30.5")
    hours, minutes, seconds, fraction = found.groups(default="0")
    if int(hours) > 23 or int(minutes) > 59 or int(seconds) > 59:
        raise ValueError
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    return _INT64.pack(whole * 10**9 + int(fraction.ljust(9, "0")))


def _inet(value: Any) -> bytes:
    if type(value) is not str or "%" in value:
        raise ValueError
    return ip_address(value).packed


def _blob(value: Any) -> bytes:
    found = _HEX.fullmatch(value)
    if not found:
        raise NotCellError("write hex digits in pairs after 0x")
    return bytes.fromhex(found[1])


_SCALARS: Mapping[str, ToCell] = {
    "text": _text("utf-8"),
    "ascii": _text("ascii"),
    "tinyint": _whole(">b"),
    "smallint": _whole(">h"),
    "int": _whole(">i"),
    "bigint": _whole(">q"),
    "counter": _whole(">q"),
    "varint": _varint,
    "decimal": _decimal,
    "float": _real(">f"),
    "double": _real(">d"),
    "boolean": _boolean,
    "uuid": _uuid,
    "timeuuid": _timeuuid,
    "timestamp": _timestamp,
    "date": _date,
    "time": _time,
    "inet": _inet,
    "blob": _blob,
    "custom": _blob,
}
"""As servers write them with toJson, and what other writers are known for."""


# -- as Debezium's connector for Cassandra writes them -----------------------------------------


def _base64(value: Any) -> bytes:
    return b64decode(value, validate=True)


def _precise_decimal(value: Any) -> bytes:
    if isinstance(value, dict):
        scale, digits = value["scale"], _base64(value["value"])
        if type(scale) is not int or not digits:
            raise ValueError
        return Struct(">i").pack(scale) + write_varint(int.from_bytes(digits, "big", signed=True))
    if type(value) is str and "." in value:
        return _decimal(value)
    # 100 may be 1E+2 there, and a number may be the double next to the decimal: other bytes.
    raise NotCellError("its scale is lost; set the connector's decimal.handling.mode to precise")


def _varint_in_text(value: Any) -> bytes:
    if type(value) is str and _WHOLE.fullmatch(value):
        return _varint(value)
    # A number is cut to 64 bits there, and of digits nobody knows whether they are base64.
    raise NotCellError("set the connector's varint.handling.mode to string")


def _nanoseconds(value: Any) -> bytes:
    if not 0 <= _to_whole(value) < 86_400 * 10**9:
        raise ValueError
    return _INT64.pack(int(value))


def _java_inet(value: Any) -> bytes:
    # A host's name, if it has one, stands before the slash.
    return _inet(value.rpartition("/")[2])


_OF_DEBEZIUM: Mapping[str, ToCell] = {
    **_SCALARS,
    "blob": _base64,
    "custom": _base64,
    "decimal": _precise_decimal,
    "varint": _varint_in_text,
    "time": _nanoseconds,
    "inet": _java_inet,
}


# -- any type ----------------------------------------------------------------------------------


def compile_cell(cql_type: CqlType) -> ToCell:
    """Build what gives a key's cell from JSON as servers write it with toJson and SELECT JSON."""
    return _bounded(_build(cql_type, _SCALARS))


def compile_debezium_cell(cql_type: CqlType) -> ToCell:
    """Build what gives a key's cell from what Debezium's connector writes with its JSON."""
    return _bounded(_build(cql_type, _OF_DEBEZIUM))


def _bounded(to_cell: ToCell) -> ToCell:
    def bounded(value: Any) -> bytes:
        cell = to_cell(value)
        if len(cell) > MAX_CELL:
            raise NotCellError(f"with {len(cell)} bytes it is too long for a key")
        return cell

    return bounded


def _build(cql_type: CqlType, scalars: Mapping[str, ToCell]) -> ToCell:
    name = cql_type.name
    inner = [_build(kind, scalars) for kind in cql_type.parameters]
    if name == "list":
        return partial(_list, inner[0])
    if name == "set":
        return partial(_set, inner[0], sort_key(cql_type.parameters[0]))
    if name == "map":
        key_type, _ = cql_type.parameters
        key = inner[0] if key_type.name in scalars else _within_text(inner[0])
        return partial(_map, key, inner[0], inner[1], sort_key(key_type))
    if name == "udt":
        return partial(_udt, {field: _build(kind, scalars) for field, kind in cql_type.fields})
    if name == "tuple":
        return partial(_tuple, inner)
    if name == "vector":
        return partial(_vector, inner[0], cql_type)
    if name not in scalars:
        return _never
    return scalars[name]


def _never(_value: Any) -> bytes:
    raise NotCellError("no key has such a type")


def _within_text(to_cell: ToCell) -> ToCell:
    """Read a map's key that is itself JSON, which is a text there."""

    def read(value: Any) -> bytes:
        return to_cell(parse_json(value) if type(value) is str else value)

    return read


def _elements(value: Any) -> list[Any]:
    if type(value) is not list or len(value) > MAX_CELL:
        raise ValueError
    return value


def _list(to_cell: ToCell, value: Any) -> bytes:
    return write_elements([to_cell(element) for element in _elements(value)])


def _set(to_cell: ToCell, order: Callable[[bytes], Any], value: Any) -> bytes:
    kept: dict[Any, bytes] = {}
    for element in map(to_cell, _elements(value)):
        kept.setdefault(order(element), element)
    return write_elements([kept[place] for place in sorted(kept)])


def _map(
    key_in_text: ToCell,
    key_to_cell: ToCell,
    value_to_cell: ToCell,
    order: Callable[[bytes], Any],
    value: Any,
) -> bytes:
    if isinstance(value, dict):
        pairs: list[Any] = list(value.items())
    else:
        # Where keys are no texts, Kafka Connect writes pairs.
        pairs, key_in_text = _elements(value), key_to_cell
    if len(pairs) > MAX_CELL:
        raise ValueError
    kept: dict[Any, tuple[bytes, bytes | None]] = {}
    for key, content in pairs:
        cell = key_in_text(key)
        place = order(cell)
        kept[place] = (kept[place][0] if place in kept else cell, value_to_cell(content))
    return write_entries([kept[place] for place in sorted(kept)])


def _udt(fields: Mapping[str, ToCell], value: Any) -> bytes:
    if not isinstance(value, dict):
        raise ValueError
    # Servers write a name with capitals in quotes of its own.
    given = {name if name in fields else name.removeprefix('"').removesuffix('"') for name in value}
    if not given <= fields.keys():
        raise NotCellError("it has a field that the type does not have")
    found = [value.get(name, value.get(f'"{name}"')) for name in fields]
    return _fields(list(fields.values()), found)


def _tuple(inner: list[ToCell], value: Any) -> bytes:
    if isinstance(value, dict):
        # Kafka Connect has no tuples: a struct's fields stand in their order.
        value = list(value.values())
    if len(_elements(value)) != len(inner):
        raise ValueError
    return _fields(inner, value)


def _fields(inner: list[ToCell], values: list[Any]) -> bytes:
    pairs = zip(inner, values, strict=True)
    return write_fields([None if item is None else to_cell(item) for to_cell, item in pairs])


def _vector(to_cell: ToCell, cql_type: CqlType, value: Any) -> bytes:
    if len(_elements(value)) != cql_type.dimensions:
        raise ValueError
    return write_vector([to_cell(element) for element in value], cql_type)
