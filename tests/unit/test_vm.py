"""A machine whose QEMU is another program: the reason for its end is found, and nothing of it is left."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import DeadlineExceeded, GuestLost, HarnessError, HostLacks
from harness.vm import vm as vm_module
from harness.vm.console import Console
from harness.vm.launch import Launch
from harness.vm.machine import Qemu
from harness.vm.rundir import QEMU, ProcessId
from harness.vm.spec import Channels
from harness.vm.vm import Vm
from harness.waiting import wait_until

HANGS = "time.sleep(60)"


def launch(program: str) -> Launch:
    """A "QEMU" that is a line of Python; say(text) writes to its console, err(text) to its standard error."""

    def argv(channels: Channels) -> tuple[str, ...]:
        console = re.fullmatch(r"socket,fd=(\d+)", channels.console)
        says = f"say = lambda text: os.write({console[1] if console else 1}, text.encode())"
        before = f"import os, signal, sys, time; {says}; err = lambda text: os.write(2, text.encode())"
        return (sys.executable, "-S", "-E", "-c", f"{before}\n{program}")

    return Launch("m", Qemu(argv=("python3",), version=(11, 1, 3), origin="a program", key="k"), argv)


def process(folder: Path) -> ProcessId:
    it = ProcessId.read(folder / QEMU)
    assert it is not None
    return it


def lost(vm: Vm, within_s: float = 30) -> HarnessError:
    """Why the machine could not be greeted; it must be known at once."""
    start = time.monotonic()
    with pytest.raises(HarnessError) as reason:
        vm.greet(within_s=within_s)
    assert time.monotonic() - start < 2
    return reason.value


def test_a_qemu_that_ends_at_once_is_lost_with_its_last_words(tmp_path: Path) -> None:
    with Vm(launch("err('qemu: unsupported machine type'); sys.exit(1)"), tmp_path / "m") as vm:
        reason = lost(vm)
    assert isinstance(reason, GuestLost)
    assert "use the machine (m): QEMU ended (exit status 1), saying:\nqemu: unsupported machine type" in str(reason)


def test_the_consoles_last_lines_are_told_when_qemu_said_nothing(tmp_path: Path) -> None:
    with Vm(launch("say('rebooting\\r\\n')"), tmp_path / "m") as vm:
        assert "QEMU ended (exit status 0); the console's last lines:\nrebooting" in str(lost(vm))


@pytest.mark.parametrize("noticed_first", ["either", "the end"])
def test_a_panic_is_the_reason_though_qemu_ends_with_status_0_right_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noticed_first: str
) -> None:
    """With -no-reboot, it does; and nobody knows which of the two is noticed first."""
    if noticed_first == "the end":
        monkeypatch.setattr(Console, "_receive", after_the_end_of(tmp_path / "m"))
    words = "SRIOV-INIT FAILED: no /dev/vda\r\nKernel panic - not syncing: Attempted to kill init!\r\n"
    with Vm(launch(f"say({words!r})"), tmp_path / "m") as vm:
        reason = str(lost(vm))
    assert "its kernel panicked: Attempted to kill init!\nSRIOV-INIT FAILED: no /dev/vda" in reason


def after_the_end_of(folder: Path) -> Callable[[Console], bytes]:
    """A console that reads nothing before QEMU has ended."""

    def ended() -> bool:
        it = ProcessId.read(folder / QEMU)
        return it is not None and not it.alive()

    def receive(console: Console) -> bytes:
        wait_until("QEMU to have ended", ended, within_s=5)
        return at_once(console)

    at_once = Console._receive
    return receive


def test_a_panic_ends_the_wait_though_qemu_runs_on(tmp_path: Path) -> None:
    with Vm(launch(f"say('Kernel panic - not syncing: oops\\r\\n'); {HANGS}"), tmp_path / "m") as vm:
        assert "its kernel panicked: oops" in str(lost(vm))
    assert not process(tmp_path / "m").alive()


def test_a_qemu_that_never_speaks_is_lost_long_before_the_guests_own_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm_module, "QEMU_WITHIN_S", 0.3)
    with Vm(launch(HANGS), tmp_path / "m") as vm:
        assert "start the machine (m): QEMU runs, but said nothing on QMP within 0.3 s" in str(lost(vm, 120))


def test_one_that_hangs_is_ended_within_two_seconds(tmp_path: Path) -> None:
    vm = Vm(launch(f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {HANGS}"), tmp_path / "m")
    vm.__enter__()
    start = time.monotonic()
    vm.stop()
    assert time.monotonic() - start < 2
    assert not process(tmp_path / "m").alive()


def test_an_end_is_known_without_asking(tmp_path: Path) -> None:
    def known() -> str:
        try:
            vm.check_alive()
        except GuestLost as reason:
            return str(reason)
        return ""

    with Vm(launch("sys.exit(7)"), tmp_path / "m") as vm:
        assert "exit status 7" in wait_until("it to be known", known, within_s=2)


def test_an_error_carries_what_the_machine_said(tmp_path: Path) -> None:
    """The folder is gone when a person reads it."""
    words = "say('login:\\r\\n'); err('bad')"
    with Vm(launch(words), tmp_path / "m") as vm, pytest.raises(GuestLost) as raised, vm.evidence_for_errors():
        vm.greet(within_s=5)
    evidence = raised.value.evidence
    assert evidence["console.log"] == "login:\n"
    assert evidence["qemu.stderr"] == "bad"
    assert evidence["run.sh"].startswith("#!/bin/sh\n# m, QEMU 11.1.3\n")


def test_any_error_carries_it(tmp_path: Path) -> None:
    with Vm(launch(HANGS), tmp_path / "m") as vm, pytest.raises(AssertionError) as raised, vm.evidence_for_errors():
        raise AssertionError("the endpoint did not appear")
    assert "run.sh" in raised.value.evidence  # type: ignore[attr-defined]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostLacks, match=r"start the machine \(m\): Not a directory \(.*/file/m\)\n.*TMPDIR"):
        Vm(launch(HANGS), tmp_path / "file/m").__enter__()


def test_a_full_disk_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: ProcessId, path: Path) -> None:
        started.append(_self)
        raise OSError(28, "No space left on device", str(path))

    started: list[ProcessId] = []
    monkeypatch.setattr(ProcessId, "write", full)
    with pytest.raises(HostLacks, match="No space left on device"):
        Vm(launch(HANGS), tmp_path / "m").__enter__()
    assert not started[0].alive()


def test_one_to_be_kept_that_does_not_listen_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would not end it with us."""
    monkeypatch.setattr(vm_module, "QEMU_WITHIN_S", 0.3)
    with pytest.raises(DeadlineExceeded, match=r"QEMU to listen on .*/qmp\.sock"):
        Vm(launch(HANGS), tmp_path / "m", keep=True).__enter__()
    assert not process(tmp_path / "m").alive()


def test_a_folder_too_deep_for_sockets_is_told_before_qemu_is_started(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 50) / ("e" * 50)
    with pytest.raises(HostLacks, match=r"its sockets' names have \d+ bytes, and UNIX sockets 107 .*\n.*TMPDIR"):
        Vm(launch(HANGS), folder, named=True).__enter__()
    assert not (folder / QEMU).exists()


def test_one_to_be_kept_that_ends_is_lost_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(GuestLost, match=r"QEMU ended \(exit status 1\), saying:\nbad option"):
        Vm(launch("err('bad option'); sys.exit(1)"), tmp_path / "m", keep=True).__enter__()
