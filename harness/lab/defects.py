"""A QEMU whose known bug would be blamed on the endpoint is refused where the bug would show, and only there."""

from __future__ import annotations

from harness.errors import HostLacks
from harness.host import PhysicalFunction
from harness.vm.machine import Qemu
from harness.vm.qemu_versions import qemu_defects

VF_BAR_ABOVE_4G = "vf-bar-above-4g"
REACH = 1 << 32  # bytes of address space that a QEMU with that bug reaches


def refuse_vf_bars_out_of_reach(qemu: Qemu, pf: PhysicalFunction) -> None:
    """Look where the host has put the VFs' BARs: most machines put them below 4 GiB, where every QEMU is fine.

    Raises:
        HostLacks: they are above, and this QEMU loses every access to them without a word.
    """
    defect = next((one for one in qemu_defects(qemu.version) if one.name == VF_BAR_ABOVE_4G), None)
    if defect is None:
        return
    far = {number: place for number, place in pf.vf_apertures().items() if place.end >= REACH}
    if far:
        places = ", ".join(f"VF BAR {number} at {place.start:#x}" for number, place in sorted(far.items()))
        raise HostLacks(
            f"test VFs in QEMU {qemu.version_text} ({qemu.origin})",
            on=f"{pf}, {places}",
            got=f"this QEMU has the bug {defect.name}: {defect.reason}",
            fix=f"use QEMU {' or '.join('.'.join(map(str, good)) for good in defect.fixed_in)}, or the pinned one",
        )
