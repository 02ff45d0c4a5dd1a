"""Two-way comparison of ranges: digests first, then the rows of differing buckets, key by key.

A row belongs to the range of its origin token, also when it is found in the target: where the
tables' partition keys differ, one scan of the whole target serves every range of a run.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from cassandra import ConsistencyLevel
from cassandra.protocol import ExecuteMessage
from cassandra.query import PreparedStatement

from migration_platform.collisions import open_winners
from migration_platform.compared_rows import (
    SIDES,
    ComparedRows,
    compile_compared,
    loosely_agree,
    times_agree,
)
from migration_platform.digest import (
    BUCKETS_PER_TABLE,
    DigestedRow,
    DigestSums,
    RowLocator,
    add_rows,
    buckets_per_range,
    list_rows,
)
from migration_platform.errors import explain
from migration_platform.migration import quote
from migration_platform.preflight import Layer, Plan
from migration_platform.rows import count_cells, split_cells
from migration_platform.stores.cassandra import Connection, page_of, read_pages
from migration_platform.token_ranges import TokenRange
from migration_platform.transform import show_key
from migration_platform.workers import (
    Done,
    Failed,
    OpenStores,
    Report,
    Reported,
    WorkerPool,
)

MAX_SAMPLES = 20
ROWS_A_REPORT = 5_000


@dataclass(frozen=True)
class DifferingRow:
    """A row that differs: its key as CQL would show it, and the columns that do."""

    key: str
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.key}: {', '.join(self.columns)}" if self.columns else self.key


@dataclass(frozen=True)
class RangeVerdict:
    """What the comparison of one range found; `error` says why there is no verdict."""

    token_range: TokenRange
    origin_rows: int = 0
    target_rows: int = 0
    missing: int = 0
    extra: int = 0
    mismatched: int = 0
    missing_rows: tuple[DifferingRow, ...] = ()
    extra_rows: tuple[DifferingRow, ...] = ()
    mismatched_rows: tuple[DifferingRow, ...] = ()
    error: str = ""

    @property
    def matches(self) -> bool:
        """Whether both tables hold the same rows in this range."""
        return not (self.error or self.missing or self.extra or self.mismatched)


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
        locator = _locator(stores.plan, self.side, self.token_range, self.wanted)
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
        locator = _locator(stores.plan, self.side, self.token_range, self.wanted)
        for layer in stores.plan.layers:
            rows = _scan(stores, layer, self.side, self.token_range, self.winners, report)
            found = list_rows(rows, locator, self.wanted_slots)
            while some := list(islice(found, ROWS_A_REPORT)):
                report(some)


def diff_ranges(
    pool: WorkerPool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    connections: tuple[Connection, Connection],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    winners: str | None = None,
) -> Iterator[RangeVerdict]:
    """Compare the ranges; every range gets exactly one verdict.

    `on_progress` is told how many of how many scans are done. `winners` is the file that tells
    which of several origin rows was to be written. In the mode `origin_only` rows
    that only the target has are neither counted nor sampled.
    """
    wanted = frozenset(token_range.index for token_range in ranges)
    sums = {side: DigestSums() for side in SIDES}
    errors: dict[int, str] = {}
    tasks = [
        ScanSums(side, token_range, wanted, winners)
        for side in SIDES
        for token_range in _slices(plan, side, ranges)
    ]
    done = 0
    for event in pool.run(tasks):
        if isinstance(event, Done):
            sums[event.task.side].add(event.result)
        elif isinstance(event, Failed):
            _spoil(errors, plan, event, wanted)
        if isinstance(event, Done | Failed):
            done += 1
            on_progress(done, len(tasks))
    differing = frozenset(
        slot
        for slot in sums["origin"].sums.keys() | sums["target"].sums.keys()
        if sums["origin"].sums.get(slot, 0) != sums["target"].sums.get(slot, 0)
    )
    doubtful = differing | sums["origin"].loose | sums["target"].loose
    if plan.tells_origin_token:
        buckets = buckets_per_range(plan.migration.token_ranges)
        suspects = {slot // buckets for slot in doubtful}
    else:
        suspects = set(wanted) if doubtful else set()
    for token_range in ranges:
        if token_range.index in errors or token_range.index not in suspects:
            rows = sums["origin"].rows[token_range.index]
            yield RangeVerdict(
                token_range,
                origin_rows=rows,
                # A target that does not tell the origin's token has no rows of a range; equal
                # sums say that it has those of all.
                target_rows=sums["target"].rows[token_range.index]
                if plan.tells_origin_token
                else rows,
                error=errors.get(token_range.index, ""),
            )
    looked_into = [r for r in ranges if r.index in suspects and r.index not in errors]
    if looked_into:
        yield from _look_into(
            pool, plan, looked_into, differing, sums, connections, on_progress, winners
        )


def _look_into(
    pool: WorkerPool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    differing: frozenset[int],
    sums: dict[str, DigestSums],
    connections: tuple[Connection, Connection],
    on_progress: Callable[[int, int], None],
    winners: str | None,
) -> Iterator[RangeVerdict]:
    """Fetch the keys and digests of the differing buckets and compare them row by row.

    They go through a database file, not memory: every bucket of a large table may differ.
    """
    errors: dict[int, str] = {}
    wanted = frozenset(token_range.index for token_range in ranges)
    tasks = [
        ScanRows(side, token_range, wanted, differing, winners)
        for side in SIDES
        for token_range in _slices(plan, side, ranges)
    ]
    with tempfile.TemporaryDirectory(prefix="migration-platform-diff-") as folder:
        rows = _RowFile(Path(folder) / "rows.sqlite")
        try:
            done = 0
            for event in pool.run(tasks):
                if isinstance(event, Reported) and isinstance(event.value, list):
                    rows.add(event.task.side, event.value)
                elif isinstance(event, Failed):
                    _spoil(errors, plan, event, wanted)
                if isinstance(event, Done | Failed):
                    done += 1
                    on_progress(done, len(tasks))
            samples = _Samples(plan, connections, winners)
            for token_range in ranges:
                index = token_range.index
                verdict = RangeVerdict(
                    token_range,
                    origin_rows=sums["origin"].rows[index],
                    target_rows=sums["target"].rows[index],
                    error=errors.get(index, ""),
                )
                yield verdict if verdict.error else rows.judge(verdict, samples)
        finally:
            rows.close()


class _RowFile:
    """Keys and digests of both sides, by range, in a temporary database."""

    def __init__(self, path: Path):
        self._database = sqlite3.connect(path, isolation_level=None)
        # The file lives for one comparison only; nothing needs to survive a crash.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.create_function("loosely_agree", 2, loosely_agree, deterministic=True)
        for side in SIDES:
            self._database.execute(
                f"CREATE TABLE {side} (range_index INTEGER, key BLOB PRIMARY KEY, digest BLOB, "
                "loose BLOB) WITHOUT ROWID"
            )
        self._indexed = False

    def add(self, side: str, rows: list[tuple[int, bytes, bytes, bytes]]) -> None:
        assert side in SIDES
        self._database.execute("BEGIN")
        self._database.executemany(f"INSERT OR REPLACE INTO {side} VALUES (?, ?, ?, ?)", rows)  # noqa: S608
        self._database.execute("COMMIT")

    def judge(self, verdict: RangeVerdict, samples: "_Samples") -> RangeVerdict:
        """Compare the rows of one range."""
        if not self._indexed:
            self._indexed = True
            for side in SIDES:
                self._database.execute(f"CREATE INDEX {side}_by_range ON {side} (range_index)")
        index = verdict.token_range.index
        missing, missing_keys = self._only_in("origin", "target", index)
        extra, extra_keys = self._only_in("target", "origin", index)
        target_rows = verdict.target_rows
        if not samples.plan.tells_origin_token:
            target_rows = verdict.origin_rows - missing + extra
        if samples.plan.migration.diff_mode == "origin_only":
            # Rows that are not looked at do not count either, or the counts would never match.
            target_rows -= self._extra_rows(index, samples)
            extra, extra_keys = 0, []
        mismatched, mismatched_keys = self._select(
            "origin AS a JOIN target AS b ON b.key = a.key WHERE a.range_index = ? "
            "AND (a.digest != b.digest OR NOT loosely_agree(a.loose, b.loose))",
            index,
        )
        return replace(
            verdict,
            target_rows=target_rows,
            missing=missing,
            extra=extra,
            mismatched=mismatched,
            missing_rows=tuple(DifferingRow(samples.show_key(key)) for key in missing_keys),
            extra_rows=tuple(DifferingRow(samples.show_key(key)) for key in extra_keys),
            mismatched_rows=tuple(
                DifferingRow(samples.show_key(key), samples.differing_columns(key))
                for key in mismatched_keys
            ),
        )

    def _extra_rows(self, index: int, samples: "_Samples") -> int:
        """Count the rows that only the target has, its static cells left out."""
        whole = samples.row_key_cells
        self._database.create_function("is_row", 1, lambda key: count_cells(key) == whole)
        (count,) = self._database.execute(
            "SELECT count(*) FROM target AS a WHERE a.range_index = ? AND is_row(a.key) "
            "AND NOT EXISTS (SELECT 1 FROM origin AS b WHERE b.key = a.key)",
            (index,),
        ).fetchone()
        return count

    def _only_in(self, side: str, other: str, index: int) -> tuple[int, list[bytes]]:
        return self._select(
            f"{side} AS a WHERE a.range_index = ? "  # noqa: S608
            f"AND NOT EXISTS (SELECT 1 FROM {other} AS b WHERE b.key = a.key)",
            index,
        )

    def _select(self, source: str, index: int) -> tuple[int, list[bytes]]:
        (count,) = self._database.execute(f"SELECT count(*) FROM {source}", (index,)).fetchone()  # noqa: S608
        keys = self._database.execute(
            f"SELECT a.key FROM {source} ORDER BY a.key LIMIT {MAX_SAMPLES}",  # noqa: S608
            (index,),
        ).fetchall()
        return count, [key for (key,) in keys]

    def close(self) -> None:
        self._database.close()


@dataclass
class _Samples:
    """Shows keys as an operator types them, and finds the columns in which two rows differ."""

    plan: Plan
    connections: tuple[Connection, Connection]
    winners: str | None = None
    sides: dict[int, tuple[ComparedRows, ComparedRows]] = field(default_factory=dict)
    statements: dict[tuple[int, int], PreparedStatement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wins = open_winners(self.winners) if self.winners else None
        for layer in self.plan.layers:
            origin, target = (compile_compared(self.plan, layer, side, wins=wins) for side in SIDES)
            self.sides[origin.keys] = (origin, target)

    @property
    def row_key_cells(self) -> int:
        """How many cells the key of a row has; that of static cells has fewer."""
        return max(self.sides)

    def show_key(self, key: bytes) -> str:
        """Give a primary key as `userid='u1', courseid='c1'`; static cells have a partition's."""
        count = count_cells(key)
        sources = self.sides[count][1].sources[:count]
        shown = show_key(
            [
                (source.target, source.target_type, cell)
                for source, cell in zip(sources, split_cells(key, count), strict=True)
            ]
        )
        return f"static cells of {shown}" if self.sides[count][1].statics else shown

    def differing_columns(self, key: bytes) -> tuple[str, ...]:
        """Read both rows by their key and name the columns, or their times, that differ."""
        count = count_cells(key)
        cells = split_cells(key, count)
        by_target = dict(zip((s.target for s in self.sides[count][1].sources), cells, strict=False))
        names = self.plan.origin_names
        found = []
        for number, (rows, connection) in enumerate(
            zip(self.sides[count], self.connections, strict=True)
        ):
            key_names = rows.table.partition_key if rows.statics else rows.table.primary_key
            if number == 0 and not set(key_names) <= names.keys():
                return ("(its key does not tell the origin's row)",)
            bound = [by_target[names[name] if number == 0 else name] for name in key_names]
            try:
                found.append(self._read(number, count, rows, key_names, bound, key, connection))
            except Exception as error:
                # The verdict stands without it: only a name beside a sample is lost.
                return (f"(not read again: {explain(error)})",)
        changed = ("(the row changed while it was compared)",)
        if found[0] is None or found[1] is None:
            return changed
        return _name_differences(self.sides[count][1], found[0], found[1]) or changed

    def _read(
        self,
        number: int,
        count: int,
        rows: ComparedRows,
        key_names: tuple[str, ...],
        bound: list[bytes | None],
        key: bytes,
        connection: Connection,
    ) -> tuple | None:
        migration = self.plan.migration
        statement = self.statements.get((number, count))
        if statement is None:
            selected = ", ".join((*map(quote, rows.columns), *rows.times.selections()))
            condition = " AND ".join(f"{quote(name)} = ?" for name in key_names)
            statement = connection.prepare(
                f"SELECT {'DISTINCT ' if rows.statics else ''}{selected} FROM {rows.table.name} "  # noqa: S608
                f"WHERE {condition}",
                retry_seconds=migration.retry_seconds,
            )
            self.statements[number, count] = statement
        endpoint = migration.origin if number == 0 else migration.target
        message = ExecuteMessage(
            statement.query_id,
            bound,
            getattr(ConsistencyLevel, endpoint.consistency),
            skip_meta=True,
            result_metadata_id=statement.result_metadata_id,
        )
        future = connection.send(message, query=None, statement=statement)
        asked_us = time.time_ns() // 1000
        future.send_request()
        page = replace(page_of(future), asked_us=asked_us)
        # A map's entries make several rows of one: the key tells which.
        return next((row for row in rows.cells(page) if row[0] == key), None)


