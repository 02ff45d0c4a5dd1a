"""A Cassandra table becomes a DynamoDB table: every row an item, and nothing lost on the way."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import boto3
import pytest

from migration_platform.copying.transform import compile_rows
from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import PermanentError, PreflightError
from migration_platform.local.stack import Running
from migration_platform.plan.model import Plan
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.dynamodb import sample
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget, GlobalIndex
from migration_platform.stores.dynamodb.sample import sample_cost
from migration_platform.stores.dynamodb.shape import create_target, tell_table
from migration_platform.stores.dynamodb.tables import find_table
from migration_platform.stores.kinds import describe_fidelity, open_origin, plan_between
from migration_platform_tests.comparing import compare, found, rehearse_all
from migration_platform_tests.tables import copy_ranges, create_table, fill, in_process, insert_rows


@pytest.fixture(scope="module")
def client(dynamodb: Running) -> Any:
    """The SDK's own client: what arrived is read without the engine."""
    return boto3.client(
        "dynamodb", endpoint_url=f"http://127.0.0.1:{dynamodb.port}", region_name="us-west-2"
    )


Plans = Callable[..., Plan]


@pytest.fixture
def plan_to(connection: Connection, dynamo: DynamoDb) -> Plans:
    """Plan a migration to a table of its own, which is created."""

    def plan(origin: TableName, *, into: str = "", **options: Any) -> Plan:
        declared = DynamoDbTarget(create=True, **options.pop("dynamodb", {}))
        name = into or f"t{uuid.uuid4().hex}"
        migration = Migration(
            Endpoint("a", origin),
            Endpoint("b", TableName("", name), declared=declared),
            **{
                "token_ranges": 3,
                "retry_seconds": 20.0,
                "writetime": "now",
                "ttl": "none",
                **options,
            },
        )
        plan = plan_between(migration, connection, dynamo)
        if not plan.target.table_id:
            create_target(dynamo, plan, lambda _: None)
            plan = plan_between(migration, connection, dynamo)
        return plan

    return plan


def items_in(client: Any, plan: Plan) -> list[dict[str, Any]]:
    pages = client.get_paginator("scan").paginate(TableName=plan.target.name.table)
    return [item for page in pages for item in page["Items"]]


def test_rows_become_items_and_are_found_equal(connection, dynamo, client, keyspace, plan_to):
    table = create_table(
        connection, keyspace, "users", "id uuid PRIMARY KEY, name text, email text"
    )
    rows = [(uuid.uuid4(), f"User{n}", f"user{n}@example.com") for n in range(2500)]
    fill(connection, table, "id, name, email", rows)
    plan = plan_to(table)

    counts = copy_ranges(in_process(plan, connection, dynamo))

    assert (counts.read, counts.written, counts.complete) == (2500, 2500, True)
    there = {item["id"]["S"]: item for item in items_in(client, plan)}
    assert there == {
        str(key): {"id": {"S": str(key)}, "name": {"S": name}, "email": {"S": email}}
        for key, name, email in rows
    }
    verdict = compare(connection, plan, target=dynamo)
    assert found(verdict) == (0, 0, 0)
    assert (verdict.origin_rows, verdict.target_rows) == (2500, 2500)
    # A second copy changes nothing.
    copy_ranges(in_process(plan, connection, dynamo))
    assert len(items_in(client, plan)) == 2500


EVERYTHING = """
    k int, c text, a ascii, b bigint, bl blob, bo boolean, d date, de decimal, du duration,
    f float, do double, i inet, s smallint, ti tinyint, t time, ts timestamp, u uuid, tu timeuuid,
    vi varint, li list<text>, se set<int>, st set<text>, ma map<int, text>, fs frozen<set<int>>,
    tp frozen<tuple<int, text>>, nested map<text, frozen<list<frozen<set<double>>>>>,
    PRIMARY KEY (k, c)
"""


