"""VFs appear where the PF's capability says, as many as asked for, and go without a trace."""

from __future__ import annotations

import errno

from harness.errors import RemoteOSError
from harness.host import Host, PhysicalFunction
from harness.pci.dump import changes, ids
from harness.profiles import Profile
from harness.report.steps import step

CYCLES = 10
NO_ID = "ffff:ffff"  # a VF's Vendor and Device ID: PCIe Base 9.3.4.1.1 and .2 (SR-IOV 1.1: 3.4.1.1 and .2)
STANDARD_ID_OFFSET = 0x00


def test_pf_is_the_promised_device(pf: PhysicalFunction, profile: Profile) -> None:
    """The PF has the profile's IDs, in config space and in the kernel's view of it."""
    promised = ids(profile.pf.vendor_id, profile.pf.device_id)
    raw = pf.read_config(STANDARD_ID_OFFSET, 4)
    assert ids(raw & 0xFFFF, raw >> 16) == promised, f"{pf}: Vendor and Device ID in config space"
    assert ids(*pf.vendor_and_device()) == promised, f"{pf}: vendor and device as Linux holds them"


def test_capability_is_as_promised(pf: PhysicalFunction, profile: Profile) -> None:
    """The SR-IOV capability says what the profile promises: VF count, geometry, VF Device ID."""
    seen = pf.sriov()
    shown = {
        "TotalVFs": seen.total_vfs,
        "First VF Offset": seen.first_vf_offset,
        "VF Stride": seen.vf_stride,
        "VF Device ID": f"{seen.vf_device_id:04x}",
    }
    promised = {
        "TotalVFs": profile.vf.total,
        "First VF Offset": profile.vf.first_offset,
        "VF Stride": profile.vf.stride,
        "VF Device ID": f"{profile.vf.device_id:04x}",
    }
    assert shown == promised, f"{pf}: SR-IOV capability"
    assert seen.initial_vfs == seen.total_vfs, f"{pf}: InitialVFs must equal TotalVFs without VF migration"
    assert pf.most_vfs() == profile.vf.most, f"{pf}: sriov_totalvfs, the most that its driver gives"


def test_exactly_the_vfs_that_were_asked_for(host: Host, pf: PhysicalFunction, num_vfs: int) -> None:
    """N VFs appear, at the routing IDs that First VF Offset and VF Stride give, and nothing else does."""
    before = set(host.functions())
    with step(f"enable {num_vfs} VFs"):
        pf.switch_on_vfs(num_vfs)
    seen = pf.sriov()
    assert (seen.num_vfs, seen.vf_enable, seen.vf_mse) == (num_vfs, True, True), f"{pf}: NumVFs, VF Enable, VF MSE"
    assert pf.num_vfs() == num_vfs, f"{pf}: sriov_numvfs"
    promised = {pf.expected_vf(number).bdf for number in range(1, num_vfs + 1)}
    assert set(host.functions()) - before == promised, "functions that are new on the host"
    assert {vf.bdf for vf in pf.vfs()} == promised, "functions that the PF lists as its VFs"


def test_vfs_have_the_promised_ids(quiet_pf: PhysicalFunction, profile: Profile, num_vfs: int) -> None:
    """Each VF's own config space shows no ID, and the kernel gives it the PF's vendor and the VF Device ID."""
    promised = ids(profile.pf.vendor_id, profile.vf.device_id)
    for vf in quiet_pf.enable_vfs(num_vfs):
        with step(f"read {vf}"):
            raw = vf.read_config(STANDARD_ID_OFFSET, 4)
            assert ids(raw & 0xFFFF, raw >> 16) == NO_ID, f"{vf}: Vendor and Device ID must read FFFF"
            assert ids(*vf.vendor_and_device()) == promised, f"{vf}: vendor and device as Linux holds them"
            assert vf.express().device_port_type == quiet_pf.express().device_port_type, f"{vf}: Device/Port Type"


def test_vf_bars_are_the_pfs_slices(quiet_pf: PhysicalFunction, profile: Profile, num_vfs: int) -> None:
    """BAR b of VF n is slice n of the PF's VF BAR b: the promised size, in the aperture, touching no other."""
    vfs = quiet_pf.enable_vfs(num_vfs)
    apertures = quiet_pf.vf_apertures()
    assert set(apertures) == {bar.index for bar in profile.vf.bars}, f"{quiet_pf}: VF BARs that it implements"
    for vf in vfs:
        with step(f"BARs of {vf}"):
            bars = {resource.index: resource for resource in vf.resources()}
            assert set(bars) == set(apertures), f"{vf}: its BARs"
            for promised in profile.vf.bars:
                seen, aperture = bars[promised.index], apertures[promised.index]
                assert f"{seen.size:#x}" == f"{promised.size:#x}", f"{vf}: size of BAR {promised.index}"
                start = aperture.start + (vf.number - 1) * promised.size
                own = f"{vf}: start of BAR {promised.index}, slice {vf.number} of the aperture"
                assert f"{seen.start:#x}" == f"{start:#x}", own
                assert seen.end <= aperture.end, (
                    f"{vf}: BAR {promised.index} ends past the aperture: {seen}, {aperture}"
                )


