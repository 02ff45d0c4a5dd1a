"""What runs tell Kafka, read back with a plain consumer: one metric event a run, whatever comes."""

import hashlib
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from migration_platform.components.table.ended_runs import events_tag
from migration_platform.local.ports import free_port
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    ROWS,
    Move,
)

pytestmark = DAGSTERS_OWN_WARNINGS

JOB = "CassandraMigratorJob"


@pytest.fixture
def told(move: Move) -> Move:
    """The migration with events."""
    move.declare(events=move.events)
    return move


def dead_port(move: Move, store: str) -> int:
    """Point a store at a port where nobody listens."""
    port = free_port()
    cluster = {"contact_points": ["127.0.0.1"], "port": move.connection.settings.port}
    dead = {"contact_points": ["127.0.0.1"], "port": port}
    kafka = f"127.0.0.1:{port}" if store == "monitoring" else move.bootstrap_servers
    move.project.declare(
        "stores",
        "Stores",
        cassandra={
            "sunbird": dead if store == "sunbird" else cluster,
            "reports": dead if store == "reports" else cluster,
        },
        kafka={"monitoring": {"bootstrap_servers": kafka}},
    )
    return port


def test_a_run_that_succeeds_publishes_one_metric_event(told: Move) -> None:
    before = time.time()
    told.project.run().assert_success()

    (message,) = told.metrics.read_messages()
    (event,) = told.metrics.read()
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    assert message.key() is None
    assert before * 1000 - 1 <= event.pop("metricts") <= time.time() * 1000
    assert event == {
        "system": "DataProduct",
        "subsystem": JOB,
        "metrics": [
            {"id": "total-records-migrated", "value": ROWS},
            {"id": "time-taken-secs", "value": event["metrics"][1]["value"]},
        ],
        "dimensions": [
            {"id": "report-date", "value": today},
            {"id": "status", "value": "SUCCESS"},
        ],
    }
    # A double of whole seconds, also when JSON could write it shorter.
    assert re.search(rb'"time-taken-secs","value":\d+\.0}', message.value())


def test_a_run_that_fails_publishes_one_metric_event_without_figures(told: Move) -> None:
    told.add_a_row_that_the_target_refuses(KEYS[2])

    assert not told.project.run().success

    (event,) = told.metrics.read()
    assert isinstance(event.pop("metricts"), int)
    assert event == {
        "system": "DataProduct",
        "subsystem": JOB,
        "metrics": [],
        "dimensions": [
            {"id": "report-date", "value": datetime.now(UTC).strftime("%Y-%m-%d")},
            {"id": "status", "value": "FAILED"},
        ],
    }


def test_the_job_log_tells_start_steps_and_end_in_order(told: Move) -> None:
    told.project.run().assert_success()

    events = told.job_log.read()
    assert [(e["eid"], e["edata"]["message"]) for e in events] == [
        ("JOB_START", f"{JOB} Started executing"),
        ("JOB_LOG", "Time to fetch data cassandra data"),
        ("JOB_LOG", "Time to complete migration of cassandra table"),
        ("JOB_END", f"{JOB} Completed successfully!"),
    ]
    start, fetched, written, end = (event["edata"] for event in events)
    assert start["data"]["model"] == JOB
    config = json.loads(start["data"]["config"])
    assert config == yaml.safe_load((told.project.defs_folder / "enrolments/defs.yaml").read_text())
    assert end["data"]["config"] == start["data"]["config"]
    assert fetched["data"]["count"] == ROWS
    assert 0 <= fetched["data"]["timeTaken"] <= written["data"]["timeTaken"]
    assert end["status"] == "SUCCESS"
    assert end["data"]["total-records-migrated"] == ROWS
    assert [e["ets"] for e in events] == sorted(e["ets"] for e in events)


def test_every_job_log_event_has_exactly_the_known_fields(told: Move) -> None:
    told.project.run().assert_success()

    for event in told.job_log.read():
        assert_job_event(event)


def test_a_run_that_fails_logs_the_reason_and_ends_failed(told: Move) -> None:
    told.add_a_row_that_the_target_refuses(KEYS[2])
    told.project.run()

    events = told.job_log.read()
    for event in events:
        assert_job_event(event)
    log, end = (event["edata"] for event in events[-2:])
    assert [e["eid"] for e in events] == ["JOB_START", "JOB_LOG", "JOB_LOG", "JOB_END"]
    assert log["level"] == "ERROR"
    assert f"1 of 8 ranges failed ({KEYS[2]})" in log["message"]
    assert end["status"] == "FAILED"
    assert end["message"] == f"{JOB} execution failed"
    assert end["data"] == {"model": JOB, "statusMsg": log["message"]}


def test_the_job_name_is_the_subsystem_and_topics_are_the_declared_ones(told: Move) -> None:
    told.declare(events={**told.events, "job_name": "NightlyCopy", "job_log_topic": None})

    told.project.run(KEYS[0]).assert_success()

    (event,) = told.metrics.read()
    assert event["subsystem"] == "NightlyCopy"
    assert event["metrics"][0]["value"] == len(told.origin_rows(KEYS[0]))
    assert told.job_log.read() == []


def test_runs_that_copy_nothing_publish_nothing(told: Move) -> None:
    told.project.run(None, only_checks=True).assert_success()
    told.project.run(KEYS[0], assets=[told.diff])

    assert told.metrics.read() == []
    assert told.job_log.read() == []


