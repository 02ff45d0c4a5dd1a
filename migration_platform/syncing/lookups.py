"""Where the rows of a change are on both sides: what a key of the origin is at the target.

A whole key of the origin is one row of the target, as a rule, and is read by its key there. What
stands for many rows is read by a part of the target's key: keys that are only the first columns,
and rows of which each entry of a map becomes a row. Where neither can be asked, only a comparison
of the whole range tells what differs.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

from migration_platform.comparing.compared_rows import SIDES, ComparedRows, compile_compared
from migration_platform.comparing.rechecks import Side, find_entry
from migration_platform.cql.conversion import Converter
from migration_platform.cql.rows import NULL, Page, compile_splitter, join_cells, split_cells
from migration_platform.errors import PermanentError
from migration_platform.plan.model import Layer, Plan, Source
from migration_platform.stores.interface import (
    NO_TIMES,
    Deletes,
    KeyForm,
    KeyReader,
    Selection,
)
from migration_platform.stores.work import OpenStores
from migration_platform.syncing.changes import Key

ToTarget = Callable[[Key], bytes | None]
"""Gives what the target is asked by; None for a key that no row of the target can have."""


@dataclass(frozen=True)
class Lookup:
    """The reads of one layer by keys of so many cells; it is prepared once in a process.

    `origin` reads by the origin's key, `target` by what `to_target` makes of it. `is_single` says
    that each key is one row on both sides. With `same_bytes` rows whose bytes are the same
    are the same rows. `row` reads one row of the target by its key, `whole` one row of the origin.
    """

    layer: Layer
    origin: Side
    target: Side
    to_target: ToTarget
    is_single: bool
    same_bytes: bool
    row: KeyReader
    whole: KeyReader
    deletes: Deletes
    key_cells: tuple[int, ...]
    """Where a row of the origin, as it is read, has the cells of its key."""

    @property
    def whole_form(self) -> KeyForm:
        """How the origin's whole keys come."""
        return _form(len(self.layer.origin_key))

    def key_of(self, page: Page) -> bytes:
        """Give the origin's key of the one row of a page."""
        cells = split_cells(page.data, max(self.key_cells) + 1)
        return join_cells([cells[at] for at in self.key_cells], NULL)


def open_lookup(stores: OpenStores, layer: Layer, cells: int) -> Lookup | None:
    """Prepare the reads of a layer by the first cells of the origin's key, once a process.

    It gives None where a key does not tell the rows of the target, or not whether a row passes the
    filter: then the range of the key has to be compared.

    Raises:
        PermanentError, TransientError: a server refused or did not answer.
    """
    name = f"lookup {layer.name} {cells}"
    if name not in stores.cache:
        stores.cache[name] = _prepare(stores, layer, cells)
    found: Lookup | None = stores.cache[name]
    return found


def _prepare(stores: OpenStores, layer: Layer, cells: int) -> Lookup | None:
    plan = stores.plan
    given = layer.origin_key[:cells]
    origin, target = (compile_compared(plan, layer, side) for side in SIDES)
    steps = find_steps(plan, layer, target, given)
    if steps is None:
        return None
    is_whole = cells == len(layer.origin_key)
    here = replace(origin.selection, together=True, by=() if is_whole else given)
    read = _prepare_origin(stores, here, cells)
    if read is None:
        return None
    names = [step.target for step in steps]
    is_single = len(steps) == target.keys
    by_row = replace(target.selection, together=True)
    row = stores.target.prepare_keys(plan, by_row, target.target_keys)
    loose = origin.loose
    return Lookup(
        layer=layer,
        origin=Side(origin, here.where, read, None, NO_TIMES, find_entry(origin)),
        target=Side(
            target,
            None,
            row
            if is_single
            else stores.target.prepare_keys(
                plan, replace(by_row, by=tuple(names)), _form(len(names))
            ),
            None,
            NO_TIMES,
        ),
        to_target=_compile_to_target(plan, steps, given),
        is_single=is_single,
        same_bytes=_are_same_bytes(plan, origin, target),
        row=row,
        whole=read
        if is_whole
        else stores.origin.prepare_keys(plan, origin.selection, _form(len(layer.origin_key))),
        deletes=stores.target.prepare_deletes(
            plan,
            target.selection,
            target.target_keys,
            [(n, s) for n, s in enumerate(target.sources) if not s.is_key and n not in loose],
        ),
        key_cells=tuple(origin.columns.index(name) for name in layer.origin_key),
    )


def _form(cells: int) -> KeyForm:
    return KeyForm(cells, tuple(range(cells)))


