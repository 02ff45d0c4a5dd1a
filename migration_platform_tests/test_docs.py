"""What the documentation says of attributes, links, examples and commands is true of the code."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import click
import dagster as dg
import pytest
import yaml
from pydantic import BaseModel

import migration_platform
from migration_platform.cli import main
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, Project, make_project
from migration_platform_tests.servers import REPOSITORY

pytestmark = DAGSTERS_OWN_WARNINGS

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
COMPONENTS = {name: getattr(migration_platform, name) for name in migration_platform.__all__}
DERIVED = {"GuardrailCheck", "KeyspaceMigration"}
"""Components of which the page says what they share with a TableMigration."""
REQUIRED = "required"
MOST_LINES_OF_THE_README = 200


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


# -- pages as text ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: what its fence says, its text, and the line where it begins."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{shown(self.page)}:{self.line}"


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    found: list[Block] = []
    opened: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence = line.strip()
        if opened is None and fence.startswith("```"):
            opened = (number, fence.removeprefix("```"), [])
        elif opened is not None and fence == "```":
            found.append(Block(page, opened[0], opened[1], "\n".join(opened[2])))
            opened = None
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{shown(page)}: a fence is not closed"
    return tuple(found)


@cache
def prose_of(page: Path) -> str:
    """Give a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    anchors: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", prose_of(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        same = sum(
            re.fullmatch(rf"{re.escape(slug)}(-\d+)?", anchor) is not None for anchor in anchors
        )
        anchors.append(f"{slug}-{same}" if slug in anchors else slug)
    return frozenset(anchors)


def links_of(page: Path) -> list[str]:
    without_code = re.sub(r"`[^`\n]*`", "", prose_of(page))
    return re.findall(r"\]\(([^)\s]+)\)", without_code)


def test_the_readme_is_short() -> None:
    lines = (REPOSITORY / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES_OF_THE_README


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{shown(page)}: {link}"
        if anchor:
            assert anchor in anchors_of(there), f"{shown(page)}: {link}"


def test_the_index_names_every_page() -> None:
    index = DOCS / "README.md"
    named = {(DOCS / link.partition("#")[0]).resolve() for link in links_of(index)}
    assert set(PAGES[2:]) - {index} <= named


def test_every_page_that_the_code_names_is_there() -> None:
    for folder in ("migration_platform", "migration_platform_tests", "benchmarks"):
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            for page in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text("utf-8")):
                assert (REPOSITORY / page).exists(), f"{shown(file)}: {page}"


def test_every_picture_is_shown_somewhere() -> None:
    pictures = {picture.resolve() for picture in (DOCS / "images").iterdir()}
    assert pictures == pictures & {
        (page.parent / link).resolve() for page in PAGES for link in links_of(page)
    }


# -- attributes ------------------------------------------------------------------------------------


def block_in(annotation: Any, mark: str = "") -> tuple[type[BaseModel], str] | None:
    """Give the model of an attribute that is a block, and what stands between it and its names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, mark
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind in (Union, UnionType, Annotated):
        return next(filter(None, (block_in(part, mark) for part in inner)), None)
    if kind in (dict, Mapping):
        return block_in(inner[1], f"{mark}.NAME")
    return block_in(inner[0], f"{mark}[]") if kind is list else None


def attributes_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give each attribute by its path, and its default."""
    for name, field in model.model_fields.items():
        block, shown = block_in(field.annotation), field.alias or name
        if block is not None:
            yield from attributes_of(block[0], f"{prefix}{shown}{block[1]}.")
        elif field.is_required():
            yield prefix + shown, REQUIRED
        else:
            yield prefix + shown, field.get_default(call_default_factory=True)


