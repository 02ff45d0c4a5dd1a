"""Keys of changed rows, read from topics of a real broker: nothing twice, and nothing left out."""

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from struct import pack
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from migration_platform.cql.names import TableName
from migration_platform.declaration.sync import KafkaChanges
from migration_platform.errors import PermanentError, PreflightError, TransientError
from migration_platform.local.kafka import Kafka
from migration_platform.local.ports import free_port
from migration_platform.local.server import Launch
from migration_platform.local.stack import Running
from migration_platform.plan.model import Column, Table
from migration_platform.runs.events import KafkaSettings
from migration_platform.syncing import kafka_topics
from migration_platform.syncing.changes import Batch, Key
from migration_platform.syncing.kafka_changes import (
    KafkaSource,
    open_kafka_changes,
    without_covered,
)
from migration_platform.syncing.position import Position
from migration_platform_tests.servers import PATIENCE_SECONDS, run_server

TABLE = Table(
    name=TableName("shop", "orders"),
    table_id="",
    columns=(Column("customer", "int"), Column("day", "text"), Column("note", "text")),
    partition_key=("customer",),
    clustering_columns=("day",),
    default_ttl_seconds=0,
)


def key(customer: int, day: str | None = None) -> Key:
    return (pack(">i", customer),) if day is None else (pack(">i", customer), day.encode())


def change(customer: int, day: str | None = None, **others: Any) -> bytes:
    return json.dumps({"customer": customer, "day": day, **others}).encode()


@dataclass(frozen=True)
class Cluster:
    """A broker, and what the test itself does there."""

    port: int

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def make(self, topic: str, partitions: int = 1, **config: str) -> None:
        new = NewTopic(topic, partitions, 1, config=config)
        settle(lambda: self.admin.create_topics([new])[topic].result(PATIENCE_SECONDS))
        settle(lambda: self._ask(topic, partitions))

    def _ask(self, topic: str, partitions: int) -> None:
        found = self.admin.list_topics(topic, timeout=PATIENCE_SECONDS).topics[topic]
        assert found.error is None
        assert len(found.partitions) == partitions

    def drop(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(PATIENCE_SECONDS)

    def truncate(self, topic: str, partition: int, before: int) -> None:
        place = TopicPartition(topic, partition, before)
        self.admin.delete_records([place])[place].result(PATIENCE_SECONDS)

    def send(self, topic: str, *values: Any, partition: int = 0, **config: Any) -> None:
        """Send values, or pairs of a key and a value."""
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 5, **config})
        for value in values:
            name, content = value if isinstance(value, tuple) else (None, value)
            settle(
                lambda n=name, c=content: producer.produce(
                    topic, key=n, value=c, partition=partition
                )
            )
            producer.poll(0)
        assert producer.flush(PATIENCE_SECONDS) == 0

    @contextmanager
    def transaction(self, topic: str, *values: bytes) -> Iterator[Producer]:
        producer = Producer(
            {"bootstrap.servers": self.servers, "transactional.id": uuid.uuid4().hex}
        )
        producer.init_transactions(PATIENCE_SECONDS)
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value=value, partition=0)
        producer.flush(PATIENCE_SECONDS)
        yield producer

    @contextmanager
    def source(self, topic: str, **declared: Any) -> Iterator[KafkaSource]:
        settings = KafkaSettings(bootstrap_servers=self.servers)
        declaration = KafkaChanges("monitoring", topic, **declared)
        with open_kafka_changes(settings, declaration, TABLE) as source:
            yield source


