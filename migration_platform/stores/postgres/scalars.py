"""Scalars in PostgreSQL's binary format: whole and real numbers, times, addresses, texts.

A guess that would be wrong: PostgreSQL counts from the year 2000, in microseconds and days.
"""

from collections.abc import Callable
from struct import Struct, error

from cassandra.marshal import vints_pack, vints_unpack

from migration_platform.cql.forms import one_nan, one_or_zero
from migration_platform.cql.texts import TEXTS, Text, text_of
from migration_platform.cql.types import CqlType
from migration_platform.stores.postgres.codec import (
    Codec,
    UnholdableValue,
    explained,
    forgiving,
    no_value,
    of_size,
    strict,
    unholdable,
)
from migration_platform.stores.postgres.numbers import (
    decimal_as_numeric,
    varint_as_numeric,
    whole_as_numeric,
)
from migration_platform.stores.postgres.types import PgType

_INT32, _INT64, _UINT32 = Struct(">i"), Struct(">q"), Struct(">I")
WHOLE = {
    "tinyint": Struct(">b"),
    "smallint": Struct(">h"),
    "int": Struct(">i"),
    "bigint": Struct(">q"),
    "counter": Struct(">q"),
}
_PG_WHOLE = {"int2": Struct(">h"), "int4": Struct(">i"), "int8": Struct(">q")}
_WIDER = {"int2": "integer", "int4": "bigint", "int8": "numeric"}
_REAL = {"float": Struct(">f"), "double": Struct(">d")}
_PG_REAL = {"float4": Struct(">f"), "float8": Struct(">d")}


# -- numbers -----------------------------------------------------------------------------------


