"""What a virtual machine is made of, as values: built by pure functions, read by everything that starts one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Qemu:
    """A QEMU that can be started.

    Attributes:
        argv: the program and what must stand before its own options (the pinned one runs through its own loader).
        environment: variables to add, as (name, value).
        data_dirs: folders with firmware and option ROMs, each given by ``-L``.
        version: as QEMU says it, e.g. (11, 1, 3).
        origin: "pinned" or the path of the host's own.
        key: changes whenever this QEMU would behave differently; part of every template's key.
    """

    argv: tuple[str, ...]
    version: tuple[int, int, int]
    origin: str
    key: str
    environment: tuple[tuple[str, str], ...] = ()
    data_dirs: tuple[Path, ...] = ()

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel with the modules that fit it and the small initramfs that finds the root disk."""

    name: str
    release: str
    vmlinuz: Path
    initramfs: Path
    modules: Path  # squashfs, mounted at /usr/lib/modules
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system: a read-only squashfs; the machine writes to a tmpfs over it."""

    name: str
    root: Path
    key: str = field(repr=False)
