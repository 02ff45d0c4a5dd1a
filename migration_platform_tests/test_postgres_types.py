"""Every cell becomes a value of PostgreSQL, and that the same cell again."""

import re
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from struct import pack

import psycopg
import pytest
import yaml
from cassandra.marshal import vints_pack
from hypothesis import given, settings
from hypothesis import strategies as st

from migration_platform.cql.elements import (
    write_elements,
    write_entries,
    write_fields,
)
from migration_platform.cql.forms import write_varint
from migration_platform.cql.types import CqlType, parse_type
from migration_platform.cql.values import encode_value
from migration_platform.errors import PreflightError
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.stack import Running
from migration_platform.stores.postgres.codecs import (
    Codec,
    UnholdableValue,
    codec_for,
    cql_type_of,
    offered_types,
    why_unfit,
)
from migration_platform.stores.postgres.types import PgType, read_types, resolve_type
from migration_platform_tests.servers import REPOSITORY
from migration_platform_tests.typed_cells import SCALARS, cells_of, cql_types, scalar


@dataclass
class Database:
    """A connection to a schema of its own, and what copies cells through its tables."""

    connection: psycopg.Connection
    types: dict[str, PgType] = field(default_factory=dict)

    def execute(self, statement: str) -> None:
        self.connection.execute(statement.encode())

    def type_of(self, text: str) -> PgType:
        """Give a type as its user writes it; asked once."""
        if text not in self.types:
            self.types[text] = resolve_type(self.connection, text)
        return self.types[text]

    def through(
        self, columns: Sequence[tuple[PgType, Sequence[bytes]]], *, distinct: bool = False
    ) -> list[list[bytes | None]]:
        """Copy values of some columns into one table and out again; of equal rows only one."""
        names = [f"c{at}" for at in range(len(columns))]
        kinds = ", ".join(f"{n} {kind}" for n, (kind, _) in zip(names, columns, strict=True))
        parts = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
        for at in range(max(len(values) for _, values in columns)):
            parts.append(pack(">hii", len(columns) + 1, 4, at))
            for _, values in columns:
                value = values[at] if at < len(values) else None
                parts.append(pack(">i", -1) if value is None else pack(">i", len(value)) + value)
        which, order = ("DISTINCT ON (c0)", "c0") if distinct else ("", "at")
        out = f"COPY (SELECT {which} * FROM cells ORDER BY {order}) TO STDOUT (FORMAT BINARY)"
        with self.connection.transaction(), self.connection.cursor() as cursor:
            self.execute(f"CREATE TEMPORARY TABLE cells (at int, {kinds}) ON COMMIT DROP")
            with cursor.copy("COPY cells FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(b"".join(parts) + b"\xff\xff")
            with cursor.copy(out.encode()) as copy:
                return rows_of(b"".join(map(bytes, copy)))


def rows_of(copied: bytes) -> list[list[bytes | None]]:
    """Cut what COPY wrote into rows of values, without the first column."""
    rows, at = [], 19
    while True:
        count = int.from_bytes(copied[at : at + 2], "big", signed=True)
        at += 2
        if count < 0:
            return rows
        row: list[bytes | None] = []
        for _ in range(count):
            size = int.from_bytes(copied[at : at + 4], "big", signed=True)
            at += 4
            row.append(None if size < 0 else copied[at : at + size])
            at += max(size, 0)
        rows.append(row[1:])


class CountingCursor(psycopg.Cursor):
    """Counts the statements of all cursors."""

    executed = 0

    def execute(self, *args, **options):
        CountingCursor.executed += 1
        return super().execute(*args, **options)


@pytest.fixture(scope="module")
def database(postgres: Running) -> Iterator[Database]:
    """A database of its own: an extension is there once in each."""
    address = f"host={LOCALHOST} port={postgres.port} user=postgres connect_timeout=60"
    name = f"types_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(address, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    with psycopg.connect(
        address, dbname=name, autocommit=True, cursor_factory=CountingCursor
    ) as connection:
        found = Database(connection)
        for statement in (
            *("CREATE SCHEMA shop", "SET search_path = shop"),
            "CREATE EXTENSION vector",
        ):
            found.execute(statement)
        yield found


# -- there and back ----------------------------------------------------------------------------


def what_comes_back(codec: Codec, cell: bytes) -> bytes:
    return codec.canonical(cell) if codec.canonical else cell


def encoded(codec: Codec, cell: bytes) -> bytes | None:
    """Give the value of a cell; None if it is refused, in one sentence."""
    try:
        value = codec.encode(cell) if codec.encode else cell
    except UnholdableValue:
        return None
    return value if not codec.refuses or codec.refuses(cell) is None else None


def assert_comes_back(
    database: Database, columns: Sequence[tuple[CqlType, PgType, Codec, Sequence[bytes]]]
) -> int:
    """Copy cells there and back, and say how many were taken."""
    taken = []
    for _, kind, codec, cells in columns:
        pairs = [(cell, encoded(codec, cell)) for cell in cells]
        taken.append((kind, [(c, v) for c, v in pairs if v is not None]))
    rows = database.through([(kind, [v for _, v in pairs]) for kind, pairs in taken])
    for at, (cql_type, kind, codec, _) in enumerate(columns):
        for row, (cell, _) in zip(rows, taken[at][1], strict=False):
            value = row[at]
            assert value is not None
            back = codec.decode(value) if codec.decode else value
            assert back == what_comes_back(codec, cell), (str(cql_type), str(kind), cell, value)
    return sum(len(pairs) for _, pairs in taken)


@pytest.mark.parametrize("name", SCALARS)
def test_every_cell_of_a_type_comes_back_from_every_type_that_is_offered(
    database: Database, name: str
) -> None:
    cql_type = scalar(name)

    @settings(max_examples=12)
    @given(st.lists(cells_of(cql_type), min_size=1, max_size=60))
    def come_back(cells: list[bytes]) -> None:
        columns = []
        for offered in offered_types(cql_type):
            kind = database.type_of(offered)
            codec = codec_for(cql_type, kind)
            assert codec is not None, (cql_type, offered)
            columns.append((cql_type, kind, codec, cells))
        assert_comes_back(database, columns)

    come_back()


