"""A message gives the key of its row, byte by byte the server's own, or one reason why it does not.

`recorded/debezium/` holds what Debezium's connector for Cassandra 3.4.1 wrote beside a Cassandra
5.0.6: with its schemas, without them, keys of every type, and numbers as text.
"""

import itertools
import json
import re
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from cassandra.query import BoundStatement
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from migration_platform.cql.elements import write_elements, write_entries, write_fields
from migration_platform.cql.forms import usual_form
from migration_platform.cql.names import TableName
from migration_platform.cql.order import sort_key
from migration_platform.cql.texts import text_of
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.cql.values import encode_value
from migration_platform.declaration.sync import KafkaChanges
from migration_platform.errors import PreflightError
from migration_platform.plan.model import Column, Table
from migration_platform.syncing.changes import Key
from migration_platform.syncing.messages import (
    MAX_MESSAGE,
    ReadKey,
    compile_message_reader,
    parse_path,
)
from migration_platform.syncing.position import MAX_REASON
from migration_platform_tests.cells import ManyTables, many_tables
from migration_platform_tests.typed_cells import SCALARS

RECORDED = Path(__file__).parent / "recorded" / "debezium"


def table(partition: dict[str, str], clustering: dict[str, str] | None = None) -> Table:
    clustering = clustering or {}
    return Table(
        name=TableName("shop", "orders"),
        table_id="",
        columns=tuple(Column(*each) for each in {**partition, **clustering}.items()),
        partition_key=tuple(partition),
        clustering_columns=tuple(clustering),
        default_ttl_seconds=0,
    )


def reader(table: Table, **declared: Any) -> ReadKey:
    return compile_message_reader(KafkaChanges("monitoring", "changes", **declared), table)


def read_one(cql_type: str, value: Any, **declared: Any) -> bytes | str:
    """Read a key of one column from JSON; a text is why it is none."""
    found = reader(table({"k": cql_type}), **declared)(json.dumps({"k": value}).encode(), None)
    return found if isinstance(found, str) else found[0]


LINES = table({"customer": "int"}, {"day": "text", "number": "int"})
ONE = pack(">i", 1)


# -- json: where a key stands ------------------------------------------------------------------


def test_a_key_stands_at_the_top_or_where_its_path_leads():
    assert reader(LINES)(b'{"customer": 1, "number": 2, "day": "mon", "x": {}}', None) == (
        ONE,
        b"mon",
        pack(">i", 2),
    )
    paths = {"customer": "after.customer_id", "day": r"after.a\.b\\.day", "number": "n"}
    message = {"after": {"customer_id": 1, "a.b\\": {"day": "tue"}}, "n": 3}
    assert reader(LINES, key=paths)(json.dumps(message).encode(), None) == (
        ONE,
        b"tue",
        pack(">i", 3),
    )


def test_what_select_json_writes_for_a_name_with_capitals_is_found():
    odd = table({"Id": "int"}, {"a.b": "text"})
    assert reader(odd)(b'{"\\"Id\\"": 1, "\\"a.b\\"": "x"}', None) == (ONE, b"x")
    assert reader(odd)(b'{"Id": 1, "a.b": "x"}', None) == (ONE, b"x")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("a", ("a",)),
        ("a.b.c", ("a", "b", "c")),
        (r"a\.b.c", ("a.b", "c")),
        (r"a\\.b", ("a\\", "b")),
        ("ü .x", ("ü ", "x")),
    ],
)
def test_a_path_leads_through_names_and_a_backslash_keeps_a_dot(path, names):
    assert parse_path(path) == names


@pytest.mark.parametrize("path", ["", ".", ".a", "a.", "a..b", "a\\", r"a\b"])
def test_a_path_that_leads_nowhere_is_refused_before_anything_is_read(path):
    with pytest.raises(PreflightError, match=r"^sync\.kafka\.key\.customer is "):
        reader(LINES, key={"customer": path})


