"""This project: copy and comparison below Dagster, by its own worker processes.

A run through Dagster does the same calls; what it takes beforehand is a cost of the run, not of the
rows.
"""

import argparse
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.peers import CHECKED_ROWS, PROCESSES, TOKEN_RANGES, Peer, Work
from benchmarks.peers.serving import serve
from migration_platform.comparing.diff import diff_ranges
from migration_platform.comparing.verdicts import RangeVerdict
from migration_platform.copying.copy import CopyRange
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.plan.model import Plan
from migration_platform.runs.workers import WorkerPool
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.kinds import plan_between
from migration_platform.stores.work import Done, Failed
from migration_platform.token_ranges import TokenRange

LONGEST_EXAMPLE = 40
RANGES_CHECKED_TOGETHER = 8
NEW_TIMES = Work(
    name="this project, new times",
    group="copy",
    keeps="nothing",
)
NEW_COMPARISON = Work(
    name="this project, comparison of values",
    group="comparison",
    keeps="both directions, names rows and columns",
)
OWN_TIMES = Work(
    name="this project, every cell's own times",
    group="copy",
    keeps="writetime and TTL of every cell",
)
OWN_COMPARISON = Work(
    name="this project, comparison of values and times",
    group="comparison",
    keeps="both directions, names rows and columns",
)
# Processes of their own for the two kinds, as two runs have.
PEERS = tuple(
    Peer(
        name=name,
        works=works,
        settings=f"{PROCESSES} workers, {TOKEN_RANGES} ranges, {times}; everything else as it is "
        "by default",
        packages=("cassandra-driver",),
        module="benchmarks.peers.own",
        arguments=(name,),
    )
    for name, works, times in (
        ("own", (NEW_TIMES, NEW_COMPARISON), "`writetime: now`, `ttl: none`"),
        ("own-times", (OWN_TIMES, OWN_COMPARISON), "`diff.compare_writetime: true`"),
    )
)


def main(
    name: str, port: int, origin_table: str, target_table: str, workers: int, token_ranges: int
) -> None:
    """Serve the works of one of `PEERS`, and `check`, which compares whoever made the copy.

    A request may name how many of the token ranges are to be done, the first ones.
    """
    settings = CassandraSettings(port=port)
    migration = Migration(
        Endpoint("origin", TableName.parse(origin_table)),
        Endpoint("target", TableName.parse(target_table)),
        token_ranges=token_ranges,
        compare_writetime=True,
    )
    if name == "own":
        migration = replace(migration, writetime="now", ttl="none", compare_writetime=False)
    with Connection(settings) as origin, Connection(settings) as target:
        plan = plan_between(migration, origin, target)
        with WorkerPool(plan, settings, settings, workers=workers) as pool:
            copies = (NEW_TIMES.name, OWN_TIMES.name)

            def prepare(request: dict[str, Any]) -> Callable[[], Any]:
                if request["work"] == "check":
                    return lambda: differing(plan, pool)
                work = copy if request["work"] in copies else compare
                ranges = plan.migration.ranges[: request.get("ranges", token_ranges)]
                return lambda: work(plan, pool, ranges)

            serve(prepare)


def copy(plan: Plan, pool: WorkerPool, ranges: Sequence[TokenRange]) -> int:
    """Copy ranges."""
    rows = 0
    for event in pool.run([CopyRange(each) for each in ranges]):
        if isinstance(event, Failed):
            raise SystemExit(event.reason)
        if isinstance(event, Done):
            rows += event.result.written
    return rows


def compare(plan: Plan, pool: WorkerPool, ranges: Sequence[TokenRange]) -> int:
    """Compare ranges, and expect no difference."""
    verdicts = list(diff_ranges(pool, plan, ranges))
    wrong = [verdict for verdict in verdicts if not verdict.matches]
    if wrong:
        raise SystemExit(f"the copy is not right: {wrong[:1]}")
    return sum(verdict.origin_rows for verdict in verdicts)


def differing(plan: Plan, pool: WorkerPool) -> dict[str, Any]:
    """Find the rows whose values are not the origin's, and in which columns some of them differ.

    A column has an example where both values are short.
    """
    verdicts: list[RangeVerdict] = []
    ranges = deque(plan.migration.ranges)
    # Enough ranges at a time for the workers to be busy, however the rows lie in them.
    while ranges and sum(verdict.origin_rows for verdict in verdicts) < CHECKED_ROWS:
        some = [ranges.popleft() for _ in range(min(RANGES_CHECKED_TOGETHER, len(ranges)))]
        verdicts += diff_ranges(pool, plan, some)
    samples = [row for verdict in verdicts for row in verdict.mismatched_rows]
    columns = {column: "" for row in samples for column in row.columns}
    for row in samples:
        for column, mine, theirs in row.changes:
            example = f"{mine or 'null'} became {theirs or 'null'}"
            if len(example) <= LONGEST_EXAMPLE:
                columns[column] = example
    return {
        "rows": sum(verdict.found for verdict in verdicts),
        "compared": sum(verdict.origin_rows for verdict in verdicts),
        "columns": columns,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.peers.own")
    parser.add_argument("name", choices=[peer.name for peer in PEERS])
    parser.add_argument("port", type=int)
    parser.add_argument("origin_table", help="keyspace.table")
    parser.add_argument("target_table", help="keyspace.table")
    parser.add_argument("--workers", type=int, default=PROCESSES)
    parser.add_argument("--ranges", type=int, default=TOKEN_RANGES, dest="token_ranges")
    main(**vars(parser.parse_args()))
