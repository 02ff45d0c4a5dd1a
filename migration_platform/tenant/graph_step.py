"""The step that changes nodes of a graph: its plan, backup, change, proof and rollback as files."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migration_platform.stores.neo4j import Graph
from migration_platform.tenant.changes import Changes
from migration_platform.tenant.content import (
    ChangeCounts,
    PlannedNode,
    apply_nodes,
    count_nodes,
    count_plan,
    digest_nodes,
    plan_nodes,
    restore_nodes,
)
from migration_platform.tenant.declaration import GraphStep, Move
from migration_platform.tenant.records import (
    ALL,
    APPLIED,
    ROLLED_BACK,
    VERIFIED,
    Part,
    PlanFolder,
    new_plan,
    part_writer,
    read_json,
    read_part,
    seal_backup,
    table_file,
    write_json,
    write_part,
)
from migration_platform.tenant.steps import (
    GRAPH_HEADER,
    PREVIEW_ROWS,
    applied_plans,
    require_declaration,
)


def plan_graph(graph: Graph, move: Move, step: GraphStep, folder: Path) -> PlanFolder:
    """Write down which nodes would change; nothing else is written.

    Raises:
        PermanentError, TransientError: the graph does not answer.
    """
    made_at_us = time.time_ns() // 1000
    plan = new_plan(folder, step.name)
    try:
        counts = count_plan(graph, step.rules, step.origin, step.target)
        digest = digest_nodes(graph, step.rules, step.origin, step.target)
        preview: list[list[str]] = []
        with ExitStack() as files:
            table = files.enter_context(table_file(plan.path / "preview.csv", GRAPH_HEADER))
            writer = files.enter_context(part_writer(plan.part("plan", ALL)))
            for node in plan_nodes(graph, step.rules, step.origin, step.target):
                writer.write(node.to_json())
                shown = _preview(step, node)
                table(shown)
                if len(preview) < PREVIEW_ROWS:
                    preview.append(shown)
        plan.write_manifest(
            {
                "plan": plan.plan_id,
                "step": step.name,
                "made_at_us": made_at_us,
                "fingerprint": move.fingerprint(step),
                "planned": writer.part.lines,
                "rows": digest.nodes,
                "already": sum(count.already for count in counts),
                "longer": sum(count.left_alone for count in counts),
                "statements": {
                    line: count.planned for line, count in zip(step.statements, counts, strict=True)
                },
                "digest": digest.digest,
                "preview": preview,
                "parts": {ALL: {"sha256": writer.part.sha256}},
            }
        )
    except BaseException:
        shutil.rmtree(plan.path, ignore_errors=True)
        raise
    return plan


def _preview(step: GraphStep, node: PlannedNode) -> list[str]:
    rule = step.rules[node.rule]
    return [
        node.identity or node.element_id,
        ", ".join(node.labels),
        rule.property,
        str(node.before),
        str(rule.to_value(step.target)),
    ]


def _nodes(plan: PlanFolder, kind: str, checksum: str) -> Iterator[PlannedNode]:
    return map(PlannedNode.from_json, read_part(plan.part(kind, ALL), checksum))


def back_up_graph(plan: PlanFolder) -> Part:
    """Save what the plan's nodes hold, unless that was done.

    A node is only changed while it holds what the plan saw, so that the plan is what it holds.
    """
    described = plan.path / "backup" / f"{ALL}.json"
    if described.exists():
        kept = read_json(described)
        return Part(kept["rows"], kept["sha256"])
    checksum = plan.manifest()["parts"][ALL]["sha256"]
    part = write_part(
        plan.part("backup", ALL), (node.to_json() for node in _nodes(plan, "plan", checksum))
    )
    write_json(described, {"rows": part.lines, "sha256": part.sha256, "made_at": int(time.time())})
    seal_backup(plan)
    return part


@dataclass(frozen=True)
class AppliedGraph:
    """What came of the nodes; each verdict is whether it holds, and a sentence."""

    counts: Mapping[str, Any]
    nothing_left: tuple[bool, str]
    counts_equal: tuple[bool, str]
    rest_unchanged: tuple[bool, str]

    @property
    def reason(self) -> str:
        """Say what is wrong; empty if nothing is. Others may write to the graph meanwhile."""
        return "; ".join(
            said for holds, said in (self.nothing_left, self.counts_equal) if not holds
        )


def apply_graph(
    graph: Graph,
    move: Move,
    step: GraphStep,
    plan: PlanFolder,
    on_done: Callable[[int], None] = lambda nodes: None,
) -> AppliedGraph:
    """Change the plan's nodes that hold what it saw, and read the graph again.

    Raises:
        PermanentError, TransientError: the graph does not take it; a further run goes on.
    """
    manifest, seen = plan.manifest(), 0

    def tell(counts: ChangeCounts) -> None:
        nonlocal seen
        on_done(counts.total - seen)
        seen = counts.total

    plan.forget(VERIFIED, ALL)
    nodes = _nodes(plan, "plan", manifest["parts"][ALL]["sha256"])
    counts = apply_nodes(graph, step.rules, nodes, step.origin, step.target, tell)
    plan.note(APPLIED, ALL, _to_changes(counts).to_json())
    done = prove_graph(graph, step, plan)
    assert done is not None
    return done


def prove_graph(graph: Graph, step: GraphStep, plan: PlanFolder) -> AppliedGraph | None:
    """Read the graph again and keep the verdict; None if the plan was not applied."""
    manifest, applied = plan.manifest(), plan.outcome(APPLIED, ALL)
    if applied is None or plan.outcome(ROLLED_BACK, ALL) is not None:
        return None
    changes = Changes.from_json(applied)
    left = sum(count_nodes(graph, step.rules, step.origin))
    digest = digest_nodes(graph, step.rules, step.origin, step.target)
    same = digest.digest == manifest["digest"]
    done = AppliedGraph(
        counts={
            "nodes_planned": manifest["planned"],
            "nodes_changed": changes.changed,
            "nodes_changed_before": changes.already,
            "nodes_in_conflict": changes.conflicts,
            "nodes_gone": changes.gone,
            "nodes_left": left,
        },
        nothing_left=(
            not left,
            f"{left:,} nodes still show the origin tenant; make a new plan and run it"
            if left
            else tell_nothing_left(digest.nodes, manifest),
        ),
        counts_equal=(
            changes.complete and changes.done == manifest["planned"],
            (
                f"{changes.done:,} of {manifest['planned']:,} planned nodes hold what was planned"
                if manifest["planned"]
                else "no node was planned, so there was none to look at"
            )
            + (
                f"; {changes.conflicts + changes.gone:,} were changed or deleted by somebody else "
                f"({'; '.join(changes.samples[:3])}), and left alone: make a new plan and run it"
                if not changes.complete
                else ""
            ),
        ),
        rest_unchanged=(
            same,
            (
                f"all else of {digest.nodes:,} nodes has the digest that it had"
                if digest.nodes
                else "no node was there to compare"
            )
            if same
            else f"the digest of all else differs: {digest.nodes:,} nodes now, "
            f"{manifest['rows']:,} when the plan was made; the graph does not tell who wrote",
        ),
    )
    plan.note(VERIFIED, ALL, {"holds": not done.reason, "reason": done.reason})
    return done


def tell_nothing_left(nodes: int, manifest: Mapping[str, Any]) -> str:
    """Say that no node of the origin tenant is left to change, and what the plan left alone."""
    if not nodes:
        return "no node was there to read"
    longer = manifest.get("longer", 0)
    return f"{nodes:,} nodes were read, and none of them would change any more" + (
        f"; {longer:,} with the origin tenant in a longer list were left alone by the plan"
        if longer
        else ""
    )


def _to_changes(counts: ChangeCounts) -> Changes:
    return Changes(
        changed=counts.changed,
        already=counts.already,
        conflicts=counts.conflicts,
        gone=counts.gone,
        samples=[
            f"{conflict.identity or conflict.element_id}: {conflict.property} is {conflict.now}"
            for conflict in counts.sample
        ],
    )


def restore_graph(
    graph: Graph, move: Move, step: GraphStep, folder: Path, *, dry_run: bool
) -> Changes:
    """Put back what nodes held, where they still hold what the move wrote, the newest plan first.

    Raises:
        PermanentError, TransientError: the graph does not take it, or a backup was changed.
    """
    total = Changes()
    plans = applied_plans(folder, step)
    for plan in plans:
        require_declaration(move, step, plan)
    for plan in plans:
        described = read_json(plan.path / "backup" / f"{ALL}.json")
        nodes = _nodes(plan, "backup", described["sha256"])
        if dry_run:
            total.changed += sum(1 for _ in nodes)
            continue
        plan.forget(VERIFIED, ALL)
        plan.forget(APPLIED, ALL)
        changes = _to_changes(restore_nodes(graph, step.rules, nodes, step.origin, step.target))
        plan.note(ROLLED_BACK, ALL, changes.to_json())
        total.add(changes)
    return total
