"""A tenant's move as its author declared it: frozen, validated, and free of any connection.

A move is an ordered row of steps. A step changes rows of a table, tells the search service to read
rows again, or changes nodes of a graph. The rules of Sunbird's own scripts are one instance of it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, get_args

from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import CONSISTENCY_LEVELS, MAX_ROWS_PER_SECOND
from migration_platform.declaration.validation import (
    is_name,
    show,
    validate_choice,
    validate_mapping,
    validate_number,
)
from migration_platform.errors import DeclarationError
from migration_platform.stores.sunbird_sync import validate_object_type
from migration_platform.token_ranges import MAX_RANGES, TokenRange, split_ring

Replace = Literal["value", "first", "all"]
"""What of a cell becomes the target tenant: the whole value, or the first or all such elements."""
Value = str | list[str]
"""What of a node shows a tenant."""
SERIAL_LEVELS = ("SERIAL", "LOCAL_SERIAL")
MAX_TENANT_LENGTH = 500
MAX_NAME_CHARS = 500
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Lookup:
    """A value that stands in another row, by default in the one whose key is the target tenant.

    `key` gives each column of that row's primary key a value.
    """

    table: TableName
    column: str
    key: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What a column becomes: exactly one of the three is given."""

    column: str
    replace: Replace | None = None
    lookup: Lookup | None = None
    constant: Any = None

    def wrong(self, step: str) -> list[str]:
        """Say what is wrong with it."""
        name = f"steps.{step}.change.{self.column}"
        given = [
            what for what in ("replace", "lookup", "constant") if getattr(self, what) is not None
        ]
        if len(given) != 1:
            return [
                f"{name} names {' and '.join(given) or 'nothing'}; give one of replace, lookup, "
                "constant"
            ]
        if self.replace is not None:
            return validate_choice(f"{name}.replace", self.replace, get_args(Replace))
        if self.lookup is not None and self.lookup.key:
            return validate_mapping(f"{name}.lookup.key", self.lookup.key)
        return []


@dataclass(frozen=True)
class TableStep:
    """Rows of a table that show the origin tenant, and what becomes of them.

    Attributes:
        select: Column that shows a row's tenant: a text, or a list or set that names it.
        id_column: Column that stands in the id file; None for the only column of the key.
        id_file: Name of the file of ids in the move's folder, or a path elsewhere.
        duplicates_by: Column by which a row is a duplicate of one that the target tenant has.
        token_ranges: Partitions of the asset.
    """

    name: str
    table: TableName
    select: str
    changes: tuple[Change, ...]
    id_column: str | None = None
    id_file: str = ""
    duplicates_by: str | None = None
    token_ranges: int = 16

    @property
    def ranges(self) -> tuple[TokenRange, ...]:
        """The slices of the ring, in order."""
        return split_ring(self.token_ranges)

    @property
    def changed(self) -> tuple[str, ...]:
        """The columns that are written."""
        return tuple(change.column for change in self.changes)

    def wrong(self, move: "Move") -> list[str]:
        """Say what is wrong with it."""
        del move
        name = f"steps.{self.name}"
        wrong = validate_number(f"{name}.token_ranges", self.token_ranges, 1, MAX_RANGES)
        if not self.changes:
            wrong.append(f"{name}.change is empty; name the columns that change, and to what")
        for change in self.changes:
            wrong += change.wrong(self.name)
        if self.id_file.endswith("/") or "\0" in self.id_file:
            wrong.append(
                f"{name}.id_file is {show(self.id_file)}; give a file's name in the move's folder, "
                "or a path"
            )
        return wrong