def test_values_of_every_type_arrive_and_agree(connection, dynamo, client, keyspace, plan_to):
    table = create_table(connection, keyspace, "everything", EVERYTHING)
    full = {
        "k": 1, "c": "#%", "a": "a", "b": -(2**63), "bl": b"\0\xff", "bo": False,
        "d": "1582-10-15", "de": Decimal("1.10"), "f": 0.1, "do": 1e-10,
        "i": "2001:db8::1", "s": -1, "ti": 127, "t": 86_399_999_999_999,
        "ts": datetime(2024, 1, 31, 10, 20, 30, 123_000, tzinfo=UTC), "u": uuid.uuid4(),
        "tu": uuid.uuid1(), "vi": 10**30, "li": ["x", "x", ""], "se": {3, 1, 2}, "st": {"", "é"},
        "ma": {5: "five", -5: ""}, "fs": set(), "tp": (None, "x"),
        "nested": {"": [{1.5, 0.25}], "%x": []},
    }  # fmt: skip
    insert_rows(connection, table, [full, {"k": 1, "c": ""}, {"k": 2, "c": "x", "li": ["only"]}])
    connection.session.execute(f"UPDATE {table} SET du = 1y2mo3d4h WHERE k = 1 AND c = '#%'")
    plan = plan_to(table)
    if "" in {item["c"]["S"] for item in items_in(client, plan)}:
        raise AssertionError("the table is not empty")

    with pytest.raises(PermanentError, match="a key of DynamoDB cannot be empty"):
        copy_ranges(in_process(plan, connection, dynamo))
    connection.session.execute(f"DELETE FROM {table} WHERE k = 1 AND c = ''")
    assert copy_ranges(in_process(plan, connection, dynamo)).written == 2
    assert found(compare(connection, plan, target=dynamo)) == (0, 0, 0)
    (item,) = [item for item in items_in(client, plan) if item["c"]["S"] == "#%"]
    assert item["li"] == {"L": [{"S": "x"}, {"S": "x"}, {"S": ""}]}
    assert (item["de"], item["b"], item["fs"]) == ({"N": "1.1"}, {"N": str(-(2**63))}, {"L": []})
    assert {"se", "st"} == {name for name in item if set(item[name]) & {"NS", "SS"}}


@pytest.fixture
def damaged(connection, dynamo, client, keyspace, plan_to) -> Callable[..., Plan]:
    """A copy of 300 rows of which one is changed, one gone, and one too many."""

    def make(**options: Any) -> Plan:
        table = create_table(
            connection,
            keyspace,
            "d",
            "p int, q text, c int, v text, w set<int>, PRIMARY KEY ((p, q), c)",
        )
        rows = [(n % 7, f"#{n % 3}", n, f"v{n}", {n, n + 1}) for n in range(300)]
        fill(connection, table, "p, q, c, v, w", rows)
        plan = plan_to(table, **options)
        copy_ranges(in_process(plan, connection, dynamo))
        name = plan.target.name.table
        some = sorted(items_in(client, plan), key=lambda item: int(item["c"]["N"]))
        client.put_item(TableName=name, Item={**some[5], "v": {"S": "changed"}, "more": {"S": "x"}})
        client.delete_item(TableName=name, Key={n: some[9][n] for n in ("pk", "c")})
        client.put_item(TableName=name, Item={**some[7], "c": {"N": "1000"}})
        return plan

    return make


def test_what_differs_is_found_on_both_sides(connection, dynamo, damaged):
    plan = damaged()
    verdict = compare(connection, plan, target=dynamo)
    assert found(verdict) == (1, 1, 1)
    assert (verdict.origin_rows, verdict.target_rows) == (300, 300)
    assert [row.columns for row in verdict.mismatched_rows] == [("v",)]
    assert verdict.mismatched_rows[0].changes == (("v", "v5", "changed"),)


def test_what_differs_is_repaired(connection, dynamo, client, damaged):
    plan = damaged(repair=("missing", "mismatched", "extra"))
    verdict = compare(connection, plan, target=dynamo)
    assert (verdict.corrected_missing, verdict.corrected_mismatched) == (1, 1)
    assert verdict.corrected_extra == 1
    plain = replace(plan, migration=replace(plan.migration, repair=()))
    assert found(compare(connection, plain, target=dynamo)) == (0, 0, 0)
    assert len(items_in(client, plan)) == 300


