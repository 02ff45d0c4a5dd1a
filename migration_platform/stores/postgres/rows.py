"""Rows between CQL's cells and PostgreSQL's binary copy format, which is nearly the same.

Both write a value as an int32 length and so many bytes, and a null as length -1; a row of the copy
format has an int16 before it, the number of its values. Text, integers, floats, uuid, bytea and
booleans even have the same bytes. So a row of those alone is passed on as it is.

https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct

from migration_platform.cql.conversion import Converter
from migration_platform.cql.rows import compile_conversion, split_cells
from migration_platform.errors import PermanentError
from migration_platform.plan.model import Plan, Source
from migration_platform.stores.interface import Cells
from migration_platform.stores.postgres.codecs import Codec, UnholdableValue
from migration_platform.stores.postgres.names import quote
from migration_platform.stores.postgres.shape import codec_of, stored_type
from migration_platform.stores.postgres.types import PgType

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
_COUNT = Struct(">h")


@dataclass(frozen=True)
class FormColumn:
    """A column of a row that is written or read."""

    name: str
    cql_type: str
    pg_type: PgType
    codec: Codec
    is_key: bool


@dataclass(frozen=True)
class RowForm:
    """The columns of a row, in the order of its cells."""

    columns: tuple[FormColumn, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def keys(self) -> tuple[int, ...]:
        """Where the cells of the key are."""
        return tuple(at for at, column in enumerate(self.columns) if column.is_key)


class UnholdableRow(PermanentError):  # noqa: N818, it reads as what is wrong
    """A row that PostgreSQL cannot hold; one sentence says why."""


def build_row_form(plan: Plan, sources: Sequence[Source]) -> RowForm:
    """Say how the rows of some sources are written and read."""
    columns = []
    for source in sources:
        codec = codec_of(plan, source)
        assert codec is not None, source.target
        pg_type = stored_type(plan.target, source.target)
        columns.append(FormColumn(source.target, source.target_type, pg_type, codec, source.is_key))
    return RowForm(tuple(columns))


def compile_row_encoder(form: RowForm) -> Callable[[bytes], bytes]:
    """Build what turns a row's cells into what follows its number of values in a copy.

    Raises (the built function):
        UnholdableRow: PostgreSQL cannot hold a value.
    """
    steps = {at: c.codec.encode for at, c in enumerate(form.columns) if c.codec.encode}
    if not steps:
        return lambda values: values
    convert, names = compile_conversion(steps), form.names

    def encode(values: bytes) -> bytes:
        try:
            return convert(values)
        except UnholdableValue as why:
            cells = split_cells(values, len(names))
            raise UnholdableRow(_find_cause(steps, names, cells, why)) from why

    return encode


def _find_cause(
    steps: Mapping[int, Converter], names: Sequence[str], cells: Cells, why: UnholdableValue
) -> str:
    """Say which of a row's values PostgreSQL cannot hold."""
    for at, step in steps.items():
        cell = cells[at]
        try:
            if cell is not None:
                step(cell)
        except UnholdableValue as cause:
            return _told(names[at], cause)
    return str(why)


def _told(column: str, why: object) -> str:
    """Say of a column what PostgreSQL cannot hold; the way out names an attribute of the column."""
    return f"column {quote(column)}: {str(why).replace('.NAME.', f'.{column}.')}"


def compile_row_decoder(form: RowForm) -> Callable[[bytes], bytes]:
    """Build what turns a row of a binary copy into its cells."""
    steps = {at: c.codec.decode for at, c in enumerate(form.columns) if c.codec.decode}
    if not steps:
        return lambda row: row[2:]
    convert = compile_conversion(steps)
    return lambda row: convert(row[2:])


def row_head(values: int) -> bytes:
    """Give what stands before each row of a copy: how many values it has."""
    return _COUNT.pack(values)


def compile_key_encoder(
    columns: Sequence[FormColumn], positions: Sequence[int]
) -> Callable[[Cells], list[tuple[int, bytes]] | None]:
    """Build what turns the cells of a key, as they stand at `positions`, into typed values.

    It gives None for a key that no row can have.
    """
    chosen = list(zip(columns, positions, strict=True))

    def encode(cells: Cells) -> list[tuple[int, bytes]] | None:
        values: list[tuple[int, bytes]] = []
        for column, position in chosen:
            cell = cells[position]
            if cell is None:
                return None
            try:
                value = column.codec.encode(cell) if column.codec.encode else cell
            except UnholdableValue:
                return None
            if column.codec.refuses and column.codec.refuses(cell):
                return None
            values.append((column.pg_type.oid, value))
        return values

    return encode


def compile_rejection(form: RowForm) -> Callable[[Cells], str]:
    """Build what says why PostgreSQL cannot hold a row; empty if it can."""

    def reject(cells: Cells) -> str:
        for column, cell in zip(form.columns, cells, strict=True):
            if cell is None:
                if column.is_key:
                    return f"column {quote(column.name)} is part of the key, and null"
                continue
            try:
                if column.codec.encode:
                    column.codec.encode(cell)
            except UnholdableValue as why:
                return _told(column.name, why)
            if column.codec.refuses and (told := column.codec.refuses(cell)):
                return _told(column.name, told)
        return ""

    return reject


def canonical_cells(form: RowForm) -> dict[int, Converter]:
    """Say which cells come back in the one form of their value only, and what gives that form."""
    return {
        at: _forgiving(column.codec.canonical)
        for at, column in enumerate(form.columns)
        if column.codec.canonical is not None
    }


def _forgiving(canonical: Converter) -> Converter:
    """Leave a value as it is that PostgreSQL cannot hold: its row is missing there."""

    def convert(cell: bytes) -> bytes:
        try:
            return canonical(cell)
        except UnholdableValue:
            return cell

    return convert
