"""What a migration keeps exactly, what it cannot keep, and why: told before the first write.

`diff.compare_writetime` proves the same afterwards, for everything that is exact here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from migration_platform.cql.names import quote
from migration_platform.cql.types import parse_type
from migration_platform.declaration.times import RowMax
from migration_platform.plan.model import Layer, Plan, Source, time_of


@dataclass(frozen=True)
class Fidelity:
    """How well one thing arrives: its values, and its writetimes and TTLs, each in a few words.

    `exact` says that each cell has its own writetime and TTL at the target too; of a target whose
    cells have none, that its values come back as they were.
    """

    subject: str
    values: str
    times: str
    exact: bool


def describe_cells(plan: Plan) -> tuple[Fidelity, ...]:
    """Say of each column of the target, and of row markers, what arrives as it was."""
    found = [
        Fidelity(quote(source.target), _values_of(plan, source), *_times_of(plan, layer, source))
        for layer in plan.layers
        for source in layer.sources
        if not source.is_key
    ]
    if not plan.has_counters:
        found.append(_row_markers(plan))
    found += _rows_of_a_view(plan)
    found += [
        Fidelity(quote(name), "nothing fills it; it stays as it is", "", exact=True)
        for name in plan.left_unset
    ]
    return (*found, *_left_out(plan))


def _left_out(plan: Plan) -> list[Fidelity]:
    return [
        Fidelity(quote(name), "left out: the target has no such column", "", exact=False)
        for name in plan.left_out
    ]


def tell_transactions(plan: Plan) -> str:
    """Say what becomes of lightweight transactions that nobody finished; no schema tells of any."""
    if plan.has_counters:
        return ""
    if plan.migration.origin.finish_transactions:
        return (
            "Updates with `IF` that replicas accepted and nobody finished are finished first, by a "
            "serial read of each partition of the origin."
        )
    return (
        "If the origin is written with `IF`: an update that replicas accepted and nobody finished "
        "is not seen, and may appear at the origin after the copy; `origin.finish_transactions: "
        "true` finishes such updates first."
    )


def _rows_of_a_view(plan: Plan) -> list[Fidelity]:
    """Say what a view does not show of its base table."""
    if plan.origin.view_of is None:
        return []
    told = (
        f"those of a materialized view: a row of {plan.origin.view_of} whose key in the view is "
        "null is in none, and a view may lag behind its table"
    )
    return [Fidelity("(rows)", told, "", exact=False)]


# -- items of DynamoDB ---------------------------------------------------------------------------


def to_markdown(lines: Sequence[Fidelity]) -> str:
    """Give the report as a table."""
    return write_table(
        ("column", "values", "writetime and TTL", "exact"),
        [
            (line.subject, line.values, line.times, "✓" if line.exact else "inexact")
            for line in lines
        ],
    )


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; nothing in it can end a cell, nor be a tag, as in `list<int>`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_to_cell, line)) + " |" for line in lines)


def _to_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


def _values_of(plan: Plan, source: Source) -> str:
    if source.kind == "constant":
        return "a constant"
    if source.kind == "json":
        return f"the property {source.json_property} of the JSON in {quote(source.origin)}"
    if source.kind == "map_value":
        return f"the value of each entry of {quote(source.origin)}"
    named = "as they are" if source.origin == source.target else f"those of {quote(source.origin)}"
    if "counter" in source.target_type:
        return f"{named}: the difference to the target is added"
    if source.converter(plan.migration.columns) is None:
        return named
    if "{" in source.target_type:
        return f"{named}, fields by their names"
    return f"{named}, {source.origin_type} to {source.target_type}"


def _times_of(plan: Plan, layer: Layer, source: Source) -> tuple[str, bool]:
    rules = plan.rules
    if layer.has_counters:
        return "a counter has none that could be set", True
    here, there = (
        parse_type(source.origin_type or source.target_type),
        parse_type(source.target_type),
    )
    exact, notes = True, []
    kind, _ = time_of(layer, source)
    if "cell" in (rules.writetime, rules.ttl):
        if there.is_multicell and there.name == "list":
            exact = False
            notes.append(
                "one time for the whole list, its newest writetime and longest TTL, because no "
                "element of a list can be written under its own name; rewritten only if it differs"
            )
        elif source.kind == "constant" or kind == "row":
            is_old = source.kind == "column" and here.is_multicell
            exact = not is_old
            notes.append(
                "the row's newest and longest: this server tells no times of elements (Cassandra "
                "does since 5.0)"
                if is_old
                else "the row's newest and longest"
            )
        elif kind == "multi" and not there.is_multicell:
            exact = False
            notes.append("one cell at the target: the newest and longest of its elements")
        elif kind in ("multi", "entry"):
            notes.append("each element's own")
        else:
            notes.append("each cell's own")
    why = dict.fromkeys(plan.uncounted, ", because no column counts for a row's")
    other = {
        "row_max": "the row's newest writetime" + _counting(plan.migration.row_max, "writetime"),
        "now": "the time of the copy" + why.get("writetime", ""),
        "cell": "",
    }
    longest = "the row's longest TTL" + _counting(plan.migration.row_max, "ttl")
    lives = {"row_max": longest, "none": "no TTL" + why.get("ttl", ""), "cell": ""}
    if isinstance(rules.writetime, int):
        notes.append(f"writetime {rules.writetime:,}")
    elif rules.writetime != "cell":
        notes.append(other[rules.writetime])
    if isinstance(rules.ttl, int):
        notes.append(f"a TTL of {rules.ttl:,} s")
    elif rules.ttl != "cell":
        notes.append(lives[rules.ttl])
    if rules.increment_by:
        notes.append(f"{rules.increment_by:,} µs newer")
    as_declared = rules.writetime == "cell" and rules.ttl == "cell" and not rules.increment_by
    return "; ".join(notes), exact and as_declared


def _counting(chosen: RowMax, of: str) -> str:
    """Say which cells count for a row's one time, where not all do."""
    named = chosen.writetime_columns if of == "writetime" else chosen.ttl_columns
    counted = (
        f" of {', '.join(map(quote, named))}"
        if named
        else ""
        if chosen.collections
        else " of what is no unfrozen collection"
    )
    return counted + (
        ", also where other cells live for ever"
        if of == "ttl" and chosen.expiring_cells_only
        else ""
    )


def _row_markers(plan: Plan) -> Fidelity:
    if plan.rules.writetime == "now":
        why = ", because no column counts for a row's" if "writetime" in plan.uncounted else ""
        told = f"the time of the copy{why}"
        return Fidelity("(row markers)", "written with every row", told, False)
    return Fidelity(
        "(row markers)",
        "written with every row, also where the origin's was made by an UPDATE",
        "the row's newest and longest, because no query tells a marker's; a row of nothing but its "
        "key gets the time at which it was read",
        False,
    )
