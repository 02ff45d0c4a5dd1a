"""Any cell as JSON, and back: what jsonb holds, and json and text where they hold what is nested.

Numbers are JSON's numbers where jsonb keeps them as they are, and texts where it would not: NaN,
-0.0, decimals with an exponent. A value of no bytes at all is the empty text.

A guess that would be wrong: jsonb keeps neither the order of names nor that of a map's entries.
Cassandra's order is made anew.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from json import JSONDecoder, dumps
from json.encoder import encode_basestring
from math import copysign
from struct import Struct
from typing import Any

from cassandra.marshal import vints_pack, vints_unpack

from migration_platform.cql.elements import (
    read_elements,
    read_entries,
    read_fields,
    read_vector,
    write_elements,
    write_entries,
    write_fields,
    write_vector,
)
from migration_platform.cql.order import sort_key
from migration_platform.cql.texts import TEXTS, boolean_text, text_of, write_decimal
from migration_platform.cql.types import CqlType
from migration_platform.stores.postgres.codec import (
    Codec,
    Convert,
    UnholdableValue,
    explained,
    forgiving,
    strict,
)
from migration_platform.stores.postgres.numbers import MAX_DIGITS_BEFORE
from migration_platform.stores.postgres.scalars import (
    WHOLE,
    escape_nul,
    unescape_nul,
    why_no_text,
)


class _Number(str):
    """A JSON number in its own digits."""

    __slots__ = ()


@dataclass(frozen=True)
class Document:
    """The JSON of a type's values: `write` gives its text, `read` takes what `parse` gives."""

    write: Callable[[bytes], str]
    read: Callable[[Any], bytes]
    canonical: Convert | None = None


def parse(text: str) -> Any:
    """Read JSON; numbers stay as they are written.

    Raises:
        ValueError: it is none, or lists lie in lists too deep to be read.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as failure:
        raise ValueError("it is nested too deep") from failure


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant)
"""Made once, which takes longer than reading a small document."""


@cache
def document_of(cql_type: CqlType, nul: str) -> Document:
    """Give the JSON of a type's values, also of those of no bytes."""
    name = cql_type.name
    if name in ("text", "ascii"):
        return _text_document(cql_type, nul)
    inner = _build(cql_type, nul)
    write, read, canonical = inner.write, inner.read, inner.canonical

    def read_any(value: Any) -> bytes:
        return read(value) if value != "" or isinstance(value, _Number) else b""

    return Document(
        lambda cell: write(cell) if cell else '""',
        read_any,
        (lambda cell: canonical(cell) if cell else cell) if canonical else None,
    )


def _build(cql_type: CqlType, nul: str) -> Document:
    name, kinds = cql_type.name, cql_type.parameters
    inner = [document_of(kind, nul) for kind in kinds]
    match name:
        case "list" | "set":
            return _elements(inner[0])
        case "map":
            return _map(kinds[0], inner[1], nul)
        case "udt":
            return _fields([(field, document_of(kind, nul)) for field, kind in cql_type.fields])
        case "tuple":
            return _tuple(inner)
        case "vector":
            return _vector(cql_type, inner[0])
    return _scalar(cql_type)


# -- scalars -----------------------------------------------------------------------------------


def _of_text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r} is no text")
    return value


def _text_document(cql_type: CqlType, nul: str) -> Document:
    escapes = nul == "escape"

    def write(cell: bytes) -> str:
        if b"\0" in cell and not escapes:
            raise UnholdableValue(why_no_text(cell, cql_type, nul=nul))
        try:
            return encode_basestring((escape_nul(cell) if escapes else cell).decode())
        except UnicodeDecodeError as failure:
            raise UnholdableValue(why_no_text(cell, cql_type, nul=nul)) from failure

    def read(value: Any) -> bytes:
        found = _of_text(value).encode()
        return unescape_nul(found) if escapes else found

    return Document(write, read)


_SHORT_VARINT, _SHORT_DECIMAL, _SHORT_SCALE = 16, 20, 38
"""Whole numbers of more bytes, and decimals of more digits or another scale, are texts."""


def _scalar(cql_type: CqlType) -> Document:
    name, text = cql_type.name, text_of(cql_type)
    if name in WHOLE:
        return Document(text.write, lambda value: text.read(_of_number(value)))
    if name == "boolean":
        return Document(boolean_text, _read_boolean, text.canonical)
    if name in ("float", "double"):
        return _real(name)
    if name == "duration":
        return Document(_write_duration, _read_duration, text.canonical)
    if name == "varint":
        return Document(
            lambda cell: text.write(cell) if len(cell) <= _SHORT_VARINT else _quoted(text, cell),
            lambda value: text.read(str(value)),
            text.canonical,
        )
    if name == "decimal":
        return Document(_write_decimal, _read_decimal, text.canonical)
    return Document(
        lambda cell: f'"{text.write(cell)}"',
        lambda value: text.read(_of_text(value)),
        text.canonical,
    )


def _of_number(value: Any) -> str:
    if type(value) is not _Number:
        raise ValueError(f"{value!r} is no number")
    return str(value)


