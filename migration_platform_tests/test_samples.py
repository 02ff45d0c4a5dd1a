"""What a message shows of a key or a value: it can be pasted into CQL, and it has a sane length."""

import struct
from uuid import UUID

import pytest
from cassandra import InvalidRequest
from cassandra.query import BoundStatement
from hypothesis import given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

from migration_platform.comparing.diff import diff_ranges
from migration_platform.cql.keys import show_key
from migration_platform.cql.samples import cut_sample, show_literal, show_sample
from migration_platform.cql.types import parse_type
from migration_platform.runs.workers import WorkerPool
from migration_platform_tests.tables import create_table, insert_rows, plan_copy

BIG = struct.Struct(">q")


def whole(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def frozen_elements(*elements: bytes) -> bytes:
    lengths = [struct.pack(">i", len(element)) + element for element in elements]
    return struct.pack(">i", len(elements)) + b"".join(lengths)


def frozen_fields(*fields: bytes | None) -> bytes:
    return b"".join(
        struct.pack(">i", -1) if field is None else struct.pack(">i", len(field)) + field
        for field in fields
    )


TEXTS = st.text(max_size=20).map(str.encode)
MOMENTS = st.one_of(whole(8), st.integers(-(10**15), 10**15).map(BIG.pack))
DAYS = st.one_of(whole(4), st.integers(-(10**6), 10**6).map(lambda n: struct.pack(">I", n + 2**31)))
BYTES_OF = {
    "ascii": st.text(st.characters(max_codepoint=127), max_size=20).map(str.encode),
    "bigint": whole(8),
    "blob": st.binary(max_size=20),
    "boolean": st.sampled_from([b"\0", b"\1", b"\2"]),
    "date": DAYS,
    "decimal": st.tuples(st.integers(-400, 400).map(struct.Struct(">i").pack), whole(3)).map(
        b"".join
    ),
    "double": whole(8),
    "float": whole(4),
    "inet": st.one_of(whole(4), whole(16)),
    "int": st.one_of(whole(4), st.just(b"")),
    "smallint": whole(2),
    "text": TEXTS,
    "time": st.integers(0, 86_399_999_999_999).map(BIG.pack),
    "timestamp": MOMENTS,
    "timeuuid": st.uuids().map(lambda one: UUID(int=one.int, version=1).bytes),
    "tinyint": whole(1),
    "uuid": whole(16),
    "varint": st.binary(min_size=1, max_size=20),
    "frozen<list<text>>": st.lists(TEXTS, max_size=3).map(lambda them: frozen_elements(*them)),
    "frozen<set<date>>": DAYS.map(frozen_elements),
    "frozen<map<timestamp, ascii>>": MOMENTS.map(
        lambda one: struct.pack(">ii", 1, 8) + one + struct.pack(">i", 4) + b"it's"
    ),
    "frozen<tuple<timestamp, text>>": st.tuples(st.none() | MOMENTS, st.none() | TEXTS).map(
        lambda both: frozen_fields(*both)
    ),
}


@pytest.mark.parametrize("cql_type", BYTES_OF)
def test_the_key_that_is_shown_is_cql_that_finds_the_row(connection, keyspace, cql_type):
    table = create_table(
        connection, keyspace, "a", f'p int, "K" {cql_type}, v blob, PRIMARY KEY ((p, "K"))'
    )
    session = connection.session
    insert = session.prepare(f'INSERT INTO {table} (p, "K", v) VALUES (?, ?, ?)')
    found = 0

    @of_hypothesis(max_examples=30, deadline=None)
    @given(BYTES_OF[cql_type])
    def paste(cell: bytes) -> None:
        nonlocal found
        write = BoundStatement(insert)
        write.values = [b"\0\0\0\0", cell, cell]
        try:
            session.execute(write)
        except InvalidRequest:
            return  # a server holds no such bytes
        shown = show_key([("p", "int", b"\0\0\0\0"), ("K", cql_type, cell)])
        assert shown.startswith('p=0, "K"=')
        assert len(shown.splitlines()) == 1
        literal = show_literal(cell, parse_type(cql_type))
        if "... (" not in shown:
            assert shown == f'p=0, "K"={literal}'
        where = f'p=0 AND "K"={literal}'
        assert [row[0] for row in session.execute(f"SELECT v FROM {table} WHERE {where}")] == [cell]
        found += 1

    paste()
    assert found


@pytest.mark.parametrize(
    ("cql_type", "cell", "shown"),
    [
        ("text", b"it's", "'it''s'"),
        ("text", b"two\nlines", "blobAsText(0x74776f0a6c696e6573)"),
        ("int", b"", "blobAsInt(0x)"),
        ("date", struct.pack(">I", 2**31), "'1970-01-01'"),
        ("date", struct.pack(">I", 2**31 + 10_000_000), "2157483648"),
        ("date", struct.pack(">I", 0), "0"),
        ("timestamp", BIG.pack(1_706_696_430_500), "'2024-01-31T10:20:30.500Z'"),
        ("timestamp", BIG.pack(10**15), "1000000000000000"),
        ("timestamp", BIG.pack(-(10**14)), "-100000000000000"),
        ("inet", bytes((192, 0, 2, 1)), "'192.0.2.1'"),
        ("blob", b"", "0x"),
        ("double", struct.pack(">d", float("-inf")), "-Infinity"),
    ],
)
def test_a_key_is_shown_as_cql(cql_type: str, cell: bytes, shown: str):
    assert show_key([("k", cql_type, cell)]) == f"k={shown}"


def test_a_date_beyond_the_calendar_is_shown_as_the_number_that_a_server_reads():
    assert show_sample(struct.pack(">I", 2**31 + 10_000_000), parse_type("date")) == "2157483648"


@pytest.mark.parametrize(
    ("cql_type", "cell", "shown"),
    [
        ("blob", b"\xab" * 60_000, "0x" + "ab" * 49 + "... (60,000 bytes)"),
        ("text", b"a" * 500, "'" + "a" * 99 + "... (500 characters)"),
        ("text", b"'" * 500, "'" * 100 + "... (500 characters)"),
        ("text", b"\n" * 500, "blobAsText(0x" + "0a" * 43 + "0... (500 bytes)"),
        ("varint", b"\x01" + b"\0" * 50, str(2**400)[:100] + "... (121 characters)"),
        ("text", b"a" * 98, "'" + "a" * 98 + "'"),
    ],
)
def test_a_long_key_is_cut_and_its_length_is_told(cql_type: str, cell: bytes, shown: str):
    assert show_key([("k", cql_type, cell)]) == f"k={shown}"


def test_a_long_value_is_cut_and_its_length_is_told():
    assert show_sample(b"a" * 500, parse_type("text")) == "a" * 100 + "... (500 characters)"
    assert cut_sample("a" * 100) == "a" * 100
    assert show_sample(None, parse_type("text")) == "null"


def test_a_row_with_a_key_of_60_kilobytes_differs_in_a_short_sentence(
    connection, settings, keyspace
):
    body = "k blob PRIMARY KEY, v text"
    origin = create_table(connection, keyspace, "a", body)
    target = create_table(connection, keyspace, "b", body)
    insert_rows(connection, origin, [{"k": b"\xab" * 60_000, "v": "x" * 5_000}])
    insert_rows(connection, target, [{"k": b"\xab" * 60_000, "v": "y" * 5_000}])
    plan = plan_copy(connection, origin, target, token_ranges=1)
    with WorkerPool(plan, settings, settings, workers=1) as pool:
        (verdict,) = diff_ranges(pool, plan, plan.migration.ranges)
    (row,) = verdict.mismatched_rows
    assert row.key == "k=0x" + "ab" * 49 + "... (60,000 bytes)"
    assert row.changes == (
        ("v", "x" * 100 + "... (5,000 characters)", "y" * 100 + "... (5,000 characters)"),
    )
