"""Masked columns: whoever would read masks is refused, and nobody else.

What a role reads is asked of the server itself, by that role, and held against what a superuser
reads. The server keeps what it knows of permissions for an hour, as large clusters do.
"""

import pytest

from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import PreflightError
from migration_platform.local.cassandra import Cassandra
from migration_platform.stores.cassandra import masks
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.masks import find_masked, validate_masks
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget
from migration_platform.stores.kinds import plan_between
from migration_platform.tenant.key_reads import organisation_exists
from migration_platform.tenant.shape import shape_table
from migration_platform_tests.roles import CHECKING, Roles
from migration_platform_tests.servers import SMALL_HEAP_MB, run_server
from migration_platform_tests.tables import create_keyspace, declare
from migration_platform_tests.tenants import NEW, OLD, ORGANISATION, USER, Tenants, users_of

BODY = "k int PRIMARY KEY, v text MASKED WITH mask_inner(1, 1), w int, n int MASKED WITH DEFAULT"
PLAIN = "k int PRIMARY KEY, v text, w int, n int"


@pytest.fixture
def tables(roles: Roles) -> tuple[TableName, TableName]:
    """A masked table with a row, and one without masks."""
    masked, plain = roles.make("masked", BODY), roles.make("plain", PLAIN)
    roles.execute("INSERT INTO {ks}.masked (k, v, w, n) VALUES (1, 'secret', 5, 7)")
    return masked, plain


def rows_of(connection: Connection, name: TableName) -> list[tuple]:
    return sorted(map(tuple, connection.session.execute(f"SELECT * FROM {name}")))


def why_not(
    roles: Roles, connection: Connection, origin: TableName, target: TableName, **options
) -> str:
    """Say why a role cannot migrate; empty if it can."""
    try:
        plan_between(declare(origin, target, **options), connection, connection)
    except PreflightError as error:
        return str(error)
    return ""


READS = "SELECT ON KEYSPACE {ks}"
GRANTS = [
    ((READS,), ""),
    ((READS, "SELECT_MASKED ON KEYSPACE {ks}"), ""),
    (("SELECT ON ALL KEYSPACES", "MODIFY ON ALL KEYSPACES"), ""),
    ((READS, "UNMASK ON TABLE {ks}.plain"), ""),
    ((READS, "UNMASK ON TABLE {ks}.masked"), ""),
    ((READS, "UNMASK ON KEYSPACE {ks}"), ""),
    ((READS, "UNMASK ON ALL TABLES IN KEYSPACE {ks}"), ""),
    ((READS, "UNMASK ON ALL KEYSPACES"), ""),
    (("ALL ON KEYSPACE {ks}",), ""),
    ((), " AND SUPERUSER = true"),
]


@pytest.mark.parametrize(("grants", "options"), GRANTS, ids=lambda each: str(each))
@pytest.mark.parametrize("inherited", [False, True])
def test_a_role_is_refused_exactly_where_it_reads_masks(roles, tables, grants, options, inherited):
    masked, plain = tables
    if inherited:
        grandparent = str(roles.new_role(*grants, options=options).username)
        parent = str(roles.new_role(grandparent).username)
        connection = roles.connect(parent)
    else:
        connection = roles.connect(*grants, options=options)
    # The plan comes first: whoever is asked first must not teach the server what is right.
    as_origin = why_not(roles, connection, masked, plain)
    as_target = why_not(roles, connection, plain, masked)
    reads_masks = rows_of(connection, masked) != rows_of(roles.admin, masked)
    assert reads_masks == bool(as_origin) == bool(as_target)
    if reads_masks:
        for refusal, store in ((as_origin, "a"), (as_target, "b")):
            assert (
                f"{masked} at {store} has masked columns (n, v), and masks would be taken for "
                f"their values: GRANT UNMASK ON TABLE {masked} TO {connection.settings.username}"
            ) in refusal


