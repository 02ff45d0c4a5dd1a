"""Changes of a column's type that a user asks for by name, such as int to text.

The names are the Cassandra Data Migrator's. Each codec works in both directions; a value that
cannot be changed is refused, never bent: no text is trimmed, no number rounded to a whole one.
"""

import re
from struct import Struct, error
from zoneinfo import ZoneInfo

from cassandra.cqltypes import DecimalType, DoubleType

from migration_platform.cql.conversion import Converter
from migration_platform.cql.rows import INT32
from migration_platform.cql.samples import cut_sample
from migration_platform.cql.types import CqlType
from migration_platform.cql.values import PROTOCOL_VERSION, encode_value, shorten, show_double
from migration_platform.declaration.columns import Columns
from migration_platform.java_time.calendar import NotDateError
from migration_platform.java_time.dates import DatePattern

_INT64 = Struct(">q")

_PAIRS = {
    "INT_STRING": ("int", "text"),
    "DOUBLE_STRING": ("double", "text"),
    "BIGINT_STRING": ("bigint", "text"),
    "DECIMAL_STRING": ("decimal", "text"),
    "STRING_BLOB": ("blob", "text"),
    "ASCII_BLOB": ("blob", "ascii"),
    "TIMESTAMP_STRING_MILLIS": ("timestamp", "text"),
    "TIMESTAMP_STRING_FORMAT": ("timestamp", "text"),
}


def build_codec(origin: CqlType, target: CqlType, columns: Columns) -> Converter | None:
    """Build the change from one type to the other; None if no codec that is named does it.

    The function that it gives raises ValueError for a value that cannot be changed.

    Raises:
        ValueError: the timestamps' format or zone is not supported; one sentence.
    """
    name = next((name for name in columns.codecs if _fits(name, origin, target)), None)
    if name is None:
        return None
    raw, _ = _PAIRS[name]
    if origin.name == raw:
        return _refuse_with(name, raw, _build_writer(name, target, columns))
    return _refuse_with(name, raw, _build_reader(name, target, columns))


def hint_for(origin: CqlType, target: CqlType) -> str | None:
    """Name the codecs that would change one type into the other, joined by "or"."""
    return " or ".join(name for name in _PAIRS if _fits(name, origin, target)) or None


def is_injective(
    name: str, origin: CqlType, target: CqlType, columns: Columns | None = None
) -> bool:
    """Say whether two different values of the origin never become one at the target.

    A format of timestamps must have every part down to the millisecond, and a zone whose clocks
    are never put back.
    """
    if target.name == "blob" or origin.name == "blob":
        return True
    if name == "TIMESTAMP_STRING_FORMAT":
        pattern = _date_pattern(columns or Columns())
        return pattern.is_exact if origin.name == "timestamp" else pattern.reads_one_text
    # "1", "01" and "+1" are one number.
    return origin.name not in ("text", "ascii")


def _fits(name: str, origin: CqlType, target: CqlType) -> bool:
    raw, text = _PAIRS[name]
    if origin.name == raw:
        # A blob may be any text; what the other codecs write is ASCII.
        return target.name == text or (
            target.name == "ascii" and text == "text" and name != "STRING_BLOB"
        )
    return target.name == raw and origin.name in ((text,) if text == "ascii" else ("text", "ascii"))


def _refuse_with(name: str, raw: str, change: Converter) -> Converter:
    def convert(value: bytes) -> bytes:
        try:
            return change(value)
        except UnicodeDecodeError as failure:
            shown = cut_sample("0x" + value.hex())
            raise ValueError(f"{name}: {shown} is no {_ENCODINGS[failure.encoding]}") from failure
        except (error, IndexError) as failure:
            raise ValueError(f"{name}: {cut_sample('0x' + value.hex())} is no {raw}") from failure
        except ValueError as failure:
            raise ValueError(f"{name}: {failure}") from failure

    return convert


_ENCODINGS = {"utf-8": "text in UTF-8", "ascii": "text in ASCII"}


def _build_writer(name: str, target: CqlType, columns: Columns) -> Converter:
    """Build the change from a number, timestamp or blob to text."""
    if name == "TIMESTAMP_STRING_FORMAT":
        return _build_format(columns, "ascii" if target.name == "ascii" else "utf-8")
    return _WRITERS[name]


def _build_reader(name: str, target: CqlType, columns: Columns) -> Converter:
    """Build the change from text to a number, timestamp or blob."""
    if name == "TIMESTAMP_STRING_FORMAT":
        return _build_parse(columns)
    if name == "TIMESTAMP_STRING_MILLIS":
        return _read_millis
    if target.name == "blob":
        return bytes
    return lambda value: encode_value(value.decode(), target)


def _write_decimal(value: bytes) -> bytes:
    try:
        return str(DecimalType.deserialize(value, PROTOCOL_VERSION)).encode()
    except ValueError as failure:
        raise error("no decimal") from failure


def _write_double(value: bytes) -> bytes:
    return show_double(DoubleType.deserialize(value, PROTOCOL_VERSION)).encode()


def _check(encoding: str) -> Converter:
    def check(value: bytes) -> bytes:
        value.decode(encoding)
        return value

    return check


_WRITERS: dict[str, Converter] = {
    "INT_STRING": lambda value: b"%d" % INT32.unpack(value),
    "BIGINT_STRING": lambda value: b"%d" % _INT64.unpack(value),
    "TIMESTAMP_STRING_MILLIS": lambda value: b"%d" % _INT64.unpack(value),
    "DOUBLE_STRING": _write_double,
    "DECIMAL_STRING": _write_decimal,
    "STRING_BLOB": _check("utf-8"),
    "ASCII_BLOB": _check("ascii"),
}


def _read_millis(value: bytes) -> bytes:
    text = value.decode()
    if re.fullmatch(r"[+-]?[0-9]{1,19}", text) and -(2**63) <= int(text) < 2**63:
        return _INT64.pack(int(text))
    raise ValueError(f"{shorten(repr(text))} is no number of milliseconds since 1970")


# -- timestamps in a format --------------------------------------------------------------------


def _date_pattern(columns: Columns) -> DatePattern:
    return DatePattern(columns.timestamp_format, _find_zone(columns.timestamp_zone))


def _find_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, LookupError, OSError) as failure:
        raise ValueError(
            f"timestamp_zone {name!r} is not known; write a name such as UTC or Europe/Berlin"
        ) from failure


def _build_format(columns: Columns, encoding: str) -> Converter:
    pattern = _date_pattern(columns)
    if encoding == "ascii" and not pattern.is_ascii:
        raise ValueError(
            f"timestamp_format {columns.timestamp_format!r} has characters that are not ASCII, "
            "but the target's column is ascii"
        )
    write_text = pattern.build_writer()

    def write(value: bytes) -> bytes:
        (millis,) = _INT64.unpack(value)
        try:
            return write_text(millis).encode(encoding)
        except NotDateError as failure:
            raise ValueError(f"the timestamp of {millis} milliseconds {failure}") from failure

    return write


def _build_parse(columns: Columns) -> Converter:
    read_text = _date_pattern(columns).build_reader()

    def read(value: bytes) -> bytes:
        text = value.decode()
        try:
            return _INT64.pack(read_text(text))
        except NotDateError as failure:
            raise ValueError(f"{shorten(repr(text))} {failure}") from failure

    return read
