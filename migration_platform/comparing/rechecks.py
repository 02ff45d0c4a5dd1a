"""Rows that differ, read again by their key on both sides: what agrees now is no difference.

Two scans do not see one moment. Only rows whose key in the target tells the origin's row can be
read again; where a key is changed on the way, what the scans found stands.
"""

import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from struct import Struct
from typing import Literal

from migration_platform.comparing.compared_rows import (
    NO_CONTENT,
    SIDES,
    ComparedRows,
    compile_compared,
    loosely_agree,
    times_agree,
)
from migration_platform.comparing.digest import DigestedRow
from migration_platform.comparing.verdicts import DifferingRow
from migration_platform.cql.cell_times import TimesLayout, read_writetimes
from migration_platform.cql.conversion import Converter
from migration_platform.cql.forms import comparable_element, in_usual_form, order_is_known
from migration_platform.cql.keys import NO_KEY, show_key
from migration_platform.cql.names import quote
from migration_platform.cql.rows import Page, count_cells, split_cells
from migration_platform.cql.samples import cut_sample, show_sample
from migration_platform.cql.types import parse_type
from migration_platform.declaration.filters import Filter
from migration_platform.errors import PermanentError
from migration_platform.plan.model import Layer, Plan
from migration_platform.plan.preflight import times_layout
from migration_platform.stores.interface import NO_TIMES, Cells, KeyReader
from migration_platform.stores.work import OpenStores

_LONG = Struct(">q")
UNWRITABLE = "(cannot be written as declared)"

Kind = Literal["agree", "missing", "extra", "mismatched", "other_form"]
"""How a row differs; `other_form` is the same for the server, with other bytes in its key or in
elements."""
Retried = Callable[[BaseException], None]
Show = Callable[["LayerReads", bytes, Kind, Page, Page], DifferingRow]
"""Shows a row that differs, from its key and the pages that were read of it on both sides."""


@dataclass(frozen=True)
class Side:
    """One layer of one side: its compared rows, and the reads of single ones.

    `newest` reads the writetimes of a row's cells, as `times` lists them. `where` is the user's
    condition, if the server allows it beside a key. `entry` says where in its
    key a row has the key of a map's entry, and what makes those alike that may be one; of a row
    that is no entry, or of a class whose order nobody knows, it is None.
    """

    rows: ComparedRows
    where: str | None
    read: KeyReader
    newest: KeyReader | None
    times: TimesLayout
    entry: tuple[int, Converter] | None = None

    def find(self, page: Page, key: bytes) -> DigestedRow | None:
        """Find the row among those of a page: a map's entries make several of one."""
        return next((row for row in self.rows.digested(page) if row[0] == key), None)

    def may_hold(self, page: Page, key: bytes) -> bool:
        """Say whether the row is there, or one that may be it.

        What a read by the row's key returns is that row, whatever bytes its key has. Only of a map
        whose entries are rows, the entry has to be found among those of its row.
        """
        rows = self.rows.digested(page)
        if self.entry is None:
            return any(True for _ in rows)
        wanted = self._alike(key)
        return any(
            content == found + NO_CONTENT or self._alike(found) == wanted
            for found, content, *_ in rows
        )

    def _alike(self, key: bytes) -> list[bytes | None]:
        assert self.entry is not None
        position, comparable = self.entry
        cells = split_cells(key, self.rows.keys)
        cells[position] = in_usual_form(comparable, cells[position])
        return cells


@dataclass(frozen=True)
class LayerReads:
    """What reads the rows of one layer; `unfiltered` reads the origin's whatever is left out."""

    layer: Layer
    origin: Side
    target: Side
    unfiltered: Side


@dataclass(frozen=True)
class Suspect:
    """A row that differs, and how."""

    key: bytes
    kind: Kind
    shown: DifferingRow

    @property
    def is_writable(self) -> bool:
        """Whether the origin's row can be given the target's form."""
        return self.shown.columns != (UNWRITABLE,)


def open_reads(stores: OpenStores) -> dict[int, LayerReads]:
    """Prepare the reads of every layer, once a process; by the number of cells of a key.

    Raises:
        PermanentError, TransientError: a server refused or did not answer.
    """
    plan = stores.plan
    found: dict[int, LayerReads] | None = stores.cache.get("rechecks")
    if found is None:
        found = {}
        for layer in plan.layers:
            origin, target = (_open_side(stores, plan, layer, side) for side in SIDES)
            whole = without_filter(plan)
            unfiltered = origin if whole is plan else _open_side(stores, whole, layer, "origin")
            found[origin.rows.keys] = LayerReads(layer, origin, target, unfiltered)
        stores.cache["rechecks"] = found
    return found


