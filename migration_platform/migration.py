"""A migration as its author declared it: frozen, validated, and free of any connection.

Everything that can be wrong without asking a server is refused here; `preflight.py` asks the
servers. Writetimes and TTLs have only the modes `now` and `none` so far: the other names are
known, so that the refusal can say that they are not there yet.
"""

import re
from dataclasses import dataclass, field

from migration_platform.errors import DeclarationError
from migration_platform.token_ranges import MAX_RANGES, TokenRange, split_ring

CONSISTENCY_LEVELS = (
    "LOCAL_QUORUM",
    "QUORUM",
    "EACH_QUORUM",
    "ALL",
    "ONE",
    "TWO",
    "THREE",
    "LOCAL_ONE",
)
"""ANY is none of them: a hint on one node is no copy."""
DIFF_MODES = ("two_way", "origin_only")


@dataclass(frozen=True)
class TableName:
    """`keyspace.table` as CQL knows them: case and every character kept, quotes removed."""

    keyspace: str
    table: str

    def __str__(self) -> str:
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


@dataclass(frozen=True)
class Endpoint:
    """One side of a migration: a store by name, a table in it, and how to talk to it."""

    store: str
    table: TableName
    consistency: str = "LOCAL_QUORUM"
    rows_per_second: int | None = None
    fetch_size: int | None = None


@dataclass(frozen=True)
class Migration:
    """What is to be moved from where to where, and how.

    Raises:
        DeclarationError: one message that names everything that is wrong and what is valid.
    """

    origin: Endpoint
    target: Endpoint
    token_ranges: int = 64
    workers: int | None = None
    writetime: str | int = "now"
    ttl: str | int = "none"
    group_writes_by: tuple[str, ...] | None = None
    truncate_target: bool = False
    diff_mode: str = "two_way"
    retry_seconds: float = 90.0
    ranges: tuple[TokenRange, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Collect every mistake, so that a user mends the file once."""
        wrong = [
            *self._wrong_numbers(),
            *self._wrong_choices(),
        ]
        if wrong:
            raise DeclarationError("; ".join(wrong))
        object.__setattr__(self, "ranges", split_ring(self.token_ranges))

    @property
    def name(self) -> str:
        """The target's name, which is how users speak of a migration."""
        return f"{self.target.table.keyspace}.{self.target.table.table}"

    def _wrong_numbers(self) -> list[str]:
        wrong = []
        if not 1 <= self.token_ranges <= MAX_RANGES:
            wrong.append(f"token_ranges is {self.token_ranges}; valid are 1 to {MAX_RANGES}")
        if self.workers is not None and not 1 <= self.workers <= 256:
            wrong.append(f"workers is {self.workers}; valid are 1 to 256")
        if not 0 <= self.retry_seconds <= 86_400:
            wrong.append(f"retry_seconds is {self.retry_seconds}; valid are 0 to 86400")
        for side, endpoint in (("origin", self.origin), ("target", self.target)):
            if endpoint.rows_per_second is not None and endpoint.rows_per_second < 1:
                wrong.append(f"{side}.rows_per_second is {endpoint.rows_per_second}; it must be 1+")
        if self.origin.fetch_size is not None and not 1 <= self.origin.fetch_size <= 100_000:
            wrong.append(f"origin.fetch_size is {self.origin.fetch_size}; valid are 1 to 100000")
        return wrong

    def _wrong_choices(self) -> list[str]:
        wrong = []
        for side, endpoint in (("origin", self.origin), ("target", self.target)):
            if endpoint.consistency not in CONSISTENCY_LEVELS:
                wrong.append(
                    f"{side}.consistency is {endpoint.consistency!r}; "
                    f"valid are {', '.join(CONSISTENCY_LEVELS)}"
                )
        if self.diff_mode not in DIFF_MODES:
            wrong.append(f"diff.mode is {self.diff_mode!r}; valid are {', '.join(DIFF_MODES)}")
        if self.writetime != "now":
            wrong.append(f"writetime {self.writetime!r} is not there yet; valid so far is: now")
        if self.ttl != "none":
            wrong.append(f"ttl {self.ttl!r} is not there yet; valid so far is: none")
        same_table = self.origin.table == self.target.table
        if self.origin.store == self.target.store and same_table:
            wrong.append(f"origin and target are both {self.origin.table} in {self.origin.store}")
        return wrong
