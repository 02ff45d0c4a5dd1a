"""What happens to a row between its page and its write: filtered, guarded, transformed.

Compiled once for each use of a layer. Rows whose columns pass through untouched stay one slice of
the page; only others are cut into cells.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from migration_platform.counts import MAX_SAMPLES, BadRow, Tally
from migration_platform.cql.cell_times import (
    compile_times_reader,
    read_row_time,
)
from migration_platform.cql.conversion import Converter, needs_sorting, sort_elements
from migration_platform.cql.elements import read_entries
from migration_platform.cql.forms import in_usual_form, usual_form
from migration_platform.cql.keys import NO_KEY, show_key
from migration_platform.cql.names import quote
from migration_platform.cql.rows import (
    NULL,
    UNSET,
    Page,
    Split,
    compile_splitter,
    join_cells,
    split_cells,
    unset_nulls,
)
from migration_platform.cql.types import holds_sets, parse_type
from migration_platform.cql.values import encode_value, show_value
from migration_platform.declaration.columns import Columns
from migration_platform.plan.model import Layer, Plan, Row, RowReader, Source
from migration_platform.stores.interface import Selection

KILOBYTE = 1000
"""As the Cassandra Data Migrator counts."""

Wins = Callable[[bytes, bytes], bool]
"""Says whether the row with this target key and this origin key is the one that is copied."""


class _Bad(Exception):  # noqa: N818, it never leaves this module
    """What is wrong with a row that is being read; see `BadRow`."""

    def __init__(self, column: str, cause: str, said: str = ""):
        super().__init__(said or cause)
        self.column, self.cause, self.said = column, cause, said


BAD_ROW: Any = "bad"
"""Stands where a row's times do, if the row is one that cannot be written."""


