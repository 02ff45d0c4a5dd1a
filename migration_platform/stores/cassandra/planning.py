"""What only a Cassandra can say of a migration: its tables, and whether it takes a condition."""

from migration_platform.cql.names import quote
from migration_platform.declaration.migration import Migration
from migration_platform.errors import MigrationError, PreflightError
from migration_platform.plan.model import Plan, Table
from migration_platform.plan.preflight import _written, plan_tables
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.masks import object_to_masks
from migration_platform.stores.cassandra.placement import object_to_place
from migration_platform.stores.cassandra.tables import describe_table


def build_plan(migration: Migration, origin: Connection, target: Connection) -> Plan:
    """Hold a migration between Cassandra tables against those that are really there.

    Raises:
        PreflightError: one message with every reason why it cannot run.
    """
    objections: list[str] = []
    misplaced: list[str] = []
    tables: list[Table] = []
    plan: Plan | None = None
    for connection, endpoint in ((origin, migration.origin), (target, migration.target)):
        is_target = endpoint is migration.target
        try:
            table = describe_table(connection, endpoint.table)
            misplaced += object_to_place(connection, table, endpoint, is_target=is_target)
            tables.append(table)
        except PreflightError as error:
            objections.append(str(error))
    if tables and tables[0].name == migration.origin.table:
        objections += object_to_ring(migration, tables[0])
    if not objections:
        plan, objections = plan_tables(migration, *tables)
        if plan is not None:
            objections += object_to_where(plan, origin)
            objections += object_to_hidden(plan, origin)
            objections += object_to_masks(
                target, plan.target.name, migration.target.store, _written(plan)
            )
        # A restored snapshot may share the table's id with its source, but never the hosts' ids.
        if tables[0].table_id == tables[1].table_id and origin.host_ids & target.host_ids:
            objections.append(
                f"origin and target are one table, {tables[0].name}: the stores "
                f"{migration.origin.store} and {migration.target.store} are the same cluster"
            )
    objections = [*misplaced, *objections]
    if objections or plan is None:
        raise PreflightError(f"{migration.name} cannot be migrated: " + "; ".join(objections))
    return plan


def object_to_hidden(plan: Plan, origin: Connection) -> list[str]:
    """Refuse masked columns of the origin that a copy, or the choice of its rows, looks at."""
    chosen = plan.migration.filter
    read = {source.origin for layer in plan.layers for source in layer.sources}
    read |= {*plan.origin.primary_key, *([chosen.column.name] if chosen.column else [])}
    return object_to_masks(origin, plan.origin.name, plan.migration.origin.store, read)


def object_to_ring(migration: Migration, origin: Table) -> list[str]:
    """Refuse an origin of which no token range can be told."""
    if origin.is_murmur3:
        return []
    return [
        f"the server of {migration.origin.store} hashes keys otherwise than Murmur3, so that "
        "no token range of it can be told; such a server, YugabyteDB for instance, can be a "
        "target only"
    ]


def object_to_where(plan: Plan, connection: Connection) -> list[str]:
    """Let the server look at a user's condition, if there is one, before anything is written."""
    table, where = plan.origin, plan.migration.filter.where
    if not where:
        return []
    key = ", ".join(map(quote, table.partition_key))
    objections = []
    for layer in plan.layers:
        statics = layer.name == "statics"
        names = [s.origin for s in layer.sources if s.is_static] if statics else []
        selected = ", ".join((key, *map(quote, names)))
        try:
            connection.prepare(
                f"SELECT {'DISTINCT ' if statics else ''}{selected} FROM {table.name} "  # noqa: S608
                f"WHERE token({key}) > ? AND token({key}) <= ? AND {where} ALLOW FILTERING"
            )
        except MigrationError as error:
            way_out = (
                f"; static cells can be chosen by the partition key and by static columns only: "
                f"skip {', '.join(map(quote, names))} with columns.skip, or change the condition"
                if statics
                else ""
            )
            said = str(error).removeprefix("cannot prepare a statement: ")
            objections.append(f"filter.where is refused: {said}{way_out}")
            break
    return objections
