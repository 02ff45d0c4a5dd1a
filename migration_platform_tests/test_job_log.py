"""The job log: in a file that scripts read, at a Kafka of its own, with the job's configuration."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import migration_platform
from migration_platform.comparing import settling
from migration_platform.components.table.ended_runs import events_tag
from migration_platform.local.ports import free_port
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    ROWS,
    Move,
    refusal,
)
from migration_platform_tests.servers import REPOSITORY

pytestmark = DAGSTERS_OWN_WARNINGS
PAGE = REPOSITORY / "docs" / "migrator-job.md"
NAME = "Cassandra Migrator"


def log_of(move: Move) -> Path:
    return move.project.home / "joblog.log"


def lines_of(move: Move) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_of(move).read_text().splitlines()]


def went_well(move: Move) -> bool:
    """Ask as the script of the page does."""
    (command,) = re.findall(r"^grep JOB_END .*$", PAGE.read_text(), re.MULTILINE)
    environment = {"DAGSTER_HOME": str(move.project.home), "PATH": "/usr/bin:/bin"}
    return not subprocess.run(["sh", "-c", command], env=environment, check=False).returncode


def test_the_script_of_the_page_finds_in_the_file_whether_the_last_run_went_well(
    move: Move,
) -> None:
    move.declare(events={"job_log_file": "joblog.log", "job_name": NAME})
    assert not went_well(move)

    move.project.run().assert_success()
    assert went_well(move)
    events = lines_of(move)
    assert [event["eid"] for event in events] == ["JOB_START", "JOB_LOG", "JOB_LOG", "JOB_END"]
    assert events[-1]["edata"]["data"]["total-records-migrated"] == ROWS

    move.add_a_row_that_the_target_refuses(KEYS[2])
    assert not move.project.run().success
    assert not went_well(move)
    assert lines_of(move)[: len(events)] == events


def test_the_file_says_what_the_topic_says_and_the_metric_is_not_in_it(move: Move) -> None:
    move.declare(events={**move.events, "job_log_file": str(log_of(move))})

    move.project.run(KEYS[0]).assert_success()

    assert lines_of(move) == move.job_log.read()
    assert len(move.metrics.read()) == 1


def test_the_job_log_may_go_to_a_kafka_of_its_own(move: Move) -> None:
    kafka = {
        "monitoring": {"bootstrap_servers": f"127.0.0.1:{free_port()}"},
        "ingestion": {"bootstrap_servers": move.bootstrap_servers},
    }
    declare_stores(move, kafka)
    move.declare(events={**move.events, "job_log_store": "ingestion"})

    move.project.run(KEYS[0]).assert_success()

    ended = ["JOB_START", "JOB_LOG", "JOB_LOG", "JOB_END"]
    assert [event["eid"] for event in move.job_log.read()] == ended
    assert move.metrics.read() == []

    # The metric is still owed, and the log, which arrived, is not.
    declare_stores(move, kafka | {"monitoring": kafka["ingestion"]})
    move.project.run(KEYS[1]).assert_success()
    assert [event["eid"] for event in move.job_log.read()] == ended * 2
    assert len(move.metrics.read()) == 2


def declare_stores(move: Move, kafka: dict[str, Any]) -> None:
    cluster = {"contact_points": ["127.0.0.1"], "port": move.connection.settings.port}
    move.project.declare(
        "stores", "Stores", cassandra={"sunbird": cluster, "reports": cluster}, kafka=kafka
    )


def test_a_file_that_cannot_be_written_is_said_and_fails_no_copy(move: Move) -> None:
    blocked = move.project.home / "blocked"
    blocked.write_text("no folder")
    move.declare(events={**move.events, "job_log_file": str(blocked / "joblog.log")})

    run = move.project.run(KEYS[0]).assert_success()

    assert f"the job log {blocked / 'joblog.log'} was not written" in move.project.messages_of(
        run.run_id
    )
    assert len(move.metrics.read()) == 1


def test_a_run_that_died_gets_its_end_in_the_file_from_the_next(move: Move) -> None:
    move.declare(events={"job_log_file": "joblog.log"})
    job = move.project.load().resolve_implicit_global_asset_job_def()
    with move.project.instance() as instance:
        run = instance.create_run_for_job(job, asset_selection=frozenset({move.target}))
        instance.report_run_failed(run)

    move.project.run(KEYS[0]).assert_success()
    move.project.run(KEYS[1]).assert_success()

    ends = [event for event in lines_of(move) if event["eid"] == "JOB_END"]
    assert [event["edata"]["status"] for event in ends] == ["FAILED", "SUCCESS", "SUCCESS"]
    assert move.project.runs()[-1].tags[events_tag(move.target)] == "delivered"


def test_the_configuration_in_the_events_has_what_the_run_was_told_and_no_secret(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_REPORTS", "hunter2")
    cluster = {"contact_points": ["127.0.0.1"], "port": move.connection.settings.port}
    guarded = {**cluster, "username": "writer", "password": {"env": "SECRET_OF_REPORTS"}}
    move.project.declare("stores", "Stores", cassandra={"sunbird": cluster, "reports": guarded})
    move.declare(events={"job_log_file": "joblog.log"}, filter={"where": "progress > 3"})

    config = move.step_config(filter={"coverage_percent": 50}, truncate_target=False)
    move.project.run(KEYS[0], config=config)

    start = lines_of(move)[0]["edata"]["data"]
    told = json.loads(start["config"])
    assert told["type"] == "migration_platform.TableMigration"
    assert told["attributes"]["filter"] == {"where": "progress > 3"}
    assert told["run"] == {"filter": {"coverage_percent": 50}, "truncate_target": False}
    text = log_of(move).read_text()
    assert "hunter2" not in text
    assert "SECRET_OF_REPORTS" not in text


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ({}, "events needs a topic"),
        ({"topic": "t"}, "events.topic needs events.store"),
        ({"store": "monitoring"}, "events.store needs events.topic"),
        ({"job_log_topic": "t"}, "events.job_log_topic needs events.job_log_store"),
        (
            {"store": "monitoring", "topic": "t", "job_log_store": "monitoring"},
            "events.job_log_store means nothing without events.job_log_topic",
        ),
        ({"job_log_topic": "t", "job_log_store": "reports"}, "events.job_log_store is reports"),
    ],
    ids=["none", "topic", "store", "log topic", "log store", "no kafka"],
)
def test_events_that_lack_something_are_refused_with_what_it_is(
    move: Move, events: dict[str, str], said: str
) -> None:
    move.declare(events=events)

    assert said in refusal(move.project)


# -- the declaration that comes with the package ---------------------------------------------------


def test_the_enrolments_of_the_package_survive_writes_during_the_run(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "MOST_WAIT_SECONDS", 1.0)
    package = Path(migration_platform.__file__).parent
    shipped = yaml.safe_load((package / "defs/report_user_enrolments/defs.yaml").read_text())
    kept = {
        name: value
        for name, value in shipped["attributes"].items()
        if name not in ("origin", "target", "events")
    }
    move.declare(**kept, token_ranges=8)
    everything = move.project.run(assets=[move.target])
    everything.assert_success()

    # As users do between the copy of a range and its comparison: new rows, changed ones.
    (first, *_) = move.origin_rows()
    move.execute(
        "UPDATE {origin} SET progress = 99 WHERE "
        + " AND ".join(f"{name} = '{first[name]}'" for name in ("userid", "courseid", "batchid"))
    )
    move.execute(
        "INSERT INTO {origin} (userid, courseid, batchid, progress) VALUES ('new', 'c', 'b', 1)"
    )
    move.project.run(assets=[move.diff]).assert_success()

    passed, said, _ = move.check("all_ranges_match")
    assert passed, said
    move.project.run().assert_success()
    move.assert_same_rows()
    assert kept["schedule"] == "15 19 * * *"