def settle(do: Callable[[], Any]) -> None:
    """Try again what a busy broker refuses for a moment, such as to make a name anew."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            do()
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def read_all(source: KafkaSource, position: Position, most: int = 10_000) -> list[Batch]:
    """Read until there is nothing left."""
    batches: list[Batch] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not batches or not batches[-1].caught_up:
        assert time.monotonic() < deadline, "it never caught up"
        batches.append(source.read(position, most=most, seconds=PATIENCE_SECONDS))
        position = batches[-1].position
    return batches


def keys_of(batches: list[Batch]) -> list[Key]:
    return [each for batch in batches for each in batch.keys]


@pytest.fixture(scope="module")
def cluster(kafka: Running) -> Cluster:
    return Cluster(kafka.port)


@pytest.fixture
def topic() -> str:
    return f"changes-{uuid.uuid4().hex[:12]}"


# -- reading -----------------------------------------------------------------------------------


def test_changes_come_in_their_order_and_each_key_once(cluster, topic):
    cluster.make(topic)
    with cluster.source(topic) as source:
        start = source.now()
        cluster.send(topic, change(1, "a"), change(2, "b"), change(1, "a"), change(3, "c"))
        (batch,) = read_all(source, start)
        assert batch.keys == (key(1, "a"), key(2, "b"), key(3, "c"))
        assert (batch.messages, batch.unreadable, batch.caught_up) == (4, (), True)
        assert batch.position.offsets == {0: 4}
        assert batch.oldest_at == pytest.approx(time.time(), abs=120)
        assert source.lag(batch.position).messages == 0
        assert source.now() == batch.position


def test_what_stands_for_a_whole_partition_makes_its_rows_needless(cluster, topic):
    cluster.make(topic)
    cluster.send(topic, change(1, "a"), change(1), change(1, "b"), change(2, "c"))
    with cluster.source(topic) as source:
        assert keys_of(read_all(source, Position())) == [key(1), key(2, "c")]


def test_only_keys_that_begin_with_another_one_are_covered_by_it():
    one, two, three = (b"1",), (b"1", b"2"), (b"1", b"2", b"3")
    other = (b"12", b"2", b"3")
    assert without_covered([three, other, two]) == (other, two)
    assert without_covered([three, other, two, one]) == (other, one)
    assert without_covered([three, other]) == (three, other)
    assert without_covered([]) == ()


def test_the_position_of_now_leaves_out_what_was_told_before(cluster, topic):
    cluster.make(topic, 3)
    for partition in range(3):
        cluster.send(topic, change(1, "before"), partition=partition)
    with cluster.source(topic) as source:
        start = source.now()
        assert start.offsets == {0: 1, 1: 1, 2: 1}
        cluster.send(topic, change(2, "after"), partition=1)
        assert source.lag(start).by_partition == {0: 0, 1: 1, 2: 0}
        assert keys_of(read_all(source, start)) == [key(2, "after")]


def test_a_batch_holds_no_more_than_was_asked_for_and_the_next_one_goes_on(cluster, topic):
    cluster.make(topic, 2)
    for partition in range(2):
        cluster.send(topic, *(change(n, str(partition)) for n in range(500)), partition=partition)
    with cluster.source(topic) as source:
        batches = read_all(source, Position(), most=70)
        assert max(len(batch.keys) for batch in batches) <= 70
        assert sorted(keys_of(batches)) == sorted(
            key(n, partition) for n in range(500) for partition in "01"
        )
        assert sum(batch.messages for batch in batches) == 1000
        assert batches[-1].position.offsets == {0: 500, 1: 500}


def test_reading_again_from_an_earlier_position_gives_the_same(cluster, topic):
    cluster.make(topic, 2)
    for partition in range(2):
        cluster.send(topic, *(change(n, "x") for n in range(20)), partition=partition)
    with cluster.source(topic) as source:
        first, second = read_all(source, Position()), read_all(source, Position())
        assert sorted(keys_of(first)) == sorted(keys_of(second))
        middle = Position(topic=topic, offsets={0: 20, 1: 15})
        assert keys_of(read_all(source, middle)) == [key(n, "x") for n in range(15, 20)]
    with cluster.source(topic) as source:
        assert keys_of(read_all(source, middle)) == [key(n, "x") for n in range(15, 20)]


def test_with_nothing_to_read_it_waits_as_long_as_it_may(cluster, topic):
    cluster.make(topic)
    with cluster.source(topic) as source:
        start, began = source.now(), time.monotonic()
        batch = source.read(start, most=10, seconds=1)
        assert 0.9 < time.monotonic() - began < 20
        assert batch == Batch(keys=(), position=start, caught_up=True)
        assert source.read(start, most=10, seconds=0).position == start


def test_a_message_that_comes_while_it_waits_is_given_at_once(cluster, topic):
    cluster.make(topic)
    with cluster.source(topic) as source:
        position = source.read(source.now(), most=10, seconds=0.2).position
        cluster.send(topic, change(5, "late"))
        began = time.monotonic()
        batch = source.read(position, most=10, seconds=PATIENCE_SECONDS)
        assert batch.keys == (key(5, "late"),)
        assert time.monotonic() - began < PATIENCE_SECONDS / 2


def test_lag_is_told_without_reading_and_within_a_second(cluster, topic):
    cluster.make(topic, 20)
    for partition in range(0, 20, 3):
        cluster.send(topic, *(change(n, "x") for n in range(partition)), partition=partition)
    with cluster.source(topic) as source:
        source.now()  # the connection is open, as it is in a daemon's second tick
        began = time.monotonic()
        lag = source.lag(Position(topic=topic, offsets={3: 1}))
        assert time.monotonic() - began < 1
    assert lag.by_partition == {p: (2 if p == 3 else p if p % 3 == 0 else 0) for p in range(20)}
    assert lag.lost == {}


# -- what is no change -------------------------------------------------------------------------


def test_poison_is_set_aside_with_its_place_and_the_rest_is_read(cluster, topic):
    cluster.make(topic)
    cluster.send(topic, change(1, "a"), b"\xff\xfe", b"[1]", b"{}", None, change(2, "b"))
    with cluster.source(topic) as source:
        (batch,) = read_all(source, Position())
    assert batch.keys == (key(1, "a"), key(2, "b"))
    assert batch.position.offsets == {0: 6}
    assert [(each.partition, each.offset) for each in batch.unreadable] == [
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 4),
    ]
    assert [each.reason for each in batch.unreadable] == [
        "its value is no text in UTF-8",
        "its value is a list of 1; it must be an object",
        "its value has nothing, or null, at customer, where customer of the partition key must be",
        "it has neither a value nor a key",
    ]
    assert all(each.noted_at > 1e9 for each in batch.unreadable)


def test_a_topic_full_of_poison_comes_to_its_end_in_batches(cluster, topic):
    cluster.make(topic)
    cluster.send(topic, *[b"poison"] * 2500)
    with cluster.source(topic) as source:
        batches = read_all(source, Position())
    assert [len(batch.unreadable) for batch in batches] == [1000, 1000, 500]
    assert batches[-1].position.offsets == {0: 2500}


def test_huge_messages_are_read_or_set_aside_and_never_held_all_at_once(cluster, topic):
    cluster.make(topic, **{"max.message.bytes": str(12 * 2**20)})
    large = {"message.max.bytes": 12 * 2**20, "compression.type": "none"}
    cluster.send(topic, change(1, "a", padding="x" * 7 * 2**20), **large)
    cluster.send(topic, change(2, "b", padding="x" * 9 * 2**20), **large)
    cluster.send(topic, change(3, "c"))
    with cluster.source(topic) as source:
        batches = read_all(source, Position())
    assert keys_of(batches) == [key(1, "a"), key(3, "c")]
    (unreadable,) = [each for batch in batches for each in batch.unreadable]
    assert unreadable.offset == 1
    assert unreadable.reason.endswith("bytes; 8388608 are read at most")


def test_what_a_transaction_took_back_is_no_change(cluster, topic):
    cluster.make(topic)
    with cluster.source(topic) as source:
        start = source.now()
        with cluster.transaction(topic, change(1, "kept")) as producer:
            producer.commit_transaction(PATIENCE_SECONDS)
        with cluster.transaction(topic, change(2, "aborted")) as producer:
            producer.abort_transaction(PATIENCE_SECONDS)
        batches = read_all(source, start)
        assert keys_of(batches) == [key(1, "kept")]
        # Behind both messages and both marks.
        assert batches[-1].position.offsets == {0: 4}
        assert source.lag(batches[-1].position).messages == 0


def test_only_aborted_messages_do_not_hold_the_position_back(cluster, topic):
    cluster.make(topic)
    with cluster.source(topic) as source:
        start = source.now()
        with cluster.transaction(topic, change(2, "aborted")) as producer:
            producer.abort_transaction(PATIENCE_SECONDS)
        batch = source.read(start, most=10, seconds=2)
        assert (batch.keys, batch.position.offsets, batch.caught_up) == ((), {0: 2}, True)


def test_a_transaction_that_is_open_is_read_when_it_ends(cluster, topic):
    cluster.make(topic)
    cluster.send(topic, change(1, "a"))
    with cluster.source(topic) as source:
        with cluster.transaction(topic, change(2, "open")) as producer:
            cluster.send(topic, change(3, "behind"))
            now = source.now()
            assert now.offsets == {0: 1}, "what is open may yet be told"
            assert source.lag(now).messages == 0
            assert keys_of(read_all(source, Position())) == [key(1, "a")]
            producer.commit_transaction(PATIENCE_SECONDS)
        assert keys_of(read_all(source, now)) == [key(2, "open"), key(3, "behind")]


def test_gaps_of_compaction_are_no_loss(cluster, topic):
    cluster.make(
        topic,
        **{
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.001",
            "segment.ms": "100",
            "max.compaction.lag.ms": "100",
            "delete.retention.ms": "100",
        },
    )
    with cluster.source(topic) as source:
        start = source.now()
        for number in range(30):
            cluster.send(topic, (b"same", change(number, "x")))
            time.sleep(0.02)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            cluster.send(topic, (b"last", change(99, "x")))
            batches = read_all(source, start)
            if sum(batch.messages for batch in batches) < 20:
                break
            time.sleep(0.5)
        found, told = keys_of(batches), sum(batch.messages for batch in batches)
        if told >= 20:
            pytest.skip("the broker did not compact in time")
        assert {key(29, "x"), key(99, "x")} <= set(found)
        assert source.lag(start).lost == {}
        assert source.lag(batches[-1].position).messages == 0


# -- what is lost ------------------------------------------------------------------------------


def test_messages_that_were_deleted_before_they_were_read_are_lost(cluster, topic):
    cluster.make(topic, 2)
    cluster.send(topic, *(change(n, "x") for n in range(10)))
    with cluster.source(topic) as source:
        at = Position(topic=topic, offsets={0: 4, 1: 0})
        cluster.truncate(topic, 0, 4)
        assert source.lag(at).lost == {}
        cluster.truncate(topic, 0, 7)
        lag = source.lag(at)
        assert lag.by_partition == {0: 3, 1: 0}
        assert lag.lost == {
            0: f"partition 0 of {topic} begins at offset 7, and offsets 4 to 6 are deleted that "
            "were not read yet"
        }
        with pytest.raises(PermanentError, match="offsets 4 to 6 are deleted"):
            source.read(at, most=10, seconds=1)
        left = source.leave_lost(at)
        assert left.offsets == {0: 7, 1: 0}
        assert source.lag(left).lost == {}
        assert keys_of(read_all(source, left)) == [key(n, "x") for n in (7, 8, 9)]


def test_messages_that_are_deleted_while_they_are_read_are_lost(cluster, topic):
    cluster.make(topic)
    cluster.send(topic, *(change(n, "x") for n in range(10)))
    with cluster.source(topic) as source:
        batch = source.read(Position(), most=3, seconds=PATIENCE_SECONDS)
        cluster.truncate(topic, 0, 9)
        with pytest.raises(PermanentError, match="changes are lost"):
            source.read(batch.position, most=3, seconds=10)


@pytest.mark.parametrize("partitions", [1, 2, 4])
def test_a_topic_that_was_made_anew_is_another_one_however_much_it_holds(
    cluster, topic, partitions
):
    cluster.make(topic, 2)
    cluster.send(topic, *(change(n, "x") for n in range(5)))
    with cluster.source(topic) as source:
        at = read_all(source, Position())[-1].position
        cluster.drop(topic)
        cluster.make(topic, partitions)
        cluster.send(topic, *(change(n, "y") for n in range(9)))
        settle(lambda: source.now())
        lost = source.lag(at).lost
        assert set(lost) == set(range(max(2, partitions)))
        assert set(lost.values()) == {f"the topic {topic} was deleted and made anew"}
        # A position that a person wrote does not know which topic it was.
        written = replace(at, topic_id="", offsets={0: 12, 1: 0, 7: 3})
        lost = source.lag(written).lost
        assert lost[0].startswith(f"partition 0 of {topic} ends at offset 9, and was read up to 12")
        assert lost[7] == f"partition 7 of {topic} is gone, and {partitions} partitions are there"
        left = source.leave_lost(at)
        assert left.offsets == dict.fromkeys(range(partitions), 0)
        assert keys_of(read_all(source, left)) == [key(n, "y") for n in range(9)]


def test_the_position_of_another_topic_says_nothing_of_this_one(cluster, topic):
    cluster.make(topic)
    with cluster.source(topic) as source:
        lost = source.lag(Position(topic="former", offsets={0: 0})).lost
        assert lost == {0: f"the position is one of the topic former, and {topic} is read now"}


def test_new_partitions_are_read_from_their_beginning(cluster, topic):
    cluster.make(topic)
    with cluster.source(topic) as source:
        at = source.now()
        cluster.admin.create_partitions([NewPartitions(topic, 3)])[topic].result(PATIENCE_SECONDS)
        settle(lambda: cluster._ask(topic, 3))
        cluster.send(topic, change(1, "a"), change(2, "b"), partition=2)
        assert source.lag(at).by_partition == {0: 0, 1: 0, 2: 2}
        batches = read_all(source, at)
        assert keys_of(batches) == [key(1, "a"), key(2, "b")]
        assert batches[-1].position.offsets == {0: 0, 1: 0, 2: 2}
        cluster.truncate(topic, 2, 1)
        assert source.lag(at).lost == {
            2: f"partition 2 of {topic} is new, and begins at offset 1: what was before is deleted"
        }


# -- the group ---------------------------------------------------------------------------------


def committed(cluster: Cluster, group: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": cluster.servers, "group.id": group})
    try:
        (place,) = consumer.committed([TopicPartition(topic, 0)], timeout=PATIENCE_SECONDS)
        return place.offset
    finally:
        consumer.close()


def test_an_acknowledged_position_is_what_kafkas_own_tools_show(cluster, topic):
    cluster.make(topic)
    cluster.send(topic, *(change(n, "x") for n in range(5)))
    group = "migration-platform-sync.shop.orders"
    with cluster.source(topic) as source:
        batches = read_all(source, Position(), most=3)
        assert committed(cluster, group, topic) < 0, "reading alone acknowledges nothing"
        assert source.acknowledge(batches[0].position) == ""
    assert committed(cluster, group, topic) == 3
    with cluster.source(topic) as source:
        assert len(keys_of(read_all(source, Position()))) == 5, "and nothing depends on it"


def test_what_was_opened_leaves_nothing_running(cluster, topic):
    cluster.make(topic)

    def use() -> None:
        with cluster.source(topic) as source:
            source.acknowledge(source.read(source.now(), most=1, seconds=0.1).position)

    use()
    threads = psutil.Process().num_threads()
    for _ in range(5):
        use()
    settle(lambda: _expect(psutil.Process().num_threads() <= threads))


def _expect(truth: bool) -> None:
    assert truth


# -- what may go wrong -------------------------------------------------------------------------


def test_a_topic_that_is_not_there_is_named_with_the_one_most_like_it(cluster, topic):
    cluster.make(topic)
    wanted = topic + "s"
    with cluster.source(wanted) as source:
        for ask in (source.now, lambda: source.read(Position(), most=1, seconds=1)):
            with pytest.raises(PreflightError) as caught:
                ask()
            assert str(caught.value) == (
                f"there is no topic {wanted} at {cluster.servers} (there is {topic}); correct "
                "sync.kafka.topic, or create it"
            )
    assert wanted not in cluster.admin.list_topics(timeout=PATIENCE_SECONDS).topics


def test_a_column_that_is_not_of_the_key_is_refused(cluster, topic):
    with (
        pytest.raises(PreflightError, match=r"names note, .* valid are customer, day"),
        cluster.source(topic, key={"note": "after.note"}),
    ):
        pass


def test_a_broker_that_goes_and_comes_back_loses_and_doubles_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka_topics, "ANSWER_SECONDS", 2.0)
    port = free_port()
    with ExitStack() as running:
        running.enter_context(run_server(Kafka(), tmp_path / "kafka", port))
        cluster = Cluster(port)
        cluster.make("changes")
        cluster.send("changes", *(change(n, "x") for n in range(5)))
        source = running.enter_context(cluster.source("changes"))
        first = source.read(Position(), most=3, seconds=PATIENCE_SECONDS)
        with ExitStack() as gone:
            gone.enter_context(stopped(tmp_path / "kafka", port))
            source.acknowledge(first.position)
            for ask in (source.now, lambda: source.read(first.position, most=1, seconds=1)):
                with pytest.raises(TransientError) as caught:
                    ask()
                assert str(caught.value).startswith(
                    f"Kafka at {cluster.servers} does not answer for the topic changes: "
                )
        monkeypatch.setattr(kafka_topics, "ANSWER_SECONDS", 10.0)
        settle(source.now)
        assert keys_of([first, *read_all(source, first.position)]) == [
            key(n, "x") for n in range(5)
        ]


@contextmanager
def stopped(home: Path, port: int) -> Iterator[None]:
    """Stop a server for the length of a `with` block, and start it again with its data."""
    from migration_platform.local import stack
    from migration_platform_tests.servers import jars_folder

    stack.stop("kafka", home=home)
    try:
        yield
    finally:
        stack.start(Kafka(), home=home, port=port, jars_folder=jars_folder())


USERS = {"admin": "admin-secret", "reader": "reader-secret", "stranger": "stranger-secret"}


@dataclass(frozen=True, kw_only=True)
class GuardedKafka(Kafka):
    """A broker with a second listener that wants a password, and lists who may do what."""

    sasl_port: int

    def prepare(self, *, folder: Path, port: int, **others: Any) -> Launch:
        launch = super().prepare(folder=folder, port=port, **others)
        config = folder / "server.properties"
        users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
        module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        lines = dict(line.split("=", 1) for line in config.read_text().splitlines())
        lines["listeners"] += f",SASL://127.0.0.1:{self.sasl_port}"
        lines["advertised.listeners"] += f",SASL://127.0.0.1:{self.sasl_port}"
        lines["listener.security.protocol.map"] += ",SASL:SASL_PLAINTEXT"
        lines |= {
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": f"{module} {users};",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:admin",
        }
        config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return launch


def test_who_may_not_read_is_told_so_and_no_password_is_ever_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(kafka_topics, "ANSWER_SECONDS", 5.0)
    sasl_port = free_port()
    with run_server(GuardedKafka(sasl_port=sasl_port), tmp_path / "kafka") as server:
        cluster = Cluster(server.port)
        cluster.make("changes")
        allow_reading(cluster, "reader", "changes")
        settings = KafkaSettings(
            bootstrap_servers=f"127.0.0.1:{sasl_port}",
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
        )
        told = [
            ask_as(replace(settings, username=name, password=password))
            for name, password in (
                ("admin", USERS["admin"]),
                ("reader", "wrong-secret"),
                ("stranger", USERS["stranger"]),
            )
        ]
        reader = replace(settings, username="reader", password=USERS["reader"])
        refused = acknowledge_as(reader)
    assert told[0] == ""
    assert told[1].startswith(f"Kafka at 127.0.0.1:{sasl_port} refused the log-in of reader: ")
    assert told[1].endswith("; check sasl_mechanism, username and password of the store")
    assert told[2] == (
        f"stranger may not read the topic changes at 127.0.0.1:{sasl_port}; grant READ and "
        "DESCRIBE on it"
    )
    assert refused.startswith(
        "the group migration-platform-sync.shop.orders does not show how far the synchronisation "
        "is, which harms nothing else: "
    )
    assert "secret" not in "".join([*told, refused])


def allow_reading(cluster: Cluster, user: str, topic: str) -> None:
    rules = [
        AclBinding(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        for operation in (AclOperation.READ, AclOperation.DESCRIBE)
    ]
    for made in cluster.admin.create_acls(rules).values():
        made.result(PATIENCE_SECONDS)


def acknowledge_as(settings: KafkaSettings) -> str:
    """Read as a user who may not use the group, and give what is said of it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with open_kafka_changes(settings, KafkaChanges("m", "changes"), TABLE) as source:
        position = source.now()
        while time.monotonic() < deadline:
            position = source.read(position, most=1, seconds=0.5).position
            if problem := source.acknowledge(position):
                return problem
    return ""


