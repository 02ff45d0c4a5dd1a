"""The rows of changes are made the same: read by their keys on both sides, written or deleted.

What the origin has is written as a copy writes it, with all that is declared for copies. What it
does not have, or what a filter leaves out of it, is deleted at the target as of just before the
origin was asked, so that what is newer stays. Doing it twice does no harm. Nothing is read again
afterwards: the next change, or a comparison, does that.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from migration_platform.comparing.digest import DigestedRow
from migration_platform.comparing.rechecks import now_us
from migration_platform.copying.rejected import open_rejected
from migration_platform.cql.keys import NO_KEY
from migration_platform.cql.names import quote
from migration_platform.cql.rows import NULL, Page, join_cells
from migration_platform.declaration.sync import Sync
from migration_platform.plan.model import Layer, Plan
from migration_platform.stores.work import OpenStores, Report
from migration_platform.syncing.changes import Key
from migration_platform.syncing.counts import SyncCounts
from migration_platform.syncing.lookups import Lookup, cut_rows, open_lookup
from migration_platform.syncing.settling import Pair, Work, settle, token_of

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
        work = Work(stores, report, open_rejected(stores, None, self.run_id))
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
    return replace(plan, migration=changed, follows=True)


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


# -- which keys, and how they are looked up ------------------------------------------------------


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
        token = token_of(key[:width])
        return token is not None and any(w is not None and token in w for w in windows.values())

    # Neighbours are read and written together.
    return sorted(key for key in found if is_wanted(key))


def _sync_layer(work: Work, layer: Layer, keys: Sequence[Key]) -> None:
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


# -- whole keys ----------------------------------------------------------------------------------


def _sync_rows(work: Work, lookup: Lookup, keys: Sequence[Key]) -> None:
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
    pairs: list[Pair] = []
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
        pairs.append(Pair(own, other, page, found, row, there_row))
        size += len(page.data) + len(found.data)
        if len(pairs) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
            settle(work, lookup, pairs, before_us)
            pairs, size = [], 0
    settle(work, lookup, pairs, before_us)
    work.add(read=read, unchanged=unchanged)


# -- keys that stand for many rows ---------------------------------------------------------------


def _sync_part(work: Work, lookup: Lookup, key: Key) -> None:
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
    pairs: list[Pair] = []
    for row, page in _rows_of_origin(work, lookup, key):
        read += 1
        other = (None, NO_PAGE) if held is None else held.pop(row[0], (None, NO_PAGE))
        pairs.append(Pair(lookup.key_of(page), row[0], page, other[1], row, other[0]))
        if held is None and not too_many:
            seen.add(hash(row[0]))
            too_many = len(seen) >= REMEMBERED_ROWS
        if _is_full(pairs):
            settle(
                work, lookup, pairs if held is not None else _find(work, lookup, pairs), before_us
            )
            pairs = []
    settle(work, lookup, pairs if held is not None else _find(work, lookup, pairs), before_us)
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
        pairs.append(Pair(own, other[0], NO_PAGE, page, None, other))
        if _is_full(pairs):
            settle(work, lookup, pairs, before_us)
            pairs = []
    settle(work, lookup, pairs, before_us)
    work.add(read=read)


def _is_full(pairs: Sequence[Pair]) -> bool:
    return len(pairs) >= ROWS_AT_ONCE


def _hold(work: Work, lookup: Lookup, part: bytes) -> dict[bytes, tuple[DigestedRow, Page]] | None:
    """Read the rows of the target that begin with a key; None if there are too many to hold."""
    held: dict[bytes, tuple[DigestedRow, Page]] = {}
    size = 0
    for row, page in _rows_of_target(work, lookup, part):
        held[row[0]] = (row, page)
        size += len(page.data)
        if len(held) > HELD_ROWS or size > BYTES_AT_ONCE:
            return None
    return held


def _rows_of_target(work: Work, lookup: Lookup, part: bytes) -> Iterator[tuple[DigestedRow, Page]]:
    rows = lookup.target.rows
    cut = cut_rows(rows.selection)
    for _, page in lookup.target.read.rows([part], work.stores.reading("target", work.on_retry)):
        for each in cut(page) if page.row_count else ():
            for row in rows.digested(each):
                yield row, each


def _rows_of_origin(work: Work, lookup: Lookup, key: Key) -> Iterator[tuple[DigestedRow, Page]]:
    """Give the rows of a key as the target should have them, each with the page of its own row."""
    rows = lookup.origin.rows
    cut = cut_rows(rows.selection)
    own = join_cells(key, NULL)
    for _, page in lookup.origin.read.rows([own], work.stores.reading("origin", work.on_retry)):
        for each in cut(page) if page.row_count else ():
            for row in rows.digested(each):
                yield row, each


def _find(work: Work, lookup: Lookup, pairs: Sequence[Pair]) -> list[Pair]:
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