def _quoted(text: Any, cell: bytes) -> str:
    return f'"{text.write(cell)}"'


def _read_boolean(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is no boolean")
    return b"\1" if value else b"\0"


def _real(name: str) -> Document:
    text, layout = TEXTS[name], Struct(">f" if name == "float" else ">d")

    def write(cell: bytes) -> str:
        (number,) = layout.unpack(cell)
        shown = text.write(cell)
        if number - number or (number == 0 and copysign(1, number) < 0):
            return f'"{shown}"'
        return shown if number == number and number - number == 0 else f'"{shown}"'

    def read(value: Any) -> bytes:
        if type(value) is _Number:
            return layout.pack(float(value))
        return text.read(_of_text(value))

    return Document(write, read, text.canonical)


def _write_decimal(cell: bytes) -> str:
    shown = TEXTS["decimal"].write(cell)
    if len(cell) <= _SHORT_DECIMAL and 0 <= int.from_bytes(cell[:4], "big") <= _SHORT_SCALE:
        return shown if "E" not in shown else f"{Decimal(shown):f}"
    return f'"{shown}"'


def _read_decimal(value: Any) -> bytes:
    if type(value) is not _Number:
        return TEXTS["decimal"].read(_of_text(value))
    number = Decimal(value)
    if abs(number.adjusted()) > 1000:
        raise ValueError(f"{value[:60]} is no number that was written")
    return write_decimal(number)


_PARTS = ("months", "days", "nanoseconds")


def _write_duration(cell: bytes) -> str:
    months, days, nanos = vints_unpack(cell)
    return f'{{"months":{months},"days":{days},"nanoseconds":{nanos}}}'


def _read_duration(value: Any) -> bytes:
    if value.keys() != set(_PARTS):
        raise ValueError("it has not the parts of a duration")
    return bytes(vints_pack([int(_of_number(value[part])) for part in _PARTS]))


# -- what is made of others --------------------------------------------------------------------


def _nullable(
    document: Document,
) -> tuple[Callable[[bytes | None], str], Callable[[Any], bytes | None]]:
    write, read = document.write, document.read

    def write_any(cell: bytes | None) -> str:
        return "null" if cell is None else write(cell)

    def read_any(value: Any) -> bytes | None:
        return None if value is None else read(value)

    return write_any, read_any


def _canonical_of(document: Document) -> Callable[[bytes | None], bytes | None]:
    canonical = document.canonical
    if canonical is None:
        return lambda cell: cell
    return lambda cell: None if cell is None else canonical(cell)


def _list_of(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:60]!r} is no list")
    return value


def _elements(inner: Document) -> Document:
    write, read = _nullable(inner)
    to_canonical = _canonical_of(inner)
    return Document(
        lambda cell: f"[{','.join(map(write, read_elements(cell)))}]",
        lambda value: write_elements([read(element) for element in _list_of(value)]),
        (lambda cell: write_elements([to_canonical(e) for e in read_elements(cell)]))
        if inner.canonical
        else None,
    )


def _vector(cql_type: CqlType, inner: Document) -> Document:
    write, read, canonical = inner.write, inner.read, inner.canonical

    def read_all(value: Any) -> bytes:
        elements = [read(element) for element in _list_of(value)]
        if len(elements) != cql_type.dimensions:
            raise ValueError(f"{len(elements)} elements are no {cql_type}")
        return write_vector(elements, cql_type)

    def canonical_of_all(cell: bytes) -> bytes:
        assert canonical is not None
        return write_vector([canonical(e) for e in read_vector(cell, cql_type)], cql_type)

    return Document(
        lambda cell: f"[{','.join(map(write, read_vector(cell, cql_type)))}]",
        read_all,
        canonical_of_all if canonical else None,
    )


def _name_document(key_type: CqlType, nul: str) -> Document:
    """Give a map's keys as names: their canonical texts."""
    if key_type.name in ("text", "ascii"):
        return _text_document(key_type, nul)
    text = text_of(key_type)
    return Document(
        lambda cell: f'"{text.write(cell)}"' if cell else '""',
        lambda name: text.read(name) if name else b"",
        text.canonical,
    )


def _map(key_type: CqlType, inner: Document, nul: str) -> Document:
    names, (write, read) = _name_document(key_type, nul), _nullable(inner)
    to_canonical, key_canonical = _canonical_of(inner), names.canonical or (lambda cell: cell)
    place = sort_key(key_type)

    def in_order(entries: list[tuple[bytes, bytes | None]]) -> bytes:
        return write_entries(sorted(entries, key=lambda entry: (place(entry[0]), entry[0])))

    def write_all(cell: bytes) -> str:
        pairs = read_entries(cell)
        entries = {names.write(key): value for key, value in pairs}
        if len(entries) != len(pairs):
            raise UnholdableValue("a key stands twice in its map")
        return f"{{{','.join([f'{name}:{write(value)}' for name, value in entries.items()])}}}"

    return Document(
        write_all,
        lambda value: in_order([(names.read(name), read(each)) for name, each in value.items()]),
        lambda cell: in_order([(key_canonical(k), to_canonical(v)) for k, v in read_entries(cell)]),
    )


