"""What is wrong with a declared value: one sentence each, with the way out; none is raised here."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeGuard, cast

from migration_platform.cql.names import quote

_HALF = re.compile("[\ud800-\udfff]")
"""Half of a pair of UTF-16: YAML reads it, and no encoding writes it."""


def show(value: object) -> str:
    """Write a value as it was given, on one line and never long."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_whole(value: object) -> TypeGuard[int]:
    """Say whether this is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Say whether this is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_name(value: object) -> TypeGuard[str]:
    """Say whether this is text with something in it, and none that has no bytes."""
    return isinstance(value, str) and value != "" and not _HALF.search(value)


def validate_number(name: str, value: object, low: int, high: int) -> list[str]:
    """Refuse all but whole numbers within these limits."""
    if is_whole(value) and low <= value <= high:
        return []
    return [f"{name} is {show(value)}; valid are {low} to {high}"]


def validate_flag(name: str, value: object) -> list[str]:
    """Refuse all but true and false."""
    return [] if isinstance(value, bool) else [f"{name} is {show(value)}; valid are true, false"]


def validate_choice(name: str, value: object, valid: tuple[str, ...]) -> list[str]:
    """Refuse all but these words."""
    if isinstance(value, str) and value in valid:
        return []
    return [f"{name} is {show(value)}; valid are {', '.join(valid)}"]


def validate_choices(name: str, values: object, valid: tuple[str, ...]) -> list[str]:
    """Refuse all but a list of these words, each once."""
    if faults := validate_names(name, values):
        return faults
    return [
        f"{name} names {show(value)}; valid are {', '.join(valid)}"
        for value in cast(Iterable[str], values)
        if value not in valid
    ]


def validate_names(name: str, values: object) -> list[str]:
    """Refuse all but a list of names, each once."""
    if not isinstance(values, (tuple, list)):
        return [f"{name} is {show(values)}; it must be a list of names"]
    wrong = [f"{name} holds {show(v)}, which is no name" for v in values if not is_name(v)]
    twice = dict.fromkeys(v for v in values if is_name(v) and values.count(v) > 1)
    return wrong + [f"{name} names {quote(v)} more than once; once is enough" for v in twice]


def validate_mapping(name: str, values: object, *, to_names: bool = False) -> list[str]:
    """Refuse all but a block of names with values, which are names too where that is wanted."""
    if not isinstance(values, Mapping):
        return [f"{name} is {show(values)}; it must be a block of name: value"]
    wrong = [f"{name} holds {show(key)}, which is no name" for key in values if not is_name(key)]
    for key, value in values.items():
        if to_names and not is_name(value):
            wrong.append(f"{name}.{plain(key)} is {show(value)}, which is no name")
        elif value is None:
            wrong.append(f"{name}.{plain(key)} is null, which writes nothing; give a value")
    return wrong


def plain(key: object) -> str:
    """Write a name as CQL does."""
    return quote(key) if is_name(key) else show(key)
