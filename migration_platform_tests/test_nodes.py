"""Three nodes: a request goes to a node that has the rows, and the loss of one costs none.

Where requests went is asked of the nodes themselves: each counts what it coordinates, and what it
reads and writes in its own tables.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cassandra.query import PreparedStatement

from migration_platform.comparing.diff import diff_ranges
from migration_platform.copying.copy import CopyRange
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import Page
from migration_platform.declaration.migration import Endpoint
from migration_platform.errors import PermanentError
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection, Key, Slice
from migration_platform.stores.cassandra.origin import CassandraOrigin
from migration_platform.stores.cassandra.reads import read_rows
from migration_platform.stores.planning import analyse_origin
from migration_platform.stores.work import Done, Failed
from migration_platform.token_ranges import split_ring
from migration_platform_tests.servers import Node, run_cluster, wait_for_others
from migration_platform_tests.tables import (
    copy_table,
    create_table,
    fill,
    patient_connection,
    plain_session,
    plan_copy,
)

NODES = 3
TOKENS = 4
ROWS = 900
SETTINGS = {
    # Without this a killed server forgets up to ten seconds of what it has acknowledged.
    "commitlog_sync": "batch",
    "commitlog_sync_period": "0ms",
    # Until the others know of a node's end, they wait for it so long.
    "range_request_timeout": "3000ms",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """The nodes that these tests share."""
    home = tmp_path_factory.mktemp("nodes")
    with run_cluster(home, NODES, tokens=TOKENS, settings=SETTINGS) as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: list[Node]) -> list[Node]:
    """The nodes, all of them up, whatever an earlier test did to one."""
    for node in cluster:
        node.start()
    for node in cluster:
        wait_for_others(node, NODES - 1)
    return cluster


@pytest.fixture
def cluster_settings(nodes: list[Node]) -> CassandraSettings:
    return CassandraSettings(tuple(node.server.address for node in nodes), nodes[0].port)


@pytest.fixture
def connected(cluster_settings: CassandraSettings) -> Iterator[Connection]:
    with patient_connection(cluster_settings) as connection:
        yield connection


def make_keyspace(connection: Connection, name: str, replicas: int) -> None:
    connection.session.execute(
        f"CREATE KEYSPACE {name} WITH replication = "
        f"{{'class': 'SimpleStrategy', 'replication_factor': {replicas}}}"
    )


def make_tables(connection: Connection, keyspace: str) -> list[TableName]:
    """Two tables under different keys, the first of them filled."""
    origin = create_table(connection, keyspace, "a", "k int, c int, v text, PRIMARY KEY (k, c)")
    target = create_table(connection, keyspace, "b", "k int, c int, v text, PRIMARY KEY (c, k)")
    fill(connection, origin, "k, c, v", [(n % 97, n % 300, f"v{n}") for n in range(ROWS)])
    return [origin, target]


def read(connection: Connection, statement: PreparedStatement, keys: list) -> list[Page]:
    """Read single rows, each at the first try."""

    def refuse(error: BaseException) -> None:
        raise AssertionError("a read was tried again") from error

    found = read_rows(
        connection, statement, keys, consistency="ONE", retry_seconds=5, on_retry=refuse
    )
    return [page for _, page in found]


def counted(node: Node, kind: str, table: TableName) -> int:
    """How often a node did something for a table, as it says itself."""
    with plain_session(CassandraSettings((node.server.address,), node.port)) as session:
        rows = session.execute(f"SELECT keyspace_name, table_name, count FROM system_views.{kind}")
        return next(
            (
                row["count"]
                for row in rows
                if (row["keyspace_name"], row["table_name"]) == (table.keyspace, table.table)
            ),
            0,
        )


def test_each_request_goes_to_the_one_node_that_has_its_rows(nodes, connected):
    make_keyspace(connected, "one", 1)
    origin, target = make_tables(connected, "one")
    # As many slices as the nodes have, so that each is at one node.
    counts = copy_table(
        connected,
        origin,
        target,
        token_ranges=NODES * TOKENS,
        origin_fetch_size=20,
        batch_across_partitions=False,
    )
    assert counts.written == ROWS
    select = connected.prepare(f"SELECT v FROM {target} WHERE c = ? AND k = ?")
    keys = [(n, [n.to_bytes(4, "big"), (n % 97).to_bytes(4, "big")]) for n in range(300)]
    assert [page.row_count for page in read(connected, select, keys)] == [1] * len(keys)

    for what, table in (("scan", origin), ("write", target), ("read", target)):
        coordinated = [counted(node, f"coordinator_{what}_latency", table) for node in nodes]
        done = [counted(node, f"local_{what}_latency", table) for node in nodes]
        assert coordinated == done
        assert all(count > TOKENS for count in done)


def test_neighbouring_slices_are_asked_of_replicas_in_turn(nodes, connected):
    policy = connected.cluster.profile_manager.default.load_balancing_policy
    metadata = connected.cluster.metadata
    keyspace = "system_traces"  # which has two replicas
    for token_range in split_ring(50):
        token = metadata.token_map.token_class(token_range.end)
        replicas = metadata.token_map.get_replicas(keyspace, token)
        assert len(replicas) == 2
        first, second = (
            list(policy.make_query_plan(None, Slice(keyspace, token_range.end, turn)))
            for turn in (6, 7)
        )
        assert first[:2] == replicas == second[1::-1]
        assert set(first) == set(second) == set(metadata.all_hosts())
    # What the driver does not know of is left to chance.
    assert len(list(policy.make_query_plan(None, Slice("none", 0)))) == NODES


def test_partitions_share_a_request_only_at_a_node_that_has_all_of_them(
    nodes, connected, monkeypatch
):
    make_keyspace(connected, "shared", 1)
    origin, target = make_tables(connected, "shared")
    sent, send = [], connected.send

    def note(message, **options):
        future = send(message, **options)
        if hasattr(message, "items"):
            sent.append(({item[4:8] for item in message.items}, future))
        return future

    monkeypatch.setattr(connected, "send", note)
    counts = copy_table(connected, origin, target, token_ranges=1)
    assert (counts.written, counts.retries) == (ROWS, 0)
    partitions = []
    for keys, future in sent:
        owners = {
            host for key in keys for host in connected.cluster.metadata.get_replicas("shared", key)
        }
        assert owners == {future.coordinator_host}
        assert not future.warnings
        partitions.append(len(keys))
    # All are full but for the last one of each node.
    assert sorted(partitions)[NODES:] == [10] * (len(partitions) - NODES)
    rows = connected.session.execute(f"SELECT k, c, v FROM {target}")
    assert len(set(rows)) == ROWS


def test_keys_have_the_same_place_if_the_driver_finds_the_same_replicas(nodes, connected):
    metadata = connected.cluster.metadata
    keys = [number.to_bytes(4, "big") for number in range(300)]
    for keyspace, sets in (("system_traces", NODES), ("system_auth", NODES), ("none", 0)):
        place_of = connected.place_keys(keyspace)
        found = {(frozenset(metadata.get_replicas(keyspace, k)), place_of(k)) for k in keys}
        if not sets:
            assert found == {(frozenset(), None)}
            continue
        assert len(found) == sets == len({place for _, place in found} - {None})


def test_a_table_is_analysed_while_a_node_is_away(nodes, connected):
    make_keyspace(connected, "analysed", NODES)
    table, _ = make_tables(connected, "analysed")
    nodes[2].kill()
    origin, endpoint = CassandraOrigin(connected), Endpoint("a", table, "QUORUM")
    found = analyse_origin(origin, origin.find_table(endpoint)[0], endpoint, 60.0)
    assert (found.rows, found.partitions, found.estimates.nodes) == (ROWS, 97, NODES)


def test_a_key_that_has_no_node_is_left_to_the_server(nodes, connected):
    select = connected.prepare(
        "SELECT id FROM system_distributed.repair_history "
        "WHERE columnfamily_name = ? AND keyspace_name = ?"
    )
    key = b"\0\2ks\0\0\1t\0"
    route = connected.router(select)
    assert route([b"t", b"ks"]) == Key("system_distributed", key)
    for wrong in (None, b"x" * 2**16):
        assert route([b"t", wrong]) is None
        with pytest.raises(PermanentError):
            read(connected, select, [(0, [b"t", wrong])])


def test_nodes_that_are_lost_in_the_middle_of_a_run_cost_no_row(nodes, connected, cluster_settings):
    make_keyspace(connected, "three", 3)
    origin, target = make_tables(connected, "three")
    plan = plan_copy(
        connected,
        origin,
        target,
        token_ranges=NODES * TOKENS,
        # Slow enough for the loss to come in the middle, with pages and writes under way.
        origin_rows_per_second=ROWS // 3,
        origin_fetch_size=20,
        retry_seconds=60.0,
    )
    ranges = plan.migration.ranges
    with (
        ThreadPoolExecutor(1) as thread,
        WorkerPool(plan, cluster_settings, cluster_settings, workers=2) as pool,
    ):
        ended, restart = [], None
        for event in pool.run([CopyRange(token_range) for token_range in ranges]):
            assert not isinstance(event, Failed), event
            if isinstance(event, Done):
                ended.append(event.result)
                if len(ended) == 2:
                    nodes[1].kill()
                    # It is away for some seconds, and the copy ends with or without it.
                    restart = thread.submit(nodes[1].start)
        assert len(ended) == len(ranges)
        assert all(counts.complete for counts in ended)
        assert sum(counts.written for counts in ended) == ROWS

        assert restart is not None
        restart.result()
        wait_for_others(nodes[1], NODES - 1)

        # The node that comes back missed writes, and now another one is lost.
        def lose_another(done: int, _: int) -> None:
            if done == 2:
                nodes[2].kill()

        verdicts = list(diff_ranges(pool, plan, ranges, lose_another))
    assert len(verdicts) == len(ranges)
    assert all(verdict.matches for verdict in verdicts)
    assert sum(verdict.origin_rows for verdict in verdicts) == ROWS
    rows = connected.session.execute(f"SELECT k, c, v FROM {target}")
    assert len(set(rows)) == ROWS
