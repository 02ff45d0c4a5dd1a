"""A declaration that is wrong is refused in one message; any name is a name and nothing else."""

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.columns import CODECS, Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.migration import (
    CONSISTENCY_LEVELS,
    Endpoint,
    Guardrails,
    Migration,
)
from migration_platform.errors import DeclarationError
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


def why_refused(**options) -> str:
    with pytest.raises(DeclarationError) as refused:
        declare(**options)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_two_tables_are_a_complete_migration():
    migration = declare()
    assert migration.token_ranges == len(migration.ranges) == 64
    assert (migration.ranges[0].start, migration.ranges[-1].end) == (MIN_TOKEN, MAX_TOKEN)
    assert migration.origin.consistency == migration.target.consistency == "LOCAL_QUORUM"
    assert (migration.writetime, migration.ttl, migration.diff_mode) == ("cell", "cell", "two_way")
    assert (migration.columns, migration.filter) == (Columns(), Filter())
    assert (migration.guardrails, migration.collisions, migration.repair) == (None, "refuse", ())
    assert migration.name == "k.b"


def test_a_migration_does_not_change():
    with pytest.raises(FrozenInstanceError):
        declare().token_ranges = 3  # type: ignore[misc]


def test_every_wrong_value_is_named_in_one_message():
    with pytest.raises(DeclarationError) as refused:
        Migration(
            Endpoint("one", A, consistency="MOST", rows_per_second=0, fetch_size=0),
            Endpoint("one", A, consistency="ANY", rows_per_second=-1),
            token_ranges=1025,
            workers=0,
            writetime="max",
            ttl=0,
            diff_mode="both",
            retry_seconds=-1,
        )
    message = str(refused.value)
    for said in [
        "token_ranges is 1025; valid are 1 to 1024",
        "workers is 0; valid are 1 to 256",
        "retry_seconds is -1; valid are 0 to 86400",
        "origin.rows_per_second is 0; valid are 1 to ",
        "target.rows_per_second is -1; valid are 1 to ",
        "origin.fetch_size is 0; valid are 1 to 100000",
        "origin.consistency is 'MOST'; valid are LOCAL_QUORUM, ",
        "target.consistency is 'ANY'; valid are LOCAL_QUORUM, ",
        "diff.mode is 'both'; valid are two_way, origin_only",
        "writetime is 'max'; valid are cell, row_max, now, or microseconds since 1970",
        "ttl is 0; valid are cell, row_max, none, or 1 to 630720000 seconds",
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
        ("writetime", True),
        ("writetime", -1),
        ("writetime", 1_770_000_000_000_000_000),
        pytest.param("writetime", 10**5000, id="more digits than Python writes"),
        ("writetime", ""),
        ("writetime", "NOW"),
        ("writetime", 1.5e15),
        ("writetime", None),
        ("ttl", "now"),
        ("ttl", 630_720_001),
        ("ttl", False),
        ("ttl", None),
        ("writetime_increment_by", -1),
        ("writetime_increment_by", True),
        ("writetime_increment_by", "5"),
        ("token_ranges", "64"),
        ("token_ranges", True),
        ("workers", 1.5),
        ("retry_seconds", "90"),
        ("truncate_target", "no"),
        ("group_writes_by", "batchid"),
        ("group_writes_by", ("a", "a")),
        ("batch_across_partitions", "ten"),
        ("collisions", "latest"),
        ("collisions", None),
        ("repair", "counters"),
        ("compare_writetime", 1),
        ("columns", None),
        ("filter", "status = 1"),
        ("guardrails", 100),
        ("diff_mode", ""),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(option, value):
    assert option.replace("diff_mode", "mode") in why_refused(**{option: value})


def test_rows_that_are_written_one_by_one_share_no_request():
    message = why_refused(batch_across_partitions=True, group_writes_by=())
    assert "group_writes_by is empty, which writes each row by itself; leave one" in message


@pytest.mark.parametrize("level", CONSISTENCY_LEVELS)
def test_every_consistency_level_that_is_named_as_valid_is_valid(level):
    Migration(Endpoint("a", A, consistency=level), Endpoint("a", B, consistency=level))


def test_the_same_name_in_two_stores_is_no_mistake():
    assert Migration(Endpoint("one", A), Endpoint("two", A)).name == "k.a"


# -- writetimes, transformations and filters ---------------------------------------------------


@pytest.mark.parametrize("writetime", ["cell", "row_max", "now", 1, 1_770_000_000_000_000])
@pytest.mark.parametrize("ttl", ["cell", "row_max", "none", 1, 630_720_000])
def test_every_writetime_goes_with_every_ttl(writetime, ttl):
    assert declare(writetime=writetime, ttl=ttl).ttl == ttl


def test_what_does_nothing_with_new_writetimes_is_refused():
    message = why_refused(writetime="now", writetime_increment_by=1, compare_writetime=True)
    assert "writetime_increment_by does nothing with writetime: now; leave one out" in message
    assert "diff.compare_writetime needs writetimes that are kept" in message


def test_repairs_that_cannot_be_are_refused():
    message = why_refused(repair=("all",), ignore_newer_than_seconds=0, dead_letters_max_rows=-1)
    assert "diff.repair names 'all'; valid are missing, mismatched, extra, counters" in message
    assert "diff.ignore_newer_than_seconds is 0; valid are 1 to 86400" in message
    assert "dead_letters.max_rows is -1; valid are 0 to 100000" in message
    assert "diff.repair_writetime is 'then'; valid are origin, now" in why_refused(
        repair_writetime="then"
    )
    assert "diff.repair_writetime does nothing without diff.repair" in why_refused(
        repair_writetime="now"
    )
    assert "diff.mode origin_only does not look for extra rows" in why_refused(
        repair=("extra",), diff_mode="origin_only"
    )


@pytest.mark.parametrize("name", ["", "a b", "x" * 49, 'a"; DROP KEYSPACE b'])
def test_a_tracking_keyspace_is_a_plain_name(name):
    assert "tracking_keyspace is " in why_refused(tracking_keyspace=name)


@pytest.mark.parametrize(
    "columns",
    [
        Columns(rename={"a": "b", "b": "a"}),
        Columns(skip=("a",), constants={"a": "a constant in place of the origin's column"}),
        Columns(skip=("a",), rename={"b": "a"}, key_defaults={"a": ""}),
        Columns(rename={"a": "b"}, constants={"a": False}, key_defaults={"b": 0}),
        Columns(constants={"version": 3, "tags": ["x"], "size": 1.5, "more": {"a": None}}),
        Columns(codecs=tuple(name for name in CODECS if name != "TIMESTAMP_STRING_MILLIS")),
        Columns(
            codecs=("TIMESTAMP_STRING_FORMAT",),
            timestamp_format="yyyy-MM-dd'T'HH:mm:ss.SSSXXX 'o''clock'",
            timestamp_zone="Europe/Berlin",
        ),
        Columns(explode_map=ExplodeMap("scores", "subject", "score")),
        Columns(explode_map=ExplodeMap("scores", "scores", "score")),
        Columns(extract_json=ExtractJson("payload", {"name": "full_name", "a b": "c"})),
        Columns(rename={"payload": "raw"}, extract_json=ExtractJson("payload", {"n": "name"})),
        Columns(rename={HOSTILE[0]: HOSTILE[1]}, skip=tuple(HOSTILE[2:])),
    ],
)
def test_transformations_that_fit_together_are_accepted(columns):
    assert declare(columns=columns).columns is columns


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (Columns(rename={"a": "c", "b": "c"}), "two things fill the column c: rename of a, rename"),
        (Columns(rename={"a": "c"}, constants={"c": 1}), "rename of a, constants; keep one"),
        (Columns(rename={"a": "a"}), "columns.rename turns a into itself; leave it out"),
        (Columns(rename={"a": "b"}, skip=("a",)), "columns.skip and columns.rename both name a"),
        (Columns(skip=("a",), key_defaults={"a": ""}), "use columns.constants"),
        (Columns(constants={"a": 1}, key_defaults={"a": 2}), "a constant is never null"),
        (Columns(rename={"a": "b"}, key_defaults={"a": 2}), "turns into b; use the target's name"),
        (Columns(codecs=CODECS), "names both TIMESTAMP_STRING_MILLIS and TIMESTAMP_STRING_FORMAT"),
        (Columns(timestamp_zone="Asia/Tokyo"), "nothing without the codec TIMESTAMP_STRING_FORMAT"),
        (Columns(timestamp_format="yyyy"), "nothing without the codec TIMESTAMP_STRING_FORMAT"),
        (
            Columns(skip=("m",), explode_map=ExplodeMap("m", "k", "v")),
            "columns.skip and columns.explode_map both name m; take it out of skip",
        ),
        (
            Columns(rename={"m": "x"}, explode_map=ExplodeMap("m", "k", "v")),
            "columns.rename and columns.explode_map both name m; take it out of rename",
        ),
        (
            Columns(explode_map=ExplodeMap("m", "k", "k")),
            "two things fill the column k: explode_map.key, explode_map.value",
        ),
        (
            Columns(skip=("j",), extract_json=ExtractJson("j", {"a": "b"})),
            "columns.skip and columns.extract_json both name j; take it out of skip",
        ),
        (
            Columns(constants={"b": 1}, extract_json=ExtractJson("j", {"a": "b", "c": "b"})),
            "two things fill the column b: constants, extract_json, extract_json",
        ),
        (
            Columns(
                explode_map=ExplodeMap("j", "k", "v"), extract_json=ExtractJson("j", {"a": "b"})
            ),
            "a map is no JSON text",
        ),
        (
            Columns(
                explode_map=ExplodeMap("m", "k", "v"),
                extract_json=ExtractJson("j", {"a": "b"}, exclusive=True),
            ),
            "exclusive leaves out what columns.explode_map fills",
        ),
        (Columns(extract_json=ExtractJson("j", {})), "properties is empty; name property: column"),
    ],
)
def test_transformations_that_contradict_each_other_are_refused_with_the_way_out(columns, said):
    assert said in why_refused(columns=columns)