def test_aperture_holds_all_vfs(quiet_pf: PhysicalFunction, profile: Profile) -> None:
    """The PF asks for TotalVFs times one VF's BAR, and its VF BAR registers hold what the host assigned."""
    apertures = quiet_pf.vf_apertures()
    registers = quiet_pf.vf_bar_addresses()
    for bar in profile.vf.bars:
        name = f"{quiet_pf}: VF BAR {bar.index}"
        assert bar.index in apertures, f"{name}: Linux holds no aperture for it"
        aperture = apertures[bar.index]
        assert f"{aperture.size:#x}" == f"{bar.size * profile.vf.total:#x}", f"{name}: size of the aperture"
        assert f"{registers.get(bar.index, 0):#x}" == f"{aperture.start:#x}", f"{name}: address in the register"
        assert aperture.width == bar.width, f"{name}: address width in bits"
        assert aperture.prefetchable == bar.prefetchable, f"{name}: prefetchable"


def test_each_vf_has_an_iommu_group_of_its_own(quiet_pf: PhysicalFunction, num_vfs: int) -> None:
    """No two VFs share a group, so each can be given to a guest alone."""
    vfs = quiet_pf.enable_vfs(num_vfs)
    groups = {str(vf): vf.iommu_group() for vf in vfs}
    assert None not in groups.values(), f"a VF is in no IOMMU group: {groups}"
    assert len(set(groups.values())) == len(vfs), f"VFs share an IOMMU group: {groups}"
    for vf in vfs:
        assert vf.iommu_group_members() == (vf.bdf,), f"{vf}: functions in its IOMMU group"


def test_one_more_than_the_most_is_refused(pf: PhysicalFunction) -> None:
    """N + 1 VFs: ERANGE (drivers/pci/pci-sysfs.c, sriov_numvfs_store), and nothing changes."""
    most = pf.most_vfs()
    with step(f"ask for {most + 1} VFs"):
        assert answer_to(pf, most + 1) == "ERANGE", f"{pf}: {most + 1} VFs were asked for, and {most} is the most"
    assert pf.num_vfs() == 0, f"{pf}: sriov_numvfs after the refusal"
    seen = pf.sriov()
    assert (seen.num_vfs, seen.vf_enable) == (0, False), f"{pf}: NumVFs and VF Enable after the refusal"


def test_a_change_without_disabling_is_refused(pf: PhysicalFunction) -> None:
    """From one number to another without 0 between: EBUSY, and the VFs stay."""
    before = pf.enable_vfs(1)
    with step("ask for 2 VFs while 1 is on"):
        assert answer_to(pf, 2) == "EBUSY", f"{pf}: 2 VFs were asked for while 1 was on"
    assert [vf.bdf for vf in pf.vfs()] == [vf.bdf for vf in before], f"{pf}: VFs after the refusal"


def test_disable_removes_every_vf(host: Host, quiet_pf: PhysicalFunction, num_vfs: int) -> None:
    """0 VFs: none is left on the host, and VF Enable and NumVFs are clear."""
    before = set(host.functions())
    vfs = quiet_pf.enable_vfs(num_vfs)
    with step("disable VFs"):
        quiet_pf.disable_vfs()
    assert [vf.bdf for vf in quiet_pf.vfs()] == [], f"{quiet_pf}: VFs that it still lists"
    assert set(host.functions()) == before, "functions on the host"
    assert not [vf.bdf for vf in vfs if vf.exists()], "VFs that are still on the host"
    seen = quiet_pf.sriov()
    assert (seen.num_vfs, seen.vf_enable, seen.vf_mse) == (0, False, False), f"{quiet_pf}: NumVFs, VF Enable, VF MSE"


def test_ten_cycles_leave_nothing_behind(host: Host, quiet_pf: PhysicalFunction) -> None:
    """All VFs on and off, ten times: the same functions, groups and capability as before, and a quiet kernel."""
    functions, groups, config = host.functions(), host.iommu_groups(), b""
    log = host.log.mark()
    for cycle in range(1, CYCLES + 1):
        with step(f"cycle {cycle}"):
            quiet_pf.enable_vfs(quiet_pf.most_vfs())
            quiet_pf.disable_vfs()
            assert host.functions() == functions, f"functions on the host after cycle {cycle}"
        config = config or quiet_pf.config()  # after the first: Linux turns the PF's Memory Space on then
    assert host.iommu_groups() == groups, "IOMMU groups"
    changed = changes(config, quiet_pf.config())
    assert not changed, f"config space of {quiet_pf}"
    trouble = log.trouble()
    assert not trouble, "the kernel's log"


def answer_to(pf: PhysicalFunction, count: int) -> str:
    """The name of the kernel's error when it is asked for so many VFs, or "accepted"."""
    try:
        pf.set_num_vfs(count)
    except RemoteOSError as refused:
        return errno.errorcode.get(refused.errno or 0, str(refused))
    return "accepted"
