"""Items of DynamoDB: scan a segment, or read them by their keys; whole answers only."""

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from queue import SimpleQueue
from typing import Any, TypeVar

from migration_platform.errors import AttemptError
from migration_platform.pacing.rate import RateBudget
from migration_platform.pacing.retries import Attempts
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.failures import ThrottledError
from migration_platform.stores.dynamodb.retries import OnRetry, delay_after, request
from migration_platform.stores.dynamodb.tables import DynamoTable

KEYS_A_REQUEST = 100
"""The most that BatchGetItem takes."""
READS_IN_FLIGHT = 4

Item = dict[str, dict[str, Any]]
"""An item as the service writes it: attribute -> {type: value}, bytes in base64."""
Mark = TypeVar("Mark")


def holds_items(connection: DynamoDb, name: str, *, retry_seconds: float) -> bool:
    """Say whether a table holds an item now; the count that it tells itself is hours old.

    Raises:
        PermanentError, TransientError: the service refused it or did not answer.
    """
    ask: dict[str, Any] = {"TableName": name, "ConsistentRead": True, "Limit": 1}
    while True:
        answer = request(connection, "Scan", json.dumps(ask), retry_seconds=retry_seconds)
        if answer["Items"] or "LastEvaluatedKey" not in answer:
            return bool(answer["Items"])
        ask["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


class Pending:
    """A request under way in a thread, tried again in the thread that waits for it."""

    def __init__(self, connection: DynamoDb, operation: str, body: str):
        self._connection = connection
        self._operation = operation
        self._ended: SimpleQueue[tuple[dict[str, Any] | None, BaseException | None]] = SimpleQueue()
        self.send(body)

    def send(self, body: str) -> None:
        """Send it, or the rest of it, without waiting."""
        self._body = body
        put = self._ended.put
        self._connection.submit(self._operation, body, lambda answer, error: put((answer, error)))

    def wait(self, attempts: Attempts, budget: RateBudget, on_retry: OnRetry) -> dict[str, Any]:
        """Give the answer.

        Raises:
            PermanentError, TransientError: it was refused, or failed for too long.
        """
        while True:
            answer, error = self._ended.get()
            if error is None:
                assert answer is not None
                return answer
            if not isinstance(error, AttemptError):
                raise error
            delay = delay_after(attempts, error, budget)
            on_retry(error)
            time.sleep(delay)
            self.send(self._body)


def scan_items(
    connection: DynamoDb,
    table: DynamoTable,
    *,
    segment: int,
    total_segments: int,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: OnRetry,
    attributes: Sequence[str] = (),
) -> Iterator[list[Item]]:
    """Read a segment's items, strongly consistent, as pages of up to 1 MB.

    The next page is asked for while the caller works on one. The budget is charged what a page
    has consumed before the next one is asked for. `attributes` limits what is sent, not what is
    consumed.

    Raises:
        PermanentError, TransientError: a page could not be read; what came before was whole.
    """
    ask: dict[str, Any] = {
        "TableName": table.name,
        "ConsistentRead": True,
        "Segment": segment,
        "TotalSegments": total_segments,
        "ReturnConsumedCapacity": "TOTAL",
    }
    if attributes:
        names = {f"#a{number}": name for number, name in enumerate(attributes)}
        ask |= {"ProjectionExpression": ",".join(names), "ExpressionAttributeNames": names}
    budget.adapt()
    budget.take(0)
    pending: Pending | None = Pending(connection, "Scan", json.dumps(ask))
    while pending is not None:
        answer = pending.wait(Attempts(retry_seconds), budget, on_retry)
        items = answer["Items"]
        budget.take(len(items), consumed_units(answer))
        last = answer.get("LastEvaluatedKey")
        if last:
            ask["ExclusiveStartKey"] = last
            pending = Pending(connection, "Scan", json.dumps(ask))
        else:
            pending = None
        if items:
            yield items


def query_items(
    connection: DynamoDb,
    table: DynamoTable,
    partition_json: str,
    *,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: OnRetry,
) -> Iterator[list[Item]]:
    """Read the items of a partition key, which is JSON text, as pages of up to 1 MB.

    Raises:
        PermanentError, TransientError: a page could not be read; what came before was whole.
    """
    ((name, value),) = json.loads(partition_json).items()
    ask: dict[str, Any] = {
        "TableName": table.name,
        "ConsistentRead": True,
        "KeyConditionExpression": "#p = :p",
        "ExpressionAttributeNames": {"#p": name},
        "ExpressionAttributeValues": {":p": value},
        "ReturnConsumedCapacity": "TOTAL",
    }
    budget.adapt()
    while True:
        budget.take(0)
        pending = Pending(connection, "Query", json.dumps(ask))
        answer = pending.wait(Attempts(retry_seconds), budget, on_retry)
        budget.take(len(answer["Items"]), consumed_units(answer))
        yield answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        ask["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def get_items(
    connection: DynamoDb,
    table: DynamoTable,
    keys: Iterable[tuple[Mark, str]],
    *,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: OnRetry,
) -> Iterator[tuple[Mark, Item | None]]:
    """Read the items of keys, strongly consistent, in the given order; None where there is none.

    A key is JSON text; the same key may come several times.

    Raises:
        PermanentError, TransientError: they could not be read.
    """
    budget.adapt()
    under_way: deque[tuple[list[tuple[Mark, str]], Pending]] = deque()

    def finish_first() -> Iterator[tuple[Mark, Item | None]]:
        group, pending = under_way.popleft()
        found = _read_keys(table, pending, budget, retry_seconds, on_retry)
        for mark, key_json in group:
            yield mark, found.get(identity(table, json.loads(key_json)))

    for group in _group_keys(keys):
        budget.take(0)
        different = dict.fromkeys(key_json for _, key_json in group)
        body = _render_keys(table, ",".join(different))
        under_way.append((group, Pending(connection, "BatchGetItem", body)))
        if len(under_way) == READS_IN_FLIGHT:
            yield from finish_first()
    while under_way:
        yield from finish_first()


def _group_keys(keys: Iterable[tuple[Mark, str]]) -> Iterator[list[tuple[Mark, str]]]:
    """Cut into groups of at most as many different keys as a request takes."""
    group: list[tuple[Mark, str]] = []
    different: set[str] = set()
    for mark, key_json in keys:
        if key_json not in different and len(different) == KEYS_A_REQUEST:
            yield group
            group, different = [], set()
        group.append((mark, key_json))
        different.add(key_json)
    if group:
        yield group


def _render_keys(table: DynamoTable, keys: str) -> str:
    return (
        f'{{"ReturnConsumedCapacity":"TOTAL","RequestItems":{{"{table.name}":'
        f'{{"ConsistentRead":true,"Keys":[{keys}]}}}}}}'
    )


def _read_keys(
    table: DynamoTable,
    pending: Pending,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: OnRetry,
) -> dict[tuple[object, ...], Item]:
    """Give the items of a request by their keys; what was left unprocessed is asked for again."""
    found: dict[tuple[object, ...], Item] = {}
    attempts = Attempts(retry_seconds)
    while True:
        answer = pending.wait(attempts, budget, on_retry)
        items = answer["Responses"].get(table.name, [])
        found.update((identity(table, item), item) for item in items)
        budget.take(len(items), consumed_units(answer))
        left = answer.get("UnprocessedKeys", {}).get(table.name, {}).get("Keys")
        if not left:
            return found
        if items:
            # An answer holds 16 MB, and 1 MB of one partition: that is no throttle.
            attempts = Attempts(retry_seconds)
        else:
            error = ThrottledError("the server left all keys of a request unprocessed")
            delay = delay_after(attempts, error, budget)
            on_retry(error)
            time.sleep(delay)
        pending.send(_render_keys(table, json.dumps(left)[1:-1]))


def identity(table: DynamoTable, item: Item) -> tuple[object, ...]:
    """Give an item's key as values that are equal when the keys are, however they are written."""
    found = []
    for attribute in table.key:
        value = item[attribute.name][attribute.key_type]
        # Never rounded: `normalize` keeps 28 of the 38 digits that a number may have.
        found.append(Decimal(value) if attribute.key_type == "N" else value)
    return tuple(found)


def consumed_units(answer: dict[str, Any]) -> float:
    """Add up the capacity units of an answer: one table's, or a list of tables'."""
    told = answer.get("ConsumedCapacity") or []
    return sum(each["CapacityUnits"] for each in (told if isinstance(told, list) else [told]))
