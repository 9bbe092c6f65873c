"""``emulated:NAME``: the endpoint is one of QEMU's own devices, hot-added to a clone that is already up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.host import Function, Host, PhysicalFunction
from harness.lab.stack import Chosen, Progress
from harness.pci.address import Bdf
from harness.pci.layout import SLOT_CONTROL
from harness.profiles import Emulation, Profile
from harness.vm.cache import Cache
from harness.vm.spec import Hotplug, MachineSpec, root_port_address
from harness.vm.template import Template, template
from harness.vm.vm import Vm
from harness.waiting import wait_until

ENDPOINT_ID = "endpoint"
PORT = 0
AGENT_WITHIN_S = 20.0
EVIDENCE_WITHIN_S = 1.0  # a machine that does not answer by then is not asked for its log and its config space
INDICATOR_ON = 1
PLUG_WITHIN_S = 30.0
UNPLUG_WITHIN_S = 30.0  # pciehp alone waits 5 s for a second press of the button


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

    def plug(self) -> PhysicalFunction:
        self.request_plug()
        pf = self.pf
        self._vm.agent.wait_for_path(f"{pf.folder}/driver", within_s=PLUG_WITHIN_S)
        pf.wait_for_probe()
        if self._hotplug == "native":
            self._settle()
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
        """Ask for it and do not wait; QmpRefused carries QEMU's words."""
        device = {
            "driver": self._emulation.driver,
            "id": ENDPOINT_ID,
            "bus": f"port{PORT}",
            **self._emulation.properties,
        }
        self._vm.qmp.execute("device_add", device)

    def unplug(self) -> None:
        mark = self._vm.qmp.events_so_far()
        self.request_unplug()
        self.wait_unplugged(after=mark)

    def request_unplug(self) -> None:
        """Ask for it and do not wait; QmpRefused carries QEMU's words."""
        self._vm.qmp.execute("device_del", {"id": ENDPOINT_ID})

    def wait_unplugged(self, *, after: int) -> None:
        """Until QEMU says DEVICE_DELETED (since the mark ``after``) and the host shows it no more."""
        self._vm.qmp.wait_event("DEVICE_DELETED", device=ENDPOINT_ID, within_s=UNPLUG_WITHIN_S, after=after)
        self._vm.agent.wait_for_path(self.pf.folder, present=False, within_s=PLUG_WITHIN_S)

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

    def note_config(self) -> None:
        """Remember config space as it is now, for the evidence."""
        pf = self.endpoint.pf
        self._before[str(pf)] = pf.config()

    def config_spaces(self) -> Mapping[str, tuple[bytes | None, bytes | None]]:
        """Config space before and after, by function; what cannot be read any more is missing."""
        after: dict[str, bytes] = {}
        with suppress(HarnessError, OSError):
            self.vm.agent.call("ping", deadline_s=EVIDENCE_WITHIN_S)
            pf = self.endpoint.pf
            for function in (pf, *pf.vfs()):
                after[str(function)] = function.config()
        return {name: (self._before.get(name), after.get(name)) for name in {**self._before, **after}}

    @property
    def folder(self) -> Path:
        return self.vm.folder

    def evidence(self) -> Mapping[str, str]:
        sources: dict[str, Callable[[], str]] = {
            "run.sh": lambda: (self.folder / "run.sh").read_text(),
            "console.log": self.vm.console.text,
            "qmp.jsonl": self.vm.qmp.transcript,
            "qemu.stderr": self.vm.last_words,
            "dmesg.txt": self._kernel_log,
        }
        return {name: _or_why_not(source) for name, source in sources.items()}

    def _kernel_log(self) -> str:
        self.vm.agent.call("ping", deadline_s=EVIDENCE_WITHIN_S)
        return "\n".join(self.host.log.lines())


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
        self._templates: dict[Hotplug, Template] = {}
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
        self, name: str, *, hotplug: Hotplug = "acpi", plugged: bool = True, keep: bool = False
    ) -> Iterator[EmulatedMachine]:
        self._count += 1
        launch = self.template(hotplug).clone(name)
        with Vm(launch, self._folder / f"{self._count:04d}", keep=keep) as vm:
            vm.greet(within_s=AGENT_WITHIN_S)
            machine = EmulatedMachine(vm, self._emulation, hotplug)
            if plugged:
                machine.endpoint.plug()
                machine.note_config()
            yield machine

    def template(self, hotplug: Hotplug = "acpi") -> Template:
        """The frozen machine, booted now if the cache has none."""
        if hotplug not in self._templates:
            spec = replace(MachineSpec(), accelerator=self._chosen.choice.accelerator, hotplug=hotplug)
            folder = self._folder / f"template-{hotplug}"
            self._templates[hotplug] = template(self._cache, self._chosen.stack, spec, folder, self._progress)
        return self._templates[hotplug]


def _or_why_not(source: Callable[[], str]) -> str:
    try:
        return source()
    except (HarnessError, OSError) as error:
        return f"(could not be had: {error})\n"
