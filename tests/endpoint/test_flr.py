"""Function Level Reset: ready in time, everything cleared that must be, and nobody else disturbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from harness.agent.results import FlrSample
from harness.host import Function, Host, PhysicalFunction
from harness.host.state import State
from harness.measure.flr import RESETS, ready_times_ns, reset_many
from harness.measure.statistics import Distribution, Measured, check_all, judge, ms
from harness.pci.dump import changes
from harness.pci.layout import COMMAND, MSIX_CONTROL, MSIX_ENTRY_BYTES, MSIX_VECTOR_CONTROL, MSIX_VECTOR_MASKED
from harness.profiles import Profile
from harness.report.pictures import show_flr
from harness.report.steps import attach_json, measured, parameter, step

ALL_ONES = 0xFFFF_FFFF
BUS_MASTER = COMMAND.mask("bus_master")
MSIX_ENABLE = MSIX_CONTROL.mask("enable")


def test_pf_is_ready_in_time(host: Host, quiet_pf: PhysicalFunction, profile: Profile) -> None:
    """The PF answers within the profile's limit (100 ms by PCIe Base 6.6.2) after each of 20 FLRs."""
    saved = State.of(quiet_pf)
    with step(f"reset {quiet_pf} {RESETS} times"):
        samples = reset_many(host.agent, quiet_pf)
    saved.write_back(quiet_pf)
    judge_all({"PF": samples}, profile)


def test_every_vf_is_ready_in_time(host: Host, quiet_pf: PhysicalFunction, profile: Profile) -> None:
    """Each VF answers within the profile's limit after each of 20 FLRs, with all VFs on."""
    samples = {}
    for vf in quiet_pf.enable_vfs(quiet_pf.most_vfs()):
        with step(f"reset {vf} {RESETS} times"):
            samples[f"VF {vf.number}"] = reset_many(host.agent, vf)
    judge_all(samples, profile)


def test_vf_flr_clears_its_state(host: Host, quiet_pf: PhysicalFunction) -> None:
    """After an FLR a VF's Command is 0, MSI-X is off and not function-masked (PCIe Base 6.6.2, 7.7.2.2)."""
    for vf in quiet_pf.enable_vfs(quiet_pf.most_vfs()):
        with step(f"set Bus Master and MSI-X Enable in {vf}, then reset it"):
            arm(vf)
            reset_many(host.agent, vf, 1)
        check_cleared(vf)


def test_pf_flr_clears_its_state(host: Host, quiet_pf: PhysicalFunction) -> None:
    """After an FLR the PF's Command is 0, its BARs hold no address, and MSI-X is off (PCIe Base 6.6.2)."""
    saved = State.of(quiet_pf)
    with step("set Bus Master and MSI-X Enable in the PF, then reset it"):
        arm(quiet_pf)
        reset_many(host.agent, quiet_pf, 1)
    check_cleared(quiet_pf)
    addresses = {bar: quiet_pf.read_config(0x10 + 4 * bar, 4) & ~0xF for bar in range(6)}
    left = {f"BAR {bar}": f"{address:#x}" for bar, address in addresses.items() if address}
    assert not left, f"{quiet_pf}: BARs that hold an address after FLR"
    saved.write_back(quiet_pf)


def test_vf_flr_masks_every_vector(host: Host, quiet_pf: PhysicalFunction) -> None:
    """After an FLR every entry of a VF's MSI-X table is masked (PCIe Base 7.7.2.8: the bit's reset value is 1)."""
    for vf in quiet_pf.enable_vfs(quiet_pf.most_vfs()):
        with step(f"unmask every vector of {vf}, then reset it"):
            set_vector_masks(vf, 0)
            reset_many(host.agent, vf, 1)
        assert unmasked_vectors(vf) == [], f"{vf}: vectors that are not masked after FLR"


def test_pf_flr_masks_every_vector(host: Host, quiet_pf: PhysicalFunction) -> None:
    """After an FLR every entry of the PF's MSI-X table is masked (PCIe Base 7.7.2.8: the bit's reset value is 1)."""
    saved = State.of(quiet_pf)
    with step("unmask every vector of the PF, then reset it"):
        set_vector_masks(quiet_pf, 0)
        reset_many(host.agent, quiet_pf, 1)
    saved.write_back(quiet_pf)
    assert unmasked_vectors(quiet_pf) == [], f"{quiet_pf}: vectors that are not masked after FLR"


@pytest.mark.parametrize("which", ["first", "last"])
def test_vf_flr_leaves_the_others_alone(host: Host, quiet_pf: PhysicalFunction, which: str) -> None:
    """An FLR of one VF changes nothing in its neighbours nor in the PF (PCIe Base 9.2.2.2)."""
    vfs = quiet_pf.enable_vfs(quiet_pf.most_vfs())
    victim = vfs[0 if which == "first" else -1]
    others: tuple[Function, ...] = (quiet_pf, *(vf for vf in vfs if vf is not victim))
    for function in others:
        arm(function)
    before = {str(function): function.config() for function in others}
    with step(f"reset {victim}"):
        reset_many(host.agent, victim, 1)
    for function in others:
        changed = changes(before[str(function)], function.config())
        assert not changed, f"config space of {function} after the FLR of {victim}"


