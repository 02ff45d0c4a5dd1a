"""Reads of a PostgreSQL table: what a comparison scans, and single rows by their keys.

A table is scanned in as many pieces as there are ranges. Of a table of PostgreSQL a piece is every
so manieth stripe of some blocks (`blocks`): a stripe fits into memory, and its place does not
depend on how large the table is by then. Of one of YugabyteDB it is a range of hash codes
(`hash_code`), as its documentation has it; a table that is neither is read as a whole (`whole`).

https://www.postgresql.org/docs/current/ddl-system-columns.html
https://docs.yugabyte.com/stable/api/ysql/exprs/func_yb_hash_code/
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from migration_platform.cql.rows import NULL, Page, join_cells, split_cells
from migration_platform.stores.interface import Deletes, KeyForm, Pace, PieceListener
from migration_platform.stores.postgres.connection import Parameter, Postgres, Session
from migration_platform.stores.postgres.failures import LostConnectionError, Refusal
from migration_platform.stores.postgres.names import PgName, quote
from migration_platform.stores.postgres.retries import patiently
from migration_platform.stores.postgres.rows import (
    FormColumn,
    RowForm,
    compile_key_encoder,
    compile_row_decoder,
)
from migration_platform.stores.postgres.statements import (
    copy_out,
    delete_keys,
    select_begun,
    select_keys,
)
from migration_platform.stores.postgres.writes import TimeColumn
from migration_platform.token_ranges import TokenRange

STRIPE_BLOCKS = 128
"""1 MB, as blocks are 8 KB."""
PAGE_ROWS = 5_000
KEYS_A_REQUEST = 200
ROWS_A_REQUEST = 500
"""Of those that begin with one key."""
HASH_CODES = 65_536
"""Of YugabyteDB, 0 to 65535."""
_BLOCKS = (
    "SELECT max(pg_catalog.pg_relation_size(part)) / current_setting('block_size')::bigint FROM"
    " (SELECT {0}::oid AS part UNION SELECT relid FROM pg_catalog.pg_partition_tree({0}::oid)) p"
)
"""The blocks of a table, or of its largest partition: each has blocks from 0 on."""


@dataclass(frozen=True)
class TableReader:
    """Reads a table in as many pieces as ranges; each piece sees one moment."""

    connection: Postgres
    table: PgName
    oid: int
    form: RowForm
    scan: str
    hash_columns: tuple[str, ...] = ()

    def pages(
        self,
        piece: TokenRange,
        pace: Pace,
        *,
        fetch_size: int | None = None,
        told: PieceListener | None = None,
    ) -> Iterator[Page]:
        """Give the rows of the piece with the range's number.

        Raises:
            PermanentError, TransientError: rows could not be read; what came before was whole.
        """
        del fetch_size, told
        session = self.connection.session("scan")
        if self.scan == "blocks":
            return self._stripes(session, piece, pace)
        where = ""
        if self.scan == "hash_code":
            low, high = (HASH_CODES * at // piece.count for at in (piece.index, piece.index + 1))
            code = f"yb_hash_code({', '.join(map(quote, self.hash_columns))})"
            where = f"{code} >= {low} AND {code} < {high}"
        elif piece.index:
            return iter(())
        return self._whole(session, where, pace)

    def _stripes(self, session: Session, piece: TokenRange, pace: Pace) -> Iterator[Page]:
        """Read stripes one by one; one whose answer broke is read again."""
        stripe = piece.index
        snapshot = _Snapshot(session)
        try:
            blocks = _BLOCKS.format(self.oid)
            found = patiently(lambda: snapshot.run(blocks), pace.retry_seconds, pace.on_retry)
            last = -(-int(found[0].get_value(0, 0)) // STRIPE_BLOCKS)
            while stripe < last:
                low, high = stripe * STRIPE_BLOCKS, (stripe + 1) * STRIPE_BLOCKS
                where = f"ctid >= '({low},0)'::tid AND ctid < '({high},0)'::tid"
                sql = copy_out(self.table, self.form, where)
                asked_us = time.time_ns() // 1000
                rows = patiently(
                    lambda sql=sql: snapshot.copy_out(sql), pace.retry_seconds, pace.on_retry
                )
                pace.budget.take(len(rows), sum(map(len, rows)))
                yield from _to_pages(self.form, rows, asked_us)
                stripe += piece.count
        finally:
            snapshot.end()

    def _whole(self, session: Session, where: str, pace: Pace) -> Iterator[Page]:
        """Read all in one answer, which is never in memory as a whole.

        It cannot be begun again where it broke: an error ends it.
        """
        rows = session.copy_out(copy_out(self.table, self.form, where))
        asked_us = time.time_ns() // 1000
        while found := patiently(lambda: list(islice(rows, PAGE_ROWS)), 0.0, pace.on_retry):
            pace.budget.take(len(found), sum(map(len, found)))
            yield from _to_pages(self.form, found, asked_us)


class _Snapshot:
    """One moment of the database, for as long as its connection holds; then another one."""

    def __init__(self, session: Session):
        self._session = session
        self._began: object = None

    def run(self, sql: str) -> list[Any]:
        self._begin()
        return self._session.run(sql)

    def copy_out(self, sql: str) -> list[bytes]:
        self._begin()
        return list(self._session.copy_out(sql))

    def _begin(self) -> None:
        if self._began is not self._session.connection:
            self._session.run("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._began = self._session.connection

    def end(self) -> None:
        """End it; a connection that broke has ended it itself."""
        if self._began is not None and self._began is self._session.opened:
            with suppress(Refusal, LostConnectionError):
                self._session.run("ROLLBACK")


def _to_pages(form: RowForm, rows: Sequence[bytes], asked_us: int) -> Iterator[Page]:
    decode = compile_row_decoder(form)
    for at in range(0, len(rows), PAGE_ROWS):
        some = rows[at : at + PAGE_ROWS]
        yield Page(b"".join(map(decode, some)), len(some), None, asked_us)


@dataclass(frozen=True)
class PgKeyReader:
    """Reads single rows by their keys; `columns` are those of the key, in its order."""

    connection: Postgres
    table: PgName
    form: RowForm
    keys: KeyForm
    columns: tuple[FormColumn, ...]

    def rows(
        self, keys: Iterable[bytes], pace: Pace, *, rejects: bool = False
    ) -> Iterator[tuple[bytes, Page]]:
        """Read rows by their keys, as `KeyReader` says; a key that no row can have has no row.

        Raises:
            PermanentError, TransientError: a row could not be read.
        """
        del rejects
        session = self.connection.session("keys")
        encode = compile_key_encoder(self.columns, self.keys.positions)
        decode = compile_row_decoder(self.form)
        waiting = iter(keys)
        while some := list(islice(waiting, KEYS_A_REQUEST)):
            encoded = [encode(split_cells(key, self.keys.cells)) for key in some]
            asked = [(at, values) for at, values in enumerate(encoded) if values is not None]
            asked_us = time.time_ns() // 1000
            found: dict[int, bytes] = {}
            if asked:
                pace.budget.take(0)
                sql = select_keys(self.table, self.form, self.columns, len(asked))
                parameters = [value for _, values in asked for value in values]
                is_full = len(asked) == KEYS_A_REQUEST
                result = patiently(
                    lambda sql=sql, parameters=parameters, is_full=is_full: session.ask(
                        sql, parameters, prepare=is_full
                    ),
                    pace.retry_seconds,
                    pace.on_retry,
                )
                for row in range(result.ntuples):
                    number = int.from_bytes(result.get_value(row, 0), "big")
                    cells = [result.get_value(row, at + 1) for at in range(len(self.form.columns))]
                    found[asked[number][0]] = decode(b"\0\0" + join_cells(cells, NULL))
                pace.budget.take(len(found), sum(map(len, found.values())))
            for at, key in enumerate(some):
                data = found.get(at)
                yield key, Page(data or b"", int(data is not None), None, asked_us)


@dataclass(frozen=True)
class PgBeginningReader:
    """Reads all rows of which the first cells of the key are given, a bounded number at a time.

    `given` and `rest` are the columns of the key, in its order.
    """

    connection: Postgres
    table: PgName
    form: RowForm
    keys: KeyForm
    given: tuple[FormColumn, ...]
    rest: tuple[FormColumn, ...]

    def rows(
        self, keys: Iterable[bytes], pace: Pace, *, rejects: bool = False
    ) -> Iterator[tuple[bytes, Page]]:
        """Read the rows of keys, as `KeyReader` says; a key that no row can have has no row.

        Raises:
            PermanentError, TransientError: rows could not be read.
        """
        del rejects
        encode = compile_key_encoder(self.given, self.keys.positions)
        for key in keys:
            values = encode(split_cells(key, self.keys.cells))
            if values is None:
                yield key, Page(b"", 0, None)
            else:
                yield from ((key, page) for page in self._pages(values, pace))

    def _pages(self, values: Sequence[Parameter], pace: Pace) -> Iterator[Page]:
        session = self.connection.session("keys")
        decode = compile_row_decoder(self.form)
        places = [(column.pg_type.oid, self.form.names.index(column.name)) for column in self.rest]
        last: list[Parameter] = []
        while True:
            sql = select_begun(
                self.table, self.form, self.given, self.rest,
                is_first=not last, rows=ROWS_A_REQUEST,
            )  # fmt: skip
            pace.budget.take(0)
            asked_us = time.time_ns() // 1000
            result = patiently(
                lambda sql=sql, given=[*values, *last]: session.ask(sql, given, prepare=True),
                pace.retry_seconds,
                pace.on_retry,
            )
            rows = [
                [result.get_value(row, at) for at in range(len(self.form.columns))]
                for row in range(result.ntuples)
            ]
            data = b"".join(decode(b"\0\0" + join_cells(cells, NULL)) for cells in rows)
            pace.budget.take(len(rows), len(data))
            yield Page(data, len(rows), None, asked_us)
            if len(rows) < ROWS_A_REQUEST:
                return
            last = [(oid, rows[-1][at]) for oid, at in places]


@dataclass(frozen=True)
class RowDeletes(Deletes):
    """Deletes rows by their keys; there are no cells to delete: a row is written as a whole."""

    reader: PgKeyReader
    time_column: TimeColumn | None

    def delete_rows(self, keys: Iterable[bytes], before_us: int, pace: Pace) -> None:
        """Delete the rows of keys; one that was written later stays, where a column tells when.

        Raises:
            PermanentError, TransientError: a row could not be deleted.
        """
        reader = self.reader
        session = reader.connection.session("keys")
        encode = compile_key_encoder(reader.columns, reader.keys.positions)
        column = self.time_column
        encoded = (encode(split_cells(key, reader.keys.cells)) for key in keys)
        wanted = (values for values in encoded if values is not None)
        while some := list(islice(wanted, KEYS_A_REQUEST)):
            sql = delete_keys(
                reader.table, reader.columns, len(some), column.name if column else None
            )
            parameters: list[Parameter] = [value for values in some for value in values]
            if column is not None:
                parameters.append((column.pg_type.oid, column.to_cell(before_us)[4:]))
            pace.budget.take(len(some))
            patiently(
                lambda sql=sql, parameters=parameters: session.ask(sql, parameters),
                pace.retry_seconds,
                pace.on_retry,
            )
