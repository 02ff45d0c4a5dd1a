"""A Cassandra table becomes a PostgreSQL table: every row arrives, and is found equal."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from migration_platform.comparing.scans import ScanSums
from migration_platform.components.table.migration import TableMigration
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import PermanentError
from migration_platform.local.stack import Running
from migration_platform.plan.model import Plan
from migration_platform.stores.kinds import open_origin, open_target, plan_between
from migration_platform.stores.planning import make_target
from migration_platform.stores.postgres import reads
from migration_platform.stores.postgres.connection import Postgres, PostgresSettings
from migration_platform.stores.postgres.declaration import PostgresTarget
from migration_platform_tests.comparing import compare, found
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process, insert_rows

pytestmark = DAGSTERS_OWN_WARNINGS
Plans = Callable[..., Plan]


def settings_of(postgres: Running) -> PostgresSettings:
    return PostgresSettings(("127.0.0.1",), postgres.port, username="postgres", sslmode="disable")


@pytest.fixture(scope="module")
def pg_settings(postgres: Running) -> PostgresSettings:
    return settings_of(postgres)


@pytest.fixture(scope="module")
def pg(pg_settings: PostgresSettings) -> Iterator[Postgres]:
    with pg_settings.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def sql(pg_settings: PostgresSettings) -> Iterator[psycopg.Connection]:
    """The driver's own connection: what arrived is read without the engine."""
    with psycopg.connect(
        host="127.0.0.1", port=pg_settings.port, user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        yield connection


@pytest.fixture
def plan_to(connection: Any, pg: Postgres) -> Plans:
    """Plan a migration to a table of its own, which is created unless it is named."""

    def plan(origin: TableName, *, into: str = "", **options: Any) -> Plan:
        declared = PostgresTarget(**{"create": not into, **options.pop("postgres", {})})
        name = into or f"t{uuid.uuid4().hex}"
        migration = Migration(
            Endpoint("a", origin),
            Endpoint("b", TableName("", name), declared=declared),
            **{
                "token_ranges": 3,
                "retry_seconds": 20.0,
                "writetime": "now",
                "ttl": "none",
                **options,
            },
        )
        plan = plan_between(migration, connection, pg)
        return make_target(
            plan, open_origin(migration, connection), open_target(migration, pg), lambda _: None
        )

    return plan


def scanned(plan: Plan, connection: Any, pg: Postgres) -> list[int]:
    """How many rows of each range the scans of the target see, before any row is read again."""
    stores = in_process(plan, connection, pg)
    wanted = frozenset(each.index for each in plan.migration.ranges)
    found: Counter[int] = Counter()
    for each in plan.migration.ranges:
        found += ScanSums("target", each, wanted).run(stores, lambda _: None).rows
    return [found[index] for index in sorted(wanted)]


def rows_in(sql: psycopg.Connection, plan: Plan, columns: str = "*") -> list[tuple]:
    name = plan.target.name
    return sql.execute(f'SELECT {columns} FROM "{name.keyspace}"."{name.table}"').fetchall()


def test_rows_become_rows_and_are_found_equal(connection, pg, sql, keyspace, plan_to):
    table = create_table(
        connection, keyspace, "users", "id uuid PRIMARY KEY, name text, email text, at timestamp"
    )
    at = datetime(2024, 1, 31, 10, 20, 30, 123_000, tzinfo=UTC)
    rows = [(uuid.uuid4(), f"User{n}", None if n % 7 else "", at) for n in range(2500)]
    fill(connection, table, "id, name, email, at", rows)
    plan = plan_to(table)

    counts = copy_ranges(in_process(plan, connection, pg))

    assert (counts.read, counts.written, counts.complete) == (2500, 2500, True)
    assert sorted(rows_in(sql, plan, "id, name, email, at")) == sorted(rows)
    verdict = compare(connection, plan, target=pg)
    assert found(verdict) == (0, 0, 0)
    assert (verdict.origin_rows, verdict.target_rows) == (2500, 2500)
    assert sum(scanned(plan, connection, pg)) == 2500
    # A second copy changes nothing.
    counts = copy_ranges(in_process(plan, connection, pg))
    assert (counts.written, len(rows_in(sql, plan))) == (2500, 2500)
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)


