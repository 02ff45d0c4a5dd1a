"""Rows that PostgreSQL rejects become dead letters, the others arrive; of two the newer wins."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from migration_platform.copying.replay import ensure_dead_letters, replay
from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns, ExplodeMap
from migration_platform.errors import PermanentError
from migration_platform.local.stack import Running
from migration_platform.plan.model import Plan
from migration_platform.stores.postgres.connection import Postgres, Session
from migration_platform_tests.comparing import OneProcess, compare, found
from migration_platform_tests.postgres_tables import plan_table, settings_of
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process

SECRET = "never-in-a-letter"
STRICT = """
    CREATE TABLE {0}_parents (id int PRIMARY KEY);
    INSERT INTO {0}_parents VALUES (1);
    CREATE FUNCTION {0}_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.tick = 'raise' THEN RAISE EXCEPTION 'no such tick'; END IF;
        IF NEW.tick = 'own' THEN RAISE EXCEPTION 'house rule' USING ERRCODE = 'ZZ001'; END IF;
        RETURN NEW;
    END $$;
    CREATE TABLE {0} (
        k int PRIMARY KEY,
        short text,
        number int CONSTRAINT positive CHECK (number > 0),
        must text NOT NULL,
        code int CONSTRAINT one_code UNIQUE,
        parent int CONSTRAINT has_parent REFERENCES {0}_parents,
        late int CONSTRAINT has_later REFERENCES {0}_parents DEFERRABLE INITIALLY DEFERRED,
        long text,
        tick text
    );
    CREATE INDEX ON {0} (long);
    CREATE TRIGGER guard BEFORE INSERT ON {0} FOR EACH ROW EXECUTE FUNCTION {0}_guard();
"""
REPAIRED = """
    ALTER TABLE {0} ALTER short TYPE text, ALTER must DROP NOT NULL, DROP CONSTRAINT positive,
        DROP CONSTRAINT one_code, DROP CONSTRAINT has_parent, DROP CONSTRAINT has_later;
    DROP INDEX {0}_long_idx; DROP TRIGGER guard ON {0};
"""
COLUMNS = ("k", "short", "number", "must", "code", "parent", "late", "long", "tick")
GOOD = ("fine", 1, "there", None, 1, 1, "", "")
NOISE = "".join(uuid.uuid4().hex for _ in range(300))
"""Too long for an index, and nothing that could be compressed."""
BAD = {
    901: ({"short": SECRET}, "22001"),
    902: ({"number": -1}, "23514, constraint positive"),
    903: ({"must": None}, "23502, column must"),
    904: ({"code": 7}, "23505, constraint one_code"),
    905: ({"parent": 9}, "23503, constraint has_parent"),
    906: ({"late": 9}, "23503, constraint has_later"),
    907: ({"long": NOISE}, "54000"),
    908: ({"tick": "raise"}, "P0001"),
    909: ({"tick": "own"}, "ZZ001"),
    910: ({"short": "a\0b"}, "NUL"),
}


@pytest.fixture(scope="module")
def pg(postgres: Running) -> Iterator[Postgres]:
    with settings_of(postgres.port).connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def sql(postgres: Running) -> Iterator[psycopg.Connection]:
    with psycopg.connect(
        f"host=127.0.0.1 port={postgres.port} user=postgres", autocommit=True
    ) as connection:
        yield connection


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sent to the server, as it goes."""
    sent: list[str] = []
    for name in ("ask", "run", "copy_in"):
        plain = getattr(Session, name)

        def noting(self: Any, sql: str, *arguments: Any, plain: Any = plain, **options: Any) -> Any:
            sent.append(sql)
            return plain(self, sql, *arguments, **options)

        monkeypatch.setattr(Session, name, noting)
    return sent


def letters_plan(connection, pg, keyspace, origin: TableName, into: str = "", **options) -> Plan:
    options = {"dead_letters_max_rows": 5000, "tracking_keyspace": keyspace, **options}
    plan = plan_table(connection, pg, origin, into, token_ranges=1, **options)
    ensure_dead_letters(connection, plan.migration)
    return plan


def letters(connection, keyspace: str) -> dict[str, str]:
    found = connection.session.execute(f"SELECT key_text, cause FROM {keyspace}.dead_letters")
    told = dict(found)
    assert SECRET not in repr(told)
    return told


