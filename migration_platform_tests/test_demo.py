"""The demo as a newcomer runs it, on servers and in a folder of its own."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from migration_platform.local.servers import Cassandra, Kafka, free_port
from migration_platform.local.stack import start_all, stop
from migration_platform.sample import COLUMNS, enrolments
from migration_platform_tests.servers import jars_folder


def test_two_sample_sets_with_one_seed_are_the_same_row_for_row():
    first, second = list(enrolments(3_000, seed=7)), list(enrolments(3_000, seed=7))
    assert first == second
    assert first != list(enrolments(3_000, seed=8))


def test_sample_rows_have_keys_of_their_own_and_known_columns():
    rows = list(enrolments(5_000))
    keys = {(row["userid"], row["courseid"], row["batchid"]) for row in rows}
    assert len(keys) == len(rows) == 5_000
    assert {column for row in rows for column in row} <= {name for name, _ in COLUMNS}


def test_a_larger_sample_begins_with_users_of_the_same_ids():
    users = [row["userid"] for row in islice(enrolments(2_000), 100)]
    assert users == [row["userid"] for row in islice(enrolments(4_000), 100)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_tiny_sample_has_as_many_rows_as_asked_for(count: int):
    assert len(list(enrolments(count))) == count


def run_demo(home: Path, enrolled: int) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "MIGRATION_PLATFORM_HOME": str(home),
        "MIGRATION_PLATFORM_JARS": str(jars_folder()),
        "DAGSTER_HOME": str(home / "dagster"),
    }
    return subprocess.run(
        [Path(sys.executable).parent / "migration-platform", "demo", "--enrolments", str(enrolled)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_demo_migrates_proves_and_sums_up_and_a_second_one_reuses_what_is_there(tmp_path: Path):
    ports = {"cassandra": free_port(), "kafka": free_port()}
    try:
        # Ports that were chosen before are the ones that the demo finds and uses.
        start_all([Cassandra(), Kafka()], home=tmp_path, ports=ports, jars_folder=jars_folder())
        first = run_demo(tmp_path, 2_000)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "check row_counts_match  passed: 2,000 rows on both sides." in first.stdout
        assert (
            "check all_ranges_match  passed: All 64 ranges match: 2,000 rows, each cell with its "
            "writetime and TTL." in first.stdout
        )
        assert '"id": "total-records-migrated", "value": 2000' in first.stdout
        assert "make ui" in first.stdout
        assert "\r" not in first.stdout

        assert "2,000 in the target" in first.stdout
        assert "rows a second" in first.stdout

        second = run_demo(tmp_path, 2_000)
        assert second.returncode == 0, second.stdout + second.stderr
        assert "2,000 enrolments are there already" in second.stdout
    finally:
        for name in ports:
            stop(name, home=tmp_path)
