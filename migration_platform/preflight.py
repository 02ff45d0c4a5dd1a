"""What the servers must allow before anything is written; the answer is a frozen `Plan`.

A plan is all that a worker process needs to know, and can be pickled. Every objection is
collected, so that one message names them all and what would have been valid.
"""

import difflib
import hashlib
import json
from dataclasses import dataclass

from migration_platform.errors import PreflightError
from migration_platform.migration import Migration, quote
from migration_platform.stores.cassandra import Connection, Table, describe_table

SAME_BYTES = frozenset({("ascii", "text"), ("timeuuid", "uuid")})
"""Type changes under which every value keeps its bytes and stays valid."""


@dataclass(frozen=True)
class Plan:
    """A migration whose tables were found to fit, with the column orders that its jobs use.

    `copy_columns` begin with the columns by which writes are grouped (`group_size` of them);
    `diff_columns` begin with the origin's partition key and then the rest of the primary key,
    so that a row of either table tells its key and its origin token from its first cells.
    """

    migration: Migration
    origin: Table
    target: Table
    copy_columns: tuple[str, ...]
    group_size: int
    diff_columns: tuple[str, ...]
    left_unset: tuple[str, ...]

    @property
    def keys_agree(self) -> bool:
        """Whether a row has the same token in both tables."""
        return self.origin.partition_key == self.target.partition_key

    @property
    def key_size(self) -> int:
        """How many columns form the primary key, the same on both sides."""
        return len(self.origin.primary_key)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when a range copied before no longer counts as copied.

        A table that was dropped and made anew, or that lives in another cluster, has another id.
        """
        content = {
            "origin": [self.migration.origin.store, str(self.origin.name), self.origin.table_id],
            "target": [self.migration.target.store, str(self.target.name), self.target.table_id],
            "columns": sorted(self.copy_columns),
            "token_ranges": self.migration.token_ranges,
            "writetime": self.migration.writetime,
            "ttl": self.migration.ttl,
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def build_plan(migration: Migration, origin: Connection, target: Connection) -> Plan:
    """Hold a migration against the tables that are really there.

    Raises:
        PreflightError: one message with every reason why it cannot run.
    """
    objections: list[str] = []
    tables: list[Table] = []
    for connection, endpoint in ((origin, migration.origin), (target, migration.target)):
        try:
            tables.append(describe_table(connection, endpoint.table))
        except PreflightError as error:
            objections.append(str(error))
    if not objections:
        objections = object_to_tables(migration, *tables)
        # A restored snapshot may share the table's id with its source, but never the hosts' ids.
        if tables[0].table_id == tables[1].table_id and origin.host_ids & target.host_ids:
            objections.append(
                f"origin and target are one table, {tables[0].name}: the stores "
                f"{migration.origin.store} and {migration.target.store} are the same cluster"
            )
    if objections:
        raise PreflightError(f"{migration.name} cannot be migrated: " + "; ".join(objections))
    return _plan(migration, *tables)


def object_to_tables(migration: Migration, origin: Table, target: Table) -> list[str]:
    """Name everything that keeps rows of `origin` from fitting into `target`."""
    objections: list[str] = []
    target_names = [column.name for column in target.columns]
    for column in origin.columns:
        if column.name not in target_names:
            close = difflib.get_close_matches(column.name, target_names, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "add it to the target"
            objections.append(
                f"{target.name} has no column {quote(column.name)} ({column.cql_type}): {hint}"
            )
            continue
        target_type = target.type_of(column.name)
        if not is_assignable(column.cql_type, target_type):
            objections.append(
                f"column {quote(column.name)} is {column.cql_type} at the origin and "
                f"{target_type} at the target; make the target's {column.cql_type}"
            )
    objections += _object_to_keys(origin, target)
    for table in (origin, target):
        statics = [quote(c.name) for c in table.columns if c.is_static]
        if statics:
            objections.append(
                f"{table.name} has static columns ({', '.join(statics)}), which are not there yet"
            )
        counters = [quote(c.name) for c in table.columns if c.cql_type == "counter"]
        if counters:
            objections.append(
                f"{table.name} has counters ({', '.join(counters)}), which are not there yet"
            )
    names = [column.name for column in origin.columns]
    unknown = [name for name in migration.group_writes_by or () if name not in names]
    if unknown:
        objections.append(
            f"group_writes_by names {', '.join(map(quote, unknown))}, which {origin.name} does "
            f"not have; valid are {', '.join(map(quote, names))}"
        )
    return objections


def is_assignable(origin_type: str, target_type: str) -> bool:
    """Say whether every value of the origin's type is, byte for byte, one of the target's.

    A frozen collection is written as the unfrozen one is. The other way round an empty
    collection would be lost, because an unfrozen one cannot be told from null.
    """
    if origin_type == target_type or (origin_type, target_type) in SAME_BYTES:
        return True
    return f"frozen<{origin_type}>" == target_type


def _object_to_keys(origin: Table, target: Table) -> list[str]:
    origin_key, target_key = set(origin.primary_key), set(target.primary_key)
    missing = [c for c in target.primary_key if c not in {column.name for column in origin.columns}]
    if missing:
        return [
            f"{target.name} has the key column {', '.join(map(quote, missing))}, "
            f"which {origin.name} does not have"
        ]
    if origin_key != target_key:
        return [
            f"the primary key of {target.name} ({', '.join(map(quote, target.primary_key))}) must "
            f"have the columns of the origin's ({', '.join(map(quote, origin.primary_key))}), in "
            "any order; a key of other columns is not there yet"
        ]
    return []


def _plan(migration: Migration, origin: Table, target: Table) -> Plan:
    grouped = migration.group_writes_by
    if grouped is None:
        leading = list(target.partition_key)
    elif grouped:
        # Rows of one group are neighbours; a batch still never leaves its partition.
        leading = list(dict.fromkeys((*grouped, *target.partition_key)))
    else:
        leading = []
    names = [column.name for column in origin.columns]
    keys = set(origin.primary_key)
    copied = list(dict.fromkeys((*leading, *target.primary_key, *names)))
    return Plan(
        migration=migration,
        origin=origin,
        target=target,
        copy_columns=tuple(copied),
        group_size=len(leading),
        diff_columns=(*origin.primary_key, *(n for n in copied if n not in keys)),
        left_unset=tuple(c.name for c in target.columns if c.name not in names),
    )
