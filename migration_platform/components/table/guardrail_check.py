"""The component that declares a check of one table for cells that are too large."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import dagster as dg
from pydantic import Field

from migration_platform.comparing.scope import Scope, describe_filter
from migration_platform.components.attributes import NamedAttributes
from migration_platform.components.declared import Declared, tells_all
from migration_platform.components.failures import RunFailure
from migration_platform.components.scaffolds import GuardrailCheckScaffolder
from migration_platform.components.stores import find_unknown_stores, kinds_of_stores
from migration_platform.components.table.attributes import OriginAttributes
from migration_platform.components.table.naming import asset_key
from migration_platform.components.table.reporting import build_progress
from migration_platform.components.table.run_stores import find_store, open_store
from migration_platform.copying.large_cells import declare_check
from migration_platform.copying.rehearsal import Rehearsal, rehearse
from migration_platform.counts import RangeCounts
from migration_platform.cql.names import TableName
from migration_platform.declaration.filters import Filter
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import DeclarationError, MigrationError
from migration_platform.plan.model import Plan
from migration_platform.resources import CassandraResource
from migration_platform.runs.control import CONTROL_TABLES, Watch
from migration_platform.runs.log_lines import banner, final_lines, parameter_lines
from migration_platform.runs.run_info import GUARDRAIL, guardrail_counters
from migration_platform.runs.tracking import ENDING_SECONDS, FAIL, PASS, TrackedRun, create_run
from migration_platform.runs.tracking_tables import open_tables
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.kinds import open_origin
from migration_platform.stores.planning import plan_check
from migration_platform.stores.work import Done, Event, Failed, Started
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN, TokenRange, describe_ranges


class ReadFilterAttributes(NamedAttributes, dg.Model):
    """Which rows are read."""

    where: str | None = Field(
        default=None, description="CQL conditions joined by AND, which the server checks."
    )
    token_min: int = Field(default=MIN_TOKEN, description="Lowest token that is read.")
    token_max: int = Field(default=MAX_TOKEN, description="Highest token that is read.")
    coverage_percent: int = Field(
        default=100, description="How much of each token range is read, from its low end, 1 to 100."
    )


class CheckConfig(dg.Config):
    """What one run may do otherwise than declared."""

    run_id: int | None = Field(
        default=None, description="The tracked run's own id; default: nanoseconds since 1970."
    )


@dg.scaffold_with(GuardrailCheckScaffolder)
class GuardrailCheck(Declared):
    """Reads a Cassandra table and counts the rows with a cell that is too large; writes none.

    It needs no target. The asset ends green whatever it finds, with the counts in its metadata.
    """

    origin: OriginAttributes = Field(description="The table that is read.")
    max_column_kb: int = Field(description="Size of a cell that is too large: 1 KB is 1000 bytes.")
    token_ranges: int = Field(64, description="Pieces in which the table is read, 1 to 1024.")
    workers: int | None = Field(None, description="Processes of a run; default: one a core.")
    filter: ReadFilterAttributes = Field(
        default_factory=ReadFilterAttributes, description="Which rows are read; default: all."
    )
    tracking: bool = Field(
        default=True, description="Whether runs are tracked in cdm_run_info and cdm_run_details."
    )
    tracking_keyspace: str = Field(
        default=Migration.tracking_keyspace,
        description="Keyspace of those tables, made where it is missing in the origin's cluster.",
    )
    retry_seconds: float = Field(
        90.0, description="How long a request that failed for a passing reason is tried again."
    )
    owners: list[str] = Field(default_factory=list, description="E-mail or team:name of owners.")
    group: str = Field("migrations", description="Group of the asset in the UI.")

    @tells_all
    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the asset.

        Raises:
            DeclarationError: one message with everything that is wrong.
        """
        kinds, store = kinds_of_stores(context.component_tree), self.origin.store
        if kinds.get(store, "cassandra") != "cassandra":
            raise DeclarationError(
                f"origin.store is {store}, a {kinds[store]} store; valid are the cassandra stores "
                f"{', '.join(name for name in kinds if kinds[name] == 'cassandra')}"
            )
        unknown = find_unknown_stores({"origin.store": store}, kinds, context.component_tree)
        if unknown:
            raise DeclarationError("; ".join(unknown))
        return dg.Definitions(
            assets=[build_check_asset(declared=self, migration=self.to_migration())]
        )

    def to_migration(self) -> Migration:
        """Turn the attributes into a validated declaration that only reads.

        Raises:
            DeclarationError: one message with everything that is wrong.
        """
        origin = self.origin
        return declare_check(
            Endpoint(
                store=origin.store,
                table=TableName.parse(origin.table),
                consistency=origin.consistency,
                rows_per_second=origin.rows_per_second,
                bytes_per_second=origin.bytes_per_second,
                fetch_size=origin.fetch_size,
                finish_transactions=origin.finish_transactions,
            ),
            self.max_column_kb,
            token_ranges=self.token_ranges,
            workers=self.workers,
            chosen=Filter(
                where=self.filter.where,
                token_min=self.filter.token_min,
                token_max=self.filter.token_max,
                coverage_percent=self.filter.coverage_percent,
            ),
            tracking=self.tracking,
            tracking_keyspace=self.tracking_keyspace,
            retry_seconds=self.retry_seconds,
        )


def check_key(migration: Migration) -> dg.AssetKey:
    """Name a check's asset: the origin's, with what is looked for."""
    *folders, table = asset_key(migration.origin).path
    return dg.AssetKey([*folders, f"{table}_large_cells"])


