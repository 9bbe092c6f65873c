"""/dev/kvm that is there: whether it works is only what a kernel says that ran. Real, where there is one."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from fault_kit import PROMISE_S, pytest_in

from harness.errors import HostLacks
from harness.lab.emulated import EmulatedLab
from harness.vm import accel
from harness.vm.accel import KVM, Choice, choose, probe

NOTHING_SAID = "def test_it(): pass"

pytestmark = pytest.mark.skipif(not KVM.exists(), reason=f"this computer has no {KVM} that could fail")


@pytest.fixture
def choice(lab: EmulatedLab, tmp_path: Path) -> Choice:
    """What is chosen on this computer."""
    return choose("auto", lab._cache, lab.stack, tmp_path, print)


def test_a_probe_ends_soon_and_says_why_in_a_few_words(lab: EmulatedLab, tmp_path: Path) -> None:
    start = time.monotonic()
    trouble = probe(lab.stack, tmp_path)
    assert time.monotonic() - start < accel.PROBE_WITHIN_S + PROMISE_S
    if not trouble:
        pytest.skip("KVM works on this computer")
    assert re.match(r"QEMU stopped the kernel with an internal error \(.+\)$|no kernel started|.*panicked", trouble)
    assert len(trouble) < 500
    assert "0x" not in trouble, "a dump of registers helps nobody"


def test_the_choice_is_kept(lab: EmulatedLab, choice: Choice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "probe", lambda *_: pytest.fail("it was probed again"))
    assert choose("auto", lab._cache, lab.stack, tmp_path, print) == choice
    if choice.accelerator == "tcg":
        assert choice.reason.startswith("no KVM: ")
        reason = re.escape(choice.reason.removeprefix("no KVM: "))
        with pytest.raises(HostLacks, match=rf"use KVM \({KVM}\): {reason}\n.*pass --accel=tcg"):
            choose("kvm", lab._cache, lab.stack, tmp_path, print)


def test_pytest_says_in_its_header_what_was_chosen_and_why(tmp_path: Path, choice: Choice) -> None:
    with pytest_in(tmp_path, NOTHING_SAID, "--accel=auto") as run:
        assert run.end() == 0, run.output
        assert f"accelerator: {choice.accelerator} ({choice.reason})" in run.output


def test_pytest_refuses_kvm_that_does_not_work(tmp_path: Path, choice: Choice) -> None:
    if choice.accelerator == "kvm":
        pytest.skip("KVM works on this computer")
    with pytest_in(tmp_path, NOTHING_SAID, "--accel=kvm") as run:
        assert run.end() == pytest.ExitCode.USAGE_ERROR, run.output
        assert f"ERROR: use KVM ({KVM}): {choice.reason.removeprefix('no KVM: ')}" in run.output
        assert "pass --accel=tcg" in run.output
        assert "Traceback" not in run.output
        run.check_nothing_left()
