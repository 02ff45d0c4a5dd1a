"""A copy that was left half done: what it wrote into Dagster's databases and into Cassandra.

Of eight ranges three were copied and found alike, one was copied but for a row that was rejected,
one failed because it had two such rows, and three were never begun.
"""

import json
import re
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cassandra.cluster import Session
from cassandra.metadata import Murmur3Token

from migration_platform.token_ranges import range_of_key, split_ring
from migration_platform_tests.recorded.declarations import KEYSPACE, UNKEPT

FILE = Path(__file__).with_name("run.json")
"""Statements that make the tables of tracked runs, and rows of these and of the target."""
DATABASES = Path(__file__).with_name("run_databases.zip")
"""Dagster's databases as SQL."""
RANGES = 8
KEYS = [token_range.key for token_range in split_ring(RANGES)]
BEGUN = KEYS[:5]
"""The ranges that the run was to copy and compare."""
DONE = [KEYS[0], KEYS[2], KEYS[4]]
LETTER, FAILED = KEYS[1], KEYS[3]
"""In the first lies a row that the target cannot hold, in the second there are two."""
ORIGIN, TARGET = f"{KEYSPACE}.plain", f"{KEYSPACE}.by_status"
TRACKED_IN = "recorded_runs"
TRACKING_TABLES = (
    "cdm_run_details",
    "cdm_run_info",
    "dead_letters",
    "migration_runs",
    "run_control",
)
DECLARED: dict[str, Any] = {
    "origin": {"store": "sunbird", "table": ORIGIN},
    "target": {"store": "reports", "table": TARGET},
    "token_ranges": RANGES,
    "workers": 1,
    "retry_seconds": 10,
    "columns": {"skip": list(UNKEPT)},
    "dead_letters": {"max_rows": 1},
    "tracking_keyspace": TRACKED_IN,
}


def range_key(region: str) -> str:
    """Give the key of the range in which a partition of the origin lies."""
    token = Murmur3Token.from_key(region.encode()).value
    return next(key for key in KEYS if token in range_of_key(key))


def fill_origin(session: Session) -> None:
    """Write the origin's rows, with times of their own."""
    regions = [f"region {number}" for number in range(60)]
    rows = [(region, 0, f"name of {region}", "active") for region in regions]
    first = {range_key(region): region for region in reversed(regions)}
    # An empty text cannot be the target's partition key.
    bad = [(first[LETTER], 1), (first[FAILED], 1), (first[FAILED], 2)]
    rows += [(region, number, "nobody", "") for region, number in bad]
    for row in rows:
        session.execute(
            f"INSERT INTO {ORIGIN} (region, id, name, status) VALUES (%s, %s, %s, %s) "
            "USING TIMESTAMP 1700000000000000",
            row,
        )


def repair_origin(session: Session) -> None:
    """Give the rejected rows values that the target can hold."""
    for row in session.execute(f"SELECT region, id, status FROM {ORIGIN}"):
        if row["status"] == "":
            session.execute(
                f"UPDATE {ORIGIN} SET status = 'mended' WHERE region = %s AND id = %s",
                [row["region"], row["id"]],
            )


def write_run(session: Session, home: Path) -> None:
    """Write what a run left into the files."""
    found = {
        "tables": describe_tables(session),
        "rows": {
            table: [row["[json]"] for row in session.execute(f"SELECT JSON * FROM {table}")]
            for table in (TARGET, *(f"{TRACKED_IN}.{name}" for name in TRACKING_TABLES))
        },
    }
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    with zipfile.ZipFile(DATABASES, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(home.rglob("*.db")):
            with closing(sqlite3.connect(file)) as database:
                dump = "\n".join(database.iterdump())
            archive.writestr(f"{file.relative_to(home)}.sql", _without_folders(dump))


def describe_tables(session: Session) -> dict[str, str]:
    """Give the statements that make the tables of tracked runs."""
    described = {
        name: session.execute(f"DESCRIBE TABLE {TRACKED_IN}.{name}").one()["create_statement"]
        for name in TRACKING_TABLES
    }
    return {name: _without_options(text) for name, text in described.items()}


def _without_options(create_statement: str) -> str:
    head, _, options = create_statement.partition(" WITH ")
    order = options.partition("CLUSTERING ORDER BY ")[2].partition("\n")[0]
    return head + (f" WITH CLUSTERING ORDER BY {order}" if order else "")


def _without_folders(text: str) -> str:
    """Take out where on the machine the code of a stack trace lay."""
    return re.sub(r"/[\w./-]+/(?=(?:site-packages|python3\.\d+|migration_platform)/)", "/", text)


def read_file() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def restore_run(session: Session, home: Path) -> None:
    """Put what the run left where it left it; its keyspaces and the target are there."""
    found = read_file()
    for statement in found["tables"].values():
        session.execute(statement)
    for table, rows in found["rows"].items():
        for row in rows:
            session.execute(f"INSERT INTO {table} JSON %s", [row])
    with zipfile.ZipFile(DATABASES) as archive:
        for name in archive.namelist():
            file = home / name.removesuffix(".sql")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            with closing(sqlite3.connect(file)) as database:
                database.executescript(archive.read(name).decode())


@contextmanager
def tracking_keyspace(session: Session) -> Iterator[None]:
    """Make the keyspace of tracked runs for the length of a `with` block."""
    session.execute(
        f"CREATE KEYSPACE {TRACKED_IN} WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    try:
        yield
    finally:
        session.execute(f"DROP KEYSPACE {TRACKED_IN}")
