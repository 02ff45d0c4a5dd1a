"""Makes a page of what requests cost a server; asks nobody anything."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import NONE, lay_table, round_figure
from benchmarks.server_profile import (
    COMPILER,
    GROUPS,
    NETWORK,
    OTHER,
    REQUESTS,
    WAITING,
    WORKS,
    Stacks,
    Used,
)

PAGE = "benchmarks-requests.md"
PACE = "The client's pace, a row in each request"
"""The section whose lines differ only in rows a second."""
BOTH = (REQUESTS, NETWORK)
Name = tuple[str, str]
"""A section and a line of its table."""


@dataclass(frozen=True)
class Turn:
    """What one way took in one run: seconds, CPU seconds of the client, what the server used."""

    rows: int
    seconds: float
    client: float
    used: Used

    @property
    def client_us(self) -> float:
        return self.client / self.rows * 1e6

    @property
    def server_us(self) -> float:
        """The compiler left out."""
        seconds = sum(self.used.seconds.values()) - self.used.seconds.get(COMPILER, 0.0)
        return seconds / self.rows * 1e6

    @property
    def sleeps(self) -> float:
        """How often a thread of the server slept, for each row."""
        return sum(self.used.sleeps.values()) / self.rows

    def group_us(self, group: str) -> float:
        """What a group of threads used."""
        return self.used.seconds.get(group, 0.0) / self.rows * 1e6


def write_page(
    folder: Path,
    turns: Mapping[Name, Sequence[Turn]],
    profiles: Mapping[Name, tuple[Turn, Stacks]],
    *,
    command: str,
    rows: int,
    runs: int,
    machine: Mapping[str, str],
    versions: Mapping[str, str],
) -> Path:
    """Write the page; gives its path."""
    sections = [
        "# What a request costs the server",
        f"The same rows, written and read in many ways. This page is written by `{command}`.",
        f"{rows:,} enrolments of 19 columns and about 480 bytes, one node, replication factor 1, "
        f"one client process. {', '.join(machine.values())}; server and client share it. Each "
        f"figure is the median of {runs} run{'s' if runs > 1 else ''} after a warm-up, that of the "
        "server's CPU with minimum and maximum.",
    ]
    for section in dict.fromkeys(section for section, _ in turns):
        lines = {name: found for (where, name), found in turns.items() if where == section}
        sections += [f"## {section}", _table(lines)]
        if section == PACE:
            sections.append(_say_split(lines))
    if profiles:
        sections += [
            "## What the server's code works on",
            "Of the threads that carry out requests and those of the network: their CPU in one "
            "turn, and how their Java code divides its time, by samples of the stacks. The "
            "recorder does not see the kernel, which puts threads to sleep, wakes them, sends and "
            "receives: the more sleeps, the larger its part of the CPU beside the Java code's.",
            _works(profiles),
        ]
    sections += [
        "## How it is measured",
        "In every run each way has its turn, another one first each time. Before each the target "
        "is emptied and the server left alone until it is idle. Rows to be written are bound "
        "beforehand, in the order of another table's partitions, as in a copy to another key. "
        "Rows to be read lie on the disk, in one file. A writer that goes straight to a socket "
        "uses protocol 4 and sends what is due in one piece.\n\n"
        "Threads' CPU is the kernel's account. `requests` are those that carry out requests, "
        "`network` those that read and send frames, `other` all that the tables do not name. The "
        "compiler's share is left out of the server's CPU: it ends when a server has been up "
        "for some minutes. `sleeps` is how often a thread of the server went to sleep for a row: "
        "each costs it a call into the kernel, and another to be woken. What is flushed and "
        "compacted later is nobody's. The server runs with its Java's default compiler and "
        "collector and 1 GiB of heap.\n\n"
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.",
        "## How to repeat it",
        f"```\n{command}\n```\n\nNothing else should run on the machine meanwhile.",
    ]
    path = folder / PAGE
    path.write_text("\n\n".join(filter(None, sections)) + "\n", encoding="utf-8")
    return path


def _table(lines: Mapping[str, Sequence[Turn]]) -> str:
    shown = [group for group in (*GROUPS, OTHER) if group != COMPILER]
    units = "µs a row"
    head = ["", "rows/s", f"client CPU, {units}", f"server CPU, {units}", *shown, "sleeps a row"]
    rows = [head]
    for name, turns in lines.items():
        server = sorted(turn.server_us for turn in turns)
        row = [
            name,
            _median(turns, lambda turn: turn.rows / turn.seconds),
            _median(turns, lambda turn: turn.client_us),
            f"{round_figure(statistics.median(server))} "
            f"({round_figure(server[0])} to {round_figure(server[-1])})",
        ]
        row += [_median(turns, lambda turn, g=group: turn.group_us(g)) for group in shown]
        row.append(f"{statistics.median(turn.sleeps for turn in turns):.1f}")
        rows.append(row)
    return lay_table(rows)


def _median(turns: Sequence[Turn], figure: Callable[[Turn], float]) -> str:
    return _cell(statistics.median(map(figure, turns)))


def _cell(value: float) -> str:
    return NONE if math.isclose(value, 0, abs_tol=0.05) else round_figure(value)


def _works(profiles: Mapping[Name, tuple[Turn, Stacks]]) -> str:
    works = [*WORKS, WAITING]
    head = ["", "CPU, µs a row", *works, "sleeps a row", "of these looking out for requests"]
    rows = [head]
    for (section, name), (turn, stacks) in profiles.items():
        samples = stacks.works.total() or 1
        rows.append(
            [
                f"{section.split(',')[0]}: {name}",
                _cell(sum(turn.group_us(group) for group in BOTH)),
                *(f"{stacks.works[work] / samples:.0%}" for work in works),
                f"{turn.sleeps:.1f}",
                f"{stacks.looking_out:.0%}",
            ]
        )
    return lay_table(rows)


def split_cost(turns: Sequence[Turn]) -> tuple[float, float]:
    """Split what the server uses in a second: cores whatever the pace, and seconds a row."""
    paces = [turn.rows / turn.seconds for turn in turns]
    cores = [turn.server_us / 1e6 * pace for turn, pace in zip(turns, paces, strict=True)]
    line = statistics.linear_regression(paces, cores)
    return line.intercept, line.slope


def _say_split(lines: Mapping[str, Sequence[Turn]]) -> str:
    turns = [turn for found in lines.values() for turn in found]
    if len(lines) < 2:
        return ""
    cores, seconds = split_cost(turns)
    return (
        f"The best straight line through these: {cores:.2f} of a core as long as requests come, "
        f"however few, and {seconds * 1e6:.0f} µs for each."
    )
