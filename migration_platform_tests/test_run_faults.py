"""Runs that are killed or stopped: what was green is true, the rest can be run again.

Every run here is a process of its own, slowed down by its own rate limit; what is killed is what
the test started.
"""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from dagster import DagsterRunStatus
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.remote_origin import RegisteredCodeLocationOrigin
from dagster._grpc.impl import get_external_sensor_execution

from migration_platform.components.table.ended_runs import PROCESS_TAG
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    EVERYTHING,
    KEYS,
    Move,
    Output,
    descendants,
    end_tree,
    gone,
    wait_until,
)
from migration_platform_tests.servers import PATIENCE_SECONDS

pytestmark = DAGSTERS_OWN_WARNINGS

ROWS_PER_SECOND = 120
"""Slow enough that a copy takes seconds, and some of its ranges are open at every moment."""


@pytest.fixture
def slow(move: Move) -> Move:
    """The migration with events, its copy so slow that it can be hit in the middle."""
    limits = {"rows_per_second": ROWS_PER_SECOND, "fetch_size": 10}
    move.declare(origin=limits, events=move.events, workers=2)
    return move


@contextmanager
def launched(move: Move) -> Iterator[tuple[subprocess.Popen[str], Output]]:
    """Launch a full run as a process and wait until ranges are being copied."""
    process = move.project.start_dg(
        "launch", "--assets", move.selection, "--partition-range", EVERYTHING
    )
    output = Output(process)
    try:
        wait_until(
            lambda: "(1 of 8 ranges)" in output.text or process.poll() is not None,
            PATIENCE_SECONDS * 2,
            "a range was copied",
        )
        assert process.poll() is None, output.text
        yield process, output
    finally:
        end_tree(process)
        output.close()


def statuses_of(topic: list[dict]) -> list[str]:
    """Give the status of each metric event."""
    return [event["dimensions"][1]["value"] for event in topic]


def not_green(move: Move) -> list[str]:
    """Give the ranges that an operator would select in the UI to be run again."""
    target, diff = move.project.statuses(move.target), move.project.statuses(move.diff)
    return [key for key in KEYS if (target[key], diff[key]) != ("success", "success")]


@pytest.mark.parametrize(
    ("earliest", "latest"), [(0.0, 0.0), (0.1, 0.8), (0.8, 1.5)], ids=["at once", "soon", "later"]
)
def test_after_a_kill_the_ranges_that_are_not_green_can_be_run_again(
    slow: Move, earliest: float, latest: float
) -> None:
    seconds = random.uniform(earliest, latest)
    with launched(slow) as (process, output):
        workers = descendants(process.pid)
        assert len(workers) >= 2
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        output.wait(PATIENCE_SECONDS)
        assert gone(workers, 5)
    (dead,) = slow.project.runs()
    assert dead.status == DagsterRunStatus.STARTED
    assert slow.metrics.read() == []
    copied = [k for k, status in slow.project.statuses(slow.target).items() if status == "success"]
    slow.assert_same_rows(*copied) if copied else None

    slow.declare(events=slow.events)
    again = not_green(slow)
    run = slow.project.run(f"{again[0]}...{again[-1]}").assert_success()

    slow.assert_same_rows()
    assert f"Run {dead.run_id} was found dead" in slow.project.messages_of(run.run_id)
    assert [r.status for r in slow.project.runs()] == [
        DagsterRunStatus.SUCCESS,
        DagsterRunStatus.FAILURE,
    ]
    assert not_green(slow) == []
    assert slow.check("all_ranges_match")[0] is True
    assert statuses_of(slow.metrics.read()) == ["FAILED", "SUCCESS"]


def test_the_next_run_of_other_ranges_turns_the_dead_runs_open_ranges_red(slow: Move) -> None:
    with launched(slow) as (process, output):
        process.kill()
        output.wait(PATIENCE_SECONDS)
    statuses = slow.project.statuses(slow.target)
    open_ranges = [key for key in KEYS if statuses[key] != "success"]
    slow.declare(events=slow.events)

    slow.project.run(KEYS[-1]).assert_success()
    slow.project.run(KEYS[-1]).assert_success()

    statuses = slow.project.statuses(slow.target)
    assert {statuses[key] for key in open_ranges if key != KEYS[-1]} == {"failed"}
    assert statuses[KEYS[-1]] == "success"
    assert slow.check("all_ranges_match")[0] is False
    assert statuses_of(slow.metrics.read()) == ["FAILED", "SUCCESS", "SUCCESS"]


def test_the_sensor_notices_a_dead_run_and_publishes_its_event_once(slow: Move) -> None:
    with launched(slow) as (process, output):
        process.kill()
        output.wait(PATIENCE_SECONDS)
    (dead,) = slow.project.runs()

    assert evaluate_sensor(slow) == f"run {dead.run_id} was dead"
    assert evaluate_sensor(slow) == "Every run that ended has said so."

    assert [run.status for run in slow.project.runs()] == [DagsterRunStatus.FAILURE]
    assert statuses_of(slow.metrics.read()) == ["FAILED"]
    assert set(slow.project.statuses(slow.target).values()) <= {"success", "failed"}


