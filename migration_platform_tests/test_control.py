"""Rate and pause, changed by somebody else while a run works."""

import multiprocessing
import threading
import uuid

import pytest
from cassandra.cluster import Session

from migration_platform.copying.copy import CopyRange
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError, MigrationError
from migration_platform.pacing.rate import RateBudget
from migration_platform.runs.control import (
    CONTROL_TABLES,
    Control,
    Watch,
    apply_control,
    describe_control,
    read_control,
    set_limits,
    set_paused,
)
from migration_platform.runs.tracking import migration_key
from migration_platform.runs.tracking_tables import TrackingTables, open_tables
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.work import Done, Failed
from migration_platform_tests.dagster_project import wait_until
from migration_platform_tests.tables import create_table, declare, fill, plan_copy, rows_of

ROWS = 200


@pytest.fixture
def migration(keyspace: str) -> Migration:
    name = TableName(keyspace, f"b_{uuid.uuid4().hex[:12]}")
    return declare(TableName(keyspace, "a"), name, origin_rows_per_second=500)


@pytest.fixture
def tables(connection: Connection, migration: Migration) -> TrackingTables:
    return open_tables(connection, migration, CONTROL_TABLES)


def budgets(migration: Migration) -> tuple[RateBudget, RateBudget]:
    context = multiprocessing.get_context("spawn")
    rows = migration.origin.rows_per_second
    return RateBudget(context, rows_per_second=rows), RateBudget(context)


def limits_of(budget: RateBudget) -> tuple[int | None, int | None]:
    return budget.rows_per_second, budget.size_per_second


def test_what_is_set_holds_until_it_is_set_back(
    tables: TrackingTables, migration: Migration
) -> None:
    origin, target = budgets(migration)
    reading = RateBudget(multiprocessing.get_context("spawn"), size_per_second=9)
    assert read_control(tables, migration) == Control()

    set_limits(tables, migration, {"origin_rows": 7, "target_bytes": 1000})
    set_limits(tables, migration, {"target_rows": 8})
    set_paused(tables, migration, paused=True)
    control = read_control(tables, migration)
    apply_control(control, migration, origin, target, reading)

    assert control.limits == {"origin_rows": 7, "target_rows": 8, "target_bytes": 1000}
    assert (limits_of(origin), limits_of(target)) == ((7, None), (8, 1000))
    assert [budget.paused for budget in (origin, target, reading)] == [True, True, True]
    assert describe_control(control, migration) == (
        "paused; rate: origin 7 rows/s (set), target 8 rows/s (set), target 1,000 bytes/s (set)"
    )

    set_limits(tables, migration, dict.fromkeys(control.limits))
    set_paused(tables, migration, paused=False)
    control = read_control(tables, migration)
    apply_control(control, migration, origin, target, reading)

    assert (limits_of(origin), limits_of(target)) == ((500, None), (None, None))
    assert not any(budget.paused for budget in (origin, target, reading))
    assert limits_of(reading) == (None, 9)
    assert describe_control(control, migration) == "rate: origin 500 rows/s (declared)"


@pytest.mark.parametrize("value", [0, -5, 10**9 + 1])
def test_a_limit_that_makes_no_sense_is_refused(
    tables: TrackingTables, migration: Migration, value: int
) -> None:
    with pytest.raises(DeclarationError, match=f"--target-rows is {value}; valid are 1 to"):
        set_limits(tables, migration, {"target_rows": value})
    assert read_control(tables, migration) == Control()


