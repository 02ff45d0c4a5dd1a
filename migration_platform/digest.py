"""Digests of rows, added up per bucket of their primary key: equal sums, equal tables.

Each row gives a 128-bit hash (XXH3) of its bytes. Sums do not depend on the order of rows, so
tables whose partition keys differ can be compared, slices scanned by several processes merge by
addition, and each side is read once. Nulls are part of the bytes; writetimes are not.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from xxhash import xxh3_64_intdigest, xxh3_128_digest, xxh3_128_intdigest

from migration_platform.rows import Page, Split, split_cells
from migration_platform.token_ranges import index_of_token, serialize_key, token_of_key

BUCKETS_PER_TABLE = 16_384
"""A billion rows make 61,000 rows a bucket: what one differing row costs to look into."""


def buckets_per_range(token_ranges: int) -> int:
    """Give how many buckets each of so many ranges has."""
    return max(1, BUCKETS_PER_TABLE // token_ranges)


@dataclass
class DigestSums:
    """Row counts by range index, and digest sums by `range index * buckets + bucket`.

    Sums are plain integers that grow beyond 128 bits; two of them are compared as they are.
    """

    rows: Counter[int] = field(default_factory=Counter)
    sums: Counter[int] = field(default_factory=Counter)

    def add(self, other: "DigestSums") -> None:
        """Take in the sums of another slice of the same table."""
        self.rows.update(other.rows)
        self.sums.update(other.sums)


@dataclass(frozen=True)
class RowLocator:
    """Tells the range of a row: known beforehand, or from the origin's partition key in it.

    `fixed_index` is the range's index where the scanned slice is the range itself; otherwise
    the row's first `token_cells` cells are the origin's partition key, and `ends` are the upper
    ends of all ranges in order.
    """

    fixed_index: int | None
    token_cells: int
    ends: list[int]

    def index_of(self, key: bytes) -> int:
        """Give the index of the range that a row belongs to, from its primary key's cells."""
        if self.fixed_index is not None:
            return self.fixed_index
        cells = [cell or b"" for cell in split_cells(key, self.token_cells)]
        return index_of_token(self.ends, token_of_key(serialize_key(cells)))


def add_pages(
    into: DigestSums,
    pages: Iterable[Page],
    split: Callable[[bytes, int], Split],
    locator: RowLocator,
    buckets: int,
    wanted: frozenset[int],
) -> None:
    """Add up the digests of all rows of the wanted ranges."""
    sums, rows = into.sums, into.rows
    get = sums.get
    for page in pages:
        data = page.data
        starts, key_ends, _ = split(data, page.row_count)
        start = 0
        for row, key_end in enumerate(key_ends, 1):
            end = starts[row]
            key = data[start:key_end]
            index = locator.index_of(key)
            if index in wanted:
                slot = index * buckets + xxh3_64_intdigest(key) % buckets
                sums[slot] = get(slot, 0) + xxh3_128_intdigest(data[start:end])
                rows[index] += 1
            start = end


def list_rows(
    pages: Iterable[Page],
    split: Callable[[bytes, int], Split],
    locator: RowLocator,
    buckets: int,
    wanted_slots: frozenset[int],
) -> Iterable[list[tuple[int, bytes, bytes]]]:
    """Give `(range index, primary key's cells, digest)` of the rows in wanted slots, by page."""
    for page in pages:
        data = page.data
        starts, key_ends, _ = split(data, page.row_count)
        found = []
        start = 0
        for row, key_end in enumerate(key_ends, 1):
            end = starts[row]
            key = data[start:key_end]
            index = locator.index_of(key)
            if index * buckets + xxh3_64_intdigest(key) % buckets in wanted_slots:
                found.append((index, key, xxh3_128_digest(data[start:end])))
            start = end
        if found:
            yield found
