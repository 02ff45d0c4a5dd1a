"""Measures what a run through Dagster takes beside the rows: from the launch to the end.

    python -m benchmarks.launch --ranges 16,64,256,1024 --runs 3

A small table is copied in a project of its own, on servers of the benchmark's own, with each number
of token ranges: by `dg launch`, with and without comparison, and by the request that the UI sends.
The target is empty before each run, so that the first row to be seen there is the run's. In the end
the UI's own questions about the table and the last run are asked. Writes docs/benchmarks-launch.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import psutil
import yaml

from benchmarks.bench import machine
from benchmarks.growth import numbers
from benchmarks.measuring import Family, say, spend, wait_until_idle
from benchmarks.report import command_line, lay_table
from migration_platform.cql.names import TableName
from migration_platform.demo import sample
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.ports import LOCALHOST, free_port, port_is_open
from migration_platform.local.stack import home_folder, jars_cache, running
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.tables import truncate
from migration_platform.token_ranges import split_ring

PAGE = "benchmarks-launch.md"
KEYSPACE = "launching"
MODULE = "launching"
TARGET = dg.AssetKey(["reports", KEYSPACE, sample.TARGET_TABLE])
DIFF = dg.AssetKey([*TARGET.path[:-1], f"{sample.TARGET_TABLE}_diff"])
LIMIT_SECONDS = 900
FIRST_ROW_TARGET_SECONDS = 10
POLL_SECONDS = 0.02
# Asking for a run's state reads SQLite files, and takes CPU that the run could have.
RUN_POLL_SECONDS = 0.25
ASKED_TIMES = 5
WITH, WITHOUT, UI = "`dg launch`, compared", "`dg launch`, copied only", "the UI, compared"
MARKS = {
    "PIPELINE_START": "run begins",
    "STEP_START": "step begins",
    "STEP_SUCCESS": "step ends",
    "PIPELINE_SUCCESS": "run ends",
}
_PYPROJECT = f"""\
[project]
name = "{MODULE}"
version = "0.1.0"
requires-python = ">=3.11"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{MODULE}"
code_location_target_module = "{MODULE}.definitions"

[tool.dg.cli]
suppress_warnings = ["project_and_activated_venv_mismatch"]
"""
SELECTOR = {
    "repositoryLocationName": f"{MODULE}.definitions",
    "repositoryName": "__repository__",
}
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { id } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
# What the UI's pages ask for, in short: the fields that cost.
QUESTIONS = {
    "all assets": """
query { assetNodes { id assetKey { path } groupName isPartitioned hasMaterializePermission
  dependencyKeys { path } dependedByKeys { path } jobNames computeKind
  partitionDefinition { description } repository { id name location { id name } } } }""",
    "the table's state": """
query($key: AssetKeyInput!) { assetNodes(assetKeys: [$key]) { id
  assetMaterializations(limit: 1) { timestamp runId }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } }
  partitionStats { numMaterialized numMaterializing numPartitions numFailed } } }""",
    "its partitions": """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { id
  partitionKeysByDimension { name type partitionKeys }
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } }
} } }""",
    "its latest 100 events": """
query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset { id
  assetMaterializations(limit: 100) { timestamp runId partition metadataEntries { label
    ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue }
    ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr }
    ... on JsonMetadataEntry { jsonString } } }
  assetObservations(limit: 100) { timestamp runId partition
    metadataEntries { label ... on MarkdownMetadataEntry { mdStr } } } } } }""",
    "its checks": """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { id
  assetChecksOrError { ... on AssetChecks { checks { name description
    executionForLatestMaterialization { status evaluation { success description
      metadataEntries { label ... on MarkdownMetadataEntry { mdStr } } } } } } } } } }""",
    "the run": """
query($run: ID!) { runOrError(runId: $run) { ... on Run { id status startTime endTime
  tags { key value } assetSelection { path } assetCheckSelection { name }
  stepStats { stepKey status startTime endTime } assets { id key { path } }
  executionPlan { steps { key } } } } }""",
    "the run's first 1,000 events": """
