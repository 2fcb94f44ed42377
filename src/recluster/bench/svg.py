"""The picture as SVG, by hand: no library needed. Pure: panels in, text out."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from .picture import Panel

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
WIDTH, HEIGHT, COLUMNS = 640, 300, 2
LEAST = 0.1  # where a logarithmic scale begins
LEFT, RIGHT, TOP, BOTTOM = 16, 12, 56, 40
FONT = 'font-family="sans-serif"'


def scaled(value: float, most: float, log: bool) -> float:
    """0 to 1."""
    if value <= 0 or most <= 0:
        return 0.0
    if not log:
        return value / most
    return max(0.0, math.log10(value / LEAST) / math.log10(max(most, 1.0) / LEAST))


def _text(x: float, y: float, text: str, size: int, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" {FONT}>'
        f"{escape(text)}</text>"
    )


def _panel(panel: Panel, left: float, top: float) -> list[str]:
    made = [_text(left + LEFT, top + 20, panel.title + (" (log)" if panel.log else ""), 14)]
    at = left + LEFT
    for number, (name, _) in enumerate(panel.series):
        colour = COLOURS[number % len(COLOURS)]
        made.append(f'<rect x="{at}" y="{top + 29}" width="10" height="10" fill="{colour}"/>')
        made.append(_text(at + 14, top + 38, name, 11))
        at += 26 + 7 * len(name)
    base, room = top + HEIGHT - BOTTOM, HEIGHT - TOP - BOTTOM - 14
    known = [value for _, values in panel.series for value in values if value is not None]
    most = max(known, default=0.0)
    group_width = (WIDTH - LEFT - RIGHT) / max(1, len(panel.groups))
    bar = group_width * 0.84 / len(panel.series)
    for place, group in enumerate(panel.groups):
        start = left + LEFT + place * group_width + group_width * 0.08
        for number, (_, values) in enumerate(panel.series):
            value, x = values[place], start + number * bar
            if value is None:
                made.append(_text(x + bar / 2, base - 3, "-", 9, "middle"))
                continue
            height = room * scaled(value, most, panel.log)
            made.append(
                f'<rect x="{x:.1f}" y="{base - height:.1f}" width="{bar * 0.94:.1f}" '
                f'height="{height:.1f}" fill="{COLOURS[number % len(COLOURS)]}"/>'
            )
            made.append(
                _text(x + bar / 2, base - height - 3, f"{value:.{panel.digits}f}", 9, "middle")
            )
        for line, part in enumerate(group.replace("_", "_\n", 1).split("\n")):
            middle = start + group_width * 0.42
            made.append(_text(middle, base + 14 + 12 * line, part, 11, "middle"))
    made.append(
        f'<line x1="{left + LEFT}" x2="{left + WIDTH - RIGHT}" y1="{base}" y2="{base}" '
        'stroke="#888"/>'
    )
    return made


def drawn(panels: list[Panel], caption: str) -> str:
    rows = -(-len(panels) // COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows + 24
    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, panel in enumerate(panels):
        made += _panel(panel, number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT)
    made += [_text(LEFT, height - 8, caption, 11), "</svg>"]
    return "\n".join(made) + "\n"
