"""The shape of a PostgreSQL table to the engine: its columns as CQL types, and its key.

A column keeps the origin's type where PostgreSQL's can hold that type's values. Where it cannot, it
has the CQL type that is nearest to PostgreSQL's, and the engine converts the values, if it can.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from migration_platform.cql.types import CqlType, freeze, parse_type
from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError
from migration_platform.plan.filled_columns import filled_columns, filled_key
from migration_platform.plan.model import Column, Layer, Plan, Source, Table
from migration_platform.stores.postgres.codecs import (
    Codec,
    codec_for,
    cql_type_of,
    offered_types,
    why_unfit,
)
from migration_platform.stores.postgres.declaration import (
    PostgresTarget,
    validate_identifier,
)
from migration_platform.stores.postgres.names import PgName, quote
from migration_platform.stores.postgres.tables import PgColumn, PgTable
from migration_platform.stores.postgres.types import PgType

MAX_COLUMNS = 1600
"""https://www.postgresql.org/docs/current/limits.html"""
TIME_TYPES = ("int8", "timestamptz")
"""What a column with a row's writetime may be."""


def declared_in(migration: Migration) -> PostgresTarget:
    """Give what a migration has declared of its PostgreSQL table."""
    declared = migration.target.declared
    assert isinstance(declared, PostgresTarget)
    return declared


def shape_found(
    migration: Migration, origin: Table, found: PgTable, statics: PgTable | None, name: PgName
) -> Table:
    """Give a table that is there as the engine sees it, with the columns of the one of statics."""
    filled = filled_columns(migration.columns, origin)
    constants = migration.columns.constants
    columns = []
    for column in found.columns:
        is_key = column.name in found.primary_key
        text = "" if column.name in constants else filled.get(column.name, ("", False))[0]
        cql_type = _as_cql(text, column.pg_type, is_key=is_key)
        columns.append(Column(column.name, str(cql_type), stored=column.pg_type))
    for column in statics.columns if statics else ():
        if column.name not in {each.name for each in columns}:
            text = filled.get(column.name, ("", False))[0]
            cql_type = _as_cql(text, column.pg_type, is_key=False)
            columns.append(
                Column(column.name, str(cql_type), is_static=True, stored=column.pg_type)
            )
    names = {source: target for target, source in _by_target(migration, origin).items()}
    wanted = [names.get(each, each) for each in origin.partition_key]
    partition = tuple(each for each in found.primary_key if each in wanted) or found.primary_key
    rest = tuple(each for each in found.primary_key if each not in partition)
    ids = [each.table_id for each in (found, statics) if each]
    return _table(name, " ".join(ids), columns, partition, rest)


def _by_target(migration: Migration, origin: Table) -> dict[str, str]:
    rename = migration.columns.rename
    return {rename.get(column.name, column.name): column.name for column in origin.columns}


def _as_cql(text: str, pg_type: PgType, *, is_key: bool) -> CqlType:
    nearest = cql_type_of(pg_type)
    if text:
        cql_type = freeze(parse_type(text)) if parse_type(text).is_multicell else parse_type(text)
        if nearest is None or codec_for(cql_type, pg_type, is_key=is_key) is not None:
            return cql_type
    return nearest or CqlType("blob")


def shape_created(
    migration: Migration, origin: Table, name: PgName, resolve: Callable[[str], PgType]
) -> Table:
    """Give the table that a copy would create; `resolve` finds a type by its SQL text.

    Raises:
        DeclarationError: the key is not copied, or a type or a name is none.
    """
    declared = declared_in(migration)
    filled = filled_columns(migration.columns, origin)
    partition, rest = filled_key(migration.columns, origin)
    key = (*partition, *rest)
    unknown = [each for each in key if each not in filled]
    if unknown:
        raise DeclarationError(
            f"{', '.join(map(quote, unknown))} of the origin's key would not be copied, and the "
            "table that is created needs it; copy it, or create the table yourself"
        )
    stray = [each for each in declared.column_types if each not in filled]
    if stray:
        raise DeclarationError(
            f"target.columns names {', '.join(map(quote, stray))}, which nothing fills; valid are "
            f"{', '.join(map(quote, filled))}"
        )
    wrong = [line for each in filled for line in validate_identifier("a column", each)]
    if wrong:
        raise DeclarationError(f"{'; '.join(wrong)}: rename it in columns.rename")
    columns = []
    for each, (text, is_static) in filled.items():
        cql_type = freeze(parse_type(text)) if parse_type(text).is_multicell else parse_type(text)
        is_key = each in key
        chosen = declared.column_types.get(each) or offered_types(cql_type, is_key=is_key)[0]
        is_static = is_static and not declared.repeats_statics
        columns.append(Column(each, str(cql_type), is_static, stored=resolve(chosen)))
    if declared.writetime_column:
        columns.append(Column(declared.writetime_column, "bigint", stored=resolve("bigint")))
    rename = migration.columns.rename
    descending = tuple(rename.get(each, each) for each in origin.descending)
    return replace(_table(name, "", columns, partition, rest), descending=descending)


