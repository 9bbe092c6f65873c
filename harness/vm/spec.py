"""The machine that a lab needs, and the QEMU command line for it. Pure functions: a value in, an argv out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.vm.machine import Image, Kernel, Qemu

Accelerator = Literal["tcg", "kvm"]
Hotplug = Literal["acpi", "native"]

AGENT_PORT = "org.sriov.agent"

# Each word with its reason: silence and speed first, then what VFIO needs.
KERNEL_WORDS = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # a panic reboots at once; with -no-reboot, QEMU ends and every wait with it
    "no_timer_check",  # TCG's timer interrupts are late often enough to fail the check
    "tsc=reliable",
    "cryptomgr.notests",
    "random.trust_cpu=on",
    "intel_iommu=on",
    "iommu=pt",  # host drivers keep identity mapping; VFIO still gets its own domain
)


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A q35 machine with a vIOMMU and empty root ports.

    Attributes:
        memory_mib: guest RAM, in MiB.
        cpus: virtual processors; one is fastest under TCG when several machines share few cores.
        root_ports: empty, hot-pluggable ports; port *n* is 0000:00:(04+n).0 in the guest.
        hotplug: who handles a slot's events: ACPI (q35's default) or the guest's pciehp.
        caching_mode: the vIOMMU tells of every mapping; needed for vfio-pci and vfio-user devices, slower otherwise.
        kernel_words: added to the kernel's command line.
        modules: loaded before the machine is frozen, so that no clone spends time on it.
    """

    memory_mib: int = 512
    cpus: int = 1
    accelerator: Accelerator = "tcg"
    root_ports: int = 4
    hotplug: Hotplug = "acpi"
    caching_mode: bool = False
    kernel_words: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Channels:
    """How QEMU's three lines are connected: each a character device's back end, in ``-chardev`` words.

    ``socket,fd=7`` for the harness, which owns both ends; ``socket,path=…,server=on,wait=off`` for a person.
    """

    qmp: str
    console: str
    agent: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Where guest RAM lives: a file, written to (the template) or copied on write (its clones)."""

    path: Path
    share: bool


# The file is the RAM: only device state goes out and comes in. An unstable name, present since QEMU 4.0.
IGNORE_SHARED = "x-ignore-shared"


def starts_by_itself(qemu: Qemu) -> bool:
    """Whether a clone's command line is all that it needs; an older QEMU is told by QMP what its properties lack."""
    return qemu.version >= (11, 1)


def root_port_address(number: int) -> str:
    """The guest's address of root port ``number`` (from 0)."""
    return f"0000:00:{FIRST_ROOT_PORT_SLOT + number:02x}.0"


FIRST_ROOT_PORT_SLOT = 4


def qemu_argv(
    qemu: Qemu,
    spec: MachineSpec,
    channels: Channels,
    *,
    kernel: Kernel,
    image: Image,
    initrd: Path,
    memory: Memory | None = None,
    incoming: Path | None = None,
) -> tuple[str, ...]:
    """The whole command line.

    Args:
        initrd: the kernel's initramfs with the agent's archive behind it.
        memory: RAM in a file; None gives anonymous memory.
        incoming: a template's state to start from instead of booting.
    """
    parts: list[str] = [*qemu.argv]
    for folder in qemu.data_dirs:
        parts += ["-L", str(folder)]
    parts += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    parts += ["-machine", _machine(qemu, spec, memory is not None)]
    parts += ["-accel", _accelerator(spec), "-cpu", _cpu(spec), "-smp", str(spec.cpus), "-m", f"{spec.memory_mib}M"]
    if memory is not None:
        parts += ["-object", _memory(spec, memory)]
    parts += _devices(spec, kernel, image)
    parts += _channels(channels, qemu)
    by_itself = starts_by_itself(qemu)
    if memory is not None and by_itself:
        parts += ["-global", f"migration.{IGNORE_SHARED}=on"]
    if incoming is not None:
        # No kernel: it is in the RAM that comes in. Reading 20 MB of files would take a tenth of a clone's start.
        parts += ["-incoming", f"file:{incoming}" if by_itself else "defer"]
    else:
        parts += ["-kernel", str(kernel.vmlinuz), "-initrd", str(initrd)]
        parts += ["-append", " ".join((*KERNEL_WORDS, *spec.kernel_words))]
    return tuple(parts)


def _machine(qemu: Qemu, spec: MachineSpec, file_backed: bool) -> str:
    # Versioned: igb's capabilities differ between machine types (igb has FLR only from 8.2 on).
    machine = f"pc-q35-{qemu.version[0]}.{qemu.version[1]},usb=off,vmport=off,i8042=off,smbus=off,sata=off,hpet=off"
    if spec.accelerator == "kvm":
        machine += ",kernel-irqchip=split"  # interrupt remapping under KVM
    if file_backed:
        machine += ",memory-backend=ram"
    return machine


def _accelerator(spec: MachineSpec) -> str:
    return "kvm" if spec.accelerator == "kvm" else "tcg,thread=multi,tb-size=256"


def _cpu(spec: MachineSpec) -> str:
    return "host" if spec.accelerator == "kvm" else "max,+svm"  # TCG nests guests by SVM only


def _memory(spec: MachineSpec, memory: Memory) -> str:
    how = "share=on" if memory.share else "share=off,readonly=on,rom=off"
    return f"memory-backend-file,id=ram,size={spec.memory_mib}M,mem-path={_option(memory.path)},{how}"


def _devices(spec: MachineSpec, kernel: Kernel, image: Image) -> list[str]:
    iommu = "intel-iommu,intremap=on" + (",caching-mode=on" if spec.caching_mode else "")
    parts = ["-device", iommu]
    for letter, (path, address) in zip("ab", ((image.root, "0x2"), (kernel.modules, "0x3")), strict=True):
        parts += ["-drive", f"if=none,id=disk-{letter},file={_option(path)},format=raw,readonly=on"]
        parts += ["-device", f"virtio-blk-pci,drive=disk-{letter},bus=pcie.0,addr={address}"]
    for number in range(spec.root_ports):
        slot = FIRST_ROOT_PORT_SLOT + number
        parts += [
            "-device",
            f"pcie-root-port,id=port{number},bus=pcie.0,addr={slot:#x},chassis={number + 1},slot={number + 1}",
        ]
    if spec.hotplug == "native":
        parts += ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
    return parts


def _option(path: Path) -> str:
    """A path within a QEMU option list, where a comma ends a value and two stand for one."""
    return str(path).replace(",", ",,")


def _channels(channels: Channels, qemu: Qemu) -> list[str]:
    parts = ["-chardev", f"{channels.qmp},id=qmp"]
    if qemu.version >= (11, 1):  # which calls -mon deprecated; before, there is nothing else
        parts += ["-object", "monitor-qmp,id=monitor,chardev=qmp"]
    else:
        parts += ["-mon", "chardev=qmp,mode=control"]
    parts += ["-chardev", f"{channels.console},id=console", "-serial", "chardev:console"]
    parts += ["-chardev", f"{channels.agent},id=agent"]
    parts += ["-device", "virtio-serial-pci,id=serial,bus=pcie.0,addr=0x1,max_ports=2"]
    parts += ["-device", f"virtserialport,bus=serial.0,chardev=agent,name={AGENT_PORT}"]
    return parts
