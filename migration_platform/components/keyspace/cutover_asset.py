"""The cutover of a keyspace: whether it is ready, and the sensor that takes that back."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from migration_platform.comparing.scope import ONLY_THE_TARGETS, Scope, describe_scope
from migration_platform.components.failures import RunFailure
from migration_platform.components.keyspace.cutover import (
    MovedTable,
    judge_check,
    judge_checks,
    name_some,
    read_warning,
    sentence,
    tell_of_tables,
)
from migration_platform.components.keyspace.declared import DeclaredKeyspace, KnownTables
from migration_platform.components.keyspace.schema_asset import (
    SCHEMAS_MATCH,
    compare_keyspace,
    connect_both,
    judge_schemas,
)
from migration_platform.components.keyspace.sync_gate import judge_sync
from migration_platform.components.table.ledger import read_states
from migration_platform.components.table.run_stores import changes_stores
from migration_platform.cql.names import quote
from migration_platform.declaration.step_names import step_name
from migration_platform.errors import MigrationError, PreflightError
from migration_platform.plan.fidelity import write_table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.kinds import plan_between

READY = "ready_for_cutover"


def build_cutover_asset(*, declared: DeclaredKeyspace, known: KnownTables) -> dg.AssetsDefinition:
    """Build the cutover's asset: green only when every check of every table is."""
    ready = dg.AssetCheckSpec(
        READY,
        asset=declared.cutover_key,
        description="Every check of every table is green and newer than its last copy. A sensor "
        "turns it red as soon as that is no longer so.",
    )

    @dg.asset(
        key=declared.cutover_key,
        deps=[
            declared.schema_key,
            *(key for table in known.moved for key in (table.job.target, table.job.diff)),
        ],
        group_name=declared.asset_group,
        owners=declared.owners,
        kinds={"cassandra"},
        check_specs=[ready],
        # In a backfill it comes last. In a run that copies tables it is skipped, because these
        # return no results of their own (see ranged_run.py): launch it after that run.
        backfill_policy=dg.BackfillPolicy.single_run(),
        description=(
            f"Whether `{quote(declared.target_keyspace)}` in `{declared.target.store}` is ready "
            "for the cutover: green only if the schemas match and every check of every table is "
            "green and newer than its last copy. It compares the schemas again, and reads no rows."
        ),
        required_resource_keys={
            declared.origin.store,
            declared.target.store,
            *(store for table in known.moved for store in changes_stores(table.job.migration)),
        },
    )
    def cutover(context: dg.AssetExecutionContext) -> Iterator[Any]:
        try:
            problems, beside, schemas = _judge_keyspace(context, declared, known)
        except MigrationError as error:
            problems, beside, schemas = {"schema": [str(error)]}, _Beside(), None
        if schemas is not None:
            _report(context.instance, declared.schema_key, schemas)
        passed, said, metadata = _verdict(declared, known, problems, beside)
        yield dg.AssetCheckResult(
            check_name=READY, passed=passed, description=said, metadata=metadata
        )
        if not passed:
            raise RunFailure(said, metadata=metadata)
        yield dg.MaterializeResult(metadata=metadata)

    return cutover


@dataclass
class _Beside:
    """What a green cutover does not vouch for: texts with the tables of which they are true."""

    filters: dict[str, list[str]] = field(default_factory=dict)
    passed_over: dict[str, list[str]] = field(default_factory=dict)
    without_rows: list[str] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    schema_warning: str = ""
    left_out: list[str] = field(default_factory=list)

    def note(self, table: str, scope: Scope, rows: int) -> None:
        """Take in what was compared of a table."""
        if scope.filter:
            self.filters.setdefault(scope.filter, []).append(table)
        for text in (*([ONLY_THE_TARGETS] if scope.one_way else []), *scope.passed_over):
            self.passed_over.setdefault(text, []).append(table)
        if not rows:
            self.without_rows.append(table)

    @property
    def schemas(self) -> str:
        """Say how far the schemas match."""
        if not self.schema_warning:
            return "the schemas match"
        return f"the schemas match but for what is only warned of ({self.schema_warning})"

    @property
    def checks(self) -> str:
        """Say what the tables' checks are."""
        return "are green or only warn" if self.warnings else "are green"

    @property
    def sentences(self) -> str:
        """Give all of it, each sentence with a blank before it."""
        told = (
            ("Filter", tell_of_tables(self.filters)),
            ("Not looked at", tell_of_tables(self.passed_over)),
            ("Without a row to compare", name_some(self.without_rows)),
            ("Tables that are not migrated", name_some(self.left_out)),
            ("Warnings", tell_of_tables(self.warnings)),
        )
        return "".join(f" {what}: {text}." for what, text in told if text)


