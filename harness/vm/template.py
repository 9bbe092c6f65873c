"""Templates and clones: a machine booted once, frozen, and copied in a tenth of a second (QEMU docs: vm-templating).

RAM is a file that the template wrote and its clones map privately; device state is a few hundred kilobytes beside it.
Never frozen: a machine with VFs on (igb loses them silently, 11.1.3), with a vfio-user device, or with a 9p mount.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.agent.pack import pack, pack_key
from harness.errors import LabTrouble
from harness.vm import cpio
from harness.vm.cache import Cache, Entry
from harness.vm.launch import Launch, ignore_shared
from harness.vm.machine import Image, Kernel, Qemu
from harness.vm.spec import Channels, MachineSpec, Memory, qemu_argv, starts_by_itself
from harness.vm.vm import Vm
from harness.waiting import wait_until

BOOT_WITHIN_S = 120.0
SAVE_WITHIN_S = 60.0
FULL_BYTES = 1 << 20  # less than this is left of a disk that is full
FORMAT = "1"  # counts up when the way of freezing changes


@dataclass(frozen=True, slots=True)
class Stack:
    """What machines are made of: one QEMU, one kernel, one image, and the agent packed for them."""

    qemu: Qemu
    kernel: Kernel
    image: Image
    initrd: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """One file at least of everything in the cache that a machine reads while it runs."""
        return (Path(self.qemu.argv[0]), self.kernel.vmlinuz, self.kernel.modules, self.image.root, self.initrd)

    def launch(
        self, spec: MachineSpec, name: str, memory: Memory | None = None, incoming: Path | None = None
    ) -> Launch:
        def argv(channels: Channels) -> tuple[str, ...]:
            return qemu_argv(
                self.qemu,
                spec,
                channels,
                kernel=self.kernel,
                image=self.image,
                initrd=self.initrd,
                memory=memory,
                incoming=incoming,
            )

        return Launch(name, self.qemu, argv, None if starts_by_itself(self.qemu) else incoming)


@dataclass(frozen=True, slots=True)
class Template:
    """A frozen machine in the cache."""

    stack: Stack
    spec: MachineSpec
    entry: Entry

    @property
    def files(self) -> tuple[Path, ...]:
        """As of ``Stack``, with the frozen machine's own."""
        return (*self.stack.files, self.entry.file("memory"))

    def clone(self, name: str) -> Launch:
        """What to start for a fresh copy of it."""
        memory = Memory(self.entry.path / "memory", share=False)
        return self.stack.launch(self.spec, name, memory, self.entry.path / "state")


def initrd(cache: Cache, kernel: Kernel, progress: Callable[[str], None]) -> Path:
    """The kernel's initramfs with the agent behind it: the kernel unpacks one archive after the other."""

    def build(folder: Path) -> Mapping[str, str]:
        agent = cpio.archive([cpio.folder("sriov"), cpio.file("sriov/agent.pyz", pack())])
        (folder / "initrd").write_bytes(kernel.initramfs.read_bytes() + agent)
        return {}

    key = _digest("initrd", kernel.key, pack_key())
    entry = cache.obtain(
        "initrd", kernel.name, key, build, inputs={"kernel": kernel.name, "agent": pack_key()}, progress=progress
    )
    return entry.path / "initrd"


def template(cache: Cache, stack: Stack, spec: MachineSpec, folder: Path, progress: Callable[[str], None]) -> Template:
    """The frozen machine for this stack and spec, booted now if the cache has none.

    Safe when several workers want the same one at once: the cache lets one build and the others wait.
    """

    def build(target: Path) -> Mapping[str, str]:
        progress(f"booting {stack.image.name} once, to freeze it")
        with cache.in_use(*stack.files):
            _freeze(stack, spec, target, folder)
        return {"qemu": stack.qemu.version_text, "kernel": stack.kernel.release}

    name = f"{stack.image.name}-{spec.accelerator}-{spec.hotplug}"
    inputs = {
        "qemu": stack.qemu.key,
        "kernel": stack.kernel.key,
        "image": stack.image.key,
        "spec": repr(spec),
        "agent": pack_key(),
    }
    entry = cache.obtain(
        "template",
        name,
        template_key(stack, spec),
        build,
        inputs=inputs,
        progress=progress,
        needs_bytes=spec.memory_mib << 20,
    )
    return Template(stack, spec, entry)


def template_key(stack: Stack, spec: MachineSpec) -> str:
    """Changes whenever a clone of an older template would not be the same machine; not when the cache moves."""
    frozen = _anywhere(stack).launch(spec, "key", Memory(Path("memory"), share=True))
    argv = frozen.argv(Channels("qmp", "console", "agent"))
    parts = [FORMAT, *argv, stack.qemu.key, stack.kernel.key, stack.image.key, pack_key(), *spec.modules]
    if spec.accelerator == "kvm":
        parts += [platform.release(), cpu_model()]  # -cpu host: what it is depends on this very computer
    return _digest(*parts)


def _anywhere(stack: Stack) -> Stack:
    """The same stack without the places of its files: what is in them is in the keys."""
    kernel = replace(stack.kernel, vmlinuz=Path("vmlinuz"), modules=Path("modules"), initramfs=Path("initramfs"))
    image = replace(stack.image, root=Path("root"))
    return Stack(replace(stack.qemu, argv=("qemu",), data_dirs=()), kernel, image, Path("initrd"))


def cpu_model() -> str:
    """The first processor's description, as /proc/cpuinfo gives it."""
    return Path("/proc/cpuinfo").read_text().partition("\n\n")[0].partition("bugs")[0]


def _freeze(stack: Stack, spec: MachineSpec, target: Path, folder: Path) -> None:
    """Boot, and put memory and state into ``target``; OSError when the disk is full."""
    try:
        _boot_and_save(stack, spec, target, folder)
    except LabTrouble as trouble:
        if shutil.disk_usage(target).free < FULL_BYTES:  # QEMU dies of SIGBUS then: RAM is a file without room to grow
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target / "memory")) from trouble
        raise


def _boot_and_save(stack: Stack, spec: MachineSpec, target: Path, folder: Path) -> None:
    launch = stack.launch(spec, f"template {stack.image.name}", Memory(target / "memory", share=True))
    with Vm(launch, folder) as vm, vm.evidence_for_errors():
        agent = vm.greet(within_s=BOOT_WITHIN_S)
        agent.run(["modprobe", "-a", *spec.modules], deadline_s=60)
        _settle(vm)
        if not starts_by_itself(stack.qemu):
            vm.qmp.execute(*ignore_shared())
        # Not stopped before: saving stops it, and notes that it was running, so that clones run by themselves.
        vm.qmp.execute("migrate", {"uri": f"file:{target / 'state'}"})
        wait_until(
            "the machine's state to be saved", lambda: _saved(vm.qmp.execute("query-migrate")), within_s=SAVE_WITHIN_S
        )


def _settle(vm: Vm) -> None:
    """Warm what every clone uses, and give free memory back, so that the file stays small."""
    vm.agent.run(["sh", "-c", "lspci >/dev/null; dmesg >/dev/null; sync"], deadline_s=60)


def _saved(status: Mapping[str, Any]) -> bool:
    if status.get("status") == "failed":
        raise LabTrouble("save the machine's state", got=str(status.get("error-desc", status)))
    return status.get("status") == "completed"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
