"""Lets two synchronisations follow a table that is written to, while things break.

    python -m benchmarks.soak --hours 2

One follows messages, the other compares ranges in turn. Meanwhile their processes are killed, and
the servers are killed, halted and started again, as a seed says. In the end the writers stop, and
both targets have to be the same as the origin. Servers are the benchmark's own. Writes
docs/benchmarks-soak.md.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.bench import machine
from benchmarks.measuring import say
from benchmarks.report import command_line, lay_table
from benchmarks.soak_load import COLUMNS, STATEMENTS, Load
from benchmarks.soak_sync import KEYSPACE, ORIGIN, TARGETS, TOPIC, WORKERS, Ports, declare
from migration_platform.comparing.diff import diff_ranges
from migration_platform.comparing.verdicts import RangeVerdict, difference_lines
from migration_platform.local import LocalStackError
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.kafka import Kafka
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.server import Server
from migration_platform.local.stack import (
    JARS_VARIABLE,
    home_folder,
    jars_cache,
    running,
    start,
    status,
)
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.kinds import plan_between

PAGE = "benchmarks-soak.md"
REPOSITORY = Path(__file__).parent.parent
PARTITIONS_OF_TOPIC = 4
SETTLE_SECONDS = 600.0
POLL_SECONDS = 0.5
SECONDS_A_START = 15.0
"""How long after a start the next one follows at the earliest."""


@dataclass
class Follower:
    """A synchronisation in a process of its own, started again whenever it ends."""

    kind: str
    folder: Path
    ports: Ports
    starts: int = 0
    kills: int = 0
    seconds_a_start: float = SECONDS_A_START
    started_at: float = -1e9
    failed: Counter[str] = field(default_factory=Counter)
    process: subprocess.Popen[bytes] | None = None

    def keep_alive(self) -> None:
        """Start it if it does not run; note how the last one ended."""
        if self.process is not None and self.process.poll() is None:
            return
        if time.monotonic() - self.started_at < self.seconds_a_start:
            return
        self._note_end()
        self._start()

    def finish(self) -> bool:
        """Let it come to where the origin is now; say whether it did."""
        self.wait()
        self._start("--up-to-now")
        self.wait()
        assert self.process is not None
        return self.process.returncode == 0

    def wait(self) -> None:
        """Wait until it ends."""
        if self.process is not None:
            self.process.wait(SETTLE_SECONDS)
            self._note_end()

    def kill(self) -> None:
        """Kill it with all its workers, in the middle of whatever it does."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.kills += 1

    def kill_worker(self) -> None:
        """Kill one of its workers."""
        if self.process is None or self.process.poll() is not None:
            return
        with suppress(psutil.Error):
            workers = psutil.Process(self.process.pid).children(recursive=True)
            if workers:
                workers[-1].kill()
                self.kills += 1

    def commits(self) -> list[dict[str, Any]]:
        """Give what it has told of its positions."""
        try:
            lines = (self.folder / f"{self.kind}.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def _start(self, *options: str) -> None:
        command = [sys.executable, "-m", "benchmarks.soak_sync", self.kind, str(self.folder)]
        command += [str(self.ports.cassandra), str(self.ports.kafka), *options]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, cwd=REPOSITORY
            )
        self.starts += 1
        self.started_at = time.monotonic()

    def _note_end(self) -> None:
        if self.process is not None and self.process.returncode > 0:
            lines = self._log.read_text(errors="replace").splitlines()
            self.failed[lines[-1][:160] if lines else "no word"] += 1

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.kind}.log"


