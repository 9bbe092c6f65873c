"""A user's project with tests of its own, run by a pytest of its own: what the tests of faults kill and look at."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.vm.cache import Cache
from harness.vm.entry import beside
from harness.vm.rundir import QEMU, ProcessId
from harness.waiting import wait_until

PROMISE_S = 2.0  # an error is told, and everything is gone, within this time of what went wrong
START_S = 3.0  # a Python with pytest and our plugin takes 0.6 s to start when nothing else runs
SCRIPTS = Path(sys.executable).parent


@dataclass(slots=True)
class Program:
    """A program that runs, or ran, with all that it started."""

    marker: str
    folder: Path
    temp: Path
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)

    @property
    def output(self) -> str:
        """Everything that it has said so far, on either stream."""
        return (self.folder / "output").read_text(errors="replace")

    @property
    def runs(self) -> Path:
        """Its folder of run folders."""
        return self.temp / f"sriov-harness-{os.getuid()}"

    def end(self, within_s: float = 60) -> int:
        """Wait for its end; the exit status."""
        wait_until("it to end", lambda: self.process.poll() is not None, within_s=within_s)
        return self.process.returncode

    def signal(self, number: signal.Signals) -> None:
        """To it alone."""
        self.process.send_signal(number)

    def ctrl_c(self) -> None:
        """To it and everything at its terminal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for(self, *names: str) -> None:
        """Until its tests have made these files in the project."""
        there = lambda: all((self.folder / name).exists() for name in names)  # noqa: E731
        try:
            wait_until(f"{', '.join(names)} of\n{self.folder}", there, within_s=180, alive=self)
        except HarnessError as error:
            error.got += f"\n{self.output}"
            raise

    def wait_to_say(self, words: str) -> None:
        wait_until(f"it to say {words!r}", lambda: words in self.output, within_s=60, alive=self)

    def check_alive(self) -> None:
        assert self.process.poll() is None, f"it ended with status {self.process.returncode}:\n{self.output}"

    def machines(self) -> tuple[ProcessId, ...]:
        """The QEMUs that it has started and that run."""
        found = (ProcessId.read(record) for record in self.runs.rglob(QEMU))
        return tuple(machine for machine in found if machine is not None and machine.alive())

    def left(self) -> dict[int, str]:
        """Processes that it has started, at any remove, with their command lines."""
        return {
            pid: words for pid, words in marked(self.marker) if pid != self.process.pid or self.process.poll() is None
        }

    def check_nothing_left(self, within_s: float = PROMISE_S) -> None:
        wait_until("all of its processes to be gone", lambda: not self.left(), within_s=within_s, alive=_Show(self))


class _Show:
    """Puts what is left into the message of a wait that fails."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._until = time.monotonic() + PROMISE_S

    def check_alive(self) -> None:
        assert time.monotonic() < self._until, f"still there after {PROMISE_S:g} s: {self._program.left()}"


def marked(marker: str) -> Iterator[tuple[int, str]]:
    """Processes with this text in their environment, zombies left out."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "environ").read_bytes():
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended, or is a kernel's or another user's
            continue


@contextmanager
def program(folder: Path, *argv: str, **environment: str) -> Iterator[Program]:
    """Start a program in ``folder``, with a TMPDIR of its own; whatever it leaves is killed at the end.

    Its standard input is open and silent.
    """
    marker = f"sriov-fault-{secrets.token_hex(8)}"
    temp = Path(tempfile.mkdtemp(prefix="fault-", dir="/tmp"))  # short: it is in the names of sockets
    variables = {**os.environ, "TMPDIR": str(temp), "FAULT_MARKER": marker, **environment}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    started = Program(marker, folder, temp, process)
    try:
        yield started
    finally:
        process.kill()
        process.communicate()
        for pid, _ in marked(marker):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(temp)


@contextmanager
def pytest_in(folder: Path, tests: str, *options: str, **environment: str) -> Iterator[Program]:
    """pytest on a project whose only file of tests has this text."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(f"import os, signal\nfrom pathlib import Path\nimport pytest\n\n{tests}\n")
    words = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--accel=tcg", *options)
    with program(folder, *words, **environment) as started:
        yield started


def linked_cache(real: Cache, root: Path, *, without: str = "") -> Cache:
    """A cache whose entries are links to those of another: what is built or removed here is so here alone.

    Args:
        without: a kind that is left out.
    """
    for entry in real.entries():
        kind = entry.manifest.kind
        if kind != without:
            path = root / kind / entry.path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(entry.path)
            with suppress(FileNotFoundError):  # what was checked there needs no check here
                beside(path, "checked").write_text(beside(entry.path, "checked").read_text())
    return Cache(root)


def seconds_until(kind: type[Exception], body: Callable[[], object], *, match: str = "") -> float:
    """How long ``body`` takes to raise ``kind``, with a message that matches."""
    start = time.monotonic()
    with pytest.raises(kind, match=match):
        body()
    return time.monotonic() - start