def codec_of(database: Database, cql: str, pg: str, **options) -> Codec:
    found = codec_for(parse_type(cql), database.type_of(pg), **options)
    assert found is not None, (cql, pg)
    return found


def cell_of(value, cql: str) -> bytes:
    return value if isinstance(value, bytes) else encode_value(value, parse_type(cql))


def millis(number: int) -> bytes:
    return pack(">q", number)


def day(number: int) -> bytes:
    """Give the date so many days after 1970."""
    return pack(">I", number + 2**31)


def decimal_cell(number: int, scale: int) -> bytes:
    return pack(">i", scale) + write_varint(number)


def duration_cell(*parts: int) -> bytes:
    return bytes(vints_pack(list(parts)))


FIRST_MS, LAST_MS = -210_866_803_200_000, 9_224_318_015_999_999
"""The milliseconds of PostgreSQL's first and last moment, from 1970."""
NANS = [b"\x7f\xc0\0\0", b"\xff\xc0\0\0", b"\x7f\xc0\0\1", b"\x7f\x80\0\1"]
WIDE_NANS = [b"\x7f\xf8" + bytes(6), b"\xff\xf8" + bytes(6), b"\x7f\xf0" + bytes(5) + b"\1"]
EXTREMES: list[tuple[str, str, list]] = [
    ("text", "text", ["", "ä€😀", "a\r\n\t\x7f'\"\\", "␀␛", "x" * 100_000, " x "]),
    ("text", "varchar(4)", ["", "ä€😀 ", "    "]),
    ("text", "json", ["{}", ' {"a" : [1.50, 1e400, null],\n"a":"\\u0000"} ', '""']),
    ("blob", "bytea", [b"", b"\0\xff", bytes(range(256))]),
    ("tinyint", "smallint", [-128, 127, 0]),
    ("smallint", "smallint", [-(2**15), 2**15 - 1, 0]),
    ("int", "integer", [-(2**31), 2**31 - 1, 0]),
    ("int", "smallint", [-(2**15), 2**15 - 1]),
    ("int", "numeric(12,2)", [-(2**31), 2**31 - 1, 0]),
    ("bigint", "bigint", [-(2**63), 2**63 - 1, 0]),
    ("bigint", "integer", [-(2**31), 2**31 - 1]),
    ("counter", "bigint", [millis(-(2**63)), millis(2**63 - 1)]),
    ("varint", "bigint", [-(2**63), 2**63 - 1, 0]),
    ("varint", "smallint", [-(2**15), b"\0\0\0\1"]),
    ("varint", "numeric", [0, -1, 10**131_071, -(10**131_072) + 1, 10**4400, b"\0\0\0\1"]),
    ("varint", "numeric(20)", [10**20 - 1, -(10**20) + 1, 0]),
    (
        "decimal",
        "numeric",
        [
            *(Decimal("1.50"), Decimal("0.000"), Decimal("-0.05"), Decimal("100.0100"), 10**9),
            *(decimal_cell(1, 16_383), decimal_cell(-(10**20_000) + 1, 16_383)),
            *(decimal_cell(7, -131_071), decimal_cell(0, -(2**31)), decimal_cell(12, -3)),
            *(b"\0\0\0\2\0\0\1", decimal_cell(0, 16_383)),
        ],
    ),
    (
        "decimal",
        "numeric(6,2)",
        [Decimal("9999.99"), Decimal("1.5"), Decimal("-1.500"), 0, decimal_cell(99, -2)],
    ),
    ("decimal", "numeric(3,-2)", [99_900, -100, Decimal("12E+3"), 0]),
    ("decimal", "numeric(2,4)", [Decimal("0.0099"), Decimal("-0.001")]),
    ("decimal", "text", [Decimal("1.50"), decimal_cell(1, 2**31 - 1), decimal_cell(1, -(2**31))]),
    ("float", "real", [0.0, -0.0, 1e-45, 3.4028234663852886e38, "inf", "-inf", *NANS]),
    ("float", "double precision", [0.1, -0.0, 1e-45, "inf", "-inf", *NANS]),
    ("double", "double precision", [-0.0, 5e-324, 1.7976931348623157e308, "-inf", *WIDE_NANS]),
    ("boolean", "boolean", [True, False, b"\2"]),
    ("uuid", "uuid", [bytes(16), b"\xff" * 16]),
    ("inet", "inet", ["0.0.0.0", "255.255.255.255", "::", "::ffff:1.2.3.4", "2001:db8::1"]),
    ("timestamp", "timestamptz", [*map(millis, (0, -1, FIRST_MS, LAST_MS, 946_684_800_000))]),
    ("timestamp", "timestamp", [*map(millis, (0, -1, FIRST_MS, LAST_MS))]),
    ("timestamp", "timestamp(3)", [*map(millis, (0, -1, LAST_MS))]),
    ("timestamp", "timestamptz(1)", [*map(millis, (0, -100, 1_700_000_000_300))]),
    ("timestamp", "bigint", [*map(millis, (-(2**63), 2**63 - 1))]),
    ("timestamp", "text", [*map(millis, (-(2**63), 2**63 - 1, 0))]),
    ("date", "date", [*map(day, (-2_440_588, 2_145_042_905, 0, -1))]),
    ("date", "integer", [*map(day, (-(2**31), 2**31 - 1, 0))]),
    ("date", "text", [*map(day, (-(2**31), 2**31 - 1, 0))]),
    ("time", "time", [*map(millis, (0, 86_399_999_999_000))]),
    ("time", "time(3)", [*map(millis, (0, 86_399_999_000_000))]),
    ("time", "bigint", [*map(millis, (1, 86_399_999_999_999))]),
    (
        "duration",
        "interval",
        [
            duration_cell(0, 0, 0),
            duration_cell(2**31 - 1, 2**31 - 1, 2**63 - 1 - 807),
            duration_cell(-(2**31), -(2**31), -(2**63) + 808),
            duration_cell(0, 30, 0),
            duration_cell(1, 0, 0),
            duration_cell(0, 1, 86_400 * 10**9),
        ],
    ),
    ("duration", "jsonb", [duration_cell(2**31 - 1, 0, 2**63 - 1), duration_cell(-1, -2, -3)]),
    ("vector<float, 3>", "real[]", [[1.0, -0.0, 1e-45], NANS[0] + b"\x7f\x80\0\0" + NANS[2]]),
    ("vector<float, 3>", "vector(3)", [[1.0, -0.0, 3.4028234663852886e38]]),
    ("vector<float, 3>", "vector", [[1.0, -2.0, 1e-45]]),
    ("vector<text, 2>", "text[]", [["", "ä"]]),
    ("list<int>", "integer[]", [[], [1], [3, 1, 3]]),
    ("list<text>", "text[]", [[], [""], ["NULL", "{", "b", "a"]]),
    ("list<text>", "varchar(3)[]", [[], ["äää", "a  "]]),
    ("set<decimal>", "numeric[]", [[], [Decimal("1.50"), Decimal("1E+2")]]),
    ("set<timestamp>", "timestamptz[]", [[], ["2024-01-01", 0]]),
    ("set<int>", "bigint[]", [[-1, 2**31 - 1, -(2**31)]]),
    ("map<text, int>", "jsonb", [{}, {"": 1, "b": 2, "aa": 3, "😀": 4}]),
    ("map<text, int>", "jsonb", [{"a": 1, "b": 1}, {"ab": -1, "ac": -1, "é": 0, '"': 7}]),
    ("list<int>", "jsonb", [list(range(-1500, 1500)), [1, 1], [2**31 - 1] * 40]),
    ("map<decimal, text>", "jsonb", [[[Decimal("10.0"), "x"], [Decimal("9"), ""]]]),
    ("map<int, double>", "jsonb", [{10: -0.0, 9: "nan", -1: "inf", 0: 1e300, 1: 0.1}]),
    ("map<int, frozen<list<bigint>>>", "jsonb", [{1: [], 2: [2**63 - 1, -(2**63)]}]),
    ("tuple<int, text>", "jsonb", [write_fields([None, b""]), write_fields([b"\0\0\0\1"])]),
    ('{a int, b text, "C d" boolean}', "jsonb", [{}, {"b": ""}, {"a": 1, "b": "x", "C d": True}]),
    ("list<frozen<map<text, text>>>", "jsonb[]", [[], [{"a": "1"}, {}]]),
    ("set<text>", "jsonb", [[], ["", "é", "z"]]),
]


