"""Starts, ends and lists the local servers; each one outlives the process that started it.

A server's state file is written between its start and the wait for it, so a crash in that wait
leaves nothing that `stop` could not end. It names a process by its number and its start time:
numbers are used again, and a stranger must never be ended.
"""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from migration_platform.local import LocalStackError
from migration_platform.local.jars import fetch, locked_file, locked_jars
from migration_platform.local.ports import LOCALHOST, free_port, port_is_free, port_is_open
from migration_platform.local.server import Server
from migration_platform.local.servers import SERVERS

HOME_VARIABLE = "MIGRATION_PLATFORM_HOME"
JARS_VARIABLE = "MIGRATION_PLATFORM_JARS"
DEFAULT_HOME = ".migration-platform"

# An idle Cassandra takes 5 s; one that has a full heap to write needs longer.
STOP_SECONDS = 30
REPORT_SECONDS = 5
POLL_SECONDS = 0.2
STOP_POLL_SECONDS = 0.05

# The start time is computed from the system clock, which may be set by a little while servers run.
# Process numbers do not come round that soon.
START_TIME_TOLERANCE_SECONDS = 2

State = Literal["running", "starting", "dead", "stopped"]
Report = Callable[[str], None]

# A child that ends stays a zombie until its parent asks for its exit code, so somebody has to.
_children: dict[int, subprocess.Popen[Any]] = {}


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that was started; the content of its state file.

    Attributes:
        name: Which server, a key of `SERVERS`.
        pid: Process number.
        create_time: When that process began, in seconds since 1970.
        port: Where clients connect.
        home: The stack's folder, absolute.
        options: The server's description in text, to tell a second start with other options.
        ready: Whether it has answered once.
        host: Its address on this machine.
    """

    name: str
    pid: int
    create_time: float
    port: int
    home: Path
    options: str
    ready: bool
    host: str = LOCALHOST

    @property
    def address(self) -> str:
        """Host and port, as clients write them."""
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        """What the server wrote, over all its starts."""
        return self.home / self.name / "server.log"


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a server is.

    Attributes:
        name: Which server.
        state: `running` once it has answered, `starting` before, `dead` when it ended without
            `stop`, `stopped` otherwise.
        server: What was started; None when it is stopped.
    """

    name: str
    state: State
    server: Running | None


def home_folder(home: Path | None = None) -> Path:
    """The folder of all state: the argument, else `MIGRATION_PLATFORM_HOME`, else the default."""
    return Path(home or os.environ.get(HOME_VARIABLE) or DEFAULT_HOME).absolute()


def jars_cache(home: Path, jars_folder: Path | None = None) -> Path:
    """The jars' folder: the argument, else `MIGRATION_PLATFORM_JARS`, else `jars` in the home."""
    return Path(jars_folder or os.environ.get(JARS_VARIABLE) or home / "jars").absolute()


def start_all(
    servers: Sequence[Server],
    *,
    home: Path | None = None,
    ports: Mapping[str, int] | None = None,
    jars_folder: Path | None = None,
    report: Report = lambda line: None,
) -> list[Running]:
    """Start servers side by side and wait until each one answers.

    One that runs already is left alone. Several processes may do this at once.

    Args:
        servers: What to start, each kind once.
        home: Folder of all state; see `home_folder`.
        ports: Server's name -> port; a server that is not named takes its default port, or stays
            on the one it already has.
        jars_folder: Cache of the jars; see `jars_cache`.
        report: Gets one line a step.

    Returns:
        The servers in the order of the argument, all of them ready.

    Raises:
        LocalStackError: A port is taken, memory or disk is short, a jar cannot be had, a server
            ends while it starts or is not ready in time. The message has a line for each.
    """
    home = home_folder(home)
    cache = jars_cache(home, jars_folder)
    ports = ports or {}
    chosen = [ports.get(server.name, server.default_port) for server in servers]
    if len(set(chosen)) < len(chosen):
        raise LocalStackError(f"Two servers cannot share a port; the ports are {chosen}.")
    for server in servers:
        (home / server.name).mkdir(parents=True, exist_ok=True)
    absent = [server for server in servers if not _find(server, home, ports.get(server.name))]
    for server in absent:
        _require_free_port(server, ports.get(server.name, server.default_port))
    _require_memory(absent)
    _require_disk(absent, home)
    fetch(
        (jar for server in absent for jar in locked_jars(server.name)), folder=cache, report=report
    )
    return _start_together(servers, home, ports, cache, report)