@dataclass(frozen=True)
class SyncStep:
    """A table step's rows, which the search service is told to read again.

    `ids_of` is the table step; `index_field` is the field of the index that shows a document's
    tenant, checked afterwards where the store has a search endpoint. `sleep_ms` is the pause
    between calls, `wait_seconds` how long the index may take.
    """

    name: str
    store: str
    object_type: str
    ids_of: str
    block_size: int = 100
    sleep_ms: int = 5000
    index_field: str | None = None
    wait_seconds: int = 60

    def wrong(self, move: "Move") -> list[str]:
        """Say what is wrong with it."""
        wrong = validate_object_type(f"steps.{self.name}.sync.object_type", self.object_type)
        wrong += validate_number(f"steps.{self.name}.sync.wait_seconds", self.wait_seconds, 0, 3600)
        before: list[str] = []
        for step in move.steps:
            if step.name == self.name:
                break
            if isinstance(step, TableStep):
                before.append(step.name)
        if self.ids_of not in before:
            wrong.append(
                f"steps.{self.name}.sync.ids_of is {show(self.ids_of)}; valid are the tables "
                f"changed before it: {', '.join(before) or 'none yet'}"
            )
        return wrong


@dataclass(frozen=True)
class NodeRule:
    """Which property of which nodes shows a tenant.

    Attributes:
        label: Label of the nodes.
        property: What shows the tenant.
        only_element: Whether it is a list with the id as its only element, not the id itself.
        identity: Property that tells a node from one that got its number after a deletion.
    """

    label: str
    property: str
    only_element: bool = False
    identity: str = "IL_UNIQUE_ID"

    def __post_init__(self) -> None:
        """Refuse names that Cypher cannot quote.

        Raises:
            DeclarationError: one sentence.
        """
        for what, name in (
            ("label", self.label),
            ("property", self.property),
            ("identity", self.identity),
        ):
            if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
                raise DeclarationError(
                    f"{what} is {name[:50]!r}; a name has 1 to {MAX_NAME_CHARS} printable"
                    " characters"
                )
            # Cypher reads \u0060 as the character that ends a quoted name.
            if "\\" in name:
                raise DeclarationError(f"{what} {name!r} has a backslash; no name may have one")
        if self.identity == self.property:
            raise DeclarationError(
                f"identity and property are both {self.property!r}; name as identity a property"
                " that the move does not change"
            )

    def to_value(self, tenant_id: str) -> Value:
        """Give the value with which a node shows the tenant."""
        return [tenant_id] if self.only_element else tenant_id


def statement(rule: NodeRule, origin: str, target: str) -> str:
    """Give the statement that a person would run instead, spaced as in Sunbird's guide.

    Raises:
        DeclarationError: the ids are no two ids.
    """
    require_ids(origin, target)
    name = f"n.{_quote_name(rule.property)}"
    before, after = (json.dumps(rule.to_value(i), ensure_ascii=False) for i in (origin, target))
    space = " " if rule.only_element else ""
    return (
        f"MATCH (n:{_quote_name(rule.label)}) WHERE {name} ={space}{before} SET {name} = {after};"
    )


def require_ids(origin: str, target: str) -> None:
    """Refuse ids that are no two ids of a graph.

    Raises:
        DeclarationError: one sentence.
    """
    for what, tenant_id in (("origin", origin), ("target", target)):
        if not tenant_id or len(tenant_id) > MAX_TENANT_LENGTH or not tenant_id.isprintable():
            raise DeclarationError(
                f"{what} is {tenant_id[:50]!r}; an id has 1 to {MAX_TENANT_LENGTH} printable "
                "characters"
            )
    if origin == target:
        raise DeclarationError(f"origin and target are both {origin!r}; there is nothing to move")


def _quote_name(name: str) -> str:
    """Quote a name for Cypher where it needs it."""
    return name if _PLAIN_NAME.fullmatch(name) else "`" + name.replace("`", "``") + "`"


