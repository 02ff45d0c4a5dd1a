"""The order in which Cassandra keeps values of a type: in a set, in a map, in a partition."""

from collections.abc import Callable
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import cache
from math import copysign, isnan
from struct import Struct
from typing import Any

from migration_platform.cql.elements import read_elements, read_entries, read_fields, read_vector
from migration_platform.cql.types import CqlType

_FLOAT, _DOUBLE = Struct(">f"), Struct(">d")
_SIGNED = bytes(byte ^ 0x80 for byte in range(256))
"""Translates bytes so that they compare as signed ones do."""
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def _order_whole(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def _order_real(form: Struct) -> Callable[[bytes], tuple]:
    def order(value: bytes) -> tuple:
        (number,) = form.unpack(value)
        return (1,) if isnan(number) else (0, number, copysign(1, number))

    return order


def _order_decimal(value: bytes) -> Decimal:
    # The driver's own way goes through text, which Python refuses beyond 4300 digits.
    scale, unscaled = _order_whole(value[:4]), Decimal(_order_whole(value[4:]))
    return _EXACT.scaleb(unscaled, -scale)


def _order_uuid(value: bytes) -> tuple[int, bytes]:
    version = value[6] >> 4
    return version, (_time_of(value) + value[8:] if version == 1 else value)


def _order_timeuuid(value: bytes) -> bytes:
    return _time_of(value) + value[8:].translate(_SIGNED)


def _time_of(value: bytes) -> bytes:
    return value[6:8] + value[4:6] + value[:4]


_ORDERS: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(
        ("tinyint", "smallint", "int", "bigint", "counter", "timestamp", "varint"), _order_whole
    ),
    "float": _order_real(_FLOAT),
    "double": _order_real(_DOUBLE),
    "decimal": _order_decimal,
    "boolean": lambda value: value[0] != 0,
    "uuid": _order_uuid,
    "timeuuid": _order_timeuuid,
}
"""Types that are not here compare as unsigned bytes: text, blob, inet, date, time and so on."""


@cache
def sort_key(cql_type: CqlType) -> Callable[[bytes], Any]:
    """Build the key by which Cassandra orders values of a type, in a set for example.

    Values with one key are one value to the server: 1.0 and 1.00 as decimals, or any two NaN. Of
    a custom type only its class knows the order; here its bytes count, as those of a duration.
    """
    kinds = cql_type.parameters or tuple(kind for _, kind in cql_type.fields)
    order = _order_nested(cql_type, [sort_key(kind) for kind in kinds])
    order = order or _ORDERS.get(cql_type.name)
    if order is None:
        return by_bytes
    # Most types may be empty, which comes before all else.
    return lambda value: (order(value),) if value else ()


def _order_nested(
    cql_type: CqlType, keys: list[Callable[[bytes], Any]]
) -> Callable[[bytes], tuple] | None:
    match cql_type.name:
        case "list" | "set":
            return lambda value: tuple(null_first(e, keys[0]) for e in read_elements(value))
        case "map":
            return lambda value: tuple(
                (keys[0](k), null_first(v, keys[1])) for k, v in read_entries(value)
            )
        case "tuple" | "udt":
            return lambda value: tuple(map(null_first, read_fields(value, len(keys)), keys))
        case "vector":
            return lambda value: tuple(keys[0](e) for e in read_vector(value, cql_type))
    return None


def by_bytes(value: bytes) -> bytes:
    """Give the key of types that compare as their bytes do."""
    return value


def null_first(value: bytes | None, key: Callable[[bytes], Any]) -> tuple:
    """Give the key of an element that may be null, which comes before all others."""
    return () if value is None else (key(value),)
