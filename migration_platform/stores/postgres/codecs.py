"""Which types of PostgreSQL hold a column's values, and what turns cells into them and back.

A guess that would be wrong: a type that holds every value may not do as a key. Values that
PostgreSQL takes for equal would be one row there, and two at the origin.
"""

from collections.abc import Callable
from functools import cache
from struct import Struct

from migration_platform.cql.elements import (
    read_elements,
    read_fields,
    read_vector,
    write_elements,
    write_fields,
    write_vector,
)
from migration_platform.cql.forms import convert_fields
from migration_platform.cql.types import CqlType
from migration_platform.stores.postgres.codec import (
    Codec,
    UnholdableValue,
    as_key,
    explained,
    forgiving,
    no_value,
    strict,
)
from migration_platform.stores.postgres.documents import as_json, text_as_json
from migration_platform.stores.postgres.scalars import (
    SCALARS,
    TEXT_LIKE,
    canonical_text,
    enum,
    real_as_key,
    text,
    within_length,
)
from migration_platform.stores.postgres.types import PgType

__all__ = [
    "Codec",
    "UnholdableValue",
    "codec_for",
    "cql_type_of",
    "offered_types",
    "why_unfit",
]

_TEXTS = ("text", "ascii")
_NESTED = ("list", "set", "map", "tuple", "udt", "vector")
MAX_VECTOR_DIMENSIONS = 16_000
"""How many elements a `vector` of pgvector has at most."""
_INT16, _INT32 = Struct(">h"), Struct(">i")


# -- the choice --------------------------------------------------------------------------------


@cache
def codec_for(
    cql_type: CqlType, pg_type: PgType, *, is_key: bool = False, nul: str = "refuse"
) -> Codec | None:
    """Build what turns a column's cells into values of a type; None if the type does not fit.

    Args:
        cql_type: The type of the cells.
        pg_type: The type of the target's column.
        is_key: Whether the column is a part of the target's key, where no two cells may become
            values that PostgreSQL takes for one.
        nul: What becomes of a NUL in a text: 'refuse', or 'escape', which writes it as ␀.
    """
    if pg_type.kind == "domain":
        return codec_for(cql_type, pg_type.base, is_key=is_key, nul=nul) if pg_type.base else None
    if is_key and not _may_be_key(cql_type, pg_type):
        return None
    codec = _build(cql_type, pg_type, is_key=is_key, nul=nul)
    if codec is None or not is_key:
        return codec
    if cql_type.name in ("float", "double") and pg_type.name in ("float4", "float8"):
        return real_as_key(codec, cql_type)
    return as_key(codec, cql_type)


def _may_be_key(cql_type: CqlType, pg_type: PgType) -> bool:
    if pg_type.kind == "array":
        return True
    if pg_type.kind not in ("base", "enum"):
        return False
    if pg_type.name in ("json", "jsonb", "citext", "vector", "interval"):
        return False
    return not (cql_type.name == "decimal" and pg_type.name == "numeric")


def _build(cql_type: CqlType, pg_type: PgType, *, is_key: bool, nul: str) -> Codec | None:
    name = cql_type.name
    if pg_type.kind == "enum":
        return enum(cql_type, pg_type) if name in _TEXTS else None
    if pg_type.kind == "array":
        return _array(cql_type, pg_type, is_key=is_key, nul=nul)
    if pg_type.kind == "composite":
        return _composite(cql_type, pg_type, nul=nul)
    if pg_type.kind != "base":
        return None
    if pg_type.name == "vector" and pg_type.schema != "pg_catalog":
        return _pgvector(cql_type, pg_type)
    if pg_type.schema != "pg_catalog" and pg_type.name != "citext":
        return None
    if pg_type.name == "bytea":
        return Codec(note="" if name in ("blob", "custom") else "the cell's own bytes")
    if pg_type.name in ("json", "jsonb"):
        is_jsonb = pg_type.name == "jsonb"
        if name in _TEXTS:
            return text_as_json(cql_type, is_jsonb=is_jsonb)
        return as_json(cql_type, nul=nul, is_jsonb=is_jsonb)
    if name in _TEXTS:
        return text(cql_type, pg_type, nul)
    if pg_type.name in TEXT_LIKE:
        shown = as_json(cql_type, nul=nul, is_jsonb=False) if name in _NESTED else None
        return within_length(shown or canonical_text(cql_type), cql_type, pg_type)
    build = SCALARS.get(name)
    return build(cql_type, pg_type) if build else None


