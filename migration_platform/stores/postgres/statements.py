"""The statements by which rows are written, read and deleted; every name in them is quoted.

https://www.postgresql.org/docs/current/functions-comparisons.html, "Composite Type Comparison", has
the operator that compares rows by their bytes.
"""

from collections.abc import Sequence

from migration_platform.stores.postgres.failures import VALUES_PATTERN
from migration_platform.stores.postgres.names import PgName, quote, quote_name
from migration_platform.stores.postgres.rows import FormColumn, RowForm
from migration_platform.stores.postgres.types import PgType

TEMPORARY = "mp_rows_{}"


def copy_into(name: str, columns: Sequence[str]) -> str:
    """Write a COPY of binary rows into a table, whose name is quoted already."""
    return f"COPY {name} ({_list(columns)}) FROM STDIN (FORMAT binary)"


def create_temporary(
    name: str, table: PgName, form: RowForm, time_column: str | None = None
) -> str:
    """Write what makes an empty temporary table with a table's columns, and none of its rules.

    What a column's type refuses of some values only is left to the table itself.
    """
    chosen = [
        f"{quote(column.name)}::{loose} AS {quote(column.name)}"
        if (loose := _loose(column.pg_type))
        else quote(column.name)
        for column in form.columns
    ]
    chosen += [quote(time_column)] if time_column else []
    return (
        f"CREATE TEMPORARY TABLE {quote(name)} ON COMMIT DELETE ROWS AS "  # noqa: S608
        f"SELECT {', '.join(chosen)} FROM {quote_name(table)} WITH NO DATA"
    )


def _loose(pg_type: PgType) -> str:
    """Give a type that takes the same bytes, and more values; empty if there is none."""
    if pg_type.kind == "domain" and pg_type.base is not None:
        return _loose(pg_type.base) or str(pg_type.base)
    if pg_type.kind == "enum" or pg_type.length is not None:
        return "text"
    return "numeric" if pg_type.digits is not None else ""


def _is_enum(pg_type: PgType) -> bool:
    if pg_type.kind == "domain" and pg_type.base is not None:
        return _is_enum(pg_type.base)
    return pg_type.kind == "enum"


def _from_temporary(name: str, form: RowForm, time_column: str | None, where: str = "") -> str:
    """Write what reads the rows of a temporary table, as the table itself takes them."""
    chosen = [
        f"n.{quote(each.name)}" + (f"::{each.pg_type}" if _is_enum(each.pg_type) else "")
        for each in form.columns
    ]
    chosen += [f"n.{quote(time_column)}"] if time_column else []
    return f"SELECT {', '.join(chosen)} FROM pg_temp.{quote(name)} n{where}"  # noqa: S608


def _key_of(form: RowForm) -> str:
    return _list([column.name for column in form.columns if column.is_key])


def upsert_from(
    name: str, table: PgName, form: RowForm, time_column: str | None, *, skips: bool
) -> str:
    """Write what inserts the rows of a temporary table, or updates those that are there."""
    columns = _list(_columns(form, time_column))
    # In one order, so that two runs wait for each other and never both at once.
    return (
        f"INSERT INTO {quote_name(table)} AS t ({columns}) "
        f"{_from_temporary(name, form, time_column)} ORDER BY {_key_of(form)} "
        + _on_conflict(form, time_column, skips=skips)
    )


REJECTED, DONE = "migration_platform.rejected", "migration_platform.done"
"""Settings in which a block tells what it did: a block has no result."""


def upsert_singly(
    name: str, table: PgName, form: RowForm, time_column: str | None, *, skips: bool
) -> str:
    """Write the same row by row: where the table rejects some, the others arrive all the same.

    It tells in `REJECTED` for each such row its number among those that were sent, SQLSTATE,
    message, constraint and column, and in `DONE` how many rows were inserted or updated.
    """
    columns = _list(_columns(form, time_column))
    chosen = _from_temporary(name, form, time_column, " WHERE n.ctid = mp_at.mp_place ")
    body = f"""
    #variable_conflict use_column
    DECLARE
        mp_at record; mp_state text; mp_told text; mp_constraint text; mp_column text;
        mp_rejected text[] := '{{}}'; mp_done bigint := 0; mp_rows bigint;
    BEGIN
        FOR mp_at IN
            SELECT ctid AS mp_place, row_number() OVER () - 1 AS mp_number
            FROM pg_temp.{quote(name)} ORDER BY {_key_of(form)}, mp_number
        LOOP
            BEGIN
                INSERT INTO {quote_name(table)} AS t ({columns})
                {chosen} {_on_conflict(form, time_column, skips=skips)};
                GET DIAGNOSTICS mp_rows = ROW_COUNT;
                mp_done := mp_done + mp_rows;
            EXCEPTION WHEN OTHERS THEN
                IF SQLSTATE !~ '{VALUES_PATTERN}' THEN
                    RAISE;
                END IF;
                GET STACKED DIAGNOSTICS mp_state = RETURNED_SQLSTATE, mp_told = MESSAGE_TEXT,
                    mp_constraint = CONSTRAINT_NAME, mp_column = COLUMN_NAME;
                mp_rejected := array_append(mp_rejected, jsonb_build_array(
                    mp_at.mp_number, mp_state, mp_told, mp_constraint, mp_column)::text);
            END;
        END LOOP;
        PERFORM set_config('{REJECTED}', '[' || array_to_string(mp_rejected, ',') || ']', true),
            set_config('{DONE}', mp_done::text, true);
    END """  # noqa: S608
    mark = "$mp$"
    while mark in body:
        mark = f"$mp{len(mark)}$"
    told = f"SELECT current_setting('{REJECTED}'), current_setting('{DONE}')"
    return f"SET CONSTRAINTS ALL IMMEDIATE; DO {mark}{body}{mark}; {told}"


