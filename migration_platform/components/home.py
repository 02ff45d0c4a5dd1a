"""Whether Dagster keeps what a run does, or forgets it as soon as the command ends."""

import os
from pathlib import Path

import dagster as dg
from dagster._cli.utils import TMP_DAGSTER_HOME_PREFIX

from migration_platform.errors import DeclarationError

OVERRIDE = "MIGRATION_PLATFORM_FORGET"


def forgets(instance: dg.DagsterInstance) -> bool:
    """Say whether an instance is gone when the command ends, as it is without a DAGSTER_HOME."""
    root = Path(instance.root_directory)
    return instance.is_ephemeral or root.name.startswith(TMP_DAGSTER_HOME_PREFIX)


def refuse_forgetting(instance: dg.DagsterInstance) -> None:
    """Refuse a run of which nobody would know afterwards which ranges it copied.

    Raises:
        DeclarationError: it is one, and the environment does not say that this is wanted.
    """
    if forgets(instance) and os.environ.get(OVERRIDE) != "1":
        raise DeclarationError(
            "DAGSTER_HOME is not set, so which ranges are copied would be forgotten with this run, "
            "and the checks would be wrong; set it to a folder, by its whole path, or set "
            f"{OVERRIDE}=1 if all of it may be forgotten"
        )
