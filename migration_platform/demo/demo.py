"""The demo: real servers, sample rows, migrations through Dagster, and what came of them."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from migration_platform.demo import sample, sample_customers
from migration_platform.demo.customers import ask_postgres, drop_postgres_table
from migration_platform.demo.runs import (
    BARS,
    RANGES,
    Echo,
    Ended,
    Run,
    Stage,
    launch,
    lay_lines,
    prepare_instance,
    progress,
    tell_checks,
    tell_run,
)
from migration_platform.demo.sync import SyncJob
from migration_platform.demo.tenant import TenantJob
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.dynamodb import DynamoDb, open_dynamodb
from migration_platform.local.kafka import Kafka
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.postgres import Postgres
from migration_platform.local.server import Server
from migration_platform.local.stack import home_folder, start_all
from migration_platform.runs.events import KafkaSettings, read_metric_event
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection


class Job(Protocol):
    """A job of the demo."""

    @property
    def servers(self) -> tuple[type[Server], ...]:
        """What must run."""
        ...

    @property
    def title(self) -> str:
        """What is filled."""
        ...

    @property
    def goal(self) -> str:
        """What becomes of it."""
        ...

    @property
    def pages(self) -> tuple[str, ...]:
        """Pages of the UI to look at."""
        ...

    def fill(self, stage: Stage) -> None:
        """Make the sample data."""
        ...

    def run(self, stage: Stage) -> bool:
        """Move it, prove it and tell; says whether all went well."""
        ...


@dataclass(frozen=True)
class TableJob:
    """A table that is copied.

    Attributes:
        asset: The target's.
        create: Makes the tables where they are missing; `drop_target` drops the target.
        write: Fills the origin.
        topic: Where its metric event goes.
        ask: Asks the target's own server something; gives lines to show.
    """

    servers: tuple[type[Server], ...]
    keyspace: str
    table: str
    asset: str
    create: Callable[[Connection], None]
    drop_target: Callable[[Connection, Stage], None]
    write: Callable[..., float]
    topic: str | None = None
    ask: Callable[[Stage], Iterable[str]] | None = None

    @property
    def title(self) -> str:
        """The table that is filled and read."""
        return f"{self.keyspace}.{self.table}"

    @property
    def goal(self) -> str:
        """Where it goes."""
        return f"Migrating it to {self.asset} through Dagster"

    @property
    def pages(self) -> tuple[str, ...]:
        """The target's page."""
        return (f"assets/{self.asset}",)

    def fill(self, stage: Stage) -> None:
        """Fill the origin unless it is as wanted already; the target then begins anew, too."""
        note = stage.home / f"demo-{stage.job}.json"
        with Connection(CassandraSettings(port=stage.ports["cassandra"])) as connection:
            if note.exists() and json.loads(note.read_text()) == self._filled(connection, stage):
                stage.echo(f"     {stage.count:,} {stage.job} are there already")
                return
            note.unlink(missing_ok=True)
            connection.session.execute(f"DROP TABLE IF EXISTS {self.title}")
            self.drop_target(connection, stage)
            self.create(connection)
            with progress(stage.count, "rows") as bar:
                seconds = self.write(
                    connection, stage.count, seed=stage.seed, on_progress=bar.update
                )
            note.write_text(json.dumps(self._filled(connection, stage)))
        stage.echo(f"     {stage.count:,} {stage.job} in {seconds:.0f} s")

    def _filled(self, connection: Connection, stage: Stage) -> dict[str, Any]:
        """Say what the origin is filled with; a table made anew has another id."""
        row = connection.session.execute(
            "SELECT id FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s",
            (self.keyspace, self.table),
        ).one()
        return {"rows": stage.count, "seed": stage.seed, "table_id": str(row[0]) if row else ""}

    def run(self, stage: Stage) -> bool:
        """Copy all ranges and compare them."""
        began = time.time()
        run = Run((self.asset, f"{self.asset}_diff"), RANGES, bars=BARS)
        (ended,) = launch(stage, [run])
        self._summarise(stage, ended, began)
        if ended.succeeded and self.ask:
            for line in self.ask(stage):
                stage.echo(f"  {line}".rstrip())
            stage.echo("")
        return ended.succeeded

    def _summarise(self, stage: Stage, ended: Ended, began: float) -> None:
        import dagster as dg

        with dg.DagsterInstance.from_config(str(prepare_instance(stage.home))) as instance:
            table = _table_metadata(instance, self.asset, began)
        lines = [tell_run(ended), ("time", f"{ended.seconds:.0f} s, comparison included")]
        if table:
            lines.append(("rows", f"{table.get('dagster/row_count', 0):,} written to the target"))
            if "rows_per_second" in table:
                lines.append(
                    ("speed", f"{table['rows_per_second']:,.0f} rows a second, start included")
                )
        lines += tell_checks(ended.checks)
        if self.topic:
            kafka = KafkaSettings(f"{LOCALHOST}:{stage.ports['kafka']}")
            event = read_metric_event(kafka, self.topic, ended.run_id)
            said = json.dumps(event) if event else f"none on the topic {self.topic}"
            lines.append(("metric event", said))
        lay_lines(stage, lines)


