"""Creates what is missing of a keyspace: itself, user-defined types, tables.

Nothing that exists is ever altered or dropped: what differs is told (`schema_differences.py`).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from migration_platform.cql.names import quote
from migration_platform.errors import PermanentError
from migration_platform.pacing.retries import ask_patiently
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.cassandra.schema import KeyspaceSchema, TableSchema, write_literal
from migration_platform.stores.cassandra.wanted_schema import Wanted, types_in_order

CREATABLE = ("keyspace", "types", "tables")
DDL_TIMEOUT_SECONDS = 60.0
"""A change of the schema waits until every node has it."""
NETWORK_TOPOLOGY = "NetworkTopologyStrategy"

_KEPT_ALWAYS = ("default_time_to_live",)
"""Options that every server knows, and that decide what becomes of rows."""


@dataclass(frozen=True)
class Statement:
    """CQL that creates one thing; `plain` is the same without options a server may not know."""

    about: str
    cql: str
    plain: str | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class SchemaPlan:
    """What will be created, in order, and why it cannot be."""

    statements: tuple[Statement, ...]
    problems: tuple[str, ...]


@dataclass
class Created:
    """What was created, with the CQL that did it, what it lacks, and what the server refused."""

    made: list[Statement] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def plan_schema(
    origin: KeyspaceSchema,
    target: KeyspaceSchema | None,
    keyspace: str,
    wanted: Sequence[Wanted],
    *,
    create: Collection[str],
    replication: Mapping[str, Any] | None,
    hosts: Mapping[str, int],
    known_options: Collection[str],
) -> SchemaPlan:
    """Say what has to be created at the target, and what keeps it from being created.

    `hosts` are the target's hosts in each of its datacenters, `known_options` what its tables know.
    """
    statements: list[Statement] = []
    problems: list[str] = []
    if target is None and "keyspace" in create:
        chosen = dict(replication or origin.replication)
        problems += _validate_replication(keyspace, chosen, hosts, declared=bool(replication))
        statements.append(_keyspace_statement(keyspace, chosen, origin.durable_writes))
    elif target is None:
        problems.append(
            f"there is no keyspace {quote(keyspace)} at the target, and `create` does not name "
            "keyspace: create it, or add it there"
        )
    there = target.tables if target else {}
    missing = [one for one in wanted if one.target not in there]
    tables = [one.expected for one in missing if one.expected]
    if "types" in create:
        for name in types_in_order(origin.types, tables):
            if target is None or name not in target.types:
                statements.append(_type_statement(keyspace, name, origin.types[name]))
    if "tables" in create:
        for one in missing:
            if one.expected is None:
                problems.append(
                    f"table {quote(one.target)} cannot be created, for {one.because} decides its "
                    "columns: create it at the target"
                )
            elif one.expected.is_compact:
                problems.append(
                    f"table {quote(one.target)} cannot be created, for {quote(one.origin)} has "
                    "COMPACT STORAGE: create it at the target, or exclude it"
                )
            else:
                statements.append(_table_statement(keyspace, one.expected, known_options))
    return SchemaPlan(tuple(statements), tuple(problems))


def _validate_replication(
    keyspace: str, chosen: Mapping[str, Any], hosts: Mapping[str, int], *, declared: bool
) -> list[str]:
    says = (
        "replication" if declared else f"the origin's replication, {write_literal(dict(chosen))},"
    )
    way_out = (
        f"; the target has {', '.join(f'{dc} with {n} hosts' for dc, n in sorted(hosts.items()))}: "
        "declare `replication`, such as {class: NetworkTopologyStrategy, "
        f"{min(hosts, default='dc1')}: {min(3, max(hosts.values(), default=1))}}}"
    )
    if not chosen.get("class"):
        return [f"{says} names no class{way_out}"]
    factors = {name: value for name, value in chosen.items() if name != "class"}
    if chosen["class"] == NETWORK_TOPOLOGY:
        unknown = [name for name in factors if name not in hosts and name != "replication_factor"]
        if unknown:
            return [f"{says} names datacenters of another cluster: {', '.join(unknown)}{way_out}"]
        room = {name: hosts.get(name, min(hosts.values(), default=1)) for name in factors}
    else:
        room = dict.fromkeys(factors, sum(hosts.values()))
    # A transient replica is written 3/1: three of which one is transient.
    short = [
        name
        for name, value in factors.items()
        if (found := re.match(r"\d+", str(value))) and int(found[0]) > room[name]
    ]
    if short:
        return [f"{says} wants more replicas than there are hosts for {keyspace}{way_out}"]
    return []


def _keyspace_statement(
    keyspace: str, replication: Mapping[str, Any], durable_writes: bool
) -> Statement:
    return Statement(
        f"keyspace {quote(keyspace)}",
        f"CREATE KEYSPACE IF NOT EXISTS {quote(keyspace)} WITH replication = "
        f"{write_literal({k: str(v) for k, v in replication.items()})} "
        f"AND durable_writes = {write_literal(durable_writes)}",
    )


def _type_statement(keyspace: str, name: str, fields: Iterable[tuple[str, str]]) -> Statement:
    shown = ", ".join(f"{quote(field_name)} {cql_type}" for field_name, cql_type in fields)
    return Statement(
        f"type {quote(name)}",
        f"CREATE TYPE IF NOT EXISTS {quote(keyspace)}.{quote(name)} ({shown})",
    )


def _table_statement(
    keyspace: str, table: TableSchema, known_options: Collection[str]
) -> Statement:
    known = {n: v for n, v in table.options.items() if n in known_options or n in _KEPT_ALWAYS}
    plain = {name: value for name, value in table.options.items() if name in _KEPT_ALWAYS}
    return Statement(
        f"table {quote(table.name)}",
        table_cql(keyspace, table, known),
        table_cql(keyspace, table, plain),
        left_out=tuple(name for name in table.options if name not in known),
    )


def table_cql(keyspace: str, table: TableSchema, options: Mapping[str, Any]) -> str:
    """Write the CREATE TABLE of a table with the given options."""
    columns = [
        f"{quote(column.name)} {column.cql_type}" + " static" * (column.kind == "static")
        for column in table.columns
    ]
    partition = ", ".join(quote(c.name) for c in table.of_kind("partition_key"))
    clustering = table.of_kind("clustering")
    key = ", ".join([f"({partition})", *(quote(c.name) for c in clustering)])
    given = [f"{name} = {write_literal(value)}" for name, value in sorted(options.items())]
    if any(column.descending for column in clustering):
        order = ", ".join(
            f"{quote(column.name)} {'DESC' if column.descending else 'ASC'}"
            for column in clustering
        )
        given.insert(0, f"CLUSTERING ORDER BY ({order})")
    return (
        f"CREATE TABLE IF NOT EXISTS {quote(keyspace)}.{quote(table.name)} "
        f"({', '.join(columns)}, PRIMARY KEY ({key}))"
        + (f" WITH {' AND '.join(given)}" if given else "")
    )


def create_schema(connection: Connection, plan: SchemaPlan, *, retry_seconds: float) -> Created:
    """Create what a plan lists; what the server refuses keeps the rest from nothing.

    A table whose options the server refuses is made without them, and that is told.

    Raises:
        TransientError: the server did not answer; what was made stays and is found next time.
    """
    created = Created()
    for statement in plan.statements:
        try:
            _execute(connection, statement.cql, retry_seconds)
        except PermanentError as error:
            if statement.plain is None or statement.plain == statement.cql:
                created.refused.append(f"{statement.about}: {error}")
                continue
            try:
                _execute(connection, statement.plain, retry_seconds)
            except PermanentError as plain_error:
                created.refused.append(f"{statement.about}: {plain_error}")
                continue
            created.made.append(replace(statement, cql=statement.plain))
            created.told.append(
                f"{statement.about} has the server's own options, for it refused the origin's: "
                f"{error}"
            )
            continue
        created.made.append(statement)
        if statement.left_out:
            created.told.append(
                f"{statement.about} lacks options that the server does not know: "
                f"{', '.join(statement.left_out)}"
            )
    return created


def _execute(connection: Connection, cql: str, retry_seconds: float) -> None:
    ask_patiently(
        lambda: connection.session.execute(cql, timeout=DDL_TIMEOUT_SECONDS), retry_seconds
    )
