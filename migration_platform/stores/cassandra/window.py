"""How many requests may be under way at a time: found by measuring, not set.

Requests that only wait in a server's queue make everybody there wait, and gain nothing; too few
of them leave a fast or a far server idle. Which it is shows when there are half as many for a
moment. By Little's law the throughput is the number under way by their latency: if that stays the
same, twice as many bring twice as much; if it halves as well, they bring nothing more.

    requests under way    ____________      ____________      all clients of a machine halve theirs
    of each client                    |____|            |__   at the same seconds of its clock

That all do it at once matters: were only one to do so, the queue would hardly be shorter, and
everybody would find that more is better. They do as far as their slots are as long.
"""

import math
from dataclasses import dataclass

FIRST_SIZE = 16
"""A few more than what a small server works on at a time."""
LEAST_SIZE, LARGEST_SIZE = 6, 512
SLOT_SECONDS = 0.2
LONGEST_SHARE, MOST_DOUBLINGS = 0.7, 4
"""Doubled until a request takes less than so much of it, at most so often: that fewer are under way
must have time to show."""
SLOTS = 6
"""One slot in so many has half the requests under way, by the monotonic clock, which all processes
of a machine share."""
PERIOD_SLOTS = 3 * SLOTS
"""A decision needs several of both kinds, because latencies vary on a busy machine."""
LEAST_SAMPLES = 12
KEPT_EFFECT = 0.8
"""log2 of latency with all by latency with half of the requests under way: 0 where the server has
time left, 1 where all that was added waits. At 0.8 the second half brings a seventh more."""
GAIN = 1.0
"""How far, in log2, the number moves for what the effect is off. What lies more than 1 outside of
all that is possible counts as 1 outside: it is noise, on both sides alike."""
LONGEST_WAIT = 3.0
"""log2 of how much longer than at its best a request may take: 8 times. On a machine so busy that
the effect cannot be seen, this holds the number down."""
EFFECT_OF_A_LONG_WAIT = 1.5
FORGOTTEN = 0.1
"""log2 of how much the best latency known rises a period: twice as high after 36 s."""
REST_AFTER_OVERLOAD_SECONDS = 0.5
"""Failures of so long count as one: they answer what was sent before the first."""


@dataclass
class _Latency:
    """Latencies are added as logarithms: a pause of the server then outweighs no others."""

    total: float = 0.0
    samples: int = 0

    @property
    def log_mean(self) -> float:
        return self.total / self.samples


class Window:
    """The number of requests that one client may have under way at a server.

    It learns from requests for which there was no room at first, since only those show what the
    number does. All times are those of the monotonic clock, in seconds.
    """

    def __init__(self, size: int = FIRST_SIZE):
        self.size = float(size)
        self._slot = SLOT_SECONDS
        self._period = 0
        self._all, self._half = _Latency(), _Latency()
        self._best = math.inf
        self._rested_at = -math.inf

    def room(self, now: float) -> int:
        """Give how many requests may be under way at a moment."""
        return int(self.size / 2 if self._is_halved(now) else self.size)

    def note(self, sent: float, answered: float) -> None:
        """Take in the latency of a request that had to wait for room."""
        if self._period_of(sent) > self._period:
            self._decide()
            self._period = self._period_of(sent)
        # An answer that comes a period late says what the number before has done.
        elif self._period_of(sent) < self._period:
            return
        seen = self._half if self._is_halved(sent) else self._all
        seen.total += math.log2(max(answered - sent, 1e-6))
        seen.samples += 1

    def overload(self, now: float) -> None:
        """Halve the number, because the server did not answer in time, or said that it is busy."""
        if now - self._rested_at >= REST_AFTER_OVERLOAD_SECONDS:
            self._rested_at = now
            self._resize(self.size / 2)

    def _is_halved(self, moment: float) -> bool:
        return int(moment / self._slot) % SLOTS == 0

    def _period_of(self, moment: float) -> int:
        return int(moment / (self._slot * PERIOD_SLOTS))

    def _decide(self) -> None:
        every, half = self._all, self._half
        self._all, self._half = _Latency(), _Latency()
        if every.samples < LEAST_SAMPLES:
            return
        doublings = math.ceil(every.log_mean - math.log2(LONGEST_SHARE * SLOT_SECONDS))
        slot, self._slot = self._slot, SLOT_SECONDS * 2 ** max(0, min(MOST_DOUBLINGS, doublings))
        if half.samples < LEAST_SAMPLES or slot < self._slot:
            return
        self._best = min(self._best + FORGOTTEN, every.log_mean, half.log_mean)
        effect = max(-1.0, min(2.0, every.log_mean - half.log_mean))
        if every.log_mean - self._best > LONGEST_WAIT:
            effect = max(effect, EFFECT_OF_A_LONG_WAIT)
        self._resize(self.size * 2 ** (GAIN * (KEPT_EFFECT - effect)))

    def _resize(self, size: float) -> None:
        self.size = max(LEAST_SIZE, min(LARGEST_SIZE, size))
        self._all, self._half = _Latency(), _Latency()
