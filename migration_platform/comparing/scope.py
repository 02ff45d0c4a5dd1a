"""What a copy and its comparison look at, in words: which rows, and what they pass over.

A verdict is true of what was looked at only, so each green sentence ends with what is said here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from migration_platform.comparing.compared_rows import compile_compared
from migration_platform.cql.names import quote
from migration_platform.declaration.migration import Migration
from migration_platform.declaration.times import MAX_WRITETIME_US
from migration_platform.plan.model import Plan
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN

MAX_NAMES = 5
"""So many columns a sentence names; the plan has all."""
MAX_SHOWN = 200
"""So many characters of a condition a sentence shows; the declaration has all."""
ALL_ROWS = "all rows"
FILTER = "filter"
"""Metadata key of the conditions that chose what was copied and compared."""
DECLARED_FILTER = "declared_filter"
"""Metadata key of the declared filter, where one run took another in its place."""
ONLY_THE_TARGETS = "rows that only the target has"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Scope:
    """Which rows were compared, and what was not looked at; all of it empty for a whole table.

    `chosen` are the conditions of which a row must meet all, `made_of` says what a row is made of
    where it is no row of the origin, `beside` what else was compared, `passed_over` what was not.
    With `one_way` nobody looks for what only the target has; `with_times` says that each cell's
    writetime and TTL count. `declared` is the declared filter in words, where one run took another
    in its place.
    """

    chosen: tuple[str, ...] = ()
    made_of: str = ""
    beside: str = ""
    one_way: bool = False
    with_times: bool = False
    passed_over: tuple[str, ...] = ()
    declared: str = ""

    @property
    def filter(self) -> str:
        """The conditions as one text; empty if all rows were taken."""
        return "; ".join(self.chosen)

    @property
    def not_looked_at(self) -> str:
        """What was passed over, as one text; empty if that is nothing."""
        return "; ".join((*([ONLY_THE_TARGETS] if self.one_way else []), *self.passed_over))

    @property
    def of_counts(self) -> "Scope":
        """The same for a count of rows, which sees no column."""
        return replace(self, passed_over=())

    @property
    def of_rows(self) -> dict[str, str]:
        """Which rows were chosen, as metadata; empty if that is all, as declared."""
        told = {FILTER: self.filter, DECLARED_FILTER: self.declared}
        return {name: text for name, text in told.items() if text}

    @property
    def metadata(self) -> dict[str, str]:
        """All texts by name, those that there are."""
        over = {"not_looked_at": self.not_looked_at} if self.not_looked_at else {}
        return self.of_rows | over

    @property
    def told_filter(self) -> str:
        """The sentence that tells of the filter, with a blank before it."""
        if self.declared:
            chosen = self.filter or ALL_ROWS
            return f" Filter of this run alone: {chosen}; declared is: {self.declared}."
        return f" Filter: {self.filter}." if self.chosen else ""

    @property
    def ending_of_run(self) -> str:
        """How a red sentence ends: only a filter of the run's own makes it differ."""
        return f".{self.told_filter}".removesuffix(".") if self.declared else ""

    def ending(self, *more: str) -> str:
        """Give the sentences that end a green one, each with a blank before it.

        `more` was not looked at either; what is empty is left out.
        """
        over = "; ".join(text for text in (*more, self.not_looked_at) if text)
        return self.told_filter + (f" Not looked at: {over}." if over else "")


