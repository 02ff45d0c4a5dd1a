"""Lightweight transactions that nobody finished, finished before rows are read.

Replicas may have agreed on an update whose coordinator died before it told them to carry it out. A
read at a quorum does not see it, and a serial read of its partition, by whomever and whenever,
carries it out: a row then changes at the origin after it was copied. So each partition is read
serially first. One that such an update is the first to write shows in no table yet, but in what
each replica notes of its promises, `system.paxos`, whose keys have the table's own tokens.
"""

# The driver carries no types.
# pyright: reportOptionalMemberAccess=false

import time
from collections.abc import Callable, Iterator
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.cluster import Host
from cassandra.query import PreparedStatement

from migration_platform.cql.names import quote
from migration_platform.cql.rows import split_cells
from migration_platform.pacing.retries import Attempts
from migration_platform.plan.model import Plan, Table
from migration_platform.stores.cassandra.connection import near_hosts
from migration_platform.stores.cassandra.reads import (
    RangeRead,
    prepare_range_read,
    read_pages,
    read_rows,
)
from migration_platform.stores.work import OpenStores
from migration_platform.token_ranges import TokenRange, split_key

PROMISES = (
    "SELECT row_key, cf_id, proposal_ballot, most_recent_commit_at FROM system.paxos "
    "WHERE token(row_key) >= ? AND token(row_key) <= ?"
)
"""What a node has promised and accepted; only the node itself can be asked."""
PROMISES_A_PAGE = 1_000

Retried = Callable[[BaseException], None]


def serial_level(consistency: str) -> str:
    """Give the serial level that reaches as far as another one."""
    return "LOCAL_SERIAL" if consistency.startswith("LOCAL_") else "SERIAL"


def keyed_level(plan: Plan) -> str:
    """Give the level at which single rows of the origin are read."""
    origin = plan.migration.origin
    serially = origin.finish_transactions and not plan.has_counters
    return serial_level(origin.consistency) if serially else origin.consistency


def finish_transactions(stores: OpenStores, piece: TokenRange, on_retry: Retried) -> int:
    """Read each partition of a piece serially, where that is declared; give their number.

    Raises:
        PermanentError, TransientError: a partition, or what a node has promised, was not read.
    """
    migration = stores.plan.migration
    if not migration.origin.finish_transactions or stores.plan.has_counters:
        return 0
    seconds = migration.retry_seconds
    tools: tuple[RangeRead, PreparedStatement] | None = stores.cache.get("transactions")
    if tools is None:
        tools = stores.cache["transactions"] = _prepare(stores)
    keys_read, serial_read = tools
    count = 0
    for key, page in read_rows(
        stores.origin,
        serial_read,
        ((key, key) for key in _keys(stores, keys_read, piece, on_retry)),
        consistency=serial_level(migration.origin.consistency),
        retry_seconds=seconds,
        on_retry=on_retry,
    ):
        del key
        stores.origin_budget.take(1, len(page.data))
        count += 1
    return count


def _prepare(stores: OpenStores) -> tuple[RangeRead, PreparedStatement]:
    table, seconds = stores.plan.origin, stores.plan.migration.retry_seconds
    return (
        prepare_range_read(
            stores.origin, table, table.partition_key, statics=True, retry_seconds=seconds
        ),
        stores.origin.prepare(serial_select(table), retry_seconds=seconds),
    )


def serial_select(table: Table) -> str:
    """Write the read of a partition that finishes what is unfinished in it; it gives little."""
    names = ", ".join(map(quote, table.partition_key))
    condition = " AND ".join(f"{quote(name)} = ?" for name in table.partition_key)
    return f"SELECT {names} FROM {table.name} WHERE {condition} LIMIT 1"  # noqa: S608


def _keys(
    stores: OpenStores, read: RangeRead, piece: TokenRange, on_retry: Retried
) -> Iterator[list[bytes | None]]:
    """Give the keys of the partitions that are there, and of those that may come to be."""
    migration, width = stores.plan.migration, len(stores.plan.origin.partition_key)
    yield from _promised(stores, piece, on_retry)
    for page in read_pages(
        stores.origin,
        read,
        piece,
        consistency=migration.origin.consistency,
        fetch_size=migration.origin.fetch_size,
        budget=stores.origin_budget,
        retry_seconds=migration.retry_seconds,
        on_retry=on_retry,
    ):
        cells = split_cells(page.data, page.row_count * width)
        for at in range(0, len(cells), width):
            yield list(cells[at : at + width])


def _promised(
    stores: OpenStores, piece: TokenRange, on_retry: Retried
) -> Iterator[list[bytes | None]]:
    """Give the keys of a piece of which a node has accepted what it has not carried out."""
    connection, table = stores.origin, stores.plan.origin
    seconds = stores.plan.migration.retry_seconds
    bound = connection.prepare(PROMISES, retry_seconds=seconds).bind(piece.bounds)
    bound.consistency_level = ConsistencyLevel.ONE
    bound.fetch_size = PROMISES_A_PAGE
    seen: set[bytes] = set()
    for host in near_hosts(connection):
        for key, table_id, accepted, done in _ask_node(stores, bound, host, on_retry):
            is_open = accepted is not None and (done is None or done.time < accepted.time)
            if str(table_id) == table.table_id and is_open and key not in seen:
                seen.add(key)
                yield list(split_key(key, len(table.partition_key)))


def _ask_node(
    stores: OpenStores, bound: Any, host: Host, on_retry: Retried
) -> Iterator[tuple[Any, ...]]:
    """Read from one node, page by page; one that is away is asked for nothing.

    What a majority has accepted, each majority of those that are left knows.
    """
    session, state = stores.origin.session, None
    while True:
        attempts = Attempts(stores.plan.migration.retry_seconds)
        while True:
            try:
                found = session.execute(bound, host=host, paging_state=state)
                break
            except Exception as error:
                if not host.is_up:
                    return
                delay = attempts.delay_after(error)
                on_retry(error)
                time.sleep(delay)
        yield from found.current_rows
        state = found.paging_state
        if state is None:
            return
