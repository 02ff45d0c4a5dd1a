"""What the plan asset tells: what a copy would do, before it does any of it."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from migration_platform.comparing.scope import describe_scope
from migration_platform.components.failures import RunFailure
from migration_platform.components.table.filtering import with_run_filter
from migration_platform.components.table.reporting import Job, build_progress, column_schema
from migration_platform.components.table.run_stores import open_sides
from migration_platform.copying.collisions import Collisions, refuse_collisions
from migration_platform.copying.rehearsal import Rehearsal, rehearse
from migration_platform.copying.transform import compile_rows
from migration_platform.cql.names import quote
from migration_platform.errors import MigrationError
from migration_platform.plan import analysis
from migration_platform.plan.fidelity import tell_transactions, to_markdown, write_table
from migration_platform.plan.model import Plan
from migration_platform.runs.control import Watch, find_tables
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.interface import Markdown, Origin, Resource
from migration_platform.stores.kinds import describe_fidelity
from migration_platform.stores.permissions import look_again, refuse_denied
from migration_platform.stores.planning import analyse_origin, make_plan
from migration_platform.stores.work import records_at
from migration_platform.token_ranges import describe_ranges


def plan_migration(
    context: dg.AssetExecutionContext,
    job: Job,
    *,
    origin: Resource,
    target: Resource,
    rehearses: bool,
    own_filter: object = None,
) -> dg.MaterializeResult:
    """Hold the declaration against the tables, and against every row where that can matter.

    `own_filter` takes the place of the declared filter, unless it is None.

    Raises:
        dagster.Failure: one sentence, when a copy would be refused or would fail.
    """
    declared = job.migration
    try:
        job = with_run_filter(job, own_filter)
        migration = job.migration
        with ExitStack() as stack:
            here, there = open_sides(context, migration, stack, origin=origin, target=target)
            plan = make_plan(migration, here, there)
            refuse_denied(plan, here, there)
            metadata = _describe(plan) | describe_scope(plan, declared).of_rows
            for name, told in there.describe_cost(plan, here, compile_rows).items():
                metadata[name] = _to_metadata(told)
            metadata |= _describe_ring(plan, here, migration.workers or os.cpu_count() or 1)
            if not (rehearses or plan.lost_keys or migration.guardrails):
                return dg.MaterializeResult(metadata=metadata)
            workers = min(len(migration.ranges), migration.workers or os.cpu_count() or 1)
            pool = stack.enter_context(
                WorkerPool(
                    plan,
                    origin.to_settings(),
                    target.to_settings(),
                    workers=workers,
                    look_again=partial(look_again, plan, here, there),
                )
            )
            # A plan makes no tables: where there are none, nothing was set yet.
            records = records_at(migration, here.connection, there.connection)
            tables = find_tables(records, migration)
            if tables is not None:
                stack.enter_context(Watch(tables, migration, pool.budgets, context.log.warning))
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="migration-platform-plan-")
            )
            keys = Path(folder) / "keys.sqlite" if plan.lost_keys else None
            progress = build_progress(context, "Rehearsing, ranges")
            found = rehearse(pool, plan, migration.ranges, keys, progress)
    except MigrationError as error:
        raise RunFailure(str(error)) from None
    metadata |= _describe_rehearsal(found)
    problem = _tell_failures(plan, found)
    if problem:
        raise RunFailure(f"{declared.name}: {problem}", metadata=metadata)
    return dg.MaterializeResult(metadata=metadata)


def _describe(plan: Plan) -> dict[str, Any]:
    lines = describe_fidelity(plan)
    return {
        "fidelity": dg.MetadataValue.md(
            "\n\n".join(filter(None, (to_markdown(lines), tell_transactions(plan))))
        ),
        "inexact": ", ".join(line.subject for line in lines if not line.exact) or "nothing",
        "columns": dg.MetadataValue.md(_columns(plan)),
        "dagster/column_schema": column_schema(plan.target),
        "columns_left_out": ", ".join(plan.left_out) or "none",
        "columns_left_unset": ", ".join(plan.left_unset) or "none",
        "key_columns_lost": ", ".join(plan.lost_keys) or "none",
        "times_compared": plan.migration.compare_writetime,
    }


def _describe_ring(plan: Plan, origin: Origin, workers: int) -> dict[str, Any]:
    """Tell how the origin's table lies on the ring; that it cannot be read is no end of a plan."""
    migration = plan.migration
    try:
        found = analyse_origin(origin, plan.origin, migration.origin, migration.retry_seconds)
    except MigrationError as error:
        return {"token_analysis": f"cannot be told: {error}"}
    if found is None:
        return {}
    return {
        "estimated_rows": round(found.rows),
        "estimated_bytes": round(found.size),
        "estimated_partitions": round(found.partitions),
        "token_ranges_recommended": found.recommend(workers)[0],
        "token_analysis": dg.MetadataValue.md(
            analysis.to_markdown(found, migration.token_ranges, workers)
        ),
    }


