"""Declarations as the text of YAML files, which are written below a folder."""

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from migration_platform.errors import DeclarationError


def refuse_templates(value: Any) -> None:
    """Refuse what Dagster would read as a template of its own."""
    if isinstance(value, Mapping):
        refuse_templates([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for item in value:
            refuse_templates(item)
    elif isinstance(value, str) and re.search(r"\{\{|\{%|\{#", value):
        raise DeclarationError(
            "a value holds {{, {% or {#, which a defs.yaml takes for a template; write this "
            "migration's defs.yaml by hand"
        )


_AS_WRITTEN = ("constants", "key_defaults", "key_defaults_by_type")
"""Attributes whose text stays text; in others Dagster makes the number 12 of the text '12'."""


def _quoted(value: Any) -> Any:
    """Put quotes into a text that Dagster would take for a number, a list or the like."""
    if isinstance(value, Mapping):
        return {k: v if k in _AS_WRITTEN else _quoted(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    try:
        is_other = isinstance(value, str) and ast.literal_eval(value) != value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return repr(value) if is_other else value


def to_yaml(head: Sequence[str], document: Any) -> str:
    """Give a document as YAML, below lines of comments."""
    lines = [f"# {' '.join(_shown_line(line).split())}" for line in head]
    text = yaml.safe_dump(_quoted(document), sort_keys=False, allow_unicode=True, width=100)
    return "\n".join([*lines, text])


def _shown_line(text: str) -> str:
    return "".join(c if c.isprintable() or c == " " else "?" for c in text)


def write_files(folder: Path, files: Mapping[str, str], *, force: bool = False) -> list[Path]:
    """Write the files below a folder; one that says the same already is left as it is.

    Raises:
        DeclarationError: files with other content are there, and nothing was written.
    """
    try:
        changed = {
            folder / name: text
            for name, text in files.items()
            if not (folder / name).is_file() or (folder / name).read_text("utf-8") != text
        }
        there = [str(path) for path in changed if path.exists()]
        if there and not force:
            raise DeclarationError(
                f"{' and '.join(there)} would be overwritten; use --force, or another --output"
            )
        for path, text in changed.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise DeclarationError(f"cannot write below {folder}: {error.strerror}") from error
    return list(changed)
