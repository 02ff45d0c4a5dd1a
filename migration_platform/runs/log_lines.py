"""The lines that a run writes into its log when it begins and ends, as the migrator does."""

from migration_platform.declaration.migration import Migration
from migration_platform.runs.run_info import COUNTERS, GUARDRAIL, MIGRATE, VALIDATE, Counts
from migration_platform.runs.tracking import TrackedRun

COMPLETED = "Data migration completed successfully."
"""The last line of a run that copied, without a failure, a difference or a rejected row."""
_WIDTH = 96


def banner(run_type: str, what: str) -> list[str]:
    """Give the lines that open or close a run's log: `what` is Starting or Stopped."""
    jobs = {MIGRATE: "Migrate", VALIDATE: "Validate", GUARDRAIL: "Guardrail Check"}
    job = f"{jobs[run_type]} Job"
    text = f"   {job} - {what}   "
    return ["#" * _WIDTH, f"###{text.center(_WIDTH - 6)}###", "#" * _WIDTH]


def parameter_lines(migration: Migration, run: TrackedRun | None, pieces: int) -> list[str]:
    """Give the lines that say what a run is to do."""
    chosen = migration.filter
    lines = [
        f"PARAM -- Min Partition: {chosen.token_min}",
        f"PARAM -- Max Partition: {chosen.token_max}",
        f"PARAM -- Number of Splits: {migration.token_ranges}",
        f"PARAM -- Track Run: {str(run is not None).lower()}",
    ]
    if run is not None:
        lines.append(f"PARAM -- RunId: {run.run_id}")
        lines.append(f"PARAM -- Previous RunId: {run.previous}")
    lines.append(f"PARAM -- Coverage Percent: {chosen.coverage_percent}")
    lines.append(f"PARAM Calculated -- Total Partitions: {pieces}")
    if run is not None:
        edge = "#" * 22
        lines.append(f"{edge} Run Id for this job is: {run.run_id} {edge}")
    return lines


def final_lines(run_type: str, run: TrackedRun | None, totals: Counts) -> list[str]:
    """Give the lines that say what came of a run."""
    lines = ["#" * _WIDTH]
    if run is not None:
        lines.append(f"RunId: {run.run_id}")
    for name in COUNTERS[run_type]:
        what = name if name.startswith("Partitions") else f"{name} Record Count"
        lines.append(f"Final {what}: {totals.get(name, 0)}")
    return [*lines, "#" * _WIDTH]
