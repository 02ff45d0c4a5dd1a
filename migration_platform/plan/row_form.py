"""Where things stand in the cells of a row that is written: its key, its values, their times."""

from dataclasses import dataclass, field

from migration_platform.cql.cell_times import PerElement, TimeOf
from migration_platform.cql.types import parse_type
from migration_platform.plan.model import Layer, Plan, Source, time_of


@dataclass(frozen=True)
class ValueForm:
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
    values: tuple[ValueForm, ...]
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
    values: list[ValueForm] = []
    slot = 0
    for position, source in enumerate(sources):
        if source.is_key:
            continue
        cql_type = parse_type(source.target_type)
        kind = cql_type.name if cql_type.is_multicell else "plain"
        fields = len(cql_type.fields) if kind == "udt" else 0
        values.append(ValueForm(position, slot, kind, fields))
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
