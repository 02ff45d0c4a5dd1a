"""Changes are read, and the rows that they name are made the same, until there is nothing to do.

A position is given on only when the target has acknowledged everything before it. What fails
leaves the position where it was, so that the next run begins there again.

Where messages are lost, what they told is found by comparing all ranges: the position moves to
what is there now, first, and every range is open until it was compared.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from migration_platform.comparing.diff import diff_ranges
from migration_platform.comparing.verdicts import RangeVerdict
from migration_platform.errors import MigrationError
from migration_platform.pacing.retries import ask_patiently
from migration_platform.plan.model import Plan
from migration_platform.stores.work import Done, Failed, Pool, Reported
from migration_platform.syncing.changes import Batch, ChangeSource, Key, Lag
from migration_platform.syncing.counts import SyncCounts
from migration_platform.syncing.position import MAX_UNREADABLE, Position, Unreadable
from migration_platform.syncing.rows import Synced, SyncRows

KEYS_A_BATCH = 10_000
KEYS_A_TASK = 500
RANGES_AT_ONCE = 8
COMMIT_SECONDS = 10.0
WAIT_SECONDS = 1.0

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Limits:
    """When a synchronisation ends.

    It compares `ranges` open ranges at most, and ends when no message came for `idle_seconds`, or
    after `seconds`. With `up_to` it ends as soon as it has reached that position and no range is
    open, and never before.
    """

    ranges: int = 8
    seconds: float = 600.0
    idle_seconds: float = 5.0
    up_to: Position | None = None


@dataclass(frozen=True)
class Followed:
    """What was done since the last of these, and where the target is now.

    `touched` are the indexes of ranges of which rows were written or deleted. `lost` says of which
    messages nobody knows what they told, and why.
    """

    position: Position
    counts: SyncCounts
    seconds: float
    lag: Lag = field(default_factory=Lag)
    touched: frozenset[int] = frozenset()
    lost: tuple[str, ...] = ()


def follow(
    pool: Pool,
    plan: Plan,
    source: ChangeSource | None,
    position: Position,
    limits: Limits,
    commit: Callable[[Followed], None],
    *,
    on_retry: Callable[[str], None] = lambda reason: None,
    run_id: str = "",
) -> Position:
    """Follow the origin from a position on; give the one that the target has reached.

    `plan` is what the pool was opened with: see `to_sync_plan`. `commit` is told of every new
    position, some seconds apart, and of the last one.

    Raises:
        MigrationError: rows could not be read or written, or a message names no key and no room is
            left for it; the position that was told last holds.
    """
    work = _Work(pool, plan, source, position, limits, commit, on_retry, run_id)
    try:
        work.settle_lost()
        while work.step():
            pass
    except MigrationError:
        work.tell()
        raise
    work.tell(last=True)
    return work.position


@dataclass
class _Work:
    """A synchronisation that is under way: how far it is, and what it has not told yet."""

    pool: Pool
    plan: Plan
    source: ChangeSource | None
    position: Position
    limits: Limits
    commit: Callable[[Followed], None]
    on_retry: Callable[[str], None]
    run_id: str
    counts: SyncCounts = field(default_factory=SyncCounts)
    touched: frozenset[int] = frozenset()
    lost: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Begin the clocks."""
        self.began = self.told_at = self.busy_at = time.monotonic()
        self.told = self.position
        self.ranges_left = self.limits.ranges

    def settle_lost(self) -> None:
        """Where messages are gone that nobody read, go on behind them, and open all ranges."""
        if self.source is None:
            return
        source = self.source
        lag = self._ask(lambda: source.lag(self.position))
        if not lag.lost:
            return
        # What is left is read from its beginning: whatever changes from now on, is told.
        self.position = self._ask(lambda: source.leave_lost(self.position)).with_open(
            range(self.plan.migration.token_ranges)
        )
        self.lost = tuple(lag.lost[partition] for partition in sorted(lag.lost))
        self.tell()

    def step(self) -> bool:
        """Do what is next; say whether there may be more."""
        comparing = bool(self.position.open_ranges) and self.ranges_left > 0
        idle = self._take_messages(wait=not comparing) if self.source else True
        if comparing:
            self._compare()
            idle = False
        now = time.monotonic()
        if not idle:
            self.busy_at = now
        if now - self.told_at >= COMMIT_SECONDS:
            self.tell()
        if self.limits.up_to is not None:
            return not self._has_reached(self.limits.up_to)
        if now - self.began >= self.limits.seconds:
            return False
        if self.source is None:
            return bool(self.position.open_ranges) and self.ranges_left > 0
        return not idle or now - self.busy_at < self.limits.idle_seconds

    def _has_reached(self, wanted: Position) -> bool:
        offsets = self.position.offsets
        return not self.position.open_ranges and all(
            offsets.get(partition, 0) >= offset for partition, offset in wanted.offsets.items()
        )

    # -- messages --------------------------------------------------------------------------------

    def _take_messages(self, *, wait: bool) -> bool:
        """Read messages and settle the rows that they name; say whether there was none."""
        source, seconds = self.source, WAIT_SECONDS if wait else 0.0
        assert source is not None
        asked_at = time.time()
        batch = self._ask(lambda: source.read(self.position, most=KEYS_A_BATCH, seconds=seconds))
        counts = SyncCounts(messages=batch.messages, unreadable=len(batch.unreadable))
        unreadable = self._take_unreadable(batch)
        done = self._settle(batch.keys)
        self.counts += counts + done.counts
        self.touched |= done.touched
        position = replace(batch.position, unreadable=unreadable).with_open(done.open_ranges)
        if not position.open_ranges:
            reached = asked_at if batch.caught_up else batch.oldest_at or 0.0
            position = replace(position, synced_at=max(position.synced_at, reached))
        self.position = position
        return not batch.messages

    def _settle(self, keys: Sequence[Key]) -> Synced:
        """Make the rows of these keys the same on both sides.

        Raises:
            MigrationError: some could not be; what was done of the others is counted.
        """
        done, why = Synced(SyncCounts()), ""
        # Neighbours together: what has one partition is read and written together.
        ordered = sorted(keys)
        tasks = [
            SyncRows(tuple(ordered[at : at + KEYS_A_TASK]), self.run_id)
            for at in range(0, len(ordered), KEYS_A_TASK)
        ]
        for event in self.pool.run(tasks):
            if isinstance(event, Done):
                done = Synced(
                    done.counts + event.result.counts,
                    done.touched | event.result.touched,
                    done.open_ranges | event.result.open_ranges,
                )
            elif isinstance(event, Failed):
                why = why or event.reason
            elif isinstance(event, Reported) and isinstance(event.value, str) and event.value:
                self._note_retry(event.value)
        if why:
            self.counts += done.counts
            self.touched |= done.touched
            raise MigrationError(why)
        return done

    def _take_unreadable(self, batch: Batch) -> tuple[Unreadable, ...]:
        """Note the messages that name no key, as many as rows may be rejected.

        Raises:
            MigrationError: there are more.
        """
        known = self.position.unreadable
        if not batch.unreadable:
            return known
        places = {(each.partition, each.offset) for each in batch.unreadable}
        now = time.time()
        found = [
            *(each for each in known if (each.partition, each.offset) not in places),
            *(replace(each, noted_at=now) for each in batch.unreadable),
        ]
        most = min(self.plan.migration.dead_letters_max_rows, MAX_UNREADABLE)
        if len(found) > most:
            first = batch.unreadable[0]
            raise MigrationError(
                f"message {first.offset} of partition {first.partition} of the topic "
                f"{batch.position.topic} names no row: {first.reason}; correct sync.kafka, or set "
                "dead_letters.max_rows to the number of such messages that may be set aside until "
                "all ranges were compared"
            )
        return tuple(sorted(found))

    # -- ranges ----------------------------------------------------------------------------------

    def _compare(self) -> None:
        """Compare some open ranges, and write what differs."""
        ring = self.plan.migration.ranges
        indexes = sorted(self.position.open_ranges)
        chosen = indexes[: min(self.ranges_left, RANGES_AT_ONCE)]
        began_at = time.time()
        why = ""
        for verdict in diff_ranges(
            self.pool, self.plan, [ring[index] for index in chosen], on_retry=self._note_retry
        ):
            index = verdict.token_range.index
            if verdict.error:
                why = why or f"{verdict.token_range.key}: {verdict.error}"
                continue
            self.counts += _counts_of(verdict)
            if verdict.found:
                self.touched |= {index}
            # What was beyond the rows that are looked at in one go is for the next.
            if not verdict.unchecked:
                self._note_compared(index, began_at)
        self.ranges_left -= len(chosen)
        if why:
            raise MigrationError(why)

    def _note_compared(self, index: int, began_at: float) -> None:
        position = self.position.with_compared([index], began_at)
        all_at = position.all_compared_at(self.plan.migration.token_ranges)
        left = tuple(each for each in position.unreadable if each.noted_at >= all_at)
        position = replace(position, unreadable=left)
        if self.source is None:
            position = replace(position, synced_at=max(position.synced_at, all_at))
        self.position = position

    def _ask(self, ask: Callable[[], _Answer]) -> _Answer:
        """Ask what tells of changes, as patiently as a store is asked."""
        return ask_patiently(
            ask, self.plan.migration.retry_seconds, "changes could not be asked for"
        )

    # -- telling ---------------------------------------------------------------------------------

    def _note_retry(self, reason: str) -> None:
        self.counts += SyncCounts(retries=1)
        self.on_retry(reason)

    def tell(self, *, last: bool = False) -> None:
        """Tell of what was done since the last time, if there is anything."""
        now = time.monotonic()
        if not last and self.position == self.told and self.counts == SyncCounts():
            return
        source = self.source
        lag = self._ask(lambda: source.lag(self.position)) if source else Lag()
        self.commit(
            Followed(self.position, self.counts, now - self.told_at, lag, self.touched, self.lost)
        )
        if source and (problem := source.acknowledge(self.position)):
            self.on_retry(problem)
        self.told, self.told_at = self.position, now
        self.counts, self.touched, self.lost = SyncCounts(), frozenset(), ()


def _counts_of(verdict: RangeVerdict) -> SyncCounts:
    corrected = verdict.corrected_missing + verdict.corrected_mismatched
    return SyncCounts(
        read=verdict.origin_rows,
        written=corrected,
        deleted=verdict.corrected_extra,
        unchanged=max(0, verdict.origin_rows - verdict.missing - verdict.mismatched),
        kept=verdict.found - verdict.corrected,
        ranges=1,
    )