query($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { cursor hasMore
  events { __typename ... on MessageEvent { message timestamp level stepKey eventType }
    ... on MaterializationEvent { label metadataEntries { label
      ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text }
      ... on MarkdownMetadataEntry { mdStr } } } } } } }""",
}


@dataclass(frozen=True)
class Launched:
    """What a run took; seconds count from the launch.

    Attributes:
        how: One of `WITH`, `WITHOUT`, `UI`.
        first_row: When the first row was seen at the target.
        ended: When the command, or the run that the UI launched, had ended.
        marks: An event's name -> when it was written.
        client, server: CPU seconds of everything of Dagster and this project, and of Cassandra.
        events: Entries of the run's event log.
        grown_mb: What the instance's folder has grown by, MB (10^6 bytes).
    """

    ranges: int
    how: str
    first_row: float
    ended: float
    marks: Mapping[str, float]
    client: float
    server: float
    events: int
    grown_mb: float


@dataclass(frozen=True)
class Launching:
    """Everything that the page says. `asked`: ranges and a question -> seconds of each answer."""

    command: str
    rows: int
    machine: Mapping[str, str]
    launched: list[Launched] = field(default_factory=list)
    asked: dict[tuple[int, str], list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """A user's project and instance, and the cluster of both its tables."""

    folder: Path
    ranges: int
    connection: Connection
    cassandra: psutil.Process
    rows: int

    @property
    def home(self) -> Path:
        """Its DAGSTER_HOME."""
        return self.folder / "dagster_home"

    @property
    def environment(self) -> dict[str, str]:
        """What its programs run in."""
        programs = Path(sys.executable).parent
        return os.environ | {
            "DAGSTER_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join((str(self.folder), str(Path.cwd()))),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(programs.parent),
        }

    @property
    def span(self) -> tuple[str, str]:
        """The first and the last partition."""
        every = split_ring(self.ranges)
        return every[0].key, every[-1].key


@contextmanager
def make_project(
    home: Path, ranges: int, connection: Connection, cassandra: psutil.Process, rows: int
) -> Iterator[Project]:
    """Write a project as a user has it: stores and one migration."""
    folder = home / f"project-{ranges}"
    project = Project(folder, ranges, connection, cassandra, rows)
    package = folder / MODULE
    cluster = {"contact_points": [LOCALHOST], "port": connection.settings.port}
    declared = {
        "stores": ("Stores", {"cassandra": {"sunbird": cluster, "reports": cluster}}),
        "enrolments": (
            "TableMigration",
            {
                "origin": {"store": "sunbird", "table": f"{KEYSPACE}.{sample.ORIGIN_TABLE}"},
                "target": {"store": "reports", "table": f"{KEYSPACE}.{sample.TARGET_TABLE}"},
                "token_ranges": ranges,
                "diff": {"compare_writetime": True},
                "group_writes_by": ["batchid"],
            },
        ),
    }
    for name, (kind, attributes) in declared.items():
        document = {"type": f"migration_platform.{kind}", "attributes": attributes}
        (package / "defs" / name).mkdir(parents=True)
        (package / "defs" / name / "defs.yaml").write_text(yaml.safe_dump(document))
    (folder / "pyproject.toml").write_text(_PYPROJECT)
    (package / "__init__.py").touch()
    shutil.copy(Path(sample.__file__).parent / "definitions.py", package)
    project.home.mkdir()
    shutil.copy(prepare_settings(), project.home)
    yield project
    shutil.rmtree(folder)


def prepare_settings() -> Path:
    """Give the settings of the demo's instance."""
    return Path(sample.__file__).parent.parent / "deploy" / "local" / "dagster.yaml"


