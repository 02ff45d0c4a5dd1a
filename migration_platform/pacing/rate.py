"""One budget of rows and size a second for a whole run, shared by its processes.

A size is in bytes, or in capacity units where a store counts in these, as DynamoDB does.

Whoever takes rows draws a number, as at a counter in an office: the rows that were taken before.
Numbers are called at the current rate, and nobody passes before the own one. So a new rate holds
at once for those too who wait already, and adding workers never raises the load. The monotonic
clock is one for all processes of a machine, so whoever looks may call the numbers.

A store that throttles slows the whole run down: `slow_down` cuts the size a second of all
processes, and time without a throttle raises it again (`CUT` to `FORGET_SECONDS`).
"""

import ctypes
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import BaseContext

LOOK_SECONDS = 0.1
"""How long somebody who waits may overlook that the rate was changed."""
LOCK_SECONDS = 1.0
"""Nobody holds the lock for more than microseconds: past this its holder was killed."""

CUT = 0.7
"""What a throttle leaves of the rate, as in the SDK's adaptive mode."""
CUT_SECONDS = 0.5
"""Throttles of so long count as one: they answer requests that were sent before the first."""
RECOVERY = 0.05
"""So much of the rate at which the store throttled comes back each second: all of it within six
seconds. Past that the rate grows by so much of itself, twofold in 14 s."""
FORGET_SECONDS = 60.0
"""After so long without a throttle only the declared limit holds."""
LEAST_SIZE_PER_SECOND = 1.0
MEASURED_SECONDS = 2.0
"""What was taken longer ago hardly counts for the rate at which the store throttles."""


class _Counter(ctypes.Structure):
    """One unit: so much a second (0: no limit), how much was taken, and up to where is called."""

    _fields_ = (("limit", ctypes.c_double), ("taken", ctypes.c_double), ("called", ctypes.c_double))


class _State(ctypes.Structure):
    _fields_ = (
        ("rows", _Counter),
        ("size", _Counter),
        ("size_limit", ctypes.c_double),  # as declared; size.limit is what holds
        ("ceiling", ctypes.c_double),  # what a throttle has left, 0: nobody is slowed down
        ("throttled_rate", ctypes.c_double),
        ("cut_at", ctypes.c_double),
        ("flow", ctypes.c_double),  # size that was taken of late, the older the less
        ("flow_at", ctypes.c_double),
        ("flow_began", ctypes.c_double),
        ("is_adaptive", ctypes.c_bool),
        ("called_at", ctypes.c_double),
        ("is_paused", ctypes.c_bool),
        # Whether there is any reason to wait: read without the lock, page after page.
        ("is_limited", ctypes.c_bool),
    )


