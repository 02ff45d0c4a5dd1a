"""The summary of a run: what came of it in numbers and in words, and what to do next."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from migration_platform.copying.dead_letters import DeadLetterSummary
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.plan.fidelity import write_table
from migration_platform.reports.folder import DIFFERING, MARK, REJECTED
from migration_platform.reports.rows import FINDINGS, Differences
from migration_platform.runs.run_info import MIGRATE, VALIDATE
from migration_platform.runs.run_report import (
    Piece,
    RunFacts,
    run_to_json,
    show_time,
    throughput,
    told_reason,
)
from migration_platform.token_ranges import describe_ranges

VERSION = 1
"""Of the JSON: it grows when a name in it changes its meaning."""
MAX_LISTED = 50
"""So many ranges that are not done the text lists; the JSON has all."""
MANY_REJECTED = 0.05
SLOW_ROWS = 100.0
"""Rows a second below which the Data Migrator's summary advises to look at the configuration."""
WORTH_A_RATE = 10_000
"""Rows below which a run's speed says nothing."""
NAMES = {MIGRATE: "Copy", VALIDATE: "Comparison"}


@dataclass(frozen=True)
class Commands:
    """How the assets of the migration, and the step with its config, are called in a shell."""

    target: str
    diff: str
    dead_letters: str
    step: str

    def launch(self, assets: str, partitions: str, **config: Any) -> str:
        """Give the command that launches assets for some ranges."""
        ops = json.dumps({"ops": {self.step: {"config": config}}})
        return f"dg launch --assets {json.dumps(assets)} --partition-range '{partitions}'" + (
            f" --config-json '{ops}'" if config else ""
        )


@dataclass(frozen=True)
class Report:
    """All that a summary tells.

    `runs` are those of one launch, the copy first, `earlier` those that they resumed; `retries` are
    by run id, None where they are not known. `differences` are None where nothing was compared
    again, `why_not` says why. `masked` says which columns' values are in no file.
    """

    migration: Migration
    name: str
    written_at: datetime
    runs: Sequence[RunFacts]
    earlier: Sequence[RunFacts]
    retries: Mapping[int, int | None]
    rejected: DeadLetterSummary
    rejected_by_runs: int
    differences: Differences | None
    why_not: str
    masked: Sequence[str]
    masked_key: bool
    values: bool
    commands: Commands | None

    @property
    def copy(self) -> RunFacts | None:
        """The run that copied, if one of them did."""
        return next((run for run in self.runs if run.run_type == MIGRATE), None)

    @property
    def comparison(self) -> RunFacts | None:
        """The run that compared, if one of them did."""
        return next((run for run in self.runs if run.run_type == VALIDATE), None)


def to_json(report: Report) -> str:
    """Write the summary for machines."""
    shown = {"values": report.values, "masked_key": report.masked_key}
    told = {
        "report": MARK,
        "version": VERSION,
        "migration": report.name,
        "origin": _side_to_json(report.migration.origin),
        "target": _side_to_json(report.migration.target),
        "written_at": show_time(report.written_at),
        "runs": [
            {**run_to_json(run, **shown), "retries": report.retries.get(run.run_id)}
            for run in report.runs
        ],
        "earlier_runs": [
            {name: told for name, told in run_to_json(run, **shown).items() if name in _SHORT}
            for run in report.earlier
        ],
        "rejected_rows": {
            "stored_now": report.rejected.count,
            "rejected_by_these_runs": report.rejected_by_runs,
            "by_cause": dict(report.rejected.causes),
        },
        "differences": _differences_to_json(report),
        "masked_columns": list(report.masked),
        "next_steps": list(next_steps(report)),
    }
    return json.dumps(told, indent=2) + "\n"


_SHORT = ("run_id", "type", "status", "began", "ended", "counts", "ranges")


def _side_to_json(side: Endpoint) -> dict[str, str]:
    return {"store": side.store, "table": str(side.table)}


def _differences_to_json(report: Report) -> dict[str, Any]:
    found = report.differences
    if found is None:
        return {"compared_again": False, "why_not": report.why_not}
    return {
        "compared_again": True,
        "began": show_time(found.began),
        "ended": show_time(found.ended),
        "ranges": [token_range.key for token_range in found.ranges],
        "found": {kind: found.found[kind] for kind in FINDINGS},
        "declaration_changed_since_the_run": found.changed,
        "not_compared": [
            {"range": each.token_range.key, "reason": _reason(report, each.reason)}
            for each in found.not_compared
        ],
    }


def _reason(report: Report, reason: str) -> str:
    return told_reason(reason, values=report.values, masked_key=report.masked_key)


# -- as text -------------------------------------------------------------------------------------


