"""The table of kinds of stores: the one place that names them all.

A kind is imported when a store of it is first used: a process that copies from Cassandra to
Cassandra loads nothing of AWS. A kind from outside the package registers itself where its
declaration is defined, so that every process which unpickles one knows it.
"""

from importlib import import_module
from typing import Any

from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.fidelity import Fidelity
from migration_platform.plan.model import Plan
from migration_platform.stores.interface import Kind, Origin, Target
from migration_platform.stores.planning import make_plan
from migration_platform.stores.work import OpenStores

_MODULES = {
    "cassandra": "migration_platform.stores.cassandra.kind",
    "dynamodb": "migration_platform.stores.dynamodb.kind",
    "postgres": "migration_platform.stores.postgres.kind",
}
_LOADED: dict[str, Kind] = {}
BUILT_IN = tuple(_MODULES)
"""The kinds of this package."""


def register(kind: Kind) -> None:
    """Add a kind of store to those that the engine can read or write.

    Raises:
        ValueError: another kind has that name.
    """
    if kind.name in _MODULES or _LOADED.setdefault(kind.name, kind) is not kind:
        raise ValueError(f"there is a kind of store called {kind.name} already")


def kind_of(name: str) -> Kind:
    """Give a kind of store.

    Raises:
        DeclarationError: there is none of that name.
    """
    if name not in _LOADED:
        if name not in _MODULES:
            valid = ", ".join(dict.fromkeys((*_MODULES, *_LOADED)))
            raise DeclarationError(f"there is no kind of store called {name}; valid are {valid}")
        _LOADED[name] = import_module(_MODULES[name]).KIND
    return _LOADED[name]


def _all() -> list[Kind]:
    return [kind_of(name) for name in dict.fromkeys((*_MODULES, *_LOADED))]


def origins() -> tuple[str, ...]:
    """Name the kinds that can be read."""
    return tuple(kind.name for kind in _all() if kind.open_origin)


def targets() -> tuple[str, ...]:
    """Name the kinds that can be written."""
    return tuple(kind.name for kind in _all() if kind.open_target)


def open_origin(migration: Migration, connection: Any) -> Origin:
    """Give the origin that an open connection leads to."""
    open_it = kind_of(migration.origin.kind).open_origin
    assert open_it is not None
    return open_it(connection)


def open_target(migration: Migration, connection: Any) -> Target:
    """Give the target that an open connection leads to."""
    open_it = kind_of(migration.target.kind).open_target
    assert open_it is not None
    return open_it(connection)


def plan_between(migration: Migration, origin: Any, target: Any) -> Plan:
    """Hold a migration against the tables that two open connections lead to.

    Raises:
        PreflightError: one message with every reason why it cannot run.
    """
    return make_plan(migration, open_origin(migration, origin), open_target(migration, target))


def open_stores(
    plan: Plan,
    origin: Any,
    target: Any,
    origin_budget: RateBudget,
    target_budget: RateBudget,
    target_read_budget: RateBudget,
) -> OpenStores:
    """Give what a process of a run holds, around the open connections of both sides."""
    return OpenStores(
        plan,
        open_origin(plan.migration, origin),
        open_target(plan.migration, target),
        origin_budget,
        target_budget,
        target_read_budget,
    )


def describe_fidelity(plan: Plan) -> tuple[Fidelity, ...]:
    """Say of every column how it arrives, its values and its times."""
    return kind_of(plan.migration.target.kind).describe_fidelity(plan)
