"""What of a row a table of PostgreSQL keeps exactly, and what it does not."""

from migration_platform.cql.names import quote
from migration_platform.plan.fidelity import Fidelity, _counting, _rows_of_a_view, _values_of
from migration_platform.plan.model import Plan
from migration_platform.stores.postgres.shape import codec_of, declared_in, stored_type


def describe_rows(plan: Plan) -> tuple[Fidelity, ...]:
    """Say of each column, and of a row's times, what arrives as it was."""
    found = []
    statics = {column.name for column in plan.origin.columns if column.is_static}
    sources = {s.target: s for layer in plan.layers for s in layer.ordered(())}
    for source in sources.values():
        codec = codec_of(plan, source)
        if codec is None:
            continue
        notes = [_values_of(plan, source), codec.note]
        if source.origin in statics:
            notes.append(
                "a static cell, in a table of its own"
                if source.is_static
                else "a static cell, repeated in each row of its partition"
            )
        told = "; ".join(note for note in notes if note)
        shown = str(stored_type(plan.target, source.target))
        found.append(Fidelity(quote(source.target), f"{shown}: {told}", "", exact=codec.exact))
    return (*found, _times_of_rows(plan), *_rows_of_a_view(plan))


def _times_of_rows(plan: Plan) -> Fidelity:
    declared, migration = declared_in(plan.migration), plan.migration
    written = "no writetime is kept"
    if plan.rules.writetime == "row_max" and declared.writetime_column:
        written = (
            f"the row's newest writetime{_counting(migration.row_max, 'writetime')} in "
            f"{quote(declared.writetime_column)}, and the newest row wins"
        )
    return Fidelity("(writetime and TTL)", "", f"{written}; no row expires", exact=False)
