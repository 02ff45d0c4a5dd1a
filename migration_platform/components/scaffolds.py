"""What `dg scaffold defs` writes: attributes to be filled in, not an empty file."""

from typing import Any

import dagster as dg

STORES: dict[str, Any] = {
    "cassandra": {
        "my_origin": {
            "contact_points": ["127.0.0.1"],
            "port": 9042,
            "username": "reader",
            "password": {"env": "MY_ORIGIN_PASSWORD"},
        },
        "my_target": {"contact_points": ["127.0.0.1"], "port": 9042},
    }
}
TABLE_MIGRATION: dict[str, Any] = {
    "origin": {"store": "my_origin", "table": "my_keyspace.my_table"},
    "target": {"store": "my_target", "table": "my_keyspace.my_table"},
}
KEYSPACE_MIGRATION: dict[str, Any] = {
    "origin": {"store": "my_origin", "keyspace": "my_keyspace"},
    "target": {"store": "my_target"},
    "include": ["*"],
}
GUARDRAIL_CHECK: dict[str, Any] = {
    "origin": {"store": "my_origin", "table": "my_keyspace.my_table"},
    "max_column_kb": 1000,
}

TENANT_MOVE: dict[str, Any] = {
    "store": "my_origin",
    "origin_tenant": "id of the organisation that is left",
    "target_tenant": "id of the organisation that is joined",
    "organisations": "my_keyspace.organisation",
    "steps": {
        "users": {
            "table": "my_keyspace.user",
            "select": "rootorgid",
            "change": {"rootorgid": {"replace": "value"}},
        }
    },
}


class StoresScaffolder(dg.Scaffolder):
    """Writes two clusters, one of them with a password."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the component's file."""
        dg.scaffold_component(request, STORES)


class TableMigrationScaffolder(dg.Scaffolder):
    """Writes the smallest whole migration."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the component's file."""
        dg.scaffold_component(request, TABLE_MIGRATION)


class KeyspaceMigrationScaffolder(dg.Scaffolder):
    """Writes the migration of all tables of a keyspace."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the component's file."""
        dg.scaffold_component(request, KEYSPACE_MIGRATION)


class GuardrailCheckScaffolder(dg.Scaffolder):
    """Writes the check of one table."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the component's file."""
        dg.scaffold_component(request, GUARDRAIL_CHECK)


class TenantMoveScaffolder(dg.Scaffolder):
    """Writes a move of one table."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the component's file."""
        dg.scaffold_component(request, TENANT_MOVE)
