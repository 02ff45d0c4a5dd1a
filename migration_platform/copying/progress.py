"""The progress of a range: counts, pieces, and what was last reported of them."""

import time
from collections import Counter
from dataclasses import dataclass, field, replace

from migration_platform.copying.rejected import RejectedRows
from migration_platform.counts import MAX_SAMPLES, PieceReport, RangeCounts, Tally
from migration_platform.cql.rows import Page
from migration_platform.errors import MigrationError, explain
from migration_platform.stores.interface import RowsWriter
from migration_platform.stores.work import Report
from migration_platform.token_ranges import TokenRange

REPORT_SECONDS = 2.0


@dataclass
class Progress:
    """The progress of one range so far, and when it was last reported."""

    report: Report
    rejected: RejectedRows
    started: float
    reported: float
    counts: RangeCounts = field(default_factory=RangeCounts)
    tally: Tally = field(default_factory=Tally)
    static_tally: Tally = field(default_factory=Tally)
    writers: list[RowsWriter] = field(default_factory=list)
    retries: int = 0
    last_retry: str = ""
    retry_reported: float = 0.0
    told: RangeCounts = field(default_factory=RangeCounts)
    pieces: list[TokenRange] = field(default_factory=list)
    """What is left of the piece under way, which is more than one where it was cut."""
    read: list[tuple[TokenRange, str]] = field(default_factory=list)
    """Pieces that are read, or that cannot be and why; their rows may still have to be written."""

    def __post_init__(self) -> None:
        self.tally.reject = self.static_tally.reject = self.rejected.reject

    def note_cut(self, piece: TokenRange, into: tuple[TokenRange, ...]) -> None:
        """Note that a piece was too large to read, and the pieces that replace it."""
        at = self.pieces.index(piece)
        self.pieces[at : at + 1] = into
        self.report(PieceReport(piece, "cut", cut_into=into))
        self.report(PieceReport(into[0], "begun"))

    def note_read(self, piece: TokenRange) -> None:
        """Note that a piece was read to its end."""
        self.read.append((piece, ""))

    def note_unreadable(self, piece: TokenRange, error: MigrationError) -> None:
        """Note that a piece cannot be read."""
        self.read.append((piece, str(error)))

    def tell_piece(self, piece: TokenRange, state: str, reason: str = "") -> None:
        """Report a piece with what was counted since the last one ended."""
        now = self.so_far()
        counts = now.since(self.told)
        self.report(PieceReport(piece, state, counts, reason))
        if state != "begun":
            self.told = now

    def so_far(self) -> RangeCounts:
        """Give the counts as they are now."""
        tally, static = self.tally, self.static_tally
        left_alone = self.counts.left_alone + sum(w.rows_left_alone for w in self.writers)
        large = Counter(tally.large) + Counter(static.large)
        return replace(
            self.counts,
            added=tally.added,
            skipped=tally.skipped + left_alone,
            left_alone=left_alone,
            filtered=tally.filtered,
            too_large=tally.too_large,
            collided=tally.lost,
            expired=sum(writer.parts_expired for writer in self.writers),
            statics=self.counts.statics + sum(writer.statics_taken for writer in self.writers),
            large_cells=tuple(sorted(large.items())),
            large_samples=tuple((static.large_samples + tally.large_samples)[:MAX_SAMPLES]),
            set_aside=self.rejected.rows,
            statics_set_aside=self.rejected.statics,
            set_aside_samples=tuple(self.rejected.samples),
            written=self.counts.written
            + sum(writer.rows_written for writer in self.writers)
            - self.rejected.uncounted,
            retries=self.retries,
            last_retry=self.last_retry,
            seconds=time.monotonic() - self.started,
        )

    def note_retry(self, error: BaseException) -> None:
        """Note that a request is tried again."""
        self.retries += 1
        self.last_retry = explain(error)
        # All requests in flight fail together when a server goes: one report tells of them all.
        if time.monotonic() - self.retry_reported >= REPORT_SECONDS:
            self.retry_reported = time.monotonic()
            self.report(self.so_far())

    def note_page(self, page: Page, *, is_rows: bool) -> None:
        """Note that a page was read."""
        now = time.monotonic()
        counts = self.counts
        self.counts = replace(
            counts,
            read=counts.read + (page.row_count if is_rows else 0),
            bytes_read=counts.bytes_read + len(page.data),
            read_seconds=now - self.started,
        )
        if now - self.reported >= REPORT_SECONDS:
            self.reported = now
            self.report(self.so_far())
