"""A Cassandra table becomes a PostgreSQL table: every row arrives, and is found equal."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from migration_platform.comparing.scans import ScanSums
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.local.stack import Running
from migration_platform.plan.model import Plan
from migration_platform.stores.kinds import open_origin, open_target, plan_between
from migration_platform.stores.planning import make_target
from migration_platform.stores.postgres.connection import Postgres, PostgresSettings
from migration_platform.stores.postgres.declaration import PostgresTarget
from migration_platform_tests.comparing import compare, found
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process, insert_rows

Plans = Callable[..., Plan]


@pytest.fixture(scope="module")
def pg_settings(postgres: Running) -> PostgresSettings:
    return PostgresSettings(
        ("127.0.0.1",), postgres.port, username="postgres", sslmode="disable", schema="public"
    )


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
