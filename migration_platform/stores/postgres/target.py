"""PostgreSQL as a target: what `stores.interface.Target` asks, answered by a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from migration_platform.cql.conversion import Converter
from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError, PreflightError
from migration_platform.plan.model import Layer, Plan, Source, Table
from migration_platform.stores.interface import (
    Cells,
    CompileRows,
    KeyForm,
    Markdown,
    Origin,
    Pace,
    Selection,
    Target,
    Uses,
)
from migration_platform.stores.postgres import rows
from migration_platform.stores.postgres.connection import Postgres
from migration_platform.stores.postgres.declaration import STATICS_SUFFIX
from migration_platform.stores.postgres.names import PgName
from migration_platform.stores.postgres.reads import (
    PgBeginningReader,
    PgKeyReader,
    RowDeletes,
    TableReader,
)
from migration_platform.stores.postgres.retries import patiently
from migration_platform.stores.postgres.rows import RowForm, build_row_form
from migration_platform.stores.postgres.shape import (
    declared_in,
    shape_created,
    shape_found,
    stored_type,
    to_created,
    validate_rows,
)
from migration_platform.stores.postgres.tables import (
    PgTable,
    create_index,
    create_table,
    empty_table,
    find_table,
    has_schema,
    may_make_temporary,
    missing_rights,
    schemas_of,
    write_create_table,
)
from migration_platform.stores.postgres.types import resolve_type
from migration_platform.stores.postgres.writes import RowWrites, TimeColumn

OLDEST_VERSION = 140_000
"""Older ones read the whole table for each stripe of it."""


@dataclass(frozen=True)
class Found:
    """The name of the table, and the table if it is there; likewise the one of static cells."""

    name: PgName
    table: PgTable | None
    statics: PgTable | None = None


class TableTarget(Target):
    """A PostgreSQL table that is written."""

    def __init__(self, connection: Postgres):
        self.connection = connection
        self._tables: dict[PgName, PgTable] = {}

    def find_table(self, migration: Migration) -> tuple[Found, list[str]]:
        """Look for the table; refuse one that is not there and is not to be created.

        Raises:
            PreflightError: there is none, or rows cannot be written to it.
        """
        declared, store = declared_in(migration), migration.target.store
        wrong = _validate_server(self.connection, store)
        name = self._resolve(migration)
        table = find_table(
            self.connection, name, retry_seconds=migration.retry_seconds, on_retry=_nobody
        )
        if table is None and not declared.create:
            others = self._ask(lambda: schemas_of(self.connection, name.table), migration)
            elsewhere = ", ".join(str(PgName(each, name.table)) for each in others)
            hint = f"there is {elsewhere}; name it with its schema" if others else "create it"
            raise PreflightError(
                f"there is no table {name} in {store}: {hint}, or set target.create to true"
            )
        if table is not None and not table.primary_key:
            wrong.append(
                f"{name} has no primary key, by which rows are written once: add one "
                "(ALTER TABLE ... ADD PRIMARY KEY)"
            )
        statics = None
        if declared.suffix:
            of_statics = PgName(name.schema, name.table + declared.suffix)
            statics = find_table(
                self.connection, of_statics, retry_seconds=migration.retry_seconds, on_retry=_nobody
            )
        return Found(name, table, statics), wrong

    def _resolve(self, migration: Migration) -> PgName:
        """Say which table is meant: the schema may be the store's, or a database's name instead."""
        declared, settings = declared_in(migration), self.connection.settings
        name = migration.target.table
        if declared.database not in (None, settings.database):
            raise PreflightError(
                f"target.table names the database {declared.database}, and the store "
                f"{migration.target.store} is connected to {settings.database}; leave it out, or "
                "declare a store for that database"
            )
        schema = name.keyspace or settings.schema
        if schema == settings.database and name.keyspace and declared.database is None:
            is_schema = self._ask(lambda: has_schema(self.connection, schema), migration)
            schema = schema if is_schema else settings.schema
        return PgName(schema, name.table)

    def _ask(self, question: Callable[[], Any], migration: Migration) -> Any:
        return patiently(question, migration.retry_seconds, _nobody)

    def shape(self, migration: Migration, origin: Table, found: Found | None) -> Table | None:
        """Give the table that is there, or the one that would be created, as the engine sees it.

        Raises:
            DeclarationError: the key is not copied, or a type is none.
        """
        if found is None:
            return None
        declared = declared_in(migration)
        lacks_statics = (
            bool(declared.suffix)
            and found.statics is None
            and any(column.is_static for column in origin.columns)
        )
        if found.table is not None and not (lacks_statics and declared.create):
            return shape_found(migration, origin, found.table, found.statics, found.name)

        def resolve(text: str) -> Any:
            session = self.connection.session("questions")
            return self._ask(
                lambda: session.lend(lambda connection: resolve_type(connection, text)), migration
            )

        try:
            return shape_created(migration, origin, found.name, resolve)
        except PreflightError as error:
            raise DeclarationError(str(error)) from error

    def validate(self, plan: Plan, origin: Origin, found: Found | None) -> list[str]:
        """Refuse rows that the table could never have."""
        del origin
        found = found or Found(_name_of(plan), None)
        if not found.table or not plan.target.table_id:
            return validate_rows(plan, None, None)
        return validate_rows(plan, found.table, found.statics)

    def validate_use(self, plan: Plan, uses: Uses) -> Iterator[str]:
        """Give the rights that the user does not have."""
        if not plan.target.table_id:
            return
        migration = plan.migration
        rights = ["SELECT"]
        if uses.copying:
            rights += ["INSERT", "UPDATE"]
        if "extra" in migration.repair:
            rights.append("DELETE")
        for layer in plan.layers:
            table = self._open(plan, layer.name)
            missing = self._ask(
                lambda table=table: missing_rights(self.connection, table, rights), migration
            )
            if missing:
                yield (
                    f"the user may not {', '.join(missing)} on {table.name}; "
                    f"GRANT {', '.join(missing)} ON {table.name} TO that user"
                )
        if uses.copying and self._method(plan) == "copy":
            may = self._ask(lambda: may_make_temporary(self.connection), migration)
            if not may:
                yield (
                    f"the user may not make temporary tables in {self.connection.settings.database}"
                    ", which target.method copy needs; GRANT TEMPORARY ON DATABASE to that user, "
                    "or set target.method to values"
                )

    def create(self, plan: Plan, report: Callable[[str], None]) -> None:
        """Create the table, and its schema where it is missing.

        Raises:
            PermanentError, TransientError: it was refused.
        """
        table, column = plan.target, declared_in(plan.migration).writetime_column
        for layer in plan.layers:
            name, statics = _name_of(plan, layer.name), layer.name == "statics"
            clustering = [(each, each in table.descending) for each in table.clustering_columns]
            statement = write_create_table(
                name,
                to_created(table, column, statics=statics),
                table.partition_key,
                [] if statics else clustering,
                by_hash=self.connection.is_yugabyte,
            )
            report(f"creating {name}")
            self._ask(
                lambda name=name, statement=statement: create_table(
                    self.connection, name, statement
                ),
                plan.migration,
            )

    def empty(self, plan: Plan, pace: Pace) -> None:
        """Empty the table.

        Raises:
            PermanentError, TransientError: it was refused.
        """
        session = self.connection.session("questions")
        for layer in plan.layers:
            name = _name_of(plan, layer.name)
            patiently(
                lambda name=name: empty_table(session, name), pace.retry_seconds, pace.on_retry
            )

    def finish(self, plan: Plan, report: Callable[[str], None]) -> None:
        """Create the declared indexes that are missing.

        Raises:
            PermanentError, TransientError: one was refused.
        """
        session = self.connection.session("questions")
        for index in declared_in(plan.migration).indexes:
            report(f"creating the index {index.name}")
            self._ask(
                lambda index=index: create_index(session, _name_of(plan), index), plan.migration
            )

    def describe_cost(
        self, plan: Plan, origin: Origin, compile_rows: CompileRows
    ) -> dict[str, Any]:
        """Tell which server it is, how rows are written and read, and what else touches them."""
        del origin, compile_rows
        # What it was compiled with, and for which machine, follows.
        version = self.connection.version.partition(" on ")[0]
        told: dict[str, Any] = {
            "server": f"{self.connection.product}: {version}",
            "method": self._method(plan),
            "table_is_created": not plan.target.table_id,
        }
        if plan.target.table_id:
            table = self._open(plan, "rows")
            told["scan"] = self._scan(plan)
            lines = list(table.notes)
            if table.row_security:
                lines.append("row-level security is on, and decides which rows are written or seen")
            if lines:
                told["table_differs"] = Markdown("\n".join(f"- {line}" for line in lines))
        return told

    def prepare_writes(self, plan: Plan, layer: Layer) -> RowWrites:
        """Prepare the writes of a layer's rows."""
        sources, declared = layer.ordered(()), declared_in(plan.migration)
        return RowWrites(
            self.connection,
            _name_of(plan, layer.name),
            layer,
            build_row_form(plan, sources),
            sources,
            method=self._method(plan),
            batch_rows=declared.batch_rows,
            time_column=_time_column(plan),
            skips_unchanged=declared.unchanged == "skip",
            may_collide=bool(plan.lost_keys),
        )

    def prepare_ranges(self, plan: Plan, selection: Selection) -> TableReader:
        """Prepare the scans of the table's pieces."""
        table, scan = self._open(plan, _layer_of(selection)), self._scan(plan)
        columns = plan.target.partition_key if scan == "hash_code" else ()
        form = _form_of(plan, selection)
        return TableReader(self.connection, table.name, table.oid, form, scan, columns)

    def prepare_keys(
        self, plan: Plan, selection: Selection, keys: KeyForm
    ) -> PgKeyReader | PgBeginningReader:
        """Prepare the read of single rows, or of those that begin with a part of a key."""
        form = _form_of(plan, selection)
        columns = tuple(form.columns[form.names.index(name)] for name in selection.key_names)
        name = _name_of(plan, _layer_of(selection))
        if selection.by:
            rest = (n for n in selection.table.primary_key if n not in selection.by)
            others = tuple(form.columns[form.names.index(each)] for each in rest)
            return PgBeginningReader(self.connection, name, form, keys, columns, others)
        return PgKeyReader(self.connection, name, form, keys, columns)

    def prepare_deletes(
        self,
        plan: Plan,
        selection: Selection,
        keys: KeyForm,
        values: Sequence[tuple[int, Source]],
    ) -> RowDeletes:
        """Prepare the deletion of rows."""
        del values
        reader = self.prepare_keys(plan, selection, keys)
        assert isinstance(reader, PgKeyReader)
        return RowDeletes(reader, _time_column(plan))

    def _method(self, plan: Plan) -> str:
        """Say how rows are written: as declared, or as it suits the server."""
        declared = declared_in(plan.migration).method
        return declared or ("values" if self.connection.is_yugabyte else "copy")

    def _scan(self, plan: Plan) -> str:
        """Say how the table is cut into pieces: as declared, or as it suits the server."""
        declared = declared_in(plan.migration).scan
        return declared or ("hash_code" if self.connection.is_yugabyte else "blocks")

    def _open(self, plan: Plan, layer: str) -> PgTable:
        """Give a layer's table as it is; it is described once in a process.

        Raises:
            PreflightError: there is no such table any more.
        """
        name = _name_of(plan, layer)
        if name not in self._tables:
            seconds = plan.migration.retry_seconds
            found = find_table(self.connection, name, retry_seconds=seconds, on_retry=_nobody)
            if found is None:
                raise PreflightError(f"there is no table {name} any more")
            self._tables[name] = found
        return self._tables[name]


