"""The picture of the results; it needs matplotlib, which `make bench` installs."""

from collections.abc import Callable
from pathlib import Path
from textwrap import fill

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tools.bench.report import Section

WIDTH, HEIGHT = 6.4, 4.0
COLUMNS = 2
TOP = 1.15
TITLE_CHARACTERS = 48
FEW_BARS = 6


def draw(sections: list[Section], file: Path) -> None:
    """Draw every section that has something to show."""
    shown = [section for section in sections if section.plot]
    if not shown:
        return
    rows = -(-len(shown) // COLUMNS)
    size = (COLUMNS * WIDTH, rows * HEIGHT)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=size, squeeze=False)
    axes = [axis for row in grid for axis in row]
    for section, axis in zip(shown, axes, strict=False):
        KINDS[section.plot["kind"]](section, axis)
        axis.set_title(fill(section.title, TITLE_CHARACTERS), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _lines(section: Section, axis: Axes) -> None:
    """Draw values over a quantity, a line a series."""
    for name, points in section.plot["series"].items():
        axis.plot(*zip(*points, strict=True), marker="o", label=name)
    axis.set_xscale("log", base=section.plot.get("base", 10))
    marks = sorted({x for points in section.plot["series"].values() for x, _ in points})
    axis.set_xticks(marks, [f"{mark:,}" for mark in marks])
    axis.minorticks_off()
    axis.set_ylim(0, TOP * max(y for points in section.plot["series"].values() for _, y in points))
    axis.set_xlabel(section.plot["x"])
    axis.set_ylabel(section.plot["y"])
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, fontsize=8)


def _bars(section: Section, axis: Axes) -> None:
    """Draw one bar a name."""
    names, values = zip(*section.plot["bars"], strict=True)
    drawn = axis.barh(names[::-1], values[::-1], color="#4c78a8")
    axis.bar_label(drawn, fmt="{:,.3g}", padding=3, fontsize=8)
    axis.margins(x=0.15)
    axis.tick_params("y", labelsize=10 if len(names) <= FEW_BARS else 7)
    axis.set_xlabel(section.plot["x"])


KINDS: dict[str, Callable[[Section, Axes], None]] = {"lines": _lines, "bars": _bars}
