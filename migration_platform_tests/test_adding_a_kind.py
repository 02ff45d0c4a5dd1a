"""A kind of store that the engine has never heard of: copied, compared, repaired and resumed.

`sqlite_kind.py` has all of it; the page "Adding a kind of store" walks through that file.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migration_platform.copying.copy import copy_range
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import NULL, join_cells, split_cells
from migration_platform.declaration.columns import Columns
from migration_platform.declaration.filters import Filter
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.declaration.stores import Abilities
from migration_platform.errors import DeclarationError, PreflightError
from migration_platform.plan.model import Column, Plan, Table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.interface import Kind
from migration_platform.stores.kinds import (
    describe_fidelity,
    open_origin,
    open_target,
    plan_between,
    register,
)
from migration_platform.stores.planning import make_plan, make_target
from migration_platform_tests.comparing import compare, found
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    KEYS,
    RANGES,
    Project,
    make_project,
)
from migration_platform_tests.servers import REPOSITORY
from migration_platform_tests.sqlite_kind import SqliteFile, SqliteTable
from migration_platform_tests.sqlite_kind import rows_of as rows_table
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process

pytestmark = DAGSTERS_OWN_WARNINGS
TIMELESS: dict[str, Any] = {"writetime": "now", "ttl": "none"}
BODY = "k int, c text, v text, s frozen<set<int>>, PRIMARY KEY (k, c)"
ROWS = 60


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    with SqliteFile(str(tmp_path / "rows.sqlite")) as opened:
        yield opened


@pytest.fixture
def table(connection: Connection, keyspace: str) -> TableName:
    name = create_table(connection, keyspace, "things", BODY)
    rows = [(n % 20, f"c{n}", f"v{n}", {n, n + 1}) for n in range(ROWS)]
    fill(connection, name, "k, c, v, s", rows)
    return name


def declare(origin: Endpoint, target: Endpoint, **options: Any) -> Migration:
    records = {} if "cassandra" in (origin.kind, target.kind) else {"tracking": False}
    return Migration(
        origin,
        target,
        **{"token_ranges": 4, "retry_seconds": 20.0, **TIMELESS, **records, **options},
    )


def in_file(name: TableName) -> Endpoint:
    return Endpoint("file", name, declared=SqliteTable())


def plan_to(migration: Migration, here: Any, there: Any) -> Plan:
    """Plan, and make the target's table where there is none."""
    sides = open_origin(migration, here), open_target(migration, there)
    return make_target(make_plan(migration, *sides), *sides, lambda status: None)


def copied(plan: Plan, here: Any, there: Any) -> int:
    return copy_ranges(in_process(plan, here, there)).written


def differing(plan: Plan, here: Any, there: Any) -> tuple[int, int, int]:
    return found(compare(here, plan, target=there))


def rows_in(connection: Connection, name: TableName) -> list[str]:
    return sorted(map(str, connection.session.execute(f"SELECT * FROM {name}")))


def keys_in(file: SqliteFile, table: Table) -> list[bytes]:
    query = f"SELECT key FROM {rows_table(table)} ORDER BY key"
    return [key for (key,) in file.database.execute(query)]


def test_a_table_goes_there_and_back_and_every_row_is_the_same(connection, keyspace, table, file):
    there = plan_to(declare(Endpoint("a", table), in_file(table)), connection, file)
    assert copied(there, connection, file) == ROWS
    assert differing(there, connection, file) == (0, 0, 0)
    again = create_table(connection, keyspace, "again", BODY)
    back = plan_to(declare(in_file(table), Endpoint("a", again)), file, connection)
    assert copied(back, file, connection) == ROWS
    assert differing(back, file, connection) == (0, 0, 0)
    assert rows_in(connection, again) == rows_in(connection, table)


