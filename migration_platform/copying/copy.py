"""One range from origin to target: pages in, rows grouped by target partition, batches out.

A range is a stream: two pages, one group of rows and what is on its way, 8 MB at most, in memory,
whatever its size. Its counts are complete only when every row that was read was acknowledged. It
is worked on in pieces, one as a rule; each is told of when it is done, so that what is done is
never done again. Static cells belong to partitions, so a table that has them is read twice: once
for its partitions, once for its rows.
"""

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cassandra.query import PreparedStatement

from migration_platform.copying.collisions import open_winners
from migration_platform.copying.dead_letters import (
    Letter,
    LetterStore,
    open_letters,
    remove_settled,
    to_letter,
)
from migration_platform.copying.transform import Wins, compile_key, compile_rows
from migration_platform.counts import (
    MAX_SAMPLES,
    BadRow,
    PieceReport,
    RangeCounts,
    Tally,
    refuse_row,
)
from migration_platform.cql.cell_times import (
    NO_TTL,
    CellTime,
    RowTimes,
    SettledTimes,
    bind_time,
    bind_ttl,
    read_row_time,
    read_writetimes,
    settle_times,
)
from migration_platform.cql.keys import show_key
from migration_platform.cql.names import quote
from migration_platform.cql.rows import NULL, UNSET, Page, join_cells, split_cells
from migration_platform.errors import (
    MigrationError,
    PermanentError,
    TransientError,
    UnreadableError,
    explain,
)
from migration_platform.plan.model import Layer, Plan, Row, RowReader
from migration_platform.stores.cassandra.counters import (
    CounterTable,
    add_differences,
    counter_order,
    prepare_counters,
)
from migration_platform.stores.cassandra.reads import (
    RangeRead,
    prepare_range_read,
    read_pages,
    read_rows,
)
from migration_platform.stores.cassandra.row_writes import (
    INSERT,
    RowForm,
    build_form,
    prepare_writes,
    to_parts,
)
from migration_platform.stores.cassandra.transactions import finish_transactions
from migration_platform.stores.cassandra.writes import (
    BATCH_BYTES,
    Item,
    OnRefused,
    Part,
    Writer,
    WriteStatement,
)
from migration_platform.stores.dynamodb.items import ItemForm
from migration_platform.stores.dynamodb.rows import RowWriter
from migration_platform.stores.dynamodb.shape import build_item_form
from migration_platform.stores.work import OpenStores, Report
from migration_platform.token_ranges import TokenRange, serialize_key

GROUP_ROWS = 20_000
GROUP_BYTES = 16_000_000
"""Rows are gathered up to here, so that those of one target partition can travel together."""
REPORT_SECONDS = 2.0
LETTERS_AT_ONCE = 100