def test_only_the_items_of_the_origins_rows_are_read_where_no_others_are_looked_for(
    connection, dynamo, client, damaged
):
    plan = damaged(diff_mode="origin_only")
    # A scan would come upon this item and refuse it.
    stranger = {"pk": {"S": "no row's"}, "c": {"N": "1"}}
    client.put_item(TableName=plan.target.name.table, Item=stranger)

    verdict = compare(connection, plan, target=dynamo)

    assert found(verdict) == (1, 0, 1)
    assert (verdict.origin_rows, verdict.target_rows) == (300, 299)
    both_ways = replace(plan, migration=replace(plan.migration, diff_mode="two_way"))
    assert "is none that a row gives" in compare(connection, both_ways, target=dynamo).error


def test_static_cells_are_an_item_of_their_partition(connection, dynamo, client, keyspace, plan_to):
    table = create_table(
        connection, keyspace, "s", "k int, c int, s text static, v int, PRIMARY KEY (k, c)"
    )
    fill(connection, table, "k, c, v", [(n % 5, n, n) for n in range(50)])
    fill(connection, table, "k, s", [(n, f"s{n}") for n in (0, 1, 77)])
    plan = plan_to(table)
    counts = copy_ranges(in_process(plan, connection, dynamo))
    assert (counts.written, counts.statics) == (50, 3)
    assert len(items_in(client, plan)) == 53
    assert found(compare(connection, plan, target=dynamo)) == (0, 0, 0)
    connection.session.execute(f"UPDATE {table} SET s = 'new' WHERE k = 1")
    verdict = compare(connection, plan, target=dynamo)
    assert (found(verdict), verdict.statics) == ((0, 0, 1), 1)


def test_rows_expire_with_the_last_of_their_cells(connection, dynamo, client, keyspace, plan_to):
    table = create_table(connection, keyspace, "x", "k int PRIMARY KEY, v text, w text")
    insert_rows(connection, table, [{"k": 1, "v": "a", "w": "b"}], "USING TTL 5000")
    connection.session.execute(f"UPDATE {table} USING TTL 9000 SET w = 'c' WHERE k = 1")
    insert_rows(connection, table, [{"k": 2, "v": "a"}], "USING TTL 5000")
    connection.session.execute(f"UPDATE {table} SET w = 'stays' WHERE k = 2")
    plan = plan_to(table, ttl="row_max", dynamodb={"ttl_attribute": "gone_at"})
    now = datetime.now(UTC).timestamp()
    copy_ranges(in_process(plan, connection, dynamo))
    there = {item["k"]["N"]: item for item in items_in(client, plan)}
    assert int(there["1"]["gone_at"]["N"]) == pytest.approx(now + 9000, abs=30)
    assert "gone_at" not in there["2"]
    assert found(compare(connection, plan, target=dynamo)) == (0, 0, 0)
    # DynamoDB removes what has expired days later: it is absent at once.
    gone = {**there["1"], "gone_at": {"N": str(int(now) - 1)}}
    client.put_item(TableName=plan.target.name.table, Item=gone)
    assert found(compare(connection, plan, target=dynamo)) == (1, 0, 0)
    lives = client.describe_time_to_live(TableName=plan.target.name.table)
    assert lives["TimeToLiveDescription"]["AttributeName"] == "gone_at"


def test_the_newest_row_wins_by_its_writetime(connection, dynamo, client, keyspace, plan_to):
    table = create_table(connection, keyspace, "w", "k int PRIMARY KEY, v text")
    for n, written in ((1, 1000), (2, 5000)):
        insert_rows(connection, table, [{"k": n, "v": "old"}], f"USING TIMESTAMP {written}")
    plan = plan_to(table, writetime="row_max", dynamodb={"writetime_attribute": "written"})
    copy_ranges(in_process(plan, connection, dynamo))
    name = plan.target.name.table
    newer = {"k": {"N": "1"}, "v": {"S": "newer"}, "written": {"N": "2000"}}
    client.put_item(TableName=name, Item=newer)
    insert_rows(connection, table, [{"k": 2, "v": "new"}], "USING TIMESTAMP 6000")
    counts = copy_ranges(in_process(plan, connection, dynamo))
    assert (counts.written, counts.left_alone, counts.complete) == (1, 1, True)
    there = {
        item["k"]["N"]: (item["v"]["S"], item["written"]["N"]) for item in items_in(client, plan)
    }
    assert there == {"1": ("newer", "2000"), "2": ("new", "6000")}


