"""Imports go one way: the order is the list in harness/__init__.py's docstring, and the map shows every part."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parent
ORDER = tuple(re.findall(r"^([a-z_]+) {2,}\S", harness.__doc__ or "", re.MULTILINE))
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py" and "_share" not in path.parts)
STANDARD_LIBRARY_ONLY = ("errors", "waiting", "pci", "agent")  # they run beside the device, or in anybody's script


def part_of(path: Path) -> str:
    """The part of the harness that a file is in."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(source: str) -> Iterator[str]:
    """Full names of the modules that some code imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where it leads"
            module = node.module or ""
            yield from ([f"{module}.{alias.name}" for alias in node.names] if module == "harness" else [module])


def against_the_order(part: str, source: str) -> list[str]:
    """Parts that stand below ``part`` in the list, or not in it, and are imported all the same."""
    wanted = {name.split(".")[1] for name in imported(source) if name.startswith("harness.")} - {"__version__"}
    return sorted(wanted - set(ORDER[: ORDER.index(part) + 1]))


def test_the_map_lists_every_part() -> None:
    assert sorted(ORDER) == sorted({part_of(path) for path in FILES})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    backwards = against_the_order(part_of(path), path.read_text())
    assert not backwards, f"{part_of(path)} may not import {', '.join(backwards)}: see the list in harness/__init__.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_runs_anywhere_needs_the_standard_library_only(path: Path) -> None:
    if part_of(path) in STANDARD_LIBRARY_ONLY:
        others = {name.partition(".")[0] for name in imported(path.read_text())} - set(sys.stdlib_module_names)
        assert others <= {"harness"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from harness.lab import Lab", ["lab"]),
        ("import harness.vm.qmp", ["vm"]),
        ("from harness import plugin", ["plugin"]),
        ("def late():\n    from harness.report.steps import step", ["report"]),
        ("from harness.nowhere import thing", ["nowhere"]),
        ("from harness.host import Host\nfrom harness.pci.address import Bdf\nfrom harness import __version__", []),
    ],
    ids=["from", "import", "from-the-top", "late", "unknown", "allowed"],
)
def test_a_backwards_arrow_is_found(source: str, found: list[str]) -> None:
    assert against_the_order("host", source) == found
