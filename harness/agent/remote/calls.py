"""One call: what was asked, until when, where it is, and how it ends."""

# pathlib costs a slow guest more to import than this file does:
# ruff: noqa: PTH123

from __future__ import annotations

import os
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from harness.agent.remote.server import Run

DEFAULT_DEADLINE_S = 30.0
LONGEST_DEADLINE_S = 86400.0
UNLIMITED = 1 << 64


class Failure(Exception):
    """A call that cannot be answered.

    Args:
        kind: "os", "usage", "deadline", "cancelled" or "internal".
        message: what happened, in words.
        on: the thing it happened to.
        errno: with kind "os", the kernel's own.
    """

    def __init__(self, kind: str, message: str, on: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.on = on
        self.errno = errno


def usage(message: str, on: str = "") -> Failure:
    """The caller asked for something that cannot be."""
    return Failure("usage", message, on)


class Call:
    """A verb being performed in a thread of its own.

    A verb reads its arguments with ``text``, ``number`` and so on (which refuse what does not fit), says with ``at``
    what it is about to do, and calls ``check`` or ``pause`` in every loop: they raise when the call is cancelled or its
    deadline has come.
    """

    def __init__(self, run: Run, number: int, verb: str, args: dict[str, Any], body: bytes, deadline_s: float) -> None:
        self.run = run
        self.id = number
        self.verb = verb
        self.args = args
        self.body = body
        self.deadline_s = deadline_s
        self.deadline = time.monotonic() + deadline_s
        self.alarm = self.deadline  # when the watchdog looks at this call next
        self.where = ""
        self.thread_id = 0
        self.answered = False
        self.after: Callable[[], None] | None = None  # done once the answer is on its way
        self._ending = ""  # "", "cancelled" or "deadline"
        self._ended: threading.Event | None = None  # only for those who pause: it costs as much as a short call
        self._hooks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    # the end of a call

    def end(self, kind: str) -> None:
        """Cancel the call or tell it that its deadline has come; harmless when it is over already."""
        with self._lock:
            if self._ending:
                return
            self._ending = kind
            hooks, self._hooks = self._hooks, []
            if self._ended is not None:
                self._ended.set()
        for hook in hooks:
            hook()

    def on_end(self, hook: Callable[[], None]) -> None:
        """Call ``hook`` once, from another thread, when this call is cancelled or expires; at once if it has."""
        with self._lock:
            if not self._ending:
                self._hooks.append(hook)
                return
        hook()

    def off_end(self, hook: Callable[[], None]) -> None:
        """Forget ``hook``: what it would have ended is over. (It may be running just now, in another thread.)"""
        with self._lock:
            if hook in self._hooks:
                self._hooks.remove(hook)

    def claim_answer(self) -> bool:
        """True for the one who may answer; a call is answered once."""
        with self._lock:
            if self.answered:
                return False
            self.answered = True
            return True

    def check(self) -> None:
        """Raise when the call must stop."""
        if self._ending or time.monotonic() >= self.deadline:
            raise self.ending()

    def ending(self, detail: str = "") -> Failure:
        """Why the call had to stop, as a failure."""
        if self._ending == "cancelled":
            return Failure("cancelled", "cancelled" + (f" {self.where}" if self.where else ""))
        text = f"{self.deadline_s:g} s were not enough" + (f": still {self.where}" if self.where else "")
        return Failure("deadline", text + detail)

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the call's end."""
        with self._lock:
            if self._ended is None:
                self._ended = threading.Event()
            if self._ending:
                self._ended.set()
        self._ended.wait(max(0.0, min(seconds, self.deadline - time.monotonic())))
        self.check()

    def left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    def at(self, where: str) -> None:
        """Say what is about to be done ("writing 2 bytes to /sys/…"): it stands in the answer if it never ends."""
        self.where = where

    def stuck(self) -> str:
        """Where the call's thread is inside the kernel, as far as we may know (proc(5): wchan, stack)."""
        task = f"/proc/self/task/{self.thread_id}"
        seen = []
        for name in ("wchan", "stack"):
            try:
                with open(f"{task}/{name}", encoding="ascii", errors="replace") as file:
                    seen.append(file.read(1000).strip())
            except OSError:
                continue
        text = "; ".join(part for part in seen if part and part != "0")
        return f" (in the kernel: {text})" if text else ""

    def stream(self, name: str, data: bytes) -> None:
        """Send a part of what the call gives, ahead of its answer."""
        self.run.emit({"id": self.id, "token": self.run.token, "stream": name}, data)

    # arguments

    def text(self, name: str) -> str:
        """A string argument without NUL bytes."""
        value = self.args.get(name)
        if not isinstance(value, str) or not value or "\0" in value:
            raise usage(f"{self.verb} needs {name!r}, a string; it got {value!r:.100}")
        return value

    def number(self, name: str, default: int | None = None, low: int = 0, high: int = UNLIMITED) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self.args.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise usage(f"{self.verb} needs {name!r}, a whole number from {low} to {high}; it got {value!r:.100}")
        return value

    def seconds(self, name: str, default: float | None = None) -> float:
        """A time in seconds, from 0 to a day."""
        value = self.args.get(name, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= LONGEST_DEADLINE_S:
            raise usage(f"{self.verb} needs {name!r}, seconds from 0 to {LONGEST_DEADLINE_S:g}; it got {value!r:.100}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.args.get(name, default)
        if not isinstance(value, bool):
            raise usage(f"{self.verb} needs {name!r}, true or false; it got {value!r:.100}")
        return value

    def width(self) -> int:
        """The argument ``width``: 1, 2 or 4 bytes."""
        width = self.number("width", 4)
        if width not in (1, 2, 4):
            raise usage(f"{self.verb} needs 'width', 1, 2 or 4 bytes; it got {width}")
        return width


class Wakeup:
    """A file descriptor that becomes readable when a call is cancelled or expires: for threads that wait in poll(2)."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.fd, self._far = os.pipe()
        self._lock = threading.Lock()
        self._closed = False
        call.on_end(self._wake)

    def _wake(self) -> None:
        with self._lock:
            if not self._closed:
                os.write(self._far, b"x")

    def close(self) -> None:
        self._call.off_end(self._wake)
        with self._lock:  # the hook may be running in the watchdog's thread just now
            self._closed = True
            os.close(self.fd)
            os.close(self._far)
