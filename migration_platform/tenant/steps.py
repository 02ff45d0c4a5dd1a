"""The order of a move: what a step's plan needs, what its run may build on, how far it is.

What is true stands in the move's folder; a run reads it there itself, whoever started it and
whenever the step before it ran.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from migration_platform.errors import DeclarationError, PermanentError
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.tenant.changes import (
    Changes,
    apply_range,
    back_up_range,
    count_restored,
    planned_rows,
    restore_range,
    saved_rows,
)
from migration_platform.tenant.declaration import Move, Step, SyncStep, TableStep
from migration_platform.tenant.key_reads import refuse_missing_tenants
from migration_platform.tenant.proof import Proof, prove_range
from migration_platform.tenant.records import (
    ALL,
    APPLIED,
    ROLLED_BACK,
    VERIFIED,
    Part,
    PlanFolder,
    new_plan,
    newest_plan,
    part_writer,
    plans_of,
    table_file,
    whole_file,
)
from migration_platform.tenant.rows import PlannedRow, RangeSums, VisibleRow, plan_range, scan_range
from migration_platform.tenant.shape import TableShape, shape_table
from migration_platform.token_ranges import TokenRange

PREVIEW_ROWS = 10
GRAPH_HEADER = ["node", "labels", "property", "before", "after"]
State = Literal[
    "not planned", "planned", "partly applied", "applied", "verified", "failing", "rolled back"
]


def keys_of(step: Step) -> tuple[str, ...]:
    """Give the parts of a step: its token ranges, or the one part that it has."""
    if isinstance(step, TableStep):
        return tuple(token_range.key for token_range in step.ranges)
    return (ALL,)


# -- how far a step is ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """How far a step is. Counts are rows, ids or nodes.

    Attributes:
        plan: The newest plan that was applied, or the newest if none was.
        parts: How many of the step's parts are applied, of how many.
        reason: Why it is failing.
    """

    step: str
    state: State
    plan: PlanFolder | None = None
    planned: int = 0
    done: int = 0
    conflicts: int = 0
    parts: tuple[int, int] = (0, 0)
    reason: str = ""


def read_progress(folder: Path, step: Step) -> Progress:
    """Say how far a step is, from what stands in the move's folder."""
    plans = plans_of(folder, step.name)
    if not plans:
        return Progress(step.name, "not planned", parts=(0, len(keys_of(step))))
    begun = [each for each in plans if each.outcomes(APPLIED) or each.outcomes(ROLLED_BACK)]
    # A later plan is a look, and takes nothing back of what was found true.
    plan = begun[-1] if begun else plans[-1]
    keys, applied, verified = plan.keys, plan.outcomes(APPLIED), plan.outcomes(VERIFIED)
    failing = [value["reason"] for value in verified.values() if not value["holds"]]
    conflicts = sum(value["conflicts"] + value["gone"] for value in applied.values())
    if isinstance(step, SyncStep) and verified and not failing:
        failing = _validate_age_of_sync(folder, step, verified[ALL]["at_us"])
    state: State
    if plan.outcomes(ROLLED_BACK):
        state = "rolled back"
    elif failing or conflicts:
        state = "failing"
    elif not applied:
        state = "planned"
    elif len(applied) < len(keys):
        state = "partly applied"
    else:
        state = "verified" if len(verified) == len(keys) else "applied"
    of = [value["of"] for value in applied.values() if "of" in value]
    return Progress(
        step=step.name,
        state=state,
        plan=plan,
        planned=sum(of) if of else plan.manifest()["planned"],
        done=sum(value["changed"] + value["already"] for value in applied.values()),
        conflicts=conflicts,
        parts=(len(applied), len(keys)),
        reason="; ".join(dict.fromkeys(failing)),
    )


def _validate_age_of_sync(folder: Path, step: SyncStep, verified_us: int) -> list[str]:
    """Say that rows were changed after the search service read them."""
    later = sum(
        value["changed"]
        for plan in plans_of(folder, step.ids_of)
        for value in plan.outcomes(APPLIED).values()
        if value["at_us"] > verified_us
    )
    return [f"{later:,} of {step.ids_of} were changed after it; run it again"] if later else []


