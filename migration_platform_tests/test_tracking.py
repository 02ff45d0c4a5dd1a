"""Runs in the tracking tables: schemas, states, counters, texts; read without the engine."""

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from cassandra.cluster import Session
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.comparing.verdicts import RangeVerdict
from migration_platform.counts import RangeCounts
from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.filters import Filter
from migration_platform.declaration.migration import Migration
from migration_platform.errors import (
    DeclarationError,
    MigrationError,
    PreflightError,
    TransientError,
)
from migration_platform.runs.control import CONTROL_TABLES
from migration_platform.runs.log_lines import banner, final_lines, parameter_lines
from migration_platform.runs.run_info import (
    COUNTERS,
    MIGRATE,
    VALIDATE,
    copy_counters,
    read_run_info,
    split_reason,
    to_range_counts,
    to_run_info,
    verdict_counters,
)
from migration_platform.runs.tracking import TrackedRun, create_run, migration_key, settle_run
from migration_platform.runs.tracking_tables import TrackingTables, open_tables
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.token_ranges import MIN_TOKEN, split_range
from migration_platform_tests.servers import proxy_before
from migration_platform_tests.tables import declare

SCHEMAS = {
    "cdm_run_info": {
        "table_name": ("text", "partition_key"),
        "run_id": ("bigint", "clustering"),
        "run_type": ("text", "regular"),
        "prev_run_id": ("bigint", "regular"),
        "start_time": ("timestamp", "regular"),
        "end_time": ("timestamp", "regular"),
        "run_info": ("text", "regular"),
        "status": ("text", "regular"),
    },
    "cdm_run_details": {
        "table_name": ("text", "partition_key"),
        "run_id": ("bigint", "partition_key"),
        "token_min": ("bigint", "clustering"),
        "start_time": ("timestamp", "regular"),
        "token_max": ("bigint", "regular"),
        "status": ("text", "regular"),
        "run_info": ("text", "regular"),
    },
}


@pytest.fixture
def migration(keyspace: str) -> Migration:
    """A migration of which only the names matter; they are its own."""
    table = f"b_{uuid.uuid4().hex[:12]}"
    return declare(TableName(keyspace, "a"), TableName(keyspace, table), retry_seconds=10.0)


@pytest.fixture
def tables(connection: Connection, migration: Migration) -> TrackingTables:
    return open_tables(connection, migration, CONTROL_TABLES)


def create(tables: TrackingTables, migration: Migration, run_type: str = MIGRATE, **more: Any):
    pieces = [migration.filter.window(token_range) for token_range in migration.ranges]
    return create_run(
        tables, migration, run_type, [p for p in pieces if p], fingerprint="f", **more
    )


def info_of(reader: Session, run: TrackedRun) -> dict[str, Any]:
    (row,) = reader.execute(
        "SELECT * FROM migration_platform.cdm_run_info WHERE table_name=%s AND run_id=%s",
        (run.table_name, run.run_id),
    )
    return row


def details_of(reader: Session, run: TrackedRun) -> list[dict[str, Any]]:
    return list(
        reader.execute(
            "SELECT * FROM migration_platform.cdm_run_details WHERE table_name=%s AND run_id=%s",
            (run.table_name, run.run_id),
        )
    )


# -- tables --------------------------------------------------------------------------------------


@pytest.fixture
def new_name(connection: Connection) -> Iterator[str]:
    """The name of a tracking keyspace that is not there yet; gone after the test."""
    name = f"tracking_{uuid.uuid4().hex[:12]}"
    yield name
    connection.session.execute(f"DROP KEYSPACE IF EXISTS {quote(name)}", timeout=60)


def columns_of(reader: Session, keyspace: str, table: str) -> dict[str, tuple[str, str]]:
    rows = reader.execute(
        "SELECT * FROM system_schema.columns WHERE keyspace_name=%s AND table_name=%s",
        (keyspace, table),
    )
    return {row["column_name"]: (row["type"], row["kind"]) for row in rows}


def replication_of(reader: Session, keyspace: str) -> dict[str, str]:
    (row,) = reader.execute(
        "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name=%s", (keyspace,)
    )
    return dict(row["replication"])


def test_the_tables_are_made_as_the_data_migrator_makes_them_and_older_ones_are_completed(
    connection: Connection, reader: Session, keyspace: str, new_name: str
) -> None:
    migration = declare(
        TableName(keyspace, "a"), TableName(keyspace, "b"), tracking_keyspace=new_name
    )
    open_tables(connection, migration)

    assert replication_of(reader, new_name) == replication_of(reader, keyspace)
    for table, columns in SCHEMAS.items():
        assert columns_of(reader, new_name, table) == columns
    for column in ("status", "run_info"):
        connection.session.execute(f"ALTER TABLE {new_name}.cdm_run_info DROP {column}")

    open_tables(connection, migration)

    assert columns_of(reader, new_name, "cdm_run_info") == SCHEMAS["cdm_run_info"]


