"""The benchmark of copies to PostgreSQL: all programs write all rows, the page hides nothing."""

from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from benchmarks.measuring import Measured, Spent
from benchmarks.peers import Place
from benchmarks.peers.postgres import (
    AGAIN,
    BARE_COPY,
    COMPARISON,
    COPY,
    EXECUTEMANY,
    LARGE,
    LARGE_KEYSPACE,
    PEERS,
    SINGLE,
    SMALL,
    SMALL_KEYSPACE,
    USUAL,
    WRITER,
    connect,
)
from benchmarks.postgres import Bench, fill, make_tables, measure_run, started
from benchmarks.postgres_page import AIMS, Copies, make_page
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import Connection
from migration_platform_tests.servers import jars_folder

ROWS = 1_200


def measured(rows_per_second: float, client_us: float = 20.0, mb: float = 90.0) -> Measured:
    spent = Spent(1_000, 1_000 / rows_per_second, client_us / 1000, 0.01)
    return Measured(spent, None, 2 * mb, mb, arrived=1_000)


def copies(**changed: Measured) -> Copies:
    results = {
        COPY.name: measured(30_000),
        AGAIN.name: measured(15_000),
        SMALL.name: measured(30_000, mb=60.0),
        LARGE.name: measured(30_000, mb=92.0),
        WRITER.name: measured(50_000),
        SINGLE.name: measured(1_000),
        EXECUTEMANY.name: measured(5_000),
        USUAL.name: measured(8_000),
        BARE_COPY.name: measured(60_000),
    } | changed
    return Copies(
        command="python -m benchmarks.postgres",
        rows=1_000,
        runs=1,
        machine={"cores": "2 cores"},
        versions={"PostgreSQL": "18.1"},
        results={name: [run] for name, run in results.items()},
    )


def test_the_page_says_how_much_faster_a_copy_is_and_which_aims_it_reaches() -> None:
    page = make_page(copies(), PEERS)

    assert "| **this project, copy into an empty table** | 30,000 | 20 | 10 | 90 |" in page
    assert "| of psycopg, INSERT and commit of each row | 30.0 times | 15.0 times |" in page
    single = "| rows a second of single INSERTs | at least 10 times | 30.00 times | 50.00 times |"
    bare = "a bare COPY | at least 0.6 times | 0.50 times, **missed** | 0.83 times |"
    assert single in page
    assert bare in page
    assert "| client CPU | at most 25 µs a row | 20 µs a row | 20 µs a row |" in page
    ready = "rows that stand ready | at least 3 times | 6.00 times | 10.00 times |"
    usual = "has executemany of 25 | at least 3 times | 3.75 times | - |"
    assert ready in page
    assert usual in page
    assert f"| of {USUAL.name} | 3.8 times | 1.9 times | - |" in page
    assert (
        "| largest process with four times the rows | at most 1.1 times | 1.02 times | - |" in page
    )
    assert "All rows arrived in every run" in page
    assert page.count("**missed**") == 1


def test_the_page_tells_of_rows_that_did_not_arrive_and_of_what_a_program_wrote_in_part() -> None:
    lost = Measured(Spent(1_000, 1.0, 0.02, 0.01), None, 90.0, 90.0, arrived=998)

    page = make_page(copies(**{EXECUTEMANY.name: lost}), PEERS)

    assert f"- {EXECUTEMANY.name}: up to 2 rows did not arrive, in 1 of 1 runs." in page
    assert "Slow programs wrote a part of the rows: INSERT and commit of each row 1,000" in page


def test_an_aim_without_a_figure_is_neither_reached_nor_missed() -> None:
    nothing = Copies("it", 1_000, 1, {}, {}, {})

    assert {tuple(aim.tell(nothing)[2:]) for aim in AIMS} == {("-", "-")}


def test_every_program_writes_all_of_its_rows_and_the_page_has_a_line_for_each(
    tmp_path: Path,
    cassandra: Running,
    postgres: Running,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Other tests use the servers, too: they may never be idle.
    monkeypatch.setattr(Bench, "wait_until_idle", lambda self: None)
    place = Place(
        host=LOCALHOST,
        port=cassandra.port,
        dynamodb_url="",
        folder=tmp_path,
        packages=tmp_path,
        jars=jars_folder(),
        postgres_port=postgres.port,
    )
    with ExitStack() as stack:
        for keyspace in ("benchmark", SMALL_KEYSPACE, LARGE_KEYSPACE):
            drop = f"DROP KEYSPACE IF EXISTS {keyspace}"
            stack.callback(connection.session.execute, drop, timeout=60)
        fill(connection, ROWS)
        sql = stack.enter_context(connect(postgres.port))
        sql.execute("DROP SCHEMA IF EXISTS benchmark CASCADE")
        stack.callback(sql.execute, "DROP SCHEMA IF EXISTS benchmark CASCADE")
        servers = psutil.Process(cassandra.pid), psutil.Process(postgres.pid)
        bench = Bench(ROWS, sql, *servers, served={})
        for peer in PEERS:
            bench.served[peer.name] = stack.enter_context(started(peer, place))
        make_tables(bench, PEERS)

        results = measure_run(bench, PEERS, 1)

    works = [work for peer in PEERS for work in peer.works]
    assert set(results) == {work.name for work in works}
    assert [name for name, done in results.items() if done.lost] == []
    assert {results[name].work.rows for name in (COPY.name, COMPARISON.name)} == {ROWS}
    assert {results[work.name].arrived for work in (SMALL, USUAL)} == {ROWS // 4}
    assert results[LARGE.name].arrived == ROWS * 4
    told = Copies("it", ROWS, 1, {}, {}, {name: [done] for name, done in results.items()})
    page = make_page(told, PEERS)
    assert all(f"| {work.name} |" in page or f"| **{work.name}** |" in page for work in works)
