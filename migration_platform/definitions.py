"""The only entry point: what is declared under `defs/`, as Dagster definitions."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Load every migration and store of the folder `defs/`."""
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        # Runs have worker processes of their own: a process for each step would only cost time.
        dg.Definitions(executor=dg.in_process_executor),
    )
