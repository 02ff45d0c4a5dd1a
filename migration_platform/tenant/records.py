"""What a move leaves in its folder: plans, backups, and what came of them. Files are the truth.

    <folder>/<id file>                      ids of the newest plan, one a line
    <folder>/<step>/<plan id>/plan.json     counts, digests, checksums; written last, so a plan
                                            without it is none
                              preview.csv   before and after, for people
                              plan/         a part for each range: a row of JSON a line
                              visible/      likewise: what showed the target before
                              backup/       likewise, with manifest.json and SHA256SUMS
                              applied/ verified/ rolled_back/
                                            what came of each range

A file appears whole or not at all, and is on the disk before anything is written to a store that
relies on it. Runs on several machines share the folder.
"""

import csv
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EACCES, EDQUOT, EFBIG, EIO, EISDIR, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from migration_platform.errors import DeclarationError, PermanentError

Outcome = str
APPLIED, VERIFIED, ROLLED_BACK = "applied", "verified", "rolled_back"
ALL = "all"
"""The one part of a step that has no token ranges."""
_MANIFEST = "plan.json"
_OF_DISKS = (EACCES, EDQUOT, EFBIG, EIO, EISDIR, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS)


@dataclass(frozen=True)
class Part:
    """One file of lines that was written: how many, and its checksum."""

    lines: int
    sha256: str


@dataclass(frozen=True)
class PlanFolder:
    """A plan of one step; its name says when it was made, so that names sort as plans do."""

    path: Path

    @property
    def plan_id(self) -> str:
        """The plan's name."""
        return self.path.name

    def manifest(self) -> dict[str, Any]:
        """Read what the whole plan says.

        Raises:
            PermanentError: it is not what was written.
        """
        path = self.path / _MANIFEST
        try:
            found = path.stat()
        except OSError as error:
            raise PermanentError(
                f"cannot read {path}: {error.strerror}; make a new plan"
            ) from error
        return _read_manifest(path, found.st_mtime_ns, found.st_size)

    @property
    def keys(self) -> tuple[str, ...]:
        """The parts of the plan, in order."""
        return tuple(sorted(self.manifest()["parts"]))

    def write_manifest(self, value: Mapping[str, Any]) -> None:
        """Make the plan complete."""
        write_json(self.path / _MANIFEST, value)

    def part(self, kind: str, key: str) -> Path:
        """Give the file of a range's lines: `kind` is plan, visible or backup."""
        return self.path / kind / f"{key}.jsonl"

    def outcome(self, what: Outcome, key: str) -> dict[str, Any] | None:
        """Read what came of a range; None if nothing did yet."""
        path = self.path / what / f"{key}.json"
        return read_json(path) if path.exists() else None

    def outcomes(self, what: Outcome) -> dict[str, dict[str, Any]]:
        """Read what came of the ranges of which something did."""
        found = ((key, self.outcome(what, key)) for key in self.keys)
        return {key: value for key, value in found if value is not None}

    def note(self, what: Outcome, key: str, value: Mapping[str, Any]) -> None:
        """Keep what came of a range, and when."""
        at_us = time.time_ns() // 1000
        write_json(self.path / what / f"{key}.json", {"at_us": at_us, **value})

    def has_backup(self, key: str) -> bool:
        """Say whether a range was saved."""
        return (self.path / "backup" / f"{key}.json").exists()

    def forget(self, what: Outcome, key: str) -> None:
        """Take back what came of a range, which is no longer so."""
        (self.path / what / f"{key}.json").unlink(missing_ok=True)


@lru_cache(maxsize=32)
def _read_manifest(path: Path, mtime_ns: int, size: int) -> dict[str, Any]:
    """Read a manifest once for as long as it stays: it holds the digests of every range."""
    found = read_json(path)
    if not {"planned", "fingerprint", "parts"} <= found.keys():
        raise PermanentError(f"{path} is no plan; make a new one")
    return found


def new_plan(folder: Path, step: str) -> PlanFolder:
    """Give a plan its folder."""
    while True:
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        path = folder / step / name
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _unwritable(folder, error) from error
        return PlanFolder(path)


