"""The scans of a comparison: slices of one side, added up, or their rows in differing buckets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from migration_platform.comparing.compared_rows import ComparedRows, compile_compared
from migration_platform.comparing.digest import (
    BUCKETS_PER_TABLE,
    DigestedRow,
    DigestSums,
    RowLocator,
    add_rows,
    buckets_per_range,
    list_rows,
)
from migration_platform.copying.collisions import open_winners
from migration_platform.cql.rows import Page
from migration_platform.errors import explain
from migration_platform.plan.model import Layer, Plan
from migration_platform.stores.interface import KeyReader, Pace, RangeReader
from migration_platform.stores.work import OpenStores, Report
from migration_platform.token_ranges import TokenRange

ROWS_A_REPORT = 5_000
ROWS_A_PAGE = 500


@dataclass(frozen=True)
class ScanSums:
    """The task of adding up one slice of one side; its result is the slice's `DigestSums`."""

    side: str
    token_range: TokenRange
    wanted: frozenset[int]
    winners: str | None = None

    def run(self, stores: OpenStores, report: Report) -> DigestSums:
        """Scan the slice.

        Raises:
            MigrationError: a page could not be read.
        """
        sums = DigestSums()
        locator = _locator(stores, self.side, self.token_range, self.wanted)
        window = stores.plan.migration.filter.window(self.token_range)
        if self.side == "origin" and window is not None:
            pace = stores.reading("origin", lambda error: report(explain(error)))
            stores.origin.begin_range(stores.plan, window, pace)
        for layer in stores.plan.layers:
            rows = _scan(stores, layer, self.side, self.token_range, self.winners, report)
            add_rows(sums, rows, locator, counted=layer.name == "rows")
        return sums


@dataclass(frozen=True)
class ScanRows:
    """The task of reporting keys and digests of the rows in differing buckets of a slice."""

    side: str
    token_range: TokenRange
    wanted: frozenset[int]
    wanted_slots: frozenset[int]
    winners: str | None = None

    def run(self, stores: OpenStores, report: Report) -> None:
        """Scan the slice; rows are reported some thousand at a time.

        Raises:
            MigrationError: a page could not be read.
        """
        locator = _locator(stores, self.side, self.token_range, self.wanted)
        for layer in stores.plan.layers:
            rows = _scan(
                stores,
                layer,
                self.side,
                self.token_range,
                self.winners,
                report,
                lambda row: locator.listed_index(row[0], row[2], self.wanted_slots) is not None,
            )
            found = list_rows(rows, locator, self.wanted_slots)
            while some := list(islice(found, ROWS_A_REPORT)):
                report(some)


def slices_of(plan: Plan, side: str, ranges: Sequence[TokenRange]) -> Sequence[TokenRange]:
    """Give the slices to scan: the ranges themselves, or all of a target keyed otherwise.

    Where the target does not tell an origin's token, no range can be compared without the others.
    """
    if plan.keys_agree or (is_by_range(plan, side) and plan.tells_origin_token):
        return ranges
    return plan.migration.ranges


def is_by_range(plan: Plan, side: str) -> bool:
    """Say whether a side is read by the origin's ranges, row by row if it has no ranges."""
    return side == "origin" or plan.migration.looks_up


def _locator(
    stores: OpenStores, side: str, token_range: TokenRange, wanted: frozenset[int]
) -> RowLocator:
    plan = stores.plan
    tells = plan.tells_origin_token
    fixed = is_by_range(plan, side) or plan.keys_agree or not tells
    # Cached: it is the same for every scan of a run, and there may be a thousand ranges.
    if "ring" not in stores.cache:
        ranges, chosen = plan.migration.ranges, plan.migration.filter
        windows = [chosen.window(each) for each in ranges]
        stores.cache["ring"] = (
            tuple(each.end for each in ranges),
            tuple((each.start, each.end) if each else None for each in windows),
            frozenset(each.index for each in ranges),
        )
    ends, windows, every = stores.cache["ring"]
    return RowLocator(
        fixed_index=token_range.index if fixed else None,
        token_cells=len(plan.origin.partition_key),
        ends=ends,
        windows=windows,
        wanted=wanted if tells else every,
        buckets=buckets_per_range(len(ends)) if tells else BUCKETS_PER_TABLE,
        by_range=tells,
    )


def _scan(
    stores: OpenStores,
    layer: Layer,
    side: str,
    token_range: TokenRange,
    winners: str | None,
    report: Report,
    needs: Callable[[DigestedRow], bool] = lambda row: True,
) -> Iterator[DigestedRow]:
    """Give the rows of a layer of a slice of one side; those that it `needs` at least.

    Where items are looked up one by one, the others are not paid for.
    """
    plan, migration = stores.plan, stores.plan.migration
    is_origin = side == "origin"
    # Only what the filter's window leaves of a range was copied.
    whole = not is_origin and not plan.keys_agree
    window = token_range if whole else migration.filter.window(token_range)
    if window is None:
        return
    looks_up = migration.looks_up and not is_origin
    name = f"scan {side} {layer.name} {winners}"
    if name not in stores.cache:
        wins = open_winners(winners) if winners else None
        compared = compile_compared(plan, layer, side, wins=wins)
        stores.cache[name] = (compared, _prepare(stores, compared, is_origin, looks_up))
    rows, reader = stores.cache[name]
    pace = stores.reading(side, lambda error: report(explain(error)))
    if looks_up:
        found = _scan(stores, layer, "origin", token_range, winners, report)
        pages = _look_up(reader, (row[0] for row in found if needs(row)), pace)
    else:
        pages = reader.pages(token_range if whole else window, pace)
    for page in pages:
        yield from rows.digested(page)


def _prepare(
    stores: OpenStores, compared: ComparedRows, is_origin: bool, looks_up: bool
) -> RangeReader | KeyReader:
    plan, selection = stores.plan, compared.selection
    if looks_up:
        return stores.target.prepare_keys(plan, selection, compared.target_keys)
    return (stores.origin if is_origin else stores.target).prepare_ranges(plan, selection)


def _look_up(reader: KeyReader, keys: Iterator[bytes], pace: Pace) -> Iterator[Page]:
    """Give the rows of those keys that have one, some hundred a page."""
    rows: list[Page] = []
    for _, page in reader.rows(keys, pace):
        if page.row_count:
            rows.append(page)
        if len(rows) == ROWS_A_PAGE:
            yield _join(rows)
            rows = []
    if rows:
        yield _join(rows)


def _join(rows: list[Page]) -> Page:
    data = b"".join(page.data for page in rows)
    return Page(data, sum(page.row_count for page in rows), None, rows[0].asked_us)