_MEANS: dict[State, str] = {
    "not planned": "has no plan yet; make it, look at it, and run the step with dry_run: false",
    "planned": "is planned but not applied; run it with dry_run: false",
    "partly applied": "is applied in {done} of {parts} ranges; run the others",
    "applied": "is applied but not verified; run it again, which only verifies",
    "failing": "is not as it should be ({reason}); make a new plan and run it",
    "rolled back": "was rolled back; make a new plan and run it",
}


def refuse_out_of_order(move: Move, folder: Path, step: Step) -> None:
    """Refuse a real run of a step before the ones in front of it are verified.

    Raises:
        DeclarationError: one sentence with the first step that is missing.
    """
    if isinstance(step, SyncStep) and (
        read_progress(folder, move.by_name[step.ids_of]).state == "rolled back"
    ):
        # The index has to show the origin again, and reading rows again never harms.
        return
    for earlier in move.before(step.name):
        progress = read_progress(folder, earlier)
        if progress.state == "verified":
            continue
        done, parts = progress.parts
        means = _MEANS[progress.state].format(
            done=done,
            parts=parts,
            reason=progress.reason or f"{progress.conflicts:,} conflicts",
        )
        raise DeclarationError(
            f"{step.name} comes after {earlier.name}, and {earlier.name} {means}"
        )


def require_plan(move: Move, folder: Path, step: Step) -> PlanFolder:
    """Give the plan that a real run applies: the newest one.

    Raises:
        DeclarationError: there is none, or it was made under other rules, or rolled back.
    """
    plan = newest_plan(folder, step.name)
    way_out = "run the step with dry_run: true, and look at its plan"
    if plan is None:
        raise DeclarationError(f"{step.name} has no plan yet: {way_out}")
    if plan.manifest()["fingerprint"] != move.fingerprint(step):
        raise DeclarationError(
            f"the declaration of {step.name} has changed since its plan {plan.plan_id}: {way_out}"
        )
    if plan.outcomes(ROLLED_BACK):
        raise DeclarationError(f"the plan {plan.plan_id} of {step.name} was rolled back: {way_out}")
    return plan


# -- the plan of a table -------------------------------------------------------------------------


def plan_table(
    connection: Connection,
    move: Move,
    step: TableStep,
    folder: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_retry: Callable[[BaseException], None] = lambda error: None,
) -> PlanFolder:
    """Read the whole table, and write down what would change; nothing else is written.

    Raises:
        PreflightError: a tenant, a table, a column or what is looked up is missing.
    """
    refuse_missing_tenants(connection, move)
    shape = shape_table(connection, move, step)
    made_at_us = time.time_ns() // 1000
    plan = new_plan(folder, step.name)
    try:
        manifest = _write_plan(connection, move, shape, folder, plan, on_progress, on_retry)
        plan.write_manifest(
            {
                "plan": plan.plan_id,
                "step": step.name,
                "made_at_us": made_at_us,
                "fingerprint": move.fingerprint(step),
                "table": str(shape.table.name),
                "table_id": shape.table.table_id,
                "columns": {name: shape.table.type_of(name) for name in step.changed},
                "looked_up": dict(shape.looked_up),
                **manifest,
            }
        )
    except BaseException:
        shutil.rmtree(plan.path, ignore_errors=True)
        raise
    return plan


def preview_header(step: TableStep) -> list[str]:
    """Give the columns of a plan's preview."""
    return ["id", *(f"{name} {when}" for name in step.changed for when in ("before", "after"))]


