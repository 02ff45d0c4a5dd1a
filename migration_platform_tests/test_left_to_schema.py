"""What a declaration leaves to the tables' schemas is decided once, when the plan is made."""

import hashlib
import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.declaration.filters import ColumnFilter, Filter
from migration_platform.declaration.times import RowMax
from migration_platform.errors import DeclarationError, PermanentError, PreflightError
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget
from migration_platform.stores.kinds import describe_fidelity
from migration_platform_tests.cells import read_cells
from migration_platform_tests.comparing import compare, found
from migration_platform_tests.tables import (
    copy_table,
    create_table,
    declare,
    insert_rows,
    plan_copy,
    rows_of,
)

WRITTEN = 1_700_000_000_000_000
SKIP = Columns(unmatched="skip")
MATCH = (0, 0, 0)


@pytest.fixture
def make(connection, keyspace):
    return lambda name, body: create_table(connection, keyspace, name, body)


# -- columns that only the origin has --------------------------------------------------------------

LEFT_OUT = {
    "a value": ("k int PRIMARY KEY, v int, x int", "k int PRIMARY KEY, v int", SKIP, ("x",)),
    "a static cell": (
        "k int, c int, s int STATIC, v int, PRIMARY KEY (k, c)",
        "k int, c int, v int, PRIMARY KEY (k, c)",
        SKIP,
        ("s",),
    ),
    "a clustering column": (
        "k int, c int, d int, v int, PRIMARY KEY (k, c, d)",
        "k int, c int, v int, PRIMARY KEY (k, c)",
        SKIP,
        ("d",),
    ),
    "beside what only the target has": (
        "k int PRIMARY KEY, v int, x int",
        "k int PRIMARY KEY, v int, y int",
        SKIP,
        ("x",),
    ),
    "beside one that is renamed and one that is skipped": (
        "k int PRIMARY KEY, a int, b int, x set<int>",
        "k int PRIMARY KEY, v int",
        Columns(rename={"a": "v"}, skip=("b",), unmatched="skip"),
        ("x",),
    ),
    "beside a JSON and a map that become columns": (
        "k int, j text, m map<int, int>, x int, PRIMARY KEY (k)",
        "k int, mk int, mv int, mail text, PRIMARY KEY (k, mk)",
        Columns(
            explode_map=ExplodeMap("m", "mk", "mv"),
            extract_json=ExtractJson("j", {"mail": "mail"}),
            unmatched="skip",
        ),
        ("x",),
    ),
    "none": ("k int PRIMARY KEY, v int", "k int PRIMARY KEY, v int", SKIP, ()),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_columns_that_only_the_origin_has_are_refused_or_left_out_and_named(connection, make, case):
    body, there, columns, left_out = LEFT_OUT[case]
    origin, target = make("a", body), make("b", there)
    plan = plan_copy(connection, origin, target, columns=columns)
    assert plan.left_out == left_out
    told = {line.subject: line for line in describe_fidelity(plan)}
    for name in left_out:
        assert "the target has no such column" in told[name].values
        assert not told[name].exact
    if left_out:
        strict = replace(columns, unmatched="refuse")
        with pytest.raises(PreflightError) as refused:
            plan_copy(connection, origin, target, columns=strict)
        assert all(f"has no column {name} (" in str(refused.value) for name in left_out)


STILL_REFUSED = {
    "a key column that nothing fills": (
        "k int PRIMARY KEY, v int, x int",
        "k int, y int, v int, PRIMARY KEY (k, y)",
        {},
        "nothing fills y of the primary key",
    ),
    "a renaming to what the target lacks": (
        "k int PRIMARY KEY, v int, x int",
        "k int PRIMARY KEY, v int",
        {"rename": {"x": "z"}},
        "columns.rename names z, which",
    ),
    "fields of a type that the target's lacks": (
        "k int PRIMARY KEY, u frozen<tuple<int, int>>",
        "k int PRIMARY KEY, u frozen<tuple<int>>",
        {},
        "column u is ",
    ),
}


@pytest.mark.parametrize("case", STILL_REFUSED)
def test_what_is_more_than_a_column_too_many_is_refused_as_ever(connection, make, case):
    body, there, columns, message = STILL_REFUSED[case]
    origin, target = make("a", body), make("b", there)
    with pytest.raises(PreflightError, match=message):
        plan_copy(connection, origin, target, columns=Columns(**columns, unmatched="skip"))


def test_a_field_that_the_targets_type_lacks_is_refused_as_ever(connection, make, keyspace):
    connection.session.execute(f"CREATE TYPE {keyspace}.two (a int, b int)", timeout=60)
    connection.session.execute(f"CREATE TYPE {keyspace}.one (a int)", timeout=60)
    origin = make("a", "k int PRIMARY KEY, u frozen<two>")
    target = make("b", "k int PRIMARY KEY, u frozen<one>")
    with pytest.raises(PreflightError, match="column u is "):
        plan_copy(connection, origin, target, columns=SKIP)


def test_rows_arrive_without_what_only_the_origin_has_and_are_filtered_by_it(
    connection, reader, make
):
    origin = make("a", "k int PRIMARY KEY, v int, x text")
    target = make("b", "k int PRIMARY KEY, v int, y int")
    rows = [{"k": k, "v": k, "x": "drop" if k % 2 else "keep"} for k in range(10)]
    insert_rows(connection, origin, rows)
    reader.execute(f"INSERT INTO {target} (k, y) VALUES (0, 7)")
    options = {"columns": SKIP, "filter": Filter(column=ColumnFilter("x", "drop"))}
    assert copy_table(connection, origin, target, **options).written == 5
    assert rows_of(reader, target) == [
        {"k": k, "v": k, "y": None if k else 7} for k in range(0, 10, 2)
    ]
    plan = plan_copy(connection, origin, target, **options)
    assert found(compare(connection, plan)) == MATCH


def test_a_key_column_that_is_left_out_makes_rows_collide(connection, make):
    origin = make("a", "k int, c int, v int, PRIMARY KEY (k, c)")
    target = make("b", "k int, v int, PRIMARY KEY (k)")
    assert plan_copy(connection, origin, target, columns=SKIP).lost_keys == ("c",)


def test_the_newest_of_a_row_is_also_that_of_a_column_that_is_left_out(connection, reader, make):
    origin = make("a", "k int PRIMARY KEY, v int, x int, gone int")
    target = make("b", "k int PRIMARY KEY, v int")
    for column, after in (("v", 1), ("x", 5), ("gone", 9)):
        reader.execute(
            f"UPDATE {origin} USING TIMESTAMP {WRITTEN + after} SET {column} = 1 WHERE k = 1"
        )
    columns = Columns(unmatched="skip", skip=("gone",))
    for options, after in (
        ({}, 1),
        ({"writetime": "row_max"}, 5),
        ({"writetime": "row_max", "row_max": RowMax(writetime_columns=("x",))}, 5),
        ({"writetime": "row_max", "row_max": RowMax(writetime_columns=("v",))}, 1),
    ):
        reader.execute(f"TRUNCATE {target}")
        copy_table(connection, origin, target, columns=columns, **options)
        (row,) = reader.execute(f"SELECT writetime(v) AS w FROM {target}")
        assert row["w"] == WRITTEN + after
    by_time = {"filter": Filter(writetime_from=WRITTEN + 5), "columns": columns}
    assert copy_table(connection, origin, target, **by_time).written == 1


def test_attributes_with_their_default_change_no_fingerprint(connection, make):
    plan = plan_copy(
        connection,
        make("a", "k int PRIMARY KEY, v int"),
        make("b", "k int PRIMARY KEY, v int"),
    )
    filtered = dict.fromkeys(("where", "writetime_from", "writetime_to", "column"))
    content = {
        "origin": ["a", str(plan.origin.name), plan.origin.table_id],
        "target": ["b", str(plan.target.name), plan.target.table_id],
        "columns": [["k", "column", "k", ""], ["v", "column", "v", ""]],
        "declared": {
            **{"rename": {}, "skip": (), "constants": {}, "codecs": (), "key_defaults": {}},
            **{"timestamp_format": "yyyyMMddHHmmss", "timestamp_zone": "UTC"},
            **{"explode_map": None, "extract_json": None},
        },
        "filter": {
            **filtered,
            **{"token_min": -(2**63), "token_max": 2**63 - 1, "coverage_percent": 100},
        },
        **{"skips": None, "collisions": "refuse", "token_ranges": 4},
        **{"writetime": "cell", "writetime_increment_by": 0, "ttl": "cell"},
        "row_max": {
            **{"writetime_columns": (), "ttl_columns": (), "collections": True},
            "expiring_cells_only": False,
        },
    }
    text = json.dumps(content, sort_keys=True, default=str)
    assert plan.fingerprint == hashlib.sha256(text.encode()).hexdigest()[:16]


# -- null in a column that is new in the key -------------------------------------------------------

BY_TYPE = Columns(key_defaults_by_type={"text": "", "timestamp": 86_400_000})
DAY = datetime(1970, 1, 2)


def test_null_in_a_new_key_column_becomes_what_its_type_says(connection, reader, make):
    origin = make("a", "id text PRIMARY KEY, city text, at timestamp, n int, v int")
    target = make("b", "id text, city text, at timestamp, v int, PRIMARY KEY (id, city, at)")
    insert_rows(
        connection,
        origin,
        [
            {"id": "a", "city": "Ulm", "at": datetime(2024, 1, 1, tzinfo=UTC), "v": 1},
            {"id": "b", "v": 2},
            {"id": "c", "city": "Ulm"},
        ],
    )
    columns = Columns(**{**vars(BY_TYPE), "unmatched": "skip"})
    plan = plan_copy(connection, origin, target, columns=columns)
    # What is key at the origin, too, is never null: the tokens agree, and nothing is scanned twice.
    assert plan.keys_agree
    assert copy_table(connection, origin, target, columns=columns).written == 3
    assert {(r["id"], r["city"], r["at"], r["v"]) for r in rows_of(reader, target)} == {
        ("a", "Ulm", datetime(2024, 1, 1), 1),
        ("b", "", DAY, 2),
        ("c", "Ulm", DAY, None),
    }
    assert found(compare(connection, plan)) == MATCH
    reader.execute(f"DELETE FROM {target} WHERE id = 'b'")
    assert found(compare(connection, plan)) == (1, 0, 0)


DEFAULTS = {
    "a column named in key_defaults has its own": (
        Columns(**{**vars(BY_TYPE), "key_defaults": {"city": "none"}}),
        "city text",
        "none",
    ),
    "a property of JSON that is absent": (
        Columns(**{**vars(BY_TYPE), "extract_json": ExtractJson("city", {"place": "place"})}),
        "place text, city text",
        "",
    ),
    "another type": (Columns(key_defaults_by_type={"int": 0}), "city text", None),
    "a text of one byte a character": (
        Columns(key_defaults_by_type={"text": "", "ascii": "-"}, codecs=("INT_STRING",)),
        "city ascii",
        "-",
    ),
}


@pytest.mark.parametrize("case", DEFAULTS)
def test_which_key_columns_have_a_default_of_their_type(connection, reader, make, case):
    columns, key, expected = DEFAULTS[case]
    name = key.split()[0]
    origin = make("a", f"id int PRIMARY KEY, city {'ascii' if 'ascii' in key else 'text'}, v int")
    target = make("b", f"id int, {key}, v int, PRIMARY KEY (id, {name})")
    insert_rows(connection, origin, [{"id": 1, "v": 1}])
    if expected is None:
        with pytest.raises(PermanentError, match="has no value for the key column city"):
            copy_table(connection, origin, target, columns=columns)
        return
    copy_table(connection, origin, target, columns=columns)
    (row,) = rows_of(reader, target)
    assert row[name] == expected
    assert found(compare(connection, plan_copy(connection, origin, target, columns=columns))) == (
        MATCH
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(key_defaults_by_type={"int": None}), "by_type.int is null, which writes nothing"),
        (Columns(key_defaults_by_type={"txt": ""}), "by_type names 'txt'; valid are ascii, bigint"),
        (Columns(key_defaults_by_type={"list<int>": []}), "names 'list<int>'; valid are"),
        (Columns(key_defaults_by_type=[]), "it must be a block of name: value"),  # type: ignore
        (Columns(unmatched="no"), "columns.unmatched is 'no'; valid are refuse, skip"),
    ],
    ids=str,
)
def test_what_is_no_such_choice_is_refused_when_it_is_declared(columns, message):
    with pytest.raises(DeclarationError, match=re.escape(message)):
        declare(TableName("ks", "a"), TableName("ks", "b"), columns=columns)


