"""Which attribute types DynamoDB has for a column, and which of them a column has.

`cql/texts.py` and `numbers.py` say what a value is as `S` and `N`; `codecs.py` builds what turns
cells into attribute values.
"""

from typing import Literal

from migration_platform.cql.texts import TEXTS
from migration_platform.cql.types import CqlType
from migration_platform.errors import DeclarationError
from migration_platform.stores.dynamodb.numbers import NUMBERS

AttributeType = Literal["S", "N", "B", "BOOL", "L", "M", "SS", "NS", "BS"]
Numbers = Literal["refuse", "string"]
"""What becomes of a number that no `N` holds: its row is rejected, or it is an `S`."""

MAX_LEVELS = 31
"""How many lists and maps may lie in each other: what is in the innermost is the 32nd level.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
"""

MAX_NAME_BYTES = 65_535
"""How long a map's key and an attribute's name may be."""

_NOT_N_BY_DEFAULT = frozenset({"timestamp", "date", "time"})
_INEXACT_AS_KEYS = frozenset({"decimal"})
"""1.0 and 1.00 may be two rows, and one N."""
_SETS: dict[str, AttributeType] = {
    "text": "SS",
    "ascii": "SS",
    "uuid": "SS",
    "timeuuid": "SS",
    "inet": "SS",
    "date": "SS",
    "time": "SS",
    "timestamp": "SS",
    "tinyint": "NS",
    "smallint": "NS",
    "int": "NS",
    "bigint": "NS",
    "blob": "BS",
}
_NESTED: dict[str, AttributeType] = {
    "list": "L",
    "tuple": "L",
    "vector": "L",
    "set": "L",
    "map": "M",
    "udt": "M",
}


def offered_types(cql_type: CqlType, *, is_key: bool = False) -> tuple[AttributeType, ...]:
    """Give the attribute types that lose nothing of a column's values; the first is the default.

    `S` is the canonical text, `B` the cell's own bytes. What is not frozen is meant as a column.
    """
    name = cql_type.name
    found: list[AttributeType] = []
    if name in NUMBERS and not (is_key and name in _INEXACT_AS_KEYS):
        found.append("N")
    if name == "boolean" and not is_key:
        found.append("BOOL")
    if name in _NESTED and not is_key:
        if name == "set" and cql_type.is_multicell and cql_type.parameters[0].name in _SETS:
            found.append(_SETS[cql_type.parameters[0].name])
        found.append(_NESTED[name])
    found.extend(("S", "B"))
    default = found[0]
    if name in _NOT_N_BY_DEFAULT or (is_key and name in ("float", "double")):
        default = "S"
    elif name not in TEXTS and name not in _NESTED:
        default = "B"
    return tuple(dict.fromkeys((default, *found)))


def attribute_type_of(
    cql_type: CqlType, attribute_type: str | None = None, is_key: bool = False
) -> AttributeType:
    """Give the attribute type that a column's values have: the declared one, or the default.

    Raises:
        DeclarationError: the declared one would lose something.
    """
    offered = offered_types(cql_type, is_key=is_key)
    if attribute_type is None:
        return offered[0]
    for each in offered:
        if each == attribute_type:
            return each
    raise DeclarationError(
        f"{attribute_type} is no attribute type for {'keys' if is_key else 'values'} of "
        f"{cql_type}; write one of {', '.join(offered)}"
    )


def levels_of(cql_type: CqlType, attribute_type: str | None = None, is_key: bool = False) -> int:
    """Count how many lists and maps lie in each other in a column's values."""
    if attribute_type_of(cql_type, attribute_type, is_key) not in ("L", "M"):
        return 0
    inner = (*cql_type.parameters, *(kind for _, kind in cql_type.fields))
    # A map's key is a text, whatever it is made of.
    inner = inner[1:] if cql_type.name == "map" else inner
    return 1 + max(map(levels_of, inner), default=0)


# -- what is built -----------------------------------------------------------------------------
