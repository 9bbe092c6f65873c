"""The client against agents that lie and stammer."""

# Replies take what they need of (token, call, body):
# ruff: noqa: ARG005

from __future__ import annotations

import threading

import agent_fake
import pytest
from agent_fake import HELLO, FakeAgent, failed, good

from harness.agent import channel as channel_module
from harness.agent import client, frames
from harness.errors import DeadlineExceeded, RemoteError, RemoteOSError, TransportFailed


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr(channel_module, "GRACE_S", 0.1)


@pytest.fixture
def fake():
    with agent_fake.fakes() as start:
        yield start


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
    with pytest.raises(DeadlineExceeded, match=r"silent.*\(1 answers to an earlier run and 0 bytes were dropped\)"):
        channel.hello(deadline_s=0.1)


def test_leftovers_of_an_earlier_run_are_skipped_when_told_and_only_before_hello_is_answered(fake):
    tail = frames.encode({"id": 3, "token": "old", "stream": "stdout"}, bytes(1000))[40:]

    def reply(token, call, body):
        return tail + frames.encode({"id": call["id"], "token": token, "ok": HELLO})

    _, channel = fake(reply, leftovers=True)
    assert channel.hello(deadline_s=2).hostname == "guest"
    with pytest.raises(TransportFailed, match="not a frame"):
        channel.call("ping", deadline_s=2)
    _, strict = fake(reply)
    with pytest.raises(TransportFailed, match="not a frame"):
        strict.hello(deadline_s=2)


def test_leftovers_alone_are_no_answer(fake):
    _, channel = fake(lambda token, call, body: b"login: ", leftovers=True)
    with pytest.raises(DeadlineExceeded, match="and 7 bytes were dropped"):
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
