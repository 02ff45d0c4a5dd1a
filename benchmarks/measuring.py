"""Accounts for a piece of work: rows, wall time, CPU of client and server, memory.

A client is a process and all of its descendants: Java machines that a Python program starts,
workers, the parts of a pipe. Those that ended count too, since the kernel adds an ended process's
CPU to its parent's; so nothing is missed that lived shortly.
"""

import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# Finding a process's descendants reads all of /proc: often enough for a peak, seldom enough to cost
# the measured programs nothing.
SAMPLE_SECONDS = 0.25
# A server that still flushes and compacts what came before would be charged to what comes next.
IDLE_SHARE = 0.08
IDLE_SECONDS = 1.0
IDLE_TRIES = 30


@dataclass(frozen=True)
class Spent:
    """What a piece of work took: wall seconds, CPU seconds of client and server, rows."""

    rows: int
    seconds: float
    client: float
    server: float


@dataclass(frozen=True)
class Measured:
    """One run of a piece of work.

    Attributes:
        work: All that was spent.
        start: What starting alone takes, where it is part of `work`; its rows are few. The figures
            a row leave it out. None where the client had been started beforehand.
        peak_mb: Memory (10^6 bytes) of all client processes at their common peak, sampled. Memory
            that they share counts for each.
        largest_mb: The peak of the largest one, as the kernel kept it.
        arrived: Rows that were found at the target afterwards; None where nothing is written.
    """

    work: Spent
    start: Spent | None = None
    peak_mb: float = 0.0
    largest_mb: float = 0.0
    arrived: int | None = None

    def per_row(self, figure: str) -> float:
        """Give the seconds a row of a figure of `Spent`; nan if the start hides them."""
        work, rows = getattr(self.work, figure), self.work.rows
        if self.start:
            work, rows = work - getattr(self.start, figure), rows - self.start.rows
        return work / rows if work > 0 and rows > 0 else math.nan

    @property
    def rows_per_second(self) -> float:
        return 1 / self.per_row("seconds")

    @property
    def client_us(self) -> float:
        return self.per_row("client") * 1e6

    @property
    def server_us(self) -> float:
        return self.per_row("server") * 1e6

    @property
    def lost(self) -> int:
        """Rows that did not arrive."""
        return 0 if self.arrived is None else self.work.rows - self.arrived


Results = dict[str, list[Measured]]


class Family:
    """A process and its descendants.

    With `own` false only those count that the process starts from now on: what the benchmark itself
    launches, beside servers and programs that it has started before. `without` are servers that
    live beside a benchmark which does the work itself.
    """

    def __init__(
        self, root: psutil.Process, *, own: bool = True, without: Sequence[psutil.Process] = ()
    ):
        self.root = root
        self._own = own
        others = without if own else root.children()
        self._others = {child.pid for child in others}
        self.peak_mb = 0.0
        self.largest_mb = 0.0

    def members(self) -> list[psutil.Process]:
        """Give those that live now."""
        if self._own:
            children = self.root.children(recursive=True)
            return [self.root, *(child for child in children if child.pid not in self._others)]
        mine = [child for child in self.root.children() if child.pid not in self._others]
        found = []
        for child in mine:
            with suppress(psutil.NoSuchProcess):
                found += [child, *child.children(recursive=True)]
        return found

    def cpu_seconds(self) -> float:
        """Add up the user and system time of those that live and those that have ended."""
        total = 0.0
        for member in self.members():
            with suppress(psutil.NoSuchProcess):
                spent = member.cpu_times()
                total += spent.user + spent.system + spent.children_user + spent.children_system
        if not self._own:
            spent = self.root.cpu_times()
            total += spent.children_user + spent.children_system
        return total

    def look_at_memory(self) -> None:
        """Take a sample of the memory."""
        now = 0.0
        for member in self.members():
            with suppress(psutil.Error, OSError):
                now += member.memory_info().rss / 1e6
                self.largest_mb = max(self.largest_mb, peak_mb(member.pid))
        self.peak_mb = max(self.peak_mb, now)

    @contextmanager
    def watched(self):
        """Take samples as long as the block lasts."""
        done = threading.Event()
        self.peak_mb = self.largest_mb = 0.0

        def watch() -> None:
            while not done.wait(SAMPLE_SECONDS):
                self.look_at_memory()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.look_at_memory()


def peak_mb(pid: int) -> float:
    """Give a process's peak resident memory in MB (10^6 bytes); 0 for one that has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


Server = psutil.Process | Sequence[psutil.Process]
"""The process of a server, or those of a cluster's nodes, whose CPU adds up."""


def spend(rows: int, client: Family, server: Server, work: Callable[[], object]) -> Spent:
    """Do the work once, and account for it."""
    before, served, began = client.cpu_seconds(), cpu_seconds(server), time.monotonic()
    work()
    seconds = time.monotonic() - began
    return Spent(rows, seconds, client.cpu_seconds() - before, cpu_seconds(server) - served)


def cpu_seconds(server: Server) -> float:
    """Add up a server's user and system time."""
    spent = [process.cpu_times() for process in _processes(server)]
    return sum(each.user + each.system for each in spent)


def wait_until_idle(server: Server, tries: int = IDLE_TRIES) -> None:
    """Let the server end what it does in the background; gives up after so many tries."""
    limit = IDLE_SHARE * IDLE_SECONDS * len(_processes(server))
    for _ in range(tries):
        before = cpu_seconds(server)
        time.sleep(IDLE_SECONDS)
        if cpu_seconds(server) - before < limit:
            return


def _processes(server: Server) -> Sequence[psutil.Process]:
    return [server] if isinstance(server, psutil.Process) else server


def spread(runs: Sequence[Measured], figure: str) -> tuple[float, float, float]:
    """Give the median, the minimum and the maximum of a figure; nan where no run has it."""
    values = sorted(v for v in (getattr(run, figure) for run in runs) if not math.isnan(v))
    if not values:
        return math.nan, math.nan, math.nan
    return statistics.median(values), values[0], values[-1]


def ratios(ours: Sequence[Measured], theirs: Sequence[Measured], figure: str) -> list[float]:
    """Give the ratios of a figure, taken run by run; none of a run that does not have it."""
    both = zip(ours, theirs, strict=False)
    found = [getattr(a, figure) / getattr(b, figure) for a, b in both]
    return [value for value in found if not math.isnan(value)]


def ratio(ours: Sequence[Measured], theirs: Sequence[Measured], figure: str) -> float:
    """Give the median of the ratios of a figure, taken run by run."""
    found = ratios(ours, theirs, figure)
    return statistics.median(found) if found else math.nan


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, flush=True)
