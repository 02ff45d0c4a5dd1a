"""DynamoDB as a target: what `stores.interface.Target` asks, answered by a table of items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from migration_platform.cql.conversion import Converter
from migration_platform.declaration.migration import Migration
from migration_platform.errors import MigrationError, PreflightError
from migration_platform.plan.fidelity import write_table
from migration_platform.plan.model import Layer, Plan, Source, Table
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.cost import GB, tell_cost
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget
from migration_platform.stores.dynamodb.items import UnholdableRow, compile_item
from migration_platform.stores.dynamodb.rows import (
    ItemDeletes,
    ItemKeyReader,
    ItemQuery,
    ItemReader,
    ItemWrites,
)
from migration_platform.stores.dynamodb.sample import sample_cost
from migration_platform.stores.dynamodb.shape import (
    USABLE,
    build_item_form,
    create_target,
    find_ready,
    shape_target,
    tell_table,
    validate_items,
)
from migration_platform.stores.dynamodb.tables import DynamoTable, describe, find_table
from migration_platform.stores.dynamodb.writes import empty_table
from migration_platform.stores.interface import (
    Cells,
    CompileRows,
    KeyForm,
    Markdown,
    Origin,
    Pace,
    Selection,
    Target,
)


@dataclass(frozen=True)
class Found:
    """The table that is there, if there is one, and the same if it is ready to be written."""

    table: DynamoTable | None
    ready: DynamoTable | None


class ItemTarget(Target):
    """A DynamoDB table that is written."""

    def __init__(self, connection: DynamoDb):
        self.connection = connection
        self._table: DynamoTable | None = None

    def find_table(self, migration: Migration) -> tuple[Found, list[str]]:
        """Look for the table; refuse one that is not ready and is not to be created.

        Raises:
            PreflightError: there is none, or it cannot be described.
        """
        declared, name = _declared(migration), migration.target.table.table
        look = find_table if declared.create else describe
        try:
            found = look(self.connection, name, retry_seconds=migration.retry_seconds)
            ready = find_ready(self.connection, found, migration)
        except PreflightError:
            raise
        except MigrationError as error:
            raise type(error)(f"cannot describe the table {name}: {error}") from error
        wrong = []
        if found is not None and not declared.create and found.status not in USABLE:
            wrong.append(f"the table {name} is {found.status}; try again when it is ACTIVE")
        return Found(found, ready), wrong

    def shape(self, migration: Migration, origin: Table, found: Found | None) -> Table:
        """Give the columns and the key that the declaration makes of the origin's.

        Raises:
            DeclarationError: the key names what is no column, or a type is none.
        """
        ready = found.ready if found else None
        return shape_target(migration, origin, ready.table_id if ready else "")

    def validate(self, plan: Plan, origin: Origin, found: Found | None) -> list[str]:
        """Refuse items that no table could have, and a table that has another key."""
        del origin
        found = found or Found(None, None)
        return validate_items(plan, found.table, found.ready)

    def create(self, plan: Plan, report: Callable[[str], None]) -> None:
        """Create the table and wait until it is active.

        Raises:
            MigrationError: it was refused, or does not become active.
        """
        create_target(self.connection, plan, report)

    def empty(self, plan: Plan, pace: Pace) -> int:
        """Delete every item.

        Raises:
            PermanentError, TransientError: some could not be deleted.
        """
        # As it is now: it may have been made anew.
        name = plan.target.name.table
        table = describe(self.connection, name, retry_seconds=pace.retry_seconds)
        return empty_table(
            self.connection,
            table,
            budget=pace.budget,
            retry_seconds=pace.retry_seconds,
            on_retry=pace.on_retry,
        )

    def describe_cost(
        self, plan: Plan, origin: Origin, compile_rows: CompileRows
    ) -> dict[str, Any]:
        """Estimate capacity units and storage from a sample, and tell how the table differs."""
        migration = plan.migration
        name, seconds = migration.target.table.table, migration.retry_seconds
        found = find_table(self.connection, name, retry_seconds=seconds)
        cost = sample_cost(plan, origin, found, compile_rows)
        told: dict[str, Any] = {
            "cost": Markdown(
                write_table(
                    ("what", "estimate", "how it is counted"),
                    tell_cost(cost, migration, found, scans=len(plan.layers)),
                )
            ),
            "estimated_items": round(cost.items.value),
            "estimated_write_units": round(cost.write_units.value),
            "estimated_index_write_units": round(cost.index_units.value),
            "estimated_read_units_of_a_comparison": round(cost.read_units.value),
            "estimated_storage_gb": round(cost.storage_bytes.value / GB, 6),
            "average_item_bytes": round(cost.average_item),
            "largest_item_bytes": cost.largest_item,
            "sampled_items": cost.sampled,
            "table_is_created": found is None,
        }
        if differs := tell_table(plan, found):
            told["table_differs"] = Markdown("\n".join(f"- {line}" for line in differs))
        if cost.rejected.value:
            told["rows_that_no_item_can_hold"] = round(cost.rejected.value)
            told["no_item_can_hold"] = list(cost.rejected_samples)
        return told

    def prepare_writes(self, plan: Plan, layer: Layer) -> ItemWrites:
        """Prepare the writes of a layer's items."""
        sources = layer.ordered(())
        form = build_item_form(plan, layer, sources)
        return ItemWrites(self.connection, self._open(plan), layer, form, sources)

    def prepare_ranges(self, plan: Plan, selection: Selection) -> ItemReader:
        """Prepare scans of the table's segments."""
        return ItemReader(self.connection, self._open(plan), _form_of(plan, selection))

    def prepare_keys(
        self, plan: Plan, selection: Selection, keys: KeyForm
    ) -> ItemKeyReader | ItemQuery:
        """Prepare the read of single items, or of those that begin with a part of a key."""
        form = _form_of(plan, selection)
        if selection.by:
            return ItemQuery(self.connection, self._open(plan), form, selection.by, keys)
        return ItemKeyReader(self.connection, self._open(plan), form, keys.cells)

    def prepare_deletes(
        self,
        plan: Plan,
        selection: Selection,
        keys: KeyForm,
        values: Sequence[tuple[int, Source]],
    ) -> ItemDeletes:
        """Prepare the deletion of items."""
        del values
        reader = self.prepare_keys(plan, selection, keys)
        assert isinstance(reader, ItemKeyReader)
        return ItemDeletes(reader)

    def _open(self, plan: Plan) -> DynamoTable:
        """Give the table as it is; it is described once in a process.

        Raises:
            PreflightError: there is no such table any more.
        """
        if self._table is None:
            migration = plan.migration
            self._table = describe(
                self.connection,
                migration.target.table.table,
                retry_seconds=migration.retry_seconds,
            )
        return self._table


def _declared(migration: Migration) -> DynamoDbTarget:
    declared = migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    return declared


def _form_of(plan: Plan, selection: Selection) -> Any:
    assert selection.layer is not None
    return build_item_form(plan, selection.layer, selection.sources)


def canonical_cells(plan: Plan, layer: Layer, sources: Sequence[Source]) -> dict[int, Converter]:
    """Say which cells an item gives back in the one form of their value only."""
    item = build_item_form(plan, layer, tuple(sources))
    found = {position: item.canonical(column) for position, column in enumerate(item.columns)}
    return {position: change for position, change in found.items() if change is not None}


def compile_rejection(
    plan: Plan, layer: Layer, sources: Sequence[Source]
) -> Callable[[Cells], str]:
    """Build what says why no item can hold a row; empty if one can."""
    to_item = compile_item(build_item_form(plan, layer, tuple(sources)))

    def reject(cells: Cells) -> str:
        try:
            to_item(cells, None, None)
        except UnholdableRow as why:
            return str(why)
        return ""

    return reject
