"""What a tenant's move tells: its names in Dagster, its plans, its ranges, its verdicts.

A page shows the latest materialization, so each carries what an operator wants to see: counts
first, the whole move at a glance, then samples, bounded.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from migration_platform.picture import as_markdown
from migration_platform.tenant import sync_step
from migration_platform.tenant.declaration import GraphStep, Move, Step, SyncStep, TableStep
from migration_platform.tenant.picture import draw_move, draw_squares
from migration_platform.tenant.proof import Proof
from migration_platform.tenant.records import VERIFIED, PlanFolder
from migration_platform.tenant.steps import (
    GRAPH_HEADER,
    AppliedRange,
    Progress,
    preview_header,
    read_progress,
)
from migration_platform.token_ranges import describe_ranges, range_of_key

NOTHING_LEFT = "nothing_of_the_origin_is_left"
COUNTS_EQUAL = "counts_equal_the_plan"
REST_UNCHANGED = "all_else_is_unchanged"
NOTHING_UNPLANNED = "nothing_unplanned_arrived"
BLOCKS_ACCEPTED = "every_block_was_accepted"
INDEX_SHOWS = "index_shows_the_target"
CHECKS: Mapping[type, Mapping[str, str]] = {
    TableStep: {
        NOTHING_LEFT: "No row still shows the origin tenant, but for what the plan leaves so.",
        COUNTS_EQUAL: "As many rows hold what was planned as the plan has.",
        REST_UNCHANGED: "Other columns and other tenants' rows have the digests that they had when "
        "the plan was made. Rows that somebody wrote since then are named, and only warned of.",
        NOTHING_UNPLANNED: "No older row shows the target tenant that did not before and was not "
        "planned.",
    },
    GraphStep: {
        NOTHING_LEFT: "No node still shows the origin tenant, but for longer lists that the plan "
        "leaves so.",
        COUNTS_EQUAL: "As many nodes hold what was planned as the plan has.",
        REST_UNCHANGED: "Other properties and other nodes have the digests that they had.",
    },
    SyncStep: {
        BLOCKS_ACCEPTED: "The search service accepted every block of ids.",
        INDEX_SHOWS: "The index counts as many documents of both tenants as the table has rows.",
    },
}


@dataclass(frozen=True)
class MovedStep:
    """A step with its Dagster names; `folder` is what was declared."""

    move: Move
    step: Step
    folder: str | None

    @property
    def key(self) -> dg.AssetKey:
        """The asset of what the step changes."""
        return dg.AssetKey([self.move.name, self.step.name])

    @property
    def plan_key(self) -> dg.AssetKey:
        """The asset of its plan."""
        return dg.AssetKey([self.move.name, f"{self.step.name}_plan"])

    @property
    def backup_key(self) -> dg.AssetKey:
        """The asset of its backup."""
        return dg.AssetKey([self.move.name, f"{self.step.name}_backup"])

    @property
    def op_name(self) -> str:
        """The name under which a run's config finds the step."""
        return f"{self.move.name}__{self.step.name}"

    @property
    def checks(self) -> Mapping[str, str]:
        """The step's checks by name, with what they mean."""
        named = CHECKS[type(self.step)]
        if isinstance(self.step, SyncStep) and self.step.index_field is None:
            return {name: means for name, means in named.items() if name != INDEX_SHOWS}
        return named

    def describe(self) -> str:
        """Say what the step does, for its page."""
        move, step = self.move, self.step
        if isinstance(step, TableStep):
            lines = [
                f"Rows of `{step.table}` whose `{step.select}` shows `{move.origin_tenant}`:",
                "",
                *(
                    f"- `{change.column}` {_describe_change(change, move)}"
                    for change in step.changes
                ),
                "",
                "A row is changed only while it holds what the plan saw; nothing else is written.",
            ]
        elif isinstance(step, GraphStep):
            lines = [f"`{line}`\n" for line in step.statements]
        else:
            lines = [
                f"The ids of `{step.ids_of}` are sent to the search service as "
                f"`{step.object_type}`, {step.block_size} a call, so that it reads the rows again."
            ]
        config = json.dumps({"ops": {self.op_name: {"config": {"dry_run": False}}}})
        lines += ["", f"A run only makes the plan, unless its config (Launchpad) is `{config}`."]
        return "\n".join(lines)