@dataclass(frozen=True)
class CopyRange:
    """The task of copying one range; its result is the range's `RangeCounts`.

    `again` says that the range was copied before. `winners` is the file that tells which of
    several origin rows is the one to be written. `pieces` are the parts of the range to work on,
    where that is not all of it. `run_id` stands in the letters of rows that are set aside. On the
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
    select: RangeRead
    form: RowForm
    statements: list[WriteStatement]
    counters: CounterTable | None
    read_lists: PreparedStatement | None
    partition_key: tuple[int, ...]
    leading: int
    origin_keys: dict[bytes, bytes] | None = None
    """The origin's keys by the target's, of rows on their way, where these do not tell those."""
    items: ItemForm | None = None
    """What rows become where they are items of DynamoDB."""
    place_of: Callable[[bytes | None], int | None] | None = None
    """Numbers the replicas of a routing key; None where no request may hold several partitions."""


@dataclass
class Aside:
    """The rows that cannot be written: counted, limited, and kept as letters.

    Past `limit` they fail the range; with 0 the first one does. `keep` takes them to where they
    outlive the run. `partly` are rows of which a part was refused, and whether it was the part that
    counts.
    """

    limit: int
    keep: Callable[[list[BadRow]], None]
    rows: int = 0
    statics: int = 0
    uncounted: int = 0
    first: str = ""
    samples: list[str] = field(default_factory=list)
    keys: set[tuple[str, bytes]] = field(default_factory=set)
    waiting: list[BadRow] = field(default_factory=list)
    partly: dict[tuple[str, bytes], bool] = field(default_factory=dict)

    def refuse(self, bad: BadRow) -> None:
        """Set a row aside.

        Raises:
            PermanentError: there are too many.
            MigrationError: it could not be stored.
        """
        if not self.limit:
            refuse_row(bad)
        self.first = self.first or f"the row {bad.shown} {bad.cause}"
        if self.rows + self.statics >= self.limit:
            self.store()
            raise PermanentError(
                f"more than {self.limit:,} rows of the range cannot be written, which "
                f"dead_letters.max_rows allows; the first: {self.first}. The check no_dead_letters "
                "names those that were set aside: mend them or the declaration, or raise "
                "dead_letters.max_rows"
            )
        is_rows = bad.layer == "rows"
        self.rows += is_rows
        self.statics += not is_rows
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append(f"{bad.shown}: {bad.cause}")
        self.keys.add((bad.layer, bad.key))
        self.waiting.append(bad)
        if len(self.waiting) >= LETTERS_AT_ONCE:
            self.store()

    def store(self) -> None:
        """Keep what is not kept yet.

        Raises:
            MigrationError: it could not be stored.
        """
        waiting, self.waiting = self.waiting, []
        if waiting:
            self.keep(waiting)


@dataclass
class _Progress:
    """What one range has come to so far, and when that was last told."""

    report: Report
    aside: Aside
    started: float
    reported: float
    counts: RangeCounts = field(default_factory=RangeCounts)
    tally: Tally = field(default_factory=Tally)
    static_tally: Tally = field(default_factory=Tally)
    writers: list[Writer | RowWriter] = field(default_factory=list)
    retries: int = 0
    last_retry: str = ""
    retry_reported: float = 0.0
    told: RangeCounts = field(default_factory=RangeCounts)
    pieces: list[TokenRange] = field(default_factory=list)
    """What is left of the piece under way, which is more than one where it was cut."""
    read: list[tuple[TokenRange, str]] = field(default_factory=list)
    """Pieces that are read, or that cannot be and why; their rows may still have to be written."""

    def __post_init__(self) -> None:
        self.tally.refuse = self.static_tally.refuse = self.aside.refuse

    def note_cut(self, piece: TokenRange, into: tuple[TokenRange, ...]) -> None:
        at = self.pieces.index(piece)
        self.pieces[at : at + 1] = into
        self.report(PieceReport(piece, "cut", cut_into=into))
        self.report(PieceReport(into[0], "begun"))

    def note_read(self, piece: TokenRange) -> None:
        self.read.append((piece, ""))

    def note_unreadable(self, piece: TokenRange, error: MigrationError) -> None:
        self.read.append((piece, str(error)))

    def tell_piece(self, piece: TokenRange, state: str, reason: str = "") -> None:
        """Report a piece with what was counted since the last one ended."""
        now = self.so_far()
        counts = now.since(self.told)
        self.report(PieceReport(piece, state, counts, reason))
        if state != "begun":
            self.told = now

    def so_far(self) -> RangeCounts:
        tally, static = self.tally, self.static_tally
        left_alone = self.counts.left_alone + sum(w.rows_left_alone for w in self.writers)
        large = Counter(tally.large) + Counter(static.large)
        return replace(
            self.counts,
            added=tally.added,
            skipped=tally.skipped + left_alone,
            left_alone=left_alone,
            filtered=tally.filtered,
            too_large=tally.too_large,
            collided=tally.lost,
            expired=sum(writer.parts_expired for writer in self.writers),
            large_cells=tuple(sorted(large.items())),
            large_samples=tuple((static.large_samples + tally.large_samples)[:MAX_SAMPLES]),
            set_aside=self.aside.rows,
            statics_set_aside=self.aside.statics,
            set_aside_samples=tuple(self.aside.samples),
            written=self.counts.written
            + sum(writer.rows_written for writer in self.writers)
            - self.aside.uncounted,
            retries=self.retries,
            last_retry=self.last_retry,
            seconds=time.monotonic() - self.started,
        )

    def note_retry(self, error: BaseException) -> None:
        self.retries += 1
        self.last_retry = explain(error)
        # All requests in flight fail together when a server goes: one report tells of them all.
        if time.monotonic() - self.retry_reported >= REPORT_SECONDS:
            self.retry_reported = time.monotonic()
            self.report(self.so_far())

    def note_page(self, page: Page, *, is_rows: bool) -> None:
        now = time.monotonic()
        counts = self.counts
        self.counts = replace(
            counts,
            read=counts.read + (page.row_count if is_rows else 0),
            bytes_read=counts.bytes_read + len(page.data),
            read_seconds=now - self.started,
        )
        if now - self.reported >= REPORT_SECONDS:
            self.reported = now
            self.report(self.so_far())


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
    Rows that cannot be written are stored as letters before their piece is done; letters of earlier
    runs are removed after it, if their rows did not come up again.
    """
    if pieces is None:
        window = stores.plan.migration.filter.window(token_range)
        pieces = () if window is None else (window,)
    now = time.monotonic()
    aside = open_aside(stores, token_range, run_id)
    progress = _Progress(report, aside, now, now)
    waiting = deque(pieces)
    failed: list[MigrationError] = []
    while waiting:
        piece = waiting.popleft()
        progress.pieces = [piece]
        # What was read of a piece that failed says nothing of what is written.
        progress.read.clear()
        progress.tell_piece(piece, "begun")
        try:
            _copy_piece(stores, piece, progress, again, winners)
            _end_pieces(stores, progress)
        except MigrationError as error:
            # The range is red anyway; what was found until now is still worth keeping.
            with suppress(MigrationError):
                aside.store()
            failed.append(error)
            if progress.pieces:
                first, *rest = progress.pieces
                progress.tell_piece(first, "failed", str(error))
                waiting.extendleft(reversed(rest))
            if isinstance(error, TransientError):
                break
            if isinstance(error, UnreadableError) and progress.pieces:
                # So many partitions cannot be read that the fault is not theirs.
                break
    progress.counts = replace(progress.counts, reading_ended=True)
    result = progress.so_far()
    if failed:
        report(result)
        raise failed[0]
    if not result.complete:
        raise MigrationError(
            f"{result.read + result.added} rows were read, but {result.written} were written and "
            f"{result.skipped} left out, {result.set_aside} set aside"
        )
    return result


