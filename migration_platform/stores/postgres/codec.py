"""What turns a cell into a value of PostgreSQL and back: the parts that every codec shares."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from migration_platform.cql.samples import show_sample
from migration_platform.cql.texts import NOT_OF_THE_TYPE
from migration_platform.cql.types import CqlType
from migration_platform.errors import PermanentError

Convert = Callable[[bytes], bytes]


class UnholdableValue(PermanentError):  # noqa: N818, it is the value that its sentence tells of
    """PostgreSQL cannot hold a value; one sentence that says of it what, and the way out."""


@dataclass(frozen=True)
class Codec:
    """Cells of one column as values in PostgreSQL's binary format; null never comes to it.

    Attributes:
        encode: Makes the value of a cell, or raises `UnholdableValue`. None: its bytes are it.
        decode: Makes the cell of a value, or raises ValueError if no encoder can have made it.
            None: its bytes are it.
        canonical: Gives what comes back of a cell: the one of all that become the same value. None:
            every cell comes back as it was.
        refuses: Says why PostgreSQL cannot hold a cell that `encode` lets pass; None for all that
            it can. None: `encode` refuses all that there is to refuse, or there is nothing.
        exact: Whether every value that is taken comes back as it was.
        note: What is not taken, or does not come back, in a few words.
    """

    encode: Convert | None = None
    decode: Convert | None = None
    canonical: Convert | None = None
    refuses: Callable[[bytes], str | None] | None = None
    exact: bool = True
    note: str = ""


def no_value(cell: bytes, cql_type: CqlType) -> UnholdableValue:
    """Build the refusal of bytes that are no value of their type, as none at all."""
    if not cell:
        return UnholdableValue(
            f"an empty value of no bytes is no {cql_type} that PostgreSQL can hold; declare "
            "target.columns.NAME.type: text"
        )
    return UnholdableValue(f"its {len(cell)} bytes are no {cql_type}")


def unholdable(
    cell: bytes, cql_type: CqlType, why: str, instead: str | None = None
) -> UnholdableValue:
    """Build the refusal of a value; `why` goes on after it, `instead` is a type that holds it."""
    way_out = f"; declare target.columns.NAME.type: {instead}" if instead else ""
    return UnholdableValue(f"{show_sample(cell, cql_type)} {why}{way_out}")


def of_size(size: int, cql_type: CqlType) -> Callable[[bytes], str | None]:
    """Build what refuses cells that have not as many bytes as all values of their type."""

    def refuses(cell: bytes) -> str | None:
        return None if len(cell) == size else str(no_value(cell, cql_type))

    return refuses


def explained(encode: Convert, cql_type: CqlType) -> Convert:
    """Let bytes that are no value of the type end in an `UnholdableValue` that says so."""

    def encode_or_explain(cell: bytes) -> bytes:
        try:
            return encode(cell)
        except (ValueError, *NOT_OF_THE_TYPE) as failure:
            raise no_value(cell, cql_type) from failure

    return encode_or_explain


def forgiving(canonical: Convert) -> Convert:
    """Leave bytes that are no value of their type as they are."""

    def unless_unreadable(cell: bytes) -> bytes:
        try:
            return canonical(cell)
        except (ValueError, PermanentError, RecursionError, *NOT_OF_THE_TYPE):
            return cell

    return unless_unreadable


def strict(decode: Convert) -> Convert:
    """Let a value that no encoder has made end in a ValueError."""

    def decode_or_explain(value: bytes) -> bytes:
        try:
            return decode(value)
        except NOT_OF_THE_TYPE as failure:
            raise ValueError(f"its {len(value)} bytes are no value that was written") from failure

    return decode_or_explain


def as_key(codec: Codec, cql_type: CqlType) -> Codec:
    """Take only cells in the one form of their value: two rows must never get one key."""
    canonical, encode = codec.canonical, codec.encode
    if canonical is None:
        return codec

    def encode_usual(cell: bytes) -> bytes:
        if canonical(cell) != cell:
            raise unholdable(
                cell,
                cql_type,
                "has not the usual bytes of its value, and another row's key may have them",
                "bytea",
            )
        return encode(cell) if encode else cell

    return replace(codec, encode=encode_usual, canonical=None, exact=True)
