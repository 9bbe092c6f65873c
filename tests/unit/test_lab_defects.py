"""A QEMU with a known bug is refused where the bug would show, and used where it would not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HostLacks
from harness.host import PhysicalFunction
from harness.host.function import Resource
from harness.lab.defects import refuse_vf_bars_out_of_reach
from harness.vm.machine import Qemu

GIB = 1 << 30
BROKEN, GOOD = (10, 0, 2), (11, 1, 3)


class Pf(PhysicalFunction):
    """A PF whose ranges for VF BARs 0 and 3 are where a test puts them."""

    def __init__(self, start: int | None) -> None:
        self._start = start

    def __str__(self) -> str:
        return "PF (0000:01:00.0)"

    def vf_apertures(self) -> dict[int, Resource]:
        if self._start is None:
            raise AssertionError("nobody needs to know")
        return {
            number: Resource(7 + number, start, start + 0x1FFFF, 0x14220C)
            for number, start in ((0, self._start), (3, self._start + 0x20000))
        }


def qemu(version: tuple[int, int, int]) -> Qemu:
    return Qemu(argv=(str(Path("/usr/bin/qemu")),), version=version, origin="/usr/bin/qemu", key="k")


def test_vf_bars_above_4g_are_refused_by_the_bugs_name() -> None:
    with pytest.raises(HostLacks) as refused:
        refuse_vf_bars_out_of_reach(qemu(BROKEN), Pf(32 * GIB))
    said = str(refused.value)
    assert "test VFs in QEMU 10.0.2 (/usr/bin/qemu)" in said
    assert "VF BAR 0 at 0x800000000, VF BAR 3 at 0x800020000" in said
    assert "vf-bar-above-4g: a VF BAR above 4 GiB is mapped at an address cut to 32 bits" in said
    assert "use QEMU 10.0.13 or 10.2.2 or 11.1.3, or the pinned one" in said


def test_vf_bars_below_4g_are_fine_with_every_qemu() -> None:
    refuse_vf_bars_out_of_reach(qemu(BROKEN), Pf(4 * GIB - 0x40000))


def test_the_first_byte_above_4g_is_too_much() -> None:
    with pytest.raises(HostLacks, match=r"\(PF \(0000:01:00.0\), VF BAR 3 at 0x100000000\)"):
        refuse_vf_bars_out_of_reach(qemu(BROKEN), Pf(4 * GIB - 0x20000))


def test_a_good_qemu_is_not_even_looked_at() -> None:
    """Every machine would pay for the look."""
    refuse_vf_bars_out_of_reach(qemu(GOOD), Pf(None))
