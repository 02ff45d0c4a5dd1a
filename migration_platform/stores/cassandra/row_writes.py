"""How one row becomes statements: an INSERT for its marker, an UPDATE for each other time.

A row whose cells share a time is one INSERT. In other rows the INSERT carries the cells that have
the marker's time, and each further time gets an UPDATE of its own, which writes no marker and, of
a set or map, only the elements that have this time.
"""

from collections.abc import Sequence

from migration_platform.cql.cell_times import CellTime, SettledTimes
from migration_platform.cql.elements import (
    read_elements,
    read_entries,
    read_fields,
    write_elements,
    write_entries,
)
from migration_platform.cql.rows import UNSET, join_cells
from migration_platform.errors import MigrationError
from migration_platform.plan.model import Plan, Table
from migration_platform.plan.row_form import RowForm, ValueForm
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.writes import (
    Part,
    WriteStatement,
    prepare_insert,
    prepare_update,
)

INSERT, UPDATE = 0, 1


def using(plan: Plan, table: Table) -> str:
    """Give the clause with which a write states its times.

    A table's own `default_time_to_live` would let the copy expire: TTL 0 overrules it.
    """
    rules = plan.rules
    if rules.writetime != "now":
        return " USING TIMESTAMP ? AND TTL ?"
    if rules.ttl != "none":
        return " USING TTL ?"
    return " USING TTL 0" if table.default_ttl_seconds else ""


def prepare_writes(
    connection: Connection, plan: Plan, form: RowForm, *, retry_seconds: float
) -> list[WriteStatement]:
    """Prepare the INSERT of whole rows and, where cells may differ in time, the UPDATE."""
    clause = using(plan, plan.target)
    statements = [
        prepare_insert(
            connection,
            plan.target,
            [source.target for source in form.sources],
            using=clause,
            retry_seconds=retry_seconds,
        )
    ]
    if form.values and plan.rules.keeps_times:
        statements.append(
            prepare_update(
                connection,
                plan.target,
                form.key_names,
                [
                    (form.sources[value.position].target, form.sources[value.position].target_type)
                    for value in form.values
                ],
                using=clause,
                retry_seconds=retry_seconds,
            )
        )
    return statements


def to_parts(
    form: RowForm,
    cells: Sequence[bytes | None],
    times: SettledTimes,
    lists: dict[int, CellTime] | None = None,
) -> tuple[Part, ...]:
    """Give the statements that write a row with each cell's own time.

    `lists` gives the positions of the unfrozen lists that are to be written, and their times;
    without it all are, at the times that they have.
    """
    marker = times.marker
    inserted: list[bytes | None] = [None] * len(form.sources)
    for position in form.keys:
        inserted[position] = cells[position]
    groups: dict[CellTime, dict[int, bytes]] = {}
    parts: list[Part] = []
    keys = join_cells([cells[position] for position in form.keys], UNSET)

    def update(slots: dict[int, bytes], time: CellTime, renewed: bool = False) -> Part:
        bound = join_cells([slots.get(slot) for slot in range(form.slots)], UNSET)
        return Part(UPDATE, bound + keys, time, renewed)

    for value, time in zip(form.values, times.cells, strict=True):
        cell = cells[value.position]
        if cell is None:
            continue
        if value.kind == "list":
            assert isinstance(time, tuple)
            if lists is None or value.position in lists:
                at = time if lists is None else lists[value.position]
                parts.append(update({value.slot: cell}, at, renewed=True))
        elif value.kind == "plain":
            assert isinstance(time, tuple)
            if form.has_marker and time == marker:
                inserted[value.position] = cell
            else:
                groups.setdefault(time, {})[value.slot] = cell
        else:
            for part_time, slot, part in _elements(value, cell, time):
                groups.setdefault(part_time, {})[slot] = part
    if form.has_marker:
        parts.insert(0, Part(INSERT, join_cells(inserted, UNSET), marker))
    parts += [update(slots, time) for time, slots in groups.items()]
    return tuple(parts)


def _elements(
    value: ValueForm, cell: bytes, time: CellTime | list[CellTime | None]
) -> list[tuple[CellTime, int, bytes]]:
    """Sort the elements, entries or fields of a cell by their time: (time, slot, bytes)."""
    if value.kind == "udt":
        fields = read_fields(cell, value.fields)
        times = time if isinstance(time, list) else [time] * len(fields)
        return [
            (at, value.slot + position, part)
            for position, (at, part) in enumerate(zip(times, fields, strict=True))
            if at is not None and part is not None
        ]
    if isinstance(time, tuple):
        return [(time, value.slot, cell)]
    is_map = value.kind == "map"
    elements: Sequence = read_entries(cell) if is_map else read_elements(cell)
    if len(elements) != len(time):
        raise MigrationError(
            f"the server gave {len(time)} writetimes for {len(elements)} elements of a {value.kind}"
        )
    groups: dict[CellTime, list] = {}
    for element, at in zip(elements, time, strict=True):
        if at is not None:
            groups.setdefault(at, []).append(element)
    join = write_entries if is_map else write_elements
    return [(at, value.slot, join(found)) for at, found in groups.items()]
