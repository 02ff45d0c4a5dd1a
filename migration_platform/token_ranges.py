"""Slices of the Murmur3 ring, the unit of work of every job.

A token range is half open, `(start, end]`, as the driver's own ring is. Murmur3 never gives the
smallest 64-bit number to a key, so the slices from -2^63 to 2^63-1 hold every row exactly once,
with no special case at either end.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from cassandra.metadata import Murmur3Token

from migration_platform.errors import DeclarationError

MIN_TOKEN = -(2**63)
MAX_TOKEN = 2**63 - 1
MAX_RANGES = 1024
"""Dagster's pages and status queries stay quick up to about a thousand partitions."""


@dataclass(frozen=True, order=True)
class TokenRange:
    """One slice `(start, end]` of the ring, or a piece of it: number `index` of `count`."""

    index: int
    count: int
    start: int
    end: int

    @property
    def key(self) -> str:
        """Dagster's name of the slice, `07-of-64`, padded so that names sort as slices do."""
        return f"{self.index:0{_digits(self.count)}d}-of-{self.count}"

    @property
    def bounds(self) -> tuple[int, int]:
        """The first and the last token; where the ring begins, that token is the first itself."""
        return (self.start if self.start == MIN_TOKEN else self.start + 1), self.end

    def __contains__(self, token: int) -> bool:
        """Say whether a token lies in the slice."""
        return self.start < token <= self.end

    def __str__(self) -> str:
        return f"{self.key} ({self.start}, {self.end}]"


def split_tokens(
    low: int, high: int, parts: int, coverage_percent: int = 100
) -> list[tuple[int, int]]:
    """Cut the tokens from `low` to `high` as Cassandra Data Migrator does, bounds inclusive.

    There are at most `parts` pairs, each of the same width but for the last. With a coverage
    below 100 each is cut off at its upper end; one outside 1 to 100 counts as 100.
    """
    coverage = coverage_percent if 1 <= coverage_percent <= 100 else 100
    # So few tokens are not worth a cut.
    width = (high - low) // parts or 100_000
    found = []
    while low <= high:
        end = min(low + width, high)
        found.append((low, low + (end - low) * coverage // 100))
        low = end + 1
    return found


# A thousand keys name as many slices of one ring, which is then cut once.
@lru_cache(maxsize=32)
def split_ring(count: int) -> tuple[TokenRange, ...]:
    """Cut the whole ring into `count` slices: the ones that Cassandra Data Migrator would read.

    Raises:
        ValueError: `count` is not between 1 and `MAX_RANGES`.
    """
    if not 1 <= count <= MAX_RANGES:
        raise ValueError(f"token_ranges must be between 1 and {MAX_RANGES}, not {count}")
    return tuple(
        TokenRange(index, count, max(low - 1, MIN_TOKEN), high)
        for index, (low, high) in enumerate(split_tokens(MIN_TOKEN, MAX_TOKEN, count))
    )


def split_range(token_range: TokenRange, parts: int) -> tuple[TokenRange, ...]:
    """Cut a slice, or a piece of one, into at most `parts` pieces that keep its name."""
    low, high = token_range.bounds
    return tuple(
        replace(token_range, start=max(low - 1, token_range.start), end=high)
        for low, high in split_tokens(low, high, parts)
    )


def range_of_key(key: str) -> TokenRange:
    """Give the slice that a partition key names.

    Raises:
        ValueError: the key is not of the form `07-of-64`, or there is no such slice.
    """
    found = re.fullmatch(r"(\d+)-of-(\d+)", key)
    if not found or not 0 <= int(found[1]) < int(found[2]) <= MAX_RANGES:
        raise ValueError(f"'{key}' names no token range; the form is <index>-of-<count>: 07-of-64")
    token_range = split_ring(int(found[2]))[int(found[1])]
    if token_range.key != key:
        raise ValueError(f"'{key}' names no token range; did you mean '{token_range.key}'?")
    return token_range


def find_ranges(text: str, count: int) -> tuple[TokenRange, ...]:
    """Give the slices of a ring of `count` that a person means, however they are written.

    `all` is the whole ring, `7`, `7-of-64` and `07-of-64` are one slice, and two of those joined
    by `...` are all from the first to the last. Dagster itself takes padded names alone.

    Raises:
        DeclarationError: no such slices are there.
    """
    ring = split_ring(count)
    if text.strip().lower() == "all":
        return ring
    ends = [_index_of(part, ring) for part in re.split(r"\s*\.{2,3}\s*", text.strip())]
    if len(ends) > 2:
        raise DeclarationError(f"{text} names {len(ends)} ranges; write the first and the last")
    first, last = ends[0], ends[-1]
    if first > last:
        raise DeclarationError(
            f"{text} ends before it begins; write {ring[last].key}...{ring[first].key}"
        )
    return ring[first : last + 1]


def _index_of(text: str, ring: tuple[TokenRange, ...]) -> int:
    found = re.fullmatch(r"(\d{1,9})(?:-of-(\d{1,9}))?", text)
    index = int(found[1]) if found else len(ring)
    if found is None or index >= len(ring) or (found[2] and int(found[2]) != len(ring)):
        names = dict.fromkeys(ring[at].key for at in (0, -1))
        valid = " to ".join(names)
        raise DeclarationError(f"{text or 'nothing'} names no range; valid are all, and {valid}")
    return index


def index_of_token(ends: Sequence[int], token: int) -> int:
    """Give the position of the slice that holds a token, from the slices' ends in order."""
    return bisect_left(ends, token)


def serialize_key(cells: list[bytes]) -> bytes:
    """Join the serialized values of a partition key's columns as Cassandra does.

    One column stands for itself; several form a CompositeType: each its length in two bytes,
    its value, one zero byte.
    """
    if len(cells) == 1:
        return cells[0]
    return b"".join(b"%b%b\x00" % (len(cell).to_bytes(2, "big"), cell) for cell in cells)


def split_key(key: bytes, columns: int) -> list[bytes]:
    """Split a serialized partition key into the values of its columns."""
    if columns == 1:
        return [key]
    cells, at = [], 0
    for _ in range(columns):
        end = at + 2 + int.from_bytes(key[at : at + 2], "big")
        cells.append(key[at + 2 : end])
        at = end + 1
    return cells


def token_of_key(key: bytes) -> int:
    """Give the Murmur3 token of a serialized partition key."""
    return Murmur3Token.hash_fn(key)


def describe_ranges(ranges: list[TokenRange], limit: int = 10) -> str:
    """Name slices as an operator selects them: neighbours joined as Dagster does, `a...b`."""
    parts: list[str] = []
    ordered = sorted(ranges)
    position = 0
    while position < len(ordered):
        last = position
        while last + 1 < len(ordered) and ordered[last + 1].index == ordered[last].index + 1:
            last += 1
        first_key, last_key = ordered[position].key, ordered[last].key
        parts.append(first_key if first_key == last_key else f"{first_key}...{last_key}")
        position = last + 1
    shown = ", ".join(parts[:limit])
    return shown + (f" and {len(parts) - limit} more" if len(parts) > limit else "")


def _digits(count: int) -> int:
    return max(2, len(str(count - 1)))
