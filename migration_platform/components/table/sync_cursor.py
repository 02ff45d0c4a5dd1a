"""The cursor of a synchronisation's sensor: JSON that a person can read, edit, rewind and clear.

It holds a position, and in `seen` the id of the event that committed it. A position that is not
that event's was put there by a person: a run from there is requested, and once such a run has
committed something, the cursor follows what is committed again. An empty one follows it anyway.

No run has a key: Dagster remembers the keys of runs for ever, and would swallow a run that a
rewound cursor asks for again.
"""

import json
from dataclasses import dataclass

import dagster as dg

from migration_platform.components.table.sync_ledger import (
    Committed,
    began_since,
    read_commit,
)
from migration_platform.errors import DeclarationError
from migration_platform.syncing.position import Position

_CLEAR = (
    'clear the cursor to go on where the last run ended, or write {"position": {...}} with a '
    "position from the metadata of an earlier run"
)


@dataclass(frozen=True)
class Cursor:
    """Where the sensor believes the target to be; `wanted` is a position that a person asks for."""

    position: Position | None = None
    seen: int = 0
    wanted: Position | None = None

    def to_json(self) -> str:
        """Write the cursor as people read it."""
        position = self.wanted or self.position
        if position is None:
            return ""
        return json.dumps({"position": json.loads(position.to_json()), "seen": self.seen})


def read_cursor(text: str | None, topic: str, ranges: int) -> Cursor:
    """Read a cursor, as it was written or a person has left it.

    Raises:
        DeclarationError: it is none; says what is wrong, and how to get out.
    """
    if not text or not text.strip():
        return Cursor()
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or not isinstance(content.get("position"), dict):
            raise ValueError("it must be an object with a position")
        if unknown := content.keys() - {"position", "seen"}:
            raise ValueError(f"it holds {', '.join(sorted(unknown))}; valid are position, seen")
        seen = content.get("seen", 0)
        if isinstance(seen, bool) or not isinstance(seen, int) or seen < 0:
            raise ValueError("seen is no whole number")
        position = Position.parse(json.dumps(content["position"]))
    except (ValueError, RecursionError, DeclarationError) as error:
        raise DeclarationError(f"the cursor cannot be read: {error}; {_CLEAR}") from None
    try:
        return Cursor(position.for_table(topic, ranges), seen)
    except DeclarationError as error:
        raise DeclarationError(f"the cursor cannot be read: its {error}; {_CLEAR}") from None


def move_on(
    cursor: Cursor,
    newest: Committed | None,
    instance: dg.DagsterInstance,
    sync: dg.AssetKey,
) -> Cursor:
    """Let the cursor follow what is committed, unless a person wants something else."""
    followed = Cursor(newest.position, newest.storage_id) if newest else Cursor()
    if cursor.position is None:
        return followed
    known = read_commit(instance, sync, cursor.seen) if cursor.seen else None
    if known is not None and known.position == cursor.position:
        return followed
    if cursor.seen and began_since(instance, sync, cursor.seen, cursor.position):
        return followed
    # From the next event on it is known whether a run has begun there: older ones may have, too.
    seen = cursor.seen or _newest_id(instance, sync)
    return Cursor(cursor.position, seen, wanted=cursor.position)


def _newest_id(instance: dg.DagsterInstance, sync: dg.AssetKey) -> int:
    records = instance.fetch_materializations(sync, limit=1).records
    return records[0].storage_id if records else 0
