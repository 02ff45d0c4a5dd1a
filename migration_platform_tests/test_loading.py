"""Dagster loads a project several times in a process; only what goes by a state is built anew."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import CodePointer
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)
from dagster._core.definitions.reconstruct import (
    initialize_repository_def_from_pointer,
    reconstruct_repository_def_from_pointer,
)

from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, make_project

pytestmark = DAGSTERS_OWN_WARNINGS

COMPONENT = """
import dagster as dg
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext

BUILT = []


class Told(dg.Component, dg.Model, dg.Resolvable):
    def build_defs(self, context):
        BUILT.append(len(BUILT))
        loading = DefinitionsLoadContext.get()
        {left}

        @dg.asset
        def found():
            return None

        return dg.Definitions(assets=[found], metadata={{"number": len(BUILT)}})
"""
NOTHING = "pass"
A_STATE = 'loading.add_defs_state_info("tables", f"version {len(BUILT)}")'
A_VALUE = 'loading.add_to_pending_reconstruction_metadata("tables", f"of load {len(BUILT)}")'


@dataclass
class Loading:
    """A project with a component of its own, loaded as Dagster's processes load it."""

    module: str
    folder: Path

    @property
    def pointer(self) -> CodePointer:
        return CodePointer.from_module(f"{self.module}.definitions", "defs", str(self.folder))

    @property
    def built(self) -> int:
        return len(sys.modules[f"{self.module}.told"].BUILT)


@pytest.fixture
def loading(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Loading]:
    project = make_project(tmp_path, cassandra_port=9)
    package = project.folder / project.module
    (package / "told.py").write_text(COMPONENT.format(left=request.param))
    (project.defs_folder / "told").mkdir()
    (project.defs_folder / "told" / "defs.yaml").write_text(f"type: {project.module}.told.Told\n")
    sys.path.insert(0, str(project.folder))
    context = DefinitionsLoadContext(load_type=DefinitionsLoadType.INITIALIZATION)
    try:
        with DefinitionsLoadContext.scoped(context):
            yield Loading(project.module, project.folder)
    finally:
        sys.path.remove(str(project.folder))


@pytest.mark.parametrize("loading", [NOTHING], ids=["nothing"], indirect=True)
def test_what_goes_by_no_state_is_built_once(loading: Loading) -> None:
    first = initialize_repository_def_from_pointer(loading.pointer)
    again = [reconstruct_repository_def_from_pointer(loading.pointer) for _ in range(2)]
    again.append(initialize_repository_def_from_pointer(loading.pointer))
    assert loading.built == 1
    for repository in (first, *again):
        assert repository.asset_graph.has(dg.AssetKey("found"))


@pytest.mark.parametrize("loading", [A_STATE], ids=["a state"], indirect=True)
def test_each_load_notes_the_state_that_it_used(loading: Loading) -> None:
    for number in (1, 2):
        repository = initialize_repository_def_from_pointer(loading.pointer)
        assert loading.built == number
        data = repository.repository_load_data
        assert data is not None
        assert data.defs_state_info is not None
        assert data.defs_state_info.get_version("tables") == f"version {number}"
    reconstruct_repository_def_from_pointer(loading.pointer, data)
    assert loading.built == 3


@pytest.mark.parametrize("loading", [A_VALUE], ids=["a value"], indirect=True)
def test_each_load_leaves_what_a_later_process_needs(loading: Loading) -> None:
    for number in (1, 2):
        repository = initialize_repository_def_from_pointer(loading.pointer)
        data = repository.repository_load_data
        assert data is not None
        (left,) = data.reconstruction_metadata.values()
        assert left.data == f"of load {number}"
    for _ in range(2):
        reconstruct_repository_def_from_pointer(loading.pointer, data)
    assert loading.built == 4


@pytest.mark.parametrize("loading", [NOTHING], ids=["nothing"], indirect=True)
def test_a_load_that_notes_nothing_is_not_kept(loading: Loading) -> None:
    definitions = loading.pointer.load_target()
    known = DefinitionsLoadContext._instance
    DefinitionsLoadContext._instance = None
    try:
        assert definitions() is not definitions()
    finally:
        DefinitionsLoadContext._instance = known
    assert definitions() is definitions()
    assert loading.built == 3
