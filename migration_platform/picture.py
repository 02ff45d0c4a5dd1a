"""The picture of a table's ring: which ranges are copied, verified, failing, and how fast.

One SVG that needs no server, no script and no font of its own. It brings its own background, so
that it reads the same on a light and on a dark page, and every state differs in brightness and
in its ring's inner edge, not in hue alone.
"""

import base64
import math
from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import Literal

from migration_platform.token_ranges import TokenRange, describe_ranges

State = Literal["verified", "copied", "running", "failing", "not copied"]

_COLOURS: dict[State, str] = {
    "verified": "#3fb68b",
    "copied": "#5b8def",
    "running": "#e8b339",
    "failing": "#f0506e",
    "not copied": "#5a6478",
}
_STRIP_CELLS = 64
_SQUARES: dict[State, str] = {  # the worst first
    "failing": "🟥",
    "not copied": "⬜",
    "running": "🟨",
    "copied": "🟦",
    "verified": "🟩",
}
BACKGROUND, TEXT, MUTED = "#161b26", "#f2f5fa", "#a9b4c6"
FONT = "Inter, Helvetica, Arial, sans-serif"
_WIDTH, _HEIGHT = 640, 360
_CENTRE_X, _CENTRE_Y = 180.0, 180.0
_OUTER, _INNER, _BASE = 150.0, 116.0, 66.0
_THINNEST = 0.004
"""Part of a turn that a failing range takes at least: 4 pixels."""
_FEWEST_BARS = 4


@dataclass(frozen=True)
class Segment:
    """One range in the picture; `rows_per_second` is of its last copy."""

    token_range: TokenRange
    state: State
    rows: int = 0
    rows_per_second: float = 0.0


def draw_ring(title: str, segments: list[Segment]) -> str:
    """Draw the ring as an SVG document; it starts at the top and runs clockwise."""
    states = Counter(segment.state for segment in segments)
    fastest = max((segment.rows_per_second for segment in segments), default=0.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="{FONT}">',
        f"<title>{escape(title)}: {_summary(states)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="12" fill="{BACKGROUND}"/>',
    ]
    # Failing ranges come last, over their neighbours: one of a thousand would be a hair.
    for segment in sorted(segments, key=lambda segment: segment.state == "failing"):
        parts.append(_arc(segment, len(segments)))
        if fastest and segment.rows_per_second and len(segments) >= _FEWEST_BARS:
            parts.append(_bar(segment, len(segments), segment.rows_per_second / fastest))
    # What was verified was copied: the centre tells the stronger of the two.
    done, word = (
        (states["verified"], "verified") if states["verified"] else (states["copied"], "copied")
    )
    figure = f"{done}/{len(segments)}"
    parts += [
        write_text(
            _CENTRE_X, _CENTRE_Y - 2, figure, 30 if len(figure) < 8 else 24, TEXT, "middle", 700
        ),
        write_text(_CENTRE_X, _CENTRE_Y + 20, f"ranges {word}", 12, MUTED, "middle"),
        *_legend(title, segments, states, fastest),
        "</svg>",
    ]
    return "".join(parts)


def draw_strip(segments: list[Segment]) -> str:
    """Draw the ring as a line of text, for places that show no pictures.

    At most `_STRIP_CELLS` squares; one that stands for several ranges shows the worst of them.
    """
    cells = min(len(segments), _STRIP_CELLS)
    strip = ""
    for cell in range(cells):
        first, last = len(segments) * cell // cells, len(segments) * (cell + 1) // cells
        states = {segment.state for segment in segments[first:last]}
        strip += next(square for state, square in _SQUARES.items() if state in states)
    return strip


def as_markdown(svg: str, alternative: str = "the ring of ranges") -> str:
    """Wrap a picture for a Markdown page, as an image that holds all of its data."""
    data = base64.b64encode(svg.encode()).decode()
    return f"![{alternative}](data:image/svg+xml;base64,{data})"