def _judge_keyspace(
    context: dg.AssetExecutionContext, declared: DeclaredKeyspace, known: KnownTables
) -> tuple[dict[str, list[str]], _Beside, dg.AssetCheckResult]:
    """Ask the servers and the event log; give what is not green, by table, and what is untold."""
    problems: dict[str, list[str]] = {}
    beside = _Beside(left_out=[name for name in known.tables or () if name not in known.names])
    with connect_both(declared, context) as (origin, target):
        schemas = judge_schemas(compare_keyspace(declared, known, origin, target))
        if not schemas.passed and schemas.severity == dg.AssetCheckSeverity.ERROR:
            problems["schema"] = [f"{SCHEMAS_MATCH}: {schemas.description}"]
        elif not schemas.passed:
            beside.schema_warning = schemas.description or SCHEMAS_MATCH
        for table in known.moved:
            reasons = judge_checks(context.instance, table)
            if not reasons:
                reasons = _judge_ranges(context, table, origin, target, beside)
            if reasons:
                problems[table.name] = reasons
            for key in table.checks:
                if warning := read_warning(context.instance, key):
                    beside.warnings.setdefault(warning, []).append(table.name)
    return problems, beside, schemas


def _judge_ranges(
    context: dg.AssetExecutionContext,
    table: MovedTable,
    origin: Connection,
    target: Connection,
    beside: _Beside,
) -> list[str]:
    """Object to ranges of another declaration, or of a table that was dropped and made anew.

    What was compared is noted in `beside`.
    """
    job = table.job
    try:
        plan = plan_between(job.migration, origin, target)
    except PreflightError:
        return ["it cannot be copied as it is declared now"]
    states = read_states(
        context.instance,
        target=job.target,
        diff=job.diff,
        ranges=job.migration.ranges,
        partitions=job.partitions,
        fingerprint=plan.fingerprint,
        comparison=plan.comparison,
        run_id=context.run.run_id,
    )
    open_ranges = sum(not state.matches for state in states)
    if not open_ranges:
        behind = judge_sync(context.instance, table, context.resources, states)
        if behind:
            return behind
        rows = sum(int(state.verdict.get("origin_rows", 0)) for state in states)
        beside.note(table.name, describe_scope(plan), rows)
        return []
    return [
        f"{open_ranges} of {len(states)} ranges are not copied and compared as the table and its "
        "declaration are now"
    ]


def _verdict(
    declared: DeclaredKeyspace,
    known: KnownTables,
    problems: dict[str, list[str]],
    beside: _Beside,
) -> tuple[bool, str, dict[str, Any]]:
    checks = sum(len(table.checks) for table in known.moved)
    metadata: dict[str, Any] = {
        "tables": len(known.moved),
        "tables_ready": sum(table.name not in problems for table in known.moved),
        "overview": dg.MetadataValue.md(
            write_table(
                ("table", "state"),
                [
                    (name, "; ".join(problems.get(name, ["ready"])))
                    for name in ["schema", *known.names]
                ],
            )
        ),
    }
    if not problems and known.moved:
        said = (
            f"{declared.target_name} is ready for the cutover: {beside.schemas}, and all {checks} "
            f"checks of {len(known.moved)} tables {beside.checks}."
        )
        return True, said + beside.sentences, metadata
    problems = problems or {"schema": ["no table is migrated"]}
    return False, sentence(declared.target_name, problems), metadata


def _report(instance: dg.DagsterInstance, asset: dg.AssetKey, result: dg.AssetCheckResult) -> None:
    """Write down the result of a check that no step of this run stands for."""
    assert result.check_name is not None
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=asset,
            check_name=result.check_name,
            passed=result.passed,
            severity=result.severity,
            description=result.description,
            metadata=dict(result.metadata or {}),
        )
    )


def build_cutover_sensor(*, declared: DeclaredKeyspace, known: KnownTables) -> dg.SensorDefinition:
    """Build the sensor: it turns the cutover red when a table is copied again or a check is red."""
    ready = dg.AssetCheckKey(declared.cutover_key, READY)
    schemas = dg.AssetCheckKey(declared.schema_key, SCHEMAS_MATCH)

    @dg.sensor(
        name=f"{step_name(declared.cutover_key.path)}_sensor",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Turns {declared.cutover_key.to_user_string()} red again when what it says is "
        "no longer so; it turns nothing green.",
    )
    def watch_cutover(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Look at the event log, and at no database."""
        if judge_check(context.instance, ready, 0.0):
            return dg.SkipReason("The cutover is not green.")
        problems = {
            table.name: reasons
            for table in known.moved
            if (reasons := judge_checks(context.instance, table))
        }
        if judge_check(context.instance, schemas, 0.0):
            problems["schema"] = [f"{SCHEMAS_MATCH} is red"]
        if not problems:
            return dg.SkipReason("The cutover is green, and still true.")
        passed, said, metadata = _verdict(declared, known, problems, _Beside())
        _report(
            context.instance,
            declared.cutover_key,
            dg.AssetCheckResult(
                check_name=READY, passed=passed, description=said, metadata=metadata
            ),
        )
        return dg.SkipReason(said)

    return watch_cutover
