"""What the agent answers, as frozen values."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Protocol

from harness.errors import RemoteError, TransportFailed


class Stream(Protocol):
    """A byte stream to an agent; a connected ``socket.socket`` is one (and is shut down before it is closed)."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes:
        """At least one byte; ``b""`` at the end of the stream."""
        ...

    def close(self) -> None:
        """Must end a ``recv`` that is waiting in another thread, or the thread is left behind (it is a daemon)."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one call: its JSON value and its body."""

    verb: str
    value: dict[str, Any]
    body: bytes = b""

    def number(self, name: str) -> int:
        found = self.value.get(name)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
        raise self._lacks(name, "a whole number")

    def text(self, name: str) -> str:
        found = self.value.get(name)
        if isinstance(found, str):
            return found
        raise self._lacks(name, "a string")

    def flag(self, name: str) -> bool:
        found = self.value.get(name)
        if isinstance(found, bool):
            return found
        raise self._lacks(name, "true or false")

    def rows(self, name: str, *kinds: type) -> list[tuple[Any, ...]]:
        """A list of rows, each with one value of each kind."""
        found = self.value.get(name)
        if isinstance(found, list) and all(
            isinstance(row, list) and len(row) == len(kinds) and all(map(isinstance, row, kinds)) for row in found
        ):
            return [tuple(row) for row in found]
        raise self._lacks(name, f"rows of {', '.join(kind.__name__ for kind in kinds)}")

    def samples(self) -> tuple[tuple[int, int], ...]:
        """The rows "samples": (nanoseconds, value)."""
        return tuple((int(when), int(value)) for when, value in self.rows("samples", int, int))

    def items(self, name: str, kind: type) -> list[Any]:
        """A list of values of one kind."""
        found = self.value.get(name)
        if isinstance(found, list) and all(isinstance(item, kind) for item in found):
            return found
        raise self._lacks(name, f"a list of {kind.__name__}")

    def _lacks(self, name: str, kind: str) -> TransportFailed:
        return TransportFailed(
            f"the agent's answer to {self.verb} lacks {name!r}, {kind}",
            got=repr(self.value)[:300],
            fix="rebuild the image that the agent is in; client and agent differ",
        )


@dataclass(frozen=True, slots=True)
class Hello:
    """Who answers. ``monotonic_ns`` is the machine's own clock when it answered; ``reseeded``: the seed is in use."""

    kernel: str
    python: str
    hostname: str
    boot_id: str
    pid: int
    uid: int
    monotonic_ns: int
    reseeded: bool
    earlier_run_closed: bool

    @classmethod
    def of(cls, answer: Answer) -> Hello:
        return cls(
            kernel=answer.text("kernel"),
            python=answer.text("python"),
            hostname=answer.text("hostname"),
            boot_id=answer.text("boot_id"),
            pid=answer.number("pid"),
            uid=answer.number("uid"),
            monotonic_ns=answer.number("monotonic_ns"),
            reseeded=answer.flag("reseeded"),
            earlier_run_closed=answer.flag("earlier_run_closed"),
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder; ``kind`` is file, folder, link, char, block, fifo, socket or other."""

    name: str
    kind: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Stat:
    """stat(2) of what a path leads to."""

    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended. ``status``: its exit status, or minus the signal that ended it."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Its standard output, as text."""
        return self.stdout.decode(errors="replace")

    def check(self) -> Completed:
        """This very value, or RemoteError when the program failed."""
        if self.status:
            ended = f"exit status {self.status}" if self.status > 0 else f"killed by signal {-self.status}"
            said = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")[-2000:]
            raise RemoteError(f"run {shlex.join(self.argv)}", got=f"{ended}: {said}" if said else ended)
        return self


@dataclass(frozen=True, slots=True)
class PollResult:
    """What a polling loop saw; ``longest_gap_ns`` is what it cannot see, ``samples`` are (ns since start, value)."""

    matched: bool
    elapsed_ns: int
    reads: int
    first: int
    last: int
    longest_gap_ns: int
    samples: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, answer: Answer) -> PollResult:
        return cls(
            answer.flag("matched"),
            answer.number("elapsed_ns"),
            answer.number("reads"),
            answer.number("first"),
            answer.number("last"),
            answer.number("longest_gap_ns"),
            answer.samples(),
        )


@dataclass(frozen=True, slots=True)
class FlrSample:
    """One Function Level Reset. All times count from the end of the write that began it.

    Attributes:
        ready: it answered before the time-out. Not ready is a result, not an error.
        ready_ns: end of the first read that was not all ones; -1 when there was none.
        not_ready_ns: begin of the last read that was all ones; -1 when there was none. The truth lies between the two.
        write_ns: how long the initiating write took; the reset may have begun at any moment of it.
        longest_gap_ns: between the ends of two reads, until ready.
        reads: reads until ready.
        all_ones: it was seen not to answer.
        rrs: a Request Retry Status was seen (Vendor ID 0001h, with RRS Software Visibility).
        relapsed: all ones again after the first good read.
        samples: (ns, Command and Status) around the change, 64 at most.
        command: Command before the reset; it was cleared first.
        device_control: Device Control before the reset.
        pending: Transactions Pending was set at the beginning.
        pending_after: … and still after 100 ms without Bus Master Enable.
    """

    ready: bool
    ready_ns: int
    not_ready_ns: int
    write_ns: int
    longest_gap_ns: int
    reads: int
    all_ones: bool
    rrs: bool
    relapsed: bool
    samples: tuple[tuple[int, int], ...]
    command: int
    device_control: int
    pending: bool
    pending_after: bool

    @property
    def ready_from_before_write_ns(self) -> int:
        """From the beginning of the write: the longest that the reset can have taken; -1 when not ready."""
        return self.ready_ns + self.write_ns if self.ready else -1

    @classmethod
    def of(cls, answer: Answer) -> FlrSample:
        return cls(
            ready=answer.flag("ready"),
            ready_ns=answer.number("ready_ns"),
            not_ready_ns=answer.number("not_ready_ns"),
            write_ns=answer.number("write_ns"),
            longest_gap_ns=answer.number("longest_gap_ns"),
            reads=answer.number("reads"),
            all_ones=answer.flag("all_ones"),
            rrs=answer.flag("rrs"),
            relapsed=answer.flag("relapsed"),
            samples=answer.samples(),
            command=answer.number("command"),
            device_control=answer.number("device_control"),
            pending=answer.flag("pending"),
            pending_after=answer.flag("pending_after"),
        )