def _summary(states: Counter) -> str:
    return ", ".join(f"{states[state]} {state}" for state in _COLOURS if states[state])


def _point(radius: float, turn: float) -> str:
    angle = 2 * math.pi * turn - math.pi / 2
    return f"{_CENTRE_X + radius * math.cos(angle):.2f} {_CENTRE_Y + radius * math.sin(angle):.2f}"


def _slice(inner: float, outer: float, start: float, end: float) -> str:
    if end - start > 0.999:  # an arc cannot end where it starts
        end = start + 0.9999
    large = 1 if end - start > 0.5 else 0
    return (
        f"M {_point(outer, start)} A {outer} {outer} 0 {large} 1 {_point(outer, end)} "
        f"L {_point(inner, end)} A {inner} {inner} 0 {large} 0 {_point(inner, start)} Z"
    )


def _arc(segment: Segment, count: int) -> str:
    gap = min(0.0015, 0.15 / count) if count > 1 else 0.0
    start = segment.token_range.index / count + gap
    end = (segment.token_range.index + 1) / count - gap
    # A failing range sticks out, so that it is found without seeing its colour.
    outer = _OUTER
    if segment.state == "failing":
        outer += 12
        middle = (start + end) / 2
        start, end = min(start, middle - _THINNEST / 2), max(end, middle + _THINNEST / 2)
    speed = f", {segment.rows_per_second:,.0f} rows/s" if segment.rows_per_second else ""
    return (
        f'<path d="{_slice(_INNER, outer, start, end)}" fill="{_COLOURS[segment.state]}">'
        f"<title>{segment.token_range.key}: {segment.state}, {segment.rows:,} rows{speed}"
        "</title></path>"
    )


def _bar(segment: Segment, count: int, share: float) -> str:
    start = (segment.token_range.index + 0.15) / count
    end = (segment.token_range.index + 0.85) / count
    outer = _BASE + (_INNER - 6 - _BASE) * max(0.04, share)
    return f'<path d="{_slice(_BASE, outer, start, end)}" fill="{MUTED}" opacity="0.75"/>'


def write_text(
    x: float, y: float, text: str, size: int, colour: str, anchor: str = "start", weight: int = 400
) -> str:
    """Write a line of text at a place of a picture; `weight` is the font's."""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _legend(title: str, segments: list[Segment], states: Counter, fastest: float) -> list[str]:
    left = 372.0
    # A keyspace and a table seldom fit into one line.
    keyspace, _, table = title.rpartition(".")
    parts = [
        write_text(left, 34, shorten(keyspace, 36), 12, MUTED),
        write_text(left, 54, shorten(table, 30), 15, TEXT, weight=700),
    ]
    rows = sum(segment.rows for segment in segments)
    plural = "" if len(segments) == 1 else "s"
    parts.append(write_text(left, 74, f"{rows:,} rows in {len(segments)} range{plural}", 12, MUTED))
    y = 106.0
    for state, colour in _COLOURS.items():
        parts.append(
            f'<rect x="{left}" y="{y - 11}" width="13" height="13" rx="3" fill="{colour}"/>'
        )
        parts.append(write_text(left + 22, y, state, 13, TEXT if states[state] else MUTED))
        parts.append(
            write_text(
                left + 150, y, str(states[state]), 13, TEXT if states[state] else MUTED, "end"
            )
        )
        y += 24
    if fastest and len(segments) >= _FEWEST_BARS:
        parts.append(
            write_text(left, y + 10, f"inner bars: rows/s, longest {fastest:,.0f}", 12, MUTED)
        )
        y += 24
    for state in ("failing", "not copied"):
        ranges = [segment.token_range for segment in segments if segment.state == state]
        if ranges and len(ranges) < len(segments):
            parts.append(
                write_text(
                    left, y + 12, shorten(f"{state}: {describe_ranges(ranges, 3)}", 42), 12, TEXT
                )
            )
            y += 20
    return parts


def shorten(text: str, length: int) -> str:
    """Cut a text to so many characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