def test_columns_that_are_not_of_the_key_are_refused():
    with pytest.raises(PreflightError, match=r"names b, which .* valid are customer, day, number"):
        reader(LINES, key={"b": "x"})


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ({"customer": 1, "day": "mon"}, (ONE, b"mon")),
        ({"customer": 1, "day": "mon", "number": None}, (ONE, b"mon")),
        ({"customer": 1, "day": None, "number": 7}, (ONE,)),
        ({"customer": 1}, (ONE,)),
        ({"customer": 1, "day": ""}, (ONE, b"")),
    ],
)
def test_a_key_that_lacks_clustering_columns_stands_for_all_that_begin_with_it(message, key):
    assert reader(LINES)(json.dumps(message).encode(), None) == key


def test_a_deletion_without_a_value_is_read_from_the_messages_own_key():
    paths = {"customer": "after.customer", "day": "after.day", "number": "after.number"}
    read = reader(LINES, key=paths)
    assert read(None, b'{"customer": 1, "day": "mon"}') == (ONE, b"mon")
    assert read(None, b'{"after": {"customer": 1}}') == (ONE,)
    # In a value only the path counts: what stands at the top may be anything.
    assert isinstance(read(b'{"customer": 1, "after": null}', b'{"customer": 1}'), str)
    assert read(None, None) == "it has neither a value nor a key"
    assert read(None, b"1") == "its key is a whole number; it must be an object"
    assert read(None, b"x") == "its key, as it has no value, is no JSON"


def test_json_of_a_schema_registrys_client_is_read_and_avro_is_named():
    assert reader(LINES)(b'\0\0\0\0\x07{"customer": 1}', None) == (ONE,)
    assert reader(LINES)(b"\0\0\0\0\x07\x02\x02", None) == (
        "its value is no JSON; Avro and Protobuf are not read"
    )


# -- json: what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "its value is no JSON"),
        (b"\xff", "its value is no text in UTF-8"),
        (b"[" * 100_000, "its value is no JSON that is read: it is nested too deep"),
        (b'{"customer":' * 100_000, "its value is no JSON that is read: it is nested too deep"),
        (b'{"customer": ' + b"9" * 5_000 + b"}", "its value is no JSON"),
        (b'{"x": 1.' + b"9" * 5_000 + b"}", "its value is no JSON"),
        (b"null", "its value is null; it must be an object"),
        (b'"customer"', "its value is a text of 8 characters; it must be an object"),
        (
            b'{"customer": null}',
            "its value has nothing, or null, at customer, where customer of the partition key "
            "must be",
        ),
        (
            b'{"customer": 2147483648}',
            "customer in its value is a whole number, which is no int",
        ),
        (b'{"customer": 1.0}', "customer in its value is a number with a point, which is no int"),
        (b'{"customer": true}', "customer in its value is true or false, which is no int"),
        (b'{"customer": [1]}', "customer in its value is a list of 1, which is no int"),
        (
            b'{"customer": 1, "day": "\\ud800"}',
            "day in its value is a text of 1 characters, which is no text",
        ),
        (
            b'{"customer": 1, "day": "' + b"x" * 70_000 + b'"}',
            "day in its value is a text of 70000 characters, which is no text: with 70000 bytes "
            "it is too long for a key",
        ),
        (
            b" " * (MAX_MESSAGE + 1),
            f"its value has {MAX_MESSAGE + 1} bytes; {MAX_MESSAGE} are read at most",
        ),
    ],
)
def test_a_value_without_a_key_that_can_be_read_gives_a_reason(message, reason):
    assert reader(LINES)(message, None) == reason


def test_keys_that_no_row_has_are_refused():
    assert read_one("text", "") == "its partition key is empty, which no row has"
    read = reader(table({"a": "text", "b": "text"}))
    assert read(b'{"a": "", "b": ""}', None) == (b"", b"")
    long = json.dumps({"a": "x" * 40_000, "b": "x" * 40_000}).encode()
    assert read(long, None) == "its partition key is longer than any row has"


