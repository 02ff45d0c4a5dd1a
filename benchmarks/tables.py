"""Tables as the benchmarks fill and read them: with this package's writer and pages, no budget."""

import multiprocessing
from collections.abc import Iterator, Sequence

from benchmarks.measuring import say
from benchmarks.peers import TOKEN_RANGES
from migration_platform.cql.names import TableName, quote
from migration_platform.cql.rows import Page
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.reads import prepare_range_read, read_pages
from migration_platform.stores.cassandra.writes import Writer, WriteStatement, prepare_insert
from migration_platform.token_ranges import split_ring

RETRY_SECONDS = 60.0
QUORUM = "LOCAL_QUORUM"
COUNT_TIMEOUT_SECONDS = 120
COUNT_PAGE_ROWS = 1_000


def prepare_rows(connection: Connection, table: Table, columns: Sequence[str]) -> WriteStatement:
    """Prepare the write of rows."""
    return prepare_insert(connection, table, columns, using="", retry_seconds=RETRY_SECONDS)


def open_writer(
    connection: Connection,
    table: Table,
    statement: WriteStatement,
    *,
    consistency: str = QUORUM,
    budget: RateBudget | None = None,
    kind: type[Writer] = Writer,
) -> Writer:
    """Make a writer of rows; what has to be tried again is told, since it spoils a figure."""
    return kind(
        connection,
        [statement],
        table,
        consistency=consistency,
        budget=budget or no_budget(),
        retry_seconds=RETRY_SECONDS,
        on_retry=tell_retry,
    )


def read_table(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    *,
    times: Sequence[str] = (),
    ranges: int = TOKEN_RANGES,
    page_rows: int | None = None,
    consistency: str = QUORUM,
    metadata: bool = False,
) -> Iterator[Page]:
    """Give a table's pages, range by range; with `metadata` each describes its columns."""
    read = prepare_range_read(
        connection, table, tuple(columns), times=times, retry_seconds=RETRY_SECONDS
    )
    if metadata:
        read.statement.result_metadata = None
    for token_range in split_ring(ranges):
        yield from read_pages(
            connection,
            read,
            token_range,
            consistency=consistency,
            fetch_size=page_rows,
            budget=no_budget(),
            retry_seconds=RETRY_SECONDS,
            on_retry=tell_retry,
        )


def count_rows(connection: Connection, name: TableName) -> int:
    """Count a table's rows, range by range: all of it would time out."""
    table = connection.cluster.metadata.keyspaces[name.keyspace].tables[name.table]  # type: ignore
    key = ", ".join(quote(column.name) for column in table.partition_key)
    count = connection.session.prepare(
        f"SELECT count(*) FROM {name} WHERE token({key}) > ? AND token({key}) <= ?"
    )
    # The server counts in such pages: it reads no more than so many tombstones for one.
    count.fetch_size = COUNT_PAGE_ROWS
    total = 0
    for each in split_ring(TOKEN_RANGES):
        bounds = (each.start, each.end)
        answer = connection.session.execute(count, bounds, timeout=COUNT_TIMEOUT_SECONDS)
        total += answer.one()[0]
    return total


def no_budget() -> RateBudget:
    """Give a budget without a limit."""
    return RateBudget(multiprocessing.get_context("spawn"))


def tell_retry(error: BaseException) -> None:
    """Tell of what spoils a figure."""
    say(f"  tried again: {error}")
