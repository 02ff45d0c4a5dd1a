"""A range that is too much for its server is cut until it passes; every row comes once.

The server here refuses pages that are large and reads that meet many tombstones.
"""

import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import dagster as dg
import pytest

from migration_platform.copying.copy import copy_range
from migration_platform.counts import PieceReport, RangeCounts
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import split_cells
from migration_platform.errors import TransientError, UnreadableError
from migration_platform.local.cassandra import Cassandra
from migration_platform.stores.cassandra import connection as store
from migration_platform.stores.cassandra import reads
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.reads import RangeRead, prepare_range_read, read_pages
from migration_platform.stores.cassandra.tables import describe_table
from migration_platform.stores.work import OpenStores
from migration_platform.token_ranges import TokenRange, split_ring, token_of_key
from migration_platform_tests.comparing import compare, found, rehearse_all
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, make_project
from migration_platform_tests.servers import SMALL_HEAP_MB, proxy_before, run_server
from migration_platform_tests.tables import (
    copy_ranges,
    create_keyspace,
    create_table,
    fill,
    in_process,
    patient_connection,
    plan_copy,
)
from migration_platform_tests.test_faults import Weather, lose
from migration_platform_tests.test_rate import budget_of

pytestmark = DAGSTERS_OWN_WARNINGS

