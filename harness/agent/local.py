"""The agent as a program on this computer, over its standard streams: the local lab, and the way tests start it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType

from harness.agent.client import Agent, connect
from harness.agent.pack import pack
from harness.errors import HarnessError, TransportFailed

STOP_S = 5.0
STDERR_SHOWN_BYTES = 2000


class LocalAgent:
    """A context manager: starts ``agent.pyz --stdio``, gives an ``Agent``, and ends the program.

    Args:
        prefix: what stands before the interpreter, e.g. ("sudo", "-n").
        python: the interpreter, 3.9 or later.
        options: further options of the agent.
    """

    def __init__(
        self,
        *,
        prefix: Sequence[str] = (),
        python: str = sys.executable,
        options: Sequence[str] = (),
        deadline_s: float = 30.0,
    ) -> None:
        self._prefix = tuple(prefix)
        self._python = python
        self._options = tuple(options)
        self._deadline_s = deadline_s
        self._program = tempfile.NamedTemporaryFile(prefix="sriov-agent-", suffix=".pyz")  # noqa: SIM115  # see _stop
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # see _stop
        self.process: subprocess.Popen[bytes] | None = None
        self.agent: Agent | None = None

    def __enter__(self) -> Agent:
        self._program.write(pack())
        self._program.flush()
        ours, theirs = socket.socketpair()
        argv = [*self._prefix, self._python, "-I", "-S", self._program.name, "--stdio", *self._options]
        try:
            with theirs:  # its copy only: the stream must end when the program does
                self.process = subprocess.Popen(
                    argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._stderr, start_new_session=True
                )
        except OSError as error:
            ours.close()
            raise TransportFailed("start the agent", on=" ".join(argv), got=str(error)) from None
        try:
            self.agent = connect(ours, name="local", deadline_s=self._deadline_s, on_eof=self._why)
        except BaseException:
            self._stop()
            raise
        return self.agent

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.agent is not None:
            self.agent.close()
        self._stop()

    def _stop(self) -> None:
        """It ends by itself when its input does; otherwise it is killed."""
        assert self.process is not None
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._program.close()
        self._stderr.close()

    def _why(self) -> HarnessError:
        """What the program left behind when its stream ended."""
        status: object = "still running"
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = f"exit status {self.process.wait(1)}"
        size = os.fstat(self._stderr.fileno()).st_size
        said = os.pread(self._stderr.fileno(), STDERR_SHOWN_BYTES, max(0, size - STDERR_SHOWN_BYTES))
        return TransportFailed(
            "talk to the agent",
            on=" ".join((*self._prefix, self._python)),
            got=f"{status}: {said.decode(errors='replace')}",
        )
