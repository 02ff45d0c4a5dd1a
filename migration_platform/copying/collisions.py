"""Origin rows that would land on one target row: found before anything is written.

Where the target's key does not keep the origin's rows apart, every key that a copy would write is
gathered in a temporary file, with the row that wins. A copy then asks that file; rows whose key
is not in it are alone.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from migration_platform.copying.transform import Wins
from migration_platform.cql.keys import show_key
from migration_platform.cql.names import quote
from migration_platform.cql.rows import split_cells
from migration_platform.errors import MigrationError, PreflightError
from migration_platform.plan.model import Plan

MAX_SAMPLES = 10

FoundKey = tuple[bytes, bytes, int]
"""Target key, origin key, and the row's newest writetime."""


@dataclass(frozen=True)
class Collisions:
    """How many target rows several origin rows would land on, and some of them."""

    target_rows: int = 0
    origin_rows: int = 0
    samples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.origin_rows:,} origin rows would land on {self.target_rows:,} target rows, "
            f"such as {'; '.join(self.samples[:3])}"
        )


class KeyFile:
    """The temporary file in which the keys of all ranges are gathered."""

    def __init__(self, path: Path, plan: Plan):
        self._plan = plan
        self._database = sqlite3.connect(path, isolation_level=None)
        # The file lives for one run only; nothing needs to survive a crash.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE keys (key BLOB PRIMARY KEY, origin BLOB, writetime INTEGER, "
            "loser BLOB, count INTEGER) WITHOUT ROWID"
        )
        better = "<" if plan.migration.collisions == "oldest" else ">"
        wins = (
            f"excluded.writetime {better} writetime "
            "OR (excluded.writetime = writetime AND excluded.origin > origin)"
        )
        self._insert = (
            "INSERT INTO keys VALUES (?, ?, ?, NULL, 1) ON CONFLICT (key) DO UPDATE SET "  # noqa: S608
            f"count = count + 1, loser = CASE WHEN {wins} THEN origin ELSE excluded.origin END, "
            f"origin = CASE WHEN {wins} THEN excluded.origin ELSE origin END, "
            f"writetime = CASE WHEN {wins} THEN excluded.writetime ELSE writetime END"
        )

    def add(self, keys: list[FoundKey]) -> None:
        """Take in the keys of some rows.

        Raises:
            MigrationError: the disk is full.
        """
        try:
            self._database.execute("BEGIN")
            self._database.executemany(self._insert, keys)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise MigrationError(f"collisions could not be looked for: {error}") from error

    def judge(self) -> Collisions:
        """Keep the keys that several rows have, and count them."""
        execute = self._database.execute
        execute("DELETE FROM keys WHERE count = 1")
        target_rows, origin_rows = execute(
            "SELECT count(*), coalesce(sum(count), 0) FROM keys"
        ).fetchone()
        samples = execute(
            f"SELECT key, origin, loser, count FROM keys ORDER BY key LIMIT {MAX_SAMPLES}"  # noqa: S608
        ).fetchall()
        shown = tuple(_show(self._plan, *sample) for sample in samples)
        return Collisions(target_rows, origin_rows, shown)

    def close(self) -> None:
        """Close the file; it stays until its folder goes."""
        self._database.close()


def refuse_collisions(plan: Plan, found: Collisions) -> None:
    """Refuse rows that would overwrite each other, unless it is said which one wins.

    Raises:
        PreflightError: there are some, and `collisions` is refuse.
    """
    if found.target_rows and plan.migration.collisions == "refuse":
        lost = ", ".join(map(quote, plan.lost_keys))
        raise PreflightError(
            f"{plan.migration.name} cannot be migrated: its key does not keep apart what differs "
            f"in {lost} only: {found}; add {lost} to the target's key, or say with collisions: "
            "newest (or oldest) which row wins"
        )


def open_winners(path: str) -> Wins:
    """Open the file of keys that several rows have, to ask whether a row is the winner."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    select = "SELECT origin FROM keys WHERE key = ?"

    def wins(target_key: bytes, origin_key: bytes) -> bool:
        found = database.execute(select, (target_key,)).fetchone()
        return found is None or found[0] == origin_key

    return wins


def _show(plan: Plan, key: bytes, origin: bytes, loser: bytes, count: int) -> str:
    there = [(name, plan.target.type_of(name)) for name in plan.target.primary_key]
    here = [(name, plan.origin.type_of(name)) for name in plan.origin.primary_key]
    entry = [source for source in plan.rows.sources if source.kind == "map_key"]
    here += [(source.origin, source.origin_type) for source in entry]

    def show(columns: list[tuple[str, str]], cells: bytes) -> str:
        values = split_cells(cells, len(columns))
        return show_key([(*column, value) for column, value in zip(columns, values, strict=True)])

    more = f" and {count - 2:,} more" if count > 2 else ""
    return f"({show(there, key)}) from ({show(here, origin)}), ({show(here, loser)}){more}"