def compile_rows(
    plan: Plan,
    layer: Layer,
    sources: Sequence[Source],
    leading: int,
    *,
    null: bytes,
    wins: Wins | None = None,
    sorted_sets: bool = False,
    stands_in: bool = False,
) -> RowReader:
    """Build the reader of a layer's origin rows, as the given sources say.

    `leading` counts the first sources that form a row's key. `null` is how a null is written:
    `NULL` to compare, `UNSET` to write. `sorted_sets` gives converted sets and maps an order that
    both sides share.

    A row that cannot be converted, is too large or lacks a key is handed to the tally's `refuse`
    and left out. With `stands_in` it is given instead, with its key alone and `BAD_ROW` in place
    of its times; a key that cannot be formed is a text that says so.
    """
    chosen, guardrails = plan.migration.filter, plan.migration.guardrails
    columns = plan.migration.columns
    passing = [source for source in sources if source.kind != "constant"]
    untouched = (
        all(
            source.kind == "column" and source.default is None and source.converter(columns) is None
            for source in passing
        )
        and not chosen.column
        and wins is None
        and not any(column.is_static for column in plan.origin.columns)
        # A key that was a value may be null, and the row cannot be written then.
        and all(s.origin in layer.origin_key for s in passing if s.is_key)
        # A page that is continued, and a row that is set aside, are found by the origin's key.
        and set(layer.origin_key) <= {s.origin for s in passing}
    )
    read_times = compile_times_reader(layer.times)
    limit = guardrails.max_column_kb * KILOBYTE if guardrails else None
    names = (
        tuple(source.origin for source in passing) if untouched else _needed(plan, layer, passing)
    )
    split = compile_splitter(
        len(names),
        min(leading, sum(s.kind != "constant" for s in sources[:leading])) if untouched else 0,
        read_times=read_times,
        max_cell_bytes=limit,
    )
    show = _key_shower(plan, layer, names)
    give = (
        _untouched(split, sources, leading, null, stands_in)
        if untouched
        else _transformed(
            plan, layer, split, names, sources, leading, null, wins, sorted_sets, stands_in
        )
    )

    def judge(page: Page, found: Split, tally: Tally) -> tuple[set[int], dict[int, _Bad]]:
        """Name the rows that are left out, and those that cannot be written."""
        out: set[int] = set()
        bad: dict[int, _Bad] = {}
        for row, cell, size in found.large:
            name = names[cell]
            # A partition's key is counted with its rows, not with its static cells once more.
            is_new = layer.name == "rows" or name not in layer.origin_key
            if is_new:
                tally.large[name] = tally.large.get(name, 0) + 1
            if is_new and len(tally.large_samples) < MAX_SAMPLES:
                tally.large_samples.append(
                    f"{show(page, found, row)}: {quote(name)} ({size / KILOBYTE:,.1f} KB)"
                )
            if guardrails and guardrails.action != "report":
                if guardrails.action == "fail":
                    way_out = (
                        f"guardrails.max_column_kb is {guardrails.max_column_kb}; make it smaller, "
                        "or set guardrails.action to skip or report"
                    )
                    bad[row] = _Bad(
                        name,
                        f"has a cell in {quote(name)} that is too large: {way_out}",
                        f"has a cell of {size / KILOBYTE:,.1f} KB in {quote(name)}, but {way_out}",
                    )
                else:
                    out.add(row)
        tally.too_large += len(out)
        if chosen.by_writetime:
            low = chosen.writetime_from
            high = chosen.writetime_to
            for row, times in enumerate(found.times):
                if times is None or row in out:
                    continue
                newest, _ = read_row_time(times, 0)
                if newest is not None and not (
                    (low is None or low <= newest) and (high is None or newest <= high)
                ):
                    out.add(row)
                    tally.filtered += 1
        return out, bad

    def rows(page: Page, tally: Tally) -> Iterator[Row]:
        found = split(page.data, page.row_count)
        out, bad = _NOTHING
        if found.large or chosen.by_writetime:
            out, bad = judge(page, found, tally)

        def set_aside(row: int, why: _Bad) -> None:
            if stands_in:
                return
            found_cells = split_cells(page.data[found.starts[row] :], len(names))
            cells = dict(zip(names, found_cells, strict=True))
            tally.refuse(
                BadRow(
                    layer.name,
                    join_cells([cells[name] for name in layer.origin_key], NULL),
                    show(page, found, row),
                    why.column,
                    why.cause,
                    why.said,
                )
            )

        return give(page, found, tally, out, bad, set_aside, lambda row: show(page, found, row))

    return RowReader(names, layer.times, rows)


_NOTHING: tuple[set[int], dict[int, _Bad]] = (set(), {})
_Give = Callable[
    [
        Page,
        Split,
        Tally,
        set[int],
        dict[int, _Bad],
        Callable[[int, _Bad], None],
        Callable[[int], str],
    ],
    Iterator[Row],
]


def _untouched(
    split: Callable, sources: Sequence[Source], leading: int, null: bytes, stands_in: bool
) -> _Give:
    key_constants = join_cells(
        [s.constant for s in sources[:leading] if s.kind == "constant"], null
    )
    within = join_cells([s.constant for s in sources if s.kind == "constant" and s.is_key], null)
    behind = join_cells(
        [s.constant for s in sources if s.kind == "constant" and not s.is_key], null
    )
    is_key_constant = [s.kind == "constant" and s.is_key for s in sources]
    key_cells = is_key_constant.index(True) if within else 0

    def give(page, found, tally, out, bad, set_aside, show) -> Iterator[Row]:
        data = unset_nulls(page.data, found.nulls) if null is UNSET else page.data
        starts, key_ends, value_ends = found.starts, found.key_ends, found.value_ends
        times = found.times or [None] * page.row_count
        start = 0
        for row, key_end in enumerate(key_ends):
            value_end = value_ends[row]
            if bad and row in bad and row not in out:
                set_aside(row, bad[row])
                if stands_in:
                    yield data[start:key_end] + key_constants, b"", BAD_ROW, 0
            elif not out or row not in out:
                key, values = data[start:key_end], data[start:value_end]
                if within:
                    # Constants of the key stand behind all that is read of it.
                    cut = _end_of(values, key_cells)
                    values = values[:cut] + within + values[cut:]
                    key += key_constants
                yield key, values + behind if behind else values, times[row], 0
            start = starts[row + 1]

    return give


