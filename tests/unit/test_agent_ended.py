"""The machine's init tells of an agent that died: its virtio port stays open, so there is no end of file."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from harness.agent.channel import ENDED, Channel
from harness.agent.frames import Splitter
from harness.errors import TransportFailed

INIT = Path(__file__).parents[2] / "guest-images/guest/rootfs/usr/sbin/sriov-init"


def said_by_init(status: int) -> bytes:
    """What the line of the real script writes to the port."""
    found = re.search(r"^ *(printf .*) >\"\$device\"$", INIT.read_text(), re.MULTILINE)
    assert found
    return subprocess.run(["sh", "-c", f"status={status}; {found[1]}"], capture_output=True, check=True).stdout


@pytest.mark.parametrize("status", [0, 2, 42, 137])
def test_init_speaks_the_agents_frames(status: int) -> None:
    splitter = Splitter(resync=False)
    splitter.feed(said_by_init(status))
    assert splitter.next() == ({ENDED: status}, b"")
    assert splitter.pending == 0


def test_a_waiting_call_ends_at_once_with_the_status() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, name="guest")
    theirs.sendall(said_by_init(137))
    start = time.monotonic()
    for _ in range(2):  # and every later one
        with pytest.raises(TransportFailed, match=r"talk to the agent \(guest\): it ended with exit status 137"):
            channel.call("ping", deadline_s=30)
    assert time.monotonic() - start < 1
    channel.close()
    theirs.close()
