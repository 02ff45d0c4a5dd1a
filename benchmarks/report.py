"""Makes of the measured figures a page, a picture and a file of numbers; asks nobody anything."""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path

from benchmarks.measuring import Measured, Results, Spent, ratio, spread
from benchmarks.peers import CHECKED_ROWS, START_ROWS, Group, Peer, Work
from migration_platform.picture import BACKGROUND, FONT, MUTED, TEXT, shorten, write_text

TITLES: dict[Group, str] = {
    "copy": "Cassandra to Cassandra: copy",
    "comparison": "Cassandra to Cassandra: comparison",
    "dynamodb": "Writing to DynamoDB Local",
}
OURS = "this project"
NONE = "-"
FIGURES = ("rows_per_second", "client_us", "server_us")
_OURS, _THEIRS, _SERVER = "#3fb68b", "#5b8def", "#5a6478"
_WIDTH = 960
_NAMES, _LEFT, _RIGHT, _BAR = 16, 330, 660, 210
_LINE = 26


@dataclass(frozen=True)
class Differing:
    """How many of the compared rows of a copy are not the origin's.

    Attributes:
        rows: Those whose values differ.
        compared: All that were compared.
        columns: A column that differs -> an example.
    """

    rows: int
    compared: int
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything that the page says.

    Attributes:
        command: How it was measured.
        starts: A served program's name -> what its start took.
        results: A work's name -> its runs, the warm-up left out.
        differing: A work's name -> how its copy differs from the origin.
        failed: A work's name -> why it has no figures.
    """

    command: str
    rows: int
    items: int
    runs: int
    mixed: bool
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    starts: Mapping[str, Spent]
    results: Results
    differing: Mapping[str, Differing] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def write_report(report: Report, peers: Sequence[Peer], folder: Path) -> list[Path]:
    """Write page, picture and numbers; gives their paths."""
    page, numbers = folder / "benchmarks.md", folder / "benchmarks.json"
    picture = folder / "images" / "benchmarks.svg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(make_page(report, peers), encoding="utf-8")
    numbers.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    picture.write_text(draw(report, peers), encoding="utf-8")
    return [page, picture, numbers]


def make_page(report: Report, peers: Sequence[Peer]) -> str:
    """Write the page in Markdown."""
    sections = [
        "# Benchmarks",
        "This project and its peers, measured side by side on one machine. This page, its picture "
        f"and [all figures](benchmarks.json) are written by `{report.command}`.",
        "![Rows a second and CPU a row of every program](images/benchmarks.svg)",
        _conditions(report),
    ]
    for group, title in TITLES.items():
        if lines := [(peer, work) for peer, work in _works(peers) if work.group == group]:
            sections += [f"## {title}", _table(report, lines, group)]
            sections += [_ratios(report, lines), tell_faults(report, lines)]
    sections += [
        "## Settings and versions",
        show_settings(peers, report),
        "## How it is measured",
        _method(report),
        "## How to repeat it",
        "```\nmake bench                               # everything, as above\n"
        "make bench ROWS=1000000 RUNS=5 ONLY=own,plain\n```\n\n"
        "The peers come from package registries, checked by hash, into a folder of their own. "
        "Nothing else should run on the machine meanwhile.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _works(peers: Sequence[Peer]) -> Iterator[tuple[Peer, Work]]:
    for peer in peers:
        for work in peer.works:
            yield peer, work


def _conditions(report: Report) -> str:
    mixed = "; a third of the rows has a cell with a writetime and a TTL of its own"
    machine = ", ".join(report.machine.values())
    measured = []
    if report.rows:
        measured.append(
            f"{report.rows:,} enrolments of 19 columns and about 500 bytes, from a table by user "
            f"to one by batch, one node, replication factor 1{mixed if report.mixed else ''}"
        )
    if report.items:
        measured.append(f"{report.items:,} items for DynamoDB Local, a tenth of them with PutItem")
    return (
        f"{'; '.join(measured)}. {machine}; servers and clients share it. Each "
        f"figure is the median (minimum to maximum) of {report.runs} "
        f"run{'s' if report.runs > 1 else ''} after a warm-up."
    )


def _table(report: Report, lines: Sequence[tuple[Peer, Work]], group: Group) -> str:
    unit = "an item" if group == "dynamodb" else "a row"
    head = [
        "",
        "items/s" if group == "dynamodb" else "rows/s",
        f"client CPU, µs {unit}",
        f"server CPU, µs {unit}",
        "peak memory, MB",
        "start, s (CPU s)",
        "keeps",
        "does not do",
    ]
    rows = [head]
    for peer, work in lines:
        runs = report.results.get(work.name, [])
        cells = [show_figure(runs, name) for name in FIGURES]
        cells += [_memory(runs), _start(report, peer, runs), work.keeps or NONE, work.lacks or NONE]
        rows.append([f"**{work.name}**" if work.name.startswith(OURS) else work.name, *cells])
    return lay_table(rows)


def command_line(name: str) -> str:
    """Give how this benchmark was called, but for where its page went."""
    arguments = iter(sys.argv[1:])
    kept = []
    for argument in arguments:
        if argument == "--docs":
            next(arguments, None)
        elif not argument.startswith("--docs="):
            kept.append(argument)
    return " ".join([f"python -m benchmarks.{name}", *kept])


def lay_table(rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown; the first row is the head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def show_figure(runs: Sequence[Measured], figure: str) -> str:
    """Show the median, and the spread where there is one."""
    median, least, most = spread(runs, figure)
    if math.isnan(median):
        return NONE
    spread_text = f" ({round_figure(least)} to {round_figure(most)})" if len(runs) > 1 else ""
    return f"{round_figure(median)}{spread_text}"


def round_figure(value: float) -> str:
    """Give three digits at most: what the spread leaves of them is less."""
    if value >= 1000:
        return f"{round(value, 2 - math.floor(math.log10(value))):,.0f}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _memory(runs: Sequence[Measured]) -> str:
    peak, largest = spread(runs, "peak_mb")[2], spread(runs, "largest_mb")[2]
    return NONE if math.isnan(peak) else f"{peak:,.0f} (largest process {largest:,.0f})"


def _start(report: Report, peer: Peer, runs: Sequence[Measured]) -> str:
    starts = [run.start for run in runs if run.start]
    if not starts and peer.name in report.starts:
        starts = [report.starts[peer.name]]
    if not starts:
        return NONE
    middle = sorted(starts, key=lambda start: start.seconds)[len(starts) // 2]
    return f"{middle.seconds:.1f} ({middle.client:.1f})"


def _ratios(report: Report, lines: Sequence[tuple[Peer, Work]]) -> str:
    """Compare this project with each peer, run by run."""
    measured = [work for _, work in lines if report.results.get(work.name)]
    ours = [work for work in measured if work.name.startswith(OURS)]
    theirs = [work for work in measured if work not in ours]
    if not ours or not theirs:
        return ""
    head = ["rows a second, run by run", *(work.name for work in ours)]
    rows = [head]
    for peer in theirs:
        values = [
            ratio(report.results[mine.name], report.results[peer.name], "rows_per_second")
            for mine in ours
        ]
        shown = [NONE if math.isnan(value) else f"{value:.1f} times" for value in values]
        rows.append([f"of {peer.name}", *shown])
    return lay_table(rows)


def tell_faults(report: Report, lines: Sequence[tuple[Peer, Work]]) -> str:
    """Say what did not arrive, what arrived otherwise, and what could not be measured."""
    said = []
    for _, work in lines:
        runs = report.results.get(work.name, [])
        if lost := [run.lost for run in runs if run.lost]:
            said.append(
                f"- {work.name}: up to {max(lost, key=abs):,} rows did not arrive, in {len(lost)} "
                f"of {len(runs)} runs."
            )
        differing = report.differing.get(work.name)
        if differing and differing.rows:
            columns = ", ".join(
                f"`{column}` ({example})" if example else f"`{column}`"
                for column, example in sorted(differing.columns.items())
            )
            said.append(
                f"- {work.name}: of {differing.compared:,} rows that were compared, the values of "
                f"{differing.rows:,} are not the origin's"
                + (f", in {columns}." if columns else ".")
            )
        if work.name in report.failed:
            said.append(f"- {work.name}: failed; {_without_paths(report.failed[work.name])}.")
    if said:
        return "\n".join(said)
    if all(work.group == "comparison" for _, work in lines):
        return "Every row was equal in every run."
    checked = any(work.name in report.differing for _, work in lines)
    vouched = ", with the values of the origin where they were compared" if checked else ""
    return f"All rows arrived in every run{vouched}."


def _without_paths(reason: str) -> str:
    return reason.split("; its log:")[0]


def show_settings(peers: Sequence[Peer], report: Report) -> str:
    """Show what the programs were told, and what was measured with."""
    rows = [["", "settings"]]
    for peer in peers:
        how = "started beforehand" if peer.module else "started for each run"
        rows.append([peer.name, f"{how}; {peer.settings}"])
    table = lay_table(rows)
    return f"{table}\n\n{', '.join(f'{k} {v}' for k, v in report.versions.items())}."


def _method(report: Report) -> str:
    return (
        "In every run each program has its turn, another one first each time. Before each work the "
        "target is emptied and the server left alone until it is idle; after it the rows are "
        "counted, and in the warm-up this project compares them with the origin's value by value, "
        f"range by range until {CHECKED_ROWS:,} rows are compared.\n"
        "\n"
        "CPU is the kernel's account of a client with all processes that it started, those that "
        "ended and Java machines included, and of the server's process; what the server flushes "
        "and compacts later is nobody's. Memory is what all processes of a client hold at one "
        "time, sampled four times a second, and the kernel's peak of the largest.\n"
        "\n"
        "Starting is left out of the figures a row. Programs that can wait are started and "
        "connected beforehand, and stay from run to run, so a Java machine is warm. dsbulk and "
        f"cqlsh start anew, for reading and for writing: what they take for {START_ROWS:,} rows, "
        "just before in the same run, is taken off as their start."
    )


def draw(report: Report, peers: Sequence[Peer]) -> str:
    """Draw two bars a work, rows a second and CPU a row, as an SVG document."""
    parts: list[str] = []
    y = 64.0
    for group, title in TITLES.items():
        works = [work for _, work in _works(peers) if work.group == group]
        works = [work for work in works if report.results.get(work.name)]
        if works:
            parts.append(write_text(_NAMES, y, title, 14, TEXT, weight=700))
            y += 24
            lines, y = _bars(report.results, works, y)
            parts += lines
            y += 18
    height = round(y + 4)
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" font-family="{FONT}">',
        f"<title>{escape(_summary(report))}</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="12" fill="{BACKGROUND}"/>',
        write_text(_LEFT, 30, "rows a second: longer is better", 12, MUTED),
        write_text(_RIGHT, 30, "CPU, µs a row: shorter is better", 12, MUTED),
        write_text(_RIGHT, 46, "client in colour, server in grey", 11, MUTED),
        write_text(_LEFT, 46, "median; thin line from minimum to maximum", 11, MUTED),
    ]
    return "".join([*head, *parts, "</svg>"]) + "\n"


def _summary(report: Report) -> str:
    medians = {name: spread(runs, "rows_per_second")[0] for name, runs in report.results.items()}
    shown = (f"{name} {value:,.0f}" for name, value in medians.items() if not math.isnan(value))
    return f"Rows a second: {', '.join(shown)}"


def _bars(results: Results, works: Sequence[Work], y: float) -> tuple[list[str], float]:
    """Draw a group's works, to one scale; gives the place below them."""
    figures = {work.name: [spread(results[work.name], f) for f in FIGURES] for work in works}
    fastest = max((_or_zero(speeds[2]) for speeds, _, _ in figures.values()), default=0) or 1
    dearest = (
        max((_or_zero(client[0]) + _or_zero(server[0]) for _, client, server in figures.values()))
        or 1
    )
    parts: list[str] = []
    for work in works:
        speed, client, server = figures[work.name]
        colour = _OURS if work.name.startswith(OURS) else _THEIRS
        own = work.name.startswith(OURS)
        parts.append(write_text(_NAMES, y, shorten(work.name, 44), 13, TEXT if own else MUTED))
        long = _BAR * _or_zero(speed[0]) / fastest
        parts.append(_rectangle(_LEFT, y, long, colour))
        low, high = (_LEFT + _BAR * _or_zero(value) / fastest for value in speed[1:])
        parts.append(
            f'<path d="M{low:.1f} {y - 4.5:.1f}H{high:.1f}" stroke="{TEXT}" stroke-width="1.5"/>'
        )
        parts.append(write_text(round(max(high, _LEFT) + 8, 1), y, _shown(speed[0]), 12, TEXT))
        mine = _BAR * _or_zero(client[0]) / dearest
        theirs = _BAR * _or_zero(server[0]) / dearest
        parts.append(_rectangle(_RIGHT, y, mine, colour))
        parts.append(_rectangle(_RIGHT + mine, y, theirs, _SERVER))
        cost = f"{_shown(client[0])} + {_shown(server[0])}"
        parts.append(write_text(round(_RIGHT + mine + theirs + 8, 1), y, cost, 12, TEXT))
        y += _LINE
    return parts, y


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _shown(value: float) -> str:
    return NONE if math.isnan(value) else round_figure(value)


def _rectangle(x: float, y: float, width: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y - 11:.1f}" width="{width:.1f}" height="13" rx="2" '
        f'fill="{colour}"/>'
    )