def test_what_is_granted_as_told_lets_the_role_go_on(roles, tables):
    settings = roles.new_role(READS)
    with Connection(settings) as connection:
        refusal = why_not(roles, connection, *tables)
    roles.execute(refusal[refusal.index("GRANT") :])
    # One that inherits it: what the server knows of the role itself is an hour old.
    heir = roles.connect(str(settings.username))
    assert why_not(roles, heir, *tables) == ""
    assert rows_of(heir, tables[0]) == rows_of(roles.admin, tables[0])


def test_a_permission_that_servers_do_not_know_yet_is_waited_for(roles, tables):
    connection = roles.connect(READS)
    assert rows_of(connection, tables[0]) != rows_of(roles.admin, tables[0])
    roles.execute(f"GRANT UNMASK ON TABLE {tables[0]} TO {connection.settings.username}")
    # The server says that it is granted, and goes on masking for an hour.
    assert rows_of(connection, tables[0]) != rows_of(roles.admin, tables[0])
    assert "127.0.0.1 does not know it yet" in why_not(roles, connection, *tables)


def test_masked_columns_that_are_not_read_are_no_reason_to_refuse(roles, tables):
    masked, plain = tables
    narrow = roles.make("narrow", "k int PRIMARY KEY, w int")
    connection = roles.connect(READS)
    skipped = Columns(skip=("v", "n"))
    assert why_not(roles, connection, masked, plain, columns=skipped) == ""
    one = why_not(roles, connection, masked, plain, columns=Columns(skip=("v",)))
    assert "masked columns (n)" in one
    chosen = Filter(column=ColumnFilter("n", "7"))
    filtered = why_not(roles, connection, masked, plain, columns=skipped, filter=chosen)
    assert "masked columns (n)" in filtered
    assert why_not(roles, connection, narrow, masked) == ""


@pytest.mark.parametrize(
    ("body", "column"),
    [
        ("k text MASKED WITH DEFAULT PRIMARY KEY, v int", "k"),
        ("k text, c int MASKED WITH DEFAULT, v int, PRIMARY KEY (k, c)", "c"),
        ("k text, c int, s int static MASKED WITH DEFAULT, PRIMARY KEY (k, c)", "s"),
        ("k int PRIMARY KEY, l list<int> MASKED WITH DEFAULT", "l"),
        ("k int PRIMARY KEY, s set<int> MASKED WITH DEFAULT", "s"),
        ("k int PRIMARY KEY, m map<int, int> MASKED WITH DEFAULT", "m"),
        ("k int PRIMARY KEY, f frozen<list<int>> MASKED WITH DEFAULT", "f"),
        ("k int PRIMARY KEY, u {ks}.u MASKED WITH DEFAULT", "u"),
        ("k int PRIMARY KEY, u frozen<{ks}.u> MASKED WITH DEFAULT", "u"),
        ("k int PRIMARY KEY, d duration MASKED WITH DEFAULT", "d"),
        ("k int PRIMARY KEY, b blob MASKED WITH DEFAULT", "b"),
        ("k int PRIMARY KEY, v vector<float, 2> MASKED WITH DEFAULT", "v"),
        ("k int PRIMARY KEY, c counter MASKED WITH DEFAULT", "c"),
        ('k int PRIMARY KEY, "A ""b" text MASKED WITH DEFAULT', 'A "b'),
    ],
)
def test_a_masked_column_of_any_kind_is_found(roles, body, column):
    roles.execute("CREATE TYPE {ks}.u (a int, b text)")
    name = roles.make("T1", body.replace("{ks}", roles.keyspace))
    assert find_masked(roles.admin, name) == (column,)
    assert len(validate_masks(roles.connect(READS), name, "a")) == 1
    for grant in (f"UNMASK ON TABLE {name}", "UNMASK ON KEYSPACE {ks}"):
        assert validate_masks(roles.connect(READS, grant), name, "a") == []
    assert validate_masks(roles.admin, name, "a") == []


