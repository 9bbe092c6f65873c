"""The host as a whole: what a test asks of the machine that holds the endpoint."""

from __future__ import annotations

from harness.agent.client import Agent
from harness.host.function import DEVICES, Function
from harness.host.kernel_log import KernelLog
from harness.host.physical import PhysicalFunction
from harness.pci.address import Bdf


class Host:
    """A Linux machine with an agent on it."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.log = KernelLog(agent)

    def function(self, bdf: Bdf) -> Function:
        return Function(self.agent, bdf)

    def physical_function(self, bdf: Bdf) -> PhysicalFunction:
        return PhysicalFunction(self.agent, bdf)

    def functions(self) -> tuple[Bdf, ...]:
        """Every PCI function that the kernel knows."""
        return tuple(sorted(Bdf.parse(entry.name) for entry in self.agent.list(DEVICES)))

    def iommu_groups(self) -> frozenset[int]:
        return frozenset(int(entry.name) for entry in self.agent.list("/sys/kernel/iommu_groups"))

    def load_modules(self, *names: str) -> None:
        self.agent.run(["modprobe", "-a", *names], deadline_s=30, check=True)

    def rescan(self) -> None:
        """Have the kernel look at every bus again. Never while pciehp is at work on one."""
        self.agent.write_file("/sys/bus/pci/rescan", b"1", deadline_s=20)
