"""Random types, and random cells of any type as their bytes: also such as no driver would write."""

from struct import Struct

from cassandra.marshal import vints_pack
from hypothesis import strategies as st

from migration_platform.cql.elements import (
    write_elements,
    write_entries,
    write_fields,
    write_vector,
)
from migration_platform.cql.texts import compile_text
from migration_platform.cql.types import CqlType

_INT32, _INT64 = Struct(">i"), Struct(">q")
_FLOAT, _DOUBLE = Struct(">f"), Struct(">d")
_WHOLE = {
    **{"tinyint": 1, "smallint": 2, "int": 4, "bigint": 8},
    **{"counter": 8, "timestamp": 8, "date": 4},
}


def _fixed(size: int) -> st.SearchStrategy[bytes]:
    extremes = [b"\x00" * size, b"\xff" * size, b"\x7f" + b"\xff" * (size - 1)]
    usual = st.integers(-(2**15), 2**15 - 1).map(lambda n: n.to_bytes(8, "big", signed=True))
    return (
        st.binary(min_size=size, max_size=size)
        | st.sampled_from([*extremes, b"\x80" + b"\x00" * (size - 1)])
        | usual.map(lambda cell: cell[-size:])
    )


_VARINTS = (
    st.integers(-(10**45), 10**45).map(lambda n: n.to_bytes(20, "big", signed=True))
    | st.binary(min_size=1, max_size=17)
    | st.sampled_from([b"\x00", b"\x00\x00\x01", b"\xff\xff\x80"])
    | st.just(2000).map(lambda size: b"\x7f" * size)
)
_SCALES = st.integers(-8, 8) | st.integers(-140, 140) | st.sampled_from([2**31 - 1, -(2**31)])
_FLOATS = st.sampled_from([0.0, -0.0, float("nan"), float("inf"), float("-inf"), 0.1, 100.0])


@st.composite
def _durations(draw: st.DrawFn) -> bytes:
    parts = [draw(st.integers(0, 2**bits - 1) | st.integers(0, 99)) for bits in (31, 31, 63)]
    sign = draw(st.sampled_from([1, -1]))
    return bytes(vints_pack([sign * part for part in parts]))


SCALARS: dict[str, st.SearchStrategy[bytes]] = {
    **{name: _fixed(size) for name, size in _WHOLE.items()},
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(str.encode)
    | st.text('%#\\"a\x00é😀', max_size=4).map(str.encode),
    "ascii": st.text(st.characters(max_codepoint=127), max_size=8).map(str.encode),
    "varint": _VARINTS,
    "decimal": st.tuples(_SCALES.map(_INT32.pack), _VARINTS).map(b"".join),
    "float": _FLOATS.map(_FLOAT.pack) | st.binary(min_size=4, max_size=4),
    "double": (_FLOATS | st.floats()).map(_DOUBLE.pack) | st.binary(min_size=8, max_size=8),
    "boolean": st.sampled_from([b"\x00", b"\x01", b"\x01", b"\x02"]),
    "uuid": st.binary(min_size=16, max_size=16),
    "timeuuid": st.binary(min_size=16, max_size=16),
    "inet": st.binary(min_size=4, max_size=4)
    | st.binary(min_size=16, max_size=16)
    | st.binary(min_size=4, max_size=4).map(lambda tail: b"\0" * 10 + b"\xff\xff" + tail),
    "time": st.integers(0, 86_400 * 10**9 - 1).map(_INT64.pack),
    "duration": _durations(),
    "blob": st.binary(max_size=8),
    "custom": st.binary(max_size=8),
}
"""Cells of every type that is not made of others, other than those without bytes."""


def scalar(name: str) -> CqlType:
    """Give the type of a name in `SCALARS`."""
    return CqlType(name, class_name="org.example.Money" if name == "custom" else "")


@st.composite
def cql_types(draw: st.DrawFn, depth: int = 2, *, is_frozen: bool = False) -> CqlType:
    """Types of any kind; what is inside of others is frozen."""
    name = draw(st.sampled_from([*SCALARS, *["list", "set", "map", "tuple", "vector", "udt"] * 3]))
    if name in SCALARS or not depth:
        return scalar(draw(st.sampled_from(sorted(SCALARS))))
    inner = cql_types(depth - 1, is_frozen=True)
    frozen = is_frozen or draw(st.booleans())
    if name == "udt":
        names = draw(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3, unique=True))
        return CqlType("udt", fields=tuple((n, draw(inner)) for n in names), is_frozen=frozen)
    if name == "vector":
        size = draw(st.integers(1, 3))
        return CqlType("vector", (draw(inner),), is_frozen=True, dimensions=size)
    count = {"list": 1, "set": 1, "map": 2, "tuple": draw(st.integers(1, 3))}[name]
    kinds = tuple(draw(inner) for _ in range(count))
    return CqlType(name, kinds, is_frozen=frozen or name == "tuple")


@st.composite
def cells_of(draw: st.DrawFn, cql_type: CqlType) -> bytes:
    """Cells of a type, also those without bytes; sets and maps in any order."""
    return draw(_cells_of(cql_type))


def _cells_of(cql_type: CqlType) -> st.SearchStrategy[bytes]:
    name, inner = cql_type.name, cql_type.parameters
    if name in SCALARS:
        return st.just(b"") | SCALARS[name] | SCALARS[name] | SCALARS[name]
    if name == "list":
        return st.lists(st.none() | cells_of(inner[0]), max_size=3).map(write_elements)
    if name == "set":
        elements = cells_of(inner[0])
        if cql_type.is_multicell:
            elements = elements.filter(bool)
        return st.lists(
            elements, min_size=cql_type.is_multicell, max_size=3, unique_by=compile_text(inner[0])
        ).map(write_elements)
    if name == "map":
        return st.lists(
            st.tuples(cells_of(inner[0]), st.none() | cells_of(inner[1])),
            max_size=3,
            unique_by=lambda entry: compile_text(inner[0])(entry[0]),
        ).map(write_entries)
    if name == "vector":
        size = cql_type.dimensions or 0
        elements = st.lists(
            SCALARS[inner[0].name] if inner[0].name in SCALARS else cells_of(inner[0]),
            min_size=size,
            max_size=size,
        )
        return elements.map(lambda found: write_vector(found, cql_type))
    kinds = inner or tuple(kind for _, kind in cql_type.fields)
    fields = st.tuples(*(st.none() | cells_of(kind) for kind in kinds))
    # Fields that were added to a type later are not in what was written before.
    present = st.sampled_from([len(kinds), len(kinds), 1])
    return st.tuples(fields, present).map(lambda both: write_fields(both[0][: both[1]]))


@st.composite
def typed_cells(draw: st.DrawFn) -> tuple[CqlType, bytes]:
    """A type and a cell of it."""
    cql_type = draw(cql_types())
    return cql_type, draw(cells_of(cql_type))