def open_aside(stores: OpenStores, token_range: TokenRange | None, run_id: str) -> Aside:
    """Begin to set rows aside that cannot be written, as far as that is declared."""

    def keep(rows: list[BadRow]) -> None:
        letters: list[Letter] = [to_letter(stores.plan, b, token_range, run_id) for b in rows]
        store = _letters(stores)
        if store is None:
            keyspace = stores.plan.migration.tracking_keyspace
            raise PermanentError(f"there is no table {keyspace}.dead_letters to set rows aside in")
        store.add(letters)

    return Aside(stores.plan.migration.dead_letters_max_rows, keep)


def _letters(stores: OpenStores) -> LetterStore | None:
    store = stores.cache.get("dead letters")
    if store is None:
        store = open_letters(stores.tracking, stores.plan.migration)
        stores.cache["dead letters"] = store
    return store


def _remove_letters(stores: OpenStores, piece: TokenRange, aside: Aside) -> None:
    store = _letters(stores)
    if store is None:
        return
    # Read once: what this run sets aside, it knows.
    slices = stores.cache.get("slices with letters")
    if slices is None:
        slices = stores.cache["slices with letters"] = store.slices()
    remove_settled(store, slices, piece, aside.keys)


def _copy_piece(
    stores: OpenStores,
    piece: TokenRange,
    progress: _Progress,
    again: bool,
    winners: str | None,
) -> None:
    finish_transactions(stores, piece, progress.note_retry)
    # Static cells first: a partition's rows then never appear without them.
    for layer in reversed(stores.plan.layers):
        name = f"copy {layer.name} {winners}"
        tools = stores.cache.get(name)
        if tools is None:
            tools = stores.cache[name] = _prepare(stores, layer, winners)
        pages = _pages(stores, tools, piece, progress)
        if tools.counters:
            _copy_counters(stores, tools, pages, progress, again)
        else:
            _copy_rows(stores, tools, pages, progress)