def test_what_is_no_transformation_at_all_is_refused_by_name_in_one_message():
    message = why_refused(
        columns=Columns(
            rename={"": "a", "b": "", "c": None},  # type: ignore[dict-item]
            skip=("", 5, "d", "d"),  # type: ignore[arg-type]
            constants={"e": None, 7: 1},  # type: ignore[dict-item]
            codecs=("INT_STRING", "int_string", None),  # type: ignore[arg-type]
            timestamp_format="",
            timestamp_zone="Mars/Olympus",
            explode_map=ExplodeMap("", None, 3),  # type: ignore[arg-type]
            extract_json=ExtractJson("", [], exclusive="yes", overwrite=1),  # type: ignore[arg-type]
            key_defaults={"f": None},
        )
    )
    for said in [
        "columns.rename holds '', which is no name",
        "columns.rename.b is '', which is no name",
        "columns.rename.c is None, which is no name",
        "columns.skip holds '', which is no name",
        "columns.skip holds 5, which is no name",
        "columns.skip names d more than once; once is enough",
        "columns.constants.e is null, which writes nothing; give a value",
        "columns.constants holds 7, which is no name",
        "columns.codecs holds None, which is no name",
        "columns.timestamp_format is ''; write a pattern such as yyyyMMddHHmmss",
        "columns.timestamp_zone is 'Mars/Olympus'; name a zone of the IANA database",
        "columns.explode_map.column is ''; name a column",
        "columns.explode_map.key is None; name a column",
        "columns.explode_map.value is 3; name a column",
        "columns.extract_json.column is ''; name a column",
        "columns.extract_json.properties is []; it must be a block of name: value",
        "columns.extract_json.exclusive is 'yes'; valid are true, false",
        "columns.extract_json.overwrite is 1; valid are true, false",
        "columns.key_defaults.f is null, which writes nothing; give a value",
    ]:
        assert said in message


