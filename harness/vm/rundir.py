"""The folder of one run, and what earlier runs left behind.

QEMU dies with us by the kernel's own hand (see process.py). What remains after a SIGKILL is a folder; the next run
removes it, and looks once more that no QEMU of it is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import HostLacks

OWNER = "owner"
KEPT = "kept"
QEMU = "qemu.pid"
OTHER = "set TMPDIR to a folder of yours, on a disk with room"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one of the same number.

    Attributes:
        start: field 22 of /proc/PID/stat, clock ticks since boot.
    """

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """None when there is no such process, or only its zombie."""
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            return None
        return None if words[0] in "ZX" else cls(pid, int(words[19]))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """From a file of ours; None when it holds nothing of the kind."""
        try:
            pid, start = path.read_text().split()
            return cls(int(pid), int(start))
        except (OSError, ValueError):
            return None

    def write(self, path: Path) -> None:
        path.write_text(f"{self.pid} {self.start}\n")

    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self


def runs_folder() -> Path:
    """Where the folders of this user's runs are. Short: names of UNIX sockets may have 107 bytes."""
    return Path(tempfile.gettempdir()) / f"sriov-harness-{os.getuid()}"


class RunFolder:
    """A new folder for this process; gone at the end, unless a machine in it was kept."""

    def __init__(self) -> None:
        runs = runs_folder()
        try:
            runs.mkdir(mode=0o700, exist_ok=True)
            if runs.stat().st_uid != os.getuid():
                raise HostLacks("make a run's folder", on=str(runs), got="it belongs to somebody else", fix=OTHER)
            sweep(runs)
            self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=runs))
            me = ProcessId.of(os.getpid())
            assert me is not None
            me.write(self.path / OWNER)
        except OSError as error:
            raise HostLacks("make a run's folder", on=str(runs), got=str(error.strerror), fix=OTHER) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not any(self.path.rglob(KEPT)):
            shutil.rmtree(self.path, ignore_errors=True)


def sweep(runs: Path) -> int:
    """Remove what dead runs left in ``runs``, and end their machines; how many folders there were."""
    dead = [folder for folder in runs.iterdir() if folder.is_dir() and _is_left_over(folder)]
    for folder in dead:
        for record in folder.rglob(QEMU):
            machine = ProcessId.read(record)
            if machine is not None and machine.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(machine.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    return len(dead)


def _is_left_over(folder: Path) -> bool:
    owner = ProcessId.read(folder / OWNER)
    if owner is None or owner.alive():
        return False  # just being made, or at work
    kept = [ProcessId.read(mark.with_name(QEMU)) for mark in folder.rglob(KEPT)]
    return not any(machine is not None and machine.alive() for machine in kept)
