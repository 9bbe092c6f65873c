"""Mutants for tests/endpoint/test_flr.py."""

from __future__ import annotations

from collections.abc import Callable

from harness.host.function import DEVICES
from harness.pci.capabilities import Cap
from harness.pci.layout import COMMAND, MSIX_CONTROL, MSIX_ENTRY_BYTES, MSIX_VECTOR_CONTROL
from harness.pci.registers import Register
from tests.lab.mutants.device import (
    BUS_MASTER,
    PF,
    VF_FILES,
    device,
    error_reported_when,
    reads,
    reads_when,
    vf,
    write,
)
from tests.lab.mutants.model import Mutant, Tap
from tests.lab.mutants.taps import (
    Call,
    When,
    after,
    answered,
    asked,
    asked_otherwise,
    nth,
    since,
    swallowed,
    wrote,
)

FILE = "test_flr.py::"
LATE_NS = 400_000_000  # more than a busy computer adds by itself
ENABLE, FUNCTION_MASK = MSIX_CONTROL.mask("enable"), MSIX_CONTROL.mask("function_mask")
COMMAND_AND_STATUS = Register("Command and Status", 0x04, 32)
BAR_0 = Register("BAR 0", 0x10, 32)
CAPABILITIES_LIST = 0x0010_0000
NOTHING_DONE = {
    **dict.fromkeys(("ready", "relapsed", "all_ones", "rrs", "pending", "pending_after"), False),
    **dict.fromkeys(("ready_ns", "write_ns", "longest_gap_ns", "reads", "command", "device_control"), 0),
    "ready": True,
    "not_ready_ns": -1,
    "samples": [],
}


def reset_of(function: str = "*") -> When:
    """The test resets a function by FLR, itself."""
    return asked("flr", bdf=function)


def kernel_reset_of(function: str) -> When:
    """The test has the kernel reset a function."""
    return wrote(f"{DEVICES}/{function}/reset")


def late(when: When) -> Tap:
    """The function does not answer for 400 ms after its reset."""
    return asked_otherwise(when, lambda call: call.but(hold_ns=LATE_NS))


def also_reset(function: str) -> Tap:
    """An FLR of VF 1 resets another function, too."""

    def act(call: Call) -> None:
        call.agent.call("flr", **{**call.args, "bdf": function})

    return after(reset_of(vf(1)), act)


def unmask(function: str, vector: int) -> Callable[[Call], None]:
    """Really clear the mask bit of a vector of an igb VF, whose table is in BAR 3."""

    def act(call: Call) -> None:
        agent, offset = call.agent, vector * MSIX_ENTRY_BYTES + MSIX_VECTOR_CONTROL
        agent.config_write(function, COMMAND.offset, 2, COMMAND.mask("memory_space"))
        agent.bar_write(function, 3, offset, 0)
        agent.config_write(function, COMMAND.offset, 2, 0)

    return act


TIME = (
    Mutant(
        "no-flr",
        "the endpoint offers no FLR",
        {
            FILE + "test_pf_is_ready_in_time": f"PF ({PF}) offers no Function Level Reset",
            FILE + "test_the_kernels_own_reset_works[vf]": "resets that Linux offers",
        },
        (device("igb", {"x-pcie-flr-init": False}),),
    ),
    Mutant(
        "pf-is-late-once",
        "the PF needs 400 ms after its 7th reset",
        {FILE + "test_pf_is_ready_in_time": ("FLR of PF: ", " of 20 later than 100 ms, worst 4", "over, sample 7)")},
        (late(nth(7, reset_of(PF))),),
    ),
    Mutant(
        "pf-never-answers",
        "the PF answers no more after a reset",
        {FILE + "test_pf_is_ready_in_time": "FLR of PF: 20 of 20 later than 100 ms, worst 2000 ms"},
        (answered(reset_of(PF), ready=lambda _: False, ready_ns=lambda _: -1),),
    ),
    Mutant(
        "a-vf-is-late-once",
        "VF 3 needs 400 ms after its last reset",
        {FILE + "test_every_vf_is_ready_in_time": ("FLR of VF 3: ", " of 20 later than 100 ms", "over, sample 20)")},
        (late(nth(20, reset_of(vf(3)))),),
    ),
    Mutant(
        "a-vf-relapses",
        "VF 8 answers after a reset, and then does not for a moment",
        {FILE + "test_every_vf_is_ready_in_time": ("functions that answered after FLR, and then did not", "VF 8")},
        (answered(nth(5, reset_of(vf(8))), relapsed=lambda _: True),),
    ),
)

