"""The real Allure 3, on the results of a suite that has one of everything."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HostLacks
from harness.report.html import generate
from harness.vm.cache import Cache

SAMPLE = Path(__file__).parents[1] / "data" / "report_sample"


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """The sample suite, laid out like the real one."""
    folder = tmp_path_factory.mktemp("suite")
    tests = folder / "tests" / "endpoint"
    tests.mkdir(parents=True)
    for file in SAMPLE.glob("endpoint_*.py"):
        shutil.copyfile(file, tests / file.name.replace("endpoint_", "test_"))
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def run(suite):
    """Run the sample suite, which fails on purpose, in a process of its own."""
    options = ["-p", "no:sriov-harness", "-p", "plugin_sample", "--alluredir=build/allure-results", "--clean-alluredir"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options],
        cwd=suite,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SAMPLE), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "6 failed, 13 passed, 2 skipped, 1 error" in done.stdout, done.stdout


def make(suite):
    """The report's data files by name, as the page holds them; skips in words where there is no Node."""
    build = suite / "build"
    try:
        page = generate(
            build / "allure-results", build / "report", cache=Cache.default(), history=build / "history.jsonl"
        )
    except HostLacks as error:
        pytest.skip(f"the lab lacks what makes the HTML report: {error}")
    text = page.read_text(encoding="utf-8")
    return text, {name: base64.b64decode(value) for name, value in re.findall(r'd\("([^"]+)","([^"]*)"\)', text)}


def test_the_report_shows_what_failed_why_and_the_picture(suite):
    run(suite)
    text, data = make(suite)
    assert "googletagmanager" not in text
    assert len(text) < 6_000_000

    nodes = json.loads(data["widgets/categories.json"])["nodes"].values()
    found = {node["name"]: node["statistic"]["total"] for node in nodes if node["type"] == "category"}
    assert found == {"endpoint defect": 3, "lab trouble": 3, "harness bug": 1, "known deviation": 1, "not run": 1}

    shown = json.loads(data["widgets/allure_environment.json"])
    assert {"name": "QEMU", "values": ["11.1.3 (pinned)"]} in shown

    results = [json.loads(value) for name, value in data.items() if name.startswith("data/test-results/")]
    flr = next(result for result in results if result["name"] == "test_flr_of_each_function_is_in_time")
    assert flr["error"]["message"].startswith("AssertionError: FLR of VF 3: 3 of 20 later than 100 ms, worst 352.1 ms")
    claim = "<p>PCIe 6.0, 6.6.2: a function completes an FLR within 100 ms.</p>"
    assert flr["descriptionHtml"].startswith(claim)
    assert '<img style="max-width: 100%" src="data:image/svg+xml;base64,' in flr["descriptionHtml"]
    pictures = [value for name, value in data.items() if name.startswith("data/attachments/") and b"<svg" in value]
    assert any(b"later than 100 ms: VF 3 (3 of 20)" in picture for picture in pictures)


def test_a_later_run_knows_the_earlier_one_and_the_same_results_count_once(suite):
    run(suite)
    make(suite)
    first = (suite / "build" / "history.jsonl").read_text().count("\n")
    make(suite)
    assert (suite / "build" / "history.jsonl").read_text().count("\n") == first
    run(suite)
    _, data = make(suite)
    assert (suite / "build" / "history.jsonl").read_text().count("\n") == first + 1
    results = [json.loads(value) for name, value in data.items() if name.startswith("data/test-results/")]
    flr = next(result for result in results if result["name"] == "test_flr_of_each_function_is_in_time")
    assert [earlier["status"] for earlier in flr["history"]] == ["failed"] * first
