"""How the stand-in of Sunbird's services is started, and when it is ready."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar

from migration_platform.local.ports import LOCALHOST
from migration_platform.local.server import Launch, Server

SUNBIRD_KEY_VARIABLE = "SUNBIRD_SYNC_API_KEY"
# What the stand-in asks of everybody; it listens on this machine only.
SUNBIRD_KEY = "local-sunbird"


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
