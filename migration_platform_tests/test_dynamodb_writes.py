"""Items are written in batches, whatever the line and the server do: nothing lost or doubled."""

import itertools
import json
import random
import threading
import time
import uuid
from collections import Counter
from typing import Any

import pytest

from migration_platform.errors import PermanentError, TransientError
from migration_platform.pacing import rate, retries
from migration_platform.pacing.rate import RateBudget
from migration_platform.stores.dynamodb import retries as dynamodb_retries
from migration_platform.stores.dynamodb.connection import DynamoDb, DynamoDbSettings
from migration_platform.stores.dynamodb.tables import DynamoTable, Index, KeyAttribute, create_table
from migration_platform.stores.dynamodb.writes import ItemWriter, delete_items, empty_table
from migration_platform_tests.dynamodb_faults import (
    Answered,
    Asked,
    Forward,
    answer_with,
    cut_off,
    damage,
    delay,
    drop,
    fail,
    fair,
    leave_unprocessed,
    refuse,
    shorten,
    swallow,
    take_only,
    throttle,
)
from migration_platform_tests.dynamodb_tables import (
    CONTEXT,
    budget_of,
    item_of,
    items_of,
    key_of,
    new_table,
    settings_of,
)

SHORT = 0.5
"""Seconds of retries where they are to run out."""


@pytest.fixture
def table(dynamo: DynamoDb) -> DynamoTable:
    return new_table(dynamo)


class Told:
    """Collects what a writer tells."""

    def __init__(self) -> None:
        self.retries: list[BaseException] = []
        self.rejected: dict[Any, PermanentError] = {}

    def writer(
        self,
        dynamo: DynamoDb,
        table: DynamoTable,
        *,
        retry_seconds: float = 30.0,
        budget: RateBudget | None = None,
        **options: Any,
    ) -> ItemWriter:
        return ItemWriter(
            dynamo,
            table,
            budget=budget or budget_of(),
            retry_seconds=retry_seconds,
            on_retry=self.retries.append,
            **options,
        )

    def reject(self, mark: Any, error: PermanentError) -> None:
        self.rejected[mark] = error


@pytest.fixture
def told() -> Told:
    return Told()


def write_all(writer: ItemWriter, numbers: range, value: str = "v") -> None:
    for number in numbers:
        writer.write(number, item_of(number, value), key_of(number), 1)
    writer.flush()


def keys_in(items: list[dict[str, Any]]) -> set[int]:
    return {int(item["id"]["S"]) for item in items}


# -- batches -----------------------------------------------------------------------------------


def test_items_arrive_in_batches_of_25(dynamodb, dynamo, faulty, through, table, told):
    writer = told.writer(through, table)
    write_all(writer, range(130), "é😀\n")
    assert writer.rows_written == 130
    assert sorted(len(a.writes) for a in faulty.of("BatchWriteItem")) == [5] + [25] * 5
    items = items_of(dynamodb.port, table)
    assert keys_in(items) == set(range(130))
    assert {item["v"]["S"] for item in items} == {"é😀\n"}
    assert told.retries == []


def test_a_batch_stays_far_below_16_mb(dynamodb, faulty, through, table, told):
    writer = told.writer(through, table)
    write_all(writer, range(12), "x" * 390_000)
    assert {len(asked.writes) for asked in faulty.of("BatchWriteItem")} == {2}
    assert keys_in(items_of(dynamodb.port, table)) == set(range(12))


def test_a_key_is_never_twice_under_way_and_its_last_row_wins(
    dynamodb, faulty, through, table, told
):
    under_way: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.Lock()

    def watch(asked: Asked, forward: Forward) -> Answered:
        keys = [item["id"]["S"] for item in asked.writes]
        with lock:
            under_way.update(keys)
            most.update({key: under_way[key] - most[key] for key in keys})
        time.sleep(random.uniform(0, 0.01))
        answer = forward(asked.body)
        with lock:
            under_way.subtract(keys)
        return answer

    faulty.suffer("BatchWriteItem", [], then=watch)
    writer = told.writer(through, table)
    last = {}
    chosen = random.Random(1)
    for turn in range(400):
        number = chosen.randrange(60)
        last[number] = str(turn)
        writer.write(turn, item_of(number, str(turn)), key_of(number), 1)
    writer.flush()
    assert writer.rows_written == 400
    assert set(most.values()) == {1}
    assert {int(i["id"]["S"]): i["v"]["S"] for i in items_of(dynamodb.port, table)} == last


