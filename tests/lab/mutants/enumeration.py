"""Mutants for tests/endpoint/test_enumeration.py."""

from __future__ import annotations

import errno
from collections.abc import Callable

from harness.host.function import DEVICES
from harness.pci.capabilities import Cap, ExtCap
from harness.pci.layout import (
    COMMAND,
    EXPRESS_CAPABILITIES,
    FIRST_VF_OFFSET,
    INITIAL_VFS,
    NUM_VFS,
    TOTAL_VFS,
    VF_BARS,
    VF_DEVICE_ID,
    VF_STRIDE,
)
from harness.pci.registers import Register
from harness.profiles import Bar, Profile
from tests.lab.mutants.device import (
    BUS_MASTER,
    PF,
    VF_FILES,
    device,
    error_reported_when,
    ghost_when,
    lists,
    no_resource,
    reads,
    resource,
    shows,
    turns_on,
    vf,
    vfs_switched,
    write,
)
from tests.lab.mutants.model import Mutant
from tests.lab.mutants.taps import after, answered, asked, asked_otherwise, before, constant, refused, since, swallowed

IDS = Register("Vendor ID and Device ID", 0x00, 32)
EXTENDED_HEADER = Register("Extended Capability Header", 0x000, 32)
LAST_DWORD = Register("the last dword", 0xFFC, 32)
QUICK = constant("CYCLES", 1)
ONE_MACHINE = constant("MACHINES", {("acpi", "vfs-on"): 1})
FILE = "test_enumeration.py::"


def with_vf_bars(change: Callable[[Bar], dict[str, object]]) -> Callable[[Profile], Profile]:
    """A promise of other VF BARs."""

    def promise(profile: Profile) -> Profile:
        bars = tuple(bar.model_copy(update=change(bar)) for bar in profile.vf.bars)
        return profile.model_copy(update={"vf": profile.vf.model_copy(update={"bars": bars})})

    return promise


def group_of(function: str) -> str:
    return f"{DEVICES}/{function}/iommu_group"


IDENTITY = (
    Mutant(
        "another-device",
        "the endpoint is a virtio network card, without SR-IOV",
        {
            FILE + "test_pf_is_the_promised_device": "Vendor and Device ID in config space",
            FILE + "test_capability_is_as_promised": f"PF ({PF}) shows no SR-IOV capability",
            FILE + "test_exactly_the_vfs_that_were_asked_for[1-vfs]": "Linux sees no SR-IOV capability",
            "test_msix.py::test_pf_capability_is_as_promised": "MSI-X vectors",
            "test_hotplug.py::test_twenty_cycles_leave_nothing_behind[acpi-vfs-off]": "cycle 1: vendor and device",
        },
        (device("virtio-net-pci"),),
    ),
    Mutant(
        "another-device-id-in-linux",
        "Linux takes the PF for device 10cb",
        {FILE + "test_pf_is_the_promised_device": ("vendor and device as Linux holds them", "8086:10cb")},
        (shows(f"{DEVICES}/{PF}/device", "0x10cb\n"),),
    ),
    Mutant(
        "vf-shows-its-ids",
        "VF 1 shows Vendor and Device ID in its own config space",
        {FILE + "test_vfs_have_the_promised_ids[1-vfs]": ("VF 1", "must read FFFF", "8086:10ca")},
        (reads(vf(1), IDS, 0x10CA8086),),
    ),
    Mutant(
        "another-vf-device-id-in-linux",
        "Linux takes VF 1 for device 10cb",
        {FILE + "test_vfs_have_the_promised_ids[1-vfs]": ("VF 1", "as Linux holds them", "8086:10cb")},
        (shows(f"{DEVICES}/{vf(1)}/device", "0x10cb\n"),),
    ),
    Mutant(
        "vf-is-a-legacy-endpoint",
        "VF 1 has another Device/Port Type than the PF",
        {FILE + "test_vfs_have_the_promised_ids[1-vfs]": ("VF 1", "Device/Port Type")},
        (reads(vf(1), EXPRESS_CAPABILITIES, lambda old: old | 0x10, Cap.EXPRESS),),
    ),
)

