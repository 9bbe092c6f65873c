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
from agent_kit import CAP, COMMAND, DEVICE_CONTROL, DEVICE_STATUS, PF

from harness.agent.local import LocalAgent
from harness.agent.results import Entry
from harness.errors import DeadlineExceeded, RemoteError, TransportFailed


@pytest.fixture(scope="module")
def sysfs(tmp_path_factory):
    return tmp_path_factory.mktemp("sysfs")


@pytest.fixture(scope="module")
def folder(sysfs):
    return agent_kit.fake_sysfs(sysfs)


@pytest.fixture(scope="module", params=["this", "oldest"])
def agent(request, sysfs):
    python = sys.executable if request.param == "this" else agent_kit.oldest_python()
    if python is None:
        pytest.skip(f"this computer has no Python {agent_kit.OLDEST}, the oldest that the agent must run on")
    with LocalAgent(python=python, options=("--sysfs", str(sysfs))) as started:
        yield started


@pytest.fixture
def config(folder):
    """The fake configuration space, open, and as it was afterwards."""
    path = folder / "config"
    before = path.read_bytes()
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)
    path.write_bytes(before)


def put(fd: int, offset: int, width: int, value: int) -> None:
    os.pwrite(fd, value.to_bytes(width, "little"), offset)


def get(fd: int, offset: int, width: int) -> int:
    return int.from_bytes(os.pread(fd, width, offset), "little")


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
    with pytest.raises(OSError, match=re.escape(path)) as caught:
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
        assert 0.045 < time.monotonic() - start < 0.4
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


# configuration space


def test_registers_are_read_and_written_in_their_width(agent, config):
    assert agent.config_read(PF, 0, 4) == 0x903810EE
    assert agent.config_read(PF, 0, 2) == 0x10EE
    agent.config_write(PF, COMMAND, 2, 0x0547)
    agent.config_write(PF, 0x3C, 1, 0xAB)
    agent.config_write(PF, 0x100, 4, 0xDEADBEEF)
    assert (get(config, COMMAND, 4), get(config, 0x3C, 2), get(config, 0x100, 4)) == (0x00100547, 0xAB, 0xDEADBEEF)
    assert agent.config_space(PF) == os.pread(config, 4096, 0)


def test_truncated_configuration_space_is_not_taken_for_zeros(agent, config, folder):
    os.truncate(folder / "config", 64)
    assert len(agent.config_space(PF)) == 64
    with pytest.raises(RemoteError, match=r"read 4 bytes .* at 0x40 \(0000:26:00.0\): 0 bytes\n  → beyond 64"):
        agent.config_read(PF, 0x40, 4)
    with pytest.raises(RemoteError, match="without root the kernel shows 64"):
        agent.flr(PF, pcie_cap_offset=CAP)
    os.truncate(folder / "config", 4096)


def test_a_missing_function_is_enoent(agent):
    with pytest.raises(OSError, match=r"/bus/pci/devices/0000:ff:00\.0/config") as caught:
        agent.config_space("0000:FF:00.0")
    assert caught.value.errno == errno.ENOENT


def test_a_poll_ends_when_the_register_changes(agent, config):
    threading.Timer(0.05, put, [config, 0x44, 4, 0x8000_0001]).start()
    seen = agent.config_poll(PF, 0x44, 4, mask=0x8000_0000, value=0x8000_0000, timeout_s=3, keep=5)
    assert seen.matched
    assert (seen.first, seen.last) == (1 << 28, 0x8000_0001)
    assert 30e6 < seen.elapsed_ns < 500e6
    assert seen.reads > 100
    assert 0 < seen.longest_gap_ns < seen.elapsed_ns
    assert [value for _, value in seen.samples] == [1 << 28] * 4 + [0x8000_0001]
    assert seen.samples[-1][0] == seen.elapsed_ns


def test_a_poll_that_times_out_is_a_result(agent, config):
    put(config, COMMAND, 2, 0x0006)
    seen = agent.config_poll(PF, COMMAND, 2, mask=0x4, value=0x4, equal=False, timeout_s=0.03)
    assert (seen.matched, seen.samples) == (False, ())
    assert 30e6 <= seen.elapsed_ns < 300e6


def test_a_poll_with_an_interval_leaves_the_device_alone_in_between(agent):
    seen = agent.config_poll(PF, 0, 4, mask=0, value=1, timeout_s=0.05, interval_s=0.01)
    assert 2 <= seen.reads <= 7
    assert seen.longest_gap_ns >= 10_000_000


# function level reset


