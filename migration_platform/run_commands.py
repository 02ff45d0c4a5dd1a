"""What an operator asks of runs and tells them: `status`, `rate`, `pause` and `continue`.

The state is in the tracking keyspace of a migration's target, so that these commands need neither
Dagster's storage nor the machine on which a run works.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from migration_platform.components.projects import DeclaredMigration

FAILED = ("FAIL", "NOT_STARTED", "STARTED", "DIFF")
"""States of pieces that a resumed run does again."""
NEWEST = 5
"""So many runs of each migration, where all are listed, and the newest of a kind not among them."""
ASK_SECONDS = 10.0
RUN_COLUMNS = ("run", "type", "status", "began", "ended", "previous", "counts")
RANGE_COLUMNS = ("token_min", "token_max", "status", "began", "counts", "reason")

project_option = click.option(
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Folder of the Dagster project that declares the migrations.  [default: here]",
)
migration_argument = click.argument("migration")


@click.command()
@click.argument("migration", required=False)
@click.option("--run", "run_id", type=int, help="Show this run's ranges, in the order of tokens.")
@click.option(
    "--failed", is_flag=True, help="Only ranges that a resumed run would do again, and why."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON for programs.")
@project_option
def status(
    migration: str | None, run_id: int | None, failed: bool, as_json: bool, project: Path
) -> None:
    """Show tracked runs, the newest first, and the ranges of a run.

    MIGRATION is the target's keyspace.table, or its asset's name with slashes; without it, the
    newest runs of all migrations are listed. --failed without --run looks at the newest run of
    each kind: the copy and the comparison.
    """
    if migration is None and (run_id is not None or failed):
        raise click.UsageError("--run and --failed need a MIGRATION.")
    with open_declared(project, migration) as found:
        told = [read_migration(each, tables) for each, tables in found]
        if migration is None or not (failed or run_id is not None):
            _show(told, as_json, lambda: _print_runs(told, None if migration else NEWEST))
            return
        chosen = _choose_runs(told[0], run_id)
        details = [row for run in chosen for row in _read_details(found[0][1], run)]
        if failed:
            details = [row for row in details if row["status"] in FAILED]
        report = {**told[0], "runs": chosen, "ranges": details}
        _show(report, as_json, lambda: _print_details(report))


@click.command()
@migration_argument
@click.option("--origin-rows", type=int, help="Rows a second read from the origin.")
@click.option("--target-rows", type=int, help="Rows a second written to the target.")
@click.option("--origin-bytes", type=int, help="Bytes a second read from the origin.")
@click.option("--target-bytes", type=int, help="Bytes a second written; write units of DynamoDB.")
@click.option("--default", "reset", is_flag=True, help="Back to what is declared, all four.")
@project_option
def rate(migration: str, reset: bool, project: Path, **limits: int | None) -> None:
    """Change how fast a migration's runs work, also while they do.

    What is set holds for all runs of the MIGRATION until --default; a run follows within about a
    second. Without options the present rate is shown.
    """
    from migration_platform.runs import control

    given = {name: value for name, value in limits.items() if value is not None}
    if reset and given:
        raise click.UsageError("--default takes all limits back; leave the others out.")
    with open_declared(project, migration) as found:
        ((declared, tables),) = found
        if reset or given:
            tables.ensure()
            values = dict.fromkeys(control.LIMITS) if reset else given
            control.set_limits(tables.tables, declared.migration, values)
        click.echo(f"{_key(declared)}: {tables.describe(declared)}")


@click.command()
@migration_argument
@project_option
def pause(migration: str, project: Path) -> None:
    """Let a migration's runs wait, until `continue`.

    They stay alive and go on where they were; a run that starts meanwhile waits too.
    """
    _set_paused(project, migration, paused=True)


@click.command("continue")
@migration_argument
@project_option
def go_on(migration: str, project: Path) -> None:
    """Let a migration's runs go on after `pause`."""
    _set_paused(project, migration, paused=False)


COMMANDS: Sequence[click.Command] = (status, rate, pause, go_on)


def _set_paused(project: Path, migration: str, *, paused: bool) -> None:
    from migration_platform.runs import control

    with open_declared(project, migration) as found:
        ((declared, tables),) = found
        tables.ensure()
        control.set_paused(tables.tables, declared.migration, paused=paused)
        click.echo(f"{_key(declared)}: {tables.describe(declared)}")


