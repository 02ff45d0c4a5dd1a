"""Columns that change on the way arrive as declared, and the comparison knows how they change."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from migration_platform.declaration.columns import Columns, ExplodeMap, ExtractJson
from migration_platform.errors import PermanentError, PreflightError
from migration_platform.token_ranges import split_ring
from migration_platform_tests.comparing import compare, found
from migration_platform_tests.tables import (
    copy_table,
    create_table,
    fill,
    insert_rows,
    plan_copy,
    rows_of,
)

MATCH = (0, 0, 0)


@pytest.fixture
def make(connection, keyspace):
    return lambda name, body: create_table(connection, keyspace, name, body)


@pytest.fixture
def copy(connection):
    """Copy a table and compare it: a copy must match, and copied again it still must."""

    def copy_and_compare(origin, target, columns, **options):
        options = {"columns": columns, "token_ranges": 2, **options}
        counts = copy_table(connection, origin, target, **options)
        assert counts.complete
        plan = plan_copy(connection, origin, target, **options)
        assert found(compare(connection, plan)) == MATCH
        return counts

    return copy_and_compare


@pytest.fixture
def differ(connection):
    """Compare two tables: how many rows are missing, extra and mismatched, and in which columns."""

    def differ(origin, target, columns, **options):
        options = {"columns": columns, "token_ranges": 2, **options}
        verdict = compare(connection, plan_copy(connection, origin, target, **options))
        names = {row.key: row.columns for row in verdict.mismatched_rows}
        return found(verdict), names

    return differ


# -- names ---------------------------------------------------------------------------------------


def test_columns_are_renamed_and_skipped(connection, reader, make, copy, differ):
    origin = make("a", 'k int, c int, v text, "Odd; name" int, gone int, PRIMARY KEY (k, c)')
    target = make("b", 'key int, "C""C" int, value text, "select" int, PRIMARY KEY (key, "C""C")')
    rows = [(n % 3, n, f"v{n}", n, n) for n in range(12)]
    fill(connection, origin, 'k, c, v, "Odd; name", gone', rows)
    columns = Columns(
        rename={"k": "key", "c": 'C"C', "v": "value", "Odd; name": "select"}, skip=("gone",)
    )
    assert copy(origin, target, columns).written == 12
    expected = [{"key": k, 'C"C': c, "value": v, "select": n} for k, c, v, n, _ in rows]
    assert rows_of(reader, target) == sorted(
        (dict(sorted(row.items())) for row in expected), key=repr
    )
    reader.execute(f'UPDATE {target} SET "select" = 99 WHERE key = 1 AND "C""C" = 4')
    assert differ(origin, target, columns) == ((0, 0, 1), {'key=1, "C""C"=4': ('"select"',)})


def test_two_columns_can_swap_their_names(connection, reader, make, copy):
    body = "k int PRIMARY KEY, v text, w text"
    origin, target = make("a", body), make("b", body)
    insert_rows(connection, origin, [{"k": 1, "v": "v", "w": "w"}, {"k": 2, "v": "only v"}])
    copy(origin, target, Columns(rename={"v": "w", "w": "v"}))
    assert rows_of(reader, target) == [
        {"k": 1, "v": "w", "w": "v"},
        {"k": 2, "v": None, "w": "only v"},
    ]


# -- constants -----------------------------------------------------------------------------------


def test_every_row_gets_the_constants(connection, reader, make, copy, differ):
    origin = make("a", "k int PRIMARY KEY, v text, w int")
    target = make(
        "b",
        "k int PRIMARY KEY, v text, w int, made_by text, at timestamp, tags set<text>, "
        "f frozen<list<int>>",
    )
    insert_rows(connection, origin, [{"k": 1, "v": "x", "w": 7}, {"k": 2}, {"k": 3, "w": 5}])
    # The origin's own `w` gives way to the constant.
    constants = {
        "w": 0,
        "made_by": "it's me",
        "at": "2024-01-02T03:04:05Z",
        "tags": ["b", "a"],
        "f": [3, 1],
    }
    columns = Columns(constants=constants)
    assert copy(origin, target, columns).written == 3
    for row in rows_of(reader, target):
        assert row["v"] == ("x" if row["k"] == 1 else None)
        assert row["at"].replace(tzinfo=UTC) == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert (row["w"], row["made_by"], row["tags"], row["f"]) == (
            0,
            "it's me",
            {"a", "b"},
            [3, 1],
        )
    reader.execute(f"UPDATE {target} SET made_by = 'you' WHERE k = 2")
    assert differ(origin, target, columns) == ((0, 0, 1), {"k=2": ("made_by",)})
    reader.execute(f"UPDATE {target} SET tags = tags - {{'a'}} WHERE k = 3")
    assert differ(origin, target, columns)[1] == {"k=2": ("made_by",), "k=3": ("tags",)}


def test_constants_are_as_old_as_the_row(connection, reader, make, copy):
    origin = make("a", "k int PRIMARY KEY, v text, w text")
    target = make("b", "k int PRIMARY KEY, v text, w text, made_by text")
    insert_rows(connection, origin, [{"k": 1, "v": "x", "w": "x"}], "USING TIMESTAMP 1000")
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 2000 SET w = 'y' WHERE k = 1")
    copy(origin, target, Columns(constants={"made_by": "me"}), compare_writetime=True)
    (row,) = reader.execute(f"SELECT writetime(v), writetime(w), writetime(made_by) FROM {target}")
    assert tuple(row.values()) == (1000, 2000, 2000)


def test_sets_and_maps_may_be_given_in_any_order(connection, reader, make, copy):
    origin = make("a", "k int PRIMARY KEY")
    target = make(
        "b",
        "k int, s frozen<set<int>>, m frozen<map<text, int>>, o set<text>, "
        "n frozen<list<frozen<set<int>>>>, PRIMARY KEY (k, s)",
    )
    insert_rows(connection, origin, [{"k": 1}, {"k": 2}])
    constants = {"s": [3, -1, 3, 2], "m": {"b": 1, "a": 2}, "o": ["z", "a", "z"], "n": [[2, 1]]}
    copy(origin, target, Columns(constants=constants))
    for row in rows_of(reader, target):
        assert (set(row["s"]), dict(row["m"]), row["o"]) == (
            {-1, 2, 3},
            {"a": 2, "b": 1},
            {"a", "z"},
        )


KEYS_WITH_CONSTANTS = {
    "the partition": "(tenant, k, c)",
    "before the partition's own": "((tenant, k), c)",
    "after the partition's own": "((k, tenant), c)",
    "the last clustering column": "(k, c, tenant)",
    "the first clustering column": "(k, tenant, c)",
    "between, the other way round": "(c, tenant, k)",
}


@pytest.mark.parametrize("key", KEYS_WITH_CONSTANTS.values(), ids=KEYS_WITH_CONSTANTS)
def test_two_origins_become_one_target_told_apart_by_a_constant(
    connection, reader, make, differ, key
):
    body = "k int, c text, v int, s text, PRIMARY KEY (k, c)"
    origins = {"north": make("a1", body), "süd": make("a2", body)}
    target = make("b", f"k int, c text, v int, s text, tenant text, note int, PRIMARY KEY {key}")
    expected = []
    for number, (tenant, origin) in enumerate(origins.items()):
        rows = [(n % 4, str(n), n + number, None if n % 2 else "s") for n in range(16)]
        insert_rows(
            connection,
            origin,
            [
                dict(zip(("k", "c", "v", "s"), row, strict=True))
                if row[3]
                else dict(zip(("k", "c", "v"), row[:3], strict=True))
                for row in rows
            ],
        )
        columns = Columns(constants={"tenant": tenant, "note": number})
        counts = copy_table(connection, origin, target, columns=columns, token_ranges=2)
        assert counts.written == 16
        expected += [
            {"k": k, "c": c, "v": v, "s": s, "tenant": tenant, "note": number}
            for k, c, v, s in rows
        ]
    assert rows_of(reader, target) == sorted((dict(sorted(r.items())) for r in expected), key=repr)
    for number, (tenant, origin) in enumerate(origins.items()):
        columns = Columns(constants={"tenant": tenant, "note": number})
        assert differ(origin, target, columns, diff_mode="origin_only") == (MATCH, {})
        # Two-way the other origin's rows are seen, and nothing else.
        assert differ(origin, target, columns)[0] == (0, 16, 0)
    reader.execute(f"DELETE FROM {target} WHERE k = 1 AND c = '5' AND tenant = 'north'")
    reader.execute(f"UPDATE {target} SET v = -1 WHERE k = 2 AND c = '6' AND tenant = 'north'")
    columns = Columns(constants={"tenant": "north", "note": 0})
    counts, names = differ(origins["north"], target, columns, diff_mode="origin_only")
    assert (counts, list(names.values())) == ((1, 0, 1), [("v",)])
    columns = Columns(constants={"tenant": "süd", "note": 1})
    assert differ(origins["süd"], target, columns, diff_mode="origin_only") == (MATCH, {})


# -- codecs --------------------------------------------------------------------------------------

MOMENT = datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC)
CODECS = {
    # codec: raw type, text type, pairs of a value and its text
    "INT_STRING": ("int", "text", [(0, "0"), (-(2**31), "-2147483648"), (2**31 - 1, "2147483647")]),
    "BIGINT_STRING": ("bigint", "text", [(2**63 - 1, "9223372036854775807"), (-1, "-1")]),
    "DOUBLE_STRING": ("double", "text", [(1.5, "1.5"), (-0.1, "-0.1"), (1e300, "1e+300")]),
    "DECIMAL_STRING": ("decimal", "text", [(Decimal("1.10"), "1.10"), (Decimal(-3), "-3")]),
    "STRING_BLOB": ("blob", "text", [("ü★".encode(), "ü★"), (b"", ""), (b"a", "a")]),
    "ASCII_BLOB": ("blob", "ascii", [(b"plain", "plain"), (b"", "")]),
    "TIMESTAMP_STRING_MILLIS": ("timestamp", "text", [(MOMENT, "1709251198000")]),
    "TIMESTAMP_STRING_FORMAT": ("timestamp", "text", [(MOMENT, "20240229235958")]),
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_changes_values_in_both_directions_in_columns_and_keys(
    connection, reader, make, differ, codec
):
    raw, text, pairs = CODECS[codec]
    columns = Columns(codecs=(codec,))
    for number, (here, there) in enumerate(((raw, text), (text, raw))):
        # A key may not be empty.
        values = [pair[::-1] if number else pair for pair in pairs if pair[0] != b""]
        body = "k {0}, c {0}, v {0}, w {0}, PRIMARY KEY (k, c)"
        origin = make(f"a{number}", body.format(here))
        target = make(f"b{number}", body.format(there))
        # The last column stays null, which is no value to convert.
        insert_rows(connection, origin, [{"k": v, "c": v, "v": v} for v, _ in values])
        counts = copy_table(connection, origin, target, columns=columns, token_ranges=2)
        assert counts.written == len(values)
        got = rows_of(reader, target)
        for row in got:
            assert row["k"] == row["c"] == row["v"]
            assert row["w"] is None
        expected = [v.replace(tzinfo=None) if isinstance(v, datetime) else v for _, v in values]
        assert sorted(map(str, (row["v"] for row in got))) == sorted(map(str, expected))
        assert differ(origin, target, columns) == (MATCH, {})
        statement = connection.session.prepare(f"UPDATE {target} SET w = ? WHERE k = ? AND c = ?")
        key = values[0][1]
        connection.session.execute(statement, [key, key, key])
        assert differ(origin, target, columns)[0] == (0, 0, 1)


@pytest.mark.parametrize("empty", [b"", ""], ids=["blob", "text"])
def test_an_empty_blob_is_an_empty_text(connection, reader, make, copy, empty):
    kinds = ("blob", "text") if empty == b"" else ("text", "blob")
    origin, target = (
        make(n, f"k int PRIMARY KEY, v {t}") for n, t in zip("ab", kinds, strict=True)
    )
    insert_rows(connection, origin, [{"k": 1, "v": empty}, {"k": 2}])
    copy(origin, target, Columns(codecs=("STRING_BLOB",)))
    other = "" if empty == b"" else b""
    assert rows_of(reader, target) == [{"k": 1, "v": other}, {"k": 2, "v": None}]


BAD_VALUES = {
    "letters for an int": ("INT_STRING", "text", "int", "12a"),
    "an int that is too large": ("INT_STRING", "text", "int", "2147483648"),
    "a blank": ("BIGINT_STRING", "text", "bigint", " 1"),
    "an empty number": ("DOUBLE_STRING", "text", "double", ""),
    "no decimal": ("DECIMAL_STRING", "text", "decimal", "1,5"),
    "no UTF-8": ("STRING_BLOB", "blob", "text", b"\xff\xfe"),
    "no ASCII": ("ASCII_BLOB", "blob", "ascii", "ü".encode()),
    "no milliseconds": ("TIMESTAMP_STRING_MILLIS", "text", "timestamp", "2024-01-01"),
    "no such day": ("TIMESTAMP_STRING_FORMAT", "text", "timestamp", "20240230000000"),
    "another format": ("TIMESTAMP_STRING_FORMAT", "text", "timestamp", "2024-02-03"),
}


@pytest.mark.parametrize(("codec", "here", "there", "value"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_value_that_cannot_be_changed_fails_the_range_by_name(
    connection, reader, make, codec, here, there, value
):
    origin = make("a", f'k text, c int, "V v" {here}, PRIMARY KEY (k, c)')
    target = make("b", f'k text, c int, "V v" {there}, PRIMARY KEY (k, c)')
    insert_rows(connection, origin, [{"k": "it's", "c": 7, "V v": value}])
    options = {"columns": Columns(codecs=(codec,)), "token_ranges": 1}
    with pytest.raises(PermanentError) as refused:
        copy_table(connection, origin, target, **options)
    message = str(refused.value)
    assert "the row k='it''s', c=7 cannot be converted: \"V v\": " in message
    assert f"{codec}: " in message
    assert len(message.splitlines()) == 1
    assert rows_of(reader, target) == []
    # The comparison cannot say that such rows are equal either.
    verdict = compare(connection, plan_copy(connection, origin, target, **options))
    assert found(verdict) == (1, 0, 0)
    (row,) = verdict.missing_rows
    assert str(row) == "k='it''s', c=7: (cannot be written as declared)"


@pytest.mark.parametrize("stale", [False, True])
def test_a_row_that_cannot_be_converted_differs_and_the_others_are_compared(
    connection, make, stale
):
    origin, target = make("a", "k int PRIMARY KEY, v text"), make("b", "k int PRIMARY KEY, v int")
    fill(connection, origin, "k, v", [(n, str(n)) for n in range(40)])
    fill(connection, target, "k, v", [(n, n) for n in range(40) if n != 17 or stale])
    insert_rows(connection, origin, [{"k": 17, "v": "seventeen"}])
    insert_rows(connection, target, [{"k": 18, "v": 99}, {"k": 41, "v": 41}])
    options = {"columns": Columns(codecs=("INT_STRING",)), "writetime": "now", "ttl": "none"}
    verdict = compare(connection, plan_copy(connection, origin, target, **options))
    assert found(verdict) == ((0, 1, 2) if stale else (1, 1, 1))
    assert (verdict.origin_rows, verdict.target_rows) == (40, 40 + stale)
    said = [str(row) for row in (*verdict.missing_rows, *verdict.mismatched_rows)]
    assert "k=17: (cannot be written as declared)" in said


# -- maps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["map<text, int>", "frozen<map<text, int>>"])
def test_the_entries_of_a_map_become_rows(connection, reader, make, copy, differ, kind):
    origin = make("a", f"k int, c int, v text, m {kind}, PRIMARY KEY (k, c)")
    target = make("b", "k int, c int, name text, amount int, v text, PRIMARY KEY (k, c, name)")
    entries = {f"e{n}": n for n in range(4)}
    insert_rows(connection, origin, [{"k": n, "c": 0, "v": "x", "m": entries} for n in range(3)])
    insert_rows(connection, origin, [{"k": 0, "c": 1, "v": "null"}, {"k": 9, "c": 9, "m": {}}])
    columns = Columns(explode_map=ExplodeMap("m", "name", "amount"))
    counts = copy(origin, target, columns)
    assert (counts.read, counts.added, counts.written, counts.skipped) == (5, 7, 12, 0)
    assert rows_of(reader, target) == sorted(
        (
            {"amount": n, "c": 0, "k": k, "name": name, "v": "x"}
            for k in range(3)
            for name, n in entries.items()
        ),
        key=repr,
    )
    reader.execute(f"DELETE FROM {target} WHERE k = 0 AND c = 0 AND name = 'e1'")
    reader.execute(f"UPDATE {target} SET amount = 9 WHERE k = 1 AND c = 0 AND name = 'e2'")
    reader.execute(f"INSERT INTO {target} (k, c, name) VALUES (2, 0, 'more')")
    assert differ(origin, target, columns) == (
        (1, 1, 1),
        {"k=1, c=0, name='e2'": ("amount",)},
    )


def test_a_map_is_exploded_into_the_partition_key_and_other_types(connection, reader, make, copy):
    origin = make("a", "k int PRIMARY KEY, m map<int, frozen<list<int>>>, v int")
    target = make("b", "k int, name text, other frozen<list<int>>, v int, PRIMARY KEY (name, k)")
    insert_rows(connection, origin, [{"k": 1, "m": {1: [1, 2], 2: [3]}, "v": 1}, {"k": 2, "v": 2}])
    columns = Columns(explode_map=ExplodeMap("m", "name", "other"), codecs=("INT_STRING",))
    copy(origin, target, columns)
    assert rows_of(reader, target) == [
        {"k": 1, "name": "1", "other": [1, 2], "v": 1},
        {"k": 1, "name": "2", "other": [3], "v": 1},
    ]


def test_each_row_has_the_time_of_its_entry(connection, reader, make, copy, differ):
    origin = make("a", "k int PRIMARY KEY, v int, m map<text, int>")
    target = make("b", "k int, name text, amount int, v int, PRIMARY KEY (k, name)")
    reader.execute(f"INSERT INTO {origin} (k, v) VALUES (1, 5) USING TIMESTAMP 5000")
    for name, written, ttl in (("a", 1000, 0), ("b", 9000, 9000), ("c", 2000, 5000)):
        reader.execute(
            f"UPDATE {origin} USING TIMESTAMP {written} AND TTL {ttl} SET m['{name}'] = 1 "
            "WHERE k = 1"
        )
    columns = Columns(explode_map=ExplodeMap("m", "name", "amount"))
    copy(origin, target, columns, compare_writetime=True)
    found_rows = list(
        reader.execute(
            f"SELECT name, writetime(amount) AS w, ttl(amount) AS t, writetime(v) AS v, "
            f"ttl(v) AS life FROM {target}"
        )
    )
    assert {row["name"]: (row["w"], row["v"], row["life"]) for row in found_rows} == {
        "a": (1000, 5000, None),
        "b": (9000, 5000, None),
        "c": (2000, 5000, None),
    }
    lives = {row["name"]: row["t"] for row in found_rows}
    assert lives["a"] is None
    assert 8900 < lives["b"] <= 9000
    assert 4900 < lives["c"] <= 5000
    reader.execute(
        f"INSERT INTO {target} (k, name, amount) VALUES (1, 'c', 1) "
        "USING TIMESTAMP 2001 AND TTL 5000"
    )
    assert differ(origin, target, columns, compare_writetime=True) == (
        (0, 0, 1),
        {"k=1, name='c'": ("writetime(amount)",)},
    )


# -- JSON ----------------------------------------------------------------------------------------


def test_properties_of_a_json_object_land_in_columns(connection, reader, make, copy, differ):
    origin = make("a", "k int PRIMARY KEY, j text, v int")
    target = make(
        "b", "k int PRIMARY KEY, j text, v int, name text, size int, tags set<text>, at timestamp"
    )
    objects = {
        1: {"name": "ü", "size": 3, "tags": ["b", "a"], "at": "2024-01-02T03:04:05Z"},
        2: {"name": {"a": [1, None]}, "size": None, "more": 1},
        3: {},
    }
    insert_rows(connection, origin, [{"k": k, "j": json.dumps(o)} for k, o in objects.items()])
    insert_rows(connection, origin, [{"k": 4, "v": 4}, {"k": 5, "j": ""}])
    properties = {name: name for name in ("name", "size", "tags", "at")}
    columns = Columns(extract_json=ExtractJson("j", properties, overwrite=True))
    assert copy(origin, target, columns).written == 5
    rows = {row["k"]: row for row in rows_of(reader, target)}
    assert rows[1]["name"] == "ü"
    assert (rows[1]["size"], rows[1]["tags"]) == (3, {"a", "b"})
    assert rows[1]["at"] == datetime(2024, 1, 2, 3, 4, 5)
    assert rows[1]["j"] == json.dumps(objects[1])
    assert rows[2]["name"] == '{"a":[1,null]}'
    for k in (2, 3, 4, 5):
        assert (rows[k]["size"], rows[k]["tags"], rows[k]["at"]) == (None, None, None)
    assert (rows[4]["v"], rows[3]["name"], rows[5]["j"]) == (4, None, "")
    reader.execute(f"UPDATE {target} SET size = 4 WHERE k = 1")
    reader.execute(f"UPDATE {target} SET name = 'x' WHERE k = 3")
    assert differ(origin, target, columns) == (
        (0, 0, 2),
        {"k=1": ("size",), "k=3": ("name",)},
    )


def test_exclusive_copies_nothing_but_the_key_and_the_properties(connection, reader, make, copy):
    origin = make("a", "k int, c int, j text, v int, PRIMARY KEY (k, c)")
    target = make("b", "k int, c int, j text, v int, name text, PRIMARY KEY (c, k)")
    insert_rows(connection, origin, [{"k": 1, "c": 2, "j": '{"n": "x"}', "v": 3}, {"k": 2, "c": 2}])
    copy(origin, target, Columns(extract_json=ExtractJson("j", {"n": "name"}, exclusive=True)))
    assert rows_of(reader, target) == [
        {"c": 2, "j": None, "k": 1, "name": "x", "v": None},
        {"c": 2, "j": None, "k": 2, "name": None, "v": None},
    ]


def test_a_json_column_that_the_target_lacks_is_only_read(connection, reader, make, copy):
    origin = make("a", "k int PRIMARY KEY, j text")
    target = make("b", "k int PRIMARY KEY, name text")
    insert_rows(connection, origin, [{"k": 1, "j": '{"n": "x"}'}])
    copy(origin, target, Columns(extract_json=ExtractJson("j", {"n": "name"})))
    assert rows_of(reader, target) == [{"k": 1, "name": "x"}]


def test_a_property_is_as_old_as_the_text_it_comes_from(connection, reader, make, copy):
    origin = make("a", "k int PRIMARY KEY, j text, v int")
    target = make("b", "k int PRIMARY KEY, j text, v int, n int")
    insert_rows(connection, origin, [{"k": 1, "j": '{"n": 1}'}], "USING TIMESTAMP 1000")
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 2000 AND TTL 900 SET v = 1 WHERE k = 1")
    columns = Columns(extract_json=ExtractJson("j", {"n": "n"}))
    copy(origin, target, columns, compare_writetime=True)
    (row,) = reader.execute(f"SELECT writetime(n), writetime(v), ttl(n) FROM {target}")
    assert tuple(row.values()) == (1000, 2000, None)


BAD_JSON = {
    "cut off": '{"n": ',
    "a list": "[1]",
    "a number": "7",
    "null": "null",
    "another type": '{"n": "seven"}',
    "a number that is too large": '{"n": 2147483648}',
    "a fraction": '{"n": 1.5}',
    "no number": '{"n": NaN}',
    "nested without end": "[" * 100_000,
    "half a character": '{"t": "\\ud800"}',
}


@pytest.mark.parametrize("text", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_fails_the_range_and_names_the_row(connection, reader, make, text):
    origin = make("a", "k text, c int, j text, PRIMARY KEY (k, c)")
    target = make("b", "k text, c int, n int, t text, PRIMARY KEY (k, c)")
    insert_rows(connection, origin, [{"k": "u", "c": 1, "j": text}])
    columns = Columns(extract_json=ExtractJson("j", {"n": "n", "t": "t"}))
    with pytest.raises(PermanentError) as refused:
        copy_table(connection, origin, target, columns=columns, token_ranges=1)
    message = str(refused.value)
    assert "the row k='u', c=1 cannot be converted: j: " in message
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    assert rows_of(reader, target) == []


def test_without_overwrite_a_value_that_is_there_is_no_difference(connection, reader, make, differ):
    origin = make("a", "k int PRIMARY KEY, j text, v int")
    target = make("b", "k int PRIMARY KEY, j text, v int, n int")
    rows = [{"k": n, "j": '{"n": 1}', "v": 0} for n in range(3)]
    insert_rows(connection, origin, [*rows, {"k": 3, "v": 0}, {"k": 4, "j": "{}", "v": 0}])
    loose, strict = (
        Columns(extract_json=ExtractJson("j", {"n": "n"}, overwrite=overwrite))
        for overwrite in (False, True)
    )
    copy_table(connection, origin, target, columns=loose)
    reader.execute(f"UPDATE {target} SET n = 7 WHERE k = 1")
    reader.execute(f"UPDATE {target} SET n = 7 WHERE k = 3")
    assert differ(origin, target, loose) == (MATCH, {})
    assert differ(origin, target, strict) == ((0, 0, 2), {"k=1": ("n",), "k=3": ("n",)})
    # A value that the target lacks is one, and so are all other columns.
    reader.execute(f"DELETE n FROM {target} WHERE k = 2")
    reader.execute(f"UPDATE {target} SET v = 1 WHERE k = 4")
    assert differ(origin, target, loose) == ((0, 0, 2), {"k=2": ("n",), "k=4": ("v",)})
    reader.execute(f"DELETE FROM {target} WHERE k = 0")
    assert differ(origin, target, loose)[0] == (1, 0, 2)


# -- keys ----------------------------------------------------------------------------------------


def test_a_column_becomes_key_and_the_key_becomes_a_column(connection, reader, make, copy, differ):
    origin = make("a", "id int PRIMARY KEY, email text, m map<text, int>, at int")
    target = make("b", "id int, email text, m map<text, int>, at int, PRIMARY KEY (email)")
    rows = [{"id": n, "email": f"{n}@x", "m": {"a": n}, "at": n} for n in range(9)]
    insert_rows(connection, origin, rows)
    assert copy(origin, target, Columns()).written == 9
    assert rows_of(reader, target) == sorted((dict(sorted(row.items())) for row in rows), key=repr)
    reader.execute(f"UPDATE {target} SET id = 99 WHERE email = '3@x'")
    reader.execute(f"DELETE FROM {target} WHERE email = '4@x'")
    reader.execute(f"INSERT INTO {target} (email, id) VALUES ('more', 1)")
    counts, names = differ(origin, target, Columns())
    assert counts == (1, 1, 1)
    assert list(names) == ["email='3@x'"]


def test_what_was_key_is_as_old_as_its_row(connection, reader, make, copy):
    origin = make("a", "id int PRIMARY KEY, email text, at int")
    target = make("b", "id int, email text, at int, PRIMARY KEY (email)")
    insert_rows(connection, origin, [{"id": 1, "email": "e", "at": 1}], "USING TIMESTAMP 1000")
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 3000 SET at = 2 WHERE id = 1")
    copy(origin, target, Columns(), compare_writetime=True)
    (row,) = reader.execute(f"SELECT writetime(id), writetime(at) FROM {target}")
    assert tuple(row.values()) == (3000, 3000)


def test_a_column_of_the_key_can_be_dropped(connection, reader, make, copy):
    origin = make("a", "tenant text, k int, c int, v int, PRIMARY KEY ((tenant, k), c)")
    target = make("b", "k int, c int, v int, PRIMARY KEY (k, c)")
    fill(connection, origin, "tenant, k, c, v", [("only", n % 3, n, n) for n in range(9)])
    copy(origin, target, Columns(skip=("tenant",)))
    assert rows_of(reader, target) == sorted(
        ({"c": n, "k": n % 3, "v": n} for n in range(9)), key=repr
    )


def test_a_null_that_became_key_gets_its_default_or_fails_by_name(
    connection, reader, make, copy, differ
):
    origin = make("a", "id int PRIMARY KEY, city text, at timestamp, v int")
    target = make("b", "id int, city text, at timestamp, v int, PRIMARY KEY (city, at, id)")
    insert_rows(
        connection,
        origin,
        [
            {"id": 1, "city": "Ulm", "at": datetime(2024, 1, 1, tzinfo=UTC), "v": 1},
            {"id": 2, "v": 2},
            {"id": 3, "city": "Ulm"},
        ],
    )
    with pytest.raises(PermanentError) as refused:
        copy_table(connection, origin, target, token_ranges=1)
    assert "has no value for the key column " in str(refused.value)
    assert "name one in columns.key_defaults" in str(refused.value)
    assert "the row id=" in str(refused.value)
    assert rows_of(reader, target) == []
    columns = Columns(key_defaults={"city": "none", "at": "1970-01-01T00:00:00Z"})
    assert copy(origin, target, columns).written == 3
    epoch = datetime(1970, 1, 1)
    assert {(r["id"], r["city"], r["at"], r["v"]) for r in rows_of(reader, target)} == {
        (1, "Ulm", datetime(2024, 1, 1), 1),
        (2, "none", epoch, 2),
        (3, "Ulm", epoch, None),
    }
    reader.execute(f"DELETE FROM {target} WHERE city = 'none'")
    assert differ(origin, target, columns)[0] == (1, 0, 0)


def test_an_empty_default_keeps_rows_apart_in_a_clustering_column(connection, reader, make, copy):
    origin = make("a", "id int PRIMARY KEY, city text")
    target = make("b", "id int, city text, PRIMARY KEY (id, city)")
    insert_rows(connection, origin, [{"id": 1}, {"id": 2, "city": "Ulm"}])
    copy(origin, target, Columns(key_defaults={"city": ""}))
    assert rows_of(reader, target) == [{"city": "", "id": 1}, {"city": "Ulm", "id": 2}]


def test_a_property_of_json_and_a_default_can_be_the_key(connection, reader, make, copy):
    origin = make("a", "id int PRIMARY KEY, j text")
    target = make("b", "id int, j text, city text, PRIMARY KEY (city, id)")
    insert_rows(connection, origin, [{"id": 1, "j": '{"city": "Ulm"}'}, {"id": 2}])
    columns = Columns(
        extract_json=ExtractJson("j", {"city": "city"}), key_defaults={"city": "none"}
    )
    copy(origin, target, columns)
    assert {(r["id"], r["city"]) for r in rows_of(reader, target)} == {(1, "Ulm"), (2, "none")}


def test_the_same_key_in_another_order_with_changes_compares_by_ranges(
    connection, make, copy, differ
):
    origin = make("a", "k int, c int, v int, PRIMARY KEY (k, c)")
    target = make("b", "k int, c int, v text, x int, PRIMARY KEY (c, x, k)")
    fill(connection, origin, "k, c, v", [(n, n % 3, n) for n in range(30)])
    columns = Columns(constants={"x": 1}, codecs=("INT_STRING",))
    with pytest.raises(PreflightError):
        # `c` and `k` stay numbers; only `v` is asked to change.
        plan_copy(connection, origin, target, columns=Columns(constants={"x": 1}))
    copy(origin, target, columns)
    plan = plan_copy(connection, origin, target, columns=columns, token_ranges=6)
    assert plan.tells_origin_token
    connection.session.execute(f"DELETE FROM {target} WHERE c = 0 AND x = 1 AND k = 3")
    missing = [compare(connection, plan, [each]).missing for each in split_ring(6)]
    assert sorted(missing) == [0, 0, 0, 0, 0, 1]


# -- user-defined types --------------------------------------------------------------------------


def test_types_of_ones_own_travel_through_every_change(connection, reader, keyspace, make, copy):
    session = connection.session
    session.execute(f"CREATE TYPE {keyspace}.point (x int, y int, name text)")
    session.execute(f"CREATE TYPE {keyspace}.spot (x int, y int, name text)")
    origin = make(
        "a",
        "k int PRIMARY KEY, p point, f frozen<point>, m map<text, frozen<point>>, q frozen<point>",
    )
    target = make(
        "b",
        "k int, p spot, f2 frozen<spot>, name text, entry frozen<spot>, q frozen<spot>, "
        "c frozen<spot>, u spot, PRIMARY KEY (k, q, name)",
    )
    for k, name in ((1, "'one'"), (2, "null")):
        reader.execute(
            f"INSERT INTO {origin} (k, p, f, m, q) VALUES ({k}, {{x: {k}, name: {name}}}, "
            f"{{y: {k}}}, {{'a': {{x: 1}}, 'b': {{y: 2}}}}, {{x: {k}, y: 0}})"
        )
    columns = Columns(
        rename={"f": "f2"},
        constants={"c": {"x": 7, "name": "const"}, "u": {"y": 8}},
        explode_map=ExplodeMap("m", "name", "entry"),
    )
    assert copy(origin, target, columns).written == 4
    for row in rows_of(reader, target):
        k = row["k"]
        assert (row["p"].x, row["p"].y) == (k, None)
        assert row["p"].name == ("one" if k == 1 else None)
        assert (row["f2"].y, row["f2"].x) == (k, None)
        assert (row["q"].x, row["q"].y, row["q"].name) == (k, 0, None)
        assert (row["c"].x, row["c"].y, row["c"].name) == (7, None, "const")
        assert (row["u"].x, row["u"].y) == (None, 8)
        assert (row["entry"].x, row["entry"].y) == ((1, None) if row["name"] == "a" else (None, 2))


def test_a_type_with_reordered_fields_is_changed_by_name(connection, reader, keyspace, make, copy):
    session = connection.session
    session.execute(f"CREATE TYPE {keyspace}.old (x int, y text)")
    session.execute(f"CREATE TYPE {keyspace}.young (y text, z int, x int)")
    origin = make("a", "k int PRIMARY KEY, p old, m map<text, frozen<old>>, v text")
    target = make(
        "b", "k int, p young, name text, entry frozen<young>, v text, PRIMARY KEY (name, k)"
    )
    reader.execute(
        f"INSERT INTO {origin} (k, p, m) VALUES (1, {{x: 1, y: 'a'}}, {{'e': {{x: 2, y: 'b'}}}})"
    )
    reader.execute(f"UPDATE {origin} USING TIMESTAMP 5 SET p.x = 9, v = 'v' WHERE k = 1")
    copy(
        origin,
        target,
        Columns(explode_map=ExplodeMap("m", "name", "entry")),
        compare_writetime=True,
    )
    (row,) = rows_of(reader, target)
    assert (row["p"].x, row["p"].y, row["p"].z) == (1, "a", None)
    assert (row["entry"].x, row["entry"].y, row["entry"].z) == (2, "b", None)


# -- static columns ------------------------------------------------------------------------------


def test_static_cells_are_changed_like_others(connection, reader, make, copy, differ):
    origin = make("a", "k int, c int, s int STATIC, j text STATIC, v int, PRIMARY KEY (k, c)")
    target = make(
        "b",
        "tenant text, k int, c int, s2 text STATIC, n int STATIC, made_by text STATIC, v int, "
        "PRIMARY KEY ((tenant, k), c)",
    )
    insert_rows(connection, origin, [{"k": 1, "c": 1, "s": 5, "j": '{"n": 3}', "v": 1}])
    insert_rows(connection, origin, [{"k": 2, "c": 1, "v": 1}, {"k": 3, "s": 6}])
    columns = Columns(
        rename={"s": "s2"},
        constants={"tenant": "t", "made_by": "me"},
        codecs=("INT_STRING",),
        extract_json=ExtractJson("j", {"n": "n"}),
    )
    counts = copy(origin, target, columns)
    assert (counts.read, counts.added, counts.written) == (3, -1, 2)
    query = f"SELECT k, c, s2, n, made_by, v FROM {target}"
    assert {tuple(row.values()) for row in reader.execute(query)} == {
        (1, 1, "5", 3, "me", 1),
        (2, 1, None, None, "me", 1),
        (3, None, "6", None, "me", None),
    }
    reader.execute(f"DELETE n FROM {target} WHERE tenant = 't' AND k = 1")
    counts, names = differ(origin, target, columns)
    assert counts == (0, 0, 1)
    assert names == {"static cells of k=1, tenant='t'": ("n",)}


def test_a_static_value_that_only_the_target_lacks_is_missing(connection, reader, make, differ):
    origin = make("a", "k int, c int, j text STATIC, PRIMARY KEY (k, c)")
    target = make("b", "k int, c int, n int STATIC, PRIMARY KEY (k, c)")
    insert_rows(connection, origin, [{"k": 1, "c": 1, "j": '{"n": 3}'}])
    columns = Columns(extract_json=ExtractJson("j", {"n": "n"}))
    copy_table(connection, origin, target, columns=columns)
    assert differ(origin, target, columns) == (MATCH, {})
    reader.execute(f"DELETE n FROM {target} WHERE k = 1")
    assert differ(origin, target, columns)[0] in ((1, 0, 0), (0, 0, 1))
