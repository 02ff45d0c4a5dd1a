"""Names of schemas, tables and columns, as PostgreSQL knows and quotes them."""

import re
from dataclasses import dataclass

from migration_platform.errors import DeclarationError

_PART = r'(?:"((?:[^"]|"")+)"|([A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*))'


@dataclass(frozen=True)
class PgName:
    """A table in a schema: case and every character kept, quotes removed."""

    schema: str
    table: str

    def __str__(self) -> str:
        return quote_name(self)


def parse_name(text: str) -> tuple[str, ...]:
    """Read `table`, `schema.table` or `database.schema.table`; give its parts.

    A part in double quotes keeps its case, others are folded, as the server does.

    Raises:
        DeclarationError: the text is no such name.
    """
    found = re.fullmatch(rf"{_PART}(?:\.{_PART})?(?:\.{_PART})?", text.strip())
    if not found:
        raise DeclarationError(
            f"{text!r} is no table name of PostgreSQL; write table, schema.table or "
            "database.schema.table, and names with capitals or special characters in double "
            'quotes: "My Schema"."Table"'
        )
    groups = found.groups()
    pairs = zip(groups[::2], groups[1::2], strict=True)
    return tuple(
        quoted.replace('""', '"') if quoted else plain.lower()
        for quoted, plain in pairs
        if quoted or plain
    )


def quote(identifier: str) -> str:
    """Quote an identifier; hostile names cannot end the quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def quote_name(name: PgName) -> str:
    """Quote a table's name with its schema."""
    return f"{quote(name.schema)}.{quote(name.table)}"
