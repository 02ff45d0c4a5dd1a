"""How a table lies on the ring, before a run: its size, its large partitions, and how to cut it.

Keys are hashed, so that partitions are spread evenly over the ring, whatever they are. What makes
ranges uneven is chance, where there are few partitions, and large partitions, which nobody can cut.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from migration_platform.plan.fidelity import write_table
from migration_platform.token_ranges import MAX_RANGES, index_of_token, split_ring

RING = 2**64
SUGGESTED = (4, 8, 16, 32, 64)
MOST_ROWS_A_RANGE = 250_000
"""Some ten seconds of a worker's time: what a failed range costs to do again."""
MOST_BYTES_A_RANGE = 128_000_000
LEAST_ROWS_A_RANGE = 5_000
"""Below so many, what each range costs to begin and to note outweighs its rows."""
RANGES_A_WORKER = 4
"""So that workers whose ranges were small take others', and all end at about the same time."""
FAR_OFF = 2
"""Estimates of a server and of a sample that differ by less agree; each has errors of its own."""
DISK_BYTES_A_ROW, DISK_BYTES_A_PARTITION = 10, 50
"""What servers keep, and count, beside the values: times and flags."""
SHOWN = 5
"""So many of the largest partitions are shown."""


@dataclass(frozen=True)
class SeenPartition:
    """A partition of which rows were read; all of them, if it `is_whole`."""

    key: str
    token: int
    rows: int
    size: int
    is_whole: bool = True


