"""Says where a Cassandra server's CPU goes: by threads, as the kernel counts it, and by stacks.

A thread's CPU and its sleeps are exact, and nothing is switched on in the server for them, so that
what is measured costs what it always costs. Stacks come from the Java machine's own recorder, which
is on only in turns whose figures are not used; it sees Java code, never the kernel's.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import java

NETWORK = "network"
REQUESTS = "requests"
COMPILER = "compiler"
GROUPS: Mapping[str, tuple[str, ...]] = {
    NETWORK: ("epollEventLoopG", "nioEventLoopGro"),
    # One pool, whose threads take the name of whichever stage they work for.
    REQUESTS: ("Native-Transpor", "MutationStage", "ReadStage", "RequestResponse"),
    "commit log": ("PERIODIC-COMMIT", "COMMIT-LOG"),
    "flush, compaction": ("MemtableFlush", "PerDiskMemtable", "MemtablePost", "CompactionExec"),
    "garbage": ("GC Thread", "G1 ", "VM Thread"),
    COMPILER: ("C1 Compiler", "C2 Compiler", "Sweeper"),
}
"""Threads -> how their names begin, of which the kernel keeps 15 letters."""
OTHER = "other"


@dataclass(frozen=True)
class Used:
    """What groups of threads used between two moments: CPU seconds, and how often they slept."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    sleeps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Thread:
    group: str
    seconds: float
    sleeps: int


@dataclass
class Watch:
    """The threads of a process."""

    pid: int
    _last: dict[int, _Thread] = field(default_factory=dict)

    def look(self) -> Used:
        """Tell what was used since the last look; what a thread used that has ended is lost."""
        now = dict(_threads(self.pid))
        used = {name: Counter() for name in ("seconds", "sleeps")}
        for number, thread in now.items():
            before = self._last.get(number)
            for name, found in used.items():
                found[thread.group] += getattr(thread, name)
                if before:
                    found[thread.group] -= getattr(before, name)
        self._last = now
        return Used(**used)


def _threads(pid: int) -> Iterator[tuple[int, _Thread]]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            nanoseconds = (task / "schedstat").read_text().split()[0]
            status = (task / "status").read_text()
            sleeps = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
            yield (
                int(task.name),
                _Thread(
                    group_of((task / "comm").read_text()),
                    int(nanoseconds) / 1e9,
                    int(sleeps[1]) if sleeps else 0,
                ),
            )


def group_of(name: str) -> str:
    """Give the group of a thread's name."""
    for group, beginnings in GROUPS.items():
        if name.startswith(beginnings):
            return group
    return OTHER


# -- stacks ------------------------------------------------------------------------------------

WORKS: Mapping[str, tuple[str, ...]] = {
    "commit log": ("db.commitlog.",),
    "memtable": ("db.memtable.", "db.tries.", "db.partitions.AtomicBTree", "utils.memory."),
    "reading rows": ("io.sstable.", "db.ReadCommand", "db.transform."),
    "coordination": ("service.StorageProxy", "service.AbstractWrite", "db.Mutation.apply"),
    "parsing, binding, results": ("cql3.", "transport.messages."),
    "frames": ("transport.", "net."),
}
"""What Java code works on -> how classes of Cassandra begin that are in its stack; the first of
these that is found in a stack counts."""
WAITING = "waiting, handing over"
"""The rest: pools of threads, queues, the network library's loop."""
LOOKING_OUT = "SEPWorker.doWaitSpin"
"""Where a thread of the pool sleeps some microseconds at a time, not to miss a request."""
_CASSANDRA = "org.apache.cassandra."
_RECORDING = "migration_platform"
_SAMPLE, _PARK = "jdk.ExecutionSample", "jdk.ThreadPark"
_SETTINGS_OF = {
    sleeps: f"""<?xml version="1.0" encoding="UTF-8"?>
<configuration version="2.0">
  <event name="{_PARK if sleeps else _SAMPLE}">
    <setting name="enabled">true</setting>
    <setting name="{"threshold" if sleeps else "period"}">{"0" if sleeps else "2"} ms</setting>
    <setting name="stackTrace">true</setting>
  </event>
</configuration>
"""
    for sleeps in (False, True)
}


@dataclass
class Stacks:
    """What the recorder saw: samples of Java code by what it works on, and sleeps of threads."""

    works: Counter[str] = field(default_factory=Counter)
    sleeps: int = 0
    lookouts: int = 0

    @property
    def looking_out(self) -> float:
        """The part of all sleeps that only look out for the next request."""
        return self.lookouts / self.sleeps if self.sleeps else 0.0


@contextmanager
def recorded(pid: int, folder: Path, stacks: Stacks, *, sleeps: bool) -> Iterator[None]:
    """Record the server's stacks during a block, and add them when it ends.

    Sleeps are many, and slow to be read: keep the block short where they are recorded.
    """
    settings, file = folder / "stacks.jfc", folder / "stacks.jfr"
    settings.write_text(_SETTINGS_OF[sleeps], encoding="utf-8")
    _ask(pid, "JFR.start", f"name={_RECORDING}", f"settings={settings}")
    try:
        yield
        _ask(pid, "JFR.dump", f"name={_RECORDING}", f"filename={file}")
    finally:
        _ask(pid, "JFR.stop", f"name={_RECORDING}")
    for event in json.loads("".join(_print(file, _SAMPLE, 64, "--json")))["recording"]["events"]:
        values = event["values"]
        methods = [frame["method"] for frame in (values["stackTrace"] or {"frames": ()})["frames"]]
        names = [f"{each['type']['name']}.{each['name']}".replace("/", ".") for each in methods]
        if group_of(values["sampledThread"]["javaName"] or "") in (REQUESTS, NETWORK):
            stacks.works[work_of(names)] += 1
    for line in _print(file, _PARK, 3):
        stacks.sleeps += line.startswith(_PARK)
        stacks.lookouts += LOOKING_OUT in line
    file.unlink()


def _ask(pid: int, *command: str) -> None:
    program = java().with_name("jcmd")
    subprocess.run([program, str(pid), *command], check=True, stdout=subprocess.DEVNULL)


def _print(file: Path, event: str, depth: int, *options: str) -> Iterator[str]:
    program = java().with_name("jfr")
    command = [program, "print", *options, "--stack-depth", str(depth), "--events", event, file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield from process.stdout


def work_of(names: Iterable[str]) -> str:
    """Say what code works on, by the names of the methods in its stack."""
    ours = [name.removeprefix(_CASSANDRA) for name in names if name.startswith(_CASSANDRA)]
    for work, beginnings in WORKS.items():
        if any(name.startswith(beginnings) for name in ours):
            return work
    return WAITING
