"""Counters: copied by adding what the target lacks, because no counter can be set.

A write that was not answered may have been counted: it is never sent again. The target is read
once more, when the server must have given it up, and the difference is taken anew.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any

from cassandra import ConsistencyLevel, Unavailable
from cassandra.cluster import ResponseFuture
from cassandra.protocol import (
    ExecuteMessage,
    IsBootstrappingErrorMessage,
    OverloadedErrorMessage,
)
from cassandra.query import UNSET_VALUE, PreparedStatement

from migration_platform.cql.names import quote
from migration_platform.cql.rows import Page, split_cells
from migration_platform.errors import PermanentError, explain, is_about_row
from migration_platform.pacing.rate import RateBudget
from migration_platform.pacing.retries import Attempts
from migration_platform.plan.model import Layer, Plan, Source
from migration_platform.stores.cassandra.connection import Connection, Key, page_of
from migration_platform.stores.cassandra.reads import read_rows
from migration_platform.stores.cassandra.writes import WRITES_IN_FLIGHT, prepare_update

SETTLE_SECONDS = 10.0
"""Twice Cassandra's own counter_write_request_timeout: an unanswered write is applied or dropped
by then."""
_LONG = Struct(">q")
_NOT_APPLIED = (Unavailable, OverloadedErrorMessage, IsBootstrappingErrorMessage)


@dataclass(frozen=True)
class CounterTable:
    """What is prepared once to copy a layer of counters: `sources` are its key, then counters."""

    read: PreparedStatement
    update: PreparedStatement
    sources: tuple[Source, ...]
    keys: int


@dataclass
class CounterCounts:
    """Rows whose counters are now the origin's, and rows left alone."""

    equal: int = 0
    left_alone: int = 0


def counter_order(plan: Plan, layer: Layer) -> tuple[Source, ...]:
    """Give a layer's sources as its counters are read: the target's key, then the counters."""
    key = plan.target.primary_key if layer.name == "rows" else plan.target.partition_key
    return layer.ordered(key)


def prepare_counters(
    connection: Connection, plan: Plan, layer: Layer, *, retry_seconds: float
) -> CounterTable:
    """Prepare the read of a row of counters and the addition to it."""
    sources = counter_order(plan, layer)
    keys = [source.target for source in sources if source.is_key]
    counters = [(s.target, s.target_type) for s in sources if not s.is_key]
    condition = " AND ".join(f"{quote(name)} = ?" for name in keys)
    selected = ", ".join(quote(name) for name, _ in counters)
    return CounterTable(
        connection.prepare(
            f"SELECT {selected} FROM {plan.target.name} WHERE {condition}",  # noqa: S608
            retry_seconds=retry_seconds,
        ),
        prepare_update(
            connection, plan.target, keys, counters, using="", retry_seconds=retry_seconds
        ).prepared,
        sources,
        len(keys),
    )


def add_differences(
    connection: Connection,
    table: CounterTable,
    rows: Iterable[bytes],
    *,
    again: bool,
    consistency: str,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: Callable[[BaseException], None],
    on_rejected: Callable[[list[bytes | None], PermanentError], None] | None = None,
) -> CounterCounts:
    """Make the target's counters equal to those of some rows of the origin.

    With `again` these rows were copied before: a counter that the target lacks was deleted there,
    and is left alone, because a deleted counter must not be brought back. A row that the server
    rejects for its values, so that nothing was added, is handed to `on_rejected`.

    Raises:
        PermanentError, TransientError: a counter could not be read or written.
    """
    counts = CounterCounts()
    pending = [split_cells(row, len(table.sources)) for row in rows]
    attempts = Attempts(retry_seconds)
    while pending:
        keyed = [(cells, cells[: table.keys]) for cells in pending]
        there = read_rows(
            connection,
            table.read,
            keyed,
            consistency=consistency,
            retry_seconds=retry_seconds,
            on_retry=on_retry,
            on_rejected=on_rejected,
        )
        failed = _add_once(connection, table, there, again, consistency, budget, counts)
        if on_rejected:
            for cells, error in failed:
                if is_about_row(error):
                    on_rejected(cells, PermanentError(explain(error)))
            failed = [(cells, error) for cells, error in failed if not is_about_row(error)]
        pending = [cells for cells, _ in failed]
        if failed:
            errors = [error for _, error in failed]
            delay = max(attempts.delay_after(error) for error in errors)
            on_retry(errors[-1])
            if not all(isinstance(error, _NOT_APPLIED) for error in errors):
                delay = max(delay, SETTLE_SECONDS)
            time.sleep(delay)
    return counts


Cells = list[bytes | None]


def _add_once(
    connection: Connection,
    table: CounterTable,
    there: Iterable[tuple[Cells, Page]],
    again: bool,
    consistency: str,
    budget: RateBudget,
    counts: CounterCounts,
) -> list[tuple[Cells, Exception]]:
    """Send each difference once; give the rows for which it is unknown whether it was counted."""
    failed: list[tuple[Cells, Exception]] = []
    flying: deque[tuple[Cells, ResponseFuture, bool]] = deque()
    # What failed is sent to the hosts in turn: the one that failed need not be asked again.
    route = connection.router(table.update) if not again else lambda _: None

    def settle() -> None:
        cells, future, gone = flying.popleft()
        try:
            page_of(future)
        except Exception as error:
            failed.append((cells, error))
        else:
            _count(counts, gone)

    for cells, page in there:
        origin = cells[table.keys :]
        target: Cells = [None] * len(origin)
        if page.row_count:
            target = split_cells(page.data, len(origin))
        differences, gone = _differences(origin, target, again)
        if all(difference is None for difference in differences):
            _count(counts, gone)
            continue
        if len(flying) >= WRITES_IN_FLIGHT:
            settle()
        budget.take(1, sum(len(cell or b"") for cell in cells))
        values: list[Any] = [UNSET_VALUE if d is None else _LONG.pack(d) for d in differences]
        values += cells[: table.keys]
        query = route(values)
        flying.append((cells, _add(connection, table, values, query, consistency), gone))
    while flying:
        settle()
    return failed


def _count(counts: CounterCounts, gone: bool) -> None:
    counts.left_alone += gone
    counts.equal += not gone


def _differences(here: Cells, there: Cells, again: bool) -> tuple[list[int | None], bool]:
    """Give what is to be added to each counter, and whether one of them is left alone."""
    differences: list[int | None] = []
    gone = False
    for origin, target in zip(here, there, strict=True):
        if origin is None or origin == target:
            differences.append(None)
        elif target is None and again:
            differences.append(None)
            gone = True
        else:
            difference = _number(origin) - (0 if target is None else _number(target))
            # Counters wrap around at 64 bits, as the server's do.
            differences.append((difference + 2**63) % 2**64 - 2**63)
    return differences, gone


def _number(cell: bytes) -> int:
    return _LONG.unpack(cell)[0]


def _add(
    connection: Connection,
    table: CounterTable,
    values: list[Any],
    query: Key | None,
    consistency: str,
) -> ResponseFuture:
    message = ExecuteMessage(
        table.update.query_id,
        values,
        getattr(ConsistencyLevel, consistency),
        skip_meta=True,
        result_metadata_id=table.update.result_metadata_id,
    )
    future = connection.send(message, query=query, statement=table.update)
    future.send_request()
    return future
