"""A synchronisation at a glance: how far each partition of the topic is, and how old each range.

One SVG with its own background, as the ring is; a table beneath says the same in numbers.
"""

from html import escape

from migration_platform.declaration.migration import Migration
from migration_platform.picture import BACKGROUND, FONT, MUTED, TEXT, as_markdown, write_text
from migration_platform.plan.fidelity import write_table
from migration_platform.syncing.changes import Lag, tell_waiting
from migration_platform.syncing.position import Position

_WIDTH, _MARGIN, _LINE = 640, 24, 22
_BAR_LEFT, _BAR_WIDTH = 150, 340
_MOST_BARS = 12
_MOST_ROWS = 64
_FRESH, _AGED, _OPEN, _UNKNOWN = "#3fb68b", "#5b8def", "#e8b339", "#5a6478"


def draw_sync(migration: Migration, position: Position, lag: Lag, now: float) -> str:
    """Draw where the target is, in Markdown."""
    parts: list[str] = []
    y = 36.0
    parts.append(write_text(_MARGIN, y, migration.name, 15, TEXT, weight=700))
    waiting = tell_waiting(lag.messages) if position.offsets else "no topic"
    parts.append(write_text(_WIDTH - _MARGIN, y, waiting, 12, MUTED, "end"))
    bars, y = _draw_partitions(position, lag, y + 14)
    strip, y = _draw_ages(migration, position, now, y)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y:.0f}" '
        f'viewBox="0 0 {_WIDTH} {y:.0f}" role="img" font-family="{FONT}">'
        f"<title>{escape(migration.name)}: {waiting}</title>"
        f'<rect width="{_WIDTH}" height="{y:.0f}" rx="12" fill="{BACKGROUND}"/>'
        + "".join([*parts, *bars, *strip])
        + "</svg>"
    )
    picture = as_markdown(svg, "the synchronisation at a glance")
    table = _write_offsets(position, lag)
    return f"{picture}\n\n{table}" if table else picture


def _draw_partitions(position: Position, lag: Lag, y: float) -> tuple[list[str], float]:
    """Draw a bar for each partition, those that are behind most first; full is nothing waiting."""
    partitions = sorted(position.offsets, key=lambda each: (-lag.by_partition.get(each, 0), each))
    parts: list[str] = []
    for partition in partitions[:_MOST_BARS]:
        done, waits = position.offsets[partition], lag.by_partition.get(partition, 0)
        share = done / (done + waits) if done + waits else 1.0
        colour = _OPEN if waits else _FRESH
        parts += [
            write_text(_MARGIN, y + 13, f"partition {partition}", 12, MUTED),
            _bar(_BAR_LEFT, y + 3, _BAR_WIDTH, _UNKNOWN),
            _bar(_BAR_LEFT, y + 3, max(2.0, _BAR_WIDTH * share), colour),
            write_text(
                _WIDTH - _MARGIN,
                y + 13,
                f"{waits:,} wait" if waits else "at its end",
                12,
                TEXT if waits else MUTED,
                "end",
            ),
        ]
        y += _LINE
    if len(partitions) > _MOST_BARS:
        more = f"and {len(partitions) - _MOST_BARS} more"
        parts.append(write_text(_MARGIN, y + 13, more, 12, MUTED))
        y += _LINE
    return parts, y + 10


def _draw_ages(
    migration: Migration, position: Position, now: float, y: float
) -> tuple[list[str], float]:
    """Draw each range as a field of a strip, by what a round last knew of it."""
    scan = migration.sync.scan if migration.sync else None
    if scan is None and not position.open_ranges:
        return [], y + 10
    count = len(migration.ranges)
    width = (_WIDTH - 2 * _MARGIN) / count
    parts = []
    for index in range(count):
        at = position.compared_at.get(index, 0.0)
        colour, said = _UNKNOWN, "not compared yet"
        if index in position.open_ranges:
            colour, said = _OPEN, "to be compared"
        elif at:
            aged = scan is not None and now - at > scan.every_seconds
            colour, said = _AGED if aged else _FRESH, f"compared {max(0.0, now - at):,.0f} s ago"
        parts.append(
            f'<rect x="{_MARGIN + index * width:.2f}" y="{y:.0f}" '
            f'width="{max(0.5, width - min(1.0, width / 6)):.2f}" height="26" fill="{colour}">'
            f"<title>{migration.ranges[index].key}: {said}</title></rect>"
        )
    legend = (
        (_FRESH, "compared"),
        (_AGED, "longer than a round ago"),
        (_OPEN, "to be compared"),
        (_UNKNOWN, "not yet"),
    )
    x = float(_MARGIN)
    for colour, word in legend:
        parts.append(f'<rect x="{x}" y="{y + 38}" width="11" height="11" rx="3" fill="{colour}"/>')
        parts.append(write_text(x + 17, y + 48, word, 12, MUTED))
        x += 34 + 6.4 * len(word)
    return parts, y + 68


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width:.1f}" height="12" rx="3" fill="{colour}"/>'


def _write_offsets(position: Position, lag: Lag) -> str:
    if not position.offsets:
        return ""
    rows = [
        (str(each), f"{position.offsets[each]:,}", f"{lag.by_partition.get(each, 0):,}")
        for each in sorted(position.offsets)[:_MOST_ROWS]
    ]
    return write_table(("partition", "next message", "messages that wait"), rows)
