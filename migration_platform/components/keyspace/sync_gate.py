"""What the cutover asks of a table that follows its origin: whether it is there, and was compared.

It is ready when no message waits and no range is open at the moment of asking, and each range was
compared after the synchronisation last wrote into it, and after the position was reached.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from migration_platform.components.keyspace.cutover import MovedTable
from migration_platform.components.table.ledger import RangeState
from migration_platform.components.table.reporting import Job
from migration_platform.components.table.run_stores import find_changes
from migration_platform.components.table.sync_checks import compare_command, launch_command
from migration_platform.components.table.sync_copies import open_offsets
from migration_platform.components.table.sync_ledger import (
    Committed,
    compared_from,
    read_committed,
)
from migration_platform.errors import MigrationError
from migration_platform.syncing.changes import Lag, tell_waiting
from migration_platform.token_ranges import TokenRange, describe_ranges


def judge_sync(
    instance: dg.DagsterInstance, table: MovedTable, resources: Any, states: Sequence[RangeState]
) -> list[str]:
    """Say what a table's synchronisation lacks for the cutover, each with the command for it."""
    job = table.job
    if job.sync is None:
        return []
    follow = launch_command(job, up_to="now")
    committed = read_committed(instance, job.sync)
    if committed is None:
        return ["nothing has followed the origin since the copy"]
    try:
        lag = _ask(job, committed, resources)
    except MigrationError as error:
        return [f"how far it is behind its origin cannot be asked: {error}"]
    position = committed.position
    missing = []
    if lag.lost:
        missing.append(f"messages were lost ({next(iter(lag.lost.values()))})")
    if lag.messages:
        missing.append(tell_waiting(lag.messages))
    if position.open_ranges:
        missing.append(f"{len(position.open_ranges)} ranges are yet to be compared by it")
    if position.unreadable:
        missing.append(
            f"{len(position.unreadable)} messages name no row (with the op config scan: all it "
            "makes up for them)"
        )
    if missing:
        # What it writes has to be compared afterwards, so that is not told before.
        return [f"its synchronisation is not at the end: {', '.join(missing)}; {follow}"]
    unseen = _not_compared(job, committed, states)
    if not unseen:
        return []
    return [
        f"{len(unseen)} of {len(states)} ranges ({describe_ranges(unseen)}) were not compared "
        f"since the synchronisation wrote or reached its end; {compare_command(job, unseen)}"
    ]


def _ask(job: Job, committed: Committed, resources: Any) -> Lag:
    sync = job.migration.sync
    if sync is None or sync.kafka is None:
        return Lag()
    with open_offsets(find_changes(job.migration, resources), sync.kafka) as source:
        return source.lag(committed.position)


def _not_compared(job: Job, committed: Committed, states: Sequence[RangeState]) -> list[TokenRange]:
    sync = job.migration.sync
    # A round that finds nothing to write says itself that a range is the same.
    reached = committed.reached_at if sync and sync.kafka else 0.0
    return [
        state.token_range
        for state in states
        if compared_from(state) <= max(reached, committed.touched.get(state.token_range.key, 0.0))
    ]
