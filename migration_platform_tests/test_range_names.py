"""Names of ranges as people write them, as Dagster has them, and what is said of those between."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from migration_platform.cli import main
from migration_platform.errors import DeclarationError
from migration_platform.token_ranges import find_ranges, split_ring
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    Move,
    Project,
    make_project,
)

pytestmark = DAGSTERS_OWN_WARNINGS

ASSETS = "reports/ks/b,reports/ks/b_diff"


@pytest.mark.parametrize(
    ("text", "count", "first", "last"),
    [
        ("0", 4, "00-of-4", "00-of-4"),
        ("03", 4, "03-of-4", "03-of-4"),
        ("0-of-4", 4, "00-of-4", "00-of-4"),
        ("00-of-4", 4, "00-of-4", "00-of-4"),
        ("0-of-04", 4, "00-of-4", "00-of-4"),
        ("7", 128, "007-of-128", "007-of-128"),
        ("7-of-128", 128, "007-of-128", "007-of-128"),
        ("0...3", 16, "00-of-16", "03-of-16"),
        ("0..3", 16, "00-of-16", "03-of-16"),
        (" 0 ... 3 ", 16, "00-of-16", "03-of-16"),
        ("0-of-16...03-of-16", 16, "00-of-16", "03-of-16"),
        ("5...5", 16, "05-of-16", "05-of-16"),
        ("all", 16, "00-of-16", "15-of-16"),
        ("ALL", 1, "00-of-1", "00-of-1"),
    ],
)
def test_a_name_is_found_however_it_is_written(
    text: str, count: int, first: str, last: str
) -> None:
    found = find_ranges(text, count)

    assert (found[0].key, found[-1].key) == (first, last)
    assert found == split_ring(count)[found[0].index : found[-1].index + 1]


@pytest.mark.parametrize(
    ("text", "count", "told"),
    [
        ("4", 4, "4 names no range; valid are all, and 00-of-4 to 03-of-4"),
        ("0-of-8", 4, "0-of-8 names no range; valid are all, and 00-of-4 to 03-of-4"),
        ("-1", 4, "-1 names no range; valid are all, and 00-of-4 to 03-of-4"),
        ("first", 4, "first names no range; valid are all, and 00-of-4 to 03-of-4"),
        ("", 4, "nothing names no range; valid are all, and 00-of-4 to 03-of-4"),
        ("1", 1, "1 names no range; valid are all, and 00-of-1"),
        ("0...9", 4, "9 names no range; valid are all, and 00-of-4 to 03-of-4"),
        ("3...1", 4, "3...1 ends before it begins; write 01-of-4...03-of-4"),
        ("0...1...2", 4, "0...1...2 names 3 ranges; write the first and the last"),
        ("9" * 400, 4, "9" * 400 + " names no range; valid are all, and 00-of-4 to 03-of-4"),
    ],
)
def test_a_name_of_no_range_is_refused_with_those_that_there_are(
    text: str, count: int, told: str
) -> None:
    with pytest.raises(DeclarationError) as refused:
        find_ranges(text, count)

    assert str(refused.value) == told


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose stores nobody asks, with a table, one in several runs, and a check."""
    project = make_project(tmp_path, cassandra_port=9)
    for name, more in (("b", {}), ("p", {"ranges_per_run": 4})):
        project.declare(
            name,
            "TableMigration",
            origin={"store": "sunbird", "table": "ks.a"},
            target={"store": "reports", "table": f"ks.{name}"},
            **more,
        )
    project.declare(
        "large", "GuardrailCheck", origin={"store": "sunbird", "table": "ks.a"}, max_column_kb=9
    )
    return project


def launch(project: Project, *arguments: str) -> Result:
    path = list(sys.path)
    try:
        command = ["launch", "--project", str(project.folder), "--print", *arguments]
        return CliRunner().invoke(main, command)
    finally:
        sys.path[:] = path


def test_the_command_prints_what_dg_is_to_launch(project: Project) -> None:
    config = json.dumps({"ops": {}})
    for arguments, expected in (
        (("ks.b",), f"--assets {ASSETS} --partition-range 00-of-64...63-of-64"),
        (("ks.b", "all"), f"--assets {ASSETS} --partition-range 00-of-64...63-of-64"),
        (("reports/ks/b", "0-of-64"), f"--assets {ASSETS} --partition 00-of-64"),
        (("ks.b", "0...3"), f"--assets {ASSETS} --partition-range 00-of-64...03-of-64"),
        (("ks.b", "7", "--only", "copy"), "--assets reports/ks/b --partition 07-of-64"),
        (("ks.b", "7", "--only", "comparison"), "--assets reports/ks/b_diff --partition 07-of-64"),
        (("ks.p", "7"), "--assets reports/ks/p,reports/ks/p_diff --partition 07-of-64"),
        (("sunbird/ks/a_large_cells",), "--assets sunbird/ks/a_large_cells"),
        (
            ("ks.b", "7", "--config-json", config),
            f"--assets {ASSETS} --partition 07-of-64 --config-json '{config}'",
        ),
    ):
        ended = launch(project, *arguments)
        assert (ended.exit_code, ended.output) == (0, f"dg launch {expected}\n"), arguments


def test_the_command_refuses_what_no_run_can_do(project: Project) -> None:
    for arguments, told in (
        (("ks.b", "64"), "64 names no range; valid are all, and 00-of-64 to 63-of-64"),
        (
            ("ks.c",),
            "no migration is called ks.c; valid are reports/ks/b, reports/ks/p, "
            "sunbird/ks/a_large_cells",
        ),
        (
            ("ks.p", "all"),
            "ks.p declares ranges_per_run, and `dg launch` runs no range of partitions of such a "
            "table; name one range, or start a backfill in the UI",
        ),
        (
            ("sunbird/ks/a_large_cells", "7"),
            "sunbird/ks/a_large_cells only reads, and all of its table; name no ranges",
        ),
    ):
        ended = launch(project, *arguments)
        assert (ended.exit_code, ended.output) == (1, f"Error: {told}\n"), arguments


def test_dg_launch_refuses_a_name_that_is_none_with_the_right_one(project: Project) -> None:
    launched: Any = ("launch", "--assets", ASSETS)
    for option, told in (
        (("--partition", "0-of-64"), "Dagster has no partition 0-of-64; write 00-of-64"),
        (
            ("--partition", "all"),
            "Dagster has no partition all; write --partition-range 00-of-64...63-of-64",
        ),
        (
            ("--partition-range", "0...03-of-64"),
            "Dagster has no partition 0; write 00-of-64",
        ),
        (
            ("--partition", "0-of-4"),
            "0-of-4 names no range; valid are all, and 00-of-64 to 63-of-64",
        ),
    ):
        ended = project.run_dg(*launched, *option)
        assert (ended.code, ended.output) == (1, f"Error: {told}\n"), option


def test_the_command_launches_the_ranges_and_ends_as_dg_does(move: Move) -> None:
    program = str(Path(sys.executable).with_name("migration-platform"))
    name = f"{move.keyspace}.{move.target_name}"

    launched = move.project.start(program, "launch", name, "6")
    output, _ = launched.communicate(timeout=300)
    assert launched.returncode == 0, output
    assert output.startswith(f"dg launch --assets {move.selection} --partition {KEYS[6]}\n")
    assert move.target_rows() == move.origin_rows(KEYS[6])

    move.execute("DROP TABLE {target}")
    failed = move.project.start(program, "launch", name, "0...1")
    output, _ = failed.communicate(timeout=300)
    assert failed.returncode == 1, output
