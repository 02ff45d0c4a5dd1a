"""The demo's table that goes on living: it is copied, and then its target follows it.

An application changes rows for half a minute and tells their keys to a topic. Dagster's daemon runs
the sensor, which requests the runs that follow.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from migration_platform.demo import sample
from migration_platform.demo.runs import (
    BARS,
    RANGES,
    Check,
    Run,
    Stage,
    build_environment,
    launch,
    lay_lines,
    prepare_instance,
    progress,
    tell_checks,
    tell_run,
)
from migration_platform.errors import MigrationError
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.kafka import Kafka
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.server import Server
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.syncing.position import Position

if TYPE_CHECKING:
    import dagster as dg

ORIGIN, TARGET = "live_enrolments", "report_live_enrolments"
ASSET = f"reports/{sample.KEYSPACE}/{TARGET}"
SYNC = f"{ASSET}_sync"
CHECKS = {
    ASSET: ("row_counts_match", "all_ranges_match"),
    SYNC: ("sync_is_fresh", "no_dead_letters"),
}
TOPIC = "demo.live_enrolments.changes"
STATEMENTS = {
    "learned on": "UPDATE {} SET progress = ?, status = 1 "
    "WHERE userid = ? AND courseid = ? AND batchid = ?",
    "enrolled": "INSERT INTO {} (progress, userid, courseid, batchid, active) "
    "VALUES (?, ?, ?, ?, true)",
    "left": "DELETE FROM {} WHERE userid = ? AND courseid = ? AND batchid = ?",
}
CHANGES_A_SECOND = 40
LIVE_SECONDS = 30.0
CATCH_UP_SECONDS = 240.0
LINE_SECONDS = 2.0


@dataclass(frozen=True)
class SyncJob:
    """A copy, changes while everybody looks, and two tables that are the same in the end."""

    servers: tuple[type[Server], ...] = (Cassandra, Kafka)
    title: str = f"{sample.KEYSPACE}.{ORIGIN}"
    goal: str = f"Copying it to {ASSET}, and following it from then on"
    pages: tuple[str, ...] = (f"assets/{SYNC}", "automation")

    def fill(self, stage: Stage) -> None:
        """Make both tables anew and fill the origin: each demo changes it."""
        with Connection(CassandraSettings(port=stage.ports["cassandra"])) as connection:
            for name in (ORIGIN, TARGET):
                connection.session.execute(f"DROP TABLE IF EXISTS {sample.KEYSPACE}.{name}")
            sample.create_tables(connection, origin=ORIGIN, target=TARGET)
            with progress(stage.count, "rows") as bar:
                seconds = sample.fill_origin(
                    connection, stage.count, seed=stage.seed, table=ORIGIN, on_progress=bar.update
                )
        _create_topic(stage)
        stage.echo(f"     {stage.count:,} enrolments in {seconds:.0f} s")

    def run(self, stage: Stage) -> bool:
        """Copy, follow, and compare."""
        (copied,) = launch(stage, [Run((ASSET,), RANGES, bars=BARS)])
        if not copied.succeeded:
            return False
        stage.echo(f"     Copied in {copied.seconds:.0f} s; now the daemon follows what changes")
        with _daemon(stage), _instance(stage) as instance:
            changes = _change_rows(stage, instance)
            caught_up = _wait_until_caught_up(stage, instance, changes)
        if not caught_up:
            return False
        (compared,) = launch(stage, [Run((f"{ASSET}_diff",), RANGES, bars=BARS)])
        done = ", ".join(f"{changes.done[what]:,} {what}" for what in STATEMENTS)
        with _instance(stage) as instance:
            checks = _read_checks(instance)
        lay_lines(
            stage,
            [tell_run(compared), ("changes", f"{changes.told:,}: {done}"), *tell_checks(checks)],
        )
        return compared.succeeded and all(check.passed for check in checks)


@dataclass
class Changes:
    """What the application does: rows change, come and go, and each key is told."""

    stage: Stage
    done: Counter[str] = field(default_factory=Counter)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        """Make ready, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def told(self) -> int:
        """How many changes were made and told."""
        return sum(self.done.values())

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether there is more to come."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._change()
        except BaseException as error:
            self.error = error

    def _change(self) -> None:
        from confluent_kafka import Producer

        stage = self.stage
        producer = Producer({"bootstrap.servers": f"{LOCALHOST}:{stage.ports['kafka']}"})
        chance = random.Random(stage.seed)  # noqa: S311, sample data
        rows = [_key_of(row) for row in sample.enrolments(min(stage.count, 5_000), stage.seed)]
        name = f"{sample.KEYSPACE}.{ORIGIN}"
        with Connection(CassandraSettings(port=stage.ports["cassandra"])) as connection:
            prepared = {
                what: connection.prepare(text.format(name)) for what, text in STATEMENTS.items()
            }
            began = time.monotonic()
            for number in range(int(LIVE_SECONDS * CHANGES_A_SECOND)):
                time.sleep(max(0.0, began + number / CHANGES_A_SECOND - time.monotonic()))
                what = chance.choices(list(prepared), (8, 3, 1))[0]
                key = chance.choice(rows)
                if what == "enrolled":
                    key = {**key, "userid": f"new-{number:06d}"}
                values = list(key.values())
                bound = values if what == "left" else [chance.randrange(12), *values]
                connection.session.execute(prepared[what], bound)
                producer.produce(TOPIC, json.dumps(key).encode(), key=key["userid"].encode())
                producer.poll(0)
                self.done[what] += 1
        producer.flush(30)


