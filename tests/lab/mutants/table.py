"""All mutants, from the files that are named for the tests' files."""

from __future__ import annotations

from tests.lab.mutants import enumeration, flr, hotplug, msix, resources
from tests.lab.mutants.model import Mutant

# Changes nothing, so it must be told apart: tests/lab/test_witnesses.py asks for it by name, "all" leaves it out.
NOTHING_WRONG = Mutant(
    "nothing-wrong",
    "nothing is wrong",
    {"test_enumeration.py::test_pf_is_the_promised_device": "Vendor and Device ID"},
)

MUTANTS: tuple[Mutant, ...] = (
    *hotplug.MUTANTS,  # in this order they run: the slow ones first, so that no worker is left with them at the end
    *enumeration.MUTANTS,
    *resources.MUTANTS,
    *flr.MUTANTS,
    *msix.MUTANTS,
)
