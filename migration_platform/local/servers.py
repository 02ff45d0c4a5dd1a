"""The local servers by the names that they have on the command line."""

from collections.abc import Mapping

from migration_platform.local.cassandra import Cassandra
from migration_platform.local.dynamodb import DynamoDb
from migration_platform.local.kafka import Kafka
from migration_platform.local.neo4j import Neo4j
from migration_platform.local.postgres import Postgres
from migration_platform.local.server import Server
from migration_platform.local.sunbird_service import Sunbird

SERVERS: Mapping[str, type[Server]] = {
    server.name: server for server in (Cassandra, Kafka, DynamoDb, Postgres, Neo4j, Sunbird)
}
