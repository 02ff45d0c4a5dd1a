"""What a comparison found: of single rows, and of a whole range, before and after its repair."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from migration_platform.token_ranges import TokenRange

MAX_SAMPLES = 20

Status = Literal["PASS", "DIFF", "DIFF_CORRECTED", "FAIL"]


@dataclass(frozen=True)
class DifferingRow:
    """A row that differs: its key as CQL would show it, and the columns that do.

    `cells` are the values of its key. `changes` name a column and what both sides hold there, as
    far as that can be shown in short.
    """

    key: str
    columns: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    changes: tuple[tuple[str, str | None, str | None], ...] = ()
    corrected: bool = False

    def __str__(self) -> str:
        return f"{self.key}: {', '.join(self.columns)}" if self.columns else self.key


@dataclass(frozen=True)
class Findings:
    """What was found of some rows; those of several rows add up with `+`.

    `missing`, `extra` and `mismatched` are what was found, `corrected_*` how much of it a repair
    corrected. `defeated` rows were repaired in vain: the target holds what is newer. `kept` rows
    are extra, but the origin has them: a filter leaves them out, or the target has them a second
    time under a key that the origin takes for the same. So none of them is deleted. `other_form`
    rows hold the same values in other bytes, in a key or in elements; they are no difference,
    unless forms are compared: then they are among what is `mismatched`, too.
    `ignored_newer` rows were written too shortly before to be judged; `skipped` are those of them
    that the origin has. `statics` are static cells among what is missing or mismatched, and
    `lacking` and `surplus` the rows that only one side has in the end. `unchecked` differences
    were found by the scans alone, and not looked at again.
    """

    missing: int = 0
    extra: int = 0
    mismatched: int = 0
    corrected_missing: int = 0
    corrected_extra: int = 0
    corrected_mismatched: int = 0
    defeated: int = 0
    kept: int = 0
    ignored_newer: int = 0
    skipped: int = 0
    statics: int = 0
    lacking: int = 0
    surplus: int = 0
    unchecked: int = 0
    other_form: int = 0
    missing_rows: tuple[DifferingRow, ...] = ()
    extra_rows: tuple[DifferingRow, ...] = ()
    mismatched_rows: tuple[DifferingRow, ...] = ()
    defeated_rows: tuple[DifferingRow, ...] = ()
    kept_rows: tuple[DifferingRow, ...] = ()
    other_form_rows: tuple[DifferingRow, ...] = ()

    def __add__(self, other: "Findings") -> "Findings":
        added = {}
        for name in (each.name for each in fields(Findings)):
            mine = getattr(self, name)
            both = mine + getattr(other, name)
            added[name] = both[:MAX_SAMPLES] if isinstance(mine, tuple) else both
        return Findings(**added)

    @property
    def found(self) -> int:
        """How many rows differed."""
        return self.missing + self.extra + self.mismatched

    def left(self, kind: str) -> int:
        """How many rows that differed in one way still do."""
        return getattr(self, kind) - getattr(self, f"corrected_{kind}")

    @property
    def corrected(self) -> int:
        """How many of them were repaired."""
        return self.corrected_missing + self.corrected_extra + self.corrected_mismatched


@dataclass(frozen=True)
class ValidationCounts:
    """A range's counts as the Data Migrator's tables have them, extra rows beside.

    `read` rows are valid, mismatched, missing, skipped or in error. Static cells that differ
    count like rows of their own.
    """

    read: int = 0
    mismatched: int = 0
    corrected_mismatched: int = 0
    missing: int = 0
    corrected_missing: int = 0
    valid: int = 0
    skipped: int = 0
    error: int = 0
    extra: int = 0
    corrected_extra: int = 0


@dataclass(frozen=True, kw_only=True)
class RangeVerdict(Findings):
    """What the comparison of one range found; `error` says why there is no verdict.

    `target_rows` are those after the repair.
    """

    token_range: TokenRange
    origin_rows: int = 0
    target_rows: int = 0
    error: str = ""

    @property
    def matches(self) -> bool:
        """Whether both tables hold the same rows in this range, now if not before."""
        return not self.error and self.found == self.corrected

    @property
    def status(self) -> Status:
        """The state that a tracked range gets."""
        if self.error:
            return "FAIL"
        if not self.matches:
            return "DIFF"
        return "DIFF_CORRECTED" if self.found else "PASS"

    @property
    def counts(self) -> ValidationCounts:
        """The counts of a tracked range; a range without a verdict has none."""
        if self.error:
            return ValidationCounts()
        read = self.origin_rows + self.statics
        return ValidationCounts(
            read=read,
            mismatched=self.mismatched,
            corrected_mismatched=self.corrected_mismatched,
            missing=self.missing,
            corrected_missing=self.corrected_missing,
            valid=read - self.mismatched - self.missing - self.skipped,
            skipped=self.skipped,
            extra=self.extra,
            corrected_extra=self.corrected_extra,
        )


def difference_lines(verdict: Findings) -> Iterator[str]:
    """Give the log lines of a verdict's samples, in the Data Migrator's words."""
    for row in verdict.missing_rows:
        yield f"Missing target row found for key: {_key(row)}"
        if row.corrected:
            yield f"Inserted missing row in target: {_key(row)}"
    for row in verdict.mismatched_rows:
        shown: dict[str, tuple[str | None, str | None]]
        shown = dict.fromkeys(row.columns, (None, None))
        shown.update({name: (origin, target) for name, origin, target in row.changes})
        told = "".join(
            f"Target column:{name}-origin[{_text(origin)}]-target[{_text(target)}]; "
            if origin is not None or target is None
            else f"Target column:{name} origin is null, target is {target}; "
            for name, (origin, target) in shown.items()
        )
        yield f"Mismatch row found for key: {_key(row)} Mismatch: {told}"
        if row.corrected:
            yield f"Corrected mismatch row in target: {_key(row)}"
    for row in verdict.extra_rows:
        yield f"Extra target row found for key: {_key(row)}"
        if row.corrected:
            yield f"Deleted extra row in target: {_key(row)}"


def form_lines(verdict: Findings) -> Iterator[str]:
    """Give the log lines of rows that hold the same values in other bytes."""
    for row in verdict.other_form_rows:
        told = "".join(
            f"Target column:{name}-origin[{_text(origin)}]-target[{_text(target)}]; "
            for name, origin, target in row.changes
        )
        yield f"Same values in other bytes found for key: {_key(row)} {told}"


def _key(row: DifferingRow) -> str:
    return f"[{' %% '.join(row.cells) or row.key}]"


def _text(value: str | None) -> str:
    return "null" if value is None else value
