"""What the tables do not allow is said before anything is written, all of it in one message."""

import pytest

from migration_platform.errors import PreflightError
from migration_platform.migration import Endpoint, Migration, TableName
from migration_platform.preflight import build_plan, is_assignable
from migration_platform.stores.cassandra import CassandraSettings, Connection
from migration_platform_tests.tables import (
    copy_table,
    create_table,
    declare,
    insert_rows,
    plan_copy,
    rows_of,
)


@pytest.fixture
def make(connection, keyspace):
    """Make a table in the test's keyspace; the name says which side it is."""
    return lambda name, body: create_table(connection, keyspace, name, body)


@pytest.fixture
def refusal(connection):
    """The message with which a migration is refused."""

    def refuse(origin, target, **options):
        with pytest.raises(PreflightError) as refused:
            plan_copy(connection, origin, target, **options)
        message = str(refused.value)
        assert "\n" not in message
        assert message.startswith(f"{target.keyspace}.{target.table} cannot be migrated: ")
        return message

    return refuse


def test_a_missing_keyspace_is_named_with_those_that_are_there(refusal, keyspace, make, settings):
    there = make("a", "k int PRIMARY KEY")
    message = refusal(TableName(keyspace + "x", "a"), there)
    assert f"there is no keyspace {keyspace}x at 127.0.0.1 port {settings.port}" in message
    assert keyspace in message.partition("port")[2]


def test_a_missing_table_is_named_with_the_close_ones(refusal, keyspace, make):
    make("enrolments", "k int PRIMARY KEY")
    there = make("something", "k int PRIMARY KEY")
    message = refusal(there, TableName(keyspace, "enrolment"))
    assert f"there is no table {keyspace}.enrolment at" in message
    assert "there are 2, among them enrolments" in message


def test_a_missing_table_in_an_empty_keyspace_is_named(refusal, keyspace):
    message = refusal(TableName(keyspace, "a"), TableName(keyspace, "b"))
    assert f"there is no table {keyspace}.a at" in message
    assert f"there is no table {keyspace}.b at" in message
    assert "in the keyspace there are none" in message


def test_a_missing_column_is_named_with_what_was_meant(refusal, make):
    origin = make("a", "k int PRIMARY KEY, completed_on timestamp, odd int")
    target = make("b", 'k int PRIMARY KEY, completedon timestamp, "zzzZ" text')
    message = refusal(origin, target)
    assert f"{target} has no column completed_on (timestamp): did you mean completedon?" in message
    assert f"{target} has no column odd (int): add it to the target" in message


def test_a_type_that_does_not_fit_is_named_with_the_one_that_would(refusal, make):
    origin = make("a", "k int PRIMARY KEY, n bigint, m map<text, int>, t text")
    target = make("b", "k int PRIMARY KEY, n int, m map<text, bigint>, t ascii")
    message = refusal(origin, target)
    assert "column n is bigint at the origin and int at the target; make the target's bigint" in (
        message
    )
    assert "column m is map<text, int> at the origin and map<text, bigint> at" in message
    assert "column t is text at the origin and ascii at the target" in message


def test_a_key_column_that_the_origin_lacks_is_named(refusal, make):
    origin = make("a", "k int PRIMARY KEY, v int")
    target = make("b", "k int, tenant text, v int, PRIMARY KEY (tenant, k)")
    message = refusal(origin, target)
    assert f"{target} has the key column tenant, which {origin} does not have" in message


def test_a_target_without_one_of_the_origins_key_columns_is_refused(refusal, make):
    origin = make("a", "k int, c int, v int, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, v int")
    message = refusal(origin, target)
    assert f"{target} has no column c (int)" in message
    assert f"the primary key of {target} (k) must have the columns of the origin's (k, c)" in (
        message
    )


def test_a_key_of_other_columns_is_refused(refusal, make):
    origin = make("a", "k int, v int, PRIMARY KEY (k)")
    target = make("b", "k int, v int, PRIMARY KEY (v)")
    message = refusal(origin, target)
    assert "(v) must have the columns of the origin's (k), in any order" in message


def test_the_same_key_columns_in_another_order_are_fine(connection, make):
    origin = make("a", "x int, y int, z int, PRIMARY KEY (x, y, z)")
    target = make(
        "b",
        "x int, y int, z int, PRIMARY KEY ((z, y), x) WITH CLUSTERING ORDER BY (x DESC)",
    )
    plan = plan_copy(connection, origin, target)
    assert not plan.keys_agree
    assert plan.copy_columns == ("z", "y", "x")
    assert plan.diff_columns == ("x", "y", "z")
    assert (plan.group_size, plan.key_size) == (2, 3)


def test_frozen_collections_take_what_unfrozen_ones_hold_and_not_the_other_way(
    connection, refusal, make
):
    body = "k int PRIMARY KEY, l {0}list<int>{1}, s {0}set<int>{1}, m {0}map<int, int>{1}"
    open_table = make("a", body.format("", ""))
    frozen = make("b", body.format("frozen<", ">"))
    assert plan_copy(connection, open_table, frozen).left_unset == ()
    message = refusal(frozen, open_table)
    for column, kind in (("l", "list<int>"), ("s", "set<int>"), ("m", "map<int, int>")):
        assert (
            f"column {column} is frozen<{kind}> at the origin and {kind} at the target; "
            f"make the target's frozen<{kind}>"
        ) in message


def test_static_columns_and_counters_are_refused_by_name(refusal, make):
    statics = make("a", "k int, c int, s int STATIC, v int, PRIMARY KEY (k, c)")
    plain = make("b", "k int, c int, s int, v int, PRIMARY KEY (k, c)")
    counters = make("c", "k int PRIMARY KEY, n counter, m counter")
    more_counters = make("d", "k int PRIMARY KEY, n counter, m counter")
    assert f"{statics} has static columns (s), which are not there yet" in refusal(statics, plain)
    assert f"{statics} has static columns (s)" in refusal(plain, statics)
    message = refusal(counters, more_counters)
    assert f"{counters} has counters (m, n), which are not there yet" in message
    assert f"{more_counters} has counters (m, n)" in message


