"""Two-way comparison of ranges: digests first, then the rows of differing buckets, key by key.

A row belongs to the range of its origin token, also when it is found in the target: where the
tables' partition keys differ, one scan of the whole target serves every range of a run.
"""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cassandra import ConsistencyLevel
from cassandra.protocol import ExecuteMessage

from migration_platform.digest import (
    DigestSums,
    RowLocator,
    add_pages,
    buckets_per_range,
    list_rows,
)
from migration_platform.errors import explain
from migration_platform.migration import quote
from migration_platform.preflight import Plan
from migration_platform.rows import Page, compile_splitter, split_cells
from migration_platform.stores.cassandra import Connection, page_of, prepare_range_read, read_pages
from migration_platform.token_ranges import TokenRange
from migration_platform.workers import (
    Done,
    Failed,
    OpenStores,
    Report,
    Reported,
    WorkerPool,
)

MAX_SAMPLES = 20
SIDES = ("origin", "target")


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

    def run(self, stores: OpenStores, report: Report) -> DigestSums:
        """Scan the slice.

        Raises:
            MigrationError: a page could not be read.
        """
        sums = DigestSums()
        plan = stores.plan
        pages = _pages(stores, self.side, self.token_range, report)
        buckets = buckets_per_range(plan.migration.token_ranges)
        locator = _locator(plan, self.side, self.token_range)
        add_pages(sums, pages, _splitter(stores), locator, buckets, self.wanted)
        return sums


@dataclass(frozen=True)
class ScanRows:
    """The task of reporting keys and digests of the rows in differing buckets of a slice."""

    side: str
    token_range: TokenRange
    wanted_slots: frozenset[int]

    def run(self, stores: OpenStores, report: Report) -> None:
        """Scan the slice; rows are reported page by page.

        Raises:
            MigrationError: a page could not be read.
        """
        plan = stores.plan
        pages = _pages(stores, self.side, self.token_range, report)
        buckets = buckets_per_range(plan.migration.token_ranges)
        locator = _locator(plan, self.side, self.token_range)
        for found in list_rows(pages, _splitter(stores), locator, buckets, self.wanted_slots):
            report(found)