def describe_filter(migration: Migration) -> tuple[str, ...]:
    """Say which rows of the origin are copied and compared, one condition each."""
    chosen, limits = migration.filter, migration.guardrails
    found = []
    if chosen.where:
        found.append(f"where {_cut(' '.join(chosen.where.split()))}")
    if (chosen.token_min, chosen.token_max) != (MIN_TOKEN, MAX_TOKEN):
        found.append(f"tokens {chosen.token_min} to {chosen.token_max}")
    if chosen.coverage_percent < 100:
        found.append(f"the low {chosen.coverage_percent} % of each range")
    if chosen.by_writetime:
        since = "any" if chosen.writetime_from is None else _moment(chosen.writetime_from)
        until = "any" if chosen.writetime_to is None else _moment(chosen.writetime_to)
        found.append(f"writetimes {since} to {until}")
    if chosen.column:
        name, value = quote(chosen.column.name), chosen.column.value
        found.append(f"without rows whose {name} is {_cut(value)!r}")
    # What only reads leaves nothing out: large cells are what it looks for.
    if limits and limits.action == "skip" and not migration.reads_only:
        found.append(f"without rows that have a cell of more than {limits.max_column_kb:,} kB")
    return tuple(found)


def describe_scope(plan: Plan, declared: Migration | None = None) -> Scope:
    """Say what a comparison under this plan looks at, and what it passes over.

    With `declared` it tells of a filter that is the run's own, and no declared one.
    """
    migration = plan.migration
    own = declared is not None and declared.filter != migration.filter
    chosen = describe_filter(migration)
    if plan.lost_keys and migration.collisions != "refuse":
        chosen = (*chosen, f"of rows that become one the {migration.collisions}")
    exploded = migration.columns.explode_map
    return Scope(
        chosen=chosen,
        made_of=f", one for each entry of {quote(exploded.column)}" if exploded else "",
        beside=" and the static cells of their partitions" if len(plan.layers) > 1 else "",
        one_way=migration.diff_mode == "origin_only",
        with_times=migration.compare_writetime
        and not all(layer.has_counters for layer in plan.layers),
        passed_over=tuple(_passed_over(plan)),
        declared="; ".join(describe_filter(declared)) or ALL_ROWS if declared and own else "",
    )


def _passed_over(plan: Plan) -> Iterator[str]:
    migration = plan.migration
    yield from _unread_columns(plan)
    extracted = migration.columns.extract_json
    if extracted and not extracted.overwrite:
        names = tuple(extracted.properties.values())
        yield f"what the target held already in {_list(names)}"
    if plan.left_unset:
        yield f"the target's {_columns(plan.left_unset)}, which nothing fills"
    yield from migration.target.declared.passed_over
    yield from _times(plan)


def _unread_columns(plan: Plan) -> Iterator[str]:
    """Name the origin's columns that go nowhere, and those of which only a part is copied."""
    sources = [source for layer in plan.layers for source in layer.sources]
    whole = {s.origin for s in sources if s.kind != "json"}
    parts = [s for s in sources if s.kind == "json" and s.origin not in whole]
    read = whole | {source.origin for source in parts}
    unread = [column.name for column in plan.origin.columns if column.name not in read]
    if unread:
        yield f"the origin's {_columns(unread)}, which {_is(unread)} not copied"
    if parts:
        names = dict.fromkeys(source.json_property for source in parts)
        yield f"other properties of {quote(parts[0].origin)} than {_list(tuple(names), str)}"


def _times(plan: Plan) -> Iterator[str]:
    rules = plan.rules
    if not plan.migration.compare_writetime:
        # Times that nobody wanted to keep are nothing that could have been lost.
        if rules.writetime != "now" or rules.ttl != "none":
            yield "writetimes and TTLs"
        return
    untold = []
    for layer in plan.layers:
        if not layer.has_counters:
            compared = compile_compared(plan, layer, "target")
            untold += [compared.sources[position].target for position in sorted(compared.no_time)]
    if untold:
        yield f"writetimes and TTLs of {_list(untold)}"


def _columns(names: Sequence[str]) -> str:
    return f"column{'' if len(names) == 1 else 's'} {_list(names)}"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _list(names: Sequence[str], show: Callable[[str], str] = quote) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(map(show, names[:MAX_NAMES])) + more


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _moment(microseconds: int) -> str:
    if microseconds > MAX_WRITETIME_US:
        return f"{microseconds} µs"
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")
