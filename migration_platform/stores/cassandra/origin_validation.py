"""What a Cassandra origin would refuse or hide: foreign hashes, masked columns, conditions."""

from migration_platform.cql.names import quote
from migration_platform.declaration.migration import Endpoint
from migration_platform.errors import MigrationError
from migration_platform.plan.model import Plan, Table
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.masks import validate_masks


def validate_masked_columns(plan: Plan, origin: Connection) -> list[str]:
    """Refuse masked columns of the origin that a copy, or the choice of its rows, looks at."""
    chosen = plan.migration.filter
    read = {source.origin for layer in plan.layers for source in layer.sources}
    read |= {*plan.origin.primary_key, *([chosen.column.name] if chosen.column else [])}
    return validate_masks(origin, plan.origin.name, plan.migration.origin.store, read)


def validate_ring(endpoint: Endpoint, origin: Table) -> list[str]:
    """Refuse an origin of which no token range can be told."""
    if origin.is_murmur3:
        return []
    return [
        f"the server of {endpoint.store} hashes keys otherwise than Murmur3, so that "
        "no token range of it can be told; such a server, YugabyteDB for instance, can be a "
        "target only"
    ]


def validate_where(plan: Plan, connection: Connection) -> list[str]:
    """Let the server look at a user's condition, if there is one, before anything is written."""
    table, where = plan.origin, plan.migration.filter.where
    if not where:
        return []
    key = ", ".join(map(quote, table.partition_key))
    problems = []
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
            problems.append(f"filter.where is refused: {said}{way_out}")
            break
    return problems
