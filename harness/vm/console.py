"""The serial console: drained without pause, kept in a file, watched for a panic, and driven by pexpect.

The console is evidence, and the way into a foreign image. It is not the protocol: that is the agent.
"""

from __future__ import annotations

import queue
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
from pexpect.spawnbase import SpawnBase

from harness.errors import DeadlineExceeded, GuestLost, UsageError

# What a Linux kernel says when nothing that follows can be trusted (kernel/panic.c, 6.12).
PANIC = re.compile(rb"Kernel panic - not syncing: ?([^\r\n]{0,200})[\r\n]")
LINE_LIMIT_BYTES = 4096
SEARCH_WINDOW_BYTES = 16384
UNBOUNDED = re.compile(r"(?<!\\)(?:\.|\])(?:\*|\+|\{\d*,\})\??$")


class Console:
    """Our end of the serial line.

    Args:
        connection: our end of the socket pair.
        log: every byte goes there.
        on_panic: called once, with the kernel's reason.
    """

    def __init__(self, connection: socket.socket, log: Path, on_panic: Callable[[str], None]) -> None:
        self._connection = connection
        self._log = log
        self._on_panic = on_panic
        self._chunks: queue.Queue[bytes] = queue.Queue()
        self._spawn = _QueueSpawn(self._chunks, connection)
        self._drain = threading.Thread(target=self._run, name="console", daemon=True)
        self._drain.start()

    def expect(self, pattern: str, *, within_s: float) -> re.Match[bytes]:
        """Wait for ``pattern`` (a bounded regular expression) and consume the text up to its end.

        Raises:
            UsageError: the pattern ends in something unbounded, which would match any amount of what happens to be there.
            DeadlineExceeded: not seen in time; the message has the last lines.
            GuestLost: the console was closed, so the machine is gone.
        """
        if UNBOUNDED.search(pattern):
            raise UsageError(
                f"console pattern {pattern!r} has no end", fix="end it with what must follow, or a bound {0,80}"
            )
        try:
            self._spawn.expect(pattern.encode(), timeout=within_s)
        except pexpect.TIMEOUT:
            got = self.tail(5)
            raise DeadlineExceeded(
                f"waited {within_s:g} s for {pattern!r} on the console", got=f"last lines:\n{got}"
            ) from None
        except pexpect.EOF:
            raise GuestLost("wait on the console", got=f"it closed; last lines:\n{self.tail(5)}") from None
        match = self._spawn.match
        assert isinstance(match, re.Match)
        return match

    def send(self, text: str) -> None:
        """Type ``text``; end a line with ``\\r``."""
        self._connection.sendall(text.encode())

    def text(self) -> str:
        """Everything since the start."""
        try:
            return self._log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def tail(self, lines: int) -> str:
        return "\n".join(self.text().splitlines()[-lines:])

    def close(self) -> None:
        """Stop reading; what was written stays in the file."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # QEMU is gone already
        if threading.current_thread() is not self._drain:
            self._drain.join(timeout=2.0)
        self._connection.close()

    def _run(self) -> None:
        line = b""
        with self._log.open("ab", buffering=0) as log:
            while chunk := self._receive():
                log.write(chunk)
                self._chunks.put(chunk)
                line = (line + chunk)[-2 * LINE_LIMIT_BYTES :]
                if found := PANIC.search(line):
                    self._on_panic(found[1].decode(errors="replace").strip())
                    line = b""
                line = line.rpartition(b"\n")[2][-LINE_LIMIT_BYTES:]
        self._chunks.put(b"")

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(65536)
        except OSError:
            return b""


class _QueueSpawn(SpawnBase):  # type: ignore[misc]  # pexpect ships no types
    """pexpect over what the draining thread has read."""

    def __init__(self, chunks: queue.Queue[bytes], connection: socket.socket) -> None:
        super().__init__(timeout=30, maxread=65536, searchwindowsize=SEARCH_WINDOW_BYTES)
        self._chunks = chunks
        self._connection = connection
        self._ended = False

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> Any:  # noqa: ARG002  # pexpect's signature
        if self._ended:
            raise pexpect.EOF("console closed")
        deadline = time.monotonic() + (self.timeout if timeout in (-1, None) else timeout)
        try:
            chunk = self._chunks.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise pexpect.TIMEOUT("nothing on the console") from None
        if not chunk:
            self._ended = True
            raise pexpect.EOF("console closed")
        return chunk