def test_a_view_has_masks_and_permissions_of_its_own(roles, tables):
    roles.execute(
        "CREATE MATERIALIZED VIEW {ks}.by_w AS SELECT k, v, w FROM {ks}.masked "
        "WHERE w IS NOT NULL AND k IS NOT NULL PRIMARY KEY (w, k)"
    )
    view, target = TableName(roles.keyspace, "by_w"), roles.make("t", PLAIN)
    base_only = roles.connect(READS, "UNMASK ON TABLE {ks}.masked")
    both = roles.connect(READS, "UNMASK ON TABLE {ks}.masked", "UNMASK ON TABLE {ks}.by_w")
    assert f"GRANT UNMASK ON TABLE {view} TO" in why_not(roles, base_only, view, target)
    assert why_not(roles, both, view, target) == ""
    assert rows_of(base_only, view) != rows_of(both, view) == rows_of(roles.admin, view)


def test_a_masked_table_is_refused_on_its_way_to_dynamodb(roles, tables, dynamo):
    migration = Migration(
        Endpoint("a", tables[0]),
        Endpoint("b", TableName("x", "masked"), declared=DynamoDbTarget(create=True)),
        writetime="now",
        ttl="none",
    )
    with pytest.raises(PreflightError, match=r"masked columns \(n, v\)"):
        plan_between(migration, roles.connect(READS), dynamo)
    plan_between(migration, roles.connect(READS, "UNMASK ON KEYSPACE {ks}"), dynamo)


def test_a_tenants_move_is_refused_where_it_would_write_masks_back(roles, tmp_path):
    tenants = Tenants(roles.admin, roles.admin.session, roles.keyspace, tmp_path)
    tenants.make("organisation", ORGANISATION, [{"id": OLD}, {"id": NEW}])
    tenants.make("user", USER, [{"id": "u", "rootorgid": OLD}])
    roles.execute("ALTER TABLE {ks}.user ALTER name MASKED WITH DEFAULT")
    step = users_of(tenants)
    with pytest.raises(PreflightError, match=r"masked columns \(name\)"):
        shape_table(roles.connect(READS), tenants.move, step)
    shape_table(roles.connect(READS, "UNMASK ON KEYSPACE {ks}"), tenants.move, step)

    roles.execute("ALTER TABLE {ks}.organisation ALTER id MASKED WITH DEFAULT")
    with pytest.raises(PreflightError, match=r"masked columns \(id\)"):
        organisation_exists(roles.connect(READS), tenants.move, OLD)


@pytest.mark.parametrize("password", [False, True], ids=["no login", "no permissions"])
def test_where_everybody_may_read_everything_masks_are_no_reason_to_refuse(tmp_path, password):
    settings = {**CHECKING, "authorizer": "AllowAllAuthorizer"}
    server = Cassandra(
        cluster_name="open", password=password, heap_mb=SMALL_HEAP_MB, settings=settings
    )
    with run_server(server, tmp_path) as running:
        login = {"username": "cassandra", "password": "cassandra"} if password else {}
        with Connection(CassandraSettings(port=running.port, **login)) as admin:
            if password:
                admin.session.execute("CREATE ROLE x WITH PASSWORD = 'x' AND LOGIN = true")
            create_keyspace(admin, "ks")
            masked, plain = TableName("ks", "a"), TableName("ks", "b")
            for name, body in ((masked, BODY), (plain, PLAIN)):
                admin.session.execute(f"CREATE TABLE {name} ({body})")
            admin.session.execute("INSERT INTO ks.a (k, v) VALUES (1, 'secret')")
        # A store may name a user also where nobody asks for one.
        named = CassandraSettings(port=running.port, username="x", password="x")
        for settings in [named] if password else [named, CassandraSettings(port=running.port)]:
            with Connection(settings) as connection:
                assert rows_of(connection, masked)[0][2] == "secret"
                plan_between(declare(masked, plain), connection, connection)


def test_a_server_that_knows_no_masks_is_asked_for_no_permissions(
    connection, keyspace, monkeypatch
):
    # As servers before Cassandra 5.0, it then has no such table.
    older = masks._MASKS.replace("column_masks", "no_such_table")
    monkeypatch.setattr(masks, "_MASKS", older)
    assert find_masked(connection, TableName(keyspace, "t")) == ()
    assert validate_masks(connection, TableName(keyspace, "t"), "a") == []
