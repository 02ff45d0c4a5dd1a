"""What a copy notes for the synchronisation after it: the position before its first row was read.

Nothing between both is lost then: what changed while the copy went on, is told behind the position.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg
from dagster import DagsterEventType

from migration_platform.components.table.ledger import SYNC_POSITION, RangeState
from migration_platform.components.table.reporting import RangedRun
from migration_platform.components.table.sync_ledger import EMPTIED
from migration_platform.declaration.sync import KafkaChanges
from migration_platform.errors import MigrationError
from migration_platform.plan.model import Table
from migration_platform.runs.events import KafkaSettings
from migration_platform.runs.resume import Division
from migration_platform.syncing.changes import ChangeSource
from migration_platform.syncing.kafka_changes import KafkaSource, open_kafka_changes
from migration_platform.syncing.position import Position, earliest


@contextmanager
def open_source(
    settings: KafkaSettings | None, declared: KafkaChanges | None, table: Table
) -> Iterator[ChangeSource | None]:
    """Open what tells of changes; None where nothing does.

    Raises:
        MigrationError: it cannot be reached; one sentence.
    """
    if declared is None or settings is None:
        yield None
        return
    with open_kafka_changes(settings, declared, table) as source:
        yield source


@contextmanager
def open_offsets(settings: KafkaSettings | None, declared: KafkaChanges) -> Iterator[ChangeSource]:
    """Open a topic of which no message is read, only how far it is.

    Raises:
        MigrationError: the client refuses the settings.
    """
    assert settings is not None
    source = KafkaSource(settings, declared.topic, lambda *_: "it is not read here", "")
    try:
        yield source
    finally:
        source.close()


def position_of_now(source: ChangeSource | None) -> Position:
    """Give the position behind all that changed until now.

    Raises:
        MigrationError: it cannot be asked.
    """
    moment = time.time()
    if source is None:
        return Position(synced_at=moment)
    return replace(source.now(), synced_at=moment)


def fix_position(run: RangedRun, kafka: KafkaSettings | None) -> None:
    """Note where a synchronisation of what this run copies has to begin.

    Raises:
        MigrationError: it cannot be asked, so the copy must not begin.
    """
    sync = run.job.migration.sync
    if sync is None or not run.copying:
        return
    assert run.plan is not None
    try:
        with open_source(kafka, sync.kafka, run.plan.origin) as source:
            position = position_of_now(source)
    except MigrationError as error:
        raise MigrationError(
            "the copy does not begin, for nobody would know from which change on a "
            f"synchronisation has to follow it: {error}"
        ) from None
    run.sync_position = position
    event = dg.AssetObservation(run.job.target, metadata={SYNC_POSITION: position.to_json()})
    run.context.log_event(event)


def note_emptied(run: RangedRun) -> None:
    """Note that positions that were committed before count no more: the target is emptied."""
    if run.job.sync is not None:
        event = dg.AssetObservation(run.job.sync, metadata={EMPTIED: True})
        run.context.log_event(event)


def tell_position(run: RangedRun, division: Division | None) -> dict[str, Any]:
    """Give the position of a range that this run has copied, some of it maybe earlier runs."""
    if run.sync_position is None:
        return {}
    earlier = _of_earlier_runs(run, division) if division and division.done else []
    if earlier is None:
        return {}
    return {SYNC_POSITION: earliest([run.sync_position, *earlier]).to_json()}


def tell_carried_position(run: RangedRun, division: Division, state: RangeState) -> dict[str, Any]:
    """Give the position of a range that earlier runs have copied: that of those runs."""
    if run.sync_position is None:
        return {}
    if state.copied:
        return {SYNC_POSITION: state.sync_position} if state.sync_position else {}
    earlier = _of_earlier_runs(run, division)
    return {SYNC_POSITION: earliest(earlier).to_json()} if earlier else {}


def _of_earlier_runs(run: RangedRun, division: Division) -> list[Position] | None:
    """Give the positions of the runs from which something is carried over; None if one has none."""
    by_id = {past["run_id"]: past["dagster_run_id"] for past in run.past}
    found = [_position_of(run, by_id.get(run_id)) for run_id in division.run_ids]
    known = [position for position in found if position is not None]
    return known if len(known) == len(found) else None


def _position_of(run: RangedRun, dagster_run_id: str | None) -> Position | None:
    if dagster_run_id is None:
        return None
    if dagster_run_id not in run.positions:
        logs: Sequence[Any] = run.context.instance.all_logs(
            dagster_run_id, DagsterEventType.ASSET_OBSERVATION
        )
        texts = [
            str(event.metadata[SYNC_POSITION].value)
            for entry in logs
            if (event := entry.asset_observation) is not None
            and event.asset_key == run.job.target
            and SYNC_POSITION in event.metadata
        ]
        run.positions[dagster_run_id] = Position.parse(texts[0]) if texts else None
    return run.positions[dagster_run_id]
