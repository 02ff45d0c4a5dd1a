"""A plan of a migration to PostgreSQL says what cannot be, before anything is written."""

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import DeclarationError, PreflightError
from migration_platform.local.stack import Running
from migration_platform.plan.model import Plan
from migration_platform.stores.kinds import (
    describe_fidelity,
    open_origin,
    open_target,
    plan_between,
)
from migration_platform.stores.planning import make_target
from migration_platform.stores.postgres.connection import Postgres, PostgresSettings
from migration_platform.stores.postgres.declaration import Index, PostgresTarget
from migration_platform.stores.postgres.names import PgName
from migration_platform.stores.postgres.tables import PgColumn, write_create_table
from migration_platform.stores.postgres.types import PgType
from migration_platform_tests.comparing import compare, found
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process


@pytest.fixture(scope="module")
def pg(postgres: Running) -> Iterator[Postgres]:
    settings = PostgresSettings(
        ("127.0.0.1",), postgres.port, username="postgres", sslmode="disable"
    )
    with settings.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def sql(postgres: Running) -> Iterator[psycopg.Connection]:
    with psycopg.connect(
        f"host=127.0.0.1 port={postgres.port} user=postgres", autocommit=True
    ) as connection:
        yield connection


def migration_to(origin: TableName, target: str, **options: Any) -> Migration:
    declared = PostgresTarget(**options.pop("postgres", {}))
    return Migration(
        Endpoint("a", origin),
        Endpoint("pg", TableName("public", target), declared=declared),
        **{"token_ranges": 2, "retry_seconds": 5.0, "writetime": "now", "ttl": "none", **options},
    )


