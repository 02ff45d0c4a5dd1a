"""What the tables do not allow is said before anything is written, all of it in one message."""

import pytest

from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import Endpoint, Guardrails, Migration
from migration_platform.errors import PreflightError
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.kinds import plan_between
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
    assert (
        f"{target} has no column odd (int): add it to the target, or name it in columns.rename "
        "or columns.skip"
    ) in message


def test_both_ways_out_of_a_missing_column_work(connection, make):
    origin = make("a", "k int PRIMARY KEY, completed_on timestamp, odd int")
    target = make("b", "k int PRIMARY KEY, completedon timestamp, more int")
    chosen = Columns(rename={"completed_on": "completedon"}, skip=("odd",))
    plan = plan_copy(connection, origin, target, columns=chosen)
    assert {source.target: source.origin for source in plan.rows.sources} == {
        "k": "k",
        "completedon": "completed_on",
    }
    assert plan.left_unset == ("more",)


def test_a_type_that_does_not_fit_is_named_with_the_one_that_would(refusal, make):
    origin = make("a", "k int PRIMARY KEY, n bigint, m map<text, int>, t text, u text")
    target = make("b", "k int PRIMARY KEY, n int, m map<text, bigint>, t ascii, u timestamp")
    message = refusal(origin, target)
    assert "column n is bigint at the origin and int at the target" in message
    assert "make the target's bigint" in message
    assert "column m is map<text, int> at the origin and map<text, bigint> at" in message
    assert "make the target's map<text, int>" in message
    assert "column t is text at the origin and ascii at the target" in message
    assert (
        "make the target's text or name TIMESTAMP_STRING_MILLIS or TIMESTAMP_STRING_FORMAT in "
        "columns.codecs"
    ) in message
    assert message.count("columns.codecs") == 1


def test_the_codec_that_is_hinted_is_enough(connection, refusal, make):
    origin = make("a", "k int PRIMARY KEY, n bigint, b blob")
    target = make("b", "k int PRIMARY KEY, n text, b text")
    message = refusal(origin, target)
    assert "or name BIGINT_STRING in columns.codecs" in message
    assert "or name STRING_BLOB in columns.codecs" in message
    half = refusal(origin, target, columns=Columns(codecs=("BIGINT_STRING",)))
    assert "column n " not in half
    assert "STRING_BLOB" in half
    chosen = Columns(codecs=("BIGINT_STRING", "STRING_BLOB"))
    plan_copy(connection, origin, target, columns=chosen)


def test_a_key_column_that_nothing_fills_is_named(connection, refusal, make):
    origin = make("a", "k int PRIMARY KEY, v int")
    target = make("b", "k int, tenant text, v int, PRIMARY KEY (tenant, k)")
    message = refusal(origin, target)
    assert f"nothing fills tenant of the primary key of {target}, which {origin}" in message
    assert "name it in columns.rename, columns.constants" in message
    plan_copy(connection, origin, target, columns=Columns(constants={"tenant": "t1"}))


def test_a_target_without_one_of_the_origins_key_columns_needs_that_to_be_said(
    connection, refusal, make
):
    origin = make("a", "k int, c int, v int, PRIMARY KEY (k, c)")
    target = make("b", "k int PRIMARY KEY, v int")
    message = refusal(origin, target)
    assert f"{target} has no column c (int)" in message
    plan = plan_copy(connection, origin, target, columns=Columns(skip=("c",)))
    # Rows that differ in nothing else would land on each other.
    assert plan.lost_keys == ("c",)
    assert (
        plan_copy(
            connection, origin, make("c", "k int, c int, v int, PRIMARY KEY (c, k)")
        ).lost_keys
        == ()
    )


def test_a_key_of_other_columns_is_allowed_and_tells_what_it_no_longer_keeps_apart(
    connection, make
):
    origin = make("a", "k int, v int, PRIMARY KEY (k)")
    target = make("b", "k int, v int, PRIMARY KEY (v)")
    plan = plan_copy(connection, origin, target)
    assert plan.lost_keys == ("k",)
    assert not plan.keys_agree
    assert not plan.tells_origin_token


def test_the_same_key_columns_in_another_order_are_fine(connection, make):
    origin = make("a", "x int, y int, z int, PRIMARY KEY (x, y, z)")
    target = make(
        "b",
        "x int, y int, z int, PRIMARY KEY ((z, y), x) WITH CLUSTERING ORDER BY (x DESC)",
    )
    plan = plan_copy(connection, origin, target)
    assert not plan.keys_agree
    assert plan.copy_leading == ("z", "y")
    assert plan.diff_leading == ("x", "z", "y")
    assert plan.tells_origin_token
    assert plan.lost_keys == ()


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
            f"column {column} is frozen<{kind}> at the origin and {kind} at the target "
            f"(an empty {kind.partition('<')[0]} would become null in a type that is not frozen); "
            f"make the target's frozen<{kind}>"
        ) in message


