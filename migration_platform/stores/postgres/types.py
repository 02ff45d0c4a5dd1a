"""PostgreSQL's types: what a catalogue says of them, and what a user calls them.

A guess that would be wrong: a type that a user writes cannot be bound as a value. It is read by a
grammar of our own first, and only what that has read is written into a statement.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from migration_platform.errors import PreflightError
from migration_platform.extras import needed_for
from migration_platform.stores.postgres.names import quote

with needed_for("a PostgreSQL store", extra="postgres"):
    from psycopg import Connection, Cursor, DataError, NotSupportedError, ProgrammingError
    from psycopg.rows import tuple_row

_MAX_LEVELS = 8
"""How deep types may lie in each other; what is deeper is of kind 'other'."""
_ANY_MODIFIER = -1
_HEADER_BYTES = 4
"""What the modifiers of texts and numerics count more than the user wrote."""

_NAMES_IN_SQL = {
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "bool": "boolean",
    "bpchar": "char",
    "char": '"char"',
}


@dataclass(frozen=True)
class PgType:
    """A type as a catalogue has it.

    Attributes:
        name: The catalogue's name: int4, text, varchar, bpchar, timestamptz, or a user's own.
        oid: Its number, in this database.
        kind: 'base', 'array', 'enum', 'domain', 'composite', or 'other' for all else.
        modifier: The `atttypmod`: the length of a varchar, the digits of a numeric; -1 for none.
        schema: Where its name stands.
        element: What an array holds.
        base: What a domain is made of.
        fields: Name and type of each field of a composite type, in its order.
        labels: What an enum may be, in its order.
    """

    name: str
    oid: int
    kind: str = "base"
    modifier: int = _ANY_MODIFIER
    schema: str = "pg_catalog"
    element: "PgType | None" = None
    base: "PgType | None" = None
    fields: tuple[tuple[str, "PgType"], ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def length(self) -> int | None:
        """How many characters a varchar or char may have; None for any number."""
        if self.name in ("varchar", "bpchar") and self.modifier >= _HEADER_BYTES:
            return self.modifier - _HEADER_BYTES
        return None

    @property
    def digits(self) -> tuple[int, int] | None:
        """How many digits a numeric has, and how many of them after the point; None for any."""
        if self.name != "numeric" or self.modifier < _HEADER_BYTES:
            return None
        packed = self.modifier - _HEADER_BYTES
        # The scale is a number of eleven bits with a sign.
        return packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 0x400) - 0x400

    def __str__(self) -> str:
        """Write the type as SQL has it."""
        if self.kind == "array" and self.element is not None:
            return f"{self.element}[]"
        if self.schema != "pg_catalog":
            shown = f"{quote(self.schema)}.{quote(self.name)}"
            return f"{shown}({self.modifier})" if self.modifier > 0 else shown
        name = _NAMES_IN_SQL.get(self.name, self.name)
        if self.length is not None:
            return f"{name}({self.length})"
        if self.digits is not None:
            precision, scale = self.digits
            return f"{name}({precision},{scale})" if scale else f"{name}({precision})"
        if self.name in ("time", "timetz", "timestamp", "timestamptz") and self.modifier >= 0:
            zone = " with time zone" if self.name.endswith("tz") else ""
            return f"{name.removesuffix('tz')}({self.modifier}){zone}"
        return name


# -- the catalogue -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A row of `pg_type`, with what enums and composite types have elsewhere."""

    name: str
    schema: str
    kind: str
    category: str
    element: int
    base: int
    base_modifier: int
    relation: int
    labels: tuple[str, ...] = ()
    fields: tuple[tuple[str, int, int], ...] = ()

    @property
    def is_array(self) -> bool:
        return self.kind == "b" and self.category == "A" and self.element != 0

    @property
    def inner(self) -> Iterable[int]:
        """The numbers of the types that it is made of."""
        found = [oid for _, oid, _ in self.fields]
        return [*found, *[oid for oid in (self.element, self.base) if oid]]


def read_types(connection: Connection, wanted: Sequence[tuple[int, int]]) -> list[PgType]:
    """Read types from the catalogue, by their number and modifier, in the order given.

    It takes up to three queries for each level of types that lie in each other.

    Raises:
        PreflightError: the catalogue has no such type.
    """
    known: dict[int, _Entry] = {}
    missing = {oid for oid, _ in wanted}
    with connection.cursor(row_factory=tuple_row) as cursor:
        for _ in range(_MAX_LEVELS):
            if not missing:
                break
            known |= _read_entries(cursor, sorted(missing))
            missing = {oid for entry in known.values() for oid in entry.inner} - known.keys()
    for oid, _ in wanted:
        if oid not in known:
            raise PreflightError(f"the database has no type with the number {oid}")
    return [_build(known, oid, modifier, _MAX_LEVELS) for oid, modifier in wanted]


_TYPES = """
SELECT t.oid, t.typname, n.nspname, t.typtype, t.typcategory,
       t.typelem, t.typbasetype, t.typtypmod, t.typrelid
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid = ANY(%s)
"""
_LABELS = """
SELECT enumtypid, enumlabel FROM pg_catalog.pg_enum
WHERE enumtypid = ANY(%s) ORDER BY enumtypid, enumsortorder
"""
_FIELDS = """
SELECT attrelid, attname, atttypid, atttypmod FROM pg_catalog.pg_attribute
WHERE attrelid = ANY(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum
"""


