"""Reads keys of changed rows from a topic, from a position that the caller keeps.

Partitions are assigned by hand, so that no other reader can move them, and the offsets that are
committed to the group are only for those who look at its lag: nothing here ever reads them.
Offsets end where the last transaction did that is not open, for what is open may still be told.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from migration_platform.declaration.sync import KafkaChanges
from migration_platform.errors import PermanentError
from migration_platform.plan.model import Table
from migration_platform.runs.events import KafkaSettings, silent_logger
from migration_platform.syncing.changes import Batch, Key, Lag
from migration_platform.syncing.kafka_topics import Topic, TopicReader
from migration_platform.syncing.messages import ReadKey, compile_message_reader
from migration_platform.syncing.position import MAX_UNREADABLE, Position, Unreadable

CHUNK_MESSAGES = 5_000
CHUNK_BYTES = 16 * 2**20
"""Of messages that are held at once; one alone may be larger."""
FIRST_CHUNK_MESSAGES = 64
"""Before anything is known of how large they are."""
WAIT_SECONDS = 0.1
"""At most between a message's arrival and its being seen."""
MAX_GROUP = 200


@contextmanager
def open_kafka_changes(
    settings: KafkaSettings, declared: KafkaChanges, table: Table, *, group: str = ""
) -> Iterator["KafkaSource"]:
    """Open what tells of changes of a table; `group` is whose lag Kafka's own tools show.

    Raises:
        PreflightError: what is declared does not fit the table, or the client refuses the settings.
    """
    read_key = compile_message_reader(declared, table)
    name = group or f"migration-platform-sync.{table.name.keyspace}.{table.name.table}"
    source = KafkaSource(settings, declared.topic, read_key, name[:MAX_GROUP])
    try:
        yield source
    finally:
        source.close()


@dataclass
class _Found:
    """What a batch is made of, while it is read."""

    keys: dict[Key, None] = field(default_factory=dict)
    messages: int = 0
    unreadable: list[Unreadable] = field(default_factory=list)
    oldest_ms: int = 0

    def add(self, message: Any, read_key: ReadKey) -> int:
        """Add a message; gives its size in bytes."""
        value, key = message.value(), message.key()
        self.messages += 1
        kind, millis = message.timestamp()
        if kind != TIMESTAMP_NOT_AVAILABLE and (millis < self.oldest_ms or not self.oldest_ms):
            self.oldest_ms = max(millis, 1)
        found = read_key(value, key)
        if isinstance(found, str):
            self.unreadable.append(
                Unreadable(message.partition(), message.offset(), found, noted_at=time.time())
            )
        else:
            self.keys[found] = None
        return len(value or b"") + len(key or b"")


