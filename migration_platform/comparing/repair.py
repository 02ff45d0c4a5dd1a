"""Rows that differ are put right, each by its key; every one is compared again afterwards.

What the origin has is written as a copy writes it. What only the target has is deleted: a cell
at its own writetime, at which a tombstone wins, a row as of just before the origin was asked for
it. So nothing is deleted that is newer than what was read, and doing it twice does no harm. An item
of DynamoDB is deleted as it is: the origin lacked its row a moment before. What the origin's read
returns exists, whatever bytes its key has: no row is deleted, and no element, of which the origin
holds the same value in another form.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from struct import Struct

from cassandra import ConsistencyLevel
from cassandra.cluster import ResponseFuture
from cassandra.protocol import ExecuteMessage
from cassandra.query import PreparedStatement

from migration_platform.comparing.rechecks import (
    KeyedRead,
    LayerReads,
    Retried,
    Side,
    Suspect,
    by_layer,
    find_newer,
    now_us,
    open_reads,
    prepare_keyed_read,
    read_side,
    recheck,
)
from migration_platform.comparing.verdicts import Findings
from migration_platform.copying.copy import copy_single_rows
from migration_platform.cql.cell_times import TimesLayout
from migration_platform.cql.elements import read_elements, read_entries, read_fields
from migration_platform.cql.forms import comparable_element, order_is_known
from migration_platform.cql.names import quote
from migration_platform.cql.rows import INT32, Page, split_cells
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.declaration.migration import Migration
from migration_platform.errors import explain
from migration_platform.pacing.retries import Attempts
from migration_platform.plan.model import Layer, Plan, Source
from migration_platform.plan.preflight import times_layout
from migration_platform.plan.uncounted_times import without_times
from migration_platform.stores.cassandra.connection import Key, page_of
from migration_platform.stores.cassandra.writes import WRITES_IN_FLIGHT
from migration_platform.stores.dynamodb.rows import ItemRead, delete_rows
from migration_platform.stores.work import OpenStores, Report
from migration_platform.token_ranges import TokenRange

_LONG = Struct(">q")
CELLS_AT_ONCE = 48
"""Rows of the target that are held until the origin was asked for them."""


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
            # Written anew while it was repaired: nobody can say yet what is right.
            suspects = [s for s in suspects if s.key not in remaining or s.key in left]
        for suspect in suspects:
            findings += _count(stores, suspect, repaired, remaining)
        return Settled(findings)


@dataclass(frozen=True)
class Settled:
    """What became of suspect rows; `differing` are those that a later look is to judge."""

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
    # A row that cannot be written would keep those beside it from being repaired.
    kinds = {suspect.key: suspect.kind for suspect in suspects if suspect.is_writable}
    touched: set[bytes] = set()
    kept: set[bytes] = set()
    for reads, keys in by_layer(open_reads(stores), list(kinds)):
        chosen = [key for key in keys if repairs_kind(plan.migration, reads.layer, kinds[key])]
        written = [key for key in chosen if kinds[key] != "extra"]
        extra = [key for key in chosen if kinds[key] == "extra"]
        if written:
            changed = [key for key in written if kinds[key] == "mismatched"]
            # An item is written as a whole; what it lacks is gone. A table of keys has no cells.
            if changed and not (reads.layer.has_counters or plan.migration.target.dynamodb):
                _remove_cells(stores, reads, changed, on_retry)
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
        writing = replace(stores, plan=_with_new_times(plan), cache=cache)

    def read(selected: tuple[str, ...]) -> Iterator[Page]:
        name = f"repair {reads.layer.name}"
        if name not in stores.cache:
            rows = reads.origin.rows
            stores.cache[name] = prepare_keyed_read(
                stores.origin, plan, rows, selected, is_origin=True, where=reads.origin.where
            )
        for _, page in read_side(stores, "origin", stores.cache[name], keys, on_retry):
            if page.row_count:
                yield page

    again = "counters" not in plan.migration.repair
    copy_single_rows(
        writing, reads.layer, read, lambda counts: report(counts.last_retry), again=again
    )


def _with_new_times(plan: Plan) -> Plan:
    """Give the plan with which everything that is written is the newest."""
    return replace(plan, migration=without_times(plan.migration, ("writetime",)))


# -- deleting rows -------------------------------------------------------------------------------


def _delete_rows(
    stores: OpenStores, reads: LayerReads, keys: Sequence[bytes], on_retry: Retried
) -> set[bytes]:
    """Delete rows that the origin does not have, filtered or not; give those that were deleted.

    A row that is written to the target after the origin was asked stays.
    """
    before_us = now_us()
    side = reads.unfiltered
    gone = [
        key
        for key, page in read_side(stores, "origin", side.read, keys, on_retry)
        if not side.may_hold(page, key)
    ]
    target = reads.target
    if isinstance(target.read, ItemRead):
        delete_rows(stores, target.read, gone, on_retry)
        return set(gone)
    name = f"delete {reads.layer.name}"
    if name not in stores.cache:
        statics = [s.target for s in target.rows.sources if not s.is_key]
        what = ", ".join(map(quote, statics)) if target.rows.statics else ""
        stores.cache[name] = _prepare_delete(stores, reads, what)
    delete: PreparedStatement = stores.cache[name]
    _send(
        stores,
        ((delete, [_LONG.pack(before_us), *target.read.bind(key)]) for key in gone),
        on_retry,
    )
    return set(gone)


def _prepare_delete(stores: OpenStores, reads: LayerReads, what: str) -> PreparedStatement:
    table = stores.plan.target
    key_names = table.partition_key if reads.target.rows.statics else table.primary_key
    condition = " AND ".join(f"{quote(name)} = ?" for name in key_names)
    return stores.target_cluster.prepare(
        f"DELETE {what} FROM {table.name} USING TIMESTAMP ? WHERE {condition}",
        retry_seconds=stores.plan.migration.retry_seconds,
    )


def _send(
    stores: OpenStores,
    requests: Iterable[tuple[PreparedStatement, list[bytes | None]]],
    on_retry: Retried,
) -> None:
    """Send deletions to the target, a bounded number at a time; each may be sent twice.

    Raises:
        PermanentError, TransientError: one of them could not be written.
    """
    migration = stores.plan.migration

    def ask(
        statement: PreparedStatement, values: list[bytes | None], query: Key | None
    ) -> ResponseFuture:
        message = ExecuteMessage(
            statement.query_id,
            values,
            getattr(ConsistencyLevel, migration.target.consistency),
            skip_meta=True,
            result_metadata_id=statement.result_metadata_id,
        )
        future = stores.target_cluster.send(message, query=query, statement=statement)
        future.send_request()
        return future

    flying: deque[tuple[PreparedStatement, list[bytes | None], ResponseFuture]] = deque()

    def settle() -> None:
        statement, values, future = flying.popleft()
        attempts = Attempts(migration.retry_seconds)
        while True:
            try:
                page_of(future)
            except Exception as error:
                delay = attempts.delay_after(error)
                on_retry(error)
                time.sleep(delay)
                # Of the hosts in turn: the one that failed need not be asked again.
                future = ask(statement, values, None)
            else:
                return

    router = cache(stores.target_cluster.router)
    for statement, values in requests:
        if len(flying) >= WRITES_IN_FLIGHT:
            settle()
        stores.target_budget.take(1)
        flying.append((statement, values, ask(statement, values, router(statement)(values))))
    while flying:
        settle()


# -- deleting cells ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TargetCells:
    """The read of the target's value cells as they are, with their writetimes."""

    read: KeyedRead
    names: tuple[str, ...]
    times: TimesLayout


