"""What harness.plugin does for the report, alone: a recording around each test, the session's files at the end."""

from pathlib import Path

import pytest

from harness.report.allure import write_session_files
from harness.report.steps import recording, steps_text


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    folder = Path("build/evidence") / item.name.replace("/", "-")
    with recording(folder, item.function.__doc__ or "") as recorded:
        result = yield
    if recorded.steps and folder.is_dir():
        (folder / "steps.txt").write_text(steps_text(recorded.steps) + "\n")
    return result


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if results := session.config.getoption("allure_report_dir", None):
        environment = {
            "Endpoint": "qemu-igb 8086:10c9, 7 VFs",
            "Lab": "emulated:igb",
            "Accelerator": "TCG (a probe boot under KVM failed: no nested virtualisation)",
            "Host": "Debian 12, 6.1.0-28-amd64, 2 cores",
            "QEMU": "11.1.3 (pinned)",
            "Guest kernel": "6.12.57+deb13-amd64",
            "Guest image": "debian-13, key 4f2a91c0",
            "Harness": "0.1.0",
            "Python, pytest": "3.13.5, 9.2.0",
        }
        write_session_files(Path(results), environment)
