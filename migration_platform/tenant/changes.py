"""Backing rows up, changing them, and putting them back: each row by compare and set.

A row is changed only while its columns hold what the plan saw, so nobody's write in between is
lost. A conditional update that was not carried out may have been so by an earlier try whose answer
was lost: the row is then read with serial consistency, and what it holds decides.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from typing import Any

from migration_platform.cql.cell_times import read_writetimes
from migration_platform.cql.names import quote
from migration_platform.cql.rows import INT32, Page, split_cells
from migration_platform.pacing.rate import RateBudget
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.reads import read_rows
from migration_platform.tenant.declaration import Move
from migration_platform.tenant.key_reads import prepare_key_read
from migration_platform.tenant.records import (
    Part,
    PlanFolder,
    read_json,
    read_part,
    write_json,
    write_part,
)
from migration_platform.tenant.rows import PlannedRow, cells_from_json, cells_to_json
from migration_platform.tenant.shape import Cells, TableShape

MAX_SAMPLES = 20
"""So many rows are named that were not as the plan saw them; all of them are counted."""
CHANGES_IN_FLIGHT = 32
MAX_DOUBTFUL = 1_000
"""Rows whose update was not carried out are read together, and so many are kept in memory."""
_APPLIED = b"\x00\x00\x00\x01\x01"
"""How a result says that a conditional update was carried out: a cell that is true."""

Retry = Callable[[BaseException], None]


@dataclass
class Changes:
    """What came of the rows of a range.

    Attributes:
        changed: Rows that were changed now.
        already: Rows that held the wanted values before: an earlier try's work.
        conflicts: Rows that hold neither; they are left alone.
        gone: Rows that do not exist any more; they are not made again.
        samples: Some of the conflicts and of what is gone, and what there is instead.
    """

    changed: int = 0
    already: int = 0
    conflicts: int = 0
    gone: int = 0
    samples: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every row holds the wanted values."""
        return not self.conflicts and not self.gone

    @property
    def done(self) -> int:
        """How many rows hold the wanted values."""
        return self.changed + self.already

    def to_json(self) -> dict[str, Any]:
        """Give the counts as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Changes":
        """Read what `to_json` gave, and what was noted beside it is left out."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__})

    def add(self, other: "Changes") -> None:
        """Take in what came of another range."""
        self.changed += other.changed
        self.already += other.already
        self.conflicts += other.conflicts
        self.gone += other.gone
        self.samples += other.samples[: MAX_SAMPLES - len(self.samples)]


@dataclass(frozen=True)
class SavedRow:
    """A row's watched columns at the backup: values, writetimes, and when they expire.

    `writetimes` are microseconds since 1970, a list for a column of several cells; `expires` is
    the second since 1970 from which the row's columns are gone, None for never.
    """

    id: str
    key: Cells
    cells: Cells
    writetimes: tuple[Any, ...]
    expires: int | None

    def to_json(self) -> dict[str, Any]:
        """Give the row as one line of a backup."""
        line: dict[str, Any] = {
            "id": self.id,
            "key": cells_to_json(self.key),
            "cells": cells_to_json(self.cells),
            "writetimes": list(self.writetimes),
        }
        if self.expires is not None:
            line["expires"] = self.expires
        return line

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> "SavedRow":
        """Read a line of a backup."""
        return cls(
            id=line["id"],
            key=cells_from_json(line["key"]),
            cells=cells_from_json(line["cells"]),
            writetimes=tuple(line["writetimes"]),
            expires=line.get("expires"),
        )


def planned_rows(plan: PlanFolder, key: str, checksum: str | None = None) -> Iterator[PlannedRow]:
    """Read a range's part of a plan; its checksum stands in the manifest, once there is one.

    Raises:
        PermanentError: the file is not as it was written.
    """
    expected: str = checksum or plan.manifest()["parts"][key]["sha256"]
    for line in read_part(plan.part("plan", key), expected):
        yield PlannedRow.from_json(line)


# -- backup --------------------------------------------------------------------------------------


def back_up_range(
    connection: Connection,
    move: Move,
    shape: TableShape,
    plan: PlanFolder,
    key: str,
    on_retry: Retry,
) -> Part:
    """Save what the rows of a plan hold, unless that was done: a backup is never made twice.

    Made again after a part of the rows was changed, it would hold what the move wrote.
    """
    described = plan.path / "backup" / f"{key}.json"
    if described.exists():
        kept = read_json(described)
        return Part(kept["rows"], kept["sha256"])
    part = write_part(
        plan.part("backup", key),
        (
            saved.to_json()
            for saved in _save(connection, move, shape, planned_rows(plan, key), on_retry)
        ),
    )
    write_json(
        described,
        {
            "rows": part.lines,
            "sha256": part.sha256,
            "table": str(shape.table.name),
            "key": list(shape.table.primary_key),
            "columns": {name: shape.table.type_of(name) for name in shape.watched},
            "made_at": int(time.time()),
        },
    )
    return part


