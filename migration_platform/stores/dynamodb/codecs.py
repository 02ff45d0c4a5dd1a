"""Builds what turns a cell into an attribute value, and an attribute value into the same cell.

Encoders write the JSON of an attribute value directly, since they run once a cell.

A guess that would be wrong: a cell without any bytes is no null, and every type but text and blob
may have one (`{"S": ""}`).
"""

from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from json import dumps
from json.encoder import encode_basestring
from typing import Any, get_args

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
from migration_platform.cql.forms import convert_fields, one_or_zero
from migration_platform.cql.order import sort_key
from migration_platform.cql.samples import cut_sample
from migration_platform.cql.texts import (
    NOT_OF_THE_TYPE,
    TEXTS,
    Canonical,
    Text,
    boolean_text,
    explain_failures,
    only_the_usual,
    text_of,
)
from migration_platform.cql.types import CqlType
from migration_platform.cql.values import shorten
from migration_platform.errors import DeclarationError
from migration_platform.stores.dynamodb.numbers import NUMBERS
from migration_platform.stores.dynamodb.types import (
    MAX_NAME_BYTES,
    AttributeType,
    Numbers,
    attribute_type_of,
)

Encoder = Callable[[bytes], str]
"""Writes a cell as the JSON of an attribute value; null never comes to it. Raises ValueError, whose
text says why DynamoDB cannot hold the cell."""
Decoder = Callable[[Any], bytes]
"""Makes the cell of an attribute value as `json.loads` gives it; null (`NULL`) never comes to it.
Raises ValueError if no encoder can have made the value."""

_EMPTY = '{"S":""}'
_NULL = '{"NULL":true}'


@dataclass(frozen=True)
class _Codec:
    encode: Encoder
    decode: Decoder
    canonical: Canonical | None = None


def compile_encoder(
    cql_type: CqlType,
    attribute_type: str | None = None,
    *,
    numbers: str = "refuse",
    is_key: bool = False,
) -> Encoder:
    """Build what writes a column's cells as attribute values.

    Two cells of a key column never give one attribute value: cells that are not in the one form of
    their value are refused there.

    Raises:
        DeclarationError: the type is not offered for the column, or `numbers` is unknown.
    """
    codec = _compile(cql_type, attribute_type, numbers, is_key)
    encode = only_the_usual(codec.encode, codec.canonical) if is_key else codec.encode
    return explain_failures(encode, cql_type)


def compile_decoder(
    cql_type: CqlType,
    attribute_type: str | None = None,
    *,
    numbers: str = "refuse",
    is_key: bool = False,
) -> Decoder:
    """Build what makes cells of attribute values; arguments as for `compile_encoder`."""
    decode = _compile(cql_type, attribute_type, numbers, is_key).decode

    def explained(value: Any) -> bytes:
        try:
            return decode(value)
        except (ValueError, *NOT_OF_THE_TYPE) as failure:
            shown = shorten(dumps(value, default=str, ensure_ascii=False), 200)
            raise ValueError(f"{shown} is no {cql_type}") from failure

    return explained


def compile_canonical(
    cql_type: CqlType,
    attribute_type: str | None = None,
    *,
    numbers: str = "refuse",
    is_key: bool = False,
) -> Canonical | None:
    """Build what gives a cell the one form of its value, for comparing; None if all have it.

    Both sides of a comparison go through it. It undoes what the attribute value cannot tell: the
    scale of a decimal as N, the order of a set, fields that a short tuple leaves out, the bits of
    a NaN. Bytes that are no value of the type stay as they are.
    """
    canonical = _compile(cql_type, attribute_type, numbers, is_key).canonical
    # Cells that would have to be changed are refused in keys.
    if canonical is None or is_key:
        return None

    def unless_unreadable(cell: bytes) -> bytes:
        try:
            return canonical(cell)
        except (ValueError, *NOT_OF_THE_TYPE):
            return cell

    return unless_unreadable


@cache
def _compile(cql_type: CqlType, attribute_type: str | None, numbers: str, is_key: bool) -> _Codec:
    if numbers not in get_args(Numbers):
        raise DeclarationError(f"numbers: {numbers!r} is unknown; write refuse or string")
    kind = attribute_type_of(cql_type, attribute_type, is_key)
    if kind == "S":
        return _text_codec(text_of(cql_type))
    if kind == "B":
        return _BYTES
    if kind == "BOOL":
        return _BOOLEAN
    if kind == "N":
        # A key's attribute has one type.
        return _number_codec(cql_type.name, as_string=numbers == "string" and not is_key)
    return _nested_codec(cql_type, kind, numbers)


def _text_codec(text: Text) -> _Codec:
    write, read, quote = text.write, text.read, encode_basestring

    def encode(cell: bytes) -> str:
        return f'{{"S":{quote(write(cell))}}}'

    def encode_plain(cell: bytes) -> str:
        return f'{{"S":"{write(cell)}"}}' if cell else _EMPTY

    def decode(value: Any) -> bytes:
        text = value["S"]
        return read(text) if text else b""

    return _Codec(encode_plain if text.is_plain else encode, decode, text.canonical)


