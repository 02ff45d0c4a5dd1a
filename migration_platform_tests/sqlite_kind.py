"""A kind of store from outside the package: tables in one SQLite file, an origin and a target.

It is the example of the page "Adding a kind of store" and has what a kind needs and no more. A row
is its key, the token of its partition key, and its cells one behind the other. All processes of a
run open the same file.
"""

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg

from migration_platform.components.attributes import NamedAttributes
from migration_platform.components.stores import DeclaresStores
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import NULL, Page, join_cells, split_cells
from migration_platform.cql.types import freeze, parse_type
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.declaration.stores import Abilities, StoreDeclaration
from migration_platform.errors import PermanentError, PreflightError
from migration_platform.plan.model import Column, Layer, Plan, Row, Source, Table
from migration_platform.stores.interface import (
    Cells,
    Deletes,
    KeyForm,
    Kind,
    OnRejected,
    Origin,
    Pace,
    Selection,
    Target,
)
from migration_platform.stores.kinds import register
from migration_platform.token_ranges import TokenRange, serialize_key, token_of_key

PAGE_ROWS = 1_000
MAX_CELL_BYTES = 1_000_000


# -- what is declared ----------------------------------------------------------------------------


@dataclass(frozen=True)
class SqliteTable(StoreDeclaration):
    """A table in a SQLite file; it has no attributes of its own."""

    kind: ClassVar[str] = "sqlite"
    abilities: ClassVar[Abilities] = Abilities(
        cell_times=False,
        keeps_records=False,
        writes_whole_rows=True,
        folds_equal_values=False,
        counters=False,
    )

    def validate_origin(self, migration: Migration) -> list[str]:
        return ["filter.where is CQL, which SQLite does not speak"] * bool(migration.filter.where)

    def validate_target(self, migration: Migration) -> list[str]:
        keeps = migration.writetime != "now" or migration.ttl != "none"
        return ["SQLite keeps no times; set writetime to now and ttl to none"] * keeps


@dataclass(frozen=True)
class SqliteSettings:
    """Where the file is."""

    path: str

    def connect(self) -> "SqliteFile":
        return SqliteFile(self.path)


class SqliteFile:
    """An open file; tables are described in one of its own."""

    def __init__(self, path: str):
        try:
            self.database = sqlite3.connect(path, timeout=60, isolation_level=None)
            self.database.execute("PRAGMA journal_mode = WAL")
            self.database.execute("CREATE TABLE IF NOT EXISTS tables (name TEXT UNIQUE, form TEXT)")
        except sqlite3.Error as error:
            raise PreflightError(f"the file {path} cannot be opened: {error}") from error

    def __enter__(self) -> "SqliteFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    def find(self, name: TableName) -> Table | None:
        found = self.database.execute("SELECT form FROM tables WHERE name = ?", (str(name),))
        row = found.fetchone()
        if row is None:
            return None
        form = json.loads(row[0])
        form["columns"] = tuple(Column(**column) for column in form["columns"])
        for key in ("partition_key", "clustering_columns"):
            form[key] = tuple(form[key])
        return Table(**(form | {"name": name}))

    def create(self, table: Table) -> None:
        made = asdict(replace(table, table_id=uuid.uuid4().hex)) | {"name": str(table.name)}
        self.database.execute("INSERT INTO tables VALUES (?, ?)", (made["name"], json.dumps(made)))
        self.database.execute(
            f"CREATE TABLE {rows_of(table)} (key BLOB PRIMARY KEY, token INTEGER, cells BLOB)"
        )


def rows_of(table: Table) -> str:
    """Name the table of rows, quoted as SQLite quotes."""
    return '"rows of {}"'.format(str(table.name).replace('"', '""'))


