"""What stands around the tables of a keyspace: its schema, the gate, and who watches the gate."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from migration_platform.comparing.scope import ONLY_THE_TARGETS, Scope, describe_scope
from migration_platform.components.keyspace.cutover import (
    MovedTable,
    judge_check,
    judge_checks,
    name_some,
    read_warning,
    sentence,
    tell_of_tables,
)
from migration_platform.components.table.ledger import read_states
from migration_platform.cql.names import quote
from migration_platform.errors import DeclarationError, MigrationError, PreflightError
from migration_platform.plan.fidelity import write_table
from migration_platform.resources import CassandraResource
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.schema import read_hosts, read_known_options, read_schema
from migration_platform.stores.cassandra.schema_creation import (
    Created,
    SchemaPlan,
    create_schema,
    plan_schema,
)
from migration_platform.stores.cassandra.schema_differences import Difference, compare_schemas
from migration_platform.stores.kinds import plan_between

if TYPE_CHECKING:
    from migration_platform.components.keyspace.migration import KeyspaceMigration

REFRESH = "dg utils refresh-defs-state"
SCHEMAS_MATCH = "schemas_match"
READY = "ready_for_cutover"
_MAX_TOLD = 5


@dataclass(frozen=True)
class KnownTables:
    """What definitions are built from: the origin's tables (None: not asked yet), and the moved."""

    tables: tuple[str, ...] | None
    moved: tuple[MovedTable, ...]
    clashes: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """The tables that are migrated, by their names at the origin."""
        return [table.name for table in self.moved]


def build_keyspace_assets(declared: "KeyspaceMigration", known: KnownTables) -> dg.Definitions:
    """Build what stands around the tables: schema, its check, the gate, and who watches it."""
    return dg.Definitions(
        assets=[
            build_schema_asset(declared=declared, known=known),
            build_cutover_asset(declared=declared, known=known),
        ],
        asset_checks=[build_schema_check(declared=declared, known=known)],
        sensors=[build_cutover_sensor(declared=declared, known=known)],
    )


