"""Any cell as JSON, and back: what jsonb holds, and json and text where they hold what is nested.

Numbers are JSON's numbers where jsonb keeps them as they are, and texts where it would not: NaN,
-0.0, decimals with an exponent. A value of no bytes at all is the empty text.

A guess that would be wrong: jsonb keeps neither the order of names nor that of a map's entries.
Cassandra's order is made anew.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
    read_fields,
    read_pairs,
    read_vector,
    write_elements,
    write_entries,
    write_fields,
    write_pairs,
    write_vector,
)
from migration_platform.cql.forms import convert_fields
from migration_platform.cql.order import by_bytes, sort_key
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


WriteEach = Callable[[Sequence[bytes | None]], Iterable[str]]
ReadEach = Callable[[Iterable[Any]], Sequence[bytes | None]]


class _Known(dict[Any, Any]):
    """What few short values become, kept because many cells have the same few."""

    def __init__(self, make: Callable[[Any], Any]):
        self._make = make

    def __missing__(self, value: Any) -> Any:
        made = self._make(value)
        if value is not None and len(value) <= _SHORT:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[value] = made
        return made


_SHORT, _MOST_KNOWN = 20, 1000
"""Bytes of a value, and how many are kept of a type."""


@dataclass(frozen=True)
class Document:
    """The JSON of a type's values: `write` gives its text, `read` takes what `parse` gives.

    `write_each` and `read_each` do the same with many values at once. Nulls may be among those,
    and be written, but `read` takes none.
    """

    write: Callable[[bytes | None], str]
    read: Callable[[Any], bytes]
    canonical: Convert | None
    write_each: WriteEach
    read_each: ReadEach


@dataclass(frozen=True)
class _Values:
    """The JSON of a type's values that have some bytes, and are not null."""

    write: Callable[[bytes], str]
    read: Callable[[Any], bytes]
    canonical: Convert | None = None


def parse(text: str) -> Any:
    """Read JSON; numbers stay as they are written.

    Raises:
        ValueError: it is none, or lists lie in lists too deep to be read.
    """
    try:
        try:
            found, end = _DECODER.raw_decode(text)
        except ValueError:
            found, end = None, -1
        # Spaces around it, or what is wrong.
        return found if end == len(text) else _DECODER.decode(text)
    except RecursionError as failure:
        raise ValueError("it is nested too deep") from failure


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = JSONDecoder(
    parse_int=_Known(_Number).__getitem__, parse_float=_Number, parse_constant=_refuse_constant
)
"""Made once, which takes longer than reading a small document."""


@cache
def document_of(cql_type: CqlType, nul: str) -> Document:
    """Give the JSON of a type's values, also of those of no bytes."""
    name = cql_type.name
    if name in ("text", "ascii"):
        return _text_document(cql_type, nul)
    inner = _build(cql_type, nul)
    write, read, canonical = inner.write, inner.read, inner.canonical

    def write_any(cell: bytes | None) -> str:
        return write(cell) if cell else "null" if cell is None else '""'

    def read_any(value: Any) -> bytes:
        return read(value) if value != "" or isinstance(value, _Number) else b""

    is_whole = name in WHOLE
    return Document(
        write_any,
        read_any,
        (lambda cell: canonical(cell) if cell else cell) if canonical else None,
        _each_of_few(write_any) if is_whole else lambda cells: map(write_any, cells),
        _each_number(read_any) if is_whole else _each_or_null(read_any),
    )


def _each_of_few(write: Callable[[bytes | None], str]) -> WriteEach:
    known = _Known(write).__getitem__
    return lambda cells: map(known, cells)


def _or_null(read: Callable[[Any], bytes]) -> Callable[[Any], bytes | None]:
    return lambda value: None if value is None else read(value)


def _each_or_null(read: Callable[[Any], bytes]) -> ReadEach:
    return lambda values: [None if value is None else read(value) for value in values]


