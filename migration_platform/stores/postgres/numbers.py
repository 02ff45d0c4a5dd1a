"""Numbers as PostgreSQL's numeric: groups of four digits, and how many stand after the point.

A guess that would be wrong: numeric keeps the zeros after a decimal's point, but takes 1.5 and 1.50
for one value, and has no digits to drop before the point: 1E+2 is 100.
"""

from collections.abc import Callable
from decimal import Decimal
from struct import Struct, error, unpack_from

from migration_platform.cql.forms import shortest_varint, write_varint
from migration_platform.cql.types import CqlType
from migration_platform.stores.postgres.codec import (
    Codec,
    Convert,
    forgiving,
    no_value,
    strict,
    unholdable,
)
from migration_platform.stores.postgres.types import PgType

MAX_DIGITS_BEFORE, MAX_SCALE = 131_072, 16_383
"""How many digits a numeric has before its point, and after it.
https://www.postgresql.org/docs/current/datatype-numeric.html
"""
_HEADER = Struct(">HhHH")
_SCALE = Struct(">i")
_FORMS = [Struct(f">HhHH{count}H") for count in range(32)]
_NEGATIVE = 0x4000
_PADS = (1, 10, 100, 1000)
_FEW_BITS = 400
"""Up to here division is quicker than text."""
_MOST_BITS = (MAX_DIGITS_BEFORE + MAX_SCALE) * 10 // 3 + 1
"""What is longer is not even written as digits, which takes long."""

Parts = tuple[int, int]
"""A number without its point, and how many of its digits stand after that."""


