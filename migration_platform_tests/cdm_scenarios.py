"""Scenarios of the Cassandra Data Migrator's kind: a properties file, two tables, what comes of it.

Each file of `scenarios/` is one, and README.md there says what may stand in it. All of them are
imported into one Dagster project, whose definitions are loaded once; a launch executes in this
process what the printed `dg launch` line says, read by the parser of `dg` itself.
"""

import itertools
import json
import re
import shlex
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from cassandra.cluster import Session
from dagster_dg_cli.cli.launch import launch_command

from migration_platform.cdm.import_cdm import import_file
from migration_platform.cdm.properties import PREFIX
from migration_platform.errors import DeclarationError
from migration_platform_tests.dagster_project import Project, RunResult, make_project
from migration_platform_tests.tables import REPLICATION

FOLDER = Path(__file__).parent / "scenarios"
_KEYS = {
    *("title", "server", "types", "origin", "target", "given", "properties"),
    *("refused", "reported", "written", "stores", "steps"),
}
_STEP_KEYS = {
    *("damage", "launch", "exit", "migrate", "validate", "guardrail", "says", "metadata"),
    *("select", "rows"),
}
_FEW_SECONDS = 300


@dataclass(frozen=True)
class Scenario:
    """One file: its name, what stands in it, and its properties files by name."""

    name: str
    title: str
    content: Mapping[str, Any]

    @property
    def files(self) -> dict[str, dict[str, str | None]]:
        """The properties of each file, without prefix; those of a later one add to the first's."""
        given = self.content.get("properties") or {}
        if not given or not all(isinstance(value, dict) for value in given.values()):
            given = {"migrate": given}
        first = next(iter(given.values()))
        found = {name: {**first, **more} for name, more in given.items()}
        if any(step.get("launch") == "validate" for step in self.steps):
            found.setdefault("validate", first)
        return {
            name: {key: _text(value) for key, value in values.items()}
            for name, values in found.items()
        }

    @property
    def steps(self) -> list[dict[str, Any]]:
        return self.content.get("steps", [])

    @property
    def only_written(self) -> bool:
        """Whether the files that are written are all that it shows, and no server is asked."""
        return self.content.get("server") == "none"


def _text(value: Any) -> str | None:
    return None if value is None else str(value).lower() if value in (True, False) else str(value)


def job_of(file: str) -> str | None:
    """Give the job that a file is for, by its name; None leaves it to the import."""
    jobs = {"validate": "diff", "fix": "diff", "force": "diff", "check": "guardrail"}
    return jobs.get(file)


@cache
def all_scenarios() -> dict[str, Scenario]:
    """Read every scenario, by name."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        content = yaml.safe_load(path.read_text("utf-8"))
        assert content.keys() <= _KEYS, (path.name, content.keys() - _KEYS)
        for step in content.get("steps", []):
            assert step.keys() <= _STEP_KEYS, (path.name, step.keys() - _STEP_KEYS)
        found[path.stem] = Scenario(path.stem, content["title"], content)
    return found


def properties_shown() -> dict[str, list[str]]:
    """Give for each property the names of the scenarios whose files set it."""
    found: dict[str, list[str]] = {}
    for scenario in all_scenarios().values():
        names = {name for file in scenario.files.values() for name in file}
        for name in sorted(names):
            found.setdefault(name, []).append(scenario.name)
    return found


@dataclass
class Imported:
    """What became of a properties file: its report and line, or the sentence that refused it.

    `written` are the attributes of its file and `stores` those of its stores', `number` is that of
    the project it went to.
    """

    report: str = ""
    line: str = ""
    refusal: str = ""
    written: Mapping[str, Any] = field(default_factory=dict)
    stores: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0


@dataclass
class Launched:
    """What a launch came to; `metadata` are those of each range, or of the whole asset."""

    exit: int
    counts: dict[str, str]
    messages: str
    metadata: list[dict[str, Any]]


@dataclass(frozen=True)
class Server:
    """Where a scenario's tables are; `open` gives a session, and starts the server if need be."""

    port: int
    open: Callable[[], AbstractContextManager[Session]]


