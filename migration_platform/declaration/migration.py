"""A migration as its author declared it: frozen, validated, and free of any connection.

Everything that can be wrong without asking a server is refused here; the plan asks the
servers. Attributes that depend on each other are checked together, in one message.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast
from zoneinfo import ZoneInfo

from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.stores import Abilities, StoreDeclaration
from migration_platform.declaration.validation import (
    is_name,
    is_number,
    is_whole,
    object_to_choice,
    object_to_choices,
    object_to_flag,
    object_to_mapping,
    object_to_names,
    object_to_number,
    show,
)
from migration_platform.errors import DeclarationError
from migration_platform.java_time.patterns import parse_pattern
from migration_platform.token_ranges import MAX_RANGES, MAX_TOKEN, MIN_TOKEN, TokenRange, split_ring

CONSISTENCY_LEVELS = (
    "LOCAL_QUORUM",
    "QUORUM",
    "EACH_QUORUM",
    "ALL",
    "ONE",
    "TWO",
    "THREE",
    "LOCAL_ONE",
)
"""ANY is none of them: a hint on one node is no copy."""
_BEYOND_SERIAL = ("THREE", "EACH_QUORUM", "ALL")
"""Levels of which a read may see what a serial one misses."""
DIFF_MODES = ("two_way", "origin_only")
WRITETIME_MODES = ("cell", "row_max", "now")
TTL_MODES = ("cell", "row_max", "none")
COLLISION_MODES = ("refuse", "newest", "oldest")
GUARDRAIL_ACTIONS = ("report", "skip", "fail")
REPAIRS = ("missing", "mismatched", "extra", "counters")
REPAIR_WRITETIMES = ("origin", "now")
UNMATCHED_MODES = ("refuse", "skip")
UNCOUNTED_MODES = ("others", "now")
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
MAX_TTL_SECONDS = 20 * 365 * 24 * 3600
"""Cassandra's own limit, twenty years."""
MAX_WRITETIME_US = 253_402_300_799_999_999
"""The end of the year 9999; nanoseconds given for microseconds are beyond it."""
MAX_ROWS_PER_SECOND = 10**9
MAX_BYTES_PER_SECOND = 10**12
MAX_SET_ASIDE = 100_000
"""Rows of one range; more than these are no exceptions, but a declaration that does not fit."""


@dataclass(frozen=True)
class Endpoint:
    """One side of a migration: a store by name, a table in it, and how to talk to it.

    `finish_transactions`, of an origin, has lightweight transactions finished that nobody did.
    `declared` is what only the store's kind has, and says which kind that is.
    """

    store: str
    table: TableName
    consistency: str = "LOCAL_QUORUM"
    rows_per_second: int | None = None
    bytes_per_second: int | None = None
    fetch_size: int | None = None
    finish_transactions: bool = False
    declared: StoreDeclaration = field(default_factory=StoreDeclaration)

    @property
    def kind(self) -> str:
        """The store's kind, as the table of kinds names it."""
        return self.declared.kind

    @property
    def abilities(self) -> Abilities:
        """What the store's kind can do."""
        return self.declared.abilities

    @property
    def size_per_second(self) -> int | None:
        """The limit of bytes, or of what else the store counts in."""
        limit = self.declared.write_size_per_second
        return self.bytes_per_second if limit is None else limit

    @property
    def size_unit(self) -> str:
        """What that limit counts."""
        return self.declared.size_unit


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


@dataclass(frozen=True)
class ColumnFilter:
    """Rows whose column shows this value (case and outer blanks aside) are left out."""

    name: str
    value: str


@dataclass(frozen=True)
class Filter:
    """Which rows of the origin are copied; a row must pass all of it.

    `where` is CQL that the server checks. Tokens and writetimes (microseconds) are inclusive.
    `coverage_percent` takes the low end of each token range.
    """

    where: str | None = None
    token_min: int = MIN_TOKEN
    token_max: int = MAX_TOKEN
    coverage_percent: int = 100
    writetime_from: int | None = None
    writetime_to: int | None = None
    column: ColumnFilter | None = None

    @property
    def by_writetime(self) -> bool:
        """Whether a row's writetime decides."""
        return self.writetime_from is not None or self.writetime_to is not None

    @property
    def takes_all_rows(self) -> bool:
        """Whether no row of a token range that is read is left out."""
        return not (self.where or self.column or self.by_writetime)

    def window(self, token_range: TokenRange) -> TokenRange | None:
        """Give the part of a range that is read; None if nothing of it is."""
        start = max(token_range.start, self.token_min - 1)
        end = min(token_range.end, self.token_max)
        if start >= end:
            return None
        # As the Cassandra Data Migrator takes a sample, so that both read the same tokens.
        low, high = replace(token_range, start=start, end=end).bounds
        end = low + (high - low) * self.coverage_percent // 100
        return replace(token_range, start=start, end=end) if start < end else None