# -- arrays ------------------------------------------------------------------------------------

_ARRAY_HEAD = Struct(">iiI")
"""How many dimensions there are, whether there are nulls, and the number of the elements' type."""
_FIRST_IS_ONE = _INT32.pack(1)
_NO_ELEMENTS = _INT32.pack(0)


def _array(cql_type: CqlType, pg_type: PgType, *, is_key: bool, nul: str) -> Codec | None:
    element = pg_type.element
    if element is None or cql_type.name not in ("list", "set", "vector"):
        return None
    inner_type = cql_type.parameters[0]
    inner = codec_for(inner_type, element, is_key=is_key, nul=nul)
    if inner is None:
        return None
    if cql_type.name == "vector":
        return _vector_array(cql_type, element, inner)
    head = _ARRAY_HEAD.pack(1, 0, element.oid)
    empty = _ARRAY_HEAD.pack(0, 0, element.oid)
    if inner.encode is None:
        # The elements of a list and those of an array are written alike.
        def encode(cell: bytes) -> bytes:
            count = cell[:4]
            if count == _NO_ELEMENTS:
                return empty
            if not count:
                raise no_value(cell, cql_type)
            return head + count + _FIRST_IS_ONE + cell[4:]

    else:

        def encode(cell: bytes) -> bytes:
            elements = read_elements(cell)
            if not elements:
                return empty
            return head + _INT32.pack(len(elements)) + _FIRST_IS_ONE + _written(elements, inner)

    def decode(value: bytes) -> bytes:
        body = _body_of(value)
        if inner.decode is None:
            return body
        return write_elements(_read(read_elements(body), inner))

    return Codec(
        explained(encode, cql_type) if inner.encode else encode,
        strict(decode),
        _canonical_elements(inner),
        _refuses_elements(inner, cql_type),
        inner.exact,
        inner.note,
    )


def _body_of(value: bytes) -> bytes:
    """Give an array of one dimension as a list is written."""
    (dimensions,) = _INT32.unpack_from(value)
    if dimensions == 0:
        return _NO_ELEMENTS
    if dimensions != 1:
        raise ValueError(f"it has {dimensions} dimensions")
    return value[12:16] + value[20:]


def _written(cells: list[bytes | None], codec: Codec) -> bytes:
    encode = codec.encode
    if encode is None:
        return write_fields(cells)
    return write_fields([None if cell is None else encode(cell) for cell in cells])


def _read(values: list[bytes | None], codec: Codec) -> list[bytes | None]:
    decode = codec.decode
    if decode is None:
        return values
    return [None if value is None else decode(value) for value in values]


def _canonical_elements(inner: Codec) -> Callable[[bytes], bytes] | None:
    canonical = inner.canonical
    if canonical is None:
        return None
    return forgiving(
        lambda cell: write_elements(
            [None if each is None else canonical(each) for each in read_elements(cell)]
        )
    )


def _refuses_elements(inner: Codec, cql_type: CqlType) -> Callable[[bytes], str | None] | None:
    refuses_one = inner.refuses

    def refuses(cell: bytes) -> str | None:
        try:
            elements = read_elements(cell)
        except ValueError:
            return str(no_value(cell, cql_type))
        if refuses_one is None:
            return None
        found = (refuses_one(each) for each in elements if each is not None)
        return next(filter(None, found), None)

    return refuses if refuses_one or inner.encode is None else None