@dataclass(frozen=True)
class Sample:
    """What was read of a table: some of its partitions, and some rows of some of these.

    `partitions` were found in so many `tokens`. Those in `small` were read whole at the first
    glance; those in `large` further, and so many more are `unread` beyond it.
    """

    tokens: int
    partitions: int
    small: tuple[SeenPartition, ...] = ()
    large: tuple[SeenPartition, ...] = ()
    unread: int = 0
    lowest_token: int | None = None
    highest_token: int | None = None

    @property
    def seen(self) -> tuple[SeenPartition, ...]:
        """The partitions of which rows count."""
        return self.small + self.large

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing that was not read."""
        is_all = self.tokens == RING and len(self.seen) == self.partitions
        return is_all and not self.is_cut

    @property
    def is_cut(self) -> bool:
        """Whether a partition is larger than what counts of it."""
        return not all(each.is_whole for each in self.large)

    @cached_property
    def total_partitions(self) -> float:
        """How many partitions there are on the whole ring."""
        return self.partitions * RING / self.tokens if self.tokens else 0.0

    def total(self, value: Callable[[SeenPartition], float]) -> float:
        """Add something up over all partitions; those that are unread are as the large ones."""
        count = len(self.seen) + self.unread
        if not count:
            return 0.0
        large = sum(map(value, self.large))
        if self.large:
            large *= (len(self.large) + self.unread) / len(self.large)
        return (sum(map(value, self.small)) + large) * self.total_partitions / count


@dataclass(frozen=True)
class Stretch:
    """What a server itself believes of the partitions in a part of the ring, `(start, end]`."""

    start: int
    end: int
    partitions: int
    size: int

    @property
    def width(self) -> int:
        """How many tokens it has; it may reach over the end of the ring."""
        return (self.end - self.start) % RING or RING


@dataclass(frozen=True)
class Estimates:
    """What so many of the nodes tell of their own parts of the ring.

    `largest_partition` is its size in bytes, about; 0 where no node tells it.
    """

    nodes: int
    nodes_that_tell: int
    stretches: tuple[Stretch, ...] = ()
    largest_partition: int = 0

    @property
    def width(self) -> int:
        """How many tokens they tell of."""
        return sum(stretch.width for stretch in self.stretches)

    @property
    def partitions(self) -> float:
        """How many partitions there are by it on the whole ring."""
        return self._scaled(sum(stretch.partitions for stretch in self.stretches))

    @property
    def size(self) -> float:
        """How many bytes there are by it on the whole ring."""
        return self._scaled(sum(stretch.size for stretch in self.stretches))

    def _scaled(self, told: int) -> float:
        return told * RING / self.width if self.width else 0.0


@dataclass(frozen=True)
class Cut:
    """What is expected of a number of ranges: the rows of a range, and of the largest one."""

    ranges: int
    rows: float
    largest: float

    @property
    def skew(self) -> float:
        """How many times as many rows as a range the largest has."""
        return self.largest / self.rows if self.rows else 1.0


@dataclass(frozen=True)
class Analysis:
    """What a sample and, where there are any, a server's own estimates say of a table."""

    sample: Sample
    estimates: Estimates

    @cached_property
    def partitions(self) -> float:
        """How many partitions there are."""
        return self.sample.total_partitions

    @cached_property
    def rows(self) -> float:
        """How many rows there are."""
        return self._sampled_rows * self._missed

    @cached_property
    def size(self) -> float:
        """How many bytes a read of all columns brings, once and uncompressed."""
        return self._sampled_size * self._missed

    @property
    def follows_estimates(self) -> bool:
        """Whether the servers tell of far more than the sample saw."""
        return self._missed > 1

    @property
    def is_at_least(self) -> bool:
        """Whether there may be far more rows, because partitions were too large to be read."""
        return self.sample.is_cut and not self.follows_estimates

    @cached_property
    def _sampled_rows(self) -> float:
        return self.sample.total(lambda each: each.rows)

    @cached_property
    def _sampled_size(self) -> float:
        return self.sample.total(lambda each: each.size)

    @cached_property
    def _missed(self) -> float:
        """How many times as large as its sample a table is: rare large partitions hide from it."""
        if self.sample.is_whole or not self._sampled_size:
            return 1.0
        if not self.estimates.partitions:
            return 1.0
        on_disk = (
            self._sampled_size
            + DISK_BYTES_A_ROW * self._sampled_rows
            + DISK_BYTES_A_PARTITION * self.partitions
        )
        mean = self.estimates.size / self.estimates.partitions
        times = mean * self.partitions / on_disk
        return times if times > FAR_OFF else 1.0

    @property
    def largest(self) -> list[SeenPartition]:
        """The largest partitions that were seen, those with most rows first."""
        by_size = sorted(self.sample.seen, key=lambda each: (-each.rows, -each.size, each.token))
        return by_size[:SHOWN]

    def cut(self, ranges: int) -> Cut:
        """Say what ranges would hold, if there were so many."""
        mean = self.rows / ranges
        if self.sample.is_whole:
            ends = [token_range.end for token_range in split_ring(ranges)]
            found = [0] * ranges
            for each in self.sample.seen:
                found[index_of_token(ends, each.token)] += each.rows
            return Cut(ranges, mean, float(max(found)))
        # Ranges get partitions by chance: their number and their sizes both vary. Of `ranges`
        # sums that vary so, the largest is about so many standard deviations above the mean.
        squares = self.sample.total(lambda each: each.rows**2)
        deviation = math.sqrt(squares / ranges)
        by_chance = mean + deviation * math.sqrt(2 * math.log(ranges))
        return Cut(ranges, mean, min(self.rows, max(mean, by_chance, self.rows_of_largest)))

    @property
    def rows_of_largest(self) -> float:
        """How many rows the largest partition has that was seen, or that a node knows of."""
        seen = max((each.rows for each in self.sample.seen), default=0)
        if self.sample.is_whole or not self.rows:
            return seen
        a_row = self.size / self.rows + DISK_BYTES_A_ROW
        return max(seen, min(self.rows, self.estimates.largest_partition / a_row))

    def recommend(self, workers: int) -> tuple[int, str]:
        """Give the number of ranges to cut the table into, and a sentence that says why."""
        if not self.rows:
            return _power_of_two(workers), f"no row was found: one for each of {workers} workers"
        by_rows = math.ceil(self.rows / MOST_ROWS_A_RANGE)
        by_size = math.ceil(self.size / MOST_BYTES_A_RANGE)
        wanted = max(by_rows, by_size)
        why = (
            f"at most {MOST_ROWS_A_RANGE:,} rows a range"
            if by_rows >= by_size
            else f"at most {show_bytes(MOST_BYTES_A_RANGE)} a range"
        )
        if wanted > MAX_RANGES:
            return MAX_RANGES, f"the most there can be; {why} would be {wanted:,} ranges"
        ranges = _power_of_two(wanted)
        spread = _power_of_two(RANGES_A_WORKER * workers)
        full = _power_below(self.rows / LEAST_ROWS_A_RANGE)
        if ranges < min(spread, full):
            ranges = min(spread, full)
            why = (
                f"{RANGES_A_WORKER} for each of {workers} workers, so that none waits for another"
                if spread <= full
                else f"at least {LEAST_ROWS_A_RANGE:,} rows a range"
            )
        if ranges < workers:
            ranges, why = _power_of_two(workers), f"one for each of {workers} workers"
        if ranges > self.partitions:
            return _power_below(self.partitions), "a partition cannot be cut"
        return ranges, why


