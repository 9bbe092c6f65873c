"""The client against agents that lie, stammer, fall silent and die."""

# Replies take what they need of (token, call, body):
# ruff: noqa: ARG002, ARG005

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from harness.agent import channel as channel_module
from harness.agent import client, frames
from harness.agent.channel import Channel, again
from harness.errors import (
    DeadlineExceeded,
    GuestLost,
    HarnessError,
    RemoteError,
    RemoteOSError,
    TransportFailed,
    UsageError,
)

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


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr(channel_module, "GRACE_S", 0.1)


@pytest.fixture
def fake() -> Iterator[Callable[..., tuple[FakeAgent, Channel]]]:
    opened: list[tuple[FakeAgent, Channel]] = []

    def start(reply, *, step: int = 0, on_eof=None) -> tuple[FakeAgent, Channel]:
        agent = FakeAgent(lambda call, body: reply(channel.token, call, body), step=step)
        channel = Channel(agent.ours, name="guest", on_eof=on_eof)
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


@pytest.mark.parametrize("step", [0, 1], ids=["at-once", "one-byte-at-a-time"])
def test_a_call_gets_its_value_and_body(fake, step):
    _, channel = fake(good, step=step)
    answer = channel.call("file.write", deadline_s=2, body=b"body", path="/x")
    assert (answer.value, answer.body) == ({"echo": {"path": "/x"}}, b"body")


def test_calls_of_many_threads_get_their_own_answers(fake):
    _, channel = fake(good)
    got = {}

    def ask(number: int) -> None:
        got[number] = channel.call("ping", deadline_s=5, number=number).value["echo"]["number"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert got == {number: number for number in range(20)}


def test_answers_may_come_in_another_order(fake):
    held = []

    def reply(token, call, body):
        held.append(good(token, call))
        return b"".join(reversed(held)) if len(held) == 2 else b""

    _, channel = fake(reply)
    results = []
    first = threading.Thread(target=lambda: results.append(channel.call("ping", deadline_s=2, n=1).value))
    first.start()
    second = channel.call("ping", deadline_s=2, n=2).value
    first.join(2)
    assert {results[0]["echo"]["n"], second["echo"]["n"]} == {1, 2}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (lambda token, call, body: b"login: ", r"not a frame: b'login: '"),
        (lambda token, call, body: good(token, call)[:-1] + b"?", "JSON cannot be read"),
        (lambda token, call, body: frames.HEADER.pack(frames.MAGIC, 2, 0x7FFFFFFF), "body of 2147483647"),
        (lambda token, call, body: frames.encode({"id": "one", "token": token, "ok": {}}), "without a sound id"),
        (lambda token, call, body: frames.encode({"id": [1], "token": token, "ok": {}}), "without a sound id"),
        (lambda token, call, body: frames.encode({"id": 1, "token": token, "stream": 5}), "without a sound id"),
        (lambda token, call, body: frames.encode({"id": 77, "token": token, "ok": {}}), "call 77, which nobody waits"),
        (lambda token, call, body: frames.encode({"id": 77, "token": token, "stream": "x"}), "call 77, which nobody"),
        (lambda token, call, body: frames.encode({"id": 1, "ok": {}}), "for run None"),
        (lambda token, call, body: frames.encode({"id": 1, "token": token}), "neither ok nor error"),
        (lambda token, call, body: frames.encode({"id": 1, "token": token, "ok": [1]}), "neither ok nor error"),
        (lambda token, call, body: frames.encode({"id": 1, "token": token, "error": "no"}), "an error that is no obj"),
        (lambda token, call, body: None, "the stream ended"),
    ],
    ids=[
        "garbage",
        "json",
        "huge",
        "text-id",
        "list-id",
        "stream-name",
        "unknown-id",
        "unknown-stream",
        "no-token",
        "empty",
        "list",
        "text-error",
        "dead",
    ],
)
def test_nonsense_is_a_failed_transport_in_words(fake, reply, words):
    _, channel = fake(reply)
    with pytest.raises(TransportFailed, match=words):
        channel.call("ping", deadline_s=2)


def test_an_answer_of_another_run_is_refused(fake):
    _, channel = fake(lambda token, call, body: good(token if call["id"] == 1 else "other", call))
    channel.call("ping", deadline_s=2)
    with pytest.raises(TransportFailed, match="an answer for run 'other'; ours is"):
        channel.call("ping", deadline_s=2)


def test_what_was_said_to_an_earlier_run_is_dropped_before_hello_is_answered(fake):
    def reply(token, call, body):
        stale = frames.encode({"id": 1, "token": "old", "ok": {}}) + frames.encode(
            {"id": 9, "token": "old", "stream": "x"}
        )
        return stale + frames.encode({"id": call["id"], "token": token, "ok": HELLO})

    _, channel = fake(reply)
    assert channel.hello(deadline_s=2).hostname == "guest"


