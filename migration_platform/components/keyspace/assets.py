"""What stands around the tables of a keyspace: its schema, the cutover, and its sensor."""

import dagster as dg

from migration_platform.components.keyspace.cutover_asset import (
    build_cutover_asset,
    build_cutover_sensor,
)
from migration_platform.components.keyspace.declared import DeclaredKeyspace, KnownTables
from migration_platform.components.keyspace.schema_asset import (
    build_schema_asset,
    build_schema_check,
)


def build_keyspace_assets(declared: DeclaredKeyspace, known: KnownTables) -> dg.Definitions:
    """Build what stands around the tables: schema, its check, the cutover, and its sensor."""
    return dg.Definitions(
        assets=[
            build_schema_asset(declared=declared, known=known),
            build_cutover_asset(declared=declared, known=known),
        ],
        asset_checks=[build_schema_check(declared=declared, known=known)],
        sensors=[build_cutover_sensor(declared=declared, known=known)],
    )
