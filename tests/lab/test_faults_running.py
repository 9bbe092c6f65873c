"""Machines that are lost while a test uses them: every wait ends, with the reason, and what is left can be ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_kit import PROMISE_S, linked_cache, seconds_until

from harness.agent.channel import GRACE_S
from harness.errors import DeadlineExceeded, GuestLost, TransportFailed, UsageError
from harness.lab import Request, open_lab
from harness.lab.emulated import EmulatedLab, EmulatedMachine
from harness.vm.rundir import ProcessId

SOON_S = 0.3  # after a call has begun
SLEEP = ["sleep", "60"]


@pytest.fixture
def machine(lab: EmulatedLab) -> Iterator[EmulatedMachine]:
    """A machine to be lost; its end must be quick and complete, whatever was done to it."""
    with lab.machine("m", plugged=False) as started:
        process = ProcessId.of(started.vm.pid)
        yield started
        start = time.monotonic()
    assert time.monotonic() - start < PROMISE_S, "it was not ended in time"
    assert process is not None
    assert not process.alive()


class Fault:
    """Something done a moment after a call has begun; ``seconds_ago`` counts from when it was done."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self.done_at = float("inf")
        threading.Timer(SOON_S, self._do).start()

    def _do(self) -> None:
        self.done_at = time.monotonic()
        self._action()

    def seconds_ago(self) -> float:
        return time.monotonic() - self.done_at


def check_lost(machine: EmulatedMachine, fault: Fault, told: str) -> None:
    """The waiting call ends in time, and everything that is asked afterwards at once: all with the same reason."""
    seconds_until(GuestLost, lambda: machine.vm.agent.run(SLEEP, deadline_s=60), match=told)
    assert 0 <= fault.seconds_ago() < PROMISE_S
    asked: dict[str, Callable[[], object]] = {
        "the agent": lambda: machine.vm.agent.run(SLEEP, deadline_s=60),
        "QMP": lambda: machine.vm.qmp.execute("query-status", within_s=30),
        "an event": lambda: machine.vm.qmp.wait_event("NEVER", within_s=30),
        "whether it is alive": machine.vm.check_alive,
        "the endpoint": machine.endpoint.plug,
    }
    for what, ask in asked.items():
        assert seconds_until(GuestLost, ask, match=told) < 0.5, what


def test_qemu_killed_during_a_call(machine: EmulatedMachine) -> None:
    fault = Fault(lambda: os.kill(machine.vm.pid, signal.SIGKILL))
    check_lost(machine, fault, r"use the machine \(m\): QEMU ended \(killed by SIGKILL\)")
    assert seconds_until(GuestLost, lambda: machine.vm.console.expect("never", within_s=30), match="SIGKILL") < 0.5
    assert "SIGKILL" in machine.evidence()["dmesg.txt"], "evidence says why it could not be had"


def test_a_panic_during_a_call(machine: EmulatedMachine) -> None:
    crash = ["sh", "-c", f"sleep {SOON_S}; echo c >/proc/sysrq-trigger"]
    told = r"its kernel panicked: sysrq triggered crash"
    assert seconds_until(GuestLost, lambda: machine.vm.agent.run(crash, deadline_s=60), match=told) < SOON_S + PROMISE_S
    assert seconds_until(GuestLost, machine.vm.check_alive, match=told) < 0.5
    assert "sysrq triggered crash" in machine.evidence()["console.log"]


def test_a_guest_that_switches_itself_off_during_a_call(machine: EmulatedMachine) -> None:
    fault = Fault(lambda: machine.vm.qmp.execute("system_reset"))  # with -no-reboot, a reset is an end
    check_lost(machine, fault, r"QEMU ended \(exit status 0\)")


def test_a_guest_that_hangs_ends_calls_at_their_deadlines(machine: EmulatedMachine) -> None:
    """A hang has no event to notice. Calls end with what was waited for, and nothing is asked twice for evidence."""
    machine.vm.qmp.execute("stop")
    check_silent(machine)
    start = time.monotonic()
    evidence, spaces = machine.evidence(), machine.config_spaces()
    assert time.monotonic() - start < 1 + GRACE_S + 0.5, "a silent machine was asked more than once"
    assert "agent silent" in evidence["dmesg.txt"]
    assert not spaces


def test_a_qemu_that_hangs_ends_calls_at_their_deadlines_and_is_ended(machine: EmulatedMachine) -> None:
    """SIGSTOP: it answers nobody, and cannot end by itself."""
    os.kill(machine.vm.pid, signal.SIGSTOP)
    check_silent(machine)
    told = "waited 0.5 s for the answer to QMP query-status: QEMU said nothing"
    took = seconds_until(DeadlineExceeded, lambda: machine.vm.qmp.execute("query-status", within_s=0.5), match=told)
    assert took < 1


def check_silent(machine: EmulatedMachine) -> None:
    told = rf"agent: ping \(m\): agent silent for 0.2 s and {GRACE_S:g} s of grace"
    took = seconds_until(DeadlineExceeded, lambda: machine.vm.agent.call("ping", deadline_s=0.2), match=told)
    assert took < 0.2 + PROMISE_S


def test_the_agent_killed_during_a_call(machine: EmulatedMachine) -> None:
    """The port stays open and QEMU is well: the machine's init tells."""
    kill = ["kill", "-9", str(machine.vm.agent.machine.pid)]
    told = r"talk to the agent \(m\): it ended with exit status 137"
    assert seconds_until(TransportFailed, lambda: machine.vm.agent.run(kill, deadline_s=60), match=told) < PROMISE_S
    assert seconds_until(TransportFailed, lambda: machine.vm.agent.run(SLEEP, deadline_s=60), match=told) < 0.5
    assert machine.vm.qmp.execute("query-status")["status"] == "running"
    machine.vm.check_alive()


def test_vf_bars_lie_where_every_qemu_reaches_them(lab: EmulatedLab) -> None:
    """q35 puts them below 4 GiB here; above, QEMU before 10.0.13 loses accesses to them silently."""
    with lab.machine("m") as machine:
        apertures = machine.endpoint.pf.vf_apertures()
    assert sorted(apertures) == [bar.index for bar in lab.profile.vf.bars]
    assert max(place.end for place in apertures.values()) < 1 << 32


def test_what_a_machine_runs_from_cannot_be_removed(lab: EmulatedLab, tmp_path: Path) -> None:
    lab.template()
    cache = linked_cache(lab._cache, tmp_path / "cache")
    linked = open_lab(Request(accelerator="tcg"), cache, tmp_path, pytest.fail)
    files = linked.template().files
    assert all(file.is_relative_to(cache.root) for file in files), "everything is from this cache"
    entries = [entry for entry in cache.entries() if any(file.is_relative_to(entry.path) for file in files)]
    assert sorted(entry.manifest.kind for entry in entries) == ["image", "initrd", "kernel", "runtime", "template"]
    with linked.machine("m", plugged=False) as machine:
        for entry in entries:
            with pytest.raises(UsageError, match=f"{entry.label}: it is in use by pid {os.getpid()}"):
                cache.remove(entry)
        machine.vm.agent.call("ping")
    for entry in entries:
        cache.remove(entry)
        assert not entry.path.exists()
