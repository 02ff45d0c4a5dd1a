"""A step of a move held against its table: which columns are looked at, and what they become."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from migration_platform.comparing.digest import buckets_per_range
from migration_platform.cql.elements import read_elements
from migration_platform.cql.names import quote
from migration_platform.cql.samples import show_sample
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.cql.values import encode_value, show_value
from migration_platform.errors import PreflightError
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.masks import validate_masks
from migration_platform.stores.cassandra.placement import validate_view
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.tenant.cell_changes import compile_change
from migration_platform.tenant.declaration import Move, TableStep

Cells = tuple[bytes | None, ...]
_KEY = "the primary key"


@dataclass(frozen=True)
class TableShape:
    """A step held against its table: what is read in which order, and the tenants as cells.

    Attributes:
        watched: The columns that a move looks at: `select`, then those that change.
        untouched: All others, but the key.
        names: Whether `select` holds several tenants, as a list or set.
        origin: The origin tenant as a cell, or as an element where `select` holds several.
        after: What of the watched cells each change makes, in the order of the changes.
    """

    step: TableStep
    table: Table
    watched: tuple[str, ...]
    untouched: tuple[str, ...]
    names: bool
    origin: bytes
    target: bytes
    after: tuple[Callable[[bytes | None], bytes | None], ...]
    id_column: str
    looked_up: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns in the order in which they are read."""
        return (*self.table.primary_key, *self.watched, *self.untouched)

    @cached_property
    def key_size(self) -> int:
        """How many cells the key has."""
        return len(self.table.primary_key)

    @cached_property
    def select_at(self) -> int:
        """Where `select` stands in a row."""
        return self.columns.index(self.step.select)

    @cached_property
    def changed_at(self) -> tuple[int, ...]:
        """Where the columns that change stand among the watched ones."""
        return tuple(self.watched.index(name) for name in self.step.changed)

    @cached_property
    def buckets(self) -> int:
        """How many digests a range has."""
        return buckets_per_range(self.step.token_ranges)

    def type_of(self, column: str) -> CqlType:
        """Give a column's type."""
        return parse_type(self.table.type_of(column))

    def show(self, column: str, cell: bytes | None) -> str:
        """Give a cell for people."""
        return "null" if cell is None else show_value(cell, self.type_of(column))

    def sample(self, column: str, cell: bytes | None) -> str:
        """Give a cell for a message, which may cut it."""
        return show_sample(cell, self.type_of(column))

    def shows(self, tenant: bytes, cell: bytes | None) -> bool:
        """Say whether a cell of `select` shows a tenant."""
        if cell is None:
            return False
        return tenant in read_elements(cell) if self.names else cell == tenant

    def watched_of(self, cells: Sequence[bytes | None]) -> Cells:
        """Give the watched cells of a row whose cells have the order of `columns`."""
        return tuple(cells[self.key_size : self.key_size + len(self.watched)])

    def changes_of(self, cells: Sequence[bytes | None]) -> Cells | None:
        """Give what the watched cells become in a row that shows the origin; None if no change.

        `cells` are the row's, in the order of `columns`.
        """
        if not self.shows(self.origin, cells[self.select_at]):
            return None
        before = self.watched_of(cells)
        after = [*before]
        for at, change in zip(self.changed_at, self.after, strict=True):
            after[at] = change(before[at])
        return None if tuple(after) == before else tuple(after)


def shape_table(connection: Connection, move: Move, step: TableStep) -> TableShape:
    """Hold a step against its table, and look up what it takes from other rows.

    Raises:
        PreflightError: one message with everything that does not fit.
    """
    table = describe_table(connection, step.table)
    wrong = _validate_columns(step, table)
    wrong += validate_view(table)
    wrong += validate_masks(connection, table.name, str(connection.settings))
    if wrong:
        raise PreflightError(f"{step.name}: " + "; ".join(wrong))
    looked_up: dict[str, str] = {}
    after = []
    names, origin = _tenant_cell(table, step.select, move.origin_tenant, wrong)
    target = _tenant_cell(table, step.select, move.target_tenant, wrong)[1]
    for change in step.changes:
        try:
            after.append(compile_change(connection, move, table, change, looked_up))
        except (PreflightError, ValueError) as error:
            wrong.append(f"{quote(change.column)}: {error}")
    if wrong:
        raise PreflightError(f"{step.name}: " + "; ".join(wrong))
    watched = tuple(
        dict.fromkeys(
            name for name in (step.select, *step.changed) if name not in table.primary_key
        )
    )
    return TableShape(
        step=step,
        table=table,
        watched=watched,
        untouched=tuple(
            column.name
            for column in table.columns
            if column.name not in watched and column.name not in table.primary_key
        ),
        names=names,
        origin=origin,
        target=target,
        after=tuple(after),
        id_column=step.id_column or next(iter(table.primary_key)),
        looked_up=looked_up,
    )


def _validate_columns(step: TableStep, table: Table) -> list[str]:
    """Say which columns are not there, cannot change, or tell no row."""
    known = {column.name: column for column in table.columns}
    wrong: list[str] = []
    needed = dict.fromkeys((step.select, *step.changed, step.duplicates_by, step.id_column))
    for name in needed:
        if name is not None and name not in known:
            wrong.append(
                f"{table.name} has no column {quote(name)}; valid are "
                f"{', '.join(map(quote, known))}"
            )
    wrong += [
        f"{quote(name)} is part of {_KEY} of {table.name}, and a key cannot change; such rows have "
        "to be copied"
        for name in step.changed
        if name in table.primary_key
    ]
    wrong += [
        f"{quote(name)} of {table.name} is static: it belongs to a partition, and not to a row"
        for name in dict.fromkeys((step.select, *step.changed))
        if name in known and known[name].is_static
    ]
    if step.id_column is None and len(table.primary_key) > 1:
        wrong.append(
            f"the key of {table.name} has several columns; say in id_column which one stands in "
            f"the id file: {', '.join(map(quote, table.primary_key))}"
        )
    if step.id_column in known and step.id_column not in table.primary_key:
        wrong.append(
            f"id_column is {quote(step.id_column)}, which is not part of {_KEY} of {table.name}: "
            f"{', '.join(map(quote, table.primary_key))}"
        )
    if not table.is_murmur3:
        wrong.append(f"the tokens of {table.name} are not Murmur3's, so its ranges are unknown")
    return wrong


def _tenant_cell(table: Table, column: str, tenant: str, wrong: list[str]) -> tuple[bool, bytes]:
    """Give whether a column holds several tenants, and a tenant as its cell or element."""
    cql_type = parse_type(table.type_of(column))
    names = cql_type.name in ("list", "set")
    kind = cql_type.parameters[0] if names else cql_type
    try:
        return names, encode_value(tenant, kind)
    except ValueError as error:
        wrong.append(f"{quote(column)} cannot show a tenant: {error}")
        return names, b""