@dataclass(frozen=True)
class RowMax:
    """Which cells of a row count for its one writetime and its one TTL; by default all.

    Names are the origin's columns; unless some are named, unfrozen collections and user-defined
    types count only with `collections`. Where no cell that counts has a value, all others do.
    With `expiring_cells_only` the longest TTL counts also where other cells live for ever.
    `if_none_counts` is for tables of which no column counts: all `others` do, or rows are written
    `now` and live for ever.
    """

    writetime_columns: tuple[str, ...] = ()
    ttl_columns: tuple[str, ...] = ()
    collections: bool = True
    expiring_cells_only: bool = False
    if_none_counts: str = "others"


@dataclass(frozen=True)
class Guardrails:
    """What happens to rows with a cell of more than `max_column_kb` (1 KB is 1000 bytes)."""

    max_column_kb: int
    action: str = "report"


@dataclass(frozen=True)
class Migration:
    """What is to be moved from where to where, and how.

    With `reads_only` nothing is moved: rows are read, and the target is the origin itself.

    Raises:
        DeclarationError: one message that names everything that is wrong and what is valid.
    """

    origin: Endpoint
    target: Endpoint
    token_ranges: int = 64
    workers: int | None = None
    writetime: str | int = "cell"
    ttl: str | int = "cell"
    writetime_increment_by: int = 0
    row_max: RowMax = RowMax()
    columns: Columns = Columns()
    filter: Filter = Filter()
    guardrails: Guardrails | None = None
    collisions: str = "refuse"
    group_writes_by: tuple[str, ...] | None = None
    batch_across_partitions: bool | None = None
    truncate_target: bool = False
    diff_mode: str = "two_way"
    compare_writetime: bool = False
    compare_form: bool = False
    ignore_newer_than_seconds: int | None = None
    repair: tuple[str, ...] = ()
    repair_writetime: str = "origin"
    dead_letters_max_rows: int = 0
    dead_letters_fail_run: bool = True
    tracking: bool = True
    tracking_keyspace: str = "migration_platform"
    retry_seconds: float = 90.0
    reads_only: bool = False
    ranges: tuple[TokenRange, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Collect every mistake, so that a user mends the file once."""
        wrong = [
            *self._wrong_sides(),
            *self._wrong_settings(),
            *self._wrong_times(),
            *self._wrong_row_max(),
            *self._wrong_columns(),
            *self._wrong_filter(),
            *self._wrong_guardrails(),
            *self._wrong_stores(),
        ]
        if wrong:
            raise DeclarationError("; ".join(wrong))
        object.__setattr__(self, "ranges", split_ring(self.token_ranges))

    @property
    def name(self) -> str:
        """The target's name, which is how users speak of a migration."""
        table = self.target.table
        return f"{table.keyspace}.{table.table}" if table.keyspace else table.table

    @property
    def looks_up(self) -> bool:
        """Whether a comparison looks rows up by the origin's keys, and never sees the others."""
        return not self.target.abilities.reads_ranges and self.diff_mode == "origin_only"

    @property
    def tracked_at(self) -> Endpoint:
        """The side that keeps what is known of runs, and rows that were set aside."""
        return self.target if self.target.abilities.keeps_records else self.origin

    @property
    def keeps_records(self) -> bool:
        """Whether either side can keep them."""
        return self.tracked_at.abilities.keeps_records

    def _wrong_stores(self) -> list[str]:
        """Refuse what the kinds of the stores cannot do."""
        if not all(isinstance(side, Endpoint) for side in (self.origin, self.target)):
            return []
        wrong = [
            *self.origin.declared.validate_origin(self),
            *self.target.declared.validate_target(self),
        ]
        if not self.origin.abilities.cell_times:
            wrong += self._wrong_without_times()
        needed = (("tracking", self.tracking), ("dead_letters", self.dead_letters_max_rows))
        return wrong + [
            f"{name} is kept in tables of a Cassandra cluster, and neither {self.origin.store} "
            f"nor {self.target.store} is one; {way_out}"
            for (name, declared), way_out in zip(
                needed, ("set tracking to false", "leave it out"), strict=True
            )
            if declared and not self.keeps_records
        ]

    def _wrong_without_times(self) -> list[str]:
        """Refuse what needs the writetimes or TTLs of an origin that has none."""
        asked = {
            f"writetime {self.writetime}": self.writetime in ("cell", "row_max"),
            f"ttl {self.ttl}": self.ttl in ("cell", "row_max"),
            "filter.writetime_from and _to": self.filter.by_writetime,
            f"collisions {self.collisions}": self.collisions in ("newest", "oldest"),
            "diff.compare_writetime": self.compare_writetime,
            "diff.ignore_newer_than_seconds": self.ignore_newer_than_seconds is not None,
        }
        return [
            f"{name} needs times of the origin's cells, and {self.origin.store} is a store of the "
            f"kind {self.origin.kind}, which has none; leave it out, or set writetime to now and "
            "ttl to none"
            for name, is_asked in asked.items()
            if is_asked
        ]

    def _wrong_sides(self) -> list[str]:
        wrong = []
        for side, endpoint in (("origin", self.origin), ("target", self.target)):
            if not isinstance(endpoint, Endpoint):
                wrong.append(f"{side} is {show(endpoint)}; it must be a store and a table")
                continue
            if not is_name(endpoint.store):
                wrong.append(f"{side}.store is {show(endpoint.store)}; name a store")
            if not isinstance(endpoint.table, TableName):
                wrong.append(f"{side}.table is {show(endpoint.table)}; write keyspace.table")
            wrong += object_to_choice(
                f"{side}.consistency", endpoint.consistency, CONSISTENCY_LEVELS
            )
            if endpoint.rows_per_second is not None:
                name = f"{side}.rows_per_second"
                wrong += object_to_number(name, endpoint.rows_per_second, 1, MAX_ROWS_PER_SECOND)
            if endpoint.bytes_per_second is not None:
                name = f"{side}.bytes_per_second"
                wrong += object_to_number(name, endpoint.bytes_per_second, 1, MAX_BYTES_PER_SECOND)
            wrong += object_to_flag(f"{side}.finish_transactions", endpoint.finish_transactions)
            if endpoint.finish_transactions is True and endpoint.consistency in _BEYOND_SERIAL:
                wrong.append(
                    f"{side}.finish_transactions reads single rows serially, of a quorum, which is "
                    f"less than {side}.consistency {endpoint.consistency}; set that to QUORUM or "
                    "LOCAL_QUORUM, or leave the other out"
                )
            if endpoint.fetch_size is not None:
                wrong += object_to_number(f"{side}.fetch_size", endpoint.fetch_size, 1, 100_000)
        sides = (self.origin, self.target)
        if all(isinstance(side, Endpoint) and isinstance(side.table, TableName) for side in sides):
            origin, target = ((side.store, side.table) for side in sides)
            if origin == target and not self.reads_only:
                wrong.append(f"origin and target are both {origin[1]} in {origin[0]}")
            if self.reads_only and self.origin.finish_transactions:
                wrong.append(
                    "origin.finish_transactions is for what is copied; a check that only reads "
                    "finishes none, so leave it out"
                )
        return wrong

    def _wrong_settings(self) -> list[str]:
        wrong = object_to_number("token_ranges", self.token_ranges, 1, MAX_RANGES)
        if self.workers is not None:
            wrong += object_to_number("workers", self.workers, 1, 256)
        seconds = self.retry_seconds
        if not is_number(seconds) or not 0 <= seconds <= 86_400:
            wrong.append(f"retry_seconds is {show(seconds)}; valid are 0 to 86400")
        wrong += object_to_choice("diff.mode", self.diff_mode, DIFF_MODES)
        wrong += object_to_choice("collisions", self.collisions, COLLISION_MODES)
        wrong += object_to_flag("truncate_target", self.truncate_target)
        wrong += object_to_flag("diff.compare_writetime", self.compare_writetime)
        wrong += object_to_flag("diff.compare_form", self.compare_form)
        wrong += self._wrong_repair()
        wrong += object_to_number(
            "dead_letters.max_rows", self.dead_letters_max_rows, 0, MAX_SET_ASIDE
        )
        wrong += object_to_flag("dead_letters.fail_run", self.dead_letters_fail_run)
        wrong += object_to_flag("tracking", self.tracking)
        if not is_name(self.tracking_keyspace) or not re.fullmatch(
            r"\w{1,48}", self.tracking_keyspace, re.ASCII
        ):
            wrong.append(
                f"tracking_keyspace is {show(self.tracking_keyspace)}; valid are 1 to 48 letters, "
                "digits and underscores"
            )
        if self.group_writes_by is not None:
            wrong += object_to_names("group_writes_by", self.group_writes_by)
        if self.batch_across_partitions is not None:
            wrong += object_to_flag("batch_across_partitions", self.batch_across_partitions)
        if self.batch_across_partitions is True and self.group_writes_by == ():
            wrong.append(
                "batch_across_partitions joins rows into requests, but group_writes_by is empty, "
                "which writes each row by itself; leave one of them out"
            )
        return wrong

    def _wrong_repair(self) -> list[str]:
        wrong = [
            *object_to_choices("diff.repair", self.repair, REPAIRS),
            *object_to_choice("diff.repair_writetime", self.repair_writetime, REPAIR_WRITETIMES),
        ]
        if self.ignore_newer_than_seconds is not None:
            name = "diff.ignore_newer_than_seconds"
            wrong += object_to_number(name, self.ignore_newer_than_seconds, 1, 86_400)
        if not wrong and self.repair_writetime != "origin" and not self.repair:
            wrong.append("diff.repair_writetime does nothing without diff.repair; leave it out")
        if not wrong and "extra" in self.repair and self.diff_mode == "origin_only":
            wrong.append(
                "diff.repair names extra, but diff.mode origin_only does not look for extra rows; "
                "leave one of them out"
            )
        return wrong

    def _wrong_times(self) -> list[str]:
        wrong = []
        valid = f"valid are {', '.join(WRITETIME_MODES)}, or microseconds since 1970"
        writetime, added = self.writetime, self.writetime_increment_by
        if is_whole(writetime):
            if not 1 <= writetime <= MAX_WRITETIME_US:
                wrong.append(
                    f"writetime is {show(writetime)}; {valid}, 1 to {MAX_WRITETIME_US} "
                    "(the year 9999: no later write would win over more)"
                )
        elif writetime not in WRITETIME_MODES:
            wrong.append(f"writetime is {show(writetime)}; {valid}")
        valid = f"valid are {', '.join(TTL_MODES)}, or 1 to {MAX_TTL_SECONDS} seconds"
        if not (self.ttl in TTL_MODES if isinstance(self.ttl, str) else is_whole(self.ttl)) or (
            is_whole(self.ttl) and not 1 <= self.ttl <= MAX_TTL_SECONDS
        ):
            wrong.append(f"ttl is {show(self.ttl)}; {valid}")
        faults = object_to_number("writetime_increment_by", added, 0, MAX_WRITETIME_US)
        wrong += [f"{fault} microseconds" for fault in faults]
        if not faults and added and writetime == "now":
            wrong.append("writetime_increment_by does nothing with writetime: now; leave one out")
        if self.compare_writetime is True and writetime == "now":
            wrong.append(
                "diff.compare_writetime needs writetimes that are kept, but writetime is now; "
                "leave one of them out"
            )
        return wrong

    def _wrong_row_max(self) -> list[str]:
        chosen = self.row_max
        if not isinstance(chosen, RowMax):
            return [f"row_max is {show(chosen)}; it must be RowMax"]
        wrong = [
            *object_to_names("row_max.writetime_columns", chosen.writetime_columns),
            *object_to_names("row_max.ttl_columns", chosen.ttl_columns),
            *object_to_flag("row_max.collections", chosen.collections),
            *object_to_flag("row_max.expiring_cells_only", chosen.expiring_cells_only),
            *object_to_choice("row_max.if_none_counts", chosen.if_none_counts, UNCOUNTED_MODES),
        ]
        if wrong:
            return wrong
        of_writetimes = (
            self.writetime == "row_max"
            or self.collisions in ("newest", "oldest")
            or (isinstance(self.filter, Filter) and self.filter.by_writetime)
        )
        of_ttls = self.ttl == "row_max"
        of_rows = of_ttls or self.writetime == "row_max"
        useless = [
            name
            for name, given in (
                ("writetime_columns", chosen.writetime_columns and not of_writetimes),
                ("ttl_columns", chosen.ttl_columns and not of_ttls),
                ("collections", not (chosen.collections or of_writetimes or of_ttls)),
                ("expiring_cells_only", chosen.expiring_cells_only and not of_ttls),
                ("if_none_counts", chosen.if_none_counts == "now" and not of_rows),
            )
            if given
        ]
        needed = {"writetime_columns": "writetime", "if_none_counts": "writetime or ttl"}
        return [
            f"row_max.{name} does nothing unless {needed.get(name, 'ttl')} is row_max; set it, or "
            "leave the one out"
            for name in useless
        ]

    def _wrong_columns(self) -> list[str]:
        columns = self.columns
        if not isinstance(columns, Columns):
            return [f"columns is {show(columns)}; it must be Columns"]
        wrong = [
            *object_to_mapping("columns.rename", columns.rename, to_names=True),
            *object_to_names("columns.skip", columns.skip),
            *object_to_mapping("columns.constants", columns.constants),
            *object_to_mapping("columns.key_defaults", columns.key_defaults),
            *_object_to_defaults_by_type(columns.key_defaults_by_type),
            *object_to_choice("columns.unmatched", columns.unmatched, UNMATCHED_MODES),
            *object_to_choices("columns.codecs", columns.codecs, CODECS),
            *_object_to_timestamps(columns),
            *_object_to_explode_map(columns.explode_map),
            *_object_to_extract_json(columns.extract_json),
        ]
        # Contradictions are looked for only between parts that are what they should be.
        return wrong or _contradictions(columns)

    def _wrong_filter(self) -> list[str]:
        chosen = self.filter
        if not isinstance(chosen, Filter):
            return [f"filter is {show(chosen)}; it must be a Filter"]
        tokens = [
            *object_to_number("filter.token_min", chosen.token_min, MIN_TOKEN, MAX_TOKEN),
            *object_to_number("filter.token_max", chosen.token_max, MIN_TOKEN, MAX_TOKEN),
        ]
        if not tokens and chosen.token_min > chosen.token_max:
            tokens = [
                "filter.token_min is beyond filter.token_max: no row would be read; swap them"
            ]
        low, high = chosen.writetime_from, chosen.writetime_to
        times = [
            f"{fault} microseconds since 1970"
            for name, value in (("filter.writetime_from", low), ("filter.writetime_to", high))
            if value is not None
            for fault in object_to_number(name, value, 0, MAX_TOKEN)
        ]
        if not times and low is not None and high is not None and low > high:
            times = [
                "filter.writetime_from is after filter.writetime_to: no row would pass; swap them"
            ]
        return [
            *tokens,
            *object_to_number("filter.coverage_percent", chosen.coverage_percent, 1, 100),
            *times,
            *([] if chosen.where is None else _object_to_where(chosen.where)),
            *([] if chosen.column is None else _object_to_column_filter(chosen.column)),
        ]

    def _wrong_guardrails(self) -> list[str]:
        limits = self.guardrails
        if limits is None:
            return []
        if not isinstance(limits, Guardrails):
            return [f"guardrails is {show(limits)}; it must be Guardrails"]
        return [
            *object_to_number("guardrails.max_column_kb", limits.max_column_kb, 1, 2_000_000),
            *object_to_choice("guardrails.action", limits.action, GUARDRAIL_ACTIONS),
        ]


# -- objections: one sentence each, with the way out; all are found before any is raised ----------


def _object_to_timestamps(columns: Columns) -> list[str]:
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


def _object_to_explode_map(exploded: ExplodeMap | None) -> list[str]:
    if exploded is None:
        return []
    if not isinstance(exploded, ExplodeMap):
        return [f"columns.explode_map is {show(exploded)}; it must be column, key and value"]
    return [
        f"columns.explode_map.{part} is {show(getattr(exploded, part))}; name a column"
        for part in ("column", "key", "value")
        if not is_name(getattr(exploded, part))
    ]


def _object_to_extract_json(extracted: ExtractJson | None) -> list[str]:
    if extracted is None:
        return []
    if not isinstance(extracted, ExtractJson):
        return [f"columns.extract_json is {show(extracted)}; it must be column and properties"]
    name = "columns.extract_json"
    wrong = [
        *object_to_mapping(f"{name}.properties", extracted.properties, to_names=True),
        *object_to_flag(f"{name}.exclusive", extracted.exclusive),
        *object_to_flag(f"{name}.overwrite", extracted.overwrite),
    ]
    if not is_name(extracted.column):
        wrong.append(f"{name}.column is {show(extracted.column)}; name a column")
    if not extracted.properties:
        wrong.append(f"{name}.properties is empty; name property: column")
    return wrong


def _object_to_defaults_by_type(defaults: object) -> list[str]:
    name = "columns.key_defaults_by_type"
    if faults := object_to_mapping(name, defaults):
        return faults
    return [
        f"{name} names {show(cql_type)}; valid are {', '.join(KEY_TYPES)}"
        for cql_type in cast(Mapping[str, Any], defaults)
        if cql_type not in KEY_TYPES
    ]


def _contradictions(columns: Columns) -> list[str]:
    """Find parts that are right by themselves and cannot be had together."""
    wrong = []
    exploded, extracted = columns.explode_map, columns.extract_json
    if {"TIMESTAMP_STRING_MILLIS", "TIMESTAMP_STRING_FORMAT"} <= set(columns.codecs):
        wrong.append(
            "columns.codecs names both TIMESTAMP_STRING_MILLIS and TIMESTAMP_STRING_FORMAT; "
            "keep the one that the text follows"
        )
    filled: dict[str, list[str]] = {}
    for origin, name in columns.rename.items():
        filled.setdefault(name, []).append(f"rename of {quote(origin)}")
        if origin == name:
            wrong.append(f"columns.rename turns {quote(name)} into itself; leave it out")
    for name in columns.constants:
        filled.setdefault(name, []).append("constants")
    if exploded:
        filled.setdefault(exploded.key, []).append("explode_map.key")
        filled.setdefault(exploded.value, []).append("explode_map.value")
    if extracted:
        for name in extracted.properties.values():
            filled.setdefault(name, []).append("extract_json")
    for name, sources in filled.items():
        if len(sources) > 1:
            wrong.append(
                f"two things fill the column {quote(name)}: {', '.join(sources)}; keep one"
            )
    for name in columns.skip:
        if name in columns.rename:
            wrong.append(f"columns.skip and columns.rename both name {quote(name)}; keep one")
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


def _object_to_column_filter(chosen: ColumnFilter) -> list[str]:
    if not isinstance(chosen, ColumnFilter):
        return [f"filter.column is {show(chosen)}; it must be name and value"]
    wrong = []
    if not is_name(chosen.name):
        wrong.append(f"filter.column.name is {show(chosen.name)}; name a column")
    if not isinstance(chosen.value, str):
        wrong.append(f"filter.column.value is {show(chosen.value)}; it must be text")
    return wrong


def _object_to_where(where: object) -> list[str]:
    """Refuse what would change the query around the condition, quoted text aside."""
    valid = "it must be conditions joined by AND, such as status = 'active' AND amount > 0"
    if not isinstance(where, str):
        return [f"filter.where is {show(where)}; {valid}"]
    if not where.strip():
        return ["filter.where is empty; leave it out"]
    # What is quoted becomes a word: blanks around it keep its neighbours what they are.
    quoted = r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$\$.*?\$\$"""
    plain = re.sub(quoted, " q ", where, flags=re.DOTALL)
    clauses = (
        r"\b(?:allow\s+filtering|limit|order\s+by|group\s+by|per\s+partition|or|where|select)\b"
        r"|\A\s*and\b|\band\s*\Z"
    )
    found = re.search(rf"""--|//|/\*|[;?'"$]|{_BIND_MARKER}|{clauses}""", plain, re.IGNORECASE)
    if found:
        return [f"filter.where has {found[0].strip()!r}; {valid}"]
    if re.search(r"\btoken\s*\(", plain, re.IGNORECASE):
        return ["filter.where has token(); use filter.token_min and filter.token_max"]
    open_brackets = []
    for bracket in re.findall(r"[()\[\]{}]", plain):
        if bracket in "([{":
            open_brackets.append(bracket)
        elif not open_brackets or open_brackets.pop() + bracket not in ("()", "[]", "{}"):
            return [f"filter.where closes {bracket!r}, which is not open; {valid}"]
    if open_brackets:
        return [f"filter.where does not close {open_brackets[-1]!r}; {valid}"]
    return []


_BIND_MARKER = r"""(?:[^\w\s)\]}]|\A|\b(?:in|like|contains|key|and))\s*:"""
"""A colon where a value should begin; after a value it belongs to a map, as in {'a': 1}."""
