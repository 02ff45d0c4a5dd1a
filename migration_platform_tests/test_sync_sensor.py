"""The sensor of a synchronisation: when it requests a run, and what a person does to its cursor."""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from migration_platform.components.table import ended_runs
from migration_platform.components.table.ledger import RangeState
from migration_platform.components.table.naming import build_job
from migration_platform.components.table.reporting import Job
from migration_platform.components.table.sync_commits import state_metadata
from migration_platform.components.table.sync_cursor import Cursor, move_on, read_cursor
from migration_platform.components.table.sync_ledger import (
    Committed,
    find_start,
    read_committed,
    read_newest_copy,
)
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.declaration.sync import KafkaChanges, ScanRounds, Sync
from migration_platform.errors import DeclarationError
from migration_platform.local.stack import Running
from migration_platform.syncing.changes import Lag
from migration_platform.syncing.position import Position
from migration_platform.syncing.rounds import due_ranges, open_due
from migration_platform.token_ranges import split_ring
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, Project, make_project
from migration_platform_tests.servers import PATIENCE_SECONDS
from migration_platform_tests.syncing_moves import Ticking

pytestmark = DAGSTERS_OWN_WARNINGS

RANGES = 4
SHOP, COPY = TableName("shop", "orders"), TableName("copy", "orders")


def position_at(offset: int, **values: Any) -> Position:
    given = {"topic": "changes", "offsets": {0: offset}, "synced_at": 1_900_000_000.0, **values}
    return Position(**given)


@dataclass
class Followed:
    """A table that follows its origin, as an event log tells of it."""

    project: Project
    instance: dg.DagsterInstance
    job: Job
    topic: str = "changes"

    @property
    def sync(self) -> dg.AssetKey:
        assert self.job.sync is not None
        return self.job.sync

    def copy_ranges(self, *indexes: int) -> None:
        for index in indexes or range(RANGES):
            key = split_ring(RANGES)[index].key
            event = dg.AssetMaterialization(self.job.target, partition=key)
            self.instance.report_runless_asset_event(event)

    def newest_copy(self) -> int:
        keys = [each.key for each in split_ring(RANGES)]
        return read_newest_copy(self.instance, self.job.target, keys)

    def commit(self, position: Position, began_at: Position | None = None) -> Committed:
        metadata = state_metadata(
            self.job,
            position,
            Lag(),
            fingerprint="f",
            began_at=began_at or position,
            touched={},
            copies_seen=self.newest_copy(),
            reached_at=1_900_000_000.0,
            now=1_900_000_000.0,
        )
        event = dg.AssetMaterialization(self.sync, metadata=metadata)
        self.instance.report_runless_asset_event(event)
        found = read_committed(self.instance, self.sync)
        assert found is not None
        return found


def make_job(sync: Sync) -> Job:
    return build_job(
        Migration(
            Endpoint("sunbird", SHOP), Endpoint("reports", COPY), token_ranges=RANGES, sync=sync
        )
    )


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    project = make_project(tmp_path, cassandra_port=9, kafka_port=9)
    job = make_job(Sync(kafka=KafkaChanges("monitoring", "changes")))
    with project.instance() as instance:
        yield Followed(project, instance, job)


# -- the cursor ------------------------------------------------------------------------------------