def test_a_default_that_does_not_fit_its_type_is_refused_also_where_no_column_has_it(
    connection, make
):
    origin, target = (make(name, "k int PRIMARY KEY") for name in "ab")
    columns = Columns(key_defaults_by_type={"timestamp": "yesterday"})
    with pytest.raises(PreflightError, match=r"key_defaults_by_type\.timestamp does not fit"):
        plan_copy(connection, origin, target, columns=columns)


# -- tables of which no column counts for a row's time ---------------------------------------------

CDM = RowMax(collections=False, expiring_cells_only=True, if_none_counts="now")
ROW_MAX = {"writetime": "row_max", "ttl": "row_max"}
BOTH, NEITHER = ("writetime", "ttl"), ()
MAP = Columns(explode_map=ExplodeMap("m", "mk", "mv"))
EXPLODED = "k int, mk int, mv int, v int, PRIMARY KEY (k, mk)"
COUNTED = {
    "keys only": ("k int, c int, PRIMARY KEY (k, c)", None, Columns(), CDM, BOTH),
    "a value": ("k int PRIMARY KEY, v int", None, Columns(), CDM, NEITHER),
    "collections": ("k int PRIMARY KEY, e set<int>, l list<int>", None, Columns(), CDM, BOTH),
    "collections that are asked for": (
        "k int PRIMARY KEY, e set<int>",
        None,
        Columns(),
        replace(CDM, collections=True),
        NEITHER,
    ),
    "a collection that is named": (
        "k int PRIMARY KEY, e set<int>",
        None,
        Columns(),
        replace(CDM, writetime_columns=("e",)),
        ("ttl",),
    ),
    "a collection that is named for its TTL": (
        "k int PRIMARY KEY, e set<int>",
        None,
        Columns(),
        replace(CDM, ttl_columns=("e",)),
        ("writetime",),
    ),
    "a type of one's own": ("k int PRIMARY KEY, u pair", None, Columns(), CDM, BOTH),
    "a frozen type": ("k int PRIMARY KEY, u frozen<pair>", None, Columns(), CDM, NEITHER),
    "a frozen collection": ("k int PRIMARY KEY, e frozen<set<int>>", None, Columns(), CDM, NEITHER),
    "a tuple": ("k int PRIMARY KEY, t tuple<int, int>", None, Columns(), CDM, NEITHER),
    "a vector": ("k int PRIMARY KEY, t vector<float, 2>", None, Columns(), CDM, NEITHER),
    "a static cell": (
        "k int, c int, s int STATIC, e set<int>, PRIMARY KEY (k, c)",
        None,
        Columns(),
        CDM,
        NEITHER,
    ),
    "a map that is exploded": ("k int PRIMARY KEY, m map<int, int>", EXPLODED, MAP, CDM, BOTH),
    "a frozen map that is exploded": (
        "k int PRIMARY KEY, m frozen<map<int, int>>",
        EXPLODED,
        MAP,
        CDM,
        NEITHER,
    ),
    "a map that is exploded beside a value": (
        "k int PRIMARY KEY, m map<int, int>, v int",
        EXPLODED,
        MAP,
        CDM,
        NEITHER,
    ),
    "a value that is skipped": (
        "k int PRIMARY KEY, e set<int>, v int",
        None,
        Columns(skip=("v",)),
        CDM,
        BOTH,
    ),
    "a value that only the origin has": (
        "k int PRIMARY KEY, e set<int>, v int",
        "k int PRIMARY KEY, e set<int>",
        SKIP,
        CDM,
        NEITHER,
    ),
    "a value that became key": (
        "k int PRIMARY KEY, v int",
        "k int, v int, PRIMARY KEY (k, v)",
        Columns(),
        CDM,
        NEITHER,
    ),
    "counters": ("k int PRIMARY KEY, n counter", None, Columns(), CDM, NEITHER),
    "collections, but not to be written now": (
        "k int PRIMARY KEY, e set<int>",
        None,
        Columns(),
        replace(CDM, if_none_counts="others"),
        NEITHER,
    ),
}


