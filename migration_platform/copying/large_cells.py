"""Cells of a table that are too large: every row is read and measured, and none is written.

There is no target. The plan's target is the origin itself, so that each column is filled by
itself, and a rehearsal of that plan reads every cell as it is.
"""

from migration_platform.declaration.migration import Endpoint, Filter, Guardrails, Migration
from migration_platform.errors import PreflightError
from migration_platform.plan.model import Plan
from migration_platform.plan.preflight import plan_tables
from migration_platform.stores.cassandra.access import object_to_read
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.placement import object_to_place
from migration_platform.stores.cassandra.planning import (
    object_to_hidden,
    object_to_ring,
    object_to_where,
)
from migration_platform.stores.cassandra.tables import describe_table


def declare_check(
    origin: Endpoint,
    max_column_kb: int,
    *,
    token_ranges: int = Migration.token_ranges,
    workers: int | None = None,
    chosen: Filter = Filter(),  # noqa: B008, it is frozen
    tracking: bool = True,
    tracking_keyspace: str = Migration.tracking_keyspace,
    retry_seconds: float = Migration.retry_seconds,
) -> Migration:
    """Declare that rows with a cell of more than so many kB (1000 bytes) are counted.

    Raises:
        DeclarationError: one message with everything that is wrong.
    """
    return Migration(
        origin,
        # At the consistency that every table allows: nothing is written at it.
        Endpoint(origin.store, origin.table),
        token_ranges=token_ranges,
        workers=workers,
        writetime="now",
        ttl="none",
        filter=chosen,
        # Rows that are skipped for a large cell are counted once, however many of them they have.
        guardrails=Guardrails(max_column_kb, "skip"),
        tracking=tracking,
        tracking_keyspace=tracking_keyspace,
        retry_seconds=retry_seconds,
        reads_only=True,
    )


def plan_check(migration: Migration, origin: Connection) -> Plan:
    """Hold a check against the table that is really there.

    Raises:
        PreflightError: one message with every reason why it cannot run.
    """
    table = describe_table(origin, migration.origin.table)
    plan, objections = plan_tables(migration, table, table)
    place = object_to_place(origin, table, migration.origin, is_target=False)
    objections = [*place, *object_to_ring(migration, table), *objections]
    if plan is not None:
        objections += object_to_where(plan, origin)
        objections += object_to_hidden(plan, origin)
    if plan is not None and not objections:
        where = migration.filter.where
        objections += object_to_read(plan, origin, plan.origin, migration.origin, where)
    if objections or plan is None:
        raise PreflightError(f"{migration.name} cannot be checked: " + "; ".join(objections))
    return plan