def test_the_cursor_is_json_that_names_a_position_and_the_event_that_committed_it() -> None:
    position = position_at(7)

    text = Cursor(position, 12).to_json()

    assert json.loads(text) == {"position": json.loads(position.to_json()), "seen": 12}
    assert read_cursor(text, "changes", RANGES) == Cursor(position, 12)
    assert Cursor().to_json() == ""


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_an_empty_cursor_follows_what_is_committed(followed: Followed, empty: str | None) -> None:
    cursor = read_cursor(empty, "changes", RANGES)
    assert move_on(cursor, None, followed.instance, followed.sync) == Cursor()

    newest = followed.commit(position_at(5))
    moved = move_on(cursor, newest, followed.instance, followed.sync)

    assert moved == Cursor(newest.position, newest.storage_id)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yesterday", "the cursor cannot be read: "),
        ("[]", "it must be an object with a position"),
        ('{"seen": 1}', "it must be an object with a position"),
        ('{"position": {}, "sen": 1}', "it holds sen; valid are position, seen"),
        ('{"position": {}, "seen": "1"}', "seen is no whole number"),
        ('{"position": {"offset": {"0": 1}}}', "it holds offset; valid are synced_at, topic"),
        ('{"position": {"offsets": {"0": -1}}}', "-1 is not within 0 to"),
        ('{"position": {"topic": "other"}}', "its position is one of the topic other"),
        ('{"position": {"open_ranges": "4"}}', "names the range 4, and there are 4"),
    ],
)
def test_a_wrong_cursor_says_what_is_wrong_and_how_to_get_out(text: str, said: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        read_cursor(text, "changes", RANGES)

    assert said in str(caught.value)
    assert "clear the cursor to go on where the last run ended" in str(caught.value)


def test_a_cursor_that_nobody_edited_follows_whatever_runs_have_committed(
    followed: Followed,
) -> None:
    first = followed.commit(position_at(5))
    cursor = Cursor(first.position, first.storage_id)
    followed.commit(position_at(6), began_at=position_at(5))
    newest = followed.commit(position_at(9), began_at=position_at(8))

    moved = move_on(cursor, newest, followed.instance, followed.sync)

    assert moved == Cursor(newest.position, newest.storage_id)


@pytest.mark.parametrize("keeps_seen", [True, False], ids=["position edited", "seen taken away"])
def test_an_edited_cursor_asks_for_a_run_until_one_has_begun_there(
    followed: Followed, keeps_seen: bool
) -> None:
    # A run has begun there long ago, which must not count.
    followed.commit(position_at(5), began_at=position_at(2))
    newest = followed.commit(position_at(9), began_at=position_at(5))
    seen = newest.storage_id if keeps_seen else 0
    for _ in range(2):
        cursor = Cursor(position_at(2), seen)
        for _ in range(2):
            cursor = move_on(cursor, newest, followed.instance, followed.sync)
            assert cursor.wanted == position_at(2)
            cursor = read_cursor(cursor.to_json(), "changes", RANGES)
        newest = followed.commit(position_at(4), began_at=position_at(2))
        cursor = move_on(cursor, newest, followed.instance, followed.sync)
        assert cursor == Cursor(newest.position, newest.storage_id)
        seen = newest.storage_id if keeps_seen else 0


# -- where a run begins ----------------------------------------------------------------------------


def state(index: int, event: int, offset: int | None) -> RangeState:
    return RangeState(
        split_ring(RANGES)[index],
        copied=True,
        running=False,
        failed=False,
        rows=0,
        rows_per_second=0,
        compared=False,
        matches=False,
        verdict={},
        copied_event=event,
        sync_position="" if offset is None else position_at(offset).to_json(),
    )


def committed_at(offset: int, seen: int, fingerprint: str = "f", **values: Any) -> Committed:
    return Committed(
        9, 0.0, position_at(offset, **values), fingerprint=fingerprint, copies_seen=seen
    )


def begins(committed: Committed | None, states: list[RangeState]) -> Position:
    return find_start(
        committed, states, topic="changes", fingerprint="f", now=lambda: position_at(99)
    ).position


@pytest.mark.parametrize(
    ("committed", "copies", "offset", "opened"),
    [
        pytest.param(None, [5, 6, 3, 8], 3, set(), id="the earliest of all copies"),
        pytest.param(committed_at(20, seen=4), [5, 6, 3, 8], 20, set(), id="what was committed"),
        pytest.param(
            committed_at(20, seen=2), [5, 6, 30, 15], 15, set(), id="a range copied beside a run"
        ),
        pytest.param(
            committed_at(20, seen=0), [30, 31, 32, 33], 20, set(), id="all copied over what was"
        ),
        pytest.param(None, [5, None, 3, 8], 3, {1}, id="a range without a position"),
        pytest.param(None, [None] * 4, 99, {0, 1, 2, 3}, id="a copy from before sync"),
        pytest.param(
            committed_at(20, seen=4, fingerprint="g"), [None] * 4, 20, set(), id="other declaration"
        ),
        pytest.param(
            committed_at(20, seen=4, topic="old"), [5] * 4, 99, {0, 1, 2, 3}, id="another topic"
        ),
        pytest.param(
            committed_at(20, seen=3, topic_id="x"),
            [5] * 4,
            99,
            {0, 1, 2, 3},
            id="a topic made anew",
        ),
    ],
)
def test_a_run_begins_where_nothing_is_lost(
    committed: Committed | None, copies: list[int | None], offset: int, opened: set[int]
) -> None:
    # The events of the four copies are 1, 2, 3 and 4.
    states = [state(index, index + 1, copied) for index, copied in enumerate(copies)]

    found = begins(committed, states)

    assert found.offsets == {0: offset}
    assert found.open_ranges == opened


def test_what_was_compared_counts_only_for_ranges_that_were_not_copied_since() -> None:
    committed = committed_at(20, seen=3, compared_at={0: 5.0, 3: 6.0}, round_began_at=4.0)

    found = begins(committed, [state(index, index + 1, 30) for index in range(RANGES)])

    assert found.compared_at == {0: 5.0}
    assert found.round_began_at == 4.0


def test_what_was_committed_before_the_target_was_emptied_counts_no_more(
    followed: Followed,
) -> None:
    followed.commit(position_at(5))
    event = dg.AssetObservation(followed.sync, metadata={"emptied": True})
    followed.instance.report_runless_asset_event(event)

    assert read_committed(followed.instance, followed.sync) is None

    newest = followed.commit(position_at(7))
    assert read_committed(followed.instance, followed.sync) == newest


# -- rounds ----------------------------------------------------------------------------------------


def test_the_ranges_of_a_round_are_due_one_after_another() -> None:
    scan, position = ScanRounds(every_seconds=400, ranges_per_tick=2), Position()
    seen = []
    for now in range(1_000, 1_400, 50):
        due = due_ranges(position, scan, RANGES, float(now))
        seen.append(due)
        position = open_due(position, scan, RANGES, float(now)).with_compared(due, float(now))

    assert seen == [[0], [], [1], [], [2], [], [3], []]
    assert due_ranges(position, scan, RANGES, 1_399.0) == []
    assert due_ranges(position, scan, RANGES, 1_400.0) == [0]


def test_a_round_that_is_late_opens_no_more_ranges_than_a_run_may_compare() -> None:
    scan, position = ScanRounds(every_seconds=40, ranges_per_tick=2), Position(round_began_at=1.0)

    assert due_ranges(position, scan, RANGES, 1_000.0) == [0, 1]
    opened = position.with_open([3])
    assert due_ranges(opened, scan, RANGES, 1_000.0) == [3, 0]


def test_without_rounds_only_open_ranges_are_due() -> None:
    assert due_ranges(Position(open_ranges=frozenset({2, 1})), None, RANGES, 5.0) == [1, 2]
    assert due_ranges(Position(), None, RANGES, 5.0) == []


# -- ticks -----------------------------------------------------------------------------------------


@dataclass
class Brokers:
    """A topic of a real broker."""

    bootstrap_servers: str
    topic: str

    def send(self, count: int = 1) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap_servers})
        for _ in range(count):
            producer.produce(self.topic, value=b'{"id": 1}')
        assert producer.flush(PATIENCE_SECONDS) == 0


