"""What only some kinds of stores let a target declare in YAML, and how that becomes a declaration.

A kind with attributes of its own has a row in `FORMS`, and its model among the bases of
`OwnAttributes`. All others need neither.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg

from migration_platform.components.table.dynamodb_attributes import (
    DynamoDbAttributes,
    declare_dynamodb,
)
from migration_platform.cql.names import TableName
from migration_platform.declaration.stores import StoreDeclaration


class OwnAttributes(DynamoDbAttributes):
    """What a target may declare if its store is of a certain kind."""


@dataclass(frozen=True)
class Form:
    """How the target of a kind is declared.

    `attributes` are the fields of `target` that only this kind has, and `diff` those of `diff`.
    `declare` is given the attributes of `target` and of `diff`, and `columns.rename`. With
    `has_keyspaces` off a table's name is its own, and has to be given.
    """

    title: str
    attributes: type[dg.Model]
    declare: Callable[[Any, Any, dict[str, str]], StoreDeclaration]
    diff: tuple[str, ...] = ()
    has_keyspaces: bool = True


FORMS = {
    "dynamodb": Form(
        "DynamoDB",
        DynamoDbAttributes,
        declare_dynamodb,
        diff=("read_units_per_second",),
        has_keyspaces=False,
    )
}


def find_strangers(kind: str, target: dg.Model, diff: dg.Model) -> list[tuple[str, list[str]]]:
    """Give the attributes that are set and that only other kinds have, by kind."""
    found = []
    for other, form in FORMS.items():
        names = [f"target.{name}" for name in form.attributes.model_fields if _is_set(target, name)]
        names += [f"diff.{name}" for name in form.diff if _is_set(diff, name)]
        if other != kind and names:
            found.append((other, names))
    return found


def _is_set(model: dg.Model, name: str) -> bool:
    default = type(model).model_fields[name].get_default(call_default_factory=True)
    return getattr(model, name) != default


def name_target(kind: str, given: str | None, origin: str, wrong: list[str]) -> TableName | None:
    """Give the target's name: by default the origin's; what is wrong goes to `wrong`."""
    form = FORMS.get(kind)
    if form is None or form.has_keyspaces:
        return TableName.parse(given or origin)
    if given is None:
        wrong.append(f"target.table is missing: the name of a {form.title} table")
    return TableName("", given or "")