def test_a_keyspace_that_refuses_is_told_in_one_sentence_with_the_way_out(
    connection: Connection, keyspace: str
) -> None:
    migration = declare(
        TableName(keyspace, "a"), TableName(keyspace, "b"), tracking_keyspace="system"
    )
    with pytest.raises(PreflightError) as refused:
        open_tables(connection, migration)
    assert str(refused.value).startswith(
        "cannot keep track of runs in the keyspace system: the server said"
    )
    assert str(refused.value).endswith(
        "name another one in tracking_keyspace, or set tracking: false"
    )


# -- runs ----------------------------------------------------------------------------------------


def test_run_ids_are_nanoseconds_since_1970_and_grow(
    tables: TrackingTables, migration: Migration
) -> None:
    before = time.time_ns()
    first, second = create(tables, migration), create(tables, migration)
    assert before <= first.run_id < second.run_id <= time.time_ns()
    assert len(str(first.run_id)) == 19


def test_a_runs_own_id_is_kept_and_refused_the_second_time(
    tables: TrackingTables, migration: Migration, reader: Session
) -> None:
    run = create(tables, migration, run_id=1704067200000000000)
    assert info_of(reader, run)["run_id"] == 1704067200000000000
    with pytest.raises(DeclarationError) as refused:
        create(tables, migration, run_id=run.run_id)
    assert str(refused.value).startswith(
        f"Run id 1704067200000000000 already exists for table {run.table_name}"
    )
    with pytest.raises(DeclarationError, match="run_id is 0; valid are 1 to"):
        create(tables, migration, run_id=0)


def test_a_run_and_its_ranges_go_through_the_data_migrators_states(
    tables: TrackingTables, migration: Migration, reader: Session
) -> None:
    run = create(tables, migration, previous=17)

    info = info_of(reader, run)
    assert (info["status"], info["run_type"], info["prev_run_id"]) == ("NOT_STARTED", MIGRATE, 17)
    assert isinstance(info["start_time"], datetime)
    assert info["end_time"] is None
    details = details_of(reader, run)
    assert [(row["token_min"], row["token_max"]) for row in details] == [
        r.bounds for r in migration.ranges
    ]
    assert {(row["status"], row["start_time"]) for row in details} == {("NOT_STARTED", None)}

    run.begin()
    passed, failed, under_way, _ = migration.ranges
    for piece in (passed, failed, under_way):
        run.begin_piece(piece)
    counts = RangeCounts(read=10, written=7, skipped=1)
    run.count_piece(passed, copy_counters(RangeCounts(read=5, written=5), failed=False))
    run.end_piece(passed, "PASS")
    run.count_piece(failed, copy_counters(counts, failed=True))
    run.end_piece(failed, "FAIL")
    tables.flush()

    assert info_of(reader, run)["status"] == "STARTED"
    details = details_of(reader, run)
    assert [row["status"] for row in details] == ["PASS", "FAIL", "STARTED", "NOT_STARTED"]
    assert [row["start_time"] is not None for row in details] == [True, True, True, False]
    assert details[1]["run_info"] == (
        "Read: 10; Write: 7; Skipped: 1; Error: 2; Partitions Passed: 0; Partitions Failed: 1"
    )

    run.end()

    info = info_of(reader, run)
    assert (info["status"], info["run_info"]) == (
        "ENDED",
        "Read: 15; Write: 12; Skipped: 1; Error: 2; Partitions Passed: 1; Partitions Failed: 1",
    )
    assert info["end_time"] >= info["start_time"]
    # What was under way when the run ended is told as it is.
    assert details_of(reader, run)[2]["status"] == "STARTED"


def test_a_piece_that_has_failed_never_passes_within_the_same_run(
    tables: TrackingTables, migration: Migration, reader: Session
) -> None:
    run = create(tables, migration)
    first = migration.ranges[0]
    run.begin_piece(first)
    run.count_piece(first, copy_counters(RangeCounts(read=4, written=1), failed=True))
    run.end_piece(first, "FAIL")

    run.begin_piece(first)
    run.count_piece(first, copy_counters(RangeCounts(read=4, written=4), failed=False))
    run.end_piece(first, "PASS")
    run.end_range(first)
    run.end()

    row = details_of(reader, run)[0]
    assert row["status"] == "FAIL"
    assert row["run_info"] == run.run_info == info_of(reader, run)["run_info"]
    assert run.run_info == (
        "Read: 4; Write: 1; Skipped: 0; Error: 3; Partitions Passed: 0; Partitions Failed: 1"
    )


