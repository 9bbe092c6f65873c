"""Mutants for tests/endpoint/test_enumeration.py, of what the host gives VFs: BARs and IOMMU groups."""

from __future__ import annotations

from collections.abc import Callable

from harness.host.function import DEVICES
from harness.pci.capabilities import ExtCap
from harness.pci.layout import VF_BARS
from harness.profiles import Bar, Profile
from tests.lab.mutants.device import PF, lists, no_resource, reads, resource, vf
from tests.lab.mutants.model import Mutant
from tests.lab.mutants.taps import answered, asked, asked_otherwise

FILE = "test_enumeration.py::"


def with_vf_bars(change: Callable[[Bar], dict[str, object]]) -> Callable[[Profile], Profile]:
    """A promise of other VF BARs."""

    def promise(profile: Profile) -> Profile:
        bars = tuple(bar.model_copy(update=change(bar)) for bar in profile.vf.bars)
        return profile.model_copy(update={"vf": profile.vf.model_copy(update={"bars": bars})})

    return promise


def group_of(function: str) -> str:
    return f"{DEVICES}/{function}/iommu_group"


BARS = (
    Mutant(
        "a-vf-bar-less",
        "the PF implements VF BAR 0 only",
        {
            FILE + "test_vf_bars_are_the_pfs_slices[1-vfs]": "VF BARs that it implements",
            FILE + "test_aperture_holds_all_vfs": "VF BAR 3: Linux holds no aperture for it",
        },
        (no_resource(PF, 10),),
    ),
    Mutant(
        "vf-without-bar-3",
        "VF 1 has no BAR 3",
        {FILE + "test_vf_bars_are_the_pfs_slices[1-vfs]": ("VF 1", "its BARs")},
        (no_resource(vf(1), 3),),
    ),
    Mutant(
        "vf-bars-too-small",
        "a VF's BARs are half as large as the profile promises",
        {
            FILE + "test_vf_bars_are_the_pfs_slices[1-vfs]": ("VF 1", "size of BAR 0"),
            FILE + "test_aperture_holds_all_vfs": "VF BAR 0: size of the aperture",
        },
        promise=with_vf_bars(lambda bar: {"size": 2 * bar.size}),
    ),
    Mutant(
        "vf-bars-too-wide",
        "a VF's BARs have 64 bits where the profile promises 32",
        {FILE + "test_aperture_holds_all_vfs": "VF BAR 0: address width in bits"},
        promise=with_vf_bars(lambda _: {"width": 32}),
    ),
    Mutant(
        "vf-bars-prefetchable",
        "a VF's BARs are prefetchable where the profile promises that they are not",
        {FILE + "test_aperture_holds_all_vfs": "VF BAR 0: prefetchable"},
        promise=with_vf_bars(lambda _: {"prefetchable": False}),
    ),
    Mutant(
        "vfs-share-a-bar",
        "VF 2's BAR 0 is where VF 1's is",
        {FILE + "test_vf_bars_are_the_pfs_slices[2-vfs]": ("VF 2", "slice 2 of the aperture")},
        (resource(vf(2), 0, start=lambda start: start - 0x4000, end=lambda end: end - 0x4000),),
    ),
    Mutant(
        "vf-past-the-aperture",
        "the aperture of VF BAR 0 ends within VF 1's slice",
        {FILE + "test_vf_bars_are_the_pfs_slices[1-vfs]": ("VF 1", "BAR 0 ends past the aperture")},
        (resource(PF, 7, end=lambda end: end - 8 * 0x4000 + 0x1000),),
    ),
    Mutant(
        "vf-bar-loses-its-address",
        "the register of VF BAR 0 holds another address than was written",
        {FILE + "test_aperture_holds_all_vfs": "VF BAR 0: address in the register"},
        (reads(PF, VF_BARS[0], lambda old: old ^ 0x10_0000, ExtCap.SRIOV),),
    ),
)

GROUPS = (
    Mutant(
        "vfs-share-a-group",
        "VF 2 is in VF 1's IOMMU group",
        {FILE + "test_each_vf_has_an_iommu_group_of_its_own[2-vfs]": "VFs share an IOMMU group"},
        (asked_otherwise(asked("file.link", path=group_of(vf(2))), lambda call: call.but(path=group_of(vf(1)))),),
    ),
    Mutant(
        "vf-without-a-group",
        "VF 1 is behind no IOMMU",
        {FILE + "test_each_vf_has_an_iommu_group_of_its_own[1-vfs]": "a VF is in no IOMMU group"},
        (answered(asked("file.exists", path=group_of(vf(1))), exists=lambda _: False),),
    ),
    Mutant(
        "pf-in-a-vfs-group",
        "the PF is in VF 1's IOMMU group",
        {FILE + "test_each_vf_has_an_iommu_group_of_its_own[1-vfs]": ("VF 1", "functions in its IOMMU group", PF)},
        (lists(asked("file.list", path=group_of(vf(1)) + "/devices"), PF),),
    ),
)

MUTANTS = (*BARS, *GROUPS)