MOST_KIB, MOST_TOMBSTONES = 256, 200
STRICT = {
    "read_thresholds_enabled": True,
    "local_read_size_warn_threshold": f"{MOST_KIB // 2}KiB",
    "local_read_size_fail_threshold": f"{MOST_KIB}KiB",
    "tombstone_warn_threshold": MOST_TOMBSTONES // 2,
    "tombstone_failure_threshold": MOST_TOMBSTONES,
}
BODY = "k int, c int, v text, PRIMARY KEY (k, c)"
RING = split_ring(1)[0]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A connection to a server that reads but little at a time; its ring is one range."""
    server = Cassandra(cluster_name="strict", num_tokens=1, heap_mb=SMALL_HEAP_MB, settings=STRICT)
    with (
        run_server(server, tmp_path_factory.mktemp("strict")) as running,
        patient_connection(CassandraSettings(port=running.port)) as connection,
    ):
        create_keyspace(connection, "strict")
        yield connection


@pytest.fixture
def make(strict):
    """Make tables, each with a name of its own."""
    return lambda body=BODY: create_table(strict, "strict", f"t_{uuid.uuid4().hex[:12]}", body)


def bury(connection: Connection, table: TableName, keys: list[tuple[int, int]]) -> None:
    """Leave a tombstone for each of these rows."""
    statement = connection.session.prepare(f"DELETE FROM {table} WHERE k = ? AND c = ?")
    for future in [connection.session.execute_async(statement, key) for key in keys]:
        future.result()


def number_of(cell: bytes | None) -> int | None:
    return None if cell is None else int.from_bytes(cell, signed=True)


def token(k: int) -> int:
    return token_of_key(k.to_bytes(4, "big", signed=True))


class Told:
    """Reads a range and keeps all that is told of it: rows, pieces, cuts and failures."""

    def __init__(self, connection: Connection, read: RangeRead, token_range: TokenRange = RING):
        self.rows: list[tuple[int, int | None]] = []
        self.pieces: list[TokenRange] = []
        self.cuts: list[tuple[TokenRange, tuple[TokenRange, ...]]] = []
        self.failures: list[BaseException] = []
        self.unreadable: list[TokenRange] = []
        self._told = 0
        self._arguments = connection, read, token_range

    def read(
        self,
        fetch_size: int | None = None,
        retry_seconds: float = 20.0,
        *,
        goes_on: bool = False,
    ) -> "Told":
        connection, read, token_range = self._arguments
        for page in read_pages(
            connection,
            read,
            token_range,
            consistency="LOCAL_ONE",
            fetch_size=fetch_size,
            budget=budget_of(),
            retry_seconds=retry_seconds,
            on_retry=self.failures.append,
            on_piece=self._end_piece,
            on_split=lambda piece, pieces: self.cuts.append((piece, pieces)),
            on_unreadable=self._note_unreadable if goes_on else None,
        ):
            cells = split_cells(page.data, page.row_count * read.cells)
            for at in range(0, len(cells), read.cells):
                key, second = (number_of(cell) for cell in cells[at : at + 2])
                assert key is not None
                self.rows.append((key, second))
        return self

    def _note_unreadable(self, piece: TokenRange, error: UnreadableError) -> None:
        self.unreadable.append(piece)
        self._told = len(self.rows)
        assert str(error).startswith("the partition with token ")

    def _end_piece(self, piece: TokenRange) -> None:
        assert all(token(k) in piece for k, _ in self.rows[self._told :])
        self._told = len(self.rows)
        self.pieces.append(piece)

    def assert_all_told(self, rows: list[tuple[int, int]]) -> None:
        """All rows came, each once, and the pieces fill the range."""
        assert Counter(self.rows) == Counter(rows)
        start, end = self._arguments[2].start, self._arguments[2].end
        assert (self.pieces[0].start, self.pieces[-1].end) == (start, end)
        assert all(left.end == right.start for left, right in pairwise(self.pieces))
        assert all(piece.start < piece.end for piece in self.pieces)
        assert self._told == len(rows)
        # What is read is what was cut, but for what was cut again.
        cut = [piece for piece, _ in self.cuts]
        begun = [self._arguments[2], *(piece for _, pieces in self.cuts for piece in pieces)]
        assert Counter(begun) == Counter(cut) + Counter(self.pieces)


def select(connection: Connection, table: TableName, where: str | None = None) -> RangeRead:
    described = describe_table(connection, table)
    return prepare_range_read(connection, described, ("k", "c"), where=where, retry_seconds=20)


def select_large(connection: Connection, table: TableName) -> RangeRead:
    described = describe_table(connection, table)
    return prepare_range_read(connection, described, ("k", "c", "v"), retry_seconds=20)


def test_a_range_that_is_never_too_much_is_one_piece(strict, make):
    table = make()
    rows = [(k, c) for k in range(20) for c in range(5)]
    fill(strict, table, "k, c", rows)
    told = Told(strict, select(strict, table)).read(fetch_size=7)
    told.assert_all_told(rows)
    assert (told.pieces, told.cuts, told.failures) == ([RING], [], [])


def test_a_range_that_fails_as_a_whole_passes_in_halves(strict, make):
    table = make()
    rows = [(k, 1) for k in (1, 2, 3)]
    fill(strict, table, "k, c", rows)
    bury(strict, table, [(k, 2) for k in range(MOST_TOMBSTONES * 2)])
    told = Told(strict, select(strict, table)).read()
    told.assert_all_told(rows)
    assert told.cuts[0][0] == RING
    assert 2 <= len(told.pieces) <= 16
    assert all("tombstones" in str(e).lower() for e in told.failures if "Failure" in str(e))


def test_an_empty_desert_is_no_row_and_no_failure(strict, make):
    table = make()
    bury(strict, table, [(k, 2) for k in range(MOST_TOMBSTONES * 3)])
    told = Told(strict, select(strict, table)).read()
    told.assert_all_told([])


def test_a_condition_that_leaves_little_is_cut_as_well(strict, make):
    table = make()
    rows = [(k, 1, "few" if k in (5, 77) else "many") for k in range(MOST_TOMBSTONES)]
    fill(strict, table, "k, c, v", rows)
    bury(strict, table, [(k, 2) for k in range(MOST_TOMBSTONES * 2)])
    told = Told(strict, select(strict, table, where="v = 'few'")).read()
    told.assert_all_told([(5, 1), (77, 1)])
    assert told.cuts


@pytest.mark.parametrize("fetch_size", [1000, 40, 7])
def test_a_wide_partition_is_paged_through_on_its_own(strict, make, fetch_size):
    table = make()
    small = [(k, 0, "x") for k in range(1, 120)]
    wide = sorted(small, key=lambda row: token(row[0]))[60][0]
    large = [(wide, c, "y" * 90_000) for c in range(1, 16)]
    fill(strict, table, "k, c, v", small + large)
    told = Told(strict, select_large(strict, table)).read(fetch_size)
    told.assert_all_told([row[:2] for row in small + large])
    assert told.failures


def test_a_wide_partition_full_of_tombstones_is_cut_out_and_read_to_its_end(strict, make):
    table = make()
    small = [(k, 0) for k in range(1, 120)]
    wide = sorted(small, key=lambda row: token(row[0]))[60][0]
    step = MOST_TOMBSTONES - 20
    live = [(wide, n * step) for n in range(1, 6)]
    fill(strict, table, "k, c", small + live)
    bury(strict, table, [(wide, c) for c in range(1, step * 5) if c % step])
    told = Told(strict, select(strict, table)).read(fetch_size=5000)
    told.assert_all_told(small + live)
    assert any(token(wide) in piece for piece, _ in told.cuts)


def test_a_partition_that_cannot_be_read_is_named_with_the_servers_words(strict, make):
    table = make()
    small = [(k, 0) for k in range(1, 60)]
    wide = sorted(small, key=lambda row: token(row[0]))[30][0]
    fill(strict, table, "k, c", small)
    bury(strict, table, [(wide, c) for c in range(1, MOST_TOMBSTONES * 2)])
    told = Told(strict, select(strict, table))
    with pytest.raises(UnreadableError) as failure:
        told.read(fetch_size=5000, retry_seconds=0.5)
    message = str(failure.value)
    assert message.startswith(f"the partition with token {token(wide)} of {table} (k={wide}) ")
    assert "tombstone" in message.lower()
    assert "in cassandra.yaml" in message
    assert len(message.splitlines()) == 1
    # All before it came, each row once, and the pieces say so.
    before = [k for k, _ in small if token(k) < token(wide)]
    assert [k for k, _ in told.rows] in (
        sorted(before, key=token),
        sorted([*before, wide], key=token),
    )
    assert told.pieces[-1].end < token(wide)
    rest = {piece for _, pieces in told.cuts for piece in pieces}
    assert max(piece.end for piece in rest) == RING.end


def bury_two(strict: Connection, table: TableName) -> tuple[list[int], list[int]]:
    """Make small partitions, two among them that nobody can read; one holds not a single row."""
    ordered = sorted(range(1, 100), key=token)
    broken = [ordered[20], ordered[70]]
    fill(strict, table, "k, c", [(k, 0) for k in ordered if k != broken[1]])
    for k in broken:
        bury(strict, table, [(k, c) for c in range(1, MOST_TOMBSTONES * 2)])
    return [k for k in ordered if k not in broken], broken


def test_what_is_behind_an_unreadable_partition_is_read_on_demand(strict, make):
    table = make()
    whole, broken = bury_two(strict, table)
    told = Told(strict, select(strict, table))
    with pytest.raises(UnreadableError, match=f"partition with token {token(broken[0])} of"):
        told.read(fetch_size=5000, retry_seconds=0.5, goes_on=True)
    assert Counter(k for k, _ in told.rows if k not in broken) == Counter(whole)
    assert [token(k) in piece for k, piece in zip(broken, told.unreadable, strict=True)] == [
        True
    ] * 2
    # The pieces that were read, and those that were not, fill the ring.
    pieces = sorted([*told.pieces, *told.unreadable], key=lambda piece: piece.start)
    assert (pieces[0].start, pieces[-1].end) == (RING.start, RING.end)
    assert all(left.end == right.start for left, right in pairwise(pieces))


def test_a_table_of_which_nothing_can_be_read_is_given_up_soon(strict, make, monkeypatch):
    monkeypatch.setattr(reads, "MOST_UNREADABLE", 3)
    table = make()
    for k in range(5):
        bury(strict, table, [(k, c) for c in range(MOST_TOMBSTONES + 20)])
    told = Told(strict, select(strict, table))
    with pytest.raises(UnreadableError, match="tombstone"):
        told.read(retry_seconds=0.0, goes_on=True)
    assert len(told.unreadable) == 3
    assert told.rows == []
    assert len(told.failures) < 600


@pytest.mark.parametrize("statics", [False, True])
def test_what_is_left_behind_any_page_is_read_without_loss_or_repetition(
    connection, keyspace, statics
):
    name = create_table(
        connection, keyspace, "a", "k int, c int, s int static, v text, PRIMARY KEY (k, c)"
    )
    rows = [(k, c) for k in range(9) for c in range(k % 4)]
    fill(connection, name, "k, c, v", [(*row, "v") for row in rows])
    fill(connection, name, "k, s", [(k, k) for k in range(0, 12, 2)])
    table = describe_table(connection, name)
    columns = ("k", "s") if statics else ("k", "c")
    read = prepare_range_read(connection, table, columns, statics=statics, retry_seconds=20)
    expected = Counter(Told(connection, read).read().rows)
    assert len(expected) == (10 if statics else len(rows) + 4)

    for size in range(1, 8):
        for pages in range(1, len(expected)):
            reading = reads._Reading(
                connection, read, "LOCAL_ONE", size, budget_of(), 20.0, lambda _: None
            )
            told: list[bytes] = []
            left, state, last = reads._Left(RING), None, None
            for _ in range(pages):
                page = store.page_of(reading.ask(left, state).future)
                told.append(page.data)
                state, last = page.next_state, page if page.row_count else last
                if state is None:
                    break
            if state is None:
                break
            rest = reading.cut(left, last, state)
            assert rest[0].token == rest[0].piece.end
            for each in rest:
                told += [page.data for page in reads._read_until_cut(reading, each)]
            cells = split_cells(b"".join(told), sum(expected.values()) * read.cells)
            numbers = [number_of(cell) for cell in cells]
            assert Counter(zip(numbers[::2], numbers[1::2], strict=True)) == expected
            assert len(b"".join(told)) == sum(4 + len(c or b"") for c in cells)


def three_columns(connection: Connection, table: TableName) -> list[tuple]:
    """Read a table whose rows are large, one partition at a time."""
    statement = connection.session.prepare(f"SELECT k, c, v FROM {table} WHERE k = ?")
    statement.fetch_size = 2
    keys = connection.session.execute(f"SELECT DISTINCT k FROM {table}")
    return sorted(tuple(row) for k in keys for row in connection.session.execute(statement, k))


def test_copy_rehearsal_and_comparison_pass_where_only_pieces_do(strict, make):
    origin, target = make(), make()
    live = [(k, 1, f"v{k}") for k in (3, 50, 90)]
    large = [(7, c, "y" * 90_000) for c in range(2, 10)]
    fill(strict, origin, "k, c, v", live + large)
    bury(strict, origin, [(k, 0) for k in range(MOST_TOMBSTONES * 2)])
    plan = plan_copy(strict, origin, target, token_ranges=1)
    assert rehearse_all(strict, plan).counts.read == len(live + large)
    counts = copy_ranges(in_process(plan, strict))
    assert (counts.read, counts.written, counts.complete) == (11, 11, True)
    assert counts.retries > 0
    assert three_columns(strict, target) == sorted(live + large)
    assert found(compare(strict, plan)) == (0, 0, 0)
    strict.session.execute(f"DELETE FROM {target} WHERE k = 50 AND c = 1")
    assert found(compare(strict, plan)) == (1, 0, 0)


def pieces_of(stores: OpenStores) -> tuple[list[PieceReport], list[PieceReport], str]:
    """Copy the ring; give how its pieces ended, what was cut, and why the copy failed."""
    told: list[PieceReport | RangeCounts] = []
    failed = ""
    try:
        copy_range(stores, RING, told.append)
    except UnreadableError as error:
        failed = str(error)
    reports = [each for each in told if isinstance(each, PieceReport)]
    ended = [each for each in reports if each.state in ("done", "failed")]
    begun = [each.piece for each in reports if each.state == "begun"]
    assert {each.piece for each in ended} <= set(begun)
    ended.sort(key=lambda report: report.piece.start)
    assert (ended[0].piece.start, ended[-1].piece.end) == (RING.start, RING.end)
    assert all(a.piece.end == b.piece.start for a, b in pairwise(ended))
    return ended, [each for each in reports if each.state == "cut"], failed


def test_each_piece_of_a_copy_that_was_cut_is_told_with_its_own_counts(strict, make):
    origin, target = make(), make()
    live = [(k, 1, f"v{k}") for k in range(0, 90, 3)]
    fill(strict, origin, "k, c, v", live)
    bury(strict, origin, [(k, 0) for k in range(MOST_TOMBSTONES * 2)])
    plan = plan_copy(strict, origin, target, token_ranges=1)
    ended, cuts, failed = pieces_of(in_process(plan, strict))
    assert (failed, len(ended)) == ("", len(cuts) + 1)
    for report in ended:
        there = sum(token(k) in report.piece for k, _, _ in live)
        counts = report.counts
        assert (counts.read, counts.written, report.state) == (there, there, "done")
    assert three_columns(strict, target) == sorted(live)


def test_a_partition_that_cannot_be_read_costs_a_copy_one_piece(strict, make):
    origin, target = make(), make()
    whole, broken = bury_two(strict, origin)
    plan = plan_copy(strict, origin, target, token_ranges=1, retry_seconds=0.5)
    ended, _, failed = pieces_of(in_process(plan, strict))
    assert failed.startswith(f"the partition with token {token(broken[0])} of ")
    bad = [report for report in ended if report.state == "failed"]
    assert [token(k) in r.piece for k, r in zip(broken, bad, strict=True)] == [True] * 2
    assert all("cannot be read" in report.reason for report in bad)
    assert {k for k, _, _ in three_columns(strict, target)} - set(broken) == set(whole)


def test_pieces_of_a_run_are_rows_of_its_details_and_what_failed_is_resumed(strict, make, tmp_path):
    origin, target = make(), make()
    whole, broken = bury_two(strict, origin)
    project = make_project(tmp_path, cassandra_port=strict.settings.port)
    project.declare(
        "moved",
        "TableMigration",
        origin={"store": "sunbird", "table": str(origin)},
        target={"store": "reports", "table": str(target)},
        token_ranges=1,
        workers=1,
        retry_seconds=0.5,
    )
    asset = dg.AssetKey(["reports", "strict", target.table])
    resumes = {"ops": {"__".join(asset.path): {"config": {"resume": "auto"}}}}
    first = project.run("00-of-1", assets=[asset])
    assert "cannot be read" in first.error
    details = details_of(strict, target)
    statuses = Counter(row.status for row in details)
    assert statuses["FAIL"] == 2
    assert statuses["PASS"] == len(details) - 2
    assert (details[0].token_min, details[-1].token_max) == (RING.start, RING.end)
    assert all(a.token_max + 1 == b.token_min for a, b in pairwise(details))
    assert {k for k, _, _ in three_columns(strict, target)} - set(broken) == set(whole)

    for k in broken:
        strict.session.execute(f"DELETE FROM {origin} WHERE k = {k}")
        strict.session.execute(f"INSERT INTO {origin} (k, c) VALUES ({k}, 0)")
    project.run("00-of-1", assets=[asset], config=resumes).assert_success()
    again = details_of(strict, target)
    assert [(row.token_min, row.token_max) for row in again] == [
        (row.token_min, row.token_max) for row in details if row.status == "FAIL"
    ]
    assert [row.status for row in again] == ["PASS"] * 2
    assert {k for k, _, _ in three_columns(strict, target)} == {*whole, *broken}


class Detail(NamedTuple):
    token_min: int
    token_max: int
    status: str
    run_info: str


def details_of(connection: Connection, target: TableName) -> list[Detail]:
    """Give the pieces of the newest tracked run into a table, by their tokens."""
    keyspace = "migration_platform"
    run = connection.session.execute(
        f"SELECT run_id FROM {keyspace}.cdm_run_info WHERE table_name=%s ORDER BY run_id DESC",
        (target.table,),
    )
    rows = connection.session.execute(
        "SELECT token_min, token_max, status, run_info "
        f"FROM {keyspace}.cdm_run_details WHERE table_name=%s AND run_id=%s ORDER BY token_min",
        (target.table, run.one()[0]),
    )
    return [Detail(*row) for row in rows]


def test_a_server_that_does_not_answer_is_waited_for_and_nothing_is_cut(
    cassandra, connection, keyspace, monkeypatch
):
    monkeypatch.setattr(store, "REQUEST_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(store, "PROBE_SECONDS", 0.3)
    table = create_table(connection, keyspace, "a", BODY)
    fill(connection, table, "k, c", [(k, 1) for k in range(50)])
    weather = Weather()
    with (
        proxy_before(cassandra.port, weather) as proxy,
        Connection(CassandraSettings(port=proxy.port)) as through,
    ):
        told = Told(through, select(through, table))
        weather.spoil(lose, answers=10**6, after=1)
        with pytest.raises(
            TransientError, match=r"did not answer in time, after .* tries in [23] s"
        ):
            told.read(fetch_size=10, retry_seconds=2)
    assert len(told.rows) == 10
    assert (told.cuts, told.pieces) == ([], [])
