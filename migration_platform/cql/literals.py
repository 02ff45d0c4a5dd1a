"""CQL literals as the values that a YAML file would hold; `values.py` fits them to a type."""

import re
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*'|\$\$.*?\$\$)|(?P<name>\"(?:[^\"]|\"\")+\")"
    r"|(?P<mark>[\[\](){},:])|(?P<word>[^\s\[\](){},:'\"]+))",
    re.DOTALL,
)
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_MAX_DEPTH = 50


def parse_literal(text: str) -> Any:
    """Read a literal: text loses its quotes, a whole number is one, other words stay words.

    Sets, lists and tuples become lists, maps and user-defined types dictionaries.

    Raises:
        ValueError: it is none; one sentence.
    """
    tokens: list[tuple[str, str]] = []
    at, text = 0, text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found or found.lastgroup is None:
            raise ValueError("its quotes do not end")
        tokens.append((found.lastgroup, found[found.lastgroup]))
        at = found.end()
    value, end = _read(tokens, 0, 0)
    if end != len(tokens):
        raise ValueError("something follows behind its end")
    return value


def _read(tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[Any, int]:
    if at >= len(tokens) or depth > _MAX_DEPTH:
        raise ValueError("it is empty, or not closed")
    kind, found = tokens[at]
    if kind == "text":
        plain = found[2:-2] if found.startswith("$$") else found[1:-1].replace("''", "'")
        return plain, at + 1
    if kind == "name":
        return found[1:-1].replace('""', '"'), at + 1
    if kind == "word":
        return _word(found), at + 1
    if found not in _CLOSING:
        raise ValueError(f"{found} stands where a value should begin")
    closing, items, pairs = ("mark", _CLOSING[found]), [], []
    at += 1
    while tokens[at : at + 1] != [closing]:
        item, at = _read(tokens, at, depth + 1)
        if found == "{" and tokens[at : at + 1] == [("mark", ":")]:
            value, at = _read(tokens, at + 1, depth + 1)
            pairs.append((item, value))
        else:
            items.append(item)
        if tokens[at : at + 1] == [("mark", ",")]:
            at += 1
        elif tokens[at : at + 1] != [closing]:
            raise ValueError(f"{found} is not closed")
    if pairs and items:
        raise ValueError("some of its entries have a key, others have none")
    if not pairs:
        return items, at + 1
    is_plain = all(isinstance(key, str) for key, _ in pairs)
    return (dict(pairs) if is_plain else [list(pair) for pair in pairs]), at + 1


def _word(word: str) -> Any:
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if word.lower() == "null":
        raise ValueError("null writes nothing")
    if re.fullmatch(r"[+-]?[0-9]{1,100}", word):
        return int(word)
    # A UUID, a duration, a blob, or a number whose digits a float would not keep.
    return word
