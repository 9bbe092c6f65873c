"""Known bugs of QEMU that would be blamed on the endpoint, as data: which versions, why, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, int, int]

OLDEST: Version = (8, 2, 0)
WHY_OLDEST = "igb came with 8.0, its FLR with machine type 8.2, and templates are saved by file: migration (8.2)"


@dataclass(frozen=True, slots=True)
class Defect:
    """One bug of QEMU.

    Attributes:
        name: short, for a skip or a header.
        reason: what goes wrong, and when.
        fixed_in: the first good version of each line, and of all later lines the last one's.
        since: the first version that has it.
        source: how it is known.
    """

    name: str
    reason: str
    since: Version
    fixed_in: tuple[Version, ...]
    source: str

    def affects(self, version: Version) -> bool:
        """Whether this version has the bug.

        A line (10.0, 10.1, …) that got no fix of its own has the bug until the next line that did.
        """
        if version < self.since:
            return False
        for fixed in self.fixed_in:
            if version[:2] == fixed[:2]:
                return version < fixed
        return version < max(self.fixed_in)


DEFECTS: tuple[Defect, ...] = (
    Defect(
        name="vf-bar-above-4g",
        reason="a VF BAR above 4 GiB is mapped at an address cut to 32 bits: reads give 0 and writes to the MSI-X "
        "table vanish, silently; VFs with their BARs below 4 GiB work",
        since=(7, 0, 0),
        fixed_in=((10, 0, 13), (10, 2, 2), (11, 1, 3)),
        source="reproduced with igb and pref64-reserve=8G on 10.0.2; hw/pci/pcie_sriov.c, where 10.0.13, 10.2.2 and "
        "11.1.3 no longer have pcie_sriov_vf_register_bar",
    ),
)


def qemu_defects(version: Version) -> tuple[Defect, ...]:
    """The known bugs of a QEMU, (major, minor, patch) as in ``Qemu.version``."""
    return tuple(defect for defect in DEFECTS if defect.affects(version))
