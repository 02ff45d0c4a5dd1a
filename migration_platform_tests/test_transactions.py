"""Lightweight transactions that replicas accepted and nobody finished.

They are left so for real: the nodes have no room for the log of changes (CDC) of a table, so that
they promise and accept an update, and then cannot carry it out. Once there is room again, it is
there for whoever reads serially. Three nodes with the older protocol, one with the newer.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

import pytest
from cassandra import ConsistencyLevel, DriverException
from cassandra.cluster import NoHostAvailable
from cassandra.query import SimpleStatement

from migration_platform.comparing.rechecks import recheck
from migration_platform.copying.dead_letters import open_dead_letters
from migration_platform.copying.replay import ReplaySlice, ensure_dead_letters
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import join_cells
from migration_platform.declaration.columns import Columns
from migration_platform.errors import PreflightError
from migration_platform.plan.fidelity import tell_transactions
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.transactions import finish_transactions, serial_level
from migration_platform.stores.kinds import plan_between
from migration_platform.token_ranges import serialize_key, split_key
from migration_platform_tests.comparing import compare
from migration_platform_tests.servers import Node, run_cluster
from migration_platform_tests.tables import copy_ranges, declare, in_process

SETTINGS = {
    "cdc_enabled": True,
    "cdc_total_space": "2MiB",
    "commitlog_segment_size": "1MiB",
}
BODY = "k int, b text, c int, v text, PRIMARY KEY ((k, b), c)"


@dataclass
class Unfinished:
    """A cluster and a keyspace in it, in whose tables updates can be left unfinished."""

    nodes: list[Node]
    connection: Connection
    keyspace: str

    def make(self, table: str, body: str = BODY, options: str = "") -> TableName:
        name = TableName(self.keyspace, table)
        self.execute(f"CREATE TABLE {name} ({body}){options}")
        return name

    def execute(self, cql: str, level: str = "QUORUM") -> list[tuple]:
        statement = SimpleStatement(
            cql, consistency_level=getattr(ConsistencyLevel, level), fetch_size=None
        )
        return list(self.connection.session.execute(statement, timeout=60))

    def leave(self, *updates: str) -> None:
        """Have updates accepted that no node carries out."""
        self._fill()
        for update in updates:
            with pytest.raises((DriverException, NoHostAvailable)):
                self.execute(update)
        self.make_room()

    def make_room(self) -> None:
        """Take the logs of changes away, as whoever reads them does, until all nodes have room."""
        deadline = time.monotonic() + 60
        while not self._takes(0):
            assert time.monotonic() < deadline
            for node in self.nodes:
                for file in (node.home / "cassandra" / "data" / "cdc_raw").iterdir():
                    file.unlink(missing_ok=True)
            time.sleep(0.2)

    def _fill(self) -> None:
        """Write until no node takes any more; one refusal may be that of a busy machine."""
        refusals = 0
        for key in count(1):
            refusals = 0 if self._takes(key) else refusals + 1
            if refusals == 3:
                return
            assert key < 2_000

    def _takes(self, key: int) -> bool:
        # By itself, an update is carried out where one node can.
        level = ConsistencyLevel.ONE if key else ConsistencyLevel.ALL
        statement = self.connection.session.prepare(
            f"INSERT INTO {self.keyspace}.filling (k, v) VALUES (?, ?)"
        )
        statement.consistency_level = level
        with suppress(DriverException, NoHostAvailable):
            self.connection.session.execute(statement, (key, os.urandom(20_000)), timeout=60)
            return True
        return False


@pytest.fixture(scope="module", params=[("v1", 3), ("v2", 1)], ids=["v1", "v2"])
def cluster(request, tmp_path_factory) -> Iterator[list[Node]]:
    variant, nodes = request.param
    home = tmp_path_factory.mktemp(f"paxos_{variant}")
    with run_cluster(home, nodes, settings={**SETTINGS, "paxos_variant": variant}) as members:
        yield members


@pytest.fixture
def unfinished(cluster: list[Node], request) -> Iterator[Unfinished]:
    settings = CassandraSettings(tuple(n.server.address for n in cluster), cluster[0].port)
    keyspace = f"t_{abs(hash(request.node.name)) % 10**9}"
    with Connection(settings) as connection:
        found = Unfinished(cluster, connection, keyspace)
        found.execute(
            f"CREATE KEYSPACE {keyspace} WITH replication = "
            f"{{'class': 'SimpleStrategy', 'replication_factor': {len(cluster)}}}"
        )
        found.make("filling", "k int PRIMARY KEY, v blob", " WITH cdc = true")
        found.make("a", BODY, " WITH cdc = true")
        found.make("b")
        found.make_room()
        yield found
        found.execute(f"DROP KEYSPACE {keyspace}")


def plan_of(unfinished: Unfinished, *, finish: bool, target: str = "b", **options) -> Plan:
    tables = (TableName(unfinished.keyspace, name) for name in ("a", target))
    declared = declare(*tables, origin_finish_transactions=finish, token_ranges=2, **options)
    return plan_between(declared, unfinished.connection, unfinished.connection)


def rows_of(unfinished: Unfinished, table: str) -> list[tuple]:
    return sorted(unfinished.execute(f"SELECT k, b, c, v FROM {unfinished.keyspace}.{table}"))


OLD = [(k, "x", 1, "old") for k in range(6)]
NEW = [(0, "x", 1, "new"), *OLD[1:], (7, "y", 1, "first"), (8, "", 2, "first")]


def leave_some(unfinished: Unfinished) -> None:
    """Six rows; one of them updated, and two of partitions that are not there yet, all in vain."""
    a = f"{unfinished.keyspace}.a"
    for k, b, c, v in OLD:
        unfinished.execute(f"INSERT INTO {a} (k, b, c, v) VALUES ({k}, '{b}', {c}, '{v}')")
    # One that was finished, and one that was refused, which leave something behind as well.
    unfinished.execute(f"UPDATE {a} SET v = 'old' WHERE k = 1 AND b = 'x' AND c = 1 IF v = 'old'")
    unfinished.execute(f"UPDATE {a} SET v = 'no' WHERE k = 2 AND b = 'x' AND c = 1 IF v = 'no'")
    unfinished.leave(
        f"UPDATE {a} SET v = 'new' WHERE k = 0 AND b = 'x' AND c = 1 IF v = 'old'",
        f"INSERT INTO {a} (k, b, c, v) VALUES (7, 'y', 1, 'first') IF NOT EXISTS",
        f"INSERT INTO {a} (k, b, c, v) VALUES (8, '', 2, 'first') IF NOT EXISTS",
    )
    assert rows_of(unfinished, "a") == OLD


def read_serially(unfinished: Unfinished, keys: Sequence[tuple[int, str]]) -> None:
    """What an application may do at any time."""
    for k, b in keys:
        unfinished.execute(
            f"SELECT v FROM {unfinished.keyspace}.a WHERE k = {k} AND b = '{b}'", "SERIAL"
        )


def test_an_update_that_nobody_finished_appears_after_a_copy_that_did_not_finish_it(unfinished):
    leave_some(unfinished)
    plan = plan_of(unfinished, finish=False)
    copy_ranges(in_process(plan, unfinished.connection))
    assert compare(unfinished.connection, plan).matches
    assert rows_of(unfinished, "b") == OLD

    read_serially(unfinished, [(0, "x"), (7, "y"), (8, "")])
    assert rows_of(unfinished, "a") == NEW
    assert not compare(unfinished.connection, plan).matches
    assert "may appear at the origin after the copy" in tell_transactions(plan)


def test_a_copy_that_finishes_transactions_misses_none(unfinished):
    leave_some(unfinished)
    plan = plan_of(unfinished, finish=True)
    counts = copy_ranges(in_process(plan, unfinished.connection))
    assert (counts.read, counts.written) == (len(NEW), len(NEW))
    assert rows_of(unfinished, "b") == rows_of(unfinished, "a") == NEW

    read_serially(unfinished, [(k, b) for k, b, _, _ in NEW])
    assert rows_of(unfinished, "a") == NEW
    assert compare(unfinished.connection, plan).matches
    assert "are finished first" in tell_transactions(plan)


def test_a_comparison_that_finishes_transactions_finds_what_a_copy_before_missed(unfinished):
    leave_some(unfinished)
    careless = plan_of(unfinished, finish=False)
    copy_ranges(in_process(careless, unfinished.connection))
    found = compare(unfinished.connection, plan_of(unfinished, finish=True))
    assert (found.missing, found.mismatched, found.extra) == (2, 1, 0)
    assert rows_of(unfinished, "a") == NEW


def test_a_row_that_is_read_again_is_read_serially(unfinished):
    leave_some(unfinished)
    copy_ranges(in_process(plan_of(unfinished, finish=False), unfinished.connection))
    keys = [
        join_cells([k.to_bytes(4, "big"), b.encode(), c.to_bytes(4, "big")], b"")
        for k, b, c, _ in (NEW[0], NEW[-1])
    ]
    for finish, differ in ((False, []), (True, ["mismatched", "missing"])):
        stores = in_process(plan_of(unfinished, finish=finish), unfinished.connection)
        suspects = recheck(stores, keys, frozenset(), lambda error: None)
        assert sorted(each.kind for each in suspects) == sorted(differ)


def test_a_dead_letter_is_replayed_with_what_was_accepted(unfinished):
    a, connection = f"{unfinished.keyspace}.a", unfinished.connection
    unfinished.make("numbers", BODY.replace("v text", "v int"))
    unfinished.execute(f"INSERT INTO {a} (k, b, c, v) VALUES (1, 'x', 1, 'no number')")
    options = {
        "target": "numbers",
        "columns": Columns(codecs=("INT_STRING",)),
        "dead_letters_max_rows": 10,
        "tracking_keyspace": unfinished.keyspace,
    }
    plan = plan_of(unfinished, finish=True, **options)
    ensure_dead_letters(connection, plan.migration)
    assert copy_ranges(in_process(plan, connection)).set_aside == 1
    unfinished.leave(f"UPDATE {a} SET v = '5' WHERE k = 1 AND b = 'x' AND c = 1 IF v = 'no number'")
    for finish, replayed in ((False, 0), (True, 1)):
        stores = in_process(plan_of(unfinished, finish=finish, **options), connection)
        letters = open_dead_letters(connection, plan.migration)
        assert letters is not None
        slices = letters.slices()
        done = [ReplaySlice(number).run(stores, lambda _: None) for number in slices]
        assert sum(each.replayed for each in done) == replayed
    assert rows_of(unfinished, "numbers") == [(1, "x", 1, 5)]


def test_only_partitions_of_the_piece_are_read_and_each_of_them(unfinished):
    leave_some(unfinished)
    plan = plan_of(unfinished, finish=True)
    pace = in_process(plan, unfinished.connection).reading("origin", lambda error: None)
    first, second = plan.migration.ranges
    finish_transactions(unfinished.connection, plan, first, pace)
    between = rows_of(unfinished, "a")
    finish_transactions(unfinished.connection, plan, second, pace)
    assert rows_of(unfinished, "a") == NEW
    tokens = {
        (k, b): token
        for k, b, token in unfinished.execute(
            f"SELECT k, b, token(k, b) FROM {unfinished.keyspace}.a"
        )
    }
    assert between == sorted(
        new if new[:2] in tokens and tokens[new[:2]] in first else old
        for new, old in zip(NEW, [*OLD, None, None], strict=True)
        if old is not None or tokens[new[:2]] in first
    )


def test_a_view_has_no_transactions_of_its_own(roles):
    roles.make("base", "k int PRIMARY KEY, w int")
    roles.execute(
        "CREATE MATERIALIZED VIEW {ks}.v AS SELECT k, w FROM {ks}.base "
        "WHERE w IS NOT NULL AND k IS NOT NULL PRIMARY KEY (w, k)"
    )
    pair = TableName(roles.keyspace, "v"), roles.make("t", "w int, k int, PRIMARY KEY (w, k)")
    with pytest.raises(PreflightError, match="lightweight transactions are those of its base"):
        plan_between(declare(*pair, origin_finish_transactions=True), roles.admin, roles.admin)


@pytest.mark.parametrize("cells", [[b""], [b"a"], [b"", b"b"], [b"a\0b", b"", b"\0" * 300]])
def test_a_serialized_key_is_split_into_its_columns(cells):
    assert split_key(serialize_key(cells), len(cells)) == cells


@pytest.mark.parametrize(
    ("level", "serial"),
    [("LOCAL_QUORUM", "LOCAL_SERIAL"), ("LOCAL_ONE", "LOCAL_SERIAL"), ("QUORUM", "SERIAL")],
)
def test_a_serial_read_reaches_as_far_as_the_others(level, serial):
    assert serial_level(level) == serial
