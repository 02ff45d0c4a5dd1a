"""Turns a message into the key of the row that it is about, or into the reason why it has none.

Nothing else of a message is used. A key with fewer cells than the table's stands for every row that
begins with it. What cannot be read raises nothing, and its reason holds nothing of its values.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from migration_platform.cql.names import quote
from migration_platform.cql.types import parse_type
from migration_platform.declaration.sync import KafkaChanges
from migration_platform.errors import PreflightError
from migration_platform.plan.model import Table
from migration_platform.syncing.changes import Key
from migration_platform.syncing.json_cells import (
    MAX_CELL,
    NO_VALUE,
    NotCellError,
    ToCell,
    compile_cell,
    compile_debezium_cell,
    name_kind,
    parse_json,
)
from migration_platform.syncing.position import MAX_REASON

MAX_MESSAGE = 8 * 2**20
"""Bytes; a broker's own limit is 1 MiB if nobody raised it."""

ReadKey = Callable[[bytes | None, bytes | None], Key | str]
"""Gives the key that a message's value, or else its own key, tells; a text is why there is none."""


class _NoKeyError(Exception):
    """A message has no key that can be read; says why."""


@dataclass(frozen=True)
class _Column:
    """A column of the primary key, and where its value stands."""

    name: str
    shown_type: str
    is_partition: bool
    places: tuple[tuple[str, ...], ...]
    places_in_key: tuple[tuple[str, ...], ...]
    """The message's own key is often the row's key and nothing else, whatever the value is."""
    to_cell: ToCell


def compile_message_reader(declared: KafkaChanges, table: Table) -> ReadKey:
    """Build what reads the messages of a topic.

    Raises:
        PreflightError: what is declared does not fit the table.
    """
    unknown = sorted(set(declared.key) - set(table.primary_key))
    if unknown:
        raise PreflightError(
            f"sync.kafka.key names {', '.join(unknown)}, which {table.name} has not in its key; "
            f"valid are {', '.join(table.primary_key)}"
        )
    debezium = declared.format == "debezium"
    columns = tuple(_column(name, declared, table, debezium=debezium) for name in table.primary_key)
    read = _Debezium(columns).read if debezium else _Json(columns).read

    def read_key(value: bytes | None, key: bytes | None) -> Key | str:
        try:
            return read(value, key)
        except _NoKeyError as reason:
            return str(reason)[:MAX_REASON]

    return read_key


_NAME = re.compile(r"(?:\\[\\.]|[^.\\])+")
_PATH = re.compile(rf"{_NAME.pattern}(?:\.{_NAME.pattern})*")


def parse_path(text: str) -> tuple[str, ...]:
    r"""Read a place such as `after.id`; `\.` is a dot in a name, and `\\` a backslash.

    Raises:
        ValueError: it is no place.
    """
    if not _PATH.fullmatch(text):
        raise ValueError(text)
    names = [re.sub(r"\\(.)", r"\1", name) for name in _NAME.findall(text)]
    return tuple(names)


def _column(name: str, declared: KafkaChanges, table: Table, *, debezium: bool) -> _Column:
    cql_type = parse_type(table.type_of(name))
    # Servers write a name with capitals in quotes of its own.
    own = ((name,), (quote(name),)) if quote(name) != name else ((name,),)
    places: tuple[tuple[str, ...], ...] = own
    if name in declared.key:
        try:
            places = (parse_path(declared.key[name]),)
        except ValueError:
            raise PreflightError(
                f"sync.kafka.key.{name} is {declared.key[name]!r}; write a place such as "
                r"after.id, with \. for a dot in a name"
            ) from None
    return _Column(
        name=name,
        shown_type=str(cql_type),
        is_partition=name in table.partition_key,
        places=places,
        places_in_key=tuple(dict.fromkeys((*places, *own))),
        to_cell=(compile_debezium_cell if debezium else compile_cell)(cql_type),
    )


# -- what formats share ------------------------------------------------------------------------


def _parse(content: bytes, what: str) -> Any:
    if len(content) > MAX_MESSAGE:
        raise _NoKeyError(f"its {what} has {len(content)} bytes; {MAX_MESSAGE} are read at most")
    # A schema registry's client begins with a zero and four bytes for the schema.
    from_registry = content[:1] == b"\0" and len(content) > 5
    try:
        return parse_json((content[5:] if from_registry else content).decode())
    except UnicodeDecodeError:
        why = "text in UTF-8"
    except RecursionError:
        why = "JSON that is read: it is nested too deep"
    except (ValueError, ArithmeticError):
        why = "JSON"
    hint = "; Avro and Protobuf are not read" if from_registry else ""
    raise _NoKeyError(f"its {what} is no {why}{hint}")


def _find(content: Any, places: tuple[tuple[str, ...], ...]) -> Any:
    """Give what stands at the first of the places that exists; None if there is none."""
    for place in places:
        found = content
        for name in place:
            if type(found) is not dict:
                found = None
                break
            found = found.get(name)
        if found is not None:
            return found
    return None


def _to_cell(column: _Column, value: Any, where: str) -> bytes:
    try:
        return column.to_cell(value)
    except NO_VALUE as failure:
        hint = f": {failure}" if isinstance(failure, NotCellError) else ""
        raise _NoKeyError(
            f"{where} is {name_kind(value)}, which is no {column.shown_type[:80]}{hint}"
        ) from None