def test_a_hello_that_only_an_earlier_run_answers_is_not_answered(fake):
    _, channel = fake(lambda token, call, body: frames.encode({"id": 1, "token": "old", "ok": HELLO}))
    with pytest.raises(DeadlineExceeded, match=r"silent.*\(1 answers to an earlier run were dropped\)"):
        channel.hello(deadline_s=0.1)


def test_a_second_answer_to_one_call_is_nonsense(fake):
    _, channel = fake(lambda token, call, body: good(token, call) * 2)
    channel.call("ping", deadline_s=2)
    with pytest.raises(TransportFailed, match="which nobody waits for"):
        channel.call("ping", deadline_s=2)


def test_hello_takes_one_round_trip_and_hides_its_seed(fake):
    agent, channel = fake(lambda token, call, body: failed(token, call, kind="usage", message="no"))
    with pytest.raises(RemoteError) as caught:
        channel.hello(deadline_s=2, seed=b"secret seed", time_ns=12)
    assert [call["verb"] for call in agent.calls] == ["hello"]
    assert agent.calls[0]["args"] == {"token": channel.token, "protocol": 1, "seed": "c2VjcmV0IHNlZWQ=", "time_ns": 12}
    assert str(caught.value) == "agent: hello: no"


@pytest.mark.parametrize("lacking", sorted(HELLO))
def test_a_hello_without_a_field_names_it(fake, lacking):
    value = {name: found for name, found in HELLO.items() if name != lacking}
    _, channel = fake(lambda token, call, body: frames.encode({"id": 1, "token": token, "ok": value}))
    with pytest.raises(TransportFailed, match=f"lacks '{lacking}'"):
        channel.hello(deadline_s=2)


def test_connect_closes_the_stream_when_hello_fails():
    agent = FakeAgent(lambda call, body: b"login: ")
    with pytest.raises(TransportFailed):
        client.connect(agent.ours, deadline_s=2)
    assert agent.ours.fileno() == -1
    agent.close()


def test_the_kernels_refusal_is_an_oserror_with_its_errno(fake):
    _, channel = fake(
        lambda token, call, body: failed(token, call, kind="os", errno=34, message="writing", on="/sys/x")
    )
    with pytest.raises(OSError, match=r"writing \(/sys/x\): Numerical result out of range \(errno 34\)") as caught:
        channel.call("file.write", deadline_s=2)
    assert isinstance(caught.value, RemoteOSError)
    assert caught.value.errno == 34


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ({"kind": "usage", "message": "no such verb"}, RemoteError, "agent: ping: no such verb"),
        ({"kind": "deadline", "message": "2 s were not enough"}, DeadlineExceeded, "2 s were not enough"),
        ({"kind": "cancelled", "message": "cancelled"}, RemoteError, "cancelled: cancelled"),
        ({"kind": "internal", "message": "ValueError at x.py:3"}, RemoteError, "internal: ValueError at x.py:3"),
        ({"kind": "os", "errno": 0, "message": "m"}, RemoteError, "os: m"),
        ({"kind": "os", "errno": "x", "message": "m"}, RemoteError, "os: m"),
        ({"kind": "os", "errno": 10**9, "message": "m"}, RemoteError, "os: m"),
        ({}, RemoteError, "None:"),
    ],
)
def test_an_error_says_what_the_agent_said(fake, error, kind, words):
    _, channel = fake(lambda token, call, body: failed(token, call, **error))
    with pytest.raises(kind) as caught:
        channel.call("ping", deadline_s=2)
    assert words in str(caught.value)


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


def test_a_callback_that_raises_cancels_the_call_and_the_channel_lives(fake):
    def reply(token, call, body):
        chunk = frames.encode({"id": call["id"], "token": token, "stream": "stdout"}, b"chunk")
        return chunk if call["verb"] == "command.run" else good(token, call)

    def refuse(name: str, data: bytes) -> None:
        raise LookupError(f"{name} {data!r}")

    agent, channel = fake(reply)
    with pytest.raises(LookupError, match="stdout b'chunk'"):
        channel.call("command.run", deadline_s=5, on_stream=refuse)
    assert channel.call("ping", deadline_s=2).value == {"echo": {}}
    assert "cancel" in [call["verb"] for call in agent.calls]


def test_what_fits_no_frame_is_said_before_it_is_sent(fake):
    _, channel = fake(good)
    with pytest.raises(RemoteError, match="the body has 4194305 bytes") as caught:
        channel.call("file.write", deadline_s=2, body=bytes(frames.MAX_BODY_BYTES + 1), path="/x")
    assert "split it" in str(caught.value)
    assert channel.call("ping", deadline_s=2)


def test_threads_end_with_the_channel(fake):
    agent, channel = fake(good)
    channel.call("ping", deadline_s=2)
    channel.close()
    agent.theirs.close()
    until = time.monotonic() + 2
    while any(thread.name.endswith("-guest") and thread.is_alive() for thread in threading.enumerate()):
        assert time.monotonic() < until, [thread.name for thread in threading.enumerate()]
        time.sleep(0.01)  # noqa: TID251
