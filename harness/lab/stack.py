"""QEMU, kernel, image, accelerator: what an emulated lab runs on, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.vm.accel import Choice, choose
from harness.vm.cache import Cache
from harness.vm.images import image
from harness.vm.kernels import kernel
from harness.vm.machine import Qemu
from harness.vm.qemu_versions import OLDEST, WHY_OLDEST
from harness.vm.runtime import host_qemu, pinned_qemu
from harness.vm.template import Stack, initrd

LAB_IMAGE = "host"
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A stack, with the accelerator that works on this computer."""

    stack: Stack
    choice: Choice


def named_qemu(name: str) -> Qemu:
    """A QEMU of this computer: by its path, or by a name that is looked up in PATH.

    Raises:
        UsageError: it is no QEMU, or too old for an emulated lab.
    """
    qemu = host_qemu(Path(name).absolute() if "/" in name else Path(name))
    if qemu.version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UsageError(
            "use QEMU",
            on=f"{name}, version {qemu.version_text}",
            got=f"older than {oldest}: {WHY_OLDEST}",
            fix="give a newer one, or none: the pinned QEMU runs on any host",
        )
    return qemu


def choose_stack(
    cache: Cache, *, qemu: str, accelerator: str, kernel_name: str, folder: Path, progress: Progress
) -> Chosen:
    """Have everything built, and decide between KVM and TCG.

    Args:
        qemu: empty for the pinned one, else the path of the host's own.
        folder: for the files of a probe boot.
    """
    chosen_qemu = named_qemu(qemu) if qemu else pinned_qemu(cache, progress)
    chosen_kernel = kernel(cache, kernel_name, progress)
    chosen_image = image(cache, LAB_IMAGE, progress)
    stack = Stack(chosen_qemu, chosen_kernel, chosen_image, initrd(cache, chosen_kernel, progress))
    return Chosen(stack, choose(accelerator, cache, stack, folder / "kvm-probe", progress))
