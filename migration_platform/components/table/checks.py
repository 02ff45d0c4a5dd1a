"""The verdict on a whole table, from the verdicts on its ranges; nothing is scanned here.

A check is green only if every range is copied under the current declaration, or its rows were
compared equal under it, and was compared after its last copy. Until then it is red and names the
ranges that are missing.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from migration_platform.comparing.scope import Scope, describe_filter
from migration_platform.comparing.verdicts import MAX_SAMPLES
from migration_platform.components.table.ledger import RangeState
from migration_platform.declaration.migration import Migration
from migration_platform.picture import as_markdown, draw_ring, draw_strip
from migration_platform.token_ranges import TokenRange, describe_ranges

_MAX_LAUNCHES = 5
"""So many commands a check shows; what differs afterwards, the next verdict names."""
_NEWER_STAYS = (
    "A copy keeps writetimes, so what was written or deleted at the target after it was written at "
    "the origin stays as it is. If the origin is right all the same, repair these rows with "
    "diff.repair_writetime: now."
)
KINDS = ("missing", "extra", "mismatched")
ROWS_FOUND = "rows_found_in_the_target"
"""Metadata key of the origin's rows that are in the target; how many others it has is unknown."""
CHECKS = {
    "row_counts_match": "Origin and target hold the same number of rows in every range.",
    "all_ranges_match": "Every row of the origin is in the target, and nothing else is, "
    "compared by digest in both directions.",
}
ORIGIN_ONLY = {
    "row_counts_match": "As many rows of the origin are in the target as the origin has in every "
    "range; rows that only the target has are not counted.",
    "all_ranges_match": "Every row of the origin is in the target, compared by digest; rows that "
    "only the target has are not looked for.",
}


def describe_checks(migration: Migration) -> dict[str, str]:
    """Say what each check means, and of which rows it speaks."""
    checks = ORIGIN_ONLY if migration.diff_mode == "origin_only" else CHECKS
    filtered = Scope(chosen=describe_filter(migration)).ending()
    return {name: f"{means}{filtered}" for name, means in checks.items()}


def build_check_results(
    context: dg.AssetExecutionContext,
    target: dg.AssetKey,
    diff: dg.AssetKey,
    states: Sequence[RangeState],
    migration: Migration,
    scope: Scope,
    written: list[TokenRange] | None = None,
) -> Iterator[dg.AssetCheckResult]:
    """Give the results of the checks that the run selected, and report the others.

    `written` are the ranges that a synchronisation has written into since they were compared.

    A run of the diff alone does not select the target's checks; left as they were, they would
    stay green beside ranges that differ.
    """
    selected = {key.name for key in context.op_execution_context.selected_asset_check_keys}
    for name, judge in (
        ("row_counts_match", _judge_row_counts),
        ("all_ranges_match", _judge_ranges),
    ):
        passed, description, found = _judge_coverage(diff, states, scope) or judge(
            target, states, migration, scope
        )
        metadata = {**found, **scope.metadata, **_overview(target, states)}
        if written and name == "all_ranges_match":
            description += _tell_written(written, len(states))
            metadata |= {
                "ranges_written_since": _names(written),
                "compare_command": _launch(f"{target.to_user_string()}_diff", written),
            }
        if migration.writetime != "now" and "rerun_command" in metadata:
            metadata["rerun_note"] = _NEWER_STAYS
        if name in selected:
            yield dg.AssetCheckResult(
                asset_key=target,
                check_name=name,
                passed=passed,
                description=description,
                metadata=metadata,
            )
        else:
            context.instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=target,
                    check_name=name,
                    passed=passed,
                    description=description,
                    metadata={**metadata, "run": dg.MetadataValue.dagster_run(context.run.run_id)},
                )
            )


Judgement = tuple[bool, str, dict[str, Any]]


def _judge_coverage(
    diff: dg.AssetKey, states: Sequence[RangeState], scope: Scope
) -> Judgement | None:
    """Object as long as not every range is copied, and compared since."""
    missing = [state.token_range for state in states if not state.copied]
    if missing:
        return (
            False,
            f"{len(missing)} of {len(states)} ranges are not copied: {describe_ranges(missing)}; "
            f"materialize them{scope.ending_of_run}",
            {"ranges_not_copied": _names(missing)},
        )
    unseen = [state.token_range for state in states if not state.compared]
    if unseen:
        return (
            False,
            f"{len(unseen)} of {len(states)} ranges were not compared since they were copied: "
            f"{describe_ranges(unseen)}; materialize them in {diff.path[-1]}{scope.ending_of_run}",
            {"ranges_not_compared": _names(unseen)},
        )
    return None


def _judge_row_counts(
    target: dg.AssetKey, states: Sequence[RangeState], migration: Migration, scope: Scope
) -> Judgement:
    origin_rows = sum(state.verdict["origin_rows"] for state in states)
    target_rows = sum(_rows_there(state) for state in states)
    differing = [
        state.token_range for state in states if state.verdict["origin_rows"] != _rows_there(state)
    ]
    name = ROWS_FOUND if scope.one_way else "target_rows"
    metadata: dict[str, Any] = {"origin_rows": origin_rows, name: target_rows}
    if not differing:
        return True, _tell_equal_counts(origin_rows, states, scope), metadata
    there = "of them in the target" if scope.one_way else "at the target"
    return (
        False,
        f"{origin_rows:,} rows at the origin, {target_rows:,} {there}; counts differ in "
        f"{len(differing)} ranges: {describe_ranges(differing)}{scope.ending_of_run}",
        {**metadata, **_rerun(target, differing, migration)},
    )


def _rows_there(state: RangeState) -> int:
    return int(state.verdict.get(ROWS_FOUND, state.verdict.get("target_rows", 0)))


