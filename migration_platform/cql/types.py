"""A column's type, and what can be done with a cell's bytes when its type is known.

Most cells pass from origin to target as the bytes that they are. Only where the target's type has
another form are they rebuilt; only constants, defaults and JSON are made from a person's values.

A guess that would be wrong: nothing inside of a type is ever unfrozen, whatever its text says.
"""

# The driver carries no types: what is inferred from its attributes' first values is wrong.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import cache, partial
from ipaddress import ip_address
from math import copysign, isinf, isnan, nan
from struct import Struct, error
from typing import Any
from uuid import UUID

from cassandra import cqltypes, util
from cassandra.marshal import uvint_pack, uvint_unpack

from migration_platform.cql.names import quote
from migration_platform.cql.rows import INT32

Converter = Callable[[bytes], bytes]
"""Rebuilds a cell; null never comes to it."""

PROTOCOL_VERSION = 5
"""Which only the driver asks for: since 3 all versions serialize alike."""

_NULL = INT32.pack(-1)
_COLLECTIONS = {"list": 1, "set": 1, "map": 2}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class TypesDiffer(ValueError):  # noqa: N818, it reads as what is wrong
    """Values of the origin's type do not fit into the target's."""


# -- types -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CqlType:
    """A CQL type, in lower case: 'int', 'list', 'udt'; 'varchar' is 'text'.

    Attributes:
        name: 'udt' for any user-defined type, 'custom' for a class that CQL has no name for.
        parameters: What a list, set, map, tuple or vector holds.
        fields: Name and type of each field of a user-defined type, in its order.
        is_frozen: Whether it is one cell; meaningless for types that hold nothing.
        dimensions: How many elements a vector has.
        class_name: The class of a custom type.
    """

    name: str
    parameters: tuple["CqlType", ...] = ()
    fields: tuple[tuple[str, "CqlType"], ...] = ()
    is_frozen: bool = False
    dimensions: int | None = None
    class_name: str = ""

    @property
    def is_multicell(self) -> bool:
        """Whether the server keeps each element apart, so that an empty value is null."""
        return not self.is_frozen and (self.name in _COLLECTIONS or self.name == "udt")

    def __str__(self) -> str:
        if self.name == "custom":
            return "'" + self.class_name.replace("'", "''") + "'"
        if self.name == "udt":
            text = "{" + ", ".join(f"{quote(name)} {kind}" for name, kind in self.fields) + "}"
        elif self.parameters:
            inner = [*self.parameters, *([self.dimensions] if self.dimensions else [])]
            text = f"{self.name}<{', '.join(map(str, inner))}>"
        else:
            text = self.name
        # As servers write them: a tuple says that it is frozen, a vector does not.
        return f"frozen<{text}>" if self.is_frozen and self.name != "vector" else text


_TOKEN = re.compile(r"""\s*("(?:[^"]|"")+"|'(?:[^']|'')*'|[A-Za-z0-9_]+|[<>{},])\s*""")


@cache
def parse_type(text: str) -> CqlType:
    """Read a type in which user-defined types are written out as `{name type, name type}`.

    Raises:
        ValueError: the text is no such type.
    """
    tokens = deque(_TOKEN.findall(text))
    try:
        if _TOKEN.sub("", text):
            raise ValueError("stray characters")
        cql_type = _take_type(tokens, is_inner=False)
        if tokens:
            raise ValueError(f"{tokens[0]} after its end")
    except (IndexError, ValueError) as failure:
        reason = "it ends too early" if isinstance(failure, IndexError) else str(failure)
        raise ValueError(f"{text!r} is no CQL type: {reason}") from failure
    return cql_type