def _table(
    name: PgName,
    table_id: str,
    columns: Sequence[Column],
    partition: tuple[str, ...],
    rest: tuple[str, ...],
) -> Table:
    from migration_platform.cql.names import TableName

    return Table(
        name=TableName(name.schema, name.table),
        table_id=table_id,
        columns=tuple(columns),
        partition_key=partition,
        clustering_columns=rest,
        default_ttl_seconds=0,
        tells_elements=False,
        is_murmur3=False,
    )


def to_created(table: Table, time_column: str | None, *, statics: bool) -> list[PgColumn]:
    """Give the columns of a table that is to be created: of rows, or of static cells."""
    key = table.partition_key if statics else table.primary_key
    return [
        PgColumn(each.name, stored_type(table, each.name), each.name in key)
        for each in table.columns
        if each.name in key or each.is_static == statics or each.name == time_column
    ]


def stored_type(table: Table, column: str) -> PgType:
    """Give PostgreSQL's type of a column."""
    stored = next(each.stored for each in table.columns if each.name == column)
    assert isinstance(stored, PgType)
    return stored


def codec_of(plan: Plan, source: Source) -> Codec | None:
    """Give what turns the cells of a column into PostgreSQL's values and back; None if nothing."""
    return codec_for(
        parse_type(source.target_type),
        stored_type(plan.target, source.target),
        is_key=source.is_key,
        nul=declared_in(plan.migration).nul,
    )


# -- what does not fit ---------------------------------------------------------------------------


def validate_rows(plan: Plan, found: PgTable | None, statics: PgTable | None) -> list[str]:
    """Refuse rows that the tables could never have."""
    declared = declared_in(plan.migration)
    sources = {source.target: source for layer in plan.layers for source in layer.sources}.values()
    filled = {source.target for source in sources}
    problems = [
        f"column {quote(source.target)}: "
        + why_unfit(
            parse_type(source.target_type),
            stored_type(plan.target, source.target),
            is_key=source.is_key,
        )
        for source in sources
        if codec_of(plan, source) is None
    ]
    if declared.writetime_column and declared.writetime_column in filled:
        problems.append(
            f"target.writetime_column is {quote(declared.writetime_column)}, which "
            "a column of the origin fills; name another, or skip that one in columns.skip"
        )
    known = {column.name for column in plan.target.columns}
    for index in declared.indexes:
        unknown = [name for name in index.columns if name not in known]
        if unknown:
            problems.append(
                f"target.secondary_indexes.{index.name} names {', '.join(map(quote, unknown))}, "
                f"which {plan.target.name} does not have; valid are {', '.join(map(quote, known))}"
            )
    if len(plan.target.columns) > MAX_COLUMNS:
        problems.append(f"{plan.target.name} would have more than {MAX_COLUMNS:,} columns")
    for table, key in ((found, plan.target.primary_key), (statics, plan.target.partition_key)):
        problems += _validate_found(plan, table, filled) if table else ()
        if table and set(table.primary_key) != set(key):
            problems.append(
                f"{table.name} has the primary key {', '.join(map(quote, table.primary_key))}, but "
                f"its rows need {', '.join(map(quote, key))}"
            )
    return problems


def _validate_found(plan: Plan, found: PgTable, filled: set[str]) -> list[str]:
    declared, problems = declared_in(plan.migration), []
    for column in found.columns:
        shown = f"column {quote(column.name)} of {found.name}"
        if column.name in filled and column.fills_itself:
            problems.append(
                f"{shown} takes no values: {column.fills_itself}; name it in columns.skip"
            )
        unfilled = column.name not in filled and column.name != declared.writetime_column
        if unfilled and column.not_null and not (column.has_default or column.fills_itself):
            problems.append(
                f"{shown} is NOT NULL, and nothing fills it; name it in columns.constants or "
                "columns.rename, or give it a default"
            )
        if column.name in found.primary_key and column.folds:
            problems.append(f"{shown} is a key, and {column.folds}; give it another collation")
    name = declared.writetime_column
    if name is not None:
        column = found.find(name)
        if column is None:
            problems.append(f"{found.name} has no column {quote(name)} for target.writetime_column")
        elif column.pg_type.name not in TIME_TYPES:
            problems.append(
                f"target.writetime_column names {quote(name)}, which is {column.pg_type}; make it "
                "bigint, for microseconds since 1970, or timestamptz"
            )
    return problems


def layer_sources(layer: Layer) -> tuple[Source, ...]:
    """Give what a row's cells are, in the order in which they are written."""
    return layer.ordered(())
