"""How the target's columns come from the origin's, as declared, and what is refused of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from zoneinfo import ZoneInfo

from migration_platform.cql.names import quote
from migration_platform.declaration.validation import (
    is_name,
    show,
    validate_choice,
    validate_choices,
    validate_flag,
    validate_mapping,
    validate_names,
)
from migration_platform.java_time.patterns import parse_pattern

UNMATCHED_MODES = ("refuse", "skip")
CODECS = (
    "INT_STRING",
    "DOUBLE_STRING",
    "BIGINT_STRING",
    "DECIMAL_STRING",
    "STRING_BLOB",
    "ASCII_BLOB",
    "TIMESTAMP_STRING_MILLIS",
    "TIMESTAMP_STRING_FORMAT",
)
"""The Cassandra Data Migrator's names; each works in both directions."""
KEY_TYPES = (
    *("ascii", "bigint", "blob", "boolean", "date", "decimal", "double", "float", "inet", "int"),
    *("smallint", "text", "time", "timestamp", "timeuuid", "tinyint", "uuid", "varint"),
)
"""The types of one piece that a key column can have."""


@dataclass(frozen=True)
class ExplodeMap:
    """A map column of the origin whose entries become rows of their own."""

    column: str
    key: str
    value: str


@dataclass(frozen=True)
class ExtractJson:
    """A text column of the origin that holds a JSON object, and where its properties go.

    `properties` maps a property's name to a target column. With `exclusive` nothing but the key
    and these columns is copied. Without `overwrite` a target column that holds a value already
    is no difference.
    """

    column: str
    properties: Mapping[str, str]
    exclusive: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Columns:
    """How the target's columns come from the origin's; names on the right are the target's.

    `unmatched` says what becomes of columns that only the origin has: `refuse` them, or `skip`.
    `key_defaults_by_type` holds for key columns of a type that `key_defaults` does not name.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    codecs: tuple[str, ...] = ()
    timestamp_format: str = "yyyyMMddHHmmss"
    timestamp_zone: str = "UTC"
    explode_map: ExplodeMap | None = None
    extract_json: ExtractJson | None = None
    key_defaults: Mapping[str, Any] = field(default_factory=dict)
    key_defaults_by_type: Mapping[str, Any] = field(default_factory=dict)
    unmatched: str = "refuse"


def validate_columns(columns: Columns) -> list[str]:
    """Refuse transformations that are not what they should be, or contradict each other."""
    if not isinstance(columns, Columns):
        return [f"columns is {show(columns)}; it must be Columns"]
    wrong = [
        *validate_mapping("columns.rename", columns.rename, to_names=True),
        *validate_names("columns.skip", columns.skip),
        *validate_mapping("columns.constants", columns.constants),
        *validate_mapping("columns.key_defaults", columns.key_defaults),
        *_validate_defaults_by_type(columns.key_defaults_by_type),
        *validate_choice("columns.unmatched", columns.unmatched, UNMATCHED_MODES),
        *validate_choices("columns.codecs", columns.codecs, CODECS),
        *_validate_timestamps(columns),
        *_validate_explode_map(columns.explode_map),
        *_validate_extract_json(columns.extract_json),
    ]
    # Contradictions are looked for only between parts that are what they should be.
    return wrong or _contradictions(columns)


def _validate_timestamps(columns: Columns) -> list[str]:
    wrong = []
    for name, value in (
        ("timestamp_format", columns.timestamp_format),
        ("timestamp_zone", columns.timestamp_zone),
    ):
        used = (
            not isinstance(columns.codecs, (tuple, list))
            or "TIMESTAMP_STRING_FORMAT" in columns.codecs
        )
        if not used and value != getattr(Columns, name):
            wrong.append(
                f"columns.{name} does nothing without the codec TIMESTAMP_STRING_FORMAT; "
                "name it in columns.codecs, or leave the one out"
            )
    pattern = columns.timestamp_format
    if not isinstance(pattern, str) or not pattern.strip():
        wrong.append(
            f"columns.timestamp_format is {show(pattern)}; write a pattern such as yyyyMMddHHmmss"
        )
    else:
        try:
            parse_pattern(pattern)
        except ValueError as failure:
            wrong.append(f"columns.timestamp_format is {show(pattern)}, which {failure}")
    zone = columns.timestamp_zone
    if not is_name(zone) or not _is_zone(zone):
        wrong.append(
            f"columns.timestamp_zone is {show(zone)}; name a zone of the IANA database, such as "
            "UTC, Europe/Berlin or Etc/GMT-2"
        )
    return wrong


def _is_zone(name: str) -> bool:
    if name == "UTC":
        return True
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        # A folder of the database, a path out of it, a name too long for a file.
        return False
    return True


def _validate_explode_map(exploded: ExplodeMap | None) -> list[str]:
    if exploded is None:
        return []
    if not isinstance(exploded, ExplodeMap):
        return [f"columns.explode_map is {show(exploded)}; it must be column, key and value"]
    return [
        f"columns.explode_map.{part} is {show(getattr(exploded, part))}; name a column"
        for part in ("column", "key", "value")
        if not is_name(getattr(exploded, part))
    ]


def _validate_extract_json(extracted: ExtractJson | None) -> list[str]:
    if extracted is None:
        return []
    if not isinstance(extracted, ExtractJson):
        return [f"columns.extract_json is {show(extracted)}; it must be column and properties"]
    name = "columns.extract_json"
    wrong = [
        *validate_mapping(f"{name}.properties", extracted.properties, to_names=True),
        *validate_flag(f"{name}.exclusive", extracted.exclusive),
        *validate_flag(f"{name}.overwrite", extracted.overwrite),
    ]
    if not is_name(extracted.column):
        wrong.append(f"{name}.column is {show(extracted.column)}; name a column")
    if not extracted.properties:
        wrong.append(f"{name}.properties is empty; name property: column")
    return wrong


def _validate_defaults_by_type(defaults: object) -> list[str]:
    name = "columns.key_defaults_by_type"
    if faults := validate_mapping(name, defaults):
        return faults
    return [
        f"{name} names {show(cql_type)}; valid are {', '.join(KEY_TYPES)}"
        for cql_type in cast(Mapping[str, Any], defaults)
        if cql_type not in KEY_TYPES
    ]


def _contradictions(columns: Columns) -> list[str]:
    """Find parts that are right by themselves and cannot be had together."""
    wrong = []
    if {"TIMESTAMP_STRING_MILLIS", "TIMESTAMP_STRING_FORMAT"} <= set(columns.codecs):
        wrong.append(
            "columns.codecs names both TIMESTAMP_STRING_MILLIS and TIMESTAMP_STRING_FORMAT; "
            "keep the one that the text follows"
        )
    wrong += [
        f"columns.rename turns {quote(name)} into itself; leave it out"
        for origin, name in columns.rename.items()
        if origin == name
    ]
    filled = _find_filled(columns)
    wrong += [
        f"two things fill the column {quote(name)}: {', '.join(sources)}; keep one"
        for name, sources in filled.items()
        if len(sources) > 1
    ]
    wrong += [
        f"columns.skip and columns.rename both name {quote(name)}; keep one"
        for name in columns.skip
        if name in columns.rename
    ]
    return [
        *wrong,
        *_contradict_key_defaults(columns, filled),
        *_contradict_read_columns(columns),
    ]


def _find_filled(columns: Columns) -> dict[str, list[str]]:
    """Find the target's columns that the declaration fills by name, and with what."""
    exploded, extracted = columns.explode_map, columns.extract_json
    filled: dict[str, list[str]] = {}
    for origin, name in columns.rename.items():
        filled.setdefault(name, []).append(f"rename of {quote(origin)}")
    for name in columns.constants:
        filled.setdefault(name, []).append("constants")
    if exploded:
        filled.setdefault(exploded.key, []).append("explode_map.key")
        filled.setdefault(exploded.value, []).append("explode_map.value")
    if extracted:
        for name in extracted.properties.values():
            filled.setdefault(name, []).append("extract_json")
    return filled


