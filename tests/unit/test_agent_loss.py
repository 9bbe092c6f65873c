"""The client against agents that fall silent and die, and against machines that are lost."""

# Replies take what they need of (token, call, body):
# ruff: noqa: ARG002

from __future__ import annotations

import threading
import time

import agent_fake
import pytest
from agent_fake import good, nothing

from harness.agent import channel as channel_module
from harness.agent.channel import Channel, again
from harness.errors import DeadlineExceeded, GuestLost, HarnessError, RemoteOSError, TransportFailed, UsageError


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr(channel_module, "GRACE_S", 0.1)


@pytest.fixture
def fake():
    with agent_fake.fakes() as start:
        yield start


def test_silence_ends_at_the_deadline_and_says_what_was_asked(fake):
    _, channel = fake(nothing)
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"agent: file.read path='/sys/y' \(guest\): agent silent for 0.1 s"):
        channel.call("file.read", deadline_s=0.1, path="/sys/y")
    assert 0.15 < time.monotonic() - start < 1


def test_a_late_answer_is_taken_for_what_it_is(fake):
    late = []

    def reply(token, call, body):
        if call["verb"] == "slow":
            late.append(good(token, call))
            return b""
        return late.pop() + good(token, call) if late and call["verb"] == "ping" else good(token, call)

    agent, channel = fake(reply)
    with pytest.raises(DeadlineExceeded):
        channel.call("slow", deadline_s=0.05)
    assert channel.call("ping", deadline_s=2, n=1).value == {"echo": {"n": 1}}
    assert ("cancel", {"id": 1}) in [(call["verb"], call["args"]) for call in agent.calls], "the agent was told to stop"


def test_a_full_stream_cannot_hold_a_caller():
    class Full:
        def __init__(self) -> None:
            self.closed = threading.Event()

        def sendall(self, data: bytes) -> None:
            self.closed.wait()
            raise OSError(9, "closed")

        def recv(self, size: int) -> bytes:
            self.closed.wait()
            return b""

        def close(self) -> None:
            self.closed.set()

    channel = Channel(Full())
    with pytest.raises(DeadlineExceeded):
        channel.call("ping", deadline_s=0.05)
    channel.close()


def test_a_stream_that_raises_is_a_failed_transport():
    class Broken:
        def sendall(self, data: bytes) -> None:
            raise ValueError("channel closed")

        def recv(self, size: int) -> bytes:
            time.sleep(0.2)  # noqa: TID251
            return b""

        def close(self) -> None:
            pass

    with pytest.raises(TransportFailed, match="sending failed: channel closed"):
        Channel(Broken()).call("ping", deadline_s=2)


def test_a_stream_that_dies_half_way_ends_every_call_with_the_machines_own_reason(fake):
    reason = GuestLost("QEMU exited", on="guest", got="exit status 1", fix="see qemu.stderr")

    def reply(token, call, body):
        if call["args"]["n"] < 2:
            return b""
        agent.say(good(token, call)[:15])
        return None

    agent, channel = fake(reply, on_eof=lambda: reason)
    caught = waiting_calls(channel, 3)
    assert [str(error) for error in caught] == [str(reason)] * 3
    assert {type(error) for error in caught} == {GuestLost}
    assert len(set(map(id, caught)) - {id(reason)}) == 3, "each thread raises a copy of its own"


def test_a_reason_that_cannot_be_found_is_said_too(fake):
    def broken() -> HarnessError:
        raise LookupError("no exit status")

    _, channel = fake(lambda *_: None, on_eof=broken)
    with pytest.raises(TransportFailed, match="the stream ended; asking why failed: LookupError: no exit status"):
        channel.call("ping", deadline_s=2)


def test_a_frame_cut_off_is_said(fake):
    def reply(token, call, body):
        agent.say(good(token, call)[:15])

    agent, channel = fake(reply)
    with pytest.raises(TransportFailed, match="the stream ended, 15 bytes into a frame"):
        channel.call("ping", deadline_s=2)


def test_lost_ends_every_call_now_and_later(fake):
    _, channel = fake(nothing)
    threading.Timer(0.05, channel.lost, [GuestLost("the kernel panicked")]).start()
    start = time.monotonic()
    assert [str(error) for error in waiting_calls(channel, 3)] == ["the kernel panicked"] * 3
    with pytest.raises(GuestLost, match="the kernel panicked"):
        channel.call("ping", deadline_s=60)
    with pytest.raises(GuestLost):
        channel.check_alive()
    channel.lost(UsageError("another reason"))
    with pytest.raises(GuestLost, match="the kernel panicked"):
        channel.check_alive()
    assert time.monotonic() - start < 2


def waiting_calls(channel: Channel, count: int) -> list[HarnessError]:
    """The errors that so many calls at once end with."""
    caught: list[HarnessError] = []

    def ask(number: int) -> None:
        try:
            channel.call("ping", deadline_s=30, n=number)
        except HarnessError as error:
            caught.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)  # noqa: TID251  # in this order
    for thread in threads:
        thread.join(5)
    return caught


@pytest.mark.parametrize(
    "error",
    [
        GuestLost("tried", on="on", got="got", fix="fix"),
        TransportFailed("tried", on="on"),
        DeadlineExceeded("tried", got="got"),
        RemoteOSError(34, "tried", on="on"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_reason_can_be_raised_in_many_threads(error):
    error.__cause__ = ValueError("root")
    copy = again(error)
    assert copy is not error
    assert (type(copy), str(copy), vars(copy), copy.__cause__) == (
        type(error),
        str(error),
        vars(error),
        error.__cause__,
    )
    assert getattr(copy, "errno", None) == getattr(error, "errno", None)
    assert copy.__traceback__ is None


def test_threads_end_with_the_channel(fake):
    agent, channel = fake(good)
    channel.call("ping", deadline_s=2)
    channel.close()
    agent.theirs.close()
    until = time.monotonic() + 2
    while any(thread.name.endswith("-guest") and thread.is_alive() for thread in threading.enumerate()):
        assert time.monotonic() < until, [thread.name for thread in threading.enumerate()]
        time.sleep(0.01)  # noqa: TID251
