"""How a table lies on the ring before a run: figures against what was written, and the command."""

import json
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from migration_platform.cli import main
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.stack import Running
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.analysis import (
    MOST_ROWS_A_RANGE,
    RING,
    Analysis,
    Estimates,
    Sample,
    SeenPartition,
    Stretch,
    tell_figures,
)
from migration_platform.stores.cassandra import analysis as sampling
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.origin import CassandraOrigin
from migration_platform.stores.interface import Pace
from migration_platform.stores.planning import analyse_origin
from migration_platform.token_ranges import (
    MAX_RANGES,
    MIN_TOKEN,
    index_of_token,
    split_ring,
    token_of_key,
)
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    Project,
    make_project,
    wait_until,
)
from migration_platform_tests.roles import Roles
from migration_platform_tests.servers import QUICK, SMALL_HEAP_MB, run_server
from migration_platform_tests.tables import (
    create_keyspace,
    create_table,
    fill,
    insert_rows,
    patient_connection,
)

pytestmark = DAGSTERS_OWN_WARNINGS

KEYED = "k int, c int, v text, PRIMARY KEY (k, c)"
NO_ESTIMATES = Estimates(1, 0)


def look(connection: Connection, name: TableName, **limits: int) -> Analysis:
    origin, endpoint = CassandraOrigin(connection), Endpoint("a", name, **limits)
    table, _ = origin.find_table(endpoint)
    found = analyse_origin(origin, table, endpoint, 60.0)
    assert found is not None
    return found


def token_of(number: int) -> int:
    return token_of_key(number.to_bytes(4, "big", signed=True))


def tokens_of(numbers: range) -> list[int]:
    return sorted(map(token_of, numbers))


def close(found: float, truth: float, share: float) -> bool:
    return abs(found - truth) <= share * truth


# -- figures, without a server ---------------------------------------------------------------------


