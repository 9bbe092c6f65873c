"""Who has to act on a test that did not pass: the one list that Allure, the terminal and JUnit all use.

A result has a status, as allure-pytest gives it: "failed" for a failed assertion or pytest.fail, "broken" for any
other exception, "skipped" for pytest.skip and xfail, "passed". The first category that matches is the result's.

The expressions serve three engines: Python here, JavaScript's ``RegExp.test`` in Allure 3, and Java's
``Pattern.matches`` with DOTALL in Allure 2, which must match the *whole* text. So each is anchored, ends in
``[\\s\\S]*`` and uses nothing that one of the three lacks. Allure 2 has no order and files a result under every
category that matches, so no two of them may match the same result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from harness.errors import HostLacks, LabTrouble

Status = Literal["passed", "failed", "broken", "skipped"]


@dataclass(frozen=True, slots=True)
class Category:
    """One reason for not passing.

    Attributes:
        name: what the report calls it.
        meaning: who must act, in one sentence.
        status: the status a result must have.
        message: an expression for the result's message; empty for any.
        trace: an expression for its traceback, tried when the message does not match; empty for none.
    """

    name: str
    meaning: str
    status: Status
    message: str = ""
    trace: str = ""

    def matches(self, status: str, message: str, trace: str) -> bool:
        if status != self.status:
            return False
        if not self.message:
            return True
        return bool(re.search(self.message, message) or (self.trace and re.search(self.trace, trace)))


def class_names(*roots: type[BaseException]) -> tuple[str, ...]:
    """The names of these exceptions and of all that are derived from them so far, sorted."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        found.add(one.__name__)
        waiting.extend(one.__subclasses__())
    return tuple(sorted(found))


def categories() -> tuple[Category, ...]:
    """The list, first match first.

    Made anew on each call, because a module that is imported later may bring another kind of lab trouble.
    """
    lab = _lab_names()
    return (
        Category(
            "endpoint defect",
            "The endpoint does not do what its profile or the specification says: the designers must act.",
            "failed",
        ),
        Category(
            "lab trouble",
            "The lab failed, so the run says nothing about the endpoint: see to the lab and run again.",
            "broken",
            rf"^{lab}[\s\S]*$",
            rf"^{_ERROR_LINE}{lab}[\s\S]*$",
        ),
        Category("harness bug", "A test or the harness broke: report it to the harness's maintainers.", "broken"),
        Category(
            "known deviation",
            "The profile lists it with its reason and source: nobody needs to act.",
            "skipped",
            r"^(?:Skipped: |XFAIL )?[Kk]nown deviation[\s\S]*$",
        ),
        Category(
            "not run",
            "The lab lacks something that the test needs: nothing was learned about the endpoint.",
            "skipped",
            r"^(?:Skipped: )?[Tt]he lab lacks[\s\S]*$",
        ),
    )


# A message is "harness.errors.GuestLost: …". A traceback names a first cause in pytest's lines of errors ("E   …");
# anywhere else in a traceback, the name may only stand in a line of source.
_ERROR_LINE = r"(?:[\s\S]*\n)?E +"


def _lab_names() -> str:
    return rf"(?:\w+\.)*(?:{'|'.join(class_names(LabTrouble, HostLacks))})\b"


def category_of(status: str, message: str = "", trace: str = "") -> str:
    """The name of the first category that matches a result, or "" (passed, or skipped for another reason)."""
    return next((each.name for each in categories() if each.matches(status, message, trace)), "")


def status_of(error: BaseException | None) -> Status:
    """The status that allure-pytest gives a test that ended with this exception (None: it passed)."""
    import pytest  # late, so that the command line does without

    if error is None:
        return "passed"
    if isinstance(error, pytest.skip.Exception):
        return "skipped"
    return "failed" if isinstance(error, AssertionError | pytest.fail.Exception) else "broken"


def classic() -> list[dict[str, object]]:
    """The list as Allure's categories.json, which both Allure 2 and Allure 3 read.

    A category that looks at message *or* traceback takes two entries of one name; "harness bug" is what no other
    broken result is, spelled out for Allure 2.
    """
    lab = _lab_names()
    no_lab_message, no_lab_trace = rf"^(?!{lab})[\s\S]*$", rf"^(?!{_ERROR_LINE}{lab})[\s\S]*$"
    rows: list[dict[str, object]] = []
    for each in categories():
        row: dict[str, object] = {"name": each.name, "description": each.meaning, "matchedStatuses": [each.status]}
        if each.status == "broken" and not each.message:
            rows.append(row | {"messageRegex": no_lab_message, "traceRegex": no_lab_trace})
            continue
        rows.append(row | ({"messageRegex": each.message} if each.message else {}))
        if each.trace:
            rows.append(row | {"messageRegex": no_lab_message, "traceRegex": each.trace})
    return rows
