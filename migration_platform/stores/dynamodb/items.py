"""A row as an item of DynamoDB, and back: what attributes it has, and which of them are its key.

Every column is an attribute of its own. A part of the key that is one column is that attribute; a
part of several is one more, a string that joins them. It is never taken apart again: the columns
are there, and an item is only read if its key is what they give.

Wrong guess: static cells are no attributes of the partition's rows. They are one more item of each
partition, whose sort key no row can have.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from json import dumps, loads
from json.encoder import encode_basestring
from typing import Any, Literal

from migration_platform.cql.keys import NO_KEY
from migration_platform.cql.names import quote
from migration_platform.cql.samples import cut_sample
from migration_platform.cql.texts import Canonical, compile_text, escape
from migration_platform.cql.types import CqlType
from migration_platform.cql.values import shorten
from migration_platform.errors import DeclarationError, PermanentError
from migration_platform.stores.dynamodb.codecs import (
    Decoder,
    Encoder,
    compile_canonical,
    compile_decoder,
    compile_encoder,
)
from migration_platform.stores.dynamodb.types import (
    MAX_LEVELS,
    MAX_NAME_BYTES,
    AttributeType,
    attribute_type_of,
    levels_of,
)

MAX_PARTITION_BYTES, MAX_SORT_BYTES = 2048, 1024
MAX_ITEM_BYTES = 400 * 1024
MAX_KEY_NAME_BYTES = 255
"""Limits of DynamoDB, of which names count in an item's size.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
"""
STATIC_SORT = "%static"
"""The sort key of a partition's static cells. In a row's, a `%` is followed by 23 or 25, or by
nothing where the row's whole sort key is an empty text."""
UNREADABLE = NO_KEY + b"not what was written: "
"""Begins the cell of an attribute that cannot be read, which no cell of a row equals."""

_EMPTY_JOINED = "%"


class UnholdableRow(PermanentError):  # noqa: N818, it reads as what is wrong
    """No item can hold a row; another row may well be held."""


@dataclass(frozen=True)
class ItemColumn:
    """A column as an attribute; without `attribute_type` its type has the default one."""

    name: str
    cql_type: CqlType
    attribute_type: str | None = None


@dataclass(frozen=True)
class KeyPart:
    """The partition or the sort key: an attribute's name, and the names of its columns.

    A column of the same name is the key itself; otherwise the texts of the columns are joined.
    """

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class ItemForm:
    """What one kind of item of a table is made of.

    Attributes:
        columns: In the order of a row's cells, those of the key among them.
        partition: The partition key.
        sort: The sort key, if the table has one.
        is_static: Whether these items hold the static cells of partitions; the sort key then has
            no columns. In such a table the sort key of rows is a joined one.
        nulls: Whether null leaves the attribute out or is an attribute `NULL`.
        numbers: What becomes of numbers that no `N` holds.
        ttl_attribute: Where the second of expiry is kept, if anywhere.
        writetime_attribute: Where the writetime in microseconds is kept, if anywhere.
        index_keys: The columns that are keys of indexes, and the most bytes that each may have.

    Raises:
        DeclarationError: names clash, are too long or unknown, or a type cannot be had.
    """

    columns: tuple[ItemColumn, ...]
    partition: KeyPart
    sort: KeyPart | None = None
    is_static: bool = False
    nulls: Literal["absent", "null"] = "absent"
    numbers: Literal["refuse", "string"] = "refuse"
    ttl_attribute: str | None = None
    writetime_attribute: str | None = None
    index_keys: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        extra = [part.name for part in self.parts if not self.is_own(part)]
        extra += [each for each in (self.ttl_attribute, self.writetime_attribute) if each]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise DeclarationError(f"two columns would be the attribute {quote(name)}; rename one")
        for part in self.parts:
            for name in part.columns:
                if name not in names:
                    raise DeclarationError(f"the key names {quote(name)}, which is no column")
        for number, name in enumerate(extra):
            if name in names or name in extra[:number]:
                raise DeclarationError(
                    f"the attribute {quote(name)} would be two things; give one another name"
                )
        for name in names + extra:
            limit = MAX_KEY_NAME_BYTES if name in self.key_names else MAX_NAME_BYTES
            if not 0 < len(name.encode()) <= limit:
                raise DeclarationError(
                    f"an attribute's name has 1 to {limit} bytes, unlike {shorten(quote(name))}"
                )
        for column in self.columns:
            is_key = column.name in self.key_columns
            try:
                levels = levels_of(column.cql_type, column.attribute_type, is_key)
            except DeclarationError as failure:
                raise DeclarationError(f"target.attributes.{column.name}: {failure}") from failure
            if levels > MAX_LEVELS:
                raise DeclarationError(
                    f"{quote(column.name)} is deeper than DynamoDB's {MAX_LEVELS} levels; "
                    "write S or B for it"
                )
        if self.is_static != (self.sort is not None and not self.sort.columns):
            raise DeclarationError("a table with static columns needs a sort key")

    @property
    def parts(self) -> tuple[KeyPart, ...]:
        """The partition key, and the sort key if there is one."""
        return (self.partition, self.sort) if self.sort else (self.partition,)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns of the partition key, then those of the sort key."""
        return tuple(name for part in self.parts for name in part.columns)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's attributes."""
        return tuple(part.name for part in self.parts)

    def is_own(self, part: KeyPart) -> bool:
        """Whether a part of the key is a column itself."""
        return part.columns == (part.name,)

    def index_limit(self, name: str) -> int | None:
        """Give the most bytes that a column may have as a key of indexes; None if it is none."""
        return min((limit for key, limit in self.index_keys if key == name), default=None)

    def column(self, name: str) -> ItemColumn:
        """Give the column of a name."""
        return next(column for column in self.columns if column.name == name)

    def type_of(self, name: str) -> AttributeType:
        """Give the attribute type that a column's values have."""
        column = self.column(name)
        return attribute_type_of(column.cql_type, column.attribute_type, name in self.key_columns)

    def encoder(self, column: ItemColumn) -> Encoder:
        """Build what writes a column's cells as attribute values."""
        return compile_encoder(
            column.cql_type,
            column.attribute_type,
            numbers=self.numbers,
            is_key=column.name in self.key_columns,
        )

    def decoder(self, column: ItemColumn) -> Decoder:
        """Build what makes a column's cells of attribute values."""
        return compile_decoder(
            column.cql_type,
            column.attribute_type,
            numbers=self.numbers,
            is_key=column.name in self.key_columns,
        )

    def canonical(self, column: ItemColumn) -> Canonical | None:
        """Build what gives a column's cell the one form of its value; None if all have it."""
        return compile_canonical(
            column.cql_type,
            column.attribute_type,
            numbers=self.numbers,
            is_key=column.name in self.key_columns,
        )


