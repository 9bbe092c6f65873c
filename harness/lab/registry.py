"""``--lab NAME``: which labs there are, and how each is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError, unknown_name
from harness.lab.emulated import EmulatedLab
from harness.lab.stack import Progress, choose_stack, named_qemu
from harness.profiles import Profile, load_profile
from harness.vm.accel import check_request as check_accelerator
from harness.vm.cache import Cache
from harness.vm.recipes import kernel_recipe

DEFAULT_LAB = "emulated:igb"
# Each emulated lab, and the profile of the device that QEMU puts there.
EMULATED = {"emulated:igb": "qemu-igb"}


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for, on pytest's or our own command line; empty means the default."""

    lab: str = DEFAULT_LAB
    profile: str = ""
    accelerator: str = "auto"
    qemu: str = ""
    kernel: str = "stock"


def known_labs() -> tuple[str, ...]:
    return tuple(EMULATED)


def check_lab_name(name: str) -> None:
    """Raise UsageError, with the known ones, for a lab that does not exist."""
    if name not in EMULATED:
        raise unknown_name("lab", name, known_labs())


def profile_of(request: Request) -> Profile:
    """The profile that was asked for, or the lab's own."""
    check_lab_name(request.lab)
    profile = load_profile(request.profile or EMULATED[request.lab])
    if profile.emulation is None:
        raise UsageError(f"use profile {profile.name} in {request.lab}", got="it has no [emulation] table")
    return profile


def check_request(request: Request) -> Profile:
    """Everything that can be said of a request before anything is built; the profile that it means.

    Raises:
        UsageError: an unknown lab, profile, accelerator or kernel, or a QEMU that is none.
        ProfileError: a mistake in the profile.
        HostLacks: KVM was asked for by name, and there is none.
    """
    profile = profile_of(request)
    check_accelerator(request.accelerator)
    kernel_recipe(request.kernel)
    if request.qemu:
        named_qemu(request.qemu)
    return profile


def open_lab(request: Request, cache: Cache, folder: Path, progress: Progress) -> EmulatedLab:
    """Everything that the lab needs, built and chosen; no machine runs yet."""
    profile = check_request(request)
    chosen = choose_stack(
        cache,
        qemu=request.qemu,
        accelerator=request.accelerator,
        kernel_name=request.kernel,
        folder=folder,
        progress=progress,
    )
    return EmulatedLab(request.lab, profile, chosen, cache, folder, progress)
