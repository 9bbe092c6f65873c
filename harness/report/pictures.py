"""The pictures, attached to the test that measured; as text where matplotlib is not installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.report import plots, text
from harness.report.steps import attach_svg, attach_text


def show_flr(series: Mapping[str, Sequence[int]], limit_ns: int) -> None:
    """Attach the distribution of reset times (ns) by function."""
    try:
        attach_svg("FLR: time to ready", plots.flr_histogram(series, limit_ns))
    except ImportError:
        attach_text("FLR: time to ready", text.histogram_text(series, limit_ns))


def show_msix(rows: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Attach what each fired vector brought to each eventfd."""
    try:
        attach_svg("MSI-X: fired and received", plots.msix_matrix(rows))
    except ImportError:
        attach_text("MSI-X: fired and received", text.matrix_text(rows))
