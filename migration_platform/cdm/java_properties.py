"""Java's .properties files, as `java.util.Properties` reads them.

Of Python's packages for this none is needed: the whole syntax is one page of java.util's manual.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from migration_platform.errors import DeclarationError

MAX_BYTES = 1_000_000
"""A file of settings has a few kilobytes; anything this large is something else."""

_BLANK = " \t\f"
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_KEY = re.compile(r"(?:\\.|[^\\=: \t\f])*", re.DOTALL)
_SEPARATOR = re.compile(r"[ \t\f]*[=:]?[ \t\f]*")


class Entry(NamedTuple):
    """A key with its value, and the number of the line on which it begins."""

    key: str
    value: str
    line: int


def decode_properties(data: bytes) -> str:
    """Read UTF-8, or what Java wrote before its version 9, ISO-8859-1.

    Raises:
        DeclarationError: the file is too large to be one of settings.
    """
    if len(data) > MAX_BYTES:
        raise DeclarationError(
            f"the file has {len(data):,} bytes, more than any file of properties; name another one"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("iso-8859-1")


def parse_properties(text: str) -> list[Entry]:
    r"""Give every entry in order, also those whose key comes again.

    Raises:
        DeclarationError: a \u that four hex digits do not follow; values are not shown.
    """
    entries = []
    for number, line in _logical_lines(text):
        found = _KEY.match(line)
        assert found is not None
        rest = line[found.end() :]
        separator = _SEPARATOR.match(rest)
        assert separator is not None
        key, value = _unescape(found[0], number), _unescape(rest[separator.end() :], number)
        entries.append(Entry(key, value, number))
    return entries


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join lines that end with a backslash; leave comments and empty lines out."""
    begin, joined = 0, ""
    for number, natural in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = natural.lstrip(_BLANK)
        if not begin:
            if not line or line[0] in "#!":
                continue
            begin = number
        goes_on = (len(line) - len(line.rstrip("\\"))) % 2
        joined += line[:-1] if goes_on else line
        if not goes_on:
            yield begin, joined
            begin, joined = 0, ""
    if begin and joined:
        yield begin, joined


def _unescape(text: str, line: int) -> str:
    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name != "u":
            return _ESCAPES.get(name, name)
        if not found[2]:
            raise DeclarationError(f"line {line} has a \\u that four hex digits do not follow")
        return chr(int(found[2], 16))

    plain = re.sub(r"\\(u|.)(?:(?<=u)([0-9A-Fa-f]{4}))?", replace, text, flags=re.DOTALL)
    try:
        # A character beyond 16 bits is escaped as the two halves that Java holds it in.
        return plain.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise DeclarationError(f"line {line} has a \\u that is half a character") from None
