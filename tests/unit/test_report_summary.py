"""The last lines of a run."""

from pathlib import Path

from harness.measure.statistics import Measured
from harness.report.summary import Result, summary_lines

MS = 1_000_000


def test_summary_says_what_ran_what_failed_first_and_where_to_look():
    results = [
        Result("test_a.py::good", "passed"),
        Result("test_a.py::bug", "broken", "harness bug", "KeyError: 'attention'"),
        Result("test_a.py::late", "failed", "endpoint defect", "AssertionError: VF 3: 3 of 20 late\nmore"),
        Result("test_a.py::wrong", "failed", "endpoint defect", "AssertionError: other"),
        Result("test_a.py::lost", "broken", "lab trouble", "harness.errors.GuestLost: wait: panic"),
        Result("test_a.py::ids", "skipped", "known deviation", "Skipped: known deviation: IDs"),
        Result("test_a.py::kvm", "skipped", "not run", "Skipped: the lab lacks KVM"),
        Result("test_a.py::na", "skipped", "", "Skipped: not applicable"),
    ]
    measured = [
        Measured("FLR", "PF", (14 * MS,) * 20, 100 * MS),
        Measured("FLR", "VF 1", (9 * MS,) * 60, 100 * MS),
        Measured("FLR", "VF 2", (9 * MS,) * 57 + (350 * MS,) * 3, 100 * MS),
        Measured("hot-add", "VF 1", (300 * MS,)),
    ]
    lines = summary_lines(results, measured, report=Path("build/report/index.html"), evidence=Path("build/evidence"))
    assert lines == [
        "8 tests: 1 passed, 2 endpoint defects, 1 lab trouble, 1 harness bug, 1 known deviation, 1 not run, 1 skipped",
        "first endpoint defect: test_a.py::late",
        "    VF 3: 3 of 20 late",
        "first lab trouble: test_a.py::lost",
        "    GuestLost: wait: panic",
        "first harness bug: test_a.py::bug",
        "    KeyError: 'attention'",
        "FLR of PF:       p50 14.00, max 14.00 ms (n = 20)",
        "FLR of 2 VFs:    p50 9.000, p99 350.0, max 350.0 ms (n = 120)  ✗ 3 later than 100 ms",
        "hot-add of VF 1: p50 300.0, max 300.0 ms (n = 1)",
        "report:   build/report/index.html",
        "evidence: build/evidence",
    ]


def test_a_run_without_failures_is_one_line():
    assert summary_lines([Result("a", "passed"), Result("b", "passed")]) == ["2 tests: 2 passed"]


def test_a_run_in_which_nothing_ran_says_so():
    lines = summary_lines([Result("a", "skipped", "not run", "Skipped: the lab lacks KVM")])
    assert lines == ["1 test: 1 not run, NOTHING RAN, so nothing was learned about the endpoint"]
    assert summary_lines([]) == ["0 tests: NOTHING RAN, so nothing was learned about the endpoint"]


def test_a_failure_without_words_says_who_must_act():
    lines = summary_lines([Result("a", "broken", "harness bug", "")])
    assert lines[2] == "    A test or the harness broke: report it to the harness's maintainers."