def sampled(rows: int, partitions: int, *, row_bytes: int = 100) -> Analysis:
    """An analysis of even partitions of which 200 were seen."""
    each = rows // partitions
    seen = tuple(SeenPartition(f"k={n}", token_of(n), each, each * row_bytes) for n in range(200))
    return Analysis(Sample(RING * 200 // partitions, 200, seen), NO_ESTIMATES)


@pytest.mark.parametrize(
    ("rows", "partitions", "row_bytes", "workers", "ranges", "why"),
    [
        (13_000_000, 13_000_000, 100, 4, 64, "at most 250,000 rows a range"),
        (4_000_000, 400_000, 4_000, 4, 128, "at most 128 MB a range"),
        (3_000_000_000, 3_000_000, 100, 4, 1024, "the most there can be"),
        (1_000_000, 100_000, 100, 8, 32, "4 for each of 8 workers"),
        (100_000, 10_000, 100, 8, 16, "at least 5,000 rows a range"),
        (10_000, 1_000, 100, 8, 8, "one for each of 8 workers"),
        (12_000_000, 300, 100, 100, 256, "a partition cannot be cut"),
    ],
)
def test_the_recommended_number_follows_from_rows_bytes_workers_and_partitions(
    rows: int, partitions: int, row_bytes: int, workers: int, ranges: int, why: str
) -> None:
    found, said = sampled(rows, partitions, row_bytes=row_bytes).recommend(workers)
    assert (found, why in said) == (ranges, True), said
    assert found <= MAX_RANGES
    assert found == MAX_RANGES or rows / found <= MOST_ROWS_A_RANGE


def test_a_large_partition_that_was_seen_makes_the_largest_range() -> None:
    small = tuple(SeenPartition(f"k={n}", token_of(n), 10, 100) for n in range(199))
    large = (SeenPartition("k=-1", token_of(-1), 5_000, 50_000),)
    found = Analysis(Sample(RING // 10, 200, small, large), NO_ESTIMATES)
    assert close(found.rows, 10 * (1_990 + 5_000), 0.01)
    cut = found.cut(64)
    assert cut.largest >= 5_000
    assert cut.skew > 4
    # Ten such partitions: their rows are never all in one of few ranges, nor more than there are.
    assert found.cut(1).largest == pytest.approx(found.rows)


def test_unread_partitions_count_as_the_large_ones_do() -> None:
    small = (SeenPartition("k=1", 1, 10, 100),)
    large = (SeenPartition("k=2", 2, 1_000, 10_000),)
    found = Analysis(Sample(RING, 4, small, large, unread=2), NO_ESTIMATES)
    assert found.rows == pytest.approx(3_010)
    assert not found.is_at_least
    assert not found.sample.is_whole


def test_estimates_of_a_part_of_the_ring_are_scaled_to_all_of_it() -> None:
    quarter = RING // 4
    found = Estimates(
        4,
        1,
        (
            Stretch(MIN_TOKEN, MIN_TOKEN + quarter // 2, 100, 1_000),
            # Over the end of the ring.
            Stretch(2**63 - quarter // 4, MIN_TOKEN + quarter // 4, 100, 1_000),
        ),
    )
    assert found.partitions == pytest.approx(800)
    assert found.size == pytest.approx(8_000)


def test_partitions_that_only_the_servers_know_of_count_too() -> None:
    seen = tuple(SeenPartition(f"k={n}", token_of(n), 10, 1_000) for n in range(200))
    sample = Sample(RING // 5, 200, seen)
    whole = (Stretch(MIN_TOKEN, MIN_TOKEN, 1_000, 5 * 10**6),)
    assert Analysis(sample, Estimates(1, 1, whole)).rows > 2 * 10_000
    found = Analysis(sample, Estimates(1, 1, whole, largest_partition=3_300_000))
    assert found.follows_estimates
    assert found.cut(64).largest > found.rows / 2
    told = tell_figures(found)
    assert "large partitions are missing in the sample" in told["found by"]
    assert told["largest"] == "a partition of about 3.3 MB, as the nodes say"


# -- a server that tells nothing (yet) -------------------------------------------------------------


def test_a_small_table_is_counted_exactly(connection: Connection, keyspace: str) -> None:
    table = create_table(connection, keyspace, "t", KEYED)
    rows = [(n % 100, n, f"value {n}") for n in range(3_000)]
    fill(connection, table, "k, c, v", rows)

    found = look(connection, table)

    assert found.sample.is_whole
    assert (found.rows, found.partitions) == (3_000, 100)
    tokens = tokens_of(range(100))
    assert (found.sample.lowest_token, found.sample.highest_token) == (tokens[0], tokens[-1])
    for ranges in (4, 64):
        ends = [each.end for each in split_ring(ranges)]
        truth = [0] * ranges
        for token in tokens:
            truth[index_of_token(ends, token)] += 30
        cut = found.cut(ranges)
        assert (cut.rows, cut.largest) == (3_000 / ranges, max(truth))
        assert cut.skew == pytest.approx(max(truth) * ranges / 3_000)
    told = tell_figures(found)
    assert (told["rows"], told["found by"]) == ("3,000", "reading all of it")


def test_an_empty_table_has_no_rows_and_a_range_for_each_worker(
    connection: Connection, keyspace: str
) -> None:
    found = look(connection, create_table(connection, keyspace, "t", KEYED))
    assert (found.rows, found.size, found.partitions) == (0, 0, 0)
    assert (found.sample.lowest_token, found.largest) == (None, [])
    assert found.recommend(4) == (4, "no row was found: one for each of 4 workers")
    assert found.cut(64).skew == 1.0
    assert tell_figures(found)["tokens"] == "none seen"


def test_a_table_of_one_partition_is_one_range(connection: Connection, keyspace: str) -> None:
    table = create_table(connection, keyspace, "t", KEYED)
    fill(connection, table, "k, c, v", [(7, n, "v") for n in range(1_500)])
    found = look(connection, table)
    assert (found.rows, found.partitions, found.recommend(4)[0]) == (1_500, 1, 1)
    assert (found.sample.lowest_token, found.sample.highest_token) == (token_of(7), token_of(7))
    assert found.cut(4).skew == 4
    assert [(each.key, each.rows) for each in found.largest] == [("k=7", 1_500)]


def test_a_partition_that_holds_most_of_a_table_is_found_and_makes_it_skewed(
    connection: Connection, keyspace: str
) -> None:
    table = create_table(connection, keyspace, "t", KEYED)
    rows = [(n, 0, "v" * 20) for n in range(200)] + [(1_000, n, "v" * 20) for n in range(5_000)]
    fill(connection, table, "k, c, v", rows)
    found = look(connection, table)
    assert (found.rows, found.largest[0].key, found.largest[0].rows) == (5_200, "k=1000", 5_000)
    assert found.largest[0].is_whole
    assert found.cut(64).skew > 60
    assert close(found.largest[0].size, 5_000 * (4 + 4 + 20 + 3 * 4), 0.01)


def test_many_partitions_are_estimated_from_a_sample(
    connection: Connection, keyspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "KEYS_A_WINDOW", 8)
    monkeypatch.setattr(sampling, "PARTITIONS_READ", 100)
    table = create_table(connection, keyspace, "t", KEYED)
    numbers = range(4_000)
    rows = [(n, c, f"{n} {c}") for n in numbers for c in range(1 + n % 3)]
    fill(connection, table, "k, c, v", rows)

    found = look(connection, table)

    assert not found.sample.is_whole
    assert found.sample.partitions == 8 * 64
    # 512 partitions are off by four percent, 100 sizes by as much; three times that is far off.
    assert close(found.partitions, 4_000, 0.15)
    assert close(found.rows, len(rows), 0.25)
    tokens = tokens_of(numbers)
    assert (found.sample.lowest_token, found.sample.highest_token) == (tokens[0], tokens[-1])
    ends = [each.end for each in split_ring(64)]
    truth = [0] * 64
    for n in numbers:
        truth[index_of_token(ends, token_of(n))] += 1 + n % 3
    assert close(found.cut(64).largest, max(truth), 0.3)
    assert "the servers tell no estimates" in tell_figures(found)["found by"]


def test_wide_partitions_are_read_to_their_end_where_a_glance_does_not_see_it(
    connection: Connection, keyspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MOST_ROWS", 6_000)
    monkeypatch.setattr(sampling, "FURTHER_ROWS", 1_200)
    table = create_table(connection, keyspace, "t", KEYED)
    rows = [(k, c, "v") for k in range(20) for c in range(1_000)]
    fill(connection, table, "k, c, v", rows)

    found = look(connection, table)

    assert found.partitions == 20
    assert found.sample.unread > 0
    # Those for which too little is left count as the others do.
    assert close(found.rows, len(rows), 0.01)
    assert not found.is_at_least
    assert found.largest[0].rows == 1_000
    # Twenty partitions lie as chance has it: the largest of 64 ranges has one or two of them.
    assert 1_000 <= found.cut(64).largest <= 3_500


def test_a_partition_that_is_too_large_is_said_to_have_more(
    connection: Connection, keyspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MOST_ROWS", 2_000)
    table = create_table(connection, keyspace, "t", KEYED)
    fill(connection, table, "k, c, v", [(1, c, "v") for c in range(4_000)])
    found = look(connection, table)
    assert found.is_at_least
    assert not found.largest[0].is_whole
    assert 1_500 <= found.rows < 4_000
    assert tell_figures(found)["rows"].startswith("at least ")


def test_large_cells_end_the_read_of_a_partition_by_their_bytes(
    connection: Connection, keyspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MOST_BYTES", 4_000_000)
    monkeypatch.setattr(sampling, "FURTHER_BYTES", 1_000_000)
    table = create_table(connection, keyspace, "t", KEYED)
    for k in range(2):
        # One by one: a hundred of them at a time are more than a connection takes.
        rows = ({"k": k, "c": c, "v": "v" * 100_000} for c in range(60))
        insert_rows(connection, table, rows)
    read = 0

    class Counted(RateBudget):
        def take(self, rows: int, size: float = 0) -> None:
            nonlocal read
            read += int(size)
            super().take(rows, size)

    origin, endpoint = CassandraOrigin(connection), Endpoint("a", table)
    budget = Counted(multiprocessing.get_context("spawn"))
    found = origin.analyse(
        origin.find_table(endpoint)[0], endpoint, Pace(budget, 60.0, lambda error: None)
    )
    assert found.is_at_least
    # A page of 50 rows for a glance at each, and the pages under way behind them.
    assert read < 2 * (6_000_000 + 5_100_000)


def test_a_sample_stays_within_the_declared_rows_a_second(
    connection: Connection, keyspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MOST_SECONDS", 2)
    table = create_table(connection, keyspace, "t", KEYED)
    fill(connection, table, "k, c, v", [(n, 0, "v") for n in range(3_000)])
    began = time.monotonic()
    found = look(connection, table, rows_per_second=400)
    seconds = time.monotonic() - began
    seen = found.sample.partitions + sum(each.rows for each in found.sample.seen)
    assert seen <= 1_000
    assert seconds >= seen / 400 - 1
    assert close(found.partitions, 3_000, 0.3)


def test_static_cells_and_a_key_of_several_columns_and_odd_names_are_read(
    connection: Connection, keyspace: str
) -> None:
    body = (
        '"Tenant Id" text, b int, c int, s text static, v text, PRIMARY KEY (("Tenant Id", b), c)'
    )
    table = create_table(connection, keyspace, "OddName", body)
    rows = [(f"t{n}", n, c, "s", "v") for n in range(50) for c in range(4)]
    fill(connection, table, '"Tenant Id", b, c, s, v', rows)
    found = look(connection, table)
    assert (found.rows, found.partitions) == (200, 50)
    assert found.largest[0].key.startswith('"Tenant Id"=\'t')


def test_a_role_that_may_only_read_the_table_is_enough(roles: Roles) -> None:
    table = create_table(roles.admin, roles.keyspace, "t", KEYED)
    fill(roles.admin, table, "k, c, v", [(n, 0, "v") for n in range(30)])
    with roles.connect(f"SELECT ON TABLE {table}") as connection:
        assert look(connection, table).rows == 30


# -- a server that tells ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that counts its partitions each second, half a minute after its start."""
    server = Cassandra(
        cluster_name="telling",
        heap_mb=SMALL_HEAP_MB,
        properties={**QUICK, "cassandra.size_recorder_interval": "1"},
    )
    with run_server(server, tmp_path_factory.mktemp("telling")) as running:
        yield running


def test_estimates_of_a_server_agree_with_the_sample_and_find_what_it_missed(
    telling: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with patient_connection(CassandraSettings(port=telling.port)) as connection:
        create_keyspace(connection, "told")
        body = f"{KEYED} WITH memtable_flush_period_in_ms = 1000"
        even = create_table(connection, "told", "even", body)
        fill(connection, even, "k, c, v", [(n, c, "v" * 90) for n in range(5_000) for c in (0, 1)])
        uneven = create_table(connection, "told", "uneven", body)
        fill(connection, uneven, "k, c, v", [(n, 0, "v" * 90) for n in range(5_000)])
        fill(connection, uneven, "k, c, v", [(-1, c, "v" * 390) for c in range(15_000)])

        def told(name: TableName, partitions: int) -> bool:
            table, _ = CassandraOrigin(connection).find_table(Endpoint("a", name))
            found = sampling.read_estimates(connection, table)
            right = found.nodes_that_tell == 1 and close(found.partitions, partitions, 0.2)
            return right and (name != uneven or found.largest_partition > 3_000_000)

        wait_until(lambda: told(even, 5_000), 180, "estimates of the even table")
        wait_until(lambda: told(uneven, 5_001), 180, "estimates of the uneven table")

        found = look(connection, even)
        assert not found.follows_estimates
        assert close(found.rows, 10_000, 0.1)
        assert close(found.estimates.partitions, 5_000, 0.2)
        # What is read is the values with their lengths, once for each row.
        assert close(found.size, 10_000 * (4 + 4 + 90 + 12), 0.1)
        said = tell_figures(found)["found by"]
        assert "1 of 1 nodes estimate" in said

        # The large partition is one of 5,001, of which 20 are looked at.
        monkeypatch.setattr(sampling, "PARTITIONS_READ", 20)
        found = look(connection, uneven)
        assert "k=-1" not in [each.key for each in found.sample.seen]
        assert found.follows_estimates
        assert 10_000 <= found.rows <= 100_000
        assert 7_000 <= found.cut(16).largest <= 60_000


# -- the command, and the plan ---------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, cassandra: Running, connection: Connection, keyspace: str) -> Project:
    """A project with a migration from `shop` to `new_shop`, and a table that it does not name."""
    found = make_project(tmp_path, cassandra_port=cassandra.port)
    for name in ("shop", "new_shop", "other"):
        create_table(connection, keyspace, name, KEYED)
    fill(
        connection,
        TableName(keyspace, "shop"),
        "k, c, v",
        [(n % 10, n, f"v{n}") for n in range(500)] + [(99, n, "v") for n in range(500)],
    )
    found.declare(
        "shop",
        "TableMigration",
        origin={"store": "sunbird", "table": f"{keyspace}.shop"},
        target={"store": "reports", "table": f"{keyspace}.new_shop"},
        token_ranges=48,
        workers=3,
    )
    return found


def command(project: Project, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["analyse", *arguments, "--project", str(project.folder)])
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_tells_a_person_how_large_a_table_is_and_how_to_cut_it(
    project: Project, keyspace: str
) -> None:
    told = command(project, f"{keyspace}.new_shop")
    lines = [line.split() for line in told.splitlines()]
    assert told.startswith(f"{keyspace}.shop in sunbird, the origin of {keyspace}.new_shop\n")
    assert ["rows", "1,000"] in lines
    assert ["partitions", "11"] in lines
    assert ["k=99", "500"] in [line[:2] for line in lines]
    assert [line[0] for line in lines if line[1:2] and line[0].isdigit()] == [
        "4",
        "8",
        "16",
        "32",
        "48",
        "64",
    ]
    assert "declared" in next(line for line in lines if line[:1] == ["48"])
    assert "recommended" in next(line for line in lines if line[:1] == ["4"])
    assert "Recommended is token_ranges: 4, of 250 rows and" in told
    assert "(one for each of 3 workers)" in told
    assert "A partition of about 500 rows is more than such a range" in told


def test_the_command_takes_the_origins_name_too_and_any_table_of_a_store(
    project: Project, keyspace: str
) -> None:
    named = json.loads(command(project, f"{keyspace}.shop", "--json"))
    assert (named["rows"], named["token_ranges"], named["workers"]) == (1_000, 48, 3)
    assert (named["is_exact"], named["largest_partitions"][0]["rows"]) == (True, 500)
    assert named["lowest_token"] == min(map(token_of, (*range(10), 99)))
    slashes = f"reports/{keyspace}/new_shop"
    assert json.loads(command(project, slashes, "--json", "--workers", "9"))["workers"] == 9

    told = command(project, f"{keyspace}.other", "--store", "reports", "--workers", "2")
    assert told.startswith(f"{keyspace}.other in reports\n")
    assert "Recommended is token_ranges: 2 (no row was found: one for each of 2 workers)." in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{keyspace}.none"], "no migration is called"),
        (["{keyspace}.none"], "for a table that no migration reads, name its --store"),
        (["{keyspace}.shop", "--store", "nowhere"], "there is no cassandra store nowhere"),
        (["{keyspace}.shp", "--store", "sunbird"], "there is no table"),
        (["shop", "--store", "sunbird"], "write keyspace.table"),
    ],
)
def test_what_there_is_not_is_said_in_a_sentence(
    project: Project, keyspace: str, arguments: list[str], said: str
) -> None:
    told = command(project, *(each.format(keyspace=keyspace) for each in arguments), code=1)
    assert said in told
    assert "Traceback" not in told


def test_the_plan_shows_the_analysis_of_the_origin(project: Project, keyspace: str) -> None:
    plan = dg.AssetKey(["reports", keyspace, "new_shop_plan"])
    run = project.run(None, assets=[plan]).assert_success()
    told = run.materializations(plan)[None]
    assert (told["estimated_rows"], told["estimated_partitions"]) == (1_000, 11)
    assert told["estimated_bytes"] > 10_000
    assert told["token_ranges_recommended"] == 4
    assert "| 48 | 21 | " in told["token_analysis"]
    assert "| k=99 | 500 | " in told["token_analysis"]