def to_markdown(report: Report) -> str:
    """Write the summary for people."""
    origin, target = report.migration.origin, report.migration.target
    parts = [
        f"# {report.name}: run {', '.join(str(run.run_id) for run in report.runs)}",
        f"Written {show_time(report.written_at)}. From {origin.table} in {origin.store} to "
        f"{target.table} in {target.store}. All times are UTC.",
    ]
    for run in report.runs:
        parts += _tell_run(report, run)
    if report.earlier:
        parts += ["## Earlier runs that were resumed", _earlier_table(report.earlier)]
    parts += ["## Data quality", *_tell_rejected(report), *_tell_differences(report)]
    if report.masked:
        parts.append(f"Masked columns, of which no file holds a value: {', '.join(report.masked)}.")
    steps = [f"{number}. {step}" for number, step in enumerate(next_steps(report), 1)]
    parts += ["## What to do next", "\n".join(steps)]
    return "\n\n".join(parts) + "\n"


def _tell_run(report: Report, run: RunFacts) -> Iterator[str]:
    yield f"## {NAMES.get(run.run_type, run.run_type)}: run {run.run_id}"
    retries = report.retries.get(run.run_id)
    unknown = "not counted in a comparison"
    if run.run_type != VALIDATE:
        unknown = "not known here: Dagster's metadata has them, and DAGSTER_HOME names none with it"
    figures = [
        ("state", run.status),
        ("began", show_time(run.began) or "not known"),
        ("ended", show_time(run.ended) or f"not yet; last seen {show_time(run.last_seen)}"),
        ("took", "not known" if run.seconds is None else f"{run.seconds:,.1f} s"),
        ("rows", "; ".join(f"{name}: {count:,}" for name, count in run.counts.items())),
        ("ranges", ", ".join(f"{count} {name}" for name, count in run.by_status.items())),
        ("rows a second", f"{run.rows_per_second:,} on average" if run.rows_per_second else "-"),
        ("retries", unknown if retries is None else f"{retries:,}"),
        *([("resumed", f"run {run.previous}")] if run.previous else []),
    ]
    yield write_table(("", ""), figures)
    if intervals := throughput(run):
        yield "Throughput over time; rows of a range count evenly from its begin to its end:"
        lines = [
            (
                show_time(each.begins) or "",
                f"{each.seconds:g} s",
                str(each.ranges_done),
                f"{each.rows:,}",
                f"{each.rows_per_second:,}",
            )
            for each in intervals
        ]
        yield write_table(("from", "lasts", "ranges done", "rows", "rows a second"), lines)
    if run.not_done:
        yield "Ranges that are not done, or differ:"
        yield write_table(
            ("token_min", "token_max", "state", "why"),
            [
                (
                    str(piece.token_min),
                    str(piece.token_max),
                    piece.status,
                    _reason(report, piece.reason),
                )
                for piece in run.not_done[:MAX_LISTED]
            ],
        )
        if (more := len(run.not_done) - MAX_LISTED) > 0:
            yield f"And {more} more, in summary.json."


def _earlier_table(runs: Sequence[RunFacts]) -> str:
    return write_table(
        ("run", "type", "state", "began", "rows", "ranges"),
        [
            (
                str(run.run_id),
                run.run_type,
                run.status,
                show_time(run.began) or "",
                "; ".join(f"{name}: {count:,}" for name, count in run.counts.items()),
                ", ".join(f"{count} {name}" for name, count in run.by_status.items()),
            )
            for run in runs
        ],
    )


def _tell_rejected(report: Report) -> Iterator[str]:
    found = report.rejected
    if not found.count:
        yield "Rejected rows: none is stored now."
        return
    yield (
        f"Rejected rows: {_many(found.count, 'row')} stored now as dead letters, "
        f"{report.rejected_by_runs:,} of them by the runs above. {REJECTED} has them all."
    )
    yield write_table(("cause", "rows"), [(why, f"{number:,}") for why, number in found.causes])


def _tell_differences(report: Report) -> Iterator[str]:
    found = report.differences
    if found is None:
        yield f"Differences: not compared again, because {report.why_not}."
        return
    if not found.ranges:
        yield "Differences: no range of the run differed."
        return
    numbers = ", ".join(f"{found.found[kind]:,} {kind}" for kind in FINDINGS if found.found[kind])
    yield (
        f"Differences: {_many(len(found.ranges), 'range')} that differed "
        f"({describe_ranges(found.ranges)}) compared again from {show_time(found.began)} to "
        f"{show_time(found.ended)}: "
        f"{numbers or 'nothing differs any more'}. {DIFFERING} has each row."
    )
    if found.changed:
        yield (
            "The declaration or its tables have changed since the run, or the run had a filter of "
            "its own: they were compared as is declared now."
        )
    if found.not_compared:
        yield "Of these ranges not all is known:"
        lines = [
            (each.token_range.key, _reason(report, each.reason)) for each in found.not_compared
        ]
        yield write_table(("range", "why"), lines)