def test_a_run_that_begins_in_a_pause_waits_for_its_end_longer_than_it_tries_again(
    connection: Connection, reader: Session, settings: CassandraSettings, keyspace: str
) -> None:
    origin = create_table(connection, keyspace, "a", "k int PRIMARY KEY")
    target = create_table(connection, keyspace, f"b_{uuid.uuid4().hex[:8]}", "k int PRIMARY KEY")
    fill(connection, origin, "k", [(n,) for n in range(ROWS)])
    plan = plan_copy(connection, origin, target, retry_seconds=0.5, token_ranges=2)
    tables = open_tables(connection, plan.migration, CONTROL_TABLES)
    set_paused(tables, plan.migration, paused=True)
    said: list[str] = []
    events = []
    with WorkerPool(plan, settings, settings, workers=2) as pool:
        both = pool.origin_budget, pool.target_budget
        with Watch(tables, plan.migration, both, said.append):
            assert said[0].startswith("Paused since ")
            tasks = [CopyRange(token_range) for token_range in plan.migration.ranges]
            copying = threading.Thread(target=lambda: events.extend(pool.run(tasks)))
            copying.start()
            # Long enough that the workers are connected and at work, past every retry.
            copying.join(3.0)
            assert copying.is_alive()
            assert rows_of(reader, target) == []
            set_limits(tables, plan.migration, {"origin_rows": 10**6})
            wait_until(lambda: len(said) == 2, 5, "the new rate was told")
            set_paused(tables, plan.migration, paused=False)
            copying.join(60)
            assert not copying.is_alive()
            wait_until(lambda: len(said) == 3, 5, "the end of the pause was told")
    assert [type(event) for event in events].count(Done) == 2
    assert not [event for event in events if isinstance(event, Failed)]
    assert len(rows_of(reader, target)) == ROWS
    assert said[1:] == [
        "Now paused; rate: origin 1,000,000 rows/s (set)",
        "The pause is over; going on where it was.",
    ]


def test_a_state_that_cannot_be_read_later_is_told_once_and_stops_nothing(
    tables: TrackingTables, connection: Connection, migration: Migration
) -> None:
    said: list[str] = []
    origin, target = budgets(migration)
    set_limits(tables, migration, {"origin_rows": 7})
    with Watch(tables, migration, (origin, target), said.append) as watch:
        said.clear()
        watch._tables = nowhere(connection)
        watch._look()
        watch._look()
        (line,) = said
        assert line.startswith("Rate and pause stay as they are, because they cannot be read: ")
        assert limits_of(origin) == (7, None)


def test_a_run_whose_first_look_fails_does_not_begin(
    connection: Connection, migration: Migration
) -> None:
    with (
        pytest.raises(MigrationError, match="tracking keyspace nowhere cannot be used: "),
        Watch(nowhere(connection), migration, budgets(migration), print),
    ):
        raise AssertionError("it began")


def test_a_pause_that_was_set_by_hand_is_followed_and_ends(
    connection: Connection, tables: TrackingTables, migration: Migration
) -> None:
    insert = f"INSERT INTO {tables.keyspace}.run_control (migration, paused) VALUES (%s, true)"
    connection.session.execute(insert, [migration_key(migration)])
    said: list[str] = []
    both = budgets(migration)
    with Watch(tables, migration, both, said.append) as watch:
        assert said[0].startswith("Paused: nothing is read or written until ")
        waiting = threading.Thread(target=watch.wait_while_paused)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        set_paused(tables, migration, paused=False)
        waiting.join(5)
        assert not waiting.is_alive()
        assert not both[0].paused


def test_a_pause_keeps_its_time_when_a_rate_is_changed(
    tables: TrackingTables, migration: Migration
) -> None:
    set_paused(tables, migration, paused=True)
    since = read_control(tables, migration).paused_at
    set_limits(tables, migration, {"target_rows": 8})
    assert since is not None
    assert read_control(tables, migration).paused_at == since


def test_nothing_that_goes_wrong_ends_the_watch(
    tables: TrackingTables, migration: Migration
) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        raise OSError("the disk is full")

    origin, target = budgets(migration)
    with Watch(tables, migration, (origin, target), say):
        set_paused(tables, migration, paused=True)
        wait_until(lambda: origin.paused, 5, "the run paused")
        set_paused(tables, migration, paused=False)
        wait_until(lambda: not origin.paused, 5, "the run went on")
    assert said[1].endswith("cannot be read: the disk is full")


def nowhere(connection: Connection) -> TrackingTables:
    return TrackingTables(connection, "nowhere", consistency="ONE", retry_seconds=0.0)
