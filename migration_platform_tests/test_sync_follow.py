"""A synchronisation as a whole: messages and rounds, what it tells, what is lost, what fails."""

import time
from dataclasses import dataclass, field, replace

import pytest

from migration_platform.cql.types import parse_type
from migration_platform.cql.values import encode_value
from migration_platform.declaration.sync import KafkaChanges, ScanRounds, Sync
from migration_platform.errors import MigrationError
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.syncing import follow as following
from migration_platform.syncing.changes import Batch, Key, Lag
from migration_platform.syncing.counts import SyncCounts
from migration_platform.syncing.follow import Followed, Limits, follow
from migration_platform.syncing.position import Position, Unreadable
from migration_platform.syncing.rows import to_sync_plan
from migration_platform_tests.comparing import OneProcess, compare, found
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process, plan_copy

RANGES = 4
ALL = frozenset(range(RANGES))
BY_MESSAGES = Sync(kafka=KafkaChanges("kafka", "t"))
BY_ROUNDS = Sync(scan=ScanRounds())
AT_ONCE = Limits(idle_seconds=0.0)


@dataclass
class Told:
    """Messages of one partition, as a list: a key, or why there is none. What is first is gone."""

    messages: list[Key | str] = field(default_factory=list)
    gone: int = 0
    topic: str = "t"

    def now(self) -> Position:
        return Position(topic=self.topic, offsets={0: len(self.messages)})

    def lag(self, position: Position) -> Lag:
        at = position.offsets.get(0, 0)
        lost = {0: f"messages {at} to {self.gone - 1} are gone"} if at < self.gone else {}
        return Lag({0: len(self.messages) - at}, lost)

    def read(self, position: Position, *, most: int, seconds: float) -> Batch:
        at = max(position.offsets.get(0, 0), self.gone)
        some = self.messages[at : at + most]
        bad = [(at + n, each) for n, each in enumerate(some) if isinstance(each, str)]
        return Batch(
            keys=tuple(dict.fromkeys(each for each in some if not isinstance(each, str))),
            position=replace(position, topic=self.topic, offsets={0: at + len(some)}),
            messages=len(some),
            unreadable=tuple(Unreadable(0, offset, why) for offset, why in bad),
            oldest_at=time.time() if some else None,
            caught_up=at + len(some) == len(self.messages),
        )

    def leave_lost(self, position: Position) -> Position:
        return replace(position, offsets={0: max(position.offsets.get(0, 0), self.gone)})

    def acknowledge(self, position: Position) -> str:
        return ""

    def close(self) -> None:
        """There is nothing to let go."""


@dataclass
class Following:
    """Two equal tables, and what follows the first of them."""

    plan: Plan
    connection: Connection
    told: list[Followed] = field(default_factory=list)

    def run(self, statement: str) -> None:
        self.connection.session.execute(statement.format(self.plan.origin.name))

    def follow(self, source: Told | None, position: Position, limits: Limits = AT_ONCE) -> Position:
        self.told = []
        pool = OneProcess(self.plan, self.connection)
        return follow(pool, self.plan, source, position, limits, self.told.append)

    @property
    def counts(self) -> SyncCounts:
        return sum((each.counts for each in self.told), start=SyncCounts())

    def difference(self) -> tuple[int, int, int]:
        plan = replace(self.plan, migration=replace(self.plan.migration, repair=()))
        return found(compare(self.connection, plan))


def key(number: int) -> Key:
    return (encode_value(number, parse_type("int")),)


@pytest.fixture
def tables(connection, keyspace) -> Following:
    names = [create_table(connection, keyspace, name, "k int PRIMARY KEY, v int") for name in "ab"]
    fill(connection, names[0], "k, v", [(n, n) for n in range(40)])
    plan = plan_copy(connection, *names, token_ranges=RANGES, sync=BY_MESSAGES)
    copy_ranges(in_process(plan, connection))
    return Following(to_sync_plan(plan), connection)


def with_rounds(tables: Following, **options: int) -> Following:
    migration = replace(tables.plan.migration, sync=BY_ROUNDS, **options)
    return replace(tables, plan=replace(tables.plan, migration=migration))


