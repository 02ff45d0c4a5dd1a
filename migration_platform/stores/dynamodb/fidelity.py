"""What of a row a DynamoDB item keeps exactly, and what it does not."""

from collections.abc import Sequence

from migration_platform.cql.names import quote
from migration_platform.cql.types import CqlType
from migration_platform.plan.fidelity import Fidelity, _counting, _rows_of_a_view, _values_of
from migration_platform.plan.model import Plan
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget
from migration_platform.stores.dynamodb.shape import build_item_form


def describe_items(plan: Plan) -> tuple[Fidelity, ...]:
    """Say of each attribute of an item, and of the item's times, what arrives as it was."""
    declared = plan.migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    found: dict[str, Fidelity] = {}
    for layer in plan.layers:
        sources = layer.ordered(())
        form = build_item_form(plan, layer, sources)
        for part in form.parts:
            if not form.is_own(part) and part.columns:
                told = f"S: {', '.join(map(quote, part.columns))}, joined by #"
                found.setdefault(part.name, Fidelity(quote(part.name), told, "", exact=True))
        for source, column in zip(sources, form.columns, strict=True):
            if source.target in found:
                continue
            is_key = source.target in form.key_columns
            kind = form.type_of(column.name)
            notes = [_values_of(plan, source)]
            if source.origin_type == "counter":
                notes = ["the counter's number"]
            loses_scale = kind in ("N", "L", "M") and _holds(column.cql_type, ("decimal",))
            if loses_scale:
                notes.append(
                    "decimals equal as numbers: 1.50 comes back as 1.5 (S keeps the zeros)"
                )
            if kind in ("N", "L", "M") and _holds(column.cql_type, _BEYOND_N):
                notes.append(
                    "what no N holds is a string"
                    if declared.numbers == "string" and not is_key
                    else "a row with what no N holds is rejected or fails its range"
                )
            if kind in ("SS", "NS", "BS"):
                notes.append("a set without an order")
            if layer.name == "statics" and not is_key:
                notes.append("in an item of its own for each partition")
            found[source.target] = Fidelity(
                quote(source.target), f"{kind}: {'; '.join(notes)}", "", exact=not loses_scale
            )
    return (*found.values(), _times_of_items(plan), *_rows_of_a_view(plan))


_BEYOND_N = ("varint", "decimal", "float", "double")


def _holds(cql_type: CqlType, names: Sequence[str]) -> bool:
    """Say whether a type is one of these, or has one of these in it at any depth."""
    inner = (*cql_type.parameters, *(kind for _, kind in cql_type.fields))
    return cql_type.name in names or any(_holds(each, names) for each in inner)


def _times_of_items(plan: Plan) -> Fidelity:
    declared, migration, rules = plan.migration.target.declared, plan.migration, plan.rules
    assert isinstance(declared, DynamoDbTarget)
    written = (
        f"the row's newest writetime{_counting(migration.row_max, 'writetime')} in "
        f"{quote(declared.writetime_attribute)}, and the newest item wins"
        if rules.writetime == "row_max" and declared.writetime_attribute
        else "no writetime is kept"
    )
    expires = "no item expires"
    if declared.ttl_attribute and rules.ttl != "none":
        expires = f"an item expires at the second in {quote(declared.ttl_attribute)}, " + (
            f"{rules.ttl:,} s after it is copied"
            if isinstance(rules.ttl, int)
            else f"the row's latest{_counting(migration.row_max, 'ttl')}"
            + ("" if migration.row_max.expiring_cells_only else ", none if a cell lives for ever")
        )
    return Fidelity("(writetime and TTL)", "", f"{written}; {expires}", exact=False)