def test_an_unknown_codec_is_named_beside_the_valid_ones():
    assert "columns.codecs names 'int_string'; valid are INT_STRING, DOUBLE_STRING" in why_refused(
        columns=Columns(codecs=("int_string",))
    )


@pytest.mark.parametrize(
    "zone", ["", "../../etc/passwd", "/etc/passwd", "Europe", "x" * 5000, "\0", 2]
)
def test_a_zone_that_is_none_is_refused(zone):
    columns = Columns(codecs=("TIMESTAMP_STRING_FORMAT",), timestamp_zone=zone)
    assert "name a zone of the IANA database" in why_refused(columns=columns)


@pytest.mark.parametrize("pattern", ["yyyy-MM-ddTHH:mm", "yyyy 'o", "{yyyy}", "yyyy bb", " ", None])
def test_a_pattern_that_is_none_is_refused(pattern):
    columns = Columns(codecs=("TIMESTAMP_STRING_FORMAT",), timestamp_format=pattern)
    assert "columns.timestamp_format is " in why_refused(columns=columns)


@pytest.mark.parametrize(
    "where",
    [
        "status = 'active'",
        "status = 'active' AND amount > 0",
        "note = 'ALLOW FILTERING; -- /* ? :x it''s (' and b in (1, 2)",
        '"Limit" = 5 AND "a;b" = 1',
        "body = $$it's a \" quote$$",
        "tags CONTAINS 'a' AND m['k'] = 'v'",
        "m = {'a': 1} AND u = {x: 1, y: {z: 2}} AND l = ['a']",
        "total = -5 AND d = 1e-5",
        "orders > 1 AND tokens = 2 AND limits = 3",
    ],
)
def test_a_condition_is_accepted_whatever_its_quoted_text_holds(where):
    assert declare(filter=Filter(where=where)).filter.where == where


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("a = 1; DROP TABLE k.b", "';'"),
        ("a = 1 ALLOW FILTERING", "'ALLOW FILTERING'"),
        ("a = 1 allow \n filtering", "'allow "),
        ("a='x'limit 5", "'limit'"),
        ("a = 1 PER PARTITION LIMIT 1", "'PER PARTITION'"),
        ("a = 1 ORDER BY b", "'ORDER BY'"),
        ("a = 1 GROUP BY b", "'GROUP BY'"),
        ("a = 1 OR b = 2", "'OR'"),
        ("a = 1 -- b", "'--'"),
        ("a = 1 // b", "'//'"),
        ("a = 1 /* ' */ AND b = ' '", "'/*'"),
        ("a = 'it's'", '"\'"'),
        ("a = 'open", '"\'"'),
        ('"open = 1', "'\"'"),
        ("a = $$open", "'$'"),
        ("a = ?", "'?'"),
        ("a = :b", "'= :'"),
        ("a IN :b", "'IN :'"),
        (":a = 1", "':'"),
        ("WHERE a = 1", "'WHERE'"),
        ("AND a = 1", "'AND'"),
        ("a = 1 AND ", "'AND'"),
        ("a = 1) AND (b = 2", "closes ')'"),
        ("a IN (1", "does not close '('"),
        ("m['k') = 1", "closes ')'"),
        ("token(a) > 5", "filter.token_min"),
        ("", "empty; leave it out"),
        (" \n", "empty; leave it out"),
        (5, "filter.where is 5"),
        (["a = 1"], "filter.where is ['a = 1']"),
    ],
)
def test_a_condition_that_would_change_the_query_around_it_is_refused(where, found):
    message = why_refused(filter=Filter(where=where))
    assert "filter.where" in message
    assert found in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token_min": -(2**63) - 1}, "filter.token_min is -9223372036854775809; valid are -92"),
        ({"token_max": 2**63}, "filter.token_max is 9223372036854775808; valid are -92"),
        ({"token_min": 10**5000}, "filter.token_min is a number of more than 40 digits"),
        ({"token_min": None}, "filter.token_min is None"),
        ({"token_min": 5, "token_max": 4}, "token_min is beyond filter.token_max: no row"),
        ({"coverage_percent": 0}, "filter.coverage_percent is 0; valid are 1 to 100"),
        ({"coverage_percent": 101}, "filter.coverage_percent is 101"),
        ({"coverage_percent": True}, "filter.coverage_percent is True"),
        ({"coverage_percent": 50.0}, "filter.coverage_percent is 50.0"),
        ({"writetime_from": -1}, "filter.writetime_from is -1; valid are 0 to"),
        ({"writetime_to": "2026"}, "filter.writetime_to is '2026'"),
        ({"writetime_to": False}, "filter.writetime_to is False"),
        ({"writetime_from": 2, "writetime_to": 1}, "is after filter.writetime_to: no row would"),
        ({"column": "status"}, "filter.column is 'status'; it must be name and value"),
        ({"column": ColumnFilter("", "a")}, "filter.column.name is ''; name a column"),
        ({"column": ColumnFilter("a", 5)}, "filter.column.value is 5; it must be text"),  # type: ignore[arg-type]
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(options, said):
    assert said in why_refused(filter=Filter(**options))


