"""How a HarnessError is shown: its own words, and where in the tests it came up; not the harness's insides."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest._code.code import ExceptionInfo, ExceptionRepr, Traceback

HARNESS = Path(__file__).parents[1]


def in_words(excinfo: pytest.ExceptionInfo[BaseException], root: Path) -> ExceptionRepr:
    """What pytest shows instead of a traceback.

    Args:
        root: of the tests; frames of files elsewhere are left out.
    """

    def ours(info: ExceptionInfo[BaseException]) -> Traceback:
        return info.traceback.filter(lambda entry: _is_a_test(Path(entry.path), root))

    shown = excinfo.getrepr(style="short", chain=False, tbfilter=ours)
    shown.reprtraceback.extraline = None  # "all entries are hidden": they are meant to be
    return shown


def _is_a_test(path: Path, root: Path) -> bool:
    return path.is_relative_to(root) and not path.is_relative_to(HARNESS) and "site-packages" not in path.parts
