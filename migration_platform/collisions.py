"""Origin rows that would land on one target row: found before anything is written.

Where the target's key does not keep the origin's rows apart, every key that a copy would write is
gathered in a temporary file, with the row that wins. A copy then asks that file; rows whose key
is not in it are alone.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from migration_platform.cell_times import read_row_time
from migration_platform.errors import MigrationError, PreflightError
from migration_platform.preflight import Plan
from migration_platform.rows import NULL, split_cells
from migration_platform.stores.cassandra import prepare_range_read, read_pages
from migration_platform.token_ranges import TokenRange
from migration_platform.transform import Tally, Wins, compile_rows, show_key
from migration_platform.workers import Done, Failed, OpenStores, Report, Reported, WorkerPool

MAX_SAMPLES = 10

Found = list[tuple[bytes, bytes, int]]
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


@dataclass(frozen=True)
class ScanKeys:
    """The task of reporting the keys that a copy of one range would write."""

    token_range: TokenRange

    def run(self, stores: OpenStores, report: Report) -> int:
        """Scan the range; keys are reported page by page, and counted.

        Raises:
            MigrationError: a page could not be read, or a row cannot be converted.
        """
        plan, migration = stores.plan, stores.plan.migration
        window = migration.filter.window(self.token_range)
        if window is None:
            return 0
        keys: list[tuple[bytes, bytes]] = []

        def note(target_key: bytes, origin_key: bytes) -> bool:
            keys.append((target_key, origin_key))
            return True

        sources = plan.rows.ordered(plan.target.primary_key)
        reader = compile_rows(plan, plan.rows, sources, 0, null=NULL, wins=note)
        select = prepare_range_read(
            stores.origin,
            plan.origin,
            reader.columns,
            times=reader.times.selections(),
            where=migration.filter.where,
            retry_seconds=migration.retry_seconds,
        )
        count = 0
        for page in read_pages(
            stores.origin,
            select,
            window,
            consistency=migration.origin.consistency,
            fetch_size=migration.origin.fetch_size,
            budget=stores.origin_budget,
            retry_seconds=migration.retry_seconds,
            on_retry=lambda _: None,
        ):
            found: Found = []
            for _, _, times, _ in reader.rows(page, Tally()):
                # A row whose writetime no query tells is older than every other.
                newest = read_row_time(times, 0)[0] or 0
                found.append((*keys[-1], newest))
            keys.clear()
            count += len(found)
            report(found)
        return count


def find_collisions(
    pool: WorkerPool,
    plan: Plan,
    path: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Collisions:
    """Gather the keys of all ranges in the file at `path`, and keep those that several rows have.

    All ranges, because rows of a range that is copied later may land on a row of this one.

    Raises:
        MigrationError: a range could not be scanned, or the disk is full.
    """
    database = sqlite3.connect(path, isolation_level=None)
    try:
        # The file lives for one run only; nothing needs to survive a crash.
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(
            "CREATE TABLE keys (key BLOB PRIMARY KEY, origin BLOB, writetime INTEGER, "
            "loser BLOB, count INTEGER) WITHOUT ROWID"
        )
        better = "<" if plan.migration.collisions == "oldest" else ">"
        wins = (
            f"excluded.writetime {better} writetime "
            "OR (excluded.writetime = writetime AND excluded.origin > origin)"
        )
        insert = (
            "INSERT INTO keys VALUES (?, ?, ?, NULL, 1) ON CONFLICT (key) DO UPDATE SET "  # noqa: S608
            f"count = count + 1, loser = CASE WHEN {wins} THEN origin ELSE excluded.origin END, "
            f"origin = CASE WHEN {wins} THEN excluded.origin ELSE origin END, "
            f"writetime = CASE WHEN {wins} THEN excluded.writetime ELSE writetime END"
        )
        tasks = [ScanKeys(token_range) for token_range in plan.migration.ranges]
        done = 0
        for event in pool.run(tasks):
            if isinstance(event, Reported):
                database.execute("BEGIN")
                database.executemany(insert, event.value)
                database.execute("COMMIT")
            elif isinstance(event, Failed):
                raise MigrationError(
                    f"collisions could not be looked for in {event.task.token_range.key}: "
                    f"{event.reason}"
                )
            elif isinstance(event, Done):
                done += 1
                on_progress(done, len(tasks))
        database.execute("DELETE FROM keys WHERE count = 1")
        target_rows, origin_rows = database.execute(
            "SELECT count(*), coalesce(sum(count), 0) FROM keys"
        ).fetchone()
        samples = database.execute(
            f"SELECT key, origin, loser, count FROM keys ORDER BY key LIMIT {MAX_SAMPLES}"  # noqa: S608
        ).fetchall()
        return Collisions(
            target_rows, origin_rows, tuple(_show(plan, *sample) for sample in samples)
        )
    except sqlite3.Error as error:
        raise MigrationError(f"collisions could not be looked for: {error}") from error
    finally:
        database.close()


def refuse_collisions(plan: Plan, found: Collisions) -> None:
    """Refuse rows that would overwrite each other, unless it is said which one wins.

    Raises:
        PreflightError: there are some, and `collisions` is refuse.
    """
    if found.target_rows and plan.migration.collisions == "refuse":
        lost = ", ".join(plan.lost_keys)
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
    def show(table, names: tuple[str, ...], cells: bytes) -> str:
        values = split_cells(cells, len(names))
        typed = zip(names, values, strict=True)
        return show_key([(name, table.type_of(name), value) for name, value in typed])

    winner, other = (show(plan.origin, plan.origin.primary_key, cells) for cells in (origin, loser))
    more = f" and {count - 2:,} more" if count > 2 else ""
    return f"({show(plan.target, plan.target.primary_key, key)}) from ({winner}), ({other}){more}"
