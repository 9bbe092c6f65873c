"""Which assertions of the suite were seen to fail: a test with ten of them needs more than one mutant."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

Place = tuple[str, int]  # file name and line


def place_of(failure: pytest.ExceptionInfo[BaseException], suite: Path) -> Place:
    """The last line of the suite on the way to a failure."""
    ours = [entry for entry in failure.traceback if Path(entry.path).parent == suite]
    return (Path(ours[-1].path).name, ours[-1].lineno + 1) if ours else ("", 0)


def never_failed(files: Collection[Path], seen: Collection[Place]) -> Iterator[str]:
    """ "test_flr.py:61: assert …" for each assertion of these files at which nothing has failed."""
    for path in sorted(files):
        source = path.read_text().splitlines()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assert):
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                if not any((path.name, line) in seen for line in lines):
                    yield f"{path.name}:{node.lineno}: {source[node.lineno - 1].strip()}"
