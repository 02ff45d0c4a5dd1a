"""Cassandra's row of the table of kinds."""

from migration_platform.declaration.stores import StoreDeclaration
from migration_platform.stores.cassandra.origin import CassandraOrigin
from migration_platform.stores.cassandra.target import CassandraTarget
from migration_platform.stores.interface import Kind

KIND = Kind(StoreDeclaration, CassandraOrigin, CassandraTarget)
