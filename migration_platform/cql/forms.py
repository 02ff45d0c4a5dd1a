"""The byte forms of one value: what a server takes for equal although the bytes differ.

Partition keys are told apart by their bytes. Clustering columns, a set's elements and a map's keys
are told apart by their type's order, in which 1.5 and 1.50 are one decimal. So the same row can
stand in two tables with two keys, and it would be wrong to call one of them missing and the other
extra. `usual_form` gives one form for all forms of a value; it is itself a form of that value, so a
server that is asked for it finds every other.

What was found out about each type on a server is in `docs/equality.md`, and in its test.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from struct import Struct, error
from struct import pack as pack_bytes

from migration_platform.cql.conversion import Converter, sort_elements
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
from migration_platform.cql.types import CqlType

_SCALE = Struct(">i")
_LEAST_SCALE = -(2**31)
_MAPPED = b"\x00" * 10 + b"\xff\xff"
"""Begins an IPv6 address that stands for an IPv4 one."""
_COLLECTIONS = ("list", "set", "map")


# -- scalars -----------------------------------------------------------------------------------


def write_varint(number: int) -> bytes:
    """Give an integer in as few bytes as hold it and its sign."""
    bits = (number if number >= 0 else ~number).bit_length()
    return number.to_bytes(bits // 8 + 1, "big", signed=True)


def shortest_varint(cell: bytes) -> bytes:
    """Take leading bytes away that say nothing."""
    return write_varint(int.from_bytes(cell, "big", signed=True)) if cell else cell


def one_or_zero(cell: bytes) -> bytes:
    """Give a boolean as 1 or 0: servers take any byte but zero for true."""
    return b"\1" if len(cell) == 1 and cell != b"\0" else cell


def one_nan(layout: str) -> Converter:
    """Build what makes everything that is not a number one; 0.0 and -0.0 stay two.

    `layout` is `>f` or `>d`.
    """
    unpack, not_a_number = Struct(layout).unpack, pack_bytes(layout, float("nan"))

    def usual(cell: bytes) -> bytes:
        # Exponents of ones only: infinities and all that is not a number.
        if cell and cell[0] & 0x7F == 0x7F:
            (number,) = unpack(cell)
            return cell if number == number else not_a_number
        return cell

    return usual


def _fewest_digits(cell: bytes) -> bytes:
    """Take zeros off the end of a decimal's digits: 1.50 becomes 1.5, and 100 becomes 1E+2."""
    if len(cell) < 5:
        return cell
    (scale,) = _SCALE.unpack_from(cell)
    number = int.from_bytes(cell[4:], "big", signed=True)
    if not number:
        return b"\0\0\0\0\0"
    # As many tens as twos at most, and no smaller scale than there is.
    left = min((number & -number).bit_length() - 1, scale - _LEAST_SCALE)
    step = 1 << left.bit_length() >> 1
    while step:
        if step <= left:
            quotient, rest = divmod(number, 10**step)
            if not rest:
                number, scale, left = quotient, scale - step, left - step
        step >>= 1
    return _SCALE.pack(scale) + write_varint(number)


def _short_address(cell: bytes) -> bytes:
    """Write an IPv4 address in four bytes, as servers do of those in collections."""
    return cell[12:] if len(cell) == 16 and cell.startswith(_MAPPED) else cell


_SCALARS: dict[str, Converter] = {
    "decimal": _fewest_digits,
    "varint": shortest_varint,
    "float": one_nan(">f"),
    "double": one_nan(">d"),
    "boolean": one_or_zero,
}
"""Types of which a value has several forms; of all others that hold nothing it has one."""


# -- any type ----------------------------------------------------------------------------------


@cache
def usual_form(cql_type: CqlType) -> Converter | None:
    """Build what gives a cell the usual form of its value; None where each value has one form.

    Two cells become the same bytes exactly if the order of their type takes them for one value.
    Bytes that are no value of the type stay as they are.
    """
    return _forgiving(_build(cql_type, in_collection=False))


def in_usual_form(usual: Converter | None, cell: bytes | None) -> bytes | None:
    """Give a cell its usual form, where it has another."""
    return cell if cell is None or usual is None else usual(cell)


@cache
def usual_elements(cql_type: CqlType) -> Converter | None:
    """Build what gives the elements of a set, or the keys of a map, their usual form.

    A map's values, and what stands in a list or a field, keep theirs: nobody looks them up.
    """
    kind = _build(cql_type.parameters[0], in_collection=True) if cql_type.parameters else None
    if kind is None or cql_type.name not in ("set", "map"):
        return None
    if cql_type.name == "set":
        return _forgiving(_each_element(kind))
    return _forgiving(lambda c: write_entries([(kind(k), v) for k, v in read_entries(c)]))


@cache
def comparable_element(cql_type: CqlType) -> Converter:
    """Build what gives an element of a set, or a map's key, bytes that it shares with its likes.

    Sets within it are sorted: one that was converted may stand in another order.
    """
    usual = _forgiving(_build(cql_type, in_collection=True)) or _keep
    return lambda element: sort_elements(usual(element), cql_type)


def order_is_known(cql_type: CqlType) -> bool:
    """Say whether it is known which values are one: of a custom class only the server knows."""
    inner = (*cql_type.parameters, *(kind for _, kind in cql_type.fields))
    return cql_type.name != "custom" and all(map(order_is_known, inner))


def _forgiving(usual: Converter | None) -> Converter | None:
    if usual is None:
        return None

    def convert(cell: bytes) -> bytes:
        try:
            return usual(cell)
        except (ValueError, IndexError, error):
            return cell

    return convert


def _build(cql_type: CqlType, *, in_collection: bool) -> Converter | None:
    name = cql_type.name
    is_collection = name in _COLLECTIONS
    inner = [_build(kind, in_collection=is_collection) for kind in cql_type.parameters]
    if is_collection and name != "map":
        return _each_element(inner[0]) if inner[0] else None
    if name == "map":
        key, value = inner
        return _each_entry(key or _keep, value or _keep) if key or value else None
    if name == "vector":
        kind = inner[0]
        return _each_of_vector(kind, cql_type) if kind else None
    if name == "tuple":
        return _all_fields(inner)
    if name == "udt":
        return _all_fields([_build(kind, in_collection=False) for _, kind in cql_type.fields])
    if name == "inet" and in_collection:
        return _short_address
    return _SCALARS.get(name)


def _keep(cell: bytes) -> bytes:
    return cell


def _optional(usual: Converter | None) -> Callable[[bytes | None], bytes | None]:
    return partial(in_usual_form, usual)


def _each_element(usual: Converter) -> Converter:
    convert = _optional(usual)
    return lambda cell: write_elements([convert(element) for element in read_elements(cell)])


def _each_entry(key: Converter, value: Converter) -> Converter:
    convert = _optional(value)
    return lambda cell: write_entries([(key(k), convert(v)) for k, v in read_entries(cell)])


def _each_of_vector(usual: Converter, cql_type: CqlType) -> Converter:
    return lambda cell: write_vector([usual(e) for e in read_vector(cell, cql_type)], cql_type)


def _all_fields(inner: Sequence[Converter | None]) -> Converter:
    convert = convert_fields(inner)
    return lambda cell: convert(cell) if cell else cell


def convert_fields(inner: Sequence[Converter | None]) -> Converter:
    """Build what converts fields, and writes out all: those that a value lacks are null."""

    def convert(cell: bytes) -> bytes:
        fields = zip(inner, read_fields(cell, len(inner)), strict=True)
        return write_fields(
            [step(field) if step and field is not None else field for step, field in fields]
        )

    return convert