def test_rows_go_between_two_files_though_nobody_keeps_records(connection, table, file, tmp_path):
    plan = plan_to(declare(Endpoint("a", table), in_file(table)), connection, file)
    copied(plan, connection, file)
    with SqliteFile(str(tmp_path / "other.sqlite")) as other:
        migration = declare(
            in_file(table),
            Endpoint("other", TableName("x", "moved"), declared=SqliteTable()),
            columns=Columns(rename={"v": "value"}, skip=("s",)),
        )
        plan = plan_to(migration, file, other)
        assert copied(plan, file, other) == ROWS
        assert differing(plan, file, other) == (0, 0, 0)
        assert [column.name for column in plan.target.columns] == ["k", "c", "value"]


def test_what_differs_is_found_in_its_range_and_repaired(connection, table, file):
    migration = declare(
        Endpoint("a", table), in_file(table), repair=("missing", "mismatched", "extra")
    )
    plan = plan_to(migration, connection, file)
    copied(plan, connection, file)
    damage(file, plan.target, random.Random(1), 5)
    quiet = declare(Endpoint("a", table), in_file(table))
    looked = plan_between(quiet, connection, file)
    assert differing(looked, connection, file) == (5, 5, 5)
    assert differing(plan, connection, file) == (5, 5, 5)
    assert differing(looked, connection, file) == (0, 0, 0)


def damage(file: SqliteFile, table: Table, chance: random.Random, count: int) -> None:
    """Take rows away, change others, and add some that the origin does not have."""
    chosen = chance.sample(keys_in(file, table), 3 * count)
    names = [column.name for column in table.columns]
    for number, key in enumerate(chosen):
        place = f"FROM {rows_table(table)} WHERE key = ?"
        token, cells = file.database.execute(f"SELECT token, cells {place}", (key,)).fetchone()
        row = split_cells(cells, len(names))
        if number % 3 == 0:
            file.database.execute(f"DELETE {place}", (key,))
            continue
        parts = split_cells(key, len(table.primary_key))
        if number % 3 == 1:
            row[names.index("v")] = None if row[names.index("v")] else b"other"
        else:
            parts[-1] = row[names.index("c")] = b"extra of " + (parts[-1] or b"")
        file.database.execute(
            f"INSERT OR REPLACE INTO {rows_table(table)} VALUES (?, ?, ?)",
            (join_cells(parts, NULL), token, join_cells(row, NULL)),
        )