def _take_type(tokens: deque[str], *, is_inner: bool) -> CqlType:
    word = tokens.popleft()
    if word == "{":
        fields = []
        while True:
            name = tokens.popleft()
            name = name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
            fields.append((name, _take_type(tokens, is_inner=True)))
            if _take(tokens, ",", "}") == "}":
                return CqlType("udt", fields=tuple(fields), is_frozen=is_inner)
    if word.startswith("'"):
        return CqlType("custom", class_name=word[1:-1].replace("''", "'"))
    if word in "<>,}":
        raise ValueError(f"{word} stands where a type must")
    name = word.lower()
    if not tokens or tokens[0] != "<":
        return CqlType("text" if name == "varchar" else name)
    tokens.popleft()
    parameters = []
    while True:
        if name == "vector" and parameters:
            dimensions = int(tokens.popleft())
            _take(tokens, ">")
            return CqlType("vector", tuple(parameters), is_frozen=True, dimensions=dimensions)
        parameters.append(_take_type(tokens, is_inner=True))
        if _take(tokens, ",", ">") == ">":
            break
    if name == "frozen" and len(parameters) == 1:
        return parameters[0]
    if name != "tuple" and len(parameters) != _COLLECTIONS.get(name):
        raise ValueError(f"{name} does not hold {len(parameters)} types")
    return CqlType(name, tuple(parameters), is_frozen=is_inner or name == "tuple")


def _take(tokens: deque[str], *wanted: str) -> str:
    word = tokens.popleft()
    if word not in wanted:
        raise ValueError(f"{word} stands where {' or '.join(wanted)} must")
    return word


# -- elements ----------------------------------------------------------------------------------


def read_elements(value: bytes) -> list[bytes | None]:
    """Cut a list or set into its elements.

    Raises:
        ValueError: the bytes are no list or set.
    """
    unpack = INT32.unpack_from
    elements: list[bytes | None] = []
    add = elements.append
    try:
        (count,) = unpack(value, 0)
        at = 4
        for _ in range(count):
            (size,) = unpack(value, at)
            at += 4
            if size < 0:
                add(None)
            else:
                add(value[at : at + size])
                at += size
        if at == len(value):
            return elements
    except error:
        pass
    raise ValueError(f"{len(value)} bytes are no list or set")


def write_elements(elements: Sequence[bytes | None]) -> bytes:
    """Put a list or set together."""
    return INT32.pack(len(elements)) + write_fields(elements)


def read_entries(value: bytes) -> list[tuple[bytes, bytes | None]]:
    """Cut a map into its keys and values.

    Raises:
        ValueError: the bytes are no map.
    """
    unpack = INT32.unpack_from
    entries: list[tuple[bytes, bytes | None]] = []
    add = entries.append
    try:
        (count,) = unpack(value, 0)
        at = 4
        for _ in range(count):
            (size,) = unpack(value, at)
            start = at + 4
            at = start + size
            (value_size,) = unpack(value, at)
            if size < 0:
                break
            key = value[start:at]
            at += 4
            if value_size < 0:
                add((key, None))
            else:
                add((key, value[at : at + value_size]))
                at += value_size
        if at == len(value):
            return entries
    except error:
        pass
    raise ValueError(f"{len(value)} bytes are no map")


def write_entries(entries: list[tuple[bytes, bytes | None]]) -> bytes:
    """Put a map together."""
    cells = [cell for entry in entries for cell in entry]
    return INT32.pack(len(entries)) + write_fields(cells)


def read_fields(value: bytes, count: int) -> list[bytes | None]:
    """Cut a user-defined type or tuple into its fields; those that the bytes lack are null.

    Raises:
        ValueError: the bytes are no such type, or have more fields.
    """
    unpack = INT32.unpack_from
    fields: list[bytes | None] = []
    add = fields.append
    at, end = 0, len(value)
    try:
        for position in range(count):
            if at == end:
                return fields + [None] * (count - position)
            (size,) = unpack(value, at)
            at += 4
            if size < 0:
                add(None)
            else:
                add(value[at : at + size])
                at += size
        if at == end:
            return fields
    except error:
        pass
    raise ValueError(f"{end} bytes are no {count} fields")


def write_fields(fields: Iterable[bytes | None]) -> bytes:
    """Put a user-defined type or tuple together, nulls written out."""
    pack = INT32.pack
    parts: list[bytes] = []
    add = parts.append
    for field in fields:
        if field is None:
            add(_NULL)
        else:
            add(pack(len(field)))
            add(field)
    return b"".join(parts)


def read_vector(value: bytes, cql_type: CqlType) -> list[bytes]:
    """Cut a vector into its elements.

    Raises:
        ValueError: the bytes are no such vector.
    """
    size = _fixed_size(cql_type.parameters[0])
    count = cql_type.dimensions or 0
    if size is not None:
        if len(value) != size * count:
            raise ValueError(f"{len(value)} bytes are no {cql_type}")
        return [value[at : at + size] for at in range(0, len(value), size)]
    elements = []
    at = 0
    for _ in range(count):
        if at >= len(value):
            break
        size, prefix = uvint_unpack(value[at : at + 9])
        at += prefix
        elements.append(value[at : at + size])
        at += size
    if at != len(value) or len(elements) != count:
        raise ValueError(f"{len(value)} bytes are no {cql_type}")
    return elements


