"""What a run tells the world, through Kafka and a file: metric events and job-log events.

Shapes are those of Sunbird's Cassandra migrator job, so that what reads its events can read
these. Two figures are better than there: the metric counts rows written, not rows read, and the
log line about fetching is sent when reading ends. Nothing here is ever a reason for a copy to
fail: what could not be delivered is returned as one sentence.
"""

import hashlib
import json
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

DELIVERY_SECONDS = 15.0
RUN_ID_HEADER = "run_id"
LOOK_BACK_MESSAGES = 100_000
APP_ID, CHANNEL = "AnalyticsDataPipeline", "in.ekstep"
JOB_CLASS = "org.ekstep.analytics.updater.CassandraMigratorJob"
MODEL = "CassandraMigratorJob"


@dataclass(frozen=True)
class KafkaSettings:
    """How to reach a Kafka cluster; the password never shows in a `repr`."""

    bootstrap_servers: str = "127.0.0.1:9092"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    def to_config(self) -> dict[str, str]:
        """Give the client's configuration for the connection."""
        config = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
            "ssl.ca.location": self.ca_file,
        }
        return {key: value for key, value in config.items() if value is not None}


@dataclass(frozen=True)
class Message:
    """An event on its way to a topic."""

    topic: str
    value: dict[str, Any]
    run_id: str | None = None
    """Travels as a header, by which an event can be told to be a certain run's."""
    of_log: bool = False
    """Whether it belongs to the job log, which may have a cluster of its own."""


def metric_event(
    *, job: str, success: bool, rows_written: int, seconds: float, now: datetime | None = None
) -> dict[str, Any]:
    """Build the event of a run's end; a failed run carries no figures.

    `time-taken-secs` is whole seconds, cut off, as a double: 1.9 s is 1.0.
    """
    now = now or datetime.now(UTC)
    metrics = [
        {"id": "total-records-migrated", "value": rows_written},
        {"id": "time-taken-secs", "value": float(int(seconds))},
    ]
    return {
        "metricts": int(now.timestamp() * 1000),
        "system": "DataProduct",
        "subsystem": job,
        "metrics": metrics if success else [],
        "dimensions": [
            {"id": "report-date", "value": now.astimezone(UTC).strftime("%Y-%m-%d")},
            {"id": "status", "value": "SUCCESS" if success else "FAILED"},
        ],
    }