@pytest.mark.parametrize(
    ("cql_type", "value"),
    [
        ("timestamp", "2024-01-31T10:20:30"),
        ("timestamp", "2024-01-31 10:20:30.000"),
        ("timestamp", "2024-01-31"),
        ("timestamp", "1582-10-04 00:00:00.000Z"),
        ("timestamp", "0001-01-01T00:00:00Z"),
        ("timestamp", "-0001-01-01T00:00:00Z"),
        ("timestamp", "+292275056-05-16 16:47:04.192Z"),
        ("timestamp", "10000-01-01T00:00:00Z"),
        ("timestamp", "2024-02-30T00:00:00Z"),
        ("timestamp", "2024-01-31T24:61:00Z"),
        ("timestamp", 1.5),
        ("timestamp", True),
        ("timestamp", 2**63),
        ("date", "2024-02-30"),
        ("date", "31.1.2024"),
        ("date", 2**31),
        ("date", 1.5),
        ("time", "24:00:00"),
        ("time", "10:60:00"),
        ("time", 37230),
        ("uuid", "123e4567e89b42d3a456426614174000"),
        ("timeuuid", "123e4567-e89b-42d3-a456-426614174000"),
        ("inet", "fe80::1%eth0"),
        ("inet", 2130706433),
        ("blob", "cafe"),
        ("blob", "0xcaf"),
        ("boolean", 1),
        ("decimal", "NaN"),
        ("decimal", "1E2147483649"),
        ("decimal", True),
        ("double", "1e999"),
        ("float", 1e39),
        ("varint", "1e3"),
        ("varint", "9" * 4_301),
        ("text", 5),
        ("ascii", "ü"),
        ("duration", "1d"),
        ("frozen<list<int>>", [1, None]),
        ("frozen<list<int>>", "[1]"),
        ("frozen<list<int>>", [0] * 70_000),
        ("frozen<tuple<int,text>>", [1]),
        ("frozen<{a int}>", {"a": 1, "b": 2}),
        ("frozen<map<int,int>>", {"x": 1}),
        ("frozen<map<int,int>>", [[1]]),
    ],
)
def test_a_value_that_may_not_be_the_key_that_is_meant_is_refused(cql_type, value):
    found = read_one(cql_type, value)
    assert isinstance(found, str)
    assert found.startswith("k in its value is ")
    assert len(found) <= MAX_REASON


def test_numbers_that_ask_for_more_memory_than_there_is_are_refused_at_once():
    for text in ("1E999999999999", "-1E-999999999999", "1E2147483647", "1E+2147483648"):
        message = b'{"k": %s}' % text.encode()
        for cql_type in ("decimal", "double", "varint", "frozen<set<decimal>>"):
            reader(table({"k": cql_type}))(message, None)
    assert read_one("decimal", "1E2147483648") == pack(">i", -(2**31)) + b"\1"


# -- json: cells -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cql_type", "values"),
    [
        ("bigint", [9007199254740993, "9007199254740993", "+9007199254740993"]),
        ("varint", [5, "5"]),
        ("timestamp", [1706696430000, "1706696430000", "2024-01-31T10:20:30Z"]),
        ("timestamp", ["2024-01-31T10:20:30Z", "2024-01-31 12:20:30.000+0200"]),
        ("timestamp", ["2024-01-31T10:20:30Z", "2024-01-31T05:20:30-05:00"]),
        ("timestamp", ["2024-01-31T10:20:30.123Z", "2024-01-31T10:20:30.123999Z"]),
        ("timestamp", ["2024-01-31T10:20Z", "2024-01-31 10:20 UTC"]),
        ("date", ["1970-01-02", 1]),
        ("date", ["1969-12-31", -1]),
        ("time", ["10:20:30", "10:20:30.000000000"]),
        ("boolean", [True, "true"]),
        ("inet", ["2001:db8::1", "2001:db8:0:0:0:0:0:1"]),
        ("double", [0.5, "0.5", "5e-1"]),
        ("double", [1, 1.0]),
        ('frozen<{a int, "B" text}>', [{"a": 1, "B": None}, {"a": 1}, {"a": 1, '"B"': None}]),
        ("frozen<set<int>>", [[2, 1, 2], [1, 2]]),
    ],
)
def test_what_is_written_in_several_ways_is_one_cell(cql_type, values):
    cells = [read_one(cql_type, value) for value in values]
    assert isinstance(cells[0], bytes), cells[0]
    assert set(cells) == {cells[0]}


