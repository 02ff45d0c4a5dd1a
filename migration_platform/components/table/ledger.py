"""What Dagster's event log knows of each range: copied, verified, failing.

The rule is one: a range counts as copied while its newest event is a materialization under the
current declaration and no run that planned it has failed since. Whatever makes that doubtful (a
table that was emptied, a copy that began and did not end) is an observation, and so newer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import dagster as dg
from dagster import AssetRecordsFilter, DagsterEventType, DagsterInstance
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from migration_platform.picture import Segment, State
from migration_platform.token_ranges import TokenRange

FINGERPRINT = "declaration"
"""Metadata key of a range's events: what `Plan.fingerprint` was when they were written."""
COMPARISON = "comparison"
"""Metadata key of a verdict: what `Plan.comparison` was when it was found."""
COPIED_EVENT = "copied_event"
"""Metadata key of a copy that was carried over: the storage id of the event of the copy itself.

A verdict holds as long as it is newer than that one."""

TRACKED = ("tracked_run_id", "tracked_status", "tracked_pieces")
"""Metadata keys of what a range is in the tracking tables, or is to be."""


@dataclass(frozen=True)
class RangeState:
    """One range as the event log shows it; counts of its last verdict, if it has one."""

    token_range: TokenRange
    copied: bool
    running: bool
    failed: bool
    rows: int
    rows_per_second: float
    compared: bool
    matches: bool
    verdict: Mapping[str, Any]
    emptied: bool = False
    copied_event: int = 0

    @property
    def state(self) -> State:
        """The state in the picture."""
        if self.copied and self.compared:
            return "verified" if self.matches else "failing"
        if self.copied:
            return "copied"
        if self.running:
            return "running"
        return "failing" if self.failed else "not copied"

    def to_segment(self) -> Segment:
        """Give the range as a part of the picture."""
        return Segment(self.token_range, self.state, self.rows, self.rows_per_second)


@dataclass(frozen=True)
class _Event:
    storage_id: int
    run_id: str
    is_materialization: bool
    metadata: Mapping[str, Any]


def read_states(
    instance: DagsterInstance,
    *,
    target: dg.AssetKey,
    diff: dg.AssetKey,
    ranges: Sequence[TokenRange],
    partitions: dg.PartitionsDefinition,
    fingerprint: str,
    comparison: str,
    run_id: str,
    before: bool = False,
) -> list[RangeState]:
    """Read the state of all ranges, as seen from the run `run_id`.

    A range that the run is to copy is not copied yet; with `before` it is what it was before.
    """
    keys = [token_range.key for token_range in ranges]
    status = instance.get_status_by_partition(target, keys, partitions) or {}
    copies = _latest_events(instance, target, keys)
    verdicts = _latest_events(instance, diff, keys)
    return [
        _to_state(
            token_range,
            status.get(token_range.key),
            copies.get(token_range.key),
            verdicts.get(token_range.key),
            fingerprint,
            comparison,
            run_id,
            before,
        )
        for token_range in ranges
    ]


def _to_state(
    token_range: TokenRange,
    status: AssetPartitionStatus | None,
    copy: _Event | None,
    verdict: _Event | None,
    fingerprint: str,
    comparison: str,
    run_id: str,
    before: bool,
) -> RangeState:
    current = copy is not None and copy.metadata.get(FINGERPRINT) == fingerprint
    mine = copy is not None and copy.run_id == run_id
    in_progress = status == AssetPartitionStatus.IN_PROGRESS and not before
    failed = status == AssetPartitionStatus.FAILED
    copied = (
        copy is not None
        and current
        and copy.is_materialization
        and not failed
        and (mine or not in_progress)
    )
    copied_event = int(copy.metadata.get(COPIED_EVENT, copy.storage_id)) if copy else 0
    compared = (
        copied
        and verdict is not None
        and verdict.storage_id > copied_event
        and verdict.metadata.get(FINGERPRINT) == fingerprint
        and verdict.metadata.get(COMPARISON) == comparison
        and "origin_rows" in verdict.metadata
    )
    begun = copy is not None and current and not copy.is_materialization
    return RangeState(
        token_range=token_range,
        copied=copied,
        running=in_progress and not copied,
        failed=failed or (begun and not in_progress),
        rows=int(copy.metadata.get("rows_written", 0)) if copy and copied else 0,
        rows_per_second=float(copy.metadata.get("rows_per_second", 0)) if copy and copied else 0.0,
        compared=compared,
        matches=compared and verdict is not None and verdict.is_materialization,
        verdict=verdict.metadata if compared and verdict is not None else {},
        emptied=copy is not None and bool(copy.metadata.get("emptied")),
        copied_event=copied_event,
    )


