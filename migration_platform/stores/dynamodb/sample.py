"""A sample of the origin's rows, made into items that nobody writes: what a copy will consume."""

import json
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import replace

from migration_platform.counts import BadRow, Tally
from migration_platform.cql.cell_times import TimesLayout
from migration_platform.cql.keys import show_key
from migration_platform.cql.rows import NULL, Page, compile_splitter, split_cells
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.model import Layer, Plan, RowReader, Source
from migration_platform.stores.dynamodb.cost import Cost, IndexShape, Sample, Window, estimate_cost
from migration_platform.stores.dynamodb.items import UnholdableRow, compile_item
from migration_platform.stores.dynamodb.shape import build_item_form, indexes_of
from migration_platform.stores.dynamodb.tables import DynamoTable
from migration_platform.stores.interface import (
    CompileRows,
    Origin,
    Pace,
    RangeReader,
    Selection,
)
from migration_platform.token_ranges import (
    TokenRange,
    serialize_key,
    split_range,
    split_ring,
    token_of_key,
)

WINDOWS = 16
ROWS_A_WINDOW = 250
BYTES_A_WINDOW = 4_000_000
SHOWN = 5
"""So many rows that no item can hold are named."""


def sample_cost(
    plan: Plan, origin: Origin, found: DynamoTable | None, compile_rows: CompileRows
) -> Cost:
    """Estimate what a copy and a comparison consume; `found` is the target, if there is one.

    Some thousand rows are read, within the origin's declared limits; `compile_rows` builds what
    gives them as a copy would write them.

    Raises:
        PermanentError, TransientError: the origin could not be read.
    """
    migration, declared = plan.migration, plan.migration.origin
    budget = RateBudget(
        multiprocessing.get_context("spawn"),
        rows_per_second=declared.rows_per_second,
        size_per_second=declared.size_per_second,
    )
    pace = Pace(budget, migration.retry_seconds, lambda error: None)
    windows = _windows(plan)
    costs = []
    for layer in plan.layers:
        sample = _sample_layer(plan, origin, layer, windows, pace, found, compile_rows)
        costs.append(
            estimate_cost(
                sample,
                looks_up=migration.diff_mode == "origin_only",
                # Rows and static cells are each read by a scan of all.
                scans=len(plan.layers),
            )
        )
    total = costs[0]
    for cost in costs[1:]:
        total += cost
    return total


