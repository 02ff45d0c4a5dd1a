"""The sample tables with a synchronisation: a topic that names changed rows, and its sensor."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from migration_platform_tests.dagster_project import Move, RunResult, _values
from migration_platform_tests.servers import PATIENCE_SECONDS

KEYS = ("batchid", "userid", "courseid")


@dataclass
class SyncedMove:
    """A move whose target follows its origin by a topic of its own."""

    move: Move
    topic: str

    @property
    def sync(self) -> dg.AssetKey:
        return dg.AssetKey([*self.move.target.path[:-1], f"{self.move.target.path[-1]}_sync"])

    @property
    def step(self) -> str:
        return "__".join(self.sync.path)

    def declare(self, *, scan: Any = None, kafka: bool = True, **attributes: Any) -> None:
        sync: dict[str, Any] = {"kafka": {"store": "monitoring", "topic": self.topic}}
        if not kafka:
            sync = {}
        if scan is not None:
            sync["scan"] = scan
        sync.update(attributes.pop("sync", {}))
        self.move.declare(sync=sync, **attributes)

    def tell(self, *rows: Mapping[str, Any], partition: int = 0) -> None:
        """Send a message for each of these rows, with nothing but its key."""
        self.send(*(json.dumps({name: row[name] for name in KEYS}) for row in rows), to=partition)

    def send(self, *values: str, to: int = 0) -> None:
        producer = Producer({"bootstrap.servers": self.move.bootstrap_servers})
        for value in values:
            producer.produce(self.topic, value=value.encode(), partition=to)
        assert producer.flush(PATIENCE_SECONDS) == 0

    def run_sync(self, **config: Any) -> RunResult:
        """Run the sync's asset in this process."""
        return self.move.project.run(
            None,
            assets=[self.sync],
            config={"ops": {self.step: {"config": config}}} if config else None,
        )

    def commits(self) -> list[dict[str, Any]]:
        """Give what was committed, the oldest first."""
        with self.move.project.instance() as instance:
            records = instance.fetch_materializations(self.sync, limit=100).records
        return [_values(record.asset_materialization.metadata) for record in reversed(records)]

    def check(self, name: str) -> tuple[bool, str, dict[str, Any]]:
        key = dg.AssetCheckKey(self.sync, name)
        with self.move.project.instance() as instance:
            storage = instance.event_log_storage
            record = storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.event is not None
        assert record.event.dagster_event is not None
        found = record.event.dagster_event.asset_check_evaluation_data
        return found.passed, found.description or "", _values(found.metadata)

    @contextmanager
    def sensor(self) -> Iterator["Ticking"]:
        """The sensor of the sync, and the instance that its ticks look at."""
        defs = self.move.project.load()
        sensor = next(s for s in defs.sensors or () if s.name == f"{self.step}_sensor")
        with self.move.project.instance() as instance:
            yield Ticking(sensor, instance, defs)


@dataclass
class Ticking:
    """A sensor whose cursor is kept between its ticks, as the daemon does."""

    sensor: Any
    instance: dg.DagsterInstance
    defs: dg.Definitions
    cursor: str | None = None

    def tick(self) -> Any:
        """Give the run requests, or why there are none."""
        resources = dict(self.defs.resources or {})
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=resources
        ) as context:
            found = self.sensor.evaluate_tick(context)
        # The daemon keeps the cursor of a tick that gives none.
        self.cursor = self.cursor if found.cursor is None else found.cursor
        return found


def begin_sync(move: Move, *, partitions: int = 1, **attributes: Any) -> SyncedMove:
    """Make a topic, and declare that the target follows the origin by it."""
    topic = f"{move.keyspace}.changes.{uuid.uuid4().hex[:6]}"
    admin = AdminClient({"bootstrap.servers": move.bootstrap_servers})
    made = admin.create_topics([NewTopic(topic, num_partitions=partitions)])
    made[topic].result(PATIENCE_SECONDS)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while topic not in admin.list_topics(timeout=PATIENCE_SECONDS).topics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    synced = SyncedMove(move, topic)
    synced.declare(**attributes)
    return synced
