"""Connections as Dagster resources; they own connections' settings and nothing else."""

from migration_platform.resources.cassandra import CassandraResource, TlsFiles
from migration_platform.resources.dynamodb import DynamoDbResource
from migration_platform.resources.kafka import KafkaResource
from migration_platform.resources.neo4j import Neo4jResource
from migration_platform.resources.postgres import PostgresResource
from migration_platform.resources.sunbird_sync import SunbirdSyncResource

__all__ = [
    "CassandraResource",
    "DynamoDbResource",
    "KafkaResource",
    "Neo4jResource",
    "PostgresResource",
    "SunbirdSyncResource",
    "TlsFiles",
]