@pytest.fixture(scope="module")
def origin_keyspace(connection: Any) -> Iterator[str]:
    name = f"plans_{uuid.uuid4().hex[:12]}"
    connection.session.execute(
        f"CREATE KEYSPACE {name} WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    yield name
    connection.session.execute(f"DROP KEYSPACE {name}", timeout=60)


@pytest.fixture(scope="module")
def origin(connection: Any, origin_keyspace: str) -> TableName:
    body = "id int, price decimal, name text, at timestamp, tags set<text>, PRIMARY KEY (id, price)"
    return create_table(connection, origin_keyspace, "things", body)


KEY = "PRIMARY KEY (id, price)"
COLUMNS = "name text, at timestamptz, tags text[]"
REFUSED = {
    "no primary key": (
        f"CREATE TABLE {{}} (id int, price text, {COLUMNS})",
        "has no primary key, by which rows are written once: add one",
    ),
    "a view": (
        "CREATE VIEW {} AS SELECT 1 AS id",
        "is a view, to which no rows are copied; name a table",
    ),
    "a number that folds two keys": (
        f"CREATE TABLE {{}} (id int, price numeric, {COLUMNS}, {KEY})",
        "column price:",
    ),
    "char that pads": (
        f"CREATE TABLE {{}} (id int, price text, name char(9), at timestamptz, tags text[], {KEY})",
        "column name:",
    ),
    "a type that no value fits": (
        f"CREATE TABLE {{}} (id int, price text, name text, at boolean, tags text[], {KEY})",
        "at",
    ),
    "a generated column": (
        f"CREATE TABLE {{}} (id int, price text, name text GENERATED ALWAYS AS ('x') STORED, "
        f"at timestamptz, tags text[], {KEY})",
        "takes no values: it is generated; name it in columns.skip",
    ),
    "an identity": (
        f"CREATE TABLE {{}} (id int GENERATED ALWAYS AS IDENTITY, price text, {COLUMNS}, {KEY})",
        "takes no values: it is GENERATED ALWAYS AS IDENTITY; name it in columns.skip",
    ),
    "a column that nothing fills": (
        f"CREATE TABLE {{}} (id int, price text, {COLUMNS}, owner text NOT NULL, {KEY})",
        "column owner of public.{} is NOT NULL, and nothing fills it; name it in columns.constants",
    ),
    "a column that is missing": (
        f"CREATE TABLE {{}} (id int, price text, name text, at timestamptz, {KEY})",
        "has no column tags (set<text>)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_could_not_take_the_rows_is_refused_in_one_sentence(
    connection, pg, sql, origin, case
):
    statement, told = REFUSED[case]
    name = f"t{uuid.uuid4().hex}"
    sql.execute(statement.format(name))
    with pytest.raises(PreflightError) as refused:
        plan_between(migration_to(origin, name), connection, pg)
    assert told.format(name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_table_that_is_missing_is_found_in_another_schema_and_named(connection, pg, sql, origin):
    name = f"t{uuid.uuid4().hex}"
    with pytest.raises(PreflightError, match=f"there is no table public.{name} in pg: create it"):
        plan_between(migration_to(origin, name), connection, pg)
    sql.execute("CREATE SCHEMA IF NOT EXISTS elsewhere")
    sql.execute(f"CREATE TABLE elsewhere.{name} (id int PRIMARY KEY)")
    with pytest.raises(PreflightError, match=f"there is elsewhere.{name}; name it with its schema"):
        plan_between(migration_to(origin, name), connection, pg)


DECLARED = {
    "cell times": ({"writetime": "cell"}, "a row of PostgreSQL has one time at most"),
    "a ttl": ({"ttl": "cell"}, "no row of PostgreSQL expires; set it to none"),
    "row_max alone": ({"writetime": "row_max"}, "target.writetime_column is missing"),
    "a column without row_max": (
        {"postgres": {"writetime_column": "w"}},
        "does nothing with writetime: now; set writetime to row_max",
    ),
    "writetimes compared": ({"compare_writetime": True}, "diff.compare_writetime is not known"),
    "a method": ({"postgres": {"method": "merge"}}, "target.method is 'merge'; valid are"),
    "a scan": ({"postgres": {"scan": "tokens"}}, "target.scan is 'tokens'; valid are"),
    "an index of nothing": (
        {"postgres": {"indexes": (Index("i", ()),)}},
        "target.secondary_indexes.i.columns is empty",
    ),
    "a name that would be cut": (
        {"postgres": {"writetime_column": "w" * 64}, "writetime": "row_max"},
        "valid are names up to 63 bytes",
    ),
}


@pytest.mark.parametrize("case", DECLARED)
def test_a_declaration_that_cannot_be_kept_is_refused_before_any_server_is_asked(case):
    options, told = DECLARED[case]
    with pytest.raises(DeclarationError) as refused:
        migration_to(TableName("k", "t"), "t", **options)
    assert told in str(refused.value)


def planned(connection: Any, pg: Postgres, migration: Migration) -> Plan:
    plan = plan_between(migration, connection, pg)
    return make_target(
        plan, open_origin(migration, connection), open_target(migration, pg), lambda _: None
    )


def test_the_types_of_a_table_that_is_there_decide_what_becomes_of_values(
    connection, pg, sql, origin_keyspace
):
    body = (
        "id int PRIMARY KEY, mood text, spot frozen<tuple<int, int>>, note text, amount decimal, "
        "at timestamp, clock time, tags set<text>, ids list<int>, n int"
    )
    table = create_table(connection, origin_keyspace, "typed", body)
    connection.session.execute(
        f"INSERT INTO {table} (id, mood, spot, note, amount, at, clock, tags, ids, n) VALUES "
        "(1, 'sad', (1, 2), 'short', 1.5, '2024-01-31 10:20:30.123+0000', '10:20:30.000000001', "
        "{'b', 'a'}, [3, 1, 3], 7)"
    )
    name = f"t{uuid.uuid4().hex[:20]}"
    sql.execute(f"CREATE TYPE mood_{name} AS ENUM ('happy', 'sad')")
    sql.execute(f"CREATE TYPE spot_{name} AS (x int, y int)")
    sql.execute(f"CREATE DOMAIN short_{name} AS varchar(10) CHECK (value <> 'never')")
    sql.execute(
        f"CREATE TABLE {name} (id bigint PRIMARY KEY, mood mood_{name}, spot spot_{name}, "
        f"note short_{name}, amount numeric(10, 2), at timestamp, clock bigint, tags jsonb, "
        "ids int[], n text, made_at timestamptz DEFAULT now())"
    )
    plan = planned(connection, pg, migration_to(table, name))

    for _ in range(2):
        assert copy_ranges(in_process(plan, connection, pg)).written == 1

    row = sql.execute(
        f"SELECT id, mood::text, spot::text, note, amount::text, at::text, clock, tags, ids, n, "
        f"made_at IS NOT NULL FROM {name}"
    ).fetchone()
    assert row == (
        1, "sad", "(1,2)", "short", "1.50", "2024-01-31 10:20:30.123", 37_230_000_000_001,
        ["a", "b"], [3, 1, 3], "7", True,
    )  # fmt: skip
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)
    told = {each.subject: each.values for each in describe_fidelity(plan)}
    assert "numeric(10,2)" in told["amount"]


def test_constants_and_codecs_get_the_types_of_the_table(connection, pg, sql, origin_keyspace):
    table = create_table(connection, origin_keyspace, "audited", "id int PRIMARY KEY, n text")
    fill(connection, table, "id, n", [(1, "41"), (2, "42")])
    name = f"t{uuid.uuid4().hex[:20]}"
    sql.execute(
        f"CREATE TABLE {name} (tenant text, id int, n int, is_migrated boolean, "
        "migrated_at timestamptz, PRIMARY KEY (tenant, id))"
    )
    columns = Columns(
        constants={"tenant": "acme", "is_migrated": True, "migrated_at": "2026-11-01T10:00:00Z"},
        codecs=("INT_STRING",),
    )
    plan = planned(connection, pg, migration_to(table, name, columns=columns))
    assert copy_ranges(in_process(plan, connection, pg)).written == 2
    rows = sql.execute(f"SELECT tenant, id, n, is_migrated, migrated_at::text FROM {name}")
    assert sorted(rows.fetchall()) == [
        ("acme", 1, 41, True, "2026-11-01 10:00:00+00"),
        ("acme", 2, 42, True, "2026-11-01 10:00:00+00"),
    ]
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)


def test_a_created_table_has_the_declared_types_its_key_and_its_indexes_afterwards(
    connection, pg, sql, origin
):
    name = f"Made {uuid.uuid4().hex[:12]}"
    declared = {
        "create": True,
        "column_types": {"name": "varchar(200)", "tags": "jsonb"},
        "indexes": (Index("by_name", ("name",)), Index("by_tag", ("tags",), method="gin")),
    }
    migration = migration_to(origin, name, postgres=declared)
    plan = planned(connection, pg, migration)
    types = sql.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0",
        (f'public."{name}"',),
    ).fetchall()
    assert sorted(types) == [
        ("at", "timestamp with time zone", False),
        ("id", "integer", True),
        ("name", "character varying(200)", False),
        ("price", "text", True),
        ("tags", "jsonb", False),
    ]
    told: list[str] = []
    for _ in range(2):
        open_target(migration, pg).finish(plan, told.append)
    indexes = sql.execute("SELECT indexname FROM pg_indexes WHERE tablename = %s", (name,))
    assert {"by_name", "by_tag"} < {each for (each,) in indexes.fetchall()}
    assert told[:2] == ["creating the index by_name", "creating the index by_tag"]