def write_vector(elements: Sequence[bytes], cql_type: CqlType) -> bytes:
    """Put a vector together."""
    if _fixed_size(cql_type.parameters[0]) is not None:
        return b"".join(elements)
    return b"".join(uvint_pack(len(element)) + element for element in elements)


def _fixed_size(cql_type: CqlType) -> int | None:
    """Give the size that the server counts on in vectors; not every type of one size has it."""
    if cql_type.name == "vector":
        size = _fixed_size(cql_type.parameters[0])
        return size * (cql_type.dimensions or 0) if size is not None else None
    scalar = _SCALARS.get(cql_type.name)
    return scalar.driver_type.serial_size() if scalar else None


# -- order -------------------------------------------------------------------------------------

_FLOAT, _DOUBLE = Struct(">f"), Struct(">d")
_SIGNED = bytes(byte ^ 0x80 for byte in range(256))
"""Translates bytes so that they compare as signed ones do."""
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def _order_whole(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def _order_real(form: Struct) -> Callable[[bytes], tuple]:
    def order(value: bytes) -> tuple:
        (number,) = form.unpack(value)
        return (1,) if isnan(number) else (0, number, copysign(1, number))

    return order


def _order_decimal(value: bytes) -> Decimal:
    # The driver's own way goes through text, which Python refuses beyond 4300 digits.
    scale, unscaled = _order_whole(value[:4]), Decimal(_order_whole(value[4:]))
    return _EXACT.scaleb(unscaled, -scale)


def _order_uuid(value: bytes) -> tuple[int, bytes]:
    version = value[6] >> 4
    return version, (_time_of(value) + value[8:] if version == 1 else value)


def _order_timeuuid(value: bytes) -> bytes:
    return _time_of(value) + value[8:].translate(_SIGNED)


def _time_of(value: bytes) -> bytes:
    return value[6:8] + value[4:6] + value[:4]


_ORDERS: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(
        ("tinyint", "smallint", "int", "bigint", "counter", "timestamp", "varint"), _order_whole
    ),
    "float": _order_real(_FLOAT),
    "double": _order_real(_DOUBLE),
    "decimal": _order_decimal,
    "boolean": lambda value: value[0] != 0,
    "uuid": _order_uuid,
    "timeuuid": _order_timeuuid,
}
"""Types that are not here compare as unsigned bytes: text, blob, inet, date, time and so on."""


@cache
def sort_key(cql_type: CqlType) -> Callable[[bytes], Any]:
    """Build the key by which Cassandra orders values of a type, in a set for example.

    Values with one key are one value to the server: 1.0 and 1.00 as decimals, or any two NaN. Of
    a custom type only its class knows the order; here its bytes count, as those of a duration.
    """
    kinds = cql_type.parameters or tuple(kind for _, kind in cql_type.fields)
    order = _order_nested(cql_type, [sort_key(kind) for kind in kinds])
    order = order or _ORDERS.get(cql_type.name)
    if order is None:
        return _keep
    # Most types may be empty, which comes before all else.
    return lambda value: (order(value),) if value else ()


def _order_nested(
    cql_type: CqlType, keys: list[Callable[[bytes], Any]]
) -> Callable[[bytes], tuple] | None:
    match cql_type.name:
        case "list" | "set":
            return lambda value: tuple(_null_first(e, keys[0]) for e in read_elements(value))
        case "map":
            return lambda value: tuple(
                (keys[0](k), _null_first(v, keys[1])) for k, v in read_entries(value)
            )
        case "tuple" | "udt":
            return lambda value: tuple(map(_null_first, read_fields(value, len(keys)), keys))
        case "vector":
            return lambda value: tuple(keys[0](e) for e in read_vector(value, cql_type))
    return None


def _null_first(value: bytes | None, key: Callable[[bytes], Any]) -> tuple:
    return () if value is None else (key(value),)


# -- conversion --------------------------------------------------------------------------------

