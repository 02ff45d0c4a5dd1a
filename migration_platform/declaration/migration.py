"""A migration as its author declared it: frozen, validated, and free of any connection.

Everything that can be wrong without asking a server is refused here; the plan asks the
servers. Attributes that depend on each other are checked together, in one message.
"""

import re
from dataclasses import dataclass, field

from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns, validate_columns
from migration_platform.declaration.filters import Filter, validate_filter
from migration_platform.declaration.stores import Abilities, StoreDeclaration
from migration_platform.declaration.sync import Sync, validate_sync
from migration_platform.declaration.times import RowMax, validate_row_max, validate_times
from migration_platform.declaration.validation import (
    is_name,
    is_number,
    show,
    validate_choice,
    validate_choices,
    validate_flag,
    validate_names,
    validate_number,
)
from migration_platform.errors import DeclarationError
from migration_platform.token_ranges import MAX_RANGES, TokenRange, split_ring

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
COLLISION_MODES = ("refuse", "newest", "oldest")
GUARDRAIL_ACTIONS = ("report", "skip", "fail")
REPAIRS = ("missing", "mismatched", "extra", "counters")
REPAIR_WRITETIMES = ("origin", "now")
MAX_ROWS_PER_SECOND = 10**9
MAX_BYTES_PER_SECOND = 10**12
MAX_DEAD_LETTERS = 100_000
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
    row_max: RowMax = field(default_factory=RowMax)
    columns: Columns = field(default_factory=Columns)
    filter: Filter = field(default_factory=Filter)
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
    sync: Sync | None = None
    reads_only: bool = False
    ranges: tuple[TokenRange, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Collect every mistake, so that a user corrects the file once."""
        wrong = [
            *self._wrong_sides(),
            *self._wrong_settings(),
            *validate_times(
                self.writetime, self.ttl, self.writetime_increment_by, self.compare_writetime
            ),
            *validate_row_max(
                self.row_max, self.writetime, self.ttl, chooses=self._chooses_by_writetime
            ),
            *validate_columns(self.columns),
            *validate_filter(self.filter),
            *validate_sync(self.sync),
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
        """The side that keeps what is known of runs, and the dead letters."""
        return self.target if self.target.abilities.keeps_records else self.origin

    @property
    def keeps_records(self) -> bool:
        """Whether either side can keep them."""
        return self.tracked_at.abilities.keeps_records

    @property
    def _chooses_by_writetime(self) -> bool:
        """Whether a row's writetime decides if it is copied."""
        return self.collisions in ("newest", "oldest") or (
            isinstance(self.filter, Filter) and self.filter.by_writetime
        )

    def _wrong_stores(self) -> list[str]:
        """Refuse what the kinds of the stores cannot do."""
        sides = (self.origin, self.target)
        if not all(isinstance(side, Endpoint) and _is_declared(side) for side in sides):
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
            "filter.writetime_from and _to": isinstance(self.filter, Filter)
            and self.filter.by_writetime,
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
            if not _is_declared(endpoint):
                wrong.append(
                    f"{side}.declared is {show(endpoint.declared)}; it must be what a kind of "
                    "store declares"
                )
            wrong += validate_choice(
                f"{side}.consistency", endpoint.consistency, CONSISTENCY_LEVELS
            )
            if endpoint.rows_per_second is not None:
                name = f"{side}.rows_per_second"
                wrong += validate_number(name, endpoint.rows_per_second, 1, MAX_ROWS_PER_SECOND)
            if endpoint.bytes_per_second is not None:
                name = f"{side}.bytes_per_second"
                wrong += validate_number(name, endpoint.bytes_per_second, 1, MAX_BYTES_PER_SECOND)
            wrong += validate_flag(f"{side}.finish_transactions", endpoint.finish_transactions)
            if endpoint.finish_transactions is True and endpoint.consistency in _BEYOND_SERIAL:
                wrong.append(
                    f"{side}.finish_transactions reads single rows serially, of a quorum, which is "
                    f"less than {side}.consistency {endpoint.consistency}; set that to QUORUM or "
                    "LOCAL_QUORUM, or leave the other out"
                )
            if endpoint.fetch_size is not None:
                wrong += validate_number(f"{side}.fetch_size", endpoint.fetch_size, 1, 100_000)
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
        wrong = validate_number("token_ranges", self.token_ranges, 1, MAX_RANGES)
        if self.workers is not None:
            wrong += validate_number("workers", self.workers, 1, 256)
        seconds = self.retry_seconds
        if not is_number(seconds) or not 0 <= seconds <= 86_400:
            wrong.append(f"retry_seconds is {show(seconds)}; valid are 0 to 86400")
        wrong += validate_choice("diff.mode", self.diff_mode, DIFF_MODES)
        wrong += validate_choice("collisions", self.collisions, COLLISION_MODES)
        wrong += validate_flag("truncate_target", self.truncate_target)
        wrong += validate_flag("diff.compare_writetime", self.compare_writetime)
        wrong += validate_flag("diff.compare_form", self.compare_form)
        wrong += self._wrong_repair()
        wrong += validate_number(
            "dead_letters.max_rows", self.dead_letters_max_rows, 0, MAX_DEAD_LETTERS
        )
        wrong += validate_flag("dead_letters.fail_run", self.dead_letters_fail_run)
        wrong += validate_flag("tracking", self.tracking)
        if not is_name(self.tracking_keyspace) or not re.fullmatch(
            r"\w{1,48}", self.tracking_keyspace, re.ASCII
        ):
            wrong.append(
                f"tracking_keyspace is {show(self.tracking_keyspace)}; valid are 1 to 48 letters, "
                "digits and underscores"
            )
        if self.group_writes_by is not None:
            wrong += validate_names("group_writes_by", self.group_writes_by)
        if self.batch_across_partitions is not None:
            wrong += validate_flag("batch_across_partitions", self.batch_across_partitions)
        if self.batch_across_partitions is True and self.group_writes_by == ():
            wrong.append(
                "batch_across_partitions joins rows into requests, but group_writes_by is empty, "
                "which writes each row by itself; leave one of them out"
            )
        return wrong

    def _wrong_repair(self) -> list[str]:
        wrong = [
            *validate_choices("diff.repair", self.repair, REPAIRS),
            *validate_choice("diff.repair_writetime", self.repair_writetime, REPAIR_WRITETIMES),
        ]
        if self.ignore_newer_than_seconds is not None:
            name = "diff.ignore_newer_than_seconds"
            wrong += validate_number(name, self.ignore_newer_than_seconds, 1, 86_400)
        if not wrong and self.repair_writetime != "origin" and not self.repair:
            wrong.append("diff.repair_writetime does nothing without diff.repair; leave it out")
        if not wrong and "extra" in self.repair and self.diff_mode == "origin_only":
            wrong.append(
                "diff.repair names extra, but diff.mode origin_only does not look for extra rows; "
                "leave one of them out"
            )
        return wrong

    def _wrong_guardrails(self) -> list[str]:
        limits = self.guardrails
        if limits is None:
            return []
        if not isinstance(limits, Guardrails):
            return [f"guardrails is {show(limits)}; it must be Guardrails"]
        return [
            *validate_number("guardrails.max_column_kb", limits.max_column_kb, 1, 2_000_000),
            *validate_choice("guardrails.action", limits.action, GUARDRAIL_ACTIONS),
        ]


def _is_declared(endpoint: Endpoint) -> bool:
    return isinstance(endpoint.declared, StoreDeclaration)