class Suite:
    """The projects that hold all scenarios: the first file of each, the second, and so on."""

    def __init__(self, folder: Path, servers: Mapping[str, Server], values: Mapping[str, str]):
        self._folder, self._servers, self._values = folder, servers, values
        self._sessions: dict[str, Session] = {}
        self._open = ExitStack()
        self.origin, self.target = (f"{side}_{uuid.uuid4().hex[:8]}" for side in ("o", "t"))
        self._projects: list[Project] = []
        self._imported: dict[tuple[str, str], Imported] = {}
        self._loaded: dict[int, tuple[Any, Any]] = {}

    def __enter__(self) -> "Suite":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def reader(self, scenario: Scenario) -> Session:
        """A session at the scenario's server, with the suite's keyspaces."""
        name = scenario.content.get("server", "plain")
        if name not in self._sessions:
            session = self._open.enter_context(self._servers[name].open())
            for keyspace in (self.origin, self.target):
                session.execute(
                    f"CREATE KEYSPACE {keyspace} WITH replication = {REPLICATION}", timeout=60
                )
                self._open.callback(session.execute, f"DROP KEYSPACE {keyspace}", timeout=120)
            self._sessions[name] = session
        return self._sessions[name]

    def names(self, scenario: Scenario) -> dict[str, str]:
        """What stands in braces in a scenario's CQL and properties."""
        return {
            "origin_keyspace": self.origin,
            "target_keyspace": self.target,
            "origin": f"{self.origin}.{scenario.name}",
            "target": f"{self.target}.{scenario.name}",
            "name": scenario.name,
            **self._values,
        }

    def file_of(self, scenario: Scenario, name: str) -> bytes:
        """Give the text of a properties file, with where the servers and tables are."""
        port = 9042
        if not scenario.only_written:
            port = self._servers[scenario.content.get("server", "plain")].port
        values = {
            "connect.origin.host": "127.0.0.1",
            "connect.origin.port": port,
            "connect.target.host": "127.0.0.1",
            "connect.target.port": port,
            "schema.origin.keyspaceTable": f"{self.origin}.{scenario.name}",
            "schema.target.keyspaceTable": f"{self.target}.{scenario.name}",
            "perfops.numParts": 2,
            **scenario.files[name],
        }
        names = self.names(scenario)
        lines = [
            f"{PREFIX}{key}={fill(str(value), names)}"
            for key, value in values.items()
            if value is not None
        ]
        return "\n".join(lines).replace("\\", "\\\\").encode()

    def imported(self, scenario: Scenario, file: str) -> Imported:
        """What became of one of a scenario's files."""
        if not self._imported:
            for each in all_scenarios().values():
                for name in each.files:
                    self._imported[each.name, name] = self._import(each, name)
        return self._imported[scenario.name, file]

    def _import(self, scenario: Scenario, name: str) -> Imported:
        """Import a file into the first project that holds nothing else of the scenario."""
        path = self._folder / f"{scenario.name}.{name}.properties"
        path.write_bytes(self.file_of(scenario, name))
        if scenario.only_written:
            folder = self._folder / "written" / scenario.name / name
            return _import_file(path, folder, scenario.name, name)
        for number in itertools.count():
            if number == len(self._projects):
                project = make_project(self._folder / f"p{number}", cassandra_port=1)
                (project.defs_folder / "stores" / "defs.yaml").unlink()
                self._projects.append(project)
            folder = self._projects[number].defs_folder
            found = _import_file(path, folder, scenario.name, name)
            if "would be overwritten" not in found.refusal:
                return replace(found, number=number)
        raise AssertionError

    def create(self, scenario: Scenario) -> None:
        """Make the scenario's tables and fill them."""
        names, session = self.names(scenario), self.reader(scenario)
        given = scenario.content
        self.execute(scenario, given.get("types", ""))
        for side in ("origin", "target"):
            if side in given:
                head, _, options = given[side].partition(" WITH ")
                with_options = f" WITH {options}" if options else ""
                head = fill(head, names)
                session.execute(f"CREATE TABLE {names[side]} ({head}){with_options}", timeout=60)
        self.execute(scenario, given.get("given", ""))

    def execute(self, scenario: Scenario, script: str) -> None:
        """Run statements, each ended by a semicolon at the end of a line."""
        names, session = self.names(scenario), self.reader(scenario)
        for statement in re.split(r";\s*(?:\n|$)", script):
            if statement.strip():
                session.execute(fill(statement, names), timeout=60)

    def rows(self, scenario: Scenario, select: str) -> list[list[Any]]:
        """Give all rows of a SELECT in plain values, sorted."""
        found = self.reader(scenario).execute(fill(select, self.names(scenario)), timeout=60)
        return sorted(([plain(value) for value in row.values()] for row in found), key=repr)

    def launch(self, scenario: Scenario, file: str) -> Launched:
        """Do what the line says that is printed when a file is imported."""
        imported = self.imported(scenario, file)
        given = parse_line(shlex.split(imported.line))
        project = self._projects[imported.number]
        return _told(project, self._run(imported.number, given))

    def _run(self, number: int, given: Mapping[str, Any]) -> RunResult:
        project = self._projects[number]
        if number not in self._loaded:
            defs = project.load()
            self._loaded[number] = defs, defs.resolve_asset_graph()
        defs, graph = self._loaded[number]
        assets = given["assets"].split(",")
        keys = dg.AssetSelection.from_coercible(assets).resolve(graph)
        assert len(keys) == len(assets), (assets, keys)
        job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=keys)
        config = json.loads(given["config_json"] or "{}")
        return project.execute(job, given["partition_range"], config=config)


