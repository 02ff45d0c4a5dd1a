"""Moves Cassandra data as Dagster assets partitioned by token range, and proves that it arrived.

The component types are exported here, because their YAML name is `migration_platform.<class>`.
They load on first use: worker processes import this package too, and need no Dagster.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from migration_platform.components.keyspace.migration import KeyspaceMigration
    from migration_platform.components.stores import Stores
    from migration_platform.components.table.guardrail_check import GuardrailCheck
    from migration_platform.components.table.migration import TableMigration
    from migration_platform.components.tenant.move import TenantMove

_COMPONENTS = {
    "GuardrailCheck": "migration_platform.components.table.guardrail_check",
    "KeyspaceMigration": "migration_platform.components.keyspace.migration",
    "Stores": "migration_platform.components.stores",
    "TableMigration": "migration_platform.components.table.migration",
    "TenantMove": "migration_platform.components.tenant.move",
}
__all__ = ["GuardrailCheck", "KeyspaceMigration", "Stores", "TableMigration", "TenantMove"]


def __getattr__(name: str) -> Any:
    if name in _COMPONENTS:
        return getattr(import_module(_COMPONENTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_COMPONENTS])
