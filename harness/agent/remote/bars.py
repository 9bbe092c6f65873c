"""A function's BARs through sysfs ``resourceN``: for a function that no driver holds, and that is not under VFIO.

A kernel with IO_STRICT_DEVMEM refuses the mapping (EINVAL) while a driver has claimed the range
(drivers/pci/pci-sysfs.c, pci_mmap_resource; 6.12).
"""

from __future__ import annotations

import mmap
import os

from harness.agent.remote import verbs
from harness.agent.remote.calls import Call, usage
from harness.agent.remote.config import device_folder


def cells(whole: memoryview, width: int) -> memoryview:
    """Memory as items of 1, 2 or 4 bytes: one item of a native format is one load or store of its width."""
    return whole.cast("B") if width == 1 else whole.cast("H") if width == 2 else whole.cast("I")


def read(call: Call) -> verbs.Result:
    """``{bdf, bar, offset, width}`` → ``value``: one aligned load."""
    return {"value": _access(call, None)}


def write(call: Call) -> verbs.Result:
    """``{bdf, bar, offset, width, value}``: one aligned store."""
    _access(call, call.number("value"))
    return {}


def _access(call: Call, value: int | None) -> int:
    width = call.width()
    offset = call.number("offset")
    path = f"{device_folder(call)}/resource{call.number('bar', high=5)}"
    call.at(f"opening {path}")
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if offset % width or offset + width > size:
            raise usage(f"{width} bytes at {offset:#x} are no aligned access within {size} bytes", path)
        call.at(f"mapping {path}")
        page = offset - offset % mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(fd, min(mmap.ALLOCATIONGRANULARITY, size - page), offset=page) as area:
            return _one(area, width, (offset - page) // width, value)
    finally:
        os.close(fd)


def _one(area: mmap.mmap, width: int, index: int, value: int | None) -> int:
    with memoryview(area) as whole, cells(whole, width) as view:
        if value is None:
            return int(view[index])
        view[index] = value
        return value