def _windows(plan: Plan) -> list[TokenRange]:
    """Cut all that is copied into windows, of which each is read from its low end."""
    chosen, ranges = plan.migration.filter, plan.migration.ranges
    if all(chosen.window(each) == each for each in ranges):
        return list(split_ring(WINDOWS))
    windows = [window for each in ranges if (window := chosen.window(each))]
    parts = -(-WINDOWS // len(windows)) if windows else 1
    return [piece for window in windows for piece in split_range(window, parts)]


def _sample_layer(
    plan: Plan,
    origin: Origin,
    layer: Layer,
    windows: Sequence[TokenRange],
    pace: Pace,
    found: DynamoTable | None,
    compile_rows: CompileRows,
) -> Sample:
    migration = plan.migration
    timeless = replace(layer, times=TimesLayout((), (), ttls=False))
    read_layer = layer if migration.filter.by_writetime else timeless
    sources = layer.ordered(())
    reader = compile_rows(plan, read_layer, sources, 0, null=NULL)
    selection = Selection(
        plan.origin,
        reader.columns,
        reader.times,
        statics=layer.name != "rows",
        where=migration.filter.where,
    )
    read = origin.prepare_ranges(plan, selection)
    items = _Items(plan, layer, sources, reader, found)
    step = -(-len(windows) // WINDOWS)
    counted, is_bounded = [], False
    for window in windows[::step]:
        pages, tokens, has_more = _read_window(plan, selection, read, window, pace)
        counted.append(items.count(pages, tokens))
        is_bounded = is_bounded or has_more
    return Sample(
        windows=tuple(counted),
        tokens=sum(window.end - window.start for window in windows),
        largest_item=items.largest,
        rejected=tuple(items.rejected),
        is_bounded=is_bounded,
    )


class _Items:
    """Makes items of sampled rows, and keeps what stands out among them."""

    def __init__(
        self,
        plan: Plan,
        layer: Layer,
        sources: tuple[Source, ...],
        reader: RowReader,
        found: DynamoTable | None,
    ):
        form = build_item_form(plan, layer, sources)
        self._sources = sources
        self._is_rows = layer.name == "rows"
        self._reader = reader
        self._to_item = compile_item(form)
        self._indexes = [
            IndexShape(
                tuple(key.name for key in index.key),
                None
                if index.projection == "ALL"
                else frozenset(
                    (*form.key_names, *(key.name for key in index.key), *index.attributes)
                ),
            )
            for index in (found.indexes if found else indexes_of(plan))
        ]
        self.largest = 0
        self.rejected: list[str] = []

    def count(self, pages: Sequence[Page], tokens: int) -> Window:
        """Count the items of a window's rows."""
        window = Window(tokens=tokens)

        def reject(row: BadRow) -> None:
            self._reject(window, str(row))

        tally, now = Tally(reject=reject), int(time.time())
        for page in pages:
            for _, values, _, _ in self._reader.rows(page, tally):
                cells = split_cells(values, len(self._sources))
                pairs = list(zip(self._sources, cells, strict=True))
                if not self._is_rows and all(c is None for s, c in pairs if not s.is_key):
                    continue
                try:
                    text, _ = self._to_item(cells, now, now * 1_000_000)
                except UnholdableRow as why:
                    shown = show_key([(s.target, s.target_type, c) for s, c in pairs if s.is_key])
                    self._reject(window, f"the row {shown}: {why}")
                    continue
                size = window.add_item(json.loads(text), self._indexes)
                self.largest = max(self.largest, size)
        return window

    def _reject(self, window: Window, told: str) -> None:
        window.rejected += 1
        if len(self.rejected) < SHOWN:
            self.rejected.append(told)


def _read_window(
    plan: Plan, selection: Selection, read: RangeReader, window: TokenRange, pace: Pace
) -> tuple[list[Page], int, bool]:
    """Read whole partitions from a window's low end: their pages, and how many tokens these are.

    The third says that there is but one, and that it has more rows.
    """
    pages: list[Page] = []
    rows = size = 0
    fetch_size = plan.migration.origin.fetch_size or ROWS_A_WINDOW
    for page in read.pages(window, pace, fetch_size=fetch_size):
        pages.append(page)
        rows, size = rows + page.row_count, size + len(page.data)
        if rows >= ROWS_A_WINDOW or size >= BYTES_A_WINDOW:
            break
    else:
        return pages, window.end - window.start, False
    last = _last_key(pages[-1], selection)
    token = token_of_key(serialize_key(last))
    whole = _without(pages, selection, last)
    if not whole:
        return pages, token - window.start, True
    # The rows before the last partition fill the tokens up to it.
    return whole, token - 1 - window.start, False


def _last_key(page: Page, selection: Selection) -> list[bytes]:
    """Give the partition key of a page's last row."""
    starts = compile_splitter(selection.cells, 0)(page.data, page.row_count).starts
    row = split_cells(page.data[starts[-2] :], selection.cells)
    return [row[position] or b"" for position in selection.partition]


def _without(pages: list[Page], selection: Selection, key: list[bytes]) -> list[Page]:
    """Leave the rows of the last partition out, of which there may be more."""
    split = compile_splitter(selection.cells, 0)
    whole = list(pages)
    while whole:
        page = whole.pop()
        starts = split(page.data, page.row_count).starts
        row = page.row_count
        while row:
            cells = split_cells(page.data[starts[row - 1] :], selection.cells)
            if [cells[position] or b"" for position in selection.partition] != key:
                return [*whole, replace(page, data=page.data[: starts[row]], row_count=row)]
            row -= 1
    return []
