"""How a table lies on the ring, as its servers estimate and as a sample of it shows.

Servers tell of data on their disks only, and count anew every five minutes. The sample finds keys
first, a few in each of many windows, and then reads rows of some of these partitions: by windows
alone a wide partition would look like all of its window.
"""

# The driver has no type hints: pyright infers wrong types from its attributes' first values.
# pyright: reportOptionalMemberAccess=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cassandra import InvalidRequest, Unauthorized
from cassandra.pool import Host

from migration_platform.cql.keys import show_key
from migration_platform.cql.rows import split_cells
from migration_platform.declaration.migration import Endpoint
from migration_platform.errors import PermanentError, explain, is_transient
from migration_platform.plan.analysis import Analysis, Estimates, Sample, SeenPartition, Stretch
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import (
    FIRST_PAGE_ROWS,
    LEAST_PAGE_ROWS,
    MAX_PAGE_ROWS,
    Connection,
    near_hosts,
)
from migration_platform.stores.cassandra.range_reads import CassandraReader
from migration_platform.stores.cassandra.reads import PAGE_BYTES, prepare_range_read
from migration_platform.stores.interface import Pace
from migration_platform.token_ranges import (
    MAX_TOKEN,
    MIN_TOKEN,
    TokenRange,
    serialize_key,
    split_ring,
    token_of_key,
)

WINDOWS = 64
KEYS_A_WINDOW = 64
"""4,096 partitions in all: by chance their number is then off by some two percent."""
PARTITIONS_READ = 256
GLANCE_ROWS, GLANCE_BYTES = 200, 1_000_000
FURTHER_ROWS, FURTHER_BYTES = 25_000, 8_000_000
"""How far at least a partition is read of which a glance does not see the end."""
MOST_ROWS, MOST_BYTES = 100_000, 64_000_000
"""What the sample reads in all, about: seconds of a small server's time."""
MOST_SECONDS = 15
"""So much of a declared limit a second it takes at most."""
MEBIBYTE = 1 << 20
# A mean is of whole files, not of a part of the ring: where large partitions are, nobody tells.
_SIZES = (
    "SELECT range_start, range_end, partitions_count, mean_partition_size "
    "FROM system.size_estimates WHERE keyspace_name = %s AND table_name = %s"
)
# Since Cassandra 4.0.
_LARGEST = (
    "SELECT mebibytes FROM system_views.max_partition_size "
    "WHERE keyspace_name = %s AND table_name = %s"
)


@dataclass(frozen=True)
class _Key:
    """A partition that was found: its key's cells, and its token."""

    cells: tuple[bytes, ...]
    token: int


@dataclass
class _Left:
    """What may still be read."""

    rows: int
    size: int


def analyse_table(connection: Connection, table: Table, endpoint: Endpoint, pace: Pace) -> Analysis:
    """Look at a table within the origin's declared limits; some thousand rows are read.

    Raises:
        PermanentError, TransientError: the sample could not be read.
    """
    sampling = _Sampling(connection, table, endpoint, pace)
    return Analysis(sampling.sample(), read_estimates(connection, table))


def read_estimates(connection: Connection, table: Table) -> Estimates:
    """Ask every node that answers for the parts of the ring that it counts as its own.

    A server without such tables, or one that lets nobody read them, tells nothing.

    Raises:
        PermanentError: a node failed for another reason.
    """
    hosts = near_hosts(connection)
    stretches: dict[tuple[int, int], Stretch] = {}
    told = largest = 0
    for host in hosts:
        found = [
            Stretch(int(start), int(end), count, count * mean)
            for start, end, count, mean in _ask(connection, host, _SIZES, table)
        ]
        # Rows that only memory holds are in no estimate: zeros are as good as none.
        told += any(stretch.partitions for stretch in found)
        stretches |= {(stretch.start, stretch.end): stretch for stretch in found}
        for (mebibytes,) in _ask(connection, host, _LARGEST, table):
            # Parts of one are told as one, which is most often far too much.
            largest = max(largest, mebibytes * MEBIBYTE if mebibytes > 1 else 0)
    places = {host.datacenter for host in hosts}
    known = connection.cluster.metadata.all_hosts()
    nodes = sum(host.datacenter in places for host in known)
    return Estimates(nodes, told, tuple(stretches.values()) if told else (), largest)


def _ask(connection: Connection, host: Host, cql: str, table: Table) -> list[tuple]:
    try:
        values = (table.name.keyspace, table.name.table)
        return list(connection.session.execute(cql, values, host=host))
    except Exception as error:
        # A node that is away tells nothing, as one that does not know; how many tell is shown.
        if is_transient(error) or isinstance(error, InvalidRequest | Unauthorized):
            return []
        raise PermanentError(f"cannot read the estimates of {host}: {explain(error)}") from error


