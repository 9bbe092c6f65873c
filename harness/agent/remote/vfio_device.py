"""A function held through VFIO: container, group, device, its mappings, eventfds and DMA buffers.

Legacy group and type1v2 container: Debian's 6.12 kernel has no IOMMUFD.
"""

# pathlib costs a slow guest more to import than this file does:
# ruff: noqa: PTH115, PTH119, PTH208

from __future__ import annotations

import fcntl
import mmap
import os
import threading

from harness.agent.remote import vfio_abi as abi
from harness.agent.remote.bars import cells
from harness.agent.remote.calls import Failure, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from harness.agent.remote.calls import Call

PAGE = mmap.PAGESIZE
COMMAND, MEMORY_SPACE = 0x04, 1 << 1
EFD_CLOEXEC, EFD_NONBLOCK = 0o2000000, 0o4000  # sys/eventfd.h: the same as O_CLOEXEC and O_NONBLOCK


def ask(fd: int, request: int, argument: bytearray) -> bytearray:
    """One ioctl that fills ``argument``; a positive return value is a refusal ("only n of them")."""
    result = fcntl.ioctl(fd, request, argument, True)
    if isinstance(result, int) and result > 0:
        raise Failure("internal", f"the kernel can do only {result} of what was asked")
    return argument


def eventfd() -> int:
    """A non-blocking event counter; ``os.eventfd`` is Python 3.10."""
    if hasattr(os, "eventfd"):
        return int(os.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "eventfd")
    return int(fd)


