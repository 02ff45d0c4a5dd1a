"""The step that has the search service read rows again: its plan, its calls, its proof."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from migration_platform.errors import DeclarationError
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.sunbird_sync import SunbirdSync, SunbirdSyncSettings, to_object_type
from migration_platform.tenant.declaration import Move, SyncStep, TableStep
from migration_platform.tenant.records import (
    ALL,
    APPLIED,
    VERIFIED,
    PlanFolder,
    new_plan,
    whole_file,
)
from migration_platform.tenant.rows import count_tenants, read_ids_of_table
from migration_platform.tenant.search_sync import (
    IndexVerdict,
    SyncResult,
    describe_sync,
    read_failed_blocks,
    read_ids,
    replay_failed,
    sync_ids,
    wait_for_index,
)
from migration_platform.tenant.steps import applied_plans, read_progress

LOGS = "logs"
IDS = "ids.csv"
ACCEPTED = "accepted.csv"
"""The ids that the service accepted, one a line."""
NOT_SYNCED = (
    "the rows were rolled back, and the index still shows the move: run this step again, with "
    "dry_run: false"
)


def plan_sync(
    settings: SunbirdSyncSettings, move: Move, step: SyncStep, folder: Path
) -> PlanFolder:
    """Say what would be sent, and see that the key is taken; nothing is sent.

    Where the id file has none, because a later plan of the table found nothing more, these are the
    ids that the plans before it have moved.

    Raises:
        DeclarationError, PreflightError: there is no id file, or no id at all, or no key, or the
            service refuses it.
    """
    _require_search(settings, step)
    ids_of = _table_of(move, step)
    moved = _with_moved_ids((), folder, ids_of)
    path = folder / ids_of.id_file
    has_none = not path.exists() or not path.stat().st_size
    ids = moved if has_none and moved else _wanted_ids(folder, ids_of)
    with settings.connect() as client:
        unasked = client.check_key()
    said = describe_sync(
        iter(ids),
        len(ids),
        endpoint=str(settings),
        object_type=step.object_type,
        block_size=step.block_size,
        sleep_ms=step.sleep_ms,
        operation_type=settings.operation_type,
    )
    plan = new_plan(folder, step.name)
    with whole_file(plan.path / IDS) as file:
        file.writelines(f"{row_id}\n" for row_id in ids)
    warnings = [f"the API key could not be tried: {unasked}"] if unasked else []
    if has_none and moved:
        warnings.append(
            f"the id file {path} has no id, and these are the ids that were moved before; run "
            f"{step.name} with id_file: {plan.path / IDS}"
        )
    plan.write_manifest(
        {
            "plan": plan.plan_id,
            "step": step.name,
            "made_at_us": time.time_ns() // 1000,
            "fingerprint": move.fingerprint(step),
            "planned": len(ids),
            "blocks": said.blocks,
            "pause_seconds": said.pause_seconds,
            "request": said.request,
            "describes": str(said),
            "warnings": warnings,
            "id_file": str(path),
            "parts": {ALL: {}},
        }
    )
    return plan


def _require_search(settings: SunbirdSyncSettings, step: SyncStep) -> None:
    """Refuse to count documents where nobody can be asked.

    Raises:
        DeclarationError: one sentence.
    """
    kinds = {to_object_type(name) for name in settings.search_endpoints}
    if step.index_field is not None and to_object_type(step.object_type) not in kinds:
        raise DeclarationError(
            f"steps.{step.name}.sync.index_field is given, but the store {step.store} has no "
            f"search_endpoints.{to_object_type(step.object_type)} to count documents with; add "
            "it, or leave index_field out"
        )


def _wanted_ids(folder: Path, ids_of: TableStep, plan: PlanFolder | None = None) -> list[str]:
    """Give the ids of the id file, and those that earlier plans of the table have moved.

    A later plan of a table, made for rows that came late, has only these in its id file.

    Raises:
        PreflightError: there is no id file, or no id in it.
    """
    path = folder / ids_of.id_file
    return _with_moved_ids(read_ids(path, _hint(folder, ids_of, plan)), folder, ids_of)


def _with_moved_ids(ids: Iterable[str], folder: Path, ids_of: TableStep) -> list[str]:
    """Give ids, each once, and behind them the others that the table's plans have moved."""
    found = dict.fromkeys(ids)
    for plan in applied_plans(folder, ids_of):
        found |= dict.fromkeys(_read_lines(plan.path / "ids.csv"))
    return list(found)


def _read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _table_of(move: Move, step: SyncStep) -> TableStep:
    found = move.by_name[step.ids_of]
    assert isinstance(found, TableStep)
    return found