_SAME_BYTES = frozenset({("ascii", "text"), ("timeuuid", "uuid")})
"""Changes under which every value keeps its bytes and stays valid."""


def build_converter(origin: CqlType, target: CqlType) -> Converter | None:
    """Build what turns the origin's values into the target's; None if they are so already.

    User-defined types fit by the names of their fields: a field that only the target has becomes
    null. Sets and maps come in the target's order, but for one whose elements are cells of their
    own: its elements keep their places, because each has its own writetime.

    Raises:
        TypesDiffer: some value would not fit; the reason is one sentence.
    """
    if target.is_multicell and not origin.is_multicell and origin.name == target.name:
        lost = "a value of nulls only" if target.name == "udt" else f"an empty {target.name}"
        raise TypesDiffer(f"{lost} would become null in a type that is not frozen")
    return _convert(origin, target)


def _convert(origin: CqlType, target: CqlType) -> Converter | None:
    if freeze(origin) == freeze(target) or (origin.name, target.name) in _SAME_BYTES:
        return None
    if (
        origin.name != target.name
        or len(origin.parameters) != len(target.parameters)
        or origin.dimensions != target.dimensions
        or not (origin.parameters or origin.fields)
    ):
        raise TypesDiffer(f"{origin} does not fit into {target}")
    if origin.name == "udt":
        return _convert_fields(origin, target)
    inner = [_convert(a, b) for a, b in zip(origin.parameters, target.parameters, strict=True)]
    reorders = (
        origin.name in ("set", "map")
        and not target.is_multicell
        and not _orders_alike(origin.parameters[0], target.parameters[0])
    )
    if not any(inner) and not reorders:
        return None
    key = sort_key(target.parameters[0]) if reorders else None
    if origin.name == "map":
        return _convert_entries(inner[0] or _keep, inner[1] or _keep, key)
    if origin.name == "tuple":
        return _convert_positions(tuple(enumerate(inner)), len(inner))
    convert = inner[0] or _keep
    if origin.name == "vector":
        return _convert_vector(convert, origin)
    return _convert_elements(convert, key)


def _orders_alike(origin: CqlType, target: CqlType) -> bool:
    """Say whether values that fit are in order at the target too."""
    if origin.name != target.name:
        return (origin.name, target.name) == ("ascii", "text")
    # Null behind all other fields does not count.
    if any(a[0] != b[0] for a, b in zip(origin.fields, target.fields, strict=False)):
        return False
    inner = [*zip(origin.parameters, target.parameters, strict=True)]
    inner += [(a[1], b[1]) for a, b in zip(origin.fields, target.fields, strict=False)]
    return all(_orders_alike(a, b) for a, b in inner)


def _convert_fields(origin: CqlType, target: CqlType) -> Converter | None:
    lost = [name for name, _ in origin.fields if name not in dict(target.fields)]
    if lost:
        names = ", ".join(map(quote, lost))
        raise TypesDiffer(f"the target's type has no field {names}")
    kinds = dict(origin.fields)
    places = {name: place for place, (name, _) in enumerate(origin.fields)}
    steps: list[tuple[int | None, Converter | None]] = []
    for name, kind in target.fields:
        if name not in places:
            steps.append((None, None))
            continue
        try:
            steps.append((places[name], _convert(kinds[name], kind)))
        except TypesDiffer as failure:
            raise TypesDiffer(f"field {quote(name)}: {failure}") from None
    # Fields that are added at the end would be valid without null, but a server that keeps each
    # field apart gives them back with it, and the two sides would not compare as equal.
    if steps == [(place, None) for place in range(len(origin.fields))]:
        return None
    return _convert_positions(tuple(steps), len(origin.fields))


def _convert_positions(
    steps: tuple[tuple[int | None, Converter | None], ...], count: int
) -> Converter:
    def convert(value: bytes) -> bytes:
        if not value:
            return value
        fields = read_fields(value, count)
        changed: list[bytes | None] = []
        add = changed.append
        for place, convert_field in steps:
            field = None if place is None else fields[place]
            add(field if field is None or convert_field is None else convert_field(field))
        return write_fields(changed)

    return convert


