"""The tables in which runs and their ranges are noted, beside the target.

`cdm_run_info` and `cdm_run_details` are those of the Cassandra Data Migrator, with its states and
texts, so that its monitoring queries work. `migration_runs` says to which migration and Dagster run
a tracked run belongs.
"""

# The driver carries no types.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.query import PreparedStatement

from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.migration import Migration
from migration_platform.errors import MigrationError
from migration_platform.pacing.retries import ask_patiently
from migration_platform.stores.records import Records, TableForm, ensure_tables

STATEMENT_SECONDS = 10.0
WRITES_IN_FLIGHT = 128

TABLES = {
    "cdm_run_info": TableForm(
        {
            "table_name": "text",
            "run_id": "bigint",
            "run_type": "text",
            "prev_run_id": "bigint",
            "start_time": "timestamp",
            "end_time": "timestamp",
            "run_info": "text",
            "status": "text",
        },
        "table_name, run_id",
    ),
    "cdm_run_details": TableForm(
        {
            "table_name": "text",
            "run_id": "bigint",
            "start_time": "timestamp",
            "token_min": "bigint",
            "token_max": "bigint",
            "status": "text",
            "run_info": "text",
        },
        "(table_name, run_id), token_min",
    ),
    "migration_runs": TableForm(
        {
            "migration": "text",
            "run_id": "bigint",
            "table_name": "text",
            "run_type": "text",
            "dagster_run_id": "text",
            "fingerprint": "text",
            "comparison": "text",
            "prev_run_id": "bigint",
            "emptied": "boolean",
            "begun": "timestamp",
            "last_seen": "timestamp",
            "settled": "boolean",
        },
        "migration, run_id",
        "CLUSTERING ORDER BY (run_id DESC)",
    ),
}


class TrackingTables:
    """The tables of a tracking keyspace: reads, and writes that are tried again for a while.

    Writes of a run are sent without waiting; `flush` waits for them. Each carries its own time,
    so that one that is sent again never undoes a later one.
    """

    def __init__(
        self, connection: Records, keyspace: str, *, consistency: str, retry_seconds: float
    ):
        self.keyspace = keyspace
        self.retry_seconds = retry_seconds
        self._connection = connection
        self._consistency = getattr(ConsistencyLevel, consistency)
        self._statements: dict[str, PreparedStatement] = {}
        self._sent: deque[tuple[Any, Any]] = deque()
        self._lock = threading.Lock()
        self._last_us = 0

    def read(
        self,
        table: str,
        *,
        retry_seconds: float | None = None,
        chosen: Sequence[str] = ("*",),
        **key: Any,
    ) -> list[dict[str, Any]]:
        """Read the rows with this key, or with its first columns; columns by name.

        `chosen` is what is selected of them, as CQL.
        """
        where = " AND ".join(f"{quote(column)} = ?" for column in key)
        cql = f"SELECT {', '.join(chosen)} FROM {TableName(self.keyspace, table)}" + (  # noqa: S608
            f" WHERE {where}" if where else ""
        )
        rows: list[dict[str, Any]] = []
        page: bytes | None = None
        while True:
            result = self._execute(cql, list(key.values()), retry_seconds, page)
            names: list[str] = list(result.column_names or ())
            rows += [dict(zip(names, row, strict=True)) for row in result.current_rows]
            page = result.paging_state
            if page is None:
                return rows

    def write(self, table: str, **values: Any) -> None:
        """Send a row's columns, without waiting for the answer."""
        while len(self._sent) >= WRITES_IN_FLIGHT:
            self._settle_first()
        bound = self._bind(self._insert(table, values), [*values.values(), self._next_us()])
        self._sent.append((self._connection.session.execute_async(bound, STATEMENT_SECONDS), bound))

    def write_now(self, table: str, *, retry_seconds: float | None = None, **values: Any) -> None:
        """Write a row's columns and wait for the answer; for any thread."""
        cql = self._insert(table, values)
        self._execute(cql, [*values.values(), self._next_us()], retry_seconds)

    def flush(self) -> None:
        """Wait until everything that was sent is acknowledged.

        Raises:
            PermanentError, TransientError: a write was refused, or not answered for too long.
        """
        while self._sent:
            self._settle_first()

    def _settle_first(self) -> None:
        future, bound = self._sent[0]
        try:
            self._patiently(future.result, self.retry_seconds, lambda: self._run(bound))
        except MigrationError:
            self._sent.popleft()
            raise
        # One that an interruption of the run left without its answer stays to be waited for.
        self._sent.popleft()

    def _insert(self, table: str, values: Mapping[str, Any]) -> str:
        columns = ", ".join(values)
        marks = ", ".join("?" * len(values))
        return (
            f"INSERT INTO {TableName(self.keyspace, table)} ({columns}) "  # noqa: S608
            f"VALUES ({marks}) USING TIMESTAMP ?"
        )

    def _next_us(self) -> int:
        with self._lock:
            self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
            return self._last_us

    def _bind(self, cql: str, values: Sequence[Any]) -> Any:
        statement = self._statements.get(cql)
        if statement is None:
            prepare = self._connection.session.prepare
            statement = self._patiently(lambda: prepare(cql), self.retry_seconds)
            self._statements[cql] = statement
        bound = statement.bind(values)
        bound.consistency_level = self._consistency
        return bound

    def _execute(
        self,
        cql: str,
        values: Sequence[Any],
        retry_seconds: float | None,
        page: bytes | None = None,
    ) -> Any:
        bound = self._bind(cql, values)
        seconds = self.retry_seconds if retry_seconds is None else retry_seconds
        return self._patiently(lambda: self._run(bound, page), seconds)

    def _run(self, bound: Any, page: bytes | None = None) -> Any:
        session = self._connection.session
        # Further pages are requested by the code that retries, never by the driver.
        return session.execute(bound, timeout=STATEMENT_SECONDS, paging_state=page)

    def _patiently(
        self, ask: Callable[[], Any], seconds: float, again: Callable[[], Any] | None = None
    ) -> Any:
        what = f"the tracking keyspace {quote(self.keyspace)} cannot be used"
        return ask_patiently(ask, seconds, what, again)


def open_tables(
    connection: Records, migration: Migration, more: Mapping[str, TableForm] | None = None
) -> TrackingTables:
    """Make sure of a migration's tracking tables, and give them.

    Raises:
        PreflightError: they cannot be made; one sentence with the way out.
    """
    ensure_tables(
        connection,
        migration.tracking_keyspace,
        TABLES | dict(more or {}),
        like=migration.tracked_at.table.keyspace,
        retry_seconds=migration.retry_seconds,
    )
    return tables_of(connection, migration, migration.retry_seconds)


def tables_of(connection: Records, migration: Migration, retry_seconds: float) -> TrackingTables:
    """Give a migration's tracking tables, which may or may not be there."""
    return TrackingTables(
        connection,
        migration.tracking_keyspace,
        consistency=migration.tracked_at.consistency,
        retry_seconds=retry_seconds,
    )