def test_a_run_that_works_is_left_alone_by_the_sensor_and_by_others(slow: Move) -> None:
    with launched(slow) as (process, output):
        assert evaluate_sensor(slow) == "Every run that ended has said so."
        (run,) = slow.project.runs()
        assert run.status == DagsterRunStatus.STARTED
        assert int(run.tags[PROCESS_TAG].split()[1]) == process.pid
        text = output.wait(PATIENCE_SECONDS * 2)
        assert process.returncode == 0, text
    slow.assert_same_rows()
    assert statuses_of(slow.metrics.read()) == ["SUCCESS"]


def test_a_killed_worker_fails_only_its_range(slow: Move) -> None:
    # A worker that happens to be between two ranges fails none: then the other does the rest.
    for _ in range(5):
        with launched(slow) as (process, output):
            workers = [p for p in descendants(process.pid) if "spawn_main" in str(p.cmdline())]
            workers[0].kill()
            text = output.wait(PATIENCE_SECONDS * 2)
            assert gone(workers, 5)
        if process.returncode:
            break
        slow.assert_same_rows()
        assert not_green(slow) == []
        slow.execute("TRUNCATE {target}")
    assert "its worker process was killed by signal 9" in text

    statuses = slow.project.statuses(slow.target)
    (failed,) = [key for key in KEYS if statuses[key] != "success"]
    assert statuses[failed] == "failed"
    slow.assert_same_rows(*(key for key in KEYS if key != failed))
    assert slow.project.runs()[0].status == DagsterRunStatus.FAILURE
    assert statuses_of(slow.metrics.read())[-1] == "FAILED"
    assert slow.check("all_ranges_match")[1].startswith(f"1 of 8 ranges are not copied: {failed}")


def interrupt(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C: the signal reaches every process of the terminal's group."""
    # It was started as the head of a group of its own.
    os.killpg(process.pid, signal.SIGINT)


def terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()


@pytest.mark.parametrize("stop", [interrupt, terminate])
def test_a_run_that_is_stopped_reports_its_end_once_and_leaves_no_process(
    slow: Move, stop: Callable[[subprocess.Popen[str]], None]
) -> None:
    with launched(slow) as (process, output):
        workers = descendants(process.pid)
        stop(process)
        output.wait(PATIENCE_SECONDS)
        assert process.returncode != 0
        assert gone(workers, 5)

    (run,) = slow.project.runs()
    assert run.status in (DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE)
    assert_tracked_run_has_ended(slow)
    assert evaluate_sensor(slow) == "Every run that ended has said so."
    assert statuses_of(slow.metrics.read()) == ["FAILED"]
    assert [e["eid"] for e in slow.job_log.read()][-1] == "JOB_END"
    slow.declare(events=slow.events)
    again = not_green(slow)
    slow.project.run(f"{again[0]}...{again[-1]}").assert_success()
    slow.assert_same_rows()
    assert not_green(slow) == []


def assert_tracked_run_has_ended(move: Move) -> None:
    """The stopped run says so in the tracking tables, and claims what is green and nothing else."""
    migration = f"reports/{move.keyspace}.{move.target_name}"
    (run,) = move.reader.execute(
        "SELECT run_id FROM migration_platform.migration_runs WHERE migration=%s", (migration,)
    )
    key = (move.target_name, run["run_id"])
    (info,) = move.reader.execute(
        "SELECT * FROM migration_platform.cdm_run_info WHERE table_name=%s AND run_id=%s", key
    )
    details = move.reader.execute(
        "SELECT * FROM migration_platform.cdm_run_details WHERE table_name=%s AND run_id=%s", key
    )
    statuses = [row["status"] for row in details]
    green = list(move.project.statuses(move.target).values()).count("success")
    assert (info["status"], info["end_time"] is not None) == ("ENDED", True)
    passed = statuses.count("PASS")
    assert f"Partitions Passed: {passed};" in info["run_info"]
    # Stopped between the two notes, it leaves the second one to the next run.
    assert passed <= green <= passed + 1
    assert set(statuses) <= {"PASS", "STARTED", "NOT_STARTED"}


def evaluate_sensor(move: Move) -> str:
    """Evaluate the sensor once, as the daemon's code server does; gives its reason to skip."""
    repository = move.project.load().get_repository_def()
    with move.project.instance() as instance:
        data = get_external_sensor_execution(
            repository,
            RegisteredCodeLocationOrigin(move.project.module),
            instance.get_ref(),
            f"{'__'.join(move.target.path)}_ended_runs",
            last_tick_completion_timestamp=None,
            last_run_key=None,
            cursor=None,
            log_key=None,
            last_sensor_start_timestamp=None,
        )
    assert isinstance(data, SensorExecutionData), data
    assert data.skip_message is not None
    return data.skip_message
