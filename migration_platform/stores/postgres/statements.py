"""The statements by which rows are written, read and deleted; every name in them is quoted."""

from collections.abc import Sequence

from migration_platform.stores.postgres.names import PgName, quote, quote_name
from migration_platform.stores.postgres.rows import FormColumn, RowForm

_WITHOUT_EQUALITY = ("json", "xml", "point")
"""Types that have no equality: their texts are compared."""
TEMPORARY = "mp_rows_{}"


def copy_into(name: str, columns: Sequence[str]) -> str:
    """Write a COPY of binary rows into a table, whose name is quoted already."""
    return f"COPY {name} ({_list(columns)}) FROM STDIN (FORMAT binary)"


def create_temporary(name: str, table: PgName, columns: Sequence[str]) -> str:
    """Write what makes an empty temporary table with a table's columns, and none of its rules."""
    return (
        f"CREATE TEMPORARY TABLE {quote(name)} ON COMMIT DELETE ROWS AS "  # noqa: S608
        f"SELECT {_list(columns)} FROM {quote_name(table)} WITH NO DATA"
    )


def upsert_from(
    name: str, table: PgName, form: RowForm, time_column: str | None, *, skips: bool
) -> str:
    """Write what inserts the rows of a temporary table, or updates those that are there."""
    columns = _columns(form, time_column)
    keys = [column.name for column in form.columns if column.is_key]
    # In one order, so that two runs wait for each other and never both at once.
    return (
        f"INSERT INTO {quote_name(table)} AS t ({_list(columns)}) "  # noqa: S608
        f"SELECT {_list(columns)} FROM pg_temp.{quote(name)} ORDER BY {_list(keys)} "
        + _on_conflict(form, time_column, skips=skips)
    )


def upsert_values(
    table: PgName, form: RowForm, time_column: str | None, rows: int, *, skips: bool
) -> str:
    """Write the same for so many rows that are given as parameters, one value after the other."""
    columns = _columns(form, time_column)
    width = len(columns)
    places = ", ".join(
        "(" + ", ".join(f"${row * width + at + 1}" for at in range(width)) + ")"
        for row in range(rows)
    )
    return (
        f"INSERT INTO {quote_name(table)} AS t ({_list(columns)}) VALUES {places} "  # noqa: S608
        + _on_conflict(form, time_column, skips=skips)
    )


def count_newer(name: str, table: PgName, form: RowForm, time_column: str) -> str:
    """Write what counts the rows of a temporary table of which the target holds newer ones."""
    keys = _list([column.name for column in form.columns if column.is_key])
    time = quote(time_column)
    return (
        f"SELECT count(*) FROM pg_temp.{quote(name)} n JOIN {quote_name(table)} t USING ({keys}) "  # noqa: S608
        f"WHERE t.{time} > n.{time}"
    )


def _on_conflict(form: RowForm, time_column: str | None, *, skips: bool) -> str:
    keys = _list([column.name for column in form.columns if column.is_key])
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
        differ = [_differs(column) for column in values]
        if time_column:
            time = quote(time_column)
            differ.append(f"t.{time} IS DISTINCT FROM EXCLUDED.{time}")
        conditions.append(f"({' OR '.join(differ)})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"ON CONFLICT ({keys}) DO UPDATE SET {updates}{where}"


def _differs(column: FormColumn) -> str:
    cast = "::text" if column.pg_type.name in _WITHOUT_EQUALITY else ""
    name = quote(column.name)
    return f"t.{name}{cast} IS DISTINCT FROM EXCLUDED.{name}{cast}"


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
