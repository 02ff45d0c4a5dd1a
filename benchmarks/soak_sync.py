"""One synchronisation of the soak, in a process that may be killed at any moment.

    python -m benchmarks.soak_sync messages FOLDER CASSANDRA_PORT KAFKA_PORT

It begins at the position that it told last. That stands in a file, as it stands in Dagster's event
log elsewhere.
"""

import argparse
import json
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.declaration.sync import KafkaChanges, ScanRounds, Sync
from migration_platform.errors import MigrationError
from migration_platform.local.ports import LOCALHOST
from migration_platform.runs.events import KafkaSettings
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.kinds import plan_between
from migration_platform.syncing.follow import Followed, Limits, follow
from migration_platform.syncing.kafka_changes import open_kafka_changes
from migration_platform.syncing.position import Position
from migration_platform.syncing.rows import to_sync_plan

KEYSPACE, TOPIC = "soak", "soak.changes"
ORIGIN = TableName(KEYSPACE, "origin")
TARGETS = {kind: TableName(KEYSPACE, f"by_{kind}") for kind in ("messages", "rounds")}
RANGES, WORKERS = 16, 1
BY_MESSAGES = KafkaChanges("kafka", TOPIC, key={"k": "after.k", "c": "after.c"})


@dataclass(frozen=True)
class Ports:
    """Where the servers listen."""

    cassandra: int
    kafka: int


def declare(kind: str) -> Migration:
    """Declare the copy and what follows it."""
    sync = Sync(kafka=BY_MESSAGES) if kind == "messages" else Sync(scan=ScanRounds())
    return Migration(
        Endpoint("soak", ORIGIN, consistency="ONE"),
        Endpoint("soak", TARGETS[kind], consistency="ONE"),
        token_ranges=RANGES,
        retry_seconds=60.0,
        tracking=False,
        sync=sync,
    )


def read_position(folder: Path, kind: str) -> Position:
    """Give the position told last; before the first, all ranges are open."""
    try:
        return Position.parse((folder / f"{kind}.position").read_text())
    except FileNotFoundError:
        return Position().with_open(range(RANGES))


def run(kind: str, folder: Path, ports: Ports, *, up_to_now: bool) -> None:
    """Follow the origin for a while, or to where it is now.

    Raises:
        MigrationError: a server stayed away too long, or something else went wrong.
    """
    settings = CassandraSettings(port=ports.cassandra)
    with ExitStack() as stack:
        connection = stack.enter_context(Connection(settings))
        plan = to_sync_plan(plan_between(declare(kind), connection, connection))
        source = None
        position = read_position(folder, kind)
        limits = Limits(ranges=RANGES, seconds=60.0)
        if kind == "messages":
            kafka = KafkaSettings(f"{LOCALHOST}:{ports.kafka}")
            source = stack.enter_context(open_kafka_changes(kafka, BY_MESSAGES, plan.origin))
            if up_to_now:
                limits = Limits(ranges=10**6, seconds=600.0, up_to=source.now())
        else:
            position = position.with_open(range(RANGES))
        pool = stack.enter_context(WorkerPool(plan, settings, settings, workers=WORKERS))
        follow(pool, plan, source, position, limits, _build_commit(folder, kind))


def _build_commit(folder: Path, kind: str) -> Any:
    def commit(told: Followed) -> None:
        # The position last: a process that dies in between has done more than it says.
        line = {
            "at": time.time(),
            "lag_seconds": round(max(0.0, time.time() - told.position.synced_at), 3),
            "lag_messages": told.lag.messages,
            "lost": list(told.lost),
            "seconds": round(told.seconds, 3),
            **asdict(told.counts),
        }
        with (folder / f"{kind}.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        new = folder / f"{kind}.position.new"
        new.write_text(told.position.to_json())
        os.replace(new, folder / f"{kind}.position")

    return commit


def main() -> None:
    """Follow once; the last line says why it failed, if it did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(TARGETS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("cassandra", type=int)
    parser.add_argument("kafka", type=int)
    parser.add_argument("--up-to-now", action="store_true")
    asked = parser.parse_args()
    ports = Ports(asked.cassandra, asked.kafka)
    try:
        run(asked.kind, asked.folder, ports, up_to_now=asked.up_to_now)
    except MigrationError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