def test_pf_flr_removes_its_vfs(host: Host, quiet_pf: PhysicalFunction) -> None:
    """An FLR of the PF clears VF Enable, VF MSE and NumVFs, and its VFs answer no more (PCIe Base 9.2.2.3)."""
    vfs = quiet_pf.enable_vfs(quiet_pf.most_vfs())
    saved = State.of(quiet_pf)
    with step("reset the PF with VFs on"):
        reset_many(host.agent, quiet_pf, 1)
    seen = quiet_pf.sriov()
    shown = (seen.vf_enable, seen.vf_mse, seen.num_vfs)
    assert shown == (False, False, 0), f"{quiet_pf}: VF Enable, VF MSE, NumVFs after its FLR"
    still_there = [str(vf) for vf in vfs if vf.read_config(COMMAND.offset, 4) != ALL_ONES]
    assert not still_there, f"VFs that still answer after the FLR of {quiet_pf}"
    with step("write back what the reset took, and turn VFs off the ordinary way"):
        saved.write_back(quiet_pf)
        quiet_pf.disable_vfs()
    with step("enable VFs again"):
        quiet_pf.enable_vfs(1)


@pytest.mark.parametrize("function", ["pf", "vf"])
def test_the_kernels_own_reset_works(host: Host, quiet_pf: PhysicalFunction, function: str) -> None:
    """Linux resets the function by FLR (sysfs ``reset``), and its config space is the same as before."""
    vfs = quiet_pf.enable_vfs(2)
    target: Function = quiet_pf if function == "pf" else vfs[0]
    methods = target.attribute("reset_method").split() if target.has_attribute("reset_method") else []
    assert "flr" in methods, f"{target}: resets that Linux offers"
    target.write_attribute("reset_method", "flr")
    before, log = target.config(), host.log.mark()
    with step(f"echo 1 > {target.folder}/reset"):
        target.write_attribute("reset", "1")
    changed = changes(before, target.config())
    assert not changed, f"config space of {target} after the reset"
    trouble = log.trouble()
    assert not trouble, "the kernel's log"
    assert [vf.bdf for vf in quiet_pf.vfs()] == [vf.bdf for vf in vfs], f"{quiet_pf}: VFs after the reset"
    silent = [str(vf) for vf in vfs if vf.read_config(COMMAND.offset, 4) == ALL_ONES]
    assert not silent, "VFs that do not answer after the reset"


def arm(function: Function) -> None:
    """Set what an FLR must clear: Bus Master Enable, and MSI-X Enable where there is MSI-X."""
    command = function.read_config(COMMAND.offset, 2)
    function.write_config(COMMAND.offset, 2, command | BUS_MASTER)
    assert function.read_config(COMMAND.offset, 2) & BUS_MASTER, f"{function}: Bus Master Enable cannot be set"
    if msix := function.msix():
        control = msix.offset + MSIX_CONTROL.offset
        function.write_config(control, 2, function.read_config(control, 2) | MSIX_ENABLE)
        assert function.read_config(control, 2) & MSIX_ENABLE, f"{function}: MSI-X Enable cannot be set"


def vector_controls(function: Function) -> tuple[int, list[int]]:
    """The BAR of a function's MSI-X table, and the offsets of the Vector Control of every entry in it."""
    msix = function.usable_msix()
    if msix is None:
        return 0, []
    first = msix.table_offset + MSIX_VECTOR_CONTROL
    return msix.table_bar, [first + MSIX_ENTRY_BYTES * vector for vector in range(msix.vectors)]


def set_vector_masks(function: Function, value: int) -> None:
    """Write every Vector Control, and see that it holds."""
    bar, offsets = vector_controls(function)
    for offset in offsets:
        function.write_bar(bar, offset, value)
        held = function.read_bar(bar, offset) & MSIX_VECTOR_MASKED
        assert held == value, f"{function}: the mask bit at {offset:#x} of BAR {bar} does not hold {value}"


def unmasked_vectors(function: Function) -> list[int]:
    bar, offsets = vector_controls(function)
    controls = [function.read_bar(bar, offset) for offset in offsets]
    return [vector for vector, control in enumerate(controls) if not control & MSIX_VECTOR_MASKED]


def check_cleared(function: Function) -> None:
    """What arm() set, and what else PCIe Base 6.6.2 wants clear, is clear."""
    assert f"{function.read_config(COMMAND.offset, 2):#06x}" == "0x0000", f"{function}: Command after FLR"
    if msix := function.msix():
        assert not msix.enabled, f"{function}: MSI-X Enable after FLR"
        assert not msix.function_masked, f"{function}: MSI-X Function Mask after FLR"


def judge_all(samples: Mapping[str, Sequence[FlrSample]], profile: Profile) -> None:
    """Every function within the limit; the picture and the figures go with the result."""
    limit_ns = int(profile.reset.ready_ms * 1e6)
    series = {name: ready_times_ns(function) for name, function in samples.items()}
    show_flr(series, limit_ns)
    attach_json("FLR samples", {name: list(function) for name, function in samples.items()})
    everything = Distribution.of([one for times in series.values() for one in times])
    parameter("p50", ms(everything.p50_ns))
    parameter(
        "p99", ms(everything.p99_ns) + (" (the maximum: fewer than 100 samples)" if everything.p99_is_maximum else "")
    )
    parameter("max", ms(everything.maximum_ns))
    for name, times in series.items():
        measured(Measured("FLR", name, tuple(times), limit_ns))
    relapsed = [name for name, function in samples.items() if any(sample.relapsed for sample in function)]
    assert not relapsed, "functions that answered after FLR, and then did not"
    check_all(*(judge(times, limit_ns, f"FLR of {name}") for name, times in series.items()))