def _write_plan(
    connection: Connection,
    move: Move,
    shape: TableShape,
    folder: Path,
    plan: PlanFolder,
    on_progress: Callable[[int, int], None],
    on_retry: Callable[[BaseException], None],
) -> dict[str, Any]:
    step, counts, parts = shape.step, {"planned": 0, "rows": 0, "already": 0, "again": 0}, {}
    counts["doubles"] = 0
    # The row that is the target tenant itself is none that has it already.
    shows_tenant = step.select in step.changed
    preview: list[list[str]] = []
    values: set[bytes] = set()
    with ExitStack() as files:
        # The plan keeps a copy of its own: the next plan may have none of them left.
        ids = [
            files.enter_context(whole_file(path))
            for path in (folder / step.id_file, plan.path / "ids.csv")
        ]
        already = files.enter_context(whole_file(plan.path / "already.csv"))
        table = files.enter_context(table_file(plan.path / "preview.csv", preview_header(step)))
        for number, token_range in enumerate(step.ranges):
            sums, key = RangeSums(), token_range.key
            with (
                part_writer(plan.part("plan", key)) as writer,
                part_writer(plan.part("visible", key)) as seen,
            ):

                def note(row: VisibleRow, seen: Any = seen) -> None:
                    seen.write(row.to_json())
                    already.write(f"{row.id}\n")
                    if row.value is not None:
                        values.add(row.value)

                rows = scan_range(connection, move, shape, token_range, on_retry=on_retry)
                for row in plan_range(shape, rows, sums, note):
                    writer.write(row.to_json())
                    for file in ids:
                        file.write(f"{row.id}\n")
                    shown = _preview(shape, row)
                    table(shown)
                    if len(preview) < PREVIEW_ROWS:
                        preview.append(shown)
                    counts["again"] += row.is_again
                    counts["doubles"] += row.doubles
            parts[key] = _describe(writer.part, seen.part, sums)
            counts["planned"] += writer.part.lines
            counts["rows"] += sums.rows
            counts["already"] += sums.visible_rows if shows_tenant else 0
            on_progress(number + 1, len(step.ranges))
    # The parts can only be read again once they are there.
    duplicates = _count_duplicates(shape, plan, parts, values)
    return {**counts, "duplicates": duplicates, "preview": preview, "parts": parts}


def _describe(part: Part, seen: Part, sums: RangeSums) -> dict[str, Any]:
    return {
        "planned": part.lines,
        "sha256": part.sha256,
        "visible_sha256": seen.sha256,
        **sums.to_json(),
    }


def _preview(shape: TableShape, row: PlannedRow) -> list[str]:
    shown = [row.id]
    for name, at in zip(shape.step.changed, shape.changed_at, strict=True):
        shown += [shape.show(name, row.before[at]), shape.show(name, row.after[at])]
    return shown


def _count_duplicates(
    shape: TableShape, plan: PlanFolder, parts: dict[str, dict[str, Any]], values: set[bytes]
) -> int:
    """Count the rows whose value of `duplicates_by` a row of the target has already; list them."""
    by = shape.step.duplicates_by
    if by is None:
        return 0
    count = 0
    with ExitStack() as files:
        table = files.enter_context(table_file(plan.path / "duplicates.csv", ["id", by]))
        for key in parts:
            for row in planned_rows(plan, key, parts[key]["sha256"]):
                if row.duplicate_of is not None and row.duplicate_of in values:
                    count += 1
                    table([row.id, shape.show(by, row.duplicate_of)])
    return count


# -- applying it ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class AppliedRange:
    """What came of one range: its backup, and its changes and proof unless it was only saved."""

    token_range: TokenRange
    backup: Part
    changes: Changes
    proof: Proof | None = None


def require_table(shape: TableShape, plan: PlanFolder) -> TableShape:
    """Give the shape of a table that is the one that the plan was made of.

    Raises:
        DeclarationError: it was made anew, or what is looked up has changed.
    """
    _require_same_table(shape, plan)
    manifest, name = plan.manifest(), shape.step.name
    if manifest["looked_up"] != dict(shape.looked_up):
        raise DeclarationError(
            f"what {name} looks up has changed since its plan {plan.plan_id}; make a new plan"
        )
    return shape


def _require_same_table(shape: TableShape, plan: PlanFolder) -> None:
    if plan.manifest()["table_id"] != shape.table.table_id:
        raise DeclarationError(
            f"{shape.table.name} was made anew since the plan {plan.plan_id} of "
            f"{shape.step.name}; make a new plan"
        )


