"""Function Level Reset by our own hand, timed (PCI Express Base 6.6.2).

The kernel's ``reset`` sleeps 100 ms after the write and tells nothing below a second; here the write and the polling
stand side by side, with one clock.
"""

from __future__ import annotations

import os
import time

from harness.agent.remote import config, verbs
from harness.agent.remote.calls import Call, usage

VENDOR, COMMAND = 0x00, 0x04
PCIE_ID = 0x10
DEVICE_CAPABILITIES, DEVICE_CONTROL, DEVICE_STATUS = 0x04, 0x08, 0x0A  # from the PCI Express capability; 7.5.3
FLR_CAPABLE = 1 << 28
INITIATE_FLR = 1 << 15
TRANSACTIONS_PENDING = 1 << 5
ALL_ONES = 0xFFFFFFFF
RRS_VENDOR = 0x0001  # what a root complex with RRS Software Visibility answers for the Vendor ID (2.3.2)
PENDING_WAIT_NS = 100_000_000
VENDOR_LOOK_NS = 10_000_000  # how often the Vendor ID is looked at as well, while the function is not ready
SAMPLES_AFTER = 16


def flr(call: Call) -> verbs.Result:
    """``{bdf, cap_offset, timeout_ns, hold_ns?}``: reset one function and poll until it answers.

    Clears Command, waits up to 100 ms for Transactions Pending to clear, sets Initiate Function Level Reset, leaves the
    function alone for ``hold_ns``, then reads Command and Status as one dword until it is not all ones. (A VF's Vendor
    ID reads FFFFh for ever, so it says nothing.) Configuration space is left as the reset made it: saving and restoring
    is the caller's.

    Answer: ``ready``; ``write_ns`` (how long the initiating write took) and, counted from the end of that write,
        ``ready_ns``,
    ``not_ready_ns`` (begin of the last read that saw all ones, -1 for none: the truth lies between the two),
    ``longest_gap_ns``, ``reads``, ``all_ones``, ``rrs``, ``relapsed`` (all ones seen again after the first good read),
    ``samples`` around the change as ``[ns, value]``; and what was there before: ``command``, ``device_control``,
    ``pending``, ``pending_after``.
    """
    cap = call.number("cap_offset", low=0x40, high=0xFC)
    timeout_ns = call.number("timeout_ns")
    hold_ns = call.number("hold_ns", 0)
    with config.opened(call, os.O_RDWR) as (fd, path), config.undisturbed():
        before = _prepare(call, fd, cap, path)
        call.at(f"writing Initiate Function Level Reset to {path}")
        start_ns = time.monotonic_ns()
        config.store(fd, cap + DEVICE_CONTROL, 2, int(before["device_control"]) | INITIATE_FLR, path)
        watch = Recovery()
        call.at(f"polling {path} after the reset")
        if hold_ns:
            call.pause(hold_ns / 1e9)
        watch.poll(call, fd, timeout_ns, path)
        return dict(before, write_ns=watch.track.start_ns - start_ns, **watch.answer())


def _prepare(call: Call, fd: int, cap: int, path: str) -> dict[str, int | bool]:
    """Refuse what is no resettable function, stop its traffic, and tell what was there."""
    if config.fetch(fd, cap, 1, path) != PCIE_ID:
        raise usage(f"there is no PCI Express capability at {cap:#x}", path)
    if not config.fetch(fd, cap + DEVICE_CAPABILITIES, 4, path) & FLR_CAPABLE:
        raise usage("the function does not offer FLR (Device Capabilities bit 28 is 0)", path)
    command = config.fetch(fd, COMMAND, 2, path)
    control = config.fetch(fd, cap + DEVICE_CONTROL, 2, path)
    pending = bool(config.fetch(fd, cap + DEVICE_STATUS, 2, path) & TRANSACTIONS_PENDING)
    config.store(fd, COMMAND, 2, 0, path)
    call.at(f"waiting for Transactions Pending of {path} to clear")
    until_ns = time.monotonic_ns() + PENDING_WAIT_NS
    still = True
    while still and time.monotonic_ns() < until_ns:
        still = bool(config.fetch(fd, cap + DEVICE_STATUS, 2, path) & TRANSACTIONS_PENDING)
        call.check()
    return {"command": command, "device_control": control, "pending": pending, "pending_after": still}


class Recovery:
    """A function coming back; its clock starts with this object."""

    def __init__(self) -> None:
        self.track = config.Track(config.KEPT_SAMPLES)
        self.ready_ns = -1
        self.not_ready_ns = -1
        self.reads_until_ready = 0
        self.gap_until_ready_ns = 0
        self.all_ones = False
        self.rrs = False
        self.relapsed = False
        self._vendor_look_ns = 0

    def poll(self, call: Call, fd: int, timeout_ns: int, path: str) -> None:
        """Read until ready or ``timeout_ns`` after the write, and a few reads more to see whether it stays so."""
        after = 0
        while after < SAMPLES_AFTER:
            begin_ns = time.monotonic_ns() - self.track.start_ns
            value = config.fetch(fd, COMMAND, 4, path)
            now_ns = self.track.add(value)
            if self.ready_ns >= 0:
                after += 1
                self.relapsed |= value == ALL_ONES
            elif value != ALL_ONES:
                self.ready_ns = now_ns
                self.reads_until_ready = self.track.reads
                self.gap_until_ready_ns = self.track.longest_gap_ns
            else:
                self.all_ones = True
                self.not_ready_ns = begin_ns
                if now_ns >= timeout_ns:
                    break
                self._look_at_vendor(fd, now_ns, path)
            call.check()

    def _look_at_vendor(self, fd: int, now_ns: int, path: str) -> None:
        """Now and then only: it is a second read in the loop, and so widens the gap."""
        if now_ns >= self._vendor_look_ns:
            self._vendor_look_ns = now_ns + VENDOR_LOOK_NS
            self.rrs |= config.fetch(fd, VENDOR, 4, path) & 0xFFFF == RRS_VENDOR

    def answer(self) -> dict[str, object]:
        ready = self.ready_ns >= 0
        return {
            "ready": ready,
            "ready_ns": self.ready_ns,
            "not_ready_ns": self.not_ready_ns,
            "longest_gap_ns": self.gap_until_ready_ns if ready else self.track.longest_gap_ns,
            "reads": self.reads_until_ready if ready else self.track.reads,
            "all_ones": self.all_ones,
            "rrs": self.rrs,
            "relapsed": self.relapsed,
            "samples": self.track.samples[-config.KEPT_SAMPLES :],
        }