@dataclass
class Stage:
    """The servers, and what is done to them."""

    home: Path
    ports: Ports
    chance: random.Random
    halt_seconds: tuple[float, float]
    events: list[tuple[float, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def note(self, what: str) -> None:
        """Say what is done, and keep it for the page."""
        seconds = time.monotonic() - self.began
        self.events.append((seconds, what))
        say(f"{seconds:7.0f} s  {what}")

    def start(self, server: Server) -> None:
        """Start a server with the data it has; a busy machine may need several tries."""
        port = self.ports.cassandra if server.name == "cassandra" else self.ports.kafka
        for is_last in (False, False, True):
            try:
                start(server, home=self.home, port=port, jars_folder=jars_cache(self.home))
            except LocalStackError as error:
                if is_last:
                    raise
                self.note(f"{server.name} did not start: {error}")
            else:
                return

    def crash(self, server: Server) -> None:
        """Kill a server, and start it again a little later."""
        os.kill(self._pid(server), signal.SIGKILL)
        self.note(f"{server.name} is killed")
        time.sleep(self.chance.uniform(*self.halt_seconds))
        self.start(server)
        self.note(f"{server.name} is there again")

    def halt(self, server: Server) -> None:
        """Let a server hang for some seconds."""
        pid, seconds = self._pid(server), self.chance.uniform(*self.halt_seconds)
        self.note(f"{server.name} hangs for {seconds:.0f} s")
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def truncate(self, follower: Follower) -> None:
        """Remove all messages of the topic, some of which nobody has read."""
        follower.kill()
        time.sleep(self.chance.uniform(*self.halt_seconds) / 4)
        everything = [TopicPartition(TOPIC, p, -1) for p in range(PARTITIONS_OF_TOPIC)]
        admin = admin_of(self.ports)
        for found in admin.delete_records(everything).values():
            found.result(60)
        self.note("all messages are removed, read or not")

    def _pid(self, server: Server) -> int:
        return next(
            each.server.pid
            for each in status(home=self.home)
            if each.server is not None and each.name == server.name
        )


@dataclass
class Soak:
    """What is asked for, and what came of it.

    Without `breaks_servers` only the processes of the synchronisations are killed.
    """

    hours: float
    rate: float
    seed: int
    every_seconds: float
    halt_seconds: tuple[float, float] = (2.0, 20.0)
    breaks_servers: bool = True
    seconds_a_start: float = SECONDS_A_START
    operations: Counter[str] = field(default_factory=Counter)
    failed_writes: int = 0
    followers: tuple[Follower, ...] = ()
    events: list[tuple[float, str]] = field(default_factory=list)
    verdicts: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    settle_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def lost_nothing(self) -> bool:
        """Whether both targets are the same as the origin."""
        return bool(self.verdicts) and not any(lines for _, lines in self.verdicts.values())


def admin_of(ports: Ports) -> AdminClient:
    """Open Kafka's administration."""
    return AdminClient({"bootstrap.servers": f"{LOCALHOST}:{ports.kafka}", "log_level": 0})


def soak(asked: Soak, home: Path, ports: Ports) -> None:
    """Run it on servers that run already; what came of it stands in `asked`.

    What the synchronisations tell is written into `home`.
    """
    stage = Stage(home, ports, random.Random(asked.seed), asked.halt_seconds)
    asked.followers = tuple(
        Follower(kind, home, ports, seconds_a_start=asked.seconds_a_start) for kind in TARGETS
    )
    _prepare(ports)
    until = time.monotonic() + asked.hours * 3_600
    settings = CassandraSettings(port=ports.cassandra)
    try:
        with Connection(settings) as connection:
            load = Load(
                connection.session, ORIGIN, f"{LOCALHOST}:{ports.kafka}", TOPIC,
                asked.rate, asked.seed,
            )  # fmt: skip
            with load:
                _break_things(stage, asked, until)
            asked.operations, asked.failed_writes = load.done, load.failed
        stage.note("the writers stop")
        for follower in asked.followers:
            began = time.monotonic()
            if not follower.finish():
                stage.note(f"{follower.kind} did not come to its end: {dict(follower.failed)}")
            asked.settle_seconds[follower.kind] = time.monotonic() - began
    finally:
        for follower in asked.followers:
            follower.kill()
    for kind in TARGETS:
        asked.verdicts[kind] = compare(kind, settings)
    asked.events = stage.events


def _prepare(ports: Ports) -> None:
    """Make tables and topic."""
    with Connection(CassandraSettings(port=ports.cassandra)) as connection:
        connection.session.execute(
            f"CREATE KEYSPACE IF NOT EXISTS {KEYSPACE} WITH replication = "
            "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        )
        for name in (ORIGIN, *TARGETS.values()):
            connection.session.execute(f"CREATE TABLE IF NOT EXISTS {name} ({COLUMNS})")
    topic = NewTopic(TOPIC, num_partitions=PARTITIONS_OF_TOPIC, replication_factor=1)
    admin = admin_of(ports)
    for found in admin.create_topics([topic]).values():
        found.result(60)


def _break_things(stage: Stage, asked: Soak, until: float) -> None:
    """Keep the followers alive, and do them and the servers harm, until time is up."""
    by_messages, by_rounds = asked.followers
    harm: list[tuple[float, Callable[[], None]]] = [
        (4, by_messages.kill),
        (4, by_rounds.kill),
        (3, by_messages.kill_worker),
        (3, by_rounds.kill_worker),
    ]
    if asked.breaks_servers:
        cassandra, kafka = Cassandra(), Kafka()
        harm += [
            (1, lambda: stage.crash(cassandra)),
            (1, lambda: stage.crash(kafka)),
            (2, lambda: stage.halt(cassandra)),
            (2, lambda: stage.halt(kafka)),
            (1, lambda: stage.truncate(by_messages)),
        ]
    due = time.monotonic() + asked.every_seconds
    while time.monotonic() < until:
        for follower in asked.followers:
            follower.keep_alive()
        time.sleep(POLL_SECONDS)
        if time.monotonic() >= due:
            (chosen,) = stage.chance.choices([do for _, do in harm], [weight for weight, _ in harm])
            chosen()
            due = time.monotonic() + stage.chance.uniform(0.5, 1.5) * asked.every_seconds


def compare(kind: str, settings: CassandraSettings) -> tuple[int, list[str]]:
    """Compare a target with the origin in both directions, times included.

    Gives the rows at the origin, and a line for each row that differs and each range that could
    not be compared.
    """
    migration = replace(declare(kind), compare_writetime=True)
    with Connection(settings) as connection:
        plan = plan_between(migration, connection, connection)
        with WorkerPool(plan, settings, settings, workers=WORKERS) as pool:
            verdicts: list[RangeVerdict] = list(diff_ranges(pool, plan, migration.ranges))
    lines = [line for verdict in verdicts for line in difference_lines(verdict)]
    lines += [f"{each.token_range.key}: {each.error}" for each in verdicts if each.error]
    lines += [
        f"{each.token_range.key}: {each.found} rows differ" for each in verdicts if each.found
    ]
    return sum(verdict.origin_rows for verdict in verdicts), lines


# -- the page ------------------------------------------------------------------------------------


def write_page(asked: Soak, command: str) -> str:
    """Write what came of it, in Markdown."""
    done = sum(asked.operations.values())
    head = (
        "# Synchronisation under load and faults\n\n"
        f"This page is written by `{command}`.\n\n"
        f"{done:,} changes in {asked.hours:g} hours ({asked.rate:g} a second were asked for), "
        f"seed {asked.seed}. {machine()['cores']}; servers, writers and both synchronisations "
        "share it.\n\n"
    )
    verdict = lay_table(
        [
            ("target", "rows", "lines of differences", "seconds from the last change to equal"),
            *(
                (kind, f"{rows:,}", f"{len(lines)}", f"{asked.settle_seconds[kind]:.0f}")
                for kind, (rows, lines) in asked.verdicts.items()
            ),
        ]
    )
    parts = [
        head,
        "## Lost\n\n",
        "Nothing: both targets hold the same rows, values, writetimes and TTLs as the origin.\n\n"
        if asked.lost_nothing
        else "**Rows differ.**\n\n"
        + "".join(f"- {line}\n" for _, some in asked.verdicts.values() for line in some[:20]),
        verdict,
        "\n\n## Lag\n\n",
        lay_table(
            [
                ("", "starts", "killed", "failed", "median lag, s", "99 %, s", "longest, s"),
                *map(_lag_row, asked.followers),
            ]
        ),
        "\n\nLag is how far the target is behind, each time that a position is told: all changes "
        "that are older have arrived.\n\n",
        _counts_table(asked),
        "\n\n## What was done\n\n",
        lay_table(
            [
                ("change", "how often"),
                *((name, f"{asked.operations[name]:,}") for name in STATEMENTS),
            ]
        ),
        f"\n\n{asked.failed_writes:,} writes of the applications failed and were tried again.\n",
        "\n## What broke\n\n",
        lay_table([("what", "how often"), *_harm(asked)]),
        "\n\nWhat runs of the synchronisation said that failed:\n\n",
        "".join(
            f"- {count} times: {reason}\n"
            for follower in asked.followers
            for reason, count in follower.failed.most_common(10)
        )
        or "- none failed\n",
    ]
    return "".join(parts)


def _lag_row(follower: Follower) -> tuple[str, ...]:
    lags = sorted(
        commit["lag_seconds"] for commit in follower.commits() if commit["lag_seconds"] < 1e8
    )
    shown = (
        (statistics.median(lags), lags[int(len(lags) * 0.99)], lags[-1])
        if lags
        else (0.0, 0.0, 0.0)
    )
    return (
        follower.kind,
        f"{follower.starts}",
        f"{follower.kills}",
        f"{sum(follower.failed.values())}",
        *(f"{seconds:.1f}" for seconds in shown),
    )


def _counts_table(asked: Soak) -> str:
    names = ("messages", "keys", "ranges", "read", "written", "deleted", "unchanged", "retries")
    rows = []
    for follower in asked.followers:
        commits = follower.commits()
        lost = sum(bool(commit["lost"]) for commit in commits)
        sums = [sum(commit[name] for commit in commits) for name in names]
        rows.append((follower.kind, *(f"{number:,}" for number in sums), f"{lost}"))
    return lay_table([("", *names, "messages lost and made up for"), *rows])


def _harm(asked: Soak) -> list[tuple[str, str]]:
    told = Counter(re.sub(r" for \d+ s", "", what) for _, what in asked.events)
    rows = [(what, f"{count}") for what, count in told.items() if "writers" not in what]
    return rows + [
        (f"a process of {each.kind} is killed", f"{each.kills}") for each in asked.followers
    ]


def main() -> None:
    """Run it on servers of its own, and write the page.

    Raises:
        SystemExit: rows differ in the end.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=100.0, help="changes a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two faults")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs", help="for the page")
    given = parser.parse_args()
    asked = Soak(given.hours, given.rate, given.seed, given.every)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, ExitStack() as stack:
        home, cache = Path(folder), jars_cache(home_folder())
        ports = Ports(*(
            stack.enter_context(running(server, home=home, jars_folder=cache)).port
            for server in (Cassandra(), Kafka())
        ))  # fmt: skip
        os.environ.setdefault(JARS_VARIABLE, str(cache))
        soak(asked, home, ports)
        page = write_page(asked, command_line("soak"))
    (given.docs / PAGE).write_text(page)
    say(f"{given.docs / PAGE} is written")
    if not asked.lost_nothing:
        raise SystemExit("rows differ; the page names them")


if __name__ == "__main__":
    main()
