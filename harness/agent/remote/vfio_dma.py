"""Memory that a function held through VFIO may read and write."""

from __future__ import annotations

import mmap

from harness.agent import frames
from harness.agent.remote import verbs
from harness.agent.remote import vfio_abi as abi
from harness.agent.remote.calls import Call, usage
from harness.agent.remote.vfio import held
from harness.agent.remote.vfio_device import PAGE, Device, ask

MOST_BUFFER_BYTES = 1 << 28


def map_buffer(call: Call) -> verbs.Result:
    """``{handle, iova, size}``: zeroed memory at an I/O virtual address, both multiples of a page."""
    iova, size = call.number("iova"), call.number("size", low=1, high=MOST_BUFFER_BYTES)
    if iova % PAGE or size % PAGE:
        raise usage(f"iova {iova:#x} and size {size:#x} must be multiples of a page ({PAGE:#x})")
    with held(call) as device:
        buffer = mmap.mmap(-1, size)
        call.at(f"mapping {size:#x} bytes at {iova:#x} for {device.bdf} (EEXIST: that address is taken)")
        try:
            ask(device.container.fd, abi.IOMMU_MAP_DMA, abi.dma_map(_address(buffer), iova, size))
        except BaseException:
            buffer.close()
            raise
        device.buffers[iova] = buffer
    return {}


def _address(buffer: mmap.mmap) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))  # the object goes at once, and with it the export


def unmap(call: Call) -> verbs.Result:
    """``{handle, iova}``: of a whole buffer."""
    iova = call.number("iova")
    with held(call) as device:
        buffer = device.buffers.get(iova)
        if buffer is None:
            raise usage(f"no buffer of {device.bdf} begins at {iova:#x}")
        ask(device.container.fd, abi.IOMMU_UNMAP_DMA, abi.dma_unmap(iova, len(buffer)))
        del device.buffers[iova]
        buffer.close()
    return {}


def read(call: Call) -> verbs.Result:
    """``{handle, iova, size}`` → the bytes as body."""
    iova, size = call.number("iova"), call.number("size", high=frames.MAX_BODY_BYTES)
    with held(call) as device:
        buffer, start = _covering(device, iova, size)
        return {}, buffer[start : start + size]


def write(call: Call) -> verbs.Result:
    """``{handle, iova}`` + body."""
    iova = call.number("iova")
    with held(call) as device:
        buffer, start = _covering(device, iova, len(call.body))
        buffer[start : start + len(call.body)] = call.body
    return {}


def _covering(device: Device, iova: int, size: int) -> tuple[mmap.mmap, int]:
    for first, buffer in device.buffers.items():
        if first <= iova and iova + size <= first + len(buffer):
            return buffer, iova - first
    raise usage(f"no buffer of {device.bdf} covers {size:#x} bytes at {iova:#x}")