def tell_default(default: Any) -> str | None:
    """Write a default as the page has it; None where words say what happens without one."""
    if default is REQUIRED:
        return REQUIRED
    if default is None or default in ([], {}):
        return None
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list):
        return "`[" + ", ".join(f'"{each}"' if each == "*" else each for each in default) + "]`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def section_of_attributes(title: str) -> str:
    text = (DOCS / "attributes.md").read_text("utf-8")
    found = re.search(rf"^(#+) {title}$(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title}"
    if found[1] == "###":
        return found[2].partition("\n### ")[0]
    return found[2]


def rows_of_attributes(title: str) -> dict[str, str]:
    """Give the attributes in the tables of a section, with the default that the page has."""
    found = re.findall(
        r"^\| `([\w.\[\]]+)` \| (.*?) \| .+ \|$", section_of_attributes(title), re.MULTILINE
    )
    rows = dict(found)
    assert len(rows) == len(found), "an attribute has two rows"
    return rows


def names_in(title: str, begin: str, end: str = "\\.\\s") -> list[str]:
    found = re.search(rf"{begin}(.*?){end}", section_of_attributes(title), re.DOTALL)
    assert found, begin
    return re.findall(r"`([\w.*]+)`", found[1])


def assert_defaults(told: Mapping[str, str], true: Mapping[str, Any]) -> None:
    for path, default in told.items():
        expected = tell_default(true[path])
        if expected is not None:
            assert default == expected, path
        else:
            assert default, path
            assert default != REQUIRED, path
            assert not re.fullmatch("`.*`", default), path


@pytest.mark.parametrize("component", sorted(COMPONENTS.keys() - DERIVED))
def test_the_page_of_attributes_has_each_attribute_of_a_component_with_its_default(
    component: str,
) -> None:
    true, told = dict(attributes_of(COMPONENTS[component])), rows_of_attributes(component)
    assert told.keys() == true.keys()
    assert_defaults(told, true)


def test_the_page_of_attributes_says_what_a_check_of_large_cells_shares_with_a_migration() -> None:
    true, told = (
        dict(attributes_of(COMPONENTS["GuardrailCheck"])),
        rows_of_attributes("GuardrailCheck"),
    )
    of_a_table = dict(attributes_of(COMPONENTS["TableMigration"]))
    shared = names_in("GuardrailCheck", "The same as in ")
    assert {name: of_a_table[name] for name in shared} == {name: true[name] for name in shared}
    assert {*shared, *told} == true.keys()
    assert_defaults(told, true)


def test_the_page_of_attributes_says_how_a_keyspace_differs_from_a_table() -> None:
    title = "KeyspaceMigration"
    true, told = dict(attributes_of(COMPONENTS[title])), rows_of_attributes(title)
    of_a_table = dict(attributes_of(COMPONENTS["TableMigration"]))
    kinds = ("DynamoDB", "PostgreSQL")
    only_some = {path for kind in kinds for path in rows_of_attributes(f"Only for {kind}")}

    def matching(patterns: list[str]) -> set[str]:
        return {p for p in of_a_table if any(fnmatchcase(p, pattern) for pattern in patterns)}

    # What all tables share, and what the keyspace has of its own.
    own = {path for path in true if not path.startswith("tables.NAME.")}
    same = {path for path in own if of_a_table.get(path, ...) == true[path]}
    lacking = matching(names_in(title, "or its columns: no", "Its own are")) | only_some
    assert lacking == of_a_table.keys() - own
    assert {path for path in told if not path.startswith("tables.")} == own - same

    # What one table may have.
    of_one = {p.removeprefix("tables.NAME.") for p in true if p.startswith("tables.NAME.")}
    lacking = matching(names_in(title, "for this table alone; but no", "\\.\n")) | only_some
    assert lacking - {"target.table"} == of_a_table.keys() - of_one
    told_of_one = {p.removeprefix("tables.NAME.") for p in told if p.startswith("tables.NAME.")}
    assert of_one - of_a_table.keys() <= told_of_one <= of_one
    assert_defaults(told, true)


def test_the_page_of_attributes_has_the_config_of_every_run() -> None:
    from migration_platform.components.table.assets import PlanConfig, RunConfig
    from migration_platform.components.table.guardrail_check import CheckConfig
    from migration_platform.components.table.sync_asset import SyncConfig
    from migration_platform.components.tenant import move

    configs = {
        "a table": RunConfig,
        "a table's `_plan`": PlanConfig,
        "a table's `_sync`": SyncConfig,
        "a table's `_large_cells`": CheckConfig,
        "a tenant's step": move.MoveConfig,
        "a tenant's table": move.TableConfig,
        "a tenant's sync": move.SyncConfig,
        "a tenant's rollback": move.RollbackConfig,
    }
    known = {
        kind
        for kind in _all_below(dg.Config)
        if kind.__module__.startswith("migration_platform.components")
    }
    assert known == set(configs.values())
    text = section_of_attributes("Config of a run")
    rows = re.findall(r"^\| (.+?) \| `(\w+)` \| (.*?) \| .+ \|$", text, re.MULTILINE)
    steps_own = move.MoveConfig.model_fields.keys()
    for label, config in configs.items():
        true = dict(attributes_of(config))
        told = {name: default for where, name, default in rows if where == label}
        if config in (move.TableConfig, move.SyncConfig):
            told |= {name: tell_default(true[name]) or "" for name in steps_own}
        assert told.keys() == true.keys(), label
        assert_defaults(told, true)
    assert {where for where, _, _ in rows} == configs.keys()


def _all_below(kind: type) -> Iterator[type]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_below(below)


# -- examples --------------------------------------------------------------------------------------


def _documents() -> Iterator[tuple[Block, dict[str, Any]]]:
    for page in PAGES:
        for block in blocks_of(page):
            if block.language == "yaml":
                for document in yaml.safe_load_all(block.text):
                    assert isinstance(document, dict), block
                    yield block, document


DECLARED = [(block, document) for block, document in _documents() if "type" in document]
FRAGMENTS = [(block, document) for block, document in _documents() if "type" not in document]
SMALLEST = {
    "origin": {"store": "old", "table": "shop.orders"},
    "target": {"store": "new", "table": "shop.orders"},
}


def _all_stores() -> dict[str, dict[str, Any]]:
    """Give the stores that the pages declare, by kind: an example may use those of another page."""
    stores: dict[str, dict[str, Any]] = {}
    for _, document in DECLARED:
        if document["type"] == "migration_platform.Stores":
            for kind, named in document["attributes"].items():
                stores.setdefault(kind, {}).update(named)
    return stores


def _stores_named_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "store":
                yield inner
            else:
                yield from _stores_named_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _stores_named_in(inner)


def load(project: Project, kind: str, attributes: dict[str, Any]) -> None:
    """Load an example beside the stores of all pages, and see that it is what it says."""
    stores = _all_stores()
    if kind != "Stores":
        project.declare("stores", "Stores", **stores)
        known = {name for named in stores.values() for name in named}
        assert set(_stores_named_in(attributes)) <= known
    project.declare("example" if kind != "Stores" else "stores", kind, **attributes)
    assert project.load().resolve_asset_graph() is not None


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    return make_project(tmp_path, cassandra_port=9)


@pytest.mark.parametrize(("block", "document"), DECLARED, ids=lambda value: f"{value}"[:60])
def test_an_example_that_declares_a_component_loads_as_what_it_says(
    project: Project, block: Block, document: dict[str, Any]
) -> None:
    assert document.keys() == {"type", "attributes"}
    package, _, kind = document["type"].partition(".")
    assert package == "migration_platform"
    load(project, kind, document["attributes"])


@pytest.mark.parametrize(("block", "document"), FRAGMENTS, ids=lambda value: f"{value}"[:60])
def test_an_example_of_single_attributes_loads_within_a_component_that_has_them(
    project: Project, block: Block, document: dict[str, Any]
) -> None:
    if document.keys() <= COMPONENTS["Stores"].model_fields.keys():
        load(project, "Stores", document)
    else:
        assert document.keys() <= COMPONENTS["TableMigration"].model_fields.keys()
        merged = {
            name: {**SMALLEST[name], **document.get(name, {})} for name in ("origin", "target")
        }
        load(project, "TableMigration", {**document, **merged})


# -- commands --------------------------------------------------------------------------------------


def _commands() -> Iterator[tuple[str, str]]:
    """Give every line of a shell, and every command in the text, with its page."""
    for page in PAGES:
        for block in blocks_of(page):
            if block.language in ("", "shell", "console"):
                for line in block.text.replace("\\\n", " ").splitlines():
                    yield shown(page), line.partition("  #")[0].strip().removeprefix("$ ")
        for span in re.findall(r"`([^`\n]+)`", prose_of(page)):
            yield shown(page), span


def test_every_command_of_this_project_exists_with_its_options() -> None:
    seen = 0
    for page, line in _commands():
        if not line.startswith("migration-platform "):
            continue
        seen += 1
        words, command = shlex.split(line)[1:], main
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{page}: {line}"
            command = command.commands[words.pop(0)]
        options = (each.opts + each.secondary_opts for each in command.params)
        known = {"-h", "--help", *(option for some in options for option in some)}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{page}: {line}"
    assert seen > 10


def test_every_target_of_make_exists() -> None:
    targets = set(
        re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE)
    )
    for page, line in _commands():
        if line.startswith("make "):
            assert line.split()[1] in targets, f"{page}: {line}"