def test_static_columns_must_be_static_on_both_sides(connection, refusal, make):
    statics = make("a", "k int, c int, s int STATIC, v int, PRIMARY KEY (k, c)")
    plain = make("b", "k int, c int, s int, v int, PRIMARY KEY (k, c)")
    other_key = make("c", "k int, c int, s int STATIC, v int, PRIMARY KEY (c, k)")
    message = refusal(statics, plain)
    assert "column s is static at the origin, but s is regular at the target" in message
    assert "make both alike, or skip it with columns.skip" in message
    assert "column s is regular at the origin, but s is static at the target" in refusal(
        plain, statics
    )
    message = refusal(statics, other_key)
    assert (
        f"{other_key} has static columns, but its partition key is not the origin's (k): the "
        "static cells of several partitions would land on one; keep the partition key, or skip s"
    ) in message
    plan_copy(connection, statics, other_key, columns=Columns(skip=("s",)))
    layers = plan_copy(
        connection, statics, make("d", "k int, c int, s int STATIC, v int, PRIMARY KEY (k, c)")
    ).layers
    assert [layer.name for layer in layers] == ["rows", "statics"]


def test_counters_are_refused_with_what_counters_cannot_do(connection, refusal, make):
    counters = make("a", "k int, c int, n counter, m counter, PRIMARY KEY (k, c)")
    numbers = make("b", "k int, c int, n bigint, m bigint, PRIMARY KEY (k, c)")
    shorter = make("c", "k int PRIMARY KEY, n counter, m counter")
    again = make("d", "k int, c int, n counter, m counter, PRIMARY KEY (c, k)")
    assert plan_copy(connection, counters, again).has_counters
    message = refusal(counters, numbers)
    for column in "nm":
        assert f"column {column} is counter at the origin and bigint at the target" in message
    message = refusal(counters, shorter, columns=Columns(skip=("c",)))
    assert f"several rows of {counters} would land on one: keep the whole primary key" in message
    for options in ({"writetime": 5}, {"ttl": 5}, {"filter": Filter(writetime_from=1)}):
        message = refusal(counters, again, **options)
        assert "has counters, whose writetimes and TTLs cannot be chosen" in message
    message = refusal(
        counters, again, columns=Columns(constants={"n": 5}), filter=Filter(where="c = 1")
    )
    assert "has counters, which only counters can fill" in message


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
    assert message.count(" at the origin and ") == 4
    assert "{street text, number int}" in message
    assert "{street text, number bigint}" in message


def test_grouping_by_an_unknown_column_is_refused_with_the_valid_ones(refusal, make):
    origin = make("a", "k int PRIMARY KEY, batchid text")
    target = make("b", "k int PRIMARY KEY, batchid text, more text")
    message = refusal(origin, target, group_writes_by=("batchid", "batch_id", "moore"))
    assert f"group_writes_by names batch_id, moore, which {target} does not have" in message
    assert "valid are k, batchid, more" in message


def test_every_name_that_a_declaration_uses_must_be_there(refusal, make):
    origin = make("a", "k int PRIMARY KEY, v int, j text, m map<text, int>")
    target = make("b", "k int PRIMARY KEY, v int, j text, m map<text, int>")
    message = refusal(
        origin,
        target,
        columns=Columns(
            rename={"r1": "r2"},
            skip=("s1",),
            constants={"c1": 1},
            key_defaults={"d1": 1, "v": 1},
            explode_map=ExplodeMap("e1", "e2", "e3"),
            extract_json=ExtractJson("x1", {"p": "x2"}),
        ),
        filter=Filter(column=ColumnFilter("f1", "")),
    )
    valid_at_origin = f"which {origin} does not have; valid are k, j, m, v"
    valid_at_target = f"which {target} does not have; valid are k, j, m, v"
    assert f"columns.rename names r1, {valid_at_origin}" in message
    assert f"columns.rename names r2, {valid_at_target}" in message
    assert f"columns.skip names s1, {valid_at_origin}" in message
    assert f"columns.constants names c1, {valid_at_target}" in message
    assert f"columns.key_defaults names d1, {valid_at_target}" in message
    assert "columns.key_defaults names v, which is no key column" in message
    assert f"columns.explode_map.column names e1, {valid_at_origin}" in message
    assert f"columns.explode_map names e2, e3, {valid_at_target}" in message
    assert f"columns.extract_json.column names x1, {valid_at_origin}" in message
    assert f"columns.extract_json names x2, {valid_at_target}" in message
    assert f"filter.column names f1, {valid_at_origin}" in message


