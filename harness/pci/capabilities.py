"""Both capability chains of a function, walked with guards: hostile bytes end the walk, never loop it.

PCIe Base 7.5.1.1.11 (Capabilities Pointer), 7.6.3 (extended capability header), 5.0 and 6.0 numbering.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

STATUS = 0x06
STATUS_CAPABILITIES_LIST = 1 << 4
CAPABILITIES_POINTER = 0x34
FIRST_EXTENDED = 0x100
HEADER_BYTES = 0x40
STANDARD_BYTES = 0x100
LARGEST_BYTES = 0x1000


class Cap(IntEnum):
    """Standard capability IDs (PCI Code and ID Assignment)."""

    PM = 0x01
    MSI = 0x05
    VENDOR = 0x09
    EXPRESS = 0x10
    MSIX = 0x11


class ExtCap(IntEnum):
    """Extended capability IDs."""

    AER = 0x0001
    DSN = 0x0003
    ACS = 0x000D
    ARI = 0x000E
    ATS = 0x000F
    SRIOV = 0x0010


@dataclass(frozen=True, slots=True)
class Capability:
    """One link of a chain: its ID, where it starts, and its version (0 for standard ones)."""

    id: int
    offset: int
    version: int = 0


def standard(config: bytes) -> tuple[Capability, ...]:
    """The standard chain, as far as it can be followed."""
    return tuple(_standard(config))


def extended(config: bytes) -> tuple[Capability, ...]:
    """The extended chain, as far as it can be followed; empty when less than 4 KiB could be read."""
    return tuple(_extended(config))


def find(config: bytes, wanted: Cap | ExtCap) -> Capability | None:
    """The first capability of that ID."""
    chain = standard(config) if isinstance(wanted, Cap) else extended(config)
    return next((capability for capability in chain if capability.id == wanted), None)


def _standard(config: bytes) -> Iterator[Capability]:
    if len(config) < STANDARD_BYTES or not config[STATUS] & STATUS_CAPABILITIES_LIST:
        return
    seen: set[int] = set()
    offset = config[CAPABILITIES_POINTER] & 0xFC
    while HEADER_BYTES <= offset < STANDARD_BYTES and offset not in seen:
        seen.add(offset)
        if config[offset] == 0xFF:
            return
        yield Capability(config[offset], offset)
        offset = config[offset + 1] & 0xFC


def _extended(config: bytes) -> Iterator[Capability]:
    seen: set[int] = set()
    offset = FIRST_EXTENDED
    while FIRST_EXTENDED <= offset <= min(len(config), LARGEST_BYTES) - 4 and offset not in seen:
        seen.add(offset)
        header = int.from_bytes(config[offset : offset + 4], "little")
        if header in (0, 0xFFFFFFFF):
            return
        yield Capability(header & 0xFFFF, offset, header >> 16 & 0xF)
        offset = header >> 20 & 0xFFC