STATE = (
    Mutant(
        "flr-does-nothing",
        "an FLR resets nothing",
        {
            FILE + "test_vf_flr_clears_its_state": f"VF 1 ({vf(1)}): Command after FLR",
            FILE + "test_pf_flr_clears_its_state": f"PF ({PF}): Command after FLR",
            FILE + "test_pf_flr_removes_its_vfs": "VF Enable, VF MSE, NumVFs after its FLR",
            FILE + "test_pf_flr_masks_every_vector": f"PF ({PF}): vectors that are not masked after FLR",
        },
        (swallowed(reset_of(), NOTHING_DONE),),
    ),
    Mutant(
        "no-bus-master",
        "Bus Master Enable of VF 2 cannot be set",
        {FILE + "test_vf_flr_clears_its_state": f"VF 2 ({vf(2)}): Bus Master Enable cannot be set"},
        (swallowed(asked("config.write", bdf=vf(2), offset=COMMAND.offset)),),
    ),
    Mutant(
        "no-msix-enable",
        "MSI-X Enable of VF 2 cannot be set",
        {FILE + "test_vf_flr_clears_its_state": f"VF 2 ({vf(2)}): MSI-X Enable cannot be set"},
        (reads(vf(2), MSIX_CONTROL, lambda old: old & ~ENABLE, Cap.MSIX),),
    ),
    Mutant(
        "msix-survives",
        "VF 3 leaves MSI-X on through an FLR",
        {FILE + "test_vf_flr_clears_its_state": f"VF 3 ({vf(3)}): MSI-X Enable after FLR"},
        (after(reset_of(vf(3)), write(vf(3), MSIX_CONTROL, lambda old: old | ENABLE, Cap.MSIX)),),
    ),
    Mutant(
        "a-flr-masks-the-function",
        "VF 3's MSI-X Function Mask is set after an FLR",
        {FILE + "test_vf_flr_clears_its_state": f"VF 3 ({vf(3)}): MSI-X Function Mask after FLR"},
        (after(reset_of(vf(3)), write(vf(3), MSIX_CONTROL, lambda old: old | FUNCTION_MASK, Cap.MSIX)),),
    ),
    Mutant(
        "a-vector-is-unmasked",
        "VF 3's vector 1 is not masked after an FLR",
        {FILE + "test_vf_flr_masks_every_vector": (f"VF 3 ({vf(3)}): vectors that are not masked after FLR", "[1]")},
        (after(reset_of(vf(3)), unmask(vf(3), 1)),),
    ),
    Mutant(
        "masks-do-not-hold",
        "the mask bits of the PF's MSI-X table cannot be cleared",
        {FILE + "test_pf_flr_masks_every_vector": (f"PF ({PF}): the mask bit at 0xc of BAR 3", "does not hold 0")},
        (swallowed(asked("bar.write", bdf=PF)),),
    ),
    Mutant(
        "a-bar-survives",
        "the PF's BAR 0 holds its address through an FLR",
        {FILE + "test_pf_flr_clears_its_state": (f"PF ({PF}): BARs that hold an address", "BAR 0", "0xfe000000")},
        (after(reset_of(PF), write(PF, BAR_0, 0xFE00_0000)),),
    ),
)

NEIGHBOURS = (
    Mutant(
        "flr-of-two",
        "an FLR of VF 1 resets VF 2, too",
        {FILE + "test_vf_flr_leaves_the_others_alone[first]": (f"VF 2 ({vf(2)}) after the FLR of VF 1", "004: was")},
        (also_reset(vf(2)),),
    ),
    Mutant(
        "vf-flr-stops-the-pf",
        "an FLR of VF 8 takes Bus Master Enable from the PF",
        {FILE + "test_vf_flr_leaves_the_others_alone[last]": f"config space of PF ({PF}) after the FLR of VF 8"},
        (after(reset_of(vf(8)), write(PF, COMMAND, lambda old: old & ~BUS_MASTER)),),
    ),
    Mutant(
        "a-vf-outlives-its-pf",
        "VF 3 still answers after an FLR of the PF",
        {FILE + "test_pf_flr_removes_its_vfs": ("VFs that still answer", f"VF 3 ({vf(3)})")},
        (reads_when(since(reset_of(PF), asked("config.read", bdf=vf(3))), COMMAND_AND_STATUS, CAPABILITIES_LIST),),
    ),
    Mutant(
        "no-vfs-after-flr",
        "no VF comes up after an FLR of the PF",
        {FILE + "test_pf_flr_removes_its_vfs": f"PF ({PF}): 1 VFs asked for, () on"},
        (swallowed(wrote(VF_FILES, "1")),),
    ),
)

BY_THE_KERNEL = (
    Mutant(
        "a-reset-changes-config",
        "the PF comes out of the kernel's reset with another Command",
        {FILE + "test_the_kernels_own_reset_works[pf]": f"config space of PF ({PF}) after the reset"},
        (after(kernel_reset_of(PF), write(PF, COMMAND, lambda old: old ^ BUS_MASTER)),),
    ),
    Mutant(
        "a-reset-breaks-the-link",
        "the link reports an error when a VF is reset",
        {FILE + "test_the_kernels_own_reset_works[vf]": ("the kernel's log", "PCIe Bus Error")},
        (error_reported_when(kernel_reset_of(vf(1))),),
    ),
    Mutant(
        "a-reset-loses-a-vf",
        "VF 2 is gone after a reset of VF 1",
        {FILE + "test_the_kernels_own_reset_works[vf]": "VFs after the reset"},
        (
            answered(
                since(kernel_reset_of(vf(1)), asked("file.glob", pattern="*/virtfn*")), paths=lambda paths: paths[:1]
            ),
        ),
    ),
    Mutant(
        "a-reset-silences-a-vf",
        "VF 2 answers no more after a reset of the PF",
        {FILE + "test_the_kernels_own_reset_works[pf]": ("VFs that do not answer", f"VF 2 ({vf(2)})")},
        (reads(vf(2), COMMAND_AND_STATUS, 0xFFFF_FFFF),),
    ),
    Mutant(
        "vf-shows-no-pci-express",
        "VF 1 shows another capability in place of PCI Express",
        {FILE + "test_every_vf_is_ready_in_time": f"VF 1 ({vf(1)}) shows no PCI Express capability"},
        (reads(vf(1), Register("Capability ID", 0, 8), 0x09, Cap.EXPRESS),),
    ),
)

MUTANTS = (*TIME, *STATE, *NEIGHBOURS, *BY_THE_KERNEL)
