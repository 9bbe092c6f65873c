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
from contextlib import suppress
from pathlib import Path
from typing import Any

import pexpect
from pexpect.spawnbase import SpawnBase

from harness.errors import DeadlineExceeded, GuestLost, HarnessError, UsageError

# What a Linux kernel says when nothing that follows can be trusted (kernel/panic.c, 6.12).
PANIC_WORDS = "Kernel panic - not syncing"
PANIC = re.compile(rb"Kernel panic - not syncing: ?([^\r\n]{0,200})[^\r\n]*[\r\n]")
LINE_LIMIT_BYTES = 4096
SEARCH_WINDOW_BYTES = 16384
# What ends in one of these matches however much there is just now: a quantifier without an upper bound (lazy,
# possessive or in a group as well), or "the end of what has come".
UNBOUNDED = re.compile(r"(?:[*+]|\{\d*,\})[?+]?\)*$|(?:\$|\\[zZ])\)*$")
ESCAPED_END = re.compile(r"(?<!\\)(?:\\\\)*\\[*+$]\??\)*$")


class Console:
    """Our end of the serial line.

    Args:
        connection: our end of the socket pair.
        log: every byte goes there.
        on_panic: called with the kernel's reason.
        why_lost: asked for the reason when the line is closed; the VM knows why its QEMU died.
    """

    def __init__(
        self,
        connection: socket.socket,
        log: Path,
        on_panic: Callable[[str], None],
        why_lost: Callable[[], HarnessError] | None = None,
    ) -> None:
        self._connection = connection
        self._log = log
        self._on_panic = on_panic
        self._why_lost = why_lost
        self._chunks: queue.Queue[bytes] = queue.Queue()
        self._spawn = _QueueSpawn(self._chunks, connection)
        self._drain = threading.Thread(target=self._run, name="console", daemon=True)
        self._drain.start()

    def expect(self, pattern: str, *, within_s: float) -> re.Match[bytes]:
        """Wait for ``pattern`` (a bounded regular expression) and consume the text up to its end.

        Raises:
            UsageError: the pattern ends in something unbounded, which would match whatever happens to be there.
            DeadlineExceeded: not seen in time; the message has the last lines.
            GuestLost: the line is closed, so the machine is gone; at once, and with its reason where that is known.
        """
        if UNBOUNDED.search(pattern) and not ESCAPED_END.search(pattern):
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
            if self._why_lost is not None:
                raise self._why_lost() from None
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

    def drained(self, within_s: float) -> bool:
        """Whether the other end is closed and everything it said is in the file; waits for that."""
        if threading.current_thread() is not self._drain:
            self._drain.join(timeout=within_s)
        return not self._drain.is_alive()

    def close(self) -> None:
        """Stop reading; what was written stays in the file."""
        with suppress(OSError):  # QEMU is gone already
            self._connection.shutdown(socket.SHUT_RDWR)
        self.drained(within_s=2.0)
        self._connection.close()

    def _run(self) -> None:
        rest = b""
        with self._log.open("ab", buffering=0) as log:
            while chunk := self._receive():
                with suppress(OSError):  # a full disk costs us the evidence, not the machine
                    log.write(chunk)
                self._chunks.put(chunk)
                rest = self._watch(rest + chunk)
        self._watch(rest + b"\n")
        self._chunks.put(b"")

    def _watch(self, text: bytes) -> bytes:
        """Tell of the panic in ``text``, if there is one; what must be looked at again with the next chunk."""
        if found := PANIC.search(text):
            self._on_panic(found[1].decode(errors="replace").strip())
        return text[max(text.rfind(b"\n"), text.rfind(b"\r")) + 1 :][-LINE_LIMIT_BYTES:]

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
