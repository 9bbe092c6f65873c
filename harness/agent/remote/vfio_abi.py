"""The VFIO ioctls and their structures (kernel uapi ``linux/vfio.h``), as functions from values to bytes and back.

No file is opened here. Every structure begins with ``argsz``; a capability chain is bounded, because a loop in it is as
hostile as one in configuration space.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

_BASE = (ord(";") << 8) + 100  # VFIO_TYPE, VFIO_BASE; the numbers carry neither size nor direction
GET_API_VERSION = _BASE + 0
CHECK_EXTENSION = _BASE + 1
SET_IOMMU = _BASE + 2
GROUP_GET_STATUS = _BASE + 3
GROUP_SET_CONTAINER = _BASE + 4
GROUP_GET_DEVICE_FD = _BASE + 6
DEVICE_GET_INFO = _BASE + 7
DEVICE_GET_REGION_INFO = _BASE + 8
DEVICE_GET_IRQ_INFO = _BASE + 9
DEVICE_SET_IRQS = _BASE + 10
DEVICE_RESET = _BASE + 11
IOMMU_MAP_DMA = _BASE + 13
IOMMU_UNMAP_DMA = _BASE + 14

API_VERSION = 0
TYPE1V2_IOMMU = 3
GROUP_VIABLE = 1 << 0
DEVICE_RESETTABLE = 1 << 0
REGION_READ, REGION_WRITE, REGION_MMAP, REGION_CAPS = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REGION_CAP_SPARSE_MMAP, REGION_CAP_MSIX_MAPPABLE = 1, 3
CONFIG_REGION = 7
MSIX_INDEX = 2
DATA_NONE, DATA_EVENTFD, ACTION_TRIGGER = 1 << 0, 1 << 2, 1 << 5
DMA_READ, DMA_WRITE = 1 << 0, 1 << 1
MOST_CAPABILITIES = 32
MOST_INFO_BYTES = 1 << 16

GROUP_STATUS = struct.Struct("=II")  # argsz, flags
DEVICE_INFO = struct.Struct("=IIII")  # argsz, flags, num_regions, num_irqs
REGION_INFO = struct.Struct("=IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
IRQ_INFO = struct.Struct("=IIII")  # argsz, flags, index, count
IRQ_SET = struct.Struct("=IIIII")  # argsz, flags, index, start, count; then data
DMA_MAP = struct.Struct("=IIQQQ")  # argsz, flags, vaddr, iova, size
DMA_UNMAP = struct.Struct("=IIQQ")  # argsz, flags, iova, size
CAP_HEADER = struct.Struct("=HHI")  # id, version, next
SPARSE_HEADER = struct.Struct("=II")  # nr_areas, reserved
SPARSE_AREA = struct.Struct("=QQ")  # offset, size


def group_status() -> bytearray:
    return bytearray(GROUP_STATUS.pack(GROUP_STATUS.size, 0))


def device_info() -> bytearray:
    return bytearray(DEVICE_INFO.pack(DEVICE_INFO.size, 0, 0, 0))


def region_info(index: int, room: int = REGION_INFO.size) -> bytearray:
    """A question about one region with ``room`` bytes for the answer; the kernel writes back how many it needs."""
    return bytearray(REGION_INFO.pack(room, 0, index, 0, 0, 0).ljust(room, b"\0"))


def irq_info(index: int) -> bytearray:
    return bytearray(IRQ_INFO.pack(IRQ_INFO.size, 0, index, 0))


def set_eventfds(index: int, fds: Sequence[int]) -> bytearray:
    """Trigger eventfds for the vectors from 0 on; -1 leaves a vector without."""
    data = struct.pack(f"={len(fds)}i", *fds)
    return bytearray(IRQ_SET.pack(IRQ_SET.size + len(data), DATA_EVENTFD | ACTION_TRIGGER, index, 0, len(fds)) + data)


def disable_irqs(index: int) -> bytearray:
    """No data and no vectors: the whole index is torn down."""
    return bytearray(IRQ_SET.pack(IRQ_SET.size, DATA_NONE | ACTION_TRIGGER, index, 0, 0))


def fire_irq(index: int, vector: int) -> bytearray:
    """The kernel signals the vector's eventfd as if the device had."""
    return bytearray(IRQ_SET.pack(IRQ_SET.size, DATA_NONE | ACTION_TRIGGER, index, vector, 1))


def dma_map(vaddr: int, iova: int, size: int) -> bytearray:
    """Readable and writable by the device."""
    return bytearray(DMA_MAP.pack(DMA_MAP.size, DMA_READ | DMA_WRITE, vaddr, iova, size))


def dma_unmap(iova: int, size: int) -> bytearray:
    return bytearray(DMA_UNMAP.pack(DMA_UNMAP.size, 0, iova, size))


class Region:
    """One region of a device.

    Attributes:
        index: 0–5 the BARs, 6 the ROM, 7 configuration space.
        size, offset: bytes, and where in the device's descriptor.
        areas: what of it may be mapped, as (offset, size) within the region.
        msix_mappable: the pages with the MSI-X table may be mapped as well.
    """

    def __init__(self, raw: bytes | bytearray) -> None:
        _, self.flags, self.index, first, self.size, self.offset = REGION_INFO.unpack_from(raw)
        self.areas: list[tuple[int, int]] = [(0, self.size)] if self.flags & REGION_MMAP and self.size else []
        self.msix_mappable = False
        for kind, at in capabilities(raw, first if self.flags & REGION_CAPS else 0):
            if kind == REGION_CAP_MSIX_MAPPABLE:
                self.msix_mappable = True
            elif kind == REGION_CAP_SPARSE_MMAP and self.areas:
                self.areas = _sparse_areas(raw, at, self.size)

    def as_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "size": self.size,
            "flags": self.flags,
            "offset": self.offset,
            "areas": self.areas,
            "msix_mappable": self.msix_mappable,
        }


def capabilities(raw: bytes | bytearray, first: int) -> Iterator[tuple[int, int]]:
    """The info capabilities in ``raw``: (id, offset of what follows the header). Ends at nonsense."""
    at = first
    for _ in range(MOST_CAPABILITIES):
        if at < REGION_INFO.size or at + CAP_HEADER.size > len(raw):
            return
        kind, _version, following = CAP_HEADER.unpack_from(raw, at)
        yield kind, at + CAP_HEADER.size
        at = following


def _sparse_areas(raw: bytes | bytearray, at: int, region_size: int) -> list[tuple[int, int]]:
    if at + SPARSE_HEADER.size > len(raw):
        return []
    count = SPARSE_HEADER.unpack_from(raw, at)[0]
    first = at + SPARSE_HEADER.size
    count = min(count, (len(raw) - first) // SPARSE_AREA.size)
    areas = [SPARSE_AREA.unpack_from(raw, first + number * SPARSE_AREA.size) for number in range(count)]
    return [(offset, size) for offset, size in areas if size and offset + size <= region_size]
