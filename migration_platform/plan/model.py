"""What a plan is made of: tables as they were found, what fills each column, and what follows."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from migration_platform.counts import Tally
from migration_platform.cql.cell_times import (
    TimeOf,
    TimeRules,
    Times,
    TimesLayout,
)
from migration_platform.cql.conversion import Converter, build_converter
from migration_platform.cql.forms import usual_form
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import (
    Page,
)
from migration_platform.cql.types import parse_type
from migration_platform.declaration.columns import Columns
from migration_platform.declaration.migration import Migration
from migration_platform.declaration.times import RowMax
from migration_platform.plan.codecs import build_codec


@dataclass(frozen=True)
class Column:
    """A column: `cql_type` with the fields of user-defined types written out.

    `stored` is its type in the store's own terms, where it has others than CQL's.
    """

    name: str
    cql_type: str
    is_static: bool = False
    stored: object = None

    @property
    def shown_type(self) -> str:
        """The type as the store has it."""
        return self.cql_type if self.stored is None else str(self.stored)


@dataclass(frozen=True)
class Table:
    """What a migration needs to know of a table; `table_id` changes when it is made anew."""

    name: TableName
    table_id: str
    columns: tuple[Column, ...]
    partition_key: tuple[str, ...]
    clustering_columns: tuple[str, ...]
    default_ttl_seconds: int
    tells_elements: bool = True
    """Whether writetime() and ttl() work on unfrozen collections: since Cassandra 5.0."""
    is_murmur3: bool = True
    """Whether tokens are what Murmur3 gives: YugabyteDB says so, and hashes keys its own way."""
    view_of: TableName | None = None
    """The base table, where this is a materialized view."""
    descending: tuple[str, ...] = ()
    """The clustering columns whose order descends."""

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Partition key, then clustering columns."""
        return self.partition_key + self.clustering_columns

    def type_of(self, column: str) -> str:
        """Give the type of a column that exists."""
        return next(c.cql_type for c in self.columns if c.name == column)


@dataclass(frozen=True)
class Source:
    """What fills one column of the target, and in which form.

    A `column` of the origin; a `constant`; a `property` of a JSON object in an origin column; the
    key or the value of a map's entry, of which each becomes a row.
    """

    target: str
    target_type: str
    kind: str
    is_key: bool
    is_static: bool = False
    origin: str = ""
    origin_type: str = ""
    json_property: str = ""
    constant: bytes | None = None
    default: bytes | None = None

    def converter(self, columns: Columns) -> Converter | None:
        """Build what turns the origin's bytes into the target's; None where they are the same.

        Raises:
            TypesDiffer: no value of the origin's type is one of the target's.
        """
        if self.kind == "constant" or self.kind == "json":
            return None
        origin, target = parse_type(self.origin_type), parse_type(self.target_type)
        return build_codec(origin, target, columns) or build_converter(origin, target)

    @property
    def is_multicell(self) -> bool:
        """Whether the target keeps each element or field as a cell of its own."""
        return parse_type(self.target_type).is_multicell


@dataclass(frozen=True)
class Layer:
    """What is read and written alike: the rows of a table, or the static cells of partitions.

    `origin_key` identifies what is read. `times` are the origin's columns whose times are kept.
    """

    name: str
    origin_key: tuple[str, ...]
    sources: tuple[Source, ...]
    times: TimesLayout
    has_counters: bool

    def ordered(self, leading: Iterable[str]) -> tuple[Source, ...]:
        """Give the sources, the leading ones first, then the key, then what the values are.

        Constants stand behind what is read: within the key if they belong to it, else at the end.
        """
        rank = {name: position for position, name in enumerate(leading)}
        return tuple(
            sorted(
                self.sources,
                key=lambda source: (
                    not source.is_key and source.target not in rank,
                    source.kind == "constant",
                    rank.get(source.target, len(rank)),
                ),
            )
        )


