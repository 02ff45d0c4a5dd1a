"""The attributes of a whole keyspace's migration, derived from those of a single table's."""

from collections.abc import Iterable
from copy import copy
from types import UnionType
from typing import Any, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel, Field, create_model

from migration_platform.components.attributes import NamedAttributes
from migration_platform.components.table.attributes import OriginAttributes, TargetAttributes
from migration_platform.components.table.kinds import OwnAttributes
from migration_platform.components.table.migration import TableMigration

_OF_ONE_TABLE = {"columns", "group_writes_by"}
"""Attributes that name columns: no two tables have the same."""
_OF_ALL_TABLES = {"schedule", "group", "tracking", "tracking_keyspace", "owners"}


def _derive(name: str, model: type[BaseModel], *, without: Iterable[str], **more: Any) -> Any:
    """Derive a block of attributes from another: fewer of them, and more."""
    fields: dict[str, Any] = {
        field_name: (info.annotation, copy(info))
        for field_name, info in model.model_fields.items()
        if field_name not in without
    }
    bases: Any = (NamedAttributes, dg.Model)
    return create_model(name, __base__=bases, __doc__=model.__doc__, **fields, **more)


def _derive_optional(
    name: str, model: type[BaseModel], *, without: Iterable[str] = (), **more: Any
) -> Any:
    """Derive a block in which nothing need be given, at any depth: what is given differs."""

    def optional(annotation: Any) -> Any:
        is_union = get_origin(annotation) in (Union, UnionType)
        parts = [
            _derive_optional(f"{name}_{part.__name__}", part)
            if isinstance(part, type) and issubclass(part, BaseModel)
            else part
            for part in (get_args(annotation) if is_union else (annotation,))
        ]
        return Union[*parts, None]

    fields: dict[str, Any] = {
        field_name: (optional(info.annotation), Field(None, description=info.description))
        for field_name, info in model.model_fields.items()
        if field_name not in without
    }
    bases: Any = (NamedAttributes, dg.Model)
    return create_model(name, __base__=bases, __doc__=model.__doc__, **fields, **more)


OriginKeyspaceAttributes = _derive(
    "OriginKeyspaceAttributes",
    OriginAttributes,
    without={"table"},
    keyspace=(str, Field(description="Its name, with its case and without quotes.")),
)
TargetKeyspaceAttributes = _derive(
    "TargetKeyspaceAttributes",
    TargetAttributes,
    without={"table", *OwnAttributes.model_fields},
    keyspace=(str | None, Field(None, description="Its name; default: the origin's.")),
)
OriginOfTable = _derive_optional("OriginOfTable", OriginAttributes, without={"store", "table"})
TargetOfTable = _derive_optional(
    "TargetOfTable",
    TargetAttributes,
    without={"store", "table", *OwnAttributes.model_fields},
    table=(str | None, Field(None, description="The table's name at the target.")),
)
TableAttributes = _derive_optional(
    "TableAttributes",
    TableMigration,
    without={"origin", "target", *_OF_ALL_TABLES},
    origin=(
        OriginOfTable | None,
        Field(None, description="What differs in how this table is read."),
    ),
    target=(
        TargetOfTable | None,
        Field(None, description="Another name, and what differs in how this table is written."),
    ),
    partition_key=(
        list[str] | None,
        Field(None, description="The target's partition key, where it is to be another one."),
    ),
    clustering_columns=(
        list[str] | None,
        Field(
            None,
            description="The target's clustering columns, each followed by DESC where it descends; "
            "default: whatever else is part of the origin's key.",
        ),
    ),
)
ForAllTables = _derive(
    "ForAllTables", TableMigration, without={"origin", "target", "group", *_OF_ONE_TABLE}
)
