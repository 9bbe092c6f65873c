"""Built things on disk, by what they were built from: images, kernels, the QEMU runtime, templates.

``<root>/<kind>/<name>-<key>/`` is one entry: its files and a ``manifest.json``. It appears whole, by one rename, and is
never changed. Beside it, with a dot in front: ``….lock`` (who builds), ``….use`` (who runs a machine from it),
``….checked`` (the stamp, see ``manifest``), ``….PID.tmp/`` (being built) and ``….failed.log``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import CacheDamaged, DeadlineExceeded, HarnessError, HostLacks, UsageError
from harness.vm import manifest as manifests
from harness.vm.entry import (
    ROLES,
    Entry,
    beside,
    disk_full,
    explained,
    make_folder,
    path_beside,
    put,
    settle,
    sweep,
    sync,
    written_bytes,
)
from harness.vm.locks import FileLock, holders
from harness.vm.manifest import Damaged, Manifest
from harness.waiting import wait_until

__all__ = ["BUILD_LOG", "Build", "Cache", "Entry", "Progress", "silent"]

Progress = Callable[[str], None]
Build = Callable[[Path], Mapping[str, str]]
"""Fills the folder it is given and returns facts about what it put there."""

BUILD_LOG = "build.log"
BUILD_WAIT_S = 45 * 60.0


def silent(_line: str) -> None:
    """Progress that nobody reads."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of entries, safe between processes, shells and users.

    Attributes:
        root: made when the first entry is built. A shared one is ``chmod 2775``, of the group that shares it.
        build_wait_s: how long to wait for another process that builds what we need.
    """

    root: Path
    build_wait_s: float = BUILD_WAIT_S
    _checked: set[Path] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def default(cls) -> Cache:
        """The cache of this user: $SRIOV_HARNESS_CACHE, $XDG_CACHE_HOME/sriov-harness or ~/.cache/sriov-harness."""
        if own := os.environ.get("SRIOV_HARNESS_CACHE"):
            return cls(Path(own).expanduser().absolute())
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(base) / "sriov-harness")

    def path(self, kind: str, name: str, key: str) -> Path:
        """Where this entry lies, or would lie."""
        return self.root / kind / f"{name}-{key[:16]}"

    def obtain(
        self,
        kind: str,
        name: str,
        key: str,
        build: Build,
        *,
        inputs: Mapping[str, str],
        progress: Progress = silent,
        needs_bytes: int = 0,
    ) -> Entry:
        """The entry with this key: as it lies in the cache, or built now.

        Args:
            kind: "image", "kernel", "runtime", "template", …: one folder each.
            key: a hex digest of everything that shapes the result, at least 16 digits.
            build: called with an empty folder, at most once, while every other process that wants this entry waits.
                What it writes to ``build.log`` there survives a failure.
            inputs: what the key was made of, for people who read the manifest.
            progress: told who builds, and that a damaged entry is built again.
            needs_bytes: room that a build takes at its peak, if known: less free space is refused before it starts.

        Raises:
            HostLacks: the cache cannot be written, or the disk is full.
            CacheDamaged: the entry is damaged and building it again failed.
            DeadlineExceeded: another process builds it for longer than ``build_wait_s``.
        """
        path = self.path(kind, name, key)
        found, _ = self._look(path, key)
        if found:
            return found
        with self._sole_builder(path, progress):
            found, damage = self._look(path, key)
            if found:  # the one we waited for has built it
                return found
            if damage:
                progress(f"{kind} {name}: {damage}; building it again")
            plan = Manifest(kind, name, key, datetime.now(UTC).isoformat(timespec="seconds"), inputs)
            try:
                return self._build(path, plan, build, needs_bytes)
            except HarnessError as error:
                if not damage:
                    raise
                raise CacheDamaged(
                    f"build the damaged cache entry {kind} {name} again",
                    on=str(path),
                    got=f"it was damaged ({damage}), and then: {error}",
                ) from error

    def find(self, kind: str, name: str, key: str) -> Entry | None:
        """The entry, unchecked, if it is there."""
        path = self.path(kind, name, key)
        with suppress(Damaged):
            return Entry(path, manifests.read(path))
        return None

    def verify(self, entry: Entry, *, full: bool = False) -> None:
        """Raise CacheDamaged if the entry is not what was put there; ``full`` reads every byte, stamp or no stamp."""
        try:
            self._verify(entry.path, manifests.read(entry.path), full=full)
        except Damaged as damage:
            self._checked.discard(entry.path)
            beside(entry.path, "checked").unlink(missing_ok=True)
            raise CacheDamaged(
                f"check cache entry {entry.label}", on=str(entry.path), got=str(damage), fix="use it: it is built again"
            ) from None

    def entries(self) -> tuple[Entry, ...]:
        """Everything here with a readable manifest, by kind and name; not checked."""
        return tuple(Entry(path, read) for path, read in self._folders() if isinstance(read, Manifest))

    def damaged(self) -> tuple[tuple[Path, str], ...]:
        """Folders without a readable manifest, each with what is wrong."""
        return tuple((path, str(read)) for path, read in self._folders() if isinstance(read, Damaged))

    def remove(self, entry: Entry | Path) -> None:
        """Take an entry away.

        Raises:
            UsageError: it is in use or being built; the message says by whom.
            HostLacks: the folder does not let us.
        """
        path = entry.path if isinstance(entry, Entry) else entry
        try:
            with ExitStack() as stack:
                for role, doing in (("lock", "being built"), ("use", "in use")):
                    stack.enter_context(self._exclusive(path, role, doing))
                self._checked.discard(path)
                with suppress(FileNotFoundError):
                    path.rename(beside(path, f"{os.getpid()}.tmp"))
                sweep(path)
                for role in ROLES:
                    beside(path, role).unlink(missing_ok=True)
        except OSError as error:
            raise HostLacks(f"remove cache entry {path.name}", on=str(path.parent), got=str(error.strerror)) from None

    def sweep(self) -> None:
        """Remove what killed builders left behind, and what lies beside entries that are gone."""
        for path in {path_beside(left) for left in self.root.glob("*/.*")}:
            with FileLock(beside(path, "lock")) as lock, suppress(OSError):
                if lock.try_lock():
                    sweep(path)
                    if not path.exists():
                        for role in ROLES:
                            beside(path, role).unlink(missing_ok=True)
                        lock.release(remove=True)

    @contextmanager
    def in_use(self, *paths: Path) -> Iterator[None]:
        """Hold every entry that one of these files lies in (files elsewhere are nobody's concern)."""
        inside = (path.relative_to(self.root).parts for path in paths if path.is_relative_to(self.root))
        folders = {self.root.joinpath(*parts[:2]) for parts in inside if len(parts) > 2}
        with ExitStack() as stack:
            for folder in sorted(folders):
                try:
                    stack.enter_context(Entry(folder, manifests.read(folder)).in_use())
                except Damaged as damage:
                    raise CacheDamaged(f"use cache entry {folder.name}", on=str(folder), got=str(damage)) from None
            yield

    @contextmanager
    def _exclusive(self, path: Path, role: str, doing: str) -> Iterator[None]:
        with FileLock(beside(path, role)) as lock:
            if not lock.try_lock():
                raise UsageError(
                    f"remove cache entry {path.parent.name}/{path.name}",
                    got=f"it is {doing} by {holders(lock.path) or lock.holder()}",
                    fix="end that first",
                )
            yield
            lock.release(remove=True)

    def _folders(self) -> Iterator[tuple[Path, Manifest | Damaged]]:
        for path in sorted(self.root.glob("*/[!.]*/")):
            try:
                yield path, manifests.read(path)
            except Damaged as damage:
                yield path, damage

    def _look(self, path: Path, key: str) -> tuple[Entry | None, str]:
        """The entry if it is there and good, else what is wrong with it ("" when there is none)."""
        try:
            if not path.is_dir():
                self._checked.discard(path)
                return None, ""
            manifest = manifests.read(path)
            if manifest.key != key:
                raise Damaged(f"{manifests.NAME} belongs to another key, {manifest.key}")
            self._verify(path, manifest, full=False)
        except Damaged as damage:
            self._checked.discard(path)
            return None, str(damage)
        return Entry(path, manifest), ""

    def _verify(self, path: Path, manifest: Manifest, *, full: bool) -> None:
        """Check an entry at the cost it needs: nothing the second time, a stat of each file, or every byte."""
        if path in self._checked and not full:
            return
        stamp = manifests.stamp(path, manifest)
        with suppress(OSError):
            if not full and beside(path, "checked").read_text() == stamp:
                self._checked.add(path)
                return
        manifests.check(path, manifest)
        if manifests.stamp(path, manifest) == stamp:  # nobody wrote while we read
            put(beside(path, "checked"), stamp)
        self._checked.add(path)

    @contextmanager
    def _sole_builder(self, path: Path, progress: Progress) -> Iterator[None]:
        """Hold the builder's lock of one entry, waiting for whoever builds it now."""
        lock = FileLock(beside(path, "lock"))
        told = ""

        def ours() -> bool:
            nonlocal told
            if lock.try_lock():
                return True
            if told != (who := lock.holder()):
                progress(f"{path.parent.name} {path.name}: waiting for {who}, who is building it")
                told = who
            return False

        try:
            make_folder(path.parent)
            wait_until(f"the builder of {path.name}", ours, within_s=self.build_wait_s)
        except DeadlineExceeded:
            raise DeadlineExceeded(
                f"waited {self.build_wait_s:g} s for cache entry {path.parent.name}/{path.name}",
                got=f"it is still being built by {lock.holder()}",
                fix="see what that process does; when it has ended, run again",
            ) from None
        except OSError as error:
            raise HostLacks(
                "build into the cache",
                on=str(path.parent),
                got=str(error.strerror),
                fix="make it writable, or set SRIOV_HARNESS_CACHE to a folder of yours",
            ) from None
        with lock:
            lock.sign()
            yield

    def _build(self, path: Path, plan: Manifest, build: Build, needs_bytes: int) -> Entry:
        """Build into a folder beside, then put it in place by rename; leave nothing half-built."""
        sweep(path)
        if shutil.disk_usage(path.parent).free < needs_bytes:
            raise disk_full(path.parent, needs_bytes)
        folder = beside(path, f"{os.getpid()}.tmp")
        try:
            folder.mkdir()
            manifest = replace(plan, facts=dict(build(folder)), items=manifests.survey(folder))
            manifests.write(folder, manifest)
            settle(folder)
            if path.exists():
                path.rename(beside(path, "damaged.tmp"))
            folder.rename(path)
            sync(path.parent)
        except HarnessError as error:
            error.fix = f"{error.fix}{_kept_log(folder, path)}".lstrip()
            raise
        except OSError as error:
            raise explained(error, path.parent, needs_bytes, written_bytes(folder)) from error
        finally:
            sweep(path)
        beside(path, "failed.log").unlink(missing_ok=True)
        with FileLock(beside(path, "use")) as lock:  # so that those who may only read the cache find it
            lock.try_lock(shared=True)
        put(beside(path, "checked"), manifests.stamp(path, manifest))
        self._checked.add(path)
        return Entry(path, manifest)


def _kept_log(folder: Path, path: Path) -> str:
    log = folder / BUILD_LOG
    return f"\n    whole log: {log.replace(beside(path, 'failed.log'))}" if log.exists() else ""
