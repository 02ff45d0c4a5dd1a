"""A synchronisation that feeds its own origin is refused: its changes would go round for ever."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import dagster as dg

from migration_platform.components.declared import Declared, whole
from migration_platform.components.stores import same_stores
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError

_Node = TypeVar("_Node")
_Name = TypeVar("_Name")
Place = tuple[str, TableName]
"""A store by its name, and a table in it."""


@runtime_checkable
class Follows(Protocol):
    """A declaration of which some or all tables are kept in step with their origin."""

    def find_followed(self, store: str, table: TableName) -> Place | None:
        """Give where a synchronisation takes a table, None if nowhere."""
        ...


def refuse_circle(tree: dg.ComponentTree, migration: Migration, place: str) -> None:
    """Refuse a synchronisation whose changes would come back to its origin.

    Stores with other names that are declared to be the same servers count as one.

    Raises:
        DeclarationError: there is a way back; the files on it are named.
    """
    if migration.sync is None:
        return
    same = same_stores(tree)
    origin = (migration.origin.store, migration.origin.table)
    target = (migration.target.store, migration.target.table)
    if _one(same, origin, target):
        raise DeclarationError(
            f"sync would feed its own origin: {origin[1]} in {origin[0]} and {target[1]} in "
            f"{target[0]} are one table, for both stores are the same servers; name another table "
            "or another store"
        )
    way = find_way(target, origin, partial(_leaving, tree, same), partial(_one, same))
    if way is not None:
        files = " and ".join(dict.fromkeys(each for each in way if each != place)) or "this file"
        raise DeclarationError(
            f"sync would feed its own origin: what it writes to {target[1]} in {target[0]} comes "
            f"back to {origin[1]} in {origin[0]} by the sync of {files}, so that changes would go "
            "round for ever; remove sync from one of them"
        )


def find_way(
    here: _Node,
    end: _Node,
    leaving: Callable[[_Node], Iterable[tuple[_Name, _Node]]],
    are_one: Callable[[_Node, _Node], bool],
    seen: tuple[_Node, ...] = (),
) -> list[_Name] | None:
    """Give the names of the steps that lead from one place to another; None if none do.

    `leaving` gives the steps from a place, each with its name and where it leads to.
    """
    seen = (*seen, here)
    for name, there in leaving(here):
        if are_one(there, end):
            return [name]
        if not any(are_one(there, known) for known in seen):
            further = find_way(there, end, leaving, are_one, seen)
            if further is not None:
                return [name, *further]
    return None


def _leaving(
    tree: dg.ComponentTree, same: dict[str, str], here: Place
) -> Iterator[tuple[str, Place]]:
    aliases = {here[0], *(name for name in same if same[name] == same.get(here[0]))}
    declared: list[Any] = [each for each in whole(tree, Declared) if isinstance(each, Follows)]
    for each in declared:
        for store in sorted(aliases):
            there = each.find_followed(store, here[1])
            if there is not None:
                yield each.place, there


def _one(same: dict[str, str], here: Place, there: Place) -> bool:
    stores = [same.get(store, store) for store, _ in (here, there)]
    return stores[0] == stores[1] and here[1] == there[1]