# -- reading -------------------------------------------------------------------------------------


class Tables:
    """The tracking tables of a migration, where they exist already."""

    def __init__(self, declared: "DeclaredMigration", connection: Any):
        from migration_platform.runs.tracking_tables import tables_of

        self._migration = declared.migration
        self.connection = connection
        self.tables = tables_of(connection, declared.migration, ASK_SECONDS)

    def ensure(self) -> None:
        """Make sure of the tables.

        Raises:
            MigrationError: the migration is not tracked, or they cannot be made.
        """
        from migration_platform.errors import DeclarationError
        from migration_platform.runs.control import CONTROL_TABLES
        from migration_platform.runs.tracking_tables import open_tables

        if not self._migration.tracking:
            raise DeclarationError(
                f"{self._migration.name} declares tracking: false, and runs that are not tracked "
                "follow no command; take that away"
            )
        open_tables(self.connection, self._migration, CONTROL_TABLES)

    def columns(self, table: str) -> Sequence[str]:
        """Name the columns of a table; none if it is not there."""
        keyspace = self.connection.cluster.metadata.keyspaces.get(self.tables.keyspace)
        if keyspace is None or table not in keyspace.tables:
            return ()
        return tuple(keyspace.tables[table].columns)

    def read(
        self, table: str, *, chosen: Sequence[str] = ("*",), **key: Any
    ) -> list[dict[str, Any]]:
        """Read rows by their key, or the first columns of it; none of a table that is not there."""
        return self.tables.read(table, chosen=chosen, **key) if self.columns(table) else []

    def control(self) -> Any:
        """Read what is set for the migration."""
        from migration_platform.runs.control import Control, read_control

        if not self.read("run_control"):
            return Control()
        return read_control(self.tables, self._migration)

    def describe(self, declared: "DeclaredMigration") -> str:
        """Say at which rate runs work."""
        from migration_platform.runs.control import describe_control

        return describe_control(self.control(), declared.migration)


@contextmanager
def open_declared(
    project: Path, wanted: str | None
) -> Iterator[list[tuple["DeclaredMigration", Tables]]]:
    """Give the migrations with their tables; what goes wrong is one sentence."""
    from contextlib import ExitStack

    from migration_platform.components.projects import find_migrations
    from migration_platform.errors import MigrationError
    from migration_platform.stores.cassandra.connection import Connection

    try:
        with ExitStack() as stack:
            found = find_migrations(project, wanted)
            connections = {
                target: stack.enter_context(Connection(target))
                for target in dict.fromkeys(each.cluster for each in found)
            }
            yield [(each, Tables(each, connections[each.cluster])) for each in found]
    except MigrationError as error:
        raise click.ClickException(str(error)) from error


def _key(declared: "DeclaredMigration") -> str:
    from migration_platform.runs.tracking import migration_key

    return migration_key(declared.migration)


def read_migration(declared: "DeclaredMigration", tables: Tables) -> dict[str, Any]:
    """Give a migration's tracked runs, the newest first, and what is set for it."""
    table_name, key = declared.migration.target.table.table, _key(declared)
    found = tables.read("cdm_run_info", table_name=table_name)
    # Read behind them: whose a run is, is noted before the run itself.
    owners = {
        row["run_id"]: row
        for row in tables.read("migration_runs")
        if row["table_name"] == table_name
    }
    runs = []
    for row in found:
        owner = owners.get(row["run_id"])
        # Tables of other keyspaces have the same name here; runs of other programs have no owner.
        if owner is None or owner["migration"] == key:
            seen = owner and {name: owner[name] for name in ("dagster_run_id", "last_seen")}
            runs.append({**row, **(seen or {"dagster_run_id": None, "last_seen": None})})
    # By their time: an id of the user's own says nothing of when its run began.
    runs.sort(key=lambda row: (row["start_time"] or datetime.min, row["run_id"]), reverse=True)
    control = tables.control()
    return {
        "migration": key,
        "rate": tables.describe(declared),
        "paused": control.paused,
        "limits": control.limits,
        "runs": runs,
    }


