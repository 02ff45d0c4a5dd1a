"""One budget of rows and bytes a second for a whole run, shared by its processes.

Whoever takes rows draws a number, as at a counter in an office: the rows that were taken before.
Numbers are called at the current rate, and nobody passes before the own one. So a new rate holds
at once for those too who wait already, and adding workers never raises the load. The monotonic
clock is one for all processes of a machine, so whoever looks may call the numbers.
"""

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import BaseContext

LOOK_SECONDS = 0.1
"""How long somebody who waits may overlook that the rate was changed."""
LOCK_SECONDS = 1.0
"""Nobody holds the lock for more than microseconds: past this its holder was killed."""


class _Counter(ctypes.Structure):
    """One unit: so much a second (0: no limit), how much was taken, and up to where is called."""

    _fields_ = (("limit", ctypes.c_double), ("taken", ctypes.c_double), ("called", ctypes.c_double))


class _State(ctypes.Structure):
    _fields_ = (
        ("rows", _Counter),
        ("bytes", _Counter),
        ("called_at", ctypes.c_double),
        ("is_paused", ctypes.c_bool),
        # Whether there is any reason to wait: read without the lock, page after page.
        ("is_limited", ctypes.c_bool),
    )


class RateBudget:
    """Rows and bytes a second, shared by every process that the object was handed to at its start.

    Limits and pause are changed from any of these processes, and hold in all of them.
    """

    def __init__(
        self,
        context: BaseContext,
        *,
        rows_per_second: int | None = None,
        bytes_per_second: int | None = None,
    ):
        self._lock = context.Lock()
        self._state = context.RawValue(_State)
        self.set_limits(rows_per_second, bytes_per_second)

    @property
    def rows_per_second(self) -> int | None:
        """The current limit of rows."""
        return int(self._state.rows.limit) or None

    @property
    def bytes_per_second(self) -> int | None:
        """The current limit of bytes."""
        return int(self._state.bytes.limit) or None

    @property
    def paused(self) -> bool:
        """Whether nothing may pass until `go_on`."""
        return self._state.is_paused

    def set_limits(self, rows_per_second: int | None, bytes_per_second: int | None) -> None:
        """Change the limits; None is no limit."""
        with self._locked() as state:
            state.rows.limit = rows_per_second or 0
            state.bytes.limit = bytes_per_second or 0
            state.is_limited = state.is_paused or state.rows.limit or state.bytes.limit

    def pause(self) -> None:
        """Let nothing pass until `go_on`."""
        with self._locked() as state:
            state.is_paused = state.is_limited = True

    def go_on(self) -> None:
        """End a pause; time that passed in it has earned nothing."""
        with self._locked() as state:
            state.is_paused = False
            state.is_limited = state.rows.limit or state.bytes.limit

    def take(self, rows: int, size: int = 0) -> None:
        """Wait until these rows, `size` bytes together, may pass; at once without a limit."""
        if not self._state.is_limited:
            return
        with self._locked() as state:
            numbers = state.rows.taken, state.bytes.taken
            state.rows.taken += rows
            state.bytes.taken += size
            seconds = _seconds_until(state, *numbers)
        while seconds > 0:
            time.sleep(min(seconds, LOOK_SECONDS))
            with self._locked() as state:
                seconds = _seconds_until(state, *numbers)

    @contextmanager
    def _locked(self) -> Iterator[_State]:
        """Hold the lock, all numbers called that are due by now.

        When a process was killed while it held the lock, the first to wait for it in vain takes
        its place: what it releases in the end is the lock of the dead.
        """
        state = self._state
        self._lock.acquire(timeout=LOCK_SECONDS)
        try:
            now = time.monotonic()
            seconds = 0.0 if state.is_paused else now - state.called_at
            for counter in (state.rows, state.bytes):
                due = counter.called + counter.limit * seconds if counter.limit else counter.taken
                # Time in which nobody waits earns nothing for later.
                counter.called = min(due, counter.taken)
            state.called_at = now
            yield state
        finally:
            # It was only slow, not dead, and somebody has taken its place.
            with suppress(ValueError):
                self._lock.release()


def _seconds_until(state: _State, row_number: float, byte_number: float) -> float:
    if state.is_paused:
        return LOOK_SECONDS
    return max(_wait(state.rows, row_number), _wait(state.bytes, byte_number))


def _wait(counter: _Counter, number: float) -> float:
    """Give the seconds until a number is called, at the current rate."""
    # Two who hold the lock at once, because one was taken for dead, may lose what one has taken.
    missing = min(number, counter.taken) - counter.called
    return missing / counter.limit if counter.limit and missing > 0 else 0.0
