"""Every cell of a table as the server shows it, and random tables in which no two are alike.

Read with the plain driver and nothing of the engine. Values stay the bytes that came, so that not
a number, a minus before a zero and the year 292278994 compare like anything else.
"""

import itertools
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from struct import Struct
from typing import Any, NamedTuple
from uuid import UUID

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Session
from cassandra.cqltypes import ListType, MapType, SetType, TupleType, UserType
from cassandra.protocol import ResultMessage, _ProtocolHandler, read_int
from cassandra.query import UNSET_VALUE, SimpleStatement
from cassandra.util import Duration
from hypothesis import strategies as st

from migration_platform.cql.names import TableName, quote
from migration_platform.stores.cassandra.connection import Connection
from migration_platform_tests.tables import create_keyspace

PROTOCOL = 5
MAX_DIFFERENCES = 12
"""How many differences a failing test shows."""
_LENGTH, _LONG = Struct(">i"), Struct(">q")


class ManyTables:
    """A keyspace for the tables of all tests of a module: dropping one for each takes longer."""

    def __init__(self, connection: Connection):
        self.keyspace = f"t_{uuid.uuid4().hex[:12]}"
        self._session = connection.session
        self._numbers = itertools.count()
        create_keyspace(connection, self.keyspace)

    def name(self, start: str = "t") -> TableName:
        """Give a name that no table has yet."""
        return TableName(self.keyspace, f"{start}{next(self._numbers)}")

    def add_type(self, name: str, fields: str) -> None:
        """Make a user-defined type."""
        self._session.execute(f"CREATE TYPE {self.keyspace}.{quote(name)} ({fields})")

    def make(self, start: str, body: str) -> TableName:
        """Make a table from what stands in the parentheses of its CREATE TABLE."""
        name, (columns, _, options) = self.name(start), body.partition(" WITH ")
        with_options = f" WITH {options}" if options else ""
        self._session.execute(f"CREATE TABLE {name} ({columns}){with_options}")
        return name


@contextmanager
def many_tables(connection: Connection) -> Iterator[ManyTables]:
    """Make tables, as many as are wanted, and drop all of them at the end."""
    tables = ManyTables(connection)
    yield tables
    connection.session.execute(f"DROP KEYSPACE {tables.keyspace}", timeout=120)


# -- reading -----------------------------------------------------------------------------------


class _RawRows(ResultMessage):
    """Rows as bytes: the driver decodes neither nulls in lists nor dates after the year 9999."""

    def recv_results_rows(self, f, protocol_version, user_type_map, result_metadata, policy):
        self.recv_results_metadata(f, user_type_map)
        self.column_names = [column[2] for column in self.column_metadata]
        self.column_types = [column[3] for column in self.column_metadata]
        row_count, width = read_int(f), len(self.column_types)
        self.parsed_rows = [self.recv_row(f, width) for _ in range(row_count)]


class _RawHandler(_ProtocolHandler):
    message_types_by_opcode = {  # noqa: RUF012, the driver's attribute
        **_ProtocolHandler.message_types_by_opcode,
        ResultMessage.opcode: _RawRows,
    }


class Bytes(bytes):
    """Bytes as they came, which show themselves as the value that they mean."""

    shown: str

    def __new__(cls, raw: bytes, cql_type: Any) -> "Bytes":
        self = super().__new__(cls, raw)
        try:
            value = cql_type.from_binary(raw, PROTOCOL)
            self.shown = repr(value) if isinstance(value, str | bytes) else str(value)
            if value is None:
                self.shown = "(no bytes)"
        except Exception:
            self.shown = f"0x{raw.hex()}"
        return self

    def __repr__(self) -> str:
        return self.shown

    __str__ = __repr__


class Parts(NamedTuple):
    """A collection or a value with fields as one: `kind` as in `Place`, order only in lists."""

    kind: str
    items: tuple[tuple[Any, Any], ...]

    def __repr__(self) -> str:
        if self.kind == "position":
            return repr([value for _, value in self.items])
        if self.kind == "element":
            return f"{{{', '.join(repr(element) for element, _ in self.items)}}}"
        return f"{{{', '.join(f'{name}: {value!r}' for name, value in self.items)}}}"