def build_schema_asset(*, declared: "KeyspaceMigration", known: KnownTables) -> dg.AssetsDefinition:
    """Build the asset that creates what is missing at the target."""
    here, there = quote(declared.origin.keyspace), quote(declared.target_keyspace)
    creates = ", ".join(declared.create) or "nothing"

    @dg.asset(
        key=declared.schema_key,
        group_name=declared.asset_group,
        owners=declared.owners,
        kinds={"cassandra"},
        # So that one launch with a range of partitions may hold it beside the tables.
        backfill_policy=dg.BackfillPolicy.single_run(),
        description=(
            f"The schema of `{there}` in `{declared.target.store}`, from that of `{here}` in "
            f"`{declared.origin.store}`: {len(known.moved)} tables.\n\n"
            f"Creates where it is missing: {creates}. Nothing that exists is altered or dropped."
        ),
        required_resource_keys={declared.origin.store, declared.target.store},
    )
    def schema(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        try:
            plan, created = _create(declared, known, context.resources)
        except MigrationError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        for statement in created.made:
            context.log.info(f"Created {statement.about}: {statement.cql}")
        metadata = _describe_created(plan, created)
        if created.refused:
            raise dg.Failure(
                f"not all of {there} could be created: {'; '.join(created.refused)}",
                metadata=metadata,
                allow_retries=False,
            )
        return dg.MaterializeResult(metadata=metadata)

    return schema


def _create(
    declared: "KeyspaceMigration", known: KnownTables, resources: Any
) -> tuple[SchemaPlan, Created]:
    """Create what is missing, or nothing if not all of it can be.

    Raises:
        PreflightError: what is missing cannot be created; nothing was.
        MigrationError: a server did not answer.
    """
    if known.tables is None:
        raise PreflightError(_unknown(declared))
    with _connect(declared, resources) as (origin, target):
        here = declared.read_origin(origin)
        there = read_schema(target, declared.target_keyspace)
        wanted, wrong = declared.want(here, known.names)
        plan = plan_schema(
            here,
            there,
            declared.target_keyspace,
            wanted,
            create=declared.create,
            replication=declared.replication,
            hosts=read_hosts(target),
            known_options=read_known_options(target),
        )
        objections = [*map(str, wrong), *plan.objections]
        if objections:
            raise PreflightError(f"nothing was created: {'; '.join(objections)}")
        return plan, create_schema(target, plan, retry_seconds=declared.retry_seconds)


def _unknown(declared: "KeyspaceMigration") -> str:
    return f"the tables of {declared.origin_name} are not known yet: run `{REFRESH}`"


@contextmanager
def _connect(
    declared: "KeyspaceMigration", resources: Any
) -> Iterator[tuple[Connection, Connection]]:
    stores: list[CassandraResource] = []
    for name in (declared.origin.store, declared.target.store):
        store = getattr(resources, name)
        if not isinstance(store, CassandraResource):
            raise DeclarationError(f"the store {name} is no Cassandra store")
        stores.append(store)
    with stores[0].connect() as origin, stores[1].connect() as target:
        yield origin, target


def _describe_created(plan: SchemaPlan, created: Created) -> dict[str, Any]:
    cql = "\n".join(f"{statement.cql};" for statement in created.made)
    metadata: dict[str, Any] = {
        "created": ", ".join(one.about for one in created.made) or "nothing, all of it is there",
        "things_created": len(created.made),
    }
    if cql:
        metadata["cql"] = dg.MetadataValue.md(f"```sql\n{cql}\n```")
    if created.told:
        metadata["differs_from_the_origin"] = dg.MetadataValue.json(created.told)
    if created.refused:
        metadata["refused"] = dg.MetadataValue.json(created.refused)
    return metadata


def build_schema_check(
    *, declared: "KeyspaceMigration", known: KnownTables
) -> dg.AssetChecksDefinition:
    """Build the check that compares both schemas, on its own or after the schema's asset."""

    @dg.asset_check(
        asset=declared.schema_key,
        name=SCHEMAS_MATCH,
        description=(
            "Keyspace, types and tables at the target are as declared, no table of the origin is "
            "new or gone, and every table can be copied. What does not move (indexes, views, "
            "functions, triggers) is a warning until the target has it."
        ),
        required_resource_keys={declared.origin.store, declared.target.store},
    )
    def schemas_match(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        try:
            with _connect(declared, context.resources) as (origin, target):
                return _judge_schemas(_compare(declared, known, origin, target))
        except MigrationError as error:
            raise dg.Failure(str(error), allow_retries=False) from None

    return schemas_match


def _compare(
    declared: "KeyspaceMigration", known: KnownTables, origin: Connection, target: Connection
) -> list[Difference]:
    if known.tables is None:
        return [Difference("error", "keyspace", _unknown(declared))]
    here = declared.read_origin(origin)
    there = read_schema(target, declared.target_keyspace)
    found = [
        Difference(
            "error",
            f"table {quote(name)}",
            f"it is new at the origin and not migrated yet: run `{REFRESH}`",
        )
        for name in declared.select(sorted(set(here.tables) - set(known.tables)))
    ]
    found += [
        Difference("error", f"table {quote(name)}", f"it is gone from the origin: run `{REFRESH}`")
        for name in (*known.names, *known.clashes)
        if name not in here.tables
    ]
    found += [
        Difference("error", f"table {quote(name)}", why) for name, why in known.clashes.items()
    ]
    wanted, wrong = declared.want(here, known.names)
    found += wrong + compare_schemas(here, there, wanted)
    # What only a plan knows: whether a codec fits, a key is filled, a column has a place to go.
    bad = {one.about for one in found if one.severity == "error"}
    if there is not None:
        for table in known.moved:
            migration = table.job.migration
            about = f"table {quote(migration.target.table.table)}"
            if about in bad or table.name not in here.tables:
                continue
            try:
                plan_between(migration, origin, target)
            except PreflightError as error:
                found.append(Difference("error", about, str(error)))
    return sorted(found, key=lambda one: ("error", "warning", "note").index(one.severity))


def _judge_schemas(found: Sequence[Difference]) -> dg.AssetCheckResult:
    by_severity = {
        severity: [one for one in found if one.severity == severity]
        for severity in ("error", "warning", "note")
    }
    errors, warnings = by_severity["error"], by_severity["warning"]
    grave = errors or warnings
    told = "; ".join(map(str, grave[:_MAX_TOLD]))
    more = f" and {len(grave) - _MAX_TOLD} more" if len(grave) > _MAX_TOLD else ""
    notes = len(by_severity["note"])
    alike = "The schemas match" + (
        f", but for {notes} options that lose nothing." if notes else "."
    )
    metadata: dict[str, Any] = {
        "errors": len(errors),
        "warnings": len(warnings),
        "notes": notes,
    }
    if found:
        rows = [(one.severity, one.about, one.text) for one in found]
        metadata["differences"] = dg.MetadataValue.md(write_table(("", "what", "difference"), rows))
    return dg.AssetCheckResult(
        check_name=SCHEMAS_MATCH,
        passed=not grave,
        severity=dg.AssetCheckSeverity.ERROR if errors else dg.AssetCheckSeverity.WARN,
        description=f"{told}{more}" if grave else alike,
        metadata=metadata,
    )


# -- the gate ----------------------------------------------------------------------------------


def build_cutover_asset(
    *, declared: "KeyspaceMigration", known: KnownTables
) -> dg.AssetsDefinition:
    """Build the gate: green only when every check of every table is."""
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
            f"The gate before `{quote(declared.target_keyspace)}` in `{declared.target.store}` "
            "takes over: green only if the schemas match and every check of every table is green "
            "and newer than its last copy. It compares the schemas anew; rows it does not read."
        ),
        required_resource_keys={declared.origin.store, declared.target.store},
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
            raise dg.Failure(said, metadata=metadata, allow_retries=False)
        yield dg.MaterializeResult(metadata=metadata)

    return cutover


@dataclass
class _Beside:
    """What a green gate does not vouch for: texts with the tables of which they are true."""

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
    context: dg.AssetExecutionContext, declared: "KeyspaceMigration", known: KnownTables
) -> tuple[dict[str, list[str]], _Beside, dg.AssetCheckResult]:
    """Ask the servers and the event log; give what is not green, by table, and what is untold."""
    problems: dict[str, list[str]] = {}
    beside = _Beside(left_out=[name for name in known.tables or () if name not in known.names])
    with _connect(declared, context.resources) as (origin, target):
        schemas = _judge_schemas(_compare(declared, known, origin, target))
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
        rows = sum(int(state.verdict.get("origin_rows", 0)) for state in states)
        beside.note(table.name, describe_scope(plan), rows)
        return []
    return [
        f"{open_ranges} of {len(states)} ranges are not copied and compared as the table and its "
        "declaration are now"
    ]


