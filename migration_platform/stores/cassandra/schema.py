"""Whole keyspaces: read a schema, create what is missing of it elsewhere, tell what differs.

Schemas are read from the servers' own `system_schema`, whose words for types and options are CQL
again. Nothing that exists is ever altered or dropped: what differs is told.
"""

# The driver carries no types: what is inferred from its attributes' first values is wrong.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from migration_platform.cql.names import quote
from migration_platform.errors import PermanentError, PreflightError
from migration_platform.pacing.retries import ask_patiently
from migration_platform.stores.cassandra.connection import MURMUR3, Connection

CREATABLE = ("keyspace", "types", "tables")
DDL_TIMEOUT_SECONDS = 60.0
"""A change of the schema waits until every node has it."""
NETWORK_TOPOLOGY = "NetworkTopologyStrategy"

_NO_OPTIONS = frozenset(
    # The first three identify the row; flags and extensions no CQL can set; the last two are gone
    # since Cassandra 4.0, though their columns are still there.
    "keyspace_name table_name id flags extensions dclocal_read_repair_chance read_repair_chance".split()  # noqa: E501, SIM905
)
_KEPT_ALWAYS = ("default_time_to_live",)
"""Options that every server knows, and that decide what becomes of rows."""
_GRAVE_OPTIONS = {"default_time_to_live": "error", "gc_grace_seconds": "warning", "cdc": "warning"}
_KIND_ORDER = {"partition_key": 0, "clustering": 1, "static": 2, "regular": 3}
_WORD = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")+\"|[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class ColumnSchema:
    """A column as `system_schema` describes it; `kind` is its word there."""

    name: str
    cql_type: str
    kind: str = "regular"
    position: int = -1
    descending: bool = False