def job_event(
    eid: str,
    *,
    job: str,
    message: str,
    level: str = "INFO",
    status: str | None = None,
    data: dict[str, Any] | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Build a JOB_START, JOB_LOG or JOB_END event; `status` belongs to JOB_END only."""
    now = (now or datetime.now(UTC)).astimezone(UTC)
    millis = f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}+0000"
    parts = "|".join((eid, level, millis, APP_ID, CHANNEL))
    edata: dict[str, Any] = {"class": JOB_CLASS, "level": level, "message": message}
    if status is not None:
        edata["status"] = status
    if data is not None:
        edata["data"] = data
    return {
        "eid": eid,
        "ets": int(now.timestamp() * 1000),
        "@timestamp": now.strftime("%Y-%m-%dT%H:%M:%S+00:00"),
        "ver": "3.0",
        # An id, not a secret: the shape asks for MD5.
        "mid": hashlib.md5(parts.encode(), usedforsecurity=False).hexdigest().upper(),
        "actor": {"id": "", "type": "System"},
        "context": {
            "channel": CHANNEL,
            "pdata": {"id": APP_ID, "ver": "1.0", "pid": job},
            "env": "analytics",
        },
        "edata": edata,
    }


def publish(
    settings: KafkaSettings, messages: list[Message], *, seconds: float = DELIVERY_SECONDS
) -> str:
    """Send events and wait until the brokers acknowledged them all.

    Returns:
        An empty string when every event was delivered, else one sentence that says what was not.
    """
    undelivered: list[str] = []
    causes: list[str] = []

    def on_delivery(error: Any, _message: Any) -> None:
        if error is not None:
            undelivered.append(error.str())

    def on_error(error: Any) -> None:
        causes.append(error.str())

    try:
        producer = Producer(
            {
                **settings.to_config(),
                # Retries inside the client neither lose nor double an event.
                "enable.idempotence": True,
                "compression.type": "snappy",
                "linger.ms": 10,
                "message.timeout.ms": int(seconds * 1000),
                "error_cb": on_error,
                "logger": silent_logger(),
            }
        )
    except (KafkaException, ValueError) as error:
        return f"no event was sent: {error}"
    for message in messages:
        headers: dict[str, str | bytes | None] = {}
        if message.run_id:
            headers[RUN_ID_HEADER] = message.run_id
        try:
            text = _to_json(message.value)
            producer.produce(
                message.topic, value=text.encode(), headers=headers, on_delivery=on_delivery
            )
        except KafkaException as error:
            undelivered.append(error.args[0].str())
        except (BufferError, ValueError, TypeError) as error:
            # One event that cannot be sent keeps none of the others back.
            undelivered.append(str(error))
    left = producer.flush(seconds + 1)
    if not left and not undelivered:
        return ""
    why = causes[0] if causes else undelivered[0] if undelivered else "no acknowledgement in time"
    failed = left + len(undelivered)
    return (
        f"{failed} of {len(messages)} events were not delivered to {settings.bootstrap_servers}: "
        f"{why}"
    )


def append_to_log(path: Path, events: list[dict[str, Any]]) -> str:
    """Append job events to a file, a line each, so that `grep` and `tail` find the last one.

    Returns:
        An empty string, or one sentence that says why the file was not written.
    """
    text = "".join(f"{_to_json(event)}\n" for event in events)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One write in append mode: lines of runs that end together do not mix.
        with path.open("ab", buffering=0) as file:
            file.write(text.encode())
    except OSError as error:
        return f"the job log {path} was not written: {error.strerror or error}"
    return ""


def _to_json(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False)


def find_metric_event(
    settings: KafkaSettings, topic: str, run_id: str, *, seconds: float = DELIVERY_SECONDS
) -> tuple[bool, str]:
    """Look for a run's metric event among a topic's newest messages.

    Returns:
        Whether it is there, and one sentence if that could not be found out.
    """
    try:
        return read_metric_event(settings, topic, run_id, seconds=seconds) is not None, ""
    except (KafkaException, TimeoutError) as error:
        return False, f"the topic {topic} could not be read: {error}"


def read_metric_event(
    settings: KafkaSettings, topic: str, run_id: str, *, seconds: float = DELIVERY_SECONDS
) -> dict[str, Any] | None:
    """Read a run's metric event back from its topic; None if it is not there.

    Raises:
        confluent_kafka.KafkaException: the brokers refused or did not answer.
        TimeoutError: the newest messages were not read within `seconds`.
    """
    deadline = time.monotonic() + seconds
    consumer = Consumer(
        {
            **settings.to_config(),
            "group.id": "migration-platform-look-up",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        },
        logger=silent_logger(),
    )
    try:
        partitions = consumer.list_topics(topic, timeout=seconds).topics[topic].partitions
        places = []
        for partition in partitions:
            low, high = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=seconds
            )
            places.append(TopicPartition(topic, partition, max(low, high - LOOK_BACK_MESSAGES)))
        consumer.assign(places)
        left = set(partitions)
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not read within {seconds:.0f} s")
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                left.discard(message.partition())
            elif (RUN_ID_HEADER, run_id.encode()) in (message.headers() or []):
                return json.loads(message.value() or b"null")
        return None
    finally:
        consumer.close()


def silent_logger() -> logging.Logger:
    """Keep the client's own log lines off the terminal; what matters is returned."""
    logger = logging.getLogger("migration_platform.kafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger
