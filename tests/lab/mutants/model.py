"""A mutant: one small defect between the tests and the real device, and what it must be answered with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from harness.profiles import Profile

Tap = Callable[[pytest.MonkeyPatch, pytest.Item], None]
Texts = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect.

    Attributes:
        name: short, for the command line and the test's ID.
        defect: what it makes wrong, in the endpoint's words.
        fails: what must fail, as "test_flr.py::test_…[param]", and the text or texts of that failure.
        taps: what makes it so; each is put in place for one test and taken out after it.
        promise: what the profile promises instead, for a defect that is easier told that way round.
    """

    name: str
    defect: str
    fails: Mapping[str, Texts]
    taps: tuple[Tap, ...] = ()
    promise: Callable[[Profile], Profile] | None = None

    def names(self, function: str) -> bool:
        """Whether it names "test_flr.py::test_…", with whatever parameters."""
        return any(pattern.partition("[")[0] == function for pattern in self.fails)

    def texts_for(self, test: str) -> tuple[str, ...]:
        """The texts that the failure of this test must have; none when the mutant does not name it."""
        found = self.fails.get(test, ())
        return (found,) if isinstance(found, str) else found


def complaint(mutant: Mutant, texts: tuple[str, ...], error: BaseException | None) -> str:
    """Why a test's end is no witness; empty when it failed as an endpoint's fault, with the expected words."""
    if error is None:
        return f"NOT NOTICED: {mutant.defect}, and the test passed"
    if not isinstance(error, AssertionError):
        return f"OBSCURE: {mutant.defect}, and that was no failed assertion but {type(error).__name__}: {error}"
    missing = [text for text in texts if text not in str(error)]
    if missing:
        return f"ANOTHER REASON: {mutant.defect}; the failure lacks {missing}:\n{error}"
    return ""
