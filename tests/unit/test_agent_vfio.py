"""VFIO without a device: mappings of a plain file, interrupts by real eventfds."""

# Stand-ins for an ioctl take what they need of (fd, request, argument):
# ruff: noqa: ARG005

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.agent.remote import vfio, vfio_device, vfio_dma, vfio_irqs
from harness.agent.remote import vfio_abi as abi
from harness.agent.remote.calls import Call, Failure
from harness.agent.remote.vfio_device import PAGE, Device

BAR_AT, CONFIG_AT = 0, 4 * PAGE  # of the plain file that stands for the device
READ_WRITE_MAP = abi.REGION_READ | abi.REGION_WRITE | abi.REGION_MMAP


# registers: a plain file stands for the device


@pytest.fixture
def device(tmp_path):
    """BAR 0 of two pages of which the first may be mapped, and configuration space, in one file."""
    path = tmp_path / "device"
    path.write_bytes(bytes(CONFIG_AT + 4096))
    made = Device.__new__(Device)
    made.bdf, made.lock, made.closed = "0000:01:10.0", threading.RLock(), False
    made.eventfds, made.buffers, made._views, made._maps = {}, {}, {}, {}
    made.irqs = {2: (3, 1)}
    made.fd = os.open(path, os.O_RDWR)
    made.container = SimpleNamespace(close=lambda: None, fd=-1)
    bar = abi.Region(struct.pack("<IIIIQQ", 32, READ_WRITE_MAP, 0, 0, 2 * PAGE, BAR_AT))
    bar.areas = [(0, PAGE)]
    config = abi.Region(struct.pack("<IIIIQQ", 32, abi.REGION_READ | abi.REGION_WRITE, 7, 0, 4096, CONFIG_AT))
    made.regions = {0: bar, 7: config}
    yield made
    made.close()


def memory_space(device: Device, on: bool) -> None:
    device.store(7, 4, 2, 0x0002 if on else 0)


@pytest.mark.parametrize("on", [True, False], ids=["mapped", "by-pwrite"])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_registers_are_accessed_in_their_width(device, width, on):
    memory_space(device, on)
    device.store(0, 8, width, (1 << 8 * width) - 2)
    assert device.load(0, 8, width) == (1 << 8 * width) - 2
    assert os.pread(device.fd, 5, BAR_AT + 8) == ((1 << 8 * width) - 2).to_bytes(width, "little").ljust(5, b"\0")
    assert bool(device._maps) is on, "no mapping is touched while Memory Space is off: that would be SIGBUS"


def test_what_may_not_be_mapped_goes_by_pread(device):
    memory_space(device, True)
    device.store(0, PAGE, 4, 7)
    assert device.load(0, PAGE, 4) == 7
    assert not device._maps


def test_a_function_that_answers_all_ones_is_not_touched_through_a_mapping(device):
    device.store(7, 4, 2, 0xFFFF)
    device.load(0, 0, 4)
    assert not device._maps


@pytest.mark.parametrize(
    ("region", "offset", "width", "words"),
    [
        (1, 0, 4, "has no region 1; it has 0, 7"),
        (0, 2 * PAGE, 4, "beyond its end or unaligned"),
        (0, 2 * PAGE - 2, 4, "beyond its end or unaligned"),
        (0, 2, 4, "beyond its end or unaligned"),
        (0, 1, 2, "beyond its end or unaligned"),
    ],
)
def test_an_access_that_cannot_be_one_access_is_refused(device, region, offset, width, words):
    with pytest.raises(Failure, match=words):
        device.load(region, offset, width)
    with pytest.raises(Failure, match=words):
        device.store(region, offset, width, 0)


def test_a_value_that_does_not_fit_is_refused(device):
    with pytest.raises(Failure, match="0x100 does not fit into 1 bytes"):
        device.store(0, 0, 1, 0x100)


