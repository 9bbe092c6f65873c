"""A pass must be earned: every endpoint test has been seen to fail, for the right reason (tests/lab/mutants)."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import LabTrouble
from harness.measure.statistics import judge
from tests.lab.mutants.assertions import never_failed, place_of
from tests.lab.mutants.model import Mutant, complaint
from tests.lab.mutants.plugin import NOT_SEEN
from tests.lab.mutants.table import MUTANTS, NOTHING_WRONG

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "endpoint"
PASSED_ON = ("accel", "kernel", "qemu")  # options of this run that the child runs get, too
RUN_WITHIN_S = 600
LATE = Mutant("late", "VF 1 is late", {"test_flr.py::test_it": "later than", "test_flr.py::test_all[a]": ("a", "b")})


def child(config: pytest.Config, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the endpoint suite with mutants in a pytest of its own."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.lab.mutants", "-p", "no:cacheprovider", str(SUITE)]
    command += [f"--{name}={value}" for name in PASSED_ON if (value := config.getoption(f"--{name}"))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_WITHIN_S
    )


def endpoint_tests() -> set[str]:
    """ "test_flr.py::test_…" of every test function in tests/endpoint."""
    return {
        f"{path.name}::{node.name}"
        for path in sorted(SUITE.glob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_endpoint_test_has_a_mutant() -> None:
    named = {test.partition("[")[0] for mutant in MUTANTS for test in mutant.fails}
    assert endpoint_tests() - named == set(), "tests that nothing was seen to fail: add a row to tests/lab/mutants"


def test_mutants_have_names_and_words_of_their_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    assert [mutant.name for mutant in MUTANTS if not (mutant.taps or mutant.promise)] == [], "mutants without a defect"
    wordless = [mutant.name for mutant in MUTANTS for test in mutant.fails if not all(mutant.texts_for(test))]
    assert wordless == [], "mutants that any failure would satisfy"


def test_every_test_that_a_mutant_names_exists(pytestconfig: pytest.Config) -> None:
    done = child(pytestconfig, "--mutants", "all", "--collect-only", "-q", "-p", "no:xdist")
    collected = set(re.findall(r"^\S*/(test_\w+\.py::\S+)$", done.stdout, re.MULTILINE))
    assert {with_name(test, mutant) for mutant in MUTANTS for test in mutant.fails} == collected, done.stdout


def test_every_mutant_is_noticed(pytestconfig: pytest.Config) -> None:
    """The witness run: about a hundred endpoint tests, each with one defect, each failing in the words expected."""
    done = child(pytestconfig, "--mutants", "all", "-n", "2", "--dist", "worksteal", "--durations", "5", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(len(mutant.fails) for mutant in MUTANTS)} noticed" in done.stdout, done.stdout
    assert NOT_SEEN not in done.stdout, done.stdout


def test_a_mutant_that_nothing_notices_is_told(pytestconfig: pytest.Config) -> None:
    done = child(pytestconfig, "--mutants", NOTHING_WRONG.name)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT NOTICED: nothing is wrong, and the test passed" in done.stdout


def test_an_unknown_mutant_is_answered_with_the_known_ones(pytestconfig: pytest.Config) -> None:
    done = child(pytestconfig, "--mutants", "no-such", "--collect-only")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no mutant is called no-such; there are: " in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "NOT NOTICED: VF 1 is late, and the test passed"),
        (AssertionError("FLR of VF 1: 1 of 20 later than 100 ms"), ""),
        (AssertionError("FLR of VF 1"), "ANOTHER REASON: VF 1 is late; the failure lacks ['later than']"),
        (KeyError("later than"), "OBSCURE: VF 1 is late, and that was no failed assertion but KeyError"),
        (LabTrouble("later than"), "OBSCURE"),
        (pytest.skip.Exception("later than"), "OBSCURE"),
    ],
    ids=["passed", "expected", "other-words", "obscure", "lab-trouble", "skipped"],
)
def test_only_the_expected_failure_is_a_witness(error: BaseException | None, said: str) -> None:
    found = complaint(LATE, LATE.texts_for("test_flr.py::test_it"), error)
    assert found.startswith(said) if said else not found


def test_all_texts_are_wanted_of_the_named_parameter_only() -> None:
    assert LATE.texts_for("test_flr.py::test_all[a]") == ("a", "b")
    assert LATE.texts_for("test_flr.py::test_all[b]") == ()
    assert LATE.names("test_flr.py::test_all")
    assert not LATE.names("test_msix.py::test_all")


def test_assertions_that_never_failed_are_told(tmp_path: Path) -> None:
    suite = tmp_path / "test_it.py"
    suite.write_text("def test_it():\n    assert 1\n    assert (\n        2\n    )\n")
    assert list(never_failed([suite], {("test_it.py", 2)})) == ["test_it.py:3: assert ("]
    assert list(never_failed([suite], {("test_it.py", 2), ("test_it.py", 4)})) == []


def test_a_failure_is_placed_at_the_last_line_of_the_suite() -> None:
    with pytest.raises(AssertionError) as failure:
        complaint_in_the_harness()
    assert place_of(failure, Path(__file__).parent)[0] == Path(__file__).name
    assert place_of(failure, SUITE) == ("", 0)


def complaint_in_the_harness() -> None:
    """Fails in a file that is not of this folder."""
    judge([2], 1, "it").check()


def with_name(test: str, mutant: Mutant) -> str:
    """The ID under which a test runs with a mutant."""
    return f"{test[:-1]}-{mutant.name}]" if test.endswith("]") else f"{test}[{mutant.name}]"