def _convert_elements(
    convert_element: Converter, key: Callable[[bytes], Any] | None = None
) -> Converter:
    def convert(value: bytes) -> bytes:
        elements = [None if e is None else convert_element(e) for e in read_elements(value)]
        # What a nested set holds twice stays: decimals of one value and two scales, for a server.
        if key:
            elements.sort(key=partial(_null_first, key=key))
        return write_elements(elements)

    return convert


def _convert_entries(
    convert_key: Converter, convert_value: Converter, key: Callable[[bytes], Any] | None = None
) -> Converter:
    def convert(value: bytes) -> bytes:
        entries = [
            (convert_key(k), None if v is None else convert_value(v))
            for k, v in read_entries(value)
        ]
        if key:
            order = key
            entries.sort(key=lambda entry: order(entry[0]))
        return write_entries(entries)

    return convert


def _convert_vector(convert_element: Converter, cql_type: CqlType) -> Converter:
    def convert(value: bytes) -> bytes:
        elements = [convert_element(element) for element in read_vector(value, cql_type)]
        return write_vector(elements, cql_type)

    return convert


def _keep(value: bytes) -> bytes:
    return value


def freeze(cql_type: CqlType) -> CqlType:
    """Give the type as one cell, whatever it holds."""
    return replace(cql_type, is_frozen=True)


def needs_sorting(origin: CqlType, target: CqlType) -> bool:
    """Say whether the target may keep a converted set or map in another order.

    It may, at any depth, where the elements' or keys' types differ.
    """
    inner = list(zip(origin.parameters, target.parameters, strict=False))
    if target.name in ("set", "map") and inner and inner[0][0] != inner[0][1]:
        return True
    kinds = dict(origin.fields)
    inner += [(kinds[name], kind) for name, kind in target.fields if name in kinds]
    return any(needs_sorting(a, b) for a, b in inner)


def holds_sets(cql_type: CqlType) -> bool:
    """Say whether there is a set or a map in a type, at any depth."""
    inner = (*cql_type.parameters, *(field_type for _, field_type in cql_type.fields))
    return cql_type.name in ("set", "map") or any(map(holds_sets, inner))


def sort_elements(value: bytes, cql_type: CqlType) -> bytes:
    """Bring every set and map, at any depth, into the order of its bytes, for comparing only.

    The same elements give the same bytes, whatever order a server keeps them in.

    Raises:
        ValueError: the bytes are no value of the type.
    """
    sort = _build_sorter(cql_type)
    return value if sort is None else sort(value)


@cache
def _build_sorter(cql_type: CqlType) -> Converter | None:
    name = cql_type.name
    kinds = cql_type.parameters or tuple(kind for _, kind in cql_type.fields)
    inner = [_build_sorter(kind) for kind in kinds]
    if name == "set":
        sort_element = inner[0] or _keep
        return lambda value: write_elements(
            sorted(sort_element(e) for e in read_elements(value) if e is not None)
        )
    if name == "map":
        sort_key, sort_value = inner[0] or _keep, inner[1] or _keep
        return lambda value: write_entries(
            sorted(
                (
                    (sort_key(k), None if v is None else sort_value(v))
                    for k, v in read_entries(value)
                ),
                key=lambda entry: entry[0],
            )
        )
    if not any(inner):
        return None
    if name in ("tuple", "udt"):
        return _convert_positions(tuple(enumerate(inner)), len(inner))
    sort = inner[0]
    assert sort is not None
    return _convert_vector(sort, cql_type) if name == "vector" else _convert_elements(sort)


# -- values from people ------------------------------------------------------------------------


def encode_value(value: Any, cql_type: CqlType) -> bytes:
    """Serialize a value as YAML or JSON know it; text is read as the type demands.

    A timestamp without a zone is UTC, and what is finer than a millisecond is cut off. Sets and
    maps, at any depth, get the server's order and lose what they hold twice, as they do there.

    Raises:
        ValueError: the value is none of the type; one sentence that says what would be.
    """
    if value is None:
        raise ValueError(f"null is no {cql_type}; leave it out")
    nested = _NESTED.get(cql_type.name)
    if nested:
        return nested(value, cql_type)
    scalar = _SCALARS.get(cql_type.name, _OPAQUE)
    try:
        return scalar.driver_type.serialize(scalar.parse(value), PROTOCOL_VERSION)
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, error) as failure:
        raise _refusal(value, cql_type, scalar.valid) from failure


