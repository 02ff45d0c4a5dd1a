"""Cuts a collection, tuple, user-defined type or vector into its cells, and puts it together."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from struct import Struct, error
from typing import Any

from cassandra.marshal import uvint_pack, uvint_unpack

from migration_platform.cql.rows import INT32
from migration_platform.cql.types import CqlType

_NULL = INT32.pack(-1)
_FIXED_SIZES = {
    "boolean": 1,
    **dict.fromkeys(("int", "float"), 4),
    **dict.fromkeys(("bigint", "counter", "double", "timestamp"), 8),
    **dict.fromkeys(("uuid", "timeuuid"), 16),
}
"""In bytes. A vector's elements of any other type are written with their size."""
_MOST_ALIKE = 32
"""So many elements of one size are cut out at once, which takes half the time."""


@lru_cache(128)
def _cut_alike(count: int, *sizes: int) -> Callable[[bytes], tuple[Any, ...]]:
    """Build what cuts out so many elements, or entries, each of these sizes, with what is said."""
    one = "".join([f"i{size}s" for size in sizes])
    return Struct(f">4x{one * count}").unpack


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
        if 1 < count <= _MOST_ALIKE:
            (size,) = unpack(value, 4)
            if size >= 0 and 4 + count * (4 + size) == len(value):
                found = _cut_alike(count, size)(value)
                if found[::2].count(size) == count:
                    return [*found[1::2]]
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
    count, size = INT32.pack(len(elements)), _size_of_all(elements)
    if size is not None:
        return count + size + size.join(elements)  # type: ignore[arg-type] # none is null
    return count + write_fields(elements)


def _size_of_all(cells: Sequence[bytes | None]) -> bytes | None:
    """Give the size of cells as it is written, if they have one and none is null."""
    try:
        sizes = {*map(len, cells)}  # type: ignore[arg-type] # it is why there is an error
    except TypeError:
        return None
    return INT32.pack(sizes.pop()) if len(sizes) == 1 else None


def read_entries(value: bytes) -> list[tuple[bytes, bytes | None]]:
    """Cut a map into its keys and values.

    Raises:
        ValueError: the bytes are no map.
    """
    return list(zip(*read_pairs(value), strict=True))


def read_pairs(value: bytes) -> tuple[Sequence[bytes], Sequence[bytes | None]]:
    """Cut a map into its keys, and its values apart.

    Raises:
        ValueError: the bytes are no map.
    """
    unpack = INT32.unpack_from
    try:
        (count,) = unpack(value, 0)
        if 1 < count <= _MOST_ALIKE:
            (size,) = unpack(value, 4)
            (other,) = unpack(value, 8 + size) if size >= 0 else (-1,)
            if other >= 0 and 4 + count * (8 + size + other) == len(value):
                found = _cut_alike(count, size, other)(value)
                if found[::4].count(size) == count == found[2::4].count(other):
                    return found[1::4], found[3::4]
        keys: list[bytes] = []
        values: list[bytes | None] = []
        add_key, add_value = keys.append, values.append
        at = 4
        for _ in range(count):
            (size,) = unpack(value, at)
            start = at + 4
            at = start + size
            (value_size,) = unpack(value, at)
            if size < 0:
                break
            add_key(value[start:at])
            at += 4
            if value_size < 0:
                add_value(None)
            else:
                add_value(value[at : at + value_size])
                at += value_size
        if at == len(value):
            return keys, values
    except error:
        pass
    raise ValueError(f"{len(value)} bytes are no map")


def write_entries(entries: Sequence[tuple[bytes, bytes | None]]) -> bytes:
    """Put a map together."""
    return write_pairs([key for key, _ in entries], [value for _, value in entries])


def write_pairs(keys: Sequence[bytes], values: Sequence[bytes | None]) -> bytes:
    """Put a map together from its keys, and as many values."""
    count = INT32.pack(len(keys))
    size, other = _size_of_all(keys), _size_of_all(values)
    if size is not None and other is not None:
        pairs = zip(keys, values, strict=True)
        return count + size + size.join([k + other + v for k, v in pairs])  # type: ignore[operator] # none is null
    return count + write_fields([cell for pair in zip(keys, values, strict=True) for cell in pair])


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
    return _FIXED_SIZES.get(cql_type.name)
