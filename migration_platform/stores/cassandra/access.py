"""What the servers let this run do: asked of them before it begins, with nothing written.

A server looks at a request in this order: may this role, is the statement allowed, is the level
allowed, are the values right. So a write whose key is null is refused for everything that would be
refused for every row, and else for its null. A read of one token is a read like all others. What
concerns some rows only, or passes, is left to the run.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence

from cassandra import ConsistencyLevel, Unauthorized
from cassandra.query import UNSET_VALUE, PreparedStatement

from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.migration import Endpoint
from migration_platform.errors import (
    MigrationError,
    explain,
    is_about_row,
    is_transient,
)
from migration_platform.plan.model import Plan, Table
from migration_platform.plan.row_form import build_form
from migration_platform.stores.cassandra.connection import MAX_PAGE_ROWS, Connection
from migration_platform.stores.cassandra.counters import prepare_counters
from migration_platform.stores.cassandra.reads import prepare_range_read
from migration_platform.stores.cassandra.row_writes import prepare_writes
from migration_platform.stores.cassandra.transactions import PROMISES, serial_level, serial_select
from migration_platform.stores.interface import Uses

_WAYS_OUT = {
    "user_timestamps": "set writetime: now and leave out diff.repair, or let the servers take "
    "timestamps (user_timestamps_enabled)",
    "write_consistency_levels": "choose another target.consistency",
    "read_consistency_levels": "choose another {side}.consistency",
    "page_size": "set origin.fetch_size to no more than that",
    "allow_filtering": "leave out filter.where, or let the servers filter "
    "(allow_filtering_enabled)",
}
"""What helps against a guardrail of a server, by its name."""

_DENIED = re.compile(r"User (.+) has no (\w+) permission on <table (\w+)\.(.+?)> or any")


def validate_reads(plan: Plan, origin: Connection, uses: Uses) -> Iterator[str]:
    """Refuse reads of the origin that the server would refuse of every range."""
    migration = plan.migration
    if not (uses.copying or uses.comparing):
        return
    where = migration.filter.where
    yield from validate_table_read(plan, origin, plan.origin, migration.origin, where)
    if migration.origin.finish_transactions and not plan.has_counters:
        yield from _validate_serial_reads(plan, origin)


def validate_writes(plan: Plan, target: Connection, uses: Uses) -> Iterator[str]:
    """Refuse reads and writes of the target that the server would refuse of every row."""
    migration = plan.migration
    # Counters and lists are read before they are written.
    reads_first = plan.has_counters or any(
        build_form(plan, layer, layer.ordered(())).lists for layer in plan.layers
    )
    if uses.comparing or (uses.copying and reads_first):
        yield from validate_table_read(plan, target, plan.target, migration.target, None)
    repairing = uses.comparing and bool(migration.repair)
    if uses.copying or repairing:
        yield from _validate_table_write(plan, target, repairing=repairing)


def validate_table_read(
    plan: Plan, connection: Connection, table: Table, endpoint: Endpoint, where: str | None
) -> Iterator[str]:
    """Refuse a read that the server would refuse of every range, for the user or by its settings.

    One token is read, with as large a page as the run will ask for.
    """
    side = "origin" if endpoint is plan.migration.origin else "target"
    wanted = plan.migration.origin.fetch_size or MAX_PAGE_ROWS

    def ask() -> None:
        read = prepare_range_read(
            connection, table, table.partition_key, where=where, retry_seconds=0.0
        )
        bound = read.statement.bind((0, 0))
        bound.consistency_level = getattr(ConsistencyLevel, endpoint.consistency)
        bound.fetch_size = min(wanted, endpoint.rows_per_second or wanted)
        connection.session.execute(bound)

    yield from _try_request(ask, f"reading {table.name} at {endpoint.store}", side)


def _validate_serial_reads(plan: Plan, connection: Connection) -> Iterator[str]:
    """Read a node's promises for one token, and serially the partition of a null key."""
    endpoint = plan.migration.origin

    def ask_promises() -> None:
        bound = connection.prepare(PROMISES).bind((0, 0))
        bound.consistency_level = ConsistencyLevel.ONE
        connection.session.execute(bound)

    def ask_serially() -> None:
        statement = connection.prepare(serial_select(plan.origin))
        bound = statement.bind([None] * len(plan.origin.partition_key))
        bound.consistency_level = getattr(ConsistencyLevel, serial_level(endpoint.consistency))
        connection.session.execute(bound)

    what = f"reading system.paxos at {endpoint.store} for origin.finish_transactions"
    yield from _try_request(ask_promises, what, "origin")
    what = f"reading {plan.origin.name} at {endpoint.store} serially"
    yield from _try_request(ask_serially, what, "origin", with_null=True)


def _validate_table_write(plan: Plan, connection: Connection, *, repairing: bool) -> Iterator[str]:
    """Send every kind of write with a null key; prepare what only a repair does."""
    layer, endpoint = plan.rows, plan.migration.target
    what = f"writing {plan.target.name} at {endpoint.store}"
    prepared: list[PreparedStatement] = []

    def prepare() -> None:
        if plan.has_counters:
            prepared.append(prepare_counters(connection, plan, layer, retry_seconds=0.0).update)
            return
        form = build_form(plan, layer, layer.ordered(plan.copy_leading))
        writes = prepare_writes(connection, plan, form, retry_seconds=0.0)
        prepared.extend(write.prepared for write in writes)
        if repairing:
            key = " AND ".join(f"{quote(name)} = ?" for name in plan.target.primary_key)
            prepared.append(
                connection.prepare(
                    f"DELETE FROM {plan.target.name} USING TIMESTAMP ? WHERE {key}"  # noqa: S608
                )
            )

    yield from _try_request(prepare, what, "target")
    for statement in prepared:

        def ask(statement: PreparedStatement = statement) -> None:
            names = [column.name for column in statement.column_metadata or ()]
            bound = statement.bind([_value_of(name, plan.target.primary_key) for name in names])
            bound.consistency_level = getattr(ConsistencyLevel, endpoint.consistency)
            connection.session.execute(bound)

        yield from _try_request(ask, what, "target", with_null=True)


def _value_of(name: str, key: Sequence[str]) -> object:
    if name in key:
        return None
    if name == "[timestamp]":
        return time.time_ns() // 1000
    return 0 if name == "[ttl]" else UNSET_VALUE


def _try_request(
    ask: Callable[[], None], what: str, side: str, *, with_null: bool = False
) -> Iterator[str]:
    """Send a request, and yield why the server refuses it; an error of the null alone is none."""
    try:
        ask()
    except MigrationError as error:
        # A statement that cannot be prepared.
        cause = error.__cause__
        if cause is None or not is_transient(cause):
            yield _tell(cause or error, what, side)
    except Exception as error:
        is_nulls = with_null and (is_about_row(error) or "null value" in str(error))
        if not is_transient(error) and not is_nulls:
            yield _tell(error, what, side)


def _tell(error: BaseException, what: str, side: str) -> str:
    said = explain(error)
    if isinstance(error, Unauthorized) and (found := _DENIED.search(said)):
        role, permission, keyspace, table = found.groups()
        name = TableName(keyspace, table)
        return f"{what} is refused: GRANT {permission} ON TABLE {name} TO {quote(role)}"
    guardrail = re.search(r"Guardrail (\w+) violated", said)
    way_out = _WAYS_OUT.get(guardrail[1], "") if guardrail else ""
    return f"{what} is refused: {said}" + (f"; {way_out.format(side=side)}" if way_out else "")