def _remove_cells(
    stores: OpenStores, reads: LayerReads, keys: Sequence[bytes], on_retry: Retried
) -> None:
    """Delete cells, elements, entries and fields that only the target has.

    Each is deleted at its own writetime. Where the target does not tell those of elements, it is
    the moment at which they were read: what is written later stays, too.
    """
    there = _target_cells(stores, reads)
    origin, rows = reads.origin, reads.origin.rows
    values = [(n, s) for n, s in enumerate(rows.sources) if not s.is_key and n not in rows.loose]

    def deletions() -> Iterator[tuple[PreparedStatement, list[bytes | None]]]:
        for (key, page), (_, other_page) in _read_origin_last(
            stores, origin, there, keys, on_retry
        ):
            cells = next((row[1] for row in rows.cells(page) if row[0] == key), None)
            if cells is None or not other_page.row_count:
                continue
            found = _with_times(there, other_page)
            assert isinstance(reads.target.read, KeyedRead)
            bound = reads.target.read.bind(key)
            for position, source in values:
                cell, writetimes = found[source.target]
                if cell is None:
                    continue
                for what, element, writetime in _surplus(
                    source, cells[position], cell, writetimes, other_page.asked_us
                ):
                    statement = _deletion(stores, reads, what)
                    yield statement, [*element, _LONG.pack(writetime), *bound]

    _send(stores, deletions(), on_retry)