class Place(NamedTuple):
    """Where a cell is: its row's key (only the partition's for statics), column and element.

    Without a column it is the row itself, whose cells may all be null. An element is the `key` of
    a map's entry, an `element` of a set, a `field` or the `position` in a list, as `kind` tells.
    """

    row: tuple[tuple[str, Any], ...]
    column: str = ""
    kind: str = ""
    element: Any = None

    def __str__(self) -> str:
        row = ", ".join(f"{quote(name)}={value!r}" for name, value in self.row)
        element = f", {self.kind} {self.element!r}" if self.kind else ""
        return f"{quote(self.column)}{element} of {row}" if self.column else f"the row {row}"


class Cell(NamedTuple):
    """What is at a place; `expires_at` is in seconds since 1970."""

    value: Any = None
    writetime_us: int | None = None
    expires_at: int | None = None

    def __str__(self) -> str:
        expiry = f", expiring at {self.expires_at}" if self.expires_at is not None else ""
        return f"{self.value!r} written at {self.writetime_us}{expiry}"


Cells = Mapping[Place, Cell]


def read_cells(session: Session, table: TableName) -> dict[Place, Cell]:
    """Read every row, and every cell that is not null."""
    columns: dict[str, list[str]] = defaultdict(list)
    counters = set()
    for row in session.execute(
        "SELECT column_name, kind, type FROM system_schema.columns "
        "WHERE keyspace_name = %s AND table_name = %s",
        [table.keyspace, table.table],
    ):
        columns[row["kind"]].append(row["column_name"])
        if row["type"] == "counter":
            counters.add(row["column_name"])
    partition, clustering = columns["partition_key"], columns["clustering"]
    key, values = partition + clustering, columns["static"] + columns["regular"]
    assert key, f"there is no table {table}"
    selected = [quote(name) for name in key]
    for name in values:
        # A counter has neither a writetime nor a TTL; its value stands in their places.
        forms = ("{}", "{}", "{}") if name in counters else ("{}", "writetime({})", "ttl({})")
        selected += [form.format(quote(name)) for form in forms]

    read_at = int(time.time())
    types, rows = read_raw(session, f"SELECT {', '.join(selected)} FROM {table}")
    found: dict[Place, Cell] = {}
    for row in rows:
        named = {n: _meaning(t, raw) for n, t, raw in zip(key, types, row, strict=False)}
        whole = tuple(sorted(named.items()))
        shared = tuple(sorted((name, named[name]) for name in partition))
        # A partition with nothing but statics shows itself as a row without clustering columns.
        if not clustering or named[clustering[0]] is not None:
            found[Place(whole)] = Cell()
        for number, name in enumerate(values):
            at = len(key) + 3 * number
            value, writetime, ttl = row[at : at + 3]
            place = Place(shared if name in columns["static"] else whole, name)
            if value is None:
                continue
            if name in counters:
                found[place] = Cell(_meaning(types[at], value))
            elif not issubclass(types[at + 1], ListType):
                found[place] = _cell(_meaning(types[at], value), writetime, ttl, read_at)
            else:
                # What is not frozen has a writetime and a TTL for each of its elements.
                elements = _elements(types[at], value)
                times = zip(_collection(writetime), _collection(ttl), strict=True)
                for (element, part), (written, left) in zip(elements, times, strict=True):
                    if part is not None:
                        inner = place._replace(kind=_kind_of(types[at]), element=element)
                        found[inner] = _cell(part, written, left, read_at)
    return found


def rows_in(cells: Cells) -> int:
    """Count the rows."""
    return sum(not place.column for place in cells)


def with_times(cells: Cells, **times: int | None) -> dict[Place, Cell]:
    """Give the same cells with another `writetime_us` or `expires_at`."""
    return {p: cell._replace(**times) if p.column else cell for p, cell in cells.items()}