# -- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SqliteReader:
    """Reads ranges and single rows of a selection."""

    file: SqliteFile
    selection: Selection
    keys: KeyForm | None = None

    def pages(self, piece: TokenRange, pace: Pace, **more: Any) -> Iterator[Page]:
        del more
        table, last = self.selection.table, (piece.bounds[0], b"")
        while True:
            found = self.file.database.execute(
                f"SELECT token, key, cells FROM {rows_of(table)} WHERE (token, key) > (?, ?) "
                "AND token <= ? ORDER BY token, key LIMIT ?",
                (*last, piece.bounds[1], PAGE_ROWS),
            ).fetchall()
            if not found:
                return
            pace.budget.take(len(found), sum(len(cells) for *_, cells in found))
            last = found[-1][:2]
            yield self._to_page([cells for *_, cells in found])

    def rows(
        self, keys: Iterable[bytes], pace: Pace, *, rejects: bool = False
    ) -> Iterator[tuple[bytes, Page]]:
        del rejects
        assert self.keys is not None
        # A key is the cells one after the other: rows that begin with some are neighbours.
        begins = "substr(key, 1, length(?1)) = ?1 AND key >= ?1"
        condition = begins if self.selection.by else "key = ?1"
        query = f"SELECT cells FROM {rows_of(self.selection.table)} WHERE {condition}"
        for key in keys:
            own = own_key(key, self.keys)
            found = self.file.database.execute(query, (own,)).fetchall()
            pace.budget.take(1, sum(len(cells) for (cells,) in found))
            yield key, self._to_page([cells for (cells,) in found])

    def _to_page(self, rows: list[bytes]) -> Page:
        names = [column.name for column in self.selection.table.columns]
        chosen = [names.index(name) for name in self.selection.columns]
        split = (split_cells(cells, len(names)) for cells in rows)
        data = b"".join(join_cells([cells[at] for at in chosen], NULL) for cells in split)
        return Page(data, len(rows), None)


def own_key(key: bytes, form: KeyForm) -> bytes:
    cells = split_cells(key, form.cells)
    return join_cells([cells[position] for position in form.positions], NULL)


@dataclass(frozen=True)
class SqliteOrigin(Origin):
    """A file that is read."""

    connection: SqliteFile

    def find_table(self, endpoint: Endpoint) -> tuple[Table, list[str]]:
        table = self.connection.find(endpoint.table)
        if table is None:
            raise PreflightError(f"there is no table {endpoint.table} in {endpoint.store}")
        return table, []

    def prepare_ranges(self, plan: Plan, selection: Selection) -> SqliteReader:
        del plan
        return SqliteReader(self.connection, selection)

    def prepare_keys(self, plan: Plan, selection: Selection, keys: KeyForm) -> SqliteReader:
        del plan
        return SqliteReader(self.connection, selection, keys)


# -- writing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SqliteWrites:
    """What is prepared to write a layer's rows."""

    file: SqliteFile
    sources: tuple[Source, ...]
    leading: int = 0
    null: bytes = NULL

    def open(self, plan: Plan, pace: Pace, on_rejected: OnRejected, *, again: bool) -> Any:
        del again
        return SqliteWriter(self, plan.target, pace, on_rejected)


class SqliteWriter:
    """Writes each page of rows as one transaction."""

    rows_left_alone = statics_taken = parts_expired = 0

    def __init__(self, writes: SqliteWrites, table: Table, pace: Pace, on_rejected: OnRejected):
        self._file, self._table, self._pace = writes.file, table, pace
        self._on_rejected = on_rejected
        self._names = [source.target for source in writes.sources]
        self.rows_written = 0

    def write(self, rows: Iterable[Row], page: Page) -> None:
        del page
        table, written = self._table, []
        for _, values, _, _ in rows:
            row = dict(zip(self._names, split_cells(values, len(self._names)), strict=True))
            key = [row[name] for name in table.primary_key]
            why = why_rejected(list(row.values()))
            if why:
                self._on_rejected(key, PermanentError(why), True)
                continue
            cells = [row.get(column.name) for column in table.columns]
            partition = [row[name] or b"" for name in table.partition_key]
            token = token_of_key(serialize_key(partition))
            written.append((join_cells(key, NULL), token, join_cells(cells, NULL)))
        self._pace.budget.take(len(written), sum(len(row[2]) for row in written))
        with self._file.database:
            self._file.database.execute("BEGIN")
            self._file.database.executemany(
                f"INSERT OR REPLACE INTO {rows_of(table)} VALUES (?, ?, ?)", written
            )
        self.rows_written += len(written)

    def flush(self) -> None:
        """Each page is written when it is taken."""


