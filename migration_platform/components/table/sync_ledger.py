"""What Dagster's event log knows of a synchronisation, and from where the next run has to begin.

A position is committed with a materialization of the table's `_sync` asset: only after the target
acknowledged all before it. The rule of where a run begins, if nobody says otherwise:

- A committed position speaks for the ranges whose copy was there when the run that committed it
  began (`copies_seen`). For a range that was copied since, also beside that run, the position of
  its copy counts as well: the earliest of all is where to begin. So what changed between a
  synchronisation and a later copy is read again, deletions included, which a copy does not make.
- Once the target was emptied, what was committed before counts no more: the ranges were copied
  anew, and the earliest of their copies' positions is where to begin.
- A range without a position (copied before `sync` was declared, or compared equal and never copied)
  is compared first, and so are all ranges where a position is of another topic: what that one told
  is not to be had any more.
- Under another declaration a committed position still tells from when on changes are lacking, but
  which of its ranges were compared is forgotten.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetRecordsFilter, DagsterEventType, DagsterInstance

from migration_platform.components.table.ledger import COMPARISON_BEGAN, FINGERPRINT, RangeState
from migration_platform.errors import DeclarationError
from migration_platform.syncing.position import Position, earliest
from migration_platform.token_ranges import TokenRange

POSITION, BEGAN_AT = "position", "began_at"
TOUCHED, COPIES_SEEN, REACHED_AT = "touched", "copies_seen", "reached_at"
EMPTIED = "emptied"
_LOOK_BACK = 20
"""So many events are searched for one that has a position: others a person may have reported."""


@dataclass(frozen=True)
class Committed:
    """A position that was committed, and what was known with it.

    `began_at` is where its run began, `touched` the moments at which a synchronisation last wrote
    into a range, by the range's key, and `reached_at` the moment at which its offsets were reached.
    """

    storage_id: int
    at: float
    position: Position
    began_at: Position | None = None
    fingerprint: str = ""
    touched: Mapping[str, float] = field(default_factory=dict)
    copies_seen: int = 0
    reached_at: float = 0.0


@dataclass(frozen=True)
class Start:
    """Where a run begins; `why` says what else is to be done because of it, empty for nothing."""

    position: Position
    why: str = ""


def read_committed(instance: DagsterInstance, sync: dg.AssetKey) -> Committed | None:
    """Read the position that was committed last; None if none was, or the target was emptied."""
    chosen = AssetRecordsFilter(asset_key=sync)
    records = instance.fetch_materializations(chosen, limit=_LOOK_BACK).records
    newest = next(filter(None, map(_to_committed, records)), None)
    if newest is None:
        return None
    emptied = instance.fetch_observations(chosen, limit=1).records
    return None if emptied and emptied[0].storage_id > newest.storage_id else newest


def read_commit(instance: DagsterInstance, sync: dg.AssetKey, storage_id: int) -> Committed | None:
    """Read what one event committed."""
    chosen = AssetRecordsFilter(asset_key=sync, storage_ids=[storage_id])
    records = instance.fetch_materializations(chosen, limit=1).records
    return _to_committed(records[0]) if records else None


def began_since(
    instance: DagsterInstance, sync: dg.AssetKey, storage_id: int, position: Position
) -> bool:
    """Say whether a run that began at a position has committed something since an event."""
    chosen = AssetRecordsFilter(asset_key=sync, after_storage_id=storage_id)
    records = instance.fetch_materializations(chosen, limit=500).records
    found = (_to_committed(record) for record in records)
    return any(each is not None and each.began_at == position for each in found)


def _to_committed(record: Any) -> Committed | None:
    event = record.asset_materialization
    told = {name: value.value for name, value in event.metadata.items()} if event else {}
    if POSITION not in told:
        return None
    try:
        position = Position.parse(str(told[POSITION]))
        began_at = Position.parse(str(told[BEGAN_AT])) if BEGAN_AT in told else None
    except DeclarationError:
        return None
    touched = told.get(TOUCHED) or {}
    if isinstance(touched, str):
        touched = json.loads(touched)
    return Committed(
        storage_id=record.storage_id,
        at=record.timestamp,
        position=position,
        began_at=began_at,
        fingerprint=str(told.get(FINGERPRINT, "")),
        touched={key: read_moment(moment) for key, moment in touched.items()},
        copies_seen=int(told.get(COPIES_SEEN, 0)),
        reached_at=read_moment(told.get(REACHED_AT, "")),
    )


def read_newest_copy(instance: DagsterInstance, target: dg.AssetKey, keys: Iterable[str]) -> int:
    """Give the storage id of the newest event by which a range counts as copied; 0 for none."""
    ids = instance.event_log_storage.get_latest_storage_id_by_partition(
        target, DagsterEventType.ASSET_MATERIALIZATION, set(keys)
    )
    return max(ids.values(), default=0)


def find_start(
    committed: Committed | None,
    states: Sequence[RangeState],
    *,
    topic: str,
    fingerprint: str,
    now: Callable[[], Position],
) -> Start:
    """Say where to begin; see the rule above. `now` gives the position of this moment."""
    seen = committed.copies_seen if committed else 0
    since = [
        state
        for state in states
        if committed is None or (not state.equal and state.copied_event > seen)
    ]
    known = [Position.parse(state.sync_position) for state in since if state.sync_position]
    unknown = [state.token_range.index for state in since if not state.sync_position]
    bases = [*([committed.position] if committed else []), *known]
    everything = range(len(states))
    synced_at = min((base.synced_at for base in bases), default=0.0)
    if any(base.topic != topic for base in bases) or len({b.topic_id for b in bases}) > 1:
        others = ", ".join(sorted({base.topic or "no topic" for base in bases} - {topic}))
        others = others or f"{topic} before it was made anew"
        position = replace(now(), synced_at=synced_at).with_open(everything)
        return Start(
            position,
            f"what was known is a position of {others}, and changes are read from "
            f"{topic or 'no topic'} now: all ranges are compared",
        )
    position = earliest(bases) if bases else replace(now(), synced_at=synced_at)
    if committed is None:
        return Start(position.with_open(unknown), _tell_unknown(unknown))
    if committed.fingerprint == fingerprint:
        copied = {state.token_range.index for state in since}
        compared = committed.position.compared_at.items()
        position = replace(
            position,
            round_began_at=committed.position.round_began_at,
            compared_at={index: at for index, at in compared if index not in copied},
        )
    elif position.open_ranges:
        position = replace(position, open_ranges=frozenset()).with_open(everything)
    return Start(position.with_open(unknown), _tell_unknown(unknown))


def _tell_unknown(unknown: Sequence[int]) -> str:
    if not unknown:
        return ""
    return f"{len(unknown)} ranges have no position of a copy: they are compared first"


def written_since(states: Sequence[RangeState], committed: Committed | None) -> list[TokenRange]:
    """Give the ranges that a synchronisation has written into since they were compared."""
    if committed is None:
        return []
    return [
        state.token_range
        for state in states
        if (at := committed.touched.get(state.token_range.key, 0.0)) and at >= compared_from(state)
    ]


def compared_from(state: RangeState) -> float:
    """Give the moment at which a range's last comparison began; 0 if that was not noted."""
    return read_moment(state.verdict.get(COMPARISON_BEGAN, ""))


def write_moment(moment: float) -> str:
    """Write a moment (seconds since 1970) as people read it."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def read_moment(text: object) -> float:
    """Read what `write_moment` writes; 0 for anything else."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
