"""What fills each column of the target: a column, a constant, a map's entry, a JSON property."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from migration_platform.cql.names import quote
from migration_platform.cql.types import parse_type
from migration_platform.cql.values import encode_value
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.plan.model import Source, Table


def find_sources(
    columns: Columns,
    origin: Table,
    target: Table,
    problems: list[str],
    left_out: list[str],
) -> tuple[Source, ...]:
    """Find what fills each column of the target; what goes nowhere or twice is a problem.

    Columns that only the origin has, and that may be left out, are added to `left_out`.
    """
    by_type = {
        cql_type: _encode(value, cql_type, "key_defaults_by_type", cql_type, problems)
        for cql_type, value in columns.key_defaults_by_type.items()
    }
    found = _Found(columns, origin, target, by_type, problems)
    names = {column.name for column in origin.columns}
    found.fill_constants()
    if columns.explode_map and columns.explode_map.column in names:
        found.fill_entries(columns.explode_map)
    if columns.extract_json and columns.extract_json.column in names:
        found.fill_properties(columns.extract_json)
    found.fill_columns(left_out)
    return tuple(found.sources.values())


@dataclass
class _Found:
    """What was found so far, by the target's column."""

    columns: Columns
    origin: Table
    target: Table
    by_type: Mapping[str, bytes | None]
    problems: list[str]
    sources: dict[str, Source] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Know the target's columns by name."""
        self.types = {column.name: column for column in self.target.columns}

    def fill(self, name: str, kind: str, **more) -> None:
        """Fill a column of the target, if it has one of this name."""
        if name not in self.types:
            return
        if name in self.sources:
            self.problems.append(
                f"two columns of {self.origin.name} would land on {quote(name)}; skip one of them "
                "or rename it with columns.rename"
            )
            return
        self.sources[name] = Source(
            target=name,
            target_type=self.types[name].cql_type,
            kind=kind,
            is_key=name in self.target.primary_key,
            is_static=self.types[name].is_static,
            default=self._default_of(name, kind, more.get("origin", "")),
            **more,
        )

    def _default_of(self, name: str, kind: str, column: str) -> bytes | None:
        cql_type = self.types[name].cql_type
        if name in self.columns.key_defaults:
            value = self.columns.key_defaults[name]
            return _encode(value, cql_type, "key_defaults", name, self.problems)
        # What is key at the origin, too, is never null: without a default it stays as fast as ever.
        is_origin_key = column in self.origin.primary_key
        may_be_null = kind == "json" or (kind == "column" and not is_origin_key)
        is_key = name in self.target.primary_key
        return self.by_type.get(cql_type) if may_be_null and is_key else None

    def fill_constants(self) -> None:
        """Fill what has one value in every row."""
        for name, value in self.columns.constants.items():
            if name in self.types:
                cql_type = self.types[name].cql_type
                constant = _encode(value, cql_type, "constants", name, self.problems)
                self.fill(name, "constant", constant=constant)

    def fill_entries(self, explode: ExplodeMap) -> None:
        """Fill what a map's entries give."""
        map_type = parse_type(self.origin.type_of(explode.column))
        if map_type.name != "map":
            self.problems.append(
                f"columns.explode_map.column is {quote(explode.column)}, of the type {map_type}; "
                "it must be a map"
            )
            return
        for name, kind, part in ((explode.key, "map_key", 0), (explode.value, "map_value", 1)):
            part_type = str(map_type.parameters[part])
            self.fill(name, kind, origin=explode.column, origin_type=part_type)
        if explode.key in self.types and explode.key not in self.target.primary_key:
            self.problems.append(
                f"columns.explode_map.key is {quote(explode.key)}, which is no key column of "
                f"{self.target.name}: the entries of a map would overwrite each other"
            )

    def fill_properties(self, extract: ExtractJson) -> None:
        """Fill what the properties of a JSON text give."""
        json_type = self.origin.type_of(extract.column)
        if json_type not in ("text", "ascii"):
            self.problems.append(
                f"columns.extract_json.column is {quote(extract.column)}, of the type {json_type}; "
                "it must be a text"
            )
        for json_property, name in extract.properties.items():
            self.fill(
                name,
                "json",
                origin=extract.column,
                origin_type=json_type,
                json_property=json_property,
            )

    def fill_columns(self, left_out: list[str]) -> None:
        """Fill what the origin's columns give by their own names or new ones."""
        columns = self.columns
        explode, extract = columns.explode_map, columns.extract_json
        for column in self.origin.columns:
            if column.name in columns.skip or (explode and column.name == explode.column):
                continue
            is_key = column.name in self.origin.primary_key
            if extract and extract.exclusive and not is_key:
                continue
            name = columns.rename.get(column.name, column.name)
            if name in columns.constants:
                continue
            if name in self.types:
                self.fill(name, "column", origin=column.name, origin_type=column.cql_type)
            elif extract and column.name == extract.column and column.name not in columns.rename:
                continue
            elif column.name not in columns.rename and columns.unmatched == "skip":
                left_out.append(column.name)
            elif column.name not in columns.rename:
                close = difflib.get_close_matches(column.name, list(self.types), n=3)
                hint = f"did you mean {', '.join(map(quote, close))}? " if close else ""
                self.problems.append(
                    f"{self.target.name} has no column {quote(column.name)} ({column.cql_type}): "
                    f"{hint}add it to the target, or name it in columns.rename or columns.skip"
                )


def _encode(
    value: object, cql_type: str, attribute: str, name: str, problems: list[str]
) -> bytes | None:
    try:
        return encode_value(value, parse_type(cql_type))
    except ValueError as error:
        problems.append(f"columns.{attribute}.{name} does not fit {cql_type}: {error}")
        return None
