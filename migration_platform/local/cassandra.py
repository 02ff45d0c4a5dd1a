"""How the local Cassandra is started, and when it is ready.

An open port says nothing: it accepts connections some seconds before it knows its first user.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from migration_platform.local.ports import LOCALHOST, free_port
from migration_platform.local.server import (
    JVM_OVERHEAD_MB,
    Launch,
    Server,
    java_launch,
    quiet,
    temporary_folder,
)

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
            "java.io.tmpdir": temporary_folder(folder),
            "logback.configurationFile": Path(__file__).with_name("logback.xml").as_uri(),
            **self.properties,
        }
        return java_launch(
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
        with quiet("cassandra"):
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


def _trusting_context() -> Any:
    """TLS without a check of the certificate: the question is only whether the server answers."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
