"""`sample users` fills a table of any declared Cassandra, and spares what is there."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cassandra.cluster import Session
from click.testing import CliRunner, Result

from migration_platform.cli import main
from migration_platform.local.stack import Running
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, make_project
from migration_platform_tests.pages import Clone, make_clone, shell_blocks
from migration_platform_tests.servers import PATIENCE_SECONDS

pytestmark = DAGSTERS_OWN_WARNINGS
Fill = Callable[..., Result]


@pytest.fixture
def fill(tmp_path: Path, cassandra: Running) -> Fill:
    """The command in a project with the store `sunbird`."""
    project = make_project(tmp_path, cassandra_port=cassandra.port)

    def run(*arguments: str) -> Result:
        given = ("sample", "users", "--store", "sunbird", "--project", str(project.folder))
        return CliRunner().invoke(main, [*given, *arguments])

    return run


def count(reader: Session, table: str) -> int:
    (row,) = reader.execute(f"SELECT count(*) AS n FROM {table}", timeout=PATIENCE_SECONDS)
    return row["n"]


def test_users_are_made_with_their_keyspace_and_table(
    fill: Fill, reader: Session, keyspace: str
) -> None:
    reader.execute(f"DROP KEYSPACE {keyspace}", timeout=PATIENCE_SECONDS)

    done = fill("--rows", "2500", "--keyspace", keyspace)

    assert done.exit_code == 0, done.output
    assert f"2,500 users in {keyspace}.users of the store sunbird, in " in done.output
    rows = list(reader.execute(f"SELECT * FROM {keyspace}.users", timeout=PATIENCE_SECONDS))
    assert len(rows) == 2500
    numbers = {int(row["name"].removeprefix("User")) for row in rows}
    assert numbers == set(range(2500))
    for row in rows:
        assert row["email"] == row["name"].lower() + "@example.com"
        assert row["id"].version == 1


def test_a_table_that_has_rows_is_refused_unless_asked(
    fill: Fill, reader: Session, keyspace: str
) -> None:
    given = ("--keyspace", keyspace, "--table", "People")
    assert fill("--rows", "10", *given).exit_code == 0

    refused = fill("--rows", "20", "--seed", "2", *given)
    assert refused.exit_code == 1
    assert "has rows already; name another --table, or write them beside with --add" in (
        refused.output
    )
    table = f'{keyspace}."People"'
    assert count(reader, table) == 10

    assert fill("--rows", "20", "--add", *given).exit_code == 0
    assert count(reader, table) == 20
    assert fill("--rows", "5", "--add", "--seed", "2", *given).exit_code == 0
    assert count(reader, table) == 25


def test_another_table_of_that_name_is_left_alone(
    fill: Fill, reader: Session, keyspace: str
) -> None:
    reader.execute(f"CREATE TABLE {keyspace}.users (id uuid PRIMARY KEY, secret text)")

    refused = fill("--keyspace", keyspace, "--add")

    assert refused.exit_code == 1
    assert "no table of users: it has id, secret; name another --table" in refused.output


def test_a_store_that_is_not_there_is_told_with_those_that_are(fill: Fill) -> None:
    refused = fill("--store", "nowhere")

    assert refused.exit_code == 1
    assert "there is no cassandra store nowhere" in refused.output
    assert "valid are sunbird, reports" in refused.output


@pytest.fixture
def clone(
    tmp_path: Path, cassandra: Running, dynamodb: Running, reader: Session
) -> Iterator[Clone]:
    ports = {"cassandra": cassandra.port, "dynamodb": dynamodb.port}
    yield make_clone(tmp_path / "clone", ports)
    reader.execute("DROP KEYSPACE IF EXISTS test", timeout=PATIENCE_SECONDS)


def test_the_first_try_of_the_page_runs_as_printed_and_ends_with_the_sentence(
    clone: Clone, reader: Session
) -> None:
    setup, commands = shell_blocks("dynamodb.md", "A first try on this machine")
    # The servers are those of the tests; a user's first try makes the instance with the demo.
    setup = re.sub("^migration-platform local up .*$", "", setup, flags=re.MULTILINE)
    (clone.home / "dagster").mkdir(parents=True)
    (clone.home / "dagster" / "dagster.yaml").write_text(
        (clone.folder / "deploy" / "local" / "dagster.yaml").read_text()
    )

    for command in commands.splitlines():
        done = clone.run(setup + command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    assert count(reader, "test.users") == 10_000
    told = (done.stdout + done.stderr).splitlines()
    (sentence,) = [n for n, line in enumerate(told) if "Data migration completed" in line]
    assert told[sentence].endswith("Data migration completed successfully.")
    of_the_run = [n for n, line in enumerate(told) if " - INFO - " in line]
    assert of_the_run[-1] == sentence
