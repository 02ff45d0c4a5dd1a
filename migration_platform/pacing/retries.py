"""How long a request that failed is tried again: backoff with jitter, up to so many seconds."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from migration_platform.errors import (
    AttemptError,
    MigrationError,
    PermanentError,
    PreflightError,
    TransientError,
    explain,
    is_transient,
)

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0


@dataclass
class Attempts:
    """The failures of one request so far; `budget_seconds` run from the first of them."""

    budget_seconds: float
    failures: int = 0
    first_failure: float = 0.0

    def delay_after(self, error: BaseException) -> float:
        """Give the seconds to wait before the next try.

        Raises:
            PermanentError: trying again cannot help.
            TransientError: the budget is spent.
        """
        if not is_transient(error):
            raise PermanentError(explain(error)) from error
        now = time.monotonic()
        if not self.failures:
            self.first_failure = now
        self.failures += 1
        spent = now - self.first_failure
        if spent >= self.budget_seconds:
            tries = f"{self.failures} tries" if self.failures > 1 else "one try"
            raise TransientError(f"{explain(error)}, after {tries} in {spent:.0f} s") from error
        # Half of the delay is random: workers that failed together do not come back together.
        longest = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(self.failures - 1, 10))
        delay = longest * random.uniform(0.5, 1.0)  # noqa: S311, no secret depends on it
        return min(delay, max(0.0, self.budget_seconds - spent))


Answer = TypeVar("Answer")


def connect_patiently(
    connect: Callable[[], Answer],
    retry_seconds: float,
    on_retry: Callable[[str], None] = lambda _: None,
) -> Answer:
    """Connect; try again for `retry_seconds` where the cause of a refusal may pass.

    `on_retry` is told of each refusal after which it is tried again.

    Raises:
        PreflightError: another try would be refused as well.
        TransientError: the time is over.
    """
    attempts = Attempts(retry_seconds)
    while True:
        try:
            return connect()
        except PreflightError as error:
            if error.__cause__ is None or not is_transient(error.__cause__):
                raise
            refusal = str(error)
        delay = attempts.delay_after(AttemptError(refusal))
        on_retry(refusal)
        time.sleep(delay)


def ask_patiently(
    ask: Callable[[], Answer],
    retry_seconds: float,
    what: str = "",
    again: Callable[[], Answer] | None = None,
) -> Answer:
    """Ask until there is an answer; from the second time on in another way, if there is one.

    Raises:
        PermanentError, TransientError: there is none; the sentence begins with `what`.
    """
    attempts = Attempts(retry_seconds)
    while True:
        try:
            return ask()
        except Exception as error:
            try:
                delay = attempts.delay_after(error)
            except MigrationError as failure:
                if not what:
                    raise
                raise type(failure)(f"{what}: {failure}") from error
        time.sleep(delay)
        ask = again or ask