CAPABILITY = (
    Mutant(
        "another-geometry",
        "the capability shows 9 VFs of Device ID 10cb, from offset 82h on, one after the other",
        {
            FILE + "test_capability_is_as_promised": (
                f"PF ({PF}): SR-IOV capability",
                "{'TotalVFs': 9} != {'TotalVFs': 8}",
                "{'First VF Offset': 130} != {'First VF Offset': 128}",
                "{'VF Stride': 1} != {'VF Stride': 2}",
                "{'VF Device ID': '10cb'} != {'VF Device ID': '10ca'}",
            )
        },
        (
            reads(PF, TOTAL_VFS, 9, ExtCap.SRIOV),
            reads(PF, FIRST_VF_OFFSET, 0x82, ExtCap.SRIOV),
            reads(PF, VF_STRIDE, 1, ExtCap.SRIOV),
            reads(PF, VF_DEVICE_ID, 0x10CB, ExtCap.SRIOV),
        ),
    ),
    Mutant(
        "fewer-initial-vfs",
        "InitialVFs is 7, TotalVFs 8",
        {FILE + "test_capability_is_as_promised": "InitialVFs must equal TotalVFs"},
        (reads(PF, INITIAL_VFS, 7, ExtCap.SRIOV),),
    ),
    Mutant(
        "sriov-past-the-end",
        "the SR-IOV capability begins in the last dword of config space",
        {FILE + "test_capability_is_as_promised": f"PF ({PF}): SR-IOV Control at 0x1004 is past the 4096 bytes"},
        (
            reads(PF, LAST_DWORD, ExtCap.SRIOV | 1 << 16),
            reads(PF, EXTENDED_HEADER, lambda old: old & 0xF_FFFF | LAST_DWORD.offset << 20, ExtCap.ARI),
        ),
    ),
    Mutant(
        "driver-gives-fewer",
        "the PF's driver gives 6 VFs",
        {
            FILE + "test_capability_is_as_promised": "sriov_totalvfs",
            "test_hotplug.py::test_twenty_cycles_leave_nothing_behind[acpi-vfs-on]": "cycle 1: most VFs",
        },
        (shows(f"{DEVICES}/{PF}/sriov_totalvfs", "6\n"), QUICK, ONE_MACHINE),
    ),
    Mutant(
        "driver-gives-none",
        "the PF's driver gives no VFs",
        {"test_flr.py::test_every_vf_is_ready_in_time": "sriov_totalvfs is 0, so no VF can be enabled"},
        (shows(f"{DEVICES}/{PF}/sriov_totalvfs", "0\n"),),
    ),
)

