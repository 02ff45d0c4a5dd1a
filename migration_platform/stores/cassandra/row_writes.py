"""How one row becomes statements: an INSERT for its marker, an UPDATE for each other time.

A row whose cells share a time is one INSERT. In other rows the INSERT carries the cells that have
the marker's time, and each further time gets an UPDATE of its own, which writes no marker and, of
a set or map, only the elements that have this time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from migration_platform.cql.cell_times import CellTime, PerElement, SettledTimes, TimeOf
from migration_platform.cql.elements import (
    read_elements,
    read_entries,
    read_fields,
    write_elements,
    write_entries,
)
from migration_platform.cql.rows import UNSET, join_cells
from migration_platform.cql.types import parse_type
from migration_platform.errors import MigrationError
from migration_platform.plan.model import Layer, Plan, Source, Table, time_of
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.writes import (
    Part,
    WriteStatement,
    prepare_insert,
    prepare_update,
)

INSERT, UPDATE = 0, 1


@dataclass(frozen=True)
class _Value:
    """A value column: its position in a row, its first slot in the UPDATE, and its kind."""

    position: int
    slot: int
    kind: str
    fields: int = 0


@dataclass(frozen=True)
class RowForm:
    """How the rows of a layer are written: the sources in order, and where things stand in them.

    `lists` are the value columns that are unfrozen lists at the target. `per_element` tells, for
    each value column, whether its elements have times of their own there.
    """

    sources: tuple[Source, ...]
    keys: tuple[int, ...]
    values: tuple[_Value, ...]
    slots: int
    lists: tuple[int, ...]
    per_element: tuple[PerElement, ...]
    time_of: tuple[TimeOf, ...]
    has_marker: bool
    key_names: tuple[str, ...] = field(default=())


def build_form(plan: Plan, layer: Layer, sources: tuple[Source, ...]) -> RowForm:
    """Say where things stand in the rows of a layer whose sources have this order."""
    table_key = plan.target.primary_key if layer.name == "rows" else plan.target.partition_key
    at = {source.target: position for position, source in enumerate(sources)}
    values: list[_Value] = []
    slot = 0
    for position, source in enumerate(sources):
        if source.is_key:
            continue
        cql_type = parse_type(source.target_type)
        kind = cql_type.name if cql_type.is_multicell else "plain"
        fields = len(cql_type.fields) if kind == "udt" else 0
        values.append(_Value(position, slot, kind, fields))
        slot += fields or 1
    return RowForm(
        sources=sources,
        keys=tuple(at[name] for name in table_key),
        values=tuple(values),
        slots=slot,
        lists=tuple(v.position for v in values if v.kind == "list"),
        per_element=tuple(_per_element(sources[value.position]) for value in values),
        time_of=tuple(time_of(layer, sources[value.position]) for value in values),
        has_marker=layer.name == "rows",
        key_names=table_key,
    )


def _per_element(source: Source) -> PerElement:
    there = parse_type(source.target_type)
    if not there.is_multicell or there.name == "list":
        return False
    here = parse_type(source.origin_type) if source.kind == "column" else there
    if there.name == "udt" and here.name == "udt":
        positions = {name: position for position, (name, _) in enumerate(here.fields)}
        return tuple(positions.get(name, -1) for name, _ in there.fields)
    return True


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
    value: _Value, cell: bytes, time: CellTime | list[CellTime | None]
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
