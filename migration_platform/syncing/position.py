"""How far a target follows its origin: one frozen value, and its JSON, which people read and edit.

A position is kept with every copied range (as it was before the range was read), with what a
synchronisation has done (only after the target acknowledged it), and in the sensor's cursor.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from migration_platform.errors import DeclarationError
from migration_platform.token_ranges import MAX_RANGES

MAX_OFFSET = 2**63 - 1
MAX_PARTITIONS = 100_000
MAX_UNREADABLE = 1_000
MAX_REASON = 300


@dataclass(frozen=True, order=True)
class Unreadable:
    """A message of which no key can be read, so that nobody knows which row it is about.

    `noted_at` is when that was found (seconds since 1970).
    """

    partition: int
    offset: int
    reason: str
    noted_at: float = 0.0


@dataclass(frozen=True)
class Position:
    """What of the origin's changes the target has.

    `offsets` are the next message of each partition of `topic`; `topic_id` is another one when a
    topic was deleted and made anew under its name. `open_ranges` are the indexes of
    token ranges that have yet to be compared, whatever messages say: what is left of a round, or
    what changed in a way that no message told. `compared_at` are the moments (seconds since 1970)
    at which a round began to compare a range last, by its index, `round_began_at` is that of the
    round itself. `synced_at` is the moment up to which the target has all changes.
    """

    topic: str = ""
    offsets: Mapping[int, int] = field(default_factory=dict)
    open_ranges: frozenset[int] = frozenset()
    round_began_at: float = 0.0
    compared_at: Mapping[int, float] = field(default_factory=dict)
    synced_at: float = 0.0
    unreadable: tuple[Unreadable, ...] = ()
    topic_id: str = ""

    def to_json(self) -> str:
        """Give the position as JSON on one line, in which neighbours stand together."""
        moments: dict[float, list[int]] = {}
        for index, moment in self.compared_at.items():
            moments.setdefault(moment, []).append(index)
        content = {
            "synced_at": _write_moment(self.synced_at),
            "topic": self.topic,
            "topic_id": self.topic_id,
            "offsets": {str(key): self.offsets[key] for key in sorted(self.offsets)},
            "open_ranges": _join(self.open_ranges),
            "round_began_at": _write_moment(self.round_began_at),
            "compared_at": {
                _join(moments[moment]): _write_moment(moment) for moment in sorted(moments)
            },
            "unreadable": [
                {
                    "partition": each.partition,
                    "offset": each.offset,
                    "reason": each.reason,
                    "noted_at": _write_moment(each.noted_at),
                }
                for each in self.unreadable
            ],
        }
        return json.dumps({key: value for key, value in content.items() if value})

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read what `to_json` gives, or a person has made of it.

        Raises:
            DeclarationError: it is no position; says what is wrong with it.
        """
        try:
            content = json.loads(text)
            if not isinstance(content, dict):
                raise ValueError("it must be an object")
            if unknown := content.keys() - _NAMES:
                raise ValueError(
                    f"it holds {', '.join(sorted(map(str, unknown)))}; valid are "
                    f"{', '.join(_NAMES)}"
                )
            return _read(cls, content)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DeclarationError(
                f"this is no position of a synchronisation: {error}; take one from the metadata "
                "of an earlier run, or clear it to go on where the last run ended"
            ) from None

    def for_table(self, topic: str, ranges: int) -> "Position":
        """Give the position as one of a table that is cut into so many ranges, told by a topic.

        Raises:
            DeclarationError: it is one of another topic or of more ranges; begins with `position`.
        """
        if self.topic not in ("", topic):
            raise DeclarationError(
                f"position is one of the topic {self.topic}, and sync reads {topic or 'no topic'}"
            )
        beyond = [i for i in (*self.open_ranges, *self.compared_at) if i >= ranges]
        if beyond:
            raise DeclarationError(
                f"position names the range {max(beyond)}, and there are {ranges}, numbered from 0"
            )
        return replace(self, topic=topic)

    def with_open(self, ranges: Iterable[int]) -> "Position":
        """Give the position with these ranges to be compared as well."""
        return replace(self, open_ranges=self.open_ranges.union(ranges))

    def with_compared(self, ranges: Iterable[int], began_at: float) -> "Position":
        """Give the position with these ranges compared, and all that differed written.

        What began at a moment finds every change that was there by then.
        """
        done = dict.fromkeys(ranges, began_at)
        return replace(
            self,
            open_ranges=self.open_ranges - done.keys(),
            compared_at={**self.compared_at, **done},
        )

    def all_compared_at(self, ranges: int) -> float:
        """Give the moment by which each of so many ranges has been compared; 0 if one was not."""
        return min(self.compared_at.get(index, 0.0) for index in range(ranges))


