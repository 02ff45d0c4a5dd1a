"""Two-way comparison of ranges: digests first, then the rows of differing buckets, key by key.

A row belongs to the range of its origin token, also when it is found in the target: where the
tables' partition keys differ, one scan of the whole target serves every range of a run.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from migration_platform.comparing.compared_rows import (
    SIDES,
    ComparedRows,
    compile_compared,
    loosely_agree,
)
from migration_platform.comparing.digest import (
    BUCKETS_PER_TABLE,
    DigestedRow,
    DigestSums,
    ListedRow,
    RowLocator,
    add_rows,
    buckets_per_range,
    list_rows,
)
from migration_platform.comparing.rechecks import Kind, now_us, show_row
from migration_platform.comparing.repair import SettleRows
from migration_platform.comparing.verdicts import MAX_SAMPLES, DifferingRow, Findings, RangeVerdict
from migration_platform.copying.collisions import open_winners
from migration_platform.cql.rows import Page, count_cells
from migration_platform.errors import explain
from migration_platform.plan.model import Layer, Plan
from migration_platform.stores.interface import KeyReader, Pace, RangeReader
from migration_platform.stores.work import (
    Done,
    Event,
    Failed,
    OpenStores,
    Pool,
    Report,
    Reported,
    Task,
)
from migration_platform.token_ranges import TokenRange

ROWS_A_REPORT = 5_000
ROWS_A_PAGE = 500
RECHECKED_ROWS = 100_000
"""So many differing rows of a range are read again, and repaired: a range that differs in more is
better copied again. What is beyond counts as the scans found it."""
ROWS_A_TASK = 1_000
LONGEST_WAIT_SECONDS = 5.0
LEAST_WAIT_SECONDS = 3.0
"""How long differences of a table that is written to are waited for at least, where many are."""
KINDS: tuple[Kind, ...] = ("missing", "mismatched", "extra", "other_form")


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


def diff_ranges(
    pool: Pool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    winners: str | None = None,
    on_retry: Callable[[str], None] = lambda reason: None,
) -> Iterator[RangeVerdict]:
    """Compare the ranges; every range gets exactly one verdict.

    `on_progress` is told how many of how many scans are done, `on_retry` of each request that is
    tried again, and why. `winners` is the file that tells
    which of several origin rows was to be written. In the mode `origin_only` rows
    that only the target has are neither counted nor sampled. Rows that differ are read again, and
    repaired where that is declared; not so where the target's key does not tell the origin's row.
    """
    started_us = now_us()
    heard = _Heard(pool, on_retry)
    wanted = frozenset(token_range.index for token_range in ranges)
    sums = {side: DigestSums() for side in SIDES}
    errors: dict[int, str] = {}
    tasks = [
        ScanSums(side, token_range, wanted, winners)
        for side in SIDES
        for token_range in _slices(plan, side, ranges)
    ]
    done = 0
    for event in heard.run(tasks):
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
                token_range=token_range,
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
            heard, plan, looked_into, differing, sums, started_us, on_progress, winners
        )


@dataclass(frozen=True)
class _Heard:
    """A pool whose tasks' words about retries are heard, and not among its events."""

    pool: Pool
    on_retry: Callable[[str], None]

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Do the tasks as the pool does."""
        for event in self.pool.run(tasks):
            if not isinstance(event, Reported) or not isinstance(event.value, str):
                yield event
            elif event.value:
                self.on_retry(event.value)


def _look_into(
    pool: Pool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    differing: frozenset[int],
    sums: dict[str, DigestSums],
    started_us: int,
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
        rows = _RowFile(Path(folder) / "rows.sqlite", len(plan.target.primary_key))
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
            judged = [r for r in ranges if r.index not in errors]
            for token_range in ranges:
                if token_range not in judged:
                    yield RangeVerdict(token_range=token_range, error=errors[token_range.index])
            counts = {
                r: (sums["origin"].rows[r.index], sums["target"].rows[r.index]) for r in judged
            }
            if plan.tells_origin_row:
                yield from _settle(pool, plan, counts, rows, started_us, on_progress)
            else:
                for token_range, (here, there) in counts.items():
                    yield _judge_by_scans(plan, token_range, here, there, rows)
        finally:
            rows.close()


class _RowFile:
    """Keys and digests of both sides, by range, in a temporary database."""

    def __init__(self, path: Path, row_key_cells: int):
        self._database = sqlite3.connect(path, isolation_level=None)
        # The file lives for one comparison only; nothing needs to survive a crash.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.create_function("loosely_agree", 2, loosely_agree, deterministic=True)
        for side in SIDES:
            self._database.execute(
                f"CREATE TABLE {side} (range_index INTEGER, key BLOB PRIMARY KEY, digest BLOB, "
                "loose BLOB, form BLOB) WITHOUT ROWID"
            )
        self._database.create_function(
            "is_row", 1, lambda key: count_cells(key) == row_key_cells, deterministic=True
        )
        self._indexed = False

    def add(self, side: str, rows: list[ListedRow]) -> None:
        assert side in SIDES
        self._database.execute("BEGIN")
        self._database.executemany(f"INSERT OR REPLACE INTO {side} VALUES (?, ?, ?, ?, ?)", rows)  # noqa: S608
        self._database.execute("COMMIT")

    def count(self, kind: Kind, index: int) -> tuple[int, int]:
        """Count what differs in a range in one way, and the rows among it; others are statics."""
        query = f"SELECT count(*), total(is_row(a.key)) FROM {_OF_KIND[kind]}"  # noqa: S608
        return self._ask(query, index)[0]

    def keys(self, kind: Kind, index: int, limit: int) -> list[bytes]:
        """Give keys of what differs in a range in one way."""
        query = f"SELECT a.key FROM {_OF_KIND[kind]} ORDER BY a.key LIMIT {limit:d}"  # noqa: S608
        return [key for (key,) in self._ask(query, index)]

    def _ask(self, query: str, index: int) -> list[tuple]:
        if not self._indexed:
            self._indexed = True
            for side in SIDES:
                self._database.execute(f"CREATE INDEX {side}_by_range ON {side} (range_index)")
        return self._database.execute(query, (index,)).fetchall()

    def close(self) -> None:
        self._database.close()


_ONLY_IN = (
    "{0} AS a WHERE a.range_index = ? AND NOT EXISTS (SELECT 1 FROM {1} AS b WHERE b.key = a.key)"
)
_IN_BOTH = "origin AS a JOIN target AS b ON b.key = a.key WHERE a.range_index = ? AND "
_OF_KIND = {
    "missing": _ONLY_IN.format("origin", "target"),
    "extra": _ONLY_IN.format("target", "origin"),
    "mismatched": f"{_IN_BOTH} (a.digest != b.digest OR NOT loosely_agree(a.loose, b.loose))",
    "other_form": f"{_IN_BOTH} a.digest = b.digest AND loosely_agree(a.loose, b.loose) "
    "AND a.form != b.form",
}


# -- rows whose keys do not tell the origin's ----------------------------------------------------


def _judge_by_scans(
    plan: Plan, token_range: TokenRange, origin_rows: int, target_rows: int, rows: _RowFile
) -> RangeVerdict:
    """Judge a range by what the scans have shown."""
    index = token_range.index
    found = {kind: rows.count(kind, index) for kind in KINDS}
    if not plan.tells_origin_token:
        target_rows = origin_rows - found["missing"][0] + found["extra"][0]
    if plan.migration.diff_mode == "origin_only":
        # Rows that are not looked at do not count either, or the counts would never match.
        target_rows -= int(found["extra"][1])
        found["extra"] = (0, 0)
    compared = {c.keys: c for c in (compile_compared(plan, y, "target") for y in plan.layers)}

    def samples(kind: Kind) -> tuple[DifferingRow, ...]:
        keys = rows.keys(kind, index, MAX_SAMPLES) if found[kind][0] else []
        shown = (show_row(compared[count_cells(key)], key) for key in keys)
        if kind != "mismatched":
            return tuple(shown)
        untold = ("(its key does not tell the origin's row)",)
        return tuple(replace(row, columns=untold) for row in shown)

    if plan.migration.compare_form:
        rows_and_statics, forms = found["mismatched"], found["other_form"]
        found["mismatched"] = (rows_and_statics[0] + forms[0], rows_and_statics[1] + forms[1])
    return RangeVerdict(
        token_range=token_range,
        origin_rows=origin_rows,
        target_rows=target_rows,
        missing=found["missing"][0],
        extra=found["extra"][0],
        mismatched=found["mismatched"][0],
        other_form=found["other_form"][0],
        statics=sum(found[kind][0] - int(found[kind][1]) for kind in ("missing", "mismatched")),
        missing_rows=samples("missing"),
        extra_rows=samples("extra"),
        mismatched_rows=samples("mismatched"),
        other_form_rows=samples("other_form"),
    )


# -- rows that can be read again -----------------------------------------------------------------


@dataclass
class _Doubtful:
    """What of a range is still in doubt, and what is known of it by now."""

    token_range: TokenRange
    keys: list[bytes]
    extra: frozenset[bytes]
    findings: Findings
    error: str = ""

    def to_tasks(self, *, last: bool, newer_than_us: int | None) -> Iterator[SettleRows]:
        """Cut the keys into tasks; neighbours stay together, so that they are written together."""
        keys = sorted(self.keys)
        for at in range(0, len(keys), ROWS_A_TASK):
            some = tuple(keys[at : at + ROWS_A_TASK])
            yield SettleRows(
                self.token_range, some, self.extra.intersection(some), last, newer_than_us
            )


def _settle(
    pool: Pool,
    plan: Plan,
    counts: dict[TokenRange, tuple[int, int]],
    rows: _RowFile,
    started_us: int,
    on_progress: Callable[[int, int], None],
) -> Iterator[RangeVerdict]:
    """Read what differs again, some ranges at a time, and repair what is to be repaired."""
    until = time.monotonic() + (plan.migration.ignore_newer_than_seconds or 0)
    waiting: list[_Doubtful] = []
    for number, token_range in enumerate(counts, 1):
        waiting.append(_doubt(plan, token_range, rows))
        if sum(len(each.keys) for each in waiting) < RECHECKED_ROWS and number < len(counts):
            continue
        _look_again(pool, plan, waiting, started_us, until, on_progress)
        for each in waiting:
            yield _to_verdict(each, counts[each.token_range][0])
        waiting = []


def _doubt(plan: Plan, token_range: TokenRange, rows: _RowFile) -> _Doubtful:
    """Choose the rows of a range that are read again: those first that may be repaired."""
    migration = plan.migration
    kinds: list[Kind] = [k for k in KINDS if k != "extra" or migration.diff_mode != "origin_only"]
    found = Findings()
    chosen: dict[Kind, list[bytes]] = {}
    left = RECHECKED_ROWS
    repaired: list[Kind] = [kind for kind in kinds if kind in migration.repair]
    order: list[Kind] = [*repaired, *(kind for kind in kinds if kind not in repaired)]
    for kind in order:
        count, whole_rows = map(int, rows.count(kind, token_range.index))
        chosen[kind] = rows.keys(kind, token_range.index, left) if count and left else []
        left -= len(chosen[kind])
        if beyond := count - len(chosen[kind]):
            key_cells = len(plan.target.primary_key)
            whole_rows -= sum(count_cells(key) == key_cells for key in chosen[kind])
            unchecked = Findings(
                unchecked=beyond,
                statics=beyond - whole_rows if kind != "extra" else 0,
                lacking=whole_rows if kind == "missing" else 0,
                surplus=whole_rows if kind == "extra" else 0,
            )
            if kind != "other_form":
                found += replace(unchecked, **{kind: beyond})
            elif migration.compare_form:
                found += replace(unchecked, other_form=beyond, mismatched=beyond)
            else:
                found += Findings(other_form=beyond)
    keys = [key for some in chosen.values() for key in some]
    return _Doubtful(token_range, keys, frozenset(chosen.get("extra", ())), found)


def _look_again(
    pool: Pool,
    plan: Plan,
    doubtful: list[_Doubtful],
    started_us: int,
    until: float,
    on_progress: Callable[[int, int], None],
) -> None:
    """Look at rows until they agree or time is up; the last look repairs.

    What is written to both sides is there at one a little before it is at the other.
    """
    seconds = plan.migration.ignore_newer_than_seconds
    newer_than_us = None if seconds is None else started_us - seconds * 1_000_000
    patience = 0.0 if seconds is None else min(seconds, LEAST_WAIT_SECONDS)
    until = max(until, time.monotonic() + patience)
    delay = 0.2
    last = False
    while not last and any(each.keys for each in doubtful):
        last = time.monotonic() + delay >= until
        by_range = {each.token_range: each for each in doubtful}
        tasks = [
            task
            for each in doubtful
            for task in each.to_tasks(last=last, newer_than_us=newer_than_us)
        ]
        for each in doubtful:
            each.keys = []
        done = 0
        for event in pool.run(tasks):
            if isinstance(event, Done):
                each = by_range[event.task.token_range]
                each.findings += event.result.findings
                each.keys += event.result.differing
            elif isinstance(event, Failed):
                each = by_range[event.task.token_range]
                told = f"rows that differ could not be read or repaired: {event.reason}"
                each.error = each.error or told
            if isinstance(event, Done | Failed):
                done += 1
                on_progress(done, len(tasks))
        if not last and any(each.keys for each in doubtful):
            time.sleep(delay)
            delay = min(2 * delay, LONGEST_WAIT_SECONDS)


def _to_verdict(each: _Doubtful, origin_rows: int) -> RangeVerdict:
    if each.error:
        return RangeVerdict(token_range=each.token_range, error=each.error)
    found = each.findings
    # Rows that came between the scans are among what was found, not among what was counted.
    judged = found.missing + found.mismatched - found.statics + found.skipped
    origin_rows = max(origin_rows, judged)
    return RangeVerdict(
        token_range=each.token_range,
        origin_rows=origin_rows,
        # Counted from the origin's: scans of a table that is written to count different moments.
        target_rows=origin_rows - found.lacking + found.surplus,
        **vars(found),
    )


def _slices(plan: Plan, side: str, ranges: Sequence[TokenRange]) -> Sequence[TokenRange]:
    """Give the slices to scan: the ranges themselves, or all of a target keyed otherwise.

    Where the target does not tell an origin's token, no range can be compared without the others.
    """
    if plan.keys_agree or (_is_by_range(plan, side) and plan.tells_origin_token):
        return ranges
    return plan.migration.ranges


def _is_by_range(plan: Plan, side: str) -> bool:
    """Say whether a side is read by the origin's ranges, row by row if it has no ranges."""
    return side == "origin" or plan.migration.looks_up


def _locator(
    stores: OpenStores, side: str, token_range: TokenRange, wanted: frozenset[int]
) -> RowLocator:
    plan = stores.plan
    tells = plan.tells_origin_token
    fixed = _is_by_range(plan, side) or plan.keys_agree or not tells
    # The same for every scan of a run, and a thousand ranges have as many windows.
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


def _spoil(errors: dict[int, str], plan: Plan, event: Failed, wanted: frozenset[int]) -> None:
    """Note which ranges have no verdict: one, or all if the scan served all."""
    task = event.task
    fixed = plan.keys_agree or (_is_by_range(plan, task.side) and plan.tells_origin_token)
    for index in (task.token_range.index,) if fixed else wanted:
        errors.setdefault(index, f"the {task.side} could not be scanned: {event.reason}")


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
