"""What tells of changes at an origin: keys, and a position from which to go on.

A change is a key. What a message says beside that is never used: the row is read again, so that
the order, the doubling and the loss of detail of messages do no harm.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from migration_platform.syncing.position import Position, Unreadable

Key = tuple[bytes, ...]
"""Cells of the origin's primary key in its order, all or the first ones, at least those of the
partition key: fewer than all stand for every row that begins with them, and for static cells."""


@dataclass(frozen=True)
class Batch:
    """Changes in the order in which they were told, each key once; `position` is behind them.

    `oldest_at` is the time of the oldest message (seconds since 1970), None if there was none.
    `caught_up` says that nothing was left to be read at the time of asking.
    """

    keys: tuple[Key, ...]
    position: Position
    messages: int = 0
    unreadable: tuple[Unreadable, ...] = ()
    oldest_at: float | None = None
    caught_up: bool = False


@dataclass(frozen=True)
class Lag:
    """How far a position is behind; `by_partition` in messages.

    `lost` says for each partition of which messages are gone that were never read, why. What
    changed there no message tells any more.
    """

    by_partition: Mapping[int, int] = field(default_factory=dict)
    lost: Mapping[int, str] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        """All messages that are yet to be read."""
        return sum(self.by_partition.values())


def tell_waiting(messages: int) -> str:
    """Say that messages are yet to be read."""
    return "1 message waits" if messages == 1 else f"{messages:,} messages wait"


class ChangeSource(Protocol):
    """Tells of changes; it is a context manager, and is asked by one thread."""

    def now(self) -> Position:
        """Give the position behind all that was told until now.

        Raises:
            MigrationError: it cannot be asked.
        """
        ...

    def lag(self, position: Position) -> Lag:
        """Say how far behind a position is, and what is lost; no message is read.

        Raises:
            MigrationError: it cannot be asked.
        """
        ...

    def read(self, position: Position, *, most: int, seconds: float) -> Batch:
        """Give at most so many changes from a position on, after so many seconds at the latest.

        It waits for a first message until then, and for no other one when it has caught up.
        Partitions that the position does not know of are read from their beginning.

        Raises:
            MigrationError: nothing could be read, or something is lost (see `lag`).
        """
        ...

    def leave_lost(self, position: Position) -> Position:
        """Give the position from which what is left can be read, where something is lost.

        Of what changed in between no message tells: it is for the caller to open all ranges.

        Raises:
            MigrationError: it cannot be asked.
        """
        ...

    def acknowledge(self, position: Position) -> str:
        """Show a position that the target has reached to those who watch the messages.

        Nothing depends on it. Gives an empty string, or one sentence that says why it failed.
        """
        ...

    def close(self) -> None:
        """Let the connection go."""
        ...