def key_schema(form: ItemForm) -> tuple[tuple[str, str], ...]:
    """Give name and type (S, N, B) of the partition key, and of the sort key if there is one."""
    return tuple(
        (part.name, form.type_of(part.name) if form.is_own(part) else "S") for part in form.parts
    )


# -- a row as an item --------------------------------------------------------------------------

Cells = Sequence[bytes | None]


def compile_key(form: ItemForm) -> Callable[[Cells], str]:
    """Build what writes the JSON of a key, from the cells of `form.key_columns` in their order.

    Two rows have the same text only if they are the same item.

    Raises (what is built):
        UnholdableRow: the key is too long, empty, or null.
    """
    return _compile_key(form, form.key_columns)


def compile_partition(form: ItemForm, order: Sequence[str]) -> Callable[[Cells], str]:
    """Build what writes the JSON of a partition key alone, from cells in some order.

    Raises (what is built):
        UnholdableRow: the key is too long, empty, or null.
    """
    write = _compile_part(form, form.partition, order, MAX_PARTITION_BYTES)
    return lambda cells: f"{{{write(cells)}}}"


def _compile_key(form: ItemForm, order: Sequence[str]) -> Callable[[Cells], str]:
    limits = (MAX_PARTITION_BYTES, MAX_SORT_BYTES)
    writers = [
        _compile_part(form, part, order, limit)
        for part, limit in zip(form.parts, limits, strict=False)
    ]
    if len(writers) == 1:
        write_only = writers[0]
        return lambda cells: f"{{{write_only(cells)}}}"
    write_partition, write_sort = writers
    return lambda cells: f"{{{write_partition(cells)},{write_sort(cells)}}}"


def _compile_part(
    form: ItemForm, part: KeyPart, order: Sequence[str], limit: int
) -> Callable[[Cells], str]:
    prefix = encode_basestring(part.name) + ":"
    columns = [form.column(name) for name in part.columns]
    places = [order.index(column.name) for column in columns]
    if not columns:
        static = f'{prefix}{{"S":"{STATIC_SORT}"}}'
        return lambda cells: static
    if not form.is_own(part):
        join = _compile_join(form, part, order)

        def write_joined(cells: Cells) -> str:
            text = join(cells)
            # A character is at most four bytes.
            if len(text) > limit // 4 and len(text.encode()) > limit:
                raise _too_long(part.name, len(text.encode()), limit)
            return f'{prefix}{{"S":{encode_basestring(text)}}}'

        return write_joined
    (column,), (place,) = columns, places
    encode = form.encoder(column)
    limit = min(limit, form.index_limit(column.name) or limit)

    def write(cells: Cells) -> str:
        cell = cells[place]
        if not cell:
            why = "null" if cell is None else "empty"
            raise _unholdable(column.name, f"a key of DynamoDB cannot be {why}")
        try:
            value = encode(cell)
        except ValueError as failure:
            raise _unholdable(column.name, failure) from failure
        if len(value) > limit // 4 and (size := _value_size(loads(value))) > limit:
            raise _too_long(column.name, size, limit)
        return prefix + value

    return write


