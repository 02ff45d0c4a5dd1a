"""Changes of a column's type that a user asks for by name, such as int to text.

The names are the Cassandra Data Migrator's. Each codec works in both directions; a value that
cannot be changed is refused, never bent: no text is trimmed, no number rounded to a whole one.
"""

import re
from datetime import UTC, datetime, timedelta
from struct import Struct, error
from typing import Any
from zoneinfo import ZoneInfo

from cassandra.cqltypes import DecimalType, DoubleType

from migration_platform.cql_types import (
    PROTOCOL_VERSION,
    Converter,
    CqlType,
    encode_value,
    shorten,
    show_double,
)
from migration_platform.migration import Columns
from migration_platform.rows import INT32

_INT64 = Struct(">q")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

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
        columns = columns or Columns()
        if origin.name != "timestamp":
            return True
        parts = {part for part, _ in _parse_pattern(columns.timestamp_format)}
        is_fixed = _find_zone(columns.timestamp_zone).utcoffset(None) is not None
        return is_fixed and parts >= set(_FIELDS)
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
            shown = shorten("0x" + value.hex())
            raise ValueError(f"{name}: {shown} is no {_ENCODINGS[failure.encoding]}") from failure
        except (error, IndexError) as failure:
            raise ValueError(f"{name}: {shorten('0x' + value.hex())} is no {raw}") from failure
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

_FIELDS: dict[str, tuple[str, int]] = {
    "yyyy": ("year", 4),
    "MM": ("month", 2),
    "dd": ("day", 2),
    "HH": ("hour", 2),
    "mm": ("minute", 2),
    "ss": ("second", 2),
    "SSS": ("millisecond", 3),
}
_SUPPORTED = (
    "supported are yyyy or uuuu, MM, dd, HH, mm, ss and SSS, each once, with punctuation and text "
    "in single quotes between them"
)
_PATTERN = re.compile(r"'((?:[^']|'')*)'|(([A-Za-z])\3*)|([^A-Za-z'\[\]{}#])")


def _parse_pattern(pattern: str) -> list[tuple[str, str]]:
    """Cut Java's pattern into pairs: a field's letters and "", or "" and literal text."""
    parts: list[tuple[str, str]] = []
    at = 0
    while at < len(pattern):
        found = _PATTERN.match(pattern, at)
        if not found:
            raise ValueError(f"timestamp_format {pattern!r} has {pattern[at]!r}; {_SUPPORTED}")
        quoted, letters, _, plain = found.groups()
        at = found.end()
        if letters:
            name = "yyyy" if letters == "uuuu" else letters
            if name not in _FIELDS or (name, "") in parts:
                raise ValueError(f"timestamp_format {pattern!r} has {letters}; {_SUPPORTED}")
            parts.append((name, ""))
        else:
            literal = plain if quoted is None else quoted.replace("''", "'") or "'"
            parts.append(("", literal))
    missing = [name for name in ("yyyy", "MM", "dd") if (name, "") not in parts]
    if missing:
        raise ValueError(
            f"timestamp_format {pattern!r} has no {', '.join(missing)}; a date needs yyyy, MM "
            f"and dd, and {_SUPPORTED}"
        )
    return parts


def _find_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, LookupError, OSError) as failure:
        raise ValueError(
            f"timestamp_zone {name!r} is not known; write a name such as UTC or Europe/Berlin"
        ) from failure


def _build_format(columns: Columns, encoding: str) -> Converter:
    zone = _find_zone(columns.timestamp_zone)
    template = ""
    for field, literal in _parse_pattern(columns.timestamp_format):
        if field == "SSS":
            template += "{1:03}"
        elif field:
            attribute, width = _FIELDS[field]
            template += f"{{0.{attribute}:0{width}}}"
        else:
            template += literal.replace("{", "{{").replace("}", "}}")
    if encoding == "ascii" and not template.isascii():
        raise ValueError(
            f"timestamp_format {columns.timestamp_format!r} has characters that are not ASCII, "
            "but the target's column is ascii"
        )

    def write(value: bytes) -> bytes:
        (millis,) = _INT64.unpack(value)
        try:
            moment = (_EPOCH + millis * _MILLISECOND).astimezone(zone)
        except OverflowError as failure:
            raise ValueError(f"{millis} milliseconds are not in the years 1 to 9999") from failure
        return template.format(moment, moment.microsecond // 1000).encode(encoding)

    return write


def _build_parse(columns: Columns) -> Converter:
    zone = _find_zone(columns.timestamp_zone)
    parts = _parse_pattern(columns.timestamp_format)
    expression = re.compile(
        "".join(
            f"(?P<{_FIELDS[field][0]}>[0-9]{{{_FIELDS[field][1]}}})"
            if field
            else re.escape(literal)
            for field, literal in parts
        )
    )

    def read(value: bytes) -> bytes:
        text = value.decode()
        found = expression.fullmatch(text)
        if not found:
            raise _refusal(text, f"does not follow {columns.timestamp_format}")
        fields: dict[str, Any] = {name: int(digits) for name, digits in found.groupdict().items()}
        millisecond = fields.pop("millisecond", 0)
        try:
            local = datetime(**fields, microsecond=millisecond * 1000, tzinfo=zone)
            moment = local.astimezone(UTC)
        except (ValueError, OverflowError) as failure:
            raise _refusal(text, "is no date and time") from failure
        # In the hour that the clocks skip there is no such time; in the one that they repeat the
        # first is meant, as in Java.
        if moment.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
            raise _refusal(text, f"does not exist in {columns.timestamp_zone}")
        return _INT64.pack((moment - _EPOCH) // _MILLISECOND)

    return read


def _refusal(text: str, reason: str) -> ValueError:
    return ValueError(f"{shorten(repr(text))} {reason}")
