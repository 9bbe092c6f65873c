"""What the tests of the agent share: a started agent spoken to in raw frames, and a sysfs tree of plain files."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.agent import frames
from harness.agent.client import Agent
from harness.agent.local import LocalAgent
from harness.agent.pack import pack

PF = "0000:26:00.0"
CAP = 0x40  # of the PCI Express capability in the fake configuration space
COMMAND, DEVICE_CONTROL, DEVICE_STATUS = 4, CAP + 8, CAP + 10
OLDEST = "3.9"


def oldest_python() -> str | None:
    """An interpreter of the oldest version that the agent must run on, if this computer has one."""
    found = shutil.which(f"python{OLDEST}")
    if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
        return found
    versions = Path.home() / ".pyenv" / "versions"
    return next((str(path) for path in sorted(versions.glob(f"{OLDEST}.*/bin/python"))), None)


def fake_sysfs(root: Path) -> Path:
    """A sysfs with one function: 4096 bytes of configuration space, a PCI Express capability that offers FLR."""
    folder = root / "bus/pci/devices" / PF
    folder.mkdir(parents=True)
    space = bytearray(4096)
    struct.pack_into("<HHHH", space, 0, 0x10EE, 0x9038, 0x0406, 0x0010)
    space[0x34] = CAP
    struct.pack_into("<BBHIHH", space, CAP, 0x10, 0, 2, 1 << 28, 0x2810, 0)
    (folder / "config").write_bytes(space)
    return folder


class RawAgent:
    """A started agent and the socket to it, with nothing of the client in between."""

    def __init__(self, pyz: Path, *options: str, python: str = sys.executable) -> None:
        self.socket, theirs = socket.socketpair()
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self.process = subprocess.Popen(
                [python, "-I", "-S", str(pyz), "--fd", str(theirs.fileno()), *options],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=self.stderr,
            )
        self.splitter = frames.Splitter(resync=False)

    def send(self, verb: str, number: int = 1, body: bytes = b"", deadline_s: float = 5.0, **args: object) -> None:
        message = {"id": number, "verb": verb, "args": args, "deadline_s": deadline_s}
        self.socket.sendall(frames.encode(message, body))

    def hello(self, token: str = "t", number: int = 1) -> dict[str, object]:
        """Begin a run; what was still on its way from the run before is dropped."""
        self.send("hello", number, token=token, protocol=frames.PROTOCOL)
        while True:
            frame = self.receive()
            assert frame is not None, "the agent ended"
            if frame[0]["token"] == token and frame[0]["id"] == number:
                return frame[0]

    def receive(self, within_s: float = 5.0) -> tuple[dict[str, object], bytes] | None:
        """The next frame, or None at the end of the stream."""
        until = time.monotonic() + within_s
        while (frame := self.splitter.next()) is None:
            self.socket.settimeout(max(0.001, until - time.monotonic()))
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self.splitter.feed(data)
        return frame

    def answer(self, number: int, within_s: float = 5.0) -> dict[str, object]:
        """The next frame, which must be the answer to this call."""
        frame = self.receive(within_s)
        assert frame is not None, "the agent ended"
        assert frame[0]["id"] == number, frame
        return frame[0]

    def silent(self, seconds: float = 0.1) -> bool:
        """Nothing comes for so long."""
        try:
            return self.receive(seconds) is None
        except TimeoutError:
            return True

    def close(self) -> None:
        self.socket.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.stderr.close()


@contextlib.contextmanager
def local_agent(which: str, sysfs: Path) -> Iterator[Agent]:
    """The agent with its client, under "this" Python or the "oldest"; skips the test where there is no such Python."""
    python = sys.executable if which == "this" else oldest_python()
    if python is None:
        pytest.skip(f"this computer has no Python {OLDEST}, the oldest that the agent must run on")
    with LocalAgent(python=python, options=("--sysfs", str(sysfs))) as started:
        yield started


@contextlib.contextmanager
def raw_agent(pyz: Path, *options: str) -> Iterator[RawAgent]:
    agent = RawAgent(pyz, *options)
    try:
        yield agent
    finally:
        agent.close()


def packed(folder: Path) -> Path:
    path = folder / "agent.pyz"
    path.write_bytes(pack())
    return path


def alive(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.005)  # noqa: TID251
    return True
