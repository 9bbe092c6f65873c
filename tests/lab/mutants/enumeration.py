"""Mutants for tests/endpoint/test_enumeration.py."""

from __future__ import annotations

import errno

from harness.host.function import DEVICES
from harness.pci.capabilities import Cap, ExtCap
from harness.pci.layout import (
    COMMAND,
    EXPRESS_CAPABILITIES,
    FIRST_VF_OFFSET,
    INITIAL_VFS,
    NUM_VFS,
    TOTAL_VFS,
    VF_DEVICE_ID,
    VF_STRIDE,
)
from harness.pci.registers import Register
from tests.lab.mutants.device import (
    BUS_MASTER,
    PF,
    VF_FILES,
    device,
    error_reported_when,
    ghost_when,
    lists,
    reads,
    shows,
    turns_on,
    vf,
    vfs_switched,
    write,
)
from tests.lab.mutants.model import Mutant
from tests.lab.mutants.taps import after, answered, asked, before, constant, refused, since, swallowed

IDS = Register("Vendor ID and Device ID", 0x00, 32)
EXTENDED_HEADER = Register("Extended Capability Header", 0x000, 32)
LAST_DWORD = Register("the last dword", 0xFFC, 32)
QUICK = constant("CYCLES", 1)
ONE_MACHINE = constant("MACHINES", {("acpi", "vfs-on"): 1})
FILE = "test_enumeration.py::"


IDENTITY = (
    Mutant(
        "another-device",
        "the endpoint is a virtio network card, without SR-IOV",
        {
            FILE + "test_pf_is_the_promised_device": "Vendor and Device ID in config space",
            FILE + "test_capability_is_as_promised": f"PF ({PF}) shows no SR-IOV capability",
            FILE + "test_exactly_the_vfs_that_were_asked_for[1-vfs]": "Linux sees no SR-IOV capability",
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
        {FILE + "test_ten_cycles_leave_nothing_behind": ("8 VFs asked for, ", f"VF 7 ({vf(7)})) on")},
        (turns_on(lambda count: count - 1), QUICK),
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
        {FILE + "test_disable_removes_every_vf[1-vfs]": "VFs that it still lists"},
        (swallowed(vfs_switched("0")),),
    ),
    Mutant(
        "num-vfs-stays",
        "NumVFs reads 1 when VFs are disabled",
        {
            FILE + "test_disable_removes_every_vf[1-vfs]": "NumVFs, VF Enable, VF MSE",
            FILE + "test_one_more_than_the_most_is_refused": "NumVFs and VF Enable after the refusal",
        },
        (reads(PF, NUM_VFS, 1, ExtCap.SRIOV),),
    ),
    Mutant(
        "a-vf-is-left-over",
        "Linux keeps VF 1 when VFs are disabled, though it lists it nowhere",
        {FILE + "test_disable_removes_every_vf[1-vfs]": ("VFs that are still on the host", vf(1))},
        (answered(asked("file.exists", path=f"{DEVICES}/{vf(1)}"), exists=lambda _: True),),
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

MUTANTS = (*IDENTITY, *CAPABILITY, *SWITCHING)
