"""What becomes of columns: their names, constants, codecs, maps, JSON, and null in a key."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from migration_platform.cdm.java_splits import split_text, validate_split
from migration_platform.cdm.properties import PREFIX
from migration_platform.cdm.settings import Settings, shown, unquoted
from migration_platform.cdm.ysql import parse_constant
from migration_platform.cql.literals import parse_literal
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson

_KEY_TEXTS = ("text", "ascii")
"""The migrator writes an empty text into a key of Cassandra, also where it is told no time."""


def to_columns(
    settings: Settings, timestamp_keys: Sequence[str], *, is_ysql: bool = False
) -> Columns:
    """Say what becomes of columns: names, constants, codecs, maps, JSON, and null in a key."""
    codecs = settings.names("transform.codecs")
    pattern = settings.text("transform.codecs.timestamp.string.format")
    zone = settings.text("transform.codecs.timestamp.string.zone")
    if "TIMESTAMP_STRING_FORMAT" not in codecs:
        if (pattern, zone) != (Columns.timestamp_format, Columns.timestamp_zone):
            settings.note(
                "transform.codecs.timestamp.string.format and zone are left out: they do nothing "
                "without the codec TIMESTAMP_STRING_FORMAT."
            )
        pattern, zone = Columns.timestamp_format, Columns.timestamp_zone
    settings.flag("transform.map.remove.null.value")
    settings.note(
        "columns.unmatched is skip: columns that only the origin has stay behind, as with the "
        "migrator; the plan and the run's log name them. Take it out to be refused instead."
    )
    key_defaults = _key_defaults(settings, timestamp_keys, texts=() if is_ysql else _KEY_TEXTS)
    settings.note(
        "Null in a column that is new in the target's key becomes "
        f"{'' if is_ysql else 'an empty text, and '}a time where "
        "transform.missing.key.ts.replace.value gives one (columns.key_defaults_by_type); a row "
        "with another null there fails its range, where the migrator passes over it."
    )
    return Columns(
        rename=_renames(settings),
        skip=settings.names("schema.origin.column.skip"),
        constants=_constants(settings, parse_constant if is_ysql else parse_literal),
        codecs=codecs,
        timestamp_format=pattern,
        timestamp_zone=zone,
        explode_map=_explode_map(settings),
        extract_json=_extract_json(settings),
        **key_defaults,
        unmatched="skip",
    )


def _renames(settings: Settings) -> dict[str, str]:
    renames = {}
    name = "schema.origin.column.names.to.target"
    for pair in settings.text(name).split(","):
        if not pair.strip():
            continue
        parts = [unquoted(part) for part in pair.split(":")]
        if len(parts) != 2 or not all(parts) or parts[0] in renames:
            settings.wrong.append(
                f"{PREFIX}{name} must be origin:target with commas between them, each origin once"
            )
        elif parts[0] != parts[1]:
            renames[parts[0]] = parts[1]
    return renames


def _constants(settings: Settings, parse: Callable[[str], Any]) -> dict[str, Any]:
    at = f"{PREFIX}feature.constantColumns."
    names = settings.names("feature.constantColumns.names")
    text = settings.text("feature.constantColumns.values")
    try:
        splitter = re.compile(settings.text("feature.constantColumns.splitRegex") or ",")
    except (re.error, OverflowError, RecursionError):
        settings.wrong.append(f"{at}splitRegex is no regular expression that Python knows")
        return {}
    problems = validate_split(splitter, text)
    if problems:
        settings.wrong.append(f"{at}{problems[0]}")
        return {}
    values = split_text(splitter, text) if text else []
    if len(names) != len(values):
        settings.wrong.append(
            f"{at}names are {len(names)} and {at}values {len(values)}; name one value for each"
        )
        return {}
    found = {}
    for name, value in zip(names, values, strict=True):
        try:
            found[name] = parse(value)
        except ValueError as error:
            settings.wrong.append(f"{at}values: that of {shown(name)} is no CQL literal: {error}")
    return found


def _explode_map(settings: Settings) -> ExplodeMap | None:
    at = "feature.explodeMap."
    parts = [
        unquoted(settings.text(at + part))
        for part in ("origin.name", "target.name.key", "target.name.value")
    ]
    if not any(parts):
        return None
    if not all(parts):
        settings.wrong.append(
            f"{PREFIX}{at}origin.name, target.name.key and target.name.value belong together; "
            "give all three, or none"
        )
        return None
    return ExplodeMap(*parts)


def _extract_json(settings: Settings) -> ExtractJson | None:
    at = "feature.extractJson."
    column = unquoted(settings.text(f"{at}originColumn"))
    mapping = settings.text(f"{at}propertyMapping")
    exclusive, overwrite = settings.flag(f"{at}exclusive"), settings.flag(f"{at}overwrite")
    if not column and not mapping:
        return None
    parts = [unquoted(part) for part in mapping.split(":")]
    if not column or len(parts) > 2 or not all(parts):
        settings.wrong.append(
            f"{PREFIX}{at}originColumn must be a column and {PREFIX}{at}propertyMapping "
            "property:column, or one name for both"
        )
        return None
    return ExtractJson(column, {parts[0]: parts[-1]}, exclusive, overwrite)


def _key_defaults(
    settings: Settings, timestamp_keys: Sequence[str], *, texts: Sequence[str]
) -> dict[str, Any]:
    name = "transform.missing.key.ts.replace.value"
    milliseconds = settings.number(name)
    found: dict[str, Any] = {"key_defaults_by_type": dict.fromkeys(texts, "")}
    if milliseconds is None:
        if timestamp_keys:
            settings.wrong.append(f"--timestamp-key does nothing without {PREFIX}{name}")
        return found
    if timestamp_keys:
        found["key_defaults"] = dict.fromkeys(timestamp_keys, milliseconds)
    else:
        found["key_defaults_by_type"]["timestamp"] = milliseconds
    return found
