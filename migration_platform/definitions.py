"""The only entry point: what is declared under `defs/`, as Dagster definitions."""

from pathlib import Path

import dagster as dg

from migration_platform.components.loading import load_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """Load every migration and store of the folder `defs/`."""
    return load_definitions(Path(__file__).parent)