def _end_pieces(stores: OpenStores, progress: _Progress) -> None:
    """Tell of the pieces that were read: all their rows are written, or set aside."""
    progress.aside.store()
    for piece, why_not in progress.read:
        if piece not in progress.pieces:
            raise RuntimeError(f"{piece} ended, but is not what is being worked on")
        if not why_not:
            _remove_letters(stores, piece, progress.aside)
        progress.tell_piece(piece, "failed" if why_not else "done", why_not)
        progress.pieces.remove(piece)
        if progress.pieces:
            progress.tell_piece(progress.pieces[0], "begun")
    progress.read.clear()


def copy_single_rows(
    stores: OpenStores,
    layer: Layer,
    read: Callable[[tuple[str, ...]], Iterator[Page]],
    report: Report,
    *,
    again: bool = False,
    winners: str | None = None,
    aside: Aside | None = None,
) -> RangeCounts:
    """Copy rows that were read one by one, exactly as those of a range; wait for all of them.

    `read` gives the origin's pages of what is to be selected. Rows that cannot be written go to
    `aside`, by default as those of a range do.
    """
    name = f"copy {layer.name} {winners}"
    tools = stores.cache.get(name)
    if tools is None:
        tools = stores.cache[name] = _prepare(stores, layer, winners)
    now = time.monotonic()
    aside = aside or open_aside(stores, None, "")
    progress = _Progress(report, aside, now, now)
    pages = read((*map(quote, tools.reader.columns), *tools.reader.times.selections()))
    if tools.counters:
        _copy_counters(stores, tools, pages, progress, again)
    else:
        _copy_rows(stores, tools, pages, progress)
    aside.store()
    return progress.so_far()


_END_OF_PIECE = Page(b"", 0, None)


def _pages(
    stores: OpenStores, tools: _Tools, window: TokenRange, progress: _Progress
) -> Iterator[Page]:
    """Give the pages of a piece; an empty one where a smaller piece ends, if it had to be cut."""
    migration = stores.plan.migration
    is_rows = tools.layer.name == "rows"
    # Static cells belong to the rows beside them: only with those is a piece done.
    callbacks: dict = (
        {
            "on_split": progress.note_cut,
            "on_piece": progress.note_read,
            "on_unreadable": progress.note_unreadable,
        }
        if is_rows
        else {}
    )
    try:
        for page in read_pages(
            stores.origin,
            tools.select,
            window,
            consistency=migration.origin.consistency,
            fetch_size=migration.origin.fetch_size,
            budget=stores.origin_budget,
            retry_seconds=migration.retry_seconds,
            on_retry=progress.note_retry,
            **callbacks,
        ):
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


# -- rows and static cells -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Undecided:
    """A row with unfrozen lists: what of it is written depends on what the target holds."""

    cells: list[bytes | None]
    times: SettledTimes