def _nobody(error: BaseException) -> None:
    del error


def _validate_server(connection: Postgres, store: str) -> list[str]:
    if connection.is_yugabyte or connection.version_number >= OLDEST_VERSION:
        return []
    return [
        f"{store} is {connection.version.partition(' on ')[0]}; copies to PostgreSQL need version "
        f"{OLDEST_VERSION // 10_000} or newer"
    ]


def _name_of(plan: Plan, layer: str = "rows") -> PgName:
    name = plan.target.name
    suffix = STATICS_SUFFIX if layer == "statics" else ""
    return PgName(name.keyspace, name.table + suffix)


def _layer_of(selection: Selection) -> str:
    return "statics" if selection.statics else "rows"


def _time_column(plan: Plan) -> TimeColumn | None:
    name = declared_in(plan.migration).writetime_column
    return None if name is None else TimeColumn(name, stored_type(plan.target, name))


def _form_of(plan: Plan, selection: Selection) -> RowForm:
    return build_row_form(plan, selection.sources)


def canonical_cells(plan: Plan, layer: Layer, sources: Sequence[Source]) -> dict[int, Converter]:
    """Say which cells a row gives back in the one form of their value only."""
    del layer
    return rows.canonical_cells(build_row_form(plan, sources))


def compile_rejection(
    plan: Plan, layer: Layer, sources: Sequence[Source]
) -> Callable[[Cells], str]:
    """Build what says why no row can hold some cells; empty if one can."""
    del layer
    return rows.compile_rejection(build_row_form(plan, sources))