def test_counters_are_numbers_and_columns_change_as_elsewhere(
    connection, dynamo, client, keyspace, plan_to
):
    table = create_table(
        connection, keyspace, "n", "k int, c int, hits counter, PRIMARY KEY (k, c)"
    )
    connection.session.execute(f"UPDATE {table} SET hits = hits + 41 WHERE k = 1 AND c = 2")
    plan = plan_to(
        table,
        columns=Columns(rename={"hits": "count"}, constants={"source": "old"}),
        dynamodb={"partition": ("k", "c"), "partition_attribute": "id", "nulls": "null"},
    )
    copy_ranges(in_process(plan, connection, dynamo))
    assert items_in(client, plan) == [
        {
            "id": {"S": "1#2"}, "k": {"N": "1"}, "c": {"N": "2"}, "count": {"N": "41"},
            "source": {"S": "old"},
        }
    ]  # fmt: skip
    assert found(compare(connection, plan, target=dynamo)) == (0, 0, 0)


def test_the_cost_is_estimated_from_a_part_of_the_rows(
    connection, dynamo, client, keyspace, plan_to, monkeypatch
):
    monkeypatch.setattr(sample, "ROWS_A_WINDOW", 30)
    table = create_table(
        connection, keyspace, "e", "p int, c int, s text static, v text, PRIMARY KEY (p, c)"
    )
    fill(connection, table, "p, c, v", [(n // 3, n, "x" * (n % 2000)) for n in range(3000)])
    fill(connection, table, "p, s", [(n, "static") for n in range(500)])
    plan = plan_to(table, dynamodb={"indexes": (GlobalIndex("by_v", "v", "c"),)})

    cost = sample_cost(plan, open_origin(plan.migration, connection), None, compile_rows)

    assert not cost.is_complete
    assert not cost.is_bounded
    assert cost.sampled < 1500
    size = sum(n % 2000 for n in range(3000))
    for estimate, truth in ((cost.items, 3500), (cost.storage_bytes, 2 * size + 3500 * 130)):
        assert 0 < estimate.error < estimate.value
        assert abs(estimate.value - truth) < 2 * estimate.error + 0.1 * truth

    wide = create_table(connection, keyspace, "wide", "p int, c int, PRIMARY KEY (p, c)")
    fill(connection, wide, "p, c", [(1, n) for n in range(100)])
    plan = plan_to(wide)
    origin = open_origin(plan.migration, connection)
    assert sample_cost(plan, origin, None, compile_rows).is_bounded


def test_what_was_copied_counts_as_long_as_items_would_be_the_same(connection, keyspace, plan_to):
    table = create_table(connection, keyspace, "f", "id int PRIMARY KEY, v double")
    first = plan_to(table)
    name = first.target.name.table

    def again(**dynamodb: Any) -> str:
        return plan_to(table, into=name, dynamodb=dynamodb).fingerprint

    assert again() == first.fingerprint
    assert again(write_units_per_second=5, numbers="string") == first.fingerprint
    others = [again(attribute_types={"v": "S"}), again(nulls="null"), again(partition=("id",))]
    assert len({first.fingerprint, *others}) == 4


def test_a_table_with_another_key_is_refused(connection, dynamo, client, keyspace, plan_to):
    table = create_table(connection, keyspace, "o", "id int PRIMARY KEY, v text")
    name = f"t{uuid.uuid4().hex}"
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(PreflightError, match=r"has the key id \(S\), but .* would have id \(N\)"):
        plan_to(table, into=name)
    plan = plan_to(table, into=name, dynamodb={"attribute_types": {"id": "S"}})
    insert_rows(connection, table, [{"id": 5, "v": "x"}])
    assert copy_ranges(in_process(plan, connection, dynamo)).written == 1
    with pytest.raises(PreflightError, match="names nothing, which nothing fills"):
        plan_to(table, dynamodb={"partition": ("nothing",)})


def test_static_cells_never_share_an_attribute_with_a_column(connection, keyspace, plan_to):
    body = "k int, sk text, s text static, PRIMARY KEY (k, sk)"
    table = create_table(connection, keyspace, "shared", body)
    with pytest.raises(PreflightError, match="sk is a column, but a table with static columns"):
        plan_to(table)
    plan_to(table, dynamodb={"sort_attribute": "sort"})


def test_values_that_no_index_takes_are_refused_before(connection, keyspace, plan_to):
    table = create_table(connection, keyspace, "i", "k int PRIMARY KEY, v double")
    by_v = {"indexes": (GlobalIndex("by_v", "v"),)}
    plan_to(table, dynamodb=by_v)
    with pytest.raises(PreflightError, match="of which a null would be an attribute NULL"):
        plan_to(table, dynamodb={**by_v, "nulls": "null"})
    with pytest.raises(PreflightError, match=r"set target\.attributes\.v\.type to S"):
        plan_to(table, dynamodb={**by_v, "numbers": "string"})


def test_a_table_that_another_run_is_still_making_is_finished(
    connection, dynamo, client, keyspace, plan_to
):
    table = create_table(connection, keyspace, "half", "k int PRIMARY KEY, v text")
    name = f"t{uuid.uuid4().hex}"
    # As a run leaves it that was killed between the two requests.
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    plan = plan_to(table, into=name, ttl="row_max", dynamodb={"ttl_attribute": "gone_at"})
    assert plan.target.table_id
    lives = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert lives["AttributeName"] == "gone_at"
    with pytest.raises(PreflightError, match="its TTL attribute is gone_at"):
        plan_to(table, into=name, ttl="row_max", dynamodb={"ttl_attribute": "other"})


def test_a_table_that_holds_items_is_not_made_to_let_them_expire(
    connection, client, keyspace, plan_to
):
    table = create_table(connection, keyspace, "full", "k int PRIMARY KEY, v text")
    name = plan_to(table).target.name.table
    client.put_item(TableName=name, Item={"k": {"N": "1"}, "gone_at": {"N": "1"}})
    with pytest.raises(PreflightError, match="not enabled, and it holds items already, which"):
        plan_to(table, into=name, ttl="row_max", dynamodb={"ttl_attribute": "gone_at"})
    lives = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert lives["TimeToLiveStatus"] == "DISABLED"


def test_what_a_table_that_is_there_does_not_get_is_told(
    connection, dynamo, client, keyspace, plan_to
):
    table = create_table(connection, keyspace, "there", "k int PRIMARY KEY, v text, n int")
    by_v, by_n = GlobalIndex("by_v", "v"), GlobalIndex("by_n", "n", projection=("v",))
    name = plan_to(table, dynamodb={"indexes": (by_v, by_n)}).target.name.table

    def told(**declared: Any) -> list[str]:
        plan = plan_to(table, into=name, dynamodb=declared)
        return tell_table(plan, find_table(dynamo, name))

    assert told(indexes=(by_v, by_n)) == []
    by_k = GlobalIndex("by_k", "k", "v", read_units=1, write_units=1)
    (capacity, missing, differs, unknown) = told(
        indexes=(by_k, replace(by_v, projection="KEYS_ONLY", read_units=1, write_units=1)),
        billing_mode="PROVISIONED",
        read_units=1,
        write_units=2,
    )
    assert capacity.startswith(f"{name} is paid per request, and stays so")
    assert missing.startswith(f"{name} has no index by_k, and a copy adds none: add it yourself")
    assert differs.endswith("target.indexes.by_v says the key v (S) and holds KEYS_ONLY")
    assert f"{name} has the index by_n, which target.indexes does not name" in unknown

    with pytest.raises(PreflightError, match=r"by_n of \w+ has the key n \(N\), but n would be S"):
        told(attribute_types={"n": "S"})
    with pytest.raises(PreflightError, match="the key of the index by_v is v, of which a null"):
        told(nulls="null")
    with pytest.raises(PreflightError, match=r"by_w\.projection names w, which nothing fills"):
        told(indexes=(GlobalIndex("by_w", "v", projection=("w",)),))


def test_rows_that_no_index_can_hold_are_named_before_they_are_copied(
    connection, dynamo, keyspace, plan_to
):
    table = create_table(connection, keyspace, "x", "k int PRIMARY KEY, v text, n int")
    insert_rows(connection, table, [
        {"k": 1, "v": "x"}, {"k": 2, "n": 5}, {"k": 3, "v": ""}, {"k": 4, "v": "x" * 2049},
    ])  # fmt: skip
    plan = plan_to(table, dynamodb={"indexes": (GlobalIndex("by_v", "v"),)})
    told = rehearse_all(connection, plan, target=dynamo).counts
    assert (told.read, told.set_aside) == (4, 2)
    assert "v: a key of an index cannot be empty" in " ".join(told.set_aside_samples)
    connection.session.execute(f"DELETE FROM {table} WHERE k IN (3, 4)")
    assert copy_ranges(in_process(plan, connection, dynamo)).written == 2


def test_a_name_for_joined_columns_that_nothing_joins_is_refused(connection, keyspace, plan_to):
    table = create_table(connection, keyspace, "j", "k int, c int, PRIMARY KEY (k, c)")
    with pytest.raises(PreflightError, match="partition_attribute names what joins several"):
        plan_to(table, dynamodb={"partition_attribute": "id"})
    with pytest.raises(PreflightError, match="the key's sort is no joined one; leave it out"):
        plan_to(table, dynamodb={"sort_attribute": "id"})
    plan_to(table, dynamodb={"partition": ("k", "c"), "partition_attribute": "id"})


def test_rows_that_no_item_can_hold_are_named_before_and_while_they_are_copied(
    connection, dynamo, client, keyspace, plan_to
):
    table = create_table(connection, keyspace, "l", "k text PRIMARY KEY, v text, d double")
    insert_rows(connection, table, [
        {"k": "fine", "v": "x"}, {"k": "k" * 3000}, {"k": "large", "v": "x" * 420_000},
        {"k": "nan", "d": float("nan")},
    ])  # fmt: skip
    plan = plan_to(table)
    with pytest.raises(PermanentError, match="DynamoDB cannot hold the row"):
        copy_ranges(in_process(plan, connection, dynamo))
    told = rehearse_all(connection, plan, target=dynamo).counts
    assert (told.read, told.set_aside) == (4, 3)
    reasons = " ".join(told.set_aside_samples)
    assert "a key of 3,000 bytes is longer than 2,048" in reasons
    assert "larger than 409,600" in reasons
    assert "NaN" in reasons

    plan = plan_to(table, into=plan.target.name.table, dynamodb={"numbers": "string"})
    assert rehearse_all(connection, plan, target=dynamo).counts.set_aside == 2


def test_a_plan_tells_what_each_attribute_keeps(connection, keyspace, plan_to):
    table = create_table(
        connection,
        keyspace,
        "told",
        "k int, c text, s text static, price decimal, prices list<frozen<list<decimal>>>, "
        "seen set<text>, bits varint, PRIMARY KEY (k, c)",
    )
    plan = plan_to(table, dynamodb={"attribute_types": {"prices": "S"}, "numbers": "string"})

    told = {line.subject: line for line in describe_fidelity(plan)}

    assert told["sk"].values == "S: c, joined by #"
    assert told["k"].values == "N: as they are"
    assert "1.50 comes back as 1.5" in told["price"].values
    assert "what no N holds is a string" in told["bits"].values
    assert told["prices"].values == "S: as they are"
    assert told["seen"].values == "SS: as they are; a set without an order"
    assert told["s"].values == "S: as they are; in an item of its own for each partition"
    times = "(writetime and TTL)"
    assert [name for name, line in told.items() if not line.exact] == ["price", times]
    lives = plan_to(table, ttl=60, dynamodb={"ttl_attribute": "until"})
    assert describe_fidelity(lives)[-1].times == (
        "no writetime is kept; an item expires at the second in until, 60 s after it is copied"
    )
