"""The asset that creates what a target's schema lacks, and the check that compares both schemas."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from migration_platform.components.failures import RunFailure
from migration_platform.components.keyspace.declared import REFRESH, DeclaredKeyspace, KnownTables
from migration_platform.components.table.run_stores import open_store
from migration_platform.cql.names import quote
from migration_platform.errors import DeclarationError, MigrationError, PreflightError
from migration_platform.plan.fidelity import write_table
from migration_platform.resources import CassandraResource
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.schema import (
    read_hosts,
    read_known_options,
    read_schema,
)
from migration_platform.stores.cassandra.schema_creation import (
    Created,
    SchemaPlan,
    create_schema,
    plan_schema,
)
from migration_platform.stores.cassandra.schema_differences import Difference, compare_schemas
from migration_platform.stores.kinds import plan_between

SCHEMAS_MATCH = "schemas_match"
_MAX_TOLD = 5


def build_schema_asset(*, declared: DeclaredKeyspace, known: KnownTables) -> dg.AssetsDefinition:
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
            plan, created = _create(declared, known, context)
        except MigrationError as error:
            raise RunFailure(str(error)) from None
        for statement in created.made:
            context.log.info(f"Created {statement.about}: {statement.cql}")
        metadata = _describe_created(plan, created)
        if created.refused:
            raise RunFailure(
                f"not all of {there} could be created: {'; '.join(created.refused)}",
                metadata=metadata,
            )
        return dg.MaterializeResult(metadata=metadata)

    return schema


def _create(
    declared: DeclaredKeyspace, known: KnownTables, context: Any
) -> tuple[SchemaPlan, Created]:
    """Create what is missing, or nothing if not all of it can be.

    Raises:
        PreflightError: what is missing cannot be created; nothing was.
        MigrationError: a server did not answer.
    """
    if known.tables is None:
        raise PreflightError(_unknown(declared))
    with connect_both(declared, context) as (origin, target):
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
        problems = [*map(str, wrong), *plan.problems]
        if problems:
            raise PreflightError(f"nothing was created: {'; '.join(problems)}")
        return plan, create_schema(target, plan, retry_seconds=declared.retry_seconds)


def _unknown(declared: DeclaredKeyspace) -> str:
    return f"the tables of {declared.origin_name} are not known yet: run `{REFRESH}`"


@contextmanager
def connect_both(
    declared: DeclaredKeyspace, context: Any
) -> Iterator[tuple[Connection, Connection]]:
    """Connect to the origin and to the target, as patiently as is declared.

    Raises:
        DeclarationError: one of them is no Cassandra store.
        MigrationError: a server did not answer.
    """
    stores: list[CassandraResource] = []
    for name in (declared.origin.store, declared.target.store):
        store = getattr(context.resources, name)
        if not isinstance(store, CassandraResource):
            raise DeclarationError(f"the store {name} is no Cassandra store")
        stores.append(store)
    with (
        open_store(context, stores[0].connect, declared.retry_seconds) as origin,
        open_store(context, stores[1].connect, declared.retry_seconds) as target,
    ):
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
    *, declared: DeclaredKeyspace, known: KnownTables
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
            with connect_both(declared, context) as (origin, target):
                return judge_schemas(compare_keyspace(declared, known, origin, target))
        except MigrationError as error:
            raise RunFailure(str(error)) from None

    return schemas_match


def compare_keyspace(
    declared: DeclaredKeyspace, known: KnownTables, origin: Connection, target: Connection
) -> list[Difference]:
    """Tell what differs in schemas and lists of tables, and what keeps a table from moving."""
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


def judge_schemas(found: Sequence[Difference]) -> dg.AssetCheckResult:
    """Say whether the schemas match: an error or a warning keeps them from it, a note does not."""
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
    if cql := "\n".join(one.cql for one in found if one.cql):
        metadata["to_create_at_the_target"] = dg.MetadataValue.md(f"```sql\n{cql}\n```")
    return dg.AssetCheckResult(
        check_name=SCHEMAS_MATCH,
        passed=not grave,
        severity=dg.AssetCheckSeverity.ERROR if errors else dg.AssetCheckSeverity.WARN,
        description=f"{told}{more}" if grave else alike,
        metadata=metadata,
    )
