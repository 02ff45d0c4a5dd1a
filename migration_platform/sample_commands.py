"""Sample rows for a first try: `sample users` in any Cassandra, `sample tenants` right here."""

from pathlib import Path

import click

from migration_platform.run_commands import project_option

_rows = click.IntRange(1, 1_000_000_000)


@click.group()
def sample() -> None:
    """Fill tables with sample rows, to migrate them."""


@sample.command()
@click.option("--store", required=True, metavar="NAME", help="A cassandra store of the project.")
@click.option("--rows", type=_rows, default=100_000, show_default=True, help="So many users.")
@click.option("--keyspace", default="test", show_default=True, help="Made where it is missing.")
@click.option("--table", default="users", show_default=True, help="Made where it is missing.")
@click.option("--seed", default=1, show_default=True, help="Two runs with one seed agree.")
@click.option("--add", is_flag=True, help="Write also into a table that has rows.")
@project_option
def users(
    store: str, rows: int, keyspace: str, table: str, seed: int, add: bool, project: Path
) -> None:
    """Fill a table of users: a time-based id, User1, user1@example.com.

    A keyspace that is missing is made with one replica (SimpleStrategy): make it yourself before,
    where it is to have more. A table that has rows is refused without --add; the same seed then
    writes the same ids again, another one more of them.
    """
    from migration_platform.components.projects import find_cluster
    from migration_platform.cql.names import TableName
    from migration_platform.demo.runs import progress
    from migration_platform.demo.sample import fill_users, prepare_users
    from migration_platform.errors import MigrationError, explain

    name = TableName(keyspace, table)
    try:
        with find_cluster(project, store).connect() as connection:
            prepare_users(connection, name, add=add)
            try:
                with progress(rows, "rows") as bar:
                    seconds = fill_users(
                        connection, rows, seed=seed, table=name, on_progress=bar.update
                    )
            except Exception as error:
                if isinstance(error, MigrationError):
                    raise
                raise click.ClickException(
                    f"not all users were written to {name}: {explain(error)}; the same command "
                    "with --add writes them again"
                ) from error
    except MigrationError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{rows:,} users in {name} of the store {store}, in {seconds:.0f} s")


@sample.command()
@click.option(
    "--users",
    "count",
    type=_rows,
    default=10_000,
    show_default=True,
    help="Users of all tenants; three of five are the origin tenant's.",
)
@click.option("--seed", default=1, show_default=True, help="Two runs with one seed agree.")
def tenants(count: int, seed: int) -> None:
    """Fill Sunbird's tables and a graph on this machine, ready for a tenant's move.

    Starts Cassandra, Neo4j and the stand-in of Sunbird's services, as `local up` does. What an
    earlier sample or demo left of these tables, and of the plans and backups of the move
    tenant_rajasthan, is made anew; nothing is moved.
    """
    from migration_platform.demo.demo import fill_sample
    from migration_platform.errors import MigrationError
    from migration_platform.local import LocalStackError

    try:
        fill_sample("tenant", count=count, seed=seed, home=None, echo=click.echo)
    except (MigrationError, LocalStackError) as error:
        raise click.ClickException(str(error)) from error
