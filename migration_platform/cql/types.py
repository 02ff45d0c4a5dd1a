"""A column's type, read from CQL's text.

A guess that would be wrong: nothing inside of a type is ever unfrozen, whatever its text says.
"""

import re
from collections import deque
from dataclasses import dataclass, replace
from functools import cache

from migration_platform.cql.names import quote

_COLLECTIONS = {"list": 1, "set": 1, "map": 2}


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


def freeze(cql_type: CqlType) -> CqlType:
    """Give the type as one cell, whatever it holds."""
    return replace(cql_type, is_frozen=True)


def holds_sets(cql_type: CqlType) -> bool:
    """Say whether there is a set or a map in a type, at any depth."""
    inner = (*cql_type.parameters, *(field_type for _, field_type in cql_type.fields))
    return cql_type.name in ("set", "map") or any(map(holds_sets, inner))
