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
from collections.abc import Iterator
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.cluster import Host

from migration_platform.cql.names import quote
from migration_platform.cql.rows import split_cells
from migration_platform.pacing.retries import Attempts
from migration_platform.plan.model import Plan, Table
from migration_platform.stores.cassandra.connection import Connection, near_hosts
from migration_platform.stores.cassandra.reads import (
    prepare_range_read,
    read_pages,
    read_rows,
)
from migration_platform.stores.interface import Pace
from migration_platform.token_ranges import TokenRange, split_key

PROMISES = (
    "SELECT row_key, cf_id, proposal_ballot, most_recent_commit_at FROM system.paxos "
    "WHERE token(row_key) >= ? AND token(row_key) <= ?"
)
"""What a node has promised and accepted; only the node itself can be asked."""
PROMISES_A_PAGE = 1_000


def serial_level(consistency: str) -> str:
    """Give the serial level that reaches as far as another one."""
    return "LOCAL_SERIAL" if consistency.startswith("LOCAL_") else "SERIAL"


def keyed_level(plan: Plan) -> str:
    """Give the level at which single rows of the origin are read."""
    origin = plan.migration.origin
    serially = origin.finish_transactions and not plan.has_counters
    return serial_level(origin.consistency) if serially else origin.consistency


def finish_transactions(connection: Connection, plan: Plan, piece: TokenRange, pace: Pace) -> int:
    """Read each partition of a piece serially, where that is declared; give their number.

    Raises:
        PermanentError, TransientError: a partition, or what a node has promised, was not read.
    """
    migration = plan.migration
    if not migration.origin.finish_transactions or plan.has_counters:
        return 0
    serial_read = connection.prepare(serial_select(plan.origin), retry_seconds=pace.retry_seconds)
    count = 0
    for key, page in read_rows(
        connection,
        serial_read,
        ((key, key) for key in _keys(connection, plan, piece, pace)),
        consistency=serial_level(migration.origin.consistency),
        retry_seconds=pace.retry_seconds,
        on_retry=pace.on_retry,
    ):
        del key
        pace.budget.take(1, len(page.data))
        count += 1
    return count


def serial_select(table: Table) -> str:
    """Write the read of a partition that finishes what is unfinished in it; it gives little."""
    names = ", ".join(map(quote, table.partition_key))
    condition = " AND ".join(f"{quote(name)} = ?" for name in table.partition_key)
    return f"SELECT {names} FROM {table.name} WHERE {condition} LIMIT 1"  # noqa: S608


def _keys(
    connection: Connection, plan: Plan, piece: TokenRange, pace: Pace
) -> Iterator[list[bytes | None]]:
    """Give the keys of the partitions that are there, and of those that may come to be."""
    table, declared = plan.origin, plan.migration.origin
    width = len(table.partition_key)
    yield from _promised(connection, table, piece, pace)
    read = prepare_range_read(
        connection, table, table.partition_key, statics=True, retry_seconds=pace.retry_seconds
    )
    for page in read_pages(
        connection,
        read,
        piece,
        consistency=declared.consistency,
        fetch_size=declared.fetch_size,
        budget=pace.budget,
        retry_seconds=pace.retry_seconds,
        on_retry=pace.on_retry,
    ):
        cells = split_cells(page.data, page.row_count * width)
        for at in range(0, len(cells), width):
            yield list(cells[at : at + width])


def _promised(
    connection: Connection, table: Table, piece: TokenRange, pace: Pace
) -> Iterator[list[bytes | None]]:
    """Give the keys of a piece of which a node has accepted what it has not carried out."""
    bound = connection.prepare(PROMISES, retry_seconds=pace.retry_seconds).bind(piece.bounds)
    bound.consistency_level = ConsistencyLevel.ONE
    bound.fetch_size = PROMISES_A_PAGE
    seen: set[bytes] = set()
    for host in near_hosts(connection):
        for key, table_id, accepted, done in _ask_node(connection, bound, host, pace):
            is_open = accepted is not None and (done is None or done.time < accepted.time)
            if str(table_id) == table.table_id and is_open and key not in seen:
                seen.add(key)
                yield list(split_key(key, len(table.partition_key)))


def _ask_node(
    connection: Connection, bound: Any, host: Host, pace: Pace
) -> Iterator[tuple[Any, ...]]:
    """Read from one node, page by page; one that is away is asked for nothing.

    What a majority has accepted, each majority of those that are left knows.
    """
    session, state = connection.session, None
    while True:
        attempts = Attempts(pace.retry_seconds)
        while True:
            try:
                found = session.execute(bound, host=host, paging_state=state)
                break
            except Exception as error:
                if not host.is_up:
                    return
                delay = attempts.delay_after(error)
                pace.on_retry(error)
                time.sleep(delay)
        yield from found.current_rows
        state = found.paging_state
        if state is None:
            return