def test_types_of_ones_own_fit_by_their_fields_not_by_their_names(
    connection, keyspace, refusal, make
):
    for name, fields in (
        ("address", "street text, number int"),
        ("same", "street text, number int"),
        ("other", "street text, number bigint"),
        ("outer_a", "home frozen<address>, tags frozen<list<text>>"),
        ("outer_b", "home frozen<same>, tags frozen<list<text>>"),
        ("outer_c", "home frozen<other>, tags frozen<list<text>>"),
    ):
        connection.session.execute(f"CREATE TYPE {keyspace}.{name} ({fields})")
    body = "k int PRIMARY KEY, a {0}, f frozen<{0}>, l list<frozen<{0}>>, n frozen<{1}>"
    origin = make("a", body.format("address", "outer_a"))
    fits = make("b", body.format("same", "outer_b"))
    plan_copy(connection, origin, fits)
    message = refusal(origin, make("c", body.format("other", "outer_c")))
    assert message.count("column ") == 4
    assert "{street text, number int}" in message
    assert "{street text, number bigint}" in message


def test_grouping_by_an_unknown_column_is_refused_with_the_valid_ones(refusal, make):
    origin = make("a", "k int PRIMARY KEY, batchid text")
    target = make("b", "k int PRIMARY KEY, batchid text, more text")
    message = refusal(origin, target, group_writes_by=("batchid", "batch_id", "more"))
    assert f"group_writes_by names batch_id, more, which {origin} does not have" in message
    assert "valid are k, batchid" in message


def test_one_message_names_everything(refusal, make):
    origin = make("a", "k int, c int, s int STATIC, gone int, n int, PRIMARY KEY (k, c)")
    target = make("b", "k int, tenant int, s int, n text, PRIMARY KEY (k, tenant)")
    message = refusal(origin, target, group_writes_by=("nope",))
    for said in (
        "no column c",
        "no column gone",
        "column n is int at the origin and text",
        "key column tenant",
        "static columns (s)",
        "group_writes_by names nope",
    ):
        assert said in message


def test_columns_that_only_the_target_has_are_left_as_they_are(connection, reader, make):
    origin = make("a", "k int PRIMARY KEY, v int")
    target = make("b", "k int PRIMARY KEY, v int, note text, extra int")
    insert_rows(connection, origin, [{"k": 1, "v": 2}])
    insert_rows(connection, target, [{"k": 1, "v": 0, "note": "kept"}])
    assert set(plan_copy(connection, origin, target).left_unset) == {"note", "extra"}
    copy_table(connection, origin, target)
    assert rows_of(reader, target) == [{"extra": None, "k": 1, "note": "kept", "v": 2}]


def test_a_refused_migration_has_written_nothing(connection, reader, refusal, make):
    origin = make("a", "k int PRIMARY KEY, v int")
    target = make("b", "k int PRIMARY KEY, v text")
    insert_rows(connection, origin, [{"k": 1, "v": 2}])
    refusal(origin, target, truncate_target=True)
    assert rows_of(reader, target) == []


def test_one_table_under_two_stores_names_is_refused(refusal, make):
    table = make("a", "k int PRIMARY KEY")
    message = refusal(table, table)
    assert f"origin and target are one table, {table}" in message


def test_a_plans_fingerprint_changes_with_what_makes_copied_ranges_worthless(connection, make):
    body = "k int PRIMARY KEY, v int"
    origin, target = make("a", body), make("b", body)
    first = plan_copy(connection, origin, target)
    assert first.fingerprint == plan_copy(connection, origin, target, workers=2).fingerprint
    assert len(first.fingerprint) == 16
    assert first.fingerprint != plan_copy(connection, origin, target, token_ranges=8).fingerprint
    connection.session.execute(f"DROP TABLE {target}")
    make("b", body)
    assert first.fingerprint != plan_copy(connection, origin, target).fingerprint


@pytest.mark.parametrize(
    ("origin", "target", "fits"),
    [
        ("int", "int", True),
        ("ascii", "text", True),
        ("timeuuid", "uuid", True),
        ("text", "ascii", False),
        ("uuid", "timeuuid", False),
        ("list<int>", "frozen<list<int>>", True),
        ("frozen<list<int>>", "list<int>", False),
        ("list<ascii>", "list<text>", False),
        ("{a int}", "frozen<{a int}>", True),
        ("int", "bigint", False),
    ],
)
def test_a_type_fits_if_its_bytes_are_valid_and_mean_the_same(origin, target, fits):
    assert is_assignable(origin, target) is fits


def test_a_cluster_whose_ring_is_not_murmur3_is_refused(guarded_cassandra):
    port = guarded_cassandra.port
    settings = CassandraSettings(port=port, username="cassandra", password="cassandra")
    name = TableName("system", "local")
    with Connection(settings) as connection, pytest.raises(PreflightError) as refused:
        build_plan(Migration(Endpoint("a", name), Endpoint("b", name)), connection, connection)
    assert (
        str(refused.value).count(
            f"the cluster at 127.0.0.1 port {port} uses RandomPartitioner; "
            "token ranges need Murmur3Partitioner"
        )
        == 2
    )


def test_a_plan_can_be_handed_to_another_process(connection, make):
    import pickle

    plan = plan_copy(connection, make("a", "k int PRIMARY KEY"), make("b", "k int PRIMARY KEY"))
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    assert again.migration.ranges == declare(plan.origin.name, plan.target.name).ranges