def _describe_change(change: Any, move: Move) -> str:
    if change.lookup:
        row = change.lookup.key or move.target_tenant
        return f"becomes `{change.lookup.column}` of `{row}` in `{change.lookup.table}`"
    if change.replace is None:
        return f"becomes `{change.constant}`"
    what = {"value": "", "first": ", in its first such element,", "all": ", in all such elements,"}
    return f"{what[change.replace]} becomes `{move.target_tenant}`"


def show_move(folder: Path, move: Move) -> dict[str, Any]:
    """Give how far the move is, as a line and as a picture."""
    steps = [read_progress(folder, step) for step in move.steps]
    picture = as_markdown(draw_move(move, steps), "the steps of the move")
    return {"move_at_a_glance": draw_squares(steps), "move": dg.MetadataValue.md(picture)}


# -- plans ---------------------------------------------------------------------------------------


def number(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def describe_plan(moved: MovedStep, manifest: Mapping[str, Any]) -> list[str]:
    """Say in lines what a plan found."""
    step = moved.step
    if isinstance(step, SyncStep):
        told = f"Dry run: {manifest['describes']}; nothing was sent"
        return [told, *manifest.get("warnings", ())]
    if isinstance(step, TableStep):
        lines = [f"{manifest['planned']:,} of {number(manifest['rows'], 'row')} would change"]
        more = (
            ("already", "row", "with the target tenant already (already.csv)"),
            ("doubles", "list", "would name the target tenant twice"),
            ("again", "row", "would still name the origin tenant, which stood there twice"),
            (
                "duplicates",
                "row",
                f"with the {step.duplicates_by} of a row that the target tenant has "
                "(duplicates.csv); moved all the same",
            ),
        )
        lines += [
            f"{number(manifest[name], what)} {said}" for name, what, said in more if manifest[name]
        ]
    else:
        lines = [
            f"{number(manifest['planned'], 'value')} of {number(manifest['rows'], 'node')} would "
            "change"
        ]
        lines += [f"{count:,} by {line}" for line, count in manifest["statements"].items()]
        if manifest["longer"]:
            lines.append(
                f"{number(manifest['longer'], 'node')} with the origin tenant in a longer list, "
                "left alone"
            )
    return lines


def plan_metadata(moved: MovedStep, folder: Path, plan: PlanFolder) -> dict[str, Any]:
    """Give what a plan's page shows."""
    move, step, manifest = moved.move, moved.step, plan.manifest()
    metadata: dict[str, Any] = {
        "dry_run": True,
        "summary": dg.MetadataValue.md(
            "\n".join(f"- {line}" for line in describe_plan(moved, manifest))
        ),
        **show_move(folder, move),
        "planned": manifest["planned"],
        "plan_id": plan.plan_id,
        "plan_folder": dg.MetadataValue.path(str(plan.path)),
    }
    if isinstance(step, SyncStep):
        metadata |= {
            "calls": manifest["blocks"],
            "pause_seconds": manifest["pause_seconds"],
            "first_request": manifest["request"],
            "id_file": dg.MetadataValue.path(manifest["id_file"]),
        }
        return metadata
    header = preview_header(step) if isinstance(step, TableStep) else GRAPH_HEADER
    if isinstance(step, TableStep):
        metadata |= {
            "rows": manifest["rows"],
            "already_at_the_target": manifest["already"],
            "duplicates": manifest["duplicates"],
            "id_file": dg.MetadataValue.path(str(folder / step.id_file)),
        }
        if manifest["looked_up"]:
            metadata["looked_up"] = dg.MetadataValue.json(manifest["looked_up"])
    if manifest["preview"]:
        metadata["preview"] = _preview_table(header, manifest["preview"])
        metadata["preview_csv"] = dg.MetadataValue.path(str(plan.path / "preview.csv"))
    return metadata


def _preview_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dg.TableMetadataValue:
    """Show rows before and after; a column and what it becomes stand in one, or none would fit."""
    names = [name.removesuffix(" before") for name in header if not name.endswith(" after")]
    if header[-1] == "after":  # nodes: which property it is stands in the row
        names = [*header[:-2], "value"]

    def join(row: Sequence[str]) -> list[str]:
        fixed = len(row) - 2 if header[-1] == "after" else 1
        pairs = zip(row[fixed::2], row[fixed + 1 :: 2], strict=True)
        return [*row[:fixed], *(f"{before} → {after}" for before, after in pairs)]

    return dg.MetadataValue.table(
        records=[dg.TableRecord(dict(zip(names, join(row), strict=True))) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in names]),
    )


