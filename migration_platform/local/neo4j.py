"""How the local Neo4j is started, and when it is ready."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from migration_platform.local import LocalStackError
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.server import (
    JVM_OVERHEAD_MB,
    Launch,
    Server,
    java_launch,
    quiet,
    temporary_folder,
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
        return java_launch(
            "org.neo4j.server.CommunityEntryPoint",
            f"--home-dir={folder}",
            f"--config-dir={folder}",
            # Standard output is the server's log file; as a daemon it would write another one.
            "--console-mode",
            heap_mb=self.heap_mb,
            jars=jars,
            properties={
                "log4j2.disable.jmx": "true",
                "java.io.tmpdir": temporary_folder(folder),
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
        with quiet("neo4j"):
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


def _neo4j_first_user() -> str:
    """A line of `auth.ini`: the hash is SHA-256 once over salt and password, then over itself."""
    salt = os.urandom(32)
    digest = hashlib.sha256(salt + NEO4J_PASSWORD.encode()).digest()
    for _ in range(NEO4J_HASH_ROUNDS - 1):
        digest = hashlib.sha256(digest).digest()
    hashed = f"SHA-256,{digest.hex()},{salt.hex()},{NEO4J_HASH_ROUNDS}"
    return f"{NEO4J_USER}:{hashed}:\n"
