"""Measures how much memory a copy to DynamoDB takes, with ten times the rows as well.

    python -m benchmarks.memory --rows 100000,1000000

Users are copied from Cassandra to DynamoDB Local and compared, by a run of Dagster as a user
launches it, on servers of the benchmark's own. Writes docs/benchmarks-memory.md, anew after each
size; sizes that were measured before stay in it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bench import machine
from benchmarks.measuring import say
from benchmarks.report import command_line, lay_table
from benchmarks.tables import open_writer, prepare_rows
from migration_platform.cql.rows import UNSET, join_cells
from migration_platform.demo import sample
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.dynamodb import DynamoDb, open_dynamodb
from migration_platform.local.stack import home_folder, jars_cache, running
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.tables import describe_table

PAGE, FIGURES = "benchmarks-memory.md", "benchmarks-memory.json"
REPOSITORY = Path(__file__).parent.parent
ASSET = "dynamodb/UsersTable"
TABLE = "UsersTable"
RANGES = "00-of-64...63-of-64"
SAMPLE_SECONDS = 0.25
USERS_A_STEP = 5_000
HEAP_MB = 3_072
"""DynamoDB Local keeps its tables in its heap."""
HEAD = (
    "users",
    "seconds",
    "the same on both sides",
    "largest process, MB",
    "all processes, MB",
    "processes",
)


@dataclass(frozen=True)
class Peak:
    """What a run took: `largest_mb` is the kernel's peak of one process, `all_mb` sampled."""

    rows: int
    seconds: float
    same: int
    largest_mb: float
    all_mb: float
    processes: int


@dataclass
class Memory:
    """Everything that the page says; `busy` is the machine's load before a run, per core."""

    command: str
    machine: dict[str, str]
    peaks: list[Peak] = field(default_factory=list)
    busy: float = 0.0


