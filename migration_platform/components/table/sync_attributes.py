"""The block of attributes with which YAML declares how a target follows its origin."""

import re

import dagster as dg
from pydantic import Field

from migration_platform.components.attributes import NamedAttributes
from migration_platform.cql.names import TableName
from migration_platform.declaration.sync import KafkaChanges, ScanRounds, Sync
from migration_platform.declaration.validation import is_whole, show
from migration_platform.errors import DeclarationError

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_ROUNDS_OF_LAG = 2
"""A range is compared again when a round has passed; a second one is what a busy hour may take."""


class KafkaChangesAttributes(NamedAttributes, dg.Model):
    """A topic whose messages name keys of the origin."""

    store: str = Field(description="Name of a Kafka store.")
    topic: str = Field(
        description="Topic; {keyspace} and {table} stand for the origin's names, in quotes."
    )
    format: str = Field(
        KafkaChanges.format, description="json, or debezium for its connector for Cassandra."
    )
    key: dict[str, str] = Field(
        default_factory=dict,
        description="A column of the origin's key to its place in a message, such as after.id; "
        "default: at the top, under its own name.",
    )


class ScanRoundsAttributes(NamedAttributes, dg.Model):
    """Rounds that compare all ranges in turn, and write what differs."""

    every: str | int = Field("1h", description="Time of a round: 15m, 2h, or seconds.")
    ranges_per_tick: int = Field(
        ScanRounds.ranges_per_tick, description="So many ranges a run compares at most."
    )


class SyncAttributes(NamedAttributes, dg.Model):
    """How the target follows the origin after a full copy; kafka, scan or both."""

    kafka: KafkaChangesAttributes | None = Field(
        None, description="A topic whose messages name keys of the origin."
    )
    scan: ScanRoundsAttributes | None = Field(
        None, description="Rounds that compare all ranges in turn, and write what differs."
    )
    deletes: bool = Field(
        default=Sync.deletes, description="Whether rows that are gone at the origin are deleted."
    )
    max_lag_seconds: int | None = Field(
        None,
        description="Behind by more than this, the check sync_is_fresh is red; default: 600, with "
        "scan alone the time of two rounds.",
    )
    compare_times: bool = Field(
        default=Sync.compare_times,
        description="Whether a row with the same values and other times is written again.",
    )
    enabled: bool = Field(default=True, description="false leaves a table of a keyspace out of it.")


def declare_sync(declared: SyncAttributes | None, origin: TableName) -> Sync | None:
    """Turn the attributes into a declaration; None where there is none, or none is wanted.

    Raises:
        DeclarationError: the time of a round is none, or longer than the lag that is allowed.
    """
    if declared is None or not declared.enabled:
        return None
    kafka, scan = declared.kafka, declared.scan
    rounds = ScanRounds(read_seconds(scan.every), scan.ranges_per_tick) if scan else None
    lag = declared.max_lag_seconds
    if lag is None:
        alone = rounds is not None and kafka is None
        lag = max(
            Sync.max_lag_seconds, _ROUNDS_OF_LAG * rounds.every_seconds * alone if rounds else 0
        )
    elif rounds is not None and kafka is None and lag < rounds.every_seconds:
        raise DeclarationError(
            f"sync.max_lag_seconds is {lag}, but a round of sync.scan takes "
            f"{rounds.every_seconds} seconds, and a target is behind by a round; allow as much, or "
            "make rounds shorter"
        )
    return Sync(
        kafka=KafkaChanges(kafka.store, _fill_in(kafka.topic, origin), kafka.format, kafka.key)
        if kafka
        else None,
        scan=rounds,
        deletes=declared.deletes,
        max_lag_seconds=lag,
        compare_times=declared.compare_times,
    )


def _fill_in(topic: str, origin: TableName) -> str:
    return topic.replace("{keyspace}", origin.keyspace).replace("{table}", origin.table)


def read_seconds(every: str | int) -> int:
    """Read the time of a round: 15m, 2h, or so many seconds.

    Raises:
        DeclarationError: it is none.
    """
    if is_whole(every):
        return every
    found = re.fullmatch(r"(\d{1,9})\s*([smhd]?)", str(every).strip())
    if found is None:
        raise DeclarationError(
            f"sync.scan.every is {show(every)}; write a time such as 90s, 15m or 2h, or seconds"
        )
    return int(found[1]) * _UNITS[found[2] or "s"]
