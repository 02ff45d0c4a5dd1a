"""Every cell becomes a value of PostgreSQL, and that the same cell again."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from struct import pack

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from migration_platform.cql.types import CqlType
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.stack import Running
from migration_platform.stores.postgres.codecs import (
    Codec,
    UnholdableValue,
    codec_for,
    offered_types,
)
from migration_platform.stores.postgres.types import PgType, resolve_type
from migration_platform_tests.typed_cells import SCALARS, cells_of, scalar


@dataclass
class Database:
    """A connection to a schema of its own, and what copies cells through its tables."""

    connection: psycopg.Connection
    schema: str
    types: dict[str, PgType] = field(default_factory=dict)

    def execute(self, statement: str) -> None:
        self.connection.execute(statement.encode())

    def type_of(self, text: str) -> PgType:
        """Give a type as its user writes it; asked once."""
        if text not in self.types:
            self.types[text] = resolve_type(self.connection, text)
        return self.types[text]

    def through(
        self, columns: Sequence[tuple[PgType, Sequence[bytes]]]
    ) -> list[list[bytes | None]]:
        """Copy values of some columns into one table and out again."""
        names = [f"c{at}" for at in range(len(columns))]
        kinds = ", ".join(f"{n} {kind}" for n, (kind, _) in zip(names, columns, strict=True))
        height = max(len(values) for _, values in columns)
        self.execute(f"CREATE TEMPORARY TABLE cells (at int, {kinds}) ON COMMIT DROP")
        parts = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
        for at in range(height):
            parts.append(pack(">hii", len(columns) + 1, 4, at))
            for _, values in columns:
                value = values[at] if at < len(values) else None
                parts.append(pack(">i", -1) if value is None else pack(">i", len(value)) + value)
        cursor = self.connection.cursor()
        with cursor.copy("COPY cells FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(b"".join(parts) + b"\xff\xff")
        with cursor.copy(
            "COPY (SELECT * FROM cells ORDER BY at) TO STDOUT (FORMAT BINARY)"
        ) as copy:
            found = b"".join(map(bytes, copy))
        self.execute("DROP TABLE cells")
        return rows_of(found)


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


@pytest.fixture(scope="module")
def database(postgres: Running) -> Iterator[Database]:
    address = f"host={LOCALHOST} port={postgres.port} user=postgres dbname=postgres"
    with psycopg.connect(address, connect_timeout=60) as connection:
        schema = f"t_{uuid.uuid4().hex[:12]}"
        connection.execute(f"CREATE SCHEMA {schema}".encode())
        connection.execute(f"CREATE EXTENSION IF NOT EXISTS vector SCHEMA {schema}".encode())
        connection.execute(f"SET search_path = {schema}".encode())
        yield Database(connection, schema)
        connection.rollback()


# -- there and back ----------------------------------------------------------------------------


def same(codec: Codec, one: bytes, other: bytes) -> bool:
    canonical = codec.canonical
    return one == other if canonical is None else canonical(one) == canonical(other)


def encoded(codec: Codec, cell: bytes) -> bytes | None:
    """Give the value of a cell; None if it is refused, in one sentence."""
    try:
        value = codec.encode(cell) if codec.encode else cell
    except UnholdableValue as refusal:
        assert str(refusal).strip()
        assert "\n" not in str(refusal)
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
            assert same(codec, back, cell), (str(cql_type), str(kind), cell, value, back)
    return sum(len(pairs) for _, pairs in taken)


def drawn(strategy: st.SearchStrategy, count: int) -> list:
    """Draw many values at once, so that they pass in one COPY."""
    found: list = []

    @settings(
        max_examples=1,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(strategy, min_size=count, max_size=count))
    def draw(values: list) -> None:
        found.extend(values)

    draw()
    return found[:count]


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