def watch(process: subprocess.Popen[bytes]) -> tuple[float, float, int]:
    """Look at a program and all below it until it ends; gives largest, common peak and number."""
    largest: dict[int, float] = {}
    most = 0.0
    family = psutil.Process(process.pid)
    while process.poll() is None:
        now = 0.0
        try:
            members = [family, *family.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for member in members:
            peak, resident = read_memory_mb(member.pid)
            largest[member.pid] = max(peak, largest.get(member.pid, 0.0))
            now += resident
        most = max(most, now)
        time.sleep(SAMPLE_SECONDS)
    return max(largest.values(), default=0.0), most, len(largest)


def read_memory_mb(pid: int) -> tuple[float, float]:
    """Give a process's peak and present memory as the kernel keeps them; zeros if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0, 0.0
    told = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    peak, now = (int(told.get(name, "0 kB").split()[0]) * 1024 / 1e6 for name in ("VmHWM", "VmRSS"))
    return peak, now


def fill(connection: Connection, rows: int) -> None:
    """Write the users ten in a request: one a request takes longer than the run."""
    began = time.monotonic()
    table = describe_table(connection, sample.USERS)
    statement = prepare_rows(connection, table, ["id", "name", "email"])
    writer = open_writer(connection, table, statement, consistency="LOCAL_ONE")
    made = sample.users(rows)
    while some := list(islice(made, USERS_A_STEP)):
        writer.write_groups(
            (0, user.bytes, [join_cells((user.bytes, name.encode(), email.encode()), UNSET)])
            for user, name, email in some
        )
    writer.flush()
    if writer.rows_written != rows:
        raise SystemExit(f"{writer.rows_written:,} of {rows:,} users were written")
    say(f"{rows:,} users in {time.monotonic() - began:.0f} s")


def measure(rows: int, connection: Connection, ports: dict[str, int], home: Path) -> Peak:
    """Fill the origin, launch the run, and look at it.

    Raises:
        SystemExit: the run failed, or found fewer rows the same on both sides.
    """
    connection.session.execute(f"DROP TABLE IF EXISTS {sample.USERS}")
    sample.create_users(connection)
    fill(connection, rows)
    client = open_dynamodb(ports["dynamodb"])
    try:
        if TABLE in client.list_tables()["TableNames"]:
            client.delete_table(TableName=TABLE)
    finally:
        client.close()
    log, began = home / f"run-{rows}.log", time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("dg")), "launch"),
                *("--assets", f"{ASSET},{ASSET}_diff", "--partition-range", RANGES),
            ],
            cwd=REPOSITORY,
            env=_environment(ports, home),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        largest, most, processes = watch(process)
    if process.wait():
        raise SystemExit(f"the run failed; the end of its log:\n{log.read_text()[-2_000:]}")
    compared = read_rows_compared(log.read_text())
    if compared != rows:
        raise SystemExit(f"{compared:,} of {rows:,} rows are the same on both sides")
    return Peak(rows, time.monotonic() - began, compared, largest, most, processes)


def _environment(ports: dict[str, int], home: Path) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    (home / "dagster").mkdir(exist_ok=True)
    settings = (REPOSITORY / "deploy" / "local" / "dagster.yaml").read_text()
    (home / "dagster" / "dagster.yaml").write_text(settings)
    return {
        **own,
        **{f"MIGRATION_PLATFORM_{name.upper()}_PORT": str(port) for name, port in ports.items()},
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "DAGSTER_HOME": str(home / "dagster"),
    }


def read_rows_compared(log: str) -> int:
    """Give how many rows the run's own check found to be the same on both sides; 0 for none."""
    found = re.findall(r"passed\. Description: '([\d,]+) rows on both sides", log)
    return int(found[-1].replace(",", "")) if found else 0


def make_page(memory: Memory) -> str:
    """Write the page in Markdown."""
    rows = [
        (
            f"{peak.rows:,}",
            f"{peak.seconds:,.0f}",
            f"{peak.same:,}",
            f"{peak.largest_mb:,.0f}",
            f"{peak.all_mb:,.0f}",
            str(peak.processes),
        )
        for peak in memory.peaks
    ]
    least, most = memory.peaks[0], memory.peaks[-1]
    told = ", ".join(memory.machine.values())
    sections = [
        "# Memory of a copy to DynamoDB",
        f"Users of three columns, copied from Cassandra to DynamoDB Local and compared, by one run "
        f"of `dg launch` over 64 ranges. This page and [all figures]({FIGURES}) are written by "
        f"`{memory.command}`.",
        f"{told}; servers and clients share it.",
        lay_table([HEAD, *rows]),
    ]
    if most.rows > least.rows:
        sections.append(
            f"{most.rows / least.rows:,.0f} times the rows take "
            f"{most.largest_mb / least.largest_mb:.2f} times the memory in the largest process, "
            f"and {most.all_mb / least.all_mb:.2f} times in all together."
        )
    if memory.busy > 0.5:
        sections.append(
            f"The machine was busy with other work meanwhile (a load of {memory.busy:.1f} a core "
            "before a run): the seconds say little."
        )
    sections += [
        "## How it is measured",
        "The largest process is the kernel's peak (`VmHWM`) of any process of the run, Dagster's "
        "own among them; all processes are summed every quarter of a second, and memory that they "
        "share counts for each. Rows that are the same are those of the run's own comparison; if "
        "they are fewer than the users, there is no figure. Each size may have a run of the "
        "benchmark of its own; measured again, it takes the place of its earlier figures.",
        "## How to repeat it",
        f"```\n{memory.command}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def to_json(memory: Memory) -> dict[str, Any]:
    """Give the figures to be kept."""
    return {"busy": memory.busy, "peaks": [asdict(peak) for peak in memory.peaks]}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows",
        type=lambda text: sorted(int(part) for part in text.split(",")),
        default=[100_000, 1_000_000],
    )
    parser.add_argument("--heap-mb", type=int, default=HEAP_MB, help="of DynamoDB Local")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the benchmark and write its page."""
    options = parse_arguments()
    home_folder().mkdir(parents=True, exist_ok=True)
    cache = jars_cache(home_folder())
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=home_folder())))
        kept = options.docs / FIGURES
        memory = Memory(command_line("memory"), machine())
        if kept.exists():
            told = json.loads(kept.read_text())
            peaks = [Peak(**each) for each in told["peaks"]]
            memory.peaks = [peak for peak in peaks if peak.rows not in options.rows]
            memory.busy = told["busy"] if memory.peaks else 0.0
        # Before any of this benchmark's own work is part of it.
        memory.busy = max(memory.busy, os.getloadavg()[0] / (os.cpu_count() or 1))
        servers = [
            stack.enter_context(running(server, home=home, jars_folder=cache, report=say))
            for server in (Cassandra(), DynamoDb(heap_mb=options.heap_mb))
        ]
        ports = {server.name: server.port for server in servers}
        settings = CassandraSettings(port=ports["cassandra"])
        connection = stack.enter_context(Connection(settings))
        for rows in options.rows:
            peak = measure(rows, connection, ports, home)
            memory.peaks = sorted([*memory.peaks, peak], key=lambda each: each.rows)
            kept.write_text(json.dumps(to_json(memory), indent=2) + "\n", encoding="utf-8")
            say(
                f"{rows:,}: {peak.seconds:,.0f} s, {peak.largest_mb:,.0f} MB in the largest process"
            )
            (options.docs / PAGE).write_text(make_page(memory), encoding="utf-8")


if __name__ == "__main__":
    main()
