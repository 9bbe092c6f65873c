"""The kernel's log of a host, from a mark on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.agent.client import Agent

# What no healthy run prints (kernel/panic.c, lib/bug.c, drivers/pci/pcie/aer.c, drivers/iommu/intel/dmar.c, 6.12).
TROUBLE = re.compile(
    r"\bBUG:|\bOops:|WARNING: CPU|general protection fault|INFO: task .* blocked|"
    r"PCIe Bus Error|DMAR: \[.*\] Request device|DRHD: handling fault|"
    r"not ready \d+ms after|cannot create duplicate filename|unknown header type|can't (?:enable|assign)"
)
STAMP = re.compile(r"\[\s*(\d+\.\d+)\]")


@dataclass(frozen=True, slots=True)
class KernelLog:
    """Reads the log through the agent; what the kernel said up to ``since_s`` (its own clock) is left out.

    A time, not a number of lines: the kernel's buffer is a ring, and its oldest lines go.
    """

    agent: Agent
    since_s: float = 0.0

    def lines(self) -> tuple[str, ...]:
        """What came since the mark, oldest first."""
        done = self.agent.run(["dmesg", "--kernel"], deadline_s=10, check=True)
        lines = done.stdout.decode(errors="replace").splitlines()
        return tuple(line for line in lines if stamp_s(line) > self.since_s)

    def mark(self) -> KernelLog:
        """A log that starts now."""
        lines = self.lines()
        return KernelLog(self.agent, stamp_s(lines[-1]) if lines else self.since_s)

    def trouble(self, *, expected: str = "") -> tuple[str, ...]:
        """Lines that no healthy run prints, but for those that match ``expected``."""
        bad = (line for line in self.lines() if TROUBLE.search(line))
        return tuple(line for line in bad if not (expected and re.search(expected, line)))


def stamp_s(line: str) -> float:
    """The kernel's time of a line; 0 for one without."""
    found = STAMP.match(line)
    return float(found[1]) if found else 0.0