def build_check_asset(*, declared: GuardrailCheck, migration: Migration) -> dg.AssetsDefinition:
    """Build the asset that reads every row and counts those with a large cell."""

    @dg.asset(
        key=check_key(migration),
        deps=[asset_key(migration.origin)],
        group_name=declared.group,
        owners=declared.owners,
        kinds={"cassandra"},
        description=(
            f"The rows of `{migration.origin.table}` with a cell of more than "
            f"{declared.max_column_kb:,} KB (1000 bytes each): every row is read, none is written."
        ),
        required_resource_keys={migration.origin.store},
    )
    def large_cells(context: dg.AssetExecutionContext, config: CheckConfig) -> dg.MaterializeResult:
        origin = find_store(context.resources, migration.origin.store, CassandraResource)
        return count_large_cells(context, migration, origin, config.run_id)

    return large_cells


def count_large_cells(
    context: dg.AssetExecutionContext,
    migration: Migration,
    origin: CassandraResource,
    run_id: int | None,
) -> dg.MaterializeResult:
    """Read every row, and count what is too large.

    Raises:
        dagster.Failure: one sentence, when the table or one of its ranges cannot be read.
    """
    pieces = {r: window for r in migration.ranges if (window := migration.filter.window(r))}
    ranges, totals = list(pieces), Counter[str]()
    try:
        with ExitStack() as stack:
            cluster = stack.enter_context(
                open_store(context, origin.connect, migration.retry_seconds)
            )
            plan = plan_check(migration, open_origin(migration, cluster))
            tracked = stack.enter_context(
                _tracked(context, plan, cluster, pieces.values(), run_id)
                if migration.tracking
                else nullcontext()
            )
            lines = parameter_lines(migration, tracked, len(pieces))
            context.log.info("\n".join([*banner(GUARDRAIL, "Starting"), *lines]))
            settings = origin.to_settings()
            workers = max(1, min(len(ranges), migration.workers or os.cpu_count() or 1))
            pool = stack.enter_context(WorkerPool(plan, settings, settings, workers=workers))
            if tracked is not None:
                watch = Watch(tracked.tables, migration, pool.budgets, context.log.warning)
                stack.enter_context(watch).run = tracked
            progress = build_progress(context, "Reading, ranges")
            note = _build_note(tracked, pieces, totals)
            found = rehearse(pool, plan, ranges, None, progress, note)
    except MigrationError as error:
        raise RunFailure(str(error)) from None
    lines = [*final_lines(GUARDRAIL, tracked, totals), *banner(GUARDRAIL, "Stopped")]
    context.log.info("\n".join(lines))
    metadata = _describe(migration, found)
    if found.failed:
        names = describe_ranges([token_range for token_range, _ in found.failed])
        raise RunFailure(
            f"{migration.name}: {len(found.failed)} ranges could not be read ({names}): "
            f"{found.failed[0][1]}",
            metadata=metadata,
        )
    context.log.info(metadata["found"])
    return dg.MaterializeResult(metadata=metadata)


@contextmanager
def _tracked(
    context: dg.AssetExecutionContext,
    plan: Plan,
    cluster: Any,
    pieces: Collection[TokenRange],
    run_id: int | None,
) -> Iterator[TrackedRun]:
    """Note the run from its beginning to its end, also when it does not end well."""
    migration = plan.migration
    tracked = create_run(
        open_tables(cluster, migration, CONTROL_TABLES),
        migration,
        GUARDRAIL,
        pieces,
        fingerprint=plan.fingerprint,
        run_id=run_id,
        dagster_run_id=context.run.run_id,
    )
    try:
        tracked.begin()
        yield tracked
    except BaseException:
        # Whoever stopped the run does not wait long.
        tracked.tables.retry_seconds = ENDING_SECONDS
        try:
            tracked.end()
        except MigrationError as error:
            context.log.warning(f"The tracked run stays STARTED: {error}")
        raise
    tracked.end()


def _build_note(
    tracked: TrackedRun | None, pieces: Mapping[TokenRange, TokenRange], totals: Counter[str]
) -> Callable[[Event], None]:
    """Build what counts each range that ends and, where runs are tracked, notes it."""

    def note(event: Event) -> None:
        if not isinstance(event, Started | Done | Failed):
            return
        piece = pieces[event.task.token_range]
        if isinstance(event, Started):
            if tracked is not None:
                tracked.begin_piece(piece)
            return
        failed = isinstance(event, Failed)
        counts = RangeCounts() if failed else event.result
        counters = guardrail_counters(counts, failed=failed)
        totals.update(counters)
        if tracked is not None:
            tracked.count_piece(piece, counters)
            tracked.end_piece(piece, FAIL if failed else PASS)

    return note


def _describe(migration: Migration, found: Rehearsal) -> dict[str, Any]:
    counts, limits = found.counts, migration.guardrails
    assert limits is not None
    scope = Scope(chosen=describe_filter(migration))
    large = f"{counts.too_large:,} of {counts.read:,} rows have"
    ending = scope.ending()
    return {
        "found": f"{large} a cell of more than {limits.max_column_kb:,} KB{ending and '.'}{ending}",
        **scope.metadata,
        "max_column_kb": limits.max_column_kb,
        "rows_read": counts.read,
        "rows_with_large_cells": counts.too_large,
        "large_cells": dg.MetadataValue.json(dict(counts.large_cells)),
        "large_samples": dg.MetadataValue.json(list(counts.large_samples)),
        "bytes_read": counts.bytes_read,
    }