def _checked(cells: list[bytes], columns: tuple[_Column, ...]) -> Key:
    """Refuse keys that no server has: it would refuse to look for them."""
    of_partition = [
        cell for cell, column in zip(cells, columns, strict=False) if column.is_partition
    ]
    several = len(of_partition) > 1
    if not several and not of_partition[0]:
        raise _NoKeyError("its partition key is empty, which no row has")
    if several and sum(len(cell) + 3 for cell in of_partition) > MAX_CELL:
        raise _NoKeyError("its partition key is longer than any row has")
    return tuple(cells)


# -- format json -------------------------------------------------------------------------------


class _Json:
    """Reads messages whose value is an object that holds the key; of a deletion it is their key."""

    def __init__(self, columns: tuple[_Column, ...]):
        self._columns = columns
        self._shown = {column.name: _show_path(column.places[0]) for column in columns}

    def read(self, value: bytes | None, key: bytes | None) -> Key:
        if value is not None:
            content, what = _parse(value, "value"), "value"
        elif key is not None:
            content, what = _parse(key, "key, as it has no value,"), "key"
        else:
            raise _NoKeyError("it has neither a value nor a key")
        if type(content) is not dict:
            raise _NoKeyError(f"its {what} is {name_kind(content)}; it must be an object")
        cells: list[bytes] = []
        for column in self._columns:
            places = column.places if value is not None else column.places_in_key
            found = _find(content, places)
            if found is None:
                if column.is_partition:
                    raise _NoKeyError(
                        f"its {what} has nothing, or null, at {self._shown[column.name]}, where "
                        f"{quote(column.name)} of the partition key must be"
                    )
                break
            cells.append(_to_cell(column, found, f"{self._shown[column.name]} in its {what}"))
        return _checked(cells, self._columns)


def _show_path(path: tuple[str, ...]) -> str:
    return ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in path)[:80]


# -- format debezium ---------------------------------------------------------------------------


class _Debezium:
    """Reads what Debezium's connector for Cassandra writes as JSON, with its schema or without."""

    def __init__(self, columns: tuple[_Column, ...]):
        self._columns = columns

    def read(self, value: bytes | None, key: bytes | None) -> Key:
        after = None
        if value is not None:
            envelope = _without_schema(_parse(value, "value"))
            after = envelope.get("after") if type(envelope) is dict else None
        if type(after) is dict:
            return self._read_after(after)
        if key is None:
            raise _NoKeyError(
                "it has neither a key nor a value with `after`; is it of Debezium's connector?"
            )
        content = _without_schema(_parse(key, "key"))
        if type(content) is not dict:
            raise _NoKeyError(f"its key is {name_kind(content)}; it must be an object")
        return self._to_key(content, "key")

    def _read_after(self, after: dict[str, Any]) -> Key:
        cells: dict[str, Any] = {}
        for column in self._columns:
            cell = after.get(column.name)
            if type(cell) is dict:
                cells[column.name] = cell.get("value")
            elif cell is not None:
                raise _NoKeyError(
                    f"after.{column.name[:60]} is {name_kind(cell)}, and no cell with a value"
                )
        key = self._to_key(cells, "after")
        ends = [after.get(name) for name in ("_range_start", "_range_end")]
        if all(type(end) is dict for end in ends):
            key += self._shared(key, *map(_bound, ends))
        return key

    def _to_key(self, values: Mapping[str, Any], where: str) -> Key:
        cells: list[bytes] = []
        for column in self._columns:
            found = values.get(column.name)
            if found is None:
                if column.is_partition:
                    raise _NoKeyError(
                        f"{where}.{column.name[:60]} is null, and is of the partition key"
                    )
                break
            cells.append(_to_cell(column, found, f"{where}.{column.name[:60]}"))
        return _checked(cells, self._columns)

    def _shared(self, key: Key, start: Mapping[str, str], end: Mapping[str, str]) -> Key:
        """Give the cells in which both ends of a deleted range agree.

        Ends are texts of the server's own making: of types whose texts are not sure, the key is
        left shorter, and so stands for more rows.
        """
        cells: list[bytes] = []
        for column in self._columns[len(key) :]:
            text = start.get(quote(column.name))
            if text is None or text != end.get(quote(column.name)):
                break
            if column.shown_type not in _SURE_TEXTS:
                break
            try:
                cells.append(column.to_cell(text))
            except NO_VALUE:
                break
        return tuple(cells)


_SURE_TEXTS = ("text", "ascii", "tinyint", "smallint", "int", "bigint", "uuid", "timeuuid")


def _bound(end: Any) -> Mapping[str, str]:
    """Give the texts of a range's end by their columns' names, quoted."""
    values = end.get("values")
    return {
        each["name"]: each["value"]
        for each in (values if type(values) is list else ())
        if type(each) is dict and type(each.get("name")) is str and type(each.get("value")) is str
    }


def _without_schema(content: Any) -> Any:
    """Take away the schema that Kafka Connect's converter wraps around what it writes."""
    if type(content) is dict and content.keys() == {"schema", "payload"}:
        return content["payload"]
    return content