EVERYTHING = """
    k int, c text, a ascii, b bigint, bl blob, bo boolean, d date, de decimal, du duration,
    f float, do double, i inet, s smallint, ti tinyint, t time, ts timestamp, u uuid, tu timeuuid,
    vi varint, li list<text>, se set<int>, st set<text>, ma map<int, text>, fs frozen<set<int>>,
    tp frozen<tuple<int, text>>, nested map<text, frozen<list<frozen<set<double>>>>>,
    v vector<float, 3>, PRIMARY KEY (k, c)
"""


@pytest.mark.parametrize("method", ["copy", "values"])
def test_values_of_every_type_arrive_and_agree(connection, pg, sql, keyspace, plan_to, method):
    table = create_table(connection, keyspace, "everything", EVERYTHING)
    full = {
        "k": 1, "c": "#%", "a": "a", "b": -(2**63), "bl": b"\0\xff", "bo": False,
        "d": "1582-10-15", "de": Decimal("1.10"), "f": 0.1, "do": 1e-10,
        "i": "2001:db8::1", "s": -1, "ti": 127, "t": 86_399_999_999_000,
        "ts": datetime(2024, 1, 31, 10, 20, 30, 123_000, tzinfo=UTC), "u": uuid.uuid4(),
        "tu": uuid.uuid1(), "vi": 10**30, "li": ["x", "x", ""], "se": {3, 1, 2}, "st": {"", "é"},
        "ma": {5: "five", -5: ""}, "fs": set(), "tp": (None, "x"),
        "nested": {"": [{1.5, 0.25}], "%x": []}, "v": [1.0, -0.5, 0.1],
    }  # fmt: skip
    insert_rows(connection, table, [full, {"k": 1, "c": ""}, {"k": 2, "c": "x", "li": ["only"]}])
    connection.session.execute(f"UPDATE {table} SET du = 1y2mo3d4h WHERE k = 1 AND c = '#%'")
    plan = plan_to(table, postgres={"method": method})

    for _ in range(2):
        assert copy_ranges(in_process(plan, connection, pg)).written == 3
        assert found(compare(connection, plan, target=pg)) == (0, 0, 0)
    (row,) = sql.execute(
        f"SELECT b, de::text, li, se, st, ma, fs, ts, ti, v FROM {plan.target.name} WHERE c = '#%'"
    ).fetchall()
    assert row[:5] == (-(2**63), "1.10", ["x", "x", ""], [1, 2, 3], ["", "é"])
    assert row[6:9] == ([], full["ts"], 127)


SCANS = {"blocks": {}, "whole": {"scan": "whole"}, "hash_code": {"scan": "hash_code"}}


@pytest.mark.parametrize("scan", SCANS)
def test_damage_is_found_in_both_directions_and_repaired(
    connection, pg, sql, keyspace, plan_to, scan
):
    # YugabyteDB has such a function; what matters here is that its codes cut the table.
    sql.execute(
        "CREATE OR REPLACE FUNCTION yb_hash_code(uuid) RETURNS int LANGUAGE sql IMMUTABLE AS "
        "'SELECT hashtext($1::text) & 65535'"
    )
    table = create_table(connection, keyspace, f"damaged_{scan}", "id uuid PRIMARY KEY, n int")
    rows = [(uuid.uuid4(), n) for n in range(300)]
    fill(connection, table, "id, n", rows)
    plan = plan_to(table, postgres=SCANS[scan], repair=("missing", "extra", "mismatched"))
    copy_ranges(in_process(plan, connection, pg))
    assert sum(scanned(plan, connection, pg)) == 300
    name = plan.target.name
    sql.execute(f"DELETE FROM {name} WHERE id = '{rows[3][0]}'")
    sql.execute(f"UPDATE {name} SET n = NULL WHERE id = '{rows[4][0]}'")
    sql.execute(f"INSERT INTO {name} (id) VALUES ('{uuid.UUID(int=0)}')")

    verdict = compare(connection, plan, target=pg)

    assert found(verdict) == (1, 1, 1)
    assert sorted(rows_in(sql, plan)) == sorted(rows)
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)


def test_a_large_table_is_scanned_in_stripes_and_every_row_is_seen_once(
    connection, pg, sql, keyspace, plan_to, monkeypatch
):
    monkeypatch.setattr(reads, "STRIPE_BLOCKS", 1)
    table = create_table(connection, keyspace, "striped", "id uuid PRIMARY KEY, name text")
    fill(connection, table, "id, name", [(uuid.uuid4(), "x" * 300) for _ in range(600)])
    plan = plan_to(table)
    copy_ranges(in_process(plan, connection, pg))
    blocks = sql.execute(
        f"SELECT pg_relation_size('{plan.target.name}'::regclass) / 8192"
    ).fetchone()
    assert blocks is not None
    assert blocks[0] > 6
    assert sum(scanned(plan, connection, pg)) == 600
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)