def test_what_else_touches_the_rows_is_told(connection, pg, sql, origin):
    name = f"t{uuid.uuid4().hex[:20]}"
    sql.execute(
        f"CREATE TABLE {name} (id int, price text, name text CHECK (name <> 'x'), "
        f"at timestamptz, tags text[], {KEY})"
    )
    sql.execute(
        f"CREATE FUNCTION f_{name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    )
    sql.execute(
        f"CREATE TRIGGER audit BEFORE INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION f_{name}()"
    )
    sql.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    migration = migration_to(origin, name)
    plan = planned(connection, pg, migration)
    target = open_target(migration, pg)
    told = target.describe_cost(plan, open_origin(migration, connection), None)  # type: ignore[arg-type]
    assert told["server"].startswith("PostgreSQL: PostgreSQL 18")
    assert (told["method"], told["scan"], told["table_is_created"]) == ("copy", "blocks", False)
    assert "the trigger audit runs for each row" in told["table_differs"]
    assert "may refuse rows: CHECK" in told["table_differs"]
    assert "row-level security is on" in told["table_differs"]


def test_static_cells_may_stand_in_a_table_of_their_own(connection, pg, sql, origin_keyspace):
    body = "p int, c int, s text STATIC, n int STATIC, v text, PRIMARY KEY (p, c)"
    table = create_table(connection, origin_keyspace, "shared", body)
    for p in range(20):
        connection.session.execute(f"INSERT INTO {table} (p, s) VALUES ({p}, 'shared {p}')")
        for c in range(p % 3):
            connection.session.execute(f"INSERT INTO {table} (p, c, v) VALUES ({p}, {c}, 'v{c}')")
    name = f"t{uuid.uuid4().hex[:20]}"
    declared = {"create": True, "statics": "table"}
    migration = migration_to(
        table, name, postgres=declared, repair=("missing", "extra", "mismatched")
    )
    plan = planned(connection, pg, migration)

    for _ in range(2):
        counts = copy_ranges(in_process(plan, connection, pg))
        assert (counts.written, counts.statics, counts.complete) == (19, 20, True)
    rows = sql.execute(f"SELECT p, c, v FROM {name}").fetchall()
    assert sorted(rows) == [(p, c, f"v{c}") for p in range(20) for c in range(p % 3)]
    statics = sorted(sql.execute(f"SELECT p, s, n FROM {name}_statics").fetchall())
    assert statics == [(p, f"shared {p}", None) for p in range(20)]
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)

    sql.execute(f"UPDATE {name}_statics SET s = 'other' WHERE p = 3")
    sql.execute(f"DELETE FROM {name}_statics WHERE p = 4")
    sql.execute(f"INSERT INTO {name}_statics VALUES (99, 1, 'nobody has me')")
    assert found(compare(connection, plan, target=pg)) == (1, 1, 1)
    assert sorted(sql.execute(f"SELECT p, s, n FROM {name}_statics").fetchall()) == statics