def test_two_columns_on_one_are_refused(refusal, make):
    origin = make("a", "k int PRIMARY KEY, v int, w int")
    target = make("b", "k int PRIMARY KEY, v int")
    message = refusal(origin, target, columns=Columns(rename={"w": "v"}))
    assert f"two columns of {origin} would land on v; skip one of them or rename it" in message


def test_constants_and_defaults_must_fit_their_columns(refusal, make):
    origin = make("a", "k int PRIMARY KEY, v int")
    target = make("b", "k int, d timestamp, n int, v int, PRIMARY KEY (k, d)")
    message = refusal(
        origin,
        target,
        columns=Columns(constants={"d": "yesterday", "n": 2**40}, key_defaults={"k": "x"}),
    )
    assert "columns.constants.d does not fit timestamp: " in message
    assert "columns.constants.n does not fit int: " in message
    assert "columns.key_defaults.k does not fit int: " in message


def test_only_a_map_can_be_exploded_into_a_key_and_only_text_can_be_json(refusal, make):
    origin = make("a", "k int PRIMARY KEY, n int, m map<text, int>")
    target = make("b", "k int PRIMARY KEY, n int, name text, amount int")
    message = refusal(
        origin,
        target,
        columns=Columns(
            explode_map=ExplodeMap("n", "name", "amount"), extract_json=ExtractJson("m", {"p": "n"})
        ),
    )
    assert "columns.explode_map.column is n, of the type int; it must be a map" in message
    assert (
        "columns.extract_json.column is m, of the type map<text, int>; it must be a text" in message
    )
    message = refusal(
        origin, target, columns=Columns(explode_map=ExplodeMap("m", "name", "amount"))
    )
    assert f"columns.explode_map.key is name, which is no key column of {target}" in message


def test_a_window_of_tokens_needs_a_target_that_tells_them(connection, refusal, make):
    origin = make("a", "k int PRIMARY KEY, v int")
    target = make("b", "k int, v int, PRIMARY KEY (v)")
    for chosen in (Filter(token_max=5), Filter(token_min=5), Filter(coverage_percent=99)):
        message = refusal(origin, target, filter=chosen)
        assert f"the key of {target} does not tell the origin's token" in message
        assert "set diff.mode to origin_only" in message
        plan_copy(connection, origin, target, filter=chosen, diff_mode="origin_only")


def test_one_message_names_everything(refusal, make):
    origin = make("a", "k int, c int, s int STATIC, gone int, n int, PRIMARY KEY (k, c)")
    target = make("b", "k int, tenant int, s int, n text, PRIMARY KEY (k, tenant)")
    message = refusal(origin, target, group_writes_by=("nope",))
    for said in (
        "no column c",
        "no column gone",
        "column n is int at the origin and text",
        "nothing fills tenant of the primary key",
        "column s is static at the origin, but s is regular",
        "group_writes_by names nope",
    ):
        assert said in message


def test_columns_that_only_the_target_has_are_left_as_they_are(connection, reader, make):
    origin = make("a", "k int PRIMARY KEY, v int")
    target = make("b", "k int PRIMARY KEY, v int, note text, extra int")
    insert_rows(connection, origin, [{"k": 1, "v": 2}])
    insert_rows(connection, target, [{"k": 1, "v": 0, "note": "kept"}], "USING TIMESTAMP 1")
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
    for options in (
        {"token_ranges": 8},
        {"writetime": "now"},
        {"ttl": "none"},
        {"collisions": "newest"},
        {"filter": Filter(where="v > 1")},
        {"filter": Filter(coverage_percent=50)},
        {"guardrails": Guardrails(5, "skip")},
        {"columns": Columns(skip=("v",))},
        {"columns": Columns(constants={"v": 1})},
    ):
        other = plan_copy(connection, origin, target, **options)
        assert first.fingerprint != other.fingerprint, options
    told = plan_copy(connection, origin, target, guardrails=Guardrails(5, "report"))
    assert first.fingerprint == told.fingerprint
    connection.session.execute(f"DROP TABLE {target}")
    make("b", body)
    assert first.fingerprint != plan_copy(connection, origin, target).fingerprint


def test_a_cluster_whose_ring_is_not_murmur3_is_refused(guarded_cassandra):
    port = guarded_cassandra.port
    settings = CassandraSettings(port=port, username="cassandra", password="cassandra")
    name = TableName("system", "local")
    with Connection(settings) as connection, pytest.raises(PreflightError) as refused:
        plan_between(Migration(Endpoint("a", name), Endpoint("b", name)), connection, connection)
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
