"""One range from origin to target: pages in, rows transformed, and handed to what writes them.

A range is a stream: two pages and what the writer gathers, 16 MB at most, and what is on its way
are in memory, whatever its size. Its counts are complete only when every row that was read was
acknowledged. It is worked on in pieces, one as a rule; each is told of when it is done, so that
what is done is never done again. Static cells belong to partitions, so a table that has them is
read twice: once for its partitions, once for its rows.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from migration_platform.copying.collisions import open_winners
from migration_platform.copying.progress import Progress
from migration_platform.copying.rejected import RejectedRows, open_rejected, remove_dead_letters
from migration_platform.copying.transform import Wins, compile_key, compile_rows, select_origin
from migration_platform.counts import BadRow, RangeCounts
from migration_platform.cql.keys import show_key
from migration_platform.cql.rows import NULL, Page, join_cells, split_cells
from migration_platform.errors import MigrationError, TransientError, UnreadableError
from migration_platform.plan.model import Layer, Plan, RowReader
from migration_platform.stores.interface import (
    Cells,
    LayerWrites,
    OnRejected,
    PieceListener,
    RangeReader,
    Selection,
)
from migration_platform.stores.work import OpenStores, Report
from migration_platform.token_ranges import TokenRange

CARRIED_KEYS = 20_000
"""At most so many keys of rows in flight are remembered; then the writer is flushed."""


@dataclass(frozen=True)
class CopyRange:
    """The task of copying one range; its result is the range's `RangeCounts`.

    `again` says that the range was copied before. `winners` is the file that tells which of
    several origin rows is the one to be written. `pieces` are the parts of the range to work on,
    where that is not all of it. `run_id` stands in the dead letters. On the
    way it reports `RangeCounts` and `PieceReport`s.
    """

    token_range: TokenRange
    again: bool = False
    winners: str | None = None
    pieces: tuple[TokenRange, ...] | None = None
    run_id: str = ""

    def run(self, stores: OpenStores, report: Report) -> RangeCounts:
        """Copy the range.

        Raises:
            MigrationError: a page or a write failed for good; rows before it may be written.
        """
        return copy_range(
            stores,
            self.token_range,
            report,
            again=self.again,
            winners=self.winners,
            pieces=self.pieces,
            run_id=self.run_id,
        )


@dataclass(frozen=True)
class _Tools:
    """What is prepared once for each worker process and layer."""

    layer: Layer
    reader: RowReader
    ranges: RangeReader
    writes: LayerWrites
    carried: dict[bytes, bytes] | None = None
    """The origin's keys by target key, of rows in flight, if the target key does not tell them."""


def copy_range(
    stores: OpenStores,
    token_range: TokenRange,
    report: Report,
    *,
    again: bool = False,
    winners: str | None = None,
    pieces: tuple[TokenRange, ...] | None = None,
    run_id: str = "",
) -> RangeCounts:
    """Copy every row whose origin token lies in the range, and wait until all are written.

    A piece that fails does not keep the others from being copied, as long as the server answers.
    Rows that cannot be written are stored as dead letters before their piece is done; those of
    earlier runs are removed after it, unless their rows were rejected again.
    """
    if pieces is None:
        window = stores.plan.migration.filter.window(token_range)
        pieces = () if window is None else (window,)
    now = time.monotonic()
    rejected = open_rejected(stores, token_range, run_id)
    progress = Progress(report, rejected, now, now)
    waiting = deque(pieces)
    failed: list[MigrationError] = []
    while waiting:
        piece = waiting.popleft()
        progress.pieces = [piece]
        # Forget what was read of a failed piece: it may not be written.
        progress.read.clear()
        progress.tell_piece(piece, "begun")
        try:
            _copy_piece(stores, piece, progress, again, winners)
            _end_pieces(stores, progress)
        except MigrationError as error:
            # The range is red anyway; what was found until now is still worth keeping.
            with suppress(MigrationError):
                rejected.store()
            failed.append(error)
            if progress.pieces:
                first, *rest = progress.pieces
                progress.tell_piece(first, "failed", str(error))
                waiting.extendleft(reversed(rest))
            if isinstance(error, TransientError):
                break
            if isinstance(error, UnreadableError) and progress.pieces:
                # So many partitions cannot be read that the cause is not in the partitions.
                break
    progress.counts = replace(progress.counts, reading_ended=True)
    result = progress.so_far()
    if failed:
        report(result)
        raise failed[0]
    if not result.complete:
        raise MigrationError(
            f"{result.read + result.added} rows were read, but {result.written} were written and "
            f"{result.skipped} left out, {result.set_aside} rejected"
        )
    return result


