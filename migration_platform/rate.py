"""One budget of rows a second for a whole run, shared by its processes.

The budget is a single moment in shared memory: the time at which the next row may pass. Taking
rows moves it on. The monotonic clock is one for all processes of a machine, so no process has
to hand anything out, and adding workers never raises the load.
"""

import time
from multiprocessing.context import BaseContext


class RateBudget:
    """Rows a second, shared by every process that the object was handed to at its start."""

    def __init__(self, context: BaseContext, rows_per_second: int | None):
        self.rows_per_second = rows_per_second
        self._next = context.Value("d", 0.0) if rows_per_second else None

    def take(self, rows: int) -> None:
        """Wait until `rows` more rows may pass; returns at once without a limit."""
        if self._next is None or not self.rows_per_second:
            return
        with self._next.get_lock():
            now = time.monotonic()
            start = max(now, self._next.value)
            self._next.value = start + rows / self.rows_per_second
        if start > now:
            time.sleep(start - now)