def test_a_decimal_keeps_its_scale():
    read = reader(table({"k": "decimal"}))
    for text in ("1.50", "1.5", "1E+2", "100", "-0.0", "0E-10"):
        found = read(b'{"k": %s}' % text.encode(), None)
        assert found == (encode_value(text, parse_type("decimal")),)
        assert found == read(b'{"k": "%s"}' % text.encode(), None)


def test_numbers_that_are_none_are_read_in_every_way_they_are_written():
    infinite = reader(table({"k": "double"}))
    assert infinite(b'{"k": Infinity}', None) == infinite(b'{"k": "Infinity"}', None)
    assert infinite(b'{"k": NaN}', None) == (pack(">d", float("nan")),)


# -- json: there and back through a server -----------------------------------------------------

NO_KEYS = ("counter", "duration", "custom")
NESTED = {
    "frozen<list<int>>": "frozen<list<int>>",
    "frozen<set<decimal>>": "frozen<set<decimal>>",
    "frozen<set<blob>>": "frozen<set<blob>>",
    "frozen<map<int, text>>": "frozen<map<int, text>>",
    "frozen<map<uuid, boolean>>": "frozen<map<uuid, boolean>>",
    "frozen<map<frozen<tuple<int, text>>, date>>": "frozen<map<frozen<tuple<int, text>>, date>>",
    "frozen<list<frozen<set<time>>>>": "frozen<list<frozen<set<time>>>>",
    "frozen<tuple<int, text, inet>>": "frozen<tuple<int, text, inet>>",
    "frozen<pair>": 'frozen<{"Id" bigint, note text}>',
}


def solid(cql_type: CqlType) -> st.SearchStrategy[bytes]:
    """Cells as servers take them for keys: within them nothing is empty."""
    inner = [solid(kind) for kind in cql_type.parameters]
    if cql_type.name == "list":
        return st.lists(inner[0], max_size=3).map(write_elements)
    if cql_type.name == "set":
        order = sort_key(cql_type.parameters[0])
        elements = st.lists(inner[0], max_size=3, unique_by=order)
        return elements.map(lambda found: write_elements(sorted(found, key=order)))
    if cql_type.name == "map":
        order = sort_key(cql_type.parameters[0])
        entries = st.lists(st.tuples(*inner), max_size=3, unique_by=lambda entry: order(entry[0]))
        return entries.map(lambda found: write_entries(sorted(found, key=lambda e: order(e[0]))))
    if cql_type.name in ("tuple", "udt"):
        kinds = inner or [solid(kind) for _, kind in cql_type.fields]
        return st.tuples(*(st.none() | kind for kind in kinds)).map(write_fields)
    if cql_type.name == "timeuuid":
        return st.binary(min_size=16, max_size=16).map(
            lambda cell: cell[:6] + bytes([cell[6] & 0x0F | 0x10]) + cell[7:]
        )
    if cql_type.name == "inet":
        # A server writes one that stands for an IPv4 address as that one.
        return SCALARS["inet"].filter(lambda cell: cell[:12] != b"\0" * 10 + b"\xff\xff")
    return SCALARS[cql_type.name]


