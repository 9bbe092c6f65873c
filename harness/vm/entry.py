"""One entry of the cache on disk: its names, its lock against removal, and how it gets onto the disk whole."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import CacheDamaged, HostLacks
from harness.vm.locks import FileLock, fit_mode
from harness.vm.manifest import Manifest
from harness.waiting import wait_until

ROLES = ("checked", "failed.log")
"""What lies beside an entry and goes with it."""

_REMOVAL_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in the cache, whole and checked when it was handed out."""

    path: Path
    manifest: Manifest

    @property
    def label(self) -> str:
        return f"{self.manifest.kind}/{self.path.name}"

    @property
    def facts(self) -> Mapping[str, str]:
        return self.manifest.facts

    def file(self, name: str) -> Path:
        """Where a file of this entry lies."""
        return self.path / name

    @contextmanager
    def in_use(self) -> Iterator[Entry]:
        """Keep ``clean`` away from this entry for as long as a machine runs from it.

        Raises:
            CacheDamaged: the entry was removed since it was obtained.
        """
        with FileLock(beside(self.path, "use")) as lock:
            try:
                wait_until(
                    f"the removal of {self.label}", lambda: lock.try_lock(shared=True), within_s=_REMOVAL_WITHIN_S
                )
            except OSError:
                if os.access(self.path.parent, os.W_OK):
                    raise
                # A cache that we may only read, from before its builder made this lock: its owner must take care.
            if not self.path.is_dir():
                lock.release(remove=True)
                raise CacheDamaged(
                    f"use cache entry {self.label}", got="somebody removed it", fix="run again: it is built"
                )
            yield self


def beside(path: Path, role: str) -> Path:
    """The file or folder beside an entry that serves it ("lock", "use", "checked", …)."""
    return path.with_name(f".{path.name}.{role}")


def path_beside(path: Path) -> Path:
    """The entry that a file or folder beside it serves; the other way round of ``beside``."""
    name = path.name.removeprefix(".")
    for role in ("lock", "use", *ROLES):
        name = name.removesuffix(f".{role}")
    return path.with_name(name.rsplit(".", 2)[0] if name.endswith(".tmp") else name)


def put(path: Path, text: str) -> None:
    """Replace a small file at once. Not being allowed to is no error: a cache may be one that we only read."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        with draft.open("w") as file:
            file.write(text)
            fit_mode(file.fileno(), path.parent)
        draft.replace(path)


def sweep(path: Path) -> None:
    """Remove what lies half-built or half-removed beside this entry; only for who holds its builder's lock."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, as open as the one above: the umask must not close a shared cache."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(stat.S_IMODE(folder.parent.stat().st_mode))


def settle(folder: Path) -> None:
    """Give everything in a new entry the rights of the folder that it lies in, and get it onto the disk.

    Who may read the cache may read the entry, and who may write there may remove it.
    """
    allowed = stat.S_IMODE(folder.parent.stat().st_mode)
    for here, _, files in os.walk(folder):
        for path in (Path(here) / name for name in files):
            if path.is_symlink():
                continue
            executable = 0o111 if path.stat().st_mode & 0o100 else 0
            path.chmod(0o600 | (allowed & 0o044) | (executable & (allowed | 0o100)))
            sync(path)
        Path(here).chmod(allowed | 0o700)
        sync(Path(here))


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's list of names, is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def written_bytes(folder: Path) -> int:
    """What the files below a folder take on the disk now."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def explained(error: OSError, folder: Path, needs_bytes: int, written: int) -> HostLacks:
    """A failure of the file system, in words; ``folder`` unless the error names a place outside it.

    Args:
        written: bytes of the failed build, which are free again when somebody reads this.
    """
    place = Path(error.filename) if error.filename else folder
    place = folder if place.is_relative_to(folder) else existing(place)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(place, max(needs_bytes, written), written if place == folder else 0)
    return HostLacks("build into the cache", on=str(error.filename or folder), got=error.strerror or str(error))


def disk_full(folder: Path, needs_bytes: int, freed_bytes: int = 0) -> HostLacks:
    """There is no room for what a build needs; ``freed_bytes`` of what is taken now will be free again."""
    free = shutil.disk_usage(folder).free + freed_bytes
    return HostLacks(
        "build into the cache",
        on=str(folder),
        got=f"the disk is full: more than {needs_bytes / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free",
        fix="make room (`sriov-harness image clean --outdated`), or set SRIOV_HARNESS_CACHE (and TMPDIR, where "
        "packages are unpacked) to another disk",
    )