def ask_as(settings: KafkaSettings) -> str:
    try:
        with open_kafka_changes(settings, KafkaChanges("m", "changes"), TABLE) as source:
            source.read(source.now(), most=1, seconds=0.5)
            return ""
    except PreflightError as error:
        return str(error)


def test_settings_that_the_client_refuses_are_told_in_one_sentence():
    for wrong in (
        {"security_protocol": "SSL", "ca_file": "/nowhere"},
        {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "X"},
        {"security_protocol": "X"},
    ):
        with (
            pytest.raises(PreflightError, match="are refused: "),
            open_kafka_changes(KafkaSettings(**wrong), KafkaChanges("m", "t"), TABLE),
        ):
            pass


def test_fifty_thousand_messages_a_second_are_read(cluster, topic):
    """A figure of this machine: the test itself only wants a fifth of it."""
    cluster.make(topic, 4)
    count = itertools.count()
    for partition in range(4):
        values = [change(next(count), "2030-01-31", note="x" * 100) for _ in range(25_000)]
        cluster.send(topic, *values, partition=partition)
    with cluster.source(topic) as source:
        began = time.perf_counter()
        batches = read_all(source, Position(), most=50_000)
        rate = 100_000 / (time.perf_counter() - began)
    print(f"{rate:,.0f} messages a second")
    assert len(set(keys_of(batches))) == 100_000
    assert rate > 10_000
