"""What a synchronisation has done."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class SyncCounts:
    """How many messages, keys and rows; of each key every row that it stands for counts.

    `unchanged` rows were the same on both sides, `kept` ones are gone at the origin and stay at the
    target, because deletes are off or the row is newer there. `rejected` rows became dead letters.
    """

    messages: int = 0
    unreadable: int = 0
    keys: int = 0
    read: int = 0
    written: int = 0
    deleted: int = 0
    unchanged: int = 0
    kept: int = 0
    rejected: int = 0
    ranges: int = 0
    retries: int = 0

    def __add__(self, other: "SyncCounts") -> "SyncCounts":
        return SyncCounts(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )
