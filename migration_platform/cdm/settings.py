"""Reads a properties file into values by name, and these as text, flags, numbers and names.

What is wrong with a value is gathered, not raised: a user is told all of it at once.
"""

import difflib
import re
from collections.abc import Mapping, Sequence

from migration_platform.cdm.java_properties import decode_properties, parse_properties
from migration_platform.cdm.properties import PREFIX, PROPERTIES, SPELLINGS
from migration_platform.cql.names import TableName
from migration_platform.errors import DeclarationError

CDM = "the Cassandra Data Migrator"
"""As messages name it."""


class Settings:
    """The file's values by name without prefix; gathers what is wrong with them, and notes."""

    def __init__(self, values: Mapping[str, str], notes: list[str], wrong: list[str]):
        self._values, self.notes, self.wrong = values, notes, wrong

    def given(self, name: str) -> bool:
        """Say whether the file gives a property a value."""
        return bool(self._values.get(name))

    def text(self, name: str) -> str:
        """Give a value as text, or the property's default."""
        # An empty value is none: a username that is emptied asks for no authentication.
        return self._values.get(name, PROPERTIES[name].default)

    def flag(self, name: str) -> bool:
        """Read true or false, in any case of letters."""
        text = self.text(name).lower() or PROPERTIES[name].default
        if text not in ("true", "false"):
            self.wrong.append(f"{PREFIX}{name} must be true or false")
        return text == "true"

    def number(self, name: str) -> int | None:
        """Read a whole number; None where there is no value, or none that is a number."""
        text = self.text(name) or PROPERTIES[name].default
        if text and not re.fullmatch(r"[+-]?[0-9]{1,40}", text):
            self.wrong.append(f"{PREFIX}{name} must be a whole number")
            return None
        return int(text) if text else None

    def names(self, name: str) -> tuple[str, ...]:
        """Read names with commas between them."""
        return tuple(unquoted(part) for part in self.text(name).split(",") if part.strip())

    def table(self, name: str) -> TableName | None:
        """Read keyspace.table as the migrator does: unquoted names keep their case, too."""
        text = self.text(name)
        parts = re.fullmatch(r'("[^"]+"|[^".\s]+)\.("[^"]+"|[^".\s]+)', text)
        if parts:
            return TableName(unquoted(parts[1]), unquoted(parts[2]))
        self.wrong.append(
            f"{PREFIX}{name} must be keyspace.table"
            if text
            else f"{PREFIX}{name} is missing: it names the origin's keyspace.table"
        )
        return None

    def note(self, sentence: str) -> None:
        """Keep a sentence for the user."""
        self.notes.append(sentence)


def unquoted(name: str) -> str:
    """Give a name without the spaces and quotes around it."""
    name = name.strip()
    is_quoted = len(name) > 2 and name[0] == name[-1] == '"'
    return name[1:-1].replace('""', '"') if is_quoted else name


def read_settings(data: bytes, overrides: Sequence[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Read a file and what overrides it (KEY=VALUE) into values by name, and notes.

    Raises:
        DeclarationError: one message with every name that the migrator does not know.
    """
    found: dict[str, tuple[str, str]] = {}
    notes, lost = [], []
    entries = [
        (e.key, e.value, f"line {e.line}") for e in parse_properties(decode_properties(data))
    ]
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise DeclarationError("--set takes KEY=VALUE; one of them has no =")
        entries.append((key.strip(), value, "--set"))
    for key, value, place in entries:
        if key in found and found[key][1] != "--set" and place != "--set":
            notes.append(f"{shown(key)} stands there twice; {place} wins, being the last.")
        found[key] = (value.strip(), place)
    values, wrong = {}, []
    for key, (value, _) in found.items():
        if not key.startswith(PREFIX):
            lost.append(shown(key))
            continue
        name = key.removeprefix(PREFIX)
        real = SPELLINGS.get(name)
        if real:
            if PREFIX + real in found:
                notes.append(f"{key} is passed over: {PREFIX}{real} stands there, too, and counts.")
                continue
            notes.append(f"{key} is taken as {PREFIX}{real}; {CDM} itself passes it over.")
        elif name not in PROPERTIES:
            close = difflib.get_close_matches(name, [*PROPERTIES, *SPELLINGS], n=1, cutoff=0.5)
            hint = f"; did you mean {PREFIX}{close[0]}?" if close else ""
            wrong.append(f"there is no property {shown(key)}{hint}")
            continue
        values[real or name] = value
    if wrong:
        raise DeclarationError("; ".join(wrong))
    if lost:
        notes.append(f"Without meaning here: {', '.join(lost)}.")
    return values, notes


def shown(key: str) -> str:
    """Give a key as a message can hold it: in ASCII, and not too long."""
    plain = key.encode("unicode_escape").decode()
    return plain if len(plain) <= 100 else plain[:97] + "..."
