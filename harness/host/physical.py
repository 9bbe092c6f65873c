"""The PF and its VFs."""

from __future__ import annotations

import errno

from harness.agent.client import Agent
from harness.errors import RemoteOSError
from harness.host.function import CONFIG_BYTES, FIRST_VF_BAR_RESOURCE, Function, Resource
from harness.pci.address import Bdf
from harness.pci.capabilities import STANDARD_BYTES, Cap, find
from harness.pci.layout import VF_BARS, Sriov

VF_SWITCH_WITHIN_S = 30.0
MEMORY_TYPE, MEMORY_64_BIT = 0b110, 0b100  # bits 2:1 of a memory BAR, PCIe Base 7.5.1.2.1


class VirtualFunction(Function):
    """VF ``number`` (from 1, as the specification counts; Linux's ``virtfn`` counts from 0)."""

    def __init__(self, agent: Agent, bdf: Bdf, number: int) -> None:
        super().__init__(agent, bdf)
        self.number = number

    def __str__(self) -> str:
        return f"VF {self.number} ({self.bdf})"


class PhysicalFunction(Function):
    """The endpoint's PF."""

    def __str__(self) -> str:
        return f"PF ({self.bdf})"

    def sriov(self) -> Sriov:
        """Its SR-IOV capability, read from the device now.

        Raises:
            AssertionError: there is none. That is the endpoint's fault, so it fails the test.
        """
        config = self.config()
        with self.within_bounds():
            found = Sriov.of(config)
        if found is None:
            # Linux gives 256 bytes of a function that shows no PCI Express capability, however it reads them.
            raise self.lacks("SR-IOV", config, CONFIG_BYTES if find(config, Cap.EXPRESS) else STANDARD_BYTES)
        return found

    def most_vfs(self) -> int:
        """The most that its driver gives; AssertionError when that is none, for then nothing could be tested."""
        most = self._count("sriov_totalvfs")
        assert most > 0, f"{self}: sriov_totalvfs is {most}, so no VF can be enabled"
        return most

    def num_vfs(self) -> int:
        """How many the kernel says are on."""
        return self._count("sriov_numvfs")

    def _count(self, name: str) -> int:
        self._check_usable()
        return int(self.attribute(name))

    def _check_usable(self) -> None:
        """Linux makes the ``sriov_`` files for every function with an SR-IOV capability that it can use."""
        assert self.has_attribute("sriov_numvfs"), f"{self}: Linux sees no SR-IOV capability that it can use"

    def wait_for_probe(self) -> None:
        """Until a driver that is just taking the PF is done with it.

        ``driver`` appears when the probe begins, and igb lowers ``sriov_totalvfs`` within it. Reading ``sriov_numvfs``
        takes the device's lock, which the probe holds (drivers/base/dd.c, drivers/pci/iov.c; 6.12).
        """
        try:
            self.attribute("sriov_numvfs")
        except OSError as error:
            if error.errno != errno.ENOENT:  # no SR-IOV: nothing that anybody could read too early
                raise

    def set_num_vfs(self, count: int) -> None:
        """Write ``sriov_numvfs``; an OSError carries the kernel's errno."""
        self.write_attribute("sriov_numvfs", str(count), deadline_s=VF_SWITCH_WITHIN_S)

    def let_drivers_take_vfs(self, autoprobe: bool) -> None:
        """Whether drivers take new VFs by themselves; off is quicker by about a second for seven igb VFs."""
        self.write_attribute("sriov_drivers_autoprobe", str(int(autoprobe)))

    def switch_on_vfs(self, count: int) -> None:
        """Turn on ``count`` VFs, bound to no driver.

        Raises:
            AssertionError: the kernel refused; what it says of it is in its log. That fails the test, because a
                capability that Linux cannot use is the endpoint's fault. A test of refusals uses ``set_num_vfs``.
        """
        self._check_usable()
        self.let_drivers_take_vfs(False)
        try:
            self.set_num_vfs(count)
        except RemoteOSError as refused:
            raise AssertionError(f"{self}: Linux did not enable {count} VFs: {refused.strerror}") from refused

    def enable_vfs(self, count: int) -> tuple[VirtualFunction, ...]:
        """Turn on ``count`` VFs, bound to no driver.

        Raises:
            AssertionError: the kernel refused, or others came than were asked for. A test that goes through the VFs
                of this answer is sure that it has them all.
        """
        self.switch_on_vfs(count)
        found = self.vfs()
        assert [vf.number for vf in found] == list(range(1, count + 1)), f"{self}: {count} VFs asked for, {found} on"
        return found

    def disable_vfs(self) -> None:
        self.set_num_vfs(0)

    def vfs(self) -> tuple[VirtualFunction, ...]:
        """Those the kernel shows, by number."""
        links = self._agent.glob(f"{self.folder}/virtfn*")
        numbered = sorted((int(link.rsplit("virtfn", 1)[1]) + 1, link) for link in links)
        return tuple(
            VirtualFunction(self._agent, Bdf.parse(self._agent.real_path(link).rsplit("/", 1)[1]), number)
            for number, link in numbered
        )

    def expected_vf(self, number: int) -> VirtualFunction:
        """VF ``number`` where First VF Offset and VF Stride say that it is, whether it is there or not."""
        seen = self.sriov()
        bdf = self.bdf.vf(number, first_offset=seen.first_vf_offset, stride=seen.vf_stride)
        return VirtualFunction(self._agent, bdf, number)

    def vf_apertures(self) -> dict[int, Resource]:
        """The PF's ranges for its VFs' BARs, by VF BAR number: TotalVFs times one VF's BAR."""
        return {
            resource.index - FIRST_VF_BAR_RESOURCE: resource
            for resource in self.resources()
            if resource.index >= FIRST_VF_BAR_RESOURCE
        }

    def vf_bar_addresses(self) -> dict[int, int]:
        """The address in each implemented VF BAR register, by VF BAR number; both halves of a 64-bit one."""
        config, base = self.config(), self.sriov().offset
        addresses: dict[int, int] = {}
        number = 0
        while number < len(VF_BARS):
            low = VF_BARS[number].read(config, base)
            wide = low & MEMORY_TYPE == MEMORY_64_BIT
            high = VF_BARS[number + 1].read(config, base) if wide and number + 1 < len(VF_BARS) else 0
            if address := high << 32 | low & ~0xF:
                addresses[number] = address
            number += 2 if wide else 1
        return addresses