def _import_file(path: Path, folder: Path, prefix: str, name: str) -> Imported:
    try:
        report = "\n".join(import_file(path, folder, job=job_of(name), prefix=prefix))
    except DeclarationError as refusal:
        return Imported(refusal=str(refusal))
    lines = [line.strip() for line in report.splitlines() if "dg launch " in line]
    pattern = r"^(?:wrote|left) (.*/defs\.yaml)(?:,.*)?$"
    declared = {
        Path(file).parent.name.endswith("_stores"): yaml.safe_load(Path(file).read_text("utf-8"))
        for file in re.findall(pattern, report, re.MULTILINE)
    }
    stores = declared.get(True, {}).get("attributes", {})
    return Imported(report, lines[-1], "", declared[False]["attributes"], stores)


def parse_line(words: Sequence[str]) -> dict[str, Any]:
    """Read a `dg launch` line as `dg` does."""
    assert list(words[:2]) == ["dg", "launch"], words
    return launch_command.make_context("launch", list(words[2:])).params


_JOB = re.compile(r"###\s+(Migrate|Validate|Guardrail Check) Job - (Starting|Stopped)\s+###")
_FINAL = re.compile(r"^Final (.+) Record Count: ([0-9]+)$", re.MULTILINE)


def _told(project: Project, result: RunResult) -> Launched:
    messages = project.messages_of(result.run_id)
    marks = list(_JOB.finditer(messages))
    blocks = {
        began[1]: messages[began.end() : ended.start()]
        for began, ended in itertools.pairwise(marks)
        if (began[2], ended[2]) == ("Starting", "Stopped")
    }
    return Launched(
        exit=0 if result.success else 1,
        counts={job: _counts(block) for job, block in blocks.items()},
        messages=messages,
        metadata=[
            {name: value.value for name, value in event.materialization.metadata.items()}
            for event in result.events
            if event.is_step_materialization
        ],
    )


def _counts(block: str) -> str:
    """Give the numbers of a job's last lines, without the zeros."""
    found = [(name, int(number)) for name, number in _FINAL.findall(block)]
    return "; ".join(f"{name}: {number}" for name, number in found if number)


def fill(text: str, names: Mapping[str, str]) -> str:
    """Put tables and values where they stand in braces; other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), text)


def holds(found: Any, expected: Any) -> bool:
    """Say whether a value is another one, of mappings whether it holds what the other does."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return all(name in found and holds(found[name], expected[name]) for name in expected)
    return found == expected


# -- rows ----------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Give a value as YAML has it: times as text, bytes as 0x, sets as sorted lists."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple) or type(value).__name__ == "OrderedMapSerializedKey":
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset) or type(value).__name__ == "SortedSet":
        return sorted((plain(item) for item in value), key=repr)
    return str(value)


def is_as_expected(expected: Any, found: Any) -> bool:
    """Compare values; `about N` is within 300 of N, `now` is a writetime of the last minutes."""
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(expected) == len(found)
            and all(is_as_expected(one, other) for one, other in zip(expected, found, strict=True))
        )
    if isinstance(expected, str) and expected.startswith("about "):
        return isinstance(found, int) and abs(found - int(expected[6:])) <= _FEW_SECONDS
    if expected == "now":
        return isinstance(found, int) and abs(found / 1e6 - time.time()) <= _FEW_SECONDS
    if isinstance(expected, date | datetime | timedelta):
        return str(expected) == str(found)
    return expected == found
