"""What differs in single rows is written or deleted, and all of it is counted.

Cells and elements that only the target has are deleted first, then rows are written from the pages
that were compared, where a copy reads them no other way.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from migration_platform.comparing.compared_rows import NO_CONTENT
from migration_platform.comparing.digest import DigestedRow
from migration_platform.comparing.rechecks import judge
from migration_platform.comparing.repair import repairs_kind, with_new_times
from migration_platform.copying.copy import copy_single_rows
from migration_platform.copying.rejected import RejectedRows
from migration_platform.cql.cell_times import CellTime
from migration_platform.cql.rows import Page, split_cells
from migration_platform.errors import explain
from migration_platform.plan.model import Plan
from migration_platform.stores.interface import Cells, KeyReader, Selection
from migration_platform.stores.work import OpenStores, Report
from migration_platform.syncing.counts import SyncCounts
from migration_platform.syncing.lookups import Lookup, compile_order
from migration_platform.token_ranges import index_of_token, serialize_key, token_of_key


@dataclass
class Work:
    """One batch: what it works with, and what it has done by now."""

    stores: OpenStores
    report: Report
    rejected: RejectedRows
    counts: SyncCounts = field(default_factory=SyncCounts)
    touched: set[int] = field(default_factory=set)
    open_ranges: set[int] = field(default_factory=set)

    def add(self, **counts: int) -> None:
        """Count what was done."""
        self.counts += SyncCounts(**counts)

    def on_retry(self, error: BaseException) -> None:
        """Note that a request is tried again."""
        self.add(retries=1)
        self.report(explain(error))

    def range_of(self, partition: Sequence[bytes]) -> list[int]:
        """Give the index of the range of a partition; those of all, where tokens are unknown."""
        plan = self.stores.plan
        ranges = plan.migration.ranges
        if not plan.origin.is_murmur3:
            return [each.index for each in ranges]
        token = token_of(partition)
        if token is None:
            return []
        ends = self.stores.cache.setdefault("ends of ranges", [each.end for each in ranges])
        return [index_of_token(ends, token)]

    def touch(self, keys: Iterable[bytes]) -> None:
        """Note that rows with these keys of the origin were written or deleted."""
        width = len(self.stores.plan.origin.partition_key)
        for key in {tuple(split_cells(key, width)) for key in keys}:
            self.touched.update(self.range_of([cell or b"" for cell in key]))


def token_of(partition: Sequence[bytes]) -> int | None:
    """Give the token of a partition key; None for one that none can be."""
    try:
        return token_of_key(serialize_key(list(partition)))
    except OverflowError:
        # A cell that is too long for any key.
        return None


@dataclass(frozen=True)
class Pair:
    """A row on both sides, as far as it is there; pages hold it alone, but for entries of a map.

    `origin_key` and `target_key` are how it is read again.
    """

    origin_key: bytes
    target_key: bytes
    here: Page
    there: Page
    row: DigestedRow | None
    other: DigestedRow | None


def settle(work: Work, lookup: Lookup, pairs: Sequence[Pair], before_us: int) -> None:
    """Write and delete what differs in some rows, and count it all."""
    migration = work.stores.plan.migration
    is_rows = lookup.layer.name == "rows"
    written: list[Pair] = []
    extra: list[Pair] = []
    surplus: list[Pair] = []
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


def _has_surplus(lookup: Lookup, pair: Pair) -> bool:
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


def _delete_surplus(work: Work, lookup: Lookup, pairs: Sequence[Pair]) -> None:
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


def _write(work: Work, lookup: Lookup, pairs: Sequence[Pair]) -> None:
    """Write rows of the origin as a copy writes them; of a map, all of its entries."""
    plan, layer, stores = work.stores.plan, lookup.layer, work.stores

    def read(selection: Selection) -> Iterator[Page]:
        name = f"order of {layer.name}"
        if name not in stores.cache:
            stores.cache[name] = compile_order(lookup.origin.rows.selection, selection)
        order = stores.cache[name]
        if order is None:
            return _read_again(work, lookup, pairs, selection)
        pages = {pair.origin_key: pair.here for pair in pairs}
        return map(order, pages.values())

    before = work.rejected.rows + work.rejected.statics
    again = "counters" not in plan.migration.repair
    counts = copy_single_rows(
        stores,
        layer,
        read,
        lambda counts: work.report(counts.last_retry),
        again=again,
        rejected=work.rejected,
    )
    if _leaves_out_and_keeps_times(plan):
        _write_over_deletions(work, lookup, pairs, again=again)
    rejected = work.rejected.rows + work.rejected.statics - before
    left_alone = counts.left_alone
    work.add(
        written=max(0, len(pairs) - rejected - left_alone),
        rejected=rejected,
        kept=left_alone,
        retries=counts.retries,
    )
    work.touch(pair.origin_key for pair in pairs)


def _leaves_out_and_keeps_times(plan: Plan) -> bool:
    """Say whether a row may have been deleted that had only been left out of what is copied."""
    migration = plan.migration
    keeps_times = migration.target.abilities.cell_times and plan.rules.writetime != "now"
    leaves_out = not migration.filter.takes_all_rows or migration.guardrails is not None
    return keeps_times and leaves_out


def _write_over_deletions(
    work: Work, lookup: Lookup, pairs: Sequence[Pair], *, again: bool
) -> None:
    """Write rows with new times that did not arrive with their own: they passed the filter again.

    When they did not, they were deleted at the target, as of a moment after they were written.
    """
    stores, rejected, layer = work.stores, work.rejected, lookup.layer
    new = {
        pair.target_key: pair
        for pair in pairs
        if pair.other is None
        and pair.row is not None
        and not pair.row[1].endswith(NO_CONTENT)
        and (layer.name, pair.origin_key) not in rejected.keys
    }
    found = lookup.row.rows(list(new), stores.reading("target", work.on_retry))
    lost = [
        new[key]
        for key, page in found
        if _values(
            lookup, next(lookup.target.rows.digested(page), None) if page.row_count else None
        )
        != _values(lookup, new[key].row)
    ]
    if not lost:
        return
    cache = stores.cache.setdefault("with new times", {})
    writing = replace(stores, plan=with_new_times(stores.plan), cache=cache)
    copy_single_rows(
        writing,
        layer,
        partial(_read_again, work, lookup, lost),
        lambda counts: work.report(counts.last_retry),
        again=again,
        rejected=rejected,
    )


def _values(lookup: Lookup, row: DigestedRow | None) -> Cells | None:
    return None if row is None else split_cells(row[1], len(lookup.target.rows.sources))


def _read_again(
    work: Work, lookup: Lookup, pairs: Sequence[Pair], selection: Selection
) -> Iterator[Page]:
    """Read rows as a copy reads them, which is not how they are compared."""
    stores = work.stores
    name = f"read again {lookup.layer.name} {selection.times}"
    if name not in stores.cache:
        where = lookup.origin.where
        stores.cache[name] = stores.origin.prepare_keys(
            stores.plan, replace(selection, where=where), lookup.whole_form
        )
    reader: KeyReader = stores.cache[name]
    keys = list(dict.fromkeys(pair.origin_key for pair in pairs))
    for _, page in reader.rows(keys, stores.reading("origin", work.on_retry)):
        if page.row_count:
            yield page


def _delete(work: Work, lookup: Lookup, pairs: Sequence[Pair], before_us: int) -> int:
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


def _holds_entry(work: Work, lookup: Lookup, pair: Pair) -> bool:
    pages = lookup.origin.read.rows([pair.origin_key], work.stores.reading("origin", work.on_retry))
    assert pair.other is not None
    return any(lookup.origin.may_hold(page, pair.other[0]) for _, page in pages if page.row_count)


def _is_newer(lookup: Lookup, pair: Pair, than_us: int) -> bool:
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
