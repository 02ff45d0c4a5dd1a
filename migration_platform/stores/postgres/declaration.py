"""What a table in PostgreSQL or YugabyteDB (YSQL) has declared that no other has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from migration_platform.declaration.stores import Abilities, StoreDeclaration
from migration_platform.declaration.validation import (
    is_name,
    show,
    validate_choice,
    validate_flag,
    validate_mapping,
    validate_names,
    validate_number,
)

STATICS = ("repeat", "table")
STATICS_SUFFIX = "_statics"
"""What the name of the table of static columns has behind that of the table of rows."""
UNCHANGED = ("write", "skip")
METHODS = ("copy", "values")
SCANS = ("blocks", "hash_code", "whole")
NULS = ("refuse", "escape")
MAX_BATCH_ROWS = 100_000
MAX_NAME_BYTES = 63
"""A longer name would be cut by the server. https://www.postgresql.org/docs/current/limits.html"""


INDEX_METHODS = ("btree", "hash", "gin", "gist", "spgist", "brin", "lsm", "ybgin")
"""The last two are YugabyteDB's. https://docs.yugabyte.com/stable/explore/ysql-language-features/indexes-constraints/"""


@dataclass(frozen=True)
class Index:
    """A secondary index that is created behind a full copy."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False
    method: str | None = None


@dataclass(frozen=True)
class PostgresTarget(StoreDeclaration):
    """The table's attributes.

    `database` is the first part of `database.schema.table`. `column_types` are SQL types by the
    target's column. `method` and `scan` are None for what suits the server: see `writes.py` and
    `reads.py`. A `writetime_column` keeps a row's newest writetime in microseconds, and the newest
    row wins. With `unchanged: skip` a row that is there already is not written again.
    """

    database: str | None = None
    create: bool = False
    column_types: Mapping[str, str] = field(default_factory=dict)
    indexes: tuple[Index, ...] = ()
    statics: str = "repeat"
    writetime_column: str | None = None
    unchanged: str = "write"
    method: str | None = None
    batch_rows: int | None = None
    scan: str | None = None
    nul: str = "refuse"

    kind: ClassVar[str] = "postgres"
    abilities: ClassVar[Abilities] = Abilities(
        cell_times=False,
        reads_ranges=False,
        keeps_records=False,
        writes_whole_rows=True,
        folds_equal_values=False,
        counters=False,
    )

    @property
    def repeats_statics(self) -> bool:
        """Whether static cells stand in each row of their partition, or in a table of their own."""
        return self.statics == "repeat"

    @property
    def fingerprinted(self) -> dict[str, object]:
        """The form of every row."""
        types = sorted(self.column_types.items())
        return {"postgres": [types, self.statics, self.writetime_column, self.nul]}

    @property
    def suffix(self) -> str:
        """What is behind the name of the table with the static columns; empty if there is none."""
        return STATICS_SUFFIX if self.statics == "table" else ""

    def wrong(self) -> list[str]:
        """Give what is wrong, one sentence each."""
        wrong = [
            *validate_flag("target.create", self.create),
            *validate_mapping("target.columns", self.column_types, to_names=True),
            *validate_choice("target.statics", self.statics, STATICS),
            *validate_choice("target.unchanged", self.unchanged, UNCHANGED),
            *validate_choice("target.nul", self.nul, NULS),
        ]
        if self.method is not None:
            wrong += validate_choice("target.method", self.method, METHODS)
        if self.scan is not None:
            wrong += validate_choice("target.scan", self.scan, SCANS)
        if self.batch_rows is not None:
            wrong += validate_number("target.batch_rows", self.batch_rows, 1, MAX_BATCH_ROWS)
        for index in self.indexes:
            here = f"target.secondary_indexes.{index.name}"
            wrong += validate_identifier("target.secondary_indexes", index.name)
            wrong += validate_names(f"{here}.columns", index.columns)
            if not index.columns:
                wrong.append(f"{here}.columns is empty; name the columns of the index")
            if index.method is not None:
                wrong += validate_choice(f"{here}.method", index.method, INDEX_METHODS)
        return wrong + validate_identifier("target.writetime_column", self.writetime_column)

    def validate_target(self, migration: Any) -> list[str]:
        """Refuse what a table of PostgreSQL cannot keep: it has one time for a row, or none."""
        name = migration.target.table
        wrong = [
            *self.wrong(),
            *validate_identifier("target.table", name.table + self.suffix),
            *validate_identifier("target.table", name.keyspace or None),
        ]
        if migration.writetime not in ("now", "row_max"):
            wrong.append(
                f"writetime is {show(migration.writetime)}, but a row of PostgreSQL has one time "
                "at most; valid are now, and row_max with target.writetime_column"
            )
        if migration.ttl != "none":
            wrong.append(
                f"ttl is {show(migration.ttl)}, but no row of PostgreSQL expires; set it to none"
            )
        if migration.writetime == "row_max" and not self.writetime_column:
            wrong.append(
                "writetime is 'row_max', but target.writetime_column is missing; name the column "
                "that keeps it"
            )
        if self.writetime_column and migration.writetime not in ("row_max", "cell"):
            wrong.append(
                f"target.writetime_column does nothing with writetime: {migration.writetime}; set "
                "writetime to row_max, or leave the column out"
            )
        return [*wrong, *_validate_cassandra_only(migration)]

    def describe(self, migration: Any) -> list[str]:
        """Say whether the table is created, and what its rows keep of times."""
        lines = []
        if self.create:
            lines.append("- **Created** where missing")
        if self.statics == "table":
            lines.append(f"- **Static columns** in the table `...{STATICS_SUFFIX}`")
        if self.column_types:
            types = ", ".join(f"`{name}` {text}" for name, text in self.column_types.items())
            lines.append(f"- **Types**: {types}")
        if self.indexes:
            names = ", ".join(f"`{index.name}`" for index in self.indexes)
            lines.append(f"- **Indexes** behind a full copy, where missing: {names}")
        if self.unchanged == "skip":
            lines.append("- **Unchanged rows** are not written again")
        kept = f"writetime `row_max` in `{self.writetime_column}`"
        return [*lines, f"- **Writetime and TTL**: {kept if self.writetime_column else 'not kept'}"]


def validate_identifier(attribute: str, name: str | None) -> list[str]:
    """Refuse what PostgreSQL would not take as a name, or would cut."""
    if name is None or (
        is_name(name) and "\0" not in name and len(name.encode()) <= MAX_NAME_BYTES
    ):
        return []
    return [f"{attribute} is {show(name)}; valid are names up to {MAX_NAME_BYTES} bytes"]


def _validate_cassandra_only(migration: Any) -> list[str]:
    """Refuse what is said of times, levels, batches and counters that only Cassandra has."""
    said = {
        "diff.compare_writetime": (
            migration.compare_writetime,
            "is not known of a PostgreSQL target: rows are compared by their values; leave it out",
        ),
        "diff.compare_form": (
            migration.compare_form,
            "does nothing with a PostgreSQL target, whose keys have one form; leave it out",
        ),
        "target.consistency": (
            migration.target.consistency != "LOCAL_QUORUM",
            "is not known of a PostgreSQL target; leave it out",
        ),
        "group_writes_by": (
            migration.group_writes_by is not None,
            "is not known of a PostgreSQL target: a request holds rows of any key; leave it out",
        ),
        "batch_across_partitions": (
            bool(migration.batch_across_partitions),
            "is not known of a PostgreSQL target: a request holds rows of any key; leave it out",
        ),
        "row_max.if_none_counts": (
            getattr(migration.row_max, "if_none_counts", "") == "now",
            "is not known of a PostgreSQL target, where a column keeps a row's time; leave it out",
        ),
        "diff.repair names counters, which": (
            "counters" in migration.repair,
            "are numbers like any other in PostgreSQL; name mismatched instead",
        ),
    }
    wrong = [f"{name} {why}" for name, (is_said, why) in said.items() if is_said]
    if migration.ignore_newer_than_seconds is not None and "extra" in migration.repair:
        wrong.append(
            "diff.ignore_newer_than_seconds spares no extra row, because PostgreSQL does not tell "
            "when one was written; take extra out of diff.repair, or leave the other out"
        )
    return wrong