def test_keys_of_numbers_and_bytes_are_told_apart(dynamo, told):
    key = [KeyAttribute("p", "B"), KeyAttribute("s", "N")]
    table = new_table(dynamo, key)
    writer = told.writer(dynamo, table)
    for blob, number in itertools.product(("AA==", "AAE="), ("1", "-2.5", "1E+3")):
        text = json.dumps({"p": {"B": blob}, "s": {"N": number}})
        writer.write(None, text, text, 1)
    writer.flush()
    assert writer.rows_written == 6
    deleted = empty_table(
        dynamo, table, budget=budget_of(), retry_seconds=5, on_retry=told.retries.append
    )
    assert deleted == 6


def test_items_are_deleted_by_their_keys(dynamodb, dynamo, table, told):
    write_all(told.writer(dynamo, table), range(60))
    keys = [key_of(number) for number in range(5, 95)]
    count = delete_items(
        dynamo, table, keys, budget=budget_of(), retry_seconds=5, on_retry=told.retries.append
    )
    assert count == 90
    assert keys_in(items_of(dynamodb.port, table)) == set(range(5))


# -- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [throttle, fail, drop, swallow, cut_off, damage, shorten, leave_unprocessed(7)]
)
def test_a_fault_is_tried_again_and_nothing_is_lost(dynamodb, faulty, through, table, told, fault):
    faulty.suffer("BatchWriteItem", [fault] * 4)
    writer = told.writer(through, table)
    write_all(writer, range(100))
    assert writer.rows_written == 100
    assert len(told.retries) == 4
    assert keys_in(items_of(dynamodb.port, table)) == set(range(100))


def test_a_storm_of_faults_loses_and_doubles_nothing(
    dynamodb, faulty, through, table, told, monkeypatch
):
    monkeypatch.setattr(rate, "RECOVERY", 10.0)  # it is no test of patience
    chosen = random.Random(7)
    faults = [
        throttle, fail, drop, swallow, cut_off, damage, shorten, leave_unprocessed(3),
        leave_unprocessed(25), delay(0.02), refuse("ThrottlingException"), *[fair] * 24,
    ]  # fmt: skip
    faulty.suffer("BatchWriteItem", chosen.choices(faults, k=120))
    writer = told.writer(through, table, on_rejected=told.reject)
    for number in range(1500):
        # Every tenth key comes once more, some batches later.
        writer.write(number, item_of(number, "old"), key_of(number), 1)
        if number >= 100 and not number % 10:
            writer.write(number, item_of(number - 100, "new"), key_of(number - 100), 1)
    writer.flush()
    assert writer.rows_written == 1500 + 140
    assert told.rejected == {}
    items = items_of(dynamodb.port, table)
    assert keys_in(items) == set(range(1500))
    newer = {int(item["id"]["S"]) for item in items if item["v"]["S"] == "new"}
    assert newer == set(range(0, 1400, 10))
    for asked in faulty.of("BatchWriteItem"):
        keys = [item["id"]["S"] for item in asked.writes]
        assert len(keys) <= 25
        assert len(set(keys)) == len(keys)


def test_a_server_that_does_not_answer_in_time_is_asked_again(
    dynamodb, faulty, through, table, told
):
    faulty.suffer("BatchWriteItem", [delay(1.3)])
    writer = told.writer(through, table)
    write_all(writer, range(3))
    assert writer.rows_written == 3
    assert "did not answer within 1 s" in str(told.retries[0])


