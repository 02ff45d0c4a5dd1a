"""What Dagster's event log knows of each range: copied, verified, failing.

A range counts as copied while its newest event is a materialization under the current declaration
and no run that planned it has failed since. Whatever makes that doubtful (a table that was emptied,
a copy that began and did not end) is an observation, and so newer.

It counts as well when all of its rows were compared equal under the current declaration, and
nothing was copied, begun or emptied since that comparison began.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import dagster as dg
from dagster import AssetRecordsFilter, DagsterEventType, DagsterInstance
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from migration_platform.comparing.scope import FILTER
from migration_platform.picture import Segment, State
from migration_platform.token_ranges import TokenRange

FINGERPRINT = "declaration"
"""Metadata key of a range's events: what `Plan.fingerprint` was when they were written."""
COMPARISON = "comparison"
"""Metadata key of a verdict: what `Plan.comparison` was when it was found."""
COPIED_EVENT = "copied_event"
"""Metadata key of a copy that was carried over: the storage id of the event of the copy itself.

A verdict holds as long as it is newer than that one."""
COMPARED_OVER = "compared_over_event"
"""Metadata key of a verdict: the storage id of the newest that was known of the range's copy when
the comparison began, 0 for none. Only while that is the newest can the verdict stand for a copy."""
COMPARISON_BEGAN = "comparison_began"
"""Metadata key of a verdict on a table that is kept in step: the moment of its beginning."""
SYNC_POSITION = "sync_position"
"""Metadata key of a copy: the position of the origin's changes before its first row was read."""

TRACKED = ("tracked_run_id", "tracked_status", "tracked_pieces")
"""Metadata keys of what a range is in the tracking tables, or is to be."""


@dataclass(frozen=True)
class RangeState:
    """One range as the event log shows it; counts of its last verdict, if it has one.

    A range is `equal` that counts as copied only because its rows were compared equal.
    `sync_position` is that of its copy, as JSON, empty if none was noted.
    """

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
    equal: bool = False
    sync_position: str = ""

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
    copies, _ = _latest_events(instance, target, keys)
    verdicts, matching = _latest_events(instance, diff, keys)
    proofs = {
        key: int(verdict.metadata[COMPARED_OVER])
        for key, verdict in matching.items()
        if _stands_for_a_copy(verdict.metadata, fingerprint, comparison)
    }
    attempts = _latest_attempts(instance, target) if proofs else {}
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
            matching[token_range.key]
            if proofs.get(token_range.key) == _newest(token_range.key, copies, attempts)
            else None,
        )
        for token_range in ranges
    ]


def read_newest_copies(
    instance: DagsterInstance,
    target: dg.AssetKey,
    keys: Sequence[str],
    partitions: dg.PartitionsDefinition,
) -> dict[str, int]:
    """Give what is the newest of each range's copy, begun ones too; 0 where there is none.

    Ranges that are being copied are left out: a comparison beside that proves nothing.
    """
    status = instance.get_status_by_partition(target, keys, partitions) or {}
    copies, _ = _latest_events(instance, target, keys)
    attempts = _latest_attempts(instance, target)
    return {
        key: _newest(key, copies, attempts)
        for key in keys
        if status.get(key) != AssetPartitionStatus.IN_PROGRESS
    }


def _latest_attempts(instance: DagsterInstance, asset: dg.AssetKey) -> dict[str, int]:
    """Give the storage id at which a copy was planned that did not come to its end."""
    storage = instance.event_log_storage
    found = storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        asset
    )
    return {key: storage_id for key, (_, storage_id) in found.items()}


def _newest(key: str, copies: Mapping[str, "_Event"], attempts: Mapping[str, int]) -> int:
    return max(copies[key].storage_id if key in copies else 0, attempts.get(key, 0))


def _stands_for_a_copy(verdict: Mapping[str, Any], fingerprint: str, comparison: str) -> bool:
    """Say whether a verdict without a difference was found of all rows, in both directions."""
    return (
        verdict.get(FINGERPRINT) == fingerprint
        and verdict.get(COMPARISON) == comparison
        and COMPARED_OVER in verdict
        and {"origin_rows", "target_rows"} <= verdict.keys()
        and FILTER not in verdict
        and not verdict.get("ignored_newer")
    )


def _to_state(
    token_range: TokenRange,
    status: AssetPartitionStatus | None,
    copy: _Event | None,
    verdict: _Event | None,
    fingerprint: str,
    comparison: str,
    run_id: str,
    before: bool,
    proof: _Event | None,
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
    equal = not copied and proof is not None and not in_progress
    counted, name = (copy, "rows_written") if copied else (proof, "target_rows")
    copied_event = int(copy.metadata.get(COPIED_EVENT, copy.storage_id)) if copy else 0
    compared = (
        (copied or equal)
        and verdict is not None
        and verdict.storage_id > copied_event
        and verdict.metadata.get(FINGERPRINT) == fingerprint
        and verdict.metadata.get(COMPARISON) == comparison
        and "origin_rows" in verdict.metadata
    )
    begun = copy is not None and current and not copy.is_materialization
    return RangeState(
        token_range=token_range,
        copied=copied or equal,
        running=in_progress and not copied,
        failed=failed or (begun and not in_progress),
        rows=int(counted.metadata.get(name, 0)) if counted and (copied or equal) else 0,
        rows_per_second=float(copy.metadata.get("rows_per_second", 0)) if copy and copied else 0.0,
        compared=compared,
        matches=compared and verdict is not None and verdict.is_materialization,
        verdict=verdict.metadata if compared and verdict is not None else {},
        emptied=copy is not None and bool(copy.metadata.get("emptied")),
        copied_event=copied_event,
        equal=equal,
        sync_position=str(copy.metadata.get(SYNC_POSITION, "")) if copy and copied else "",
    )


def _latest_events(
    instance: DagsterInstance, asset: dg.AssetKey, keys: Sequence[str]
) -> tuple[dict[str, _Event], dict[str, _Event]]:
    """Give the newest event of each partition, and the newest that is a materialization."""
    storage = instance.event_log_storage
    found: dict[str, _Event] = {}
    materialized: dict[str, _Event] = {}
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
            if event.is_materialization:
                materialized[entry.partition] = event
    return found, materialized


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


def count_retries(
    instance: DagsterInstance, asset: dg.AssetKey, dagster_run_id: str, run_id: int
) -> int | None:
    """Count the requests that a tracked run tried again; None if this instance never saw it."""
    if instance.get_run_by_id(dagster_run_id) is None:
        return None
    found: dict[str | None, int] = {}
    for event_type in (
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_OBSERVATION,
    ):
        for entry in instance.all_logs(dagster_run_id, event_type):
            event = entry.asset_materialization or entry.asset_observation
            if event is None or event.asset_key != asset or "retries" not in event.metadata:
                continue
            told = event.metadata.get("tracked_run_id")
            if told is not None and told.value == str(run_id):
                # What is told of a range on its way counts from its beginning.
                retries = int(cast(int, event.metadata["retries"].value))
                found[event.partition] = max(found.get(event.partition, 0), retries)
    return sum(found.values())
