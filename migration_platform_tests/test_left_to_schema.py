"""What a declaration leaves to the tables' schemas is decided once, when the plan is made."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from migration_platform.errors import DeclarationError, PermanentError, PreflightError
from migration_platform.fidelity import describe_fidelity
from migration_platform.migration import (
    ColumnFilter,
    Columns,
    ExplodeMap,
    ExtractJson,
    Filter,
    RowMax,
    TableName,
)
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
