"""A project of one's own: made by a command, and led to its first proven range as the page says."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from cassandra.cluster import Session
from click.testing import CliRunner

from migration_platform import new_command
from migration_platform.cli import main
from migration_platform.cql.names import TableName
from migration_platform.local.stack import Running
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, make_project
from migration_platform_tests.servers import REPOSITORY
from migration_platform_tests.tables import rows_of
from migration_platform_tests.test_docs import Block, blocks_of

pytestmark = DAGSTERS_OWN_WARNINGS

PAGE = REPOSITORY / "docs" / "first-migration.md"
BIN = Path(sys.executable).parent
NOT_RUN = {
    "python3 -m venv venv && source venv/bin/activate": "the package of this environment is used",
    "pip install '/path/to/the/clone[local]'": "the package of this environment is used",
    "migration-platform local up cassandra": "the Cassandra of the tests stands for it",
    "dg dev": "it serves until it is stopped",
    "migration-platform local down": "the Cassandra of the tests stands for it",
}
COPIED = r"\b{}: (\d+) rows read, \1 written"


@dataclass
class Shell:
    """A shell in an empty folder, with nothing but this package in its environment."""

    folder: Path
    home: Path
    exported: dict[str, str] = field(default_factory=dict)

    def run(self, line: str, **variables: str) -> tuple[int, str]:
        """Run a line as it is printed; gives its code and all that it wrote."""
        if line.startswith("cd "):
            self.folder /= line.removeprefix("cd ")
            return 0, ""
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.exported[name] = value.replace("$PWD", str(self.folder))
            return 0, ""
        ended = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env={
                "PATH": f"{BIN}{os.pathsep}/usr/bin{os.pathsep}/bin",
                # Of several checkouts, the one that is tested.
                "PYTHONPATH": str(REPOSITORY),
                "HOME": str(self.home),
                # Whoever asked the network would be refused.
                **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
                "NO_COLOR": "1",
                "COLUMNS": "400",
                **self.exported,
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return ended.returncode, ended.stdout

    def must(self, line: str, **variables: str) -> str:
        code, output = self.run(line, **variables)
        assert code == 0, f"{line}\n{output}"
        return output

    def point_at(self, port: int) -> None:
        """Let the stores be where the tests' Cassandra is."""
        (file,) = self.folder.glob("*/defs/stores/defs.yaml")
        file.write_text(file.read_text().replace("9042", str(port)))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    for name in ("empty", "home"):
        (tmp_path / name).mkdir()
    return Shell(tmp_path / "empty", tmp_path / "home")


@pytest.fixture
def shop(reader: Session) -> Iterator[None]:
    """The keyspaces of the page, gone after the test."""
    yield
    for keyspace in ("shop", "new_shop"):
        reader.execute(f"DROP KEYSPACE IF EXISTS {keyspace}", timeout=60)


def lines_of(block: Block) -> list[str]:
    return [line for line in block.text.splitlines() if line]


# -- the page ----------------------------------------------------------------------------------


def test_the_page_leads_from_an_empty_folder_to_a_proven_table(
    shell: Shell, cassandra: Running, reader: Session, shop: None
) -> None:
    skipped, told = set(), {}
    for block in blocks_of(PAGE):
        if block.language == "python":
            there = f'Cluster(["127.0.0.1"], port={cassandra.port})'
            text = block.text.replace('Cluster(["127.0.0.1"])', there)
            assert text != block.text
            (shell.folder / "fill.py").write_text(text)
        for line in lines_of(block) if block.language == "shell" else ():
            if line in NOT_RUN:
                skipped.add(line)
                continue
            told[line] = shell.must(line)
            if line.startswith("migration-platform new "):
                made = told[line]
            elif line.startswith("cd "):
                shell.point_at(cassandra.port)
    assert skipped == NOT_RUN.keys()

    for command in made.split("Then, in that folder:\n")[1].splitlines():
        assert command.strip() in told
    first = told["migration-platform launch new_shop.orders 0"]
    (printed,) = [
        block.text
        for block in blocks_of(PAGE)
        if block.text.startswith("dg launch --as") and block.language == ""
    ]
    assert first.splitlines()[0] == printed
    assert re.search(COPIED.format("00-of-64"), first)
    rows = rows_of(reader, TableName("new_shop", "orders"))
    assert len(rows) == 2000
    assert rows == rows_of(reader, TableName("shop", "orders"))
    assert "all_ranges_match" in told["migration-platform launch new_shop.orders all"]
    assert "MIGRATE" in told["migration-platform status new_shop.orders"]
    assert "VALIDATE" in told["migration-platform status new_shop.orders"]
    assert not list(shell.home.rglob("*telemetry*"))