@pytest.mark.parametrize("fault", [throttle, fail, drop, leave_unprocessed(25)])
def test_retries_end_when_nothing_gets_through(faulty, through, table, told, fault):
    faulty.suffer("BatchWriteItem", [], then=fault)
    writer = told.writer(through, table, retry_seconds=SHORT)
    began = time.monotonic()
    with pytest.raises(TransientError, match=r"after \d+ tries in"):
        write_all(writer, range(200))
    assert SHORT <= time.monotonic() - began < SHORT + 2
    assert writer.rows_written == 0


def test_a_slow_table_that_takes_something_never_fails_the_run(
    dynamodb, faulty, through, table, told
):
    def take_one(asked: Asked, forward: Forward) -> Answered | None:
        time.sleep(0.03)
        return take_only(1)(asked, forward)

    faulty.suffer("BatchWriteItem", [], then=take_one)
    writer = told.writer(through, table, retry_seconds=SHORT, in_flight=2)
    began = time.monotonic()
    write_all(writer, range(50))
    assert time.monotonic() - began > SHORT
    assert writer.rows_written == 50
    assert keys_in(items_of(dynamodb.port, table)) == set(range(50))


def test_only_what_was_left_is_sent_again(faulty, through, table, told):
    faulty.suffer("BatchWriteItem", [leave_unprocessed(7)])
    write_all(told.writer(through, table), range(25))
    first, second = faulty.of("BatchWriteItem")
    assert second.writes == first.writes[-7:]


def leave_the_first(asked: Asked, forward: Forward) -> Answered:
    ((table, items),) = asked.body["RequestItems"].items()
    forward({"RequestItems": {table: items[1:]}})
    return answer_with(200, {"UnprocessedItems": {table: items[:1]}})


def test_what_was_left_is_told_from_a_key_that_differs_in_its_last_digit(
    dynamo, faulty, through, told
):
    table = new_table(dynamo, [KeyAttribute("n", "N")])
    faulty.suffer("BatchWriteItem", [leave_the_first])
    writer = told.writer(through, table)
    keys = [json.dumps({"n": {"N": "7" * 37 + last}}) for last in "12"]
    for key in keys:
        writer.write(None, key, key, 1)
    writer.flush()
    assert writer.rows_written == 2
    assert empty_table(dynamo, table, budget=budget_of(), retry_seconds=5, on_retry=print) == 2


# -- refusals ----------------------------------------------------------------------------------

EMPTY = json.dumps({"id": {"S": ""}, "v": {"S": "v"}})


def test_items_that_are_refused_are_handed_over_and_the_others_written(
    dynamodb, dynamo, table, told
):
    writer = told.writer(dynamo, table, on_rejected=told.reject)
    for number in range(60):
        if number == 3:
            writer.write("empty", EMPTY, json.dumps({"id": {"S": ""}}), 1)
        if number == 40:
            writer.write("large", item_of("large", "x" * 410_000), key_of("large"), 1)
        if number == 41:
            writer.write("broken", '{"id":{"S":"a"},"v":{"N":"one"}}', key_of("a"), 1)
        writer.write(number, item_of(number), key_of(number), 1)
    writer.flush()
    assert writer.rows_written == 60
    assert set(told.rejected) == {"empty", "large", "broken"}
    assert "cannot contain an empty string value" in str(told.rejected["empty"])
    assert "Item size has exceeded the maximum allowed size" in str(told.rejected["large"])
    assert "cannot be converted into a number" in str(told.rejected["broken"])
    assert keys_in(items_of(dynamodb.port, table)) == set(range(60))


def test_a_refusal_that_nobody_wants_fails_the_run(dynamo, table, told):
    writer = told.writer(dynamo, table)
    writer.write(1, EMPTY, json.dumps({"id": {"S": ""}}), 1)
    with pytest.raises(PermanentError, match="empty string value"):
        writer.flush()


def test_a_table_that_is_gone_is_no_rows_fault(dynamo, table, told):
    dynamo.administer("delete_table", TableName=table.name)
    writer = told.writer(dynamo, table, on_rejected=told.reject)
    with pytest.raises(PermanentError, match="the table does not exist in region local"):
        write_all(writer, range(30))
    assert told.rejected == {}