@dataclass(frozen=True)
class Plan:
    """A migration whose tables were found to fit, and what fills each column of the target.

    `left_unset` are the target's columns that nothing fills, `left_out` the origin's that the
    target does not have. `lost_keys` are the columns of the origin's primary key that the target's
    key does not keep apart: rows may collide. `uncounted` says of `writetime` and `ttl` that no
    column counts for a row's one, so that the migration is one without. With `follows` the target
    is made what the origin is by now, in lists too: a list that lost its newest element is older.
    """

    migration: Migration
    origin: Table
    target: Table
    layers: tuple[Layer, ...]
    left_unset: tuple[str, ...]
    lost_keys: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    follows: bool = False

    @property
    def rules(self) -> TimeRules:
        """How times are settled; a counter has none that could be kept."""
        if self.has_counters:
            return TimeRules("now", "none")
        return TimeRules(
            self.migration.writetime, self.migration.ttl, self.migration.writetime_increment_by
        )

    @property
    def has_counters(self) -> bool:
        """Whether this is a table of counters."""
        return any(layer.has_counters for layer in self.layers)

    @property
    def repeats_statics(self) -> bool:
        """Whether each row of the target repeats static cells of the origin's partition."""
        statics = {column.name for column in self.origin.columns if column.is_static}
        return any(source.origin in statics for source in self.rows.sources if not source.is_static)

    @property
    def rows(self) -> Layer:
        """The layer of the rows."""
        return self.layers[0]

    @property
    def origin_names(self) -> dict[str, str]:
        """The target's key columns that hold a column of the origin as it is: target by origin."""
        return {
            source.origin: source.target
            for source in self.rows.sources
            if source.is_key
            and source.kind == "column"
            and source.default is None
            and source.converter(self.migration.columns) is None
            and not self._folds(source)
        }

    def _folds(self, source: Source) -> bool:
        return folds_forms(self.migration, self.origin, self.target, source)

    @property
    def keys_agree(self) -> bool:
        """Whether a row has the same token in both tables."""
        names = tuple(self.origin_names.get(c) for c in self.origin.partition_key)
        return self.target.is_murmur3 and names == self.target.partition_key

    @property
    def tells_origin_token(self) -> bool:
        """Whether a row of the target tells the token that its origin has."""
        return set(self.origin.partition_key) <= self.origin_names.keys()

    @property
    def tells_origin_row(self) -> bool:
        """Whether a row of the target tells the key of the origin's row that it comes from."""
        return not self.lost_keys and set(self.origin.primary_key) <= self.origin_names.keys()

    @property
    def copy_leading(self) -> tuple[str, ...]:
        """The target's columns by which writes are grouped, constants left out."""
        grouped = self.migration.group_writes_by
        if grouped is not None and not grouped:
            return ()
        # The groups that are wished for come first; none of them spans two partitions.
        wanted = dict.fromkeys((*(grouped or ()), *self.target.partition_key))
        return tuple(
            name
            for name in wanted
            if any(s.target == name and s.kind != "constant" for s in self.rows.sources)
        )

    @property
    def diff_leading(self) -> tuple[str, ...]:
        """The target's key columns, those of the origin's partition key first where they tell."""
        names = self.origin_names
        first = [names[c] for c in self.origin.partition_key] if self.tells_origin_token else []
        return tuple(dict.fromkeys((*first, *self.target.primary_key)))

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when a range copied before no longer counts as copied.

        A table that was dropped and made anew, or that lives in another cluster, has another id.
        """
        migration = self.migration
        content = {
            "origin": [migration.origin.store, str(self.origin.name), self.origin.table_id],
            "target": [migration.target.store, str(self.target.name), self.target.table_id],
            "columns": sorted(
                [s.target, s.kind, s.origin, s.json_property]
                for layer in self.layers
                for s in layer.sources
            ),
            "declared": _declared(migration.columns),
            "filter": asdict(migration.filter),
            "skips": migration.guardrails.max_column_kb
            if migration.guardrails and migration.guardrails.action == "skip"
            else None,
            "collisions": migration.collisions,
            "token_ranges": migration.token_ranges,
            "writetime": migration.writetime,
            "writetime_increment_by": migration.writetime_increment_by,
            "ttl": migration.ttl,
            "row_max": _declared(migration.row_max),
        }
        return _digest(content | migration.target.declared.fingerprinted)

    @property
    def comparison(self) -> str:
        """16 hex digits that change when a verdict found before no longer counts."""
        migration = self.migration
        content: dict[str, object] = {
            "mode": migration.diff_mode,
            "compare_writetime": migration.compare_writetime,
            "ignore_newer_than_seconds": migration.ignore_newer_than_seconds,
        }
        if migration.compare_form:
            content["compare_form"] = True
        if migration.origin.finish_transactions:
            content["finish_transactions"] = True
        return _digest(content)


def folds_forms(migration: Migration, origin: Table, target: Table, source: Source) -> bool:
    """Say whether several values of a key at the origin may be one at the target.

    A partition key, and a text that becomes a number, is told apart by its bytes, a clustering
    column by the order of its type, in which 1.5 and 1.50 are one. Not every store does so.
    """
    folds = migration.target.abilities.folds_equal_values
    if not folds or source.target not in target.clustering_columns:
        return False
    here, there = parse_type(source.origin_type), parse_type(source.target_type)
    by_bytes = source.origin in origin.partition_key or build_codec(here, there, migration.columns)
    return bool(by_bytes) and usual_form(there) is not None


_ADDED_LATER = {"key_defaults_by_type": {}, "unmatched": "refuse", "if_none_counts": "others"}
"""Attributes that change no fingerprint while they are the default: ranges copied before count."""


def _declared(part: Columns | RowMax) -> dict[str, object]:
    return {
        name: value
        for name, value in asdict(part).items()
        if name not in _ADDED_LATER or value != _ADDED_LATER[name]
    }


def _digest(content: dict[str, object]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def time_of(layer: Layer, source: Source) -> TimeOf:
    """Say which of the times that were read is a target column's."""
    if source.kind in ("column", "json") and source.origin in layer.times.simple:
        return "simple", layer.times.simple.index(source.origin)
    if source.kind == "column" and source.origin in layer.times.multi:
        return "multi", layer.times.multi.index(source.origin)
    if source.kind == "map_value" and source.origin in layer.times.multi:
        return "entry", layer.times.multi.index(source.origin)
    if source.kind == "map_value" and source.origin in layer.times.simple:
        return "simple", layer.times.simple.index(source.origin)
    return "row", 0


Row = tuple[bytes, bytes, Times, int]
"""The leading cells of a row, all its cells, its times, and which map entry it came from."""


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of pages in the target's form.

    `columns` and `times` are what the SELECT names. `rows` gives the rows of one page and counts
    into the tally what it leaves out.
    """

    columns: tuple[str, ...]
    times: TimesLayout
    rows: Callable[[Page, Tally], Iterator[Row]]