def test_the_extremes_of_every_type_come_back(database: Database) -> None:
    columns = []
    for cql, pg, values in EXTREMES:
        cql_type, codec = parse_type(cql), codec_of(database, cql, pg)
        cells = [cell_of(value, cql) for value in values]
        columns.append((cql_type, database.type_of(pg), codec, cells))
    taken = assert_comes_back(database, columns)
    assert taken == sum(len(values) for *_, values in EXTREMES)


NUL, HALF = b"a\0b", b"\xed\xa0\x80"
AS_BYTES = r"; declare target\.columns\.NAME\.type: bytea$"
REFUSED: list[tuple[str, str, object, str]] = [
    ("text", "text", NUL, rf"^a NUL at byte 1 of the text is no character that .* hold{AS_BYTES}"),
    ("ascii", "varchar(9)", NUL, r"^a NUL at byte 1"),
    ("text", "text", HALF, rf"^its bytes are no text: .* at byte 0{AS_BYTES}"),
    ("text", "varchar(3)", "äöü ", r"^äöü  has 4 characters, and varchar\(3\) holds 3; .*: text$"),
    ("text", "varchar(3)", HALF + b"a", "^its bytes are no text"),
    ("int", "varchar(3)", -100, r"^-100 has 4 characters, and varchar\(3\) holds 3"),
    ("text", "json", "{a: 1}", "^its text is no JSON that json holds .*; declare .*: text$"),
    ("text", "json", "NaN", "NaN is no number of JSON"),
    ("text", "jsonb", r'{"a": ["\u0000"]}', "a text in it has a NUL"),
    ("text", "jsonb", r'"\ud800"', "half of a surrogate pair"),
    ("text", "jsonb", "[" * 100_000 + "]" * 100_000, "nested too deep"),
    ("list<text>", "text[]", write_elements([b"", NUL]), "^a NUL at byte 1"),
    ("list<text>", "jsonb", write_elements([NUL]), "^a NUL at byte 1"),
    ("map<text, int>", "jsonb", write_entries([(NUL, b"\0\0\0\1")]), "^a NUL at byte 1"),
    ("map<int, int>", "jsonb", write_entries([(bytes(4), None)] * 2), "^a key stands twice in"),
    ("int", "smallint", 32_768, "^32768 is beyond smallint; declare .*: integer$"),
    ("bigint", "integer", -(2**31) - 1, "^-2147483649 is beyond integer; declare .*: bigint$"),
    ("varint", "bigint", 2**63, "^9223372036854775808 is beyond bigint; declare .*: numeric$"),
    ("bigint", "numeric(3)", 1000, r"^1000 has more digits than numeric\(3\) holds; .*: numeric$"),
    (
        "varint",
        "numeric",
        write_varint(10**131_072),
        "^0x.* has more digits than numeric holds; .*: text$",
    ),
    ("decimal", "numeric", decimal_cell(1, 16_384), "has more digits than numeric holds"),
    ("decimal", "numeric", decimal_cell(1, 2**31 - 1), "has more digits than numeric holds"),
    ("decimal", "numeric", decimal_cell(1, -131_072), "has more digits than numeric holds"),
    ("decimal", "numeric", decimal_cell(1, -(2**31)), "has more digits than numeric holds"),
    ("decimal", "numeric(6,2)", Decimal("1.555"), r"^1.555 would be rounded as numeric\(6,2\)"),
    ("decimal", "numeric(6,2)", 10_000, r"^10000 has more digits than numeric\(6,2\) holds"),
    ("decimal", "numeric(6,2)", decimal_cell(1, 2**31 - 1), "would be rounded"),
    ("decimal", "numeric(6,2)", decimal_cell(1, -(2**31)), "has more digits"),
    ("decimal", "numeric(3,-2)", 150, r"^150 would be rounded as numeric\(3,-2\)"),
    ("decimal", "numeric(2,4)", Decimal("0.01"), "^0.01 has more digits"),
    ("timestamp", "timestamptz", millis(LAST_MS + 1), "is beyond timestamptz, .*: bigint$"),
    ("timestamp", "timestamp", millis(FIRST_MS - 1), "is beyond timestamp, which has 4713 BC"),
    ("timestamp", "timestamptz", millis(-(2**63)), "is beyond timestamptz"),
    ("timestamp", "timestamptz(0)", millis(1), r"rounded as timestamp\(0\) with time zone;"),
    ("date", "date", day(2_145_042_906), "is beyond date, .* 5874897-12-31; .*: integer$"),
    ("date", "date", day(-2_440_589), "is beyond date"),
    ("time", "time", "10:00:00.000000001", "is finer than time can be; declare .*: bigint$"),
    ("time", "time(3)", "10:00:00.000001", r"is finer than time\(3\) can be"),
    ("time", "time", millis(86_400 * 10**9), "are no time of day$"),
    ("time", "time", millis(-1), "are no time of day$"),
    ("duration", "interval", duration_cell(0, 0, 1), "is finer than interval can be; .*: jsonb$"),
    ("vector<float, 1>", "vector(1)", NANS[0], r"none that pgvector holds; .*: real\[\]$"),
    ("vector<float, 1>", "vector(1)", b"\x7f\x80\0\0", "none that pgvector holds"),
    ("vector<float, 1>", "real[]", b"", "^an empty value of no bytes is no vector<float, 1>"),
    ("tuple<int>", "jsonb", b"\0\0", "^its 2 bytes are no frozen<tuple<int>>$"),
    ("tuple<int>", "jsonb", write_fields([b"\1"]), "^its 5 bytes are no frozen<tuple<int>>$"),
    *[
        (cql, offered_types(scalar(cql))[0], b"", "^an empty value of no bytes .*: text$")
        for cql in SCALARS
        if cql not in ("text", "ascii", "blob", "custom")
    ],
    *[
        (cql, offered_types(scalar(cql))[0], b"\1\2\3", "^its 3 bytes are no ")
        for cql in ("tinyint", "int", "bigint", "float", "double", "boolean", "uuid", "inet")
    ],
]


