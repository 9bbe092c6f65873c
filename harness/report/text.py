"""The pictures as text, for a terminal, an assertion's message and a computer without matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.measure.statistics import SAMPLES_FOR_P99, ms
from harness.report.matrix import Matrix, function_of, short_label
from harness.report.series import FLR_LIMIT_NS, LINUX_SPEAKS_NS, LogScale, Row, duration_label, headline, rows_of

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 48
_MOST_FAULTS = 8


def histogram_text(series: Mapping[str, Sequence[int]], limit_ns: int = FLR_LIMIT_NS) -> str:
    """The distribution of each function on one logarithmic scale, with the limit and 1 s as upright lines.

    FLR: all 40 resets within 100 ms
          1 ms        10 ms         100 ms         1 s
    PF    │             ▂█▁            ┃            ┊     20 samples: p50 12.35, max 14.11 ms
    VF 1  │             ▁█▂            ┃            ┊     20 samples: p50 12.02, max 13.90 ms

    Args:
        series: function name → nanoseconds of each reset; at least one sample in all, ValueError otherwise.
        limit_ns: what each reset must keep.
    """
    rows = rows_of(series, limit_ns)
    scale = LogScale.over(rows, limit_ns)
    margin = max(len(row.name) for row in rows)
    lines = [f"FLR: {headline(rows, limit_ns)}", f"{'':{margin}}  {_axis(scale)}"]
    lines += [f"{row.name:{margin}}  {_bars(row, scale, limit_ns)}  {_figures(row)}".rstrip() for row in rows]
    return "\n".join(lines)


def matrix_text(rows: Sequence[tuple[str, Sequence[int]]], *, expected: int = 1) -> str:
    """Fired vector by received count: "·" for a silent eventfd, the count where it is right, "[2]" where it is not.

    MSI-X: 1 of 3 vectors wrong
      VF 1 vector 1 arrived on VF 1 vector 2 instead
    VF 1      0   1   2
          0   1   ·   ·
          1   ·  [0] [1]
          2   ·   ·   1

    Args:
        rows: (label of the fired vector, as in "VF 1 vector 0"; the counts of all eventfds, in the rows' order).
        expected: how often each vector was fired.
    """
    whole = Matrix.of(rows, expected)
    lines = [f"MSI-X: {whole.headline()}", *(f"  {fault}" for fault in _some(whole.faults()))]
    shown = whole.to_show()
    margin = max(len(label) for label in shown.labels)
    bad = set(shown.bad_cells())
    lines.append(f"{'fired':{margin}}  " + "".join(f"{short_label(label):^5}" for label in shown.labels).rstrip())
    for row, label in enumerate(shown.labels):
        cells = "".join(f"{_cell(count, (row, at) in bad):^5}" for at, count in enumerate(shown.counts[row]))
        gap = [""] if row and function_of(label) != function_of(shown.labels[row - 1]) else []
        lines += [*gap, f"{label:{margin}}  {cells.rstrip()}"]
    if shown.left_out:
        lines.append(f"({shown.left_out} good vectors are not shown)")
    return "\n".join(lines)


def _some(faults: Sequence[str]) -> list[str]:
    more = len(faults) - _MOST_FAULTS
    return [*faults[:_MOST_FAULTS], *([f"… and {more} more"] if more > 0 else [])]


def _cell(count: int, bad: bool) -> str:
    return f"[{count}]" if bad else str(count) if count else "·"


def _axis(scale: LogScale) -> str:
    line = [" "] * (_WIDTH + 6)
    for decade in scale.decades():
        label = duration_label(decade)
        at = max(_column(scale, decade) - len(label) // 2, 0)
        if all(character == " " for character in line[max(at - 1, 0) : at + len(label) + 1]):
            line[at : at + len(label)] = label
    return "".join(line).rstrip()


def _bars(row: Row, scale: LogScale, limit_ns: int) -> str:
    counts = scale.histogram(row.samples_ns, _WIDTH)
    most = max(counts) or 1
    line = [_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts]
    for value, mark in ((limit_ns, "┃"), (LINUX_SPEAKS_NS, "┊")):
        at = _column(scale, value)
        line[at] = mark if line[at] == " " else line[at]
    return "".join(line)


def _column(scale: LogScale, value_ns: float) -> int:
    return min(int(scale.position(value_ns) * _WIDTH), _WIDTH - 1)


def _figures(row: Row) -> str:
    seen = row.seen
    if seen is None:
        return "not measured"
    p99 = f", p99 {ms(seen.p99_ns)[:-3]}" if seen.count >= SAMPLES_FOR_P99 else ""
    late = f"  ✗ {row.late} LATE" if row.late else ""
    plural = "" if seen.count == 1 else "s"
    return f"{seen.count} sample{plural}: p50 {ms(seen.p50_ns)[:-3]}{p99}, max {ms(seen.maximum_ns)}{late}"
