"""``emulated:NAME``: the endpoint is one of QEMU's own devices, hot-added to a clone that is already up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from harness.agent.channel import again
from harness.errors import DeadlineExceeded, HarnessError, HostLacks, UsageError
from harness.host import Function, Host, PhysicalFunction
from harness.lab.defects import refuse_vf_bars_out_of_reach
from harness.lab.stack import Chosen, Progress
from harness.pci.address import Bdf
from harness.pci.layout import SLOT_CONTROL
from harness.profiles import Emulation, Profile
from harness.vm.cache import Cache
from harness.vm.qmp import QmpRefused
from harness.vm.spec import Hotplug, MachineSpec, root_port_address
from harness.vm.template import Stack, Template, template
from harness.vm.vm import Vm
from harness.waiting import wait_until

ENDPOINT_ID = "endpoint"
PORT = 0
AGENT_WITHIN_S = 20.0
EVIDENCE_WITHIN_S = 1.0  # a machine that does not answer by then is not asked for its log and its config space
INDICATOR_ON = 1
HOST_MODULES = ("vfio-pci", "vfio_iommu_type1", "pci-pf-stub")  # what the host role uses
PLUG_WITHIN_S = 30.0
UNPLUG_WITHIN_S = 30.0  # pciehp alone waits 5 s for a second press of the button
NO_SUCH_DEVICE = "is not a valid device model name"  # system/qdev-monitor.c, QEMU 11.1


class EmulatedEndpoint:
    """A device of QEMU's in root port 0."""

    def __init__(self, vm: Vm, host: Host, emulation: Emulation, hotplug: Hotplug) -> None:
        self._vm = vm
        self._host = host
        self._hotplug = hotplug
        self._emulation = emulation

    @property
    def pf(self) -> PhysicalFunction:
        return self._host.physical_function(self._address())

    def plug(self, *, driver: str = "") -> PhysicalFunction:
        pf = self._found()
        if driver:
            pf.bind(driver, within_s=PLUG_WITHIN_S)
        else:
            with self._in_time(f"no driver took the endpoint's {pf}", PLUG_WITHIN_S):
                self._vm.agent.wait_for_path(f"{pf.folder}/driver", within_s=PLUG_WITHIN_S)
            pf.wait_for_probe()
        refuse_vf_bars_out_of_reach(self._vm.qemu, pf)
        if self._hotplug == "native":
            self._settle()
        return pf

    def _found(self) -> PhysicalFunction:
        self.request_plug()
        pf = self.pf
        with self._in_time(f"the host did not find the endpoint's {pf}", PLUG_WITHIN_S):
            self._vm.agent.wait_for_path(pf.folder, within_s=PLUG_WITHIN_S)
        return pf

    def _settle(self) -> None:
        """Until pciehp has let go of the slot: QEMU refuses an unplug while the power indicator blinks."""
        port = self._port()
        offset = port.express().offset + SLOT_CONTROL.offset
        wait_until(
            "the slot's power indicator to be on",
            lambda: SLOT_CONTROL.decode(port.read_config(offset, 2))["power_indicator"] == INDICATOR_ON,
            within_s=PLUG_WITHIN_S,
            alive=self._vm,
        )

    def request_plug(self) -> None:
        """Ask for it and do not wait.

        Raises:
            HostLacks: this QEMU does not have the device.
            QmpRefused: it does not take it now, in its own words.
        """
        driver = self._emulation.driver
        device = {
            "driver": driver,
            "id": ENDPOINT_ID,
            "bus": f"port{PORT}",
            **self._emulation.properties,
        }
        try:
            self._vm.qmp.execute("device_add", device)
        except QmpRefused as refused:
            if NO_SUCH_DEVICE not in refused.description:
                raise
            raise HostLacks(
                f"plug the device {driver}",
                on=f"QEMU {self._vm.qemu.version_text}, {self._vm.qemu.origin}",
                got=f"it has none of that name ({refused.description})",
                fix="use the pinned QEMU (no --qemu), or correct driver in the profile's [emulation]",
            ) from refused

    def unplug(self) -> None:
        mark = self._vm.qmp.events_so_far()
        self.request_unplug()
        self.wait_unplugged(after=mark)

    def request_unplug(self) -> None:
        """Ask for it and do not wait; QmpRefused carries QEMU's words."""
        self._vm.qmp.execute("device_del", {"id": ENDPOINT_ID})

    def wait_unplugged(self, *, after: int) -> None:
        """Until QEMU says DEVICE_DELETED (since the mark ``after``) and the host shows it no more."""
        with self._in_time("the host did not let go of the endpoint: no DEVICE_DELETED from QEMU", UNPLUG_WITHIN_S):
            self._vm.qmp.wait_event("DEVICE_DELETED", device=ENDPOINT_ID, within_s=UNPLUG_WITHIN_S, after=after)
        with self._in_time("the host did not drop the endpoint after QEMU's DEVICE_DELETED", PLUG_WITHIN_S):
            self._vm.agent.wait_for_path(self.pf.folder, present=False, within_s=PLUG_WITHIN_S)

    @contextmanager
    def _in_time(self, failure: str, within_s: float) -> Iterator[None]:
        """A deadline that the endpoint must keep: missed while the host is well, it fails the test with ``failure``."""
        try:
            yield
        except DeadlineExceeded as late:
            self._vm.agent.call("ping", deadline_s=AGENT_WITHIN_S)  # a silent host is lab trouble, and this says so
            raise AssertionError(f"{failure} within {within_s:g} s (last seen: {late.got})") from late

    def present(self) -> bool:
        return self.pf.exists()

    def _address(self) -> Bdf:
        """Function 0 of the bus below the port, whose number the firmware chose when the template booted."""
        return Bdf(0, int(self._port().attribute("secondary_bus_number")), 0, 0)

    def _port(self) -> Function:
        return self._host.function(Bdf.parse(root_port_address(PORT)))