@pytest.mark.parametrize(("cql", "pg", "value", "sentence"), REFUSED)
def test_what_postgresql_cannot_hold_is_refused_with_the_reason(
    database: Database, cql: str, pg: str, value: object, sentence: str
) -> None:
    codec, cell = codec_of(database, cql, pg), cell_of(value, cql)
    try:
        if codec.encode:
            codec.encode(cell)
        found = codec.refuses(cell) if codec.refuses else None
    except UnholdableValue as refusal:
        found = str(refusal)
    assert found
    assert re.search(sentence, found)
    assert len(found) < 400


@pytest.mark.parametrize(
    ("cql", "pg", "cell"),
    [
        *[("text", "text", NUL), ("text", "text", HALF), ("int", "integer", b"")],
        *[("uuid", "uuid", b"\1"), ("list<text>", "text[]", write_elements([NUL]))],
    ],
)
def test_what_passes_as_it_is_and_is_said_to_be_refused_is_refused_by_the_server(
    database: Database, cql: str, pg: str, cell: bytes
) -> None:
    codec = codec_of(database, cql, pg)
    assert codec.refuses
    assert codec.refuses(cell)
    value = codec.encode(cell) if codec.encode else cell
    with pytest.raises(psycopg.Error):
        database.through([(database.type_of(pg), [value])])


@pytest.mark.parametrize(
    ("cql", "pg", "literal"),
    [
        *[("timestamp", "timestamptz", "infinity"), ("timestamp", "timestamptz", "-infinity")],
        *[("timestamp", "timestamp", "2024-01-01 00:00:00.000001"), ("date", "date", "infinity")],
        *[("time", "time", "24:00"), ("decimal", "numeric", "NaN"), ("varint", "numeric", "1.5")],
        *[("decimal", "numeric", "infinity"), ("int", "numeric", "3000000000")],
        *[("tinyint", "smallint", "128"), ("int", "bigint", "3000000000"), ("uuid", "text", "x")],
        *[("inet", "inet", "10.0.0.0/8"), ("float", "double precision", "0.1")],
        *[("list<int>", "integer[]", "{{1},{2}}"), ("list<int>", "jsonb", '{"a": 1}')],
        *[("list<int>", "jsonb", "[1.5]"), ("list<int>", "jsonb", '["1"]')],
        *[("list<int>", "jsonb", '[1, "1"]'), ("map<text, int>", "jsonb", '{"a": 1, "b": "1"}')],
        *[("map<int, int>", "jsonb", '{"x": 1}'), ("map<int, int>", "jsonb", '"x"')],
        *[("map<int, int>", "jsonb", "[]"), ("map<int, int>", "jsonb", "3")],
        *[("tuple<int, int>", "jsonb", "[1]"), ("{a int}", "jsonb", '{"b": 1}')],
        *[("list<text>", "jsonb", "[1]"), ("list<boolean>", "jsonb", "[0]")],
        *[("vector<float, 2>", "real[]", "{1}"), ("vector<float, 2>", "vector", "[1]")],
        *[("duration", "jsonb", '{"days": 1}'), ("decimal", "jsonb", "true")],
        *[("list<decimal>", "jsonb", "[[]]"), ("{a int}", "jsonb", "null")],
    ],
)
def test_a_value_that_nobody_can_have_written_is_no_cell(
    database: Database, cql: str, pg: str, literal: str
) -> None:
    cursor = database.connection.cursor(binary=True)
    kind = database.type_of(pg)
    with cursor.copy(f"COPY (SELECT '{literal}'::{kind}) TO STDOUT (FORMAT BINARY)".encode()) as c:
        found = b"".join(map(bytes, c))
    # A single value: a header, the number of columns and a length stand before it.
    value, decode = found[25:-2], codec_of(database, cql, pg).decode
    assert decode
    with pytest.raises(ValueError, match=r"."):
        decode(value)