def _compile_join(form: ItemForm, part: KeyPart, order: Sequence[str]) -> Callable[[Cells], str]:
    """Build what joins the columns of a part of the key, by `#`."""
    steps = [
        (name, order.index(name), compile_text(form.column(name).cql_type, is_key=True))
        for name in part.columns
    ]

    def join(cells: Cells) -> str:
        texts = []
        for name, place, write in steps:
            cell = cells[place]
            if cell is None:
                raise _unholdable(name, "a part of a key cannot be null")
            try:
                texts.append(escape(write(cell)))
            except ValueError as failure:
                raise _unholdable(name, failure) from failure
        return "#".join(texts) or _EMPTY_JOINED

    return join


def _unholdable(name: str, reason: object) -> UnholdableRow:
    return UnholdableRow(f"DynamoDB cannot hold the row: {quote(name)}: {reason}")


def _too_long(name: str, size: int, limit: int) -> UnholdableRow:
    return _unholdable(name, f"a key of {size:,} bytes is longer than {limit:,}")


def compile_item(
    form: ItemForm,
) -> Callable[[Cells, int | None, int | None], tuple[str, str]]:
    """Build what writes a row as the JSON of its item, and of the item's key.

    It takes the row's cells, when the item expires in seconds since 1970, and its writetime in
    microseconds; the last two may be None.

    Raises (what is built):
        UnholdableRow: no item can hold the row; one sentence with the column and the reason.
    """
    names = [column.name for column in form.columns]
    write_key = _compile_key(form, names)
    own = {part.name for part in form.parts if form.is_own(part)}
    steps = [
        (place, f",{encode_basestring(column.name)}:", _compile_value(form, column))
        for place, column in enumerate(form.columns)
        if column.name not in own
    ]
    ttl = _prefix_of_number(form.ttl_attribute)
    writetime = _prefix_of_number(form.writetime_attribute)
    keep_nulls = form.nulls == "null"

    def write(cells: Cells, expires_at: int | None, writetime_us: int | None) -> tuple[str, str]:
        key = write_key(cells)
        parts = [key[:-1]]
        add = parts.append
        try:
            for place, prefix, encode in steps:
                cell = cells[place]
                if cell is not None:
                    add(prefix + encode(cell))
                elif keep_nulls:
                    add(prefix + '{"NULL":true}')
        except ValueError as failure:
            raise _unholdable(_refusing(cells, steps, names), failure) from failure
        if ttl and expires_at is not None:
            add(f'{ttl}"{expires_at}"}}')
        if writetime and writetime_us is not None:
            add(f'{writetime}"{writetime_us}"}}')
        add("}")
        item = "".join(parts)
        # JSON is longer than what it says, but for characters of up to four bytes.
        if len(item) > MAX_ITEM_BYTES // 4:
            _check_size(item)
        return item, key

    return write


def _compile_value(form: ItemForm, column: ItemColumn) -> Encoder:
    """Build what writes a column that is not the key of the table, but may be one of an index."""
    encode, limit = form.encoder(column), form.index_limit(column.name)
    if limit is None:
        return encode

    def write(cell: bytes) -> str:
        if not cell:
            raise ValueError("a key of an index cannot be empty")
        value = encode(cell)
        if len(value) > limit // 4 and (size := _value_size(loads(value))) > limit:
            raise ValueError(f"a key of an index of {size:,} bytes is longer than {limit:,}")
        return value

    return write


def _prefix_of_number(name: str | None) -> str | None:
    return f',{encode_basestring(name)}:{{"N":' if name else None


def _refusing(cells: Cells, steps: list, names: list[str]) -> str:
    for place, _, encode in steps:
        cell = cells[place]
        try:
            if cell is not None:
                encode(cell)
        except ValueError:
            return names[place]
    raise AssertionError("a column that was refused is now taken")


def _check_size(text: str) -> None:
    item = loads(text)
    size = item_size(item)
    if size > MAX_ITEM_BYTES:
        largest = max(item, key=lambda name: _value_size(item[name]))
        raise UnholdableRow(
            f"DynamoDB cannot hold the row: an item of {size:,} bytes is larger than "
            f"{MAX_ITEM_BYTES:,}; most of it is {quote(largest)}"
        )


# -- an item as a row --------------------------------------------------------------------------

Item = dict[str, Any]


