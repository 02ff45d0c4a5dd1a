"""The command line, `migration-platform`: a group for each thing that a person does by hand.

Commands import what they need when they run, so that `--help` answers at once.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from migration_platform.analyse_command import analyse
from migration_platform.cdm.properties import JOBS
from migration_platform.launch_command import launch
from migration_platform.local import LocalStackError
from migration_platform.local.servers import SERVERS
from migration_platform.new_command import new
from migration_platform.report_command import report
from migration_platform.run_commands import COMMANDS
from migration_platform.sample_commands import sample
from migration_platform.sync_command import sync


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Move Cassandra data as Dagster assets, and prove that it arrived."""


for command in (new, analyse, launch, report, sample, sync, *COMMANDS):
    main.add_command(command)


_count = click.IntRange(1, 1_000_000_000)


@main.command()
@click.option(
    "--job",
    type=click.Choice(("all", "enrolments", "users", "customers", "tenant", "sync")),
    default="all",
    show_default=True,
    help="Enrolments go to another Cassandra table, users to DynamoDB, customers to PostgreSQL;"
    " tenant moves a tenant of Sunbird to another; sync copies enrolments and follows them.",
)
@click.option(
    "--enrolments", type=_count, default=100_000, show_default=True, help="Rows of enrolments."
)
@click.option("--users", type=_count, default=100_000, show_default=True, help="Rows of users.")
@click.option(
    "--customers", type=_count, default=100_000, show_default=True, help="Rows of customers."
)
@click.option(
    "--live-enrolments",
    type=_count,
    default=20_000,
    show_default=True,
    help="Rows of enrolments that are followed after their copy.",
)
@click.option(
    "--tenant-users",
    type=_count,
    default=10_000,
    show_default=True,
    help="Users of all tenants; three of five are moved.",
)
@click.option("--seed", default=1, show_default=True, help="Two runs with one seed agree.")
def demo(
    job: str,
    enrolments: int,
    users: int,
    customers: int,
    tenant_users: int,
    live_enrolments: int,
    seed: int,
) -> None:
    """Fill sample tables, migrate them through Dagster, and prove that they arrived.

    Starts Cassandra, Kafka, DynamoDB Local, PostgreSQL, Neo4j and a stand-in of Sunbird's services
    on this machine, as the jobs need them. What is there already is used again, but for the
    tenants and the enrolments that are followed: these are made anew, and with the tenants the
    plans and backups of their move.
    """
    from migration_platform.errors import MigrationError

    counts = {
        "enrolments": enrolments,
        "users": users,
        "customers": customers,
        "tenant": tenant_users,
        "sync": live_enrolments,
    }
    counts = counts if job == "all" else {job: counts[job]}
    try:
        from migration_platform.demo.demo import run_demo

        done = run_demo(counts=counts, seed=seed, home=None, echo=click.echo)
    except (MigrationError, LocalStackError) as error:
        raise click.ClickException(str(error)) from error
    if not done:
        raise SystemExit(1)


@main.command("import-cdm")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of definitions in a Dagster project: its defs folder.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As --conf; may be repeated."
)
@click.option(
    "--stores", default="cdm", show_default=True, help="What the names of the stores begin with."
)
@click.option(
    "--timestamp-key",
    "timestamp_keys",
    multiple=True,
    metavar="COLUMN",
    help="A timestamp of the target's key in which null becomes what the file says; by default"
    " all are.",
)
@click.option(
    "--job",
    type=click.Choice(JOBS),
    help="What the file is for, as --class says: to migrate and compare, to compare alone, or to"
    " count large cells; yugabyte-migrate and yugabyte-validate are for YSQL. By default a file"
    " that names an origin only, and how large a cell may be, is for guardrail, every other for"
    " migrate, to the kind of target that it names.",
)
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@click.option(
    "--list-properties", is_flag=True, help="Show every property, and what becomes of it."
)
def import_cdm(
    file: Path | None,
    output: Path | None,
    overrides: Sequence[str],
    stores: str,
    timestamp_keys: Sequence[str],
    job: str | None,
    force: bool,
    list_properties: bool,
) -> None:
    """Turn a properties file of the Cassandra Data Migrator into defs.yaml files.

    Passwords are not written: the report says which environment variables are to hold them.
    """
    from migration_platform.cdm import properties as cdm_properties
    from migration_platform.cdm.import_cdm import import_file
    from migration_platform.errors import DeclarationError

    if list_properties:
        click.echo(cdm_properties.list_properties())
        return
    if file is None or output is None:
        raise click.UsageError("Name a FILE and an --output folder, or use --list-properties.")
    try:
        for line in import_file(
            file,
            output,
            overrides,
            prefix=stores,
            timestamp_keys=timestamp_keys,
            job=job,
            force=force,
        ):
            click.echo(line)
    except DeclarationError as error:
        raise click.ClickException(str(error)) from error


