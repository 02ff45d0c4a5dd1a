"""Rate and pause of a migration, changed by an operator while its runs go on.

What is set stands in the table `run_control` and holds for every run of the migration until it is
set back. A run looks at it every second; in between, and when it cannot be read, the last known
state holds.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from migration_platform.declaration.migration import (
    MAX_BYTES_PER_SECOND,
    MAX_ROWS_PER_SECOND,
    Migration,
)
from migration_platform.errors import DeclarationError, explain
from migration_platform.pacing.rate import RateBudget
from migration_platform.runs.tracking import TrackedRun, migration_key
from migration_platform.runs.tracking_tables import STATEMENT_SECONDS, TrackingTables, tables_of
from migration_platform.stores.records import Records, TableForm

LOOK_SECONDS = 1.0
WAIT_SECONDS = 0.1
TOUCH_SECONDS = 3.0
"""How often a run notes that it is alive; one that was not seen for minutes is not."""

LIMITS = {
    "origin_rows": MAX_ROWS_PER_SECOND,
    "target_rows": MAX_ROWS_PER_SECOND,
    "origin_bytes": MAX_BYTES_PER_SECOND,
    "target_bytes": MAX_BYTES_PER_SECOND,
}
"""What can be set, rows and bytes a second, and the most that makes sense."""
_TABLE = "run_control"
CONTROL_TABLES = {
    _TABLE: TableForm(
        {
            "migration": "text",
            **dict.fromkeys(LIMITS, "bigint"),
            "paused": "boolean",
            "paused_at": "timestamp",
            "changed_at": "timestamp",
        },
        "migration",
    )
}


@dataclass(frozen=True)
class Control:
    """What an operator has set; a limit of None is the declared one."""

    origin_rows: int | None = None
    target_rows: int | None = None
    origin_bytes: int | None = None
    target_bytes: int | None = None
    paused: bool = False
    paused_at: datetime | None = None

    @property
    def limits(self) -> dict[str, int]:
        """The limits that are set."""
        found = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in found.items() if value is not None}


def read_control(
    tables: TrackingTables, migration: Migration, *, retry_seconds: float | None = None
) -> Control:
    """Read what is set for a migration.

    Raises:
        MigrationError: the table cannot be read.
    """
    rows = tables.read(_TABLE, retry_seconds=retry_seconds, migration=migration_key(migration))
    if not rows:
        return Control()
    row = rows[0]
    return Control(
        **{name: row[name] for name in LIMITS},
        paused=bool(row["paused"]),
        # Tables of an earlier version have no such column until something is set.
        paused_at=row.get("paused_at"),
    )


def find_tables(connection: Records, migration: Migration) -> TrackingTables | None:
    """Give the tables in which something may be set, without making them."""
    known: Any = connection.cluster.metadata
    keyspace = known.keyspaces.get(migration.tracking_keyspace)
    if not migration.tracking or keyspace is None or _TABLE not in keyspace.tables:
        return None
    return tables_of(connection, migration, migration.retry_seconds)


def set_limits(tables: TrackingTables, migration: Migration, limits: dict[str, int | None]) -> None:
    """Set limits, or with None set them back to what is declared; the others stay.

    Raises:
        DeclarationError: a limit makes no sense.
        MigrationError: the table cannot be written.
    """
    for name, value in limits.items():
        if value is not None and not 1 <= value <= LIMITS[name]:
            option = f"--{name.replace('_', '-')}"
            raise DeclarationError(f"{option} is {value}; valid are 1 to {LIMITS[name]}")
    _write(tables, migration, **limits)


def set_paused(tables: TrackingTables, migration: Migration, *, paused: bool) -> None:
    """Let the migration's runs wait, or go on.

    Raises:
        MigrationError: the table cannot be written.
    """
    _write(tables, migration, paused=paused, paused_at=datetime.now(UTC) if paused else None)


def _write(tables: TrackingTables, migration: Migration, **values: Any) -> None:
    tables.write_now(
        _TABLE, migration=migration_key(migration), changed_at=datetime.now(UTC), **values
    )


def apply_control(
    control: Control,
    migration: Migration,
    origin: RateBudget,
    target: RateBudget,
    *others: RateBudget,
) -> None:
    """Let a run's budgets be what is set, or else declared; of `others` only a pause is set."""
    for side, endpoint, budget in (
        ("origin", migration.origin, origin),
        ("target", migration.target, target),
    ):
        rows = getattr(control, f"{side}_rows") or endpoint.rows_per_second
        size = getattr(control, f"{side}_bytes") or endpoint.size_per_second
        if (rows, size) != (budget.rows_per_second, budget.size_per_second):
            budget.set_limits(rows, size)
    for budget in (origin, target, *others):
        if control.paused and not budget.paused:
            budget.pause()
        elif budget.paused and not control.paused:
            budget.go_on()


