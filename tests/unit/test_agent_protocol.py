"""The agent as a program, in raw frames: runs and tokens, deadlines, stuck calls, bad neighbours on the stream."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import agent_kit
import pytest

from harness.agent import frames
from harness.agent.remote import server
from harness.agent.remote.link import Link


@pytest.fixture(scope="module")
def pyz(tmp_path_factory):
    return agent_kit.packed(tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def process(pyz):
    with agent_kit.raw_agent(pyz) as started:
        yield started


@pytest.fixture
def agent(process, request):
    """A run of its own; the process is shared, as it is in a guest."""
    process.hello(token=request.node.name[-60:])
    return process


@pytest.fixture
def fifo(tmp_path):
    """Opening it blocks inside the kernel, like a sysfs write to a driver that hangs."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield str(path)
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # lets a stuck open go on


def error_of(answer: dict) -> dict:
    assert "ok" not in answer, answer
    return answer["error"]


def test_hello_says_who_answers_and_carries_the_token(pyz):
    with agent_kit.raw_agent(pyz) as agent:
        answer = agent.hello(token="abc")
    assert answer["token"] == "abc"
    assert answer["ok"]["pid"] == agent.process.pid
    assert answer["ok"]["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_nothing_is_done_before_hello(pyz, tmp_path):
    with agent_kit.raw_agent(pyz) as agent:
        agent.send("file.write", path=str(tmp_path / "new"), create=True)
        assert "must be 'hello'" in error_of(agent.answer(1))["message"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"protocol": 1}, "must be 'hello' with a token"),
        ({"token": "t", "protocol": 99}, "speaks protocol 1, the caller 99"),
    ],
    ids=["no-token", "protocol"],
)
def test_a_wrong_hello_is_refused_in_words(pyz, args, words):
    with agent_kit.raw_agent(pyz) as agent:
        agent.send("hello", **args)
        assert words in error_of(agent.answer(1))["message"]


@pytest.mark.parametrize(
    ("verb", "args", "words"),
    [
        ("nonsense", {}, "there is no verb 'nonsense'; there are hello, ping"),
        ("file.read", {}, "file.read needs 'path', a string; it got None"),
        ("file.read", {"path": "a\0b"}, "needs 'path'"),
        ("file.read", {"path": "/etc/hostname", "size": -1}, "needs 'size', a whole number from 0"),
        ("file.read", {"path": "/etc/hostname", "size": True}, "needs 'size'"),
        ("config.read", {"bdf": "../../../etc"}, "is no PCI address"),
        ("config.read", {"bdf": "0000:26:00.0\n"}, "is no PCI address"),
        ("command.run", {"argv": "true"}, "needs 'argv', a list of strings"),
        ("command.run", {"argv": []}, "argv is empty"),
        ("command.run", {"argv": ["true"], "env": {"A=B": "c"}}, "needs 'env'"),
        ("file.wait_value", {"path": "/etc/hostname", "pattern": "("}, "is no regular expression"),
        ("power", {"action": "explode"}, "power knows poweroff, reboot"),
        ("power", {"action": "poweroff"}, "not ours alone"),
        ("vfio.read", {"handle": 3, "region": 0, "offset": 0}, "no open device 3"),
        ("vfio.irq_wait", {"handle": 3, "timeout_s": 1, "trigger": [[1, 2]]}, r"a list of \[region"),
    ],
)
def test_a_wrong_call_is_answered_in_words(agent, verb, args, words):
    agent.send(verb, 2, **args)
    error = error_of(agent.answer(2))
    assert error["kind"] == "usage"
    assert words.replace("\\", "") in error["message"]


@pytest.mark.parametrize("deadline_s", [0, -1, "soon", None, 1e9, float("nan")])
def test_a_deadline_must_be_a_time(agent, deadline_s):
    agent.send("ping", 2, deadline_s=deadline_s)
    assert "deadline_s must be" in error_of(agent.answer(2))["message"]


def test_a_hello_without_a_token_ends_no_run(agent):
    agent.send("file.wait", 2, path="/nowhere", deadline_s=0.2)
    agent.send("hello", 3, protocol=1)
    refused = agent.answer(3)
    assert "hello needs 'token'" in error_of(refused)["message"]
    assert error_of(agent.answer(2))["kind"] == "deadline", "the call of the run went on"


def test_a_clock_that_is_not_ours_is_not_set(agent):
    agent.send("hello", 2, token="t", protocol=1, time_ns=0)
    assert "not ours alone" in error_of(agent.answer(2))["message"]
    assert time.time() > 1e9


def test_an_answer_that_fits_no_frame_is_an_error(agent, tmp_path):
    for number in range(300):
        (tmp_path / str(number)).symlink_to("x" * 4000)
    agent.send("file.list", 2, path=str(tmp_path))
    assert "does not fit into a frame" in error_of(agent.answer(2))["message"]


def test_garbage_before_a_call_is_stepped_over(agent):
    agent.socket.sendall(b"login: root\r\n" + frames.HEADER.pack(frames.MAGIC, 0xFFFFFFFF, 0) + b"\xf5s")
    agent.send("ping", 2)
    assert "ok" in agent.answer(2)


@pytest.mark.parametrize("message", [{}, {"id": "x", "verb": "ping"}, {"id": 1}, {"id": 2, "verb": 5}])
def test_a_frame_that_is_no_call_is_ignored(agent, message):
    agent.socket.sendall(frames.encode(message))
    agent.send("ping", 3)
    assert "ok" in agent.answer(3)


