"""Attributes of components: unknown ones are refused by name, beside the ones there are.

Error messages never repeat a value: it may be a password that stands where its name belongs.
"""

import difflib
from collections.abc import Iterator, Mapping
from copy import copy
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel, create_model, model_validator

from migration_platform.errors import DeclarationError


class NamedAttributes(dg.Resolvable):
    """Gives a component a schema that refuses all unknown attributes, at every depth, at once."""

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Derive the schema of the YAML attributes, with the refusal built in."""
        derived = super().model()

        def refuse_unknown(value: Any) -> Any:
            wrong = list(_unknown(derived, value, ""))
            if wrong:
                raise DeclarationError("; ".join(wrong))
            return value

        validator: Any = model_validator(mode="before")(staticmethod(refuse_unknown))
        return create_model(
            derived.__name__,
            __base__=derived,
            __validators__={"refuse_unknown": validator},
            **_described(derived, cls),
        )


def _described(derived: type[BaseModel], declared: type[Any]) -> dict[str, Any]:
    """Give the derived attributes the descriptions of the declared ones, for the Docs tab."""
    fields = {}
    for name, field in derived.model_fields.items():
        field = copy(field)
        field.description = declared.model_fields[name].description
        fields[name] = (field.annotation, field)
    return fields


def _unknown(model: type[BaseModel], value: Any, prefix: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        return
    for name, inner in value.items():
        field = model.model_fields.get(str(name))
        if field is None:
            valid = list(model.model_fields)
            close = difflib.get_close_matches(str(name), valid, n=1)
            hint = f"did you mean {prefix}{close[0]}? " if close else ""
            yield (
                f"there is no attribute {prefix}{name}; {hint}valid are "
                f"{', '.join(prefix + known for known in valid)}"
            )
            continue
        for nested, is_named in _models_in(field.annotation):
            path = f"{prefix}{name}"
            blocks = {path: inner}
            if is_named and isinstance(inner, Mapping):
                blocks = {f"{path}.{key}": block for key, block in inner.items()}
            for block_path, block in blocks.items():
                if isinstance(block, str):
                    known = ", ".join(nested.model_fields)
                    described = f": {field.description}" if field.description else ""
                    yield f"{block_path} must be a block with {known}{described}"
                    continue
                yield from _unknown(nested, block, f"{block_path}.")


def _models_in(annotation: Any, is_named: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """Give the models of an attribute, and whether it holds several of them by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, is_named
    elif get_origin(annotation) in (Union, UnionType, Annotated):
        for inner in get_args(annotation):
            yield from _models_in(inner, is_named)
    elif get_origin(annotation) in (dict, Mapping):
        yield from _models_in(get_args(annotation)[1], True)
