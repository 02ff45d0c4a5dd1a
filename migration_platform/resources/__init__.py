"""Connections as Dagster resources; they own connections' settings and nothing else."""

from migration_platform.resources.cassandra import CassandraResource, TlsFiles
from migration_platform.resources.dynamodb import DynamoDbResource
from migration_platform.resources.kafka import KafkaResource

__all__ = ["CassandraResource", "DynamoDbResource", "KafkaResource", "TlsFiles"]
