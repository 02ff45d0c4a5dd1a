"""Values with all byte forms that a server may hold of them, and requests that bind such bytes.

The driver would write each value in its usual form, so that what is bound here are the bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

from cassandra import ConsistencyLevel
from cassandra.protocol import ExecuteMessage
from cassandra.query import PreparedStatement

from migration_platform.cql.elements import write_elements, write_entries, write_fields
from migration_platform.cql.names import TableName, quote
from migration_platform.cql.rows import Page, split_cells
from migration_platform.cql.types import parse_type
from migration_platform.stores.cassandra.connection import Connection, page_of

Cells = list[bytes | None]
TWO = "{a int, b int}"
"""The user-defined type `two`, written out."""


@dataclass(frozen=True)
class Forms:
    """A type, and values of it: each a group of byte forms that its order takes for one.

    `name` is the type as CREATE TABLE takes it, `written_out` as the engine does.
    """

    name: str
    values: tuple[tuple[bytes, ...], ...]
    written_out: str = ""

    @property
    def cql_type(self):
        return parse_type(self.written_out or self.name)


def decimal(scale: int, unscaled: int, size: int = 0) -> bytes:
    size = size or (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return pack(">i", scale) + unscaled.to_bytes(size, "big", signed=True)


def integer(number: int) -> bytes:
    return pack(">i", number)


_ONE_HALF = (decimal(1, 15), decimal(2, 150), decimal(1, 15, 3), decimal(6, 1_500_000))
_TWO = (decimal(0, 2), decimal(3, 2000), decimal(0, 2, 4))
_NANS_OF_8 = tuple(
    map(bytes.fromhex, ("7ff8" + "0" * 12, "fff8" + "0" * 12, "7ff0" + "0" * 11 + "1"))
)
_NANS_OF_4 = tuple(map(bytes.fromhex, ("7fc00000", "ffc00000", "7f800001")))
_SHORT, _PADDED = write_fields([integer(1)]), write_fields([integer(1), None])
_NOTHING = (write_fields([None]), write_fields([None, None]))
_BOTH = (write_fields([integer(1), integer(2)]),)

CASES = (
    Forms(
        "decimal",
        (
            _ONE_HALF,
            _TWO,
            (decimal(0, 0), decimal(5, 0), decimal(-3, 0), decimal(0, 0, 2)),
            (decimal(-1, 1), decimal(0, 10), decimal(1, 100)),
            (decimal(1, -15), decimal(4, -15_000)),
            (decimal(-(2**31), 10),),
            (decimal(2**31 - 1, 10), decimal(2**31 - 2, 1)),
            (decimal(0, 10**30), decimal(-30, 1), decimal(-7, 10**23)),
        ),
    ),
    Forms(
        "varint",
        (
            (b"\x05", b"\x00\x05", b"\x00\x00\x05"),
            (b"\xfb", b"\xff\xfb"),
            (b"\x00", b"\x00\x00"),
            (b"\x00\x80", b"\x00\x00\x80"),
            (b"\x80",),
        ),
    ),
    Forms("double", (_NANS_OF_8, (pack(">d", 0.0),), (pack(">d", -0.0),), (pack(">d", 1.5),))),
    Forms("float", (_NANS_OF_4, (pack(">f", 0.0),), (pack(">f", -0.0),), (pack(">f", 1.5),))),
    Forms("boolean", ((b"\x01", b"\x02", b"\xff"), (b"\x00",))),
    Forms("frozen<tuple<int, int>>", (_BOTH, (_SHORT, _PADDED), _NOTHING)),
    Forms("frozen<two>", (_BOTH, (_SHORT, _PADDED), _NOTHING), f"frozen<{TWO}>"),
    Forms(
        "frozen<tuple<decimal, boolean>>",
        tuple(
            tuple(write_fields([number, truth]) for number in group for truth in (b"\x01", b"\x02"))
            for group in (_ONE_HALF, _TWO)
        ),
    ),
    Forms(
        "frozen<list<decimal>>",
        (tuple(write_elements([a, _TWO[0]]) for a in _ONE_HALF[:2]), (write_elements([]),)),
    ),
    Forms(
        "frozen<set<decimal>>",
        (
            tuple(write_elements([a, b]) for a in _ONE_HALF[:2] for b in _TWO[:2]),
            tuple(write_elements([b]) for b in _TWO[:2]),
        ),
    ),
    Forms(
        "frozen<map<decimal, double>>",
        tuple(
            tuple(write_entries([(key, value)]) for key in _ONE_HALF[:2] for value in values)
            for values in (_NANS_OF_8, (pack(">d", 0.0),), (pack(">d", -0.0),))
        ),
    ),
    Forms(
        "frozen<list<frozen<two>>>",
        (tuple(write_elements([each]) for each in (_SHORT, _PADDED)),),
        f"frozen<list<frozen<{TWO}>>>",
    ),
    Forms("vector<float, 2>", (tuple(nan + nan for nan in _NANS_OF_4), (pack(">ff", 0.0, -0.0),))),
    # Of all others each value has one form.
    Forms("int", ((integer(1),), (integer(-1),), (b"",))),
    Forms("bigint", ((pack(">q", 1),), (pack(">q", -1),), (b"",))),
    Forms("smallint", ((pack(">h", 1),), (pack(">h", -1),))),
    Forms("tinyint", ((b"\x01",), (b"\xff",))),
    Forms("text", ((b"a",), (b"A",), (b"",))),
    Forms("ascii", ((b"a",), (b"A",), (b"",))),
    Forms("blob", ((b"\x00",), (b"\x00\x00",), (b"",))),
    Forms("timestamp", ((pack(">q", 1),), (pack(">q", -1),), (b"",))),
    Forms("date", ((pack(">I", 2**31),), (pack(">I", 0),))),
    Forms("time", ((pack(">q", 1),), (pack(">q", 0),))),
    Forms(
        "uuid",
        (
            (bytes.fromhex("123e4567e89b12d3a456426614174000"),),
            (bytes.fromhex("123e4567e89b42d3a456426614174000"),),
            (b"",),
        ),
    ),
    Forms(
        "timeuuid",
        (
            (bytes.fromhex("123e4567e89b11d3a456426614174000"),),
            (bytes.fromhex("123e4567e89b11d3c456426614174000"),),
        ),
    ),
    Forms("inet", ((bytes([1, 2, 3, 4]),), (bytes(10) + b"\xff\xff" + bytes([1, 2, 3, 4]),))),
)


def run(
    connection: Connection, statement: PreparedStatement, values: Sequence[bytes | None]
) -> Page:
    """Send a request with values as they are."""
    message = ExecuteMessage(
        statement.query_id,
        list(values),
        ConsistencyLevel.LOCAL_QUORUM,
        skip_meta=True,
        result_metadata_id=statement.result_metadata_id,
    )
    future = connection.send(message, statement=statement)
    future.send_request()
    return page_of(future)


def raw_rows(connection: Connection, table: TableName, columns: Sequence[str]) -> list[Cells]:
    """Read all rows of a small table as bytes."""
    names = ", ".join(map(quote, columns))
    page = run(connection, connection.prepare(f"SELECT {names} FROM {table}"), [])
    assert page.next_state is None
    rows, data = [], page.data
    for _ in range(page.row_count):
        cells = split_cells(data, len(columns))
        rows.append(cells)
        data = data[sum(4 + len(cell or b"") for cell in cells) :]
    return rows
