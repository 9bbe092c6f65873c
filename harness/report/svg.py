"""What every picture has in common: colours, style, title, and an SVG that is small.

Colours are from Okabe and Ito's palette, which colour-blind readers tell apart, and nothing is said by colour alone:
what is wrong also has a number or a word.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD, GOOD_DARK, BAD, INK, QUIET, FAINT = "#56B4E9", "#0072B2", "#D55E00", "#222222", "#666666", "#9a9a9a"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp and found by the browser's search
    "svg.hashsalt": "sriov-harness",  # the same data give the same file
    "font.family": "DejaVu Sans",  # ships with matplotlib, wider than what a browser takes instead: nothing is cut
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "text.color": INK,
    "axes.labelcolor": INK,
}

Point = tuple[float, float]


def title(figure: Figure, text: str, *, bad: bool) -> None:
    """The outcome as a sentence, at the top left."""
    y = 1 - 0.27 / figure.get_figheight()
    x = 0.12 / figure.get_figwidth()
    figure.text(x, y, text, fontsize=11, fontweight="bold", color=BAD if bad else INK)


def strokes(axes: Axes, lines: Iterable[tuple[Point, Point]], color: str, width: float) -> None:
    """Many straight lines as one path, which takes a quarter of the bytes of one element each."""
    points = [point for line in lines for point in line]
    _add_path(axes, points, 2, facecolor="none", edgecolor=color, lw=width)


def squares(axes: Axes, cells: Iterable[tuple[int, int]], color: str) -> None:
    """Cells (row, column) of a grid of 1 by 1, filled, as one path."""
    near, far = 0.06, 0.94
    corners = ((near, near), (far, near), (far, far), (near, far))
    points = [(column + x, row + y) for row, column in cells for x, y in corners]
    _add_path(axes, points, 4, facecolor=color, lw=0)


def finished(figure: Figure) -> bytes:
    """The figure as an SVG, without what matplotlib adds for editors."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _shrunk(out.getvalue()).encode()


def _add_path(axes: Axes, points: list[Point], corners: int, **look: object) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if points:
        codes = ([Path.MOVETO] + [Path.LINETO] * (corners - 1)) * (len(points) // corners)
        axes.add_patch(PathPatch(Path(points, codes), **look))


def _shrunk(svg: str) -> str:
    """The same picture in half the bytes: a hundredth of a point is enough, and nobody asks for the ids."""
    svg = re.sub(r"<!DOCTYPE[^>]*>\s*", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"\s*\n\s*", "", _rounded(path[0])), svg)
    svg = re.sub(r'(?<= [xy]=")[^"]*', lambda value: _rounded(value[0]), svg)
    svg = svg.replace(" font-family: 'DejaVu Sans';", "")
    svg = svg.replace("*{stroke-linejoin", "text{font-family: 'DejaVu Sans', Verdana, sans-serif}*{stroke-linejoin")
    svg = re.sub(r'<g id="(?:text|patch|line2d|xtick|ytick|matplotlib\.axis|PathCollection)_\d+">', "<g>", svg)
    return re.sub(r"\n\s*", "\n", svg)


def _rounded(numbers: str) -> str:
    return re.sub(r"(\.\d\d)\d+", r"\1", numbers)
