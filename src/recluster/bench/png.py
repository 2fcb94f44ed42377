"""The picture by matplotlib (`pip install 'recluster[bench]'`): PNG, PDF, whatever it writes."""

from __future__ import annotations

import importlib.util

from .picture import Panel
from .svg import COLOURS, COLUMNS, LEAST


def possible() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def two_lines(name: str) -> str:
    return name.replace("_", "_\n", 1)


def draw(panels: list[Panel], caption: str, path: str) -> None:
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    rows = max(1, -(-len(panels) // COLUMNS))
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(14, 3.75 * rows), squeeze=False)
    places = [place for row in axes for place in row]
    for place in places[len(panels) :]:
        place.axis("off")
    for place, panel in zip(places, panels, strict=False):
        width = 0.84 / len(panel.series)
        for number, (name, values) in enumerate(panel.series):
            at = [group + (number + 0.5) * width - 0.42 for group in range(len(panel.groups))]
            bars = place.bar(
                at, [value or 0.0 for value in values], width * 0.94, label=name,
                color=COLOURS[number % len(COLOURS)],
            )  # fmt: skip
            labels = ["-" if value is None else f"{value:.{panel.digits}f}" for value in values]
            place.bar_label(bars, labels, fontsize=7)
        place.set_xticks(
            range(len(panel.groups)), [two_lines(group) for group in panel.groups], fontsize=8
        )
        place.set_title(panel.title, fontsize=10, loc="left")
        if panel.log:
            place.set_yscale("log")
            place.set_ylim(bottom=LEAST)
        place.legend(fontsize=8)
    figure.text(0.01, 0.005, caption, fontsize=8)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
