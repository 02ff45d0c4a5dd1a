"""The comparison and the rehearsal of a migration, run inside the test's own process.

What workers do in processes of their own is tested elsewhere; here the rows matter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from migration_platform.comparing.diff import diff_ranges
from migration_platform.comparing.verdicts import Findings, RangeVerdict
from migration_platform.copying.copy import copy_range
from migration_platform.copying.rehearsal import Rehearsal, rehearse
from migration_platform.counts import RangeCounts
from migration_platform.errors import MigrationError
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.work import Done, Event, Failed, Reported, Started, Task
from migration_platform.token_ranges import TokenRange
from migration_platform_tests.tables import in_process


class OneProcess:
    """Does a pool's tasks one after the other, in this process."""

    def __init__(
        self, plan: Plan, connection: Connection, target: Connection | DynamoDb | None = None
    ):
        self._stores = in_process(plan, connection, target)

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        for task in tasks:
            yield Started(task)
            told: list[object] = []
            try:
                result = task.run(self._stores, told.append)
            except MigrationError as error:
                end: Event = Failed(task, str(error))
            else:
                end = Done(task, result)
            yield from (Reported(task, value) for value in told)
            yield end


def compare(
    connection: Connection,
    plan: Plan,
    ranges: Sequence[TokenRange] | None = None,
    winners: Path | None = None,
    target: Connection | DynamoDb | None = None,
) -> RangeVerdict:
    """Compare ranges, all of them unless some are named, and give what was found in sum."""
    ranges = plan.migration.ranges if ranges is None else ranges
    pool, path = OneProcess(plan, connection, target), str(winners) if winners else None
    verdicts = list(diff_ranges(pool, plan, ranges, winners=path))  # type: ignore[arg-type]
    assert sorted(v.token_range for v in verdicts) == sorted(ranges)
    return replace(
        verdicts[0],
        **vars(sum(verdicts, start=Findings())),
        origin_rows=sum(verdict.origin_rows for verdict in verdicts),
        target_rows=sum(verdict.target_rows for verdict in verdicts),
        error=next((verdict.error for verdict in verdicts if verdict.error), ""),
    )


def found(verdict: RangeVerdict) -> tuple[int, int, int]:
    """How many rows are missing, extra and mismatched; a comparison that failed is no answer."""
    assert verdict.error == ""
    return verdict.missing, verdict.extra, verdict.mismatched


def rehearse_all(
    connection: Connection,
    plan: Plan,
    keys: Path | None = None,
    target: Connection | DynamoDb | None = None,
) -> Rehearsal:
    """Read all ranges as a copy would; with `keys` the colliding ones are kept there."""
    pool = OneProcess(plan, connection, target)
    return rehearse(pool, plan, plan.migration.ranges, keys)  # type: ignore[arg-type]


def copy_winners(connection: Connection, plan: Plan, winners: Path) -> RangeCounts:
    """Copy all ranges; of rows that collide only the winner."""
    stores, total = in_process(plan, connection), RangeCounts()
    for token_range in plan.migration.ranges:
        total += copy_range(stores, token_range, lambda _: None, winners=str(winners))
    return total