def test_a_new_run_can_talk_to_an_agent_that_was_left_half_way_through_a_frame(agent):
    agent.socket.sendall(frames.encode({"id": 2, "verb": "file.write", "args": {}}, bytes(4000))[:1000])
    start = time.monotonic()
    assert agent.hello(token="second", number=1)["token"] == "second"
    assert time.monotonic() - start < 2
    agent.send("ping", 2)
    assert "ok" in agent.answer(2)


def test_a_slow_sender_is_waited_for(agent):
    frame = frames.encode({"id": 2, "verb": "ping", "args": {}})
    agent.socket.sendall(frame[:20])
    time.sleep(0.2)  # noqa: TID251  # longer than the agent's look for a new run
    agent.socket.sendall(frame[20:])
    assert "ok" in agent.answer(2)


def test_a_second_run_cancels_the_first(agent):
    agent.send("command.run", 2, argv=["sh", "-c", "echo $$; exec sleep 60"], deadline_s=60)
    pid = int(agent.receive()[1])
    agent.send("file.wait", 3, path="/nowhere", deadline_s=60)
    agent.send("hello", 1, token="second", protocol=frames.PROTOCOL)
    answer = agent.answer(1)
    assert answer["token"] == "second", "the first run was answered after its end"
    assert answer["ok"]["earlier_run_closed"]
    assert agent_kit.gone_within(pid, 2), "its program was left running"
    assert agent.silent(), "a call of the first run was answered into the second"


def test_a_stuck_call_is_answered_at_its_deadline_and_blocks_nobody(agent, fifo):
    agent.send("file.write", 2, b"1", deadline_s=0.2, path=fifo)
    start = time.monotonic()
    agent.send("ping", 3)
    assert "ok" in agent.answer(3)
    error = error_of(agent.answer(2))
    assert 0.19 < time.monotonic() - start < 2
    assert error["kind"] == "deadline"
    assert f"still opening {fifo} for writing" in error["message"]
    assert "in the kernel:" in error["message"] or os.getuid() != 0


def test_the_late_result_of_a_stuck_call_is_ignored(agent, fifo):
    agent.send("file.write", 2, b"1", deadline_s=0.1, path=fifo)
    assert error_of(agent.answer(2))["kind"] == "deadline"
    reader = os.open(fifo, os.O_RDONLY)
    assert os.read(reader, 10) == b"1", "it did go on"
    os.close(reader)
    assert agent.silent()


def test_a_call_can_be_cancelled(agent):
    agent.send("file.wait", 2, path="/nowhere")
    agent.send("cancel", 3, id=2)
    answers = {frame[0]["id"]: frame[0] for frame in (agent.receive(), agent.receive())}
    assert answers[3]["ok"] == {"found": True}
    assert error_of(answers[2])["kind"] == "cancelled"


def test_a_running_number_is_not_given_twice(agent):
    agent.send("file.wait", 2, path="/nowhere", deadline_s=0.2)
    agent.send("ping", 2)
    assert "still running" in error_of(agent.answer(2))["message"]


def test_too_many_calls_at_once_are_refused_and_a_new_run_is_not_held_by_them(agent):
    for number in range(2, 70):
        agent.send("file.wait", number, path="/nowhere", deadline_s=4)
    refused = agent.answer(66)  # hello is no longer one of the 64
    assert "64 calls are running" in error_of(refused)["message"]
    agent.hello(token="next")
    agent.send("ping", 2)
    assert "ok" in agent.answer(2)


def test_too_many_stuck_threads_are_refused(agent, monkeypatch):
    monkeypatch.setattr(server, "MOST_THREADS", threading.active_count())
    ours, theirs = socket.socketpair()
    crowded = server.Server(Link(theirs.fileno(), theirs.fileno()))
    crowded.run.token = "t"
    crowded._accept({"id": 1, "verb": "ping"}, b"")
    splitter = frames.Splitter(resync=False)
    splitter.feed(ours.recv(1 << 16))
    assert "are stuck, already" in error_of(splitter.next()[0])["message"]
    ours.close()
    theirs.close()


def test_the_deadline_kills_the_whole_process_group(agent):
    agent.send("command.run", 2, argv=["sh", "-c", "sleep 61 & echo $$ $!; wait"], deadline_s=0.4)
    child, grandchild = map(int, agent.receive()[1].split())
    error = error_of(agent.answer(2))
    assert (error["kind"], "still running sh -c" in error["message"]) == ("deadline", True)
    assert agent_kit.gone_within(child, 1)
    assert agent_kit.gone_within(grandchild, 1)


def test_a_grandchild_that_holds_the_pipes_is_not_waited_for(agent):
    agent.send("command.run", 2, argv=["sh", "-c", "sleep 62 & echo $!; exit 3"], deadline_s=4)
    start = time.monotonic()
    grandchild = int(agent.receive()[1])
    try:
        assert agent.answer(2)["ok"] == {"status": 3}
        assert time.monotonic() - start < 1
        assert agent_kit.alive(grandchild), "a daemon that was started must live on"
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_the_end_of_the_stream_ends_the_agent_and_its_programs(pyz, fifo):
    agent = agent_kit.RawAgent(pyz)
    agent.hello()
    agent.send("command.run", 2, argv=["sh", "-c", "echo $$; exec sleep 63"])
    pid = int(agent.receive()[1])
    agent.send("file.write", 3, b"1", path=fifo)  # stuck, and must not hold it
    agent.send("ping", 4)
    agent.answer(4)
    agent.close()
    assert agent.process.returncode == 0
    assert agent_kit.gone_within(pid, 1)


def test_control_c_is_for_the_harness(agent):
    agent.process.send_signal(signal.SIGINT)
    agent.send("ping", 2)
    assert "ok" in agent.answer(2)