def _each_number(read: Callable[[Any], bytes]) -> ReadEach:
    known, read_others = _Known(read).__getitem__, _each_or_null(read)

    def read_each(values: Iterable[Any]) -> Sequence[bytes | None]:
        # A text of the same digits would be found, too.
        if {*map(type, values)} == _ONLY_NUMBERS:
            return [*map(known, values)]
        return read_others(values)

    return read_each


_ONLY_NUMBERS = {_Number}


def _build(cql_type: CqlType, nul: str) -> _Values:
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

    def write_any(cell: bytes | None) -> str:
        return "null" if cell is None else write(cell)

    def write_each(cells: Sequence[bytes | None]) -> Iterable[str]:
        # All of it without a step in Python, unless one of them is unusual.
        try:
            if not escapes and b"\0" not in b"".join(cells):  # type: ignore[arg-type] # TypeError
                return [*map(encode_basestring, map(bytes.decode, cells))]  # type: ignore[arg-type]
        except (TypeError, UnicodeDecodeError):
            pass
        return map(write_any, cells)

    def read(value: Any) -> bytes:
        found = _of_text(value).encode()
        return unescape_nul(found) if escapes else found

    read_others = _each_or_null(read)

    def read_each(values: Iterable[Any]) -> Sequence[bytes | None]:
        if not escapes and {*map(type, values)} == _ONLY_TEXTS:
            return [*map(str.encode, values)]
        return read_others(values)

    return Document(write_any, read, None, write_each, read_each)


_ONLY_TEXTS = {str}


_SHORT_VARINT, _SHORT_DECIMAL, _SHORT_SCALE = 16, 20, 38
"""Whole numbers of more bytes, and decimals of more digits or another scale, are texts."""


def _scalar(cql_type: CqlType) -> _Values:
    name, text = cql_type.name, text_of(cql_type)
    if name in WHOLE:
        return _Values(text.write, lambda value: text.read(_of_number(value)))
    if name == "boolean":
        return _Values(boolean_text, _read_boolean, text.canonical)
    if name in ("float", "double"):
        return _real(name)
    if name == "duration":
        return _Values(_write_duration, _read_duration, text.canonical)
    if name == "varint":
        return _Values(
            lambda cell: text.write(cell) if len(cell) <= _SHORT_VARINT else _quoted(text, cell),
            lambda value: text.read(str(value)),
            text.canonical,
        )
    if name == "decimal":
        return _Values(_write_decimal, _read_decimal, text.canonical)
    return _Values(
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


def _real(name: str) -> _Values:
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

    return _Values(write, read, text.canonical)


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


def _canonical_of(document: Document) -> Callable[[bytes | None], bytes | None]:
    canonical = document.canonical
    if canonical is None:
        return lambda cell: cell
    return lambda cell: None if cell is None else canonical(cell)


def _list_of(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:60]!r} is no list")
    return value


def _elements(inner: Document) -> _Values:
    write_each, read_each = inner.write_each, inner.read_each
    to_canonical = _canonical_of(inner)
    return _Values(
        lambda cell: f"[{','.join(write_each(read_elements(cell)))}]",
        lambda value: write_elements(read_each(_list_of(value))),
        (lambda cell: write_elements([to_canonical(e) for e in read_elements(cell)]))
        if inner.canonical
        else None,
    )


def _vector(cql_type: CqlType, inner: Document) -> _Values:
    write, read, canonical = inner.write, inner.read, inner.canonical

    def read_all(value: Any) -> bytes:
        elements = [read(element) for element in _list_of(value)]
        if len(elements) != cql_type.dimensions:
            raise ValueError(f"{len(elements)} elements are no {cql_type}")
        return write_vector(elements, cql_type)

    def canonical_of_all(cell: bytes) -> bytes:
        assert canonical is not None
        return write_vector([canonical(e) for e in read_vector(cell, cql_type)], cql_type)

    return _Values(
        lambda cell: f"[{','.join(map(write, read_vector(cell, cql_type)))}]",
        read_all,
        canonical_of_all if canonical else None,
    )


