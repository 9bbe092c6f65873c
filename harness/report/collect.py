"""What each test ended with and measured, gathered where the summary is written: with xdist, the controller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.measure.statistics import Measured
from harness.report.categories import category_of, status_of
from harness.report.steps import Recording
from harness.report.summary import Result, summary_lines

STATUS, CATEGORY, MESSAGE, MEASURED = "status", "category", "message", "measured"

Property = tuple[str, object]


def properties(error: BaseException | None, message: str, recorded: Recording) -> list[Property]:
    """What a report carries from the process that ran the test (JSON's values only)."""
    status = status_of(error)
    rows: list[Property] = [(STATUS, status), (CATEGORY, category_of(status, message)), (MESSAGE, message)]
    return rows + [(MEASURED, one.as_plain()) for one in recorded.measured]


class Collected:
    """Results in the order in which they ended."""

    def __init__(self) -> None:
        self._results: dict[str, Result] = {}
        self._measured: list[Measured] = []

    def add(self, name: str, rows: Sequence[Property]) -> None:
        """One phase of a test that carries our properties; a later phase counts only if it is worse."""
        values = dict(rows)
        if STATUS not in values:
            return
        self._measured += [
            Measured.from_plain(value) for key, value in rows if key == MEASURED and isinstance(value, dict)
        ]
        status = str(values[STATUS])
        if name not in self._results or status != "passed":
            self._results[name] = Result(name, status, str(values[CATEGORY]), str(values[MESSAGE]))

    def lines(self, evidence: Path) -> list[str]:
        """The summary; empty when no test of ours ran."""
        if not self._results:
            return []
        kept = evidence if any(result.status in ("failed", "broken") for result in self._results.values()) else None
        return summary_lines(list(self._results.values()), self._measured, evidence=kept)
