"""What a reset takes from a function, remembered before and written back after.

The kernel does the same around its own resets (drivers/pci/pci.c, pci_save_state and pci_restore_state; iov.c,
sriov_restore_state; 6.12). A reset that we do ourselves, to time it, the kernel does not see.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.host.function import Function
from harness.pci.capabilities import Cap, ExtCap, find
from harness.pci.layout import (
    COMMAND,
    DEVICE_CONTROL,
    DEVICE_CONTROL_2,
    LINK_CONTROL,
    MSIX_CONTROL,
    NUM_VFS,
    SRIOV_CONTROL,
    SYSTEM_PAGE_SIZE,
    VF_BARS,
)
from harness.pci.registers import Register

BARS = tuple(Register(f"BAR{number}", 0x10 + 4 * number, 32) for number in range(6))
INTERRUPT_LINE = Register("Interrupt Line", 0x3C, 8)
CACHE_LINE_SIZE = Register("Cache Line Size", 0x0C, 8)

# In the order in which they are written back: addresses before what makes the function use them.
HEADER = (*BARS, CACHE_LINE_SIZE, INTERRUPT_LINE)
EXPRESS = (DEVICE_CONTROL, DEVICE_CONTROL_2, LINK_CONTROL)
SRIOV = (SYSTEM_PAGE_SIZE, *VF_BARS, NUM_VFS, SRIOV_CONTROL)

Value = tuple[Register, int, int]  # register, base, value


@dataclass(frozen=True, slots=True)
class State:
    """The writable registers of one function at one moment."""

    values: tuple[Value, ...]

    @classmethod
    def of(cls, function: Function) -> State:
        config = function.config()
        with function.within_bounds():
            return cls(tuple(_values(config)))

    def write_back(self, function: Function) -> None:
        """Write every register that reads otherwise now."""
        now = function.config()
        for register, base, value in self.values:
            if register.read(now, base) != value:
                function.write_config(base + register.offset, register.size_bytes, value)


def _values(config: bytes) -> list[Value]:
    values = [(register, 0, register.read(config, 0)) for register in HEADER]
    if express := find(config, Cap.EXPRESS):
        values += [(register, express.offset, register.read(config, express.offset)) for register in EXPRESS]
    if sriov := find(config, ExtCap.SRIOV):
        values += [(register, sriov.offset, register.read(config, sriov.offset)) for register in SRIOV]
    values.append((COMMAND, 0, COMMAND.read(config, 0)))
    if msix := find(config, Cap.MSIX):
        values.append((MSIX_CONTROL, msix.offset, MSIX_CONTROL.read(config, msix.offset)))
    return values
