"""The folder of a report: nothing of anybody else in it is ever overwritten.

Files get their names when all of them are whole, so that a report is never half an old one.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from migration_platform.errors import DeclarationError

SUMMARY, MACHINE = "summary.md", "summary.json"
DIFFERING, REJECTED = "differing_keys.csv", "rejected_rows.csv"
FILES = (SUMMARY, MACHINE, DIFFERING, REJECTED)
MARK = "migration_platform report"
"""What the JSON of every report says that it is."""
_UNFINISHED = ".unfinished"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the begin of a formula."""


class Folder:
    """The files of one report; they are there once `finish` was called."""

    def __init__(self, path: Path):
        refuse_foreign(path)
        self.path = path
        self.written: list[str] = []
        self._made = not path.exists()

    def __enter__(self) -> "Folder":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for name in FILES:
            (self.path / f"{name}{_UNFINISHED}").unlink(missing_ok=True)
        if error is not None and self._made:
            # Only if nothing is in it.
            with suppress(OSError):
                self.path.rmdir()
        if isinstance(error, OSError):
            raise _unusable(self.path, error) from error

    @contextmanager
    def rows(self, name: str, header: Sequence[str]) -> Iterator["Rows"]:
        """Open a file of rows; it is written as they come."""
        with (self.path / f"{name}{_UNFINISHED}").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            yield Rows(writer)
        self.written.append(name)

    def text(self, name: str, content: str) -> None:
        """Write a file of text."""
        (self.path / f"{name}{_UNFINISHED}").write_text(content, encoding="utf-8")
        self.written.append(name)

    def finish(self) -> None:
        """Give the files their names; those of an earlier report that have no heir are removed."""
        for name in FILES:
            if name in self.written:
                os.replace(self.path / f"{name}{_UNFINISHED}", self.path / name)
            else:
                (self.path / name).unlink(missing_ok=True)


class Rows:
    """The rows of a file for spreadsheets and programs."""

    def __init__(self, writer: Any):
        self._writer = writer

    def add(self, *cells: str | int) -> None:
        """Write a row: of a text that would be a formula the first character is an apostrophe."""
        self._writer.writerow(
            [_harmless(cell) if isinstance(cell, str) else cell for cell in cells]
        )


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def refuse_foreign(path: Path) -> None:
    """Refuse a folder with anything in it but an earlier report.

    Raises:
        DeclarationError: there is something else.
    """
    try:
        found = {each.name for each in path.iterdir()} if path.exists() else set()
    except OSError as error:
        raise _unusable(path, error) from error
    own = {f"{name}{_UNFINISHED}" for name in FILES} | set(FILES if _is_report(path) else ())
    if foreign := sorted(found - own):
        raise DeclarationError(
            f"the folder {path} is not empty, and {foreign[0]} in it is of no report of this "
            "program; name another folder, or a new one"
        )


def _is_report(path: Path) -> bool:
    with suppress(OSError, ValueError):
        content = json.loads((path / MACHINE).read_text("utf-8"))
        return isinstance(content, dict) and content.get("report") == MARK
    return False


def _unusable(path: Path, error: OSError) -> DeclarationError:
    return DeclarationError(f"the folder {path} cannot be written: {error.strerror or error}")
