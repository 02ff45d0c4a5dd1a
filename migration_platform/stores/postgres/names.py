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
    """Quote an identifier where SQL needs it; a hostile one cannot end the quotes."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", identifier) and identifier not in _RESERVED:
        return identifier
    return '"' + identifier.replace('"', '""') + '"'


def quote_name(name: PgName) -> str:
    """Quote a table's name with its schema."""
    return f"{quote(name.schema)}.{quote(name.table)}"


_RESERVED = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit
    boolean both case cast char character check coalesce collate collation column concurrently
    constraint create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user dec decimal default deferrable desc distinct do else end except
    exists extract false fetch float for foreign freeze from full grant greatest group grouping
    having ilike in initially inner inout int integer intersect interval into is isnull join lateral
    leading least left like limit localtime localtimestamp national natural nchar none normalize not
    notnull null nullif numeric offset on only or order out outer overlaps overlay placing position
    precision primary real references returning right row select session_user setof similar smallint
    some substring symmetric system_user table tablesample then time timestamp to trailing treat
    trim true union unique user using values varchar variadic verbose when where window with
    xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot
    xmlserialize xmltable
    """.split()  # noqa: SIM905, a hundred quotes would hide the words
)
"""Words that are no name of a schema or a type without quotes."""
