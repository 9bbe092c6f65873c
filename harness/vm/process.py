"""One QEMU process: started, watched, ended. Nothing of it outlives the process that started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harness.errors import HostLacks

LAST_WORDS_BYTES = 4000


class QemuProcess:
    """Owns the process and its standard error.

    ``setpriv --pdeathsig`` (util-linux) makes the kernel kill QEMU when we die, by whatever signal. The kernel ties
    that to the *thread* that started it (prctl(2), PR_SET_PDEATHSIG), so a machine may be started from the main
    thread only; ``keep`` starts one that is meant to stay. A shell in between looks whether we are still there: who is
    killed before the prctl is called would leave QEMU behind.

    Args:
        on_exit: called in a thread of its own, with this object, when the process has ended.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        stderr: Path,
        pass_fds: Sequence[int] = (),
        keep: bool = False,
        on_exit: Callable[[QemuProcess], None] = lambda _process: None,
    ) -> None:
        if not keep and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a machine must be started from the main thread: it dies with the thread that starts it")
        self.argv = tuple(argv)
        self._stderr = stderr
        self._on_exit = on_exit
        with stderr.open("wb") as errors:
            self._process = subprocess.Popen(
                [*_wrapper(keep), *argv],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=tuple(pass_fds),
                env=dict(environment),
                start_new_session=True,  # Ctrl-C is ours to handle: QEMU must not take it as its own
            )
        self._watcher = threading.Thread(target=self._watch, name=f"qemu-{self.pid}-watch", daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process.poll()

    def last_words(self) -> str:
        """What QEMU wrote to standard error, its end."""
        try:
            return self._stderr.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""

    def wait(self, within_s: float) -> bool:
        """True when it ended in time."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it now, with whatever it has started; returns when it is gone."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session, so a group, of its own
        self._process.wait()
        if self._watcher is not threading.current_thread():
            self._watcher.join()

    def _watch(self) -> None:
        self._process.wait()
        self._on_exit(self)


def _wrapper(keep: bool) -> list[str]:
    if keep:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise HostLacks("start QEMU so that it dies with us", got="no setpriv", fix="install util-linux")
    return [setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", f'[ $PPID = {os.getpid()} ] && exec "$@"', "qemu"]


def exit_in_words(status: int) -> str:
    """ "exit status 1", "killed by SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    named = {number.value: number.name for number in signal.Signals}  # most real-time signals have no name
    return f"killed by {named.get(-status, f'signal {-status}')}"
