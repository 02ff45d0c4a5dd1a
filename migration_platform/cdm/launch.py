"""The command that runs what was imported."""

import json
import re
from typing import Any

from migration_platform.cdm.settings import Settings
from migration_platform.declaration.migration import (
    Migration,
)
from migration_platform.declaration.step_names import asset_path, step_name


def of_diff_alone(launch: str) -> str:
    """Give the command that compares, and copies nothing."""
    return re.sub(r"--assets '[^,']*,", "--assets '", launch, count=1)


def to_launch_line(settings: Settings, migration: Migration, *, is_ysql: bool = False) -> str:
    """Give the command that runs it, with what the file says of one run.

    With `is_ysql` the origin's cluster keeps what is known of runs.
    """
    table = migration.target.table
    parts = asset_path((migration.target.store, table.keyspace, table.table))
    if migration.reads_only:
        parts[-1] += "_large_cells"
    asset, ranges = "/".join(parts), migration.ranges
    config: dict[str, Any] = {}
    previous = settings.number("trackRun.previousRunId")
    if migration.reads_only:
        # Nothing is carried over.
        pass
    elif previous:
        config["resume"] = str(previous)
        keyspace = (
            "the keyspace of the origin's cluster with its tables"
            if is_ysql
            else f"the keyspace with its tables, {table.keyspace}"
        )
        settings.note(
            f"trackRun.previousRunId is the config resume of a run. If {previous} is a run of the "
            f"migrator, it is found only where tracking_keyspace names {keyspace}."
        )
    elif settings.flag("trackRun.autoRerun"):
        config["resume"] = "auto"
    if settings.number("trackRun.runId"):
        config["run_id"] = settings.number("trackRun.runId")
    pieces = settings.number("trackRun.rerunMultiplier") or 1
    if pieces > 1 and "resume" in config:
        config["split_pending"] = pieces
    elif pieces > 1:
        settings.note("trackRun.rerunMultiplier does nothing without a run to resume.")
    line = (
        f"dg launch --assets '{asset}'"
        if migration.reads_only
        else f"dg launch --assets '{asset},{asset}_diff' "
        f"--partition-range '{ranges[0].key}...{ranges[-1].key}'"
    )
    if config:
        steps = {step_name(parts): {"config": config}}
        line += f" --config-json '{json.dumps({'ops': steps})}'"
    return line
