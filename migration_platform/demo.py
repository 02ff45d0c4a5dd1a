"""The demo: real servers, sample enrolments, one migration through Dagster, and what came of it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from migration_platform import sample
from migration_platform.errors import MigrationError
from migration_platform.events import KafkaSettings, read_metric_event
from migration_platform.local.servers import Cassandra, Kafka
from migration_platform.local.stack import home_folder, start_all
from migration_platform.stores.cassandra import CassandraSettings, Connection

ASSET = f"reports/{sample.KEYSPACE}/{sample.TARGET_TABLE}"
RANGES = ("00-of-64", "63-of-64")
TOPIC = "demo.prom.monitoring.metrics"
Echo = Callable[[str], None]


@dataclass(frozen=True)
class _Filled:
    """What the origin table was filled with; a table made anew has another id."""

    enrolments: int
    seed: int
    table_id: str


def run_demo(*, enrolments: int, seed: int, home: Path | None, echo: Echo) -> bool:
    """Run the whole demo; says whether every range was copied and every check passed.

    Raises:
        MigrationError, LocalStackError: something could not begin; one sentence.
    """
    folder = home_folder(home)
    echo("1/4  Starting Cassandra and Kafka")
    servers = {s.name: s for s in start_all([Cassandra(), Kafka()], home=folder, report=echo)}
    cassandra = CassandraSettings(port=servers["cassandra"].port)
    kafka = KafkaSettings(f"127.0.0.1:{servers['kafka'].port}")
    echo(f"2/4  Filling {sample.KEYSPACE}.{sample.ORIGIN_TABLE}")
    _fill(cassandra, _Filled(enrolments, seed, ""), folder, echo)
    echo("3/4  Migrating through Dagster")
    instance_folder = prepare_instance(folder)
    log = folder / "demo.log"
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(instance_folder),
        "MIGRATION_PLATFORM_CASSANDRA_PORT": str(cassandra.port),
        "MIGRATION_PLATFORM_KAFKA_PORT": str(servers["kafka"].port),
    }
    started = time.time()
    succeeded = _launch(environment, log, echo)
    echo("4/4  Reading back what the run left behind")
    _summarise(instance_folder, kafka, started, log, echo)
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


def _fill(settings: CassandraSettings, wanted: _Filled, folder: Path, echo: Echo) -> None:
    note = folder / "demo.json"
    with Connection(settings) as connection:
        found = _Filled(wanted.enrolments, wanted.seed, _table_id(connection))
        if note.exists() and json.loads(note.read_text()) == asdict(found):
            echo(f"     {wanted.enrolments:,} enrolments are there already")
            return
        note.unlink(missing_ok=True)
        for table in (sample.ORIGIN_TABLE, sample.TARGET_TABLE):
            connection.session.execute(f"DROP TABLE IF EXISTS {sample.KEYSPACE}.{table}")
        sample.create_tables(connection)
        with progress(wanted.enrolments, "rows") as bar:
            seconds = sample.fill_origin(
                connection, wanted.enrolments, seed=wanted.seed, on_progress=bar.update
            )
        filled = _Filled(wanted.enrolments, wanted.seed, _table_id(connection))
    note.write_text(json.dumps(asdict(filled)))
    echo(f"     {wanted.enrolments:,} enrolments in {seconds:.0f} s")


def _table_id(connection: Connection) -> str:
    row = connection.session.execute(
        "SELECT id FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s",
        (sample.KEYSPACE, sample.ORIGIN_TABLE),
    ).one()
    return str(row[0]) if row else ""


def progress(total: int, unit: str) -> tqdm:
    """Make a progress bar on a terminal, and a plain line every ten seconds elsewhere."""
    if sys.stderr.isatty():
        return tqdm(total=total, unit=f" {unit}", leave=False, dynamic_ncols=True)
    # A bar that ends in a line break never overwrites, and so leaves nothing to clear.
    line = "     {n_fmt} of {total_fmt} {unit}\n"
    return tqdm(total=total, unit=unit, bar_format=line, mininterval=10.0, delay=5.0)


def _launch(environment: dict[str, str], log: Path, echo: Echo) -> bool:
    """Materialize all ranges of the target and of its diff, in a process of its own."""
    command = [
        *(sys.executable, "-m", "dagster", "asset", "materialize"),
        *("--module-name", "migration_platform.definitions"),
        *("--select", f'key:"{ASSET}" or key:"{ASSET}_diff"'),
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


def _summarise(folder: Path, kafka: KafkaSettings, started: float, log: Path, echo: Echo) -> None:
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
        table = _table_metadata(instance, started)
    event = read_metric_event(kafka, TOPIC, run.run_id)
    lines = [("run", f"{run.status.value}, {run.run_id}")]
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
    lines.append(("metric event", json.dumps(event) if event else f"none on the topic {TOPIC}"))
    width = max(len(name) for name, _ in lines)
    echo("")
    for name, value in lines:
        echo(f"  {name:<{width}}  {value}")
    echo("")
    echo("  Look at it:  make ui      then http://127.0.0.1:3000/assets/" + ASSET)
    echo("  End it:      make stop")


def _table_metadata(instance: Any, started: float) -> dict[str, Any]:
    """Give what the run reported of the whole table; empty if a range failed."""
    import dagster as dg

    entry = instance.get_latest_materialization_event(dg.AssetKey(ASSET.split("/")))
    seen = entry.asset_materialization if entry and entry.timestamp >= started else None
    if seen is None or seen.partition is not None:
        return {}
    return {name: value.value for name, value in seen.metadata.items()}
