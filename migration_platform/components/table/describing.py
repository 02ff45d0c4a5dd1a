"""What the UI says of a table before any run: where its rows come from, and what changes."""

from migration_platform.components.table.attributes import EventsAttributes
from migration_platform.components.table.reporting import Job
from migration_platform.declaration.migration import Migration
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN


def describe_target(job: Job, events: EventsAttributes | None) -> str:
    """Say in Markdown what is copied from where, how it changes, and which limits hold."""
    migration = job.migration
    limits = [
        f"{limit:,} {unit}/s at the {side}"
        for side, endpoint in (("origin", migration.origin), ("target", migration.target))
        for limit, unit in (
            (endpoint.rows_per_second, "rows"),
            (endpoint.size_per_second, endpoint.size_unit),
        )
        if limit
    ]
    lines = [
        f"`{migration.target.table}` in `{migration.target.store}`, copied from "
        f"`{migration.origin.table}` in `{migration.origin.store}`.",
        "",
        f"- **Ranges**: {migration.token_ranges}, by the token of the origin's partition key",
        *migration.target.declared.describe(migration),
        f"- **Comparison**: `{migration.diff_mode}`",
    ]
    lines += _describe_changes(migration)
    if limits:
        lines.append(f"- **Limits**: {', '.join(limits)}")
    if migration.truncate_target:
        lines.append("- **Empties the target** before a copy of all ranges")
    if events:
        lines.append(f"- **Events**: topic `{events.topic}` in `{events.store}`")
    return "\n".join(lines)


def _describe_changes(migration: Migration) -> list[str]:
    """Say what is not a copy of every row as it is."""
    columns, chosen, limits = migration.columns, migration.filter, migration.guardrails
    exploded, extracted = columns.explode_map, columns.extract_json
    changes = {
        "Renamed": ", ".join(f"`{a}` to `{b}`" for a, b in columns.rename.items()),
        "Not copied": ", ".join(
            [f"`{name}`" for name in columns.skip]
            + ["what only the origin has"] * (columns.unmatched == "skip")
        ),
        "Constants": ", ".join(f"`{name}`" for name in columns.constants),
        "Codecs": ", ".join(f"`{name}`" for name in columns.codecs),
        "A row for each entry": f"of `{exploded.column}`" if exploded else "",
        "JSON": f"`{extracted.column}` gives " + ", ".join(extracted.properties.values())
        if extracted
        else "",
        "Null in a key": ", ".join(
            [f"`{name}`" for name in columns.key_defaults]
            + [f"any {cql_type}" for cql_type in columns.key_defaults_by_type]
        ),
        "Only rows": f"`{chosen.where}`" if chosen.where else "",
        "Only tokens": f"{chosen.token_min} to {chosen.token_max}"
        if (chosen.token_min, chosen.token_max) != (MIN_TOKEN, MAX_TOKEN)
        else "",
        "Only a sample": f"the low {chosen.coverage_percent} % of each range"
        if chosen.coverage_percent < 100
        else "",
        "Only writetimes": f"{chosen.writetime_from or 'any'} to {chosen.writetime_to or 'any'}"
        if chosen.by_writetime
        else "",
        "Left out": f"rows whose `{chosen.column.name}` is `{chosen.column.value}`"
        if chosen.column
        else "",
        "Cells over": f"{limits.max_column_kb} KB: {limits.action}" if limits else "",
        "Rows that become one": f"the {migration.collisions} wins"
        if migration.collisions != "refuse"
        else "",
        "Repairs": ", ".join(migration.repair)
        + (" at the time of the repair" if migration.repair_writetime == "now" else ""),
        "Rejected rows": f"up to {migration.dead_letters_max_rows:,} a range"
        + (", and the run fails" if migration.dead_letters_fail_run else "")
        if migration.dead_letters_max_rows
        else "",
    }
    return [f"- **{name}**: {text}" for name, text in changes.items() if text]