class FakeFunction(threading.Thread):
    """A function behind a plain file: answers all ones from the reset on, for ``away_s``."""

    def __init__(self, fd: int, *, away_s: float, vendor: int = 0xFFFFFFFF) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self._away_s = away_s
        self._vendor = vendor
        self.seen_command = -1
        self.start()

    def run(self) -> None:
        until = time.monotonic() + 3
        while not get(self._fd, DEVICE_CONTROL, 2) & 0x8000 and time.monotonic() < until:
            time.sleep(0.0002)  # noqa: TID251
        self.seen_command = get(self._fd, COMMAND, 2)
        before = get(self._fd, 0, 4)
        put(self._fd, 0, 4, self._vendor)
        put(self._fd, COMMAND, 4, 0xFFFFFFFF)
        time.sleep(self._away_s)  # noqa: TID251
        put(self._fd, 0, 4, before)
        put(self._fd, COMMAND, 4, 0x00100000)


def test_a_reset_is_timed_between_two_reads(agent, config):
    function = FakeFunction(config, away_s=0.08, vendor=0xFFFF0001)
    seen = agent.flr(PF, pcie_cap_offset=CAP, timeout_s=2, hold_s=0.02)
    function.join()
    assert (seen.ready, seen.all_ones, seen.rrs, seen.relapsed) == (True, True, True, False)
    assert 60e6 < seen.ready_ns < 400e6
    assert 20e6 < seen.not_ready_ns < seen.ready_ns
    assert seen.ready_from_before_write_ns == seen.ready_ns + seen.write_ns > seen.ready_ns
    assert seen.longest_gap_ns >= 20e6, "the hold is a gap of the ruler, and is said"
    assert function.seen_command == 0, "Command was cleared before the reset"
    assert (seen.command, seen.device_control) == (0x0406, 0x2810)
    assert get(config, DEVICE_CONTROL, 2) == 0x2810 | 0x8000, "read-modify-write"
    values = [value for _, value in seen.samples]
    assert len(values) == 64
    assert values == [0xFFFFFFFF] * 47 + [0x00100000] * 17


def test_a_function_that_is_never_away_is_ready_at_the_first_read(agent, config):
    seen = agent.flr(PF, pcie_cap_offset=CAP)
    assert (seen.ready, seen.all_ones, seen.reads, seen.not_ready_ns) == (True, False, 1, -1)
    assert len(seen.samples) == 17


def test_a_function_that_does_not_come_back_is_a_result(agent, config):
    function = FakeFunction(config, away_s=0.12)
    seen = agent.flr(PF, pcie_cap_offset=CAP, timeout_s=0.05, hold_s=0.02)
    assert (seen.ready, seen.ready_ns, seen.rrs) == (False, -1, False)
    assert seen.ready_from_before_write_ns == -1
    assert seen.not_ready_ns > 0
    assert seen.reads > 10
    function.join()


def test_transactions_that_stay_pending_are_said(agent, config):
    put(config, DEVICE_STATUS, 2, 0x20)
    seen = agent.flr(PF, pcie_cap_offset=CAP)
    assert (seen.pending, seen.pending_after) == (True, True)


@pytest.mark.parametrize(
    ("offset", "width", "value", "words"),
    [(CAP, 1, 0x05, "no PCI Express capability at 0x40"), (CAP + 4, 4, 0, r"does not offer FLR \(Device Cap")],
    ids=["not-express", "no-flr"],
)
def test_a_function_that_cannot_be_reset_is_not_written_to(agent, config, offset, width, value, words):
    put(config, offset, width, value)
    before = os.pread(config, 4096, 0)
    with pytest.raises(RemoteError, match=words):
        agent.flr(PF, pcie_cap_offset=CAP)
    assert os.pread(config, 4096, 0) == before


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


# vfio, as far as it goes without a device


def test_a_function_with_another_driver_is_not_opened(agent, folder):
    with pytest.raises(RemoteError, match="bound to no driver; it must be bound to vfio-pci"):
        agent.vfio(PF)
    (folder / "driver").symlink_to("/sys/bus/pci/drivers/igbvf")
    with pytest.raises(RemoteError, match="bound to igbvf; it must"):
        agent.vfio(PF)
    (folder / "driver").unlink()
    (folder / "driver").symlink_to("/sys/bus/pci/drivers/vfio-pci")
    with pytest.raises(RemoteError, match="in no IOMMU group: is there an IOMMU"):
        agent.vfio(PF)
    with pytest.raises(RemoteError, match="'token' is no UUID"):
        agent.vfio(PF, vf_token="token")
    (folder / "driver").unlink()


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
