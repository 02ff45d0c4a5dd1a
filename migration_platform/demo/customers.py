"""The demo's table in PostgreSQL: dropped before a new one is made, and asked when it is there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from migration_platform.demo.runs import Stage
from migration_platform.demo.sample_customers import KEYSPACE, TABLE
from migration_platform.local.ports import LOCALHOST
from migration_platform.stores.cassandra.connection import Connection

if TYPE_CHECKING:
    import psycopg

QUESTION = """\
SELECT country,
       count(*) AS customers,
       sum(cardinality(phones)) AS phones,
       sum(credit) AS credit,
       min(billing ->> 'city') AS city
FROM shop.customer
WHERE tags @> ARRAY['vip']
  AND preferences @> '{"newsletter": "weekly"}'
GROUP BY country
ORDER BY customers DESC, country"""
"""An array and documents, asked as PostgreSQL's own."""


@contextmanager
def _connect(stage: Stage) -> Iterator["psycopg.Connection[tuple[Any, ...]]"]:
    import psycopg

    with psycopg.connect(
        host=LOCALHOST,
        port=stage.ports["postgres"],
        user="postgres",
        dbname="postgres",
        autocommit=True,
    ) as connection:
        yield connection


def drop_postgres_table(connection: Connection, stage: Stage) -> None:
    """Drop what an earlier demo has made."""
    del connection
    with _connect(stage) as postgres:
        postgres.execute(f"DROP TABLE IF EXISTS {KEYSPACE}.{TABLE}")


def ask_postgres(stage: Stage) -> Iterator[str]:
    """Give the question and the table of its answer, line by line."""
    yield "In PostgreSQL, VIPs with a weekly newsletter:"
    yield ""
    yield from (f"  {line}" for line in QUESTION.splitlines())
    yield ""
    with _connect(stage) as postgres:
        answer = postgres.execute(QUESTION)
        head = [column.name for column in answer.description or ()]
        yield from (f"  {line}" for line in _lay([head, *answer.fetchall()]))


def _lay(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Lay a table with its head, as psql does."""
    cells = [[_show(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        sides = [
            cell.rjust(width) if _is_number(rows[-1][at]) else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield " | ".join(sides).rstrip()
        if not number:
            yield "-+-".join("-" * width for width in widths)


def _show(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if _is_number(value) else str(value)


def _is_number(value: object) -> bool:
    from decimal import Decimal

    return isinstance(value, int | Decimal)