class _Sampling:
    """The sample of a table; reads are prepared once."""

    def __init__(self, connection: Connection, table: Table, endpoint: Endpoint, pace: Pace):
        self._table, self._endpoint, self._pace = table, endpoint, pace
        self._connection = connection
        budget = pace.budget
        self._left = _Left(
            min(MOST_ROWS, MOST_SECONDS * (budget.rows_per_second or MOST_ROWS)),
            min(MOST_BYTES, MOST_SECONDS * (budget.size_per_second or MOST_BYTES)),
        )
        # Keys are rows, too, of a declared limit.
        self._most_keys = max(1, min(KEYS_A_WINDOW, self._left.rows // 2 // WINDOWS))
        self._keys = self._prepare(table.partition_key, statics=True, limit=self._most_keys)
        self._first = self._prepare(table.partition_key, statics=True, limit=1)
        names = tuple(column.name for column in table.columns)
        self._rows = self._prepare(names, statics=False, limit=None)

    def _prepare(
        self, columns: tuple[str, ...], *, statics: bool, limit: int | None
    ) -> CassandraReader:
        read = prepare_range_read(
            self._connection,
            self._table,
            columns,
            statics=statics,
            limit=limit,
            retry_seconds=self._pace.retry_seconds,
        )
        endpoint = self._endpoint
        return CassandraReader(self._connection, read, endpoint.consistency, endpoint.fetch_size)

    def sample(self) -> Sample:
        """Read a sample: keys in every window, then rows of some of their partitions."""
        found: list[_Key] = []
        tokens = 0
        for window in split_ring(WINDOWS):
            keys = list(self._find(self._keys, window, self._most_keys))
            is_whole = len(keys) < self._most_keys
            tokens += (window.end if is_whole else keys[-1].token) - window.start
            found += keys
        # The lowest 64-bit number is no key's token, but it is one of the ring's.
        tokens += tokens == MAX_TOKEN - MIN_TOKEN
        self._left.rows -= len(found)
        chosen = _spread(found, min(PARTITIONS_READ, max(1, self._left.rows // GLANCE_ROWS)))
        small, large, unread = self._read_partitions(chosen)
        return Sample(
            tokens=tokens,
            partitions=len(found),
            small=tuple(small),
            large=tuple(large),
            unread=unread,
            lowest_token=found[0].token if found else None,
            highest_token=self._find_highest(found[-1].token) if found else None,
        )

    def _read_partitions(
        self, chosen: Sequence[_Key]
    ) -> tuple[list[SeenPartition], list[SeenPartition], int]:
        small, glanced = [], []
        for key in chosen:
            seen = self._read(key, GLANCE_ROWS, GLANCE_BYTES, FIRST_PAGE_ROWS)
            if seen.is_whole:
                small.append(seen)
            else:
                glanced.append((key, seen))
        large: list[SeenPartition] = []
        # In an order that favours no part of the ring: the first may be all there is time for.
        ordered = _spread(glanced, len(glanced), turns=True)
        for number, (key, seen) in enumerate(ordered):
            left = len(ordered) - number
            rows = max(FURTHER_ROWS, self._left.rows // left)
            size = max(FURTHER_BYTES, self._left.size // left)
            # One that is cut off would say less than that there is one more of them.
            least_rows = max([GLANCE_ROWS, *(each.rows for each in large)])
            least_size = max([GLANCE_BYTES, *(each.size for each in large)])
            if large and (self._left.rows < least_rows or self._left.size < least_size):
                break
            fetch_size = PAGE_BYTES // max(1, seen.size // max(1, seen.rows))
            fetch_size = max(LEAST_PAGE_ROWS, min(MAX_PAGE_ROWS, fetch_size))
            rows, size = min(rows, self._left.rows), min(size, self._left.size)
            further = self._read(key, rows, size, fetch_size)
            large.append(further if further.rows > seen.rows else seen)
        return small, large, len(glanced) - len(large)

    def _read(self, key: _Key, most_rows: int, most_size: int, fetch_size: int) -> SeenPartition:
        """Read a partition, or its first rows."""
        piece = TokenRange(key.token % WINDOWS, WINDOWS, key.token - 1, key.token)
        rows = size = 0
        is_whole = True
        wanted = max(1, min(fetch_size, most_rows, self._endpoint.fetch_size or fetch_size))
        pages = self._rows.pages(piece, self._pace, fetch_size=wanted)
        for page in pages:
            # What has the same token is nearly always the same partition.
            rows, size = rows + page.row_count, size + len(page.data)
            if page.next_state is not None and (rows >= most_rows or size >= most_size):
                is_whole = False
                break
        self._left.rows -= rows
        self._left.size -= size
        return SeenPartition(self._show(key), key.token, rows, size, is_whole)

    def _find(self, reader: CassandraReader, piece: TokenRange, most: int) -> Iterator[_Key]:
        """Give the first partitions of a piece, in the order of their tokens."""
        columns = len(self._table.partition_key)
        given = 0
        for page in reader.pages(piece, self._pace, fetch_size=most):
            cells = split_cells(page.data, page.row_count * columns)
            for at in range(0, len(cells), columns):
                key = [cell or b"" for cell in cells[at : at + columns]]
                yield _Key(tuple(key), token_of_key(serialize_key(key)))
                given += 1
                if given == most:
                    return

    def _find_highest(self, known: int) -> int:
        """Find the highest token: servers read a ring in one direction only, so it is bisected."""
        low, high = known, MAX_TOKEN
        while low < high:
            middle = (low + high) // 2
            above = self._first_in(middle, high)
            if above is None:
                high, above = middle, self._first_in(low, middle)
                if above is None:
                    return low
            low = above
        return low

    def _first_in(self, start: int, end: int) -> int | None:
        if start >= end:
            return None
        piece = TokenRange(0, 1, start, end)
        return next((key.token for key in self._find(self._first, piece, 1)), None)

    def _show(self, key: _Key) -> str:
        names = self._table.partition_key
        types = map(self._table.type_of, names)
        shown = show_key(list(zip(names, types, key.cells, strict=True)))
        return shown if len(shown) <= 200 else f"{shown[:200]}…"


Each = TypeVar("Each")


def _spread(found: Sequence[Each], count: int, *, turns: bool = False) -> list[Each]:
    """Choose so many, evenly; with `turns` those far from each other come first."""
    if not found:
        return []
    count = min(count, len(found))
    chosen = [found[number * len(found) // count] for number in range(count)]
    if not turns:
        return chosen
    step = max(1, int(count**0.5))
    return [each for first in range(step) for each in chosen[first::step]]