@dataclass(frozen=True)
class _Names:
    """A map's keys as names: their canonical texts."""

    write_each: WriteEach
    read_each: Callable[[Iterable[str]], list[bytes]]
    canonical: Convert | None = None


def _names_of(key_type: CqlType, nul: str) -> _Names:
    if key_type.name in ("text", "ascii"):
        texts = _text_document(key_type, nul)
        read = texts.read if nul == "escape" else str.encode
        return _Names(texts.write_each, lambda names: [*map(read, names)])
    text = text_of(key_type)
    return _Names(
        lambda cells: [f'"{text.write(cell)}"' if cell else '""' for cell in cells],
        lambda names: [text.read(name) if name else b"" for name in names],
        text.canonical,
    )


def _map(key_type: CqlType, inner: Document, nul: str) -> _Values:
    names, write_each, read_each = _names_of(key_type, nul), inner.write_each, inner.read_each
    write_names, read_names, key_canonical = names.write_each, names.read_each, names.canonical
    place, is_plain = sort_key(key_type), sort_key(key_type) is by_bytes
    keeps_all = is_plain and not (key_canonical or inner.canonical)
    to_canonical = _canonical_of(inner)

    def in_order(keys: Sequence[bytes], values: Sequence[bytes | None]) -> bytes:
        if is_plain and keys == sorted(keys):
            return write_pairs(keys, values)
        entries = zip(keys, values, strict=True)
        return write_entries(sorted(entries, key=lambda entry: (place(entry[0]), entry[0])))

    def write(cell: bytes) -> str:
        keys, values = read_pairs(cell)
        shown = [*write_names(keys)]
        if len({*shown}) != len(shown):
            raise UnholdableValue("a key stands twice in its map")
        entries = zip(shown, write_each(values), strict=True)
        return f"{{{','.join([f'{name}:{value}' for name, value in entries])}}}"

    def canonical(cell: bytes) -> bytes:
        keys, values = read_pairs(cell)
        if keeps_all and None not in values and [*keys] == sorted(keys):
            return cell
        if key_canonical:
            keys = [key_canonical(key) for key in keys]
        return in_order(keys, [to_canonical(value) for value in values])

    return _Values(
        write,
        lambda value: in_order(read_names(value.keys()), read_each(value.values())),
        canonical,
    )


def _fields(fields: list[tuple[str, Document]]) -> _Values:
    # Cassandra lets a name have a NUL, too.
    fields = [(escape_nul(name.encode()).decode(), document) for name, document in fields]
    names = [name for name, _ in fields]
    writers = [(encode_basestring(name), document.write) for name, document in fields]
    readers = [(name, _or_null(document.read)) for name, document in fields]

    def write(cell: bytes) -> str:
        found = zip(writers, read_fields(cell, len(writers)), strict=True)
        return f"{{{','.join([f'{name}:{show(field)}' for (name, show), field in found])}}}"

    def read(value: Any) -> bytes:
        if not value.keys() <= set(names):
            raise ValueError("it has other fields")
        return write_fields(read_one(value.get(name)) for name, read_one in readers)

    return _Values(write, read, convert_fields([document.canonical for _, document in fields]))


def _tuple(inner: list[Document]) -> _Values:
    writers = [document.write for document in inner]
    readers = [_or_null(document.read) for document in inner]

    def write(cell: bytes) -> str:
        found = zip(writers, read_fields(cell, len(writers)), strict=True)
        return f"[{','.join([show(field) for show, field in found])}]"

    def read(value: Any) -> bytes:
        found = zip(readers, _list_of(value), strict=True)
        return write_fields([read_one(field) for read_one, field in found])

    return _Values(write, read, convert_fields([document.canonical for document in inner]))


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