def describe_control(control: Control, migration: Migration) -> str:
    """Say at which rate the migration's runs work, and whether they are paused."""
    origin, target = migration.origin, migration.target
    declared = (
        ("origin_rows", "origin", "rows", origin.rows_per_second),
        ("target_rows", "target", "rows", target.rows_per_second),
        ("origin_bytes", "origin", origin.size_unit, origin.size_per_second),
        ("target_bytes", "target", target.size_unit, target.size_per_second),
    )
    told = []
    for name, side, unit, limit in declared:
        if name in control.limits:
            told.append(f"{side} {control.limits[name]:,} {unit}/s (set)")
        elif limit:
            told.append(f"{side} {limit:,} {unit}/s (declared)")
    rate = ", ".join(told) or "no limit"
    return f"{'paused; ' if control.paused else ''}rate: {rate}"


class Watch:
    """Looks every second at what is set, and notes every few that the run is alive.

    A thread of its own, because a run that is paused has nothing else to wake it.
    """

    def __init__(
        self,
        tables: TrackingTables,
        migration: Migration,
        budgets: Sequence[RateBudget],
        say: Callable[[str], None],
    ):
        self.run: TrackedRun | None = None
        self._tables = tables
        self._migration = migration
        self._budgets = budgets
        self._say = say
        self._known = Control()
        self._complained = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        # Before anything is read: a run that starts while paused copies nothing. What cannot be
        # read now fails the run; it would be taken for "not paused".
        self._read(self._tables.retry_seconds)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # A server that hangs must not keep a run from its end.
        self._thread.join(STATEMENT_SECONDS)

    def wait_while_paused(self) -> None:
        """Wait for the end of a pause, before something that no budget holds back."""
        while self._known.paused:
            time.sleep(WAIT_SECONDS)

    def _watch(self) -> None:
        looks = 0
        while not self._ended.wait(LOOK_SECONDS):
            looks += 1
            self._look()
            run = self.run
            if run is not None and looks % round(TOUCH_SECONDS / LOOK_SECONDS) == 0:
                self._attempt(run.touch)

    def _look(self) -> None:
        self._attempt(self._read)

    def _read(self, retry_seconds: float = 0.0) -> None:
        control = read_control(self._tables, self._migration, retry_seconds=retry_seconds)
        known, self._known = self._known, control
        origin, target, *others = self._budgets
        apply_control(control, self._migration, origin, target, *others)
        if control.paused != known.paused:
            # A pause that was written by CQL may have no time.
            since = f" since {control.paused_at:%Y-%m-%d %H:%M:%S} UTC" if control.paused_at else ""
            self._say(
                f"Paused{since}: nothing is read or written until "
                f"`migration-platform continue {self._migration.name}`"
                if control.paused
                else "The pause is over; going on where it was."
            )
        if control.limits != known.limits:
            self._say(f"Now {describe_control(control, self._migration)}")

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do something that may fail: the last known state holds, and the run goes on."""
        try:
            action()
        except Exception as error:
            # Whatever it is: a thread that died of it would never end a pause.
            told, self._complained = self._complained, True
            if not told:
                with suppress(Exception):
                    self._say(
                        "Rate and pause stay as they are, because they cannot be read: "
                        f"{explain(error)}"
                    )
        else:
            self._complained = False
