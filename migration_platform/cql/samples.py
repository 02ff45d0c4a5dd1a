"""Values as messages show them: as CQL that can be pasted, and cut where it is long."""

import re
from struct import error

from migration_platform.cql.elements import read_elements, read_entries, read_fields, read_vector
from migration_platform.cql.names import quote
from migration_platform.cql.types import CqlType
from migration_platform.cql.values import encode_value, show_value

SAMPLE_CHARACTERS = 100
_HEX = re.compile(r"(?:blobAs[A-Za-z]+\()?0x([0-9a-f]*)\)?")
_QUOTED = ("ascii", "text", "time", "inet")
_FUNCTIONS = {
    "ascii": "Ascii",
    "bigint": "Bigint",
    "boolean": "Boolean",
    "date": "Date",
    "decimal": "Decimal",
    "double": "Double",
    "float": "Float",
    "inet": "Inet",
    "int": "Int",
    "smallint": "Smallint",
    "text": "Text",
    "time": "Time",
    "timestamp": "Timestamp",
    "timeuuid": "Timeuuid",
    "tinyint": "Tinyint",
    "uuid": "Uuid",
    "varint": "Varint",
}
"""How the functions end that make a value of bytes, as `blobAsInt`."""
_OUT_OF_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_EXPONENT = re.compile(r"E[+-]?([0-9]+)")
_FIRST_GREGORIAN_DAY, _LAST_DAY = -141_427, 2_932_896
"""1582-10-15 and 9999-12-31: what servers of all releases, and this calendar, read alike."""
_DAY_MS = 86_400_000
_UNCONVERTED = re.compile(
    r'(cannot be converted: (?:"(?:[^"]|"")+"|[a-z][a-z0-9_]*)): .*', re.DOTALL
)


def cut_sample(text: str, length: int = SAMPLE_CHARACTERS) -> str:
    """Cut a text that is too long for a message, and say how long it is."""
    if len(text) <= length:
        return text
    if found := _HEX.fullmatch(text):
        return f"{text[:length]}... ({len(found[1]) // 2:,} bytes)"
    plain = text[1:-1].replace("''", "'") if text[0] == text[-1] == "'" else text
    return f"{text[:length]}... ({len(plain):,} characters)"


def without_values(reason: str) -> str:
    """Take a value that could not be converted out of the reason why a row was not written."""
    return _UNCONVERTED.sub(r"\1", reason)


def show_sample(cell: bytes | None, cql_type: CqlType) -> str:
    """Give a cell for a message: as `show_value`, cut where it is long."""
    return "null" if cell is None else cut_sample(show_value(cell, cql_type))


def show_literal(value: bytes, cql_type: CqlType) -> str:
    """Give a value as CQL, in one line, that a server reads as the same bytes.

    What has no literal is written as its bytes, in the function that makes the type of them.
    """
    try:
        return _literal(value, cql_type)
    except (ValueError, ArithmeticError, OSError, IndexError, TypeError, error):
        return _from_bytes(value, cql_type)


def _literal(value: bytes, cql_type: CqlType) -> str:
    name, inner = cql_type.name, cql_type.parameters
    if name in ("list", "set"):
        shown = ", ".join(_inner(element, inner[0]) for element in read_elements(value))
        return f"[{shown}]" if name == "list" else f"{{{shown}}}"
    if name == "map":
        entries = [f"{_inner(k, inner[0])}: {_inner(v, inner[1])}" for k, v in read_entries(value)]
        return f"{{{', '.join(entries)}}}"
    if name == "udt":
        pairs = zip(cql_type.fields, read_fields(value, len(cql_type.fields)), strict=True)
        fields = [f"{quote(field)}: {_inner(cell, kind)}" for (field, kind), cell in pairs]
        return f"{{{', '.join(fields)}}}"
    if name == "tuple":
        pairs = zip(read_fields(value, len(inner)), inner, strict=True)
        return f"({', '.join(_inner(cell, kind) for cell, kind in pairs)})"
    if name == "vector":
        elements = read_vector(value, cql_type)
        return f"[{', '.join(_inner(element, inner[0]) for element in elements)}]"
    return _scalar(value, cql_type)


def _inner(cell: bytes | None, cql_type: CqlType) -> str:
    return "null" if cell is None else show_literal(cell, cql_type)


def _scalar(value: bytes, cql_type: CqlType) -> str:
    name = cql_type.name
    shown = show_value(value, cql_type)
    if name not in _FUNCTIONS:
        return shown
    if name == "date" and len(value) == 4:
        # As a number, a date is counted from the middle of the numbers that have no sign.
        number = int.from_bytes(value, "big")
        plain = _FIRST_GREGORIAN_DAY <= number - 2**31 <= _LAST_DAY
        return f"'{shown}'" if plain else str(number)
    if name == "timestamp" and len(value) == 8:
        number = int.from_bytes(value, "big", signed=True)
        plain = _FIRST_GREGORIAN_DAY <= number // _DAY_MS <= _LAST_DAY
        return f"'{shown}'" if plain else str(number)
    if name == "decimal" and (found := _EXPONENT.search(shown)) and len(found[1]) > 2:
        # A server reads the exponent of a literal as that of a double.
        return _from_bytes(value, cql_type)
    if _OUT_OF_LINE.search(shown) or encode_value(shown, cql_type) != value:
        return _from_bytes(value, cql_type)
    return "'" + shown.replace("'", "''") + "'" if name in _QUOTED else shown


def _from_bytes(value: bytes, cql_type: CqlType) -> str:
    ends = _FUNCTIONS.get(cql_type.name)
    return f"blobAs{ends}(0x{value.hex()})" if ends else f"0x{value.hex()}"