def _start_together(
    servers: Sequence[Server], home: Path, ports: Mapping[str, int], cache: Path, report: Report
) -> list[Running]:
    given_up = threading.Event()
    with ThreadPoolExecutor(max(len(servers), 1)) as pool:
        starts = [
            pool.submit(_start, server, home, ports.get(server.name), cache, report, given_up)
            for server in servers
        ]
        try:
            wait(starts)
        except BaseException:
            # Ctrl-C: the pool waits for its threads, so these must end.
            given_up.set()
            raise
    failures = [str(error) for done in starts if (error := done.exception())]
    for done in starts:
        if (error := done.exception()) and not isinstance(error, LocalStackError):
            raise error
    if failures:
        raise LocalStackError("\n".join(failures))
    return [done.result() for done in starts]


def start(
    server: Server,
    *,
    home: Path | None = None,
    port: int | None = None,
    jars_folder: Path | None = None,
    report: Report = lambda line: None,
) -> Running:
    """Start one server and wait until it answers; see `start_all`."""
    ports = {} if port is None else {server.name: port}
    (running,) = start_all([server], home=home, ports=ports, jars_folder=jars_folder, report=report)
    return running


def stop(name: str, *, home: Path | None = None, report: Report = lambda line: None) -> bool:
    """End a server that this home's state file names; its data stays.

    It is asked first, and killed with its children after `STOP_SECONDS`.

    Args:
        name: Which server, a key of `SERVERS`.
        home: Folder of all state; see `home_folder`.
        report: Gets a line that says what was done.

    Returns:
        Whether a process was ended.
    """
    folder = home_folder(home) / name
    if not folder.is_dir():
        report(f"{name}: was not running")
        return False
    with locked_file(folder / ".lock"):
        server = _read_state(folder)
        process = server and _process(server)
        if server and process:
            killed = _end(process, SERVERS[name])
            how = "killed, it did not end by itself" if killed else "ended"
            report(f"{name}: {how} (process {server.pid})")
        elif server:
            report(f"{name}: had already ended by itself; its log: {server.log}")
        else:
            report(f"{name}: was not running")
        (folder / "state.json").unlink(missing_ok=True)
    return process is not None


def status(*, home: Path | None = None) -> list[Status]:
    """How every server of this home is, without asking any of them."""
    home = home_folder(home)
    result = []
    for name in SERVERS:
        server = _read_state(home / name)
        state: State = "stopped"
        if server and _process(server):
            state = "running" if server.ready else "starting"
        elif server:
            state = "dead"
        result.append(Status(name=name, state=state, server=server))
    return result


@contextmanager
def running(
    server: Server,
    *,
    home: Path,
    port: int | None = None,
    jars_folder: Path | None = None,
    report: Report = lambda line: None,
) -> Iterator[Running]:
    """A server for the length of a `with` block, on a free port unless one is named."""
    try:
        yield start(
            server,
            home=home,
            port=free_port() if port is None else port,
            jars_folder=jars_folder,
            report=report,
        )
    finally:
        stop(server.name, home=home)


def available_memory_mb() -> int:
    """Memory that programs can still get without the machine swapping."""
    return psutil.virtual_memory().available // 2**20


def available_disk_mb(folder: Path) -> int:
    """Free space where the folder lies."""
    return shutil.disk_usage(folder).free // 2**20


def _start(
    server: Server,
    home: Path,
    port: int | None,
    cache: Path,
    report: Report,
    given_up: threading.Event,
) -> Running:
    folder = home / server.name
    began = time.monotonic()
    with locked_file(folder / ".lock"):
        found = _find(server, home, port)
        if found and found.ready:
            report(f"{server.name}: already running on {found.address} (process {found.pid})")
            return found
        started = found or _launch(server, home, port or server.default_port, cache)
    report(f"{server.name}: starting on {started.address} (process {started.pid})")
    _wait_until_ready(server, started, report, given_up)
    ready = replace(started, ready=True)
    with locked_file(folder / ".lock"):
        # It may have been stopped, or even started anew, since the answer.
        if _read_state(folder) == started:
            _write_state(ready)
    seconds = time.monotonic() - began
    report(f"{server.name}: ready on {ready.address} after {seconds:.1f} s")
    return ready


def _find(server: Server, home: Path, port: int | None) -> Running | None:
    """The live server of this kind, or None; refuses one that is not what was asked for."""
    found = _read_state(home / server.name)
    if not found or not _process(found):
        return None
    advice = f"end it first with `migration-platform local down {server.name}`"
    if port is not None and port != found.port:
        raise LocalStackError(f"{server.name} already runs on port {found.port}; {advice}.")
    if found.options != repr(server):
        raise LocalStackError(f"{server.name} already runs with other options; {advice}.")
    return found