# -- what is made of others --------------------------------------------------------------------


def test_nested_types_come_back_from_all_types_that_are_offered(database: Database) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=60)
    @given(st.data())
    def come_back(data: st.DataObject) -> None:
        columns = []
        for cql_type in data.draw(st.lists(cql_types(depth=3), min_size=1, max_size=6)):
            cells = data.draw(st.lists(cells_of(cql_type), min_size=1, max_size=6))
            for offered in offered_types(cql_type):
                kind = database.type_of(offered)
                codec = codec_for(cql_type, kind)
                assert codec is not None, (cql_type, offered)
                columns.append((cql_type, kind, codec, cells))
        seen["taken"] += assert_comes_back(database, columns)
        seen["all"] += sum(len(cells) for *_, cells in columns)

    come_back()
    # What is not taken are texts with a NUL and values of no bytes.
    assert seen["taken"] > seen["all"] * 0.6


@settings(max_examples=60)
@given(cql_types(depth=3), st.data())
def test_the_one_form_of_a_cell_is_the_form_of_itself(cql_type: CqlType, data: st.DataObject):
    cell = data.draw(cells_of(cql_type))
    for name in ("jsonb", "text"):
        codec = codec_for(cql_type, PgType(name, 0))
        assert codec
        if codec.canonical:
            assert codec.canonical(codec.canonical(cell)) == codec.canonical(cell)


CUSTOMER = '{name text, age int, spent decimal, tags frozen<list<text>>, "Home Town" text}'


@pytest.fixture(scope="module")
def own_types(database: Database) -> Database:
    """Types that users made."""
    for statement in (
        "CREATE TYPE mood AS ENUM ('sad', 'Very Happy', 'ok')",
        'CREATE TYPE "order" AS ENUM ($$it\'s$$)',
        "CREATE DOMAIN amount AS numeric(10,2) CHECK (VALUE >= 0)",
        "CREATE DOMAIN short AS varchar(5)",
        "CREATE DOMAIN shorts AS short[]",
        'CREATE TYPE customer AS (age bigint, "Home Town" short, gone int, name text,'
        " spent amount, tags varchar(4)[])",
        "ALTER TYPE customer DROP ATTRIBUTE gone",
        "CREATE TYPE pair AS (mood mood, at timestamptz)",
        "CREATE TABLE visits (at timestamp(0), who customer, pairs pair[])",
        "CREATE TYPE deep AS (visit visits)",
    ):
        database.execute(statement)
    return database


def test_types_that_users_made_take_what_fits(own_types: Database) -> None:
    rich = {"name": "x", "age": -1, "spent": "7.5", "tags": ["ab", ""], "Home Town": "Köln "}
    values: list[tuple[str, str, list]] = [
        ("text", "mood", ["sad", "Very Happy"]),
        ("ascii", "mood", ["ok"]),
        ("text", '"order"', ["it's"]),
        ("list<text>", "mood[]", [[], ["ok", "ok"]]),
        ("decimal", "amount", [Decimal("1.5"), 99_999_999]),
        ("int", "amount", [0, 2**20]),
        ("text", "short", ["", "äöüßx"]),
        ("list<text>", "short[]", [[], ["", "äöüßx"]]),
        ("list<text>", "shorts", [[], ["", "äöüßx"]]),
        (CUSTOMER, "customer", [{}, {"name": ""}, rich, write_fields([b"only one"])]),
        (f"list<frozen<{CUSTOMER}>>", "customer[]", [[], [rich, {}]]),
        ("tuple<text, timestamp>", "pair", [write_fields([b"ok", millis(7)]), ["sad", 0]]),
        ("map<text, frozen<tuple<int, uuid>>>", "jsonb", [{"a": [1, str(uuid.uuid4())]}]),
    ]
    columns = []
    for cql, pg, given_values in values:
        cells = [cell_of(value, cql) for value in given_values]
        codec = codec_of(own_types, cql, pg)
        columns.append((parse_type(cql), own_types.type_of(pg), codec, cells))
    assert assert_comes_back(own_types, columns) == sum(len(cells) for *_, cells in columns)


@pytest.mark.parametrize(
    ("cql", "pg", "value", "sentence"),
    [
        ("text", "mood", "happy", r"^happy is no label of shop\.mood; declare .*: text$"),
        ("text", "mood", "", "is no label of"),
        ("text", "short", "äöüßxy", r"has 6 characters, and varchar\(5\) holds 5"),
        ("decimal", "amount", Decimal("0.001"), r"would be rounded as numeric\(10,2\)"),
        (CUSTOMER, "customer", {"Home Town": "Berlin"}, "has 6 characters"),
        (CUSTOMER, "customer", {"tags": ["a", "12345"]}, "has 5 characters"),
        (CUSTOMER, "customer", {"name": "a\0"}, "^a NUL at byte 1"),
    ],
)
def test_a_value_that_a_users_type_does_not_hold_is_refused(
    own_types: Database, cql: str, pg: str, value: object, sentence: str
) -> None:
    test_what_postgresql_cannot_hold_is_refused_with_the_reason(own_types, cql, pg, value, sentence)