def _to_metadata(told: Any) -> Any:
    if isinstance(told, Markdown):
        return dg.MetadataValue.md(told)
    return dg.MetadataValue.json(told) if isinstance(told, list) else told


def _columns(plan: Plan) -> str:
    said = {
        "column": "{origin} ({origin_type})",
        "constant": "a constant",
        "json": "the property {json_property} of {origin}",
        "map_key": "the keys of {origin}",
        "map_value": "the values of {origin}",
    }
    # A partition's key is filled alike for rows and for static cells: one line is enough.
    sources = dict.fromkeys(source for layer in plan.layers for source in layer.sources)
    types = {column.name: column.shown_type for column in plan.target.columns}
    rows = [
        (
            quote(source.target) + (" (key)" if source.is_key else ""),
            types.get(source.target, source.target_type),
            said[source.kind].format(**vars(source)),
        )
        for source in sources
    ]
    return write_table(("target", "type", "filled by"), rows)


def _describe_rehearsal(found: Rehearsal) -> dict[str, Any]:
    counts = found.counts
    metadata: dict[str, Any] = {
        "rows_read": counts.read,
        "rows_to_write": counts.read + counts.added - counts.skipped - counts.set_aside,
        "rows_filtered": counts.filtered,
        "bytes_read": counts.bytes_read,
    }
    if found.collisions.target_rows:
        metadata |= _describe_collisions(found.collisions)
    if counts.large_cells:
        metadata["large_cells"] = dg.MetadataValue.json(dict(counts.large_cells))
        metadata["large_samples"] = dg.MetadataValue.json(list(counts.large_samples))
    bad = counts.set_aside + counts.statics_set_aside
    if bad:
        metadata["rows_that_cannot_be_written"] = bad
        metadata["cannot_be_written"] = dg.MetadataValue.json(list(counts.set_aside_samples))
    if found.failed:
        reasons = {token_range.key: reason for token_range, reason in found.failed}
        metadata["ranges_that_would_fail"] = dg.MetadataValue.json(reasons)
    return metadata


def _describe_collisions(found: Collisions) -> dict[str, Any]:
    return {
        "rows_that_collide": found.origin_rows,
        "rows_that_they_land_on": found.target_rows,
        "collisions": dg.MetadataValue.json(list(found.samples)),
    }


def _tell_failures(plan: Plan, found: Rehearsal) -> str:
    """Say why a copy would fail; empty if it would not."""
    parts: list[str] = []
    if found.failed:
        names = describe_ranges([token_range for token_range, _ in found.failed])
        parts.append(f"{len(found.failed)} ranges would fail ({names}): {found.failed[0][1]}")
    guardrails = plan.migration.guardrails
    if guardrails and guardrails.action == "fail" and found.counts.large_cells:
        parts.append(
            f"cells of more than {guardrails.max_column_kb} KB would fail their ranges "
            f"({_large(found.counts.large_cells)}), such as {found.counts.large_samples[0]}"
        )
    try:
        refuse_collisions(plan, found.collisions)
    except MigrationError as error:
        parts.append(str(error))
    return "; ".join(parts)


def _large(cells: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in cells)
