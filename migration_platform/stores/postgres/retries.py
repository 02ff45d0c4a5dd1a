"""Requests to PostgreSQL that are tried again: with backoff, on a new connection where it broke."""

import time
from collections.abc import Callable
from typing import TypeVar

from migration_platform.pacing.retries import Attempts
from migration_platform.stores.interface import OnRetry
from migration_platform.stores.postgres.failures import LostConnectionError, Refusal

Answer = TypeVar("Answer")


def patiently(
    ask: Callable[[], Answer],
    retry_seconds: float,
    on_retry: OnRetry,
    *,
    passes: Callable[[Refusal], bool] = lambda refusal: False,
) -> Answer:
    """Ask until there is an answer; it must be harmless to ask what was done already.

    A refusal that `passes` is raised as it is.

    Raises:
        PermanentError: the server refused it, and would again.
        TransientError: it failed for longer than `retry_seconds`.
    """
    attempts = Attempts(retry_seconds)
    while True:
        try:
            return ask()
        except Refusal as refusal:
            if passes(refusal):
                raise
            error = refusal.to_error()
        except LostConnectionError as lost:
            error = lost
        delay = attempts.delay_after(error)
        on_retry(error)
        time.sleep(delay)