def test_a_partitioned_table_is_scanned_whole(connection, pg, sql, keyspace, plan_to):
    table = create_table(connection, keyspace, "parted", "id int PRIMARY KEY, name text")
    fill(connection, table, "id, name", [(n, f"n{n}") for n in range(200)])
    into = f"parted_{uuid.uuid4().hex[:8]}"
    sql.execute(f"CREATE TABLE {into} (id int PRIMARY KEY, name text) PARTITION BY HASH (id)")
    for part in range(3):
        sql.execute(
            f"CREATE TABLE {into}_{part} PARTITION OF {into} "
            f"FOR VALUES WITH (MODULUS 3, REMAINDER {part})"
        )
    plan = plan_to(table, into=into)
    for _ in range(2):
        assert copy_ranges(in_process(plan, connection, pg)).written == 200
    assert sum(scanned(plan, connection, pg)) == 200
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)


def test_static_cells_are_repeated_in_each_row_and_none_is_lost_in_silence(
    connection, pg, sql, keyspace, plan_to
):
    table = create_table(
        connection, keyspace, "shared", "p int, c int, s text STATIC, v text, PRIMARY KEY (p, c)"
    )
    for p in range(20):
        connection.session.execute(f"INSERT INTO {table} (p, s) VALUES ({p}, 'shared {p}')")
        for c in range(p % 3 + 1):
            connection.session.execute(f"INSERT INTO {table} (p, c, v) VALUES ({p}, {c}, 'v{c}')")
    plan = plan_to(table)
    copy_ranges(in_process(plan, connection, pg))
    rows = rows_in(sql, plan, "p, c, s, v")
    assert sorted(rows) == [
        (p, c, f"shared {p}", f"v{c}") for p in range(20) for c in range(p % 3 + 1)
    ]
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)
    connection.session.execute(f"UPDATE {table} SET s = 'other' WHERE p = 2")
    assert found(compare(connection, plan, target=pg)) == (0, 0, 3)

    connection.session.execute(f"INSERT INTO {table} (p, s) VALUES (99, 'no row has me')")
    with pytest.raises(PermanentError, match=r"p=99.*partition of static cells alone"):
        copy_ranges(in_process(plan, connection, pg))


NAMES = {
    "a table alone is in the store's schema": ("orders", "app"),
    "a schema and a table": ("audit.orders", "audit"),
    "a database is no schema": ("postgres.orders", "app"),
    "a database, a schema and a table": ("postgres.audit.orders", "audit"),
    "quoted names": ('"My Schema"."Order"', "My Schema"),
}


@pytest.mark.parametrize("form", NAMES)
def test_four_forms_of_names_and_quoted_ones_lead_to_a_table(
    connection, postgres, sql, keyspace, form
):
    given, schema = NAMES[form]
    for each in ("app", "audit", "My Schema"):
        sql.execute(f'CREATE SCHEMA IF NOT EXISTS "{each}"')
        name = "Order" if each == "My Schema" else "orders"
        sql.execute(f'DROP TABLE IF EXISTS "{each}"."{name}"')
        sql.execute(f'CREATE TABLE "{each}"."{name}" (id int PRIMARY KEY, "select" text, "É" text)')
    table = create_table(
        connection, keyspace, "orders", 'id int PRIMARY KEY, "select" text, "É x" text'
    )
    fill(connection, table, 'id, "select", "É x"', [(1, "one", "é")])
    declared = {
        "origin": {"store": "a", "table": str(table)},
        "target": {"store": "b", "table": given},
        "columns": {"rename": {"É x": "É"}},
        "token_ranges": 1,
    }
    migration = TableMigration.resolve_from_dict(declared).to_migration({"b": "postgres"})
    settings = replace(settings_of(postgres), schema="app")
    with settings.connect() as there:
        plan = plan_between(migration, connection, there)
        assert copy_ranges(in_process(plan, connection, there)).written == 1
    assert rows_in(sql, plan) == [(1, "one", "é")]
    assert plan.target.name.keyspace == schema