def compile_cells(
    form: ItemForm, *, now_seconds: Callable[[], float] | None = None
) -> Callable[[Item], list[bytes | None] | None]:
    """Build what gives an item's cells; None for an item of the other kind, or that has expired.

    An item has expired if its `ttl_attribute` is not after `now_seconds`, which are since 1970:
    DynamoDB removes it days later. An attribute that is not what was written gives a cell that
    begins with `UNREADABLE`. Attributes of which the form knows nothing do not count.

    Raises (what is built):
        PermanentError: the key is none that a row gives; names the item.
    """
    steps = [(column.name, form.decoder(column)) for column in form.columns]
    names = [column.name for column in form.columns]
    places = [(name, names.index(name)) for name in form.key_columns]
    joined = [
        (part.name, _compile_join(form, part, names))
        for part in form.parts
        if part.columns and not form.is_own(part)
    ]
    sort = form.sort if form.sort and not form.is_own(form.sort) else None
    ttl = form.ttl_attribute if now_seconds else None

    def read(item: Item) -> list[bytes | None] | None:
        if sort and (item.get(sort.name) == {"S": STATIC_SORT}) != form.is_static:
            return None
        if ttl and now_seconds:
            expires_at = _read_whole(item.get(ttl))
            if expires_at is not None and expires_at <= now_seconds():
                return None
        cells: list[bytes | None] = []
        add = cells.append
        for name, decode in steps:
            value = item.get(name)
            if value is None or "NULL" in value:
                add(None)
                continue
            try:
                add(decode(value))
            except ValueError as failure:
                add(UNREADABLE + str(failure).encode(errors="replace"))
        for name, place in places:
            cell = cells[place]
            if cell is None or cell.startswith(UNREADABLE):
                why = "is missing" if cell is None else cell[len(NO_KEY) :].decode()
                raise PermanentError(f"{_show_item(form, item)}: {quote(name)}: {why}")
        for name, join in joined:
            try:
                expected = join(cells)
            except UnholdableRow as failure:
                raise PermanentError(f"{_show_item(form, item)}: {failure}") from failure
            if item.get(name) != {"S": expected}:
                raise PermanentError(
                    f"{_show_item(form, item)}: {quote(name)} is not what its columns give: "
                    f"{shorten(expected, 200)!r}"
                )
        return cells

    return read


def _read_whole(value: Any) -> int | None:
    """Read a number as DynamoDB reads a TTL: what is none says nothing."""
    try:
        return int(value["N"])
    except (TypeError, KeyError, ValueError):
        return None


def _show_item(form: ItemForm, item: Item) -> str:
    key = {name: item.get(name) for name in form.key_names}
    shown = cut_sample(dumps(key, default=str, ensure_ascii=False), 300)
    return f"the item {shown} is none that a row gives"


# -- sizes -------------------------------------------------------------------------------------


def item_size(item: Item) -> int:
    """Count an item's bytes as DynamoDB does, for its limit of 400 KB and for capacity units.

    Names and texts count as UTF-8, a list or map 3 bytes and 1 for each element, a number about
    one byte for two digits and one more. Binaries are Base64, as in JSON.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: dict[str, Any]) -> int:
    ((kind, inner),) = value.items()
    match kind:
        case "S":
            return len(inner.encode())
        case "N":
            return _number_size(inner)
        case "B":
            return _binary_size(inner)
        case "L":
            return 3 + sum(1 + _value_size(each) for each in inner)
        case "M":
            return 3 + sum(1 + len(n.encode()) + _value_size(each) for n, each in inner.items())
        case "SS":
            return sum(len(each.encode()) for each in inner)
        case "NS":
            return sum(map(_number_size, inner))
        case "BS":
            return sum(map(_binary_size, inner))
    return 1


def _number_size(text: str) -> int:
    # Two digits share a byte, counted from the decimal point; so 1.5 has two bytes and 15 one.
    plain = f"{Decimal(text):f}" if "E" in text.upper() else text
    whole, _, part = plain.lstrip("-").partition(".")
    digits = "0" * (len(whole) % 2) + whole + part + "0" * (len(part) % 2)
    pairs = [digits[at : at + 2] != "00" for at in range(0, len(digits), 2)]
    used = len(pairs) - pairs.index(True) - pairs[::-1].index(True) if any(pairs) else 0
    return used + 1 + text.startswith("-")


def _binary_size(text: str) -> int:
    return len(text) // 4 * 3 - text[-2:].count("=")


def write_units(size: int) -> int:
    """Give what it costs to write an item of so many bytes: one unit for each begun KB."""
    return max(1, -(-size // 1024))


def read_units(size: int) -> int:
    """Give what a strongly consistent read of so many bytes costs: one for each begun 4 KB."""
    return max(1, -(-size // 4096))
