"""Texts that are split as Java's String.split does, in a time that is bounded.

Python tries all ways to match a pattern, one after the other. A pattern without a repeated group
has at most the text's length of ways for each of its quantifiers and alternatives.
"""

import re

MAX_SPLIT_TEXT = 10_000
"""Characters of a text that is split."""
_MOST_WAYS = 10**9
_PARTS = re.compile(
    r"\\."  # what is escaped
    r"|\[\^?\]?(?:\\.|[^\]\\])*\]"  # a class
    r"|\(\?"  # the beginning of a group
    r"|(?P<group>\)\s*[*+?{])"
    r"|(?P<choice>[*+?{|][?+]?)",
    re.DOTALL,
)


def validate_split(splitter: re.Pattern[str], text: str) -> list[str]:
    """Refuse a pattern or a text that would take longer than anybody waits, one sentence each."""
    if len(text) > MAX_SPLIT_TEXT:
        return [f"values must have at most {MAX_SPLIT_TEXT:,} characters"]
    parts = list(_PARTS.finditer(splitter.pattern))
    # Between a group and its quantifier a verbose pattern may hold a comment.
    if splitter.flags & re.VERBOSE or any(part["group"] for part in parts):
        return ["splitRegex repeats a group, which can take for ever; repeat characters only"]
    choices = sum(bool(part["choice"]) for part in parts)
    if len(text) ** (choices + 1) > _MOST_WAYS:
        return [
            f"splitRegex has {choices} quantifiers and alternatives, too many for values of "
            f"{len(text):,} characters; name the separator itself"
        ]
    return []


def split_text(splitter: re.Pattern[str], text: str) -> list[str]:
    """Split as Java's String.split does: groups are no parts, and empty ones at the end are cut."""
    parts, at = [], 0
    for found in splitter.finditer(text):
        if found.end() > 0:
            parts.append(text[at : found.start()])
            at = found.end()
    parts.append(text[at:])
    while parts and not parts[-1]:
        parts.pop()
    return parts
