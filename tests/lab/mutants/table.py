"""All mutants, from the files that are named for the tests' files."""

from __future__ import annotations

from tests.lab.mutants import enumeration, flr, hotplug, msix
from tests.lab.mutants.model import Mutant

MUTANTS: tuple[Mutant, ...] = (*hotplug.MUTANTS, *enumeration.MUTANTS, *flr.MUTANTS, *msix.MUTANTS)  # slow ones first