@pytest.mark.parametrize("case", COUNTED)
def test_the_schema_says_whether_a_column_counts(connection, make, keyspace, case):
    body, there, columns, row_max, uncounted = COUNTED[case]
    connection.session.execute(f"CREATE TYPE {keyspace}.pair (x int, y int)", timeout=60)
    origin, target = make("a", body), make("b", there or body)
    options = {**ROW_MAX, "writetime_increment_by": 3}
    plan = plan_copy(connection, origin, target, columns=columns, row_max=row_max, **options)
    assert plan.uncounted == uncounted
    if not plan.has_counters:
        rules = plan.rules
        assert (rules.writetime == "now", rules.ttl == "none") == (
            "writetime" in uncounted,
            "ttl" in uncounted,
        )
        assert rules.increment_by == (0 if "writetime" in uncounted else 3)
    told = " ".join(line.times for line in describe_fidelity(plan))
    assert ("the time of the copy, because no column counts" in told) == ("writetime" in uncounted)
    has_values = any(not source.is_key for source in plan.rows.sources)
    assert ("no TTL, because no column counts" in told) == ("ttl" in uncounted and has_values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compare_writetime": True}, "diff.compare_writetime needs writetimes that are kept, but"),
        ({"filter": Filter(writetime_from=1)}, "filter.writetime_from and _to need writetimes of"),
    ],
    ids=str,
)
def test_what_needs_a_time_is_refused_where_no_column_counts(connection, make, options, message):
    origin, target = (make(name, "k int PRIMARY KEY, e set<int>") for name in "ab")
    with pytest.raises(PreflightError, match=message):
        plan_copy(connection, origin, target, row_max=CDM, **ROW_MAX, **options)
    with_value = [make(name, "k int PRIMARY KEY, e set<int>, v int") for name in "cd"]
    plan_copy(connection, *with_value, row_max=CDM, **ROW_MAX, **options)