def _key_of(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in ("userid", "courseid", "batchid")}


def _create_topic(stage: Stage) -> None:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": f"{LOCALHOST}:{stage.ports['kafka']}"})
    try:
        admin.create_topics([NewTopic(TOPIC, num_partitions=3, replication_factor=1)])[
            TOPIC
        ].result(60)
    except KafkaException as error:
        if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
            raise MigrationError(
                f"the topic {TOPIC} cannot be made: {error.args[0].str()}"
            ) from None


@contextmanager
def _instance(stage: Stage) -> Iterator["dg.DagsterInstance"]:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(prepare_instance(stage.home))) as instance:
        yield instance


@contextmanager
def _daemon(stage: Stage) -> Iterator[None]:
    """Run Dagster's daemon, which evaluates sensors; what it says goes to the job's log."""
    command = (
        sys.executable,
        *("-m", "dagster._daemon", "run", "-m", "migration_platform.definitions"),
    )
    with stage.log.open("a") as log:
        process = subprocess.Popen(
            command,
            env=build_environment(stage),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _change_rows(stage: Stage, instance: "dg.DagsterInstance") -> Changes:
    """Change rows for a while, and show how far the target is behind meanwhile."""
    changes = Changes(stage)
    changes.start()
    while changes.is_alive:
        time.sleep(LINE_SECONDS)
        _show_lag(stage, instance, changes)
    if changes.error is not None:
        raise MigrationError(f"rows could not be changed: {changes.error}")
    return changes


def _wait_until_caught_up(stage: Stage, instance: "dg.DagsterInstance", changes: Changes) -> bool:
    """Wait until all that was told is at the target."""
    until = time.monotonic() + CATCH_UP_SECONDS
    while _show_lag(stage, instance, changes):
        if time.monotonic() >= until:
            stage.echo(f"     The target did not catch up; what the daemon said: {stage.log}")
            return False
        time.sleep(LINE_SECONDS)
    return True


def _read_checks(instance: "dg.DagsterInstance") -> list[Check]:
    """Give what the checks of the table and of what follows it said last."""
    import dagster as dg

    keys = [
        dg.AssetCheckKey(dg.AssetKey(asset.split("/")), name)
        for asset, names in CHECKS.items()
        for name in names
    ]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return [
        Check(key.name, said.passed, said.description or "")
        for key in keys
        if (record := found.get(key)) is not None
        and record.event is not None
        and record.event.dagster_event is not None
        and (said := record.event.dagster_event.asset_check_evaluation_data) is not None
    ]


def _show_lag(stage: Stage, instance: "dg.DagsterInstance", changes: Changes) -> int:
    """Show how many changes the target lacks; gives the number."""
    reached = _offsets_reached(instance)
    behind = sum(end - reached.get(part, 0) for part, end in _ends(stage).items())
    told = (
        f"{behind:,} behind"
        if reached
        else f"{changes.told:,} behind, until the sensor's first run begins"
    )
    stage.echo(f"     {changes.told:5,} changes told   {told}")
    return behind


def _offsets_reached(instance: "dg.DagsterInstance") -> dict[int, int]:
    """Give the position that the newest run has told; empty before the first."""
    import dagster as dg

    entry = instance.get_latest_materialization_event(dg.AssetKey(SYNC.split("/")))
    seen = entry.asset_materialization if entry else None
    if seen is None or "position" not in seen.metadata:
        return {}
    text = seen.metadata["position"].value
    return dict(Position.parse(text if isinstance(text, str) else json.dumps(text)).offsets)


def _ends(stage: Stage) -> dict[int, int]:
    """Give where each partition of the topic ends."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {"bootstrap.servers": f"{LOCALHOST}:{stage.ports['kafka']}", "group.id": "demo"}
    )
    try:
        partitions = consumer.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions
        return {
            part: consumer.get_watermark_offsets(TopicPartition(TOPIC, part), timeout=30)[1]
            for part in partitions
        }
    finally:
        consumer.close()
