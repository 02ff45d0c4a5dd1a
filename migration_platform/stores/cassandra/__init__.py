"""Cassandra as an origin and a target: connection, reads, writes, counters, schemas."""