class Container:
    """One group in an IOMMU container of its own."""

    def __init__(self, call: Call, group: str) -> None:
        self.fd = self.group_fd = -1
        try:
            call.at("opening /dev/vfio/vfio")
            self.fd = os.open("/dev/vfio/vfio", os.O_RDWR | os.O_CLOEXEC)
            version = fcntl.ioctl(self.fd, abi.GET_API_VERSION)
            if version != abi.API_VERSION or not fcntl.ioctl(self.fd, abi.CHECK_EXTENSION, abi.TYPE1V2_IOMMU):
                raise Failure("internal", f"VFIO API {version} without type1v2; is the module vfio_iommu_type1 loaded?")
            call.at(f"opening /dev/vfio/{group} (EBUSY: another program holds the group)")
            self.group_fd = os.open(f"/dev/vfio/{group}", os.O_RDWR | os.O_CLOEXEC)
            self._attach(call, group)
        except BaseException:
            self.close()
            raise

    def _attach(self, call: Call, group: str) -> None:
        call.at(f"asking whether IOMMU group {group} is viable")
        _, flags = abi.GROUP_STATUS.unpack(ask(self.group_fd, abi.GROUP_GET_STATUS, abi.group_status()))
        if not flags & abi.GROUP_VIABLE:
            members = ", ".join(_members(call, group))
            raise usage(
                f"IOMMU group {group} is not viable: a device in it has another driver ({members})",
                f"/dev/vfio/{group}",
            )
        call.at(f"giving IOMMU group {group} to a container")
        fcntl.ioctl(self.group_fd, abi.GROUP_SET_CONTAINER, self.fd.to_bytes(4, "little"))
        call.at("choosing the type1v2 IOMMU (EPERM: no interrupt remapping; the vIOMMU needs intremap=on)")
        fcntl.ioctl(self.fd, abi.SET_IOMMU, abi.TYPE1V2_IOMMU)

    def close(self) -> None:
        for fd in (self.group_fd, self.fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.group_fd = -1


def _members(call: Call, group: str) -> list[str]:
    """The devices of a group with their drivers."""
    pci = f"{call.run.server.sysfs}/bus/pci/devices"
    try:
        names = sorted(os.listdir(f"{call.run.server.sysfs}/kernel/iommu_groups/{group}/devices"))
    except OSError:
        return ["its devices cannot be listed"]
    return [f"{name} {driver_of(f'{pci}/{name}') or 'no driver'}" for name in names]


def driver_of(folder: str) -> str:
    """The name of the driver that a device in sysfs is bound to, or an empty string."""
    try:
        return os.path.basename(os.readlink(f"{folder}/driver"))
    except OSError:
        return ""


class Device:
    """One function. ``lock`` is held by everything that uses it, waiting for interrupts apart."""

    def __init__(self, call: Call, bdf: str, group: str, vf_token: str) -> None:
        self.bdf = bdf
        self.group = group
        self.lock = threading.RLock()
        self.closed = False
        self.eventfds: dict[int, list[int]] = {}
        self.buffers: dict[int, mmap.mmap] = {}
        self._views: dict[tuple[int, int, int], memoryview] = {}
        self._maps: dict[tuple[int, int], mmap.mmap] = {}
        self.fd = -1
        self.container = Container(call, group)
        try:
            name = f"{bdf} vf_token={vf_token}" if vf_token else bdf
            call.at(f"getting {bdf} from IOMMU group {group} (EACCES: the PF's user set a VF token)")
            self.fd = int(
                fcntl.ioctl(self.container.group_fd, abi.GROUP_GET_DEVICE_FD, bytearray(name.encode() + b"\0"), True)
            )
            call.at(f"asking what {bdf} consists of")
            _, self.flags, regions, irqs = abi.DEVICE_INFO.unpack(ask(self.fd, abi.DEVICE_GET_INFO, abi.device_info()))
            self.regions = {region.index: region for region in map(self._region, range(min(regions, 256))) if region}
            self.irqs = {index: irq for index, irq in enumerate(map(self._irq, range(min(irqs, 256)))) if irq}
        except BaseException:
            self.close()
            raise

    def _region(self, index: int) -> abi.Region | None:
        """None for one that this device lacks (the VGA region: EINVAL) or that is empty."""
        try:
            raw = ask(self.fd, abi.DEVICE_GET_REGION_INFO, abi.region_info(index))
            needed = abi.REGION_INFO.unpack_from(raw)[0]
            if abi.REGION_INFO.size < needed <= abi.MOST_INFO_BYTES:
                raw = ask(self.fd, abi.DEVICE_GET_REGION_INFO, abi.region_info(index, needed))
        except OSError:
            return None
        region = abi.Region(raw)
        return region if region.size else None

    def _irq(self, index: int) -> tuple[int, int] | None:
        """(count, flags), or None for an index that this device lacks."""
        try:
            _, flags, _, count = abi.IRQ_INFO.unpack(ask(self.fd, abi.DEVICE_GET_IRQ_INFO, abi.irq_info(index)))
        except OSError:
            return None
        return (count, flags) if count else None

    # access

    def load(self, region: int, offset: int, width: int) -> int:
        """One aligned read of exactly this width."""
        found = self._checked(region, offset, width)
        view = self._view(found, offset, width)
        if view is None:
            raw = os.pread(self.fd, width, found.offset + offset)
            if len(raw) != width:
                raise Failure("internal", f"{len(raw)} of {width} bytes at {offset:#x} of region {region}", self.bdf)
            return int.from_bytes(raw, "little")
        cells, first = view
        return int(cells[(offset - first) // width])

    def store(self, region: int, offset: int, width: int, value: int) -> None:
        """One aligned write of exactly this width."""
        found = self._checked(region, offset, width)
        if value >> (8 * width):
            raise usage(f"{value:#x} does not fit into {width} bytes")
        view = self._view(found, offset, width)
        if view is None:
            written = os.pwrite(self.fd, value.to_bytes(width, "little"), found.offset + offset)
            if written != width:
                raise Failure(
                    "internal", f"short write: {written} of {width} bytes at {offset:#x} of region {region}", self.bdf
                )
            return
        cells, first = view
        cells[(offset - first) // width] = value

    def block(self, region: int, offset: int, size: int) -> bytes:
        """Many bytes by one pread(2), in whatever accesses the kernel makes of it."""
        found = self._checked(region, offset, size, aligned=False)
        return os.pread(self.fd, size, found.offset + offset)

    def _checked(self, region: int, offset: int, width: int, *, aligned: bool = True) -> abi.Region:
        found = self.regions.get(region)
        if found is None:
            raise usage(f"{self.bdf} has no region {region}; it has {', '.join(map(str, self.regions))}")
        if offset + width > found.size or (aligned and offset % width):
            raise usage(
                f"{width} bytes at {offset:#x} of region {region} ({found.size:#x} bytes): beyond its end or unaligned"
            )
        return found

    def _view(self, region: abi.Region, offset: int, width: int) -> tuple[memoryview, int] | None:
        """The mapping that covers an access and where it begins; None: use pread(2).

        A memoryview of a native format moves one item by one load or store of its width. The CPU would get SIGBUS while
        Memory Space is off (and we with it), where pread(2) gives EIO: so that bit is looked at first. VFIO emulates it
        for VFs.
        """
        area = next((area for area in region.areas if area[0] <= offset and offset + width <= area[0] + area[1]), None)
        if area is None:
            return None
        command = os.pread(self.fd, 2, self.regions[abi.CONFIG_REGION].offset + COMMAND)
        if not int.from_bytes(command, "little") & MEMORY_SPACE or command == b"\xff\xff":
            return None
        key = (region.index, area[0], width)
        if key not in self._views:
            self._views[key] = cells(memoryview(self._map(region, area)), width)
        return self._views[key], area[0]

    def _map(self, region: abi.Region, area: tuple[int, int]) -> mmap.mmap:
        key = (region.index, area[0])
        if key not in self._maps:
            access = (mmap.PROT_READ if region.flags & abi.REGION_READ else 0) | (
                mmap.PROT_WRITE if region.flags & abi.REGION_WRITE else 0
            )
            size = -(-area[1] // PAGE) * PAGE  # a BAR below a page has one to itself, or would not be mappable
            self._maps[key] = mmap.mmap(self.fd, size, mmap.MAP_SHARED, access, offset=region.offset + area[0])
        return self._maps[key]

    # the end

    def disable_irqs(self, index: int) -> None:
        """Tear the index down and close its eventfds."""
        fds = self.eventfds.pop(index, [])
        try:
            ask(self.fd, abi.DEVICE_SET_IRQS, abi.disable_irqs(index))
        finally:
            for fd in fds:
                os.close(fd)

    def close(self) -> None:
        """Give everything back to the kernel; the device is reset by it. Harmless twice."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            for fds in self.eventfds.values():
                for fd in fds:
                    os.close(fd)
            for view in self._views.values():
                view.release()
            for area in self._maps.values():
                area.close()  # it holds a duplicate of our descriptor
            if self.fd >= 0:
                os.close(self.fd)
            self.container.close()
            for buffer in self.buffers.values():
                buffer.close()
