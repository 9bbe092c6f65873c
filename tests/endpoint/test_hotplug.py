"""The endpoint is taken out and put back while the machine runs: by ACPI and by the guest's pciehp, VFs off and on."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, fields

import pytest

from harness.host import Host
from harness.lab import Endpoint, Machine
from harness.measure.many import on_each
from harness.pci.address import Bdf
from harness.pci.dump import ids
from harness.plugin import Boot
from harness.profiles import Profile
from harness.report.steps import step
from harness.vm.qmp import QmpRefused

CYCLES = 20
# Machines that share the cycles. pciehp waits 5 s for a second press of the button (drivers/pci/hotplug/pciehp_ctrl.c),
# Linux 1 s after it has disabled VFs (drivers/pci/iov.c): waits that machines can do side by side.
MACHINES = {("acpi", "vfs-off"): 1, ("acpi", "vfs-on"): 5, ("native", "vfs-off"): 10, ("native", "vfs-on"): 10}


@dataclass(frozen=True, slots=True)
class Traces:
    """What a device leaves on a host: compared before and after, it must be the same."""

    functions: tuple[Bdf, ...]
    iommu_groups: frozenset[int]
    netdevs: tuple[str, ...]
    interrupts: tuple[str, ...]
    resources: tuple[str, ...]

    @classmethod
    def of(cls, host: Host) -> Traces:
        agent = host.agent
        return cls(
            functions=host.functions(),
            iommu_groups=host.iommu_groups(),
            netdevs=tuple(sorted(entry.name for entry in agent.list("/sys/class/net"))),
            interrupts=tuple(line.split()[-1] for line in agent.read_text("/proc/interrupts").splitlines()[1:]),
            resources=tuple(agent.read_text("/proc/iomem").splitlines()),
        )

    def changes_to(self, now: Traces) -> tuple[str, ...]:
        """A line for each kind that is not the same any more: what came, what went, or that the order is another."""
        return tuple(
            line
            for kind in fields(self)
            if (line := change(kind.name, getattr(self, kind.name), getattr(now, kind.name)))
        )


@pytest.mark.parametrize("vfs", ["vfs-off", "vfs-on"])
@pytest.mark.parametrize("hotplug", ["acpi", "native"])
def test_twenty_cycles_leave_nothing_behind(boot: Boot, profile: Profile, hotplug: str, vfs: str) -> None:
    """In and out, 20 times: found, DEVICE_DELETED, and the host as before each time; at the end, a quiet log."""
    count = MACHINES[hotplug, vfs]
    with ExitStack() as stack:
        machines = [stack.enter_context(boot(hotplug=hotplug, plugged=False)) for _ in range(count)]
        with step(f"{CYCLES} cycles, {CYCLES // count} on each of {count} machines"):
            on_each(machines, lambda machine: cycle(machine, profile, CYCLES // count, with_vfs=vfs == "vfs-on"))


def test_a_second_press_while_one_is_pending_is_refused(boot: Boot) -> None:
    """pciehp: while the host has not answered an unplug, QEMU refuses the next one, and the first one completes."""
    with boot(hotplug="native") as machine:
        qmp, endpoint = machine.vm.qmp, machine.endpoint
        mark = qmp.events_so_far()
        with step("stop the host's processor, and ask for an unplug twice"):
            qmp.execute("stop")
            endpoint.request_unplug()
            assert "already in the process of unplug" in answer_to_unplug(endpoint), "QEMU's answer to the second press"
        with step("let the host go on"):
            qmp.execute("cont")
            endpoint.wait_unplugged(after=mark)
        assert not endpoint.present(), "the endpoint is still on the host"


def test_a_second_acpi_request_while_one_is_pending_changes_nothing(boot: Boot) -> None:
    """ACPI: QEMU takes a repeated request (hw/acpi/pcihp.c lets one be repeated after 1 ms), and unplugs once."""
    with boot(hotplug="acpi") as machine:
        qmp, endpoint = machine.vm.qmp, machine.endpoint
        mark = qmp.events_so_far()
        with step("stop the host's processor, and ask for an unplug twice"):
            qmp.execute("stop")
            endpoint.request_unplug()
            endpoint.request_unplug()
        with step("let the host go on"):
            qmp.execute("cont")
            endpoint.wait_unplugged(after=mark)
        deleted = [event for event in qmp.events(mark) if event.name == "DEVICE_DELETED" and "device" in event.data]
        assert len(deleted) == 1, "DEVICE_DELETED events of the endpoint, after two requests"
        assert not endpoint.present(), "the endpoint is still on the host"


@pytest.mark.unplugged
def test_an_absent_endpoint_cannot_be_unplugged(machine: Machine) -> None:
    """QEMU refuses to take out what is not there, and the host notices nothing."""
    log = machine.host.log.mark()
    assert "not found" in answer_to_unplug(machine.endpoint), "QEMU's answer to an unplug of what is not there"
    trouble = log.trouble()
    assert not trouble, "the kernel's log"


def cycle(machine: Machine, profile: Profile, times: int, *, with_vfs: bool) -> None:
    """Put the endpoint in, look at it, take it out; the host must be as it was."""
    host, endpoint = machine.host, machine.endpoint
    before, log = Traces.of(host), host.log.mark()
    for number in range(1, times + 1):
        pf = endpoint.plug()
        promised = ids(profile.pf.vendor_id, profile.pf.device_id)
        assert ids(*pf.vendor_and_device()) == promised, f"cycle {number}: vendor and device of the {pf}"
        assert pf.driver() == profile.pf.driver, f"cycle {number}: driver of the {pf}"
        if with_vfs:
            assert pf.most_vfs() == profile.vf.most, f"cycle {number}: most VFs of the {pf}"
            pf.enable_vfs(profile.vf.most)
        endpoint.unplug()
        assert host.functions() == before.functions, f"cycle {number}: functions on the host, after the unplug"
    traces = before.changes_to(Traces.of(host))
    assert not traces, "what the endpoint left behind or took with it"
    trouble = log.trouble()
    assert not trouble, "the kernel's log"


def change(kind: str, before: Collection[object], now: Collection[object]) -> str:
    """What one kind of trace gained and lost; empty when it is the same."""
    if before == now:
        return ""
    gone, come = list(before), []
    for one in now:
        if one in gone:
            gone.remove(one)
        else:
            come.append(one)
    said = [f"{word} {', '.join(map(str, ones))}" for word, ones in (("new", come), ("gone", gone)) if ones]
    return f"{kind}: {'; '.join(said) or 'in another order'}"


def answer_to_unplug(endpoint: Endpoint) -> str:
    """QEMU's words when it refuses an unplug, or "accepted"."""
    try:
        endpoint.request_unplug()
    except QmpRefused as refused:
        return refused.description
    return "accepted"
