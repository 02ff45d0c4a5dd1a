"""How the local Kafka is started, and when it is ready."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from migration_platform.local.ports import LOCALHOST, free_port
from migration_platform.local.server import (
    JVM_OVERHEAD_MB,
    Launch,
    Server,
    java_launch,
    run_once,
    temporary_folder,
)


@dataclass(frozen=True, kw_only=True)
class Kafka(Server):
    """A Kafka broker that is its own controller (KRaft).

    Attributes:
        heap_mb: Java heap.
    """

    name: ClassVar[str] = "kafka"
    default_port: ClassVar[int] = 9092
    disk_mb: ClassVar[int] = 500
    ready_within_seconds: ClassVar[int] = 60

    heap_mb: int = 512

    @property
    def memory_mb(self) -> int:
        """Heap and the JVM's own needs."""
        return self.heap_mb + JVM_OVERHEAD_MB

    def prepare(self, *, folder: Path, port: int, jars: Sequence[Path], log: Path) -> Launch:
        """Write `server.properties` and format the log folder once; see `Server.prepare`."""
        data = folder / "data"
        controller_port = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{LOCALHOST}:{controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{LOCALHOST}:{port},CONTROLLER://{LOCALHOST}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{LOCALHOST}:{port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": data,
            # The defaults of these ask for three brokers.
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # One consumer group at a time: fifty partitions would only slow the first one down.
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
        }
        config = folder / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        properties = {
            "org.slf4j.simpleLogger.showDateTime": "true",
            "org.slf4j.simpleLogger.dateTimeFormat": "yyyy-MM-dd HH:mm:ss,SSS",
            "org.slf4j.simpleLogger.showShortLogName": "true",
            "java.io.tmpdir": temporary_folder(folder),
        }
        if not (data / "meta.properties").exists():
            cluster_id = "migration-platform-0-1"
            run_once(
                java_launch(
                    "kafka.tools.StorageTool",
                    "format",
                    "-t",
                    cluster_id,
                    "-c",
                    str(config),
                    "--ignore-formatted",
                    heap_mb=self.heap_mb,
                    jars=jars,
                    properties=properties,
                ),
                log=log,
            )
        return java_launch(
            "kafka.Kafka", str(config), heap_mb=self.heap_mb, jars=jars, properties=properties
        )

    def answers(self, port: int) -> bool:
        """Whether the broker lists its topics."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        # The library writes to standard error by itself; what it says there is only "not yet".
        client = AdminClient({"bootstrap.servers": f"{LOCALHOST}:{port}", "log_level": 0})
        try:
            return bool(client.list_topics(timeout=3).brokers)
        except KafkaException:
            return False
