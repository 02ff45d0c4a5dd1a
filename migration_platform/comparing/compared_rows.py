"""Rows of either side in the form in which they are compared: key, content, expiries.

The origin's rows come transformed, as a copy would write them, with the times that it would give
them. A row's content is its cells and, where times are compared, the writetimes of those cells
whose time can be exact.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from struct import Struct

from migration_platform.comparing.digest import DigestedRow
from migration_platform.copying.filling import is_sorted
from migration_platform.copying.transform import BAD_ROW, Wins, compile_rows
from migration_platform.counts import Tally
from migration_platform.cql.cell_times import (
    CellTime,
    SettledTimes,
    TimeOf,
    TimeRules,
    Times,
    TimesLayout,
    compile_times_reader,
    settle_times,
)
from migration_platform.cql.conversion import Converter, sort_elements
from migration_platform.cql.forms import in_usual_form, usual_elements, usual_form
from migration_platform.cql.keys import NO_KEY
from migration_platform.cql.rows import (
    NULL,
    Page,
    compile_conversion,
    compile_splitter,
    join_cells,
    split_cells,
)
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.plan.model import Layer, Plan, Row, RowReader, Source, Table
from migration_platform.plan.preflight import times_layout
from migration_platform.plan.row_form import RowForm, build_form
from migration_platform.stores.interface import KeyForm, Selection
from migration_platform.stores.kinds import kind_of

SIDES = ("origin", "target")
EXPIRY_TOLERANCE_SECONDS = 5
"""Servers tell TTLs in whole seconds, and a second or two pass between a read and a write."""

_LONG = Struct(">q")
_ONE_TIME = b"="
NO_CONTENT = b"!"
"""The content of a row that cannot be written: no row of the target has it."""
AS_IT_IS = TimeRules("cell", "cell")


@dataclass(frozen=True)
class ComparedRows:
    """One layer of one side: what the SELECT names, and how its pages become compared rows.

    `sources` are the compared columns in order, the first `keys` of them the key; of those at
    `no_time` only the value is compared, and those that are `loose` need only be there. `cells`
    gives each row as its key, its cells and (where compared) their settled times, but for those
    that cannot be written: of them `digested` tells that they are there.

    A key comes in the usual form of its values (see `cql.forms`), cells as they are; `forms` are,
    by position, what gives a cell the usual form where the bytes of one value may differ.
    """

    table: Table
    layer: Layer
    sources: tuple[Source, ...]
    keys: int
    columns: tuple[str, ...]
    times: TimesLayout
    no_time: frozenset[int]
    loose: tuple[int, ...]
    statics: bool
    where: str | None
    forms: dict[int, Converter]
    digested: Callable[[Page], Iterator[DigestedRow]]
    cells: Callable[[Page], Iterator[tuple[bytes, list[bytes | None], SettledTimes | None]]]

    @property
    def target_keys(self) -> KeyForm:
        """How keys come by which single rows of the target are read."""
        return self._key_form({source.target: source.target for source in self._key_sources})

    def origin_keys(self, plan: Plan) -> KeyForm:
        """Say how keys come by which single rows of the origin are read: in the target's form."""
        return self._key_form(plan.origin_names)

    def _key_form(self, names: Mapping[str, str]) -> KeyForm:
        at = {source.target: position for position, source in enumerate(self._key_sources)}
        key_names = self.selection.key_names
        return KeyForm(self.keys, tuple(at[names[name]] for name in key_names))

    @property
    def _key_sources(self) -> tuple[Source, ...]:
        return self.sources[: self.keys]

    @property
    def selection(self) -> Selection:
        """What is read of the side's table."""
        return Selection(
            self.table,
            self.columns,
            self.times,
            statics=self.statics,
            where=self.where,
            layer=self.layer,
            sources=self.sources,
        )