def _read_origin_last(
    stores: OpenStores,
    origin: Side,
    there: _TargetCells,
    keys: Sequence[bytes],
    on_retry: Retried,
) -> Iterator[tuple[tuple[bytes, Page], tuple[bytes, Page]]]:
    """Give each row of the origin as it is after the target's was read.

    Whoever writes to both writes to the origin first: what the target has by then and the origin
    still lacks was not written in between.
    """
    for first in range(0, len(keys), CELLS_AT_ONCE):
        some = keys[first : first + CELLS_AT_ONCE]
        other = list(read_side(stores, "target", there.read, some, on_retry))
        here = read_side(stores, "origin", origin.read, some, on_retry)
        yield from zip(here, other, strict=True)


def _target_cells(stores: OpenStores, reads: LayerReads) -> _TargetCells:
    name = f"cells {reads.layer.name}"
    found: _TargetCells | None = stores.cache.get(name)
    if found is None:
        rows = reads.target.rows
        names = tuple(source.target for source in rows.sources if not source.is_key)
        times = times_layout(rows.table, names, ttls=False)
        selected = (*map(quote, names), *times.selections())
        read = prepare_keyed_read(
            stores.target_cluster, stores.plan, rows, selected, is_origin=False
        )
        found = stores.cache[name] = _TargetCells(read, names, times)
    return found


Writetimes = int | list[int | None] | None
"""A cell's writetime, or those of its elements; None where the server does not tell them."""


def _with_times(there: _TargetCells, page: Page) -> dict[str, tuple[bytes | None, Writetimes]]:
    timed = (*there.times.simple, *there.times.multi)
    cells = split_cells(page.data, len(there.names) + len(timed))
    values, times = cells[: len(there.names)], cells[len(there.names) :]
    known: dict[str, Writetimes] = {}
    for name, cell in zip(timed, times, strict=True):
        if name in there.times.multi:
            known[name] = _read_writetimes(cell)
        elif cell is not None:
            known[name] = _LONG.unpack(cell)[0]
    return {n: (v, known.get(n)) for n, v in zip(there.names, values, strict=True)}


def _read_writetimes(cell: bytes | None) -> list[int | None]:
    if not cell:
        return []
    times = split_cells(cell[4:], INT32.unpack_from(cell)[0])
    return [None if each is None else _LONG.unpack(each)[0] for each in times]


Surplus = tuple[str, list[bytes | None], int]
"""What a DELETE names, what is bound there, and the writetime of the tombstone."""


def _surplus(
    source: Source, here: bytes | None, there: bytes, writetimes: Writetimes, asked_us: int
) -> Iterator[Surplus]:
    """Give what the target's cell has and the origin's has not."""
    cql_type, name = parse_type(source.target_type), quote(source.target)
    if not cql_type.is_multicell:
        if here is None:
            assert isinstance(writetimes, int)
            yield name, [], writetimes
        return
    known = writetimes if isinstance(writetimes, list) else []
    if cql_type.name == "list":
        # An element's name is its own, so nothing but the whole list can be meant.
        if here is None:
            yield name, [], max((at for at in known if at is not None), default=asked_us)
        return
    parts = _parts(there, cql_type)
    times = [asked_us if at is None else at for at in known or [None] * len(parts)]
    if cql_type.name == "udt":
        fields = _parts(here, cql_type) if here else [None] * len(parts)
        for (field, _), own, other, at in zip(cql_type.fields, fields, parts, times, strict=True):
            if own is None and other is not None:
                yield f"{name}.{quote(field)}", [], at
        return
    # Elements that the server takes for one are one, whatever their bytes.
    inner = cql_type.parameters[0]
    comparable = comparable_element(inner)
    wanted = [] if here is None else [p for p in _parts(here, cql_type) if p is not None]
    mine = {comparable(part) for part in wanted}
    if not order_is_known(inner) and not mine <= {comparable(p) for p in parts if p is not None}:
        # One of what the origin has may be there in bytes of which only the server knows.
        return
    for part, at in zip(parts, times, strict=True):
        if part is not None and comparable(part) not in mine:
            yield f"{name}[?]", [part], at


def _parts(value: bytes, cql_type: CqlType) -> list[bytes | None]:
    """Give what has a cell of its own: a set's elements, a map's keys, the fields of a type."""
    if cql_type.name == "udt":
        return read_fields(value, len(cql_type.fields))
    if cql_type.name == "map":
        return [key for key, _ in read_entries(value)]
    return read_elements(value)


def _deletion(stores: OpenStores, reads: LayerReads, what: str) -> PreparedStatement:
    name = f"delete {reads.layer.name} {what}"
    if name not in stores.cache:
        stores.cache[name] = _prepare_delete(stores, reads, what)
    return stores.cache[name]