class EmulatedMachine:
    """A clone, and the endpoint in it."""

    def __init__(self, vm: Vm, emulation: Emulation, hotplug: Hotplug) -> None:
        self.vm = vm
        self.host = Host(vm.agent)
        self.endpoint = EmulatedEndpoint(vm, self.host, emulation, hotplug)
        self._before: dict[str, bytes] = {}
        self._silent: HarnessError | None = None

    def note_config(self) -> None:
        """Remember config space as it is now, for the evidence."""
        pf = self.endpoint.pf
        self._before[str(pf)] = pf.config()

    def config_spaces(self) -> Mapping[str, tuple[bytes | None, bytes | None]]:
        """Config space before and after, by function; what cannot be read any more is missing."""
        after: dict[str, bytes] = {}
        with suppress(Exception):  # whatever the device answers, evidence never fails
            self._check_answers()
            pf = self.endpoint.pf
            for function in (pf, *pf.vfs()):
                after[str(function)] = function.config()
        return {name: (self._before.get(name), after.get(name)) for name in {**self._before, **after}}

    @property
    def folder(self) -> Path:
        return self.vm.folder

    def evidence(self) -> Mapping[str, str]:
        return {**self.vm.evidence(), "dmesg.txt": _or_why_not(self._kernel_log)}

    def _kernel_log(self) -> str:
        self._check_answers()
        return "\n".join(self.host.log.lines())

    def _check_answers(self) -> None:
        """Raise when the machine answers no more; one that was silent once is not waited for again."""
        if self._silent is None:
            try:
                self.vm.agent.call("ping", deadline_s=EVIDENCE_WITHIN_S)
            except HarnessError as error:
                self._silent = error
        if self._silent is not None:
            raise again(self._silent)


class EmulatedLab:
    """Clones of one template for each way of hotplug."""

    def __init__(
        self, name: str, profile: Profile, chosen: Chosen, cache: Cache, folder: Path, progress: Progress
    ) -> None:
        if profile.emulation is None:
            raise UsageError(f"emulate {profile.name}", got="the profile has no [emulation] table")
        self.name = name
        self.profile = profile
        self._emulation = profile.emulation
        self._chosen = chosen
        self._cache = cache
        self._folder = folder
        self._progress = progress
        self._templates: dict[MachineSpec, Template] = {}
        self._failed: dict[MachineSpec, HarnessError] = {}
        self._count = 0

    def describe(self) -> Mapping[str, str]:
        stack, choice = self._chosen.stack, self._chosen.choice
        return {
            "lab": f"{self.name}, profile {self.profile.name} ({self.profile.title})",
            "QEMU": f"{stack.qemu.version_text} ({stack.qemu.origin})",
            "accelerator": f"{choice.accelerator} ({choice.reason})",
            "kernel": f"{stack.kernel.release} ({stack.kernel.name})",
            "image": f"{stack.image.name} {stack.image.key[:12]}",
        }

    @contextmanager
    def machine(
        self,
        name: str,
        *,
        hotplug: Hotplug = "acpi",
        plugged: bool = True,
        driver: str = "",
        keep: bool = False,
        named: bool = False,
    ) -> Iterator[EmulatedMachine]:
        """A clone of its own.

        Args:
            name: says what it is for, in messages.
            plugged: with the endpoint in it.
            driver: takes the PF instead of the driver that would take it by itself.
            keep: it can be left up when we end.
            named: its console is a socket in its folder, for a person.
        """
        self._count += 1
        frozen = self.template(hotplug, driver)
        folder = self._folder / f"{self._count:04d}"
        with self._cache.in_use(*frozen.files), Vm(frozen.clone(name), folder, keep=keep, named=named) as vm:
            with vm.evidence_for_errors():
                vm.greet(within_s=AGENT_WITHIN_S)
                machine = EmulatedMachine(vm, self._emulation, hotplug)
                if plugged:
                    machine.endpoint.plug(driver=driver)
                    machine.note_config()
            yield machine

    def template(self, hotplug: Hotplug = "acpi", driver: str = "") -> Template:
        """The frozen machine, booted now if the cache has none. What failed once fails at once for every later test.

        Args:
            driver: for the PF; the profile's is not loaded then, because it would take the PF by itself.
        """
        modules = (*HOST_MODULES, driver or self.profile.pf.driver)
        accelerator = self._chosen.choice.accelerator
        spec = replace(MachineSpec(), accelerator=accelerator, hotplug=hotplug, modules=modules)
        if spec in self._failed:
            raise again(self._failed[spec])
        if spec not in self._templates:
            folder = self._folder / f"template-{len(self._templates)}"
            try:
                self._templates[spec] = template(self._cache, self.stack, spec, folder, self._progress)
            except HarnessError as error:
                self._failed[spec] = error
                raise
        return self._templates[spec]

    @property
    def stack(self) -> Stack:
        """What its machines are made of."""
        return self._chosen.stack


def _or_why_not(source: Callable[[], str]) -> str:
    try:
        return source()
    except (HarnessError, OSError) as error:
        return f"(could not be had: {error})\n"
