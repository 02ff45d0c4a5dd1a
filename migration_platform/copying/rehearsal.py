"""A copy without its writes: every row is read, filtered and converted, and the result counted.

It finds what no look at the schemas can: cells beyond the guardrails, values that cannot be
converted, keys that are null, and rows that would land on one another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from migration_platform.copying.collisions import Collisions, FoundKey, KeyFile
from migration_platform.copying.transform import compile_rows, select_origin
from migration_platform.counts import MAX_SAMPLES, RangeCounts, Tally
from migration_platform.cql.cell_times import read_row_time
from migration_platform.cql.keys import show_key
from migration_platform.cql.rows import NULL, split_cells
from migration_platform.plan.model import Layer, Plan, Source
from migration_platform.stores.kinds import kind_of
from migration_platform.stores.work import Done, Event, Failed, OpenStores, Pool, Report, Reported
from migration_platform.token_ranges import TokenRange


@dataclass(frozen=True)
class RehearseRange:
    """The task of reading a range as a copy would; with `gathers_keys` target keys are reported.

    Its result is the range's `RangeCounts`, in which nothing is written. Rows that cannot be
    converted are counted as rejected, all of them.
    """

    token_range: TokenRange
    gathers_keys: bool = False

    def run(self, stores: OpenStores, report: Report) -> RangeCounts:
        """Read the range.

        Raises:
            MigrationError: a page could not be read.
        """
        plan = _only_reporting(stores.plan)
        window = plan.migration.filter.window(self.token_range)
        counts = RangeCounts()
        if window is not None:
            for layer in plan.layers:
                counts += _read_layer(stores, plan, layer, window, self.gathers_keys, report)
        return counts


@dataclass(frozen=True)
class Rehearsal:
    """The result that a copy would have: counts, collisions, and the ranges that would fail."""

    counts: RangeCounts = field(default_factory=RangeCounts)
    collisions: Collisions = field(default_factory=Collisions)
    failed: tuple[tuple[TokenRange, str], ...] = ()


def rehearse(
    pool: Pool,
    plan: Plan,
    ranges: Sequence[TokenRange],
    keys: Path | None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Rehearsal:
    """Read the ranges as a copy would; `on_event` is told of each that begins and ends.

    `keys` is where the keys that several rows have are kept, for the copy to ask; it makes sense
    with all ranges only, because rows of one may land on a row of another.

    Raises:
        MigrationError: the disk is full.
    """
    file = KeyFile(keys, plan) if keys else None
    counts, failed, done = RangeCounts(), [], 0
    tasks = [RehearseRange(token_range, file is not None) for token_range in ranges]
    try:
        for event in pool.run(tasks):
            on_event(event)
            if isinstance(event, Reported) and file:
                file.add(event.value)
            elif isinstance(event, Failed):
                failed.append((event.task.token_range, event.reason))
            elif isinstance(event, Done):
                counts += event.result
                if reason := _too_many(plan, event.result):
                    failed.append((event.task.token_range, reason))
            if isinstance(event, Done | Failed):
                done += 1
                on_progress(done, len(tasks))
        collisions = file.judge() if file else Collisions()
    finally:
        if file:
            file.close()
    return Rehearsal(counts, collisions, tuple(failed))


def _too_many(plan: Plan, counts: RangeCounts) -> str:
    """Say how many rows of a range cannot be written; empty if so many may be rejected."""
    found, limit = counts.set_aside + counts.statics_set_aside, plan.migration.dead_letters_max_rows
    if found <= limit:
        return ""
    more = f", and {found - 1:,} more" if found > 1 else ""
    over = f"; dead_letters.max_rows is {limit:,}" if limit else ""
    return f"{counts.set_aside_samples[0]}{more}{over}"


def _only_reporting(plan: Plan) -> Plan:
    """Count large cells instead of failing on them; rows that a copy skips stay skipped."""
    guardrails = plan.migration.guardrails
    if guardrails is None or guardrails.action != "fail":
        return plan
    told = replace(plan.migration, guardrails=replace(guardrails, action="report"))
    return replace(plan, migration=told)


def _read_layer(
    stores: OpenStores,
    plan: Plan,
    layer: Layer,
    window: TokenRange,
    gathers_keys: bool,
    report: Report,
) -> RangeCounts:
    is_rows = layer.name == "rows"
    keys: list[tuple[bytes, bytes]] = []

    def note(target_key: bytes, origin_key: bytes) -> bool:
        keys.append((target_key, origin_key))
        return True

    gathers_keys = gathers_keys and is_rows
    sources = layer.ordered(plan.target.primary_key)
    wins = note if gathers_keys else None
    reader = compile_rows(plan, layer, sources, 0, null=NULL, wins=wins)
    ranges = stores.origin.prepare_ranges(plan, select_origin(plan, layer, reader))
    bad, samples = 0, []

    def note_bad(told: str) -> None:
        nonlocal bad
        bad += 1
        if len(samples) < MAX_SAMPLES:
            samples.append(told)

    tally, read, size = Tally(reject=lambda row: note_bad(str(row))), 0, 0
    reject = _compile_reject(plan, layer, sources)
    for page in ranges.pages(window, stores.reading("origin", lambda _: None)):
        found: list[FoundKey] = []
        for _, values, times, _ in reader.rows(page, tally):
            if reject is not None and (why := reject(values)):
                note_bad(why)
            if gathers_keys:
                # A row without a known writetime counts as older than every other.
                found.append((*keys[-1], read_row_time(times, 0)[0] or 0))
        keys.clear()
        if found:
            report(found)
        read += page.row_count
        size += len(page.data)
    counts = RangeCounts(
        set_aside_samples=tuple(samples),
        large_cells=tuple(sorted(tally.large.items())),
        large_samples=tuple(tally.large_samples),
        bytes_read=size,
    )
    if not is_rows:
        return replace(counts, statics_set_aside=bad)
    return replace(
        counts,
        read=read,
        added=tally.added,
        skipped=tally.skipped,
        set_aside=bad,
        filtered=tally.filtered,
        too_large=tally.too_large,
    )


def _compile_reject(
    plan: Plan, layer: Layer, sources: Sequence[Source]
) -> Callable[[bytes], str] | None:
    """Build what says why the target cannot hold a row, given its cells; empty if it can."""
    find_why = kind_of(plan.migration.target.kind).compile_rejection(plan, layer, sources)
    if find_why is None:
        return None

    def reject(values: bytes) -> str:
        cells = split_cells(values, len(sources))
        why = find_why(cells)
        if not why:
            return ""
        key = [
            (source.target, source.target_type, cell)
            for source, cell in zip(sources, cells, strict=True)
            if source.is_key
        ]
        return f"the row {show_key(key)} was rejected: {why}"

    return reject