def _name_differences(rows: ComparedRows, origin: tuple, target: tuple) -> tuple[str, ...]:
    names = []
    values = [position for position, source in enumerate(rows.sources) if not source.is_key]
    for number, position in enumerate(values):
        name = quote(rows.sources[position].target)
        if origin[1][position] != target[1][position]:
            if position not in rows.loose or target[1][position] is None:
                names.append(name)
        elif origin[1][position] is not None and origin[2] is not None:
            if position in rows.no_time:
                continue
            written, lives = times_agree(origin[2].cells[number], target[2].cells[number])
            names += [f"writetime({name})"] * (not written) + [f"ttl({name})"] * (not lives)
    return tuple(names)


def _slices(plan: Plan, side: str, ranges: Sequence[TokenRange]) -> Sequence[TokenRange]:
    """Give the slices to scan: the ranges themselves, or all of a target keyed otherwise.

    Where the target does not tell an origin's token, no range can be compared without the others.
    """
    if plan.keys_agree or (side == "origin" and plan.tells_origin_token):
        return ranges
    return plan.migration.ranges


def _locator(plan: Plan, side: str, token_range: TokenRange, wanted: frozenset[int]) -> RowLocator:
    ranges, chosen = plan.migration.ranges, plan.migration.filter
    tells = plan.tells_origin_token
    fixed = side == "origin" or plan.keys_agree or not tells
    windows = [chosen.window(each) for each in ranges]
    return RowLocator(
        fixed_index=token_range.index if fixed else None,
        token_cells=len(plan.origin.partition_key),
        ends=tuple(each.end for each in ranges),
        windows=tuple((each.start, each.end) if each else None for each in windows),
        wanted=wanted if tells else frozenset(each.index for each in ranges),
        buckets=buckets_per_range(len(ranges)) if tells else BUCKETS_PER_TABLE,
        by_range=tells,
    )