REPAIRED = {
    "keys only": (
        "k int, c int, PRIMARY KEY (k, c)",
        None,
        Columns(),
        "INSERT INTO {} (k, c)",
        "1, 1",
    ),
    "a set": ("k int PRIMARY KEY, e set<int>", None, Columns(), "INSERT INTO {} (k, e)", "1, {1}"),
    "a list": (
        "k int PRIMARY KEY, l list<int>",
        None,
        Columns(),
        "INSERT INTO {} (k, l)",
        "1, [1]",
    ),
    "a map that is exploded": (
        "k int PRIMARY KEY, m map<int, int>",
        EXPLODED.replace(", v int", ""),
        MAP,
        "INSERT INTO {} (k, m)",
        "1, {5: 7}",
    ),
}


@pytest.mark.parametrize("case", REPAIRED)
@pytest.mark.parametrize("mode", ["now", "others"])
def test_a_repair_wins_over_what_is_newer_only_where_no_column_counts(
    connection, reader, make, case, mode
):
    body, there, columns, insert, values = REPAIRED[case]
    origin, target = make("a", body), make("b", there or body)
    old = f"USING TIMESTAMP {WRITTEN} AND TTL 100000"
    reader.execute(f"{insert.format(origin)} VALUES ({values}) {old}")
    options = {
        **{"columns": columns, "row_max": replace(CDM, if_none_counts=mode), "token_ranges": 1},
        **{"repair": ("missing", "mismatched"), "diff_mode": "origin_only", **ROW_MAX},
    }
    plan = plan_copy(connection, origin, target, **options)
    assert copy_table(connection, origin, target, **options).written == 1
    copied = rows_of(reader, target)
    assert found(compare(connection, plan)) == MATCH
    reader.execute(f"DELETE FROM {target} WHERE k = 1")
    verdict = compare(connection, plan)
    # By then no time of the origin wins, but the present one does; a row of nothing but its key
    # has no time at the origin.
    wins = mode == "now" or case == "keys only"
    assert (verdict.missing, verdict.corrected_missing) == (1, 1 if wins else 0)
    assert rows_of(reader, target) == (copied if wins else [])