@pytest.fixture
def brokers(kafka: Running) -> Brokers:
    servers, topic = f"127.0.0.1:{kafka.port}", f"changes.{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": servers})
    made = admin.create_topics([NewTopic(topic, 1)])
    made[topic].result(PATIENCE_SECONDS)
    return Brokers(servers, topic)


@pytest.fixture
def ticking(tmp_path: Path, kafka: Running, brokers: Brokers) -> Iterator[tuple[Ticking, Followed]]:
    project = make_project(tmp_path, cassandra_port=9, kafka_port=kafka.port)
    yield from _tick_with(project, brokers.topic, {})


def _tick_with(
    project: Project, topic: str, sync: dict[str, Any]
) -> Iterator[tuple[Ticking, Followed]]:
    project.declare(
        "orders",
        "TableMigration",
        origin={"store": "sunbird", "table": str(SHOP)},
        target={"store": "reports", "table": str(COPY)},
        token_ranges=RANGES,
        sync={"kafka": {"store": "monitoring", "topic": topic}, "max_lag_seconds": 60, **sync},
    )
    job = make_job(Sync(kafka=KafkaChanges("monitoring", topic), max_lag_seconds=60))
    defs = project.load()
    sensor: Any = next(iter(defs.sensors or ()))
    with project.instance() as instance:
        yield Ticking(sensor, instance, defs), Followed(project, instance, job, topic)


def requested(found: Any) -> Any:
    assert found.run_requests, found.skip_message
    (request,) = found.run_requests
    return request


def skipped(found: Any) -> str:
    assert not found.run_requests
    return found.skip_message


def test_the_sensor_waits_for_the_full_copy_and_requests_the_first_run_then(
    ticking: tuple[Ticking, Followed],
) -> None:
    sensor, followed = ticking
    followed.copy_ranges(0, 2)
    assert "The full copy is not complete: 2 of 4 ranges are not copied (01-of-4, 03-of-4)" in (
        skipped(sensor.tick())
    )

    followed.copy_ranges(1, 3)
    request = requested(sensor.tick())

    assert request.run_key is None
    assert request.run_config == {}