def _copy_piece(
    stores: OpenStores,
    piece: TokenRange,
    progress: Progress,
    again: bool,
    winners: str | None,
) -> None:
    pace = stores.reading("origin", progress.note_retry)
    stores.origin.begin_range(stores.plan, piece, pace)
    again = again and "counters" not in stores.plan.migration.repair
    # Static cells first: a partition's rows then never appear without them.
    for layer in reversed(stores.plan.layers):
        tools = _open_tools(stores, layer, winners)
        pages = _pages(stores, tools, piece, progress)
        _copy_rows(stores, tools, pages, progress, again=again)


def _end_pieces(stores: OpenStores, progress: Progress) -> None:
    """Tell of the pieces that were read: all their rows are written, or rejected."""
    progress.rejected.store()
    for piece, why_not in progress.read:
        if piece not in progress.pieces:
            raise RuntimeError(f"{piece} ended, but is not what is being worked on")
        if not why_not:
            remove_dead_letters(stores, piece, progress.rejected)
        progress.tell_piece(piece, "failed" if why_not else "done", why_not)
        progress.pieces.remove(piece)
        if progress.pieces:
            progress.tell_piece(progress.pieces[0], "begun")
    progress.read.clear()


def copy_single_rows(
    stores: OpenStores,
    layer: Layer,
    read: Callable[[Selection], Iterator[Page]],
    report: Report,
    *,
    again: bool = False,
    winners: str | None = None,
    rejected: RejectedRows | None = None,
) -> RangeCounts:
    """Copy rows that were read one by one, exactly as those of a range; wait for all of them.

    `read` gives the origin's pages of what is to be selected. Rows that cannot be written go to
    `rejected`, by default as those of a range do.
    """
    tools = _open_tools(stores, layer, winners)
    now = time.monotonic()
    rejected = rejected or open_rejected(stores, None, "")
    progress = Progress(report, rejected, now, now)
    pages = read(select_origin(stores.plan, layer, tools.reader))
    again = again and "counters" not in stores.plan.migration.repair
    _copy_rows(stores, tools, pages, progress, again=again)
    rejected.store()
    return progress.so_far()


_END_OF_PIECE = Page(b"", 0, None)


def _pages(
    stores: OpenStores, tools: _Tools, window: TokenRange, progress: Progress
) -> Iterator[Page]:
    """Give the pages of a piece; an empty one where a smaller piece ends, if it had to be cut."""
    is_rows = tools.layer.name == "rows"
    pace = stores.reading("origin", progress.note_retry)
    listener = PieceListener(progress.note_read, progress.note_cut, progress.note_unreadable)
    try:
        # Static cells belong to the rows beside them: only with those is a piece done.
        for page in tools.ranges.pages(window, pace, told=listener if is_rows else None):
            if progress.read:
                yield _END_OF_PIECE
            progress.note_page(page, is_rows=is_rows)
            yield page
    except MigrationError:
        if progress.read:
            yield _END_OF_PIECE
        raise
    if is_rows:
        progress.counts = replace(progress.counts, reading_ended=True)
        progress.report(progress.so_far())


def _copy_rows(
    stores: OpenStores,
    tools: _Tools,
    pages: Iterator[Page],
    progress: Progress,
    *,
    again: bool,
) -> None:
    """Write the rows of pages, and wait until all are acknowledged."""
    is_rows = tools.layer.name == "rows"
    pace = stores.writing(progress.note_retry)
    reject = _compile_on_rejected(stores.plan, tools, progress)
    writer = tools.writes.open(stores.plan, pace, reject, again=again)
    progress.writers.append(writer)
    tally = progress.tally if is_rows else progress.static_tally
    carried, read_rows = tools.carried, tools.reader.rows
    for page in pages:
        writer.write(read_rows(page, tally), page)
        ends_piece = page is _END_OF_PIECE
        if ends_piece or (carried is not None and len(carried) >= CARRIED_KEYS):
            # A row's key is needed until the row is acknowledged.
            writer.flush()
            if carried is not None:
                carried.clear()
        if ends_piece:
            _end_pieces(stores, progress)
    writer.flush()
    if carried is not None:
        carried.clear()