def compile_compared(
    plan: Plan, layer: Layer, side: str, *, wins: Wins | None = None
) -> ComparedRows:
    """Build the reader of one layer of one side."""
    sources = layer.ordered(plan.diff_leading)
    keys = sum(source.is_key for source in sources)
    compares = plan.migration.compare_writetime and not layer.has_counters
    form = build_form(plan, layer, sources)
    sorts = {
        position: parse_type(source.target_type)
        for position, source in enumerate(sources)
        if is_sorted(source)
    }
    is_origin = side == "origin"
    reader, settle = (
        _read_origin(plan, layer, form, keys, wins, compares=compares)
        if is_origin
        else _read_target(plan, layer, form, keys, sorts, compares=compares)
    )
    kind = kind_of(plan.migration.target.kind)
    needs_form = is_origin or not kind.gives_canonical
    if needs_form and (canonical := kind.canonical_cells(plan, layer, sources)):
        reader = _with_canonical(reader, canonical)
    forms = _find_forms(plan, sources, sorts)
    to_usual = _compile_usual(forms, keys, len(sources)) if forms else None
    no_time = _find_no_time(plan, form, sorts)
    loose = _find_loose(plan, layer, sources)
    has_ttls = not isinstance(plan.migration.ttl, int)
    passes_bytes = (plan.rules if is_origin else AS_IT_IS).passes_bytes
    timing = _Timing(
        settle,
        positions=tuple(value.position for value in form.values),
        no_time=no_time,
        keeps_expiry=has_ttls,
        one_time=passes_bytes and has_ttls and not no_time and not loose,
    )
    timing = timing if compares else None
    cells = _compile_cells(reader, to_usual, len(sources), timing)
    digested = _compile_digested(reader, to_usual, len(sources), loose, timing)
    is_statics = layer.name == "statics"
    if is_statics:
        cells = _without_empty_statics(cells, len(form.values))
        digested = _without_empty_statics(digested, len(form.values))
    return ComparedRows(
        table=plan.origin if is_origin else plan.target,
        layer=layer,
        sources=sources,
        keys=keys,
        columns=reader.columns,
        times=reader.times,
        no_time=no_time,
        loose=loose,
        statics=is_statics,
        where=plan.migration.filter.where if is_origin else None,
        forms=forms,
        digested=digested,
        cells=cells,
    )


_Cells = Callable[[Page], Iterator[tuple[bytes, list[bytes | None], SettledTimes | None]]]
_Digested = Callable[[Page], Iterator[DigestedRow]]
_ToUsual = Callable[[bytes, bytes], tuple[bytes, bytes, bytes]]
_Settle = Callable[[Times, Page, int], SettledTimes]


@dataclass(frozen=True)
class _Timing:
    """How the times of a row are compared: those of the cells at `positions`, but for `no_time`.

    With `one_time` a row whose times were never taken apart need not be settled.
    """

    settle: _Settle
    positions: tuple[int, ...]
    no_time: frozenset[int]
    keeps_expiry: bool
    one_time: bool


def _find_no_time(plan: Plan, form: RowForm, sorts: Mapping[int, CqlType]) -> frozenset[int]:
    """Find the values of which no time is exact, by their position.

    A list is written as a whole, and an order that was changed for comparing no longer tells which
    element has which time. A constant has the row's time, and of a row of nulls no query tells
    that; times that are declared are known.
    """
    declared = isinstance(plan.rules.writetime, int) and plan.rules.ttl not in ("cell", "row_max")
    return frozenset(
        value.position
        for value, (kind, _) in zip(form.values, form.time_of, strict=True)
        if value.kind == "list"
        or (value.kind in ("set", "map") and value.position in sorts)
        or (value.kind != "plain" and not plan.target.tells_elements)
        or (kind == "row" and not declared)
    )


def _find_loose(plan: Plan, layer: Layer, sources: Sequence[Source]) -> tuple[int, ...]:
    """Find values that need only exist: the target keeps its own, unless it is overwritten."""
    extract = plan.migration.columns.extract_json
    return tuple(
        position
        for position, source in enumerate(sources)
        if source.kind == "json" and extract and not extract.overwrite and layer.name == "rows"
    )


