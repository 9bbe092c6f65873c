"""The profile: every key of the file, with its unit and its meaning."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.tomlfile import Strict

Id16 = Annotated[int, Field(ge=0, le=0xFFFF)]
BarIndex = Annotated[int, Field(ge=0, le=5)]
Offset = Annotated[int, Field(ge=0, lt=1 << 32)]


class Bar(Strict):
    """One memory BAR of a function.

    Attributes:
        index: of the BAR register; a 64-bit BAR takes the next one too.
        size: bytes, a power of two.
    """

    index: BarIndex
    size: Annotated[int, Field(ge=128)]
    width: Literal[32, 64] = 32
    prefetchable: bool = False

    @model_validator(mode="after")
    def _size_is_a_power_of_two(self) -> Self:
        if self.size & (self.size - 1):
            raise ValueError(f"size {self.size:#x} is not a power of two")
        return self


class RegisterWrite(Strict):
    """One 32-bit write to a BAR: ``value``, shifted left by the vector's number when ``shift_by_vector``."""

    bar: BarIndex
    offset: Offset
    value: Annotated[int, Field(ge=0, lt=1 << 32)]
    shift_by_vector: bool = False

    def value_for(self, vector: int) -> int:
        return (self.value << vector if self.shift_by_vector else self.value) & 0xFFFFFFFF


class Trigger(Strict):
    """How software makes a function send a vector of its choice.

    Attributes:
        pf_setup: writes to the PF's BARs that its VFs' interrupts need; once, before anything else.
        setup: once, after MSI-X is on.
        fire: for each interrupt.
        clear: after each interrupt, so that the next one is a new event.
    """

    pf_setup: tuple[RegisterWrite, ...] = ()
    setup: tuple[RegisterWrite, ...] = ()
    fire: tuple[RegisterWrite, ...]
    clear: tuple[RegisterWrite, ...] = ()


class MsixPromise(Strict):
    """A function's MSI-X: vectors, and where table and PBA are (byte offsets in their BARs)."""

    vectors: Annotated[int, Field(ge=1, le=2048)]
    table_bar: BarIndex
    table_offset: Offset = 0
    pba_bar: BarIndex
    pba_offset: Offset
    trigger: Trigger | None = None


class PhysicalPromise(Strict):
    """The PF. ``driver`` is the one in the host that enables VFs."""

    vendor_id: Id16
    device_id: Id16
    driver: str
    msix: MsixPromise | None = None


class VirtualPromise(Strict):
    """The VFs.

    Attributes:
        total: TotalVFs, as the capability says.
        driver_max: the most that the PF's driver gives; ``total`` if it does not lower it.
        first_offset, stride: First VF Offset and VF Stride.
        bars: of one VF.
    """

    device_id: Id16
    total: Annotated[int, Field(ge=1, le=0xFFFF)]
    driver_max: Annotated[int, Field(ge=1, le=0xFFFF)] | None = None
    first_offset: Annotated[int, Field(ge=1, le=0xFFFF)]
    stride: Annotated[int, Field(ge=0, le=0xFFFF)]
    bars: tuple[Bar, ...]
    msix: MsixPromise | None = None

    @model_validator(mode="after")
    def _driver_gives_no_more_than_there_are(self) -> Self:
        if self.driver_max is not None and self.driver_max > self.total:
            raise ValueError(f"driver_max {self.driver_max} is more than total {self.total}")
        return self

    @model_validator(mode="after")
    def _bars_fit_into_the_registers(self) -> Self:
        taken = [register for bar in self.bars for register in range(bar.index, bar.index + bar.width // 32)]
        if len(set(taken)) < len(taken) or max(taken, default=0) > 5:
            raise ValueError(f"bars need the registers {sorted(taken)}; there are 0 to 5, for one BAR or half each")
        return self

    @property
    def most(self) -> int:
        return self.driver_max or self.total


class ResetPromise(Strict):
    """``ready_ms``: after an FLR, config space answers within this time (PCIe Base 6.6.2: 100 ms)."""

    ready_ms: Annotated[float, Field(gt=0, le=60_000)] = 100.0


class Emulation(Strict):
    """How QEMU emulates the design: the device's name, and properties as ``device_add`` takes them."""

    driver: str
    properties: dict[str, str | int | bool] = Field(default_factory=dict)


class Profile(Strict):
    """One design."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    title: str
    pf: PhysicalPromise
    vf: VirtualPromise
    reset: ResetPromise = ResetPromise()
    emulation: Emulation | None = None

    def vf_counts(self) -> tuple[int, ...]:
        """How many VFs to try: 1, 2, a middle value, the most that the driver gives."""
        most = self.vf.most
        return tuple(sorted({1, min(2, most), (most + 1) // 2, most}))