def upsert_values(
    table: PgName, form: RowForm, time_column: str | None, rows: int, *, skips: bool
) -> str:
    """Write the same for so many rows that are given as parameters, one value after the other.

    Where both a time and unchanged rows leave rows alone, it counts those that the time does.
    """
    columns = _columns(form, time_column)
    width, listed = len(columns), _list(columns)
    places = ", ".join(
        "(" + ", ".join(f"${row * width + at + 1}" for at in range(width)) + ")"
        for row in range(rows)
    )
    given = f"WITH n({listed}) AS (VALUES {places})"
    insert = (
        f"INSERT INTO {quote_name(table)} AS t ({listed}) "  # noqa: S608
        f"SELECT {listed} FROM n ORDER BY {_key_of(form)} "
        + _on_conflict(form, time_column, skips=skips)
    )
    if not (time_column and skips):
        return f"{given} {insert}"
    time = quote(time_column)
    return (
        f"{given}, done AS ({insert}) SELECT count(*)::text FROM n "  # noqa: S608
        f"JOIN {quote_name(table)} t USING ({_key_of(form)}) WHERE t.{time} > n.{time}"
    )


def count_newer(name: str, table: PgName, form: RowForm, time_column: str) -> str:
    """Write what counts the rows of a temporary table of which the target holds newer ones."""
    time = quote(time_column)
    return (
        f"SELECT count(*) FROM ({_from_temporary(name, form, time_column)}) n "  # noqa: S608
        f"JOIN {quote_name(table)} t USING ({_key_of(form)}) WHERE t.{time} > n.{time}"
    )


def _on_conflict(form: RowForm, time_column: str | None, *, skips: bool) -> str:
    keys = _key_of(form)
    values = [column for column in form.columns if not column.is_key]
    names = [column.name for column in values] + ([time_column] if time_column else [])
    if not names:
        return f"ON CONFLICT ({keys}) DO NOTHING"
    updates = ", ".join(f"{quote(name)} = EXCLUDED.{quote(name)}" for name in names)
    conditions = []
    if time_column:
        time = quote(time_column)
        conditions.append(f"(t.{time} IS NULL OR t.{time} <= EXCLUDED.{time})")
    if skips:
        # By their bytes: 1.5 and 1.50 are equal, and not the same; json has no equality at all.
        here, there = (
            f"ROW({', '.join(f'{row}.{quote(name)}' for name in names)})::record"
            for row in ("t", "EXCLUDED")
        )
        conditions.append(f"{here} *<> {there}")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"ON CONFLICT ({keys}) DO UPDATE SET {updates}{where}"


def _columns(form: RowForm, time_column: str | None) -> list[str]:
    return [*form.names, *([time_column] if time_column else [])]


def copy_out(table: PgName, form: RowForm, where: str = "") -> str:
    """Write a binary COPY of a table's rows; `where` is a condition that is ours."""
    condition = f" WHERE {where}" if where else ""
    return (
        f"COPY (SELECT {_list(form.names)} FROM {quote_name(table)}{condition}) "  # noqa: S608
        "TO STDOUT (FORMAT binary)"
    )


def select_keys(table: PgName, form: RowForm, keys: Sequence[FormColumn], count: int) -> str:
    """Write what reads the rows of so many keys, each with its number among them."""
    chosen = ", ".join(f"t.{quote(name)}" for name in form.names)
    return f"SELECT k.n, {chosen} FROM {_keys(keys, count)} JOIN {_on(table, keys)}"  # noqa: S608


def select_begun(
    table: PgName, form: RowForm, given: Sequence[FormColumn], rest: Sequence[FormColumn], *,
    is_first: bool, rows: int,
) -> str:  # fmt: skip
    """Write what reads so many rows of which the first cells of the key are given, in their order.

    All but the first time the last row's other cells of the key are given, too.
    """
    chosen = _list(form.names)
    known = [f"{quote(column.name)} = ${at + 1}" for at, column in enumerate(given)]
    order = _list([column.name for column in rest])
    if not is_first:
        marks = ", ".join(f"${len(given) + at + 1}" for at in range(len(rest)))
        known.append(f"({order}) > ({marks})")
    return (
        f"SELECT {chosen} FROM {quote_name(table)} WHERE {' AND '.join(known)} "  # noqa: S608
        f"ORDER BY {order} LIMIT {rows:d}"
    )


def delete_keys(
    table: PgName, keys: Sequence[FormColumn], count: int, time_column: str | None
) -> str:
    """Write what deletes the rows of so many keys; newer ones than one more value stay."""
    joined = " AND ".join(f"t.{quote(key.name)} = k.k{at}" for at, key in enumerate(keys))
    older = ""
    if time_column:
        time, place = quote(time_column), f"${count * len(keys) + 1}"
        older = f" AND (t.{time} IS NULL OR t.{time} <= {place})"
    return f"DELETE FROM {quote_name(table)} t USING {_keys(keys, count)} WHERE {joined}{older}"  # noqa: S608


def _keys(keys: Sequence[FormColumn], count: int) -> str:
    width = len(keys)
    rows = ", ".join(
        f"({row}, " + ", ".join(f"${row * width + at + 1}" for at in range(width)) + ")"
        for row in range(count)
    )
    names = ", ".join(f"k{at}" for at in range(width))
    return f"(VALUES {rows}) AS k(n, {names})"


def _on(table: PgName, keys: Sequence[FormColumn]) -> str:
    joined = " AND ".join(f"t.{quote(key.name)} = k.k{at}" for at, key in enumerate(keys))
    return f"{quote_name(table)} t ON {joined}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(quote, names))
