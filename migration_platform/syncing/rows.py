"""The rows of changes are made the same: read by their keys on both sides, written or deleted.

What the origin has is written as a copy writes it, with all that is declared for copies. What it
does not have, or what a filter leaves out of it, is deleted at the target as of just before the
origin was asked, so that what is newer stays. Doing it twice does no harm. Nothing is read again
afterwards: the next change, or a comparison, does that.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from migration_platform.comparing.compared_rows import NO_CONTENT
from migration_platform.comparing.digest import DigestedRow
from migration_platform.comparing.rechecks import judge, now_us
from migration_platform.comparing.repair import repairs_kind
from migration_platform.copying.copy import copy_single_rows
from migration_platform.copying.rejected import RejectedRows, open_rejected
from migration_platform.cql.cell_times import CellTime
from migration_platform.cql.keys import NO_KEY
from migration_platform.cql.names import quote
from migration_platform.cql.rows import NULL, Page, join_cells, split_cells
from migration_platform.declaration.sync import Sync
from migration_platform.errors import explain
from migration_platform.plan.model import Layer, Plan
from migration_platform.stores.interface import Cells, KeyReader, Selection
from migration_platform.stores.work import OpenStores, Report
from migration_platform.syncing.changes import Key
from migration_platform.syncing.counts import SyncCounts
from migration_platform.syncing.lookups import Lookup, compile_order, cut_rows, open_lookup
from migration_platform.token_ranges import index_of_token, serialize_key, token_of_key

ROWS_AT_ONCE = 256
BYTES_AT_ONCE = 8_000_000
"""So many rows that may differ are held, or so many bytes of them."""
HELD_ROWS = 2_000
"""So many rows of the target that begin with one key are held; of more, each is looked up."""
REMEMBERED_ROWS = 500_000
"""Of a key for which the origin has more rows, a comparison has to find what the target has too
much: 64 bytes a row are in memory."""
NO_PAGE = Page(b"", 0, None)


@dataclass(frozen=True)
class Synced:
    """The result of a batch of changes.

    `touched` are the indexes of ranges of which rows were written or deleted, `open_ranges` of
    those that have to be compared, because single lookups cannot tell what differs.
    """

    counts: SyncCounts
    touched: frozenset[int] = frozenset()
    open_ranges: frozenset[int] = frozenset()


@dataclass(frozen=True)
class SyncRows:
    """The task of making the rows of some keys the same on both sides; its result is `Synced`.

    A key that is only the first cells of one stands for all rows that begin with it, and each for
    the static cells of its partition. `run_id` stands in the dead letters.
    """

    keys: tuple[Key, ...]
    run_id: str = ""

    def run(self, stores: OpenStores, report: Report) -> Synced:
        """Look at the rows, write what differs, delete what is gone.

        Raises:
            MigrationError: a row could not be read, written or deleted; others may be done.
        """
        work = _Work(stores, report, open_rejected(stores, None, self.run_id))
        plan = stores.plan
        keys = _distinct(plan, self.keys)
        # Static cells first: a partition's rows then never appear without them.
        for layer in reversed(plan.layers):
            mine = keys
            if layer.name == "statics":
                width = len(plan.origin.partition_key)
                mine = list(dict.fromkeys(key[:width] for key in keys))
            _sync_layer(work, layer, mine)
        work.rejected.store()
        return Synced(
            replace(work.counts, keys=len(self.keys)),
            frozenset(work.touched),
            frozenset(work.open_ranges),
        )


def to_sync_plan(plan: Plan) -> Plan:
    """Give the plan by which a synchronisation compares, writes and deletes; copies stay the same.

    Times are compared where the target keeps those of the origin: a row that was written again
    with the same values has others.
    """
    migration = plan.migration
    sync = migration.sync or Sync()
    keeps_times = (
        migration.target.abilities.cell_times
        and migration.origin.abilities.cell_times
        and plan.rules.writetime != "now"
    )
    kinds = ["missing", "mismatched"]
    # A counter that was deleted must not be written again.
    deletes = sync.deletes and not plan.has_counters
    kinds += ["extra"] * deletes + ["counters"] * plan.has_counters
    changed = replace(
        migration,
        repair=tuple(kinds),
        repair_writetime="origin",
        diff_mode="two_way" if deletes else "origin_only",
        compare_writetime=keeps_times and (sync.compare_times or migration.compare_writetime),
        ignore_newer_than_seconds=None,
    )
    return replace(plan, migration=changed)


def refuse_sync(plan: Plan) -> list[str]:
    """Give what speaks against a synchronisation, one sentence each; empty if nothing does."""
    wrong = []
    if plan.lost_keys:
        lost = ", ".join(map(quote, plan.lost_keys))
        wrong.append(
            f"several rows of {plan.origin.name} may become one of {plan.target.name}, whose key "
            f"does not hold {lost} as it is: what a change of one of them makes of it cannot be "
            "told; keep the whole primary key at the target, or leave sync out and copy again"
        )
    migration = plan.migration
    sync = migration.sync or Sync()
    if sync.deletes and migration.origin.consistency in ("ANY", "ONE", "LOCAL_ONE"):
        wrong.append(
            f"a read at origin.consistency {migration.origin.consistency} may miss a row that the "
            "origin has, which would then be deleted at the target; set it to LOCAL_QUORUM, or "
            "set sync.deletes to false"
        )
    return wrong


# -- what is done, and to what -------------------------------------------------------------------


@dataclass
class _Work:
    """One batch: what it works with, and what it has done by now."""

    stores: OpenStores
    report: Report
    rejected: RejectedRows
    counts: SyncCounts = field(default_factory=SyncCounts)
    touched: set[int] = field(default_factory=set)
    open_ranges: set[int] = field(default_factory=set)

    def add(self, **counts: int) -> None:
        self.counts += SyncCounts(**counts)

    def on_retry(self, error: BaseException) -> None:
        self.add(retries=1)
        self.report(explain(error))

    def range_of(self, partition: Sequence[bytes]) -> list[int]:
        """Give the index of the range of a partition; those of all, where tokens are unknown."""
        plan = self.stores.plan
        ranges = plan.migration.ranges
        if not plan.origin.is_murmur3:
            return [each.index for each in ranges]
        token = _token_of(partition)
        if token is None:
            return []
        ends = self.stores.cache.setdefault("ends of ranges", [each.end for each in ranges])
        return [index_of_token(ends, token)]

    def touch(self, keys: Iterable[bytes]) -> None:
        """Note that rows with these keys of the origin were written or deleted."""
        width = len(self.stores.plan.origin.partition_key)
        for key in {tuple(split_cells(key, width)) for key in keys}:
            self.touched.update(self.range_of([cell or b"" for cell in key]))


def _token_of(partition: Sequence[bytes]) -> int | None:
    try:
        return token_of_key(serialize_key(list(partition)))
    except OverflowError:
        # A cell that is too long for any key.
        return None


def _distinct(plan: Plan, keys: Iterable[Key]) -> list[Key]:
    """Give each key once, without those that another one stands for, and what a filter names."""
    width = len(plan.origin.partition_key)
    most = len(plan.origin.primary_key)
    if plan.repeats_statics:
        # Static cells are in every row of their partition.
        keys = (key[:width] for key in keys)
    found = dict.fromkeys(key for key in keys if width <= len(key) <= most)
    shorter = sorted({len(key) for key in found})[:-1]
    chosen = plan.migration.filter
    windows = {each.index: chosen.window(each) for each in plan.migration.ranges}
    windowed = any(window != plan.migration.ranges[at] for at, window in windows.items())

    def is_wanted(key: Key) -> bool:
        if any(size < len(key) and key[:size] in found for size in shorter):
            return False
        if not windowed:
            return True
        token = _token_of(key[:width])
        return token is not None and any(w is not None and token in w for w in windows.values())

    return [key for key in found if is_wanted(key)]


def _sync_layer(work: _Work, layer: Layer, keys: Sequence[Key]) -> None:
    by_cells: dict[int, list[Key]] = {}
    for key in keys:
        by_cells.setdefault(len(key), []).append(key)
    width = len(work.stores.plan.origin.partition_key)
    for cells, chosen in by_cells.items():
        lookup = open_lookup(work.stores, layer, cells)
        if lookup is None:
            for partition in {key[:width] for key in chosen}:
                work.open_ranges.update(work.range_of(partition))
        elif lookup.is_single:
            _sync_rows(work, lookup, chosen)
        else:
            for key in chosen:
                _sync_part(work, lookup, key)


@dataclass(frozen=True)
class _Pair:
    """A row on both sides, as far as it is there; pages hold it alone, but for entries of a map.

    `origin_key` and `target_key` are how it is read again.
    """

    origin_key: bytes
    target_key: bytes
    here: Page
    there: Page
    row: DigestedRow | None
    other: DigestedRow | None


# -- whole keys ----------------------------------------------------------------------------------


def _sync_rows(work: _Work, lookup: Lookup, keys: Sequence[Key]) -> None:
    """Make rows the same, each of which is one row on both sides."""
    before_us = now_us()
    stores = work.stores
    known = [(join_cells(key, NULL), lookup.to_target(key)) for key in keys]
    asked = [(own, other) for own, other in known if other is not None]
    here = lookup.origin.read.rows(
        (own for own, _ in asked), stores.reading("origin", work.on_retry)
    )
    there = lookup.target.read.rows(
        (other for _, other in asked), stores.reading("target", work.on_retry)
    )
    pages = (
        (own, other, page, found)
        for (own, other), (_, page), (_, found) in zip(asked, here, there, strict=True)
    )
    # A key that cannot be formed at the target is one of a row that cannot be written.
    formless = [own for own, other in known if other is None]
    alone = lookup.origin.read.rows(formless, stores.reading("origin", work.on_retry))
    is_rows = lookup.layer.name == "rows"
    read = unchanged = 0
    pairs: list[_Pair] = []
    size = 0
    for own, other, page, found in chain(pages, ((own, b"", page, NO_PAGE) for own, page in alone)):
        read += is_rows
        if not page.row_count and not found.row_count:
            continue
        if lookup.same_bytes and page.data == found.data and page.row_count == found.row_count:
            unchanged += is_rows
            continue
        row = next(lookup.origin.rows.digested(page), None) if page.row_count else None
        there_row = next(lookup.target.rows.digested(found), None) if found.row_count else None
        pairs.append(_Pair(own, other, page, found, row, there_row))
        size += len(page.data) + len(found.data)
        if len(pairs) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            _settle(work, lookup, pairs, before_us)
            pairs, size = [], 0
    _settle(work, lookup, pairs, before_us)
    work.add(read=read, unchanged=unchanged)


# -- keys that stand for many rows ---------------------------------------------------------------


def _sync_part(work: _Work, lookup: Lookup, key: Key) -> None:
    """Make all rows the same that begin with a key; only a part of them is held at a time."""
    before_us = now_us()
    stores = work.stores
    part = lookup.to_target(key)
    held: dict[bytes, tuple[DigestedRow, Page]] | None = (
        {} if part is None else _hold(work, lookup, part)
    )
    seen: set[int] = set()
    too_many = False
    read = 0
    pairs: list[_Pair] = []
    for row, page in _rows_of_origin(work, lookup, key):
        read += 1
        other = (None, NO_PAGE) if held is None else held.pop(row[0], (None, NO_PAGE))
        pairs.append(_Pair(lookup.key_of(page), row[0], page, other[1], row, other[0]))
        if held is None and not too_many:
            seen.add(hash(row[0]))
            too_many = len(seen) >= REMEMBERED_ROWS
        if _is_full(pairs):
            _settle(
                work, lookup, pairs if held is not None else _find(work, lookup, pairs), before_us
            )
            pairs = []
    _settle(work, lookup, pairs if held is not None else _find(work, lookup, pairs), before_us)
    own = join_cells(key, NULL)
    if too_many:
        work.open_ranges.update(work.range_of(key[: len(stores.plan.origin.partition_key)]))
        work.add(read=read)
        return
    extra: Iterable[tuple[DigestedRow, Page]] = (
        held.values()
        if held is not None
        else (
            (row, page)
            for row, page in _rows_of_target(work, lookup, part or b"")
            if hash(row[0]) not in seen
        )
    )
    pairs = []
    for other, page in extra:
        read += 1
        pairs.append(_Pair(own, other[0], NO_PAGE, page, None, other))
        if _is_full(pairs):
            _settle(work, lookup, pairs, before_us)
            pairs = []
    _settle(work, lookup, pairs, before_us)
    work.add(read=read)


def _is_full(pairs: Sequence[_Pair]) -> bool:
    return len(pairs) >= ROWS_AT_ONCE


def _hold(work: _Work, lookup: Lookup, part: bytes) -> dict[bytes, tuple[DigestedRow, Page]] | None:
    """Read the rows of the target that begin with a key; None if there are too many to hold."""
    held: dict[bytes, tuple[DigestedRow, Page]] = {}
    size = 0
    for row, page in _rows_of_target(work, lookup, part):
        held[row[0]] = (row, page)
        size += len(page.data)
        if len(held) > HELD_ROWS or size > BYTES_AT_ONCE:
            return None
    return held


def _rows_of_target(work: _Work, lookup: Lookup, part: bytes) -> Iterator[tuple[DigestedRow, Page]]:
    rows = lookup.target.rows
    cut = cut_rows(rows.selection)
    for _, page in lookup.target.read.rows([part], work.stores.reading("target", work.on_retry)):
        for each in cut(page) if page.row_count else ():
            for row in rows.digested(each):
                yield row, each


def _rows_of_origin(work: _Work, lookup: Lookup, key: Key) -> Iterator[tuple[DigestedRow, Page]]:
    """Give the rows of a key as the target should have them, each with the page of its own row."""
    rows = lookup.origin.rows
    cut = cut_rows(rows.selection)
    own = join_cells(key, NULL)
    for _, page in lookup.origin.read.rows([own], work.stores.reading("origin", work.on_retry)):
        for each in cut(page) if page.row_count else ():
            for row in rows.digested(each):
                yield row, each


def _find(work: _Work, lookup: Lookup, pairs: Sequence[_Pair]) -> list[_Pair]:
    """Look up at the target what was not held."""
    asked = [pair for pair in pairs if NO_KEY not in pair.target_key]
    found = lookup.row.rows(
        list(dict.fromkeys(pair.target_key for pair in asked)),
        work.stores.reading("target", work.on_retry),
    )
    there = {
        key: (next(lookup.target.rows.digested(page), None), page)
        for key, page in found
        if page.row_count
    }
    nothing: tuple[DigestedRow | None, Page] = (None, NO_PAGE)
    complete = []
    for pair in pairs:
        row, page = there.get(pair.target_key, nothing)
        complete.append(replace(pair, there=page, other=row))
    return complete


# -- writing and deleting ------------------------------------------------------------------------


def _settle(work: _Work, lookup: Lookup, pairs: Sequence[_Pair], before_us: int) -> None:
    """Write and delete what differs in some rows, and count it all."""
    migration = work.stores.plan.migration
    is_rows = lookup.layer.name == "rows"
    written: list[_Pair] = []
    extra: list[_Pair] = []
    surplus: list[_Pair] = []
    unchanged = kept = 0
    whole = migration.target.abilities.writes_whole_rows or lookup.layer.has_counters
    for pair in pairs:
        if pair.row is None and pair.other is None:
            continue
        kind = judge(pair.row, pair.other)
        if kind in ("agree", "other_form"):
            unchanged += is_rows
        elif not repairs_kind(migration, lookup.layer, kind):
            kept += 1
        elif kind == "extra":
            extra.append(pair)
        else:
            written.append(pair)
            if kind == "mismatched" and not whole and _has_surplus(lookup, pair):
                surplus.append(pair)
    if surplus:
        _delete_surplus(work, lookup, surplus)
    if written:
        _write(work, lookup, written)
    if extra:
        kept += _delete(work, lookup, extra, before_us)
    # Static cells are no rows that are read; they count where they differ.
    changed = 0 if is_rows else len(written) + len(extra) + kept
    work.add(unchanged=unchanged, kept=kept, read=changed)


def _has_surplus(lookup: Lookup, pair: _Pair) -> bool:
    """Say whether the target's row may hold a cell or an element that the origin's does not."""
    assert pair.row is not None
    assert pair.other is not None
    if pair.row[1].endswith(NO_CONTENT) and pair.row[1] == pair.row[0] + NO_CONTENT:
        return False
    rows = lookup.target.rows
    count = len(rows.sources)
    here, there = split_cells(pair.row[1], count), split_cells(pair.other[1], count)
    return any(
        there[at] is not None
        and (here[at] is None or (source.is_multicell and here[at] != there[at]))
        for at, source in enumerate(rows.sources)
        if not source.is_key
    )


def _delete_surplus(work: _Work, lookup: Lookup, pairs: Sequence[_Pair]) -> None:
    """Delete cells and elements of the target's rows that the origin's do not have."""
    assert all(pair.row is not None for pair in pairs)
    keys = {pair.row[0] if pair.row else b"": pair.origin_key for pair in pairs}
    rows = lookup.origin.rows

    def read_origin(some: Sequence[bytes]) -> Iterator[Cells | None]:
        read = lookup.whole.rows(
            list(dict.fromkeys(keys[key] for key in some)),
            work.stores.reading("origin", work.on_retry),
        )
        pages = dict(read)
        for key in some:
            found = rows.cells(pages[keys[key]])
            yield next((row[1] for row in found if row[0] == key), None)

    lookup.deletes.delete_surplus(list(keys), read_origin, work.stores.writing(work.on_retry))


def _write(work: _Work, lookup: Lookup, pairs: Sequence[_Pair]) -> None:
    """Write rows of the origin as a copy writes them; of a map, all of its entries."""
    plan, layer, stores = work.stores.plan, lookup.layer, work.stores

    def read(selection: Selection) -> Iterator[Page]:
        name = f"order of {layer.name}"
        if name not in stores.cache:
            stores.cache[name] = compile_order(lookup.origin.rows.selection, selection)
        order = stores.cache[name]
        if order is not None:
            pages = {pair.origin_key: pair.here for pair in pairs}
            yield from map(order, pages.values())
            return
        reader = _open_again(stores, lookup, selection)
        keys = list(dict.fromkeys(pair.origin_key for pair in pairs))
        for _, page in reader.rows(keys, stores.reading("origin", work.on_retry)):
            if page.row_count:
                yield page

    before = work.rejected.rows + work.rejected.statics
    counts = copy_single_rows(
        stores,
        layer,
        read,
        lambda counts: work.report(counts.last_retry),
        again="counters" not in plan.migration.repair,
        rejected=work.rejected,
    )
    rejected = work.rejected.rows + work.rejected.statics - before
    left_alone = counts.left_alone
    work.add(
        written=max(0, len(pairs) - rejected - left_alone),
        rejected=rejected,
        kept=left_alone,
        retries=counts.retries,
    )
    work.touch(pair.origin_key for pair in pairs)


def _open_again(stores: OpenStores, lookup: Lookup, selection: Selection) -> KeyReader:
    """Prepare the read of rows as a copy reads them, which is not how they are compared."""
    name = f"read again {lookup.layer.name}"
    if name not in stores.cache:
        where = lookup.origin.where
        stores.cache[name] = stores.origin.prepare_keys(
            stores.plan, replace(selection, where=where), lookup.whole_form
        )
    found: KeyReader = stores.cache[name]
    return found


def _delete(work: _Work, lookup: Lookup, pairs: Sequence[_Pair], before_us: int) -> int:
    """Delete rows as of a moment; give how many stay, because they are newer."""
    if lookup.origin.entry is not None:
        # The entry may be there in bytes of which only the server knows that they are the same.
        pairs = [pair for pair in pairs if not _holds_entry(work, lookup, pair)]
    newer = sum(_is_newer(lookup, pair, before_us) for pair in pairs)
    keys = [pair.other[0] for pair in pairs if pair.other is not None]
    lookup.deletes.delete_rows(keys, before_us, work.stores.writing(work.on_retry))
    work.add(deleted=len(keys) - newer)
    work.touch(pair.origin_key for pair in pairs)
    return newer


def _holds_entry(work: _Work, lookup: Lookup, pair: _Pair) -> bool:
    pages = lookup.origin.read.rows([pair.origin_key], work.stores.reading("origin", work.on_retry))
    assert pair.other is not None
    return any(lookup.origin.may_hold(page, pair.other[0]) for _, page in pages if page.row_count)


def _is_newer(lookup: Lookup, pair: _Pair, than_us: int) -> bool:
    """Say whether a row of the target has a cell that was written later, if it tells so."""
    if not lookup.target.rows.times.selections():
        return False
    return any(
        (written or 0) > than_us
        for _, _, times in lookup.target.rows.cells(pair.there)
        if times is not None
        for cell in times.cells
        for written, _ in _times_in(cell)
    )


def _times_in(cell: CellTime | list[CellTime | None] | None) -> Iterator[CellTime]:
    for time in cell if isinstance(cell, list) else [cell]:
        if time is not None:
            yield time
