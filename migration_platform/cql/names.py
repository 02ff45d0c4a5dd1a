"""Names of keyspaces, tables and columns, as CQL knows and quotes them."""

import re
from dataclasses import dataclass

from migration_platform.errors import DeclarationError


@dataclass(frozen=True)
class TableName:
    """`keyspace.table` as CQL knows them: case and every character kept, quotes removed.

    A table of a store without keyspaces has an empty one.
    """

    keyspace: str
    table: str

    def __str__(self) -> str:
        if not self.keyspace:
            return self.table
        return f"{quote(self.keyspace)}.{quote(self.table)}"

    @classmethod
    def parse(cls, text: str) -> "TableName":
        """Read `keyspace.table`; a part in double quotes keeps its case, others are folded.

        Raises:
            DeclarationError: the text has not exactly two parts.
        """
        part = r'(?:"((?:[^"]|"")+)"|([A-Za-z][A-Za-z0-9_]*))'
        found = re.fullmatch(rf"{part}\.{part}", text.strip())
        if not found:
            raise DeclarationError(
                f"{text!r} is no table name; write keyspace.table, and names with capitals or "
                'special characters in double quotes: "My Keyspace"."Table"'
            )
        quoted_keyspace, keyspace, quoted_table, table = found.groups()
        return cls(
            quoted_keyspace.replace('""', '"') if quoted_keyspace else keyspace.lower(),
            quoted_table.replace('""', '"') if quoted_table else table.lower(),
        )


def quote(identifier: str) -> str:
    """Quote an identifier where CQL needs it; hostile names cannot end the quotes."""
    if re.fullmatch(r"[a-z][a-z0-9_]*", identifier) and identifier not in _RESERVED:
        return identifier
    return '"' + identifier.replace('"', '""') + '"'


# The reserved words of Cassandra's CQL grammar: the ones that are no name without quotes.
_RESERVED = frozenset(
    """
    add allow alter and apply asc authorize batch begin by columnfamily create default delete desc
    describe drop entries execute from full grant if in index infinity insert into is keyspace limit
    materialized mbean mbeans modify nan norecursive not null of on or order primary rename replace
    revoke schema select set table to token truncate unlogged unset update use using view where with
    """.split()  # noqa: SIM905, a hundred quotes would hide the words
)
