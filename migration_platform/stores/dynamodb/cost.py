"""What a copy to DynamoDB will consume, estimated from a sample of the origin's rows.

The sample is read in windows of tokens, spread over the ring. Tokens are hashes, so that what lies
in a window is a random part of the table; how much the windows differ from each other says how
far the estimate may be off. Units and bytes are told, prices are not: they differ by region.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, inf, sqrt

from migration_platform.declaration.migration import Migration
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget
from migration_platform.stores.dynamodb.items import Item, item_size, read_units, write_units
from migration_platform.stores.dynamodb.tables import DynamoTable

STORED_BYTES_AN_ITEM = 100
"""DynamoDB stores so many bytes more of each item, in the table and in each of its indexes.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
"""
SCANNED_BYTES_A_UNIT = 4096
GB = 10**9
MILLION = 10**6


@dataclass(frozen=True)
class IndexShape:
    """What an index holds of an item: all attributes where `attributes` is None."""

    key: tuple[str, ...]
    attributes: frozenset[str] | None

    def size_of(self, item: Item) -> int | None:
        """Give the bytes that the index holds of an item; None if the item is not in it."""
        if not all(name in item for name in self.key):
            return None
        if self.attributes is None:
            return item_size(item)
        return item_size({name: item[name] for name in item if name in self.attributes})


@dataclass
class Window:
    """What was found in one window of tokens; `tokens` says how wide it is.

    Bytes are those of items as DynamoDB counts them. `lookup_units` are what it costs to read each
    item alone. `rejected` are rows that no item can hold.
    """

    tokens: int = 0
    items: int = 0
    bytes: int = 0
    write_units: int = 0
    lookup_units: int = 0
    index_bytes: int = 0
    index_units: int = 0
    rejected: int = 0

    def add_item(self, item: Item, indexes: Sequence[IndexShape]) -> int:
        """Count an item, and give its size."""
        size = item_size(item)
        self.items += 1
        self.bytes += size + STORED_BYTES_AN_ITEM
        self.write_units += write_units(size)
        self.lookup_units += read_units(size)
        for index in indexes:
            held = index.size_of(item)
            if held is not None:
                self.index_bytes += held + STORED_BYTES_AN_ITEM
                self.index_units += write_units(held)
        return size


@dataclass(frozen=True)
class Sample:
    """The windows that were read, of how many tokens in all, and what stood out.

    `is_bounded` says that a partition had more rows than were read of it.
    """

    windows: tuple[Window, ...]
    tokens: int
    largest_item: int = 0
    rejected: tuple[str, ...] = ()
    is_bounded: bool = False


@dataclass(frozen=True)
class Estimate:
    """A number and how far off it may be: two standard errors, infinite if that is not known."""

    value: float
    error: float = 0.0

    def __add__(self, other: "Estimate") -> "Estimate":
        """Add another; errors of one sample may all lie on one side."""
        return Estimate(self.value + other.value, self.error + other.error)

    @property
    def percent(self) -> float:
        """The error in percent of the number."""
        return 100 * self.error / self.value if self.value else 0.0 if not self.error else inf

    def __str__(self) -> str:
        shown = f"{self.value:,.0f}"
        if not self.error:
            return shown
        return f"about {shown}" + (f" ± {self.percent:,.0f} %" if self.error < inf else "")


@dataclass(frozen=True)
class Cost:
    """What a copy and a comparison consume, and what is then stored.

    Estimates are of the whole table, `read_units` of one comparison. `sampled` and `sampled_bytes`
    are the items of the sample; it is complete if that is the whole table.
    """

    items: Estimate
    write_units: Estimate
    index_units: Estimate
    read_units: Estimate
    storage_bytes: Estimate
    rejected: Estimate
    sampled: int
    sampled_bytes: int
    largest_item: int
    is_bounded: bool
    is_complete: bool
    rejected_samples: tuple[str, ...]

    def __add__(self, other: "Cost") -> "Cost":
        """Add what other items of the same table cost."""
        return Cost(
            items=self.items + other.items,
            write_units=self.write_units + other.write_units,
            index_units=self.index_units + other.index_units,
            read_units=self.read_units + other.read_units,
            storage_bytes=self.storage_bytes + other.storage_bytes,
            rejected=self.rejected + other.rejected,
            sampled=self.sampled + other.sampled,
            sampled_bytes=self.sampled_bytes + other.sampled_bytes,
            largest_item=max(self.largest_item, other.largest_item),
            is_bounded=self.is_bounded or other.is_bounded,
            is_complete=self.is_complete and other.is_complete,
            rejected_samples=self.rejected_samples + other.rejected_samples,
        )

    @property
    def average_item(self) -> float:
        """The bytes of an item of the sample."""
        return self.sampled_bytes / self.sampled if self.sampled else 0.0


def estimate_cost(sample: Sample, *, looks_up: bool, scans: int = 1) -> Cost:
    """Estimate the whole from a sample.

    With `looks_up` a comparison reads item by item, otherwise it scans the table `scans` times.
    """
    windows = [window for window in sample.windows if window.tokens > 0]
    covered = sum(window.tokens for window in windows)

    def of(measure: Callable[[Window], float]) -> Estimate:
        return _estimate(windows, sample.tokens, measure)

    def plain(window: Window) -> int:
        return window.bytes - window.items * STORED_BYTES_AN_ITEM

    return Cost(
        items=of(lambda w: w.items),
        write_units=of(lambda w: w.write_units),
        index_units=of(lambda w: w.index_units),
        # A scan reads 4 KB for a unit, however many items these are.
        read_units=of(lambda w: w.lookup_units)
        if looks_up
        else of(lambda w: scans * plain(w) / SCANNED_BYTES_A_UNIT),
        storage_bytes=of(lambda w: w.bytes + w.index_bytes),
        rejected=of(lambda w: w.rejected),
        sampled=sum(window.items for window in windows),
        sampled_bytes=sum(plain(window) for window in windows),
        largest_item=sample.largest_item,
        is_bounded=sample.is_bounded,
        is_complete=covered >= sample.tokens and not sample.is_bounded,
        rejected_samples=sample.rejected,
    )


def _estimate(
    windows: Sequence[Window], tokens: int, measure: Callable[[Window], float]
) -> Estimate:
    """Scale up what windows show; the error is the jackknife's, from leaving out one at a time."""
    amounts = [measure(window) for window in windows]
    covered, amount = sum(window.tokens for window in windows), sum(amounts)
    if not covered:
        return Estimate(0.0, inf if tokens else 0.0)
    value = amount * tokens / covered
    if covered >= tokens:
        return Estimate(value)
    if len(windows) < 2 or not amount:
        return Estimate(value, inf)
    without = [
        (amount - part) * tokens / (covered - window.tokens)
        for part, window in zip(amounts, windows, strict=True)
    ]
    count = len(windows)
    middle = sum(without) / count
    variance = (count - 1) / count * sum((each - middle) ** 2 for each in without)
    # What was read itself is known.
    return Estimate(value, 2 * sqrt(variance * (1 - covered / tokens)))


