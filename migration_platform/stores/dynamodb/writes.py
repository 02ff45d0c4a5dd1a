"""DynamoDB: write items as batches or under a condition, a bounded number of requests in flight.

An item is JSON text that somebody else has made. Puts and deletes say what is to be, so one that
is sent twice changes nothing, provided that no later one of the same key has overtaken it: a key
that is under way is waited for before it is sent again.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from migration_platform.errors import PermanentError, is_about_row
from migration_platform.pacing.rate import RateBudget
from migration_platform.pacing.retries import Attempts
from migration_platform.stores.dynamodb.connection import REQUESTS_IN_FLIGHT, DynamoDb
from migration_platform.stores.dynamodb.failures import ConditionFailedError, ThrottledError
from migration_platform.stores.dynamodb.reads import consumed_units, identity, scan_items
from migration_platform.stores.dynamodb.retries import OnRetry, delay_after
from migration_platform.stores.dynamodb.tables import DynamoTable

BATCH_ITEMS = 25
"""The most that BatchWriteItem takes."""
BATCH_CHARACTERS = 1_000_000
"""At most 4 MB in UTF-8, where 16 MB are allowed: a request that fails is sent again whole."""
ASK_CONSUMED = '"ReturnConsumedCapacity":"TOTAL",'

OnRejected = Callable[[Any, PermanentError], None]
"""Told the mark of an item that the server rejects for good."""


@dataclass(frozen=True, slots=True)
class _Item:
    """An item on its way: `text` is its part of a request."""

    mark: Any
    text: str
    key_json: str
    units: float


class _Request:
    """Some items that are sent together, and how often that has failed."""

    __slots__ = ("attempts", "items")

    def __init__(self, items: list[_Item], attempts: Attempts | None = None):
        self.items = items
        self.attempts = attempts


class ItemWriter:
    """Writes items, a bounded number of requests in flight; `flush` before counting on them.

    All state belongs to the calling thread: the connection's threads only sign, send and hand
    back what ended. An item that the server rejects for its values is handed to `on_rejected`, if
    there is one; the items around it are written.

    With `writetime_attribute` each item is sent alone, and only written if the table holds none
    of its key, or one whose attribute of that name is not higher.

    A request that fails is tried again for `retry_seconds`. Where it was throttled, they run from
    the last moment at which anything of this writer was acknowledged: a table that is slow, and
    yet takes items, never fails a run, and one that takes none fails it in time.

    The budget is charged the units of items before these are sent, and, where it has a limit of
    them, with the next request what the server says that they consumed more, or less: for indexes,
    and for what was there before. Else it is not asked: DynamoDB Local takes a quarter more CPU for
    an item when it is.
    """

    def __init__(
        self,
        connection: DynamoDb,
        table: DynamoTable,
        *,
        budget: RateBudget,
        retry_seconds: float,
        on_retry: OnRetry,
        on_rejected: OnRejected | None = None,
        writetime_attribute: str | None = None,
        in_flight: int = REQUESTS_IN_FLIGHT,
    ):
        self.rows_written = 0
        self.rows_left_alone = 0
        self._connection = connection
        self._table = table
        self._budget = budget
        self._retry_seconds = retry_seconds
        self._on_retry = on_retry
        self._on_rejected = on_rejected
        self._window = in_flight
        self._flying = 0
        self._ended: SimpleQueue[tuple[_Request, dict[str, Any] | None, BaseException | None]] = (
            SimpleQueue()
        )
        self._waiting: list[tuple[float, _Request]] = []
        self._open: list[_Item] = []
        self._open_characters = 0
        # Keys of the open batch too.
        self._under_way: set[str] = set()
        self._last_progress = 0.0
        # Units that were consumed and not charged, or charged and not consumed (below 0).
        self._owed = 0.0
        if writetime_attribute is None:
            self._operation = "BatchWriteItem"
            self._batch_items = BATCH_ITEMS
            self._head, self._tail = f'"RequestItems":{{"{table.name}":[', "]}}"
        else:
            self._operation = "PutItem"
            self._batch_items = 1
            name = json.dumps(writetime_attribute)
            self._head, self._tail = (
                f'"TableName":"{table.name}",'
                f'"ExpressionAttributeNames":{{"#w":{name}}},'
                '"ConditionExpression":"attribute_not_exists(#w) OR #w <= :w",',
                "}",
            )
        budget.adapt()

    def write(
        self, mark: Any, item_json: str, key_json: str, units: float, writetime: int | None = None
    ) -> None:
        """Write an item; `units` are what the budget is charged beforehand.

        `writetime` is what the item holds in the `writetime_attribute`, where there is one.

        Raises:
            PermanentError, TransientError: an earlier or this item could not be written.
        """
        if self._batch_items > 1:
            text = f'{{"PutRequest":{{"Item":{item_json}}}}}'
        else:
            assert writetime is not None
            values = f'"ExpressionAttributeValues":{{":w":{{"N":"{writetime}"}}}}'
            text = f'"Item":{item_json},{values}'
        self._add(_Item(mark, text, key_json, units))

    def delete(self, mark: Any, key_json: str, units: float) -> None:
        """Delete the item of a key, if it is there; it counts as written.

        Raises:
            PermanentError, TransientError: an earlier item or this could not be written.
        """
        assert self._batch_items > 1, "a conditional writer deletes nothing"
        self._add(_Item(mark, f'{{"DeleteRequest":{{"Key":{key_json}}}}}', key_json, units))

    def flush(self) -> None:
        """Wait until every item is acknowledged.

        Raises:
            PermanentError, TransientError: an item could not be written.
        """
        self._begin()
        while self._flying or self._waiting:
            self._settle_one()
        if self._owed > 0:
            units, self._owed = self._owed, 0.0
            self._budget.take(0, units)

    def _add(self, item: _Item) -> None:
        key_json = item.key_json
        if key_json in self._under_way:
            if any(each.key_json == key_json for each in self._open):
                self._begin()
            while key_json in self._under_way:
                self._settle_one()
        size = len(item.text)
        if self._open_characters + size > BATCH_CHARACTERS:
            self._begin()
        self._under_way.add(key_json)
        self._open.append(item)
        self._open_characters += size
        if len(self._open) == self._batch_items:
            self._begin()

    def _begin(self) -> None:
        """Send the open batch, as soon as there is room for another request."""
        if not self._open:
            return
        request = _Request(self._open)
        self._open, self._open_characters = [], 0
        while self._flying + len(self._waiting) >= self._window:
            self._settle_one()
        began = time.monotonic()
        units = self._owed + sum(item.units for item in request.items)
        self._owed = min(0.0, units)
        self._budget.take(len(request.items), max(0.0, units))
        held = time.monotonic() - began
        # Nobody could look after what waits meanwhile: a pause, or a slow rate, is no failure.
        self._last_progress += held
        for _, other in self._waiting:
            if other.attempts is not None:
                other.attempts.first_failure += held
        self._send(request)

    def _send(self, request: _Request) -> None:
        asked = ASK_CONSUMED if self._budget.size_per_second else ""
        items = ",".join([item.text for item in request.items])
        body = f"{{{asked}{self._head}{items}{self._tail}"
        self._flying += 1
        put = self._ended.put
        self._connection.submit(
            self._operation, body, lambda answer, error: put((request, answer, error))
        )

    def _settle_one(self) -> None:
        """Take one ended request, or send one whose time to be tried again has come."""
        timeout = None
        if self._waiting:
            due, request = self._waiting[0]
            timeout = due - time.monotonic()
            if timeout <= 0:
                self._waiting.pop(0)
                self._send(request)
                return
        try:
            request, answer, error = self._ended.get(timeout=timeout)
        except Empty:
            return
        self._flying -= 1
        if error is None:
            assert answer is not None
            self._take_answer(request, answer)
        elif isinstance(error, ConditionFailedError):
            self.rows_left_alone += len(request.items)
            self._forget(request.items)
        elif is_about_row(error) and self._on_rejected is not None:
            self._split_or_reject(request, error, self._on_rejected)
        else:
            self._try_again(request, error)

    def _take_answer(self, request: _Request, answer: dict[str, Any]) -> None:
        unprocessed = answer.get("UnprocessedItems", {}).get(self._table.name)
        left = self._find(request.items, unprocessed) if unprocessed else []
        kept = {item.key_json for item in left}
        done = [item for item in request.items if item.key_json not in kept]
        if "ConsumedCapacity" in answer:
            self._owed += consumed_units(answer) - sum(item.units for item in done)
        if done:
            self.rows_written += len(done)
            self._forget(done)
            request.attempts = None
        if not left:
            return
        request.items = left
        self._try_again(request, ThrottledError("the server left items unprocessed"))

    def _find(self, items: list[_Item], unprocessed: list[dict[str, Any]]) -> list[_Item]:
        """Give those items that an answer names as unprocessed; all, if any is not recognised.

        To send an item again that was written does no harm.
        """
        by_key = {identity(self._table, json.loads(item.key_json)): item for item in items}
        found = []
        for each in unprocessed:
            put = each.get("PutRequest")
            key = identity(self._table, put["Item"] if put else each["DeleteRequest"]["Key"])
            if key not in by_key:
                return items
            found.append(by_key[key])
        return found

    def _forget(self, items: list[_Item]) -> None:
        self._last_progress = time.monotonic()
        self._under_way.difference_update([item.key_json for item in items])

    def _try_again(self, request: _Request, error: BaseException) -> None:
        if not request.attempts:
            request.attempts = Attempts(self._retry_seconds)
        attempts = request.attempts
        if isinstance(error, ThrottledError):
            attempts.first_failure = max(attempts.first_failure, self._last_progress)
        delay = delay_after(attempts, error, self._budget)
        self._on_retry(error)
        self._wait(request, delay)

    def _wait(self, request: _Request, delay: float) -> None:
        self._waiting.append((time.monotonic() + delay, request))
        self._waiting.sort(key=lambda entry: entry[0])

    def _split_or_reject(
        self, request: _Request, refusal: BaseException, on_rejected: OnRejected
    ) -> None:
        """Send the halves of a batch that was refused; hand over the item that was alone."""
        items = request.items
        if len(items) == 1:
            self._under_way.discard(items[0].key_json)
            assert isinstance(refusal, PermanentError)
            on_rejected(items[0].mark, refusal)
            return
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            self._wait(_Request(half), 0.0)


def delete_items(
    connection: DynamoDb,
    table: DynamoTable,
    keys: Iterable[str],
    *,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: OnRetry,
) -> int:
    """Delete the items of keys, and give how many keys these were.

    Raises:
        PermanentError, TransientError: some could not be deleted.
    """
    writer = ItemWriter(
        connection, table, budget=budget, retry_seconds=retry_seconds, on_retry=on_retry
    )
    for key_json in keys:
        writer.delete(None, key_json, 1)
    writer.flush()
    return writer.rows_written


def empty_table(
    connection: DynamoDb,
    table: DynamoTable,
    *,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: OnRetry,
) -> int:
    """Delete every item of a table, and give how many there were.

    Raises:
        PermanentError, TransientError: some could not be deleted.
    """
    pages = scan_items(
        connection,
        table,
        segment=0,
        total_segments=1,
        budget=budget,
        retry_seconds=retry_seconds,
        on_retry=on_retry,
        attributes=table.key_names,
    )
    keys = (json.dumps(item) for page in pages for item in page)
    return delete_items(
        connection, table, keys, budget=budget, retry_seconds=retry_seconds, on_retry=on_retry
    )
