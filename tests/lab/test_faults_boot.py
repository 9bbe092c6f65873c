"""Machines that do not come up: the reason is known at once, and nothing of them is left."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fault_kit import PROMISE_S

from harness.errors import GuestLost, HostLacks
from harness.lab.emulated import EmulatedLab
from harness.vm.machine import Qemu
from harness.vm.rundir import ProcessId
from harness.vm.spec import MachineSpec
from harness.vm.template import Stack
from harness.vm.vm import Vm
from harness.waiting import wait_until

BOOT_WITHIN_S = 120.0
SPEC = MachineSpec(memory_mib=256)


class Panic:
    """Notes when the console had a panic on it."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self.seen_at = float("inf")
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        wait_until("a panic", lambda: "Kernel panic - not" in self._vm.console.text(), within_s=BOOT_WITHIN_S)
        self.seen_at = time.monotonic()


def why_it_does_not_come_up(stack: Stack, folder: Path, *words: str) -> str:
    """Boot, and give the reason that is told, within two seconds of the panic; QEMU must be gone."""
    with Vm(stack.launch(replace(SPEC, kernel_words=words), "m"), folder / "m") as vm:
        machine = ProcessId.of(vm.pid)
        panic = Panic(vm)
        with pytest.raises(GuestLost) as lost:
            vm.greet(within_s=BOOT_WITHIN_S)
        assert time.monotonic() - panic.seen_at < PROMISE_S or panic.seen_at == float("inf"), "told late"
        start = time.monotonic()
    assert time.monotonic() - start < PROMISE_S, "ended late"
    assert machine is not None
    assert not machine.alive()
    return str(lost.value)


def test_a_kernel_without_a_first_program_is_lost_by_its_panic(lab: EmulatedLab, tmp_path: Path) -> None:
    reason = why_it_does_not_come_up(lab.stack, tmp_path, "rdinit=/nonexistent")
    assert "use the machine (m): its kernel panicked: VFS: Unable to mount root fs" in reason


def test_a_damaged_root_disk_is_lost_by_what_init_said_before_the_panic(lab: EmulatedLab, tmp_path: Path) -> None:
    root = tmp_path / "root.squashfs"
    root.write_bytes(os.urandom(1 << 20))
    stack = replace(lab.stack, image=replace(lab.stack.image, root=root))
    reason = why_it_does_not_come_up(stack, tmp_path)
    assert "its kernel panicked: Attempted to kill init!" in reason
    assert "SRIOV-INIT FAILED: cannot mount /dev/vda as squashfs" in reason


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": (99, 9, 0)}, "QEMU ended (exit status 1), saying:\nqemu-system-x86_64: unsupported machine type"),
        ({"data_dirs": ()}, "QEMU ended (exit status 1), saying:"),
        ({"argv": ("/nonexistent/qemu",)}, "QEMU ended (exit status 127), saying:"),
        ({"argv": ("false",)}, "QEMU ended (exit status 1)"),
    ],
    ids=["another version", "no firmware", "no program", "not QEMU"],
)
def test_a_qemu_that_does_not_start_is_lost_with_its_words(
    lab: EmulatedLab, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    qemu: Qemu = replace(lab.stack.qemu, **change)  # type: ignore[arg-type]
    with refused_at_once(GuestLost) as lost, Vm(replace(lab.stack, qemu=qemu).launch(SPEC, "m"), tmp_path / "m") as vm:
        vm.greet(within_s=BOOT_WITHIN_S)
    assert told in str(lost[0])


def test_a_missing_disk_is_lost_with_qemus_words(lab: EmulatedLab, tmp_path: Path) -> None:
    stack = replace(lab.stack, image=replace(lab.stack.image, root=tmp_path / "nothing"))
    with refused_at_once(GuestLost) as lost, Vm(stack.launch(SPEC, "m"), tmp_path / "m") as vm:
        vm.greet(within_s=BOOT_WITHIN_S)
    assert "nothing: No such file or directory" in str(lost[0]) or "Could not open" in str(lost[0])


@contextmanager
def refused_at_once(kind: type[Exception]) -> Iterator[list[BaseException]]:
    """What was raised, within the time that we promise."""
    raised: list[BaseException] = []
    start = time.monotonic()
    with pytest.raises(kind) as error:
        yield raised
    raised.append(error.value)
    assert time.monotonic() - start < PROMISE_S


def test_a_device_that_qemu_does_not_have_is_refused_by_name(lab: EmulatedLab) -> None:
    with lab.machine("m", plugged=False) as machine:
        machine.endpoint._emulation = lab.profile.emulation.model_copy(update={"driver": "no-such-device"})
        with refused_at_once(HostLacks) as refused:
            machine.endpoint.plug()
    said = str(refused[0])
    assert said.startswith("plug the device no-such-device (QEMU ")
    assert "it has none of that name" in said
    assert "[emulation]" in said


def test_what_failed_to_boot_once_is_not_tried_again(
    lab: EmulatedLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each test of a run would wait for it otherwise, two minutes at worst."""
    qemu = replace(lab.stack.qemu, key="another", version=(99, 9, 0))
    chosen = replace(lab._chosen, stack=replace(lab.stack, qemu=qemu))
    booted: list[str] = []
    broken = EmulatedLab(lab.name, lab.profile, chosen, lab._cache, tmp_path, booted.append)
    for _ in range(3):
        with refused_at_once(GuestLost) as lost, broken.machine("m"):
            pass
        assert "unsupported machine type" in str(lost[0])
        assert lost[0].evidence["run.sh"].startswith("#!/bin/sh")  # type: ignore[attr-defined]
    assert len([line for line in booted if "booting" in line]) == 1
    assert not list(lab._cache.root.glob(f"template/.*.{os.getpid()}.tmp")), "something half-built is left"
