"""Where a function is: bus, device, function, and the routing ID that carries them on the link."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

TEXT = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")


@dataclass(frozen=True, slots=True, order=True, repr=False)
class Bdf:
    """A function's address, as Linux writes it: ``0000:01:10.2``.

    Attributes:
        domain: PCI segment, 16 bits (32 on some hosts).
        bus: 8 bits. device: 5 bits. function: 3 bits.
    """

    domain: int
    bus: int
    device: int
    function: int

    def __post_init__(self) -> None:
        limits = {"domain": 32, "bus": 8, "device": 5, "function": 3}
        for name, bits in limits.items():
            value = getattr(self, name)
            if not 0 <= value < 1 << bits:
                raise ValueError(f"{name} {value:#x} does not fit in {bits} bits")

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function:x}"

    def __repr__(self) -> str:
        """As ``str``, so that a failed comparison of addresses shows what lspci shows."""
        return str(self)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``0000:01:10.2`` or ``01:10.2``.

        Raises:
            ValueError: not an address.
        """
        found = TEXT.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is not a PCI address like 0000:01:10.2")
        domain, bus, device, function = (int(part or "0", 16) for part in found.groups())
        return cls(domain, bus, device, function)

    @classmethod
    def from_routing_id(cls, routing_id: int, *, domain: int) -> Self:
        """From the 16-bit routing ID; with ARI its low 8 bits are all function number, and Linux still writes dd.f."""
        return cls(domain, routing_id >> 8 & 0xFF, routing_id >> 3 & 0x1F, routing_id & 0x7)

    @property
    def routing_id(self) -> int:
        """Bus, device and function in 16 bits (PCIe Base 2.2.4.2 for the fields)."""
        return self.bus << 8 | self.device << 3 | self.function

    def vf(self, number: int, *, first_offset: int, stride: int) -> Bdf:
        """Address of VF ``number`` (from 1), counted from this PF.

        PCIe Base 9.2.1.2 (4.0 to 6.x): (PF routing ID + First VF Offset + (n - 1) * VF Stride) modulo 2^16.
        """
        routing_id = (self.routing_id + first_offset + (number - 1) * stride) & 0xFFFF
        return Bdf.from_routing_id(routing_id, domain=self.domain)
