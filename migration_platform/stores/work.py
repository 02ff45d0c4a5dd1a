"""What is open during a run, and the tasks that use it.

A task is a frozen value with a method `run`; a pool of processes does it, or a test in its own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from migration_platform.declaration.migration import Migration
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.dynamodb.connection import DynamoDb


def tracking_cluster(
    migration: Migration, origin: Connection, target: Connection | DynamoDb
) -> Connection:
    """Give the cluster that keeps what is known of runs, and rows that were set aside."""
    cluster = origin if migration.tracked_at is migration.origin else target
    assert isinstance(cluster, Connection)
    return cluster


@dataclass
class OpenStores:
    """What a worker process holds for the life of a run; `cache` keeps what is prepared once."""

    plan: Plan
    origin: Connection
    target: Connection | DynamoDb
    origin_budget: RateBudget
    target_budget: RateBudget
    target_read_budget: RateBudget
    cache: dict[str, Any] = field(default_factory=dict)

    @property
    def target_cluster(self) -> Connection:
        """The target, where it is a Cassandra cluster."""
        assert isinstance(self.target, Connection)
        return self.target

    @property
    def tracking(self) -> Connection:
        """The cluster that keeps rows that were set aside."""
        return tracking_cluster(self.plan.migration, self.origin, self.target)


Report = Callable[[Any], None]


class Task(Protocol):
    """A piece of work that can be pickled; what it reports and returns can be too."""

    def run(self, stores: OpenStores, report: Report) -> Any:
        """Do the work, report on the way, return the result."""
        ...


@dataclass(frozen=True)
class Started:
    """A worker took the task."""

    task: Any
    process_id: int = 0


@dataclass(frozen=True)
class Reported:
    """What the task said on its way."""

    task: Any
    value: Any


@dataclass(frozen=True)
class Done:
    """The task ended well."""

    task: Any
    result: Any


@dataclass(frozen=True)
class Failed:
    """The task did not end well; `reason` is one sentence.

    `may_concern_all` says that the other tasks may fail for the same reason.
    """

    task: Any
    reason: str
    may_concern_all: bool = False


Event = Started | Reported | Done | Failed


class Pool(Protocol):
    """Does tasks: in processes of a run, or in a test's own."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Do the tasks in their order; every task ends with `Done` or `Failed`, exactly once."""
        ...