def _power_of_two(number: float) -> int:
    return min(MAX_RANGES, 2 ** math.ceil(math.log2(max(1.0, number))))


def _power_below(number: float) -> int:
    return min(MAX_RANGES, 2 ** int(math.log2(max(1.0, number))))


# -- telling -------------------------------------------------------------------------------------

CUT_COLUMNS = ("ranges", "rows a range", "largest range", "skew", "")
PARTITION_COLUMNS = ("partition", "rows", "bytes")


def tell_figures(analysis: Analysis) -> dict[str, str]:
    """Give the figures of a table by what they are, as a person reads them."""
    sample = analysis.sample
    largest = analysis.estimates.largest_partition
    tokens = (
        "none seen"
        if sample.lowest_token is None
        else f"from {sample.lowest_token} to {sample.highest_token}"
    )
    word = "" if sample.is_whole else "at least " if analysis.is_at_least else "about "
    of_ring = "" if sample.tokens == RING else "about "
    figures = {
        "rows": f"{word}{_rounded(analysis.rows, sample.is_whole)}",
        "bytes": f"{word}{show_bytes(analysis.size)} (of one replica, uncompressed)",
        "partitions": f"{of_ring}{_rounded(analysis.partitions, not of_ring)}",
        "tokens": tokens,
    }
    if largest and not sample.is_whole:
        figures["largest"] = f"a partition of about {show_bytes(largest)}, as the nodes say"
    return {**figures, "found by": _tell_source(analysis)}


def _tell_source(analysis: Analysis) -> str:
    sample, estimates = analysis.sample, analysis.estimates
    if sample.is_whole:
        return "reading all of it"
    found = (
        f"all {sample.partitions:,} partitions"
        if sample.tokens == RING
        else f"{sample.partitions:,} partitions in {_share(sample.tokens / RING)} of the ring"
    )
    told = f"a sample: {found}, and the rows of {len(sample.seen):,} of them"
    if analysis.is_at_least:
        told += ", the largest not to their end"
    if not estimates.nodes_that_tell:
        return f"{told}; the servers tell no estimates of this table (yet)"
    nodes = f"{estimates.nodes_that_tell} of {estimates.nodes} nodes"
    figures = f"{_rounded(estimates.partitions)} partitions, {show_bytes(estimates.size)}"
    if analysis.follows_estimates:
        return (
            f"{told}; and the estimates of {nodes} ({figures}), by which large partitions are "
            "missing in the sample"
        )
    return f"{told}; {nodes} estimate {figures}"


def _share(part: float) -> str:
    return f"{part:.2%}" if part < 0.1 else f"{part:.0%}"


def tell_partitions(analysis: Analysis) -> list[tuple[str, str, str]]:
    """Give a line for each of the largest partitions: its key, its rows, its bytes."""
    return [
        (
            each.key,
            f"{'' if each.is_whole else 'more than '}{each.rows:,}",
            show_bytes(each.size),
        )
        for each in analysis.largest
    ]