def saved_rows(plan: PlanFolder, key: str) -> Iterator[SavedRow]:
    """Read a range's part of a backup; rows that were gone when it was made are not in it.

    Raises:
        PermanentError: the file is gone or not as it was written.
    """
    described = read_json(plan.path / "backup" / f"{key}.json")
    for line in read_part(plan.part("backup", key), described["sha256"]):
        yield SavedRow.from_json(line)


def _planned_and_saved(plan: PlanFolder, key: str) -> Iterator[tuple[PlannedRow, SavedRow]]:
    """Give the rows of a range's plan that were there at its backup, with what was saved."""
    saved = {row.key: row for row in saved_rows(plan, key)}
    for row in planned_rows(plan, key):
        if row.key in saved:
            yield row, saved[row.key]


def _save(
    connection: Connection,
    move: Move,
    shape: TableShape,
    rows: Iterable[PlannedRow],
    on_retry: Retry,
) -> Iterator[SavedRow]:
    columns = shape.watched
    # Servers before Cassandra 5.0 tell no times of a column of several cells.
    timed = [
        name
        for name in columns
        if shape.table.tells_elements or not shape.type_of(name).is_multicell
    ]
    times = [f"{what}({quote(name)})" for name in timed for what in ("writetime", "ttl")]
    statement = prepare_key_read(connection, shape.table, (*columns, *times), move)
    for row, page in read_rows(
        connection,
        statement,
        ((row, list(row.key)) for row in rows),
        consistency=move.consistency,
        retry_seconds=move.retry_seconds,
        on_retry=on_retry,
    ):
        if not page.row_count:
            continue
        cells = split_cells(page.data, len(columns) + len(times))
        writetimes: dict[str, Any] = {}
        ttls: list[int | None] = []
        for at, name in enumerate(timed):
            writetime, ttl = cells[len(columns) + 2 * at :][:2]
            if cells[columns.index(name)] is None:
                continue
            if shape.type_of(name).is_multicell:
                writetimes[name] = read_writetimes(writetime)
                ttls += _read_ttls(ttl)
            else:
                writetimes[name] = None if writetime is None else int.from_bytes(writetime, "big")
                ttls.append(None if ttl is None else INT32.unpack(ttl)[0])
        lives_for_ever = not ttls or None in ttls
        yield SavedRow(
            id=row.id,
            key=row.key,
            cells=tuple(cells[: len(columns)]),
            writetimes=tuple(writetimes.get(name) for name in columns),
            expires=None
            if lives_for_ever
            else page.asked_us // 1_000_000 + max(ttl for ttl in ttls if ttl is not None),
        )


def _read_ttls(cell: bytes | None) -> list[int | None]:
    """Give the seconds left to a collection's elements, from what ttl() gave."""
    if not cell:
        return []
    (count,) = INT32.unpack_from(cell, 0)
    return [None if ttl is None else INT32.unpack(ttl)[0] for ttl in split_cells(cell[4:], count)]


# -- compare and set -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """One compare-and-set: the columns hold `before`, and shall hold `after`."""

    id: str
    key: Cells
    before: Cells
    after: Cells
    expires: int | None


def apply_range(
    connection: Connection,
    move: Move,
    shape: TableShape,
    plan: PlanFolder,
    key: str,
    on_done: Callable[[int], None],
    on_retry: Retry,
) -> Changes:
    """Change the rows of a range's plan that hold what the plan saw; the others are reported.

    A row keeps the seconds that its columns had left. `on_done` is told of each row.

    Raises:
        PermanentError, TransientError: a row could not be changed; those before it are.
    """
    expires = {saved.key: saved.expires for saved in saved_rows(plan, key) if saved.expires}
    wanted = (
        _Wanted(row.id, row.key, row.before, row.after, expires.get(row.key))
        for row in planned_rows(plan, key)
    )
    return _set_rows(connection, move, shape, wanted, on_done, on_retry)


def restore_range(
    connection: Connection,
    move: Move,
    shape: TableShape,
    plan: PlanFolder,
    key: str,
    on_done: Callable[[int], None],
    on_retry: Retry,
) -> Changes:
    """Put back what was there before in rows that still hold what the move wrote.

    A row was only changed while it held what the plan saw, so that is what it gets back; the
    backup tells which rows there were, and when they expire.
    """
    wanted = (
        _Wanted(row.id, row.key, row.after, row.before, saved.expires)
        for row, saved in _planned_and_saved(plan, key)
    )
    return _set_rows(connection, move, shape, wanted, on_done, on_retry)


