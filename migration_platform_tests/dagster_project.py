"""A Dagster project in a temporary folder that has nothing but YAML and this package installed.

Tests run it in their own process where only results matter, and through `dg` where the process
does: what is killed, what it prints, what it leaves behind.
"""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml
from alembic.script import ScriptDirectory
from cassandra.cluster import Session
from cassandra.metadata import Murmur3Token
from confluent_kafka import Consumer, KafkaError, TopicPartition
from dagster import ComponentTree, DagsterInstance
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from dagster.components.core import package_entry as plugins
from dagster.components.core import snapshot
from dagster_shared.serdes.objects import package_entry

from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.demo.sample import ORIGIN_TABLE, TARGET_TABLE, create_tables, fill_origin
from migration_platform.errors import DeclarationError
from migration_platform.new_command import DEFINITIONS, PYPROJECT
from migration_platform.runs.control import CONTROL_TABLES
from migration_platform.runs.tracking_tables import TrackingTables, open_tables
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.token_ranges import range_of_key, split_ring
from migration_platform_tests.servers import PATIENCE_SECONDS, REPOSITORY
from migration_platform_tests.tables import rows_of

RANGES = 8
KEYS = [token_range.key for token_range in split_ring(RANGES)]
EVERYTHING = f"{KEYS[0]}...{KEYS[-1]}"
ROWS = 400
DAGSTERS_OWN_WARNINGS = [
    # What Dagster warns of inside itself; what it tells us about our own calls stays an error.
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20:dagster"),
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning:dagster"),
]
DG = Path(sys.executable).with_name("dg")


def _spare_repeated_work() -> None:
    """Keep what Dagster makes anew for each event, run and load: a third of the tests' time."""

    def keep(owner: Any, name: str, key: Callable[..., Any]) -> None:
        make, kept = getattr(owner, name), {}

        def give(*arguments: Any, **options: Any) -> Any:
            known = key(*arguments)
            if known not in kept:
                kept[known] = make(*arguments, **options)
            return kept[known]

        setattr(owner, name, give)

    for storage in (sqlite_event_log, sqlite_run_storage):
        # An engine of theirs keeps no connection, so one for each file is as good as many.
        keep(storage, "create_engine", lambda url: url)
    keep(ScriptDirectory, "from_config", lambda config: config.config_file_name)
    # What all component types look like, for Dagster's page of them: a third of a project's load.
    keep(snapshot, "get_package_entry_snap", lambda key, kind: (key, kind))
    keep(package_entry, "json_for_component_type", lambda key, *_: key)
    keep(plugins, "get_entry_points_from_python_environment", lambda group: group)


_spare_repeated_work()