def test_a_permission_that_is_missing_is_no_rows_fault(faulty, through, table, told):
    message = "User: arn:aws:iam::1:user/x is not authorized to perform: dynamodb:BatchWriteItem"
    faulty.suffer("BatchWriteItem", [refuse("AccessDeniedException", message)])
    writer = told.writer(through, table, on_rejected=told.reject)
    with pytest.raises(PermanentError, match=r"lacks a permission: .* dynamodb:BatchWriteItem"):
        write_all(writer, range(30))
    assert told.rejected == {}


# -- newest wins -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [fair, swallow, throttle])
def test_the_newest_wins_in_any_order(dynamodb, faulty, through, table, told, fault):
    faulty.suffer("PutItem", [fault] * 2)
    writer = told.writer(through, table, writetime_attribute="written at")
    orders = list(itertools.permutations((5, 7, 9)))
    expected_alone = 0
    for times in zip(*orders, strict=True):
        for number, writetime in enumerate(times):
            item = item_of(number, str(writetime), **{"written at": writetime})
            writer.write(number, item, key_of(number), 1, writetime)
    writer.flush()
    for order in orders:
        newest = 0
        for writetime in order:
            expected_alone += writetime < newest
            newest = max(newest, writetime)
    assert writer.rows_left_alone == expected_alone
    assert writer.rows_written + writer.rows_left_alone == 18
    assert [item["v"]["S"] for item in items_of(dynamodb.port, table)] == ["9"] * 6


def test_a_row_that_is_copied_again_is_written_again(dynamo, table, told):
    for _ in range(2):
        writer = told.writer(dynamo, table, writetime_attribute="w")
        writer.write(1, item_of(1, w=5), key_of(1), 1, 5)
        writer.flush()
        assert (writer.rows_written, writer.rows_left_alone) == (1, 0)


def test_an_item_without_a_writetime_is_overwritten(dynamodb, dynamo, table, told):
    write_all(told.writer(dynamo, table), range(1), "old")
    writer = told.writer(dynamo, table, writetime_attribute="w")
    writer.write(0, item_of(0, "new", w=-1), key_of(0), 1, -1)
    writer.flush()
    assert items_of(dynamodb.port, table)[0]["v"]["S"] == "new"


# -- rates -------------------------------------------------------------------------------------


def test_a_throttle_slows_the_run_down_and_time_speeds_it_up_again(
    faulty, through, table, told, monkeypatch
):
    monkeypatch.setattr(rate, "RECOVERY", 2.0)
    budget = budget_of()
    writer = told.writer(through, table, budget=budget)
    write_all(writer, range(100))
    assert budget.slowed_to is None
    faulty.suffer("BatchWriteItem", [throttle])
    write_all(writer, range(25))
    slowed = budget.slowed_to
    assert slowed is not None
    time.sleep(0.3)
    budget.take(0)
    assert budget.slowed_to > slowed * 1.3
    monkeypatch.setattr(rate, "FORGET_SECONDS", 0.2)
    budget.take(0)
    assert budget.slowed_to is None


def test_a_table_of_some_capacity_is_found_out(faulty, through, table, told, monkeypatch):
    """The table takes 400 items a second: few requests are throttled, as delays are real here."""
    for module in (retries, dynamodb_retries):
        monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 0.2)
    taken: list[tuple[float, int]] = []
    lock = threading.Lock()

    def limit(asked: Asked, forward: Forward) -> Answered | None:
        now = time.monotonic()
        with lock:
            lately = sum(count for at, count in taken if now - at < 0.5)
            fits = lately + len(asked.writes) <= 200
            if fits:
                taken.append((now, len(asked.writes)))
        return (fair if fits else throttle)(asked, forward)

    faulty.suffer("BatchWriteItem", [], then=limit)
    writer = told.writer(through, table)
    write_all(writer, range(800))
    assert writer.rows_written == 800
    assert len(faulty.of("BatchWriteItem")) < 3 * 800 / 25