# -- messages ------------------------------------------------------------------------------------


def test_what_messages_name_is_made_the_same_and_the_position_is_behind_them(tables):
    source, before = Told(), time.time()
    tables.run("UPDATE {} SET v = 100 WHERE k = 1")
    tables.run("DELETE FROM {} WHERE k = 2")
    source.messages += [key(1), key(2), key(1), key(3)]

    position = tables.follow(source, Position(topic="t", offsets={0: 0}))

    assert tables.difference() == (0, 0, 0)
    assert position.offsets == {0: 4}
    assert position.synced_at >= before
    counts = tables.counts
    assert (counts.messages, counts.keys, counts.written, counts.deleted, counts.unchanged) == (
        4, 3, 1, 1, 1,
    )  # fmt: skip
    assert tables.told[-1].position == position
    assert tables.told[-1].lag.messages == 0


def test_what_cannot_be_written_leaves_the_position_where_it_was(tables):
    source = Told([key(1)])
    tables.run("UPDATE {} SET v = 100 WHERE k = 1")
    tables.run("UPDATE {} SET v = 100 WHERE k = 2")
    reached = tables.follow(source, Position(topic="t", offsets={0: 0}))
    source.messages.append(key(2))
    target = tables.plan.target.name
    tables.connection.session.execute(f"ALTER TABLE {target} RENAME k TO other")

    with pytest.raises(MigrationError):
        tables.follow(source, reached)

    assert not tables.told
    tables.connection.session.execute(f"ALTER TABLE {target} RENAME other TO k")
    tables.follow(source, reached)
    assert tables.difference() == (0, 0, 0)


def test_it_ends_at_the_position_that_was_asked_for(tables, monkeypatch):
    monkeypatch.setattr(following, "KEYS_A_BATCH", 2)
    source = Told([key(n) for n in range(10)])
    wanted = Position(topic="t", offsets={0: 5})

    position = tables.follow(
        source, Position(topic="t", offsets={0: 0}), Limits(seconds=0, up_to=wanted)
    )

    # Whole batches, and not one more than is needed.
    assert position.offsets == {0: 6}


def test_it_waits_for_messages_that_come_later_and_tells_of_lag_meanwhile(tables, monkeypatch):
    monkeypatch.setattr(following, "COMMIT_SECONDS", 0.0)
    source = Told([key(1)])
    read = source.read

    def read_slowly(position: Position, *, most: int, seconds: float) -> Batch:
        if len(source.messages) < 3:
            batch = read(position, most=1, seconds=seconds)
            source.messages.append(key(len(source.messages) + 1))
            return batch
        return read(position, most=1, seconds=seconds)

    source.read = read_slowly
    position = tables.follow(source, Position(topic="t", offsets={0: 0}), Limits(idle_seconds=0.2))
    assert position.offsets == {0: 3}
    assert [each.lag.messages for each in tables.told][:2] == [1, 1]


# -- messages that are lost ----------------------------------------------------------------------


def test_where_messages_are_gone_all_ranges_are_compared_and_nothing_is_lost(tables):
    source = Told([key(n) for n in range(6)], gone=4)
    for statement in (
        "UPDATE {} SET v = 100 WHERE k = 1", "DELETE FROM {} WHERE k = 2",
        "INSERT INTO {} (k, v) VALUES (77, 7)",
    ):  # fmt: skip
        tables.run(statement)

    position = tables.follow(source, Position(topic="t", offsets={0: 2}))

    assert tables.difference() == (0, 0, 0)
    assert position.offsets == {0: 6}
    assert not position.open_ranges
    first = tables.told[0]
    # Told before a range is compared: a run that is killed now knows what it owes.
    assert first.lost == ("messages 2 to 3 are gone",)
    assert first.position.open_ranges == ALL
    assert first.position.synced_at == 0
    assert tables.counts.ranges == RANGES