def _compile_on_rejected(plan: Plan, tools: _Tools, progress: Progress) -> OnRejected:
    """Build the function that rejects a row of the target: it finds the row's key at the origin."""
    layer, rejected = tools.layer, progress.rejected
    names = plan.origin_names
    is_rows = layer.name == "rows"
    key_names = list(plan.target.primary_key if is_rows else plan.target.partition_key)
    tells = set(layer.origin_key) <= names.keys()
    to_key = compile_key(plan, key_names)
    positions = [key_names.index(names[name]) for name in layer.origin_key] if tells else []

    def reject(key: Cells, why: MigrationError, counted: bool) -> None:
        target_key = join_cells(key, NULL)
        mark = (layer.name, target_key)
        if mark in rejected.partly:
            # Another part of the same row.
            if counted and not rejected.partly[mark]:
                rejected.partly[mark] = True
                rejected.uncounted -= is_rows
            return
        cells, table = list(key), plan.target
        shown_names: tuple[str, ...] = tuple(key_names)
        if tells:
            cells, table = [key[position] for position in positions], plan.origin
            shown_names = layer.origin_key
        elif tools.carried is not None:
            # The entry of a map stands behind the key of its row.
            cells = split_cells(tools.carried[to_key(key)], len(layer.origin_key))
            table, shown_names = plan.origin, layer.origin_key
        shown = zip(shown_names, cells, strict=True)
        rejected.reject(
            BadRow(
                layer.name,
                join_cells(cells, NULL),
                show_key([(name, table.type_of(name), cell) for name, cell in shown]),
                _column_in(str(why), plan),
                f"was rejected: {why}",
            )
        )
        # Only now, because a row beyond the limit raises and is not stored.
        rejected.partly[mark] = counted
        rejected.uncounted += is_rows and not counted
        if not is_rows:
            progress.counts = replace(progress.counts, statics=progress.counts.statics - 1)

    return reject


def _column_in(told: str, plan: Plan) -> str:
    """Find the column that a server blames."""
    names = {column.name for column in plan.target.columns}
    found = re.findall(r"(?:column|collection) '?\"?(\w+)", told)
    return next((name for name in found if name in names), "")


# -- preparing -----------------------------------------------------------------------------------


def _open_tools(stores: OpenStores, layer: Layer, winners: str | None) -> _Tools:
    name = f"copy {layer.name} {winners}"
    tools: _Tools | None = stores.cache.get(name)
    if tools is None:
        tools = stores.cache[name] = _prepare(stores, layer, winners)
    return tools


def _prepare(stores: OpenStores, layer: Layer, winners: str | None) -> _Tools:
    plan = stores.plan
    wins = open_winners(winners) if winners and layer.name == "rows" else None
    tells = set(layer.origin_key) <= plan.origin_names.keys()
    carried = {} if plan.migration.dead_letters_max_rows and not tells else None
    writes = stores.target.prepare_writes(plan, layer)
    reader = compile_rows(
        plan,
        layer,
        writes.sources,
        writes.leading,
        null=writes.null,
        wins=wins if carried is None else _carry(carried, wins),
    )
    ranges = stores.origin.prepare_ranges(plan, select_origin(plan, layer, reader))
    return _Tools(layer, reader, ranges, writes, carried)


def _carry(carried: dict[bytes, bytes], wins: Wins | None) -> Wins:
    """Note the origin's key of each row that is copied, beside the target's."""

    def note(target_key: bytes, origin_key: bytes) -> bool:
        if wins is not None and not wins(target_key, origin_key):
            return False
        carried[target_key] = origin_key
        return True

    return note