def size_mb(folder: Path) -> float:
    """Add up the files of a folder, in MB (10^6 bytes)."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@contextmanager
def first_row_seen(project: Project) -> Iterator[list[float]]:
    """Look for the first row at the target as long as the block lasts; gives the times seen."""
    ask = project.connection.prepare(
        f"SELECT batchid FROM {KEYSPACE}.{sample.TARGET_TABLE} LIMIT 1"
    )
    seen: list[float] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(POLL_SECONDS):
            if project.connection.session.execute(ask).one():
                seen.append(time.time())
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def measure(
    project: Project, how: str, client: Family, launch: Callable[[], str | None]
) -> tuple[Launched, str]:
    """Measure a run; `launch` gives its id where it knows it and returns when it has ended."""
    truncate(project.connection, TableName(KEYSPACE, sample.TARGET_TABLE))
    wait_until_idle(project.cassandra)
    before = size_mb(project.home)
    told: list[str | None] = []
    with first_row_seen(project) as seen:
        began = time.time()
        spent = spend(project.rows, client, project.cassandra, lambda: told.append(launch()))
    with dg.DagsterInstance.from_config(str(project.home)) as instance:
        run = instance.get_run_by_id(told[0]) if told[0] else instance.get_runs(limit=1)[0]
        if run is None or not run.is_success or not seen:
            raise SystemExit(f"The run did not succeed: {how}, {project.ranges} ranges")
        entries = instance.all_logs(run.run_id)
    marks = {
        MARKS[kind]: entry.timestamp - began
        for entry in entries
        if entry.dagster_event and (kind := entry.dagster_event.event_type_value) in MARKS
    }
    launched = Launched(
        ranges=project.ranges,
        how=how,
        first_row=seen[0] - began,
        ended=spent.seconds,
        marks=marks,
        client=spent.client,
        server=spent.server,
        events=len(entries),
        grown_mb=size_mb(project.home) - before,
    )
    say(
        f"{how}, {project.ranges} ranges: first row after {launched.first_row:.1f} s, end after "
        f"{launched.ended:.1f} s, {launched.client:.1f} s of CPU, {launched.events:,} events, "
        f"{launched.grown_mb:.1f} MB"
    )
    return launched, run.run_id


def launch_by_command(project: Project, *, compared: bool) -> None:
    """Run `dg launch` to its end."""
    assets = [TARGET, DIFF] if compared else [TARGET]
    command = [
        str(Path(sys.executable).with_name("dg")),
        *("launch", "--assets", ",".join(key.to_user_string() for key in assets)),
        *("--partition-range", "...".join(project.span)),
    ]
    with (project.folder / "launch.log").open("ab") as output:
        ended = subprocess.run(
            command,
            cwd=project.folder,
            env=project.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
            timeout=LIMIT_SECONDS,
        )
    if ended.returncode:
        raise SystemExit((project.folder / "launch.log").read_text()[-4_000:])


@contextmanager
def served(project: Project) -> Iterator[tuple[str, psutil.Process]]:
    """Start the UI and its daemon; gives its address and its process."""
    port = free_port()
    log = project.folder / "ui.log"
    command = [str(Path(sys.executable).with_name("dagster")), "dev"]
    command += ["-h", LOCALHOST, "-p", str(port), "-m", f"{MODULE}.definitions"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=project.folder,
            env=project.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    root = psutil.Process(process.pid)
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not port_is_open(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The UI did not start: {log.read_text()[-2_000:]}")
            time.sleep(0.2)
        yield f"http://{LOCALHOST}:{port}/graphql", root
    finally:
        family = [*root.children(recursive=True), root]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for member in alive:
            member.kill()
        process.wait()


def ask(url: str, query: str, **variables: Any) -> dict[str, Any]:
    """Ask Dagster's GraphQL."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
        told = json.loads(answer.read())
    if told.get("errors"):
        raise SystemExit(f"Dagster refused a question: {told['errors'][0]['message']}")
    return told["data"]


def launch_by_ui(project: Project, url: str) -> str:
    """Launch all ranges of table and comparison as the UI does, and wait for the end."""
    first, last = project.span
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    params = {
        "mode": "default",
        "selector": {
            **SELECTOR,
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": list(key.path)} for key in (TARGET, DIFF)],
        },
        "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
    }
    told = ask(url, LAUNCH, params=params)["launchPipelineExecution"]
    if told["__typename"] != "LaunchRunSuccess":
        raise SystemExit(f"Dagster refused the launch: {told}")
    run_id = told["run"]["id"]
    deadline = time.monotonic() + LIMIT_SECONDS
    with dg.DagsterInstance.from_config(str(project.home)) as instance:
        while time.monotonic() < deadline:
            run = instance.get_run_by_id(run_id)
            if run and run.is_finished:
                return run_id
            time.sleep(RUN_POLL_SECONDS)
    raise SystemExit("The run that was launched as by the UI did not end")


def ask_everything(launching: Launching, project: Project, url: str, run_id: str) -> None:
    """Ask what the UI's pages ask, some times each."""
    known: dict[str, Any] = {"key": {"path": list(TARGET.path)}, "run": run_id}
    for name, query in QUESTIONS.items():
        variables = {each: value for each, value in known.items() if f"${each}:" in query}
        for _ in range(ASKED_TIMES):
            began = time.monotonic()
            ask(url, query, **variables)
            taken = launching.asked.setdefault((project.ranges, name), [])
            taken.append(time.monotonic() - began)
        shown = median(launching.asked[project.ranges, name])
        say(f"{name}, {project.ranges} ranges: {1000 * shown:,.0f} ms")


def make_page(launching: Launching) -> str:
    """Write the page in Markdown."""
    groups: dict[tuple[str, int], list[Launched]] = {}
    for each in launching.launched:
        groups.setdefault((each.how, each.ranges), []).append(each)
    ordered = sorted(groups.items(), key=lambda item: ((WITH, WITHOUT, UI).index(item[0][0]), item))
    sections = [
        "# Launches",
        "What a run through Dagster takes beside the rows. This page is written by "
        f"`{launching.command}`.",
        f"{launching.rows:,} enrolments are copied with every cell's own times into an empty "
        f"table. {', '.join(launching.machine.values())}; Python {sys.version.split()[0]}, "
        f"Dagster {dg.__version__}. Figures are the median, with minimum and maximum in brackets. "
        f"From the launch to the first row should take less than {FIRST_ROW_TARGET_SECONDS} s.",
        "## Runs",
        lay_table(_run_rows(ordered)),
        "Of seconds from the launch: until the first row is seen at the target, and until "
        "everything has ended, the command or the run. CPU is that of Dagster, its daemon and UI "
        "where they serve, and this project; the server's is Cassandra's. Storage is what "
        "Dagster's folder has grown by.",
        "## Where the time goes",
        lay_table(_mark_rows(ordered)),
        "Seconds from the launch to Dagster's own events, medians. Before a run begins, programs "
        "start and load the definitions; the UI's run waits in a queue beforehand.",
    ]
    if launching.asked:
        sections += [
            "## The UI's questions",
            lay_table(_question_rows(launching)),
            "Milliseconds until the UI's server has answered, after the runs above. The first "
            "answer, which fills caches, counts as the maximum.",
        ]
    sections += [
        "## How to repeat it",
        f"```\n{launching.command}\n```",
        "Nothing else should run on the machine meanwhile.",
    ]
    return "\n\n".join(sections) + "\n"


