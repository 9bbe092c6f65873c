"""Mutants for tests/endpoint/test_hotplug.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.agent.results import Answer
from harness.errors import DeadlineExceeded
from harness.host.function import DEVICES
from harness.lab.emulated import ENDPOINT_ID
from harness.vm.qmp import Event, Qmp
from tests.lab.mutants.device import GHOST, PF, device, error_reported_when, lists, shows_since
from tests.lab.mutants.model import Mutant, Tap
from tests.lab.mutants.taps import Ask, Call, answered, asked, constant, nth, on_agent, on_qmp, since

FILE = "test_hotplug.py::"
CYCLES = FILE + "test_twenty_cycles_leave_nothing_behind"
NATIVE_TWICE = FILE + "test_a_second_press_while_one_is_pending_is_refused"
ACPI_TWICE = FILE + "test_a_second_acpi_request_while_one_is_pending_changes_nothing"
ABSENT = FILE + "test_an_absent_endpoint_cannot_be_unplugged"
QUICK = constant("CYCLES", 1)
SOON = constant("harness.lab.emulated.UNPLUG_WITHIN_S", 0.3)
PLUG_SOON = constant("harness.lab.emulated.PLUG_WITHIN_S", 1.0)
LEAVES = asked("file.wait", path=f"{DEVICES}/{PF}", present=False)


def unanswered(command: str, first: int = 1) -> Tap:
    """QEMU takes this command for the endpoint and does nothing; from the ``first`` such command on."""

    def install(patch: pytest.MonkeyPatch, item: pytest.Item) -> None:
        count = 0

        def tap(ask: Callable[..., Any], asked_for: str, arguments: dict[str, Any]) -> Any:
            nonlocal count
            meant = asked_for == command and arguments.get("id") == ENDPOINT_ID
            count += meant
            return {} if meant and count >= first else ask(asked_for, arguments)

        on_qmp(tap)(patch, item)

    return install


def with_a_ghost() -> Tap:
    """A second function comes with the endpoint, and stays when it goes."""

    def tap(ask: Callable[..., Any], command: str, arguments: dict[str, Any]) -> Any:
        if command == "device_add" and arguments["id"] == ENDPOINT_ID:
            ask(command, GHOST)
        return ask(command, arguments)

    return on_qmp(tap)


def events_twice() -> Tap:
    """QEMU tells of everything twice."""

    def install(patch: pytest.MonkeyPatch, _: pytest.Item) -> None:
        once = Qmp.events

        def twice(qmp: Qmp, after: int = 0) -> tuple[Event, ...]:
            return 2 * once(qmp, after)

        patch.setattr(Qmp, "events", twice)

    return install


def never_leaves() -> Tap:
    """Linux goes on showing the function that is out."""

    def tap(ask: Ask, call: Call) -> Answer:
        if LEAVES(call):
            raise DeadlineExceeded("agent: file.wait", got=f"still waiting for {call.args['path']} to go")
        return ask(call)

    return on_agent(tap)


def another_driver(answer: str) -> str:
    return answer.replace("/igb", "/vfio-pci")


MUTANTS = (
    Mutant(
        "endpoint-not-found",
        "the host never sees the endpoint",
        {CYCLES + "[acpi-vfs-off]": f"the host did not find the endpoint's PF ({PF})"},
        (unanswered("device_add"), QUICK, PLUG_SOON),
    ),
    Mutant(
        "endpoint-without-a-driver",
        "the endpoint is a card that no driver of the host takes (Intel 82574)",
        {CYCLES + "[acpi-vfs-off]": f"no driver took the endpoint's PF ({PF})"},
        (device("e1000e"), QUICK, PLUG_SOON),
    ),
    Mutant(
        "another-driver",
        "vfio-pci takes the PF",
        {CYCLES + "[acpi-vfs-off]": (f"cycle 1: driver of the PF ({PF})", "vfio-pci")},
        (
            answered(asked("file.link", path=f"{DEVICES}/{PF}/driver"), target=another_driver, real=another_driver),
            QUICK,
        ),
    ),
    Mutant(
        "unplug-unanswered",
        "the endpoint is never let go of",
        {ACPI_TWICE: "the host did not let go of the endpoint: no DEVICE_DELETED from QEMU within 0.3 s"},
        (unanswered("device_del"), SOON),
    ),
    Mutant(
        "endpoint-still-shown",
        "Linux goes on showing the endpoint that is out",
        {CYCLES + "[acpi-vfs-off]": "the host did not drop the endpoint after QEMU's DEVICE_DELETED"},
        (never_leaves(), QUICK),
    ),
    Mutant(
        "a-function-stays",
        "a second function comes with the endpoint, and stays",
        {CYCLES + "[acpi-vfs-off]": ("cycle 1: functions on the host, after the unplug", "0000:02:00.0")},
        (with_a_ghost(), QUICK),
    ),
    Mutant(
        "traces-stay",
        "a network interface, an IOMMU group, an interrupt and an address range stay",
        {
            CYCLES + "[acpi-vfs-off]": (
                "what the endpoint left behind",
                "netdevs: new eth7",
                "iommu_groups: new 99",
                "interrupts: new eth7-rx-0",
                "resources: new fe000000-fe01ffff : igb",
            )
        },
        (
            lists(since(LEAVES, asked("file.list", path="/sys/class/net")), "eth7"),
            lists(since(LEAVES, asked("file.list", path="/sys/kernel/iommu_groups")), "99"),
            shows_since(LEAVES, "/proc/interrupts", lambda text: text + " 99: 0 IR-PCI-MSIX 0-edge eth7-rx-0\n"),
            shows_since(LEAVES, "/proc/iomem", lambda text: text + "fe000000-fe01ffff : igb\n"),
            QUICK,
        ),
    ),
    Mutant(
        "unplug-breaks-the-link",
        "the link reports an error when the endpoint is taken out",
        {CYCLES + "[acpi-vfs-off]": ("the kernel's log", "PCIe Bus Error")},
        (error_reported_when(LEAVES), QUICK),
    ),
    Mutant(
        "second-press-taken",
        "a second unplug is accepted while the first is pending",
        {NATIVE_TWICE: ("QEMU's answer to the second press", "accepted")},
        (unanswered("device_del", first=2),),
    ),
    Mutant(
        "endpoint-still-there",
        "the endpoint is still on the host after it was let go of",
        dict.fromkeys((ACPI_TWICE, NATIVE_TWICE), "the endpoint is still on the host"),
        (answered(asked("file.exists", path=f"{DEVICES}/{PF}"), exists=lambda _: True),),
    ),
    Mutant(
        "unplugged-twice",
        "two requests give two unplugs",
        {ACPI_TWICE: "DEVICE_DELETED events of the endpoint, after two requests"},
        (events_twice(),),
    ),
    Mutant(
        "absent-yet-unplugged",
        "an endpoint that is not there can be taken out",
        {ABSENT: ("QEMU's answer to an unplug of what is not there", "accepted")},
        (unanswered("device_del"),),
    ),
    Mutant(
        "empty-slot-breaks-the-link",
        "the link of the empty slot reports an error",
        {ABSENT: ("the kernel's log", "PCIe Bus Error")},
        (error_reported_when(nth(1, asked("command.run"))),),
    ),
)
