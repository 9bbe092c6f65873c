"""The files about a whole run that Allure reads beside its results: environment, executor, categories.

Written once, by the process that is not an xdist worker, into the folder that ``--alluredir`` names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from harness.report import categories


def write_session_files(
    results: Path, environment: Mapping[str, str], *, variables: Mapping[str, str] | None = None
) -> None:
    """Write environment.properties, categories.json and, in a CI that we know, executor.json; tidy the teardowns.

    Args:
        results: the folder of Allure results; made when it is not there.
        environment: what the report shows about the run ("QEMU" → "11.1.3 (pinned)"), in this order. Empty values
            are left out.
        variables: the process's environment, where a CI says who it is; ``os.environ`` by default.
    """
    results.mkdir(parents=True, exist_ok=True)
    tidy_teardowns(results)
    (results / "environment.properties").write_text(properties_text(environment), encoding="ascii")
    _write_json(results / "categories.json", categories.classic())
    executor = executor_of(os.environ if variables is None else variables)
    if executor:
        _write_json(results / "executor.json", executor)
    else:
        (results / "executor.json").unlink(missing_ok=True)  # an earlier run's, in a folder that is used again


def tidy_teardowns(results: Path) -> None:
    """Leave one teardown for each fixture that has one, under the fixture's name.

    allure-pytest 2.16 also takes pytest's own callback that ends a fixture for a teardown: under pytest 9.0 that gives
    rows like "pf::<lambda>", which never get a status, so that the report shows a question mark beside every test.
    The others it calls by their number ("pf::1").
    """
    for file in results.glob("*-container.json"):
        container = json.loads(file.read_bytes())
        told = [each for each in container.get("afters", []) if each.get("status") or not _is_nameless(each)]
        tidy = [each | {"name": re.sub(r"::\d+$", "", each.get("name", ""))} for each in told]
        if tidy != container.get("afters", []):
            _write_json(file, container | {"afters": tidy})


def _is_nameless(teardown: Mapping[str, str]) -> bool:
    return teardown.get("name", "").endswith("::<lambda>")


def properties_text(values: Mapping[str, str]) -> str:
    """A Java properties file, in ASCII: names and values may hold anything, also "=", ":", spaces and line ends."""
    rows = (f"{_escape(name, key=True)}={_escape(value)}" for name, value in values.items() if value)
    return "".join(f"{row}\n" for row in rows)


def executor_of(variables: Mapping[str, str]) -> dict[str, object]:
    """Who ran this, for Allure's executor.json: GitHub, GitLab or Jenkins by their variables; {} elsewhere."""
    get = variables.get
    if get("GITHUB_ACTIONS") == "true":
        url = f"{get('GITHUB_SERVER_URL', '')}/{get('GITHUB_REPOSITORY', '')}/actions/runs/{get('GITHUB_RUN_ID', '')}"
        return _executor("GitHub Actions", "github", url, get("GITHUB_WORKFLOW", ""), get("GITHUB_RUN_NUMBER", ""))
    if get("GITLAB_CI") == "true":
        name = get("CI_JOB_NAME", "")
        return _executor("GitLab CI", "gitlab", get("CI_JOB_URL", ""), name, get("CI_PIPELINE_IID", ""))
    if get("JENKINS_URL"):
        return _executor("Jenkins", "jenkins", get("BUILD_URL", ""), get("JOB_NAME", ""), get("BUILD_NUMBER", ""))
    return {}


def _executor(name: str, kind: str, url: str, job: str, number: str) -> dict[str, object]:
    """The keys are Allure's; ``buildOrder`` must be a number, and one that is not is left out."""
    row: dict[str, object] = {"name": name, "type": kind, "buildUrl": url, "buildName": f"{job} #{number}".strip(" #")}
    return row | {"buildOrder": int(number)} if number.isascii() and number.isdigit() else row


def _escape(text: str, *, key: bool = False) -> str:
    out = []
    for index, character in enumerate(text):
        if character in "\\=:#!" or (character == " " and (key or index == 0)):
            out.append("\\" + character)
        elif character in "\n\r\t":
            out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character])
        elif " " <= character <= "~":
            out.append(character)
        else:  # \uXXXX, in UTF-16 units as Java wants it
            units = character.encode("utf-16-be", "replace")
            out.extend(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    return "".join(out)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
