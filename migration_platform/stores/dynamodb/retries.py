"""Requests to DynamoDB that are tried again within bounds."""

import random
import time
from collections.abc import Callable
from typing import Any

from migration_platform.errors import AttemptError
from migration_platform.pacing.rate import RateBudget
from migration_platform.pacing.retries import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, Attempts
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.failures import ThrottledError

OnRetry = Callable[[BaseException], None]


def delay_after(
    attempts: Attempts, error: BaseException, budget: RateBudget | None = None
) -> float:
    """Give the seconds to wait before the next try; a throttle slows the budget's run down.

    After a throttle all of the delay is random ("full jitter"), for whoever was throttled
    together must not come back together.

    Raises:
        PermanentError, TransientError: trying again cannot help, or its time is over.
    """
    delay = attempts.delay_after(error)
    if not isinstance(error, ThrottledError):
        return delay
    if budget is not None:
        budget.slow_down()
    longest = FIRST_DELAY_SECONDS * 2 ** min(attempts.failures - 1, 10)
    return min(delay, random.uniform(0, min(LONGEST_DELAY_SECONDS, longest)))  # noqa: S311


def request(
    connection: DynamoDb, operation: str, body: str, *, retry_seconds: float
) -> dict[str, Any]:
    """Call until it succeeds; `body` is JSON.

    Raises:
        PermanentError, TransientError: it was refused, or failed for `retry_seconds`.
    """
    return _until_it_succeeds(lambda: connection.call(operation, body), retry_seconds)


def administer(
    connection: DynamoDb, operation: str, *, retry_seconds: float, **parameters: Any
) -> dict[str, Any]:
    """Ask the SDK's client about tables until it succeeds.

    Raises:
        PermanentError, TransientError: it was refused, or failed for `retry_seconds`.
    """
    return _until_it_succeeds(lambda: connection.administer(operation, **parameters), retry_seconds)


def _until_it_succeeds(
    attempt: Callable[[], dict[str, Any]], retry_seconds: float
) -> dict[str, Any]:
    attempts = Attempts(retry_seconds)
    while True:
        try:
            return attempt()
        except AttemptError as error:
            time.sleep(delay_after(attempts, error))
