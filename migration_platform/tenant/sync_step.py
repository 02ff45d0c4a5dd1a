"""The step that has the search service read rows again: its plan, its calls, its proof."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from migration_platform.errors import DeclarationError
from migration_platform.stores.cassandra import Connection
from migration_platform.stores.sunbird_sync import SunbirdSync, SunbirdSyncSettings
from migration_platform.tenant.declaration import Move, SyncStep, TableStep
from migration_platform.tenant.records import (
    ALL,
    APPLIED,
    VERIFIED,
    PlanFolder,
    new_plan,
)
from migration_platform.tenant.rows import read_ids_of_table
from migration_platform.tenant.search_sync import (
    IndexVerdict,
    SyncResult,
    count_ids,
    describe_sync,
    read_ids,
    replay_failed,
    sync_ids,
    wait_for_index,
)
from migration_platform.tenant.steps import read_progress

LOGS = "logs"
NOT_SYNCED = (
    "the rows were rolled back, and the index still shows the move: run this step again, with "
    "dry_run: false"
)


def plan_sync(
    settings: SunbirdSyncSettings, move: Move, step: SyncStep, folder: Path
) -> PlanFolder:
    """Say what would be sent; no call is made.

    Raises:
        DeclarationError, PreflightError: there is no id file, or no id in it, or no key.
    """
    ids_of = _table_of(move, step)
    path = folder / ids_of.id_file
    hint = _hint(folder, ids_of)
    total = count_ids(path, hint)
    said = describe_sync(
        read_ids(path, hint),
        total,
        endpoint=str(settings),
        object_type=step.object_type,
        block_size=step.block_size,
        sleep_ms=step.sleep_ms,
        operation_type=settings.operation_type,
    )
    plan = new_plan(folder, step.name)
    plan.write_manifest(
        {
            "plan": plan.plan_id,
            "step": step.name,
            "made_at_us": time.time_ns() // 1000,
            "fingerprint": move.fingerprint(step),
            "planned": total,
            "blocks": said.blocks,
            "pause_seconds": said.pause_seconds,
            "request": said.request,
            "describes": str(said),
            "id_file": str(path),
        }
    )
    return plan


def _table_of(move: Move, step: SyncStep) -> TableStep:
    found = move.by_name[step.ids_of]
    assert isinstance(found, TableStep)
    return found


def _hint(folder: Path, ids_of: TableStep) -> str:
    """Say how to come by ids: the newest plan may have none, because an older one was applied."""
    applied = read_progress(folder, ids_of)
    if applied.plan is not None and applied.planned:
        return (
            f"the plan of {ids_of.name} that was applied has {applied.planned:,}: run the sync "
            f"with id_file: {applied.plan.path / 'ids.csv'}"
        )
    return f"make the plan of {ids_of.name} first"


@dataclass(frozen=True)
class AppliedSync:
    """What came of the calls; `missing` ids were not accepted yet."""

    missing: int
    verdict: IndexVerdict | None
    reason: str
    result: SyncResult | None = None

    @property
    def accepted(self) -> tuple[bool, str]:
        """Whether all ids were accepted, and a sentence."""
        said = f"{self.missing:,} ids are not accepted yet" if self.missing else "all were accepted"
        return not self.missing, str(self.result or said)


def apply_sync(
    client: SunbirdSync,
    connection: Connection | None,
    move: Move,
    step: SyncStep,
    folder: Path,
    plan: PlanFolder,
    *,
    replay: str | None,
    id_file: str | None,
    on_progress: Callable[[str], None],
) -> AppliedSync:
    """Send the ids of the id file, of all rows where there is a `connection`, or of a failure log.

    Raises:
        DeclarationError, PreflightError: there is nothing to send; nothing was sent.
        PermanentError: the logs cannot be written.
    """
    if sum(given is not None for given in (connection, replay, id_file)) > 1:
        raise DeclarationError("sync_all, replay and id_file name other ids each; give one of them")
    ids_of = _table_of(move, step)
    plan.forget(VERIFIED, ALL)
    logs: dict[str, Any] = {"log_folder": plan.path / LOGS, "on_progress": on_progress}
    if replay is not None:
        result = replay_failed(client, Path(replay), sleep_ms=step.sleep_ms, **logs)
    else:
        path = Path(id_file) if id_file else folder / ids_of.id_file
        hint = _hint(folder, ids_of)

        def ids() -> Iterator[str]:
            if connection is None:
                return read_ids(path, hint)
            return read_ids_of_table(connection, move, ids_of)

        total = count_ids(path, hint) if connection is None else sum(1 for _ in ids())
        result = sync_ids(
            client,
            ids(),
            total,
            object_type=step.object_type,
            block_size=step.block_size,
            sleep_ms=step.sleep_ms,
            **logs,
        )
    done, missing = result.ids_accepted, result.ids_failed
    if replay is not None:
        # Beside those that earlier calls sent.
        before = plan.outcome(APPLIED, ALL)
        done += before["changed"] if before else 0
        missing = max(missing, plan.manifest()["planned"] - done)
    log = str(result.failure_log) if result.ids_failed else ""
    plan.note(
        APPLIED,
        ALL,
        {"changed": done, "already": 0, "conflicts": missing, "gone": 0, "failure_log": log},
    )
    found = prove_sync(client, move, step, folder, plan)
    assert found is not None
    return replace(found, result=result)


def prove_sync(
    client: SunbirdSync, move: Move, step: SyncStep, folder: Path, plan: PlanFolder
) -> AppliedSync | None:
    """Ask the index and keep the verdict; None if nothing was sent yet."""
    applied = plan.outcome(APPLIED, ALL)
    if applied is None:
        return None
    missing, verdict = applied["conflicts"], None
    if not missing and step.index_field is not None:
        verdict = _ask_index(client, move, step, folder)
    reason = ""
    if missing:
        reason = f"{missing:,} ids were not accepted" + (
            f"; run the step with replay: {applied['failure_log']}, which sends exactly these"
            if applied["failure_log"]
            else ""
        )
    elif verdict is not None and not verdict.passed:
        reason = str(verdict)
    plan.note(VERIFIED, ALL, {"holds": not reason, "reason": reason})
    return AppliedSync(missing, verdict, reason)


def note_rollback(move: Move, step: SyncStep, folder: Path) -> None:
    """Take the verdict back where the rows that the index shows were put back."""
    progress = read_progress(folder, step)
    rows = read_progress(folder, move.by_name[step.ids_of])
    if progress.plan is not None and progress.done and rows.state == "rolled back":
        progress.plan.note(VERIFIED, ALL, {"holds": False, "reason": NOT_SYNCED})


def _ask_index(client: SunbirdSync, move: Move, step: SyncStep, folder: Path) -> IndexVerdict:
    """Count the documents of both tenants against the rows of the table's plan."""
    assert step.index_field is not None
    table = read_progress(folder, move.by_name[step.ids_of]).plan
    assert table is not None
    manifest = table.manifest()
    moved = (manifest["again"], manifest["planned"] + manifest["already"])
    # Before a move, or after its rollback; a list that names both tenants counts for both.
    unmoved = (manifest["planned"], manifest["already"] + manifest["doubles"])
    is_back = read_progress(folder, move.by_name[step.ids_of]).state == "rolled back"
    origin_expected, target_expected = unmoved if is_back else moved
    return wait_for_index(
        client,
        step.object_type,
        origin={step.index_field: move.origin_tenant},
        target={step.index_field: move.target_tenant},
        origin_expected=origin_expected,
        target_expected=target_expected,
        wait_seconds=step.wait_seconds,
    )