@pytest.fixture(scope="module")
def tables(connection) -> Any:
    with many_tables(connection) as tables:
        tables.add_type("pair", '"Id" bigint, note text')
        yield tables


@pytest.mark.parametrize(
    ("written", "cql_type"),
    [*((name, name) for name in SCALARS if name not in NO_KEYS), *NESTED.items()],
    ids=lambda each: re.sub(r"\W+", "_", each),
)
def test_what_a_server_writes_as_json_is_read_as_the_bytes_that_it_has(
    tables: ManyTables, connection, written, cql_type
):
    session, kind = connection.session, parse_type(cql_type)
    name = tables.make("t", f"p int, c {written}, PRIMARY KEY (p, c)")
    insert = session.prepare(f"INSERT INTO {name} (p, c) VALUES (?, ?)")
    select = session.prepare(f"SELECT JSON p, c FROM {name} WHERE p = ?")
    read = reader(table({"p": "int"}, {"c": cql_type}))
    usual = usual_form(kind) or bytes
    # A value's own form without what says nothing, such as zeros before a number; it keeps scales.
    shortest = (text_of(kind).canonical or bytes) if cql_type in SCALARS else usual
    numbers = itertools.count()

    @settings(max_examples=3, suppress_health_check=list(HealthCheck))
    @given(st.lists(solid(kind), min_size=10, max_size=30))
    def check(cells: list[bytes]) -> None:
        for number, cell in zip(numbers, cells, strict=False):
            write = BoundStatement(insert)
            write.values = [pack(">i", number), cell]
            session.execute(write)
            text = session.execute(select, [number]).one()[0]
            found = read(text.encode(), None)
            if is_lost_in_json(text, kind, found):
                continue
            assert isinstance(found, tuple), (text, found)
            assert found[0] == pack(">i", number)
            assert shortest(found[1]) == shortest(cell), text
            assert cql_type not in SCALARS or shortest(found[1]) == found[1], text

    check()


def is_lost_in_json(text: str, kind: CqlType, found: Key | str) -> bool:
    """Say whether a server's JSON does not tell the cell, and nothing wrong came of it."""
    if kind.name in ("float", "double") and '"c": null' in text:
        return found == (found[0],)  # not a number: the key is shorter, and stands for the row too
    if isinstance(found, tuple):
        return False
    if kind.name == "timestamp" and re.search(r'"c": "([+-]|0|1[0-4]|15[0-7]|158[0-2])', text):
        return "write milliseconds" in found
    # Numbers as Python itself refuses them.
    return len(text) > 4_300 and found == "its value is no JSON"


# -- debezium ----------------------------------------------------------------------------------