def whole(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a whole number, wider or narrower at the target."""
    layout, other = WHOLE[cql_type.name], _PG_WHOLE.get(pg_type.name)
    if pg_type.name == "numeric":
        return whole_as_numeric(cql_type, pg_type, layout)
    if other is None:
        return None
    if other.size == layout.size:
        return Codec(refuses=of_size(layout.size, cql_type))
    unpack, pack = layout.unpack, other.pack

    def encode(cell: bytes) -> bytes:
        try:
            return pack(*unpack(cell))
        except error as failure:
            if len(cell) != layout.size:
                raise no_value(cell, cql_type) from failure
            raise unholdable(
                cell, cql_type, f"is beyond {pg_type}", _WIDER[pg_type.name]
            ) from failure

    decode = strict(lambda value: layout.pack(*other.unpack(value)))
    note = f"what {pg_type} does not hold is rejected" if other.size < layout.size else ""
    return Codec(encode, decode, note=note)


def varint(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a whole number of any size."""
    if pg_type.name == "numeric":
        return varint_as_numeric(cql_type, pg_type)
    layout = _PG_WHOLE.get(pg_type.name)
    if layout is None:
        return None
    size = layout.size
    canonical = TEXTS["varint"].canonical

    def encode(cell: bytes) -> bytes:
        if not cell:
            raise no_value(cell, cql_type)
        try:
            return int.from_bytes(cell, "big", signed=True).to_bytes(size, "big", signed=True)
        except OverflowError as failure:
            raise unholdable(cell, cql_type, f"is beyond {pg_type}", "numeric") from failure

    assert canonical is not None
    note = f"what {pg_type} does not hold is rejected"
    return Codec(encode, canonical, canonical, note=note)


def decimal(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a decimal."""
    return decimal_as_numeric(cql_type, pg_type) if pg_type.name == "numeric" else None


def real(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a number with a binary point: its bits stay, and a float may widen."""
    layout, other = _REAL[cql_type.name], _PG_REAL.get(pg_type.name)
    if other is None or other.size < layout.size:
        return None
    canonical = one_nan(layout.format)
    note = "every NaN is one"
    if other.size == layout.size:
        # Every NaN keeps its bits on the way, and is one at its end.
        return Codec(None, canonical, canonical, of_size(layout.size, cql_type), note=note)

    def decode(value: bytes) -> bytes:
        (number,) = other.unpack(value)
        cell = layout.pack(number)
        if number == number and layout.unpack(cell)[0] != number:
            raise ValueError(f"{number!r} is no {cql_type}")
        return canonical(cell)

    encode = explained(lambda cell: other.pack(*layout.unpack(cell)), cql_type)
    return Codec(encode, strict(decode), canonical, note=note)


def real_as_key(codec: Codec, cql_type: CqlType) -> Codec:
    """Take no -0.0 and no odd NaN: PostgreSQL would take them for another row's key."""
    unpack, usual, encode = _REAL[cql_type.name].unpack, codec.canonical, codec.encode
    assert usual is not None

    def encode_usual(cell: bytes) -> bytes:
        try:
            (number,) = unpack(cell)
        except error as failure:
            raise no_value(cell, cql_type) from failure
        if (not number and any(cell)) or usual(cell) != cell:
            why = "as a key is one with another value's in PostgreSQL"
            raise unholdable(cell, cql_type, why, "bytea")
        return encode(cell) if encode else cell

    return Codec(encode_usual, codec.decode, note="as a key -0.0 and odd NaNs are rejected")


def boolean(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a boolean: a server takes any byte but zero for true."""
    if pg_type.name != "bool":
        return None
    return Codec(None, None, one_or_zero, of_size(1, cql_type))


# -- times -------------------------------------------------------------------------------------

_EPOCH_DAYS = 10_957
"""From 1970 to 2000."""
_EPOCH_US = _EPOCH_DAYS * 86_400_000_000
_FIRST_DAY, _LAST_DAY = -2_451_545, 2_145_031_948
"""4713 BC, where Julian days begin, and 5874897-12-31, in days from 2000."""
_FIRST_US, _END_US = _FIRST_DAY * 86_400_000_000, 9_223_371_331_200_000_000
"""4713 BC, and the end of the year 294276."""
_DAY_NS = 86_400_000_000_000
_MIDDLE = 2**31
"""The day of a date that is 1970-01-01."""


def _precision_us(pg_type: PgType) -> int:
    """Give of how many microseconds the times of a column are multiples."""
    return 10 ** (6 - pg_type.modifier) if 0 <= pg_type.modifier <= 6 else 1


def timestamp(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a timestamp: milliseconds from 1970, microseconds from 2000."""
    if pg_type.name == "int8":
        return Codec(refuses=of_size(8, cql_type), note="milliseconds since 1970")
    if pg_type.name not in ("timestamptz", "timestamp"):
        return None
    unpack, pack, step = _INT64.unpack, _INT64.pack, _precision_us(pg_type)

    def encode(cell: bytes) -> bytes:
        try:
            (millis,) = unpack(cell)
        except error as failure:
            raise no_value(cell, cql_type) from failure
        micros = millis * 1000 - _EPOCH_US
        if not _FIRST_US <= micros < _END_US:
            why = f"is beyond {pg_type}, which has 4713 BC to 294276-12-31"
            raise unholdable(cell, cql_type, why, "bigint")
        if step > 1000 and micros % step:
            raise unholdable(cell, cql_type, f"would be rounded as {pg_type}", pg_type.name)
        return pack(micros)

    def decode(value: bytes) -> bytes:
        (micros,) = unpack(value)
        if not _FIRST_US <= micros < _END_US:
            raise ValueError("it is infinite")
        millis, rest = divmod(micros + _EPOCH_US, 1000)
        if rest:
            raise ValueError("it has microseconds")
        return pack(millis)

    note = "beyond 4713 BC to 294276-12-31 rejected"
    note += ", without a zone: UTC" if pg_type.name == "timestamp" else ""
    return Codec(encode, strict(decode), note=note)


def date(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a date: unsigned with 1970 in the middle, signed from 2000."""
    if pg_type.name in ("int4", "int8"):
        pack_days = _PG_WHOLE[pg_type.name]
        return Codec(
            explained(lambda c: pack_days.pack(_UINT32.unpack(c)[0] - _MIDDLE), cql_type),
            strict(lambda value: _UINT32.pack(pack_days.unpack(value)[0] + _MIDDLE)),
            note="days since 1970",
        )
    if pg_type.name != "date":
        return None
    unpack, pack, offset = _UINT32.unpack, _INT32.pack, _MIDDLE + _EPOCH_DAYS

    def encode(cell: bytes) -> bytes:
        try:
            days = unpack(cell)[0] - offset
        except error as failure:
            raise no_value(cell, cql_type) from failure
        if not _FIRST_DAY <= days <= _LAST_DAY:
            why = "is beyond date, which has 4713 BC to 5874897-12-31"
            raise unholdable(cell, cql_type, why, "integer")
        return pack(days)

    def decode(value: bytes) -> bytes:
        (days,) = _INT32.unpack(value)
        if not _FIRST_DAY <= days <= _LAST_DAY:
            raise ValueError("it is infinite")
        return _UINT32.pack(days + offset)

    return Codec(encode, strict(decode), note="beyond 4713 BC to 5874897-12-31 rejected")


def time(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a time of day: nanoseconds, microseconds."""
    if pg_type.name == "int8":
        return Codec(refuses=of_size(8, cql_type), note="nanoseconds since midnight")
    if pg_type.name != "time":
        return None
    unpack, pack, step = _INT64.unpack, _INT64.pack, 1000 * _precision_us(pg_type)

    def encode(cell: bytes) -> bytes:
        try:
            (nanos,) = unpack(cell)
        except error as failure:
            raise no_value(cell, cql_type) from failure
        if not 0 <= nanos < _DAY_NS:
            raise UnholdableValue(f"{nanos:,} nanoseconds are no time of day")
        if nanos % step:
            raise unholdable(cell, cql_type, f"is finer than {pg_type} can be", "bigint")
        return pack(nanos // 1000)

    def decode(value: bytes) -> bytes:
        (micros,) = unpack(value)
        if not 0 <= micros * 1000 < _DAY_NS:
            raise ValueError("24:00 is no time of day")
        return pack(micros * 1000)

    return Codec(encode, strict(decode), note="what is no whole microsecond is rejected")


_INTERVAL = Struct(">qii")


def duration(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a duration: months, days and nanoseconds, which are microseconds."""
    # An interval of some fields only, or with a precision, would cut off the others.
    if pg_type.name != "interval" or pg_type.modifier != -1:
        return None

    def encode(cell: bytes) -> bytes:
        months, days, nanos = vints_unpack(cell)
        micros, rest = divmod(nanos, 1000)
        if rest:
            raise unholdable(cell, cql_type, "is finer than interval can be", "jsonb")
        return _INTERVAL.pack(micros, days, months)

    def decode(value: bytes) -> bytes:
        micros, days, months = _INTERVAL.unpack(value)
        return bytes(vints_pack([months, days, micros * 1000]))

    canonical = TEXTS["duration"].canonical
    assert canonical is not None
    note = "what is no whole microsecond is rejected"
    return Codec(explained(encode, cql_type), strict(decode), forgiving(canonical), note=note)


# -- what is no number -------------------------------------------------------------------------


def uuid(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of a UUID."""
    return Codec(refuses=of_size(16, cql_type)) if pg_type.name == "uuid" else None


_INET_HEADS = {4: b"\2\x20\0\4", 16: b"\3\x80\0\x10"}
"""Family, bits of the network, whether it is one, and bytes, of one whole address."""


def inet(cql_type: CqlType, pg_type: PgType) -> Codec | None:
    """Build the codec of an address."""
    if pg_type.name != "inet":
        return None

    def encode(cell: bytes) -> bytes:
        head = _INET_HEADS.get(len(cell))
        if head is None:
            raise no_value(cell, cql_type)
        return head + cell

    def decode(value: bytes) -> bytes:
        cell = value[4:]
        if _INET_HEADS.get(len(cell)) != value[:4]:
            raise ValueError("it is a network")
        return cell

    return Codec(encode, decode)


# -- texts -------------------------------------------------------------------------------------

TEXT_LIKE = frozenset({"text", "varchar"})
"""Types whose values are the bytes of a text, of which two are equal only if all bytes are."""
_NUL_SIGN, _ESCAPE_SIGN = "␀".encode(), "␛".encode()
_BEGINS_SIGNS = _NUL_SIGN[:2]


def escape_nul(cell: bytes) -> bytes:
    """Write NUL as the sign ␀, and the signs ␀ and ␛ themselves with a ␛ before them."""
    if _BEGINS_SIGNS in cell:
        cell = cell.replace(_ESCAPE_SIGN, _ESCAPE_SIGN * 2)
        cell = cell.replace(_NUL_SIGN, _ESCAPE_SIGN + _NUL_SIGN)
    return cell.replace(b"\0", _NUL_SIGN)


def unescape_nul(value: bytes) -> bytes:
    """Undo `escape_nul`."""
    if _BEGINS_SIGNS not in value:
        return value
    parts = value.split(_ESCAPE_SIGN)
    found, at = [parts[0].replace(_NUL_SIGN, b"\0")], 1
    while at < len(parts):
        part = parts[at]
        if part.startswith(_NUL_SIGN):
            rest = part[len(_NUL_SIGN) :]
            found.append(_NUL_SIGN)
        elif not part and at + 1 < len(parts):
            at += 1
            rest = parts[at]
            found.append(_ESCAPE_SIGN)
        else:
            raise ValueError("a ␛ in it escapes nothing")
        found.append(rest.replace(_NUL_SIGN, b"\0"))
        at += 1
    return b"".join(found)


def why_no_text(cell: bytes, cql_type: CqlType, *, nul: str) -> str | None:
    """Say why PostgreSQL cannot hold a text; None if it can."""
    if nul == "refuse" and b"\0" in cell:
        return (
            f"a NUL at byte {cell.index(0):,} of the text is no character that PostgreSQL can "
            "hold; declare target.columns.NAME.type: bytea"
        )
    try:
        cell.decode()
    except UnicodeDecodeError as failure:
        return (
            f"its bytes are no {cql_type}: {failure.reason} at byte {failure.start:,}; declare "
            "target.columns.NAME.type: bytea"
        )
    return None


def text(cql_type: CqlType, pg_type: PgType, nul: str) -> Codec | None:
    """Build the codec of a text as text."""
    if pg_type.name not in (*TEXT_LIKE, "citext"):
        return None
    escapes = nul == "escape"

    def refuses(cell: bytes) -> str | None:
        return why_no_text(cell, cql_type, nul=nul)

    note = "NUL is written as ␀" if escapes else "texts with a NUL are rejected"
    plain = Codec(
        escape_nul if escapes else None,
        unescape_nul if escapes else None,
        refuses=refuses,
        note=note,
    )
    return within_length(plain, cql_type, pg_type)


def canonical_text(cql_type: CqlType) -> Codec:
    """Build the codec of anything but a text as its canonical text."""
    found: Text = text_of(cql_type)
    write, read = found.write, found.read

    def encode(cell: bytes) -> bytes:
        return write(cell).encode() if cell else b""

    def decode(value: bytes) -> bytes:
        return read(value.decode()) if value else b""

    canonical = forgiving(found.canonical) if found.canonical else None
    return Codec(explained(encode, cql_type), strict(decode), canonical)


def within_length(codec: Codec, cql_type: CqlType, pg_type: PgType) -> Codec:
    """Refuse what a varchar(n) is too short for: a server would cut spaces off its end."""
    length = pg_type.length
    if length is None:
        return codec
    encode = codec.encode

    def encode_short(cell: bytes) -> bytes:
        value = encode(cell) if encode else cell
        if len(value) > length:
            try:
                characters = len(value.decode())
            except UnicodeDecodeError as failure:
                raise UnholdableValue(f"its bytes are no {cql_type}: {failure.reason}") from failure
            if characters > length:
                why = f"has {characters:,} characters, and {pg_type} holds {length:,}"
                raise unholdable(cell, cql_type, why, "text")
        return value

    note = f"longer than {length:,} characters rejected"
    note = f"{codec.note}; {note}" if codec.note else note
    return Codec(encode_short, codec.decode, codec.canonical, codec.refuses, codec.exact, note)


def enum(cql_type: CqlType, pg_type: PgType) -> Codec:
    """Build the codec of a text as a label."""
    labels = frozenset(label.encode() for label in pg_type.labels)

    def encode(cell: bytes) -> bytes:
        if cell not in labels:
            raise unholdable(cell, cql_type, f"is no label of {pg_type}", "text")
        return cell

    return Codec(encode, note=f"what is no label of {pg_type} is rejected")


Builder = Callable[[CqlType, PgType], Codec | None]
SCALARS: dict[str, Builder] = {
    **dict.fromkeys(WHOLE, whole),
    **dict.fromkeys(_REAL, real),
    **dict.fromkeys(("uuid", "timeuuid"), uuid),
    "varint": varint,
    "decimal": decimal,
    "boolean": boolean,
    "timestamp": timestamp,
    "date": date,
    "time": time,
    "duration": duration,
    "inet": inet,
}
"""What builds the codec of a type, texts and blobs aside, for a type of PostgreSQL's own."""
