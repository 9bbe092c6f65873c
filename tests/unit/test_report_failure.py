"""How pytest shows an error of the harness: in words, with the line of the test, without our insides."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import DeadlineExceeded
from harness.report.failure import in_words
from harness.waiting import wait_until

ROOT = Path(__file__).parents[2]


def shown(root: Path) -> str:
    with pytest.raises(DeadlineExceeded) as raised:
        wait_until("the sun to rise", lambda: 0, within_s=0.01)
    return str(in_words(raised, root))


def test_the_line_of_the_test_is_shown_and_the_harnesss_own_are_not() -> None:
    text = shown(ROOT)
    assert "tests/unit/test_report_failure.py:" in text
    assert 'wait_until("the sun to rise"' in text
    assert "waited 0.01 s for the sun to rise: last seen: 0" in text
    assert "waiting.py" not in text
    assert "raise " not in text


def test_an_error_from_nowhere_in_the_tests_is_its_words_alone() -> None:
    """A session fixture of ours failed, say."""
    assert shown(Path("/elsewhere")) == (
        "E   harness.errors.DeadlineExceeded: waited 0.01 s for the sun to rise: last seen: 0"
    )