def _unwritable(folder: Path, error: OSError) -> DeclarationError:
    return DeclarationError(
        f"cannot write to the move's folder {folder}: {error.strerror}; correct that, or name "
        "another in `folder`"
    )


def plans_of(folder: Path, step: str) -> list[PlanFolder]:
    """Give the complete plans of a step, the oldest first."""
    home = folder / step
    if not home.is_dir():
        return []
    return [PlanFolder(path) for path in sorted(home.iterdir()) if (path / _MANIFEST).is_file()]


def newest_plan(folder: Path, step: str) -> PlanFolder | None:
    """Give the newest complete plan of a step."""
    plans = plans_of(folder, step)
    return plans[-1] if plans else None


@contextmanager
def sole_writer(folder: Path, step: str) -> Iterator[None]:
    """Let one run at a time plan, apply or roll back a step; it ends with the process, too.

    Raises:
        DeclarationError: another run is at it.
    """
    home = folder / step
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / ".lock").open("a")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except OSError:
            raise DeclarationError(
                f"another run works on the step {step} of this move now; wait until it has ended"
            ) from None
        yield


# -- files ---------------------------------------------------------------------------------------


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """Write a file that appears when it is complete, and is on the disk then.

    Raises:
        PermanentError: it cannot be written, as when the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=path.parent, prefix=".", delete=False
        ) as file:
            try:
                yield file.file
                file.flush()
                os.fsync(file.fileno())
                # A temporary file is private; this one is for all who may see the folder.
                os.chmod(file.name, 0o640)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in _OF_DISKS:
            raise PermanentError(
                f"cannot write {path}: {error.strerror}; correct that, and run the step again"
            ) from error
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object."""
    with whole_file(path) as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object.

    Raises:
        PermanentError: the file is none of ours.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PermanentError(f"cannot read {path}: {error}; make a new plan") from error
    if not isinstance(value, dict):
        raise PermanentError(f"{path} holds no object; make a new plan")
    return value


class PartWriter:
    """Lines of JSON on their way into a file, with their checksum so far."""

    def __init__(self, file: IO[str]):
        self._file, self._hashed, self._lines = file, sha256(), 0

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line."""
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n"
        self._hashed.update(text.encode())
        self._file.write(text)
        self._lines += 1

    @property
    def part(self) -> Part:
        """What was written so far."""
        return Part(self._lines, self._hashed.hexdigest())


@contextmanager
def part_writer(path: Path) -> Iterator[PartWriter]:
    """Write a part; the file is whole or not there."""
    with whole_file(path) as file:
        yield PartWriter(file)


def write_part(path: Path, lines: Iterable[Mapping[str, Any]]) -> Part:
    """Write lines of JSON, and give their checksum."""
    with part_writer(path) as writer:
        for line in lines:
            writer.write(line)
    return writer.part


def read_part(path: Path, checksum: str) -> Iterator[dict[str, Any]]:
    """Give the lines of a part that is as it was written.

    Raises:
        PermanentError: the file is gone or was changed.
    """
    hashed = sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                hashed.update(chunk)
        if hashed.hexdigest() != checksum:
            raise PermanentError(
                f"{path} is not as it was written: its sha256 is {hashed.hexdigest()}, and was "
                f"{checksum}; nothing was done with it"
            )
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except OSError as error:
        raise PermanentError(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def table_file(path: Path, header: Sequence[str]) -> Iterator[Callable[[Sequence[str]], Any]]:
    """Write a table for people as CSV; gives the function that adds a row."""
    with whole_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        yield writer.writerow


def seal_backup(plan: PlanFolder) -> None:
    """Write the manifest of what is backed up so far, and a list that `sha256sum -c` checks."""
    parts = {
        path.stem: read_json(path)
        for path in sorted((plan.path / "backup").glob("*.json"))
        if path.name != "manifest.json"
    }
    write_json(plan.path / "backup" / "manifest.json", {"plan": plan.plan_id, "parts": parts})
    with whole_file(plan.path / "backup" / "SHA256SUMS") as file:
        for key, part in parts.items():
            file.write(f"{part['sha256']}  {key}.jsonl\n")