# -- outcomes ------------------------------------------------------------------------------------


def report_range(
    context: dg.AssetExecutionContext,
    moved: MovedStep,
    plan: PlanFolder,
    done: AppliedRange,
) -> str:
    """Tell what came of a range; gives what is wrong with it, empty if nothing is."""
    key = done.token_range.key
    # Also in a run that selects the step alone: no row changes before it is saved.
    context.log_event(
        dg.AssetMaterialization(
            moved.backup_key,
            partition=key,
            metadata={
                "dry_run": False,
                "rows": done.backup.lines,
                "sha256": done.backup.sha256,
                "file": dg.MetadataValue.path(str(plan.part("backup", key))),
                "plan_id": plan.plan_id,
            },
        )
    )
    if done.proof is None:
        return ""
    changes, proof = done.changes, done.proof
    metadata: dict[str, Any] = {
        "dry_run": False,
        "plan_id": plan.plan_id,
        "rows_planned": proof.planned,
        "rows_changed": changes.changed,
        "rows_changed_before": changes.already,
        "rows_in_conflict": changes.conflicts,
        "rows_gone": changes.gone,
        "rows_left": proof.left,
        "rows_written_by_others": proof.written,
    }
    if changes.samples:
        metadata["conflicts"] = dg.MetadataValue.json(changes.samples)
        for sample in changes.samples:
            context.log.error(f"not as the plan saw it, and left alone: {sample}")
    context.log.info(
        f"{key}: {changes.changed:,} rows changed, {changes.already:,} before, "
        f"{changes.conflicts + changes.gone:,} left alone, {proof.rows:,} rows read again"
    )
    if not proof.reason:
        context.log_event(dg.AssetMaterialization(moved.key, partition=key, metadata=metadata))
        return ""
    context.log_event(
        dg.AssetObservation(
            moved.key, partition=key, metadata=metadata | {"not_as_planned": proof.reason}
        )
    )
    return proof.reason


def report_step(
    context: dg.AssetExecutionContext,
    moved: MovedStep,
    folder: Path,
    earlier: Progress,
    seconds: float,
    *,
    failed: bool,
) -> None:
    """Tell of all ranges together, on the step's page.

    `earlier` is how far the step was before this run, which took `seconds`.
    """
    progress = read_progress(folder, moved.step)
    # An earlier plan's rows were other ones; those of this plan took another run's time.
    before = earlier.done if earlier.plan == progress.plan else 0
    changed = max(0, progress.done - before)
    done, parts = progress.parts
    metadata: dict[str, Any] = {
        "dry_run": False,
        "state": progress.state,
        "rows_planned": progress.planned,
        "rows_changed": progress.done,
        "rows_left_alone": progress.conflicts,
        "ranges_applied": f"{done} of {parts}",
        "seconds": round(seconds, 1),
        # Saved, changed and read again.
        "rows_per_second": round(changed / seconds, 1) if changed else 0.0,
        "plan_id": progress.plan.plan_id if progress.plan else "",
        **show_move(folder, moved.move),
    }
    if failed:
        context.log_event(dg.AssetObservation(moved.key, metadata=metadata))
        return
    # The page shows the latest materialization; one without a partition speaks of all ranges. It
    # belongs to no run, because a backfill refuses runs that report such a one.
    metadata["run"] = dg.MetadataValue.dagster_run(context.run.run_id)
    event = dg.AssetMaterialization(moved.key, metadata=metadata)
    context.instance.report_runless_asset_event(event)


