"""The two pictures that an FPGA engineer looks at first, as SVGs of some 20 kB.

matplotlib takes most of a second to import, so it is imported where a picture is drawn; without it there is
``harness.report.text``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.measure.statistics import SAMPLES_FOR_P99
from harness.report import svg
from harness.report.matrix import Matrix, short_label
from harness.report.series import FLR_LIMIT_NS, LINUX_SPEAKS_NS, LogScale, Row, duration_label, headline, rows_of
from harness.report.svg import BAD, FAINT, GOOD, GOOD_DARK, INK, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_TICKS = 600  # single samples drawn in one picture; the histogram behind them has all
_MOST_NUMBERS = 100  # counts written into cells; more cannot be read anyway
_MOST_FAULTS = 6

_INCHES_WIDE = 9.4
_ROW_INCHES = 0.34


def flr_histogram(series: Mapping[str, Sequence[int]], limit_ns: int = FLR_LIMIT_NS, title: str = "FLR") -> bytes:
    """One row a function: where its resets lie on a logarithmic scale, against the limit and against 1 s.

    Args:
        series: function name ("PF", "VF 1") → nanoseconds of each reset. ValueError when there is no sample at all.
        limit_ns: what each reset must keep; samples above it are drawn in the colour for wrong.
        title: what was measured; a sentence with the outcome follows it.

    Returns:
        An SVG of at most 60 kB; of more than 20 functions, it shows the slowest and the others in one row.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = rows_of(series, limit_ns)
    scale = LogScale.over(rows, limit_ns)
    with mpl.rc_context(svg.STYLE):
        height = 1.25 + _ROW_INCHES * len(rows)
        figure = Figure(figsize=(_INCHES_WIDE, height))
        axes = figure.add_axes((0.085, 0.5 / height, 0.6, _ROW_INCHES * len(rows) / height))
        svg.title(figure, f"{title}: {headline(rows, limit_ns)}", bad=any(row.late for row in rows))
        _draw_scale(axes, scale, limit_ns, len(rows))
        for index, row in enumerate(rows):
            _draw_row(axes, row, index, scale, bins=60 if len(rows) <= 8 else 36)
        _draw_samples(axes, rows, limit_ns)
        _draw_table(axes, rows)
        return svg.finished(figure)