def test_the_page_shows_the_files_as_they_are_made() -> None:
    shown = [block.text + "\n" for block in blocks_of(PAGE) if block.language == "yaml"]
    assert shown == [new_command.STORES, new_command.TABLE]


# -- the command -------------------------------------------------------------------------------


def test_what_is_made_is_all_that_the_first_run_needs_and_no_secret_is_committed(
    shell: Shell,
) -> None:
    shell.must("migration-platform new my-moves")

    folder = shell.folder / "my-moves"
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {
        "pyproject.toml",
        "my_moves/__init__.py",
        "my_moves/definitions.py",
        "my_moves/defs/stores/defs.yaml",
        "my_moves/defs/orders/defs.yaml",
        "dagster_home/dagster.yaml",
        ".env",
        ".env.example",
        ".gitignore",
    }
    settings = yaml.safe_load((folder / "dagster_home" / "dagster.yaml").read_text())
    assert (settings["telemetry"], settings["nux"]) == ({"enabled": False}, {"enabled": False})
    assert f"DAGSTER_HOME={folder}/dagster_home\n" in (folder / ".env").read_text()
    assert str(folder) not in (folder / ".env.example").read_text()
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    assert ".env" in (folder / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("full", "Error: {folder}/full is not empty; name a folder that is not there yet\n"),
        (
            "1st",
            "Error: 1st cannot be the name of a Python package; name a folder that begins with a "
            "letter\n",
        ),
        ("dagster", "Error: a Python package is called dagster already; name another one\n"),
        (
            "migration-platform",
            "Error: a Python package is called migration_platform already; name another one\n",
        ),
    ],
)
def test_a_folder_that_cannot_become_a_project_is_refused_and_left_as_it_is(
    tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()

    ended = CliRunner().invoke(main, ["new", str(tmp_path / name)])

    assert (ended.exit_code, ended.output) == (1, told.format(folder=tmp_path))
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == [
        "full",
        "full/mine.txt",
    ]


def test_an_empty_folder_that_is_there_is_taken(tmp_path: Path) -> None:
    (tmp_path / "moves").mkdir()
    ended = CliRunner().invoke(main, ["new", str(tmp_path / "moves")])
    assert ended.exit_code == 0, ended.output


def test_commands_take_passwords_from_the_projects_file(
    shell: Shell, cassandra: Running, shop: None
) -> None:
    shell.must("migration-platform new moves")
    shell.run("cd moves")
    shell.point_at(cassandra.port)
    assert shell.must("migration-platform status").startswith("new/new_shop.orders: rate: ")

    (shell.folder / ".env").write_text("OLD_PASSWORD=x\n")
    code, told = shell.run("migration-platform status")
    assert code == 1
    assert told == (
        "Error: the environment variable NEW_PASSWORD, which holds the password of the store new, "
        "is not set\n"
    )


# -- without a home ----------------------------------------------------------------------------

FORGETS = (
    "ks.b: DAGSTER_HOME is not set, so which ranges are copied would be forgotten with this run, "
    "and the checks would be wrong; set it to a folder, by its whole path, or set "
    "MIGRATION_PLATFORM_FORGET=1 if all of it may be forgotten"
)


@pytest.mark.parametrize("asset", ["reports/ks/b", "reports/ks/b_diff"])
def test_a_run_that_dagster_would_forget_is_refused_before_a_store_is_asked(
    tmp_path: Path, asset: str
) -> None:
    project = make_project(tmp_path, cassandra_port=9)
    sides = {"origin": {"store": "sunbird", "table": "ks.a"}}
    sides["target"] = {"store": "reports", "table": "ks.b"}
    project.declare("copy", "TableMigration", **sides, retry_seconds=0)
    launch = ("launch", "--assets", asset, "--partition", "00-of-64")

    refused = project.run_dg(*launch, DAGSTER_HOME="")
    assert refused.code != 0
    assert FORGETS in refused.output.splitlines()
    assert "cannot connect" not in refused.output

    wanted = project.run_dg(*launch, DAGSTER_HOME="", MIGRATION_PLATFORM_FORGET="1")
    assert "DAGSTER_HOME is not set" not in wanted.output
    assert "ks.b: cannot connect to 127.0.0.1 port 9" in wanted.output


def test_the_commands_of_the_page_are_lines_of_a_shell() -> None:
    for block in blocks_of(PAGE):
        for line in lines_of(block) if block.language == "shell" else ():
            assert shlex.split(line)
