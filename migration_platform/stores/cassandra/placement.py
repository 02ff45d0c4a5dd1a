"""What a cluster cannot do with a table, whatever its rows: found before anything is read.

A view takes no writes, a node's own tables differ from node to node, and a consistency level may
take more replicas than a keyspace has.
"""

# The driver carries no types.
# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportOptionalSubscript=false, reportOptionalIterable=false

from collections.abc import Mapping

from cassandra.metadata import LocalStrategy, NetworkTopologyStrategy, SimpleStrategy
from cassandra.policies import HostDistance

from migration_platform.cql.names import quote
from migration_platform.declaration.migration import Endpoint
from migration_platform.plan.model import Table
from migration_platform.stores.cassandra.connection import Connection

_FIXED = {"ONE": 1, "LOCAL_ONE": 1, "TWO": 2, "THREE": 3}


def validate_place(
    connection: Connection, table: Table, endpoint: Endpoint, *, is_target: bool
) -> list[str]:
    """Refuse a table that cannot be an origin or a target, or not at the consistency declared."""
    problems = validate_view(table) if is_target else []
    if endpoint.finish_transactions and table.view_of is not None:
        problems.append(
            f"{table.name} is a materialized view, and lightweight transactions are those of its "
            f"base table {table.view_of}; name that as the origin, or leave out "
            "origin.finish_transactions"
        )
    keyspace = connection.cluster.metadata.keyspaces[table.name.keyspace]
    if keyspace.virtual or isinstance(keyspace.replication_strategy, LocalStrategy):
        problems.append(
            f"{table.name} is a table that each node keeps for itself: no two have the same rows, "
            "and a write would change the node's own state"
        )
    elif table.is_murmur3:
        side = "target" if is_target else "origin"
        problems += _validate_level(connection, table, endpoint, side)
    return problems


def validate_view(table: Table) -> list[str]:
    """Refuse to write to a view."""
    if table.view_of is None:
        return []
    return [
        f"{table.name} is a materialized view, which takes no writes: the server fills it from its "
        f"base table {table.view_of}; name that instead"
    ]


def _validate_level(
    connection: Connection, table: Table, endpoint: Endpoint, side: str
) -> list[str]:
    """Refuse a consistency level that takes more replicas than there can be."""
    hosts = connection.cluster.metadata.all_hosts()
    strategy = connection.cluster.metadata.keyspaces[table.name.keyspace].replication_strategy
    if isinstance(strategy, SimpleStrategy):
        # It knows no datacenters: a local quorum is one of all replicas.
        local, factors, nodes = "", {"": strategy.replication_factor}, {"": len(hosts)}
    elif isinstance(strategy, NetworkTopologyStrategy):
        policy = connection.cluster.profile_manager.default.load_balancing_policy
        near = {host.datacenter for host in hosts if policy.distance(host) == HostDistance.LOCAL}
        if len(near) != 1:
            return []
        local = near.pop()
        factors = strategy.dc_replication_factors
        nodes = {dc: sum(host.datacenter == dc for host in hosts) for dc in factors}
    else:
        return []
    # A replica that has no node to live on answers no more than one that was never asked for.
    there = {dc: min(factor, nodes[dc]) for dc, factor in factors.items()}
    for where, needed, found in _needs(endpoint.consistency, local, factors, there):
        if needed > found:
            place = f" in the datacenter {where}" if where else ""
            return [
                f"{side}.consistency {endpoint.consistency} takes {needed} replicas{place}, and "
                f"the keyspace {quote(table.name.keyspace)} at {endpoint.store} has {found}"
                f"{' there' if place else ''} ({_tell(factors, nodes)}); choose another level, or "
                "alter the keyspace's replication and repair it"
            ]
    return []


def _needs(
    level: str, local: str, factors: Mapping[str, int], there: Mapping[str, int]
) -> list[tuple[str, int, int]]:
    """Give where replicas must answer, how many of them, and how many there can be."""
    total, can = sum(factors.values()), sum(there.values())
    if level in ("LOCAL_QUORUM", "LOCAL_ONE"):
        needed = factors.get(local, 0) // 2 + 1 if level == "LOCAL_QUORUM" else 1
        return [(local, needed, there.get(local, 0))]
    if level == "EACH_QUORUM":
        return [(dc, factor // 2 + 1, there[dc]) for dc, factor in factors.items() if factor]
    needed = _FIXED.get(level) or (max(1, total) if level == "ALL" else total // 2 + 1)
    return [("", needed, can)]


def _tell(factors: Mapping[str, int], nodes: Mapping[str, int]) -> str:
    told = [
        f"{f'{dc}: ' if dc else ''}replication factor {factor}, nodes {nodes[dc]}"
        for dc, factor in factors.items()
    ]
    return ", ".join(told) or "no datacenter has any"