def without_columns(cells: Cells, *columns: str) -> dict[Place, Cell]:
    """Give the cells of all but some columns."""
    return {place: cell for place, cell in cells.items() if place.column not in columns}


def read_raw(session: Session, query: str) -> tuple[list[Any], list[list[bytes | None]]]:
    """Read types and raw rows, without pages, so that every TTL counts from one moment."""
    profile = session.execution_profile_clone_update(
        EXEC_PROFILE_DEFAULT, row_factory=lambda _, rows: rows
    )
    handler, session.client_protocol_handler = session.client_protocol_handler, _RawHandler
    try:
        future = session.execute_async(
            SimpleStatement(query, fetch_size=None), execution_profile=profile
        )
    finally:
        session.client_protocol_handler = handler
    rows = list(future.result())
    return future._col_types, rows


def _cell(value: Any, writetime: bytes | None, ttl: bytes | None, read_at: int) -> Cell:
    assert writetime is not None
    expires_at = None if ttl is None else read_at + _LENGTH.unpack(ttl)[0]
    return Cell(value, _LONG.unpack(writetime)[0], expires_at)


def _collection(raw: bytes | None) -> list[bytes | None]:
    assert raw is not None
    return list(_lengths_and_bytes(raw[4:]))


def _lengths_and_bytes(raw: bytes) -> Iterator[bytes | None]:
    at = 0
    while at < len(raw):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += 4
        yield None if length < 0 else raw[at : at + length]
        at += max(0, length)


def _kind_of(cql_type: Any) -> str:
    kinds = {UserType: "field", MapType: "key", SetType: "element", ListType: "position"}
    return next((kind for base, kind in kinds.items() if issubclass(cql_type, base)), "")


def _elements(cql_type: Any, raw: bytes) -> Iterator[tuple[Any, Any]]:
    """Give the elements of a value, by what tells one from another."""
    kind, inner = _kind_of(cql_type), cql_type.subtypes
    if kind == "field":
        values = list(_lengths_and_bytes(raw))
        # Fields that were added to the type later are not in the bytes.
        values += [None] * (len(inner) - len(values))
        for name, of_field, value in zip(cql_type.fieldnames, inner, values, strict=True):
            yield name, _meaning(of_field, value)
        return
    parts = _collection(raw)
    if kind == "key":
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            yield _meaning(inner[0], key), _meaning(inner[1], value)
    else:
        for position, part in enumerate(parts):
            value = _meaning(inner[0], part)
            yield (value, "") if kind == "element" else (position, value)


def _meaning(cql_type: Any, raw: bytes | None) -> Any:
    """Give a value such that equal means the same to a reader of CQL, down to the last bit.

    Only the fields of a user-defined type go by their names, so that their order does not count.
    """
    if raw is None:
        return None
    if raw and _kind_of(cql_type):
        return _whole(_kind_of(cql_type), _elements(cql_type, raw))
    if raw and issubclass(cql_type, TupleType):
        values = list(_lengths_and_bytes(raw))
        values += [None] * (len(cql_type.subtypes) - len(values))
        return tuple(_meaning(t, v) for t, v in zip(cql_type.subtypes, values, strict=True))
    return Bytes(raw, cql_type)


def _whole(kind: str, elements: Iterable[tuple[Any, Any]]) -> Parts:
    present = [(element, value) for element, value in elements if value is not None]
    return Parts(kind, tuple(present if kind == "position" else sorted(present, key=repr)))


# -- comparing ---------------------------------------------------------------------------------


