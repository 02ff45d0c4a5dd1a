"""Tables and rows for the tests, and the engine run inside the test's own process.

What a test expects is read with a driver session of its own, never with the engine.
"""

import multiprocessing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import WhiteListRoundRobinPolicy
from cassandra.query import dict_factory

from migration_platform.copying.copy import copy_range
from migration_platform.counts import RangeCounts
from migration_platform.cql.names import TableName, quote
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.pacing.rate import RateBudget
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra import connection as store
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.kinds import open_stores, plan_between
from migration_platform.stores.work import OpenStores
from migration_platform.token_ranges import TokenRange
from migration_platform_tests.servers import PATIENCE_SECONDS

REPLICATION = "{'class': 'SimpleStrategy', 'replication_factor': 1}"


def create_keyspace(connection: Connection, keyspace: str, *, durable: bool = False) -> None:
    connection.session.execute(
        f"CREATE KEYSPACE {quote(keyspace)} WITH replication = {REPLICATION} "
        f"AND durable_writes = {str(durable).lower()}"
    )


def create_table(connection: Connection, keyspace: str, table: str, body: str) -> TableName:
    """Make a table from what stands in the parentheses of its CREATE TABLE."""
    head, _, options = body.partition(" WITH ")
    name = TableName(keyspace, table)
    with_options = f" WITH {options}" if options else ""
    connection.session.execute(f"CREATE TABLE {name} ({head}){with_options}")
    return name


def insert_rows(
    connection: Connection, name: TableName, rows: Iterable[Mapping[str, Any]], using: str = ""
) -> None:
    """Write rows; a column that a row does not name is left unset."""
    for row in rows:
        columns = ", ".join(quote(column) for column in row)
        marks = ", ".join("?" * len(row))
        statement = connection.session.prepare(
            f"INSERT INTO {name} ({columns}) VALUES ({marks}) {using}"
        )
        connection.session.execute(statement, list(row.values()))


def declare(origin: TableName, target: TableName, **options: Any) -> Migration:
    """Declare a migration between two tables; sides' own options as `origin_fetch_size=10`."""
    sides: dict[str, dict[str, Any]] = {"origin": {}, "target": {}}
    for option in list(options):
        side, _, rest = option.partition("_")
        if side in sides and rest:
            sides[side][rest] = options.pop(option)
    return Migration(
        Endpoint("a", origin, **sides["origin"]),
        Endpoint("b", target, **sides["target"]),
        **{"token_ranges": 4, "retry_seconds": 20.0, **options},
    )


def plan_copy(connection: Connection, origin: TableName, target: TableName, **options: Any) -> Plan:
    """Declare a migration and hold it against the tables."""
    return plan_between(declare(origin, target, **options), connection, connection)


def in_process(
    plan: Plan, origin: Connection, target: Connection | DynamoDb | None = None
) -> OpenStores:
    """What a worker process holds, for a test that runs a task in its own process."""
    context = multiprocessing.get_context("spawn")
    migration = plan.migration
    reads, writes = (
        RateBudget(
            context,
            rows_per_second=endpoint.rows_per_second,
            size_per_second=endpoint.bytes_per_second,
        )
        for endpoint in (migration.origin, migration.target)
    )
    return open_stores(plan, origin, target or origin, reads, writes, writes)


def copy_ranges(stores: OpenStores, ranges: Iterable[TokenRange] | None = None) -> RangeCounts:
    """Copy ranges one after the other, all of them unless some are named."""
    total = RangeCounts()
    for token_range in stores.plan.migration.ranges if ranges is None else ranges:
        total += copy_range(stores, token_range, lambda _: None)
    return total


def copy_table(
    connection: Connection, origin: TableName, target: TableName, **options: Any
) -> RangeCounts:
    """Copy a whole table inside this process."""
    return copy_ranges(in_process(plan_copy(connection, origin, target, **options), connection))


@contextmanager
def plain_session(settings: CassandraSettings) -> Iterator[Session]:
    """A session of the plain driver with rows as dicts, which shares nothing with the engine."""
    profile = ExecutionProfile(
        load_balancing_policy=WhiteListRoundRobinPolicy(list(settings.contact_points)),
        row_factory=dict_factory,
        request_timeout=PATIENCE_SECONDS,
    )
    cluster = Cluster(
        list(settings.contact_points),
        port=settings.port,
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=PATIENCE_SECONDS,
        control_connection_timeout=PATIENCE_SECONDS,
        max_schema_agreement_wait=PATIENCE_SECONDS,
    )
    try:
        yield be_patient(cluster.connect())
    finally:
        cluster.shutdown()


def be_patient(session: Session) -> Session:
    """Give what a test itself asks of a session a minute, not the driver's ten seconds.

    The engine's own requests bring their time with them, but for those that prepare a statement.
    """
    session.cluster.profile_manager.default.request_timeout = PATIENCE_SECONDS
    session.cluster.max_schema_agreement_wait = PATIENCE_SECONDS
    # For preparing; beside execution profiles the driver lets nobody set it otherwise.
    session._default_timeout = float(PATIENCE_SECONDS)
    return session


@contextmanager
def patient_connection(settings: CassandraSettings) -> Iterator[Connection]:
    """The engine's own kind of connection, for what a test itself asks and does not measure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CONNECT_TIMEOUT_SECONDS", float(PATIENCE_SECONDS))
        connection = Connection(settings)
    with connection:
        be_patient(connection.session)
        yield connection


def rows_of(session: Session, name: TableName) -> list[dict[str, Any]]:
    """Every row of a table, columns by name, in an order that does not depend on the key."""
    rows = [dict(sorted(row.items())) for row in session.execute(f"SELECT * FROM {name}")]
    return sorted(rows, key=repr)


def fill(connection: Connection, name: TableName, columns: str, rows: list[tuple]) -> None:
    """Write many rows at once, each with a value for every column."""
    marks = ", ".join("?" * len(columns.split(",")))
    statement = connection.session.prepare(f"INSERT INTO {name} ({columns}) VALUES ({marks})")
    execute_concurrent_with_args(connection.session, statement, rows, concurrency=100)