def msix_matrix(rows: Sequence[tuple[str, Sequence[int]]], *, expected: int = 1, title: str = "MSI-X") -> bytes:
    """Fired vector by the counts of all eventfds: blue on the diagonal is right, anything orange is not.

    Args:
        rows: (label of the fired vector, as in "VF 1 vector 0"; the counts of all eventfds, in the rows' order).
            Vectors of several functions in one matrix show interrupts that reach another function. ValueError when
            there is none, or when a row does not have one count for each vector.
        expected: how often each vector was fired.
        title: what was done; a sentence with the outcome follows it.

    Returns:
        An SVG of at most 60 kB; of more than 64 vectors, it shows the ones with faults.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    whole = Matrix.of(rows, expected)
    shown = whole.to_show()
    faults = whole.faults()
    lines = [*faults[:_MOST_FAULTS], *([f"… and {len(faults) - _MOST_FAULTS} more"] if faults[_MOST_FAULTS:] else [])]
    with mpl.rc_context(svg.STYLE):
        side = min(max(0.3 * len(shown.labels), 0.9), 8.0)
        left, bottom = 1.15, 0.85
        height = bottom + side + 0.75 + 0.18 * len(lines)
        figure = Figure(figsize=(_INCHES_WIDE, height))
        axes = figure.add_axes((left / _INCHES_WIDE, bottom / height, side / _INCHES_WIDE, side / height))
        svg.title(figure, f"{title}: {whole.headline()}", bad=bool(faults))
        for number, line in enumerate(lines):
            figure.text(0.12 / _INCHES_WIDE, 1 - (0.48 + 0.18 * number) / height, line, color=BAD)
        _draw_cells(axes, shown, side / len(shown.labels))
        _label_cells(figure, axes, shown)
        _legend(figure, shown)
        return svg.finished(figure)


def _draw_scale(axes: Axes, scale: LogScale, limit_ns: int, rows: int) -> None:
    axes.set_xscale("log")
    axes.set_xlim(scale.low_ns, scale.high_ns)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xticks(scale.decades(), [duration_label(at) for at in scale.decades()])
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="x", length=3, color=FAINT)
    axes.set_xlabel("from writing the FLR bit to the first answer; logarithmic", fontsize=8, color=QUIET, labelpad=2)
    axes.axvspan(limit_ns, scale.high_ns, color=BAD, alpha=0.07, lw=0)
    axes.axvline(limit_ns, color=BAD, lw=1.4)
    axes.axvline(LINUX_SPEAKS_NS, color=FAINT, lw=1, ls=(0, (1, 2)))
    place: dict[str, Any] = {
        "xycoords": axes.get_xaxis_transform(),
        "xytext": (0, 4),
        "textcoords": "offset points",
        "ha": "center",
        "fontsize": 8,
    }
    axes.annotate(f"limit {duration_label(limit_ns)}", (limit_ns, 1), color=BAD, fontweight="bold", **place)
    axes.annotate("Linux warns", (LINUX_SPEAKS_NS, 1), color=QUIET, **place)
    for spine in ("top", "right", "left"):
        axes.spines[spine].set_visible(False)


def _draw_row(axes: Axes, row: Row, index: int, scale: LogScale, bins: int) -> None:
    """The histogram of one row on its base line, and a diamond at the median."""
    base = index + 0.36
    if row.seen is None:
        return
    counts, edges = scale.histogram(row.samples_ns, bins), scale.edges(bins)
    filled = [at for at, count in enumerate(counts) if count]
    first, last = filled[0], filled[-1] + 1
    tops = [base - 0.62 * count / max(counts) for count in counts[first:last]]
    axes.stairs(tops, edges[first : last + 1], baseline=base, fill=True, color=GOOD, alpha=0.5, lw=0)
    axes.plot([row.seen.p50_ns], [base], marker="D", ms=4.5, mfc="white", mec=INK, mew=1, ls="", clip_on=False)


def _draw_samples(axes: Axes, rows: Sequence[Row], limit_ns: int) -> None:
    """Each sample as an upright tick, the late ones tall and in the colour for wrong; the base lines."""
    most = max(_MOST_TICKS // (2 * len(rows)), 2)
    good, late = [], []
    for index, row in enumerate(rows):
        base = index + 0.36
        kept, broken = (sorted({at for at in row.samples_ns if (at > limit_ns) is over}) for over in (False, True))
        good += [((at, base), (at, base - 0.2)) for at in _thinned(kept, most)]
        late += [((at, base), (at, base - 0.5)) for at in _thinned(broken, most)]
    low, high = axes.get_xlim()
    svg.strokes(axes, [((low, index + 0.36), (high, index + 0.36)) for index in range(len(rows))], "#e0e0e0", 0.8)
    svg.strokes(axes, good, GOOD_DARK, 0.7)
    svg.strokes(axes, late, BAD, 1.8)


def _thinned(ascending: Sequence[int], most: int) -> Sequence[int]:
    """At most ``most`` of the values, evenly, with both ends."""
    if len(ascending) <= most:
        return ascending
    return [ascending[round(at * (len(ascending) - 1) / (most - 1))] for at in range(most)]


def _draw_table(axes: Axes, rows: Sequence[Row]) -> None:
    """The names at the left and the figures at the right; no p99 column when nobody has enough samples for one."""
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.tick_params(axis="y", length=0)
    seen = [row.seen for row in rows if row.seen]
    p99 = any(one.count >= SAMPLES_FOR_P99 for one in seen)
    decimals = _decimals(min(one.p50_ns for one in seen))
    names = ["◇ p50 / ms", *(["p99 / ms"] if p99 else []), "max / ms", "resets", "late"]
    places = [1.14, 1.245, 1.355, 1.435, 1.515] if p99 else [1.18, 1.32, 1.42, 1.5]
    head: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "xytext": (0, 4), "ha": "right"}
    for name, at in zip(names, places, strict=True):
        axes.annotate(name, (at, 1), fontsize=8, color=QUIET, **head)
    put: dict[str, Any] = {"va": "center", "transform": axes.get_yaxis_transform()}
    for index, (row, label) in enumerate(zip(rows, axes.get_yticklabels(), strict=True)):
        label.set_color(BAD if row.late else INK)
        if row.seen is None:
            axes.text(places[0], index, "not measured", ha="center", color=QUIET, **put)
            continue
        for at, text, bad in zip(places, _figures(row, decimals, p99), _bad_figures(row, p99), strict=True):
            axes.text(at, index, text, ha="right", color=BAD if bad else INK, **put)


def _figures(row: Row, decimals: int, p99: bool) -> list[str]:
    seen = row.seen
    if seen is None:
        return []
    own_p99 = "–" if seen.p99_is_maximum else f"{seen.p99_ns / 1e6:.{decimals}f}"
    values = [f"{seen.p50_ns / 1e6:.{decimals}f}", *([own_p99] if p99 else []), f"{seen.maximum_ns / 1e6:.{decimals}f}"]
    return [*values, str(seen.count), str(row.late or "–")]


def _bad_figures(row: Row, p99: bool) -> list[bool]:
    late = bool(row.late)
    p99_late = row.seen is not None and late and row.late > row.seen.count - -(-99 * row.seen.count // 100)
    return [False, *([p99_late] if p99 else []), late, False, late]


def _decimals(smallest_ns: int) -> int:
    """Digits after the point of a whole column, from its smallest value: three significant ones there."""
    return 3 if smallest_ns < 1_000_000 else 2 if smallest_ns < 10_000_000 else 1


def _draw_cells(axes: Axes, shown: Matrix, inches: float) -> None:
    size, bad = len(shown.labels), shown.bad_cells()
    wrong = set(bad)
    right = [(at, at) for at in range(size) if (at, at) not in wrong]
    axes.set_xlim(0, size)
    axes.set_ylim(size, 0)
    svg.squares(axes, right, GOOD)
    svg.squares(axes, bad, BAD)
    starts = [first for _, first, _ in shown.groups()[1:]]
    svg.strokes(axes, [((0, at), (size, at)) for at in starts] + [((at, 0), (at, size)) for at in starts], FAINT, 0.8)
    points = min(9.0, inches * 40)
    for row, column in [*bad, *right][:_MOST_NUMBERS]:
        is_bad = (row, column) in wrong
        axes.annotate(
            str(shown.counts[row][column]), (column + 0.5, row + 0.5), xytext=(0, -points * 0.36),
            textcoords="offset points", ha="center", fontsize=points, color="white" if is_bad else INK,
            fontweight="bold" if is_bad else "normal",
        )  # fmt: skip


def _label_cells(figure: Figure, axes: Axes, shown: Matrix) -> None:
    size = len(shown.labels)
    every = 1 + size // 28
    middles = [at + 0.5 for at in range(size)][::every]
    names = [short_label(label) for label in shown.labels][::every]
    axes.set_xticks(middles, names, fontsize=8)
    axes.set_yticks(middles, names, fontsize=8)
    axes.tick_params(length=0, pad=2)
    away: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5}
    for name, first, count in shown.groups():
        middle = first + count / 2
        axes.annotate(name, (0, middle), xytext=(-20, 0), ha="right", va="center", **away)
        axes.annotate(name, (middle, 0), xytext=(0, 4), ha="center", **away)
    axes.set_xlabel("eventfd that counted", fontsize=8.5, color=QUIET, labelpad=2)
    box = axes.get_position()
    figure.text(0.02, (box.y0 + box.y1) / 2, "vector fired", fontsize=8.5, color=QUIET, rotation=90, va="center")
    for spine in axes.spines.values():
        spine.set_color(QUIET)


def _legend(figure: Figure, shown: Matrix) -> None:
    y = 0.14 / figure.get_figheight()
    rest = f"; {shown.left_out} good vectors not shown" if shown.left_out else ""
    for x, color, meaning in (
        (0.12, GOOD, "right"),
        (0.8, BAD, "wrong: lost, doubled or on another vector"),
        (4.1, "", f"blank: 0, as it must be{rest}"),
    ):
        if color:
            figure.text(x / _INCHES_WIDE, y, "■", color=color, fontsize=11)
        figure.text((x + 0.18) / _INCHES_WIDE, y, meaning, fontsize=8.5)
