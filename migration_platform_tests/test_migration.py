"""A declaration that is wrong is refused in one message; any name is a name and nothing else."""

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.errors import DeclarationError
from migration_platform.migration import CONSISTENCY_LEVELS, Endpoint, Migration, TableName, quote
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN
from migration_platform_tests.tables import (
    copy_table,
    create_keyspace,
    create_table,
    insert_rows,
    rows_of,
)

A, B = TableName("k", "a"), TableName("k", "b")
HOSTILE = ['a"; DROP TABLE x', "Mixed Case", 'quo"te""s', "select", "naïve ★", "a'b\\n", "--", "1"]


def declare(**options):
    return Migration(Endpoint("one", A), Endpoint("two", B), **options)


def test_two_tables_are_a_complete_migration():
    migration = declare()
    assert migration.token_ranges == len(migration.ranges) == 64
    assert (migration.ranges[0].start, migration.ranges[-1].end) == (MIN_TOKEN, MAX_TOKEN)
    assert migration.origin.consistency == migration.target.consistency == "LOCAL_QUORUM"
    assert (migration.writetime, migration.ttl, migration.diff_mode) == ("now", "none", "two_way")
    assert migration.name == "k.b"


def test_a_migration_does_not_change():
    with pytest.raises(FrozenInstanceError):
        declare().token_ranges = 3  # type: ignore[misc]


def test_every_wrong_value_is_named_in_one_message():
    with pytest.raises(DeclarationError) as refused:
        Migration(
            Endpoint("one", A, consistency="MOST", rows_per_second=0, fetch_size=0),
            Endpoint("one", A, consistency="ANY", rows_per_second=-1),
            token_ranges=1001,
            workers=0,
            writetime="cell",
            ttl=60,
            diff_mode="both",
            retry_seconds=-1,
        )
    message = str(refused.value)
    for said in [
        "token_ranges is 1001; valid are 1 to 1000",
        "workers is 0; valid are 1 to 256",
        "retry_seconds is -1; valid are 0 to 86400",
        "origin.rows_per_second is 0; it must be 1+",
        "target.rows_per_second is -1; it must be 1+",
        "origin.fetch_size is 0; valid are 1 to 100000",
        "origin.consistency is 'MOST'; valid are LOCAL_QUORUM, ",
        "target.consistency is 'ANY'; valid are LOCAL_QUORUM, ",
        "diff.mode is 'both'; valid are two_way, origin_only",
        "writetime 'cell' is not there yet; valid so far is: now",
        "ttl 60 is not there yet; valid so far is: none",
        "origin and target are both k.a in one",
    ]:
        assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("token_ranges", 0),
        ("workers", 257),
        ("retry_seconds", 86_401),
        ("retry_seconds", float("nan")),
        ("writetime", 0),
        ("ttl", "row_max"),
        ("diff_mode", ""),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(option, value):
    with pytest.raises(DeclarationError, match=option.replace("_mode", ".mode")):
        declare(**{option: value})


@pytest.mark.parametrize("level", CONSISTENCY_LEVELS)
def test_every_consistency_level_that_is_named_as_valid_is_valid(level):
    Migration(Endpoint("a", A, consistency=level), Endpoint("a", B, consistency=level))


def test_the_same_name_in_two_stores_is_no_mistake():
    assert Migration(Endpoint("one", A), Endpoint("two", A)).name == "k.a"


@pytest.mark.parametrize(
    ("text", "keyspace", "table"),
    [
        ("ks.table_1", "ks", "table_1"),
        ("KS.Table", "ks", "table"),
        ('"KS"."Table"', "KS", "Table"),
        ('ks."My ""own"" table"', "ks", 'My "own" table'),
        (' "a.b".c ', "a.b", "c"),
        ('"a""; DROP TABLE x".t', 'a"; DROP TABLE x', "t"),
    ],
)
def test_a_table_is_named_as_in_cql(text, keyspace, table):
    assert TableName.parse(text) == TableName(keyspace, table)


@pytest.mark.parametrize(
    "text",
    ["", "t", "a.b.c", ".t", "k.", '"k.t', "k.t; DROP TABLE x", "1k.t", 'k.""', "k t", "k.té"],
)
def test_what_is_no_table_name_is_refused_with_the_form(text):
    with pytest.raises(DeclarationError, match=r"is no table name; write keyspace\.table"):
        TableName.parse(text)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_name_survives_being_quoted_and_read_again(keyspace, table):
    name = TableName(keyspace, table)
    assert TableName.parse(str(name)) == name


@given(st.text(min_size=1))
def test_no_name_can_end_its_quotes(name):
    quoted = quote(name)
    if quoted != name:
        assert quoted[0] == quoted[-1] == '"'
        assert '"' not in quoted[1:-1].replace('""', "")


def test_plain_names_stay_plain_and_reserved_words_do_not():
    assert quote("batchid") == "batchid"
    assert [quote(n) for n in ("select", "Batch", "a b", "1a")] == [
        '"select"',
        '"Batch"',
        '"a b"',
        '"1a"',
    ]


def test_hostile_names_are_only_names_to_a_server(connection, reader, keyspace):
    other = f"Q_{keyspace}"
    create_keyspace(connection, other)
    try:
        names = [quote(name) for name in HOSTILE]
        fields = ", ".join(f"{name} int" for name in names)
        columns = ", ".join(f"{name} text" for name in names)
        for each in (keyspace, other):
            connection.session.execute(f'CREATE TYPE "{each}"."Field""s" ({fields})')
        body = f'{columns}, u frozen<"Field""s">, PRIMARY KEY '
        origin = create_table(
            connection, keyspace, "Select", f"{body} ({names[0]}, {names[1]}, {names[2]})"
        )
        target = create_table(
            connection, other, "table", f"{body} (({names[2]}, {names[0]}), {names[1]})"
        )
        insert_rows(
            connection,
            origin,
            [dict.fromkeys(HOSTILE, value) for value in ("x'; --", '"', "\\", "★")],
        )
        value = ", ".join(f"{name}: 1" for name in names)
        key = " AND ".join(f"{name} = '★'" for name in names[:3])
        connection.session.execute(f"UPDATE {origin} SET u = {{{value}}} WHERE {key}")

        counts = copy_table(connection, origin, target, group_writes_by=(HOSTILE[0], HOSTILE[3]))

        assert counts.written == 4
        assert rows_of(reader, target) == rows_of(reader, origin)
        assert len(rows_of(reader, target)) == 4
    finally:
        connection.session.execute(f'DROP KEYSPACE "{other}"')