def test_a_run_has_not_ended_while_a_note_of_its_pieces_is_not_acknowledged(
    connection: Connection, keyspace: str, new_name: str
) -> None:
    migration = declare(
        TableName(keyspace, "a"), TableName(keyspace, "b"), tracking_keyspace=new_name
    )
    tables = open_tables(connection, migration)
    run = create(tables, migration)
    run.begin()
    run.begin_piece(migration.ranges[1])
    connection.session.execute(f"DROP TABLE {new_name}.cdm_run_details")
    run.begin_piece(migration.ranges[0])

    with pytest.raises(MigrationError):
        run.end()

    (info,) = tables.read("cdm_run_info", table_name="b")
    assert (info["status"], info["end_time"]) == ("STARTED", None)
    (link,) = tables.read("migration_runs", migration=migration_key(migration))
    assert link["settled"] is False


@pytest.mark.parametrize("place", ["before it is sent", "after it is sent", "before its answer"])
def test_a_run_that_is_stopped_between_any_two_lines_counts_what_it_notes(
    tables: TrackingTables,
    migration: Migration,
    reader: Session,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    run = create(tables, migration)
    run.begin()
    first, second = migration.ranges[:2]
    for piece in (first, second):
        run.begin_piece(piece)
        run.count_piece(piece, copy_counters(RangeCounts(read=2, written=2), failed=False))
    run.end_piece(first, "PASS")
    write, ask = TrackingTables.write, TrackingTables._patiently
    stopped: list[str] = []

    def stop_at(here: str) -> None:
        if here == place and not stopped:
            stopped.append(here)
            raise KeyboardInterrupt

    def stopped_write(self: TrackingTables, table: str, **values: Any) -> None:
        stop_at("before it is sent")
        write(self, table, **values)
        stop_at("after it is sent")

    def stopped_wait(self: TrackingTables, *arguments: Any) -> Any:
        stop_at("before its answer")
        return ask(self, *arguments)

    monkeypatch.setattr(TrackingTables, "write", stopped_write)
    monkeypatch.setattr(TrackingTables, "_patiently", stopped_wait)

    def end_both() -> None:
        run.end_piece(second, "PASS")
        tables.flush()

    with pytest.raises(KeyboardInterrupt):
        end_both()
    run.end(settled=False)

    assert stopped == [place]
    statuses = [row["status"] for row in details_of(reader, run)]
    assert statuses == ["PASS", "PASS", "NOT_STARTED", "NOT_STARTED"]
    assert "Partitions Passed: 2;" in info_of(reader, run)["run_info"]
    assert not tables._sent


def test_a_piece_that_is_cut_becomes_rows_of_its_own(
    tables: TrackingTables, migration: Migration, reader: Session
) -> None:
    run = create(tables, migration)
    first = migration.ranges[0]
    low, high = split_range(first, 2)
    run.begin_piece(first)

    run.cut_piece(first, (low, high))
    run.begin_piece(low)
    run.count_piece(low, copy_counters(RangeCounts(read=1, written=1), failed=False))
    assert not run.is_last(low)
    run.end_piece(low, "PASS")
    assert run.is_last(high)
    tables.flush()

    rows = details_of(reader, run)[:2]
    assert [(r["token_min"], r["token_max"], r["status"]) for r in rows] == [
        (MIN_TOKEN, low.end, "PASS"),
        (low.end + 1, first.end, "NOT_STARTED"),
    ]


def test_a_range_whose_worker_died_fails_with_what_is_known_of_it(
    tables: TrackingTables, migration: Migration, reader: Session
) -> None:
    run = create(tables, migration)
    alone, cut, done = migration.ranges[:3]
    for piece in (alone, cut, done):
        run.begin_piece(piece)
    parts = split_range(cut, 3)
    run.cut_piece(cut, parts)
    run.begin_piece(parts[0])
    run.count_piece(parts[0], copy_counters(RangeCounts(read=4, written=4), failed=False))
    run.end_piece(parts[0], "PASS")
    run.begin_piece(parts[1])
    run.count_piece(done, copy_counters(RangeCounts(read=2, written=2), failed=False))
    lost = copy_counters(RangeCounts(read=9, written=6), failed=True)
    for token_range in (alone, cut):
        run.end_range(token_range, lost)
    run.end_range(done)
    tables.flush()

    rows = details_of(reader, run)
    assert [row["status"] for row in rows] == [
        "FAIL",
        *("PASS", "FAIL", "NOT_STARTED"),
        "PASS",
        "NOT_STARTED",
    ]
    assert rows[0]["run_info"].startswith("Read: 9; Write: 6; Skipped: 0; Error: 3;")
    assert run.run_info == (
        "Read: 15; Write: 12; Skipped: 0; Error: 3; Partitions Passed: 2; Partitions Failed: 2"
    )


def test_a_filter_leaves_only_the_ranges_that_are_read(
    tables: TrackingTables, migration: Migration, reader: Session
) -> None:
    small = replace(migration, filter=Filter(token_min=MIN_TOKEN, token_max=MIN_TOKEN + 8))
    (row,) = details_of(reader, create(tables, small))
    assert (row["token_min"], row["token_max"]) == (MIN_TOKEN, MIN_TOKEN + 8)


def test_what_a_dead_run_had_shown_is_settled_and_nothing_else(
    tables: TrackingTables, migration: Migration, reader: Session
) -> None:
    run = create(tables, migration)
    run.begin()
    for piece in migration.ranges[:3]:
        run.begin_piece(piece)
    run.count_piece(migration.ranges[0], copy_counters(RangeCounts(read=1), failed=True))
    run.end_piece(migration.ranges[0], "FAIL")
    tables.flush()
    (past,) = tables.read("migration_runs", migration=migration_key(migration))
    tokens = [r.bounds[0] for r in migration.ranges]

    settled = settle_run(
        tables, past, {tokens[0]: ("PASS", "Read: 9"), tokens[1]: ("PASS", "Read: 2")}
    )

    assert settled == [tokens[1]]
    details = details_of(reader, run)
    assert [r["status"] for r in details] == ["FAIL", "PASS", "STARTED", "NOT_STARTED"]
    assert details[1]["run_info"] == "Read: 2"
    assert info_of(reader, run)["status"] == "STARTED"
    (past,) = tables.read("migration_runs", migration=migration_key(migration))
    assert past["settled"] is True


def test_the_monitoring_queries_work_as_printed(
    tables: TrackingTables, migration: Migration, reader: Session
) -> None:
    older, newer = create(tables, migration), create(tables, migration, VALIDATE)
    older.begin_piece(migration.ranges[1])
    older.count_piece(migration.ranges[1], copy_counters(RangeCounts(read=3), failed=True))
    older.end_piece(migration.ranges[1], "FAIL")
    older.begin_piece(migration.ranges[0])
    older.end_piece(migration.ranges[0], "PASS")
    tables.flush()
    table, ks = older.table_name, "migration_platform"

    runs = reader.execute(
        f"SELECT * FROM {ks}.cdm_run_info WHERE table_name='{table}' ORDER BY run_id DESC"
    )
    assert [row["run_id"] for row in runs] == [newer.run_id, older.run_id]
    details = reader.execute(
        f"SELECT * FROM {ks}.cdm_run_details WHERE table_name='{table}' "
        f"AND run_id={older.run_id} ORDER BY token_min"
    )
    assert [row["token_min"] for row in details] == [r.bounds[0] for r in migration.ranges]
    failed = reader.execute(
        f"SELECT token_min, token_max, status, run_info FROM {ks}.cdm_run_details "
        f"WHERE table_name='{table}' AND run_id={older.run_id} "
        "AND status IN ('FAIL','NOT_STARTED','STARTED') ORDER BY token_min ALLOW FILTERING"
    )
    assert [row["status"] for row in failed] == ["FAIL", "NOT_STARTED", "NOT_STARTED"]


def test_a_server_that_is_away_is_given_up_in_one_sentence(
    settings: CassandraSettings, tables: TrackingTables, migration: Migration
) -> None:
    with (
        proxy_before(settings.port, lambda chunk: chunk) as proxy,
        Connection(CassandraSettings(port=proxy.port)) as connection,
    ):
        far = TrackingTables(
            connection, tables.keyspace, consistency="LOCAL_QUORUM", retry_seconds=1.0
        )
        run = create(far, migration)
        run.begin_piece(migration.ranges[0])
        far.flush()
        proxy.close()
        started = time.monotonic()
        run.begin_piece(migration.ranges[1])
        with pytest.raises(TransientError) as lost:
            far.flush()
        with pytest.raises(TransientError):
            run.end()
        assert time.monotonic() - started < 15
    assert str(lost.value).startswith(
        "the tracking keyspace migration_platform cannot be used: no host answered"
    )


def test_a_connection_that_is_lost_between_two_pages_is_none_to_a_reader(
    settings: CassandraSettings, tables: TrackingTables, migration: Migration
) -> None:
    run = create(tables, migration)
    answers_left: list[int] = []

    def answer(chunk: bytes) -> bytes:
        if answers_left and not answers_left.pop():
            raise OSError("cut")
        return chunk

    with (
        proxy_before(settings.port, answer) as proxy,
        Connection(CassandraSettings(port=proxy.port)) as connection,
    ):
        far = TrackingTables(
            connection, tables.keyspace, consistency="LOCAL_QUORUM", retry_seconds=20.0
        )
        key = {"table_name": run.table_name, "run_id": run.run_id}
        # Not only the server's answer to the statement's preparation is to be kept.
        assert len(far.read("cdm_run_details", **key)) == 4
        connection.session.default_fetch_size = 1
        answers_left[:] = [False, True, True]
        assert [row["token_min"] for row in far.read("cdm_run_details", **key)] == [
            token_range.bounds[0] for token_range in migration.ranges
        ]
        assert not answers_left


# -- counters and texts --------------------------------------------------------------------------

numbers = st.integers(0, 10**12)


@given(numbers, numbers, numbers, st.booleans())
def test_what_is_read_of_a_failed_range_is_written_skipped_or_an_error(
    written: int, skipped: int, lost: int, failed: bool
) -> None:
    read = written + skipped + (lost if failed else 0)
    counters = copy_counters(
        RangeCounts(read=read, written=written, skipped=skipped), failed=failed
    )
    assert counters["Read"] == counters["Write"] + counters["Skipped"] + counters["Error"]
    assert counters["Partitions Passed"] + counters["Partitions Failed"] == 1
    text = to_run_info(MIGRATE, counters)
    assert read_run_info(text) == dict(counters)
    # Whatever a reason says, it counts nothing.
    told = f"{text}; Reason: Error: 7; Read: 9; Reason: Write: 3"
    assert read_run_info(told) == dict(counters)
    assert split_reason(told) == (text, "Error: 7; Read: 9; Reason: Write: 3")


@given(st.lists(numbers, min_size=4, max_size=4))
def test_what_is_read_in_a_comparison_is_valid_mismatched_missing_skipped_or_an_error(
    found: list[int],
) -> None:
    valid, mismatched, missing, skipped = found
    verdict = RangeVerdict(
        token_range=declare(TableName("a", "a"), TableName("a", "b")).ranges[0],
        origin_rows=sum(found),
        mismatched=mismatched,
        missing=missing,
        skipped=skipped,
    )
    counters = verdict_counters(verdict)
    parts = ("Valid", "Mismatch", "Missing", "Skipped", "Error")
    assert counters["Read"] == sum(counters[name] for name in parts)
    assert counters["Valid"] == valid
    assert read_run_info(to_run_info(VALIDATE, counters)) == dict(counters)


def test_rows_rejected_within_the_budget_are_errors_of_a_range_that_passed() -> None:
    counters = copy_counters(RangeCounts(read=5, written=4, set_aside=1), failed=False)
    assert to_run_info(MIGRATE, counters) == (
        "Read: 5; Write: 4; Skipped: 0; Error: 1; Partitions Passed: 1; Partitions Failed: 0"
    )
    assert to_range_counts(counters).complete


def test_the_log_begins_and_ends_as_the_data_migrators(
    tables: TrackingTables, migration: Migration
) -> None:
    run = create(tables, migration, previous=5)
    lines = banner(MIGRATE, "Starting")
    assert {len(line) for line in lines} == {96}
    assert re.fullmatch(r"### {29,}Migrate Job - Starting +###", lines[1])
    assert parameter_lines(migration, run, 4) == [
        "PARAM -- Min Partition: -9223372036854775808",
        "PARAM -- Max Partition: 9223372036854775807",
        "PARAM -- Number of Splits: 4",
        "PARAM -- Track Run: true",
        f"PARAM -- RunId: {run.run_id}",
        "PARAM -- Previous RunId: 5",
        "PARAM -- Coverage Percent: 100",
        "PARAM Calculated -- Total Partitions: 4",
        f"###################### Run Id for this job is: {run.run_id} ######################",
    ]
    final = final_lines(MIGRATE, run, {"Read": 3, "Write": 3, "Partitions Passed": 1})
    assert final[1:-1] == [
        f"RunId: {run.run_id}",
        "Final Read Record Count: 3",
        "Final Write Record Count: 3",
        "Final Skipped Record Count: 0",
        "Final Error Record Count: 0",
        "Final Partitions Passed: 1",
        "Final Partitions Failed: 0",
    ]
    assert len(final_lines(VALIDATE, None, {})) == len(COUNTERS[VALIDATE]) + 2