class RateBudget:
    """Rows and size a second, shared by every process that the object was handed to at its start.

    Limits and pause are changed from any of these processes, and hold in all of them.
    """

    def __init__(
        self,
        context: BaseContext,
        *,
        rows_per_second: int | None = None,
        size_per_second: int | None = None,
    ):
        self._lock = context.Lock()
        self._state = context.RawValue(_State)
        self.set_limits(rows_per_second, size_per_second)

    @property
    def rows_per_second(self) -> int | None:
        """The current limit of rows."""
        return int(self._state.rows.limit) or None

    @property
    def size_per_second(self) -> int | None:
        """The declared limit of bytes or units; a throttling store may have lowered it."""
        return int(self._state.size_limit) or None

    @property
    def slowed_to(self) -> float | None:
        """The size a second that a throttling store has left, None when it does not throttle."""
        return self._state.ceiling or None

    @property
    def paused(self) -> bool:
        """Whether nothing may pass until `go_on`."""
        return self._state.is_paused

    def set_limits(self, rows_per_second: int | None, size_per_second: int | None) -> None:
        """Change the limits; None is no limit."""
        with self._locked() as state:
            state.rows.limit = rows_per_second or 0
            state.size_limit = size_per_second or 0
            _apply(state)

    def pause(self) -> None:
        """Let nothing pass until `go_on`."""
        with self._locked() as state:
            state.is_paused = True
            _apply(state)

    def go_on(self) -> None:
        """End a pause; time that passed in it has earned nothing."""
        with self._locked() as state:
            state.is_paused = False
            _apply(state)

    def adapt(self) -> None:
        """Measure from now on what is taken, so that a throttle can slow it down."""
        if not self._state.is_adaptive:
            with self._locked() as state:
                state.is_adaptive = True
                _apply(state)

    def slow_down(self) -> None:
        """Cut the rate of all processes, because the store throttles; see `CUT`."""
        with self._locked() as state:
            now = state.called_at
            # What was not sent at the present rate says nothing of it.
            if now - state.cut_at < CUT_SECONDS or state.flow_at < state.cut_at:
                return
            rates = (state.ceiling, state.size_limit, _measured(state))
            known = [rate for rate in rates if rate]
            if not known:
                return  # nothing has passed yet
            state.throttled_rate = min(known)
            state.ceiling = max(LEAST_SIZE_PER_SECOND, state.throttled_rate * CUT)
            state.cut_at = now
            state.is_adaptive = True
            _apply(state)

    def take(self, rows: int, size: float = 0) -> None:
        """Wait until these rows, so large together, may pass; at once without a limit."""
        if not self._state.is_limited:
            return
        with self._locked() as state:
            numbers = state.rows.taken, state.size.taken
            state.rows.taken += rows
            state.size.taken += size
            if state.is_adaptive:
                _count(state, size)
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
            for counter in (state.rows, state.size):
                due = counter.called + counter.limit * seconds if counter.limit else counter.taken
                # Time in which nobody waits earns nothing for later.
                counter.called = min(due, counter.taken)
            state.called_at = now
            if state.ceiling:
                _recover(state, now, seconds)
            yield state
        finally:
            # It was only slow, not dead, and somebody has taken its place.
            with suppress(ValueError):
                self._lock.release()


def _apply(state: _State) -> None:
    """Let the lower of the declared limit and a throttle's ceiling hold."""
    limits = [limit for limit in (state.size_limit, state.ceiling) if limit]
    state.size.limit = min(limits, default=0.0)
    state.is_limited = state.is_paused or state.is_adaptive or state.rows.limit or state.size.limit


def _recover(state: _State, now: float, seconds: float) -> None:
    # A long gap tells nothing: nobody tried.
    grown = RECOVERY * max(state.ceiling, state.throttled_rate) * min(seconds, 1.0)
    state.ceiling = 0.0 if now - state.cut_at > FORGET_SECONDS else state.ceiling + grown
    _apply(state)


def _count(state: _State, size: float) -> None:
    """Add to what was taken of late; after a gap the measuring begins anew."""
    gap = state.called_at - state.flow_at
    if gap > 4 * MEASURED_SECONDS:
        state.flow, state.flow_began = 0.0, state.called_at
    state.flow = state.flow * math.exp(-gap / MEASURED_SECONDS) + size
    state.flow_at = state.called_at


def _measured(state: _State) -> float:
    """Give the size a second that was taken of late, as of the last time."""
    age = max(0.1, state.flow_at - state.flow_began)
    return state.flow / (MEASURED_SECONDS * (1 - math.exp(-age / MEASURED_SECONDS)))


def _seconds_until(state: _State, row_number: float, size_number: float) -> float:
    if state.is_paused:
        return LOOK_SECONDS
    return max(_wait(state.rows, row_number), _wait(state.size, size_number))


def _wait(counter: _Counter, number: float) -> float:
    """Give the seconds until a number is called, at the current rate."""
    # Two who hold the lock at once, because one was taken for dead, may lose what one has taken.
    missing = min(number, counter.taken) - counter.called
    return missing / counter.limit if counter.limit and missing > 0 else 0.0
