"""Whether a range is as its plan wanted it, and everything else as it was.

The digests of the plan tell which buckets of rows are not what they were. In those, each row's
newest writetime tells whether somebody wrote it after the plan was made: on a table that lives,
such rows are named, and stop nothing. A difference that no such write explains is a failure.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from migration_platform.cql.cell_times import read_writetimes
from migration_platform.cql.names import quote
from migration_platform.cql.rows import NULL, join_cells, split_cells
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.tenant.changes import planned_rows, show_held
from migration_platform.tenant.declaration import Move
from migration_platform.tenant.records import PlanFolder, read_part
from migration_platform.tenant.rows import (
    RangeSums,
    bucket_of,
    differing_buckets,
    scan_range,
    sum_range,
)
from migration_platform.tenant.shape import TableShape
from migration_platform.token_ranges import TokenRange

MAX_SAMPLES = 20


@dataclass
class Proof:
    """What a second pass over a range, or over all of them, found.

    Attributes:
        planned: Rows of the plan.
        done: Those that hold what was wanted.
        conflicts: Those that hold something else, or are gone.
        left: Rows that still show the origin and would change; not those that the plan leaves so.
        differing: Buckets in which something else is not as it was.
        written: Rows in them that somebody wrote after the plan was made.
        unexplained: Those of the buckets without such a row.
        accepted: Whether the run that proved it said to go on in spite of `unexplained`.
        new: Rows created after the plan that show the target.
        intruders: Older rows that show the target, did not do so before, and are not in the plan.
    """

    rows: int = 0
    planned: int = 0
    done: int = 0
    conflicts: int = 0
    left: int = 0
    differing: int = 0
    written: int = 0
    unexplained: int = 0
    accepted: bool = False
    new: int = 0
    intruders: int = 0
    left_samples: list[str] = field(default_factory=list)
    conflict_samples: list[str] = field(default_factory=list)
    written_samples: list[str] = field(default_factory=list)
    intruder_samples: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the next step may build on it."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Say what is wrong; empty if nothing is."""
        parts = (
            (self.left, "still showing the origin tenant"),
            (self.planned - self.done, "planned and not as planned"),
            (self.intruders, "showing the target tenant without having been planned"),
        )
        said = [f"rows {what}: {number:,}" for number, what in parts if number]
        if self.unexplained and not self.accepted:
            said.append(
                f"groups of other rows that differ from what they were: {self.unexplained:,} "
                "(accept_changes_by_others: true goes on in spite of them)"
            )
        return ", ".join(said)

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Proof":
        """Read what `to_json` gave."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__ if name in value})

    def add(self, other: "Proof") -> None:
        """Take in the proof of another range."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, list):
                mine += value[: MAX_SAMPLES - len(mine)]
            elif isinstance(value, bool):
                setattr(self, name, mine or value)
            else:
                setattr(self, name, mine + value)


def prove_range(
    connection: Connection,
    move: Move,
    shape: TableShape,
    plan: PlanFolder,
    token_range: TokenRange,
    on_retry: Callable[[BaseException], None],
) -> Proof:
    """Read a range again, and hold it against its plan.

    What an update said of itself is not believed: a cell with a later writetime may outlive it.
    """
    manifest = plan.manifest()
    before = manifest["parts"][token_range.key]
    planned = {join_cells(row.key, NULL): row for row in planned_rows(plan, token_range.key)}
    proof, sums = Proof(planned=len(planned)), RangeSums()
    rows = scan_range(connection, move, shape, token_range, on_retry=on_retry)
    missing = set(planned)
    for found in sum_range(shape, rows, planned.keys(), sums):
        row = planned.get(found.key)
        missing.discard(found.key)
        if row is not None and found.watched == row.after:
            proof.done += 1
        elif row is not None:
            proof.conflicts += 1
            _keep(proof.conflict_samples, show_held(shape, found.id, found.watched))
        if found.would_change and (row is None or found.watched != row.after):
            proof.left += 1
            _keep(proof.left_samples, found.id)
    for key in missing:
        proof.conflicts += 1
        _keep(proof.conflict_samples, f"{planned[key].id} does not exist any more")
    proof.rows = sums.rows
    after = sums.to_json()
    differing = differing_buckets(before["sums"], after["sums"])
    visible = differing_buckets(before["visible"], after["visible"])
    proof.differing = len(differing)
    if differing or visible:
        _look_closer(
            proof,
            _dated_rows(connection, move, shape, token_range, on_retry),
            shape,
            planned.keys(),
            differing,
            visible,
            manifest["made_at_us"],
            frozenset(
                bytes.fromhex(line["key"])
                for line in read_part(
                    plan.part("visible", token_range.key), before["visible_sha256"]
                )
            ),
        )
    return proof


def _keep(samples: list[str], text: str) -> None:
    if len(samples) < MAX_SAMPLES:
        samples.append(text)


@dataclass(frozen=True)
class _DatedRow:
    """A row's bytes and cells, and the writetimes of what a move never touches and of the rest."""

    bucket: int
    key: bytes
    cells: list[bytes | None]
    untouched: tuple[int, ...]
    watched: tuple[int, ...]


def _dated_rows(
    connection: Connection,
    move: Move,
    shape: TableShape,
    token_range: TokenRange,
    on_retry: Callable[[BaseException], None],
) -> Iterator[_DatedRow]:
    def timed(names: tuple[str, ...]) -> list[str]:
        return [
            name
            for name in names
            if shape.table.tells_elements or not shape.type_of(name).is_multicell
        ]

    watched, untouched = timed(shape.watched), timed(shape.untouched)
    times = [f"writetime({quote(name)})" for name in (*watched, *untouched)]
    count = len(shape.columns)
    many = [shape.type_of(name).is_multicell for name in (*watched, *untouched)]
    for row in scan_range(connection, move, shape, token_range, times=times, on_retry=on_retry):
        cells = split_cells(row.data, count + len(times))
        dates = [_dates(cell, several) for cell, several in zip(cells[count:], many, strict=True)]
        yield _DatedRow(
            bucket=bucket_of(shape, row.key),
            key=row.key,
            cells=cells[:count],
            watched=tuple(date for each in dates[: len(watched)] for date in each),
            untouched=tuple(date for each in dates[len(watched) :] for date in each),
        )


def _dates(cell: bytes | None, several: bool) -> list[int]:
    if cell is None:
        return []
    return read_writetimes(cell) if several else [int.from_bytes(cell, "big")]


def _look_closer(
    proof: Proof,
    rows: Iterator[_DatedRow],
    shape: TableShape,
    planned: Collection[bytes],
    differing: frozenset[int],
    visible: frozenset[int],
    made_at_us: int,
    shown_before: frozenset[bytes],
) -> None:
    """Name what was written since the plan in the buckets that are not what they were."""
    id_at = shape.columns.index(shape.id_column)
    explained: set[int] = set()
    for row in rows:
        if row.bucket not in differing and row.bucket not in visible:
            continue
        is_planned = row.key in planned
        shown = shape.sample(shape.id_column, row.cells[id_at])
        dates = row.untouched if is_planned else row.untouched + row.watched
        if row.bucket in differing and max(dates, default=0) > made_at_us:
            explained.add(row.bucket)
            proof.written += 1
            _keep(proof.written_samples, shown)
        if (
            row.bucket in visible
            and not is_planned
            and row.key not in shown_before
            and shape.shows(shape.target, row.cells[shape.select_at])
        ):
            if min(row.untouched + row.watched, default=0) > made_at_us:
                proof.new += 1
            else:
                proof.intruders += 1
                _keep(proof.intruder_samples, shown)
    proof.unexplained = len(differing - explained)