def without_filter(plan: Plan) -> Plan:
    """Give the plan of the same migration with nothing left out."""
    migration = plan.migration
    if migration.filter == Filter() and migration.guardrails is None:
        return plan
    return replace(plan, migration=replace(migration, filter=Filter(), guardrails=None))


def _open_side(stores: OpenStores, plan: Plan, layer: Layer, side: str) -> Side:
    is_origin = side == "origin"
    rows = compile_compared(plan, layer, side)
    store, endpoint = (
        (stores.origin, plan.migration.origin)
        if is_origin
        else (stores.target, plan.migration.target)
    )
    keys = rows.origin_keys(plan) if is_origin else rows.target_keys
    selection = rows.selection
    try:
        read = store.prepare_keys(plan, selection, keys)
    except PermanentError:
        # A condition on a column of the key is one too many where the key itself is given.
        if selection.where is None:
            raise
        selection = replace(selection, where=None)
        read = store.prepare_keys(plan, selection, keys)
    newest, times = None, NO_TIMES
    if endpoint.abilities.cell_times:
        values = [source for source in rows.sources if not source.is_key]
        names = {source.origin if is_origin else source.target for source in values} - {""}
        times = times_layout(rows.table, sorted(names - set(rows.table.primary_key)), ttls=False)
    if times.simple or times.multi:
        only_times = replace(selection, columns=(), times=times, where=None)
        newest = store.prepare_keys(plan, only_times, keys)
    return Side(rows, selection.where, read, newest, times, find_entry(rows))


def find_entry(rows: ComparedRows) -> tuple[int, Converter] | None:
    """Find what tells a row among those that the entries of one map are."""
    for position, source in enumerate(rows.sources[: rows.keys]):
        cql_type = parse_type(source.target_type)
        if source.kind == "map_key" and order_is_known(cql_type):
            return position, comparable_element(cql_type)
    return None


def recheck(
    stores: OpenStores,
    keys: Sequence[bytes],
    extra: Container[bytes],
    on_retry: Retried,
    show: Show | None = None,
) -> Iterator[Suspect]:
    """Read the rows on both sides and give those that differ, each as `show` gives it.

    `extra` rows were not among the origin's filtered ones. Where no row can be read with the
    filter's condition, they stay so, whatever the origin has.

    Raises:
        PermanentError, TransientError: a row could not be read.
    """
    looks_for_extra = stores.plan.migration.diff_mode != "origin_only"
    for reads, chosen in by_layer(open_reads(stores), keys):
        origin, target = reads.origin, reads.target
        here = origin.read.rows(chosen, stores.reading("origin", on_retry))
        there = target.read.rows(chosen, stores.reading("target", on_retry))
        for (key, page), (_, other) in zip(here, there, strict=True):
            row = origin.find(page, key)
            if origin.where != origin.rows.where and key in extra:
                row = None
            kind = judge(row, target.find(other, key))
            if kind == "agree" or (kind == "extra" and not looks_for_extra):
                continue
            yield Suspect(key, kind, (show or show_in_short)(reads, key, kind, page, other))


def by_layer(
    reads: dict[int, LayerReads], keys: Sequence[bytes]
) -> Iterator[tuple[LayerReads, list[bytes]]]:
    """Sort keys by whether they are those of rows or of static cells."""
    found: dict[int, list[bytes]] = {}
    for key in keys:
        found.setdefault(count_cells(key), []).append(key)
    for cells, chosen in found.items():
        yield reads[cells], chosen


def judge(origin: DigestedRow | None, target: DigestedRow | None) -> Kind:
    """Say how the row of the target differs from that of the origin, where either may be gone."""
    if origin is None:
        return "agree" if target is None else "extra"
    if target is None:
        return "missing"
    if origin[1] != target[1] or not loosely_agree(origin[2], target[2]):
        return "mismatched"
    return "agree" if origin[3] == target[3] else "other_form"