def apply_table_range(
    connection: Connection,
    move: Move,
    shape: TableShape,
    plan: PlanFolder,
    token_range: TokenRange,
    *,
    changes: bool = True,
    accept_changes: bool = False,
    on_done: Callable[[int], None] = lambda rows: None,
    on_retry: Callable[[BaseException], None] = lambda error: None,
) -> AppliedRange:
    """Back a range up, change it, and prove it; what is done already is only proved again.

    Without `changes` it is only backed up. With `accept_changes` other rows may have changed in a
    way that no later write explains. Seal the backup once all ranges are done.

    Raises:
        PermanentError, TransientError: the range is not done; a further run goes on.
    """
    key = token_range.key
    backup = back_up_range(connection, move, shape, plan, key, on_retry)
    if not changes:
        return AppliedRange(token_range, backup, Changes())
    found = plan.outcome(APPLIED, key)
    done = Changes.from_json(found) if found else None
    if done is None or not done.complete:
        plan.forget(VERIFIED, key)
        done = apply_range(connection, move, shape, plan, key, on_done, on_retry)
        plan.note(APPLIED, key, done.to_json())
    proof = prove_applied_range(
        connection, move, shape, plan, token_range, on_retry, accept_changes=accept_changes
    )
    return AppliedRange(token_range, backup, done, proof)


def prove_applied_range(
    connection: Connection,
    move: Move,
    shape: TableShape,
    plan: PlanFolder,
    token_range: TokenRange,
    on_retry: Callable[[BaseException], None] = lambda error: None,
    *,
    accept_changes: bool = False,
) -> Proof | None:
    """Read a range again and keep the verdict; None if it was not applied, or was rolled back."""
    key = token_range.key
    if plan.outcome(APPLIED, key) is None or plan.outcome(ROLLED_BACK, key) is not None:
        return None
    proof = prove_range(connection, move, shape, plan, token_range, on_retry)
    earlier = plan.outcome(VERIFIED, key)
    proof.accepted = accept_changes or bool(earlier and earlier.get("accepted"))
    plan.note(VERIFIED, key, proof.to_json() | {"holds": proof.holds, "reason": proof.reason})
    return proof


# -- taking it back ------------------------------------------------------------------------------


def applied_plans(folder: Path, step: Step) -> list[PlanFolder]:
    """Give the plans that may have written what is not rolled back, the newest first."""
    return [plan for plan in reversed(plans_of(folder, step.name)) if _written(plan)]


def _written(plan: PlanFolder) -> list[str]:
    """Give the parts of a plan that may be written: they are saved, and not put back."""
    back = plan.outcomes(ROLLED_BACK)
    return [key for key in plan.keys if plan.has_backup(key) and key not in back]


def require_declaration(move: Move, step: Step, plan: PlanFolder) -> None:
    """Refuse to put back what was written under other rules: it would be sought in vain.

    Raises:
        DeclarationError: one sentence.
    """
    if plan.manifest()["fingerprint"] != move.fingerprint(step):
        raise DeclarationError(
            f"the declaration of {step.name} has changed since its plan {plan.plan_id} was "
            "applied; declare the step as it was, roll back, and then change it"
        )


def restore_step(
    connection: Connection,
    move: Move,
    step: TableStep,
    folder: Path,
    *,
    dry_run: bool,
    on_retry: Callable[[BaseException], None] = lambda error: None,
) -> Changes:
    """Put back what a step wrote, the newest plan first, and read it again.

    With `dry_run` nothing is written, and `changed` counts the rows of the backups.

    Raises:
        DeclarationError: the step was declared otherwise, or its table made anew.
        PermanentError, TransientError: a range could not be put back; a further try goes on.
    """
    shape = shape_table(connection, move, step)
    plans = applied_plans(folder, step)
    for plan in plans:
        require_declaration(move, step, plan)
        _require_same_table(shape, plan)
    total, wrong = Changes(), 0
    for plan in plans:
        for key in _written(plan):
            if dry_run:
                total.changed += sum(1 for _ in saved_rows(plan, key))
                continue
            # Before the first row: a rollback that dies leaves nothing that says "verified".
            plan.forget(VERIFIED, key)
            plan.forget(APPLIED, key)
            changes = restore_range(connection, move, shape, plan, key, lambda rows: None, on_retry)
            same, _ = count_restored(connection, move, shape, plan, key, on_retry)
            wrong += max(0, changes.done - same)
            plan.note(ROLLED_BACK, key, changes.to_json())
            total.add(changes)
    if wrong:
        raise PermanentError(
            f"{wrong:,} rows of {step.table} do not hold what they held before, although they were "
            "put back; somebody writes to them"
        )
    return total