def test_a_filter_of_one_token_or_one_microsecond_is_accepted():
    assert declare(filter=Filter(token_min=7, token_max=7))
    assert declare(filter=Filter(writetime_from=0, writetime_to=0))


@pytest.mark.parametrize(
    ("guardrails", "said"),
    [
        (Guardrails(0), "guardrails.max_column_kb is 0; valid are 1 to 2000000"),
        (Guardrails(True), "guardrails.max_column_kb is True"),
        (Guardrails("10"), "guardrails.max_column_kb is '10'"),  # type: ignore[arg-type]
        (Guardrails(1, "drop"), "guardrails.action is 'drop'; valid are report, skip, fail"),
        (Guardrails(1, None), "guardrails.action is None"),  # type: ignore[arg-type]
    ],
)
def test_guardrails_that_guard_nothing_are_refused(guardrails, said):
    assert said in why_refused(guardrails=guardrails)


FOOLISH = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.dates(),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.one_of(st.booleans(), st.text(max_size=3)), st.none() | st.text(max_size=3)),
)
WHOLE: list[Any] = [
    Endpoint("one", A),
    Columns(),
    ExplodeMap("m", "k", "v"),
    ExtractJson("j", {"a": "b"}),
    Filter(),
    ColumnFilter("a", "b"),
    Guardrails(1),
    declare(),
]


@given(
    st.sampled_from([(whole, f.name) for whole in WHOLE for f in fields(whole) if f.init]), FOOLISH
)
def test_no_value_of_any_kind_gets_anything_but_acceptance_or_one_sentence(place, value):
    message = message_of(*place, value)
    assert message is None or ("\n" not in message and len(message) < 2000)


def message_of(whole: Any, name: str, value: object) -> str | None:
    """Put a value where it may not belong; gives the refusal."""
    try:
        part = replace(whole, **{name: value})
        if isinstance(part, Endpoint):
            Migration(part, Endpoint("two", B))
        elif isinstance(part, (ExplodeMap, ExtractJson)):
            declare(
                columns=Columns(**{"explode_map" if "key" in vars(part) else "extract_json": part})
            )
        elif isinstance(part, ColumnFilter):
            declare(filter=Filter(column=part))
        elif not isinstance(part, Migration):
            declare(**{type(part).__name__.lower(): part})
    except DeclarationError as refused:
        return str(refused)
    return None


# -- names -------------------------------------------------------------------------------------


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
