"""What starts a run from a shell: `launch` finds assets and ranges, and calls `dg launch`."""

import shlex
import subprocess
import sys
from pathlib import Path

import click

from migration_platform.run_commands import migration_argument, project_option

COPY, COMPARISON = "copy", "comparison"


@click.command()
@migration_argument
@click.argument("ranges", required=False)
@click.option(
    "--only",
    type=click.Choice((COPY, COMPARISON)),
    help="Leave the other one out.  [default: copy, then compare]",
)
@click.option(
    "--config-json",
    metavar="JSON",
    help="Config of the run, as dg launch takes it.",
)
@click.option("--print", "only_prints", is_flag=True, help="Print the command, and run nothing.")
@project_option
def launch(
    migration: str,
    ranges: str | None,
    only: str | None,
    config_json: str | None,
    only_prints: bool,
    project: Path,
) -> None:
    """Copy ranges of a migration and compare them, in one run.

    MIGRATION is the target's keyspace.table, or its asset's name with slashes.

    RANGES is one range, as 7 or 7-of-64; several neighbours, as 0...7; or all, which is the
    default. Dagster's own names of them, as 07-of-64, are taken as well.

    What is run is `dg launch`, and the whole command is printed first.
    """
    from migration_platform.errors import MigrationError

    try:
        command = _find_command(project, migration, ranges, only)
    except MigrationError as error:
        raise click.ClickException(str(error)) from error
    if config_json is not None:
        command += ["--config-json", config_json]
    click.echo(shlex.join(command))
    if not only_prints:
        # The one of this environment, whatever else is found in PATH.
        program = str(Path(sys.executable).with_name("dg"))
        sys.exit(subprocess.call([program, *command[1:]], cwd=project))


def _find_command(project: Path, name: str, ranges: str | None, only: str | None) -> list[str]:
    """Find what `dg launch` is to be told.

    Raises:
        DeclarationError: there is no such migration or range, or no one run can do it.
    """
    from migration_platform.components.projects import find_launch
    from migration_platform.errors import DeclarationError
    from migration_platform.token_ranges import find_ranges

    found = find_launch(project, name)
    command = ["dg", "launch", "--assets"]
    if found.comparison is None:
        if ranges or only:
            raise DeclarationError(f"{name} only reads, and all of its table; name no ranges")
        return [*command, found.copy]
    both = {COPY: found.copy, COMPARISON: found.comparison}
    command.append(",".join(asset for what, asset in both.items() if only in (None, what)))
    chosen = find_ranges(ranges or "all", found.migration.token_ranges)
    if len(chosen) == 1:
        return [*command, "--partition", chosen[0].key]
    if not found.one_run:
        raise DeclarationError(
            f"{name} declares ranges_per_run, and `dg launch` runs no range of partitions of such "
            "a table; name one range, or start a backfill in the UI"
        )
    return [*command, "--partition-range", f"{chosen[0].key}...{chosen[-1].key}"]
