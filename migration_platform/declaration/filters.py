"""Which rows of the origin are copied, as declared, and what is refused of it."""

import re
from dataclasses import dataclass, replace

from migration_platform.declaration.validation import is_name, show, validate_number
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN, TokenRange


@dataclass(frozen=True)
class ColumnFilter:
    """Rows whose column shows this value (case and outer blanks aside) are left out."""

    name: str
    value: str


@dataclass(frozen=True)
class Filter:
    """Which rows of the origin are copied; a row must pass all of it.

    `where` is CQL that the server checks. Tokens and writetimes (microseconds) are inclusive.
    `coverage_percent` takes the low end of each token range.
    """

    where: str | None = None
    token_min: int = MIN_TOKEN
    token_max: int = MAX_TOKEN
    coverage_percent: int = 100
    writetime_from: int | None = None
    writetime_to: int | None = None
    column: ColumnFilter | None = None

    @property
    def by_writetime(self) -> bool:
        """Whether a row's writetime decides."""
        return self.writetime_from is not None or self.writetime_to is not None

    @property
    def takes_all_rows(self) -> bool:
        """Whether no row of a token range that is read is left out."""
        return not (self.where or self.column or self.by_writetime)

    def window(self, token_range: TokenRange) -> TokenRange | None:
        """Give the part of a range that is read; None if nothing of it is."""
        start = max(token_range.start, self.token_min - 1)
        end = min(token_range.end, self.token_max)
        if start >= end:
            return None
        # As the Cassandra Data Migrator takes a sample, so that both read the same tokens.
        low, high = replace(token_range, start=start, end=end).bounds
        end = low + (high - low) * self.coverage_percent // 100
        return replace(token_range, start=start, end=end) if start < end else None


def validate_filter(chosen: Filter) -> list[str]:
    """Refuse a filter that is none, and one that no row could pass."""
    if not isinstance(chosen, Filter):
        return [f"filter is {show(chosen)}; it must be a Filter"]
    tokens = [
        *validate_number("filter.token_min", chosen.token_min, MIN_TOKEN, MAX_TOKEN),
        *validate_number("filter.token_max", chosen.token_max, MIN_TOKEN, MAX_TOKEN),
    ]
    if not tokens and chosen.token_min > chosen.token_max:
        tokens = ["filter.token_min is beyond filter.token_max: no row would be read; swap them"]
    low, high = chosen.writetime_from, chosen.writetime_to
    times = [
        f"{fault} microseconds since 1970"
        for name, value in (("filter.writetime_from", low), ("filter.writetime_to", high))
        if value is not None
        for fault in validate_number(name, value, 0, MAX_TOKEN)
    ]
    if not times and low is not None and high is not None and low > high:
        times = ["filter.writetime_from is after filter.writetime_to: no row would pass; swap them"]
    return [
        *tokens,
        *validate_number("filter.coverage_percent", chosen.coverage_percent, 1, 100),
        *times,
        *([] if chosen.where is None else _validate_where(chosen.where)),
        *([] if chosen.column is None else _validate_column_filter(chosen.column)),
    ]


def _validate_column_filter(chosen: ColumnFilter) -> list[str]:
    if not isinstance(chosen, ColumnFilter):
        return [f"filter.column is {show(chosen)}; it must be name and value"]
    wrong = []
    if not is_name(chosen.name):
        wrong.append(f"filter.column.name is {show(chosen.name)}; name a column")
    if not isinstance(chosen.value, str):
        wrong.append(f"filter.column.value is {show(chosen.value)}; it must be text")
    return wrong


def _validate_where(where: object) -> list[str]:
    """Refuse what would change the query around the condition, quoted text aside."""
    valid = "it must be conditions joined by AND, such as status = 'active' AND amount > 0"
    if not isinstance(where, str):
        return [f"filter.where is {show(where)}; {valid}"]
    if not where.strip():
        return ["filter.where is empty; leave it out"]
    # What is quoted becomes a word: blanks around it keep its neighbours what they are.
    quoted = r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$\$.*?\$\$"""
    plain = re.sub(quoted, " q ", where, flags=re.DOTALL)
    clauses = (
        r"\b(?:allow\s+filtering|limit|order\s+by|group\s+by|per\s+partition|or|where|select)\b"
        r"|\A\s*and\b|\band\s*\Z"
    )
    found = re.search(rf"""--|//|/\*|[;?'"$]|{_BIND_MARKER}|{clauses}""", plain, re.IGNORECASE)
    if found:
        return [f"filter.where has {found[0].strip()!r}; {valid}"]
    if re.search(r"\btoken\s*\(", plain, re.IGNORECASE):
        return ["filter.where has token(); use filter.token_min and filter.token_max"]
    open_brackets = []
    for bracket in re.findall(r"[()\[\]{}]", plain):
        if bracket in "([{":
            open_brackets.append(bracket)
        elif not open_brackets or open_brackets.pop() + bracket not in ("()", "[]", "{}"):
            return [f"filter.where closes {bracket!r}, which is not open; {valid}"]
    if open_brackets:
        return [f"filter.where does not close {open_brackets[-1]!r}; {valid}"]
    return []


_BIND_MARKER = r"""(?:[^\w\s)\]}]|\A|\b(?:in|like|contains|key|and))\s*:"""
"""A colon where a value should begin; after a value it belongs to a map, as in {'a': 1}."""