def _refusal(value: Any, cql_type: CqlType, valid: str) -> ValueError:
    shown = repr(value) if isinstance(value, str) else str(value)
    return ValueError(f"{shorten(shown)} is no {cql_type}; write {valid}")


def shorten(text: str, length: int = 60) -> str:
    """Cut a text that is too long for a message."""
    return text if len(text) <= length else text[: length - 3] + "..."


def _encode_elements(value: Any, cql_type: CqlType) -> bytes:
    if not isinstance(value, list | tuple | set | frozenset):
        raise _refusal(value, cql_type, "a list of values")
    (kind,) = cql_type.parameters
    elements = [encode_value(item, kind) for item in value]
    if cql_type.name != "set":
        return write_elements([*elements])
    # Of elements that are one value to the server, it keeps the first.
    key = sort_key(kind)
    kept: dict[Any, bytes] = {}
    for element in elements:
        kept.setdefault(key(element), element)
    return write_elements([kept[place] for place in sorted(kept)])


def _encode_entries(value: Any, cql_type: CqlType) -> bytes:
    entries = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(
        isinstance(entry, list | tuple) and len(entry) == 2 for entry in entries
    ):
        raise _refusal(value, cql_type, "a mapping, or a list of pairs of key and value")
    key_type, value_type = cql_type.parameters
    # Of keys that are one value to the server, it keeps the first, with the value of the last.
    key = sort_key(key_type)
    kept: dict[Any, tuple[bytes, bytes | None]] = {}
    for k, v in entries:
        encoded = encode_value(k, key_type)
        place = key(encoded)
        first = kept[place][0] if place in kept else encoded
        kept[place] = (first, encode_value(v, value_type))
    return write_entries([kept[place] for place in sorted(kept)])


def _encode_fields(value: Any, cql_type: CqlType) -> bytes:
    names = [name for name, _ in cql_type.fields]
    valid = f"a mapping with any of the names {', '.join(names)}"
    if not isinstance(value, dict) or not set(value) <= set(names):
        raise _refusal(value, cql_type, valid)
    fields = []
    for name, kind in cql_type.fields:
        item = value.get(name)
        try:
            fields.append(None if item is None else encode_value(item, kind))
        except ValueError as failure:
            raise ValueError(f"field {quote(name)}: {failure}") from failure
    return write_fields(fields)


def _encode_tuple(value: Any, cql_type: CqlType) -> bytes:
    kinds = cql_type.parameters
    if not isinstance(value, list | tuple) or len(value) != len(kinds):
        raise _refusal(value, cql_type, f"a list of {len(kinds)} values")
    pairs = zip(value, kinds, strict=True)
    return write_fields(
        [None if item is None else encode_value(item, kind) for item, kind in pairs]
    )


def _encode_vector(value: Any, cql_type: CqlType) -> bytes:
    if not isinstance(value, list | tuple) or len(value) != cql_type.dimensions:
        raise _refusal(value, cql_type, f"a list of {cql_type.dimensions} values")
    return write_vector([encode_value(item, cql_type.parameters[0]) for item in value], cql_type)


_NESTED: dict[str, Callable[[Any, CqlType], bytes]] = {
    "list": _encode_elements,
    "set": _encode_elements,
    "map": _encode_entries,
    "udt": _encode_fields,
    "tuple": _encode_tuple,
    "vector": _encode_vector,
}

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?")
_DURATION = re.compile(
    r"(-?)(?:([0-9]+)y)?(?:([0-9]+)mo)?(?:([0-9]+)w)?(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?"
    r"(?:([0-9]+)s)?(?:([0-9]+)ms)?(?:([0-9]+)(?:us|µs))?(?:([0-9]+)ns)?",
    re.IGNORECASE,
)
_ISO_DURATION = re.compile(
    r"(-?)P(?:([0-9]+)Y)?(?:([0-9]+)M)?(?:([0-9]+)W)?(?:([0-9]+)D)?"
    r"(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)S)?)?"
)
_DURATION_UNITS = (
    ("months", 12),
    ("months", 1),
    ("days", 7),
    ("days", 1),
    ("nanoseconds", 3_600_000_000_000),
    ("nanoseconds", 60_000_000_000),
    ("nanoseconds", 1_000_000_000),
    ("nanoseconds", 1_000_000),
    ("nanoseconds", 1_000),
    ("nanoseconds", 1),
)


