"""Names of Dagster's steps, which hold less than names of tables and assets do."""

import re
from collections.abc import Iterable


def step_name(path: Iterable[str]) -> str:
    """Name the step of the asset with this path: letters of ASCII, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]", "_", "__".join(path))