@dataclass
class Project:
    """A project of some user: `folder` holds its code, `home` is its DAGSTER_HOME."""

    folder: Path
    home: Path
    module: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def defs_folder(self) -> Path:
        return self.folder / self.module / "defs"

    def declare(self, name: str, kind: str, **attributes: Any) -> None:
        """Write the YAML of one component; None takes an attribute away."""
        folder = self.defs_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in attributes.items() if value is not None}
        document = {"type": f"migration_platform.{kind}", "attributes": kept}
        (folder / "defs.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    def load(self) -> dg.Definitions:
        """Load the definitions into this process, as a code location would."""
        with _importable(self.folder):
            return ComponentTree.for_project(self.folder).build_defs()

    @contextmanager
    def instance(self) -> Iterator[DagsterInstance]:
        """Open the project's DAGSTER_HOME."""
        with DagsterInstance.from_config(str(self.home)) as instance:
            yield instance

    def run(
        self,
        partitions: str | None = EVERYTHING,
        *,
        assets: Sequence[dg.AssetKey] | None = None,
        only_checks: bool = False,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "RunResult":
        """Execute one run in this process: all assets that have partitions, unless some are named.

        `partitions` is a key, two joined by `...` as in the UI, or None for none.
        """
        defs = self.load()
        job = defs.resolve_implicit_global_asset_job_def()
        graph = defs.resolve_asset_graph()
        if only_checks:
            job = job.get_subset(asset_check_selection=set(graph.asset_check_keys))
        else:
            keys = assets or [
                key for key in graph.materializable_asset_keys if graph.get(key).is_partitioned
            ]
            job = job.get_subset(asset_selection=set(keys))
        return self.execute(job, partitions, config=config, tags=tags)

    def execute(
        self,
        job: dg.JobDefinition,
        partitions: str | None,
        *,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "RunResult":
        """Execute a job of definitions that are loaded already."""
        with self.instance() as instance:
            result = job.execute_in_process(
                instance=instance,
                run_config=config or {},
                tags={**_partition_tags(partitions), **(tags or {})},
                raise_on_error=False,
            )
            return RunResult(self, result)

    def run_dg(self, *arguments: str, seconds: float = 300, **variables: str) -> "Ended":
        """Run `dg` in the project's folder and wait for its end."""
        process = self.start_dg(*arguments, **variables)
        output = Output(process)
        try:
            return Ended(process.wait(seconds), output.read_to_end())
        finally:
            end_tree(process)
            output.close()

    def start_dg(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start `dg` in the project's folder, as a process of a group of its own."""
        return self.start(str(DG), *arguments, **variables)

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start a program with the project's environment."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("DAGSTER")
        }
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={
                **inherited,
                "DAGSTER_HOME": str(self.home),
                # Of several checkouts, the one that is tested.
                "PYTHONPATH": os.pathsep.join((str(self.folder), str(REPOSITORY))),
                "PATH": f"{DG.parent}{os.pathsep}{os.environ['PATH']}",
                "COLUMNS": "400",
                "NO_COLOR": "1",
                **self.environment,
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def statuses(self, asset: dg.AssetKey) -> dict[str, str]:
        """Give each range's colour in the UI: success, failed, in progress, or none."""
        with self.instance() as instance:
            partitions = dg.StaticPartitionsDefinition(KEYS)
            found = instance.get_status_by_partition(asset, KEYS, partitions) or {}
        names = {
            AssetPartitionStatus.MATERIALIZED: "success",
            AssetPartitionStatus.FAILED: "failed",
            AssetPartitionStatus.IN_PROGRESS: "in progress",
        }
        return {key: names[found[key]] if found.get(key) else "none" for key in KEYS}

    def runs(self) -> list[dg.DagsterRun]:
        """Give the runs, the newest first."""
        with self.instance() as instance:
            return list(instance.get_runs())

    def messages_of(self, run_id: str) -> str:
        """Give all that a run wrote into its event log, as one text."""
        with self.instance() as instance:
            entries = instance.all_logs(run_id)
        lines = []
        for entry in entries:
            lines.append(entry.user_message or entry.message or "")
            event = entry.dagster_event
            if event and event.is_failure:
                lines.append(str(event.event_specific_data))
        return "\n".join(lines)


@dataclass(frozen=True)
class Ended:
    """What a program printed, and how it ended."""

    code: int
    output: str

    def assert_success(self) -> "Ended":
        assert self.code == 0, self.output
        return self

    def json(self) -> Any:
        """Read the output as JSON, from its first brace on."""
        return json.loads(self.output[self.output.index("{") :])


class RunResult:
    """An executed run; what it logged is read while its instance is open."""

    def __init__(self, project: Project, result: dg.ExecuteInProcessResult):
        self.project = project
        self.success = result.success
        self.run_id = result.run_id
        self.tags = dict(result.dagster_run.tags)
        self.checks = {
            evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()
        }
        self.events = list(result.all_events)

    def assert_success(self) -> "RunResult":
        assert self.success, self.error
        return self

    @property
    def error(self) -> str:
        """What the run says of its failure, as its page shows it."""
        return "\n".join(
            str(event.event_specific_data) for event in self.events if event.is_failure
        )

    def materializations(self, asset: dg.AssetKey) -> dict[str, dict[str, Any]]:
        """Give each range's metadata, of the ranges that the run materialized."""
        found = {}
        for event in self.events:
            if event.is_step_materialization and event.asset_key == asset:
                assert event.partition not in found, "a range was materialized twice"
                found[event.partition] = _values(event.materialization.metadata)
        return found

    def observations(self, asset: dg.AssetKey) -> list[tuple[str | None, dict[str, Any]]]:
        """Give partition and metadata of each observation, in order."""
        return [
            (event.partition, _values(event.asset_observation_data.asset_observation.metadata))
            for event in self.events
            if event.is_asset_observation and event.asset_key == asset
        ]


def _values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.value for name, value in metadata.items()}


def _partition_tags(partitions: str | None) -> dict[str, str]:
    if partitions is None:
        return {}
    first, _, last = partitions.partition("...")
    if not last:
        return {"dagster/partition": first}
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@cache
def _empty_home() -> Path:
    """Make a DAGSTER_HOME once: creating its databases takes a second."""
    home = Path(tempfile.mkdtemp(prefix="dagster-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    shutil.copy(REPOSITORY / "deploy" / "local" / "dagster.yaml", home)
    with DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs(limit=1)
        instance.get_latest_materialization_event(dg.AssetKey("none"))
        instance.all_instigator_state()
    return home


def make_project(folder: Path, *, cassandra_port: int, kafka_port: int | None = None) -> Project:
    """Make a project with the stores `sunbird` and `reports`, and `monitoring` for events."""
    module = f"project_{uuid.uuid4().hex[:8]}"
    project = Project(folder / "project", folder / "dagster_home", module)
    project.defs_folder.mkdir(parents=True)
    shutil.copytree(_empty_home(), project.home)
    (project.folder / "pyproject.toml").write_text(PYPROJECT.format(module=module))
    package = project.folder / module
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    cluster = {"contact_points": ["127.0.0.1"], "port": cassandra_port}
    kafka = {"monitoring": {"bootstrap_servers": f"127.0.0.1:{kafka_port}"}} if kafka_port else None
    project.declare(
        "stores", "Stores", cassandra={"sunbird": cluster, "reports": cluster}, kafka=kafka
    )
    return project


def refusal(project: Project) -> str:
    """Load a project with one wrong declaration; gives what is said of it, behind its file."""
    with pytest.raises(DeclarationError, match=r"^[^ ]*defs\.yaml: ") as caught:
        project.load()
    assert caught.value.__cause__ is None
    return str(caught.value).partition(": ")[2]


@dataclass(frozen=True)
class Topic:
    """A Kafka topic as a consumer with nothing of ours reads it, from its beginning."""

    bootstrap_servers: str
    name: str

    def read(self) -> list[dict[str, Any]]:
        """Give the values of all messages in order; none if there is no such topic yet."""
        return [json.loads(message.value()) for message in self.read_messages()]

    def read_messages(self) -> list[Any]:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": uuid.uuid4().hex,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "allow.auto.create.topics": False,
            }
        )
        found = []
        try:
            topics = consumer.list_topics(timeout=PATIENCE_SECONDS).topics
            if self.name not in topics:
                return []
            left = set(topics[self.name].partitions)
            consumer.assign([TopicPartition(self.name, partition, 0) for partition in left])
            deadline = time.monotonic() + PATIENCE_SECONDS
            while left and time.monotonic() < deadline:
                message = consumer.poll(0.5)
                if message is None:
                    continue
                if message.error() is None:
                    found.append(message)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
            assert not left, f"the topic {self.name} was not read to its end"
        finally:
            consumer.close()
        return found


@dataclass
class Move:
    """The sample tables in a keyspace of their own, and the project that migrates them."""

    project: Project
    keyspace: str
    connection: Connection
    reader: Session
    bootstrap_servers: str
    origin_name: str = ORIGIN_TABLE
    target_name: str = TARGET_TABLE

    @property
    def origin(self) -> dg.AssetKey:
        return dg.AssetKey(["sunbird", self.keyspace, self.origin_name])

    @property
    def target(self) -> dg.AssetKey:
        return dg.AssetKey(["reports", self.keyspace, self.target_name])

    @property
    def diff(self) -> dg.AssetKey:
        return dg.AssetKey(["reports", self.keyspace, f"{self.target_name}_diff"])

    @property
    def selection(self) -> str:
        """The selection of target and diff, for `dg launch --assets`."""
        return f"{self.target.to_user_string()},{self.diff.to_user_string()}"

    @property
    def metrics(self) -> Topic:
        return Topic(self.bootstrap_servers, f"{self.keyspace}.metrics")

    @property
    def job_log(self) -> Topic:
        return Topic(self.bootstrap_servers, f"{self.keyspace}.job_log")

    @property
    def events(self) -> dict[str, str]:
        """The attribute `events`, with topics of this keyspace."""
        return {
            "store": "monitoring",
            "topic": self.metrics.name,
            "job_log_topic": self.job_log.name,
        }

    def declare(self, **attributes: Any) -> None:
        """Declare the migration; a dict for `origin` or `target` adds to what they are."""
        origin = {"store": "sunbird", "table": f"{self.keyspace}.{self.origin_name}"}
        target = {"store": "reports", "table": f"{self.keyspace}.{self.target_name}"}
        origin.update(attributes.pop("origin", {}))
        target.update(attributes.pop("target", {}))
        given = {
            "token_ranges": RANGES,
            "workers": 1,
            "retry_seconds": 10,
            "group_writes_by": ["batchid"],
            **attributes,
        }
        self.project.declare("enrolments", "TableMigration", origin=origin, target=target, **given)

    def step_config(self, **values: Any) -> dict[str, Any]:
        """Give the run configuration that the UI's launchpad would hold."""
        return {"ops": {"__".join(self.target.path): {"config": values}}}

    def execute(self, statement: str) -> Any:
        """Run CQL; `{origin}` and `{target}` stand for the tables."""
        names = {
            "origin": f"{self.keyspace}.{self.origin_name}",
            "target": f"{self.keyspace}.{self.target_name}",
        }
        return self.reader.execute(statement.format(**names), timeout=60)

    def check(self, name: str) -> tuple[bool, str, dict[str, Any]]:
        """Give a check's verdict, sentence and metadata, as the target's page shows them now."""
        key = dg.AssetCheckKey(self.target, name)
        with self.project.instance() as instance:
            storage = instance.event_log_storage
            record = storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.event is not None
        assert record.event.dagster_event is not None
        found = record.event.dagster_event.asset_check_evaluation_data
        return found.passed, found.description or "", _values(found.metadata)

    def table_metadata(self) -> dict[str, Any]:
        """Give the metadata that the target's page shows: that of its latest materialization."""
        with self.project.instance() as instance:
            event = instance.get_latest_materialization_event(self.target)
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.partition is None
        return _values(event.asset_materialization.metadata)

    def origin_rows(self, *keys: str) -> list[dict[str, Any]]:
        return self._rows(self.origin_name, keys)

    def target_rows(self, *keys: str) -> list[dict[str, Any]]:
        return self._rows(self.target_name, keys)

    def _rows(self, table: str, keys: Sequence[str]) -> list[dict[str, Any]]:
        rows = rows_of(self.reader, TableName(self.keyspace, table))
        if not keys:
            return rows
        ranges = [range_of_key(key) for key in keys]
        return [row for row in rows if any(_token(row) in token_range for token_range in ranges)]

    def add_a_row_that_the_target_refuses(self, key: str) -> None:
        """Write a row without a batch into a range of the origin: no key for the target."""
        user = self.origin_rows(key)[0]["userid"]
        self.execute(
            f"INSERT INTO {{origin}} (userid, courseid, batchid) VALUES ('{user}', 'c', '')"
        )

    def assert_same_rows(self, *keys: str) -> None:
        """Compare both tables without the engine: all rows, or those of some ranges."""
        origin, target = self.origin_rows(*keys), self.target_rows(*keys)
        assert len(origin) == len(target)
        assert origin == target


def _token(row: Mapping[str, Any]) -> int:
    """Give the origin's token of a sample row, by the driver's own hash."""
    return Murmur3Token.from_key(row["userid"].encode()).value


def begin_move(
    folder: Path, keyspace: str, connection: Connection, reader: Session, ports: tuple[int, int]
) -> Move:
    """Fill the sample tables and declare their migration in a new project, without events."""
    cassandra_port, kafka_port = ports
    create_tables(connection, keyspace)
    fill_origin(connection, ROWS, keyspace=keyspace)
    project = make_project(folder, cassandra_port=cassandra_port, kafka_port=kafka_port)
    move = Move(project, keyspace, connection, reader, f"127.0.0.1:{kafka_port}")
    move.declare()
    return move


def open_control(move: Move, target: str, **options: Any) -> tuple[TrackingTables, Migration]:
    """Give the tables in which rate and pause are set, and the migration they are set for."""
    name = TableName(move.keyspace, target)
    migration = Migration(Endpoint("sunbird", name), Endpoint("reports", name), **options)
    return open_tables(move.connection, migration, CONTROL_TABLES), migration


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for something to become true, and give what it became."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"within {seconds} s, not: {what}")


def descendants(pid: int) -> list[psutil.Process]:
    """Give the processes below one, at any depth."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def gone(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Say whether all processes end within so many seconds; zombies count as ended."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def end_tree(process: subprocess.Popen[str]) -> None:
    """End a program that a test started, with everything that it started."""
    family = descendants(process.pid)
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=PATIENCE_SECONDS)


class Output:
    """Gathers a running program's output, so that a full pipe never stops it."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def wait(self, seconds: float) -> str:
        """Wait for the program's end, and give all that it printed."""
        self._process.wait(seconds)
        return self.read_to_end()

    def read_to_end(self) -> str:
        """Give all that was printed, once every process that could print has ended."""
        self._thread.join(PATIENCE_SECONDS)
        return self.text

    def close(self) -> None:
        """Close the pipe of a program that has ended."""
        self._thread.join(PATIENCE_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