# -- telling -------------------------------------------------------------------------------------

Line = tuple[str, str, str]
"""What is told, how much it is, and how it is counted."""


def tell_cost(
    cost: Cost, migration: Migration, found: DynamoTable | None, *, scans: int
) -> Iterator[Line]:
    """Tell what a copy costs, line by line; `found` is the target, if there is one already.

    `scans` is how often a comparison reads the whole table, as the cost was estimated with.
    """
    declared = migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    has_indexes = bool(found.indexes if found else declared.indexes)
    counted = (
        "every row was read"
        if cost.is_complete
        else f"from a sample of {cost.sampled:,}; ± is two standard errors"
    )
    if cost.is_bounded:
        counted += "; a partition has more rows than were read of it, so there may be many more"
    yield "items", str(cost.items), counted
    yield (
        "bytes of an item",
        f"{cost.average_item:,.0f} on average, {cost.largest_item:,} the largest",
        "as DynamoDB counts them" + ("" if cost.is_complete else "; there may be larger ones"),
    )
    yield (
        "write units of the copy",
        str(cost.write_units),
        f"{_millions(cost.write_units)} million write request units: one for each begun KB of an "
        "item, as if the table held none of them yet",
    )
    if has_indexes:
        yield (
            "write units of its indexes",
            str(cost.index_units),
            f"{_millions(cost.index_units)} million write request units on top of these; "
            "target.write_units_per_second counts them, too",
        )
    yield (
        "storage",
        f"{_short(cost.storage_bytes.value / GB)} GB",
        "GB-months for each month, a GB of 10^9 bytes, with 100 bytes more for each item"
        + (" and for each item of an index" if has_indexes else ""),
    )
    yield _tell_comparison(cost, migration, scans)
    yield "duration of the copy", *_tell_duration(cost, migration, found)
    if migration.writetime == "row_max":
        yield (
            "way of writing",
            "one conditional PutItem a row",
            "writetime: row_max lets the newest win; slower than batches, and a write that is left "
            "alone because the table has what is newer is paid, too",
        )
    else:
        yield "way of writing", "BatchWriteItem", "up to 25 items a request; each is paid alone"
    if cost.rejected.value:
        yield "rows that no item can hold", str(cost.rejected), cost.rejected_samples[0]


def _tell_comparison(cost: Cost, migration: Migration, scans: int) -> Line:
    how = (
        "each item read alone, by BatchGetItem"
        if migration.diff_mode == "origin_only"
        else "a strongly consistent scan, 4 KB a unit"
        + (f", {scans} times: for rows and for static cells" if scans > 1 else "")
    )
    declared = migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    rate = declared.read_units_per_second
    return (
        "read units of a comparison",
        str(cost.read_units),
        f"{_millions(cost.read_units)} million read request units: {how}"
        + (f"; {_time_at(cost.read_units, rate)} at {rate:,} a second" if rate else ""),
    )


def _tell_duration(cost: Cost, migration: Migration, found: DynamoTable | None) -> tuple[str, str]:
    declared = migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    capacity = found.write_units if found else declared.write_units
    limits = [
        (
            cost.write_units + cost.index_units,
            declared.write_units_per_second,
            "target.write_units_per_second",
        ),
        # What is written to an index comes out of the index's own capacity.
        (cost.write_units, capacity, "the table's write capacity"),
        (cost.items, migration.target.rows_per_second, "target.rows_per_second"),
        (cost.items, migration.origin.rows_per_second, "origin.rows_per_second"),
    ]
    known = [(amount.value / rate, rate, name) for amount, rate, name in limits if rate]
    if not known:
        return (
            "not known",
            "no limit is declared: as fast as the table takes it; set "
            "target.write_units_per_second to limit it",
        )
    seconds, rate, name = max(known)
    return f"at least {timedelta(seconds=ceil(seconds))}", f"{name} is {rate:,}"


def _time_at(amount: Estimate, rate: float) -> str:
    return str(timedelta(seconds=ceil(amount.value / rate)))


def _millions(units: Estimate) -> str:
    return _short(units.value / MILLION)


def _short(number: float) -> str:
    return f"{number:,.2f}" if number >= 1 else f"{number:.9f}".rstrip("0").rstrip(".")