def write_in_process(settings: DynamoDbSettings, table: DynamoTable, budget: RateBudget, at: int):
    with settings.connect() as dynamo:
        writer = Told().writer(dynamo, table, budget=budget)
        write_all(writer, range(at, at + 150))


def test_a_budget_of_write_units_holds_for_two_processes(dynamodb, faulty, table):
    settings, budget = settings_of(faulty.url), budget_of(size=150)
    processes = [
        CONTEXT.Process(target=write_in_process, args=(settings, table, budget, at))
        for at in (0, 1000)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    times = [asked.at for asked in faulty.of("BatchWriteItem")]
    assert len(times) == 12
    # Each waits until those before it have been earned.
    assert max(times) - min(times) > 11 * 25 / 150 * 0.8
    assert len(items_of(dynamodb.port, table)) == 300


class Counted(RateBudget):
    """A budget that remembers what was taken, and that nothing here reaches."""

    def __init__(self, units_per_second: int | None = 10**9) -> None:
        super().__init__(CONTEXT, size_per_second=units_per_second)
        self.sizes: list[float] = []

    def take(self, rows: int, size: float = 0) -> None:
        self.sizes.append(size)
        super().take(rows, size)


def indexed_table(dynamo: DynamoDb) -> DynamoTable:
    by_value = Index("by_value", (KeyAttribute("v", "S"),))
    name = f"t_{uuid.uuid4().hex[:12]}"
    return create_table(dynamo, name, [KeyAttribute("id", "S")], indexes=[by_value])


def test_a_delete_is_charged_what_the_item_holds(dynamo, table, told):
    write_all(told.writer(dynamo, table), range(30), "x" * 5000)
    budget = Counted()
    keys = [key_of(number) for number in range(30)]
    delete_items(dynamo, table, keys, budget=budget, retry_seconds=5, on_retry=print)
    assert sum(budget.sizes) == 30 * 5


def test_an_item_is_charged_for_what_it_overwrites_and_for_indexes(dynamo, told):
    table = indexed_table(dynamo)
    write_all(told.writer(dynamo, table), range(30), "x" * 1500)
    budget = Counted()
    write_all(told.writer(dynamo, table, budget=budget), range(30))
    # Of the table's 2 KB, of those that leave the index, and of one KB that comes to it.
    assert sum(budget.sizes) == 30 * (2 + 2 + 1)


def test_what_items_consume_counts_from_the_moment_at_which_units_are_limited(dynamo, told):
    table = indexed_table(dynamo)
    budget = Counted(units_per_second=None)
    writer = told.writer(dynamo, table, budget=budget)
    write_all(writer, range(30))
    assert sum(budget.sizes) == 30
    budget.set_limits(None, 10**9)
    write_all(writer, range(30, 60))
    assert sum(budget.sizes) == 30 + 30 * (1 + 1)


def test_a_conditional_write_is_charged_what_it_consumed(dynamo, table, told):
    budget = Counted()
    writer = told.writer(dynamo, table, budget=budget, writetime_attribute="w")
    for turn in (1, 2):
        writer.write(turn, item_of(1, "x" * 3000 if turn == 1 else "v", w=turn), key_of(1), 1, turn)
    writer.flush()
    assert sum(budget.sizes) == 3 + 3


def test_what_was_charged_too_much_is_given_back_and_no_more(dynamo, table, told):
    budget = Counted()
    writer = told.writer(dynamo, table, budget=budget, in_flight=1)
    for number in range(125):
        writer.write(number, item_of(number), key_of(number), 3 if number < 25 else 1)
    writer.flush()
    assert budget.sizes == [75, 0, 0, 25, 25]


@pytest.mark.parametrize("fault", [throttle, swallow, leave_unprocessed(7), leave_unprocessed(25)])
def test_a_try_that_failed_is_charged_once(faulty, through, table, told, fault):
    faulty.suffer("BatchWriteItem", [fault])
    budget = Counted()
    write_all(told.writer(through, table, budget=budget), range(25))
    assert sum(budget.sizes) == 25