def _read_origin(
    plan: Plan, layer: Layer, form: RowForm, keys: int, wins: Wins | None, *, compares: bool
) -> tuple[RowReader, _Settle]:
    """Read the origin's rows as a copy would write them, with the times that it would give."""
    reader = compile_rows(
        plan,
        layer if compares or plan.migration.filter.by_writetime else _timeless(layer),
        form.sources,
        keys,
        null=NULL,
        wins=wins if layer.name == "rows" else None,
        sorted_sets=True,
        stands_in=True,
    )
    rules, time_of, per_element = plan.rules, form.time_of, form.per_element
    fixed_ttl = isinstance(plan.migration.ttl, int)

    def settle(times: Times, page: Page, entry: int) -> SettledTimes:
        found = settle_times(times, rules, time_of, per_element, page.asked_us, entry)
        return _with_ttl(found) if fixed_ttl else found

    return reader, settle


def _read_target(
    plan: Plan,
    layer: Layer,
    form: RowForm,
    keys: int,
    sorts: Mapping[int, CqlType],
    *,
    compares: bool,
) -> tuple[RowReader, _Settle]:
    """Read the target's rows and their times as they are."""
    names = [form.sources[value.position].target for value in form.values]
    layout = times_layout(plan.target, names if compares else (), ttls=True)
    reader = _target_reader(plan, layer, form.sources, keys, layout, sorts)
    time_of = tuple(_time_there(layout, name) for name in names)
    per_element = tuple(isinstance(each, tuple) or each for each in form.per_element)

    def settle(times: Times, page: Page, entry: int) -> SettledTimes:
        return settle_times(times, AS_IT_IS, time_of, per_element, page.asked_us, entry)

    return reader, settle


def _compile_cells(
    reader: RowReader, to_usual: _ToUsual | None, count: int, timing: _Timing | None
) -> _Cells:
    """Build what gives rows as cells, `count` of them, beside their key and their times."""
    settle = timing.settle if timing else None

    def cells(page: Page) -> Iterator[tuple[bytes, list[bytes | None], SettledTimes | None]]:
        for key, values, times, entry in reader.rows(page, Tally()):
            if times is BAD_ROW:
                continue
            found = split_cells(values, count)
            if to_usual:
                key, _, _ = to_usual(key, values)
            yield key, found, settle(times, page, entry) if settle else None

    return cells


def _compile_digested(
    reader: RowReader,
    to_usual: _ToUsual | None,
    count: int,
    loose: tuple[int, ...],
    timing: _Timing | None,
) -> _Digested:
    """Build what gives rows as what a digest is made of; of most of them as they were read."""
    if not (timing or loose or to_usual):
        return lambda page: (
            (key, values if times is not BAD_ROW else key + NO_CONTENT, b"", b"")
            for key, values, times, _ in reader.rows(page, Tally())
        )
    one_time = timing is not None and timing.one_time

    def digested(page: Page) -> Iterator[DigestedRow]:
        for key, values, times, entry in reader.rows(page, Tally()):
            form = b""
            if to_usual:
                key, values, form = to_usual(key, values)
            if times is BAD_ROW:
                yield key, key + NO_CONTENT, b"", b""
                continue
            if not (timing or loose):
                yield key, values, b"", form
                continue
            if one_time and type(times) is bytes:
                yield key, values + _ONE_TIME + times, b"", form
                continue
            found = split_cells(values, count)
            presence = b""
            if loose:
                presence = bytes((len(loose), *(found[at] is not None for at in loose)))
                for at in loose:
                    found[at] = None
                values = join_cells(found, NULL)
            if timing:
                content, expiries = _write_times(timing.settle(times, page, entry), found, timing)
                values += content
                if expiries:
                    presence = (presence or b"\x00") + expiries
            yield key, values, presence, form

    return digested


def _without_empty_statics(
    rows: Callable[[Page], Iterator[tuple]], values: int
) -> Callable[[Page], Iterator[tuple]]:
    # A partition without static cells gives no static row, on either side.
    empty = NULL * values

    def there(page: Page) -> Iterator[tuple]:
        for row in rows(page):
            cells = row[1] if isinstance(row[1], bytes) else join_cells(row[1], NULL)
            if not cells[len(row[0]) :].startswith(empty):
                yield row

    return there