def test_the_sensor_requests_a_run_for_new_messages_alone(
    ticking: tuple[Ticking, Followed], brokers: Brokers
) -> None:
    sensor, followed = ticking
    followed.copy_ranges()
    at = Position(topic=brokers.topic, offsets={0: 0}, synced_at=time.time())
    followed.commit(at)
    began = time.monotonic()
    assert "Nothing is new since" in skipped(sensor.tick())
    assert time.monotonic() - began < 5
    assert json.loads(sensor.cursor or "")["position"]["offsets"] == {"0": 0}

    brokers.send(3)
    assert requested(sensor.tick()).tags["migration_platform/reason"] == "3 messages are new"

    followed.commit(replace(at, offsets={0: 3}), began_at=at)
    assert "Nothing is new" in skipped(sensor.tick())
    followed.copy_ranges(2)
    assert "ranges were copied" in requested(sensor.tick()).tags["migration_platform/reason"]


def test_a_cursor_that_is_rewound_runs_again_over_the_same_positions(
    ticking: tuple[Ticking, Followed], brokers: Brokers
) -> None:
    sensor, followed = ticking
    followed.copy_ranges()
    brokers.send(5)
    old = Position(topic=brokers.topic, offsets={0: 2}, synced_at=time.time())
    new = replace(old, offsets={0: 5})
    followed.commit(new, began_at=old)
    for _ in range(2):
        assert "Nothing is new" in skipped(sensor.tick())
        content = json.loads(sensor.cursor or "")
        content["position"]["offsets"]["0"] = 2
        sensor.cursor = json.dumps(content)

        request = requested(sensor.tick())

        assert request.run_key is None
        (config,) = request.run_config["ops"].values()
        began_at = Position.parse(config["config"]["position"])
        assert began_at.offsets == {0: 2}
        followed.commit(new, began_at=began_at)

    sensor.cursor = "nonsense"
    assert "the cursor cannot be read" in skipped(sensor.tick())
    sensor.cursor = ""
    assert "Nothing is new" in skipped(sensor.tick())


def test_the_sensor_never_requests_a_run_beside_another(
    ticking: tuple[Ticking, Followed], brokers: Brokers
) -> None:
    sensor, followed = ticking
    followed.copy_ranges()
    job = sensor.defs.resolve_implicit_global_asset_job_def()
    tags = {ended_runs.syncs_tag(followed.job.target): ended_runs.PLANNED}
    run = followed.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)

    assert skipped(sensor.tick()) == f"Run {run.run_id} is still at it."

    # One that failed is not requested again at once.
    followed.instance.report_run_failed(run)
    assert "failed, so the next one is requested in" in skipped(sensor.tick())


def test_a_synchronisation_that_stands_still_turns_red(
    ticking: tuple[Ticking, Followed], brokers: Brokers
) -> None:
    sensor, followed = ticking
    followed.copy_ranges()
    past = Position(topic=brokers.topic, offsets={0: 0}, synced_at=time.time() - 300)
    followed.commit(past)

    def verdict() -> Any:
        key = dg.AssetCheckKey(followed.sync, "sync_is_fresh")
        storage = followed.instance.event_log_storage
        record = storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.event is not None
        assert record.event.dagster_event is not None
        return record.event.dagster_event.asset_check_evaluation_data

    # Nothing is new, so the target has everything until now; that is committed.
    assert "Nothing is new" in skipped(sensor.tick())
    assert verdict().passed
    newest = read_committed(followed.instance, followed.sync)
    assert newest is not None
    assert newest.position.offsets == {0: 0}
    assert time.time() - newest.position.synced_at < 60

    brokers.send()
    followed.commit(past)
    requested(sensor.tick())
    assert not verdict().passed
    assert "are allowed (sync.max_lag_seconds)" in verdict().description


def test_lost_messages_are_a_reason_for_a_run(
    ticking: tuple[Ticking, Followed], brokers: Brokers
) -> None:
    sensor, followed = ticking
    followed.copy_ranges()
    beyond = Position(topic=brokers.topic, offsets={0: 40}, synced_at=time.time())
    followed.commit(beyond)

    reason = requested(sensor.tick()).tags["migration_platform/reason"]

    assert reason.startswith("messages were lost: ")


def test_brokers_that_do_not_answer_are_told_and_the_verdict_stays_true(tmp_path: Path) -> None:
    project = make_project(tmp_path, cassandra_port=9, kafka_port=9)
    for sensor, followed in _tick_with(project, "changes", {}):
        followed.copy_ranges()
        followed.commit(position_at(1, synced_at=time.time()))
        assert "127.0.0.1:9" in skipped(sensor.tick())
