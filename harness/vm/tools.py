"""Programs that builds call: found, run with their output in a log, and never waited for in vain."""

from __future__ import annotations

import errno
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.errors import HarnessError, HostLacks
from harness.vm.cache import Progress, silent

SILENCE_S = 180.0
"""A build step that says nothing for this long hangs."""

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not in the PATH of ordinary users on Debian


def find(program: str, package: str) -> str:
    """The path of a program, or HostLacks with the line that installs it."""
    path = shutil.which(program) or shutil.which(program, path=os.pathsep.join(_SBIN))
    if path is None:
        raise HostLacks(f"find the program {program}", got="not installed", fix=f"sudo apt install {package}")
    return path


@dataclass(frozen=True, slots=True)
class Tree:
    """Debian packages unpacked into a folder, whose programs run through the folder's own loader and libraries.

    So they run on any Linux, whatever its libc; nothing is installed and no root is needed.
    """

    root: Path

    @property
    def library_dirs(self) -> tuple[Path, ...]:
        return (self.root / "usr/lib/x86_64-linux-gnu", self.root / "usr/lib")

    def argv(self, program: str, *, name: str = "") -> tuple[str, ...]:
        """What stands before a program's own arguments.

        Args:
            program: its path below the root ("usr/bin/kmod").
            name: what it shall take itself for, if it has several names ("depmod").
        """
        loader = self.root / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
        path = ":".join(map(str, self.library_dirs))
        named = ("--argv0", name) if name else ()
        return (str(loader), "--library-path", path, *named, str(self.root / program))


def run(
    argv: Sequence[str],
    *,
    tried: str,
    log: Path,
    within_s: float,
    progress: Progress = silent,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | None = None,
    room: Path | None = None,
) -> str:
    """Run a program to its end, its output line by line to ``progress`` and into ``log`` (appended).

    Args:
        tried: what it is for, as a phrase; stands in the error.
        within_s: seconds until it is ended. Saying nothing for 180 s ends it too.
        environment: variables to add.
        room: where it writes, named when the disk is full.

    Returns:
        Its output, the last 64 KiB.

    Raises:
        HarnessError: it failed, fell silent or took too long; the message has its last lines.
        OSError: ENOSPC, when that is what it failed with.
    """
    # The child ends with us, even by SIGKILL: a build that nobody waits for would go on for minutes.
    command = [find("setpriv", "util-linux"), "--pdeathsig", "TERM", *argv]
    with log.open("a", encoding="utf-8") as sink:
        print("$", *argv, file=sink, flush=True)
        process = subprocess.Popen(
            command,
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            output, ended = _follow(process, sink, progress, within_s)
        finally:
            _end(process)
    if ended:
        raise HarnessError(tried, on=argv[0], got=f"{ended}; its last lines:\n{tail(output)}", fix="run it again")
    if process.returncode:
        if "No space left on device" in output or "Disk quota exceeded" in output:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(room or cwd or log.parent))
        raise HarnessError(tried, on=argv[0], got=f"exit status {process.returncode}; its last lines:\n{tail(output)}")
    return output


def tail(text: str, lines: int = 12) -> str:
    """The last lines of a program's output, indented to stand in a message."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-lines:])


def _follow(process: subprocess.Popen[str], sink: IO[str], progress: Progress, within_s: float) -> tuple[str, str]:
    """Copy the output until it ends; returns it, and why we stopped listening ("" at its own end)."""
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    output = ""
    deadline = time.monotonic() + within_s
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return output, f"not done after {within_s:g} s"
            line = lines.get(timeout=min(SILENCE_S, left))
            if line is None:
                process.wait(timeout=SILENCE_S)
                return output, ""
            sink.write(line)
            sink.flush()
            output = (output + line)[-(1 << 16) :]
            if line.strip():
                progress(re.sub(r"^[IW]: ", "", line.strip()).partition(" in shell: ")[0])
    except (queue.Empty, subprocess.TimeoutExpired):
        late = time.monotonic() >= deadline
        return output, f"not done after {within_s:g} s" if late else f"silent for {SILENCE_S:g} s"


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with suppress(ValueError, OSError):
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    """Make sure that the program and what it started are gone: asked first, so that it can tidy up its own files."""
    if process.poll() is None:
        _kill(process, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            _kill(process, signal.SIGKILL)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _kill(process: subprocess.Popen[str], how: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, how)