def test_rows_that_are_written_now_live_for_ever_also_where_the_target_says_otherwise(
    connection, reader, make
):
    origin = make("a", "k int PRIMARY KEY, e set<int>")
    target = make("b", "k int PRIMARY KEY, e set<int> WITH default_time_to_live = 1000")
    reader.execute(
        f"INSERT INTO {origin} (k, e) VALUES (1, {{1}}) USING TIMESTAMP {WRITTEN} AND TTL 100000"
    )
    copy_table(connection, origin, target, row_max=CDM, **ROW_MAX)
    (cell,) = [cell for place, cell in read_cells(reader, target).items() if place.column]
    assert cell.expires_at is None
    assert (cell.writetime_us or 0) > (time.time() - 600) * 1_000_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row_max": CDM, "writetime": "cell", "ttl": 60}, "unless writetime or ttl is row_max"),
        (
            {"row_max": RowMax(if_none_counts="then"), **ROW_MAX},
            "row_max.if_none_counts is 'then'; valid are others, now",
        ),
        (
            {
                **{"row_max": CDM, "writetime": "row_max", "ttl": "none"},
                "target_declared": DynamoDbTarget(writetime_attribute="written"),
            },
            "row_max.if_none_counts is not known of a DynamoDB target",
        ),
    ],
    ids=str,
)
def test_a_choice_that_does_nothing_or_is_none_is_refused(options, message):
    with pytest.raises(DeclarationError, match=re.escape(message)):
        declare(TableName("ks", "a"), TableName("ks", "b"), **options)


@pytest.mark.parametrize(
    "row_max",
    [
        RowMax(writetime_columns=("v",)),
        RowMax(collections=False),
        RowMax(collections=False, if_none_counts="now"),
    ],
    ids=str,
)
def test_a_repair_with_new_times_forgets_what_would_have_counted(connection, reader, make, row_max):
    origin, target = (make(name, "k int PRIMARY KEY, v int, e set<int>") for name in "ab")
    reader.execute(f"INSERT INTO {origin} (k, v, e) VALUES (1, 1, {{1}}) USING TIMESTAMP {WRITTEN}")
    options = {"writetime": "row_max", "ttl": "none", "row_max": row_max, "token_ranges": 1}
    copy_table(connection, origin, target, **options)
    reader.execute(f"DELETE FROM {target} WHERE k = 1")
    options |= {"repair": ("missing",), "repair_writetime": "now"}
    verdict = compare(connection, plan_copy(connection, origin, target, **options))
    assert (verdict.error, verdict.corrected_missing) == ("", 1)
    assert rows_of(reader, target) == rows_of(reader, origin)