def test_a_key_on_yugabytedb_mirrors_partitions_and_orders():
    number, text = PgType("int4", 23), PgType("text", 25)
    columns = [PgColumn("p", number, True), PgColumn("order", text, True), PgColumn("v", text)]
    orders = [("order", True)]
    name = PgName("public", "t")
    by_hash = write_create_table(name, columns, ["p"], orders, by_hash=True)
    assert by_hash.endswith('PRIMARY KEY ((p) HASH, "order" DESC))')
    plain = write_create_table(name, columns, ["p"], orders, by_hash=False)
    assert plain.endswith('v text, PRIMARY KEY (p, "order"))')


@pytest.mark.parametrize("method", ["copy", "values"])
def test_a_row_that_is_equal_and_not_the_same_is_written_where_others_are_skipped(
    connection, pg, sql, origin_keyspace, method
):
    body = "id int PRIMARY KEY, amount decimal, ratio double, note text, doc text"
    table = create_table(connection, origin_keyspace, f"skipped_{method}", body)
    amounts = [Decimal("1.5"), Decimal("1.50"), None]
    rows = [(n, amounts[n % 3], 0.0, None, "{}") for n in range(30)]
    fill(connection, table, "id, amount, ratio, note, doc", rows)
    name = f"t{uuid.uuid4().hex[:20]}"
    sql.execute(
        f"CREATE TABLE {name} (id int PRIMARY KEY, amount numeric, ratio float8, note text, "
        "doc json)"
    )
    declared = {"unchanged": "skip", "method": method}
    plan = planned(connection, pg, migration_to(table, name, postgres=declared))
    copy_ranges(in_process(plan, connection, pg))
    before = dict(sql.execute(f"SELECT id, xmin::text FROM {name}").fetchall())

    connection.session.execute(f"UPDATE {table} SET amount = 1.500 WHERE id = 0")
    connection.session.execute(f"UPDATE {table} SET ratio = -0.0 WHERE id = 1")
    connection.session.execute(f"UPDATE {table} SET note = '' WHERE id = 2")
    assert copy_ranges(in_process(plan, connection, pg)).written == 30

    after = dict(sql.execute(f"SELECT id, xmin::text FROM {name}").fetchall())
    assert {key for key in after if after[key] != before[key]} == {0, 1, 2}
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)


def test_maps_become_rows_json_becomes_columns_and_filters_hold(
    connection, pg, sql, origin_keyspace
):
    body = "id int PRIMARY KEY, prices map<text, int>, doc text, country text"
    table = create_table(connection, origin_keyspace, "exploded", body)
    rows = [
        (n, {"eur": n, "usd": n * 2}, f'{{"name": "N{n}", "deep": [1]}}', "de" if n % 4 else "fr")
        for n in range(40)
    ]
    fill(connection, table, "id, prices, doc, country", rows)
    name = f"t{uuid.uuid4().hex[:20]}"
    columns = Columns(
        explode_map=ExplodeMap("prices", "currency", "price"),
        extract_json=ExtractJson("doc", {"name": "name"}, exclusive=False, overwrite=True),
        rename={"country": "Land"},
        constants={"source": "cassandra"},
    )
    migration = migration_to(
        table,
        name,
        postgres={"create": True},
        columns=columns,
        filter=Filter(column=ColumnFilter("country", "fr")),
    )
    plan = planned(connection, pg, migration)
    for _ in range(2):
        assert copy_ranges(in_process(plan, connection, pg)).written == 60
    found_rows = sql.execute(
        f'SELECT id, currency, price, name, "Land", source FROM {name}'
    ).fetchall()
    assert sorted(found_rows) == sorted(
        (n, currency, price, f"N{n}", "de", "cassandra")
        for n, prices, _, country in rows
        if country == "de"
        for currency, price in prices.items()
    )
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)


def test_only_the_rows_of_the_origin_are_looked_up_where_declared(
    connection, pg, sql, origin_keyspace
):
    table = create_table(
        connection, origin_keyspace, "looked_up", "a int, b text, v text, PRIMARY KEY (a, b)"
    )
    fill(connection, table, "a, b, v", [(n, f"b{n}", f"v{n}") for n in range(500)])
    name = f"t{uuid.uuid4().hex[:20]}"
    migration = migration_to(
        table, name, postgres={"create": True}, diff_mode="origin_only", repair=("missing",)
    )
    plan = planned(connection, pg, migration)
    copy_ranges(in_process(plan, connection, pg))
    sql.execute(f"INSERT INTO {name} VALUES (-1, 'nobody looks at me')")
    sql.execute(f"UPDATE {name} SET v = NULL WHERE a = 7")
    sql.execute(f"DELETE FROM {name} WHERE a = 8")
    assert found(compare(connection, plan, target=pg)) == (1, 0, 1)
    assert found(compare(connection, plan, target=pg)) == (0, 0, 1)