_NAMES = (
    "synced_at",
    "topic",
    "topic_id",
    "offsets",
    "open_ranges",
    "round_began_at",
    "compared_at",
    "unreadable",
)


def earliest(positions: Iterable[Position]) -> Position:
    """Give the position of the one that has least: where each of them lacks nothing.

    Messages are those of one topic: of a position of another one, or of one made anew, all ranges
    have to be compared (see `Position.open_ranges`), which is for the caller to say.
    """
    found = list(positions)
    topics = {(position.topic, position.topic_id) for position in found}
    topic, topic_id = topics.pop() if len(topics) == 1 else ("", "")
    offsets: dict[int, int] = {}
    for position in found if topic else ():
        for partition in position.offsets:
            known = [each.offsets[partition] for each in found if partition in each.offsets]
            # A partition that one of them does not know of was not there yet: all of it is new.
            offsets[partition] = min(known) if len(known) == len(found) else 0
    return Position(
        topic=topic,
        topic_id=topic_id,
        offsets=offsets,
        open_ranges=frozenset().union(*(position.open_ranges for position in found)),
        synced_at=min((position.synced_at for position in found), default=0.0),
        unreadable=tuple(
            sorted({each for position in found for each in position.unreadable})[:MAX_UNREADABLE]
        ),
    )


def _read(cls: type[Position], content: Mapping[str, Any]) -> Position:
    topic, topic_id = content.get("topic", ""), content.get("topic_id", "")
    if not isinstance(topic, str) or not isinstance(topic_id, str):
        raise ValueError("topic is no text")
    offsets = {
        _whole(key, MAX_PARTITIONS): _whole(value, MAX_OFFSET)
        for key, value in content.get("offsets", {}).items()
    }
    compared = {
        index: _read_moment(moment)
        for ranges, moment in content.get("compared_at", {}).items()
        for index in _split(ranges)
    }
    unreadable = [
        Unreadable(
            _whole(each.get("partition"), MAX_PARTITIONS),
            _whole(each.get("offset"), MAX_OFFSET),
            str(each.get("reason", ""))[:MAX_REASON],
            _read_moment(each.get("noted_at", "")),
        )
        for each in content.get("unreadable", [])
    ]
    if len(unreadable) > MAX_UNREADABLE:
        raise ValueError(f"it holds more than {MAX_UNREADABLE} unreadable messages")
    return cls(
        topic=topic,
        topic_id=topic_id,
        offsets=offsets,
        open_ranges=frozenset(_split(content.get("open_ranges", ""))),
        round_began_at=_read_moment(content.get("round_began_at", "")),
        compared_at=compared,
        synced_at=_read_moment(content.get("synced_at", "")),
        unreadable=tuple(unreadable),
    )


def _whole(value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) < 20):
        raise ValueError(f"{value[:40]!r} is no whole number")
    number = int(value)
    if not 0 <= number <= most:
        raise ValueError(f"{number} is not within 0 to {most}")
    return number


def _join(indexes: Iterable[int]) -> str:
    """Write numbers as `0...7, 9`."""
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and parts[-1][-1] == index - 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    return ", ".join("...".join(map(str, part)) for part in parts)


def _split(text: object) -> list[int]:
    """Read what `_join` writes."""
    if not isinstance(text, str):
        raise ValueError(f"{str(text)[:40]!r} names no ranges; write them as 0...7, 9")
    found: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        ends = [_whole(end.strip(), MAX_RANGES - 1) for end in part.split("...")]
        if len(ends) > 2 or ends[0] > ends[-1]:
            raise ValueError(f"{part[:40]!r} names no ranges; write them as 0...7, 9")
        found += range(ends[0], ends[-1] + 1)
    return found


def _write_moment(moment: float) -> str:
    if not moment:
        return ""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _read_moment(text: object) -> float:
    if text in ("", None):
        return 0.0
    if not isinstance(text, str):
        raise ValueError(f"{str(text)[:40]!r} is no moment; write it as 2030-01-31T12:00:00+00:00")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    found = moment.timestamp()
    if not math.isfinite(found) or found < 0:
        raise ValueError(f"{text[:40]!r} is before 1970")
    return found