class KafkaSource:
    """A `ChangeSource` of one topic; see the module."""

    def __init__(self, settings: KafkaSettings, topic: str, read_key: ReadKey, group: str):
        self._settings = settings
        self._topic = topic
        self._read_key = read_key
        self._group = group
        self._topics = TopicReader(settings, topic)
        self._consumer: Consumer | None = None
        self._next: dict[int, int] = {}
        """The next offset of each assigned partition; empty before anything is assigned."""
        self._bytes_per_message = CHUNK_BYTES // FIRST_CHUNK_MESSAGES
        self._commit_failure = ""

    def now(self) -> Position:
        """See `ChangeSource.now`."""
        topic = self._topics.read()
        return Position(topic=self._topic, offsets=dict(topic.ends), topic_id=topic.topic_id)

    def lag(self, position: Position) -> Lag:
        """See `ChangeSource.lag`."""
        topic = self._topics.read()
        starts = {p: position.offsets.get(p, topic.begins[p]) for p in topic.begins}
        lost = find_lost(position, self._topic, topic)
        behind = {p: topic.ends[p] - (topic.begins[p] if p in lost else starts[p]) for p in starts}
        return Lag(by_partition={p: max(0, behind[p]) for p in behind}, lost=lost)

    def leave_lost(self, position: Position) -> Position:
        """See `ChangeSource.leave_lost`."""
        topic = self._topics.read()
        lost = find_lost(position, self._topic, topic)
        return replace(
            position,
            topic=self._topic,
            topic_id=topic.topic_id,
            offsets={
                p: begin if p in lost else position.offsets.get(p, begin)
                for p, begin in topic.begins.items()
            },
        )

    def read(self, position: Position, *, most: int, seconds: float) -> Batch:
        """See `ChangeSource.read`."""
        deadline = time.monotonic() + seconds
        topic = self._topics.read()
        lost = find_lost(position, self._topic, topic)
        if lost:
            raise PermanentError(
                f"changes are lost: {'; '.join(list(lost.values())[:3])}; the next run will "
                "compare all ranges"
            )
        consumer = self._assign(
            {p: position.offsets.get(p, begin) for p, begin in topic.begins.items()}
        )
        found = _Found()
        try:
            while True:
                room = min(most - len(found.keys), MAX_UNREADABLE - len(found.unreadable))
                left = deadline - time.monotonic()
                if room > 0:
                    self._consume(consumer, found, room, min(WAIT_SECONDS, max(0.0, left)))
                caught_up = all(self._next[p] >= end for p, end in topic.ends.items())
                if room <= 0 or left <= 0 or (caught_up and found.messages):
                    break
        except BaseException:
            # What was consumed is in no batch: the next read assigns anew.
            self._next = {}
            raise
        return Batch(
            keys=without_covered(found.keys),
            position=replace(
                position,
                topic=self._topic,
                topic_id=topic.topic_id,
                offsets=dict(self._next),
            ),
            messages=found.messages,
            unreadable=tuple(found.unreadable),
            oldest_at=found.oldest_ms / 1000 if found.oldest_ms else None,
            caught_up=caught_up,
        )

    def acknowledge(self, position: Position) -> str:
        """See `ChangeSource.acknowledge`; a refusal of an earlier position is told here."""
        if not position.offsets:
            return ""
        try:
            # Not by AdminClient: when brokers went away, its call for this killed the process.
            consumer = self._open()
            consumer.commit(
                offsets=[
                    TopicPartition(self._topic, p, offset) for p, offset in position.offsets.items()
                ],
                asynchronous=True,
            )
            if not self._next:
                consumer.poll(0)  # serves what came of earlier ones; nothing is assigned to come
        except KafkaException as error:
            self._commit_failure = str(error.args[0].str())
        failure, self._commit_failure = self._commit_failure, ""
        if not failure:
            return ""
        return (
            f"the group {self._group} does not show how far the synchronisation is, which harms "
            f"nothing else: {failure}"
        )

    def close(self) -> None:
        """See `ChangeSource.close`."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _open(self) -> Consumer:
        if self._consumer is None:
            config = {
                **self._settings.to_config(),
                "group.id": self._group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "allow.auto.create.topics": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "check.crcs": True,
                "fetch.wait.max.ms": 100,
                "error_cb": self._topics.note_error,
                "on_commit": self._note_commit,
            }
            try:
                self._consumer = Consumer(config, logger=silent_logger())
            except KafkaException as error:
                raise self._topics.explain(error) from None
        return self._consumer

    def _note_commit(self, error: Any, partitions: Iterable[TopicPartition]) -> None:
        failed = error or next((each.error for each in partitions or () if each.error), None)
        if failed is not None and failed.code() != KafkaError._NO_OFFSET:
            self._commit_failure = failed.str()

    def _assign(self, starts: Mapping[int, int]) -> Consumer:
        """Begin at these offsets, unless that is where the last batch ended."""
        consumer = self._open()
        if starts != self._next:
            consumer.assign([TopicPartition(self._topic, p, o) for p, o in starts.items()])
            self._next = dict(starts)
        return consumer

    def _consume(self, consumer: Consumer, found: _Found, room: int, seconds: float) -> None:
        fit = max(1, CHUNK_BYTES // self._bytes_per_message)
        messages: list[Any] = []
        try:
            messages = consumer.consume(min(room, fit, CHUNK_MESSAGES), seconds)
        except KafkaException as error:
            raise self._topics.explain(error) from None
        size = count = 0
        for message in messages:
            error = message.error()
            partition, offset = message.partition(), message.offset()
            if error is None:
                size += found.add(message, self._read_key)
                count += 1
                self._next[partition] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # Behind the marks of transactions and what compaction took away, too.
                if offset != OFFSET_INVALID:
                    self._next[partition] = max(self._next[partition], offset)
            elif error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                self._commit_failure = error.str()  # reading needs no group
            elif not error.retriable():
                raise self._topics.explain(KafkaException(error))
        if count:
            self._bytes_per_message = max(64, size // count)


def find_lost(position: Position, name: str, topic: Topic) -> dict[int, str]:
    """Say of each partition of which messages are gone unread, why."""
    made_anew = ""
    if position.topic and position.topic != name:
        made_anew = f"the position is one of the topic {position.topic}, and {name} is read now"
    elif position.topic_id and topic.topic_id and position.topic_id != topic.topic_id:
        made_anew = f"the topic {name} was deleted and made anew"
    if made_anew:
        return dict.fromkeys({*topic.begins, *position.offsets}, made_anew)
    lost: dict[int, str] = {}
    for partition in sorted({*topic.begins, *position.offsets}):
        at, begin = position.offsets.get(partition), topic.begins.get(partition)
        where = f"partition {partition} of {name}"
        if begin is None:
            lost[partition] = f"{where} is gone, and {len(topic.begins)} partitions are there"
        elif at is None:
            if begin:
                lost[partition] = (
                    f"{where} is new, and begins at offset {begin}: what was before is deleted"
                )
        elif at < begin:
            lost[partition] = (
                f"{where} begins at offset {begin}, and offsets {at} to {begin - 1} are deleted "
                "that were not read yet"
            )
        elif at > topic.tops[partition]:
            lost[partition] = (
                f"{where} ends at offset {topic.tops[partition]}, and was read up to {at}: it was "
                "made anew, or has lost its last messages"
            )
    return lost


def without_covered(keys: Iterable[Key]) -> tuple[Key, ...]:
    """Leave keys out that begin with another one, which stands for them too."""
    all_keys = list(keys)
    lengths = sorted({len(key) for key in all_keys})
    if len(lengths) < 2:
        return tuple(all_keys)
    shorter = {key for key in all_keys if len(key) < lengths[-1]}
    return tuple(
        key
        for key in all_keys
        if not any(key[:length] in shorter for length in lengths if length < len(key))
    )
