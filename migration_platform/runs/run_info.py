"""What is counted in a run and in each of its pieces, and the text of it in `run_info`."""

import re
from collections.abc import Mapping

from migration_platform.comparing.verdicts import RangeVerdict
from migration_platform.counts import RangeCounts

MIGRATE, VALIDATE, GUARDRAIL = "MIGRATE", "VALIDATE", "GUARDRAIL"
REASON = "; Reason: "
"""In `run_info`, behind the counters: why a range failed or differs."""

COUNTERS = {
    MIGRATE: ("Read", "Write", "Skipped", "Error", "Partitions Passed", "Partitions Failed"),
    VALIDATE: (
        "Read",
        "Mismatch",
        "Corrected Mismatch",
        "Missing",
        "Corrected Missing",
        "Valid",
        "Skipped",
        "Error",
        "Partitions Passed",
        "Partitions Failed",
    ),
    GUARDRAIL: ("Read", "Valid", "Skipped", "Large", "Partitions Passed", "Partitions Failed"),
}
"""What is counted in a run of each type, in the order of its text."""


Counts = Mapping[str, int]
"""Counters by name; those of `COUNTERS` for the type of the run."""


def copy_counters(counts: RangeCounts, *, failed: bool) -> Counts:
    """Give what was counted in a copy; of a failed piece, what was read and did not arrive."""
    unwritten = max(0, counts.read + counts.added - counts.written - counts.skipped)
    return {
        "Read": counts.read,
        "Write": counts.written,
        "Skipped": counts.skipped,
        "Error": unwritten if failed else counts.set_aside + counts.errors,
        "Partitions Passed": int(not failed),
        "Partitions Failed": int(failed),
    }


def verdict_counters(verdict: RangeVerdict) -> Counts:
    """Give what was counted in a comparison; a range without a verdict counts as failed."""
    counts = verdict.counts
    return {
        "Read": counts.read,
        "Mismatch": counts.mismatched,
        "Corrected Mismatch": counts.corrected_mismatched,
        "Missing": counts.missing,
        "Corrected Missing": counts.corrected_missing,
        "Valid": counts.valid,
        "Skipped": counts.skipped,
        "Error": counts.error,
        "Partitions Passed": int(not verdict.error),
        "Partitions Failed": int(bool(verdict.error)),
    }


def guardrail_counters(counts: RangeCounts, *, failed: bool) -> Counts:
    """Give what was counted where rows with large cells are those that are left out."""
    return {
        "Read": counts.read,
        "Valid": counts.read - counts.too_large,
        "Large": counts.too_large,
        "Partitions Passed": int(not failed),
        "Partitions Failed": int(failed),
    }


def to_range_counts(counters: Counts) -> RangeCounts:
    """Read the counters of a piece that passed, in a run of either type."""
    compared = ("Valid", "Corrected Mismatch", "Corrected Missing")
    return RangeCounts(
        read=counters.get("Read", 0),
        written=counters.get("Write", 0) + sum(counters.get(name, 0) for name in compared),
        skipped=counters.get("Skipped", 0),
        set_aside=counters.get("Error", 0),
    )


def to_run_info(run_type: str, counters: Counts) -> str:
    """Write counters as the text of `run_info`."""
    return "; ".join(f"{name}: {counters.get(name, 0)}" for name in COUNTERS[run_type])


def read_run_info(text: str | None) -> dict[str, int]:
    """Read the text of `run_info`; what is no counter is left out."""
    found = re.findall(r"([A-Z][A-Za-z ]*): (\d+)", split_reason(text)[0])
    return {name: int(number) for name, number in found}


def split_reason(text: str | None) -> tuple[str, str]:
    """Give the counters in the text of `run_info`, and the reason behind; either may be empty."""
    counters, _, reason = (text or "").partition(REASON)
    return counters, reason