def find_newer(
    stores: OpenStores,
    keys: Sequence[bytes],
    than_us: int,
    on_retry: Retried,
    *,
    repaired: bool = False,
) -> set[bytes]:
    """Give the rows of which either side has a cell that was written later.

    Cells that a copy or a repair gave new writetimes tell nothing: of those the target's are not
    asked for. Nor are the times of elements, where a server does not tell them. What lies as far
    in the future as `than_us` lies in the past was not written just now.
    """
    migration = stores.plan.migration
    new_times = repaired and migration.repair_writetime == "now"
    sides = ("origin",) if new_times or not stores.plan.rules.passes_bytes else SIDES
    newer: set[bytes] = set()
    until_us = 2 * now_us() - than_us
    for reads, chosen in by_layer(open_reads(stores), keys):
        for name in sides:
            side = reads.origin if name == "origin" else reads.target
            if side.newest is None:
                continue
            count = len(side.times.simple)
            for key, page in side.newest.rows(chosen, stores.reading(name, on_retry)):
                if not page.row_count:
                    continue
                cells = split_cells(page.data, count + len(side.times.multi))
                found = [_LONG.unpack(cell)[0] for cell in cells[:count] if cell]
                for cell in cells[count:]:
                    found += read_writetimes(cell)
                if any(than_us < writetime <= until_us for writetime in found):
                    newer.add(key)
    return newer


# -- showing -------------------------------------------------------------------------------------


def show_row(rows: ComparedRows, key: bytes) -> DifferingRow:
    """Give a target row's key as `userid='u1', courseid='c1'`; static cells have a partition's."""
    sources = rows.sources[: rows.keys]
    cells = split_cells(key, rows.keys)
    shown = show_key(
        [(s.target, s.target_type, cell) for s, cell in zip(sources, cells, strict=True)]
    )
    named = {
        source.target: _show_cell(cell, source.target_type) or ("null" if cell is None else "")
        for source, cell in zip(sources, cells, strict=True)
    }
    key_names = rows.table.partition_key if rows.statics else rows.table.primary_key
    values = tuple(named[name] for name in key_names if name in named)
    return DifferingRow(f"static cells of {shown}" if rows.statics else shown, cells=values)


def show_in_short(
    reads: LayerReads, key: bytes, kind: Kind, page: Page, other: Page
) -> DifferingRow:
    """Name what differs in a row, and show of its values as much as a message holds."""
    shown = show_row(reads.target.rows, key)
    if kind == "extra":
        return shown
    origin = next((row for row in reads.origin.rows.cells(page) if row[0] == key), None)
    if origin is None:
        return replace(shown, columns=(UNWRITABLE,))
    if kind == "missing":
        return shown
    rows = reads.target.rows
    target = next(row for row in rows.cells(other) if row[0] == key)
    if kind == "other_form":
        return _show_forms(rows, shown, origin[1], target[1])
    names = _name_differences(rows, origin, target)
    changes = tuple(
        (
            quote(source.target),
            _show_cell(origin[1][position], source.target_type),
            _show_cell(target[1][position], source.target_type),
        )
        for position, source in enumerate(rows.sources)
        if quote(source.target) in names
    )
    return replace(shown, columns=names, changes=changes)


def _show_forms(rows: ComparedRows, shown: DifferingRow, here: Cells, there: Cells) -> DifferingRow:
    """Name the columns of a row whose bytes differ although the server takes them for equal."""
    differing = [at for at in rows.forms if here[at] != there[at]]
    names = tuple(quote(rows.sources[at].target) for at in differing)
    changes = []
    for name, at in zip(names, differing, strict=True):
        both = [_show_cell(cell, rows.sources[at].target_type) for cell in (here[at], there[at])]
        if both[0] == both[1]:
            both = [cut_sample("0x" + (cell or b"").hex()) for cell in (here[at], there[at])]
        changes.append((name, *both))
    return replace(shown, columns=names, changes=tuple(changes))


def _show_cell(cell: bytes | None, cql_type: str) -> str | None:
    if cell is not None and cell.startswith(NO_KEY):
        return "(cannot be formed)"
    return None if cell is None else show_sample(cell, parse_type(cql_type))


def _name_differences(rows: ComparedRows, origin: tuple, target: tuple) -> tuple[str, ...]:
    names = []
    values = [position for position, source in enumerate(rows.sources) if not source.is_key]
    for number, position in enumerate(values):
        name = quote(rows.sources[position].target)
        usual = rows.forms.get(position)
        if in_usual_form(usual, origin[1][position]) != in_usual_form(usual, target[1][position]):
            if position not in rows.loose or target[1][position] is None:
                names.append(name)
        elif origin[1][position] is not None and origin[2] is not None:
            if position in rows.no_time:
                continue
            written, lives = times_agree(origin[2].cells[number], target[2].cells[number])
            names += [f"writetime({name})"] * (not written) + [f"ttl({name})"] * (not lives)
    return tuple(names)


def now_us() -> int:
    """Give the time in microseconds since 1970."""
    return time.time_ns() // 1000