def _latest_events(
    instance: DagsterInstance, asset: dg.AssetKey, keys: Sequence[str]
) -> dict[str, _Event]:
    """Give the newest materialization or observation of each partition."""
    storage = instance.event_log_storage
    found: dict[str, _Event] = {}
    for event_type, fetch in (
        (DagsterEventType.ASSET_MATERIALIZATION, instance.fetch_materializations),
        (DagsterEventType.ASSET_OBSERVATION, instance.fetch_observations),
    ):
        ids = storage.get_latest_storage_id_by_partition(asset, event_type, set(keys))
        if not ids:
            continue
        records = fetch(
            AssetRecordsFilter(asset_key=asset, storage_ids=list(ids.values())), limit=len(ids)
        ).records
        for record in records:
            entry = record.asset_materialization or _observation_of(record)
            if entry is None or entry.partition is None:
                continue
            event = _Event(
                storage_id=record.storage_id,
                run_id=record.run_id,
                is_materialization=event_type == DagsterEventType.ASSET_MATERIALIZATION,
                metadata={name: value.value for name, value in entry.metadata.items()},
            )
            known = found.get(entry.partition)
            if known is None or known.storage_id < event.storage_id:
                found[entry.partition] = event
    return found


def _observation_of(record: Any) -> dg.AssetObservation | None:
    event = record.event_log_entry.dagster_event
    data = event.event_specific_data if event else None
    return getattr(data, "asset_observation", None)


def read_ranges_copied_before(
    instance: DagsterInstance,
    target: dg.AssetKey,
    ranges: Sequence[TokenRange],
    fingerprint: str,
) -> frozenset[TokenRange]:
    """Give the ranges that some run has copied under this declaration, whatever came later."""
    keys = {token_range.key: token_range for token_range in ranges}
    storage = instance.event_log_storage
    ids = storage.get_latest_storage_id_by_partition(
        target, DagsterEventType.ASSET_MATERIALIZATION, set(keys)
    )
    if not ids:
        return frozenset()
    records = instance.fetch_materializations(
        AssetRecordsFilter(asset_key=target, storage_ids=list(ids.values())), limit=len(ids)
    ).records
    found = (record.asset_materialization for record in records)
    return frozenset(
        keys[entry.partition]
        for entry in found
        if entry is not None
        and entry.partition is not None
        and FINGERPRINT in entry.metadata
        and entry.metadata[FINGERPRINT].value == fingerprint
    )


def read_tracked_pieces(
    instance: DagsterInstance, asset: dg.AssetKey, dagster_run_id: str, run_id: int
) -> dict[int, tuple[str, str]]:
    """Give state and counters of the pieces that a tracked run has shown as materialized.

    They are by the piece's first token.
    """
    found: dict[int, tuple[str, str]] = {}
    for entry in instance.all_logs(dagster_run_id, DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.asset_materialization
        if event is None or event.asset_key != asset or "tracked_pieces" not in event.metadata:
            continue
        told = {name: event.metadata[name].value for name in TRACKED}
        if told["tracked_run_id"] == str(run_id):
            pieces = cast(Mapping[str, str], told["tracked_pieces"])
            status = str(told["tracked_status"])
            found |= {int(token_min): (status, text) for token_min, text in pieces.items()}
    return found
