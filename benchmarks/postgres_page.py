"""Makes a page of what copies to PostgreSQL take; asks nobody anything."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measuring import Measured, Results, ratio, spread
from benchmarks.peers import Peer, Work
from benchmarks.peers.postgres import (
    BARE_COPY,
    COMPARISON,
    COPY,
    EXECUTEMANY,
    LARGE,
    SINGLE,
    SMALL,
    USUAL,
    WRITER,
)
from benchmarks.report import NONE, OURS, lay_table, round_figure, show_figure

FIGURES = ("rows_per_second", "client_us", "server_us")


@dataclass(frozen=True)
class Copies:
    """Everything that the page says.

    Attributes:
        command: How it was measured.
        results: A work's name -> its runs, the warm-up left out.
    """

    command: str
    rows: int
    runs: int
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    results: Results

    def of(self, work: Work) -> list[Measured]:
        """Give a work's runs."""
        return self.results.get(work.name, [])


@dataclass(frozen=True)
class Aim:
    """What is to be reached: `measure` gives a work's figure, which `least` or `most` bounds."""

    name: str
    measure: Callable[[Copies, Work], float]
    unit: str
    works: Sequence[Work]
    least: float = -math.inf
    most: float = math.inf

    @property
    def bound(self) -> str:
        """The bound in words."""
        if math.isinf(self.most):
            return f"at least {self.least:g}{self.unit}"
        return f"at most {self.most:g}{self.unit}"

    def tell(self, copies: Copies) -> list[str]:
        """Give the line of the page."""
        return [self.name, self.bound, *(self._tell_work(copies, work) for work in AIMED)]

    def _tell_work(self, copies: Copies, work: Work) -> str:
        found = self.measure(copies, work) if work in self.works else math.nan
        if math.isnan(found):
            return NONE
        shown = f"{found:.2f}" if self.unit == _TIMES else round_figure(found)
        is_reached = self.least <= found <= self.most
        return f"{shown}{self.unit}{'' if is_reached else ', **missed**'}"


def _times_as_fast(theirs: Work) -> Callable[[Copies, Work], float]:
    return lambda copies, work: ratio(copies.of(work), copies.of(theirs), "rows_per_second")


def _client(copies: Copies, work: Work) -> float:
    return spread(copies.of(work), "client_us")[0]


def _growth(copies: Copies, work: Work) -> float:
    return ratio(copies.of(LARGE), copies.of(work), "largest_mb")


_TIMES = " times"
AIMED = (COPY, WRITER)
"""Everything that a copy does, and what the others do: writing what is in memory."""
AIMS = (
    Aim("rows a second of single INSERTs", _times_as_fast(SINGLE), _TIMES, AIMED, least=10),
    Aim(
        "rows a second of executemany of 25, rows that stand ready",
        _times_as_fast(EXECUTEMANY),
        _TIMES,
        AIMED,
        least=3,
    ),
    Aim(
        "rows a second of the usual program, which reads and converts and has executemany of 25",
        _times_as_fast(USUAL),
        _TIMES,
        (COPY,),
        least=3,
    ),
    Aim("rows a second of a bare COPY", _times_as_fast(BARE_COPY), _TIMES, AIMED, least=0.6),
    Aim("client CPU", _client, " µs a row", AIMED, most=25),
    Aim("largest process with four times the rows", _growth, _TIMES, (COPY,), most=1.1),
)