SWITCHING = (
    Mutant(
        "vfs-refused",
        "Linux cannot enable the VFs",
        {FILE + "test_exactly_the_vfs_that_were_asked_for[1-vfs]": "Linux did not enable 1 VFs: Input/output error"},
        (refused(vfs_switched("1"), errno.EIO),),
    ),
    Mutant(
        "one-vf-too-many",
        "2 VFs come up where 1 was asked for",
        {FILE + "test_exactly_the_vfs_that_were_asked_for[1-vfs]": "NumVFs, VF Enable, VF MSE"},
        (turns_on(lambda count: count + 1),),
    ),
    Mutant(
        "one-vf-too-few",
        "the last VF does not come up",
        {
            FILE + "test_ten_cycles_leave_nothing_behind": ("8 VFs asked for, ", f"VF 7 ({vf(7)})) on"),
            "test_hotplug.py::test_twenty_cycles_leave_nothing_behind[acpi-vfs-on]": "7 VFs asked for, ",
        },
        (turns_on(lambda count: count - 1), QUICK, ONE_MACHINE),
    ),
    Mutant(
        "linux-counts-another",
        "Linux says that 2 VFs are on",
        {FILE + "test_exactly_the_vfs_that_were_asked_for[1-vfs]": "sriov_numvfs"},
        (shows(VF_FILES, "2\n"),),
    ),
    Mutant(
        "ghost-function",
        "a function that nobody asked for comes up with the VFs, and stays",
        {
            FILE + "test_exactly_the_vfs_that_were_asked_for[1-vfs]": "functions that are new on the host",
            FILE + "test_disable_removes_every_vf[1-vfs]": "functions on the host",
            FILE + "test_ten_cycles_leave_nothing_behind": "functions on the host after cycle 1",
        },
        (ghost_when(vfs_switched("[1-9]")), QUICK),
    ),
    Mutant(
        "vf-not-listed",
        "the PF does not list its last VF",
        {FILE + "test_exactly_the_vfs_that_were_asked_for[1-vfs]": "functions that the PF lists as its VFs"},
        (answered(asked("file.glob", pattern="*/virtfn*"), paths=lambda paths: paths[:-1]),),
    ),
    Mutant(
        "one-more-than-the-most",
        "8 VFs are accepted, though 7 are the most",
        {FILE + "test_one_more_than_the_most_is_refused": "8 VFs were asked for, and 7 is the most"},
        (swallowed(vfs_switched("8")),),
    ),
    Mutant(
        "refused-and-yet-on",
        "8 VFs are refused, and 1 is on",
        {FILE + "test_one_more_than_the_most_is_refused": "sriov_numvfs after the refusal"},
        (before(vfs_switched("8"), lambda call: call.agent.write_file(VF_FILES, "1")),),
    ),
    Mutant(
        "a-change-is-accepted",
        "2 VFs are accepted while 1 is on",
        {FILE + "test_a_change_without_disabling_is_refused": "2 VFs were asked for while 1 was on"},
        (swallowed(vfs_switched("2")),),
    ),
    Mutant(
        "a-refused-change-removes-vfs",
        "a change is refused, and the VFs are gone",
        {FILE + "test_a_change_without_disabling_is_refused": "VFs after the refusal"},
        (after(vfs_switched("2"), lambda call: call.agent.write_file(VF_FILES, "0")),),
    ),
    Mutant(
        "vfs-stay",
        "VFs stay when they are disabled",
        {
            FILE + "test_disable_removes_every_vf[1-vfs]": "VFs that it still lists",
            FILE + "test_ten_cycles_leave_nothing_behind": "functions on the host after cycle 1",
        },
        (swallowed(vfs_switched("0")), QUICK),
    ),
    Mutant(
        "num-vfs-stays",
        "NumVFs reads 1 when VFs are disabled",
        {FILE + "test_disable_removes_every_vf[1-vfs]": "NumVFs, VF Enable, VF MSE"},
        (reads(PF, NUM_VFS, 1, ExtCap.SRIOV),),
    ),
    Mutant(
        "an-iommu-group-stays",
        "an IOMMU group is left behind",
        {FILE + "test_ten_cycles_leave_nothing_behind": "IOMMU groups"},
        (lists(since(vfs_switched("0"), asked("file.list", path="/sys/kernel/iommu_groups")), "99"), QUICK),
    ),
    Mutant(
        "disabling-changes-the-pf",
        "Bus Master Enable of the PF is another when its VFs are disabled",
        {FILE + "test_ten_cycles_leave_nothing_behind": f"config space of PF ({PF})"},
        (after(vfs_switched("0"), write(PF, COMMAND, lambda old: old ^ BUS_MASTER)), constant("CYCLES", 2)),
    ),
    Mutant(
        "disabling-breaks-the-link",
        "the link reports an error when VFs are disabled",
        {FILE + "test_ten_cycles_leave_nothing_behind": ("the kernel's log", "PCIe Bus Error")},
        (error_reported_when(vfs_switched("0")), QUICK),
    ),
)

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

MUTANTS = (*IDENTITY, *CAPABILITY, *SWITCHING, *BARS, *GROUPS)
