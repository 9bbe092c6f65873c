"""Mutants for tests/endpoint/test_msix.py."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from harness.agent.client import Agent
from harness.agent.results import Answer
from harness.host.function import DEVICES
from harness.pci.capabilities import Cap
from harness.pci.layout import MSIX_CONTROL, MSIX_ENTRY_BYTES, MSIX_PBA, MSIX_TABLE, MSIX_VECTOR_CONTROL
from harness.pci.registers import Register
from harness.profiles import Profile
from tests.lab.mutants.device import PF, device, reads, resource, shows, vf
from tests.lab.mutants.model import Mutant, Tap
from tests.lab.mutants.taps import (
    Ask,
    Call,
    When,
    after,
    answered,
    asked,
    asked_otherwise,
    before,
    constant,
    nth,
    on_agent,
    swallowed,
)

FILE = "test_msix.py::"
PF_IS = FILE + "test_pf_capability_is_as_promised"
VFS_ARE = FILE + "test_vf_capabilities_are_as_promised[1-vfs]"
ALL_ARRIVE = FILE + "test_every_vector_arrives_once_at_its_own_eventfd"
MASKED = FILE + "test_masked_vectors_stay_pending_and_arrive_unmasked"
OTHERS = FILE + "test_other_vectors_arrive_while_one_is_masked"
OFF = FILE + "test_nothing_arrives_with_msix_off"
TABLE_BAR, PBA_OFFSET = 3, 0x2000  # of an igb VF; the PBA is in the same BAR
TRIGGER = 0x1520  # VTEICS
ENABLE = MSIX_CONTROL.mask("enable")
SOON = constant("harness.host.interrupts.ARRIVE_WITHIN_S", 0.2)
TWO_VFS = shows(f"{DEVICES}/{PF}/sriov_totalvfs", "2\n")  # enough to see whether vectors cross


def fires(function: str, vector: int) -> When:
    """The test fires one vector of a function; it is known by the handle under which VFIO opened that function."""
    return lambda call: (
        call.verb == "vfio.irq_wait"
        and [0, TRIGGER, 4, 1 << vector] in call.args["trigger"]
        and handle_of(call, function) == call.args["handle"]
    )


HANDLES: WeakKeyDictionary[Agent, dict[str, int]] = WeakKeyDictionary()


def remember_handles() -> Tap:
    """Note under which handle each function is open; first in a mutant's list of taps, so that the others know."""

    def tap(ask: Ask, call: Call) -> Answer:
        answer = ask(call)
        if call.verb == "vfio.open":
            HANDLES.setdefault(call.agent, {})[call.args["bdf"]] = answer.number("handle")
        return answer

    return on_agent(tap)


def handle_of(call: Call, function: str) -> int | None:
    return HANDLES.get(call.agent, {}).get(function)


def sends(function: str, vector: int) -> Callable[[Call], None]:
    """An event at the eventfd of a vector, signalled by the kernel as the device's interrupt would be."""

    def act(call: Call) -> None:
        call.agent.call("vfio.irq_fire", handle=handle_of(call, function), index=2, vector=vector)

    return act


def lost(function: str, vector: int) -> Tap:
    return asked_otherwise(fires(function, vector), lambda call: call.but(trigger=[]))


def swap_first_two_entries(call: Call) -> None:
    """Address and data of table entries 0 and 1 change places, in the device."""

    def dword(at: int, value: int | None = None) -> int:
        verb, more = ("vfio.read", {}) if value is None else ("vfio.write", {"value": value})
        answer = call.agent.call(verb, handle=call.args["handle"], region=TABLE_BAR, offset=at, width=4, **more)
        return answer.number("value") if value is None else 0

    for at in range(0, MSIX_VECTOR_CONTROL, 4):
        first, second = dword(at), dword(at + MSIX_ENTRY_BYTES)
        dword(at, second)
        dword(at + MSIX_ENTRY_BYTES, first)


def sets_mask(vector: int, masked: bool | None = None) -> When:
    """The test masks (or unmasks, or either) a vector."""

    def when(call: Call) -> bool:
        place = {"region": TABLE_BAR, "offset": vector * MSIX_ENTRY_BYTES + MSIX_VECTOR_CONTROL}
        wanted = place if masked is None else {**place, "value": int(masked)}
        return asked("vfio.write", **wanted)(call)

    return when


def mask_too(vector: int) -> Callable[[Call], None]:
    """Mask (or unmask) another vector just so."""

    def act(call: Call) -> None:
        offset = vector * MSIX_ENTRY_BYTES + MSIX_VECTOR_CONTROL
        call.agent.call("vfio.write", **{**call.args, "offset": offset})

    return act


def pending_bits(value: int) -> Tap:
    """The Pending Bit Array of a VF reads so, whatever is pending."""
    return answered(asked("vfio.read", region=TABLE_BAR, offset=PBA_OFFSET), value=lambda _: value)


def msix_control_written(call: Call) -> bool:
    """The test writes Message Control of VF 1 (0x72: an igb VF's MSI-X capability is at 70h)."""
    return asked("config.write", bdf=vf(1), offset=0x72)(call)


def without_vf_msix(profile: Profile) -> Profile:
    return profile.model_copy(update={"vf": profile.vf.model_copy(update={"msix": None})})


