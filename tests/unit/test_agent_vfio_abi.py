"""The structures of VFIO, against linux/vfio.h and against hostile capability chains."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from harness.agent.remote import vfio_abi as abi

HEADER = Path("/usr/include/linux/vfio.h")
PAGE = 4096
READ_WRITE_MAP = abi.REGION_READ | abi.REGION_WRITE | abi.REGION_MMAP


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("VFIO_GET_API_VERSION", abi.GET_API_VERSION),
        ("VFIO_CHECK_EXTENSION", abi.CHECK_EXTENSION),
        ("VFIO_SET_IOMMU", abi.SET_IOMMU),
        ("VFIO_GROUP_GET_STATUS", abi.GROUP_GET_STATUS),
        ("VFIO_GROUP_SET_CONTAINER", abi.GROUP_SET_CONTAINER),
        ("VFIO_GROUP_GET_DEVICE_FD", abi.GROUP_GET_DEVICE_FD),
        ("VFIO_DEVICE_GET_INFO", abi.DEVICE_GET_INFO),
        ("VFIO_DEVICE_GET_REGION_INFO", abi.DEVICE_GET_REGION_INFO),
        ("VFIO_DEVICE_GET_IRQ_INFO", abi.DEVICE_GET_IRQ_INFO),
        ("VFIO_DEVICE_SET_IRQS", abi.DEVICE_SET_IRQS),
        ("VFIO_DEVICE_RESET", abi.DEVICE_RESET),
        ("VFIO_IOMMU_MAP_DMA", abi.IOMMU_MAP_DMA),
        ("VFIO_IOMMU_UNMAP_DMA", abi.IOMMU_UNMAP_DMA),
    ],
)
def test_ioctl_numbers_are_the_kernels(name, number):
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is not installed (linux-libc-dev)")
    found = re.search(rf"#define\s+{name}\s+_IO\(VFIO_TYPE, VFIO_BASE \+ (\d+)\)", HEADER.read_text())
    assert found is not None
    assert number == (ord(";") << 8) + 100 + int(found[1])


def test_structures_have_the_kernels_sizes():
    """As gcc gives them on x86_64 for linux/vfio.h of 6.1; vfio_device_info without what follows num_irqs."""
    sizes = {
        abi.GROUP_STATUS: 8,
        abi.DEVICE_INFO: 16,
        abi.REGION_INFO: 32,
        abi.IRQ_INFO: 16,
        abi.IRQ_SET: 20,
        abi.DMA_MAP: 32,
        abi.DMA_UNMAP: 24,
        abi.CAP_HEADER: 8,
        abi.SPARSE_HEADER: 8,
        abi.SPARSE_AREA: 16,
    }
    assert {form.format: form.size for form in sizes} == {form.format: size for form, size in sizes.items()}


def test_questions_to_the_kernel_byte_by_byte():
    words = struct.Struct("<IIIII")
    assert abi.set_eventfds(2, [9, -1]) == words.pack(28, 0x24, 2, 0, 2) + struct.pack("<ii", 9, -1)
    assert abi.disable_irqs(2) == words.pack(20, 0x21, 2, 0, 0)
    assert abi.fire_irq(2, 5) == words.pack(20, 0x21, 2, 5, 1)
    assert abi.dma_map(0x7F00_0000_1000, 1 << 40, PAGE) == struct.pack("<IIQQQ", 32, 3, 0x7F00_0000_1000, 1 << 40, PAGE)
    assert abi.dma_unmap(1 << 40, PAGE) == struct.pack("<IIQQ", 24, 0, 1 << 40, PAGE)
    assert abi.region_info(3, 64) == struct.pack("<IIIIQQ", 64, 0, 3, 0, 0, 0) + bytes(32)
    assert (abi.group_status(), abi.device_info()[:4]) == (struct.pack("<II", 8, 0), struct.pack("<I", 16))
    assert abi.irq_info(2) == struct.pack("<IIII", 16, 0, 2, 0)


def region_answer(flags: int, *caps: bytes, size: int = 0x4000) -> bytes:
    """A region's info with its capabilities, each ``(id, body)`` packed by ``cap``."""
    first = 32 if caps else 0
    return struct.pack("<IIIIQQ", 32 + sum(map(len, caps)), flags, 3, first, size, 3 << 40) + b"".join(caps)


def cap(kind: int, following: int, body: bytes = b"") -> bytes:
    return struct.pack("<HHI", kind, 1, following) + body


def sparse(following: int, *areas: tuple[int, int]) -> bytes:
    return cap(1, following, struct.pack("<II", len(areas), 0) + b"".join(struct.pack("<QQ", *area) for area in areas))


@pytest.mark.parametrize(
    ("raw", "areas", "mappable"),
    [
        (region_answer(READ_WRITE_MAP), [(0, 0x4000)], False),
        (region_answer(abi.REGION_READ), [], False),
        (region_answer(READ_WRITE_MAP | 8, cap(3, 0)), [(0, 0x4000)], True),
        (region_answer(READ_WRITE_MAP | 8, sparse(0, (0x1000, 0x3000))), [(0x1000, 0x3000)], False),
        (region_answer(READ_WRITE_MAP | 8, cap(3, 40), sparse(0, (0, 0x1000))), [(0, 0x1000)], True),
        (region_answer(READ_WRITE_MAP | 8, sparse(0)), [], False),
        (region_answer(READ_WRITE_MAP | 8, sparse(0, (0, 0x5000))), [], False),
        (region_answer(READ_WRITE_MAP, cap(3, 0)), [(0, 0x4000)], False),
    ],
    ids=["whole", "not-mappable", "msix", "sparse", "both", "sparse-nothing", "beyond-the-end", "caps-flag-unset"],
)
def test_what_may_be_mapped_is_read_from_the_capabilities(raw, areas, mappable):
    region = abi.Region(raw)
    assert (region.index, region.size, region.offset) == (3, 0x4000, 3 << 40)
    assert (region.areas, region.msix_mappable) == (areas, mappable)


@pytest.mark.parametrize(
    "raw",
    [
        region_answer(READ_WRITE_MAP | 8, cap(9, 32)),
        region_answer(READ_WRITE_MAP | 8, cap(9, 0xFFFF_FFF0)),
        region_answer(READ_WRITE_MAP | 8, cap(9, 4)),
        region_answer(READ_WRITE_MAP | 8, cap(1, 0)),
        region_answer(READ_WRITE_MAP | 8, cap(1, 0, struct.pack("<II", 1 << 31, 0))),
        region_answer(READ_WRITE_MAP | 8),
    ],
    ids=["loop", "far", "back", "no-body", "too-many-areas", "no-chain"],
)
def test_a_nonsensical_chain_ends(raw):
    assert abi.Region(raw).size == 0x4000
