"""Schemas of whole keyspaces: created as they are at the origin, and every difference told."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.cql.names import quote
from migration_platform.errors import PreflightError
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.schema import (
    ColumnSchema,
    KeyspaceSchema,
    TableSchema,
    read_hosts,
    read_known_options,
    read_schema,
)
from migration_platform.stores.cassandra.schema_creation import (
    CREATABLE,
    Created,
    SchemaPlan,
    Statement,
    create_schema,
    plan_schema,
)
from migration_platform.stores.cassandra.schema_differences import Difference, compare_schemas
from migration_platform.stores.cassandra.wanted_schema import Wanted, change_table, types_in_order
from migration_platform_tests.roles import Roles
from migration_platform_tests.tables import REPLICATION, be_patient, create_table

EVERY_KIND = {
    "plain": "id int PRIMARY KEY, v text",
    "Orders": '"Tenant" text, "select" int, "weird ""name" int, v text, '
    'PRIMARY KEY (("Tenant", "select"), "weird ""name")',
    "clustered": "a int, b int, c text, d timeuuid, v int, PRIMARY KEY ((a, b), c, d) "
    "WITH CLUSTERING ORDER BY (c DESC, d ASC)",
    "statics": "id int, at int, s text static, ss set<int> static, v int, PRIMARY KEY (id, at)",
    "counted": "id int, at int, n counter, m counter, PRIMARY KEY (id, at)",
    "collected": "id int PRIMARY KEY, l list<int>, s set<text>, m map<text, int>, "
    "f frozen<map<text, frozen<list<int>>>>, t tuple<int, text>, e vector<float, 3>, d duration, "
    'i inet, u frozen<"Outer">, us list<frozen<"Outer">>, z address',
    "tuned": "id int PRIMARY KEY, v int WITH default_time_to_live = 86400 AND gc_grace_seconds = 60"
    " AND comment = 'it''s ours' AND compaction = {'class': 'LeveledCompactionStrategy', "
    "'sstable_size_in_mb': '80'} AND compression = {'enabled': 'false'} AND caching = "
    "{'keys': 'NONE', 'rows_per_partition': '10'} AND speculative_retry = '50ms' "
    "AND bloom_filter_fp_chance = 0.00008 AND read_repair = 'NONE'",
}
TYPES = (
    "CREATE TYPE {}.address (street text, city text)",
    'CREATE TYPE {}."Inner" (a int, "to" frozen<list<frozen<address>>>)',
    'CREATE TYPE {}."Outer" (i frozen<"Inner">, near map<text, frozen<"Inner">>)',
    "CREATE TYPE {}.unused (a int)",
)


@pytest.fixture(scope="module")
def origin(connection: Connection) -> Iterator[KeyspaceSchema]:
    """A keyspace with tables of every kind."""
    with keyspace_of(connection, "SchemaOrigin") as name:
        for statement in TYPES:
            connection.session.execute(statement.format(quote(name)))
        for table, body in EVERY_KIND.items():
            create_table(connection, name, table, body)
        yield read(connection, name)


@contextmanager
def keyspace_of(connection: Connection, name: str) -> Iterator[str]:
    connection.session.execute(f"DROP KEYSPACE IF EXISTS {quote(name)}")
    connection.session.execute(f"CREATE KEYSPACE {quote(name)} WITH replication = {REPLICATION}")
    yield name
    connection.session.execute(f"DROP KEYSPACE {quote(name)}", timeout=60)


def read(connection: Connection, name: str) -> KeyspaceSchema:
    found = read_schema(connection, name)
    assert found is not None
    return found


def unchanged(origin: KeyspaceSchema) -> list[Wanted]:
    """All tables, as they are at the origin."""
    return [Wanted(name, name, table) for name, table in origin.tables.items()]


def plan(
    connection: Connection, origin: KeyspaceSchema, name: str, wanted: list[Wanted], **more: Any
) -> SchemaPlan:
    options: dict[str, Any] = {
        "create": CREATABLE,
        "replication": None,
        "hosts": read_hosts(connection),
        "known_options": read_known_options(connection),
        **more,
    }
    return plan_schema(
        origin, read_schema(connection, name), keyspace=name, wanted=wanted, **options
    )


def create(
    connection: Connection, origin: KeyspaceSchema, name: str, wanted: list[Wanted], **more: Any
) -> Created:
    planned = plan(connection, origin, name, wanted, **more)
    assert planned.problems == ()
    return create_schema(connection, planned, retry_seconds=10)


def differences(
    connection: Connection, origin: KeyspaceSchema, name: str, wanted: list[Wanted]
) -> dict[str, set[str]]:
    """What differs, as text, by its severity."""
    found: dict[str, set[str]] = {}
    for one in compare_schemas(origin, read_schema(connection, name), wanted):
        found.setdefault(one.severity, set()).add(str(one))
    return found


# -- creating ----------------------------------------------------------------------------------


def test_a_created_keyspace_reads_back_as_the_origins_with_every_kind_of_table_and_option(
    connection: Connection, origin: KeyspaceSchema
) -> None:
    name = "SchemaCopy"
    connection.session.execute(f"DROP KEYSPACE IF EXISTS {quote(name)}")
    try:
        created = create(connection, origin, name, unchanged(origin))

        there = read(connection, name)
        assert there.tables == origin.tables
        assert there.replication == origin.replication
        assert there.types == {n: f for n, f in origin.types.items() if n != "unused"}
        assert created.told == created.refused == []
        assert [one.about for one in created.made][:4] == [
            'keyspace "SchemaCopy"',
            "type address",
            'type "Inner"',
            'type "Outer"',
        ]
        assert differences(connection, origin, name, unchanged(origin)) == {}

        again = create(connection, origin, name, unchanged(origin))
        assert again.made == []
    finally:
        connection.session.execute(f"DROP KEYSPACE IF EXISTS {quote(name)}", timeout=60)


def test_what_exists_is_never_altered(connection: Connection, origin: KeyspaceSchema) -> None:
    with keyspace_of(connection, "schema_existing") as name:
        create_table(connection, name, "plain", "other text PRIMARY KEY")
        connection.session.execute(f"CREATE TYPE {name}.address (zip int)")
        before = read(connection, name)

        create(connection, origin, name, unchanged(origin))

        after = read(connection, name)
        assert after.tables["plain"] == before.tables["plain"]
        assert after.types["address"] == before.types["address"]
        assert set(after.tables) == set(EVERY_KIND)


def test_only_what_may_be_created_is_created(
    connection: Connection, origin: KeyspaceSchema
) -> None:
    nothing = plan(connection, origin, "schema_nowhere", unchanged(origin), create=())
    assert nothing.statements == ()
    assert "there is no keyspace schema_nowhere at the target" in nothing.problems[0]

    types = plan(connection, origin, origin.name + "2", unchanged(origin), create=("types",))
    assert {one.about.split()[0] for one in types.statements} == {"type"}


def test_replication_that_the_target_cannot_hold_is_refused_with_what_would_be_valid(
    connection: Connection, origin: KeyspaceSchema
) -> None:
    def problems(**replication: Any) -> str:
        planned = plan(connection, origin, "schema_new", [], replication=replication)
        return "; ".join(planned.problems)

    (datacenter,) = read_hosts(connection)
    network = {"class": "NetworkTopologyStrategy"}
    assert problems(**network, **{datacenter: 1}) == ""
    assert "names datacenters of another cluster: mars" in problems(**network, mars=1)
    assert f"the target has {datacenter} with 1 hosts" in problems(**network, mars=1)
    assert "wants more replicas than there are hosts" in problems(**network, **{datacenter: 3})
    assert "names no class" in problems(**{datacenter: 1})


def test_a_table_whose_options_the_server_refuses_is_made_without_them_and_that_is_told(
    connection: Connection,
) -> None:
    # As from a server that knows a strategy and an option that this one does not.
    options = {
        "compaction": {"class": "org.example.Strategy"},
        "default_time_to_live": 7,
        "flavour": "sweet",
    }
    columns = (ColumnSchema("id", "int", "partition_key", 0), ColumnSchema("v", "int"))
    table = TableSchema("odd", columns, options)
    with keyspace_of(connection, "schema_odd") as name:
        origin = KeyspaceSchema(name, {}, True, {}, {"odd": table}, {})

        created = create(connection, origin, name, [Wanted("odd", "odd", table)])

        assert "refused the origin's" in created.told[0]
        assert "org.example.Strategy" in created.told[0]
        assert read(connection, name).tables["odd"].options["default_time_to_live"] == 7


def test_what_the_server_refuses_altogether_is_told_and_the_rest_is_made(
    connection: Connection,
) -> None:
    with keyspace_of(connection, "schema_refused") as name:
        statements = (
            Statement("table a", f"CREATE TABLE {name}.a (id nonsense PRIMARY KEY)"),
            Statement("table b", f"CREATE TABLE {name}.b (id int PRIMARY KEY)"),
        )
        created = create_schema(connection, SchemaPlan(statements, ()), retry_seconds=5)

        assert [one.about for one in created.made] == ["table b"]
        assert created.refused[0].startswith("table a: the server said")


def test_tables_that_cannot_be_created_are_named_before_anything_is(
    connection: Connection, origin: KeyspaceSchema
) -> None:
    compact = TableSchema("old", (ColumnSchema("id", "int", "partition_key", 0),), {}, True)
    wanted = [
        Wanted("old", "old", compact),
        Wanted("plain", "new", None, "columns.codecs"),
    ]

    planned = plan(connection, origin, origin.name, wanted)

    assert planned.statements == ()
    assert any("COMPACT STORAGE" in one for one in planned.problems)
    assert any("columns.codecs decides its columns" in one for one in planned.problems)


# -- another key -------------------------------------------------------------------------------


def test_a_table_can_be_wanted_with_other_names_and_another_key(
    connection: Connection, origin: KeyspaceSchema
) -> None:
    table = origin.tables["clustered"]

    def key_of(**more: Any) -> tuple[list[str], list[str]]:
        changed = change_table(table, name="x", **{"rename": {}, "skip": (), **more})
        return (
            [c.name for c in changed.of_kind("partition_key")],
            [c.name + " DESC" * c.descending for c in changed.of_kind("clustering")],
        )

    assert key_of() == (["a", "b"], ["c DESC", "d"])
    assert key_of(rename={"a": "A", "v": "w"}) == (["A", "b"], ["c DESC", "d"])
    assert key_of(partition_key=["v"]) == (["v"], ["a", "b", "c DESC", "d"])
    assert key_of(partition_key=["b"], clustering_columns=["v desc", "a"]) == (
        ["b"],
        ["v DESC", "a"],
    )
    with pytest.raises(PreflightError, match=r'names "Nope"; valid are a, b, c, d, v'):
        key_of(partition_key=["Nope"])

    wanted = change_table(table, name="by_v", rename={}, skip=["d"], partition_key=["v"])
    with keyspace_of(connection, "schema_keys") as name:
        create(connection, origin, name, [Wanted("clustered", "by_v", wanted)])
        assert read(connection, name).tables["by_v"] == wanted
        assert differences(connection, origin, name, [Wanted("clustered", "by_v", wanted)]) == {}


# -- comparing ---------------------------------------------------------------------------------

PLANTED = {
    "statics": "id int, at int, s text, ss set<int> static, v int, PRIMARY KEY (id, at)",
    "clustered": "a int, b int, c text, d timeuuid, v int, PRIMARY KEY ((a, b), c, d)",
    "plain": "id int, v int, more text, PRIMARY KEY (id)",
    "counted": "id int, at int, n counter, PRIMARY KEY ((id, at))",
    "tuned": "id int PRIMARY KEY, v int WITH gc_grace_seconds = 61",
    "stranger": "id int PRIMARY KEY",
}


def test_every_planted_difference_is_told_and_nothing_else(
    connection: Connection, origin: KeyspaceSchema
) -> None:
    with keyspace_of(connection, "schema_planted") as name:
        connection.session.execute(f"CREATE TYPE {name}.address (street int, zip text)")
        for table, body in PLANTED.items():
            create_table(connection, name, table, body)

        found = differences(connection, origin, name, unchanged(origin))

        assert found["error"] == {
            "type address: its field street is text at the origin, int at the target",
            "type address: the target lacks its field city",
            'type "Inner": it is missing at the target',
            'type "Outer": it is missing at the target',
            "table statics: column s is static at the origin, not static at the target",
            "table clustered: the clustering order should be c DESC, d ASC, and is c ASC, d ASC "
            "at the target",
            "table plain: column v is text at the origin, int at the target",
            "table counted: the target lacks column m",
            "table counted: the partition key should be id, and is id, at at the target",
            "table counted: the clustering columns should be at, and is none at the target",
            "table tuned: default_time_to_live is 86400 at the origin, 0 at the target",
            'table "Orders": it is missing at the target',
            "table collected: it is missing at the target",
        }
        assert found["warning"] == {
            "type address: only the target has its fields zip",
            "table plain: only the target has column more",
            "table stranger: only the target has it",
            "table tuned: gc_grace_seconds is 60 at the origin, 61 at the target",
        }
        noted = " ".join(found["note"])
        assert "compaction" in noted
        assert "comment is 'it''s ours' at the origin, '' at the target" in noted


def test_a_column_that_is_left_out_is_no_error(connection: Connection) -> None:
    with keyspace_of(connection, "schema_a") as here, keyspace_of(connection, "schema_b") as there:
        create_table(connection, here, "t", "id int PRIMARY KEY, v int, gone int")
        create_table(connection, there, "t", "id int PRIMARY KEY, v int")
        origin = read(connection, here)
        for may_lack, severity in ((False, "error"), (True, "warning")):
            wanted = [Wanted("t", "t", origin.tables["t"], may_lack=may_lack)]
            found = differences(connection, origin, there, wanted)
            assert found == {severity: {"table t: the target lacks column gone"}}


def test_views_indexes_and_functions_are_told_as_not_migrated_until_the_target_has_them(
    connection: Connection,
) -> None:
    with keyspace_of(connection, "schema_a") as here, keyspace_of(connection, "schema_b") as there:
        for name in (here, there):
            create_table(connection, name, "t", "id int PRIMARY KEY, v int")
            create_table(connection, name, "u", "id int PRIMARY KEY, v int")
        connection.session.execute(f"CREATE INDEX by_v ON {here}.t (v)")
        connection.session.execute(f"CREATE INDEX u_by_v ON {here}.u (v)")
        origin = read(connection, here)
        wanted = [Wanted("t", "t", origin.tables["t"])]

        assert differences(connection, origin, there, wanted) == {
            "warning": {
                "index by_v of t: it is not migrated; create it at the target if it is needed there"
            }
        }
        connection.session.execute(f"CREATE INDEX by_v ON {there}.t (v)")
        assert differences(connection, origin, there, wanted) == {}


def test_views_and_indexes_come_with_statements_that_make_them_at_the_target(
    roles: Roles,
) -> None:
    connection = roles.admin
    be_patient(connection.session)
    with keyspace_of(connection, "schema_a") as here, keyspace_of(connection, "schema_b") as there:
        body = 'id int PRIMARY KEY, v int, m map<text, int>, "Word" text'
        create_table(connection, here, "t", body)
        create_table(connection, there, "renamed", body)
        for statement in (
            f"CREATE INDEX by_v ON {here}.t (v)",
            f'CREATE INDEX "By_m" ON {here}.t (KEYS(m))',
            f'CREATE INDEX by_word ON {here}.t ("Word")',
            f"CREATE CUSTOM INDEX sai ON {here}.t (ENTRIES(m)) USING 'StorageAttachedIndex'",
            f"CREATE CUSTOM INDEX sai_word ON {here}.t (\"Word\") USING 'StorageAttachedIndex' "
            "WITH OPTIONS = {'case_sensitive': 'false'}",
            f"CREATE MATERIALIZED VIEW {here}.whole AS SELECT * FROM {here}.t "
            "WHERE v IS NOT NULL AND id IS NOT NULL PRIMARY KEY ((v, id))",
            f'CREATE MATERIALIZED VIEW {here}."Part" AS SELECT id, v, "Word" FROM {here}.t '
            'WHERE "Word" IS NOT NULL AND id > 5 '
            'PRIMARY KEY ("Word", id) WITH CLUSTERING ORDER BY (id DESC)',
        ):
            connection.session.execute(statement)
        origin = read(connection, here)
        wanted = [Wanted("t", "renamed", replace(origin.tables["t"], name="renamed"))]
        found = compare_schemas(origin, read(connection, there), wanted)
        statements = {one.about: one.cql for one in found if one.severity == "warning"}
        assert statements["index by_v of t"] == f"CREATE INDEX by_v ON {there}.renamed (v);"
        assert len(statements) == 7
        for statement in statements.values():
            connection.session.execute(statement)

        # Both keyspaces now hold the same, but for the table's name.
        made = read(connection, there)
        assert not [
            one for one in compare_schemas(origin, made, wanted) if one.about.startswith("view")
        ]
        assert {
            thing.replace(" of t", " of renamed"): made_by.write(there, "renamed")
            for thing, made_by in origin.statements.items()
        } == {thing: made_by.write(there, "renamed") for thing, made_by in made.statements.items()}

        left_out = replace(origin.tables["t"], name="renamed", columns=())
        empty = replace(read(connection, there), tables={}, views={}, others=())
        assert not [
            one.cql
            for one in compare_schemas(origin, empty, [Wanted("t", "renamed", left_out)])
            if one.cql
        ]


def test_a_missing_keyspace_is_an_error_and_another_replication_a_note(
    connection: Connection, origin: KeyspaceSchema
) -> None:
    missing = compare_schemas(origin, None, [])
    assert missing == [Difference("error", "keyspace", "it is missing at the target")]
    changed = KeyspaceSchema(**{**vars(origin), "replication": {"class": "X"}})
    assert [one.severity for one in compare_schemas(origin, changed, [])] == ["note"]


def test_a_ring_that_is_not_murmur3_is_refused(guarded_cassandra: Running) -> None:
    settings = CassandraSettings(
        port=guarded_cassandra.port, username="cassandra", password="cassandra"
    )
    with Connection(settings) as guarded, pytest.raises(PreflightError, match="RandomPartitioner"):
        read_schema(guarded, "system_auth")


# -- types -------------------------------------------------------------------------------------


@given(st.data())
def test_types_come_after_those_that_they_are_made_of(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=6))
    names = [name for name in names if name not in ("frozen", "list", "int")]
    types: dict[str, tuple[tuple[str, str], ...]] = {}
    for number, name in enumerate(names):
        inner = data.draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else []
        quoted = ['"' + one.replace('"', '""') + '"' for one in inner]
        types[name] = tuple((f"f{i}", f"frozen<list<{one}>>") for i, one in enumerate(quoted))
    shuffled: Mapping[str, Any] = dict(data.draw(st.permutations(list(types.items()))))
    columns = tuple(
        ColumnSchema(f"c{i}", 'frozen<"' + name.replace('"', '""') + '">')
        for i, name in enumerate(shuffled)
    )

    ordered = types_in_order(shuffled, [TableSchema("t", columns)])

    assert sorted(ordered) == sorted(names)
    for name in names:
        for _, cql_type in types[name]:
            inner = cql_type.removeprefix('frozen<list<"').removesuffix('">>').replace('""', '"')
            assert ordered.index(inner) < ordered.index(name)
