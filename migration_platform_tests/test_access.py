"""What a server refuses to a whole table is refused before the run, or ends it once.

Each case is held against the run itself: what is refused beforehand is what fails, and nothing
else is. The server here asks for permissions, has guardrails, and knows at once what was granted.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest

from migration_platform.comparing.diff import diff_ranges
from migration_platform.copying.copy import CopyRange
from migration_platform.cql.names import TableName
from migration_platform.declaration.filters import Filter
from migration_platform.errors import DeniedError, MigrationError, PreflightError
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.stack import Running
from migration_platform.plan.model import Plan
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.interface import Origin, Target, Uses
from migration_platform.stores.kinds import open_origin, open_target, plan_between
from migration_platform.stores.permissions import look_again, refuse_denied
from migration_platform.stores.work import Done, Failed
from migration_platform_tests.comparing import compare
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    make_project,
    wait_until,
)
from migration_platform_tests.roles import Roles, roles_of
from migration_platform_tests.servers import QUICK, SMALL_HEAP_MB, run_server
from migration_platform_tests.tables import copy_ranges, declare, in_process

ROWS = 60
BODY = "k int PRIMARY KEY, w int"
GUARDRAILS = {
    "permissions_validity": "0ms",
    "roles_validity": "0ms",
    "read_consistency_levels_disallowed": ["LOCAL_ONE"],
    "write_consistency_levels_disallowed": ["LOCAL_ONE"],
    "user_timestamps_enabled": False,
    "allow_filtering_enabled": False,
    "drop_truncate_table_enabled": False,
    "page_size_fail_threshold": 5_000,
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server = Cassandra(
        cluster_name="guardrails",
        password=True,
        heap_mb=SMALL_HEAP_MB,
        settings=GUARDRAILS,
        properties=QUICK,
    )
    with run_server(server, tmp_path_factory.mktemp("guardrails")) as running:
        yield running


@pytest.fixture
def roles(guarded: Running) -> Iterator[Roles]:
    """Roles on that server: guardrails hold for all of them, and not for the superuser."""
    with roles_of(guarded) as found:
        yield found


READ, WRITE = "SELECT ON KEYSPACE {ks}", "MODIFY ON KEYSPACE {ks}"
NEW_TIMES = {"writetime": "now", "ttl": "none"}
COPY, COMPARE = Uses(comparing=False), Uses(copying=False)


@dataclass(frozen=True)
class Case:
    """What a role may, what is done, and what is said of it; nothing if it may be done."""

    grants: tuple[str, ...]
    said: tuple[str, ...] = ()
    uses: Uses = field(default_factory=Uses)
    body: str = BODY
    options: dict[str, Any] = field(default_factory=lambda: NEW_TIMES)


CASES = {
    "all that is needed": Case((READ, WRITE)),
    "nothing at all": Case(
        (),
        (
            "reading {ks}.a at a is refused: GRANT SELECT ON TABLE {ks}.a TO {role}",
            "reading {ks}.b at b is refused: GRANT SELECT ON TABLE {ks}.b TO {role}",
            "writing {ks}.b at b is refused: GRANT MODIFY ON TABLE {ks}.b TO {role}",
        ),
    ),
    "no write": Case((READ,), ("GRANT MODIFY ON TABLE {ks}.b TO {role}",)),
    "no write, none needed": Case((READ,), uses=COMPARE),
    "no write, but repairs": Case(
        (READ,),
        ("GRANT MODIFY ON TABLE {ks}.b TO {role}", "Guardrail user_timestamps violated"),
        COMPARE,
        options={**NEW_TIMES, "repair": ("missing",)},
    ),
    "no read": Case((WRITE,), ("GRANT SELECT ON TABLE {ks}.a TO {role}",), COPY),
    "no read of the target": Case(
        ("SELECT ON TABLE {ks}.a", WRITE), ("GRANT SELECT ON TABLE {ks}.b TO {role}",)
    ),
    "no read of the target, none needed": Case(("SELECT ON TABLE {ks}.a", WRITE), uses=COPY),
    "no read of the target's counters": Case(
        ("SELECT ON TABLE {ks}.a", WRITE),
        ("GRANT SELECT ON TABLE {ks}.b TO {role}",),
        COPY,
        "k int PRIMARY KEY, w counter",
        {},
    ),
    "counters": Case((READ, WRITE), body="k int PRIMARY KEY, w counter", options={}),
    "a writetime that is not allowed": Case(
        (READ, WRITE),
        (
            "Guardrail user_timestamps violated",
            "set writetime: now and leave out diff.repair, or let the servers take timestamps",
        ),
        options={},
    ),
    "a level of reads that is not allowed": Case(
        (READ, WRITE),
        ("Guardrail read_consistency_levels violated", "choose another origin.consistency"),
        options={**NEW_TIMES, "origin_consistency": "LOCAL_ONE"},
    ),
    "a level of writes that is not allowed": Case(
        (READ, WRITE),
        ("Guardrail write_consistency_levels violated", "choose another target.consistency"),
        COPY,
        options={**NEW_TIMES, "target_consistency": "LOCAL_ONE"},
    ),
    "pages that are not allowed": Case(
        (READ, WRITE),
        ("exceeds fail threshold of 5000", "set origin.fetch_size to no more than that"),
        options={**NEW_TIMES, "origin_fetch_size": 5_001},
    ),
    "pages that are allowed": Case(
        (READ, WRITE), options={**NEW_TIMES, "origin_fetch_size": 5_000}
    ),
    "transactions without the permission for what nodes promise": Case(
        (READ, WRITE),
        (
            "reading system.paxos at a for origin.finish_transactions is refused: "
            "GRANT SELECT ON TABLE system.paxos TO {role}",
        ),
        options={**NEW_TIMES, "origin_finish_transactions": True},
    ),
    "transactions": Case(
        (READ, WRITE, "SELECT ON TABLE system.paxos"),
        options={**NEW_TIMES, "origin_finish_transactions": True},
    ),
    "a TTL and keys of several kinds": Case(
        (READ, WRITE),
        body="k int, c text, s int static, w int, l list<int>, m map<text, int>, "
        "PRIMARY KEY (k, c)",
        options={"writetime": "now", "ttl": 1_000},
    ),
}


def make_tables(roles: Roles, body: str) -> None:
    origin = roles.make("a", body)
    roles.make("b", body)
    for k in range(ROWS):
        if "counter" in body:
            roles.execute(f"UPDATE {origin} SET w = w + 1 WHERE k = {k}")
        elif "c text" in body:
            roles.execute(f"INSERT INTO {origin} (k, c, s, w) VALUES ({k}, 'c', 1, {k})")
        else:
            roles.execute(f"INSERT INTO {origin} (k, w) VALUES ({k}, {k})")


def plan_as(roles: Roles, connection: Connection, **options: Any) -> Plan:
    tables = (TableName(roles.keyspace, name) for name in ("a", "b"))
    return plan_between(declare(*tables, **options), connection, connection)


def sides(plan: Plan, connection: Connection) -> tuple[Origin, Target]:
    return open_origin(plan.migration, connection), open_target(plan.migration, connection)


def fails(plan: Plan, connection: Connection, uses: Uses) -> bool:
    """Do it, whatever was said of it, and say whether it failed for every range."""
    try:
        if uses.copying:
            copy_ranges(in_process(plan, connection))
        if uses.comparing:
            return bool(compare(connection, plan).error)
    except MigrationError:
        return True
    return False


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_refused_before_a_run_is_what_would_fail_in_it(roles, case):
    make_tables(roles, case.body)
    connection = roles.connect(*case.grants)
    plan = plan_as(roles, connection, **case.options)
    before = rows_at(roles, "b")
    said = ""
    try:
        refuse_denied(plan, *sides(plan, connection), case.uses)
    except PreflightError as error:
        said = str(error)
    # Nothing was written to find that out.
    assert rows_at(roles, "b") == before
    role = str(connection.settings.username)
    for part in case.said:
        assert part.format(ks=roles.keyspace, role=role) in said
    assert bool(said) == bool(case.said)
    if plan.migration.repair:
        # Without a missing row there would be nothing to repair.
        assert before == []
    assert fails(plan, connection, case.uses) == bool(said)


def rows_at(roles: Roles, table: str) -> list[tuple]:
    found = roles.admin.session.execute(f"SELECT * FROM {roles.keyspace}.{table}")
    return sorted(map(tuple, found), key=repr)


def test_what_is_granted_as_told_lets_the_role_go_on(roles):
    make_tables(roles, BODY)
    connection = roles.connect()
    plan = plan_as(roles, connection, **NEW_TIMES)
    for _ in range(3):
        try:
            refuse_denied(plan, *sides(plan, connection))
        except PreflightError as error:
            for part in str(error).split("; "):
                roles.execute(part[part.index("GRANT") :])
    refuse_denied(plan, *sides(plan, connection))
    assert not fails(plan, connection, Uses())


def test_a_view_as_an_origin_asks_for_the_right_to_its_base_table(checking_cassandra):
    with roles_of(checking_cassandra) as roles:
        make_tables(roles, BODY)
        roles.execute("DROP TABLE {ks}.a")
        roles.make("base", "x int PRIMARY KEY, k int, w int")
        roles.execute(
            "CREATE MATERIALIZED VIEW {ks}.a AS SELECT k, x FROM {ks}.base "
            "WHERE k IS NOT NULL AND x IS NOT NULL PRIMARY KEY (k, x)"
        )
        roles.execute("DROP TABLE {ks}.b")
        roles.make("b", "k int, x int, PRIMARY KEY (k, x)")
        connection = roles.connect(WRITE, "SELECT ON TABLE {ks}.b")
        plan = plan_as(roles, connection)
        with pytest.raises(PreflightError) as refused:
            refuse_denied(plan, *sides(plan, connection))
        role = connection.settings.username
        assert str(refused.value).endswith(f"GRANT SELECT ON TABLE {roles.keyspace}.base TO {role}")


def test_a_filter_that_servers_do_not_allow_is_refused(roles):
    make_tables(roles, BODY)
    connection = roles.connect(READ, WRITE)
    with pytest.raises(PreflightError, match=r"filter\.where is refused: .*allow_filtering"):
        plan_as(roles, connection, filter=Filter(where="w = 1"), **NEW_TIMES)


# -- what is taken away in the middle of a run -----------------------------------------------------


MIDDLE: dict[str, tuple[Callable[[Roles, str], None], str]] = {
    "the permission to write": (
        lambda roles, role: roles.execute(f"REVOKE MODIFY ON KEYSPACE {{ks}} FROM {role}"),
        "GRANT MODIFY ON TABLE {ks}.b TO {role}",
    ),
    "the permission to read": (
        lambda roles, role: roles.execute(f"REVOKE SELECT ON KEYSPACE {{ks}} FROM {role}"),
        "GRANT SELECT ON TABLE {ks}.a TO {role}",
    ),
    "the target": (
        lambda roles, role: roles.execute("DROP TABLE {ks}.b"),
        "there is no table {ks}.b|table b does not exist",
    ),
    "the origin": (
        lambda roles, role: roles.execute("DROP TABLE {ks}.a"),
        "there is no table {ks}.a|table a does not exist",
    ),
    "a column of the target": (
        lambda roles, role: roles.execute("ALTER TABLE {ks}.b DROP w"),
        "w",
    ),
}


@pytest.mark.parametrize(
    ("what", "comparing"),
    [(what, False) for what in MIDDLE]
    + [(w, True) for w in MIDDLE if w != "the permission to write"],
)
def test_what_is_taken_away_in_the_middle_ends_a_run_once(roles, what, comparing):
    take_away, said = MIDDLE[what]
    make_tables(roles, BODY)
    settings = roles.new_role(READ, WRITE)
    connection = roles.stack.enter_context(Connection(settings))
    plan = plan_as(roles, connection, token_ranges=32, origin_rows_per_second=30, **NEW_TIMES)
    uses = COMPARE if comparing else COPY

    def look() -> None:
        look_again(plan, *sides(plan, connection), uses)

    done: list[int] = []

    def progress(number: int, _: int) -> None:
        done.append(number)
        if len(done) == 2:
            take_away(roles, str(settings.username))

    failed: list[Failed] = []

    def work(pool: WorkerPool) -> None:
        if comparing:
            list(diff_ranges(pool, plan, plan.migration.ranges, progress))
        for event in pool.run([CopyRange(each) for each in plan.migration.ranges]):
            if isinstance(event, Done):
                progress(len(done), 0)
            if isinstance(event, Failed):
                failed.append(event)

    with (
        WorkerPool(plan, settings, settings, workers=2, look_again=look) as pool,
        pytest.raises(DeniedError) as ended,
    ):
        work(pool)
    names = {"ks": roles.keyspace, "role": settings.username}
    assert any(each in str(ended.value) for each in said.format(**names).split("|"))
    assert "\n" not in str(ended.value)
    assert len(failed) <= 2
    # Of a comparison, the origin's scans come first, and need nothing of the target.
    assert len(done) < (36 if comparing else 32)


def test_a_failure_that_servers_do_not_confirm_leaves_the_other_ranges_to_go_on(roles):
    make_tables(roles, BODY)
    settings = roles.new_role(READ, WRITE)
    connection = roles.stack.enter_context(Connection(settings))
    plan = plan_as(roles, connection, token_ranges=8, **NEW_TIMES)
    looked = []

    def look() -> None:
        # Until it is asked, the permission is back.
        roles.execute(f"GRANT SELECT ON KEYSPACE {{ks}} TO {settings.username}")
        looked.append(look_again(plan, *sides(plan, connection), COPY))

    roles.execute(f"REVOKE SELECT ON KEYSPACE {{ks}} FROM {settings.username}")
    with WorkerPool(plan, settings, settings, workers=1, look_again=look) as pool:
        events = list(pool.run([CopyRange(each) for each in plan.migration.ranges]))
    assert len(looked) == 1
    assert len([event for event in events if isinstance(event, Failed)]) == 1
    assert len([event for event in events if isinstance(event, Done)]) == 7


# -- runs of Dagster -------------------------------------------------------------------------------


class TestRuns:
    pytestmark = DAGSTERS_OWN_WARNINGS

    @pytest.fixture
    def project(self, roles, guarded, tmp_path, monkeypatch):
        make_tables(roles, BODY)
        settings = roles.new_role(READ, "MODIFY ON TABLE {ks}.b")
        monkeypatch.setenv("ROLE_PASSWORD", str(settings.password))
        project = make_project(tmp_path, cassandra_port=guarded.port)
        cluster = {
            "port": guarded.port,
            "username": settings.username,
            "password": {"env": "ROLE_PASSWORD"},
        }
        project.declare("stores", "Stores", cassandra={"sunbird": cluster, "reports": cluster})
        self.declare(roles, project)
        project.role = settings.username
        return project

    def declare(self, roles, project, **options):
        project.declare(
            "copy",
            "TableMigration",
            origin={"store": "sunbird", "table": f"{roles.keyspace}.a", **options},
            target={"store": "reports", "table": f"{roles.keyspace}.b"},
            token_ranges=len(KEYS),
            # It gives its rows times of their own, which this server does not take.
            tracking=False,
            writetime="now",
            ttl="none",
            workers=2,
            retry_seconds=5,
        )

    def test_a_run_without_the_right_to_write_fails_once_and_before_anything_else(
        self, roles, project
    ):
        roles.execute(f"REVOKE MODIFY ON TABLE {{ks}}.b FROM {project.role}")
        plan = [dg.AssetKey(["reports", roles.keyspace, "b_plan"])]
        for result in (project.run(), project.run(None, assets=plan)):
            assert not result.success
            assert f"GRANT MODIFY ON TABLE {roles.keyspace}.b TO {project.role}" in result.error
            assert "materialize them again" not in result.error
            assert result.observations(dg.AssetKey(["reports", roles.keyspace, "b"])) == []

    def test_a_run_that_loses_a_right_ends_with_one_sentence_and_its_checks_are_red(
        self, roles, project
    ):
        self.declare(roles, project, rows_per_second=15, fetch_size=5)

        def revoke() -> None:
            wait_until(lambda: rows_at(roles, "b"), 60, "rows were written")
            roles.execute(f"REVOKE MODIFY ON TABLE {{ks}}.b FROM {project.role}")

        thread = threading.Thread(target=revoke)
        thread.start()
        result = project.run()
        thread.join()
        assert not result.success
        assert f"GRANT MODIFY ON TABLE {roles.keyspace}.b TO {project.role}" in result.error
        assert "the run ended, because" in result.error
        assert "materialize them again" not in result.error
        assert not result.checks["all_ranges_match"].passed
        failed = result.observations(dg.AssetKey(["reports", roles.keyspace, "b"]))
        assert len([each for _, each in failed if "failed" in each]) <= 2

        roles.execute(f"GRANT MODIFY ON TABLE {{ks}}.b TO {project.role}")
        self.declare(roles, project)
        project.run().assert_success()
        assert rows_at(roles, "b") == rows_at(roles, "a")