# -- keys --------------------------------------------------------------------------------------

KEY_TYPES = [scalar(name) for name in SCALARS if name not in ("duration", "custom")] + [
    parse_type(text)
    for text in (
        *("frozen<list<float>>", "frozen<set<text>>", "frozen<list<decimal>>", "tuple<int, text>"),
        *("frozen<map<int, double>>", "frozen<{a int, b decimal}>", "vector<float, 2>"),
    )
]


@pytest.mark.parametrize("cql_type", KEY_TYPES, ids=str)
def test_two_keys_are_never_one_row(database: Database, cql_type: CqlType) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=8)
    @given(st.lists(cells_of(cql_type), min_size=1, max_size=60, unique=True))
    def stay_apart(cells: list[bytes]) -> None:
        for offered in offered_types(cql_type, is_key=True):
            kind = database.type_of(offered)
            codec = codec_for(cql_type, kind, is_key=True)
            assert codec is not None, offered
            assert codec.canonical is None
            values = [encoded(codec, cell) for cell in cells]
            taken = [value for value in values if value is not None]
            rows = database.through([(kind, taken)], distinct=True)
            assert len(rows) == len(taken)
            backs = [codec.decode(row[0]) if codec.decode else row[0] for row in rows if row[0]]
            assert set(backs) <= set(cells)
            seen[offered] += len(taken)

    stay_apart()
    assert sum(seen.values())


@pytest.mark.parametrize(
    ("cql", "pg"),
    [
        *[("decimal", "numeric"), ("decimal", "numeric(9,2)"), ("duration", "interval")],
        *[("frozen<list<decimal>>", "numeric[]"), ("text", "jsonb"), ("int", "jsonb")],
        *[("frozen<map<int, int>>", "json"), ("vector<float, 2>", "vector(2)")],
        *[("tuple<text, timestamp>", "pair"), ("decimal", "amount")],
    ],
)
def test_types_that_take_different_values_for_one_hold_no_keys(
    own_types: Database, cql: str, pg: str
) -> None:
    cql_type, kind = parse_type(cql), own_types.type_of(pg)
    assert codec_for(cql_type, kind) is not None
    assert codec_for(cql_type, kind, is_key=True) is None
    reason = why_unfit(cql_type, kind, is_key=True)
    assert "differ at the origin may be equal there; types that do are " in reason
    assert reason.endswith(", ".join(offered_types(cql_type, is_key=True)))


@pytest.mark.parametrize(
    ("cql", "pg", "value", "sentence"),
    [
        ("double", "double precision", -0.0, "^-0.0 as a key is one with another value's in"),
        ("float", "double precision", -0.0, "^-0.0 as a key is one"),
        ("float", "real", NANS[1], "^NaN as a key is one"),
        ("varint", "numeric", b"\0\1", "^1 has not the usual bytes of its value, and another"),
        ("decimal", "text", b"\0\0\0\0\0\1", "^1 has not the usual bytes"),
        ("boolean", "boolean", b"\2", "^true has not the usual bytes"),
        ("tuple<int, int>", "text", write_fields([bytes(4)]), "has not the usual bytes"),
        ("frozen<list<float>>", "real[]", [-0.0], "^-0.0 as a key is one"),
    ],
)
def test_keys_in_an_unusual_form_are_refused(
    database: Database, cql: str, pg: str, value: object, sentence: str
) -> None:
    codec = codec_of(database, cql, pg, is_key=True)
    assert codec.encode
    with pytest.raises(UnholdableValue, match=rf"{sentence}.*{AS_BYTES}"):
        codec.encode(cell_of(value, cql))
    assert codec_for(parse_type(cql), PgType("bytea", 17), is_key=True) == Codec(
        note="the cell's own bytes"
    )


# -- NUL ---------------------------------------------------------------------------------------

SIGNS = st.text("\0␀␛a⒀", max_size=8).map(str.encode)


@given(SIGNS, SIGNS)
def test_an_escaped_text_has_no_nul_and_is_that_of_no_other(one: bytes, other: bytes) -> None:
    codec = codec_for(CqlType("text"), PgType("text", 25), nul="escape")
    assert codec
    assert codec.encode
    assert codec.decode
    value = codec.encode(one)
    assert b"\0" not in value
    assert codec.decode(value) == one
    assert (codec.encode(other) == value) == (one == other)


def test_texts_with_a_nul_come_back_where_they_are_escaped(database: Database) -> None:
    columns = []
    for cql, pg, value in [
        *[("text", "text", "a\0␀␛"), ("text", "varchar(3)", "\0\0\0")],
        *[("list<text>", "text[]", ["\0", "␛␛␀"]), ("list<text>", "jsonb", ["\0", "␀\\0"])],
        *[("map<text, int>", "jsonb", {"\0": 1, "␀": 2}), ("{a text}", "text", {"a": "\0"})],
    ]:
        codec = codec_of(database, cql, pg, nul="escape")
        assert encoded(codec_of(database, cql, pg), cell_of(value, cql)) is None
        columns.append((parse_type(cql), database.type_of(pg), codec, [cell_of(value, cql)]))
    assert assert_comes_back(database, columns) == len(columns)


@pytest.mark.parametrize("value", ["␛", "␛a", "␛␛␛", "␀␛"])
def test_an_escape_of_nothing_is_no_cell(value: str) -> None:
    codec = codec_for(CqlType("text"), PgType("text", 25), nul="escape")
    assert codec
    assert codec.decode
    with pytest.raises(ValueError, match="escapes nothing"):
        codec.decode(value.encode())


# -- JSON that a text is -----------------------------------------------------------------------


