"""``sriov-harness lab``: mistakes are answered in words, with exit status 2, before anything is built."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness import cli
from harness.lab import kept
from harness.vm.cache import Cache


@pytest.fixture
def _no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a person without kept machines and with an empty cache."""
    monkeypatch.setenv("SRIOV_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "runs_folder", lambda: tmp_path / "runs")
    monkeypatch.setattr(Cache, "_build", lambda *_: pytest.fail("it began to build"))


@pytest.mark.usefixtures("_no_machine")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["shell", "--lab", "nope"], "unknown lab 'nope'\n  → known: "),
        (["shell", "--profile", "nope"], "unknown profile 'nope'\n  → known: "),
        (["shell", "--accel", "nope"], "unknown accelerator 'nope'\n  → known: auto, kvm, tcg"),
        (["shell", "--kernel", "nope"], "unknown kernel 'nope'\n  → known: "),
        (["shell", "--qemu", "/nonexistent"], "use QEMU (/nonexistent): there is no such file"),
        (["shell", "nope"], "unknown kept machine 'nope'\n  → known: (none)"),
        (["stop", "nope"], "unknown kept machine 'nope'"),
        (["stop"], "stop a machine: no name"),
    ],
)
def test_a_mistake_is_answered_in_words(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sriov-harness", "lab", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"sriov-harness: {told}")
