"""What was done with rows, counted: values that add up."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from migration_platform.errors import PermanentError
from migration_platform.token_ranges import TokenRange

MAX_SAMPLES = 20


@dataclass(frozen=True)
class RangeCounts:
    """What was done with a range's rows so far; counts of several ranges add up with `+`.

    `added` are rows that one origin row makes beyond itself, by the entries of a map. `statics`
    are partitions whose static cells were written, `statics_set_aside` those whose could not be.
    `expired` are writes left out because their cells expired on the way. `large_cells` are counts
    by column.
    """

    read: int = 0
    added: int = 0
    written: int = 0
    skipped: int = 0
    set_aside: int = 0
    errors: int = 0
    statics: int = 0
    statics_set_aside: int = 0
    filtered: int = 0
    too_large: int = 0
    collided: int = 0
    left_alone: int = 0
    expired: int = 0
    large_cells: tuple[tuple[str, int], ...] = ()
    large_samples: tuple[str, ...] = ()
    set_aside_samples: tuple[str, ...] = ()
    bytes_read: int = 0
    retries: int = 0
    read_seconds: float = 0.0
    seconds: float = 0.0
    last_retry: str = ""
    reading_ended: bool = False

    @property
    def complete(self) -> bool:
        """Whether every row that was read is accounted for."""
        made = self.read + self.added
        return not self.errors and made == self.written + self.skipped + self.set_aside

    @property
    def rows_per_second(self) -> float:
        """Rows written a second of the range's own time."""
        return self.written / self.seconds if self.seconds else 0.0

    def __add__(self, other: "RangeCounts") -> "RangeCounts":
        large = Counter(dict(self.large_cells))
        large.update(dict(other.large_cells))
        return RangeCounts(
            read=self.read + other.read,
            added=self.added + other.added,
            written=self.written + other.written,
            skipped=self.skipped + other.skipped,
            set_aside=self.set_aside + other.set_aside,
            errors=self.errors + other.errors,
            statics=self.statics + other.statics,
            statics_set_aside=self.statics_set_aside + other.statics_set_aside,
            filtered=self.filtered + other.filtered,
            too_large=self.too_large + other.too_large,
            collided=self.collided + other.collided,
            left_alone=self.left_alone + other.left_alone,
            expired=self.expired + other.expired,
            large_cells=tuple(sorted(large.items())),
            large_samples=(self.large_samples + other.large_samples)[:MAX_SAMPLES],
            set_aside_samples=(self.set_aside_samples + other.set_aside_samples)[:MAX_SAMPLES],
            bytes_read=self.bytes_read + other.bytes_read,
            retries=self.retries + other.retries,
            read_seconds=self.read_seconds + other.read_seconds,
            seconds=self.seconds + other.seconds,
            last_retry=other.last_retry or self.last_retry,
            reading_ended=self.reading_ended and other.reading_ended,
        )

    def since(self, earlier: "RangeCounts") -> "RangeCounts":
        """Give what was counted after `earlier`, numbers only."""
        numbers = {
            each.name: getattr(self, each.name) - getattr(earlier, each.name)
            for each in fields(self)
            if each.type in (int, float)
        }
        return RangeCounts(**numbers)


@dataclass(frozen=True)
class PieceReport:
    """What became of a piece of a range: it was `begun`, `cut`, `done`, or `failed`.

    `counts` are those of the piece alone. `cut_into` are the pieces that take its place.
    """

    piece: TokenRange
    state: str
    counts: RangeCounts = RangeCounts()
    reason: str = ""
    cut_into: tuple[TokenRange, ...] = ()


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be written: the cells of its key at the origin, the column, and why.

    `column` is the origin's or the target's, empty where it is none's fault. `cause` goes on after
    "the row k=1" and tells no value; `said` may.
    """

    layer: str
    key: bytes
    shown: str
    column: str
    cause: str
    said: str = ""

    def __str__(self) -> str:
        return f"the row {self.shown} {self.said or self.cause}"


Reject = Callable[[BadRow], None]


def reject_row(bad: BadRow) -> None:
    """Let the first row that cannot be written end the work.

    Raises:
        PermanentError: always.
    """
    raise PermanentError(str(bad))


@dataclass
class Tally:
    """What became of rows that were read and are not copied; and large cells by column.

    `added` counts the rows that a map's entries add; a row without entries takes itself away, and
    so does the row that stands for a partition with nothing but static cells. `reject` is told of
    each row that cannot be written.
    """

    filtered: int = 0
    too_large: int = 0
    lost: int = 0
    added: int = 0
    large: dict[str, int] = field(default_factory=dict)
    large_samples: list[str] = field(default_factory=list)
    reject: Reject = reject_row

    @property
    def skipped(self) -> int:
        """Rows that were left out."""
        return self.filtered + self.too_large + self.lost
