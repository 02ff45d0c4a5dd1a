"""Measures what following an origin costs: keys that messages tell, and rounds of comparisons.

    python -m benchmarks.sync --rows 100000 --keys 20000 --runs 3

Enrolments of 19 columns are copied from one Cassandra table to another, on servers of the
benchmark's own. Then some of them change, their keys are told to a topic, and the time until the
target has them is measured; and rounds are measured beside a plain comparison. The first run is a
warm-up and does not count. Writes a page of its own.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from cassandra.concurrent import execute_concurrent_with_args
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.bench import machine
from benchmarks.measuring import (
    Family,
    Measured,
    Results,
    ratio,
    say,
    spend,
    wait_until_idle,
)
from benchmarks.report import command_line, lay_table, show_figure
from migration_platform.comparing.diff import diff_ranges
from migration_platform.copying.copy import CopyRange
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.declaration.sync import KafkaChanges, ScanRounds, Sync
from migration_platform.demo import sample
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.kafka import Kafka
from migration_platform.local.ports import LOCALHOST
from migration_platform.local.stack import home_folder, jars_cache, running
from migration_platform.plan.model import Plan
from migration_platform.runs.events import KafkaSettings
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.kinds import plan_between
from migration_platform.stores.work import Failed
from migration_platform.syncing.changes import ChangeSource
from migration_platform.syncing.follow import Followed, Limits, follow
from migration_platform.syncing.kafka_changes import open_kafka_changes
from migration_platform.syncing.position import Position
from migration_platform.syncing.rows import to_sync_plan

PAGE = "benchmarks-sync.md"
KEYSPACE, TOPIC = "benchmark", "benchmark.changes"
ORIGIN, TARGET = TableName(KEYSPACE, sample.ORIGIN_TABLE), TableName(KEYSPACE, "followed")
RANGES, WORKERS, PARTITIONS = 64, 2, 4
CHANGED_SHARE = 0.01
KEY = ("userid", "courseid", "batchid")
CONDITION = " AND ".join(f"{name} = ?" for name in KEY)
UNCHANGED, CHANGED, DELETED = "keys, rows unchanged", "keys, rows changed", "keys, rows deleted"
COMPARISON = "a comparison of values"
ROUND, ROUND_TIMES = "a round, values alone", "a round, values and times"
ROUND_CHANGED = "a round, values and times, 1 % changed"
AIMED_KEYS = 5_000


@dataclass
class Bench:
    """What the measured works share."""

    connection: Connection
    settings: CassandraSettings
    kafka: str
    cassandra: psutil.Process
    client: Family
    keys: Sequence[tuple[str, ...]]
    chance: random.Random
    position: Position = field(default_factory=Position)

    def plan(self, *, times: bool = True) -> Plan:
        """Plan what follows, with or without a look at times."""
        sync = Sync(kafka=KafkaChanges("kafka", TOPIC), scan=ScanRounds(), compare_times=times)
        migration = Migration(
            Endpoint("a", ORIGIN), Endpoint("b", TARGET), token_ranges=RANGES, tracking=False,
            sync=sync,
        )  # fmt: skip
        return plan_between(migration, self.connection, self.connection)

    def pool(self, plan: Plan) -> WorkerPool:
        """Start workers."""
        return WorkerPool(plan, self.settings, self.settings, workers=WORKERS)

    def measure(self, rows: int, work: Callable[[], object]) -> Measured:
        """Do a work once, when the server is idle."""
        wait_until_idle(self.cassandra)
        return Measured(spend(rows, self.client, self.cassandra, work))

    def change(self, statement: str, values: Callable[[tuple[str, ...]], Sequence[Any]],
               keys: Sequence[tuple[str, ...]]) -> None:  # fmt: skip
        """Change rows at the origin, many at once."""
        prepared = self.connection.prepare(statement.format(ORIGIN))
        bound = [values(key) for key in keys]
        execute_concurrent_with_args(
            self.connection.session, prepared, bound, concurrency=64, raise_on_first_error=True
        )

    def tell(self, keys: Sequence[tuple[str, ...]]) -> None:
        """Tell keys to the topic."""
        producer = Producer({"bootstrap.servers": self.kafka, "linger.ms": 20})
        for number, key in enumerate(keys):
            message = json.dumps(dict(zip(KEY, key, strict=True))).encode()
            producer.produce(TOPIC, message, partition=number % PARTITIONS)
            producer.poll(0)
        producer.flush(60)


def copy_all(bench: Bench) -> None:
    """Copy the table.

    Raises:
        SystemExit: a range failed.
    """
    plan = bench.plan()
    with bench.pool(plan) as pool:
        for event in pool.run([CopyRange(each) for each in plan.migration.ranges]):
            if isinstance(event, Failed):
                raise SystemExit(event.reason)


def measure_keys(bench: Bench, count: int) -> dict[str, Measured]:
    """Measure keys of rows that are the same, that changed, and that are gone."""
    found: dict[str, Measured] = {}
    plan = to_sync_plan(bench.plan())
    kafka = KafkaChanges("kafka", TOPIC)
    with (
        open_kafka_changes(KafkaSettings(bench.kafka), kafka, plan.origin) as source,
        bench.pool(plan) as pool,
    ):
        chosen = bench.chance.sample(bench.keys, count + 1_000)
        first, chosen = chosen[:1_000], chosen[1_000:]
        # Workers connect and prepare with the first keys.
        bench.tell(first)
        _follow(bench, pool, plan, source)
        bench.tell(chosen)
        found[UNCHANGED] = bench.measure(
            count, lambda: _follow(bench, pool, plan, source, unchanged=count)
        )
        number = bench.chance.getrandbits(30)
        bench.change(
            f"UPDATE {{}} SET progress = ?, lastreadcontentid = ? WHERE {CONDITION}",
            lambda key: [number, str(number), *key],
            chosen,
        )
        bench.tell(chosen)
        found[CHANGED] = bench.measure(
            count, lambda: _follow(bench, pool, plan, source, written=count)
        )
        gone = chosen[: count // 2]
        bench.change(f"DELETE FROM {{}} WHERE {CONDITION}", list, gone)
        bench.tell(gone)
        found[DELETED] = bench.measure(
            len(gone), lambda: _follow(bench, pool, plan, source, deleted=len(gone))
        )
        bench.change(
            f"UPDATE {{}} SET progress = ?, status = ? WHERE {CONDITION}",
            lambda key: [number, 1, *key],
            gone,
        )
        bench.tell(gone)
        _follow(bench, pool, plan, source, written=len(gone))
    return found


def _follow(
    bench: Bench, pool: WorkerPool, plan: Plan, source: ChangeSource, **expected: int
) -> None:
    """Follow all that was told; what was done has to be what is expected."""
    told: list[Followed] = []
    limits = Limits(ranges=0, up_to=source.now())
    bench.position = follow(pool, plan, source, bench.position, limits, told.append)
    for name, count in expected.items():
        done = sum(getattr(each.counts, name) for each in told)
        if done != count:
            raise SystemExit(f"{done:,} rows were {name}, and not {count:,}")


def measure_rounds(bench: Bench) -> dict[str, Measured]:
    """Measure rounds beside a comparison of values."""
    rows, found = len(bench.keys), {}
    everything = Position().with_open(range(RANGES))
    limits = Limits(ranges=RANGES)
    for name, times in ((COMPARISON, False), (ROUND, False), (ROUND_TIMES, True)):
        plan = to_sync_plan(bench.plan(times=times))
        with bench.pool(plan) as pool:
            ranges = plan.migration.ranges
            list(diff_ranges(pool, plan, ranges[:4]))
            if name == COMPARISON:
                work: Callable[[], object] = lambda: list(diff_ranges(pool, plan, ranges))  # noqa: E731, B023
            else:
                work = lambda: follow(pool, plan, None, everything, limits, lambda _: None)  # noqa: E731, B023
            found[name] = bench.measure(rows, work)
            if name != ROUND_TIMES:
                continue
            changed = bench.chance.sample(bench.keys, round(rows * CHANGED_SHARE))
            number = bench.chance.getrandbits(30)
            bench.change(
                f"UPDATE {{}} SET progress = ? WHERE {CONDITION}",
                lambda key: [number, *key],  # noqa: B023
                changed,
            )
            found[ROUND_CHANGED] = bench.measure(rows, work)
    return found


# -- the page ------------------------------------------------------------------------------------


def make_page(results: Results, facts: Mapping[str, str], options: argparse.Namespace) -> str:
    """Write the figures in Markdown."""
    head = ("", "a second", "client CPU, µs each", "Cassandra's CPU, µs each")
    body = [
        (
            name,
            show_figure(runs, "rows_per_second"),
            show_figure(runs, "client_us"),
            show_figure(runs, "server_us"),
        )
        for name, runs in results.items()
    ]
    beside = [
        (name, *(f"{ratio(results[name], results[COMPARISON], figure):.2f} times" for figure in
                 ("client_us", "server_us")))
        for name in (ROUND, ROUND_TIMES, ROUND_CHANGED)
    ]  # fmt: skip
    least = min(
        (run.rows_per_second for name in (UNCHANGED, CHANGED, DELETED) for run in results[name]),
        default=0.0,
    )
    return "\n".join(
        [
            "# Following an origin",
            "",
            "What a [synchronisation](synchronisation.md) costs. This page is written by "
            f"`{command_line('sync')}`.",
            "",
            f"{options.rows:,} enrolments of 19 columns and about 500 bytes, both tables in one "
            f"Cassandra; {options.keys:,} keys of single rows are told as JSON, in no order, to a "
            f"topic of {PARTITIONS} partitions. {facts['cores']}, {facts['memory']}; servers and "
            f"client share it. {WORKERS} workers. Each figure is the median (minimum to maximum) "
            f"of {options.runs} runs after a warm-up.",
            "",
            lay_table([head, *body]),
            "",
            f"The aim is {AIMED_KEYS:,} keys a second; the slowest run had {least:,.0f}"
            + (", **missed**." if least < AIMED_KEYS else "."),
            "",
            "A key is read from a message, its row is read on both sides and compared with its "
            "times, then written or deleted. In a round each row counts, whatever becomes of it.",
            "",
            "Rounds beside a comparison, run by run:",
            "",
            lay_table([("", "client CPU", "Cassandra's CPU"), *beside]),
            "",
            "## How to repeat it",
            "",
            "```",
            command_line("sync"),
            "```",
            "",
        ]
    )


def main() -> None:
    """Run the benchmark and write its page."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.sync", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3, help="counted runs after one warm-up")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    options = parser.parse_args()
    if options.keys < 100 or options.rows < options.keys + 1_000 or options.runs < 1:
        parser.error("100 keys, 1,000 rows more than keys, and a run are needed")
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="bench-sync-") as folder, ExitStack() as stack:
        bench = _prepare(stack, Path(folder), options)
        for run in range(options.runs + 1):
            for name, done in (measure_keys(bench, options.keys) | measure_rounds(bench)).items():
                say(
                    f"{f'run {run}' if run else 'warm-up'}: {name}: {done.rows_per_second:,.0f}/s, "
                    f"{done.client_us:,.1f} and {done.server_us:,.1f} µs"
                )
                if run:
                    results.setdefault(name, []).append(done)
    page = options.docs / PAGE
    page.write_text(make_page(results, machine(), options))
    say(f"{page} is written")