def test_what_is_left_of_the_ranges_is_done_by_the_next_run(tables):
    source = Told([key(1)], gone=1)
    tables.run("DELETE FROM {} WHERE k = 2")

    first = tables.follow(
        source, Position(topic="t", offsets={0: 0}), Limits(ranges=1, idle_seconds=0.0)
    )
    assert len(first.open_ranges) == RANGES - 1
    assert first.synced_at == 0

    last = tables.follow(source, first)
    assert not last.open_ranges
    assert not tables.told[0].lost
    assert last.synced_at > 0
    assert tables.difference() == (0, 0, 0)


def test_messages_without_a_key_fail_the_run_or_are_set_aside_until_all_was_compared(tables):
    source = Told([key(1), "it is no JSON", key(2)])
    begin = Position(topic="t", offsets={0: 0})
    tables.run("DELETE FROM {} WHERE k = 9")

    with pytest.raises(MigrationError) as refused:
        tables.follow(source, begin)
    assert "message 1 of partition 0 of the topic t names no row: it is no JSON" in str(
        refused.value
    )
    assert "dead_letters.max_rows" in str(refused.value)
    assert not tables.told

    migration = replace(tables.plan.migration, dead_letters_max_rows=1)
    lenient = replace(tables, plan=replace(tables.plan, migration=migration))
    aside = lenient.follow(source, begin)
    assert [(each.offset, each.reason) for each in aside.unreadable] == [(1, "it is no JSON")]
    assert aside.offsets == {0: 3}
    # Read again from an earlier position, it is still the same message.
    again = lenient.follow(source, replace(aside, offsets={0: 0}))
    assert len(again.unreadable) == 1

    healed = lenient.follow(source, again.with_open(ALL))
    assert not healed.unreadable
    assert lenient.difference() == (0, 0, 0)


# -- rounds --------------------------------------------------------------------------------------


def test_a_round_finds_every_change_and_says_since_when(tables):
    rounds, before = with_rounds(tables), time.time()
    for statement in (
        "UPDATE {} SET v = 100 WHERE k = 1", "DELETE FROM {} WHERE k = 2",
        "INSERT INTO {} (k, v) VALUES (77, 7)", "DELETE v FROM {} WHERE k = 3",
    ):  # fmt: skip
        rounds.run(statement)

    position = rounds.follow(None, Position().with_open(ALL))

    assert rounds.difference() == (0, 0, 0)
    counts = rounds.counts
    assert (counts.written, counts.deleted, counts.unchanged, counts.kept) == (3, 1, 37, 0)
    assert counts.ranges == RANGES
    assert not position.open_ranges
    assert before <= position.synced_at <= time.time()


def test_a_round_in_parts_is_as_old_as_its_oldest_range(tables):
    rounds = with_rounds(tables)
    one = Limits(ranges=1)
    position = replace(Position(synced_at=5.0), open_ranges=ALL)
    for done in range(RANGES):
        assert position.synced_at == 5.0
        position = rounds.follow(None, position, one)
        assert position.open_ranges == frozenset(range(done + 1, RANGES))
    assert position.synced_at == min(position.compared_at.values()) > 5.0


def test_rows_that_may_not_be_deleted_are_kept_and_counted(tables):
    migration = replace(tables.plan.migration, sync=replace(BY_ROUNDS, deletes=False))
    plan = to_sync_plan(replace(tables.plan, migration=migration))
    rounds = replace(tables, plan=plan)
    rounds.run("DELETE FROM {} WHERE k = 2")
    rounds.run("UPDATE {} SET v = 100 WHERE k = 1")

    rounds.follow(None, Position().with_open(ALL))

    assert (rounds.counts.written, rounds.counts.deleted) == (1, 0)
    two_way = replace(rounds.plan.migration, diff_mode="two_way")
    assert replace(rounds, plan=replace(rounds.plan, migration=two_way)).difference() == (0, 1, 0)


def test_a_row_written_again_with_another_ttl_is_shipped_by_a_round(tables):
    rounds = with_rounds(tables)
    rounds.run("UPDATE {} USING TTL 1000 SET v = 1 WHERE k = 1")

    rounds.follow(None, Position().with_open(ALL))

    (ttl,) = rounds.connection.session.execute(
        f"SELECT ttl(v) FROM {rounds.plan.target.name} WHERE k = 1"
    ).one()
    assert 900 < ttl <= 1000