def recorded(name: str) -> list[dict[str, str | None]]:
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def bytes_of(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def debezium(keyed: Table) -> ReadKey:
    return reader(keyed, format="debezium")


def line(customer: int, day: str | None = None, number: int | None = None) -> Key:
    cells = (pack(">i", customer), day and day.encode(), number and pack(">i", number))
    return tuple(cell for cell in cells if cell is not None)


TOLD_OF_LINES = [
    line(1, "mon", 1),  # insert, with a set, a map, a list and a static column
    line(1, "mon", 1),  # update
    line(1, "mon", 1),  # added to collections
    line(1, "mon", 1),  # a cell deleted
    line(1, "mon", 1),  # a set deleted
    line(3, "mon", 1),  # with a TTL
    line(1, "mon", 1),  # row deleted,
    line(1, "mon", 1),  # and its message without a value
    line(1, "tue"),  # all rows of a day deleted
    line(1, "wed"),  # some rows of a day deleted
    line(1),  # all days from one on deleted
    line(1),  # partition deleted,
    line(1),  # and its message without a value
    line(4, "a", 1),  # a batch
    line(4, "a", 2),
    line(4, "b"),
]


@pytest.mark.parametrize("name", ["with_schemas", "plain"])
def test_debeziums_messages_give_the_keys_of_what_was_done(name):
    read = debezium(LINES)
    told = [each for each in recorded(name) if each["table"] == "lines"]
    assert [read(bytes_of(m["value"]), bytes_of(m["key"])) for m in told] == TOLD_OF_LINES


@pytest.mark.parametrize("name", ["with_schemas", "plain"])
def test_debeziums_keys_alone_tell_of_the_row_or_of_more(name):
    read = debezium(LINES)
    for message, key in zip(
        [each for each in recorded(name) if each["table"] == "lines"], TOLD_OF_LINES, strict=True
    ):
        found = read(None, bytes_of(message["key"]))
        assert isinstance(found, tuple)
        assert key[: len(found)] == found


def test_debeziums_names_with_capitals_and_dots_are_the_columns_own():
    read = debezium(table({"Id": "int"}, {"a.b": "text"}))
    told = [each for each in recorded("plain") if each["table"] == "Odd"]
    found = [read(bytes_of(m["value"]), bytes_of(m["key"])) for m in told]
    assert found == [(ONE, b"x"), (ONE, b"x"), (ONE, b"x"), (ONE,)]


VALUES: dict[str, tuple[Any, ...]] = {
    "ascii": ('a"b',),
    "bigint": (-9007199254740993,),
    "blob": ("0xcafe00",),
    "boolean": (True,),
    "date": ("2024-02-29",),
    "decimal": ("-12.500",),
    "double": (0.1,),
    "float": (3.4028235e38,),
    "inet": ("2001:db8::1", "192.0.2.1"),
    "int": (-7,),
    "smallint": (-8,),
    "text": ("ü😀",),
    "time": ("10:20:30.123456789",),
    "timestamp": ("2024-02-29T10:20:30.456Z",),
    "timeuuid": ("50554d6e-29bb-11e5-b345-feff819cdc9f",),
    "tinyint": (-9,),
    "uuid": ("123e4567-e89b-42d3-a456-426614174000",),
    "varint": ("123456789012345678901234567890",),
    "frozen<list<int>>": ([3, 1, 2],),
    "frozen<set<text>>": (["b", "a"],),
    "frozen<map<text,int>>": ({"b": 2, "a": 1},),
    "frozen<map<int,text>>": ({2: "b", 1: "a"},),
    "frozen<tuple<int,text>>": ([1, "x"],),
    "frozen<pair>": ({"a": 1, "b": "x"},),
}
"""What was written as partition key and as clustering column, once as a whole row."""
SURE_RANGES = ("text", "ascii", "tinyint", "smallint", "int", "bigint", "uuid", "timeuuid")


@pytest.mark.parametrize("written", VALUES, ids=lambda each: re.sub(r"\W+", "_", each))
def test_debeziums_keys_of_each_type_are_the_cells_that_were_written(written):
    cql_type = written.replace("pair", "{a int, b text}")
    cells = [encode_value(value, parse_type(cql_type)) for value in VALUES[written]]
    read = debezium(table({"k": cql_type}, {"c": cql_type}))
    name = "types_in_text" if written == "varint" else "types"
    told = [each for each in recorded(name) if each["table"] == written]
    found = [read(bytes_of(m["value"]), bytes_of(m["key"])) for m in told]
    expected: list[Key] = []
    for cell in cells:
        expected.append((cell, cell))
        if len(told) > 1:  # a range, a partition, and the message without a value
            expected += [(cell, cell) if written in SURE_RANGES else (cell,), (cell,), (cell,)]
    assert found == expected


def test_numbers_of_which_debezium_loses_something_are_refused_with_the_setting_that_helps():
    for cql_type, cell, setting in (
        ("varint", 5, "varint.handling.mode to string"),
        ("varint", "AY7pD/bDc+DuTj8K0g==", "varint.handling.mode to string"),
        ("decimal", 1.5, "decimal.handling.mode to precise"),
        ("decimal", "100", "decimal.handling.mode to precise"),
    ):
        value = {"after": {"k": {"value": cell, "deletion_ts": None, "set": True}}}
        found = debezium(table({"k": cql_type}))(json.dumps(value).encode(), None)
        assert isinstance(found, str)
        assert found.endswith(setting)


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (None, None, "it has neither a key nor a value with `after`; is it of Debezium's"),
        (b"{}", None, "it has neither a key nor a value with `after`; is it of Debezium's"),
        (b'{"after": null}', b"[]", "its key is a list of 0; it must be an object"),
        (b'{"after": {}}', b'{"customer": 1}', "after.customer is null, and is of the partition"),
        (b'{"after": {"customer": 1}}', None, "after.customer is a whole number, and no cell"),
        (b'{"after": {"customer": {"value": "x"}}}', None, "after.customer is a text of 1"),
        (b"x", b'{"customer": 1}', "its value is no JSON"),
    ],
)
def test_what_is_not_debeziums_gives_a_reason(value, key, reason):
    found = debezium(LINES)(value, key)
    assert isinstance(found, str)
    assert found.startswith(reason)


