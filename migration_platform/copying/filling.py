"""What fills a row's cells at the target: converted, taken from JSON or from a map's entries."""

import json
from collections.abc import Callable, Iterator, Sequence

from migration_platform.cql.conversion import Converter, needs_sorting, sort_elements
from migration_platform.cql.elements import read_entries
from migration_platform.cql.keys import NO_KEY
from migration_platform.cql.names import quote
from migration_platform.cql.rows import NULL, join_cells
from migration_platform.cql.types import holds_sets, parse_type
from migration_platform.cql.values import encode_value
from migration_platform.declaration.columns import Columns
from migration_platform.plan.model import Plan, Source


class Bad(Exception):  # noqa: N818, it never leaves what compiles rows
    """What is wrong with a row that is being read; see `BadRow`."""

    def __init__(self, column: str, cause: str, said: str = ""):
        super().__init__(said or cause)
        self.column, self.cause, self.said = column, cause, said


Cells = list[bytes | None]
Fills = Sequence[tuple[int, Converter | None, Source]]
"""Of each cell of the target: where it stands among the cells that were read and those that were
added to them (below 0 if it is a constant), what converts it, and its source."""
FillAll = Callable[[Cells], tuple[list[tuple[int, Cells, Cells]], Bad | None]]


def find_fills(
    plan: Plan,
    names: tuple[str, ...],
    sources: Sequence[Source],
    json_sources: Sequence[Source],
    sorted_sets: bool,
) -> Fills:
    """Find where each cell of the target comes from."""
    read = len(names)
    json_at = {source.target: read + at for at, source in enumerate(json_sources)}
    entry_at = read + len(json_sources)
    fills: list[tuple[int, Converter | None, Source]] = []
    for source in sources:
        if source.kind == "constant":
            fills.append((-1, None, source))
            continue
        position = {
            "column": lambda s: names.index(s.origin),
            "json": lambda s: json_at[s.target],
            "map_key": lambda s: entry_at,
            "map_value": lambda s: entry_at + 1,
        }[source.kind](source)
        fills.append((position, _converter(source, plan.migration.columns, sorted_sets), source))
    return fills


def compile_extend(
    plan: Plan, names: tuple[str, ...], json_sources: Sequence[Source], map_cell: int | None
) -> Callable[[Cells], Iterator[Cells]]:
    """Build what gives a row's cells with what JSON properties and map entries add to them."""
    extract = plan.migration.columns.extract_json
    json_cell = names.index(extract.column) if extract and json_sources else None

    def extend(cells: Cells) -> Iterator[Cells]:
        if json_cell is not None:
            cells = cells + _read_json(cells[json_cell], json_sources)
        if map_cell is None:
            yield cells
            return
        value = cells[map_cell]
        for key, entry in read_entries(value) if value else ():
            yield [*cells, key, entry]

    return extend


def compile_fill_all(extend: Callable[[Cells], Iterator[Cells]], fills: Fills) -> FillAll:
    """Build the function that gives all target rows of one origin row, and what is wrong with them.

    Each is an entry, the cells with what was added to them, and the target's cells.
    """

    def fill_all(cells: Cells) -> tuple[list[tuple[int, Cells, Cells]], Bad | None]:
        made, why = [], None
        try:
            entries = list(extend(cells))
        except Bad as error:
            return made, error
        for entry, extended in enumerate(entries):
            try:
                made.append((entry, extended, _fill(extended, fills)))
            except Bad as error:
                why = why or error
        return made, why

    return fill_all


def _fill(extended: Cells, fills: Fills) -> Cells:
    """Give the target's cells, of those that were read and added.

    Raises:
        Bad: a cell cannot be converted, or a key column has no value.
    """
    filled: Cells = []
    for position, convert, source in fills:
        cell = source.constant if position < 0 else extended[position]
        if cell is None:
            cell = source.default
            if cell is None and source.is_key:
                raise Bad(
                    source.target,
                    f"has no value for the key column {quote(source.target)}; name one in "
                    "columns.key_defaults",
                )
        elif convert is not None:
            try:
                cell = convert(cell)
            except ValueError as error:
                raise Bad(
                    source.origin,
                    f"cannot be converted: {quote(source.origin)}: from {source.origin_type} "
                    f"to {source.target_type}",
                    f"cannot be converted: {quote(source.origin)}: {error}",
                ) from error
        filled.append(cell)
    return filled


def compile_stand_in(key_fills: Fills, added: int) -> Callable[[Cells, str], bytes]:
    """Build what forms the key of a row that cannot be written as far as it can be formed."""

    def stand_in(cells: Cells, text: str) -> bytes:
        known = [*cells, *[None] * added]
        key: Cells = []
        for each in key_fills:
            try:
                key += _fill(known, [each])
            except Bad:
                key.append(NO_KEY + text.encode()[:1000])
        return join_cells(key, NULL)

    return stand_in


def is_sorted(source: Source) -> bool:
    """Say whether a column's elements have to be sorted before both sides can be compared.

    A server keeps a set within a user-defined type as a client sent it, but sorts the same set
    when the field is written for itself.
    """
    if source.kind != "column":
        return False
    here, there = parse_type(source.origin_type), parse_type(source.target_type)
    is_udt = there.is_multicell and there.name == "udt"
    return needs_sorting(here, there) or (is_udt and holds_sets(there))


def _converter(source: Source, columns: Columns, sorted_sets: bool) -> Converter | None:
    convert = source.converter(columns)
    if not sorted_sets or not is_sorted(source):
        return convert
    target = parse_type(source.target_type)
    return lambda value: sort_elements(convert(value) if convert else value, target)


def _read_json(cell: bytes | None, sources: Sequence[Source]) -> list[bytes | None]:
    if not cell or cell.isspace():
        # A blank text holds no property; the Data Migrator takes it for none, too.
        return [None] * len(sources)
    column = sources[0].origin
    found: list[bytes | None] = []
    told = "it is no JSON object"
    try:
        content = json.loads(cell)
        if not isinstance(content, dict):
            raise ValueError(told)
        for source in sources:
            value = content.get(source.json_property)
            told = f"the property {source.json_property} is no {source.target_type}"
            if value is not None and source.target_type == "text" and not isinstance(value, str):
                # A number or an object lands in a text as JSON writes it.
                value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            found.append(
                None if value is None else encode_value(value, parse_type(source.target_type))
            )
    except RecursionError:
        text = f"cannot be converted: {quote(column)}: its JSON is nested too deeply"
        raise Bad(column, text) from None
    except ValueError as error:
        text = f"cannot be converted: {quote(column)}: "
        raise Bad(column, text + told, text + str(error)) from error
    return found
