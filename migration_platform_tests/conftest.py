"""Real servers, one of each kind for the whole session, started when first asked for."""

import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from cassandra.cluster import Session
from hypothesis import settings

from migration_platform.cql.names import quote
from migration_platform.local import ports
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.dynamodb import DynamoDb as DynamoDbLocal
from migration_platform.local.kafka import Kafka
from migration_platform.local.neo4j import Neo4j
from migration_platform.local.postgres import Postgres
from migration_platform.local.stack import Running
from migration_platform.pacing import retries
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.dynamodb import retries as dynamodb_retries
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform_tests.dynamodb_faults import FaultyDynamoDb, faults_before
from migration_platform_tests.dynamodb_tables import dynamodb_settings, settings_of
from migration_platform_tests.roles import CHECKING, Roles, roles_of
from migration_platform_tests.servers import QUICK, SMALL_HEAP_MB, run_server
from migration_platform_tests.tables import create_keyspace, patient_connection, plain_session

# A shell that runs the tests in the background lets them ignore Ctrl-C. Dagster hands the handler
# of SIGINT on to SIGTERM after each run, and servers started later would ignore the request to end.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Servers that live for minutes never earn back what the optimizing compiler takes: without it a
# Cassandra of the tests uses a third of the processor's time. Programs that tests start inherit it.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

# Hundreds of worker processes and some ninety of Dagster import this package: each would compile it
# for itself where a shell forbids Python to keep what it compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Servers and Dagster force each write to the disk, which tests need not wait for where there is
# room in memory. A container's /dev/shm is too small by default, and may forbid programs, which
# the servers' libraries are.
MEMORY = Path("/dev/shm")
if (
    MEMORY.is_dir()
    and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    and shutil.disk_usage(MEMORY).free > 6 * 2**30
):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# A server takes its port seconds after it was chosen: processes of the tests choose from parts of
# their own, or one of them would talk to the server of another.
_PART = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 5
ports.FREE_PORTS = range(15_000 + 3_000 * _PART, 18_000 + 3_000 * _PART)

# How long an example takes says something of the machine, not of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Let one more process run than there are processors: tests wait half of their time."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The running server that tests share; it must be alive after each of them."""
    home = tmp_path_factory.mktemp("cassandra")
    with run_server(Cassandra(cluster_name="tests", properties=QUICK), home) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The running broker that tests share; topics are made by the first message."""
    with run_server(Kafka(), tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def aws_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Credentials that DynamoDB Local takes, for this process and its workers, and no others."""
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    with pytest.MonkeyPatch.context() as patch:
        for name in {n for n in os.environ if n.startswith("AWS_")} - {"AWS_CA_BUNDLE"}:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "local")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "local")
        patch.setenv("AWS_CONFIG_FILE", nowhere)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
        # Else a test without credentials asks the network for them.
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def dynamodb(tmp_path_factory: pytest.TempPathFactory, aws_environment: None) -> Iterator[Running]:
    """The running DynamoDB Local that tests share; tables are told apart by their names."""
    with run_server(DynamoDbLocal(), tmp_path_factory.mktemp("dynamodb")) as server:
        yield server


@pytest.fixture(scope="session")
def dynamo(dynamodb: Running) -> Iterator[DynamoDb]:
    """The engine's own kind of connection to the shared DynamoDB Local."""
    with dynamodb_settings(dynamodb.port).connect() as connection:
        yield connection


@pytest.fixture
def faulty(dynamodb: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyDynamoDb]:
    """A proxy before DynamoDB Local, at first without faults; the delays of retries are short."""
    for module in (retries, dynamodb_retries):
        monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 0.02)
    with faults_before(dynamodb.port) as proxy:
        yield proxy


@pytest.fixture
def through(faulty: FaultyDynamoDb) -> Iterator[DynamoDb]:
    """A connection that passes the proxy."""
    with settings_of(faulty.url, read_timeout_seconds=1.0).connect() as connection:
        yield connection


@pytest.fixture(scope="session")
def neo4j(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The running Neo4j that tests share; it asks for a password, labels tell the tests apart."""
    with run_server(Neo4j(password=True), tmp_path_factory.mktemp("neo4j")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Running]:
    """The running PostgreSQL that tests share; schemas tell the tests apart."""
    # Not below pytest's folder, which each of its processes shuts for the server's user.
    with TemporaryDirectory(
        prefix="postgres-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")
    ) as home:
        Path(home).chmod(0o711)
        with run_server(Postgres(), Path(home)) as server:
            yield server


@pytest.fixture(scope="session")
def guarded_cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server for what goes wrong: it asks for a password, and its ring is not Murmur3's."""
    server = Cassandra(
        cluster_name="guarded",
        password=True,
        partitioner="RandomPartitioner",
        heap_mb=SMALL_HEAP_MB,
        properties=QUICK,
    )
    with run_server(server, tmp_path_factory.mktemp("guarded")) as running:
        yield running


@pytest.fixture(scope="session")
def checking_cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that asks for a password, checks permissions and masks columns."""
    server = Cassandra(
        cluster_name="checking",
        password=True,
        heap_mb=SMALL_HEAP_MB,
        settings=CHECKING,
        properties=QUICK,
    )
    with run_server(server, tmp_path_factory.mktemp("checking")) as running:
        yield running


@pytest.fixture
def roles(checking_cassandra: Running) -> Iterator[Roles]:
    """A keyspace on that server, and roles with the permissions that a test names."""
    with roles_of(checking_cassandra) as found:
        yield found


@pytest.fixture(scope="session")
def settings(cassandra: Running) -> CassandraSettings:
    """How to reach the shared Cassandra."""
    return CassandraSettings(port=cassandra.port)


@pytest.fixture(scope="session")
def connection(settings: CassandraSettings) -> Iterator[Connection]:
    """The engine's own kind of connection to the shared Cassandra."""
    with patient_connection(settings) as connection:
        yield connection


@pytest.fixture(scope="session")
def reader(settings: CassandraSettings) -> Iterator[Session]:
    """A plain driver session: what the engine did is read without the engine."""
    with plain_session(settings) as session:
        yield session


@pytest.fixture
def keyspace(connection: Connection) -> Iterator[str]:
    """An empty keyspace with a name of its own, gone after the test."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    create_keyspace(connection, name)
    yield name
    connection.session.execute(f"DROP KEYSPACE {quote(name)}", timeout=60)


if TYPE_CHECKING:
    from migration_platform_tests.dagster_project import Move


@pytest.fixture
def move(
    tmp_path: Path,
    cassandra: Running,
    kafka: Running,
    connection: Connection,
    reader: Session,
    keyspace: str,
) -> "Move":
    """The sample tables with 400 rows, and a Dagster project of some user that migrates them."""
    # Only here, because the engine's tests need no Dagster.
    from migration_platform_tests.dagster_project import begin_move

    return begin_move(tmp_path, keyspace, connection, reader, (cassandra.port, kafka.port))