def _find_forms(
    plan: Plan, sources: Sequence[Source], sorts: dict[int, CqlType]
) -> dict[int, Converter]:
    """Find the cells of which the bytes of one value may differ, and what gives the usual form.

    These are clustering columns, and elements that are cells of their own. A partition key is told
    apart by its bytes. A store that takes no two bytes for one value has no other form.
    """
    found: dict[int, Converter] = {}
    if not plan.migration.target.abilities.folds_equal_values:
        return found
    for position, source in enumerate(sources):
        cql_type = parse_type(source.target_type)
        usual = None
        if source.target in plan.target.clustering_columns:
            usual = usual_form(cql_type)
        elif not source.is_key and cql_type.is_multicell:
            usual = usual_elements(cql_type)
        if usual and position in sorts:
            found[position] = partial(_sorted_usual, usual, cql_type)
        elif usual:
            found[position] = usual
    return found


def _sorted_usual(usual: Converter, cql_type: CqlType, cell: bytes) -> bytes:
    return sort_elements(usual(cell), cql_type)


def _compile_usual(
    forms: dict[int, Converter], keys: int, count: int
) -> Callable[[bytes, bytes], tuple[bytes, bytes, bytes]]:
    """Build what gives a row's key and all its cells in their usual form, and the forms they had.

    The forms are empty where the row has the usual ones.
    """
    in_key = [(position, usual) for position, usual in forms.items() if position < keys]
    behind = [(position - keys, usual) for position, usual in forms.items() if position >= keys]

    def change(data: bytes, cells: int, steps: list[tuple[int, Converter]]) -> tuple[bytes, bytes]:
        found = split_cells(data, cells)
        had = [found[position] for position, _ in steps]
        for position, usual in steps:
            found[position] = in_usual_form(usual, found[position])
        if had == [found[position] for position, _ in steps]:
            return data, b""
        return join_cells(found, NULL), join_cells(had, NULL)

    def to_usual(key: bytes, values: bytes) -> tuple[bytes, bytes, bytes]:
        if not values and NO_KEY in key:
            return key, values, b""
        changed, form = change(key, keys, in_key) if in_key else (key, b"")
        if not values:
            return changed, values, form
        rest, more = values[len(key) :], b""
        if behind:
            rest, more = change(rest, count - keys, behind)
        if not form and not more:
            return key, values, b""
        return changed, changed + rest, form + more

    return to_usual


def _timeless(layer: Layer) -> Layer:
    return replace(layer, times=TimesLayout((), (), ttls=False))


def _time_there(layout: TimesLayout, name: str) -> TimeOf:
    if name in layout.simple:
        return "simple", layout.simple.index(name)
    return ("multi", layout.multi.index(name)) if name in layout.multi else ("row", 0)


def _target_reader(
    plan: Plan,
    layer: Layer,
    sources: Sequence[Source],
    keys: int,
    layout: TimesLayout,
    sorts: Mapping[int, CqlType],
) -> RowReader:
    """Read the target's rows as they are."""
    names = tuple(source.target for source in sources)
    split = compile_splitter(len(names), keys, read_times=compile_times_reader(layout))
    # A partition with nothing but static cells comes as a row without clustering columns.
    clustering = plan.target.clustering_columns if layer.name == "rows" else ()
    has_statics = any(column.is_static for column in plan.target.columns)
    check = names.index(clustering[0]) if clustering and has_statics else None

    def rows(page: Page, tally: Tally) -> Iterator[tuple]:
        found = split(page.data, page.row_count)
        data, starts = page.data, found.starts
        for row, key_end in enumerate(found.key_ends):
            start, end = starts[row], found.value_ends[row]
            key, values = data[start:key_end], data[start:end]
            times = found.times[row] if found.times else None
            if check is not None or sorts:
                cells = split_cells(values, len(names))
                if check is not None and cells[check] is None:
                    continue
                for position, cql_type in sorts.items():
                    cell = cells[position]
                    cells[position] = None if cell is None else sort_elements(cell, cql_type)
                values = join_cells(cells, NULL)
            yield key, values, times, 0

    return RowReader(names, layout, rows)


