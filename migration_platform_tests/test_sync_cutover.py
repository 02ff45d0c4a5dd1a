"""The cutover of a keyspace that follows its origin: it waits for the end, and for a comparison."""

import json
from pathlib import Path

import dagster as dg
from confluent_kafka import Producer

from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import Connection
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    EVERYTHING,
    Project,
    make_project,
)
from migration_platform_tests.servers import PATIENCE_SECONDS
from migration_platform_tests.tables import create_table, fill
from migration_platform_tests.test_keyspaces import cutover_of, declare, refresh

pytestmark = DAGSTERS_OWN_WARNINGS


def tell(kafka: Running, topic: str, *ids: int) -> None:
    producer = Producer({"bootstrap.servers": f"127.0.0.1:{kafka.port}"})
    for row_id in ids:
        producer.produce(topic, value=json.dumps({"id": row_id}).encode())
    assert producer.flush(PATIENCE_SECONDS) == 0


def follow(project: Project, sync: dg.AssetKey) -> None:
    config = {"ops": {"__".join(sync.path): {"config": {"up_to": "now"}}}}
    project.run(None, assets=[sync], config=config).assert_success()


def test_a_cutover_waits_for_the_synchronisation_and_for_a_comparison_after_it(
    tmp_path: Path, cassandra: Running, kafka: Running, connection: Connection, keyspace: str
) -> None:
    there = f"new_{keyspace}"
    orders = create_table(connection, keyspace, "orders", "id int PRIMARY KEY, name text")
    fill(connection, orders, "id, name", [(i, "a") for i in range(40)])
    topic = f"{keyspace}.orders"
    tell(kafka, topic, 1)
    project = make_project(tmp_path, cassandra_port=cassandra.port, kafka_port=kafka.port)
    declare(
        project,
        origin={"keyspace": keyspace},
        target={"keyspace": there},
        sync={"kafka": {"store": "monitoring", "topic": "{keyspace}.{table}"}},
    )
    refresh(project)
    table, diff, sync = (
        dg.AssetKey(["reports", there, f"orders{suffix}"]) for suffix in ("", "_diff", "_sync")
    )
    schema, cutover = (
        dg.AssetKey(["reports", f"{there}_{what}"]) for what in ("schema", "cutover")
    )
    try:
        project.run(EVERYTHING, assets=[schema, table, diff]).assert_success()
        passed, said = cutover_of(project, cutover)
        assert not passed
        assert "nothing has followed the origin since the copy; stop the writers, then: " in said

        follow(project, sync)
        passed, said = cutover_of(project, cutover)
        assert not passed
        assert "were not compared since the synchronisation wrote or reached its end" in said
        assert f'dg launch --assets "{diff.to_user_string()}" --partition-range' in said
        project.run(EVERYTHING, assets=[diff]).assert_success()
        passed, said = cutover_of(project, cutover)
        assert passed, said

        connection.session.execute(f"UPDATE {orders} SET name = 'b' WHERE id = 7")
        connection.session.execute(f"DELETE FROM {orders} WHERE id = 8")
        tell(kafka, topic, 7, 8)
        passed, said = cutover_of(project, cutover)
        assert not passed
        assert "its synchronisation is not at the end: 2 messages wait; dg launch" in said
        assert '"up_to": "now"' in said

        follow(project, sync)
        passed, said = cutover_of(project, cutover)
        assert not passed
        assert "its synchronisation wrote rows since the last comparison" in said

        project.run(EVERYTHING, assets=[diff]).assert_success()
        passed, said = cutover_of(project, cutover)
        assert passed, said
    finally:
        connection.session.execute(f"DROP KEYSPACE IF EXISTS {there}", timeout=60)