def strict_row(k: int, **bad: Any) -> tuple:
    row = dict(zip(COLUMNS, (k, *GOOD), strict=True))
    return tuple({**row, "code": 1000 + k, **bad}.values())


@pytest.mark.parametrize("method", ["copy", "values"])
def test_rows_that_the_table_rejects_are_kept_and_replayed_once_it_takes_them(
    connection, pg, sql, keyspace, method
):
    origin = create_table(
        connection,
        keyspace,
        "strict",
        "k int PRIMARY KEY, short text, number int, must text, code int, parent int, late int, "
        "long text, tick text",
    )
    good = [strict_row(k) for k in range(300)] + [strict_row(700, code=7)]
    fill(connection, origin, ", ".join(COLUMNS), good)
    into = f"t{uuid.uuid4().hex}"
    sql.execute(STRICT.format(into).encode())
    # Arrives first, so that 904 is the one that has its code a second time.
    copy_ranges(in_process(plan_table(connection, pg, origin, into), connection, pg))
    sql.execute(f"DELETE FROM {into} WHERE k <> 700")
    bad = [strict_row(k, **change) for k, (change, _) in BAD.items()]
    fill(connection, origin, ", ".join(COLUMNS), bad)
    postgres = {"method": method}
    plan = letters_plan(connection, pg, keyspace, origin, into, postgres=postgres)
    # Shorter than it was when the plan was made, so that the server itself refuses.
    sql.execute(f"ALTER TABLE {into} ALTER short TYPE varchar(5)")

    for _ in range(2):
        counts = copy_ranges(in_process(plan, connection, pg))

        assert (counts.read, counts.written, counts.set_aside) == (311, 301, 10)
        told = letters(connection, keyspace)
        assert sorted(told) == sorted(f"k={k}" for k in BAD)
        for k, (_, cause) in BAD.items():
            assert cause in told[f"k={k}"], told[f"k={k}"]
        assert sql.execute(f"SELECT count(*) FROM {into}").fetchone() == (301,)

    sql.execute(REPAIRED.format(into).encode())
    fill(connection, origin, "k, short", [(910, "ab")])
    plan = letters_plan(connection, pg, keyspace, origin, into, postgres=postgres)
    replayed = replay(OneProcess(plan, connection, pg), connection, plan.migration)  # type: ignore[arg-type]
    assert replayed.error == ""
    assert letters(connection, keyspace) == {}
    assert found(compare(connection, plan, target=pg)) == (0, 0, 0)


NARROW = """
    CREATE TYPE {0}_mood AS ENUM ('sad', 'ok'); CREATE DOMAIN {0}_short AS varchar(4);
    CREATE DOMAIN {0}_even AS int CONSTRAINT evenness CHECK (VALUE % 2 = 0);
    CREATE TABLE {0} (
        mood {0}_mood, k int, name varchar(5), price numeric(6, 2), short {0}_short,
        even {0}_even, tags varchar(5)[], PRIMARY KEY (mood, k)
    )
"""


@pytest.mark.parametrize("unchanged", ["write", "skip"])
@pytest.mark.parametrize("method", ["copy", "values"])
def test_types_that_refuse_some_values_are_written_and_written_again(
    connection, pg, sql, keyspace, method, unchanged
):
    origin = create_table(
        connection,
        keyspace,
        "narrow",
        "mood text, k int, name text, price decimal, short text, even int, "
        "tags list<text>, at int, PRIMARY KEY (mood, k)",
    )
    rows = [
        (("sad", "ok")[k % 2], k, "é" * 5, Decimal("12.50"), "four", 2 * k, ["a", "five5"])
        for k in range(40)
    ]
    columns = "mood, k, name, price, short, even, tags"
    fill(connection, origin, columns, rows)
    into = f"t{uuid.uuid4().hex}"
    sql.execute(NARROW.format(into).encode())
    postgres = {"method": method, "unchanged": unchanged}
    skip = Columns(skip=("at",))
    plan = letters_plan(connection, pg, keyspace, origin, into, columns=skip, postgres=postgres)
    for _ in range(2):
        assert copy_ranges(in_process(plan, connection, pg)).written == 40
        there = sql.execute(f"SELECT {columns} FROM {into}").fetchall()
        assert sorted(there) == sorted(rows)
    fill(connection, origin, "mood, k, even", [("ok", 7, 7), ("ok", 90, 9), ("sad", 90, 8)])
    counts = copy_ranges(in_process(plan, connection, pg))
    assert (counts.written, counts.set_aside) == (40, 2)
    causes = letters(connection, keyspace).values()
    assert ["23514, constraint evenness" in cause for cause in causes] == [True, True]
    assert sql.execute(f"SELECT count(*) FROM {into}").fetchone() == (41,)


