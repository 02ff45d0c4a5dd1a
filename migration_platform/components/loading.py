"""The definitions of a project, which Dagster asks for several times in each of its processes."""

from pathlib import Path

import dagster as dg
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)

_loaded: dict[Path, dg.Definitions] = {}


def load_definitions(folder: Path) -> dg.Definitions:
    """Give everything that the folder `defs` of a project declares.

    `dg launch` asks six times, a fifth of a second each at least. What was loaded is kept, unless
    something in it goes by a state that Dagster keeps, such as the tables of a keyspace: Dagster
    notes at each load which version of it is used.
    """
    if folder not in _loaded:
        defs = dg.Definitions.merge(
            dg.load_from_defs_folder(path_within_project=folder),
            # A run starts its own worker processes: Dagster's own would only cost time.
            dg.Definitions(executor=dg.in_process_executor),
        )
        if not _is_same_next_time():
            return defs
        _loaded[folder] = defs
    return _loaded[folder]


def _is_same_next_time() -> bool:
    """Whether nothing that was just loaded has used or left state."""
    if not DefinitionsLoadContext.is_set():
        # Whatever was used is noted nowhere.
        return False
    context = DefinitionsLoadContext.get()
    used = context.accessed_defs_state_info
    left = context.get_pending_reconstruction_metadata()
    if context.load_type == DefinitionsLoadType.RECONSTRUCTION:
        left = context.reconstruction_metadata
    return not left and not (used and used.info_mapping)
