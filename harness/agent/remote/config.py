"""Configuration space through sysfs: ``/sys/bus/pci/devices/BDF/config``, read and written live by the kernel."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import threading
import time

from harness.agent.remote import verbs
from harness.agent.remote.calls import Call, Failure, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SPACE_BYTES = 4096
ADDRESS = re.compile(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-1][0-9a-fA-F]\.[0-7]")
KEPT_SAMPLES = 64
MOST_KEPT = 4096

_measuring = threading.Lock()
_measurements = 0


def device_folder(call: Call) -> str:
    """The sysfs folder of the argument ``bdf``, checked: it becomes part of a path."""
    bdf = call.text("bdf")
    if not ADDRESS.fullmatch(bdf):
        raise usage(f"{bdf!r:.50} is no PCI address such as 0000:26:00.0")
    return f"{call.run.server.sysfs}/bus/pci/devices/{bdf.lower()}"


@contextlib.contextmanager
def opened(call: Call, flags: int) -> Iterator[tuple[int, str]]:
    """The config file of the argument ``bdf``: descriptor and path; errors carry the path."""
    path = f"{device_folder(call)}/config"
    call.at(f"opening {path}")
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd, path
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection while anybody measures."""
    global _measurements
    with _measuring:
        _measurements += 1
        gc.disable()
    try:
        yield
    finally:
        with _measuring:
            _measurements -= 1
            if not _measurements:
                gc.enable()


def fetch(fd: int, offset: int, width: int, path: str) -> int:
    """One register by one pread(2); the kernel makes one access of that width of it when it is aligned."""
    raw = os.pread(fd, width, offset)
    if len(raw) != width:
        raise Failure(
            "internal", f"{len(raw)} of {width} bytes at {offset:#x} (without root the kernel shows 64)", path
        )
    return int.from_bytes(raw, "little")


def store(fd: int, offset: int, width: int, value: int, path: str) -> None:
    """One register by one pwrite(2)."""
    written = os.pwrite(fd, value.to_bytes(width, "little"), offset)
    if written != width:
        raise Failure("internal", f"short write: {written} of {width} bytes at {offset:#x}", path)


def read(call: Call) -> verbs.Result:
    """``{bdf, offset, size}`` → as many bytes as the kernel gives (64 without CAP_SYS_ADMIN), by one pread(2)."""
    offset = call.number("offset", 0, high=SPACE_BYTES)
    size = call.number("size", SPACE_BYTES, 1, SPACE_BYTES)
    with opened(call, os.O_RDONLY) as (fd, path):
        call.at(f"reading {size} bytes at {offset:#x} of {path}")
        return {}, os.pread(fd, size, offset)


def write(call: Call) -> verbs.Result:
    """``{bdf, offset}`` + body of 1, 2 or 4 bytes, aligned: one access of that width. Longer bodies: one pwrite(2)."""
    size = len(call.body)
    offset = call.number("offset", high=SPACE_BYTES - 1)
    if not 0 < size <= SPACE_BYTES - offset:
        raise usage(f"{size} bytes at {offset:#x} do not fit into configuration space")
    with opened(call, os.O_WRONLY) as (fd, path):
        call.at(f"writing {size} bytes at {offset:#x} of {path}")
        store(fd, offset, size, int.from_bytes(call.body, "little"), path)
    return {}


def poll(call: Call) -> verbs.Result:
    """Read a register again and again until ``(value & mask) == value``, or differs: the ruler for everything timed.

    ``{bdf, offset, width, mask, value, equal, interval_ns, timeout_ns, keep?}`` → ``matched``, ``elapsed_ns``,
    ``reads``, ``first``, ``last``, ``longest_gap_ns`` (between the ends of two reads: what this ruler cannot see), and
    the last ``keep`` samples as ``[ns since the start, value]``. A time-out is a result.
    """
    width = call.width()
    offset = call.number("offset", high=SPACE_BYTES - width)
    mask = call.number("mask", (1 << 8 * width) - 1)
    wanted = call.number("value")
    equal = call.flag("equal", True)
    interval_ns = call.number("interval_ns", 0)
    timeout_ns = call.number("timeout_ns")
    keep = call.number("keep", 0, high=MOST_KEPT)
    with opened(call, os.O_RDONLY) as (fd, path), undisturbed():
        call.at(f"polling {path} at {offset:#x}")
        track = Track(keep)
        while True:
            value = fetch(fd, offset, width, path)
            now = track.add(value)
            matched = ((value & mask) == wanted) == equal
            if matched or now >= timeout_ns:
                return dict(track.answer(), matched=matched)
            call.check()
            if interval_ns:
                call.pause(interval_ns / 1e9)


class Track:
    """What a polling loop saw, against a monotonic clock that starts now."""

    def __init__(self, keep: int) -> None:
        self.start_ns = time.monotonic_ns()
        self.now_ns = 0
        self.reads = 0
        self.first = 0
        self.last = 0
        self.longest_gap_ns = 0
        self.samples: list[tuple[int, int]] = []
        self._keep = keep

    def add(self, value: int) -> int:
        """Note a value that was read just now; nanoseconds since the start."""
        now = time.monotonic_ns() - self.start_ns
        gap = now - self.now_ns
        if gap > self.longest_gap_ns:
            self.longest_gap_ns = gap
        self.now_ns = now
        if not self.reads:
            self.first = value
        self.reads += 1
        self.last = value
        if self._keep:
            self.samples.append((now, value))
            if len(self.samples) >= 2 * self._keep:
                del self.samples[: -self._keep]
        return now

    def answer(self) -> dict[str, object]:
        return {
            "elapsed_ns": self.now_ns,
            "reads": self.reads,
            "first": self.first,
            "last": self.last,
            "longest_gap_ns": self.longest_gap_ns,
            "samples": self.samples[-self._keep :] if self._keep else [],
        }
