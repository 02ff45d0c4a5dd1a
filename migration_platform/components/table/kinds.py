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
from migration_platform.components.table.postgres_attributes import (
    PostgresAttributes,
    declare_postgres,
    name_table,
)
from migration_platform.cql.names import TableName
from migration_platform.declaration.stores import StoreDeclaration
from migration_platform.errors import DeclarationError


class OwnAttributes(PostgresAttributes, DynamoDbAttributes):
    """What a target may declare if its store is of a certain kind."""


@dataclass(frozen=True)
class Form:
    """How the target of a kind is declared.

    `attributes` are the fields of `target` that only this kind has, and `diff` those of `diff`.
    `declare` is given the attributes of `target` and of `diff`, and `columns.rename`. `name_table`
    reads the table's name, of what is given and the origin's.
    """

    title: str
    attributes: type[dg.Model]
    declare: Callable[[Any, Any, dict[str, str]], StoreDeclaration]
    name_table: Callable[[str | None, str], TableName]
    diff: tuple[str, ...] = ()


def _name_item_table(given: str | None, origin: str) -> TableName:
    del origin
    if given is None:
        raise DeclarationError("target.table is missing: the name of a DynamoDB table")
    return TableName("", given)


FORMS = {
    "dynamodb": Form(
        "DynamoDB",
        DynamoDbAttributes,
        declare_dynamodb,
        _name_item_table,
        diff=("read_units_per_second",),
    ),
    "postgres": Form("PostgreSQL", PostgresAttributes, declare_postgres, name_table),
}


def find_strangers(kind: str, target: dg.Model, diff: dg.Model) -> list[tuple[str, list[str]]]:
    """Give the attributes that are set and that only other kinds have, by kind."""
    found = []
    own = set(FORMS[kind].attributes.model_fields) if kind in FORMS else set()
    for other, form in FORMS.items():
        fields = [name for name in form.attributes.model_fields if name not in own]
        names = [f"target.{name}" for name in fields if _is_set(target, name)]
        names += [f"diff.{name}" for name in form.diff if _is_set(diff, name)]
        if other != kind and names:
            found.append((other, names))
    return found


def _is_set(model: dg.Model, name: str) -> bool:
    default = type(model).model_fields[name].get_default(call_default_factory=True)
    return getattr(model, name) != default


def name_target(kind: str, given: str | None, origin: str) -> TableName:
    """Give the target's name: by default the origin's, where the kind's tables have such names.

    Raises:
        DeclarationError: it is missing, or no name.
    """
    form = FORMS.get(kind)
    return form.name_table(given, origin) if form else TableName.parse(given or origin)