def _vector_array(cql_type: CqlType, element: PgType, inner: Codec) -> Codec:
    if inner.encode is None and cql_type.parameters[0].name == "float":
        return _float_array(cql_type, element, inner)
    count = cql_type.dimensions or 0
    head = _ARRAY_HEAD.pack(1, 0, element.oid) + _INT32.pack(count) + _FIRST_IS_ONE

    def encode(cell: bytes) -> bytes:
        return head + _written([*read_vector(cell, cql_type)], inner)

    def decode(value: bytes) -> bytes:
        cells = [each for each in _read(read_elements(_body_of(value)), inner) if each is not None]
        if len(cells) != count:
            raise ValueError(f"it has not {count} elements")
        return write_vector(cells, cql_type)

    canonical = inner.canonical

    def canonical_of_all(cell: bytes) -> bytes:
        assert canonical is not None
        return write_vector([canonical(e) for e in read_vector(cell, cql_type)], cql_type)

    refuses_one = inner.refuses

    def refuses(cell: bytes) -> str | None:
        assert refuses_one is not None
        try:
            elements = read_vector(cell, cql_type)
        except ValueError:
            return None
        return next(filter(None, map(refuses_one, elements)), None)

    return Codec(
        explained(encode, cql_type),
        strict(decode),
        forgiving(canonical_of_all) if canonical else None,
        refuses if refuses_one else None,
        inner.exact,
        inner.note,
    )


def _float_array(cql_type: CqlType, element: PgType, inner: Codec) -> Codec:
    """Build the codec of floats, which an array has as they are, each with its length before it."""
    count = cql_type.dimensions or 0
    head = _ARRAY_HEAD.pack(1, 0, element.oid) + _INT32.pack(count) + _FIRST_IS_ONE
    floats, lengths, usual = Struct(f">{count}f"), b"\4" * count, inner.canonical
    assert usual is not None

    def encode(cell: bytes) -> bytes:
        if len(cell) != 4 * count:
            raise no_value(cell, cql_type)
        body = bytearray(8 * count)
        body[3::8] = lengths
        for byte in range(4):
            body[4 + byte :: 8] = cell[byte::4]
        return head + body

    def decode(value: bytes) -> bytes:
        if len(value) != len(head) + 8 * count or value[:4] != head[:4] or value[23::8] != lengths:
            raise ValueError(f"it has not {count} elements")
        cell = bytearray(4 * count)
        for byte in range(4):
            cell[byte::4] = value[24 + byte :: 8]
        return canonical(bytes(cell))

    def canonical(cell: bytes) -> bytes:
        total = sum(floats.unpack(cell))
        # No NaN is in a sum that is a number.
        if total == total:
            return cell
        return b"".join([usual(cell[at : at + 4]) for at in range(0, len(cell), 4)])

    return Codec(encode, strict(decode), forgiving(canonical), None, inner.exact, inner.note)


