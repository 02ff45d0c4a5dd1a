"""Runs to PostgreSQL that are killed, or whose server is: what was green is true, the rest is red.

Every run here is a process of its own, slowed down by its own rate limit.
"""

import pytest
from dagster import DagsterRunStatus

from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    descendants,
    gone,
    wait_until,
)
from migration_platform_tests.postgres_tables import OwnServer, own_server
from migration_platform_tests.servers import PATIENCE_SECONDS
from migration_platform_tests.test_postgres_runs import ROWS, Customers, customers
from migration_platform_tests.test_run_faults import launched

__all__ = ["customers"]

pytestmark = DAGSTERS_OWN_WARNINGS


@pytest.fixture
def slow(customers: Customers) -> Customers:
    """The migration, so slow that it can be hit in the middle."""
    limits = {"rows_per_second": 100, "fetch_size": 10}
    customers.declare(origin=limits, target={"batch_rows": 10}, workers=2)
    return customers


def finish(slow: Customers) -> None:
    """Run again what is not green, as fast as it goes; every row is there once."""
    slow.declare()
    targets, diffs = slow.project.statuses(slow.target), slow.project.statuses(slow.diff)
    again = [key for key in KEYS if (targets[key], diffs[key]) != ("success", "success")]
    assert again
    assert {targets[key] for key in KEYS} <= {"success", "failed", "none", "in progress"}
    slow.project.run(f"{again[0]}...{again[-1]}").assert_success()
    assert slow.project.statuses(slow.target) == dict.fromkeys(KEYS, "success")
    assert slow.project.statuses(slow.diff) == dict.fromkeys(KEYS, "success")
    assert slow.check("all_ranges_match")[0]
    assert slow.check("row_counts_match")[0]
    assert len({row[0] for row in slow.rows()}) == len(slow.rows()) == ROWS


def test_a_run_that_is_killed_is_taken_up_where_it_was(slow: Customers) -> None:
    with launched(slow) as (process, output):
        workers = descendants(process.pid)
        process.kill()
        output.wait(PATIENCE_SECONDS)
        assert gone(workers, 5)
    (dead,) = slow.project.runs()
    finish(slow)
    assert [run.status for run in slow.project.runs()] == [
        DagsterRunStatus.SUCCESS,
        DagsterRunStatus.FAILURE,
    ]
    assert slow.project.runs()[1].run_id == dead.run_id
    # Nobody is left at the server.
    asked = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'migration_platform'"
    wait_until(lambda: not slow.sql(asked), PATIENCE_SECONDS, "no connection is left")


def test_a_killed_worker_fails_only_its_range(slow: Customers) -> None:
    # A worker that happens to be between two ranges fails none: then the other does the rest.
    for _ in range(5):
        with launched(slow) as (process, output):
            workers = [p for p in descendants(process.pid) if "spawn_main" in str(p.cmdline())]
            workers[0].kill()
            text = output.wait(PATIENCE_SECONDS * 2)
        if process.returncode:
            break
        assert len(slow.rows()) == ROWS
        slow.sql(f"TRUNCATE public.{slow.target_name}")
    assert "its worker process was killed by signal 9" in text
    statuses = slow.project.statuses(slow.target)
    assert [statuses[key] for key in KEYS if statuses[key] != "success"] == ["failed"]
    finish(slow)


def test_a_server_that_crashes_in_a_run_ends_it_in_red_or_is_waited_for(slow: Customers) -> None:
    shared = slow.postgres_port
    with own_server() as own:
        slow.postgres_port = own.port
        slow.declare_stores()
        crash_and_recover(slow, own)
        assert slow.project.statuses(slow.diff) == dict.fromkeys(KEYS, "success")
        assert len(slow.rows()) == ROWS

        slow.sql(f"DROP TABLE public.{slow.target_name}")
        limits = {"rows_per_second": 100, "fetch_size": 10}
        slow.declare(origin=limits, target={"batch_rows": 10}, retry_seconds=1)
        with launched(slow) as (process, output):
            own.crash()
            text = output.wait(PATIENCE_SECONDS * 2)
            assert process.returncode != 0
        assert "cannot be reached" in text or "the connection broke" in text
        own.start()
        assert "failed" in slow.project.statuses(slow.target).values()
        finish(slow)
    slow.postgres_port = shared


def crash_and_recover(slow: Customers, own: OwnServer) -> None:
    limits = {"rows_per_second": 100, "fetch_size": 10}
    slow.declare(
        origin=limits, target={"batch_rows": 10}, workers=2, retry_seconds=PATIENCE_SECONDS
    )
    with launched(slow) as (process, output):
        own.crash()
        own.start()
        text = output.wait(PATIENCE_SECONDS * 2)
        assert process.returncode == 0, text