def judge_table(
    context: dg.AssetExecutionContext, moved: MovedStep, folder: Path, plan: PlanFolder
) -> Iterator[dg.AssetCheckResult]:
    """Give the verdict on the whole table, from what stands in the folder of all ranges."""
    keys, proofs = plan.keys, plan.outcomes(VERIFIED)
    total = Proof()
    for value in proofs.values():
        total.add(Proof.from_json(value))
    missing = [key for key in keys if key not in proofs]
    what = _verdicts(total, plan.manifest())
    picture = show_move(folder, moved.move)
    for check in context.op_execution_context.selected_asset_check_keys:
        passed, description, details = what[check.name]
        severity = dg.AssetCheckSeverity.ERROR
        if missing:
            passed = False
            description = (
                f"{len(missing)} of {len(keys)} ranges are not verified yet "
                f"({describe_ranges([range_of_key(key) for key in missing])}); {description}"
            )
        elif check.name == REST_UNCHANGED and (total.accepted or not total.unexplained):
            severity = dg.AssetCheckSeverity.WARN
        yield dg.AssetCheckResult(
            asset_key=moved.key,
            check_name=check.name,
            passed=passed,
            severity=severity,
            description=description,
            metadata={
                name: dg.MetadataValue.json(value) if isinstance(value, list) else value
                for name, value in details.items()
                if value != []
            }
            | picture,
        )


def _verdicts(
    total: Proof, manifest: Mapping[str, Any]
) -> dict[str, tuple[bool, str, dict[str, Any]]]:
    """Give each check of a table: whether it passes, a sentence, and details."""
    planned = manifest["planned"]
    return {
        NOTHING_LEFT: (
            not total.left,
            f"{number(total.left, 'row')} of the origin tenant left; make a new plan and run it"
            if total.left
            else _nothing_left(total.rows, manifest),
            {"left": total.left, "rows_left": total.left_samples},
        ),
        COUNTS_EQUAL: (
            total.done == planned and not total.conflicts,
            (
                f"{total.done:,} of {planned:,} planned rows hold what was planned"
                if planned
                else "no row was planned, so there was none to look at"
            )
            + (
                f"; {total.conflicts:,} hold something else or are gone, because somebody else "
                "writes to them: make a new plan and run it"
                if total.conflicts
                else ""
            ),
            {"planned": planned, "done": total.done, "conflicts": total.conflict_samples},
        ),
        REST_UNCHANGED: (
            not total.differing,
            f"the digests of {total.differing:,} groups of rows differ; somebody wrote "
            f"{total.written:,} rows in them since the plan was made"
            + (
                f", and {total.unexplained:,} groups differ without such a row: rows or cells were "
                "deleted, or changed at an older time"
                + (", which this move was told to accept" if total.accepted else "")
                if total.unexplained
                else ""
            )
            if total.differing
            else f"all else of {total.rows:,} rows has the digests that it had"
            if total.rows
            else "no row was there to compare",
            {"written_by_others": total.written_samples, "unexplained": total.unexplained},
        ),
        NOTHING_UNPLANNED: (
            not total.intruders,
            f"{total.intruders:,} rows show the target tenant, did not do so before, and were not "
            "planned; look who changed them"
            if total.intruders
            else "only planned rows and those of before show the target tenant"
            + (f", and {total.new:,} that were created since" if total.new else ""),
            {"intruders": total.intruder_samples, "new": total.new},
        ),
    }


def _nothing_left(rows: int, manifest: Mapping[str, Any]) -> str:
    if not rows:
        return "no row was there to read"
    said = f"{rows:,} rows were read, and none of them would change any more"
    again = manifest.get("again", 0)
    return said + (
        f"; by the plan {number(again, 'row')} may still name the origin tenant, which stood "
        "there twice"
        if again
        else ""
    )


def report_sync(
    context: dg.AssetExecutionContext,
    moved: MovedStep,
    folder: Path,
    plan: PlanFolder,
    done: sync_step.AppliedSync,
) -> None:
    """Tell what came of the calls."""
    assert done.result is not None
    metadata: dict[str, Any] = {
        "dry_run": False,
        "plan_id": plan.plan_id,
        "ids_accepted": done.result.ids_accepted,
        "ids_failed": done.result.ids_failed,
        "calls_accepted": done.result.blocks_accepted,
        "calls_failed": done.result.blocks_failed,
        "success_log": dg.MetadataValue.path(str(done.result.success_log)),
        "failure_log": dg.MetadataValue.path(str(done.result.failure_log)),
    }
    if done.verdict:
        metadata["index"] = str(done.verdict)
    event = dg.AssetObservation if done.reason else dg.AssetMaterialization
    context.log_event(event(moved.key, metadata=metadata | show_move(folder, moved.move)))
