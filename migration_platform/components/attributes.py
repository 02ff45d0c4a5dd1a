"""Attributes of components: unknown ones are refused by name, beside the ones there are."""

import difflib
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel, create_model, model_validator


class NamedAttributes(dg.Resolvable):
    """Gives a component a schema that refuses all unknown attributes, at every depth, at once."""

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Derive the schema of the YAML attributes, with the refusal built in."""
        derived = super().model()

        def refuse_unknown(value: Any) -> Any:
            wrong = list(_unknown(derived, value, ""))
            if wrong:
                raise ValueError("; ".join(wrong))
            return value

        return create_model(
            derived.__name__,
            __base__=derived,
            __validators__={
                "refuse_unknown": model_validator(mode="before")(staticmethod(refuse_unknown))
            },
        )


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
        for nested in _models_in(field.annotation):
            yield from _unknown(nested, inner, f"{prefix}{name}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated):
        for inner in get_args(annotation):
            yield from _models_in(inner)
