"""What a migration declares of a DynamoDB table that it writes to."""

import re
from collections.abc import Mapping, Sequence
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

BILLING_MODES = ("PAY_PER_REQUEST", "PROVISIONED")
ATTRIBUTE_TYPES = ("S", "N", "B", "BOOL", "L", "M", "SS", "NS", "BS")
PROJECTIONS = ("ALL", "KEYS_ONLY")
NULLS = ("absent", "null")
NUMBERS = ("refuse", "string")
MAX_UNITS = 10**9


@dataclass(frozen=True)
class GlobalIndex:
    """A global secondary index that is made with the table; its key attributes are columns."""

    name: str
    partition: str
    sort: str | None = None
    projection: str | tuple[str, ...] = "ALL"
    read_units: int | None = None
    write_units: int | None = None


@dataclass(frozen=True)
class DynamoDbTarget(StoreDeclaration):
    """A DynamoDB table as a target.

    `partition` and `sort` are columns of the target: those of the origin's key unless named. Of
    one column, the key attribute is the column itself; several are joined in an attribute of the
    given name. `attribute_types` overrule the attribute type of columns, `column_types` the CQL
    type in which a column arrives. Units are DynamoDB's capacity units a second.
    """

    partition: tuple[str, ...] = ()
    sort: tuple[str, ...] = ()
    partition_attribute: str = "pk"
    sort_attribute: str = "sk"
    create: bool = False
    billing_mode: str = "PAY_PER_REQUEST"
    read_units: int | None = None
    write_units: int | None = None
    indexes: tuple[GlobalIndex, ...] = ()
    ttl_attribute: str | None = None
    writetime_attribute: str | None = None
    attribute_types: Mapping[str, str] = field(default_factory=dict)
    column_types: Mapping[str, str] = field(default_factory=dict)
    nulls: str = "absent"
    numbers: str = "refuse"
    write_units_per_second: int | None = None
    read_units_per_second: int | None = None

    kind: ClassVar[str] = "dynamodb"
    abilities: ClassVar[Abilities] = Abilities(
        cell_times=False,
        reads_ranges=False,
        keeps_records=False,
        writes_whole_rows=True,
        folds_equal_values=False,
        counters=False,
        read_budget=True,
    )
    size_unit: ClassVar[str] = "write units"
    renames_in: ClassVar[str] = "target.attributes"
    passed_over: ClassVar[tuple[str, ...]] = ("attributes that no column fills",)

    @property
    def write_size_per_second(self) -> int | None:
        """The limit of write units."""
        return self.write_units_per_second

    @property
    def read_size_per_second(self) -> int | None:
        """The limit of read units."""
        return self.read_units_per_second

    @property
    def fingerprinted(self) -> dict[str, object]:
        """The form of every item."""
        return {"items": self.form}

    @property
    def form(self) -> list[object]:
        """What the form of every item depends on: where it changes, all are to be written anew.

        `numbers` does not count: it chooses for rows only that were not written otherwise.
        """
        return [
            [self.partition, self.sort, self.partition_attribute, self.sort_attribute],
            [self.ttl_attribute, self.writetime_attribute, self.nulls],
            sorted(self.attribute_types.items()),
            sorted(self.column_types.items()),
        ]

    def wrong(self) -> list[str]:
        """Give what is wrong, one sentence each."""
        wrong = [
            *validate_names("target.key.partition", self.partition),
            *validate_names("target.key.sort", self.sort),
            *validate_flag("target.create", self.create),
            *validate_choice("target.billing_mode", self.billing_mode, BILLING_MODES),
            *validate_mapping("target.attributes", self.attribute_types, to_names=True),
            *validate_mapping("target.attributes", self.column_types, to_names=True),
            *validate_choice("target.nulls", self.nulls, NULLS),
            *validate_choice("target.numbers", self.numbers, NUMBERS),
        ]
        for name, value in (
            ("target.write_units_per_second", self.write_units_per_second),
            ("diff.read_units_per_second", self.read_units_per_second),
        ):
            if value is not None:
                wrong += validate_number(name, value, 1, MAX_UNITS)
        wrong += _validate_capacity("target", self.billing_mode, self.read_units, self.write_units)
        for name, value in self.attribute_types.items():
            wrong += validate_choice(f"target.attributes.{name}.type", value, ATTRIBUTE_TYPES)
        for name, value in (
            ("key.partition_attribute", self.partition_attribute),
            ("key.sort_attribute", self.sort_attribute),
            ("ttl_attribute", self.ttl_attribute),
            ("writetime_attribute", self.writetime_attribute),
        ):
            if value is not None and (not is_name(value) or len(value.encode()) > 255):
                wrong.append(f"target.{name} is {show(value)}; valid are names up to 255 bytes")
        for index in self.indexes:
            wrong += _validate_index(index, self.billing_mode)
        if self.sort and not self.partition:
            wrong.append("target.key.sort is named without target.key.partition; name both")
        both = [name for name in self.sort if name in self.partition]
        if both:
            wrong.append(f"target.key names {', '.join(both)} as partition and as sort; keep one")
        return wrong

    def validate_target(self, migration: Any) -> list[str]:
        """Refuse what a DynamoDB table cannot keep: it has one time for an item, or none."""
        wrong = [*self.wrong(), *validate_table_name(migration.target.table.table)]
        if migration.writetime not in ("now", "row_max"):
            wrong.append(
                f"writetime is {show(migration.writetime)}, but an item of DynamoDB has one time "
                "at most; valid are now, and row_max with target.writetime_attribute"
            )
        if migration.ttl == "cell":
            wrong.append(
                "ttl is cell, but an item of DynamoDB expires as a whole; valid are none, and "
                "row_max or seconds with target.ttl_attribute"
            )
        for name, needed, attribute in (
            ("writetime", migration.writetime == "row_max", self.writetime_attribute),
            ("ttl", migration.ttl not in ("none", "cell"), self.ttl_attribute),
        ):
            if needed and not attribute:
                wrong.append(
                    f"{name} is {show(getattr(migration, name))}, but target.{name}_attribute is "
                    "missing; name the attribute that keeps it"
                )
            elif attribute and not needed and getattr(migration, name) != "cell":
                wrong.append(
                    f"target.{name}_attribute does nothing with {name}: "
                    f"{getattr(migration, name)}; set {name} to row_max, or leave the attribute out"
                )
        return [*wrong, *_validate_cassandra_only(migration)]

    def describe(self, migration: Any) -> list[str]:
        """Say which key the table has, whether it is created, and what its items keep of times."""
        lines = []
        if self.partition:
            sort = f", sorted by {_codes(self.sort)}" if self.sort else ""
            lines.append(f"- **Key**: {_codes(self.partition)}{sort}")
        if self.create:
            indexes = [index.name for index in self.indexes]
            with_them = f", with the indexes {_codes(indexes)}" if indexes else ""
            lines.append(f"- **Created** where missing: `{self.billing_mode}`{with_them}")
        kept = [
            f"{what} `{value}` in `{attribute}`"
            for what, value, attribute in (
                ("writetime", migration.writetime, self.writetime_attribute),
                ("TTL", migration.ttl, self.ttl_attribute),
            )
            if attribute
        ]
        return [*lines, f"- **Writetime and TTL**: {', '.join(kept) or 'not kept'}"]


