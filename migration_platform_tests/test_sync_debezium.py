"""What is done at a real Cassandra, told by Debezium's own connector, and read as keys.

It downloads 105 MB and takes two minutes, so it is only run when it is asked for:
`MIGRATION_PLATFORM_TEST_DEBEZIUM=1`. What the connector once wrote is read in every run, by
test_sync_messages.py.
"""

import os
import time
from contextlib import ExitStack
from struct import pack

import pytest
from cassandra.cluster import Session
from confluent_kafka.admin import AdminClient, NewTopic

from migration_platform.cql.names import TableName
from migration_platform.declaration.sync import KafkaChanges
from migration_platform.local.kafka import Kafka
from migration_platform.plan.model import Column, Table
from migration_platform.runs.events import KafkaSettings
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform.syncing.changes import Key
from migration_platform.syncing.kafka_changes import open_kafka_changes
from migration_platform_tests.debezium import PREFIX, WITH_CDC, connector
from migration_platform_tests.servers import PATIENCE_SECONDS, run_server
from migration_platform_tests.tables import plain_session

pytestmark = pytest.mark.skipif(
    "MIGRATION_PLATFORM_TEST_DEBEZIUM" not in os.environ,
    reason="MIGRATION_PLATFORM_TEST_DEBEZIUM=1 asks for it",
)
LINES = Table(
    name=TableName("shop", "lines"),
    table_id="",
    columns=(Column("customer", "int"), Column("day", "text"), Column("number", "int")),
    partition_key=("customer",),
    clustering_columns=("day", "number"),
    default_ttl_seconds=0,
)
CREATE = """
CREATE TABLE shop.lines (
    customer int, day text, number int, note text, vip boolean static, tags set<text>,
    PRIMARY KEY (customer, day, number)
) WITH cdc = true
"""
DONE = {
    "INSERT INTO shop.lines (customer, day, number, note) VALUES (1, 'mon', 1, 'n')": (1, "mon", 1),
    "UPDATE shop.lines SET tags = tags + {'b'} WHERE customer=1 AND day='tue' AND number=2": (
        *(1, "tue", 2),
    ),
    "DELETE note FROM shop.lines WHERE customer=2 AND day='mon' AND number=1": (2, "mon", 1),
    "DELETE FROM shop.lines WHERE customer=3 AND day='mon' AND number=1": (3, "mon", 1),
    "DELETE FROM shop.lines WHERE customer=4 AND day='tue'": (4, "tue"),
    "DELETE FROM shop.lines WHERE customer=5 AND day='wed' AND number > 2": (5, "wed"),
    "DELETE FROM shop.lines WHERE customer=6 AND day > 'thu'": (6,),
    "DELETE FROM shop.lines WHERE customer=7": (7,),
}
"""Statements, and the key that each must be told as."""


def test_whatever_is_written_or_deleted_is_told_as_the_key_of_all_that_it_concerns(tmp_path):
    topic = f"{PREFIX}.shop.lines"
    expected = {
        tuple(each.encode() if isinstance(each, str) else pack(">i", each) for each in key)
        for key in DONE.values()
    }
    with ExitStack() as running:
        kafka = running.enter_context(run_server(Kafka(), tmp_path / "kafka"))
        cassandra = running.enter_context(run_server(WITH_CDC, tmp_path / "cassandra"))
        session: Session = running.enter_context(
            plain_session(CassandraSettings(port=cassandra.port))
        )
        session.execute(
            "CREATE KEYSPACE shop WITH replication = "
            "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        )
        session.execute(CREATE)
        servers = f"127.0.0.1:{kafka.port}"
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(PATIENCE_SECONDS)
        running.enter_context(connector(tmp_path / "cassandra", cassandra.port, kafka.port))
        source = running.enter_context(
            open_kafka_changes(
                KafkaSettings(bootstrap_servers=servers),
                KafkaChanges("monitoring", topic, format="debezium"),
                LINES,
            )
        )
        position = source.now()
        for statement in DONE:
            session.execute(statement)
        found: set[Key] = set()
        deadline = time.monotonic() + 3 * PATIENCE_SECONDS
        while not expected <= found and time.monotonic() < deadline:
            batch = source.read(position, most=100, seconds=5)
            assert batch.unreadable == ()
            found |= set(batch.keys)
            position = batch.position
    log = tmp_path / "cassandra" / "connector.log"
    assert found == expected, log.read_text(errors="replace")[-2000:]
