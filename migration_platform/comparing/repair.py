"""Rows that differ are repaired, each by its key; every one is compared again afterwards.

What the origin has is written as a copy writes it. What only the target has is deleted: a cell
at its own writetime, at which a tombstone wins, a row as of just before the origin was asked for
it. So nothing is deleted that is newer than what was read, and doing it twice does no harm. A store
that does not tell when a row was written deletes it as it is: the origin lacked it a moment before.
What the origin's read returns exists, whatever bytes its key has: no row is deleted, and no
element, of which the origin holds the same value in another form.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from migration_platform.comparing.rechecks import (
    LayerReads,
    Retried,
    Suspect,
    by_layer,
    find_newer,
    now_us,
    open_reads,
    recheck,
)
from migration_platform.comparing.verdicts import Findings
from migration_platform.copying.copy import copy_single_rows
from migration_platform.cql.rows import Page
from migration_platform.declaration.migration import Migration
from migration_platform.errors import explain
from migration_platform.plan.model import Layer, Plan
from migration_platform.plan.uncounted_times import without_times
from migration_platform.stores.interface import Cells, Deletes, KeyReader, Selection
from migration_platform.stores.work import OpenStores, Report
from migration_platform.token_ranges import TokenRange


@dataclass(frozen=True)
class SettleRows:
    """The task of reading suspect rows of a range again; its result is `Settled`.

    `extra` are those that no filtered scan of the origin has shown.
    Only the `last` look counts what differs, and repairs it where that is declared. Rows with a
    cell that was written after `newer_than_us` are not judged.
    """

    token_range: TokenRange
    keys: tuple[bytes, ...]
    extra: frozenset[bytes] = frozenset()
    last: bool = True
    newer_than_us: int | None = None

    def run(self, stores: OpenStores, report: Report) -> "Settled":
        """Look at the rows, and repair them.

        Raises:
            MigrationError: a row could not be read or written; rows before it may be repaired.
        """

        def on_retry(error: BaseException) -> None:
            report(explain(error))

        suspects = list(recheck(stores, self.keys, self.extra, on_retry))
        findings = Findings()
        if not stores.plan.migration.compare_form:
            # What is no difference needs no later look.
            forms = [suspect for suspect in suspects if suspect.kind == "other_form"]
            findings = sum((_count_form(stores, each) for each in forms), start=findings)
            suspects = [suspect for suspect in suspects if suspect.kind != "other_form"]
        if self.newer_than_us is not None:
            suspects, newer = _leave_out_newer(stores, suspects, self.newer_than_us, on_retry)
            findings += newer
        if not self.last:
            return Settled(findings, tuple(suspect.key for suspect in suspects))
        repaired = _repair(stores, suspects, on_retry, report)
        touched = [s.key for s in suspects if s.key in repaired.touched]
        remaining = {s.key: s for s in recheck(stores, touched, self.extra, on_retry)}
        if self.newer_than_us is not None and remaining:
            old, ignored = _leave_out_newer(
                stores, list(remaining.values()), self.newer_than_us, on_retry, repaired=True
            )
            findings += ignored
            left = {s.key for s in old}
            # It was written again during the repair, so a later look has to judge it.
            suspects = [s for s in suspects if s.key not in remaining or s.key in left]
        for suspect in suspects:
            findings += _count(stores, suspect, repaired, remaining)
        return Settled(findings)


@dataclass(frozen=True)
class Settled:
    """The result for suspect rows; `differing` are those that a later look has to judge."""

    findings: Findings
    differing: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class _Repaired:
    """The rows on which a repair was tried, and extra ones that the origin has."""

    touched: frozenset[bytes]
    kept: frozenset[bytes]


def _leave_out_newer(
    stores: OpenStores,
    suspects: list[Suspect],
    than_us: int,
    on_retry: Retried,
    *,
    repaired: bool = False,
) -> tuple[list[Suspect], Findings]:
    keys = [suspect.key for suspect in suspects]
    newer = find_newer(stores, keys, than_us, on_retry, repaired=repaired)
    left_out = [suspect for suspect in suspects if suspect.key in newer]
    # Static cells are no rows that were read.
    reads = {suspect.key for suspect in left_out if not _is_static(stores, suspect.key)}
    skipped = sum(s.kind != "extra" and s.key in reads for s in left_out)
    return [suspect for suspect in suspects if suspect.key not in newer], Findings(
        ignored_newer=len(left_out), skipped=skipped
    )


def _is_static(stores: OpenStores, key: bytes) -> bool:
    ((reads, _),) = by_layer(open_reads(stores), [key])
    return reads.layer.name == "statics"


def _count(
    stores: OpenStores,
    suspect: Suspect,
    repaired: _Repaired,
    remaining: dict[bytes, Suspect],
) -> Findings:
    key, kind = suspect.key, suspect.kind
    if kind == "other_form":
        return _count_form(stores, suspect)
    touched, kept = key in repaired.touched, key in repaired.kept
    after = (remaining[key].kind if key in remaining else "agree") if touched else kind
    # What is there in another form is there: a write need not change the form of a key.
    settled = ("agree",) if stores.plan.migration.compare_form else ("agree", "other_form")
    corrected, static = after in settled, _is_static(stores, key)
    shown = replace(suspect.shown, corrected=corrected)
    defeated = touched and not corrected
    counts = Findings(
        defeated=int(defeated),
        defeated_rows=(remaining[key].shown,) if defeated else (),
        kept=int(kept),
        kept_rows=(shown,) if kept else (),
        statics=int(static and kind != "extra"),
        lacking=int(after == "missing" and not static),
        surplus=int(after == "extra" and not static),
    )
    by_kind = {kind: 1, f"{kind}_rows": (shown,), f"corrected_{kind}": int(corrected)}
    counts = replace(counts, **by_kind)
    if after != "other_form":
        return counts
    return counts + Findings(other_form=1, other_form_rows=(remaining[key].shown,))


def _count_form(stores: OpenStores, suspect: Suspect) -> Findings:
    """Count a row that holds the same values in other bytes: a difference only if forms count."""
    found = Findings(other_form=1, other_form_rows=(suspect.shown,))
    if not stores.plan.migration.compare_form:
        return found
    is_static = _is_static(stores, suspect.key)
    return replace(found, mismatched=1, mismatched_rows=(suspect.shown,), statics=int(is_static))


# -- repairing -----------------------------------------------------------------------------------


def repairs_kind(migration: Migration, layer: Layer, kind: str) -> bool:
    """Say whether a difference is one that the declaration wants repaired.

    A counter that is missing may have been deleted at the target: that takes `counters`.
    """
    if kind == "other_form":
        return False
    if layer.has_counters and "counters" in migration.repair and kind != "extra":
        return True
    return kind in migration.repair and not (layer.has_counters and kind == "missing")


def _repair(
    stores: OpenStores, suspects: Sequence[Suspect], on_retry: Retried, report: Report
) -> _Repaired:
    plan = stores.plan
    if not plan.migration.repair or not suspects:
        return _Repaired(frozenset(), frozenset())
    # A row that cannot be written would stop the repair of the others.
    kinds = {suspect.key: suspect.kind for suspect in suspects if suspect.is_writable}
    touched: set[bytes] = set()
    kept: set[bytes] = set()
    for reads, keys in by_layer(open_reads(stores), list(kinds)):
        chosen = [key for key in keys if repairs_kind(plan.migration, reads.layer, kinds[key])]
        written = [key for key in chosen if kinds[key] != "extra"]
        extra = [key for key in chosen if kinds[key] == "extra"]
        if written:
            changed = [key for key in written if kinds[key] == "mismatched"]
            # Where rows are written as a whole, what they lack is gone.
            whole = plan.migration.target.abilities.writes_whole_rows
            if changed and not (reads.layer.has_counters or whole):
                _delete_surplus(stores, reads, changed, on_retry)
            _write_rows(stores, reads, written, on_retry, report)
        gone = _delete_rows(stores, reads, extra, on_retry) if extra else set()
        kept.update(set(extra) - gone)
        touched.update(written, gone)
    return _Repaired(frozenset(touched), frozenset(kept))


def _write_rows(
    stores: OpenStores,
    reads: LayerReads,
    keys: Sequence[bytes],
    on_retry: Retried,
    report: Report,
) -> None:
    """Copy some rows again; of a map whose entries are rows, all of its entries."""
    plan, writing = stores.plan, stores
    if plan.migration.repair_writetime == "now":
        cache = stores.cache.setdefault("repair with new times", {})
        writing = replace(stores, plan=with_new_times(plan), cache=cache)

    def read(selection: Selection) -> Iterator[Page]:
        name = f"repair {reads.layer.name}"
        if name not in stores.cache:
            stores.cache[name] = stores.origin.prepare_keys(
                plan,
                replace(selection, where=reads.origin.where),
                reads.origin.rows.origin_keys(plan),
            )
        reader: KeyReader = stores.cache[name]
        for _, page in reader.rows(keys, stores.reading("origin", on_retry)):
            if page.row_count:
                yield page

    again = "counters" not in plan.migration.repair
    copy_single_rows(
        writing, reads.layer, read, lambda counts: report(counts.last_retry), again=again
    )


def with_new_times(plan: Plan) -> Plan:
    """Give a plan whose writes get new writetimes, so that they win."""
    return replace(plan, migration=without_times(plan.migration, ("writetime",)))


# -- deleting ------------------------------------------------------------------------------------


def _delete_rows(
    stores: OpenStores, reads: LayerReads, keys: Sequence[bytes], on_retry: Retried
) -> set[bytes]:
    """Delete rows that the origin does not have, filtered or not; give those that were deleted.

    A row that is written to the target after the origin was asked stays, where the target can tell.
    """
    before_us = now_us()
    side = reads.unfiltered
    gone = [
        key
        for key, page in side.read.rows(keys, stores.reading("origin", on_retry))
        if not side.may_hold(page, key)
    ]
    _open_deletes(stores, reads).delete_rows(gone, before_us, stores.writing(on_retry))
    return set(gone)


def _delete_surplus(
    stores: OpenStores, reads: LayerReads, keys: Sequence[bytes], on_retry: Retried
) -> None:
    """Delete cells and elements of the target's rows that the origin's do not have."""
    origin = reads.origin

    def read_origin(some: Sequence[bytes]) -> Iterator[Cells | None]:
        for key, page in origin.read.rows(some, stores.reading("origin", on_retry)):
            yield next((row[1] for row in origin.rows.cells(page) if row[0] == key), None)

    _open_deletes(stores, reads).delete_surplus(keys, read_origin, stores.writing(on_retry))


def _open_deletes(stores: OpenStores, reads: LayerReads) -> Deletes:
    name = f"delete {reads.layer.name}"
    found: Deletes | None = stores.cache.get(name)
    if found is None:
        rows, loose = reads.target.rows, reads.origin.rows.loose
        found = stores.cache[name] = stores.target.prepare_deletes(
            stores.plan,
            rows.selection,
            rows.target_keys,
            [(n, s) for n, s in enumerate(rows.sources) if not s.is_key and n not in loose],
        )
    return found
