"""VFs appear where the PF's capability says, as many as asked for, and go without a trace."""

from __future__ import annotations

import errno

import pytest

from harness.host import Host, PhysicalFunction
from harness.profiles import Profile
from harness.report.steps import step

CYCLES = 10
NO_ID = 0xFFFF_FFFF  # a VF's Vendor and Device ID: PCIe Base 9.3.4.1.1 and .2 (SR-IOV 1.1: 3.4.1.1 and .2)
STANDARD_ID_OFFSET = 0x00


def test_pf_is_the_promised_device(pf: PhysicalFunction, profile: Profile) -> None:
    """The PF has the profile's IDs, in config space and in the kernel's view of it."""
    promised = (profile.pf.vendor_id, profile.pf.device_id)
    raw = pf.read_config(STANDARD_ID_OFFSET, 4)
    assert (raw & 0xFFFF, raw >> 16) == promised, "Vendor and Device ID in config space"
    assert pf.vendor_and_device() == promised, "vendor and device as the kernel holds them"


def test_capability_is_as_promised(pf: PhysicalFunction, profile: Profile) -> None:
    """The SR-IOV capability says what the profile promises: VF count, geometry, VF Device ID."""
    seen = pf.sriov()
    assert seen.total_vfs == profile.vf.total, "TotalVFs"
    assert seen.initial_vfs == seen.total_vfs, "InitialVFs must equal TotalVFs without VF migration"
    assert seen.first_vf_offset == profile.vf.first_offset, "First VF Offset"
    assert seen.vf_stride == profile.vf.stride, "VF Stride"
    assert seen.vf_device_id == profile.vf.device_id, "VF Device ID"
    assert pf.most_vfs() == profile.vf.most, "sriov_totalvfs, the most that the PF's driver gives"


def test_exactly_the_vfs_that_were_asked_for(host: Host, pf: PhysicalFunction, num_vfs: int) -> None:
    """N VFs appear, at the routing IDs that First VF Offset and VF Stride give, and nothing else does."""
    before = set(host.functions())
    with step(f"enable {num_vfs} VFs"):
        pf.enable_vfs(num_vfs)
    seen = pf.sriov()
    assert (seen.num_vfs, seen.vf_enable, seen.vf_mse) == (num_vfs, True, True), "NumVFs, VF Enable, VF MSE"
    assert pf.num_vfs() == num_vfs, "sriov_numvfs"
    promised = {pf.expected_vf(number).bdf for number in range(1, num_vfs + 1)}
    assert set(host.functions()) - before == promised, "functions that are new on the host"
    assert {vf.bdf for vf in pf.vfs()} == promised, "functions that the PF lists as its VFs"


def test_vfs_have_the_promised_ids(pf: PhysicalFunction, profile: Profile, num_vfs: int) -> None:
    """Each VF's own config space shows no ID, and the kernel gives it the PF's vendor and the VF Device ID."""
    for vf in pf.enable_vfs(num_vfs):
        with step(f"read {vf}"):
            assert vf.read_config(STANDARD_ID_OFFSET, 4) == NO_ID, f"{vf}: Vendor and Device ID must read FFFF"
            assert vf.vendor_and_device() == (profile.pf.vendor_id, profile.vf.device_id), f"{vf}: as Linux sees it"
            assert vf.express().device_port_type == pf.express().device_port_type, f"{vf}: Device/Port Type"


def test_vf_bars_are_the_pfs_slices(pf: PhysicalFunction, profile: Profile, num_vfs: int) -> None:
    """BAR b of VF n is slice n of the PF's VF BAR b: the promised size, in the aperture, touching no other."""
    vfs = pf.enable_vfs(num_vfs)
    apertures = pf.vf_apertures()
    assert set(apertures) == {bar.index for bar in profile.vf.bars}, "VF BARs that the PF implements"
    for vf in vfs:
        with step(f"BARs of {vf}"):
            bars = {resource.index: resource for resource in vf.resources()}
            assert set(bars) == set(apertures), f"{vf}: its BARs"
            for promised in profile.vf.bars:
                seen, aperture = bars[promised.index], apertures[promised.index]
                assert seen.size == promised.size, f"{vf}: size of BAR {promised.index}"
                start = aperture.start + (vf.number - 1) * promised.size
                assert seen.start == start, f"{vf}: BAR {promised.index} is not slice {vf.number} of the aperture"
                assert seen.end <= aperture.end, f"{vf}: BAR {promised.index} ends past the aperture"