def _pgvector(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a vector as pgvector has it: floats, none of which is not finite."""
    count = cql_type.dimensions or 0
    if cql_type.name != "vector" or cql_type.parameters[0].name != "float":
        return None
    if count > MAX_VECTOR_DIMENSIONS or pg_type.modifier not in (-1, count):
        return None
    head, floats = Struct(">hh").pack(count, 0), Struct(f">{count}f")

    def encode(cell: bytes) -> bytes:
        total = sum(floats.unpack(cell))
        # Floats are too small to add up to an infinity as doubles.
        if total - total != 0:
            raise UnholdableValue(
                "a vector with NaN or an infinity is none that pgvector holds; declare "
                "target.columns.NAME.type: real[]"
            )
        return head + cell

    def decode(value: bytes) -> bytes:
        if value[:4] != head or len(value) != 4 + floats.size:
            raise ValueError(f"it has not {count} elements")
        return value[4:]

    note = "vectors with NaN or infinities are rejected"
    return Codec(explained(encode, cql_type), strict(decode), note=note)


# -- composite types ---------------------------------------------------------------------------

_FIELD_HEAD = Struct(">Ii")


def _composite(cql_type: CqlType, pg_type: PgType, *, nul: str) -> Codec | None:
    """Build the codec of a user-defined type by the names of its fields, of a tuple by place."""
    if cql_type.name == "udt":
        kinds, place = (
            dict(cql_type.fields),
            {name: at for at, (name, _) in enumerate(cql_type.fields)},
        )
        if kinds.keys() != dict(pg_type.fields).keys():
            return None
        columns = [(place[name], kinds[name], inner) for name, inner in pg_type.fields]
    elif cql_type.name == "tuple" and len(cql_type.parameters) == len(pg_type.fields):
        pairs = zip(cql_type.parameters, pg_type.fields, strict=True)
        columns = [(at, kind, inner) for at, (kind, (_, inner)) in enumerate(pairs)]
    else:
        return None
    steps: list[tuple[int, int, Codec]] = []
    for at, kind, inner in columns:
        codec = codec_for(kind, inner, nul=nul)
        if codec is None:
            return None
        steps.append((at, inner.oid, codec))
    return _composite_codec(cql_type, steps)


def _composite_codec(cql_type: CqlType, steps: list[tuple[int, int, Codec]]) -> Codec:
    count = len(steps)
    in_order = [codec for _, _, codec in sorted(steps, key=lambda step: step[0])]

    def encode(cell: bytes) -> bytes:
        cells = read_fields(cell, count)
        parts = [_INT32.pack(count)]
        for at, oid, codec in steps:
            field = cells[at]
            if field is None:
                parts.append(_FIELD_HEAD.pack(oid, -1))
                continue
            value = codec.encode(field) if codec.encode else field
            parts += (_FIELD_HEAD.pack(oid, len(value)), value)
        return b"".join(parts)

    def decode(value: bytes) -> bytes:
        if _INT32.unpack_from(value) != (count,):
            raise ValueError(f"it has not {count} fields")
        found: list[bytes | None] = [None] * count
        start = 4
        for at, _, codec in steps:
            _, size = _FIELD_HEAD.unpack_from(value, start)
            start += 8
            if size >= 0:
                field = value[start : start + size]
                start += size
                found[at] = codec.decode(field) if codec.decode else field
        return write_fields(found)

    def refuses(cell: bytes) -> str | None:
        try:
            cells = read_fields(cell, count)
        except ValueError:
            return None
        for field, codec in zip(cells, in_order, strict=True):
            why = codec.refuses(field) if codec.refuses and field is not None else None
            if why:
                return why
        return None

    return Codec(
        explained(encode, cql_type),
        strict(decode),
        forgiving(convert_fields([codec.canonical for codec in in_order])),
        refuses if any(codec.refuses for codec in in_order) else None,
        all(codec.exact for codec in in_order),
        "; ".join(dict.fromkeys(codec.note for codec in in_order if codec.note)),
    )


# -- what is offered ---------------------------------------------------------------------------

_ANYTHING = ("text", "bytea")
_OFFERED: dict[str, tuple[str, ...]] = {
    "text": ("text", "varchar", "bytea"),
    "ascii": ("text", "varchar", "bytea"),
    "tinyint": ("smallint", "integer", "bigint", "numeric"),
    "smallint": ("smallint", "integer", "bigint", "numeric"),
    "int": ("integer", "bigint", "numeric"),
    "bigint": ("bigint", "numeric"),
    "counter": ("bigint", "numeric"),
    "varint": ("numeric",),
    "decimal": ("numeric",),
    "float": ("real", "double precision"),
    "double": ("double precision",),
    "boolean": ("boolean",),
    "uuid": ("uuid",),
    "timeuuid": ("uuid",),
    "timestamp": ("timestamptz", "bigint", "timestamp"),
    "date": ("date", "integer", "bigint"),
    "time": ("time", "bigint"),
    "duration": ("interval",),
    "inet": ("inet",),
    "blob": ("bytea", "text"),
    "custom": ("bytea", "text"),
}
_NOT_AS_KEYS = {("decimal", "numeric"), ("duration", "interval")}


@cache
def offered_types(
    cql_type: CqlType, *, is_key: bool = False, vectors: bool = False
) -> tuple[str, ...]:
    """Give types, as SQL has them, that hold a column's values; the first is the default.

    They lose nothing, or reject the row of a value that they cannot hold.

    Args:
        cql_type: The type of the cells.
        is_key: Whether the column is a part of the target's key.
        vectors: Whether the database has the extension pgvector.
    """
    name = cql_type.name
    if name in _NESTED:
        found = list(_arrays(cql_type, is_key=is_key))
        if name == "vector" and vectors and not is_key and cql_type.parameters[0].name == "float":
            fits = (cql_type.dimensions or 0) <= MAX_VECTOR_DIMENSIONS
            found[:0] = [f"vector({cql_type.dimensions})"] if fits else []
        found += [] if is_key else ["jsonb", "json"]
    else:
        offered = _OFFERED.get(name, ("bytea",))
        found = [each for each in offered if not (is_key and (name, each) in _NOT_AS_KEYS)]
        found += [] if is_key or name in (*_TEXTS, "blob", "custom") else ["jsonb"]
    return tuple(dict.fromkeys((*found, *_ANYTHING)))


def _arrays(cql_type: CqlType, *, is_key: bool) -> list[str]:
    if cql_type.name not in ("list", "set", "vector"):
        return []
    element = cql_type.parameters[0]
    if element.name in _NESTED:
        return []
    return [f"{offered_types(element, is_key=is_key)[0]}[]"]


def why_unfit(cql_type: CqlType, pg_type: PgType, *, is_key: bool = False) -> str:
    """Say why a type does not hold a column's values, and which types would."""
    offered = ", ".join(offered_types(cql_type, is_key=is_key))
    return f"{_reason(cql_type, pg_type, is_key=is_key)}; types that do are {offered}"


def _reason(cql_type: CqlType, pg_type: PgType, *, is_key: bool) -> str:
    if pg_type.kind == "domain" and pg_type.base is not None:
        return _reason(cql_type, pg_type.base, is_key=is_key)
    if pg_type.name == "bpchar" and pg_type.kind == "base":
        return f"{pg_type} fills values up with spaces, and they would not come back as they were"
    if pg_type.name == "interval" and pg_type.modifier != -1:
        return "an interval of some fields, or with a precision, would cut off the others"
    if is_key and codec_for(cql_type, pg_type) is not None:
        return (
            f"{pg_type} is no type for a key of {cql_type}: values that differ at the origin may "
            "be equal there"
        )
    if pg_type.kind == "composite" and cql_type.name == "udt":
        return f"{pg_type} has other fields than {cql_type}, or of types that do not hold them"
    return f"{pg_type} holds no {cql_type}"


# -- the other way -----------------------------------------------------------------------------

_NATURAL = {
    "int2": "smallint",
    "int4": "int",
    "int8": "bigint",
    "float4": "float",
    "float8": "double",
    "numeric": "decimal",
    "bool": "boolean",
    "uuid": "uuid",
    "text": "text",
    "varchar": "text",
    "citext": "text",
    "json": "text",
    "jsonb": "text",
    "bytea": "blob",
    "timestamptz": "timestamp",
    "timestamp": "timestamp",
    "date": "date",
    "time": "time",
    "interval": "duration",
    "inet": "inet",
}


def cql_type_of(pg_type: PgType) -> CqlType | None:
    """Give the CQL type that values of a type are written in; None if there is none."""
    if pg_type.kind == "domain":
        return cql_type_of(pg_type.base) if pg_type.base else None
    if pg_type.kind == "enum":
        return CqlType("text")
    if pg_type.kind == "array":
        inner = cql_type_of(pg_type.element) if pg_type.element else None
        return CqlType("list", (inner,), is_frozen=True) if inner else None
    if pg_type.kind == "composite":
        fields = [(name, cql_type_of(inner)) for name, inner in pg_type.fields]
        known = tuple((name, inner) for name, inner in fields if inner is not None)
        return CqlType("udt", fields=known, is_frozen=True) if len(known) == len(fields) else None
    if pg_type.kind != "base":
        return None
    if pg_type.name == "vector" and pg_type.schema != "pg_catalog" and pg_type.modifier > 0:
        inner = CqlType("float")
        return CqlType("vector", (inner,), is_frozen=True, dimensions=pg_type.modifier)
    if pg_type.schema != "pg_catalog" and pg_type.name != "citext":
        return None
    name = _NATURAL.get(pg_type.name)
    return CqlType(name) if name else None