def make_page(copies: Copies, peers: Sequence[Peer]) -> str:
    """Write the page in Markdown."""
    works = [work for peer in peers for work in peer.works if copies.of(work)]
    sections = [
        "# Copies to PostgreSQL",
        "This project beside what one writes with psycopg alone. This page is written by "
        f"`{copies.command}`.",
        f"{copies.rows:,} enrolments of 19 columns and about 500 bytes, three of them documents, "
        "from one node of Cassandra to one PostgreSQL as it is after its installation. "
        f"{', '.join(copies.machine.values())}; servers and client share it. Each figure is the "
        f"median (minimum to maximum) of {copies.runs} run{'s' if copies.runs > 1 else ''} after a "
        "warm-up.",
        _table(copies, works),
        tell_missing(copies, works),
        "This project reads Cassandra, converts and writes to a table with a primary key, and so "
        "does the usual program. The others with psycopg write rows that stand in their memory, as "
        "values that need no more thought; so do the writer alone, from Cassandra's pages, and the "
        "bare COPY, from bytes that a COPY has given.",
        _shares(copies, works),
        "## Beside each other",
        _ratios(copies, works),
        "## What is aimed at",
        lay_table(
            [["", "aim", "a copy, Cassandra's part included", "the writer alone"]]
            + [aim.tell(copies) for aim in AIMS]
        ),
        "## Settings and versions",
        lay_table([["", "settings"], *([peer.name, peer.settings] for peer in peers)]),
        f"{', '.join(f'{name} {version}' for name, version in copies.versions.items())}.",
        "## How it is measured",
        _METHOD,
        "## How to repeat it",
        f"```\n{copies.command}\n```\n\nNothing else should run on the machine meanwhile.",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _table(copies: Copies, works: Sequence[Work]) -> str:
    head = [
        "",
        "rows/s",
        "client CPU, µs a row",
        "PostgreSQL's CPU, µs a row",
        "largest process, MB",
    ]
    rows = [head]
    for work in works:
        runs, is_ours = copies.of(work), work.name.startswith(OURS)
        # Of the others it is the rows that stand ready, and nothing that they need.
        memory = f"{spread(runs, 'largest_mb')[2]:,.0f}" if is_ours and work != WRITER else NONE
        cells = [show_figure(runs, figure) for figure in FIGURES]
        rows.append([f"**{work.name}**" if is_ours else work.name, *cells, memory])
    return lay_table(rows)


def _ratios(copies: Copies, works: Sequence[Work]) -> str:
    ours = [
        work
        for work in works
        if work.name.startswith(OURS) and work not in (COMPARISON, SMALL, LARGE)
    ]
    theirs = [work for work in works if not work.name.startswith(OURS)]
    rows = [["rows a second, run by run", *(work.name for work in ours)]]
    for work in theirs:
        # The usual program reads; nothing that only writes stands beside it.
        values = [
            math.nan
            if (each, work) == (WRITER, USUAL)
            else ratio(copies.of(each), copies.of(work), "rows_per_second")
            for each in ours
        ]
        shown = [NONE if math.isnan(value) else f"{value:.1f} times" for value in values]
        rows.append([f"of {work.name}", *shown])
    return lay_table(rows)


def _shares(copies: Copies, works: Sequence[Work]) -> str:
    """Say which works had only some of the rows."""
    some = [
        f"{work.name.removeprefix('psycopg, ')} "
        f"{round(statistics.median(run.work.rows for run in copies.of(work))):,}"
        for work in works
        if work.share < 1 and not work.name.startswith(OURS)
    ]
    if not some:
        return ""
    return (
        f"Slow programs wrote a part of the rows: {'; '.join(some)}. Their figures a row and a "
        "second are taken as those of the whole table."
    )


def tell_missing(copies: Copies, works: Sequence[Work]) -> str:
    """Say what did not arrive."""
    said = []
    for work in works:
        runs = copies.of(work)
        if lost := [run.lost for run in runs if run.lost]:
            said.append(
                f"- {work.name}: up to {max(lost, key=abs):,} rows did not arrive, in {len(lost)} "
                f"of {len(runs)} runs."
            )
    return (
        "\n".join(said) or "All rows arrived in every run, and every comparison found them equal."
    )


_METHOD = (
    "In every run each program has its turn, another one first each time. Before each work the "
    "tables are emptied, PostgreSQL writes a checkpoint, and both servers are left alone until "
    "they are idle; after it the rows are counted. The second copy and the comparison follow the "
    "first at once, on what it has written. Four times the rows, in as many ranges, are copied in "
    "the first run only: they show whether memory grows. A quarter of the rows fills no batch. "
    "Programs are started and connected beforehand; this project's processes are new ones for each "
    "work, so that a peak of memory is its own, and have done a range each.\n\n"
    "CPU is the kernel's account of a client with all its processes, and of PostgreSQL with all of "
    "its own. Cassandra's, which reads meanwhile and needs the same cores, is in neither. A commit "
    "waits for the disk. Memory is the kernel's peak of the largest process."
)
