"""One PCI function of a Linux host: its config space, its sysfs attributes, its driver."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.agent.client import Agent
from harness.agent.vfio import VfioDevice
from harness.errors import DeadlineExceeded, LabTrouble
from harness.pci.address import Bdf
from harness.pci.capabilities import STANDARD_BYTES
from harness.pci.layout import COMMAND, Express, Msix
from harness.waiting import wait_until

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
CONFIG_BYTES = 4096
DRIVER_WITHIN_S = 5.0

IORESOURCE_PREFETCH = 0x2000
IORESOURCE_MEM_64 = 0x100000
FIRST_VF_BAR_RESOURCE = 7  # with CONFIG_PCI_IOV: 0-5 BARs, 6 ROM, 7-12 VF BARs (pci.h, 6.12)


@dataclass(frozen=True, slots=True, repr=False)
class Resource:
    """One line of sysfs ``resource``: an address range of the host, both ends included."""

    index: int
    start: int
    end: int
    flags: int

    def __repr__(self) -> str:
        return f"Resource({self.index}: {self.start:#x}-{self.end:#x}, flags {self.flags:#x})"

    @property
    def size(self) -> int:
        return self.end - self.start + 1

    @property
    def width(self) -> int:
        """Bits of an address in its BAR: 32 or 64."""
        return 64 if self.flags & IORESOURCE_MEM_64 else 32

    @property
    def prefetchable(self) -> bool:
        return bool(self.flags & IORESOURCE_PREFETCH)


class Function:
    """A function at an address, seen through the agent of its host. Holds no state: every question is asked anew."""

    def __init__(self, agent: Agent, bdf: Bdf) -> None:
        self._agent = agent
        self.bdf = bdf

    def __str__(self) -> str:
        return str(self.bdf)

    def __repr__(self) -> str:
        """As ``str``, which a failed comparison shows."""
        return str(self)

    @property
    def folder(self) -> str:
        return f"{DEVICES}/{self.bdf}"

    def exists(self) -> bool:
        return self._agent.exists(self.folder)

    def config(self) -> bytes:
        """Its config space, live: 4096 bytes for a PCI Express function and a privileged agent."""
        return self._agent.config_space(str(self.bdf))

    def read_config(self, offset: int, size: int) -> int:
        """A register of 1, 2 or 4 bytes."""
        return self._agent.config_read(str(self.bdf), offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        self._agent.config_write(str(self.bdf), offset, size, value)

    def attribute(self, name: str) -> str:
        """A sysfs attribute's text, without its newline."""
        return self._agent.read_text(f"{self.folder}/{name}").strip()

    def write_attribute(self, name: str, value: str, *, deadline_s: float = 30.0) -> None:
        """Write a sysfs attribute; an OSError carries the kernel's errno."""
        self._agent.write_file(f"{self.folder}/{name}", value.encode(), deadline_s=deadline_s)

    def has_attribute(self, name: str) -> bool:
        return self._agent.exists(f"{self.folder}/{name}")

    def vendor_and_device(self) -> tuple[int, int]:
        """As the kernel holds them; a VF's are made up by the kernel from its PF's."""
        return int(self.attribute("vendor"), 16), int(self.attribute("device"), 16)

    def resources(self) -> tuple[Resource, ...]:
        """Every implemented range."""
        rows = (line.split() for line in self.attribute("resource").splitlines())
        ranges = (Resource(index, *(int(word, 16) for word in row)) for index, row in enumerate(rows))
        return tuple(one for one in ranges if one.flags)

    def iommu_group(self) -> int | None:
        """Its number; None when no IOMMU handles the function."""
        link = f"{self.folder}/iommu_group"
        return int(self._agent.real_path(link).rsplit("/", 1)[1]) if self._agent.exists(link) else None

    def iommu_group_members(self) -> tuple[Bdf, ...]:
        return tuple(sorted(Bdf.parse(entry.name) for entry in self._agent.list(f"{self.folder}/iommu_group/devices")))

    def driver(self) -> str | None:
        """The driver that has it."""
        try:
            return self._agent.link(f"{self.folder}/driver").rsplit("/", 1)[1]
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def unbind(self) -> None:
        """Take it from its driver, if it has one."""
        if self.driver() is not None:
            self.write_attribute("driver/unbind", str(self.bdf))

    def bind(self, driver: str, *, within_s: float = DRIVER_WITHIN_S) -> None:
        """Give it to ``driver`` and no other, whatever IDs that driver lists (driver_override, ABI sysfs-bus-pci)."""
        if (holder := self.driver()) == driver:
            return
        if holder is not None:
            self.write_attribute("driver/unbind", str(self.bdf))
        self.write_attribute("driver_override", driver)
        try:
            wait_until(f"{driver} to take {self}", lambda: self._probe(driver), within_s=within_s)
        except DeadlineExceeded:
            raise LabTrouble(
                f"bind {self.bdf} to {driver}",
                got=f"the kernel gave it to {self.driver() or 'no driver'}",
                fix=f"is the module loaded? try: modprobe {driver}",
            ) from None

    def _probe(self, driver: str) -> bool:
        """Offer it to the drivers once. In vain while the kernel is still adding it (match_driver in pci_bus_match)."""
        self._agent.write_file("/sys/bus/pci/drivers_probe", str(self.bdf).encode(), deadline_s=DRIVER_WITHIN_S)
        return self.driver() == driver

    def open(self) -> VfioDevice:
        """Open it through VFIO; it must be bound to vfio-pci."""
        return VfioDevice(self._agent, str(self.bdf))

    def write_bar(self, bar: int, offset: int, value: int) -> None:
        """A 32-bit write to a BAR of a function whose driver leaves it alone; turns Memory Space on first."""
        self._turn_memory_space_on()
        self._agent.bar_write(str(self.bdf), bar, offset, value)

    def read_bar(self, bar: int, offset: int) -> int:
        """A 32-bit read from a BAR of a function whose driver leaves it alone; turns Memory Space on first."""
        self._turn_memory_space_on()
        return self._agent.bar_read(str(self.bdf), bar, offset)

    def _turn_memory_space_on(self) -> None:
        """The bit is reserved in a VF, whose memory its PF's VF MSE turns on; QEMU's VFs look at it all the same."""
        command = self.read_config(COMMAND.offset, 2)
        self.write_config(COMMAND.offset, 2, command | COMMAND.mask("memory_space"))

    def express(self) -> Express:
        """Its PCI Express capability, read from the device now.

        Raises:
            AssertionError: there is none. That is the endpoint's fault, so it fails the test.
        """
        config = self.config()
        with self.within_bounds():
            found = Express.of(config)
        if found is None:
            raise self.lacks("PCI Express", config, STANDARD_BYTES)
        return found

    def lacks(self, capability: str, config: bytes, needed: int) -> Exception:
        """The error for a capability that is not in ``config``: the endpoint's fault, if ``needed`` bytes were read."""
        if len(config) < needed:
            return LabTrouble(f"read config space of {self}", got=f"{len(config)} bytes of {needed}")
        return AssertionError(f"{self} shows no {capability} capability")

    @contextmanager
    def within_bounds(self) -> Iterator[None]:
        """Around decoding: a capability that runs past the end of config space fails the test."""
        try:
            yield
        except IndexError as error:
            raise AssertionError(f"{self}: {error}") from error

    def msix(self) -> Msix | None:
        """Its MSI-X capability, read from the device now."""
        config = self.config()
        with self.within_bounds():
            return Msix.of(config)

    def usable_msix(self) -> Msix | None:
        """The same; AssertionError when its table or PBA is not within its BARs, where nobody can reach it."""
        found = self.msix()
        if found is not None:
            sizes = {resource.index: resource.size for resource in self.resources()}
            parts = (
                ("table", found.table_bar, found.table_offset, found.table_bytes),
                ("PBA", found.pba_bar, found.pba_offset, found.pba_bytes),
            )
            for name, bar, offset, size in parts:
                place, room = f"{size} bytes at BAR {bar} + {offset:#x}", sizes.get(bar, 0)
                assert offset + size <= room, f"{self}: MSI-X {name}, {place}, ends past that BAR ({room:#x} bytes)"
        return found