def _to_whole(value: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def _to_real(value: Any) -> float:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value) and not _NO_NUMBER.fullmatch(value):
            raise ValueError
    elif not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        raise ValueError
    number = float(value)
    if isinf(number) and "inf" not in str(value).casefold():
        raise ValueError
    # Of -nan a server that keeps it in a set forgets the sign.
    return nan if isnan(number) else number


def _to_decimal(value: Any) -> Decimal:
    if isinstance(value, float):
        # 12.5 means what was written, not the binary number next to it.
        value = repr(value)
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError
    if not isinstance(value, str | int | Decimal) or isinstance(value, bool):
        raise ValueError
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError
    return number


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[value.casefold()]


def _to_uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    if not _UUID.fullmatch(value):
        raise ValueError
    return UUID(value)


def _to_timeuuid(value: Any) -> UUID:
    found = _to_uuid(value)
    if found.version != 1:
        raise ValueError
    return found


def _to_millis(value: Any) -> int:
    """Give milliseconds since 1970; the server too reads a number in quotes as these."""
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, clock_time())
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // _MILLISECOND
    return _to_whole(value)


def _to_date(value: Any) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError


def _to_clock(value: Any) -> util.Time:
    if isinstance(value, clock_time) and not value.tzinfo:
        return util.Time(value)
    found = _CLOCK.fullmatch(value)
    if not found:
        raise ValueError
    hours, minutes, seconds, fraction = found.groups(default="0")
    whole = clock_time(int(hours), int(minutes), int(seconds))
    return util.Time(util.Time(whole).nanosecond_time + int(fraction.ljust(9, "0")))


def _to_duration(value: Any) -> util.Duration:
    found = _DURATION.fullmatch(value) or _ISO_DURATION.fullmatch(value)
    if not found or not any(found.groups()[1:]):
        raise ValueError
    sign = -1 if found[1] else 1
    sums = {"months": 0, "days": 0, "nanoseconds": 0}
    for (unit, factor), count in zip(_DURATION_UNITS, found.groups()[1:], strict=False):
        sums[unit] += sign * factor * int(count or 0)
    for unit, bits in (("months", 31), ("days", 31), ("nanoseconds", 63)):
        if not -(2**bits) <= sums[unit] < 2**bits:
            raise ValueError
    return util.Duration(**sums)


def _to_address(value: Any) -> str:
    if "%" in value:
        raise ValueError
    return str(ip_address(value))


def _to_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    found = re.fullmatch(r"0[xX]((?:[0-9a-fA-F]{2})*)", value)
    if not found:
        raise ValueError
    return bytes.fromhex(found[1])


@dataclass(frozen=True)
class _Scalar:
    driver_type: Any
    parse: Callable[[Any], Any]
    valid: str
    show: Callable[[Any], str] = str


def _whole(driver_type: Any, bits: int) -> _Scalar:
    valid = f"a whole number from {-(2 ** (bits - 1))} to {2 ** (bits - 1) - 1}"
    return _Scalar(driver_type, _to_whole, valid)


def show_double(number: float) -> str:
    """Give the shortest text that is read as the same number, which Java's servers read too."""
    text = repr(number)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)


def _show_float(number: float) -> str:
    pack = cqltypes.FloatType.serialize
    stored = pack(number, PROTOCOL_VERSION)
    for digits in range(1, 10):
        rounded = float(f"{number:.{digits}g}")
        # Rounded up, the largest number is more than four bytes hold.
        with suppress(OverflowError):
            if pack(rounded, PROTOCOL_VERSION) == stored:
                return show_double(rounded)
    return show_double(number)


def _show_millis(millis: int) -> str:
    try:
        moment = _EPOCH + millis * _MILLISECOND
    except OverflowError:
        return str(millis)
    precision = "milliseconds" if millis % 1000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _show_bytes(value: bytes) -> str:
    return "0x" + value.hex()


