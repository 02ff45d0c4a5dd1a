"""Moves Cassandra data as Dagster assets partitioned by token range, and proves that it arrived."""
