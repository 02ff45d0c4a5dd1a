"""What the jobs of the demo share: their stage, a run of Dagster in a process of its own, bars."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from migration_platform.errors import MigrationError
from migration_platform.local.servers import SUNBIRD_KEY, SUNBIRD_KEY_VARIABLE

Echo = Callable[[str], None]
LOCAL_CREDENTIALS = {
    # DynamoDB Local takes any credentials, but a request must carry some.
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    SUNBIRD_KEY_VARIABLE: SUNBIRD_KEY,
}

# Dagster says which steps failed, and then, without a time in front, why.
_REASON = re.compile(r"(?: - ERROR - .* - (?!Execution of )|\.Failure: )(.*\S)")


@dataclass(frozen=True)
class Stage:
    """What a job works with.

    Attributes:
        job: Its name.
        count: How many rows, or users, are wanted; `seed` says which ones.
        ports: Those of the servers, by name.
        home: The local stack's folder.
    """

    job: str
    count: int
    seed: int
    ports: Mapping[str, int]
    home: Path
    echo: Echo

    @property
    def log(self) -> Path:
        """What Dagster said in this job's runs."""
        return self.home / f"demo-{self.job}.log"


def prepare_instance(home: Path) -> Path:
    """Give the folder of the demo's Dagster instance, made on first use.

    Raises:
        MigrationError: this is no clone of the project, so there are no settings to start from.
    """
    instance = Path(os.environ.get("DAGSTER_HOME") or home / "dagster").absolute()
    settings = instance / "dagster.yaml"
    if not settings.exists():
        template = Path(__file__).parent.parent / "deploy" / "local" / "dagster.yaml"
        if not template.exists():
            raise MigrationError(
                f"there is no {settings}; run the demo from a clone of the project, or put a "
                "dagster.yaml there"
            )
        instance.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, settings)
    return instance


def progress(total: int, unit: str) -> tqdm:
    """Make a progress bar on a terminal, and a plain line every ten seconds elsewhere."""
    if sys.stderr.isatty():
        return tqdm(total=total, unit=f" {unit}", leave=False, dynamic_ncols=True)
    # A bar that ends in a line break never overwrites, and so leaves nothing to clear.
    line = "     {n_fmt} of {total_fmt} {unit}\n"
    return tqdm(total=total, unit=unit, bar_format=line, mininterval=10.0, delay=5.0)


def launch(
    stage: Stage,
    select: str,
    *,
    partition_range: tuple[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    bars: Mapping[str, str] | None = None,
) -> bool:
    """Materialize assets in a run of its own process; says whether it succeeded.

    `bars` gives for each unit a pattern of log lines with two numbers, done and total.
    """
    # Nobody's own credentials sign requests to DynamoDB Local, nor stop them by having expired.
    own = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
    environment = {key: value for key, value in os.environ.items() if key not in own}
    environment |= LOCAL_CREDENTIALS | {"DAGSTER_HOME": str(prepare_instance(stage.home))}
    environment |= {
        f"MIGRATION_PLATFORM_{server.upper()}_PORT": str(port)
        for server, port in stage.ports.items()
    }
    command = [
        *(sys.executable, "-m", "dagster", "asset", "materialize"),
        *("--module-name", "migration_platform.definitions", "--select", select),
    ]
    if partition_range:
        command += ["--partition-range", "...".join(partition_range)]
    if config:
        command += ["--config-json", json.dumps(config)]
    with (
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        stage.log.open("a") as file,
        ExitStack() as shown,
    ):
        assert process.stdout is not None
        bar: dict[str, tqdm] = {}
        told: set[str] = set()
        for line in process.stdout:
            file.write(line)
            for unit, pattern in (bars or {}).items():
                if found := re.search(pattern, line):
                    done, total = (int(number.replace(",", "")) for number in found.groups())
                    if unit not in bar:
                        shown.close()
                        bar[unit] = shown.enter_context(progress(total, unit))
                    bar[unit].update(done - bar[unit].n)
            if (found := _REASON.search(line)) and found[1] not in told:
                told.add(found[1])
                tqdm.write(f"     {found[1]}", file=sys.stderr)
    if process.returncode:
        stage.echo(f"     The run failed; its whole log: {stage.log}")
    return process.returncode == 0


@dataclass(frozen=True)
class Ended:
    """A run that has ended: Dagster's record of it, and what its checks said."""

    record: Any
    checks: tuple[Any, ...]


def newest_run(instance: Any, since: float, log: Path) -> Ended:
    """Give the newest run that began at `since` or later.

    Raises:
        MigrationError: Dagster began none.
    """
    from datetime import UTC, datetime

    import dagster as dg

    begun = dg.RunsFilter(created_after=datetime.fromtimestamp(since, UTC))
    records = instance.get_run_records(begun, limit=1)
    if not records:
        raise MigrationError(f"Dagster began no run; the reason stands in {log}")
    events = instance.get_records_for_run(
        records[0].dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    said = tuple(each.event_log_entry.dagster_event.event_specific_data for each in events)
    return Ended(records[0], said)