def why_rejected(cells: Cells) -> str:
    """Say why no row can hold some cells: SQLite could, but what is a store without limits?"""
    largest = max((len(cell) for cell in cells if cell), default=0)
    return f"a cell has {largest:,} bytes" if largest > MAX_CELL_BYTES else ""


@dataclass(frozen=True)
class SqliteDeletes(Deletes):
    """Deletes rows; a row is written as a whole, so that no cell is left over."""

    file: SqliteFile
    table: Table
    keys: KeyForm

    def delete_rows(self, keys: Iterable[bytes], before_us: int, pace: Pace) -> None:
        del before_us, pace
        own = [(own_key(key, self.keys),) for key in keys]
        self.file.database.executemany(f"DELETE FROM {rows_of(self.table)} WHERE key = ?", own)


@dataclass(frozen=True)
class SqliteTarget(Target):
    """A file that is written; a table that is missing is created."""

    connection: SqliteFile

    def find_table(self, migration: Migration) -> tuple[Table | None, list[str]]:
        return self.connection.find(migration.target.table), []

    def shape(self, migration: Migration, origin: Table, found: Table | None) -> Table:
        if found is not None:
            return found
        columns = migration.columns
        named = {
            column.name: columns.rename.get(column.name, column.name)
            for column in origin.columns
            if column.name not in columns.skip
        }
        return Table(
            name=migration.target.table,
            table_id="",
            columns=tuple(
                Column(named[column.name], str(freeze(parse_type(column.cql_type))))
                for column in origin.columns
                if column.name in named
            ),
            partition_key=tuple(named.get(name, name) for name in origin.partition_key),
            clustering_columns=tuple(named.get(name, name) for name in origin.clustering_columns),
            default_ttl_seconds=0,
        )

    def create(self, plan: Plan, report: Callable[[str], None]) -> None:
        del report
        self.connection.create(plan.target)

    def empty(self, plan: Plan, pace: Pace) -> None:
        del pace
        self.connection.database.execute(f"DELETE FROM {rows_of(plan.target)}")

    def prepare_writes(self, plan: Plan, layer: Layer) -> SqliteWrites:
        del plan
        return SqliteWrites(self.connection, layer.ordered(()))

    def prepare_ranges(self, plan: Plan, selection: Selection) -> SqliteReader:
        del plan
        return SqliteReader(self.connection, selection)

    def prepare_keys(self, plan: Plan, selection: Selection, keys: KeyForm) -> SqliteReader:
        del plan
        return SqliteReader(self.connection, selection, keys)

    def prepare_deletes(
        self,
        plan: Plan,
        selection: Selection,
        keys: KeyForm,
        values: Sequence[tuple[int, Source]],
    ) -> SqliteDeletes:
        del plan, values
        return SqliteDeletes(self.connection, selection.table, keys)


# -- the row of the table of kinds ---------------------------------------------------------------


def compile_rejection(plan: Plan, layer: Layer, sources: Sequence[Source]) -> Any:
    del plan, layer, sources
    return why_rejected


SQLITE = Kind(SqliteTable, SqliteOrigin, SqliteTarget, compile_rejection=compile_rejection)
register(SQLITE)


# -- how Dagster sees it -------------------------------------------------------------------------


class SqliteResource(dg.ConfigurableResource):
    """A SQLite file as a Dagster resource."""

    kind: ClassVar[str] = SqliteTable.kind
    path: str

    def to_settings(self) -> SqliteSettings:
        return SqliteSettings(self.path)

    def connect(self) -> SqliteFile:
        return self.to_settings().connect()


class SqliteStores(DeclaresStores, dg.Model, NamedAttributes):
    """SQLite files by name, for the migrations of a project to use."""

    files: Mapping[str, str]

    def kinds(self) -> dict[str, str]:
        return dict.fromkeys(self.files, SqliteTable.kind)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        del context
        files = {name: str(Path(path)) for name, path in self.files.items()}
        return dg.Definitions(
            resources={name: SqliteResource(path=path) for name, path in files.items()}
        )