def _with_canonical(reader: RowReader, canonical: dict[int, Converter]) -> RowReader:
    convert = compile_conversion(canonical)

    def rows(page: Page, tally: Tally) -> Iterator[Row]:
        for row in reader.rows(page, tally):
            key, values, times, entry = row
            yield row if times is BAD_ROW else (key, convert(values), times, entry)

    return replace(reader, rows=rows)


def _with_ttl(found: SettledTimes) -> SettledTimes:
    """Mark every cell as one that expires: a constant TTL says that it does, not when."""

    def mark(time: CellTime | None) -> CellTime | None:
        return None if time is None else (time[0], 0)

    cells = [[mark(t) for t in c] if isinstance(c, list) else mark(c) for c in found.cells]
    return SettledTimes(found.marker, cells)  # type: ignore[arg-type]


def _write_times(
    found: SettledTimes,
    cells: list[bytes | None],
    timing: _Timing,
) -> tuple[bytes, bytes]:
    """Encode the times of a row's cells: what must be equal, and when they expire."""
    no_time, keeps_expiry = timing.no_time, timing.keeps_expiry
    content: list[bytes] = []
    expiries: list[bytes] = []
    writetimes: set[int | None] = set()
    for position, time in zip(timing.positions, found.cells, strict=True):
        if cells[position] is None or position in no_time:
            continue
        for each in _distinct(time, keeps_expiry):
            writetime, expires = each
            writetimes.add(writetime)
            content.append(b"\x00" if expires is None else b"\x01")
            content.append(_LONG.pack(writetime or 0))
            if expires is not None:
                writetimes.add(None)
                if keeps_expiry:
                    expiries.append(_LONG.pack(expires))
    if len(writetimes) == 1 and None not in writetimes:
        # The same encoding as for rows whose times were never split by cell.
        return _ONE_TIME + b"\x00\x00\x00\x08" + content[-1], b""
    return b"".join(content), b"".join(expiries)


def _distinct(time: CellTime | list[CellTime | None], keeps_expiry: bool) -> Sequence[CellTime]:
    """Give a cell's times, or one where all elements share it, as of a row with one time."""
    if not isinstance(time, list):
        return (time,)
    there = [each for each in time if each is not None]
    alike = {(writetime, expires is None) for writetime, expires in there}
    expiring = keeps_expiry and any(expires is not None for _, expires in there)
    return there if len(alike) > 1 or expiring else there[:1]


def loosely_agree(origin: bytes, target: bytes) -> bool:
    """Compare what no digest can: values that need only be there, and seconds of expiry.

    Both sides give how many values need only be there, a byte for each, and then the seconds at
    which cells expire, which two reads tell alike within a few seconds.
    """
    if len(origin) != len(target):
        return False
    if not origin:
        return True
    begin = 1 + origin[0]
    if any(
        here and not there for here, there in zip(origin[1:begin], target[1:begin], strict=True)
    ):
        return False
    return all(
        abs(_LONG.unpack_from(origin, at)[0] - _LONG.unpack_from(target, at)[0])
        <= EXPIRY_TOLERANCE_SECONDS
        for at in range(begin, len(origin), _LONG.size)
    )


def times_agree(
    a: CellTime | list[CellTime | None], b: CellTime | list[CellTime | None]
) -> tuple[bool, bool]:
    """Say whether writetimes agree, and whether TTLs do."""
    # One time stands for all elements of a cell.
    count = max(len(times) if isinstance(times, list) else 1 for times in (a, b))
    here, there = (times if isinstance(times, list) else [times] * count for times in (a, b))
    pairs = list(zip(here, there, strict=False))
    written = all((x or (0, 0))[0] == (y or (0, 0))[0] for x, y in pairs)
    lives = all(_lives_agree((x or (0, None))[1], (y or (0, None))[1]) for x, y in pairs)
    return written, lives


def _lives_agree(a: int | None, b: int | None) -> bool:
    if a is None or b is None:
        return a is b
    return not a or abs(a - b) <= EXPIRY_TOLERANCE_SECONDS
