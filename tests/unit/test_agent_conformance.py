"""The whole agent through its client, as a program of its own, under this Python and the oldest that it must run on."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import time
from pathlib import Path

import agent_kit
import pytest

from harness.agent.local import LocalAgent
from harness.agent.results import Entry
from harness.errors import DeadlineExceeded, RemoteError, TransportFailed


@pytest.fixture(scope="module", params=["this", "oldest"])
def agent(request, tmp_path_factory):
    with agent_kit.local_agent(request.param, tmp_path_factory.mktemp("sysfs")) as started:
        yield started


def test_the_agent_says_which_python_it_is(agent, request):
    version = request.node.callspec.params["agent"]
    assert agent.machine.python.startswith(f"{agent_kit.OLDEST}." if version == "oldest" else "3.")
    assert agent.machine.kernel == os.uname().release


# files


@pytest.mark.parametrize("size", [0, 5, 4 << 20, (4 << 20) + 1], ids=["empty", "small", "frame", "over-a-frame"])
def test_a_file_is_written_and_read_whole(agent, tmp_path, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(b"longer than what is written " * 2)
    agent.write_file(str(tmp_path / "file"), data, create=True)
    assert (tmp_path / "file").read_bytes() == data
    assert agent.read_file(str(tmp_path / "file")) == data


def test_a_file_of_procfs_is_read_whole(agent):
    assert agent.read_text("/proc/sys/kernel/ostype") == "Linux"
    assert agent.read_file("/proc/cpuinfo").count(b"processor") >= 1


def test_sysfs_gets_exactly_the_bytes_by_one_write(agent, tmp_path):
    (tmp_path / "attribute").write_bytes(b"old value")
    agent.write_file(str(tmp_path / "attribute"), "4")
    assert (tmp_path / "attribute").read_bytes() == b"4ld value", "nothing is added and nothing is truncated"


@pytest.mark.parametrize(
    ("path", "data", "code"),
    [
        ("{tmp}/missing", "1", errno.ENOENT),
        ("/dev/full", "1", errno.ENOSPC),
        ("/proc/self/oom_score_adj", "99999999999999", errno.ERANGE),
        ("/proc/self/oom_score_adj", "2000", errno.EINVAL),
        ("/proc/sys/kernel/osrelease", "1", errno.EACCES),
        ("{tmp}", "1", errno.EISDIR),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else None,
)
def test_what_the_kernel_refuses_keeps_its_errno(agent, tmp_path, path, data, code):
    path = path.format(tmp=tmp_path)
    with pytest.raises(OSError, match=re.escape(f"({path})")) as caught:
        agent.write_file(path, data)
    assert caught.value.errno == code
    assert os.strerror(code) in str(caught.value)
    assert "opening" in str(caught.value) or "writing" in str(caught.value)


def test_a_missing_file_is_enoent_everywhere(agent, tmp_path):
    missing = str(tmp_path / "missing")
    for look in (agent.read_file, agent.list, agent.link, agent.stat):
        with pytest.raises(OSError, match="No such file") as caught:
            look(missing)
        assert caught.value.errno == errno.ENOENT
    assert not agent.exists(missing)
    assert agent.glob(f"{missing}*") == ()


def test_folders_links_and_kinds(agent, tmp_path):
    (tmp_path / "a file").write_bytes(b"12")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "nowhere").symlink_to("/no/where")
    here = str(tmp_path)
    assert agent.list(here) == (
        Entry("a file", "file"),
        Entry("folder", "folder"),
        Entry("link", "link", "folder"),
        Entry("nowhere", "link", "/no/where"),
    )
    assert (agent.link(f"{here}/link"), agent.real_path(f"{here}/link")) == ("folder", f"{here}/folder")
    assert agent.exists(f"{here}/nowhere")
    assert agent.glob(f"{here}/*f*") == (f"{here}/a file", f"{here}/folder")
    seen = agent.stat(f"{here}/a file")
    assert (seen.kind, seen.size, seen.mtime_ns) == ("file", 2, (tmp_path / "a file").stat().st_mtime_ns)


def test_a_name_that_is_no_utf8_goes_there_and_back(agent, tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(path)).write_bytes(b"x")
    (entry,) = agent.list(str(tmp_path))
    assert agent.read_file(f"{tmp_path}/{entry.name}") == b"x"


def test_a_path_is_waited_for_until_it_is_there_and_until_it_is_gone(agent, tmp_path):
    path = tmp_path / "virtfn0"
    for act, present in ((path.touch, True), (path.unlink, False)):
        timer = threading.Timer(0.05, act)
        start = time.monotonic()
        timer.start()
        agent.wait_for_path(str(path), within_s=5, present=present)
        assert 0.045 < time.monotonic() - start < 2
        timer.join()


def test_a_value_is_waited_for_and_given(agent, tmp_path):
    path = tmp_path / "state"
    threading.Timer(0.03, path.write_bytes, [b"off\n"]).start()
    threading.Timer(0.06, path.write_bytes, [b"on 4\n"]).start()
    assert agent.wait_for_value(str(path), r"^on (\d)", within_s=5) == "on 4\n"


def test_waiting_in_vain_says_for_what_and_what_was_seen_last(agent, tmp_path):
    (tmp_path / "state").write_bytes(b"off\n")
    with pytest.raises(DeadlineExceeded, match=r"waiting for .*/state to match '\^on'; last seen: b'off"):
        agent.wait_for_value(str(tmp_path / "state"), "^on", within_s=0.05)
    with pytest.raises(DeadlineExceeded, match=r"0\.05 s were not enough: still waiting for /nowhere to appear"):
        agent.wait_for_path("/nowhere", within_s=0.05)


# programs


def test_a_program_gives_its_output_and_status(agent):
    chunks = []
    done = agent.run(
        ["sh", "-c", "cat; echo $WORD; pwd; echo oops >&2; exit 7"],
        input=b"in ",
        env={"WORD": "added"},
        cwd="/usr",
        check=False,
        on_stream=lambda name, data: chunks.append((name, data)),
    )
    assert (done.status, done.text, done.stderr) == (7, "in added\n/usr\n", b"oops\n")
    assert b"".join(data for name, data in chunks if name == "stdout") == done.stdout


def test_much_input_and_output_flow_at_once(agent):
    data = os.urandom(1 << 16) * 40
    assert agent.run(["cat"], input=data).stdout == data


def test_input_that_nobody_reads_is_no_error(agent):
    assert agent.run(["true"], input=bytes(1 << 20)).status == 0


def test_a_program_that_fails_is_an_error_in_its_own_words(agent):
    with pytest.raises(RemoteError, match="run sh -c 'echo no such device >&2; exit 3': exit status 3: no such device"):
        agent.run(["sh", "-c", "echo no such device >&2; exit 3"])
    with pytest.raises(RemoteError, match="killed by signal 9"):
        agent.run(["sh", "-c", "kill -9 $$"])


def test_a_program_that_does_not_exist_is_enoent(agent):
    with pytest.raises(OSError, match="starting no-such-program") as caught:
        agent.run(["no-such-program"])
    assert caught.value.errno == errno.ENOENT


def test_a_program_without_end_is_stopped_when_it_prints_too_much(agent, monkeypatch):
    monkeypatch.setattr("harness.agent.client.OUTPUT_LIMIT_BYTES", 1 << 16)
    with pytest.raises(RemoteError, match=r"run yes .*: it printed more than 65536 bytes"):
        agent.run(["yes"])
    assert agent.call("ping")


def test_a_program_is_killed_at_its_deadline(agent):
    with pytest.raises(DeadlineExceeded, match=r"0\.1 s were not enough: still running sleep 64"):
        agent.run(["sleep", "64"], deadline_s=0.1)


def test_an_agent_that_is_killed_ends_the_call_with_how_it_died(tmp_path):
    local = LocalAgent()
    with local as agent:
        threading.Timer(0.1, local.process.kill).start()
        start = time.monotonic()
        with pytest.raises(TransportFailed, match="exit status -9"):
            agent.wait_for_path("/nowhere", within_s=30)
        assert time.monotonic() - start < 3


def test_an_agent_that_cannot_start_says_why(tmp_path):
    with (
        pytest.raises(TransportFailed, match=r"exit status 1: .*No module named no_such_module"),
        LocalAgent(prefix=(sys.executable, "-m", "no_such_module")),
    ):
        pass
    with pytest.raises(TransportFailed, match=r"start the agent .*No such file"), LocalAgent(python="/no/python"):
        pass
