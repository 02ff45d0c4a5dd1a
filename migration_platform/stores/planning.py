"""A declaration held against the stores that are really there; the answer is a frozen `Plan`."""

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import (
    DeclarationError,
    MigrationError,
    PreflightError,
    TransientError,
)
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.analysis import Analysis
from migration_platform.plan.model import Plan, Table
from migration_platform.plan.preflight import plan_tables
from migration_platform.stores.interface import Origin, Pace, Target, Uses


def make_plan(migration: Migration, origin: Origin, target: Target) -> Plan:
    """Hold a migration against the tables that are really there; nothing is made.

    A table that is to be created, or is not yet as it was to be created, has no id in the plan:
    see `make_target`.

    Raises:
        PreflightError: one message with every reason why it cannot run; caused by the
            `TransientError` of a store that could not be asked.
    """
    wrong: list[str] = []
    unfit: list[str] = []
    busy: TransientError | None = None
    table: Table | None = None
    shaped: Table | None = None
    found: Any = None
    plan: Plan | None = None
    try:
        table, unfit = origin.find_table(migration.origin)
        table = _as_seen(table, migration)
    except MigrationError as error:
        wrong.append(str(error))
        busy = _transient(error)
    try:
        found, more = target.find_table(migration)
        unfit += more
    except MigrationError as error:
        wrong.append(str(error))
        busy = busy or _transient(error)
    if table is not None:
        try:
            shaped = target.shape(migration, table, found)
        except DeclarationError as error:
            wrong.append(str(error))
    if table is not None and shaped is not None:
        plan, more = plan_tables(migration, table, shaped)
        wrong += more
    if plan is not None:
        wrong += origin.validate(plan)
        wrong += target.validate(plan, origin, found)
    wrong = [*unfit, *wrong]
    if wrong or plan is None:
        raise PreflightError(f"{migration.name} cannot be migrated: " + "; ".join(wrong)) from busy
    return plan


def _transient(error: MigrationError) -> TransientError | None:
    return error if isinstance(error, TransientError) else None


def _as_seen(origin: Table, migration: Migration) -> Table:
    """Give the origin's table as what its values are to the target.

    Where nothing is added to, a counter is a number.
    """
    if migration.target.abilities.counters:
        return origin
    return replace(
        origin,
        columns=tuple(
            replace(column, cql_type="bigint") if column.cql_type == "counter" else column
            for column in origin.columns
        ),
    )


def plan_check(migration: Migration, origin: Origin) -> Plan:
    """Hold a check that only reads against the table that is really there.

    Raises:
        PreflightError: one message with every reason why it cannot run.
    """
    table, wrong = origin.find_table(migration.origin)
    plan, more = plan_tables(migration, table, table)
    wrong += more
    if plan is not None:
        wrong += origin.validate(plan)
    if plan is not None and not wrong:
        wrong += origin.validate_use(plan, Uses())
    if wrong or plan is None:
        raise PreflightError(f"{migration.name} cannot be checked: " + "; ".join(wrong))
    return plan


def analyse_origin(
    origin: Origin, table: Table, endpoint: Endpoint, retry_seconds: float
) -> Analysis | None:
    """Tell how a table lies on the ring, read within the limits that its side declares.

    Raises:
        PermanentError, TransientError: it could not be read.
    """
    budget = RateBudget(
        multiprocessing.get_context("spawn"),
        rows_per_second=endpoint.rows_per_second,
        size_per_second=endpoint.size_per_second,
    )
    return origin.analyse(table, endpoint, Pace(budget, retry_seconds, lambda error: None))


def make_target(plan: Plan, origin: Origin, target: Target, report: Callable[[str], None]) -> Plan:
    """Create the target's table where it is missing and may be; give the plan of what is there.

    Raises:
        PreflightError: it cannot be created.
    """
    if plan.target.table_id:
        return plan
    target.create(plan, report)
    return make_plan(plan.migration, origin, target)


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
