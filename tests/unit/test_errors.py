"""The exceptions: the tree that the docstring draws is the tree that there is, and messages say four things."""

from __future__ import annotations

import errno
import importlib
import pkgutil
import re

import pytest

import harness
from harness import errors
from harness.errors import (
    DeadlineExceeded,
    HarnessError,
    LabTrouble,
    RemoteError,
    RemoteOSError,
    UsageError,
    unknown_name,
)

DRAWN = re.compile(r"^(?P<branch>[│ ├└─]*)(?P<name>[A-Z]\w+)  +\S", re.MULTILINE)
INDENT = 4


def drawn_parents() -> dict[str, str]:
    """Each class of the docstring's tree, and the one that it hangs on."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for found in DRAWN.finditer(errors.__doc__ or ""):
        depth = len(found["branch"]) // INDENT
        path[depth:] = [found["name"]]
        parents[found["name"]] = path[depth - 1] if depth else ""
    return parents


def own(kind: type[HarnessError]) -> list[type[HarnessError]]:
    return [one for below in kind.__subclasses__() for one in (below, *own(below))]


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {
        kind.__name__: kind.__bases__[0].__name__ for kind in own(HarnessError) if kind.__module__ == errors.__name__
    }
    assert drawn_parents() == {"HarnessError": "", **real}


def test_errors_of_other_files_hang_on_a_class_that_says_who_must_act() -> None:
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        if not module.name.startswith("harness.agent.remote") and "._share" not in module.name:
            importlib.import_module(module.name)
    strays = [
        kind for kind in own(HarnessError) if kind.__module__ != errors.__name__ and kind.__bases__[0] is HarnessError
    ]
    assert strays == []


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "start QEMU"),
        ({"on": "clone 3"}, "start QEMU (clone 3)"),
        ({"got": "exit status 1\n"}, "start QEMU: exit status 1"),
        ({"fix": "install it"}, "start QEMU\n  → install it"),
        ({"on": "clone 3", "got": "status 1", "fix": "install it"}, "start QEMU (clone 3): status 1\n  → install it"),
    ],
    ids=["tried", "on", "got", "fix", "all"],
)
def test_a_message_says_what_was_tried_on_what_what_came_back_and_what_to_do(parts: dict[str, str], text: str) -> None:
    assert str(HarnessError("start QEMU", **parts)) == text


def test_a_deadline_is_lab_trouble_and_a_timeout() -> None:
    error = DeadlineExceeded("waited 3 s for VF 1", got="last seen: ()")
    assert isinstance(error, LabTrouble)
    assert isinstance(error, TimeoutError)
    assert str(error) == "waited 3 s for VF 1: last seen: ()"


def test_the_kernels_refusal_is_an_oserror_with_its_errno() -> None:
    error = RemoteOSError(errno.EBUSY, "agent: file.write", on="/sys/x")
    assert isinstance(error, RemoteError)
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror) == (errno.EBUSY, "Device or resource busy")
    assert str(error) == "agent: file.write (/sys/x): Device or resource busy (errno 16)"


def test_an_unknown_name_is_answered_with_the_known_ones_in_order() -> None:
    error = unknown_name("profile", "qemu-ibg", ["qemu-nvme", "qemu-igb"])
    assert isinstance(error, UsageError)
    assert str(error) == "unknown profile 'qemu-ibg'\n  → known: qemu-igb, qemu-nvme"
    assert str(unknown_name("lab", "x", ())) == "unknown lab 'x'\n  → known: (none)"
