"""The demo: real servers, sample rows, migrations through Dagster, and what came of them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from migration_platform import sample
from migration_platform.errors import MigrationError
from migration_platform.events import KafkaSettings, read_metric_event
from migration_platform.local.servers import (
    LOCALHOST,
    Cassandra,
    DynamoDb,
    Kafka,
    Server,
    open_dynamodb,
)
from migration_platform.local.stack import home_folder, start_all
from migration_platform.stores.cassandra import CassandraSettings, Connection

RANGES = ("00-of-64", "63-of-64")
Echo = Callable[[str], None]
LOCAL_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
"""DynamoDB Local takes any credentials, but a request must carry some."""


@dataclass(frozen=True)
class Job:
    """One migration of the demo. `asset` is the target's, `topic` that of its metric events."""

    keyspace: str
    table: str
    asset: str
    servers: tuple[type[Server], ...]
    topic: str | None = None

    @property
    def origin(self) -> str:
        """The table that is filled and read."""
        return f"{self.keyspace}.{self.table}"


JOBS: Mapping[str, Job] = {
    "enrolments": Job(
        sample.KEYSPACE,
        sample.ORIGIN_TABLE,
        f"reports/{sample.KEYSPACE}/{sample.TARGET_TABLE}",
        (Cassandra, Kafka),
        topic="demo.prom.monitoring.metrics",
    ),
    "users": Job(
        sample.USERS_KEYSPACE, sample.USERS_TABLE, "dynamodb/UsersTable", (Cassandra, DynamoDb)
    ),
}


@dataclass(frozen=True)
class _Filled:
    """What an origin table was filled with; a table made anew has another id."""

    rows: int
    seed: int
    table_id: str


def run_demo(*, rows: Mapping[str, int], seed: int, home: Path | None, echo: Echo) -> bool:
    """Run jobs with so many rows each; says whether all ranges were copied and all checks passed.

    Raises:
        MigrationError, LocalStackError: something could not begin; one sentence.
    """
    folder = home_folder(home)
    kinds = dict.fromkeys(kind for name in rows for kind in JOBS[name].servers)
    steps = 1 + 2 * len(rows)
    echo(f"1/{steps}  Starting {', '.join(kind.name for kind in kinds)}")
    started = start_all([kind() for kind in kinds], home=folder, report=echo)
    ports = {server.name: server.port for server in started}
    succeeded = True
    for number, (name, count) in enumerate(rows.items()):
        job = JOBS[name]
        echo(f"{2 * number + 2}/{steps}  Filling {job.origin}")
        _fill(name, ports, _Filled(count, seed, ""), folder, echo)
        echo(f"{2 * number + 3}/{steps}  Migrating it to {job.asset} through Dagster")
        succeeded = _migrate(name, ports, folder, echo) and succeeded
    echo("  Look at it:  make ui      then")
    for name in rows:
        echo(f"               http://127.0.0.1:3000/assets/{JOBS[name].asset}")
    echo("  End it:      make stop")
    return succeeded


def _migrate(name: str, ports: Mapping[str, int], folder: Path, echo: Echo) -> bool:
    job, instance, log = JOBS[name], prepare_instance(folder), folder / f"demo-{name}.log"
    # Nobody's own credentials sign requests to DynamoDB Local, nor stop them by having expired.
    own = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
    environment = {key: value for key, value in os.environ.items() if key not in own}
    environment |= LOCAL_CREDENTIALS | {"DAGSTER_HOME": str(instance)}
    environment |= {
        f"MIGRATION_PLATFORM_{server.upper()}_PORT": str(port) for server, port in ports.items()
    }
    started = time.time()
    succeeded = _launch(job, environment, log, echo)
    kafka = KafkaSettings(f"{LOCALHOST}:{ports['kafka']}") if job.topic else None
    _summarise(job, instance, kafka, started, log, echo)
    return succeeded


def prepare_instance(folder: Path) -> Path:
    """Give the folder of the demo's Dagster instance, made on first use.

    Raises:
        MigrationError: this is no clone of the project, so there are no settings to start from.
    """
    instance = Path(os.environ.get("DAGSTER_HOME") or folder / "dagster").absolute()
    settings = instance / "dagster.yaml"
    if not settings.exists():
        template = Path(__file__).parent.parent / "deploy" / "local" / "dagster.yaml"
        if not template.exists():
            raise MigrationError(
                f"there is no {settings}; run the demo from a clone of the project, or put a "
                "dagster.yaml there"
            )
        instance.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, settings)
    return instance


def _fill(name: str, ports: Mapping[str, int], wanted: _Filled, folder: Path, echo: Echo) -> None:
    """Fill a job's origin unless it is as wanted already; its target then begins anew, too."""
    job, note = JOBS[name], folder / f"demo-{name}.json"
    with Connection(CassandraSettings(port=ports["cassandra"])) as connection:
        found = _Filled(wanted.rows, wanted.seed, _table_id(connection, job))
        if note.exists() and json.loads(note.read_text()) == asdict(found):
            echo(f"     {wanted.rows:,} {name} are there already")
            return
        note.unlink(missing_ok=True)
        connection.session.execute(f"DROP TABLE IF EXISTS {job.origin}")
        if name == "users":
            _drop_dynamodb_table(ports["dynamodb"], job.asset.split("/")[-1])
            sample.create_users(connection)
            fill = sample.fill_users
        else:
            connection.session.execute(f"DROP TABLE IF EXISTS {job.keyspace}.{sample.TARGET_TABLE}")
            sample.create_tables(connection)
            fill = sample.fill_origin
        with progress(wanted.rows, "rows") as bar:
            seconds = fill(connection, wanted.rows, seed=wanted.seed, on_progress=bar.update)
        filled = _Filled(wanted.rows, wanted.seed, _table_id(connection, job))
    note.write_text(json.dumps(asdict(filled)))
    echo(f"     {wanted.rows:,} {name} in {seconds:.0f} s")


