"""Rows that cannot be written: each kind, what is kept of them, and what becomes of them later.

Server limits hold for ordinary users only, so one small server with a login serves what the shared
one cannot refuse.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from os import kill
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.copying.copy import CopyRange, copy_range
from migration_platform.copying.dead_letters import (
    MAX_CAUSE,
    DeadLetter,
    open_dead_letters,
    read_summary,
    slice_of,
    summarize,
)
from migration_platform.copying.replay import ReplayCounts, ensure_dead_letters, replay
from migration_platform.counts import PieceReport, RangeCounts
from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.migration import Guardrails
from migration_platform.errors import MigrationError, PermanentError, PreflightError
from migration_platform.local.cassandra import Cassandra
from migration_platform.plan.model import Plan
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.kinds import plan_between as plan_sides
from migration_platform.stores.work import Reported
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN, split_range, token_of_key
from migration_platform_tests.comparing import OneProcess, compare, found, rehearse_all
from migration_platform_tests.servers import QUICK, SMALL_HEAP_MB, run_server
from migration_platform_tests.tables import (
    create_keyspace,
    create_table,
    declare,
    fill,
    in_process,
    insert_rows,
    patient_connection,
    rows_of,
)

SECRET = "never-in-a-letter"


@pytest.fixture(scope="session")
def strict_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CassandraSettings]:
    """An ordinary user of a server that refuses large cells, collections and mutations."""
    server = Cassandra(
        cluster_name="strict",
        password=True,
        heap_mb=SMALL_HEAP_MB,
        settings={
            "column_value_size_fail_threshold": "100KiB",
            "items_per_collection_fail_threshold": "50",
            "max_mutation_size": "256KiB",
            "native_transport_max_message_size": "8MiB",
            "native_transport_max_frame_size": "8MiB",
            "authorizer": "CassandraAuthorizer",
        },
        properties=QUICK,
    )
    with run_server(server, tmp_path_factory.mktemp("strict")) as running:
        admin = CassandraSettings(port=running.port, username="cassandra", password="cassandra")
        with patient_connection(admin) as connection:
            connection.session.execute("CREATE ROLE mover WITH PASSWORD = 'm' AND LOGIN = true")
            connection.session.execute("GRANT ALL ON ALL KEYSPACES TO mover")
            create_keyspace(connection, "strict")
        yield replace(admin, username="mover", password="m")


@pytest.fixture(scope="session")
def strict_connection(strict_settings: CassandraSettings) -> Iterator[Connection]:
    with patient_connection(strict_settings) as connection:
        yield connection


@pytest.fixture
def strict(strict_connection: Connection) -> Connection:
    """The connection of that user; no letters are there yet."""
    tables = strict_connection.cluster.metadata.keyspaces["strict"].tables  # type: ignore[union-attr]
    if "dead_letters" in tables:
        strict_connection.session.execute("TRUNCATE strict.dead_letters")
    return strict_connection


def plan_between(
    origin_side: Connection, target_side: Connection, origin: TableName, target: TableName,
    **options: Any,
) -> Plan:  # fmt: skip
    options = {"dead_letters_max_rows": 10, "token_ranges": 2, **options}
    options["tracking_keyspace"] = target.keyspace
    plan = plan_sides(declare(origin, target, **options), origin_side, target_side)
    ensure_dead_letters(target_side, plan.migration)
    return plan


def copy_all(
    plan: Plan, origin: Connection, target: Connection | None = None, run_id: str = ""
) -> RangeCounts:
    stores, total = in_process(plan, origin, target), RangeCounts()
    for token_range in plan.migration.ranges:
        counts = copy_range(stores, token_range, lambda _: None, run_id=run_id)
        assert counts.complete
        total += counts
    return total


def dead_letters_of(connection: Connection, keyspace: str) -> list[dict[str, Any]]:
    """Every letter of a keyspace, read without the engine."""
    found = connection.session.execute(f"SELECT * FROM {keyspace}.dead_letters")
    names: list[str] = list(found.column_names or ())
    rows = [dict(zip(names, row, strict=True)) for row in found]
    return sorted(rows, key=lambda row: row["key_text"])


def told(connection: Connection, keyspace: str) -> dict[str, tuple[str, str]]:
    rows = dead_letters_of(connection, keyspace)
    # Nothing of a row but its key is kept.
    assert SECRET not in repr(rows)
    return {row["key_text"]: (row["column_name"], row["cause"]) for row in rows}


@pytest.fixture
def make(connection, keyspace) -> Callable[[str, str], TableName]:
    return lambda name, body: create_table(connection, keyspace, name, body)


# -- rows that cannot be read into the target's form ----------------------------------------------


NUMBERS = Columns(codecs=("INT_STRING",))


def numbers(connection: Connection, make: Callable) -> tuple[TableName, TableName]:
    """40 rows, of which two have no number."""
    origin, target = make("a", "k int PRIMARY KEY, v text"), make("b", "k int PRIMARY KEY, v int")
    fill(connection, origin, "k, v", [(n, str(n)) for n in range(40)])
    fill(connection, origin, "k, v", [(n, f"{SECRET} {n}") for n in (7, 17)])
    return origin, target


def test_rows_that_cannot_be_converted_are_rejected_and_the_others_arrive(
    connection, reader, make, keyspace
):
    origin, target = numbers(connection, make)
    plan = plan_between(connection, connection, origin, target, columns=NUMBERS)
    counts = copy_all(plan, connection, run_id="the run")
    assert (counts.read, counts.written, counts.set_aside) == (40, 38, 2)
    assert len(counts.set_aside_samples) == 2
    assert {row["k"] for row in rows_of(reader, target)} == set(range(40)) - {7, 17}
    cause = "cannot be converted: v: from text to int"
    assert told(connection, keyspace) == {"k=17": ("v", cause), "k=7": ("v", cause)}
    tokens = {r["k"]: r["t"] for r in reader.execute(f"SELECT k, token(k) AS t FROM {origin}")}
    for row in dead_letters_of(connection, keyspace):
        key = int(row["key_text"][2:])
        assert row["origin_token"] == tokens[key]
        assert row["slice"] == slice_of(tokens[key])
        assert row["origin_key"] == b"\0\0\0\4" + key.to_bytes(4, "big")
        assert (row["layer"], row["run_id"]) == ("rows", "the run")
        assert row["set_aside_at"] is not None
    summary = read_summary(connection, plan.migration)
    assert (summary.count, summary.causes) == (2, ((cause, 2),))
    # What was rejected is really missing: the comparison stays red, and names it.
    verdict = compare(connection, plan)
    assert found(verdict) == (2, 0, 0)
    assert {str(row) for row in verdict.missing_rows} == {
        f"k={k}: (cannot be written as declared)" for k in (7, 17)
    }


def test_without_a_budget_the_first_bad_row_fails_the_range_and_nothing_is_kept(
    connection, make, keyspace
):
    origin, target = numbers(connection, make)
    plan = plan_sides(
        declare(origin, target, columns=NUMBERS, tracking_keyspace=keyspace, token_ranges=1),
        connection, connection,
    )  # fmt: skip
    with pytest.raises(PermanentError, match=r"^the row k=(7|17) cannot be converted: v: "):
        copy_all(plan, connection)
    assert open_dead_letters(connection, plan.migration) is None


def test_more_bad_rows_than_the_budget_allows_fail_the_range_and_what_was_found_stays(
    connection, make, keyspace
):
    origin, target = numbers(connection, make)
    plan = plan_between(
        connection, connection, origin, target,
        columns=NUMBERS, token_ranges=1, dead_letters_max_rows=1,
    )  # fmt: skip
    with pytest.raises(PermanentError) as refused:
        copy_all(plan, connection)
    first = next(iter(told(connection, keyspace)))
    assert str(refused.value).startswith(
        "more than 1 rows of the range cannot be written, which dead_letters.max_rows allows; the "
        f"first: the row {first} cannot be converted: v: from text to int. "
    )
    assert len(dead_letters_of(connection, keyspace)) == 1
    result = rehearse_all(connection, plan)
    assert result.counts.set_aside == 2
    assert "and 1 more; dead_letters.max_rows is 1" in result.failed[0][1]


def test_each_kind_of_row_that_cannot_be_formed_is_rejected(connection, reader, make, keyspace):
    origin = make("a", "k int, c text, v text, j text, st text STATIC, PRIMARY KEY (k, c)")
    target = make("b", "k int, v text, c text, n int, st int STATIC, PRIMARY KEY (k, v, c)")
    good = [{"k": k, "c": "x", "v": "v", "j": '{"n": 1}', "st": "1"} for k in range(5)]
    insert_rows(connection, origin, good)
    insert_rows(connection, origin, [{"k": 1, "c": "null", "j": "{}"}])
    insert_rows(connection, origin, [{"k": 2, "c": "json", "v": "v", "j": f'"{SECRET}'}])
    insert_rows(connection, origin, [{"k": 3, "c": "n", "v": "v", "j": f'{{"n": "{SECRET}"}}'}])
    insert_rows(connection, origin, [{"k": 4, "st": SECRET}])
    insert_rows(connection, origin, [{"k": 4, "c": "big", "v": "v" * 3000}])
    plan = plan_between(
        connection, connection, origin, target,
        columns=Columns(codecs=("INT_STRING",), extract_json=ExtractJson("j", {"n": "n"})),
        guardrails=Guardrails(2, "fail"),
    )  # fmt: skip
    counts = copy_all(plan, connection)
    assert (counts.read, counts.written, counts.set_aside) == (9, 5, 4)
    assert (counts.statics, counts.statics_set_aside) == (4, 1)
    assert told(connection, keyspace) == {
        "k=1, c='null'": (
            "v", "has no value for the key column v; name one in columns.key_defaults",
        ),
        "k=2, c='json'": ("j", "cannot be converted: j: it is no JSON object"),
        "k=3, c='n'": ("j", "cannot be converted: j: the property n is no int"),
        "k=4": ("st", "cannot be converted: st: from text to int"),
        "k=4, c='big'": (
            "v",
            "has a cell in v that is too large: guardrails.max_column_kb is 2; make it smaller, "
            "or set guardrails.action to skip or report",
        ),
    }  # fmt: skip
    verdict = compare(connection, plan)
    assert found(verdict) == (5, 0, 0)
    assert any("has no value for the key column v" in str(row) for row in verdict.missing_rows)
    # Static cells are replayed as rows are.
    insert_rows(connection, origin, [{"k": 4, "st": "4"}, {"k": 2, "c": "json", "j": '{"n": 7}'}])
    assert run_replay(plan, connection) == (ReplayCounts(2, 0, 3), 3)
    arrived = {(row["k"], row["c"]): row for row in rows_of(reader, target)}
    assert arrived[4, "x"]["st"] == 4
    assert arrived[2, "json"]["n"] == 7
    assert found(compare(connection, plan)) == (3, 0, 0)


def test_a_key_that_the_target_does_not_tell_is_kept_too(connection, make, keyspace):
    origin = make("a", "k text, c int, m map<int, text>, PRIMARY KEY (k, c)")
    target = make("b", "k int, name int, amount int, PRIMARY KEY (k, name)")
    insert_rows(connection, origin, [{"k": "1", "c": 1, "m": {1: "1", 2: "two"}}])
    insert_rows(connection, origin, [{"k": "2", "c": 5, "m": {1: "1", 2: "2"}}])
    insert_rows(connection, origin, [{"k": "one", "c": 3, "m": {1: "1"}}])
    plan = plan_between(
        connection, connection, origin, target,
        columns=Columns(
            codecs=("INT_STRING",), skip=("c",), explode_map=ExplodeMap("m", "name", "amount")
        ),
        collisions="newest",
    )  # fmt: skip
    counts = copy_all(plan, connection)
    # One entry that cannot be written rejects its whole row.
    assert (counts.read, counts.written, counts.set_aside) == (3, 2, 2)
    assert set(told(connection, keyspace)) == {"k='1', c=1", "k='one', c=3"}


# -- rows that the server refuses -----------------------------------------------------------------


@pytest.mark.parametrize("across", [False, True])
def test_rows_that_the_server_rejects_are_dead_letters_and_those_of_their_batches_arrive(
    connection, strict, make, keyspace, across
):
    columns = "k int, c int, v text, s set<int>, w text, l list<int>"
    origin = make("a", f"{columns}, PRIMARY KEY (k, c)")
    key = "(k, c)" if across else "k, c"
    target = create_table(strict, "strict", f"b_{across}", f"{columns}, PRIMARY KEY ({key})")
    fill(connection, origin, "k, c, v", [(n % 3, n, "x") for n in range(60)])
    large = "x" * 110_000
    insert_rows(connection, origin, [{"k": 0, "c": 3, "v": large}])
    # Several statements: each cell with a time of its own, more than a batch may hold.
    insert_rows(connection, origin, [{"k": 0, "c": 6, "v": "y" * 4000}], "USING TIMESTAMP 9000")
    insert_rows(connection, origin, [{"k": 0, "c": 6, "w": large}], "USING TIMESTAMP 9001")
    insert_rows(connection, origin, [{"k": 1, "c": 1, "s": set(range(60))}])
    insert_rows(connection, origin, [{"k": 1, "c": 4, "l": list(range(60))}])
    plan = plan_between(connection, strict, origin, target, batch_across_partitions=across)
    counts = copy_all(plan, connection, strict)
    assert (counts.read, counts.written, counts.set_aside) == (60, 56, 4)
    causes = told(strict, "strict")
    assert {key: column for key, (column, _) in causes.items()} == {
        "k=0, c=3": "v", "k=0, c=6": "w", "k=1, c=1": "s", "k=1, c=4": "l",
    }  # fmt: skip
    assert all(
        cause.startswith("was rejected: the server said: Invalid query: Guardrail ")
        and len(cause) <= MAX_CAUSE
        for _, cause in causes.values()
    )
    arrived = {tuple(row) for row in strict.session.execute(f"SELECT k, c FROM {target}")}
    refused = {(0, 3), (1, 1), (1, 4)}
    assert arrived - {(0, 6)} == {(n % 3, n) for n in range(60)} - refused - {(0, 6)}
    # The budget counts rows, not their parts.
    assert len(dead_letters_of(strict, "strict")) == 4


def test_keys_and_mutations_that_are_too_large_are_rows_too(connection, strict, make, keyspace):
    values = [f"v{n}" for n in range(8)]
    # What is in a list at the target is read before it is written.
    columns = "k text, c text, l list<int>, " + ", ".join(f"{v} text" for v in values)
    origin = make("a", f"{columns}, PRIMARY KEY (k, c)")
    target = create_table(strict, "strict", "keys", f"{columns}, PRIMARY KEY ((k, c))")
    fill(connection, origin, "k, c, v0", [(str(n), "c", "x") for n in range(20)])
    insert_rows(connection, origin, [{"k": "k" * 40_000, "c": "c" * 40_000, "v0": "x"}])
    insert_rows(connection, origin, [{"k": "k" * 40_001, "c": "c" * 40_000, "l": [1]}])
    wide = dict.fromkeys(values, "x" * 60_000)
    insert_rows(connection, origin, [{"k": "wide", "c": "c", **wide}])
    plan = plan_between(connection, strict, origin, target)
    counts = copy_all(plan, connection, strict)
    assert (counts.read, counts.written, counts.set_aside) == (23, 20, 3)
    letters = dead_letters_of(strict, "strict")
    assert sorted(row["cause"].partition(" (")[0] for row in letters) == [
        "was rejected: the server said: Invalid query: Key length of 80000 is longer than maximum "
        "of 65535",
        "was rejected: the server said: Invalid query: Key length of 80001 is longer than maximum "
        "of 65535",
        "was rejected: the server said: Invalid query: Rejected an oversized mutation",
    ]
    assert all(len(row["key_text"]) <= 1000 for row in letters)


def test_a_refused_row_whose_key_has_other_bytes_at_the_target_is_named_by_the_origins(
    connection, make, keyspace
):
    origin = make("a", "k decimal PRIMARY KEY, v text")
    target = make("b", "v text, k decimal, PRIMARY KEY (v, k)")
    insert_rows(connection, origin, [{"k": Decimal("1.50"), "v": "v" * 70_000}])
    insert_rows(connection, origin, [{"k": Decimal("2.0"), "v": "v"}])
    plan = plan_between(connection, connection, origin, target)

    counts = copy_all(plan, connection)

    assert plan.lost_keys == ("k",)
    assert (counts.written, counts.set_aside) == (1, 1)
    assert list(told(connection, keyspace)) == ["k=1.50"]


def test_a_refused_row_is_named_without_a_budget(connection, strict, make):
    body = "k int, c int, v text, PRIMARY KEY (k, c)"
    origin, target = make("a", body), create_table(strict, "strict", "named", body)
    fill(connection, origin, "k, c, v", [(1, n, "x") for n in range(20)])
    insert_rows(connection, origin, [{"k": 1, "c": 7, "v": "x" * 110_000}])
    plan = plan_between(connection, strict, origin, target, dead_letters_max_rows=0)
    with pytest.raises(PermanentError, match=r"^the row k=1, c=7 was rejected: the server said: "):
        copy_all(plan, connection, strict)


def test_what_is_no_rows_fault_rejects_nothing(connection, strict, make):
    body = "k int PRIMARY KEY, v text"
    origin, target = make("a", body), create_table(strict, "strict", "changed", body)
    fill(connection, origin, "k, v", [(n, "x") for n in range(10)])
    plan = plan_between(connection, strict, origin, target)
    stores = in_process(plan, connection, strict)
    copy_range(stores, plan.migration.ranges[0], lambda _: None)
    for statement, reason in (
        (f"ALTER TABLE {target} DROP v", "Undefined column name v"),
        (f"DROP TABLE {target}", "does not exist"),
    ):
        strict.session.execute(statement)
        with pytest.raises(MigrationError, match=reason):
            copy_range(stores, plan.migration.ranges[1], lambda _: None)
    assert dead_letters_of(strict, "strict") == []


def test_a_piece_whose_last_write_failed_is_never_told_as_done(connection, reader, make, keyspace):
    origin = make("a", "k int, c text, PRIMARY KEY (k, c)")
    target = make("b", "k int, c text, PRIMARY KEY (c, k)")
    fill(connection, origin, "k, c", [(k, "c") for k in range(40)])
    plan = plan_between(connection, connection, origin, target, token_ranges=1)
    (ring,) = plan.migration.ranges
    pieces = split_range(ring, 3)
    bad, *_ = [k for k in range(40) if token_of_key(k.to_bytes(4, "big")) in pieces[0]]
    insert_rows(connection, origin, [{"k": bad, "c": ""}])
    copy_all(plan, connection)
    connection.session.execute(f"TRUNCATE {target}")
    told: list[Any] = []
    strict = replace(plan, migration=replace(plan.migration, dead_letters_max_rows=0))
    with pytest.raises(PermanentError, match="Key may not be empty"):
        copy_range(in_process(strict, connection), ring, told.append, pieces=pieces)
    ended = [
        (report.piece, report.state, report.counts.complete)
        for report in told
        if isinstance(report, PieceReport) and report.state != "begun"
    ]
    assert ended == [(pieces[0], "failed", False), *((p, "done", True) for p in pieces[1:])]
    # What is not written again keeps its letter.
    assert [row["key_text"] for row in dead_letters_of(connection, keyspace)] == [f"k={bad}, c=''"]
    there = {row["k"] for row in rows_of(reader, target)}
    assert there >= {k for k in range(40) if token_of_key(k.to_bytes(4, "big")) not in pieces[0]}


def test_a_counter_whose_key_the_server_rejects_is_a_dead_letter(
    connection, reader, make, keyspace
):
    origin = make("a", "k text, c text, n counter, PRIMARY KEY (k, c)")
    target = make("b", "k text, c text, n counter, PRIMARY KEY ((k, c))")
    add = connection.session.prepare(f"UPDATE {origin} SET n = n + ? WHERE k = ? AND c = ?")
    for number in range(5):
        connection.session.execute(add, [number + 1, str(number), "c"])
    connection.session.execute(add, [9, "k" * 40_000, "c" * 40_000])
    plan = plan_between(connection, connection, origin, target)
    for _ in range(2):
        counts = copy_all(plan, connection)
        assert (counts.read, counts.written, counts.set_aside) == (6, 5, 1)
        assert [row["n"] for row in rows_of(reader, target)] == [1, 2, 3, 4, 5]
        assert len(dead_letters_of(connection, keyspace)) == 1


def test_a_row_that_cannot_be_stored_as_a_dead_letter_fails_its_range(connection, make, keyspace):
    origin, target = numbers(connection, make)
    plan = plan_between(connection, connection, origin, target, columns=NUMBERS, token_ranges=1)
    stores = in_process(plan, connection)
    copy_range(stores, plan.migration.ranges[0], lambda _: None)
    connection.session.execute(f"DROP TABLE {keyspace}.dead_letters")
    with pytest.raises(PermanentError, match=r"dead_letters cannot be read or written: .*exist"):
        copy_range(stores, plan.migration.ranges[0], lambda _: None)
    with pytest.raises(PermanentError, match=r"there is no table .*dead_letters"):
        copy_all(plan, connection)


def test_a_keyspace_for_dead_letters_that_cannot_be_made_is_refused_before_anything_is_written(
    strict_settings, strict, make
):
    admin = replace(strict_settings, username="cassandra", password="cassandra")
    with patient_connection(admin) as connection:
        connection.session.execute("CREATE ROLE poor WITH PASSWORD = 'p' AND LOGIN = true")
    body = "k int PRIMARY KEY"
    origin, target = make("a", body), create_table(strict, "strict", "poor", body)
    migration = declare(origin, target, dead_letters_max_rows=1, tracking_keyspace="others")
    with (
        Connection(replace(strict_settings, username="poor", password="p")) as poor,
        pytest.raises(PreflightError) as refused,
    ):
        ensure_dead_letters(poor, migration)
    assert str(refused.value).startswith(
        "dead letters cannot be stored in the keyspace others of the "
    )
    assert "leave out dead_letters" in str(refused.value)


@given(st.integers(MIN_TOKEN, MAX_TOKEN), st.integers(MIN_TOKEN, MAX_TOKEN))
def test_slices_follow_the_ring(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 0 <= slice_of(low) <= slice_of(high) < 1024
    assert slice_of(MIN_TOKEN) == 0
    assert slice_of(MAX_TOKEN) == 1023


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 10**9)), max_size=60))
def test_causes_are_counted_whatever_their_sizes(found: list[tuple[str, int]]) -> None:
    letters = [
        DeadLetter("rows", n, b"", f"k={n}", "", f"{kind}: {n:,} bytes") for kind, n in found
    ]
    summary = summarize(letters)
    assert summary.count == len(found) == sum(count for _, count in summary.causes)
    assert len(summary.causes) == len({kind for kind, _ in found})
    assert list(summary.samples) == letters[:20]


# -- what becomes of letters ----------------------------------------------------------------------


def test_dead_letters_whose_rows_were_repaired_go_when_their_range_is_copied_again(
    connection, make, keyspace
):
    origin, target = numbers(connection, make)
    plan = plan_between(connection, connection, origin, target, columns=NUMBERS)
    copy_all(plan, connection)
    insert_rows(connection, origin, [{"k": 7, "v": "7"}])
    here = [r for r in plan.migration.ranges if dead_letter_of(connection, keyspace, "k=7") in r]
    copy_range(in_process(plan, connection), here[0], lambda _: None)
    assert set(told(connection, keyspace)) == {"k=17"}
    # Also when nothing may be rejected any more, and the ranges are cut otherwise.
    insert_rows(connection, origin, [{"k": 17, "v": "17"}])
    other = declare(
        origin, target, columns=NUMBERS, tracking_keyspace=keyspace, token_ranges=7
    )  # fmt: skip
    copy_all(plan_sides(other, connection, connection), connection)
    assert told(connection, keyspace) == {}


def dead_letter_of(connection: Connection, keyspace: str, key: str) -> int:
    return {r["key_text"]: r["origin_token"] for r in dead_letters_of(connection, keyspace)}[key]


def run_replay(plan: Plan, connection: Connection) -> tuple[ReplayCounts, int]:
    pool = OneProcess(plan, connection)
    done = replay(pool, connection, plan.migration)  # type: ignore[arg-type]
    assert done.error == ""
    return done.counts, done.remaining.count


def test_a_replay_writes_what_was_mended_and_keeps_the_rest(connection, reader, make, keyspace):
    origin, target = numbers(connection, make)
    fill(connection, origin, "k, v", [(n, "gone") for n in (50, 51)])
    plan = plan_between(connection, connection, origin, target, columns=NUMBERS)
    copy_all(plan, connection)
    insert_rows(connection, origin, [{"k": 7, "v": "7"}])
    reader.execute(f"DELETE FROM {origin} WHERE k IN (50, 51)")
    assert run_replay(plan, connection) == (ReplayCounts(1, 2, 1), 1)
    assert set(told(connection, keyspace)) == {"k=17"}
    # Now the declaration is corrected instead: the row is no longer wanted as a number.
    make("c", "k int PRIMARY KEY, v text")
    lenient = plan_between(connection, connection, origin, target, columns=Columns(skip=("v",)))
    assert run_replay(lenient, connection) == (ReplayCounts(1, 0, 0), 0)
    assert {row["k"] for row in rows_of(reader, target)} == set(range(40))
    assert run_replay(lenient, connection) == (ReplayCounts(), 0)


def test_a_replay_that_is_killed_goes_on_where_it_was(connection, reader, settings, make, keyspace):
    origin, target = make("a", "k int PRIMARY KEY, v text"), make("b", "k int PRIMARY KEY, v int")
    fill(connection, origin, "k, v", [(n, "none") for n in range(300)])
    plan = plan_between(
        connection, connection, origin, target,
        columns=NUMBERS, dead_letters_max_rows=300, origin_rows_per_second=400,
    )  # fmt: skip
    assert copy_all(plan, connection).set_aside == 300
    fill(connection, origin, "k, v", [(n, str(n)) for n in range(300)])
    with WorkerPool(plan, settings, settings, workers=1) as pool:
        killed = KilledAfter(pool, 40)
        done = replay(killed, connection, plan.migration)  # type: ignore[arg-type]
    # The process may also die while it has no task.
    assert "was killed by signal 9" in done.error or "no worker process is left" in done.error
    left = {row["key_text"] for row in dead_letters_of(connection, keyspace)}
    written = {f"k={row['k']}" for row in rows_of(reader, target)}
    assert left
    assert left | written == {f"k={n}" for n in range(300)}
    assert run_replay(plan, connection) == (ReplayCounts(len(left), 0, 0), 0)
    assert len(rows_of(reader, target)) == 300


class KilledAfter:
    """A pool whose worker is killed once so many tasks have reported."""

    def __init__(self, pool: WorkerPool, reports: int):
        self._pool, self._left = pool, reports

    def run(self, tasks: list[Any]) -> Iterator[Any]:
        for event in self._pool.run(tasks):
            yield event
            if isinstance(event, Reported):
                self._left -= 1
                if not self._left:
                    kill(self._pool.process_ids[0], signal.SIGKILL)


def test_dead_letters_survive_the_death_of_a_worker(connection, settings, make, keyspace):
    origin, target = make("a", "k int PRIMARY KEY, v text"), make("b", "k int PRIMARY KEY, v int")
    fill(connection, origin, "k, v", [(n, "none") for n in range(1500)])
    plan = plan_between(
        connection, connection, origin, target, columns=NUMBERS, token_ranges=1,
        dead_letters_max_rows=10_000, origin_rows_per_second=500, origin_fetch_size=100,
    )  # fmt: skip
    with WorkerPool(plan, settings, settings, workers=1) as pool:
        for event in pool.run([CopyRange(plan.migration.ranges[0])]):
            if isinstance(event, Reported) and isinstance(event.value, RangeCounts):
                kill(pool.process_ids[0], signal.SIGKILL)
    assert 100 <= len(dead_letters_of(connection, keyspace)) < 1500