def diff_ranges(
    pool: WorkerPool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    connections: tuple[Connection, Connection],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[RangeVerdict]:
    """Compare the ranges; every range gets exactly one verdict.

    `on_progress` is told how many of how many scans are done. In the mode `origin_only` rows
    that only the target has are neither counted nor sampled.
    """
    wanted = frozenset(token_range.index for token_range in ranges)
    sums = {side: DigestSums() for side in SIDES}
    errors: dict[int, str] = {}
    tasks = [
        ScanSums(side, token_range, wanted)
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
    buckets = buckets_per_range(plan.migration.token_ranges)
    differing = frozenset(
        slot
        for slot in sums["origin"].sums.keys() | sums["target"].sums.keys()
        if sums["origin"].sums.get(slot, 0) != sums["target"].sums.get(slot, 0)
    )
    suspects = {slot // buckets for slot in differing}
    for token_range in ranges:
        if token_range.index in errors or token_range.index not in suspects:
            yield RangeVerdict(
                token_range,
                origin_rows=sums["origin"].rows[token_range.index],
                target_rows=sums["target"].rows[token_range.index],
                error=errors.get(token_range.index, ""),
            )
    looked_into = [r for r in ranges if r.index in suspects and r.index not in errors]
    if looked_into:
        yield from _look_into(pool, plan, looked_into, differing, sums, connections, on_progress)


def _look_into(
    pool: WorkerPool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    differing: frozenset[int],
    sums: dict[str, DigestSums],
    connections: tuple[Connection, Connection],
    on_progress: Callable[[int, int], None],
) -> Iterator[RangeVerdict]:
    """Fetch the keys and digests of the differing buckets and compare them row by row.

    They go through a database file, not memory: every bucket of a large table may differ.
    """
    errors: dict[int, str] = {}
    wanted = frozenset(token_range.index for token_range in ranges)
    tasks = [
        ScanRows(side, token_range, differing)
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
            samples = _Samples(plan, connections)
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
        for side in SIDES:
            self._database.execute(
                f"CREATE TABLE {side} (range_index INTEGER, key BLOB, digest BLOB, "
                "PRIMARY KEY (range_index, key)) WITHOUT ROWID"
            )

    def add(self, side: str, rows: list[tuple[int, bytes, bytes]]) -> None:
        assert side in SIDES
        self._database.execute("BEGIN")
        self._database.executemany(f"INSERT OR REPLACE INTO {side} VALUES (?, ?, ?)", rows)  # noqa: S608
        self._database.execute("COMMIT")

    def judge(self, verdict: RangeVerdict, samples: "_Samples") -> RangeVerdict:
        """Compare the rows of one range."""
        index = verdict.token_range.index
        missing, missing_keys = self._only_in("origin", "target", index)
        extra, extra_keys = self._only_in("target", "origin", index)
        if samples.plan.migration.diff_mode == "origin_only":
            # Rows that are not looked at do not count either, or the counts would never match.
            verdict = replace(verdict, target_rows=verdict.target_rows - extra)
            extra, extra_keys = 0, []
        mismatched, mismatched_keys = self._select(
            "origin AS a JOIN target AS b ON b.range_index = a.range_index AND b.key = a.key "
            "WHERE a.range_index = ? AND a.digest != b.digest",
            index,
        )
        return replace(
            verdict,
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

    def _only_in(self, side: str, other: str, index: int) -> tuple[int, list[bytes]]:
        return self._select(
            f"{side} AS a WHERE a.range_index = ? AND NOT EXISTS (SELECT 1 FROM {other} AS b "  # noqa: S608
            "WHERE b.range_index = a.range_index AND b.key = a.key)",
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
    statements: list = field(default_factory=list)

    def __post_init__(self) -> None:
        columns = ", ".join(quote(name) for name in self.plan.diff_columns)
        key = " AND ".join(f"{quote(name)} = ?" for name in self.plan.origin.primary_key)
        for connection, table in zip(
            self.connections, (self.plan.origin, self.plan.target), strict=True
        ):
            self.statements.append(
                connection.prepare(
                    f"SELECT {columns} FROM {table.name} WHERE {key}",  # noqa: S608
                    retry_seconds=self.plan.migration.retry_seconds,
                )
            )

    def show_key(self, key: bytes) -> str:
        """Give a primary key as `userid='u1', courseid='c1'`."""
        connection = self.connections[0]
        types = {c[2]: c[3] for c in self.statements[0].result_metadata}
        parts = []
        for name, cell in zip(
            self.plan.origin.primary_key, split_cells(key, self.plan.key_size), strict=True
        ):
            try:
                value = types[name].from_binary(cell or b"", connection.protocol_version)
                text = repr(value) if isinstance(value, str | bytes) else str(value)
            except (OverflowError, ValueError):
                # A timestamp may lie far beyond Python's year 9999.
                text = f"0x{(cell or b'').hex()}"
            parts.append(f"{quote(name)}={text}")
        return ", ".join(parts)

    def differing_columns(self, key: bytes) -> tuple[str, ...]:
        """Read both rows by their key and name the columns whose bytes differ."""
        values = split_cells(key, self.plan.key_size)
        rows = []
        for connection, statement, endpoint in zip(
            self.connections,
            self.statements,
            (self.plan.migration.origin, self.plan.migration.target),
            strict=True,
        ):
            message = ExecuteMessage(
                statement.query_id,
                values,
                getattr(ConsistencyLevel, endpoint.consistency),
                skip_meta=True,
                result_metadata_id=statement.result_metadata_id,
            )
            future = connection.send(message, query=None, statement=statement)
            future.send_request()
            try:
                page = page_of(future)
            except Exception as error:
                # The verdict stands without it: only a name beside a sample is lost.
                return (f"(not read again: {explain(error)})",)
            rows.append(split_cells(page.data, len(self.plan.diff_columns) * page.row_count))
        if len(rows[0]) != len(rows[1]):
            return ("(the row changed while it was compared)",)
        return tuple(
            name for name, a, b in zip(self.plan.diff_columns, *rows, strict=False) if a != b
        ) or ("(the row changed while it was compared)",)


def _slices(plan: Plan, side: str, ranges: Sequence[TokenRange]) -> Sequence[TokenRange]:
    """Give the slices to scan: the ranges themselves, or all of a target keyed otherwise."""
    if side == "origin" or plan.keys_agree:
        return ranges
    return plan.migration.ranges


def _locator(plan: Plan, side: str, token_range: TokenRange) -> RowLocator:
    fixed = side == "origin" or plan.keys_agree
    return RowLocator(
        fixed_index=token_range.index if fixed else None,
        token_cells=len(plan.origin.partition_key),
        ends=[r.end for r in plan.migration.ranges],
    )


def _spoil(errors: dict[int, str], plan: Plan, event: Failed, wanted: frozenset[int]) -> None:
    """Note which ranges have no verdict: one, or all if the scan served all."""
    task = event.task
    fixed = task.side == "origin" or plan.keys_agree
    for index in (task.token_range.index,) if fixed else wanted:
        errors.setdefault(index, f"the {task.side} could not be scanned: {event.reason}")


def _splitter(stores: OpenStores) -> Callable:
    plan = stores.plan
    if "diff" not in stores.cache:
        stores.cache["diff"] = compile_splitter(len(plan.diff_columns), plan.key_size)
    return stores.cache["diff"]


def _pages(
    stores: OpenStores, side: str, token_range: TokenRange, report: Report
) -> Iterator[Page]:
    plan = stores.plan
    is_origin = side == "origin"
    connection = stores.origin if is_origin else stores.target
    table = plan.origin if is_origin else plan.target
    endpoint = plan.migration.origin if is_origin else plan.migration.target
    name = f"scan {side}"
    if name not in stores.cache:
        seconds = plan.migration.retry_seconds
        stores.cache[name] = prepare_range_read(
            connection, table, plan.diff_columns, retry_seconds=seconds
        )
    return read_pages(
        connection,
        stores.cache[name],
        token_range,
        consistency=endpoint.consistency,
        fetch_size=plan.migration.origin.fetch_size,
        budget=stores.origin_budget if is_origin else stores.target_budget,
        retry_seconds=plan.migration.retry_seconds,
        on_retry=lambda error: report(explain(error)),
    )
