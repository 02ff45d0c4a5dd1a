"""Attributes of components: unknown or unfit ones are refused by name, all in one message.

Error messages never repeat a value: it may be a password that stands where its name belongs.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import click
import dagster as dg
from pydantic import BaseModel, TypeAdapter, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from migration_platform.errors import DeclarationError

_T = TypeVar("_T")


def _resolve_literally(context: dg.ResolutionContext, value: Any) -> Any:
    """Resolve templates only: Dagster would make the number 12 of the text '12', too."""
    if isinstance(value, dict):
        return {key: _resolve_literally(context, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve_literally(context, item) for item in value]
    is_template = isinstance(value, str) and re.search(r"\{\{|\{%", value)
    return context.resolve_value(value) if is_template else value


@dataclass(frozen=True)
class Wrong:
    """Attributes that cannot be read, as what is wrong with them."""

    sentences: tuple[str, ...]


Literally = Annotated[_T, dg.Resolver(_resolve_literally)]
"""Text stays text, also where it looks like a number."""


class NamedAttributes(dg.Resolvable):
    """Gives a component a schema that refuses all wrong attributes, at every depth, at once."""

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Derive the schema of the YAML attributes, with the refusal built in."""
        return _derive(cls)


@cache
def _derive(attributes: type[NamedAttributes]) -> type[BaseModel]:
    # Once for each kind: made anew for each declaration, it was half of what loading took.
    derived = super(NamedAttributes, attributes).model()
    declared: Any = attributes

    def refuse_wrong(value: Any) -> Any:
        wrong = list(_wrong(declared, value, ""))
        if wrong:
            raise DeclarationError("; ".join(wrong))
        return value

    def keep_wrong(value: Any, read: Callable[[Any], Any]) -> Any:
        wrong = tuple(_wrong(declared, value, ""))
        return Wrong(wrong) if wrong else read(value)

    # A component is refused when all of its project is known, and its parts with it.
    is_component = issubclass(attributes, dg.Component)
    wrapping: Any = staticmethod(keep_wrong)
    validator: Any = (
        model_validator(mode="wrap")(wrapping)
        if is_component
        else model_validator(mode="before")(staticmethod(refuse_wrong))
    )
    return create_model(
        derived.__name__,
        __base__=(_LeftToDefinitions, derived) if is_component else derived,
        __validators__={"refuse_wrong": validator},
        **_described(derived, declared),
    )


class _LeftToDefinitions(BaseModel):
    """Leaves wrong attributes to the definitions, where a command is about to load these."""

    @classmethod
    def model_json_schema(cls, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Describe the attributes, but for `dg check defs`.

        That command holds one file of each kind against this schema, and goes on to the definitions
        only where it fits; these say of all files what is wrong, and what is right instead.
        """
        command = click.get_current_context(silent=True)
        if (
            command is not None
            and command.command_path.endswith(" check defs")
            and not command.params.get("check_yaml")
        ):
            return {}
        return super().model_json_schema(*arguments, **options)


def _described(derived: type[BaseModel], declared: type[BaseModel]) -> dict[str, Any]:
    """Give the derived attributes the descriptions of the declared ones, for the Docs tab."""
    fields = {}
    for name, field in derived.model_fields.items():
        field = copy(field)
        field.description = declared.model_fields[name].description
        fields[name] = (field.annotation, field)
    return fields


def find_wrong(model: type[BaseModel], value: object, path: str) -> list[str]:
    """Say what of a block of attributes is unknown or unfit, where no YAML was read."""
    if not isinstance(value, Mapping):
        return [f"{path} must be a block with {', '.join(model.model_fields)}"]
    return list(_wrong(model, value, f"{path}."))


def _wrong(model: type[BaseModel], value: Any, prefix: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        return
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for name, field in fields.items():
        if field.is_required() and name not in value:
            yield f"{prefix}{name} is missing{_explained(field)}"
    for name, inner in value.items():
        field = fields.get(str(name))
        if field is None:
            valid = list(fields)
            close = difflib.get_close_matches(str(name), valid, n=1)
            hint = f"did you mean {prefix}{close[0]}? " if close else ""
            yield (
                f"there is no attribute {prefix}{name}; {hint}valid are "
                f"{', '.join(prefix + known for known in valid)}"
            )
        elif inner is None and _takes(field.annotation, None):
            continue
        elif nested := _model_in(field.annotation):
            yield from _wrong_block(*nested, inner, f"{prefix}{name}", field)
        elif not _is_template(inner) and not _takes(field.annotation, inner):
            yield f"{prefix}{name} must be {_form(field.annotation)}{_explained(field)}"


def _wrong_block(
    model: type[BaseModel], is_named: bool, value: Any, path: str, field: FieldInfo
) -> Iterator[str]:
    blocks = {path: value}
    if is_named and isinstance(value, Mapping):
        blocks = {f"{path}.{key}": block for key, block in value.items()}
    elif is_named and isinstance(value, list):
        blocks = {f"{path}[{number}]": block for number, block in enumerate(value)}
    for block_path, block in blocks.items():
        if isinstance(block, Mapping):
            yield from _wrong(model, block, f"{block_path}.")
        else:
            known = ", ".join(model.model_fields)
            yield f"{block_path} must be a block with {known}{_explained(field)}"


def _model_in(annotation: Any, is_named: bool = False) -> tuple[type[BaseModel], bool] | None:
    """Give the model of an attribute, if it has one, and whether it holds several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, is_named
    if get_origin(annotation) in (Union, UnionType, Annotated):
        found = (_model_in(inner, is_named) for inner in get_args(annotation))
        return next(filter(None, found), None)
    if get_origin(annotation) in (dict, Mapping):
        return _model_in(get_args(annotation)[1], True)
    if get_origin(annotation) is list:
        return _model_in(get_args(annotation)[0], True)
    return None


def _takes(annotation: Any, value: Any) -> bool:
    # A true that slips in as the number 1 would be the first microsecond of 1970.
    if isinstance(value, bool) and not {bool, Any} & {annotation, *get_args(annotation)}:
        return False
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


def _form(annotation: Any) -> str:
    """Say what an attribute without a block of its own may be."""
    forms = {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        list: "a list such as [a, b], with words such as yes, on or 1 in quotes",
        dict: "a block of name: value, with words such as yes, on or 1 in quotes",
    }
    is_union = get_origin(annotation) in (Union, UnionType)
    inner = get_args(annotation) if is_union else (annotation,)
    return " or ".join(
        dict.fromkeys(forms[key] for part in inner if (key := get_origin(part) or part) in forms)
    )


def _explained(field: FieldInfo) -> str:
    return f": {field.description.rstrip('.')}" if field.description else ""
