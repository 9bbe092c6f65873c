"""Built things on disk, by what they were built from: images, kernels, the QEMU runtime, templates.

``<root>/<kind>/<name>-<key>/`` is one entry: its files and a ``manifest.json``. It appears whole, by one rename, and is
never changed. Beside it, with a dot in front: ``….lock`` (who builds), ``….use`` (who runs a machine from it),
``….checked`` (the stamp, see ``manifest``), ``….PID.tmp/`` (being built) and ``….failed.log``.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import CacheDamaged, DeadlineExceeded, HarnessError, HostLacks, UsageError
from harness.vm import manifest as manifests
from harness.vm.locks import FileLock, fit_mode, holders
from harness.vm.manifest import Damaged, Manifest
from harness.waiting import wait_until

Progress = Callable[[str], None]
Build = Callable[[Path], Mapping[str, str]]
"""Fills the folder it is given and returns facts about what it put there."""

BUILD_LOG = "build.log"
BUILD_WAIT_S = 45 * 60.0


def silent(_line: str) -> None:
    """Progress that nobody reads."""


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
        with FileLock(_beside(self.path, "use")) as lock:
            # In a cache that we may only read, nobody who has our rights can remove anything: no lock is needed then.
            with suppress(PermissionError, OSError if not os.access(self.path.parent, os.W_OK) else PermissionError):
                wait_until(f"the removal of {self.label} to end", lambda: lock.try_lock(shared=True), within_s=60)
            if not self.path.is_dir():
                lock.release()
                raise CacheDamaged(
                    f"use cache entry {self.label}", got="somebody removed it", fix="run again to build it"
                )
            yield self


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of entries; safe between threads' own objects, processes, shells and users.

    Attributes:
        root: made when the first entry is built. A shared one is ``chmod 2775`` and belongs to the group that shares it.
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
        found, _ = self._look(path)
        if found:
            return found
        with self._sole_builder(path, progress):
            found, damage = self._look(path)
            if found:  # the one we waited for has built it
                return found
            if damage:
                progress(f"{kind} {name}: {damage}; building it again")
            plan = Manifest(kind, name, key, datetime.now(UTC).isoformat(timespec="seconds"), inputs)
            try:
                return self._build(path, plan, build, needs_bytes)
            except HarnessError as error:
                if damage:
                    raise CacheDamaged(
                        f"build the damaged cache entry {kind} {name} again",
                        on=str(path),
                        got=f"it was damaged ({damage}), and then: {error}",
                    ) from error
                raise

    def find(self, kind: str, name: str, key: str) -> Entry | None:
        """The entry, unchecked, if it is there."""
        try:
            path = self.path(kind, name, key)
            return Entry(path, manifests.read(path))
        except Damaged:
            return None

    def verify(self, entry: Entry, *, full: bool = False) -> None:
        """Raise CacheDamaged if the entry is not what was put there; ``full`` reads every byte, stamp or no stamp."""
        try:
            self._verify(entry.path, manifests.read(entry.path), full=full)
        except Damaged as damage:
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
        """
        path = entry.path if isinstance(entry, Entry) else entry
        with ExitStack() as stack:
            for role, doing in (("lock", "being built"), ("use", "in use")):
                lock = FileLock(_beside(path, role))
                if not lock.try_lock():
                    who = holders(lock.path) or lock.holder()
                    raise UsageError(
                        f"remove cache entry {path.parent.name}/{path.name}",
                        got=f"it is {doing} by {who}",
                        fix="end that process first",
                    )
                stack.callback(lock.release, remove=True)
            self._checked.discard(path)
            with suppress(FileNotFoundError):
                path.rename(_beside(path, f"{os.getpid()}.tmp"))
            self._sweep(path)
            for role in ("checked", "failed.log"):
                _beside(path, role).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed builders left behind, of every entry."""
        for left in self.root.glob("*/.*.tmp"):
            path = left.with_name(left.name[1:].rsplit(".", 2)[0])
            with FileLock(_beside(path, "lock")) as lock, suppress(OSError):
                if lock.try_lock():
                    self._sweep(path)

    @contextmanager
    def in_use(self, *paths: Path) -> Iterator[None]:
        """Hold every entry that one of these files lies in (files elsewhere are nobody's concern)."""
        folders = {self.root / Path(*path.relative_to(self.root).parts[:2]) for path in paths if self._holds(path)}
        with ExitStack() as stack:
            for folder in sorted(folders):
                try:
                    stack.enter_context(Entry(folder, manifests.read(folder)).in_use())
                except Damaged as damage:
                    raise CacheDamaged(f"use cache entry {folder.name}", on=str(folder), got=str(damage)) from None
            yield

    def _holds(self, path: Path) -> bool:
        return path.is_relative_to(self.root) and len(path.relative_to(self.root).parts) > 2

    def _folders(self) -> Iterator[tuple[Path, Manifest | Damaged]]:
        for path in sorted(self.root.glob("*/[!.]*/")):
            try:
                yield path, manifests.read(path)
            except Damaged as damage:
                yield path, damage

    def _look(self, path: Path) -> tuple[Entry | None, str]:
        """The entry if it is there and good, else what is wrong with it ("" when there is none)."""
        if not path.is_dir():
            self._checked.discard(path)
            return None, ""
        try:
            manifest = manifests.read(path)
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
        stamp_file = _beside(path, "checked")
        with suppress(OSError):
            if not full and stamp_file.read_text() == stamp:
                self._checked.add(path)
                return
        manifests.check(path, manifest)
        if manifests.stamp(path, manifest) == stamp:  # nobody wrote while we read
            _put(stamp_file, stamp)
        self._checked.add(path)

    @contextmanager
    def _sole_builder(self, path: Path, progress: Progress) -> Iterator[None]:
        """Hold the builder's lock of one entry, waiting for whoever builds it now."""
        lock = FileLock(_beside(path, "lock"))
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
            self._make_folder(path.parent)
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

    def _make_folder(self, folder: Path) -> None:
        """Make the folder of a kind as open as the root is (the umask must not close a shared cache)."""
        self.root.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(stat.S_IMODE(self.root.stat().st_mode))

    def _build(self, path: Path, plan: Manifest, build: Build, needs_bytes: int) -> Entry:
        """Build into a folder beside, then put it in place by rename; leave nothing half-built."""
        self._sweep(path)
        self._check_room(path.parent, needs_bytes)
        folder = _beside(path, f"{os.getpid()}.tmp")
        folder.mkdir()
        try:
            facts = dict(build(folder))
            _settle(folder, like=path.parent)
            manifest = Manifest(
                plan.kind, plan.name, plan.key, plan.built_at, plan.inputs, facts, manifests.survey(folder)
            )
            manifests.write(folder, manifest)
            _settle(folder, like=path.parent)
            if path.exists():
                path.rename(_beside(path, "damaged.tmp"))
            folder.rename(path)
            _sync(path.parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._disk_full(path.parent, max(needs_bytes, _written_bytes(folder))) from None
            raise
        except HarnessError as error:
            if (folder / BUILD_LOG).exists():
                log = (folder / BUILD_LOG).replace(_beside(path, "failed.log"))
                error.fix = f"{error.fix}\n    whole log: {log}".lstrip()
            raise
        finally:
            self._sweep(path)
        _beside(path, "failed.log").unlink(missing_ok=True)
        _put(_beside(path, "checked"), manifests.stamp(path, manifest))
        self._checked.add(path)
        return Entry(path, manifest)

    def _check_room(self, folder: Path, needs_bytes: int) -> None:
        if shutil.disk_usage(folder).free < needs_bytes:
            raise self._disk_full(folder, needs_bytes)

    def _disk_full(self, folder: Path, needs_bytes: int) -> HostLacks:
        free = shutil.disk_usage(folder).free
        return HostLacks(
            "build into the cache",
            on=str(folder),
            got=f"the disk is full: at least {needs_bytes / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free",
            fix="make room (`sriov-harness image clean --outdated`), or set SRIOV_HARNESS_CACHE to another disk",
        )

    def _sweep(self, path: Path) -> None:
        """Remove what lies half-built or half-removed beside this entry; only for who holds its lock."""
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)


def _beside(path: Path, role: str) -> Path:
    return path.with_name(f".{path.name}.{role}")


def _put(path: Path, text: str) -> None:
    """Replace a small file at once; not being allowed to is no error (a cache that we may only read)."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        with draft.open("w") as file:
            file.write(text)
            fit_mode(file.fileno(), path.parent)
        draft.replace(path)


def _settle(folder: Path, *, like: Path) -> None:
    """Give everything in a new entry the rights of the folder it goes to, and get it onto the disk."""
    allowed = stat.S_IMODE(like.stat().st_mode)
    for here, _, files in os.walk(folder):
        for name in files:
            path = Path(here) / name
            if not path.is_symlink():
                executable = 0o111 if path.stat().st_mode & 0o100 else 0
                path.chmod(0o600 | (allowed & (0o044 | executable)) | (0o100 & executable))
                _sync(path)
        Path(here).chmod(allowed | 0o700)
        _sync(Path(here))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _written_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
