"""Run folders: who owns one, what is left of a dead run, and that nobody else's process is ever ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HostLacks
from harness.vm import rundir
from harness.vm.rundir import KEPT, OWNER, QEMU, ProcessId, RunFolder, sweep
from harness.waiting import wait_until


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rundir, "runs_folder", lambda: tmp_path / "runs")
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a QEMU."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def dead() -> ProcessId:
    """A process that was, with a number that is free again."""
    with subprocess.Popen(["sleep", "60"]) as process:
        it = ProcessId.of(process.pid)
        process.kill()
    assert it is not None
    return it


def run_of(runs: Path, owner: ProcessId | None, machine: ProcessId | None = None, *, kept: bool = False) -> Path:
    """A run's folder with one machine in it, as a run leaves it."""
    folder = runs / "1-abc"
    (folder / "0001").mkdir(parents=True)
    if owner is not None:
        owner.write(folder / OWNER)
    if machine is not None:
        machine.write(folder / "0001" / QEMU)
    if kept:
        (folder / "0001" / KEPT).write_text("test_x\n")
    return folder


def me() -> ProcessId:
    it = ProcessId.of(os.getpid())
    assert it is not None
    return it


def test_a_process_is_alive_until_it_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    it = ProcessId.of(sleeper.pid)
    assert it is not None
    assert it.alive()
    sleeper.kill()
    # Not reaped yet, so a zombie: ended all the same.
    wait_until("it to be a zombie", lambda: not it.alive(), within_s=5)
    assert sleeper.returncode is None


def test_a_later_process_of_the_same_number_is_another_one() -> None:
    assert not ProcessId(me().pid, me().start - 1).alive()


def test_a_process_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    me().write(tmp_path / "pid")
    assert ProcessId.read(tmp_path / "pid") == me()


@pytest.mark.parametrize("text", ["", "12", "12 x", "1 2 3", "\xff"])
def test_garbage_is_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text, encoding="latin-1")
    assert ProcessId.read(tmp_path / "pid") is None
    assert ProcessId.read(tmp_path / "missing") is None


def test_what_a_dead_run_left_is_removed_and_its_machine_ended(runs: Path, sleeper: subprocess.Popen[bytes]) -> None:
    folder = run_of(runs, dead(), ProcessId.of(sleeper.pid))
    assert sweep(runs) == 1
    assert not folder.exists()
    assert sleeper.wait(5) == -9


def test_a_run_at_work_is_left_alone(runs: Path, sleeper: subprocess.Popen[bytes]) -> None:
    folder = run_of(runs, me(), ProcessId.of(sleeper.pid))
    assert sweep(runs) == 0
    assert folder.exists()
    assert sleeper.poll() is None


def test_a_run_without_an_owner_is_just_being_made(runs: Path) -> None:
    folder = run_of(runs, None)
    assert sweep(runs) == 0
    assert folder.exists()


def test_a_kept_machine_stays_for_as_long_as_it_runs(runs: Path, sleeper: subprocess.Popen[bytes]) -> None:
    folder = run_of(runs, dead(), ProcessId.of(sleeper.pid), kept=True)
    assert sweep(runs) == 0
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()
    assert sweep(runs) == 1
    assert not folder.exists()


def test_a_process_that_took_over_the_machines_number_is_not_ended(
    runs: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    real = ProcessId.of(sleeper.pid)
    assert real is not None
    run_of(runs, dead(), ProcessId(real.pid, real.start - 1))
    assert sweep(runs) == 1
    assert sleeper.poll() is None


def test_a_run_takes_its_folder_with_it_and_sweeps_when_it_begins(runs: Path) -> None:
    left = run_of(runs, dead())
    with RunFolder() as run:
        assert run.path.parent == runs
        assert ProcessId.read(run.path / OWNER) == me()
        assert not left.exists()
    assert list(runs.iterdir()) == []


def test_a_run_with_a_kept_machine_leaves_its_folder(runs: Path) -> None:
    with RunFolder() as run:
        (run.path / "0001").mkdir()
        (run.path / "0001" / KEPT).write_text("test_x\n")
    assert run.path.exists()


def test_a_folder_of_somebody_else_is_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In /tmp anybody may have made it first, and could watch and change what we write."""
    monkeypatch.setattr(os, "getuid", lambda: runs.stat().st_uid + 1)
    with pytest.raises(HostLacks, match=r"make a run's folder \(.*/runs\): it belongs to somebody else\n.*TMPDIR"):
        RunFolder()


def test_no_room_for_a_folder_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(rundir, "runs_folder", lambda: tmp_path / "file" / "runs")
    with pytest.raises(HostLacks, match=r"make a run's folder .*: Not a directory\n.*TMPDIR"):
        RunFolder()
