"""What is open during a run, and the tasks that use it.

A task is a frozen value with a method `run`; a pool of processes does it, or a test in its own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from migration_platform.declaration.migration import Migration
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.model import Plan
from migration_platform.stores.interface import OnRetry, Origin, Pace, Target


def records_at(migration: Migration, origin: Any, target: Any) -> Any:
    """Give the side that keeps what is known of runs, and the dead letters; None if neither can.

    `origin` and `target` are the open connections, of which one is given back.
    """
    if not migration.keeps_records:
        return None
    return origin if migration.tracked_at is migration.origin else target


@dataclass
class OpenStores:
    """What a worker process holds for the life of a run; `cache` keeps what is prepared once."""

    plan: Plan
    origin: Origin
    target: Target
    origin_budget: RateBudget
    target_budget: RateBudget
    target_read_budget: RateBudget
    cache: dict[str, Any] = field(default_factory=dict)

    @property
    def records(self) -> Any:
        """The connection that keeps the dead letters; None if neither side can."""
        return records_at(self.plan.migration, self.origin.connection, self.target.connection)

    def reading(self, side: str, on_retry: OnRetry) -> Pace:
        """Say how fast and how patiently a side is read."""
        budget = self.origin_budget if side == "origin" else self.target_read_budget
        return Pace(budget, self.plan.migration.retry_seconds, on_retry)

    def writing(self, on_retry: OnRetry) -> Pace:
        """Say how fast and how patiently the target is written."""
        return Pace(self.target_budget, self.plan.migration.retry_seconds, on_retry)


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
