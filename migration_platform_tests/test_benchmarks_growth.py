"""The growing table is as the sample's, and its page says what grew."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.growth import Growth, Setting, make_page, require_disk, write_page
from benchmarks.measuring import Measured, Spent
from benchmarks.peers import KEYSPACE, own
from migration_platform.demo import sample
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform_tests.tables import patient_connection

NEW = own.PEERS[0].works[0].name


def measured(client: float) -> Measured:
    return Measured(Spent(1_000, 2.0, client, client), largest_mb=100.0)


def some_growth(results: dict[tuple[Setting, str], Sequence[Measured]]) -> Growth:
    return Growth(
        "python -m benchmarks.growth",
        1_000,
        1_024,
        {"cores": "2"},
        {"Python": "3"},
        {1_000: 500.0},
        {key: list(runs) for key, runs in results.items()},
    )


def test_a_table_that_grows_holds_every_row_with_the_values_of_the_sample(cassandra) -> None:
    with patient_connection(CassandraSettings(port=cassandra.port)) as connection:
        sample.create_tables(connection, KEYSPACE)
        growth.grow(connection, 0, 500)
        growth.grow(connection, 500, 2_002)
        origin = f"{KEYSPACE}.{sample.ORIGIN_TABLE}"
        rows = list(
            connection.session.execute(
                f"SELECT userid, batchid, contentstatus, enrolleddate FROM {origin}"
            )
        )
        connection.session.execute(f"DROP KEYSPACE {KEYSPACE}")

    assert len(rows) == 2_002
    assert len({user for user, *_ in rows}) == 501
    assert len({batch for _, batch, *_ in rows}) == 8
    assert all(4 <= len(contents) < 12 and enrolled for _, _, contents, enrolled in rows)


def test_every_setting_has_its_line_where_it_belongs() -> None:
    page = make_page(
        some_growth(
            {
                (Setting(1_000), NEW): [measured(0.01), measured(0.02), measured(0.03)],
                (Setting(2_000), NEW): [measured(0.04)],
                (Setting(1_000, workers=4), NEW): [measured(0.02)],
                (Setting(1_000, ranges=256), NEW): [measured(0.02)],
            }
        )
    )
    by_rows, by_workers, by_ranges = (
        page.partition(f"## By {what}")[2].partition("## ")[0]
        for what in ("rows", "workers", "ranges")
    )

    assert "| 1,000 | 500 (500 to 500) | 20 (10 to 30) | 20 (10 to 30) | 100 (" in by_rows
    assert "|  | 2,000 | 500 | 40 | 40 | 100 | 1 |" in by_rows
    assert "2,000 for 1,000 rows: 1.00 times the rows a second, 2.00 times the client's" in by_rows
    assert "|  | 4 | 500 | 20 |" in by_workers
    assert "256" not in by_workers
    assert "|  | 256 | 500 | 20 |" in by_ranges


def test_page_and_numbers_are_written_side_by_side(tmp_path: Path) -> None:
    page, numbers = write_page(some_growth({(Setting(1_000), NEW): [measured(0.01)]}), tmp_path)

    assert page.name == "benchmarks-growth.md"
    assert json.loads(numbers.read_text())["results"][0]["ranges"] == 64


def test_more_rows_than_the_disk_holds_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="take fewer --rows or another MIGRATION_PLATFORM_HOME"):
        require_disk(10**12, tmp_path)
