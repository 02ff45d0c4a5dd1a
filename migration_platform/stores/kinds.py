"""Plans of migrations to whatever kind of store."""

from collections.abc import Callable

from migration_platform.declaration.migration import Migration
from migration_platform.errors import PreflightError
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.fidelity import Fidelity, describe_cells
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.planning import build_plan
from migration_platform.stores.cassandra.tables import truncate
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.fidelity import describe_items
from migration_platform.stores.dynamodb.retries import OnRetry
from migration_platform.stores.dynamodb.shape import create_target, plan_items
from migration_platform.stores.dynamodb.tables import describe
from migration_platform.stores.dynamodb.writes import empty_table


def make_plan(migration: Migration, origin: Connection, target: Connection | DynamoDb) -> Plan:
    """Hold a migration against the tables that are really there; nothing is made.

    Raises:
        PreflightError: one message with every reason why it cannot run.
    """
    if isinstance(target, DynamoDb):
        return plan_items(migration, origin, target)
    return build_plan(migration, origin, target)


def make_target(
    plan: Plan, origin: Connection, target: Connection | DynamoDb, report: Callable[[str], None]
) -> Plan:
    """Create the target's table where it is missing and may be; give the plan of what is there.

    Raises:
        PreflightError: it cannot be created.
    """
    if plan.target.table_id or not isinstance(target, DynamoDb):
        return plan
    create_target(target, plan, report)
    return plan_items(plan.migration, origin, target)


def refuse_missing_target(plan: Plan) -> None:
    """Refuse to work with a table that is still to be created.

    Raises:
        PreflightError: it is.
    """
    if not plan.target.table_id:
        raise PreflightError(
            f"the table {plan.target.name} is not made, or not yet as it was to be made; copy a "
            "range, which sees to it"
        )


def empty_target(
    plan: Plan, target: Connection | DynamoDb, budget: RateBudget, on_retry: OnRetry
) -> int | None:
    """Empty the target; give how many items there were, where they had to be deleted one by one.

    Raises:
        MigrationError: it was refused, or could not be finished; what is gone stays gone.
    """
    if isinstance(target, Connection):
        truncate(target, plan.target.name)
        return None
    seconds = plan.migration.retry_seconds
    table = describe(target, plan.target.name.table, retry_seconds=seconds)
    return empty_table(target, table, budget=budget, retry_seconds=seconds, on_retry=on_retry)


def describe_fidelity(plan: Plan) -> tuple[Fidelity, ...]:
    """Say of every column how it arrives, its values and its times."""
    return describe_items(plan) if plan.migration.target.dynamodb else describe_cells(plan)