CAPABILITIES = (
    Mutant(
        "pf-without-msix",
        "the endpoint has no MSI-X (a virtio network card with 0 vectors)",
        {PF_IS: f"PF ({PF}): no MSI-X capability"},
        (device("virtio-net-pci", {"vectors": 0}),),
    ),
    Mutant(
        "pf-table-elsewhere",
        "the PF's MSI-X table is at 40h",
        {PF_IS: (f"PF ({PF}): MSI-X table", "BAR 3 + 0x40")},
        (reads(PF, MSIX_TABLE, 0x43, Cap.MSIX),),
    ),
    Mutant(
        "pf-pba-in-its-table",
        "the PF's PBA is at the beginning of its table",
        {PF_IS: (f"PF ({PF}): MSI-X PBA", "BAR 3 + 0x0")},
        (reads(PF, MSIX_PBA, 0x03, Cap.MSIX),),
    ),
    Mutant(
        "vf-without-msix",
        "VF 1 shows another capability in place of MSI-X",
        {MASKED: f"VF 1 ({vf(1)}) has no MSI-X capability"},
        (reads(vf(1), Register("Capability ID", 0, 8), Cap.VENDOR, Cap.MSIX),),
    ),
    Mutant(
        "vf-with-fewer-vectors",
        "VF 1 has 2 vectors",
        {VFS_ARE: f"VF 1 ({vf(1)}): MSI-X vectors"},
        (reads(vf(1), MSIX_CONTROL, lambda old: old - 1, Cap.MSIX),),
    ),
    Mutant(
        "vf-msix-not-promised",
        "VFs have MSI-X, and the profile promises none",
        {VFS_ARE: f"VF 1 ({vf(1)}): an MSI-X capability that the profile does not promise"},
        promise=without_vf_msix,
    ),
    Mutant(
        "vf-table-past-its-bar",
        "VF 1's BAR 3 has room for 2 table entries",
        {MASKED: f"VF 1 ({vf(1)}): MSI-X table, 48 bytes at BAR 3 + 0x0, ends past that BAR (0x20 bytes)"},
        (resource(vf(1), 3, end=lambda end: end - 0x4000 + 2 * MSIX_ENTRY_BYTES),),
    ),
    Mutant(
        "vf-pba-past-its-bar",
        "VF 1's BAR 3 ends where its PBA begins",
        {VFS_ARE: f"VF 1 ({vf(1)}): MSI-X PBA, 8 bytes at BAR 3 + 0x2000, ends past that BAR (0x2000 bytes)"},
        (resource(vf(1), 3, end=lambda end: end - 0x4000 + PBA_OFFSET),),
    ),
)

DELIVERY = (
    Mutant(
        "a-vector-is-lost",
        "VF 2's vector 1 never sends",
        {ALL_ARRIVE: "VF 2 vector 1 never arrived"},
        (remember_handles(), lost(vf(2), 1), TWO_VFS, SOON),
    ),
    Mutant(
        "a-vector-comes-twice",
        "VF 1's vector 2 sends twice",
        {ALL_ARRIVE: "VF 1 vector 2 arrived twice, not once"},
        (remember_handles(), before(fires(vf(1), 2), sends(vf(1), 2)), TWO_VFS),
    ),
    Mutant(
        "vectors-cross",
        "table entries 0 and 1 of a VF are exchanged",
        {
            ALL_ARRIVE: (
                "VF 1 vector 0 arrived on VF 1 vector 1 instead",
                "VF 1 vector 1 arrived on VF 1 vector 0 instead",
            )
        },
        (after(nth(1, asked("vfio.irq_enable")), swap_first_two_entries), TWO_VFS),
    ),
    Mutant(
        "a-vector-comes-at-another-vf",
        "VF 1's vector 0 arrives at VF 2",
        {ALL_ARRIVE: "VF 1 vector 0 arrived on VF 2 vector 0 instead"},
        (remember_handles(), lost(vf(1), 0), after(fires(vf(1), 0), sends(vf(2), 0)), TWO_VFS, SOON),
    ),
)

MASKS = (
    Mutant(
        "masks-are-ignored",
        "a VF sends vector 1 though it is masked",
        {MASKED: "VF 1 vector 1: it came though masked"},
        (swallowed(sets_mask(1)),),
    ),
    Mutant(
        "never-pending",
        "a VF never sets a pending bit",
        {MASKED: "VF 1 vector 0: its pending bit is not set"},
        (pending_bits(0),),
    ),
    Mutant(
        "pending-for-ever",
        "a VF never clears a pending bit",
        {MASKED: "VF 1 vector 0: its pending bit is still set"},
        (pending_bits(0b111),),
    ),
    Mutant(
        "lost-while-masked",
        "a VF forgets what was pending when vector 2 is unmasked",
        {MASKED: "VF 1 vector 2: events by eventfd after unmasking"},
        (swallowed(sets_mask(2, masked=False)), SOON),
    ),
    Mutant(
        "one-mask-for-two",
        "the mask of vector 0 masks vector 1, too",
        {OTHERS: "VF 1 vector 1: events by eventfd while 0 is masked"},
        (after(sets_mask(0), mask_too(1)), SOON),
    ),
    Mutant(
        "msix-enable-is-ignored",
        "a VF sends with MSI-X Enable clear",
        {OFF: "VF 1 vector 0: it came though MSI-X is off"},
        (swallowed(nth(1, msix_control_written)),),
    ),
    Mutant(
        "off-for-ever",
        "a VF sends no more once MSI-X was off",
        {OFF: "VF 1 vector 0: events by eventfd after MSI-X was off"},
        (swallowed(nth(2, msix_control_written)), SOON),
    ),
)

MUTANTS = (*CAPABILITIES, *DELIVERY, *MASKS)
