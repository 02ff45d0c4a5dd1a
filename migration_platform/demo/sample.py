"""Sample data of the demo and the benchmarks, the same in every run: enrolments and users.

The two tables of enrolments are those of Sunbird's migrator job: the origin is keyed by user, the
report table by batch, and three collections are frozen in the report table only. The users are
those of a migration to DynamoDB.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cassandra import DriverException

from migration_platform.cql.names import TableName, quote
from migration_platform.errors import DeclarationError, PreflightError, explain
from migration_platform.pacing.retries import ask_patiently
from migration_platform.stores.cassandra.connection import Connection

KEYSPACE = "sunbird_courses"
ORIGIN_TABLE = "user_enrolments"
TARGET_TABLE = "report_user_enrolments"
COLUMNS = (
    ("userid", "text"),
    ("courseid", "text"),
    ("batchid", "text"),
    ("active", "boolean"),
    ("addedby", "text"),
    ("certificates", "list<frozen<map<text, text>>>"),
    ("certstatus", "int"),
    ("completedon", "timestamp"),
    ("completionpercentage", "int"),
    ("contentstatus", "map<text, int>"),
    ("datetime", "timestamp"),
    ("enrolled_date", "timestamp"),
    ("enrolleddate", "text"),
    ("issued_certificates", "list<frozen<map<text, text>>>"),
    ("lastcontentaccesstime", "timestamp"),
    ("lastreadcontentid", "text"),
    ("lastreadcontentstatus", "int"),
    ("progress", "int"),
    ("status", "int"),
)
FROZEN_AT_TARGET = ("certificates", "contentstatus", "issued_certificates")
ENROLMENTS_A_USER = 4
ENROLMENTS_A_BATCH = 250
USERS_KEYSPACE = "test"
USERS_TABLE = "users"
USERS = TableName(USERS_KEYSPACE, USERS_TABLE)
FILL_RETRY_SECONDS = 60.0
_FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def create_tables(
    connection: Connection,
    keyspace: str = KEYSPACE,
    *,
    origin: str = ORIGIN_TABLE,
    target: str = TARGET_TABLE,
) -> None:
    """Make the keyspace and both tables where they are missing."""
    columns = ", ".join(f"{name} {cql_type}" for name, cql_type in COLUMNS)
    frozen = ", ".join(
        f"{name} frozen<{cql_type}>" if name in FROZEN_AT_TARGET else f"{name} {cql_type}"
        for name, cql_type in COLUMNS
    )
    execute = connection.session.execute
    execute(
        f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    execute(
        f"CREATE TABLE IF NOT EXISTS {keyspace}.{origin} "
        f"({columns}, PRIMARY KEY (userid, courseid, batchid))"
    )
    execute(
        f"CREATE TABLE IF NOT EXISTS {keyspace}.{target} "
        f"({frozen}, PRIMARY KEY (batchid, courseid, userid))"
    )


def enrolments(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Give `count` enrolments, user by user; two calls with one seed give the same rows.

    A column that a row does not name is null. Rows weigh some 500 bytes on the wire.
    """
    made = 0
    user = 0
    batches = max(1, count // ENROLMENTS_A_BATCH)
    while made < count:
        rng = random.Random(f"{seed}/{user}")  # noqa: S311, sample data
        user_id = name_user(rng, user)
        for batch in rng.sample(range(batches), min(batches, ENROLMENTS_A_USER)):
            if made == count:
                return
            made += 1
            yield _enrolment(rng, user_id, batch)
        user += 1


def name_user(rng: random.Random, user: int) -> str:
    """Give a user's id."""
    return f"{rng.getrandbits(64):016x}-{user:08d}"


def name_course(batch: int) -> str:
    """Give the id of a batch's course."""
    return f"do_3130{batch % 997:05d}1{batch % 89:04d}"


def name_batch(batch: int) -> str:
    """Give a batch's id."""
    return f"0130{batch:012d}"


def _enrolment(rng: random.Random, user_id: str, batch: int) -> dict[str, Any]:
    enrolled = _FIRST_DAY + timedelta(seconds=rng.randrange(600 * 86_400))
    contents = rng.randrange(4, 12)
    done = rng.randrange(contents + 1)
    percentage = 100 * done // contents
    row: dict[str, Any] = {
        "userid": user_id,
        "courseid": name_course(batch),
        "batchid": name_batch(batch),
        "active": rng.random() < 0.97,
        # Most users enrol themselves; an empty string is what the portal then leaves here.
        "addedby": "" if rng.random() < 0.6 else f"mentor-{rng.randrange(500):04d}",
        "completionpercentage": percentage,
        "contentstatus": {
            f"do_3130{batch % 997:05d}2{n:05d}": 2 if n < done else 1 for n in range(contents)
        },
        "datetime": enrolled,
        "enrolled_date": enrolled,
        "enrolleddate": enrolled.strftime("%Y-%m-%d %H:%M:%S:000+0000"),
        "lastcontentaccesstime": enrolled + timedelta(seconds=rng.randrange(30 * 86_400)),
        "lastreadcontentid": f"do_3130{batch % 997:05d}2{max(0, done - 1):05d}",
        "lastreadcontentstatus": 2 if done else 1,
        "progress": done,
        "status": 2 if done == contents else 1 if done else 0,
    }
    if done == contents:
        row["completedon"] = row["lastcontentaccesstime"]
        row["certstatus"] = 1
        row["issued_certificates"] = [
            {
                "name": rng.choice(("Course completion", "पाठ्यक्रम पूर्णता", "Merit ★")),
                "identifier": f"{rng.getrandbits(128):032x}",
                "lastIssuedOn": row["completedon"].strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
                "token": f"{rng.getrandbits(32):08X}",
            }
        ]
    return row


def fill_origin(
    connection: Connection,
    count: int,
    *,
    seed: int = 1,
    keyspace: str = KEYSPACE,
    table: str = ORIGIN_TABLE,
    on_progress: Callable[[int], object] = lambda rows: None,
) -> float:
    """Write the enrolments into the origin table; gives the seconds that it took."""
    from cassandra.query import UNSET_VALUE

    names = [name for name, _ in COLUMNS]
    rows = ([row.get(name, UNSET_VALUE) for name in names] for row in enrolments(count, seed))
    return fill_table(connection, f"{keyspace}.{table}", names, rows, on_progress)


def create_users(connection: Connection, table: TableName = USERS) -> None:
    """Make the users' keyspace and table where they are missing."""
    connection.session.execute(
        f"CREATE KEYSPACE IF NOT EXISTS {quote(table.keyspace)} WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    connection.session.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (id uuid PRIMARY KEY, name text, email text)"
    )


def prepare_users(connection: Connection, table: TableName, *, add: bool) -> None:
    """Make the users' table where it is missing, and see that it may be filled.

    Raises:
        DeclarationError: it holds rows, and is not to be added to; or it is no table of users.
        PreflightError: the server does not make it.
    """
    find = "SELECT column_name, type FROM system_schema.columns WHERE keyspace_name = %s AND"
    key = (table.keyspace, table.table)
    found = connection.session.execute(f"{find} table_name = %s", key)
    columns = dict(iter(found))
    try:
        if not columns:
            create_users(connection, table)
            return
        if columns.keys() != {"id", "name", "email"} or columns["id"] not in ("uuid", "timeuuid"):
            raise DeclarationError(
                f"{table} is there and no table of users: it has {', '.join(sorted(columns))}; "
                "name another --table"
            )
        find_one = f"SELECT id FROM {table} LIMIT 1"  # noqa: S608, a quoted name
        if not add and connection.session.execute(find_one).one():
            raise DeclarationError(
                f"{table} has rows already; name another --table, or write them beside with --add"
            )
    except DriverException as error:
        raise PreflightError(f"{table} cannot be made or read: {explain(error)}") from error


def users(count: int, seed: int = 1) -> Iterator[tuple[uuid.UUID, str, str]]:
    """Give `count` users: a time-based id, name and e-mail; one seed gives the same users."""
    from cassandra.util import uuid_from_time

    rng = random.Random(f"{seed}/users")  # noqa: S311, sample data
    node, clock = rng.getrandbits(48), rng.getrandbits(14)
    first = _FIRST_DAY.timestamp()
    for number in range(count):
        # A millisecond apart, so that no two ids are made of the same moment.
        made = uuid_from_time(first + number / 1000, node=node, clock_seq=clock)
        yield made, f"User{number}", f"user{number}@example.com"


def fill_users(
    connection: Connection,
    count: int,
    *,
    seed: int = 1,
    table: TableName = USERS,
    on_progress: Callable[[int], object] = lambda rows: None,
) -> float:
    """Write the users into their table; gives the seconds that it took."""
    names = ["id", "name", "email"]
    return fill_table(connection, str(table), names, users(count, seed), on_progress)


def fill_table(
    connection: Connection,
    table: str,
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    on_progress: Callable[[int], object],
) -> float:
    """Write rows, some at a time and many at once; gives the seconds that it took.

    Raises:
        MigrationError: the server refused rows, or did not take them in time.
    """
    from cassandra.concurrent import execute_concurrent_with_args

    started = time.monotonic()
    marks = ", ".join("?" * len(names))
    statement = connection.prepare(
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608
    )
    some: list[Sequence[Any]] = []

    def write() -> None:
        left = list(some)

        def write_left() -> None:
            written = execute_concurrent_with_args(
                connection.session, statement, left, concurrency=100, raise_on_first_error=False
            )
            failed = [
                (row, each[1]) for row, each in zip(left, written, strict=True) if not each[0]
            ]
            left[:] = [row for row, _ in failed]
            if failed:
                raise failed[0][1]

        # A busy machine answers some of so many late.
        ask_patiently(write_left, FILL_RETRY_SECONDS, table)
        on_progress(len(some))
        some.clear()

    for row in rows:
        some.append(row)
        if len(some) == 2_000:
            write()
    if some:
        write()
    return time.monotonic() - started
