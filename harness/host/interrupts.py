"""A function's MSI-X vectors, fired on purpose and counted at their eventfds, under vfio-pci."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from harness.agent.vfio import IrqCounts, VfioDevice, Write
from harness.errors import UsageError
from harness.host.function import Function
from harness.host.physical import PhysicalFunction
from harness.pci.layout import COMMAND, MSIX_CONTROL, MSIX_ENTRY_BYTES, MSIX_VECTOR_CONTROL, MSIX_VECTOR_MASKED, Msix
from harness.profiles.model import MsixPromise, RegisterWrite, Trigger

ARRIVE_WITHIN_S = 2.0
QUIET_S = 0.02  # a doubled interrupt comes within this time of the first
SILENCE_S = 0.1  # how long to listen where nothing may come
DWORD_BYTES = 4


class Vectors:
    """All vectors of one function, open under vfio-pci with an eventfd each."""

    def __init__(self, function: Function, device: VfioDevice, msix: Msix, trigger: Trigger) -> None:
        self.function = function
        self.count = msix.vectors
        self._device = device
        self._msix = msix
        self._trigger = trigger

    def start(self) -> None:
        """Enable every vector, let the function send, and make its trigger ready."""
        self._device.irq_enable(self.count)
        command = self._device.config_read(COMMAND.offset, 2)
        wanted = COMMAND.mask("bus_master") | COMMAND.mask("memory_space")
        self._device.config_write(COMMAND.offset, 2, command | wanted)
        self._device.write_many(_writes(self._trigger.setup, 0))

    def fire(self, vector: int, *, expect: int = 1) -> IrqCounts:
        """Trigger one vector and count what comes to each of this function's eventfds.

        Args:
            expect: 1: return as soon as it has come and stayed single; 0: listen for a while, nothing should come.
        """
        counts = self._device.irq_wait(
            trigger=_writes(self._trigger.fire, vector),
            expect=expect,
            quiet_s=QUIET_S if expect else SILENCE_S,
            timeout_s=ARRIVE_WITHIN_S,
        )
        self._device.write_many(_writes(self._trigger.clear, vector))
        return counts

    def received(self, *, expect: int = 0) -> IrqCounts:
        """What has come since the last look; with ``expect``, wait for so many."""
        return self._device.irq_wait(
            expect=expect, quiet_s=QUIET_S if expect else 0.0, timeout_s=ARRIVE_WITHIN_S if expect else 0.0
        )

    def mask(self, vector: int) -> None:
        """Set the mask bit of the vector's table entry, in the device (PCIe Base 7.7.2.8)."""
        self._set_mask(vector, MSIX_VECTOR_MASKED)

    def unmask(self, vector: int) -> None:
        self._set_mask(vector, 0)

    def masked(self) -> tuple[bool, ...]:
        """The mask bit of every vector."""
        entries = (
            self._device.read(self._msix.table_bar, self._entry(n) + MSIX_VECTOR_CONTROL) for n in range(self.count)
        )
        return tuple(bool(control & MSIX_VECTOR_MASKED) for control in entries)

    def pending(self, vector: int) -> bool:
        """The vector's bit in the Pending Bit Array (PCIe Base 7.7.2.9)."""
        dword, bit = divmod(vector, 8 * DWORD_BYTES)
        return bool(self._device.read(self._msix.pba_bar, self._msix.pba_offset + DWORD_BYTES * dword) >> bit & 1)

    @contextmanager
    def msix_off(self) -> Iterator[None]:
        """MSI-X Enable clear in the device; VFIO does not see it, so the eventfds stay."""
        control = self._msix.offset + MSIX_CONTROL.offset
        before = self.function.read_config(control, 2)
        self.function.write_config(control, 2, before & ~MSIX_CONTROL.mask("enable"))
        try:
            yield
        finally:
            self.function.write_config(control, 2, before)

    def _set_mask(self, vector: int, value: int) -> None:
        self._device.write(self._msix.table_bar, self._entry(vector) + MSIX_VECTOR_CONTROL, value)

    def _entry(self, vector: int) -> int:
        return self._msix.table_offset + MSIX_ENTRY_BYTES * vector


@contextmanager
def open_vectors(
    pf: PhysicalFunction, functions: Sequence[Function], promise: MsixPromise | None
) -> Iterator[tuple[Vectors, ...]]:
    """Bind functions to vfio-pci and start the vectors of all of them, to hear one function's interrupt at another.

    Args:
        pf: of these functions; set up as the profile's trigger needs it.
    """
    if promise is None or promise.trigger is None:
        raise UsageError("fire MSI-X vectors", got="the profile says no way to", fix="add [vf.msix.trigger] to it")
    for row in promise.trigger.pf_setup:
        pf.write_bar(row.bar, row.offset, row.value)
    with ExitStack() as stack:
        opened = []
        for function in functions:
            function.bind("vfio-pci")
            msix = function.usable_msix()
            assert msix is not None, f"{function} has no MSI-X capability"
            vectors = Vectors(function, stack.enter_context(function.open()), msix, promise.trigger)
            vectors.start()
            opened.append(vectors)
        yield tuple(opened)


def _writes(rows: Sequence[RegisterWrite], vector: int) -> list[Write]:
    return [(row.bar, row.offset, DWORD_BYTES, row.value_for(vector)) for row in rows]
