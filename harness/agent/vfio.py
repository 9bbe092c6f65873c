"""A function held through VFIO beside the device, as the rest of the harness sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.agent.frames import MAX_BODY_BYTES
from harness.agent.results import Answer
from harness.errors import TransportFailed

if TYPE_CHECKING:
    from harness.agent.client import Agent

CONFIG_REGION = 7  # VFIO_PCI_CONFIG_REGION_INDEX; 0–5 are the BARs, 6 the ROM
INTX, MSI, MSIX, ERROR, REQUEST = range(5)  # VFIO_PCI_*_IRQ_INDEX
DEADLINE_S = 30.0
WAIT_GRACE_S = 10.0
Write = tuple[int, int, int, int]  # region, offset, width, value


@dataclass(frozen=True, slots=True)
class VfioRegion:
    """One region: ``flags`` are VFIO_REGION_INFO_FLAG_*, ``areas`` what may be mapped as (offset, size) within it."""

    index: int
    size: int
    flags: int
    offset: int
    areas: tuple[tuple[int, int], ...]
    msix_mappable: bool

    @classmethod
    def of(cls, row: dict[str, Any]) -> VfioRegion:
        answer = Answer("vfio.open", row)
        return cls(
            index=answer.number("index"),
            size=answer.number("size"),
            flags=answer.number("flags"),
            offset=answer.number("offset"),
            areas=tuple((int(start), int(size)) for start, size in answer.rows("areas", int, int)),
            msix_mappable=answer.flag("msix_mappable"),
        )


@dataclass(frozen=True, slots=True)
class VfioIrq:
    """One kind of interrupt: its index, how many vectors there are, VFIO_IRQ_INFO_* flags."""

    index: int
    count: int
    flags: int


@dataclass(frozen=True, slots=True)
class IrqCounts:
    """What came while one waited.

    Attributes:
        counts: interrupts by vector.
        first_ns: by vector, from the start of the wait (after which the trigger was written) to the first; -1 for none,
            0 for one that was there before.
        elapsed_ns: length of the wait.
        complete: as many came as were expected.
    """

    counts: tuple[int, ...]
    first_ns: tuple[int, ...]
    elapsed_ns: int
    complete: bool

    @property
    def total(self) -> int:
        return sum(self.counts)


class VfioDevice:
    """A function opened through VFIO; a context manager, and closed by the end of the run at the latest.

    Attributes:
        group: the IOMMU group's number, as text.
        resettable: VFIO_DEVICE_RESET works.
        regions: by index.
        irqs: by index.
    """

    def __init__(self, agent: Agent, bdf: str, *, vf_token: str = "", deadline_s: float = DEADLINE_S) -> None:
        args: dict[str, Any] = {"bdf": bdf, "vf_token": vf_token} if vf_token else {"bdf": bdf}
        answer = agent.call("vfio.open", deadline_s=deadline_s, **args)
        self.bdf = bdf
        self.group = answer.text("group")
        self.resettable = answer.flag("reset")
        self.regions = {region.index: region for region in map(VfioRegion.of, answer.items("regions", dict))}
        self.irqs = {index: VfioIrq(index, count, flags) for index, count, flags in answer.rows("irqs", int, int, int)}
        self._agent = agent
        self._handle = answer.number("handle")

    def __enter__(self) -> VfioDevice:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:  # otherwise the first error is the one that matters
                raise

    def close(self) -> None:
        """Give the function back; the kernel resets it."""
        self._call("vfio.close")

    def read(self, region: int, offset: int, width: int = 4) -> int:
        """One aligned access of 1, 2 or 4 bytes."""
        return self._call("vfio.read", region=region, offset=offset, width=width).number("value")

    def write(self, region: int, offset: int, value: int, width: int = 4) -> None:
        """One aligned access of 1, 2 or 4 bytes."""
        self._call("vfio.write", region=region, offset=offset, width=width, value=value)

    def write_many(self, writes: Sequence[Write]) -> None:
        """(region, offset, width, value) in this order, in one round trip."""
        self._call("vfio.write_many", writes=[list(row) for row in writes])

    def config_read(self, offset: int, width: int) -> int:
        """Configuration space as VFIO shows it (partly emulated)."""
        return self.read(CONFIG_REGION, offset, width)

    def config_write(self, offset: int, width: int, value: int) -> None:
        self.write(CONFIG_REGION, offset, value, width)

    def config_space(self) -> bytes:
        """All of it, as VFIO shows it."""
        return self._call("vfio.read", region=CONFIG_REGION, offset=0, size=self.regions[CONFIG_REGION].size).body

    def reset(self, *, deadline_s: float = DEADLINE_S) -> int:
        """VFIO_DEVICE_RESET; nanoseconds it took. Interrupts must be enabled again afterwards."""
        return self._call("vfio.reset", deadline_s=deadline_s).number("elapsed_ns")

    # interrupts

    def irq_enable(self, count: int, *, index: int = MSIX) -> None:
        """Eventfds for the vectors 0 to ``count`` - 1; again, if they are enabled already."""
        self._call("vfio.irq_enable", index=index, count=count)

    def irq_disable(self, *, index: int = MSIX) -> None:
        self._call("vfio.irq_disable", index=index)

    def irq_fire(self, vector: int, *, index: int = MSIX) -> None:
        """Have the kernel signal the vector's eventfd: tries our plumbing, not the device."""
        self._call("vfio.irq_fire", index=index, vector=vector)

    def irq_wait(
        self,
        *,
        timeout_s: float,
        quiet_s: float = 0.0,
        expect: int = 0,
        index: int = MSIX,
        trigger: Sequence[Write] = (),
    ) -> IrqCounts:
        """Count interrupts by vector.

        Args:
            expect: interrupts of all vectors together; the wait goes on until they have come …
            quiet_s: … and then none for so long (a doubled one comes late). Without ``expect``: until none for so long.
            timeout_s: in any case the end; too few by then is a result (``complete``).
            trigger: writes that are made when the clock starts, so that the time to an interrupt has no round trip in
                it.
        """
        answer = self._call(
            "vfio.irq_wait",
            deadline_s=timeout_s + WAIT_GRACE_S,
            index=index,
            expect=expect,
            quiet_s=quiet_s,
            timeout_s=timeout_s,
            trigger=[list(row) for row in trigger],
        )
        counts, first_ns = tuple(answer.items("counts", int)), tuple(answer.items("first_ns", int))
        if len(counts) != len(first_ns):
            raise TransportFailed("agent: vfio.irq_wait", got=f"{len(counts)} counts and {len(first_ns)} times")
        return IrqCounts(counts, first_ns, answer.number("elapsed_ns"), answer.flag("complete"))

    # memory

    def dma_map(self, iova: int, size: int) -> None:
        """Zeroed memory beside the device that it may read and write at ``iova``; both multiples of 4096."""
        self._call("vfio.dma_map", iova=iova, size=size)

    def dma_unmap(self, iova: int) -> None:
        """The whole buffer that begins at ``iova``."""
        self._call("vfio.dma_unmap", iova=iova)

    def dma_read(self, iova: int, size: int) -> bytes:
        parts = []
        for done in range(0, size, MAX_BODY_BYTES):
            parts.append(self._call("vfio.dma_read", iova=iova + done, size=min(size - done, MAX_BODY_BYTES)).body)
        return b"".join(parts)

    def dma_write(self, iova: int, data: bytes) -> None:
        for done in range(0, len(data), MAX_BODY_BYTES):
            part = data[done : done + MAX_BODY_BYTES]
            self._agent.call("vfio.dma_write", body=part, handle=self._handle, iova=iova + done)

    def _call(self, verb: str, *, deadline_s: float = DEADLINE_S, **args: Any) -> Answer:
        return self._agent.call(verb, deadline_s=deadline_s, handle=self._handle, **args)
