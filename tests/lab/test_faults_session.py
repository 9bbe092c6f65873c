"""Runs that are killed, interrupted or lose a machine: no process is left, and what is shown are words."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from fault_kit import PROMISE_S, SCRIPTS, Program, program, pytest_in

from harness.lab.emulated import EmulatedLab
from harness.vm.rundir import ProcessId, sweep
from harness.waiting import wait_until

WAITS = """
@pytest.mark.unplugged
@pytest.mark.parametrize("name", ["one", "two"])
def test_waits(machine, name):
    Path(name).write_text(f"{os.getpid()} {machine.vm.pid}")
    machine.vm.agent.run(["sleep", "60"], deadline_s=60)
"""
LOSES_ITS_MACHINE = """
@pytest.mark.unplugged
def test_loses_its_machine(machine):
    os.kill(machine.vm.pid, signal.SIGKILL)
    machine.vm.agent.run(["true"])
"""


@pytest.fixture(autouse=True)
def _frozen(lab: EmulatedLab) -> None:
    """What the runs below start their machines from."""
    lab.template()


def running(run: Program, *names: str) -> list[tuple[int, ProcessId]]:
    """The pytest process and the machine of each of these tests, once they wait."""
    run.wait_for(*names)
    found = []
    for name in names:
        worker, machine = map(int, wait_until(name, lambda: (run.folder / name).read_text(), within_s=5).split())  # noqa: B023
        it = ProcessId.of(machine)
        assert it is not None
        found.append((worker, it))
    return found


def test_a_killed_pytest_leaves_no_machine_and_the_next_run_its_folder_neither(tmp_path: Path) -> None:
    with pytest_in(tmp_path, WAITS, "-k", "one") as run:
        running(run, "one")
        assert len(run.machines()) == 1
        run.signal(signal.SIGKILL)
        run.check_nothing_left()
        assert list(run.runs.iterdir()), "nobody was there to remove it"
        assert sweep(run.runs) == 1
        assert not list(run.runs.iterdir())


def test_a_killed_worker_and_a_killed_controller_leave_no_machine(tmp_path: Path) -> None:
    with pytest_in(tmp_path, WAITS, "-n", "2") as run:
        (first, its_machine), (_, other) = running(run, "one", "two")
        os.kill(first, signal.SIGKILL)
        wait_until("the killed worker's machine to be gone", lambda: not its_machine.alive(), within_s=PROMISE_S)
        assert other.alive(), "the other worker goes on"
        run.signal(signal.SIGKILL)
        run.check_nothing_left()


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_in_order_and_leaves_nothing(tmp_path: Path, workers: int) -> None:
    names = ["one", "two"][: workers or 1]
    with pytest_in(tmp_path, WAITS, "-n", str(workers)) as run:
        running(run, *names)
        run.ctrl_c()
        # Its machines are ended in half a second; xdist's own goodbyes take 1 s, or 5 when the computer is busy.
        assert run.end(within_s=20) == pytest.ExitCode.INTERRUPTED, run.output
        run.check_nothing_left()
        assert not list(run.runs.iterdir()), "the run's folder"
        assert "KeyboardInterrupt" in run.output
        assert "INTERNALERROR" not in run.output


def test_a_shell_whose_terminal_is_closed_leaves_no_machine(tmp_path: Path) -> None:
    with program(tmp_path, str(SCRIPTS / "sriov-harness"), "lab", "shell", "--accel=tcg") as run:
        run.wait_to_say("(Ctrl-] leaves)")
        assert len(run.machines()) == 1
        run.signal(signal.SIGHUP)
        run.check_nothing_left()


def test_a_lost_machine_is_shown_in_words_with_the_line_of_the_test(tmp_path: Path) -> None:
    with pytest_in(tmp_path, LOSES_ITS_MACHINE) as run:
        assert run.end() == pytest.ExitCode.TESTS_FAILED
        said = run.output
        assert "GuestLost: use the machine (test_loses_its_machine): QEMU ended (killed by SIGKILL)" in said
        assert "test_it.py:" in said
        assert 'machine.vm.agent.run(["true"])' in said
        assert "Traceback" not in said
        assert "channel.py" not in said
        evidence = {path.name.partition(".")[0] for path in (tmp_path / "build/evidence").rglob("*.*")}
        assert {"run", "qmp", "dmesg"} <= evidence
        run.check_nothing_left()