def test_a_text_that_is_json_is_the_same_document_in_jsonb(database: Database) -> None:
    codec = codec_of(database, "text", "jsonb")
    texts = [
        *(' {"b" : 1, "aa":[1.50, 1e2, -0, 0.0, 1E-3, "\\u00e9\\ud83d\\ude00"]} ', '"x"', "[]"),
        *('{"a": 1, "a": 2}', "null", "12345678901234567890.5", '{"": {"\\/": true}}'),
    ]
    cells = [text.encode() for text in texts]
    kind = database.type_of("jsonb")
    columns = [(CqlType("text"), kind, codec, cells)]
    assert assert_comes_back(database, columns) == len(texts)
    assert codec.canonical
    assert len({codec.canonical(cell) for cell in cells}) == len(texts)
    assert not codec.exact


# -- types by name -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        *[("INT", "integer"), ("int8", "bigint"), ("double  precision", "double precision")],
        *[("character varying(20)", "varchar(20)"), ("varchar", "varchar"), ("char(3)", "char(3)")],
        *[("numeric", "numeric"), ("numeric(10,2)", "numeric(10,2)"), ("decimal(5)", "numeric(5)")],
        *[("numeric(3, -2)", "numeric(3,-2)"), (" text [ ] ", "text[]"), ("_text", "text[]")],
        *[("timestamp", "timestamp"), ("timestamp with time zone", "timestamptz")],
        *[("timestamptz(3)", "timestamp(3) with time zone"), ("time(0)", "time(0)")],
        *[("time(2) with time zone", "time(2) with time zone"), ("pg_catalog.int4", "integer")],
        *[("timestamp(3) without time zone", "timestamp(3)"), ("varchar(9)[]", "varchar(9)[]")],
        *[("mood", "shop.mood"), ('"order"', 'shop."order"'), ("shop.mood[]", "shop.mood[]")],
        *[("vector(3)", "shop.vector(3)"), ("vector", "shop.vector"), ("shorts", "shop.shorts")],
        *[('"char"', '"char"'), ("bit varying", "varbit"), ('"mood"', "shop.mood")],
        *[("MOOD", "shop.mood"), ("boolean", "boolean"), ("real", "real")],
    ],
)
def test_a_type_that_a_user_writes_is_found_and_shown_as_sql_has_it(
    own_types: Database, written: str, shown: str
) -> None:
    kind = resolve_type(own_types.connection, written)
    assert str(kind) == shown
    assert resolve_type(own_types.connection, str(kind)) == kind


@pytest.mark.parametrize(
    "written",
    [
        *["", " ", "text; DROP TABLE x", "text)", "text--", "text /* */", "'text'", "text, int"],
        *["varchar(1); --", "varchar('1')", "varchar(1,2,3)", "a.b.c", '"a', '"', '""', "text[3]"],
        *["text[][]", "text\0", '"a\0"', "numeric(999999)", "text with time zone", "1text", "$1"],
        *["text::int", "(select 1)", "text collate x", "%s", "{a int}", "text\n;select"],
    ],
)
def test_a_text_that_is_no_type_never_comes_to_a_statement(
    database: Database, written: str
) -> None:
    with pytest.raises(PreflightError, match=r"is no type; write a name as in SQL, such as text"):
        resolve_type(database.connection, written)


@pytest.mark.parametrize(
    "written",
    ["no_such", "select", "text(3)", "varchar(0)", 'nowhere."A;B"'],
)
def test_a_type_that_the_server_does_not_know_is_refused_in_one_sentence(
    database: Database, written: str
) -> None:
    with pytest.raises(PreflightError, match=r"^the server knows no type .*: [^\n]+$"):
        resolve_type(database.connection, written)
    # The transaction goes on.
    assert database.connection.execute("SELECT 1").fetchone() == (1,)


def test_types_are_read_with_all_that_they_are_made_of(own_types: Database) -> None:
    kind = own_types.type_of("deep")
    ((_, visits),) = kind.fields
    names = [name for name, _ in visits.fields]
    assert (visits.kind, names) == ("composite", ["at", "who", "pairs"])
    at, who, pairs = (inner for _, inner in visits.fields)
    assert str(at) == "timestamp(0)"
    assert [(name, str(inner)) for name, inner in who.fields] == [
        ("age", "bigint"),
        ("Home Town", "shop.short"),
        ("name", "text"),
        ("spent", "shop.amount"),
        ("tags", "varchar(4)[]"),
    ]
    spent = dict(who.fields)["spent"]
    assert spent.kind == "domain"
    assert spent.base
    assert spent.base.digits == (10, 2)
    assert pairs.element
    mood = dict(pairs.element.fields)["mood"]
    assert mood.labels == ("sad", "Very Happy", "ok")


def test_many_types_are_read_by_few_queries_in_the_order_asked(own_types: Database) -> None:
    asked = [own_types.type_of(text) for text in ("deep", "text", "mood", "int", "shorts")]
    wanted = [(kind.oid, kind.modifier) for kind in asked] * 50
    before = CountingCursor.executed
    found = read_types(own_types.connection, wanted)
    assert found == asked * 50
    assert CountingCursor.executed - before <= 15
    with pytest.raises(PreflightError, match="no type with the number 4000000000"):
        read_types(own_types.connection, [(4_000_000_000, -1)])


def test_types_that_lie_deep_in_each_other_are_read_to_some_depth(database: Database) -> None:
    database.execute("CREATE TYPE level_0 AS (inner_one int)")
    for level in range(1, 12):
        database.execute(f"CREATE TYPE level_{level} AS (inner_one level_{level - 1})")
    kind, levels = database.type_of("level_11"), 0
    while kind.kind == "composite":
        ((_, kind),) = kind.fields
        levels += 1
    assert (levels, kind.kind) == (8, "other")
    assert cql_type_of(database.type_of("level_11")) is None


