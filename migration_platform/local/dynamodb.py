"""How DynamoDB Local is started, and when it is ready."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from migration_platform.local.ports import LOCALHOST
from migration_platform.local.server import (
    JVM_OVERHEAD_MB,
    Launch,
    Server,
    java_launch,
    temporary_folder,
)


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
        return java_launch(
            "org.eclipse.jetty.xml.XmlConfiguration",
            str(Path(__file__).with_name("dynamodb.xml")),
            heap_mb=self.heap_mb,
            jars=jars,
            properties={
                "dynamodb.port": port,
                "java.library.path": os.pathsep.join(native),
                "java.io.tmpdir": temporary_folder(folder),
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