def _copy_rows(
    stores: OpenStores, tools: _Tools, pages: Iterator[Page], progress: _Progress
) -> None:
    plan, migration = stores.plan, stores.plan.migration
    is_rows = tools.layer.name == "rows"
    writer = _open_writer(
        stores,
        tools,
        progress,
        lambda item, counted, why: set_aside(_key_of(item, tools.form), why, counted),
    )
    progress.writers.append(writer)
    to_item = _compile_item(plan, tools)
    set_aside = _compile_set_aside(plan, tools, progress)
    tally = progress.tally if is_rows else progress.static_tally
    # Items of DynamoDB travel together whatever their keys are.
    grouped = migration.group_writes_by != () and tools.items is None
    groups: dict[bytes, list[Item | _Undecided]] = {}
    gathered = size = 0
    for page in pages:
        asked_us = page.asked_us
        for row in tools.reader.rows(page, tally):
            try:
                item = to_item(row, asked_us)
            except MigrationError as error:
                cells = split_cells(row[1], len(tools.form.sources))
                if not is_rows:
                    progress.counts = replace(progress.counts, statics=progress.counts.statics + 1)
                set_aside([cells[at] for at in tools.form.keys], error, True)
                continue
            if item is None:
                continue
            gathered += 1
            if not is_rows:
                progress.counts = replace(progress.counts, statics=progress.counts.statics + 1)
            if not grouped:
                groups[gathered.to_bytes(8, "big")] = [item]
                continue
            found = groups.get(row[0])
            if found is None:
                groups[row[0]] = [item]
            else:
                found.append(item)
        size += len(page.data)
        ends_piece = page is _END_OF_PIECE
        # Rows of which no two fit into a request have nothing to wait for.
        grouped_in_vain = len(page.data) > page.row_count * BATCH_BYTES
        is_full = gathered >= GROUP_ROWS or size >= GROUP_BYTES or grouped_in_vain
        if is_full or not grouped or ends_piece:
            _write_groups(stores, tools, writer, groups, progress, set_aside)
            groups, gathered, size = {}, 0, 0
            if tools.origin_keys or ends_piece:
                # Only a row that is acknowledged needs no key any more.
                writer.flush()
            if tools.origin_keys:
                tools.origin_keys.clear()
            if ends_piece:
                _end_pieces(stores, progress)
    _write_groups(stores, tools, writer, groups, progress, set_aside)
    writer.flush()
    if tools.origin_keys:
        tools.origin_keys.clear()


def _open_writer(
    stores: OpenStores, tools: _Tools, progress: _Progress, on_refused: OnRefused
) -> Writer | RowWriter:
    plan, migration = stores.plan, stores.plan.migration
    is_rows = tools.layer.name == "rows"
    if tools.items is not None:
        return RowWriter(
            stores,
            tools.items,
            on_retry=progress.note_retry,
            on_refused=on_refused,
            has_rows=is_rows,
        )
    return Writer(
        stores.target_cluster,
        tools.statements,
        plan.target,
        consistency=migration.target.consistency,
        budget=stores.target_budget,
        retry_seconds=migration.retry_seconds,
        on_retry=progress.note_retry,
        ttl_seconds=migration.ttl if isinstance(migration.ttl, int) else None,
        has_rows=is_rows,
        on_refused=on_refused,
    )


_SetAside = Callable[[list[bytes | None], MigrationError, bool], None]
"""Sets a row aside by its key at the target; says why, and whether it is counted as written."""


def _key_of(item: Item, form: RowForm) -> list[bytes | None]:
    """Find the target's key in what was to be written."""
    if isinstance(item, bytes) or item[0].statement == INSERT:
        values = item if isinstance(item, bytes) else item[0].values
        cells = split_cells(values, len(form.sources))
        return [cells[position] for position in form.keys]
    return split_cells(item[0].values, form.slots + len(form.keys))[form.slots :]


def _compile_set_aside(plan: Plan, tools: _Tools, progress: _Progress) -> _SetAside:
    """Build the function that finds the origin's key of a row that was refused."""
    layer, form, aside = tools.layer, tools.form, progress.aside
    names = plan.origin_names
    key_names = list(form.key_names)
    tells = set(layer.origin_key) <= names.keys()
    to_key = compile_key(plan, key_names)
    positions = [key_names.index(names[name]) for name in layer.origin_key] if tells else []
    is_rows = layer.name == "rows"

    def set_aside(key: list[bytes | None], why: MigrationError, counted: bool) -> None:
        target_key = join_cells(key, NULL)
        mark = (layer.name, target_key)
        if mark in aside.partly:
            # Another part of the same row.
            if counted and not aside.partly[mark]:
                aside.partly[mark] = True
                aside.uncounted -= is_rows
            return
        cells, table = list(key), plan.target
        shown_names: tuple[str, ...] = tuple(key_names)
        if tells:
            cells, table = [key[position] for position in positions], plan.origin
            shown_names = layer.origin_key
        elif tools.origin_keys is not None:
            # The entry of a map stands behind the key of its row.
            cells = split_cells(tools.origin_keys[to_key(key)], len(layer.origin_key))
            table, shown_names = plan.origin, layer.origin_key
        shown = zip(shown_names, cells, strict=True)
        aside.refuse(
            BadRow(
                layer.name,
                join_cells(cells, NULL),
                show_key([(name, table.type_of(name), cell) for name, cell in shown]),
                _column_in(str(why), plan),
                f"was refused: {why}",
            )
        )
        # Only now: a row that is one too many is not set aside.
        aside.partly[mark] = counted
        aside.uncounted += is_rows and not counted
        if not is_rows:
            progress.counts = replace(progress.counts, statics=progress.counts.statics - 1)

    return set_aside