def _spoil(errors: dict[int, str], plan: Plan, event: Failed, wanted: frozenset[int]) -> None:
    """Note which ranges have no verdict: one, or all if the scan served all."""
    task = event.task
    fixed = plan.keys_agree or (task.side == "origin" and plan.tells_origin_token)
    for index in (task.token_range.index,) if fixed else wanted:
        errors.setdefault(index, f"the {task.side} could not be scanned: {event.reason}")


def _scan(
    stores: OpenStores,
    layer: Layer,
    side: str,
    token_range: TokenRange,
    winners: str | None,
    report: Report,
) -> Iterator[DigestedRow]:
    """Give the rows of a layer of a slice of one side."""
    plan, migration = stores.plan, stores.plan.migration
    is_origin = side == "origin"
    connection = stores.origin if is_origin else stores.target
    endpoint = migration.origin if is_origin else migration.target
    # Only what the filter's window leaves of a range was copied.
    whole = not is_origin and not plan.keys_agree
    window = token_range if whole else migration.filter.window(token_range)
    if window is None:
        return
    name = f"scan {side} {layer.name} {winners}"
    if name not in stores.cache:
        wins = open_winners(winners) if winners else None
        compared = compile_compared(plan, layer, side, wins=wins)
        prepared = compared.prepare(connection, migration.retry_seconds)
        stores.cache[name] = (compared, prepared)
    rows, statement = stores.cache[name]
    for page in read_pages(
        connection,
        statement,
        window,
        consistency=endpoint.consistency,
        fetch_size=migration.origin.fetch_size,
        budget=stores.origin_budget if is_origin else stores.target_budget,
        retry_seconds=migration.retry_seconds,
        on_retry=lambda error: report(explain(error)),
    ):
        yield from rows.digested(page)
