"""Changes are read, and the rows that they name are made the same, until there is nothing to do.

A position is given on only when the target has acknowledged everything before it. What fails
leaves the position where it was, so that the next run begins there again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from migration_platform.plan.model import Plan
from migration_platform.stores.work import Pool
from migration_platform.syncing.changes import ChangeSource, Lag
from migration_platform.syncing.counts import SyncCounts
from migration_platform.syncing.position import Position


@dataclass(frozen=True)
class Limits:
    """When a synchronisation ends, if it does not end because there is nothing left.

    It compares `ranges` open ranges at most, and goes on to wait for messages until none came for
    `idle_seconds`, or `seconds` have passed. With `up_to` it ends as soon as it is there.
    """

    ranges: int = 8
    seconds: float = 600.0
    idle_seconds: float = 5.0
    up_to: Position | None = None


@dataclass(frozen=True)
class Followed:
    """What was done since the last of these, and where the target is now.

    `touched` are the indexes of ranges of which rows were written or deleted.
    """

    position: Position
    counts: SyncCounts
    seconds: float
    lag: Lag = field(default_factory=Lag)
    touched: frozenset[int] = frozenset()


def follow(
    pool: Pool,
    plan: Plan,
    source: ChangeSource | None,
    position: Position,
    limits: Limits,
    commit: Callable[[Followed], None],
    on_retry: Callable[[str], None] = lambda reason: None,
) -> Position:
    """Follow the origin from a position on; give the one that the target has reached.

    `commit` is told of every new position, some seconds apart, and of the last one.

    Raises:
        MigrationError: rows could not be read or written; the position last told holds.
    """
    raise NotImplementedError
