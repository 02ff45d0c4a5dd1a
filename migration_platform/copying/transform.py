"""What happens to a row between its page and its write: filtered, guarded, transformed.

Compiled once for each use of a layer. Rows whose columns pass through untouched stay one slice of
the page; only others are cut into cells.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from migration_platform.copying.filling import (
    Bad,
    Cells,
    FillAll,
    compile_extend,
    compile_fill_all,
    compile_stand_in,
    find_fills,
)
from migration_platform.counts import MAX_SAMPLES, BadRow, Tally
from migration_platform.cql.cell_times import (
    compile_times_reader,
    read_row_time,
)
from migration_platform.cql.forms import in_usual_form, usual_form
from migration_platform.cql.keys import show_key
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
from migration_platform.cql.types import parse_type
from migration_platform.cql.values import show_value
from migration_platform.plan.model import Layer, Plan, Row, RowReader, Source
from migration_platform.stores.interface import Selection

KILOBYTE = 1000
"""As the Cassandra Data Migrator counts."""

Wins = Callable[[bytes, bytes], bool]
"""Says whether the row with this target key and this origin key is the one that is copied."""
BAD_ROW: Any = "bad"
"""Stands in place of a row's times if the row cannot be written."""
_Show = Callable[[Page, Split, int], str]
_Judge = Callable[[Page, Split, Tally], tuple[set[int], dict[int, Bad]]]


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

    A row that cannot be converted, is too large or lacks a key is handed to the tally's `reject`
    and left out. With `stands_in` it is given instead, with its key alone and `BAD_ROW` in place
    of its times; a key that cannot be formed is a text that says so.
    """
    chosen, guardrails = plan.migration.filter, plan.migration.guardrails
    passing = [source for source in sources if source.kind != "constant"]
    untouched = wins is None and _pass_untouched(plan, layer, passing)
    names = (
        tuple(source.origin for source in passing) if untouched else _needed(plan, layer, passing)
    )
    split = compile_splitter(
        len(names),
        min(leading, sum(s.kind != "constant" for s in sources[:leading])) if untouched else 0,
        read_times=compile_times_reader(layer.times),
        max_cell_bytes=guardrails.max_column_kb * KILOBYTE if guardrails else None,
    )
    show = _key_shower(plan, layer, names)
    give = (
        _untouched(sources, leading, null, stands_in)
        if untouched
        else _transformed(plan, layer, names, sources, leading, null, wins, sorted_sets, stands_in)
    )
    judge = _compile_judge(plan, layer, names, show)
    to_bad_row = _compile_bad_row(layer, names, show)

    def rows(page: Page, tally: Tally) -> Iterator[Row]:
        found = split(page.data, page.row_count)
        out, bad = _NOTHING
        if found.large or chosen.by_writetime:
            out, bad = judge(page, found, tally)

        def reject(row: int, why: Bad) -> None:
            if not stands_in:
                tally.reject(to_bad_row(page, found, row, why))

        return give(page, found, tally, out, bad, reject, lambda row: show(page, found, row))

    return RowReader(names, layer.times, rows)


def _pass_untouched(plan: Plan, layer: Layer, passing: Sequence[Source]) -> bool:
    """Say whether rows can be passed on as slices of the page, with at most constants added."""
    columns = plan.migration.columns
    return (
        all(
            source.kind == "column" and source.default is None and source.converter(columns) is None
            for source in passing
        )
        and not plan.migration.filter.column
        and not any(column.is_static for column in plan.origin.columns)
        # A key that was a value may be null, and the row cannot be written then.
        and all(s.origin in layer.origin_key for s in passing if s.is_key)
        # A page that is continued, and a row that is rejected, are found by the origin's key.
        and set(layer.origin_key) <= {s.origin for s in passing}
    )


def _compile_bad_row(
    layer: Layer, names: tuple[str, ...], show: _Show
) -> Callable[[Page, Split, int, Bad], BadRow]:
    """Build the function that makes the `BadRow` of a row: its key at the origin, and the cause."""

    def to_bad_row(page: Page, found: Split, row: int, why: Bad) -> BadRow:
        found_cells = split_cells(page.data[found.starts[row] :], len(names))
        cells = dict(zip(names, found_cells, strict=True))
        return BadRow(
            layer.name,
            join_cells([cells[name] for name in layer.origin_key], NULL),
            show(page, found, row),
            why.column,
            why.cause,
            why.said,
        )

    return to_bad_row


def _compile_judge(plan: Plan, layer: Layer, names: tuple[str, ...], show: _Show) -> _Judge:
    """Build the function that finds the rows of a page to leave out, and those to reject."""
    chosen, guardrails = plan.migration.filter, plan.migration.guardrails

    def judge(page: Page, found: Split, tally: Tally) -> tuple[set[int], dict[int, Bad]]:
        out: set[int] = set()
        bad: dict[int, Bad] = {}
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
            if guardrails and guardrails.action == "fail":
                bad[row] = _too_large(name, size, guardrails.max_column_kb)
            elif guardrails and guardrails.action != "report":
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

    return judge


def _too_large(name: str, size: int, max_column_kb: int) -> Bad:
    way_out = (
        f"guardrails.max_column_kb is {max_column_kb}; make it smaller, "
        "or set guardrails.action to skip or report"
    )
    return Bad(
        name,
        f"has a cell in {quote(name)} that is too large: {way_out}",
        f"has a cell of {size / KILOBYTE:,.1f} KB in {quote(name)}, but {way_out}",
    )


_NOTHING: tuple[set[int], dict[int, Bad]] = (set(), {})
_Give = Callable[
    [
        Page,
        Split,
        Tally,
        set[int],
        dict[int, Bad],
        Callable[[int, Bad], None],
        Callable[[int], str],
    ],
    Iterator[Row],
]


def _untouched(sources: Sequence[Source], leading: int, null: bytes, stands_in: bool) -> _Give:
    """Build what gives rows as slices of their page, with the constants between and behind."""
    key_constants = join_cells(
        [s.constant for s in sources[:leading] if s.kind == "constant"], null
    )
    within = join_cells([s.constant for s in sources if s.kind == "constant" and s.is_key], null)
    behind = join_cells(
        [s.constant for s in sources if s.kind == "constant" and not s.is_key], null
    )
    is_key_constant = [s.kind == "constant" and s.is_key for s in sources]
    key_cells = is_key_constant.index(True) if within else 0

    def give(page, found, tally, out, bad, reject, show) -> Iterator[Row]:
        data = unset_nulls(page.data, found.nulls) if null is UNSET else page.data
        starts, key_ends, value_ends = found.starts, found.key_ends, found.value_ends
        times = found.times or [None] * page.row_count
        start = 0
        for row, key_end in enumerate(key_ends):
            value_end = value_ends[row]
            if bad and row in bad and row not in out:
                reject(row, bad[row])
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


def _key_shower(plan: Plan, layer: Layer, names: tuple[str, ...]) -> _Show:
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
    names: tuple[str, ...],
    sources: Sequence[Source],
    leading: int,
    null: bytes,
    wins: Wins | None,
    sorted_sets: bool,
    stands_in: bool,
) -> _Give:
    """Build the function that splits rows into cells, filters, converts and joins them again."""
    json_sources = [s for s in sources if s.kind == "json"]
    explode = plan.migration.columns.explode_map if layer.name == "rows" else None
    map_cell = names.index(explode.column) if explode and explode.column in names else None
    # Behind the cells that were read stand those of JSON properties, then a map entry's two.
    entry_at = len(names) + len(json_sources)
    fills = find_fills(plan, names, sources, json_sources, sorted_sets)
    extend = compile_extend(plan, names, json_sources, map_cell)
    origin_key_at = [names.index(name) for name in layer.origin_key]
    # Two entries of one map may collide as well, where a codec makes their keys one.
    origin_key_at += [entry_at] if map_cell is not None else []
    # A partition with nothing but static cells comes as a row without clustering columns.
    clustering = plan.origin.clustering_columns if layer.name == "rows" else ()
    return _compile_give(
        len(names),
        names.index(clustering[0]) if clustering else None,
        repeated=() if stands_in else _repeated_statics(plan, names),
        leaves_out=_compile_column_filter(plan, names),
        fill_all=compile_fill_all(extend, fills),
        stand_in=compile_stand_in(fills[:leading], len(json_sources) + 2) if stands_in else None,
        loses=_compile_loses(plan, sources, origin_key_at, wins) if wins else None,
        explodes=map_cell is not None,
        leading=leading,
        null=null,
    )


def _compile_give(
    read: int,
    first_clustering: int | None,
    *,
    repeated: Sequence[int],
    leaves_out: Callable[[Cells], bool] | None,
    fill_all: FillAll,
    stand_in: Callable[[Cells, str], bytes] | None,
    loses: Callable[[Cells, Cells], bool] | None,
    explodes: bool,
    leading: int,
    null: bytes,
) -> _Give:
    """Build the loop over a page's rows, of `read` cells each; a step that is None is left out."""

    def give(page, found, tally, out, bad, reject, show) -> Iterator[Row]:
        data, starts, value_ends = page.data, found.starts, found.value_ends
        times = found.times
        for row in range(page.row_count):
            if row in out:
                continue
            cells = split_cells(data[starts[row] : value_ends[row]], read)
            if first_clustering is not None and cells[first_clustering] is None:
                if any(cells[position] is not None for position in repeated):
                    reject(row, _NO_ROW_REPEATS_IT)
                else:
                    tally.added -= 1
                continue
            if leaves_out is not None and leaves_out(cells):
                tally.filtered += 1
                continue
            made, why = ([], bad[row]) if row in bad else fill_all(cells)
            if why is not None:
                # One entry of a map that cannot be written rejects the whole row, but in a
                # comparison the others may still be there.
                reject(row, why)
                if stand_in is None:
                    continue
                text = f"the row {show(row)} {why.said or why.cause}"
                yield stand_in(cells, text), b"", BAD_ROW, 0
            for entry, extended, filled in made:
                if loses is not None and loses(extended, filled):
                    tally.lost += 1
                    continue
                yield (
                    join_cells(filled[:leading], null),
                    join_cells(filled, null),
                    times[row] if times else None,
                    entry,
                )
            if explodes:
                tally.added += len(made) - 1

    return give