def test_aperture_holds_all_vfs(pf: PhysicalFunction, profile: Profile) -> None:
    """The PF asks for TotalVFs times one VF's BAR, and its VF BAR registers hold what the host assigned."""
    apertures = pf.vf_apertures()
    registers = pf.vf_bar_addresses()
    for bar in profile.vf.bars:
        assert apertures[bar.index].size == bar.size * profile.vf.total, f"VF BAR {bar.index}: aperture"
        assert registers[bar.index] == apertures[bar.index].start, f"VF BAR {bar.index}: register and resource"


def test_each_vf_has_an_iommu_group_of_its_own(pf: PhysicalFunction, num_vfs: int) -> None:
    """No two VFs share a group, so each can be given to a guest alone."""
    vfs = pf.enable_vfs(num_vfs)
    groups = [vf.iommu_group() for vf in vfs]
    assert None not in groups, "a VF is in no IOMMU group"
    assert len(set(groups)) == len(vfs), f"VFs share groups: {groups}"
    for vf in vfs:
        assert vf.iommu_group_members() == (vf.bdf,), f"{vf}: others in its group"


def test_one_more_than_the_most_is_refused(pf: PhysicalFunction) -> None:
    """N + 1 VFs: ERANGE (drivers/pci/pci-sysfs.c, sriov_numvfs_store), and nothing changes."""
    most = pf.most_vfs()
    with step(f"ask for {most + 1} VFs"), pytest.raises(OSError, match="errno") as refused:
        pf.enable_vfs(most + 1)
    assert refused.value.errno == errno.ERANGE, errno.errorcode.get(refused.value.errno or 0)
    assert pf.num_vfs() == 0, "sriov_numvfs"
    seen = pf.sriov()
    assert (seen.num_vfs, seen.vf_enable) == (0, False), "NumVFs and VF Enable"


def test_a_change_without_disabling_is_refused(pf: PhysicalFunction) -> None:
    """From one number to another without 0 between: EBUSY, and the VFs stay."""
    before = pf.enable_vfs(1)
    with step("ask for 2 VFs while 1 is on"), pytest.raises(OSError, match="errno") as refused:
        pf.set_num_vfs(2)
    assert refused.value.errno == errno.EBUSY, errno.errorcode.get(refused.value.errno or 0)
    assert [vf.bdf for vf in pf.vfs()] == [vf.bdf for vf in before], "VFs after the refusal"


def test_disable_removes_every_vf(host: Host, pf: PhysicalFunction, num_vfs: int) -> None:
    """0 VFs: none is left on the host, and VF Enable and NumVFs are clear."""
    before = set(host.functions())
    vfs = pf.enable_vfs(num_vfs)
    with step("disable VFs"):
        pf.disable_vfs()
    assert pf.vfs() == (), "VFs that the PF still lists"
    assert set(host.functions()) == before, "functions on the host"
    assert not [vf for vf in vfs if vf.exists()], "VFs still there"
    seen = pf.sriov()
    assert (seen.num_vfs, seen.vf_enable, seen.vf_mse) == (0, False, False), "NumVFs, VF Enable, VF MSE"


def test_ten_cycles_leave_nothing_behind(host: Host, pf: PhysicalFunction) -> None:
    """All VFs on and off, ten times: the same functions, groups and capability as before, and a quiet kernel."""
    functions, groups, config = host.functions(), host.iommu_groups(), pf.config()
    log = host.log.mark()
    for cycle in range(1, CYCLES + 1):
        with step(f"cycle {cycle}"):
            vfs = pf.enable_vfs(pf.most_vfs())
            assert len(vfs) == pf.most_vfs(), f"VFs in cycle {cycle}"
            pf.disable_vfs()
            assert host.functions() == functions, f"functions after cycle {cycle}"
    assert host.iommu_groups() == groups, "IOMMU groups"
    assert pf.config() == config, "the PF's config space"
    assert not log.trouble(), "the kernel's log"
