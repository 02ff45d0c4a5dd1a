"""Events have the shape that readers of Sunbird's events expect, and never stop a run."""

import hashlib
import json
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from confluent_kafka import Consumer

from migration_platform.local.ports import free_port
from migration_platform.runs.events import (
    KafkaSettings,
    Message,
    find_metric_event,
    job_event,
    metric_event,
    publish,
    read_metric_event,
)

NOW = datetime(2026, 1, 31, 23, 59, 58, 123_987, tzinfo=UTC)


def read_all(port, topic, count, seconds=60):
    """Read a topic from its beginning until nothing has come for a second after `count`."""
    consumer = Consumer(
        {
            "bootstrap.servers": f"127.0.0.1:{port}",
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    found = []
    try:
        consumer.subscribe([topic])
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                found.append(message)
            elif message is None and len(found) >= count:
                break
    finally:
        consumer.close()
    return found


def test_the_metric_event_of_a_success_has_every_figure():
    event = metric_event(job="My job", success=True, rows_written=42, seconds=1.999, now=NOW)
    assert event == {
        "metricts": 1769903998123,
        "system": "DataProduct",
        "subsystem": "My job",
        "metrics": [
            {"id": "total-records-migrated", "value": 42},
            {"id": "time-taken-secs", "value": 1.0},
        ],
        "dimensions": [
            {"id": "report-date", "value": "2026-01-31"},
            {"id": "status", "value": "SUCCESS"},
        ],
    }
    assert isinstance(event["metricts"], int)
    assert isinstance(event["metrics"][0]["value"], int)
    assert isinstance(event["metrics"][1]["value"], float)
    assert '"value":1.0}' in json.dumps(event, separators=(",", ":"))


@pytest.mark.parametrize(("seconds", "told"), [(0, 0.0), (0.999, 0.0), (60.0, 60.0), (61.5, 61.0)])
def test_the_time_taken_is_whole_seconds_cut_off(seconds, told):
    event = metric_event(job="j", success=True, rows_written=0, seconds=seconds)
    assert event["metrics"][1] == {"id": "time-taken-secs", "value": told}


def test_the_metric_event_of_a_failure_has_no_figures():
    event = metric_event(job="j", success=False, rows_written=42, seconds=9, now=NOW)
    assert event["metrics"] == []
    assert event["dimensions"][1] == {"id": "status", "value": "FAILED"}
    assert list(event) == ["metricts", "system", "subsystem", "metrics", "dimensions"]


def test_the_report_date_is_the_day_in_utc():
    india = timezone(timedelta(hours=5, minutes=30))
    event = metric_event(
        job="j", success=True, rows_written=0, seconds=0, now=datetime(2026, 2, 1, 5, tzinfo=india)
    )
    assert event["dimensions"][0]["value"] == "2026-01-31"
    before = datetime.now(UTC)
    event = metric_event(job="j", success=True, rows_written=0, seconds=0)
    assert int(before.timestamp() * 1000) <= event["metricts"] <= time.time() * 1000


def test_a_job_event_has_every_field_of_the_log_format():
    event = job_event("JOB_LOG", job="Job", message="Time", data={"timeTaken": 1}, now=NOW)
    hashed = "JOB_LOG|INFO|2026-01-31T23:59:58.123+0000|AnalyticsDataPipeline|in.ekstep"
    assert event == {
        "eid": "JOB_LOG",
        "ets": 1769903998123,
        "@timestamp": "2026-01-31T23:59:58+00:00",
        "ver": "3.0",
        "mid": hashlib.md5(hashed.encode()).hexdigest().upper(),
        "actor": {"id": "", "type": "System"},
        "context": {
            "channel": "in.ekstep",
            "pdata": {"id": "AnalyticsDataPipeline", "ver": "1.0", "pid": "Job"},
            "env": "analytics",
        },
        "edata": {
            "class": "org.ekstep.analytics.updater.CassandraMigratorJob",
            "level": "INFO",
            "message": "Time",
            "data": {"timeTaken": 1},
        },
    }
    assert len(event["mid"]) == 32


def test_only_the_end_of_a_job_has_a_status():
    end = job_event("JOB_END", job="j", message="m", status="SUCCESS", data={})
    assert end["edata"]["status"] == "SUCCESS"
    assert end["edata"]["data"] == {}
    log = job_event("JOB_LOG", job="j", message="m", level="ERROR")
    assert set(log["edata"]) == {"class", "level", "message"}
    assert log["edata"]["level"] == "ERROR"
    assert log["mid"] != end["mid"]


def test_an_event_arrives_once_without_a_key_and_compressed(kafka):
    topic = f"metrics-{uuid.uuid4().hex[:8]}"
    event = metric_event(job="जॉब ★", success=True, rows_written=10**10, seconds=3.2)
    settings = KafkaSettings(f"127.0.0.1:{kafka.port}")
    assert publish(settings, [Message(topic, event)]) == ""
    (message,) = read_all(kafka.port, topic, 1)
    assert message.key() is None
    assert json.loads(message.value()) == event
    assert message.headers() is None
    # What is left on the disk of the broker is what the producer sent.
    batches = [path.read_bytes() for path in kafka.home.glob(f"kafka/data/{topic}-0/*.log")]
    assert len(batches) == 1
    assert batches[0][22] & 0x07 == 2, "compression 2 is snappy"


def test_events_arrive_in_their_order_each_on_its_topic(kafka):
    one, other = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("log", "metrics"))
    events = [
        job_event(eid, job="j", message=str(n))
        for n, eid in enumerate(["JOB_START", "JOB_LOG", "JOB_END"])
    ]
    last = metric_event(job="j", success=False, rows_written=0, seconds=0)
    settings = KafkaSettings(f"127.0.0.1:{kafka.port}")
    assert publish(settings, [*(Message(one, e) for e in events), Message(other, last)]) == ""
    assert [json.loads(m.value()) for m in read_all(kafka.port, one, 3)] == events
    assert [json.loads(m.value()) for m in read_all(kafka.port, other, 1)] == [last]


def test_a_runs_event_is_found_again_by_its_id(kafka):
    topic = f"metrics-{uuid.uuid4().hex[:8]}"
    settings = KafkaSettings(f"127.0.0.1:{kafka.port}")
    event = metric_event(job="j", success=True, rows_written=1, seconds=1)
    assert publish(settings, [Message(topic, event, run_id="run-1")]) == ""
    assert read_metric_event(settings, topic, "run-1") == event
    assert find_metric_event(settings, topic, "run-1") == (True, "")
    assert find_metric_event(settings, topic, "run-2") == (False, "")


def test_nothing_to_say_needs_no_kafka():
    assert publish(KafkaSettings(f"127.0.0.1:{free_port()}"), []) == ""


def test_a_kafka_that_is_down_gives_a_sentence_in_the_time_given():
    port = free_port()
    settings = KafkaSettings(f"127.0.0.1:{port}")
    started = time.monotonic()
    said = publish(settings, [Message("t", {}), Message("t", {})], seconds=2)
    assert time.monotonic() - started < 4
    assert said.startswith(f"2 of 2 events were not delivered to 127.0.0.1:{port}: ")
    assert len(said.splitlines()) == 1


def test_a_password_is_told_to_nobody(capfd):
    settings = KafkaSettings(
        f"127.0.0.1:{free_port()}",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        username="pete",
        password="hunter2",
    )
    assert "hunter2" not in repr(settings) + str(settings)
    said = publish(settings, [Message("t", {})], seconds=1)
    assert said
    assert "hunter2" not in said
    wrong = KafkaSettings("127.0.0.1:1", security_protocol="NONSENSE", password="hunter2")
    said = publish(wrong, [Message("t", {})], seconds=1)
    assert said.startswith("no event was sent: ")
    assert "hunter2" not in said
    assert "hunter2" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (Message("no such topic!", {}), "Invalid topic"),
        (Message("t", {"x": object()}), "not JSON serializable"),
        (Message("t", {"x": "y" * 2_000_000}), "Message size too large"),
    ],
    ids=["topic", "object", "size"],
)
def test_an_event_that_cannot_be_sent_is_told_of_and_keeps_no_other_back(kafka, event, why):
    topic = f"log-{uuid.uuid4().hex[:8]}"
    settings = KafkaSettings(f"127.0.0.1:{kafka.port}")
    said = publish(settings, [Message(topic, {"n": 1}), event, Message(topic, {"n": 2})], seconds=3)
    assert said.startswith("1 of 3 events were not delivered to 127.0.0.1:")
    assert why in said
    assert [json.loads(m.value()) for m in read_all(kafka.port, topic, 2)] == [{"n": 1}, {"n": 2}]