_SCALARS = {
    "ascii": _Scalar(cqltypes.AsciiType, _to_text, "text of ASCII characters, in quotes"),
    "text": _Scalar(cqltypes.UTF8Type, _to_text, "text, in quotes"),
    "tinyint": _whole(cqltypes.ByteType, 8),
    "smallint": _whole(cqltypes.ShortType, 16),
    "int": _whole(cqltypes.Int32Type, 32),
    "bigint": _whole(cqltypes.LongType, 64),
    "counter": _whole(cqltypes.CounterColumnType, 64),
    "varint": _Scalar(cqltypes.IntegerType, _to_whole, "a whole number"),
    "float": _Scalar(
        cqltypes.FloatType, _to_real, "a number up to 3.4e38, NaN or Infinity", _show_float
    ),
    "double": _Scalar(
        cqltypes.DoubleType, _to_real, "a number up to 1.7e308, NaN or Infinity", show_double
    ),
    "decimal": _Scalar(cqltypes.DecimalType, _to_decimal, "a number such as 12.50"),
    "boolean": _Scalar(
        cqltypes.BooleanType, _to_boolean, "true or false", lambda truth: str(truth).lower()
    ),
    "uuid": _Scalar(
        cqltypes.UUIDType, _to_uuid, "32 hex digits as in 123e4567-e89b-42d3-a456-426614174000"
    ),
    "timeuuid": _Scalar(
        cqltypes.TimeUUIDType,
        _to_timeuuid,
        "a UUID of version 1 such as 50554d6e-29bb-11e5-b345-feff819cdc9f",
    ),
    # The driver's own type carries milliseconds as a float, which cannot hold all of them.
    "timestamp": _Scalar(
        cqltypes.LongType,
        _to_millis,
        "2024-01-31T10:20:30Z, or milliseconds since 1970",
        _show_millis,
    ),
    "date": _Scalar(cqltypes.SimpleDateType, _to_date, "a date such as 2024-01-31"),
    "time": _Scalar(cqltypes.TimeType, _to_clock, "a time of day such as '10:20:30.5', in quotes"),
    "duration": _Scalar(
        cqltypes.DurationType, _to_duration, "a duration such as 1y2mo3d4h5m6s or P1Y2M3DT4H5M6S"
    ),
    "inet": _Scalar(
        cqltypes.InetAddressType, _to_address, "an address such as 192.0.2.1 or 2001:db8::1"
    ),
    "blob": _Scalar(cqltypes.BytesType, _to_bytes, "hex digits in pairs after 0x", _show_bytes),
}
_OPAQUE = replace(_SCALARS["blob"], valid="its serialized bytes as hex digits in pairs after 0x")


# -- values for people -------------------------------------------------------------------------


def show_value(value: bytes, cql_type: CqlType) -> str:
    """Give a value as text: as it is, as a number, as ISO 8601 in UTC, or as a CQL literal.

    Bytes that are no value of the type are shown in hex.
    """
    try:
        return _show(value, cql_type)
    except (ValueError, ArithmeticError, OSError, IndexError, TypeError, error):
        return _show_bytes(value)


def _show(value: bytes, cql_type: CqlType) -> str:
    name, inner = cql_type.name, cql_type.parameters
    if name in ("list", "set"):
        shown = ", ".join(_show_inner(element, inner[0]) for element in read_elements(value))
        return f"[{shown}]" if name == "list" else f"{{{shown}}}"
    if name == "map":
        entries = read_entries(value)
        shown = (f"{_show_inner(k, inner[0])}: {_show_inner(v, inner[1])}" for k, v in entries)
        return f"{{{', '.join(shown)}}}"
    if name == "udt":
        pairs = zip(cql_type.fields, read_fields(value, len(cql_type.fields)), strict=True)
        shown = (f"{quote(name)}: {_show_inner(field, kind)}" for (name, kind), field in pairs)
        return f"{{{', '.join(shown)}}}"
    if name == "tuple":
        pairs = zip(read_fields(value, len(inner)), inner, strict=True)
        return f"({', '.join(_show_inner(field, kind) for field, kind in pairs)})"
    if name == "vector":
        elements = read_vector(value, cql_type)
        return f"[{', '.join(_show_inner(element, inner[0]) for element in elements)}]"
    scalar = _SCALARS.get(name, _OPAQUE)
    if not value and name not in ("blob", "custom"):
        return ""
    return scalar.show(scalar.driver_type.deserialize(value, PROTOCOL_VERSION))


def _show_inner(value: bytes | None, cql_type: CqlType) -> str:
    if value is None:
        return "null"
    shown = show_value(value, cql_type)
    return "'" + shown.replace("'", "''") + "'" if cql_type.name in ("text", "ascii") else shown