def _table_metadata(instance: Any, asset: str, started: float) -> dict[str, Any]:
    """Give what the run reported of the whole table; empty if a range failed."""
    import dagster as dg

    entry = instance.get_latest_materialization_event(dg.AssetKey(asset.split("/")))
    seen = entry.asset_materialization if entry and entry.timestamp >= started else None
    if seen is None or seen.partition is not None:
        return {}
    return {name: value.value for name, value in seen.metadata.items()}


def _drop_report_table(connection: Connection, stage: Stage) -> None:
    del stage
    connection.session.execute(f"DROP TABLE IF EXISTS {sample.KEYSPACE}.{sample.TARGET_TABLE}")


def _drop_dynamodb_table(connection: Connection, stage: Stage) -> None:
    del connection
    client = open_dynamodb(stage.ports["dynamodb"])
    try:
        client.delete_table(TableName="UsersTable")
    except client.exceptions.ResourceNotFoundException:
        pass
    finally:
        client.close()


JOBS: Mapping[str, Job] = {
    "enrolments": TableJob(
        (Cassandra, Kafka),
        sample.KEYSPACE,
        sample.ORIGIN_TABLE,
        f"reports/{sample.KEYSPACE}/{sample.TARGET_TABLE}",
        sample.create_tables,
        _drop_report_table,
        sample.fill_origin,
        topic="demo.prom.monitoring.metrics",
    ),
    "users": TableJob(
        (Cassandra, DynamoDb),
        sample.USERS_KEYSPACE,
        sample.USERS_TABLE,
        "dynamodb/UsersTable",
        sample.create_users,
        _drop_dynamodb_table,
        sample.fill_users,
    ),
    "customers": TableJob(
        (Cassandra, Postgres),
        sample_customers.KEYSPACE,
        sample_customers.TABLE,
        f"postgres/{sample_customers.KEYSPACE}/{sample_customers.TABLE}",
        sample_customers.create_tables,
        drop_postgres_table,
        sample_customers.fill_customers,
        ask=ask_postgres,
    ),
    "tenant": TenantJob(),
    "sync": SyncJob(),
}


def fill_sample(name: str, *, count: int, seed: int, home: Path | None, echo: Echo) -> None:
    """Start what a job needs and fill its tables, and move nothing.

    Raises:
        MigrationError, LocalStackError: something could not begin; one sentence.
    """
    folder, job = home_folder(home), JOBS[name]
    started = start_all([kind() for kind in job.servers], home=folder, report=echo)
    ports = {server.name: server.port for server in started}
    echo(f"Filling {job.title}")
    job.fill(Stage(name, count, seed, ports, folder, echo))


def run_demo(*, counts: Mapping[str, int], seed: int, home: Path | None, echo: Echo) -> bool:
    """Run jobs with so many rows or users each; says whether all was moved and passed its checks.

    Raises:
        MigrationError, LocalStackError: something could not begin; one sentence.
    """
    folder = home_folder(home)
    kinds = dict.fromkeys(kind for name in counts for kind in JOBS[name].servers)
    steps = 1 + 2 * len(counts)
    echo(f"1/{steps}  Starting {', '.join(kind.name for kind in kinds)}")
    started = start_all([kind() for kind in kinds], home=folder, report=echo)
    ports = {server.name: server.port for server in started}
    succeeded = True
    for number, (name, count) in enumerate(counts.items()):
        job, stage = JOBS[name], Stage(name, count, seed, ports, folder, echo)
        echo(f"{2 * number + 2}/{steps}  Filling {job.title}")
        job.fill(stage)
        echo(f"{2 * number + 3}/{steps}  {job.goal}")
        succeeded = job.run(stage) and succeeded
    echo("  Look at it:  make ui      then")
    for name in counts:
        for page in JOBS[name].pages:
            echo(f"               http://127.0.0.1:3000/{page}")
    echo("  End it:      make stop")
    return succeeded