def _column_in(told: str, plan: Plan) -> str:
    """Find the column that a server blames."""
    names = {column.name for column in plan.target.columns}
    found = re.findall(r"(?:column|collection) '?\"?(\w+)", told)
    return next((name for name in found if name in names), "")


def _compile_item(plan: Plan, tools: _Tools) -> Callable[[Row, int], Item | _Undecided | None]:
    """Build the function that turns a row into what is written: bytes where one time is enough."""
    rules, form = plan.rules, tools.form
    is_rows = tools.layer.name == "rows"
    keeps, passes, has_lists = rules.keeps_times, rules.passes_bytes, bool(form.lists)
    ttl = NO_TTL if not isinstance(rules.ttl, int) else bind_ttl(rules.ttl)
    count = len(form.sources)
    # Lists are compared first, and static cells have no marker that an INSERT would write.
    one_insert = is_rows and not (has_lists and rules.writetime != "now")
    one_time = rules.writetime != "cell" and rules.ttl != "cell"
    explicit = rules.writetime != "now"

    def to_whole_row(row: Row, asked_us: int) -> Item | None:
        _, values, times, _ = row
        if not is_rows and all(
            cell is None
            for source, cell in zip(form.sources, split_cells(values, count), strict=True)
            if not source.is_key
        ):
            return None
        if not keeps:
            return values
        return (Part(INSERT, values, rules.settle(*read_row_time(times, asked_us))),)

    if tools.items is not None:
        return to_whole_row

    def to_item(row: Row, asked_us: int) -> Item | _Undecided | None:
        _, values, times, entry = row
        if not keeps and is_rows:
            return values
        if passes and type(times) is bytes and not has_lists and is_rows:
            return values + times + ttl
        if one_insert and (one_time or not isinstance(times, RowTimes)):
            newest, latest = read_row_time(times, asked_us)
            time_there = rules.settle(newest, latest)
            if time_there[1] is not None:
                return (Part(INSERT, values, time_there),)
            bound = bind_time(*time_there, 0.0, ttl)
            return values + bound if bound else None
        cells = split_cells(values, count)
        if not is_rows and all(cells[value.position] is None for value in form.values):
            return None
        if not keeps:
            return values
        found = settle_times(times, rules, form.time_of, form.per_element, asked_us, entry)
        if explicit and has_lists and any(cells[position] is not None for position in form.lists):
            return _Undecided(cells, found)
        return to_parts(form, cells, found)

    return to_item


def _write_groups(
    stores: OpenStores,
    tools: _Tools,
    writer: Writer | RowWriter,
    groups: dict[bytes, list],
    progress: _Progress,
    set_aside: _SetAside,
) -> None:
    plan = stores.plan
    if tools.read_lists is not None:
        _decide_lists(stores, tools, groups, progress, set_aside)
    ordered = sorted(groups) if plan.migration.group_writes_by else groups
    routed = ((_routing_key(key, plan, tools), groups[key]) for key in ordered)
    if tools.place_of is None:
        for routing_key, items in routed:
            writer.write_group(items, routing_key)
        return
    assert isinstance(writer, Writer)
    place_of = tools.place_of
    # One of unknown replicas is a place of its own.
    writer.write_groups(
        (place if (place := place_of(routing_key)) is not None else object(), routing_key, items)
        for routing_key, items in routed
    )


