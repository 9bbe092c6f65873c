"""The files that Allure reads, and what allure-pytest makes of our results."""

import json
import re

import pytest

from harness.report.allure import executor_of, properties_text, write_session_files
from harness.report.categories import classic

pytest_plugins = ["pytester"]

PLUGIN = """
import os
from pathlib import Path
import pytest
from harness.report.allure import write_session_files
from harness.report.steps import recording

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with recording(None, item.function.__doc__ or ""):
        return (yield)

@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    write_session_files(Path("results"), {"Lab": "emulated:igb"}, variables={})
"""

TESTS = """
import os
import pytest
from harness.errors import GuestLost, RemoteOSError
from harness.report.steps import attach_svg, attach_text, parameter, step

@pytest.fixture
def lost():
    raise GuestLost("wait for the agent", got="QEMU exited")

def test_defect():
    with step("reset VF 3"):
        attach_text("log", "text")
        raise AssertionError("VF 3 is late")

def test_trouble(lost): pass

def test_refused():
    raise RemoteOSError(16, "write bind")

def test_caused():
    try:
        raise GuestLost("wait")
    except GuestLost as error:
        raise RuntimeError("no answer") from error

def test_bug():
    {}["attention"]

def test_deviation():
    pytest.skip("known deviation: QEMU shows IDs")

def test_lacking():
    pytest.skip("the lab lacks an IOMMU")

@pytest.fixture
def cleaned():
    yield
    with step("clean"): pass

def test_good(cleaned):
    "A claim."
    parameter("p50", os.environ["MEASURED"])
    attach_svg("picture", b"<svg/>")
"""

EXPECTED = {
    "test_defect": ("failed", "endpoint defect"),
    "test_trouble": ("broken", "lab trouble"),
    "test_refused": ("broken", "lab trouble"),
    "test_caused": ("broken", "lab trouble"),
    "test_bug": ("broken", "harness bug"),
    "test_deviation": ("skipped", "known deviation"),
    "test_lacking": ("skipped", "not run"),
    "test_good": ("passed", ""),
}


def run(pytester, monkeypatch, measured):
    """One run of the tests above in a process of its own: results by name."""
    monkeypatch.setenv("MEASURED", measured)
    arguments = ["-p", "no:sriov-harness", "-p", "conftest", "--alluredir=results", "--clean-alluredir", "-q"]
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=1, failed=4, errors=1, skipped=2)
    found = [json.loads(file.read_text()) for file in (pytester.path / "results").glob("*-result.json")]
    return {result["name"]: result for result in found}


@pytest.fixture
def results(pytester, monkeypatch):
    pytester.makeconftest(PLUGIN)
    pytester.makepyfile(TESTS)
    return run(pytester, monkeypatch, "9.1 ms")


def rows_of(path):
    return json.loads(path.read_text())


def category(rows, result):
    details = result.get("statusDetails", {})
    message, trace = details.get("message", ""), details.get("trace", "")
    for row in rows:
        if (
            result["status"] in row["matchedStatuses"]
            and re.search(row.get("messageRegex", ""), message)
            and re.search(row.get("traceRegex", ""), trace)
        ):
            return row["name"]
    return ""


def test_real_results_fall_into_their_categories_and_keep_their_history(pytester, monkeypatch, results):
    """By categories.json as it was written, on what allure-pytest wrote."""
    rows = rows_of(pytester.path / "results" / "categories.json")
    assert [row["name"] for row in rows] == [row["name"] for row in classic()]
    assert {name: (one["status"], category(rows, one)) for name, one in results.items()} == EXPECTED

    defect = results["test_defect"]["steps"][0]
    assert (defect["name"], defect["status"], defect["attachments"][0]["name"]) == ("reset VF 3", "failed", "log")

    containers = [json.loads(file.read_text()) for file in (pytester.path / "results").glob("*-container.json")]
    teardowns = [(after["name"], after["status"]) for one in containers for after in one.get("afters", [])]
    assert teardowns == [("cleaned", "passed")]

    good = results["test_good"]
    assert good["descriptionHtml"].startswith("<p>A claim.</p>\n<img")
    assert {"name": "p50", "value": "9.1 ms", "excluded": True} in good["parameters"]

    again = run(pytester, monkeypatch, "11.7 ms")["test_good"]
    assert {"name": "p50", "value": "11.7 ms", "excluded": True} in again["parameters"]
    assert again["historyId"] == good["historyId"]


def test_properties_hold_any_text():
    text = properties_text({"Python, pytest": "3.13 = new: ok", "Größe": " µ\\\n😀", "nothing": ""})
    assert text == (
        "Python,\\ pytest=3.13 \\= new\\: ok\n"
        "Gr\\u00f6\\u00dfe=\\ \\u00b5\\\\\\n\\ud83d\\ude00\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        (
            {"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://forge.test", "GITHUB_REPOSITORY": "fpga/nic",
             "GITHUB_RUN_ID": "7", "GITHUB_WORKFLOW": "nightly", "GITHUB_RUN_NUMBER": "12"},
            {"name": "GitHub Actions", "type": "github", "buildUrl": "https://forge.test/fpga/nic/actions/runs/7",
             "buildName": "nightly #12", "buildOrder": 12},
        ),
        (
            {"GITLAB_CI": "true", "CI_JOB_URL": "https://forge.test/j/1", "CI_JOB_NAME": "hw", "CI_PIPELINE_IID": "3"},
            {"name": "GitLab CI", "type": "gitlab", "buildUrl": "https://forge.test/j/1", "buildName": "hw #3",
             "buildOrder": 3},
        ),
        (
            {"JENKINS_URL": "https://ci.test", "BUILD_URL": "https://ci.test/5", "JOB_NAME": "hw", "BUILD_NUMBER": "x"},
            {"name": "Jenkins", "type": "jenkins", "buildUrl": "https://ci.test/5", "buildName": "hw #x"},
        ),
    ],
)  # fmt: skip
def test_executor_is_the_ci_that_says_so(variables, expected):
    assert executor_of(variables) == expected


def test_an_earlier_executor_does_not_stay(tmp_path):
    write_session_files(tmp_path / "new", {}, variables={"GITLAB_CI": "true"})
    assert rows_of(tmp_path / "new" / "executor.json")["name"] == "GitLab CI"
    write_session_files(tmp_path / "new", {"Lab": "local"}, variables={})
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["categories.json", "environment.properties"]
    assert (tmp_path / "new" / "environment.properties").read_text() == "Lab=local\n"
