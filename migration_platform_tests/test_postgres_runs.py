"""Migrations to PostgreSQL as an operator meets them: YAML, runs, checks, and what they say."""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from cassandra.cluster import Session
from click.testing import CliRunner

from migration_platform.cli import main
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import Connection
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    Move,
    make_project,
)
from migration_platform_tests.tables import create_table, fill

pytestmark = DAGSTERS_OWN_WARNINGS

ROWS = 320
COLUMNS = "id uuid PRIMARY KEY, name text, email text, score double"


@dataclass
class Customers(Move):
    """A table of customers, and the project that migrates it to a PostgreSQL table of its own."""

    postgres_port: int = 0

    @property
    def target(self) -> dg.AssetKey:
        return dg.AssetKey(["ysql", self.target_name])

    @property
    def diff(self) -> dg.AssetKey:
        return dg.AssetKey(["ysql", f"{self.target_name}_diff"])

    def declare(self, **attributes: Any) -> None:
        origin = {"store": "sunbird", "table": f"{self.keyspace}.customers"}
        target = {"store": "ysql", "table": self.target_name, "create": True}
        origin.update(attributes.pop("origin", {}))
        target.update(attributes.pop("target", {}))
        given = {"token_ranges": RANGES, "workers": 1, "retry_seconds": 10, **attributes}
        self.project.declare("customers", "TableMigration", origin=origin, target=target, **given)

    def declare_stores(self, **postgres: Any) -> None:
        """Declare both stores; `postgres` adds to how PostgreSQL is reached."""
        cluster = {"contact_points": ["127.0.0.1"], "port": self.connection.cluster.port}
        server = {"hosts": ["127.0.0.1"], "port": self.postgres_port, "username": "postgres"}
        self.project.declare(
            "stores",
            "Stores",
            cassandra={"sunbird": cluster},
            postgres={"ysql": {**server, "schema": "public", "sslmode": "disable", **postgres}},
        )

    def sql(self, text: str) -> list[tuple]:
        with psycopg.connect(
            f"host=127.0.0.1 port={self.postgres_port} user=postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[tuple]:
        return sorted(self.sql(f"SELECT id, name, email, score FROM public.{self.target_name}"))

    def command(self, *arguments: str) -> str:
        """Run `migration-platform` on the project, within this process."""
        result = CliRunner().invoke(main, [*arguments, "--project", str(self.project.folder)])
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture
def customers(
    tmp_path: Path,
    cassandra: Running,
    postgres: Running,
    connection: Connection,
    reader: Session,
    keyspace: str,
) -> Iterator[Customers]:
    table = create_table(connection, keyspace, "customers", COLUMNS)
    rows = [(uuid.uuid4(), f"User{n}", f"user{n}@example.com", n / 4) for n in range(ROWS)]
    fill(connection, table, "id, name, email, score", rows)
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    customers = Customers(
        project,
        keyspace,
        connection,
        reader,
        "",
        origin_name="customers",
        target_name=f"customers_{uuid.uuid4().hex[:12]}",
        postgres_port=postgres.port,
    )
    customers.declare_stores()
    customers.declare()
    yield customers
    customers.sql(f"DROP TABLE IF EXISTS public.{customers.target_name}")


def test_a_table_is_made_copied_compared_and_repaired(customers: Customers) -> None:
    project = customers.project
    run = project.run().assert_success()

    copied = run.materializations(customers.target)
    assert sum(copied[key]["rows_written"] for key in KEYS) == ROWS
    assert len(customers.rows()) == ROWS
    for asset in (customers.target, customers.diff):
        assert project.statuses(asset) == dict.fromkeys(KEYS, "success")
    assert all(run.checks[name].passed for name in run.checks)
    assert set(run.checks) == {"row_counts_match", "all_ranges_match", "no_dead_letters"}
    # Runs are tracked in the origin's cluster.
    told = customers.command("status", customers.target_name)
    assert re.search(r"VALIDATE +ENDED", told), told

    there = customers.rows()
    project.run().assert_success()
    assert customers.rows() == there

    victim = there[7][0]
    table = f"public.{customers.target_name}"
    customers.sql(f"UPDATE {table} SET email = 'somebody else''s' WHERE id = '{victim}'")
    red = project.run(assets=[customers.diff])
    assert not red.success
    assert list(project.statuses(customers.diff).values()).count("failed") == 1
    passed, sentence, metadata = customers.check("all_ranges_match")
    assert not passed
    assert "0 missing, 0 extra, 1 mismatched rows" in sentence
    assert str(victim) in str(metadata["samples"])

    customers.sql(f"DELETE FROM {table} WHERE id = '{there[8][0]}'")
    customers.sql(f"INSERT INTO {table} (id) VALUES ('{uuid.UUID(int=0)}')")
    customers.declare(diff={"repair": ["mismatched", "missing", "extra"]})
    project.run(assets=[customers.diff]).assert_success()
    assert customers.rows() == there
    assert customers.check("all_ranges_match")[0]

    customers.sql(f"INSERT INTO {table} (id) VALUES ('{uuid.UUID(int=0)}')")
    project.run(config=customers.step_config(truncate_target=True)).assert_success()
    assert customers.rows() == there


def test_a_plan_and_the_tables_page_name_the_types_that_postgres_has(customers: Customers) -> None:
    customers.project.run().assert_success()
    plan = dg.AssetKey(["ysql", f"{customers.target_name}_plan"])
    run = customers.project.run(partitions=None, assets=[plan]).assert_success()

    ((_, told),) = run.materializations(plan).items()
    assert "| score | double precision | score (double) |" in told["columns"]
    assert re.fullmatch(r"PostgreSQL: PostgreSQL \d+(\.\d+)+", told["server"])
    schema = customers.table_metadata()["dagster/column_schema"]
    assert {column.name: column.type for column in schema.columns}["score"] == "double precision"
