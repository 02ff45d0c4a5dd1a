"""The commands of a page of the documentation, run as printed, in a clone of the project."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from migration_platform_tests.servers import REPOSITORY, jars_folder

_OF_A_CLONE = ("pyproject.toml", "workspace.yaml", "deploy", "docs", "migration_platform")


@dataclass(frozen=True)
class Clone:
    """A folder that looks like a clone of the project, with a `.migration-platform` of its own."""

    folder: Path
    ports: dict[str, int]

    @property
    def home(self) -> Path:
        return self.folder / ".migration-platform"

    def run(self, command: str, *, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command in a shell that has read the page's set-up."""
        ports = {
            f"MIGRATION_PLATFORM_{name.upper()}_PORT": str(port)
            for name, port in self.ports.items()
        }
        # The clone has a home and an instance of its own.
        others = ("DAGSTER", "AWS_", "MIGRATION_PLATFORM_")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(others)},
            **ports,
            "MIGRATION_PLATFORM_JARS": str(jars_folder()),
            "PYTHONPATH": str(self.folder),
            "NO_COLOR": "1",
            "COLUMNS": "300",
        }
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def make_clone(folder: Path, ports: dict[str, int]) -> Clone:
    """Make the folder, with links to what a clone has."""
    folder.mkdir()
    for name in _OF_A_CLONE:
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / ".venv").symlink_to((REPOSITORY / ".venv").resolve())
    return Clone(folder, ports)


def shell_blocks(page: str, section: str) -> list[str]:
    """Give the blocks of shell commands in a section of a page, with its sub-sections."""
    text = (REPOSITORY / "docs" / page).read_text("utf-8")
    found = re.search(rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, section
    blocks = re.findall(r"^```shell\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", "") for block in blocks]