@dataclass(frozen=True)
class TableSchema:
    """A table: key columns first and in their order, options by their CQL names."""

    name: str
    columns: tuple[ColumnSchema, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    is_compact: bool = False
    """Made WITH COMPACT STORAGE: part of what it shows cannot be declared in CQL."""

    def of_kind(self, kind: str) -> tuple[ColumnSchema, ...]:
        """Give the columns of one kind, in order."""
        return tuple(column for column in self.columns if column.kind == kind)


@dataclass(frozen=True)
class KeyspaceSchema:
    """All that a keyspace holds; `others` are things with a kind and a name that do not move."""

    name: str
    replication: Mapping[str, str]
    durable_writes: bool
    types: Mapping[str, tuple[tuple[str, str], ...]]
    tables: Mapping[str, TableSchema]
    views: Mapping[str, str]
    """View to the table that it shows."""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A table of the origin and what it is to be at the target.

    `expected` is None where the declaration (a codec, a JSON column, ...) makes columns of types
    that only the user knows; `because` names it then. It `may_lack` columns that only the origin
    has, where the declaration leaves them out.
    """

    origin: str
    target: str
    expected: TableSchema | None
    because: str = ""
    may_lack: bool = False


@dataclass(frozen=True)
class Difference:
    """What differs, and how bad it is: `error`, `warning` or `note`."""

    severity: str
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.about}: {self.text}"


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
    objections: tuple[str, ...]


@dataclass
class Created:
    """What was created, with the CQL that did it, what it lacks, and what the server refused."""

    made: list[Statement] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


# -- reading -----------------------------------------------------------------------------------


def read_schema(connection: Connection, keyspace: str) -> KeyspaceSchema | None:
    """Read all of a keyspace's schema; None if there is no such keyspace.

    Raises:
        MigrationError: the server did not answer or refused.
        PreflightError: its partitioner is not Murmur3.
    """
    partitioner = _query(connection, "SELECT partitioner FROM system.local")[0]["partitioner"]
    if partitioner != MURMUR3:
        raise PreflightError(
            f"the cluster at {connection.settings} uses {partitioner.rpartition('.')[2]}; "
            "token ranges need Murmur3Partitioner"
        )
    found = _rows(connection, "keyspaces", keyspace)
    if not found:
        return None
    replication = dict(found[0]["replication"])
    replication["class"] = replication.get("class", "").rpartition(".")[2]
    columns: dict[str, list[ColumnSchema]] = {}
    for row in _rows(connection, "columns", keyspace):
        columns.setdefault(row["table_name"], []).append(_to_column(row))
    return KeyspaceSchema(
        name=keyspace,
        replication=replication,
        durable_writes=found[0]["durable_writes"] is not False,
        types={
            row["type_name"]: tuple(zip(row["field_names"], row["field_types"], strict=True))
            for row in _rows(connection, "types", keyspace)
        },
        tables={
            row["table_name"]: _to_table(row, columns.get(row["table_name"], []))
            for row in _rows(connection, "tables", keyspace)
        },
        views={
            row["view_name"]: row["base_table_name"] for row in _rows(connection, "views", keyspace)
        },
        others=tuple(_read_others(connection, keyspace)),
    )


def _to_column(row: Mapping[str, Any]) -> ColumnSchema:
    return ColumnSchema(
        name=row["column_name"],
        cql_type=row["type"],
        kind=row["kind"],
        position=row["position"],
        descending=str(row["clustering_order"]).lower() == "desc",
    )


def _to_table(row: Mapping[str, Any], columns: Iterable[ColumnSchema]) -> TableSchema:
    flags = row.get("flags")
    return TableSchema(
        name=row["table_name"],
        columns=_in_order(columns),
        options={
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in row.items()
            if name not in _NO_OPTIONS and value is not None
        },
        is_compact=flags is not None
        and ("compound" not in flags or bool({"dense", "super"} & set(flags))),
    )


def _in_order(columns: Iterable[ColumnSchema]) -> tuple[ColumnSchema, ...]:
    return tuple(sorted(columns, key=lambda c: (_KIND_ORDER[c.kind], c.position, c.name)))


def _read_others(connection: Connection, keyspace: str) -> Iterator[str]:
    for row in _rows(connection, "indexes", keyspace):
        yield f"index {quote(row['index_name'])} of {quote(row['table_name'])}"
    for table, column, kind in (
        ("functions", "function_name", "function"),
        ("aggregates", "aggregate_name", "aggregate"),
    ):
        for row in _rows(connection, table, keyspace):
            yield f"{kind} {quote(row[column])}({', '.join(row['argument_types'] or ())})"
    for row in _rows(connection, "triggers", keyspace):
        yield f"trigger {quote(row['trigger_name'])} of {quote(row['table_name'])}"
    # Only Cassandra 5.0 has masks.
    for row in _rows(connection, "column_masks", keyspace, may_lack=True):
        yield f"mask of {quote(row['table_name'])}.{quote(row['column_name'])}"


def _rows(
    connection: Connection, table: str, keyspace: str, *, may_lack: bool = False
) -> list[dict[str, Any]]:
    try:
        return _query(
            connection,
            f"SELECT * FROM system_schema.{table} WHERE keyspace_name = %s",  # noqa: S608
            (keyspace,),
        )
    except PermanentError:
        if may_lack:
            return []
        raise


def _query(connection: Connection, cql: str, values: tuple = ()) -> list[dict[str, Any]]:
    def ask() -> list[dict[str, Any]]:
        result = connection.session.execute(cql, values)
        names = result.column_names
        return [dict(zip(names, row, strict=True)) for row in result]

    return ask_patiently(ask, 15.0, f"cannot read the schema at {connection.settings}")


# -- what is wanted ----------------------------------------------------------------------------


def change_table(
    table: TableSchema,
    *,
    name: str,
    rename: Mapping[str, str],
    skip: Collection[str],
    partition_key: Sequence[str] | None = None,
    clustering_columns: Sequence[str] | None = None,
) -> TableSchema:
    """Give a table as the target is to have it: other names, fewer columns, another key.

    Key columns go by the target's names; a clustering column may be followed by ASC or DESC.
    Without `clustering_columns` whatever else was part of the key clusters.

    Raises:
        PreflightError: the key names a column that the table does not have.
    """
    columns = [
        replace(column, name=rename.get(column.name, column.name))
        for column in table.columns
        if column.name not in skip
    ]
    if partition_key is None and clustering_columns is None:
        return replace(table, name=name, columns=_in_order(columns))
    by_name = {column.name: column for column in columns}
    key: dict[str, ColumnSchema] = {}
    partition = list(partition_key or [c.name for c in columns if c.kind == "partition_key"])
    clustering = list(clustering_columns or ())
    if clustering_columns is None:
        # What was part of the key stays part of it, so that rows stay apart.
        clustering = [
            column.name + " DESC" * column.descending
            for kind in ("partition_key", "clustering")
            for column in columns
            if column.kind == kind and column.name not in partition
        ]
    unknown = []
    for kind, names in (("partition_key", partition), ("clustering", clustering)):
        for position, text in enumerate(names):
            column_name, descending = _split_order(text) if kind == "clustering" else (text, False)
            column = by_name.get(column_name)
            if column is None:
                unknown.append(column_name)
            else:
                key[column_name] = replace(
                    column, kind=kind, position=position, descending=descending
                )
    if unknown:
        raise PreflightError(
            f"the key of {quote(name)} names {', '.join(map(quote, unknown))}; valid are "
            f"{', '.join(quote(column.name) for column in columns)}"
        )
    for column in columns:
        if column.name not in key:
            was_key = column.kind in ("partition_key", "clustering")
            kind = "regular" if was_key else column.kind
            key[column.name] = replace(column, kind=kind, position=-1, descending=False)
    return replace(table, name=name, columns=_in_order(key.values()))


def _split_order(text: str) -> tuple[str, bool]:
    found = re.fullmatch(r"(.+?)\s+(ASC|DESC)", text.strip(), re.IGNORECASE | re.DOTALL)
    return (found[1], found[2].upper() == "DESC") if found else (text, False)


def types_in_order(
    types: Mapping[str, tuple[tuple[str, str], ...]], tables: Iterable[TableSchema]
) -> list[str]:
    """Give the user-defined types that tables need, each after those that it is made of."""
    ordered: dict[str, None] = {}

    def add(cql_type: str) -> None:
        for name in _types_named(cql_type, types):
            if name not in ordered:
                for _, inner in types[name]:
                    add(inner)
                ordered[name] = None

    for table in tables:
        for column in table.columns:
            add(column.cql_type)
    return list(ordered)


def _types_named(cql_type: str, types: Collection[str]) -> list[str]:
    words = (
        word[1:-1].replace('""', '"') if word.startswith('"') else word
        for word in _WORD.findall(cql_type)
        if not word.startswith("'")
    )
    return [word for word in words if word in types]


# -- creating ----------------------------------------------------------------------------------


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
    objections: list[str] = []
    if target is None and "keyspace" in create:
        chosen = dict(replication or origin.replication)
        objections += _object_to_replication(keyspace, chosen, hosts, declared=bool(replication))
        statements.append(
            Statement(
                f"keyspace {quote(keyspace)}",
                f"CREATE KEYSPACE IF NOT EXISTS {quote(keyspace)} WITH replication = "
                f"{_literal({k: str(v) for k, v in chosen.items()})} "
                f"AND durable_writes = {_literal(origin.durable_writes)}",
            )
        )
    elif target is None:
        objections.append(
            f"there is no keyspace {quote(keyspace)} at the target, and `create` does not name "
            "keyspace: create it, or add it there"
        )
    there = target.tables if target else {}
    missing = [one for one in wanted if one.target not in there]
    tables = [one.expected for one in missing if one.expected]
    if "types" in create:
        for name in types_in_order(origin.types, tables):
            if target is None or name not in target.types:
                fields = ", ".join(f"{quote(n)} {t}" for n, t in origin.types[name])
                statements.append(
                    Statement(
                        f"type {quote(name)}",
                        f"CREATE TYPE IF NOT EXISTS {quote(keyspace)}.{quote(name)} ({fields})",
                    )
                )
    if "tables" in create:
        for one in missing:
            if one.expected is None:
                objections.append(
                    f"table {quote(one.target)} cannot be created, for {one.because} decides its "
                    "columns: create it at the target"
                )
            elif one.expected.is_compact:
                objections.append(
                    f"table {quote(one.target)} cannot be created, for {quote(one.origin)} has "
                    "COMPACT STORAGE: create it at the target, or exclude it"
                )
            else:
                statements.append(_table_statement(keyspace, one.expected, known_options))
    return SchemaPlan(tuple(statements), tuple(objections))


def _object_to_replication(
    keyspace: str, chosen: Mapping[str, Any], hosts: Mapping[str, int], *, declared: bool
) -> list[str]:
    says = "replication" if declared else f"the origin's replication, {_literal(dict(chosen))},"
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
    given = [f"{name} = {_literal(value)}" for name, value in sorted(options.items())]
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


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        entries = (f"{_literal(str(k))}: {_literal(str(v))}" for k, v in sorted(value.items()))
        return f"{{{', '.join(entries)}}}"
    return "'" + str(value).replace("'", "''") + "'"


def read_hosts(connection: Connection) -> dict[str, int]:
    """Count the hosts of each datacenter."""
    counts: dict[str, int] = {}
    for host in connection.cluster.metadata.all_hosts():
        counts[str(host.datacenter)] = counts.get(str(host.datacenter), 0) + 1
    return counts


def read_known_options(connection: Connection) -> frozenset[str]:
    """Give the options that the server's tables have."""
    rows = _query(connection, "SELECT * FROM system_schema.tables LIMIT 1")
    return frozenset(rows[0]) - _NO_OPTIONS if rows else frozenset()


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


# -- comparing ---------------------------------------------------------------------------------


def compare_schemas(
    origin: KeyspaceSchema, target: KeyspaceSchema | None, wanted: Sequence[Wanted]
) -> list[Difference]:
    """Tell every difference, the gravest first.

    An error would lose rows or change what they mean or in which order they come; a warning is
    what someone has to do or to know before the target takes over; the rest are notes.
    """
    if target is None:
        return [Difference("error", "keyspace", "it is missing at the target")]
    found: list[Difference] = []
    known = [one.expected for one in wanted if one.expected]
    for name in types_in_order(origin.types, known):
        found += _compare_types(name, origin.types[name], target.types.get(name))
    for one in wanted:
        about = f"table {quote(one.target)}"
        there = target.tables.get(one.target)
        if there is None:
            is_view = one.target in target.views
            found.append(
                Difference(
                    "error",
                    about,
                    "it is a view there" if is_view else "it is missing at the target",
                )
            )
        elif one.expected is not None:
            found += _compare_tables(about, one.expected, there, one.may_lack)
    targets = {one.target for one in wanted}
    found += [
        Difference("warning", f"table {quote(name)}", "only the target has it")
        for name in target.tables
        if name not in targets and name not in origin.tables
    ]
    moved = {one.origin for one in wanted}
    found += [
        Difference(
            "warning",
            f"view {quote(name)}",
            f"views are not migrated; create it at the target when {quote(base)} is copied",
        )
        for name, base in origin.views.items()
        if name not in target.views and base in moved
    ]
    found += [
        Difference(
            "warning", thing, "it is not migrated; create it at the target if it is needed there"
        )
        for thing in origin.others
        if thing not in target.others and _belongs_to(thing, moved)
    ]
    if dict(origin.replication) != dict(target.replication):
        found.append(
            Difference(
                "note",
                "keyspace",
                f"replication is {_literal(origin.replication)} at the origin, "
                f"{_literal(target.replication)} at the target",
            )
        )
    if origin.durable_writes != target.durable_writes:
        found.append(
            Difference(
                "warning",
                "keyspace",
                f"durable_writes is {_literal(origin.durable_writes)} at the origin, "
                f"{_literal(target.durable_writes)} at the target",
            )
        )
    return sorted(found, key=lambda one: ("error", "warning", "note").index(one.severity))


def _belongs_to(thing: str, tables: Collection[str]) -> bool:
    kind = thing.partition(" ")[0]
    if kind in ("index", "trigger"):
        return thing.rpartition(" of ")[2] in {quote(name) for name in tables}
    if kind == "mask":
        return any(thing.startswith(f"mask of {quote(name)}.") for name in tables)
    return True


def _compare_types(
    name: str,
    here: tuple[tuple[str, str], ...],
    there: tuple[tuple[str, str], ...] | None,
) -> Iterator[Difference]:
    about = f"type {quote(name)}"
    if there is None:
        yield Difference("error", about, "it is missing at the target")
        return
    fields = dict(there)
    for field_name, cql_type in here:
        if field_name not in fields:
            yield Difference("error", about, f"the target lacks its field {quote(field_name)}")
        elif _plain_type(cql_type) != _plain_type(fields[field_name]):
            yield Difference(
                "error",
                about,
                f"its field {quote(field_name)} is {cql_type} at the origin, "
                f"{fields[field_name]} at the target",
            )
    extra = [n for n in fields if n not in dict(here)]
    if extra:
        text = f"only the target has its fields {', '.join(map(quote, extra))}"
        yield Difference("warning", about, text)
    elif list(fields) != list(dict(here)):
        yield Difference("warning", about, "its fields come in another order at the target")


def _compare_tables(
    about: str, here: TableSchema, there: TableSchema, may_lack: bool
) -> Iterator[Difference]:
    columns = {column.name: column for column in there.columns}
    for column in here.columns:
        other = columns.get(column.name)
        if other is None:
            severity = "warning" if may_lack else "error"
            yield Difference(severity, about, f"the target lacks column {quote(column.name)}")
            continue
        if _plain_type(column.cql_type) != _plain_type(other.cql_type):
            yield Difference(
                "error",
                about,
                f"column {quote(column.name)} is {column.cql_type} at the origin, "
                f"{other.cql_type} at the target",
            )
        statics = (column.kind == "static", other.kind == "static")
        if statics[0] != statics[1]:
            words = ["static" if is_static else "not static" for is_static in statics]
            yield Difference(
                "error",
                about,
                f"column {quote(column.name)} is {words[0]} at the origin, "
                f"{words[1]} at the target",
            )
    for kind, word in (("partition_key", "partition key"), ("clustering", "clustering columns")):
        keys = [", ".join(quote(c.name) for c in t.of_kind(kind)) or "none" for t in (here, there)]
        if keys[0] != keys[1]:
            yield Difference(
                "error", about, f"the {word} should be {keys[0]}, and is {keys[1]} at the target"
            )
        elif kind == "clustering":
            yield from _compare_orders(about, here, there)
    extra = [c.name for c in there.columns if c.name not in {c.name for c in here.columns}]
    if extra:
        text = f"only the target has column {', '.join(map(quote, extra))}"
        yield Difference("warning", about, text)
    for name, value in here.options.items():
        if name in there.options and there.options[name] != value:
            yield Difference(
                _GRAVE_OPTIONS.get(name, "note"),
                about,
                f"{name} is {_literal(value)} at the origin, "
                f"{_literal(there.options[name])} at the target",
            )


def _compare_orders(about: str, here: TableSchema, there: TableSchema) -> Iterator[Difference]:
    orders = [
        ", ".join(
            f"{quote(c.name)} {'DESC' if c.descending else 'ASC'}" for c in t.of_kind("clustering")
        )
        for t in (here, there)
    ]
    if orders[0] != orders[1]:
        yield Difference(
            "error",
            about,
            f"the clustering order should be {orders[0]}, and is {orders[1]} at the target",
        )


def _plain_type(cql_type: str) -> str:
    """Write a type in one way: servers differ in blanks and in the word for text."""
    return re.sub(r"\bvarchar\b", "text", re.sub(r"\s+", "", cql_type))