def _launch(server: Server, home: Path, port: int, cache: Path) -> Running:
    folder = home / server.name
    _require_free_port(server, port)
    log = folder / "server.log"
    jars = [cache / jar.path for jar in locked_jars(server.name)]
    launch = server.prepare(folder=folder, port=port, jars=jars, log=log)
    with log.open("ab") as output:
        child = subprocess.Popen(
            launch.command,
            cwd=folder,
            stdout=output,
            # A session of its own: neither Ctrl-C nor a closed terminal reaches it.
            start_new_session=True,
            **launch.popen_options,
        )
    _children[child.pid] = child
    started = Running(
        name=server.name,
        pid=child.pid,
        create_time=psutil.Process(child.pid).create_time(),
        port=port,
        home=home,
        options=repr(server),
        ready=False,
        host=server.address,
    )
    _write_state(started)
    return started


def _wait_until_ready(
    server: Server, started: Running, report: Report, given_up: threading.Event
) -> None:
    began = time.monotonic()
    next_report = REPORT_SECONDS
    while True:
        answers = port_is_open(started.port, started.host) and server.answers(started.port)
        # Asked after the answer: a stranger may have answered where ours could not listen.
        if not _process(started):
            raise LocalStackError(_died(started))
        if answers:
            return
        seconds = time.monotonic() - began
        if seconds > server.ready_within_seconds:
            raise LocalStackError(
                f"{server.name} does not answer on {started.address} after {seconds:.0f} s; it is"
                f" left running, so wait longer with another `up` or end it with `down`; its log:"
                f" {started.log}"
            )
        if seconds > next_report:
            limit = server.ready_within_seconds
            report(f"{server.name}: not ready yet, {next_report} s of at most {limit} s")
            next_report += REPORT_SECONDS
        if given_up.wait(POLL_SECONDS):
            raise LocalStackError(f"{server.name} was still starting; `down` ends it.")


def _died(started: Running) -> str:
    child = _children.get(started.pid)
    code = f" with code {child.returncode}" if child and child.returncode is not None else ""
    return f"{started.name} ended{code} while it started; its log says why: {started.log}"


def _end(process: psutil.Process, server: type[Server]) -> bool:
    """End a process and its children; returns whether force was needed."""
    family = [process, *process.children(recursive=True)]
    with suppress(psutil.NoSuchProcess):
        process.send_signal(server.stop_signal)
    deadline = time.monotonic() + STOP_SECONDS
    alive = family
    while alive and time.monotonic() < deadline:
        time.sleep(STOP_POLL_SECONDS)
        alive = [member for member in alive if _lives(member)]
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    if child := _children.pop(process.pid, None):
        child.wait()
    return bool(alive)


def _lives(process: psutil.Process) -> bool:
    """Whether it runs: one that only waits to be reaped by its parent has ended."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _process(server: Running) -> psutil.Process | None:
    """The server's process if it lives; None if it ended, even if its number is in use again."""
    if child := _children.get(server.pid):
        child.poll()
    try:
        process = psutil.Process(server.pid)
        same = abs(process.create_time() - server.create_time) <= START_TIME_TOLERANCE_SECONDS
    except psutil.NoSuchProcess:
        return None
    return process if same and _lives(process) else None


def _read_state(folder: Path) -> Running | None:
    try:
        fields = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Running(**(fields | {"home": folder.parent}))


def _write_state(server: Running) -> None:
    fields = asdict(server)
    # The folder may be moved while its servers are down, so the file does not say where it is.
    del fields["home"]
    path = server.home / server.name / "state.json"
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _require_free_port(server: Server, port: int) -> None:
    if not port_is_free(port, server.address):
        raise LocalStackError(
            f"Port {port} of {server.address} is taken by {_listener(port)}; end that, or start"
            f" {server.name} on another one first, for example: migration-platform local up"
            f" {server.name} --port {server.name}={free_port()}"
        )


def _listener(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            # A connection without an address has an empty tuple.
            listens = connection.status == psutil.CONN_LISTEN and port in connection.laddr
            if listens and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another program"


def _require_memory(servers: Sequence[Server]) -> None:
    needed = sum(server.memory_mb for server in servers)
    available = available_memory_mb()
    if needed > available:
        names = " and ".join(server.name for server in servers)
        raise LocalStackError(
            f"{names} need {needed} MB of free memory and {available} MB are there; close other"
            " programs or start fewer servers."
        )


def _require_disk(servers: Sequence[Server], home: Path) -> None:
    needed = sum(server.disk_mb for server in servers)
    available = available_disk_mb(home)
    if needed > available:
        names = " and ".join(server.name for server in servers)
        raise LocalStackError(
            f"{names} need {needed} MB of free disk and {available} MB are there in {home}; free"
            " some, or choose another folder with --home."
        )
