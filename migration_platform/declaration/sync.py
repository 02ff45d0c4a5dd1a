"""How a target follows its origin after a full copy, as declared, and what is refused of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from migration_platform.declaration.validation import (
    is_name,
    show,
    validate_choice,
    validate_flag,
    validate_mapping,
    validate_number,
)

FORMATS = ("json", "debezium")
MAX_LAG_SECONDS = 30 * 86_400
LONGEST_ROUND_SECONDS = 30 * 86_400


@dataclass(frozen=True)
class KafkaChanges:
    """A topic whose messages name keys of the origin.

    `key` gives for a column of the origin's key the place in a message's value, such as
    `after.id`; a column that it does not name stands at the top, under its own name. The format
    `debezium` is that of Debezium's connector for Cassandra, and says itself where keys are.
    """

    store: str
    topic: str
    format: str = "json"
    key: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScanRounds:
    """Rounds that compare all ranges in turn, and write what differs.

    One round takes `every_seconds`; a run compares `ranges_per_tick` ranges at most.
    """

    every_seconds: int = 3_600
    ranges_per_tick: int = 8


@dataclass(frozen=True)
class Sync:
    """How changes are found, and what becomes of them.

    With both `kafka` and `scan`, messages tell of changes, and rounds find what no message told.
    Without `deletes` a row that the origin does not have any more stays at the target.
    With `compare_times` a row that was written again with the same values is a change, too, for
    its cells have another time, and maybe another TTL.
    """

    kafka: KafkaChanges | None = None
    scan: ScanRounds | None = None
    deletes: bool = True
    max_lag_seconds: int = 600
    compare_times: bool = True


def validate_sync(sync: object) -> list[str]:
    """Refuse what cannot tell of changes, and values that are none."""
    if sync is None:
        return []
    if not isinstance(sync, Sync):
        return [f"sync is {show(sync)}; it must be a Sync"]
    wrong = [
        *validate_flag("sync.deletes", sync.deletes),
        *validate_flag("sync.compare_times", sync.compare_times),
        *validate_number("sync.max_lag_seconds", sync.max_lag_seconds, 1, MAX_LAG_SECONDS),
    ]
    if sync.kafka is None and sync.scan is None:
        wrong.append("sync says nothing of how changes are found; give it kafka, scan or both")
    if sync.kafka is not None:
        wrong += _wrong_kafka(sync.kafka)
    if sync.scan is not None:
        every = validate_number(
            "sync.scan.every, in seconds,", sync.scan.every_seconds, 1, LONGEST_ROUND_SECONDS
        )
        wrong += every
        wrong += validate_number("sync.scan.ranges_per_tick", sync.scan.ranges_per_tick, 1, 1_024)
    return wrong


def _wrong_kafka(kafka: KafkaChanges) -> list[str]:
    wrong = [
        f"sync.kafka.{name} is {show(value)}; name a {what}"
        for name, value, what in (
            ("store", kafka.store, "Kafka store"),
            ("topic", kafka.topic, "topic"),
        )
        if not is_name(value)
    ]
    if is_name(kafka.topic) and not re.fullmatch(r"[\w.-]{1,249}", kafka.topic, re.ASCII):
        wrong.append(
            f"sync.kafka.topic is {show(kafka.topic)}; valid are 1 to 249 letters, digits, "
            "dots, underscores and hyphens"
        )
    wrong += validate_choice("sync.kafka.format", kafka.format, FORMATS)
    faults = validate_mapping("sync.kafka.key", kafka.key, to_names=True)
    if not faults and kafka.key and kafka.format == "debezium":
        faults = [
            "sync.kafka.key says where keys are, and format debezium says it itself; leave one out"
        ]
    return wrong + faults
