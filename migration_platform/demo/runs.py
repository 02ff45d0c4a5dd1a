"""What the jobs of the demo share: their stage, bars, and runs of Dagster in another process."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from migration_platform.errors import MigrationError
from migration_platform.local.sunbird_service import SUNBIRD_KEY, SUNBIRD_KEY_VARIABLE

Echo = Callable[[str], None]
LOCAL_CREDENTIALS = {
    # DynamoDB Local takes any credentials, but a request must carry some.
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    SUNBIRD_KEY_VARIABLE: SUNBIRD_KEY,
}

RANGES = ("00-of-64", "63-of-64")
BARS = {
    "ranges copied": r"\((\d+) of (\d+) ranges\)",
    "scans compared": r"(\d+) of (\d+) scans done",
}
"""How a run's log tells of its progress."""

_ENDED = "migration-platform demo, run ended: "
_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"
# Dagster says which steps failed, and then, without a time in front, why.
_REASON = re.compile(r"(?: - ERROR - .* - |\.Failure: )(.*\S)")


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
        template = Path(__file__).parent.parent.parent / "deploy" / "local" / "dagster.yaml"
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
    line = "     {n:,} of {total:,} {unit}\n"
    return tqdm(total=total, unit=unit, bar_format=line, mininterval=10.0, delay=5.0)


@dataclass(frozen=True)
class Run:
    """A run to be launched.

    Attributes:
        assets: What is materialized, as `folder/name`; their checks are part of it.
        ranges: The first and the last partition; None where there are none.
        bars: For each unit a pattern of log lines with two numbers, done and total.
    """

    assets: Sequence[str]
    ranges: tuple[str, str] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    bars: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """What a check said in a run."""

    name: str
    passed: bool
    description: str


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    run_id: str
    succeeded: bool
    seconds: float
    checks: tuple[Check, ...]


def build_environment(stage: Stage) -> dict[str, str]:
    """Give the variables with which Dagster finds the servers of this machine.

    Raises:
        MigrationError: there are no settings for Dagster to start from.
    """
    # Nobody's own credentials sign requests to DynamoDB Local, nor stop them by having expired.
    own = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
    environment = {key: value for key, value in os.environ.items() if key not in own}
    environment |= LOCAL_CREDENTIALS | {"DAGSTER_HOME": str(prepare_instance(stage.home))}
    environment |= {
        f"MIGRATION_PLATFORM_{server.upper()}_PORT": str(port)
        for server, port in stage.ports.items()
    }
    return environment


def tell_run(ended: Ended) -> tuple[str, str]:
    """Say how a run ended, as a line of a summary."""
    return "run", f"{'SUCCESS' if ended.succeeded else 'FAILURE'}, {ended.run_id}"


def tell_checks(checks: Sequence[Check]) -> list[tuple[str, str]]:
    """Say what checks said, as lines of a summary."""
    return [
        (f"check {check.name}", f"{'passed' if check.passed else 'FAILED'}: {check.description}")
        for check in checks
    ]


def lay_lines(stage: Stage, lines: Sequence[tuple[str, str]]) -> None:
    """Show a summary: names on the left, what is said of them beside."""
    width = max(len(name) for name, _ in lines)
    stage.echo("")
    for name, value in lines:
        stage.echo(f"  {name:<{width}}  {value}")
    stage.echo("")


def launch(stage: Stage, runs: Sequence[Run]) -> Iterator[Ended]:
    """Run one after the other, in one process of its own; the first that fails is the last.

    Raises:
        MigrationError: a run did not even begin, or the process was ended.
    """
    wanted = json.dumps([asdict(run) for run in runs])
    with (
        subprocess.Popen(
            (sys.executable, "-m", "migration_platform.demo.runs", wanted),
            env=build_environment(stage),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
        stage.log.open("w") as file,
    ):
        assert process.stdout is not None
        for run in runs:
            ended = None
            with ExitStack() as shown:
                follow = _follower(run, shown)
                for line in process.stdout:
                    if line.startswith(_ENDED):
                        ended = _read_ended(line)
                        break
                    file.write(line)
                    follow(line)
            if ended is None:
                raise MigrationError(f"Dagster ended before its run; the reason is in {stage.log}")
            yield ended
            if not ended.succeeded:
                stage.echo(f"     The run failed; its whole log: {stage.log}")
                return


def _follower(run: Run, shown: ExitStack) -> Callable[[str], None]:
    """Build the function that shows the progress and the errors in a run's log."""
    bar: dict[str, tqdm] = {}
    told: set[str] = set()

    def follow(line: str) -> None:
        for unit, pattern in run.bars.items():
            if found := re.search(pattern, line):
                done, total = map(int, found.groups())
                if unit not in bar:
                    shown.close()
                    bar[unit] = shown.enter_context(progress(total, unit))
                bar[unit].update(done - bar[unit].n)
        found = _REASON.search(line)
        if found and found[1] not in told and not found[1].startswith("Execution of "):
            told.add(found[1])
            tqdm.write(f"     {found[1]}", file=sys.stderr)

    return follow


def _read_ended(line: str) -> Ended:
    told = json.loads(line.removeprefix(_ENDED))
    return Ended(**told | {"checks": tuple(Check(**check) for check in told["checks"])})


def main() -> None:
    """Execute the runs that the only argument lists, and tell of each when it has ended."""
    import dagster as dg

    from migration_platform.definitions import defs

    job = defs().resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        for wanted in json.loads(sys.argv[1]):
            first, last = wanted["ranges"] or (None, None)
            tags = {_RANGE_START: first, _RANGE_END: last} if first and last else {}
            began = time.monotonic()
            result = job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(name.split("/")) for name in wanted["assets"]],
                run_config=wanted["config"],
                tags=tags,
                raise_on_error=False,
            )
            ended = Ended(
                run_id=result.run_id,
                succeeded=result.success,
                seconds=time.monotonic() - began,
                checks=tuple(
                    Check(said.check_name, said.passed, said.description or "")
                    for said in result.get_asset_check_evaluations()
                ),
            )
            # A line of its own, whatever the log left open.
            print(f"\n{_ENDED}{json.dumps(asdict(ended))}", flush=True)
            if not ended.succeeded:
                return


if __name__ == "__main__":
    main()