def tell_cuts(analysis: Analysis, declared: int | None, workers: int) -> list[tuple[str, ...]]:
    """Give a line for each number of ranges that is suggested, declared or recommended."""
    recommended, _ = analysis.recommend(workers)
    numbers = {*SUGGESTED, recommended, *([declared] if declared else [])}
    lines = []
    for cut in (analysis.cut(number) for number in sorted(numbers)):
        marks = [
            word
            for word, number in (("declared", declared), ("recommended", recommended))
            if number == cut.ranges
        ]
        rows, largest = _rounded(cut.rows), _rounded(cut.largest, analysis.sample.is_whole)
        lines.append((str(cut.ranges), rows, largest, f"{cut.skew:.1f}", ", ".join(marks)))
    return lines


def tell_recommendation(analysis: Analysis, workers: int) -> str:
    """Say in a sentence which number of ranges is recommended, and why."""
    ranges, why = analysis.recommend(workers)
    if not analysis.rows:
        return f"Recommended is token_ranges: {ranges} ({why})."
    each = f"{_rounded(analysis.rows / ranges)} rows and {show_bytes(analysis.size / ranges)}"
    told = f"Recommended is token_ranges: {ranges}, of {each} each ({why})."
    if ranges > 1 and analysis.rows_of_largest > analysis.rows / ranges:
        told += (
            f" A partition of about {_rounded(analysis.rows_of_largest)} rows is more than such a"
            " range, and makes one so large however many there are."
        )
    return told


def to_markdown(analysis: Analysis, declared: int, workers: int) -> str:
    """Write all of it as a page."""
    figures = write_table(("of the table", ""), list(tell_figures(analysis).items()))
    parts = [tell_recommendation(analysis, workers), figures]
    parts.append(write_table(CUT_COLUMNS, tell_cuts(analysis, declared, workers)))
    if analysis.largest:
        seen = "" if analysis.sample.is_whole else " seen in the sample"
        parts.append(f"The largest partitions{seen}:")
        parts.append(write_table(PARTITION_COLUMNS, tell_partitions(analysis)))
    return "\n\n".join(parts)


def to_json(analysis: Analysis, declared: int | None, workers: int) -> dict[str, object]:
    """Give all of it for programs; `declared` is the number of ranges that a migration has."""
    sample, (recommended, why) = analysis.sample, analysis.recommend(workers)
    numbers: Iterable[int] = sorted({*SUGGESTED, recommended, *([declared] if declared else [])})
    return {
        "rows": round(analysis.rows),
        "bytes": round(analysis.size),
        "partitions": round(analysis.partitions),
        "is_exact": sample.is_whole,
        "is_at_least": analysis.is_at_least,
        "lowest_token": sample.lowest_token,
        "highest_token": sample.highest_token,
        "found_by": _tell_source(analysis),
        "nodes": analysis.estimates.nodes,
        "nodes_that_tell": analysis.estimates.nodes_that_tell,
        "largest_partition_bytes": analysis.estimates.largest_partition or None,
        "largest_partitions": [
            {"key": p.key, "token": p.token, "rows": p.rows, "bytes": p.size, "whole": p.is_whole}
            for p in analysis.largest
        ],
        "cuts": [
            {"ranges": c.ranges, "rows": round(c.rows), "largest": round(c.largest), "skew": c.skew}
            for c in map(analysis.cut, numbers)
        ],
        "token_ranges": declared,
        "recommended": recommended,
        "why": why,
    }


def _rounded(number: float, exact: bool = False) -> str:
    """Show a number; an estimate with three figures."""
    whole = round(number)
    if not exact and whole >= 1000:
        whole = round(whole, 3 - len(str(whole)))
    return f"{whole:,}"


def show_bytes(size: float) -> str:
    """Show a size in the unit in which it has one to three figures."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{round(size)} bytes"
