"""What no server takes for a whole table: views, nodes' own tables, levels beyond the replicas."""

import pytest
from cassandra import ConsistencyLevel
from cassandra.cluster import NoHostAvailable
from cassandra.query import SimpleStatement

from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import CONSISTENCY_LEVELS
from migration_platform.errors import PreflightError
from migration_platform.stores.cassandra.placement import _needs
from migration_platform.stores.kinds import describe_fidelity, plan_between
from migration_platform.tenant.shape import shape_table
from migration_platform_tests.tables import copy_ranges, declare, in_process, plan_copy
from migration_platform_tests.tenants import ORGANISATION, USER, Tenants, users_of

BODY = "k int PRIMARY KEY, w int"
BY_W = "w int, k int, PRIMARY KEY (w, k)"


@pytest.fixture
def view(roles) -> TableName:
    """A view of a table with three rows, of which one is not in the view."""
    roles.make("base", BODY)
    roles.execute(
        "CREATE MATERIALIZED VIEW {ks}.by_w AS SELECT k, w FROM {ks}.base "
        "WHERE w IS NOT NULL AND k IS NOT NULL PRIMARY KEY (w, k)"
    )
    for k, w in ((1, "5"), (2, "6"), (3, "null")):
        roles.execute(f"INSERT INTO {{ks}}.base (k, w) VALUES ({k}, {w})")
    return TableName(roles.keyspace, "by_w")


def test_a_view_as_a_target_is_refused_in_one_sentence_that_names_its_base_table(roles, view):
    origin = roles.make("origin", BY_W)
    with pytest.raises(PreflightError) as refused:
        plan_between(declare(origin, view), roles.admin, roles.admin)
    assert str(refused.value) == (
        f"{view} cannot be migrated: {view} is a materialized view, which takes no writes: the "
        f"server fills it from its base table {roles.keyspace}.base; name that instead"
    )


def test_a_tenants_move_does_not_try_to_write_to_a_view(roles, tmp_path):
    tenants = Tenants(roles.admin, roles.admin.session, roles.keyspace, tmp_path)
    tenants.make("organisation", ORGANISATION)
    tenants.make("users", USER)
    step = users_of(tenants)
    roles.execute(
        'CREATE MATERIALIZED VIEW {ks}."user" AS SELECT * FROM {ks}.users '
        "WHERE id IS NOT NULL PRIMARY KEY (id)"
    )
    with pytest.raises(PreflightError, match="user is a materialized view, which takes no writes"):
        shape_table(roles.admin, tenants.move, step)


def test_a_view_as_an_origin_is_copied_and_the_plan_says_what_is_not_in_it(roles, view):
    target = roles.make("target", BY_W)
    plan = plan_copy(roles.admin, view, target)
    assert copy_ranges(in_process(plan, roles.admin)).written == 2
    (line,) = (line for line in describe_fidelity(plan) if line.subject == "(rows)")
    assert not line.exact
    assert f"a row of {roles.keyspace}.base whose key in the view is null is in none" in line.values


@pytest.mark.parametrize("name", ["system.local", "system_schema.tables", "system_views.clients"])
def test_a_table_that_each_node_keeps_for_itself_is_neither_origin_nor_target(
    connection, keyspace, name
):
    own = TableName(*name.split("."))
    plain = TableName(keyspace, "t")
    connection.session.execute(f"CREATE TABLE {plain} ({BODY})")
    for pair in ((own, plain), (plain, own)):
        with pytest.raises(PreflightError, match=f"{name} is a table that each node keeps for its"):
            plan_between(declare(*pair), connection, connection)


SIMPLE = "{'class': 'SimpleStrategy', 'replication_factor': %d}"
NETWORK = "{'class': 'NetworkTopologyStrategy', %s}"
ONE_NODE = {"ONE", "LOCAL_ONE", "QUORUM", "LOCAL_QUORUM", "EACH_QUORUM", "ALL"}
LEVELS = [
    # replication, and the levels that it can serve on a cluster of one node
    (SIMPLE % 1, ONE_NODE),
    (SIMPLE % 2, {"ONE", "LOCAL_ONE"}),
    (NETWORK % "'datacenter1': 1", ONE_NODE),
    (NETWORK % "'datacenter1': 3", {"ONE", "LOCAL_ONE"}),
]


@pytest.mark.parametrize(("replication", "served"), LEVELS)
def test_a_level_is_refused_exactly_where_the_server_can_never_serve_it(
    connection, keyspace, reader, replication, served
):
    plain, name = TableName(keyspace, "t"), TableName(f"{keyspace}_r", "t")
    connection.session.execute(f"CREATE KEYSPACE {name.keyspace} WITH replication = {replication}")
    for table in (plain, name):
        connection.session.execute(f"CREATE TABLE {table} ({BODY})")
    try:
        for level in CONSISTENCY_LEVELS:
            statement = SimpleStatement(
                f"SELECT * FROM {name} WHERE k = 1",
                consistency_level=getattr(ConsistencyLevel, level),
            )
            try:
                reader.execute(statement)
                answers = True
            except NoHostAvailable:  # which is what the driver makes of it in the end
                answers = False
            assert answers == (level in served)
            for side, pair in (("origin", (name, plain)), ("target", (plain, name))):
                options = {f"{side}_consistency": level}
                if answers:
                    plan_between(declare(*pair, **options), connection, connection)
                    continue
                with pytest.raises(PreflightError, match=f"{side}.consistency {level} takes"):
                    plan_between(declare(*pair, **options), connection, connection)
    finally:
        connection.session.execute(f"DROP KEYSPACE {name.keyspace}", timeout=60)


@pytest.mark.parametrize(
    ("level", "needs"),
    [
        ("LOCAL_QUORUM", [("near", 1, 0)]),
        ("LOCAL_ONE", [("near", 1, 0)]),
        ("EACH_QUORUM", [("far", 2, 3), ("lost", 2, 1)]),
        ("QUORUM", [("", 4, 4)]),
        ("ALL", [("", 6, 4)]),
        ("THREE", [("", 3, 4)]),
    ],
)
def test_replicas_count_where_the_level_wants_them(level, needs):
    # No replica near the client, three far away, and three of which two have no node.
    factors, there = {"far": 3, "lost": 3}, {"far": 3, "lost": 1}
    assert _needs(level, "near", factors, there) == needs