@pytest.mark.parametrize(
    ("pg", "cql"),
    [
        *[("smallint", "smallint"), ("integer", "int"), ("bigint", "bigint"), ("real", "float")],
        *[("double precision", "double"), ("numeric(9,2)", "decimal"), ("boolean", "boolean")],
        *[("varchar(3)", "text"), ("jsonb", "text"), ("bytea", "blob"), ("uuid", "uuid")],
        *[("timestamptz", "timestamp"), ("timestamp", "timestamp"), ("date", "date")],
        *[("time", "time"), ("interval", "duration"), ("inet", "inet"), ("mood", "text")],
        *[
            ("text[]", "frozen<list<text>>"),
            ("amount", "decimal"),
            ("vector(3)", "vector<float, 3>"),
        ],
        *[("shorts", "frozen<list<text>>"), ("pair", "frozen<{mood text, at timestamp}>")],
        *[("pair[]", "frozen<list<frozen<{mood text, at timestamp}>>>")],
        *[(name, None) for name in ("vector", "char(3)", "xml", "money", "timetz", "name", "cidr")],
    ],
)
def test_a_type_has_a_cql_type_whose_cells_it_takes(
    own_types: Database, pg: str, cql: str | None
) -> None:
    kind = own_types.type_of(pg)
    found = cql_type_of(kind)
    assert (str(found) if found else None) == cql
    assert found is None or codec_for(found, kind) is not None


@pytest.mark.parametrize(
    ("cql", "pg", "reason"),
    [
        ("text", "char(3)", r"^char\(3\) fills values up with spaces, .*; types that do are text,"),
        ("decimal", "integer", "^integer holds no decimal; types that do are numeric, jsonb, text"),
        ("double", "real", "^real holds no double; types that do are double precision,"),
        ("text", "integer", "^integer holds no text; types that do are text, varchar, bytea$"),
        ("list<frozen<list<int>>>", "integer[]", r"^integer\[\] holds no list<.*; .* are jsonb,"),
        (
            CUSTOMER,
            "pair",
            "^shop.pair has other fields than {name .*types that do are jsonb",
        ),
        ("tuple<int>", "pair", "pair holds no frozen<tuple<int>>"),
        ("vector<float, 3>", "vector(2)", r"vector\(2\) holds no vector<float, 3>"),
        ("vector<int, 3>", "vector", r"vector holds no vector<int, 3>; types that do are integer"),
        ("uuid", "xml", "^xml holds no uuid"),
        ("timestamp", "timetz", "^timetz holds no timestamp"),
        ("inet", "cidr", "^cidr holds no inet"),
        ("int", "mood", "mood holds no int"),
        ("text", '"char"', '^"char" holds no text'),
        ("duration", "interval(3)", "^an interval of some fields, or with a precision, would cut"),
    ],
)
def test_a_type_that_does_not_fit_is_refused_with_those_that_do(
    own_types: Database, cql: str, pg: str, reason: str
) -> None:
    cql_type, kind = parse_type(cql), own_types.type_of(pg)
    assert codec_for(cql_type, kind) is None
    assert re.search(reason, why_unfit(cql_type, kind))


# -- the page ----------------------------------------------------------------------------------

PAGE = (REPOSITORY / "docs" / "postgres-types.md").read_text("utf-8")


def rows_of_page(title: str) -> list[list[str]]:
    """Give the rows of a section's table, without its head."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[part.strip() for part in line.strip("|").split(" | ")] for line in lines]


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_page_tells_the_types_that_are_offered_and_what_they_do_not_hold(
    database: Database,
) -> None:
    told = set()
    for kinds, first, others, lacking in rows_of_page("Columns"):
        for text in codes(kinds):
            cql_type = parse_type(text)
            offered = offered_types(cql_type)
            assert [f"`{offered[0]}`", codes(others)] == [first, [*offered[1:]]], text
            told.add(cql_type.name)
            codec = codec_for(cql_type, database.type_of(offered[0]))
            assert codec
            assert codec.note in lacking
            assert codec.exact or "comes back" in lacking
    assert told == {*SCALARS, "list", "set", "map", "tuple", "udt", "vector"}


def test_the_page_tells_the_types_of_keys() -> None:
    told = set()
    for kinds, first, others in rows_of_page("Keys"):
        for text in codes(kinds):
            offered = offered_types(parse_type(text), is_key=True)
            assert [f"`{offered[0]}`", codes(others)] == [first, [*offered[1:]]], text
            told.add(parse_type(text).name)
    for name in {*SCALARS} - told:
        in_columns = [kind for kind in offered_types(scalar(name)) if kind not in ("jsonb", "json")]
        assert [*offered_types(scalar(name), is_key=True)] == in_columns, name


@pytest.mark.parametrize("row", rows_of_page("JSON"), ids=lambda row: row[1])
def test_the_page_shows_values_as_the_json_that_they_become(row: list[str]) -> None:
    (cql, *_), (value,), (shown,) = map(codes, row)
    codec = codec_for(parse_type(f"frozen<list<{cql}>>"), PgType("jsonb", 3802))
    assert codec
    assert codec.encode
    cell = encode_value([yaml.safe_load(value)], parse_type(f"frozen<list<{cql}>>"))
    assert codec.encode(cell) == b"\1" + f"[{shown}]".encode()


def test_a_database_with_pgvector_is_offered_its_type(database: Database) -> None:
    cql_type = parse_type("vector<float, 3>")
    offered = offered_types(cql_type, vectors=True)
    assert offered[:2] == ("vector(3)", "real[]")
    assert codec_for(cql_type, database.type_of(offered[0]))
    assert "vector" not in str(offered_types(cql_type, vectors=True, is_key=True))
    assert "vector" not in str(offered_types(parse_type("vector<int, 3>"), vectors=True))
    assert "vector" not in str(offered_types(parse_type("vector<float, 16001>"), vectors=True))


def test_without_the_driver_the_extra_that_brings_it_is_named() -> None:
    program = """
import sys
sys.modules["psycopg"] = None
from migration_platform.errors import PreflightError
try:
    import migration_platform.stores.postgres.codecs
except PreflightError as failure:
    print(failure)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == (
        "a PostgreSQL store needs the package psycopg, which is not installed; install it with: "
        "pip install 'migration-platform[postgres]'\n"
    ), done.stderr
