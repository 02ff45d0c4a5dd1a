"""What YAML declares of a synchronisation, and what is refused of it before anything runs."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from migration_platform.components.keyspace.migration import KeyspaceMigration
from migration_platform.components.table.attributes import OriginAttributes, TargetAttributes
from migration_platform.components.table.migration import TableMigration
from migration_platform.components.table.sync_attributes import SyncAttributes, read_seconds
from migration_platform.cql.names import TableName
from migration_platform.declaration.sync import KafkaChanges, ScanRounds, Sync
from migration_platform.errors import DeclarationError
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    Project,
    make_project,
    refusal,
)

pytestmark = DAGSTERS_OWN_WARNINGS

KAFKA = {"store": "monitoring", "topic": "shop.changes"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path, cassandra_port=9, kafka_port=9)


def declare(
    project: Project,
    name: str,
    origin: tuple[str, str],
    target: tuple[str, str],
    **attributes: Any,
) -> None:
    project.declare(
        name,
        "TableMigration",
        origin={"store": origin[0], "table": origin[1]},
        target={"store": target[0], "table": target[1]},
        **attributes,
    )


def declare_orders(project: Project, sync: Any, **attributes: Any) -> None:
    declare(
        project, "orders", ("sunbird", "shop.orders"), ("reports", "copy.orders"),
        sync=sync, **attributes,
    )  # fmt: skip


def sync_of(**attributes: Any) -> Sync | None:
    migration = TableMigration(
        origin=OriginAttributes(store="a", table='shop."Orders"'),
        target=TargetAttributes(store="b", table="copy.orders"),
        sync=SyncAttributes(**attributes),
    )
    return migration.to_migration().sync


# -- what is declared ------------------------------------------------------------------------------


def test_a_topic_may_hold_the_names_of_the_origin() -> None:
    kafka = {"store": "k", "topic": "{keyspace}.{table}.changes", "key": {"id": "after.id"}}

    assert sync_of(kafka=kafka) == Sync(
        kafka=KafkaChanges("k", "shop.Orders.changes", "json", {"id": "after.id"})
    )


def test_rounds_alone_may_be_behind_by_two_rounds() -> None:
    assert sync_of(scan={"every": "15m", "ranges_per_tick": 4}) == Sync(
        scan=ScanRounds(900, 4), max_lag_seconds=1_800
    )
    assert sync_of(scan={"every": 60}) == Sync(scan=ScanRounds(60, 8), max_lag_seconds=600)


def test_a_synchronisation_that_is_not_enabled_is_none() -> None:
    assert sync_of(scan={}, enabled=False) is None


@pytest.mark.parametrize(
    ("written", "seconds"), [("90s", 90), ("15m", 900), ("2 h", 7_200), ("1d", 86_400), (30, 30)]
)
def test_the_time_of_a_round_is_written_as_people_do(written: Any, seconds: int) -> None:
    assert read_seconds(written) == seconds


@pytest.mark.parametrize("written", ["", "soon", "m15", "1w", "-5m", "1.5h"])
def test_another_time_of_a_round_is_refused(written: str) -> None:
    with pytest.raises(DeclarationError, match="write a time such as 90s, 15m or 2h, or seconds"):
        read_seconds(written)


def test_a_table_with_sync_has_an_asset_a_sensor_and_checks(project: Project) -> None:
    declare_orders(project, {"kafka": KAFKA})

    defs = project.load()

    key = dg.AssetKey(["reports", "copy", "orders_sync"])
    graph = defs.resolve_asset_graph()
    node = graph.get(key)
    assert not node.is_partitioned
    assert node.parent_keys == {dg.AssetKey(["reports", "copy", "orders"])}
    assert {check.name for check in graph.asset_check_keys if check.asset_key == key} == {
        "sync_is_fresh",
        "no_dead_letters",
    }
    sensors = {sensor.name: sensor for sensor in defs.sensors or ()}
    sensor: Any = sensors["reports__copy__orders_sync_sensor"]
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.job.name == "reports__copy__orders_sync_job"


def test_a_table_without_sync_has_none_of_it(project: Project) -> None:
    declare_orders(project, None)

    defs = project.load()

    assert not [
        key for key in defs.resolve_asset_graph().get_all_asset_keys() if "sync" in str(key)
    ]
    assert not list(defs.sensors or ())


# -- keyspaces -------------------------------------------------------------------------------------


def keyspace(sync: Any, **tables: Any) -> KeyspaceMigration:
    return KeyspaceMigration.model_validate(
        {
            "origin": {"store": "sunbird", "keyspace": "shop"},
            "target": {"store": "reports", "keyspace": "copy"},
            "sync": sync,
            "tables": tables,
        }
    )


def test_each_table_of_a_keyspace_has_its_own_topic() -> None:
    declared = keyspace({"kafka": {"store": "monitoring", "topic": "{keyspace}.{table}"}})

    sync = declared.to_table_migration("orders").to_migration().sync

    assert sync == Sync(kafka=KafkaChanges("monitoring", "shop.orders"))


def test_a_table_of_a_keyspace_may_differ_in_its_synchronisation() -> None:
    declared = keyspace(
        {"kafka": {"store": "monitoring", "topic": "{table}"}, "deletes": False},
        orders={"sync": {"kafka": {"topic": "orders.v2"}, "max_lag_seconds": 60}},
        counters={"sync": {"enabled": False}},
    )

    assert declared.to_table_migration("orders").to_migration().sync == Sync(
        kafka=KafkaChanges("monitoring", "orders.v2"), deletes=False, max_lag_seconds=60
    )
    assert declared.to_table_migration("counters").to_migration().sync is None
    assert declared.find_followed("sunbird", TableName("shop", "orders")) == (
        "reports",
        TableName("copy", "orders"),
    )
    assert declared.find_followed("sunbird", TableName("shop", "counters")) is None
    assert declared.find_followed("sunbird", TableName("other", "orders")) is None


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sync", "said"),
    [
        ({}, "sync says nothing of how changes are found; give it kafka, scan or both"),
        ({"kafka": {"topic": "t"}}, "sync.kafka.store is missing: Name of a Kafka store"),
        (
            {"kafka": {**KAFKA, "topics": "t"}},
            "there is no attribute sync.kafka.topics; did you mean sync.kafka.topic?",
        ),
        ({"kafka": {**KAFKA, "topic": "a b"}}, "sync.kafka.topic is 'a b'; valid are 1 to 249"),
        ({"kafka": {**KAFKA, "topic": "{tabel}"}}, "sync.kafka.topic is '{tabel}'; valid are"),
        ({"kafka": {**KAFKA, "format": "avro"}}, "sync.kafka.format is 'avro'; valid are json"),
        (
            {"kafka": {**KAFKA, "format": "debezium", "key": {"id": "id"}}},
            "format debezium says it itself; leave one out",
        ),
        ({"kafka": {**KAFKA, "store": "reports"}}, "sync.kafka.store is reports, a cassandra"),
        ({"kafka": {**KAFKA, "store": "elsewhere"}}, "sync.kafka.store is 'elsewhere', and no"),
        ({"scan": {"every": "soon"}}, "sync.scan.every is 'soon'; write a time such as"),
        ({"scan": {"every": 0}}, "sync.scan.every, in seconds, is 0; valid are 1 to"),
        ({"scan": {"ranges_per_tick": 0}}, "sync.scan.ranges_per_tick is 0; valid are 1 to"),
        (
            {"scan": {"every": "2h"}, "max_lag_seconds": 60},
            "sync.max_lag_seconds is 60, but a round of sync.scan takes 7200 seconds",
        ),
        ({"kafka": KAFKA, "max_lag_seconds": 0}, "sync.max_lag_seconds is 0; valid are 1 to"),
    ],
)
def test_a_wrong_synchronisation_is_refused_when_it_is_loaded(
    project: Project, sync: Any, said: str
) -> None:
    declare_orders(project, sync)

    assert said in refusal(project)


def test_a_synchronisation_that_feeds_its_own_origin_is_refused(project: Project) -> None:
    there, back = ("sunbird", "shop.orders"), ("reports", "copy.orders")
    declare(project, "there", there, back, sync={"kafka": KAFKA})
    declare(project, "back", back, there, sync={"scan": {}})

    with pytest.raises(DeclarationError) as caught:
        project.load()

    said = str(caught.value)
    assert "comes back to shop.orders in sunbird by the sync of" in said
    assert "/there/defs.yaml" in said
    assert "/back/defs.yaml" in said


def test_a_copy_back_without_sync_is_allowed(project: Project) -> None:
    there, back = ("sunbird", "shop.orders"), ("reports", "copy.orders")
    declare(project, "there", there, back, sync={"kafka": KAFKA})
    declare(project, "back", back, there)

    project.load()


def test_a_longer_circle_is_refused_with_all_its_files(project: Project) -> None:
    places = [("sunbird", "shop.a"), ("reports", "copy.b"), ("sunbird", "shop.c")]
    for number, name in enumerate(("one", "two", "three")):
        declare(project, name, places[number], places[(number + 1) % 3], sync={"scan": {}})

    with pytest.raises(DeclarationError) as caught:
        project.load()

    lines = [line for line in str(caught.value).splitlines() if "/one/defs.yaml: " in line]
    assert "/two/defs.yaml and" in lines[0]
    assert "/three/defs.yaml, so that changes would go round for ever" in lines[0]


def test_a_circle_through_a_keyspace_is_refused(project: Project) -> None:
    declare(
        project, "one", ("reports", "copy.orders"), ("sunbird", "shop.orders"), sync={"scan": {}}
    )
    project.declare(
        "shop",
        "KeyspaceMigration",
        origin={"store": "sunbird", "keyspace": "shop"},
        target={"store": "reports", "keyspace": "copy"},
        sync={"scan": {}},
    )

    assert "by the sync of" in refusal(project)


def test_one_table_under_two_names_of_its_store_is_refused(project: Project) -> None:
    declare(project, "a", ("sunbird", "shop.orders"), ("reports", "shop.orders"), sync={"scan": {}})

    assert "are one table, for both stores are the same servers" in refusal(project)