def _validate_cassandra_only(migration: Any) -> list[str]:
    """Refuse what is said of times, levels, batches and counters that only Cassandra has."""
    wrong = []
    if migration.compare_writetime:
        wrong.append(
            "diff.compare_writetime is not known of a DynamoDB target: items are compared by "
            "their values; leave it out"
        )
    if migration.compare_form:
        wrong.append(
            "diff.compare_form does nothing with a DynamoDB target, whose keys have one form; "
            "leave it out"
        )
    if migration.ignore_newer_than_seconds is not None and "extra" in migration.repair:
        wrong.append(
            "diff.ignore_newer_than_seconds spares no extra item, because DynamoDB does not "
            "tell when one was written; take extra out of diff.repair, or leave the other out"
        )
    if migration.target.bytes_per_second is not None:
        wrong.append(
            "target.bytes_per_second is not known of a DynamoDB target; set "
            "target.write_units_per_second"
        )
    if migration.target.consistency != "LOCAL_QUORUM":
        wrong.append(
            "target.consistency is not known of a DynamoDB target, which is always read "
            "strongly consistent; leave it out"
        )
    if migration.group_writes_by is not None:
        wrong.append(
            "group_writes_by is not known of a DynamoDB target: a request holds items of any "
            "key; leave it out"
        )
    if migration.batch_across_partitions:
        wrong.append(
            "batch_across_partitions is not known of a DynamoDB target: a request holds items "
            "of any key; leave it out"
        )
    if getattr(migration.row_max, "if_none_counts", "") == "now":
        wrong.append(
            "row_max.if_none_counts is not known of a DynamoDB target, where an attribute of "
            "the item keeps the row's time; leave it out"
        )
    if getattr(migration.columns, "unmatched", "refuse") != "refuse":
        wrong.append(
            "columns.unmatched is not known of a DynamoDB target, which lacks no attribute; "
            "name what is to be left out in columns.skip"
        )
    if "counters" in migration.repair:
        wrong.append(
            "diff.repair names counters, but in DynamoDB a counter is a number like any other; "
            "name mismatched instead"
        )
    return wrong


def _codes(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _validate_capacity(
    name: str, billing_mode: str, read_units: int | None, write_units: int | None
) -> list[str]:
    wrong = []
    for kind, units in (("read_units", read_units), ("write_units", write_units)):
        if billing_mode == "PROVISIONED" and units is None:
            wrong.append(
                f"{name}.capacity.{kind} is missing; target.billing_mode PROVISIONED needs it"
            )
        elif billing_mode != "PROVISIONED" and units is not None:
            wrong.append(
                f"{name}.capacity.{kind} does nothing unless target.billing_mode is PROVISIONED; "
                "leave one of them out"
            )
        elif units is not None:
            wrong += validate_number(f"{name}.capacity.{kind}", units, 1, MAX_UNITS)
    return wrong


def _validate_index(index: GlobalIndex, billing_mode: str) -> list[str]:
    name = f"target.indexes.{index.name}"
    if not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", index.name or ""):
        return [
            f"target.indexes names {show(index.name)}; valid are 3 to 255 letters, digits and _.-"
        ]
    wrong = _validate_capacity(name, billing_mode, index.read_units, index.write_units)
    if isinstance(index.projection, str):
        return [*wrong, *validate_choice(f"{name}.projection", index.projection, PROJECTIONS)]
    if not index.projection:
        wrong.append(f"{name}.projection names no column; set it to KEYS_ONLY")
    return [*wrong, *validate_names(f"{name}.projection", index.projection)]


def validate_table_name(name: str) -> list[str]:
    """Refuse what DynamoDB would not take as a table's name."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", name):
        return []
    return [
        f"target.table is {show(name)}; valid for DynamoDB are 3 to 255 letters, digits and _.-"
    ]
