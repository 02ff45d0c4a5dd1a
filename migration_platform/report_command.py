"""What somebody who signs off, or works through failures, asks of a run: `report` writes it down.

It reads what is tracked of the run, its dead letters, and, of ranges that differ, both tables.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from migration_platform.run_commands import (
    Tables,
    choose_run,
    open_declared,
    project_option,
    read_migration,
)

if TYPE_CHECKING:
    from migration_platform.components.projects import DeclaredMigration
    from migration_platform.copying.dead_letters import DeadLetter, DeadLetterSummary
    from migration_platform.cql.names import TableName
    from migration_platform.declaration.migration import Migration
    from migration_platform.plan.model import Plan, Table
    from migration_platform.reports.folder import Folder
    from migration_platform.reports.rows import Differences, Sides
    from migration_platform.reports.summary import Commands, Report
    from migration_platform.runs.run_report import Piece, RunFacts


Owners = Mapping[int, Mapping[str, Any]]
"""The rows of `migration_runs` of a migration, by run id."""


@click.command()
@click.argument("migration")
@click.option("--run", "run_id", type=int, help="The tracked run.  [default: the newest]")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the report: a new or empty one, or that of an earlier report.",
)
@click.option("--values", is_flag=True, help="Write the rows' values too, not only their keys.")
@click.option(
    "--no-comparison",
    is_flag=True,
    help="Compare nothing again: write no keys of rows that differ.",
)
@project_option
def report(
    migration: str,
    run_id: int | None,
    output: Path,
    values: bool,
    no_comparison: bool,
    project: Path,
) -> None:
    """Write what came of a run into files.

    MIGRATION is the target's keyspace.table, or its asset's name with slashes. The run is told of
    together with the others of the same launch: a copy with its comparison.

    summary.md says when and how fast it ran, what it counted, which ranges are not done, and what
    to do next; summary.json is the same for programs. rejected_rows.csv has the dead letters that
    are stored now, with keys and causes. differing_keys.csv has every row that differs: the ranges
    that differed are compared again for it, at the declared limits, and nothing is repaired.

    No value of a masked column is written.
    """
    from migration_platform.errors import MigrationError
    from migration_platform.reports.folder import Folder

    try:
        folder = Folder(output)
        with open_declared(project, migration) as ((declared, tables),), folder:
            told = _write(_Asked(declared, tables, folder, values, no_comparison), run_id)
    except MigrationError as error:
        raise click.ClickException(str(error)) from error
    for name in folder.written:
        click.echo(str(output / name))
    click.echo(told)


@dataclass
class _Asked:
    """A report that is being written: what was asked for, and what is open for it."""

    declared: "DeclaredMigration"
    tables: Tables
    folder: "Folder"
    values: bool
    no_comparison: bool

    @property
    def migration(self) -> "Migration":
        return self.declared.migration


def _write(asked: _Asked, run_id: int | None) -> str:
    from migration_platform.reports.folder import MACHINE, SUMMARY
    from migration_platform.reports.summary import to_json, to_markdown

    with ExitStack() as stack:
        found = _gather(asked, run_id, stack)
    asked.folder.text(SUMMARY, to_markdown(found))
    asked.folder.text(MACHINE, to_json(found))
    asked.folder.finish()
    ids = " and ".join(str(run.run_id) for run in found.runs)
    again = found.differences
    differing = "not compared again" if again is None else f"{again.found.total():,} differ"
    return f"{found.name}: run {ids}; {found.rejected.count:,} rows rejected, {differing}"


def _gather(asked: _Asked, run_id: int | None, stack: ExitStack) -> "Report":
    from migration_platform.copying.dead_letters import open_dead_letters
    from migration_platform.reports.summary import Report
    from migration_platform.runs.tracking import migration_key

    key = migration_key(asked.migration)
    runs, earlier, owners = _read_runs(asked, run_id)
    letters = open_dead_letters(asked.tables.connection, asked.migration)
    kept = letters is not None and bool(letters.slices())
    differing = [] if asked.no_comparison else _differing(runs)
    named = any("the row " in piece.reason for run in runs for piece in run.not_done)
    opened = _Opened()
    if kept or differing or named:
        plans = bool(differing) or (asked.values and kept)
        opened = _open(asked, stack, plans=plans)
    ids = {run.dagster_run_id for run in runs if run.dagster_run_id}
    counted = Counter[bool]()

    def count() -> "Iterator[DeadLetter]":
        for letter in letters.read_all() if letters is not None else ():
            counted[letter.run_id in ids] += 1
            yield letter

    rejected = _write_rejected(asked, opened, count(), owners)
    differences, why_not = _write_differing(asked, opened, runs, differing)
    masked = opened.masked_at_origin | opened.masked_at_target
    return Report(
        migration=asked.migration,
        name=key,
        written_at=datetime.now(UTC),
        runs=runs,
        earlier=earlier,
        retries={run.run_id: _count_retries(asked.migration, run) for run in runs},
        rejected=rejected,
        rejected_by_runs=counted[True],
        differences=differences,
        why_not=why_not,
        masked=sorted(masked),
        masked_key=opened.masks_key,
        # What could not be converted may be what is masked.
        values=asked.values and not masked,
        commands=_commands(asked.migration),
    )


# -- runs ----------------------------------------------------------------------------------------


def _read_runs(
    asked: _Asked, run_id: int | None
) -> tuple[list["RunFacts"], list["RunFacts"], Owners]:
    """Give the runs of one launch, the copy first, those that they resumed, and whose runs are.

    Raises:
        DeclarationError: nothing was ever tracked, as is declared.
        ClickException: there is no such run.
    """
    from migration_platform.errors import DeclarationError
    from migration_platform.runs.run_info import MIGRATE

    told = read_migration(asked.declared, asked.tables)
    if not told["runs"] and not asked.migration.tracking:
        raise DeclarationError(
            f"{told['migration']} declares tracking: false, so nothing is known of its runs; take "
            "that away before the next one"
        )
    owned = asked.tables.read("migration_runs", migration=told["migration"])
    owners: Owners = {row["run_id"]: row for row in owned}
    infos: dict[int, Mapping[str, Any]] = {info["run_id"]: info for info in told["runs"]}
    chosen = choose_run(told, run_id)
    launch = chosen["dagster_run_id"]
    mine = [
        each
        for each in infos.values()
        if each is chosen or (launch and each["dagster_run_id"] == launch)
    ]
    mine.sort(key=lambda info: (info["run_type"] != MIGRATE, info["run_id"]))
    earlier: list[int] = []
    waiting = [info["prev_run_id"] for info in mine]
    while waiting:
        previous = waiting.pop(0)
        if previous in infos and previous not in earlier and infos[previous] not in mine:
            earlier.append(previous)
            waiting.append(infos[previous]["prev_run_id"])
    read = partial(_read_run, asked.tables, owners)
    return [read(info) for info in mine], [read(infos[each]) for each in earlier], owners


def _read_run(tables: Tables, owners: Owners, info: Mapping[str, Any]) -> "RunFacts":
    from migration_platform.runs.run_report import detail_columns, to_run

    details = tables.read(
        "cdm_run_details",
        chosen=detail_columns(tables.columns("cdm_run_details")),
        table_name=info["table_name"],
        run_id=info["run_id"],
    )
    return to_run(info, owners.get(info["run_id"]), details)


def _differing(runs: Sequence["RunFacts"]) -> list["Piece"]:
    from migration_platform.runs.run_info import VALIDATE
    from migration_platform.runs.tracking import DIFF

    return [
        piece
        for run in runs
        if run.run_type == VALIDATE
        for piece in run.pieces
        if piece.status == DIFF
    ]


def _count_retries(migration: "Migration", run: "RunFacts") -> int | None:
    """Count a copy's retries, which Dagster's instance alone knows; None if it is not at hand."""
    from migration_platform.runs.run_info import MIGRATE

    home = os.environ.get("DAGSTER_HOME")
    if run.run_type != MIGRATE or not run.dagster_run_id or not home or not Path(home).is_dir():
        return None
    from dagster import DagsterInstance

    from migration_platform.components.table.ledger import count_retries
    from migration_platform.components.table.naming import asset_key

    with DagsterInstance.get() as instance:
        asset = asset_key(migration.target)
        return count_retries(instance, asset, run.dagster_run_id, run.run_id)


def _commands(migration: "Migration") -> "Commands | None":
    from migration_platform.components.table.naming import build_job, step_of
    from migration_platform.reports.summary import Commands

    if migration.reads_only:
        return None
    job = build_job(migration)
    names = (key.to_user_string() for key in (job.target, job.diff, job.dead_letters))
    return Commands(*names, step=step_of(job))


# -- rows ----------------------------------------------------------------------------------------


@dataclass
class _Opened:
    """The sides as far as they are needed, and the columns that are masked there."""

    table: "Table | None" = None
    plan: "Plan | None" = None
    sides: "Sides | None" = None
    masked_at_origin: frozenset[str] = frozenset()
    masked_at_target: frozenset[str] = frozenset()

    @property
    def masks_key(self) -> bool:
        """Whether a column of a key is masked."""
        here = self.table.primary_key if self.table else ()
        there = self.plan.target.primary_key if self.plan else ()
        return bool(self.masked_at_origin & set(here) | self.masked_at_target & set(there))


def _open(asked: _Asked, stack: ExitStack, *, plans: bool) -> _Opened:
    """Open the origin; to make a plan, both sides.

    Raises:
        MigrationError: a side cannot be reached, or the stores do not allow the migration.
    """
    from migration_platform.comparing.listing import Showing
    from migration_platform.errors import PreflightError
    from migration_platform.reports.rows import Sides
    from migration_platform.stores.kinds import open_origin, open_target
    from migration_platform.stores.planning import make_plan, refuse_missing_target

    migration = asked.migration
    settings = asked.declared.read_sides()
    origin = open_origin(migration, stack.enter_context(settings[0].connect()))
    table, _ = origin.find_table(migration.origin)
    opened = _Opened(table, masked_at_origin=_masked(origin.connection, table.name))
    if not plans:
        return opened
    target = open_target(migration, stack.enter_context(settings[1].connect()))
    try:
        opened.plan = make_plan(migration, origin, target)
        refuse_missing_target(opened.plan)
    except PreflightError as error:
        way_out = "leave --values out and give --no-comparison, and neither table is needed"
        raise PreflightError(f"{error}; or {way_out}") from error
    opened.masked_at_target = _masked(target.connection, opened.plan.target.name)
    showing = Showing(asked.values, opened.masked_at_origin, opened.masked_at_target)
    opened.sides = Sides(origin, target, settings, showing)
    return opened


def _masked(connection: Any, name: "TableName") -> frozenset[str]:
    from migration_platform.stores.cassandra.connection import Connection
    from migration_platform.stores.cassandra.masks import find_masked

    is_cassandra = isinstance(connection, Connection)
    return frozenset(find_masked(connection, name)) if is_cassandra else frozenset()


def _write_rejected(
    asked: _Asked,
    opened: _Opened,
    letters: "Iterator[DeadLetter]",
    owners: Owners,
) -> "DeadLetterSummary":
    from migration_platform.reports.rows import value_reader, write_rejected
    from migration_platform.runs.run_info import MIGRATE

    tracked = {
        row["dagster_run_id"]: run_id
        for run_id, row in owners.items()
        if row["run_type"] == MIGRATE
    }
    masked, sides = opened.masked_at_origin, opened.sides
    reader = None
    if asked.values and opened.plan is not None and sides is not None:
        reader = value_reader(opened.plan, sides.origin, masked)
    return write_rejected(asked.folder, letters, opened.table, masked, tracked, reader)


def _write_differing(
    asked: _Asked, opened: _Opened, runs: Sequence["RunFacts"], differing: Sequence["Piece"]
) -> tuple["Differences | None", str]:
    """Write the rows that differ, and say what was found, or why nothing was compared."""
    from migration_platform.reports.rows import ranges_of, write_differing
    from migration_platform.runs.run_info import VALIDATE

    compared = [run for run in runs if run.run_type == VALIDATE]
    if asked.no_comparison or not compared:
        why = "--no-comparison was given" if asked.no_comparison else "the run compared nothing"
        return None, why
    ranges = ranges_of(asked.migration, differing)
    told = write_differing(asked.folder, opened.plan, opened.sides, ranges, _say)
    plan = opened.plan
    told.changed = plan is not None and any(
        (run.fingerprint, run.comparison) != (plan.fingerprint, plan.comparison) for run in compared
    )
    return told, ""


def _say(line: str) -> None:
    click.echo(line, err=True)
