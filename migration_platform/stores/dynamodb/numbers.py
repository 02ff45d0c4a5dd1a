"""Numbers as DynamoDB's N, which holds 38 digits, and no NaN or infinity.

A guess that would be wrong: an N does not keep how many decimals a number was written with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from math import copysign
from struct import Struct

from migration_platform.cql.forms import shortest_varint, write_varint
from migration_platform.cql.texts import (
    EXACT,
    TEXTS,
    Canonical,
    read_decimal,
    read_varint,
    write_decimal,
)

_DIGITS = 10**38
_LEAST, _MOST = -130, 125
"""What an N holds: 38 digits, from 1E-130 to 9.99E+125 on both sides of zero.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
"""


@dataclass(frozen=True)
class Number:
    """A type's values as N; `write` gives None for one that no N holds."""

    write: Callable[[bytes], str | None]
    read: Callable[[str], bytes]
    canonical: Canonical | None = None
    always: bool = True
    """Whether an N holds every value."""


def _whole_number(form: str, offset: int = 0) -> Number:
    layout = Struct(form)
    unpack, pack = layout.unpack, layout.pack
    if not offset:
        return Number(lambda cell: str(unpack(cell)[0]), lambda text: pack(int(text)))
    return Number(lambda cell: str(unpack(cell)[0] + offset), lambda text: pack(int(text) - offset))


def _write_big_number(cell: bytes) -> str | None:
    number = read_varint(cell)
    if -_DIGITS < number < _DIGITS:
        return str(number)
    if number.bit_length() > 420:
        return None
    return _fitting(Decimal(number))


def _read_big_number(text: str) -> bytes:
    number = Decimal(text)
    if number.adjusted() > _MOST or number != number.to_integral_value(context=EXACT):
        raise ValueError(text)
    return write_varint(int(number))


def _write_decimal_number(cell: bytes) -> str | None:
    return _fitting(read_decimal(cell))


def _fitting(number: Decimal) -> str | None:
    if not number:
        return "0"
    if not _LEAST <= number.adjusted() <= _MOST:
        return None
    number = EXACT.normalize(number)
    return str(number) if len(number.as_tuple().digits) <= 38 else None


def _plain_decimal(cell: bytes) -> bytes:
    """Give the number without the scale that it was written with: 1.50 as 1.5, 1E+2 as 100."""
    return _write_plain(read_decimal(cell)) if cell else cell


def _write_plain(number: Decimal) -> bytes:
    if not number:
        return write_decimal(Decimal(0))
    number = EXACT.normalize(number)
    if 0 <= number.adjusted() < 38 and number == number.to_integral_value(context=EXACT):
        number = Decimal(int(number))
    return write_decimal(number)


def _real_number(name: str) -> Number:
    text, layout = TEXTS[name], Struct(">f" if name == "float" else ">d")
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

    return Number(write, read, text.canonical, always=False)


NUMBERS = {
    "tinyint": _whole_number(">b"),
    "smallint": _whole_number(">h"),
    "int": _whole_number(">i"),
    "bigint": _whole_number(">q"),
    "counter": _whole_number(">q"),
    "varint": Number(_write_big_number, _read_big_number, shortest_varint, always=False),
    "decimal": Number(
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