# -- hostile -----------------------------------------------------------------------------------

EVERYTHING = table(
    {name: name for name in SCALARS if name not in NO_KEYS[1:]},
    {
        "l": "frozen<list<frozen<map<int, decimal>>>>",
        "s": "frozen<set<frozen<tuple<date, text>>>>",
        "u": "frozen<{a timestamp, b frozen<set<varint>>}>",
    },
)
SCRAPS = st.sampled_from(
    [
        *("", "s3cret", "0x", "1e5", "NaN", "2024-01-31", "10:20:30", "0x73337a", "[]", "{}"),
        *("2024-01-31T10:20:30Z", "123e4567-e89b-12d3-a456-426614174000", "::1", "value", "after"),
        *EVERYTHING.primary_key,
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | SCRAPS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(SCRAPS | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys(EVERYTHING.primary_key, JSON))
CELLS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        [*EVERYTHING.primary_key, "_range_start", "_range_end"],
        st.fixed_dictionaries({"value": JSON, "values": JSON}) | JSON,
    ),
)
MESSAGES = (
    st.none()
    | st.binary(max_size=40)
    | (JSON | ROWS | st.fixed_dictionaries({"after": CELLS})).map(
        lambda value: json.dumps(value).encode()
    )
)
READERS = [reader(EVERYTHING), reader(EVERYTHING, format="debezium")] + [
    reader(table({name: EVERYTHING.type_of(name)}), format=kind)
    for name in EVERYTHING.primary_key
    for kind in ("json", "debezium")
]


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(MESSAGES, MESSAGES)
@example(b'{"text": "\\ud800"}', None)
@example(b'{"after": {"int": {"value": 1}, "_range_start": {"values": [{"name": 1}]}}}', None)
def test_whatever_comes_gives_a_key_or_a_reason_and_raises_nothing(value, key):
    for read in READERS:
        found = read(value, key)
        if isinstance(found, str):
            assert 0 < len(found) <= MAX_REASON
            assert "s3cret" not in found
            assert found.isprintable()
        else:
            assert found
            assert all(isinstance(cell, bytes) for cell in found)


@settings(max_examples=200)
@given(st.data())
def test_any_one_value_in_the_place_of_a_key_gives_its_cell_or_a_reason(data):
    name = data.draw(st.sampled_from(EVERYTHING.primary_key))
    value = data.draw(JSON)
    for kind, message in (("json", value), ("debezium", {"value": value})):
        read = reader(table({name: EVERYTHING.type_of(name)}), format=kind)
        content = {name: message} if kind == "json" else {"after": {name: message}}
        found = read(json.dumps(content).encode(), None)
        assert isinstance(found, str) or isinstance(found[0], bytes)
        assert "s3cret" not in (found if isinstance(found, str) else "")