def _end_of(values: bytes, cells: int) -> int:
    return len(join_cells(split_cells(values, cells), NULL))


def _needed(plan: Plan, layer: Layer, passing: Sequence[Source]) -> tuple[str, ...]:
    """Name the origin's columns that a transformation reads, its key first."""
    chosen = plan.migration.filter.column
    filtered = []
    if chosen and (
        layer.name == "rows"
        or chosen.name in plan.origin.partition_key
        or any(c.name == chosen.name and c.is_static for c in plan.origin.columns)
    ):
        filtered = [chosen.name]
    return tuple(dict.fromkeys((*layer.origin_key, *(s.origin for s in passing), *filtered)))


def _key_shower(
    plan: Plan, layer: Layer, names: tuple[str, ...]
) -> Callable[[Page, Split, int], str]:
    def show(page: Page, found: Split, row: int) -> str:
        cells = split_cells(page.data[found.starts[row] :], len(names))
        return show_key(
            [
                (n, plan.origin.type_of(n), cells[names.index(n)])
                for n in layer.origin_key
                if n in names
            ]
        )

    return show


def _transformed(
    plan: Plan,
    layer: Layer,
    split: Callable,
    names: tuple[str, ...],
    sources: Sequence[Source],
    leading: int,
    null: bytes,
    wins: Wins | None,
    sorted_sets: bool,
    stands_in: bool,
) -> _Give:
    columns, chosen = plan.migration.columns, plan.migration.filter.column
    read = len(names)
    json_at = {s.target: i for i, s in enumerate(s for s in sources if s.kind == "json")}
    json_sources = [s for s in sources if s.kind == "json"]
    extract = columns.extract_json
    json_cell = names.index(extract.column) if extract and json_sources else None
    explode = columns.explode_map if layer.name == "rows" else None
    map_cell = names.index(explode.column) if explode and explode.column in names else None
    # Behind the cells that were read stand those of JSON properties, then a map entry's two.
    entry_at = read + len(json_sources)
    fills: list[tuple[int, Converter | None, Source]] = []
    for source in sources:
        if source.kind == "constant":
            fills.append((-1, None, source))
            continue
        position = {
            "column": lambda s: names.index(s.origin),
            "json": lambda s: read + json_at[s.target],
            "map_key": lambda s: entry_at,
            "map_value": lambda s: entry_at + 1,
        }[source.kind](source)
        fills.append((position, _converter(source, columns, sorted_sets), source))
    filter_cell = names.index(chosen.name) if chosen and chosen.name in names else None
    filter_type = parse_type(plan.origin.type_of(chosen.name)) if chosen else None
    wanted = chosen.value.strip().casefold() if chosen else ""
    # A partition with nothing but static cells comes as a row without clustering columns.
    clustering = plan.origin.clustering_columns if layer.name == "rows" else ()
    first_clustering = names.index(clustering[0]) if clustering else None
    key_at = [
        next(i for i, s in enumerate(sources) if s.target == name)
        for name in plan.target.primary_key
        if any(s.target == name for s in sources)
    ]
    to_key = compile_key(plan, [sources[i].target for i in key_at])
    origin_key_at = [names.index(name) for name in layer.origin_key]
    # Two entries of one map may collide as well, where a codec makes their keys one.
    origin_key_at += [entry_at] if map_cell is not None else []

    def give(page, found, tally, out, bad, set_aside, show) -> Iterator[Row]:
        data, starts, value_ends = page.data, found.starts, found.value_ends
        times = found.times
        for row in range(page.row_count):
            if row in out:
                continue
            cells = split_cells(data[starts[row] : value_ends[row]], read)
            if first_clustering is not None and cells[first_clustering] is None:
                tally.added -= 1
                continue
            if filter_cell is not None and filter_type is not None:
                cell = cells[filter_cell]
                if cell is not None and (
                    show_value(cell, filter_type).strip().casefold() == wanted
                ):
                    tally.filtered += 1
                    continue
            made, why = ([], bad[row]) if row in bad else fill_all(cells)
            if why is not None:
                # One entry of a map that cannot be written sets the whole row aside, but in a
                # comparison the others may still be there.
                set_aside(row, why)
                if not stands_in:
                    continue
                text = f"the row {show(row)} {why.said or why.cause}"
                yield stand_in(cells, text), b"", BAD_ROW, 0
            for entry, extended, filled in made:
                if wins is not None and not wins(
                    to_key([filled[i] for i in key_at]),
                    join_cells([extended[i] for i in origin_key_at], NULL),
                ):
                    tally.lost += 1
                    continue
                yield (
                    join_cells(filled[:leading], null),
                    join_cells(filled, null),
                    times[row] if times else None,
                    entry,
                )
            if map_cell is not None:
                tally.added += len(made) - 1

    def fill_all(cells: list[bytes | None]) -> tuple[list[tuple], _Bad | None]:
        """Give what a row becomes: entry, cells with what was added to them, the target's cells."""
        made, why = [], None
        try:
            entries = list(_extend(cells))
        except _Bad as error:
            return made, error
        for entry, extended in enumerate(entries):
            try:
                made.append((entry, extended, fill(extended)))
            except _Bad as error:
                why = why or error
        return made, why

    def fill(
        extended: list[bytes | None], fills: Sequence[tuple[int, Converter | None, Source]] = fills
    ) -> list[bytes | None]:
        filled: list[bytes | None] = []
        for position, convert, source in fills:
            cell = source.constant if position < 0 else extended[position]
            if cell is None:
                cell = source.default
                if cell is None and source.is_key:
                    raise _Bad(
                        source.target,
                        f"has no value for the key column {quote(source.target)}; name one in "
                        "columns.key_defaults",
                    )
            elif convert is not None:
                try:
                    cell = convert(cell)
                except ValueError as error:
                    raise _Bad(
                        source.origin,
                        f"cannot be converted: {quote(source.origin)}: from {source.origin_type} "
                        f"to {source.target_type}",
                        f"cannot be converted: {quote(source.origin)}: {error}",
                    ) from error
            filled.append(cell)
        return filled

    def stand_in(cells: list[bytes | None], text: str) -> bytes:
        """Form the key of a row that cannot be written as far as it can be formed."""
        known = [*cells, *[None] * (len(json_sources) + 2)]
        key: list[bytes | None] = []
        for each in fills[:leading]:
            try:
                key += fill(known, [each])
            except _Bad:
                key.append(NO_KEY + text.encode()[:1000])
        return join_cells(key, NULL)

    def _extend(cells: list[bytes | None]) -> Iterator[list[bytes | None]]:
        """Give the cells with what JSON properties and map entries add to them."""
        if json_cell is not None:
            cells = cells + _read_json(cells[json_cell], json_sources)
        if map_cell is None:
            yield cells
            return
        value = cells[map_cell]
        for key, entry in read_entries(value) if value else ():
            yield [*cells, key, entry]

    return give


def compile_key(plan: Plan, names: Sequence[str]) -> Callable[[Sequence[bytes | None]], bytes]:
    """Build what joins the cells of a target's key, given the columns that they stand for.

    Keys that the target takes for one become the same bytes, whatever theirs are.
    """
    clustering = plan.target.clustering_columns
    forms = [
        usual_form(parse_type(plan.target.type_of(name))) if name in clustering else None
        for name in names
    ]
    return lambda cells: join_cells(map(in_usual_form, forms, cells), NULL)


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
        raise _Bad(column, text) from None
    except ValueError as error:
        text = f"cannot be converted: {quote(column)}: "
        raise _Bad(column, text + told, text + str(error)) from error
    return found


def select_origin(plan: Plan, layer: Layer, reader: RowReader) -> Selection:
    """Say what a reader of a layer's rows needs of the origin's table."""
    return Selection(
        plan.origin,
        reader.columns,
        reader.times,
        statics=layer.name != "rows",
        where=plan.migration.filter.where,
    )
