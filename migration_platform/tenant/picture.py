"""The picture of a move: for each step a bar of what is planned and what is done, and its state."""

from collections.abc import Mapping, Sequence
from html import escape

from migration_platform.picture import BACKGROUND, FONT, MUTED, TEXT, shorten, write_text
from migration_platform.tenant.declaration import Move
from migration_platform.tenant.steps import Progress, State

_COLOURS: Mapping[State, str] = {
    "verified": "#3fb68b",
    "applied": "#5b8def",
    "partly applied": "#e8b339",
    "failing": "#f0506e",
    "rolled back": "#b48ae0",
    "planned": "#5a6478",
    "not planned": "#5a6478",
}
_SQUARES: Mapping[State, str] = {
    "verified": "🟩",
    "applied": "🟦",
    "partly applied": "🟨",
    "failing": "🟥",
    "rolled back": "🟪",
    "planned": "⬜",
    "not planned": "⬛",
}
_WIDTH, _ROW, _TOP = 760, 44, 84
_BAR_LEFT, _BAR_WIDTH, _BAR_HEIGHT = 210.0, 300.0, 16.0


def draw_move(move: Move, steps: Sequence[Progress]) -> str:
    """Draw the steps of a move, in order, as an SVG document."""
    height = _TOP + _ROW * len(steps) + 12
    most = max((max(step.planned, step.done) for step in steps), default=0) or 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" font-family="{FONT}">',
        f"<title>{escape(describe_move(steps))}</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="12" fill="{BACKGROUND}"/>',
        write_text(24, 36, shorten(move.name, 40), 18, TEXT, weight=700),
        write_text(24, 58, shorten(f"{move.origin_tenant} to {move.target_tenant}", 90), 12, MUTED),
    ]
    for number, step in enumerate(steps):
        parts += _draw_step(number, step, most)
    parts.append("</svg>")
    return "".join(parts)


def _draw_step(number: int, step: Progress, most: int) -> list[str]:
    y = _TOP + _ROW * number
    colour = _COLOURS[step.state]
    middle = y + 20
    # A bar that has anything in it can be seen: one organisation beside ten thousand users.
    planned = max(6.0, _BAR_WIDTH * step.planned / most) if step.planned else 0.0
    share = min(1.0, step.done / step.planned) if step.planned else 0.0
    parts = [
        write_text(24, middle + 4, f"{number + 1}", 12, MUTED),
        write_text(46, middle + 4, shorten(step.step, 22), 14, TEXT, weight=600),
        f'<rect x="{_BAR_LEFT}" y="{middle - 8}" width="{_BAR_WIDTH}" height="{_BAR_HEIGHT}" '
        f'rx="4" fill="{TEXT}" opacity="0.06"/>',
    ]
    if planned:
        parts.append(
            f'<rect x="{_BAR_LEFT}" y="{middle - 8}" width="{planned:.1f}" height="{_BAR_HEIGHT}" '
            f'rx="4" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
    if share:
        parts.append(
            f'<rect x="{_BAR_LEFT}" y="{middle - 8}" width="{planned * share:.1f}" '
            f'height="{_BAR_HEIGHT}" rx="4" fill="{colour}"/>'
        )
    left = _BAR_LEFT + _BAR_WIDTH + 16
    said = f"{step.done:,} of {step.planned:,}" if step.plan else "no plan yet"
    if step.conflicts:
        said += f", {step.conflicts:,} left alone"
    parts += [
        f'<rect x="{left}" y="{middle - 7}" width="13" height="13" rx="3" fill="{colour}"/>',
        write_text(left + 22, middle + 4, step.state, 13, TEXT),
        write_text(left + 122, middle + 4, shorten(said, 28), 12, MUTED),
    ]
    return parts


def describe_move(steps: Sequence[Progress]) -> str:
    """Say in a line how far each step is."""
    return ", ".join(f"{step.step} {step.state}" for step in steps)


def draw_squares(steps: Sequence[Progress]) -> str:
    """Draw the steps as a line of text, for places that show no pictures."""
    return " ".join(
        f"{_SQUARES[step.state]} {step.step} {step.done:,}/{step.planned:,}" for step in steps
    )
