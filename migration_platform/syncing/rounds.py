"""Rounds that compare all ranges in turn: which of them are due, spread over a round's time.

A round begins when each range was compared since the last one began, and its time has passed. A
range is opened only by the run that compares it, so that one which is open at rest is one that a
run did not come to, or of which messages were lost.
"""

from dataclasses import replace

from migration_platform.declaration.sync import ScanRounds
from migration_platform.syncing.position import Position


def due_ranges(position: Position, scan: ScanRounds | None, ranges: int, now: float) -> list[int]:
    """Give the ranges that are to be compared by now and were not, a run's worth at most.

    Those that are open are the first of them.
    """
    if scan is None:
        return sorted(position.open_ranges)
    began = _round_of(position, scan, ranges, now)
    waiting = [
        index
        for index in range(ranges)
        if position.compared_at.get(index, 0.0) < began and index not in position.open_ranges
    ]
    by_now = min(ranges, int(ranges * (now - began) / scan.every_seconds) + 1)
    left = max(0, by_now - (ranges - len(waiting)))
    return [*sorted(position.open_ranges), *waiting[:left]][: scan.ranges_per_tick]


def open_due(position: Position, scan: ScanRounds | None, ranges: int, now: float) -> Position:
    """Open the ranges that are due; where a round begins, it is noted."""
    if scan is None:
        return position
    due = due_ranges(position, scan, ranges, now)
    began = _round_of(position, scan, ranges, now)
    return replace(position, round_began_at=began).with_open(due)


def _round_of(position: Position, scan: ScanRounds, ranges: int, now: float) -> float:
    """Give the moment at which the present round began, now if one begins."""
    began = position.round_began_at
    ended = position.all_compared_at(ranges) >= began
    if not began or began > now or (ended and now - began >= scan.every_seconds):
        return now
    return began
