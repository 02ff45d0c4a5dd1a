"""Every row that differs, one by one and with its whole key, where a verdict shows some of them.

It compares as the verdict does and repairs nothing. Memory holds some thousand keys, however many
rows differ.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from migration_platform.comparing.compared_rows import ComparedRows, compile_compared
from migration_platform.comparing.diff import Heard, fill_rows, row_file, scan_ranges
from migration_platform.comparing.rechecks import (
    UNWRITABLE,
    Kind,
    LayerReads,
    Suspect,
    find_newer,
    now_us,
    open_reads,
    recheck,
    show_in_short,
)
from migration_platform.comparing.row_file import RowFile
from migration_platform.comparing.verdicts import DifferingRow
from migration_platform.cql.keys import MASKED, NO_KEY, key_condition
from migration_platform.cql.names import quote
from migration_platform.cql.rows import Page, count_cells, split_cells
from migration_platform.cql.samples import show_literal, without_values
from migration_platform.cql.types import parse_type
from migration_platform.errors import explain
from migration_platform.plan.model import Plan, Source
from migration_platform.stores.interface import Cells
from migration_platform.stores.work import Failed, OpenStores, Pool, Report, Reported
from migration_platform.token_ranges import TokenRange

ROWS_A_TASK = 1_000
TASKS_AT_ONCE = 16
ROWS_A_REPORT = 50
"""So few, because with their values each may have some megabytes."""
UNTOLD = "(its key does not tell the origin's row)"


@dataclass(frozen=True)
class Showing:
    """What is shown of a row besides its key; `masked` are columns of either side, never shown."""

    values: bool = False
    masked_at_origin: frozenset[str] = frozenset()
    masked_at_target: frozenset[str] = frozenset()

    def masked(self, sources: Sequence[Source]) -> frozenset[str]:
        """Name the target's columns of which no value is shown."""
        return frozenset(
            source.target
            for source in sources
            if source.origin in self.masked_at_origin or source.target in self.masked_at_target
        )


@dataclass(frozen=True)
class Difference:
    """A row that differs, or the static cells of a partition; `key` is CQL behind WHERE.

    `columns` are those that differ. `origin` and `target` are values as CQL: of a row that both
    have the differing ones, of another all.
    """

    token_range: TokenRange
    kind: Kind
    statics: bool
    key: str
    columns: tuple[str, ...] = ()
    origin: str = ""
    target: str = ""


@dataclass(frozen=True)
class NotCompared:
    """A range of which not all is known, and why."""

    token_range: TokenRange
    reason: str


@dataclass(frozen=True)
class ListRows:
    """The task of reading suspect rows of a range again; it reports those that differ.

    `extra` are those that no filtered scan of the origin has shown. Rows with a cell that was
    written after `newer_than_us` are left out.
    """

    token_range: TokenRange
    keys: tuple[bytes, ...]
    extra: frozenset[bytes]
    showing: Showing
    newer_than_us: int | None = None

    def run(self, stores: OpenStores, report: Report) -> None:
        """Look at the rows; some at a time are reported.

        Raises:
            MigrationError: a row could not be read.
        """

        def on_retry(error: BaseException) -> None:
            report(explain(error))

        show = partial(_show_whole, self.showing)
        suspects = recheck(stores, self.keys, self.extra, on_retry, show)
        while some := list(islice(suspects, ROWS_A_REPORT)):
            if not stores.plan.migration.compare_form:
                some = [each for each in some if each.kind != "other_form"]
            if self.newer_than_us is not None:
                keys = [each.key for each in some]
                newer = find_newer(stores, keys, self.newer_than_us, on_retry)
                some = [each for each in some if each.key not in newer]
            reads = open_reads(stores)
            report([self._tell(reads[count_cells(each.key)], each) for each in some])

    def _tell(self, reads: LayerReads, found: Suspect) -> Difference:
        shown = found.shown
        here, there = (
            ", ".join(f"{name}={values[side]}" for name, *values in shown.changes)
            for side in (0, 1)
        )
        return Difference(
            self.token_range,
            found.kind,
            reads.layer.name == "statics",
            shown.key,
            shown.columns,
            "" if found.kind == "extra" else here,
            "" if found.kind == "missing" else there,
        )