@pytest.mark.parametrize(("method", "most"), [("copy", 12), ("values", 2 * 1200)])
def test_every_second_row_may_be_bad_and_the_others_arrive_in_time(
    connection, pg, sql, keyspace, requests, method, most
):
    rows = 1200
    origin = create_table(connection, keyspace, "halves", "k int PRIMARY KEY, n int")
    fill(connection, origin, "k, n", [(n, n % 2) for n in range(rows)])
    into = f"t{uuid.uuid4().hex}"
    sql.execute(f"CREATE TABLE {into} (k int PRIMARY KEY, n int CHECK (n > 0))")
    plan = letters_plan(connection, pg, keyspace, origin, into, postgres={"method": method})
    stores = in_process(plan, connection, pg)
    requests.clear()

    counts = copy_ranges(stores)

    assert (counts.written, counts.set_aside) == (rows // 2, rows // 2)
    assert len(requests) <= most, len(requests)
    assert len(letters(connection, keyspace)) == rows // 2


def test_too_many_bad_rows_fail_their_range(connection, pg, sql, keyspace):
    origin = create_table(connection, keyspace, "many", "k int PRIMARY KEY, n int")
    fill(connection, origin, "k, n", [(n, n % 2) for n in range(40)])
    into = f"t{uuid.uuid4().hex}"
    sql.execute(f"CREATE TABLE {into} (k int PRIMARY KEY, n int CHECK (n > 0))")
    plan = letters_plan(connection, pg, keyspace, origin, into, dead_letters_max_rows=5)
    with pytest.raises(PermanentError, match=r"^more than 5 rows of the range"):
        copy_ranges(in_process(plan, connection, pg))
    assert len(letters(connection, keyspace)) == 5

    plan = plan_table(connection, pg, origin, into)
    with pytest.raises(PermanentError, match="SQLSTATE 23514"):
        copy_ranges(in_process(plan, connection, pg))


@pytest.mark.parametrize("method", ["copy", "values"])
def test_rows_with_one_key_in_a_batch_land_on_each_other_in_their_order(
    connection, pg, sql, keyspace, method
):
    origin = create_table(
        connection, keyspace, "double", "k int, c int, v text, PRIMARY KEY (k, c)"
    )
    rows = [(k, c, f"{k} {c}") for k in range(200) for c in range(3)]
    fill(connection, origin, "k, c, v", rows)
    into = f"t{uuid.uuid4().hex}"
    sql.execute(f"CREATE TABLE {into} (k int PRIMARY KEY, v text)")
    plan = plan_table(
        connection,
        pg,
        origin,
        into,
        columns=Columns(skip=("c",)),
        collisions="newest",
        postgres={"method": method},
    )
    counts = copy_ranges(in_process(plan, connection, pg))
    assert (counts.read, counts.written) == (600, 600)
    # Within a partition rows come in the order of their clustering.
    assert dict(sql.execute(f"SELECT k, v FROM {into}").fetchall()) == {
        k: f"{k} 2" for k in range(200)
    }


def test_entries_of_maps_become_rows_and_bad_ones_letters(connection, pg, sql, keyspace):
    origin = create_table(connection, keyspace, "maps", "k int PRIMARY KEY, m map<text, int>")
    fill(connection, origin, "k, m", [(k, {"a": k, "b": -1, "c": k}) for k in range(20)])
    into = f"t{uuid.uuid4().hex}"
    sql.execute(f"CREATE TABLE {into} (k int, e text, v int CHECK (v >= 0), PRIMARY KEY (k, e))")
    columns = Columns(explode_map=ExplodeMap("m", "e", "v"))
    plan = letters_plan(connection, pg, keyspace, origin, into, columns=columns)
    counts = copy_ranges(in_process(plan, connection, pg))
    assert (counts.written, counts.set_aside) == (40, 20)
    assert sql.execute(f"SELECT count(*) FROM {into}").fetchone() == (40,)


TIMES = {"bigint": lambda us: us, "timestamptz": lambda us: datetime.fromtimestamp(us / 1e6, UTC)}


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("unchanged", ["write", "skip"])
@pytest.mark.parametrize("method", ["copy", "values"])
def test_the_newest_row_wins_and_what_is_there_is_not_written_again(
    connection, pg, sql, keyspace, kind, unchanged, method
):
    origin = create_table(connection, keyspace, "times", "k int PRIMARY KEY, v text")
    at = 1_700_000_000_000_000
    for k in range(30):
        connection.session.execute(
            f"INSERT INTO {origin} (k, v) VALUES ({k}, 'v{k}') USING TIMESTAMP {at + k}"
        )
    into = f"t{uuid.uuid4().hex}"
    sql.execute(f"CREATE TABLE {into} (k int PRIMARY KEY, v text, w {kind})")
    cell = TIMES[kind]
    newer, older, untimed = (3, cell(at + 99)), (4, cell(at - 99)), (5, None)
    for k, time_of in (newer, older, untimed):
        sql.execute(f"INSERT INTO {into} VALUES (%s, 'other', %s)", (k, time_of))
    plan = plan_table(
        connection,
        pg,
        origin,
        into,
        writetime="row_max",
        postgres={"writetime_column": "w", "unchanged": unchanged, "method": method},
    )
    stores = in_process(plan, connection, pg)

    counts = copy_ranges(stores)

    assert (counts.written, counts.left_alone) == (29, 1)
    there = {k: (v, w) for k, v, w in sql.execute(f"SELECT k, v, w FROM {into}").fetchall()}
    wanted = {k: (f"v{k}", cell(at + k)) for k in range(30)}
    assert there == {**wanted, 3: ("other", cell(at + 99))}

    versions = f"SELECT k, xmin::text FROM {into}"
    before = dict(sql.execute(versions).fetchall())
    counts = copy_ranges(stores)
    assert (counts.written, counts.left_alone) == (29, 1)
    after = dict(sql.execute(versions).fetchall())
    assert (before == after) == (unchanged == "skip")
    assert before[3] == after[3]


@pytest.mark.parametrize("method", ["copy", "values"])
def test_unchanged_rows_are_not_written_a_second_time(connection, pg, sql, keyspace, method):
    origin = create_table(connection, keyspace, "same", "k int PRIMARY KEY, v text, l list<int>")
    fill(connection, origin, "k, v, l", [(n, None if n % 3 else "", [n]) for n in range(100)])
    plan = plan_table(connection, pg, origin, postgres={"method": method, "unchanged": "skip"})
    copy_ranges(in_process(plan, connection, pg))
    fill(connection, origin, "k, v, l", [(7, "new", [7])])
    name = plan.target.name
    versions = f'SELECT k, xmin::text FROM "{name.keyspace}"."{name.table}"'
    before = dict(sql.execute(versions).fetchall())

    counts = copy_ranges(in_process(plan, connection, pg))

    after = dict(sql.execute(versions).fetchall())
    assert {k for k in before if before[k] != after[k]} == {7}
    assert (counts.written, counts.left_alone) == (100, 0)
    again = replace(plan, migration=replace(plan.migration, retry_seconds=1.0))
    assert found(compare(connection, again, target=pg)) == (0, 0, 0)


def test_a_value_of_a_hundred_megabytes_is_sent_in_pieces(pg, sql):
    blob = bytes(100_000_000)
    into = f"t{uuid.uuid4().hex}"
    sql.execute(f"CREATE TABLE {into} (k int PRIMARY KEY, b bytea)")
    pieces = [
        b"PGCOPY\n\xff\r\n\0" + bytes(8),
        b"\0\2\0\0\0\4\0\0\0\1" + len(blob).to_bytes(4, "big"),
        blob,
        b"\xff\xff",
    ]
    session = pg.session("questions")
    session.copy_in(f"COPY {into} FROM STDIN (FORMAT binary)", iter(pieces))
    assert sql.execute(f"SELECT k, length(b) FROM {into}").fetchall() == [(1, len(blob))]
    sql.execute(f"DROP TABLE {into}")