def test_closing_gives_everything_back(device):
    memory_space(device, True)
    device.load(0, 0, 4)
    device.buffers[0] = vfio_dma.mmap.mmap(-1, PAGE)
    device.eventfds[2] = [vfio_device.eventfd()]
    fds = [device.fd, *device.eventfds[2]]
    mapped = Path("/proc/self/maps").read_text().count("/device")
    assert mapped == 1
    device.close()
    device.close()
    assert Path("/proc/self/maps").read_text().count("/device") == 0
    for fd in fds:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


# verbs


def call(device: Device, verb: str, body: bytes = b"", deadline_s: float = 5.0, **args: object) -> Call:
    run = SimpleNamespace(handles={1: device}, token="t")
    return Call(run, 1, verb, {"handle": 1, **args}, body, deadline_s)


def test_many_writes_are_done_in_order(device):
    rows = [[0, 0, 4, 1], [0, 4, 4, 2], [0, 0, 4, 3]]
    vfio.write_many(call(device, "vfio.write_many", writes=rows))
    assert (device.load(0, 0, 4), device.load(0, 4, 4)) == (3, 2)
    with pytest.raises(Failure, match="a list of \\[region, offset, width, value\\]"):
        vfio.write_many(call(device, "vfio.write_many", writes=[[0, 0, 3, 1]]))


def test_a_closed_device_is_said(device):
    device.close()
    with pytest.raises(Failure, match="has been closed"):
        vfio.read(call(device, "vfio.read", region=0, offset=0))


def test_a_device_that_another_call_holds_is_waited_for_until_the_deadline(device):
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with device.lock:
            taken.set()
            done.wait(5)

    other = threading.Thread(target=hold)
    other.start()
    taken.wait(5)
    with pytest.raises(Failure, match=r"still waiting for another call to be done with 0000:01:10\.0"):
        vfio.read(call(device, "vfio.read", deadline_s=0.1, region=0, offset=0))
    done.set()
    other.join()


def test_memory_for_the_device_is_kept_by_its_address(device, monkeypatch):
    asked = []
    monkeypatch.setattr(vfio_dma, "ask", lambda fd, request, argument: asked.append((request, bytes(argument))))
    vfio_dma.map_buffer(call(device, "vfio.dma_map", iova=0x10000, size=2 * PAGE))
    vfio_dma.write(call(device, "vfio.dma_write", b"data", iova=0x10000 + PAGE - 2))
    assert vfio_dma.read(call(device, "vfio.dma_read", iova=0x10000 + PAGE - 3, size=6)) == ({}, b"\0data\0")
    with pytest.raises(Failure, match=r"no buffer of .* covers 0x2 bytes at 0x11fff"):
        vfio_dma.read(call(device, "vfio.dma_read", iova=0x11FFF, size=2))
    with pytest.raises(Failure, match="multiples of a page"):
        vfio_dma.map_buffer(call(device, "vfio.dma_map", iova=0x10, size=PAGE))
    vfio_dma.unmap(call(device, "vfio.dma_unmap", iova=0x10000))
    with pytest.raises(Failure, match=r"no buffer of .* begins at 0x10000"):
        vfio_dma.unmap(call(device, "vfio.dma_unmap", iova=0x10000))
    assert [request for request, _ in asked] == [abi.IOMMU_MAP_DMA, abi.IOMMU_UNMAP_DMA]
    assert struct.unpack("<IIQQQ", asked[0][1])[3:] == (0x10000, 2 * PAGE)


# interrupts: real eventfds, signalled by the test


@pytest.fixture
def vectors(device):
    device.eventfds[2] = [vfio_device.eventfd() for _ in range(3)]
    return device.eventfds[2]


def wait(device: Device, **args: object) -> dict:
    return vfio_irqs.wait(call(device, "vfio.irq_wait", **args))