@given(st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_damaged_is_found_and_repaired(connection, table, file, data):
    count = data.draw(st.integers(0, ROWS // 4), label="rows damaged in each way")
    seed = data.draw(st.integers(0, 2**32), label="seed")
    repairs = ("missing", "mismatched", "extra")
    plan = plan_to(declare(Endpoint("a", table), in_file(table), repair=repairs), connection, file)
    copied(plan, connection, file)
    before = keys_in(file, plan.target)
    damage(file, plan.target, random.Random(seed), count)
    assert differing(plan, connection, file) == (count, count, count)
    assert differing(plan, connection, file) == (0, 0, 0)
    assert keys_in(file, plan.target) == before


def test_only_rows_of_the_range_are_read_and_each_of_them(connection, table, file):
    plan = plan_to(declare(Endpoint("a", table), in_file(table)), connection, file)
    copied(plan, connection, file)
    again = declare(in_file(table), Endpoint("a", TableName(table.keyspace, "again")))
    create_table(connection, table.keyspace, "again", BODY)
    back = plan_to(again, file, connection)
    stores = in_process(back, file, connection)
    parts = [copy_range(stores, each, lambda _: None).written for each in again.ranges]
    assert sum(parts) == ROWS
    assert parts.count(0) < len(parts)


def test_what_the_store_cannot_do_is_refused_before_anything_is_read(connection, table, file):
    here, there = Endpoint("a", table), in_file(table)
    for why, options in {
        "SQLite keeps no times; set writetime to now": {"writetime": "cell", "ttl": "cell"},
        "writetime cell needs times of the origin's cells, and file is a store": {
            "origin": in_file(table),
            "target": here,
            "writetime": "cell",
        },
        "filter.where is CQL": {
            "origin": in_file(table),
            "target": here,
            "filter": Filter(where="v = 'a'"),
        },
        "tracking is kept in tables of a Cassandra cluster, and neither": {
            "origin": in_file(TableName("x", "other")),
            "tracking": True,
        },
    }.items():
        with pytest.raises(DeclarationError, match=re.escape(why)):
            declare(options.pop("origin", here), options.pop("target", there), **options)
    with pytest.raises(PreflightError, match="there is no table"):
        plan_between(declare(in_file(TableName("x", "nothing")), here), file, connection)
    statics = create_table(
        connection, table.keyspace, "st", "k int, c int, s int STATIC, PRIMARY KEY (k, c)"
    )
    with pytest.raises(PreflightError, match="column s is static at the origin"):
        plan_between(declare(Endpoint("a", statics), in_file(statics)), connection, file)


def test_what_arrives_is_told_and_a_name_is_taken_once(connection, table, file):
    plan = plan_between(declare(Endpoint("a", table), in_file(table)), connection, file)
    assert {line.subject for line in describe_fidelity(plan)} >= {"v", "s"}
    with pytest.raises(ValueError, match="there is a kind of store called sqlite already"):
        register(Kind(SqliteTable))
    assert Column("s", "frozen<set<int>>") in plan.target.columns


# -- in Dagster ----------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, connection: Connection, cassandra: Any, table: TableName) -> Project:
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    folder = project.defs_folder / "files"
    folder.mkdir(parents=True)
    kind = "migration_platform_tests.sqlite_kind.SqliteStores"
    files = {"file": str(tmp_path / "rows.sqlite")}
    (folder / "defs.yaml").write_text(
        yaml.safe_dump({"type": kind, "attributes": {"files": files}})
    )
    project.declare(
        "things",
        "TableMigration",
        origin={"store": "sunbird", "table": str(table)},
        target={"store": "file"},
        token_ranges=RANGES,
        workers=1,
        tracking_keyspace=table.keyspace,
        dead_letters={"max_rows": 5},
    )
    return project


def test_a_run_of_the_unchanged_component_is_resumed_and_its_dead_letter_copied(
    project, connection, table, tmp_path
):
    large = "x" * 1_000_001
    connection.session.execute(f"INSERT INTO {table} (k, c, v) VALUES (3, 'large', %s)", (large,))
    target = dg.AssetKey(["file", table.keyspace, "things"])
    letters = dg.AssetKey([*target.path[:-1], "things_dead_letters"])
    assert project.run(KEYS[0]).assert_success().materializations(target).keys() == {KEYS[0]}
    first = project.run()
    assert not first.success
    assert "1 row" in first.error
    assert f"a cell has {len(large):,} bytes" in project.messages_of(first.run_id)
    resumed = project.run(config={"ops": {"__".join(target.path): {"config": {"resume": "auto"}}}})
    assert "Carried over 8 of 8 ranges" in project.messages_of(resumed.run_id)
    connection.session.execute(f"UPDATE {table} SET v = 'small' WHERE k = 3 AND c = 'large'")
    assert project.run(None, assets=[letters]).assert_success()
    final = project.run().assert_success()
    assert final.checks["no_dead_letters"].passed
    with SqliteFile(str(tmp_path / "rows.sqlite")) as file:
        there = file.find(table)
        assert there is not None
        assert len(keys_in(file, there)) == ROWS + 1


def test_the_page_shows_what_stands_in_the_example():
    example = (Path(__file__).parent / "sqlite_kind.py").read_text()
    lines = [line.strip() for line in example.splitlines()]
    page = (REPOSITORY / "docs" / "adding-a-store.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 7
    for block in blocks:
        shown = [line.strip() for line in block.splitlines() if line.strip()]
        at = 0
        for line in shown:
            assert line in lines[at:], line
            at = lines.index(line, at) + 1
    abilities = {field.name for field in fields(Abilities)}
    assert abilities == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