def _set_rows(
    connection: Connection,
    move: Move,
    shape: TableShape,
    rows: Iterable[_Wanted],
    on_done: Callable[[int], None],
    on_retry: Retry,
) -> Changes:
    sets = ", ".join(f"{quote(name)} = ?" for name in shape.step.changed)
    key = " AND ".join(f"{quote(name)} = ?" for name in shape.table.primary_key)
    # Also of the column that shows the tenant where it does not change itself.
    conditions = " AND ".join(f"{quote(name)} = ?" for name in shape.watched)
    statement = connection.prepare(
        f"UPDATE {shape.table.name} USING TTL ? SET {sets} WHERE {key} IF {conditions}",  # noqa: S608
        retry_seconds=move.retry_seconds,
    )
    budget = RateBudget(get_context(), rows_per_second=move.rows_per_second)
    changes, doubtful = Changes(), list[_Wanted]()

    def bound() -> Iterator[tuple[_Wanted, list[bytes | None]]]:
        for row in rows:
            budget.take(1)
            after = (row.after[at] for at in shape.changed_at)
            values = [_ttl_cell(row.expires), *after, *row.key, *row.before]
            yield row, values

    for row, page in read_rows(
        connection,
        statement,
        bound(),
        consistency=move.consistency,
        serial_consistency=move.serial_consistency,
        retry_seconds=move.retry_seconds,
        on_retry=on_retry,
        in_flight=CHANGES_IN_FLIGHT,
    ):
        if page.data.startswith(_APPLIED):
            changes.changed += 1
            on_done(1)
        else:
            doubtful.append(row)
        if len(doubtful) >= MAX_DOUBTFUL:
            _settle(connection, move, shape, doubtful, changes, on_done, on_retry)
            doubtful.clear()
    _settle(connection, move, shape, doubtful, changes, on_done, on_retry)
    return changes


def _ttl_cell(expires: int | None) -> bytes:
    """Give the bound TTL: 0 is none, also where the table has a default_time_to_live."""
    return INT32.pack(0 if expires is None else max(1, expires - int(time.time())))


def _settle(
    connection: Connection,
    move: Move,
    shape: TableShape,
    rows: Sequence[_Wanted],
    changes: Changes,
    on_done: Callable[[int], None],
    on_retry: Retry,
) -> None:
    """Let what rows hold say what became of updates that were not carried out."""
    if not rows:
        return
    for row, found in _read_changed(connection, move, shape, rows, on_retry):
        on_done(1)
        if found is None:
            changes.gone += 1
            _sample(changes, f"{row.id} does not exist any more")
        elif found == row.after:
            changes.already += 1
        else:
            changes.conflicts += 1
            _sample(changes, show_held(shape, row.id, found))


def show_held(shape: TableShape, row_id: str, watched: Cells) -> str:
    """Say what a row holds in the columns that a move looks at."""
    held = ", ".join(
        f"{quote(name)} is {shape.sample(name, cell)}"
        for name, cell in zip(shape.watched, watched, strict=True)
    )
    return f"{row_id}: {held}"


def _sample(changes: Changes, text: str) -> None:
    if len(changes.samples) < MAX_SAMPLES:
        changes.samples.append(text if len(text) <= 500 else f"{text[:497]}...")


def _read_changed(
    connection: Connection,
    move: Move,
    shape: TableShape,
    rows: Iterable[Any],
    on_retry: Retry,
) -> Iterator[tuple[Any, Cells | None]]:
    """Read the watched columns of rows as the last conditional update left them."""
    columns = shape.watched
    # The key is selected too: a row whose other columns are all null is there all the same.
    statement = prepare_key_read(
        connection, shape.table, (*shape.table.primary_key, *columns), move
    )
    for row, page in read_rows(
        connection,
        statement,
        ((row, list(row.key)) for row in rows),
        consistency=move.serial_consistency,
        retry_seconds=move.retry_seconds,
        on_retry=on_retry,
    ):
        yield row, _cells_behind_key(shape, page)


def _cells_behind_key(shape: TableShape, page: Page) -> Cells | None:
    if not page.row_count:
        return None
    size = shape.key_size
    return tuple(split_cells(page.data, size + len(shape.watched))[size:])


def count_restored(
    connection: Connection,
    move: Move,
    shape: TableShape,
    plan: PlanFolder,
    key: str,
    on_retry: Retry,
) -> tuple[int, int]:
    """Read what was put back: how many rows hold what they held before, and how many do not."""
    same = other = 0
    rows = (row for row, _ in _planned_and_saved(plan, key))
    for row, found in _read_changed(connection, move, shape, rows, on_retry):
        if found == row.before:
            same += 1
        else:
            other += 1
    return same, other