def _encode_bytes(cell: bytes) -> str:
    return f'{{"B":"{b2a_base64(cell, newline=False).decode()}"}}'


_BYTES = _Codec(_encode_bytes, lambda value: b64decode(value["B"], validate=True))


def _encode_boolean(cell: bytes) -> str:
    return f'{{"BOOL":{boolean_text(cell)}}}' if cell else _EMPTY


def _decode_boolean(value: Any) -> bytes:
    truth = value.get("BOOL")
    if truth is None:
        return _empty(value)
    return b"\1" if truth else b"\0"


_BOOLEAN = _Codec(_encode_boolean, _decode_boolean, one_or_zero)


def _empty(value: Any) -> bytes:
    if value != {"S": ""}:
        raise ValueError
    return b""


def _number_codec(name: str, *, as_string: bool) -> _Codec:
    number, text = NUMBERS[name], TEXTS[name]
    write, read = number.write, number.read

    def encode(cell: bytes) -> str:
        return f'{{"N":"{write(cell)}"}}' if cell else _EMPTY

    def encode_some(cell: bytes) -> str:
        if not cell:
            return _EMPTY
        shown = write(cell)
        if shown is not None:
            return f'{{"N":"{shown}"}}'
        if as_string:
            return f'{{"S":"{text.write(cell)}"}}'
        raise ValueError(
            f"no N holds {cut_sample(text.write(cell))}; as S a column holds every {name}, and "
            "target.numbers: string makes such values S"
        )

    def decode(value: Any) -> bytes:
        shown = value.get("N")
        if shown is not None:
            return read(shown)
        if not as_string or not value["S"]:
            return _empty(value)
        cell = text.read(value["S"])
        if write(cell) is not None:
            raise ValueError
        return cell

    # What is not a number is only there as a string.
    is_always = number.canonical is None or (name in ("float", "double") and not as_string)
    return _Codec(
        encode if number.always else encode_some, decode, None if is_always else number.canonical
    )


def _nested_codec(cql_type: CqlType, kind: AttributeType, numbers: str) -> _Codec:
    def compile_inner(inner: CqlType) -> _Codec:
        return _compile(inner, None, numbers, False)

    name, kinds = cql_type.name, cql_type.parameters
    if name == "map":
        codec = _map_codec(kinds[0], compile_inner(kinds[1]))
    elif name == "udt":
        codec = _fields_codec([(field, compile_inner(inner)) for field, inner in cql_type.fields])
    elif name == "tuple":
        codec = _tuple_codec([compile_inner(inner) for inner in kinds])
    elif name == "vector":
        codec = _vector_codec(cql_type, compile_inner(kinds[0]))
    elif kind == "L":
        codec = _elements_codec(compile_inner(kinds[0]), is_set=name == "set")
    else:
        codec = _set_codec(kinds[0], kind)

    def encode(cell: bytes) -> str:
        return codec.encode(cell) if cell else _EMPTY

    def decode(value: Any) -> bytes:
        return codec.decode(value) if "S" not in value else _empty(value)

    def canonical(cell: bytes) -> bytes:
        return codec.canonical(cell) if cell and codec.canonical else cell

    return _Codec(encode, decode, canonical if codec.canonical else None)


def _nullable(codec: _Codec) -> tuple[Callable[[bytes | None], str], Callable[[Any], bytes | None]]:
    encode, decode = codec.encode, codec.decode

    def encode_any(cell: bytes | None) -> str:
        return _NULL if cell is None else encode(cell)

    def decode_any(value: Any) -> bytes | None:
        return None if value.get("NULL") is True else decode(value)

    return encode_any, decode_any


def _canonical_of(codec: _Codec) -> Callable[[bytes | None], bytes | None]:
    canonical = codec.canonical
    if canonical is None:
        return lambda cell: cell
    return lambda cell: None if cell is None else canonical(cell)


def _elements_codec(inner: _Codec, *, is_set: bool) -> _Codec:
    encode, decode = _nullable(inner)
    to_canonical = _canonical_of(inner)

    def canonical(cell: bytes) -> bytes:
        elements = [to_canonical(element) for element in read_elements(cell)]
        # Null, which no server keeps in a set, must not be what ends a comparison.
        return write_elements(
            sorted(elements, key=lambda e: (e is not None, e or b"")) if is_set else elements
        )

    return _Codec(
        lambda cell: f'{{"L":[{",".join(map(encode, read_elements(cell)))}]}}',
        lambda value: write_elements([decode(element) for element in value["L"]]),
        canonical if is_set or inner.canonical else None,
    )