def _drop_dynamodb_table(port: int, table: str) -> None:
    client = open_dynamodb(port)
    try:
        client.delete_table(TableName=table)
    except client.exceptions.ResourceNotFoundException:
        pass
    finally:
        client.close()


def _table_id(connection: Connection, job: Job) -> str:
    row = connection.session.execute(
        "SELECT id FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s",
        (job.keyspace, job.table),
    ).one()
    return str(row[0]) if row else ""


def progress(total: int, unit: str) -> tqdm:
    """Make a progress bar on a terminal, and a plain line every ten seconds elsewhere."""
    if sys.stderr.isatty():
        return tqdm(total=total, unit=f" {unit}", leave=False, dynamic_ncols=True)
    # A bar that ends in a line break never overwrites, and so leaves nothing to clear.
    line = "     {n_fmt} of {total_fmt} {unit}\n"
    return tqdm(total=total, unit=unit, bar_format=line, mininterval=10.0, delay=5.0)


def _launch(job: Job, environment: dict[str, str], log: Path, echo: Echo) -> bool:
    """Materialize all ranges of the target and of its diff, in a process of its own."""
    command = [
        *(sys.executable, "-m", "dagster", "asset", "materialize"),
        *("--module-name", "migration_platform.definitions"),
        *("--select", f'key:"{job.asset}" or key:"{job.asset}_diff"'),
        *("--partition-range", "...".join(RANGES)),
    ]
    steps = {"copied": r"\((\d+) of (\d+) ranges\)", "compared": r"(\d+) of (\d+) scans done"}
    with (
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        log.open("w") as file,
        ExitStack() as bars,
    ):
        assert process.stdout is not None
        bar: dict[str, tqdm] = {}
        for line in process.stdout:
            file.write(line)
            for step, pattern in steps.items():
                if found := re.search(pattern, line):
                    if step not in bar:
                        bars.close()
                        unit = "ranges copied" if step == "copied" else "scans compared"
                        bar[step] = bars.enter_context(progress(int(found[2]), unit))
                    bar[step].update(int(found[1]) - bar[step].n)
            if " - ERROR - " in line:
                tqdm.write(f"     {line.rsplit(' - ', 1)[-1].strip()}", file=sys.stderr)
    if process.returncode:
        echo(f"     The run failed; its whole log: {log}")
    return process.returncode == 0


def _summarise(
    job: Job, folder: Path, kafka: KafkaSettings | None, started: float, log: Path, echo: Echo
) -> None:
    from datetime import UTC, datetime

    import dagster as dg
    from dagster import DagsterInstance, RunsFilter

    with DagsterInstance.from_config(str(folder)) as instance:
        since = datetime.fromtimestamp(started, UTC)
        runs = instance.get_run_records(RunsFilter(created_after=since), limit=1)
        if not runs:
            raise MigrationError(f"Dagster began no run; the reason stands in {log}")
        run = runs[0].dagster_run
        events = instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ).records
        table = _table_metadata(instance, job, started)
    lines = [("run", f"{run.status.value}, {run.run_id}")]
    if (begun := runs[0].start_time) and (ended := runs[0].end_time):
        lines.append(("time", f"{ended - begun:.0f} s, comparison included"))
    if table:
        lines.append(("rows", f"{table.get('dagster/row_count', 0):,} in the target"))
        if "rows_per_second" in table:
            lines.append(
                ("speed", f"{table['rows_per_second']:,.0f} rows a second, start included")
            )
    for entry in events:
        evaluation: Any = entry.event_log_entry.dagster_event
        check = evaluation.event_specific_data
        mark = "passed" if check.passed else "FAILED"
        lines.append((f"check {check.check_name}", f"{mark}: {check.description}"))
    if kafka and job.topic:
        event = read_metric_event(kafka, job.topic, run.run_id)
        said = json.dumps(event) if event else f"none on the topic {job.topic}"
        lines.append(("metric event", said))
    width = max(len(name) for name, _ in lines)
    echo("")
    for name, value in lines:
        echo(f"  {name:<{width}}  {value}")
    echo("")


def _table_metadata(instance: Any, job: Job, started: float) -> dict[str, Any]:
    """Give what the run reported of the whole table; empty if a range failed."""
    import dagster as dg

    entry = instance.get_latest_materialization_event(dg.AssetKey(job.asset.split("/")))
    seen = entry.asset_materialization if entry and entry.timestamp >= started else None
    if seen is None or seen.partition is not None:
        return {}
    return {name: value.value for name, value in seen.metadata.items()}