def _prepare_origin(stores: OpenStores, selection: Selection, cells: int) -> KeyReader | None:
    try:
        return stores.origin.prepare_keys(stores.plan, selection, _form(cells))
    except PermanentError:
        # A condition on a column of the key is one too many where the key itself is given.
        if selection.where is None:
            raise
        # It is refused for that alone, or for what would refuse the read without it too.
        stores.origin.prepare_keys(stores.plan, replace(selection, where=None), _form(cells))
        return None


def find_steps(
    plan: Plan, layer: Layer, target: ComparedRows, given: Sequence[str]
) -> tuple[Source, ...] | None:
    """Find what of the target's key is known from some of the origin's key: all, or a beginning.

    All comes in the order of the compared rows' key, a beginning in that of the target's own key.
    None if several keys of the origin might be one at the target, or it cannot be asked so.
    """
    if plan.lost_keys:
        return None
    sources = target.sources[: target.keys]
    by_name = {source.target: source for source in sources}

    def is_known(name: str) -> bool:
        source = by_name[name]
        return source.kind == "constant" or (source.kind == "column" and source.origin in given)

    names = target.selection.key_names
    known = tuple(takewhile(is_known, names))
    told = {by_name[name].origin for name in known}
    if not set(given) <= told:
        return None
    if len(known) == len(names):
        return sources if len(given) == len(layer.origin_key) else None
    if len(known) < len(target.table.partition_key):
        return None
    return tuple(by_name[name] for name in known)


def _compile_to_target(plan: Plan, steps: Sequence[Source], given: Sequence[str]) -> ToTarget:
    """Build what makes of the origin's cells those that the target is asked by."""
    columns = plan.migration.columns
    parts: list[tuple[int, bytes | None, Converter | None]] = [
        (-1, source.constant, None)
        if source.kind == "constant"
        else (given.index(source.origin), None, source.converter(columns))
        for source in steps
    ]
    if [at for at, _, _ in parts] == list(range(len(given))) and not any(c for *_, c in parts):
        return lambda key: join_cells(key, NULL)

    def to_target(key: Key) -> bytes | None:
        cells: list[bytes | None] = []
        try:
            for at, constant, convert in parts:
                cell = constant if at < 0 else key[at]
                cells.append(convert(cell) if convert and cell is not None else cell)
        except (ValueError, struct.error):
            return None
        return join_cells(cells, NULL)

    return to_target


def _are_same_bytes(plan: Plan, origin: ComparedRows, target: ComparedRows) -> bool:
    """Say whether rows are the same if their bytes are, times and all.

    So it is where each cell passes as it is, and no row is left out.
    """
    migration, rules = plan.migration, plan.rules
    names = {source.origin: source.target for source in target.sources}
    here, there = origin.times, target.times
    has_times = bool(here.selections() or there.selections())
    return (
        migration.filter.takes_all_rows
        and migration.guardrails is None
        and not origin.loose
        and origin.columns == tuple(names)
        and target.columns == tuple(names.values())
        and all(
            source.kind == "column"
            and source.default is None
            and source.converter(migration.columns) is None
            for source in target.sources
        )
        and tuple(names.get(name) for name in here.simple) == there.simple
        and tuple(names.get(name) for name in here.multi) == there.multi
        and here.ttls == there.ttls
        and (not has_times or (rules.passes_bytes and rules.writetime == rules.ttl == "cell"))
    )


def cut_rows(selection: Selection) -> Callable[[Page], list[Page]]:
    """Build what cuts a page into one for each of its rows."""
    split = compile_splitter(selection.cells, 0)

    def cut(page: Page) -> list[Page]:
        if page.row_count == 1:
            return [page]
        starts = split(page.data, page.row_count).starts
        return [
            Page(page.data[start:end], 1, None, page.asked_us) for start, end in pairwise(starts)
        ]

    return cut


def compile_order(have: Selection, want: Selection) -> Callable[[Page], Page] | None:
    """Build what gives the row of a page as another read would give it; None if it cannot."""
    cells = [*have.columns, *have.times.selections()]
    wanted = [*want.columns, *want.times.selections()]
    if want.times.selections() and want.times != have.times:
        return None
    if not set(wanted) <= set(cells):
        return None
    if wanted == cells:
        return lambda page: page
    order = [cells.index(name) for name in wanted]

    def reorder(page: Page) -> Page:
        found = split_cells(page.data, len(cells))
        return replace(page, data=join_cells([found[at] for at in order], NULL))

    return reorder
