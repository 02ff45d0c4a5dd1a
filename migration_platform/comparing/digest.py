"""Digests of rows, added up per bucket of their primary key: equal sums, equal tables.

Each row gives a 128-bit hash (XXH3) of its bytes. Sums do not depend on the order of rows, so
tables whose partition keys differ can be compared, slices scanned by several processes merge by
addition, and each side is read once. Nulls are part of the bytes; writetimes are not.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from xxhash import xxh3_64_intdigest, xxh3_128_digest, xxh3_128_intdigest

from migration_platform.cql.rows import split_cells
from migration_platform.token_ranges import index_of_token, serialize_key, token_of_key

DigestedRow = tuple[bytes, bytes, bytes, bytes]
"""A row's key and content with its keys and elements in their usual form, what no digest can
compare (empty if nothing): such as the seconds at which cells expire, which two reads never tell
quite alike; and the forms that it has where these are not the usual ones (empty if they are)."""

BUCKETS_PER_TABLE = 16_384
"""A billion rows make 61,000 rows a bucket: what one differing row costs to look into."""


def buckets_per_range(token_ranges: int) -> int:
    """Give how many buckets each of so many ranges has."""
    return max(1, BUCKETS_PER_TABLE // token_ranges)


@dataclass
class DigestSums:
    """Row counts by range index, and digest sums by `range index * buckets + bucket`.

    `loose` are the slots of rows that must be compared one by one.
    Sums are plain integers that grow beyond 128 bits; two of them are compared as they are.
    """

    rows: Counter[int] = field(default_factory=Counter)
    sums: Counter[int] = field(default_factory=Counter)
    loose: set[int] = field(default_factory=set)

    def add(self, other: "DigestSums") -> None:
        """Take in the sums of another slice of the same table."""
        self.rows.update(other.rows)
        self.sums.update(other.sums)
        self.loose.update(other.loose)


@dataclass(frozen=True)
class RowLocator:
    """Tells the range and the slot of a row.

    `fixed_index` is the range's index where the scanned slice is the range itself; otherwise
    the key's first `token_cells` cells are the origin's partition key, `ends` are the upper
    ends of all ranges in order, and `windows` what is read of each. Rows of ranges that are not
    `wanted` have no index. With `by_range` each range has slots of its own.
    """

    fixed_index: int | None
    token_cells: int
    ends: tuple[int, ...]
    windows: tuple[tuple[int, int] | None, ...]
    wanted: frozenset[int]
    buckets: int
    by_range: bool = True

    def index_of(self, key: bytes) -> int | None:
        """Give the index of the range that a row belongs to, from its key's cells."""
        index = self.fixed_index
        if index is None:
            cells = [cell or b"" for cell in split_cells(key, self.token_cells)]
            token = token_of_key(serialize_key(cells))
            index = index_of_token(self.ends, token)
            window = self.windows[index]
            if window is None or not window[0] < token <= window[1]:
                return None
        return index if index in self.wanted else None

    def slot_of(self, index: int, key: bytes) -> int:
        """Give the number of the bucket that a row's digest is added to."""
        bucket = xxh3_64_intdigest(key) % self.buckets
        return index * self.buckets + bucket if self.by_range else bucket

    def listed_index(self, key: bytes, loose: bytes, wanted_slots: frozenset[int]) -> int | None:
        """Give the index of a row in a wanted slot, or that is loose; None of any other row."""
        index = self.index_of(key)
        is_listed = index is not None and (loose or self.slot_of(index, key) in wanted_slots)
        return index if is_listed else None


def add_rows(
    into: DigestSums, rows: Iterable[DigestedRow], locator: RowLocator, *, counted: bool = True
) -> None:
    """Add up the digests of all rows of the wanted ranges; static cells are not `counted`."""
    sums, counts, loose_slots = into.sums, into.rows, into.loose
    get, index_of, slot_of = sums.get, locator.index_of, locator.slot_of
    for key, content, loose, form in rows:
        index = index_of(key)
        if index is not None:
            slot = slot_of(index, key)
            sums[slot] = get(slot, 0) + xxh3_128_intdigest(content)
            counts[index] += counted
            if loose:
                loose_slots.add(slot)
            if form:
                # With its key, or two rows that exchange their forms would add up to the same.
                sums[slot] += xxh3_128_intdigest(key + form)


ListedRow = tuple[int, bytes, bytes, bytes, bytes]
"""Range index, key, digest of the content, what no digest can compare, and the forms' digest."""


def list_rows(
    rows: Iterable[DigestedRow], locator: RowLocator, wanted_slots: frozenset[int]
) -> Iterator[ListedRow]:
    """Give the rows in wanted slots, and all loose ones."""
    for key, content, loose, form in rows:
        index = locator.listed_index(key, loose, wanted_slots)
        if index is not None:
            yield index, key, xxh3_128_digest(content), loose, form and xxh3_128_digest(form)