def _prepare(stack: ExitStack, home: Path, options: argparse.Namespace) -> Bench:
    """Start the servers, fill the origin, copy it, and make the topic."""
    cache = jars_cache(home_folder())
    servers = [
        stack.enter_context(running(server, home=home, jars_folder=cache))
        for server in (Cassandra(), Kafka())
    ]
    settings, kafka = CassandraSettings(port=servers[0].port), f"{LOCALHOST}:{servers[1].port}"
    connection = stack.enter_context(Connection(settings))
    say(f"filling {options.rows:,} rows")
    sample.create_tables(connection, KEYSPACE)
    sample.fill_origin(connection, options.rows, keyspace=KEYSPACE)
    columns = ", ".join(f"{name} {cql_type}" for name, cql_type in sample.COLUMNS)
    connection.session.execute(f"CREATE TABLE {TARGET} ({columns}, PRIMARY KEY ({', '.join(KEY)}))")
    admin = AdminClient({"bootstrap.servers": kafka})
    for found in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
        found.result(60)
    processes = [psutil.Process(server.pid) for server in servers]
    keys = [tuple(row[name] for name in KEY) for row in sample.enrolments(options.rows)]
    bench = Bench(
        connection, settings, kafka, processes[0],
        Family(psutil.Process(), without=processes), keys, random.Random(1),
    )  # fmt: skip
    copy_all(bench)
    return bench


if __name__ == "__main__":
    main()