def _read_entries(cursor: Cursor[tuple], oids: list[int]) -> dict[int, _Entry]:
    found = {
        row[0]: _Entry(
            name=row[1],
            schema=row[2],
            kind=_mark(row[3]),
            category=_mark(row[4]),
            element=row[5],
            base=row[6],
            base_modifier=row[7],
            relation=row[8],
        )
        for row in cursor.execute(_TYPES, (oids,)).fetchall()
    }
    enums = [oid for oid, entry in found.items() if entry.kind == "e"]
    if enums:
        labels: dict[int, list[str]] = {}
        for oid, label in cursor.execute(_LABELS, (enums,)):
            labels.setdefault(oid, []).append(label)
        found |= {oid: replace(found[oid], labels=tuple(labels.get(oid, ()))) for oid in enums}
    tables = {entry.relation: oid for oid, entry in found.items() if entry.kind == "c"}
    if tables:
        fields: dict[int, list[tuple[str, int, int]]] = {}
        for table, *field in cursor.execute(_FIELDS, (list(tables),)):
            fields.setdefault(table, []).append((field[0], field[1], field[2]))
        for table, oid in tables.items():
            found[oid] = replace(found[oid], fields=tuple(fields.get(table, ())))
    return found


def _mark(value: str | bytes) -> str:
    """Give a one-letter mark as text; psycopg has it as bytes."""
    return value.decode() if isinstance(value, bytes) else value


_KINDS = {"b": "base", "e": "enum", "d": "domain", "c": "composite"}


def _build(known: dict[int, _Entry], oid: int, modifier: int, levels: int) -> PgType:
    entry = known.get(oid)
    if entry is None:
        return PgType(f"type {oid}", oid, "other", modifier)

    def build(inner: int, inner_modifier: int) -> PgType:
        return _build(known, inner, inner_modifier, levels - 1)

    found = PgType(
        entry.name,
        oid,
        _KINDS.get(entry.kind, "other"),
        modifier,
        entry.schema,
        labels=entry.labels,
    )
    if not levels:
        return replace(found, kind="other")
    if entry.is_array:
        # The modifier of an array is that of its elements.
        element = build(entry.element, modifier)
        return replace(found, kind="array", modifier=_ANY_MODIFIER, element=element)
    if entry.kind == "d":
        base = build(entry.base, entry.base_modifier)
        return replace(found, modifier=_ANY_MODIFIER, base=base)
    fields = tuple((name, build(inner, inner_mod)) for name, inner, inner_mod in entry.fields)
    return replace(found, fields=fields)


# -- what a user writes ------------------------------------------------------------------------

_NAME = r'(?:[A-Za-z_][A-Za-z0-9_$]*|"(?:[^"\x00]|"")+")'
_IN_WORDS = r"double\s+precision|(?:character|char|bit)\s+varying"
_WRITTEN = re.compile(
    rf"""\s*(?:(?P<words>{_IN_WORDS})|(?P<schema>{_NAME})\s*\.\s*(?P<own>{_NAME})|(?P<name>{_NAME}))
    \s*(?:\(\s*(?P<first>[0-9]{{1,5}})\s*(?:,\s*(?P<second>-?[0-9]{{1,5}})\s*)?\))?
    \s*(?P<zone>with(?:out)?\s+time\s+zone)?\s*(?P<array>\[\s*\])?\s*""",
    re.IGNORECASE | re.VERBOSE,
)


def parse_written(text: str) -> str | None:
    """Read a type that a user wrote, and give it as a statement may have it; None if it is none.

    It is a name, with a schema or without, in quotes or not; numbers in parentheses; and `[]`.
    """
    found = _WRITTEN.fullmatch(text)
    if not found:
        return None
    words, zone = found["words"], found["zone"]
    if words:
        name = " ".join(words.lower().split())
    elif found["schema"]:
        name = f"{_rendered(found['schema'])}.{_rendered(found['own'])}"
    else:
        name = _rendered(found["name"])
    if zone and name not in ("time", "timestamp"):
        return None
    numbers = ",".join(n for n in (found["first"], found["second"]) if n)
    shown = name + (f"({numbers})" if numbers else "")
    shown += " " + " ".join(zone.lower().split()) if zone else ""
    return shown + ("[]" if found["array"] else "")


def _rendered(name: str) -> str:
    """Give a name in its quotes, or in lower case: nothing of the grammar ends a statement."""
    return name if name.startswith('"') else name.lower()


def resolve_type(connection: Connection, text: str) -> PgType:
    """Ask the server which type it is that a user wrote, as `varchar(200)` or `shop.mood[]`.

    Raises:
        PreflightError: it is none, or none of this database; one sentence.
    """
    written = parse_written(text)
    if written is None:
        raise PreflightError(
            f"{text[:60]!r} is no type; write a name as in SQL, such as text, varchar(200), "
            'numeric(10,2), bigint[] or shop."Mood"'
        )
    try:
        with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            # The grammar has read it: names, digits and brackets.
            cursor.execute(f"SELECT NULL::{written}".encode())
            result = cursor.pgresult
            assert result is not None
            modifier = result.fmod(0)
            # Of a domain a result has the type that it is made of.
            row = cursor.execute("SELECT to_regtype(%s)::oid", (written,)).fetchone()
            assert row is not None
    except (ProgrammingError, DataError, NotSupportedError) as failure:
        said = failure.diag.message_primary or str(failure)
        raise PreflightError(f"the server knows no type {written}: {said}") from None
    return read_types(connection, [(row[0], modifier)])[0]
