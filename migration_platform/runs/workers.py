"""Processes that do a run's work: each holds its own connections and takes one task at a time.

Processes, because Python's lock lets one process use one core; of their own, because when one
dies only the task that it held may fail. Nothing here knows what a task does: it is a frozen
value with a method `run`.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection as pipes
from types import ModuleType
from typing import Any

from migration_platform.declaration.migration import Endpoint
from migration_platform.errors import (
    MigrationError,
    TransientError,
    UnreadableError,
    explain,
    may_concern_all,
)
from migration_platform.pacing.rate import RateBudget
from migration_platform.pacing.retries import connect_patiently
from migration_platform.plan.model import Plan
from migration_platform.stores.interface import Settings
from migration_platform.stores.kinds import open_stores
from migration_platform.stores.work import Done, Event, Failed, OpenStores, Reported, Started, Task

_CONTEXT = multiprocessing.get_context("spawn")
STOP_SECONDS = 5.0
RETRY_SECONDS_AFTER_A_LOSS = 10.0
"""Long enough for a server that is just coming back; the next task that ends well resets it."""


class _Worker:
    def __init__(self, arguments: tuple):
        self.task: Any = None
        self.pipe, far_end = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_work, args=(far_end, *arguments), daemon=True)
        with _no_main_module():
            self.process.start()
        far_end.close()


class WorkerPool:
    """The worker processes of one run; leaving the context ends them all.

    `origin_budget` and `target_budget` hold for all processes together: their limits may be
    changed, and they may be paused, while the run goes on. `look_again` is called when a task
    failed for what may concern all of them, and raises if it does.
    """

    def __init__(
        self,
        plan: Plan,
        origin: Settings,
        target: Settings,
        *,
        workers: int,
        look_again: Callable[[], None] = lambda: None,
    ):
        self._look_again = look_again
        # Kept for the life of the pool: a budget's lock is removed from the system with its last
        # owner here, and a process that is still starting would not find it.
        self.origin_budget = _open_budget(plan.migration.origin)
        self.target_budget = _open_budget(plan.migration.target)
        there = plan.migration.target
        self.target_read_budget = (
            RateBudget(_CONTEXT, size_per_second=there.declared.read_size_per_second)
            if there.abilities.read_budget
            else self.target_budget
        )
        shared = (plan, origin, target, *self.budgets)
        self._workers = [_Worker(shared) for _ in range(workers)]

    @property
    def budgets(self) -> tuple[RateBudget, RateBudget, RateBudget]:
        """What holds the processes back at the origin, in writing to the target, in reading it."""
        return self.origin_budget, self.target_budget, self.target_read_budget

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            # A worker in the middle of a task has nothing that must be finished: ending it at
            # once is what a run that fails or is cancelled wants.
            if worker.task is None and worker.process.is_alive():
                _tell(worker, None)
            else:
                worker.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            worker.process.join(max(0.1, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
            worker.pipe.close()

    @property
    def process_ids(self) -> list[int]:
        """The ids of the processes that are alive."""
        return [w.process.pid for w in self._workers if w.process.is_alive() and w.process.pid]

    def run(self, tasks: Sequence[Task]) -> Iterator[Event]:
        """Do the tasks in their order; every task ends with `Done` or `Failed`, exactly once.

        Raises:
            DeniedError: one failed for what makes all others fail; those were not done.
        """
        queue = deque(tasks)
        while True:
            for worker in self._workers:
                if queue and worker.task is None and worker.process.is_alive():
                    worker.task = queue.popleft()
                    if _tell(worker, worker.task):
                        yield Started(worker.task, worker.process.pid or 0)
                    else:
                        queue.appendleft(worker.task)
                        worker.task = None
            busy = {w.pipe: w for w in self._workers if w.task is not None}
            if not busy:
                break
            for ready in pipes.wait(list(busy)):
                event = self._receive(busy[ready])  # type: ignore[index]
                yield event
                if isinstance(event, Failed) and event.may_concern_all:
                    self._look_again()
        for task in queue:
            yield Failed(task, "it was not begun: no worker process is left")

    def _receive(self, worker: _Worker) -> Event:
        task = worker.task
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(STOP_SECONDS)
            worker.task = None
            code = worker.process.exitcode
            how = f"was killed by signal {-code}" if code and code < 0 else f"ended with {code}"
            return Failed(task, f"its worker process {how}")
        if kind == "report":
            return Reported(task, value)
        worker.task = None
        return Done(task, value) if kind == "done" else Failed(task, value, kind == "refused")


def _open_budget(endpoint: Endpoint) -> RateBudget:
    return RateBudget(
        _CONTEXT,
        rows_per_second=endpoint.rows_per_second,
        size_per_second=endpoint.size_per_second,
    )


def _tell(worker: _Worker, message: Any) -> bool:
    try:
        worker.pipe.send(message)
    except OSError:
        return False
    return True


def _work(
    pipe: pipes.Connection,
    plan: Plan,
    origin: Settings,
    target: Settings,
    origin_budget: RateBudget,
    target_budget: RateBudget,
    target_read_budget: RateBudget,
) -> None:
    """Take tasks from the pipe until told to stop or until the parent is gone."""
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stores: OpenStores | None = None
    has_waited = False
    while (task := pipe.recv()) is not None:
        current = _impatient(plan) if has_waited else plan
        try:
            if stores is None:
                seconds = current.migration.retry_seconds
                stores = open_stores(
                    current,
                    connect_patiently(origin.connect, seconds),
                    connect_patiently(target.connect, seconds),
                    origin_budget,
                    target_budget,
                    target_read_budget,
                )
            stores.plan = current
            result = task.run(stores, lambda value: pipe.send(("report", value)))
        except MigrationError as error:
            has_waited = isinstance(error, TransientError | UnreadableError)
            pipe.send(("refused" if may_concern_all(error) else "failed", str(error)))
        except Exception as error:
            # A fault of this program: the type says what kind, and the range stays red.
            pipe.send(("failed", f"{type(error).__name__}: {explain(error)}"))
        else:
            has_waited = False
            pipe.send(("done", result))
    if stores is not None:
        stores.origin.connection.close()
        stores.target.connection.close()


def _impatient(plan: Plan) -> Plan:
    """Give a plan with short retries, for a task after one that waited without success.

    If each of many ranges waited as long, a run would report a lost server an hour late.
    """
    seconds = min(plan.migration.retry_seconds, RETRY_SECONDS_AFTER_A_LOSS)
    return replace(plan, migration=replace(plan.migration, retry_seconds=seconds))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        pipes.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Start a process without importing the program that the user started.

    A spawned process imports its parent's main module first: seconds of Dagster here, and, in a
    script without a `__main__` guard, the script once more.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
