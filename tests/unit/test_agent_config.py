"""Configuration space and function level reset, on a function made of a plain file; under two Pythons."""

from __future__ import annotations

import errno
import os
import threading
import time

import agent_kit
import pytest
from agent_kit import CAP, COMMAND, DEVICE_CONTROL, DEVICE_STATUS, PF

from harness.errors import RemoteError


@pytest.fixture(scope="module")
def sysfs(tmp_path_factory):
    return tmp_path_factory.mktemp("sysfs")


@pytest.fixture(scope="module")
def folder(sysfs):
    return agent_kit.fake_sysfs(sysfs)


@pytest.fixture(scope="module", params=["this", "oldest"])
def agent(request, sysfs):
    with agent_kit.local_agent(request.param, sysfs) as started:
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
    threading.Timer(0.1, put, [config, 0x44, 4, 0x8000_0001]).start()
    seen = agent.config_poll(PF, 0x44, 4, mask=0x8000_0000, value=0x8000_0000, timeout_s=3, keep=5)
    assert seen.matched
    assert (seen.first, seen.last) == (1 << 28, 0x8000_0001)
    assert 10e6 < seen.elapsed_ns < 2e9
    assert seen.reads > 50
    assert 0 < seen.longest_gap_ns < seen.elapsed_ns
    assert [value for _, value in seen.samples] == [1 << 28] * 4 + [0x8000_0001]
    assert seen.samples[-1][0] == seen.elapsed_ns


def test_a_poll_that_times_out_is_a_result(agent, config):
    put(config, COMMAND, 2, 0x0006)
    seen = agent.config_poll(PF, COMMAND, 2, mask=0x4, value=0x4, equal=False, timeout_s=0.03)
    assert (seen.matched, seen.samples) == (False, ())
    assert 30e6 <= seen.elapsed_ns < 2e9


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
    assert 60e6 < seen.ready_ns < 1.5e9
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
