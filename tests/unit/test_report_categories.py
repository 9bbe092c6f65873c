"""Each result has one category, in Python, in Allure 3 and in Allure 2."""

import re

import pytest

from harness import errors
from harness.report.categories import categories, category_of, class_names, classic, status_of

TRACE_WITH_A_NAME_IN_ITS_SOURCE = """\
    def test_events():
        try:
>           count["attention"]
        except GuestLost:
            raise harness.errors.GuestLost("x")
E       KeyError: 'attention'
tests/test_events.py:5: KeyError"""

TRACE_WITH_LAB_TROUBLE_AS_ITS_CAUSE = """\
>       guest.ask()
E       harness.errors.GuestLost: wait for the agent: QEMU exited
harness/guest.py:1: GuestLost
The above exception was the direct cause of the following exception:
>       raise RuntimeError("no answer")
E       RuntimeError: no answer"""

RESULTS = [
    ("failed", "AssertionError: FLR of VF 3: 3 of 20 later", "", "endpoint defect"),
    ("failed", "Failed: GuestLost is only a word here", "E   Failed: …", "endpoint defect"),
    ("failed", "", "", "endpoint defect"),
    ("broken", "harness.errors.GuestLost: wait for the agent: panic\n  → see console.log", "…", "lab trouble"),
    ("broken", "harness.errors.DeadlineExceeded: waited 30 s", "", "lab trouble"),
    ("broken", "harness.errors.TransportFailed: x", "", "lab trouble"),
    ("broken", "harness.errors.RemoteError: x", "", "lab trouble"),
    ("broken", "harness.errors.RemoteOSError: write bind: Device or resource busy (errno 16)", "", "lab trouble"),
    ("broken", "harness.errors.HostLacks: KVM", "", "lab trouble"),
    ("broken", "harness.errors.CacheDamaged: x", "", "lab trouble"),
    ("broken", "GuestLost: as a bare name", "", "lab trouble"),
    ("broken", "RuntimeError: no answer", TRACE_WITH_LAB_TROUBLE_AS_ITS_CAUSE, "lab trouble"),
    ("broken", "KeyError: 'attention'", TRACE_WITH_A_NAME_IN_ITS_SOURCE, "harness bug"),
    ("broken", "KeyError: 'GuestLost'", "E       KeyError: 'GuestLost'", "harness bug"),
    ("broken", "harness.errors.UsageError: unknown profile", "E   harness.errors.UsageError: …", "harness bug"),
    ("broken", "", "", "harness bug"),
    ("skipped", "Skipped: known deviation: QEMU shows IDs\n(source)", "", "known deviation"),
    ("skipped", "XFAIL known deviation SRIOV-VF-IDS\n\nAssertionError", "", "known deviation"),
    ("skipped", "Skipped: the lab lacks an IOMMU", "", "not run"),
    ("skipped", "Skipped: not applicable: no FLR", "", ""),
    ("passed", "", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("status", "message", "trace", "expected"), RESULTS)
def test_the_first_category_that_matches(status, message, trace, expected):
    assert category_of(status, message, trace) == expected


def rows_that_match(match, status, message, trace):
    return [
        row["name"]
        for row in classic()
        if status in row["matchedStatuses"]
        and ("messageRegex" not in row or match(row["messageRegex"], message))
        and ("traceRegex" not in row or match(row["traceRegex"], trace))
    ]


@pytest.mark.parametrize(("status", "message", "trace", "expected"), RESULTS)
def test_allure_3_files_a_result_alike(status, message, trace, expected):
    """JavaScript's ``RegExp.test``, and the first row wins."""
    found = rows_that_match(re.search, status, message, trace)
    assert (found[0] if found else "") == expected


@pytest.mark.parametrize(("status", "message", "trace", "expected"), RESULTS)
def test_allure_2_files_a_result_alike_and_only_once(status, message, trace, expected):
    """Java's ``Pattern.matches`` with DOTALL wants the whole text, and every row that matches counts."""

    def whole(pattern, text):
        return re.fullmatch(pattern, text, re.DOTALL)

    assert set(rows_that_match(whole, status, message, trace)) == ({expected} - {""})


def test_every_error_of_the_lab_is_lab_trouble():
    found = class_names(errors.LabTrouble, errors.HostLacks)
    assert set(found) >= {
        *("LabTrouble", "GuestLost", "DeadlineExceeded", "TransportFailed", "RemoteError", "RemoteOSError"),
        *("HostLacks", "CacheDamaged"),
    }
    for name in found:
        assert category_of("broken", f"harness.errors.{name}: x") == "lab trouble"


def test_lab_trouble_that_is_defined_later_is_lab_trouble_too():
    later = type("SwitchLost", (errors.LabTrouble,), {})
    assert category_of("broken", "my.lab.SwitchLost: no answer") == "lab trouble"
    assert any("SwitchLost" in str(row.get("messageRegex")) for row in classic())
    assert later.__name__ == "SwitchLost"  # keeps the class alive until here


def test_each_category_says_who_must_act():
    assert all(category.meaning.endswith(".") for category in categories())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "passed"),
        (AssertionError(), "failed"),
        (pytest.fail.Exception("x"), "failed"),
        (pytest.skip.Exception("x"), "skipped"),
        (errors.GuestLost("x"), "broken"),
        (KeyboardInterrupt(), "broken"),
    ],
)
def test_status_is_the_one_of_allure_pytest(error, status):
    from allure_pytest.utils import get_status

    assert status_of(error) == status == get_status(error)
