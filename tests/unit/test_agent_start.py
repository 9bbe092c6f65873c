"""How the agent is started, and the byte stream that it is started on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import agent_kit
import pytest

from harness.agent import frames
from harness.agent.remote.link import Link
from harness.agent.remote.main import main


@pytest.fixture(scope="module")
def pyz(tmp_path_factory):
    return agent_kit.packed(tmp_path_factory.mktemp("agent"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "one of --port, --stdio and --fd is needed"),
        (["--stdio", "--fd", "3"], "one of"),
        (["--port"], "--port needs a value"),
        (["--verbose"], "unknown option '--verbose'"),
        (["--fd", "77"], "cannot use --fd 77: [Errno 9]"),
        (["--fd", "x"], "cannot use --fd x"),
        (["--fd", "9" * 30], "cannot use --fd"),
        (["--port", "/dev"], "cannot use --port /dev"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_said_in_words(argv, words, capfd):
    assert main(argv) == 2
    assert words in capfd.readouterr().err


def test_a_file_as_standard_input_is_refused_in_words(pyz):
    with pyz.open("rb") as plain:
        done = subprocess.run([sys.executable, pyz, "--stdio"], stdin=plain, capture_output=True, timeout=5)
    assert done.returncode == 2
    assert done.stderr.startswith(b"agent: cannot use --stdio")


def test_standard_output_belongs_to_the_frames(pyz):
    with subprocess.Popen([sys.executable, pyz, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(frames.encode({"id": 1, "verb": "hello", "args": {"token": "t", "protocol": 1}}))
        process.stdin.write(
            frames.encode({"id": 2, "verb": "file.link", "args": {"path": f"/proc/{process.pid}/fd/1"}})
        )
        process.stdin.flush()
        splitter, answers = frames.Splitter(resync=False), {}
        while len(answers) < 2:
            splitter.feed(os.read(process.stdout.fileno(), 1 << 16))
            while (frame := splitter.next()) is not None:
                answers[frame[0]["id"]] = frame[0]
        process.stdin.close()
        assert process.stdout.read() == b""
    assert answers[1]["token"] == "t"
    assert answers[2]["ok"]["target"] == str(Path("/proc/self/fd/2").readlink()), "descriptor 1 is no longer the stream"
    assert process.returncode == 0


def test_a_port_that_hangs_up_is_waited_for_without_looping(tmp_path):
    """A FIFO behaves as a virtio-serial port does: end-of-file and POLLHUP while nobody holds the other end."""
    path = tmp_path / "port"
    os.mkfifo(path)
    link = Link(os.open(path, os.O_RDONLY | os.O_NONBLOCK), os.open(os.devnull, os.O_WRONLY), lasting=True)
    first = os.open(path, os.O_WRONLY)
    os.write(first, b"one")
    assert link.receive() == b"one"
    os.close(first)
    assert link.receive() == b"", "the disconnect is said"
    busy_s = []

    def reconnect() -> None:
        start = time.process_time()
        time.sleep(0.15)  # noqa: TID251  # the time in which nothing may loop
        busy_s.append(time.process_time() - start)
        second = os.open(path, os.O_WRONLY)
        os.write(second, str(time.monotonic_ns()).encode())

    other = threading.Thread(target=reconnect)
    other.start()
    sent_ns = int(link.receive())
    assert time.monotonic_ns() - sent_ns < 50_000_000, "the reconnection was noticed late"
    other.join()
    assert busy_s[0] < 0.05, "it looped while nobody was there"


def test_a_stream_without_a_reader_drops_what_is_sent():
    reader, writer = os.pipe()
    link = Link(os.pipe()[0], writer, lasting=True)
    os.close(reader)
    assert link.send(b"x") is False
    os.close(writer)


def test_what_cannot_be_delivered_is_dropped_not_waited_for(tmp_path):
    """The harness was killed while the agent was writing: the frame is dropped and no thread is held."""
    path = tmp_path / "port"
    os.mkfifo(path)
    keep = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    link = Link(keep, os.open(path, os.O_WRONLY), lasting=True)
    threading.Timer(0.1, os.close, [keep]).start()
    assert link.send(bytes(1 << 20)) is False