def as_asked_for(
    cells: Cells, writetime: str | int, ttl: str | int, increment: int = 0
) -> dict[Place, Cell]:
    """Say what cells become under the modes of writetimes and TTLs.

    A row's writetime is its newest and its life its longest; so are those of the static cells of
    a partition. A writetime of now is 0 here.
    """
    rows: dict[Any, list[Cell]] = defaultdict(list)
    for place, cell in cells.items():
        if place.column:
            rows[place.row].append(cell)
    expected = dict(cells)
    for place, cell in cells.items():
        if not place.column:
            continue
        written, expires = cell.writetime_us or 0, cell.expires_at
        if writetime == "row_max":
            written = max(other.writetime_us or 0 for other in rows[place.row])
        elif writetime != "cell":
            written = 0 if isinstance(writetime, str) else writetime
        if ttl == "row_max":
            expires = _longest(other.expires_at for other in rows[place.row])
        elif ttl != "cell":
            expires = None if isinstance(ttl, str) else int(time.time()) + ttl
        if writetime != "now":
            written += increment
        expected[place] = Cell(cell.value, written, expires)
    return expected


def _longest(expiries: Iterable[int | None]) -> int | None:
    found = list(expiries)
    return None if None in found else max(expiry or 0 for expiry in found)


def differences(
    origin: Cells, target: Cells, *, ttl_tolerance: int = 3, except_lists: bool = True
) -> list[str]:
    """Name every place at which the target is not what a copy of the origin should be.

    A list that is not frozen can only be written as a whole: its elements have the newest of
    their writetimes and the longest of their TTLs, unless `except_lists` is false. So has a
    collection or a type of one's own that is frozen at the target and not at the origin.
    """
    expected = _as_copied(origin, target, except_lists)
    found = []
    for place, cell in expected.items():
        other = target.get(place)
        if other is None:
            found.append(f"{place} is not at the target; the origin has {cell}")
        elif other.value != cell.value:
            found.append(f"{place} is {other}, not {cell}")
        elif other.writetime_us != cell.writetime_us:
            found.append(f"{place} was written at {other.writetime_us}, not {cell.writetime_us}")
        elif (other.expires_at is None) != (cell.expires_at is None) or (
            abs((other.expires_at or 0) - (cell.expires_at or 0)) > ttl_tolerance
        ):
            found.append(f"{place} expires at {other.expires_at}, not {cell.expires_at}")
    found += [f"{place} is only at the target" for place in target if place not in expected]
    return found


def assert_same_cells(
    origin: Cells, target: Cells, *, ttl_tolerance: int = 3, except_lists: bool = True
) -> None:
    """Say what differs: every cell and element must have its value, writetime and expiry."""
    found = differences(origin, target, ttl_tolerance=ttl_tolerance, except_lists=except_lists)
    shown = "\n".join(found[:MAX_DIFFERENCES])
    assert not found, f"{len(found)} differences:\n{shown}"


def _as_copied(origin: Cells, target: Cells, except_lists: bool) -> dict[Place, Cell]:
    whole_at_target = {place.column for place in target if place.column and not place.kind}
    groups: dict[Place, dict[Any, Cell]] = defaultdict(dict)
    expected: dict[Place, Cell] = {}
    for place, cell in origin.items():
        as_one = place.column in whole_at_target or (place.kind == "position" and except_lists)
        if place.kind and as_one:
            groups[place._replace(element=None)][place.element] = cell
        else:
            expected[place] = cell
    for place, cells in groups.items():
        newest = max(cell.writetime_us or 0 for cell in cells.values())
        longest = _longest(cell.expires_at for cell in cells.values())
        if place.column in whole_at_target:
            value = _whole(place.kind, ((element, c.value) for element, c in cells.items()))
            expected[place._replace(kind="")] = Cell(value, newest, longest)
        else:
            for element, cell in cells.items():
                expected[place._replace(element=element)] = Cell(cell.value, newest, longest)
    return expected


# -- random tables -----------------------------------------------------------------------------

