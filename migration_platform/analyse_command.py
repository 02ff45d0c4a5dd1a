"""What an operator asks of a table before a run: `analyse` says how it lies on the ring.

It reads the origin alone, some thousand rows of it, and writes nothing anywhere.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from migration_platform.run_commands import print_table, project_option

if TYPE_CHECKING:
    from migration_platform.components.projects import DeclaredOrigin
    from migration_platform.plan.analysis import Analysis

RETRY_SECONDS = 30.0
"""How long a request is tried again, where no migration says it."""


@click.command()
@click.argument("table")
@click.option(
    "--store", help="The store of a table that no migration of the project reads.", metavar="NAME"
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="How many processes a run will start.  [default: as declared, else one a core]",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON for programs.")
@project_option
def analyse(
    table: str, store: str | None, workers: int | None, as_json: bool, project: Path
) -> None:
    """Say how large an origin's table is, and into how many ranges to cut it.

    TABLE is the migration's name: the target's keyspace.table, or its asset's name with slashes;
    or the keyspace.table of its origin. With --store it is any table of that store.

    A sample is read, at the origin's consistency and within its declared limits (of a table with
    --store: LOCAL_QUORUM, without limits), and the nodes are asked for their own estimates. A
    filter of the migration is left aside. Nothing is written.

    Skew is the rows of the largest range by those of a range on average.
    """
    from migration_platform.components.projects import find_origin
    from migration_platform.errors import MigrationError

    try:
        declared = find_origin(project, table, store)
        found = _analyse(declared)
    except MigrationError as error:
        raise click.ClickException(str(error)) from error
    migration = declared.migration
    workers = workers or (migration and migration.workers) or os.cpu_count() or 1
    _show(declared, found, workers, as_json)


def _analyse(declared: "DeclaredOrigin") -> "Analysis":
    from migration_platform.errors import PreflightError
    from migration_platform.stores.kinds import kind_of
    from migration_platform.stores.planning import analyse_origin

    endpoint, migration = declared.endpoint, declared.migration
    open_it = kind_of(endpoint.kind).open_origin
    assert open_it is not None
    with declared.cluster.connect() as connection:
        origin = open_it(connection)
        table, wrong = origin.find_table(endpoint)
        if wrong:
            raise PreflightError("; ".join(wrong))
        retry_seconds = migration.retry_seconds if migration else RETRY_SECONDS
        found = analyse_origin(origin, table, endpoint, retry_seconds)
    if found is None:
        raise PreflightError(
            f"{endpoint.store} is a store of the kind {endpoint.kind}, which cannot tell how a "
            "table lies on the ring"
        )
    return found


def _show(declared: "DeclaredOrigin", found: "Analysis", workers: int, as_json: bool) -> None:
    from migration_platform.plan import analysis

    migration, endpoint = declared.migration, declared.endpoint
    ranges = migration.token_ranges if migration else None
    if as_json:
        told = {
            "store": endpoint.store,
            "table": str(endpoint.table),
            "workers": workers,
            **analysis.to_json(found, ranges, workers),
        }
        click.echo(json.dumps(told, indent=2))
        return
    of = f", the origin of {migration.name}" if migration and not migration.reads_only else ""
    click.echo(f"{endpoint.table} in {endpoint.store}{of}")
    for name, value in analysis.tell_figures(found).items():
        click.echo(f"  {name:10}  {value}")
    if found.largest:
        seen = "" if found.sample.is_whole else " seen in the sample; others may be larger"
        click.echo(f"\nThe largest partitions{seen}:")
        print_table(analysis.PARTITION_COLUMNS, analysis.tell_partitions(found))
    click.echo("\nExpected of so many ranges:")
    print_table(analysis.CUT_COLUMNS, analysis.tell_cuts(found, ranges, workers))
    click.echo(f"\n{analysis.tell_recommendation(found, workers)}")
