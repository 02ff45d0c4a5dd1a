"""Names of Dagster's assets and steps, which hold less than names of stores and tables do."""

import re
from collections.abc import Iterable


def asset_path(parts: Iterable[str]) -> list[str]:
    """Give the path of an asset: what Dagster's selections and names cannot hold becomes `_`.

    Dagster takes no letter beyond ASCII: it makes names of steps and inputs of the path.
    """
    return [re.sub(r"[^\w-]", "_", part, flags=re.ASCII) for part in parts if part]


def step_name(path: Iterable[str]) -> str:
    """Name the step of the asset with this path: letters of ASCII, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]", "_", "__".join(path))