def _run_rows(groups: Sequence[tuple[tuple[str, int], Sequence[Launched]]]) -> list[list[str]]:
    head = ["", "ranges", "first row, s", "end, s", "CPU, s", "server CPU, s", "events"]
    rows = [[*head, "storage, MB", "runs"]]
    for (how, ranges), runs in groups:
        shown = ("first_row", "ended", "client", "server", "events", "grown_mb")
        cells = [_spread([getattr(run, name) for run in runs]) for name in shown]
        rows.append([how, f"{ranges:,}", *cells, f"{len(runs)}"])
    return rows


def _mark_rows(groups: Sequence[tuple[tuple[str, int], Sequence[Launched]]]) -> list[list[str]]:
    rows = [["", "ranges", "run begins", "step begins", "first row", "step ends", "run ends"]]
    for (how, ranges), runs in groups:
        moments = [{**run.marks, "first row": run.first_row} for run in runs]
        cells = [f"{median(each[name] for each in moments):.1f}" for name in rows[0][2:]]
        rows.append([how, f"{ranges:,}", *cells])
    return rows


def _question_rows(launching: Launching) -> list[list[str]]:
    every = sorted({ranges for ranges, _ in launching.asked})
    rows = [["", *(f"{ranges:,} ranges" for ranges in every)]]
    for name in QUESTIONS:
        taken = [launching.asked.get((ranges, name), []) for ranges in every]
        rows.append([name, *(_spread([1000 * t for t in each]) if each else "-" for each in taken)])
    return rows


def _spread(values: Sequence[float]) -> str:
    def show(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 or isinstance(value, int) else f"{value:.1f}"

    if min(values) == max(values):
        return show(values[0])
    return f"{show(median(values))} ({show(min(values))} to {show(max(values))})"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.launch", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--rows", type=int, default=2_000, help="of the table; few, since they are not the matter")
    add("--ranges", type=numbers, default=numbers("16,64,256,1024"))
    add("--runs", type=int, default=3, help="of each kind of launch")
    add("--no-ui", action="store_true", help="leave the UI out")
    add("--docs", type=Path, default=Path("docs"), help="where the page goes")
    return parser.parse_args()


def measure_ranges(launching: Launching, project: Project, runs: int, *, ui: bool) -> None:
    """Measure all launches with one number of ranges; the first makes Dagster's databases."""
    nobody = Family(psutil.Process(), own=False)
    say("warm-up")
    measure(project, WITH, nobody, lambda: launch_by_command(project, compared=True))
    for _ in range(runs):
        for how in (WITH, WITHOUT):
            launched, _run = measure(
                project,
                how,
                Family(psutil.Process(), own=False),
                lambda how=how: launch_by_command(project, compared=how == WITH),
            )
            launching.launched.append(launched)
    if not ui:
        return
    with served(project) as (url, process):
        family = Family(process)
        run_id = ""
        for _ in range(runs):
            launched, run_id = measure(project, UI, family, lambda: launch_by_ui(project, url))
            launching.launched.append(launched)
        ask_everything(launching, project, url, run_id)


def main() -> None:
    """Run the benchmark and write its page."""
    options = parse_arguments()
    home_folder().mkdir(parents=True, exist_ok=True)
    launching = Launching(command_line("launch"), options.rows, machine())
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=home_folder())))
        cache = jars_cache(home_folder())
        server = stack.enter_context(running(Cassandra(), home=home, jars_folder=cache, report=say))
        connection = stack.enter_context(Connection(CassandraSettings(port=server.port)))
        sample.create_tables(connection, KEYSPACE)
        sample.fill_origin(connection, options.rows, keyspace=KEYSPACE)
        process = psutil.Process(server.pid)
        for ranges in options.ranges:
            with make_project(home, ranges, connection, process, options.rows) as project:
                measure_ranges(launching, project, options.runs, ui=not options.no_ui)
            options.docs.mkdir(parents=True, exist_ok=True)
            page = options.docs / PAGE
            page.write_text(make_page(launching), encoding="utf-8")
            say(f"wrote {page}")


if __name__ == "__main__":
    main()