@main.group()
def local() -> None:
    """Run real servers on this machine, without Docker or a system Java.

    All of them listen on 127.0.0.1 only and keep everything in one folder: .migration-platform in
    the current directory, or what --home or MIGRATION_PLATFORM_HOME names. Delete it when the
    servers are down to start from nothing.
    """


home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the servers' data, logs and jars.  [default: $MIGRATION_PLATFORM_HOME, else"
    " .migration-platform]",
)

names_argument = click.argument(
    "names", nargs=-1, type=click.Choice(tuple(SERVERS)), metavar="[NAME]..."
)


@local.command(
    epilog="Default ports: "
    + ", ".join(f"{name} {server.default_port}" for name, server in SERVERS.items())
    + "."
)
@names_argument
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="NAME=PORT",
    help="Another port for a server, as in cassandra=9142; may be repeated.",
)
@home_option
def up(names: Sequence[str], ports: Sequence[str], home: Path | None) -> None:
    """Start servers and wait until they answer.

    NAME is cassandra, kafka, dynamodb, postgres, neo4j or sunbird; without one, all of them start.
    A server that runs already is left alone. The first start downloads the server's jars and checks
    them; later ones need no network.

    sunbird is a stand-in of Sunbird's sync and search APIs. It indexes the rows of the keyspace
    sunbird in this folder's Cassandra, and takes the API key local-sunbird.
    """
    from migration_platform.local.stack import start_all

    servers = [SERVERS[name]() for name in dict.fromkeys(names or SERVERS)]
    try:
        start_all(servers, home=home, ports=_parse_ports(ports), report=_say)
    except LocalStackError as error:
        raise click.ClickException(str(error)) from error


@local.command()
@names_argument
@home_option
def down(names: Sequence[str], home: Path | None) -> None:
    """End servers that `up` started; without a NAME, all of them.

    Their data stays, and the next `up` finds it.
    """
    from migration_platform.local.stack import stop

    with ThreadPoolExecutor() as pool:
        ends = [
            pool.submit(stop, name, home=home, report=_say)
            for name in dict.fromkeys(names or SERVERS)
        ]
        for end in ends:
            end.result()


@local.command("status")
@click.option("--json", "as_json", is_flag=True, help="Write JSON for programs.")
@home_option
def local_status(as_json: bool, home: Path | None) -> None:
    """Say which servers run, and where their logs are.

    A server is running (it has answered), starting, dead (it ended without `down`) or stopped.
    """
    from migration_platform.local.stack import status

    rows = {
        row.name: {
            "state": row.state,
            "address": row.server.address if row.server else None,
            "port": row.server.port if row.server else None,
            "pid": row.server.pid if row.server else None,
            "log": str(row.server.log) if row.server else None,
        }
        for row in status(home=home)
    }
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for name, row in rows.items():
        where = f"{row['address']}  process {row['pid']}  log {row['log']}" if row["pid"] else ""
        click.echo(f"{name:10} {row['state']:9} {where}".rstrip())


@local.command("lock", hidden=True)
@home_option
@click.option(
    "--file",
    "lock",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Another lock than that of the local servers.",
)
def local_lock(home: Path | None, lock: Path | None) -> None:
    """Resolve the servers' artefacts again and rewrite the lock of their jars.

    The headers of the lock say which artefacts and versions; edit them first.
    """
    from migration_platform.local.jars import LOCK_PATH, renew_lock
    from migration_platform.local.stack import home_folder

    try:
        renew_lock(cache=home_folder(home) / "resolver", lock=lock or LOCK_PATH, report=_say)
    except LocalStackError as error:
        raise click.ClickException(str(error)) from error


def _parse_ports(values: Sequence[str]) -> dict[str, int]:
    """Read `cassandra=9142`.

    Raises:
        click.BadParameter: It is not a server's name, an equals sign and a port.
    """
    ports = {}
    for value in values:
        name, _, port = value.partition("=")
        if name not in SERVERS or not port.isdecimal() or not 0 < int(port) < 65536:
            raise click.BadParameter(
                f"{value!r} is not NAME=PORT with a NAME of {', '.join(SERVERS)} and a PORT from 1"
                " to 65535.",
                param_hint="--port",
            )
        ports[name] = int(port)
    return ports


def _say(line: str) -> None:
    """Write a progress line above a progress bar if there is one."""
    import sys

    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