_INTEGERS = {"tinyint": 8, "smallint": 16, "int": 32, "bigint": 64, "timestamp": 64}
_FLOATS = [0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan")]
_TEXTS = ["plain", "", "a\x00b", "पाठ ★", "\U0001f600", "it's", "null", "x" * 3000]
EXTREMES: dict[str, list[Any]] = {
    **{t: [-(2 ** (n - 1)), 2 ** (n - 1) - 1, 0, -1, 1] for t, n in _INTEGERS.items()},
    "ascii": ["plain", "", "~", "\x00\x7f", "it's"],
    "blob": [b"\x00\xff", b"", b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe", b"\x00" * 3000],
    "boolean": [True, False],
    # Days, of which the middle one is 1970.
    "date": [0, 2**31, 2**31 - 1, 2**32 - 1],
    "decimal": [Decimal("-1.5e-30"), Decimal(10) ** 40, Decimal("0.00"), Decimal("1e+9"), -1],
    "double": [*_FLOATS, 5e-324, 1.7976931348623157e308],
    "duration": [
        Duration(1, 2, 3),
        Duration(0, 0, 0),
        Duration(-(2**31) + 1, -(2**31) + 1, -(2**63) + 1),
        Duration(2**31 - 1, 2**31 - 1, 2**63 - 1),
    ],
    "float": [*_FLOATS, 1.401298464324817e-45, 3.4028234663852886e38],
    "inet": ["127.0.0.1", "::1", "255.255.255.255", "2001:db8::ff00:42:8329", "::"],
    "text": _TEXTS,
    "time": [0, 86_399_999_999_999, 1],
    "timeuuid": [
        UUID("00000000-0000-1000-8080-808080808080"),
        UUID("ffffffff-ffff-1fff-bfff-ffffffffffff"),
        UUID("c4d2a1b0-5e21-11ee-8c99-0242ac120002"),
    ],
    "uuid": [UUID(int=0), UUID(int=2**128 - 1), UUID("123e4567-e89b-42d3-a456-426614174000")],
    "varchar": _TEXTS,
    "varint": [-(10**50), 10**50, 0, -1, 127, 128, -128, -129],
    "vector<float, 3>": [[1.0, -2.5, 0.0], [0.0, 0.0, 0.0], [3.4028234663852886e38, -0.0, 1e-45]],
}
"""Every type of Cassandra 5 whose values are one piece, the counter aside, with its extremes."""
NO_KEYS = frozenset({"duration"})
"""What has no order cannot be a key, nor an element of a set, nor the key of a map."""
NAMES = (
    *("v", "w", "Value", "order", "select", "größe", "ttl", "writetime", "token", "a b", 'say "a"'),
    *("1st", "x.y", "ключ", "名前", "k;--", "null", "set", "VALUES", "?", "%s", "{}", "l" * 40),
)
FIRST_TIMESTAMP = 1_700_000_000_000_000
_TIMESTAMPS = [*range(FIRST_TIMESTAMP, FIRST_TIMESTAMP + 8), -(10**15), 0, 1, 2**61]
_TTLS = [0, 0, 0, 900, 3600, 86_400, 90_000_000]
"""Short of 2038: files that Cassandra 4 can read end there."""


class Pairs(tuple):
    """A map whose keys need no hash, as the driver takes it."""

    def items(self) -> "Pairs":
        return self


@dataclass(frozen=True)
class Type:
    """A CQL type with a strategy for its values; `kind` as in `Place` if it is not frozen."""

    cql: str
    values: st.SearchStrategy = field(repr=False)
    kind: str = ""
    parts: tuple[tuple[str, "Type"], ...] = ()
    user_types: tuple[tuple[str, str], ...] = ()

    def but_frozen(self) -> "Type":
        """Give the type as it must be inside of another."""
        return Type(f"frozen<{self.cql}>", self.values, "", (), self.user_types)


@st.composite
def simple_types(draw: st.DrawFn, *, ordered: bool = False) -> Type:
    """Types whose values are one piece."""
    name = draw(st.sampled_from([t for t in EXTREMES if not (ordered and t in NO_KEYS)]))
    usual = {
        "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
        "blob": st.binary(max_size=6),
        "int": st.integers(-(2**31), 2**31 - 1),
        "bigint": st.integers(-(2**63), 2**63 - 1),
        "double": st.floats(),
    }
    extremes = st.sampled_from(EXTREMES[name])
    return Type(name, extremes | usual[name] if name in usual else extremes)


@st.composite
def types(draw: st.DrawFn, *, ordered: bool = False, depth: int = 2, inside: bool = False) -> Type:
    """Types of any kind, frozen where they are made of others.

    The server keeps the elements of a set `inside` of a tuple or of a type of one's own, and of
    one in a descending key, in the order in which a client sent them: there sets are of one.
    """
    if not depth or draw(st.integers(0, 2)) == 0:
        return draw(simple_types(ordered=ordered))
    within = {"ordered": ordered, "depth": depth - 1}
    made = draw(open_types(inside=inside, **within) | tuples(**within))
    return made.but_frozen() if made.kind else made


@st.composite
def tuples(draw: st.DrawFn, *, ordered: bool, depth: int) -> Type:
    """Tuples, which are always frozen."""
    kinds = types(ordered=ordered, depth=depth, inside=True)
    inner = draw(st.lists(kinds, min_size=1, max_size=3))
    return Type(
        f"frozen<tuple<{', '.join(t.cql for t in inner)}>>",
        st.tuples(*(st.none() | t.values for t in inner)),
        user_types=_user_types(inner),
    )


@st.composite
def open_types(
    draw: st.DrawFn, *, ordered: bool = False, depth: int = 1, inside: bool = False
) -> Type:
    """Collections and user-defined types that are not frozen, made of what is."""
    kind = draw(st.sampled_from(["element", "key", "position", "field"]))
    if kind == "field":
        return draw(user_types(ordered=ordered, depth=depth))
    of_key = draw(types(ordered=ordered or kind != "position", depth=depth, inside=inside))
    if kind == "position":
        values = st.lists(of_key.values, max_size=4)
        return Type(f"list<{of_key.cql}>", values, kind, (("", of_key),), of_key.user_types)
    if kind == "element":
        values = st.lists(of_key.values, max_size=1 if inside else 4, unique_by=repr)
        return Type(f"set<{of_key.cql}>", values, kind, (("", of_key),), of_key.user_types)
    of_value = draw(types(ordered=ordered, depth=depth, inside=inside))
    return Type(
        f"map<{of_key.cql}, {of_value.cql}>",
        st.lists(
            st.tuples(of_key.values, of_value.values),
            max_size=1 if inside else 3,
            unique_by=lambda entry: repr(entry[0]),
        ).map(Pairs),
        kind,
        (("", of_key), ("", of_value)),
        _user_types([of_key, of_value]),
    )


@st.composite
def user_types(draw: st.DrawFn, *, ordered: bool, depth: int) -> Type:
    """User-defined types; the same fields are the same type."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    inner = [draw(types(ordered=ordered, depth=depth, inside=True)) for _ in names]
    body = ", ".join(f"{quote(n)} {t.cql}" for n, t in zip(names, inner, strict=True))
    number = zlib.crc32(body.encode())
    name = quote(f"Type_{number}" if number % 2 else f"type_{number}")
    return Type(
        name,
        st.tuples(*(st.none() | t.values for t in inner)),
        "field",
        tuple(zip(names, inner, strict=True)),
        (*_user_types(inner), (name, body)),
    )


def _user_types(inner: Iterable[Type]) -> tuple[tuple[str, str], ...]:
    return tuple(one for t in inner for one in t.user_types)


class Column(NamedTuple):
    """A column of a random table, with the values and, if it is not frozen, the parts to write."""

    name: str
    type: Type
    values: tuple[Any, ...]
    parts: tuple[tuple[str, tuple[Any, ...]], ...]


@st.composite
def columns(draw: st.DrawFn, name: str, kinds: st.SearchStrategy[Type]) -> Column:
    """Columns of some types; the values are drawn here once, for many writes."""
    kind = draw(kinds)

    def pool(of: Type) -> tuple[Any, ...]:
        return tuple(draw(st.lists(of.values, min_size=2, max_size=4, unique_by=repr)))

    return Column(name, kind, pool(kind), tuple((n, pool(inner)) for n, inner in kind.parts))


_TABLE = "@table@"


class Write(NamedTuple):
    """A statement with a mark where the table's name belongs, and its values."""

    cql: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        shown = ["unset" if value is UNSET_VALUE else repr(value) for value in self.values]
        return f"{self.cql.replace(_TABLE, 'origin')} <- {', '.join(shown)}"


@dataclass(frozen=True, repr=False)
class RandomTable:
    """A table's columns, what its target's key is, and everything that was ever written to it."""

    partition: tuple[Column, ...]
    clustering: tuple[Column, ...]
    descending: tuple[bool, ...]
    statics: tuple[Column, ...]
    regular: tuple[Column, ...]
    frozen_at_target: frozenset[str]
    same_key: bool
    writes: tuple[Write, ...]

    def __repr__(self) -> str:
        tables = [self.to_cql("origin"), self.to_cql("target", as_target=True)]
        writes = [str(write) for write in self.writes]
        return "\n".join(["a table:", *tables, *writes])

    def create(self, session: Session, name: TableName, *, as_target: bool = False) -> None:
        """Make the table and the types that it needs."""
        for column in self.columns:
            for user_type, body in column.type.user_types:
                session.execute(
                    f"CREATE TYPE IF NOT EXISTS {quote(name.keyspace)}.{user_type} ({body})"
                )
        session.execute(self.to_cql(str(name), as_target=as_target))

    def to_cql(self, name: str, *, as_target: bool = False) -> str:
        """Give the statement that makes the table."""
        body = [
            f"{quote(c.name)} {self._type_of(c, as_target)}{' STATIC' * (c in self.statics)}"
            for c in self.columns
        ]
        partition, clustering = self.partition, self.clustering
        if as_target and not self.same_key:
            partition, clustering = (*reversed(clustering), *partition), ()
        key = [f"({', '.join(quote(c.name) for c in partition)})"]
        key += [quote(c.name) for c in clustering]
        table = f"CREATE TABLE {name} ({', '.join(body)}, PRIMARY KEY ({', '.join(key)}))"
        return table + self._order(clustering)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every column."""
        return (*self.partition, *self.clustering, *self.statics, *self.regular)

    def fill(self, session: Session, name: TableName) -> None:
        """Write everything, one after the other."""
        prepared: dict[str, Any] = {}
        for cql, values in self.writes:
            if cql not in prepared:
                prepared[cql] = session.prepare(cql.replace(_TABLE, str(name)))
            session.execute(prepared[cql], values)

    def _type_of(self, column: Column, as_target: bool) -> str:
        frozen = as_target and column.name in self.frozen_at_target
        return f"frozen<{column.type.cql}>" if frozen else column.type.cql

    def _order(self, clustering: tuple[Column, ...]) -> str:
        orders = ", ".join(
            f"{quote(c.name)} {'DESC' if down else 'ASC'}"
            for c, down in zip(clustering, self.descending, strict=False)
        )
        return f" WITH CLUSTERING ORDER BY ({orders})" if orders else ""


@st.composite
def random_tables(draw: st.DrawFn, *, max_writes: int = 120) -> RandomTable:
    """Tables with every kind of column, and writes of every kind to few rows."""
    numbers = [draw(st.integers(1, 2)), draw(st.integers(0, 2)), 0, draw(st.integers(3, 6))]
    numbers[2] = draw(st.integers(0, 3)) if numbers[1] else 0
    total = sum(numbers)
    names = draw(st.lists(st.sampled_from(NAMES), min_size=total, max_size=total, unique=True))
    groups: list[tuple[Column, ...]] = []
    for group, number in enumerate(numbers):
        keys = types(ordered=True, depth=1, inside=True)
        kinds = keys if group < 2 else open_types() | types()
        groups.append(tuple(draw(columns(names.pop(), kinds)) for _ in range(number)))
    partition, clustering, statics, regular = groups
    table = RandomTable(
        *(partition, clustering, tuple(draw(st.booleans()) for _ in clustering)),
        *(statics, regular),
        frozen_at_target=frozenset(
            c.name for c in statics + regular if c.type.kind and draw(st.integers(0, 4)) == 0
        ),
        same_key=bool(statics) or not clustering or draw(st.booleans()),
        writes=(),
    )
    writes = draw(st.lists(_writes(table), min_size=max_writes // 2, max_size=max_writes))
    return replace(table, writes=tuple(writes))


@st.composite
def _writes(draw: st.DrawFn, table: RandomTable) -> Write:
    """Inserts, updates and deletions of rows, cells and elements, in any order of time."""

    def one_of(some: Sequence[Any]) -> Any:
        return some[draw(st.integers(0, len(some) - 1))]

    timestamp, ttl = one_of(_TIMESTAMPS), one_of(_TTLS)
    partition = tuple(one_of(c.values) for c in table.partition)
    if partition in (("",), (b"",)):
        # An empty value alone cannot be a partition's key.
        partition = tuple("x" if value == "" else b"x" for value in partition)
    row = tuple(one_of(c.values) for c in table.clustering)
    where = _where(table.partition + table.clustering)
    using = "USING TIMESTAMP ? AND TTL ?"
    what = draw(st.integers(0, 9))
    if what < 3:
        values = [
            one_of((UNSET_VALUE, None, *c.values, *c.values)) for c in table.statics + table.regular
        ]
        marks = ", ".join("?" * len(table.columns))
        names = ", ".join(quote(c.name) for c in table.columns)
        insert = f"INSERT INTO {_TABLE} ({names}) VALUES ({marks}) {using}"
        return Write(insert, (*partition, *row, *values, timestamp, ttl))
    if what == 3:
        # Deletions at the first timestamps only, so that something is left. Cassandra 5.0.6 fails
        # to read some partitions that were deleted and have static collections: those are spared.
        timestamp = one_of(_TIMESTAMPS[:2])
        least = int(any(column.type.kind for column in table.statics))
        within = draw(st.integers(least, len(table.clustering)))
        key = table.partition + table.clustering[:within]
        cql = f"DELETE FROM {_TABLE} USING TIMESTAMP ? WHERE {_where(key)}"
        return Write(cql, (timestamp, *(partition + row)[: len(key)]))
    column = one_of(table.statics + table.regular)
    name = quote(column.name)
    key = partition + row
    if column in table.statics:
        where, key = _where(table.partition), partition
    if what < 6 or not column.type.kind:
        value = one_of((None, *column.values))
        cql = f"UPDATE {_TABLE} {using} SET {name} = ? WHERE {where}"
        return Write(cql, (timestamp, ttl, value, *key))
    whole = one_of(column.values)
    if column.type.kind == "field":
        field, parts = one_of(column.parts)
        change, values = f"{name}.{quote(field)} = ?", [one_of((None, *parts))]
    elif column.type.kind == "key":
        (_, of_key), (_, of_value) = column.parts
        changes = [
            (f"{name}[?] = ?", [one_of(of_key), one_of(of_value)]),
            (f"{name} = {name} + ?", [whole]),
            ("", [one_of(of_key)]),
        ]
        change, values = one_of(changes)
    else:
        forms = ["{0} = {0} + ?", "{0} = {0} + ?", "{0} = {0} - ?"]
        forms += ["{0} = ? + {0}"] * (column.type.kind == "position")
        change, values = one_of(forms).replace("{0}", name), [whole]
    if not change:
        cql = f"DELETE {name}[?] FROM {_TABLE} USING TIMESTAMP ? WHERE {where}"
        return Write(cql, (*values, timestamp, *key))
    return Write(
        f"UPDATE {_TABLE} {using} SET {change} WHERE {where}", (timestamp, ttl, *values, *key)
    )


def _where(key: tuple[Column, ...]) -> str:
    return " AND ".join(f"{quote(column.name)} = ?" for column in key)
