"""Rebuilds a cell for a target whose type has another form, and sorts sets for comparing.

Most cells need nothing of it: they pass from origin to target as the bytes that they are.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

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
from migration_platform.cql.names import quote
from migration_platform.cql.order import null_first, sort_key
from migration_platform.cql.types import CqlType, freeze

Converter = Callable[[bytes], bytes]
"""Rebuilds a cell; null never comes to it."""


class TypesDiffer(ValueError):  # noqa: N818, it reads as what is wrong
    """Values of the origin's type do not fit into the target's."""


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
            elements.sort(key=partial(null_first, key=key))
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
