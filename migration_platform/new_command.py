"""What a person begins with: `new` makes a Dagster project that has two stores and one table."""

import re
from importlib.util import find_spec
from pathlib import Path

import click

PYPROJECT = """\
[project]
name = "{module}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["migration-platform"]

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{module}"

[tool.dg.cli]
suppress_warnings = ["project_and_activated_venv_mismatch"]
"""
DEFINITIONS = '''\
"""Everything that the folder `defs` declares."""

from pathlib import Path

import dagster as dg
from migration_platform.components.loading import load_definitions


@dg.definitions
def defs():
    return load_definitions(Path(__file__).parent)
'''
STORES = """\
type: migration_platform.Stores
attributes:
  cassandra:
    old:
      contact_points: [127.0.0.1]
      port: 9042
      username: reader
      password: {env: OLD_PASSWORD}
    new:
      contact_points: [127.0.0.1]
      port: 9042
      username: writer
      password: {env: NEW_PASSWORD}
"""
TABLE = """\
type: migration_platform.TableMigration
attributes:
  origin: {store: old, table: shop.orders}
  target: {store: new, table: new_shop.orders}
"""
DAGSTER = """\
# Nothing leaves this machine, as long as the shell names this folder as its DAGSTER_HOME.
telemetry:
  enabled: false
nux:
  enabled: false
run_monitoring:
  enabled: true
"""
ENVIRONMENT = """\
# dg reads .env in the folder in which it is called; never commit it.
# Where Dagster keeps what runs did, by its whole path.
DAGSTER_HOME={home}
OLD_PASSWORD=change-me
NEW_PASSWORD=change-me
"""
IGNORED = """\
.env
.venv/
__pycache__/
dagster_home/*
!dagster_home/dagster.yaml
"""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def new(folder: Path) -> None:
    """Make a project of your own in FOLDER, which is empty or not there yet.

    It declares two Cassandra clusters, whose passwords stand in the file .env, and the migration of
    one table; and it says which commands come next.
    """
    folder = folder.absolute()
    module = _name_module(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} is not empty; name a folder that is not there yet")
    home = folder / "dagster_home"
    texts = {
        "pyproject.toml": PYPROJECT.format(module=module),
        f"{module}/__init__.py": "",
        f"{module}/definitions.py": DEFINITIONS,
        f"{module}/defs/stores/defs.yaml": STORES,
        f"{module}/defs/orders/defs.yaml": TABLE,
        "dagster_home/dagster.yaml": DAGSTER,
        ".env": ENVIRONMENT.format(home=home),
        ".env.example": ENVIRONMENT.format(home="/path/to/this/folder/dagster_home"),
        ".gitignore": IGNORED,
    }
    try:
        for name, text in texts.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600 if name == ".env" else 0o666)
            file.write_text(text)
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be written: {error.strerror}") from error
    click.echo(f"Made {folder}. Say where your clusters are, and what to move:")
    for name in (".env", f"{module}/defs/stores/defs.yaml", f"{module}/defs/orders/defs.yaml"):
        click.echo(f"  {name}")
    click.echo("Then, in that folder:")
    for command in (
        "export DAGSTER_HOME=$PWD/dagster_home",
        "dg check defs",
        "dg launch --assets new/new_shop/orders_plan",
        "migration-platform launch new_shop.orders 0",
    ):
        click.echo(f"  {command}")


def _name_module(folder: Path) -> str:
    """Name the project's Python package as its folder.

    Raises:
        click.ClickException: Python could not import it under that name.
    """
    module = re.sub(r"\W+", "_", folder.name, flags=re.ASCII).lower()
    if not module.isidentifier():
        raise click.ClickException(
            f"{folder.name or folder} cannot be the name of a Python package; name a folder that "
            "begins with a letter"
        )
    found = find_spec(module)
    if found is not None and found.origin is not None:
        raise click.ClickException(f"a Python package is called {module} already; name another one")
    return module
