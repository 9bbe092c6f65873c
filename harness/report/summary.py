"""The last lines of a run: what ran, what failed first and who must act, what was measured, where to look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.measure.statistics import SAMPLES_FOR_P99, Distribution, Measured, ms
from harness.report.categories import Category, categories
from harness.report.series import duration_label

_PLURALS = {"endpoint defect": "endpoint defects", "harness bug": "harness bugs", "known deviation": "known deviations"}


@dataclass(frozen=True, slots=True)
class Result:
    """How one test ended.

    Attributes:
        name: its node ID.
        status: "passed", "failed", "broken" or "skipped" (see ``harness.report.categories``).
        category: who must act; "" for a test that passed or was skipped for a reason of its own.
        message: what it ended with, as pytest says it in one or more lines.
    """

    name: str
    status: str
    category: str = ""
    message: str = ""


def summary_lines(
    results: Sequence[Result],
    measured: Iterable[Measured] = (),
    *,
    report: Path | None = None,
    evidence: Path | None = None,
) -> list[str]:
    """The lines, without colours.

    Args:
        results: one for each test, in the order in which they ended.
        measured: what the tests handed over; samples of one quantity and one group of functions are pooled.
        report: the HTML report, if there is one.
        evidence: the folder with the evidence, if anything was kept.
    """
    lines = [_counts(results), *_first_failures(results), *_measurements(measured)]
    lines += [f"{name:9} {path}" for name, path in (("report:", report), ("evidence:", evidence)) if path]
    return lines


def _counts(results: Sequence[Result]) -> str:
    kinds = Counter(result.category or result.status for result in results)
    order = [*(category.name for category in categories()), "failed", "broken", "skipped"]
    parts = [f"{kinds['passed']} passed"] if kinds["passed"] else []
    parts += [f"{kinds[kind]} {_PLURALS.get(kind, kind) if kinds[kind] > 1 else kind}" for kind in order if kinds[kind]]
    if not any(result.status != "skipped" for result in results):
        parts.append("NOTHING RAN, so nothing was learned about the endpoint")
    return f"{len(results)} test{'' if len(results) == 1 else 's'}: {', '.join(parts)}"


def _first_failures(results: Sequence[Result]) -> list[str]:
    """The first result of each category in which somebody must act: name, and the first line of its message."""
    lines = []
    for category in categories():
        first = next((each for each in results if each.category == category.name), None)
        if first and category.status in ("failed", "broken"):
            lines += [f"first {category.name}: {first.name}", f"    {_reason(first, category)}"]
    return lines


def _reason(result: Result, category: Category) -> str:
    """The message without the exception's module; AssertionError goes without saying."""
    line = (result.message.strip() or category.meaning).splitlines()[0]
    name, colon, rest = line.partition(": ")
    if not colon or " " in name:
        return line
    short = name.rpartition(".")[2]
    return rest if short in ("AssertionError", "Failed") else f"{short}: {rest}"


def _measurements(measured: Iterable[Measured]) -> list[str]:
    pools: dict[tuple[str, str], list[Measured]] = {}
    for each in measured:
        pools.setdefault((each.what, each.group), []).append(each)
    names = {key: f"{key[0]} of {_functions(pool)}:" for key, pool in pools.items()}
    margin = max(map(len, names.values()), default=0)
    return [f"{names[key]:{margin}} {_figures(pool)}" for key, pool in pools.items()]


def _functions(pool: Sequence[Measured]) -> str:
    functions = {each.function for each in pool}
    return f"{len(functions)} VFs" if len(functions) > 1 else pool[0].function


def _figures(pool: Sequence[Measured]) -> str:
    seen = Distribution.of(sample for each in pool for sample in each.samples_ns)
    p99 = f"p99 {ms(seen.p99_ns)[:-3]}, " if seen.count >= SAMPLES_FOR_P99 else ""
    line = f"p50 {ms(seen.p50_ns)[:-3]}, {p99}max {ms(seen.maximum_ns)} (n = {seen.count})"
    limits = [each.limit_ns for each in pool if each.late and each.limit_ns is not None]
    return f"{line}  ✗ {sum(each.late for each in pool)} later than {duration_label(min(limits))}" if limits else line
