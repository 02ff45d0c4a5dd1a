"""Runs that ended without a word: dead ones are marked failed, and their events are published.

A run notes its process and the state of its events in its tags. The next run of any migration,
and a sensor, read them. A run that was killed between sending its event and noting so is
ambiguous; its event carries the run's id, and Kafka is asked whether it is there. What could not
be delivered because Kafka was away is kept in a tag and delivered later.
"""

import hashlib
import json
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from migration_platform.runs.events import (
    DELIVERY_SECONDS,
    KafkaSettings,
    Message,
    append_to_log,
    find_metric_event,
    job_event,
    metric_event,
    publish,
)

PROCESS_TAG = "migration_platform/process"
PENDING, SENDING, DELIVERED, UNDELIVERED = "pending", "sending", "delivered", "not delivered"
PLANNED, BEGUN = "planned", "begun"
_LOOK_BACK = 200
_KEPT = ".dagster/"
"""Prefix of the tag that keeps what a run had to say until it is delivered; the UI hides it."""


@dataclass(frozen=True)
class EventSettings:
    """Where a migration's events go, and under which job name.

    Each place may be missing: without a `topic` there is no metric event. `config` is what the job
    was declared as, in JSON.
    """

    kafka: KafkaSettings | None
    topic: str | None
    job_log_topic: str | None
    job: str
    job_log_kafka: KafkaSettings | None = None
    job_log_file: Path | None = None
    config: str = "{}"

    def cluster_of(self, message: Message) -> KafkaSettings:
        """Give the cluster that has a message's topic."""
        cluster = (self.job_log_kafka if message.of_log else None) or self.kafka
        assert cluster is not None
        return cluster


def process_mark() -> str:
    """Name this process so that it cannot be taken for a later one with the same id."""
    process = psutil.Process()
    return f"{socket.gethostname()} {process.pid} {process.create_time():.2f}"


def events_tag(target: dg.AssetKey) -> str:
    """Give the run tag that holds the state of a migration's events."""
    return _tag_of(target, "events")


def copies_tag(target: dg.AssetKey) -> str:
    """Give the run tag that says that a run copies into a table.

    A run of a job, a scheduled one for instance, has no asset selection to tell it by.
    """
    return _tag_of(target, "copies")


def repairs_tag(target: dg.AssetKey) -> str:
    """Give the run tag that says that a run repairs a table without copying into it."""
    return _tag_of(target, "repairs")


def truncates_tag(target: dg.AssetKey) -> str:
    """Give the run tag that says that a run empties a table before it copies into it."""
    return _tag_of(target, "truncates")


def syncs_tag(target: dg.AssetKey) -> str:
    """Give the run tag that says that a run makes a table follow its origin."""
    return _tag_of(target, "syncs")


def _tag_of(target: dg.AssetKey, kind: str) -> str:
    # A tag's name has 63 characters at most: too few for three names, hence the digest.
    path = "/".join(target.path)
    digest = hashlib.sha256(path.encode()).hexdigest()[:8]
    table = re.sub(r"[^A-Za-z0-9_-]", "_", target.path[-1])[:40]
    return f"migration_platform/{kind}.{table}.{digest}"


def fail_dead_runs(instance: DagsterInstance) -> list[str]:
    """Mark runs as failed whose process, on this machine, is gone; gives their ids.

    Runs of other machines are left to Dagster's own run monitoring.
    """
    dead = []
    running = instance.get_runs(
        RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
    )
    for run in running:
        mark = run.tags.get(PROCESS_TAG)
        if mark and _is_dead(mark):
            instance.report_run_failed(
                run, "Its process is gone: it was killed, or the machine was restarted."
            )
            dead.append(run.run_id)
    return dead