def _contradict_key_defaults(columns: Columns, filled: Mapping[str, object]) -> list[str]:
    """Find values for null of columns that are never null, or that are not there."""
    wrong = []
    for name in columns.key_defaults:
        if name in columns.constants:
            wrong.append(
                f"columns.key_defaults and columns.constants both name {quote(name)}; "
                "a constant is never null, so keep one"
            )
        elif name in columns.skip and name not in filled:
            wrong.append(
                f"columns.skip and columns.key_defaults both name {quote(name)}; "
                "for one value in every row use columns.constants"
            )
        elif name in columns.rename and name not in filled:
            wrong.append(
                f"columns.key_defaults names {quote(name)}, which columns.rename turns into "
                f"{quote(columns.rename[name])}; use the target's name"
            )
    return wrong


def _contradict_read_columns(columns: Columns) -> list[str]:
    """Find a map or a JSON text that is read, and something else declared of the same column."""
    wrong = []
    exploded, extracted = columns.explode_map, columns.extract_json
    if exploded and exploded.column in columns.skip:
        wrong.append(
            f"columns.skip and columns.explode_map both name {quote(exploded.column)}; take it out "
            "of skip: only its entries are copied"
        )
    if exploded and exploded.column in columns.rename:
        wrong.append(
            f"columns.rename and columns.explode_map both name {quote(exploded.column)}; take it "
            "out of rename: its entries go to explode_map.key and explode_map.value"
        )
    if extracted and extracted.column in columns.skip:
        wrong.append(
            f"columns.skip and columns.extract_json both name {quote(extracted.column)}; take it "
            "out of skip: it is read, and copied itself only where the target has it"
        )
    if exploded and extracted:
        if exploded.column == extracted.column:
            wrong.append(
                f"columns.explode_map and columns.extract_json both read {quote(exploded.column)}; "
                "a map is no JSON text, so keep one"
            )
        if extracted.exclusive:
            wrong.append(
                "columns.extract_json.exclusive leaves out what columns.explode_map fills; "
                "leave one of them out"
            )
    return wrong