def _set_codec(element: CqlType, kind: AttributeType) -> _Codec:
    if kind == "BS":

        def write(cell: bytes) -> str:
            return f'"{b2a_base64(cell, newline=False).decode()}"'

        def read(shown: str) -> bytes:
            return b64decode(shown, validate=True)

    elif kind == "NS":
        number = NUMBERS[element.name]

        def write(cell: bytes) -> str:
            if not cell:
                raise ValueError("NS holds no empty value; write L for the column")
            return f'"{number.write(cell)}"'

        def read(shown: str) -> bytes:
            return number.read(shown)

    else:
        text, quote = text_of(element), encode_basestring

        def write(cell: bytes) -> str:
            return quote(text.write(cell)) if cell else '""'

        def read(shown: str) -> bytes:
            return text.read(shown) if shown else b""

    order = sort_key(element)

    def encode(cell: bytes) -> str:
        elements = read_elements(cell)
        if not elements or None in elements:
            raise ValueError(f"{kind} holds no empty set and no null; write L for the column")
        return f'{{"{kind}":[{",".join([write(each) for each in elements if each is not None])}]}}'

    def canonical(cell: bytes) -> bytes:
        return write_elements(sorted(each for each in read_elements(cell) if each is not None))

    return _Codec(
        encode,
        # As Cassandra orders them, so that the cell is the one that was written.
        lambda value: write_elements(sorted(map(read, value[kind]), key=order)),
        canonical,
    )


def _write_map_key(text: str) -> str:
    # An attribute's name has at least one character.
    return "%" + text if not text or text[0] == "%" else text


def _read_map_key(text: str) -> str:
    return text[1:] if text[0] == "%" else text


def _map_codec(key_type: CqlType, inner: _Codec) -> _Codec:
    encode, decode = _nullable(inner)
    to_canonical, text = _canonical_of(inner), text_of(key_type)
    order, key_canonical = sort_key(key_type), text.canonical or (lambda cell: cell)

    def write_key(cell: bytes) -> str:
        return _write_map_key(text.write(cell) if cell else "")

    def read_key(shown: str) -> bytes:
        shown = _read_map_key(shown)
        return text.read(shown) if shown else b""

    def encode_map(cell: bytes) -> str:
        pairs = read_entries(cell)
        entries = {write_key(key): value for key, value in pairs}
        if len(entries) != len(pairs):
            raise ValueError("a key stands twice in its map")
        # Only a long map has a long key, of which the text is the longest as digits.
        if len(cell) > MAX_NAME_BYTES // 3:
            longest = max(len(key.encode()) for key in entries)
            if longest > MAX_NAME_BYTES:
                raise ValueError(
                    f"a key of its map has {longest:,} bytes, and {MAX_NAME_BYTES:,} at most may be"
                )
        quote = encode_basestring
        shown = [f"{quote(key)}:{encode(value)}" for key, value in entries.items()]
        return f'{{"M":{{{",".join(shown)}}}}}'

    def decode_map(value: Any) -> bytes:
        entries = [(read_key(key), decode(each)) for key, each in value["M"].items()]
        return write_entries(sorted(entries, key=lambda entry: order(entry[0])))

    def canonical(cell: bytes) -> bytes:
        entries = [(key_canonical(key), to_canonical(value)) for key, value in read_entries(cell)]
        return write_entries(sorted(entries, key=lambda entry: entry[0]))

    return _Codec(encode_map, decode_map, canonical)


def _fields_codec(fields: list[tuple[str, _Codec]]) -> _Codec:
    names = [name for name, _ in fields]
    steps = [(encode_basestring(name) + ":", codec.encode) for name, codec in fields]
    decoders = [(name, _nullable(codec)[1]) for name, codec in fields]

    def encode(cell: bytes) -> str:
        shown = [
            prefix + write(field)
            for (prefix, write), field in zip(steps, read_fields(cell, len(steps)), strict=True)
            if field is not None
        ]
        return f'{{"M":{{{",".join(shown)}}}}}'

    def decode(value: Any) -> bytes:
        entries = value["M"]
        if not entries.keys() <= set(names):
            raise ValueError
        return write_fields(
            read(entries[name]) if name in entries else None for name, read in decoders
        )

    return _Codec(encode, decode, convert_fields([codec.canonical for _, codec in fields]))


def _tuple_codec(inner: list[_Codec]) -> _Codec:
    encoders = [_nullable(codec)[0] for codec in inner]
    decoders = [_nullable(codec)[1] for codec in inner]

    def encode(cell: bytes) -> str:
        fields = zip(encoders, read_fields(cell, len(encoders)), strict=True)
        return f'{{"L":[{",".join([write(field) for write, field in fields])}]}}'

    def decode(value: Any) -> bytes:
        fields = zip(decoders, value["L"], strict=True)
        return write_fields([read(field) for read, field in fields])

    return _Codec(encode, decode, convert_fields([codec.canonical for codec in inner]))


def _vector_codec(cql_type: CqlType, inner: _Codec) -> _Codec:
    encode, decode, to_canonical = inner.encode, inner.decode, inner.canonical

    def decode_vector(value: Any) -> bytes:
        if len(value["L"]) != cql_type.dimensions:
            raise ValueError
        return write_vector([decode(element) for element in value["L"]], cql_type)

    def canonical(cell: bytes) -> bytes:
        elements = read_vector(cell, cql_type)
        return write_vector(
            [to_canonical(each) for each in elements] if to_canonical else elements, cql_type
        )

    return _Codec(
        lambda cell: f'{{"L":[{",".join(map(encode, read_vector(cell, cql_type)))}]}}',
        decode_vector,
        canonical,
    )