def list_differences(
    pool: Pool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    showing: Showing,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    winners: str | None = None,
    on_retry: Callable[[str], None] = lambda reason: None,
) -> Iterator[Difference | NotCompared]:
    """Compare the ranges and give each row that differs; the arguments are `diff_ranges`'."""
    seconds = plan.migration.ignore_newer_than_seconds
    newer_than_us = None if seconds is None else now_us() - seconds * 1_000_000
    heard = Heard(pool, on_retry)
    scanned = scan_ranges(heard, plan, ranges, on_progress, winners)
    yield from (
        NotCompared(r, scanned.errors[r.index]) for r in ranges if r.index in scanned.errors
    )
    looked_into = scanned.looked_into(ranges)
    if not looked_into:
        return
    with row_file(plan) as rows:
        errors = fill_rows(heard, plan, looked_into, scanned, rows, on_progress, winners)
        for token_range in looked_into:
            if token_range.index in errors:
                yield NotCompared(token_range, errors[token_range.index])
            elif plan.tells_origin_row:
                yield from _look_again(heard, plan, token_range, rows, showing, newer_than_us)
            else:
                yield from _tell_scans(plan, token_range, rows, showing)


def _kinds(plan: Plan) -> list[Kind]:
    kinds: list[Kind] = ["missing", "mismatched"]
    if plan.migration.diff_mode != "origin_only":
        kinds.append("extra")
    if plan.migration.compare_form:
        kinds.append("other_form")
    return kinds


def _batches(
    rows: RowFile, token_range: TokenRange, kinds: Sequence[Kind]
) -> Iterator[tuple[Kind, list[bytes]]]:
    for kind in kinds:
        after = b""
        while keys := rows.keys(kind, token_range.index, ROWS_A_TASK, after):
            after = keys[-1]
            yield kind, keys


def _look_again(
    pool: Pool,
    plan: Plan,
    token_range: TokenRange,
    rows: RowFile,
    showing: Showing,
    newer_than_us: int | None,
) -> Iterator[Difference | NotCompared]:
    failed = ""
    tasks = (
        ListRows(
            token_range,
            tuple(keys),
            frozenset(keys if kind == "extra" else ()),
            showing,
            newer_than_us,
        )
        for kind, keys in _batches(rows, token_range, _kinds(plan))
    )
    while some := list(islice(tasks, TASKS_AT_ONCE)):
        for event in pool.run(some):
            if isinstance(event, Reported) and isinstance(event.value, list):
                yield from event.value
            elif isinstance(event, Failed):
                failed = failed or event.reason
    if failed:
        yield NotCompared(token_range, f"rows that differ could not be read: {failed}")


def _tell_scans(
    plan: Plan, token_range: TokenRange, rows: RowFile, showing: Showing
) -> Iterator[Difference]:
    """Give what the scans have shown, where keys do not tell the origin's rows."""
    compared = {c.keys: c for c in (compile_compared(plan, y, "target") for y in plan.layers)}
    for kind, keys in _batches(rows, token_range, _kinds(plan)):
        for key in keys:
            found = compared[count_cells(key)]
            columns = (UNTOLD,) if kind in ("mismatched", "other_form") else ()
            shown = _condition(found, key, showing)
            yield Difference(token_range, kind, found.statics, shown, columns)


# -- showing -------------------------------------------------------------------------------------


def _condition(rows: ComparedRows, key: bytes, showing: Showing) -> str:
    sources = rows.sources[: rows.keys]
    cells = split_cells(key, rows.keys)
    told = key_condition(
        [(s.target, s.target_type, cell) for s, cell in zip(sources, cells, strict=True)],
        showing.masked(rows.sources),
    )
    unformed = any(cell is not None and cell.startswith(NO_KEY) for cell in cells)
    return without_values(told) if unformed and not showing.values else told


def _show_whole(
    showing: Showing, reads: LayerReads, key: bytes, kind: Kind, page: Page, other: Page
) -> DifferingRow:
    """Show a row's whole key and, if wanted, its values; a verdict's samples are cut."""
    rows = reads.target.rows
    columns = show_in_short(reads, key, kind, page, other).columns
    shown = DifferingRow(_condition(rows, key, showing), columns)
    if not showing.values or columns == (UNWRITABLE,):
        return shown
    here, there = (
        next((row[1] for row in side.rows.cells(found) if row[0] == key), None)
        for side, found in ((reads.origin, page), (reads.target, other))
    )
    masked = showing.masked(rows.sources)
    changes = tuple(
        (
            quote(source.target),
            _show_value(source, here, position, masked),
            _show_value(source, there, position, masked),
        )
        for position, source in enumerate(rows.sources)
        if not source.is_key
        and (kind in ("missing", "extra") or quote(source.target) in _bare(columns))
    )
    return replace(shown, changes=changes)


def _bare(columns: Sequence[str]) -> set[str]:
    """Name the columns also of which only the writetime or the TTL differs."""
    return {
        name.removeprefix(what).removesuffix(")") if name.startswith(what) else name
        for name in columns
        for what in ("writetime(", "ttl(")
    }


def _show_value(source: Source, cells: Cells | None, position: int, masked: frozenset[str]) -> str:
    if cells is None or (cell := cells[position]) is None:
        return "null"
    if source.target in masked:
        return MASKED
    return show_literal(cell, parse_type(source.target_type))
