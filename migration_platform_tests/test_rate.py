"""One budget for all processes: it holds, it can be changed at any moment, and it outlives them."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from migration_platform.pacing import rate
from migration_platform.pacing.rate import RateBudget
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.work import Done, Reported
from migration_platform_tests.tables import create_table, plan_copy
from migration_platform_tests.test_workers import Say

CONTEXT = multiprocessing.get_context("spawn")
SOON = 0.3


def budget_of(rows: int | None = None, size: int | None = None) -> RateBudget:
    return RateBudget(CONTEXT, rows_per_second=rows, size_per_second=size)


def seconds_of(budget: RateBudget, takes: list[tuple[int, int]]) -> float:
    started = time.monotonic()
    for rows, size in takes:
        budget.take(rows, size)
    return time.monotonic() - started


@contextmanager
def taking(budget: RateBudget, rows: int, size: int = 0) -> Iterator[threading.Thread]:
    """Take rows in a thread, which may have to wait; it must have passed in the end."""
    thread = threading.Thread(target=budget.take, args=(rows, size), daemon=True)
    thread.start()
    yield thread
    thread.join(5)
    assert not thread.is_alive()


def test_rows_and_bytes_pass_at_the_rate_that_is_slower():
    assert 0.35 < seconds_of(budget_of(rows=100), [(10, 10_000)] * 5) < 0.9
    assert 0.35 < seconds_of(budget_of(size=1000), [(10_000, 100)] * 5) < 0.9
    assert 0.35 < seconds_of(budget_of(1000, 1000), [(10, 100)] * 5) < 0.9


def test_without_a_limit_nobody_waits_and_nothing_is_spent():
    budget = budget_of()
    assert seconds_of(budget, [(10**9, 10**12)] * 10_000) < 0.5
    budget.set_limits(1000, None)
    assert seconds_of(budget, [(10, 10**12)] * 2) < SOON


def test_time_in_which_nobody_takes_earns_nothing():
    budget = budget_of(rows=100)
    time.sleep(0.5)
    assert seconds_of(budget, [(20, 0)] * 3) > 0.35


def test_a_higher_limit_frees_at_once_who_waits_already():
    budget = budget_of(rows=1, size=1)
    budget.take(1000, 1000)
    with taking(budget, 1, 1) as waiting:
        time.sleep(0.05)
        assert waiting.is_alive()
        budget.set_limits(100_000, None)
        waiting.join(SOON)
        assert not waiting.is_alive()
    assert (budget.rows_per_second, budget.size_per_second) == (100_000, None)


def test_a_lower_limit_holds_for_who_waits_already():
    budget = budget_of(rows=1000)
    budget.take(200)
    with taking(budget, 1) as waiting:
        budget.set_limits(100, None)
        waiting.join(0.6)
        assert waiting.is_alive()
        budget.set_limits(None, None)


@pytest.mark.parametrize("rows", [None, 1000])
def test_a_pause_holds_everybody_until_it_ends(rows):
    budget = budget_of(rows)
    budget.pause()
    assert budget.paused
    with taking(budget, 1) as first, taking(budget, 1) as second:
        time.sleep(SOON)
        assert first.is_alive()
        assert second.is_alive()
        budget.go_on()
        first.join(SOON)
        second.join(SOON)
        assert not first.is_alive()
        assert not second.is_alive()
    assert not budget.paused
    assert budget.rows_per_second == rows


def test_a_limit_that_is_changed_in_a_pause_does_not_end_it():
    budget = budget_of(rows=1)
    budget.pause()
    with taking(budget, 1) as waiting:
        budget.set_limits(None, None)
        waiting.join(SOON)
        assert waiting.is_alive()
        budget.go_on()


def die_with_the_lock(budget: RateBudget) -> None:
    with budget._locked():
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_in_the_act_does_not_stop_the_others(monkeypatch):
    monkeypatch.setattr(rate, "LOCK_SECONDS", 0.2)
    budget = budget_of(rows=1000)
    victim = CONTEXT.Process(target=die_with_the_lock, args=(budget,))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    assert 0.2 <= seconds_of(budget, [(1, 0)]) < 1
    assert seconds_of(budget, [(1, 0)] * 10) < 0.2


def test_who_was_taken_for_dead_harms_nobody(monkeypatch):
    monkeypatch.setattr(rate, "LOCK_SECONDS", 0.05)
    budget = budget_of(rows=1000)
    with budget._locked(), taking(budget, 1):
        time.sleep(0.2)
    assert seconds_of(budget, [(1, 0)] * 10) < 0.2


class TakeMany(Say):
    """Take three times what is named, and tell after each."""

    def run(self, stores, report):
        for _ in range(3):
            stores.origin_budget.take(int(self.name))
            report(time.monotonic())


def test_limits_and_pauses_hold_in_processes_that_run_already(connection, settings, keyspace):
    origin, target = (create_table(connection, keyspace, t, "k int PRIMARY KEY") for t in "ab")
    plan = plan_copy(connection, origin, target, origin_rows_per_second=1)
    told, events, went_on = [], [], 0.0
    with WorkerPool(plan, settings, settings, workers=1) as pool:
        assert (pool.origin_budget.rows_per_second, pool.target_budget.rows_per_second) == (1, None)
        for event in pool.run([TakeMany("1000")]):
            events.append(event)
            if not isinstance(event, Reported):
                continue
            told.append(event.value)
            if len(told) == 1:
                # The second take would wait for a quarter of an hour.
                pool.origin_budget.pause()
                pool.origin_budget.set_limits(None, None)
                time.sleep(SOON)
                went_on = time.monotonic()
                pool.origin_budget.go_on()
    assert isinstance(events[-1], Done)
    assert told[1] >= went_on
    assert told[2] < went_on + 1