def _newest_of_each_kind(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    newest: dict[str, dict[str, Any]] = {}
    for run in runs:
        newest.setdefault(run["run_type"] or "", run)
    return list(newest.values())


def _choose_runs(told: Mapping[str, Any], run_id: int | None) -> list[dict[str, Any]]:
    """Give the run that is named, else the newest of each kind, the newest first."""
    return (
        _newest_of_each_kind(told["runs"])
        if told["runs"] and run_id is None
        else [choose_run(told, run_id)]
    )


def choose_run(told: Mapping[str, Any], run_id: int | None) -> dict[str, Any]:
    """Give the run that is named, else the newest.

    Raises:
        ClickException: there is none.
    """
    for run in told["runs"]:
        if run_id is None or run["run_id"] == run_id:
            return run
    known = ", ".join(str(run["run_id"]) for run in told["runs"][:NEWEST]) or "none yet"
    asked = "has no tracked run" if run_id is None else f"has no run {run_id}"
    raise click.ClickException(f"{told['migration']} {asked}; the newest are {known}")


def _read_details(tables: Tables, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give a run's ranges in the order of tokens, each with the reason why it is not done."""
    key = {"table_name": run["table_name"], "run_id": run["run_id"]}
    rows = sorted(tables.read("cdm_run_details", **key), key=lambda row: row["token_min"])
    return [{**row, "reason": _reason(row, run)} for row in rows]


def _reason(row: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    from migration_platform.runs.run_info import split_reason

    told = split_reason(row["run_info"])[1]
    if told or row["status"] not in ("NOT_STARTED", "STARTED"):
        return told
    begun = row["status"] == "STARTED"
    if run["end_time"] is None:
        return "under way when the run was last seen" if begun else "not begun yet"
    return "begun, but the run ended before it was done" if begun else "the run ended before it"


# -- showing -------------------------------------------------------------------------------------


def _show(report: Any, as_json: bool, print_it: Callable[[], None]) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2, default=lambda moment: f"{moment.isoformat()}Z"))
    else:
        print_it()


def _print_runs(told: Sequence[Mapping[str, Any]], limit: int | None) -> None:
    if not told:
        click.echo("This project declares no migration yet.")
    for each in told:
        click.echo(f"{each['migration']}: {each['rate']}")
        # However many came after it, the newest run of a kind is shown.
        kept = [*each["runs"][:limit], *_newest_of_each_kind(each["runs"])]
        rows = [_run_line(run) for run in each["runs"] if run in kept]
        print_table(RUN_COLUMNS, rows)
        hidden = len(each["runs"]) - len(rows)
        if hidden > 0:
            click.echo(f"  and {hidden} older runs")
        if not rows:
            click.echo("  no run yet")


def _print_details(report: Mapping[str, Any]) -> None:
    click.echo(f"{report['migration']}: {report['rate']}")
    for run in report["runs"]:
        print_table(RUN_COLUMNS, [_run_line(run)])
        rows = [_range_line(row) for row in report["ranges"] if row["run_id"] == run["run_id"]]
        print_table(RANGE_COLUMNS, rows)
        if not rows:
            click.echo(f"  no such ranges in the {run['run_type']} run {run['run_id']}")


def _range_line(row: Mapping[str, Any]) -> tuple[Any, ...]:
    began = _time(row["start_time"])
    return row["token_min"], row["token_max"], row["status"], began, _counts(row), row["reason"]


def _run_line(run: Mapping[str, Any]) -> tuple[Any, ...]:
    ended = _time(run["end_time"])
    if not ended and run["last_seen"]:
        ended = f"not yet; seen {_ago(run['last_seen'])} ago"
    began = _time(run["start_time"])
    return (
        run["run_id"],
        run["run_type"],
        run["status"],
        began,
        ended,
        run["prev_run_id"],
        _counts(run),
    )


def _counts(row: Mapping[str, Any]) -> str:
    from migration_platform.runs.run_info import split_reason

    return split_reason(row["run_info"])[0]


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def _ago(moment: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC).replace(tzinfo=None) - moment).total_seconds()))
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows below their columns' names; without rows nothing."""
    if not rows:
        return
    cells = [names, *([("" if value is None else str(value)) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    for row in cells:
        line = "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True))
        click.echo(f"  {line}".rstrip())
