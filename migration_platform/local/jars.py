"""The jars of the local servers: a committed lock, a parallel download, a cache on disk.

The lock is the whole truth about what is run: nothing is resolved when a server starts, and a file
whose sha256 differs from the lock never reaches the cache under its real name.
"""

import hashlib
import os
import re
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from http.client import HTTPException
from itertools import takewhile
from pathlib import Path

from migration_platform.local import LocalStackError

LOCK_PATH = Path(__file__).with_name("jars.lock")
MAVEN_URL_VARIABLE = "MIGRATION_PLATFORM_MAVEN_URL"

# Most jars are small, so a download is mostly waiting: more threads than cores pay.
DOWNLOAD_THREADS = 12
DOWNLOAD_ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.5
SILENCE_SECONDS = 30

# The stack needs POSIX file locks and sessions, so libraries for these machines are never loaded.
UNSUPPORTED_MACHINES = ("windows", "win32", "riscv64", "i386")

LOCK_INTRODUCTION = """\
# The jars of the local servers, checked by sha256 when they are downloaded.
# A header is a server and the artefacts that it is resolved from; below it stands one jar a line:
# group:artifact:version[:classifier][@type] sha256
# To renew: change a version in a header, then run `migration-platform local lock`.
"""

_HEADER = re.compile(r"\[(?P<part>[a-z0-9_]+)\] (?P<roots>\S+( \S+)*)")
_JAR = re.compile(
    r"(?P<group>[^:@\s]+):(?P<artifact>[^:@\s]+):(?P<version>[^:@\s]+)"
    r"(:(?P<classifier>[^:@\s]+))?(@(?P<type>\w+))? (?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Jar:
    """One Maven artefact and the sha256 that its file must have.

    Attributes:
        group: Maven group, dots between its parts.
        artifact: Maven artefact name.
        version: Exact version, never a range.
        classifier: Variant of the artefact such as `linux-x86_64`; empty for the main one.
        type: File ending; `jar`, or `so` and `dylib` for native libraries.
        sha256: 64 hexadecimal digits, lower case.
    """

    group: str
    artifact: str
    version: str
    classifier: str
    type: str
    sha256: str

    @property
    def path(self) -> str:
        """Path below a Maven repository's base URL; the cache uses the same one."""
        variant = f"-{self.classifier}" if self.classifier else ""
        name = f"{self.artifact}-{self.version}{variant}.{self.type}"
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{name}"

    def __str__(self) -> str:
        classifier = f":{self.classifier}" if self.classifier else ""
        ending = f"@{self.type}" if self.type != "jar" else ""
        return f"{self.group}:{self.artifact}:{self.version}{classifier}{ending}"


@dataclass(frozen=True)
class LockedPart:
    """The jars of one server.

    Attributes:
        roots: The artefacts that the jars were resolved from, as `group:artifact:version`.
        jars: Every jar that the server needs, in the order of its class path.
    """

    roots: tuple[str, ...]
    jars: tuple[Jar, ...]


def parse_lock(text: str) -> dict[str, LockedPart]:
    """Read a lock's text.

    Returns:
        The server's name -> its jars.

    Raises:
        LocalStackError: A line is neither a header, a jar, a comment nor empty.
    """
    roots: dict[str, tuple[str, ...]] = {}
    jars: dict[str, list[Jar]] = {}
    part = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if header := _HEADER.fullmatch(line):
            part = header["part"]
            roots[part] = tuple(header["roots"].split(" "))
            jars[part] = []
        elif (jar := _JAR.fullmatch(line)) and part:
            fields = jar.groupdict(default="")
            jars[part].append(Jar(**{**fields, "type": fields["type"] or "jar"}))
        else:
            raise LocalStackError(f"Line {number} of the jar lock is not understood: {line!r}.")
    return {part: LockedPart(roots[part], tuple(jars[part])) for part in roots}


def format_lock(parts: dict[str, LockedPart], introduction: str = LOCK_INTRODUCTION) -> str:
    """Write a lock's text, its comments first: the reverse of `parse_lock`."""
    sections = [introduction]
    for name, part in parts.items():
        lines = [f"[{name}] {' '.join(part.roots)}"]
        lines += [f"{jar} {jar.sha256}" for jar in part.jars]
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


def locked_jars(part: str, lock: Path = LOCK_PATH) -> tuple[Jar, ...]:
    """The jars of one server as the committed lock names them; empty for one without Java."""
    parts = parse_lock(lock.read_text(encoding="utf-8"))
    return parts[part].jars if part in parts else ()


def maven_url() -> str:
    """Base URL of the Maven repository, without a slash at its end.

    `MIGRATION_PLATFORM_MAVEN_URL` names a mirror. Otherwise it is Maven's central repository, whose
    address the resolver's package knows.
    """
    if url := os.environ.get(MAVEN_URL_VARIABLE):
        return url.rstrip("/")
    from jgo.constants import MAVEN_CENTRAL_URL

    return MAVEN_CENTRAL_URL.rstrip("/")


def fetch(
    jars: Iterable[Jar], *, folder: Path, report: Callable[[str], None] = lambda line: None
) -> None:
    """Put the jars that are not there yet into the cache.

    Needs no network when all are there. Several processes may call it at once: the second waits
    for the first and then finds the jars.

    Args:
        jars: What is needed; one that is named twice is fetched once.
        folder: The cache, laid out like a Maven repository.
        report: Gets a line for the log where no progress bar can be shown.

    Raises:
        LocalStackError: The repository cannot be reached, lacks a jar, or sends other bytes than
            the lock says.
    """
    wanted = dict.fromkeys(jars)
    if not missing_jars(wanted, folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked_file(folder / ".lock"):
        missing = missing_jars(wanted, folder)
        if missing:
            _download_all(missing, folder, report)


def missing_jars(jars: Iterable[Jar], folder: Path) -> list[Jar]:
    """Those of the jars that the cache does not hold."""
    return [jar for jar in jars if not (folder / jar.path).is_file()]


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold a lock that other processes and threads respect; a dead holder's lock is free."""
    with path.open("a") as file:
        flock(file, LOCK_EX)
        yield


def _download_all(jars: Sequence[Jar], folder: Path, report: Callable[[str], None]) -> None:
    from tqdm import tqdm

    base_url = maven_url()
    stopped = threading.Event()
    received = 0
    started = time.monotonic()
    # disable=None: the bar shows itself on a terminal only.
    with (
        ThreadPoolExecutor(DOWNLOAD_THREADS) as pool,
        tqdm(total=len(jars), desc="Downloading jars", unit="jar", disable=None) as bar,
    ):
        if bar.disable:
            report(f"Downloading {len(jars)} jars")
        downloads = [pool.submit(_download, jar, folder, base_url, stopped) for jar in jars]
        try:
            for done in as_completed(downloads):
                received += done.result()
                bar.update()
        except BaseException:
            # The first failure decides; without this the pool would go on for minutes.
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    seconds = time.monotonic() - started
    report(f"Downloaded {len(jars)} jars, {received / 1e6:.0f} MB in {seconds:.1f} s")


def _download(jar: Jar, folder: Path, base_url: str, stopped: threading.Event) -> int:
    """Download one jar and check it; returns its size in bytes."""
    content = _read_with_retries(f"{base_url}/{jar.path}", jar, stopped)
    actual = hashlib.sha256(content).hexdigest()
    if actual != jar.sha256:
        raise LocalStackError(
            f"The download of {jar} is refused: its sha256 is {actual}, the lock says {jar.sha256}."
        )
    path = folder / jar.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        file.write(content)
    try:
        # A temporary file is private, but several users may share the cache.
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except BaseException:
        os.unlink(file.name)
        raise
    return len(content)


def _read_with_retries(url: str, jar: Jar, stopped: threading.Event) -> bytes:
    reason = ""
    for attempt in range(DOWNLOAD_ATTEMPTS):
        if attempt and stopped.wait(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)):
            break
        try:
            # The largest jar has 11 MB, so the memory of all threads together stays small.
            with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as response:  # noqa: S310
                return response.read()
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"status {error.code}"
            if error.code < 500 and error.code != 429:
                raise LocalStackError(f"{jar} could not be downloaded: {reason}.") from error
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
    raise LocalStackError(
        f"{jar} could not be downloaded in {DOWNLOAD_ATTEMPTS} attempts ({reason}); check the"
        f" network, or name a mirror in {MAVEN_URL_VARIABLE}."
    )


def renew_lock(
    *, cache: Path, lock: Path = LOCK_PATH, report: Callable[[str], None] = lambda line: None
) -> None:
    """Resolve the artefacts in the lock's headers again and rewrite the lock.

    Args:
        cache: Folder for the resolver's downloads; a warm one makes it quick.
        lock: The lock; the comments at its head stay.
        report: Gets one line a server.
    """
    from jgo.env import EnvironmentBuilder
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=cache / "m2", remote_repos={"central": maven_url()})
    builder = EnvironmentBuilder(context=context, cache_dir=cache / "environments")
    text = lock.read_text(encoding="utf-8")
    comments = takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True))
    introduction = "".join(comments)
    parts = parse_lock(text)
    for name, part in parts.items():
        jars: dict[tuple[str, ...], Jar] = {}
        # One root at a time, and the first one's versions win: resolved together, the versions that
        # one root manages replace those that the other was built with.
        for root in part.roots:
            report(f"{name}: resolving {root}")
            resolved = builder.from_endpoint(root, update=True).lockfile
            if resolved is None:
                raise LocalStackError(f"The resolver left no lock for {root}.")
            for dependency in resolved.dependencies:
                jar = Jar(
                    group=dependency.groupId,
                    artifact=dependency.artifactId,
                    version=dependency.version,
                    classifier=dependency.classifier or "",
                    type=dependency.packaging,
                    sha256=dependency.sha256 or "",
                )
                if not any(word in str(jar) for word in UNSUPPORTED_MACHINES):
                    jars.setdefault((jar.group, jar.artifact, jar.classifier, jar.type), jar)
        parts[name] = LockedPart(part.roots, tuple(jars.values()))
        report(f"{name}: {len(jars)} jars")
    lock.write_text(format_lock(parts, introduction), encoding="utf-8")