@dataclass(frozen=True)
class GraphStep:
    """Nodes of a graph that show the origin tenant; the graph may know tenants by other ids."""

    name: str
    store: str
    origin: str
    target: str
    rules: tuple[NodeRule, ...]

    @property
    def statements(self) -> list[str]:
        """The statements that a person would run instead."""
        return [statement(rule, self.origin, self.target) for rule in self.rules]

    def wrong(self, move: "Move") -> list[str]:
        """Say what is wrong with it."""
        del move
        wrong = _validate_tenants(
            f"steps.{self.name}.graph.origin",
            self.origin,
            f"steps.{self.name}.graph.target",
            self.target,
        )
        if not self.rules:
            wrong.append(f"steps.{self.name}.graph.nodes is empty; name labels and properties")
        return wrong


Step = TableStep | SyncStep | GraphStep


@dataclass(frozen=True)
class Move:
    """Everything of `origin_tenant` becomes `target_tenant`'s, step by step.

    Attributes:
        name: What its assets are called.
        store: The cassandra store of all tables.
        organisations: Table in which both tenants must exist, by their ids.
        rows_per_second: Limit of changes; None for none.
        serial_consistency: Level of the compare-and-set of each row.
        retry_seconds: How long a request that failed for a passing reason is tried again.

    Raises:
        DeclarationError: one message with everything that is wrong.
    """

    name: str
    store: str
    origin_tenant: str
    target_tenant: str
    organisations: TableName
    steps: tuple[Step, ...]
    consistency: str = "LOCAL_QUORUM"
    serial_consistency: str = "SERIAL"
    rows_per_second: int | None = None
    retry_seconds: float = 90.0

    def __post_init__(self) -> None:
        wrong = [
            *_validate_tenants(
                "origin_tenant", self.origin_tenant, "target_tenant", self.target_tenant
            ),
            *validate_choice("consistency", self.consistency, CONSISTENCY_LEVELS),
            *validate_choice("serial_consistency", self.serial_consistency, SERIAL_LEVELS),
        ]
        if self.rows_per_second is not None:
            wrong += validate_number(
                "rows_per_second", self.rows_per_second, 1, MAX_ROWS_PER_SECOND
            )
        if not _PLAIN_NAME.fullmatch(self.name):
            wrong.append(f"name is {show(self.name)}; use letters, digits and _ only")
        if not self.steps:
            wrong.append("steps is empty; declare what is moved, in order")
        files: dict[str, str] = {}
        for step in self.steps:
            if not _PLAIN_NAME.fullmatch(step.name):
                wrong.append(
                    f"the step {show(step.name)} has no fit name; use letters, digits and _ only"
                )
            wrong += step.wrong(self)
            if isinstance(step, TableStep) and step.id_file:
                if step.id_file in files:
                    wrong.append(
                        f"the steps {files[step.id_file]} and {step.name} write the same id_file "
                        f"{show(step.id_file)}; give each its own"
                    )
                files[step.id_file] = step.name
        if wrong:
            raise DeclarationError(f"{self.name}: " + "; ".join(dict.fromkeys(wrong)))

    @cached_property
    def by_name(self) -> Mapping[str, Step]:
        """The steps by their names, in order."""
        return {step.name: step for step in self.steps}

    def before(self, name: str) -> Iterator[Step]:
        """Give the steps that come before one, in order."""
        for step in self.steps:
            if step.name == name:
                return
            yield step

    def fingerprint(self, step: Step) -> str:
        """Tell declarations apart: a plan holds for the rules that it was made under, no others."""
        said = (self.origin_tenant, self.target_tenant, str(self.organisations), asdict(step))
        return sha256(repr(said).encode()).hexdigest()[:16]


def _validate_tenants(
    origin_name: str, origin: object, target_name: str, target: object
) -> list[str]:
    wrong = [
        f"{name} is {show(value)}; give the tenant's id as text, in quotes"
        for name, value in ((origin_name, origin), (target_name, target))
        if not is_name(value) or len(value) > MAX_TENANT_LENGTH
    ]
    if not wrong and origin == target:
        wrong.append(
            f"{origin_name} and {target_name} are both {show(origin)}; a move needs two tenants"
        )
    return wrong