def test_interrupts_are_counted_by_vector_doubled_ones_included(device, vectors):
    os.eventfd_write(vectors[0], 1)
    os.eventfd_write(vectors[2], 1)
    os.eventfd_write(vectors[2], 1)
    seen = wait(device, timeout_s=2, expect=3)
    assert (seen["counts"], seen["first_ns"], seen["complete"]) == ([1, 0, 2], [0, -1, 0], True)
    assert wait(device, timeout_s=0.01, expect=0)["counts"] == [0, 0, 0], "each is counted once"


def test_a_late_extra_interrupt_is_seen_in_the_quiet_time(device, vectors):
    for delay in (0.03, 0.08):
        threading.Timer(delay, os.eventfd_write, [vectors[1], 1]).start()
    seen = wait(device, timeout_s=3, expect=1, quiet_s=0.15)
    assert (seen["counts"], seen["complete"]) == ([0, 2, 0], True)
    assert 20e6 < seen["first_ns"][1] < 1e9
    assert 220e6 < seen["elapsed_ns"] < 2e9


def test_too_few_interrupts_are_a_result(device, vectors):
    os.eventfd_write(vectors[0], 1)
    seen = wait(device, timeout_s=0.05, expect=2, quiet_s=0.01)
    assert (seen["counts"], seen["complete"]) == ([1, 0, 0], False)
    assert 50e6 <= seen["elapsed_ns"] < 500e6


def test_the_trigger_is_written_when_the_clock_starts(device, vectors):
    wait(device, timeout_s=0.01, trigger=[[0, 16, 4, 0xCAFE]])
    assert device.load(0, 16, 4) == 0xCAFE


def test_waiting_ends_when_the_call_does(device, vectors):
    waiting = call(device, "vfio.irq_wait", timeout_s=30, expect=1)
    threading.Timer(0.05, waiting.end, ["cancelled"]).start()
    start = time.monotonic()
    with pytest.raises(Failure, match="cancelled waiting for interrupts"):
        vfio_irqs.wait(waiting)
    assert time.monotonic() - start < 1


def test_waiting_without_vectors_is_said(device):
    with pytest.raises(Failure, match=r"vfio\.irq_enable first"):
        wait(device, timeout_s=1)


def test_enabling_gives_the_kernel_an_eventfd_a_vector(device, monkeypatch):
    asked = []
    for module in (vfio_irqs, vfio_device):
        monkeypatch.setattr(module, "ask", lambda fd, request, argument: asked.append(bytes(argument)))
    vfio_irqs.enable(call(device, "vfio.irq_enable", count=2))
    assert asked == [bytes(abi.set_eventfds(2, device.eventfds[2]))]
    first = device.eventfds[2]
    vfio_irqs.enable(call(device, "vfio.irq_enable", count=3))
    assert asked[1:] == [bytes(abi.disable_irqs(2)), bytes(abi.set_eventfds(2, device.eventfds[2]))]
    assert len(device.eventfds[2]) == 3
    with pytest.raises(Failure, match="has 3 vectors of interrupt index 2; 4 were asked for"):
        vfio_irqs.enable(call(device, "vfio.irq_enable", count=4))
    assert first is not device.eventfds[2]


def test_an_enable_that_the_kernel_refuses_leaves_no_descriptors(device, monkeypatch):
    def refuse(fd, request, argument):
        raise OSError(22, "Invalid argument")

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(vfio_irqs, "ask", refuse)
    with pytest.raises(OSError, match="Invalid"):
        vfio_irqs.enable(call(device, "vfio.irq_enable", count=3))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert 2 not in device.eventfds


def test_an_eventfd_of_python_3_9_is_the_same(monkeypatch):
    monkeypatch.delattr(os, "eventfd")
    fd = vfio_device.eventfd()
    with pytest.raises(BlockingIOError):
        os.read(fd, 8)
    os.write(fd, (3).to_bytes(8, "little"))
    assert int.from_bytes(os.read(fd, 8), "little") == 3
    assert not os.get_inheritable(fd)
    os.close(fd)
