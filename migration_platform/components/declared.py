"""Components of which all mistakes of a project are told at once, each with its file.

Dagster stops at the first declaration that it cannot load or build, and names its place in a tree
above a stack trace. A declaration that is wrong is therefore loaded all the same, and keeps what is
wrong with it; the first component that cannot be built asks all others, and tells of all of them.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, Self, TypeVar

import click
import dagster as dg
import yaml
from dagster._core.definitions.utils import VALID_GROUP_NAME_REGEX, is_valid_owner
from dagster._utils.schedules import is_valid_cron_schedule
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.resolved.errors import ResolutionException
from dagster_shared.error import DagsterError
from pydantic import BaseModel, PrivateAttr, TypeAdapter

from migration_platform.components.attributes import NamedAttributes, Wrong
from migration_platform.declaration.validation import show
from migration_platform.errors import DeclarationError, explain

_FILES = ("defs.yaml", "defs.yml", "component.yaml")
_asking: ContextVar[bool] = ContextVar("asking", default=False)
_Any = TypeVar("_Any", bound="Declared")


class ProjectError(DeclarationError, ComponentTreeException, click.ClickException):
    """What is wrong with the declarations of a project, or with what a command asks of it.

    It passes through Dagster's tree as it is, and `dg launch` shows it without a stack trace.
    """


class Declared(dg.Component, NamedAttributes, dg.Model):
    """A component of this package, as its file declares it."""

    _context: dg.ComponentLoadContext | None = PrivateAttr(None)
    _wrong: tuple[str, ...] = PrivateAttr(())
    _repeated: tuple[str, ...] = PrivateAttr(())

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Load the declaration; one that is wrong has no attributes, but all that is wrong."""
        if attributes is None:
            attributes = TypeAdapter(cls.model()).validate_python({})
        if isinstance(attributes, Wrong):
            loaded = cls.model_construct()
            loaded._wrong = attributes.sentences
        else:
            try:
                loaded = super().load(attributes, context)
            except ResolutionException as error:
                loaded = cls.model_construct()
                loaded._wrong = (_tell_template(error),)
        loaded._repeated = tuple(_find_repeated(*_document_of(context)))
        loaded._context = context
        return loaded

    @property
    def is_whole(self) -> bool:
        """Whether its attributes could be read."""
        return not self._wrong

    @property
    def place(self) -> str:
        """The file of the declaration, within the project."""
        return _place(self._context) if self._context else "the project"

    def find_unfit(self) -> list[str]:
        """Say what is wrong with the declaration whatever the rest of the project declares."""
        return [*self._wrong, *self._repeated, *_find_unfit_names(self)]

    def find_mistakes(self) -> Sequence[str]:
        """Say what is wrong with the declaration."""
        unfit = self.find_unfit()
        if self._wrong or self._context is None:
            return unfit
        try:
            self.build_defs(self._context)
        except DeclarationError as error:
            return [*unfit, str(error)]
        except DagsterError as error:
            return unfit or [explain(error)]
        return unfit


def tells_all(build: Callable[..., dg.Definitions]) -> Callable[..., dg.Definitions]:
    """Let a component that cannot be built tell of all mistakes of its project."""

    @wraps(build)
    def build_or_tell(
        self: Any, context: dg.ComponentLoadContext, *arguments: Any, **options: Any
    ) -> dg.Definitions:
        if self._context is None or _asking.get():
            return build(self, context, *arguments, **options)
        try:
            if self.find_unfit():
                raise refuse_all(context.component_tree)
            return build(self, context, *arguments, **options)
        except ProjectError:
            raise
        except (DeclarationError, DagsterError) as error:
            known = {_place(context): [explain(error)]}
            raise refuse_all(context.component_tree, known) from None

    return build_or_tell


def refuse_all(tree: dg.ComponentTree, known: dict[str, list[str]] | None = None) -> ProjectError:
    """Put all mistakes of a project into one message; some may be known by their file."""
    told = {place: list(sentences) for place, sentences in (known or {}).items()}
    token = _asking.set(True)
    try:
        for component in tree.get_all_components(Declared):
            of_file = told.setdefault(component.place, [])
            of_file += [each for each in component.find_mistakes() if each not in of_file]
    finally:
        _asking.reset(token)
    lines = [f"{place}: {'; '.join(said)}" for place, said in sorted(told.items()) if said]
    head = [f"{len(lines)} files declare something wrong:"] if len(lines) > 1 else []
    return ProjectError("\n".join(head + lines))


def refuse_broken(tree: dg.ComponentTree) -> None:
    """Refuse a project in which a declaration could not be read.

    Raises:
        DeclarationError: one message with all mistakes of the project.
    """
    if any(not component.is_whole for component in tree.get_all_components(Declared)):
        raise refuse_all(tree)


def whole(tree: dg.ComponentTree, kind: type[_Any]) -> list[_Any]:
    """Give the components of a kind whose attributes can be read."""
    return [each for each in tree.get_all_components(kind) if each.is_whole]


def _find_unfit_names(component: BaseModel) -> list[str]:
    """Find what Dagster would not take as an owner, a group or a schedule."""
    group, cron = getattr(component, "group", None), getattr(component, "schedule", None)
    wrong = [
        f"owners holds {show(owner)}; write an e-mail address, or team: and a name"
        for owner in getattr(component, "owners", ())
        if not is_valid_owner(owner)
    ]
    if group and not VALID_GROUP_NAME_REGEX.match(group):
        wrong.append(f"group is {show(group)}; write letters, digits and underscores")
    if cron and not is_valid_cron_schedule(cron):
        wrong.append(
            f"schedule is the invalid cron schedule {show(cron)}; write minute, hour, day, month "
            "and day of the week, as in 0 3 * * * for each night at three"
        )
    return wrong


def _tell_template(error: ResolutionException) -> str:
    """Say what is wrong with a template, and where, without the lines around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    where = lines[0].rpartition(" - ")[2].removeprefix("attributes.") if lines else ""
    said = lines[-1].partition(": ")[2] or lines[-1] if lines else explain(error)
    return f"{where} holds a template that cannot be filled in: {said}"


def _place(context: dg.ComponentLoadContext) -> str:
    file, number = _document_of(context)
    root = context.project_root
    name = str(file.relative_to(root) if file.is_relative_to(root) else file)
    return f"{name} (document {number + 1})" if number else name


def _document_of(context: dg.ComponentLoadContext) -> tuple[Path, int]:
    """Give the file of a component, and which of its documents declares it."""
    folder, key = context.path, context.component_path.instance_key
    file = next((folder / name for name in _FILES if (folder / name).is_file()), folder)
    return file, key if isinstance(key, int) else 0


def _find_repeated(file: Path, number: int) -> list[str]:
    """Find keys that a block of a document has twice: YAML would take the last one in silence."""
    if file.name not in _FILES:
        return []
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents = yaml.compose_all(file.read_text(encoding="utf-8"), Loader=loader)
    return [
        told
        for index, document in enumerate(documents)
        if index == number
        for told in _repeated_in(document, "")
    ]


def _repeated_in(node: yaml.Node | None, path: str) -> list[str]:
    found: list[str] = []
    if isinstance(node, yaml.SequenceNode):
        for index, inner in enumerate(node.value):
            found += _repeated_in(inner, f"{path}[{index}]")
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, inner in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            whole_name = f"{path}.{name}" if path else name
            if name in lines:
                shown = whole_name.removeprefix("attributes.")
                found.append(
                    f"{shown} stands in line {lines[name]} and again in line {line}; keep one"
                )
            lines[name] = line
            found += _repeated_in(inner, whole_name)
    return found