def _decide_lists(
    stores: OpenStores,
    tools: _Tools,
    groups: dict[bytes, list],
    progress: _Progress,
    set_aside: _SetAside,
) -> None:
    """Read the target's lists and turn undecided rows into parts."""
    form, migration = tools.form, stores.plan.migration
    assert tools.read_lists is not None
    undecided = (
        ((items, position), [item.cells[key] for key in form.keys])
        for items in groups.values()
        for position, item in enumerate(items)
        if isinstance(item, _Undecided)
    )
    refused = False

    def on_refused(place: tuple[list, int], why: PermanentError) -> None:
        nonlocal refused
        items, position = place
        row, items[position], refused = items[position], None, True
        set_aside([row.cells[key] for key in form.keys], why, True)

    for (items, position), page in read_rows(
        stores.target_cluster,
        tools.read_lists,
        undecided,
        consistency=migration.target.consistency,
        retry_seconds=migration.retry_seconds,
        on_retry=progress.note_retry,
        on_refused=on_refused,
    ):
        row = items[position]
        lists = _lists_to_write(stores.plan, form, row, page)
        items[position] = to_parts(form, row.cells, row.times, lists)
    if refused:
        for items in groups.values():
            items[:] = [item for item in items if item is not None]


def _lists_to_write(plan: Plan, form: RowForm, row: _Undecided, page: Page) -> dict[int, CellTime]:
    """Say which lists differ from the target's, and at which time they replace those.

    A whole list replaces what is older than itself, element by element: one with the time of what
    is there would stand beside it. So it gets a newer time; but where the target's list was
    written after the origin's, it stays.
    """
    tells = plan.target.tells_elements
    width = 2 if tells else 1
    there = (
        split_cells(page.data, width * len(form.lists))
        if page.row_count
        else [None] * (width * len(form.lists))
    )
    values = {value.position: number for number, value in enumerate(form.values)}
    keeps_origin_times = not isinstance(plan.migration.writetime, int)
    found: dict[int, CellTime] = {}
    for number, position in enumerate(form.lists):
        cell, other = row.cells[position], there[number * width]
        time_here = row.times.cells[values[position]]
        assert isinstance(time_here, tuple)
        writetime, expires = time_here
        if cell is None or cell == other or writetime is None:
            continue
        if other is not None:
            if tells:
                newest = max(read_writetimes(there[number * width + 1]), default=0)
                if newest > writetime and keeps_origin_times:
                    continue
                writetime = max(writetime, newest + 1) if newest >= writetime else writetime
            else:
                writetime = max(writetime, time.time_ns() // 1000)
        found[position] = (writetime, expires)
    return found


def _routing_key(key: bytes, plan: Plan, tools: _Tools) -> bytes | None:
    if not tools.partition_key:
        return None
    cells = [split_cells(key, tools.leading)[position] or b"" for position in tools.partition_key]
    # What is too long for a key has no owner; the server says so better.
    return serialize_key(cells) if all(len(cell) < 2**16 for cell in cells) else None


# -- counters ------------------------------------------------------------------------------------


def _copy_counters(
    stores: OpenStores,
    tools: _Tools,
    pages: Iterator[Page],
    progress: _Progress,
    again: bool,
) -> None:
    migration = stores.plan.migration
    assert tools.counters is not None
    is_rows = tools.layer.name == "rows"
    tally = progress.tally if is_rows else progress.static_tally
    set_aside = _compile_set_aside(stores.plan, tools, progress)
    for page in pages:
        found = add_differences(
            stores.target_cluster,
            tools.counters,
            (row[1] for row in tools.reader.rows(page, tally)),
            again=again and "counters" not in migration.repair,
            consistency=migration.target.consistency,
            budget=stores.target_budget,
            retry_seconds=migration.retry_seconds,
            on_retry=progress.note_retry,
            on_refused=lambda cells, why: set_aside(
                [cells[position] for position in tools.form.keys], why, True
            ),
        )
        if tools.origin_keys:
            tools.origin_keys.clear()
        if is_rows:
            progress.counts = replace(
                progress.counts,
                written=progress.counts.written + found.equal,
                left_alone=progress.counts.left_alone + found.left_alone,
            )
        if page is _END_OF_PIECE:
            _end_pieces(stores, progress)


# -- preparing -----------------------------------------------------------------------------------


def _prepare(stores: OpenStores, layer: Layer, winners: str | None) -> _Tools:
    plan, seconds = stores.plan, stores.plan.migration.retry_seconds
    is_rows = layer.name == "rows"
    leading = tuple(n for n in plan.copy_leading if any(s.target == n for s in layer.sources))
    sources = counter_order(plan, layer) if layer.has_counters else layer.ordered(leading)
    wins = open_winners(winners) if winners and is_rows else None
    tells = set(layer.origin_key) <= plan.origin_names.keys()
    carried = {} if plan.migration.dead_letters_max_rows and not tells else None
    reader = compile_rows(
        plan,
        layer,
        sources,
        len(leading),
        null=UNSET,
        wins=wins if carried is None else _carry(carried, wins),
    )
    form = build_form(plan, layer, sources)
    where = plan.migration.filter.where
    select = prepare_range_read(
        stores.origin,
        plan.origin,
        reader.columns,
        times=reader.times.selections(),
        where=where,
        statics=not is_rows,
        retry_seconds=seconds,
    )
    if plan.migration.target.dynamodb:
        items = build_item_form(plan, layer, sources)
        return _Tools(layer, reader, select, form, [], None, None, (), 0, carried, items)
    if layer.has_counters:
        counters = prepare_counters(stores.target_cluster, plan, layer, retry_seconds=seconds)
        return _Tools(layer, reader, select, form, [], counters, None, (), len(leading), carried)
    statements = prepare_writes(stores.target_cluster, plan, form, retry_seconds=seconds)
    # Only with several hosts is it worth knowing which one owns a partition.
    has_choice = stores.target_cluster.has_choice
    routed = has_choice and set(plan.target.partition_key) <= set(leading)
    return _Tools(
        layer=layer,
        reader=reader,
        select=select,
        form=form,
        statements=statements,
        counters=None,
        read_lists=_prepare_lists(stores, form)
        if form.lists and plan.rules.writetime != "now"
        else None,
        partition_key=tuple(leading.index(c) for c in plan.target.partition_key) if routed else (),
        leading=len(leading),
        origin_keys=carried,
        place_of=_compile_places(stores, routed=routed)
        if plan.migration.batch_across_partitions is not False
        and plan.migration.group_writes_by != ()
        # Where tokens mean nothing, replicas are not known either.
        and (not has_choice or (routed and plan.target.is_murmur3))
        else None,
    )


def _compile_places(stores: OpenStores, *, routed: bool) -> Callable[[bytes | None], int | None]:
    """Build the function that numbers the replicas of a routing key; one node has everything."""
    if not routed:
        return lambda _: 0
    place_of = stores.target_cluster.place_keys(stores.plan.target.name.keyspace)
    return lambda key: None if key is None else place_of(key)


def _carry(carried: dict[bytes, bytes], wins: Wins | None) -> Wins:
    """Note the origin's key of each row that is copied, beside the target's."""

    def note(target_key: bytes, origin_key: bytes) -> bool:
        if wins is not None and not wins(target_key, origin_key):
            return False
        carried[target_key] = origin_key
        return True

    return note


def _prepare_lists(stores: OpenStores, form: RowForm) -> PreparedStatement:
    """Prepare the read of the target's unfrozen lists, and of their writetimes."""
    table = stores.plan.target
    selected = []
    for position in form.lists:
        name = quote(form.sources[position].target)
        selected += [name, f"writetime({name})"] if table.tells_elements else [name]
    condition = " AND ".join(f"{quote(name)} = ?" for name in form.key_names)
    return stores.target_cluster.prepare(
        f"SELECT {', '.join(selected)} FROM {table.name} WHERE {condition}",  # noqa: S608
        retry_seconds=stores.plan.migration.retry_seconds,
    )