def _hint(folder: Path, ids_of: TableStep, plan: PlanFolder | None) -> str:
    """Say how to come by ids: the newest plan may have none, because older ones were applied."""
    moved = set(_with_moved_ids((), folder, ids_of))
    if not moved:
        return f"make the plan of {ids_of.name} first"
    if plan is None or not moved <= set(_read_lines(plan.path / IDS)):
        return (
            f"the plans of {ids_of.name} that were applied have {len(moved):,}: make the plan of "
            "the sync anew, which has them, and run the sync with id_file: ids.csv of that plan"
        )
    return (
        f"the plans of {ids_of.name} that were applied have {len(moved):,}: run the sync with "
        f"id_file: {plan.path / IDS}"
    )


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
    connection: Connection,
    move: Move,
    step: SyncStep,
    folder: Path,
    plan: PlanFolder,
    *,
    sync_all: bool,
    replay: str | None,
    id_file: str | None,
    on_progress: Callable[[str], None],
    on_warning: Callable[[str], None],
) -> AppliedSync:
    """Send the ids of the id file, those of all rows, or those of a failure log.

    Raises:
        DeclarationError, PreflightError: there is nothing to send; nothing was sent.
        PermanentError: the logs cannot be written.
    """
    if sync_all + (replay is not None) + (id_file is not None) > 1:
        raise DeclarationError("sync_all, replay and id_file name other ids each; give one of them")
    _require_search(client.settings, step)
    ids_of = _table_of(move, step)
    sent, wanted, accepted = _choose_ids(
        connection, move, folder, plan, ids_of, sync_all=sync_all, replay=replay, id_file=id_file
    )
    if sync_all:
        on_warning(
            f"sync_all: all {len(sent):,} rows of {ids_of.table} are sent, those of every tenant, "
            "and not only the ids of the id file"
        )
    plan.forget(VERIFIED, ALL)
    result = _send(client, step, plan, sent, replay, on_progress)
    failed: set[str] = set()
    if result.ids_failed:
        failed.update(i for block in read_failed_blocks(result.failure_log) for i in block.ids)
    accepted |= set(sent) - failed
    with whole_file(plan.path / ACCEPTED) as file:
        file.writelines(f"{row_id}\n" for row_id in sorted(accepted))
    missing = sum(1 for row_id in wanted if row_id not in accepted)
    plan.note(
        APPLIED,
        ALL,
        {
            "changed": len(wanted) - missing,
            "already": 0,
            "conflicts": missing,
            "gone": 0,
            "of": len(wanted),
            "failure_log": str(result.failure_log) if result.ids_failed else "",
            "reasons": list(result.reasons),
        },
    )
    found = prove_sync(client, connection, move, step, plan)
    assert found is not None
    return replace(found, result=result)


def _choose_ids(
    connection: Connection,
    move: Move,
    folder: Path,
    plan: PlanFolder,
    ids_of: TableStep,
    *,
    sync_all: bool,
    replay: str | None,
    id_file: str | None,
) -> tuple[list[str], list[str], set[str]]:
    """Give the ids to send, all that have to be accepted in the end, and those that are already."""
    accepted: set[str] = set()
    if replay is not None or id_file is not None:
        # Beside those that earlier calls sent.
        accepted.update(_read_lines(plan.path / ACCEPTED))
        sent = (
            [row_id for block in read_failed_blocks(Path(replay)) for row_id in block.ids]
            if replay is not None
            else list(read_ids(Path(id_file or "")))
        )
        wanted = _with_moved_ids([*accepted, *sent], folder, ids_of)
    elif sync_all:
        sent = wanted = list(read_ids_of_table(connection, move, ids_of))
    else:
        sent = wanted = _wanted_ids(folder, ids_of, plan)
    return sent, wanted, accepted


def _send(
    client: SunbirdSync,
    step: SyncStep,
    plan: PlanFolder,
    ids: Sequence[str],
    replay: str | None,
    on_progress: Callable[[str], None],
) -> SyncResult:
    """Send ids, or the blocks of a failure log as they were."""
    logs: dict[str, Any] = {"log_folder": plan.path / LOGS, "on_progress": on_progress}
    if replay is not None:
        return replay_failed(client, Path(replay), sleep_ms=step.sleep_ms, **logs)
    return sync_ids(
        client,
        ids,
        len(ids),
        object_type=step.object_type,
        block_size=step.block_size,
        sleep_ms=step.sleep_ms,
        **logs,
    )


def prove_sync(
    client: SunbirdSync, connection: Connection, move: Move, step: SyncStep, plan: PlanFolder
) -> AppliedSync | None:
    """Ask the index and keep the verdict; None if nothing was sent yet."""
    applied = plan.outcome(APPLIED, ALL)
    if applied is None:
        return None
    missing, verdict = applied["conflicts"], None
    if not missing and step.index_field is not None:
        verdict = _ask_index(client, connection, move, step)
    reason = ""
    if missing:
        told = "; ".join(applied["reasons"][:3])
        reason = f"{missing:,} ids were not accepted{f' ({told})' if told else ''}" + (
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
        (progress.plan.path / ACCEPTED).unlink(missing_ok=True)
        progress.plan.note(VERIFIED, ALL, {"holds": False, "reason": NOT_SYNCED})


def _ask_index(
    client: SunbirdSync, connection: Connection, move: Move, step: SyncStep
) -> IndexVerdict:
    """Count the documents of both tenants against the rows that the table has of them now."""
    assert step.index_field is not None
    origin_rows, target_rows = count_tenants(connection, move, _table_of(move, step))
    return wait_for_index(
        client,
        step.object_type,
        origin={step.index_field: move.origin_tenant},
        target={step.index_field: move.target_tenant},
        origin_expected=origin_rows,
        target_expected=target_rows,
        wait_seconds=step.wait_seconds,
    )