def _fields(fields: list[tuple[str, Document]]) -> Document:
    # Cassandra lets a name have a NUL, too.
    fields = [(escape_nul(name.encode()).decode(), document) for name, document in fields]
    names = [name for name, _ in fields]
    writers = [(encode_basestring(name), _nullable(document)[0]) for name, document in fields]
    readers = [(name, _nullable(document)[1]) for name, document in fields]

    def write(cell: bytes) -> str:
        found = zip(writers, read_fields(cell, len(writers)), strict=True)
        return f"{{{','.join([f'{name}:{show(field)}' for (name, show), field in found])}}}"

    def read(value: Any) -> bytes:
        if not value.keys() <= set(names):
            raise ValueError("it has other fields")
        return write_fields(read_one(value.get(name)) for name, read_one in readers)

    return Document(write, read, canonical_fields([document for _, document in fields]))


def _tuple(inner: list[Document]) -> Document:
    writers = [_nullable(document)[0] for document in inner]
    readers = [_nullable(document)[1] for document in inner]

    def write(cell: bytes) -> str:
        found = zip(writers, read_fields(cell, len(writers)), strict=True)
        return f"[{','.join([show(field) for show, field in found])}]"

    def read(value: Any) -> bytes:
        found = zip(readers, _list_of(value), strict=True)
        return write_fields([read_one(field) for read_one, field in found])

    return Document(write, read, canonical_fields(inner))


def canonical_fields(inner: list[Document] | list[Codec]) -> Convert:
    """Build what writes out all fields: those that a value lacks at its end are null."""
    steps = [_canonical_of(each) for each in inner]  # type: ignore[arg-type] # both have canonical

    def canonical(cell: bytes) -> bytes:
        found = zip(steps, read_fields(cell, len(steps)), strict=True)
        return write_fields([step(field) for step, field in found])

    return canonical


# -- codecs ------------------------------------------------------------------------------------

_VERSION = b"\1"
"""Begins a jsonb in binary form."""


def as_json(cql_type: CqlType, *, nul: str, is_jsonb: bool) -> Codec:
    """Build the codec of anything but a text as JSON, or as the text of it."""
    document = document_of(cql_type, nul)
    write, read = document.write, document.read
    if is_jsonb:

        def encode(cell: bytes) -> bytes:
            return _VERSION + write(cell).encode()

        def decode(value: bytes) -> bytes:
            return read(parse(value[1:].decode()))

    else:

        def encode(cell: bytes) -> bytes:
            return write(cell).encode()

        def decode(value: bytes) -> bytes:
            return read(parse(value.decode()))

    canonical = forgiving(document.canonical) if document.canonical else None
    return Codec(explained(encode, cql_type), strict(decode), canonical)


def text_as_json(cql_type: CqlType, *, is_jsonb: bool) -> Codec:
    """Build the codec of a text that is JSON itself."""

    def check(cell: bytes) -> bytes:
        try:
            document = parse(cell.decode())
            if is_jsonb and b"\\u" in cell and "\0" in "".join(_texts_of(document)):
                raise ValueError("a text in it has a NUL")
            # Half of a surrogate pair is only written as an escape.
            if is_jsonb and b"\\u" in cell:
                _written(document).encode()
        except UnicodeEncodeError as failure:
            raise _no_json(is_jsonb, "a text in it has half of a surrogate pair") from failure
        except (ValueError, RecursionError) as failure:
            raise _no_json(is_jsonb, str(failure)) from failure
        return _VERSION + cell if is_jsonb else cell

    if not is_jsonb:
        return Codec(check, note="texts that are no JSON are rejected")
    return Codec(
        check,
        lambda value: _normal_json(value[1:]),
        forgiving(_normal_json),
        exact=False,
        note="texts that are no JSON are rejected; spaces, the order of names, and a name that "
        "stands twice are not kept",
    )


def _no_json(is_jsonb: bool, why: str) -> UnholdableValue:
    kind = "jsonb" if is_jsonb else "json"
    return UnholdableValue(
        f"its text is no JSON that {kind} holds ({why}); declare target.columns.NAME.type: text"
    )


def _texts_of(value: Any) -> Iterator[str]:
    """Give every text and every name in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_of(inner)


def _normal_json(cell: bytes) -> bytes:
    """Write JSON as any other text of the same jsonb is written."""
    return _written(parse(cell.decode())).encode()


def _written(value: Any) -> str:
    if isinstance(value, dict):
        entries = sorted(value.items())
        return f"{{{','.join([f'{encode_basestring(k)}:{_written(v)}' for k, v in entries])}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if type(value) is _Number:
        number = Decimal(value)
        # A number that would fill the memory with zeros is none that jsonb holds.
        if abs(number.adjusted()) > MAX_DIGITS_BEFORE:
            return value
        return f"{number if number else abs(number):f}"
    return dumps(value, ensure_ascii=False)
