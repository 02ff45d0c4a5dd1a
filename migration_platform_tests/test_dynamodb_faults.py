"""Whatever the line to DynamoDB does, a copy loses and doubles nothing, or it ends in red."""

import random
import uuid
from dataclasses import replace

import pytest

from migration_platform.comparing.diff import diff_ranges
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import TransientError
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget
from migration_platform.stores.kinds import open_origin, open_target
from migration_platform.stores.planning import make_plan, make_target
from migration_platform_tests.comparing import OneProcess, compare, found
from migration_platform_tests.dynamodb_faults import (
    Answered,
    Asked,
    Forward,
    cut_off,
    damage,
    drop,
    fail,
    fair,
    leave_unprocessed,
    swallow,
    throttle,
)
from migration_platform_tests.dynamodb_tables import plain_client
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process

ROWS = 1500
FAULTS = (
    drop,
    swallow,
    cut_off,
    damage,
    fail,
    throttle,
    leave_unprocessed(9),
    leave_unprocessed(99),
)


@pytest.fixture
def plan(connection: Connection, through: DynamoDb, keyspace: str) -> Plan:
    """A plan to copy rows with a partition and a sort key."""
    origin = create_table(connection, keyspace, "o", "p int, c int, v text, PRIMARY KEY (p, c)")
    fill(connection, origin, "p, c, v", [(n % 11, n, f"v{n}") for n in range(ROWS)])
    migration = Migration(
        Endpoint("a", origin),
        Endpoint("b", TableName("", f"t{uuid.uuid4().hex}"), declared=DynamoDbTarget(create=True)),
        token_ranges=2,
        writetime="now",
        ttl="none",
        retry_seconds=20.0,
    )
    sides = open_origin(migration, connection), open_target(migration, through)
    return make_target(make_plan(migration, *sides), *sides, lambda status: None)


def storm(seed: int, share: float):
    """Let a share of all requests have a fault, some one time and others another."""
    chance = random.Random(seed)

    def happen(asked: Asked, forward: Forward) -> Answered | None:
        fault = chance.choice(FAULTS) if chance.random() < share else fair
        return fault(asked, forward)

    return happen


@pytest.mark.parametrize("seed", [1, 2])
def test_a_copy_and_its_comparison_live_through_a_storm(
    dynamodb, connection, faulty, through, plan, seed
):
    faulty.fault = storm(seed, 0.3)
    counts = copy_ranges(in_process(plan, connection, through))
    assert (counts.read, counts.written, counts.complete) == (ROWS, ROWS, True)
    assert counts.retries > 0
    with plain_client(dynamodb.port) as client:
        assert client.scan(TableName=plan.target.name.table, Select="COUNT")["Count"] == ROWS
    assert all(len(asked.writes) <= 25 for asked in faulty.of("BatchWriteItem"))
    verdict = compare(connection, plan, target=through)
    assert found(verdict) == (0, 0, 0)
    assert (verdict.origin_rows, verdict.target_rows) == (ROWS, ROWS)


def test_a_line_that_stays_down_ends_in_red_and_the_next_try_finishes(
    dynamodb, connection, faulty, through, plan
):
    short = replace(plan, migration=replace(plan.migration, retry_seconds=0.5))
    faulty.suffer("BatchWriteItem", [fair] * 3, then=drop)
    with pytest.raises(TransientError, match="after"):
        copy_ranges(in_process(short, connection, through))
    faulty.fault = fair
    assert copy_ranges(in_process(plan, connection, through)).written == ROWS
    assert found(compare(connection, plan, target=through)) == (0, 0, 0)


def test_a_comparison_tells_why_it_asks_again(connection, faulty, through, plan):
    copy_ranges(in_process(plan, connection, through))
    faulty.suffer("Scan", [throttle, fail])
    told: list[str] = []
    pool = OneProcess(plan, connection, through)
    verdicts = diff_ranges(pool, plan, plan.migration.ranges, on_retry=told.append)  # type: ignore[arg-type]
    assert all(verdict.matches for verdict in verdicts)
    assert [("too fast" in reason, "sorry" in reason) for reason in told] == [
        (True, False),
        (False, True),
    ]