def _is_dead(mark: str) -> bool:
    host, pid, created = mark.rsplit(" ", 2)
    if host != socket.gethostname() or int(pid) == os.getpid():
        return False
    try:
        process = psutil.Process(int(pid))
        return (
            abs(process.create_time() - float(created)) > 1.0
            or process.status() == psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return True


def settle_events(
    instance: DagsterInstance, target: dg.AssetKey, settings: EventSettings
) -> list[str]:
    """Publish the events that runs of this migration owe; gives what went wrong.

    A run owes its event if it was killed before it could send it, or if Kafka was away.
    """
    tag = events_tag(target)
    ended = instance.get_runs(
        RunsFilter(
            statuses=[
                DagsterRunStatus.FAILURE,
                DagsterRunStatus.CANCELED,
                DagsterRunStatus.SUCCESS,
            ]
        ),
        limit=_LOOK_BACK,
    )
    for run in reversed(ended):
        state = run.tags.get(tag)
        never_began = state is None and _failed_before_it_began(run, target)
        if state in (PENDING, SENDING, UNDELIVERED) or never_began:
            problem = _settle_run(instance, run, tag, settings)
            if problem:
                # Kafka is away: the others are tried by the next run or the sensor.
                return [f"the event of run {run.run_id} is still owed: {problem}"]
    return []


def _failed_before_it_began(run: DagsterRun, target: dg.AssetKey) -> bool:
    # A run that began notes its process; without an events tag none were declared then.
    began = PROCESS_TAG in run.tags
    selected = target in (run.asset_selection or ()) or copies_tag(target) in run.tags
    return selected and not began and run.status == DagsterRunStatus.FAILURE


def _settle_run(
    instance: DagsterInstance, run: DagsterRun, tag: str, settings: EventSettings
) -> str:
    kept = run.tags.get(f"{_KEPT}{tag}")
    messages = [Message(**message) for message in json.loads(kept)] if kept else None
    if settings.kafka and settings.topic and (messages is None or any(_of_metric(messages))):
        # What was sent may have arrived, although nobody lived to note it.
        found, problem = find_metric_event(settings.kafka, settings.topic, run.run_id)
        if problem:
            return problem
        if found:
            instance.add_run_tags(run.run_id, {tag: DELIVERED})
            return ""
    if messages is not None:
        return _publish_and_note(instance, run.run_id, tag, settings, messages)
    reason = f"the run ended as {run.status.value} before it could report"
    return publish_end(
        instance,
        run.run_id,
        tag,
        settings,
        success=run.status == DagsterRunStatus.SUCCESS,
        rows_written=0,
        seconds=0.0,
        reason=reason,
    )


def _of_metric(messages: Sequence[Message]) -> list[bool]:
    return [message.run_id is not None for message in messages]


def publish_end(
    instance: DagsterInstance,
    run_id: str,
    tag: str,
    settings: EventSettings,
    *,
    success: bool,
    rows_written: int,
    seconds: float,
    reason: str = "",
    data: dict | None = None,
    patience_seconds: float = DELIVERY_SECONDS,
) -> str:
    """Publish a run's JOB_END and its one metric event; gives one sentence if that failed."""
    # The file comes first: a run that is killed here is still taken for one that said nothing.
    logged = _job_end(settings, success, rows_written, reason, data)
    problem, messages = _log(settings, logged)
    if settings.topic:
        value = metric_event(
            job=settings.job, success=success, rows_written=rows_written, seconds=seconds
        )
        messages.append(Message(settings.topic, value, run_id))
    kept = json.dumps([asdict(message) for message in messages])
    instance.add_run_tags(run_id, {tag: SENDING, f"{_KEPT}{tag}": kept})
    undelivered = _publish_and_note(instance, run_id, tag, settings, messages, patience_seconds)
    return "; ".join(filter(None, (problem, undelivered)))


def publish_log(
    settings: EventSettings, event: dict[str, Any], patience_seconds: float = DELIVERY_SECONDS
) -> str:
    """Publish an event of the job log where it is wanted; gives one sentence if that failed."""
    problem, messages = _log(settings, [event])
    undelivered, _ = _publish(settings, messages, patience_seconds)
    return "; ".join(filter(None, (problem, undelivered)))


def _log(settings: EventSettings, events: Sequence[dict[str, Any]]) -> tuple[str, list[Message]]:
    """Write events to the log's file; give what went wrong, and what is to go to its topic."""
    file, topic = settings.job_log_file, settings.job_log_topic
    problem = append_to_log(file, list(events)) if file else ""
    return problem, [Message(topic, event, of_log=True) for event in events] if topic else []


def _publish(
    settings: EventSettings, messages: Sequence[Message], patience_seconds: float
) -> tuple[str, list[Message]]:
    """Send each cluster its messages; give what went wrong, and what is still owed."""
    clusters: dict[KafkaSettings, list[Message]] = {}
    for message in messages:
        clusters.setdefault(settings.cluster_of(message), []).append(message)
    problems: list[str] = []
    owed: list[Message] = []
    for cluster, its_own in clusters.items():
        problem = publish(cluster, its_own, seconds=patience_seconds)
        if problem:
            problems.append(problem)
            owed += its_own
    return "; ".join(problems), owed


def _publish_and_note(
    instance: DagsterInstance,
    run_id: str,
    tag: str,
    settings: EventSettings,
    messages: list[Message],
    patience_seconds: float = DELIVERY_SECONDS,
) -> str:
    problem, owed = _publish(settings, messages, patience_seconds)
    tags = {tag: UNDELIVERED if problem else DELIVERED}
    if problem and len(owed) < len(messages):
        # What the other cluster has is not sent twice.
        tags[f"{_KEPT}{tag}"] = json.dumps([asdict(message) for message in owed])
    instance.add_run_tags(run_id, tags)
    return problem


def _job_end(
    settings: EventSettings, success: bool, rows_written: int, reason: str, data: dict | None
) -> list[dict[str, Any]]:
    if success:
        end = job_event(
            "JOB_END",
            job=settings.job,
            message=f"{settings.job} Completed successfully!",
            status="SUCCESS",
            data={**(data or {}), "total-records-migrated": rows_written},
        )
        return [end]
    log = job_event("JOB_LOG", job=settings.job, message=reason, level="ERROR")
    end = job_event(
        "JOB_END",
        job=settings.job,
        message=f"{settings.job} execution failed",
        status="FAILED",
        data={"model": settings.job, "statusMsg": reason},
    )
    return [log, end]
