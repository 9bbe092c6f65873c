"""Registers as tables: declared once, decoded from the same rows, and refused when their widths do not add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """Some bits of a register, from the lowest up; ``name`` is None for reserved ones."""

    name: str | None
    width: int


def field(name: str, width: int = 1) -> Field:
    return Field(name, width)


def reserved(width: int) -> Field:
    return Field(None, width)


@dataclass(frozen=True, slots=True)
class Register:
    """One register of a capability.

    Attributes:
        name: as the specification has it.
        offset: bytes from the capability's start.
        width: in bits: 8, 16 or 32.
        fields: from bit 0 up; none means that the register is one number of its own name.
    """

    name: str
    offset: int
    width: int
    fields: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        if self.width not in (8, 16, 32):
            raise ValueError(f"{self.name}: no register is {self.width} bits wide")
        total = sum(part.width for part in self.fields)
        if self.fields and total != self.width:
            raise ValueError(f"{self.name}: its fields are {total} bits, the register is {self.width}")

    @property
    def size_bytes(self) -> int:
        return self.width // 8

    def read(self, config: bytes, base: int) -> int:
        """The raw value, little-endian; ``base`` is the capability's offset.

        Raises:
            IndexError: the register is not within ``config``.
        """
        start = base + self.offset
        if start + self.size_bytes > len(config):
            raise IndexError(f"{self.name} at {start:#x} is past the {len(config)} bytes that were read")
        return int.from_bytes(config[start : start + self.size_bytes], "little")

    def decode(self, value: int) -> Mapping[str, int]:
        """The value of every named field."""
        values, shift = {}, 0
        for part in self.fields:
            if part.name is not None:
                values[part.name] = value >> shift & ((1 << part.width) - 1)
            shift += part.width
        return values

    def mask(self, name: str) -> int:
        """The bits of one field, in place."""
        shift = 0
        for part in self.fields:
            if part.name == name:
                return ((1 << part.width) - 1) << shift
            shift += part.width
        raise KeyError(f"{self.name} has no field {name}")
