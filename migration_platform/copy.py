"""One range from origin to target: pages in, rows grouped by target partition, batches out.

A range is a stream: two pages and one group of rows in memory, whatever its size. Its counts are
complete only when every row that was read was acknowledged.
"""

import time
from dataclasses import dataclass, replace
from itertools import pairwise

from migration_platform.errors import MigrationError, explain
from migration_platform.preflight import Plan
from migration_platform.rows import compile_splitter, split_cells, unset_nulls
from migration_platform.stores.cassandra import (
    Writer,
    prepare_insert,
    prepare_range_read,
    read_pages,
)
from migration_platform.token_ranges import TokenRange, serialize_key
from migration_platform.workers import OpenStores, Report

GROUP_ROWS = 20_000
GROUP_BYTES = 16_000_000
"""Rows are gathered up to here, so that those of one target partition can travel together."""
REPORT_SECONDS = 2.0


@dataclass(frozen=True)
class RangeCounts:
    """What was done with a range's rows so far; counts of several ranges add up with `+`."""

    read: int = 0
    written: int = 0
    skipped: int = 0
    set_aside: int = 0
    errors: int = 0
    bytes_read: int = 0
    retries: int = 0
    read_seconds: float = 0.0
    seconds: float = 0.0
    last_retry: str = ""
    reading_ended: bool = False

    @property
    def complete(self) -> bool:
        """Whether every row that was read is accounted for."""
        return not self.errors and self.read == self.written + self.skipped + self.set_aside

    @property
    def rows_per_second(self) -> float:
        """Rows written a second of the range's own time."""
        return self.written / self.seconds if self.seconds else 0.0

    def __add__(self, other: "RangeCounts") -> "RangeCounts":
        return RangeCounts(
            read=self.read + other.read,
            written=self.written + other.written,
            skipped=self.skipped + other.skipped,
            set_aside=self.set_aside + other.set_aside,
            errors=self.errors + other.errors,
            bytes_read=self.bytes_read + other.bytes_read,
            retries=self.retries + other.retries,
            read_seconds=self.read_seconds + other.read_seconds,
            seconds=self.seconds + other.seconds,
            last_retry=other.last_retry or self.last_retry,
            reading_ended=self.reading_ended and other.reading_ended,
        )


@dataclass(frozen=True)
class CopyRange:
    """The task of copying one range; its result is the range's `RangeCounts`."""

    token_range: TokenRange

    def run(self, stores: OpenStores, report: Report) -> RangeCounts:
        """Copy the range.

        Raises:
            MigrationError: a page or a write failed for good; rows before it may be written.
        """
        return copy_range(stores, self.token_range, report)


@dataclass(frozen=True)
class _Tools:
    """What is prepared once for each worker process."""

    select: object
    insert: object
    split: object
    partition_key: tuple[int, ...]


def copy_range(stores: OpenStores, token_range: TokenRange, report: Report) -> RangeCounts:
    """Copy every row whose origin token lies in the range, and wait until all are written."""
    plan, migration = stores.plan, stores.plan.migration
    tools = stores.cache.get("copy") or stores.cache.setdefault("copy", _prepare(stores))
    started = reported = time.monotonic()
    counts = RangeCounts()
    retries = 0
    last_retry = ""
    retry_reported = 0.0

    def on_retry(error: BaseException) -> None:
        nonlocal retries, last_retry, retry_reported
        retries += 1
        last_retry = explain(error)
        # All requests in flight fail together when a server goes: one report tells of them all.
        if time.monotonic() - retry_reported >= REPORT_SECONDS:
            retry_reported = time.monotonic()
            report(so_far())

    writer = Writer(
        stores.target,
        tools.insert,
        plan.target,
        len(plan.copy_columns),
        consistency=migration.target.consistency,
        budget=stores.target_budget,
        retry_seconds=migration.retry_seconds,
        on_retry=on_retry,
    )

    def so_far() -> RangeCounts:
        return replace(
            counts,
            written=writer.rows_written,
            retries=retries,
            last_retry=last_retry,
            seconds=time.monotonic() - started,
        )

    groups: dict[bytes, list[bytes]] = {}
    grouped_rows = grouped_bytes = 0
    for page in read_pages(
        stores.origin,
        tools.select,
        token_range,
        consistency=migration.origin.consistency,
        fetch_size=migration.origin.fetch_size,
        budget=stores.origin_budget,
        retry_seconds=migration.retry_seconds,
        on_retry=on_retry,
    ):
        starts, key_ends, nulls = tools.split(page.data, page.row_count)
        data = unset_nulls(page.data, nulls)
        counts = replace(
            counts,
            read=counts.read + page.row_count,
            bytes_read=counts.bytes_read + len(data),
            read_seconds=time.monotonic() - started,
        )
        if plan.group_size:
            _group(groups, data, starts, key_ends)
            grouped_rows += page.row_count
            grouped_bytes += len(data)
            if grouped_rows >= GROUP_ROWS or grouped_bytes >= GROUP_BYTES:
                _write_groups(writer, groups, plan, tools)
                groups = {}
                grouped_rows = grouped_bytes = 0
        else:
            for start, end in pairwise(starts):
                writer.write_group([data[start:end]], None)
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            report(so_far())
    counts = replace(counts, reading_ended=True)
    report(so_far())
    _write_groups(writer, groups, plan, tools)
    writer.flush()
    result = so_far()
    if not result.complete:
        raise MigrationError(f"{result.read} rows were read, but {result.written} were written")
    return result


def _prepare(stores: OpenStores) -> _Tools:
    plan = stores.plan
    # Only with several hosts is it worth knowing which one owns a partition.
    routed = stores.target.host_count > 1 and plan.group_size
    seconds, columns = plan.migration.retry_seconds, plan.copy_columns
    return _Tools(
        select=prepare_range_read(stores.origin, plan.origin, columns, retry_seconds=seconds),
        insert=prepare_insert(stores.target, plan.target, columns, retry_seconds=seconds),
        split=compile_splitter(len(plan.copy_columns), plan.group_size),
        partition_key=tuple(plan.copy_columns.index(c) for c in plan.target.partition_key)
        if routed
        else (),
    )


def _group(
    groups: dict[bytes, list[bytes]], data: bytes, starts: list[int], key_ends: list[int]
) -> None:
    start = 0
    for row, key_end in enumerate(key_ends, 1):
        end = starts[row]
        key = data[start:key_end]
        found = groups.get(key)
        if found is None:
            groups[key] = [data[start:end]]
        else:
            found.append(data[start:end])
        start = end


def _write_groups(
    writer: Writer, groups: dict[bytes, list[bytes]], plan: Plan, tools: _Tools
) -> None:
    ordered = sorted(groups) if plan.migration.group_writes_by else groups
    for key in ordered:
        writer.write_group(groups[key], _routing_key(key, plan, tools))


def _routing_key(key: bytes, plan: Plan, tools: _Tools) -> bytes | None:
    if not tools.partition_key:
        return None
    cells = split_cells(key, plan.group_size)
    return serialize_key([cells[position] or b"" for position in tools.partition_key])
