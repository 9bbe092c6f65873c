"""Machines that were left up with ``--keep``: found again by their folders, entered by their console."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from harness.errors import unknown_name
from harness.vm.rundir import KEPT, QEMU, ProcessId, runs_folder


@dataclass(frozen=True, slots=True)
class KeptMachine:
    """A machine that runs without us.

    Attributes:
        name: short, for the command line.
        about: what it was started for.
    """

    name: str
    about: str
    folder: Path
    process: ProcessId

    @property
    def console(self) -> Path:
        return self.folder / "console.sock"


def mark_kept(folder: Path, about: str) -> KeptMachine:
    """Say that the machine in ``folder`` is meant to stay."""
    (folder / KEPT).write_text(about + "\n")
    machine = _read(folder / KEPT)
    assert machine is not None
    return machine


def kept_machines() -> tuple[KeptMachine, ...]:
    """Those that still run, oldest first."""
    runs = runs_folder()
    marks = sorted(runs.glob(f"*/**/{KEPT}"), key=lambda mark: mark.stat().st_mtime) if runs.is_dir() else []
    return tuple(machine for mark in marks if (machine := _read(mark)) is not None and machine.process.alive())


def find_kept(name: str) -> KeptMachine:
    """One of them by name, or UsageError with the names that there are."""
    machines = {machine.name: machine for machine in kept_machines()}
    if name not in machines:
        raise unknown_name("kept machine", name, tuple(machines))
    return machines[name]


def stop_kept(machine: KeptMachine) -> None:
    """End it and remove its folder."""
    if machine.process.alive():
        os.kill(machine.process.pid, signal.SIGKILL)
    shutil.rmtree(machine.folder, ignore_errors=True)


def _read(mark: Path) -> KeptMachine | None:
    process = ProcessId.read(mark.with_name(QEMU))
    if process is None:
        return None
    folder = mark.parent
    run = folder.parent.name.partition("-")[0]
    return KeptMachine(f"{run}-{folder.name}", mark.read_text().strip(), folder, process)
