"""Rows of both sides that may differ, in a file: they may be too many for memory."""

import sqlite3
from pathlib import Path

from migration_platform.comparing.compared_rows import SIDES, loosely_agree
from migration_platform.comparing.digest import ListedRow
from migration_platform.comparing.rechecks import Kind
from migration_platform.cql.rows import count_cells

KINDS: tuple[Kind, ...] = ("missing", "mismatched", "extra", "other_form")
_ONLY_IN = (
    "{0} AS a WHERE a.range_index = ? AND NOT EXISTS (SELECT 1 FROM {1} AS b WHERE b.key = a.key)"
)
_IN_BOTH = "origin AS a JOIN target AS b ON b.key = a.key WHERE a.range_index = ? AND "
_OF_KIND = {
    "missing": _ONLY_IN.format("origin", "target"),
    "extra": _ONLY_IN.format("target", "origin"),
    "mismatched": f"{_IN_BOTH} (a.digest != b.digest OR NOT loosely_agree(a.loose, b.loose))",
    "other_form": f"{_IN_BOTH} a.digest = b.digest AND loosely_agree(a.loose, b.loose) "
    "AND a.form != b.form",
}


class RowFile:
    """Keys and digests of both sides, by range, in a temporary database."""

    def __init__(self, path: Path, row_key_cells: int):
        self._database = sqlite3.connect(path, isolation_level=None)
        # The file lives for one comparison only; nothing needs to survive a crash.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.create_function("loosely_agree", 2, loosely_agree, deterministic=True)
        for side in SIDES:
            self._database.execute(
                f"CREATE TABLE {side} (range_index INTEGER, key BLOB PRIMARY KEY, digest BLOB, "
                "loose BLOB, form BLOB) WITHOUT ROWID"
            )
        self._database.create_function(
            "is_row", 1, lambda key: count_cells(key) == row_key_cells, deterministic=True
        )
        self._indexed = False

    def add(self, side: str, rows: list[ListedRow]) -> None:
        """Keep rows of one side; of several rows with one key the last is kept."""
        assert side in SIDES
        self._database.execute("BEGIN")
        self._database.executemany(f"INSERT OR REPLACE INTO {side} VALUES (?, ?, ?, ?, ?)", rows)  # noqa: S608
        self._database.execute("COMMIT")

    def count(self, kind: Kind, index: int) -> tuple[int, int]:
        """Count the differences of one kind in a range, and how many of them are rows."""
        query = f"SELECT count(*), total(is_row(a.key)) FROM {_OF_KIND[kind]}"  # noqa: S608
        return self._ask(query, index)[0]

    def keys(self, kind: Kind, index: int, limit: int, after: bytes = b"") -> list[bytes]:
        """Give keys of the differences of one kind in a range, in order, those behind `after`."""
        query = f"SELECT a.key FROM {_OF_KIND[kind]} AND a.key > ? ORDER BY a.key LIMIT {limit:d}"  # noqa: S608
        return [key for (key,) in self._ask(query, index, after)]

    def _ask(self, query: str, *values: int | bytes) -> list[tuple]:
        if not self._indexed:
            self._indexed = True
            for side in SIDES:
                self._database.execute(f"CREATE INDEX {side}_by_range ON {side} (range_index)")
        return self._database.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file; it is not needed any more."""
        self._database.close()
