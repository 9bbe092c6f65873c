"""Programs: started without a shell, in a process group of their own, streamed, and killed with that group."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading

from harness.agent.remote import verbs
from harness.agent.remote.calls import Call, Wakeup, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_BYTES = 1 << 16
LOOK_S = 0.01  # for the end of a program, where the kernel has no pidfd


def run(call: Call) -> verbs.Result:
    """``{argv, cwd?, env?}`` + body as standard input → stream frames "stdout" and "stderr", then ``status``.

    The status is the exit status, or minus the number of the signal that ended it.

    ``env`` is added to the agent's environment. The call ends with the program: a grandchild that still holds the pipes
    is left alone and not waited for. At the deadline and on cancel the whole process group is killed.
    """
    argv = _strings(call, "argv")
    if not argv:
        raise usage("argv is empty")
    call.at(f"starting {argv[0]}")
    child = subprocess.Popen(
        argv,
        cwd=call.text("cwd") if "cwd" in call.args else None,
        env=_environment(call),
        stdin=subprocess.PIPE if call.body else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    call.at(f"running {argv_text(call)}")
    return Running(call, child).finish()


def argv_text(call: Call) -> str:
    """The command as a person writes it, cut to a line or two."""
    return " ".join(call.args["argv"])[:500]


def _strings(call: Call, name: str) -> list[str]:
    value = call.args.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise usage(f"{call.verb} needs {name!r}, a list of strings; it got {value!r:.100}")
    return value


def _environment(call: Call) -> dict[str, str]:
    added = call.args.get("env", {})
    names = added.items() if isinstance(added, dict) else [("", None)]
    if not all(
        name and "=" not in name and isinstance(value, str) and "\0" not in name + value for name, value in names
    ):
        raise usage(f"{call.verb} needs 'env', an object of strings; it got {added!r:.100}")
    return {**os.environ, **added}


class Running:
    """A started program with its pipes."""

    def __init__(self, call: Call, child: subprocess.Popen[bytes]) -> None:
        self._call = call
        self._child = child
        self._input = memoryview(call.body)
        self._reaping = threading.Lock()  # between killing the group and giving its number back to the kernel
        self._poll = select.poll()
        self._outputs: dict[int, str] = {}
        for pipe, name in ((child.stdout, "stdout"), (child.stderr, "stderr")):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._outputs[pipe.fileno()] = name
                self._poll.register(pipe.fileno(), select.POLLIN)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            self._poll.register(child.stdin.fileno(), select.POLLOUT)

    def finish(self) -> verbs.Result:
        """Carry bytes until the program ends."""
        call = self._call
        wakeup = Wakeup(call)
        ended = _pidfd(self._child.pid)
        self._poll.register(wakeup.fd, select.POLLIN)
        if ended >= 0:
            self._poll.register(ended, select.POLLIN)
        call.on_end(self._kill)
        try:
            while self._running():
                events = self._poll.poll(None if ended >= 0 else LOOK_S * 1000)
                for fd, _ in events:
                    self._serve(fd)
                if any(fd == wakeup.fd for fd, _ in events):
                    self._poll.unregister(wakeup.fd)
                    self._kill()
                    call.at(
                        f"running {argv_text(call)}, though its process group (pid {self._child.pid}) was sent SIGKILL"
                    )
            call.at(f"running {argv_text(call)}")
            for fd in list(self._outputs):
                self._drain(fd)
            call.check()
        finally:
            call.off_end(self._kill)
            self._kill()  # only when an exception has left it running
            wakeup.close()
            if ended >= 0:
                os.close(ended)
            for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
                if pipe is not None:
                    pipe.close()
        return {"status": self._child.returncode}

    def _running(self) -> bool:
        with self._reaping:
            return self._child.poll() is None

    def _kill(self) -> None:
        """Kill the group. Its number is ours until the child is reaped, so never afterwards."""
        with self._reaping:
            if self._child.returncode is None:
                try:
                    os.killpg(self._child.pid, signal.SIGKILL)
                except ProcessLookupError:  # it left the group to nobody
                    self._child.kill()
                except PermissionError:  # a set-user-id program
                    return

    def _serve(self, fd: int) -> None:
        if fd in self._outputs:
            self._carry(fd)
        elif self._child.stdin is not None and not self._child.stdin.closed and fd == self._child.stdin.fileno():
            self._feed(fd)

    def _feed(self, fd: int) -> None:
        try:
            self._input = self._input[os.write(fd, self._input) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want the rest
            self._input = self._input[:0]
        if not self._input and self._child.stdin is not None:
            self._poll.unregister(fd)
            self._child.stdin.close()

    def _carry(self, fd: int) -> bool:
        """Send what there is; False when there is nothing (more)."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._poll.unregister(fd)
            del self._outputs[fd]
            return False
        self._call.stream(self._outputs[fd], data)
        return True

    def _drain(self, fd: int) -> None:
        while fd in self._outputs and self._carry(fd):
            self._call.check()


def _pidfd(pid: int) -> int:
    """A descriptor that is readable when the program has ended; -1 where there is none (Linux before 5.3, musl)."""
    opener: Any = getattr(os, "pidfd_open", None)
    try:
        return int(opener(pid)) if opener else -1
    except OSError:
        return -1