# -- what to do ----------------------------------------------------------------------------------


def next_steps(report: Report) -> Iterator[str]:
    """Say what to do, the most urgent first; at least one sentence."""
    steps = [*_of_runs(report), *_of_rows(report), *_of_speed(report)]
    if not steps:
        covered = "copied and compared" if report.copy and report.comparison else "gone through"
        steps = [
            f"Nothing: all {len(report.runs[0].pieces)} ranges of the run were {covered}, without "
            "a difference and without a rejected row. Whether these are all of the table, its "
            "checks say."
        ]
    yield from steps


def _of_runs(report: Report) -> Iterator[str]:
    for run in report.runs:
        if run.ended is None:
            yield (
                f"Run {run.run_id} has not ended. If nothing works on it any more, it was killed: "
                f"{_resume(report, run.not_done)}"
            )
        elif run.run_type not in NAMES and run.not_done:
            yield f"Not gone through: {_many(len(run.not_done), 'range')}. Run the check again"
        if large := run.counts.get("Large", 0):
            yield (
                f"{_many(large, 'row')} with a cell that is too large: the asset's page names "
                "some; `guardrails` of a migration says what a copy does with them"
            )
    copy, comparison = report.copy, report.comparison
    if copy and copy.ended and copy.not_done:
        yield f"Not copied: {_many(len(copy.not_done), 'range')}. {_resume(report, copy.not_done)}"
    failed = [p for p in comparison.not_done if p.status != "DIFF"] if comparison else []
    if comparison and comparison.ended and failed and report.commands:
        command = report.commands.launch(report.commands.diff, _ranges(report, failed))
        yield f"Not compared: {_many(len(failed), 'range')}. Compare again with `{command}`"
    if copy and not comparison and report.commands:
        done = [piece for piece in copy.pieces if piece.is_done]
        if done:
            command = report.commands.launch(report.commands.diff, _ranges(report, done))
            yield f"Nothing was compared by this run; compare what it copied: `{command}`"


def _of_rows(report: Report) -> Iterator[str]:
    commands, rejected = report.commands, report.rejected.count
    if rejected and commands:
        yield (
            f"{_many(rejected, 'row')} could not be written: repair at the origin or correct the "
            f'declaration, then copy with `dg launch --assets "{commands.dead_letters}"`; until '
            "then a comparison counts them as missing"
        )
    yield from _of_differences(report)
    # In ranges that failed, what had not been written yet counts as an error as well.
    passed = [piece.counts for piece in report.copy.pieces if piece.is_done] if report.copy else []
    read, errors = (sum(each.get(name, 0) for each in passed) for name in ("Read", "Error"))
    if errors > MANY_REJECTED * read:
        yield (
            "More than 5 % of the rows that were read were rejected: that is seldom the rows' "
            "fault; look at the causes above before anything is copied again"
        )


def _of_differences(report: Report) -> Iterator[str]:
    found, commands, comparison = report.differences, report.commands, report.comparison
    differing = [p for p in comparison.pieces if p.status == "DIFF"] if comparison else []
    if not differing or comparison is None or commands is None:
        return
    ranges = _ranges(report, differing)
    compare = commands.launch(commands.diff, ranges)
    if found is not None and not found.found.total() and not found.not_compared:
        yield f"What differed agrees now; let a comparison say so: `{compare}`"
        return
    both = f"{commands.target},{commands.diff}"
    again = commands.launch(both, ranges, resume=str(comparison.run_id))
    yield (
        f"{_many(len(differing), 'range')} differed: declare "
        "`diff: {repair: [missing, mismatched]}` (and extra, if what only the target has is to go) "
        f"and repair with `{compare}`, or copy again with `{again}`"
    )


def _many(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def _of_speed(report: Report) -> Iterator[str]:
    for run in report.runs:
        speed = run.rows_per_second
        if run.rows >= WORTH_A_RATE and speed is not None and speed < SLOW_ROWS:
            yield (
                f"Run {run.run_id} had fewer than {SLOW_ROWS:g} rows a second: look at its "
                f"retries, at `migration-platform rate {report.migration.name}`, and at workers"
            )


def _resume(report: Report, pieces: Sequence[Piece]) -> str:
    if report.commands is None or not pieces:
        return "run it again"
    assets = f"{report.commands.target},{report.commands.diff}"
    command = report.commands.launch(assets, _ranges(report, pieces), resume="auto")
    return f"`{command}` does what is left"


def _ranges(report: Report, pieces: Sequence[Piece]) -> str:
    """Name the declared ranges from the first to the last with one of these tokens."""
    low, high = min(p.token_min for p in pieces), max(p.token_max for p in pieces)
    found = [r.key for r in report.migration.ranges if low <= r.end and high > r.start]
    return f"{found[0]}...{found[-1]}"