def _repeated_statics(plan: Plan, names: tuple[str, ...]) -> list[int]:
    """Say which of the cells that are read are static ones that rows are to repeat."""
    if not plan.repeats_statics:
        return []
    statics = {column.name for column in plan.origin.columns if column.is_static}
    return [position for position, name in enumerate(names) if name in statics]


_NO_ROW_REPEATS_IT = Bad(
    "",
    "is a partition of static cells alone: the target has no row that could repeat them; name the "
    "static columns in columns.skip, or delete them at the origin",
)


def _compile_column_filter(plan: Plan, names: tuple[str, ...]) -> Callable[[Cells], bool] | None:
    """Build what says whether a row is left out by what one of its columns shows."""
    chosen = plan.migration.filter.column
    if not chosen or chosen.name not in names:
        return None
    at, cql_type = names.index(chosen.name), parse_type(plan.origin.type_of(chosen.name))
    wanted = chosen.value.strip().casefold()

    def leaves_out(cells: Cells) -> bool:
        cell = cells[at]
        return cell is not None and show_value(cell, cql_type).strip().casefold() == wanted

    return leaves_out


def _compile_loses(
    plan: Plan, sources: Sequence[Source], origin_key_at: Sequence[int], wins: Wins
) -> Callable[[Cells, Cells], bool]:
    """Build what says, of a row's cells and the target's, whether another row wins over it."""
    key_at = [
        next(i for i, s in enumerate(sources) if s.target == name)
        for name in plan.target.primary_key
        if any(s.target == name for s in sources)
    ]
    to_key = compile_key(plan, [sources[i].target for i in key_at])

    def loses(extended: Cells, filled: Cells) -> bool:
        return not wins(
            to_key([filled[i] for i in key_at]),
            join_cells([extended[i] for i in origin_key_at], NULL),
        )

    return loses


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


def select_origin(plan: Plan, layer: Layer, reader: RowReader) -> Selection:
    """Say what a reader of a layer's rows needs of the origin's table."""
    return Selection(
        plan.origin,
        reader.columns,
        reader.times,
        statics=layer.name != "rows",
        where=plan.migration.filter.where,
    )
