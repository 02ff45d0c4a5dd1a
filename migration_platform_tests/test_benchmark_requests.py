"""What requests cost a server is divided rightly; the client without a driver writes all rows."""

import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.raw import RawClient, make_bodies
from benchmarks.requests import QUORUM, make_rows, reading_ways, writing_ways
from benchmarks.requests_page import PACE, Turn, split_cost, write_page
from benchmarks.server_profile import (
    COMPILER,
    OTHER,
    REQUESTS,
    WAITING,
    Stacks,
    Used,
    Watch,
    group_of,
    work_of,
)
from migration_platform.demo import sample
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform_tests.tables import patient_connection

ROWS = 300


def turn(rows_per_second: float, cores: float, seconds_a_row: float) -> Turn:
    used = cores + seconds_a_row * rows_per_second
    seconds = {REQUESTS: used, COMPILER: 5.0}
    return Turn(round(rows_per_second), 1.0, 0.5, Used(seconds, {REQUESTS: 100}))


def test_threads_belong_to_the_group_that_their_names_begin_with() -> None:
    assert group_of("Native-Transpor") == group_of("MutationStage-1") == REQUESTS
    assert group_of("C2 CompilerThre") == COMPILER
    assert group_of("something") == OTHER


def test_a_stack_counts_for_the_innermost_of_what_is_looked_for() -> None:
    handled = ["java.lang.Math.max", "org.apache.cassandra.transport.messages.BatchMessage.execute"]
    stored = ["org.apache.cassandra.db.memtable.TrieMemtable.put", *handled]

    assert work_of(handled) == "parsing, binding, results"
    assert work_of(stored) == "memtable"
    assert work_of(["org.apache.cassandra.concurrent.SEPWorker.run"]) == WAITING


def test_the_compiler_is_no_part_of_what_a_row_costs() -> None:
    assert turn(1_000, 0.2, 30e-6).server_us == pytest.approx(230)


def test_a_cost_is_split_in_that_of_a_second_and_that_of_a_row() -> None:
    turns = [turn(pace, 0.2, 30e-6) for pace in (500, 1_000, 4_000)]

    assert split_cost(turns) == pytest.approx((0.2, 30e-6))


def test_the_page_has_a_line_for_each_way_and_what_was_recorded(tmp_path: Path) -> None:
    turns = {(PACE, f"{pace} a second"): [turn(pace, 0.2, 30e-6)] for pace in (500, 1_000)}
    name, [first] = next(iter(turns.items()))
    stacks = Stacks(Counter({"memtable": 1, WAITING: 1}), sleeps=10, lookouts=9)

    page = write_page(
        tmp_path,
        turns,
        {name: (first, stacks)},
        command="it",
        rows=ROWS,
        runs=1,
        machine={"cores": "2"},
        versions={"Cassandra": "5.0.6"},
    ).read_text()

    assert "| 500 a second | 500 | 1,000 | 430 (430 to 430) |" in page
    assert "0.20 of a core as long as requests come, however few, and 30 µs for each" in page
    assert "| 430 | 0% | 50% | 0% | 0% | 0% | 0% | 50% | 0.2 | 90% |" in page


def test_no_two_ways_share_a_name() -> None:
    ways = [*writing_ways(), *reading_ways()]

    assert len({(way.section, way.name) for way in ways}) == len(ways)


def test_a_client_without_a_driver_writes_every_row_at_the_pace_it_is_told(
    cassandra: Running,
) -> None:
    keyspace = "benchmark_requests"
    with patient_connection(CassandraSettings(port=cassandra.port)) as connection:
        sample.create_tables(connection, keyspace)
        names = [name for name, _ in sample.COLUMNS]
        marks = ", ".join("?" * len(names))
        table = f"{keyspace}.{sample.TARGET_TABLE}"
        insert = connection.prepare(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})")
        bodies = make_bodies(insert, make_rows(insert, ROWS).unset, QUORUM)
        watch = Watch(cassandra.pid)
        watch.look()
        client, began = RawClient(LOCALHOST, cassandra.port), time.monotonic()
        try:
            client.write(bodies, 8, pace=3 * ROWS)
            assert time.monotonic() - began > 0.3
            client.write(bodies, 8)
            with pytest.raises(OSError, match="the server answers with 0"):
                client.write([bodies[0][:-1]], 8)
        finally:
            client.close()

        found = connection.session.execute(f"SELECT count(*) FROM {table}").one()
        assert found == (ROWS,)
        used = watch.look()
        assert used.seconds[REQUESTS] > 0
        assert used.sleeps[REQUESTS] > 0