def _tell_equal_counts(rows: int, states: Sequence[RangeState], scope: Scope) -> str:
    counted = "rows of the origin are in the target" if scope.one_way else "rows on both sides"
    if rows:
        said = f"{rows:,} {counted}{scope.made_of}"
    else:
        said = f"No row {'of the origin ' if scope.one_way else ''}was there to count"
    return f"{said}.{_tell_equal(states)}{scope.of_counts.ending(_newer(states))}"


def _tell_equal(states: Sequence[RangeState]) -> str:
    """Say how many ranges count without a copy; empty if none does."""
    equal = sum(state.equal for state in states)
    if not equal:
        return ""
    return (
        f" {equal} of {len(states)} ranges were compared equal, not copied, under this declaration."
    )


def _newer(states: Sequence[RangeState]) -> str:
    """Name the rows that were too new to be judged; empty if there are none."""
    number = sum(int(state.verdict.get("ignored_newer", 0)) for state in states)
    return f"{number:,} rows that differ and were written shortly before" if number else ""


def _judge_ranges(
    target: dg.AssetKey, states: Sequence[RangeState], migration: Migration, scope: Scope
) -> Judgement:
    differing = [state for state in states if not state.matches]
    corrected = sum(
        int(state.verdict.get(f"corrected_{kind}", 0)) for state in states for kind in KINDS
    )
    counts = {
        kind: sum(
            int(state.verdict[kind]) - int(state.verdict.get(f"corrected_{kind}", 0))
            for state in differing
        )
        for kind in KINDS
    }
    for more in ("defeated", "kept", "ignored_newer", "other_form"):
        if number := sum(int(state.verdict.get(more, 0)) for state in states):
            counts[more] = number
    if corrected:
        counts["corrected"] = corrected
    if not differing:
        rows = sum(int(state.verdict["origin_rows"]) for state in states)
        found = f"{rows:,} rows{scope.made_of}{scope.beside}"
        if not rows:
            found = "no row is left to compare" if corrected else "no row was there to compare"
        times = ", each cell with its writetime and TTL" if rows and scope.with_times else ""
        repaired = f" {corrected:,} differences were repaired." if corrected else ""
        said = f"All {len(states)} ranges match: {found}{times}.{repaired}"
        said += _tell_forms(counts) + _tell_equal(states)
        return True, said + scope.ending(_newer(states)), counts
    samples: dict[str, list[str]] = {}
    for kind in (*KINDS, "defeated", "kept", "other_form"):
        keys = [key for state in differing for key in state.verdict["samples"].get(kind, ())]
        if keys:
            samples[kind] = keys[:MAX_SAMPLES]
    ranges = [state.token_range for state in differing]
    return (
        False,
        f"{len(ranges)} ranges differ ({describe_ranges(ranges)}): {counts['missing']:,} missing, "
        f"{counts['extra']:,} extra, {counts['mismatched']:,} mismatched rows{scope.ending_of_run}",
        {**counts, "samples": dg.MetadataValue.json(samples), **_rerun(target, ranges, migration)},
    )


def _tell_written(written: list[TokenRange], count: int) -> str:
    return (
        f" {len(written)} of {count} ranges were written by the synchronisation since they were "
        f"compared: {describe_ranges(written)}."
    )


def _tell_forms(counts: dict[str, int]) -> str:
    if not (number := counts.get("other_form", 0)):
        return ""
    return (
        f" {number:,} rows hold the same values in other bytes, such as the decimals 1.5 and 1.50 "
        "in a key; diff.compare_form tells these apart."
    )


def _rerun(target: dg.AssetKey, ranges: list[TokenRange], migration: Migration) -> dict[str, Any]:
    """Say how to copy and compare the differing ranges again, and how to repair their rows."""
    name = target.to_user_string()
    return {
        "ranges_to_rerun": _names(ranges),
        "rerun_command": _launch(f"{name},{name}_diff", ranges),
        "repair_command": _launch(f"{name}_diff", ranges),
        "repair_note": f"repair_command repairs what is {' or '.join(migration.repair)}."
        if migration.repair
        else "To repair only the rows that differ, set diff.repair: [missing, mismatched] "
        "(extra as well deletes rows that only the target has), then launch repair_command.",
    }


def _launch(assets: str, ranges: list[TokenRange]) -> str:
    # Neighbours go into one launch; ranges apart from each other need one each.
    blocks = describe_ranges(ranges, _MAX_LAUNCHES).split(" and ")[0].split(", ")
    return " && ".join(
        f'dg launch --assets "{assets}" '
        + (f"--partition-range '{block}'" if "..." in block else f"--partition {block}")
        for block in blocks
    )


def _names(ranges: list[TokenRange]) -> dg.MetadataValue:
    return dg.MetadataValue.json([token_range.key for token_range in ranges])


def show_ring(title: str, states: Sequence[RangeState]) -> dict[str, Any]:
    """Give the state of all ranges as a line of squares, and as a picture one click away."""
    segments = [state.to_segment() for state in states]
    return {
        "ranges_at_a_glance": draw_strip(segments),
        "ring": dg.MetadataValue.md(as_markdown(draw_ring(title, segments))),
    }


def count_equal(states: Sequence[RangeState]) -> dict[str, int]:
    """Say as metadata how many of the copied ranges count only because they were compared equal."""
    equal = sum(state.equal for state in states)
    return {"ranges_compared_equal": equal} if equal else {}


def _overview(target: dg.AssetKey, states: Sequence[RangeState]) -> dict[str, Any]:
    return {
        **show_ring(".".join(target.path[1:]), states),
        "ranges": len(states),
        "ranges_copied": sum(state.copied for state in states),
        **count_equal(states),
        "ranges_verified": sum(state.matches for state in states),
    }
