"""What differs between the schemas of two keyspaces, and how bad it is."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from migration_platform.cql.names import quote
from migration_platform.stores.cassandra.schema import KeyspaceSchema, TableSchema, write_literal
from migration_platform.stores.cassandra.wanted_schema import Wanted, types_in_order

_GRAVE_OPTIONS = {"default_time_to_live": "error", "gc_grace_seconds": "warning", "cdc": "warning"}


@dataclass(frozen=True)
class Difference:
    """What differs, and how bad it is: `error`, `warning` or `note`.

    `cql` is the statement that makes at the target what is missing there, if one can be told.
    """

    severity: str
    about: str
    text: str
    cql: str = ""

    def __str__(self) -> str:
        return f"{self.about}: {self.text}"


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
    found += _find_left_behind(origin, target, wanted)
    found += _compare_keyspaces(origin, target)
    return sorted(found, key=lambda one: ("error", "warning", "note").index(one.severity))


def _find_left_behind(
    origin: KeyspaceSchema, target: KeyspaceSchema, wanted: Sequence[Wanted]
) -> list[Difference]:
    """Tell which views, indexes, functions and the like the target lacks: nobody moves them."""
    moved = {one.origin: one for one in wanted}
    found = [
        Difference(
            "warning",
            f"view {quote(name)}",
            f"views are not migrated; create it at the target when {quote(base)} is copied",
            _write_statement(f"view {quote(name)}", origin, target, moved),
        )
        for name, base in origin.views.items()
        if name not in target.views and base in moved
    ]
    found += [
        Difference(
            "warning",
            thing,
            "it is not migrated; create it at the target if it is needed there",
            _write_statement(thing, origin, target, moved),
        )
        for thing in origin.others
        if thing not in target.others and _belongs_to(thing, moved)
    ]
    return found


def _write_statement(
    thing: str, origin: KeyspaceSchema, target: KeyspaceSchema, moved: Mapping[str, Wanted]
) -> str:
    """Write what makes a view or an index; an empty text if the target's table differs too much."""
    statement = origin.statements.get(thing)
    if statement is None or statement.table not in moved:
        return ""
    one = moved[statement.table]
    there = target.tables.get(one.target) or one.expected
    if there is None or not statement.columns <= {column.name for column in there.columns}:
        return ""
    return f"{statement.write(target.name, one.target)};"


def _compare_keyspaces(origin: KeyspaceSchema, target: KeyspaceSchema) -> Iterator[Difference]:
    if dict(origin.replication) != dict(target.replication):
        yield Difference(
            "note",
            "keyspace",
            f"replication is {write_literal(origin.replication)} at the origin, "
            f"{write_literal(target.replication)} at the target",
        )
    if origin.durable_writes != target.durable_writes:
        yield Difference(
            "warning",
            "keyspace",
            f"durable_writes is {write_literal(origin.durable_writes)} at the origin, "
            f"{write_literal(target.durable_writes)} at the target",
        )


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
                f"{name} is {write_literal(value)} at the origin, "
                f"{write_literal(there.options[name])} at the target",
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