def test_a_copy_whose_rows_differ_afterwards_is_a_failed_run(told: Move) -> None:
    told.execute("INSERT INTO {target} (batchid, courseid, userid) VALUES ('b', 'c', 'u-extra')")

    assert not told.project.run().success

    assert [e["dimensions"][1]["value"] for e in told.metrics.read()] == ["FAILED"]


# -- servers that are down ---------------------------------------------------------------------


def test_a_kafka_that_is_down_neither_fails_nor_delays_the_copy_and_gets_its_events_later(
    told: Move,
) -> None:
    port = dead_port(told, "monitoring")
    started = time.monotonic()

    run = told.project.run().assert_success()

    assert time.monotonic() - started < 45
    told.assert_same_rows()
    assert told.project.statuses(told.diff) == dict.fromkeys(KEYS, "success")
    log = told.project.messages_of(run.run_id)
    assert f"events were not delivered to 127.0.0.1:{port}" in log
    tables = [metadata for partition, metadata in run.observations(told.target) if not partition]
    assert f"127.0.0.1:{port}" in tables[-1]["events"]
    assert f"127.0.0.1:{port}" in told.table_metadata()["events"]
    (stored,) = told.project.runs()
    assert stored.tags[events_tag(told.target)] == "not delivered"

    dead_port(told, "nothing")
    told.project.run(KEYS[0]).assert_success()
    told.project.run(KEYS[1]).assert_success()
    counts = [event["metrics"][0]["value"] for event in told.metrics.read()]
    assert counts == [ROWS, *(len(told.origin_rows(key)) for key in KEYS[:2])]


@pytest.mark.parametrize("store", ["sunbird", "reports"])
def test_a_dead_cassandra_fails_the_run_in_seconds_with_one_sentence_and_an_event(
    told: Move, store: str
) -> None:
    told.declare(events=told.events, retry_seconds=1)
    port = dead_port(told, store)
    started = time.monotonic()

    run = told.project.run()

    assert not run.success
    assert time.monotonic() - started < 20
    assert f"cannot connect to 127.0.0.1 port {port}" in run.error
    assert [e["dimensions"][1]["value"] for e in told.metrics.read()] == ["FAILED"]
    assert f"127.0.0.1 port {port}" in told.job_log.read()[-1]["edata"]["data"]["statusMsg"]
    assert told.project.statuses(told.target) == dict.fromkeys(KEYS, "failed")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("nowhere.user_enrolments", "there is no keyspace nowhere"),
        ("{keyspace}.enrolments", "user_enrolments"),
    ],
)
def test_a_missing_keyspace_or_table_fails_the_run_with_a_hint_and_an_event(
    told: Move, table: str, sentence: str
) -> None:
    told.declare(events=told.events, origin={"table": table.format(keyspace=told.keyspace)})

    run = told.project.run()

    assert not run.success
    assert sentence in run.error
    assert [e["dimensions"][1]["value"] for e in told.metrics.read()] == ["FAILED"]


def test_a_run_that_fails_before_it_begins_is_reported_by_the_next(told: Move) -> None:
    # As Dagster notes a run whose process could not be started.
    job = told.project.load().resolve_implicit_global_asset_job_def()
    with told.project.instance() as instance:
        run = instance.create_run_for_job(job, asset_selection=frozenset({told.target, told.diff}))
        instance.report_run_failed(run)

    told.project.run(KEYS[0]).assert_success()
    told.project.run(KEYS[1]).assert_success()

    statuses = [event["dimensions"][1]["value"] for event in told.metrics.read()]
    assert statuses == ["FAILED", "SUCCESS", "SUCCESS"]


def test_runs_from_before_events_were_declared_are_not_reported_later(move: Move) -> None:
    move.add_a_row_that_the_target_refuses(KEYS[2])
    assert not move.project.run(KEYS[2]).success
    move.declare(events=move.events)

    move.project.run(KEYS[0]).assert_success()

    assert [e["dimensions"][1]["value"] for e in move.metrics.read()] == ["SUCCESS"]


def assert_job_event(event: dict[str, Any]) -> None:
    """Hold an event against the shape that Sunbird's readers know."""
    assert list(event) == [
        "eid", "ets", "@timestamp", "ver", "mid", "actor", "context", "edata",
    ]  # fmt: skip
    moment = datetime.fromtimestamp(event["ets"] / 1000, UTC)
    assert event["@timestamp"] == moment.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    millis = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{event['ets'] % 1000:03d}+0000"
    level = event["edata"]["level"]
    parts = f"{event['eid']}|{level}|{millis}|AnalyticsDataPipeline|in.ekstep"
    assert event["mid"] == hashlib.md5(parts.encode()).hexdigest().upper()
    assert event["ver"] == "3.0"
    assert event["actor"] == {"id": "", "type": "System"}
    assert event["context"] == {
        "channel": "in.ekstep",
        "pdata": {"id": "AnalyticsDataPipeline", "ver": "1.0", "pid": JOB},
        "env": "analytics",
    }
    edata = event["edata"]
    assert edata["class"] == "org.ekstep.analytics.updater.CassandraMigratorJob"
    assert ("status" in edata) == (event["eid"] == "JOB_END")
    assert set(edata) <= {"class", "level", "message", "status", "data"}