def _verdict(
    declared: "KeyspaceMigration",
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
            f"{declared.target_name} is ready for the cut-over: {beside.schemas}, and all {checks} "
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


def build_cutover_sensor(
    *, declared: "KeyspaceMigration", known: KnownTables
) -> dg.SensorDefinition:
    """Build the sensor that turns the gate red when a table is copied again or a check is red."""
    gate = dg.AssetCheckKey(declared.cutover_key, READY)
    schemas = dg.AssetCheckKey(declared.schema_key, SCHEMAS_MATCH)

    @dg.sensor(
        name=f"{step_name(declared.cutover_key)}_sensor",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Closes {declared.cutover_key.to_user_string()} again when what it says is "
        "no longer so; it opens nothing.",
    )
    def closes_the_gate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """Look at the event log, and at no database."""
        if judge_check(context.instance, gate, 0.0):
            return dg.SkipReason("The gate is not green.")
        problems = {
            table.name: reasons
            for table in known.moved
            if (reasons := judge_checks(context.instance, table))
        }
        if judge_check(context.instance, schemas, 0.0):
            problems["schema"] = [f"{SCHEMAS_MATCH} is red"]
        if not problems:
            return dg.SkipReason("The gate is green, and rightly.")
        passed, said, metadata = _verdict(declared, known, problems, _Beside())
        _report(
            context.instance,
            declared.cutover_key,
            dg.AssetCheckResult(
                check_name=READY, passed=passed, description=said, metadata=metadata
            ),
        )
        return dg.SkipReason(said)

    return closes_the_gate


def step_name(key: dg.AssetKey) -> str:
    """Name a step: letters, digits and underscores only."""
    return re.sub(r"[^A-Za-z0-9_]", "_", "__".join(key.path))