def write_numeric(number: int, scale: int) -> bytes:
    """Give the binary form of a number; `scale` is 0 to 16,383.

    Raises:
        OverflowError: it has more digits than a numeric may have.
    """
    if number.bit_length() > _MOST_BITS:
        raise OverflowError
    negative, rest = number < 0, abs(number)
    pad = -scale % 4
    if pad:
        rest *= _PADS[pad]
    groups: list[int] = []
    if rest.bit_length() <= _FEW_BITS:
        while rest:
            rest, group = divmod(rest, 10_000)
            groups.append(group)
        groups.reverse()
    else:
        # Python limits the conversion of an int to 4300 digits, as a protection.
        digits = str(Decimal(rest))
        digits = digits.zfill(-(-len(digits) // 4) * 4)
        groups = [int(digits[at : at + 4]) for at in range(0, len(digits), 4)]
    weight = len(groups) - 1 - (scale + pad) // 4 if groups else 0
    if weight * 4 >= MAX_DIGITS_BEFORE:
        raise OverflowError
    sign = _NEGATIVE if negative else 0
    count = len(groups)
    form = _FORMS[count] if count < len(_FORMS) else Struct(f">HhHH{count}H")
    return form.pack(count, weight, sign, scale, *groups)


def read_numeric(value: bytes) -> Parts:
    """Give the number of a binary form.

    Raises:
        ValueError: it is NaN or infinite.
    """
    count, weight, sign, scale = _HEADER.unpack_from(value)
    if sign not in (0, _NEGATIVE):
        raise ValueError("it is no finite number")
    if count < len(_FORMS):
        number = 0
        for group in _FORMS[count].unpack(value)[4:]:
            number = number * 10_000 + group
    else:
        groups = unpack_from(f">{count}H", value, 8)
        number = int(Decimal("".join([f"{group:04d}" for group in groups])))
    shift = scale - 4 * (count - 1 - weight)
    number = number * 10**shift if shift >= 0 else number // 10**-shift
    return (-number if sign else number), scale


def _read_decimal(cell: bytes) -> Parts:
    (scale,) = _SCALE.unpack_from(cell)
    if len(cell) == 4:
        raise ValueError("no digits")
    return int.from_bytes(cell[4:], "big", signed=True), scale


def _write_decimal(number: int, scale: int) -> bytes:
    return _SCALE.pack(scale) + write_varint(number)


def _read_varint(cell: bytes) -> Parts:
    if not cell:
        raise ValueError("no digits")
    return int.from_bytes(cell, "big", signed=True), 0


def _at_most_digits(number: int) -> int:
    """Give a bound for the digits of a number, without writing them."""
    return number.bit_length() * 1233 // 4096 + 1


def _without_negative_scale(number: int, scale: int) -> Parts:
    """Write the zeros out that a negative scale stands for: numeric has none.

    Raises:
        OverflowError: they are more than a numeric may have.
    """
    if scale >= 0:
        return number, scale
    if not number:
        return 0, 0
    if -scale > MAX_DIGITS_BEFORE:
        raise OverflowError
    return number * 10**-scale, 0


def _fitted(number: int, scale: int, pg_type: PgType) -> Parts:
    """Give a number the scale of a numeric(p,s).

    Raises:
        ValueError: it would be rounded.
        OverflowError: it has too many digits.
    """
    assert pg_type.digits is not None
    precision, wanted = pg_type.digits
    if not number:
        return 0, max(wanted, 0)
    if scale > wanted:
        if scale - wanted > _at_most_digits(number):
            raise ValueError
        number, rest = divmod(number, 10 ** (scale - wanted))
        if rest:
            raise ValueError
    elif wanted - scale > precision:
        raise OverflowError
    else:
        number *= 10 ** (wanted - scale)
    if _at_most_digits(number) > precision + 1 or abs(number) >= 10**precision:
        raise OverflowError
    return (number, wanted) if wanted >= 0 else (number * 10**-wanted, 0)


def _parts_codec(
    cql_type: CqlType,
    pg_type: PgType,
    read: Callable[[bytes], Parts],
    write: Callable[[int, int], bytes],
    canonical: Convert | None,
) -> Codec:
    """Build a codec from what reads a cell as a number, and what writes a number as a cell."""
    fixed = pg_type.digits is not None

    def to_parts(number: int, scale: int) -> Parts:
        if fixed:
            return _fitted(number, scale, pg_type)
        number, scale = _without_negative_scale(number, scale)
        if scale > MAX_SCALE:
            raise OverflowError
        return number, scale

    def encode(cell: bytes) -> bytes:
        try:
            number, scale = read(cell)
        except (ValueError, error) as failure:
            raise no_value(cell, cql_type) from failure
        try:
            if not fixed and 0 <= scale <= MAX_SCALE:
                return write_numeric(number, scale)
            return write_numeric(*to_parts(number, scale))
        except ValueError as failure:
            raise unholdable(
                cell, cql_type, f"would be rounded as {pg_type}", "numeric"
            ) from failure
        except OverflowError as failure:
            raise unholdable(
                cell,
                cql_type,
                f"has more digits than {pg_type} holds",
                "numeric" if fixed else "text",
            ) from failure

    note = (
        f"what {pg_type} would round or not hold is rejected"
        if fixed
        else f"beyond {MAX_DIGITS_BEFORE:,} digits before the point or {MAX_SCALE:,} after rejected"
    )
    return Codec(encode, strict(lambda value: write(*read_numeric(value))), canonical, note=note)


def decimal_as_numeric(cql_type: CqlType, pg_type: PgType) -> Codec:
    """Build the codec of a decimal: its scale is kept unless it is negative or the type's own."""
    fixed = pg_type.digits is not None

    def canonical(cell: bytes) -> bytes:
        if not fixed and cell and cell[0] < 0x80:
            return cell[:4] + shortest_varint(cell[4:])
        number, scale = _read_decimal(cell)
        if fixed:
            return _write_decimal(*_fitted(number, scale, pg_type))
        return _write_decimal(*_without_negative_scale(number, scale))

    found = _parts_codec(cql_type, pg_type, _read_decimal, _write_decimal, forgiving(canonical))
    return Codec(
        found.encode,
        found.decode,
        found.canonical,
        exact=False,
        note=f"{found.note}; comes back with "
        + (f"{max(pg_type.digits[1], 0)} digits after the point" if pg_type.digits else "no E+"),
    )


def _write_whole(number: int, scale: int) -> int:
    whole, rest = divmod(number, 10**scale)
    if rest:
        raise ValueError("it is no whole number")
    return whole


def varint_as_numeric(cql_type: CqlType, pg_type: PgType) -> Codec:
    """Build the codec of a whole number of any size."""
    return _parts_codec(
        cql_type,
        pg_type,
        _read_varint,
        lambda number, scale: write_varint(_write_whole(number, scale)),
        shortest_varint,
    )


def whole_as_numeric(cql_type: CqlType, pg_type: PgType, layout: Struct) -> Codec:
    """Build the codec of a whole number of one size."""
    found = _parts_codec(
        cql_type,
        pg_type,
        lambda cell: (layout.unpack(cell)[0], 0),
        lambda number, scale: layout.pack(_write_whole(number, scale)),
        None,
    )
    return found if pg_type.digits else Codec(found.encode, found.decode)
