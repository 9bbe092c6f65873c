"""An agent that says whatever a test wants, for the tests of the client."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from harness.agent import frames
from harness.agent.channel import Channel

HELLO = {
    "kernel": "6.12",
    "python": "3.9.18",
    "hostname": "guest",
    "boot_id": "b",
    "pid": 1,
    "uid": 0,
    "monotonic_ns": 5,
    "reseeded": True,
    "earlier_run_closed": True,
}
Call = dict


class FakeAgent:
    """Answers each call with what ``reply`` gives for it: bytes, sent as they are."""

    def __init__(self, reply: Callable[[Call, bytes], bytes | None], *, step: int = 0) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.calls: list[Call] = []
        self._reply = reply
        self._step = step
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        splitter = frames.Splitter(resync=False)
        try:
            while data := self.theirs.recv(1 << 16):
                splitter.feed(data)
                while (frame := splitter.next()) is not None:
                    self.calls.append(frame[0])
                    self.say(self._reply(*frame))
        except OSError:
            return

    def say(self, answer: bytes | None) -> None:
        if answer is None:
            self.theirs.shutdown(socket.SHUT_RDWR)
            return
        for start in range(0, len(answer), self._step or len(answer) or 1):
            self.theirs.sendall(answer[start : start + (self._step or len(answer))])

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        self._thread.join(2)


@contextlib.contextmanager
def fakes() -> Iterator[Callable[..., tuple[FakeAgent, Channel]]]:
    """Starts fake agents with a channel to each; their replies get (token, call, body)."""
    opened: list[tuple[FakeAgent, Channel]] = []

    def start(reply, *, step: int = 0, **options) -> tuple[FakeAgent, Channel]:
        agent = FakeAgent(lambda call, body: reply(channel.token, call, body), step=step)
        channel = Channel(agent.ours, name="guest", **options)
        opened.append((agent, channel))
        return opened[-1]

    yield start
    for agent, channel in opened:
        channel.close()
        agent.close()


def good(token: str, call: Call, body: bytes = b"") -> bytes:
    return frames.encode({"id": call["id"], "token": token, "ok": {"echo": call.get("args", {})}}, body)


def failed(token: str, call: Call, **error: object) -> bytes:
    return frames.encode({"id": call["id"], "token": token, "error": error})


def nothing(*_: object) -> bytes:
    return b""
